//! What goes into the log together, and what comes back once it is durable.

use crate::error::Result;
use crate::log::catalog::MetaRecord;
use crate::log::records::RecordColumns;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};

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

/// Where one topic's records of a batch are: one entry per entry of [`AppendBatch::topics`].
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

/// A batch on its way. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct PendingAck {}

impl PendingAck {
    /// Waits until the batch is durable.
    ///
    /// [`ErrorKind::Unknown`](crate::ErrorKind::Unknown): a write or sync failed after it was issued, the batch may or may not
    /// be in the log.
    pub fn wait(self) -> Result<Ack> {
        Err(crate::Error::internal("the log is not built yet"))
    }

    /// The outcome if it is known already. To be called until it gives one, not after.
    pub fn try_wait(&mut self) -> Option<Result<Ack>> {
        None
    }
}
