//! Law 6 by its modes, and going on after a failure: what is acknowledged, what readers see, what a power cut takes.

use super::history::Dice;
use super::*;
use crate::env::sim::{Crash, Fault, FaultKind, Sim};
use crate::error::{ErrorKind, Result};
use crate::log::{AppendBatch, Durability, MetaRecord, MetaSpace, Seek, SeekTarget, TopicConfig};

fn lazy(ms: u32) -> LogOptions {
    LogOptions { durability: Durability::Interval { ms }, ..small() }
}

fn texts(log: &Log, topic: TopicId) -> Vec<String> {
    read_all(log, &[topic]).into_iter().map(|row| String::from_utf8(row.value.unwrap()).unwrap()).collect()
}

#[test]
fn by_interval_what_is_acknowledged_is_shown_once_it_is_synced() {
    let sim = Sim::new(1);
    let log = Log::open(&sim.env(), dir(), lazy(50_000)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let (syncs, before) = (log.syncs(), log.clock());
    log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap();
    log.append_wait(AppendBatch::records(topic, values(&["b"]))).unwrap();
    assert_eq!((log.syncs(), log.durable_end()), (syncs, before.position));
    assert!(texts(&log, topic).is_empty());
    sim.clock.advance_us(1_000);
    let waiting = log.clock();
    assert_eq!(waiting.position, Position(0));
    assert!(waiting.append_time.0 < before.append_time.0 + 1_000, "the clock waits for the oldest unsynced frame");
    // The interval is over: the next write syncs, if the writer has not seen it by itself before.
    sim.clock.advance_us(50_000_000);
    log.append_wait(AppendBatch::records(topic, values(&["c"]))).unwrap();
    assert_eq!(texts(&log, topic)[..2], ["a", "b"]);
    // Asked for; with metadata; by closing.
    log.append_wait(AppendBatch::records(topic, values(&["d"]))).unwrap();
    assert_eq!(log.sync().unwrap(), Position(4));
    log.append_wait(AppendBatch::records(topic, values(&["e"]))).unwrap();
    let meta = MetaRecord { space: MetaSpace::Run, key: "k".to_owned(), value: None };
    log.append_wait(AppendBatch::meta(vec![meta])).unwrap();
    assert_eq!(log.durable_end(), Position(5));
    log.append_wait(AppendBatch::records(topic, values(&["f"]))).unwrap();
    log.close().unwrap();
    let log = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)).env());
    assert_eq!(texts(&log, topic), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn by_interval_a_quiet_log_is_synced_without_another_write() {
    let sim = Sim::new(2);
    let log = Log::open(&sim.env(), dir(), lazy(1)).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    log.append_wait(AppendBatch::records(topic, values(&["a"]))).unwrap();
    assert_eq!(log.wait_beyond(Position(0), 20_000_000), Position(1));
}

#[test]
fn by_interval_a_power_cut_takes_only_what_was_not_synced_and_a_kill_nothing() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let mut dice = Dice::new(seed);
        let log = Log::open(&sim.env(), dir(), lazy(10)).unwrap();
        let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
        let mut acked = Vec::new();
        let mut synced = 0;
        for number in 0..20 {
            let value = format!("{number} {}", "x".repeat(dice.below(2_000) as usize));
            log.append_wait(AppendBatch::records(topic, values(&[&value]))).unwrap();
            acked.push(value);
            if dice.below(5) == 0 {
                synced = log.sync().unwrap().0 as usize;
                assert_eq!(synced, acked.len());
            }
            synced = synced.max(log.durable_end().0 as usize);
            sim.clock.advance_us(dice.below(4_000));
        }
        let (killed, cut) = (sim.disk.copy(), sim.disk.crash(Crash::Nothing));
        let after_kill = open(&sim.with_disk(killed).env());
        assert_eq!(texts(&after_kill, topic), acked, "seed {seed}: a kill loses nothing");
        let after_cut = open(&sim.with_disk(cut).env());
        let left = texts(&after_cut, topic);
        assert!(left.len() >= synced && acked[..left.len()] == left[..], "seed {seed}: {} of {synced}", left.len());
    }
}

/// Appends until something fails; says what was acknowledged and what nobody knows of.
fn append_until_failure(log: &Log, topic: TopicId, from: usize, acked: &mut Vec<String>) -> Option<Vec<String>> {
    let mut unknown = Vec::new();
    for number in from..from + 6 {
        let value = format!("{number} {}", "x".repeat(2_500));
        match log.append_wait(AppendBatch::records(topic, values(&[&value]))) {
            Ok(_) => acked.push(value),
            Err(error) => {
                if error.kind() == ErrorKind::Unknown {
                    unknown.push(value);
                } else {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                }
                return Some(unknown);
            }
        }
    }
    None
}

/// A log with a topic whose next calls of the disk are about to fail.
fn working(seed: u64) -> Result<(Sim, Log, TopicId)> {
    let sim = Sim::new(seed);
    let log = Log::open(&sim.env(), dir(), small())?;
    let topic = log.create_topic("t", TopicConfig::default())?.id();
    Ok((sim, log, topic))
}

