//! Seeks against a brute-force search, with disordered, missing, negative and far-future timestamps.

use super::history::Dice;
use super::*;
use crate::error::ErrorKind;
use crate::log::{AppendBatch, Codec, Seek, SeekRange, SeekTarget, TopicConfig};
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
    let config = TopicConfig { partitions: 2, max_future_us: MAX_FUTURE_MS * 1_000 };
    let other = log.create_topic("other", TopicConfig::default()).unwrap().id();
    let topic = log.create_topic("t", config).unwrap().id();
    let mut dice = Dice::new(seed);
    for _ in 0..60 {
        let mut columns = RecordColumns::default();
        for _ in 0..1 + dice.below(6) {
            let value = vec![b'v'; dice.below(200) as usize];
            let record = Record { timestamp_ms: timestamp(&mut dice), key: None, value: Some(&value), headers: &[] };
            columns.push(Partitioning::Fixed(PartitionId(dice.below(2) as u32)), &record);
        }
        let batch = AppendBatch { topics: vec![(other, values(&["o"])), (topic, columns)], ..AppendBatch::default() };
        log.append_wait(batch).unwrap();
        sim.clock.advance_us(dice.below(40_000));
    }
    (log, sim, topic)
}

fn counts(row: &Row, from: i64) -> bool {
    let latest = (row.append_time + MAX_FUTURE_MS * 1_000).div_euclid(1_000);
    row.timestamp.is_some_and(|t| from <= t && t <= latest)
}

#[test]
fn seeks_find_what_a_search_through_everything_finds() {
    for (seed, codec) in [(1, Codec::Plain), (2, Codec::Lz4), (3, Codec::Zstd)] {
        let (log, _, topic) = filled(seed, codec);
        let rows = read_all(&log, &[topic]);
        let expect = |found: Option<&Row>| found.map_or(Seek::NoSuchRecord, |row| Seek::At(Position(row.position)));
        let seek = |to| log.seek(topic, to).unwrap();
        let mut dice = Dice::new(seed + 100);
        for _ in 0..150 {
            let from = timestamp(&mut dice).unwrap_or(i64::MIN);
            let found = rows.iter().find(|row| counts(row, from));
            assert_eq!(seek(SeekTarget::TimestampMs(from)), expect(found), "timestamp {from}");
            let to = timestamp(&mut dice).unwrap_or(i64::MAX);
            let within = |row: &&Row| row.timestamp.is_some_and(|t| from <= t && t < to);
            let inside: Vec<u64> =
                rows.iter().filter(within).filter(|row| counts(row, from)).map(|row| row.position).collect();
            let span = inside.first().zip(inside.last()).map(|(a, b)| (Position(*a), Position(b + 1)));
            let beyond_max_future = (rows.iter().filter(within).count() - inside.len()) as u64;
            assert_eq!(log.seek_range(topic, from, to).unwrap(), SeekRange { span, beyond_max_future });
            let append = AppendTime(NOW_MS * 1_000 - 10 + dice.below(1_500_000) as i64);
            let found = rows.iter().find(|row| row.append_time >= append.0);
            assert_eq!(seek(SeekTarget::Append(append)), expect(found), "{append}");
            let (partition, offset) = (dice.below(2) as u32, dice.below(150));
            let found = rows.iter().find(|row| row.partition == partition && row.offset == offset);
            let to = SeekTarget::Offset { partition: PartitionId(partition), offset: Offset(offset) };
            assert_eq!(seek(to), expect(found), "{partition} {offset}");
        }
        assert_eq!(seek(SeekTarget::Earliest), expect(rows.first()));
        assert_eq!(seek(SeekTarget::Latest), Seek::At(log.durable_end()));
        assert_eq!(seek(SeekTarget::Position(log.durable_end())), Seek::At(log.durable_end()));
        assert_eq!(seek(SeekTarget::Position(log.durable_end().plus(1))), Seek::NoSuchRecord);
    }
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
                assert!(batch.first_position.plus(batch.len() as u64) <= until);
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
