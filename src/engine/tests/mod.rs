//! The engine against a naive model, laws 2 and 3, and what becomes of bad rows. Values are `key|rowtime|amount` lines.

mod decoded;
mod laws;
mod model;
mod revisions;
mod rows;
mod saved;
mod spilled;
mod traced;

use super::plan::{
    AggregateCall, AggregateFunction, Emission, EventTime, Expr, JobPlan, NamedExpr, Order, OutputPlan, PipelinePlan,
    RankPlan, SinkKind, SourcePlan, StartupMode, Step, TimeDomain, WindowKind, WindowPlan,
};
use super::{Codecs, Counters, Engine, EngineOptions, OutputBatch, OutputStream, StateMemory};
use crate::error::Result;
use crate::format::{Decoded, Decoder, Encoder, FormatSpec, Rejected};
use crate::log::records::{LogBatch, RecordColumns, decode_headers};
use crate::types::{AppendTime, TopicId};
use arrow::array::{Array, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{binary, cast, col, lit};
use std::sync::Arc;

pub(super) fn ms_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// key STRING, ts TIMESTAMP(3), amount BIGINT, ratio DOUBLE (amount / 8 + 0.1, so that sums show their order).
pub(super) fn source_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("ts", ms_type(), true),
        Field::new("v", DataType::Int64, true),
        Field::new("d", DataType::Float64, true),
    ]))
}

struct Lines;

