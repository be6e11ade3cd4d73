//! Tests of the log as a whole, on the simulated disk unless said otherwise.

mod basic;
mod clients;
mod crash;
mod faults;
mod forged;
mod fuzz;
mod history;
mod journal;
mod modes;
mod mutants;
mod numbered;
mod retaining;
mod room;
mod rot;
mod sealing;
mod seeking;
mod threads;
mod trimming;

use super::records::{LogBatch, Partitioning, Record, RecordColumns, decode_headers};
use super::{Log, LogOptions, ViewKind};
use crate::env::Env;
use crate::types::{PartitionId, Position, TopicId};
use std::path::Path;

/// One record as the tests compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    topic: u32,
    partition: u32,
    offset: u64,
    position: u64,
    append_time: i64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn rows_of(batch: &LogBatch) -> Vec<Row> {
    use arrow::array::Array as _;
    let bytes =
        |column: &arrow::array::BinaryArray, row: usize| (!column.is_null(row)).then(|| column.value(row).to_vec());
    let row = |row: usize| Row {
        topic: batch.topic.0,
        partition: batch.partitions[row],
        offset: batch.offsets[row],
        position: batch.positions[row],
        append_time: batch.append_times[row],
        timestamp: (!batch.timestamps.is_null(row)).then(|| batch.timestamps.value(row)),
        key: bytes(&batch.keys, row),
        value: bytes(&batch.values, row),
        headers: decode_headers(batch.headers.value(row))
            .unwrap()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
            .collect(),
    };
    (0..batch.len()).map(row).collect()
}

/// Small files and frames, no marks after silence: what happens depends on the calls only.
fn small() -> LogOptions {
    LogOptions {
        file_bytes: 16 << 10,
        frame_bytes: 1 << 10,
        view: ViewKind::Memory,
        idle_mark_us: 0,
        snapshot_bytes: 16 << 10,
        background: false,
        ..LogOptions::default()
    }
}

fn dir() -> &'static Path {
    Path::new("/data")
}

fn open(env: &Env) -> Log {
    Log::open(env, dir(), small()).unwrap()
}

fn values(values: &[&str]) -> RecordColumns {
    let mut columns = RecordColumns::default();
    for value in values {
        let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
        columns.push(Partitioning::Fixed(PartitionId(0)), &record);
    }
    columns
}

fn read_all(log: &Log, topics: &[TopicId]) -> Vec<Row> {
    read_from(log, topics, Position(0))
}

fn read_from(log: &Log, topics: &[TopicId], from: Position) -> Vec<Row> {
    let mut reader = log.reader(topics, from);
    let mut rows = Vec::new();
    while let Some(batch) = reader.next(log.durable_end()).unwrap() {
        assert!(!batch.is_empty());
        rows.extend(rows_of(&batch));
    }
    assert_eq!(reader.position(), log.durable_end());
    rows
}
