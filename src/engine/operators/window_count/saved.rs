//! Open windows of so many records as a table: one row each.

use super::Open;
use crate::engine::operators::WindowSpec;
use crate::engine::operators::keyed_state::{Alarms, Kept};
use crate::engine::output::Cause;
use crate::error::{Error, Result};
use crate::window::Window;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, UInt64Type};
use std::sync::Arc;

impl Kept for Open {
    const SECTION: &str = "open";
    type OfKey = Option<Open>;
    const BYTES_ELSEWHERE: usize = 0;
    type Agenda = Alarms;

    fn list(open: &Option<Open>) -> &[Open] {
        open.as_slice()
    }

    fn put(self, key: u32, open: &mut Option<Open>, agenda: &mut Alarms) -> Result<()> {
        if let Some(due) = self.due {
            agenda.set(due, key, self.slot);
        }
        match open.replace(self) {
            None => Ok(()),
            Some(_) => Err(Error::damage("saved state has a key twice")),
        }
    }

    fn agenda_bytes(agenda: &Alarms) -> usize {
        agenda.byte_len()
    }

    fn window(&self) -> Window {
        self.window
    }

    fn slot(&self) -> u32 {
        self.slot
    }

    /// When its time is over; without one, where it stands among all when the input ends.
    fn due(&self, _: &WindowSpec) -> i64 {
        self.due.unwrap_or(self.window.end)
    }

    fn stays(&self) -> bool {
        false
    }

    fn fields() -> Vec<Field> {
        vec![
            Field::new("count", DataType::UInt64, false),
            Field::new("opened_append_us", DataType::Int64, false),
            Field::new("opened_rank", DataType::UInt64, false),
            Field::new("opened_watermark", DataType::Int64, false),
            Field::new("due", DataType::Int64, true),
        ]
    }

    fn columns(all: &[Open]) -> Vec<ArrayRef> {
        let signed =
            |of: fn(&Open) -> Option<i64>| -> ArrayRef { Arc::new(all.iter().map(of).collect::<Int64Array>()) };
        let unsigned =
            |of: fn(&Open) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(all.iter().map(of))) };
        vec![
            unsigned(|open| open.count),
            signed(|open| Some(open.opened.0.time_us())),
            unsigned(|open| open.opened.0.rank()),
            signed(|open| Some(open.opened.1)),
            signed(|open| open.due),
        ]
    }

    fn reader(columns: &[ArrayRef]) -> impl Fn(usize, Window, u32) -> Open {
        let [counts, ranks] = [0, 2].map(|at: usize| columns[at].as_primitive::<UInt64Type>().values());
        let [appended, watermarks, dues] = [1, 3, 4].map(|at: usize| columns[at].as_primitive::<Int64Type>());
        |row, window, slot| {
            let opened = (Cause::ranked(appended.value(row), ranks[row]), watermarks.value(row));
            let due = dues.is_valid(row).then(|| dues.value(row));
            Open { window, count: counts[row], slot, opened, due }
        }
    }
}
