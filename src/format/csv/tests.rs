//! Flink's rules for CSV, checked against what Flink 2.2 does.

use super::CsvDecoder;
use crate::format::rows::Rows;
use crate::format::tests::{decode, encoded, schema};
use crate::format::text::utf8;
use crate::format::{CsvOptions, Decoded, Decoder, FormatSpec, JsonOptions};
use arrow::array::BinaryArray;
use arrow::datatypes::{DataType, Field, TimeUnit};
use proptest::prelude::*;
use std::borrow::Cow;

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

/// What the rules say, row by row, without blocks.
fn decode_exactly(decoder: &CsvDecoder, values: &BinaryArray) -> Decoded {
    let mut rows = Rows::new(&decoder.schema, decoder.columns(0));
    for value in values {
        let mut fields = vec![Cow::Borrowed(""); decoder.schema.fields().len()];
        let cut = utf8(value).and_then(|row| {
            decoder.cut(row, |index, _, _, field| {
                if let Some(place) = decoder.places[index] {
                    fields[place] = field;
                }
            })
        });
        if let Err(reason) = cut {
            rows.reject(reason);
            continue;
        }
        let mut outcome = Ok(());
        for (column, field) in rows.columns().iter_mut().zip(&fields) {
            let is_null = decoder.options.null_literal.as_deref() == Some(field);
            outcome = outcome.and(if is_null { column.push_null() } else { column.push_text(field) });
        }
        rows.end_row(outcome);
    }
    rows.finish()
}

fn declared() -> Vec<Field> {
    vec![
        Field::new("s", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("f", DataType::Float64, true),
        Field::new("i", DataType::Int32, true),
    ]
}

fn field() -> BoxedStrategy<String> {
    prop_oneof![
        3 => "[a-z]{0,20}",
        3 => "-?[0-9]{1,18}",
        3 => "\"?20[0-9]{2}-0[1-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?\"?",
        2 => "\"[a-z,; ]{0,20}\"",
        1 => "\"([a-z,\n]|\"\"){0,12}\"[ \t]{0,2}",
        1 => Just("NA".to_owned()),
        1 => "[ -~äö😀\r\n\t]{0,12}",
    ]
    .boxed()
}

/// A row of mostly five fields, and sometimes a change to one of its bytes.
fn row() -> impl Strategy<Value = Option<Vec<u8>>> {
    let fields = prop_oneof![9 => prop::collection::vec(field(), 5), 1 => prop::collection::vec(field(), 0..8)];
    let end = prop_oneof![8 => Just(""), 1 => Just("\n"), 1 => Just("\r\n")];
    let change = prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()));
    let present = prop::bool::weighted(0.98);
    (fields, prop::sample::select(vec![",", ";", "\t"]), end, change, present).prop_map(
        |(fields, delimiter, end, change, present)| {
            let delimiter = if fields.len() == 5 { "," } else { delimiter };
            let mut bytes = (fields.join(delimiter) + end).into_bytes();
            if let Some((at, byte)) = change.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            present.then_some(bytes)
        },
    )
}

proptest! {
    #[test]
    fn the_decoder_and_the_rules_agree(
        records in prop::collection::vec(row(), 0..20),
        used in prop::sample::subsequence(vec![0, 1, 2, 3, 4], 0..=5),
        quote in prop_oneof![4 => Just(Some(b'"')), 1 => Just(None), 1 => Just(Some(b'\''))],
        delimiter in prop_oneof![4 => Just(b','), 1 => Just(b';'), 1 => Just(b'\t')],
        null_literal in prop::option::of(Just("NA".to_owned())),
    ) {
        let options = CsvOptions { delimiter, quote, null_literal, ..CsvOptions::default() };
        let decoder = CsvDecoder::new(&options, &schema(declared()), &used).expect("supported");
        let values = BinaryArray::from_iter(&records);
        let (decoded, exact) = (decoder.decode(&values), decode_exactly(&decoder, &values));
        prop_assert_eq!(&decoded.rejected, &exact.rejected);
        prop_assert_eq!(&decoded.rows, &exact.rows);
        let json = FormatSpec::Json(JsonOptions::default());
        prop_assert_eq!(encoded(&json, &decoded.batch), encoded(&json, &exact.batch));
    }
}
