//! Sealing and merging change nothing that a reader sees: random histories against a model, readers that go on while records
//! move, damage, leases, and the cache.

use super::crash::fingerprint;
use super::history::{Dice, Look, Step, check, play, random_rows};
use super::*;
use crate::env::sim::{Crash, Sim};
use crate::env::thread::map_ordered;
use crate::error::ErrorKind;
use crate::format::{FormatSpec, JsonOptions};
use crate::log::history::RebuildProgress;
use crate::log::history::read::HistoryFile;
use crate::log::records::{Projection, ValueColumns};
use crate::log::{AppendBatch, Consumer, MetaRecord, MetaSpace, Reader, TopicConfig};
use arrow::datatypes::{DataType, Field, Schema};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

fn long() -> bool {
    std::env::var_os("KAPPA_LONG").is_some()
}

/// A log and what must be in it.
struct Model {
    sim: Sim,
    log: Log,
    topics: Vec<(TopicId, u32)>,
    /// In order of position.
    rows: Vec<Row>,
    offsets: BTreeMap<(u32, u32), u64>,
    sent: usize,
}

fn options() -> LogOptions {
    LogOptions { history_cache_bytes: 64 << 10, ..small() }
}

impl Model {
    fn new(seed: u64) -> Model {
        let sim = Sim::new(seed);
        let log = Log::open(&sim.env(), dir(), options()).unwrap();
        let mut model = Model { sim, log, topics: Vec::new(), rows: Vec::new(), offsets: BTreeMap::new(), sent: 0 };
        for partitions in [1, 4, 2] {
            model.create(partitions);
        }
        model
    }

    fn create(&mut self, partitions: u32) {
        let config = TopicConfig { partitions, ..TopicConfig::default() };
        self.sent += 1;
        let name = format!("topic-{}", self.sent);
        self.topics.push((self.log.create_topic(&name, config).unwrap().id(), partitions));
    }

    fn delete(&mut self, place: usize) {
        let (id, _) = self.topics.remove(place);
        let name = self.log.topic_by_id(id).unwrap().name().to_owned();
        self.log.delete_topic(&name).unwrap();
        self.rows.retain(|row| row.topic != id.0);
    }

    fn send(&mut self, dice: &mut Dice) {
        self.sent += 1;
        self.sim.clock.advance_us(dice.below(5_000));
        let mut topics = Vec::new();
        for _ in 0..1 + dice.below(2) {
            let (id, partitions) = self.topics[dice.below(self.topics.len() as u64) as usize];
            topics.push((id, random_rows(dice, partitions, self.sent)));
        }
        let ack = self.log.append_wait(AppendBatch { topics: topics.clone(), ..AppendBatch::default() }).unwrap();
        for ((id, columns), place) in topics.iter().zip(&ack.topics) {
            self.expect(*id, columns, place.first_position.0, ack.append_time.0);
        }
        self.rows.sort_by_key(|row| row.position);
    }

    fn expect(&mut self, id: TopicId, columns: &RecordColumns, first: u64, append_time: i64) {
        let bytes = |column: &crate::log::records::ByteColumn, row| column.get(row).map(<[u8]>::to_vec);
        for row in 0..columns.len() {
            let partition = columns.partitions[row].unwrap();
            let next = self.offsets.entry((id.0, partition)).or_default();
            let headers = decode_headers(columns.headers.get(row).unwrap()).unwrap();
            self.rows.push(Row {
                topic: id.0,
                partition,
                offset: *next,
                position: first + row as u64,
                append_time,
                timestamp: columns.timestamps_ms[row],
                key: bytes(&columns.keys, row),
                value: bytes(&columns.values, row),
                headers: headers.into_iter().map(|(name, v)| (name.to_owned(), v.map(<[u8]>::to_vec))).collect(),
            });
            *next += 1;
        }
    }

    fn reopen(&mut self) {
        let log = std::mem::replace(&mut self.log, open(&Sim::new(0).env()));
        log.close().unwrap();
        self.log = Log::open(&self.sim.env(), dir(), options()).unwrap();
    }

