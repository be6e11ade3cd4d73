//! Text functions. Lengths and places count characters.

use super::kernel::{Args, Kernel};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::regexp::regexp_match;
use datafusion_common::{Result, exec_err};

/// A text of one text.
fn one(args: &Args<'_>, of: impl Fn(&str) -> String) -> Result<ArrayRef> {
    let text = args.text(0)?;
    args.texts(|row| Ok(text.get(row).map(&of)))
}

/// A text of a text and a number.
fn text_long(args: &Args<'_>, of: impl Fn(&str, i64) -> Option<String>) -> Result<ArrayRef> {
    let (text, number) = (args.text(0)?, args.long(1)?);
    args.texts(|row| Ok(text.get(row).zip(number.get(row)).and_then(|(text, number)| of(text, number))))
}

fn length(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn count(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

/// Longest text that a padding or repetition makes.
const TEXT_MAX: i64 = 1 << 20;

/// `SUBSTRING(text, from[, length])`: from 1, from the end below 0.
pub(super) fn substring(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, from) = (args.text(0)?, args.long(1)?);
    let lengths = if args.len() > 2 { Some(args.long(2)?) } else { None };
    args.texts(|row| {
        let (Some(text), Some(from)) = (text.get(row), from.get(row)) else { return Ok(None) };
        let take = match &lengths {
            None => i64::MAX,
            Some(lengths) => match lengths.get(row) {
                None => return Ok(None),
                // Flink: NULL for a negative length.
                Some(length) if length < 0 => return Ok(None),
                Some(length) => length,
            },
        };
        let all = length(text);
        let start = match from {
            1.. => from - 1,
            0 => 0,
            _ => all + from,
        };
        if start < 0 || start >= all {
            return Ok(Some(String::new()));
        }
        Ok(Some(text.chars().skip(count(start)).take(count(take)).collect()))
    })
}

pub(super) const UPPER: Kernel = |args| one(args, str::to_uppercase);
pub(super) const LOWER: Kernel = |args| one(args, str::to_lowercase);
pub(super) const REVERSE: Kernel = |args| one(args, |text| text.chars().rev().collect());
pub(super) const INITCAP: Kernel = |args| {
    one(args, |text| {
        let mut start = true;
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if start {
                out.extend(c.to_uppercase())
            } else {
                out.extend(c.to_lowercase())
            }
            start = !c.is_alphanumeric();
        }
        out
    })
};
pub(super) const LEFT: Kernel = |args| text_long(args, |text, n| Some(text.chars().take(count(n)).collect()));
pub(super) const RIGHT: Kernel =
    |args| text_long(args, |text, n| Some(text.chars().skip(count(length(text).saturating_sub(n.max(0)))).collect()));
pub(super) const REPEAT: Kernel =
    |args| text_long(args, |text, n| (n.saturating_mul(length(text)) <= TEXT_MAX).then(|| text.repeat(count(n))));
/// CHAR(n): cut and padded with blanks.
pub(super) const FIT_CHAR: Kernel = |args| {
    text_long(args, |text, n| {
        let cut: String = text.chars().take(count(n)).collect();
        let width = count(n.min(TEXT_MAX));
        Some(format!("{cut:<width$}"))
    })
};

/// `CHAR_LENGTH(text)`.
pub(super) fn char_length(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0)?;
    args.longs(|row| Ok(text.get(row).map(length)))
}

/// `ASCII(text)`: the number of the first byte, 0 for an empty text.
pub(super) fn ascii(args: &Args<'_>) -> Result<ArrayRef> {
    let text = args.text(0)?;
    args.longs(|row| Ok(text.get(row).map(|text| text.bytes().next().map_or(0, i64::from))))
}

fn pad(args: &Args<'_>, left: bool) -> Result<ArrayRef> {
    let (text, lengths, fill) = (args.text(0)?, args.long(1)?, args.text(2)?);
    args.texts(|row| {
        let (Some(text), Some(wanted), Some(fill)) = (text.get(row), lengths.get(row), fill.get(row)) else {
            return Ok(None);
        };
        if wanted < 0 || fill.is_empty() || wanted > TEXT_MAX {
            return Ok(None);
        }
        let missing = (wanted - length(text)).max(0);
        let filling: String = fill.chars().cycle().take(count(missing)).collect();
        let cut: String = text.chars().take(count(wanted)).collect();
        Ok(Some(if left { format!("{filling}{cut}") } else { format!("{cut}{filling}") }))
    })
}

