//! From the engine's rows to frames of the log: output records and progress together, rows that are there already left out.

use super::Job;
use super::checkpoint::{CheckpointCounts, Checkpoints, News};
use super::drive::{At, Sink};
use super::record::{Progress, StreamProgress};
use super::route::{Place, Routes};
use super::spans::{Marker, Spans};
use crate::codec::{put_varint, xxh64};
use crate::engine::{Engine, OutputBatch, OutputStream};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{Partitioning, RecordColumns};
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace, PendingAck, Topic, TopicConfig};
use crate::types::{AppendTime, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, VecDeque};

/// Streams of an output, in the order in which progress keeps them.
pub const STREAMS: [OutputStream; 3] = [OutputStream::Main, OutputStream::Late, OutputStream::Rejected];

/// Bytes of output in one frame, roughly: what the log lets share a sync with live appends.
const FRAME_BYTES: usize = 56 << 10;

/// Frames on their way at once.
const IN_FLIGHT_MAX: usize = 128;

/// Output and stream of a row, by name, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName {
    /// Table of the output.
    pub table: String,
    /// Topic that holds the rows; `None` for a blackhole.
    pub topic: Option<String>,
}

/// Index of a stream in [`Progress::streams`].
pub(super) fn stream_index(output: usize, stream: OutputStream) -> usize {
    output * STREAMS.len()
        + match stream {
            OutputStream::Main => 0,
            OutputStream::Late => 1,
            OutputStream::Rejected => 2,
        }
}

/// Names of all streams of a job, in the order of [`Progress::streams`].
pub(super) fn stream_names(job: &Job) -> Vec<StreamName> {
    job.plan
        .outputs
        .iter()
        .flat_map(|output| {
            STREAMS.map(|stream| StreamName { table: output.table.clone(), topic: job.stream_topic(output, stream) })
        })
        .collect()
}

/// The running digest after one more record: XXH64, seeded with the digest before it, over the output bytes of the
/// record: partition (0: by key, else 1 + partition), then timestamp, key, value and headers, each with a presence byte.
pub fn record_digest(before: u64, rows: &RecordColumns, row: usize, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    put_varint(scratch, rows.partitions[row].map_or(0, |p| 1 + u64::from(p)));
    match rows.timestamps_ms[row] {
        None => scratch.push(0),
        Some(ms) => {
            scratch.push(1);
            scratch.extend_from_slice(&ms.to_le_bytes());
        }
    }
    for column in [&rows.keys, &rows.values, &rows.headers] {
        match column.get(row) {
            None => scratch.push(0),
            Some(bytes) => {
                scratch.push(1);
                put_varint(scratch, bytes.len() as u64);
                scratch.extend_from_slice(bytes);
            }
        }
    }
    xxh64(scratch, before)
}

/// What a resumed run must reproduce before it may add anything.
struct Replayed {
    done: StreamProgress,
    seen: StreamProgress,
}

/// Rows that the engine has given out.
fn emitted(replayed: &[Replayed], now: &[StreamProgress]) -> Vec<StreamProgress> {
    let of = |(replayed, now): (&Replayed, &StreamProgress)| {
        if replayed.seen.rows < replayed.done.rows { replayed.seen } else { *now }
    };
    replayed.iter().zip(now).map(of).collect()
}

/// What a run has written before.
pub(super) struct Written {
    /// `None`: nothing.
    pub progress: Option<Progress>,
    /// Rows that the engine does not give out again, since it begins behind them; `None`: it gives out all.
    pub seen: Option<Vec<StreamProgress>>,
    /// The marks that it has kept.
    pub spans: Option<Spans>,
}

/// Writes a run's rows into the log.
pub(super) struct Emitter<'a> {
    log: &'a Log,
    job: &'a Job,
    names: Vec<StreamName>,
    routes: Routes,
    /// By stream: the job's own, and that of the output's own name.
    topics: Vec<[Option<Topic>; 2]>,
    progress: Progress,
    replayed: Vec<Replayed>,
    in_flight: VecDeque<PendingAck>,
    /// How many of them there are up to the last one with records of checkpoints.
    recording: usize,
    scratch: Vec<u8>,
    frame: BTreeMap<TopicId, RecordColumns>,
    frame_bytes: usize,
    checkpoints: Checkpoints,
    /// Records of checkpoints, for the next frame.
    meta: Vec<MetaRecord>,
    marker: Marker,
    /// Position and clock of the stride that is taken.
    at: (u64, i64),
}

