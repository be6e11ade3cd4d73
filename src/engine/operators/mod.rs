//! The operators, one file each.
//!
//! A window operator takes rows in the order of the log, each with the watermark before it, and keeps what windows need until the
//! watermark closes them. It says itself what comes out and why: [`Fired`] holds result rows with what caused them. How rows are
//! cut into calls must not show: a row may be taken alone or together with the next ten thousand.

pub(super) mod assign;
pub(super) mod filter_project;
mod keyed_state;
pub(super) mod window_count;
pub(super) mod window_rank;
pub(super) mod window_session;
pub(super) mod window_slices;

use super::output::{Cause, Firing};
use crate::error::{Error, Result};
use crate::state::accumulator::AggregateSpec;
use crate::state::cold::ColdTables;
use crate::state::keys::{KeyCodec, KeyRows};
use crate::state::saving::{Relay, Step};
use crate::state::section::{Keyed, Section};
use crate::state::slice::Arguments;
use crate::state::spill::Spill;
use crate::types::AppendTime;
use crate::window::Window;
use crate::window::clock::WindowClock;
use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};
use std::sync::Arc;

/// Rows on their way through a pipeline.
pub(super) struct Rows {
    /// The columns.
    pub batch: RecordBatch,
    /// For each row the row of the segment, or of what fired, that it comes from; those of a segment never fall.
    pub origin: Vec<u32>,
    /// Rows of the segment that could not be evaluated, with the reason.
    pub rejected: Vec<(u32, String)>,
    /// Rows dropped because their rowtime is NULL.
    pub null_rowtime: u64,
}

/// What a window operator is made from.
#[derive(Clone)]
pub(super) struct WindowSpec {
    /// Encodes group keys.
    pub codec: KeyCodec,
    /// Columns of the group key.
    pub key_fields: Vec<Field>,
    /// The aggregates.
    pub aggregates: Vec<AggregateSpec>,
    /// What tells their states apart.
    pub names: Vec<String>,
    /// When windows are complete.
    pub clock: WindowClock,
    /// A window takes rows, and is emitted again for each, until the watermark is so far behind its goal.
    pub lateness_ms: i64,
    /// Changed windows are emitted when told to ([`WindowOperator::tick`]).
    pub early: bool,
}

impl WindowSpec {
    /// Keys with what an operator keeps for them, `own`, and the accumulators.
    pub fn table(&self, own: &[Field]) -> Result<Keyed> {
        Keyed::new(&self.codec, &self.key_fields, own, &self.named())
    }

    /// Tables of what they hold on disk.
    pub fn cold_tables(&self) -> Result<ColdTables> {
        ColdTables::new(&self.codec, &self.key_fields, &self.named())
    }

    fn named(&self) -> Vec<(String, AggregateSpec)> {
        self.names.iter().cloned().zip(self.aggregates.iter().cloned()).collect()
    }

    /// Whether a window can be emitted more than once.
    pub fn refires(&self) -> bool {
        self.early || self.lateness_ms > 0
    }

    /// Windows with this end or an earlier one are beyond their allowed lateness.
    pub fn expired(&self, watermark: i64) -> i64 {
        self.clock.horizon(watermark.saturating_sub(self.lateness_ms))
    }
}

/// Rows on their way into a window operator.
pub(super) struct WindowRows {
    /// Event time in ms of each row.
    pub rowtimes: ScalarBuffer<i64>,
    /// The same in the time that windows are cut by.
    pub times: ScalarBuffer<i64>,
    /// The watermark before each row, never falling.
    pub before: ScalarBuffer<i64>,
    /// The window of each row, if rows bring theirs.
    pub windows: Vec<Window>,
    /// Group key of each row.
    pub keys: KeyRows,
    /// Aggregate arguments of each row.
    pub arguments: Arguments,
    /// What rows to be ranked are.
    pub ranked: Option<window_rank::Ranked>,
}

/// Why things happen while rows are taken or windows closed.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    /// The cause that a row is.
    pub of_row: &'a (dyn Fn(u32) -> Cause + Sync),
    /// What brought the watermark to a goal, and the watermark before it.
    pub reached: &'a (dyn Fn(i64) -> (Cause, i64) + Sync),
}

