//! Decoded columns are what decoding the raw values gives.

use super::*;
use crate::format::{CsvOptions, FormatSpec, JsonOptions, decoder};
use crate::log::records::Projection;
use arrow::array::{ArrayRef, AsArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;

fn all_types() -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let inner = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ]);
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int32, true)]);
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("b", DataType::Boolean, true),
        Field::new("i8", DataType::Int8, true),
        Field::new("i16", DataType::Int16, true),
        Field::new("i32", DataType::Int32, true),
        Field::new("i64", DataType::Int64, false),
        Field::new("f32", DataType::Float32, true),
        Field::new("f64", DataType::Float64, true),
        Field::new("d9", DataType::Decimal128(9, 2), true),
        Field::new("d18", DataType::Decimal128(18, 0), true),
        Field::new("d38", DataType::Decimal128(38, 10), true),
        Field::new("s", DataType::Utf8, true),
        Field::new("y", DataType::Binary, true),
        Field::new("date", DataType::Date32, true),
        Field::new("time", DataType::Time32(TimeUnit::Millisecond), true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("ltz", utc, true),
        Field::new("row", DataType::Struct(inner), true),
        Field::new("list", DataType::List(item), true),
        Field::new("map", DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false), true),
        Field::new("_key", DataType::Utf8, true),
    ]))
}

const TEXTS: [(&str, &[&str]); 20] = [
    ("b", &["true", "false"]),
    ("i8", &["-128", "127", "0"]),
    ("i16", &["-32768", "32767"]),
    ("i32", &["-2147483648", "2147483647", "1"]),
    ("i64", &["-9223372036854775808", "9223372036854775807", "5", "5"]),
    ("f32", &["1.5", "-0.0", "3.4e38"]),
    ("f64", &["1e308", "-0.0", "0.1"]),
    ("d9", &["1.25", "-9999999.99"]),
    ("d18", &["999999999999999999", "-1"]),
    ("d38", &["1234567890123456789012345678.0123456789", "-0.0000000001"]),
    ("s", &["\"\"", "\"a\"", "\"ü\\u0000\"", "\"long enough not to be a number\""]),
    ("y", &["\"\"", "\"AAEC\""]),
    ("date", &["\"2024-02-29\"", "\"0001-01-01\""]),
    ("time", &["\"23:59:59.999\"", "\"00:00:00\""]),
    ("ts", &["\"2024-02-29 01:02:03.004\"", "\"1969-12-31 23:59:59.999\""]),
    ("ltz", &["\"2024-02-29 01:02:03.004Z\""]),
    ("row", &["{\"a\":1,\"l\":[\"x\",null]}", "{\"a\":null,\"l\":null}", "{}", "{\"l\":[]}"]),
    ("list", &["[]", "[1,null,3]"]),
    ("map", &["{}", "{\"a\":1,\"b\":null}"]),
    ("_key", &["\"taken\""]),
];

/// A value from dice: mostly an object with most of the fields, sometimes one that does not decode.
fn json(dice: &[u8]) -> Option<Vec<u8>> {
    let field = |((name, texts), dice): (&(&str, &[&str]), &u8)| match dice % 8 {
        0 if *name != "i64" => None,
        1 if *name != "i64" => Some(format!("\"{name}\":null")),
        _ => Some(format!("\"{name}\":{}", texts[usize::from(dice / 8) % texts.len()])),
    };
    let object = || {
        let fields: Vec<String> = TEXTS.iter().zip(&dice[1..]).filter_map(field).collect();
        format!("{{{}}}", fields.join(","))
    };
    match dice[0] {
        0..8 => None,
        8..14 => Some(Vec::new()),
        14..20 => Some(b"{\"i64\":\"no\"}".to_vec()),
        20..24 => Some(b"{}".to_vec()),
        _ => Some(object().into_bytes()),
    }
}

fn plain_rows(values: Vec<Option<Vec<u8>>>) -> Vec<Row> {
    let row = |(place, value): (u64, Option<Vec<u8>>)| Row {
        position: place,
        append_time: 1,
        partition: 0,
        offset: place,
        timestamp: None,
        key: None,
        value,
        headers: Vec::new(),
    };
    (0..).zip(values).map(row).collect()
}

