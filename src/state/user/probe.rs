//! The check that a function gives one answer to one input.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Belongs to one call of a function in a plan. Once told to check, the call is evaluated twice for each input, and the
/// probe keeps the first input that got two answers.
#[derive(Debug, Default)]
pub struct Probe {
    checks: AtomicBool,
    found: Mutex<Option<String>>,
}

impl Probe {
    /// From now on every input is given twice.
    pub fn check(&self) {
        self.checks.store(true, Ordering::Relaxed);
    }

    /// True if every input has to be given twice.
    pub fn checks(&self) -> bool {
        self.checks.load(Ordering::Relaxed)
    }

    /// Keeps what was found, if it is the first.
    pub fn found(&self, what: impl FnOnce() -> String) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(what);
    }

    /// The first input that got two answers, with the answers, as text.
    pub fn finding(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
