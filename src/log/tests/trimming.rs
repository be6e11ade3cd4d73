//! What readers and consumers see when the oldest records are removed.

use super::*;
use crate::error::{Error, ErrorKind};
use crate::log::{AppendBatch, Consumer, Seek, SeekTarget, TopicChange, TopicConfig};
use crate::types::Offset;

fn gone<T>(result: Result<T, Error>) -> String {
    let error = result.err().unwrap();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Gone, 2), "{error}");
    assert!(error.hint().unwrap().contains("earliest"));
    error.message().to_owned()
}

/// Frames of ten records, by turns of two topics.
fn two_topics(env: &Env) -> (Log, TopicId, TopicId) {
    let log = open(env);
    let a = log.create_topic("a", TopicConfig::default()).unwrap().id();
    let b = log.create_topic("b", TopicConfig::default()).unwrap().id();
    for _ in 0..10 {
        for topic in [a, b] {
            log.append_wait(AppendBatch::records(topic, values(&["r"; 10]))).unwrap();
        }
    }
    (log, a, b)
}

fn drain(reader: &mut crate::log::Reader, log: &Log) -> usize {
    std::iter::from_fn(|| reader.next(log.durable_end()).unwrap()).map(|batch| batch.len()).sum()
}

#[test]
fn a_reader_whose_next_record_is_gone_is_told_what_is_left() {
    let (env, _) = Env::sim(1);
    let (log, a, b) = two_topics(&env);
    let mut early = log.reader(&[a], Position(0));
    let first = early.next(log.durable_end()).unwrap().unwrap();
    let (mut late, mut fresh) = (log.reader(&[a], Position(60)), log.reader(&[a], Position(0)));
    let mut other = log.reader(&[b], Position(1));
    let trim = log.trim(a, Position(45)).unwrap().unwrap();
    assert_eq!(
        (trim.removed_end, trim.first_position, &trim.first_offsets[..]),
        (Position(45), Position(45), &[Offset(25)][..])
    );
    assert_eq!(first.len(), 10, "a batch in hand stays");
    let message = gone(early.next(log.durable_end()));
    assert_eq!(
        message,
        "topic a: records from position 10 on were removed; what is left starts at position 45 (partition 0 offset 25)"
    );
    gone(early.next(log.durable_end()));
    gone(log.seek(a, SeekTarget::Position(Position(44))));
    assert_eq!(
        gone(log.seek(a, SeekTarget::Offset { partition: PartitionId(0), offset: Offset(24) })),
        "topic a partition 0: offset 24 was removed; what is left starts at offset 25 (position 45)"
    );
    // Who reads from the start starts with what is left, who is behind the cut and who reads something else notices nothing.
    assert_eq!((drain(&mut fresh, &log), drain(&mut late, &log), drain(&mut other, &log)), (75, 70, 100));
    assert_eq!(log.seek(a, SeekTarget::Earliest).unwrap(), Seek::At(Position(45)));
    assert_eq!(log.trim(a, Position(45)).unwrap(), None);
    assert_eq!(log.trim(a, Position(7)).unwrap(), None, "a trim never goes back");
}

#[test]
fn a_reader_of_two_topics_starts_with_what_is_left_of_each() {
    let (env, _) = Env::sim(2);
    let (log, a, b) = two_topics(&env);
    log.trim(a, Position(100)).unwrap().unwrap();
    let mut reader = log.reader(&[a, b], Position(0));
    let batch = reader.next(log.durable_end()).unwrap().unwrap();
    assert_eq!((batch.topic, batch.first_position()), (b, Position(10)));
    // What was removed before it started is not missed, what is removed after that is.
    assert_eq!(reader.next(log.durable_end()).unwrap().unwrap().topic, b);
    log.trim(a, Position(101)).unwrap().unwrap();
    gone(reader.next(log.durable_end()));
}

