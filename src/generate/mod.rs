//! Made-up events: an event is a function of the seed, the options and its number, so the same command gives the same bytes.

pub mod nexmark;
pub mod web;

use crate::codec::xxh64;

/// Makes events one after the other.
pub trait Maker: Send {
    /// Writes the value of the next event, one line of JSON, behind what `value` holds, and says where it goes.
    fn make(&mut self, value: &mut Vec<u8>) -> Made;
}

/// An event beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Partition of its topic.
    pub partition: u32,
    /// Event time.
    pub time_ms: i64,
    /// Key of the record: a user or a bidder.
    pub key: String,
}

/// First and last event time that can be asked for: years of four digits, with room for records from the far future.
pub const START_MS: std::ops::RangeInclusive<i64> = 0..=221_845_392_000_000;

/// Random numbers of one event: `SplitMix64`, started at the XXH64 of the event's number under the seed.
#[derive(Debug, Clone)]
struct Draws(u64);

impl Draws {
    fn new(seed: u64, number: u64) -> Draws {
        Draws(xxh64(&number.to_le_bytes(), seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        (wide >> 64) as u64
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// True for this share of events.
    fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < share
    }
}

/// Writes `2026-01-01 00:00:00.000`, the form that a TIMESTAMP(3) column of JSON has in Flink and here.
fn push_time(out: &mut Vec<u8>, ms: i64) {
    const DAY_MS: i64 = 86_400_000;
    let (days, ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    for (number, digits, mark) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b' '),
        (ms / 3_600_000, 2, b':'),
        (ms / 60_000 % 60, 2, b':'),
        (ms / 1000 % 60, 2, b'.'),
        (ms % 1000, 3, b'"'),
    ] {
        push_digits(out, number, digits);
        out.push(mark);
    }
    out.pop();
}

/// Year, month and day of a day number (0 = 1970-01-01). Years are counted from 1 March, so that a leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Writes the last `digits` decimal digits of a number that is not negative.
fn push_digits(out: &mut Vec<u8>, number: i64, digits: usize) {
    let (at, mut rest) = (out.len(), number);
    out.resize(at + digits, b'0');
    for digit in out[at..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Writes a number.
fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_splitmix64() {
        // Reference values of the published algorithm for the state 1234567.
        let mut draws = Draws(1_234_567);
        assert_eq!(
            [draws.next(), draws.next(), draws.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
        let mut draws = Draws::new(1, 2);
        assert!((0..1000).all(|_| draws.below(7) < 7) && draws.below(0) == 0);
        let hits = (0..10_000).filter(|_| draws.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!draws.chance(0.0) && draws.chance(1.0));
    }

    #[test]
    fn times_and_numbers() {
        let text = |ms| {
            let mut out = Vec::new();
            push_time(&mut out, ms);
            String::from_utf8(out).expect("digits")
        };
        assert_eq!(text(0), "1970-01-01 00:00:00.000");
        assert_eq!(text(951_782_400_123), "2000-02-29 00:00:00.123");
        assert_eq!(text(1_583_020_799_000), "2020-02-29 23:59:59.000");
        assert_eq!(text(*START_MS.end()), "9000-01-01 00:00:00.000");
        let mut out = Vec::new();
        [0, 9, 10, u64::MAX].into_iter().for_each(|number| push_number(&mut out, number));
        assert_eq!(out, b"091018446744073709551615");
    }
}
