//! `ROW_NUMBER() OVER (PARTITION BY window_start, window_end, .. ORDER BY ..)` and the WHERE around it that bounds the numbers: the first
//! rows of each window. Deduplication is the bound 1.

use super::branch::Branch;
use super::expr::{Binder, Column, Role, Slot, Typed, WindowColumn, index_of, span_of};
use super::query::{Queries, conjuncts, plain_column};
use super::text::Source;
use super::types;
use crate::engine::plan::{NamedExpr, Order, RankPlan, Step};
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Field};
use datafusion_common::ScalarValue;
use sqlparser::ast;
use sqlparser::tokenizer::Span;
use std::sync::Arc;

const EXAMPLE: &str = "SELECT .. FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY x DESC) \
                       AS rownum FROM ..) WHERE rownum <= 3";

/// Numbers of rows that a query asked for and did not bound yet. All values are over the row.
#[derive(Debug, Clone)]
pub(super) struct Ranking {
    /// The window.
    window: [Typed; 2],
    /// PARTITION BY besides the window.
    partition: Vec<Typed>,
    /// ORDER BY: value, descending, NULLs first.
    order: Vec<(Typed, bool, bool)>,
    /// Its one key is the time, latest first.
    latest_first: bool,
    /// Place of the call.
    pub span: Span,
}

impl Ranking {
    /// All values.
    pub fn values(&mut self) -> impl Iterator<Item = &mut Typed> {
        let order = self.order.iter_mut().map(|(typed, ..)| typed);
        self.window.iter_mut().chain(&mut self.partition).chain(order)
    }
}

/// The OVER of a call of ROW_NUMBER, if the expression is one.
fn over(e: &ast::Expr) -> Option<&ast::WindowType> {
    match e {
        ast::Expr::Nested(inner) => over(inner),
        ast::Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("ROW_NUMBER") => call.over.as_ref(),
        _ => None,
    }
}

/// Binds a call of ROW_NUMBER; `None`: the expression is something else. Over windows that are not columns yet the values are
/// placeholders.
pub(super) fn bind(binder: &mut Binder<'_>, e: &ast::Expr) -> Result<Option<Ranking>> {
    let Some(over) = over(e) else { return Ok(None) };
    let ast::WindowType::WindowSpec(spec) = over else {
        return Err(binder.error(e, "named windows are not supported: write the OVER clause out"));
    };
    if spec.window_name.is_some() || spec.window_frame.is_some() {
        return Err(binder.error(e, "ROW_NUMBER takes PARTITION BY and ORDER BY only"));
    }
    let (mut start, mut end, mut partition) = (None, None, Vec::new());
    for key in &spec.partition_by {
        let typed = binder.bind(key)?;
        match plain_column(key, binder).and_then(window_column) {
            Some(WindowColumn::Start) => start = Some(typed),
            Some(WindowColumn::End) => end = Some(typed),
            // The same for all rows of a window.
            Some(WindowColumn::Time | WindowColumn::Reason) => {}
            None => partition.push(typed),
        }
    }
    let (Some(start), Some(end)) = (start, end) else {
        return Err(binder
            .error(e, "ROW_NUMBER needs PARTITION BY window_start, window_end: numbers of an endless stream would change forever")
            .with_hint(EXAMPLE));
    };
    if spec.order_by.is_empty() {
        return Err(binder.error(e, "ROW_NUMBER needs ORDER BY").with_hint(EXAMPLE));
    }
    let (mut order, mut latest_first) = (Vec::new(), spec.order_by.len() == 1);
    for key in &spec.order_by {
        let typed = binder.bind(&key.expr)?;
        if matches!(typed.data_type, DataType::Struct(_) | DataType::List(_)) {
            return Err(binder.error(&key.expr, format!("{} has no order", types::name(&typed.data_type))));
        }
        let descending = key.options.asc == Some(false);
        let role = plain_column(&key.expr, binder).map(|column| column.role);
        latest_first &= descending && matches!(role, Some(Role::Rowtime | Role::Proctime | Role::FormerTime));
        // As in Flink, NULL is less than all values unless it is said otherwise.
        order.push((typed, descending, key.options.nulls_first.unwrap_or(!descending)));
    }
    Ok(Some(Ranking { window: [start, end], partition, order, latest_first, span: span_of(e) }))
}

/// Which column of the window this is.
fn window_column(column: &Column) -> Option<WindowColumn> {
    match column.slot {
        Slot::Window(which) => Some(which),
        _ => column.role.window_column().filter(|which| matches!(which, WindowColumn::Start | WindowColumn::End)),
    }
}

/// The visible column of the numbers.
pub(super) fn number_column(name: String, span: Span) -> (Typed, Column) {
    let column = Column {
        qualifier: None,
        name,
        data_type: DataType::Int64,
        nullable: false,
        slot: Slot::Number,
        role: Role::Plain,
        span,
    };
    (column.typed(), column)
}

