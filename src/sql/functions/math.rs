//! Numeric functions.

use super::super::expr::Typed;
use super::kernel::{Args, make};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, i256};
use datafusion_common::{Result, exec_err};
use std::sync::Arc;

/// `left / right` in a decimal type, rounded half up as in Flink.
pub(in super::super) fn divide_decimals(left: Typed, right: Typed, result: DataType) -> Result<Typed, String> {
    make("DIVIDE", "", vec![left, right], result, true, |args| {
        let scale = |array: &ArrayRef| match array.data_type() {
            DataType::Decimal128(_, scale) => i32::from(*scale),
            _ => 0,
        };
        let DataType::Decimal128(precision, result_scale) = *args.result else { return exec_err!("not a DECIMAL") };
        let shift = i32::from(result_scale) - scale(args.array(0)?) + scale(args.array(1)?);
        let ten = i256::from_i128(10);
        decimals(args, precision, result_scale, |row| {
            let (Some(a), Some(b)) = (decimal(args, 0, row), decimal(args, 1, row)) else { return Ok(None) };
            if b == 0 {
                return exec_err!("division by zero");
            }
            let power = |n: i32| ten.checked_pow(n.unsigned_abs());
            let (mut n, mut d) = (i256::from_i128(a), i256::from_i128(b));
            match power(shift) {
                Some(power) if shift >= 0 => n = n.wrapping_mul(power),
                Some(power) => d = d.wrapping_mul(power),
                None => return Ok(None),
            }
            Ok(round_half_up(n, d))
        })
    })
    .fold()
}

fn round_half_up(n: i256, d: i256) -> Option<i128> {
    let (quotient, rest) = (n.checked_div(d)?, n.checked_rem(d)?);
    let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
    let up = twice >= d.checked_abs()?;
    let step = if (n < i256::ZERO) == (d < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    if up { quotient.checked_add(step)? } else { quotient }.to_i128()
}

/// A decimal's digits in a row.
pub(super) fn decimal(args: &Args<'_>, index: usize, row: usize) -> Option<i128> {
    let place = args.place(index, row)?;
    args.array(index).ok()?.as_primitive_opt::<Decimal128Type>().map(|array| array.value(place))
}

/// One decimal for each row; one with too many digits is NULL, as in Flink.
pub(super) fn decimals(
    args: &Args<'_>,
    precision: u8,
    scale: i8,
    mut of: impl FnMut(usize) -> Result<Option<i128>>,
) -> Result<ArrayRef> {
    let limit = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        values.push(of(row)?.filter(|value| value.unsigned_abs() < limit.unsigned_abs()));
    }
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale)?))
}
