//! Records of a batch into columns, a block at a time: first the used values of all records are found, then one column after the
//! other converts its values, the plain ones in loops of their own.

use super::column::{Column, Reason, Values};
use super::rows::Rows;
use super::text::utf8;
use super::words::{FixedTimestamps, Fraction, integer, is_simple};
use arrow::array::builder::PrimitiveBuilder;
use arrow::array::{Array, ArrowPrimitiveType, BinaryArray};
use arrow::datatypes::TimeUnit;
use std::ops::Range;

/// Records of a block: their text and what was found in it stay in the first cache.
const BLOCK_ROWS: usize = 128;

/// Text of some records, one behind the other, and any bytes behind them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The bytes of the records, and all that stand behind.
    pub bytes: &'a [u8],
    /// Whether [`is_simple`] is true of the records.
    pub simple: bool,
    /// Length of the records.
    len: usize,
}

impl<'a> Text<'a> {
    /// The text of records in the first `len` of some bytes; `None`: they are no text.
    pub(super) fn new(bytes: &'a [u8], len: usize) -> Option<Self> {
        let records = bytes.get(..len)?;
        let simple = is_simple(records);
        (simple || std::str::from_utf8(records).is_ok()).then_some(Text { bytes, simple, len })
    }

    /// A part that ends where text ends.
    pub(super) fn part(self, range: Range<usize>) -> &'a str {
        self.bytes.get(range).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or_default()
    }

    /// Whether a part begins and ends between characters.
    fn is_whole(self, range: &Range<usize>) -> bool {
        let splits = |at: usize| at < self.len && matches!(self.bytes.get(at), Some(0x80..0xC0));
        self.simple || !(splits(range.start) || splits(range.end))
    }
}

/// The value of a field: places in a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The record has no value for the column.
    Missing,
    /// The record is none of its format.
    Refused,
    /// Text as it is.
    Plain { start: u32, len: u32 },
    /// A value in the notation of its format.
    Value { start: u32, len: u32 },
}

impl Found {
    /// Text that begins at `start`.
    #[inline(always)]
    pub(super) fn plain(start: usize, len: usize) -> Self {
        // The bytes of an Arrow array of bytes have 31-bit places.
        Found::Plain { start: start as u32, len: len as u32 }
    }

    /// A value that begins at `start`.
    #[inline(always)]
    pub(super) fn value(start: usize, len: usize) -> Self {
        Found::Value { start: start as u32, len: len as u32 }
    }
}

/// What is particular to a format.
pub(super) trait Records {
    /// Finds the values of a record. That of the column `index` goes to `found[slot(index)]`; all are [`Found::Missing`] before.
    fn find(
        &mut self,
        text: Text<'_>,
        record: Range<usize>,
        columns: &[Column],
        found: &mut [Found],
    ) -> Result<(), Reason>;

    /// Appends [`Found::Missing`], or the value that `text` is: [`Found::Plain`] or not.
    fn push(&self, column: &mut Column, text: Option<&str>, is_plain: bool) -> Result<(), Reason>;
}

/// Where the value of a column belongs.
pub(super) fn slot(column: usize) -> usize {
    column * BLOCK_ROWS
}

/// Reads all records of a batch.
pub(super) fn read(values: &BinaryArray, records: &mut impl Records, rows: &mut Rows) {
    let mut blocks = Blocks { records, found: Vec::new(), failures: Vec::new() };
    for first in (0..values.len()).step_by(BLOCK_ROWS) {
        let count = BLOCK_ROWS.min(values.len() - first);
        match text_of(values, first, count) {
            Some((text, ends)) => blocks.read(text, &ends, |row| values.is_null(first + row), rows),
            None => (first..first + count).for_each(|row| blocks.read_alone(values, row, rows)),
        }
    }
}

/// The text of some records, if it is text as a whole, and where they begin and end in it.
fn text_of(values: &BinaryArray, first: usize, count: usize) -> Option<(Text<'_>, Vec<usize>)> {
    let offsets = values.value_offsets().get(first..=first + count)?;
    let start = usize::try_from(*offsets.first()?).ok()?;
    let ends: Vec<usize> = offsets.iter().map(|end| usize::try_from(*end).unwrap_or(0) - start).collect();
    let bytes = values.value_data().get(start..)?;
    Some((Text::new(bytes, *ends.last()?)?, ends))
}

struct Blocks<'a, R> {
    records: &'a mut R,
    /// Values of the block, column by column.
    found: Vec<Found>,
    /// Records of the block that failed, by row; of one row the first column's reason is before the others.
    failures: Vec<(usize, Reason)>,
}