/// What came out of a window operator, in output order of each cause.
#[derive(Default)]
pub(super) struct Fired {
    /// Of each row.
    pub causes: Vec<Cause>,
    /// Of each row: the watermark before its cause.
    pub before: Vec<i64>,
    /// Of each row.
    pub windows: Vec<Window>,
    /// Of each row: the which-th result of its window and key this is.
    pub firings: Vec<Firing>,
    /// Pieces of the result columns: keys and aggregates, or the whole row for operators that hand rows on.
    pub pieces: Vec<Vec<ArrayRef>>,
    /// Windows that closed (a session is one window of one key).
    pub closed: u64,
    /// Rows that were late for all their windows.
    pub late: Vec<u32>,
    /// Rows that were late for some of their windows.
    pub partly_late: Vec<u32>,
    /// Count of rows between windows that do not touch.
    pub between: u64,
    /// A window of theirs does not fit into 64 bits.
    pub beyond_time: Vec<u32>,
}

impl Fired {
    /// Adds rows of one window with one cause.
    pub fn window(
        &mut self,
        window: Window,
        (cause, before): (Cause, i64),
        firings: &[Firing],
        columns: Vec<ArrayRef>,
    ) {
        let rows = self.windows.len() + firings.len();
        self.causes.resize(rows, cause);
        self.before.resize(rows, before);
        self.windows.resize(rows, window);
        self.firings.extend_from_slice(firings);
        self.pieces.push(columns);
    }

    /// Adds rows, each with its window and its cause.
    pub fn rows(&mut self, rows: impl Iterator<Item = (Window, (Cause, i64), Firing)>, columns: Vec<ArrayRef>) {
        for (window, (cause, before), firing) in rows {
            self.causes.push(cause);
            self.before.push(before);
            self.windows.push(window);
            self.firings.push(firing);
        }
        self.pieces.push(columns);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }
}

/// A grouped window aggregation, or another operator whose rows wait for their windows.
pub(super) trait WindowOperator: Send + Sync {
    /// Takes some rows, ascending. What has to come out before or because of one of them comes out here.
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()>;
    /// Emits windows that close at `watermark`, next ones first; true if there may be more of them.
    fn close(&mut self, watermark: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool>;
    /// Emits what has changed since it was emitted last.
    fn tick(&mut self, _by: (Cause, i64), _fired: &mut Fired) -> Result<()> {
        Ok(())
    }
    /// Whether a tick would emit something.
    fn has_changed(&self) -> bool {
        false
    }
    /// Emits what is due by the append clock, each at its time, with this watermark.
    fn time_out(&mut self, _clock: AppendTime, _watermark: i64, _fired: &mut Fired) -> Result<()> {
        Ok(())
    }
    /// When something is due by the append clock.
    fn next_due(&self) -> Option<AppendTime> {
        None
    }
    /// Emits everything that is still open: the input has ended.
    fn finish(&mut self, watermark: i64, fired: &mut Fired) -> Result<bool> {
        let course = Course { of_row: &|_| Cause::END, reached: &|_| (Cause::END, watermark) };
        self.close(i64::MAX, &course, fired)
    }
    /// A watermark before which nothing closes; `None`: no window is open.
    fn next_goal(&self) -> Option<i64>;
    /// The windows that a row belongs to if nothing is late, by end.
    fn windows_of(&self, rows: &WindowRows, row: usize) -> Vec<Window>;
    /// Bytes of state held in memory, roughly: counted, not walked.
    fn byte_len(&self) -> usize;
    /// Writes state out until so many bytes less are held, if at least `least` bytes of it can be. What cannot be stays.
    fn spill(&mut self, _spill: &Arc<Spill>, _bytes: usize, _least: usize) -> Result<()> {
        Ok(())
    }
    /// Its state as it is now. What it holds for a key stands in a table that begins with the key's columns; its rows come through `relay`
    /// before they change, or by [`save_next`](Self::save_next).
    fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>>;
    /// Gives the next rows of what is being saved, if fewer than `ahead` pieces wait to be written.
    fn save_next(&mut self, ahead: usize) -> Step;
    /// Takes some rows of one of its sections. An operator that has loaded all of them, in whatever order and parts, goes on as the one
    /// that saved them; one that has loaded those of some keys, as if there had been no others.
    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()>;
}

/// A column of windows' bounds.
pub(super) fn time_field(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false)
}

/// Its values.
pub(super) fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values))
}

/// Whether a section of an operator's state, by its name, holds accumulators behind the columns of the key and its own.
pub(super) fn has_accumulators(section: &str) -> bool {
    matches!(section.split('/').next(), Some("slice" | "sessions" | "open"))
}

pub(super) fn no_section(name: &str) -> Error {
    Error::damage(format!("saved state has a section {name} that does not belong to its step"))
}

pub(super) fn arrow_error(what: &str, error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("{what}: {error}")).with_source(error)
}
