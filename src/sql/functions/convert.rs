//! CAST as Flink does it: see the table in the documentation of `sql`.

use super::super::arithmetic::is_numeric;
use super::super::expr::Typed;
use super::super::types;
use super::civil::{DAY_MS, format_date, parse_date, parse_timestamp};
use super::kernel::{Kernel, make_in};
use super::math::round_decimal;
use crate::engine::plan::Zone;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int64Array, ListArray, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMillisecondType};
use datafusion_common::{Result, exec_datafusion_err, exec_err};
use std::sync::Arc;

/// A cast that can fail or that Arrow does in another way.
pub(in super::super) fn convert(
    typed: Typed,
    target: &DataType,
    attempt: bool,
    zone: Option<Zone>,
) -> Result<Typed, String> {
    if !castable(&typed.data_type, target) {
        let (from, to) = (types::name(&typed.data_type), types::name(target));
        let hint = match (&typed.data_type, target) {
            (DataType::Timestamp(..), to) if is_numeric(to) => ": use EXTRACT(EPOCH FROM ...)",
            (from, DataType::Timestamp(..)) if is_numeric(from) => ": use TO_TIMESTAMP_LTZ(x, 3)",
            _ => "",
        };
        return Err(format!("cannot cast {from} to {to}{hint}"));
    }
    // A decimal with too many digits becomes NULL, as in Flink.
    let nullable = typed.nullable || attempt || matches!(target, DataType::Decimal128(..));
    let name = if attempt { "TRY_CAST" } else { "CAST" };
    let parameter = format!("{} AS {}", types::name(&typed.data_type), types::name(target));
    let kernel: Kernel = match attempt {
        true => |args| Caster { attempt: true, zone: args.zone }.array(&args.full(0)?, args.result),
        false => |args| Caster { attempt: false, zone: args.zone }.array(&args.full(0)?, args.result),
    };
    Ok(make_in(zone, (name, parameter), vec![typed], (target.clone(), nullable), kernel))
}

fn castable(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (a, b) if a == b => true,
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| castable(a.data_type(), b.data_type()))
        }
        (T::List(a), T::List(b)) => castable(a.data_type(), b.data_type()),
        (T::Struct(_) | T::List(_), _) | (_, T::Struct(_) | T::List(_)) => false,
        (T::Utf8, _) | (_, T::Utf8) => true,
        (T::Boolean, b) => is_numeric(b),
        (a, T::Boolean) => is_numeric(a),
        (T::Date32 | T::Timestamp(..), T::Date32 | T::Timestamp(..)) => true,
        (a, b) => is_numeric(a) && is_numeric(b),
    }
}

/// How values are cast.
#[derive(Clone, Copy)]
struct Caster {
    /// A value that does not fit is NULL, else an error.
    attempt: bool,
    /// Of the local time that TIMESTAMP_LTZ is shown in; `None`: UTC.
    zone: Option<Zone>,
}

impl Caster {
    fn array(self, from: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        use DataType as T;
        if from.data_type() == to {
            return Ok(Arc::clone(from));
        }
        match (from.data_type(), to) {
            (T::Struct(_), T::Struct(fields)) => {
                let row = from.as_struct();
                let columns = row.columns().iter().zip(fields).map(|(c, f)| self.array(c, f.data_type()));
                let columns = columns.collect::<Result<Vec<_>>>()?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), columns, row.nulls().cloned())?))
            }
            (T::List(_), T::List(item)) => {
                let list = from.as_list::<i32>();
                let values = self.array(list.values(), item.data_type())?;
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
            }
            // Values of TIMESTAMP_LTZ are moments; all else is local time.
            (T::Timestamp(_, Some(_)), _) => self.array(&self.local(from), to),
            (T::Utf8 | T::Date32 | T::Timestamp(..), T::Timestamp(_, Some(_))) => {
                let local = self.array(from, &types::timestamp())?;
                Ok(cast(&self.moments(&local), to)?)
            }
            (T::Utf8, _) => from_text(from.as_string::<i32>(), to, self.attempt),
            (_, T::Utf8) => to_text(from),
            _ => numbers_and_days(from, to),
        }
    }

    /// TIMESTAMP_LTZ as TIMESTAMP.
    fn local(self, moments: &ArrayRef) -> ArrayRef {
        let moments = moments.as_primitive::<TimestampMillisecondType>();
        Arc::new(match self.zone {
            None => moments.clone().with_timezone_opt(None::<&str>),
            Some(zone) => {
                moments.unary::<_, TimestampMillisecondType>(|ms| zone.local(ms)).with_timezone_opt(None::<&str>)
            }
        })
    }

    /// TIMESTAMP as moments.
    fn moments(self, local: &ArrayRef) -> ArrayRef {
        match self.zone {
            None => Arc::clone(local),
            Some(zone) => {
                let local = local.as_primitive::<TimestampMillisecondType>();
                Arc::new(local.unary::<_, TimestampMillisecondType>(|ms| zone.moment(ms)))
            }
        }
    }
}

