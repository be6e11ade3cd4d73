//! Law 8 against rot: every byte of every file of a data folder changed; files cut short, blocks doubled, swapped, zeroed, or
//! from another file. Whatever it is: no wrong record is served, and what is missing is named.

use super::crash::tell;
use super::history::Dice;
use super::*;
use crate::env::sim::{Sim, SimDisk};
use crate::env::thread::map_ordered;
use crate::error::ErrorKind;
use crate::log::{AppendBatch, DamageKind, MetaRecord, MetaSpace, Topic, TopicConfig};
use crate::types::Offset;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

/// A data folder and all that is known of it.
pub(super) struct Specimen {
    sim: Sim,
    options: LogOptions,
    topics: Vec<(TopicId, String, u32)>,
    rows: BTreeMap<u64, Row>,
    ends: BTreeMap<TopicId, Vec<Offset>>,
    commits: usize,
    /// The newest journal file, and where each of its frames begins with its first position.
    newest: PathBuf,
    frames: Vec<(usize, u64)>,
}

/// One way in which a file has changed.
struct Case {
    file: PathBuf,
    what: String,
    bytes: Vec<u8>,
    /// From the first byte that differs to behind the last.
    changed: Range<usize>,
}

/// What a changed file led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing is missing and nothing was found: the bytes do not matter.
    Harmless,
    /// The other copy of a header serves.
    Repaired,
    /// The end is gone, and nothing says that it was ever durable.
    Torn,
    /// What is missing or damaged is named.
    Named,
    /// The log does not open, and says why.
    Refused,
}

fn commit_value(number: usize) -> Vec<u8> {
    format!("offset {number}").into_bytes()
}

/// A log of `frames` frames over two topics with metadata in between, its files of `options`.
pub(super) fn specimen(options: &LogOptions, frames: usize) -> Specimen {
    let sim = Sim::new(9);
    let log = Log::open(&sim.env(), dir(), options.clone()).unwrap();
    let create = |(name, partitions): (&str, u32)| {
        log.create_topic(name, TopicConfig { partitions, ..TopicConfig::default() }).unwrap().id()
    };
    let ids: Vec<TopicId> = [("a", 2), ("b", 1)].map(create).to_vec();
    let mut dice = Dice::new(4);
    let mut commits = 0;
    for number in 0..frames {
        sim.clock.advance_us(dice.below(2_000));
        let mut batch = AppendBatch::default();
        for (id, partitions) in ids.iter().zip([2, 1]) {
            let mut columns = RecordColumns::default();
            for row in 0..dice.below(4) {
                let value = format!("{number} {row} {}", "v".repeat(dice.below(120) as usize));
                let key = (row == 1).then_some(&b"key"[..]);
                let record =
                    Record { timestamp_ms: Some(number as i64), key, value: Some(value.as_bytes()), headers: &[] };
                columns.push(Partitioning::Fixed(PartitionId(dice.below(partitions) as u32)), &record);
            }
            batch.topics.push((*id, columns));
        }
        if number % 3 == 0 {
            let value = Some(commit_value(commits));
            batch.meta.push(MetaRecord { space: MetaSpace::Offset, key: "g/1/0".to_owned(), value });
            commits += 1;
        }
        log.append_wait(batch).unwrap();
    }
    log.keep().unwrap();
    let rows = read_all(&log, &ids).into_iter().map(|row| (row.position, row)).collect();
    let ends = ids.iter().map(|id| (*id, log.partition_ends(*id).unwrap())).collect();
    let topics = topics_of(&log);
    log.close().unwrap();
    let seen = crate::log::inspect::inspect(&sim.env(), dir()).unwrap();
    let last = seen.files.last().unwrap();
    let frames = last.frames.iter().map(|frame| (frame.at as usize, frame.first_position)).collect();
    let newest = dir().join("journal").join(&last.name);
    Specimen { sim, options: options.clone(), topics, rows, ends, commits, newest, frames }
}

fn topics_of(log: &Log) -> Vec<(TopicId, String, u32)> {
    log.topics().iter().map(|topic| (topic.id(), topic.name().to_owned(), topic.partitions())).collect()
}

