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

/// Something that a history does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// One small batch.
    Append,
    /// Several batches at once, of several topics, some without records.
    Batch,
    /// Batches at once that together are more than a file: others begin in the middle of what is synced together.
    Roll,
    /// Offsets of a group.
    Commit,
    Create,
    Delete,
    /// Closing and opening again.
    Reopen,
    /// What goes on in the background: sealing, snapshots, removal.
    Keep,
}

impl Step {
    pub const ALL: [Step; 8] =
        [Step::Append, Step::Batch, Step::Roll, Step::Commit, Step::Create, Step::Delete, Step::Reopen, Step::Keep];
}

/// A history that ran to its end.
pub(super) struct History {
    pub seed: u64,
    pub options: LogOptions,
    /// Changes of the disk when each step began, and when all had ended.
    pub marks: Vec<usize>,
    /// Offsets committed: when asked for, when acknowledged.
    pub commits: Vec<(usize, usize)>,
    pub sim: Sim,
    pub base: SimDisk,
    pub sent: Vec<Sent>,
    pub named: Vec<Named>,
}

/// Steps of a seed: mostly appends.
pub(super) fn random_steps(seed: u64, count: usize) -> Vec<Step> {
    let mut dice = Dice::new(seed ^ 0x57e9);
    let step = |_| match dice.below(14) {
        0 => Step::Create,
        1 => Step::Delete,
        2 | 3 => Step::Reopen,
        4 => Step::Commit,
        5 => Step::Keep,
        6 => Step::Roll,
        7..=9 => Step::Append,
        _ => Step::Batch,
    };
    (0..count).map(step).collect()
}

/// Runs these steps on an empty disk, after creating a first topic. What exactly they do is taken from the seed.
pub(super) fn play(seed: u64, options: &LogOptions, steps: &[Step]) -> History {
    let sim = Sim::new(seed);
    let base = sim.disk.copy();
    sim.disk.remember();
    let (marks, commits) = (Vec::new(), Vec::new());
    let (sent, named, options) = (Vec::new(), Vec::new(), options.clone());
    let mut history = History { seed, options, marks, commits, base, sim: sim.clone(), sent, named };
    let mut dice = Dice::new(seed);
    let mut log = history.open(&sim);
    create(&mut history, &log, &mut dice);
    for step in steps {
        history.marks.push(sim.disk.changes());
        sim.clock.advance_us(dice.below(5_000));
        match step {
            Step::Append => send(&mut history, &log, &mut dice, 1),
            Step::Batch => {
                let requests = 2 + dice.below(5);
                send(&mut history, &log, &mut dice, requests);
            }
            Step::Roll => roll(&mut history, &log),
            Step::Commit => commit(&mut history, &log),
            Step::Create => create(&mut history, &log, &mut dice),
            Step::Delete => delete(&mut history, &log, &mut dice),
            Step::Reopen => {
                log.close().unwrap();
                log = history.open(&sim);
            }
            Step::Keep => log.keep().unwrap(),
        }
    }
    drop(log);
    history.marks.push(sim.disk.changes());
    history
}

