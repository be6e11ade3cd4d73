//! Tumbling, hopping and cumulating windows, and windows that rows bring along. Each row goes into the partial result of one slice; windows
//! put slices together when they are emitted. A tumbling window is its slice; others merge their slices left to right, so that
//! floats add up in one order. Cumulating windows that are emitted once fold their slices into the first one as they close.
//!
//! With allowed lateness slices stay until their last window has expired, and a row for windows that were emitted emits them again for
//! its key. A window that can be emitted more than once remembers how often it was, by key.

mod cold;
mod saved;

use super::{Course, Fired, WindowOperator, WindowRows, WindowSpec};
use crate::engine::output::{Cause, Firing, Pane};
use crate::error::Result;
use crate::state::cold::{Cold, Numbers};
use crate::state::dictionary::Dictionary;
use crate::state::keys::KeyCodec;
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::Section;
use crate::state::slice::Slice as Partial;
use crate::state::spill::Spill;
use crate::window::Window;
use crate::window::assign::{Slice, Slicer};
use arrow::array::{ArrayRef, RecordBatch};
use cold::{Closing, ColdSlices};
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
    partial: Partial,
    /// What is beside it, on disk above all.
    cold: Cold,
    /// Keys with rows since the last tick, if there are ticks; held here.
    changed: Vec<u32>,
    /// Of what it holds.
    version: u64,
    /// Bytes held when they were counted last.
    bytes: usize,
    /// By slot.
    saving: Option<Saving>,
}

impl Entry {
    fn new(slice: Slice, spec: &WindowSpec, version: u64) -> Result<Entry> {
        let partial = Partial::new(&spec.aggregates)?;
        Ok(Entry { slice, partial, cold: Cold::default(), changed: Vec::new(), version, bytes: 0, saving: None })
    }

    /// Counts its bytes.
    fn measure(&mut self) -> usize {
        self.bytes = size_of::<Entry>() + self.partial.byte_len() + self.cold.byte_len() + self.changed.capacity() * 4;
        self.bytes
    }

    /// Marks keys as changed, and holds those that were not.
    fn change(&mut self, ids: &[u32], keys: &mut Dictionary) {
        let known = self.changed.len();
        let is_new = |id: &&u32| self.changed[..known].binary_search(id).is_err();
        let mut fresh: Vec<u32> = ids.iter().filter(is_new).copied().collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh.iter().for_each(|id| keys.hold(*id));
        self.changed.extend(fresh);
        self.changed.sort_unstable();
    }

    /// The keys that were changed, which are not any more.
    fn take_changed(&mut self, tables: &saved::Tables, keys: &Dictionary) -> Vec<u32> {
        if self.saving.is_some() {
            self.save_keys(tables, keys, &self.changed.clone());
        }
        std::mem::take(&mut self.changed)
    }

    /// Lets go of all keys.
    fn release(&self, keys: &mut Dictionary) {
        self.partial.ids().iter().chain(&self.changed).for_each(|id| keys.release(*id));
    }
}

/// How often a window was emitted, by key.
#[derive(Default)]
struct Emitted {
    times: Numbers,
    version: u64,
    /// By key.
    saving: Option<Saving>,
}

