//! Was it a log? Takes what producers, readers and consumers saw, event by event, and names everything that no correct
//! log could have shown them. Time and memory are linear in the number of events.
//!
//! The events are in real-time order: one that ends before another begins comes before it. Every appended value is unique, so
//! a value says which append it comes from; a partition's offsets say the order of its records. No search is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// A partition: number of the topic, number of the partition.
pub type Place = (u32, u32);

/// A record as an acknowledgement or a reader shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub offset: u64,
    pub position: u64,
    pub append_time: i64,
    /// Which value; `None` if the bytes are those of no value that anybody ever sent.
    pub value: Option<u64>,
}

/// One thing that somebody did or saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An append was asked for: unique values and where they are to go, all of them or none.
    Invoked { op: u64, records: Vec<(Place, u64)> },
    /// It was acknowledged; one entry for each of its records.
    Acked { op: u64, records: Vec<Seen> },
    /// It was answered: not written.
    Refused { op: u64 },
    /// A reader begins to read a partition at an offset.
    ReadBegins { reader: u64, place: Place, from: u64 },
    /// It was given the next record.
    Read { reader: u64, place: Place, seen: Seen },
    /// It was told that the partition ends before this offset.
    ReadEnds { reader: u64, place: Place, end: u64 },
    /// The durable end of the log was asked for and was this position.
    DurableEnd { position: u64 },
    /// A group asks to commit an offset.
    Commit { group: u64, place: Place, offset: u64 },
    /// That was acknowledged.
    CommitAcked { group: u64, place: Place, offset: u64 },
    /// The committed offset was asked for.
    Committed { group: u64, place: Place, offset: Option<u64> },
    /// The process or the machine died: whoever was at work saw nothing more.
    Crash,
    /// Since the last crash every partition has been read from the start to its end: what is not there now is not there.
    Settled,
}

/// What no correct log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Two different values at one offset.
    TwoValues,
    /// An acknowledged record is not there.
    AckedLost,
    /// A record that somebody has read is not there.
    ReadLost,
    /// One value at two offsets.
    Doubled,
    /// Two records at one position.
    PositionShared,
    /// A record stands before one that was acknowledged before it was sent.
    OutOfOrder,
    /// A reader passed over an offset.
    Gap,
    /// A reader was given an offset again, or a position that does not rise.
    Backwards,
    /// The durable end went back, or is not behind what was acknowledged.
    EndFell,
    /// A committed offset is smaller than the one last acknowledged, and nobody asked for that.
    CommitFell,
    /// A committed offset that nobody committed.
    CommitInvented,
    /// The append time falls along offsets, or in real time.
    TimeFell,
    /// A value that nobody sent.
    Invented,
    /// A value in a partition that it was not sent to.
    WrongPlace,
    /// A value whose append was answered "not written".
    RefusedThere,
    /// After a crash, some records of an append are there and others are not.
    HalfBatch,
    /// After a crash an append was not there; later it was.
    CameBack,
}

/// One violation, with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    pub kind: Kind,
    pub what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Asked for and not answered, or the answer was lost.
    Open,
    Acked,
    Refused,
    /// Found, whole, after a crash.
    Landed,
    /// Not found after a crash.
    Absent,
}

struct Op {
    records: Vec<(Place, u64)>,
    fate: Fate,
    /// For each record the end of its partition as far as it was acknowledged when the append was asked for.
    floors: Vec<u64>,
    /// The latest append time acknowledged when it was asked for.
    time_floor: i64,
}

#[derive(Default)]
struct Partition {
    by_offset: HashMap<u64, Seen>,
    acked_end: u64,
    read_end: u64,
}

struct Reading {
    next: u64,
    last: Option<Seen>,
    /// What must be there: ends known when the reading began.
    acked_end: u64,
    read_end: u64,
}

#[derive(Default)]
struct Group {
    acked: Option<u64>,
    asked: Vec<u64>,
}

/// Takes events; keeps what it needs to judge later ones.
#[derive(Default)]
pub struct Checker {
    ops: HashMap<u64, Op>,
    /// The append and the record in it that each value belongs to.
    senders: HashMap<u64, (u64, usize)>,
    homes: HashMap<u64, (Place, u64)>,
    positions: HashMap<u64, (Place, u64)>,
    partitions: BTreeMap<Place, Partition>,
    readings: HashMap<(u64, Place), Reading>,
    groups: BTreeMap<(u64, Place), Group>,
    open: BTreeSet<u64>,
    time_floor: Option<i64>,
    durable_end: u64,
    acked_positions: u64,
    /// Values acknowledged so far.
    pub acked: u64,
    /// Records handed to readers so far.
    pub read: u64,
    /// What was wrong, in the order in which it showed.
    pub anomalies: Vec<Anomaly>,
}