    /// Some topics, some of their partitions, and some parts of their records, from somewhere on.
    fn reader(&self, dice: &mut Dice) -> Watched {
        let chosen: Vec<(TopicId, u32)> = self.topics.iter().copied().filter(|_| dice.below(2) == 0).collect();
        let ids: Vec<TopicId> = chosen.iter().map(|(id, _)| *id).collect();
        let from = Position(dice.below(self.log.durable_end().0 + 1));
        let from = if dice.below(3) == 0 { from } else { Position(0) };
        let mut watched =
            Watched { reader: self.log.reader(&ids, from), ids, wanted: BTreeMap::new(), parts: BTreeMap::new() };
        for (id, partitions) in chosen {
            if dice.below(2) == 0 {
                let some: BTreeSet<u32> = (0..partitions).filter(|_| dice.below(2) == 0).collect();
                watched.reader = watched.reader.with_partitions(id, some.iter().copied().map(PartitionId));
                watched.wanted.insert(id.0, some);
            }
            if dice.below(2) == 0 {
                let flag = |dice: &mut Dice| dice.below(2) == 0;
                let parts = Projection { keys: flag(dice), values: flag(dice), headers: flag(dice), columns: None };
                watched.reader = watched.reader.with_projection(id, parts.clone());
                watched.parts.insert(id.0, parts);
            }
        }
        watched
    }
}

/// A reader and what it was asked for.
struct Watched {
    reader: Reader,
    ids: Vec<TopicId>,
    wanted: BTreeMap<u32, BTreeSet<u32>>,
    parts: BTreeMap<u32, Projection>,
}

impl Watched {
    /// Reads a stretch, which must be all that the model has there. True at the end.
    fn step(&mut self, model: &Model, until: Position, what: &str) -> bool {
        let from = self.reader.position();
        let stretch = self.reader.next_stretch(until).unwrap();
        let end = self.reader.position();
        assert!(end >= from && (end <= until || end == from), "{what}: {from} to {end} of {until}");
        let mut found: Vec<Row> = Vec::new();
        for batch in &stretch {
            assert!(!batch.is_empty() && batch.append_times.is_sorted(), "{what}");
            let rows = rows_of(batch);
            let before = found.iter().rfind(|row| row.topic == batch.topic.0);
            assert!(before.is_none_or(|row| row.position < rows[0].position), "{what}: order of a topic");
            found.extend(rows.into_iter().map(|row| self.asked(row)));
        }
        found.sort_by_key(|row| row.position);
        let expected: Vec<Row> = model
            .rows
            .iter()
            .filter(|row| (from.0..end.0).contains(&row.position) && self.ids.contains(&TopicId(row.topic)))
            .filter(|row| self.wanted.get(&row.topic).is_none_or(|wanted| wanted.contains(&row.partition)))
            .map(|row| self.asked(row.clone()))
            .collect();
        assert!(found == expected, "{what}: {from} to {end}: {} rows, not {}", found.len(), expected.len());
        stretch.is_empty()
    }

    /// Only what was asked for counts.
    fn asked(&self, mut row: Row) -> Row {
        if let Some(parts) = self.parts.get(&row.topic) {
            row.key = row.key.filter(|_| parts.keys);
            row.value = row.value.filter(|_| parts.values);
            row.headers.retain(|_| parts.headers);
        }
        row
    }
}

fn check_all(model: &Model, dice: &mut Dice, what: &str) {
    let mut watched = model.reader(dice);
    let until = Position(dice.below(model.log.durable_end().0 + 10));
    let until = until.min(model.log.durable_end());
    while !watched.step(model, until, what) {}
    assert!(watched.reader.position() >= until.min(model.log.durable_end()), "{what}");
    check_few(model, dice, what);
}

