//! CSV as Flink reads and writes it (that is: as Jackson does).

use super::column::{Column, Reason, Texts, unsupported};
use super::rows::Rows;
use super::text::{self, ShortMonth, shortened};
use super::{CsvOptions, Decoded, Decoder, Encoder, used_schema};
use crate::error::{Error, Result};
use arrow::array::{Array, AsArray, BinaryArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use std::borrow::Cow;

fn check(options: &CsvOptions, schema: &SchemaRef) -> Result<()> {
    let quoted_by = |byte| options.quote == Some(byte);
    if quoted_by(options.delimiter) || matches!(options.delimiter, b'\n' | b'\r') {
        return Err(Error::input(format!("{:?} cannot delimit CSV fields", char::from(options.delimiter))));
    }
    if !options.delimiter.is_ascii() || options.quote.is_some_and(|quote| !quote.is_ascii()) {
        return Err(Error::input("CSV delimiter and quote character must be ASCII"));
    }
    match schema.fields().iter().find(|field| !text::is_scalar(field.data_type())) {
        Some(field) => Err(unsupported(field)),
        None => Ok(()),
    }
}

/// Decodes CSV rows.
#[derive(Debug)]
pub(super) struct CsvDecoder {
    schema: SchemaRef,
    options: CsvOptions,
    /// For each declared column its place among the used ones.
    places: Vec<Option<usize>>,
}

impl CsvDecoder {
    /// A decoder of the columns `used` of `declared`. Input error: a type or an option that CSV does not have.
    pub(super) fn new(options: &CsvOptions, declared: &SchemaRef, used: &[usize]) -> Result<Self> {
        let schema = used_schema(declared, used);
        check(options, &schema)?;
        let place = |index| used.iter().position(|used| *used == index);
        let places = (0..declared.fields().len()).map(place).collect();
        Ok(CsvDecoder { schema, options: options.clone(), places })
    }

    fn columns(&self, capacity: usize) -> Vec<Column> {
        let texts = Texts { separator: b' ', short_month: ShortMonth::NextMonth };
        let column = |field| Column::new(field, texts, capacity).expect("the constructor has checked the types");
        self.schema.fields().iter().map(column).collect()
    }

    /// Finds the used fields of a row.
    fn find<'a>(&self, row: &'a str, found: &mut Vec<Cow<'a, str>>) -> Result<(), Reason> {
        found.clear();
        found.resize(self.schema.fields().len(), Cow::Borrowed(""));
        let row = row.strip_suffix('\n').map_or(row, |row| row.strip_suffix('\r').unwrap_or(row));
        let mut places = self.places.iter();
        let mut rest = Some(row);
        while let Some(text) = rest {
            let (field, behind) = self.field(text)?;
            match places.next() {
                Some(Some(place)) => {
                    if let Some(slot) = found.get_mut(*place) {
                        *slot = field;
                    }
                }
                Some(None) => (),
                None => return Err(format!("more than {} fields: {}", self.places.len(), shortened(row))),
            }
            rest = behind;
        }
        match places.len() {
            0 => Ok(()),
            missing => {
                let (have, want) = (self.places.len() - missing, self.places.len());
                Err(format!("{have} fields instead of {want}: {}", shortened(row)))
            }
        }
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

    fn push(&self, columns: &mut [Column], found: &[Cow<'_, str>]) -> Result<(), Reason> {
        let mut outcome = Ok(());
        for (column, field) in columns.iter_mut().zip(found) {
            let is_null = self.options.null_literal.as_ref().is_some_and(|literal| literal.as_str() == field);
            let pushed = if is_null { column.push_null() } else { column.push_text(field) };
            outcome = outcome.and(pushed);
        }
        outcome
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
        let mut found = Vec::new();
        for value in values {
            let text = text::utf8(value);
            match text.and_then(|text| self.find(text, &mut found)) {
                Ok(()) => {
                    let pushed = self.push(rows.columns(), &found);
                    rows.end_row(pushed);
                }
                Err(reason) => rows.reject(reason),
            }
        }
        rows.finish()
    }
}

/// Texts longer than this are put in quotes without a look at them.
const UNQUOTED_CHARS_MAX: usize = 24;

/// Encodes rows as CSV.
#[derive(Debug)]
pub(super) struct CsvEncoder {
    options: CsvOptions,
    /// Texts with a smaller character are put in quotes.
    safe_from: u8,
}

impl CsvEncoder {
    /// An encoder for rows of `schema`. Input error: a type or an option that CSV does not have.
    pub(super) fn new(options: &CsvOptions, schema: &SchemaRef) -> Result<Self> {
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

#[cfg(test)]
mod tests {
    use crate::format::tests::{decode, encoded};
    use crate::format::{CsvOptions, FormatSpec};
    use arrow::datatypes::{DataType, Field};

    fn with(change: impl FnOnce(&mut CsvOptions)) -> FormatSpec {
        let mut options = CsvOptions::default();
        change(&mut options);
        FormatSpec::Csv(options)
    }

    fn texts(spec: &FormatSpec, row: &str) -> Result<String, String> {
        let fields = vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)];
        let decoded = decode(spec, fields, &[row]);
        match decoded.rejected.first() {
            Some(rejected) => Err(rejected.reason.clone()),
            None => Ok(encoded(&FormatSpec::Json(Default::default()), &decoded.batch).remove(0)),
        }
    }

    /// From runs of Flink 2.2.
    #[test]
    fn rows_are_cut_as_in_flink() {
        let plain = with(|_| ());
        for (row, a, b) in [
            (",\"\"", "", ""),
            ("a\"b, \"c\"", "a\\\"b", " \\\"c\\\""),
            ("\"a\nb\",c\r\n", "a\\nb", "c"),
            ("\"x\"\"y\" ,\"\"\"\"", "x\\\"y", "\\\""),
            (" a , b ", " a ", " b "),
        ] {
            assert_eq!(texts(&plain, row), Ok(format!(r#"{{"a":"{a}","b":"{b}"}}"#)), "{row:?}");
        }
        let unquoted = with(|options| options.quote = None);
        assert_eq!(texts(&unquoted, "\"a\",b\""), Ok(r#"{"a":"\"a\"","b":"b\""}"#.to_owned()));
        let other = with(|options| options.quote = Some(b'\''));
        assert_eq!(texts(&other, "'a,b',\"c\""), Ok(r#"{"a":"a,b","b":"\"c\""}"#.to_owned()));
        let null = with(|options| options.null_literal = Some("NA".to_owned()));
        assert_eq!(texts(&null, "\"NA\","), Ok(r#"{"a":null,"b":""}"#.to_owned()));
    }

    #[test]
    fn broken_rows_are_rejected_with_a_reason() {
        let plain = with(|_| ());
        for (row, reason) in [
            ("1", "1 fields instead of 2: \"1\""),
            ("", "1 fields instead of 2: \"\""),
            ("1,2,3", "more than 2 fields: \"1,2,3\""),
            ("\"a\"x,b", "a delimiter was expected behind a closing quote: \"x,b\""),
            ("a,\"b", "a quoted field does not end: \"\\\"b\""),
            ("a,b\nc,d", "a line end outside quotes: \"b\\nc\""),
        ] {
            assert_eq!(texts(&plain, row), Err(reason.to_owned()), "{row:?}");
        }
        let number = vec![Field::new("n", DataType::Int32, true)];
        for (text, reason) in [("", "column 'n': \"\" is not a INT"), ("1.5", "column 'n': \"1.5\" is not a INT")] {
            assert_eq!(decode(&plain, number.clone(), &[text]).rejected[0].reason, reason);
        }
    }

    /// Flink's dates roll over in CSV; its fields get quotes by Jackson's rule of thumb.
    #[test]
    fn odd_rules_of_flink() {
        let plain = with(|_| ());
        let date = decode(&plain, vec![Field::new("d", DataType::Date32, true)], &["2021-02-30"]);
        assert_eq!(encoded(&plain, &date.batch), ["2021-03-02"]);
        let row = vec![Field::new("s", DataType::Utf8, true), Field::new("n", DataType::Float64, true)];
        let json = FormatSpec::Json(Default::default());
        let cases = [
            (b',', "plain", "plain"),
            (b',', "with space", "\"with space\""),
            (b',', "abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"),
            (b',', "abcdefghijklmnopqrstuvwxy", "\"abcdefghijklmnopqrstuvwxy\""),
            (b',', "a+b", "\"a+b\""),
            (b',', "a-b;ü", "a-b;ü"),
            (b'|', "plain", "\"plain\""),
            (b'|', "ü", "ü"),
            (b'|', "", ""),
        ];
        for (delimiter, text, expected) in cases {
            let batch = decode(&json, row.clone(), &[&format!(r#"{{"s":"{text}","n":1}}"#)]).batch;
            let written = encoded(&with(|options| options.delimiter = delimiter), &batch).remove(0);
            assert_eq!(written, format!("{expected}{}1.0", char::from(delimiter)), "{text}");
        }
        let batch = decode(&json, row, &[r#"{"s":"a\\b\"c","n":null}"#]).batch;
        assert_eq!(encoded(&plain, &batch), ["\"a\\b\"\"c\","]);
        assert_eq!(encoded(&with(|options| options.quote = None), &batch), ["a\\b\"c,"]);
    }
}
