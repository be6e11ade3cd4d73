//! What is derived changes nothing: footers, snapshots and removed files against scanning everything. And damage that is
//! found, accepted, and passed.

use super::history::{self, Step};
use super::*;
use crate::env::sim::{Crash, Sim, SimDisk};
use crate::error::ErrorKind;
use crate::log::frame::directory::TopicEntry;
use crate::log::journal::file_name;
use crate::log::{AppendBatch, DamageKind, MetaSpace, RecoveryReport, ScrubStatus, TopicConfig};
use crate::types::{AppendTime, FrameSeq, Offset};
use std::path::PathBuf;

/// A topic's records of a frame as the index has them: file, byte, durable end of the file, frame, append time, position.
type Entry = (u64, u64, u64, FrameSeq, AppendTime, Position, TopicEntry);

/// Everything that opening a log finds.
#[derive(Debug, PartialEq)]
struct Picture {
    entries: Vec<Entry>,
    ends: Vec<Vec<Offset>>,
    meta: Vec<Vec<(String, Vec<u8>)>>,
    end: Position,
    clock: AppendTime,
    applied: FrameSeq,
    /// Without what it says about footers and snapshots.
    report: RecoveryReport,
}

fn picture(log: &Log) -> Picture {
    let shared = &log.inner.shared;
    let clock = shared.state().clock.last();
    let topics: Vec<TopicId> = log.topics().iter().map(crate::log::Topic::id).collect();
    let mut entries = Vec::new();
    let mut from = Position(0);
    while let Some(found) = shared.index(|index| index.find(&topics, from, |_, _| true)) {
        from = found.end();
        let (file, at, end) = (found.file.number(), found.frame_at, found.file_end);
        entries.push((file, at, end, found.seq, found.append_time, found.first_position, found.entry));
    }
    Picture {
        entries,
        ends: topics.iter().map(|topic| log.partition_ends(*topic).unwrap()).collect(),
        meta: MetaSpace::ALL.into_iter().map(|space| log.meta_scan(space, "")).collect(),
        end: log.durable_end(),
        clock,
        applied: shared.state().view.applied(),
        report: RecoveryReport { footers: vec![], snapshots: vec![], ..log.report().clone() },
    }
}

/// Files stay in the journal.
fn journal_only() -> LogOptions {
    LogOptions { history: false, ..small() }
}

fn open(env: &Env) -> Log {
    Log::open(env, dir(), journal_only()).unwrap()
}

fn open_on(sim: &Sim, disk: &SimDisk) -> Log {
    open(&sim.with_disk(disk.copy()).env())
}

/// The sealed files of a disk: path, bytes, and where their frames end.
fn sealed_files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>, usize)> {
    let env = Sim::new(1).with_disk(disk.clone()).env();
    let listed = crate::log::open::list_files(&env, &dir().join("journal")).unwrap();
    let pair = |pair: &[crate::log::open::Listed]| {
        let end = usize::try_from(pair[1].header.unwrap().previous_len).unwrap();
        (pair[0].path.clone(), disk.peek(&pair[0].path).unwrap(), end)
    };
    listed.windows(2).map(pair).collect()
}

fn snapshots(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files().into_keys().filter(|path| path.extension().is_some_and(|ending| ending == "snapshot")).collect()
}

/// Three sealed files, two snapshots, nothing removed.
fn three_files() -> (Sim, SimDisk) {
    let before = [Step::Batch, Step::Roll, Step::Create, Step::Roll, Step::Keep];
    let behind = [Step::Append, Step::Roll, Step::Roll, Step::Keep, Step::Reopen];
    let history = history::play(3, &journal_only(), &[before, behind].concat());
    let disk = history.sim.disk.crash(Crash::All);
    assert!(sealed_files(&disk).len() >= 3 && snapshots(&disk).len() == 2);
    (history.sim, disk)
}

