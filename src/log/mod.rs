//! The log: one journal shared by all topics and partitions, one order, one writer.
//!
//! [`Log`] is the facade. Below it: [`frame`] is the format; `journal` the files; `shared` what the threads share; `queue` what waits; `encoder` and `writer`
//! the way in, a thread each; `producers` who sent what, so that nothing is in twice; `space` room on the disk; `reopen` the way on after a failed sync; `scan`, `recovery` and `open` the way back after a crash (facts, decisions, acts);
//! `index`, [`Reader`] and `seek` the way out; [`catalog`] the metadata; `keeper` what goes on in the background; `claims` who works on what.

mod admin;
mod append;
mod blank;
pub mod catalog;
mod claims;
pub mod columns;
mod consumer;
mod encoder;
pub mod frame;
pub mod history;
mod index;
pub mod inspect;
mod journal;
mod keeper;
mod mutant;
pub mod numbers;
mod open;
mod options;
mod pending;
mod pieces;
mod producer;
mod producers;
mod queue;
mod range;
mod reader;
pub mod records;
mod recovery;
mod reopen;
mod repair;
mod repeat;
mod report;
mod retention;
mod scan;
mod scrub;
mod seek;
mod shared;
mod snapshot;
mod space;
mod spare;
pub mod topic;
mod trim;
mod waiting;
mod writer;

pub use admin::GroupOffset;
pub use append::{Ack, AppendBatch, PartitionAck, ProducerBatch, TopicAck};
pub use catalog::{MetaRecord, MetaSpace};
pub use claims::Claim;
pub use consumer::{ConsumedRecord, Consumer};
pub use frame::Codec;
pub use history::{RebuildProgress, SealingStatus, TimeStretch};
#[doc(hidden)]
pub use mutant::Mutant;
pub use options::{Durability, LogOptions, ProducerLimits, ViewKind};
pub use pending::PendingAck;
pub use producer::{PartitionFn, Partitioner, Producer, ProducerOptions};
pub use producers::{ProducerId, ProducerInfo};
pub use range::{RangeBatch, RangeReader};
pub use reader::Reader;
pub use report::{Damage, DamageKind, LostOffsets, RecoveryReport, TornTail};
pub use retention::ClockHold;
pub use scrub::ScrubStatus;
pub use seek::{Cut, Seek, SeekRange, SeekTarget};
pub use topic::{Topic, TopicChange, TopicConfig};
pub use trim::Trim;

use crate::env::{Env, LockError, LockGuard};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Counter;
use crate::time::append_clock::AppendClock;
use crate::types::{AppendTime, Offset, PartitionId, Position, TopicId};
use encoder::Encoder;
use shared::{Queue, Shared, State};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use writer::Writer;

/// What the append clock says: every record from `position` on has an append time of at least `append_time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The durable end of the log when asked.
    pub position: Position,
    /// Now, or the append time of the oldest frame that is not yet durable.
    pub append_time: AppendTime,
}

/// The log of one data folder. Clones share it; usable from many threads.
///
/// ```
/// use kappa::env::Env;
/// use kappa::log::records::{Partitioning, Record, RecordColumns};
/// use kappa::log::{AppendBatch, Consumer, Log, LogOptions, SeekTarget, TopicChange, TopicConfig};
/// use kappa::types::Position;
///
/// # fn main() -> kappa::Result<()> {
/// let (env, _sim) = Env::sim(1); // Env::os() for the real disk
/// let log = Log::open(&env, "/data".as_ref(), LogOptions::default())?;
/// let flights = log.create_topic("flights", TopicConfig::default())?;
/// log.alter_topic("flights", &[TopicChange::RetentionUs(Some(7 * 86_400_000_000))])?;
///
/// let mut rows = RecordColumns::default();
/// for ms in [1_000, 3_000, 2_000] {
///     let record = Record { timestamp_ms: Some(ms), key: None, value: Some(b"{}"), headers: &[] };
///     rows.push(Partitioning::ByKey, &record);
/// }
/// let ack = log.append_wait(AppendBatch::records(flights.id(), rows))?;
/// assert_eq!((ack.topics[0].first_position, ack.end), (Position(0), Position(3)));
///
/// let mut consumer = Consumer::new(&log, &flights, Some("readers"))?;
/// consumer.seek(SeekTarget::TimestampMs(2_000))?;
/// assert_eq!(consumer.poll(10)?.len(), 2);
/// consumer.commit()?;
/// assert_eq!(log.group_offsets("readers")?[0].offset.0, 3);
///
/// log.reset_group("readers", &flights, SeekTarget::Earliest)?;
/// log.trim(flights.id(), Position(1))?;
/// assert_eq!(log.partition_starts(flights.id())?[0].0, 1);
/// log.delete_topic("flights")?;
/// log.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    report: RecoveryReport,
    /// Topics are created and deleted one at a time.
    naming: Mutex<()>,
    claims: Arc<claims::Claims>,
    deciding: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

