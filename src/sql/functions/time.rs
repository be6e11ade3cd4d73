//! Functions on dates and timestamps.

use super::super::expr::Typed;
use super::super::interval::Interval;
use super::super::{cast, types};
use super::civil::{Civil, DAY_MS, Pattern, days_from_civil, format_timestamp, parse_timestamp};
use super::kernel::{Args, make, make_in};
use crate::engine::plan::Zone;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimestampMillisecondType};
use datafusion_common::{Result, exec_err};
use std::sync::Arc;

/// A date or timestamp as a timestamp.
fn moment(value: Typed) -> Result<Typed, String> {
    match &value.data_type {
        DataType::Timestamp(..) => Ok(value),
        DataType::Date32 | DataType::Null => cast::explicit(value, &types::timestamp()),
        _ if value.text().is_some() => cast::explicit(value, &types::timestamp()),
        other => Err(format!("expected a TIMESTAMP or DATE, found {}", types::name(other))),
    }
}

/// A timestamp moved by an interval; a DATE stays one where whole days are added.
pub(in super::super) fn shift(value: Typed, interval: Interval, sign: i64) -> Result<Typed, String> {
    let is_date = value.data_type == DataType::Date32;
    let whole = match interval {
        Interval::Months(_) => true,
        Interval::Millis(ms) => ms % DAY_MS == 0,
    };
    let value = moment(value)?;
    let (data_type, nullable) = (value.data_type.clone(), value.nullable);
    let shifted = match interval {
        Interval::Millis(ms) => make("SHIFT_MS", (ms * sign).to_string(), vec![value], data_type, nullable, |args| {
            let amount: i64 = args.parameter.parse().unwrap_or(0);
            let shifted = args.moments(0)?.unary::<_, TimestampMillisecondType>(|ms| ms.saturating_add(amount));
            Ok(Arc::new(shifted.with_data_type(args.result.clone())))
        }),
        Interval::Months(months) => {
            let months = i64::from(months) * sign;
            make("SHIFT_MONTHS", months.to_string(), vec![value], data_type, nullable, |args| {
                let months: i64 = args.parameter.parse().unwrap_or(0);
                args.longs(|row| args.moment(0, row).map(|ms| plus_months(ms, months)).transpose())
            })
        }
    };
    let shifted = shifted.fold()?;
    if is_date && whole { cast::explicit(shifted, &DataType::Date32) } else { Ok(shifted) }
}

fn plus_months(ms: i64, months: i64) -> Result<i64> {
    known(Civil::from_millis(ms).plus_months(months).and_then(Civil::to_millis))
}

/// The units that functions take.
fn unit(argument: Option<&Typed>) -> Result<String, String> {
    let text = argument.and_then(Typed::text).ok_or("expected a unit such as HOUR")?;
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_prefix("SQL_TSI_").unwrap_or(&upper);
    let singular = if upper.ends_with('S') && upper.len() > 2 { &upper[..upper.len() - 1] } else { upper };
    Ok(singular.to_owned())
}

/// The zone that a value is shown in: a TIMESTAMP is local time already.
fn zone_of(value: &Typed, zone: Option<Zone>) -> Option<Zone> {
    zone.filter(|_| matches!(value.data_type, DataType::Timestamp(_, Some(_))))
}

/// `EXTRACT(unit FROM value)`.
pub(super) fn extract(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let value = moment(arguments.pop().ok_or("EXTRACT needs a value")?)?;
    let unit = unit(arguments.first())?;
    if field(&unit, 0).is_none() {
        return Err(format!("{unit} is not a unit of EXTRACT"));
    }
    let (nullable, zone) = (value.nullable, zone_of(&value, zone).filter(|_| unit != "EPOCH"));
    let typed = make_in(zone, ("EXTRACT", unit), vec![value], (DataType::Int64, nullable), |args| {
        args.longs(|row| Ok(args.moment(0, row).and_then(|ms| field(args.parameter, args.local(ms)))))
    });
    typed.fold()
}

/// A field of a moment; `None`: no such field.
fn field(unit: &str, ms: i64) -> Option<i64> {
    let civil = Civil::from_millis(ms);
    let days = ms.div_euclid(DAY_MS);
    Some(match unit {
        "YEAR" => civil.year,
        "QUARTER" => i64::from(civil.month - 1) / 3 + 1,
        "MONTH" => i64::from(civil.month),
        "WEEK" => iso_week(days),
        "DAY" => i64::from(civil.day),
        "DOY" => days - days_from_civil(civil.year, 1, 1) + 1,
        // 1 is Sunday.
        "DOW" => (days + 4).rem_euclid(7) + 1,
        "ISODOW" => (days + 3).rem_euclid(7) + 1,
        "HOUR" => civil.millis / 3_600_000,
        "MINUTE" => civil.millis / 60_000 % 60,
        "SECOND" => civil.millis / 1000 % 60,
        "MILLISECOND" => civil.millis % 60_000,
        "EPOCH" => ms.div_euclid(1000),
        "DECADE" => civil.year.div_euclid(10),
        "CENTURY" => (civil.year + 99).div_euclid(100),
        _ => return None,
    })
}

