//! Output records in output order, whatever order the pipelines made them in.
//!
//! Order within one (output, stream): what caused the record (clock due time or record position, in the order in which they
//! happened), then pipeline; within those the order in which the pipeline made them: window end, window start, key hash,
//! key bytes.

use super::plan::OutputPlan;
use super::{Originals, OutputBatch, OutputStream};
use crate::codec::xxh64;
use crate::error::{Error, Result};
use crate::log::records::{Header, Partitioning, RecordColumns, encode_headers};
use crate::types::{AppendTime, PartitionId};
use std::collections::BTreeMap;

/// What made a window close or a row pass, ordered by when it happened: a clock step due at d comes after all records with an
/// append time before d and before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    time_us: i64,
    /// 0 for the clock, else 1 + position.
    rank: u64,
}

impl Cause {
    /// The end of the input.
    pub const END: Cause = Cause { time_us: i64::MAX, rank: u64::MAX };

    /// A step of the append clock at its due time.
    pub fn clock(due: AppendTime) -> Cause {
        Cause { time_us: due.0, rank: 0 }
    }

    /// When it happened, by the append clock, in us.
    pub fn time_us(self) -> i64 {
        self.time_us
    }

    /// Where it stands among what happened at its time.
    pub fn rank(self) -> u64 {
        self.rank
    }

    /// A cause as it was.
    pub fn ranked(time_us: i64, rank: u64) -> Cause {
        Cause { time_us, rank }
    }

    /// Position of the record that it is.
    pub fn position(self) -> Option<u64> {
        self.rank.checked_sub(1)
    }

    /// A record.
    pub fn record(append_us: i64, position: u64) -> Cause {
        Cause { time_us: append_us, rank: position.saturating_add(1) }
    }
}

/// When in the life of a window a result is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pane {
    /// Before the window is complete.
    Early,
    /// When it is complete.
    OnTime,
    /// Again, for a record that came after that.
    Late,
}

/// What a result does to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// There was none.
    Insert,
    /// Takes its place.
    Update,
    /// Takes it back: its window is now another one.
    Delete,
}

/// Why a window of records closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// It has as many records as it takes.
    Count,
    /// Its time is over.
    Timeout,
    /// The input has ended.
    End,
}

impl Reason {
    /// As users read it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Count => "count",
            Reason::Timeout => "timeout",
            Reason::End => "end",
        }
    }
}

/// One emission of one window and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Firing {
    /// 0 for the first one.
    pub revision: u32,
    /// When.
    pub pane: Pane,
    /// What it does.
    pub operation: Operation,
    /// Of windows of records.
    pub reason: Option<Reason>,
}

impl Firing {
    /// The only firing of a window that is emitted once.
    pub const ONLY: Firing = Firing { revision: 0, pane: Pane::OnTime, operation: Operation::Insert, reason: None };

    /// The firing with this number.
    pub fn numbered(revision: u32, pane: Pane) -> Firing {
        let operation = if revision == 0 { Operation::Insert } else { Operation::Update };
        Firing { revision, pane, operation, reason: None }
    }

    /// Pane, operation and reason as users read them.
    pub fn names(self) -> (&'static str, &'static str, Option<&'static str>) {
        let pane = match self.pane {
            Pane::Early => "early",
            Pane::OnTime => "on-time",
            Pane::Late => "late",
        };
        let operation = match self.operation {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        (pane, operation, self.reason.map(Reason::name))
    }

    /// Encoded headers.
    pub fn headers(self) -> Vec<u8> {
        let revision = self.revision.to_string();
        let (pane, operation, reason) = self.names();
        let texts = [("revision", &*revision), ("pane", pane), ("op", operation)];
        let texts = texts.into_iter().chain(reason.map(|reason| ("reason", reason)));
        encoded(&texts.map(|(name, text)| (name, Some(text.as_bytes()))).collect::<Vec<_>>())
    }
}

/// A record for an output; partitions are chosen here.
pub(super) struct OutputRecord<'a> {
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Encoded headers.
    pub headers: &'a [u8],
}

/// Records of one stream: those whose order is final, and those made since.
#[derive(Default)]
struct Stream {
    ready: RecordColumns,
    made: RecordColumns,
    order: Vec<(Cause, usize)>,
    /// Rows of `made` that lack what the record of a source holds, ascending.
    unfilled: Vec<Unfilled>,
}

/// A row whose key, value and first headers are those of the record of a source at a position.
struct Unfilled {
    row: usize,
    source: usize,
    position: u64,
}

/// Records read again: by source the positions, and a row for each.
type Found = BTreeMap<usize, (Vec<u64>, RecordColumns)>;

impl Stream {
    /// Gives the rows that lack them key, value and headers of their records.
    fn fill(&mut self, found: &Found) -> Result<()> {
        let mut unfilled = std::mem::take(&mut self.unfilled).into_iter().peekable();
        if unfilled.peek().is_none() {
            return Ok(());
        }
        let made = std::mem::take(&mut self.made);
        let mut headers = Vec::new();
        for row in 0..made.len() {
            headers.clear();
            let (mut key, mut value) = (made.keys.get(row), made.values.get(row));
            if let Some(wanted) = unfilled.next_if(|unfilled| unfilled.row == row) {
                let records = found.get(&wanted.source);
                let place = records.and_then(|(positions, _)| positions.binary_search(&wanted.position).ok());
                let Some(((_, records), place)) = records.zip(place) else {
                    return Err(Error::internal(format!("the record at position {} was not read", wanted.position)));
                };
                (key, value) = (records.keys.get(place), records.values.get(place));
                headers.extend_from_slice(records.headers.get(place).unwrap_or_default());
            }
            headers.extend_from_slice(made.headers.get(row).unwrap_or_default());
            let to = partitioning(made.partitions[row]);
            self.made.push_encoded(to, made.timestamps_ms[row], key, value, &headers);
        }
        Ok(())
    }