#[test]
fn opening_by_footers_finds_what_scanning_finds() {
    let mut cut = 0;
    for seed in 100..140 {
        let history = history::play(seed, &journal_only(), &history::random_steps(seed, 14));
        let disk = history.sim.disk.crash(Crash::All);
        let sealed = sealed_files(&disk);
        let by_footers = open_on(&history.sim, &disk);
        let expected = picture(&by_footers);
        assert!(by_footers.report().footers.is_empty(), "{}", by_footers.report());
        let scanned = disk.copy();
        for (number, (path, bytes, end)) in sealed.iter().enumerate() {
            assert!(bytes.len() > *end, "seed {seed}: {} has no footer", path.display());
            let mut left = bytes.clone();
            match number % 3 {
                0 => left.truncate(*end),
                1 => left.truncate(bytes.len() - 5),
                _ => left[*end + 1] ^= 1,
            }
            scanned.poke(path, left);
        }
        let log = open(&history.sim.with_disk(scanned.clone()).env());
        assert_eq!(picture(&log), expected, "seed {seed}");
        let read = sealed.iter().filter(|(path, ..)| log.report().footers.iter().any(|note| note.contains(name(path))));
        cut += read.count();
        drop(log);
        for (path, bytes, _) in &sealed {
            let now = scanned.peek(path).unwrap();
            // Files whose records are in history are not looked at.
            let seen = now.len() == bytes.len() && now == *bytes;
            assert!(
                seen || expected.entries.iter().all(|entry| file_name(entry.0) != name(path)),
                "seed {seed}: footer"
            );
        }
    }
    assert!(cut > 20, "only {cut} files were scanned");
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn no_changed_bit_of_a_footer_or_snapshot_changes_more_than_a_message() {
    let (sim, disk) = three_files();
    let expected = picture(&open_on(&sim, &disk));
    let check = |path: &PathBuf, bytes: &[u8], place: usize| {
        let mut changed = bytes.to_vec();
        changed[place] ^= 1 << (place % 8);
        let disk = disk.copy();
        disk.poke(path, changed);
        let what = format!("{} byte {place}", path.display());
        let seen = crate::log::inspect::inspect(&sim.with_disk(disk.copy()).env(), dir()).unwrap();
        assert_eq!(seen.severity(), 2, "{what}");
        let log = open_on(&sim, &disk);
        assert_eq!(picture(&log), expected, "{what}");
        log.report().clone()
    };
    let step = if std::env::var_os("KAPPA_LONG").is_some() { 1 } else { 3 };
    let (path, bytes, end) = &sealed_files(&disk)[1];
    for place in (*end..bytes.len()).step_by(step) {
        assert_eq!(check(path, bytes, place).footers.len(), 1, "footer byte {place}");
    }
    let newest = snapshots(&disk).pop().unwrap();
    let bytes = disk.peek(&newest).unwrap();
    for place in (0..bytes.len()).step_by(step * 8) {
        assert_eq!(check(&newest, &bytes, place).snapshots.len(), 1, "snapshot byte {place}");
    }
    for gone in [&snapshots(&disk)[1..], &snapshots(&disk)[..]] {
        let disk = disk.copy();
        gone.iter().for_each(|path| sim.with_disk(disk.clone()).env().disk.remove_file(path).unwrap());
        let log = open_on(&sim, &disk);
        assert_eq!(picture(&log), expected);
        assert_eq!(log.report().snapshots.len(), gone.len(), "{}", log.report());
    }
}

#[test]
fn what_was_removed_on_purpose_is_no_damage_and_what_is_missing_behind_it_is() {
    let removing = [Step::Roll, Step::Roll, Step::Append, Step::Keep];
    let behind = [Step::Roll, Step::Roll, Step::Append, Step::Append, Step::Reopen];
    let history = history::play(5, &small(), &[&removing[..], &behind].concat());
    let disk = history.sim.disk.crash(Crash::All);
    let log = open_on(&history.sim, &disk);
    let first = sealed_files(&disk)[0].0.clone();
    assert_ne!(name(&first), file_name(1), "nothing was removed");
    assert!(log.report().is_clean(), "{}", log.report());
    let whole = picture(&log);
    let seen = crate::log::inspect::inspect(&history.sim.with_disk(disk.copy()).env(), dir()).unwrap();
    assert_eq!((seen.severity(), seen.topics.len()), (0, log.topics().len()), "{seen:?}");
    // The first that is left is gone too.
    history.sim.with_disk(disk.clone()).env().disk.remove_file(&first).unwrap();
    let log = open_on(&history.sim, &disk);
    let damage = &log.report().damage;
    let sealed = crate::log::catalog::Sealed::decode(&log.meta(MetaSpace::Journal, "sealed").unwrap()).unwrap();
    assert_eq!(damage.len(), 1, "{}", log.report());
    assert_eq!((damage[0].positions.0, damage[0].frames.0), (sealed.end_position, sealed.end_seq));
    assert_eq!(log.durable_end(), whole.end);
    // Offsets that the missing records may have had are not given out again.
    let ends = picture(&log).ends;
    assert!(ends.iter().flatten().zip(whole.ends.iter().flatten()).all(|(now, before)| now >= before), "{ends:?}");
}

#[test]
fn an_idle_log_gets_no_snapshot_and_a_damaged_one_is_replaced_before_files_go() {
    let sim = Sim::new(8);
    let log = super::open(&sim.env());
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let large = "L".repeat(7_000);
    let roll = || log.append_wait(AppendBatch::records(topic, values(&[&large]))).unwrap();
    (0..3).for_each(|_| drop(roll()));
    // Somebody reads the first file meanwhile.
    let held = log.inner.shared.index(|index| index.sealed_after(0)).unwrap();
    log.keep().unwrap();
    let end = crate::log::inspect::inspect(&sim.with_disk(sim.disk.copy()).env(), dir()).unwrap();
    for _ in 0..5 {
        sim.clock.advance_us(3_600_000_000);
        log.keep().unwrap();
    }
    let still = crate::log::inspect::inspect(&sim.with_disk(sim.disk.copy()).env(), dir()).unwrap();
    assert_eq!((end.snapshots.len(), &end), (2, &still), "an idle log stays as it is");
    assert!(sim.disk.peek(&dir().join("journal").join(file_name(1))).is_some(), "it was held");
    drop(held);
    sim.disk.poke(&snapshots(&sim.disk)[1], b"garbage".to_vec());
    log.keep().unwrap();
    let troubles = log.take_troubles();
    assert!(troubles.len() == 1 && troubles[0].contains("another one is written"), "{troubles:?}");
    assert!(sim.disk.peek(&dir().join("journal").join(file_name(1))).is_none());
    let ends = log.partition_ends(topic).unwrap();
    drop(log);
    let log = super::open(&sim.env());
    assert!(log.report().is_clean(), "{}", log.report());
    assert_eq!(log.partition_ends(topic).unwrap(), ends);
}

/// A log with records of two topics, some of them damaged: a body of topic `a` in a sealed file, and the header of a frame
/// with records of both in the newest one. Gives the topics and the rows that can be read.
fn damaged() -> (Sim, [TopicId; 2], Vec<Row>) {
    let sim = Sim::new(9);
    let log = open(&sim.env());
    let ids = ["a", "b"].map(|name| log.create_topic(name, TopicConfig::default()).unwrap().id());
    let send = |value: &str| {
        let topics = ids.iter().map(|id| (*id, values(&[value, "second"]))).collect();
        log.append_wait(AppendBatch { topics, ..AppendBatch::default() }).unwrap()
    };
    let large = "L".repeat(3_000);
    let body = send("to be damaged");
    (0..2).for_each(|_| drop(send(&large)));
    let header = send("frame");
    (0..2).for_each(|_| drop(send("behind")));
    let rows = read_all(&log, &ids);
    log.close().unwrap();
    let seen = crate::log::inspect::inspect(&sim.env(), dir()).unwrap();
    let find = |seq: FrameSeq| {
        let files = seen.files.iter().flat_map(|file| file.frames.iter().map(move |frame| (&file.name, frame)));
        files.into_iter().find(|(_, frame)| frame.seq == seq.0).unwrap()
    };
    let flip = |(file, at): (&String, usize)| {
        let path = dir().join("journal").join(file);
        let mut bytes = sim.disk.peek(&path).unwrap();
        bytes[at] ^= 4;
        sim.disk.poke(&path, bytes);
    };
    let (body_file, frame) = find(body.seq);
    let bytes = sim.disk.peek(&dir().join("journal").join(body_file)).unwrap();
    let from = usize::try_from(frame.at).unwrap();
    let at = bytes[from..].windows(4).position(|four| four == b"to b").unwrap();
    flip((body_file, from + at));
    let (header_file, frame) = find(header.seq);
    assert_ne!(header_file, body_file);
    flip((header_file, usize::try_from(frame.at).unwrap() + 20));
    let lost = |row: &Row| {
        let position = row.position;
        (body.topics[0].first_position.0..body.topics[1].first_position.0).contains(&position)
            || (header.topics[0].first_position.0..header.end.0).contains(&position)
    };
    (sim, ids, rows.into_iter().filter(|row| !lost(row)).collect())
}

#[test]
fn an_accepted_loss_is_passed_and_listed_and_survives_every_power_cut() {
    let (sim, ids, rest) = damaged();
    let base = sim.disk.copy();
    sim.disk.remember();
    let log = open(&sim.env());
    assert_eq!(log.report().damage.len(), 1, "the body shows only when it is read: {}", log.report());
    assert_eq!(log.reader(&ids, Position(0)).next(log.durable_end()).unwrap_err().kind(), ErrorKind::Damage);
    let accepted = log.accept_loss().unwrap();
    let acked_at = sim.disk.changes();
    let kinds: Vec<DamageKind> = accepted.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::Records, DamageKind::Frames]);
    let offsets: Vec<_> = accepted.iter().flat_map(|damage| &damage.offsets).collect();
    assert!(
        offsets.len() == 3 && offsets.iter().all(|offsets| offsets.certain && offsets.name.is_some()),
        "{offsets:?}"
    );
    assert_eq!(read_all(&log, &ids), rest);
    assert_eq!(log.accept_loss().unwrap(), []);
    let ends = ids.map(|id| log.partition_ends(id).unwrap());
    drop(log);
    let mut states = 0;
    for (changes, disk) in sim.disk.replay(&base).iter().enumerate() {
        for shape in [Crash::Nothing, Crash::All, Crash::Grown, Crash::Without(0)] {
            let crashed = disk.crash(shape);
            let what = format!("{shape:?} after {changes} changes");
            let seen = crate::log::inspect::inspect(&sim.with_disk(crashed.copy()).env(), dir()).unwrap();
            let log = open(&sim.with_disk(crashed).env());
            states += 1;
            let found: Vec<_> = log.report().accepted.iter().map(|loss| loss.positions).collect();
            assert_eq!(seen.accepted.len(), found.len(), "{what}");
            if found.is_empty() {
                assert!(changes < acked_at, "{what}: what was accepted is gone");
                assert!(log.find_damage().unwrap().len() == 2, "{what}");
                assert_eq!(log.accept_loss().unwrap(), accepted, "{what}");
            } else {
                assert_eq!(found, accepted.iter().map(|loss| loss.positions).collect::<Vec<_>>(), "{what}");
                assert_eq!((seen.damage.len(), log.report().damage.len()), (0, 0), "{what}: {}", log.report());
                assert!(seen.severity() < 2, "{what}: {:?}", seen.files);
            }
            assert_eq!(read_all(&log, &ids), rest, "{what}");
            assert_eq!(ids.map(|id| log.partition_ends(id).unwrap()), ends, "{what}");
        }
    }
    assert!(states > 20);
}

