//! Rows as JSON objects: fields in schema order, NULL written as `null`.

use super::separator;
use crate::error::Result;
use crate::format::column::unsupported;
use crate::format::text;
use crate::format::words::plain_len;
use crate::format::{Encoder, JsonOptions};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;

/// Encodes rows as JSON objects.
#[derive(Debug)]
pub(in crate::format) struct JsonEncoder {
    /// `{"first":`, `,"second":`, ... in schema order.
    openings: Vec<Vec<u8>>,
    values: Values,
}

/// What the values' texts depend on.
#[derive(Debug, Clone, Copy)]
struct Values {
    separator: u8,
    plain_decimals: bool,
}

impl JsonEncoder {
    /// An encoder for rows of `schema`. Input error: a type that JSON cannot hold.
    pub(in crate::format) fn new(options: &JsonOptions, schema: &SchemaRef) -> Result<Self> {
        schema.fields().iter().try_for_each(|field| check(field))?;
        let openings = schema.fields().iter().enumerate().map(|(index, field)| opening(index, field.name())).collect();
        let values = Values { separator: separator(options), plain_decimals: options.decimal_as_plain_number };
        Ok(JsonEncoder { openings, values })
    }
}

fn opening(index: usize, name: &str) -> Vec<u8> {
    let mut out = vec![if index == 0 { b'{' } else { b',' }];
    put_text(&mut out, name);
    out.push(b':');
    out
}

/// Checks that values of a field can be written.
fn check(field: &Field) -> Result<()> {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check(field)),
        DataType::List(field) => check(field),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => match pair.as_ref() {
                [key, value] if key.data_type() == &DataType::Utf8 => check(value),
                _ => Err(unsupported(field)),
            },
            _ => Err(unsupported(field)),
        },
        other if text::is_scalar(other) => Ok(()),
        _ => Err(unsupported(field)),
    }
}

impl Encoder for JsonEncoder {
    fn encode(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        for (opening, column) in self.openings.iter().zip(batch.columns()) {
            out.extend_from_slice(opening);
            self.values.put(out, column.as_ref(), row);
        }
        out.extend_from_slice(if self.openings.is_empty() { b"{}" } else { b"}" });
    }
}

impl Values {
    fn put(self, out: &mut Vec<u8>, array: &dyn Array, row: usize) {
        if array.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match array.data_type() {
            DataType::Struct(fields) => {
                for (index, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                    out.extend_from_slice(&opening(index, field.name()));
                    self.put(out, column.as_ref(), row);
                }
                out.extend_from_slice(if fields.is_empty() { b"{}" } else { b"}" });
            }
            DataType::List(_) => {
                let elements = array.as_list::<i32>().value(row);
                out.push(b'[');
                for element in 0..elements.len() {
                    if element > 0 {
                        out.push(b',');
                    }
                    self.put(out, elements.as_ref(), element);
                }
                out.push(b']');
            }
            DataType::Map(_, _) => {
                let entries = array.as_map().value(row);
                let keys = entries.column(0).as_string::<i32>();
                for entry in 0..entries.len() {
                    out.extend_from_slice(&opening(entry, keys.value(entry)));
                    self.put(out, entries.column(1).as_ref(), entry);
                }
                out.extend_from_slice(if entries.is_empty() { b"{}" } else { b"}" });
            }
            DataType::Utf8 => put_text(out, array.as_string::<i32>().value(row)),
            DataType::Boolean => text::put_display(out, array.as_boolean().value(row)),
            _ => self.put_scalar(out, array, row),
        }
    }

    /// Numbers as they are; what is not finite and everything else in quotes (none of it needs escapes).
    fn put_scalar(self, out: &mut Vec<u8>, array: &dyn Array, row: usize) {
        let start = out.len();
        let is_number = array.data_type().is_numeric();
        if !is_number {
            out.push(b'"');
        }
        text::put_scalar(out, array, row, self.separator, self.plain_decimals);
        if !is_number {
            out.push(b'"');
        } else if !matches!(out.get(start..), Some([b'-', b'0'..=b'9', ..] | [b'0'..=b'9', ..])) {
            out.insert(start, b'"');
            out.push(b'"');
        }
    }
}

/// Writes a string with its quotes, escaped as Jackson does: control characters, quotes, backslashes, and characters beyond
/// 16 bits as surrogate pairs.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let put_unit = |out: &mut Vec<u8>, unit: u16| {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            out.extend(HEX.get(usize::from(unit >> shift & 15)));
        }
    };
    out.push(b'"');
    let mut rest = text;
    while let Some((plain, special)) =
        rest.split_at_checked(unescaped_len(rest)).filter(|(_, special)| !special.is_empty())
    {
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some('\u{8}') => out.extend_from_slice(b"\\b"),
            Some('\u{c}') => out.extend_from_slice(b"\\f"),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some(other) => other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| put_unit(out, *unit)),
            None => (),
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// Length of the part of a text that is written as it is.
fn unescaped_len(text: &str) -> usize {
    let plain = text.as_bytes().get(..plain_len(text.as_bytes())).unwrap_or_default();
    if plain.is_ascii() { plain.len() } else { plain.iter().position(|byte| *byte >= 0xF0).unwrap_or(plain.len()) }
}
