//! Sessions that go to disk when state is beyond its budget: keys whose last record is oldest, first.

use super::saved::rows_of;
use super::{Due, Session, SessionWindows};
use crate::error::Result;
use crate::state::parked::Parking;
use crate::state::section::PIECE_ROWS;
use crate::state::spill::Spill;
use hashbrown::HashSet;
use std::sync::Arc;

impl SessionWindows {
    /// Brings back the sessions of keys that have rows, which are held.
    pub(super) fn fetch(&mut self, keys: &[u32]) -> Result<()> {
        if self.parked.is_empty() {
            return Ok(());
        }
        let absent = keys.iter().filter(|key| self.sessions[**key as usize].is_empty());
        let mut hashes: Vec<u64> = absent.map(|key| self.keys.hash(*key)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let back = self.parked.take_keys(&hashes)?;
        back.iter().try_for_each(|rows| self.take_sessions(rows))
    }

    /// Brings back sessions that a watermark closes or drops, the first of them if they are many; gives the watermark for which all are
    /// in memory.
    pub(super) fn fetch_due(&mut self, watermark: i64) -> Result<i64> {
        if self.parked.next_due().is_none_or(|due| due > watermark) {
            return Ok(watermark);
        }
        let (back, watermark) = self.parked.take_due(watermark)?;
        back.iter().try_for_each(|rows| self.take_sessions(rows))?;
        Ok(watermark)
    }

    /// The watermark that closes a session, or drops it.
    fn due(&self, session: &Session) -> i64 {
        let goal = self.spec.clock.goal(session.window.end);
        if session.is_closed { goal.saturating_add(self.spec.lateness_ms) } else { goal }
    }

    /// Bytes held without those of keys on disk.
    pub(super) fn bytes_to_park(&self) -> usize {
        // A list has room for four sessions from the first one on.
        let lists = self.sessions.len() * (size_of::<Vec<Session>>() + 4 * size_of::<Session>());
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.byte_len());
        let heaps = (self.due.capacity() + self.expiry.capacity()) * size_of::<Due>();
        let others = self.free.capacity() * size_of::<u32>() + self.changed.capacity() * 8;
        self.keys.byte_len() + lists + accumulators.sum::<usize>() + heaps + others
    }

    /// Writes keys out until so many bytes less are held, if at least `least` bytes of it can be. Sessions that the next tick shows stay.
    pub(super) fn park(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        let of_key = self.bytes_to_park() as f64 / self.keys.len().max(1) as f64;
        let keyed = (0u32..).zip(&self.sessions).filter(|(_, list)| !list.iter().any(|session| session.is_changed));
        let mut cold: Vec<(i64, u32)> = keyed.filter_map(|(key, list)| Some((list.last()?.window.end, key))).collect();
        if cold.is_empty() || of_key * (cold.len() as f64) < least as f64 {
            return Ok(());
        }
        cold.sort_unstable();
        cold.truncate((bytes as f64 / of_key).ceil() as usize);
        let cold: HashSet<u32> = cold.into_iter().map(|(_, key)| key).collect();
        let (cold, rest): (Vec<_>, Vec<_>) = self.all().partition(|(key, _)| cold.contains(key));
        let parking = cold.into_iter().map(|(key, session)| {
            let due = self.sessions[key as usize].iter().map(|session| self.due(session)).min();
            Parking { due: due.unwrap_or(i64::MAX), hash: self.keys.hash(key), row: (key, session) }
        });
        let (mut parked, state) = (self.parked.clone(), (&*self.keys, &self.accumulators[..]));
        let batch = |rows: &[Parking<_>]| rows_of(&self.table, state, rows.iter().map(|parking| &parking.row));
        parked.put(parking.collect(), batch, spill)?;
        // What stays moves together: so the room of what has gone becomes free.
        let mut fresh = SessionWindows::new(self.gap, self.spec.clone())?;
        for rows in rest.chunks(PIECE_ROWS) {
            fresh.take_sessions(&rows_of(&self.table, state, rows.iter())?)?;
        }
        fresh.parked = parked;
        *self = fresh;
        Ok(())
    }
}
