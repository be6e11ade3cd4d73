//! The watermark of a source: one running maximum per partition, combined record by record, with idleness and quiet close
//! driven by the append clock. Pure: every call is a function of the records and clock readings before it.

use crate::types::{AppendTime, US_PER_MS};

/// The watermark before anything has moved it: nothing is late and nothing closes.
pub const BEFORE_ALL: i64 = i64::MIN;

/// The time options of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatermarkRules {
    /// A partition without a record for this long (append time, microseconds, positive) is idle; `None`: never.
    pub idle_timeout_us: Option<i64>,
    /// While all partitions are idle the watermark goes on with the append clock.
    pub quiet_close: bool,
}

/// What a partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// No record yet.
    Unseen,
    /// It counts.
    Active,
    /// It has been silent for the idle timeout.
    Idle,
}

/// The state of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// What it does.
    pub activity: Activity,
    /// Its watermark in ms, [`BEFORE_ALL`] if no record has moved it.
    pub watermark: i64,
    /// Append time of its newest record in microseconds; `i64::MIN` without one.
    pub last_append_us: i64,
}

/// An active partition, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivePartition {
    /// The partition.
    pub partition: u32,
    /// Its watermark in ms, [`BEFORE_ALL`] if no record has moved it.
    pub watermark: i64,
    /// Append time of its newest record.
    pub last_append: AppendTime,
}

/// The running watermark of one source.
///
/// It is the minimum over the partitions that are active (have had a record, and are not idle). If all that have had one
/// are idle it is the maximum of theirs, plus, with quiet close, the append time that has passed since the last of them
/// became idle, in whole milliseconds. It never goes back.
#[derive(Debug, Clone)]
pub struct SourceWatermark {
    rules: WatermarkRules,
    partitions: Vec<Partition>,
    active: usize,
    /// Least watermark of the active partitions; meaningless without one.
    least: i64,
    current: i64,
}

impl SourceWatermark {
    /// A source whose topic has this many partitions, none of them seen. An idle timeout of 0 or less means none, as in Flink.
    pub fn new(partitions: u32, rules: WatermarkRules) -> Self {
        let unseen = Partition { activity: Activity::Unseen, watermark: BEFORE_ALL, last_append_us: i64::MIN };
        let rules = WatermarkRules { idle_timeout_us: rules.idle_timeout_us.filter(|us| *us > 0), ..rules };
        SourceWatermark {
            rules,
            partitions: vec![unseen; partitions as usize],
            active: 0,
            least: BEFORE_ALL,
            current: BEFORE_ALL,
        }
    }

    /// A source as it was: its watermark, and its partitions ([`partitions`](Self::partitions)). Partitions that the topic has had
    /// since are unseen.
    pub fn restored(&self, current: i64, partitions: Vec<Partition>) -> Self {
        let mut restored = SourceWatermark { current, partitions, ..self.clone() };
        let fresh = self.partitions.iter().skip(restored.partitions.len());
        restored.partitions.extend(fresh);
        restored.active = restored.partitions.iter().filter(|p| p.activity == Activity::Active).count();
        restored.least = restored.least_active();
        restored
    }

    /// The state of each partition.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The watermark in ms; [`BEFORE_ALL`] at the start.
    pub fn current(&self) -> i64 {
        self.current
    }

    /// Takes a record that moves its partition's watermark to at least `watermark` ([`BEFORE_ALL`]: it moves nothing), and returns
    /// the watermark before it. Clock steps due at or before `append_us` must have been run.
    pub fn record(&mut self, partition: u32, append_us: i64, watermark: i64) -> i64 {
        if self.active == 0 {
            self.settle(append_us);
        }
        let before = self.current;
        let index = partition as usize;
        if index >= self.partitions.len() {
            let unseen = Partition { activity: Activity::Unseen, watermark: BEFORE_ALL, last_append_us: i64::MIN };
            self.partitions.resize(index + 1, unseen);
        }
        let slot = &mut self.partitions[index];
        let (was_active, old) = (slot.activity == Activity::Active, slot.watermark);
        slot.activity = Activity::Active;
        slot.last_append_us = append_us;
        slot.watermark = old.max(watermark);
        let new = slot.watermark;
        if !was_active {
            self.active += 1;
            self.least = if self.active == 1 { new } else { self.least.min(new) };
        } else if new > old && old == self.least {
            self.least = self.least_active();
        }
        self.current = self.current.max(self.least);
        before
    }

