//! Batches of records that mostly look alike, read in three ways that have to agree: by the decoder, one by one by the rules of
//! [`super::decode`] alone, and by serde_json. `KAPPA_FUZZ=100000` sets the number of batches; a failure prints its seed and input.

use super::JsonDecoder;
use super::decode::{find_fields, push_fields};
use super::scan::DEPTH_MAX;
use crate::format::rows::Rows;
use crate::format::tests::{encoded, schema};
use crate::format::text::utf8;
use crate::format::{Decoded, Decoder, FormatSpec, JsonOptions, TimestampFormat};
use arrow::array::{Array, BinaryArray};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use chrono::NaiveDateTime;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Names that are alike in their first sixteen bytes, need escapes, or are not ASCII.
const NAMES: [&str; 10] =
    ["a", "ab", "ts", "user_id", "a_very_long_name_x", "a_very_long_name_y", "q\"q", "größe", "", "päge/x"];

fn types() -> Vec<DataType> {
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
    let entries = Field::new("entries", DataType::Struct(pair.clone()), false);
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(12, 3),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Struct(pair),
        DataType::List(Field::new("element", DataType::Float64, true).into()),
        DataType::Map(entries.into(), false),
    ]
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// Values as they are written, of every kind and at the borders of the fast paths.
fn value() -> BoxedStrategy<String> {
    let number = prop_oneof![
        3 => "-?[0-9]{1,9}",
        2 => "-?[0-9]{14,20}",
        2 => "-?(0|[1-9][0-9]{0,9})\\.[0-9]{1,10}",
        1 => "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,3}",
        1 => "[-0-9.eE+]{1,5}",
    ];
    let time = prop_oneof![
        4 => "20[0-9]{2}-0[1-9]-[0-3][0-9][ T][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?Z?",
        1 => "[-+]?[0-9]{4,5}-[01][0-9]-[0-3][0-9]([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{0,10})?)?)?Z?",
        1 => "[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,3})?",
    ];
    let text = prop_oneof![
        2 => "[ -~]{0,40}",
        2 => "[a-z]{0,12}",
        1 => "[a-zé€😀\n\u{1}\\\\\"]{0,12}",
        1 => "-?[0-9]{1,20}",
        1 => select(vec!["true", "TRUE", "NaN", "AQID", "AQI=", " 12 ", "+7", "1.5f"]).prop_map(str::to_owned),
    ];
    let escapes = "\"([a-z]|\\\\[\"\\\\/bfnrtu]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude0[0-9]){0,8}\"";
    let leaf = prop_oneof![
        1 => select(vec!["null", "true", "false", "nul", "tru", "[]", "{}"]).prop_map(str::to_owned),
        3 => number,
        3 => time.prop_map(|text| quoted(&text)),
        3 => text.prop_map(|text| quoted(&text)),
        1 => escapes,
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let member = (select(vec!["key", "value", "k", "\\u006b"]), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|all| {
                let members: Vec<String> = all.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
    .boxed()
}

/// How a record is written: the white space around its punctuation.
#[derive(Debug, Clone)]
struct Style {
    before_name: &'static str,
    before_value: &'static str,
    at_end: &'static str,
}

fn style() -> impl Strategy<Value = Style> {
    let of = |before_name, before_value, at_end| Style { before_name, before_value, at_end };
    prop_oneof![
        6 => Just(of("", "", "")),
        2 => Just(of(" ", " ", "")),
        1 => Just(of("\n  ", "\t", " ")),
        1 => Just(of("", " \r\n", "\n")),
        1 => Just(of("\u{a0}", "", "")),
    ]
}

/// What is done to a record's bytes.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Remove(Index),
    Insert(Index, u8),
    Change(Index, u8),
    Append(&'static str),
    Deep(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = || prop_oneof![select(&b"\"\\{}[]:, \t\n0e.-nt\x00\x1f\x7f\x80\xc3\xff"[..]), any::<u8>()];
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Change(at, byte)),
        select(vec![" ", "}", ",", "\u{0}", "{}", "\n"]).prop_map(Damage::Append),
        (120usize..135).prop_map(Damage::Deep),
    ]
}

impl Damage {
    fn to(&self, bytes: &mut Vec<u8>) {
        match self {
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Remove(at) => _ = bytes.remove(at.index(bytes.len())),
            Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Damage::Change(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Damage::Append(text) => bytes.extend_from_slice(text.as_bytes()),
            Damage::Deep(depth) => {
                let value = format!("{{\"a\":{}1{}}}", "[".repeat(*depth), "]".repeat(*depth));
                *bytes = value.into_bytes();
            }
        }
    }
}

/// A record of a batch whose records have the fields `names` in this order.
fn record(names: Vec<&'static str>) -> impl Strategy<Value = Record> {
    let count = names.len();
    let same = Just(names.clone());
    let fields = prop_oneof![
        5 => same.clone(),
        1 => subsequence(names.clone(), 0..=count),
        1 => same.prop_shuffle(),
        1 => prop::collection::vec(select(NAMES.to_vec()), 0..6),
    ];
    let escape_names = prop::bool::weighted(0.1);
    let damage = prop::option::weighted(0.15, damage());
    let values = prop::collection::vec(value(), count.max(6));
    (fields, values, style(), escape_names, damage, prop::bool::weighted(0.98)).prop_map(
        |(fields, values, style, escape, damage, present)| {
            let Style { before_name, before_value, at_end } = style;
            let name = |name: &str| match name {
                "a" if escape => "\"\\u0061\"".to_owned(),
                name => quoted(name),
            };
            let member = |(field, value): (&&str, &String)| {
                format!("{before_name}{}{at_end}:{before_value}{value}{at_end}", name(field))
            };
            let members: Vec<String> = fields.iter().zip(&values).map(member).collect();
            let mut bytes = format!("{{{}}}{at_end}", members.join(",")).into_bytes();
            if let Some(damage) = damage {
                damage.to(&mut bytes);
            }
            Record(present.then_some(bytes))
        },
    )
}

/// A value of the log, shown as text.
#[derive(Clone)]
struct Record(Option<Vec<u8>>);

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            None => f.write_str("null"),
        }
    }
}

