//! What a job has seen and written so far, in numbers.

use crate::error::Result;

/// Running counts of an [`Engine`](super::Engine). All of them only grow, and none depends on how batches were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read, once per source that reads them.
    pub rows_in: u64,
    /// Records written to a late stream that entered no window of their pipeline.
    pub late: u64,
    /// Records written to a late stream that came too late for some of their windows and entered the others.
    pub partly_late: u64,
    /// Records (or window results) written to a rejected stream, once per output.
    pub rejected: u64,
    /// Records that did not decode and were skipped because the table says so (`ignore-parse-errors`).
    pub ignored_parse_errors: u64,
    /// Records without a rowtime: rejected by the source, or dropped by a window table function.
    pub null_rowtime: u64,
    /// Records more than `max-future` ahead of their append time: they did not move the watermark.
    pub beyond_max_future: u64,
    /// Rows in no window: they lie between windows that do not touch.
    pub between_windows: u64,
    /// Windows that closed and were emitted.
    pub windows_closed: u64,
    /// Records written to the main stream, by output.
    pub rows_out: Vec<u64>,
}

impl Counters {
    /// The counts that are not kept elsewhere, by name.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("rows_in", self.rows_in),
            ("partly_late", self.partly_late),
            ("ignored_parse_errors", self.ignored_parse_errors),
            ("null_rowtime", self.null_rowtime),
            ("beyond_max_future", self.beyond_max_future),
            ("between_windows", self.between_windows),
            ("windows_closed", self.windows_closed),
        ]
        .into_iter()
    }

    /// From the counts by name.
    pub(super) fn restored(of: &dyn Fn(&str) -> Result<u64>) -> Result<Counters> {
        Ok(Counters {
            rows_in: of("rows_in")?,
            partly_late: of("partly_late")?,
            ignored_parse_errors: of("ignored_parse_errors")?,
            null_rowtime: of("null_rowtime")?,
            beyond_max_future: of("beyond_max_future")?,
            between_windows: of("between_windows")?,
            windows_closed: of("windows_closed")?,
            ..Counters::default()
        })
    }
}