#[test]
fn scrubbing_finds_damage_once_a_day_and_tells_readers() {
    let (sim, ids, _) = damaged();
    let log = open(&sim.env());
    assert_eq!(log.scrub_status(), ScrubStatus::default());
    log.keep().unwrap();
    assert_eq!(log.scrub_status().bytes, 0, "not at once");
    let pass = |number: u64| {
        let mut steps = 0;
        while log.scrub_status().passes < number {
            sim.clock.advance_us(1_000_000);
            log.keep().unwrap();
            steps += 1;
            assert!(steps < 200_000, "no pass ends: {:?}", log.scrub_status());
        }
        steps
    };
    sim.clock.advance_us(60_000_000);
    let steps = pass(1);
    assert!((3..100).contains(&steps), "{steps}");
    let status = log.scrub_status();
    assert_eq!((status.damage.len(), status.damage[0].kind), (1, DamageKind::Records));
    let troubles = log.take_troubles();
    assert!(troubles.len() == 1 && troubles[0].contains("topic a partition 0 offsets 0 to 1"), "{troubles:?}");
    assert!(log.inner.shared.index(|index| index.lost.contains(&status.damage[0])));
    let mut reader = log.reader(&ids, Position(0));
    assert_eq!(reader.next(log.durable_end()).unwrap_err().kind(), ErrorKind::Damage);
    reader.skip_damage();
    assert!(reader.next(log.durable_end()).unwrap().is_some_and(|batch| batch.topic == ids[1]));
    sim.clock.advance_us(23 * 3_600_000_000);
    log.keep().unwrap();
    assert_eq!(log.scrub_status().bytes, status.bytes, "the next pass comes after a day");
    sim.clock.advance_us(3_600_000_000);
    pass(2);
    assert_eq!(log.scrub_status().damage.len(), 1, "the same damage is told once");
}
