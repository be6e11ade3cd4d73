//! Tumbling, hopping and cumulating windows, and windows that rows bring along. Each row goes into the partial result of one slice; windows
//! put slices together when they are emitted. A tumbling window is its slice; others merge their slices left to right, so that
//! floats add up in one order. Cumulating windows that are emitted once fold their slices into the first one as they close.
//!
//! With allowed lateness slices stay until their last window has expired, and a row for windows that were emitted emits them again for
//! its key. A window that can be emitted more than once remembers how often it was, by key.

mod saved;

use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Pane};
use crate::error::Result;
use crate::state::dictionary::Dictionary;
use crate::state::section::Section;
use crate::state::slice::Slice as Partial;
use crate::window::Window;
use crate::window::assign::{Slice, Slicer};
use arrow::array::RecordBatch;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slices and windows by end, then start.
type Place = (i64, i64);

fn place_of(slice: &Slice) -> Place {
    (slice.end, slice.start)
}

struct Entry {
    slice: Slice,
    /// Shared with who saves it, until it changes.
    partial: Arc<Partial>,
    /// Keys with rows since the last tick, if there are ticks.
    changed: Vec<u32>,
    /// Of what it holds.
    version: u64,
}

/// How often a window was emitted, by key.
#[derive(Default)]
struct Emitted {
    times: Arc<HashMap<u32, u32>>,
    version: u64,
}

/// The open slices of one aggregation. Holds one partial for each slice that has rows and a window that is not over.
pub(in crate::engine) struct SliceWindows {
    slicer: Slicer,
    spec: WindowSpec,
    keys: Arc<Dictionary>,
    slices: BTreeMap<Place, Entry>,
    /// Windows that end here or before have been emitted.
    closed: i64,
    /// By window.
    emitted: BTreeMap<Place, Emitted>,
    /// Counts changes.
    version: u64,
    tables: saved::Tables,
    sorted: Sorted,
}

/// Rows of one call by slice, kept for its memory.
#[derive(Default)]
struct Sorted {
    touched: Vec<(Slice, Vec<u32>)>,
    index: HashMap<Place, usize>,
    ids: Vec<u32>,
}

impl Sorted {
    fn place(&mut self, slice: Slice) -> usize {
        *self.index.entry(place_of(&slice)).or_insert_with(|| {
            self.touched.push((slice, Vec::new()));
            self.touched.len() - 1
        })
    }
}

/// Ends of windows that the watermark before a row has closed, and of those that it takes no row for any more.
#[derive(Clone, Copy)]
struct Bounds {
    watermark: i64,
    closed: i64,
    expired: i64,
}

impl SliceWindows {
    pub fn new(slicer: Slicer, spec: WindowSpec) -> Result<SliceWindows> {
        Ok(SliceWindows {
            slicer,
            keys: Arc::new(Dictionary::new(&spec.codec)),
            tables: saved::Tables::new(&spec)?,
            spec,
            slices: BTreeMap::new(),
            closed: i64::MIN,
            emitted: BTreeMap::new(),
            version: 0,
            sorted: Sorted::default(),
        })
    }

    fn bounds(&self, watermark: i64) -> Bounds {
        Bounds { watermark, closed: self.spec.clock.horizon(watermark), expired: self.spec.expired(watermark) }
    }

    /// Whether cumulating windows are folded: none of them is ever looked at again.
    fn folds(&self) -> bool {
        matches!(self.slicer, Slicer::Cumulate { .. }) && !self.spec.refires()
    }

    /// The slice whose partial takes a row of `slice`: of folded windows whose smaller ones have closed, the first slice, which holds
    /// what those have emitted.
    fn target(&self, slice: Slice, closed: i64) -> Slice {
        if closed >= slice.first_end && self.folds() { first_of(slice) } else { slice }
    }

    /// The slice that all rows are in, if there is one and none of its windows has closed: so it mostly is.
    fn common_slice(&self, rows: &WindowRows, picked: &[u32]) -> Option<Slice> {
        let (first, last) = (*picked.first()? as usize, *picked.last()? as usize);
        let slice = self.slicer.slice_of(rows.times[first])?;
        let inside = |row: &u32| {
            let time = rows.times[*row as usize];
            slice.start <= time && time < slice.end
        };
        let is_open = slice.first_end <= slice.last_end && self.spec.clock.horizon(rows.before[last]) < slice.first_end;
        (is_open && picked.iter().all(inside)).then_some(slice)
    }

