//! The calendar, and dates and times as text: days since 1970-01-01, milliseconds since then, Java's patterns.

/// Milliseconds in a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// A date and time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    /// Year, astronomical.
    pub year: i64,
    /// From 1.
    pub month: u32,
    /// From 1.
    pub day: u32,
    /// Milliseconds of the day.
    pub millis: i64,
}

impl Civil {
    /// From ms since 1970.
    pub fn from_millis(ms: i64) -> Civil {
        let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
        Civil { year, month, day, millis: ms.rem_euclid(DAY_MS) }
    }

    /// Ms since 1970; `None` beyond what 64 bits hold.
    pub fn to_millis(self) -> Option<i64> {
        days_from_civil(self.year, self.month, self.day).checked_mul(DAY_MS)?.checked_add(self.millis)
    }

    /// The same day and time `months` later; the day is cut to the month's length.
    pub fn plus_months(self, months: i64) -> Option<Civil> {
        let total = self.year.checked_mul(12)?.checked_add(i64::from(self.month) - 1)?.checked_add(months)?;
        let (year, month) = (total.div_euclid(12), u32::try_from(total.rem_euclid(12) + 1).ok()?);
        (year.abs() < 300_000_000).then(|| Civil { year, month, day: self.day.min(month_days(year, month)), ..self })
    }

    fn hour(self) -> i64 {
        self.millis / 3_600_000
    }
}

/// Days since 1970-01-01 of a date (proleptic Gregorian).
pub(super) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from(month);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date of a day since 1970-01-01.
pub(super) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = u32::try_from(day_of_year - (153 * shifted + 2) / 5 + 1).unwrap_or(1);
    let month = u32::try_from(if shifted < 10 { shifted + 3 } else { shifted - 9 }).unwrap_or(1);
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn month_days(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2020-12-30`.
pub(super) fn format_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2020-12-30 12:13:14.123`.
pub(super) fn format_timestamp(ms: i64) -> String {
    let (seconds, millis) = (ms.rem_euclid(DAY_MS) / 1000, ms.rem_euclid(1000));
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{} {hours:02}:{minutes:02}:{:02}.{millis:03}", format_date(ms.div_euclid(DAY_MS)), seconds % 60)
}

/// Reads a date: `2020-1-30`; what follows a blank is not looked at. Days since 1970.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let (days, _) = read_date(text.split(' ').next()?, checked_date)?;
    Some(days)
}

/// Reads `2020-12-30[ 12:13:14[.123456789]]`, ms since 1970. Finer digits are cut.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (days, rest) = read_date(text.trim(), lenient_date)?;
    let midnight = days.checked_mul(DAY_MS)?;
    if rest.is_empty() {
        return Some(midnight);
    }
    let rest = rest.strip_prefix(' ')?;
    let (hour, rest) = read_digits(rest, 2)?;
    let (minute, rest) = read_digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = read_digits(rest.strip_prefix(':')?, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let fraction = match rest.strip_prefix('.') {
        Some(digits) if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        None if rest.is_empty() => 0,
        _ => return None,
    };
    midnight.checked_add(((hour * 60 + minute) * 60 + second) * 1000 + fraction)
}

/// A date at the beginning of a text, and what follows it.
fn read_date(text: &str, days_of: fn(i64, i64, i64) -> Option<i64>) -> Option<(i64, &str)> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (year, rest) = read_digits(text, 9)?;
    let (month, rest) = read_digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = read_digits(rest.strip_prefix('-')?, 2)?;
    let year = if negative { -year } else { year };
    Some((days_of(year, month, day)?, rest))
}

fn checked_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    let valid = (1..=12).contains(&month) && day >= 1 && day <= month_days(year, month);
    valid.then(|| days_from_civil(year, month, day))
}

/// Days 29 to 31 of a shorter month are its last day, as Flink reads timestamps (not dates).
fn lenient_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let last =
        u32::try_from(month).ok().filter(|month| (1..=12).contains(month)).map(|month| month_days(year, month))?;
    checked_date(year, month, if (29..=31).contains(&day) { day.min(i64::from(last)) } else { day })
}

