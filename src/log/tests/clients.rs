//! Producers, consumers and groups as a program uses them, blocking and async.

use super::*;
use crate::error::ErrorKind;
use crate::log::{
    AppendBatch, Codec, Consumer, Partitioner, PendingAck, Producer, ProducerOptions, SeekTarget, Topic, TopicConfig,
};
use crate::types::Offset;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes by counting, so that a test can wait for it without a runtime.
#[derive(Default)]
struct Bell {
    rung: Mutex<usize>,
    ringing: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() += 1;
        self.ringing.notify_all();
    }
}

/// Runs a future on this thread; gives what it gives and how often it was looked at.
fn block_on<T>(future: impl Future<Output = T>) -> (T, usize) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    for looks in 1.. {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (done, looks);
        }
        let rung = bell.rung.lock().unwrap();
        let (rung, _) =
            bell.ringing.wait_timeout_while(rung, std::time::Duration::from_secs(20), |rung| *rung < looks).unwrap();
        assert!(*rung >= looks, "a task that waits was forgotten");
    }
    unreachable!()
}

fn topic_of(log: &Log, partitions: u32) -> Topic {
    log.create_topic("t", TopicConfig { partitions, ..TopicConfig::default() }).unwrap()
}

#[test]
fn acknowledgements_and_the_durable_end_can_be_awaited_without_a_runtime() {
    let (env, _) = Env::sim(1);
    let log = open(&env);
    let topic = topic_of(&log, 1).id();
    let waiting = log.clone();
    let waiter = crate::env::thread::spawn("waiter", move || block_on(waiting.wait_beyond_async(Position(9)))).unwrap();
    let (acks, looks) = block_on(async {
        let mut acks = Vec::new();
        for _ in 0..10 {
            acks.push(log.append_async(AppendBatch::records(topic, values(&["x"]))).await.unwrap().await.unwrap());
        }
        acks
    });
    assert_eq!(acks.iter().map(|ack| ack.end.0).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert!(looks <= 11 * 2, "woken for nothing: {looks}");
    assert_eq!(waiter.join().unwrap().0.unwrap(), Position(10));
    let waiting = log.clone();
    let waiter =
        crate::env::thread::spawn("waiter", move || block_on(waiting.wait_beyond_async(Position(10)))).unwrap();
    log.close().unwrap();
    assert_eq!(waiter.join().unwrap().0.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_full_queue_makes_tasks_wait_and_not_threads() {
    let (env, _) = Env::sim(2);
    let log = Log::open(&env, dir(), LogOptions { queue_bytes: 2_000, ..small() }).unwrap();
    let topic = topic_of(&log, 1).id();
    let produce = |name: usize| {
        block_on(async {
            let mut pending: Vec<PendingAck> = Vec::new();
            for number in 0..50 {
                let value = format!("{name} {number} {}", "x".repeat(600));
                pending.push(log.append_async(AppendBatch::records(topic, values(&[&value]))).await.unwrap());
            }
            for pending in pending {
                pending.await.unwrap();
            }
        })
    };
    crate::env::thread::map_ordered(4, (0..4).collect(), produce);
    assert_eq!(log.durable_end(), Position(200));
}

#[test]
fn a_producer_chooses_partitions_and_compression() {
    let (env, sim) = Env::sim(3);
    let log = open(&env);
    let topic = topic_of(&log, 4);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let by_first_byte = Partitioner::Custom(Arc::new(move |record, partitions| {
        counted.fetch_add(1, Ordering::Relaxed);
        u32::from(record.key.unwrap()[0]) % partitions
    }));
    let text = "to be compressed, to be compressed, ".repeat(20);
    let mut lens = Vec::new();
    for (codec, partitioner) in [
        (None, Partitioner::Fixed(PartitionId(3))),
        (Some(Codec::Lz4), Partitioner::ByKey),
        (Some(Codec::Zstd), by_first_byte),
    ] {
        let options = ProducerOptions { codec, partitioner, linger_us: u64::MAX, ..ProducerOptions::default() };
        let mut producer = Producer::new(&log, &topic, options);
        for key in [b"\x01", b"\x02", b"\x06"] {
            let record = Record { timestamp_ms: None, key: Some(key), value: Some(text.as_bytes()), headers: &[] };
            producer.send(&record).unwrap();
        }
        let before = sim.disk.used();
        producer.flush().unwrap();
        lens.push(sim.disk.used() - before);
    }
    let rows = read_all(&log, &[topic.id()]);
    let partitions: Vec<u32> = rows.iter().map(|row| row.partition).collect();
    let hashed = |key: &[u8]| crate::log::topic::partition_of_key(key, 4);
    assert_eq!(partitions, [3, 3, 3, hashed(b"\x01"), hashed(b"\x02"), hashed(b"\x06"), 1, 2, 2]);
    assert!(rows.iter().all(|row| row.value.as_deref() == Some(text.as_bytes())));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert!(lens[1] * 4 < lens[0] && lens[2] * 4 < lens[0], "{lens:?}");
    let beyond = Partitioner::Fixed(PartitionId(4));
    let options = ProducerOptions { partitioner: beyond, idempotent: true, ..ProducerOptions::default() };
    let mut producer = Producer::new(&log, &topic, options);
    let record = Record { timestamp_ms: None, key: None, value: None, headers: &[] };
    let sent = producer.send(&record).and_then(|_| producer.flush());
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_async_producer_and_consumer_pass_records_on() {
    let (env, _) = Env::sim(4);
    let log = open(&env);
    let topic = topic_of(&log, 2);
    let (read_log, read_topic) = (log.clone(), topic.clone());
    let reader = crate::env::thread::spawn("reader", move || {
        let mut consumer = Consumer::new(&read_log, &read_topic, Some("g")).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let (records, _) = block_on(consumer.poll_async(7));
            seen.extend(records.unwrap().into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()));
        }
        consumer.commit().unwrap();
        seen
    });
    let options = ProducerOptions { batch_bytes: 40, idempotent: true, ..ProducerOptions::default() };
    let mut producer = Producer::new(&log, &topic, options);
    let sent: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    block_on(async {
        for value in &sent {
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            producer.send_async(&record).await.unwrap();
        }
        producer.flush_async().await.unwrap();
    });
    assert_eq!(reader.unwrap().join().unwrap(), sent);
    assert_eq!(log.group_offsets("g").unwrap().iter().map(|offset| offset.offset.0).sum::<u64>(), 100);
}

#[test]
fn a_consumer_waits_for_records_as_long_as_it_was_told() {
    let (env, _) = Env::sim(5);
    let log = open(&env);
    let topic = topic_of(&log, 1);
    let mut consumer = Consumer::new(&log, &topic, None).unwrap();
    assert!(consumer.poll_wait(1, 1_000).unwrap().is_empty());
    let (late, id) = (log.clone(), topic.id());
    let sender = crate::env::thread::spawn("sender", move || {
        late.wait_beyond(Position(0), 20_000);
        late.append_wait(AppendBatch::records(id, values(&["x"]))).unwrap();
    });
    assert_eq!(consumer.poll_wait(1, 20_000_000).unwrap().len(), 1);
    sender.unwrap().join().unwrap();
}

#[test]
fn groups_are_listed_moved_and_forgotten() {
    let (env, sim) = Env::sim(6);
    let log = open(&env);
    let topic = topic_of(&log, 2);
    assert_eq!(log.group_offsets("g").unwrap_err().kind(), ErrorKind::NotFound);
    for time in [10i64, 20, 30, 40] {
        let mut columns = RecordColumns::default();
        for partition in [0, 1] {
            let record = Record { timestamp_ms: Some(time), key: None, value: None, headers: &[] };
            columns.push(Partitioning::Fixed(PartitionId(partition)), &record);
        }
        sim.clock.advance_us(1_000);
        log.append_wait(AppendBatch::records(topic.id(), columns)).unwrap();
    }
    let mut consumer = Consumer::new(&log, &topic, Some("g")).unwrap();
    consumer.poll(3).unwrap();
    consumer.commit().unwrap();
    let offsets =
        |group: &str| log.group_offsets(group).map(|all| all.iter().map(|one| one.offset.0).collect::<Vec<_>>());
    assert_eq!(offsets("g").unwrap(), [2, 1]);
    assert!(log.group_offsets("g").unwrap().iter().all(|offset| offset.end == Offset(4)));
    for (to, expected) in [
        (SeekTarget::Earliest, [0, 0]),
        (SeekTarget::Latest, [4, 4]),
        (SeekTarget::TimestampMs(25), [2, 2]),
        (SeekTarget::TimestampMs(99), [4, 4]),
        (SeekTarget::Position(Position(3)), [2, 1]),
    ] {
        log.reset_group("h", &topic, to).unwrap();
        assert_eq!(offsets("h").unwrap(), expected, "{to:?}");
    }
    assert_eq!(log.groups(), ["g", "h"]);
    let mut moved = Consumer::new(&log, &topic, Some("h")).unwrap();
    assert_eq!(moved.poll(10).unwrap().len(), 5);
    log.delete_group("g", None).unwrap();
    assert_eq!(log.groups(), ["h"]);
    assert_eq!(log.delete_group("g", None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.reset_group("a/b", &topic, SeekTarget::Latest).unwrap_err().kind(), ErrorKind::Input);
}