fn numbers_and_days(from: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    use DataType as T;
    match (from.data_type(), to) {
        (T::Date32, T::Timestamp(..)) => {
            let days = from.as_primitive::<Date32Type>();
            let ms: TimestampMillisecondArray = days.iter().map(|day| day.map(|d| i64::from(d) * DAY_MS)).collect();
            Ok(cast(&ms, to)?)
        }
        (T::Timestamp(..), T::Date32) => {
            let ms = from.as_primitive::<TimestampMillisecondType>();
            let day = |ms: i64| i32::try_from(ms.div_euclid(DAY_MS)).unwrap_or(i32::MAX);
            Ok(Arc::new(ms.iter().map(|ms| ms.map(day)).collect::<Date32Array>()))
        }
        (T::Boolean, T::Int8 | T::Int16 | T::Int32 | T::Int64) => Ok(cast(from, to)?),
        (T::Boolean, _) => numbers_and_days(&cast(from, &T::Int32)?, to),
        (_, T::Boolean) => {
            let number = cast(from, &T::Float64)?;
            let number = number.as_primitive::<Float64Type>();
            Ok(Arc::new(number.iter().map(|n| n.map(|n| n != 0.0)).collect::<BooleanArray>()))
        }
        (a, _) if a.is_integer() => from_integer(from, to),
        (T::Decimal128(_, scale), _) => from_decimal(from.as_primitive(), *scale, to),
        (T::Float32 | T::Float64, _) => from_float(from, to),
        (a, b) => exec_err!("cannot cast {} to {}", types::name(a), types::name(b)),
    }
}

fn from_integer(from: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let wide = cast(from, &DataType::Int64)?;
    let wide = wide.as_primitive::<Int64Type>();
    match to {
        DataType::Decimal128(precision, scale) => {
            decimals(wide.iter().map(|v| v.map(i128::from)), 0, *precision, *scale)
        }
        _ => narrow(wide, to),
    }
}

/// As Java narrows: the low bits stay.
#[expect(clippy::cast_possible_truncation, reason = "Java's narrowing")]
fn narrow(wide: &Int64Array, to: &DataType) -> Result<ArrayRef> {
    let cut = |value: i64| match to {
        DataType::Int8 => i64::from(value as i8),
        DataType::Int16 => i64::from(value as i16),
        DataType::Int32 => i64::from(value as i32),
        _ => value,
    };
    let values: Int64Array = wide.iter().map(|value| value.map(cut)).collect();
    Ok(cast(&values, to)?)
}

