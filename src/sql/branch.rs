//! A query over one table as steps: what is built while queries are bound.

use super::expr::{Column, Scope, Slot, Typed, WINDOW_BASE, WindowColumn, columns_of, remap};
use super::types;
use crate::engine::plan::{Expr, NamedExpr, Step, WindowKind};
use crate::error::Result;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use sqlparser::tokenizer::Span;
use std::sync::Arc;

/// Windows that were asked for and not used yet: what follows decides between aggregation and assignment.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Windows.
    pub kind: WindowKind,
    /// Row column of the event time.
    pub rowtime: usize,
    /// Row columns of PARTITION BY.
    pub partition: Vec<usize>,
    /// Conditions on window columns (by placeholder).
    pub filters: Vec<Expr>,
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
}

impl Branch {
    /// What expressions can name.
    pub fn scope(&self) -> Scope<'_> {
        Scope { columns: &self.columns, append_time: self.append_time }
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

    /// Replaces the row by these values. The append time, and what waiting windows need, is carried along behind.
    pub fn project(&mut self, items: Vec<(Typed, Column)>) {
        let mut values: Vec<NamedExpr> = Vec::new();
        let mut columns = Vec::new();
        for (typed, mut column) in items {
            if !matches!(column.slot, Slot::Window(_)) {
                column.slot = Slot::Row(values.len());
                values.push(NamedExpr { field: typed.field(&column.name), expr: typed.expr });
            }
            columns.push(column);
        }
        let row = std::mem::take(&mut self.row);
        let mut carry = |index: usize, name: &str| {
            let field = Arc::new(row[index].as_ref().clone().with_name(name));
            let typed = Typed::column(name, index, field.data_type().clone(), field.is_nullable());
            let known = values.iter().position(|value| value.expr.as_ref() == typed.expr.as_ref());
            known.unwrap_or_else(|| {
                values.push(NamedExpr { expr: typed.expr, field });
                values.len() - 1
            })
        };
        self.append_time = self.append_time.map(|index| carry(index, "append_time"));
        if let Some(pending) = &mut self.pending {
            pending.rowtime = carry(pending.rowtime, "rowtime");
            for index in &mut pending.partition {
                *index = carry(*index, "partition");
            }
        }
        self.row = values.iter().map(|value| Arc::clone(&value.field)).collect();
        self.columns = columns;
        let schema = self.schema();
        self.steps.push(Step::Project { columns: values, schema });
    }

    /// Makes waiting windows into columns of the row. Sessions cannot: the caller has refused them.
    pub fn materialize(&mut self) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let count = self.row.len();
        let time = self.row[pending.rowtime].data_type().clone();
        self.row.extend(window_fields(&time));
        let schema = self.schema();
        self.steps.push(Step::AssignWindows { kind: pending.kind, rowtime: pending.rowtime, zone: None, schema });
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
}

/// The three columns that a window adds; `time` is the type of the event time.
pub(super) fn window_fields(time: &arrow::datatypes::DataType) -> [FieldRef; 3] {
    [
        Arc::new(Field::new("window_start", types::timestamp(), false)),
        Arc::new(Field::new("window_end", types::timestamp(), false)),
        Arc::new(Field::new("window_time", time.clone(), false)),
    ]
}

/// The visible columns that a window adds, in the order of [`window_fields`].
pub(super) const WINDOW_COLUMNS: [WindowColumn; 3] = [WindowColumn::Start, WindowColumn::End, WindowColumn::Time];
