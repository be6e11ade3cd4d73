//! The layout of records, as far as it repeats. What stands between two values (`{"a":`, `,"b":`, `}`) is a seam. Seams come from
//! records that the scanner has passed; in the next record they are compared instead of parsed, and the seam that followed last time
//! is tried first. So a record of known seams, in whatever order, is read with a few comparisons a field; any other is left to
//! the scanner.

use super::scan::{Member, Scanner};
use crate::format::blocks::{Found, Text};
use crate::format::words::{digits_len, plain_len, simple_len, sixteen};
use std::ops::Range;

/// Seams that are kept. Records whose names are data do not fill more.
const SEAMS_MAX: usize = 64;

/// Records that are left to the scanner without a try, at most.
const PAUSE_MAX: u32 = 63;

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
    text: Box<[u8]>,
    /// The first sixteen bytes, and ones in the bits that `text` has.
    head: u128,
    mask: u128,
    /// Where the value behind belongs among those that are found; [`NONE`]: its field is not used.
    slot: u32,
    /// Seam that stood behind that value last time.
    next: u32,
    place: Place,
    /// Whether `head` is all of it, and a value is behind.
    is_short: bool,
}

const NONE: u32 = u32::MAX;

impl Seam {
    fn new(place: Place, text: &str, slot: u32) -> Self {
        let text: Box<[u8]> = text.as_bytes().into();
        let mask = if text.len() < 16 { (1 << (8 * text.len())) - 1 } else { u128::MAX };
        let is_short = text.len() <= 16 && place != Place::Closing;
        Seam { head: sixteen(&text), mask, text, slot, next: NONE, place, is_short }
    }

    #[inline(always)]
    fn is_here(&self, rest: &[u8]) -> bool {
        (sixteen(rest) ^ self.head) & self.mask == 0 && (self.is_short || rest.starts_with(&self.text))
    }
}

/// Seams of the records so far.
#[derive(Debug)]
pub(super) struct Layout {
    seams: Vec<Seam>,
    /// Seam that the last record began with.
    opening: u32,
    /// Records to leave to the scanner before the next try, and how many that were last time.
    pause: u32,
    last_pause: u32,
}

