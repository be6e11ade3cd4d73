//! Slices and what is known of emitted windows as tables.

use super::cold::each_part;
use super::{Emitted, Entry, Partial, Place, SliceWindows, place_of};
use crate::engine::operators::{WindowSpec, no_section, time_field, times};
use crate::error::{Error, Result};
use crate::state::cold::ColdTables;
use crate::state::dictionary::Dictionary;
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::{Keyed, PIECE_ROWS, Section, column};
use crate::window::Window;
use crate::window::assign::{Slice, Slicer};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, TimestampMillisecondType, UInt32Type};
use std::sync::Arc;

const CLOSED: &str = "closed";
const SLICE: &str = "slice";
const EMITTED: &str = "emitted";

/// The tables of slices and of emitted windows.
pub(super) struct Tables {
    slices: Arc<Keyed>,
    emitted: Arc<Keyed>,
    /// Whether slices say which keys a tick has yet to show.
    has_ticks: bool,
}

impl Tables {
    pub fn new(spec: &WindowSpec) -> Result<Tables> {
        let mut own = vec![time_field("slice_start"), time_field("slice_end")];
        if spec.early {
            own.push(Field::new("is_changed", DataType::Boolean, false));
        }
        let slices = spec.table(&own)?;
        let own =
            [time_field("window_start"), time_field("window_end"), Field::new("emitted", DataType::UInt32, false)];
        let emitted = Keyed::new(&spec.codec, &spec.key_fields, &own, &[])?;
        Ok(Tables { slices: Arc::new(slices), emitted: Arc::new(emitted), has_ticks: spec.early })
    }
}

/// The windows of rows, or the slices, by their bounds; every row has them.
fn bounds(own: &[ArrayRef]) -> (&[i64], &[i64]) {
    let starts = own[0].as_primitive::<TimestampMillisecondType>();
    (starts.values(), own[1].as_primitive::<TimestampMillisecondType>().values())
}

/// The rows of some slots of a slice; `changed` are the keys that a tick has yet to show, if there are ticks.
fn rows_of(
    table: &Keyed,
    slice: Slice,
    (keys, partial, changed): (&Dictionary, &Partial, Option<&[u32]>),
    slots: &[u32],
) -> Result<RecordBatch> {
    let ids = slots.iter().map(|slot| partial.ids()[*slot as usize]);
    let mut own = vec![times(slots.iter().map(|_| slice.start)), times(slots.iter().map(|_| slice.end))];
    if let Some(changed) = changed {
        let is_changed = ids.clone().map(|id| Some(changed.binary_search(&id).is_ok()));
        own.push(Arc::new(is_changed.collect::<BooleanArray>()));
    }
    table.batch(ids.map(|id| keys.key(id)), own, partial.save(slots)?)
}

/// The same of all slots.
fn each_row(
    table: &Keyed,
    slice: Slice,
    whole: (&Dictionary, &Partial, Option<&[u32]>),
    take: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let all: Vec<u32> = (0u32..).take(whole.1.ids().len()).collect();
    all.chunks(PIECE_ROWS).try_for_each(|slots| take(rows_of(table, slice, whole, slots)?))
}

/// What has happened to keys of a window, which ends and starts there.
fn numbers_of(
    table: &Keyed,
    (end, start): Place,
    keys: &Dictionary,
    numbers: impl Iterator<Item = (u32, u32)> + Clone,
) -> Result<RecordBatch> {
    let count: UInt32Array = numbers.clone().map(|(_, count)| Some(count)).collect();
    let own = vec![times(numbers.clone().map(|_| start)), times(numbers.clone().map(|_| end)), Arc::new(count)];
    table.batch(numbers.map(|(id, _)| keys.key(id)), own, Vec::new())
}

/// Adds rows that were saved to a slice of theirs; gives their keys.
fn load_rows(table: &Keyed, rows: &RecordBatch, keys: &mut Dictionary, partial: &mut Partial) -> Result<Vec<u32>> {
    let read = table.read(rows)?;
    let ids = keys.intern_all(&read.keys, rows.num_rows());
    partial.load(&ids, keys.bound(), &read.states)?;
    Ok(ids)
}

impl Entry {
    /// Gives what is to be saved of slots that are due.
    fn save(&mut self, tables: &Tables, keys: &Dictionary, due: Due<'_>) -> Step {
        let Entry { saving, slice, partial, changed, .. } = self;
        let changed = tables.has_ticks.then_some(&changed[..]);
        Saving::give(saving, due, |slots| rows_of(&tables.slices, *slice, (keys, partial, changed), slots))
    }