#[derive(Debug, Clone)]
struct Batch {
    fields: Vec<Field>,
    used: Vec<usize>,
    records: Vec<Record>,
    options: JsonOptions,
}

fn batch() -> impl Strategy<Value = Batch> {
    let names = Just(NAMES.to_vec()).prop_shuffle();
    let field = (select(types()), prop::bool::weighted(0.8));
    let fields = (names, prop::collection::vec(field, 1..8)).prop_map(|(names, types)| {
        let field = |(name, (data_type, nullable)): (&str, (DataType, bool))| Field::new(name, data_type, nullable);
        names.into_iter().zip(types).map(field).collect::<Vec<_>>()
    });
    let options = (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(iso, fail_on_missing_field)| JsonOptions {
        timestamps: if iso { TimestampFormat::Iso8601 } else { TimestampFormat::Sql },
        fail_on_missing_field,
        ..JsonOptions::default()
    });
    (fields, subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_shuffle(), options).prop_flat_map(
        |(fields, names, options)| {
            let count = fields.len();
            let used = subsequence((0..count).collect::<Vec<_>>(), 0..=count);
            // Sometimes more than a block.
            let records = prop_oneof![
                9 => prop::collection::vec(record(names.clone()), 1..12),
                1 => prop::collection::vec(record(names), 130..140),
            ];
            (Just(fields), used, records, Just(options)).prop_map(|(fields, used, records, options)| Batch {
                fields,
                used,
                records,
                options,
            })
        },
    )
}

/// What the rules say, record by record, without blocks and layouts.
fn decode_exactly(decoder: &JsonDecoder, values: &BinaryArray, fail_on_missing: bool) -> Decoded {
    let mut rows = Rows::new(&decoder.schema, decoder.columns(0).expect("the types are supported"));
    let mut found = Vec::new();
    for value in values {
        match utf8(value).and_then(|text| find_fields(text, rows.columns(), &mut found)) {
            Ok(()) => {
                let pushed = push_fields(rows.columns(), &found, fail_on_missing);
                rows.end_row(pushed);
            }
            Err(reason) => rows.reject(reason),
        }
    }
    rows.finish()
}

fn is_document(record: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(record) else { return false };
    let is_object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    is_object && serde_json::from_str::<IgnoredAny>(text).is_ok() && depth(text) <= DEPTH_MAX
}

