//! What is computed in a window.

use super::columns;
use crate::engine::plan::{AggregateCall, AggregateFunction};
use crate::error::{Error, Result};
use crate::sql::direct;
use arrow::datatypes::FieldRef;

/// One aggregate, with the types and results of SQL's of that name. Its column is called after it, `sum_bytes`, unless
/// [`as_`](Aggregate::as_) names it.
#[derive(Debug, Clone)]
pub struct Aggregate {
    function: AggregateFunction,
    column: Option<String>,
    distinct: bool,
    name: String,
}

impl Aggregate {
    fn new(function: AggregateFunction, prefix: &str, column: &str) -> Aggregate {
        let (name, column) = (format!("{prefix}_{column}"), Some(column.to_owned()));
        Aggregate { function, column, distinct: false, name }
    }

    /// Names the result's column.
    #[must_use]
    pub fn as_(self, name: &str) -> Aggregate {
        Aggregate { name: name.to_owned(), ..self }
    }

    /// Takes each distinct value once.
    #[must_use]
    pub fn distinct(self) -> Aggregate {
        Aggregate { distinct: true, ..self }
    }

    /// The call over a row.
    pub(super) fn call(&self, row: &[FieldRef]) -> Result<AggregateCall> {
        let argument = self.column.as_ref().map(|name| {
            let index = columns::find(row, name).map_err(|error| error.context(&self.name))?;
            Ok((direct::column_expr(name, index), &row[index]))
        });
        let argument = argument.transpose()?;
        if self.distinct && argument.is_none() {
            return Err(Error::input(format!("{}: distinct values are those of a column", self.name))
                .with_hint("count_of(\"column\").distinct()"));
        }
        direct::aggregate_call(self.function.clone(), argument, self.distinct, &self.name)
            .map_err(|why| Error::input(format!("{}: {why}", self.name)))
    }
}

/// Records.
pub fn count() -> Aggregate {
    Aggregate { function: AggregateFunction::Count, column: None, distinct: false, name: "count".to_owned() }
}

/// Records in which a column is not NULL.
pub fn count_of(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::Count, "count", column)
}

/// Sum of a column.
pub fn sum(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::Sum, "sum", column)
}

/// Mean of a column; of whole numbers a whole number, as in SQL.
pub fn avg(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::Avg, "avg", column)
}

/// Smallest value of a column.
pub fn min(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::Min, "min", column)
}

/// Largest value of a column.
pub fn max(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::Max, "max", column)
}

/// First value of a column, in the order of the log.
pub fn first(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::FirstValue, "first", column)
}

/// Last value of a column, in the order of the log.
pub fn last(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::LastValue, "last", column)
}

/// How many different values a column has, with a standard error of 1.6 %.
pub fn approx_count_distinct(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::ApproxCountDistinct, "approx_count_distinct", column)
}

/// Values of a column as an array, NULLs too.
pub fn array_agg(column: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::ArrayAgg { keep_nulls: true }, "array_agg", column)
}

/// Texts of a column, joined.
pub fn string_agg(column: &str, separator: &str) -> Aggregate {
    Aggregate::new(AggregateFunction::ListAgg { separator: separator.into() }, "string_agg", column)
}

/// One or more aggregates: one, a tuple, an array or a [`Vec`].
pub trait Aggregates {
    /// All of them, in order.
    fn into_aggregates(self) -> Vec<Aggregate>;
}

impl Aggregates for Aggregate {
    fn into_aggregates(self) -> Vec<Aggregate> {
        vec![self]
    }
}

impl Aggregates for Vec<Aggregate> {
    fn into_aggregates(self) -> Vec<Aggregate> {
        self
    }
}

impl<const N: usize> Aggregates for [Aggregate; N] {
    fn into_aggregates(self) -> Vec<Aggregate> {
        self.into()
    }
}

macro_rules! of {
    ($type:ident) => {
        Aggregate
    };
}
macro_rules! tuple {
    ($($name:ident)*) => {
        impl Aggregates for ($(of!($name),)*) {
            fn into_aggregates(self) -> Vec<Aggregate> {
                let ($($name,)*) = self;
                vec![$($name),*]
            }
        }
    };
}
tuple!(a);
tuple!(a b);
tuple!(a b c);
tuple!(a b c d);
tuple!(a b c d e);
tuple!(a b c d e f);
tuple!(a b c d e f g);
tuple!(a b c d e f g h);