    /// Brings the records made since the last call into output order. Everything still to come must come after them.
    fn settle(&mut self) {
        if self.made.is_empty() {
            return;
        }
        let sorted = self.order.is_sorted();
        if sorted && self.ready.is_empty() {
            std::mem::swap(&mut self.ready, &mut self.made);
        } else {
            let mut rows: Vec<usize> = (0..self.order.len()).collect();
            if !sorted {
                rows.sort_by_key(|row| self.order[*row]);
            }
            for row in rows {
                let made = &self.made;
                let to = partitioning(made.partitions[row]);
                let headers = made.headers.get(row).unwrap_or_default();
                self.ready.push_encoded(to, made.timestamps_ms[row], made.keys.get(row), made.values.get(row), headers);
            }
            self.made.clear();
        }
        self.order.clear();
    }
}

fn partitioning(partition: Option<u32>) -> Partitioning {
    partition.map_or(Partitioning::ByKey, |partition| Partitioning::Fixed(PartitionId(partition)))
}

/// All outputs of a job.
pub(super) struct Outputs {
    streams: Vec<[Stream; 3]>,
    partitions: Vec<u32>,
    /// Records pushed so far, by output and stream.
    counts: Vec<[u64; 3]>,
}

impl Outputs {
    pub fn new(outputs: &[OutputPlan]) -> Outputs {
        Outputs {
            streams: outputs.iter().map(|_| Default::default()).collect(),
            partitions: outputs.iter().map(|output| output.partitions).collect(),
            counts: vec![[0; 3]; outputs.len()],
        }
    }

    /// Adds a record made by `pipeline` because of `cause`. Records of one pipeline with equal causes come in output order.
    pub fn push(&mut self, to: (usize, OutputStream), by: (Cause, usize), record: &OutputRecord<'_>) {
        let (output, stream) = to;
        let to = match (stream, record.key, self.partitions[output]) {
            (OutputStream::Main, Some(_), 2..) => Partitioning::ByKey,
            // Round robin would depend on how the output is cut into batches.
            (OutputStream::Main, None, partitions @ 2..) => {
                let spread = xxh64(record.value.unwrap_or_default(), 0) % u64::from(partitions);
                Partitioning::Fixed(PartitionId(u32::try_from(spread).unwrap_or(0)))
            }
            _ => Partitioning::Fixed(PartitionId(0)),
        };
        self.counts[output][stream as usize] += 1;
        let stream = &mut self.streams[output][stream as usize];
        stream.order.push(by);
        stream.made.push_encoded(to, record.timestamp_ms, record.key, record.value, record.headers);
    }

    /// Adds a late or rejected record that lacks the key, the value and the first headers: those of the record of a source at a
    /// position. To be [filled](Self::fill) before the order is fixed.
    pub fn push_unfilled(
        &mut self,
        to: (usize, OutputStream),
        by: (Cause, usize),
        record: &OutputRecord<'_>,
        (source, position): (usize, u64),
    ) {
        let stream = &mut self.streams[to.0][to.1 as usize];
        stream.unfilled.push(Unfilled { row: stream.made.len(), source, position });
        self.push(to, by, record);
    }

    /// Completes the records that lack parts, each read once.
    pub fn fill(&mut self, originals: Originals<'_>) -> Result<()> {
        let mut wanted: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for unfilled in self.streams.iter().flatten().flat_map(|stream| &stream.unfilled) {
            wanted.entry(unfilled.source).or_default().push(unfilled.position);
        }
        let mut found = Found::new();
        for (source, mut positions) in wanted {
            positions.sort_unstable();
            positions.dedup();
            let records = originals(source, &positions)?;
            found.insert(source, (positions, records));
        }
        self.streams.iter_mut().flatten().try_for_each(|stream| stream.fill(&found))
    }

    /// Fixes the order of all records so far: everything that comes later has a later cause.
    pub fn settle(&mut self) {
        self.streams.iter_mut().flatten().for_each(Stream::settle);
    }

    /// Takes the records whose order is fixed.
    pub fn drain(&mut self) -> Vec<OutputBatch> {
        let kinds = [OutputStream::Main, OutputStream::Late, OutputStream::Rejected];
        let mut batches = Vec::new();
        for (output, streams) in self.streams.iter_mut().enumerate() {
            for (stream, kind) in streams.iter_mut().zip(kinds) {
                if !stream.ready.is_empty() {
                    batches.push(OutputBatch { output, stream: kind, records: std::mem::take(&mut stream.ready) });
                }
            }
        }
        batches
    }

    /// Records pushed so far, by output and stream, and whether none of them is still held.
    pub fn pushed(&self) -> (&[[u64; 3]], bool) {
        let held = |stream: &Stream| !stream.ready.is_empty() || !stream.made.is_empty();
        (&self.counts, !self.streams.iter().flatten().any(held))
    }

    /// Goes on counting.
    pub fn restore(&mut self, counts: Vec<[u64; 3]>) {
        self.counts = counts;
    }

    /// Records pushed so far to a stream of each output.
    pub fn counts(&self, stream: OutputStream) -> Vec<u64> {
        self.counts.iter().map(|counts| counts[stream as usize]).collect()
    }
}

/// Headers of a record that passed through without a window.
pub(super) fn row_headers() -> Vec<u8> {
    encoded(&[("op", Some(b"insert"))])
}

pub(super) fn encoded(headers: &[Header<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_headers(headers, &mut out);
    out
}
