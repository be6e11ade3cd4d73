//! The checker checked: it has nothing to say about histories of a correct log, and names each bug that is planted in one.

use crate::checker::{Checker, Event, Kind, Place, Seen};
use crate::dice::{Dice, rounds};
use crate::util::tell;
use std::collections::BTreeMap;

const PLACES: [Place; 5] = [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0)];

struct Sent {
    op: u64,
    records: Vec<(Place, u64)>,
    /// Written, the acknowledgement still on its way.
    written: Option<Vec<Seen>>,
}

/// A log in memory with several producers, readers and a group: correct but for one planted bug.
struct Model {
    dice: Dice,
    bug: Option<Kind>,
    planted: bool,
    log: BTreeMap<Place, Vec<Seen>>,
    position: u64,
    time: i64,
    next_op: u64,
    next_value: u64,
    sent: Vec<Sent>,
    absent: Vec<Sent>,
    commits: BTreeMap<Place, Vec<u64>>,
    events: Vec<Event>,
}

impl Model {
    fn new(seed: u64, bug: Option<Kind>) -> Model {
        Model {
            dice: Dice::new(seed),
            bug,
            planted: false,
            log: PLACES.iter().map(|place| (*place, Vec::new())).collect(),
            position: 0,
            time: 0,
            next_op: 0,
            next_value: 0,
            sent: Vec::new(),
            absent: Vec::new(),
            commits: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// True once, in the second half of the history, where the bug `kind` is possible.
    fn plants(&mut self, kind: Kind) -> bool {
        let now = self.bug == Some(kind) && !self.planted;
        self.planted |= now;
        now
    }

    fn place(&mut self) -> Place {
        PLACES[self.dice.below(PLACES.len() as u64) as usize]
    }

    fn invoke(&mut self) {
        let mut records = Vec::new();
        for _ in 0..1 + self.dice.below(4) {
            self.next_value += 1;
            records.push((self.place(), self.next_value));
        }
        self.next_op += 1;
        self.events.push(Event::Invoked { op: self.next_op, records: records.clone() });
        self.sent.push(Sent { op: self.next_op, records, written: None });
    }

    fn append(&mut self, place: Place, value: u64) -> Seen {
        let mut append_time = self.time;
        if self.position > 0 && self.plants(Kind::TimeFell) {
            append_time -= 1_000_000;
        }
        let offset = self.log[&place].len() as u64;
        let seen = Seen { offset, position: self.position, append_time, value: Some(value) };
        self.log.get_mut(&place).expect("a known place").push(seen);
        if !self.plants(Kind::PositionShared) {
            self.position += 1;
        }
        seen
    }

    /// Writes the oldest append that is not written.
    fn write(&mut self) {
        let Some(at) = self.sent.iter().position(|sent| sent.written.is_none()) else { return };
        self.time += self.dice.below(3) as i64;
        let records = self.sent[at].records.clone();
        let mut written = Vec::new();
        for (place, value) in &records {
            let other = PLACES[usize::from(*place == PLACES[0])];
            let place = if self.plants(Kind::WrongPlace) { other } else { *place };
            written.push(self.append(place, *value));
        }
        if self.plants(Kind::Doubled) {
            self.append(records[0].0, records[0].1);
        }
        self.sent[at].written = Some(written);
        if self.plants(Kind::RefusedThere) {
            let refused = self.sent.remove(at);
            self.events.push(Event::Refused { op: refused.op });
        }
    }

    fn acknowledge(&mut self) {
        let written: Vec<usize> = (0..self.sent.len()).filter(|at| self.sent[*at].written.is_some()).collect();
        if written.is_empty() {
            return;
        }
        let sent = self.sent.remove(written[self.dice.below(written.len() as u64) as usize]);
        self.events.push(Event::Acked { op: sent.op, records: sent.written.expect("just looked") });
        self.events.push(Event::DurableEnd { position: self.position });
        if self.position > 10 && self.plants(Kind::EndFell) {
            self.events.push(Event::DurableEnd { position: self.position - 10 });
        }
    }

    /// A producer that waited for the first acknowledgement before it sent the second, and got a place before it.
    fn out_of_order(&mut self) {
        let place = self.place();
        let end = self.log[&place].len() as u64;
        for (offset, position) in [(end + 1, self.position + 1), (end, self.position)] {
            (self.next_op, self.next_value) = (self.next_op + 1, self.next_value + 1);
            let (op, value) = (self.next_op, self.next_value);
            self.events.push(Event::Invoked { op, records: vec![(place, value)] });
            let seen = Seen { offset, position, append_time: self.time, value: Some(value) };
            self.events.push(Event::Acked { op, records: vec![seen] });
            self.log.get_mut(&place).expect("a known place").insert(end as usize, seen);
        }
        self.position += 2;
    }

    fn read(&mut self, place: Place, from: u64) {
        let reader = self.dice.below(1 << 40);
        let mut rows = self.log[&place][from as usize..].to_vec();
        self.events.push(Event::ReadBegins { reader, place, from });
        if rows.len() > 2 {
            if self.plants(Kind::Gap) {
                rows.remove(1);
            }
            if self.plants(Kind::Backwards) {
                rows.insert(1, rows[0]);
            }
            if self.plants(Kind::Invented) {
                rows[1].value = None;
                rows[1].offset += 1 << 40;
            }
            if self.plants(Kind::TwoValues) {
                rows[0].value = rows[1].value;
            }
        }
        for seen in rows {
            self.events.push(Event::Read { reader, place, seen });
        }
        self.events.push(Event::ReadEnds { reader, place, end: self.log[&place].len() as u64 });
    }

    fn commit(&mut self) {
        let place = self.place();
        let (group, offset) = (1, self.log[&place].len() as u64);
        self.events.push(Event::Commit { group, place, offset });
        if self.dice.below(10) > 0 {
            self.events.push(Event::CommitAcked { group, place, offset });
            self.commits.entry(place).or_default().push(offset);
        }
        let acked = self.commits.get(&place).cloned().unwrap_or_default();
        let mut committed = acked.last().copied();
        if acked.first() < acked.last() && self.plants(Kind::CommitFell) {
            committed = acked.first().copied();
        }
        if self.plants(Kind::CommitInvented) {
            committed = Some(offset + 7);
        }
        self.events.push(Event::Committed { group, place, offset: committed });
    }

    /// Some reader sees a record that is then lost.
    fn read_and_lose(&mut self, sent: &Sent) {
        let (place, value) = sent.records[0];
        let reader = self.dice.below(1 << 40);
        let log = &self.log[&place];
        let seen =
            Seen { offset: log.len() as u64, position: self.position, append_time: self.time, value: Some(value) };
        self.events.push(Event::ReadBegins { reader, place, from: seen.offset });
        self.events.push(Event::Read { reader, place, seen });
    }

    /// Nothing more is acknowledged; of what was in flight a prefix is written; then everything is read.
    fn crash(&mut self) {
        for _ in 0..self.dice.below(4) {
            self.write();
        }
        let rest: Vec<Sent> = std::mem::take(&mut self.sent).into_iter().filter(|s| s.written.is_none()).collect();
        if let Some(first) = rest.first()
            && self.plants(Kind::ReadLost)
        {
            self.read_and_lose(first);
        }
        self.events.push(Event::Crash);
        if let Some(half) = rest.iter().find(|sent| sent.records.len() > 1)
            && self.plants(Kind::HalfBatch)
        {
            self.append(half.records[0].0, half.records[0].1);
        }
        if self.log[&PLACES[0]].len() > 1 && self.plants(Kind::AckedLost) {
            self.log.get_mut(&PLACES[0]).expect("a known place").truncate(1);
        }
        for place in PLACES {
            self.read(place, 0);
        }
        self.events.push(Event::Settled);
        self.events.push(Event::DurableEnd { position: self.position });
        self.absent.extend(rest);
    }

    fn step(&mut self, armed: bool) {
        self.planted = if armed { self.planted } else { true };
        match self.dice.below(40) {
            0..=9 => self.invoke(),
            10..=19 => self.write(),
            20..=32 => self.acknowledge(),
            33..=36 => {
                let place = self.place();
                let end = self.log[&place].len() as u64;
                let from = end.saturating_sub(self.dice.below(20));
                self.read(place, from);
            }
            37 | 38 => self.commit(),
            _ => {}
        }
        if self.plants(Kind::OutOfOrder) {
            self.out_of_order();
        }
        if !self.absent.is_empty() && self.plants(Kind::CameBack) {
            let (place, value) = self.absent[0].records[0];
            self.append(place, value);
        }
    }

    fn run(mut self, steps: u64) -> Vec<Event> {
        let half = steps / 2;
        for step in 0..steps {
            if step == half {
                self.planted = false;
            }
            self.step(step >= half);
            if step % (steps / 16) == 7 {
                self.crash();
            }
        }
        self.bug.inspect(|bug| assert!(self.planted, "no chance to plant {bug:?}"));
        self.crash();
        self.events
    }
}

fn check(events: &[Event]) -> Checker {
    let mut checker = Checker::new();
    events.iter().for_each(|event| checker.take(event));
    checker
}

#[test]
fn a_correct_log_shows_no_anomaly() {
    let steps = rounds("KAPPA_HISTORY_STEPS", 100_000);
    let events = Model::new(1, None).run(steps);
    let checker = check(&events);
    assert_eq!(checker.anomalies, []);
    assert!(checker.acked > steps / 4 && checker.read > steps / 4, "{} {}", checker.acked, checker.read);
    tell(&format!("histories: {} events of {steps} steps, seed 1: 0 anomalies", events.len()));
}

#[test]
fn each_planted_bug_is_named() {
    use Kind::*;
    let kinds = [
        TwoValues,
        AckedLost,
        ReadLost,
        Doubled,
        PositionShared,
        OutOfOrder,
        Gap,
        Backwards,
        EndFell,
        CommitFell,
        CommitInvented,
        TimeFell,
        Invented,
        WrongPlace,
        RefusedThere,
        HalfBatch,
        CameBack,
    ];
    for kind in kinds {
        for seed in 1..=5 {
            let checker = check(&Model::new(seed, Some(kind)).run(4_000));
            let named = checker.anomalies.iter().any(|anomaly| anomaly.kind == kind);
            assert!(named, "{kind:?}, seed {seed}: {:?}", checker.anomalies.iter().take(5).collect::<Vec<_>>());
        }
    }
    tell(&format!("bugs planted in histories: {} of {} named, 5 seeds each", kinds.len(), kinds.len()));
}
