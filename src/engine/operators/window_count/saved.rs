//! Open windows of so many records as a table: one row each.

use super::{CountWindows, Open};
use crate::engine::operators::{no_section, time_field, times};
use crate::engine::output::Cause;
use crate::error::{Error, Result};
use crate::state::accumulator::save_all;
use crate::state::section::{PIECE_ROWS, Section};
use crate::window::Window;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMillisecondType, UInt64Type};
use std::sync::Arc;

const OPEN: &str = "open";

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

/// The columns of some windows.
fn columns_of(rows: &[(u32, Open)]) -> Vec<ArrayRef> {
    let signed = |of: &dyn Fn(&Open) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, open)| of(open)).collect::<Int64Array>())
    };
    let unsigned = |of: &dyn Fn(&Open) -> u64| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, open)| Some(of(open))).collect::<UInt64Array>())
    };
    vec![
        times(rows.iter().map(|(_, open)| open.window.start)),
        times(rows.iter().map(|(_, open)| open.window.end)),
        unsigned(&|open| open.count),
        signed(&|open| Some(open.opened.0.time_us())),
        unsigned(&|open| open.opened.0.rank()),
        signed(&|open| Some(open.opened.1)),
        signed(&|open| open.due),
    ]
}

impl CountWindows {
    pub(super) fn section(&self) -> Section {
        let keyed = (0u32..).zip(&self.open);
        let all: Vec<(u32, Open)> = keyed.filter_map(|(key, open)| Some((key, (*open)?))).collect();
        let (table, keys, accumulators) =
            (Arc::clone(&self.table), Arc::clone(&self.keys), Arc::clone(&self.accumulators));
        Section::lazy(OPEN, Arc::clone(table.schema()), None, move |take| {
            for rows in all.chunks(PIECE_ROWS) {
                let slots: Vec<u32> = rows.iter().map(|(_, open)| open.slot).collect();
                let states = save_all(&accumulators, &slots)?;
                take(table.batch(rows.iter().map(|(key, _)| keys.key(*key)), columns_of(rows), states)?)?;
            }
            Ok(())
        })
    }

    pub(super) fn take_section(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name != OPEN {
            return Err(no_section(name));
        }
        let table = Arc::clone(&self.table);
        let read = table.read(rows)?;
        let dictionary = Arc::make_mut(&mut self.keys);
        let keys = dictionary.intern_all(&read.keys, rows.num_rows());
        self.open.resize(dictionary.bound().max(self.open.len()), None);
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
        for (accumulator, state) in Arc::make_mut(&mut self.accumulators).iter_mut().zip(&read.states) {
            accumulator.grow(self.slots as usize);
            accumulator.load(&slots, state)?;
        }
        Ok(())
    }
}
