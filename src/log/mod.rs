//! The log: one journal shared by all topics and partitions, one order, one writer.
//!
//! [`Log`] is the facade. Below it: [`frame`] is the format; `journal` the files; `shared` what the threads share; `writer` the
//! way in (encoder and writer threads); `scan`, `recovery` and `open` the way back after a crash (facts, decisions, acts);
//! `index`, [`Reader`] and `seek` the way out; [`catalog`] the metadata.

mod append;
pub mod catalog;
mod consumer;
pub mod frame;
mod index;
pub mod inspect;
mod journal;
mod open;
mod options;
mod producer;
mod reader;
pub mod records;
mod recovery;
mod report;
mod scan;
mod seek;
mod shared;
pub mod topic;
mod writer;

pub use append::{Ack, AppendBatch, PartitionAck, PendingAck, TopicAck};
pub use catalog::{MetaRecord, MetaSpace};
pub use consumer::{ConsumedRecord, Consumer};
pub use frame::Codec;
pub use options::{LogOptions, ViewKind};
pub use producer::{Producer, ProducerOptions};
pub use reader::Reader;
pub use report::{Damage, DamageKind, LostOffsets, RecoveryReport, TornTail};
pub use seek::{Seek, SeekRange, SeekTarget};
pub use topic::{Topic, TopicConfig};

use crate::env::{Env, LockError, LockGuard};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Counter;
use crate::time::append_clock::AppendClock;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use shared::{Queue, Shared, State};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use writer::{Encoder, Writer};

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
    shared: Arc<Shared>,
    report: RecoveryReport,
    /// Topics are created and deleted one at a time.
    naming: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

const LOCK_FILE: &str = "LOCK";

fn take_lock(env: &Env, dir: &Path) -> Result<Box<dyn LockGuard>> {
    let path = dir.join(LOCK_FILE);
    env.disk.lock(&path, &format!("{}\n", std::process::id())).map_err(|error| match error {
        LockError::Held(holder) => {
            let message = format!("{} is in use by process {holder}", dir.display());
            Error::new(ErrorKind::Unavailable, message).with_hint("one process owns a data folder; stop the other one")
        }
        LockError::Io(cause) => Error::io("locking", &path, cause),
    })
}

impl Log {
    /// Opens the log in `dir`, creating the folder if missing, and recovers what a crash left.
    ///
    /// [`ErrorKind::Unavailable`] if another process has it (the message names it) or the disk refuses;
    /// [`ErrorKind::Damage`] if the newest file is damaged so much that nobody can say where the log ends;
    /// [`ErrorKind::Input`] if the options make no sense or another version of Kappa wrote the files.
    pub fn open(env: &Env, dir: &Path, options: LogOptions) -> Result<Log> {
        options.check()?;
        crate::env::create_dir_durably(&*env.disk, dir).map_err(|cause| Error::io("creating", dir, cause))?;
        let lock = take_lock(env, dir)?;
        let opened = open::open(env, dir, &options)?;
        let newest = opened.index.last_file().ok_or_else(|| Error::internal("a log without files"))?;
        let go_on = opened.place.go_on;
        let state = State {
            clock: AppendClock::new(go_on.clock, env.clock.monotonic_us()),
            in_flight: std::collections::VecDeque::new(),
            durable_end: go_on.position,
            ends: opened.ends,
            view: opened.view,
        };
        let shared = Arc::new(Shared {
            env: env.clone(),
            journal: dir.join(open::JOURNAL_DIR),
            options,
            queue: Mutex::new(Queue::default()),
            for_encoder: Condvar::new(),
            for_writer: Condvar::new(),
            room: Condvar::new(),
            state: Mutex::new(state),
            advanced: Condvar::new(),
            index: RwLock::new(opened.index),
            topics: RwLock::new(opened.topics),
            syncs: Counter::new(),
        });
        let encoder = Encoder::new(shared.clone(), opened.place);
        let writer = Writer::new(shared.clone(), newest, FrameSeq(go_on.seq.0 - 1))?;
        let log = Log {
            inner: Arc::new(Inner {
                shared,
                report: opened.report,
                naming: Mutex::new(()),
                threads: Mutex::new(Vec::new()),
                lock: Mutex::new(Some(lock)),
            }),
        };
        log.inner.start("log-writer", move || writer.run())?;
        log.inner.start("log-encoder", move || encoder.run())?;
        Ok(log)
    }

    /// What opening found and did.
    pub fn report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// The surroundings the log was opened with.
    pub fn env(&self) -> &Env {
        &self.inner.shared.env
    }