fn from_decimal(from: &Decimal128Array, scale: i8, to: &DataType) -> Result<ArrayRef> {
    match to {
        DataType::Decimal128(p, s) => decimals(from.iter(), scale, *p, *s),
        DataType::Float32 | DataType::Float64 => {
            let number = |value: i128| decimal_text(value, scale).parse::<f64>().unwrap_or(f64::NAN);
            let numbers: Float64Array = from.iter().map(|value| value.map(number)).collect();
            Ok(cast(&numbers, to)?)
        }
        _ => {
            let unit = 10i128.pow(u32::from(scale.unsigned_abs()));
            #[expect(clippy::cast_possible_truncation, reason = "Java's narrowing")]
            let whole: Int64Array = from.iter().map(|value| value.map(|value| (value / unit) as i64)).collect();
            narrow(&whole, to)
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "float to integer saturates, as in Java")]
fn from_float(from: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let single = *from.data_type() == DataType::Float32;
    let wide = cast(from, &DataType::Float64)?;
    let wide = wide.as_primitive::<Float64Type>();
    match to {
        DataType::Float32 | DataType::Float64 => Ok(cast(wide, to)?),
        DataType::Decimal128(p, s) => {
            let texts = wide.iter().map(|v| v.map(|v| if single { format!("{}", v as f32) } else { format!("{v}") }));
            let values = texts.map(|text| text.and_then(|text| parse_decimal(&text, *p, *s)));
            Ok(Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(*p, *s)?))
        }
        DataType::Int64 => Ok(Arc::new(wide.iter().map(|v| v.map(|v| v as i64)).collect::<Int64Array>())),
        _ => narrow(&wide.iter().map(|v| v.map(|v| i64::from(v as i32))).collect(), to),
    }
}

fn decimals(values: impl Iterator<Item = Option<i128>>, from: i8, precision: u8, scale: i8) -> Result<ArrayRef> {
    let limit = 10u128.checked_pow(u32::from(precision)).unwrap_or(u128::MAX);
    let fit = |value: i128| {
        let value = round_decimal(value, i32::from(from), i32::from(scale))?;
        (value.unsigned_abs() < limit).then_some(value)
    };
    let values: Decimal128Array = values.map(|value| value.and_then(fit)).collect();
    Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
}

fn from_text(from: &StringArray, to: &DataType, attempt: bool) -> Result<ArrayRef> {
    use DataType as T;
    Ok(match to {
        T::Boolean => Arc::new(read(from, to, attempt, parse_boolean)?.collect::<BooleanArray>()),
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => {
            let (least, most) = match to {
                T::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
                T::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
                T::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            let parse = |text: &str| parse_integer(text).filter(|value| (least..=most).contains(value));
            cast(&read(from, to, attempt, parse)?.collect::<Int64Array>(), to)?
        }
        T::Float32 => Arc::new(read(from, to, attempt, |text| text.trim().parse().ok())?.collect::<Float32Array>()),
        T::Float64 => Arc::new(read(from, to, attempt, |text| text.trim().parse().ok())?.collect::<Float64Array>()),
        T::Decimal128(p, s) => {
            let parsed = read(from, to, attempt, |text| parse_decimal(text, *p, *s))?;
            Arc::new(parsed.collect::<Decimal128Array>().with_precision_and_scale(*p, *s)?)
        }
        T::Date32 => {
            let parse = |text: &str| parse_date(text).and_then(|days| i32::try_from(days).ok());
            Arc::new(read(from, to, attempt, parse)?.collect::<Date32Array>())
        }
        T::Timestamp(..) => {
            cast(&read(from, to, attempt, parse_timestamp)?.collect::<TimestampMillisecondArray>(), to)?
        }
        T::Binary => Arc::new(from.iter().map(|text| text.map(str::as_bytes)).collect::<BinaryArray>()),
        other => return exec_err!("cannot cast STRING to {}", types::name(other)),
    })
}

/// Parses each text; the first that does not parse is an error unless `attempt`.
fn read<T>(
    from: &StringArray,
    to: &DataType,
    attempt: bool,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<std::vec::IntoIter<Option<T>>> {
    let mut values = Vec::with_capacity(from.len());
    for text in from {
        let value = match text {
            None => None,
            Some(text) => match parse(text) {
                None if !attempt => {
                    let shown: String = text.chars().take(40).collect();
                    return Err(exec_datafusion_err!("'{shown}' is no {}", types::name(to)));
                }
                value => value,
            },
        };
        values.push(value);
    }
    Ok(values.into_iter())
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// An integer; digits behind a point are checked and cut.
fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| whole.parse().ok()).flatten()
}

/// A decimal number, also with an exponent, rounded half up to `scale`.
fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let text = text.trim();
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let all_digits = unsigned.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if !all_digits || unsigned.len() + fraction.len() == 0 {
        return None;
    }
    // More than 38 digits behind the point cannot change the result but for ties; they are cut.
    let fraction = &fraction[..fraction.len().min(38)];
    let digits: i128 = format!("{unsigned}{fraction}")
        .trim_start_matches('0')
        .parse()
        .or_else(|_| if unsigned.bytes().chain(fraction.bytes()).all(|b| b == b'0') { Ok(0) } else { Err(()) })
        .ok()?;
    let digits = if whole.starts_with('-') { -digits } else { digits };
    let from = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    let value = round_decimal(digits, from, i32::from(scale))?;
    (value.unsigned_abs() < 10u128.checked_pow(u32::from(precision))?).then_some(value)
}