/// A few records of a topic, by their positions.
fn check_few(model: &Model, dice: &mut Dice, what: &str) {
    let (topic, _) = model.topics[dice.below(model.topics.len() as u64) as usize];
    let of = 1 + dice.below(20);
    let rows = model.rows.iter().filter(|row| row.topic == topic.0);
    let wanted: Vec<Row> = rows.filter(|_| dice.below(of) == 0).cloned().collect();
    let positions: Vec<u64> = wanted.iter().map(|row| row.position).collect();
    let mut reader = model.log.reader_of(topic, &positions);
    let mut found = Vec::new();
    while let Some(batch) = reader.next(model.log.durable_end()).unwrap() {
        found.extend(rows_of(&batch));
    }
    assert!(found == wanted, "{what}: {} of {} rows at {positions:?}", found.len(), wanted.len());
}

fn random_history(seed: u64) -> (u64, u64) {
    let mut dice = Dice::new(seed);
    let mut model = Model::new(seed);
    let mut live: Vec<Watched> = Vec::new();
    for step in 0..if long() { 600 } else { 120 } {
        let what = format!("seed {seed} step {step}");
        match dice.below(40) {
            0 => {
                live.clear();
                model.reopen();
            }
            1 if model.topics.len() > 2 => {
                live.clear();
                model.delete(dice.below(model.topics.len() as u64) as usize);
                model.create(1 + dice.below(5) as u32);
            }
            2..=6 => model.log.keep().unwrap(),
            7..=9 => check_all(&model, &mut dice, &what),
            10 => live.push(model.reader(&mut dice)),
            11..=20 => {
                let end = model.log.durable_end();
                for watched in &mut live {
                    watched.step(&model, end, &what);
                }
            }
            _ => model.send(&mut dice),
        }
        assert!(model.log.cache_bytes() <= options().history_cache_bytes, "{what}");
    }
    for watched in &mut live {
        while !watched.step(&model, model.log.durable_end(), "the end") {}
    }
    let ids: Vec<TopicId> = model.topics.iter().map(|(id, _)| *id).collect();
    let mut rows = read_all(&model.log, &ids);
    rows.sort_by_key(|row| row.position);
    assert!(rows == model.rows, "seed {seed}");
    assert_eq!(model.log.take_troubles(), Vec::<String>::new());
    let newest = history_files(&model.sim).last().map_or(0, |name| name[..10].parse().unwrap());
    (model.log.sealing_status().history_files, newest)
}

impl Log {
    fn cache_bytes(&self) -> usize {
        self.inner.shared.sealer.cache.usage().bytes
    }
}

fn history_files(sim: &Sim) -> Vec<String> {
    let files = sim.disk.files().into_keys().filter(|path| path.starts_with("/data/history"));
    files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn whatever_is_sealed_and_merged_readers_see_each_record_once_and_as_it_was_written() {
    let seeds = if long() { 400 } else { 24 };
    let files = map_ordered(4, (0..seeds).collect(), random_history);
    assert!(files.iter().all(|(there, made)| *there > 0 && made >= there), "{files:?}");
    let merged = files.iter().filter(|(there, made)| made > there).count();
    assert!(merged > files.len() / 2, "hardly anything was merged: {files:?}");
}

/// A log with one topic, some full journal files of it, and its rows.
fn filled(sim: &Sim, options: LogOptions, partitions: u32, appends: u64) -> (Log, TopicId, Vec<Row>) {
    let log = Log::open(&sim.env(), dir(), options).unwrap();
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let topic = log.create_topic("t", config).unwrap().id();
    for number in 0..appends {
        let mut columns = RecordColumns::default();
        for row in 0..8 {
            let value = format!("{number} {row} {}", "x".repeat(400));
            let to = Partitioning::Fixed(PartitionId((number as u32 + row) % partitions));
            columns.push(to, &Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] });
        }
        log.append_wait(AppendBatch::records(topic, columns)).unwrap();
    }
    let rows = read_all(&log, &[topic]);
    (log, topic, rows)
}

