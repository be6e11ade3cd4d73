//! Leaves out the columns that nothing reads, from a pipeline's end back to its source.

use super::expr::{columns_of, remap};
use crate::engine::plan::{NamedExpr, Step, WindowPlan};
use crate::error::{Error, Result};
use arrow::datatypes::{FieldRef, Schema};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Columns that the steps and the window read, before each step and at the end.
#[derive(Debug)]
pub(super) struct Needs(Vec<BTreeSet<usize>>);

/// Steps, window, and the place of each old column in the last row.
pub(super) type Pruned = (Vec<Step>, Option<WindowPlan>, BTreeMap<usize, usize>);

impl Needs {
    /// Works out what `before` and `window` read; without a window all columns of the last row are needed.
    pub fn of(before: &[Step], window: Option<&WindowPlan>, width: usize) -> Needs {
        let end = match window {
            None => (0..width).collect(),
            Some(window) => window_needs(window),
        };
        let mut needs = vec![end];
        for step in before.iter().rev() {
            let mut now = needs[needs.len() - 1].clone();
            match step {
                Step::Filter(condition) => now.extend(columns_of(condition)),
                Step::Project { columns, .. } => {
                    let read = now.iter().filter_map(|index| columns.get(*index)).flat_map(|c| columns_of(&c.expr));
                    now = read.collect();
                }
                Step::AssignWindows { rowtime, schema, .. } => {
                    let width = schema.fields().len() - 3;
                    now.retain(|index| *index < width);
                    now.insert(*rowtime);
                }
            }
            needs.push(now);
        }
        needs.reverse();
        Needs(needs)
    }

    /// Columns of the source row that are read.
    pub fn source(&self) -> &BTreeSet<usize> {
        &self.0[0]
    }

    /// The steps and the window with only what is needed. `places` says where the source's columns are now, `row` what
    /// the source's row is. Gives the place of each column of the last row, too.
    pub fn apply(
        &self,
        before: &[Step],
        window: Option<&WindowPlan>,
        mut places: BTreeMap<usize, usize>,
        mut row: Vec<FieldRef>,
    ) -> Result<Pruned> {
        let mut steps = Vec::new();
        for (step, needed) in before.iter().zip(&self.0[1..]) {
            match step {
                Step::Filter(condition) => steps.push(Step::Filter(moved(condition, &places)?)),
                Step::Project { columns, .. } => {
                    let (kept, now) = kept_columns(columns, needed, &places)?;
                    row = kept.iter().map(|column| Arc::clone(&column.field)).collect();
                    places = now;
                    steps.push(Step::Project { columns: kept, schema: Arc::new(Schema::new(row.clone())) });
                }
                Step::AssignWindows { kind, rowtime, schema } => {
                    let old_width = schema.fields().len() - 3;
                    let rowtime = place(&places, *rowtime)?;
                    for extra in 0..3 {
                        places.insert(old_width + extra, row.len());
                        row.push(Arc::clone(&schema.fields()[old_width + extra]));
                    }
                    steps.push(Step::AssignWindows {
                        kind: *kind,
                        rowtime,
                        schema: Arc::new(Schema::new(row.clone())),
                    });
                }
            }
        }
        let window = window.map(|window| moved_window(window, &places)).transpose()?;
        Ok((steps, window, places))
    }
}

fn window_needs(window: &WindowPlan) -> BTreeSet<usize> {
    let mut needs = BTreeSet::from([window.rowtime]);
    for key in &window.keys {
        needs.extend(columns_of(&key.expr));
    }
    for call in &window.aggregates {
        for expr in call.argument.iter().chain(&call.filter) {
            needs.extend(columns_of(expr));
        }
    }
    needs
}

fn kept_columns(
    columns: &[NamedExpr],
    needed: &BTreeSet<usize>,
    places: &BTreeMap<usize, usize>,
) -> Result<(Vec<NamedExpr>, BTreeMap<usize, usize>)> {
    let mut kept = Vec::new();
    let mut now = BTreeMap::new();
    for (index, column) in columns.iter().enumerate().filter(|(index, _)| needed.contains(index)) {
        now.insert(index, kept.len());
        kept.push(NamedExpr { expr: moved(&column.expr, places)?, field: Arc::clone(&column.field) });
    }
    Ok((kept, now))
}

fn moved_window(window: &WindowPlan, places: &BTreeMap<usize, usize>) -> Result<WindowPlan> {
    let mut window = window.clone();
    window.rowtime = place(places, window.rowtime)?;
    for key in &mut window.keys {
        key.expr = moved(&key.expr, places)?;
    }
    for call in &mut window.aggregates {
        call.argument = call.argument.as_ref().map(|argument| moved(argument, places)).transpose()?;
        call.filter = call.filter.as_ref().map(|filter| moved(filter, places)).transpose()?;
    }
    Ok(window)
}

fn place(places: &BTreeMap<usize, usize>, index: usize) -> Result<usize> {
    places.get(&index).copied().ok_or_else(|| Error::internal(format!("column {index} was left out, but is read")))
}

/// The expression over the columns' new places.
pub(super) fn moved(
    expr: &crate::engine::plan::Expr,
    places: &BTreeMap<usize, usize>,
) -> Result<crate::engine::plan::Expr> {
    for index in columns_of(expr) {
        place(places, index)?;
    }
    remap(expr, &|index| places.get(&index).copied().unwrap_or(index))
}
