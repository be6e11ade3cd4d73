//! Texts eight, sixteen and thirty-two bytes at a time: where plain text ends, runs of digits, whole numbers, timestamps of fixed
//! layout. Functions take all the bytes from their place on, also those behind the text that is meant.

use super::text::{TimestampLayout, days_from_civil, days_in_month};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES * 0x80;
const QUOTES: u64 = ONES * b'"' as u64;
const ZEROS: u64 = ONES * b'0' as u64;
/// Carries bytes over 9 into their high bits.
const OVER_NINE: u64 = ONES * 0x76;
/// Carries bytes over 0 into their high bits.
const OVER_ZERO: u64 = 0x7F;

/// The first `N` bytes, zeros behind the end.
#[inline(always)]
fn window<const N: usize>(bytes: &[u8]) -> [u8; N] {
    match bytes.first_chunk() {
        Some(chunk) => *chunk,
        None => padded(bytes),
    }
}

#[cold]
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut window = [0; N];
    window.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    window
}

/// The first eight bytes, the first one lowest.
#[inline(always)]
fn eight(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(window(bytes))
}

/// The first sixteen bytes, the first one lowest.
#[inline(always)]
pub(super) fn sixteen(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(window(bytes))
}

/// Number of the first byte that is marked in its high bit.
#[inline(always)]
fn first_marked(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

/// Marks (in the high bits) quotes, backslashes and control characters; exact up to and including the first one.
#[inline(always)]
fn specials(word: u64) -> u64 {
    // With this bit changed, quotes stand behind the control characters, and the space does not: one comparison finds both.
    let quotes_and_controls = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslashes = (word ^ (ONES * 0x5C)).wrapping_sub(ONES);
    (quotes_and_controls | backslashes) & !word & HIGHS
}

/// Marks bytes that are no digits; exact up to and including the first one.
#[inline(always)]
fn others(word: u64) -> u64 {
    let digits = word ^ ZEROS;
    (digits.wrapping_add(OVER_NINE) | digits) & HIGHS
}

/// Length of the plain run that a JSON string goes on with: up to a quote, a backslash, a control character, or the end.
#[inline(always)]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let Some((window, behind)) = bytes.split_first_chunk::<32>() else { return run_len(bytes, specials) };
    let mut passed = 0;
    for word in window.as_chunks::<8>().0 {
        let marks = specials(u64::from_le_bytes(*word));
        if marks != 0 {
            return passed + first_marked(marks);
        }
        passed += 8;
    }
    passed + run_len(behind, specials)
}

/// Whether all bytes are ASCII and none is a backslash or a control character, so that strings end at the next quote.
pub(super) fn is_simple(bytes: &[u8]) -> bool {
    // Without branches, so that sixteen bytes are looked at in one step. Bytes beyond ASCII are negative.
    let odd = |byte: u8| u8::from(byte.cast_signed() < 0x20) | u8::from(byte == b'\\');
    bytes.iter().fold(0, |any, byte| any | odd(*byte)) == 0
}

/// [`plain_len`] among bytes that [`is_simple`] is true of (those behind them may be any: what it says may be wrong there).
#[inline(always)]
pub(super) fn simple_len(bytes: &[u8]) -> usize {
    let Some((window, behind)) = bytes.split_first_chunk::<32>() else { return run_len(bytes, specials) };
    let mut passed = 0;
    for word in window.as_chunks::<8>().0 {
        let marks = (u64::from_le_bytes(*word) ^ QUOTES).wrapping_sub(ONES) & HIGHS;
        if marks != 0 {
            return passed + first_marked(marks);
        }
        passed += 8;
    }
    passed + run_len(behind, specials)
}

/// Number of bytes before the first `byte`, or of all.
#[inline(always)]
pub(super) fn len_before(bytes: &[u8], byte: u8) -> usize {
    let marks = |word: u64| {
        let differing = word ^ (ONES * u64::from(byte));
        differing.wrapping_sub(ONES) & !differing & HIGHS
    };
    let Some((window, behind)) = bytes.split_first_chunk::<16>() else {
        return bytes.iter().position(|other| *other == byte).unwrap_or(bytes.len());
    };
    let mut passed = 0;
    for word in window.as_chunks::<8>().0 {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return passed + first_marked(marks);
        }
        passed += 8;
    }
    passed + memchr::memchr(byte, behind).unwrap_or(behind.len())
}

/// Length of the run of digits at the beginning.
#[inline(always)]
pub(super) fn digits_len(bytes: &[u8]) -> usize {
    let marks = others(eight(bytes));
    if marks != 0 { first_marked(marks) } else { run_len(bytes, others) }
}

