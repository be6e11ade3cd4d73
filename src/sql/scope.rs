//! What a query can name: visible columns, where they are, and what they stand for.

use super::expr::Typed;
use crate::engine::plan::Zone;
use arrow::datatypes::DataType;
use sqlparser::tokenizer::Span;

/// Index of the first placeholder for a window column: resolved when the window step is placed.
pub(super) const WINDOW_BASE: usize = 1 << 24;
/// Index of the first placeholder for an aggregate's result.
pub(super) const AGGREGATE_BASE: usize = 1 << 25;
/// Index of the placeholder for the number of a row in its window.
pub(super) const NUMBER: usize = 1 << 26;

/// Which of the columns that a window adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowColumn {
    /// `window_start`.
    Start,
    /// `window_end`.
    End,
    /// `window_time`.
    Time,
    /// `window_reason` of count windows.
    Reason,
}

impl WindowColumn {
    /// What the column stands for in rows that have it; `proctime` says which clock the windows follow.
    pub fn role(self, proctime: bool) -> Role {
        match self {
            WindowColumn::Start => Role::WindowStart,
            WindowColumn::End => Role::WindowEnd,
            WindowColumn::Time if proctime => Role::Proctime,
            WindowColumn::Time => Role::Rowtime,
            WindowColumn::Reason => Role::Plain,
        }
    }
}

/// Where a visible column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// A column of the physical row.
    Row(usize),
    /// A window column that does not exist yet.
    Window(WindowColumn),
    /// The number of a row in its window, not bounded yet.
    Number,
}

impl Slot {
    /// The index that expressions use; a placeholder for what does not exist yet.
    pub fn index(self) -> usize {
        match self {
            Slot::Row(index) => index,
            Slot::Window(column) => WINDOW_BASE + column as usize,
            Slot::Number => NUMBER,
        }
    }
}

/// What a column stands for, as long as it is passed on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A value.
    Plain,
    /// The event time; behind a window its `window_time`.
    Rowtime,
    /// The append time as `PROCTIME()`; behind a window its `window_time`.
    Proctime,
    /// What was one of these before the row was put into windows.
    FormerTime,
    /// The start of the window that the row is in.
    WindowStart,
    /// Its end.
    WindowEnd,
}

impl Role {
    /// The window column that this is, in rows that are in a window.
    pub fn window_column(self) -> Option<WindowColumn> {
        match self {
            Role::Plain | Role::FormerTime => None,
            Role::Rowtime | Role::Proctime => Some(WindowColumn::Time),
            Role::WindowStart => Some(WindowColumn::Start),
            Role::WindowEnd => Some(WindowColumn::End),
        }
    }
}

/// A column that a query can name.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Table name or alias.
    pub qualifier: Option<String>,
    /// Name.
    pub name: String,
    /// Type.
    pub data_type: DataType,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Where it is.
    pub slot: Slot,
    /// What it stands for.
    pub role: Role,
    /// Where it was defined, for errors.
    pub span: Span,
}

impl Column {
    /// The column as an expression.
    pub fn typed(&self) -> Typed {
        Typed::column(&self.name, self.slot.index(), self.data_type.clone(), self.nullable)
    }
}

/// What expressions can refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'s> {
    /// Visible columns.
    pub columns: &'s [Column],
    /// Row column that holds the append time of the record, if the row is still one record.
    pub append_time: Option<usize>,
    /// The session's time zone; `None`: UTC.
    pub zone: Option<Zone>,
}
