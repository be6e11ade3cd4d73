//! Those who wait for an append, and how they are told: blocking, by looking, or as a future without a runtime.

use crate::error::{Error, ErrorKind, Result};
use crate::log::append::Ack;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How one request of a group ended.
pub(crate) type Answer = Result<Ack>;

/// How a group ended, for everybody who waits for it.
enum Outcome {
    Waiting,
    /// An answer for each request, until it is taken.
    Answered(Vec<Option<Answer>>),
    Failed(ErrorKind, String, Option<&'static str>),
}

struct Ending {
    outcome: Outcome,
    /// Tasks that wait, by place of the request.
    wakers: Vec<(usize, Waker)>,
}

/// Requests that are answered together.
struct Group {
    ending: Mutex<Ending>,
    changed: Condvar,
}

impl Group {
    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, outcome: Outcome) {
        let mut ending = self.ending();
        if !matches!(ending.outcome, Outcome::Waiting) {
            return;
        }
        ending.outcome = outcome;
        let wakers = std::mem::take(&mut ending.wakers);
        drop(ending);
        self.changed.notify_all();
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// The duty to tell those who wait for a group how it ended. If it is dropped without, they are told that nobody knows.
pub(crate) struct Waiters(Arc<Group>);

impl Waiters {
    pub fn new() -> Waiters {
        let ending = Mutex::new(Ending { outcome: Outcome::Waiting, wakers: Vec::new() });
        Waiters(Arc::new(Group { ending, changed: Condvar::new() }))
    }

    pub fn add(&self, slot: usize) -> PendingAck {
        PendingAck { group: self.0.clone(), slot }
    }

    /// An answer for each request, in the order in which they were added.
    pub fn answered(self, answers: Vec<Answer>) {
        self.0.end(Outcome::Answered(answers.into_iter().map(Some).collect()));
    }

    /// The same for all.
    pub fn failed(self, kind: ErrorKind, message: &str, hint: Option<&'static str>) {
        self.0.end(Outcome::Failed(kind, message.to_owned(), hint));
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        let message = "the log stopped before the write was answered".to_owned();
        self.0.end(Outcome::Failed(ErrorKind::Unknown, message, None));
    }
}

/// A batch on its way. Dropping it does not take the batch back.
///
/// It can be waited for in three ways: [`wait`](Self::wait) blocks, [`try_wait`](Self::try_wait) looks, and it is a future
/// that any async runtime can run.
pub struct PendingAck {
    group: Arc<Group>,
    slot: usize,
}

impl PendingAck {
    fn take(&self, outcome: &mut Outcome) -> Option<Result<Ack>> {
        match outcome {
            Outcome::Waiting => None,
            Outcome::Failed(kind, message, hint) => {
                let error = Error::new(*kind, message.clone());
                Some(Err(match hint {
                    Some(hint) => error.with_hint(*hint),
                    None => error,
                }))
            }
            Outcome::Answered(answers) => {
                let answer = answers.get_mut(self.slot).and_then(Option::take);
                Some(answer.unwrap_or_else(|| Err(Error::internal("an acknowledgement was asked for twice"))))
            }
        }
    }

    /// Whether [`wait`](Self::wait) would not have to.
    pub fn is_done(&self) -> bool {
        !matches!(self.group.ending().outcome, Outcome::Waiting)
    }

    /// Waits until the batch is acknowledged.
    ///
    /// [`ErrorKind::Unknown`]: a write or sync failed after it was issued, the batch may or may not be in the log, until the log
    /// is opened again or [reopened](super::Log::reopen).
    /// [`ErrorKind::Unavailable`]: the batch is not in the log; the disk is full or an earlier write failed.
    /// [`ErrorKind::Conflict`]: the batch is numbered and its number does not fit; it is not in the log.
    pub fn wait(self) -> Result<Ack> {
        let mut ending = self.group.ending();
        loop {
            if let Some(result) = self.take(&mut ending.outcome) {
                return result;
            }
            ending = self.group.changed.wait(ending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The outcome if it is known already. To be called until it gives one, not after.
    pub fn try_wait(&mut self) -> Option<Result<Ack>> {
        self.take(&mut self.group.ending().outcome)
    }
}

impl Future for PendingAck {
    type Output = Result<Ack>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Ack>> {
        let mut ending = self.group.ending();
        if let Some(result) = self.take(&mut ending.outcome) {
            return Poll::Ready(result);
        }
        set_waker(&mut ending.wakers, self.slot, context.waker());
        Poll::Pending
    }
}

/// Remembers the task to be woken for `slot`, in the place of the one before.
fn set_waker(wakers: &mut Vec<(usize, Waker)>, slot: usize, waker: &Waker) {
    match wakers.iter_mut().find(|(other, _)| *other == slot) {
        Some((_, known)) => known.clone_from(waker),
        None => wakers.push((slot, waker.clone())),
    }
}
