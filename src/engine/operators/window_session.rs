//! Session windows: per key the sessions by start, one accumulator slot for each.
//!
//! A record joins the sessions of its key that have not expired at the watermark before it; it is late only if, after joining, its
//! window has expired. Sessions that the watermark has closed are emitted before a record changes them, at the end of the batch at
//! the latest. A session that was emitted and then becomes another window is taken back, with the values that it had. Slots are used again.
//!
//! What has no room in memory goes to disk, all sessions of a key together, and comes back before a row of the key is added, or one of them
//! closes or expires.

mod saved;

use super::parking::Parks;
use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Operation, Pane};
use crate::error::Result;
use crate::state::accumulator::{Accumulator, build};
use crate::state::dictionary::Dictionary;
use crate::state::parked::Parked;
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::{Keyed, Section};
use crate::state::spill::Spill;
use crate::window::Window;
use crate::window::session::{alone, cover, joined};
use arrow::array::RecordBatch;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    window: Window,
    slot: u32,
    /// Number of its next result.
    revision: u32,
    /// Its window stands in the output.
    is_shown: bool,
    /// It was emitted because the watermark reached its end.
    is_closed: bool,
    /// It has rows since it was emitted last.
    is_changed: bool,
}

/// When to look at a session again: not before the watermark reaches its end as it was when this was written. End, key, slot.
type Alarm = Reverse<(i64, u32, u32)>;

/// The sessions of one aggregation.
pub(in crate::engine) struct SessionWindows {
    gap: i64,
    spec: WindowSpec,
    keys: Dictionary,
    /// By key, then by start (and end).
    sessions: Vec<Vec<Session>>,
    accumulators: Vec<Box<dyn Accumulator>>,
    table: Arc<Keyed>,
    /// By key.
    saving: Option<Saving>,
    slots: u32,
    free: Vec<u32>,
    due: BinaryHeap<Alarm>,
    /// Sessions that stay for records within the allowed lateness.
    expiry: BinaryHeap<Alarm>,
    /// Sessions with changes that the next tick shows: key, slot.
    changed: Vec<(u32, u32)>,
    /// Keys that are on disk, by the watermark that closes or drops their first session.
    parked: Parked,
}

/// Rows that have a slot but are not yet added.
#[derive(Default)]
struct Pending {
    slots: Vec<u32>,
    rows: Vec<u32>,
}

/// A result on its way: key, session, firing, cause and the watermark before it.
type Showing = (u32, Session, Firing, (Cause, i64));

impl SessionWindows {
    pub fn new(gap: i64, spec: WindowSpec) -> Result<SessionWindows> {
        let accumulators = spec.aggregates.iter().map(build).collect::<Result<_>>()?;
        let table = Arc::new(spec.table(&saved::columns())?);
        Ok(SessionWindows {
            gap,
            keys: Dictionary::new(&spec.codec),
            parked: Parked::new(table.schema()),
            table,
            spec,
            sessions: Vec::new(),
            accumulators,
            saving: None,
            slots: 0,
            free: Vec::new(),
            due: BinaryHeap::new(),
            expiry: BinaryHeap::new(),
            changed: Vec::new(),
        })
    }

    fn flush(&mut self, rows: &WindowRows, pending: &mut Pending) {
        for accumulator in &mut self.accumulators {
            accumulator.grow(self.slots as usize);
        }
        rows.arguments.update(&mut self.accumulators, &pending.slots, &pending.rows);
        pending.slots.clear();
        pending.rows.clear();
    }

    fn new_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Lets go of a session that has left its key's list.
    fn release(&mut self, key: u32, slot: u32) {
        for accumulator in &mut self.accumulators {
            accumulator.reset(slot);
        }
        self.free.push(slot);
        self.keys.release(key);
    }