/// A decimal's digits with the point in its place.
fn decimal_text(value: i128, scale: i8) -> String {
    let scale = usize::from(scale.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn to_text(from: &ArrayRef) -> Result<ArrayRef> {
    use DataType as T;
    let texts: StringArray = match from.data_type() {
        T::Boolean => from.as_boolean().iter().map(|v| v.map(|v| if v { "TRUE" } else { "FALSE" })).collect(),
        T::Float64 => {
            let numbers = from.as_primitive::<Float64Type>();
            numbers.iter().map(|v| v.map(|v| java_number(v, format!("{v:e}")))).collect()
        }
        T::Float32 => {
            let numbers = from.as_primitive::<arrow::datatypes::Float32Type>();
            numbers.iter().map(|v| v.map(|v| java_number(f64::from(v), format!("{v:e}")))).collect()
        }
        T::Decimal128(_, scale) => {
            let numbers = from.as_primitive::<Decimal128Type>();
            numbers.iter().map(|v| v.map(|v| decimal_text(v, *scale))).collect()
        }
        T::Date32 => {
            let days = from.as_primitive::<Date32Type>();
            days.iter().map(|v| v.map(|v| format_date(i64::from(v)))).collect()
        }
        T::Timestamp(..) => {
            let ms = from.as_primitive::<TimestampMillisecondType>();
            ms.iter().map(|v| v.map(super::time::to_text)).collect()
        }
        T::Binary => {
            let bytes = from.as_binary::<i32>();
            bytes.iter().map(|v| v.map(|v| String::from_utf8_lossy(v).into_owned())).collect()
        }
        _ => return Ok(cast(from, &T::Utf8)?),
    };
    Ok(Arc::new(texts))
}

/// A float as Java writes it: `1.0`, `1.5E10`, `NaN`; `scientific` is its shortest form `1.5e10`.
fn java_number(value: f64, scientific: String) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    if value != 0.0 && !(-3..7).contains(&exponent) {
        let point = if mantissa.contains('.') { "" } else { ".0" };
        return format!("{sign}{mantissa}{point}E{exponent}");
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    let digits = format!("{digits:0<width$}", width = whole + 1);
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_java_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.001, "0.001"),
            (0.0001, "1.0E-4"),
            (1_234_567.0, "1234567.0"),
            (12_345_678.0, "1.2345678E7"),
            (-1.5e300, "-1.5E300"),
            (123.456, "123.456"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(java_number(value, format!("{value:e}")), expected);
        }
    }

    #[test]
    fn decimals_are_read_and_rounded_half_up() {
        for (text, precision, scale, expected) in [
            ("1.005", 10, 2, Some(101)),
            ("-1.005", 10, 2, Some(-101)),
            ("1e3", 10, 1, Some(10_000)),
            ("12.5e-1", 10, 2, Some(125)),
            ("100", 2, 0, None),
            ("", 10, 2, None),
            (".5", 10, 1, Some(5)),
            ("1.2.3", 10, 1, None),
            ("0.00", 10, 1, Some(0)),
        ] {
            assert_eq!(parse_decimal(text, precision, scale), expected, "{text}");
        }
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(1234, 0), "1234");
    }
}
