//! Session windows: per key the sessions by start, one accumulator slot for each.
//!
//! A record joins the sessions of its key that have not expired at the watermark before it; it is late only if, after joining, its
//! window has expired. Sessions that the watermark has closed are emitted before a record changes them, at the end of the batch at
//! the latest. A session that was emitted and then becomes another window is taken back, with the values that it had. Slots are used again.
//!
//! What has no room in memory goes to disk, all sessions of a key together, and comes back before a row of the key is added, or one of them
//! closes or expires.

mod saved;

use super::keyed_state::{Alarms, KeyedState, Showing};
use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Operation, Pane};
use crate::error::Result;
use crate::state::saving::{Due, Relay, Step};
use crate::state::section::Section;
use crate::state::spill::Spill;
use crate::window::Window;
use crate::window::session::{alone, cover, joined};
use arrow::array::RecordBatch;
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

impl Session {
    /// Its next result.
    fn fire(&mut self, pane: Pane) -> Firing {
        let operation = if self.is_shown { Operation::Update } else { Operation::Insert };
        let firing = Firing { revision: self.revision, pane, operation, reason: None };
        (self.revision, self.is_shown) = (self.revision + 1, true);
        firing
    }
}

/// When to look at which session again: by its end as it was when that was written.
#[derive(Default)]
pub(super) struct Agenda {
    due: Alarms,
    /// Sessions that stay for records within the allowed lateness.
    expiry: Alarms,
    /// Sessions with changes that the next tick shows: key, slot.
    changed: Vec<(u32, u32)>,
}

/// The sessions of one aggregation.
pub(in crate::engine) struct SessionWindows {
    gap: i64,
    state: KeyedState<Session>,
}

/// Rows that have a slot but are not yet added.
#[derive(Default)]
struct Pending {
    slots: Vec<u32>,
    rows: Vec<u32>,
}

impl SessionWindows {
    pub fn new(gap: i64, spec: WindowSpec) -> Result<SessionWindows> {
        Ok(SessionWindows { gap, state: KeyedState::new(spec)? })
    }

    fn flush(&mut self, rows: &WindowRows, pending: &mut Pending) {
        self.state.add(rows, &pending.slots, &pending.rows);
        pending.slots.clear();
        pending.rows.clear();
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
        let (closed, expired) = (self.state.spec.clock.horizon(watermark), self.state.spec.expired(watermark));
        let find = |this: &Self| {
            joined(this.state.kept[key as usize].iter().map(|s| s.window), record, expired.saturating_sub(1))
        };
        let mut range = find(self);
        if range.is_empty() && record.end <= expired {
            fired.late.push(row);
            return Ok(());
        }
        let waits = |session: &Session| !session.is_closed && session.window.end <= closed;
        if self.state.kept[key as usize][range.clone()].iter().any(waits) {
            self.flush(rows, pending);
            while self.close(watermark, course, fired)? {}
            range = find(self);
        }
        let by = || ((course.of_row)(row), watermark);
        let place = range.start;
        self.join(key, range, record, (rows, pending), by, fired)?;
        let session = self.state.kept[key as usize][place];
        pending.slots.push(session.slot);
        pending.rows.push(row);
        if session.window.end <= closed {
            self.flush(rows, pending);
            let session = &mut self.state.kept[key as usize][place];
            session.is_closed = true;
            let mut results = [(key, *session, session.fire(Pane::Late), by())];
            self.state.agenda.expiry.set(session.window.end, key, session.slot);
            self.state.emit(&mut results, fired)?;
        } else if self.state.spec.early && !session.is_changed {
            self.state.kept[key as usize][place].is_changed = true;
            self.state.agenda.changed.push((key, session.slot));
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
        by: impl Fn() -> (Cause, i64),
        fired: &mut Fired,
    ) -> Result<()> {
        if range.is_empty() {
            let slot = self.state.start(key);
            let session =
                Session { window: record, slot, revision: 0, is_shown: false, is_closed: false, is_changed: false };
            self.state.kept[key as usize].insert(range.start, session);
            self.state.agenda.due.set(record.end, key, slot);
            return Ok(());
        }
        let list = &mut self.state.kept[key as usize];
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
            (key, session, firing, by())
        });
        self.state.emit(&mut taken_back.collect::<Vec<_>>(), fired)?;
        let list = &mut self.state.kept[key as usize];
        let revision = list[range.clone()].iter().map(|session| session.revision).max().unwrap_or(0);
        let changed = list[range.clone()].iter().any(|session| session.is_changed);
        let others: Vec<Session> = list.drain(range.start + 1..range.end).collect();
        let first = &mut list[range.start];
        let (slot, was_closed, was_changed) = (first.slot, first.is_closed, first.is_changed);
        *first = Session { window, slot, revision, is_shown: false, is_closed: false, is_changed: changed };
        if changed && !was_changed {
            self.state.agenda.changed.push((key, slot));
        }
        // An open session is looked at when its end was due before: then it is said when to look again.
        if was_closed {
            self.state.agenda.due.set(window.end, key, slot);
        }
        for other in others {
            self.state.accumulators.iter_mut().for_each(|accumulator| accumulator.fold(other.slot, slot));
            self.state.release(key, other.slot);
        }
        Ok(())
    }

    /// Sessions that close at `watermark`, which are not closed yet.
    fn take_closed(&mut self, watermark: i64, course: &Course<'_>) -> Vec<Showing<Session>> {
        let clock = self.state.spec.clock;
        let horizon = clock.horizon(watermark);
        let due = self.state.agenda.due.take_due(horizon);
        self.state.give_keys(due.iter().map(|(_, key, _)| *key));
        let mut results = Vec::new();
        for (_, key, slot) in due {
            let sessions = &mut self.state.kept[key as usize];
            // None: the session was joined to another one, which has an entry of its own, or is gone.
            let Some(session) = sessions.iter_mut().find(|session| session.slot == slot && !session.is_closed) else {
                continue;
            };
            if session.window.end > horizon {
                self.state.agenda.due.set(session.window.end, key, slot);
                continue;
            }
            (session.is_closed, session.is_changed) = (true, false);
            let firing = session.fire(Pane::OnTime);
            results.push((key, *session, firing, (course.reached)(clock.goal(session.window.end))));
        }
        results
    }

    /// Drops sessions that have expired.
    fn expire(&mut self, watermark: i64) {
        let expired = self.state.spec.expired(watermark);
        let due = self.state.agenda.expiry.take_due(expired);
        self.state.give_keys(due.iter().map(|(_, key, _)| *key));
        for (_, key, slot) in due {
            let sessions = &mut self.state.kept[key as usize];
            let place = sessions.iter().position(|s| s.slot == slot && s.is_closed && s.window.end <= expired);
            if let Some(place) = place {
                sessions.remove(place);
                self.state.release(key, slot);
            }
        }
    }
}

