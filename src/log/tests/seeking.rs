//! Seeks against a brute-force search, with disordered, missing, negative and far-future timestamps.

use super::history::Dice;
use super::*;
use crate::error::ErrorKind;
use crate::log::{AppendBatch, Codec, Seek, SeekRange, SeekTarget, TopicChange, TopicConfig};
use crate::types::{AppendTime, Offset};

const NOW_MS: i64 = 1_767_225_600_000;
const MAX_FUTURE_MS: i64 = 60_000;

fn timestamp(dice: &mut Dice) -> Option<i64> {
    match dice.below(10) {
        0 => None,
        1 => Some(NOW_MS + 3 * MAX_FUTURE_MS + dice.below(1_000) as i64),
        2 => Some(-(dice.below(1_000) as i64)),
        _ => Some(NOW_MS - 2_000 + dice.below(4_000) as i64),
    }
}

fn filled(seed: u64, codec: Codec) -> (Log, crate::env::sim::Sim, TopicId) {
    let (env, sim) = Env::sim(seed);
    let log = Log::open(&env, dir(), LogOptions { codec, ..small() }).unwrap();
    let config = TopicConfig { partitions: 3, max_future_us: MAX_FUTURE_MS * 1_000, ..TopicConfig::default() };
    log.create_topic("other", TopicConfig::default()).unwrap();
    let topic = log.create_topic("t", config).unwrap().id();
    fill(&log, &sim, topic, &mut Dice::new(seed), 60);
    (log, sim, topic)
}

/// Appends frames of a few records to the topic, and one to another.
fn fill(log: &Log, sim: &crate::env::sim::Sim, topic: TopicId, dice: &mut Dice, frames: u32) {
    let other = log.topic("other").unwrap().id();
    for _ in 0..frames {
        let mut columns = RecordColumns::default();
        for _ in 0..1 + dice.below(6) {
            let value = vec![b'v'; dice.below(200) as usize];
            let record = Record { timestamp_ms: timestamp(dice), key: None, value: Some(&value), headers: &[] };
            columns.push(Partitioning::Fixed(PartitionId(dice.below(2) as u32 * 2)), &record);
        }
        let batch = AppendBatch { topics: vec![(other, values(&["o"])), (topic, columns)], ..AppendBatch::default() };
        log.append_wait(batch).unwrap();
        sim.clock.advance_us(dice.below(40_000));
    }
}

fn counts(row: &Row, from: i64) -> bool {
    let latest = (row.append_time + MAX_FUTURE_MS * 1_000).div_euclid(1_000);
    row.timestamp.is_some_and(|t| from <= t && t <= latest)
}

fn at(found: Option<&Row>) -> Seek {
    found.map_or(Seek::NoSuchRecord, |row| Seek::At(Position(row.position)))
}

/// Every target at random places against a search through `rows`, which are all records that are left.
fn check_seeks(log: &Log, topic: TopicId, rows: &[Row], dice: &mut Dice, times: u32) {
    let seek = |to| log.seek(topic, to).unwrap();
    let starts = log.partition_starts(topic).unwrap();
    for _ in 0..times {
        let from = timestamp(dice).unwrap_or(i64::MIN);
        assert_eq!(seek(SeekTarget::TimestampMs(from)), at(rows.iter().find(|row| counts(row, from))), "from {from}");
        check_range(log, topic, rows, from, timestamp(dice).unwrap_or(i64::MAX));
        let append = AppendTime(NOW_MS * 1_000 - 10 + dice.below(1_500_000) as i64);
        assert_eq!(
            seek(SeekTarget::Append(append)),
            at(rows.iter().find(|row| row.append_time >= append.0)),
            "{append}"
        );
        let (partition, offset) = (dice.below(3) as u32, dice.below(120));
        let to = SeekTarget::Offset { partition: PartitionId(partition), offset: Offset(offset) };
        if Offset(offset) < starts[partition as usize] {
            assert_eq!(log.seek(topic, to).unwrap_err().kind(), ErrorKind::Gone);
        } else {
            let found = rows.iter().find(|row| row.partition == partition && row.offset == offset);
            assert_eq!(seek(to), at(found), "{partition} {offset}");
        }
        check_cut(log, topic, rows, Position(dice.below(log.durable_end().0 + 1)));
    }
    let first = rows.first().map_or(log.durable_end(), |row| Position(row.position));
    assert_eq!(seek(SeekTarget::Earliest), Seek::At(first));
    assert_eq!(seek(SeekTarget::Latest), Seek::At(log.durable_end()));
    assert_eq!(seek(SeekTarget::Position(log.durable_end())), Seek::At(log.durable_end()));
    assert_eq!(seek(SeekTarget::Position(log.durable_end().plus(1))), Seek::NoSuchRecord);
}

