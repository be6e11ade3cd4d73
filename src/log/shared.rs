//! What the threads of a log share.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::{AppendBatch, PendingAck, Request, Waiters};
use crate::log::catalog::CatalogView;
use crate::log::index::Index;
use crate::log::options::LogOptions;
use crate::log::topic::Topics;
use crate::log::writer::Issue;
use crate::metrics::Counter;
use crate::time::append_clock::AppendClock;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Requests that wait and will be synced together.
pub(crate) struct OpenGroup {
    pub waiters: Waiters,
    pub requests: Vec<Request>,
    pub bytes: usize,
}

/// A group takes requests up to about this many bytes.
const GROUP_BYTES: usize = 8 << 20;

/// From `append` to the encoder to the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub groups: VecDeque<OpenGroup>,
    pub bytes: usize,
    /// Encoded, waiting for the writer.
    pub issue: Option<Issue>,
    /// The writer is at work.
    pub writing: bool,
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
    pub ends: BTreeMap<(TopicId, PartitionId), Offset>,
    pub view: Box<dyn CatalogView>,
}

/// What the threads of a log share. Locks are taken one at a time.
pub(crate) struct Shared {
    pub env: Env,
    /// The folder of the journal files.
    pub journal: PathBuf,
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

    /// Reads the append clock; to be called with the state locked.
    pub fn read_clock(&self, state: &mut State) -> AppendTime {
        state.clock.read(self.env.clock.wall_us(), self.env.clock.monotonic_us())
    }

    /// Queues a batch; `by_log` allows metadata of the log's own.
    pub fn append(&self, batch: AppendBatch, by_log: bool) -> Result<PendingAck> {
        let topic_of = |id| self.topics(|topics| topics.by_id(id));
        let request = Request::new(batch, self.options.request_bytes_max, by_log, topic_of)?;
        let mut queue = self.queue();
        loop {
            if let Some(message) = &queue.failed {
                let message = format!("the log takes no records: {message}");
                return Err(Error::new(ErrorKind::Unavailable, message).with_hint("open the log again"));
            }
            if queue.closing {
                return Err(Error::new(ErrorKind::Closed, "the log was closed"));
            }
            // One request always fits into an empty queue.
            if queue.bytes == 0 || queue.bytes + request.bytes <= self.options.queue_bytes {
                break;
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += request.bytes;
        let open = queue.groups.back().is_some_and(|open| open.bytes + request.bytes <= GROUP_BYTES);
        if !open {
            queue.groups.push_back(OpenGroup { waiters: Waiters::new(), requests: Vec::new(), bytes: 0 });
        }
        let open = queue.groups.back_mut().expect("a group was just made sure of");
        open.bytes += request.bytes;
        let ack = open.waiters.add(open.requests.len());
        open.requests.push(request);
        // While an issue waits for the writer, it is the writer that wakes the encoder.
        let wake = queue.issue.is_none();
        drop(queue);
        if wake {
            self.for_encoder.notify_one();
        }
        Ok(ack)
    }

    /// Nothing more is written until the log is opened again: what was not issued fails as not written.
    pub fn fail(&self, message: &str) {
        let (groups, issue) = {
            let mut queue = self.queue();
            queue.failed.get_or_insert_with(|| message.to_owned());
            queue.bytes = 0;
            (std::mem::take(&mut queue.groups), queue.issue.take())
        };
        let unwritten = format!("not written: an earlier write failed: {message}");
        let queued = groups.into_iter().map(|open| open.waiters);
        for waiters in queued.chain(issue.and_then(|issue| issue.waiters)) {
            waiters.failed(ErrorKind::Unavailable, &unwritten);
        }
        self.wake_all();
        self.advanced.notify_all();
    }

    /// Wakes everybody who waits for a change of the queue.
    pub fn wake_all(&self) {
        self.for_encoder.notify_all();
        self.for_writer.notify_all();
        self.room.notify_all();
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