/// All that can be read, and the stretches of positions that the reader had to pass over.
fn read_around(log: &Log, what: &str) -> (Vec<Row>, Vec<Range<u64>>) {
    let ids: Vec<TopicId> = log.topics().iter().map(Topic::id).collect();
    let mut reader = log.reader(&ids, Position(0));
    let (mut rows, mut passed) = (Vec::new(), Vec::new());
    loop {
        match reader.next(log.durable_end()) {
            Ok(Some(batch)) => rows.extend(rows_of(&batch)),
            Ok(None) => return (rows, passed),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damage, "{what}: {error}");
                assert!(error.message().contains("topic"), "{what}: who lost what? {error}");
                let (from, to) = reader.skip_damage().unwrap();
                assert!(from < to && passed.len() < 1_000, "{what}: {error}");
                passed.push(from.0..to.0);
            }
        }
    }
}

impl Specimen {
    /// The bytes of a journal file.
    pub fn bytes_of(&self, number: u64) -> Vec<u8> {
        self.sim.disk.peek(&dir().join("journal").join(crate::log::journal::file_name(number))).unwrap()
    }

    /// The files of the folder but for the lock.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.sim.disk.files().into_iter();
        files.filter(|(path, _)| path.starts_with(dir()) && path.file_name().unwrap() != "LOCK").collect()
    }

    fn judge(&self, case: &Case) -> Outcome {
        let what = format!("{}: {}", case.file.display(), case.what);
        let disk: SimDisk = self.sim.disk.copy();
        disk.poke(&case.file, case.bytes.clone());
        let log = match Log::open(&self.sim.with_disk(disk).env(), dir(), self.options.clone()) {
            Ok(log) => log,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damage, "{what}: {error}");
                return Outcome::Refused;
            }
        };
        let report = log.report();
        let (read, passed) = read_around(&log, &what);
        for row in &read {
            assert_eq!(Some(row), self.rows.get(&row.position), "{what}: a wrong record was served; {report}");
        }
        assert!(read.is_sorted_by_key(|row| (row.topic, row.position)) || is_each_once(&read), "{what}: read twice");
        let tail_gone = case.file == self.newest && self.frames.last().is_none_or(|last| case.changed.end > last.0);
        let lost = self.lost(&read);
        if tail_gone {
            let whole = self.frames.partition_point(|(at, _)| *at <= case.changed.start);
            let from = self.frames.get(whole.saturating_sub(1)).map_or(0, |(_, position)| *position);
            assert!(lost.iter().all(|position| *position >= from), "{what}: before the change; {report}");
        } else {
            self.check_named(&log, &lost, &passed, &what);
        }
        if report.torn.is_some() || (tail_gone && report.damage.is_empty() && !lost.is_empty()) {
            assert!(tail_gone, "{what}: torn, although later frames prove that it was durable; {report}");
            return Outcome::Torn;
        }
        match (report.damage.is_empty() && passed.is_empty(), report.header_copies.is_empty()) {
            (false, _) => Outcome::Named,
            (true, false) => Outcome::Repaired,
            (true, true) => Outcome::Harmless,
        }
    }

    fn lost(&self, read: &[Row]) -> Vec<u64> {
        let there: std::collections::BTreeSet<u64> = read.iter().map(|row| row.position).collect();
        self.rows.keys().copied().filter(|position| !there.contains(position)).collect()
    }

    /// What is missing is named, and nothing else is wrong.
    fn check_named(&self, log: &Log, lost: &[u64], passed: &[Range<u64>], what: &str) {
        let report = log.report();
        let damaged = report.damage.iter().map(|damage| damage.positions.0.0..damage.positions.1.0);
        let named: Vec<Range<u64>> = damaged.chain(passed.iter().cloned()).collect();
        // Without the record that creates a topic it is not there, and nothing of it.
        let reachable = |position: &&u64| topics_of(log).iter().any(|(id, ..)| id.0 == self.rows[position].topic);
        let silent = lost.iter().filter(reachable).find(|lost| !named.iter().any(|named| named.contains(lost)));
        assert_eq!(silent, None, "{what}: lost in silence; {report}");
        let meta_lost = report.damage.iter().any(|damage| damage.kind != DamageKind::Records);
        let topics = topics_of(log);
        assert!(topics == self.topics || meta_lost, "{what}: topics {topics:?}; {report}");
        for topic in &topics {
            assert!(self.topics.contains(topic), "{what}: a wrong topic {topic:?}; {report}");
            let ends = log.partition_ends(topic.0).unwrap();
            let given = ends.iter().zip(&self.ends[&topic.0]).all(|(end, before)| end >= before);
            assert!(given || report.torn.is_some(), "{what}: offsets would be given out again: {ends:?}; {report}");
        }
        let committed = log.meta(MetaSpace::Offset, "g/1/0");
        let newest = committed == Some(commit_value(self.commits - 1));
        let some = committed.is_none_or(|value| (0..self.commits).any(|number| value == commit_value(number)));
        assert!(newest || (meta_lost && some), "{what}: a wrong offset is committed; {report}");
    }

    fn flip(&self, file: &(PathBuf, Vec<u8>), at: usize, bit: u32) -> Case {
        let mut bytes = file.1.clone();
        bytes[at] ^= 1 << bit;
        Case { file: file.0.clone(), what: format!("byte {at}, bit {bit}"), bytes, changed: at..at + 1 }
    }

    /// One random bit of every `step`th byte.
    fn flips(&self, step: usize) -> Vec<Case> {
        let mut dice = Dice::new(8);
        let mut cases = Vec::new();
        for file in self.files() {
            cases.extend((0..file.1.len()).step_by(step).map(|at| self.flip(&file, at, dice.below(8) as u32)));
        }
        cases
    }

    /// Every bit of headers and directories: of the files' headers, and of the first `frames` frames of the newest file.
    fn header_bits(&self, frames: usize) -> Vec<Case> {
        let mut cases = Vec::new();
        let ends = self.frames.iter().skip(1).map(|frame| frame.0);
        let fronts = self.frames.iter().zip(ends).take(frames).map(|((at, _), end)| *at..end.min(at + 80 + 48 + 32));
        let fronts: Vec<Range<usize>> = fronts.collect();
        for file in self.files() {
            let mut places: Vec<usize> = (0..72.min(file.1.len())).collect();
            if file.0 == self.newest {
                places.extend(fronts.iter().cloned().flatten());
            }
            cases.extend(places.iter().flat_map(|at| (0..8).map(|bit| self.flip(&file, *at, bit))));
        }
        cases
    }

    /// Cut to every `step`th length.
    fn cuts(&self, step: usize) -> Vec<Case> {
        let mut cases = Vec::new();
        for (file, bytes) in self.files() {
            cases.extend((0..bytes.len()).step_by(step).map(|len| Case {
                file: file.clone(),
                what: format!("cut to {len} bytes"),
                bytes: bytes[..len].to_vec(),
                changed: len..bytes.len(),
            }));
        }
        cases
    }

    /// Blocks of 512 and 4096 bytes: zeroed, doubled over the next, swapped with it, from another file.
    fn blocks(&self) -> Vec<Case> {
        let files = self.files();
        let mut cases = Vec::new();
        for (number, (file, bytes)) in files.iter().enumerate() {
            let other = &files[(number + 1) % files.len()].1;
            for size in [512, 4_096] {
                for at in (0..bytes.len()).step_by(size) {
                    let end = (at + size).min(bytes.len());
                    let mut case = |what: &str, changed: Vec<u8>| {
                        let what = format!("block {at} to {end} {what}");
                        cases.extend(Case::of(file, what, bytes, changed));
                    };
                    let with = |at: usize, block: &[u8]| {
                        let mut changed = bytes.clone();
                        let len = block.len().min(changed.len() - at);
                        changed[at..at + len].copy_from_slice(&block[..len]);
                        changed
                    };
                    let block = &bytes[at..end];
                    case("zeroed", with(at, &vec![0; end - at]));
                    if end < bytes.len() {
                        case("over the next", with(end, block));
                        let next = bytes[end..(end + size).min(bytes.len())].to_vec();
                        let mut swapped = with(end, &block[..next.len().min(block.len())]);
                        swapped[at..at + next.len()].copy_from_slice(&next);
                        case("swapped with the next", swapped);
                    }
                    if other.len() >= end {
                        case("from another file", with(at, &other[at..end]));
                    }
                }
            }
        }
        cases
    }

    /// Judges all cases and counts what they led to.
    fn judge_all(&self, cases: Vec<Case>) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for outcome in map_ordered(crate::env::thread::available(), cases, |case| self.judge(&case)) {
            *counts.entry(outcome).or_insert(0) += 1;
        }
        counts
    }

    /// A few of everything, to see whether a broken log is noticed.
    pub fn sample(&self) {
        // The last frames hold the offset that counts.
        let last = self.frames[self.frames.len().saturating_sub(5)].0;
        let newest = (self.newest.clone(), self.sim.disk.peek(&self.newest).unwrap());
        for at in (last..newest.1.len()).step_by(3) {
            self.judge(&self.flip(&newest, at, 1));
        }
        for cases in [self.flips(61), self.header_bits(2), self.cuts(997)] {
            for case in cases.into_iter().step_by(2) {
                self.judge(&case);
            }
        }
    }
}

