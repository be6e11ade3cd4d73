//! What a job has seen and written so far, in numbers.

/// Running counts of an [`Engine`](super::Engine). All of them only grow, and none depends on how batches were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read, once per source that reads them.
    pub rows_in: u64,
    /// Records written to a late stream: they entered no window of their pipeline.
    pub late: u64,
    /// Records that came too late for some of their windows and entered the others.
    pub partly_late: u64,
    /// Records (or window results) written to a rejected stream, once per output.
    pub rejected: u64,
    /// Records that did not decode and were skipped because the table says so (`ignore-parse-errors`).
    pub ignored_parse_errors: u64,
    /// Records without a rowtime: rejected by the source, or dropped by a window table function.
    pub null_rowtime: u64,
    /// Records more than `max-future` ahead of their append time: they did not move the watermark.
    pub beyond_max_future: u64,
    /// Windows that closed and were emitted.
    pub windows_closed: u64,
    /// Records written to the main stream, by output.
    pub rows_out: Vec<u64>,
}

impl Counters {
    /// Adds the counts of another part of the same job.
    pub(super) fn add(&mut self, other: &Counters) {
        self.rows_in += other.rows_in;
        self.late += other.late;
        self.partly_late += other.partly_late;
        self.rejected += other.rejected;
        self.ignored_parse_errors += other.ignored_parse_errors;
        self.null_rowtime += other.null_rowtime;
        self.beyond_max_future += other.beyond_max_future;
        self.windows_closed += other.windows_closed;
        self.rows_out.resize(self.rows_out.len().max(other.rows_out.len()), 0);
        for (sum, count) in self.rows_out.iter_mut().zip(&other.rows_out) {
            *sum += count;
        }
    }
}
