//! Numbers and times as text, read and written as Flink's formats do: shared by JSON and CSV.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use std::fmt::Write;

const SECONDS_PER_DAY: i64 = 86_400;

/// A time since 1970-01-01T00:00:00 as whole seconds (rounded down) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seconds {
    pub whole: i64,
    pub nanos: u32,
}

impl Seconds {
    /// The same time in `unit`, rounded down; `None`: beyond 64 bits.
    pub(super) fn to_unit(self, unit: TimeUnit) -> Option<i64> {
        let per_second = units_per_second(unit);
        let part = i64::from(self.nanos) / (NANOS_PER_SECOND / per_second);
        self.whole.checked_mul(per_second)?.checked_add(part)
    }

    /// A time of `unit`.
    #[inline]
    pub(super) fn from_unit(value: i64, unit: TimeUnit) -> Self {
        let per_second = units_per_second(unit);
        let nanos = value.rem_euclid(per_second) * (NANOS_PER_SECOND / per_second);
        Seconds { whole: value.div_euclid(per_second), nanos: small(nanos) }
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

#[inline]
fn units_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS_PER_SECOND,
    }
}

/// How a timestamp text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimestampLayout {
    /// Between date and time: `b' '` or `b'T'`.
    pub separator: u8,
    /// `Z` at the end.
    pub zone: bool,
}

/// Day number since 1970-01-01 of a date of the proleptic Gregorian calendar.
pub(super) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day number since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = small(days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (i64::from(year_of_era) + era * 400 + i64::from(month <= 2), month, day)
}

/// A calendar part, known to be small and not negative.
fn small(part: i64) -> u32 {
    u32::try_from(part).unwrap_or(0)
}

/// Days of a month of the proleptic Gregorian calendar.
pub(super) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The next `count` decimal digits as a number, and what is behind them.
fn digits(bytes: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(count)?;
    let mut number = 0;
    for byte in head {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u32::from(digit);
    }
    Some((number, rest))
}

fn literal(bytes: &[u8], byte: u8) -> Option<&[u8]> {
    bytes.split_first().filter(|(first, _)| **first == byte).map(|(_, rest)| rest)
}

/// A year: four digits, or a sign and four to nine (more than four need `+`).
fn year(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, signed, body) = match bytes.first()? {
        b'-' => (true, true, bytes.get(1..)?),
        b'+' => (false, true, bytes.get(1..)?),
        _ => (false, false, bytes),
    };
    let count = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let plus = signed && !negative;
    if !(4..=9).contains(&count) || (count > 4 && !signed) || (count == 4 && plus) {
        return None;
    }
    let (number, rest) = digits(body, count)?;
    let number = i64::from(number);
    (!(negative && number == 0)).then_some((if negative { -number } else { number }, rest))
}

/// What becomes of days up to 31 that a shorter month does not have. Flink does each of these somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShortMonth {
    /// Not a date.
    Refuse,
    /// The last day of the month.
    LastDay,
    /// Days of the next month.
    NextMonth,
}

fn date(bytes: &[u8], rule: ShortMonth) -> Option<(i64, &[u8])> {
    let (year, rest) = year(bytes)?;
    let (month, rest) = digits(literal(rest, b'-')?, 2)?;
    let (day, rest) = digits(literal(rest, b'-')?, 2)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let last = days_in_month(year, month);
    let day = match rule {
        ShortMonth::Refuse if day > last => return None,
        ShortMonth::LastDay => day.min(last),
        ShortMonth::Refuse | ShortMonth::NextMonth => day,
    };
    Some((days_from_civil(year, month, day), rest))
}

/// A time of day in seconds and nanoseconds. `24:00:00` is the end of the day. Without `full`, seconds may be missing.
fn time(bytes: &[u8], full: bool) -> Option<(i64, u32, &[u8])> {
    let (hour, rest) = digits(bytes, 2)?;
    let (minute, rest) = digits(literal(rest, b':')?, 2)?;
    let (second, rest) = match literal(rest, b':') {
        Some(rest) => digits(rest, 2)?,
        None if full => return None,
        None => (0, rest),
    };
    let (nanos, rest) = match literal(rest, b'.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    let end_of_day = hour == 24 && minute == 0 && second == 0 && nanos == 0;
    if (hour > 23 && !end_of_day) || minute > 59 || second > 59 {
        return None;
    }
    Some((i64::from(hour * 3600 + minute * 60 + second), nanos, rest))
}

/// Zero to nine digits behind the point, as nanoseconds.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = digits(bytes, (count <= 9).then_some(count)?)?;
    Some((number * 10u32.pow(9 - u32::try_from(count).ok()?), rest))
}

