//! Sessions as a table: one row each.

use super::{Alarm, Session, SessionWindows};
use crate::engine::operators::parking::{Parks, Parts};
use crate::engine::operators::{no_section, time_field, times};
use crate::error::{Error, Result};
use crate::state::accumulator::save_all;
use crate::state::dictionary::Dictionary;
use crate::state::parked::Parked;
use crate::state::saving::Saving;
use crate::window::Window;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, TimestampMillisecondType, UInt32Type};
use std::cmp::Reverse;
use std::sync::Arc;

/// Name of the section.
pub(super) const SESSIONS: &str = "sessions";

/// What is kept of a session beside its key and its accumulators.
pub(super) fn columns() -> Vec<Field> {
    let flag = |name| Field::new(name, DataType::Boolean, false);
    vec![
        time_field("window_start"),
        time_field("window_end"),
        Field::new("revision", DataType::UInt32, false),
        flag("is_shown"),
        flag("is_closed"),
        flag("is_changed"),
    ]
}

impl SessionWindows {
    pub(super) fn load_section(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name != SESSIONS {
            return Err(no_section(name));
        }
        self.load_rows(rows)
    }

    /// Puts a session into its key's list.
    fn put(&mut self, key: u32, session: Session) -> Result<()> {
        let list = &mut self.sessions[key as usize];
        let place = list.partition_point(|other| other.window.start < session.window.start);
        if list.get(place).is_some_and(|other| other.window.start == session.window.start) {
            return Err(Error::damage("saved state has a session twice"));
        }
        list.insert(place, session);
        let due = Reverse((session.window.end, key, session.slot));
        if session.is_closed {
            self.expiry.push(due)
        } else {
            self.due.push(due)
        }
        if session.is_changed {
            self.changed.push((key, session.slot));
        }
        Ok(())
    }
}

impl Parks for SessionWindows {
    type Kept = Session;

    fn all(&self) -> impl Iterator<Item = (u32, Session)> {
        (0u32..).take(self.sessions.len()).flat_map(|key| self.of_key(key))
    }

    fn of_key(&self, key: u32) -> impl Iterator<Item = (u32, Session)> {
        self.sessions[key as usize].iter().map(move |session| (key, *session))
    }

    fn has(&self, key: u32) -> bool {
        !self.sessions[key as usize].is_empty()
    }

    fn bytes_in_memory(&self) -> usize {
        // A list has room for four sessions from the first one on.
        let lists = self.sessions.len() * (size_of::<Vec<Session>>() + 4 * size_of::<Session>());
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.byte_len());
        let heaps = (self.due.capacity() + self.expiry.capacity()) * size_of::<Alarm>();
        let others = self.free.capacity() * size_of::<u32>() + self.changed.capacity() * 8;
        self.keys.byte_len() + lists + accumulators.sum::<usize>() + heaps + others
    }

    fn end_of(session: &Session) -> i64 {
        session.window.end
    }

    /// The watermark that closes it, or drops it.
    fn due_of(&self, session: &Session) -> i64 {
        let goal = self.spec.clock.goal(session.window.end);
        if session.is_closed { goal.saturating_add(self.spec.lateness_ms) } else { goal }
    }

    /// The next tick shows it.
    fn stays(session: &Session) -> bool {
        session.is_changed
    }

    fn parts(&self) -> Parts<'_> {
        (&self.table, &self.keys, &self.accumulators)
    }

    fn rows_of<'a>(
        (table, keys, accumulators): Parts<'_>,
        sessions: impl Iterator<Item = &'a (u32, Session)> + Clone,
    ) -> Result<RecordBatch> {
        let flag = |of: fn(&Session) -> bool| -> ArrayRef {
            Arc::new(sessions.clone().map(|(_, session)| Some(of(session))).collect::<BooleanArray>())
        };
        let own = vec![
            times(sessions.clone().map(|(_, session)| session.window.start)),
            times(sessions.clone().map(|(_, session)| session.window.end)),
            Arc::new(UInt32Array::from_iter_values(sessions.clone().map(|(_, session)| session.revision))) as ArrayRef,
            flag(|session| session.is_shown),
            flag(|session| session.is_closed),
            flag(|session| session.is_changed),
        ];
        let slots: Vec<u32> = sessions.clone().map(|(_, session)| session.slot).collect();
        table.batch(sessions.map(|(key, _)| keys.key(*key)), own, save_all(accumulators, &slots)?)
    }

    fn take_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let table = Arc::clone(&self.table);
        let read = table.read(rows)?;
        let dictionary = &mut self.keys;
        let keys = dictionary.intern_all(&read.keys, rows.num_rows());
        keys.iter().for_each(|key| dictionary.hold(*key));
        let bound = dictionary.bound();
        self.make_room(bound);
        let slots: Vec<u32> = keys.iter().map(|_| self.new_slot()).collect();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&read.states) {
            accumulator.grow(self.slots as usize);
            accumulator.load(&slots, state)?;
        }
        let [starts, ends] = [0, 1].map(|at: usize| read.own[at].as_primitive::<TimestampMillisecondType>().values());
        let revisions = read.own[2].as_primitive::<UInt32Type>().values();
        let [shown, closed, changed] = [3, 4, 5].map(|at: usize| read.own[at].as_boolean());
        for (row, (key, slot)) in keys.into_iter().zip(slots).enumerate() {
            let window = Window { start: starts[row], end: ends[row] };
            let (is_shown, is_closed, is_changed) = (shown.value(row), closed.value(row), changed.value(row));
            self.put(key, Session { window, slot, revision: revisions[row], is_shown, is_closed, is_changed })?;
        }
        Ok(())
    }

    fn emptied(&self) -> Result<SessionWindows> {
        SessionWindows::new(self.gap, self.spec.clone())
    }

    fn keys_mut(&mut self) -> &mut Dictionary {
        &mut self.keys
    }

    fn saving_mut(&mut self) -> &mut Option<Saving> {
        &mut self.saving
    }

    fn make_room(&mut self, bound: usize) {
        self.sessions.resize_with(bound.max(self.sessions.len()), Vec::new);
    }

    fn parked(&self) -> &Parked {
        &self.parked
    }

    fn parked_mut(&mut self) -> &mut Parked {
        &mut self.parked
    }
}
