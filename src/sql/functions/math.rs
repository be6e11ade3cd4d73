//! Numeric functions.

use super::super::arithmetic::is_numeric;
use super::super::expr::Typed;
use super::super::{cast, types};
use super::kernel::{Args, Kernel, make};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::compute::kernels::{cmp, zip::zip};
use arrow::compute::{cast as arrow_cast, is_not_null, nullif};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, i256};
use datafusion_common::{Result, exec_err};
use datafusion_expr::Operator;
use std::sync::Arc;

/// An operation on decimals in Flink's result type, rounded half up; a result with too many digits is NULL.
pub(in super::super) fn decimal_operation(
    left: Typed,
    operator: Operator,
    right: Typed,
    result: DataType,
) -> Result<Typed, String> {
    let (name, kernel): (_, Kernel) = match operator {
        Operator::Plus => ("DECIMAL_PLUS", |args| operate(args, |a, b, s| a.scaled(s)?.checked_add(b.scaled(s)?))),
        Operator::Minus => ("DECIMAL_MINUS", |args| operate(args, |a, b, s| a.scaled(s)?.checked_sub(b.scaled(s)?))),
        Operator::Modulo => ("DECIMAL_MOD", |args| operate(args, |a, b, s| a.scaled(s)?.checked_rem(b.scaled(s)?))),
        Operator::Multiply => ("DECIMAL_TIMES", |args| {
            operate(args, |a, b, scale| {
                let product = Digits { value: a.value.checked_mul(b.value)?, scale: a.scale + b.scale };
                product.scaled(scale)
            })
        }),
        _ => ("DECIMAL_DIVIDE", |args| {
            operate(args, |a, b, scale| {
                let shift = scale - a.scale + b.scale;
                let power = i256::from_i128(10).checked_pow(shift.unsigned_abs())?;
                match shift {
                    0.. => round_half_up(a.value.checked_mul(power)?, b.value),
                    _ => round_half_up(a.value, b.value.checked_mul(power)?),
                }
            })
        }),
    };
    make(name, "", vec![left, right], result, true, kernel).fold()
}

/// `/` and `%` of integers of one type: truncated toward zero, wrapping at the smallest number as in Java; a divisor of zero is an
/// error of the row.
pub(in super::super) fn integer_division(left: Typed, operator: Operator, right: Typed) -> Result<Typed, String> {
    let (result, nullable) = (left.data_type.clone(), left.nullable || right.nullable);
    let (name, kernel): (_, Kernel) = match operator {
        Operator::Modulo => ("MODULO", |args| divided(args, i64::wrapping_rem)),
        _ => ("DIVIDE", |args| divided(args, i64::wrapping_div)),
    };
    let (left, right) = (cast::implicit(left, &DataType::Int64)?, cast::implicit(right, &DataType::Int64)?);
    cast::explicit(make(name, "", vec![left, right], DataType::Int64, nullable, kernel), &result)?.fold()
}

fn divided(args: &Args<'_>, of: fn(i64, i64) -> i64) -> Result<ArrayRef> {
    let (left, right) = (args.long(0)?, args.long(1)?);
    args.longs(|row| match (left.get(row), right.get(row)) {
        (Some(_), Some(0)) => exec_err!("division by zero"),
        (Some(left), Some(right)) => Ok(Some(of(left, right))),
        _ => Ok(None),
    })
}

/// A decimal on its way through an operation.
#[derive(Clone, Copy)]
struct Digits {
    value: i256,
    scale: i32,
}

impl Digits {
    /// The digits at another scale, rounded half up.
    fn scaled(self, scale: i32) -> Option<i256> {
        let power = i256::from_i128(10).checked_pow((scale - self.scale).unsigned_abs())?;
        if scale >= self.scale { self.value.checked_mul(power) } else { round_half_up(self.value, power) }
    }
}

