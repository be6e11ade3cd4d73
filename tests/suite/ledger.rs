//! The ledger: a process that works on a log and says on its stdout what it asks for and what it is told, line by line, right
//! before and right after; and the parent that kills it, or cuts its power, and holds the log against what it said.
//!
//! The process is this test binary, started again with `KAPPA_LEDGER` set. It opens the log, reads all of it, and then
//! sends, reads and commits from several threads until it dies.

use crate::checker::{Checker, Event, Place, Seen};
use crate::dice::Dice;
use kappa::codec::xxh64;
use kappa::env::Env;
use kappa::log::records::{LogBatch, Partitioning, Record, RecordColumns};
use kappa::log::{Ack, AppendBatch, Consumer, Log, LogOptions, PendingAck, Topic, TopicConfig};
use kappa::types::{Offset, PartitionId, Position, TopicId};
use kappa::{ErrorKind, Result};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A batch on its way: its number, the values of its records with their places, and the acknowledgement to wait for.
type Sent = (u64, Vec<(Place, u64)>, PendingAck);

const DIR: &str = "KAPPA_LEDGER";
const EPOCH: &str = "KAPPA_LEDGER_EPOCH";
const CHECK_ONLY: &str = "KAPPA_LEDGER_CHECK";
const MUTANT: &str = "KAPPA_LEDGER_MUTANT";
const STUBBORN: &str = "KAPPA_LEDGER_STUBBORN";

/// An event as a line; `None` for what is not said by line.
fn line_of(event: &Event) -> Option<String> {
    let seen = |seen: &Seen| {
        let value = seen.value.map_or("-".to_owned(), |value| value.to_string());
        format!("{} {} {} {value}", seen.offset, seen.position, seen.append_time)
    };
    Some(match event {
        Event::Invoked { op, records } => {
            let records = records.iter().map(|((topic, partition), value)| format!(" {topic} {partition} {value}"));
            format!("invoked {op}{}", records.collect::<String>())
        }
        Event::Acked { op, records } => {
            format!("acked {op}{}", records.iter().map(|record| format!(" {}", seen(record))).collect::<String>())
        }
        Event::Refused { op } => format!("refused {op}"),
        Event::ReadBegins { reader, place, from } => format!("begins {reader} {} {} {from}", place.0, place.1),
        Event::Read { reader, place, seen: record } => {
            format!("read {reader} {} {} {}", place.0, place.1, seen(record))
        }
        Event::ReadEnds { reader, place, end } => format!("ends {reader} {} {} {end}", place.0, place.1),
        Event::DurableEnd { position } => format!("durable {position}"),
        Event::Commit { group, place, offset } => format!("commit {group} {} {} {offset}", place.0, place.1),
        Event::CommitAcked { group, place, offset } => format!("kept {group} {} {} {offset}", place.0, place.1),
        Event::Committed { group, place, offset } => {
            let offset = offset.map_or("-".to_owned(), |offset| offset.to_string());
            format!("committed {group} {} {} {offset}", place.0, place.1)
        }
        Event::Settled => "settled".to_owned(),
        Event::Crash => return None,
    })
}

/// The event of a line; `None` for lines that are none (the test harness prints some) and for one cut in the middle.
fn event_of(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let numbers: Vec<Option<i64>> = words
        .map(|word| if word == "-" { Some(None) } else { word.parse().ok().map(Some) })
        .collect::<Option<Vec<_>>>()?;
    let number = |at: usize| numbers.get(at).copied().flatten();
    let natural = |at: usize| number(at).and_then(|number| u64::try_from(number).ok());
    let place = |at: usize| Some((u32::try_from(natural(at)?).ok()?, u32::try_from(natural(at + 1)?).ok()?));
    let seen = |at: usize| {
        let value = numbers.get(at + 3)?.and_then(|value| u64::try_from(value).ok());
        Some(Seen { offset: natural(at)?, position: natural(at + 1)?, append_time: number(at + 2)?, value })
    };
    Some(match kind {
        "invoked" => {
            let record = |at: usize| Some((place(at)?, natural(at + 2)?));
            let records = (1..numbers.len()).step_by(3).map(record).collect::<Option<_>>()?;
            Event::Invoked { op: natural(0)?, records }
        }
        "acked" => {
            let records = (1..numbers.len()).step_by(4).map(seen).collect::<Option<_>>()?;
            Event::Acked { op: natural(0)?, records }
        }
        "refused" => Event::Refused { op: natural(0)? },
        "begins" => Event::ReadBegins { reader: natural(0)?, place: place(1)?, from: natural(3)? },
        "read" => Event::Read { reader: natural(0)?, place: place(1)?, seen: seen(3)? },
        "ends" => Event::ReadEnds { reader: natural(0)?, place: place(1)?, end: natural(3)? },
        "durable" => Event::DurableEnd { position: natural(0)? },
        "commit" => Event::Commit { group: natural(0)?, place: place(1)?, offset: natural(3)? },
        "kept" => Event::CommitAcked { group: natural(0)?, place: place(1)?, offset: natural(3)? },
        "committed" => {
            numbers.get(3)?;
            Event::Committed { group: natural(0)?, place: place(1)?, offset: natural(3) }
        }
        "settled" => Event::Settled,
        _ => return None,
    })
}

