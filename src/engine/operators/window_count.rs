//! Windows of so many records of a key, or of those that came within a time after the first one. A window closes with the record that
//! makes it full; when its time is over (by the watermark, or by the append clock); or with the end of the input. The count wins where
//! one record does both.
//!
//! What has no room in memory goes to disk, and comes back before a row of its key is added, or when its time is over.

mod saved;

use super::keyed_state::{Alarm, KeyedState, Showing};
use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Reason};
use crate::engine::plan::TimeDomain;
use crate::error::Result;
use crate::state::saving::{Due, Relay, Step};
use crate::state::section::Section;
use crate::state::spill::Spill;
use crate::types::{AppendTime, US_PER_MS};
use crate::window::Window;
use arrow::array::RecordBatch;
use std::sync::Arc;

#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// From the least time of its records to behind the greatest.
    window: Window,
    count: u64,
    slot: u32,
    /// Its first record, and the watermark before it.
    opened: (Cause, i64),
    /// When its time is over, if it has one: a watermark in ms, or an append time in us.
    due: Option<i64>,
}

/// The open windows of one aggregation.
pub(in crate::engine) struct CountWindows {
    size: u64,
    timeout_ms: Option<i64>,
    domain: TimeDomain,
    state: KeyedState<Open>,
    /// Windows that have closed.
    done: Vec<Showing<Open>>,
    /// Keys on disk are sorted by the ends of their windows: the input has ended.
    is_parked_by_end: bool,
}

impl CountWindows {
    pub fn new(size: u64, timeout_ms: Option<i64>, domain: TimeDomain, spec: WindowSpec) -> Result<CountWindows> {
        let state = KeyedState::new(spec)?;
        Ok(CountWindows { size, timeout_ms, domain, state, done: Vec::new(), is_parked_by_end: false })
    }

    fn start(&mut self, key: u32, rowtime: i64, time: i64, opened: (Cause, i64)) -> Open {
        let due = self.timeout_ms.map(|timeout_ms| match self.domain {
            TimeDomain::Event => rowtime.saturating_add(timeout_ms),
            TimeDomain::Append => opened.0.time_us().saturating_add(timeout_ms.saturating_mul(US_PER_MS)),
        });
        let slot = self.state.start(key);
        if let Some(due) = due {
            self.state.agenda.set(due, key, slot);
        }
        let window = Window { start: time, end: time.saturating_add(1) };
        Open { window, count: 0, slot, opened, due }
    }

    /// Closes windows whose time is over at `now` or before, earliest first.
    fn over(&mut self, now: i64, by: &dyn Fn(i64) -> (Cause, i64)) -> Result<()> {
        // They may all come out for one reason, sorted by more than their time.
        while self.timeout_ms.is_some() && self.state.fetch_due(now)? < now {}
        let over = self.state.agenda.take_due(now);
        self.state.give_keys(over.iter().map(|(_, key, _)| *key));
        for (due, key, _) in over {
            if let Some(open) = self.state.kept[key as usize].take_if(|open| open.due == Some(due)) {
                // The first record may have come when the time that begins with it was over already.
                let by = by(due);
                let by = if open.opened.0 > by.0 { open.opened } else { by };
                self.done.push(closed(key, open, Reason::Timeout, by));
            }
        }
        Ok(())
    }

    /// When the time of a window is over first, roughly.
    fn first_due(&self) -> Option<i64> {
        let first = self.state.agenda.first().map(|(due, ..)| due);
        let parked = self.state.parked.next_due().filter(|_| self.timeout_ms.is_some());
        first.into_iter().chain(parked).min()
    }

    /// Emits what has closed.
    fn emit(&mut self, fired: &mut Fired) -> Result<()> {
        self.state.emit(&mut self.done, fired)?;
        fired.closed += self.done.len() as u64;
        for (key, open, ..) in std::mem::take(&mut self.done) {
            self.state.release(key, open.slot);
        }
        // The agenda begins with a window that is open.
        let KeyedState { agenda, kept, .. } = &mut self.state;
        let is_gone = |(due, key, _): &Alarm| kept[*key as usize].is_none_or(|open| open.due != Some(*due));
        while agenda.pop_if(is_gone).is_some() {}
        Ok(())
    }
}

/// A window that has closed, on its way out.
fn closed(key: u32, open: Open, reason: Reason, by: (Cause, i64)) -> Showing<Open> {
    (key, open, Firing { reason: Some(reason), ..Firing::ONLY }, by)
}

/// By the append clock a window's time is over at a moment of it.
fn by_clock(due: i64) -> (Cause, i64) {
    (Cause::clock(AppendTime(due)), due.div_euclid(US_PER_MS).saturating_sub(1))
}

impl WindowOperator for CountWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let (keys, mut slots) = (self.state.hold(&rows.keys, picked)?, Vec::with_capacity(picked.len()));
        for (number, key) in picked.iter().zip(&keys) {
            let (row, cause) = (*number as usize, || (course.of_row)(*number));
            match self.domain {
                TimeDomain::Event => self.over(rows.before[row], course.reached)?,
                TimeDomain::Append => self.over(cause().time_us(), &by_clock)?,
            }
            let time = rows.times[row];
            let mut open = match self.state.kept[*key as usize] {
                Some(open) => open,
                None => self.start(*key, rows.rowtimes[row], time, (cause(), rows.before[row])),
            };
            open.count += 1;
            open.window.start = open.window.start.min(time);
            open.window.end = open.window.end.max(time.saturating_add(1));
            slots.push(open.slot);
            let is_full = open.count >= self.size;
            self.state.kept[*key as usize] = (!is_full).then_some(open);
            if is_full {
                self.done.push(closed(*key, open, Reason::Count, (cause(), rows.before[row])));
            }
        }
        self.state.add(rows, &slots, picked);
        self.emit(fired)?;
        self.state.let_go(&keys);
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
        if self.timeout_ms.is_some() && !self.is_parked_by_end {
            self.state.park_by_end()?;
        }
        self.is_parked_by_end = true;
        self.state.give(Due::Rest);
        let end = self.state.fetch_due(i64::MAX)?;
        for (key, open) in (0u32..).zip(&mut self.state.kept) {
            if let Some(open) = open.take_if(|open| open.window.end <= end) {
                self.done.push(closed(key, open, Reason::End, (Cause::END, watermark)));
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
        self.state.byte_len()
    }

    fn spill(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        self.is_parked_by_end = false;
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
