//! What goes into the log together, and what comes back once it is durable.

use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{self, MetaRecord, MetaSpace};
use crate::log::frame::body::{self, Rows};
use crate::log::frame::header::FRAME_HEADER_LEN;
use crate::log::records::RecordColumns;
use crate::log::topic::Topic;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Records and metadata that enter the log together or not at all.
#[derive(Debug, Clone, Default)]
pub struct AppendBatch {
    /// Records by topic, in order. A topic may occur more than once.
    pub topics: Vec<(TopicId, RecordColumns)>,
    /// Metadata records, applied in order when the frame is durable.
    pub meta: Vec<MetaRecord>,
    /// A reading of the append clock that this batch depends on: after any restart the clock goes on at or after it.
    pub clock_floor: Option<AppendTime>,
}

impl AppendBatch {
    /// Records of one topic.
    pub fn records(topic: TopicId, records: RecordColumns) -> Self {
        AppendBatch { topics: vec![(topic, records)], ..Default::default() }
    }

    /// Metadata only.
    pub fn meta(meta: Vec<MetaRecord>) -> Self {
        AppendBatch { meta, ..Default::default() }
    }
}

/// Consecutive offsets of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAck {
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of records.
    pub count: u64,
}

/// Where one topic's records of a batch are: one for each entry of [`AppendBatch::topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicAck {
    /// The topic.
    pub topic: TopicId,
    /// Position of the first record; the others follow without a gap, in the order of the batch.
    pub first_position: Position,
    /// Offsets by partition, in order of partition; only partitions that got records.
    pub partitions: Vec<PartitionAck>,
}

/// The batch is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Append time of all its records.
    pub append_time: AppendTime,
    /// The frame that holds it.
    pub seq: FrameSeq,
    /// Where its records are, in the order of [`AppendBatch::topics`].
    pub topics: Vec<TopicAck>,
    /// The position after the frame's last record.
    pub end: Position,
}

/// How a group ended, for everybody who waits for it.
enum Outcome {
    Waiting,
    Durable(Vec<Option<Ack>>),
    Failed(ErrorKind, String),
}

/// Requests that become durable with one sync.
struct Group {
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

impl Group {
    fn end(&self, outcome: Outcome) {
        let mut now = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*now, Outcome::Waiting) {
            *now = outcome;
            self.changed.notify_all();
        }
    }
}

/// The duty to tell those who wait for a group how it ended. If it is dropped without, they are told that nobody knows.
pub(crate) struct Waiters(Arc<Group>);

impl Waiters {
    pub fn new() -> Waiters {
        Waiters(Arc::new(Group { outcome: Mutex::new(Outcome::Waiting), changed: Condvar::new() }))
    }

    pub fn add(&self, slot: usize) -> PendingAck {
        PendingAck { group: self.0.clone(), slot }
    }

    pub fn durable(self, acks: Vec<Ack>) {
        self.0.end(Outcome::Durable(acks.into_iter().map(Some).collect()));
    }

    pub fn failed(self, kind: ErrorKind, message: &str) {
        self.0.end(Outcome::Failed(kind, message.to_owned()));
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.0.end(Outcome::Failed(ErrorKind::Unknown, "the log stopped before the write was answered".to_owned()));
    }
}

/// A batch on its way. Dropping it does not take the batch back.
pub struct PendingAck {
    group: Arc<Group>,
    slot: usize,
}

impl PendingAck {
    fn take(&self, outcome: &mut Outcome) -> Option<Result<Ack>> {
        match outcome {
            Outcome::Waiting => None,
            Outcome::Failed(kind, message) => Some(Err(Error::new(*kind, message.clone()))),
            Outcome::Durable(acks) => {
                let ack = acks.get_mut(self.slot).and_then(Option::take);
                Some(ack.ok_or_else(|| Error::internal("an acknowledgement was asked for twice")))
            }
        }
    }

