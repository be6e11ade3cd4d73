//! Aggregates of a window: which calls there are, their types, and how the clauses behind a GROUP BY refer to them.

use super::expr::{AGGREGATE_BASE, Binder, Column, Slot, Typed, WindowColumn, shorten};
use super::spread::{self, Spread};
use super::text::Source;
use super::{cast, functions, types};
use crate::engine::functions::{FunctionRegistry, Registered, UserAggregate};
use crate::engine::plan::{AggregateCall, AggregateFunction, Expr, Fraction};
use crate::error::Result;
use arrow::datatypes::{DataType, Field};
use datafusion_common::ScalarValue;
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

/// What a call of an aggregate asks for, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Called {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    FirstValue,
    LastValue,
    /// Made from sums and a count.
    Spread(Spread),
    BoolAnd,
    BoolOr,
    ApproxCountDistinct,
    ArrayAgg,
    ListAgg,
    Percentile,
    ApproxPercentile,
    User(UserAggregate),
}

const NAMES: &[(&str, Called)] = &[
    ("COUNT", Called::Count),
    ("SUM", Called::Sum),
    ("MIN", Called::Min),
    ("MAX", Called::Max),
    ("AVG", Called::Avg),
    ("FIRST_VALUE", Called::FirstValue),
    ("LAST_VALUE", Called::LastValue),
    ("STDDEV", Called::Spread(Spread { sample: true, root: true })),
    ("STDDEV_SAMP", Called::Spread(Spread { sample: true, root: true })),
    ("STDDEV_POP", Called::Spread(Spread { sample: false, root: true })),
    ("VARIANCE", Called::Spread(Spread { sample: true, root: false })),
    ("VAR_SAMP", Called::Spread(Spread { sample: true, root: false })),
    ("VAR_POP", Called::Spread(Spread { sample: false, root: false })),
    ("BOOL_AND", Called::BoolAnd),
    ("EVERY", Called::BoolAnd),
    ("BOOL_OR", Called::BoolOr),
    ("APPROX_COUNT_DISTINCT", Called::ApproxCountDistinct),
    ("ARRAY_AGG", Called::ArrayAgg),
    ("LISTAGG", Called::ListAgg),
    ("STRING_AGG", Called::ListAgg),
    ("PERCENTILE", Called::Percentile),
    ("APPROX_PERCENTILE", Called::ApproxPercentile),
];

/// The aggregate that a function name means.
pub(super) fn by_name(functions: &FunctionRegistry, name: &str) -> Option<Called> {
    let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, called)| called.clone()).or_else(|| match functions.get(name) {
        Some(Registered::Aggregate(user)) => Some(Called::User(user.call())),
        _ => None,
    })
}

/// Names of aggregates, for hints.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// A call as it is written, with its parts bound.
struct Call<'c> {
    e: &'c ast::Expr,
    /// What errors about the argument point at.
    at: &'c ast::Expr,
    name: String,
    /// `None` for `*`.
    argument: Option<Typed>,
    /// What stands behind the argument: constants.
    rest: Vec<&'c ast::Expr>,
    distinct: bool,
    filter: Option<Expr>,
    ignore_nulls: bool,
}