/// Reads a timestamp; the fraction has zero to nine digits. `None`: it is not one.
pub(super) fn parse_timestamp(text: &[u8], layout: TimestampLayout) -> Option<Seconds> {
    let (days, rest) = date(text, ShortMonth::LastDay)?;
    let (seconds, nanos, rest) = time(literal(rest, layout.separator)?, layout.separator == b' ')?;
    let rest = if layout.zone { literal(rest, b'Z')? } else { rest };
    rest.is_empty().then_some(Seconds { whole: days * SECONDS_PER_DAY + seconds, nanos })
}

/// Reads `yyyy-MM-dd` as days since 1970-01-01.
pub(super) fn parse_date(text: &[u8], rule: ShortMonth) -> Option<i32> {
    let (days, rest) = date(text, rule)?;
    if rest.is_empty() { i32::try_from(days).ok() } else { None }
}

/// Reads `HH:mm:ss` with an optional fraction as milliseconds of the day.
pub(super) fn parse_time_ms(text: &[u8]) -> Option<i32> {
    let (seconds, nanos, rest) = time(text, true)?;
    let ms = (seconds % SECONDS_PER_DAY) * 1000 + i64::from(nanos / 1_000_000);
    if rest.is_empty() { i32::try_from(ms).ok() } else { None }
}

/// A number below 100 as two digits.
fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Writes an integer.
pub(super) fn put_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [[0; 2]; 10];
    let mut rest = value.unsigned_abs();
    let mut first = digits.len();
    for (index, pair) in digits.iter_mut().enumerate().rev() {
        *pair = two_digits((rest % 100) as u32);
        first = index;
        rest /= 100;
        if rest == 0 {
            break;
        }
    }
    let written = digits.get(first..).unwrap_or_default().as_flattened();
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(written.strip_prefix(b"0").filter(|rest| !rest.is_empty()).unwrap_or(written));
}

/// Writes a date as `yyyy-MM-dd`.
pub(super) fn put_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_from_days(days);
    let short = small(year.abs());
    if short <= 9999 {
        if year < 0 {
            out.push(b'-');
        }
        let [[a, b], [c, d]] = [two_digits(short / 100), two_digits(short)];
        out.extend_from_slice(&[a, b, c, d]);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        put_integer(out, year.abs());
    }
    let [[a, b], [c, d]] = [two_digits(month), two_digits(day)];
    out.extend_from_slice(&[b'-', a, b, b'-', c, d]);
}

/// Writes a time of day, with as many digits of the fraction as are not trailing zeros.
pub(super) fn put_time(out: &mut Vec<u8>, second_of_day: u32, nanos: u32) {
    let [a, b] = two_digits(second_of_day / 3600);
    let [c, d] = two_digits(second_of_day / 60 % 60);
    let [e, f] = two_digits(second_of_day % 60);
    out.extend_from_slice(&[a, b, b':', c, d, b':', e, f]);
    if nanos > 0 {
        put_fraction(out, nanos);
    }
}

/// Writes nanoseconds, not all zero, as digits behind a point, without zeros at the end.
fn put_fraction(out: &mut Vec<u8>, nanos: u32) {
    // Milliseconds are what mostly comes.
    let (mut rest, mut len) = if nanos.is_multiple_of(1_000_000) { (nanos / 1_000_000, 3) } else { (nanos, 9) };
    while rest.is_multiple_of(10) {
        (rest, len) = (rest / 10, len - 1);
    }
    let mut fraction = *b".000000000";
    for digit in fraction.iter_mut().take(len + 1).skip(1).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(fraction.get(..=len).unwrap_or_default());
}

/// Writes a timestamp.
pub(super) fn put_timestamp(out: &mut Vec<u8>, time: Seconds, layout: TimestampLayout) {
    put_date(out, time.whole.div_euclid(SECONDS_PER_DAY));
    out.push(layout.separator);
    put_time(out, small(time.whole.rem_euclid(SECONDS_PER_DAY)), time.nanos);
    if layout.zone {
        out.push(b'Z');
    }
}