    /// Sorts rows into slices. What closed windows must not see waits until they are emitted.
    fn sort_rows(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let Some(first) = picked.first() else { return Ok(()) };
        let mut bounds = self.bounds(rows.before[*first as usize]);
        // The slice of the row before, and its place in `touched`: rows mostly stay in it.
        let mut current: Option<(Slice, Option<usize>)> = None;
        for number in picked {
            let row = *number as usize;
            let time = rows.times[row];
            if rows.before[row] != bounds.watermark {
                bounds = self.bounds(rows.before[row]);
            }
            let known = current.filter(|(slice, _)| slice.start <= time && time < slice.end);
            if let Some((slice, Some(place))) = known
                && bounds.closed < slice.first_end
            {
                self.sorted.touched[place].1.push(*number);
                continue;
            }
            let slice = match (known, rows.windows.get(row)) {
                (Some((slice, _)), None) => Some(slice),
                (_, Some(window)) => Some(Slicer::slice_of_window(*window)),
                (None, None) => self.slicer.slice_of(time),
            };
            let Some(slice) = slice else {
                fired.beyond_time.push(*number);
                continue;
            };
            current = rows.windows.is_empty().then_some((slice, None));
            if slice.first_end > slice.last_end {
                fired.between += 1;
                continue;
            }
            if slice.last_end <= bounds.expired {
                fired.late.push(*number);
                continue;
            }
            if bounds.closed >= slice.first_end {
                if Slicer::next_end(&slice, self.closed).is_some_and(|end| end <= bounds.closed) {
                    self.update(rows)?;
                    while self.close(bounds.watermark, course, fired)? {}
                    current = None;
                }
                fired.partly_late += u64::from(bounds.expired >= slice.first_end);
                if self.spec.lateness_ms > 0 {
                    self.again(rows, *number, slice, bounds, course, fired)?;
                    current = None;
                    continue;
                }
            }
            let target = self.target(slice, bounds.closed);
            let place = self.sorted.place(target);
            self.sorted.touched[place].1.push(*number);
            if let Some(current) = &mut current {
                current.1 = (target == slice).then_some(place);
            }
        }
        Ok(())
    }

    /// Adds a row of which some windows were emitted, and emits those again.
    fn again(
        &mut self,
        rows: &WindowRows,
        number: u32,
        slice: Slice,
        bounds: Bounds,
        course: &Course<'_>,
        fired: &mut Fired,
    ) -> Result<()> {
        let place = self.sorted.place(slice);
        self.sorted.touched[place].1.push(number);
        self.update(rows)?;
        let mut ids = Vec::new();
        Arc::make_mut(&mut self.keys).intern(&rows.keys, &[number], &mut ids);
        let by = ((course.of_row)(number), bounds.watermark);
        for window in self.slicer.windows_between(&slice, bounds.expired, bounds.closed) {
            self.emit(window, Some(&ids), Pane::Late, by, fired)?;
        }
        Ok(())
    }

