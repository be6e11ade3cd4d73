//! A disk without room: what is refused, what goes on, and that service resumes by itself.

use super::*;
use crate::env::sim::{Crash, Fault, FaultKind, Sim};
use crate::error::{ErrorKind, Result};
use crate::log::space::BALLAST_FILE;
use crate::log::{Ack, AppendBatch, MetaRecord, MetaSpace, PendingAck, TopicConfig};

const BALLAST: u64 = 64 << 10;

fn options(floor: u64) -> LogOptions {
    LogOptions { disk_floor_bytes: Some(floor), ballast_bytes: BALLAST, ..small() }
}

fn commit(log: &Log, number: u32) -> Result<Ack> {
    let value = Some(number.to_le_bytes().to_vec());
    log.append_wait(AppendBatch::meta(vec![MetaRecord { space: MetaSpace::Run, key: "k".to_owned(), value }]))
}

fn texts(log: &Log, topic: TopicId) -> Vec<String> {
    read_all(log, &[topic]).into_iter().map(|row| String::from_utf8(row.value.unwrap()).unwrap()).collect()
}

fn has_ballast(sim: &Sim) -> bool {
    sim.disk.files().contains_key(&dir().join(BALLAST_FILE))
}

#[test]
fn below_the_floor_records_wait_and_all_else_goes_on() {
    let sim = Sim::new(1);
    sim.disk.set_capacity(Some(1 << 20));
    let log = Log::open(&sim.env(), dir(), options(300 << 10)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let other = log.create_topic("other", TopicConfig::default()).unwrap();
    log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap();
    sim.disk.set_capacity(Some(sim.disk.used() + (299 << 10)));
    // The disk is looked at now and then, not for every append.
    let looked = sim.disk.calls();
    sim.clock.advance_us(100_000);
    let error = log.append_wait(AppendBatch::records(topic, values(&["b"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("0.3 MiB free") && error.hint().unwrap().contains("trim"), "{error}");
    assert_eq!(sim.disk.calls(), looked + 1);
    assert!(log.append_wait(AppendBatch::records(topic, values(&["c"]))).is_err());
    assert_eq!(sim.disk.calls(), looked + 1);
    commit(&log, 1).unwrap();
    log.delete_topic(other.name()).unwrap();
    assert_eq!(texts(&log, topic), ["a"]);
    sim.disk.set_capacity(Some(1 << 20));
    sim.clock.advance_us(100_000);
    log.append_wait(AppendBatch::records(topic, values(&["d"]))).unwrap();
    assert_eq!(texts(&log, topic), ["a", "d"]);
    log.close().unwrap();
}

#[test]
fn a_disk_that_does_not_say_has_no_floor_and_a_small_one_a_small_floor() {
    use crate::log::space::floor_of;
    const GIB: u64 = 1 << 30;
    assert_eq!(floor_of(None, 100 * GIB), 5 * GIB);
    assert_eq!(floor_of(None, 10 * GIB), GIB);
    assert_eq!(floor_of(None, GIB), GIB / 4);
    assert_eq!(floor_of(Some(0), 10 * GIB), 0);
    let sim = Sim::new(2);
    let log = Log::open(&sim.env(), dir(), options(u64::MAX)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap();
    log.keep().unwrap();
    assert!(!has_ballast(&sim));
}

#[test]
fn on_a_full_disk_the_ballast_makes_room_and_comes_back_when_there_is_some() {
    let sim = Sim::new(3);
    sim.disk.set_capacity(Some(1 << 20));
    let log = Log::open(&sim.env(), dir(), options(0)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    sim.clock.advance_us(2_000_000);
    log.keep().unwrap();
    assert!(has_ballast(&sim));
    sim.disk.set_capacity(Some(sim.disk.used() + 1_000));
    // There is no room for this; the ballast is given up for it.
    let big = "x".repeat(5_000);
    log.append_wait(AppendBatch::records(topic, values(&[&big]))).unwrap();
    assert!(!has_ballast(&sim));
    let refused = log.append_wait(AppendBatch::records(topic, values(&["no"]))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    (0..10).for_each(|number| drop(commit(&log, number).unwrap()));
    log.keep().unwrap();
    sim.clock.advance_us(2_000_000);
    log.keep().unwrap();
    assert!(!has_ballast(&sim), "there is no room for it yet");
    assert!(log.append_wait(AppendBatch::records(topic, values(&["no"]))).is_err());
    sim.disk.set_capacity(Some(1 << 20));
    sim.clock.advance_us(2_000_000);
    log.keep().unwrap();
    assert!(has_ballast(&sim));
    log.append_wait(AppendBatch::records(topic, values(&["again"]))).unwrap();
    assert_eq!(texts(&log, topic), [&big, "again"]);
    log.close().unwrap();
    let log = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)).env());
    assert!(log.report().is_clean(), "{}", log.report());
    assert_eq!(texts(&log, topic), [&big, "again"]);
}

/// Appends without waiting in between; says which were acknowledged, all others being refused for certain.
fn append_all(log: &Log, topic: TopicId, from: usize, len: usize) -> Vec<String> {
    let value = |number: usize| format!("{number} {}", "x".repeat(len));
    let send = |number| log.append(AppendBatch::records(topic, values(&[&value(number)])));
    let pending: Vec<Result<PendingAck>> = (from..from + 12).map(send).collect();
    let mut acked = Vec::new();
    for (number, pending) in (from..).zip(pending) {
        match pending.and_then(PendingAck::wait) {
            Ok(_) => acked.push(value(number)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    acked
}

#[test]
fn a_group_without_room_is_not_written_and_the_log_goes_on_when_there_is() {
    // With every amount of room, so that the disk is full in the middle of a frame, in a new file, and behind it.
    for room in (0..40_000).step_by(701) {
        let sim = Sim::new(room);
        let log = Log::open(&sim.env(), dir(), LogOptions { ballast_bytes: 0, ..options(0) }).unwrap();
        let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
        let mut acked = append_all(&log, topic, 0, 900);
        sim.disk.set_capacity(Some(sim.disk.used() + room));
        acked.extend(append_all(&log, topic, 100, 2_900));
        assert_eq!(texts(&log, topic), acked, "{room} bytes of room");
        let cut = open(&sim.with_disk(sim.disk.crash(Crash::All)).env());
        assert!(cut.report().damage.is_empty());
        assert_eq!(texts(&cut, topic), acked, "{room} bytes of room, after a crash");
        sim.disk.set_capacity(None);
        sim.clock.advance_us(2_000_000);
        let before = acked.len();
        acked.extend(append_all(&log, topic, 200, 900));
        assert_eq!(acked.len(), before + 12, "{room} bytes of room: it does not go on");
        let rows = read_all(&log, &[topic]);
        assert!(rows.iter().zip(0..).all(|(row, at)| (row.position, row.offset) == (at, at)), "no hole in the order");
        log.close().unwrap();
        let log = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)).env());
        assert!(log.report().is_clean(), "{room} bytes of room: {}", log.report());
        assert_eq!(texts(&log, topic), acked);
    }
}

#[test]
fn a_full_disk_in_which_even_cutting_back_fails_is_a_failure_like_others() {
    let sim = Sim::new(5);
    let log = Log::open(&sim.env(), dir(), options(0)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    sim.clock.advance_us(1_000_000);
    // The look at the disk goes through, then the write fails, and the sync of the cut as well.
    sim.disk.set_fault(Some(Fault { call: 1, kind: FaultKind::Enospc, lasting: true }));
    let error = log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    sim.disk.set_fault(None);
    log.reopen().unwrap();
    log.append_wait(AppendBatch::records(topic, values(&["b"]))).unwrap();
    assert_eq!(texts(&log, topic), ["b"]);
}

#[test]
fn a_log_on_a_full_disk_ends_cleanly() {
    let sim = Sim::new(6);
    let log = Log::open(&sim.env(), dir(), LogOptions { ballast_bytes: 0, ..options(0) }).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap();
    sim.disk.set_capacity(Some(sim.disk.used()));
    log.close().unwrap();
    sim.disk.set_capacity(None);
    assert_eq!(texts(&open(&sim.env()), topic), ["a"]);
}