fn is_each_once(read: &[Row]) -> bool {
    let positions: std::collections::BTreeSet<u64> = read.iter().map(|row| row.position).collect();
    positions.len() == read.len()
}

impl Case {
    /// `None` if nothing differs.
    fn of(file: &std::path::Path, what: String, bytes: &[u8], changed: Vec<u8>) -> Option<Case> {
        let differs = |at: &usize| bytes[*at] != changed[*at];
        let (from, to) = ((0..bytes.len()).find(differs)?, (0..bytes.len()).rfind(differs)?);
        Some(Case { file: file.to_owned(), what, bytes: changed, changed: from..to + 1 })
    }
}

fn tell_outcomes(what: &str, counts: &BTreeMap<Outcome, usize>) {
    let total: usize = counts.values().sum();
    tell(&format!("rot: {total} {what}: {counts:?}, wrong records served = 0, lost in silence = 0"));
}

/// Two journal files: a full one of 64 KiB, and the newest.
fn large() -> LogOptions {
    LogOptions { file_bytes: 64 << 10, history: false, ..small() }
}

/// Most records in history, and the journal files that held them gone.
fn sealed() -> LogOptions {
    LogOptions { history: true, ..large() }
}

/// A debug build does a fraction; `KAPPA_LONG=1` does all in any build.
fn step(release: usize, debug: usize) -> usize {
    let long = std::env::var_os("KAPPA_LONG").is_some();
    if long {
        1
    } else if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}

