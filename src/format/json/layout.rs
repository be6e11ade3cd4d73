//! The layout of records, as far as it repeats. What stands between two values (`{"a":`, `,"b":`, `}`) is a seam. Seams come from
//! records that the scanner has passed; in the next record they are compared instead of parsed, and the seam that followed last time
//! is tried first. So a record of known seams, in whatever order, is read with a few comparisons a field; any other is left to
//! the scanner.

use super::scan::{Member, Scanner};
use crate::format::words::{digits_len, plain_len, sixteen};
use std::ops::Range;

/// Seams that are kept. Records whose names are data do not fill more.
const SEAMS_MAX: usize = 64;

/// Text of some records, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// The same bytes and those that happen to stand behind them.
    pub bytes: &'a [u8],
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text { text, bytes: text.as_bytes() }
    }
}

/// The value of a field: places in a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The record has no such field.
    Missing,
    /// The record is not JSON.
    Refused,
    /// What is between the quotes of a string without escapes.
    Plain { start: u32, len: u32 },
    /// Any value, as it is written.
    Value { start: u32, len: u32 },
}

impl Found {
    /// A value that begins at `start`.
    pub(super) fn value(start: usize, len: usize) -> Self {
        // The bytes of an Arrow array of bytes have 31-bit places.
        Found::Value { start: start as u32, len: len as u32 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Up to the first value.
    Opening,
    Between,
    /// From the last value to the end of the record.
    Closing,
}

#[derive(Debug)]
struct Seam {
    place: Place,
    text: Box<[u8]>,
    /// The first sixteen bytes, and ones in the bits that `text` has.
    head: u128,
    mask: u128,
    /// Where the value behind belongs among those that are found; `usize::MAX`: its field is not used.
    slot: usize,
    /// Seam that stood behind that value last time.
    next: usize,
}

impl Seam {
    fn new(place: Place, text: &str, slot: Option<usize>) -> Self {
        let text: Box<[u8]> = text.as_bytes().into();
        let mask = if text.len() < 16 { (1 << (8 * text.len())) - 1 } else { u128::MAX };
        Seam { place, head: sixteen(&text), mask, text, slot: slot.unwrap_or(usize::MAX), next: usize::MAX }
    }

    /// What is behind the seam, if it is here.
    #[inline(always)]
    fn behind<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let is_here =
            (sixteen(rest) ^ self.head) & self.mask == 0 && (self.text.len() <= 16 || rest.starts_with(&self.text));
        if is_here { rest.get(self.text.len()..) } else { None }
    }
}

/// Seams of the records so far.
#[derive(Debug)]
pub(super) struct Layout {
    seams: Vec<Seam>,
    /// Seam that the last record began with.
    opening: usize,
}

impl Layout {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Layout { seams: Vec::new(), opening: usize::MAX }
    }

    /// Reads the record at `row` of a text if its seams are known: puts the value of each used field into its slot of `found`.
    /// False: the scanner has to say what this record is, and what was put does not count.
    #[inline]
    pub(super) fn read(&mut self, text: Text<'_>, row: Range<usize>, found: &mut [Found]) -> bool {
        // All that was passed lies before the end, so nothing was taken from behind the record.
        let behind = text.bytes.len().checked_sub(row.end);
        self.pass(text, row.start, found) == behind
    }

    /// Passes the record at `start` if its seams are known; gives the number of bytes behind it.
    #[inline(always)]
    fn pass(&mut self, text: Text<'_>, start: usize, found: &mut [Found]) -> Option<usize> {
        let mut rest = text.bytes.get(start..)?;
        let mut before = None;
        let mut expected = self.opening;
        loop {
            let (index, seam, behind) = match self.at(expected, rest) {
                Some((seam, behind)) => (expected, seam, behind),
                None => {
                    let index = self.find(before, rest)?;
                    let (seam, behind) = self.at(index, rest)?;
                    (index, seam, behind)
                }
            };
            if seam.place == Place::Closing {
                return Some(behind.len());
            }
            let passed = value(text, behind)?;
            if let Some(slot) = found.get_mut(seam.slot) {
                *slot = passed.found(text.bytes.len() - behind.len());
            }
            rest = behind.get(passed.len()..)?;
            (before, expected) = (Some(index), seam.next);
        }
    }

