//! Windows as arithmetic: which ones a time falls into, which sessions it joins. Pure, exact over all of `i64`.

pub mod assign;
pub mod clock;
pub mod session;

use std::fmt;

/// Window kind and sizes, all in ms. Sizes are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// `[s, s + size)`, s = offset mod size.
    Tumble {
        /// Length.
        size_ms: i64,
        /// Shift of the boundaries, |offset| < size.
        offset_ms: i64,
    },
    /// Every `slide`, `size` long. Where the slide is longer, times between the windows are in none.
    Hop {
        /// Length.
        size_ms: i64,
        /// Distance of starts.
        slide_ms: i64,
        /// Shift of the boundaries.
        offset_ms: i64,
    },
    /// Growing windows of the same start: `[s, s + step)`, `[s, s + 2 step)`, ... `[s, s + max)`.
    Cumulate {
        /// Longest length; a multiple of `step_ms`.
        max_ms: i64,
        /// Growth.
        step_ms: i64,
        /// Shift of the boundaries.
        offset_ms: i64,
    },
    /// From the first record to `gap` after the last one, per key; records at distance <= gap are together.
    Session {
        /// Gap.
        gap_ms: i64,
    },
    /// The windows that rows have already: two of their columns.
    Attached {
        /// Column of the start.
        start: usize,
        /// Column of the end.
        end: usize,
    },
    /// Per key every `size` records, and what there is `timeout` after the first of them.
    Count {
        /// Records.
        size: u64,
        /// Timeout.
        timeout_ms: Option<i64>,
    },
}

impl WindowKind {
    /// No window is shorter than this; `None`: its ends are no times that the watermark closes it by.
    pub fn shortest_ms(self) -> Option<i64> {
        match self {
            WindowKind::Tumble { size_ms, .. } | WindowKind::Hop { size_ms, .. } => Some(size_ms),
            WindowKind::Cumulate { step_ms, .. } => Some(step_ms),
            WindowKind::Session { gap_ms } => Some(gap_ms),
            WindowKind::Attached { .. } => Some(1),
            WindowKind::Count { .. } => None,
        }
    }
}

/// A window `[start, end)` in ms. Shown as `[2020-01-01T00:00:00.000Z,2020-01-01T01:00:00.000Z)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// First ms in it.
    pub start: i64,
    /// First ms after it.
    pub end: i64,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{},{})", IsoMs(self.start), IsoMs(self.end))
    }
}

/// Milliseconds since the epoch, shown as an ISO 8601 time in UTC. Years beyond four digits carry a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsoMs(pub i64);

impl fmt::Display for IsoMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MS: i64 = 86_400_000;
        let (days, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = civil(days);
        match year {
            0..=9999 => write!(f, "{year:04}")?,
            _ => write!(f, "{year:+}")?,
        }
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
    }
}

/// Year, month and day of a day number (0 = 1970-01-01) in the proleptic Gregorian calendar. Years are counted from 1 March
/// of year 0, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_583_020_799_000, "2020-02-29T23:59:59.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (253_402_300_800_000, "+10000-01-01T00:00:00.000Z"),
            (i64::MIN, "-292275055-05-16T16:47:04.192Z"),
            (i64::MAX, "+292278994-08-17T07:12:55.807Z"),
        ] {
            assert_eq!(IsoMs(ms).to_string(), text);
        }
    }
}
