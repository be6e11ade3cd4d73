//! Consumers of history: one on a topic of one partition beside many on the partitions of another, and the latency of live
//! appends beside a replay at full speed.

use super::replay::{Events, generate, open, replay_until};
use super::{Series, anonymous_mib, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::Env;
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Consumer, Log, LogOptions, TopicConfig};
use crate::types::{PartitionId, TopicId};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub(super) struct Setup {
    pub rounds: u32,
    pub events: u64,
    pub consumers: u32,
    pub seconds: u32,
}

/// Records a consumer asks for at once.
const POLL_RECORDS: usize = 1000;

/// Records in one live append, and the rest between two of them.
const APPEND_RECORDS: usize = 32;
const APPEND_REST_US: u64 = 2_000;

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let dir = dir.join("log");
    let log = open(env, &dir)?;
    let events = Events { count: setup.events, keys: 10_000, partitions: 1 };
    let event_bytes = generate(&log, "one", &events)?;
    generate(&log, "many", &Events { partitions: setup.consumers, ..events })?;
    let live = log.create_topic("live", TopicConfig::default())?.id();
    log.keep()?;
    log.close()?;
    // From here on it is a log as in use, which seals what replays write.
    let log = Log::open(env, &dir, LogOptions::default())?;
    let mut one = Series::new("one consumer, one partition", "MB/s");
    let mut many = Series::new("a consumer on each of many partitions, together", "MB/s");
    let mut ratio = Series::new("many / one", "ratio");
    let mut memory = Series::new("anonymous memory of the many, highest", "MiB");
    let mut alone = Series::new("p99 of a live append, alone", "us");
    let mut beside = Series::new("p99 of a live append beside a replay", "us");
    let mut slower = Series::new("beside / alone", "ratio");
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    let rate = |seconds: f64| setup.events as f64 * event_bytes / seconds / 1e6;
    for round in 0..setup.rounds {
        let single = rate(consume_round(env, &log, "one", setup)?.0);
        let (seconds, peak) = consume_round(env, &log, "many", setup)?;
        one.values.push(single);
        many.values.push(rate(seconds));
        ratio.values.push(rate(seconds) / single);
        memory.values.push(peak);
        // They take turns in going first.
        let first = round % 2 == 1;
        let a = append_round(env, &log, live, setup.seconds, first)?;
        let b = append_round(env, &log, live, setup.seconds, !first)?;
        let (without, with) = if first { (b, a) } else { (a, b) };
        alone.values.push(without);
        beside.values.push(with);
        slower.values.push(with / without);
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    log.close()?;
    show(env, printer, &[&one, &many, &ratio, &memory, &alone, &beside, &slower])
}

fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    thread::spawn("bench", work)
        .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread of the bench: {e}")))
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Seconds in which consumers, one for each partition, read a whole topic, and the highest memory seen.
fn consume_round(env: &Env, log: &Log, topic: &str, setup: &Setup) -> Result<(f64, f64)> {
    let (seconds, found) = timed(env, || {
        let consumers: Vec<_> = (0..log.topic(topic)?.partitions())
            .map(|partition| {
                let (env, log, topic) = (env.clone(), log.clone(), topic.to_owned());
                start(move || consume(&env, &log, &topic, PartitionId(partition)))
            })
            .collect::<Result<_>>()?;
        consumers.into_iter().map(joined).collect::<Result<Vec<_>>>()
    })?;
    let records: u64 = found.iter().map(|(records, _)| records).sum();
    if records != setup.events {
        return Err(Error::internal(format!("{records} of {} records were consumed", setup.events)));
    }
    Ok((seconds, found.iter().map(|(_, mib)| *mib).fold(0.0, f64::max)))
}

/// Reads a partition; gives its records and the highest memory seen.
fn consume(env: &Env, log: &Log, topic: &str, partition: PartitionId) -> Result<(u64, f64)> {
    let mut consumer = Consumer::new(log, &log.topic(topic)?, None)?;
    consumer.assign(&[partition])?;
    let (mut records, mut mib) = (0, 0.0_f64);
    for poll in 0_u64.. {
        let found = consumer.poll(POLL_RECORDS)?;
        if found.is_empty() {
            break;
        }
        records += found.len() as u64;
        if poll.is_multiple_of(16) {
            mib = mib.max(anonymous_mib(env));
        }
    }
    Ok((records, mib))
}

/// The 99th percentile in microseconds of the time until an append is durable, with or without a replay beside it.
fn append_round(env: &Env, log: &Log, live: TopicId, seconds: u32, replay: bool) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let replay = if replay {
        let (log, stop) = (log.clone(), Arc::clone(&stop));
        Some(start(move || {
            thread::enter(Class::Bulk);
            replay_until(&log, "one", &stop)
        })?)
    } else {
        None
    };
    let latencies = append_paced(env, log, live, seconds);
    stop.store(true, Ordering::Relaxed);
    replay.map_or(Ok(()), joined)?;
    let mut latencies = latencies?;
    latencies.sort_unstable();
    let at = latencies.len().saturating_sub(1) * 99 / 100;
    Ok(latencies.get(at).copied().unwrap_or_default() as f64)
}

fn append_paced(env: &Env, log: &Log, live: TopicId, seconds: u32) -> Result<Vec<u64>> {
    let mut rows = RecordColumns::default();
    let record = Record { timestamp_ms: None, key: None, value: Some(&[b'x'; 1024]), headers: &[] };
    (0..APPEND_RECORDS).for_each(|_| rows.push(Partitioning::Fixed(PartitionId(0)), &record));
    let end = env.clock.monotonic_us() + u64::from(seconds) * 1_000_000;
    let mut latencies = Vec::new();
    while env.clock.monotonic_us() < end {
        let start = env.clock.monotonic_us();
        log.append_wait(AppendBatch::records(live, rows.clone()))?;
        latencies.push(env.clock.monotonic_us() - start);
        env.clock.sleep_us(APPEND_REST_US);
    }
    Ok(latencies)
}