/// The bytes of a value: its number and a filler that follows from it.
fn payload(value: u64) -> Vec<u8> {
    let len = match xxh64(&value.to_le_bytes(), 1) % 16 {
        0 => 6_000,
        1..=4 => 600,
        _ => 24,
    };
    let mut bytes = value.to_le_bytes().to_vec();
    let filler = xxh64(&value.to_le_bytes(), 2).to_le_bytes();
    bytes.extend(filler.iter().cycle().take(len));
    bytes
}

fn record<T>(value: u64, take: impl FnOnce(&Record<'_>) -> T) -> T {
    let (bytes, key) = (payload(value), value.to_le_bytes());
    let timestamp_ms = (!value.is_multiple_of(3)).then_some(value as i64);
    let key = value.is_multiple_of(2).then_some(&key[..]);
    take(&Record { timestamp_ms, key, value: Some(&bytes), headers: &[("n", key)] })
}

/// Which value a row is, if every byte of it is right.
fn value_of(batch: &LogBatch, row: usize) -> Option<u64> {
    use arrow::array::Array as _;
    let bytes = batch.values.is_valid(row).then(|| batch.values.value(row))?;
    let value = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let mut expected = Vec::new();
    record(value, |record| kappa::log::records::encode_headers(record.headers, &mut expected));
    record(value, |record| {
        let key = batch.keys.is_valid(row).then(|| batch.keys.value(row));
        let same = record.value == Some(bytes)
            && record.key == key
            && record.timestamp_ms == batch.timestamp_ms(row)
            && expected == batch.headers.value(row);
        same.then_some(value)
    })
}

struct Program {
    log: Log,
    topics: Vec<Topic>,
    /// Go on trying when an append fails.
    stubborn: bool,
    /// The producers have given up.
    over: AtomicBool,
    out: Arc<Mutex<std::io::Stdout>>,
}

fn say(out: &Mutex<std::io::Stdout>, event: &Event) {
    let line = line_of(event).expect("only the parent sees crashes");
    say_line(out, &line);
}

fn say_line(out: &Mutex<std::io::Stdout>, line: &str) {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    // The parent may have stopped listening: then there is nobody to tell.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Small files and frames, so that much happens in little time.
fn options() -> LogOptions {
    let mutant = std::env::var(MUTANT).ok().map(|name| name.parse().expect("a mutant's name"));
    // Files go, and are written again, while it works. A log that does not sync would lose all of them, and nobody could open it.
    let snapshot_bytes = if mutant.is_none() { 64 << 10 } else { LogOptions::default().snapshot_bytes };
    LogOptions {
        file_bytes: 64 << 10,
        frame_bytes: 4 << 10,
        idle_mark_us: 2_000,
        disk_floor_bytes: Some(0),
        ballast_bytes: 256 << 10,
        snapshot_bytes,
        mutant,
        ..LogOptions::default()
    }
}

fn topic(log: &Log, name: &str, partitions: u32) -> Result<Topic> {
    match log.topic(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log.create_topic(name, TopicConfig { partitions, ..TopicConfig::default() })
        }
        other => other,
    }
}

impl Program {
    fn places(&self) -> Vec<Place> {
        let partitions = |topic: &Topic| (0..topic.partitions()).map(|p| (topic.id().0, p)).collect::<Vec<_>>();
        self.topics.iter().flat_map(partitions).collect()
    }

    fn say(&self, event: &Event) {
        say(&self.out, event);
    }

    /// Asked and said in one go, so that two threads cannot say it in the wrong order.
    fn say_durable_end(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line_of(&Event::DurableEnd { position: self.log.durable_end().0 }).expect("a line");
        let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
    }

    fn say_rows(&self, reader: u64, batch: &LogBatch) {
        for row in 0..batch.len() {
            let seen = Seen {
                offset: batch.offsets[row],
                position: batch.positions[row],
                append_time: batch.append_times[row],
                value: value_of(batch, row),
            };
            self.say(&Event::Read { reader, place: (batch.topic.0, batch.partitions[row]), seen });
        }
    }

    /// Reads everything that was there when the log was opened, and the offsets committed.
    fn read_all(&self, reader: u64) -> Result<()> {
        let end = self.log.durable_end();
        self.say_durable_end();
        for place in self.places() {
            self.say(&Event::ReadBegins { reader, place, from: 0 });
        }
        let ids: Vec<TopicId> = self.topics.iter().map(Topic::id).collect();
        let mut log = self.log.reader(&ids, Position(0));
        while let Some(batch) = log.next(end)? {
            self.say_rows(reader, &batch);
        }
        for topic in &self.topics {
            for (partition, end) in (0..).zip(self.log.partition_ends(topic.id())?) {
                self.say(&Event::ReadEnds { reader, place: (topic.id().0, partition), end: end.0 });
            }
        }
        self.say(&Event::Settled);
        Ok(())
    }

    /// Sends until an append fails (or for ever): several at once, of one to four records each.
    fn produce(&self, epoch: u64, thread: u64) {
        let mut dice = Dice::new(epoch * 100 + thread);
        let mut unknown = Vec::new();
        let mut pending: VecDeque<Sent> = VecDeque::new();
        for number in 0.. {
            let mut failed = false;
            let op = (epoch << 32) | (thread << 24) | number;
            let mut columns: BTreeMap<u32, RecordColumns> = BTreeMap::new();
            let mut records: Vec<(Place, u64)> = Vec::new();
            for row in 0..1 + dice.below(4) {
                let topic = &self.topics[dice.below(self.topics.len() as u64) as usize];
                let partition = dice.below(u64::from(topic.partitions())) as u32;
                records.push(((topic.id().0, partition), (op << 3) | row));
            }
            // In the order in which they will stand in the log.
            records.sort_by_key(|((topic, _), value)| (*topic, *value));
            for ((topic, partition), value) in &records {
                let rows = columns.entry(*topic).or_default();
                record(*value, |record| rows.push(Partitioning::Fixed(PartitionId(*partition)), record));
            }
            let topics = columns.into_iter().map(|(id, rows)| (TopicId(id), rows)).collect();
            self.say(&Event::Invoked { op, records: records.clone() });
            match self.log.append(AppendBatch { topics, ..AppendBatch::default() }) {
                Ok(ack) => pending.push_back((op, records, ack)),
                Err(_) => {
                    self.say(&Event::Refused { op });
                    failed = true;
                }
            }
            while pending.len() as u64 > thread * 3 {
                let Some((op, records, ack)) = pending.pop_front() else { break };
                match ack.wait() {
                    Ok(ack) => self.say(&Event::Acked { op, records: acked(&records, &ack) }),
                    Err(error) if error.kind() == ErrorKind::Unknown => {
                        unknown.push(op);
                        failed = true;
                    }
                    Err(_) => {
                        self.say(&Event::Refused { op });
                        failed = true;
                    }
                }
            }
            if failed && !self.stubborn {
                break;
            } else if failed {
                std::thread::sleep(Duration::from_millis(5));
                self.reopen(&mut unknown);
            }
        }
        self.over.store(true, Ordering::Relaxed);
    }

    /// After a successful reopening, what was answered "unknown" is certainly not in the log.
    fn reopen(&self, unknown: &mut Vec<u64>) {
        if self.log.reopen().is_ok() {
            for op in unknown.drain(..) {
                self.say(&Event::Refused { op });
            }
        }
    }

    /// Reads a topic on from where its group is, and commits now and then, until the producers give up.
    fn consume(&self, group: u64, topic: &Topic) -> Result<()> {
        let mut consumer = Consumer::new(&self.log, topic, Some(&format!("group-{group}")))?;
        let mut next: Vec<u64> = Vec::new();
        for partition in 0..topic.partitions() {
            let place = (topic.id().0, partition);
            let committed = consumer.committed(PartitionId(partition))?.map(|offset| offset.0);
            self.say(&Event::Committed { group, place, offset: committed });
            self.say(&Event::ReadBegins { reader: group, place, from: committed.unwrap_or(0) });
            next.push(committed.unwrap_or(0));
        }
        while !self.over.load(Ordering::Relaxed) {
            let records = consumer.poll(64)?;
            for record in &records {
                let value =
                    record.value.as_ref().and_then(|bytes| Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)));
                let (Offset(offset), Position(position)) = (record.offset, record.position);
                let seen = Seen { offset, position, append_time: record.append_time.0, value };
                self.say(&Event::Read { reader: group, place: (topic.id().0, record.partition.0), seen });
                next[record.partition.0 as usize] = offset + 1;
            }
            self.say_durable_end();
            if records.is_empty() {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let commits = || (0..).zip(&next).map(|(partition, offset)| ((topic.id().0, partition), *offset));
            for (place, offset) in commits() {
                self.say(&Event::Commit { group, place, offset });
            }
            match consumer.commit() {
                Err(_) if self.stubborn => continue,
                other => other?,
            }
            for (place, offset) in commits() {
                self.say(&Event::CommitAcked { group, place, offset });
            }
        }
        Ok(())
    }
}