/// Length of the run of bytes that `marks` does not mark.
#[inline(never)]
fn run_len(bytes: &[u8], marks: impl Fn(u64) -> u64) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return 8 * index + first_marked(marks);
        }
    }
    let marks = marks(eight(rest));
    // The zeros behind the end are marked: they are control characters, and no digits.
    bytes.len() - rest.len() + first_marked(marks).min(rest.len())
}

/// Whether all bytes of a word are below 10.
fn all_digits(digits: u64) -> bool {
    (digits.wrapping_add(OVER_NINE) | digits) & HIGHS == 0
}

/// The number that eight digit values are, the first one lowest in the word.
fn number(digits: u64) -> u64 {
    let twos = pairs(digits) & 0x00FF_00FF_00FF_00FF;
    let fours = twos.wrapping_mul(100).wrapping_add(twos >> 16) & 0x0000_FFFF_0000_FFFF;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF
}

/// The number that one to sixteen digits are: the first `len` bytes.
#[inline(always)]
fn unsigned(bytes: &[u8], len: usize) -> Option<u64> {
    // Digits move to the end of the word; zeros come in at its front.
    let digits = |bytes: &[u8], len: usize| {
        let digits = (eight(bytes) ^ ZEROS) << (64 - 8 * len);
        all_digits(digits).then(|| number(digits))
    };
    match len {
        1..=8 => digits(bytes, len),
        9..=16 => Some(digits(bytes, len - 8)? * 100_000_000 + digits(bytes.get(len - 8..)?, 8)?),
        _ => None,
    }
}

/// Whether there is a minus sign, and the `len - 1` bytes behind it or all `len`.
#[inline(always)]
fn split_sign(bytes: &[u8], len: usize) -> Option<(bool, &[u8], usize)> {
    if bytes.first() == Some(&b'-') {
        Some((true, bytes.get(1..)?, len.checked_sub(1)?))
    } else {
        Some((false, bytes, len))
    }
}

/// The value of the first `len` bytes if they are an optional minus sign and one to sixteen digits.
#[inline(always)]
pub(super) fn integer(bytes: &[u8], len: usize) -> Option<i64> {
    let (negative, bytes, len) = split_sign(bytes, len)?;
    let value = unsigned(bytes, len)?.cast_signed();
    Some(if negative { -value } else { value })
}

/// A number with digits behind the point: `digits / 10^scale`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fraction {
    negative: bool,
    digits: u64,
    scale: usize,
}

/// Powers of ten that a fraction may have.
const POWERS: [u64; 17] = {
    let mut powers = [1; 17];
    let mut power = 1;
    while power < powers.len() {
        powers[power] = powers[power - 1] * 10;
        power += 1;
    }
    powers
};

impl Fraction {
    /// The first `len` bytes if they are an optional minus sign and up to sixteen digits, with or without a point between two of them.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8], len: usize) -> Option<Self> {
        let (negative, bytes, len) = split_sign(bytes, len)?;
        let whole_len = digits_len(bytes).min(len);
        let whole = unsigned(bytes, whole_len)?;
        if whole_len == len {
            return Some(Fraction { negative, digits: whole, scale: 0 });
        }
        let behind = bytes.get(whole_len..)?.strip_prefix(b".")?;
        let scale = (len - whole_len - 1).min(16);
        if whole_len + 1 + scale < len || whole_len + scale > 16 {
            return None;
        }
        let digits = whole * POWERS.get(scale)? + unsigned(behind, scale)?;
        Some(Fraction { negative, digits, scale })
    }

    /// The number nearest to it; `None`: finding it takes more than one division.
    #[inline(always)]
    pub(super) fn to_f64(self) -> Option<f64> {
        // Both are exact in 53 bits, so the quotient is rounded once.
        let exact = (self.digits < 1 << 53).then_some(self.digits as f64)?;
        let value = exact / *POWERS.get(self.scale)? as f64;
        Some(if self.negative { -value } else { value })
    }

    /// The value times `10^scale`; `None`: it has more digits behind the point, or is not below `limit`.
    #[inline(always)]
    pub(super) fn to_decimal(self, scale: i8, limit: i128) -> Option<i128> {
        let missing = usize::try_from(scale).ok()?.checked_sub(self.scale)?;
        let value = i128::from(self.digits) * i128::from(*POWERS.get(missing)?);
        (value < limit).then_some(if self.negative { -value } else { value })
    }
}

/// Reads timestamps of the lengths that programs write, with seconds or milliseconds. Dates mostly are that of the row before.
#[derive(Debug)]
pub(super) struct FixedTimestamps {
    zone: bool,
    /// [`DAY_AND_TIME`] with the separator of the layout.
    day_and_time: (u64, u64),
    /// Year and month, and day, as they were written, and the first millisecond of that day.
    date: (u64, u64),
    day_ms: i64,
}