fn check_range(log: &Log, topic: TopicId, rows: &[Row], from: i64, to: i64) {
    let within = |row: &&Row| row.timestamp.is_some_and(|t| from <= t && t < to);
    let inside: Vec<u64> = rows.iter().filter(within).filter(|row| counts(row, from)).map(|row| row.position).collect();
    let span = inside.first().zip(inside.last()).map(|(a, b)| (Position(*a), Position(b + 1)));
    let beyond_max_future = (rows.iter().filter(within).count() - inside.len()) as u64;
    assert_eq!(log.seek_range(topic, from, to).unwrap(), SeekRange { span, beyond_max_future }, "{from} to {to}");
    let ends = log.partition_ends_before(topic, to).unwrap();
    let starts = log.partition_starts(topic).unwrap();
    for (partition, end) in (0..).zip(ends) {
        let last = rows
            .iter()
            .rfind(|row| row.partition == partition && counts(row, i64::MIN) && row.timestamp.is_some_and(|t| t < to));
        let expected = last.map_or(starts[partition as usize], |row| Offset(row.offset + 1));
        assert_eq!(end, expected, "partition {partition} before {to}");
    }
}

/// A cut takes each partition's first record at or behind a position.
fn check_cut(log: &Log, topic: TopicId, rows: &[Row], position: Position) {
    let cut = match log.cut(topic, SeekTarget::Position(position)) {
        Ok(cut) => cut.unwrap(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Gone);
            assert!(rows.iter().all(|row| row.position > position.0), "a record that is left is not gone");
            return;
        }
    };
    assert_eq!(cut.position, position);
    let ends = log.partition_ends(topic).unwrap();
    for (partition, (offset, end)) in (0..).zip(cut.offsets.iter().zip(ends)) {
        let first = rows.iter().find(|row| row.partition == partition && row.position >= position.0);
        assert_eq!(*offset, first.map_or(end, |row| Offset(row.offset)), "partition {partition} at {position}");
    }
}

/// Every target, again and again while records come, are sealed, merged and trimmed, and the log is opened again. Gives the
/// number of history files that there were, over all times of sealing.
fn check_history(seed: u64, codec: Codec, seal: bool) -> u64 {
    let mut files = 0;
    let (mut log, sim, topic) = filled(seed, codec);
    let mut rows = read_all(&log, &[topic]);
    let mut dice = Dice::new(seed + 100);
    check_seeks(&log, topic, &rows, &mut dice, 40);
    for round in 0..9 {
        match dice.below(if seal { 4 } else { 2 }) {
            // Cut away more and more, by turns right before a record and anywhere.
            0 | 1 => {
                let any = dice.below(log.durable_end().0 / 4 * (round + 1) / 3);
                let exact = rows[dice.below(rows.len() as u64 / 2) as usize].position;
                let before = if round % 2 == 0 { any } else { exact };
                let removed = rows.iter().filter(|row| row.position < before).count();
                let trim = log.trim(topic, Position(before)).unwrap();
                assert_eq!(trim.is_some(), removed > 0);
                rows.retain(|row| row.position >= before);
            }
            2 => {
                fill(&log, &sim, topic, &mut dice, 20);
                rows = read_all(&log, &[topic]);
            }
            _ => {
                log.keep().unwrap();
                files += log.sealing_status().history_files;
            }
        }
        assert_eq!(read_all(&log, &[topic]), rows);
        check_seeks(&log, topic, &rows, &mut dice, 15);
        if round % 3 == 1 {
            log.close().unwrap();
            log = open(&sim.env());
            check_seeks(&log, topic, &rows, &mut dice, 10);
        }
    }
    log.trim(topic, log.durable_end()).unwrap().unwrap();
    assert_eq!(log.partition_starts(topic).unwrap(), log.partition_ends(topic).unwrap());
    check_seeks(&log, topic, &[], &mut dice, 10);
    log.append_wait(AppendBatch::records(topic, values(&["after"]))).unwrap();
    let rows = read_all(&log, &[topic]);
    assert_eq!(rows.len(), 1);
    check_seeks(&log, topic, &rows, &mut dice, 10);
    files
}

#[test]
fn seeks_find_what_a_search_through_everything_finds() {
    for (seed, codec) in [(1, Codec::Plain), (2, Codec::Lz4), (3, Codec::Zstd)] {
        check_history(seed, codec, false);
    }
}

#[test]
fn seeks_find_the_same_in_history_and_journal() {
    let seeds = if std::env::var_os("KAPPA_LONG").is_some() { 400 } else { 8 };
    let files: u64 = (10..10 + seeds).map(|seed| check_history(seed, Codec::Plain, true)).sum();
    assert!(files > seeds, "most of them had some of it in history");
}

