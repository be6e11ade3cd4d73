//! A run of source rows between two clock steps, with the running watermark: what the pipelines of a source see.

use super::operators::Rows;
use super::output::Cause;
use super::source::SourceRows;
use arrow::buffer::ScalarBuffer;

/// Rows `from..from + before.len()` of some source rows.
pub(super) struct Segment<'a> {
    pub rows: &'a SourceRows,
    /// First row.
    pub from: usize,
    /// The watermark before each row, never falling.
    pub before: &'a ScalarBuffer<i64>,
    /// The watermark after the last row.
    pub after: i64,
    /// The source.
    pub source: usize,
    /// Its topic.
    pub topic: &'a str,
}

impl Segment<'_> {
    /// The rows at the start of a pipeline.
    pub fn to_rows(&self) -> Rows {
        let count = self.before.len();
        Rows {
            batch: self.rows.batch.slice(self.from, count),
            origin: (0u32..).take(count).collect(),
            rejected: Vec::new(),
            null_rowtime: 0,
        }
    }

    /// The row of the chunk that a row of the segment is.
    pub fn chunk_row(&self, row: u32) -> usize {
        self.rows.rows[self.from + row as usize] as usize
    }

    /// What happens because of a row.
    pub fn cause(&self, row: u32) -> Cause {
        let row = self.chunk_row(row);
        Cause::record(self.rows.chunk.append_us.at(row), self.rows.chunk.positions.at(row))
    }

    /// The row that brings the watermark to `goal`, which lies after the watermark before the segment and not after the last, and the
    /// watermark before that row.
    pub fn reached(&self, goal: i64) -> (Cause, i64) {
        let row = self.before.partition_point(|before| *before < goal).saturating_sub(1);
        let cause = self.cause(u32::try_from(row).expect("a batch has fewer than 4 billion rows"));
        (cause, self.before.get(row).copied().unwrap_or(self.after))
    }

    /// Append time of a row in us.
    pub fn append_us(&self, row: usize) -> i64 {
        self.rows.chunk.append_us.at(self.rows.rows[self.from + row] as usize)
    }

    /// Positions of rows.
    pub fn positions(&self, rows: &[u32]) -> Vec<u64> {
        rows.iter().map(|row| self.rows.chunk.positions[self.chunk_row(*row)]).collect()
    }

    /// Timestamp of a record in ms.
    pub fn record_timestamp(&self, row: u32) -> Option<i64> {
        let row = self.chunk_row(row);
        let timestamps = &self.rows.chunk.timestamps;
        arrow::array::Array::is_valid(timestamps, row).then(|| timestamps.value(row))
    }
}
