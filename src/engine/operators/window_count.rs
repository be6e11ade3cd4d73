//! Windows of so many records of a key, or of those that came within a time after the first one. A window closes with the record that
//! makes it full; when its time is over (by the watermark, or by the append clock); or with the end of the input. The count wins where
//! one record does both.
//!
//! What has no room in memory goes to disk, and comes back before a row of its key is added, or when its time is over.

mod saved;

use super::parking::Parks;
use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Reason};
use crate::engine::plan::TimeDomain;
use crate::error::Result;
use crate::state::accumulator::{Accumulator, build};
use crate::state::dictionary::Dictionary;
use crate::state::parked::Parked;
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::{Keyed, Section};
use crate::state::spill::Spill;
use crate::types::{AppendTime, US_PER_MS};
use crate::window::Window;
use arrow::array::RecordBatch;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// From the least time of its records to behind the greatest.
    window: Window,
    count: u64,
    slot: u32,
    /// Tells it from other windows of its key.
    number: u64,
    /// Its first record, and the watermark before it.
    opened: (Cause, i64),
    /// When its time is over, if it has one.
    due: Option<i64>,
}

/// When the time of a window is over: a watermark in ms, or an append time in us; the window's number and key.
type Alarm = Reverse<(i64, u64, u32)>;

/// A window that has closed: key, window, why, cause and the watermark before it.
type Done = (u32, Open, Reason, (Cause, i64));

/// The open windows of one aggregation.
pub(in crate::engine) struct CountWindows {
    size: u64,
    timeout_ms: Option<i64>,
    domain: TimeDomain,
    spec: WindowSpec,
    keys: Dictionary,
    /// By key.
    open: Vec<Option<Open>>,
    accumulators: Vec<Box<dyn Accumulator>>,
    table: Arc<Keyed>,
    /// By key.
    saving: Option<Saving>,
    slots: u32,
    free: Vec<u32>,
    due: BinaryHeap<Alarm>,
    numbered: u64,
    done: Vec<Done>,
    /// Keys that are on disk, by when their time is over, or by the end of their window.
    parked: Parked,
    /// The input has ended: keys on disk are sorted by the ends of their windows.
    is_ending: bool,
}

impl CountWindows {
    pub fn new(size: u64, timeout_ms: Option<i64>, domain: TimeDomain, spec: WindowSpec) -> Result<CountWindows> {
        let accumulators = spec.aggregates.iter().map(build).collect::<Result<_>>()?;
        let table = Arc::new(spec.table(&saved::columns())?);
        Ok(CountWindows {
            size,
            timeout_ms,
            domain,
            keys: Dictionary::new(&spec.codec),
            parked: Parked::new(table.schema()),
            table,
            spec,
            open: Vec::new(),
            accumulators,
            saving: None,
            slots: 0,
            free: Vec::new(),
            due: BinaryHeap::new(),
            numbered: 0,
            done: Vec::new(),
            is_ending: false,
        })
    }

    fn start(&mut self, key: u32, rowtime: i64, time: i64, opened: (Cause, i64)) -> Open {
        let due = self.timeout_ms.map(|timeout_ms| match self.domain {
            TimeDomain::Event => rowtime.saturating_add(timeout_ms),
            TimeDomain::Append => opened.0.time_us().saturating_add(timeout_ms.saturating_mul(US_PER_MS)),
        });
        let (slot, number) = self.numbered(key, due);
        let window = Window { start: time, end: time.saturating_add(1) };
        Open { window, count: 0, slot, number, opened, due }
    }