/// The open slices of one aggregation. Holds one partial for each slice that has rows and a window that is not over.
pub(in crate::engine) struct SliceWindows {
    slicer: Slicer,
    spec: WindowSpec,
    keys: Dictionary,
    slices: BTreeMap<Place, Entry>,
    /// Bytes of the slices.
    held: usize,
    cold: ColdSlices,
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
        let tables = Arc::new(spec.cold_tables()?);
        Ok(SliceWindows {
            slicer,
            keys: Dictionary::new(&spec.codec),
            tables: saved::Tables::new(&spec)?,
            spec,
            slices: BTreeMap::new(),
            held: 0,
            cold: ColdSlices { tables, spill: None, closing: None },
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
        let is_open = slice.first_end <= slice.last_end && self.spec.clock.horizon(rows.before[last]) < slice.first_end;
        let is_inside = || match picked.len() == rows.times.len() {
            true => slice.holds_all(rows.times.iter().copied()),
            false => slice.holds_all(picked.iter().map(|row| rows.times[*row as usize])),
        };
        (is_open && is_inside()).then_some(slice)
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
                if bounds.expired >= slice.first_end {
                    fired.partly_late.push(*number);
                }
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
        self.keys.intern(&rows.keys, &[number], &mut ids);
        let by = ((course.of_row)(number), bounds.watermark);
        for window in self.slicer.windows_between(&slice, bounds.expired, bounds.closed) {
            self.emit(window, Some(&ids), Pane::Late, by, fired)?;
        }
        Ok(())
    }

    /// Adds the sorted rows to their slices.
    fn update(&mut self, rows: &WindowRows) -> Result<()> {
        self.sorted.index.clear();
        let SliceWindows { sorted, keys, slices, spec, version, held, cold, tables, .. } = self;
        let mut untidy = Vec::new();
        for (slice, numbers) in sorted.touched.drain(..) {
            sorted.ids.clear();
            keys.intern(&rows.keys, &numbers, &mut sorted.ids);
            *version += 1;
            let entry = match slices.entry(place_of(&slice)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Entry::new(slice, spec, *version)?),
            };
            entry.version = *version;
            entry.save_keys(tables, keys, &sorted.ids);
            if let Some(spill) = cold.spill.as_ref().filter(|_| !cold.tables.is_exact && !entry.cold.is_empty()) {
                let ids = &sorted.ids[..];
                // Keys that are new are numbered for this call only.
                ids.iter().for_each(|id| keys.hold(*id));
                entry.cold.take_rows(&cold.tables, (keys, ids), (&rows.arguments, &numbers), spill)?;
                if spec.early {
                    entry.change(ids, keys);
                }
                ids.iter().for_each(|id| keys.release(*id));
                untidy.extend(entry.cold.is_scattered(spec.refires()).then_some(place_of(&slice)));
            } else {
                let partial = &mut entry.partial;
                let known = partial.ids().len();
                partial.update(&sorted.ids, keys.bound(), &rows.arguments, &numbers);
                partial.ids()[known..].iter().for_each(|id| keys.hold(*id));
                if spec.early {
                    entry.change(&sorted.ids, keys);
                }
            }
            *held = *held - entry.bytes + entry.measure();
        }
        untidy.into_iter().try_for_each(|place| self.tidy(place))
    }

    /// Removes a slice.
    fn remove(&mut self, place: Place) -> Option<Entry> {
        let mut entry = self.slices.remove(&place)?;
        entry.save_rest(&self.tables, &self.keys);
        self.held -= entry.bytes;
        entry.release(&mut self.keys);
        Some(entry)
    }

    /// The next window to close: a slice of it, and its end.
    fn next_window(&self) -> Option<(Slice, i64)> {
        let from = self.closed.saturating_sub(self.slicer.reach());
        let mut open = self.slices.range((from, i64::MIN)..).map(|(_, entry)| entry.slice);
        open.find_map(|slice| Slicer::next_end(&slice, self.closed).map(|end| (slice, end)))
    }

    /// Whether a window holds what one slice holds.
    fn is_slice(&self) -> bool {
        matches!(self.slicer, Slicer::Given)
            || self.folds()
            || matches!(self.slicer, Slicer::Hop { size, slide, .. } if size == slide)
    }

    /// The slices between two times, left to right.
    fn places_between(&self, start: i64, end: i64) -> Vec<Place> {
        let inside = self.slices.range((start, i64::MIN)..=(end, i64::MAX));
        inside.filter(|(_, entry)| entry.slice.start >= start).map(|(place, _)| *place).collect()
    }

    /// The slices of a window, left to right.
    fn places_of(&self, window: Window) -> Vec<Place> {
        match (self.is_slice(), self.folds()) {
            (true, true) => vec![(window.start + self.first_len(), window.start)],
            (true, false) => vec![(window.end, window.start)],
            (false, _) => self.places_between(window.start, window.end),
        }
    }