/// Where the records of an append are, in their order.
fn acked(records: &[(Place, u64)], ack: &Ack) -> Vec<Seen> {
    let mut seen = Vec::with_capacity(records.len());
    for part in &ack.topics {
        let mut next: BTreeMap<u32, u64> =
            part.partitions.iter().map(|partition| (partition.partition.0, partition.base_offset.0)).collect();
        let mine = records.iter().filter(|((topic, _), _)| *topic == part.topic.0);
        for (((_, partition), value), position) in mine.zip(part.first_position.0..) {
            let offset = next.get_mut(partition).expect("an acknowledged partition");
            seen.push(Seen { offset: *offset, position, append_time: ack.append_time.0, value: Some(*value) });
            *offset += 1;
        }
    }
    seen
}

/// The process itself. Ends when the log fails, or when it is killed.
fn work(dir: &Path, epoch: u64, check_only: bool) -> Result<()> {
    let out = Arc::new(Mutex::new(std::io::stdout()));
    say_line(&out, "started");
    let log = Log::open(&Env::os(), dir, options())?;
    for damage in &log.report().damage {
        say_line(&out, &format!("damage {damage}"));
    }
    let topics = vec![topic(&log, "a", 3)?, topic(&log, "b", 1)?];
    let stubborn = std::env::var_os(STUBBORN).is_some();
    let program = Program { log, topics, stubborn, over: AtomicBool::new(false), out };
    program.read_all(epoch << 8)?;
    say_line(&program.out, "working");
    if check_only {
        return program.log.close();
    }
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let program = &program;
            scope.spawn(move || program.produce(epoch, thread));
        }
        let consumer = scope.spawn(|| program.consume(1, &program.topics[0]));
        let other = program.consume(2, &program.topics[1]);
        consumer.join().expect("no panic").and(other)
    })
}

