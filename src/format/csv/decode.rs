//! CSV rows into columns.

use super::check;
use crate::error::Result;
use crate::format::blocks::{self, Found, Records, Text, slot};
use crate::format::column::{Column, Reason, Texts};
use crate::format::rows::Rows;
use crate::format::text::{ShortMonth, shortened};
use crate::format::words::len_before;
use crate::format::{CsvOptions, Decoded, Decoder, used_schema};
use arrow::array::{Array, BinaryArray};
use arrow::datatypes::SchemaRef;
use std::borrow::Cow;
use std::ops::Range;

/// Decodes CSV rows.
#[derive(Debug)]
pub(in crate::format) struct CsvDecoder {
    pub(super) schema: SchemaRef,
    pub(super) options: CsvOptions,
    /// For each declared column its place among the used ones.
    pub(super) places: Vec<Option<usize>>,
}

impl CsvDecoder {
    /// A decoder of the columns `used` of `declared`. Input error: a type or an option that CSV does not have.
    pub(in crate::format) fn new(options: &CsvOptions, declared: &SchemaRef, used: &[usize]) -> Result<Self> {
        let schema = used_schema(declared, used);
        check(options, &schema)?;
        let place = |index| used.iter().position(|used| *used == index);
        let places = (0..declared.fields().len()).map(place).collect();
        Ok(CsvDecoder { schema, options: options.clone(), places })
    }

    pub(super) fn columns(&self, capacity: usize) -> Vec<Column> {
        let texts = Texts { separator: b' ', short_month: ShortMonth::NextMonth };
        let column = |field| Column::new(field, texts, capacity).expect("the constructor has checked the types");
        self.schema.fields().iter().map(column).collect()
    }

    /// Cuts a row into its fields: `each` gets the number of the declared column, where the field begins, its length, and what it says.
    pub(super) fn cut<'a>(
        &self,
        row: &'a str,
        mut each: impl FnMut(usize, usize, usize, Cow<'a, str>),
    ) -> Result<(), Reason> {
        let row = row.strip_suffix('\n').map_or(row, |row| row.strip_suffix('\r').unwrap_or(row));
        let want = self.places.len();
        let mut have = 0;
        let mut rest = Some(row);
        while let Some(text) = rest {
            let (field, behind) = self.field(text)?;
            if have == want {
                return Err(format!("more than {want} fields: {}", shortened(row)));
            }
            let len = behind.map_or(text.len(), |behind| text.len() - behind.len() - 1);
            each(have, row.len() - text.len(), len, field);
            have += 1;
            rest = behind;
        }
        if have < want { Err(format!("{have} fields instead of {want}: {}", shortened(row))) } else { Ok(()) }
    }

