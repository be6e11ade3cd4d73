//! The append clock: the only clock whose readings reach a result.
//!
//! It follows the wall clock and never goes back. While the wall clock is behind it (it was set back, or an earlier run
//! was ahead), it goes on at half the rate of the monotonic clock, so that timeouts still happen and the wall clock
//! catches up. How often it is read makes no difference.

use crate::types::AppendTime;

/// The clock; a function of the readings handed to it.
#[derive(Debug, Clone)]
pub struct AppendClock {
    last: AppendTime,
    /// Monotonic time up to which `last` has been moved on.
    moved_to_us: u64,
}

impl AppendClock {
    /// A clock that starts at or after `floor`, the latest time any earlier run may have given out.
    pub fn new(floor: AppendTime, monotonic_us: u64) -> AppendClock {
        AppendClock { last: floor, moved_to_us: monotonic_us }
    }

    /// The time now: at least the time it gave before.
    pub fn read(&mut self, wall_us: i64, monotonic_us: u64) -> AppendTime {
        let half = monotonic_us.saturating_sub(self.moved_to_us) / 2;
        let slow = self.last.0.saturating_add_unsigned(half);
        if self.last == AppendTime::MIN || wall_us > slow {
            self.last = AppendTime(wall_us.max(self.last.0));
            self.moved_to_us = self.moved_to_us.max(monotonic_us);
        } else {
            // What integer division left over counts for the next reading.
            self.last = AppendTime(slow);
            self.moved_to_us += half * 2;
        }
        self.last
    }

    /// From here on it gives no time before `floor`, which may be that of another clock.
    pub fn at_least(&mut self, floor: AppendTime, monotonic_us: u64) {
        if floor > self.last {
            (self.last, self.moved_to_us) = (floor, self.moved_to_us.max(monotonic_us));
        }
    }

    /// The last time given out.
    pub fn last(&self) -> AppendTime {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_wall_and_goes_at_half_rate_behind_it() {
        let mut clock = AppendClock::new(AppendTime::MIN, 7);
        assert_eq!(clock.read(1000, 7), AppendTime(1000));
        assert_eq!(clock.read(1010, 17), AppendTime(1010));
        // Set back by 100 at monotonic 17: half rate until the wall has caught up, 200 later.
        assert_eq!(clock.read(920, 27), AppendTime(1015));
        assert_eq!(clock.read(1100, 207), AppendTime(1105));
        assert_eq!(clock.read(1111, 218), AppendTime(1111));
    }

    #[test]
    fn another_clock_that_was_ahead_holds() {
        let mut clock = AppendClock::new(AppendTime::MIN, 0);
        clock.read(1000, 0);
        clock.at_least(AppendTime(900), 10);
        assert_eq!(clock.read(1010, 10), AppendTime(1010));
        clock.at_least(AppendTime(5000), 20);
        assert_eq!(clock.read(1020, 20), AppendTime(5000));
        assert_eq!(clock.read(1030, 30), AppendTime(5005), "half the monotonic rate from there on");
    }

    #[test]
    fn an_earlier_run_that_was_ahead_holds() {
        let mut clock = AppendClock::new(AppendTime(5000), 0);
        assert_eq!(clock.read(10, 0), AppendTime(5000));
        assert_eq!(clock.read(20, 10), AppendTime(5005));
    }

    proptest! {
        #[test]
        fn never_back_and_independent_of_how_often_it_is_read(
            floor in -10_000i64..10_000, wall in -10_000i64..10_000, back in 0i64..20_000,
            steps in proptest::collection::vec(0u64..50, 1..80),
        ) {
            let total: u64 = steps.iter().sum();
            let mut often = AppendClock::new(AppendTime(floor), 0);
            let mut seldom = often.clone();
            let mut before = often.read(wall, 0);
            seldom.read(wall, 0);
            let mut mono = 0;
            for step in steps {
                mono += step;
                let now = often.read(wall - back + mono as i64, mono);
                prop_assert!(now >= before);
                prop_assert!(now.0 - before.0 >= (step / 2) as i64 - 1 );
                before = now;
            }
            let once = seldom.read(wall - back + total as i64, total);
            prop_assert!((once.0 - before.0).abs() <= 1, "{once} {before}");
        }
    }
}