impl Decoder for Lines {
    fn decode(&self, values: &BinaryArray) -> Decoded {
        let (mut rows, mut rejected) = (Vec::new(), Vec::new());
        let (mut keys, mut times, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
        for (row, value) in (0u32..).zip(values.iter()) {
            let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("");
            let fields: Vec<&str> = text.split('|').collect();
            match fields[..] {
                [key, time, amount] => {
                    rows.push(row);
                    keys.push((key != "null").then(|| key.to_owned()));
                    times.push(time.parse::<i64>().ok());
                    amounts.push(amount.parse::<i64>().ok());
                }
                _ => rejected.push(Rejected { row, reason: format!("{text:?} has {} fields", fields.len()) }),
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "small amounts")]
        let ratios = amounts.iter().map(|amount| amount.map(|v| v as f64 / 8.0 + 0.1)).collect::<Float64Array>();
        let batch = RecordBatch::try_new(
            source_schema(),
            vec![
                Arc::new(StringArray::from(keys)),
                Arc::new(TimestampMillisecondArray::from(times)),
                Arc::new(Int64Array::from(amounts)),
                Arc::new(ratios),
            ],
        );
        let rows = (!rejected.is_empty()).then_some(rows);
        Decoded { batch: batch.expect("columns of the schema"), rows, rejected }
    }
}

impl Encoder for Lines {
    fn encode(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let fields = batch.columns().iter().map(|column| match column.data_type() {
            DataType::Timestamp(..) => {
                let ms = column.as_any().downcast_ref::<TimestampMillisecondArray>().expect("ms");
                if ms.is_null(row) { "null".to_owned() } else { ms.value(row).to_string() }
            }
            _ if column.is_null(row) => "null".to_owned(),
            _ => {
                let options = FormatOptions::new();
                let formatter = ArrayFormatter::try_new(column, &options).expect("a printable type");
                formatter.value(row).to_string()
            }
        });
        out.extend_from_slice(fields.collect::<Vec<_>>().join("|").as_bytes());
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a codec")]
fn decoder(_: &FormatSpec, _: &SchemaRef, _: &[usize]) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(Lines))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a codec")]
fn encoder(_: &FormatSpec, _: &SchemaRef) -> Result<Box<dyn Encoder>> {
    Ok(Box::new(Lines))
}

const LINES: Codecs = Codecs { decoder, encoder };

pub(super) fn column(name: &str) -> Expr {
    col(name, &source_schema()).expect("a column of the source")
}

pub(super) fn named(name: &str, expr: Expr, schema: &SchemaRef) -> NamedExpr {
    let data_type = expr.data_type(schema).expect("typed");
    NamedExpr { expr, field: Arc::new(Field::new(name, data_type, true)) }
}

/// Time options of the test source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub bound_ms: i64,
    pub idle_ms: Option<i64>,
    pub quiet_close: bool,
    pub max_future_ms: i64,
}

impl Default for Times {
    fn default() -> Self {
        Times { bound_ms: 0, idle_ms: None, quiet_close: false, max_future_ms: 1 << 40 }
    }
}

pub(super) fn source(times: Times) -> SourcePlan {
    let schema = source_schema();
    let as_number = cast(column("ts"), &schema, DataType::Int64).expect("a cast");
    let minus = binary(as_number, Operator::Minus, lit(times.bound_ms), &schema).expect("a difference");
    SourcePlan {
        table: "t".to_owned(),
        topic: "t".to_owned(),
        format: FormatSpec::Raw,
        declared: schema.clone(),
        used: vec![0, 1, 2, 3],
        columns: schema.fields().iter().map(|f| named(f.name(), column(f.name()), &schema)).collect(),
        schema: schema.clone(),
        metadata: vec![],
        event_time: Some(EventTime {
            rowtime: 1,
            watermark: cast(minus, &schema, ms_type()).expect("a cast"),
            idle_timeout_us: times.idle_ms.map(|ms| ms * 1000),
            quiet_close: times.quiet_close,
            max_future_us: times.max_future_ms * 1000,
        }),
        ignore_parse_errors: false,
        startup: StartupMode::Earliest,
        ingest: None,
    }
}

pub(super) fn call(function: AggregateFunction, argument: Option<&str>, distinct: bool) -> AggregateCall {
    let argument = argument.map(column);
    let argument_type = argument.as_ref().map_or(DataType::Null, |a| a.data_type(&source_schema()).expect("typed"));
    let result = match function {
        AggregateFunction::Count => DataType::Int64,
        _ => argument_type.clone(),
    };
    let field = Arc::new(Field::new("a", result, true));
    AggregateCall { function, argument, argument_type, distinct, filter: None, field }
}

/// What the test pipelines compute.
pub(super) fn calls() -> Vec<AggregateCall> {
    use AggregateFunction::{Count, FirstValue, LastValue, Max, Min, Sum};
    vec![
        call(Count, None, false),
        call(Sum, Some("v"), false),
        call(Min, Some("v"), false),
        call(Max, Some("v"), false),
        call(FirstValue, Some("v"), false),
        call(LastValue, Some("v"), false),
        call(Count, Some("v"), true),
        call(Sum, Some("d"), false),
    ]
}

/// A grouped window aggregation by `k` whose rows go out as they are.
pub(super) fn windowed(kind: WindowKind, aggregates: Vec<AggregateCall>) -> PipelinePlan {
    let mut fields = vec![Field::new("k", DataType::Utf8, true)];
    fields.extend(aggregates.iter().enumerate().map(|(i, call)| (*call.field).clone().with_name(format!("a{i}"))));
    for name in ["window_start", "window_end", "window_time"] {
        fields.push(Field::new(name, ms_type(), false));
    }
    if let WindowKind::Count { .. } = kind {
        fields.push(Field::new("window_reason", DataType::Utf8, false));
    }
    let keys = vec![named("k", column("k"), &source_schema())];
    let schema = Arc::new(Schema::new(fields));
    pipeline(vec![Step::Aggregate(WindowPlan { kind, rowtime: 1, keys, aggregates, zone: None, schema })])
}

pub(super) fn pipeline(steps: Vec<Step>) -> PipelinePlan {
    let (time, emission) = (TimeDomain::Event, Emission::default());
    PipelinePlan { source: 0, output: 0, steps, rowtime: None, time, emission }
}

/// A job of one source and one output. The output's schema is that of the last pipeline.
pub(super) fn job(times: Times, pipelines: Vec<PipelinePlan>) -> JobPlan {
    let last = pipelines.last().expect("a pipeline");
    let schema = last.steps.iter().rev().find_map(Step::schema).cloned().unwrap_or_else(source_schema);
    let output = OutputPlan {
        is_select: false,
        table: "o".to_owned(),
        sink: SinkKind::Topic,
        topic: Some("o".to_owned()),
        format: FormatSpec::Raw,
        schema,
        primary_key: vec![],
        partitions: 1,
    };
    let (sources, outputs, notes) = (vec![source(times)], vec![output], vec![]);
    JobPlan { sources, outputs, pipelines, digest: 0, notes, checkpoint_interval_us: None }
}

/// A record of the test topic; its position is its index.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub append_us: i64,
    pub partition: u32,
    pub value: String,
}