    /// The first field of a text, and what is behind its delimiter (`None`: it was the last).
    fn field<'a>(&self, text: &'a str) -> Result<(Cow<'a, str>, Option<&'a str>), Reason> {
        let delimiter = char::from(self.options.delimiter);
        if let Some(quote) = self.options.quote
            && text.as_bytes().first() == Some(&quote)
        {
            return quoted(text, char::from(quote), delimiter);
        }
        let (field, rest) = match text.split_once(delimiter) {
            Some((field, rest)) => (field, Some(rest)),
            None => (text, None),
        };
        if field.contains(['\n', '\r']) {
            return Err(format!("a line end outside quotes: {}", shortened(field)));
        }
        Ok((Cow::Borrowed(field), rest))
    }

    fn is_null(&self, field: &[u8]) -> bool {
        self.options.null_literal.as_ref().is_some_and(|literal| literal.as_bytes() == field)
    }

    /// Finds the used fields of a row without surprises: unquoted, or quoted without quotes inside. `None`: the rules have to say what it is.
    #[inline]
    fn find_plain(&self, text: Text<'_>, row: &Range<usize>, found: &mut [Found]) -> Option<()> {
        let CsvOptions { delimiter, quote, .. } = self.options;
        let mut rest = text.bytes.get(row.start..)?;
        // What is left of the bytes where the row ends.
        let behind = text.bytes.len().checked_sub(row.end)?;
        let mut places = self.places.iter();
        loop {
            let place = places.next()?;
            let left = rest.len().checked_sub(behind)?;
            let is_quoted = quote.is_some() && rest.first() == quote.as_ref() && left > 0;
            let (field, len, passed) = match quote {
                Some(quote) if is_quoted => {
                    let field = rest.get(1..)?;
                    let len = len_before(field, quote);
                    (field, len, len + 2)
                }
                _ => {
                    let len = len_before(rest, delimiter).min(left);
                    (rest, len, len)
                }
            };
            let has_line_end = || memchr::memchr2(b'\n', b'\r', field.get(..len).unwrap_or_default()).is_some();
            if passed > left || (!text.simple && !is_quoted && has_line_end()) {
                return None;
            }
            if let Some(found) = place.and_then(|place| found.get_mut(slot(place))) {
                let is_null = self.options.null_literal.is_some() && self.is_null(field.get(..len)?);
                let start = text.bytes.len() - field.len();
                *found = if is_null { Found::Missing } else { Found::plain(start, len) };
            }
            if passed == left {
                return places.next().is_none().then_some(());
            }
            rest = rest.get(passed..)?.strip_prefix(&[delimiter])?;
        }
    }

    /// Finds the used fields of a row by the rules.
    #[cold]
    fn find_cut(&self, row: &str, start: usize, found: &mut [Found]) -> Result<(), Reason> {
        self.cut(row, |index, at, len, field| {
            let place = self.places.get(index).copied().flatten();
            let Some(found) = place.and_then(|place| found.get_mut(slot(place))) else { return };
            let at = start + at;
            *found = match field {
                _ if self.is_null(field.as_bytes()) => Found::Missing,
                Cow::Borrowed(field) if field.len() == len => Found::plain(at, len),
                _ => Found::value(at, len),
            };
        })
    }
}

impl Records for &CsvDecoder {
    #[inline]
    fn find(&mut self, text: Text<'_>, row: Range<usize>, _: &[Column], found: &mut [Found]) -> Result<(), Reason> {
        match self.find_plain(text, &row, found) {
            Some(()) => Ok(()),
            None => self.find_cut(text.part(row.clone()), row.start, found),
        }
    }

    fn push(&self, column: &mut Column, text: Option<&str>, is_plain: bool) -> Result<(), Reason> {
        match text {
            None => column.push_null(),
            Some(text) if is_plain => column.push_text(text),
            Some(text) => self.field(text).and_then(|(field, _)| column.push_text(&field)),
        }
    }
}

/// [`CsvDecoder::field`] of a text that starts with a quote.
fn quoted(text: &str, quote: char, delimiter: char) -> Result<(Cow<'_, str>, Option<&str>), Reason> {
    let body = text.get(1..).unwrap_or_default();
    let mut value = Cow::Borrowed("");
    let mut rest = body;
    loop {
        let Some((part, behind)) = rest.split_once(quote) else {
            return Err(format!("a quoted field does not end: {}", shortened(text)));
        };
        value = if value.is_empty() { Cow::Borrowed(part) } else { Cow::Owned(value.into_owned() + part) };
        match behind.strip_prefix(quote) {
            Some(behind) => {
                value = Cow::Owned(value.into_owned() + text.get(..1).unwrap_or_default());
                rest = behind;
            }
            None => {
                // Jackson passes over spaces between the closing quote and the delimiter.
                let behind = behind.trim_start_matches(|c: char| matches!(c, ' ' | '\t') && c != delimiter);
                return match behind.strip_prefix(delimiter) {
                    Some(rest) => Ok((value, Some(rest))),
                    None if behind.is_empty() => Ok((value, None)),
                    None => Err(format!("a delimiter was expected behind a closing quote: {}", shortened(behind))),
                };
            }
        }
    }
}

impl Decoder for CsvDecoder {
    fn decode(&self, values: &BinaryArray) -> Decoded {
        let mut rows = Rows::new(&self.schema, self.columns(values.len()));
        blocks::read(values, &mut &*self, &mut rows);
        rows.finish()
    }
}
