//! Checkpoints of a large state: how long a job stands still for one, what they cost as often as they usually come and as often as they may,
//! and how long it takes to go on from one, beside a bare write and a bare read of as many bytes; and what the digests of the output cost.

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

/// Bytes of input in a stride, after which a checkpoint may come.
const STRIDE_BYTES: u64 = 1 << 20;

/// Bytes that the bare loops write and read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Until so many of the events are read the state grows; pauses are counted from then on. One part in so many.
const GROWTH: u64 = 3;

/// The part of the events that a run leaves for the one that goes on from its last checkpoint, as one in so many. That one takes a checkpoint
/// after its first stride.
const REST: u64 = 4;

/// Fewer events are no large state.
const EVENTS_MIN: u64 = 1_000_000;

/// Rows that windows make of events, as one in so many, in the usual case.
const USUAL_ROWS: f64 = 10.0;

/// Events of the job that makes each of them a row, at most.
const COPIED_MAX: u64 = 1_000_000;

const COPY: &str = "CREATE TABLE events (ts TIMESTAMP(3), k STRING, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) \
     WITH ('connector' = 'kappa', 'format' = 'json');\n\
     CREATE TABLE copies (ts TIMESTAMP(3), k STRING) WITH ('connector' = 'kappa', 'format' = 'json');\n\
     INSERT INTO copies SELECT ts, k FROM events;";

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    if setup.events < EVENTS_MIN {
        let hint = format!("use at least --events {EVENTS_MIN}");
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
    /// Times between two strides in ms, sorted, when the state has grown.
    gaps_ms: Vec<f64>,
    /// The longest before.
    growing_ms: f64,
    checkpoints: CheckpointCounts,
}

impl Run {
    fn of(strides: &[(u64, u64)], counted_from: usize, checkpoints: CheckpointCounts) -> Result<Run> {
        let gaps = |strides: &[(u64, u64)]| -> Vec<f64> {
            strides.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64 / 1e3).collect()
        };
        let growing_ms = gaps(&strides[..counted_from]).into_iter().fold(0.0, f64::max);
        let mut gaps_ms = gaps(&strides[counted_from..]);
        gaps_ms.sort_by(f64::total_cmp);
        let (Some(first), Some(last)) = (strides.first(), strides.last()) else {
            return Err(Error::internal("a run without strides"));
        };
        let events_per_s = (last.1 - first.1) as f64 / ((last.0 - first.0).max(1) as f64 / 1e6);
        Ok(Run { events_per_s, gaps_ms, growing_ms, checkpoints })
    }

    fn gap(&self, per_mille: usize) -> f64 {
        self.gaps_ms.get(self.gaps_ms.len().saturating_sub(1) * per_mille / 1000).copied().unwrap_or(f64::NAN)
    }
}

fn request(end: Position, checkpoints: CheckpointOptions) -> Request {
    Request { bounded: true, to: Some(Point::Position(end)), checkpoints, ..Request::default() }
}

/// As many checkpoints as a job lets itself take, whatever its input: they may take a twentieth of the time.
fn often() -> CheckpointOptions {
    CheckpointOptions { bytes: STRIDE_BYTES, ..CheckpointOptions::default() }
}

fn never() -> CheckpointOptions {
    CheckpointOptions { enabled: false, ..CheckpointOptions::default() }
}

/// Runs the job anew over all events but the rest; what is measured ends with the last stride, before the state is written for who goes on.
fn first_run(env: &Env, log: &Log, job: &Job, end: Position, checkpoints: CheckpointOptions) -> Result<Run> {
    let mut pulse = Pulse { clock: &*env.clock, strides: Vec::new() };
    let request = Request { restart: true, ..request(end, checkpoints) };
    let report = job::run(log, job, &request, &mut pulse)?;
    let grown = pulse.strides.partition_point(|(_, position)| *position < end.0 / GROWTH);
    Run::of(&pulse.strides, grown, report.checkpoints)
}

