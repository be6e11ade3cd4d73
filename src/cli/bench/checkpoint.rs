//! Checkpoints of a large state: how long the job's thread stands still for one, what they cost, and how long it takes to go on from
//! one, beside a bare write and a bare read of as many bytes; and what the digests of the output cost where every event is a row.

use super::window::{Event, Kind, Side, job_of};
use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::engine::Counters;
use crate::env::{Clock, Env, OpenMode};
use crate::error::{Error, Result};
use crate::job::{self, CheckpointCounts, CheckpointOptions, Job, Observer, Point, Request, Silent, record_digest};
use crate::log::Log;
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::types::{PartitionId, Position};
use std::path::Path;
use std::sync::Arc;

pub(super) struct Setup {
    pub rounds: u32,
    pub events: u64,
    pub keys: u32,
}

/// Bytes of input in a stride. Checkpoints come as often as a job lets them, whatever its input: they may take a twentieth of the time.
const STRIDE_BYTES: u64 = 1 << 20;

/// Bytes that the bare loops write and read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Until so many of the events are read the state grows; pauses are counted from then on. One part in so many.
const GROWTH: u64 = 3;

/// Events that a run leaves for the one that goes on from its last checkpoint.
const REST: u64 = 100_000;

/// Events of the job that makes each of them a row, at most.
const COPIED_MAX: u64 = 1_000_000;

const COPY: &str = "CREATE TABLE events (ts TIMESTAMP(3), k STRING, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) \
     WITH ('connector' = 'kappa', 'format' = 'json');\n\
     CREATE TABLE copies (ts TIMESTAMP(3), k STRING) WITH ('connector' = 'kappa', 'format' = 'json');\n\
     INSERT INTO copies SELECT ts, k FROM events;";

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    if setup.events < REST * 10 {
        let hint = format!("use at least --events {}", REST * 10);
        return Err(Error::input("too few events for a run and one that goes on").with_hint(hint));
    }
    let side = Side::new(env, dir.join("data"), Event::Text, setup.keys, setup.events)?;
    let mut measured = Measured::new();
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        measured.round(env, side.log(), setup.events, &dir.join("bare"))?;
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    side.close()?;
    measured.show(env, printer)
}

/// When each stride was done, and where it ended.
struct Pulse<'a> {
    clock: &'a dyn Clock,
    strides: Vec<(u64, u64)>,
}

impl Observer for Pulse<'_> {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.strides.push((self.clock.monotonic_us(), position.0));
    }
}

/// One run of the job.
struct Run {
    events_per_s: f64,
    /// Times between two strides in ms, sorted.
    gaps_ms: Vec<f64>,
    checkpoints: CheckpointCounts,
}

impl Run {
    fn gap(&self, per_mille: usize) -> f64 {
        self.gaps_ms.get(self.gaps_ms.len().saturating_sub(1) * per_mille / 1000).copied().unwrap_or(f64::NAN)
    }
}

fn request(end: Position, checkpoints: bool) -> Request {
    let checkpoints = CheckpointOptions { bytes: STRIDE_BYTES, enabled: checkpoints, ..CheckpointOptions::default() };
    Request { bounded: true, to: Some(Point::Position(end)), checkpoints, ..Request::default() }
}

/// Runs the job anew over all events but the rest; what is measured ends with the last stride, before the state is written for who goes on.
fn first_run(env: &Env, log: &Log, job: &Job, end: Position, checkpoints: bool) -> Result<Run> {
    let mut pulse = Pulse { clock: &*env.clock, strides: Vec::new() };
    let request = Request { restart: true, ..request(end, checkpoints) };
    let report = job::run(log, job, &request, &mut pulse)?;
    let strides = &pulse.strides;
    let grown = strides.partition_point(|(_, position)| *position < end.0 / GROWTH);
    let mut gaps_ms: Vec<f64> = strides[grown..].windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64 / 1e3).collect();
    gaps_ms.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (strides.first(), strides.last()) else {
        return Err(Error::internal("a run without strides"));
    };
    let events_per_s = (last.1 - first.1) as f64 / ((last.0 - first.0).max(1) as f64 / 1e6);
    Ok(Run { events_per_s, gaps_ms, checkpoints: report.checkpoints })
}

/// Seconds until the first stride of a run that goes on from a checkpoint.
fn restored_run(env: &Env, log: &Log, job: &Job) -> Result<f64> {
    let mut pulse = Pulse { clock: &*env.clock, strides: Vec::new() };
    let began_us = env.clock.monotonic_us();
    job::run(log, job, &request(log.durable_end(), true), &mut pulse)?;
    match pulse.strides.first() {
        Some((at_us, _)) => Ok((at_us - began_us) as f64 / 1e6),
        None => Err(Error::internal("nothing was left to go on with")),
    }
}

