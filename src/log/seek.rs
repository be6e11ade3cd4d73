//! Finding the place to read from.

use crate::types::{AppendTime, Offset, PartitionId, Position};

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTarget {
    /// The topic's first record, or the end of the log if it has none.
    Earliest,
    /// The durable end of the log.
    Latest,
    /// A position; beyond the end there is no such record.
    Position(Position),
    /// The record of this offset.
    Offset {
        /// The partition.
        partition: PartitionId,
        /// The offset.
        offset: Offset,
    },
    /// The topic's first record with this append time or a later one.
    Append(AppendTime),
    /// The topic's first record with `t <= timestamp <= append time + max_future`.
    TimestampMs(i64),
}

/// The answer to a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Read from here.
    At(Position),
    /// The log is intact and holds no such record (yet).
    NoSuchRecord,
}

/// The answer to a seek for a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekRange {
    /// The smallest span of positions `(from, to)`, `to` exclusive, that holds every record of the stretch; `None` if there is none.
    pub span: Option<(Position, Position)>,
    /// Records whose timestamp is in the stretch but beyond append time + `max_future`: not considered for the span.
    pub beyond_max_future: u64,
}
