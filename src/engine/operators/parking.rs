//! Operators that keep something for each key, and have keys on disk when state is beyond its budget: those first whose newest record is
//! oldest. A key comes back with all that is kept for it, before a row of it is added or when its time is over.

use crate::error::Result;
use crate::state::accumulator::Accumulator;
use crate::state::dictionary::Dictionary;
use crate::state::keys::KeyRows;
use crate::state::parked::{Parked, Parking, coldest};
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::{Keyed, PIECE_ROWS, Section};
use crate::state::spill::Spill;
use arrow::array::RecordBatch;
use std::sync::Arc;

/// What a table of keys is made from.
pub(super) type Parts<'a> = (&'a Keyed, &'a Dictionary, &'a [Box<dyn Accumulator>]);

/// Such an operator.
pub(super) trait Parks: Sized {
    /// What it keeps, once for a key or more often, beside accumulators.
    type Kept: Copy;

    /// All that is in memory, key by key.
    fn all(&self) -> impl Iterator<Item = (u32, Self::Kept)>;
    /// The same of one key.
    fn of_key(&self, key: u32) -> impl Iterator<Item = (u32, Self::Kept)>;
    /// Whether something of a key is in memory.
    fn has(&self, key: u32) -> bool;
    /// Bytes held for what is in memory, roughly.
    fn bytes_in_memory(&self) -> usize;
    /// The end of its window.
    fn end_of(kept: &Self::Kept) -> i64;
    /// When it has to be in memory.
    fn due_of(&self, kept: &Self::Kept) -> i64;
    /// Whether it has to stay there.
    fn stays(kept: &Self::Kept) -> bool;

    /// What its rows are made from.
    fn parts(&self) -> Parts<'_>;
    /// Its rows: what a checkpoint has of it, and the disk.
    fn rows_of<'a>(parts: Parts<'_>, kept: impl Iterator<Item = &'a (u32, Self::Kept)> + Clone) -> Result<RecordBatch>
    where
        Self::Kept: 'a;
    /// Takes rows as they were made, of keys that are in memory or not known.
    fn take_rows(&mut self, rows: &RecordBatch) -> Result<()>;
    /// The same operator at its start.
    fn emptied(&self) -> Result<Self>;

    /// The keys.
    fn keys_mut(&mut self) -> &mut Dictionary;
    /// Makes room for keys below `bound`.
    fn make_room(&mut self, bound: usize);
    /// Keys that are to be saved yet.
    fn saving_mut(&mut self) -> &mut Option<Saving>;
    /// Keys on disk.
    fn parked(&self) -> &Parked;
    /// Keys on disk.
    fn parked_mut(&mut self) -> &mut Parked;

    /// All that is kept, saved from now on.
    fn section(&mut self, name: &str, relay: &Arc<Relay>) -> Section {
        let (table, keys, _) = self.parts();
        let (schema, bound, parked) = (Arc::clone(table.schema()), keys.bound(), self.parked().clone());
        let (saving, pieces) = Saving::of(relay, bound, (0u32..).take(bound).filter(|key| self.has(*key)));
        *self.saving_mut() = Some(saving);
        Section::lazy(name, schema, None, move |take| {
            parked.each(take)?;
            pieces.each(take)
        })
    }

    /// Gives what is to be saved of keys that are due.
    fn give(&mut self, due: Due<'_>) -> Step {
        let mut saving = self.saving_mut().take();
        let step = Saving::give(&mut saving, due, |keys| {
            let kept: Vec<(u32, Self::Kept)> = keys.iter().flat_map(|key| self.of_key(*key)).collect();
            Self::rows_of(self.parts(), kept.iter())
        });
        *self.saving_mut() = saving;
        step
    }

    /// The keys of rows, held, with all that is kept for them in memory: it may change, and numbers stay what they are until they are let go.
    fn hold(&mut self, keys: &KeyRows, picked: &[u32]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(picked.len());
        let dictionary = self.keys_mut();
        dictionary.intern(keys, picked, &mut ids);
        ids.iter().for_each(|key| dictionary.hold(*key));
        let bound = dictionary.bound();
        self.make_room(bound);
        if !self.parked().is_empty() {
            let absent = ids.iter().filter(|key| !self.has(**key));
            let hashes = absent.map(|key| self.parts().1.hash(*key)).collect();
            let back = self.parked_mut().take_keys(hashes)?;
            back.iter().try_for_each(|rows| self.take_rows(rows))?;
        }
        self.give(Due::Changes(&ids));
        Ok(ids)
    }

    /// Lets go of keys that are held.
    fn let_go(&mut self, keys: &[u32]) {
        let dictionary = self.keys_mut();
        keys.iter().for_each(|key| dictionary.release(*key));
    }

    /// Takes rows of a checkpoint. What came before of their keys may have gone to disk already.
    fn load_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.parts().0.read(rows)?.keys;
        let held = self.hold(&keys, &(0u32..).take(rows.num_rows()).collect::<Vec<_>>())?;
        self.take_rows(rows)?;
        self.let_go(&held);
        Ok(())
    }

    /// Brings back what is due, the first of it if it is much; gives the time until when all is in memory.
    fn fetch_due(&mut self, until: i64) -> Result<i64> {
        if self.parked().next_due().is_none_or(|due| due > until) {
            return Ok(until);
        }
        let (back, until) = self.parked_mut().take_due(until)?;
        back.iter().try_for_each(|rows| self.take_rows(rows))?;
        Ok(until)
    }

    /// Writes keys out until so many bytes less are held, if at least `least` bytes of it can be.
    fn park(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        let all: Vec<(u32, Self::Kept)> = self.all().collect();
        let mut candidates: Vec<(i64, u32)> = Vec::new();
        for of_key in all.chunk_by(|(a, _), (b, _)| a == b) {
            let newest = of_key.iter().map(|(_, kept)| Self::end_of(kept)).max();
            let stays = of_key.iter().any(|(_, kept)| Self::stays(kept));
            candidates.extend(newest.filter(|_| !stays).map(|end| (end, of_key[0].0)));
        }
        let bytes_of_key = self.bytes_in_memory() as f64 / self.parts().1.len().max(1) as f64;
        let cold = coldest(candidates, bytes_of_key, bytes, least);
        if cold.is_empty() {
            return Ok(());
        }
        self.give(Due::Rest);
        let (table, keys, accumulators) = self.parts();
        let (mut parking, mut rest) = (Vec::new(), Vec::new());
        for of_key in all.chunk_by(|(a, _), (b, _)| a == b) {
            let key = of_key[0].0;
            if !cold.contains(&key) {
                rest.extend_from_slice(of_key);
                continue;
            }
            let due = of_key.iter().map(|(_, kept)| self.due_of(kept)).min().unwrap_or(i64::MIN);
            parking.extend(of_key.iter().map(|row| Parking { due, hash: keys.hash(key), row: *row }));
        }
        let rows_of = |rows: &[Parking<_>]| {
            let rows = rows.iter().map(|parking| &parking.row);
            Self::rows_of((table, keys, accumulators), rows)
        };
        let mut parked = self.parked().clone();
        parked.put(parking, rows_of, spill)?;
        // What stays moves together, so that the room of what has gone becomes free.
        let mut fresh = self.emptied()?;
        for rows in rest.chunks(PIECE_ROWS) {
            fresh.take_rows(&Self::rows_of(self.parts(), rows.iter())?)?;
        }
        *fresh.parked_mut() = parked;
        *self = fresh;
        Ok(())
    }
}
