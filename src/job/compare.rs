//! Recomputed rows against recorded ones: row by row in the topic, span by span in the digests that the run kept.

use super::Job;
use super::checkpoint::Restored;
use super::drive::{At, Sink};
use super::emit::{STREAMS, StreamName, record_digest, stream_index, stream_names};
use super::record::{Progress, StreamProgress};
use super::route::{Place, Routes};
use super::spans::{Mark, Spans};
use crate::engine::OutputBatch;
use crate::error::Result;
use crate::log::records::{LogBatch, RecordColumns};
use crate::log::{Log, Reader, Topic};
use crate::types::{AppendTime, Position};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The first place where a recomputation and the recorded output part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Output topic, or table for a blackhole.
    pub output: String,
    /// Number of the row in the output, from 1.
    pub row: u64,
    /// Its span: the numbers of its rows, from 1.
    pub span: (u64, u64),
    /// End of the window in ms, where the row belongs to one: its timestamp + 1.
    pub window_end_ms: Option<i64>,
    /// Key of the row, as text.
    pub key: Option<String>,
    /// What is different: which of key, value, timestamp, headers, or that the row is missing or too many.
    pub what: String,
    /// The recomputed value, as text; `None` when there is no such row.
    pub recomputed: Option<String>,
    /// The recorded value, as text; `None` when there is no such row.
    pub recorded: Option<String>,
}

/// What a verification says about a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanState {
    /// Its digest is that of the rows recomputed.
    Equal,
    /// It is not.
    Differs,
    /// It was left out, or lies behind a difference.
    NotCompared,
}

/// A span of an output, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanCheck {
    /// Output topic, or table for a blackhole.
    pub output: String,
    /// Rows before it.
    pub from: u64,
    /// Its last place.
    pub end: Mark,
    /// The result.
    pub state: SpanState,
}

/// Records of one topic, one after the other.
struct Cursor {
    reader: Reader,
    end: Position,
    batch: Option<LogBatch>,
    row: usize,
    /// By partition: records before these offsets are passed over.
    first_offsets: Vec<u64>,
}

impl Cursor {
    fn new(log: &Log, topic: &Topic, (from, end): (Position, Position), first_offsets: &[u64]) -> Cursor {
        let reader = log.reader(&[topic.id()], from);
        Cursor { reader, end, batch: None, row: 0, first_offsets: first_offsets.to_vec() }
    }

    fn step(&mut self) -> Result<Option<(&LogBatch, usize)>> {
        let next_row = self.row + 1;
        match &self.batch {
            Some(batch) if next_row < batch.len() => self.row = next_row,
            _ => {
                self.batch = self.reader.next(self.end)?;
                self.row = 0;
            }
        }
        Ok(self.batch.as_ref().map(|batch| (batch, self.row)))
    }

    fn next(&mut self) -> Result<Option<(&LogBatch, usize)>> {
        let first_offsets = std::mem::take(&mut self.first_offsets);
        let is_before = |batch: &LogBatch, row: usize| {
            first_offsets.get(batch.partitions[row] as usize).is_some_and(|first| batch.offsets[row] < *first)
        };
        while self.step()?.is_some_and(|(batch, row)| is_before(batch, row)) {}
        self.first_offsets = first_offsets;
        Ok(self.batch.as_ref().map(|batch| (batch, self.row)))
    }
}

/// The records of a stream, wherever they were written.
fn cursors(log: &Log, job: &Job, routes: &Routes, stream: usize, end: Position) -> BTreeMap<Place, Cursor> {
    let output = &job.plan.outputs[stream / STREAMS.len()];
    let topic = |job: &Job| log.topic(&job.stream_topic(output, STREAMS[stream % STREAMS.len()])?).ok();
    let own = topic(job).map(|topic| (Place::Own, Cursor::new(log, &topic, (Position(0), end), &[])));
    let mut cursors: BTreeMap<Place, Cursor> = own.into_iter().collect();
    if let Some(topic) = topic(&job.base()) {
        let live = routes.stretches(stream);
        let live = live.map(|(at, from, first)| (Place::Live(at), Cursor::new(log, &topic, (from, end), first)));
        cursors.extend(live);
    }
    cursors
}