/// Seconds until the first stride of a run that goes on from a checkpoint, and the run, which takes another one all the while.
fn restored_run(env: &Env, log: &Log, job: &Job) -> Result<(f64, Run)> {
    let mut pulse = Pulse { clock: &*env.clock, strides: Vec::new() };
    let began_us = env.clock.monotonic_us();
    let report = job::run(log, job, &request(log.durable_end(), often()), &mut pulse)?;
    let run = Run::of(&pulse.strides, 0, report.checkpoints)?;
    Ok(((pulse.strides[0].0 - began_us) as f64 / 1e6, run))
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

/// Seconds that the digest of a row takes, and all of a run takes for it, where every event is a row.
fn digest_time(env: &Env, log: &Log, events: u64) -> Result<(f64, f64)> {
    let plan = crate::sql::plan("copy.sql", COPY)?;
    let job = Job { plan: Arc::new(plan), name: "bench-copy".into(), version: None };
    let request = Request { restart: true, ..request(Position(events.min(COPIED_MAX)), never()) };
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
    Ok((digesting / rows.len().max(1) as f64, running / rows.len().max(1) as f64))
}

struct Measured {
    state: Series,
    taken: Series,
    without: Series,
    usual: Series,
    usual_cost: Series,
    with: Series,
    cost: Series,
    digests: Series,
    usual_digests: Series,
    pause: Series,
    longest: Series,
    longest_without: Series,
    growing: Series,
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
            usual: Series::new("run with checkpoints as usual", "events/s"),
            usual_cost: Series::new("as usual / without", "ratio"),
            with: Series::new("run with as many as it lets itself take", "events/s"),
            cost: Series::new("as many / without", "ratio"),
            digests: Series::new("digests, where every event is a row", "share"),
            usual_digests: Series::new("digests, where one event in ten is a row", "share"),
            pause: Series::new("a step of taking the state, longest", "ms"),
            longest: Series::new("between two strides while one is taken, longest", "ms"),
            longest_without: Series::new("the same without checkpoints", "ms"),
            growing: Series::new("the same while the state grows", "ms"),
            p99: Series::new("between two strides while one is taken, p99", "ms"),
            p99_without: Series::new("the same without checkpoints", "ms"),
            write: Series::new("writing a checkpoint beside the run, longest", "s"),
            bare_write: Series::new("bare write and fdatasync of as many bytes", "s"),
            restore: Series::new("from the start of a process's run to its first stride", "s"),
            bare_read: Series::new("bare read of as many bytes", "s"),
        }
    }

    fn round(&mut self, env: &Env, log: &Log, events: u64, bare_path: &Path) -> Result<()> {
        let (job, end) = (job_of(Event::Text, Kind::Tumble)?, Position(events - events / REST));
        let without = first_run(env, log, &job, end, never())?;
        let usual = first_run(env, log, &job, end, CheckpointOptions::default())?;
        let with = first_run(env, log, &job, end, often())?;
        let (restore, restored) = restored_run(env, log, &job)?;
        self.restore.values.push(restore);
        let (bare_write, bare_read) = bare(env, bare_path, with.checkpoints.bytes)?;
        self.state.values.push(with.checkpoints.bytes as f64 / f64::from(1 << 20));
        self.taken.values.push(with.checkpoints.taken as f64);
        self.without.values.push(without.events_per_s);
        self.usual.values.push(usual.events_per_s);
        self.usual_cost.values.push(usual.events_per_s / without.events_per_s);
        self.with.values.push(with.events_per_s);
        self.cost.values.push(with.events_per_s / without.events_per_s);
        let (digesting, running) = digest_time(env, log, events)?;
        self.digests.values.push(digesting / running);
        self.usual_digests.values.push(digesting / USUAL_ROWS * without.events_per_s);
        self.pause.values.push(restored.checkpoints.pause_us_max as f64 / 1e3);
        self.longest.values.push(restored.gap(1000));
        self.longest_without.values.push(without.gap(1000));
        self.growing.values.push(without.growing_ms);
        self.p99.values.push(restored.gap(990));
        self.p99_without.values.push(without.gap(990));
        self.write.values.push(restored.checkpoints.write_us_max as f64 / 1e6);
        self.bare_write.values.push(bare_write);
        self.bare_read.values.push(bare_read);
        Ok(())
    }

    fn show(&self, env: &Env, printer: &Printer) -> Result<()> {
        let runs = [&self.without, &self.usual, &self.usual_cost, &self.taken, &self.with, &self.cost];
        let costs = [&self.state, &self.digests, &self.usual_digests];
        let longest = [&self.pause, &self.longest, &self.longest_without, &self.growing];
        let pauses = [&self.p99, &self.p99_without];
        let disk = [&self.write, &self.bare_write, &self.restore, &self.bare_read];
        show(env, printer, &[&runs[..], &costs, &longest, &pauses, &disk].concat())
    }
}