    /// The same of keys that are about to change.
    pub(super) fn save_keys(&mut self, tables: &Tables, keys: &Dictionary, ids: &[u32]) {
        if self.saving.is_some() {
            let slots: Vec<u32> = ids.iter().filter_map(|id| self.partial.slot_of(*id)).collect();
            self.save(tables, keys, Due::Changes(&slots));
        }
    }

    /// The same of all keys.
    pub(super) fn save_rest(&mut self, tables: &Tables, keys: &Dictionary) {
        self.save(tables, keys, Due::Rest);
    }
}

impl Emitted {
    /// Gives what is to be saved of keys that are due.
    pub(super) fn save(&mut self, place: Place, tables: &Tables, keys: &Dictionary, due: Due<'_>) -> Step {
        let Emitted { saving, times, .. } = self;
        Saving::give(saving, due, |ids| {
            numbers_of(&tables.emitted, place, keys, ids.iter().filter_map(|id| Some((*id, times.of(*id)?))))
        })
    }
}

impl SliceWindows {
    pub(super) fn sections(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        let closed = TimestampMillisecondArray::from(vec![Some(self.closed).filter(|end| *end != i64::MIN)]);
        let mut sections = vec![Section::table(CLOSED, vec![("closed_end", Arc::new(closed) as ArrayRef)])?];
        let SliceWindows { tables, keys, slices, emitted, cold, .. } = self;
        let slices = slices.values_mut().map(|entry| slice_section(tables, &cold.tables, keys, entry, relay));
        sections.extend(slices);
        let emitted = emitted.iter_mut();
        sections.extend(
            emitted.map(|(place, emitted)| emitted_section(tables, &cold.tables, keys, (*place, emitted), relay)),
        );
        Ok(sections)
    }

    /// Gives the next rows that are to be saved.
    pub(super) fn save_some(&mut self, ahead: usize) -> Step {
        let SliceWindows { tables, keys, slices, emitted, .. } = self;
        let due = Due::Next { ahead };
        let slices = slices.values_mut().map(|entry| entry.save(tables, keys, due));
        let emitted = emitted.iter_mut().map(|(place, emitted)| emitted.save(*place, tables, keys, due));
        slices.chain(emitted).find(|step| *step != Step::Over).unwrap_or(Step::Over)
    }

    pub(super) fn take_section(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        match name.split('/').next() {
            Some(CLOSED) => {
                let closed: &TimestampMillisecondArray = column(rows, "closed_end")?;
                self.closed = closed.iter().flatten().fold(self.closed, i64::max);
                Ok(())
            }
            Some(SLICE) => self.take_slices(rows),
            Some(EMITTED) => self.take_emitted(rows),
            _ => Err(no_section(name)),
        }
    }

    fn take_slices(&mut self, rows: &RecordBatch) -> Result<()> {
        let table = Arc::clone(&self.tables.slices);
        let read = table.read(rows)?;
        let (starts, ends) = bounds(read.own);
        let numbers: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
        for group in numbers
            .chunk_by(|a, b| starts[*a as usize] == starts[*b as usize] && ends[*a as usize] == ends[*b as usize])
        {
            let (from, len) = (group[0] as usize, group.len());
            let slice = self.slice_between(starts[from], ends[from])?;
            let keys = &mut self.keys;
            let mut ids = Vec::new();
            keys.intern(&read.keys, group, &mut ids);
            let entry = match self.slices.entry(place_of(&slice)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Entry::new(slice, &self.spec, 0)?),
            };
            let states: Vec<Vec<ArrayRef>> =
                read.states.iter().map(|state| state.iter().map(|column| column.slice(from, len)).collect()).collect();
            let states: Vec<&[ArrayRef]> = states.iter().map(Vec::as_slice).collect();
            entry.partial.load(&ids, keys.bound(), &states)?;
            ids.iter().for_each(|id| keys.hold(*id));
            if let Some(is_changed) = read.own.get(2) {
                let is_changed = is_changed.as_boolean();
                let changed = ids.iter().zip(group).filter(|(_, row)| is_changed.value(**row as usize));
                entry.change(&changed.map(|(id, _)| *id).collect::<Vec<_>>(), keys);
            }
            self.version += 1;
            entry.version = self.version;
            self.held = self.held - entry.bytes + entry.measure();
        }
        Ok(())
    }

    /// The slice with these bounds, as rows of its time or its window would have made it.
    fn slice_between(&self, start: i64, end: i64) -> Result<Slice> {
        let slice = match self.slicer {
            Slicer::Given => Some(Slicer::slice_of_window(Window { start, end })),
            _ => self.slicer.slice_of(start),
        };
        let slice = slice.filter(|slice| (slice.start, slice.end) == (start, end));
        slice.ok_or_else(|| Error::damage(format!("saved state has a slice {start}..{end} that no window has")))
    }

    fn take_emitted(&mut self, rows: &RecordBatch) -> Result<()> {
        let table = Arc::clone(&self.tables.emitted);
        let read = table.read(rows)?;
        let (starts, ends) = bounds(read.own);
        let counts = read.own[2].as_primitive::<UInt32Type>();
        let keys = &mut self.keys;
        let ids = keys.intern_all(&read.keys, rows.num_rows());
        self.version += 1;
        for (row, id) in ids.into_iter().enumerate() {
            let emitted = self.emitted.entry((ends[row], starts[row])).or_default();
            emitted.version = self.version;
            if !emitted.times.put(keys, id, counts.value(row)) {
                return Err(Error::damage("saved state has a key twice"));
            }
        }
        Ok(())
    }
}

