//! Files come back as they were pushed, whatever is in them; what is damaged is found.

mod columns;
mod damage;
mod rows;
mod size;

use super::file::FileRecord;
use super::read::HistoryFile;
use super::schema::TopicSpec;
use super::write::{FileWriter, GroupLimits};
use crate::log::records::{LogBatch, ValueColumns};
use crate::log::topic::TopicConfig;
use crate::types::TopicId;
use arrow::array::{Array, BinaryArray, Int64Array};
use bytes::Bytes;
use std::sync::Arc;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    position: u64,
    append_time: i64,
    partition: u32,
    offset: u64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

fn batch_of(topic: u32, rows: &[Row]) -> LogBatch {
    LogBatch {
        topic: TopicId(topic),
        positions: rows.iter().map(|row| row.position).collect(),
        append_times: rows.iter().map(|row| row.append_time).collect(),
        partitions: rows.iter().map(|row| row.partition).collect(),
        offsets: rows.iter().map(|row| row.offset).collect(),
        timestamps: rows.iter().map(|row| row.timestamp).collect(),
        keys: rows.iter().map(|row| row.key.as_deref()).collect(),
        values: rows.iter().map(|row| row.value.as_deref()).collect(),
        headers: rows.iter().map(|row| Some(row.headers.as_slice())).collect(),
        decoded: None,
    }
}

fn rows_of(batch: &LogBatch) -> Vec<Row> {
    let bytes = |array: &BinaryArray, row: usize| array.is_valid(row).then(|| array.value(row).to_vec());
    let timestamp = |array: &Int64Array, row: usize| array.is_valid(row).then(|| array.value(row));
    let row = |row: usize| Row {
        position: batch.positions[row],
        append_time: batch.append_times[row],
        partition: batch.partitions[row],
        offset: batch.offsets[row],
        timestamp: timestamp(&batch.timestamps, row),
        key: bytes(&batch.keys, row),
        value: bytes(&batch.values, row),
        headers: bytes(&batch.headers, row).expect("headers are there"),
    };
    (0..batch.len()).map(row).collect()
}

fn spec(topic: u32, columns: Option<ValueColumns>) -> TopicSpec {
    TopicSpec {
        topic: TopicId(topic),
        name: format!("topic-{topic}"),
        config: TopicConfig { partitions: 7, ..TopicConfig::default() },
        columns: columns.map(Arc::new),
    }
}

fn write(topics: Vec<TopicSpec>, limits: GroupLimits, batches: &[LogBatch]) -> (Bytes, FileRecord) {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(&mut bytes, topics).unwrap().with_limits(limits);
    for batch in batches {
        writer.push(batch).unwrap();
    }
    let record = writer.finish(7).unwrap();
    (Bytes::from(bytes), record)
}

fn open(bytes: &Bytes) -> HistoryFile {
    HistoryFile::open(bytes.clone(), "test.parquet").unwrap()
}