/// True if an expression calls an aggregate.
pub(super) fn contains_aggregate(functions: &FunctionRegistry, e: &ast::Expr) -> bool {
    use std::ops::ControlFlow;
    let is_aggregate =
        |call: &ast::Function| call.over.is_none() && by_name(functions, &call.name.to_string()).is_some();
    let found = ast::visit_expressions(e, |inner| match inner {
        ast::Expr::Function(call) if is_aggregate(call) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

impl Binder<'_> {
    /// The result column of the GROUP BY key that this expression is, if it is one.
    pub fn group_key(&mut self, e: &ast::Expr) -> Result<Option<Typed>> {
        let Some(grouping) = &self.grouping else { return Ok(None) };
        // Constants and aggregates are never keys; binding errors show up where the expression is bound for good.
        if matches!(e, ast::Expr::Value(_) | ast::Expr::Interval(_)) || contains_aggregate(self.source.functions, e) {
            return Ok(None);
        }
        let Ok(typed) = Binder::new(self.source, self.scope).bind(e) else { return Ok(None) };
        let place = grouping.keys.iter().position(|key| key.expr.as_ref() == typed.expr.as_ref());
        Ok(place.map(|index| Typed::column(&shorten(&e.to_string()), index, typed.data_type, typed.nullable)))
    }

    /// An aggregate call: its result column, or what it is made from.
    pub fn aggregate(&mut self, e: &ast::Expr, called: Called, call: &ast::Function) -> Result<Typed> {
        if self.grouping.is_none() {
            return Err(self.error(e, format!("aggregate {} is not allowed here", call.name)));
        }
        let call = self.read_call(e, &called, call)?;
        if let Called::Spread(spread) = called {
            return self.spread(&call, spread);
        }
        let (function, argument) = self.function_of(called, &call)?;
        self.register(e, function, argument, call.filter, call.distinct)
    }

    /// Binds the parts of a call, and refuses forms that nobody asks for.
    fn read_call<'c>(&self, e: &'c ast::Expr, called: &Called, call: &'c ast::Function) -> Result<Call<'c>> {
        if call.over.is_some() {
            return Err(self.error(e, "OVER windows are not supported"));
        }
        let unsupported = || Err(self.error(e, format!("this form of {} is not supported", call.name)));
        let ast::FunctionArguments::List(list) = &call.args else { return unsupported() };
        let nulls = match list.clauses.as_slice() {
            [] => None,
            [ast::FunctionArgumentClause::IgnoreOrRespectNulls(nulls)] if *called == Called::ArrayAgg => Some(*nulls),
            _ => return unsupported(),
        };
        if call.null_treatment.is_some() || !call.within_group.is_empty() {
            return unsupported();
        }
        let distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
        let mut input = Binder::new(self.source, self.scope);
        let (mut at, mut argument, mut rest) = (e, None, Vec::new());
        match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] if *called == Called::Count => {
                if distinct {
                    return Err(self.error(e, "COUNT(DISTINCT *) is not SQL: name a column"));
                }
            }
            arguments => {
                for (n, written) in arguments.iter().enumerate() {
                    let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(written)) = written else {
                        return unsupported();
                    };
                    match n {
                        0 => (at, argument) = (written, Some(input.bind(written)?)),
                        _ => rest.push(written),
                    }
                }
                let (least, most, takes) = match called {
                    Called::ListAgg => (0, 1, "a text and a separator"),
                    Called::Percentile | Called::ApproxPercentile => (1, 1, "a number and a fraction"),
                    _ => (0, 0, "one argument"),
                };
                if argument.is_none() || !(least..=most).contains(&rest.len()) {
                    return Err(self.error(e, format!("{} takes {takes}", call.name)));
                }
            }
        }
        let filter = match &call.filter {
            Some(filter) => {
                let typed = input.bind(filter)?;
                Some(cast::boolean(typed).map_err(|message| self.error(filter, message))?.expr)
            }
            None => None,
        };
        let ignore_nulls = nulls == Some(ast::NullTreatment::IgnoreNulls);
        Ok(Call { e, at, name: call.name.to_string(), argument, rest, distinct, filter, ignore_nulls })
    }

    /// The function that computes a call, and its argument in the type that it takes.
    fn function_of(&self, called: Called, call: &Call<'_>) -> Result<(AggregateFunction, Option<Typed>)> {
        let argument = call.argument.clone().map(|typed| coerce(&called, &call.name, typed)).transpose();
        let argument = argument.map_err(|message| self.error(call.at, message))?;
        let function = match called {
            Called::Count => AggregateFunction::Count,
            Called::Sum => AggregateFunction::Sum,
            Called::Min | Called::BoolAnd => AggregateFunction::Min,
            Called::Max | Called::BoolOr => AggregateFunction::Max,
            Called::Avg => AggregateFunction::Avg,
            Called::FirstValue => AggregateFunction::FirstValue,
            Called::LastValue => AggregateFunction::LastValue,
            Called::ApproxCountDistinct => AggregateFunction::ApproxCountDistinct,
            Called::ArrayAgg => AggregateFunction::ArrayAgg { keep_nulls: !call.ignore_nulls },
            Called::ListAgg => AggregateFunction::ListAgg { separator: self.separator(call)? },
            Called::Percentile => {
                let (fractions, array) = self.fractions(call)?;
                AggregateFunction::Percentile { fractions, array }
            }
            Called::ApproxPercentile => {
                let (fractions, array) = self.fractions(call)?;
                AggregateFunction::ApproxPercentile { fractions, array }
            }
            Called::User(user) => AggregateFunction::User(user),
            Called::Spread(_) => return Err(self.error(call.e, "a variance is made from sums")),
        };
        Ok((function, argument))
    }

    fn separator(&self, call: &Call<'_>) -> Result<Arc<str>> {
        let Some(written) = call.rest.first() else { return Ok(Arc::from(",")) };
        match Binder::new(self.source, self.scope).bind(written)?.text() {
            Some(text) => Ok(Arc::from(text)),
            None => Err(self.error(written, format!("the separator of {} is a constant STRING", call.name))),
        }
    }

    /// The fractions of a percentile: one, or an ARRAY of them (true).
    fn fractions(&self, call: &Call<'_>) -> Result<(Arc<[Fraction]>, bool)> {
        let (written, array): (Vec<_>, bool) = match call.rest.first() {
            Some(ast::Expr::Array(array)) if !array.elem.is_empty() => (array.elem.iter().collect(), true),
            _ => (call.rest.clone(), false),
        };
        let fraction = |written: &ast::Expr| {
            let typed = Binder::new(self.source, self.scope).bind(written)?;
            let number = cast::explicit(typed, &DataType::Float64).ok();
            let fraction = match number.as_ref().and_then(Typed::value) {
                Some(ScalarValue::Float64(Some(part))) => Fraction::new(*part),
                _ => None,
            };
            fraction.ok_or_else(|| {
                let message = format!("{} takes constants from 0 to 1, or an ARRAY of them", call.name);
                self.error(written, message)
            })
        };
        Ok((written.into_iter().map(fraction).collect::<Result<_>>()?, array))
    }

    /// VAR_POP(x) is (SUM(x * x) - SUM(x) * SUM(x) / COUNT(x)) / COUNT(x), VAR_SAMP divides by one less, and STDDEV takes the
    /// root: all in the types of `*`, `-` and `/`, as in Flink.
    fn spread(&mut self, call: &Call<'_>, spread: Spread) -> Result<Typed> {
        let (e, name) = (call.e, &call.name);
        if call.distinct {
            return Err(self
                .error(e, format!("{name}(DISTINCT ..) is not supported"))
                .with_hint("Flink adds up the distinct squares, so that of -2 and 2 only one counts"));
        }
        let argument = call.argument.clone().ok_or_else(|| self.error(e, format!("{name} takes one argument")))?;
        let argument =
            coerce(&Called::Spread(spread), name, argument).map_err(|message| self.error(call.at, message))?;
        let squared = spread::square(&argument).map_err(|message| self.error(e, message))?;
        let mut made = |function, argument| self.register(e, function, Some(argument), call.filter.clone(), false);
        let squares = made(AggregateFunction::Sum, squared)?;
        let sum = made(AggregateFunction::Sum, argument.clone())?;
        let count = made(AggregateFunction::Count, argument.clone())?;
        spread.of(&argument.data_type, squares, sum, count).map_err(|message| self.error(e, message))
    }

    fn register(
        &mut self,
        e: &ast::Expr,
        function: AggregateFunction,
        argument: Option<Typed>,
        filter: Option<Expr>,
        distinct: bool,
    ) -> Result<Typed> {
        let argument_type = argument.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone());
        let result = result_type(&function, &argument_type);
        let nullable = function.is_nullable();
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