    /// Creates a topic; names that end like a job's outputs are refused. [`ErrorKind::Conflict`] if it exists.
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        if crate::types::is_reserved_output_name(name) {
            let message = format!("topic {name}: the endings .late, .rejected and .vN belong to the outputs of jobs");
            return Err(Error::input(message));
        }
        self.create_output_topic(name, config)
    }

    /// Creates a topic whose name may end like a job's output. [`ErrorKind::Conflict`] if it exists.
    pub fn create_output_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        let _one = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.inner.shared.topics(|topics| topics.creation(name, &config))?;
        self.inner.shared.append(AppendBatch::meta(vec![record]), true)?.wait()?;
        self.topic(name)
    }

    /// Deletes a topic. Its records can no longer be reached; a new topic of that name starts empty.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let _one = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.inner.shared.topics(|topics| topics.deletion(name))?;
        self.inner.shared.append(AppendBatch::meta(vec![record]), true)?.wait().map(|_| ())
    }

    /// The topic of this name; [`ErrorKind::NotFound`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        self.inner.shared.topics(|topics| topics.by_name(name))
    }

    /// The topic of this number; [`ErrorKind::NotFound`].
    pub fn topic_by_id(&self, id: TopicId) -> Result<Topic> {
        self.inner.shared.topics(|topics| topics.by_id(id))
    }

    /// All topics by name.
    pub fn topics(&self) -> Vec<Topic> {
        self.inner.shared.topics(topic::Topics::all)
    }

    /// Durable end offset of each partition: one after its last record.
    pub fn partition_ends(&self, id: TopicId) -> Result<Vec<Offset>> {
        let topic = self.topic_by_id(id)?;
        let state = self.inner.shared.state();
        let end = |partition| state.ends.get(&(id, PartitionId(partition))).copied().unwrap_or_default();
        Ok((0..topic.partitions()).map(end).collect())
    }

    /// Queues a batch; blocks while the queue is full. Batches queued one after the other by one thread keep their order within
    /// each topic. The topics of batches that are merged into one frame lie one behind the other in it, and have one append
    /// time.
    ///
    /// [`ErrorKind::Input`]: too large, or columns of different lengths; [`ErrorKind::NotFound`]: topic or partition;
    /// [`ErrorKind::Unavailable`]: an earlier write failed; [`ErrorKind::Closed`].
    pub fn append(&self, batch: AppendBatch) -> Result<PendingAck> {
        self.inner.shared.append(batch, false)
    }

    /// Appends a batch and waits until it is durable.
    pub fn append_wait(&self, batch: AppendBatch) -> Result<Ack> {
        self.append(batch)?.wait()
    }

    /// The position after the last durable record.
    pub fn durable_end(&self) -> Position {
        self.inner.shared.state().durable_end
    }

    /// The append clock.
    pub fn clock(&self) -> ClockReading {
        let mut state = self.inner.shared.state();
        let in_flight = state.in_flight.front().map(|(_, append_time)| *append_time);
        let append_time = match in_flight {
            Some(oldest) => oldest,
            None => self.inner.shared.read_clock(&mut state),
        };
        ClockReading { position: state.durable_end, append_time }
    }

    /// How often this process has synced the journal so far: one sync serves everybody who waits.
    pub fn syncs(&self) -> u64 {
        self.inner.shared.syncs.get()
    }

    /// Waits until the durable end is beyond `end`, or `timeout_us` have passed; gives the durable end.
    pub fn wait_beyond(&self, end: Position, timeout_us: u64) -> Position {
        self.inner.shared.wait_beyond(end, timeout_us)
    }

    /// A reader of these topics, from a position on. Topics that do not exist have no records.
    pub fn reader(&self, topics: &[TopicId], from: Position) -> Reader {
        Reader::new(self.inner.shared.clone(), topics, from)
    }

    /// Finds the place to read a topic from.
    pub fn seek(&self, topic: TopicId, to: SeekTarget) -> Result<Seek> {
        seek::seek(&self.inner.shared, &self.topic_by_id(topic)?, to)
    }

    /// The smallest span that holds every record of a topic with `from_ms <= timestamp < to_ms`.
    pub fn seek_range(&self, topic: TopicId, from_ms: i64, to_ms: i64) -> Result<SeekRange> {
        seek::seek_range(&self.inner.shared, &self.topic_by_id(topic)?, from_ms, to_ms)
    }

    /// The current value of a metadata key.
    pub fn meta(&self, space: MetaSpace, key: &str) -> Option<Vec<u8>> {
        self.inner.shared.state().view.get(space, key)
    }

    /// Metadata whose key starts with `prefix`, in order of key.
    pub fn meta_scan(&self, space: MetaSpace, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.inner.shared.state().view.scan(space, prefix)
    }

    /// Writes what is queued, marks the end as clean and gives the folder back. Clones of this log answer
    /// [`ErrorKind::Closed`] to appends from then on; they can still read. Dropping the last clone does the same, without an
    /// answer.
    pub fn close(self) -> Result<()> {
        self.inner.stop();
        match &self.inner.shared.queue().failed {
            None => Ok(()),
            Some(message) => Err(Error::new(ErrorKind::Unavailable, format!("the log did not end cleanly: {message}"))),
        }
    }
}

impl Inner {
    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = crate::env::thread::spawn(name, work)
            .map_err(|cause| Error::new(ErrorKind::Unavailable, format!("starting a thread of the log: {cause}")))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn stop(&self) {
        self.shared.queue().closing = true;
        self.shared.wake_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                self.shared.fail("a thread of the log panicked: this is a bug");
            }
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