fn json_columns(used: Vec<usize>) -> ValueColumns {
    ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared: all_types(), used }
}

/// The columns of a batch must be what decoding the same rows' values gives, and the other rows must have values.
fn check(batch: &LogBatch, raw: &LogBatch, wanted: &ValueColumns) {
    let decoded = batch.decoded.as_ref().expect("the stored columns fit");
    let all: Vec<usize> = (0..wanted.declared.fields().len()).collect();
    // A row counts as decoded if all of its declared columns decode.
    let whole = decoder(&wanted.format, &wanted.declared, &all).unwrap().decode(&raw.values);
    let rejected: Vec<u32> = whole.rejected.iter().map(|rejected| rejected.row).collect();
    assert_eq!(decoded.undecoded, rejected);
    for row in &rejected {
        let row = *row as usize;
        assert_eq!(batch.values.is_null(row), raw.values.is_null(row));
        assert_eq!(batch.values.value(row), raw.values.value(row));
    }
    let mask = (0..batch.len() as u32).map(|row| Some(!rejected.contains(&row))).collect();
    let kept: Vec<ArrayRef> = decoded.columns.columns().iter().map(|column| filter(column, &mask).unwrap()).collect();
    let values: BinaryArray = filter(&raw.values, &mask).unwrap().as_binary().clone();
    let expected = decoder(&wanted.format, &wanted.declared, &wanted.used).unwrap().decode(&values);
    assert_eq!(decoded.columns.schema(), expected.batch.schema());
    for (kept, expected) in kept.iter().zip(expected.batch.columns()) {
        assert_eq!(kept, expected);
    }
    assert_eq!(decoded.columns.num_rows(), batch.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn columns_are_what_decoding_gives(
        dice in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 21), 1..60),
        used in proptest::sample::subsequence((0..19).collect::<Vec<usize>>(), 0..=19),
        limit in prop_oneof![Just(7usize), Just(1000)],
    ) {
        let rows = plain_rows(dice.iter().map(|dice| json(dice)).collect());
        let limits = GroupLimits { rows: limit, ..GroupLimits::default() };
        let (bytes, record) = write(vec![spec(1, Some(json_columns(vec![0])))], limits, &[batch_of(1, &rows)]);
        prop_assert!(record.topics[0].columns.is_some());
        let file = open(&bytes);
        let wanted = json_columns(used);
        prop_assert!(file.fits(TopicId(1), &wanted));
        let projection = Projection { keys: false, values: false, headers: false, columns: Some(Arc::new(wanted.clone())) };
        let mut back = Vec::new();
        for (group, summary) in file.groups().iter().enumerate() {
            let raw = file.read(group, &Projection::ALL).unwrap();
            back.extend(rows_of(&raw));
            let batch = file.read(group, &projection).unwrap();
            if u64::from(summary.undecoded) == summary.extent.rows {
                prop_assert!(batch.decoded.is_none() && batch.values == raw.values);
            } else {
                check(&batch, &raw, &wanted);
            }
        }
        prop_assert_eq!(back, rows);
    }
}

#[test]
fn a_column_that_could_not_be_stored_means_values() {
    let rows = plain_rows(vec![json(&[99; 21])]);
    let (bytes, _) = write(vec![spec(1, Some(json_columns(vec![])))], GroupLimits::default(), &[batch_of(1, &rows)]);
    let file = open(&bytes);
    let fits = |columns: &ValueColumns| {
        let fits = file.fits(TopicId(1), columns);
        let projection =
            Projection { keys: false, values: false, headers: false, columns: Some(Arc::new(columns.clone())) };
        let batch = file.read(0, &projection).unwrap();
        assert_eq!((batch.decoded.is_some(), batch.values.null_count() == 0), (fits, !fits));
        fits
    };
    assert!(fits(&json_columns(vec![0, 18])));
    assert!(!fits(&json_columns(vec![0, 19])), "_key is a column of the log");
    let other = JsonOptions { fail_on_missing_field: true, ..JsonOptions::default() };
    assert!(!fits(&ValueColumns { format: FormatSpec::Json(other), ..json_columns(vec![0]) }));
    let one = |name: &str, data_type, nullable| {
        let declared = Arc::new(Schema::new(vec![Field::new(name, data_type, nullable)]));
        ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared, used: vec![0] }
    };
    assert!(fits(&one("i32", DataType::Int32, true)), "other columns do not matter to JSON");
    assert!(!fits(&one("i32", DataType::Int64, true)));
    assert!(!fits(&one("i32", DataType::Int32, false)));
    assert!(!fits(&one("new", DataType::Int32, true)));
}

