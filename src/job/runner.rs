//! A run on a thread of its own, which rests as soon as it is told to or somebody wants to work with what it runs.

use super::{Job, Observer, Request, run_claimed};
use crate::engine::Engine;
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Claim, Log};
use crate::types::Position;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The owner's side.
pub(super) struct Runner {
    /// Whether it has come to its end.
    thread: JoinHandle<Result<bool>>,
    shared: Arc<Shared>,
}

/// What a thread and its owner tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Everything before this position has been processed.
    idle_at: AtomicU64,
    notes: Mutex<Vec<String>>,
}

/// The thread's side.
struct Inside {
    log: Log,
    shared: Arc<Shared>,
    claim: Arc<Claim>,
    end_seen: Position,
}

impl Observer for Inside {
    fn on_idle(&mut self, _: &Engine) {
        // What was there when it last rested has been read since.
        self.shared.idle_at.store(self.end_seen.0, Ordering::Release);
        self.end_seen = self.log.durable_end();
    }

    fn on_note(&mut self, note: &str) {
        self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note.to_owned());
    }

    fn should_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire) || self.claim.is_wanted()
    }
}

impl Runner {
    /// Runs the job that is claimed, on a thread of a class.
    pub fn start(log: &Log, job: Job, request: Request, class: Class, claim: Claim) -> Result<Runner> {
        let (shared, claim) = (Arc::new(Shared::default()), Arc::new(claim));
        let mut inside =
            Inside { log: log.clone(), shared: Arc::clone(&shared), claim: Arc::clone(&claim), end_seen: Position(0) };
        let name = format!("kappa-{}", job.key());
        let work = move || {
            thread::enter(class);
            let log = inside.log.clone();
            run_claimed(&log, &job, &request, &claim, &mut inside).map(|report| report.progress.is_final)
        };
        let thread = thread::spawn(&name, work)
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?;
        Ok(Runner { thread, shared })
    }

    /// Tells it to rest.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// What it wants the user to know since the last call.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True once its thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// True if it has processed everything before a position.
    pub fn has_read(&self, end: Position) -> bool {
        self.shared.idle_at.load(Ordering::Acquire) >= end.0
    }

    /// Waits for its end. True: it has come to its own, and did not only rest; else why it failed.
    pub fn join(self) -> Result<bool, String> {
        match self.thread.join() {
            Ok(ended) => ended.map_err(|error| reason(&error)),
            Err(_) => Err("it panicked: this is a bug".to_owned()),
        }
    }
}

/// Why a run ended, in one line.
pub(super) fn reason(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}
