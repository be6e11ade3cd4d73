//! Time zones: what wall clocks show at a moment, and when they show it. Times are ms since 1970; a local time is what the clock shows,
//! counted as if it were UTC.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;
use std::fmt;

/// A time zone other than UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// A zone of the tz database.
    Rules(Tz),
    /// Always so many seconds before UTC (east of Greenwich) or, below zero, behind it.
    Fixed(i32),
}

/// A fixed offset reaches 18 hours at most.
const OFFSET_MAX_SECONDS: i32 = 18 * 3600;

/// Hours that are looked at for the end of a gap: no clock was ever moved by more than a day.
const GAP_MAX_HOURS: i64 = 25;

impl Zone {
    /// Reads `America/New_York`, `UTC+05:30`, `GMT-03:00` or `+01:00`; the inner `None` is UTC itself.
    pub fn parse(text: &str) -> Option<Option<Zone>> {
        if matches!(text, "UTC" | "GMT" | "UT" | "Z" | "Etc/UTC" | "Etc/GMT") {
            return Some(None);
        }
        let offset = ["UTC", "GMT", "UT"].iter().find_map(|name| text.strip_prefix(name)).unwrap_or(text);
        if offset.starts_with(['+', '-']) {
            let seconds = parse_offset(offset)?;
            return Some((seconds != 0).then_some(Zone::Fixed(seconds)));
        }
        text.parse().ok().map(|rules| Some(Zone::Rules(rules)))
    }

    /// What the clock shows at a moment.
    pub fn local(self, moment: i64) -> i64 {
        moment.saturating_add(self.offset_at(moment))
    }

    /// When the clock shows `local`: the first time if it does so twice; where the clock jumps over it, as if it had not jumped.
    pub fn moment(self, local: i64) -> i64 {
        match self.shown(local) {
            Shown::Once(offset) | Shown::Twice(offset, _) => local.saturating_sub(offset),
            Shown::Never => local.saturating_sub(self.before_gap(local).1),
        }
    }

    /// The moment from which on the clock shows `local` or a later time: the second time if it shows it twice; the moment of the jump
    /// if it jumps over it. Windows that end with `local` are complete then.
    pub fn passed(self, local: i64) -> i64 {
        match self.shown(local) {
            Shown::Once(offset) | Shown::Twice(_, offset) => local.saturating_sub(offset),
            Shown::Never => {
                let (mut shown, offset) = self.before_gap(local);
                let mut skipped = local;
                while skipped - shown > 1 {
                    let middle = shown.midpoint(skipped);
                    match self.shown(middle) {
                        Shown::Never => skipped = middle,
                        _ => shown = middle,
                    }
                }
                skipped.saturating_sub(offset)
            }
        }
    }

    fn offset_at(self, moment: i64) -> i64 {
        match self {
            Zone::Fixed(seconds) => i64::from(seconds) * 1000,
            Zone::Rules(rules) => millis(&rules.offset_from_utc_datetime(&naive(moment))),
        }
    }

    fn shown(self, local: i64) -> Shown {
        match self {
            Zone::Fixed(seconds) => Shown::Once(i64::from(seconds) * 1000),
            Zone::Rules(rules) => match rules.offset_from_local_datetime(&naive(local)) {
                MappedLocalTime::Single(offset) => Shown::Once(millis(&offset)),
                MappedLocalTime::Ambiguous(first, second) => Shown::Twice(millis(&first), millis(&second)),
                MappedLocalTime::None => Shown::Never,
            },
        }
    }

    /// A local time before the jump over `local`, and the offset there.
    fn before_gap(self, local: i64) -> (i64, i64) {
        const HOUR_MS: i64 = 3_600_000;
        for hours in 1..=GAP_MAX_HOURS {
            let earlier = local.saturating_sub(hours * HOUR_MS);
            if let Shown::Once(offset) | Shown::Twice(_, offset) = self.shown(earlier) {
                return (earlier, offset);
            }
        }
        (local, self.offset_at(local))
    }
}

/// How often the clock shows a local time, with the offsets in ms.
enum Shown {
    Once(i64),
    Twice(i64, i64),
    Never,
}

fn millis(offset: &impl Offset) -> i64 {
    i64::from(offset.fix().local_minus_utc()) * 1000
}

/// The moment as chrono knows it; beyond its range the nearest it knows, where no rules change any more.
fn naive(ms: i64) -> NaiveDateTime {
    let beyond = if ms < 0 { NaiveDateTime::MIN } else { NaiveDateTime::MAX };
    let known = DateTime::from_timestamp_millis(ms).map_or(beyond, |moment| moment.naive_utc());
    // Away from the ends, so that adding an offset stays inside.
    let margin = TimeDelta::days(2);
    known.clamp(NaiveDateTime::MIN + margin, NaiveDateTime::MAX - margin)
}

