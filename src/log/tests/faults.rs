//! Laws 6 and 8 when the disk fails: every call in turn, and every byte of a file.

use super::*;
use crate::env::sim::{Crash, Fault, FaultKind, Sim};
use crate::error::{ErrorKind, Result};
use crate::log::journal::file_name;
use crate::log::{AppendBatch, DamageKind, TopicConfig};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Opens a log, appends until a file is full and another begun, and says which values were acknowledged.
fn work(sim: &Sim, options: &LogOptions, acked: &mut Vec<String>) -> Result<()> {
    let log = Log::open(&sim.env(), dir(), options.clone())?;
    let topic = match log.topic("t") {
        Ok(topic) => topic,
        Err(_) => log.create_topic("t", TopicConfig::default())?,
    };
    for number in 0..6 {
        let value = format!("{number} {}", "x".repeat(2_500));
        let result = log.append_wait(AppendBatch::records(topic.id(), values(&[&value])));
        match result {
            Ok(_) => acked.push(value),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Unavailable), "{error}");
                let next = log.append_wait(AppendBatch::records(topic.id(), values(&["later"]))).unwrap_err();
                assert_eq!(next.kind(), ErrorKind::Unavailable, "nothing is taken after a failure: {next}");
                // What is durable can still be read.
                let read: Vec<String> = read_all_or_fail(&log, topic.id())?;
                assert!(acked.iter().all(|value| read.contains(value)));
                return Err(error);
            }
        }
    }
    log.close()
}

fn read_all_or_fail(log: &Log, topic: TopicId) -> Result<Vec<String>> {
    let mut reader = log.reader(&[topic], Position(0));
    let mut found = Vec::new();
    while let Some(batch) = reader.next(log.durable_end())? {
        found.extend(rows_of(&batch).into_iter().map(|row| String::from_utf8(row.value.unwrap()).unwrap()));
    }
    Ok(found)
}

/// Fails each call in turn, of every kind, and opens what that left: as it is, after a power cut, and after a power cut that
/// follows an opening. Gives the number of runs that failed.
pub(super) fn every_call_fails(options: &LogOptions) -> usize {
    let mut all = 0;
    for (kind, lasting) in [
        (FaultKind::Eio, false),
        (FaultKind::Eio, true),
        (FaultKind::Enospc, false),
        (FaultKind::Enospc, true),
        (FaultKind::ShortWrite, false),
    ] {
        let mut failed = 0;
        for call in 0.. {
            let sim = Sim::new(call);
            sim.disk.set_fault(Some(Fault { call, kind, lasting }));
            let mut acked = Vec::new();
            let result = work(&sim, options, &mut acked);
            let reached = sim.disk.calls() > call;
            sim.disk.set_fault(None);
            failed += usize::from(result.is_err());
            for (how, disk) in [("as it is", sim.disk.copy()), ("after a power cut", sim.disk.crash(Crash::Nothing))] {
                let what = format!("{kind:?} (lasting: {lasting}) at call {call}, {how}");
                check_after(&sim.with_disk(disk), options, &acked, &what);
            }
            if !reached {
                break;
            }
        }
        assert!(failed > 5 || kind == FaultKind::ShortWrite, "{kind:?}: {failed} runs failed");
        all += failed;
    }
    all
}