const LOCK_FILE: &str = "LOCK";

/// Folder of what nobody needs after the process that wrote it.
const SCRATCH_DIR: &str = "spill";

/// Removes what an earlier process has left. If that cannot be, it is in nobody's way.
fn remove_scratch(env: &Env, dir: &Path) {
    let scratch = dir.join(SCRATCH_DIR);
    if env.disk.exists(&scratch).unwrap_or(false) {
        env.disk.remove_dir_all(&scratch).ok();
    }
}

/// True if a log was not opened because another process has its folder.
pub(crate) fn is_in_use(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<InUse>())
}

/// The process that has the folder.
#[derive(Debug, thiserror::Error)]
#[error("process {0}")]
struct InUse(String);

fn take_lock(env: &Env, dir: &Path) -> Result<Box<dyn LockGuard>> {
    let path = dir.join(LOCK_FILE);
    env.disk.lock(&path, &format!("{}\n", std::process::id())).map_err(|error| match error {
        LockError::Held(holder) => {
            let message = format!("{} is in use by process {holder}", dir.display());
            let hint = "one process owns a data folder; stop the other one, or let it run commands: `up`, `run` and `consume --follow` do";
            Error::new(ErrorKind::Unavailable, message).with_hint(hint).with_source(InUse(holder))
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
        let space = space::Space::new(env, dir, options.disk_floor_bytes, options.ballast_bytes)?;
        let lock = take_lock(env, dir)?;
        remove_scratch(env, dir);
        let opened = open::open(env, dir, &options)?;
        let newest = opened.index.last_file().ok_or_else(|| Error::internal("a log without files"))?;
        let go_on = opened.place.go_on;
        let floor = if options.has(Mutant::NoClockFloor) { AppendTime::MIN } else { go_on.clock };
        let state = State {
            clock: AppendClock::new(floor, env.clock.monotonic_us()),
            in_flight: std::collections::VecDeque::new(),
            durable_end: go_on.position,
            place: opened.place,
            producers: opened.producers,
            wakers: Vec::new(),
            ends: opened.ends,
            view: opened.view,
        };
        let journal = dir.join(open::JOURNAL_DIR);
        let spares = spare::Spares::new(env, &journal, options.file_bytes)?;
        let snapshots = snapshot::task::Progress::new(opened.place.log_id, &*state.view, &opened.index);
        let shared = Arc::new(Shared {
            env: env.clone(),
            space,
            data: dir.to_owned(),
            journal,
            written: Mutex::new((0, 0)),
            spares,
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
            for_keeper: Condvar::new(),
            trimming: Mutex::new(()),
            learned: Mutex::default(),
            clocks: Mutex::default(),
            sealer: opened.sealer,
            troubles: Mutex::new(Vec::new()),
            snapshots: Mutex::new(snapshots),
            scrub: Mutex::new(scrub::Scrub::new(env.clock.monotonic_us())),
        });
        let log = Log {
            inner: Arc::new(Inner {
                shared,
                report: opened.report,
                naming: Mutex::new(()),
                claims: Arc::default(),
                deciding: Mutex::new(()),
                threads: Mutex::new(Vec::new()),
                keeper: Mutex::new(None),
                lock: Mutex::new(Some(lock)),
            }),
        };
        log.inner.start_all(newest, opened.footer, opened.place)?;
        Ok(log)
    }

    /// What opening found and did.
    pub fn report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// Does what the log's background thread would do now, until there is nothing left to do. For a log opened without one.
    pub fn keep(&self) -> Result<()> {
        keeper::keep(&self.inner.shared)
    }

    /// Reads everything and gives all damage that was not accepted as lost; see [`accept_loss`](Self::accept_loss).
    pub fn find_damage(&self) -> Result<Vec<Damage>> {
        repair::find(&self.inner.shared, &self.inner.report.damage)
    }

    /// Gives up what is damaged: reads everything, writes one frame that names all damage found, and gives it. Readers pass
    /// it from then on without an error. Nothing is deleted.
    pub fn accept_loss(&self) -> Result<Vec<Damage>> {
        let damage = self.find_damage()?;
        repair::accept(&self.inner.shared, &damage)?;
        Ok(damage)
    }

    /// How far checking the sealed journal files in the background is.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.inner.shared.scrub.lock().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// What went wrong in the background since the last call: the log goes on, the user should know.
    pub fn take_troubles(&self) -> Vec<String> {
        std::mem::take(&mut *self.inner.shared.troubles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far sealing is: what is not in history yet, and how long appends were slowed for it.
    pub fn sealing_status(&self) -> SealingStatus {
        let files = |index: &index::Index| {
            let files = index.history.files();
            files.fold((0, 0), |(files, bytes), entry| (files + 1, bytes + entry.record().bytes))
        };
        let (history_files, history_bytes) = self.inner.shared.index(files);
        SealingStatus { history_files, history_bytes, ..self.inner.shared.sealer.status() }
    }

    /// Writes the history files of a topic again whose decoded columns are not those that are declared for it now; the bytes of
    /// the values are what columns are made of and stay as they are. Can be interrupted, by `progress` as well: what was done stays done.
    ///
    /// [`ErrorKind::Damage`]: files that cannot be read as a whole were left as they are, all others were rebuilt.
    pub fn rebuild_topic(
        &self,
        topic: TopicId,
        mut progress: impl FnMut(RebuildProgress) -> ControlFlow<()>,
    ) -> Result<()> {
        history::rewrite::rebuild(&self.inner.shared, topic, &mut progress)
    }

    /// How many history files [`rebuild_topic`](Self::rebuild_topic) would write again that hold records of a topic at or behind a position.
    pub fn outdated_files(&self, topic: TopicId, from: Position) -> Result<usize> {
        history::rewrite::outdated_files(&self.inner.shared, topic, from)
    }

    /// A folder for files that nobody needs after this process; made by who needs it, removed when the log is opened.
    pub fn scratch_dir(&self) -> PathBuf {
        self.dir().join(SCRATCH_DIR)
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
        let records = self.inner.shared.topics(|topics| topics.deletion(name))?;
        self.inner.shared.append(AppendBatch::meta(records), true)?.wait().map(|_| ())
    }

    /// Changes settings of a topic; the topic as it is then. [`ErrorKind::NotFound`]; [`ErrorKind::Input`] if a setting makes no
    /// sense.
    pub fn alter_topic(&self, name: &str, changes: &[TopicChange]) -> Result<Topic> {
        let _one = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.inner.shared.topics(|topics| topics.alteration(name, changes))?;
        self.inner.shared.append(AppendBatch::meta(vec![record]), true)?.wait()?;
        self.topic(name)
    }

    /// Removes a topic's records before a position, at once and durably; a position beyond the end is the end. `None` if there
    /// were none. Batches that a reader has in hand stay; a reader whose next record is gone gets [`ErrorKind::Gone`].
    pub fn trim(&self, topic: TopicId, before: Position) -> Result<Option<Trim>> {
        let trims = trim::trim(&self.inner.shared, &[(topic, before)])?;
        Ok(trims.into_iter().next().map(|(_, trim)| trim))
    }

    /// Why retention waits, if the wall clock has jumped and nobody has confirmed it since.
    pub fn clock_hold(&self) -> Result<Option<ClockHold>> {
        retention::held(&self.inner.shared)
    }

    /// Says that the wall clock is right, after it has jumped: retention goes on.
    pub fn confirm_clock(&self) -> Result<()> {
        retention::confirm(&self.inner.shared)
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

    /// The first offset that is left in each partition.
    pub fn partition_starts(&self, id: TopicId) -> Result<Vec<Offset>> {
        let (topic, trim) =
            self.inner.shared.topics(|topics| topics.by_id(id).map(|topic| (topic, topics.trim_of(id))))?;
        let first = |partition| trim.as_ref().map_or(Offset(0), |trim| trim.first_offset(PartitionId(partition)));
        Ok((0..topic.partitions()).map(first).collect())
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

    /// The data folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.inner.shared.data
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

    /// A reader of a few of a topic's records, those at these positions, ascending: whatever is around them is passed over where it can be.
    pub fn reader_of(&self, topic: TopicId, positions: &[u64]) -> Reader {
        Reader::only(self.inner.shared.clone(), topic, positions)
    }

    /// What is known of the times that a topic's history holds in a declared column (its place in `columns.declared`), stretch
    /// by stretch in order of position. Records behind the last stretch are in the journal.
    pub fn time_stretches(&self, topic: TopicId, columns: &records::ValueColumns, declared: usize) -> Vec<TimeStretch> {
        history::stretches(&self.inner.shared, topic, columns, declared)
    }

    /// Finds the place to read a topic from. [`ErrorKind::Gone`]: that record was removed.
    pub fn seek(&self, topic: TopicId, to: SeekTarget) -> Result<Seek> {
        seek::seek(&self.inner.shared, &self.topic_by_id(topic)?, to)
    }

    /// The smallest span that holds every record of a topic with `from_ms <= timestamp < to_ms`.
    pub fn seek_range(&self, topic: TopicId, from_ms: i64, to_ms: i64) -> Result<SeekRange> {
        seek::seek_range(&self.inner.shared, &self.topic_by_id(topic)?, from_ms, to_ms)
    }

    /// Reads exactly the records of a topic with `from_ms <= timestamp < to_ms`.
    pub fn read_range(&self, topic: TopicId, from_ms: i64, to_ms: i64) -> Result<RangeReader> {
        Ok(RangeReader::new(&self.inner.shared, &self.topic_by_id(topic)?, from_ms, to_ms))
    }

    /// One offset for each partition of a topic, all at the place that a seek finds; `None` if there is no such record.
    pub fn cut(&self, topic: TopicId, to: SeekTarget) -> Result<Option<Cut>> {
        seek::cut(&self.inner.shared, &self.topic_by_id(topic)?, to)
    }

    /// For each partition of a topic the smallest offset from which on no record has a timestamp below `before_ms`; records
    /// beyond append time + `max_future` and records without a timestamp do not count. Reading each partition from
    /// [`cut`](Log::cut) at `TimestampMs(t)` up to here gives every record with `t <= timestamp < before_ms`.
    pub fn partition_ends_before(&self, topic: TopicId, before_ms: i64) -> Result<Vec<Offset>> {
        seek::ends_before(&self.inner.shared, &self.topic_by_id(topic)?, before_ms)
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
    /// Starts the threads of a log that goes on at `place` in its newest file.
    fn start_all(
        &self,
        newest: Arc<journal::JournalFile>,
        footer: frame::footer::FooterBuilder,
        place: encoder::Place,
    ) -> Result<()> {
        let writer = Writer::new(self.shared.clone(), newest, footer, place)?;
        let encoder = Encoder::new(self.shared.clone(), place);
        self.start("log-writer", move || writer.run())?;
        self.start("log-encoder", move || encoder.run())?;
        if self.shared.options.background {
            let shared = self.shared.clone();
            let keeper = started("log-keeper", move || keeper::run(&shared))?;
            *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
        Ok(())
    }

    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = started(name, work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// The data folder.
    fn dir(&self) -> &Path {
        self.shared.journal.parent().unwrap_or(&self.shared.journal)
    }

    /// Waits until the threads are done.
    fn join(&self) {
        self.join_keeper();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        threads.into_iter().for_each(|thread| self.join_one(thread));
    }

    fn join_keeper(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        keeper.into_iter().for_each(|thread| self.join_one(thread));
    }

    fn join_one(&self, thread: JoinHandle<()>) {
        if thread.join().is_err() {
            self.shared.fail("a thread of the log panicked: this is a bug");
        }
    }

    fn stop(&self) {
        self.shared.queue().ending = true;
        self.shared.wake_all();
        self.join_keeper();
        self.shared.queue().closing = true;
        self.shared.wake_all();
        self.join();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn started(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    crate::env::thread::spawn(name, work)
        .map_err(|cause| Error::new(ErrorKind::Unavailable, format!("starting a thread of the log: {cause}")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
