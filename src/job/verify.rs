//! `verify`: recompute what a run wrote, compare record by record and digest by digest, and name the first window that differs.

use super::drive::{Drive, DriveOptions, Observer, Sink};
use super::emit::{STREAMS, StreamName, record_digest, stream_index, stream_names};
use super::record::{Progress, RunRecord, StreamProgress};
use super::{Job, recorded};
use crate::engine::OutputBatch;
use crate::engine::functions::{self, UsedFunction};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{LogBatch, RecordColumns};
use crate::log::{Log, Reader};
use crate::types::{AppendTime, Position};
use std::collections::BTreeMap;

/// The first place where a recomputation and the recorded output part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Output topic, or table for a blackhole.
    pub output: String,
    /// Number of the row in the output, from 1.
    pub row: u64,
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

/// A user's function that a job calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledFunction {
    /// Output topic, or table for a blackhole, that the function works for.
    pub output: String,
    /// Name in capitals.
    pub name: String,
    /// Version, as registered.
    pub version: String,
    /// An input to which it gave two answers in this verification, with both answers.
    pub unstable: Option<String>,
}

/// Result of a verification.
#[derive(Debug)]
pub struct VerifyReport {
    /// Name of the run.
    pub run: String,
    /// Identity of the run.
    pub record: RunRecord,
    /// What the run has recorded of itself.
    pub progress: Progress,
    /// Names of the streams of `progress`.
    pub streams: Vec<StreamName>,
    /// Rows and digests as recomputed.
    pub recomputed: Vec<StreamProgress>,
    /// The first difference by output; empty: everything is equal.
    pub differences: Vec<Difference>,
    /// The users' functions that the job calls, by output and name. While verifying, each is called twice for every input.
    pub functions: Vec<CalledFunction>,
}

impl VerifyReport {
    /// True if the recorded output is what the job computes, and computes each time.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.functions.iter().all(|function| function.unstable.is_none())
    }
}

/// Recomputes a job's recorded run from its start and compares.
///
/// # Errors
/// `NotFound` when the job has not run, `Conflict` when the run recorded is that of another plan, and those of reading.
pub fn verify(log: &Log, job: &Job, threads: usize, observer: &mut dyn Observer) -> Result<VerifyReport> {
    let key = job.key();
    let Some((record, progress)) = recorded(log, job)? else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no run of '{key}' to verify"))
            .with_hint("`kappa run` it first"));
    };
    let Some(progress) = progress else {
        return Err(Error::new(ErrorKind::NotFound, format!("the run of '{key}' has written nothing yet")));
    };
    let options = DriveOptions { threads, publish_from_ms: record.publish_from_ms, ..DriveOptions::default() };
    let calls = functions::used(&job.plan);
    calls.iter().for_each(|call| call.probe.check());
    let mut drive = Drive::new(log, job, &record.starts, options)?;
    let mut comparer = Comparer::new(log, job, &progress)?;
    let end = if progress.is_final { progress.position() } else { log.clock().position };
    drive.feed(end, Some(end), &mut comparer, observer)?;
    if !comparer.is_done() {
        let clock = if progress.is_final { progress.clock() } else { drive.at().clock.max(progress.clock()) };
        drive.advance(clock, &mut comparer)?;
    }
    if progress.is_final && record.flush && !comparer.is_done() {
        drive.flush(&mut comparer)?;
    }
    comparer.finish(progress.is_final)?;
    let differences = comparer.streams.iter().filter_map(|s| s.difference.clone()).collect();
    let recomputed = comparer.streams.iter().map(|s| s.seen).collect();
    let functions = called_functions(job, &calls);
    Ok(VerifyReport { run: key, record, progress, streams: stream_names(job), recomputed, differences, functions })
}