/// The error of numbers that nothing bounds.
pub(super) fn unbounded(source: Source<'_>, ranking: &Ranking) -> Error {
    source.error(ranking.span, "ROW_NUMBER needs a bound right around it, such as WHERE rownum <= 3").with_hint(EXAMPLE)
}

impl Queries<'_> {
    /// A WHERE over numbered rows: its bounds become a step, the rest of it filters what that leaves.
    pub fn bound(&self, condition: &ast::Expr, branch: &mut Branch) -> Result<()> {
        let Some(ranking) = branch.ranking.take() else { return Ok(()) };
        let (mut from, mut limit, mut rest) = (1, None::<i64>, Vec::new());
        for conjunct in conjuncts(condition) {
            match self.bounds(conjunct, branch)? {
                None => rest.push(conjunct),
                Some((low, high)) => {
                    from = from.max(low);
                    limit = high.map(|high| limit.map_or(high, |limit| limit.min(high))).or(limit);
                }
            }
        }
        let Some(limit) = limit else { return Err(unbounded(self.source, &ranking)) };
        let (Ok(from), Ok(last)) = (u64::try_from(from), u64::try_from(limit)) else {
            return Err(self.source.error(span_of(condition), "no row has such a number: they start with 1"));
        };
        if last < from {
            return Err(self.source.error(span_of(condition), "no row has such a number: they start with 1"));
        }
        place(branch, ranking, from, last)?;
        rest.into_iter().try_for_each(|conjunct| self.filter(conjunct, branch))
    }

    /// The least and greatest number that a condition allows, if it compares the number with constants.
    fn bounds(&self, e: &ast::Expr, branch: &Branch) -> Result<Option<(i64, Option<i64>)>> {
        use ast::BinaryOperator as Op;
        let binder = Binder::new(self.source, branch.scope());
        let is_number = |e: &ast::Expr| plain_column(e, &binder).is_some_and(|column| column.slot == Slot::Number);
        let constant = |e: &ast::Expr| -> Result<Option<i64>> {
            let typed = Binder::new(self.source, branch.scope()).bind(e)?;
            Ok(match typed.value() {
                Some(ScalarValue::Int32(Some(value))) => Some(i64::from(*value)),
                Some(ScalarValue::Int64(value)) => *value,
                _ => None,
            })
        };
        let (op, value) = match e {
            ast::Expr::Between { expr, negated: false, low, high } if is_number(expr) => {
                let (low, high) = (constant(low)?, constant(high)?);
                return Ok(low.zip(high).map(|(low, high)| (low.max(1), Some(high))));
            }
            ast::Expr::BinaryOp { left, op, right } if is_number(left) => (op.clone(), right),
            ast::Expr::BinaryOp { left, op, right } if is_number(right) => (mirrored(op), left),
            _ => return Ok(None),
        };
        Ok(constant(value)?.and_then(|value| match op {
            Op::Eq => Some((value.max(1), Some(value))),
            Op::LtEq => Some((1, Some(value))),
            Op::Lt => Some((1, Some(value.saturating_sub(1)))),
            Op::GtEq => Some((value, None)),
            Op::Gt => Some((value.saturating_add(1), None)),
            _ => None,
        }))
    }
}

/// The operator with its sides swapped.
fn mirrored(op: &ast::BinaryOperator) -> ast::BinaryOperator {
    use ast::BinaryOperator as Op;
    match op {
        Op::Lt => Op::Gt,
        Op::LtEq => Op::GtEq,
        Op::Gt => Op::Lt,
        Op::GtEq => Op::LtEq,
        other => other.clone(),
    }
}

/// Adds the step; the number is a column behind the row from then on.
fn place(branch: &mut Branch, ranking: Ranking, from: u64, limit: u64) -> Result<()> {
    let [Some(start), Some(end)] = ranking.window.map(|typed| index_of(&typed.expr)) else {
        return Err(Error::internal("the window of numbered rows is not in their columns"));
    };
    let partition = ranking.partition.into_iter();
    let partition = partition.map(|typed| NamedExpr { field: typed.field("partition"), expr: typed.expr }).collect();
    let order = ranking.order.into_iter();
    let order = order.map(|(typed, descending, nulls_first)| Order { expr: typed.expr, descending, nulls_first });
    let number = branch.row.len();
    branch.row.push(Arc::new(Field::new("rownum", DataType::Int64, false)));
    for column in branch.columns.iter_mut().filter(|column| column.slot == Slot::Number) {
        column.slot = Slot::Row(number);
    }
    // A row is what its window gave, from now on.
    branch.append_time = None;
    branch.steps.push(Step::Rank(RankPlan {
        window_start: start,
        window_end: end,
        zone: branch.windows.as_ref().and_then(|windows| windows.zone),
        partition,
        order: order.collect(),
        // As in Flink: of the latest rows of a key the one that came last is kept.
        last_wins: ranking.latest_first && limit == 1,
        from,
        limit,
        number: true,
        schema: branch.schema(),
    }));
    Ok(())
}
