//! `+ - * / %` with Flink's result types.
//!
//! Integers keep the wider operand's type and wrap as in Java; INT / INT is INT; a division by zero is an error of the
//! row. DECIMAL follows Flink's precision rules; a DECIMAL with FLOAT or DOUBLE is DOUBLE.

use super::expr::{Typed, binary_expr};
use super::functions;
use super::interval::Interval;
use super::{cast, types};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::NegativeExpr;
use std::sync::Arc;

/// `left + right`.
pub(super) fn plus(left: Typed, right: Typed) -> Result<Typed, String> {
    match (interval_of(&left), interval_of(&right)) {
        (None, Some(interval)) => shift(left, interval, 1),
        (Some(interval), None) => shift(right, interval, 1),
        _ => numeric(left, Operator::Plus, right),
    }
}

/// `left - right`.
pub(super) fn minus(left: Typed, right: Typed) -> Result<Typed, String> {
    if let (None, Some(interval)) = (interval_of(&left), interval_of(&right)) {
        return shift(left, interval, -1);
    }
    if matches!(left.data_type, DataType::Timestamp(..)) && matches!(right.data_type, DataType::Timestamp(..)) {
        return Err("timestamps are subtracted with TIMESTAMPDIFF(SECOND, earlier, later)".into());
    }
    numeric(left, Operator::Minus, right)
}

/// `left * right`.
pub(super) fn multiply(left: Typed, right: Typed) -> Result<Typed, String> {
    numeric(left, Operator::Multiply, right)
}

/// `left / right`.
pub(super) fn divide(left: Typed, right: Typed) -> Result<Typed, String> {
    numeric(left, Operator::Divide, right)
}

/// `left % right` and MOD: the type of the right operand where both are integers.
pub(super) fn modulo(left: Typed, right: Typed) -> Result<Typed, String> {
    let target = right.data_type.clone();
    let typed = numeric(left, Operator::Modulo, right)?;
    if typed.data_type.is_integer() && target.is_integer() { cast::explicit(typed, &target) } else { Ok(typed) }
}

/// `-operand`.
pub(super) fn negate(operand: Typed) -> Result<Typed, String> {
    if let Some(interval) = interval_of(&operand) {
        let negated = match interval {
            Interval::Months(months) => Interval::Months(-months),
            Interval::Millis(ms) => Interval::Millis(-ms),
        };
        return Ok(Typed::literal(negated.scalar()));
    }
    if !is_numeric(&operand.data_type) {
        return Err(format!("cannot negate {}", types::name(&operand.data_type)));
    }
    Typed { expr: Arc::new(NegativeExpr::new(operand.expr)), ..operand }.fold()
}

/// True for numbers, and for NULL, which fits everywhere.
pub(super) fn is_numeric(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Null
    )
}

fn interval_of(typed: &Typed) -> Option<Interval> {
    typed.value().and_then(Interval::from_scalar)
}

/// A timestamp moved by an interval.
pub(super) fn shift(moment: Typed, interval: Interval, sign: i64) -> Result<Typed, String> {
    match &moment.data_type {
        DataType::Timestamp(..) | DataType::Date32 => functions::shift(moment, interval, sign),
        other => Err(format!("cannot add an INTERVAL to {}", types::name(other))),
    }
}

fn numeric(left: Typed, operator: Operator, right: Typed) -> Result<Typed, String> {
    if !is_numeric(&left.data_type) || !is_numeric(&right.data_type) {
        let (l, r) = (types::name(&left.data_type), types::name(&right.data_type));
        return Err(format!("operator {operator} does not work on {l} and {r}"));
    }
    let common = cast::common_type([&left, &right]).map_err(|(_, a, b)| format!("no common type of {a} and {b}"))?;
    match common {
        DataType::Null => Ok(Typed::literal(ScalarValue::Int32(None))),
        DataType::Decimal128(..) => decimal(left, operator, right),
        ref integer if integer.is_integer() && matches!(operator, Operator::Divide | Operator::Modulo) => {
            let (left, right) = (cast::implicit(left, integer)?, cast::implicit(right, integer)?);
            functions::integer_division(left, operator, right)
        }
        _ => {
            let (left, right) = (cast::implicit(left, &common)?, cast::implicit(right, &common)?);
            binary_expr(left, operator, right, common).fold()
        }
    }
}

/// Precision and scale of a decimal or integer type.
pub(super) fn precision_scale(data_type: &DataType) -> (i32, i32) {
    match data_type {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(p, s) => (i32::from(*p), i32::from(*s)),
        _ => (38, 0),
    }
}

/// Flink's result type of a decimal operation.
fn decimal_type(operator: Operator, (p1, s1): (i32, i32), (p2, s2): (i32, i32)) -> DataType {
    let (precision, scale) = match operator {
        Operator::Multiply => (p1 + p2, s1 + s2),
        Operator::Divide => {
            let scale = 6.max(s1 + p2 + 1);
            (p1 - s1 + s2 + scale, scale)
        }
        Operator::Modulo => {
            let scale = s1.max(s2);
            ((p1 - s1).min(p2 - s2) + scale, scale)
        }
        _ => {
            let scale = s1.max(s2);
            ((p1 - s1).max(p2 - s2) + scale + 1, scale)
        }
    };
    adjusted(precision, scale)
}

/// Cuts a type to 38 digits: the scale gives way, but not below 6.
fn adjusted(precision: i32, scale: i32) -> DataType {
    let (precision, scale) = if precision <= 38 {
        (precision, scale)
    } else {
        let least = scale.min(6);
        (38, (38 - (precision - scale)).max(least))
    };
    let precision = u8::try_from(precision.clamp(1, 38)).unwrap_or(38);
    DataType::Decimal128(precision, i8::try_from(scale.clamp(0, 38)).unwrap_or(0))
}

fn decimal(left: Typed, operator: Operator, right: Typed) -> Result<Typed, String> {
    let (a, b) = (precision_scale(&left.data_type), precision_scale(&right.data_type));
    let result = decimal_type(operator, a, b);
    functions::decimal_operation(as_decimal(left, a)?, operator, as_decimal(right, b)?, result)
}

fn as_decimal(typed: Typed, (precision, scale): (i32, i32)) -> Result<Typed, String> {
    cast::implicit(typed, &adjusted(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_result_types_are_those_of_flink() {
        for (operator, a, b, expected) in [
            (Operator::Plus, (10, 2), (10, 2), DataType::Decimal128(11, 2)),
            (Operator::Minus, (10, 2), (5, 4), DataType::Decimal128(13, 4)),
            (Operator::Multiply, (10, 2), (10, 2), DataType::Decimal128(20, 4)),
            (Operator::Divide, (10, 2), (10, 2), DataType::Decimal128(23, 13)),
            (Operator::Modulo, (10, 2), (5, 3), DataType::Decimal128(5, 3)),
            (Operator::Multiply, (38, 10), (38, 10), DataType::Decimal128(38, 6)),
        ] {
            assert_eq!(decimal_type(operator, a, b), expected, "{operator} {a:?} {b:?}");
        }
    }
}