impl Layout {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Layout { seams: Vec::new(), opening: NONE, pause: 0, last_pause: 0 }
    }

    /// Reads the record at `row` of a text if its seams are known: puts the value of each used field into its slot of `found`.
    /// False: the scanner has to say what this record is, and what was put does not count.
    #[inline]
    pub(super) fn read(&mut self, text: Text<'_>, row: Range<usize>, found: &mut [Found]) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let passed = if text.simple {
            self.pass(text.bytes, &row, found, simple_len)
        } else {
            self.pass(text.bytes, &row, found, plain_len)
        };
        match passed {
            Some(()) => self.last_pause = 0,
            None => self.fail(),
        }
        passed.is_some()
    }

    /// Nothing more is learned where all seams are in use: records that are always new are tried more and more rarely.
    #[cold]
    fn fail(&mut self) {
        if self.seams.len() == SEAMS_MAX {
            self.last_pause = (2 * self.last_pause + 1).min(PAUSE_MAX);
            self.pause = self.last_pause;
        }
    }

    /// Passes a record if its seams are known. `plain_len` gives the length of the plain run of a string.
    #[inline(always)]
    fn pass(
        &mut self,
        bytes: &[u8],
        row: &Range<usize>,
        found: &mut [Found],
        plain_len: impl Fn(&[u8]) -> usize,
    ) -> Option<()> {
        let mut rest = bytes.get(row.start..)?;
        // What is left of the bytes where the record ends.
        let behind = bytes.len().checked_sub(row.end)?;
        let mut before = NONE;
        let mut index = self.opening;
        loop {
            let seam = match self.seams.get(index as usize) {
                Some(seam) if seam.is_here(rest) => seam,
                _ => {
                    index = self.find(before, rest)?;
                    self.seams.get(index as usize)?
                }
            };
            let value = rest.get(seam.text.len()..)?;
            if !seam.is_short && seam.place == Place::Closing {
                // All that was passed lies before, so nothing was taken from behind the record.
                return (value.len() == behind).then_some(());
            }
            let (first, inside) = value.split_first()?;
            let mut is_plain = false;
            let len = match first {
                b'"' => {
                    let len = plain_len(inside);
                    is_plain = inside.get(len) == Some(&b'"');
                    if is_plain { len + 2 } else { scanned_len(value, behind)? }
                }
                b'1'..=b'9' => match digits_len(value) {
                    len if !matches!(value.get(len), Some(b'.' | b'e' | b'E')) => len,
                    _ => scanned_len(value, behind)?,
                },
                _ => scanned_len(value, behind)?,
            };
            if let Some(slot) = found.get_mut(seam.slot as usize) {
                let start = bytes.len() - value.len();
                *slot = if is_plain { Found::plain(start + 1, len - 2) } else { Found::value(start, len) };
            }
            rest = value.get(len..)?;
            (before, index) = (index, seam.next);
        }
    }

    /// The seam that is here behind the value of the seam `before`, though another was expected; from now on it is.
    #[cold]
    fn find(&mut self, before: u32, rest: &[u8]) -> Option<u32> {
        let fits = |seam: &Seam| (seam.place == Place::Opening) == (before == NONE) && seam.is_here(rest);
        // One may be the beginning of another, where white space follows.
        let seams = (0..).zip(&self.seams).filter(|(_, seam)| fits(seam));
        let (index, _) = seams.max_by_key(|(_, seam)| seam.text.len())?;
        self.follow(before, index);
        Some(index)
    }

    /// Remembers that `seam` stood behind the value of the seam `before`, or first.
    fn follow(&mut self, before: u32, seam: u32) {
        match self.seams.get_mut(before as usize) {
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
        let mut before = Some(NONE);
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

    /// The number of a seam behind the value of the seam `before`; `None`: there is no room for it, or was none for that one.
    fn add(&mut self, before: Option<u32>, place: Place, text: Option<&str>, slot: Option<usize>) -> Option<u32> {
        let seam = Seam::new(place, text?, slot.and_then(|slot| u32::try_from(slot).ok()).unwrap_or(NONE));
        let same = |other: &Seam| (other.place, &other.text) == (seam.place, &seam.text);
        let index = match self.seams.iter().position(same) {
            Some(index) => index,
            None if self.seams.len() < SEAMS_MAX => {
                self.seams.push(seam);
                self.seams.len() - 1
            }
            None => return None,
        };
        let index = u32::try_from(index).ok()?;
        self.follow(before?, index);
        Some(index)
    }
}

/// Length of the value that `rest` begins with, of a record that ends where `behind` bytes are left; `None`: the scanner has to
/// say what is wrong.
#[inline(never)]
fn scanned_len(rest: &[u8], behind: usize) -> Option<usize> {
    let word = |word: &[u8]| rest.starts_with(word).then_some(word.len());
    let known = match rest.first()? {
        b't' => word(b"true"),
        b'f' => word(b"false"),
        b'n' => word(b"null"),
        b'-' | b'0'..=b'9' => number_len(rest),
        _ => None,
    };
    known.or_else(|| {
        let record = rest.get(..rest.len().checked_sub(behind)?)?;
        let mut scanner = Scanner::new(std::str::from_utf8(record).ok()?);
        // As deep as the values of a record are.
        scanner.value(1).ok()?;
        Some(scanner.at())
    })
}

/// Length of a number without an exponent; `None`: it has one, or it is no number.
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

    fn all(text: &str) -> Text<'_> {
        Text::new(text.as_bytes(), text.len()).expect("text")
    }

    /// What is found in a record that stands between others.
    fn read(layout: &mut Layout, record: &str) -> Option<Vec<String>> {
        let text = format!("{{}}{record}{{\"a\":1}}");
        let mut found = [UNREAD; 2];
        let row = 2..2 + record.len();
        layout.read(all(&text), row, &mut found).then(|| {
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
        assert!(!layout.read(all(r#"{"a":1,"b":2}"#), 0..10, &mut found));
    }

    #[test]
    fn names_that_are_data_do_not_fill_the_layout() {
        let mut layout = learned(&[r#"{"a":1}"#]);
        for number in 0..1000 {
            layout.learn(&format!(r#"{{"a":1,"n{number}":1,"b":1}}"#), |_| None);
        }
        assert_eq!(layout.seams.len(), SEAMS_MAX);
        assert_eq!(read(&mut layout, r#"{"a":3}"#), Some(vec!["3".to_owned(), "-".to_owned()]));
        // Records that are always new are not tried each time, but others still are after a while.
        (0..1000).for_each(|number| assert_eq!(read(&mut layout, &format!(r#"{{"m{number}":1}}"#)), None));
        assert!((0..=PAUSE_MAX).any(|_| read(&mut layout, r#"{"a":3}"#).is_some()));
    }
}
