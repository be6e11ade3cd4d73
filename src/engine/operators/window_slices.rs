//! Tumbling, hopping and cumulating windows. Each row goes into the partial result of one slice; windows put slices together
//! when they close. A tumbling window is its slice; a hopping one merges its slices left to right; the slices of cumulating
//! windows with one start are folded into the first of them as the windows close.

use super::{CauseOf, Closed, Missed, Taken, WindowOperator, WindowRows, WindowSpec};
use crate::error::Result;
use crate::state::partial::Partial;
use crate::time::watermark::BEFORE_ALL;
use crate::window::Window;
use crate::window::assign::{Slice, Slicer};
use hashbrown::HashMap;
use std::collections::BTreeMap;

struct Entry {
    slice: Slice,
    partial: Partial,
}

/// The open slices of one aggregation. Holds one partial for each slice that has rows and an open window.
pub(in crate::engine) struct SliceWindows {
    slicer: Slicer,
    spec: WindowSpec,
    slices: BTreeMap<i64, Entry>,
    /// Windows that close at this watermark have been emitted.
    closed: i64,
    /// Rows of one call by slice, kept for their memory.
    touched: Vec<(Slice, Vec<u32>)>,
    index: HashMap<i64, usize>,
}

impl SliceWindows {
    pub fn new(slicer: Slicer, spec: WindowSpec) -> SliceWindows {
        SliceWindows {
            slicer,
            spec,
            slices: BTreeMap::new(),
            closed: BEFORE_ALL,
            touched: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// The slice whose partial takes a row of `slice` while the watermark is `before`: of cumulating windows whose smaller ones
    /// have closed, the first slice, which holds what those have emitted.
    fn target(&self, slice: Slice, before: i64) -> Slice {
        match self.slicer {
            Slicer::Cumulate { step, .. } if before >= slice.end - 1 => self.first_of(slice, step),
            _ => slice,
        }
    }

    fn first_of(&self, slice: Slice, step: i64) -> Slice {
        Slice { start: slice.first_start, end: slice.first_start + step, ..slice }
    }

    /// The slice that all rows are in, if there is one and none of them is late for any of its windows: so it mostly is.
    fn common_slice(&self, rows: &WindowRows) -> Option<Slice> {
        let first = *rows.rowtimes.first()?;
        let (low, high) =
            rows.rowtimes.iter().fold((first, first), |(low, high), time| (low.min(*time), high.max(*time)));
        let slice = self.slicer.slice_of(first)?;
        let is_common = slice.start <= low && high < slice.end && *rows.before.last()? < slice.end - 1;
        is_common.then_some(slice)
    }

    /// Sorts rows into slices until one needs windows closed first.
    fn sort_rows(&mut self, rows: &WindowRows, from: usize, missed: &mut Missed) -> Taken {
        if let Some(slice) = self.common_slice(rows) {
            let end = u32::try_from(rows.rowtimes.len()).expect("a batch has fewer than 4 billion rows");
            self.touched.push((slice, (0..end).skip(from).collect()));
            return Taken::All;
        }
        // The slice of the row before, and its place in `touched`: rows mostly stay in it.
        let mut current: Option<(Slice, Option<usize>)> = None;
        for row in from..rows.rowtimes.len() {
            let (time, before) = (rows.rowtimes[row], rows.before[row]);
            let number = u32::try_from(row).expect("a batch has fewer than 4 billion rows");
            let known = current.filter(|(slice, _)| slice.start <= time && time < slice.end);
            if let Some((slice, Some(place))) = known
                && before < slice.end - 1
            {
                self.touched[place].1.push(number);
                continue;
            }
            let Some(slice) = known.map(|(slice, _)| slice).or_else(|| self.slicer.slice_of(time)) else {
                missed.beyond_time.push(number);
                continue;
            };
            current = Some((slice, None));
            if before >= slice.last_end - 1 {
                missed.late.push(number);
                continue;
            }
            if before >= slice.end - 1 {
                if Slicer::next_end(&slice, self.closed).is_some_and(|end| before >= end - 1) {
                    return Taken::CloseFirst { row, watermark: before };
                }
                missed.partly_late += 1;
            }
            let target = self.target(slice, before);
            let place = *self.index.entry(target.start).or_insert_with(|| {
                self.touched.push((target, Vec::new()));
                self.touched.len() - 1
            });
            self.touched[place].1.push(number);
            current = Some((slice, (target == slice).then_some(place)));
        }
        Taken::All
    }

    fn update(&mut self, rows: &WindowRows) -> Result<()> {
        self.index.clear();
        for (slice, numbers) in self.touched.drain(..) {
            let entry = match self.slices.entry(slice.start) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Entry { slice, partial: Partial::new(&self.spec.aggregates)? })
                }
            };
            entry.partial.update(&rows.keys, &rows.arguments, &numbers);
        }
        Ok(())
    }

    fn next_window(&self) -> Option<(Slice, i64)> {
        let (_, entry) = self.slices.first_key_value()?;
        Slicer::next_end(&entry.slice, self.closed).map(|end| (entry.slice, end))
    }

    /// The partial of a hopping window that starts with its slices left to right, so that floats add up in one order.
    fn hop(&mut self, start: i64, end: i64) -> Result<Partial> {
        let mut merged = Partial::new(&self.spec.aggregates)?;
        for (_, entry) in self.slices.range(start..end) {
            merged.merge(&entry.partial);
        }
        while let Some(first) = self.slices.first_entry()
            && first.get().slice.last_end <= end
        {
            first.remove();
        }
        Ok(merged)
    }

    /// Folds the slices of a cumulating window into its first slice.
    fn cumulate(&mut self, first: Slice, end: i64) -> Result<()> {
        let mut base = match self.slices.remove(&first.start) {
            Some(entry) => entry.partial,
            None => Partial::new(&self.spec.aggregates)?,
        };
        let inside: Vec<i64> = self.slices.range(first.start..end).map(|(start, _)| *start).collect();
        for start in inside {
            if let Some(entry) = self.slices.remove(&start) {
                base.merge(&entry.partial);
            }
        }
        self.slices.insert(first.start, Entry { slice: first, partial: base });
        Ok(())
    }

    /// Closes the window with this end that holds `slice`.
    fn close_window(&mut self, slice: Slice, end: i64, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<()> {
        let window = Window { start: self.slicer.window_start(&slice, end), end };
        match self.slicer {
            Slicer::Hop { size, slide, .. } if size == slide => {
                if let Some(entry) = self.slices.remove(&slice.start) {
                    self.emit(&entry.partial, window, cause_of, closed)?;
                }
            }
            Slicer::Hop { .. } => {
                let merged = self.hop(window.start, end)?;
                self.emit(&merged, window, cause_of, closed)?;
            }
            Slicer::Cumulate { step, .. } => {
                let first = self.first_of(slice, step);
                self.cumulate(first, end)?;
                if let Some(entry) = self.slices.get(&first.start) {
                    self.emit(&entry.partial, window, cause_of, closed)?;
                }
                if end == first.last_end {
                    self.slices.remove(&first.start);
                }
            }
        }
        self.closed = end - 1;
        Ok(())
    }

    fn emit(&self, partial: &Partial, window: Window, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<()> {
        let order = partial.keys().sorted();
        closed.causes.resize(closed.causes.len() + order.len(), cause_of(window.end - 1));
        closed.windows.resize(closed.windows.len() + order.len(), window);
        closed.keys.push(self.spec.codec.decode(order.iter().map(|id| partial.keys().key(*id)))?);
        closed.results.push(partial.results(&order)?);
        closed.count += 1;
        Ok(())
    }
}

impl WindowOperator for SliceWindows {
    fn take(&mut self, rows: &WindowRows, from: usize, missed: &mut Missed) -> Result<Taken> {
        let taken = self.sort_rows(rows, from, missed);
        self.update(rows)?;
        Ok(taken)
    }

    fn close(&mut self, watermark: i64, cause_of: CauseOf<'_>, closed: &mut Closed) -> Result<bool> {
        if let Some((slice, end)) = self.next_window()
            && watermark >= end - 1
        {
            self.close_window(slice, end, cause_of, closed)?;
            return Ok(true);
        }
        self.closed = self.closed.max(watermark);
        Ok(false)
    }

    fn next_goal(&self) -> Option<i64> {
        self.next_window().map(|(_, end)| end - 1)
    }

    fn windows_of(&self, time: i64) -> Vec<Window> {
        self.slicer.windows_of(time)
    }

    fn byte_len(&self) -> usize {
        self.slices.values().map(|entry| size_of::<Entry>() + entry.partial.byte_len()).sum()
    }
}
