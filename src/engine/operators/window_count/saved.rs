//! Open windows of so many records as a table: one row each.

use super::{Alarm, CountWindows, Open};
use crate::engine::operators::parking::{Parks, Parts};
use crate::engine::operators::{no_section, time_field, times};
use crate::engine::output::Cause;
use crate::error::{Error, Result};
use crate::state::accumulator::save_all;
use crate::state::dictionary::Dictionary;
use crate::state::parked::Parked;
use crate::state::saving::Saving;
use crate::window::Window;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMillisecondType, UInt64Type};
use std::sync::Arc;

/// Name of the section.
pub(super) const OPEN: &str = "open";

/// Which of the columns is that of windows' ends.
pub(super) const WINDOW_END: usize = 1;

/// What is kept of a window beside its key and its accumulators.
pub(super) fn columns() -> Vec<Field> {
    vec![
        time_field("window_start"),
        time_field("window_end"),
        Field::new("count", DataType::UInt64, false),
        Field::new("opened_append_us", DataType::Int64, false),
        Field::new("opened_rank", DataType::UInt64, false),
        Field::new("opened_watermark", DataType::Int64, false),
        Field::new("due", DataType::Int64, true),
    ]
}

impl CountWindows {
    pub(super) fn load_section(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name != OPEN {
            return Err(no_section(name));
        }
        self.load_rows(rows)
    }
}

impl Parks for CountWindows {
    type Kept = Open;

    fn all(&self) -> impl Iterator<Item = (u32, Open)> {
        (0u32..).zip(&self.open).filter_map(|(key, open)| Some((key, (*open)?)))
    }

    fn of_key(&self, key: u32) -> impl Iterator<Item = (u32, Open)> {
        self.open[key as usize].into_iter().map(move |open| (key, open))
    }

    fn has(&self, key: u32) -> bool {
        self.open[key as usize].is_some()
    }

    fn bytes_in_memory(&self) -> usize {
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.byte_len()).sum::<usize>();
        let open = self.open.capacity() * size_of::<Option<Open>>() + self.due.capacity() * size_of::<Alarm>();
        self.keys.byte_len() + accumulators + open + self.free.capacity() * 4
    }

    fn end_of(open: &Open) -> i64 {
        open.window.end
    }

    /// When its time is over; without one, where it stands among all when the input ends.
    fn due_of(&self, open: &Open) -> i64 {
        open.due.unwrap_or(open.window.end)
    }

    fn stays(_: &Open) -> bool {
        false
    }

    fn parts(&self) -> Parts<'_> {
        (&self.table, &self.keys, &self.accumulators)
    }

    fn rows_of<'a>(
        (table, keys, accumulators): Parts<'_>,
        windows: impl Iterator<Item = &'a (u32, Open)> + Clone,
    ) -> Result<RecordBatch> {
        let signed = |of: fn(&Open) -> Option<i64>| -> ArrayRef {
            Arc::new(windows.clone().map(|(_, open)| of(open)).collect::<Int64Array>())
        };
        let unsigned = |of: fn(&Open) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(windows.clone().map(|(_, open)| of(open))))
        };
        let own = vec![
            times(windows.clone().map(|(_, open)| open.window.start)),
            times(windows.clone().map(|(_, open)| open.window.end)),
            unsigned(|open| open.count),
            signed(|open| Some(open.opened.0.time_us())),
            unsigned(|open| open.opened.0.rank()),
            signed(|open| Some(open.opened.1)),
            signed(|open| open.due),
        ];
        let slots: Vec<u32> = windows.clone().map(|(_, open)| open.slot).collect();
        table.batch(windows.map(|(key, _)| keys.key(*key)), own, save_all(accumulators, &slots)?)
    }

    fn take_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let table = Arc::clone(&self.table);
        let read = table.read(rows)?;
        let dictionary = &mut self.keys;
        let keys = dictionary.intern_all(&read.keys, rows.num_rows());
        let bound = dictionary.bound();
        self.make_room(bound);
        let [starts, ends] = [0, 1].map(|at: usize| read.own[at].as_primitive::<TimestampMillisecondType>().values());
        let [counts, ranks] = [2, 4].map(|at: usize| read.own[at].as_primitive::<UInt64Type>().values());
        let [appended, watermarks, dues] = [3, 5, 6].map(|at: usize| read.own[at].as_primitive::<Int64Type>());
        let mut slots = Vec::with_capacity(keys.len());
        for (row, key) in keys.into_iter().enumerate() {
            let due = dues.is_valid(row).then(|| dues.value(row));
            let (slot, number) = self.numbered(key, due);
            slots.push(slot);
            let window = Window { start: starts[row], end: ends[row] };
            let opened = (Cause::ranked(appended.value(row), ranks[row]), watermarks.value(row));
            let open = Open { window, count: counts[row], slot, number, opened, due };
            if self.open[key as usize].replace(open).is_some() {
                return Err(Error::damage("saved state has a key twice"));
            }
        }
        for (accumulator, state) in self.accumulators.iter_mut().zip(&read.states) {
            accumulator.grow(self.slots as usize);
            accumulator.load(&slots, state)?;
        }
        Ok(())
    }

    fn emptied(&self) -> Result<CountWindows> {
        CountWindows::new(self.size, self.timeout_ms, self.domain, self.spec.clone())
    }

    fn keys_mut(&mut self) -> &mut Dictionary {
        &mut self.keys
    }

    fn saving_mut(&mut self) -> &mut Option<Saving> {
        &mut self.saving
    }

    fn make_room(&mut self, bound: usize) {
        self.open.resize(bound.max(self.open.len()), None);
    }

    fn parked(&self) -> &Parked {
        &self.parked
    }

    fn parked_mut(&mut self) -> &mut Parked {
        &mut self.parked
    }
}