#[test]
fn a_trim_survives_reopening_and_is_gone_with_its_topic() {
    let (env, sim) = Env::sim(3);
    let (log, a, b) = two_topics(&env);
    log.trim(a, Position(45)).unwrap().unwrap();
    let sim = sim.with_disk(sim.disk.copy());
    let crashed = open(&sim.env());
    assert_eq!(crashed.partition_starts(a).unwrap(), [Offset(25)]);
    assert_eq!(read_all(&crashed, &[a]).len(), 75);
    assert_eq!(crashed.partition_starts(b).unwrap(), [Offset(0)]);
    let mut reader = crashed.reader(&[a, b], Position(50));
    reader.next(crashed.durable_end()).unwrap().unwrap();
    crashed.delete_topic("a").unwrap();
    while let Some(batch) = reader.next(crashed.durable_end()).unwrap() {
        assert_eq!(batch.topic, b, "a deleted topic's records are out of reach at once");
    }
    let again = crashed.create_topic("a", TopicConfig::default()).unwrap().id();
    assert_eq!(crashed.partition_starts(again).unwrap(), [Offset(0)]);
    crashed.close().unwrap();
    assert_eq!(open(&sim.env()).partition_starts(again).unwrap(), [Offset(0)]);
}

#[test]
fn consumers_go_on_or_say_which_offset_is_gone() {
    let (env, _) = Env::sim(4);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    for partition in [0, 0, 1, 1, 0, 1] {
        let mut columns = RecordColumns::default();
        let record = Record { timestamp_ms: None, key: None, value: Some(b"v"), headers: &[] };
        columns.push(Partitioning::Fixed(PartitionId(partition)), &record);
        log.append_wait(AppendBatch::records(topic.id(), columns)).unwrap();
    }
    let mut first = Consumer::new(&log, &topic, Some("g")).unwrap();
    assert_eq!(first.poll(1).unwrap().len(), 1);
    first.commit().unwrap();
    let mut ones = Consumer::new(&log, &topic, None).unwrap();
    ones.assign(&[PartitionId(1)]).unwrap();
    assert_eq!(log.trim(topic.id(), Position(2)).unwrap().unwrap().first_offsets, [Offset(2), Offset(0)]);
    assert_eq!(ones.poll(10).unwrap().len(), 3, "nothing that it reads is gone");
    let wording = "topic t partition 0: offset 1 was removed; what is left starts at offset 2 (position 2)";
    assert_eq!(gone(first.poll(10)), wording);
    let mut second = Consumer::new(&log, &topic, Some("g")).unwrap();
    assert_eq!(gone(second.poll(10)), wording);
    second.seek(SeekTarget::Earliest).unwrap();
    assert_eq!(second.poll(10).unwrap().len(), 4);
    assert_eq!(
        Consumer::new(&log, &topic, None).unwrap().poll(10).unwrap().len(),
        4,
        "a new group starts with what is left"
    );
    second.seek_offset(PartitionId(0), Offset(0)).unwrap();
    gone(second.poll(1));
}

#[test]
fn settings_change_and_survive_and_partitions_stay() {
    let (env, sim) = Env::sim(5);
    let log = open(&env);
    log.create_topic("t", TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
    let changes =
        [TopicChange::RetentionUs(Some(5)), TopicChange::RetentionBytes(Some(7)), TopicChange::MaxFutureUs(9)];
    log.alter_topic("t", &changes).unwrap();
    assert_eq!(log.alter_topic("t", &[TopicChange::RetentionUs(Some(0))]).unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(log.alter_topic("u", &changes).unwrap_err().kind(), ErrorKind::NotFound);
    let config = TopicConfig { partitions: 2, max_future_us: 9, retention_us: Some(5), retention_bytes: Some(7) };
    assert_eq!(log.topic("t").unwrap().config(), &config);
    log.close().unwrap();
    let log = open(&sim.env());
    assert_eq!(log.topic("t").unwrap().config(), &config);
    let none = log.alter_topic("t", &[TopicChange::RetentionUs(None), TopicChange::RetentionBytes(None)]).unwrap();
    assert_eq!((none.config().retention_us, none.config().retention_bytes, none.id()), (None, None, TopicId(1)));
}
