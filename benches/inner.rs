//! The inner parts by themselves: hashing, decoding and encoding, a window over decoded events, and the engine from JSON and from
//! decoded columns to closed windows, and history files.

mod history;

use arrow::array::{BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kappa::codec::xxh64;
use kappa::engine::{Engine, EngineOptions};
use kappa::format::{CsvOptions, FormatSpec, JsonOptions, decoder, encoder};
use kappa::log::records::{DecodedValues, LogBatch};
use kappa::sql;
use kappa::types::TopicId;
use std::hint::black_box;
use std::sync::Arc;

const ROWS: u64 = 8192;

fn events(keys: u64) -> BinaryArray {
    let mut state = 7_u64;
    let rows: Vec<Vec<u8>> = (0..ROWS)
        .map(|row| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!(
                "{{\"id\":{row},\"ts\":\"2026-01-01 00:00:{:02}.{:03}\",\"user_id\":\"user-{:05}\",\"page\":\"/products/{:04}\",\
                 \"referrer\":\"https://example.org\",\"status\":200,\"bytes\":{}}}",
                row / 1000,
                row % 1000,
                (state >> 33) % keys,
                state >> 50,
                state >> 45
            )
            .into_bytes()
        })
        .collect();
    BinaryArray::from_iter_values(rows)
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("xxh64");
    for len in [8, 13, 100, 4096] {
        let bytes = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |b| b.iter(|| xxh64(black_box(&bytes), 0)));
    }
}

/// What a job with these columns would write by hand.
#[derive(serde::Deserialize)]
struct Event<'a> {
    ts: &'a str,
    user_id: &'a str,
    bytes: i32,
}

/// Decoding, beside one look at each byte and serde_json's view of three fields (which leaves the timestamp a text).
fn decoding(c: &mut Criterion) {
    let declared = history::declared();
    let json = FormatSpec::Json(JsonOptions::default());
    let csv = FormatSpec::Csv(CsvOptions::default());
    let values = events(10_000);
    let all: Vec<usize> = (0..declared.fields().len()).collect();
    let rows = decoder(&json, &declared, &all).expect("a decoder").decode(&values).batch;
    let lines = BinaryArray::from_iter_values(encoded(&csv, &rows));
    for (name, spec, values) in [("json", &json, &values), ("csv", &csv, &lines)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(ROWS));
        for used in [&[1, 2][..], &[1, 2, 6], &all] {
            let decoder = decoder(spec, &declared, used).expect("a decoder");
            let name = format!("{} of 7 fields", used.len());
            group.bench_function(name, |b| b.iter(|| decoder.decode(black_box(values))));
        }
    }
    let mut group = c.benchmark_group("json, beside");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("from_utf8", |b| b.iter(|| std::str::from_utf8(black_box(values.value_data())).is_ok()));
    group.bench_function("serde_json, 3 fields", |b| {
        b.iter(|| {
            values.iter().flatten().fold(0, |sum, value| {
                let event: Event<'_> = serde_json::from_slice(value).expect("an event");
                sum + event.ts.len() + event.user_id.len() + event.bytes as usize
            })
        });
    });
}

fn encoded(spec: &FormatSpec, rows: &RecordBatch) -> Vec<Vec<u8>> {
    let encoder = encoder(spec, &rows.schema()).expect("an encoder");
    let row = |row| {
        let mut out = Vec::new();
        encoder.encode(rows, row, &mut out);
        out
    };
    (0..rows.num_rows()).map(row).collect()
}

/// Rows of a timestamp, a string and an integer, as windows give them out.
fn encoding(c: &mut Criterion) {
    let json = FormatSpec::Json(JsonOptions::default());
    let rows = decoder(&json, &history::declared(), &[1, 2, 6]).expect("a decoder").decode(&events(10_000)).batch;
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS));
    for (name, spec) in [("json", &json), ("csv", &FormatSpec::Csv(CsvOptions::default()))] {
        let encoder = encoder(spec, &rows.schema()).expect("an encoder");
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                for row in 0..rows.num_rows() {
                    out.clear();
                    encoder.encode(black_box(&rows), row, &mut out);
                }
                black_box(out.len())
            });
        });
    }
}

/// Events as the journal has them, and as history has them for a job that uses `ts` and `user_id`.
fn batches() -> [(&'static str, LogBatch); 2] {
    let rows = usize::try_from(ROWS).expect("small");
    let nothing = BinaryArray::from(vec![None::<&[u8]>; rows]);
    let raw = LogBatch {
        topic: TopicId(1),
        positions: (0..ROWS).collect(),
        append_times: vec![1_800_000_000_000_000; rows].into(),
        partitions: vec![0; rows].into(),
        offsets: (0..ROWS).collect(),
        timestamps: Int64Array::new_null(rows),
        keys: nothing.clone(),
        values: events(1000),
        headers: BinaryArray::from(vec![Some(&b""[..]); rows]),
        decoded: None,
    };
    let declared = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("user_id", DataType::Utf8, true),
    ]));
    let decoder = decoder(&FormatSpec::Json(JsonOptions::default()), &declared, &[0, 1]).expect("a decoder");
    let columns = decoder.decode(&raw.values).batch;
    let decoded =
        LogBatch { values: nothing, decoded: Some(DecodedValues { columns, undecoded: Vec::new() }), ..raw.clone() };
    [("JSON", raw), ("columns", decoded)]
}

fn engine(c: &mut Criterion) {
    let table =
        "CREATE TABLE e (ts TIMESTAMP(3), user_id STRING, bytes INT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND);
                 CREATE TABLE o (w TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'blackhole');
                 INSERT INTO o SELECT window_start, user_id, COUNT(*) FROM TABLE(";
    let group_by = ") GROUP BY window_start, window_end, user_id;";
    for (from, batch) in batches() {
        let mut group = c.benchmark_group(format!("engine, from {from}"));
        group.throughput(Throughput::Elements(ROWS));
        for (name, window) in [
            ("tumble 1 min", "TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' MINUTE)"),
            ("tumble 1 s", "TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' SECOND)"),
            ("hop 1 s / 5 s", "HOP(TABLE e, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '5' SECOND)"),
            ("session 1 s", "SESSION(TABLE e PARTITION BY user_id, DESCRIPTOR(ts), INTERVAL '1' SECOND)"),
        ] {
            let plan = Arc::new(sql::plan("bench.sql", &format!("{table}{window}{group_by}")).expect("a plan"));
            group.bench_function(name, |b| {
                b.iter(|| {
                    let mut engine =
                        Engine::new(Arc::clone(&plan), vec![1], EngineOptions::default()).expect("an engine");
                    engine.push(vec![(0, batch.clone())]).expect("pushed");
                    engine.finish().expect("finished");
                    engine.drain()
                });
            });
        }
    }
}

criterion_group!(inner, hashing, decoding, encoding, engine, history::reading, history::writing);
criterion_main!(inner);