impl<'a> Emitter<'a> {
    /// Continues what is written (its rows are expected again from the engine, but for those that it begins behind), or starts.
    pub(super) fn new(log: &'a Log, job: &'a Job, routes: Routes, written: Written, checkpoints: Checkpoints) -> Self {
        let names = stream_names(job);
        let Written { progress, seen, spans } = written;
        let progress = progress.unwrap_or_else(|| Progress {
            position: 0,
            clock_us: i64::MIN,
            streams: vec![StreamProgress::default(); names.len()],
            is_final: false,
        });
        let seen = seen.unwrap_or_else(|| vec![StreamProgress::default(); names.len()]);
        let replayed = progress.streams.iter().zip(seen).map(|(done, seen)| Replayed { done: *done, seen }).collect();
        Emitter {
            log,
            job,
            topics: names.iter().map(|_| [None, None]).collect(),
            marker: Marker::new(spans, names.len()),
            at: (0, i64::MIN),
            names,
            routes,
            progress,
            replayed,
            in_flight: VecDeque::new(),
            recording: 0,
            scratch: Vec::new(),
            frame: BTreeMap::new(),
            frame_bytes: 0,
            checkpoints,
            meta: Vec::new(),
        }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The topic of a stream, created when the first row goes there.
    fn topic(&mut self, stream: usize, place: Place) -> Result<Option<TopicId>> {
        let is_live = place != Place::Own;
        let known = &mut self.topics[stream][usize::from(is_live)];
        if known.is_none() {
            let output = &self.job.plan.outputs[stream / STREAMS.len()];
            let job = if is_live { &self.job.base() } else { self.job };
            let Some(name) = job.stream_topic(output, STREAMS[stream % STREAMS.len()]) else { return Ok(None) };
            *known = Some(output_topic(self.log, &name, output.partitions)?);
        }
        Ok(known.as_ref().map(Topic::id))
    }

    /// True once the row is known to be in the log already; checks the digest when the last such row is reached.
    fn is_replayed(&mut self, stream: usize, rows: &RecordColumns, row: usize) -> Result<bool> {
        self.marker.saw(stream, rows.timestamps_ms[row]);
        let Replayed { done, seen } = &mut self.replayed[stream];
        if seen.rows >= done.rows {
            return Ok(false);
        }
        seen.digest = record_digest(seen.digest, rows, row, &mut self.scratch);
        seen.rows += 1;
        if seen.rows == done.rows && seen.digest != done.digest {
            return Err(self.not_reproduced(stream, "differ from the rows that it wrote before"));
        }
        Ok(true)
    }

    fn not_reproduced(&self, stream: usize, how: &str) -> Error {
        let topic = self.names[stream].topic.as_deref().unwrap_or(&self.names[stream].table);
        let rows = self.replayed[stream].done.rows;
        Error::new(ErrorKind::Difference, format!("recomputing job '{}': the first {rows} rows of '{topic}' {how}", self.job.key()))
            .with_hint("a function that gives different answers, or a changed binary: `--as NAME` computes beside it, `--restart` anew")
    }

    /// Fails if the engine has not given back every row that was written before.
    pub(super) fn check_reproduced(&self) -> Result<()> {
        match self.replayed.iter().position(|r| r.seen.rows < r.done.rows) {
            Some(stream) => Err(self.not_reproduced(stream, "did not come again")),
            None => Ok(()),
        }
    }

    fn put(&mut self, stream: usize, rows: &RecordColumns, row: usize) -> Result<()> {
        let progress = &mut self.progress.streams[stream];
        let place = self.routes.place(stream, progress.rows, rows.timestamps_ms[row]);
        progress.digest = record_digest(progress.digest, rows, row, &mut self.scratch);
        progress.rows += 1;
        self.marker.added(stream, progress, self.at);
        let Some(topic) = self.topic(stream, place)? else { return Ok(()) };
        let to = rows.partitions[row].map_or(Partitioning::ByKey, |p| Partitioning::Fixed(PartitionId(p)));
        let headers = rows.headers.get(row).unwrap_or_default();
        let (key, value) = (rows.keys.get(row), rows.values.get(row));
        let frame = self.frame.entry(topic).or_default();
        frame.push_encoded(to, rows.timestamps_ms[row], key, value, headers);
        self.frame_bytes += headers.len() + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + 16;
        Ok(())
    }

    /// One frame: the rows gathered so far and the progress that they make.
    fn send(&mut self) -> Result<()> {
        let record = |space, value: Vec<u8>| MetaRecord { space, key: self.job.key(), value: Some(value) };
        let mut meta = std::mem::take(&mut self.meta);
        meta.push(record(MetaSpace::Progress, self.progress.encode()?));
        if let Some(spans) = self.marker.news() {
            meta.push(record(MetaSpace::Spans, spans.encode()?));
        }
        let topics = std::mem::take(&mut self.frame).into_iter().collect();
        self.frame_bytes = 0;
        let clock_floor = (self.progress.clock_us > i64::MIN).then_some(self.progress.clock());
        self.in_flight.push_back(self.log.append(AppendBatch {
            topics,
            meta,
            clock_floor,
            background: true,
            ..AppendBatch::default()
        })?);
        while self.in_flight.len() > IN_FLIGHT_MAX {
            self.wait_oldest()?;
        }
        Ok(())
    }

    fn wait_oldest(&mut self) -> Result<()> {
        self.recording = self.recording.saturating_sub(1);
        match self.in_flight.pop_front() {
            Some(pending) => pending.wait().map(drop).map_err(|e| e.context("writing output")),
            None => Ok(()),
        }
    }

    /// Waits until everything sent is durable.
    pub(super) fn settle(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.wait_oldest()?;
        }
        Ok(())
    }