    /// [`record`](Self::record) for each row in order, appended at `append_us(row)`; what it returns is appended to `before`.
    pub fn records(
        &mut self,
        partitions: &[u32],
        append_us: impl Fn(usize) -> i64,
        watermarks: &[i64],
        before: &mut Vec<i64>,
    ) {
        let mut rows = partitions.iter().zip(watermarks).enumerate();
        // A partition that alone is active decides alone: a running maximum.
        if let Some(first) = partitions.first()
            && partitions.iter().fold(0, |others, partition| others | (partition ^ first)) == 0
        {
            let (row, (_, watermark)) = rows.next().expect("there is a first row");
            before.push(self.record(*first, append_us(row), *watermark));
            if self.active == 1 {
                let (current, mut most) = (self.current, self.least);
                before.extend(watermarks[1..].iter().map(|watermark| {
                    let before = most.max(current);
                    most = most.max(*watermark);
                    before
                }));
                self.current = current.max(most);
                let slot = &mut self.partitions[*first as usize];
                (slot.watermark, slot.last_append_us) = (most, append_us(partitions.len() - 1));
                self.least = most;
                return;
            }
        }
        for (row, (partition, watermark)) in rows {
            let watermark_before = self.record(*partition, append_us(row), *watermark);
            before.push(watermark_before);
        }
    }

    fn least_active(&self) -> i64 {
        let active = self.partitions.iter().filter(|p| p.activity == Activity::Active);
        active.map(|p| p.watermark).min().unwrap_or(BEFORE_ALL)
    }

    /// When the next active partition becomes idle if no record comes before.
    pub fn idle_due(&self) -> Option<AppendTime> {
        let timeout = self.rules.idle_timeout_us?;
        let active = self.partitions.iter().filter(|p| p.activity == Activity::Active);
        active.map(|p| AppendTime(p.last_append_us.saturating_add(timeout))).min()
    }

    /// When quiet close brings the watermark to `goal_ms` if no record comes before; `None`: it never does, or it is there already.
    pub fn quiet_due(&self, goal_ms: i64) -> Option<AppendTime> {
        let (base_us, most) = self.quiet()?;
        if goal_ms <= self.current {
            return None;
        }
        let wait_us = (i128::from(goal_ms) - i128::from(most)) * i128::from(US_PER_MS);
        i64::try_from(i128::from(base_us) + wait_us).ok().map(AppendTime)
    }

    /// While all partitions are idle under quiet close: when the last became idle (microseconds), and the largest watermark.
    fn quiet(&self) -> Option<(i64, i64)> {
        let timeout = self.rules.idle_timeout_us?;
        if !self.rules.quiet_close || self.active > 0 {
            return None;
        }
        let seen = || self.partitions.iter().filter(|p| p.activity == Activity::Idle);
        let most = seen().map(|p| p.watermark).max().filter(|most| *most != BEFORE_ALL)?;
        let last_us = seen().map(|p| p.last_append_us).max()?;
        Some((last_us.saturating_add(timeout), most))
    }

    /// The append clock stands at `clock`, and no record before it is still to come: partitions whose timeout has passed become
    /// idle, and the watermark follows. To be called at each due time in order.
    pub fn step(&mut self, clock: AppendTime) {
        if let Some(timeout) = self.rules.idle_timeout_us {
            let mut went_idle = false;
            for partition in &mut self.partitions {
                let due = partition.last_append_us.saturating_add(timeout);
                if partition.activity == Activity::Active && due <= clock.0 {
                    partition.activity = Activity::Idle;
                    self.active -= 1;
                    went_idle = true;
                }
            }
            if went_idle {
                self.least = self.least_active();
            }
        }
        if self.active > 0 {
            self.current = self.current.max(self.least);
        } else {
            self.settle(clock.0);
        }
    }

    /// Without an active partition: the largest watermark of the idle ones, and what quiet close adds by now.
    fn settle(&mut self, clock_us: i64) {
        let idle = self.partitions.iter().filter(|p| p.activity == Activity::Idle);
        let most = idle.map(|p| p.watermark).max().unwrap_or(BEFORE_ALL);
        self.current = self.current.max(most);
        if let Some((base_us, most)) = self.quiet() {
            let passed_ms = clock_us.saturating_sub(base_us).max(0) / US_PER_MS;
            self.current = self.current.max(most.saturating_add(passed_ms));
        }
    }

