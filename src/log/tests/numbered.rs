//! Numbered batches: sent again, out of order, through crashes, failures and full disks, each is in the log once.

use super::history::Dice;
use super::*;
use crate::env::sim::{Crash, Fault, FaultKind, Sim};
use crate::error::ErrorKind;
use crate::log::{
    Ack, AppendBatch, PendingAck, Producer, ProducerBatch, ProducerId, ProducerLimits, ProducerOptions, TopicConfig,
};

/// A batch with `counts` records for partitions 0, 1, ..., numbered from `bases`.
fn batch(topic: TopicId, producer: ProducerId, name: &str, parts: &[(u32, i32, u32)]) -> AppendBatch {
    let mut columns = RecordColumns::default();
    for (partition, base, count) in parts {
        for number in 0..*count {
            let value = format!("{name} {partition} {}", base + number as i32);
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            columns.push(Partitioning::Fixed(PartitionId(*partition)), &record);
        }
    }
    let sequences = parts.iter().map(|(partition, base, _)| (topic, PartitionId(*partition), *base)).collect();
    let producer = Some(ProducerBatch { producer, sequences });
    AppendBatch { producer, ..AppendBatch::records(topic, columns) }
}

fn texts(log: &Log, topic: TopicId) -> Vec<String> {
    read_all(log, &[topic]).into_iter().map(|row| String::from_utf8(row.value.unwrap()).unwrap()).collect()
}