pub(super) const LPAD: Kernel = |args| pad(args, true);
pub(super) const RPAD: Kernel = |args| pad(args, false);

/// `TRIM(side, text, what)`: any of the characters of `what`.
pub(super) fn trim(args: &Args<'_>) -> Result<ArrayRef> {
    let (side, text, what) = (args.text(0)?, args.text(1)?, args.text(2)?);
    args.texts(|row| {
        let (Some(side), Some(text), Some(what)) = (side.get(row), text.get(row), what.get(row)) else {
            return Ok(None);
        };
        let is = |c: char| what.contains(c);
        Ok(Some(match side {
            "LEADING" => text.trim_start_matches(is).to_owned(),
            "TRAILING" => text.trim_end_matches(is).to_owned(),
            _ => text.trim_matches(is).to_owned(),
        }))
    })
}

/// `CONCAT` and `||`: NULL if any part is.
pub(super) fn concat(args: &Args<'_>) -> Result<ArrayRef> {
    let parts = (0..args.len()).map(|index| args.text(index)).collect::<Result<Vec<_>>>()?;
    args.texts(|row| Ok(parts.iter().map(|part| part.get(row)).collect::<Option<String>>()))
}

/// `CONCAT_WS(separator, ...)`: leaves NULLs out.
pub(super) fn concat_ws(args: &Args<'_>) -> Result<ArrayRef> {
    let separator = args.text(0)?;
    let parts = (1..args.len()).map(|index| args.text(index)).collect::<Result<Vec<_>>>()?;
    args.texts(|row| {
        let there: Vec<&str> = parts.iter().filter_map(|part| part.get(row)).collect();
        Ok(separator.get(row).map(|separator| there.join(separator)))
    })
}

/// `REPLACE(text, search, replacement)`.
pub(super) fn replace(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, search, with) = (args.text(0)?, args.text(1)?, args.text(2)?);
    args.texts(|row| {
        let (Some(text), Some(search), Some(with)) = (text.get(row), search.get(row), with.get(row)) else {
            return Ok(None);
        };
        Ok(Some(if search.is_empty() { text.to_owned() } else { text.replace(search, with) }))
    })
}

/// `POSITION(search IN text)`: from 1, 0 if it is not there.
pub(super) fn position(args: &Args<'_>) -> Result<ArrayRef> {
    let (search, text) = (args.text(0)?, args.text(1)?);
    args.longs(|row| {
        let (Some(search), Some(text)) = (search.get(row), text.get(row)) else { return Ok(None) };
        Ok(Some(text.find(search).map_or(0, |at| length(&text[..at]) + 1)))
    })
}

fn compare(args: &Args<'_>, of: fn(&str, &str) -> bool) -> Result<ArrayRef> {
    let (text, part) = (args.text(0)?, args.text(1)?);
    args.booleans(|row| Ok(text.get(row).zip(part.get(row)).map(|(text, part)| of(text, part))))
}

pub(super) const STARTSWITH: Kernel = |args| compare(args, |text, part| text.starts_with(part));
pub(super) const ENDSWITH: Kernel = |args| compare(args, |text, part| text.ends_with(part));

/// `SPLIT_INDEX(text, separator, index)`: from 0; NULL if there are fewer parts.
pub(super) fn split_index(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, separator, index) = (args.text(0)?, args.text(1)?, args.long(2)?);
    args.texts(|row| {
        let (Some(text), Some(separator), Some(index)) = (text.get(row), separator.get(row), index.get(row)) else {
            return Ok(None);
        };
        let Ok(index) = usize::try_from(index) else { return Ok(None) };
        Ok(if separator.is_empty() { None } else { text.split(separator).nth(index).map(str::to_owned) })
    })
}

/// `OVERLAY(text PLACING new FROM start [FOR length])`.
pub(super) fn overlay(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, new, start) = (args.text(0)?, args.text(1)?, args.long(2)?);
    let lengths = if args.len() > 3 { Some(args.long(3)?) } else { None };
    args.texts(|row| {
        let (Some(text), Some(new), Some(start)) = (text.get(row), new.get(row), start.get(row)) else {
            return Ok(None);
        };
        let over = match &lengths {
            None => length(new),
            Some(lengths) => match lengths.get(row) {
                Some(over) => over,
                None => return Ok(None),
            },
        };
        if start <= 0 || start > length(text) {
            return Ok(Some(text.to_owned()));
        }
        let head = text.chars().take(count(start - 1));
        let tail = text.chars().skip(count(start - 1).saturating_add(count(over)));
        Ok(Some(head.chain(new.chars()).chain(tail).collect()))
    })
}