#[test]
fn the_ledger_process() {
    if let Some(dir) = std::env::var_os(DIR) {
        let epoch = std::env::var(EPOCH).expect("an epoch").parse().expect("a number");
        if let Err(error) = work(Path::new(&dir), epoch, std::env::var_os(CHECK_ONLY).is_some()) {
            println!("failed {error}");
        }
        return;
    }
    let events = [
        Event::Invoked { op: 3, records: vec![((1, 0), 4), ((2, 1), 5)] },
        Event::Read { reader: 1, place: (2, 3), seen: Seen { offset: 4, position: 5, append_time: -6, value: None } },
        Event::Acked { op: 3, records: vec![Seen { offset: 4, position: 5, append_time: -6, value: Some(7) }] },
        Event::Committed { group: 1, place: (2, 3), offset: None },
        Event::Committed { group: 1, place: (2, 3), offset: Some(4) },
        Event::Settled,
    ];
    for event in events {
        assert_eq!(event_of(&line_of(&event).expect("a line")), Some(event));
    }
    assert_eq!(event_of("acked 3 1 2"), None, "a line that was cut");
    assert_eq!(event_of("running 1 test"), None);
}

/// What the parent knows of a process.
#[derive(Default)]
struct Heard {
    checker: Checker,
    /// From now on only what was asked for counts, not what was answered.
    cut: bool,
    working: bool,
    /// Appends answered "not written" in this life.
    refused: u64,
    /// What the process says of damage and of its own end.
    complaints: Vec<String>,
}

/// Keeps the ledger of one data folder over many lives of the process.
pub struct Ledger {
    heard: Arc<Mutex<Heard>>,
    epoch: u64,
    pub mutant: Option<&'static str>,
    /// The process goes on trying when an append fails.
    pub stubborn: bool,
}

/// A life of the process.
pub struct Life {
    child: Child,
    listener: JoinHandle<()>,
    heard: Arc<Mutex<Heard>>,
}