    /// Adds the sorted rows to their slices.
    fn update(&mut self, rows: &WindowRows) -> Result<()> {
        self.sorted.index.clear();
        let SliceWindows { sorted, keys, slices, spec, version, .. } = self;
        let keys = Arc::make_mut(keys);
        for (slice, numbers) in sorted.touched.drain(..) {
            sorted.ids.clear();
            keys.intern(&rows.keys, &numbers, &mut sorted.ids);
            let entry = match slices.entry(place_of(&slice)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let partial = Arc::new(Partial::new(&spec.aggregates)?);
                    entry.insert(Entry { slice, partial, changed: Vec::new(), version: 0 })
                }
            };
            *version += 1;
            entry.version = *version;
            let partial = Arc::make_mut(&mut entry.partial);
            let known = partial.ids().len();
            partial.update(&sorted.ids, keys.bound(), &rows.arguments, &numbers);
            partial.ids()[known..].iter().for_each(|id| keys.hold(*id));
            if spec.early {
                entry.changed.extend_from_slice(&sorted.ids);
                entry.changed.sort_unstable();
                entry.changed.dedup();
            }
        }
        Ok(())
    }

    /// The next window to close: a slice of it, and its end.
    fn next_window(&self) -> Option<(Slice, i64)> {
        let from = self.closed.saturating_sub(self.slicer.reach());
        let mut open = self.slices.range((from, i64::MIN)..).map(|(_, entry)| entry.slice);
        open.find_map(|slice| Slicer::next_end(&slice, self.closed).map(|end| (slice, end)))
    }

    /// What a window holds: its slices left to right, all keys or some.
    fn merged(&self, window: Window, ids: Option<&[u32]>) -> Result<Partial> {
        let mut merged = Partial::new(&self.spec.aggregates)?;
        let inside = self.slices.range((window.start, i64::MIN)..=(window.end, i64::MAX));
        for (_, entry) in inside.filter(|(_, entry)| entry.slice.start >= window.start) {
            match ids {
                None => merged.merge(&entry.partial, self.keys.bound()),
                Some(ids) => merged.merge_keys(&entry.partial, ids, self.keys.bound()),
            }
        }
        Ok(merged)
    }

    /// Folds the slices of a cumulating window into its first slice.
    fn fold(&mut self, first: Slice, end: i64) -> Result<()> {
        let mut partial = match self.slices.remove(&place_of(&first)) {
            Some(entry) => entry.partial,
            None => Arc::new(Partial::new(&self.spec.aggregates)?),
        };
        let (base, keys) = (Arc::make_mut(&mut partial), Arc::make_mut(&mut self.keys));
        let inside =
            self.slices.range((first.start, i64::MIN)..=(end, i64::MAX)).map(|(place, entry)| (*place, entry.slice));
        let inside: Vec<Place> =
            inside.filter(|(_, slice)| slice.start >= first.start).map(|(place, _)| place).collect();
        for place in inside {
            let Some(entry) = self.slices.remove(&place) else { continue };
            let known = base.ids().len();
            base.merge(&entry.partial, keys.bound());
            base.ids()[known..].iter().for_each(|id| keys.hold(*id));
            entry.partial.ids().iter().for_each(|id| keys.release(*id));
        }
        self.version += 1;
        let entry = Entry { slice: first, partial, changed: Vec::new(), version: self.version };
        self.slices.insert(place_of(&first), entry);
        Ok(())
    }

    /// Emits a window, all keys or some; those without rows in it have no result.
    fn emit(
        &mut self,
        window: Window,
        ids: Option<&[u32]>,
        pane: Pane,
        by: (Cause, i64),
        fired: &mut Fired,
    ) -> Result<()> {
        let merged;
        let place = (window.end, window.start);
        let is_slice = matches!(self.slicer, Slicer::Given)
            || self.folds()
            || matches!(self.slicer, Slicer::Hop { size, slide, .. } if size == slide);
        let partial = if is_slice {
            let place = if self.folds() { (window.start + self.first_len(), window.start) } else { place };
            let Some(entry) = self.slices.get(&place) else { return Ok(()) };
            &entry.partial
        } else {
            merged = self.merged(window, ids)?;
            &merged
        };
        let mut order: Vec<(u32, u32)> = match ids {
            None => (0u32..).zip(partial.ids()).map(|(slot, id)| (slot, *id)).collect(),
            Some(ids) => ids.iter().filter_map(|id| partial.slot_of(*id).map(|slot| (slot, *id))).collect(),
        };
        self.keys.sort_by_key(&mut order, |(_, id)| *id);
        let slots: Vec<u32> = order.iter().map(|(slot, _)| *slot).collect();
        let mut columns = self.spec.codec.decode(order.iter().map(|(_, id)| self.keys.key(*id)))?;
        columns.extend(partial.results(&slots)?);
        let firings = match self.spec.refires() {
            false => vec![Firing::ONLY; order.len()],
            true => {
                self.version += 1;
                let emitted = self.emitted.entry(place).or_default();
                emitted.version = self.version;
                let (times, keys) = (Arc::make_mut(&mut emitted.times), Arc::make_mut(&mut self.keys));
                let firing = |(_, id): &(u32, u32)| {
                    let next = times.entry(*id).or_insert_with(|| {
                        keys.hold(*id);
                        0
                    });
                    *next += 1;
                    Firing::numbered(*next - 1, pane)
                };
                order.iter().map(firing).collect()
            }
        };
        fired.window(window, by, &firings, columns);
        Ok(())
    }

    /// Length of the first slice of a cumulating window.
    fn first_len(&self) -> i64 {
        if let Slicer::Cumulate { step, .. } = self.slicer { step } else { 0 }
    }

    /// Lets go of slices and windows that no row can change any more.
    fn forget(&mut self, expired: i64) {
        while let Some(first) = self.slices.first_entry()
            && first.get().slice.last_end <= expired
        {
            let entry = first.remove();
            let keys = Arc::make_mut(&mut self.keys);
            entry.partial.ids().iter().for_each(|id| keys.release(*id));
        }
        while let Some(first) = self.emitted.first_entry()
            && first.key().0 <= expired
        {
            let (gone, keys) = (first.remove(), Arc::make_mut(&mut self.keys));
            gone.times.keys().for_each(|id| keys.release(*id));
        }
    }
}

