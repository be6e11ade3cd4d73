//! What history takes on disk.

use super::*;
use crate::format::{FormatSpec, JsonOptions};
use arrow::datatypes::{DataType, Field, Schema};
use std::io::Read;

const FLIGHTS: &[u8] = include_bytes!("../../../../fixtures/flights.csv.gz");

/// The flights as JSON rows, of which every value is as long as a producer would make it.
fn flights() -> (Vec<Row>, ValueColumns) {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(FLIGHTS).read_to_string(&mut text).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let is_text = |name: &str| ["flight", "tailnum", "origin", "dest"].contains(&name);
    let row = |(n, line): (u64, &str)| {
        let field = |(name, value): (&&str, &str)| match (value, is_text(name)) {
            ("", _) => format!("\"{name}\":null"),
            (value, true) => format!("\"{name}\":\"{value}\""),
            (value, false) => format!("\"{name}\":{value}"),
        };
        let fields: Vec<String> = names.iter().zip(line.split(',')).map(field).collect();
        Row {
            position: n,
            append_time: 1_700_000_000_000_000 + (n / 1000) as i64 * 2_345,
            partition: 0,
            offset: n,
            timestamp: Some(1_700_000_000_000 + (n / 1000) as i64 * 2),
            key: None,
            value: Some(format!("{{{}}}", fields.join(",")).into_bytes()),
            headers: Vec::new(),
        }
    };
    let rows = (0..).zip(lines).map(row).collect();
    let data_type = |name: &str| match name {
        "dep_delay_min" => DataType::Int32,
        name if is_text(name) => DataType::Utf8,
        _ => DataType::Int64,
    };
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, data_type(name), true)).collect();
    let format = FormatSpec::Json(JsonOptions::default());
    (rows, ValueColumns { format, declared: Arc::new(Schema::new(fields)), used: vec![] })
}

#[test]
fn flights_take_a_quarter_of_their_json() {
    let (rows, columns) = flights();
    let json: usize = rows.iter().filter_map(|row| row.value.as_ref()).map(Vec::len).sum();
    let batches: Vec<LogBatch> = rows.chunks(10_000).map(|rows| batch_of(1, rows)).collect();
    let (bytes, _) = write(vec![spec(1, Some(columns))], GroupLimits::default(), &batches);
    let file = open(&bytes);
    assert_eq!(file.groups()[0].undecoded, 0);
    assert!(bytes.len() * 4 <= json, "{} of {json} bytes", bytes.len());
}