/// `+hh:mm`, `-h`, `+hhmm` as seconds.
fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if rest.len() == 4 => rest.split_at_checked(2)?,
        None => (rest, "00"),
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
    let (hours, minutes) =
        (number(hours).filter(|_| hours.len() <= 2)?, number(minutes).filter(|_| minutes.len() == 2)?);
    let seconds = hours * 3600 + minutes * 60;
    (minutes < 60 && seconds <= OFFSET_MAX_SECONDS).then_some(sign * seconds)
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Rules(rules) => f.write_str(rules.name()),
            Zone::Fixed(seconds) => {
                let (sign, minutes) = (if *seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
                write!(f, "UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;
    const NEW_YORK: Zone = Zone::Rules(Tz::America__New_York);
    /// 2013-03-10 02:00 in New York: the clock goes on with 03:00.
    const SPRING_LOCAL: i64 = 1_362_880_800_000;
    const SPRING: i64 = SPRING_LOCAL + 5 * HOUR;
    /// 2013-11-03 02:00 summer time in New York: the clock shows 01:00 again.
    const AUTUMN_LOCAL: i64 = 1_383_444_000_000;
    const AUTUMN: i64 = AUTUMN_LOCAL + 4 * HOUR;

    #[test]
    fn names_and_offsets() {
        for (text, expected) in [
            ("UTC", Some(None)),
            ("Z", Some(None)),
            ("+00:00", Some(None)),
            ("America/New_York", Some(Some(NEW_YORK))),
            ("UTC+05:30", Some(Some(Zone::Fixed(19_800)))),
            ("GMT-03:00", Some(Some(Zone::Fixed(-10_800)))),
            ("-0330", Some(Some(Zone::Fixed(-12_600)))),
            ("UTC+9", Some(Some(Zone::Fixed(32_400)))),
            ("UTC+19:00", None),
            ("UTC+05:60", None),
            ("UTC+", None),
            ("+1:2:3", None),
            ("+-1", None),
            ("Mars/Olympus", None),
            ("", None),
        ] {
            assert_eq!(Zone::parse(text), expected, "{text}");
        }
        assert_eq!(
            (NEW_YORK.to_string(), Zone::Fixed(-12_600).to_string()),
            ("America/New_York".into(), "UTC-03:30".into())
        );
    }

    #[test]
    fn an_hour_is_skipped_in_spring() {
        assert_eq!((NEW_YORK.local(SPRING - 1), NEW_YORK.local(SPRING)), (SPRING_LOCAL - 1, SPRING_LOCAL + HOUR));
        assert_eq!((NEW_YORK.moment(SPRING_LOCAL - 1), NEW_YORK.moment(SPRING_LOCAL + HOUR)), (SPRING - 1, SPRING));
        for skipped in [0, 1, HOUR / 2, HOUR - 1] {
            assert_eq!(NEW_YORK.moment(SPRING_LOCAL + skipped), SPRING + skipped, "as if the clock had not jumped");
            assert_eq!(NEW_YORK.passed(SPRING_LOCAL + skipped), SPRING);
        }
        assert_eq!(NEW_YORK.passed(SPRING_LOCAL - 1), SPRING - 1);
    }

    #[test]
    fn an_hour_comes_twice_in_autumn() {
        assert_eq!((NEW_YORK.local(AUTUMN - 1), NEW_YORK.local(AUTUMN)), (AUTUMN_LOCAL - 1, AUTUMN_LOCAL - HOUR));
        assert_eq!(NEW_YORK.moment(AUTUMN_LOCAL - HOUR), AUTUMN - HOUR, "the first time");
        assert_eq!(NEW_YORK.passed(AUTUMN_LOCAL - HOUR), AUTUMN, "the second time");
        assert_eq!(NEW_YORK.passed(AUTUMN_LOCAL - 1), AUTUMN + HOUR - 1);
        assert_eq!(NEW_YORK.passed(AUTUMN_LOCAL), AUTUMN + HOUR);
    }

    #[test]
    fn half_an_hour_and_a_whole_day() {
        // Lord Howe moves its clocks by half an hour; Samoa left out 30 December 2011.
        let (howe, apia) = (Zone::Rules(Tz::Australia__Lord_Howe), Zone::Rules(Tz::Pacific__Apia));
        let (jump, offset) = (1_380_987_000_000, 10 * HOUR + HOUR / 2);
        assert_eq!(howe.passed(jump + offset + 1000), jump);
        assert_eq!(howe.passed(jump + offset + HOUR / 2), jump);
        let (jump, noon) = (1_325_239_200_000, 1_325_246_400_000);
        assert_eq!((apia.passed(noon), apia.moment(noon)), (jump, noon + 10 * HOUR));
    }

    #[test]
    fn the_ends_of_time_are_no_problem() {
        for zone in [NEW_YORK, Zone::Fixed(3600)] {
            for end in [i64::MIN, i64::MAX] {
                let (local, moment, passed) = (zone.local(end), zone.moment(end), zone.passed(end));
                assert!([local, moment, passed].iter().all(|time| time.signum() == end.signum()), "{zone} {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn moments_and_local_times_agree(moment in -2_000_000_000_000i64..4_000_000_000_000, zone in 0..4usize) {
            let zone = [NEW_YORK, Zone::Fixed(-5400), Zone::Rules(Tz::Europe__Berlin), Zone::Rules(Tz::Asia__Kolkata)][zone];
            let local = zone.local(moment);
            prop_assert!(zone.moment(local) <= moment && moment <= zone.passed(local));
            prop_assert_eq!(zone.local(zone.moment(local)), local);
            prop_assert_eq!(zone.local(zone.passed(local)), local);
        }
    }
}
