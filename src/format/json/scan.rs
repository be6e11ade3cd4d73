//! Strict JSON (RFC 8259) over a text, without building anything: where values begin and end.

use crate::format::words::{digits_len, plain_len};

/// Objects and arrays inside each other, at most.
pub(super) const DEPTH_MAX: u32 = 128;

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Byte offset.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Reads one JSON text from left to right.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// The name with its quotes.
    pub key: &'a str,
    /// The text of the value.
    pub value: &'a str,
    /// Where the value begins.
    pub at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Scanner { text, at: 0 }
    }

    /// Bytes passed.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, what })
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Checks that only white space is left.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("characters behind the end of the value") }
    }

    /// Whether the next value is an object.
    pub(super) fn at_object(&mut self) -> bool {
        self.space();
        self.peek() == Some(b'{')
    }

    /// Text from `start` to here. Both are ASCII places, so the slice exists.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Passes one value, already past white space, at nesting `depth`; gives its text.
    pub(super) fn value(&mut self, depth: u32) -> Result<&'a str, Malformed> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b'{') => self.members(depth, |_| ())?,
            Some(b'[') => self.elements(depth, |_| ())?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            Some(_) => return self.fail("a value was expected"),
            None => return self.fail("the text ends where a value was expected"),
        }
        Ok(self.since(start))
    }

    fn word(&mut self, word: &'static str) -> Result<(), Malformed> {
        if !self.rest().starts_with(word.as_bytes()) {
            return self.fail("true, false or null was expected");
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.at += digits_len(self.rest());
        if self.at == start { self.fail("a digit was expected") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Passes a string including its quotes.
    fn string(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        loop {
            self.at += plain_len(self.rest());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail("a control character in a string must be escaped"),
                None => return self.fail("the string does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_hexdigit()) => self.at += 6,
            _ => return self.fail("this escape does not exist"),
        }
        Ok(())
    }

    fn deeper(&self, depth: u32) -> Result<u32, Malformed> {
        if depth >= DEPTH_MAX { self.fail("nested too deeply") } else { Ok(depth + 1) }
    }

    /// Passes an object; `each` gets every field, in order.
    pub(super) fn members(&mut self, depth: u32, mut each: impl FnMut(Member<'a>)) -> Result<(), Malformed> {
        let depth = self.deeper(depth)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return self.fail("a field name in quotes was expected");
            }
            self.string()?;
            let key = self.since(start);
            self.space();
            if self.peek() != Some(b':') {
                return self.fail("':' was expected");
            }
            self.at += 1;
            self.space();
            let at = self.at;
            each(Member { key, value: self.value(depth)?, at });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.fail("',' or '}' was expected"),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }

    /// Passes an array; `each` gets every element's text, in order.
    pub(super) fn elements(&mut self, depth: u32, mut each: impl FnMut(&'a str)) -> Result<(), Malformed> {
        let depth = self.deeper(depth)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            each(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.fail("',' or ']' was expected"),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }
}

/// The characters of a string text that the scanner passed: `raw` is what is between its quotes. `None`: half of a surrogate
/// pair, which no UTF-8 text can hold.
pub(super) fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escaped.chars();
        match chars.next()? {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                let (unit, behind) = code_unit(chars.as_str())?;
                chars = behind.chars();
                if (0xD800..0xDC00).contains(&unit) {
                    let (low, behind) = code_unit(behind.strip_prefix("\\u")?)?;
                    chars = behind.chars();
                    let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                    out.push(char::from_u32(0x10000 + ((unit - 0xD800) << 10) + low)?);
                } else {
                    out.push(char::from_u32(unit)?);
                }
            }
            same => out.push(same),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Some(out)
}

fn code_unit(text: &str) -> Option<(u32, &str)> {
    let (hex, rest) = text.split_at_checked(4)?;
    Some((u32::from_str_radix(hex, 16).ok()?, rest))
}