pub(super) fn event(append_ms: i64, partition: u32, key: &str, time: i64, amount: i64) -> Event {
    Event { append_us: append_ms * 1000, partition, value: format!("{key}|{time}|{amount}") }
}

/// A batch of events from index `first` on; all have one append time.
pub(super) fn log_batch(events: &[Event], first: usize) -> LogBatch {
    assert!(events.iter().all(|event| event.append_us == events[0].append_us));
    LogBatch {
        topic: TopicId(1),
        positions: (first as u64..).take(events.len()).collect(),
        append_times: events.iter().map(|event| event.append_us).collect(),
        partitions: events.iter().map(|event| event.partition).collect(),
        offsets: (first as u64..).take(events.len()).collect(),
        timestamps: events.iter().map(|_| Some(7)).collect(),
        keys: events.iter().map(|_| Some(b"rk".as_slice())).collect(),
        values: events.iter().map(|event| Some(event.value.as_bytes())).collect(),
        headers: events.iter().map(|_| Some(b"".as_slice())).collect(),
        decoded: None,
    }
}

pub(super) fn engine(plan: &JobPlan, threads: usize) -> Engine {
    engine_within(plan, threads, None)
}

pub(super) fn engine_within(plan: &JobPlan, threads: usize, memory: Option<StateMemory>) -> Engine {
    let partitions = vec![1; plan.sources.len()];
    let options = EngineOptions { threads, memory, ..EngineOptions::default() };
    Engine::with_codecs(Arc::new(plan.clone()), &partitions, options, LINES, None).expect("a good plan")
}

/// Batches of at most `size` events, cut where the append time changes.
pub(super) fn batches(events: &[Event], size: usize) -> Vec<(usize, LogBatch)> {
    let mut batches = Vec::new();
    let mut first = 0;
    for run in events.chunk_by(|a, b| a.append_us == b.append_us) {
        for piece in run.chunks(size) {
            batches.push((0, log_batch(piece, first)));
            first += piece.len();
        }
    }
    batches
}

/// Everything drained so far, put together by output and stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Collected {
    pub main: Vec<RecordColumns>,
    pub late: Vec<RecordColumns>,
    pub rejected: Vec<RecordColumns>,
}

impl Collected {
    pub fn add(&mut self, drained: Vec<OutputBatch>) {
        for batch in drained {
            let streams = match batch.stream {
                OutputStream::Main => &mut self.main,
                OutputStream::Late => &mut self.late,
                OutputStream::Rejected => &mut self.rejected,
            };
            streams.resize_with(streams.len().max(batch.output + 1), RecordColumns::default);
            let all = &mut streams[batch.output];
            for row in 0..batch.records.len() {
                let to = batch.records.partitions[row];
                all.partitions.push(to);
                all.timestamps_ms.push(batch.records.timestamps_ms[row]);
                all.keys.push(batch.records.keys.get(row));
                all.values.push(batch.records.values.get(row));
                all.headers.push(batch.records.headers.get(row));
            }
        }
    }
}

pub(super) fn values(records: &[RecordColumns]) -> Vec<String> {
    let Some(records) = records.first() else { return Vec::new() };
    let text = |row| String::from_utf8_lossy(records.values.get(row).unwrap_or(b"NULL")).into_owned();
    (0..records.len()).map(text).collect()
}

pub(super) fn header(records: &RecordColumns, row: usize, name: &str) -> Option<String> {
    let headers = decode_headers(records.headers.get(row)?).expect("encoded headers");
    let value = headers.iter().find(|(n, _)| *n == name)?.1?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Runs all events, the clock up to `clock_us` if given, and the end of the input.
pub(super) fn run(
    plan: &JobPlan,
    events: &[Event],
    size: usize,
    clock_us: Option<i64>,
    threads: usize,
) -> (Collected, Counters) {
    let mut engine = engine(plan, threads);
    let mut collected = Collected::default();
    engine.push(batches(events, size)).expect("good batches");
    if let Some(clock) = clock_us {
        engine.advance(AppendTime(clock)).expect("open");
    }
    engine.finish().expect("open");
    collected.add(engine.drain());
    (collected, engine.counters())
}