/// Rows of a stream that retention has removed: all of them count as gone where they lie in several topics, since nobody knows
/// which ones are.
fn gone(log: &Log, job: &Job, routes: &Routes, stream: usize, rows: u64) -> Result<u64> {
    let output = &job.plan.outputs[stream / STREAMS.len()];
    let removed = |job: &Job| -> Result<u64> {
        let topic = job.stream_topic(output, STREAMS[stream % STREAMS.len()]);
        let Some(topic) = topic.and_then(|topic| log.topic(&topic).ok()) else { return Ok(0) };
        Ok(log.partition_starts(topic.id())?.iter().map(|offset| offset.0).sum())
    };
    if routes.stretches(stream).next().is_none() {
        return removed(job);
    }
    Ok(if removed(job)? + removed(&job.base())? == 0 { 0 } else { rows })
}

/// A stream on its way through a verification.
pub(super) struct Stream {
    pub name: StreamName,
    pub recorded: StreamProgress,
    pub seen: StreamProgress,
    pub difference: Option<Difference>,
    /// Rows that the topic has lost by retention, or that may lie in any of several: only digests know them.
    pub gone: u64,
    /// Rows that are compared.
    pub compared: Range<u64>,
    /// Marks that were passed, beginning with the first row; the next one is `marks[passed]`.
    passed: usize,
    marks: Vec<Mark>,
    states: Vec<SpanState>,
    /// Its number.
    index: usize,
    routes: Arc<Routes>,
    cursors: BTreeMap<Place, Cursor>,
}

/// Takes recomputed rows and holds each against the recorded one.
pub(super) struct Comparer {
    pub streams: Vec<Stream>,
    is_final: bool,
    scratch: Vec<u8>,
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn bytes_at(array: &arrow::array::BinaryArray, row: usize) -> Option<&[u8]> {
    use arrow::array::Array;
    array.is_valid(row).then(|| array.value(row))
}

impl Comparer {
    /// Compares what lies in spans with timestamps from `times.0` on and before `times.1`.
    pub fn new(
        log: &Log,
        job: &Job,
        progress: &Progress,
        spans: Option<&Spans>,
        times: (Option<i64>, Option<i64>),
    ) -> Result<Self> {
        let end = log.clock().position;
        let routes = Arc::new(Routes::of(log, job)?);
        let mut streams = Vec::new();
        for (index, (name, recorded)) in stream_names(job).into_iter().zip(&progress.streams).enumerate() {
            let marks = spans.and_then(|spans| spans.streams().get(index)).cloned().unwrap_or_default();
            let (from, to) = marks.rows_between(times.0, times.1);
            let known = marks.all().iter().copied().filter(|mark| mark.rows < recorded.rows);
            let (clock_us, latest_ms) = (progress.clock_us, i64::MAX);
            let (rows, digest, position) = (recorded.rows, recorded.digest, progress.position);
            let last = (rows > 0).then_some(Mark { rows, digest, position, clock_us, latest_ms });
            let marks: Vec<Mark> = known.chain(last).collect();
            streams.push(Stream {
                name,
                recorded: *recorded,
                seen: StreamProgress::default(),
                difference: None,
                gone: gone(log, job, &routes, index, recorded.rows)?,
                compared: from..to.unwrap_or(u64::MAX),
                passed: 0,
                states: vec![SpanState::NotCompared; marks.len()],
                marks,
                cursors: cursors(log, job, &routes, index, end),
                index,
                routes: Arc::clone(&routes),
            });
        }
        debug_assert_eq!(streams.len(), job.plan.outputs.len() * STREAMS.len());
        Ok(Comparer { streams, is_final: progress.is_final, scratch: Vec::new() })
    }

    /// Rows are recomputed from this state on: those before it are not compared.
    pub fn begin(&mut self, state: &Restored) -> Result<()> {
        self.streams.iter_mut().zip(&state.streams).try_for_each(|(stream, before)| stream.begin(*before, &state.at))
    }

