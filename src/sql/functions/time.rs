//! Functions on dates and timestamps.

use super::super::expr::Typed;
use super::super::interval::Interval;
use super::super::{arithmetic, cast, types};
use super::kernel::{Args, make};
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion_common::Result;

/// A timestamp moved by an interval.
pub(in super::super) fn shift(moment: Typed, interval: Interval, sign: i64) -> Result<Typed, String> {
    let moment = match moment.data_type {
        DataType::Date32 => cast::implicit(moment, &types::timestamp())?,
        _ => moment,
    };
    let (data_type, nullable) = (moment.data_type.clone(), moment.nullable);
    let (name, amount, kernel): (_, i64, fn(&Args<'_>) -> Result<ArrayRef>) = match interval {
        Interval::Millis(ms) => ("SHIFT_MS", ms * sign, shift_millis),
        Interval::Months(months) => ("SHIFT_MONTHS", i64::from(months) * sign, shift_millis),
    };
    let _ = arithmetic::is_numeric;
    make(name, amount.to_string(), vec![moment], data_type, nullable, kernel).fold()
}

fn shift_millis(args: &Args<'_>) -> Result<ArrayRef> {
    let amount: i64 = args.parameter.parse().unwrap_or(0);
    args.longs(|row| Ok(args.moment(0, row).map(|ms| ms.saturating_add(amount))))
}
