//! Slices that go to disk when state is beyond its budget, least recently touched first, and windows that are put together from such
//! slices: in ranges of their keys' hashes, which is the order in which they come out.

use super::{Entry, Partial, Place, SliceWindows, columns_of, in_output_order};
use crate::engine::operators::Fired;
use crate::engine::output::{Cause, Pane};
use crate::error::{Error, Result};
use crate::state::cold::{self, Cold, ColdTables, Whole};
use crate::state::dictionary::Dictionary;
use crate::state::saving::Due;
use crate::state::spill::{Spill, Writer};
use crate::window::Window;
use crate::window::assign::Slice;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What is on disk, and how to get there.
pub(super) struct ColdSlices {
    pub tables: Arc<ColdTables>,
    /// Set when something was spilled first.
    pub spill: Option<Arc<Spill>>,
    /// The window that is being emitted piece by piece.
    pub closing: Option<Closing>,
}

/// A window whose first keys were emitted.
pub(super) struct Closing {
    /// A slice of it, and its end.
    pub window: (Slice, i64),
    pub scattered: Scattered,
    /// How many of its ranges are done.
    pub done: usize,
}

/// The slices of a window, some of which are not all in memory.
pub(super) struct Scattered {
    slices: Vec<(Place, Whole)>,
    pub ranges: Vec<RangeInclusive<u64>>,
    /// It holds what its first slice holds; the others are merged into that.
    begins_with_first: bool,
}

/// What a slice holds, for who saves it: keys by keys, in dictionaries of their own.
pub(super) fn each_part(
    tables: &ColdTables,
    (cold, keys, partial): (&Cold, &Dictionary, &Partial),
    take: &mut dyn FnMut(Dictionary, Partial) -> Result<()>,
) -> Result<()> {
    let whole = Whole::new(tables, cold, (keys, partial))?;
    for range in cold::ranges(tables, std::iter::once(&whole)) {
        let (mut own, mut part) = (Dictionary::new(&tables.codec), tables.empty()?);
        whole.add(tables, (keys, partial), &range, (&mut own, &mut part))?;
        take(own, part)?;
    }
    Ok(())
}

impl SliceWindows {
    /// The slices at these places, if one of them is not all in memory; with all keys, or some.
    pub(super) fn scattered(
        &self,
        places: &[Place],
        ids: Option<&[u32]>,
        begins_with_first: bool,
    ) -> Result<Option<Scattered>> {
        let entries = places.iter().filter_map(|place| Some((*place, self.slices.get(place)?)));
        if entries.clone().all(|(_, entry)| entry.cold.is_empty()) {
            return Ok(None);
        }
        let tables = &self.cold.tables;
        let whole = |entry: &Entry| {
            let memory = (&self.keys, &entry.partial);
            match ids {
                Some(ids) => Ok(Whole::of(&entry.cold, memory, ids)),
                None => Whole::new(tables, &entry.cold, memory),
            }
        };
        let slices = entries.map(|(place, entry)| Ok((place, whole(entry)?)));
        let slices: Vec<_> = slices.collect::<Result<_>>()?;
        let ranges = cold::ranges(tables, slices.iter().map(|(_, whole)| whole));
        Ok(Some(Scattered { slices, ranges, begins_with_first }))
    }

    /// The keys of a window with hashes in a range.
    fn part(&self, window: &Scattered, range: &RangeInclusive<u64>) -> Result<(Dictionary, Partial)> {
        let tables = &self.cold.tables;
        let (mut keys, mut merged) = (Dictionary::new(&tables.codec), tables.empty()?);
        for (number, (place, whole)) in window.slices.iter().enumerate() {
            let entry = self.slices.get(place).ok_or_else(|| Error::internal("a slice that is gone"))?;
            let memory = (&self.keys, &entry.partial);
            if number == 0 && window.begins_with_first {
                whole.add(tables, memory, range, (&mut keys, &mut merged))?;
            } else {
                let mut slice = tables.empty()?;
                whole.add(tables, memory, range, (&mut keys, &mut slice))?;
                merged.merge(&slice, keys.bound());
            }
        }
        Ok((keys, merged))
    }

