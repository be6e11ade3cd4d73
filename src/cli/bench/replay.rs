//! A bounded run of a 1-minute tumbling count by key over JSON events in the log, at two sizes.

use super::{Series, anonymous_mib, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::engine::Counters;
use crate::env::Env;
use crate::error::Result;
use crate::job::{self, Job, Observer, Request};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, LogOptions, TopicConfig};
use crate::types::{PartitionId, Position};
use std::path::Path;
use std::sync::Arc;

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
    let log = Log::open(env, &dir.join("log"), LogOptions::default())?;
    let small = (setup.events / 10).max(1);
    let event_bytes = generate(&log, "events", setup.events, setup.keys)?;
    generate(&log, "few_events", small, setup.keys)?;
    let mut rate = Series::new("bounded run, all events", "events/s");
    let mut rate_small = Series::new("bounded run, a tenth of them", "events/s");
    let mut cost = Series::new("cost per event, all / a tenth", "ratio");
    let mut scan = Series::new("bare read of the log's batches", "events/s");
    let mut memory = Series::new("anonymous memory, highest", "MiB");
    let mut bytes = Series::new("bytes of an event", "bytes");
    bytes.values.push(event_bytes);
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        scan.values.push(setup.events as f64 / read_round(env, &log, "events")?);
        let (few, _) = job_round(env, &log, "few_events", small, setup.threads)?;
        let (all, peak) = job_round(env, &log, "events", setup.events, setup.threads)?;
        rate.values.push(all);
        rate_small.values.push(few);
        cost.values.push(few / all);
        memory.values.push(peak);
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    log.close()?;
    show(env, printer, &[&rate, &rate_small, &cost, &scan, &memory, &bytes])
}

/// Events with seeded keys, slightly out of order, about 150 bytes each. Gives their mean size.
fn generate(log: &Log, topic: &str, events: u64, keys: u32) -> Result<f64> {
    let id = log.create_topic(topic, TopicConfig::default())?.id();
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
            rows.push(Partitioning::Fixed(PartitionId(0)), &record);
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

/// Seconds to read every batch of a topic.
fn read_round(env: &Env, log: &Log, topic: &str) -> Result<f64> {
    let mut reader = log.reader(&[log.topic(topic)?.id()], Position(0));
    let end = log.durable_end();
    let (seconds, rows) = timed(env, || {
        let mut rows = 0;
        while let Some(batch) = reader.next(end)? {
            rows += batch.len();
        }
        Ok(rows)
    })?;
    debug_assert!(rows > 0);
    Ok(seconds)
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
    let plan = crate::sql::plan("bench.sql", &sql(topic))?;
    let job = Job { plan: Arc::new(plan), name: format!("bench-{topic}"), version: None };
    let request = Request { bounded: true, flush: true, restart: true, threads, ..Request::default() };
    let mut peak = Peak { env, mib: 0.0 };
    let (seconds, _) = timed(env, || job::run(log, &job, &request, &mut peak))?;
    Ok((events as f64 / seconds, peak.mib))
}