#[test]
fn a_reader_keeps_its_file_until_it_lets_go() {
    let sim = Sim::new(1);
    let (log, topic, rows) = filled(&sim, small(), 1, 60);
    log.keep().unwrap();
    let before = history_files(&sim);
    let held: Vec<_> = log.inner.shared.index(|index| index.history.files_of(topic).cloned().collect());
    log.delete_topic("t").unwrap();
    log.keep().unwrap();
    assert_eq!((log.sealing_status().history_files, history_files(&sim)), (0, before), "held");
    assert!(rows.len() > 100 && held.iter().all(|entry| entry.groups().is_ok()));
    drop(held);
    assert_eq!(history_files(&sim), Vec::<String>::new());
}

#[test]
fn a_journal_file_that_somebody_looks_at_is_not_written_again() {
    let mut steps = vec![Step::Create];
    steps.extend([Step::Roll; 6]);
    let history = play(3, &small(), &steps);
    let endings = |ending: &str| {
        let files = history.sim.disk.files().into_keys();
        files.filter(|path| path.extension().is_some_and(|found| found == ending)).count()
    };
    let log = history.open(&history.sim);
    let topics: Vec<_> = log.topics().iter().map(crate::log::Topic::id).collect();
    let mut reader = log.reader(&topics, Position(0));
    let held = reader.next(log.durable_end()).unwrap().unwrap();
    let (before, rows) = (endings("journal"), rows_of(&held));
    drop(reader);
    for _ in 0..3 {
        log.keep().unwrap();
        log.append_wait(AppendBatch::records(topics[0], values(&["x"; 400]))).unwrap();
    }
    assert!(endings("spare") > 0 && endings("journal") < before, "of {before}: {}", endings("spare"));
    assert!(!history.sim.disk.files().contains_key(&dir().join("journal/0000000001.spare")), "kept while it is held");
    (0..12).for_each(|_| drop(log.append_wait(AppendBatch::records(topics[0], values(&["y"; 1_500]))).unwrap()));
    assert_eq!(rows_of(&held), rows, "bytes changed under a reader's feet");
    log.close().unwrap();
    assert!(history.open(&history.sim).report().is_clean());
}

#[test]
fn a_power_cut_anywhere_in_merging_rebuilding_and_letting_go_loses_nothing() {
    let mut steps = vec![Step::Roll; 18];
    steps.extend([Step::Create, Step::Keep]);
    let history = play(11, &small(), &steps);
    let from = history.marks[steps.len() - 1];
    let log = history.open(&history.sim);
    let before = history_files(&history.sim);
    let topic = log.topics()[0].clone();
    let columns = ValueColumns {
        format: FormatSpec::Json(JsonOptions::default()),
        declared: Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)])),
        used: vec![0],
    };
    let value = Some(crate::log::columns::encode(&columns));
    let record = MetaRecord { space: MetaSpace::Schema, key: topic.name().to_owned(), value };
    log.append_wait(AppendBatch::meta(vec![record])).unwrap();
    let rebuild = |files_max: u64| {
        let mut seen = Vec::new();
        let note = |progress: RebuildProgress| {
            seen.push((progress.files, progress.files_all));
            if progress.files < files_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        log.rebuild_topic(topic.id(), note).unwrap();
        seen
    };
    // Stopped after a file, it goes on with the others.
    let first = rebuild(1);
    let all = first[0].1 - 1;
    assert_eq!(first, [(0, all + 1), (1, all + 1)]);
    let seen = rebuild(u64::MAX);
    assert!(all > 0 && seen == (0..=all).map(|files| (files, all)).collect::<Vec<_>>(), "{seen:?}");
    assert!(before.iter().all(|name| !history_files(&history.sim).contains(name)));
    assert_eq!(rebuild(u64::MAX), [(0, 0)], "nothing is left to do");
    drop(log);
    // The enumeration of short histories crashes everywhere and also while opening; here the way there is long.
    let mut seen = BTreeSet::new();
    let disks = history.sim.disk.replay(&history.base);
    for (changes, disk) in disks.iter().enumerate().skip(from).step_by(if long() { 1 } else { 5 }) {
        for shape in [Crash::Nothing, Crash::All, Crash::Grown] {
            let crashed = disk.crash(shape);
            if seen.insert(fingerprint(&crashed.files())) {
                let log = history.open(&history.sim.with_disk(crashed));
                let what = format!("{shape:?}");
                check(&history, &log, &Look { changes, since: &[], what: &what });
            }
        }
    }
    assert!(seen.len() > 20, "only {} states", seen.len());
}