    #[inline(always)]
    fn at<'a>(&self, index: usize, rest: &'a [u8]) -> Option<(&Seam, &'a [u8])> {
        let seam = self.seams.get(index)?;
        Some((seam, seam.behind(rest)?))
    }

    /// The seam that is here behind the value of `before`, though another was expected; from now on it is.
    #[cold]
    fn find(&mut self, before: Option<usize>, rest: &[u8]) -> Option<usize> {
        let fits = |seam: &Seam| (seam.place == Place::Opening) == before.is_none() && seam.behind(rest).is_some();
        // One may be the beginning of another, where white space follows.
        let seams = self.seams.iter().enumerate().filter(|(_, seam)| fits(seam));
        let (index, _) = seams.max_by_key(|(_, seam)| seam.text.len())?;
        self.follow(before, index);
        Some(index)
    }

    /// Remembers that `seam` stood behind the value of the seam `before`.
    fn follow(&mut self, before: Option<usize>, seam: usize) {
        match before.and_then(|before| self.seams.get_mut(before)) {
            Some(before) => before.next = seam,
            None => self.opening = seam,
        }
    }

    /// Learns the seams of a record that the scanner has passed. `slot_of` knows the slots of used fields by key (with quotes).
    #[cold]
    pub(super) fn learn(&mut self, record: &str, slot_of: impl Fn(&str) -> Option<usize>) {
        if self.seams.len() == SEAMS_MAX {
            return;
        }
        let mut from = 0;
        let mut before = None;
        let mut scanner = Scanner::new(record);
        let is_object = scanner.at_object();
        let scanned = scanner.members(0, |Member { key, value, at }| {
            let place = if from == 0 { Place::Opening } else { Place::Between };
            before = self.add(before, place, record.get(from..at), slot_of(key));
            from = at + value.len();
        });
        if is_object && scanned.is_ok() && from > 0 {
            self.add(before, Place::Closing, record.get(from..), None);
        }
    }

    fn add(&mut self, before: Option<usize>, place: Place, text: Option<&str>, slot: Option<usize>) -> Option<usize> {
        let seam = Seam::new(place, text?, slot);
        let same = |other: &Seam| (other.place, &other.text) == (seam.place, &seam.text);
        let index = match self.seams.iter().position(same) {
            Some(index) => index,
            None if self.seams.len() < SEAMS_MAX => {
                self.seams.push(seam);
                self.seams.len() - 1
            }
            None => return None,
        };
        if place == Place::Opening || before.is_some() {
            self.follow(before, index);
        }
        Some(index)
    }
}

/// A value that was passed, with its length.
#[derive(Debug, Clone, Copy)]
enum Passed {
    /// A string without escapes; the length is that between the quotes.
    Plain(usize),
    Value(usize),
}

impl Passed {
    #[inline(always)]
    fn len(self) -> usize {
        match self {
            Passed::Plain(len) => len + 2,
            Passed::Value(len) => len,
        }
    }

    #[inline(always)]
    fn found(self, start: usize) -> Found {
        match self {
            Passed::Plain(len) => Found::Plain { start: start as u32 + 1, len: len as u32 },
            Passed::Value(len) => Found::value(start, len),
        }
    }
}

/// Passes the value that `rest` of a text begins with; `None`: the scanner has to say what is wrong.
#[inline(always)]
fn value(text: Text<'_>, rest: &[u8]) -> Option<Passed> {
    let (first, behind) = rest.split_first()?;
    match first {
        b'"' => {
            let len = plain_len(behind);
            match behind.get(len)? {
                b'"' => Some(Passed::Plain(len)),
                b'\\' => scanned_value(text, rest),
                _ => None,
            }
        }
        b'-' | b'0'..=b'9' => number_len(rest).map(Passed::Value).or_else(|| scanned_value(text, rest)),
        _ => scanned_value(text, rest),
    }
}

/// Length of a number without an exponent; `None`: it has one, or it is no number.
#[inline(always)]
fn number_len(rest: &[u8]) -> Option<usize> {
    let sign = usize::from(rest.first() == Some(&b'-'));
    let unsigned = rest.get(sign..)?;
    let whole = digits_len(unsigned);
    if whole == 0 || (whole > 1 && unsigned.first() == Some(&b'0')) {
        return None;
    }
    match unsigned.get(whole) {
        Some(b'.') => {
            let behind = unsigned.get(whole + 1..)?;
            let fraction = digits_len(behind);
            let has_exponent = matches!(behind.get(fraction), Some(b'e' | b'E'));
            (fraction > 0 && !has_exponent).then_some(sign + whole + 1 + fraction)
        }
        Some(b'e' | b'E') => None,
        _ => Some(sign + whole),
    }
}

