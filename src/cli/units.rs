//! Durations and sizes as people write them: `90s`, `1h 30m`, `7d`, `500ms`; `10GiB`, `64 KiB`, `1000`. Append times as they are shown.

use crate::error::{Error, Result};
use crate::types::AppendTime;
use chrono::DateTime;

const DURATIONS: [(&str, i64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
];

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number and what follows it, up to the next number.
fn take_part(text: &str) -> Option<(u64, &str, &str)> {
    let text = text.trim_start();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    Some((number.parse().ok()?, unit.trim(), rest))
}

/// A duration in us: numbers with the units us, ms, s, m, h, d, w, added up.
pub(super) fn parse_duration_us(text: &str) -> Result<i64> {
    let wrong = || {
        Error::input(format!("'{text}' is not a duration"))
            .with_hint("a number with us, ms, s, m, h, d or w: 90s, 1h 30m, 7d")
    };
    let (mut sum, mut rest) = (0i64, text);
    loop {
        let (number, unit, after) = take_part(rest).ok_or_else(wrong)?;
        let (_, unit_us) = DURATIONS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = i64::try_from(number).ok().and_then(|number| number.checked_mul(unit_us));
        sum = part.and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
        if rest.is_empty() {
            return Ok(sum);
        }
    }
}

/// A size in bytes: a number, alone or with B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
pub(super) fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || {
        Error::input(format!("'{text}' is not a size"))
            .with_hint("a number of bytes, or with kB, MB, GB, TB, KiB, MiB, GiB or TiB: 10GiB")
    };
    let (number, unit, rest) = take_part(text).ok_or_else(wrong)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let (_, bytes) = SIZES.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(bytes).filter(|_| rest.is_empty()).ok_or_else(wrong)
}

/// A duration as [`parse_duration_us`] reads it: in the largest unit that it is a whole number of.
pub(super) fn format_duration_us(duration_us: i64) -> String {
    let whole = DURATIONS.iter().rev().find(|(_, unit_us)| duration_us % unit_us == 0 && duration_us != 0);
    whole.map_or_else(|| "0s".to_owned(), |(name, unit_us)| format!("{}{name}", duration_us / unit_us))
}

/// A size as [`parse_bytes`] reads it: in the largest binary unit that it is a whole number of.
pub(super) fn format_bytes(bytes: u64) -> String {
    let binary = SIZES.iter().rev().filter(|(name, _)| name.ends_with("iB"));
    let whole = binary.into_iter().find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes != 0);
    whole.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// `2026-01-01T00:00:00.000000Z`; the microseconds since the epoch where no calendar has the time.
pub(super) fn format_append_time(time: AppendTime) -> String {
    let date = DateTime::from_timestamp_micros(time.0);
    date.map_or_else(|| time.0.to_string(), |date| date.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes() {
        for (text, us) in [("7d", 604_800_000_000), ("1h 30m", 5_400_000_000), ("1h30m", 5_400_000_000), ("0s", 0)] {
            assert_eq!(parse_duration_us(text).ok(), Some(us), "{text}");
        }
        for (text, bytes) in [("10GiB", 10 << 30), ("64 KiB", 64 << 10), ("1000", 1000), ("2 MB", 2_000_000)] {
            assert_eq!(parse_bytes(text).ok(), Some(bytes), "{text}");
        }
        for bad in ["", "7", "d", "7 days", "-1s", "1.5h", "99999999999999w", "1h 30"] {
            assert!(parse_duration_us(bad).is_err(), "{bad}");
        }
        for bad in ["", "GiB", "1 GiB 2", "-1", "1.5GiB", "99999999999TiB", "1 gib"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((format_duration_us(90_000_000), format_bytes(1 << 30)), ("90s".to_owned(), "1GiB".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_typed(duration_us in 0i64.., bytes in 0u64..) {
            prop_assert_eq!(parse_duration_us(&format_duration_us(duration_us)).ok(), Some(duration_us));
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)).ok(), Some(bytes));
        }
    }
}
