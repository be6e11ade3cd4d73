//! A bounded run of a 1-minute tumbling count by key over JSON events: from the journal, at two sizes, and from history, whose
//! reading is set beside a bare Parquet reader.

use super::{Series, anonymous_mib, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::engine::Counters;
use crate::env::{Env, Mapped, OpenMode};
use crate::error::{Error, Result};
use crate::job::{self, Job, Observer, Point, Request, Silent};
use crate::log::records::{Partitioning, Projection, Record, RecordColumns, ValueColumns};
use crate::log::{AppendBatch, Log, LogOptions, TopicConfig};
use crate::types::{PartitionId, Position};
use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Setup {
    pub rounds: u32,
    pub events: u64,
    pub keys: u32,
    pub threads: usize,
}

/// Events in one append: about 1 MiB.
const BATCH: u64 = 7_000;

/// Events a second of event time.
const EVENTS_PER_S: u64 = 10_000;

fn sql(topic: &str) -> String {
    format!(
        "CREATE TABLE {topic} (id BIGINT, ts TIMESTAMP(3), user_id STRING, page STRING, referrer STRING, status INT, bytes INT, \
         WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'kappa', 'format' = 'json');\n\
         CREATE TABLE {topic}_counts (window_start TIMESTAMP(3), user_id STRING, n BIGINT) WITH ('connector' = 'kappa', 'format' = 'json');\n\
         INSERT INTO {topic}_counts SELECT window_start, user_id, COUNT(*) \
         FROM TABLE(TUMBLE(TABLE {topic}, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, user_id;"
    )
}

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    // Sealing runs when told to: what one log holds stays in its journal, what the other holds becomes history.
    let journal = open(env, &dir.join("journal"))?;
    let history = open(env, &dir.join("history"))?;
    let small = (setup.events / 10).max(1);
    let events = Events { count: setup.events, keys: setup.keys, partitions: 1 };
    let event_bytes = generate(&journal, "events", &events)?;
    generate(&journal, "few_events", &Events { count: small, ..events })?;
    generate(&history, "events", &events)?;
    history.keep()?;
    let mut series = Measured::new();
    series.event_bytes.values.push(event_bytes);
    series.files.values.push(file_bytes(env, &dir.join("history"))? / (event_bytes * setup.events as f64));
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        let rate = |seconds: f64| setup.events as f64 / seconds;
        series.scan.values.push(rate(read_round(env, &journal, "events", Projection::ALL)?.seconds));
        let (few, _) = job_round(env, &journal, "few_events", small, setup.threads)?;
        let (all, peak) = job_round(env, &journal, "events", setup.events, setup.threads)?;
        let (sealed, sealed_peak) = job_round(env, &history, "events", setup.events, setup.threads)?;
        let source = read_round(env, &history, "events", used_columns("events")?)?;
        let bare = parquet_round(env, &dir.join("history"))?;
        series.rate.values.push(all);
        series.rate_small.values.push(few);
        series.cost.values.push(few / all);
        series.history.values.push(sealed);
        series.gain.values.push(sealed / all);
        series.source.values.push(rate(source.seconds));
        series.bare.values.push(bare);
        series.share.values.push(rate(source.seconds) / bare);
        series.decoded.values.push(source.decoded as f64 / setup.events as f64);
        series.memory.values.push(peak.max(sealed_peak));
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    journal.close()?;
    history.close()?;
    series.show(env, printer)
}

/// A log that seals only when told to.
pub(super) fn open(env: &Env, dir: &Path) -> Result<Log> {
    Log::open(env, dir, LogOptions { background: false, ..LogOptions::default() })
}

struct Measured {
    rate: Series,
    rate_small: Series,
    cost: Series,
    history: Series,
    gain: Series,
    scan: Series,
    source: Series,
    bare: Series,
    share: Series,
    decoded: Series,
    files: Series,
    memory: Series,
    event_bytes: Series,
}