    /// Whether nothing that a crash could leave names a checkpoint that the last one has made superfluous.
    fn is_recorded(&mut self) -> Result<bool> {
        while self.recording > 0 && self.in_flight.front().is_some_and(PendingAck::is_done) {
            self.wait_oldest()?;
        }
        Ok(self.recording == 0)
    }

    /// Puts what is new of checkpoints into a frame behind all output so far. The job waits for it only where a test has to know when.
    fn record(&mut self, news: News) -> Result<Vec<String>> {
        if !news.meta.is_empty() {
            self.meta.extend(news.meta);
            self.send()?;
            self.recording = self.in_flight.len();
            if !self.checkpoints.in_background() {
                self.settle()?;
            }
        }
        Ok(news.notes)
    }

    /// A checkpoint at the end of a run that may go on.
    pub(super) fn hold(&mut self, engine: &mut Engine, at: &At) -> Result<Vec<String>> {
        let emitted = emitted(&self.replayed, &self.progress.streams);
        let news = self.checkpoints.finish(engine, at, emitted)?;
        self.record(news)
    }

    /// What was done about checkpoints.
    pub(super) fn checkpoints(&self) -> CheckpointCounts {
        self.checkpoints.counts()
    }

    /// Forgets the checkpoints of a run that will not go on, in its last frame.
    pub(super) fn forget_checkpoints(&mut self) -> Result<()> {
        let gone = self.checkpoints.end()?;
        self.meta.extend(gone);
        Ok(())
    }

    /// Records that the run has reached its end.
    pub(super) fn complete(&mut self, position: Position, clock: AppendTime) -> Result<()> {
        self.check_reproduced()?;
        self.progress.position = position.0;
        self.progress.clock_us = clock.0;
        self.progress.is_final = true;
        self.send()?;
        self.settle()
    }
}

impl Sink for Emitter<'_> {
    fn between(&mut self, engine: &mut Engine, at: &At) -> Result<Vec<String>> {
        let is_recorded = self.is_recorded()?;
        let (replayed, now) = (&self.replayed, &self.progress.streams);
        let news = self.checkpoints.step(engine, at, is_recorded, || emitted(replayed, now))?;
        self.record(news)
    }

    fn has_more(&self) -> bool {
        self.checkpoints.is_writing()
    }

    fn take(&mut self, batches: Vec<OutputBatch>, position: Position, clock: AppendTime) -> Result<()> {
        self.at = (position.0, clock.0);
        for batch in &batches {
            let stream = stream_index(batch.output, batch.stream);
            for row in 0..batch.records.len() {
                if self.is_replayed(stream, &batch.records, row)? {
                    continue;
                }
                self.put(stream, &batch.records, row)?;
                if self.frame_bytes >= FRAME_BYTES {
                    // Position and clock stay those before the stride: its rows are not all out yet.
                    self.send()?;
                }
            }
        }
        let has_new_rows = self.frame_bytes > 0 || self.job.plan.outputs.iter().any(|o| o.topic.is_none());
        if position > self.progress.position() {
            self.progress.position = position.0;
            self.progress.clock_us = clock.0.max(self.progress.clock_us);
        } else if position == self.progress.position() {
            self.progress.clock_us = clock.0.max(self.progress.clock_us);
        }
        if has_new_rows { self.send() } else { Ok(()) }
    }
}

/// The topic of an output, created if it is not there.
pub(super) fn output_topic(log: &Log, name: &str, partitions: u32) -> Result<Topic> {
    match log.topic(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            log.create_output_topic(name, TopicConfig { partitions, ..TopicConfig::default() })
        }
        found => found,
    }
}
