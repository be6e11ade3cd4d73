//! Records of a batch into columns, a block at a time: first the used values of all records are found, then one column after the
//! other converts its values, the plain ones in loops of their own.

use super::decode::{column_of, find_fields, push_missing, push_value};
use super::layout::{Found, Layout, Text};
use crate::format::column::{Column, Reason, Values};
use crate::format::rows::Rows;
use crate::format::text::utf8;
use crate::format::words::{FixedTimestamps, integer};
use arrow::array::builder::PrimitiveBuilder;
use arrow::array::{Array, ArrowPrimitiveType, BinaryArray};
use arrow::datatypes::TimeUnit;

/// Records of a block: their text and what was found in it stay in the first cache.
const BLOCK_ROWS: usize = 128;

/// Reads the records of one batch.
#[derive(Debug)]
pub(super) struct Blocks {
    fail_on_missing: bool,
    layout: Layout,
    /// Values of the block, column by column.
    found: Vec<Found>,
    /// Records of the block that failed, by row; of one row the first column's reason is before the others.
    failures: Vec<(usize, Reason)>,
}

impl Blocks {
    /// Nothing read yet.
    pub(super) fn new(fail_on_missing: bool) -> Self {
        Blocks { fail_on_missing, layout: Layout::new(), found: Vec::new(), failures: Vec::new() }
    }

    /// Reads all records.
    pub(super) fn read(&mut self, values: &BinaryArray, rows: &mut Rows) {
        for first in (0..values.len()).step_by(BLOCK_ROWS) {
            let count = BLOCK_ROWS.min(values.len() - first);
            match text_of(values, first, count) {
                Some((text, ends)) => self.read_block(text, &ends, |row| values.is_null(first + row), rows),
                None => (first..first + count).for_each(|row| self.read_alone(values, row, rows)),
            }
        }
    }

    /// Reads a record of a block that is not text as a whole.
    fn read_alone(&mut self, values: &BinaryArray, row: usize, rows: &mut Rows) {
        match utf8(values.is_valid(row).then(|| values.value(row))) {
            Ok(record) => {
                let text = Text::new(record.as_bytes(), record.len()).expect("this is text");
                self.read_block(text, &[0, record.len()], |_| false, rows);
            }
            Err(reason) => rows.reject(reason),
        }
    }

    /// Reads records that end where the next begins.
    fn read_block(&mut self, text: Text<'_>, ends: &[usize], is_null: impl Fn(usize) -> bool, rows: &mut Rows) {
        let columns = rows.columns();
        self.found.clear();
        self.found.resize(columns.len() * BLOCK_ROWS, Found::Missing);
        for (row, range) in ends.windows(2).enumerate() {
            let [start, end] = *range else { continue };
            let found = self.found.get_mut(row..).unwrap_or_default();
            if is_null(row) || !self.layout.read(text, start..end, found) {
                let record = if is_null(row) { None } else { text.bytes.get(start..end) };
                let outcome = self.scan(record, start, columns, row);
                self.failures.extend(outcome.err().map(|reason| (row, reason)));
            }
        }
        let count = ends.len() - 1;
        for (column, found) in columns.iter_mut().zip(self.found.chunks(BLOCK_ROWS)) {
            push_column(column, text, found.get(..count).unwrap_or_default(), self.fail_on_missing, &mut self.failures);
        }
        self.failures.sort_by_key(|(row, _)| *row);
        self.failures.dedup_by_key(|(row, _)| *row);
        rows.end_rows(count, self.failures.drain(..));
    }

    /// Finds the fields of a record at `start` that does not have the layout of others.
    #[cold]
    fn scan(&mut self, record: Option<&[u8]>, start: usize, columns: &[Column], row: usize) -> Result<(), Reason> {
        let mut members = Vec::new();
        let outcome = utf8(record).and_then(|record| find_fields(record, columns, &mut members).map(|()| record));
        members.resize(columns.len(), None);
        for (slot, member) in self.found.iter_mut().skip(row).step_by(BLOCK_ROWS).zip(members) {
            *slot = match member {
                _ if outcome.is_err() => Found::Refused,
                None => Found::Missing,
                Some(member) => Found::value(start + member.at, member.value.len()),
            };
        }
        self.layout.learn(outcome?, |key| Some(column_of(key, columns, 0)? * BLOCK_ROWS));
        Ok(())
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

/// Appends a block's values to a column.
fn push_column(
    column: &mut Column,
    text: Text<'_>,
    found: &[Found],
    fail_on_missing: bool,
    failures: &mut Vec<(usize, Reason)>,
) {
    let mut row = 0;
    while row < found.len() {
        row += push_plain(column, text, found.get(row..).unwrap_or_default());
        if let Some(found) = found.get(row) {
            let pushed = push_one(column, text, *found, fail_on_missing);
            failures.extend(pushed.err().map(|reason| (row, reason)));
        }
        row += 1;
    }
}

/// Appends values as long as they are plain ones of their type; gives their number.
fn push_plain(column: &mut Column, text: Text<'_>, found: &[Found]) -> usize {
    let plain = |found: &Found| match *found {
        Found::Plain { start, len } => Some((text.bytes.get(start as usize..)?, len as usize)),
        _ => None,
    };
    let value = |found: &Found| match *found {
        Found::Value { start, len } => Some((text.bytes.get(start as usize..)?, len as usize)),
        _ => None,
    };
    let number = |found: &Found| value(found).and_then(|(bytes, len)| integer(bytes, len));
    match &mut column.values {
        Values::Text(strings) => strings.push_parts(found.iter().map(plain)),
        Values::Timestamp { builder, unit: TimeUnit::Millisecond, layout } => {
            let mut timestamps = FixedTimestamps::new(*layout);
            push_run(
                builder,
                found.iter().map(|found| {
                    let (bytes, len) = plain(found)?;
                    timestamps.read(bytes, len)
                }),
            )
        }
        Values::Int64(builder) => push_run(builder, found.iter().map(number)),
        Values::Int32(builder) => push_run(builder, found.iter().map(|found| i32::try_from(number(found)?).ok())),
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

/// Appends one value.
fn push_one(column: &mut Column, text: Text<'_>, found: Found, fail_on_missing: bool) -> Result<(), Reason> {
    let part = |start: u32, len: u32| text.part(start as usize..(start + len) as usize);
    match found {
        Found::Plain { start, len } => column.push_text(part(start, len)),
        Found::Value { start, len } => push_value(column, part(start, len)),
        Found::Missing => push_missing(column, fail_on_missing),
        Found::Refused => {
            column.push_filler();
            Ok(())
        }
    }
}