#[test]
fn files_that_nothing_names_are_removed_when_the_log_is_opened() {
    let sim = Sim::new(2);
    let (log, topic, rows) = filled(&sim, small(), 1, 60);
    log.keep().unwrap();
    let files = history_files(&sim);
    log.close().unwrap();
    let disk = sim.env().disk;
    for name in ["0000009999.parquet", "0000000001.parquet.tmp", "mine.txt"] {
        crate::env::replace_file(&*disk, &PathBuf::from("/data/history").join(name), b"x").unwrap();
    }
    let log = open(&sim.env());
    let mut expected = files;
    expected.push("mine.txt".to_owned());
    assert_eq!(history_files(&sim), expected);
    assert!(read_all(&log, &[topic]) == rows);
}

#[test]
fn a_damaged_body_is_left_out_remembered_and_reported_after_sealing_and_restart() {
    let sim = Sim::new(3);
    let (log, topic, rows) = filled(&sim, small(), 2, 60);
    log.close().unwrap();
    let path = PathBuf::from("/data/journal/0000000001.journal");
    let mut bytes = sim.disk.peek(&path).unwrap();
    let place = bytes.windows(8).position(|window| window == b"1 3 xxxx").unwrap();
    bytes[place + 6] ^= 1;
    sim.disk.poke(&path, bytes);
    for again in [false, true] {
        let log = open(&sim.env());
        log.keep().unwrap();
        assert!(log.sealing_status().history_files > 0 && log.take_troubles().is_empty());
        let mut reader = log.reader(&[topic], Position(0));
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        while reader.position() < log.durable_end() {
            match reader.next(log.durable_end()) {
                Ok(Some(batch)) => found.extend(rows_of(&batch)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damage);
                    errors.push(error.to_string());
                    reader.skip_damage();
                }
            }
        }
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert!(error.contains("topic t partition 0 offsets 4 to 7") && error.contains("journal"), "{again}: {error}");
        let lost = rows.iter().filter(|row| !found.contains(row));
        assert_eq!(lost.map(|row| row.position).collect::<Vec<_>>(), (8..16).collect::<Vec<_>>(), "one body");
        if again {
            assert_eq!(log.accept_loss().unwrap().len(), 1);
            assert!(read_all(&log, &[topic]) == found, "accepted");
        }
        log.close().unwrap();
    }
    let log = open(&sim.env());
    assert_eq!(read_all(&log, &[topic]).len() + 8, rows.len(), "also after a restart");
}

