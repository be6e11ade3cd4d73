//! The operators, one file each.

pub(super) mod assign;
pub(super) mod filter_project;
pub(super) mod window_session;
pub(super) mod window_slices;

use super::output::Cause;
use crate::error::{Error, Result};
use crate::state::accumulator::AggregateSpec;
use crate::state::keys::{KeyCodec, KeyRows};
use crate::state::partial::Arguments;
use crate::window::Window;
use arrow::array::{ArrayRef, RecordBatch};

/// Rows on their way through a pipeline.
pub(super) struct Rows {
    /// The columns.
    pub batch: RecordBatch,
    /// For each row the row of the segment that it comes from, never falling.
    pub origin: Vec<u32>,
    /// Rows of the segment that could not be evaluated, with the reason.
    pub rejected: Vec<(u32, String)>,
    /// Rows dropped because their rowtime is NULL.
    pub null_rowtime: u64,
}

/// What a window operator is made from.
pub(super) struct WindowSpec {
    /// Encodes group keys.
    pub codec: KeyCodec,
    /// The aggregates.
    pub aggregates: Vec<AggregateSpec>,
}

/// Rows on their way into a window operator.
pub(super) struct WindowRows {
    /// Event time in ms of each row.
    pub rowtimes: Vec<i64>,
    /// The watermark before each row, never falling.
    pub before: Vec<i64>,
    /// Group key of each row.
    pub keys: KeyRows,
    /// Aggregate arguments of each row.
    pub arguments: Arguments,
}

/// Rows that entered no window.
#[derive(Default)]
pub(super) struct Missed {
    /// Late for all their windows.
    pub late: Vec<u32>,
    /// Count of rows late for some of their windows.
    pub partly_late: u64,
    /// A window of theirs does not fit into 64 bits.
    pub beyond_time: Vec<u32>,
}

/// How far a window operator took its rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of them.
    All,
    /// Up to this row, which goes on with state that windows closed by `watermark` must not see.
    CloseFirst {
        /// Row to go on with.
        row: usize,
        /// Close windows up to here before.
        watermark: i64,
    },
}

/// Windows that closed, in output order, as columns.
#[derive(Default)]
pub(super) struct Closed {
    /// Of each row.
    pub causes: Vec<Cause>,
    /// Of each row.
    pub windows: Vec<Window>,
    /// Pieces of the group key columns.
    pub keys: Vec<Vec<ArrayRef>>,
    /// Pieces of the aggregate columns, parallel to `keys`.
    pub results: Vec<Vec<ArrayRef>>,
    /// Windows (a session is one window of one key).
    pub count: u64,
}

/// What is the cause of the watermark reaching a goal.
pub(super) type CauseOf<'a> = &'a dyn Fn(i64) -> Cause;

/// A grouped window aggregation.
pub(super) trait WindowOperator: Send + Sync {
    /// Takes rows in position order, starting with row `from`.
    fn take(&mut self, rows: &WindowRows, from: usize, missed: &mut Missed) -> Result<Taken>;
    /// Adds windows that close at `watermark` to `closed`, next ones first; true if there may be more of them.
    fn close(&mut self, watermark: i64, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<bool>;
    /// A watermark before which nothing closes; `None`: no window is open.
    fn next_goal(&self) -> Option<i64>;
    /// The windows that a time belongs to if nothing is late, by end.
    fn windows_of(&self, time: i64) -> Vec<Window>;
    /// Bytes of state held, roughly.
    fn byte_len(&self) -> usize;
}

fn arrow_error(what: &str, error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("{what}: {error}")).with_source(error)
}