impl History {
    /// Opens the log on a disk of this history.
    pub fn open(&self, sim: &Sim) -> Log {
        Log::open(&sim.env(), dir(), self.options.clone()).unwrap()
    }
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

fn commit(history: &mut History, log: &Log) {
    let asked = history.sim.disk.changes();
    let value = Some(history.commits.len().to_le_bytes().to_vec());
    let record = MetaRecord { space: MetaSpace::Offset, key: "group/1/0".to_owned(), value };
    log.append_wait(AppendBatch::meta(vec![record])).unwrap();
    history.commits.push((asked, history.sim.disk.changes()));
}

fn roll(history: &mut History, log: &Log) {
    let named = &history.named[alive(history)[0]];
    let batch = |_| {
        let mut columns = RecordColumns::default();
        let value = vec![b'r'; 2_500];
        let record = Record { timestamp_ms: None, key: None, value: Some(&value), headers: &[] };
        columns.push(Partitioning::Fixed(PartitionId(0)), &record);
        vec![(named.id, columns)]
    };
    send_all(history, log, (0..4).map(batch).collect());
}

/// Random batches of topics that exist.
fn send(history: &mut History, log: &Log, dice: &mut Dice, requests: u64) {
    let alive = alive(history);
    let mut batches = Vec::new();
    for number in 0..requests as usize {
        let mut topics = Vec::new();
        for _ in 0..dice.below(3).max(u64::from(requests == 1)) {
            let named = &history.named[alive[dice.below(alive.len() as u64) as usize]];
            topics.push((named.id, random_rows(dice, named.partitions, history.sent.len() + number)));
        }
        batches.push(topics);
    }
    send_all(history, log, batches);
}

/// Sends batches without waiting in between, then waits for all.
fn send_all(history: &mut History, log: &Log, batches: Vec<Vec<(TopicId, RecordColumns)>>) {
    let mut pending: Vec<PendingAck> = Vec::new();
    for topics in batches {
        let key = format!("{:05}", history.sent.len());
        let meta = MetaRecord { space: MetaSpace::Run, key, value: Some(vec![1; 3]) };
        let batch = AppendBatch { topics: topics.clone(), meta: vec![meta], ..AppendBatch::default() };
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

pub(super) fn random_rows(dice: &mut Dice, partitions: u32, number: usize) -> RecordColumns {
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

/// Where and when a log was looked at: after how many changes a crash came, what was appended since, and words for people.
pub(super) struct Look<'a> {
    pub changes: usize,
    pub since: &'a [(TopicId, RecordColumns)],
    pub what: &'a str,
}

/// What must hold of a log that was opened on a disk left by a crash: everything acknowledged is there, and behind it only
/// whole batches, in the order they were sent. Gives the number of batches found.
pub(super) fn check(history: &History, log: &Log, look: &Look<'_>) -> usize {
    let changes = look.changes;
    let what = format!("seed {} after {changes} changes, {}", history.seed, look.what);
    assert_eq!(log.report().damage, [], "{what}");
    let found = log.meta_scan(MetaSpace::Run, "");
    let keys: Vec<String> = (0..found.len()).map(|number| format!("{number:05}")).collect();
    assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys, "{what}: batches");
    let acked = history.sent.iter().filter(|sent| sent.acked_at.is_some_and(|at| at <= changes)).count();
    assert!(keys.len() >= acked, "{what}: {acked} batches were acknowledged, {} are there", keys.len());
    check_commits(history, log, changes, &what);
    for named in &history.named {
        let there = log.topic_by_id(named.id).is_ok();
        let must_be = named.created_at <= changes && named.deletion_asked_at.is_none_or(|at| at > changes);
        let must_not_be = named.deleted_at.is_some_and(|at| at <= changes);
        assert!((there || !must_be) && !(there && must_not_be), "{what}: topic {} there: {there}", named.name);
        if there {
            check_topic(history, log, named, (keys.len(), look.since), &what);
        }
    }
    keys.len()
}

/// The offset committed is one between the last that was acknowledged and the last that was asked for.
fn check_commits(history: &History, log: &Log, changes: usize, what: &str) {
    let acked = history.commits.iter().filter(|(_, acked)| *acked <= changes).count();
    let asked = history.commits.iter().filter(|(asked, _)| *asked <= changes).count();
    let found = log.meta(MetaSpace::Offset, "group/1/0");
    let number = found.map_or(0, |bytes| 1 + usize::from_le_bytes(bytes.try_into().unwrap()));
    assert!((acked..=asked).contains(&number), "{what}: offset {number} is committed, not {acked} to {asked}");
}

fn check_topic(
    history: &History,
    log: &Log,
    named: &Named,
    (batches, since): (usize, &[(TopicId, RecordColumns)]),
    what: &str,
) {
    let rows = read_all(log, &[named.id]);
    let sent = &history.sent[..batches];
    let expected: Vec<Content> = sent
        .iter()
        .flat_map(|sent| &sent.topics)
        .chain(since)
        .filter(|(topic, _)| *topic == named.id)
        .flat_map(|(_, columns)| contents(columns))
        .collect();
    let found: Vec<Content> = rows.iter().map(content).collect();
    assert!(
        found == expected,
        "{what}: of {} {} records are there or differ, not {}",
        named.name,
        found.len(),
        expected.len()
    );
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