    /// What a window holds: its slices left to right, all keys or some.
    fn merged(&self, places: &[Place], ids: Option<&[u32]>) -> Result<Partial> {
        let mut merged = Partial::new(&self.spec.aggregates)?;
        for entry in places.iter().filter_map(|place| self.slices.get(place)) {
            match ids {
                None => merged.merge(&entry.partial, self.keys.bound()),
                Some(ids) => merged.merge_keys(&entry.partial, ids, self.keys.bound()),
            }
        }
        Ok(merged)
    }

    /// Folds the slices of a cumulating window into its first slice.
    fn fold(&mut self, first: Slice, end: i64) -> Result<()> {
        let place = place_of(&first);
        let has_first = self.slices.contains_key(&place);
        let mut places = self.places_between(first.start, end);
        places.retain(|other| *other != place);
        if has_first && places.is_empty() {
            return Ok(());
        }
        places.splice(..0, has_first.then_some(place));
        if let Some(scattered) = self.scattered(&places, None, has_first)? {
            return self.fold_scattered(first, &scattered);
        }
        let mut base = match self.slices.remove(&place) {
            Some(entry) => entry,
            None => Entry::new(first, &self.spec, 0)?,
        };
        self.held -= base.bytes;
        base.save_rest(&self.tables, &self.keys);
        let (partial, keys) = (&mut base.partial, &mut self.keys);
        for place in places {
            let Some(mut entry) = self.slices.remove(&place) else { continue };
            entry.save_rest(&self.tables, keys);
            self.held -= entry.bytes;
            let known = partial.ids().len();
            partial.merge(&entry.partial, keys.bound());
            partial.ids()[known..].iter().for_each(|id| keys.hold(*id));
            entry.release(keys);
        }
        self.version += 1;
        base.version = self.version;
        self.held += base.measure();
        self.slices.insert(place, base);
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
        let places = self.places_of(window);
        match self.scattered(&places, ids, self.is_slice())? {
            None => self.emit_whole((window, &places), ids, pane, by, fired),
            Some(scattered) => {
                let mut ranges = scattered.ranges.iter();
                ranges.try_for_each(|range| self.emit_part((window, &scattered, range), ids, pane, by, fired))
            }
        }
    }

    /// Emits a window that is all in memory.
    fn emit_whole(
        &mut self,
        (window, places): (Window, &[Place]),
        ids: Option<&[u32]>,
        pane: Pane,
        by: (Cause, i64),
        fired: &mut Fired,
    ) -> Result<()> {
        let merged;
        let partial = if self.is_slice() {
            let Some(entry) = places.first().and_then(|place| self.slices.get(place)) else { return Ok(()) };
            &entry.partial
        } else {
            merged = self.merged(places, ids)?;
            &merged
        };
        let order = in_output_order(&self.keys, partial, ids);
        let columns = columns_of(&self.spec.codec, &self.keys, partial, &order)?;
        let ids: Vec<u32> = order.iter().map(|(_, id)| *id).filter(|_| self.spec.refires()).collect();
        let firings = self.firings((window.end, window.start), order.len(), &ids, pane)?;
        fired.window(window, by, &firings, columns);
        Ok(())
    }

    /// The which-th results of their window these are: `ids` are their keys, if windows can be emitted more than once.
    fn firings(&mut self, place: Place, count: usize, ids: &[u32], pane: Pane) -> Result<Vec<Firing>> {
        if !self.spec.refires() {
            return Ok(vec![Firing::ONLY; count]);
        }
        self.version += 1;
        let emitted = self.emitted.entry(place).or_default();
        emitted.version = self.version;
        emitted.save(place, &self.tables, &self.keys, Due::Changes(ids));
        let numbers = emitted.times.count(&self.cold.tables, &mut self.keys, ids)?;
        Ok(numbers.into_iter().map(|number| Firing::numbered(number, pane)).collect())
    }