#[test]
fn a_changed_bit_is_found_or_harmless() {
    let specimen = specimen(&large(), 130);
    let bytes: usize = specimen.files().iter().map(|file| file.1.len()).sum();
    assert!(bytes > 65 << 10, "{bytes} bytes");
    let counts = specimen.judge_all(specimen.flips(step(1, 61)));
    tell_outcomes("flips, a random bit of each byte", &counts);
    assert!(counts.contains_key(&Outcome::Named) && !counts.contains_key(&Outcome::Refused), "{counts:?}");
    let counts = specimen.judge_all(specimen.header_bits(8 / step(1, 4)));
    tell_outcomes("flips, every bit of headers and directories", &counts);
    assert!(counts.contains_key(&Outcome::Repaired), "{counts:?}");
    let counts = {
        let specimen = self::specimen(&sealed(), 130);
        specimen.judge_all(specimen.flips(step(3, 97)))
    };
    tell_outcomes("flips with records in history, a random bit of each byte", &counts);
    assert!(counts.contains_key(&Outcome::Named), "{counts:?}");
}

#[test]
fn a_file_cut_short_is_torn_only_at_the_very_end() {
    let specimen = specimen(&large(), 130);
    let counts = specimen.judge_all(specimen.cuts(step(37, 997)));
    tell_outcomes("files cut short", &counts);
    assert!(counts.contains_key(&Outcome::Torn) && counts.contains_key(&Outcome::Named), "{counts:?}");
    let specimen = self::specimen(&sealed(), 130);
    let counts = specimen.judge_all(specimen.cuts(step(37, 997)));
    tell_outcomes("files cut short, with records in history", &counts);
    assert!(counts.contains_key(&Outcome::Named), "{counts:?}");
}

#[test]
fn misplaced_blocks_are_found() {
    let mut all = BTreeMap::new();
    for codec in [crate::log::Codec::Plain, crate::log::Codec::Lz4] {
        let specimen = specimen(&LogOptions { codec, ..large() }, 130);
        for (outcome, count) in specimen.judge_all(specimen.blocks()) {
            *all.entry(outcome).or_insert(0) += count;
        }
    }
    tell_outcomes("blocks zeroed, doubled, swapped, misplaced", &all);
    assert!(all.contains_key(&Outcome::Named), "{all:?}");
}