impl Checker {
    pub fn new() -> Checker {
        Checker::default()
    }

    fn wrong(&mut self, kind: Kind, what: String) {
        self.anomalies.push(Anomaly { kind, what });
    }

    /// Takes the next event.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Invoked { op, records } => self.invoked(*op, records),
            Event::Acked { op, records } => self.acknowledged(*op, records),
            Event::Refused { op } => self.refused(*op),
            Event::ReadBegins { reader, place, from } => {
                let partition = self.partitions.entry(*place).or_default();
                let (acked_end, read_end) = (partition.acked_end, partition.read_end);
                let reading = Reading { next: *from, last: None, acked_end, read_end };
                self.readings.insert((*reader, *place), reading);
            }
            Event::Read { reader, place, seen } => self.reads(*reader, *place, *seen),
            Event::ReadEnds { reader, place, end } => self.read_ends(*reader, *place, *end),
            Event::DurableEnd { position } => self.ends_at(*position),
            Event::Commit { group, place, offset } => {
                self.groups.entry((*group, *place)).or_default().asked.push(*offset);
            }
            Event::CommitAcked { group, place, offset } => {
                let group = self.groups.entry((*group, *place)).or_default();
                group.acked = Some(*offset);
                group.asked.retain(|asked| asked != offset);
            }
            Event::Committed { group, place, offset } => self.committed(*group, *place, *offset),
            Event::Crash => self.readings.clear(),
            Event::Settled => self.settle(),
        }
    }

    fn invoked(&mut self, op: u64, records: &[(Place, u64)]) {
        let end = |place: &Place| self.partitions.get(place).map_or(0, |partition| partition.acked_end);
        let floors = records.iter().map(|(place, _)| end(place)).collect();
        for (row, (_, value)) in records.iter().enumerate() {
            self.senders.insert(*value, (op, row));
        }
        let time_floor = self.time_floor.unwrap_or(i64::MIN);
        self.ops.insert(op, Op { records: records.to_vec(), fate: Fate::Open, floors, time_floor });
        self.open.insert(op);
    }

    fn acknowledged(&mut self, op: u64, seen: &[Seen]) {
        let Some(sent) = self.ops.get_mut(&op) else {
            return self.wrong(Kind::Invented, format!("append {op} was acknowledged and never asked for"));
        };
        sent.fate = Fate::Acked;
        let places: Vec<Place> = sent.records.iter().map(|(place, _)| *place).collect();
        self.open.remove(&op);
        for (place, seen) in places.into_iter().zip(seen) {
            self.observe(place, *seen);
            let partition = self.partitions.entry(place).or_default();
            partition.acked_end = partition.acked_end.max(seen.offset + 1);
            self.time_floor = self.time_floor.max(Some(seen.append_time));
            self.acked_positions = self.acked_positions.max(seen.position + 1);
            self.acked += 1;
        }
    }

    fn refused(&mut self, op: u64) {
        let Some(sent) = self.ops.get_mut(&op) else { return };
        sent.fate = Fate::Refused;
        let values: Vec<u64> = sent.records.iter().map(|(_, value)| *value).collect();
        self.open.remove(&op);
        for value in values {
            if let Some(home) = self.homes.get(&value) {
                let what = format!("value {value} at {home:?} was answered \"not written\"");
                self.wrong(Kind::RefusedThere, what);
            }
        }
    }

    /// Compares a record, acknowledged or read, with everything known of its offset, its position and its value.
    fn observe(&mut self, place: Place, seen: Seen) {
        let Seen { offset, position, append_time, value } = seen;
        let known = self.partitions.entry(place).or_default().by_offset.insert(offset, seen);
        match known {
            Some(known) if known.value != value => {
                let what = format!("{place:?} offset {offset}: {:?} and {value:?}", known.value);
                return self.wrong(Kind::TwoValues, what);
            }
            Some(known) if known.append_time != append_time => {
                let what = format!("{place:?} offset {offset}: append time {} and {append_time}", known.append_time);
                return self.wrong(Kind::TimeFell, what);
            }
            Some(known) if known.position != position => {
                let what = format!("{place:?} offset {offset}: positions {} and {position}", known.position);
                return self.wrong(Kind::PositionShared, what);
            }
            Some(_) => return,
            None => {}
        }
        if let Some(other) = self.positions.insert(position, (place, offset)) {
            self.wrong(Kind::PositionShared, format!("{place:?} offset {offset} and {other:?} at position {position}"));
        }
        let Some((value, (op, row))) = value.and_then(|value| Some((value, *self.senders.get(&value)?))) else {
            return self.wrong(Kind::Invented, format!("{place:?} offset {offset}: {value:?} was never sent"));
        };
        if let Some(first) = self.homes.insert(value, (place, offset)) {
            self.wrong(Kind::Doubled, format!("value {value} at {first:?} and {:?}", (place, offset)));
        }
        self.judge_sender(op, row, place, seen);
    }

    /// A value's first appearance, against its append.
    fn judge_sender(&mut self, op: u64, row: usize, place: Place, seen: Seen) {
        let Some(sent) = self.ops.get(&op) else { return };
        let (asked, value) = sent.records[row];
        let (floor, time_floor, fate) = (sent.floors[row], sent.time_floor, sent.fate);
        if asked != place {
            self.wrong(Kind::WrongPlace, format!("value {value} was sent to {asked:?} and is in {place:?}"));
        } else if seen.offset < floor {
            let what = format!("{place:?} offset {} was sent after offset {} was acknowledged", seen.offset, floor - 1);
            self.wrong(Kind::OutOfOrder, what);
        }
        if seen.append_time < time_floor {
            let what = format!("{place:?} offset {}: {} after {time_floor}", seen.offset, seen.append_time);
            self.wrong(Kind::TimeFell, what);
        }
        match fate {
            Fate::Refused => self.wrong(Kind::RefusedThere, format!("value {value} was answered \"not written\"")),
            Fate::Absent => self.wrong(Kind::CameBack, format!("value {value} was not there after a crash")),
            Fate::Open | Fate::Acked | Fate::Landed => {}
        }
    }

    fn reads(&mut self, reader: u64, place: Place, seen: Seen) {
        self.read += 1;
        self.observe(place, seen);
        let partition = self.partitions.entry(place).or_default();
        partition.read_end = partition.read_end.max(seen.offset + 1);
        let Some(reading) = self.readings.get_mut(&(reader, place)) else { return };
        let (expected, last) = (reading.next, reading.last.replace(seen));
        reading.next = seen.offset + 1;
        if seen.offset > expected {
            self.wrong(Kind::Gap, format!("{place:?}: offset {} where {expected} should be", seen.offset));
        }
        if seen.offset < expected || last.is_some_and(|last| last.position >= seen.position) {
            self.wrong(Kind::Backwards, format!("{place:?}: {seen:?} after {last:?}"));
        }
        if let Some(last) = last.filter(|last| last.append_time > seen.append_time) {
            let what = format!("{place:?} offset {}: {} after {}", seen.offset, seen.append_time, last.append_time);
            self.wrong(Kind::TimeFell, what);
        }
    }

    fn read_ends(&mut self, reader: u64, place: Place, end: u64) {
        let Some(reading) = self.readings.remove(&(reader, place)) else { return };
        let Reading { next, acked_end, read_end, .. } = reading;
        if next != end {
            self.wrong(Kind::Gap, format!("{place:?}: read up to offset {next}, the end is {end}"));
        }
        let end = end.max(next);
        if end < acked_end {
            let what = format!("{place:?} ends at {end}: offsets to {} were acknowledged", acked_end - 1);
            self.wrong(Kind::AckedLost, what);
        }
        if end < read_end {
            self.wrong(Kind::ReadLost, format!("{place:?} ends at {end}: offsets to {} were read", read_end - 1));
        }
    }

    fn ends_at(&mut self, position: u64) {
        let floor = self.durable_end.max(self.acked_positions);
        if position < floor {
            self.wrong(Kind::EndFell, format!("the durable end is {position} after {floor}"));
        }
        self.durable_end = floor.max(position);
    }

    fn committed(&mut self, number: u64, place: Place, offset: Option<u64>) {
        let group = self.groups.entry((number, place)).or_default();
        let acked = group.acked;
        let asked = offset.is_some_and(|offset| group.asked.contains(&offset));
        if asked || offset == acked {
            (group.acked, group.asked) = (offset, Vec::new());
            return;
        }
        let kind = if offset < acked { Kind::CommitFell } else { Kind::CommitInvented };
        self.wrong(kind, format!("group {number} {place:?}: {offset:?} is committed, {acked:?} was acknowledged"));
    }

    /// Decides the appends that a crash left open.
    fn settle(&mut self) {
        for op in std::mem::take(&mut self.open) {
            let Some(sent) = self.ops.get_mut(&op) else { continue };
            let there = sent.records.iter().filter(|(_, value)| self.homes.contains_key(value)).count();
            sent.fate = if there > 0 { Fate::Landed } else { Fate::Absent };
            let all = sent.records.len();
            if there > 0 && there < all {
                self.wrong(Kind::HalfBatch, format!("of the {all} records of append {op} {there} are there"));
            }
        }
    }
}
