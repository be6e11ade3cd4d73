//! Durable appends by pipelining producers, beside a bare loop that writes and fdatasyncs groups of the same size.

use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::{Env, OpenMode, thread};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Durability, Log, LogOptions, PendingAck, TopicConfig};
use crate::types::TopicId;
use std::collections::VecDeque;
use std::path::Path;

#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub rounds: u32,
    pub seconds: u32,
    pub producers: u32,
    pub record_bytes: usize,
    pub partitions: u32,
    pub durability: Durability,
    /// Full files become history meanwhile.
    pub sealing: bool,
    /// Appends a producer has on their way.
    pub in_flight: usize,
}

/// Bytes that a producer puts into one append.
const BATCH_BYTES: usize = 32 << 10;

impl Setup {
    /// Records of one append.
    fn batch_records(&self) -> usize {
        (BATCH_BYTES / self.record_bytes.max(1)).max(1)
    }
}

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let mut kappa = Series::new("kappa append", "MB/s");
    let mut records = Series::new("kappa append", "records/s");
    let mut bare = Series::new("bare write + fdatasync, same groups", "MB/s");
    let mut group = Series::new("group", "KiB");
    let mut ratio = Series::new("kappa / bare", "ratio");
    let mut p50 = Series::new("kappa acknowledgement p50", "ms");
    let mut p99 = Series::new("kappa acknowledgement p99", "ms");
    let mut bare_p50 = Series::new("bare write + fdatasync p50, same groups", "ms");
    let mut one = Series::new("kappa acknowledgement p50, one producer, one append at a time", "ms");
    let mut bare_one = Series::new("bare write + fdatasync p50, an append's bytes", "ms");
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    // Blocks that a disk has never written are slower than freed ones on many machines: the first round only touches them,
    // each half removes its files before the other begins, and the halves take turns in going first.
    let mut group_bytes = in_turn(env, dir, |dir| append_round(env, setup, dir))?.group_bytes;
    in_turn(env, dir, |dir| bare_round(env, setup, dir, group_bytes))?;
    for round in 0..setup.rounds {
        let mut theirs = None;
        if round % 2 == 1 {
            theirs = Some(in_turn(env, dir, |dir| bare_round(env, setup, dir, group_bytes))?);
        }
        let ours = in_turn(env, dir, |dir| append_round(env, setup, dir))?;
        group_bytes = ours.group_bytes;
        let theirs = match theirs {
            Some(theirs) => theirs,
            None => in_turn(env, dir, |dir| bare_round(env, setup, dir, group_bytes))?,
        };
        kappa.values.push(ours.bytes / ours.seconds / 1e6);
        records.values.push(ours.bytes / setup.record_bytes as f64 / ours.seconds);
        bare.values.push(theirs.bytes / theirs.seconds / 1e6);
        group.values.push(ours.group_bytes as f64 / 1024.0);
        ratio.values.push(ours.bytes / ours.seconds / (theirs.bytes / theirs.seconds));
        p50.values.push(ms(&ours.waits_us, 0.5));
        p99.values.push(ms(&ours.waits_us, 0.99));
        bare_p50.values.push(ms(&theirs.waits_us, 0.5));
        let alone = Setup { producers: 1, seconds: 1, ..*setup };
        let single = in_turn(env, dir, |dir| append_round(env, &Setup { in_flight: 1, ..alone }, dir))?;
        one.values.push(ms(&single.waits_us, 0.5));
        let bytes = setup.batch_records() * setup.record_bytes;
        bare_one.values.push(ms(&in_turn(env, dir, |dir| bare_round(env, &alone, dir, bytes))?.waits_us, 0.5));
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    let all = [&kappa, &records, &bare, &group, &ratio, &p50, &p99, &bare_p50, &one, &bare_one];
    show(env, printer, &all)
}

/// A share of the waiting times (0.5: the median), in ms.
fn ms(waits_us: &[u64], share: f64) -> f64 {
    let mut sorted = waits_us.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).map_or(f64::NAN, |us| *us as f64 / 1e3)
}

/// Runs in a folder of its own that is removed before anything else runs.
fn in_turn<T>(env: &Env, dir: &Path, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let folder = dir.join("turn");
    let done = work(&folder);
    env.disk
        .remove_dir_all(&folder)
        .and_then(|()| env.disk.sync_dir(dir))
        .map_err(|e| Error::io("cannot remove", &folder, e))?;
    done
}

