//! Slices and what is known of emitted windows as tables.

use super::cold::each_part;
use super::{Emitted, Entry, Partial, Place, SliceWindows, place_of};
use crate::engine::operators::{WindowSpec, no_section, time_field, times};
use crate::error::{Error, Result};
use crate::state::dictionary::Dictionary;
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
        Ok(Tables { slices: Arc::new(slices), emitted: Arc::new(emitted) })
    }
}

/// The windows of rows, or the slices, by their bounds; every row has them.
fn bounds(own: &[ArrayRef]) -> (&[i64], &[i64]) {
    let starts = own[0].as_primitive::<TimestampMillisecondType>();
    (starts.values(), own[1].as_primitive::<TimestampMillisecondType>().values())
}

/// The rows of a slice; `changed` are the keys that a tick has yet to show, if there are ticks.
fn rows_of(
    table: &Keyed,
    slice: Slice,
    (keys, partial, changed): (&Dictionary, &Partial, Option<&[u32]>),
    take: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let all: Vec<u32> = (0u32..).take(partial.ids().len()).collect();
    for slots in all.chunks(PIECE_ROWS) {
        let ids = slots.iter().map(|slot| partial.ids()[*slot as usize]);
        let mut own = vec![times(slots.iter().map(|_| slice.start)), times(slots.iter().map(|_| slice.end))];
        if let Some(changed) = changed {
            let is_changed = ids.clone().map(|id| Some(changed.binary_search(&id).is_ok()));
            own.push(Arc::new(is_changed.collect::<BooleanArray>()));
        }
        take(table.batch(ids.map(|id| keys.key(id)), own, partial.save(slots)?)?)?;
    }
    Ok(())
}

impl SliceWindows {
    pub(super) fn sections(&self) -> Result<Vec<Section>> {
        let closed = TimestampMillisecondArray::from(vec![Some(self.closed).filter(|end| *end != i64::MIN)]);
        let mut sections = vec![Section::table(CLOSED, vec![("closed_end", Arc::new(closed) as ArrayRef)])?];
        sections.extend(self.slices.values().map(|entry| self.slice_section(entry)));
        sections.extend(self.emitted.iter().map(|(place, emitted)| self.emitted_section(*place, emitted)));
        Ok(sections)
    }

    fn slice_section(&self, entry: &Entry) -> Section {
        let (table, keys, partial) =
            (Arc::clone(&self.tables.slices), Arc::clone(&self.keys), Arc::clone(&entry.partial));
        let (cold_tables, cold) = (Arc::clone(&self.cold.tables), entry.cold.clone());
        let (slice, changed) = (entry.slice, self.spec.early.then(|| entry.changed.clone()));
        let name = format!("{SLICE}/{}..{}", slice.start, slice.end);
        Section::lazy(name, Arc::clone(table.schema()), Some(entry.version), move |take| {
            if cold.is_empty() {
                return rows_of(&table, slice, (&keys, &partial, changed.as_deref()), take);
            }
            each_part(&cold_tables, (&cold, &keys, &partial), &mut |mut own, part| {
                let changed = changed.as_ref().map(|changed| {
                    let mut own: Vec<u32> = changed.iter().map(|id| own.insert(keys.key(*id))).collect();
                    own.sort_unstable();
                    own
                });
                rows_of(&table, slice, (&own, &part, changed.as_deref()), take)
            })
        })
    }

    fn emitted_section(&self, (end, start): Place, emitted: &Emitted) -> Section {
        let (table, keys, numbers) = (Arc::clone(&self.tables.emitted), Arc::clone(&self.keys), emitted.times.clone());
        let cold_tables = Arc::clone(&self.cold.tables);
        let name = format!("{EMITTED}/{start}..{end}");
        Section::lazy(name, Arc::clone(table.schema()), Some(emitted.version), move |take| {
            numbers.each(&cold_tables, &keys, &mut |keys, part| {
                part.chunks(PIECE_ROWS).try_for_each(|rows| {
                    let count: UInt32Array = rows.iter().map(|(_, count)| Some(*count)).collect();
                    let own = vec![times(rows.iter().map(|_| start)), times(rows.iter().map(|_| end)), Arc::new(count)];
                    take(table.batch(rows.iter().map(|(id, _)| keys.key(*id)), own, Vec::new())?)
                })
            })
        })
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
            let keys = Arc::make_mut(&mut self.keys);
            let mut ids = Vec::new();
            keys.intern(&read.keys, group, &mut ids);
            let entry = match self.slices.entry(place_of(&slice)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Entry::new(slice, &self.spec, 0)?),
            };
            let states: Vec<Vec<ArrayRef>> =
                read.states.iter().map(|state| state.iter().map(|column| column.slice(from, len)).collect()).collect();
            let states: Vec<&[ArrayRef]> = states.iter().map(Vec::as_slice).collect();
            Arc::make_mut(&mut entry.partial).load(&ids, keys.bound(), &states)?;
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
        let keys = Arc::make_mut(&mut self.keys);
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