    /// The last comparisons, when all rows are recomputed.
    pub fn finish(&mut self, is_final: bool) -> Result<()> {
        for stream in &mut self.streams {
            stream.finish(is_final)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Its spans, and what became of each.
    pub fn spans(&self) -> impl Iterator<Item = SpanCheck> + '_ {
        let froms = [0].into_iter().chain(self.marks.iter().map(|mark| mark.rows));
        froms.zip(&self.marks).zip(&self.states).map(|((from, end), state)| SpanCheck {
            output: self.output().to_owned(),
            from,
            end: *end,
            state: *state,
        })
    }

    /// Its rows lie in several topics, and nobody knows which ones where.
    fn is_anywhere(&self) -> bool {
        self.gone > 0 && self.routes.stretches(self.index).next().is_some()
    }

    /// The rows of `before` are there, and do not come again. The span in which they end is two: before them and behind.
    fn begin(&mut self, before: StreamProgress, at: &At) -> Result<()> {
        let StreamProgress { rows, digest } = before;
        // Which topic each of them is in depends on its window, which nobody computes.
        if self.routes.stretches(self.index).next().is_some() && rows > 0 {
            self.gone = self.recorded.rows;
        }
        if let Some(cursor) = self.cursors.get_mut(&Place::Own) {
            for _ in self.gone..rows {
                cursor.next()?;
            }
        }
        let place = self.marks.partition_point(|mark| mark.rows < rows);
        if rows > 0 && self.marks.get(place).is_none_or(|mark| mark.rows > rows) {
            let latest_ms = place.checked_sub(1).map_or(i64::MIN, |before| self.marks[before].latest_ms);
            let (position, clock_us) = (at.position.0, at.clock.0);
            self.marks.insert(place, Mark { rows, digest, position, clock_us, latest_ms });
            self.states.insert(place, SpanState::NotCompared);
        }
        self.passed = self.marks.partition_point(|mark| mark.rows <= rows);
        self.compared.start = self.compared.start.max(rows);
        self.seen = before;
        Ok(())
    }

    fn output(&self) -> &str {
        self.name.topic.as_ref().unwrap_or(&self.name.table)
    }

    fn is_satisfied(&self) -> bool {
        self.difference.is_some() || self.seen.rows >= self.recorded.rows.min(self.compared.end)
    }

    fn differs(
        &mut self,
        rows: Option<(&RecordColumns, usize)>,
        what: &str,
        recorded: Option<(Option<i64>, Option<String>, Option<String>)>,
    ) {
        let mine =
            rows.map(|(rows, row)| (rows.timestamps_ms[row], text(rows.keys.get(row)), text(rows.values.get(row))));
        let (timestamp, key) = match (&mine, &recorded) {
            (Some((timestamp, key, _)), _) | (None, Some((timestamp, key, _))) => (*timestamp, key.clone()),
            (None, None) => (None, None),
        };
        let place = self.marks.partition_point(|mark| mark.rows < self.seen.rows);
        let before = place.checked_sub(1).map_or(0, |before| self.marks[before].rows);
        let end = self.marks.get(place).map_or(self.seen.rows, |mark| mark.rows);
        if let Some(state) = self.states.get_mut(place) {
            *state = SpanState::Differs;
        }
        self.difference = Some(Difference {
            output: self.output().to_owned(),
            row: self.seen.rows,
            span: (before + 1, end),
            window_end_ms: timestamp.and_then(|t| t.checked_add(1)),
            key,
            what: what.to_owned(),
            recomputed: mine.and_then(|(_, _, value)| value),
            recorded: recorded.and_then(|(_, _, value)| value),
        });
    }

    /// Where the row is that was seen last.
    fn cursor(&mut self, timestamp_ms: Option<i64>) -> Option<&mut Cursor> {
        let place = self.routes.place(self.index, self.seen.rows - 1, timestamp_ms);
        self.cursors.get_mut(&place)
    }

    /// A recomputed row in front of what is compared.
    fn skip(&mut self, timestamp_ms: Option<i64>) -> Result<()> {
        self.seen.rows += 1;
        if self.seen.rows > self.gone
            && let Some(cursor) = self.cursor(timestamp_ms)
        {
            cursor.next()?;
        }
        if let Some(mark) = self.marks.get(self.passed).filter(|mark| mark.rows == self.seen.rows) {
            self.seen.digest = mark.digest;
            self.passed += 1;
        }
        Ok(())
    }

    fn compare(&mut self, rows: &RecordColumns, row: usize, scratch: &mut Vec<u8>) -> Result<()> {
        if self.seen.rows < self.compared.start {
            return self.skip(rows.timestamps_ms[row]);
        }
        self.seen.digest = record_digest(self.seen.digest, rows, row, scratch);
        self.seen.rows += 1;
        self.compare_record(rows, row)?;
        let Some(mark) = self.marks.get(self.passed).filter(|mark| mark.rows == self.seen.rows).copied() else {
            return Ok(());
        };
        if self.difference.is_none() {
            self.states[self.passed] = SpanState::Equal;
            if mark.digest != self.seen.digest {
                self.differs(Some((rows, row)), "the digest that the run recorded", None);
            }
        }
        self.passed += 1;
        Ok(())
    }

    /// The record of the topic that stands where the recomputed row is.
    fn compare_record(&mut self, rows: &RecordColumns, row: usize) -> Result<()> {
        let is_kept = self.name.topic.is_some() && self.seen.rows > self.gone;
        let Some(cursor) = self.cursor(rows.timestamps_ms[row]) else {
            if is_kept {
                self.differs(Some((rows, row)), "the topic is gone", None);
            }
            return Ok(());
        };
        if !is_kept {
            return Ok(());
        }
        let Some((batch, at)) = cursor.next()? else {
            self.differs(Some((rows, row)), "the row is missing in the topic", None);
            return Ok(());
        };
        let recorded_timestamp = batch.timestamp_ms(at);
        let (key, value) = (bytes_at(&batch.keys, at), bytes_at(&batch.values, at));
        let what = if key != rows.keys.get(row) {
            "key"
        } else if value != rows.values.get(row) {
            "value"
        } else if recorded_timestamp != rows.timestamps_ms[row] {
            "timestamp"
        } else if bytes_at(&batch.headers, at).unwrap_or_default() != rows.headers.get(row).unwrap_or_default() {
            "headers"
        } else if rows.partitions[row].is_some_and(|partition| partition != batch.partitions[at]) {
            "partition"
        } else {
            return Ok(());
        };
        let recorded = Some((recorded_timestamp, text(key), text(value)));
        self.differs(Some((rows, row)), what, recorded);
        Ok(())
    }

    fn finish(&mut self, is_final: bool) -> Result<()> {
        if self.difference.is_some() || self.compared.end < self.recorded.rows {
            return Ok(());
        }
        if self.seen.rows < self.recorded.rows {
            self.seen.rows += 1;
            let is_kept = self.seen.rows > self.gone;
            let found = match self.cursor(None) {
                Some(cursor) if is_kept => cursor.next()?.map(|(batch, at)| {
                    (batch.timestamp_ms(at), text(bytes_at(&batch.keys, at)), text(bytes_at(&batch.values, at)))
                }),
                _ => None,
            };
            self.differs(None, "the row does not come again", found);
            self.seen.rows -= 1;
        } else if let (true, Some(cursor)) = (is_final && !self.is_anywhere(), self.cursors.get_mut(&Place::Own))
            && let Some((batch, at)) = cursor.next()?
        {
            let found = (batch.timestamp_ms(at), text(bytes_at(&batch.keys, at)), text(bytes_at(&batch.values, at)));
            self.seen.rows += 1;
            self.differs(None, "the topic holds a row that the run did not write", Some(found));
            self.seen.rows -= 1;
        }
        Ok(())
    }
}

impl Sink for Comparer {
    fn take(&mut self, batches: Vec<OutputBatch>, _: Position, _: AppendTime) -> Result<()> {
        for batch in &batches {
            let stream = &mut self.streams[stream_index(batch.output, batch.stream)];
            for row in 0..batch.records.len() {
                if stream.difference.is_some() || stream.seen.rows >= stream.compared.end {
                    break;
                }
                if stream.seen.rows < stream.recorded.rows {
                    stream.compare(&batch.records, row, &mut self.scratch)?;
                } else if self.is_final {
                    stream.seen.rows += 1;
                    stream.differs(Some((&batch.records, row)), "the run did not write this row", None);
                }
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        // A complete run is recomputed to its end, so that a row too many is found as well.
        let is_to_the_end = |stream: &Stream| self.is_final && stream.compared.end >= stream.recorded.rows;
        self.streams.iter().all(|stream| !is_to_the_end(stream) && stream.is_satisfied())
    }
}
