//! Sessions as a table: one row each.

use super::{Session, SessionWindows};
use crate::engine::operators::{no_section, time_field, times};
use crate::error::{Error, Result};
use crate::state::accumulator::save_all;
use crate::state::section::{PIECE_ROWS, Section};
use crate::window::Window;
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, TimestampMillisecondType, UInt32Type};
use std::cmp::Reverse;
use std::sync::Arc;

const SESSIONS: &str = "sessions";

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

fn flags(sessions: &[(u32, Session)], of: impl Fn(&Session) -> bool) -> ArrayRef {
    Arc::new(sessions.iter().map(|(_, session)| Some(of(session))).collect::<BooleanArray>())
}

impl SessionWindows {
    pub(super) fn section(&self) -> Section {
        let keyed = (0u32..).zip(&self.sessions);
        let all: Vec<(u32, Session)> =
            keyed.flat_map(|(key, list)| list.iter().map(move |session| (key, *session))).collect();
        let (table, keys, accumulators) =
            (Arc::clone(&self.table), Arc::clone(&self.keys), Arc::clone(&self.accumulators));
        Section::lazy(SESSIONS, Arc::clone(table.schema()), None, move |take| {
            for sessions in all.chunks(PIECE_ROWS) {
                let revisions = sessions.iter().map(|(_, session)| Some(session.revision));
                let own = vec![
                    times(sessions.iter().map(|(_, session)| session.window.start)),
                    times(sessions.iter().map(|(_, session)| session.window.end)),
                    Arc::new(revisions.collect::<UInt32Array>()) as ArrayRef,
                    flags(sessions, |session| session.is_shown),
                    flags(sessions, |session| session.is_closed),
                    flags(sessions, |session| session.is_changed),
                ];
                let slots: Vec<u32> = sessions.iter().map(|(_, session)| session.slot).collect();
                let states = save_all(&accumulators, &slots)?;
                take(table.batch(sessions.iter().map(|(key, _)| keys.key(*key)), own, states)?)?;
            }
            Ok(())
        })
    }

    pub(super) fn take_section(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name != SESSIONS {
            return Err(no_section(name));
        }
        let table = Arc::clone(&self.table);
        let read = table.read(rows)?;
        let dictionary = Arc::make_mut(&mut self.keys);
        let keys = dictionary.intern_all(&read.keys, rows.num_rows());
        keys.iter().for_each(|key| dictionary.hold(*key));
        self.sessions.resize_with(dictionary.bound().max(self.sessions.len()), Vec::new);
        let slots: Vec<u32> = keys.iter().map(|_| self.new_slot()).collect();
        for (accumulator, state) in Arc::make_mut(&mut self.accumulators).iter_mut().zip(&read.states) {
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