fn iso_week(days: i64) -> i64 {
    // The week's Thursday decides the year.
    let thursday = days - (days + 3).rem_euclid(7) + 3;
    let (year, ..) = super::civil::civil_from_days(thursday);
    (thursday - days_from_civil(year, 1, 1)) / 7 + 1
}

/// `FLOOR(value TO unit)` and `CEIL(value TO unit)`.
///
/// As in Flink, a TIMESTAMP_LTZ is rounded as local time and then shifted back by the offset that it had.
pub(super) fn round_to(name: &'static str, mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let unit = unit(arguments.pop().as_ref())?;
    let value = arguments.pop().ok_or("a value is missing")?;
    let is_date = value.data_type == DataType::Date32;
    let value = moment(value)?;
    if floor(&unit, 0).is_none() {
        return Err(format!("{unit} is not a unit of {name}"));
    }
    let (data_type, nullable) = (value.data_type.clone(), value.nullable);
    let kernel: super::kernel::Kernel = match name {
        "FLOOR" => |args| args.longs(|row| args.moment(0, row).map(|ms| rounded(args, ms, floor)).transpose()),
        _ => |args| args.longs(|row| args.moment(0, row).map(|ms| rounded(args, ms, ceil)).transpose()),
    };
    let name = if name == "FLOOR" { "FLOOR_TO" } else { "CEIL_TO" };
    let zone = zone_of(&value, zone);
    let typed = make_in(zone, (name, unit), vec![value], (data_type, nullable), kernel).fold()?;
    if is_date { cast::explicit(typed, &DataType::Date32) } else { Ok(typed) }
}

fn rounded(args: &Args<'_>, ms: i64, round: fn(&str, i64) -> Option<i64>) -> Result<i64> {
    let local = args.local(ms);
    let shift = |rounded: i64| rounded.checked_sub(local)?.checked_add(ms);
    known(round(args.parameter, local).and_then(shift))
}

fn known(ms: Option<i64>) -> Result<i64> {
    match ms {
        Some(ms) => Ok(ms),
        None => exec_err!("a timestamp left the range of the calendar"),
    }
}

fn floor(unit: &str, ms: i64) -> Option<i64> {
    let civil = Civil::from_millis(ms);
    let fixed = |length: i64| ms.checked_sub(ms.rem_euclid(length));
    let start = |year: i64, month: u32| days_from_civil(year, month, 1).checked_mul(DAY_MS);
    match unit {
        "MILLISECOND" => Some(ms),
        "SECOND" => fixed(1000),
        "MINUTE" => fixed(60_000),
        "HOUR" => fixed(3_600_000),
        "DAY" => fixed(DAY_MS),
        "WEEK" => {
            let days = ms.div_euclid(DAY_MS);
            (days - (days + 4).rem_euclid(7)).checked_mul(DAY_MS)
        }
        "MONTH" => start(civil.year, civil.month),
        "QUARTER" => start(civil.year, (civil.month - 1) / 3 * 3 + 1),
        "YEAR" => start(civil.year, 1),
        _ => None,
    }
}

fn ceil(unit: &str, ms: i64) -> Option<i64> {
    let below = floor(unit, ms)?;
    if below == ms { Some(ms) } else { add(unit, 1, below) }
}

/// A moment moved by a number of units.
fn add(unit: &str, count: i64, ms: i64) -> Option<i64> {
    let months = |per: i64| plus_months(ms, count.checked_mul(per)?).ok();
    let length = match unit {
        "YEAR" => return months(12),
        "QUARTER" => return months(3),
        "MONTH" => return months(1),
        "WEEK" => 7 * DAY_MS,
        "DAY" => DAY_MS,
        "HOUR" => 3_600_000,
        "MINUTE" => 60_000,
        "SECOND" => 1000,
        "MILLISECOND" => 1,
        _ => return None,
    };
    ms.checked_add(count.checked_mul(length)?)
}

