//! What the threads of a log share.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::{AppendBatch, Request};
use crate::log::catalog::CatalogView;
use crate::log::encoder::{Issue, Place};
use crate::log::history::Sealer;
use crate::log::index::Index;
use crate::log::options::LogOptions;
use crate::log::pending::PendingAck;
use crate::log::producers::ProducerTable;
use crate::log::queue::Waiting;
use crate::log::retention::Clocks;
use crate::log::seek::Learned;
use crate::log::space::{ROOM_HINT, Space};
use crate::log::spare::Spares;
use crate::log::topic::Topics;
use crate::metrics::Counter;
use crate::time::append_clock::AppendClock;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;
use std::time::Duration;

fn unwritten(message: &str) -> String {
    format!("not written: an earlier write failed: {message}")
}

/// From `append` to the encoder to the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub waiting: Waiting,
    pub bytes: usize,
    /// Encoded, waiting for the writer.
    pub issue: Option<Issue>,
    /// The writer is at work.
    pub writing: bool,
    /// What was encoded behind this place was not written: the encoder has to go back to it.
    pub rewind: Option<Place>,
    /// Tasks that wait for room.
    pub wakers: Vec<Waker>,
    /// Memory for the encoder to write into: that of the last group.
    pub spare: Option<Vec<u8>>,
    /// The background finishes what it is at and begins nothing more.
    pub ending: bool,
    pub closing: bool,
    /// The encoder will hand over nothing more.
    pub encoder_done: bool,
    /// Why nothing more is written until the log is opened again.
    pub failed: Option<String>,
}

/// What is durable, and the clock.
pub(crate) struct State {
    pub clock: AppendClock,
    /// Frames stamped and not yet durable, oldest first.
    pub in_flight: VecDeque<(FrameSeq, AppendTime)>,
    pub durable_end: Position,
    /// Where the durable part of the journal ends.
    pub place: Place,
    /// Producers that number their records, up to the durable end.
    pub producers: ProducerTable,
    /// Tasks that wait for the durable end to move.
    pub wakers: Vec<Waker>,
    pub ends: BTreeMap<(TopicId, PartitionId), Offset>,
    pub view: Box<dyn CatalogView>,
}

/// What the threads of a log share. Locks are taken one at a time.
pub(crate) struct Shared {
    pub env: Env,
    pub space: Space,
    /// The data folder.
    pub data: PathBuf,
    /// The folder of the journal files.
    pub journal: PathBuf,
    /// The file that is written, and how far. What stands behind that in it is not of this life.
    pub written: Mutex<(u64, u64)>,
    /// Files for its next ones.
    pub spares: Spares,
    pub options: LogOptions,
    pub queue: Mutex<Queue>,
    /// Something for the encoder to do.
    pub for_encoder: Condvar,
    /// Something for the writer to do.
    pub for_writer: Condvar,
    /// Room in the queue.
    pub room: Condvar,
    pub state: Mutex<State>,
    /// The durable end moved.
    pub advanced: Condvar,
    pub index: RwLock<Index>,
    pub topics: RwLock<Topics>,
    /// How often the journal was made durable.
    pub syncs: Counter,
    /// Something for the keeper to do.
    pub for_keeper: Condvar,
    /// Topics are trimmed one at a time.
    pub trimming: Mutex<()>,
    /// What seeks have learned by reading.
    pub learned: Mutex<Learned>,
    /// What retention has seen of the clocks.
    pub clocks: Mutex<Clocks>,
    /// The work on history.
    pub sealer: Sealer,
    /// What went wrong in the background, for the user.
    pub troubles: Mutex<Vec<String>>,
    /// Where writing snapshots and removing journal files is.
    pub snapshots: Mutex<crate::log::snapshot::task::Progress>,
    /// Where checking sealed files is.
    pub scrub: Mutex<crate::log::scrub::Scrub>,
}

