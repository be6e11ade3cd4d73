//! Rows as CSV, quoted where Jackson quotes.

use super::check;
use crate::error::Result;
use crate::format::{CsvOptions, Encoder, text};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

/// Texts longer than this are put in quotes without a look at them.
const UNQUOTED_CHARS_MAX: usize = 24;

/// Encodes rows as CSV.
#[derive(Debug)]
pub(in crate::format) struct CsvEncoder {
    options: CsvOptions,
    /// Texts with a smaller character are put in quotes.
    safe_from: u8,
}

impl CsvEncoder {
    /// An encoder for rows of `schema`. Input error: a type or an option that CSV does not have.
    pub(in crate::format) fn new(options: &CsvOptions, schema: &SchemaRef) -> Result<Self> {
        check(options, schema)?;
        let safe_from = options.delimiter.max(options.quote.unwrap_or(0)).max(b'\r') + 1;
        Ok(CsvEncoder { options: options.clone(), safe_from })
    }

    fn put_text(&self, out: &mut Vec<u8>, text: &[u8]) {
        let quote = match self.options.quote {
            Some(quote) if self.needs_quotes(text, quote) => quote,
            _ => return out.extend_from_slice(text),
        };
        out.push(quote);
        for part in text.split_inclusive(|byte| *byte == quote) {
            out.extend_from_slice(part);
            if part.last() == Some(&quote) {
                out.push(quote);
            }
        }
        out.push(quote);
    }

    /// [`CsvEncoder::put_text`] of what has been written from `start` on.
    fn quote_end(&self, out: &mut Vec<u8>, start: usize) {
        let written = out.get(start..).unwrap_or_default();
        let Some(quote) = self.options.quote.filter(|quote| self.needs_quotes(written, *quote)) else { return };
        if written.contains(&quote) {
            let text = out.split_off(start);
            return self.put_text(out, &text);
        }
        out.insert(start, quote);
        out.push(quote);
    }

    fn needs_quotes(&self, text: &[u8], quote: u8) -> bool {
        // Jackson counts UTF-16 units.
        let is_long = text.len() > UNQUOTED_CHARS_MAX && {
            let chars = text.iter().filter(|byte| !matches!(byte, 0x80..0xC0)).count();
            chars + text.iter().filter(|byte| **byte >= 0xF0).count() > UNQUOTED_CHARS_MAX
        };
        is_long || text.iter().any(|byte| *byte < self.safe_from || *byte == quote || *byte == b'\\')
    }
}

impl Encoder for CsvEncoder {
    fn encode(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        for (index, column) in batch.columns().iter().enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            if column.is_null(row) {
                out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or_default().as_bytes());
                continue;
            }
            match column.data_type() {
                DataType::Utf8 => self.put_text(out, column.as_string::<i32>().value(row).as_bytes()),
                DataType::Boolean => text::put_display(out, column.as_boolean().value(row)),
                other if other.is_numeric() => {
                    text::put_scalar(out, column, row, b' ', self.options.decimal_as_plain_number);
                }
                _ => {
                    let start = out.len();
                    text::put_scalar(out, column, row, b' ', false);
                    self.quote_end(out, start);
                }
            }
        }
    }
}