/// `0000-00-`, and what a word of it is checked with.
const DATE: (u64, u64) = (u64::from_le_bytes(*b"0000-00-"), checks(*b"0000-00-"));
const DAY_AND_TIME: (u64, u64) = (u64::from_le_bytes(*b"00 00:00"), checks(*b"00 00:00"));
const SECONDS: (u64, u64) = (u64::from_le_bytes(*b"00:00:00"), checks(*b"00:00:00"));
const MILLIS: (u64, u64) = (u64::from_le_bytes(*b"0:00.000"), checks(*b"0:00.000"));
const MS_PER_DAY: i64 = 86_400_000;

/// What to add to the differences between a word and its pattern so that wrong bytes get their high bits.
const fn checks(pattern: [u8; 8]) -> u64 {
    let mut checks = 0;
    let mut byte = 0;
    while byte < 8 {
        let add = if pattern[byte] == b'0' { OVER_NINE & 0xFF } else { OVER_ZERO };
        checks |= add << (8 * byte);
        byte += 1;
    }
    checks
}

/// For each byte of digit values, that digit and the next as one number.
fn pairs(digits: u64) -> u64 {
    digits.wrapping_mul(10).wrapping_add(digits >> 8)
}

/// The digit values of a word, zeros in the place of punctuation; `None`: the word does not follow the pattern.
#[inline(always)]
fn by_pattern(word: u64, (pattern, checks): (u64, u64)) -> Option<u64> {
    let digits = word ^ pattern;
    ((digits.wrapping_add(checks) | digits) & HIGHS == 0).then_some(digits)
}

/// The number of the two digits from `byte` on.
#[inline(always)]
fn two(digits: u64, byte: u32) -> i64 {
    (pairs(digits) >> (8 * byte) & 0xFF).cast_signed()
}

impl FixedTimestamps {
    /// A reader of timestamps of one layout.
    pub(super) fn new(layout: TimestampLayout) -> Self {
        let (pattern, checks) = DAY_AND_TIME;
        let pattern = pattern ^ u64::from(layout.separator ^ b' ') << 16;
        // No word of digits is all ones.
        FixedTimestamps { zone: layout.zone, day_and_time: (pattern, checks), date: (u64::MAX, 0), day_ms: 0 }
    }

    /// Milliseconds since 1970 that the first `len` bytes are, as [`super::text::parse_timestamp`] reads them. `None`: not of these
    /// lengths, or not the common case; it may still be a timestamp.
    #[inline(always)]
    pub(super) fn read(&mut self, bytes: &[u8], len: usize) -> Option<i64> {
        let bytes = bytes.first_chunk::<24>()?;
        let word = |at: usize| eight(bytes.get(at..).unwrap_or_default());
        let len = match self.zone {
            false => len,
            true => len.checked_sub(1).filter(|last| bytes.get(*last) == Some(&b'Z'))?,
        };
        let date = by_pattern(word(0), DATE)?;
        let time = by_pattern(word(8), self.day_and_time)?;
        let (second, ms) = match len {
            19 => (two(by_pattern(word(11), SECONDS)?, 6), 0),
            23 => {
                let millis = by_pattern(word(15), MILLIS)?;
                (two(millis, 2), (millis >> 40 & 0xFF).cast_signed() * 100 + two(millis, 6))
            }
            _ => return None,
        };
        let (hour, minute) = (two(time, 3), two(time, 6));
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let written = (date, time & 0xFFFF);
        if written != self.date {
            self.day_ms = day_ms(date, two(time, 0))?;
            self.date = written;
        }
        Some(self.day_ms + (hour * 3600 + minute * 60 + second) * 1000 + ms)
    }
}