#[test]
fn whichever_call_fails_the_log_can_be_reopened_and_unknown_records_are_not_in_it() {
    for (kind, lasting) in [(FaultKind::Eio, false), (FaultKind::Eio, true), (FaultKind::Enospc, true)] {
        let mut failed = 0;
        for call in 0.. {
            let (sim, log, topic) = working(call).unwrap();
            let mut reader = log.reader(&[topic], Position(0));
            sim.disk.set_fault(Some(Fault { call, kind, lasting }));
            let mut acked = Vec::new();
            let outcome = append_until_failure(&log, topic, 0, &mut acked);
            let reached = sim.disk.calls() > call;
            let what = format!("{kind:?} (lasting: {lasting}) at call {call}");
            if lasting && outcome.is_some() {
                let still = log.reopen();
                assert!(
                    still.is_err() || log.append_wait(AppendBatch::records(topic, values(&["no"]))).is_err(),
                    "{what}"
                );
            }
            sim.disk.set_fault(None);
            failed += usize::from(outcome.is_some());
            let report = log.reopen().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(report.damage, [], "{what}");
            assert_eq!(texts(&log, topic), acked, "{what}: what is not known to be there is not there");
            assert_eq!(append_until_failure(&log, topic, 10, &mut acked), None, "{what}: it does not go on");
            assert_eq!(texts(&log, topic), acked, "{what}");
            let mut seen = Vec::new();
            while let Some(batch) = reader.next(log.durable_end()).unwrap() {
                seen.extend(rows_of(&batch).into_iter().map(|row| String::from_utf8(row.value.unwrap()).unwrap()));
            }
            assert_eq!(seen, acked, "{what}: a reader from before goes on");
            let cut = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)).env());
            assert!(cut.report().damage.is_empty());
            assert_eq!(texts(&cut, topic), acked, "{what}, after a power cut");
            if !reached {
                break;
            }
        }
        assert!(failed > 4, "{kind:?}: {failed} runs failed");
    }
}

#[test]
fn reopening_may_be_cut_short_anywhere() {
    let (sim, log, topic) = working(7).unwrap();
    let mut acked = Vec::new();
    append_until_failure(&log, topic, 0, &mut acked);
    // Every write goes through, the sync does not.
    let calls_until_sync = 1;
    sim.disk.set_fault(Some(Fault { call: calls_until_sync, kind: FaultKind::Eio, lasting: false }));
    let unknown = append_until_failure(&log, topic, 6, &mut acked).unwrap();
    assert_eq!(unknown.len(), 1);
    sim.disk.set_fault(None);
    let base = sim.disk.copy();
    sim.disk.remember();
    log.reopen().unwrap();
    for (step, disk) in sim.disk.replay(&base).into_iter().enumerate() {
        for shape in [Crash::Nothing, Crash::All, Crash::Grown, Crash::Without(0)] {
            let log = open(&sim.with_disk(disk.crash(shape)).env());
            assert_eq!(log.report().damage, [], "{shape:?} after {step}");
            let left = texts(&log, topic);
            assert!(left == acked || left == [&acked[..], &unknown[..]].concat(), "{shape:?} after {step}: {left:?}");
        }
    }
}

#[test]
fn a_log_that_works_is_not_reopened_and_a_closed_one_cannot_be() {
    let (sim, log, topic) = working(8).unwrap();
    let files = sim.disk.files().len();
    log.reopen().unwrap();
    assert_eq!(sim.disk.files().len(), files);
    let clone = log.clone();
    log.close().unwrap();
    assert_eq!(clone.reopen().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(clone.seek(topic, SeekTarget::Earliest).unwrap(), Seek::At(Position(0)));
}

#[test]
fn a_log_with_history_and_snapshots_is_reopened_too() {
    for seed in 0..6 {
        let (sim, log, topic) = working(seed).unwrap();
        let mut acked = Vec::new();
        let mut reader = log.reader(&[topic], Position(0));
        for round in 0..4 {
            append_until_failure(&log, topic, round * 10, &mut acked);
            log.keep().unwrap();
        }
        let first = reader.next(log.durable_end()).unwrap().unwrap().len();
        sim.disk.set_fault(Some(Fault { call: seed % 3, kind: FaultKind::Eio, lasting: true }));
        append_until_failure(&log, topic, 100, &mut acked).unwrap();
        sim.disk.set_fault(None);
        log.reopen().unwrap();
        assert_eq!(texts(&log, topic), acked, "seed {seed}");
        append_until_failure(&log, topic, 200, &mut acked);
        log.keep().unwrap();
        let mut seen = first;
        while let Some(batch) = reader.next(log.durable_end()).unwrap() {
            seen += batch.len();
        }
        assert_eq!((seen, texts(&log, topic)), (acked.len(), acked.clone()), "seed {seed}");
        log.close().unwrap();
        let log = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)).env());
        assert_eq!(texts(&log, topic), acked, "seed {seed}, opened again");
    }
}