/// Writes anything as its `Display` text.
pub(super) fn put_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // Writing into a Vec cannot fail.
    let _ = write!(Bytes(out), "{value}");
}

/// Writes a finite floating-point number as Java does: at least one digit on both sides of the point, an exponent
/// (`1.0E10`) below 10^-3 and from 10^7 on. `scientific` is the shortest text that reads back, as `{:e}` prints it.
pub(super) fn put_float(out: &mut Vec<u8>, scientific: &str) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (first, rest) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    out.extend_from_slice(sign.as_bytes());
    if !(-3..7).contains(&exponent) {
        out.extend_from_slice(first.as_bytes());
        out.push(b'.');
        out.extend_from_slice(if rest.is_empty() { b"0" } else { rest.as_bytes() });
        out.push(b'E');
        put_display(out, exponent);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', usize::try_from(-exponent - 1).unwrap_or(0)));
        out.extend_from_slice(first.as_bytes());
        out.extend_from_slice(rest.as_bytes());
    } else {
        let places = usize::try_from(exponent).unwrap_or(0);
        let (whole, fraction) = rest.split_at(places.min(rest.len()));
        out.extend_from_slice(first.as_bytes());
        out.extend_from_slice(whole.as_bytes());
        out.extend(std::iter::repeat_n(b'0', places - whole.len()));
        out.push(b'.');
        out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction.as_bytes() });
    }
}

/// The text of a floating-point number as Rust reads it: decimal digits with an optional point, exponent and Java's ending
/// `f` or `d`, or Java's words for what is not finite.
fn float_text(text: &str) -> Option<&str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, "NaN" | "Infinity") {
        return Some(text);
    }
    let number = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let has_word = number.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E'));
    (!has_word).then_some(number)
}

/// Reads a DOUBLE.
pub(super) fn parse_f64(text: &str) -> Option<f64> {
    float_text(text)?.parse().ok()
}

/// Reads a FLOAT.
pub(super) fn parse_f32(text: &str) -> Option<f32> {
    float_text(text)?.parse().ok()
}

/// A decimal text that did not become a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotDecimal {
    /// Not a number.
    Malformed,
    /// More digits before the point than the type has.
    Overflow,
}

/// Reads a decimal number (exponents allowed) as its value times 10^scale, rounded half away from zero.
pub(super) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, NotDecimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| NotDecimal::Malformed)?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
        return Err(NotDecimal::Malformed);
    }
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|byte| *byte == b'0').map(|byte| byte - b'0');
    let count = i64::try_from(digits().count()).map_err(|_| NotDecimal::Overflow)?;
    if count == 0 {
        return Ok(0);
    }
    // Digits to keep so that the last one kept has the weight 10^-scale.
    let fraction_len = i64::try_from(fraction.len()).map_err(|_| NotDecimal::Overflow)?;
    let kept = count - fraction_len + i64::from(exponent) + i64::from(scale);
    if kept > i64::from(precision) {
        return Err(NotDecimal::Overflow);
    }
    let Ok(kept) = usize::try_from(kept) else { return Ok(0) };
    let rounds_up = digits().nth(kept).is_some_and(|digit| digit >= 5);
    let value = digits().chain(std::iter::repeat(0)).take(kept).fold(0i128, |sum, digit| sum * 10 + i128::from(digit));
    let value = value + i128::from(rounds_up);
    if value >= 10i128.pow(u32::from(precision)) {
        return Err(NotDecimal::Overflow);
    }
    Ok(if negative { -value } else { value })
}