fn operate(args: &Args<'_>, of: impl Fn(Digits, Digits, i32) -> Option<i256>) -> Result<ArrayRef> {
    let scale = |array: &ArrayRef| match array.data_type() {
        DataType::Decimal128(_, scale) => i32::from(*scale),
        _ => 0,
    };
    let (left_scale, right_scale) = (scale(args.array(0)?), scale(args.array(1)?));
    let DataType::Decimal128(precision, result_scale) = *args.result else { return exec_err!("not a DECIMAL") };
    let divides = args.name.ends_with("DIVIDE") || args.name.ends_with("MOD");
    decimals(args, precision, result_scale, |row| {
        let (Some(a), Some(b)) = (decimal(args, 0, row), decimal(args, 1, row)) else { return Ok(None) };
        if b == 0 && divides {
            return exec_err!("division by zero");
        }
        let left = Digits { value: i256::from_i128(a), scale: left_scale };
        let right = Digits { value: i256::from_i128(b), scale: right_scale };
        Ok(of(left, right, i32::from(result_scale)).and_then(i256::to_i128))
    })
}

fn round_half_up(n: i256, d: i256) -> Option<i256> {
    let (quotient, rest) = (n.checked_div(d)?, n.checked_rem(d)?);
    let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
    let up = twice >= d.checked_abs()?;
    let step = if (n < i256::ZERO) == (d < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    if up { quotient.checked_add(step) } else { Some(quotient) }
}

/// A decimal's digits at another scale, rounded half up; `None` if they do not fit.
pub(super) fn round_decimal(value: i128, from: i32, to: i32) -> Option<i128> {
    let shift = to - from;
    if shift >= 0 {
        return if value == 0 { Some(0) } else { value.checked_mul(10i128.checked_pow(shift.unsigned_abs())?) };
    }
    let Some(power) = 10i128.checked_pow(shift.unsigned_abs()) else { return Some(0) };
    let (quotient, rest) = (value / power, value % power);
    let up = rest.unsigned_abs() >= power.unsigned_abs() - rest.unsigned_abs();
    Some(if up { quotient + value.signum() } else { quotient })
}

/// A decimal's digits in a row.
fn decimal(args: &Args<'_>, index: usize, row: usize) -> Option<i128> {
    let place = args.place(index, row)?;
    args.array(index).ok()?.as_primitive_opt::<Decimal128Type>().map(|array| array.value(place))
}

/// One decimal for each row; one with too many digits is NULL, as in Flink.
fn decimals(
    args: &Args<'_>,
    precision: u8,
    scale: i8,
    mut of: impl FnMut(usize) -> Result<Option<i128>>,
) -> Result<ArrayRef> {
    let limit = 10u128.checked_pow(u32::from(precision)).unwrap_or(u128::MAX);
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(of(row)?.filter(|value| value.unsigned_abs() < limit));
    }
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale)?))
}

fn number(name: &str, value: Typed) -> Result<Typed, String> {
    match value.data_type {
        DataType::Null => cast::implicit(value, &DataType::Int32),
        ref data_type if is_numeric(data_type) => Ok(value),
        other => Err(format!("{name} does not work on {}", types::name(&other))),
    }
}

/// ABS, SIGN, FLOOR, CEIL, and ROUND and TRUNCATE with a constant number of digits.
pub(super) fn rounding(name: &'static str, mut arguments: Vec<Typed>) -> Result<Typed, String> {
    let digits = match arguments.get(1) {
        None => 0,
        Some(digits) => match digits.value().map(ToString::to_string).and_then(|text| text.parse::<i32>().ok()) {
            Some(digits) => digits.clamp(-38, 38),
            None => return Err(format!("the digits of {name} must be a constant INT")),
        },
    };
    let value = number(name, arguments.remove(0))?;
    let mut nullable = value.nullable;
    let result = match &value.data_type {
        DataType::Decimal128(p, s) if !matches!(name, "ABS" | "SIGN") => {
            nullable = true;
            let (precision, scale) = (i32::from(*p), i32::from(*s));
            match name {
                "FLOOR" | "CEIL" => DataType::Decimal128(*p, 0),
                _ if digits >= scale => value.data_type.clone(),
                _ if digits < 0 => decimal_type(precision - scale + 1, 0),
                _ => decimal_type(1 + precision - scale + digits, digits),
            }
        }
        other => other.clone(),
    };
    let kernel: Kernel = match name {
        "ABS" => |args| round_with(args, i64::wrapping_abs, i128::abs, f64::abs),
        "SIGN" => |args| {
            let DataType::Decimal128(_, scale) = *args.result else {
                return round_with(args, i64::signum, |v| v, |v| if v == 0.0 { v } else { v.signum() });
            };
            let one = 10i128.pow(u32::from(scale.unsigned_abs()));
            round_with(args, i64::signum, |v| v.signum() * one, f64::signum)
        },
        "FLOOR" => |args| to_digits(args, |v, unit| v.div_euclid(unit), |v, _| v.floor()),
        "CEIL" => |args| to_digits(args, |v, unit| -(-v).div_euclid(unit), |v, _| v.ceil()),
        "TRUNCATE" => |args| to_digits(args, |v, unit| v / unit, |v, digits| float_digits(v, digits, f64::trunc)),
        _ => |args| {
            to_digits(
                args,
                |v, unit| {
                    let rest = v % unit;
                    let up = rest.unsigned_abs() * 2 >= unit.unsigned_abs();
                    v / unit + if up { v.signum() } else { 0 }
                },
                |v, digits| float_digits(v, digits, f64::round),
            )
        },
    };
    make(name, digits.to_string(), vec![value], result, nullable, kernel).fold()
}

