//! Records in columns, on their way into the log and out of it.

use crate::types::{AppendTime, PartitionId, Position, TopicId};
use arrow::array::{BinaryArray, Int64Array};

/// Where a record goes within its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// This partition.
    Fixed(PartitionId),
    /// By murmur2 of the key as Kafka does; records without a key go round robin by batch.
    ByKey,
}

/// One header of a record: a name and bytes (null is not empty).
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// One record on its way into the log.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Milliseconds since the epoch; any value is a valid time, `None` means no timestamp.
    pub timestamp_ms: Option<i64>,
    /// Null is not empty.
    pub key: Option<&'a [u8]>,
    /// Null is not empty.
    pub value: Option<&'a [u8]>,
    /// In order; names may repeat.
    pub headers: &'a [Header<'a>],
}

/// Records of one topic in log order, as read from one frame: at most one frame's worth, never empty.
/// Row `i` has position `first_position + i`.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// The topic.
    pub topic: TopicId,
    /// Position of row 0; the rows are consecutive.
    pub first_position: Position,
    /// Append time of all rows.
    pub append_time: AppendTime,
    /// Partition of each row.
    pub partitions: Vec<u32>,
    /// Offset of each row within its partition.
    pub offsets: Vec<u64>,
    /// Timestamp in ms of each row, nullable.
    pub timestamps: Int64Array,
    /// Keys, nullable.
    pub keys: BinaryArray,
    /// Values, nullable.
    pub values: BinaryArray,
    /// Headers of each row in the form of [`encode_headers`]; empty bytes for a row without headers.
    pub headers: BinaryArray,
}

impl LogBatch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// True without rows; readers never hand out such a batch.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Rows `from..to`, sharing the bytes.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> LogBatch {
        let len = to - from;
        LogBatch {
            topic: self.topic,
            first_position: self.first_position.plus(from as u64),
            append_time: self.append_time,
            partitions: self.partitions[from..to].to_vec(),
            offsets: self.offsets[from..to].to_vec(),
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: self.values.slice(from, len),
            headers: self.headers.slice(from, len),
        }
    }
}
