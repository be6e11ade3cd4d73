//! Aggregates of a window: which calls there are, their types, and how the clauses behind a GROUP BY refer to them.

use super::expr::{AGGREGATE_BASE, Binder, Column, Slot, Typed, WindowColumn, shorten};
use super::text::Source;
use super::{cast, types};
use crate::engine::plan::{AggregateCall, AggregateFunction};
use crate::error::Result;
use arrow::datatypes::{DataType, Field};
use sqlparser::ast;
use sqlparser::tokenizer::Span;
use std::sync::Arc;

/// What the clauses behind a GROUP BY can refer to.
#[derive(Debug)]
pub(super) struct Grouping<'g> {
    /// The keys, over the input row; their results come first.
    pub keys: &'g [Typed],
    /// Window columns in the GROUP BY.
    pub window: &'g [WindowColumn],
    /// Aggregates found so far.
    pub calls: Vec<AggregateCall>,
}

impl Grouping<'_> {
    /// A column named outside of aggregates: a window column, or an error (keys are matched before).
    pub fn column(&self, source: Source<'_>, column: &Column, span: Span) -> Result<Typed> {
        match column.slot {
            Slot::Window(which) if self.window.contains(&which) => Ok(column.typed()),
            _ => Err(source
                .error(span, format!("column '{}' is neither in GROUP BY nor inside an aggregate", column.name))
                .with_hint(format!("add it to GROUP BY, or take e.g. FIRST_VALUE({})", column.name))),
        }
    }
}

/// The aggregate that a function name means.
pub(super) fn by_name(name: &str) -> Option<AggregateFunction> {
    Some(match name.to_ascii_uppercase().as_str() {
        "COUNT" => AggregateFunction::Count,
        "SUM" => AggregateFunction::Sum,
        "MIN" => AggregateFunction::Min,
        "MAX" => AggregateFunction::Max,
        "AVG" => AggregateFunction::Avg,
        "FIRST_VALUE" => AggregateFunction::FirstValue,
        "LAST_VALUE" => AggregateFunction::LastValue,
        _ => return None,
    })
}

/// True if an expression calls an aggregate.
pub(super) fn contains_aggregate(e: &ast::Expr) -> bool {
    use std::ops::ControlFlow;
    let found = ast::visit_expressions(e, |inner| match inner {
        ast::Expr::Function(function) if by_name(&function.name.to_string()).is_some() && function.over.is_none() => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

impl Binder<'_> {
    /// The result column of the GROUP BY key that this expression is, if it is one.
    pub fn group_key(&mut self, e: &ast::Expr) -> Result<Option<Typed>> {
        let Some(grouping) = &self.grouping else { return Ok(None) };
        // Constants and aggregates are never keys; binding errors show up where the expression is bound for good.
        if matches!(e, ast::Expr::Value(_) | ast::Expr::Interval(_)) || contains_aggregate(e) {
            return Ok(None);
        }
        let Ok(typed) = Binder::new(self.source, self.scope).bind(e) else { return Ok(None) };
        let place = grouping.keys.iter().position(|key| key.expr.as_ref() == typed.expr.as_ref());
        Ok(place.map(|index| Typed::column(&shorten(&e.to_string()), index, typed.data_type, typed.nullable)))
    }

    /// An aggregate call: its result column.
    pub fn aggregate(&mut self, e: &ast::Expr, function: AggregateFunction, call: &ast::Function) -> Result<Typed> {
        if self.grouping.is_none() {
            return Err(self.error(e, format!("aggregate {} is not allowed here", call.name)));
        }
        if call.over.is_some() {
            return Err(self.error(e, "OVER windows are not supported"));
        }
        let list = match &call.args {
            ast::FunctionArguments::List(list) if list.clauses.is_empty() => list,
            _ => return Err(self.error(e, format!("this form of {} is not supported", call.name))),
        };
        let mut input = Binder::new(self.source, self.scope);
        let argument = match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] if function == AggregateFunction::Count => None,
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument))] => {
                let typed = input.bind(argument)?;
                Some(coerce(function, typed).map_err(|message| self.error(argument, message))?)
            }
            _ => return Err(self.error(e, format!("{} takes one argument", call.name))),
        };
        let filter = match &call.filter {
            Some(filter) => {
                let typed = input.bind(filter)?;
                Some(cast::boolean(typed).map_err(|message| self.error(filter, message))?.expr)
            }
            None => None,
        };
        let distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
        if distinct && argument.is_none() {
            return Err(self.error(e, "COUNT(DISTINCT *) is not SQL: name a column"));
        }
        self.register(e, function, argument, filter, distinct)
    }

    fn register(
        &mut self,
        e: &ast::Expr,
        function: AggregateFunction,
        argument: Option<Typed>,
        filter: Option<crate::engine::plan::Expr>,
        distinct: bool,
    ) -> Result<Typed> {
        let argument_type = argument.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone());
        let result = result_type(function, &argument_type);
        let nullable = function != AggregateFunction::Count;
        let argument = argument.map(|typed| typed.expr);
        let name = shorten(&e.to_string());
        let Some(grouping) = &mut self.grouping else { return Err(self.error(e, "aggregate outside of a query")) };
        let known = grouping.calls.iter().position(|known| {
            known.function == function
                && known.distinct == distinct
                && known.argument == argument
                && known.filter == filter
        });
        let index = known.unwrap_or_else(|| {
            let field = Arc::new(Field::new(format!("agg{}", grouping.calls.len()), result.clone(), nullable));
            grouping.calls.push(AggregateCall { function, argument, argument_type, distinct, filter, field });
            grouping.calls.len() - 1
        });
        Ok(Typed::column(&name, AGGREGATE_BASE + index, result, nullable))
    }
}

/// Checks an argument's type; NULL constants get one.
fn coerce(function: AggregateFunction, typed: Typed) -> Result<Typed, String> {
    let fits = match (function, &typed.data_type) {
        (AggregateFunction::Count, _) => true,
        (AggregateFunction::Sum | AggregateFunction::Avg, data_type) => super::arithmetic::is_numeric(data_type),
        (_, DataType::Struct(_) | DataType::List(_) | DataType::Interval(_)) => false,
        (AggregateFunction::Min | AggregateFunction::Max, DataType::Binary) => false,
        _ => true,
    };
    match fits {
        false => Err(format!("{} does not work on {}", display_name(function), types::name(&typed.data_type))),
        true if typed.data_type == DataType::Null => cast::implicit(typed, &DataType::Int32),
        true => Ok(typed),
    }
}

fn display_name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "COUNT",
        AggregateFunction::Sum => "SUM",
        AggregateFunction::Min => "MIN",
        AggregateFunction::Max => "MAX",
        AggregateFunction::Avg => "AVG",
        AggregateFunction::FirstValue => "FIRST_VALUE",
        AggregateFunction::LastValue => "LAST_VALUE",
    }
}

/// Flink's result types; the table is in [`AggregateFunction`].
fn result_type(function: AggregateFunction, argument: &DataType) -> DataType {
    match (function, argument) {
        (AggregateFunction::Count, _) => DataType::Int64,
        (AggregateFunction::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (AggregateFunction::Avg, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, (*scale).max(6)),
        _ => argument.clone(),
    }
}
