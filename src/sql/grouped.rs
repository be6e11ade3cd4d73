//! GROUP BY over windows: keys, aggregates, HAVING, and where their results stand.

use super::aggregate::Grouping;
use super::branch::{Branch, Pending, WindowTime, window_fields};
use super::expr::{
    AGGREGATE_BASE, Binder, Column, NUMBER, Slot, Typed, WINDOW_BASE, WindowColumn, columns_of, index_of, remap,
    span_of,
};
use super::query::{Queries, plain_column};
use super::rank::Ranking;
use super::select::Items;
use super::{cast, types};
use crate::engine::plan::{AggregateCall, Expr, NamedExpr, Step, WindowKind, WindowPlan};
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Schema};
use sqlparser::ast::{self, Spanned};
use sqlparser::tokenizer::Span;
use std::sync::Arc;

impl Queries<'_> {
    /// GROUP BY and HAVING over windows.
    pub fn aggregate(&self, select: &ast::Select, mut branch: Branch, grouped: &[ast::Expr]) -> Result<Branch> {
        let at = grouped.first().map_or(select.span(), span_of);
        if branch.pending.is_none() && !branch.attach(at) {
            return Err(self.no_window(&branch, at));
        }
        let Some(pending) = branch.pending.clone() else { return Err(self.no_window(&branch, at)) };
        let (keys, window) = self.keys(&branch, grouped)?;
        let window = self.window_columns(&pending, window, at)?;
        self.partition_keys(&branch, &pending, &keys, at)?;
        let typed: Vec<Typed> = keys.iter().map(|(typed, _)| typed.clone()).collect();
        let mut binder = Binder::new(self.source, branch.scope());
        binder.grouping = Some(Grouping { keys: &typed, window: &window, calls: Vec::new() });
        let Items { values, ranking, mut binder } = self.items(select, binder)?;
        let having = match &select.having {
            Some(having) => {
                let condition = binder.bind(having)?;
                Some(cast::boolean(condition).map_err(|m| self.source.error(span_of(having), m))?)
            }
            None => None,
        };
        let mut calls = binder.grouping.map(|grouping| grouping.calls).unwrap_or_default();
        if calls.iter().any(reads_window) {
            // The windows have to be columns before they can be aggregated.
            if pending.places.is_empty() {
                self.finish(&mut branch)?;
                return self.aggregate(select, branch, grouped);
            }
            let place = |index: usize| index.checked_sub(WINDOW_BASE).and_then(|which| pending.places.get(which));
            for expr in calls.iter_mut().flat_map(|call| call.argument.iter_mut().chain(&mut call.filter)) {
                *expr = remap(expr, &|index| place(index).copied().unwrap_or(index))?;
            }
        }
        let plan = window_plan(&pending, &keys, calls);
        let filters = self.window_filters(&pending, &plan)?;
        place(branch, pending.time, plan, Behind { filters, having, values, ranking })
    }

    /// The window columns that the clauses behind can name.
    fn window_columns(&self, pending: &Pending, mut given: Vec<WindowColumn>, at: Span) -> Result<Vec<WindowColumn>> {
        for (which, name) in [(WindowColumn::Start, "window_start"), (WindowColumn::End, "window_end")] {
            if !given.contains(&which) {
                return Err(self
                    .source
                    .error(at, format!("GROUP BY lacks {name}: groups would never be complete"))
                    .with_hint("GROUP BY window_start, window_end and the keys"));
            }
        }
        if let WindowKind::Count { .. } = pending.kind {
            // Every window has one reason.
            given.push(WindowColumn::Reason);
        }
        Ok(given)
    }

    fn no_window(&self, branch: &Branch, at: Span) -> Error {
        if branch.windows.is_some() {
            let message =
                "the results of a window are grouped by their window_start and window_end, which are not columns here";
            return self.source.error(at, message).with_hint("pass them on in the view or subquery");
        }
        let message = "GROUP BY without a window would change its results forever";
        let table = &self.tables[branch.table].name;
        self.source.error(at, message).with_hint(format!(
            "FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '1' HOUR)) ... GROUP BY window_start, window_end"
        ))
    }

    /// Keys besides the window columns with their names, and the window columns of the GROUP BY.
    #[expect(clippy::type_complexity, reason = "two lists that belong together for one caller")]
    fn keys(&self, branch: &Branch, grouped: &[ast::Expr]) -> Result<(Vec<(Typed, String)>, Vec<WindowColumn>)> {
        let mut keys: Vec<(Typed, String)> = Vec::new();
        let mut window = Vec::new();
        for e in grouped {
            let mut binder = Binder::new(self.source, branch.scope());
            if let ast::Expr::Value(_) = e {
                return Err(self.source.error(span_of(e), "GROUP BY takes columns, not positions (as in Flink)"));
            }
            let typed = binder.bind(e)?;
            match plain_column(e, &binder) {
                Some(Column { slot: Slot::Window(which), .. }) => window.push(*which),
                _ if columns_of(&typed.expr).iter().any(|index| *index >= WINDOW_BASE) => {
                    return Err(self.source.error(span_of(e), "window columns are grouped by as they are"));
                }
                plain => {
                    if matches!(typed.data_type, DataType::Struct(_) | DataType::List(_)) {
                        let name = types::name(&typed.data_type);
                        return Err(self.source.error(span_of(e), format!("{name} cannot be a key")));
                    }
                    let name = plain.map_or_else(|| format!("key{}", keys.len()), |column| column.name.clone());
                    if !keys.iter().any(|(known, _)| known.expr.as_ref() == typed.expr.as_ref()) {
                        keys.push((typed, name));
                    }
                }
            }
        }
        Ok((keys, window))
    }

    /// The keys of sessions and count windows are those of their PARTITION BY.
    fn partition_keys(&self, branch: &Branch, pending: &Pending, keys: &[(Typed, String)], at: Span) -> Result<()> {
        let name = match pending.kind {
            WindowKind::Session { .. } => "SESSION",
            WindowKind::Count { .. } => "COUNT_WINDOW",
            _ => return Ok(()),
        };
        let mut grouped: Vec<_> = keys.iter().filter_map(|(typed, _)| index_of(&typed.expr)).collect();
        let plain = grouped.len() == keys.len();
        let mut wanted = pending.partition.clone();
        grouped.sort_unstable();
        wanted.sort_unstable();
        wanted.dedup();
        if plain && grouped == wanted {
            return Ok(());
        }
        let names: Vec<_> = pending.partition.iter().map(|index| branch.row[*index].name().as_str()).collect();
        let hint = match names.is_empty() {
            true => format!("write {name}(TABLE t PARTITION BY key, ..)"),
            false => format!("GROUP BY window_start, window_end, {}", names.join(", ")),
        };
        Err(self
            .source
            .error(at, format!("the keys of GROUP BY must be those of PARTITION BY in {name}"))
            .with_hint(hint))
    }

    /// Conditions on window columns, over the result of the aggregation.
    fn window_filters(&self, pending: &Pending, plan: &WindowPlan) -> Result<Vec<Expr>> {
        let filters = pending.filters.iter().map(|filter| {
            if columns_of(filter).iter().any(|index| *index < WINDOW_BASE) {
                let message = "this WHERE compares a column with a window's bounds before the aggregation";
                return Err(self
                    .source
                    .error(pending.span, message)
                    .with_hint("split it: columns in WHERE, window_start and window_end in HAVING"));
            }
            remap(filter, &|index| result_place(plan, index))
        });
        filters.collect()
    }
}