    /// Adds a row to its session, which starts, grows or joins others. What that takes back or shows again is emitted.
    fn add(
        &mut self,
        (rows, row, key): (&WindowRows, u32, u32),
        pending: &mut Pending,
        course: &Course<'_>,
        fired: &mut Fired,
    ) -> Result<()> {
        let Some(record) = alone(rows.times[row as usize], self.gap) else {
            fired.beyond_time.push(row);
            return Ok(());
        };
        let watermark = rows.before[row as usize];
        let (closed, expired) = (self.spec.clock.horizon(watermark), self.spec.expired(watermark));
        let find = |this: &Self| {
            joined(this.sessions[key as usize].iter().map(|s| s.window), record, expired.saturating_sub(1))
        };
        let mut range = find(self);
        if range.is_empty() && record.end <= expired {
            fired.late.push(row);
            return Ok(());
        }
        let waits = |session: &Session| !session.is_closed && session.window.end <= closed;
        if self.sessions[key as usize][range.clone()].iter().any(waits) {
            self.flush(rows, pending);
            while self.close(watermark, course, fired)? {}
            range = find(self);
        }
        let by = ((course.of_row)(row), watermark);
        let place = range.start;
        self.join(key, range, record, (rows, pending), by, fired)?;
        let session = self.sessions[key as usize][place];
        pending.slots.push(session.slot);
        pending.rows.push(row);
        if session.window.end <= closed {
            self.flush(rows, pending);
            let operation = if session.is_shown { Operation::Update } else { Operation::Insert };
            let firing = Firing { revision: session.revision, pane: Pane::Late, operation, reason: None };
            self.emit(vec![(key, session, firing, by)], fired)?;
            let session = &mut self.sessions[key as usize][place];
            (session.revision, session.is_shown, session.is_closed) = (session.revision + 1, true, true);
            self.expiry.push(Reverse((session.window.end, key, session.slot)));
        } else if self.spec.early && !session.is_changed {
            self.sessions[key as usize][place].is_changed = true;
            self.changed.push((key, session.slot));
        }
        Ok(())
    }

    /// Makes one session of those in `range` and the record's own window. Those that were shown and become another one are taken back.
    fn join(
        &mut self,
        key: u32,
        range: std::ops::Range<usize>,
        record: Window,
        (rows, pending): (&WindowRows, &mut Pending),
        by: (Cause, i64),
        fired: &mut Fired,
    ) -> Result<()> {
        let list = &mut self.sessions[key as usize];
        if range.is_empty() {
            let slot = self.new_slot();
            let session =
                Session { window: record, slot, revision: 0, is_shown: false, is_closed: false, is_changed: false };
            self.sessions[key as usize].insert(range.start, session);
            self.keys.hold(key);
            self.due.push(Reverse((record.end, key, slot)));
            return Ok(());
        }
        let window = list[range.clone()].iter().fold(record, |window, session| cover(window, session.window));
        let first = &mut list[range.start];
        if range.len() == 1 && first.window == window {
            return Ok(());
        }
        let shown: Vec<Session> = list[range.clone()].iter().filter(|session| session.is_shown).copied().collect();
        if !shown.is_empty() || range.len() > 1 {
            self.flush(rows, pending);
        }
        let taken_back = shown.into_iter().map(|session| {
            let revision = session.revision - 1;
            let firing = Firing { revision, pane: Pane::Late, operation: Operation::Delete, reason: None };
            (key, session, firing, by)
        });
        self.emit(taken_back.collect(), fired)?;
        let list = &mut self.sessions[key as usize];
        let revision = list[range.clone()].iter().map(|session| session.revision).max().unwrap_or(0);
        let changed = list[range.clone()].iter().any(|session| session.is_changed);
        let others: Vec<Session> = list.drain(range.start + 1..range.end).collect();
        let first = &mut list[range.start];
        let (slot, was_closed, was_changed) = (first.slot, first.is_closed, first.is_changed);
        *first = Session { window, slot, revision, is_shown: false, is_closed: false, is_changed: changed };
        if changed && !was_changed {
            self.changed.push((key, slot));
        }
        // An open session is looked at when its end was due before: then it is said when to look again.
        if was_closed {
            self.due.push(Reverse((window.end, key, slot)));
        }
        for other in others {
            self.accumulators.iter_mut().for_each(|accumulator| accumulator.fold(other.slot, slot));
            self.release(key, other.slot);
        }
        Ok(())
    }

    /// Keys and slots whose time in a heap has come, earliest first; they may change now.
    fn pop_due(&mut self, until: i64, heap: fn(&mut Self) -> &mut BinaryHeap<Alarm>) -> Vec<(u32, u32)> {
        let mut due = Vec::new();
        while let Some(Reverse((end, key, slot))) = heap(self).peek().copied()
            && end <= until
        {
            heap(self).pop();
            due.push((key, slot));
        }
        self.give_keys(&due);
        due
    }

    /// Gives what is to be saved of keys, named with a slot, that are about to change.
    fn give_keys(&mut self, changing: &[(u32, u32)]) {
        if self.saving.is_some() {
            let keys: Vec<u32> = changing.iter().map(|(key, _)| *key).collect();
            self.give(Due::Changes(&keys));
        }
    }

