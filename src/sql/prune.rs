//! Leaves out the columns that nothing reads, from a pipeline's end back to its source.

use super::expr::{columns_of, remap};
use crate::engine::plan::{NamedExpr, RankPlan, Step, WindowKind, WindowPlan};
use crate::error::{Error, Result};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Columns that are read before each step, and at the end.
#[derive(Debug)]
pub(super) struct Needs(Vec<BTreeSet<usize>>);

/// Steps, and the place of each old column in the last row.
pub(super) type Pruned = (Vec<Step>, BTreeMap<usize, usize>);

impl Needs {
    /// Works out what the steps read; all `width` columns of the last row are needed.
    pub fn of(steps: &[Step], width: usize) -> Needs {
        let mut needs: Vec<BTreeSet<usize>> = vec![(0..width).collect()];
        for step in steps.iter().rev() {
            let now = needs[needs.len() - 1].clone();
            needs.push(needs_before(step, now));
        }
        needs.reverse();
        Needs(needs)
    }

    /// Columns of the source row that are read.
    pub fn source(&self) -> &BTreeSet<usize> {
        &self.0[0]
    }

    /// The steps with only what is needed. `places` says where the source's columns are now, `row` what the source's row is.
    /// Gives the place of each column of the last row, too.
    pub fn apply(&self, steps: &[Step], mut places: BTreeMap<usize, usize>, mut row: Vec<FieldRef>) -> Result<Pruned> {
        let mut pruned = Vec::new();
        for (step, needed) in steps.iter().zip(&self.0[1..]) {
            pruned.push(apply_one(step, needed, &mut places, &mut row)?);
        }
        Ok((pruned, places))
    }
}

/// What is read before a step of which `after` is read.
fn needs_before(step: &Step, mut after: BTreeSet<usize>) -> BTreeSet<usize> {
    match step {
        Step::Filter(condition) => after.extend(columns_of(condition)),
        Step::Project { columns, .. } => {
            after = after.iter().filter_map(|index| columns.get(*index)).flat_map(|c| columns_of(&c.expr)).collect();
        }
        Step::AssignWindows { rowtime, schema, .. } => {
            let width = schema.fields().len() - 3;
            after.retain(|index| *index < width);
            after.insert(*rowtime);
        }
        Step::Aggregate(window) => after = window_needs(window),
        Step::Rank(rank) => {
            let width = rank.schema.fields().len() - usize::from(rank.number);
            after.retain(|index| *index < width);
            after.extend([rank.window_start, rank.window_end]);
            let exprs = rank.partition.iter().map(|key| &key.expr).chain(rank.order.iter().map(|order| &order.expr));
            after.extend(exprs.flat_map(columns_of));
        }
    }
    after
}

/// The step over what is left of the row before it, of whose result `needed` is read.
fn apply_one(
    step: &Step,
    needed: &BTreeSet<usize>,
    places: &mut BTreeMap<usize, usize>,
    row: &mut Vec<FieldRef>,
) -> Result<Step> {
    Ok(match step {
        Step::Filter(condition) => Step::Filter(moved(condition, places)?),
        Step::Project { columns, .. } => {
            let (kept, now) = kept_columns(columns, needed, places)?;
            *row = kept.iter().map(|column| Arc::clone(&column.field)).collect();
            *places = now;
            Step::Project { columns: kept, schema: schema_of(row) }
        }
        Step::AssignWindows { kind, rowtime, zone, schema } => {
            let rowtime = place(places, *rowtime)?;
            append(&schema.fields()[schema.fields().len() - 3..], schema.fields().len() - 3, places, row);
            Step::AssignWindows { kind: *kind, rowtime, zone: *zone, schema: schema_of(row) }
        }
        Step::Aggregate(window) => {
            let window = moved_window(window, places)?;
            *row = window.schema.fields().to_vec();
            *places = (0..row.len()).map(|index| (index, index)).collect();
            Step::Aggregate(window)
        }
        Step::Rank(rank) => {
            let mut rank = moved_rank(rank, places)?;
            rank.number &= needed.contains(&(rank.schema.fields().len() - 1));
            if let (true, [others @ .., number]) = (rank.number, &rank.schema.fields()[..]) {
                append(std::slice::from_ref(number), others.len(), places, row);
            }
            rank.schema = schema_of(row);
            Step::Rank(rank)
        }
    })
}

fn schema_of(row: &[FieldRef]) -> SchemaRef {
    Arc::new(Schema::new(row.to_vec()))
}

/// Columns that a step puts behind the row, whose places were from `first` on.
fn append(fields: &[FieldRef], first: usize, places: &mut BTreeMap<usize, usize>, row: &mut Vec<FieldRef>) {
    for (extra, field) in fields.iter().enumerate() {
        places.insert(first + extra, row.len());
        row.push(Arc::clone(field));
    }
}

fn window_needs(window: &WindowPlan) -> BTreeSet<usize> {
    let mut needs = BTreeSet::from([window.rowtime]);
    if let WindowKind::Attached { start, end } = window.kind {
        needs.extend([start, end]);
    }
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
    if let WindowKind::Attached { start, end } = &mut window.kind {
        (*start, *end) = (place(places, *start)?, place(places, *end)?);
    }
    for key in &mut window.keys {
        key.expr = moved(&key.expr, places)?;
    }
    for call in &mut window.aggregates {
        call.argument = call.argument.as_ref().map(|argument| moved(argument, places)).transpose()?;
        call.filter = call.filter.as_ref().map(|filter| moved(filter, places)).transpose()?;
    }
    Ok(window)
}

fn moved_rank(rank: &RankPlan, places: &BTreeMap<usize, usize>) -> Result<RankPlan> {
    let mut rank = rank.clone();
    rank.window_start = place(places, rank.window_start)?;
    rank.window_end = place(places, rank.window_end)?;
    for key in &mut rank.partition {
        key.expr = moved(&key.expr, places)?;
    }
    for order in &mut rank.order {
        order.expr = moved(&order.expr, places)?;
    }
    Ok(rank)
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
