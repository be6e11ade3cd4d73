//! What a log does by itself in the background, one task after the other on one thread, so that it can be done by hand too.

use crate::env::thread::{Class, enter};
use crate::error::{ErrorKind, Result};
use crate::log::history::{rewrite, seal};
use crate::log::scrub;
use crate::log::shared::Shared;
use crate::log::snapshot::task as snapshot;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A task does one bounded piece of work; true if there may be more.
type Task = fn(&Arc<Shared>) -> Result<bool>;

/// In order of urgency.
const TASKS: &[(&str, Task)] = &[
    ("keeping the ballast", crate::log::space::step),
    ("sealing journal files into history", seal::step),
    ("removing history files", rewrite::let_go_step),
    ("retention", crate::log::retention::step),
    ("forgetting producers", crate::log::admin::step),
    ("writing a metadata snapshot", snapshot::write_step),
    ("removing a journal file", snapshot::remove_step),
    ("merging history files", rewrite::merge_step),
    ("checking a sealed file", scrub::step),
];

/// How long the thread rests when there is nothing to do, unless it is woken.
const REST: Duration = Duration::from_millis(50);

/// Works until the log is to be closed or has failed. A step that has begun is finished: commands that last for less than a step would else
/// begin it over and over, and never get anywhere.
pub(crate) fn run(shared: &Arc<Shared>) {
    enter(Class::Background);
    while !ended(shared) {
        let mut more = false;
        for (name, task) in TASKS {
            match task(shared) {
                Ok(did) => more |= did,
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => shared.trouble(format!("{name}: {error}")),
            }
        }
        if !more {
            let queue = shared.queue();
            if !queue.ending {
                drop(shared.for_keeper.wait_timeout(queue, REST).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
    seal_backlog(shared);
}

/// Commands that end before this thread has had a turn would leave ever more files behind.
fn seal_backlog(shared: &Arc<Shared>) {
    let failed = shared.queue().failed.is_some();
    if !failed && shared.sealer.unsealed_files() >= seal::STEP_FILES as u64 {
        // It is tried again by whoever opens the log next, who is told if it fails then.
        let _ = seal::step(shared);
    }
}

fn ended(shared: &Shared) -> bool {
    let queue = shared.queue();
    queue.ending || queue.failed.is_some()
}

/// Runs all tasks until none has anything to do.
pub(crate) fn keep(shared: &Arc<Shared>) -> Result<()> {
    loop {
        let mut more = false;
        for (_, task) in TASKS {
            more |= task(shared)?;
        }
        if !more {
            return Ok(());
        }
    }
}
