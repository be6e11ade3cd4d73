//! JSON objects into columns. One pass over the bytes finds the used fields and checks all of the text; then only the used
//! values are converted. What is here does one record at a time and knows every rule; `records` does the common ones faster.

use super::encode::put_text;
use super::records::JsonRecords;
use super::scan::{Malformed, Member, Scanner, unescape};
use super::separator;
use crate::error::Result;
use crate::format::column::{Column, Reason, Texts, Values};
use crate::format::text::{ShortMonth, parse_f64, put_float, shortened};
use crate::format::{Decoded, Decoder, JsonOptions, blocks, rows::Rows, used_schema};
use arrow::array::{Array, BinaryArray};
use arrow::datatypes::SchemaRef;
use std::borrow::Cow;

/// Decodes JSON values.
#[derive(Debug)]
pub(in crate::format) struct JsonDecoder {
    pub(super) schema: SchemaRef,
    options: JsonOptions,
}

impl JsonDecoder {
    /// A decoder of the columns `used` of `declared`. Input error: a type that JSON cannot hold.
    pub(in crate::format) fn new(options: &JsonOptions, declared: &SchemaRef, used: &[usize]) -> Result<Self> {
        let decoder = JsonDecoder { schema: used_schema(declared, used), options: options.clone() };
        decoder.columns(0)?;
        Ok(decoder)
    }

    pub(super) fn columns(&self, capacity: usize) -> Result<Vec<Column>> {
        let texts = Texts { separator: separator(&self.options), short_month: ShortMonth::Refuse };
        self.schema.fields().iter().map(|field| Column::new(field, texts, capacity)).collect()
    }
}

impl Decoder for JsonDecoder {
    fn decode(&self, values: &BinaryArray) -> Decoded {
        let columns = self.columns(values.len()).expect("the constructor has made these columns before");
        let mut rows = Rows::new(&self.schema, columns);
        blocks::read(values, &mut JsonRecords::new(self.options.fail_on_missing_field), &mut rows);
        rows.finish()
    }
}

/// Finds the field of each column in an object that is the whole of `text`; of a name given twice the last counts.
pub(super) fn find_fields<'a>(
    text: &'a str,
    columns: &[Column],
    found: &mut Vec<Option<Member<'a>>>,
) -> Result<(), Reason> {
    found.clear();
    found.resize(columns.len(), None);
    let mut scanner = Scanner::new(text);
    if !scanner.at_object() {
        return Err(format!("not a JSON object: {}", shortened(text)));
    }
    // Fields mostly come in the same order, so the next column is tried first.
    let mut next = 0;
    let scanned = scanner.members(0, |member| {
        if let Some(index) = column_of(member.key, columns, next) {
            next = index + 1;
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(member);
            }
        }
    });
    scanned.and_then(|()| scanner.end()).map_err(|malformed| not_json(malformed, text))
}

#[cold]
fn not_json(malformed: Malformed, text: &str) -> Reason {
    format!("not JSON at byte {}: {}: {}", malformed.at, malformed.what, shortened(text))
}

/// The column that a key (with its quotes) names, looking from `next` on.
pub(super) fn column_of(key: &str, columns: &[Column], next: usize) -> Option<usize> {
    let name = inside(key);
    let (before, after) = columns.split_at(next.min(columns.len()));
    let place = |columns: &[Column], name: &str| columns.iter().position(|column| column.name == name);
    if let Some(index) = place(after, name) {
        return Some(before.len() + index);
    }
    if let Some(index) = place(before, name) {
        return Some(index);
    }
    if name.contains('\\') { place(columns, &unescape(name)?) } else { None }
}

/// What is between the quotes of a string or the brackets of an array.
fn inside(value: &str) -> &str {
    value.get(1..value.len().saturating_sub(1)).unwrap_or_default()
}

/// Appends one element to each column; the reason is that of the first column that refused.
pub(super) fn push_fields(
    columns: &mut [Column],
    found: &[Option<Member<'_>>],
    fail_on_missing: bool,
) -> Result<(), Reason> {
    let mut outcome = Ok(());
    for (column, member) in columns.iter_mut().zip(found) {
        let pushed = match member {
            Some(member) => push_value(column, member.value),
            None => push_missing(column, fail_on_missing),
        };
        outcome = outcome.and(pushed);
    }
    outcome
}

/// Appends an element for a field that is not there.
pub(super) fn push_missing(column: &mut Column, fail_on_missing: bool) -> Result<(), Reason> {
    if !fail_on_missing {
        return column.push_null();
    }
    column.push_filler();
    Err(format!("column '{}': the field is missing", column.name))
}

/// Appends the value of a JSON text that the scanner has passed.
pub(super) fn push_value(column: &mut Column, value: &str) -> Result<(), Reason> {
    match (value.as_bytes().first(), &mut column.values) {
        (Some(b'n'), _) => column.push_null(),
        (Some(b'{'), Values::Struct { .. }) => push_struct(column, value),
        (Some(b'['), Values::List { .. }) => push_list(column, value),
        (Some(b'{'), Values::Map { .. }) => push_map(column, value),
        (Some(b'{' | b'['), Values::Text(_)) => match compact(value) {
            Some(text) => column.push_text(&text),
            None => Err(column.refuse(value)),
        },
        (Some(b'"'), _) => match text_inside(value) {
            Some(text) => column.push_text(&text),
            None => Err(column.refuse(value)),
        },
        (Some(b't'), Values::Boolean(_) | Values::Text(_)) => column.push_text(value),
        (Some(b'f'), Values::Boolean(_) | Values::Text(_)) => column.push_text(value),
        (Some(b'-' | b'0'..=b'9'), _) => push_number(column, value),
        _ => Err(column.refuse(value)),
    }
}

/// The characters of a string value.
fn text_inside(value: &str) -> Option<Cow<'_, str>> {
    let raw = inside(value);
    if raw.as_bytes().contains(&b'\\') { unescape(raw).map(Cow::Owned) } else { Some(Cow::Borrowed(raw)) }
}

