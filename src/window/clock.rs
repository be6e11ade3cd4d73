//! Between the watermark, which is a moment, and the ends of windows, which may be local times.

use crate::time::zone::Zone;

/// Longest stretch of local time that a clock shows twice.
const REPEATED_MAX_MS: i64 = 26 * 3_600_000;

/// When windows are complete. Windows are cut in the local time of a zone, or in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowClock {
    /// `None`: UTC, or the time that a TIMESTAMP says.
    pub zone: Option<Zone>,
}

impl WindowClock {
    /// What windows are cut by.
    pub fn local(self, moment: i64) -> i64 {
        self.zone.map_or(moment, |zone| zone.local(moment))
    }

    /// The moment of a local time, as a value.
    pub fn moment(self, local: i64) -> i64 {
        self.zone.map_or(local, |zone| zone.moment(local))
    }

    /// The watermark that closes windows which end at `end`.
    pub fn goal(self, end: i64) -> i64 {
        let last = end.saturating_sub(1);
        self.zone.map_or(last, |zone| zone.passed(last))
    }

    /// The latest end of windows that a watermark has closed: `end <= horizon(w)` is `goal(end) <= w`.
    pub fn horizon(self, watermark: i64) -> i64 {
        let Some(zone) = self.zone.filter(|_| watermark != i64::MIN && watermark != i64::MAX) else {
            return watermark.saturating_add(1);
        };
        let shown = zone.local(watermark);
        if zone.passed(shown) <= watermark {
            return shown.saturating_add(1);
        }
        // The first of two times that the clock shows this: what is between is complete after the second.
        let (mut passed, mut open) = (shown.saturating_sub(REPEATED_MAX_MS), shown);
        while open - passed > 1 {
            let middle = passed.midpoint(open);
            if zone.passed(middle) <= watermark { passed = middle } else { open = middle }
        }
        passed.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_end_is_within_the_horizon_when_its_goal_is_reached() {
        let utc = WindowClock::default();
        assert_eq!((utc.goal(10), utc.horizon(9), utc.horizon(8)), (9, 10, 9));
        assert_eq!((utc.horizon(i64::MAX), utc.goal(i64::MIN)), (i64::MAX, i64::MIN));
    }

    proptest! {
        #[test]
        fn horizon_and_goal_agree_in_zones(
            name in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
            // Hours around both changes of 2024, in steps of 7 minutes.
            step in -600i64..600, other in -600i64..600, autumn in any::<bool>(),
        ) {
            let zone = Zone::parse(name).expect("a zone").expect("not UTC");
            let clock = WindowClock { zone: Some(zone) };
            let near = if autumn { 1_729_990_800_000 } else { 1_711_846_800_000 };
            let watermark = near + step * 420_000;
            let end = zone.local(near) + other * 420_000;
            prop_assert_eq!(end <= clock.horizon(watermark), clock.goal(end) <= watermark);
        }
    }
}