    /// Emits the keys of a window with hashes in a range, all or some.
    pub(super) fn emit_part(
        &mut self,
        (window, scattered, range): (Window, &Scattered, &RangeInclusive<u64>),
        wanted: Option<&[u32]>,
        pane: Pane,
        by: (Cause, i64),
        fired: &mut Fired,
    ) -> Result<()> {
        let mut range = range.clone();
        if let Some(wanted) = wanted {
            let hashes = wanted.iter().map(|id| self.keys.hash(*id)).filter(|hash| range.contains(hash));
            let Some((first, last)) = hashes.clone().min().zip(hashes.max()) else { return Ok(()) };
            range = first..=last;
        }
        let (mut keys, partial) = self.part(scattered, &range)?;
        let wanted: Option<Vec<u32>> = wanted.map(|ids| {
            let inside = ids.iter().filter(|id| range.contains(&self.keys.hash(**id)));
            inside.map(|id| keys.insert(self.keys.key(*id))).collect()
        });
        let order = in_output_order(&keys, &partial, wanted.as_deref());
        if order.is_empty() {
            return Ok(());
        }
        let columns = columns_of(&self.spec.codec, &keys, &partial, &order)?;
        let ids = match self.spec.refires() {
            false => Vec::new(),
            true => order.iter().map(|(_, id)| self.keys.insert(keys.key(*id))).collect(),
        };
        let firings = self.firings((window.end, window.start), order.len(), &ids, pane)?;
        fired.window(window, by, &firings, columns);
        Ok(())
    }

    /// The slices of a cumulating window, which are not all in memory, as one.
    pub(super) fn fold_scattered(&mut self, first: Slice, scattered: &Scattered) -> Result<()> {
        let mut to = self.writer()?;
        let tables = Arc::clone(&self.cold.tables);
        let cold = cold::rewrite(&tables, &scattered.ranges, &mut to, |range| self.part(scattered, range))?;
        for (place, _) in &scattered.slices {
            self.remove(*place);
        }
        self.version += 1;
        let mut entry = Entry::new(first, &self.spec, self.version)?;
        entry.cold = cold;
        self.held += entry.measure();
        self.slices.insert(super::place_of(&first), entry);
        Ok(())
    }

    fn writer(&self) -> Result<Writer> {
        let spill = self.cold.spill.as_ref();
        spill.ok_or_else(|| Error::internal("a spilled slice without a place for it"))?.writer()
    }

    /// Writes slices, and numbers of results, out until so many bytes less are held.
    pub(super) fn spill_slices(&mut self, spill: &Arc<Spill>, bytes: usize) -> Result<()> {
        self.cold.spill = Some(Arc::clone(spill));
        let goal = self.bytes_held().saturating_sub(bytes);
        let has_more = |(_, entry): &(&Place, &Entry)| !entry.partial.ids().is_empty() || entry.cold.has_rows();
        let slices = self.slices.iter().filter(has_more).map(|(place, entry)| (entry.version, *place, false));
        let emitted = self.emitted.iter().filter(|(_, emitted)| emitted.times.has_known());
        let emitted = emitted.map(|(place, emitted)| (emitted.version, *place, true));
        let mut coldest: Vec<(u64, Place, bool)> = slices.chain(emitted).collect();
        coldest.sort_unstable();
        let mut to = None;
        for (_, place, is_emitted) in coldest {
            if self.bytes_held() <= goal {
                break;
            }
            let to = match &mut to {
                Some(to) => to,
                none => none.insert(spill.writer()?),
            };
            match self.emitted.get_mut(&place).filter(|_| is_emitted) {
                Some(emitted) => {
                    emitted.save(place, &self.tables, &self.keys, Due::Rest);
                    emitted.times.spill(&self.cold.tables, &mut self.keys, to)?;
                }
                None => self.spill_slice(place, to)?,
            }
        }
        Ok(())
    }

    fn spill_slice(&mut self, place: Place, to: &mut Writer) -> Result<()> {
        let Some(entry) = self.slices.get_mut(&place) else { return Ok(()) };
        entry.cold.spill(&self.cold.tables, &self.keys, &entry.partial, to)?;
        self.clear(place, None)?;
        match self.slices.get(&place).is_some_and(|entry| entry.cold.is_scattered(self.spec.refires())) {
            true => self.tidy(place),
            false => Ok(()),
        }
    }

    /// Makes one run of all that a slice has.
    pub(super) fn tidy(&mut self, place: Place) -> Result<()> {
        let Some(scattered) = self.scattered(&[place], None, true)? else { return Ok(()) };
        let (mut to, tables) = (self.writer()?, Arc::clone(&self.cold.tables));
        let cold = cold::rewrite(&tables, &scattered.ranges, &mut to, |range| self.part(&scattered, range))?;
        self.clear(place, Some(cold))
    }

    /// Forgets what a slice has in memory, and what it has beside if that was replaced.
    fn clear(&mut self, place: Place, cold: Option<Cold>) -> Result<()> {
        let Some(entry) = self.slices.get_mut(&place) else { return Ok(()) };
        entry.save_rest(&self.tables, &self.keys);
        entry.cold = cold.unwrap_or_else(|| std::mem::take(&mut entry.cold));
        let partial = std::mem::replace(&mut entry.partial, self.cold.tables.empty()?);
        self.held = self.held - entry.bytes + entry.measure();
        partial.ids().iter().for_each(|id| self.keys.release(*id));
        Ok(())
    }
}