/// Appends a number. INT and BIGINT cut a fraction off; times and BYTES are not numbers.
#[inline]
fn push_number(column: &mut Column, value: &str) -> Result<(), Reason> {
    match &column.values {
        Values::Int32(_) | Values::Int64(_) if value.contains(['.', 'e', 'E']) => match whole_part(value) {
            Some(whole) => column.push_text(&whole),
            None => Err(column.refuse(value)),
        },
        Values::Bytes(_) | Values::Date { .. } | Values::Time(_) | Values::Timestamp { .. } => {
            Err(column.refuse(value))
        }
        _ => column.push_text(value),
    }
}

/// The whole part of a number with a fraction or an exponent, if 64 bits can hold it.
fn whole_part(value: &str) -> Option<String> {
    let number = parse_f64(value)?.trunc();
    // Negative zero prints as "-0", which reads as 0.
    (number.abs() < 9.3e18).then(|| format!("{number:.0}"))
}

fn push_struct(column: &mut Column, value: &str) -> Result<(), Reason> {
    let name = &column.name;
    let Values::Struct { children, valid, len, .. } = &mut column.values else { return Err(column.refuse(value)) };
    let mut found = Vec::new();
    let pushed = match find_fields(value, children, &mut found) {
        Ok(()) => push_fields(children, &found, false),
        Err(reason) => {
            children.iter_mut().for_each(Column::push_filler);
            Err(reason)
        }
    };
    valid.append_non_null();
    *len += 1;
    pushed.map_err(|reason| format!("column '{name}': {reason}"))
}

fn push_list(column: &mut Column, value: &str) -> Result<(), Reason> {
    let name = &column.name;
    let Values::List { child, offsets, valid } = &mut column.values else { return Err(column.refuse(value)) };
    let mut outcome = Ok(());
    let mut count = 0;
    let scanned = Scanner::new(value).elements(0, |element| {
        count += 1;
        let pushed = push_value(child, element);
        if outcome.is_ok() {
            outcome = pushed;
        }
    });
    offsets.push(offsets.last().copied().unwrap_or(0) + count);
    valid.append_non_null();
    let scanned = scanned.map_err(|malformed| not_json(malformed, value));
    outcome.and(scanned).map_err(|reason| format!("column '{name}': {reason}"))
}

fn push_map(column: &mut Column, value: &str) -> Result<(), Reason> {
    let name = &column.name;
    let Values::Map { key, value: values, offsets, valid, .. } = &mut column.values else {
        return Err(column.refuse(value));
    };
    let mut pairs: Vec<(Cow<'_, str>, &str)> = Vec::new();
    let mut outcome = Ok(());
    let scanned = Scanner::new(value).members(0, |Member { key, value, .. }| match text_inside(key) {
        Some(key) => match pairs.iter_mut().find(|(other, _)| *other == key) {
            Some(pair) => pair.1 = value,
            None => pairs.push((key, value)),
        },
        None => outcome = Err(format!("{} is not a key", shortened(key))),
    });
    for (name, value) in &pairs {
        let pushed = key.push_text(name).and(push_value(values, value));
        outcome = outcome.and(pushed);
    }
    let count = i32::try_from(pairs.len()).unwrap_or(0);
    offsets.push(offsets.last().copied().unwrap_or(0) + count);
    valid.append_non_null();
    let scanned = scanned.map_err(|malformed| not_json(malformed, value));
    outcome.and(scanned).map_err(|reason| format!("column '{name}': {reason}"))
}

/// An object or array as Flink puts it into a STRING: no white space, escapes and fractions normalized. `None`: half of a
/// surrogate pair.
fn compact(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut complete = true;
    put_compact(&mut out, value, &mut complete);
    if complete { String::from_utf8(out).ok() } else { None }
}

fn put_compact(out: &mut Vec<u8>, value: &str, complete: &mut bool) {
    let mut comma = false;
    let mut separate = |out: &mut Vec<u8>| {
        if std::mem::replace(&mut comma, true) {
            out.push(b',');
        }
    };
    let string = |out: &mut Vec<u8>, raw: &str, complete: &mut bool| match text_inside(raw) {
        Some(text) => put_text(out, &text),
        None => *complete = false,
    };
    match value.as_bytes().first() {
        Some(b'{') => {
            out.push(b'{');
            let scanned = Scanner::new(value).members(0, |Member { key, value, .. }| {
                separate(out);
                string(out, key, complete);
                out.push(b':');
                put_compact(out, value, complete);
            });
            *complete &= scanned.is_ok();
            out.push(b'}');
        }
        Some(b'[') => {
            out.push(b'[');
            let scanned = Scanner::new(value).elements(0, |value| {
                separate(out);
                put_compact(out, value, complete);
            });
            *complete &= scanned.is_ok();
            out.push(b']');
        }
        Some(b'"') => string(out, value, complete),
        Some(b'-' | b'0'..=b'9') if value.contains(['.', 'e', 'E']) => match parse_f64(value) {
            Some(number) if number.is_finite() => put_float(out, &format!("{number:e}")),
            _ => out.extend_from_slice(value.as_bytes()),
        },
        _ => out.extend_from_slice(value.as_bytes()),
    }
}