/// The first slice of a cumulating window that holds `slice`.
fn first_of(slice: Slice) -> Slice {
    let end = slice.first_start + slice.step;
    Slice { start: slice.first_start, end, first_end: end, ..slice }
}

impl WindowOperator for SliceWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], course: &Course<'_>, fired: &mut Fired) -> Result<()> {
        match self.common_slice(rows, picked) {
            Some(slice) => self.sorted.touched.push((slice, picked.to_vec())),
            None => self.sort_rows(rows, picked, course, fired)?,
        }
        self.update(rows)
    }

    fn close(&mut self, watermark: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        let bounds = self.bounds(watermark);
        if let Some((slice, end)) = self.next_window()
            && end <= bounds.closed
        {
            let window = Window { start: self.slicer.window_start(&slice, end), end };
            if self.folds() {
                self.fold(first_of(slice), end)?;
            }
            self.emit(window, None, Pane::OnTime, (course.reached)(self.spec.clock.goal(end)), fired)?;
            fired.closed += 1;
            self.closed = end;
            self.forget(if self.spec.lateness_ms == 0 { end } else { bounds.expired.min(end) });
            return Ok(true);
        }
        self.closed = self.closed.max(bounds.closed);
        self.forget(bounds.expired);
        Ok(false)
    }

    fn tick(&mut self, by: (Cause, i64), fired: &mut Fired) -> Result<()> {
        let mut changed: BTreeMap<Place, (Window, Vec<u32>)> = BTreeMap::new();
        for entry in self.slices.values_mut().filter(|entry| !entry.changed.is_empty()) {
            let ids = std::mem::take(&mut entry.changed);
            self.version += 1;
            entry.version = self.version;
            for window in self.slicer.windows_between(&entry.slice, self.closed, i64::MAX) {
                let all = &mut changed.entry((window.end, window.start)).or_insert((window, Vec::new())).1;
                all.extend_from_slice(&ids);
            }
        }
        for (window, mut ids) in changed.into_values() {
            ids.sort_unstable();
            ids.dedup();
            self.emit(window, Some(&ids), Pane::Early, by, fired)?;
        }
        Ok(())
    }

    fn has_changed(&self) -> bool {
        self.slices.values().any(|entry| !entry.changed.is_empty() && entry.slice.last_end > self.closed)
    }

    fn next_goal(&self) -> Option<i64> {
        self.next_window().map(|(_, end)| self.spec.clock.goal(end))
    }

    fn windows_of(&self, rows: &WindowRows, row: usize) -> Vec<Window> {
        match rows.windows.get(row) {
            Some(window) => vec![*window],
            None => self.slicer.windows_of(rows.times[row]),
        }
    }

    fn byte_len(&self) -> usize {
        let slices = self.slices.values().map(|e| size_of::<Entry>() + e.partial.byte_len() + e.changed.capacity() * 4);
        let emitted = self.emitted.values().map(|emitted| emitted.times.capacity() * 9 + 64);
        self.keys.byte_len() + slices.sum::<usize>() + emitted.sum::<usize>()
    }

    fn save(&self) -> Result<Vec<Section>> {
        self.sections()
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        self.take_section(name, rows)
    }
}
