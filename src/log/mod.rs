//! The log: one journal shared by all topics and partitions, one order, one writer.

mod append;
pub mod catalog;
pub mod frame;
mod options;
mod reader;
pub mod records;
mod report;
mod seek;
pub mod topic;

pub use append::{Ack, AppendBatch, PartitionAck, PendingAck, TopicAck};
pub use catalog::{MetaRecord, MetaSpace};
pub use frame::Codec;
pub use options::{LogOptions, ViewKind};
pub use reader::Reader;
pub use report::RecoveryReport;
pub use seek::{Seek, SeekRange, SeekTarget};
pub use topic::{Topic, TopicConfig};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::types::{AppendTime, Offset, Position, TopicId};
use std::path::Path;
use std::sync::Arc;

/// What the append clock says: every record from `position` on has an append time of at least `append_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The durable end of the log when asked.
    pub position: Position,
    /// Now, or the append time of the oldest frame that is not yet durable.
    pub append_time: AppendTime,
}

/// The log of one data folder. Clones share it; usable from many threads.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    report: RecoveryReport,
}

fn not_built<T>() -> Result<T> {
    Err(Error::internal("the log is not built yet"))
}

impl Log {
    /// Opens the log in `dir`, creating the folder if missing, and recovers what a crash left.
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if another process has it (the message names it) or the disk refuses.
    pub fn open(env: &Env, _dir: &Path, _options: LogOptions) -> Result<Log> {
        Ok(Log { inner: Arc::new(Inner { env: env.clone(), report: RecoveryReport::default() }) })
    }

    /// What opening found and did.
    pub fn report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// The surroundings the log was opened with.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Creates a topic; names that end like a job's outputs are refused. [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it exists.
    pub fn create_topic(&self, _name: &str, _config: TopicConfig) -> Result<Topic> {
        not_built()
    }

    /// Creates a topic whose name may end like a job's output.
    pub fn create_output_topic(&self, _name: &str, _config: TopicConfig) -> Result<Topic> {
        not_built()
    }

    /// Deletes a topic. Its records can no longer be reached; a new topic of that name starts empty.
    pub fn delete_topic(&self, _name: &str) -> Result<()> {
        not_built()
    }

    /// The topic of this name.
    pub fn topic(&self, _name: &str) -> Result<Topic> {
        not_built()
    }

    /// The topic of this number.
    pub fn topic_by_id(&self, _id: TopicId) -> Result<Topic> {
        not_built()
    }

    /// All topics by name.
    pub fn topics(&self) -> Vec<Topic> {
        Vec::new()
    }

    /// Durable end offset of each partition: one after its last record.
    pub fn partition_ends(&self, _id: TopicId) -> Result<Vec<Offset>> {
        not_built()
    }

    /// Position after the last durable record of a topic; 0 for an empty one.
    pub fn topic_end(&self, _id: TopicId) -> Result<Position> {
        not_built()
    }

    /// Queues a batch; blocks while the queue is full.
    pub fn append(&self, _batch: AppendBatch) -> Result<PendingAck> {
        not_built()
    }

    /// Appends a batch and waits until it is durable.
    pub fn append_wait(&self, batch: AppendBatch) -> Result<Ack> {
        self.append(batch)?.wait()
    }

    /// The position after the last durable record.
    pub fn durable_end(&self) -> Position {
        Position(0)
    }

    /// The append clock.
    pub fn clock(&self) -> ClockReading {
        ClockReading { position: Position(0), append_time: AppendTime::MIN }
    }

    /// Waits until the durable end is beyond `end`, or `timeout_us` have passed; gives the durable end.
    pub fn wait_beyond(&self, _end: Position, _timeout_us: u64) -> Position {
        Position(0)
    }

    /// A reader of these topics, from a position on.
    pub fn reader(&self, _topics: &[TopicId], from: Position) -> Reader {
        Reader::new(from)
    }

    /// Finds the place to read a topic from.
    pub fn seek(&self, _topic: TopicId, _to: SeekTarget) -> Result<Seek> {
        not_built()
    }

    /// The smallest span that holds every record of a topic with `from_ms <= timestamp < to_ms`.
    pub fn seek_range(&self, _topic: TopicId, _from_ms: i64, _to_ms: i64) -> Result<SeekRange> {
        not_built()
    }

    /// The current value of a metadata key.
    pub fn meta(&self, _space: MetaSpace, _key: &str) -> Option<Vec<u8>> {
        None
    }

    /// Metadata whose key starts with `prefix`, in order of key.
    pub fn meta_scan(&self, _space: MetaSpace, _prefix: &str) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// Writes what is queued, marks the end as clean and gives the folder back. Dropping the last clone does the same, without an answer.
    pub fn close(self) -> Result<()> {
        Ok(())
    }
}