/// Opens, and again after a power cut: what was acknowledged is there, and what was shown stays.
fn check_after(sim: &Sim, options: &LogOptions, acked: &[String], what: &str) {
    let open = |sim: &Sim| {
        let log = Log::open(&sim.env(), dir(), options.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(log.report().damage, [], "{what}");
        log
    };
    let read = |log: &Log| match log.topic("t") {
        Ok(topic) => read_all_or_fail(log, topic.id()).unwrap(),
        Err(_) => Vec::new(),
    };
    let log = open(sim);
    let shown = read(&log);
    assert!(shown.len() >= acked.len() && shown[..acked.len()] == *acked, "{what}: {shown:?}");
    let cut = open(&sim.with_disk(sim.disk.crash(Crash::Nothing)));
    assert!(read(&cut) == shown, "{what}: shown, and gone after a power cut");
    if let Ok(topic) = log.topic("t") {
        log.append_wait(AppendBatch::records(topic.id(), values(&["goes on"]))).unwrap();
    }
}

#[test]
fn whichever_call_fails_nothing_acknowledged_is_lost_and_the_log_opens_again() {
    let failed = every_call_fails(&small());
    super::crash::tell(&format!("failing calls: {failed} runs failed, at every call and in 5 ways, lost = 0"));
}

/// A log of one file with two topics in each frame; the newest file is sealed, or still the newest.
fn two_topics(sealed: bool) -> (Sim, Vec<Row>) {
    let sim = Sim::new(5);
    let log = open(&sim.env());
    let ids: Vec<TopicId> =
        ["a", "b"].iter().map(|name| log.create_topic(name, TopicConfig::default()).unwrap().id()).collect();
    for number in 0..3 {
        let topics = ids.iter().map(|id| (*id, values(&[&format!("{number} of {id}"), "second"]))).collect();
        log.append_wait(AppendBatch { topics, ..AppendBatch::default() }).unwrap();
    }
    if sealed {
        let big = "x".repeat(12_000);
        log.append_wait(AppendBatch::records(ids[0], values(&[&big]))).unwrap();
    }
    let rows = read_all(&log, &ids);
    log.close().unwrap();
    (sim, rows)
}

/// What can be read of both topics, and how many times damage was met.
fn read_around_damage(log: &Log) -> (Vec<Row>, usize) {
    let ids: Vec<TopicId> = log.topics().iter().map(crate::log::Topic::id).collect();
    let mut reader = log.reader(&ids, Position(0));
    let (mut rows, mut damage) = (Vec::new(), 0);
    loop {
        match reader.next(log.durable_end()) {
            Ok(Some(batch)) => rows.extend(rows_of(&batch)),
            Ok(None) => return (rows, damage),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damage, "{error}");
                assert!(error.message().contains(".journal"), "{error}");
                damage += 1;
                let before = reader.position();
                reader.skip_damage();
                assert!(reader.position() > before, "{error}");
            }
        }
    }
}

#[test]
fn a_bit_flip_anywhere_is_found_or_harmless_and_costs_no_other_topic() {
    for sealed in [false, true] {
        let (sim, rows) = two_topics(sealed);
        let path: PathBuf = dir().join("journal").join(file_name(1));
        let clean = sim.disk.peek(&path).unwrap();
        let mut outcomes = BTreeSet::new();
        // The headers' blocks are one CRC each: every 64th byte of them will do, and every byte of the frames.
        let places = (0..8192).step_by(if sealed { 512 } else { 64 }).chain(8192..clean.len().min(8192 + 2_500));
        for at in places {
            let disk = sim.disk.copy();
            let mut bytes = clean.clone();
            bytes[at] ^= 1 << (at % 8);
            disk.poke(&path, bytes);
            let what = format!("byte {at}, sealed: {sealed}");
            let log = match Log::open(&sim.with_disk(disk).env(), dir(), small()) {
                Ok(log) => log,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damage, "{what}: {error}");
                    continue;
                }
            };
            outcomes.insert(check_flip(&log, &rows, at, sealed, &what));
        }
        assert!(outcomes.contains("damage") && outcomes.contains("header"), "{outcomes:?}");
        assert_eq!(outcomes.contains("torn"), !sealed, "{outcomes:?}");
    }
}

