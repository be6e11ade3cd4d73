//! Progress of long work: a bar on a terminal, nothing in a pipe.

use super::context::{Own, Terminal};
use crate::connect::interrupt::StopFlag;
use crate::engine::Counters;
use crate::error::Result;
use crate::job::{Observer, check_wanted};
use crate::types::Position;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;

/// A bar on stderr that knows its end, or a spinner that does not.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: Arc<dyn Terminal>,
}

impl Progress {
    /// On this process's own terminal.
    pub(super) fn new(what: &str, total: Option<u64>, unit: &str) -> Self {
        Progress::on(Arc::new(Own::default()), what, total, unit)
    }

    /// `total` of `None` is a spinner. Hidden unless stderr is a terminal of this process.
    pub(super) fn on(terminal: Arc<dyn Terminal>, what: &str, total: Option<u64>, unit: &str) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        if !terminal.is_watched() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = match (total, unit) {
            (Some(_), _) => "{msg} {bar:30} {percent:>3} %  {human_pos} {prefix}  {per_sec}  {eta} left",
            (None, "bytes") => "{msg} {spinner} {bytes}  {bytes_per_sec}",
            (None, _) => "{msg} {spinner} {human_pos} {prefix}  {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(unit.to_owned());
        bar.set_message(what.to_owned());
        Progress { bar, terminal }
    }

    pub(super) fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows a message above the bar, on stderr.
    pub(super) fn note(&self, message: &str) {
        self.bar.suspend(|| self.terminal.talk(message));
    }

    /// Runs something that writes to the terminal.
    pub(super) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }
}

/// Shows how far a job is recomputed, and ends it when the user wants.
pub(super) struct Recomputing {
    pub progress: Progress,
    pub stop: StopFlag,
}

impl Recomputing {
    /// What was computed is only whole if nobody stopped it.
    pub(super) fn done(self) -> Result<()> {
        check_wanted(&self)
    }
}

impl Observer for Recomputing {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.progress.at(position.0);
    }

    fn on_note(&mut self, note: &str) {
        self.progress.note(note);
    }

    fn should_stop(&self) -> bool {
        self.stop.is_set()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
