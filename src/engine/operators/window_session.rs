//! Session windows: per key the open sessions by start, one accumulator slot for each.
//!
//! A record joins the sessions of its key that are open at the watermark before it; it is late only if, after joining, its window
//! has closed. Sessions that the watermark has closed stay in place untouched until they are emitted, at the end of the batch
//! at the latest. Slots are used again; keys without sessions are dropped once they outnumber the others.

use super::{CauseOf, Closed, Missed, Taken, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::Cause;
use crate::error::Result;
use crate::state::accumulator::{Accumulator, build};
use crate::state::keys::KeyTable;
use crate::window::Window;
use crate::window::session::{alone, cover, is_closed, joined};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Keys without sessions that are always tolerated.
const SPARE_KEYS: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Session {
    window: Window,
    slot: u32,
}

/// When to look at a session again: not before the watermark reaches its end as it was when this was written.
type Due = Reverse<(i64, u32, u32)>;

/// The open sessions of one aggregation.
pub(in crate::engine) struct SessionWindows {
    gap: i64,
    spec: WindowSpec,
    keys: KeyTable,
    /// By key, then by start (and end).
    sessions: Vec<Vec<Session>>,
    /// Keys with at least one session.
    live_keys: usize,
    accumulators: Vec<Box<dyn Accumulator>>,
    slots: u32,
    free: Vec<u32>,
    due: BinaryHeap<Due>,
}

/// Rows that have a slot but are not yet added.
#[derive(Default)]
struct Pending {
    slots: Vec<u32>,
    rows: Vec<u32>,
}

impl SessionWindows {
    pub fn new(gap: i64, spec: WindowSpec) -> Result<SessionWindows> {
        let accumulators = spec.aggregates.iter().map(build).collect::<Result<_>>()?;
        Ok(SessionWindows {
            gap,
            spec,
            keys: KeyTable::default(),
            sessions: Vec::new(),
            live_keys: 0,
            accumulators,
            slots: 0,
            free: Vec::new(),
            due: BinaryHeap::new(),
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

    fn release(&mut self, slot: u32) {
        for accumulator in &mut self.accumulators {
            accumulator.reset(slot);
        }
        self.free.push(slot);
    }

    /// The slot of a record's session, which starts, grows or joins others; `None`: the record is late.
    fn place(&mut self, key: u32, record: Window, before: i64, flush: &mut dyn FnMut(&mut Self)) -> Option<u32> {
        let range = joined(self.sessions[key as usize].iter().map(|s| s.window), record, before);
        if range.is_empty() {
            if is_closed(record, before) {
                return None;
            }
            let slot = self.new_slot();
            let sessions = &mut self.sessions[key as usize];
            self.live_keys += usize::from(sessions.is_empty());
            sessions.insert(range.start, Session { window: record, slot });
            self.due.push(Reverse((record.end, key, slot)));
            return Some(slot);
        }
        let others = range.start + 1..range.end;
        if !others.is_empty() {
            flush(self);
            let removed: Vec<Session> = self.sessions[key as usize].drain(others).collect();
            for other in removed {
                let first = &mut self.sessions[key as usize][range.start];
                first.window = cover(first.window, other.window);
                let into = first.slot;
                self.accumulators.iter_mut().for_each(|accumulator| accumulator.fold(other.slot, into));
                self.release(other.slot);
            }
        }
        let first = &mut self.sessions[key as usize][range.start];
        first.window = cover(first.window, record);
        Some(first.slot)
    }

    /// Takes all sessions that are closed at `watermark` off their keys.
    fn take_closed(&mut self, watermark: i64) -> Vec<(u32, Session)> {
        let mut taken = Vec::new();
        while let Some(Reverse((end, key, slot))) = self.due.peek().copied()
            && watermark >= end - 1
        {
            self.due.pop();
            let sessions = &mut self.sessions[key as usize];
            // None: the session was joined to another one, which has an entry of its own.
            let Some(place) = sessions.iter().position(|session| session.slot == slot) else { continue };
            if is_closed(sessions[place].window, watermark) {
                taken.push((key, sessions.remove(place)));
                self.live_keys -= usize::from(sessions.is_empty());
            } else {
                self.due.push(Reverse((sessions[place].window.end, key, slot)));
            }
        }
        taken
    }

    fn emit(&mut self, taken: Vec<(u32, Session)>, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let mut order: Vec<(Cause, i64, i64, u64, u32, u32)> = Vec::with_capacity(taken.len());
        for (key, Session { window, slot }) in taken {
            order.push((cause_of(window.end - 1), window.end, window.start, self.keys.hash(key), key, slot));
        }
        let rank = |row: &(Cause, i64, i64, u64, u32, u32)| (row.0, row.1, row.2, row.3);
        order.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| self.keys.key(a.4).cmp(self.keys.key(b.4))));
        let slots: Vec<u32> = order.iter().map(|row| row.5).collect();
        closed.causes.extend(order.iter().map(|row| row.0));
        closed.windows.extend(order.iter().map(|row| Window { start: row.2, end: row.1 }));
        closed.keys.push(self.spec.codec.decode(order.iter().map(|row| self.keys.key(row.4)))?);
        let results = self.accumulators.iter().map(|accumulator| accumulator.results(&slots));
        closed.results.push(results.collect::<Result<_>>()?);
        closed.count += order.len() as u64;
        slots.into_iter().for_each(|slot| self.release(slot));
        Ok(())
    }

    /// Drops keys without sessions when most are.
    fn compact(&mut self) {
        if self.keys.len() - self.live_keys <= self.live_keys + SPARE_KEYS {
            return;
        }
        let sessions = &self.sessions;
        let kept = self.keys.retain(|key| !sessions[key as usize].is_empty());
        self.sessions = kept.iter().map(|key| std::mem::take(&mut self.sessions[*key as usize])).collect();
        let numbered = (0u32..).zip(&self.sessions);
        let due = numbered.flat_map(|(key, list)| list.iter().map(move |s| Reverse((s.window.end, key, s.slot))));
        self.due = due.collect();
    }
}

impl WindowOperator for SessionWindows {
    fn take(&mut self, rows: &WindowRows, from: usize, missed: &mut Missed) -> Result<Taken> {
        let end = u32::try_from(rows.rowtimes.len()).expect("a batch has fewer than 4 billion rows");
        let numbers: Vec<u32> = (0..end).skip(from).collect();
        let mut keys = Vec::with_capacity(numbers.len());
        rows.keys.intern(&mut self.keys, &numbers, &mut keys);
        self.sessions.resize_with(self.keys.len(), Vec::new);
        let mut pending = Pending::default();
        for (number, key) in numbers.into_iter().zip(keys) {
            let row = number as usize;
            let Some(record) = alone(rows.rowtimes[row], self.gap) else {
                missed.beyond_time.push(number);
                continue;
            };
            match self.place(key, record, rows.before[row], &mut |this| this.flush(rows, &mut pending)) {
                None => missed.late.push(number),
                Some(slot) => {
                    pending.slots.push(slot);
                    pending.rows.push(number);
                }
            }
        }
        self.flush(rows, &mut pending);
        Ok(Taken::All)
    }

    fn close(&mut self, watermark: i64, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<bool> {
        let taken = self.take_closed(watermark);
        self.emit(taken, cause_of, closed)?;
        self.compact();
        Ok(false)
    }

    fn next_goal(&self) -> Option<i64> {
        self.due.peek().map(|Reverse((end, _, _))| end - 1)
    }

    fn windows_of(&self, time: i64) -> Vec<Window> {
        alone(time, self.gap).into_iter().collect()
    }

    fn byte_len(&self) -> usize {
        let lists = self.sessions.iter().map(|list| size_of::<Vec<Session>>() + list.capacity() * size_of::<Session>());
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.byte_len());
        let others = self.due.capacity() * size_of::<Due>() + self.free.capacity() * size_of::<u32>();
        self.keys.byte_len() + lists.sum::<usize>() + accumulators.sum::<usize>() + others
    }
}