/// A part of a LIKE pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Many,
    One,
    Is(char),
}

fn like_pattern(pattern: &str, escape: Option<char>) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            c if Some(c) == escape => Token::Is(chars.next().filter(|c| matches!(c, '%' | '_') || Some(*c) == escape)?),
            '%' => Token::Many,
            '_' => Token::One,
            c => Token::Is(c),
        });
    }
    Some(tokens)
}

fn like_matches(text: &str, tokens: &[Token]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut t, mut p) = (0, 0);
    // Where to go on when a match fails: behind the last %, one character later than before.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match tokens.get(p) {
            Some(Token::Many) => {
                retry = Some((t, p + 1));
                p += 1;
            }
            Some(Token::One) => (t, p) = (t + 1, p + 1),
            Some(Token::Is(c)) if *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match retry {
                Some((from, after)) => {
                    retry = Some((from + 1, after));
                    (t, p) = (from + 1, after);
                }
                None => return false,
            },
        }
    }
    tokens[p..].iter().all(|token| *token == Token::Many)
}

/// `LIKE` with an optional escape character; no character escapes on its own.
pub(super) fn like(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, pattern) = (args.text(0)?, args.text(1)?);
    let escape = if args.len() > 2 { args.text(2)?.get(0).and_then(|text| text.chars().next()) } else { None };
    let mut last: Option<(&str, Vec<Token>)> = None;
    args.booleans(|row| {
        let (Some(text), Some(pattern)) = (text.get(row), pattern.get(row)) else { return Ok(None) };
        if last.as_ref().is_none_or(|(known, _)| *known != pattern) {
            let Some(tokens) = like_pattern(pattern, escape) else {
                return exec_err!("'{pattern}' escapes what needs no escape");
            };
            last = Some((pattern, tokens));
        }
        Ok(last.as_ref().map(|(_, tokens)| like_matches(text, tokens)))
    })
}

/// `REGEXP(text, pattern)`.
pub(super) fn regexp(args: &Args<'_>) -> Result<ArrayRef> {
    let found = captures(args)?;
    let (text, pattern) = (args.text(0)?, args.text(1)?);
    args.booleans(|row| Ok(text.get(row).zip(pattern.get(row)).map(|_| found.is_valid(row))))
}

/// `REGEXP_EXTRACT(text, pattern[, group])`: group 0 is the whole match.
pub(super) fn regexp_extract(args: &Args<'_>) -> Result<ArrayRef> {
    let found = captures(args)?;
    let Some(found) = found.as_list_opt::<i32>() else { return exec_err!("REGEXP_EXTRACT found no groups") };
    let groups = if args.len() > 2 { Some(args.long(2)?) } else { None };
    args.texts(|row| {
        let group = match &groups {
            None => Some(0),
            Some(groups) => groups.get(row),
        };
        let Some(group) = group.and_then(|group| usize::try_from(group).ok()) else { return Ok(None) };
        if found.is_null(row) {
            return Ok(None);
        }
        let parts = found.value(row);
        let parts = parts.as_string::<i32>();
        Ok((group < parts.len() && parts.is_valid(group)).then(|| parts.value(group).to_owned()))
    })
}

/// The groups of the first match of each row, the whole match first; NULL where nothing matches.
fn captures(args: &Args<'_>) -> Result<ArrayRef> {
    // The kernel leaves the whole match out where there are groups: a group around everything brings it in.
    let pattern = args.full(1)?;
    let wrapped: arrow::array::StringArray =
        pattern.as_string::<i32>().iter().map(|pattern| pattern.map(|pattern| format!("({pattern})"))).collect();
    Ok(regexp_match(&args.full(0)?, &wrapped, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_patterns() {
        for (text, pattern, escape, expected) in [
            ("abc", "a%", None, true),
            ("abc", "%b%", None, true),
            ("abc", "_b_", None, true),
            ("abc", "b", None, false),
            ("", "%", None, true),
            ("a%c", "a\\%c", Some('\\'), true),
            ("abc", "a\\%c", Some('\\'), false),
            ("a\\c", "a\\c", None, true),
            ("mississippi", "m%iss%pi", None, true),
            ("mississippi", "m%iss%pix", None, false),
        ] {
            let tokens = like_pattern(pattern, escape).unwrap();
            assert_eq!(like_matches(text, &tokens), expected, "{text} LIKE {pattern}");
        }
    }
}