    /// Waits until the batch is durable.
    ///
    /// [`ErrorKind::Unknown`]: a write or sync failed after it was issued, the batch may or may not be in the log.
    /// [`ErrorKind::Unavailable`]: it failed before, the batch is not in the log.
    pub fn wait(self) -> Result<Ack> {
        let mut outcome = self.group.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = self.take(&mut outcome) {
                return result;
            }
            outcome = self.group.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The outcome if it is known already. To be called until it gives one, not after.
    pub fn try_wait(&mut self) -> Option<Result<Ack>> {
        let mut outcome = self.group.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(&mut outcome)
    }
}

/// A checked batch with partitions chosen, ready to be merged into a frame.
pub(crate) struct Request {
    /// In the order of the batch; rows may be empty.
    pub topics: Vec<(TopicId, Rows)>,
    /// Rows per partition, for each entry of `topics`.
    pub counts: Vec<BTreeMap<u32, u32>>,
    pub meta: Vec<MetaRecord>,
    pub meta_bytes: Vec<u8>,
    pub clock_floor: Option<AppendTime>,
    /// Bytes that it adds to a frame at most.
    pub bytes: usize,
}

impl Request {
    /// Checks a batch and chooses partitions. `topic_of` finds a topic; `by_log` allows records of the log's own.
    pub fn new(
        batch: AppendBatch,
        bytes_max: usize,
        by_log: bool,
        topic_of: impl Fn(TopicId) -> Result<Topic>,
    ) -> Result<Request> {
        let mut request = Request {
            topics: Vec::with_capacity(batch.topics.len()),
            counts: Vec::with_capacity(batch.topics.len()),
            meta: Vec::new(),
            meta_bytes: Vec::new(),
            clock_floor: batch.clock_floor,
            bytes: FRAME_HEADER_LEN,
        };
        for (id, columns) in batch.topics {
            request.add_rows(&topic_of(id)?, columns)?;
        }
        for record in batch.meta {
            catalog::check(&record)?;
            if record.space == MetaSpace::Topic && !by_log {
                return Err(Error::input(
                    "metadata of topics is written by the log: use create_topic and delete_topic",
                ));
            }
            catalog::encode(record.clone(), &mut request.meta_bytes);
            request.meta.push(record);
        }
        request.bytes += request.meta_bytes.len() + 8;
        if request.bytes > bytes_max {
            let message =
                format!("an append of {} bytes is more than the {bytes_max} that one may have", request.bytes);
            return Err(Error::input(message).with_hint("append in smaller batches"));
        }
        Ok(request)
    }

    fn add_rows(&mut self, topic: &Topic, columns: RecordColumns) -> Result<()> {
        let rows = columns.len();
        let lens = [columns.partitions.len(), columns.keys.len(), columns.values.len(), columns.headers.len()];
        if lens.iter().any(|len| *len != rows) {
            return Err(Error::input(format!(
                "columns for topic {} differ in length: {rows} and {lens:?}",
                topic.name()
            )));
        }
        let partitions = choose_partitions(topic, &columns)?;
        let mut counts = BTreeMap::new();
        for partition in &partitions {
            *counts.entry(*partition).or_insert(0) += 1;
        }
        self.bytes += body::bound(rows, columns.byte_len()) + 48 + counts.len() * 32;
        self.counts.push(counts);
        self.topics.push((topic.id(), Rows { partitions, columns }));
        Ok(())
    }
}

fn choose_partitions(topic: &Topic, columns: &RecordColumns) -> Result<Vec<u32>> {
    let count = topic.partitions();
    let mut turn = None;
    let mut chosen = Vec::with_capacity(columns.len());
    for (row, wanted) in columns.partitions.iter().enumerate() {
        chosen.push(match (wanted, columns.keys.get(row)) {
            (Some(partition), _) if *partition < count => *partition,
            (Some(partition), _) => {
                let message = format!("topic {} has partitions 0 to {}, not {partition}", topic.name(), count - 1);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            (None, _) if count == 1 => 0,
            (None, Some(key)) => topic.partition_of(key),
            (None, None) => *turn.get_or_insert_with(|| topic.next_turn()),
        });
    }
    Ok(chosen)
}
