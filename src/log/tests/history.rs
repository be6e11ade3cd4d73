//! Scripted histories of a log, made from seeds, and what must hold of any disk that a crash left of one.

use super::*;
use crate::codec::xxh64;
use crate::env::sim::{Sim, SimDisk};
use crate::log::{Ack, AppendBatch, MetaRecord, MetaSpace, PendingAck, TopicConfig};
use crate::types::Offset;
use std::collections::BTreeMap;

/// Random numbers from a seed.
pub(super) struct Dice {
    seed: u64,
    count: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { seed, count: 0 }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.count += 1;
        xxh64(&self.count.to_le_bytes(), self.seed) % n
    }
}

/// A batch as it was sent.
pub(super) struct Sent {
    pub topics: Vec<(TopicId, RecordColumns)>,
    pub ack: Option<Ack>,
    /// Changes of the disk when it was known to be acknowledged.
    pub acked_at: Option<usize>,
}

/// Topics that were created or deleted, and when that was acknowledged.
pub(super) struct Named {
    pub id: TopicId,
    pub name: String,
    pub partitions: u32,
    pub created_at: usize,
    pub deletion_asked_at: Option<usize>,
    pub deleted_at: Option<usize>,
}

/// A history that ran to its end.
pub(super) struct History {
    pub seed: u64,
    pub sim: Sim,
    pub base: SimDisk,
    pub sent: Vec<Sent>,
    pub named: Vec<Named>,
}

/// Runs a history of about `steps` steps.
pub(super) fn run(seed: u64, steps: usize) -> History {
    let sim = Sim::new(seed);
    let base = sim.disk.copy();
    sim.disk.remember();
    let mut history = History { seed, base, sim: sim.clone(), sent: Vec::new(), named: Vec::new() };
    let mut dice = Dice::new(seed);
    let mut log = open(&sim.env());
    create(&mut history, &log, &mut dice);
    for _ in 0..steps {
        sim.clock.advance_us(dice.below(5_000));
        match dice.below(12) {
            0 => create(&mut history, &log, &mut dice),
            1 => delete(&mut history, &log, &mut dice),
            2 => {
                log.close().unwrap();
                log = open(&sim.env());
            }
            3 => {
                drop(log);
                log = open(&sim.env());
            }
            4..=8 => send(&mut history, &log, &mut dice, 1),
            _ => {
                let requests = 2 + dice.below(5);
                send(&mut history, &log, &mut dice, requests);
            }
        }
    }
    drop(log);
    history
}

fn alive(history: &History) -> Vec<usize> {
    (0..history.named.len()).filter(|topic| history.named[*topic].deleted_at.is_none()).collect()
}

fn create(history: &mut History, log: &Log, dice: &mut Dice) {
    let name = format!("topic-{}", history.named.len());
    let partitions = 1 + dice.below(3) as u32;
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let id = log.create_topic(&name, config).unwrap().id();
    let created_at = history.sim.disk.changes();
    history.named.push(Named { id, name, partitions, created_at, deletion_asked_at: None, deleted_at: None });
}

fn delete(history: &mut History, log: &Log, dice: &mut Dice) {
    let alive = alive(history);
    if alive.len() < 2 {
        return;
    }
    let chosen = &mut history.named[alive[dice.below(alive.len() as u64) as usize]];
    chosen.deletion_asked_at = Some(history.sim.disk.changes());
    log.delete_topic(&chosen.name).unwrap();
    chosen.deleted_at = Some(history.sim.disk.changes());
}

/// Sends batches without waiting in between, then waits for all.
fn send(history: &mut History, log: &Log, dice: &mut Dice, requests: u64) {
    let alive = alive(history);
    let mut pending: Vec<PendingAck> = Vec::new();
    for _ in 0..requests {
        let number = history.sent.len();
        let mut topics = Vec::new();
        for _ in 0..dice.below(3) {
            let named = &history.named[alive[dice.below(alive.len() as u64) as usize]];
            topics.push((named.id, random_rows(dice, named.partitions, number)));
        }
        let meta = MetaRecord { space: MetaSpace::Run, key: format!("{number:05}"), value: Some(vec![1; 3]) };
        let batch = AppendBatch { topics: topics.clone(), meta: vec![meta], clock_floor: None };
        pending.push(log.append(batch).unwrap());
        history.sent.push(Sent { topics, ack: None, acked_at: None });
    }
    let first = history.sent.len() - pending.len();
    for (place, pending) in pending.into_iter().enumerate() {
        let ack = pending.wait().unwrap();
        let sent = &mut history.sent[first + place];
        (sent.ack, sent.acked_at) = (Some(ack), Some(history.sim.disk.changes()));
    }
}

