//! Durable appends by pipelining producers, beside a bare loop that writes and fdatasyncs groups of the same size.

use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::{Env, OpenMode, thread};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, LogOptions, TopicConfig};
use crate::types::TopicId;
use std::collections::VecDeque;
use std::path::Path;

pub(super) struct Setup {
    pub rounds: u32,
    pub seconds: u32,
    pub producers: u32,
    pub record_bytes: usize,
}

/// Records a producer puts into one append.
const BATCH_RECORDS: usize = 32;

/// Appends a producer has on their way.
const IN_FLIGHT: usize = 4;

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let mut kappa = Series::new("kappa append", "MB/s");
    let mut records = Series::new("kappa append", "records/s");
    let mut bare = Series::new("bare write + fdatasync, same groups", "MB/s");
    let mut group = Series::new("group", "KiB");
    let mut ratio = Series::new("kappa / bare", "ratio");
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
        bare.values.push(theirs / 1e6);
        group.values.push(ours.group_bytes as f64 / 1024.0);
        ratio.values.push(ours.bytes / ours.seconds / theirs);
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    show(env, printer, &[&kappa, &records, &bare, &group, &ratio])
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
}

fn append_round(env: &Env, setup: &Setup, dir: &Path) -> Result<Round> {
    let log = Log::open(env, dir, LogOptions::default())?;
    let topic = log.create_topic("bench", TopicConfig { partitions: 4, ..TopicConfig::default() })?.id();
    let syncs_before = log.syncs();
    let until = env.clock.monotonic_us() + u64::from(setup.seconds) * 1_000_000;
    let producers: Vec<_> = (0..setup.producers)
        .map(|number| {
            let (env, log, record_bytes) = (env.clone(), log.clone(), setup.record_bytes);
            thread::spawn(&format!("bench-{number}"), move || produce(&env, &log, topic, number, record_bytes, until))
        })
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a producer: {e}")))?;
    let (seconds, records) = timed(env, || {
        let counts = producers
            .into_iter()
            .map(|producer| producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        counts.sum::<Result<u64>>()
    })?;
    let bytes = records as f64 * setup.record_bytes as f64;
    let groups = (log.syncs() - syncs_before).max(1);
    log.close()?;
    Ok(Round { bytes, seconds, group_bytes: (bytes / groups as f64) as usize })
}

fn produce(env: &Env, log: &Log, topic: TopicId, number: u32, record_bytes: usize, until: u64) -> Result<u64> {
    let value: Vec<u8> = (0..record_bytes).map(|at| b'a' + ((at * 7 + number as usize) % 26) as u8).collect();
    let key = number.to_le_bytes();
    let mut rows = RecordColumns::default();
    for _ in 0..BATCH_RECORDS {
        let record =
            Record { timestamp_ms: Some(i64::from(number)), key: Some(&key), value: Some(&value), headers: &[] };
        rows.push(Partitioning::ByKey, &record);
    }
    let mut in_flight = VecDeque::new();
    let mut acked = 0;
    while env.clock.monotonic_us() < until {
        in_flight.push_back(log.append(AppendBatch::records(topic, rows.clone()))?);
        if in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.wait()?;
            acked += BATCH_RECORDS as u64;
        }
    }
    for pending in in_flight {
        pending.wait()?;
        acked += BATCH_RECORDS as u64;
    }
    Ok(acked)
}

/// Bytes a second of the bare loop: into files of 64 MiB, each created, grown and synced as the journal's are.
fn bare_round(env: &Env, setup: &Setup, dir: &Path, group_bytes: usize) -> Result<f64> {
    let io = |e| Error::io("cannot write in", dir, e);
    crate::env::create_dir_durably(&*env.disk, dir).map_err(io)?;
    let group = vec![b'x'; group_bytes.max(1)];
    let file_bytes = LogOptions::default().file_bytes;
    let until = env.clock.monotonic_us() + u64::from(setup.seconds) * 1_000_000;
    let (mut written, mut at, mut number) = (0u64, file_bytes, 0);
    let mut file = None;
    let (seconds, ()) = timed(env, || {
        while env.clock.monotonic_us() < until {
            if at + group.len() as u64 > file_bytes || file.is_none() {
                let new = env.disk.open(&dir.join(number.to_string()), OpenMode::CreateNew).map_err(io)?;
                env.disk.sync_dir(dir).map_err(io)?;
                (number, at, file) = (number + 1, 0, Some(new));
            }
            let Some(file) = &file else { break };
            file.write_all_at(at, &group).and_then(|()| file.sync_data()).map_err(io)?;
            at += group.len() as u64;
            written += group.len() as u64;
        }
        Ok(())
    })?;
    Ok(written as f64 / seconds)
}