impl Measured {
    fn new() -> Self {
        Measured {
            rate: Series::new("bounded run from the journal", "events/s"),
            rate_small: Series::new("the same over a tenth of the events", "events/s"),
            cost: Series::new("cost per event, all / a tenth", "ratio"),
            history: Series::new("bounded run from history", "events/s"),
            gain: Series::new("history / journal", "ratio"),
            scan: Series::new("bare read of the journal's batches", "events/s"),
            source: Series::new("history source alone, columns of the job", "events/s"),
            bare: Series::new("bare Parquet reader, same files and columns", "events/s"),
            share: Series::new("history source / bare reader", "ratio"),
            decoded: Series::new("events read from history", "share"),
            files: Series::new("history files / JSON bytes", "ratio"),
            memory: Series::new("anonymous memory, highest", "MiB"),
            event_bytes: Series::new("bytes of an event", "bytes"),
        }
    }

    fn show(&self, env: &Env, printer: &Printer) -> Result<()> {
        let runs = [&self.rate, &self.rate_small, &self.cost, &self.history, &self.gain];
        let reads = [&self.scan, &self.source, &self.bare, &self.share, &self.decoded];
        let sizes = [&self.files, &self.memory, &self.event_bytes];
        show(env, printer, &[&runs[..], &reads, &sizes].concat())
    }
}

/// What a topic is filled with.
#[derive(Clone, Copy)]
pub(super) struct Events {
    pub count: u64,
    pub keys: u32,
    pub partitions: u32,
}

/// The log knows the topic's columns from the first job that reads it, here one that ends where it starts.
fn declare(log: &Log, topic: &str) -> Result<()> {
    let request = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
    job::run(log, &job_of(topic)?, &request, &mut Silent).map(drop)
}

fn job_of(topic: &str) -> Result<Job> {
    let plan = crate::sql::plan("bench.sql", &sql(topic))?;
    Ok(Job { plan: Arc::new(plan), name: format!("bench-{topic}"), version: None })
}

/// The parts of records that the job uses.
fn used_columns(topic: &str) -> Result<Projection> {
    let job = job_of(topic)?;
    let source = job.plan.sources.first().ok_or_else(|| Error::internal("the job reads nothing"))?;
    let columns = ValueColumns {
        format: source.format.clone(),
        declared: Arc::clone(&source.declared),
        used: source.used.clone(),
    };
    Ok(Projection { keys: false, values: false, headers: false, columns: Some(Arc::new(columns)) })
}

/// Events with seeded keys, slightly out of order, about 150 bytes each. Gives their mean size.
pub(super) fn generate(log: &Log, topic: &str, events: &Events) -> Result<f64> {
    let id = log.create_topic(topic, TopicConfig { partitions: events.partitions, ..TopicConfig::default() })?.id();
    declare(log, topic)?;
    let Events { count: events, keys, partitions } = *events;
    let progress = Progress::new("writing events", Some(events), "events");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = 0usize;
    let mut at = 0;
    let mut pending = None;
    while at < events {
        let mut rows = RecordColumns::default();
        for event in at..(at + BATCH).min(events) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (state >> 33) % u64::from(keys.max(1));
            let ms = event * 1000 / EVENTS_PER_S;
            let ms = ms.saturating_sub((state >> 20) % 900);
            let (minute, second, milli) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
            let value = format!(
                "{{\"id\":{event},\"ts\":\"2026-01-{:02} {:02}:{:02}:{second:02}.{milli:03}\",\"user_id\":\"user-{key:05}\",\
                 \"page\":\"/products/{:04}\",\"referrer\":\"https://example.org\",\"status\":200,\"bytes\":{}}}",
                1 + minute / 1440 % 28,
                minute / 60 % 24,
                minute % 60,
                state >> 50,
                1000 + (state >> 40) % 9000
            );
            bytes += value.len();
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::Fixed(PartitionId((event % u64::from(partitions)) as u32)), &record);
        }
        at = (at + BATCH).min(events);
        progress.at(at);
        if let Some(before) = pending.replace(log.append(AppendBatch::records(id, rows))?) {
            before.wait()?;
        }
    }
    pending.map_or(Ok(()), |last| last.wait().map(drop))?;
    Ok(bytes as f64 / events as f64)
}

struct Read {
    seconds: f64,
    /// Records whose values came decoded.
    decoded: u64,
}