#[test]
fn a_damaged_row_group_costs_its_own_records_only() {
    let sim = Sim::new(4);
    let (log, topic, rows) = filled(&sim, small(), 1, 40);
    let other = log.create_topic("other", TopicConfig::default()).unwrap().id();
    for number in 0..60 {
        let value = format!("{number} {}", "y".repeat(300));
        log.append_wait(AppendBatch::records(other, values(&[&value]))).unwrap();
        log.append_wait(AppendBatch::records(topic, values(&[&value]))).unwrap();
    }
    log.keep().unwrap();
    let all = [read_all(&log, &[topic]), read_all(&log, &[other])];
    assert!(all[0].starts_with(&rows));
    log.close().unwrap();
    let name = history_files(&sim).into_iter().next().unwrap();
    let path = PathBuf::from("/data/history").join(&name);
    let bytes = sim.disk.peek(&path).unwrap();
    let flipped = |place: usize| {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1;
        bytes
    };
    let is_read = |place: &usize| {
        let file = HistoryFile::open(flipped(*place).into(), "flipped").unwrap();
        file.read(0, &Projection::ALL).is_err()
    };
    let place = (4..bytes.len() / 2).step_by(7).find(is_read).unwrap();
    sim.disk.poke(&path, flipped(place));
    let log = open(&sim.env());
    let mut reader = log.reader(&[topic, other], Position(0));
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    loop {
        match reader.next(log.durable_end()) {
            Ok(Some(batch)) => found.extend(rows_of(&batch)),
            Ok(None) => break,
            Err(error) => {
                errors.push(error.to_string());
                assert_eq!(error.kind(), ErrorKind::Damage);
                reader.skip_damage();
            }
        }
    }
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert!(error.contains("topic t partition 0 offsets 0 to ") && error.contains(&name), "{error}");
    assert!(all[1].iter().all(|row| found.contains(row)), "the other topic is whole");
    let lost: Vec<u64> = all[0].iter().filter(|row| !found.contains(row)).map(|row| row.offset).collect();
    assert!(!lost.is_empty() && lost.len() < all[0].len() / 2 && lost.iter().zip(0..).all(|(offset, n)| *offset == n));
}

#[test]
fn who_asks_for_the_same_row_group_at_the_same_time_shares_one_decoding() {
    let sim = Sim::new(5);
    let (log, topic, rows) = filled(&sim, LogOptions { history_cache_bytes: 16 << 20, ..small() }, 64, 200);
    log.keep().unwrap();
    let topic = log.topic_by_id(topic).unwrap();
    let consumer = |partition: u32| {
        let mut consumer = Consumer::new(&log, &topic, None).unwrap();
        consumer.assign(&[PartitionId(partition)]).unwrap();
        (partition, consumer)
    };
    let consumers: Vec<(u32, Consumer)> = (0..64).map(consumer).collect();
    let consume = |(partition, mut consumer): (u32, Consumer)| {
        let mut found = Vec::new();
        loop {
            let records = consumer.poll(1_000).unwrap();
            if records.is_empty() {
                break found;
            }
            assert!(records.iter().all(|record| record.partition.0 == partition));
            found.extend(records.iter().map(|record| (record.offset.0, record.value.clone())));
        }
    };
    let before = log.inner.shared.sealer.cache.usage().decoded;
    let found = map_ordered(8, consumers, consume);
    for (partition, found) in (0..64).zip(found) {
        let mine = rows.iter().filter(|row| row.partition == partition);
        assert!(mine.map(|row| (row.offset, row.value.clone())).eq(found), "partition {partition}");
    }
    let groups: usize =
        log.inner.shared.index(|index| index.history.files().map(|entry| entry.groups().unwrap().len()).sum());
    let usage = log.inner.shared.sealer.cache.usage();
    assert!(groups > 10 && usage.decoded - before <= groups as u64, "{usage:?} for {groups} groups");
}

#[test]
fn a_reader_alone_takes_little_of_the_cache_and_two_together_more() {
    let sim = Sim::new(7);
    let max = 256 << 10;
    let (log, topic, rows) = filled(&sim, LogOptions { history_cache_bytes: max, ..small() }, 1, 200);
    log.keep().unwrap();
    let used = || log.inner.shared.sealer.cache.usage().bytes;
    assert_eq!(read_all(&log, &[topic]).len(), rows.len());
    assert!(used() > 0 && used() <= max / 4, "{} bytes after one reader", used());
    let mut readers = [log.reader(&[topic], Position(0)), log.reader(&[topic], Position(0))];
    while readers.iter_mut().all(|reader| reader.next(log.durable_end()).unwrap().is_some()) {}
    assert!(used() > max / 2 && used() <= max, "{} bytes after two readers", used());
}

