//! Retention by age and by size, and clocks that jump.

use super::*;
use crate::env::sim::Sim;
use crate::log::{AppendBatch, TopicChange, TopicConfig};
use crate::types::Offset;

const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;
const YEARS_10_US: i64 = 10 * 365 * DAY_US as i64;

/// One record of 4 KiB each hour, a few to a file, for three days.
fn three_days(config: TopicConfig) -> (Log, Sim, TopicId) {
    let (env, sim) = Env::sim(1);
    let log = open(&env);
    let topic = log.create_topic("t", config).unwrap().id();
    for _ in 0..72 {
        write(&log, topic);
        sim.clock.advance_us(HOUR_US);
        log.keep().unwrap();
    }
    (log, sim, topic)
}

fn write(log: &Log, topic: TopicId) {
    // What does not compress takes its bytes in history too.
    let seed = log.durable_end().0;
    let value: Vec<u8> =
        (0..512u64).flat_map(|at| crate::codec::xxh64(&at.to_le_bytes(), seed).to_le_bytes()).collect();
    let mut columns = RecordColumns::default();
    let record = Record { timestamp_ms: None, key: None, value: Some(&value), headers: &[] };
    columns.push(Partitioning::ByKey, &record);
    log.append_wait(AppendBatch::records(topic, columns)).unwrap();
}

fn days(days: u64) -> TopicConfig {
    TopicConfig { retention_us: Some((days * DAY_US) as i64), ..TopicConfig::default() }
}

fn first(log: &Log, topic: TopicId) -> u64 {
    log.partition_starts(topic).unwrap()[0].0
}

#[test]
fn records_go_by_age_and_the_newest_file_stays() {
    let (log, sim, topic) = three_days(days(1));
    // What is younger than a day stays, and of what is older no more than a portion.
    let now = sim.env().clock.wall_us();
    let rows = read_all(&log, &[topic]);
    let old = rows.iter().filter(|row| row.append_time + (DAY_US as i64) <= now).count();
    assert!(old < 4 && (23..27).contains(&rows.len()), "{old} of {}", rows.len());
    assert_eq!(first(&log, topic), rows[0].offset);
    sim.clock.advance_us(40 * DAY_US);
    log.keep().unwrap();
    let left = read_all(&log, &[topic]).len();
    assert!(left < 4, "only the newest file stays: {left}");
    assert_eq!(log.take_troubles(), Vec::<String>::new());
}

#[test]
fn records_go_by_size() {
    let config = TopicConfig { retention_bytes: Some(40 << 10), ..TopicConfig::default() };
    let (log, _, topic) = three_days(config);
    let left = read_all(&log, &[topic]).len();
    assert!((6..=10).contains(&left), "{left} records of 4 KiB");
}

#[test]
fn a_topic_without_retention_is_kept_and_an_altered_one_is_not() {
    let (log, _, topic) = three_days(TopicConfig::default());
    assert_eq!(read_all(&log, &[topic]).len(), 72);
    log.alter_topic("t", &[TopicChange::RetentionBytes(Some(0))]).unwrap();
    log.keep().unwrap();
    assert!(read_all(&log, &[topic]).len() < 4);
}

#[test]
fn timestamps_play_no_part() {
    let (env, sim) = Env::sim(1);
    let log = open(&env);
    let topic = log.create_topic("t", days(1)).unwrap().id();
    for timestamp_ms in [i64::MIN, 0, i64::MAX, 4_102_444_800_000].into_iter().cycle().take(40) {
        let mut columns = RecordColumns::default();
        let value = [7; 2 << 10];
        let record = Record { timestamp_ms: Some(timestamp_ms), key: None, value: Some(&value), headers: &[] };
        columns.push(Partitioning::ByKey, &record);
        log.append_wait(AppendBatch::records(topic, columns)).unwrap();
    }
    sim.clock.advance_us(DAY_US / 2);
    log.keep().unwrap();
    assert_eq!(first(&log, topic), 0);
    sim.clock.advance_us(DAY_US);
    log.keep().unwrap();
    assert!(first(&log, topic) > 25);
}

#[test]
fn a_clock_that_jumps_deletes_nothing_until_it_is_confirmed() {
    for jump_us in [HOUR_US as i64, -(HOUR_US as i64), YEARS_10_US, -YEARS_10_US] {
        let (mut log, sim, topic) = three_days(days(1));
        let kept = first(&log, topic);
        sim.clock.set_wall_us(sim.env().clock.wall_us() + jump_us);
        for _ in 0..30 {
            log.keep().unwrap();
            write(&log, topic);
            sim.clock.advance_us(HOUR_US);
        }
        assert_eq!(first(&log, topic), kept, "{jump_us}");
        let troubles = log.take_troubles();
        assert!(troubles.len() == 1 && troubles[0].contains("wall clock moved"), "{troubles:?}");
        assert_eq!(log.clock_hold().unwrap().unwrap().jump_us, jump_us);
        // Closing and opening the log is no way around it.
        log.close().unwrap();
        log = open(&sim.env());
        log.keep().unwrap();
        assert_eq!(first(&log, topic), kept, "{jump_us}");
        log.confirm_clock().unwrap();
        log.keep().unwrap();
        assert_eq!(log.clock_hold().unwrap(), None);
        // With the clock set back, ages are measured by the wall clock: nothing is older than it says.
        assert_eq!(first(&log, topic) > kept, jump_us > -YEARS_10_US, "{jump_us}");
        log.close().unwrap();
        assert_eq!(open(&sim.env()).clock_hold().unwrap(), None);
    }
}

#[test]
fn a_clock_that_was_wrong_and_was_set_right_removes_what_is_old_by_the_right_time() {
    let (log, sim, topic) = three_days(days(1));
    let right = sim.env().clock.wall_us();
    sim.clock.set_wall_us(right + YEARS_10_US);
    log.keep().unwrap();
    write(&log, topic);
    sim.clock.set_wall_us(right);
    log.keep().unwrap();
    let kept = first(&log, topic);
    log.confirm_clock().unwrap();
    log.keep().unwrap();
    assert_eq!(first(&log, topic), kept, "the append clock is ten years ahead; nothing became ten years old");
    // It is known now: opening the log again asks no more.
    log.close().unwrap();
    let log = open(&sim.env());
    log.keep().unwrap();
    assert_eq!((log.clock_hold().unwrap(), log.take_troubles()), (None, Vec::new()));
}

#[test]
fn a_wall_clock_behind_the_log_at_opening_and_one_that_stands_still_are_noticed() {
    let (log, sim, topic) = three_days(days(1));
    let kept = first(&log, topic);
    log.close().unwrap();
    sim.clock.set_wall_us(sim.env().clock.wall_us() - 2 * HOUR_US as i64);
    let log = open(&sim.env());
    log.keep().unwrap();
    assert!(log.clock_hold().unwrap().unwrap().jump_us < -(HOUR_US as i64 / 2));
    log.confirm_clock().unwrap();
    log.keep().unwrap();
    assert_eq!(log.clock_hold().unwrap(), None);
    let frozen = sim.env().clock.wall_us();
    for _ in 0..120 {
        sim.clock.advance_us(10_000_000);
        sim.clock.set_wall_us(frozen);
        log.keep().unwrap();
    }
    assert!(log.clock_hold().unwrap().is_some());
    assert_eq!(first(&log, topic), kept);
    assert_eq!(log.partition_ends(topic).unwrap(), [Offset(72)]);
}