fn setup(sim: &Sim) -> (Log, TopicId, ProducerId) {
    let log = open(&sim.env());
    let topic = log.create_topic("t", TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap().id();
    let producer = log.producer_id().unwrap();
    (log, topic, producer)
}

fn places(ack: &Ack) -> (Vec<(u32, u64, u64)>, Position, i64) {
    let topic = &ack.topics[0];
    let parts = topic.partitions.iter().map(|part| (part.partition.0, part.base_offset.0, part.count)).collect();
    (parts, topic.first_position, ack.append_time.0)
}

#[test]
fn a_batch_sent_again_gets_the_answer_of_the_first_time_also_after_a_restart() {
    let sim = Sim::new(1);
    let (mut log, topic, producer) = setup(&sim);
    log.append_wait(AppendBatch::records(topic, values(&["other"]))).unwrap();
    let parts = |base| [(0, base, 2), (2, base, 1)];
    let acks: Vec<Ack> = (0..3)
        .map(|number| log.append_wait(batch(topic, producer, "p", &[(0, number * 2, 2), (2, number, 1)])).unwrap())
        .collect();
    for restart in [false, true] {
        if restart {
            drop(log);
            log = open(&sim.env());
        }
        for (number, ack) in (0..).zip(&acks) {
            let again = log.append_wait(batch(topic, producer, "p", &[(0, number * 2, 2), (2, number, 1)])).unwrap();
            assert!(again.repeat && !ack.repeat);
            assert_eq!(places(&again), places(ack));
        }
    }
    let gap = log.append_wait(batch(topic, producer, "p", &parts(9))).unwrap_err();
    assert!(gap.kind() == ErrorKind::Conflict && gap.message().contains("OutOfOrder"), "{gap}");
    let in_part = log.append_wait(batch(topic, producer, "p", &[(0, 6, 2), (2, 2, 1)])).unwrap_err();
    assert!(in_part.message().contains("in part"), "{in_part}");
    assert_eq!(texts(&log, topic).len(), 10);
}

#[test]
fn a_newer_epoch_fences_older_ones_and_unknown_ids_have_to_ask() {
    let sim = Sim::new(2);
    let (log, topic, first) = setup(&sim);
    log.append_wait(batch(topic, first, "a", &[(0, 0, 1)])).unwrap();
    let second = log.bump_epoch(first).unwrap();
    assert_eq!((second.id, second.epoch), (first.id, 1));
    for log in [log, open(&sim.with_disk(sim.disk.copy()).env())] {
        let fenced = log.append_wait(batch(topic, first, "a", &[(0, 1, 1)])).unwrap_err();
        assert!(fenced.kind() == ErrorKind::Conflict && fenced.message().contains("fenced"), "{fenced}");
        assert_eq!(log.bump_epoch(first).unwrap_err().kind(), ErrorKind::Conflict);
        log.append_wait(batch(topic, second, "b", &[(0, 0, 1)])).unwrap();
        let unknown = ProducerId { id: 77, epoch: 0 };
        let unknown = log.append_wait(batch(topic, unknown, "c", &[(0, 0, 1)])).unwrap_err();
        assert!(unknown.hint().unwrap().contains("new producer id"), "{unknown}");
        assert_ne!(log.producer_id().unwrap().id, first.id);
        assert_eq!(log.producers().len(), 2);
    }
}

#[test]
fn ids_silent_for_too_long_are_forgotten_and_never_given_out_again() {
    let sim = Sim::new(3);
    let options = || LogOptions { producers: ProducerLimits { expiry_us: 1_000_000, ..Default::default() }, ..small() };
    let log = Log::open(&sim.env(), dir(), options()).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let producer = log.producer_id().unwrap();
    log.append_wait(batch(topic, producer, "a", &[(0, 0, 1)])).unwrap();
    sim.clock.advance_us(2_000_000);
    log.append_wait(AppendBatch::records(topic, values(&["x"]))).unwrap();
    let error = log.append_wait(batch(topic, producer, "a", &[(0, 0, 1)])).unwrap_err();
    assert!(error.message().contains("not known"), "{error}");
    assert_eq!(log.meta_scan(crate::log::MetaSpace::Producer, "0").len(), 1);
    log.keep().unwrap();
    assert_eq!(log.meta_scan(crate::log::MetaSpace::Producer, "0").len(), 0);
    log.close().unwrap();
    let log = Log::open(&sim.env(), dir(), options()).unwrap();
    assert!(log.producers().is_empty());
    assert_eq!(log.producer_id().unwrap().id, producer.id + 1);
}

#[test]
fn numbers_have_to_fit_the_records() {
    let sim = Sim::new(4);
    let (log, topic, producer) = setup(&sim);
    let good = || batch(topic, producer, "a", &[(0, 0, 1), (1, 0, 1)]);
    let spoil: [&dyn Fn(&mut AppendBatch); 5] = [
        &|batch| batch.producer.as_mut().unwrap().sequences.truncate(1),
        &|batch| batch.producer.as_mut().unwrap().sequences.push((topic, PartitionId(2), 0)),
        &|batch| batch.producer.as_mut().unwrap().sequences[0].2 = -1,
        &|batch| batch.topics[0].1.partitions[0] = None,
        &|batch| batch.topics.push(batch.topics[0].clone()),
    ];
    for spoil in spoil {
        let mut bad = good();
        spoil(&mut bad);
        assert_eq!(log.append_wait(bad).unwrap_err().kind(), ErrorKind::Input);
    }
    log.append_wait(good()).unwrap();
}

/// One producer as the test knows it: what it sent, in order.
struct Client {
    producer: ProducerId,
    name: String,
    next: [i32; 3],
    sent: Vec<Vec<(u32, i32, u32)>>,
    acked: usize,
}

impl Client {
    fn new_batch(&mut self, dice: &mut Dice) -> Vec<(u32, i32, u32)> {
        let mut parts = Vec::new();
        for partition in 0..3u32 {
            if dice.below(2) == 0 || (partition == 2 && parts.is_empty()) {
                let count = 1 + dice.below(3) as u32;
                let next = &mut self.next[partition as usize];
                parts.push((partition, *next, count));
                *next += count as i32;
            }
        }
        self.sent.push(parts.clone());
        parts
    }

    /// Sends what was not acknowledged, in order, until it is.
    fn catch_up(&mut self, log: &Log, topic: TopicId) {
        for parts in &self.sent[self.acked..] {
            log.append_wait(batch(topic, self.producer, &self.name, parts)).unwrap();
        }
        self.acked = self.sent.len();
    }

    fn expected(&self) -> Vec<String> {
        let texts = |(partition, base, count): &(u32, i32, u32)| {
            (0..*count as i32).map(|n| format!("{} {partition} {}", self.name, base + n)).collect::<Vec<_>>()
        };
        self.sent.iter().flatten().flat_map(texts).collect()
    }
}

fn check_once(log: &Log, topic: TopicId, clients: &[Client], what: &str) {
    let found = texts(log, topic);
    for client in clients {
        let mine: Vec<&String> = found.iter().filter(|text| text.starts_with(&client.name)).collect();
        assert_eq!(mine, client.expected().iter().collect::<Vec<_>>(), "{what}: {}", client.name);
    }
}

/// Something random with one of the clients; what it must answer is known.
fn act(log: &Log, topic: TopicId, client: &mut Client, dice: &mut Dice, what: &str) {
    let resend = |client: &Client, back: usize| {
        let parts = &client.sent[client.sent.len() - back];
        log.append_wait(batch(topic, client.producer, &client.name, parts))
    };
    match dice.below(8) {
        0..=3 => {
            let number = 1 + dice.below(4);
            let batches: Vec<_> = (0..number).map(|_| client.new_batch(dice)).collect();
            let send = |parts: &Vec<_>| log.append(batch(topic, client.producer, &client.name, parts)).unwrap();
            let mut pending: Vec<PendingAck> = batches.iter().map(send).collect();
            if dice.below(3) == 0 {
                // The last of them at once again, while the first may be on its way.
                pending.push(send(&batches[batches.len() - 1]));
            }
            if dice.below(3) > 0 {
                pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
                client.acked = client.sent.len();
            } else {
                client.catch_up(log, topic);
            }
        }
        4 | 5 if !client.sent.is_empty() => {
            let back = 1 + dice.below(client.sent.len().min(5) as u64) as usize;
            // Of the last five requests every partition still knows its own batches.
            assert!(resend(client, back).unwrap().repeat, "{what}: {back} back");
        }
        6 if client.sent.len() > 16 => {
            // Each partition has had more than five batches since, almost surely; then it must be refused.
            let parts = &client.sent[client.sent.len() - 16];
            let since =
                |partition| client.sent[client.sent.len() - 15..].iter().flatten().filter(|p| p.0 == partition).count();
            if parts.iter().all(|part| since(part.0) >= 5) {
                assert!(resend(client, 16).unwrap_err().message().contains("OutOfOrder"), "{what}");
            }
        }
        _ => {
            let gap = [(0, client.next[0] + 1 + dice.below(5) as i32, 1)];
            let error = log.append_wait(batch(topic, client.producer, "gap", &gap)).unwrap_err();
            assert!(error.message().contains("OutOfOrder"), "{what}: {error}");
        }
    }
}

#[test]
fn whatever_is_sent_again_after_whatever_crash_is_in_the_log_once() {
    let seeds = if std::env::var_os("KAPPA_LONG").is_some() { 2_000 } else { 40 };
    for seed in 0..seeds {
        let mut sim = Sim::new(seed);
        let mut dice = Dice::new(seed);
        let (mut log, topic, producer) = setup(&sim);
        let filling = log.create_topic("filling", TopicConfig::default()).unwrap().id();
        let ids = [producer, log.producer_id().unwrap()];
        let client = |producer: ProducerId| Client {
            producer,
            name: format!("p{}", producer.id),
            next: [0; 3],
            sent: Vec::new(),
            acked: 0,
        };
        let mut clients = ids.map(client);
        for step in 0..25 {
            let what = format!("seed {seed}, step {step}");
            sim.clock.advance_us(dice.below(5_000));
            let client = &mut clients[dice.below(2) as usize];
            match dice.below(9) {
                8 => {
                    // A file is filled, what the background does is done: snapshots, and files removed.
                    let filler = "f".repeat(9_000);
                    log.append_wait(AppendBatch::records(filling, values(&[&filler]))).unwrap();
                    log.keep().unwrap();
                }
                0 => {
                    // A cut with a batch on its way that may or may not be in the log.
                    let parts = client.new_batch(&mut dice);
                    drop(log.append(batch(topic, client.producer, &client.name, &parts)).unwrap());
                    let shapes = [Crash::Nothing, Crash::All, Crash::Prefix(1), Crash::Torn(100), Crash::Grown];
                    sim = sim.with_disk(sim.disk.crash(shapes[dice.below(5) as usize]));
                    log = open(&sim.env());
                    client.catch_up(&log, topic);
                }
                1 => {
                    let call = dice.below(3);
                    sim.disk.set_fault(Some(Fault { call, kind: FaultKind::Eio, lasting: false }));
                    let parts = client.new_batch(&mut dice);
                    let answer = log.append(batch(topic, client.producer, &client.name, &parts));
                    let answer = answer.and_then(PendingAck::wait);
                    sim.disk.set_fault(None);
                    if answer.is_err() {
                        log.reopen().unwrap();
                    }
                    client.catch_up(&log, topic);
                }
                2 => {
                    client.producer = log.bump_epoch(client.producer).unwrap();
                    let old = client;
                    // The numbers of the new epoch begin at 0: another client, as far as they go.
                    let name = format!("p{}e{}", old.producer.id, old.producer.epoch);
                    check_once(&log, topic, std::slice::from_ref(old), &what);
                    *old = Client { name, next: [0; 3], sent: Vec::new(), acked: 0, producer: old.producer };
                }
                _ => act(&log, topic, client, &mut dice, &what),
            }
            assert!(log.report().damage.is_empty(), "{what}");
        }
        clients.iter_mut().for_each(|client| client.catch_up(&log, topic));
        check_once(&log, topic, &clients, &format!("seed {seed}"));
    }
}

#[test]
fn a_numbering_producer_sends_again_what_failed() {
    let mut failures = 0;
    for (call, full) in (0..6).flat_map(|call| [(call, false), (call, true)]) {
        let sim = Sim::new(call);
        let log = Log::open(&sim.env(), dir(), LogOptions { ballast_bytes: 0, disk_floor_bytes: Some(0), ..small() })
            .unwrap();
        let topic = log.create_topic("t", TopicConfig { partitions: 2, ..TopicConfig::default() }).unwrap();
        let options = ProducerOptions { idempotent: true, batch_bytes: 300, linger_us: u64::MAX, ..Default::default() };
        let mut producer = Producer::new(&log, &topic, options);
        let mut taken: Vec<String> = Vec::new();
        let mut send = |producer: &mut Producer, number: usize| {
            let value = format!("{number:03} {}", "x".repeat(80));
            let key = number.to_le_bytes();
            let record = Record { timestamp_ms: None, key: Some(&key), value: Some(value.as_bytes()), headers: &[] };
            let sent = producer.send(&record).map(drop);
            if sent.is_ok() {
                taken.push(value);
            }
            sent
        };
        (0..10).for_each(|number| send(&mut producer, number).unwrap());
        producer.flush().unwrap();
        if full {
            sim.disk.set_capacity(Some(sim.disk.used() + call * 300));
        } else {
            sim.disk.set_fault(Some(Fault { call, kind: FaultKind::Eio, lasting: false }));
        }
        let failed = (10..40).map(|number| send(&mut producer, number)).filter(|sent| sent.is_err()).count();
        let flushed = producer.flush();
        failures += usize::from(failed > 0 || flushed.is_err());
        sim.disk.set_fault(None);
        sim.disk.set_capacity(None);
        sim.clock.advance_us(2_000_000);
        log.reopen().unwrap();
        while producer.flush().is_err() {}
        send(&mut producer, 99).unwrap();
        producer.flush().unwrap();
        let mut found = texts(&log, topic.id());
        found.sort_unstable();
        assert_eq!(found, taken, "call {call}, full: {full}");
    }
    assert!(failures > 5, "only {failures} runs failed");
}