/// First millisecond of a day.
fn day_ms(date: u64, day: i64) -> Option<i64> {
    let year = two(date, 0) * 100 + two(date, 2);
    let (month, day) = (u32::try_from(two(date, 5)).ok()?, u32::try_from(day).ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day.min(days_in_month(year, month))) * MS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::text::{parse_decimal, parse_timestamp};
    use arrow::datatypes::TimeUnit;
    use proptest::prelude::*;

    /// Texts with runs around the sizes of words and windows.
    fn runs(plain: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let any_byte = prop_oneof![Just(b'"'), Just(b'\\'), 0u8..0x24, any::<u8>()];
        (0usize..70, prop::collection::vec((0..plain.len(), any_byte), 0..4)).prop_map(|(len, others)| {
            let mut bytes: Vec<u8> = plain.bytes().cycle().take(len).collect();
            others.iter().for_each(|(at, byte)| bytes.insert(at * 7 % (bytes.len() + 1), *byte));
            bytes
        })
    }

    fn timestamp(separator: u8, zone: bool) -> impl Strategy<Value = String> {
        let separator = if separator == b' ' { " " } else { "T" };
        let end = if zone { "Z" } else { "" };
        let date = "([0-9]{4}|2024|2100|1900)-([01][0-9])-([0-3][0-9])";
        let time = "([0-2][0-9]|24):([0-5][0-9]|60):([0-5][0-9]|6[0-9])(\\.[0-9]{3})?";
        (date, time, prop::option::weighted(0.3, (0usize..24, any::<char>()))).prop_map(move |(date, time, change)| {
            let mut text = format!("{date}{separator}{time}{end}");
            if let Some((at, to)) = change.filter(|(at, _)| *at < text.len()) {
                text.replace_range(at..=at, to.encode_utf8(&mut [0; 4]));
            }
            text
        })
    }

    proptest! {
        #[test]
        fn runs_end_at_the_first_other_byte(text in prop_oneof![runs("plain text, ä / 0"), runs("plain text, / \" 0")], numbers in runs("0123456789")) {
            let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
            prop_assert_eq!(plain_len(&text), text.iter().position(special).unwrap_or(text.len()));
            prop_assert_eq!(len_before(&text, b'/'), text.iter().position(|byte| *byte == b'/').unwrap_or(text.len()));
            let simple = !text.iter().any(|byte| *byte < 0x20 || *byte == b'\\' || *byte > 0x7F);
            prop_assert_eq!(is_simple(&text), simple);
            if simple {
                prop_assert_eq!(simple_len(&text), plain_len(&text));
            }
            let other = |byte: &u8| !byte.is_ascii_digit();
            prop_assert_eq!(digits_len(&numbers), numbers.iter().position(other).unwrap_or(numbers.len()));
        }

        #[test]
        fn integers_are_those_of_the_standard_library(text in "-?[0-9]{0,18}|[0-9]{0,6}.[0-9]{0,6}", behind in "[0-9,}]{0,20}") {
            let found = integer(format!("{text}{behind}").as_bytes(), text.len());
            let digits = text.strip_prefix('-').unwrap_or(&text);
            let simple = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(found, text.parse().ok().filter(|_| simple), "{}", text);
        }

        #[test]
        fn fractions_are_those_of_the_general_reader(text in "-?[0-9]{0,9}(\\.[0-9]{0,9})?[e-]?", behind in "[0-9,}]{0,20}") {
            let found = Fraction::read(format!("{text}{behind}").as_bytes(), text.len());
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            let (whole, fraction) = text.trim_start_matches('-').split_once('.').unwrap_or((&text, "0"));
            let common = !whole.is_empty() && !fraction.is_empty() && !text.ends_with(['e', '-']) && digits <= 15;
            prop_assert!(found.is_some() || !common, "{}", text);
            if let Some(found) = found {
                if let Some(float) = found.to_f64() {
                    prop_assert_eq!(Some(float.to_bits()), text.parse::<f64>().ok().map(f64::to_bits), "{}", text);
                }
                for (precision, scale) in [(5, 2), (18, 9), (38, 10)] {
                    if let Some(decimal) = found.to_decimal(scale, 10i128.pow(u32::from(precision))) {
                        prop_assert_eq!(Ok(decimal), parse_decimal(&text, precision, scale), "{}", text);
                    }
                }
            }
        }

        /// What is read is what the general reader says; all common timestamps are read.
        #[test]
        fn timestamps_are_those_of_the_general_reader(
            texts in prop_oneof![
                prop::collection::vec(timestamp(b' ', false), 1..6).prop_map(|texts| (texts, b' ', false)),
                prop::collection::vec(timestamp(b'T', true), 1..6).prop_map(|texts| (texts, b'T', true)),
            ],
        ) {
            let (texts, separator, zone) = texts;
            let layout = TimestampLayout { separator, zone };
            let mut timestamps = FixedTimestamps::new(layout);
            for text in texts {
                let exact = parse_timestamp(text.as_bytes(), layout).and_then(|time| time.to_unit(TimeUnit::Millisecond));
                let behind = format!("{text}\",\"a\":1");
                let found = timestamps.read(behind.as_bytes(), text.len());
                let common = text.len() - usize::from(zone) != 24 && !text.contains(" 24:") && !text.contains("T24:");
                if found.is_some() || (common && exact.is_some() && !text.contains(['+', '.'])) {
                    prop_assert_eq!(found, exact, "{}", text);
                }
            }
        }
    }
}