impl WindowOperator for SessionWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let keys = self.state.hold(&rows.keys, picked)?;
        let mut pending = Pending::default();
        for (row, key) in picked.iter().zip(&keys) {
            self.add((rows, *row, *key), &mut pending, course, fired)?;
        }
        self.flush(rows, &mut pending);
        self.state.let_go(&keys);
        Ok(())
    }

    fn close(&mut self, goal: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        let watermark = self.state.fetch_due(goal)?;
        let mut results = self.take_closed(watermark, course);
        fired.closed += results.len() as u64;
        self.state.emit(&mut results, fired)?;
        for (key, session, ..) in results {
            match self.state.spec.lateness_ms {
                0 => {
                    self.state.kept[key as usize].retain(|other| other.slot != session.slot);
                    self.state.release(key, session.slot);
                }
                _ => self.state.agenda.expiry.set(session.window.end, key, session.slot),
            }
        }
        self.expire(watermark);
        Ok(watermark < goal)
    }

    fn tick(&mut self, by: (Cause, i64), fired: &mut Fired) -> Result<()> {
        let mut results = Vec::new();
        let changed = std::mem::take(&mut self.state.agenda.changed);
        self.state.give_keys(changed.iter().map(|(key, _)| *key));
        for (key, slot) in changed {
            let mut sessions = self.state.kept[key as usize].iter_mut();
            let Some(session) = sessions.find(|session| session.slot == slot && session.is_changed) else { continue };
            session.is_changed = false;
            let firing = session.fire(Pane::Early);
            results.push((key, *session, firing, by));
        }
        self.state.emit(&mut results, fired)
    }

    fn has_changed(&self) -> bool {
        !self.state.agenda.changed.is_empty()
    }

    fn next_goal(&self) -> Option<i64> {
        let goal = self.state.agenda.due.first().map(|(end, ..)| self.state.spec.clock.goal(end));
        goal.into_iter().chain(self.state.parked.next_due()).min()
    }

    fn windows_of(&self, rows: &WindowRows, row: usize) -> Vec<Window> {
        alone(rows.times[row], self.gap).into_iter().collect()
    }

    fn byte_len(&self) -> usize {
        self.state.byte_len()
    }

    fn spill(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        self.state.park(spill, bytes, least)
    }

    fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        Ok(vec![self.state.section(relay)])
    }

    fn save_next(&mut self, ahead: usize) -> Step {
        self.state.give(Due::Next { ahead })
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        self.state.load(name, rows)
    }
}