/// A call that was not written as text, with the checks and the result type of one that was.
pub(super) fn call(
    function: AggregateFunction,
    argument: Option<Typed>,
    distinct: bool,
    name: &str,
) -> Result<AggregateCall, String> {
    let called = called_as(&function);
    let sql_name = NAMES.iter().find(|(_, known)| *known == called).map_or(name, |(name, _)| *name);
    let argument = argument.map(|typed| coerce(&called, sql_name, typed)).transpose()?;
    let argument_type = argument.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone());
    let field = Arc::new(Field::new(name, result_type(&function, &argument_type), function.is_nullable()));
    let argument = argument.map(|typed| typed.expr);
    Ok(AggregateCall { function, argument, argument_type, distinct, filter: None, field })
}

/// The call that a function is computed for.
fn called_as(function: &AggregateFunction) -> Called {
    match function {
        AggregateFunction::Count => Called::Count,
        AggregateFunction::Sum => Called::Sum,
        AggregateFunction::Min => Called::Min,
        AggregateFunction::Max => Called::Max,
        AggregateFunction::Avg => Called::Avg,
        AggregateFunction::FirstValue => Called::FirstValue,
        AggregateFunction::LastValue => Called::LastValue,
        AggregateFunction::ApproxCountDistinct => Called::ApproxCountDistinct,
        AggregateFunction::ArrayAgg { .. } => Called::ArrayAgg,
        AggregateFunction::ListAgg { .. } => Called::ListAgg,
        AggregateFunction::Percentile { .. } => Called::Percentile,
        AggregateFunction::ApproxPercentile { .. } => Called::ApproxPercentile,
        AggregateFunction::User(user) => Called::User(user.clone()),
    }
}