/// [`value`] of everything that is not plain.
fn scanned_value(text: Text<'_>, rest: &[u8]) -> Option<Passed> {
    let start = text.bytes.len() - rest.len();
    let mut scanner = Scanner::before_value(text.text, start);
    // As deep as the values of a record are.
    scanner.value(1).ok()?;
    Some(Passed::Value(scanner.at() - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREAD: Found = Found::Refused;

    /// A layout learned from some records, with the fields `a` and `b` in slots 0 and 1.
    fn learned(records: &[&str]) -> Layout {
        let mut layout = Layout::new();
        let slot = |key: &str| ["\"a\"", "\"b\""].iter().position(|name| *name == key);
        records.iter().for_each(|record| layout.learn(record, slot));
        layout
    }

    /// What is found in a record that stands between others.
    fn read(layout: &mut Layout, record: &str) -> Option<Vec<String>> {
        let text = format!("{{}}{record}{{\"a\":1}}");
        let mut found = [UNREAD; 2];
        let row = 2..2 + record.len();
        layout.read(text.as_str().into(), row, &mut found).then(|| {
            let part =
                |start: u32, len: u32| text.get(start as usize..(start + len) as usize).expect("a part").to_owned();
            let text = |found: &Found| match found {
                Found::Plain { start, len } => format!("'{}'", part(*start, *len)),
                Found::Value { start, len } => part(*start, *len),
                Found::Missing | Found::Refused => "-".to_owned(),
            };
            found.iter().map(text).collect()
        })
    }

    #[test]
    fn records_of_known_seams_are_read() {
        let mut layout = learned(&[
            r#"{"a":1,"x":"u","b":2,"z":null}"#,
            r#"{"z":1,"b":2,"a":1}"#,
            r#"{"a": 1, "a_name_of_more_than_16_bytes": 1, "b": 1}"#,
        ]);
        let cases = [
            (r#"{"a": 7, "a_name_of_more_than_16_bytes": "ü", "b": 3}"#, ["7", "3"]),
            (r#"{"a":-12.50,"x":"","b":"t","z":[1,{"a":[]}]}"#, ["-12.50", "'t'"]),
            (r#"{"a":"e\n","x":1e5,"b":true,"z":"\""}"#, [r#""e\n""#, "true"]),
            (r#"{"z":0,"b":{"b":1}}"#, ["-", r#"{"b":1}"#]),
            (r#"{"z":0,"x":[],"a":1,"a":"2"}"#, ["'2'", "-"]),
        ];
        for (record, expected) in cases {
            assert_eq!(read(&mut layout, record), Some(expected.map(str::to_owned).into()), "{record}");
        }
    }

    #[test]
    fn all_others_are_left_to_the_scanner() {
        let mut layout = learned(&[r#"{"a":1,"b":2}"#, r#"{"b":1, "a_name_of_more_than_16_bytes": 1 }"#]);
        let records = [
            "",
            "{}",
            r#"{"a":1,"c":2}"#,
            r#"{"a":1,"b":2} "#,
            r#"{"a":1,"b":2"#,
            r#"{"a":1,"b":"2}"#,
            r#"{"a":1{"a":1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            r#"{"a":}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"\x"}"#,
            r#"{"b":1, "a_name_of_more_than_16_bytez": 1 }"#,
        ];
        for record in records {
            assert_eq!(read(&mut layout, record), None, "{record}");
        }
        // What is behind the record would make it whole.
        let mut found = [UNREAD; 2];
        assert!(!layout.read(r#"{"a":1,"b":2}"#.into(), 0..10, &mut found));
    }

    #[test]
    fn names_that_are_data_do_not_fill_the_layout() {
        let mut layout = learned(&[r#"{"a":1}"#]);
        for number in 0..1000 {
            layout.learn(&format!(r#"{{"a":1,"n{number}":1,"b":1}}"#), |_| None);
        }
        assert_eq!(layout.seams.len(), SEAMS_MAX);
        assert_eq!(read(&mut layout, r#"{"a":3}"#), Some(vec!["3".to_owned(), "-".to_owned()]));
    }
}
