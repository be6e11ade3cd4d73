//! What every format promises: rows come back as they were written, no bytes panic, a rejected row leaves no trace.

use super::*;
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use proptest::prelude::*;
use std::sync::Arc;

pub(super) fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

pub(super) fn decode(spec: &FormatSpec, fields: Vec<Field>, values: &[&str]) -> Decoded {
    let schema = schema(fields);
    let used: Vec<usize> = (0..schema.fields().len()).collect();
    let values = BinaryArray::from_iter_values(values);
    decoder(spec, &schema, &used).expect("the types are supported").decode(&values)
}

/// The one value that `text` decodes to, as its JSON text; or the reason.
pub(super) fn one(spec: &FormatSpec, data_type: DataType, text: &str) -> Result<String, String> {
    let decoded = decode(spec, vec![Field::new("v", data_type, true)], &[text]);
    match decoded.rejected.first() {
        Some(rejected) => Err(rejected.reason.clone()),
        None => Ok(encoded(&FormatSpec::Json(JsonOptions::default()), &decoded.batch).remove(0)),
    }
}

pub(super) fn encoded(spec: &FormatSpec, batch: &RecordBatch) -> Vec<String> {
    let encoder = encoder(spec, &batch.schema()).expect("the types are supported");
    let row = |row| {
        let mut out = Vec::new();
        encoder.encode(batch, row, &mut out);
        String::from_utf8(out).expect("formats write UTF-8")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn scalars() -> Vec<Field> {
    let zone: Arc<str> = "+00:00".into();
    vec![
        Field::new("b", DataType::Boolean, true),
        Field::new("i8", DataType::Int8, true),
        Field::new("i16", DataType::Int16, true),
        Field::new("i32", DataType::Int32, true),
        Field::new("i64", DataType::Int64, true),
        Field::new("f", DataType::Float32, true),
        Field::new("d", DataType::Float64, true),
        Field::new("m", DataType::Decimal128(38, 9), true),
        Field::new("s", DataType::Utf8, true),
        Field::new("by", DataType::Binary, true),
        Field::new("dt", DataType::Date32, true),
        Field::new("tm", DataType::Time32(TimeUnit::Millisecond), true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("lt", DataType::Timestamp(TimeUnit::Millisecond, Some(zone)), true),
    ]
}

/// A column of `rows` values of any kind a type has, spread from random bits.
fn column(data_type: &DataType, bits: &[Option<u64>], texts: &[String]) -> ArrayRef {
    // Years -9999 to 29999 or so.
    let days = |bits: u64| i32::try_from(bits % 14_000_000).unwrap_or(0) - 4_000_000;
    let ms = |bits: u64| i64::from(days(bits)) * 86_400_000 + i64::try_from(bits >> 20 & 0x3ff_ffff).unwrap_or(0);
    let bytes = |bits: &Option<u64>| bits.map(|bits| bits.to_le_bytes()[..(bits % 9) as usize].to_vec());
    let of = |bits: &Option<u64>| *bits;
    match data_type {
        DataType::Boolean => Arc::new(bits.iter().map(|b| b.map(|b| b & 1 == 1)).collect::<BooleanArray>()),
        DataType::Int8 => Arc::new(bits.iter().map(|b| b.map(|b| b as i8)).collect::<Int8Array>()),
        DataType::Int16 => Arc::new(bits.iter().map(|b| b.map(|b| b as i16)).collect::<Int16Array>()),
        DataType::Int32 => Arc::new(bits.iter().map(|b| b.map(|b| b as i32)).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(bits.iter().map(|b| b.map(|b| b as i64)).collect::<Int64Array>()),
        DataType::Float32 => {
            Arc::new(bits.iter().map(|b| b.map(|b| f32::from_bits(b as u32))).collect::<Float32Array>())
        }
        DataType::Float64 => Arc::new(bits.iter().map(|b| b.map(f64::from_bits)).collect::<Float64Array>()),
        DataType::Decimal128(..) => {
            let values = bits.iter().map(|b| b.map(|b| i128::from(b as i64) * i128::from(b >> 40)));
            Arc::new(values.collect::<Decimal128Array>().with_data_type(data_type.clone()))
        }
        DataType::Utf8 => {
            Arc::new(bits.iter().zip(texts).map(|(b, text)| b.map(|_| text.as_str())).collect::<StringArray>())
        }
        DataType::Binary => Arc::new(bits.iter().map(bytes).collect::<BinaryArray>()),
        DataType::Date32 => Arc::new(bits.iter().map(of).map(|b| b.map(days)).collect::<Date32Array>()),
        DataType::Time32(_) => {
            Arc::new(bits.iter().map(|b| b.map(|b| (b % 86_400_000) as i32)).collect::<Time32MillisecondArray>())
        }
        DataType::Timestamp(_, zone) => {
            let values = bits.iter().map(|b| b.map(ms)).collect::<TimestampMillisecondArray>();
            Arc::new(values.with_timezone_opt(zone.clone()))
        }
        other => unreachable!("no generator for {other}"),
    }
}

fn nan_is_nan(batch: &RecordBatch) -> Vec<String> {
    encoded(&FormatSpec::Json(JsonOptions { decimal_as_plain_number: true, ..JsonOptions::default() }), batch)
}

fn arb_batch() -> impl Strategy<Value = RecordBatch> {
    let row = (any::<Option<u64>>(), ".{0,30}|[a-z \"\\\\,\n]{0,8}");
    prop::collection::vec(prop::collection::vec(row, 6), scalars().len()).prop_map(|columns| {
        let schema = schema(scalars());
        let arrays = schema.fields().iter().zip(columns).map(|(field, cells)| {
            let (bits, texts): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
            column(field.data_type(), &bits, &texts)
        });
        RecordBatch::try_new(schema.clone(), arrays.collect()).expect("the columns fit the schema")
    })
}

fn json(timestamps: TimestampFormat, decimal_as_plain_number: bool) -> FormatSpec {
    FormatSpec::Json(JsonOptions { timestamps, decimal_as_plain_number, ..JsonOptions::default() })
}

fn csv(delimiter: u8, decimal_as_plain_number: bool) -> FormatSpec {
    let null_literal = Some("\u{1}null".to_owned());
    FormatSpec::Csv(CsvOptions { delimiter, null_literal, decimal_as_plain_number, ..CsvOptions::default() })
}

fn arb_spec() -> impl Strategy<Value = FormatSpec> {
    prop_oneof![
        any::<bool>().prop_map(|plain| json(TimestampFormat::Sql, plain)),
        any::<bool>().prop_map(|plain| json(TimestampFormat::Iso8601, plain)),
        (prop::sample::select(&b",;|\t"[..]), any::<bool>()).prop_map(|(delimiter, plain)| csv(delimiter, plain)),
    ]
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_written(batch in arb_batch(), spec in arb_spec()) {
        let lines = encoded(&spec, &batch);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let back = decode(&spec, scalars(), &lines);
        prop_assert_eq!(&back.rejected, &vec![]);
        prop_assert_eq!(back.rows, None);
        prop_assert_eq!(nan_is_nan(&back.batch), nan_is_nan(&batch));
    }

    #[test]
    fn any_bytes_decode_or_are_rejected(values in prop::collection::vec(any::<Vec<u8>>(), 0..5), spec in arb_spec()) {
        let schema = schema(scalars());
        let values = BinaryArray::from_iter_values(values);
        let decoded = decoder(&spec, &schema, &[0, 4, 8, 12]).expect("supported").decode(&values);
        prop_assert_eq!(decoded.batch.num_rows() + decoded.rejected.len(), values.len());
    }

    /// Broken rows among good ones change nothing about the good ones.
    #[test]
    fn a_rejected_row_leaves_no_trace(
        batch in arb_batch(), spec in arb_spec(), cuts in prop::collection::vec(any::<Option<prop::sample::Index>>(), 6),
    ) {
        let mut lines = encoded(&spec, &batch);
        for (line, cut) in lines.iter_mut().zip(&cuts) {
            if let Some(cut) = cut {
                line.truncate(line.floor_char_boundary(cut.index(line.len())));
            }
        }
        let used = [3, 7, 8, 13];
        let declared = schema(scalars());
        let decoder = decoder(&spec, &declared, &used).expect("supported");
        let decoded = decoder.decode(&BinaryArray::from_iter_values(&lines));
        let rejected: Vec<u32> = decoded.rejected.iter().map(|rejected| rejected.row).collect();
        let good: Vec<u32> = (0..6).filter(|row| !rejected.contains(row)).collect();
        prop_assert_eq!(decoded.rows.clone().unwrap_or((0..6).collect()), good.clone());
        for (at, row) in good.iter().enumerate() {
            let alone = decoder.decode(&BinaryArray::from_iter_values([&lines[*row as usize]])).batch;
            prop_assert_eq!(nan_is_nan(&alone), nan_is_nan(&decoded.batch.slice(at, 1)));
            if cuts[*row as usize].is_none() {
                prop_assert_eq!(nan_is_nan(&alone), nan_is_nan(&batch.project(&used).expect("there").slice(*row as usize, 1)));
            }
        }
        prop_assert!(cuts.iter().enumerate().all(|(row, cut)| cut.is_some() || good.contains(&(row as u32))));
    }
}

#[test]
fn a_null_value_is_a_rejected_row() {
    let declared = schema(vec![Field::new("v", DataType::Utf8, true)]);
    for spec in [FormatSpec::Raw, json(TimestampFormat::Sql, false), csv(b',', false)] {
        let values = BinaryArray::from_opt_vec(vec![None, Some(b"\xff")]);
        let decoded = decoder(&spec, &declared, &[0]).expect("supported").decode(&values);
        assert_eq!(decoded.rows, Some(vec![]));
        assert_eq!(decoded.rejected[0], Rejected { row: 0, reason: "null value".to_owned() });
        assert_eq!(decoded.rejected[1], Rejected { row: 1, reason: "not UTF-8 from byte 0 on".to_owned() });
    }
}

#[test]
fn rows_without_used_columns_are_counted() {
    let declared = schema(vec![Field::new("v", DataType::Utf8, true)]);
    for (spec, value) in [(FormatSpec::Raw, "x"), (json(TimestampFormat::Sql, false), "{}"), (csv(b',', false), "x")] {
        let decoded =
            decoder(&spec, &declared, &[]).expect("supported").decode(&BinaryArray::from_iter_values([value, value]));
        assert_eq!((decoded.batch.num_rows(), decoded.batch.num_columns()), (2, 0));
    }
}

#[test]
fn raw_is_the_value() {
    let bytes = Field::new("v", DataType::Binary, false);
    let declared = schema(vec![bytes]);
    let values = BinaryArray::from_opt_vec(vec![Some(b"\xff\n"), Some(b"")]);
    let decoded = decoder(&FormatSpec::Raw, &declared, &[0]).expect("supported").decode(&values);
    let mut out = Vec::new();
    encoder(&FormatSpec::Raw, &declared).expect("supported").encode(&decoded.batch, 0, &mut out);
    assert_eq!(out, b"\xff\n");
    assert_eq!(decoded.rows, None);
    let two = schema(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)]);
    assert!(decoder(&FormatSpec::Raw, &two, &[0]).is_err());
}

#[test]
fn types_that_a_format_has_not_are_named() {
    let row = DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int32, true)]));
    let declared = schema(vec![Field::new("place", row, true)]);
    let error = encoder(&csv(b',', false), &declared).err().expect("CSV has no rows in rows");
    assert_eq!(error.message(), "column 'place': this format has no ROW");
    let odd = schema(vec![Field::new("n", DataType::UInt8, true)]);
    assert!(decoder(&json(TimestampFormat::Sql, false), &odd, &[0]).is_err());
    assert!(encoder(&json(TimestampFormat::Sql, false), &odd).is_err());
}