fn check_flip(log: &Log, rows: &[Row], at: usize, sealed: bool, what: &str) -> &'static str {
    let report = log.report();
    if log.topics().len() < 2 {
        // The frames that create the topics come first; the damage names them.
        assert!(report.damage.iter().any(|damage| damage.frames.0.0 <= 2), "{what}: {report}");
        return "topic";
    }
    let (read, met) = read_around_damage(log);
    let wrong = read.iter().find(|row| !rows.contains(row));
    assert_eq!(wrong, None, "{what}: a wrong record was served");
    let lost: Vec<&Row> = rows.iter().filter(|row| !read.contains(row)).collect();
    if at < 8192 {
        assert!(lost.is_empty() && !report.header_copies.is_empty(), "{what}: {report}");
        return "header";
    }
    if report.torn.is_some() {
        assert!(!sealed, "{what}: a sealed file is never torn");
        assert!(lost.is_empty(), "{what}: only the mark at the end is not proven durable: {report}");
        return "torn";
    }
    assert!(lost.is_empty() || met > 0, "{what}: {} records lost in silence", lost.len());
    let bodies_only = report.damage.iter().all(|damage| damage.kind == DamageKind::Records);
    if !lost.is_empty() && bodies_only {
        assert_eq!(lost.iter().map(|row| row.topic).collect::<BTreeSet<_>>().len(), 1, "{what}: one body, one topic");
    }
    assert!(lost.len() <= 4, "{what}: one frame at most");
    if report.damage.is_empty() && met == 0 { "harmless" } else { "damage" }
}

#[test]
fn offsets_behind_a_lost_frame_are_not_given_out_again() {
    lost_offsets_stay_unused(&small());
}

pub(super) fn lost_offsets_stay_unused(options: &LogOptions) {
    let open = |env: &Env| Log::open(env, dir(), options.clone()).unwrap();
    let sim = Sim::new(6);
    let log = open(&sim.env());
    let a = log.create_topic("a", TopicConfig::default()).unwrap().id();
    let b = log.create_topic("b", TopicConfig::default()).unwrap().id();
    log.append_wait(AppendBatch::records(a, values(&["a0", "a1"]))).unwrap();
    let lost = log.append_wait(AppendBatch::records(b, values(&["b0"]))).unwrap();
    log.append_wait(AppendBatch::records(a, values(&["a2"]))).unwrap();
    log.close().unwrap();
    let path = dir().join("journal").join(file_name(1));
    let mut bytes = sim.disk.peek(&path).unwrap();
    let inspection = crate::log::inspect::inspect(&sim.env(), dir()).unwrap();
    assert_eq!(inspection.severity(), 0);
    let frame = inspection.files[0].frames.iter().find(|frame| frame.seq == lost.seq.0).unwrap();
    bytes[frame.at as usize + 9] ^= 1;
    sim.disk.poke(&path, bytes);
    assert_eq!(crate::log::inspect::inspect(&sim.env(), dir()).unwrap().severity(), 2);
    let log = open(&sim.env());
    let damage = &log.report().damage;
    assert_eq!(damage.len(), 1, "{}", log.report());
    assert_eq!(damage[0].positions, (Position(2), Position(3)));
    // A later frame of `a` proves that nothing of it is lost; of `b` nothing is known.
    let ends = log.partition_ends(b).unwrap();
    assert!(ends[0].0 >= 1, "offset 0 was given out before: {ends:?}");
    assert_eq!(read_all(&log, &[a]).iter().map(|row| row.offset).collect::<Vec<_>>(), [0, 1, 2]);
    let mut reader = log.reader(&[b], Position(0));
    let error = reader.next(log.durable_end()).unwrap_err();
    assert!(error.message().contains("topic b partition 0 possibly offsets 0 to 0"), "{error}");
    reader.skip_damage();
    assert!(reader.next(log.durable_end()).unwrap().is_none());
    let next = log.append_wait(AppendBatch::records(b, values(&["next"]))).unwrap();
    assert_eq!(next.topics[0].partitions[0].base_offset, ends[0]);
    drop(log);
    // From here on a later frame tells the lost offset; the picture stays the same.
    let log = open(&sim.env());
    assert_eq!(log.report().damage[0].positions, (Position(2), Position(3)));
    let error = log.reader(&[b], Position(0)).next(log.durable_end()).unwrap_err();
    assert!(error.message().contains("topic b partition 0 offsets 0 to 0"), "{error}");
}