/// How deep the brackets of a JSON text go.
fn depth(text: &str) -> u32 {
    let (mut depth, mut deepest, mut in_string) = (0, 0, false);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => _ = bytes.next(),
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth -= 1,
            _ => (),
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What becomes of a field's value; `None`: nothing simple can be said.
fn expected(field: &Field, value: &Value, iso: bool) -> Option<Value> {
    let text = |text: &str| Some(Value::from(text));
    let format = if iso { "%Y-%m-%dT%H:%M:%S%.f" } else { "%Y-%m-%d %H:%M:%S%.f" };
    match (field.data_type(), value) {
        (_, Value::Null) if field.is_nullable() => Some(Value::Null),
        (DataType::Utf8, Value::String(string)) => text(string),
        (DataType::Utf8, Value::Bool(bool)) => text(&bool.to_string()),
        (DataType::Boolean, Value::Bool(_)) => Some(value.clone()),
        (DataType::Int64, Value::Number(number)) if number.is_i64() => Some(value.clone()),
        (DataType::Int64, Value::Number(number)) => {
            let float = number.as_f64().filter(|float| float.abs() < 1e15)?;
            Some(Value::from(float.trunc() as i64))
        }
        (DataType::Int32, Value::Number(number)) => Some(Value::from(i32::try_from(number.as_i64()?).ok()?)),
        // Years of four digits, and times that chrono takes as well: no leap seconds, no hour 24, no day 31 of a short month.
        (DataType::Timestamp(TimeUnit::Millisecond, None), Value::String(string)) if string.starts_with("20") => {
            let time = NaiveDateTime::parse_from_str(string, format).ok().filter(|_| string.len() == 23)?;
            let written = time.format(&format.replace("%.f", "%.3f")).to_string();
            // Zeros at the end of the fraction are not written.
            (written == *string).then(|| Value::from(written.trim_end_matches('0').trim_end_matches('.')))
        }
        _ => None,
    }
}

/// Compares what came out of a record that decoded with what serde_json finds in it.
fn check_values(batch: &Batch, record: &[u8], line: &str) -> Result<(), TestCaseError> {
    // Half of a surrogate pair in some string: serde_json does not give the others then.
    let Ok(document) = serde_json::from_slice::<serde_json::Map<String, Value>>(record) else { return Ok(()) };
    let line: Value = serde_json::from_str(line).expect("the encoder writes JSON");
    for field in batch.used.iter().map(|index| &batch.fields[*index]) {
        let value = document.get(field.name()).unwrap_or(&Value::Null);
        let iso = batch.options.timestamps == TimestampFormat::Iso8601;
        if let Some(expected) = expected(field, value, iso) {
            prop_assert_eq!(&line[field.name()], &expected, "{}", field.name());
        }
    }
    Ok(())
}

fn check(batch: &Batch) -> Result<(), TestCaseError> {
    let values = BinaryArray::from_iter(batch.records.iter().map(|record| record.0.as_deref()));
    let declared = schema(batch.fields.clone());
    let decoder = JsonDecoder::new(&batch.options, &declared, &batch.used).expect("the types are supported");
    let decoded = decoder.decode(&values);
    let exact = decode_exactly(&decoder, &values, batch.options.fail_on_missing_field);
    let spec = FormatSpec::Json(batch.options.clone());
    let lines = encoded(&spec, &decoded.batch);
    prop_assert_eq!(&decoded.rejected, &exact.rejected);
    prop_assert_eq!(&decoded.rows, &exact.rows);
    prop_assert_eq!(&lines, &encoded(&spec, &exact.batch));
    let mut lines = lines.iter();
    let mut rejected = decoded.rejected.iter().peekable();
    for (row, record) in batch.records.iter().enumerate() {
        let reason = rejected.next_if(|rejected| rejected.row as usize == row).map(|rejected| &rejected.reason);
        let Some(record) = &record.0 else {
            prop_assert_eq!(reason.map(String::as_str), Some("null value"));
            continue;
        };
        // All other reasons begin with a column.
        let refused = reason.is_some_and(|reason| !reason.starts_with("column '"));
        prop_assert_eq!(refused, !is_document(record), "{:?}", reason);
        if reason.is_none() {
            check_values(batch, record, lines.next().expect("a line for each row that decoded"))?;
        }
    }
    // The same records in other batches: blocks and what was learned do not show.
    let half = batch.records.len() / 2;
    let parts = [values.slice(0, half), values.slice(half, values.len() - half)].map(|part| decoder.decode(&part));
    let apart: Vec<String> = parts.iter().flat_map(|part| encoded(&spec, &part.batch)).collect();
    prop_assert_eq!(apart, encoded(&spec, &decoded.batch));
    Ok(())
}

fn batches() -> u32 {
    std::env::var("KAPPA_FUZZ").map_or(60, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::with_cases(batches()) })]

    #[test]
    fn the_decoder_the_rules_and_serde_json_agree(batch in batch()) {
        check(&batch)?;
    }
}