#[test]
fn readers_start_and_stop_anywhere_and_see_each_record_once() {
    let (log, _, topic) = filled(4, Codec::Plain);
    let rows = read_all(&log, &[topic]);
    let end = log.durable_end().0;
    let mut dice = Dice::new(9);
    for _ in 0..100 {
        let from = dice.below(end + 1);
        let mut reader = log.reader(&[topic], Position(from));
        let mut seen = Vec::new();
        while reader.position() < Position(end) {
            let until = Position((reader.position().0 + 1 + dice.below(20)).min(end + 5));
            while let Some(batch) = reader.next(until).unwrap() {
                assert!(batch.end() <= until);
                seen.extend(rows_of(&batch));
            }
            assert_eq!(reader.position(), until.min(Position(end)));
        }
        let expected: Vec<Row> = rows.iter().filter(|row| row.position >= from).cloned().collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_empty_topic_has_no_such_record() {
    let (env, _) = Env::sim(1);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    assert_eq!(log.seek(topic, SeekTarget::Earliest).unwrap(), Seek::At(Position(0)));
    for to in [
        SeekTarget::TimestampMs(i64::MIN),
        SeekTarget::Append(AppendTime::MIN),
        SeekTarget::Offset { partition: PartitionId(0), offset: Offset(0) },
    ] {
        assert_eq!(log.seek(topic, to).unwrap(), Seek::NoSuchRecord, "{to:?}");
    }
    let wrong = SeekTarget::Offset { partition: PartitionId(1), offset: Offset(0) };
    assert_eq!(log.seek(topic, wrong).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_counts_follows_the_setting() {
    let (log, _, topic) = filled(5, Codec::Plain);
    let far = SeekTarget::TimestampMs(NOW_MS + 3 * MAX_FUTURE_MS);
    let alter = |max_future_us| log.alter_topic("t", &[TopicChange::MaxFutureUs(max_future_us)]).unwrap();
    for _ in 0..2 {
        assert_eq!(log.seek(topic, far).unwrap(), Seek::NoSuchRecord);
        assert_eq!(log.seek(topic, far).unwrap(), Seek::NoSuchRecord, "also when it is known already");
        alter(4 * MAX_FUTURE_MS * 1_000);
        let first = read_all(&log, &[topic]).into_iter().find(|row| row.timestamp > Some(NOW_MS + MAX_FUTURE_MS));
        assert_eq!(log.seek(topic, SeekTarget::TimestampMs(NOW_MS + MAX_FUTURE_MS)).unwrap(), at(first.as_ref()));
        alter(MAX_FUTURE_MS * 1_000);
    }
}

#[test]
fn a_range_gives_its_records_and_no_others() {
    let (log, _, topic) = filled(6, Codec::Plain);
    log.trim(topic, Position(50)).unwrap().unwrap();
    let rows = read_all(&log, &[topic]);
    let mut dice = Dice::new(6);
    for _ in 0..40 {
        let from = timestamp(&mut dice).unwrap_or(i64::MIN);
        let to = from.saturating_add(1 + dice.below(2_000) as i64);
        let start = Position(dice.below(log.durable_end().0));
        let mut range = log.read_range(topic, from, to).unwrap().starting_at(start);
        let mut found = Vec::new();
        while let Some(part) = range.next_batch().unwrap() {
            let all = rows_of(&part.batch);
            found.extend(part.rows.iter().map(|row| all[*row].clone()));
        }
        let inside = |row: &&Row| row.position >= start.0 && row.timestamp.is_some_and(|t| t < to) && counts(row, from);
        assert_eq!(found, rows.iter().filter(inside).cloned().collect::<Vec<_>>());
    }
}

#[test]
fn losses_stop_a_seek_until_they_are_accepted() {
    let (log, sim, topic) = filled(7, Codec::Plain);
    let rows = read_all(&log, &[topic]);
    log.close().unwrap();
    let path = std::path::PathBuf::from("/data/journal/0000000001.journal");
    let mut bytes = sim.disk.peek(&path).unwrap();
    // A record's timestamp, somewhere among the first: it is there twice, as a bound of its frame and in the body behind.
    let wanted = rows.iter().skip(20).find_map(|row| row.timestamp.filter(|t| *t > NOW_MS)).unwrap();
    let places = bytes.windows(8).enumerate().filter(|(_, window)| *window == wanted.to_le_bytes());
    let place = places.map(|(place, _)| place).max().unwrap();
    bytes[place] ^= 1;
    sim.disk.poke(&path, bytes);
    let log = open(&sim.env());
    let lost = rows.iter().find(|row| row.timestamp == Some(wanted)).unwrap();
    let to = SeekTarget::Offset { partition: PartitionId(lost.partition), offset: Offset(lost.offset) };
    assert_eq!(log.seek(topic, to).unwrap_err().kind(), ErrorKind::Damage);
    assert_eq!(log.accept_loss().unwrap().len(), 1);
    assert_eq!(log.seek(topic, to).unwrap(), Seek::NoSuchRecord);
    let left = read_all(&log, &[topic]);
    assert!(left.len() < rows.len() && !left.contains(lost));
    for row in &rows {
        let from = row.timestamp.unwrap_or(i64::MIN);
        let found = left.iter().find(|row| counts(row, from));
        assert_eq!(log.seek(topic, SeekTarget::TimestampMs(from)).unwrap(), at(found), "from {from}");
        let found = left.iter().find(|other| other.append_time >= row.append_time);
        assert_eq!(log.seek(topic, SeekTarget::Append(AppendTime(row.append_time))).unwrap(), at(found));
    }
}