impl Shared {
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn topics<T>(&self, look: impl FnOnce(&Topics) -> T) -> T {
        look(&self.topics.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers something that the user should know of; the same thing once.
    pub fn trouble(&self, what: String) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < 100 && !troubles.contains(&what) {
            troubles.push(what);
        }
    }

    /// Reads the append clock; to be called with the state locked.
    pub fn read_clock(&self, state: &mut State) -> AppendTime {
        state.clock.read(self.env.clock.wall_us(), self.env.clock.monotonic_us())
    }

    /// Queues a batch; `by_log` allows metadata of the log's own.
    pub fn append(&self, batch: AppendBatch, by_log: bool) -> Result<PendingAck> {
        let request = self.request(batch, by_log)?;
        if !by_log {
            self.let_sealing_follow(request.bytes as u64);
        }
        let mut queue = self.queue();
        loop {
            self.check_open(&queue)?;
            if self.has_room(&queue, request.bytes) {
                return Ok(self.enqueue(queue, request));
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Checks a batch and that there is room on the disk.
    pub fn request(&self, batch: AppendBatch, by_log: bool) -> Result<Request> {
        let topic_of = |id| self.topics(|topics| topics.by_id(id));
        // What the log itself has to say must not fail for its size.
        let bytes_max = if by_log { usize::MAX } else { self.options.request_bytes_max };
        let request = Request::new(batch, bytes_max, by_log, topic_of)?;
        if request.has_records() {
            self.space.admit(&self.env, request.bytes)?;
        }
        if let Some(floor) = request.clock_floor {
            // A savepoint brings the time of another log.
            self.state().clock.at_least(floor, self.env.clock.monotonic_us());
        }
        Ok(request)
    }

    /// [`ErrorKind::Unavailable`] after a failure, [`ErrorKind::Closed`] when closed.
    pub fn check_open(&self, queue: &Queue) -> Result<()> {
        if let Some(message) = &queue.failed {
            let message = format!("the log takes no records: {message}");
            return Err(Error::new(ErrorKind::Unavailable, message).with_hint("reopen the log, or open it again"));
        }
        if queue.closing {
            return Err(Error::new(ErrorKind::Closed, "the log was closed"));
        }
        Ok(())
    }

    /// One request always fits into an empty queue.
    pub fn has_room(&self, queue: &Queue, bytes: usize) -> bool {
        queue.bytes == 0 || queue.bytes + bytes <= self.options.queue_bytes
    }

    /// Puts a request behind those that wait.
    pub fn enqueue(&self, mut queue: MutexGuard<'_, Queue>, request: Request) -> PendingAck {
        queue.bytes += request.bytes;
        let ack = queue.waiting.add(request);
        // While an issue waits for the writer, it is the writer that wakes the encoder.
        let wake = queue.issue.is_none();
        drop(queue);
        if wake {
            self.for_encoder.notify_one();
        }
        ack
    }

    /// Wakes those who wait for room in the queue.
    pub fn room_now(&self, mut queue: MutexGuard<'_, Queue>) {
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        self.room.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Hands an encoded group to the writer, unless what is before it was not written.
    pub fn hand_over(&self, issue: Issue) {
        let mut queue = self.queue();
        if queue.failed.is_none() && queue.rewind.is_none() {
            queue.issue = Some(issue);
            drop(queue);
            self.for_writer.notify_one();
            return;
        }
        let (message, hint) = match &queue.failed {
            Some(message) => (unwritten(message), None),
            None => ("not written: the disk is full".to_owned(), Some(ROOM_HINT)),
        };
        queue.bytes = queue.bytes.saturating_sub(issue.queued_bytes);
        self.room_now(queue);
        issue.waiters.into_iter().for_each(|(waiters, _)| waiters.failed(ErrorKind::Unavailable, &message, hint));
    }

    /// Waits a little if too many full journal files wait to be sealed. Where nobody seals, or by hand, waiting would not help.
    fn let_sealing_follow(&self, bytes: u64) {
        if !self.options.background || !self.options.history {
            return;
        }
        let wait_us = self.sealer.slow(bytes, self.options.unsealed_bytes_max);
        if wait_us > 0 {
            self.trouble("sealing cannot follow: appends are slowed until it can".to_owned());
            self.env.clock.sleep_us(wait_us);
        }
    }

    /// Nothing more is written until the log is opened again: what was not issued fails as not written.
    pub fn fail(&self, message: &str) {
        let (groups, issue) = {
            let mut queue = self.queue();
            queue.failed.get_or_insert_with(|| message.to_owned());
            queue.bytes = 0;
            (queue.waiting.take_all(), queue.issue.take())
        };
        let unwritten = unwritten(message);
        let queued = groups.map(|open| open.waiters);
        let issued = issue.into_iter().flat_map(|issue| issue.waiters).map(|(waiters, _)| waiters);
        for waiters in queued.chain(issued) {
            waiters.failed(ErrorKind::Unavailable, &unwritten, None);
        }
        self.wake_all();
    }

    /// Wakes everybody who waits for a change of the queue or of the durable end.
    pub fn wake_all(&self) {
        self.for_encoder.notify_all();
        self.for_writer.notify_all();
        self.room_now(self.queue());
        self.for_keeper.notify_all();
        let wakers = std::mem::take(&mut self.state().wakers);
        self.advanced.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the durable end is beyond `end`.
    pub fn wait_beyond(&self, end: Position, timeout_us: u64) -> Position {
        let state = self.state();
        let waiting = |state: &mut State| state.durable_end <= end;
        let (state, _) = self
            .advanced
            .wait_timeout_while(state, Duration::from_micros(timeout_us), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state.durable_end
    }
}