/// One entry for each function of each output: that of a call which gave two answers, if there is one.
fn called_functions(job: &Job, calls: &[UsedFunction]) -> Vec<CalledFunction> {
    let mut functions: BTreeMap<(usize, &str), CalledFunction> = BTreeMap::new();
    for call in calls {
        let output = job.plan.pipelines[call.pipeline].output;
        let function = functions.entry((output, &call.name)).or_insert_with(|| {
            let plan = &job.plan.outputs[output];
            CalledFunction {
                output: job.output_topic(plan).unwrap_or_else(|| plan.table.clone()),
                name: call.name.to_string(),
                version: call.version.to_string(),
                unstable: None,
            }
        });
        function.unstable = function.unstable.take().or_else(|| call.probe.finding());
    }
    functions.into_values().collect()
}

/// Records of one topic, one after the other.
struct Cursor {
    reader: Reader,
    end: Position,
    batch: Option<LogBatch>,
    row: usize,
}

impl Cursor {
    fn next(&mut self) -> Result<Option<(&LogBatch, usize)>> {
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
}

struct Stream {
    name: StreamName,
    recorded: StreamProgress,
    seen: StreamProgress,
    cursor: Option<Cursor>,
    /// It has a topic, and that is gone.
    is_gone: bool,
    difference: Option<Difference>,
}

/// Takes recomputed rows and holds each against the recorded one.
struct Comparer {
    streams: Vec<Stream>,
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
    fn new(log: &Log, job: &Job, progress: &Progress) -> Result<Self> {
        let end = log.clock().position;
        let mut streams = Vec::new();
        for (name, recorded) in stream_names(job).into_iter().zip(&progress.streams) {
            let topic = name.topic.as_ref().and_then(|topic| log.topic(topic).ok());
            let is_gone = name.topic.is_some() && topic.is_none();
            let cursor =
                topic.map(|topic| Cursor { reader: log.reader(&[topic.id()], Position(0)), end, batch: None, row: 0 });
            streams.push(Stream {
                name,
                recorded: *recorded,
                seen: StreamProgress::default(),
                cursor,
                is_gone,
                difference: None,
            });
        }
        debug_assert_eq!(streams.len(), job.plan.outputs.len() * STREAMS.len());
        Ok(Comparer { streams, is_final: progress.is_final, scratch: Vec::new() })
    }

    fn finish(&mut self, is_final: bool) -> Result<()> {
        for stream in &mut self.streams {
            stream.finish(is_final)?;
        }
        Ok(())
    }
}

impl Stream {
    fn is_satisfied(&self) -> bool {
        self.difference.is_some() || self.seen.rows >= self.recorded.rows
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
        self.difference = Some(Difference {
            output: self.name.topic.clone().unwrap_or_else(|| self.name.table.clone()),
            row: self.seen.rows,
            window_end_ms: timestamp.and_then(|t| t.checked_add(1)),
            key,
            what: what.to_owned(),
            recomputed: mine.and_then(|(_, _, value)| value),
            recorded: recorded.and_then(|(_, _, value)| value),
        });
    }

    fn compare(&mut self, rows: &RecordColumns, row: usize, scratch: &mut Vec<u8>) -> Result<()> {
        self.seen.digest = record_digest(self.seen.digest, rows, row, scratch);
        self.seen.rows += 1;
        let Some(cursor) = &mut self.cursor else {
            if self.is_gone {
                self.differs(Some((rows, row)), "the topic is gone", None);
            } else if self.seen.rows == self.recorded.rows && self.seen.digest != self.recorded.digest {
                self.differs(Some((rows, row)), "the digest of all rows", None);
            }
            return Ok(());
        };
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
        if self.difference.is_some() {
            return Ok(());
        }
        if self.seen.rows < self.recorded.rows {
            self.seen.rows += 1;
            let found = match &mut self.cursor {
                Some(cursor) => cursor.next()?.map(|(batch, at)| {
                    (batch.timestamp_ms(at), text(bytes_at(&batch.keys, at)), text(bytes_at(&batch.values, at)))
                }),
                None => None,
            };
            self.differs(None, "the row does not come again", found);
            self.seen.rows -= 1;
        } else if self.seen.digest != self.recorded.digest {
            self.differs(None, "the digest that the run recorded", None);
        } else if let (true, Some(cursor)) = (is_final, &mut self.cursor)
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
                if stream.difference.is_some() {
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
        !self.is_final && self.streams.iter().all(Stream::is_satisfied)
    }
}
