//! What users hand in: values, files and SQL that make no sense are refused with a reason, quickly, and never by a panic.

use crate::mutate::{Mutator, fuzz};
use crate::util::{root, tell};
use arrow::array::BinaryArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use kappa::format::framing::{Framer, Framing};
use kappa::format::{CsvOptions, FormatSpec, JsonOptions};
use std::sync::Arc;

fn nothing(_: &mut Mutator, _: &mut Vec<u8>) {}

fn told(target: &str, (inputs, outcomes): (u64, usize)) {
    tell(&format!("fuzz {target}: {inputs} inputs, {outcomes} kinds of outcome, panics = 0"));
}

fn declared() -> SchemaRef {
    let inner = DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into());
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("inner", inner, true),
        Field::new("day", DataType::Date32, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("d", DataType::Float64, true),
    ]))
}

fn decode(spec: &FormatSpec, schema: &SchemaRef, bytes: &[u8]) -> String {
    let used: Vec<usize> = (0..schema.fields().len()).collect();
    let decoder = kappa::format::decoder(spec, schema, &used).expect("a decoder");
    let decoded = decoder.decode(&BinaryArray::from(vec![Some(bytes), None, Some(b"{}")]));
    decoded.rejected.first().map_or("well".to_owned(), |rejected| rejected.reason.clone())
}

#[test]
fn values_decode_or_say_why_not() {
    let schema = declared();
    let json: Vec<Vec<u8>> = [
        r#"{"n": -12, "text": "a\u00e9\n", "ts": "2026-01-01 00:00:00.123", "price": 12.34, "inner": {"x": 1}, "day": "2026-02-03", "flag": true, "d": 1e-3}"#,
        r#"{"other": [1, {"n": [null]}], "n": 9223372036854775807, "inner": null}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    let spec = FormatSpec::Json(JsonOptions::default());
    told("json", fuzz("json", &json, nothing, |bytes| decode(&spec, &schema, bytes)));
    let flat: SchemaRef = Arc::new(Schema::new(
        schema.fields().iter().filter(|field| field.name() != "inner").cloned().collect::<Vec<_>>(),
    ));
    let csv =
        vec![b"-12,\"a \"\"b\"\"\",2026-01-01 00:00:00.123,12.34,2026-02-03,true,1e-3".to_vec(), b",,,,,,".to_vec()];
    let spec = FormatSpec::Csv(CsvOptions::default());
    told("csv", fuzz("csv", &csv, nothing, |bytes| decode(&spec, &flat, bytes)));
    let lines = vec![b"{\"a\":1}\n{\"b\":\"x\\ny\"}\r\n\n[1]\n".to_vec(), b"a,\"b\nc\",d\n1,2,3\n".to_vec()];
    let frame = |bytes: &[u8]| {
        let mut records = 0;
        for framing in [Framing::Lines, Framing::Csv { quote: Some(b'"'), header: true }] {
            let mut framer = Framer::new(framing);
            for piece in bytes.chunks(7) {
                let fed = framer.feed(piece, |_| {
                    records += 1;
                    Ok(())
                });
                if let Err(error) = fed {
                    return error.to_string();
                }
            }
            if let Err(error) = framer.finish(|_| Ok(())) {
                return error.to_string();
            }
        }
        format!("{}", records > 0)
    };
    told("framing", fuzz("framing", &lines, nothing, frame));
}

#[test]
fn sql_and_times_are_understood_or_refused() {
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(root().join("fixtures/sql"))
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sql"))
        .map(|path| std::fs::read(path).expect("a file"))
        .filter(|text| text.len() < 1_200)
        .collect();
    seeds.sort();
    assert!(seeds.len() > 5, "{} SQL files", seeds.len());
    let plan = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        kappa::sql::plan("fuzz.sql", &text).map_or_else(|error| error.to_string(), |_| "well".to_owned())
    };
    told("sql", fuzz("sql", &seeds, nothing, plan));
    let points = ["earliest", "position:12", "offset:3", "time:2026-01-01T00:00:00.5Z", "append:2026-01-01", "-1"];
    let points: Vec<Vec<u8>> = points.map(|text| text.as_bytes().to_vec()).to_vec();
    let parse = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        kappa::job::parse_point(&text).map_or_else(|error| error.to_string(), |point| format!("{point:?}"))
    };
    told("time-point", fuzz("time-point", &points, nothing, parse));
}