fn decimal_type(precision: i32, scale: i32) -> DataType {
    let precision = u8::try_from(precision.clamp(1, 38)).unwrap_or(38);
    DataType::Decimal128(precision, i8::try_from(scale).unwrap_or(0))
}

fn float_digits(value: f64, digits: i32, round: impl Fn(f64) -> f64) -> f64 {
    let power = 10f64.powi(digits.abs());
    let rounded = if digits >= 0 { round(value * power) / power } else { round(value / power) * power };
    if rounded.is_finite() { rounded } else { value }
}

fn round_with(
    args: &Args<'_>,
    whole: impl Fn(i64) -> i64,
    digits: impl Fn(i128) -> i128,
    float: impl Fn(f64) -> f64,
) -> Result<ArrayRef> {
    let array = args.full(0)?;
    match array.data_type() {
        DataType::Decimal128(p, s) => {
            let (precision, scale) = (*p, *s);
            decimals(args, precision, scale, |row| Ok(decimal(args, 0, row).map(&digits)))
        }
        data_type if data_type.is_integer() => {
            let wide = arrow_cast(&array, &DataType::Int64)?;
            let wide = wide.as_primitive::<Int64Type>();
            let values: arrow::array::Int64Array = wide.iter().map(|v| v.map(&whole)).collect();
            Ok(arrow_cast(&values, args.result)?)
        }
        _ => floats(args, &array, |v, _| float(v)),
    }
}

fn floats(args: &Args<'_>, array: &ArrayRef, float: impl Fn(f64, i32) -> f64) -> Result<ArrayRef> {
    let digits: i32 = args.parameter.parse().unwrap_or(0);
    let wide = arrow_cast(array, &DataType::Float64)?;
    let wide = wide.as_primitive::<Float64Type>();
    let values: arrow::array::Float64Array = wide.iter().map(|v| v.map(|v| float(v, digits))).collect();
    Ok(arrow_cast(&values, args.result)?)
}

/// Cuts numbers to the digits of the parameter; `cut` gives how many units there are.
fn to_digits(args: &Args<'_>, cut: impl Fn(i128, i128) -> i128, float: impl Fn(f64, i32) -> f64) -> Result<ArrayRef> {
    let array = args.full(0)?;
    let digits: i32 = args.parameter.parse().unwrap_or(0);
    let (scale, result_scale, precision) = match (array.data_type(), args.result) {
        (DataType::Decimal128(_, scale), DataType::Decimal128(precision, result)) => {
            (i32::from(*scale), i32::from(*result), *precision)
        }
        (data_type, _) if data_type.is_integer() => (0, 0, 38),
        _ => return floats(args, &array, float),
    };
    let Some(unit) = 10i128.checked_pow((scale - digits.min(scale)).unsigned_abs()) else {
        return exec_err!("too many digits");
    };
    let rounded =
        |value: i128| (cut(value, unit)).checked_mul(unit).and_then(|v| round_decimal(v, scale, result_scale));
    if matches!(args.result, DataType::Decimal128(..)) {
        let result_scale = i8::try_from(result_scale).unwrap_or(0);
        return decimals(args, precision, result_scale, |row| Ok(decimal(args, 0, row).and_then(rounded)));
    }
    let wide = arrow_cast(&array, &DataType::Int64)?;
    let wide = wide.as_primitive::<Int64Type>();
    let values = wide.iter().map(|v| v.and_then(|v| rounded(i128::from(v))).and_then(|v| i64::try_from(v).ok()));
    Ok(arrow_cast(&values.collect::<arrow::array::Int64Array>(), args.result)?)
}