/// 1 to `most` digits.
fn read_digits(text: &str, most: usize) -> Option<(i64, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(count);
    Some((digits.parse().ok()?, rest))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A part of a Java date pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(char, usize),
}

/// A pattern of Java's DateTimeFormatter: `y M d H h m s S a E D` and quoted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a pattern; `Err` says which letter is not supported.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                let mut quoted = String::new();
                for c in chars.by_ref().take_while(|c| *c != '\'') {
                    quoted.push(c);
                }
                parts.push(Part::Text(if quoted.is_empty() { "'".into() } else { quoted }));
            } else if c.is_ascii_alphabetic() {
                let mut count = 1;
                while chars.next_if_eq(&c).is_some() {
                    count += 1;
                }
                if !"yuMdHhmsSaED".contains(c) {
                    return Err(format!("letter '{c}' of pattern '{text}' is not supported"));
                }
                parts.push(Part::Field(c, count));
            } else {
                parts.push(Part::Text(c.to_string()));
            }
        }
        Ok(Pattern(parts))
    }

    /// The moment as text.
    pub fn format(&self, ms: i64) -> String {
        use std::fmt::Write;
        let now = Civil::from_millis(ms);
        let days = ms.div_euclid(DAY_MS);
        let mut out = String::new();
        for part in &self.0 {
            let written = match part {
                Part::Text(text) => out.write_str(text),
                Part::Field('y' | 'u', 2) => write!(out, "{:02}", now.year.rem_euclid(100)),
                Part::Field('y' | 'u', width) => write!(out, "{:0width$}", now.year),
                Part::Field('M', 3) => out.write_str(&MONTHS[now.month as usize - 1][..3]),
                Part::Field('M', 4..) => out.write_str(MONTHS[now.month as usize - 1]),
                Part::Field('M', width) => write!(out, "{:0width$}", now.month),
                Part::Field('d', width) => write!(out, "{:0width$}", now.day),
                Part::Field('D', width) => write!(out, "{:0width$}", days - days_from_civil(now.year, 1, 1) + 1),
                Part::Field('H', width) => write!(out, "{:0width$}", now.hour()),
                Part::Field('h', width) => write!(out, "{:0width$}", (now.hour() + 11) % 12 + 1),
                Part::Field('m', width) => write!(out, "{:0width$}", now.millis / 60_000 % 60),
                Part::Field('s', width) => write!(out, "{:0width$}", now.millis / 1000 % 60),
                Part::Field('S', width) => {
                    let nanos = format!("{:03}000000", now.millis % 1000);
                    write!(out, "{:0<width$}", &nanos[..(*width).min(9)])
                }
                Part::Field('a', _) => out.write_str(if now.hour() < 12 { "AM" } else { "PM" }),
                Part::Field(_, width) => {
                    let name = DAYS[usize::try_from((days + 3).rem_euclid(7)).unwrap_or(0)];
                    out.write_str(if *width < 4 { &name[..3] } else { name })
                }
            };
            debug_assert!(written.is_ok(), "writing to a String");
        }
        out
    }

    /// Reads a text; `None` if it does not match.
    pub fn read(&self, text: &str) -> Option<i64> {
        self.read_prefix(text).and_then(|(ms, rest)| rest.is_empty().then_some(ms))
    }

    /// Reads a text that may go on after the pattern, as Java's SimpleDateFormat does; gives the rest as well.
    pub fn read_prefix<'a>(&self, text: &'a str) -> Option<(i64, &'a str)> {
        let (mut year, mut month, mut day, mut millis, mut afternoon) = (1970, 1, 1, 0i64, None);
        let mut rest = text.trim();
        for part in &self.0 {
            match part {
                Part::Text(expected) => rest = rest.strip_prefix(expected.as_str())?,
                Part::Field('a', _) => {
                    let marker = rest.get(..2)?;
                    afternoon = Some(marker.eq_ignore_ascii_case("PM"));
                    rest = rest.get(2..)?;
                }
                Part::Field('M', 3..) => {
                    let place = MONTHS.iter().position(|name| rest.starts_with(&name[..3]))?;
                    let name = if rest.starts_with(MONTHS[place]) { MONTHS[place] } else { &MONTHS[place][..3] };
                    rest = rest.strip_prefix(name)?;
                    month = i64::try_from(place).ok()? + 1;
                }
                Part::Field('E' | 'D', _) => return None,
                Part::Field(letter, width) => {
                    let most = match (letter, width) {
                        ('y' | 'u', 4) => 4,
                        ('S', width) => *width,
                        (_, width) => (*width).max(2),
                    };
                    let (number, after) = read_digits(rest, most)?;
                    let read = rest.len() - after.len();
                    rest = after;
                    match letter {
                        'y' | 'u' => year = if *width == 2 { 2000 + number } else { number },
                        'M' => month = number,
                        'd' => day = number,
                        'H' if number < 24 => millis += number * 3_600_000,
                        'h' if (1..=12).contains(&number) => millis += number % 12 * 3_600_000,
                        'm' if number < 60 => millis += number * 60_000,
                        's' if number < 60 => millis += number * 1000,
                        'S' if read <= 9 => millis += format!("{number:0read$}000").get(..3)?.parse::<i64>().ok()?,
                        _ => return None,
                    }
                }
            }
        }
        if afternoon == Some(true) {
            millis += 12 * 3_600_000;
        }
        let midnight = checked_date(year, month, day)?.checked_mul(DAY_MS)?;
        Some((midnight.checked_add(millis)?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dates_go_there_and_back(days in -800_000_000i64..800_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert!((1..=12).contains(&month) && day >= 1 && day <= month_days(year, month));
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn timestamps_are_read_as_they_are_written(ms in 0i64..4_000_000_000_000) {
            prop_assert_eq!(parse_timestamp(&format_timestamp(ms)), Some(ms));
            let pattern = Pattern::parse("yyyy/MM/dd'T'HH:mm:ss.SSS").unwrap();
            prop_assert_eq!(pattern.read(&pattern.format(ms)), Some(ms));
        }

        #[test]
        fn no_text_and_no_pattern_panics(text in "\\PC{0,30}", pattern in "[yMdHhmsSaE:' -]{0,20}") {
            let _ = (parse_timestamp(&text), parse_date(&text));
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.read(&text);
                let _ = pattern.format(-1);
            }
        }
    }

    #[test]
    fn java_patterns() {
        let ms = parse_timestamp("2013-01-05 15:04:09.070").unwrap();
        for (pattern, expected) in [
            ("yyyy-MM-dd HH:mm:ss", "2013-01-05 15:04:09"),
            ("yy.M.d h:m:s a", "13.1.5 3:4:9 PM"),
            ("EEE, dd MMM yyyy", "Sat, 05 Jan 2013"),
            ("EEEE MMMM 'at' SSS DDD ''", "Saturday January at 070 005 '"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().format(ms), expected);
        }
        assert!(Pattern::parse("yyyy-ww").is_err());
        for wrong in ["2013-02-32", "2013-1", "2013-01-01T00:00:00", "2013-01-01 24:00:00", "x", ""] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
        assert_eq!(parse_timestamp("2013-02-30"), parse_timestamp("2013-02-28"), "as Flink reads it");
        assert_eq!(parse_date("2013-02-30"), None, "as Flink reads it");
        assert_eq!(
            Pattern::parse("yyyy-MM-dd").unwrap().read_prefix("2013-01-05 15").map(|(_, rest)| rest),
            Some(" 15")
        );
        assert_eq!(parse_timestamp("1969-12-31 23:59:59.999"), Some(-1));
        assert_eq!(format_timestamp(-1), "1969-12-31 23:59:59.999");
    }
}