    /// The active partitions, in order.
    pub fn active_partitions(&self) -> impl Iterator<Item = ActivePartition> + '_ {
        let numbered = (0u32..).zip(&self.partitions);
        numbered.filter(|(_, p)| p.activity == Activity::Active).map(|(partition, p)| ActivePartition {
            partition,
            watermark: p.watermark,
            last_append: AppendTime(p.last_append_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_at_once_are_rows_one_by_one(
            partitions in 1u32..4,
            calls in prop::collection::vec((prop::collection::vec((0u32..4, 0i64..3, -5i64..50), 0..8), any::<bool>(), 0i64..20), 1..8),
        ) {
            let mut one = SourceWatermark::new(partitions, rules(7, true));
            let mut all = one.clone();
            let mut clock = 0;
            for (rows, same, rest) in calls {
                let partition = |partition: u32| if same { rest as u32 % partitions } else { partition % partitions };
                let (mut given, mut appends, mut marks) = (Vec::new(), Vec::new(), Vec::new());
                for (number, after, mark) in rows {
                    // No step falls due within a call: that is the caller's part.
                    clock += if all.idle_due().is_some_and(|due| due.0 <= clock + after) { 0 } else { after };
                    given.push(partition(number));
                    appends.push(clock);
                    marks.push(if mark < 0 { BEFORE_ALL } else { mark });
                }
                let mut before = Vec::new();
                all.records(&given, |row| appends[row], &marks, &mut before);
                let single = given.iter().zip(&appends).zip(&marks);
                let expected: Vec<i64> = single.map(|((p, us), mark)| one.record(*p, *us, *mark)).collect();
                prop_assert_eq!(before, expected);
                prop_assert_eq!(format!("{one:?}"), format!("{all:?}"));
                clock += rest;
                while let Some(due) = all.idle_due().filter(|due| due.0 <= clock) {
                    one.step(due);
                    all.step(due);
                }
            }
        }
    }

    fn rules(idle_us: i64, quiet_close: bool) -> WatermarkRules {
        WatermarkRules { idle_timeout_us: Some(idle_us), quiet_close }
    }

    #[test]
    fn a_record_is_judged_against_the_watermark_before_it() {
        let mut source = SourceWatermark::new(1, WatermarkRules::default());
        assert_eq!(source.record(0, 0, 5), BEFORE_ALL);
        assert_eq!(source.record(0, 0, 3), 5);
        assert_eq!(source.record(0, 0, BEFORE_ALL), 5);
        assert_eq!(source.record(0, 0, -7), 5);
        assert_eq!(source.current(), 5);
    }

    #[test]
    fn the_least_active_partition_decides_and_unseen_ones_do_not_count() {
        let mut source = SourceWatermark::new(3, WatermarkRules::default());
        source.record(0, 0, 100);
        assert_eq!(source.current(), 100);
        source.record(1, 0, 50);
        assert_eq!(source.current(), 100, "never back");
        source.record(0, 0, 200);
        source.record(1, 0, 150);
        assert_eq!(source.current(), 150);
        source.record(2, 0, BEFORE_ALL);
        source.record(1, 0, 500);
        assert_eq!(source.current(), 150, "a partition whose records moved nothing holds back");
    }

    #[test]
    fn idle_exactly_at_the_timeout() {
        let mut source = SourceWatermark::new(2, rules(1_000, false));
        source.record(0, 10, 100);
        source.record(1, 20, 300);
        assert_eq!(source.idle_due(), Some(AppendTime(1_010)));
        source.step(AppendTime(1_009));
        assert_eq!(source.current(), 100);
        source.step(AppendTime(1_010));
        assert_eq!(source.current(), 300);
        source.record(0, 1_015, 250);
        assert_eq!(source.current(), 300, "it comes back behind the watermark, which stays");
        source.step(AppendTime(2_015));
        assert_eq!((source.current(), source.idle_due()), (300, None), "all idle: the most advanced one counts");
    }

    #[test]
    fn quiet_close_moves_by_whole_milliseconds() {
        let mut source = SourceWatermark::new(1, rules(5_000, true));
        source.record(0, 100, -20);
        assert_eq!(source.quiet_due(0), None, "not idle yet");
        source.step(AppendTime(5_100));
        assert_eq!(source.current(), -20);
        assert_eq!(source.quiet_due(-18), Some(AppendTime(7_100)));
        source.step(AppendTime(7_099));
        assert_eq!(source.current(), -19);
        source.step(AppendTime(7_100));
        assert_eq!(source.current(), -18);
        assert_eq!(source.quiet_due(-18), None);
        assert_eq!(source.record(0, 9_100, -30), -16, "the record meets the watermark of its own append time");
        assert_eq!(source.quiet_due(i64::MAX), None);
    }

    #[test]
    fn extreme_clocks_do_not_overflow() {
        let mut source = SourceWatermark::new(1, rules(i64::MAX, true));
        source.record(0, i64::MAX - 5, i64::MAX - 1);
        source.step(AppendTime(i64::MAX));
        assert_eq!(source.current(), i64::MAX - 1);
        let mut source = SourceWatermark::new(1, rules(1, true));
        source.record(0, i64::MIN, i64::MIN + 1);
        source.step(AppendTime(i64::MIN + 1));
        assert_eq!(source.quiet_due(i64::MAX), None, "beyond the end of the clock");
    }
}
