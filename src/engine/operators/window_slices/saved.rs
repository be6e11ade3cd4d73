//! Slices and what is known of emitted windows as tables.

use super::{Emitted, Entry, Partial, Place, SliceWindows, place_of};
use crate::engine::operators::{WindowSpec, no_section, time_field, times};
use crate::error::{Error, Result};
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
        let (slice, early, changed) = (entry.slice, self.spec.early, entry.changed.clone());
        let name = format!("{SLICE}/{}..{}", slice.start, slice.end);
        Section::lazy(name, Arc::clone(table.schema()), Some(entry.version), move |take| {
            let all: Vec<u32> = (0u32..).take(partial.ids().len()).collect();
            for slots in all.chunks(PIECE_ROWS) {
                let ids = slots.iter().map(|slot| partial.ids()[*slot as usize]);
                let mut own = vec![times(slots.iter().map(|_| slice.start)), times(slots.iter().map(|_| slice.end))];
                if early {
                    let is_changed = ids.clone().map(|id| Some(changed.binary_search(&id).is_ok()));
                    own.push(Arc::new(is_changed.collect::<BooleanArray>()));
                }
                take(table.batch(ids.map(|id| keys.key(id)), own, partial.save(slots)?)?)?;
            }
            Ok(())
        })
    }

    fn emitted_section(&self, (end, start): Place, emitted: &Emitted) -> Section {
        let (table, keys, counts) =
            (Arc::clone(&self.tables.emitted), Arc::clone(&self.keys), Arc::clone(&emitted.times));
        let name = format!("{EMITTED}/{start}..{end}");
        Section::lazy(name, Arc::clone(table.schema()), Some(emitted.version), move |take| {
            let all: Vec<(u32, u32)> = counts.iter().map(|(id, count)| (*id, *count)).collect();
            for rows in all.chunks(PIECE_ROWS) {
                let count: UInt32Array = rows.iter().map(|(_, count)| Some(*count)).collect();
                let own = vec![times(rows.iter().map(|_| start)), times(rows.iter().map(|_| end)), Arc::new(count)];
                take(table.batch(rows.iter().map(|(id, _)| keys.key(*id)), own, Vec::new())?)?;
            }
            Ok(())
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
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let partial = Arc::new(Partial::new(&self.spec.aggregates)?);
                    entry.insert(Entry { slice, partial, changed: Vec::new(), version: 0 })
                }
            };
            let states: Vec<Vec<ArrayRef>> =
                read.states.iter().map(|state| state.iter().map(|column| column.slice(from, len)).collect()).collect();
            let states: Vec<&[ArrayRef]> = states.iter().map(Vec::as_slice).collect();
            Arc::make_mut(&mut entry.partial).load(&ids, keys.bound(), &states)?;
            ids.iter().for_each(|id| keys.hold(*id));
            if let Some(is_changed) = read.own.get(2) {
                let is_changed = is_changed.as_boolean();
                let changed = ids.iter().zip(group).filter(|(_, row)| is_changed.value(**row as usize));
                entry.changed.extend(changed.map(|(id, _)| *id));
                entry.changed.sort_unstable();
            }
            self.version += 1;
            entry.version = self.version;
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
            if Arc::make_mut(&mut emitted.times).insert(id, counts.value(row)).is_some() {
                return Err(Error::damage("saved state has a key twice"));
            }
            keys.hold(id);
        }
        Ok(())
    }
}