/// Whether an aggregate reads a window column.
fn reads_window(call: &AggregateCall) -> bool {
    call.argument.iter().chain(&call.filter).any(|expr| columns_of(expr).iter().any(|index| *index >= WINDOW_BASE))
}

fn window_plan(pending: &Pending, keys: &[(Typed, String)], aggregates: Vec<AggregateCall>) -> WindowPlan {
    let keys: Vec<NamedExpr> = keys
        .iter()
        .map(|(typed, name)| NamedExpr { expr: Arc::clone(&typed.expr), field: typed.field(name) })
        .collect();
    let mut fields: Vec<_> = keys.iter().map(|key| Arc::clone(&key.field)).collect();
    fields.extend(aggregates.iter().map(|call| Arc::clone(&call.field)));
    fields.extend(window_fields(pending.kind, &pending.time.data_type));
    let schema = Arc::new(Schema::new(fields));
    WindowPlan { kind: pending.kind, rowtime: pending.rowtime, keys, aggregates, zone: pending.time.zone, schema }
}

/// Where the result of an aggregation has what a placeholder stands for.
fn result_place(plan: &WindowPlan, index: usize) -> usize {
    let aggregates = plan.keys.len();
    match index {
        NUMBER.. => index,
        AGGREGATE_BASE.. => aggregates + index - AGGREGATE_BASE,
        WINDOW_BASE.. => aggregates + plan.aggregates.len() + index - WINDOW_BASE,
        _ => index,
    }
}

/// The clauses behind an aggregation.
struct Behind {
    filters: Vec<Expr>,
    having: Option<Typed>,
    values: Vec<(Typed, Column)>,
    ranking: Option<Ranking>,
}

/// Puts the aggregation and what follows it into place.
fn place(mut branch: Branch, time: WindowTime, plan: WindowPlan, behind: Behind) -> Result<Branch> {
    let move_to = |typed: &Typed| -> Result<Typed> {
        Ok(Typed { expr: remap(&typed.expr, &|index| result_place(&plan, index))?, ..typed.clone() })
    };
    let having = behind.having.as_ref().map(move_to).transpose()?;
    let values = behind.values.into_iter().map(|(typed, column)| Ok((move_to(&typed)?, column)));
    let values = values.collect::<Result<_>>()?;
    branch.ranking = behind.ranking;
    for typed in branch.ranking.iter_mut().flat_map(Ranking::values) {
        *typed = move_to(typed)?;
    }
    branch.row = plan.schema.fields().iter().cloned().collect();
    branch.steps.push(Step::Aggregate(plan));
    branch.append_time = None;
    branch.pending = None;
    branch.windows = Some(time);
    branch.steps.extend(behind.filters.into_iter().map(Step::Filter));
    branch.steps.extend(having.map(|having| Step::Filter(having.expr)));
    branch.project(values);
    Ok(branch)
}
