//! A query over one table as steps: what is built while queries are bound.

use super::expr::{Column, Role, Scope, Slot, Typed, WINDOW_BASE, WindowColumn, columns_of, index_of, remap};
use super::rank::Ranking;
use super::types;
use crate::engine::plan::{Expr, NamedExpr, Step, TimeDomain, WindowKind, Zone};
use crate::error::Result;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use sqlparser::tokenizer::Span;
use std::sync::Arc;

/// What windows are cut by.
#[derive(Debug, Clone)]
pub(super) struct WindowTime {
    /// Type of the time: of `window_time`, too.
    pub data_type: DataType,
    /// Which clock closes the windows.
    pub domain: TimeDomain,
    /// Zone of local days, for TIMESTAMP_LTZ.
    pub zone: Option<Zone>,
}

/// Windows that were asked for and not used yet: what follows decides between aggregation and assignment.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Windows.
    pub kind: WindowKind,
    /// What they are cut by.
    pub time: WindowTime,
    /// Row column of the time.
    pub rowtime: usize,
    /// Row columns of PARTITION BY.
    pub partition: Vec<usize>,
    /// Conditions on window columns (by placeholder).
    pub filters: Vec<Expr>,
    /// Row columns of the window's start, end and time, if rows have them already.
    pub places: Vec<usize>,
    /// Place of the call.
    pub span: Span,
}

/// Rows of one table on their way to an output.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    /// Index of the table in the catalog.
    pub table: usize,
    /// Steps so far.
    pub steps: Vec<Step>,
    /// The physical row now.
    pub row: Vec<FieldRef>,
    /// The visible columns.
    pub columns: Vec<Column>,
    /// Row column of the append time, while a row is one record.
    pub append_time: Option<usize>,
    /// Windows asked for.
    pub pending: Option<Pending>,
    /// The windows that rows are in, once they are.
    pub windows: Option<WindowTime>,
    /// The session's time zone; `None`: UTC.
    pub zone: Option<Zone>,
    /// Numbers asked for, without a bound yet.
    pub ranking: Option<Ranking>,
}

impl Branch {
    /// What expressions can name.
    pub fn scope(&self) -> Scope<'_> {
        Scope { columns: &self.columns, append_time: self.append_time, zone: self.zone }
    }

    /// Whether rows are results of a window.
    pub fn is_aggregated(&self) -> bool {
        self.steps.iter().any(Step::is_stateful)
    }

    /// Schema of the row now.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.row.clone()))
    }

    /// Keeps rows for which the condition holds; one on window columns waits for them.
    pub fn filter(&mut self, condition: Typed) {
        let window = columns_of(&condition.expr).iter().any(|index| *index >= WINDOW_BASE);
        match (&mut self.pending, window) {
            (Some(pending), true) => pending.filters.push(condition.expr),
            _ => self.steps.push(Step::Filter(condition.expr)),
        }
    }

    /// Replaces the row by these values. The append time, and what waiting windows and numbers need, is carried along behind.
    pub fn project(&mut self, items: Vec<(Typed, Column)>) {
        let mut values: Vec<NamedExpr> = Vec::new();
        let mut columns = Vec::new();
        for (typed, mut column) in items {
            if let Slot::Row(_) = column.slot {
                column.slot = Slot::Row(values.len());
                values.push(NamedExpr { field: typed.field(&column.name), expr: typed.expr });
            }
            columns.push(column);
        }
        let row = std::mem::take(&mut self.row);
        let mut carry = |index: usize, name: &str| {
            let typed = Typed::column(name, index, row[index].data_type().clone(), row[index].is_nullable());
            carried(&mut values, typed, name)
        };
        self.append_time = self.append_time.map(|index| carry(index, "append_time"));
        if let Some(pending) = &mut self.pending {
            pending.rowtime = carry(pending.rowtime, "rowtime");
            for index in &mut pending.partition {
                *index = carry(*index, "partition");
            }
        }
        if let Some(ranking) = &mut self.ranking {
            for typed in ranking.values() {
                let (data_type, nullable) = (typed.data_type.clone(), typed.nullable);
                let index = carried(&mut values, typed.clone(), "rank");
                *typed = Typed::column(values[index].field.name(), index, data_type, nullable);
            }
        }
        self.row = values.iter().map(|value| Arc::clone(&value.field)).collect();
        self.columns = columns;
        let schema = self.schema();
        self.steps.push(Step::Project { columns: values, schema });
    }

    /// Makes waiting windows into columns of the row. Sessions and count windows cannot: the caller has refused them.
    pub fn materialize(&mut self) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let count = self.row.len();
        self.row.extend(window_fields(pending.kind, &pending.time.data_type));
        let schema = self.schema();
        let (rowtime, zone) = (pending.rowtime, pending.time.zone);
        self.steps.push(Step::AssignWindows { kind: pending.kind, rowtime, zone, schema });
        self.windows = Some(pending.time);
        for column in &mut self.columns {
            if let Slot::Window(which) = column.slot {
                column.slot = Slot::Row(count + which as usize);
            }
        }
        for filter in pending.filters {
            let filter =
                remap(&filter, &|index| if index >= WINDOW_BASE { count + index - WINDOW_BASE } else { index })?;
            self.steps.push(Step::Filter(filter));
        }
        Ok(())
    }

    /// Asks for the windows that rows are in already; false if there are none or their bounds are not among the columns.
    pub fn attach(&mut self, span: Span) -> bool {
        let place =
            |role: Role| self.columns.iter().find(|column| column.role == role).map(|column| column.slot.index());
        let (start, end) = (place(Role::WindowStart), place(Role::WindowEnd));
        let (Some(time), Some(start), Some(end)) = (self.windows.clone(), start, end) else { return false };
        let mut places = vec![start, end];
        for column in &mut self.columns {
            if let Some(which) = column.role.window_column() {
                if which == WindowColumn::Time {
                    places.insert(2, column.slot.index());
                }
                column.slot = Slot::Window(which);
            }
        }
        let kind = WindowKind::Attached { start, end };
        let (partition, filters) = (Vec::new(), Vec::new());
        self.pending = Some(Pending { kind, time, rowtime: end, partition, filters, places, span });
        true
    }
}

/// The place of a value in a new row, behind which it is put if it is not there.
fn carried(values: &mut Vec<NamedExpr>, typed: Typed, name: &str) -> usize {
    let same = |value: &NamedExpr| match (index_of(&value.expr), index_of(&typed.expr)) {
        (Some(a), Some(b)) => a == b,
        _ => value.expr.as_ref() == typed.expr.as_ref(),
    };
    values.iter().position(same).unwrap_or_else(|| {
        values.push(NamedExpr { field: typed.field(name), expr: typed.expr });
        values.len() - 1
    })
}

/// The columns that a window adds; `time` is the type of its time.
pub(super) fn window_fields(kind: WindowKind, time: &DataType) -> Vec<FieldRef> {
    let mut fields: Vec<FieldRef> = vec![
        Arc::new(Field::new("window_start", types::timestamp(), false)),
        Arc::new(Field::new("window_end", types::timestamp(), false)),
        Arc::new(Field::new("window_time", time.clone(), false)),
    ];
    if let WindowKind::Count { .. } = kind {
        fields.push(Arc::new(Field::new("window_reason", DataType::Utf8, false)));
    }
    fields
}

/// The visible columns that a window adds, in the order of [`window_fields`].
pub(super) const WINDOW_COLUMNS: [WindowColumn; 4] =
    [WindowColumn::Start, WindowColumn::End, WindowColumn::Time, WindowColumn::Reason];