/// Writes a decimal: `plain` with all digits of its scale, else as Java's `BigDecimal` without trailing zeros (`1E+1`, `1E-8`).
pub(super) fn put_decimal(out: &mut Vec<u8>, value: i128, scale: i8, plain: bool) {
    if value < 0 {
        out.push(b'-');
    }
    let (mut value, mut scale) = (value.unsigned_abs(), i32::from(scale));
    if !plain {
        if value == 0 {
            scale = 0;
        }
        while value != 0 && value.is_multiple_of(10) {
            value /= 10;
            scale -= 1;
        }
    }
    let digits = value.to_string();
    let exponent = i32::try_from(digits.len()).unwrap_or(i32::MAX) - 1 - scale;
    if !plain && (scale < 0 || exponent < -6) {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first.as_bytes());
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest.as_bytes());
        }
        out.push(b'E');
        if exponent > 0 {
            out.push(b'+');
        }
        put_display(out, exponent);
        return;
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.extend_from_slice(whole.as_bytes());
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// Whether [`put_scalar`] (or a plain string or boolean) can write the type.
pub(super) fn is_scalar(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(
        data_type,
        Boolean
            | Utf8
            | Int8
            | Int16
            | Int32
            | Int64
            | Float32
            | Float64
            | Binary
            | Date32
            | Timestamp(_, _)
            | Time32(TimeUnit::Millisecond)
    ) || matches!(data_type, Decimal128(_, scale) if *scale >= 0)
}

/// Writes the value in `row`, which is not NULL and of a scalar type but STRING and BOOLEAN.
pub(super) fn put_scalar(out: &mut Vec<u8>, array: &dyn Array, row: usize, separator: u8, plain_decimals: bool) {
    match array.data_type() {
        DataType::Int8 => put_integer(out, array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => put_integer(out, array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => put_integer(out, array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => put_integer(out, array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            put_real(out, f64::from(value), &format!("{value:e}"));
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            put_real(out, value, &format!("{value:e}"));
        }
        DataType::Decimal128(_, scale) => {
            put_decimal(out, array.as_primitive::<Decimal128Type>().value(row), *scale, plain_decimals);
        }
        DataType::Date32 => put_date(out, i64::from(array.as_primitive::<Date32Type>().value(row))),
        DataType::Time32(TimeUnit::Millisecond) => {
            let ms = array.as_primitive::<Time32MillisecondType>().value(row);
            let time = Seconds::from_unit(i64::from(ms), TimeUnit::Millisecond);
            put_time(out, small(time.whole), time.nanos);
        }
        DataType::Timestamp(unit, zone) => {
            use TimeUnit::*;
            // With the unit known where it is divided by.
            let time = match unit {
                Second => Seconds::from_unit(array.as_primitive::<TimestampSecondType>().value(row), Second),
                Millisecond => {
                    Seconds::from_unit(array.as_primitive::<TimestampMillisecondType>().value(row), Millisecond)
                }
                Microsecond => {
                    Seconds::from_unit(array.as_primitive::<TimestampMicrosecondType>().value(row), Microsecond)
                }
                Nanosecond => {
                    Seconds::from_unit(array.as_primitive::<TimestampNanosecondType>().value(row), Nanosecond)
                }
            };
            put_timestamp(out, time, TimestampLayout { separator, zone: zone.is_some() });
        }
        DataType::Binary => put_base64(out, array.as_binary::<i32>().value(row)),
        // The constructors of the encoders refuse all other types.
        _ => (),
    }
}

/// Writes a floating-point number, also one that is not finite.
fn put_real(out: &mut Vec<u8>, value: f64, scientific: &str) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-Infinity" } else { b"Infinity" });
    } else {
        put_float(out, scientific);
    }
}

/// A value for an error message: at most 40 characters, in quotes.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Reads base64 with padding (RFC 4648).
pub(super) fn parse_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let body = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text).as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for group in body.chunks(4) {
        let mut word = 0u32;
        for place in 0..4 {
            let sextet = match group.get(place) {
                Some(byte) => BASE64.iter().position(|letter| letter == byte)?,
                None => 0,
            };
            word = word << 6 | u32::try_from(sextet).ok()?;
        }
        let [_, decoded @ ..] = word.to_be_bytes();
        out.extend_from_slice(decoded.get(..group.len() * 3 / 4)?);
    }
    Some(out)
}

/// Writes base64 with padding.
pub(super) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4usize {
            let letter = BASE64.get((word >> (18 - 6 * place) & 63) as usize).copied();
            out.push(letter.filter(|_| place <= group.len()).unwrap_or(b'='));
        }
    }
}

/// A value as text; the reason when it is not.
pub(super) fn utf8(value: Option<&[u8]>) -> Result<&str, String> {
    let value = value.ok_or_else(|| "null value".to_owned())?;
    std::str::from_utf8(value).map_err(|cause| format!("not UTF-8 from byte {} on", cause.valid_up_to()))
}