fn listen(stdout: ChildStdout, heard: &Mutex<Heard>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        match event_of(&line) {
            Some(event) => {
                let asks = matches!(event, Event::Invoked { .. } | Event::Commit { .. } | Event::Refused { .. });
                heard.refused += u64::from(matches!(event, Event::Refused { .. }));
                if asks || !heard.cut {
                    heard.checker.take(&event);
                }
            }
            None if line == "working" => heard.working = true,
            None if heard.cut => {}
            None if line.starts_with("damage ") || line.starts_with("failed ") || line.contains("panicked") => {
                heard.complaints.push(line);
            }
            None => {}
        }
    }
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger { heard: Arc::default(), epoch: 0, mutant: None, stubborn: false }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process on a data folder, under `wrapper` if there is one.
    pub fn start(&mut self, dir: &Path, check_only: bool, wrapper: &[&str]) -> Life {
        self.epoch += 1;
        let me = std::env::current_exe().expect("this binary");
        let mut command = match wrapper {
            [] => Command::new(me),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(me);
                command
            }
        };
        command.args(["ledger::the_ledger_process", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(DIR, dir).env(EPOCH, self.epoch.to_string());
        if check_only {
            command.env(CHECK_ONLY, "1");
        }
        if self.stubborn {
            command.env(STUBBORN, "1");
        }
        if let Some(mutant) = self.mutant {
            command.env(MUTANT, mutant);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("this binary starts");
        let stdout = child.stdout.take().expect("piped");
        (self.heard().cut, self.heard().working, self.heard().refused) = (false, false, 0);
        let heard = self.heard.clone();
        let listener = std::thread::spawn(move || listen(stdout, &heard));
        Life { child, listener, heard: self.heard.clone() }
    }

    /// Opens the log, reads all of it, closes it, and gives what was wrong so far.
    pub fn verdict(&mut self, dir: &Path) -> Vec<String> {
        let life = self.start(dir, true, &[]);
        let ended = life.wait(Duration::from_secs(60));
        let mut heard = self.heard();
        let mut wrong: Vec<String> = heard.checker.anomalies.iter().take(10).map(ToString::to_string).collect();
        wrong.append(&mut heard.complaints);
        if !ended || !heard.working {
            wrong.push("the log could not be opened and read to its end".to_owned());
        }
        wrong
    }

    /// Forgets that the process could not go on: where a call was made to fail that is no surprise.
    pub fn forgive_failures(&mut self) {
        self.heard().complaints.retain(|complaint| complaint.starts_with("damage "));
    }

    /// Values acknowledged and records read so far.
    pub fn counts(&self) -> (u64, u64) {
        let heard = self.heard();
        (heard.checker.acked, heard.checker.read)
    }
}

impl Life {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the process has opened its log and read it, at most 30 s.
    pub fn wait_working(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.heard().working {
            let running = self.child.try_wait().expect("a child of ours").is_none();
            assert!(running && Instant::now() < until, "the log was not opened: {:?}", self.heard().complaints);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until values are acknowledged beyond `acked`, or appends refused; gives both numbers. At most `at_most`.
    pub fn wait_beyond(&self, acked: u64, refused: u64, at_most: Duration) -> (u64, u64) {
        let until = Instant::now() + at_most;
        loop {
            let heard = self.heard();
            let now = (heard.checker.acked, heard.refused);
            drop(heard);
            if now.0 > acked || now.1 > refused || Instant::now() > until {
                return now;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// From now on answers do not count.
    pub fn cut(&self) {
        self.heard().cut = true;
    }

    /// The end, without warning.
    pub fn kill(mut self) {
        if let Ok(Some(status)) = self.child.try_wait()
            && !self.heard().cut
        {
            self.heard().complaints.push(format!("it ended by itself: {status}"));
        }
        self.kill_all();
        self.finish();
    }

    /// Waits for the process to end by itself; kills it after `at_most`. True if it ended by itself.
    pub fn wait(mut self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut ended = false;
        while !ended && Instant::now() < until {
            ended = self.child.try_wait().expect("a child of ours").is_some();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.kill_all();
        self.finish();
        ended
    }

    /// The process and what it started, or what started it: they are a group of their own.
    fn kill_all(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }

    fn finish(mut self) {
        self.child.wait().expect("a child of ours ends");
        self.listener.join().expect("the listener ends with the pipe");
        let mut said = String::new();
        let _ = self.child.stderr.take().expect("piped").read_to_string(&mut said);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.checker.take(&Event::Crash);
        if !heard.complaints.is_empty() && !said.is_empty() {
            heard.complaints.push(said);
        }
    }
}
