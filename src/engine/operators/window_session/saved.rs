//! Sessions as a table: one row each.

use super::{Agenda, Session};
use crate::engine::operators::WindowSpec;
use crate::engine::operators::keyed_state::Kept;
use crate::error::{Error, Result};
use crate::window::Window;
use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field, UInt32Type};
use std::sync::Arc;

impl Kept for Session {
    const SECTION: &str = "sessions";
    type OfKey = Vec<Session>;
    /// A list has room for four sessions from the first one on.
    const BYTES_ELSEWHERE: usize = 4 * size_of::<Session>();
    type Agenda = Agenda;

    fn list(sessions: &Vec<Session>) -> &[Session] {
        sessions
    }

    fn put(self, key: u32, list: &mut Vec<Session>, agenda: &mut Agenda) -> Result<()> {
        let place = list.partition_point(|other| other.window.start < self.window.start);
        if list.get(place).is_some_and(|other| other.window.start == self.window.start) {
            return Err(Error::damage("saved state has a session twice"));
        }
        list.insert(place, self);
        let alarms = if self.is_closed { &mut agenda.expiry } else { &mut agenda.due };
        alarms.set(self.window.end, key, self.slot);
        if self.is_changed {
            agenda.changed.push((key, self.slot));
        }
        Ok(())
    }

    fn agenda_bytes(agenda: &Agenda) -> usize {
        agenda.due.byte_len() + agenda.expiry.byte_len() + agenda.changed.capacity() * size_of::<(u32, u32)>()
    }

    fn window(&self) -> Window {
        self.window
    }

    fn slot(&self) -> u32 {
        self.slot
    }

    /// The watermark that closes it, or drops it.
    fn due(&self, spec: &WindowSpec) -> i64 {
        let goal = spec.clock.goal(self.window.end);
        if self.is_closed { goal.saturating_add(spec.lateness_ms) } else { goal }
    }

    /// The next tick shows it.
    fn stays(&self) -> bool {
        self.is_changed
    }

    fn fields() -> Vec<Field> {
        let flag = |name| Field::new(name, DataType::Boolean, false);
        let revision = Field::new("revision", DataType::UInt32, false);
        vec![revision, flag("is_shown"), flag("is_closed"), flag("is_changed")]
    }

    fn columns(all: &[Session]) -> Vec<ArrayRef> {
        let flag = |of: fn(&Session) -> bool| -> ArrayRef {
            Arc::new(all.iter().map(|session| Some(of(session))).collect::<BooleanArray>())
        };
        vec![
            Arc::new(UInt32Array::from_iter_values(all.iter().map(|session| session.revision))),
            flag(|session| session.is_shown),
            flag(|session| session.is_closed),
            flag(|session| session.is_changed),
        ]
    }

    fn reader(columns: &[ArrayRef]) -> impl Fn(usize, Window, u32) -> Session {
        let revisions = columns[0].as_primitive::<UInt32Type>().values();
        let [shown, closed, changed] = [1, 2, 3].map(|at: usize| columns[at].as_boolean());
        |row, window, slot| {
            let (is_shown, is_closed, is_changed) = (shown.value(row), closed.value(row), changed.value(row));
            Session { window, slot, revision: revisions[row], is_shown, is_closed, is_changed }
        }
    }
}