    /// Sessions that close at `watermark`, which are not closed yet.
    fn take_closed(&mut self, watermark: i64, course: &Course<'_>) -> Vec<Showing> {
        let horizon = self.spec.clock.horizon(watermark);
        let mut results = Vec::new();
        for (key, slot) in self.pop_due(horizon, |this| &mut this.due) {
            let sessions = &mut self.sessions[key as usize];
            // None: the session was joined to another one, which has an entry of its own, or is gone.
            let Some(session) = sessions.iter_mut().find(|session| session.slot == slot && !session.is_closed) else {
                continue;
            };
            if session.window.end > horizon {
                self.due.push(Reverse((session.window.end, key, slot)));
                continue;
            }
            let operation = if session.is_shown { Operation::Update } else { Operation::Insert };
            let firing = Firing { revision: session.revision, pane: Pane::OnTime, operation, reason: None };
            let goal = self.spec.clock.goal(session.window.end);
            (session.is_closed, session.is_shown, session.is_changed) = (true, true, false);
            session.revision += 1;
            results.push((key, *session, firing, (course.reached)(goal)));
        }
        results
    }

    /// Adds results in output order.
    fn emit(&mut self, mut results: Vec<Showing>, fired: &mut Fired) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        let rank = |(_, session, _, by): &Showing| (by.0, session.window.end, session.window.start);
        let keys = &self.keys;
        results.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| keys.compare(a.0, b.0)));
        let slots: Vec<u32> = results.iter().map(|(_, session, ..)| session.slot).collect();
        let mut columns = self.spec.codec.decode(results.iter().map(|(key, ..)| keys.key(*key)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(&slots)?);
        }
        fired.rows(results.iter().map(|(_, session, firing, by)| (session.window, *by, *firing)), columns);
        Ok(())
    }

    /// Drops sessions that have expired.
    fn expire(&mut self, watermark: i64) {
        let expired = self.spec.expired(watermark);
        for (key, slot) in self.pop_due(expired, |this| &mut this.expiry) {
            let sessions = &mut self.sessions[key as usize];
            let place = sessions.iter().position(|s| s.slot == slot && s.is_closed && s.window.end <= expired);
            if let Some(place) = place {
                sessions.remove(place);
                self.release(key, slot);
            }
        }
    }
}

impl WindowOperator for SessionWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let keys = self.hold(&rows.keys, picked)?;
        let mut pending = Pending::default();
        for (row, key) in picked.iter().zip(&keys) {
            self.add((rows, *row, *key), &mut pending, course, fired)?;
        }
        self.flush(rows, &mut pending);
        self.let_go(&keys);
        Ok(())
    }

    fn close(&mut self, goal: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        let watermark = self.fetch_due(goal)?;
        let results = self.take_closed(watermark, course);
        fired.closed += results.len() as u64;
        let closed: Vec<(u32, Session)> = results.iter().map(|(key, session, ..)| (*key, *session)).collect();
        self.emit(results, fired)?;
        for (key, session) in closed {
            match self.spec.lateness_ms {
                0 => {
                    self.sessions[key as usize].retain(|other| other.slot != session.slot);
                    self.release(key, session.slot);
                }
                _ => self.expiry.push(Reverse((session.window.end, key, session.slot))),
            }
        }
        self.expire(watermark);
        Ok(watermark < goal)
    }

    fn tick(&mut self, by: (Cause, i64), fired: &mut Fired) -> Result<()> {
        let mut results = Vec::new();
        let changed = std::mem::take(&mut self.changed);
        self.give_keys(&changed);
        for (key, slot) in changed {
            let mut sessions = self.sessions[key as usize].iter_mut();
            let Some(session) = sessions.find(|session| session.slot == slot && session.is_changed) else { continue };
            session.is_changed = false;
            let operation = if session.is_shown { Operation::Update } else { Operation::Insert };
            let firing = Firing { revision: session.revision, pane: Pane::Early, operation, reason: None };
            session.revision += 1;
            session.is_shown = true;
            results.push((key, *session, firing, by));
        }
        self.emit(results, fired)
    }

    fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn next_goal(&self) -> Option<i64> {
        let goal = self.due.peek().map(|Reverse((end, _, _))| self.spec.clock.goal(*end));
        goal.into_iter().chain(self.parked.next_due()).min()
    }

    fn windows_of(&self, rows: &WindowRows, row: usize) -> Vec<Window> {
        alone(rows.times[row], self.gap).into_iter().collect()
    }

    fn byte_len(&self) -> usize {
        self.bytes_in_memory() + self.parked.byte_len()
    }

    fn spill(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        self.park(spill, bytes, least)
    }

    fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        Ok(vec![self.section(saved::SESSIONS, relay)])
    }

    fn save_next(&mut self, ahead: usize) -> Step {
        self.give(Due::Next { ahead })
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        self.load_section(name, rows)
    }
}