/// A slice that is saved from now on; what is on disk is put together by whoever writes it.
fn slice_section(
    tables: &Tables,
    cold_tables: &Arc<ColdTables>,
    keys: &Dictionary,
    entry: &mut Entry,
    relay: &Arc<Relay>,
) -> Section {
    let (saving, pieces) = Saving::below(relay, entry.partial.ids().len());
    entry.saving = Some(saving);
    let (table, cold_tables, cold) = (Arc::clone(&tables.slices), Arc::clone(cold_tables), entry.cold.clone());
    let is_cold = !cold.is_empty();
    let changed: Option<Vec<Vec<u8>>> =
        (tables.has_ticks && is_cold).then(|| entry.changed.iter().map(|id| keys.key(*id).to_vec()).collect());
    let slice = entry.slice;
    let name = format!("{SLICE}/{}..{}", slice.start, slice.end);
    Section::lazy(name, Arc::clone(table.schema()), Some(entry.version), move |take| {
        if !is_cold {
            return pieces.each(take);
        }
        let (mut keys, mut partial) = (Dictionary::new(&cold_tables.codec), cold_tables.empty()?);
        pieces.each(&mut |rows| load_rows(&table, &rows, &mut keys, &mut partial).map(drop))?;
        each_part(&cold_tables, (&cold, &keys, &partial), &mut |mut own, part| {
            let changed = changed.as_ref().map(|changed| {
                let mut own: Vec<u32> = changed.iter().map(|key| own.insert(key)).collect();
                own.sort_unstable();
                own
            });
            each_row(&table, slice, (&own, &part, changed.as_deref()), take)
        })
    })
}

/// What is known of an emitted window, saved from now on.
fn emitted_section(
    tables: &Tables,
    cold_tables: &Arc<ColdTables>,
    keys: &Dictionary,
    (place, emitted): (Place, &mut Emitted),
    relay: &Arc<Relay>,
) -> Section {
    let (saving, pieces) = Saving::of(relay, keys.bound(), emitted.times.known());
    emitted.saving = Some(saving);
    let (table, cold_tables, on_disk) = (Arc::clone(&tables.emitted), Arc::clone(cold_tables), emitted.times.on_disk());
    let name = format!("{EMITTED}/{}..{}", place.1, place.0);
    Section::lazy(name, Arc::clone(table.schema()), Some(emitted.version), move |take| {
        if on_disk.is_in_memory() {
            return pieces.each(take);
        }
        let (mut keys, mut numbers) = (Dictionary::new(&cold_tables.codec), on_disk.on_disk());
        pieces.each(&mut |rows| {
            let read = table.read(&rows)?;
            let ids = keys.intern_all(&read.keys, rows.num_rows());
            let counts = read.own[2].as_primitive::<UInt32Type>().values();
            let is_new = ids.into_iter().zip(counts).all(|(id, count)| numbers.put(&mut keys, id, *count));
            if is_new { Ok(()) } else { Err(Error::internal("a key was saved twice")) }
        })?;
        numbers.each(&cold_tables, &keys, &mut |keys, part| {
            part.chunks(PIECE_ROWS).try_for_each(|rows| take(numbers_of(&table, place, keys, rows.iter().copied())?))
        })
    })
}