fn random_rows(dice: &mut Dice, partitions: u32, number: usize) -> RecordColumns {
    let mut columns = RecordColumns::default();
    for row in 0..1 + dice.below(4) {
        let value = match dice.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![b'x'; 1 + dice.below(3_000) as usize]),
            _ => Some(format!("value {number} {row}").into_bytes()),
        };
        let key = (dice.below(2) == 0).then(|| format!("key {}", dice.below(5)));
        let timestamp_ms = (dice.below(4) > 0).then(|| dice.below(1_000_000) as i64 - 500_000);
        let headers: &[(&str, Option<&[u8]>)] =
            if dice.below(4) == 0 { &[("h", None), ("i", Some(b"j"))] } else { &[] };
        let to = Partitioning::Fixed(PartitionId(dice.below(u64::from(partitions)) as u32));
        let record = Record { timestamp_ms, key: key.as_deref().map(str::as_bytes), value: value.as_deref(), headers };
        columns.push(to, &record);
    }
    columns
}

type Content = (u32, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn contents(columns: &RecordColumns) -> Vec<Content> {
    let bytes = |column: &crate::log::records::ByteColumn, row| column.get(row).map(<[u8]>::to_vec);
    let row = |row: usize| {
        let headers = bytes(&columns.headers, row).unwrap();
        let partition = columns.partitions[row].unwrap();
        (partition, columns.timestamps_ms[row], bytes(&columns.keys, row), bytes(&columns.values, row), headers)
    };
    (0..columns.len()).map(row).collect()
}

fn content(row: &Row) -> Content {
    let headers: Vec<(&str, Option<&[u8]>)> =
        row.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let mut encoded = Vec::new();
    crate::log::records::encode_headers(&headers, &mut encoded);
    (row.partition, row.timestamp, row.key.clone(), row.value.clone(), encoded)
}

/// What must hold of a log that was opened on a disk left by a crash after `changes` changes: everything acknowledged is
/// there, and behind it only whole batches, in the order they were sent. Gives the number of batches found.
pub(super) fn check(history: &History, log: &Log, changes: usize, what: &str) -> usize {
    let what = format!("seed {} after {changes} changes, {what}", history.seed);
    assert_eq!(log.report().damage, [], "{what}");
    let found = log.meta_scan(MetaSpace::Run, "");
    let keys: Vec<String> = (0..found.len()).map(|number| format!("{number:05}")).collect();
    assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys, "{what}: batches");
    let acked = history.sent.iter().filter(|sent| sent.acked_at.is_some_and(|at| at <= changes)).count();
    assert!(keys.len() >= acked, "{what}: {acked} batches were acknowledged, {} are there", keys.len());
    for named in &history.named {
        let there = log.topic_by_id(named.id).is_ok();
        let must_be = named.created_at <= changes && named.deletion_asked_at.is_none_or(|at| at > changes);
        let must_not_be = named.deleted_at.is_some_and(|at| at <= changes);
        assert!((there || !must_be) && !(there && must_not_be), "{what}: topic {} there: {there}", named.name);
        if there {
            check_topic(history, log, named, keys.len(), &what);
        }
    }
    keys.len()
}

fn check_topic(history: &History, log: &Log, named: &Named, batches: usize, what: &str) {
    let rows = read_all(log, &[named.id]);
    let sent = &history.sent[..batches];
    let expected: Vec<Content> = sent
        .iter()
        .flat_map(|sent| &sent.topics)
        .filter(|(topic, _)| *topic == named.id)
        .flat_map(|(_, columns)| contents(columns))
        .collect();
    assert_eq!(rows.iter().map(content).collect::<Vec<_>>(), expected, "{what}: records of {}", named.name);
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    for pair in rows.windows(2) {
        assert!(pair[0].position < pair[1].position && pair[0].append_time <= pair[1].append_time, "{what}: order");
    }
    for row in &rows {
        let end = ends.entry(row.partition).or_default();
        assert_eq!(row.offset, *end, "{what}: offsets of {} are dense", named.name);
        *end += 1;
    }
    let ends: Vec<Offset> = (0..named.partitions).map(|p| Offset(ends.get(&p).copied().unwrap_or(0))).collect();
    assert_eq!(log.partition_ends(named.id).unwrap(), ends, "{what}: ends of {}", named.name);
    let mut rest = &rows[..];
    for sent in sent {
        for (place, (topic, columns)) in sent.topics.iter().enumerate() {
            if *topic != named.id {
                continue;
            }
            let (mine, behind) = rest.split_at(columns.len());
            rest = behind;
            let Some(ack) = &sent.ack else { continue };
            let first = ack.topics[place].first_position.0;
            assert!(mine.iter().zip(first..).all(|(row, position)| row.position == position), "{what}: positions");
            assert!(mine.iter().all(|row| row.append_time == ack.append_time.0), "{what}: append times");
        }
    }
}