#[test]
fn appending_sealing_and_reading_at_once() {
    let sim = Sim::new(6);
    let options = LogOptions { background: true, unsealed_bytes_max: 64 << 10, ..small() };
    let log = Log::open(&sim.env(), dir(), options).unwrap();
    let topics: Vec<TopicId> = ["a", "b"]
        .iter()
        .map(|name| log.create_topic(name, TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap().id())
        .collect();
    let appends = if long() { 20_000 } else { 600 };
    let seen = map_ordered(4, vec![0, 1, 2, 3], |role: usize| {
        if role < 2 {
            for number in 0..appends {
                let value = format!("{number} {}", "z".repeat(200));
                let mut columns = values(&[&value, &value]);
                columns.partitions[1] = Some(1);
                log.append_wait(AppendBatch::records(topics[role], columns)).unwrap();
            }
            return Vec::new();
        }
        let mut reader = log.reader(&topics, Position(0));
        let mut rows = Vec::new();
        while rows.len() < 4 * appends {
            log.wait_beyond(reader.position(), 10_000);
            let stretch = reader.next_stretch(log.durable_end()).unwrap();
            let mut found: Vec<_> =
                stretch.iter().flat_map(rows_of).map(|row| (row.position, row.topic, row.offset)).collect();
            found.sort_unstable();
            rows.extend(found);
        }
        rows
    });
    for rows in &seen[2..] {
        assert!(rows.len() == 4 * appends && rows.iter().zip(0..).all(|((position, ..), n)| *position == n));
    }
    // The simulated clock does not make anybody wait who is slowed, so all of this may be over before the keeper has had a turn.
    let clock = Env::os().clock;
    let until_us = clock.monotonic_us() + 60_000_000;
    while log.sealing_status().unsealed_files > 0 && clock.monotonic_us() < until_us {
        clock.sleep_us(1_000);
    }
    let status = log.sealing_status();
    let troubles: Vec<String> =
        log.take_troubles().into_iter().filter(|what| !what.contains("appends are slowed")).collect();
    assert!(status.history_files > 0 && status.unsealed_files == 0 && troubles.is_empty(), "{status:?} {troubles:?}");
    let rows = read_all(&log, &topics);
    assert!(rows.len() == 4 * appends && rows.iter().all(|row| row.value.as_ref().is_some_and(|v| v.len() > 200)));
    log.close().unwrap();
}

/// A log without history is never slowed for the sake of it, however much lies in its journal.
#[test]
fn nobody_waits_for_sealing_that_is_not_done() {
    let sim = Sim::new(8);
    let options = LogOptions { background: true, history: false, unsealed_bytes_max: 0, ..small() };
    let log = Log::open(&sim.env(), dir(), options).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let value = "z".repeat(500);
    while log.sealing_status().unsealed_files < 20 {
        log.append_wait(AppendBatch::records(topic, values(&[&value]))).unwrap();
    }
    assert_eq!(log.sealing_status().slowed_us, 0);
    assert_eq!(log.take_troubles(), Vec::<String>::new());
    log.close().unwrap();
}

/// Commands that open the log, append a file's worth and end at once: history must follow them all the same.
#[test]
fn short_commands_leave_no_full_files_behind() {
    let sim = Sim::new(7);
    let options = LogOptions { background: true, ..small() };
    let unsealed = |options: &LogOptions| {
        let log = Log::open(&sim.env(), dir(), LogOptions { background: false, ..options.clone() }).unwrap();
        let files = log.sealing_status().unsealed_files;
        log.close().unwrap();
        files
    };
    let mut most = 0;
    for command in 0..60 {
        let log = Log::open(&sim.env(), dir(), options.clone()).unwrap();
        let topic = match log.topic("t") {
            Ok(topic) => topic.id(),
            Err(_) => log.create_topic("t", TopicConfig::default()).unwrap().id(),
        };
        for number in 0..40 {
            let value = format!("{command} {number} {}", "z".repeat(500));
            log.append_wait(AppendBatch::records(topic, values(&[&value]))).unwrap();
        }
        log.close().unwrap();
        most = most.max(unsealed(&options));
    }
    // Each of them fills one or two files, and what had begun to be sealed when it ended was finished.
    assert!(most <= 8, "{most} full files waited for history");
}