/// Functions of one DOUBLE.
pub(super) fn one_double(name: &'static str, value: Typed) -> Result<Typed, String> {
    let value = number(name, value)?;
    let value = cast::explicit(value, &DataType::Float64)?;
    let kernel: Kernel = match name {
        "SQRT" => |args| of_double(args, f64::sqrt),
        "EXP" => |args| of_double(args, f64::exp),
        "LN" => |args| of_double(args, f64::ln),
        "LOG10" => |args| of_double(args, f64::log10),
        "LOG2" => |args| of_double(args, f64::log2),
        "SIN" => |args| of_double(args, f64::sin),
        "COS" => |args| of_double(args, f64::cos),
        "TAN" => |args| of_double(args, f64::tan),
        "ASIN" => |args| of_double(args, f64::asin),
        "ACOS" => |args| of_double(args, f64::acos),
        "ATAN" => |args| of_double(args, f64::atan),
        "DEGREES" => |args| of_double(args, f64::to_degrees),
        _ => |args| of_double(args, f64::to_radians),
    };
    let nullable = value.nullable;
    make(name, "", vec![value], DataType::Float64, nullable, kernel).fold()
}

fn of_double(args: &Args<'_>, of: fn(f64) -> f64) -> Result<ArrayRef> {
    args.doubles(|row| Ok(args.double(0, row).map(of)))
}

/// Functions of two DOUBLEs: POWER, LOG(base, x), ATAN2.
pub(super) fn two_doubles(name: &'static str, arguments: Vec<Typed>) -> Result<Typed, String> {
    let nullable = arguments.iter().any(|argument| argument.nullable);
    let mut values = Vec::new();
    for argument in arguments {
        values.push(cast::explicit(number(name, argument)?, &DataType::Float64)?);
    }
    let kernel: Kernel = match name {
        "POWER" => |args| of_doubles(args, f64::powf),
        "LOG" => |args| of_doubles(args, |base, x| x.ln() / base.ln()),
        _ => |args| of_doubles(args, f64::atan2),
    };
    make(name, "", values, DataType::Float64, nullable, kernel).fold()
}

fn of_doubles(args: &Args<'_>, of: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    args.doubles(|row| Ok(args.double(0, row).zip(args.double(1, row)).map(|(a, b)| of(a, b))))
}

/// GREATEST and LEAST: NULL where any argument is.
pub(super) fn extreme(
    name: &'static str,
    arguments: Vec<Typed>,
    zone: Option<crate::engine::plan::Zone>,
) -> Result<Typed, String> {
    let common = cast::common_type(&arguments).map_err(|(_, a, b)| format!("{name} of {a} and {b}"))?;
    if matches!(common, DataType::Struct(_) | DataType::List(_) | DataType::Null) {
        return Err(format!("{name} does not work on {}", types::name(&common)));
    }
    let nullable = arguments.iter().any(|argument| argument.nullable);
    let values: Result<Vec<_>, String> = arguments.into_iter().map(|a| cast::In(zone).implicit(a, &common)).collect();
    let kernel: Kernel = match name {
        "GREATEST" => |args| pick(args, true),
        _ => |args| pick(args, false),
    };
    make(name, "", values?, common, nullable, kernel).fold()
}

fn pick(args: &Args<'_>, greatest: bool) -> Result<ArrayRef> {
    let mut best = args.full(0)?;
    for index in 1..args.len() {
        let next = args.full(index)?;
        let keep = if greatest { cmp::gt_eq(&best, &next)? } else { cmp::lt_eq(&best, &next)? };
        let (best_there, next_there) = (is_not_null(&best)?, is_not_null(&next)?);
        let keep: BooleanArray = keep.iter().map(|keep| Some(keep.unwrap_or(false))).collect();
        let chosen = zip(&keep, &best, &next)?;
        let missing: BooleanArray =
            best_there.iter().zip(&next_there).map(|(a, b)| Some(!(a == Some(true) && b == Some(true)))).collect();
        best = nullif(&chosen, &missing)?;
    }
    Ok(best)
}