struct Round {
    bytes: f64,
    seconds: f64,
    group_bytes: usize,
    /// From an append, or a write, to when it was acknowledged.
    waits_us: Vec<u64>,
}

fn append_round(env: &Env, setup: &Setup, dir: &Path) -> Result<Round> {
    let options = LogOptions { durability: setup.durability, history: setup.sealing, ..LogOptions::default() };
    let log = Log::open(env, dir, options)?;
    let config = TopicConfig { partitions: setup.partitions, ..TopicConfig::default() };
    let topic = log.create_topic("bench", config)?.id();
    let syncs_before = log.syncs();
    let until = env.clock.monotonic_us() + u64::from(setup.seconds) * 1_000_000;
    let producers: Vec<_> = (0..setup.producers)
        .map(|number| {
            let (env, log, setup) = (env.clone(), log.clone(), *setup);
            thread::spawn(&format!("bench-{number}"), move || produce(&env, &log, topic, number, &setup, until))
        })
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a producer: {e}")))?;
    let (seconds, waits_us) = timed(env, || {
        let mut waits_us = Vec::new();
        for producer in producers {
            waits_us.extend(producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(waits_us)
    })?;
    let bytes = (waits_us.len() * setup.batch_records() * setup.record_bytes) as f64;
    let groups = (log.syncs() - syncs_before).max(1);
    log.close()?;
    Ok(Round { bytes, seconds, group_bytes: (bytes / groups as f64) as usize, waits_us })
}

/// Appends until the time is over; gives how long each took to be acknowledged.
fn produce(env: &Env, log: &Log, topic: TopicId, number: u32, setup: &Setup, until: u64) -> Result<Vec<u64>> {
    let value: Vec<u8> = (0..setup.record_bytes).map(|at| b'a' + ((at * 7 + number as usize) % 26) as u8).collect();
    let mut rows = RecordColumns::default();
    for record in 0..setup.batch_records() {
        let key = (number as usize * setup.batch_records() + record).to_le_bytes();
        let record =
            Record { timestamp_ms: Some(i64::from(number)), key: Some(&key), value: Some(&value), headers: &[] };
        rows.push(Partitioning::ByKey, &record);
    }
    let mut in_flight = VecDeque::new();
    let mut waits_us = Vec::new();
    let mut take = |(since, pending): (u64, PendingAck)| {
        pending.wait()?;
        waits_us.push(env.clock.monotonic_us() - since);
        Ok::<_, Error>(())
    };
    while env.clock.monotonic_us() < until {
        in_flight.push_back((env.clock.monotonic_us(), log.append(AppendBatch::records(topic, rows.clone()))?));
        if in_flight.len() >= setup.in_flight
            && let Some(oldest) = in_flight.pop_front()
        {
            take(oldest)?;
        }
    }
    in_flight.into_iter().try_for_each(take)?;
    Ok(waits_us)
}

/// The bare loop: into files of 64 MiB, each created, grown and synced as the journal's are.
fn bare_round(env: &Env, setup: &Setup, dir: &Path, group_bytes: usize) -> Result<Round> {
    let io = |e| Error::io("cannot write in", dir, e);
    crate::env::create_dir_durably(&*env.disk, dir).map_err(io)?;
    let group = vec![b'x'; group_bytes.max(1)];
    let file_bytes = LogOptions::default().file_bytes;
    let until = env.clock.monotonic_us() + u64::from(setup.seconds) * 1_000_000;
    let (mut at, mut number) = (file_bytes, 0);
    let mut waits_us = Vec::new();
    let mut file = None;
    let (seconds, ()) = timed(env, || {
        while env.clock.monotonic_us() < until {
            if at + group.len() as u64 > file_bytes || file.is_none() {
                let new = env.disk.open(&dir.join(number.to_string()), OpenMode::CreateNew).map_err(io)?;
                env.disk.sync_dir(dir).map_err(io)?;
                (number, at, file) = (number + 1, 0, Some(new));
            }
            let Some(file) = &file else { break };
            let since = env.clock.monotonic_us();
            file.write_all_at(at, &group).and_then(|()| file.sync_data()).map_err(io)?;
            waits_us.push(env.clock.monotonic_us() - since);
            at += group.len() as u64;
        }
        Ok(())
    })?;
    Ok(Round { bytes: (waits_us.len() * group.len()) as f64, seconds, group_bytes, waits_us })
}