/// Reads every batch of a topic.
fn read_round(env: &Env, log: &Log, topic: &str, parts: Projection) -> Result<Read> {
    let topic = log.topic(topic)?.id();
    let mut reader = log.reader(&[topic], Position(0)).with_projection(topic, parts);
    let end = log.durable_end();
    let (seconds, decoded) = timed(env, || {
        let mut decoded = 0;
        while let Some(batch) = reader.next(end)? {
            decoded += if batch.decoded.is_some() { batch.len() as u64 } else { 0 };
        }
        Ok(decoded)
    })?;
    Ok(Read { seconds, decoded })
}

/// Paths of a log's history files.
fn history_files(env: &Env, dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join("history");
    let io = |e| Error::io("cannot list", &folder, e);
    if !env.disk.exists(&folder).map_err(io)? {
        return Ok(Vec::new());
    }
    let names = env.disk.list(&folder).map_err(io)?.into_iter().map(|entry| folder.join(entry.name));
    Ok(names.filter(|path| path.extension().is_some_and(|ending| ending == "parquet")).collect())
}

/// Bytes of a log's history files.
fn file_bytes(env: &Env, dir: &Path) -> Result<f64> {
    let len = |path: PathBuf| {
        let len = env.disk.open(&path, OpenMode::Read).and_then(|file| file.len());
        len.map_err(|e| Error::io("cannot open", &path, e))
    };
    let bytes: u64 = history_files(env, dir)?.into_iter().map(len).sum::<Result<u64>>()?;
    Ok(bytes as f64)
}

struct Owner(Mapped);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Hands the named columns of a log's history files, read by a bare Parquet reader, to `each`; gives how many rows there are.
pub(super) fn bare_read(
    env: &Env,
    dir: &Path,
    names: &[&str],
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<usize> {
    let mut rows = 0;
    for path in history_files(env, dir)? {
        let mapped = env.disk.open(&path, OpenMode::Read).and_then(|file| file.map());
        let bytes = Bytes::from_owner(Owner(mapped.map_err(|e| Error::io("cannot open", &path, e))?));
        let damaged = |e: &dyn std::fmt::Display| Error::damage(format!("{}: {e}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| damaged(&e))?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), names.iter().copied());
        let reader = reader.with_projection(mask).with_batch_size(8192).build().map_err(|e| damaged(&e))?;
        for batch in reader {
            let batch = batch.map_err(|e| damaged(&e))?;
            rows += batch.num_rows();
            each(&batch)?;
        }
    }
    Ok(rows)
}

/// Rows a second of a Parquet reader on a log's history files: the columns of the job and no others.
fn parquet_round(env: &Env, dir: &Path) -> Result<f64> {
    // Of the columns that give each record its place in the log most need not be read, so none of them is counted here.
    let (seconds, rows) = timed(env, || bare_read(env, dir, &["ts", "user_id"], |_| Ok(())))?;
    Ok(rows as f64 / seconds)
}

/// Highest memory seen between two strides.
struct Peak<'a> {
    env: &'a Env,
    mib: f64,
}

impl Observer for Peak<'_> {
    fn on_progress(&mut self, _: Position, _: Option<Position>, _: &Counters) {
        self.mib = self.mib.max(anonymous_mib(self.env));
    }
}

/// Events a second of one run from the start, and its highest anonymous memory.
fn job_round(env: &Env, log: &Log, topic: &str, events: u64, threads: usize) -> Result<(f64, f64)> {
    let request = Request { bounded: true, flush: true, restart: true, threads, ..Request::default() };
    let mut peak = Peak { env, mib: 0.0 };
    let job = job_of(topic)?;
    let (seconds, _) = timed(env, || job::run(log, &job, &request, &mut peak))?;
    Ok((events as f64 / seconds, peak.mib))
}

/// Runs the job over and over, until it is told to stop.
pub(super) fn replay_until(log: &Log, topic: &str, stop: &AtomicBool) -> Result<()> {
    struct Stop<'a>(&'a AtomicBool);
    impl Observer for Stop<'_> {
        fn should_stop(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
    let (job, mut observer) = (job_of(topic)?, Stop(stop));
    while !observer.should_stop() {
        let request = Request { bounded: true, flush: true, restart: true, threads: 1, ..Request::default() };
        job::run(log, &job, &request, &mut observer)?;
    }
    Ok(())
}