/// Seconds of writing so many bytes durably, and of reading them.
fn bare(env: &Env, path: &Path, bytes: u64) -> Result<(f64, f64)> {
    let io = |e| Error::io("cannot use", path, e);
    let mut block = vec![0x5A; BLOCK_BYTES];
    let blocks = || (0..bytes).step_by(BLOCK_BYTES);
    let (writing, ()) = timed(env, || {
        let file = env.disk.open(path, OpenMode::CreateNew).map_err(io)?;
        blocks().try_for_each(|at| file.write_all_at(at, &block).map_err(io))?;
        file.sync_data().map_err(io)
    })?;
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    let (reading, ()) = timed(env, || blocks().try_for_each(|at| file.read_exact_at(at, &mut block).map_err(io)))?;
    env.disk.remove_file(path).map_err(io)?;
    Ok((writing, reading))
}

/// The share of a run's time that the digest of its rows takes, where every event is a row.
fn digest_share(env: &Env, log: &Log, events: u64) -> Result<f64> {
    let plan = crate::sql::plan("copy.sql", COPY)?;
    let job = Job { plan: Arc::new(plan), name: "bench-copy".into(), version: None };
    let request = Request { restart: true, ..request(Position(events.min(COPIED_MAX)), false) };
    let (running, _) = timed(env, || job::run(log, &job, &request, &mut Silent))?;
    let mut rows = RecordColumns::default();
    let mut reader = log.reader(&[log.topic("copies")?.id()], Position(0));
    while let Some(batch) = reader.next(log.durable_end())? {
        for row in 0..batch.len() {
            let record = Record {
                timestamp_ms: batch.timestamp_ms(row),
                key: Some(batch.keys.value(row)),
                value: Some(batch.values.value(row)),
                headers: &[],
            };
            rows.push(Partitioning::Fixed(PartitionId(0)), &record);
        }
    }
    let (digesting, _) = timed(env, || {
        let mut scratch = Vec::new();
        let digest = (0..rows.len()).fold(0, |digest, row| record_digest(digest, &rows, row, &mut scratch));
        Ok(std::hint::black_box(digest))
    })?;
    Ok(digesting / running)
}

struct Measured {
    state: Series,
    taken: Series,
    without: Series,
    with: Series,
    cost: Series,
    digests: Series,
    pause: Series,
    longest: Series,
    longest_without: Series,
    p99: Series,
    p99_without: Series,
    write: Series,
    bare_write: Series,
    restore: Series,
    bare_read: Series,
}

impl Measured {
    fn new() -> Measured {
        Measured {
            state: Series::new("bytes of a checkpoint", "MiB"),
            taken: Series::new("checkpoints in a run, as many as it lets itself take", "count"),
            without: Series::new("run without checkpoints", "events/s"),
            with: Series::new("run with checkpoints", "events/s"),
            cost: Series::new("with / without", "ratio"),
            digests: Series::new("digests, where every event is a row", "share"),
            pause: Series::new("taking the state, longest", "ms"),
            longest: Series::new("between two strides, longest", "ms"),
            longest_without: Series::new("the same without checkpoints", "ms"),
            p99: Series::new("between two strides, p99", "ms"),
            p99_without: Series::new("the same without checkpoints", "ms"),
            write: Series::new("writing a checkpoint beside the run, longest", "s"),
            bare_write: Series::new("bare write and fdatasync of as many bytes", "s"),
            restore: Series::new("from the start of a process's run to its first stride", "s"),
            bare_read: Series::new("bare read of as many bytes", "s"),
        }
    }

    fn round(&mut self, env: &Env, log: &Log, events: u64, bare_path: &Path) -> Result<()> {
        let (job, end) = (job_of(Event::Text, Kind::Tumble)?, Position(events - REST));
        let without = first_run(env, log, &job, end, false)?;
        let with = first_run(env, log, &job, end, true)?;
        self.restore.values.push(restored_run(env, log, &job)?);
        let (bare_write, bare_read) = bare(env, bare_path, with.checkpoints.bytes)?;
        self.state.values.push(with.checkpoints.bytes as f64 / f64::from(1 << 20));
        self.taken.values.push(with.checkpoints.taken as f64);
        self.without.values.push(without.events_per_s);
        self.with.values.push(with.events_per_s);
        self.cost.values.push(with.events_per_s / without.events_per_s);
        self.digests.values.push(digest_share(env, log, events)?);
        self.pause.values.push(with.checkpoints.pause_us_max as f64 / 1e3);
        self.longest.values.push(with.gap(1000));
        self.longest_without.values.push(without.gap(1000));
        self.p99.values.push(with.gap(990));
        self.p99_without.values.push(without.gap(990));
        self.write.values.push(with.checkpoints.write_us_max as f64 / 1e6);
        self.bare_write.values.push(bare_write);
        self.bare_read.values.push(bare_read);
        Ok(())
    }

    fn show(&self, env: &Env, printer: &Printer) -> Result<()> {
        let costs = [&self.state, &self.taken, &self.without, &self.with, &self.cost, &self.digests];
        let pauses = [&self.pause, &self.longest, &self.longest_without, &self.p99, &self.p99_without];
        let disk = [&self.write, &self.bare_write, &self.restore, &self.bare_read];
        show(env, printer, &[&costs[..], &pauses, &disk].concat())
    }
}