    /// The slot and the number of a new window of a key.
    fn numbered(&mut self, key: u32, due: Option<i64>) -> (u32, u64) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.numbered += 1;
        self.keys.hold(key);
        self.due.extend(due.map(|due| Reverse((due, self.numbered, key))));
        (slot, self.numbered)
    }

    /// Closes windows whose time is over at `now` or before, earliest first.
    fn over(&mut self, now: i64, by: &dyn Fn(i64) -> (Cause, i64)) -> Result<()> {
        // They may all come out for one reason, sorted by more than their time.
        while self.timeout_ms.is_some() && self.fetch_due(now)? < now {}
        let mut over = Vec::new();
        while let Some(Reverse(first)) = self.due.peek().copied()
            && first.0 <= now
        {
            self.due.pop();
            over.push(first);
        }
        if self.saving.is_some() {
            let keys: Vec<u32> = over.iter().map(|(.., key)| *key).collect();
            self.give(Due::Changes(&keys));
        }
        for (due, number, key) in over {
            if let Some(open) = self.open[key as usize].take_if(|open| open.number == number) {
                // The first record may have come when the time that begins with it was over already.
                let by = by(due);
                let by = if open.opened.0 > by.0 { open.opened } else { by };
                self.done.push((key, open, Reason::Timeout, by));
            }
        }
        Ok(())
    }

    /// When the time of a window is over first, roughly.
    fn first_due(&self) -> Option<i64> {
        let first = self.due.peek().map(|Reverse((due, ..))| *due);
        let parked = self.parked.next_due().filter(|_| self.timeout_ms.is_some());
        first.into_iter().chain(parked).min()
    }

    /// Lets the heap begin with a window that is open.
    fn skip_closed(&mut self) {
        while let Some(Reverse((_, number, key))) = self.due.peek()
            && self.open[*key as usize].is_none_or(|open| open.number != *number)
        {
            self.due.pop();
        }
    }

    /// Emits what has closed.
    fn emit(&mut self, fired: &mut Fired) -> Result<()> {
        if self.done.is_empty() {
            return Ok(());
        }
        let mut done = std::mem::take(&mut self.done);
        let keys = &self.keys;
        // What a record fills comes out before what it brings the watermark to.
        let rank = |(_, open, reason, by): &Done| (by.0, *reason, open.window.end, open.window.start);
        done.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| keys.compare(a.0, b.0)));
        let slots: Vec<u32> = done.iter().map(|(_, open, ..)| open.slot).collect();
        let mut columns = self.spec.codec.decode(done.iter().map(|(key, ..)| keys.key(*key)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(&slots)?);
        }
        let row = |(_, open, reason, by): &Done| (open.window, *by, Firing { reason: Some(*reason), ..Firing::ONLY });
        fired.rows(done.iter().map(row), columns);
        fired.closed += done.len() as u64;
        for (key, open, ..) in done {
            self.accumulators.iter_mut().for_each(|accumulator| accumulator.reset(open.slot));
            self.free.push(open.slot);
            self.keys.release(key);
        }
        self.skip_closed();
        Ok(())
    }
}

/// By the append clock a window's time is over at a moment of it.
fn by_clock(due: i64) -> (Cause, i64) {
    (Cause::clock(AppendTime(due)), due.div_euclid(US_PER_MS).saturating_sub(1))
}

impl WindowOperator for CountWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let (keys, mut slots) = (self.hold(&rows.keys, picked)?, Vec::with_capacity(picked.len()));
        for (number, key) in picked.iter().zip(&keys) {
            let (row, cause) = (*number as usize, (course.of_row)(*number));
            match self.domain {
                TimeDomain::Event => self.over(rows.before[row], course.reached)?,
                TimeDomain::Append => self.over(cause.time_us(), &by_clock)?,
            }
            let time = rows.times[row];
            let mut open = match self.open[*key as usize] {
                Some(open) => open,
                None => self.start(*key, rows.rowtimes[row], time, (cause, rows.before[row])),
            };
            open.count += 1;
            open.window.start = open.window.start.min(time);
            open.window.end = open.window.end.max(time.saturating_add(1));
            slots.push(open.slot);
            let is_full = open.count >= self.size;
            self.open[*key as usize] = (!is_full).then_some(open);
            if is_full {
                self.done.push((*key, open, Reason::Count, (cause, rows.before[row])));
            }
        }
        for accumulator in &mut self.accumulators {
            accumulator.grow(self.slots as usize);
        }
        rows.arguments.update(&mut self.accumulators, &slots, picked);
        self.emit(fired)?;
        self.let_go(&keys);
        Ok(())
    }

    fn close(&mut self, watermark: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        if self.domain == TimeDomain::Event {
            self.over(watermark, course.reached)?;
            self.emit(fired)?;
        }
        Ok(false)
    }

    fn time_out(&mut self, clock: AppendTime, _watermark: i64, fired: &mut Fired) -> Result<()> {
        if self.domain == TimeDomain::Append {
            self.over(clock.0, &by_clock)?;
            self.emit(fired)?;
        }
        Ok(())
    }

    fn next_due(&self) -> Option<AppendTime> {
        self.first_due().filter(|_| self.domain == TimeDomain::Append).map(AppendTime)
    }

    fn finish(&mut self, watermark: i64, fired: &mut Fired) -> Result<bool> {
        if self.timeout_ms.is_some() && !self.is_ending {
            self.parked.sort_by(self.spec.key_fields.len() + saved::WINDOW_END)?;
        }
        self.is_ending = true;
        self.give(Due::Rest);
        let end = self.fetch_due(i64::MAX)?;
        for (key, open) in (0u32..).zip(&mut self.open) {
            if let Some(open) = open.take_if(|open| open.window.end <= end) {
                self.done.push((key, open, Reason::End, (Cause::END, watermark)));
            }
        }
        self.emit(fired)?;
        Ok(end < i64::MAX)
    }

    fn next_goal(&self) -> Option<i64> {
        self.first_due().filter(|_| self.domain == TimeDomain::Event)
    }

    fn windows_of(&self, _: &WindowRows, _: usize) -> Vec<Window> {
        Vec::new()
    }

    fn byte_len(&self) -> usize {
        self.bytes_in_memory() + self.parked.byte_len()
    }

    fn spill(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        self.park(spill, bytes, least)
    }

    fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        Ok(vec![self.section(saved::OPEN, relay)])
    }

    fn save_next(&mut self, ahead: usize) -> Step {
        self.give(Due::Next { ahead })
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        self.load_section(name, rows)
    }
}