/// `TIMESTAMPADD(unit, count, value)`.
pub(super) fn timestamp_add(mut arguments: Vec<Typed>) -> Result<Typed, String> {
    let value = moment(arguments.pop().ok_or("a value is missing")?)?;
    let count = arguments.pop().ok_or("a count is missing")?;
    let unit = unit(arguments.first())?;
    if add(&unit, 0, 0).is_none() {
        return Err(format!("{unit} is not a unit of TIMESTAMPADD"));
    }
    if !count.data_type.is_integer() {
        return Err(format!("TIMESTAMPADD adds an INT, not {}", types::name(&count.data_type)));
    }
    let (data_type, nullable) = (value.data_type.clone(), value.nullable || count.nullable);
    let count = cast::implicit(count, &DataType::Int64)?;
    make("TIMESTAMPADD", unit, vec![count, value], data_type, nullable, |args| {
        let count = args.long(0)?;
        args.longs(|row| match (count.get(row), args.moment(1, row)) {
            (Some(count), Some(ms)) => known(add(args.parameter, count, ms)).map(Some),
            _ => Ok(None),
        })
    })
    .fold()
}

/// `TIMESTAMPDIFF(unit, from, to)`: whole units, toward zero, INT.
pub(super) fn timestamp_diff(mut arguments: Vec<Typed>) -> Result<Typed, String> {
    let to = moment(arguments.pop().ok_or("a value is missing")?)?;
    let from = moment(arguments.pop().ok_or("a value is missing")?)?;
    let unit = unit(arguments.first())?;
    if difference(&unit, 0, 0).is_none() {
        return Err(format!("{unit} is not a unit of TIMESTAMPDIFF"));
    }
    let nullable = from.nullable || to.nullable;
    make("TIMESTAMPDIFF", unit, vec![from, to], DataType::Int32, nullable, |args| {
        args.longs(|row| match (args.moment(0, row), args.moment(1, row)) {
            // As a Java int: too many units wrap.
            (Some(a), Some(b)) => known(difference(args.parameter, a, b)).map(|units| Some(wrap_to_int(units))),
            _ => Ok(None),
        })
    })
    .fold()
}

#[expect(clippy::cast_possible_truncation, reason = "wraps as a Java int does")]
fn wrap_to_int(value: i64) -> i64 {
    i64::from(value as i32)
}

fn difference(unit: &str, from: i64, to: i64) -> Option<i64> {
    let span = to.checked_sub(from)?;
    Some(match unit {
        "YEAR" => months_between(from, to) / 12,
        "QUARTER" => months_between(from, to) / 3,
        "MONTH" => months_between(from, to),
        "WEEK" => span / (7 * DAY_MS),
        "DAY" => span / DAY_MS,
        "HOUR" => span / 3_600_000,
        "MINUTE" => span / 60_000,
        "SECOND" => span / 1000,
        _ => return None,
    })
}

fn months_between(from: i64, to: i64) -> i64 {
    let (a, b) = (Civil::from_millis(from), Civil::from_millis(to));
    let months = (b.year - a.year) * 12 + i64::from(b.month) - i64::from(a.month);
    let (rest_a, rest_b) = ((a.day, a.millis), (b.day, b.millis));
    match months {
        1.. if rest_b < rest_a => months - 1,
        ..=-1 if rest_b > rest_a => months + 1,
        _ => months,
    }
}

/// A pattern argument that must be constant, so that it is checked when the file is planned.
fn pattern(argument: Option<&Typed>) -> Result<String, String> {
    let text = match argument {
        None => "yyyy-MM-dd HH:mm:ss",
        Some(argument) => argument.text().ok_or("the pattern must be a constant string")?,
    };
    Pattern::parse(text).map(|_| text.to_owned())
}

fn compiled(args: &Args<'_>) -> Result<Pattern> {
    Pattern::parse(args.parameter).or_else(|message| exec_err!("{message}"))
}

fn text_argument(value: Typed) -> Result<Typed, String> {
    match value.data_type {
        DataType::Utf8 => Ok(value),
        DataType::Null => cast::implicit(value, &DataType::Utf8),
        other => Err(format!("expected a STRING, found {}", types::name(&other))),
    }
}

/// `DATE_FORMAT(value, pattern)`.
pub(super) fn date_format(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let pattern = pattern(arguments.get(1))?;
    let value = arguments.remove(0);
    let value = match value.data_type {
        DataType::Utf8 => cast::attempt(value, &types::timestamp())?,
        _ => moment(value)?,
    };
    let (nullable, zone) = (value.nullable, zone_of(&value, zone));
    make_in(zone, ("DATE_FORMAT", pattern), vec![value], (DataType::Utf8, nullable), |args| {
        let pattern = compiled(args)?;
        args.texts(|row| Ok(args.moment(0, row).map(|ms| pattern.format(args.local(ms)))))
    })
    .fold()
}