    /// Emits a window that closes, or the next piece of it; true when that was all of it.
    fn close_window(&mut self, slice: Slice, end: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        let window = Window { start: self.slicer.window_start(&slice, end), end };
        let by = (course.reached)(self.spec.clock.goal(end));
        let mut closing = match self.cold.closing.take() {
            Some(closing) => closing,
            None => {
                if self.folds() {
                    self.fold(first_of(slice), end)?;
                }
                let places = self.places_of(window);
                match self.scattered(&places, None, self.is_slice())? {
                    Some(scattered) => Closing { window: (slice, end), scattered, done: 0 },
                    None => {
                        self.emit_whole((window, &places), None, Pane::OnTime, by, fired)?;
                        return Ok(true);
                    }
                }
            }
        };
        if let Some(range) = closing.scattered.ranges.get(closing.done) {
            self.emit_part((window, &closing.scattered, range), None, Pane::OnTime, by, fired)?;
        }
        closing.done += 1;
        let is_done = closing.done >= closing.scattered.ranges.len();
        self.cold.closing = Some(closing).filter(|_| !is_done);
        Ok(is_done)
    }

    fn bytes_held(&self) -> usize {
        self.keys.byte_len() + self.bytes_to_spill()
    }

    /// The same without keys, which go with what holds them.
    fn bytes_to_spill(&self) -> usize {
        self.held + self.emitted.values().map(|emitted| emitted.times.byte_len()).sum::<usize>()
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
            let mut entry = first.remove();
            entry.save_rest(&self.tables, &self.keys);
            self.held -= entry.bytes;
            entry.release(&mut self.keys);
        }
        while let Some(first) = self.emitted.first_entry()
            && first.key().0 <= expired
        {
            let (place, mut emitted) = first.remove_entry();
            emitted.save(place, &self.tables, &self.keys, Due::Rest);
            emitted.times.release(&mut self.keys);
        }
    }
}

/// Slots and keys in the order in which they come out, all or some.
fn in_output_order(keys: &Dictionary, partial: &Partial, ids: Option<&[u32]>) -> Vec<(u32, u32)> {
    let mut order: Vec<(u32, u32)> = match ids {
        None => (0u32..).zip(partial.ids()).map(|(slot, id)| (slot, *id)).collect(),
        Some(ids) => ids.iter().filter_map(|id| partial.slot_of(*id).map(|slot| (slot, *id))).collect(),
    };
    keys.sort_by_key(&mut order, |(_, id)| *id);
    order
}

/// Keys and results.
fn columns_of(codec: &KeyCodec, keys: &Dictionary, partial: &Partial, order: &[(u32, u32)]) -> Result<Vec<ArrayRef>> {
    let slots: Vec<u32> = order.iter().map(|(slot, _)| *slot).collect();
    let mut columns = codec.decode(order.iter().map(|(_, id)| keys.key(*id)))?;
    columns.extend(partial.results(&slots)?);
    Ok(columns)
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
        let begun = self.cold.closing.as_ref().map(|closing| closing.window);
        if let Some((slice, end)) = begun.or_else(|| self.next_window())
            && end <= bounds.closed
        {
            if !self.close_window(slice, end, course, fired)? {
                return Ok(true);
            }
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
        let mut shown = Vec::new();
        for entry in self.slices.values_mut().filter(|entry| !entry.changed.is_empty()) {
            let ids = entry.take_changed(&self.tables, &self.keys);
            self.version += 1;
            entry.version = self.version;
            for window in self.slicer.windows_between(&entry.slice, self.closed, i64::MAX) {
                let all = &mut changed.entry((window.end, window.start)).or_insert((window, Vec::new())).1;
                all.extend_from_slice(&ids);
            }
            shown.extend(ids);
        }
        for (window, mut ids) in changed.into_values() {
            ids.sort_unstable();
            ids.dedup();
            self.emit(window, Some(&ids), Pane::Early, by, fired)?;
        }
        shown.into_iter().for_each(|id| self.keys.release(id));
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
        self.bytes_held()
    }

    fn spill(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        if self.bytes_to_spill() < least {
            return Ok(());
        }
        self.spill_slices(spill, bytes)
    }

    fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        self.sections(relay)
    }

    fn save_next(&mut self, ahead: usize) -> Step {
        self.save_some(ahead)
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        self.take_section(name, rows)
    }
}
