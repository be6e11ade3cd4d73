//! `INTERVAL '...' unit` and durations such as `5 s`.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion_common::ScalarValue;
use sqlparser::ast::{self, DateTimeField};

/// An interval: calendar months, or a fixed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interval {
    /// YEAR and MONTH.
    Months(i32),
    /// DAY to SECOND, in ms.
    Millis(i64),
}

impl Interval {
    /// As a constant of an expression.
    pub fn scalar(self) -> ScalarValue {
        let value = match self {
            Interval::Months(months) => IntervalMonthDayNano::new(months, 0, 0),
            // Days hold most of the range; the rest of a day always fits into nanoseconds.
            Interval::Millis(ms) => {
                let days = i32::try_from(ms / DAY_MS).unwrap_or(i32::MAX);
                IntervalMonthDayNano::new(0, days, (ms % DAY_MS) * 1_000_000)
            }
        };
        ScalarValue::IntervalMonthDayNano(Some(value))
    }

    /// From a constant made by [`Interval::scalar`].
    pub fn from_scalar(value: &ScalarValue) -> Option<Interval> {
        match value {
            ScalarValue::IntervalMonthDayNano(Some(value)) if value.months != 0 => Some(Interval::Months(value.months)),
            ScalarValue::IntervalMonthDayNano(Some(value)) => {
                Some(Interval::Millis(i64::from(value.days) * DAY_MS + value.nanoseconds / 1_000_000))
            }
            _ => None,
        }
    }
}

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

fn unit(field: &DateTimeField) -> Result<Unit, String> {
    Ok(match field {
        DateTimeField::Year | DateTimeField::Years => Unit::Year,
        DateTimeField::Month | DateTimeField::Months => Unit::Month,
        DateTimeField::Week(_) | DateTimeField::Weeks => Unit::Week,
        DateTimeField::Day | DateTimeField::Days => Unit::Day,
        DateTimeField::Hour | DateTimeField::Hours => Unit::Hour,
        DateTimeField::Minute | DateTimeField::Minutes => Unit::Minute,
        DateTimeField::Second | DateTimeField::Seconds => Unit::Second,
        other => return Err(format!("{other} is not a unit of an INTERVAL")),
    })
}

/// The value of an `INTERVAL` literal.
pub(super) fn parse(interval: &ast::Interval) -> Result<Interval, String> {
    let (text, negative) = text_of(&interval.value, false)?;
    let Some(leading) = &interval.leading_field else {
        return Err("an INTERVAL needs a unit, such as INTERVAL '5' SECOND".into());
    };
    let from = unit(leading)?;
    let to = interval.last_field.as_ref().map_or(Ok(from), unit)?;
    let trimmed = text.trim();
    let (text, negative) = match trimmed.strip_prefix('-') {
        Some(rest) => (rest, !negative),
        None => (trimmed.strip_prefix('+').unwrap_or(trimmed), negative),
    };
    let bad = || format!("'{text}' is not an interval of {leading}");
    let value = parts(text, from, to).ok_or_else(bad)?;
    Ok(match value {
        Interval::Months(months) => Interval::Months(if negative { -months } else { months }),
        Interval::Millis(ms) => Interval::Millis(if negative { -ms } else { ms }),
    })
}

fn text_of(value: &ast::Expr, negative: bool) -> Result<(String, bool), String> {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::Number(text, _) => Ok((text.clone(), negative)),
            other => Err(format!("expected a quoted number after INTERVAL, found {other}")),
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => text_of(expr, !negative),
        other => Err(format!("expected a quoted number after INTERVAL, found {other}")),
    }
}

/// `1-2` (YEAR TO MONTH), `1 02:03:04.5` (DAY TO SECOND) and their parts.
fn parts(text: &str, from: Unit, to: Unit) -> Option<Interval> {
    let numbers: Vec<&str> = text.split(['-', ' ', ':']).filter(|part| !part.is_empty()).collect();
    if from <= Unit::Month {
        let numbers: Vec<i32> = numbers.iter().map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let months = match (from, to, numbers.as_slice()) {
            (Unit::Year, Unit::Year, [years]) => years.checked_mul(12)?,
            (Unit::Month, Unit::Month, [months]) => *months,
            (Unit::Year, Unit::Month, [years, months]) => years.checked_mul(12)?.checked_add(*months)?,
            _ => return None,
        };
        return Some(Interval::Months(months));
    }
    let fields: &[(Unit, i64)] = match from {
        Unit::Week => &[(Unit::Week, 7 * DAY_MS)],
        _ => &[(Unit::Day, DAY_MS), (Unit::Hour, HOUR_MS), (Unit::Minute, MINUTE_MS), (Unit::Second, SECOND_MS)],
    };
    let fields: Vec<_> = fields.iter().filter(|(unit, _)| *unit >= from && *unit <= to).collect();
    if fields.len() != numbers.len() {
        return None;
    }
    let mut total: i64 = 0;
    for ((unit, ms), number) in fields.into_iter().zip(numbers) {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !fraction.is_empty() && *unit != Unit::Second {
            return None;
        }
        let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*ms)?)?.checked_add(millis)?;
    }
    // Beyond this the constant could not be held; ten million years are enough for everybody.
    (total / DAY_MS < i64::from(i32::MAX)).then_some(Interval::Millis(total))
}

/// Flink's durations in options, in microseconds: `5 s`, `100ms`, `1 min`, `2 hours`, `1 d`; a bare number is ms.
pub(super) fn duration_us(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: i64 = digits.parse().ok()?;
    let us = match unit.trim().to_ascii_lowercase().as_str() {
        "d" | "day" | "days" => DAY_MS * 1000,
        "h" | "hour" | "hours" => HOUR_MS * 1000,
        "m" | "min" | "minute" | "minutes" => MINUTE_MS * 1000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND_MS * 1000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1000,
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1,
        _ => return None,
    };
    number.checked_mul(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_forms() {
        for (text, from, to, expected) in [
            ("1", Unit::Hour, Unit::Hour, Some(Interval::Millis(3_600_000))),
            ("0.25", Unit::Second, Unit::Second, Some(Interval::Millis(250))),
            ("1 02:03:04.5", Unit::Day, Unit::Second, Some(Interval::Millis(93_784_500))),
            ("1:30", Unit::Minute, Unit::Second, Some(Interval::Millis(90_000))),
            ("1-2", Unit::Year, Unit::Month, Some(Interval::Months(14))),
            ("1:30", Unit::Minute, Unit::Minute, None),
            ("x", Unit::Minute, Unit::Minute, None),
            ("99999999999999999999", Unit::Day, Unit::Day, None),
        ] {
            assert_eq!(parts(text, from, to), expected, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("5 s", Some(5_000_000)),
            ("100ms", Some(100_000)),
            ("1 min", Some(60_000_000)),
            ("2 hours", Some(7_200_000_000)),
            ("7", Some(7_000)),
            ("s", None),
            ("5 lightyears", None),
        ] {
            assert_eq!(duration_us(text), expected, "{text}");
        }
    }

    #[test]
    fn scalars_go_there_and_back() {
        for interval in [Interval::Months(-3), Interval::Millis(-93_784_500), Interval::Millis(1), Interval::Millis(0)]
        {
            assert_eq!(Interval::from_scalar(&interval.scalar()), Some(interval));
        }
    }
}