/// `TO_TIMESTAMP(text[, pattern])`: NULL where the text does not match, as in Flink.
pub(super) fn to_timestamp(mut arguments: Vec<Typed>) -> Result<Typed, String> {
    let written = arguments.len() > 1;
    let pattern = pattern(arguments.get(1))?;
    let value = text_argument(arguments.remove(0))?;
    let parameter = if written { pattern } else { String::new() };
    make("TO_TIMESTAMP", parameter, vec![value], types::timestamp(), true, read_moments).fold()
}

fn read_moments(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0)?;
    if args.parameter.is_empty() {
        return args.longs(|row| Ok(text.get(row).and_then(parse_timestamp)));
    }
    let pattern = compiled(args)?;
    args.longs(|row| Ok(text.get(row).and_then(|text| pattern.read(text))))
}

/// `TO_DATE(text[, pattern])`.
pub(super) fn to_date(arguments: Vec<Typed>) -> Result<Typed, String> {
    if arguments.len() == 1 {
        let value = text_argument(arguments.into_iter().next().ok_or("a value is missing")?)?;
        return cast::attempt(value, &DataType::Date32);
    }
    cast::attempt(to_timestamp(arguments)?, &DataType::Date32)
}

/// `TO_TIMESTAMP_LTZ(number, 0 or 3)` and `TO_TIMESTAMP_LTZ(text[, pattern])`; as in Flink, the text is in UTC.
pub(super) fn to_timestamp_ltz(mut arguments: Vec<Typed>) -> Result<Typed, String> {
    if arguments[0].data_type == DataType::Utf8 {
        return cast::In(None).explicit(to_timestamp(arguments)?, &types::timestamp_ltz());
    }
    let factor = match arguments.get(1).and_then(Typed::value).map(ToString::to_string).as_deref() {
        None if arguments.len() == 1 => 1,
        Some("3") => 1,
        Some("0") => 1000,
        _ => return Err("the precision of TO_TIMESTAMP_LTZ is 0 (seconds) or 3 (milliseconds)".into()),
    };
    let value = arguments.remove(0);
    if !super::super::arithmetic::is_numeric(&value.data_type) {
        return Err(format!("expected a BIGINT, found {}", types::name(&value.data_type)));
    }
    let value = cast::explicit(value, &DataType::Int64)?;
    let nullable = value.nullable;
    let result = types::timestamp_ltz();
    make("TO_TIMESTAMP_LTZ", factor.to_string(), vec![value], result, nullable, |args| {
        let factor: i64 = args.parameter.parse().unwrap_or(1);
        let value = args.long(0)?;
        args.longs(|row| match value.get(row) {
            None => Ok(None),
            Some(value) => match value.checked_mul(factor) {
                Some(ms) => Ok(Some(ms)),
                None => exec_err!("{value} s is beyond the range of TIMESTAMP_LTZ"),
            },
        })
    })
    .fold()
}

/// `FROM_UNIXTIME(seconds[, pattern])`.
pub(super) fn from_unixtime(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let pattern = pattern(arguments.get(1))?;
    let value = arguments.remove(0);
    if !value.data_type.is_integer() && value.data_type != DataType::Null {
        return Err(format!("expected a BIGINT, found {}", types::name(&value.data_type)));
    }
    let value = cast::implicit(value, &DataType::Int64)?;
    let nullable = value.nullable;
    make_in(zone, ("FROM_UNIXTIME", pattern), vec![value], (DataType::Utf8, nullable), |args| {
        let pattern = compiled(args)?;
        let value = args.long(0)?;
        args.texts(|row| Ok(value.get(row).map(|seconds| pattern.format(args.local(seconds.saturating_mul(1000))))))
    })
    .fold()
}

/// `UNIX_TIMESTAMP(text[, pattern])`: BIGINT. As in Flink, a time that comes twice is the second one (a CAST takes the first), and a
/// text that does not match is the least BIGINT.
pub(super) fn unix_timestamp(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let pattern = pattern(arguments.get(1))?;
    let value = text_argument(arguments.remove(0))?;
    let nullable = value.nullable;
    make_in(zone, ("UNIX_TIMESTAMP", pattern), vec![value], (DataType::Int64, nullable), |args| {
        let pattern = compiled(args)?;
        let text = args.text(0)?;
        let read = |text| pattern.read_prefix(text).map_or(i64::MIN, |(ms, _)| args.last_instant(ms).div_euclid(1000));
        args.longs(|row| Ok(text.get(row).map(read)))
    })
    .fold()
}

/// A timestamp as Flink casts it to text.
pub(super) fn to_text(ms: i64) -> String {
    format_timestamp(ms)
}