#[test]
fn integers_and_fractions_are_written_without_zeros_too_many() {
    let integers = [0, 7, -7, 10, 99, 100, 101, 1000, 12_345, -100_000, i64::MAX, i64::MIN];
    for integer in integers {
        let mut out = Vec::new();
        text::put_integer(&mut out, integer);
        assert_eq!(String::from_utf8(out), Ok(integer.to_string()));
    }
    let cases = [
        (0, 0, "00:00:00"),
        (86_399, 1, "23:59:59.000000001"),
        (3_661, 120_000_000, "01:01:01.12"),
        (3_661, 5_000_000, "01:01:01.005"),
        (3_661, 900_000_000, "01:01:01.9"),
        (3_661, 123_456_780, "01:01:01.12345678"),
    ];
    for (second, nanos, expected) in cases {
        let mut out = Vec::new();
        text::put_time(&mut out, second, nanos);
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
    }
}

/// A character that begins in one record and ends in the next is in neither.
#[test]
fn records_are_texts_each_by_itself() {
    let declared = schema(vec![Field::new("v", DataType::Utf8, true)]);
    let specs = [(json(TimestampFormat::Sql, false), r#"{"v":1}"#), (csv(b',', false), "v")];
    for (spec, record) in specs {
        let values = [[b"\xa9", record.as_bytes()].concat(), [record.as_bytes(), b"\xc3"].concat()];
        // Valid as a whole: behind each other they make one character.
        let values = [&values[1], &values[0], &record.as_bytes().to_vec(), &values[1], &values[0]];
        let decoded =
            decoder(&spec, &declared, &[0]).expect("supported").decode(&BinaryArray::from_iter_values(values));
        let after = format!("not UTF-8 from byte {} on", record.len());
        let reasons: Vec<&str> = decoded.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
        assert_eq!(reasons, [&after, "not UTF-8 from byte 0 on", &after, "not UTF-8 from byte 0 on"]);
        assert_eq!(decoded.rows, Some(vec![2]));
    }
}