/// An argument in the type that an aggregate takes; NULL constants get one.
fn coerce(called: &Called, name: &str, typed: Typed) -> Result<Typed, String> {
    let nested = matches!(typed.data_type, DataType::Struct(_) | DataType::List(_) | DataType::Interval(_));
    let fits = match called {
        Called::Count => true,
        Called::Sum | Called::Avg | Called::Spread(_) | Called::Percentile | Called::ApproxPercentile => {
            super::arithmetic::is_numeric(&typed.data_type)
        }
        Called::Min | Called::Max => !nested && typed.data_type != DataType::Binary,
        Called::BoolAnd | Called::BoolOr => matches!(typed.data_type, DataType::Boolean | DataType::Null),
        Called::ListAgg => matches!(typed.data_type, DataType::Utf8 | DataType::Null),
        Called::FirstValue | Called::LastValue | Called::ArrayAgg | Called::ApproxCountDistinct => !nested,
        Called::User(user) => return functions::widened(name, typed, &user.argument),
    };
    if !fits {
        return Err(format!("{name} does not work on {}", types::name(&typed.data_type)));
    }
    match called {
        Called::Percentile | Called::ApproxPercentile => cast::explicit(typed, &DataType::Float64),
        Called::BoolAnd | Called::BoolOr => cast::boolean(typed),
        Called::ListAgg => cast::implicit(typed, &DataType::Utf8),
        _ if typed.data_type == DataType::Null => cast::implicit(typed, &DataType::Int32),
        _ => Ok(typed),
    }
}

/// Flink's result types; the table is in [`AggregateFunction`].
fn result_type(function: &AggregateFunction, argument: &DataType) -> DataType {
    let list = |item: &DataType| DataType::new_list(item.clone(), true);
    match (function, argument) {
        (AggregateFunction::Count | AggregateFunction::ApproxCountDistinct, _) => DataType::Int64,
        (AggregateFunction::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (AggregateFunction::Avg, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, (*scale).max(6)),
        (AggregateFunction::ArrayAgg { .. }, item) => list(item),
        (AggregateFunction::User(user), _) => user.result.clone(),
        (
            AggregateFunction::Percentile { array: true, .. } | AggregateFunction::ApproxPercentile { array: true, .. },
            _,
        ) => list(&DataType::Float64),
        _ => argument.clone(),
    }
}