#[test]
fn csv_and_raw_fit_only_as_a_whole() {
    let csv = |names: &[&str], used: Vec<usize>| {
        let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Int32, true)).collect();
        let format = FormatSpec::Csv(CsvOptions::default());
        ValueColumns { format, declared: Arc::new(Schema::new(fields)), used }
    };
    let raw = |name: &str, data_type| {
        let declared = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
        ValueColumns { format: FormatSpec::Raw, declared, used: vec![0] }
    };
    let values = |texts: &[&str]| plain_rows(texts.iter().map(|text| Some(text.as_bytes().to_vec())).collect());
    let topics = vec![spec(1, Some(csv(&["a", "b"], vec![]))), spec(2, Some(raw("b", DataType::Utf8)))];
    let batches = [batch_of(1, &values(&["1,2", "3,", "x,4"])), batch_of(2, &values(&["1,2"]))];
    let (bytes, _) = write(topics, GroupLimits::default(), &batches);
    let file = open(&bytes);
    let read = |group: usize, columns: &ValueColumns| {
        let columns = Some(Arc::new(columns.clone()));
        file.read(group, &Projection { keys: false, values: false, headers: false, columns }).unwrap()
    };
    let whole = |group: usize| file.read(group, &Projection::ALL).unwrap();
    check(&read(0, &csv(&["a", "b"], vec![1])), &whole(0), &csv(&["a", "b"], vec![1]));
    check(&read(0, &csv(&["a", "b"], vec![0, 1])), &whole(0), &csv(&["a", "b"], vec![0, 1]));
    assert!(read(0, &csv(&["a", "c"], vec![0])).decoded.is_none());
    // The second topic's `b` has the name of the first one's but another type: it was left out.
    assert!(read(1, &raw("b", DataType::Utf8)).decoded.is_none());
    assert_eq!(read(1, &raw("b", DataType::Utf8)).values, whole(1).values);
    assert!(!file.fits(TopicId(1), &raw("b", DataType::Utf8)) && !file.fits(TopicId(3), &csv(&["a", "b"], vec![1])));
}

#[test]
fn ranges_of_columns_are_those_of_all_values_or_unknown() {
    let value = |n: i32| {
        Some(format!(
            "{{\"i64\":{n},\"i32\":{},\"d9\":\"1.5\",\"ts\":\"1970-01-01 00:00:00.00{}\"}}",
            n * 2,
            n.rem_euclid(10)
        ))
    };
    let rows =
        |texts: Vec<Option<String>>| plain_rows(texts.into_iter().map(|text| text.map(String::into_bytes)).collect());
    let columns = json_columns(vec![]);
    let limits = GroupLimits { rows: 3, ..GroupLimits::default() };
    let texts = vec![value(-4), None, value(7), value(1), Some("?".to_owned()), value(2)];
    let (bytes, _) = write(vec![spec(1, Some(columns.clone()))], limits, &[batch_of(1, &rows(texts))]);
    let file = open(&bytes);
    let range = |group: usize, name: &str| file.column_range(group, &columns, columns.declared.index_of(name).unwrap());
    assert_eq!([range(0, "i64"), range(0, "i32")], [Some((-4, 7)), Some((-8, 14))]);
    assert_eq!([range(0, "d9"), range(0, "s"), range(0, "_key")], [None; 3]);
    assert_eq!(range(1, "i64"), None, "a value that did not decode here may decode for another job");
    assert_eq!(range(2, "i64"), None, "there is no such group");
}
