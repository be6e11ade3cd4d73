//! History files: written from log batches, and read into them beside the bare Parquet reader.

use crate::{ROWS, events};
use arrow::array::{Array, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use kappa::format::{FormatSpec, JsonOptions, decoder};
use kappa::log::TopicConfig;
use kappa::log::history::read::HistoryFile;
use kappa::log::history::schema::TopicSpec;
use kappa::log::history::write::FileWriter;
use kappa::log::records::{LogBatch, Projection, ValueColumns};
use kappa::types::TopicId;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::hint::black_box;
use std::sync::Arc;

/// The columns of an event.
pub(crate) fn declared() -> SchemaRef {
    let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", ts, true),
        Field::new("user_id", DataType::Utf8, true),
        Field::new("page", DataType::Utf8, true),
        Field::new("referrer", DataType::Utf8, true),
        Field::new("status", DataType::Int32, true),
        Field::new("bytes", DataType::Int32, true),
    ]))
}

/// `rows` records of one topic from position `first` on.
fn batch(values: BinaryArray, first: u64) -> LogBatch {
    let rows = values.len();
    let end = first + rows as u64;
    LogBatch {
        topic: TopicId(1),
        positions: (first..end).collect(),
        append_times: vec![1_800_000_000_000_000; rows].into(),
        partitions: vec![0; rows].into(),
        offsets: (first..end).collect(),
        timestamps: Int64Array::new_null(rows),
        keys: BinaryArray::from(vec![None::<&[u8]>; rows]),
        values,
        headers: BinaryArray::from(vec![Some(&b""[..]); rows]),
        decoded: None,
    }
}

fn history_file(columns: Option<&ValueColumns>, batches: &[LogBatch]) -> Bytes {
    let columns = columns.cloned().map(Arc::new);
    let topic = TopicSpec { topic: TopicId(1), name: "events".to_owned(), config: TopicConfig::default(), columns };
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(&mut bytes, vec![topic]).expect("a writer");
    batches.iter().for_each(|batch| writer.push(batch).expect("pushed"));
    writer.finish(1).expect("finished");
    Bytes::from(bytes)
}

/// Columns out of history, beside the bare Parquet reader on the same bytes and the same columns out of JSON.
pub fn reading(c: &mut Criterion) {
    let columns =
        ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared: declared(), used: vec![1, 2, 6] };
    let batches: Vec<LogBatch> = (0..8).map(|part| batch(events(10_000), part * ROWS)).collect();
    let bytes = history_file(Some(&columns), &batches);
    let file = HistoryFile::open(bytes.clone(), "bench").expect("open");
    let mut group = c.benchmark_group("history, 3 of 7 columns");
    group.throughput(Throughput::Elements(8 * ROWS));
    let wanted = Some(Arc::new(columns.clone()));
    let projection = Projection { keys: false, values: false, headers: false, columns: wanted };
    group.bench_function("log batches", |b| {
        b.iter(|| (0..file.groups().len()).for_each(|group| drop(black_box(file.read(group, &projection)))));
    });
    let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).expect("a footer");
    group.bench_function("bare reader", |b| {
        b.iter(|| {
            let mask = ProjectionMask::columns(metadata.parquet_schema(), ["ts", "user_id", "bytes"]);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone());
            let reader = reader.with_projection(mask).with_batch_size(8192).build().expect("a reader");
            reader.for_each(|batch| drop(black_box(batch)));
        });
    });
    let decoder = decoder(&columns.format, &columns.declared, &columns.used).expect("a decoder");
    group.bench_function("decoding JSON", |b| {
        b.iter(|| batches.iter().for_each(|batch| drop(black_box(decoder.decode(&batch.values)))));
    });
}

/// Sealing: bytes of values a second.
pub fn writing(c: &mut Criterion) {
    const KIB: usize = 1024;
    let mut state = 7_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    let noise: Vec<Vec<u8>> = (0..ROWS).map(|_| (0..KIB / 8).flat_map(|_| noise()).collect()).collect();
    let same: Vec<Vec<u8>> = (0..ROWS).map(|row| format!("{row:>KIB$}").into_bytes()).collect();
    let columns = ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared: declared(), used: vec![] };
    let mut group = c.benchmark_group("history, writing");
    for (name, values, columns) in [
        ("incompressible, 1 KiB", BinaryArray::from_iter_values(noise), None),
        ("repetitive, 1 KiB", BinaryArray::from_iter_values(same), None),
        ("JSON", events(10_000), None),
        ("JSON with 7 columns", events(10_000), Some(&columns)),
    ] {
        group.throughput(Throughput::Bytes(values.value_data().len() as u64));
        let batch = [batch(values, 0)];
        group.bench_function(name, |b| b.iter(|| history_file(columns, black_box(&batch))));
    }
}
