//! Holds a run to so many records a second, evenly: it reads in small strides, and time in which there was nothing to read is not made up for.

use crate::log::Log;

/// Strides a second, at least.
const STRIDES_A_SECOND: u64 = 20;

/// Longest wait until it is asked again whether the records are wanted, in microseconds.
const LOOK_US: u64 = 50_000;

/// How much of the time that other things took may be made up for, in nanoseconds.
const BEHIND_NS_MAX: u64 = 100_000_000;

/// Holds one run back.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    /// Records a second, at least one.
    rate_max: u64,
    /// When what was read so far is due, by the monotonic clock.
    due_ns: u64,
    rows: u64,
}

impl Throttle {
    pub fn new(rate_max: u64) -> Throttle {
        Throttle { rate_max: rate_max.max(1), due_ns: 0, rows: 0 }
    }

    /// Records in one stride, at most.
    pub fn stride_rows(&self) -> u64 {
        (self.rate_max / STRIDES_A_SECOND).max(1)
    }

    /// How long to wait from `now_ns` on, now that `rows` records were read in all.
    fn wait_ns(&mut self, rows: u64, now_ns: u64) -> u64 {
        let more = u128::from(rows.saturating_sub(self.rows)) * 1_000_000_000 / u128::from(self.rate_max);
        self.rows = rows;
        let from = self.due_ns.max(now_ns.saturating_sub(BEHIND_NS_MAX));
        self.due_ns = from.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        self.due_ns.saturating_sub(now_ns)
    }

    /// Waits until `rows` records, those read so far, are due, or nobody wants more of them.
    pub fn wait(&mut self, log: &Log, rows: u64, should_stop: impl Fn() -> bool) {
        let clock = &log.env().clock;
        let now_us = clock.monotonic_us();
        let until_us = now_us.saturating_add(self.wait_ns(rows, now_us.saturating_mul(1_000)).div_ceil(1_000));
        while !should_stop() {
            match until_us.saturating_sub(clock.monotonic_us()) {
                0 => return,
                left => clock.sleep_us(left.min(LOOK_US)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counters;
    use crate::env::Env;
    use crate::job::{Job, Observer, Point, Request, run};
    use crate::log::records::{Partitioning, Record, RecordColumns};
    use crate::log::{AppendBatch, LogOptions, TopicConfig};
    use crate::types::Position;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        /// In no stretch of time are more records let through than the rate, the make-up and one stride allow.
        #[test]
        fn the_rate_holds_in_every_stretch(rate in 1u64..5_000_000, steps in prop::collection::vec((0u64..100, 0u64..1_000_000_000), 1..60)) {
            let mut throttle = Throttle::new(rate);
            let (mut now, mut rows, mut through) = (5_000_000_000, 0, vec![(5_000_000_000, 0)]);
            for (part, busy_ns) in steps {
                now += busy_ns;
                rows += throttle.stride_rows() * part / 100;
                now += throttle.wait_ns(rows, now);
                through.push((now, rows));
            }
            for (at, (from, before)) in through.iter().enumerate() {
                for (to, after) in &through[at..] {
                    let may = u128::from(to - from + BEHIND_NS_MAX) * u128::from(rate) / 1_000_000_000;
                    prop_assert!(u128::from(after - before) <= may + 2 * u128::from(throttle.stride_rows()));
                }
            }
        }
    }

    /// Notes when how many records had been read.
    struct Course {
        log: Log,
        read: Vec<(u64, u64)>,
    }

    impl Observer for Course {
        fn on_progress(&mut self, _: Position, _: Option<Position>, counters: &Counters) {
            self.read.push((self.log.env().clock.monotonic_us(), counters.rows_in));
        }
    }

    #[test]
    fn a_run_reads_no_faster_than_it_may_and_evenly() {
        let (env, _sim) = Env::sim(1);
        let log = Log::open(&env, "/data".as_ref(), LogOptions::default()).expect("a log");
        let topic = log.create_topic("t", TopicConfig::default()).expect("a topic").id();
        let mut rows = RecordColumns::default();
        for _ in 0..10_000 {
            rows.push(
                Partitioning::ByKey,
                &Record { timestamp_ms: None, key: None, value: Some(b"{\"n\":1}"), headers: &[] },
            );
        }
        log.append_wait(AppendBatch::records(topic, rows)).expect("appended");
        let sql =
            "CREATE TABLE t (n INT) WITH ('connector' = 'kappa'); CREATE TABLE o (n INT) WITH ('connector' = 'kappa');
                   INSERT INTO o SELECT n FROM t;";
        let plan = Arc::new(crate::sql::plan("job.sql", sql).expect("a plan"));
        let mut course = Course { log: log.clone(), read: vec![(env.clock.monotonic_us(), 0)] };
        // The log is not that long yet.
        let to = Some(Point::Position(Position(1_000_000)));
        let request = Request { bounded: true, to, rate_max: Some(2_000), ..Request::default() };
        run(&log, &Job { plan, name: "job".into(), version: None }, &request, &mut course).expect("a run");
        let (first, last) = (course.read[0].0, course.read[course.read.len() - 1]);
        assert_eq!((last.1, course.read.len()), (10_000, 101), "a hundred strides");
        assert!((4_800_000..5_200_000).contains(&(last.0 - first)), "10000 records at 2000 a second: {last:?}");
        for pair in course.read.windows(2) {
            assert!(pair[1].1 - pair[0].1 <= 100 && pair[1].0 - pair[0].0 <= 60_000, "{pair:?}");
        }
    }
}
