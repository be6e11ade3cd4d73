//! Progress of long work: a bar on a terminal, nothing in a pipe.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A bar on stderr that knows its end, or a spinner that does not.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `total` of `None` is a spinner. Hidden unless stderr is a terminal.
    pub(super) fn new(what: &str, total: Option<u64>, unit: &str) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        if !std::io::stderr().is_terminal() {
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
        Progress(bar)
    }

    pub(super) fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Shows a message above the bar, on stderr.
    pub(super) fn note(&self, message: &str) {
        self.0.suspend(|| super::talk(message));
    }

    /// Runs something that writes to the terminal.
    pub(super) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