impl<R: Records> Blocks<'_, R> {
    /// Reads a record of a block that is not text as a whole.
    fn read_alone(&mut self, values: &BinaryArray, row: usize, rows: &mut Rows) {
        match utf8(values.is_valid(row).then(|| values.value(row))) {
            Ok(record) => {
                let text = Text::new(record.as_bytes(), record.len()).expect("this is text");
                self.read(text, &[0, record.len()], |_| false, rows);
            }
            Err(reason) => rows.reject(reason),
        }
    }

    /// Reads records that end where the next begins.
    fn read(&mut self, text: Text<'_>, ends: &[usize], is_null: impl Fn(usize) -> bool, rows: &mut Rows) {
        let columns = rows.columns();
        self.found.clear();
        self.found.resize(columns.len() * BLOCK_ROWS, Found::Missing);
        for (row, range) in ends.windows(2).enumerate() {
            let [start, end] = *range else { continue };
            let found = self.found.get_mut(row..).unwrap_or_default();
            let outcome = match is_null(row) {
                false if text.is_whole(&(start..end)) => self.records.find(text, start..end, columns, found),
                false => utf8(text.bytes.get(start..end)).map(drop),
                true => utf8(None).map(drop),
            };
            if let Err(reason) = outcome {
                found.iter_mut().step_by(BLOCK_ROWS).for_each(|found| *found = Found::Refused);
                self.failures.push((row, reason));
            }
        }
        let count = ends.len() - 1;
        for (column, found) in columns.iter_mut().zip(self.found.chunks(BLOCK_ROWS)) {
            let found = found.get(..count).unwrap_or_default();
            push_column(self.records, column, text, found, &mut self.failures);
        }
        self.failures.sort_by_key(|(row, _)| *row);
        self.failures.dedup_by_key(|(row, _)| *row);
        rows.end_rows(count, self.failures.drain(..));
    }
}

/// Appends a block's values to a column.
fn push_column(
    records: &impl Records,
    column: &mut Column,
    text: Text<'_>,
    found: &[Found],
    failures: &mut Vec<(usize, Reason)>,
) {
    let part = |start: u32, len: u32| Some(text.part(start as usize..(start + len) as usize));
    let mut row = 0;
    while row < found.len() {
        row += push_plain(column, text, found.get(row..).unwrap_or_default());
        let pushed = match found.get(row) {
            Some(Found::Plain { start, len }) => records.push(column, part(*start, *len), true),
            Some(Found::Value { start, len }) => records.push(column, part(*start, *len), false),
            Some(Found::Missing) => records.push(column, None, false),
            Some(Found::Refused) => {
                column.push_filler();
                Ok(())
            }
            None => Ok(()),
        };
        failures.extend(pushed.err().map(|reason| (row, reason)));
        row += 1;
    }
}

/// Appends values as long as they are plain ones of their type; gives their number.
fn push_plain(column: &mut Column, text: Text<'_>, found: &[Found]) -> usize {
    let plain = |found: &Found| match *found {
        Found::Plain { start, len } => Some((text.bytes.get(start as usize..)?, len as usize)),
        _ => None,
    };
    // Numbers look the same in all notations.
    let any = |found: &Found| match *found {
        Found::Plain { start, len } | Found::Value { start, len } => {
            Some((text.bytes.get(start as usize..)?, len as usize))
        }
        _ => None,
    };
    let number = |found: &Found| any(found).and_then(|(bytes, len)| integer(bytes, len));
    let fraction = |found: &Found| any(found).and_then(|(bytes, len)| Fraction::read(bytes, len));
    match &mut column.values {
        Values::Text(strings) => strings.push_parts(found.iter().map(plain)),
        Values::Timestamp { builder, unit: TimeUnit::Millisecond, layout } => {
            let mut timestamps = FixedTimestamps::new(*layout);
            let timestamp = |found| plain(found).and_then(|(bytes, len)| timestamps.read(bytes, len));
            push_run(builder, found.iter().map(timestamp))
        }
        Values::Int64(builder) => push_run(builder, found.iter().map(number)),
        Values::Int32(builder) => {
            push_run(builder, found.iter().map(|found| number(found).and_then(|number| i32::try_from(number).ok())))
        }
        Values::Float64(builder) => {
            push_run(builder, found.iter().map(|found| fraction(found).and_then(Fraction::to_f64)))
        }
        Values::Decimal { builder, precision, scale } => {
            let limit = 10i128.pow(u32::from(*precision));
            let decimal = |found| fraction(found).and_then(|fraction| fraction.to_decimal(*scale, limit));
            push_run(builder, found.iter().map(decimal))
        }
        _ => 0,
    }
}

/// Appends the values before the first `None`; gives their number.
#[inline(always)]
fn push_run<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    values: impl Iterator<Item = Option<T::Native>>,
) -> usize {
    let mut run = [T::Native::default(); BLOCK_ROWS];
    let mut count = 0;
    for (slot, value) in run.iter_mut().zip(values) {
        let Some(value) = value else { break };
        *slot = value;
        count += 1;
    }
    builder.append_slice(run.get(..count).unwrap_or_default());
    count
}
