//! Variances and standard deviations, made from two sums and a count.

use super::expr::{Typed, binary_expr, case_expr};
use super::{arithmetic, cast, functions};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    /// Of a sample: divided by one less than there are values, NULL for one value.
    pub sample: bool,
    /// The standard deviation.
    pub root: bool,
}

/// The result's type: the argument's, but DECIMAL(38, 6) or more digits behind the point.
fn result_type(argument: &DataType) -> DataType {
    match argument {
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, (*scale).max(6)),
        other => other.clone(),
    }
}

/// What the first sum adds up.
pub(super) fn square(argument: &Typed) -> Result<Typed, String> {
    let value = cast::implicit(argument.clone(), &result_type(&argument.data_type))?;
    arithmetic::multiply(value.clone(), value)
}

impl Spread {
    /// The spread of values of type `argument`, from SUM(x * x), SUM(x) and COUNT(x).
    pub fn of(self, argument: &DataType, squares: Typed, sum: Typed, count: Typed) -> Result<Typed, String> {
        let result = result_type(argument);
        let sum = cast::implicit(sum, &result)?;
        let square_of_sum = arithmetic::multiply(sum.clone(), sum)?;
        let rest = arithmetic::minus(squares, arithmetic::divide(square_of_sum, count.clone())?)?;
        let spread = arithmetic::divide(rest, if self.sample { one_less(count)? } else { count })?;
        let spread = if self.root { functions::call("SQRT", vec![spread], None)? } else { spread };
        Ok(Typed { nullable: true, ..cast::explicit(spread, &result)? })
    }
}

/// A count less one; NULL for 1.
fn one_less(count: Typed) -> Result<Typed, String> {
    let long = |value| Typed::literal(ScalarValue::Int64(value));
    let is_one = binary_expr(count.clone(), Operator::Eq, long(Some(1)), DataType::Boolean);
    let less = arithmetic::minus(count, long(Some(1)))?;
    Ok(case_expr(vec![is_one], vec![long(None), less], true, DataType::Int64))
}
