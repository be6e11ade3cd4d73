//! What an operator keeps for each key: windows with rows, one accumulator slot for each. Slots are used again.
//!
//! When state is beyond its budget keys go to disk, those first whose newest record is oldest. A key comes back with all that is kept for it,
//! before a row of it is added or when its time is over.

use super::{Fired, WindowRows, WindowSpec, no_section, time_field, times};
use crate::engine::output::{Cause, Firing};
use crate::error::Result;
use crate::state::accumulator::{Accumulator, build, save_all};
use crate::state::dictionary::Dictionary;
use crate::state::keys::KeyRows;
use crate::state::parked::{Parked, Parking, coldest};
use crate::state::saving::{Due, Relay, Saving, Step};
use crate::state::section::{Keyed, PIECE_ROWS, Section};
use crate::state::spill::Spill;
use crate::window::Window;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Field, TimestampMillisecondType};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// A window of a key, with all that is known of it beside the accumulators.
pub(super) trait Kept: Copy {
    /// Name of the section that it is saved in.
    const SECTION: &str;
    /// Those of one key.
    type OfKey: Default;
    /// Bytes that these have elsewhere, roughly.
    const BYTES_ELSEWHERE: usize;
    /// Says when to look at which again.
    type Agenda: Default;

    /// Those of one key, by start.
    fn list(of_key: &Self::OfKey) -> &[Self];
    /// Joins those of its key, and goes on the agenda.
    fn put(self, key: u32, of_key: &mut Self::OfKey, agenda: &mut Self::Agenda) -> Result<()>;
    /// Bytes of an agenda.
    fn agenda_bytes(agenda: &Self::Agenda) -> usize;

    /// What it is a window of.
    fn window(&self) -> Window;
    /// Of the accumulators.
    fn slot(&self) -> u32;
    /// When it has to be in memory.
    fn due(&self, spec: &WindowSpec) -> i64;
    /// Whether it has to stay there.
    fn stays(&self) -> bool;

    /// Columns of what is known beside key, window and accumulators.
    fn fields() -> Vec<Field>;
    /// Their values.
    fn columns(all: &[Self]) -> Vec<ArrayRef>;
    /// Makes one from a row of these columns, its window and its slot.
    fn reader(columns: &[ArrayRef]) -> impl Fn(usize, Window, u32) -> Self;
}

/// When to look again at what is kept: a time, the key and the slot.
pub(super) type Alarm = (i64, u32, u32);

/// Alarms, earliest first.
#[derive(Default)]
pub(super) struct Alarms(BinaryHeap<Reverse<Alarm>>);

impl Alarms {
    pub fn set(&mut self, time: i64, key: u32, slot: u32) {
        self.0.push(Reverse((time, key, slot)));
    }

    pub fn first(&self) -> Option<Alarm> {
        self.0.peek().map(|Reverse(first)| *first)
    }

    /// Takes the first one if it is like that.
    pub fn pop_if(&mut self, is: impl FnOnce(&Alarm) -> bool) -> Option<Alarm> {
        self.first().filter(is)?;
        self.0.pop().map(|Reverse(first)| first)
    }

    /// Takes those whose time has come.
    pub fn take_due(&mut self, until: i64) -> Vec<Alarm> {
        std::iter::from_fn(|| self.pop_if(|(time, ..)| *time <= until)).collect()
    }

    pub fn byte_len(&self) -> usize {
        self.0.capacity() * size_of::<Alarm>()
    }
}

/// A result on its way: key, window, firing, cause and the watermark before it.
pub(super) type Showing<K> = (u32, K, Firing, (Cause, i64));

/// What one aggregation keeps.
pub(super) struct KeyedState<K: Kept> {
    pub spec: WindowSpec,
    keys: Dictionary,
    /// By key.
    pub kept: Vec<K::OfKey>,
    pub agenda: K::Agenda,
    pub accumulators: Vec<Box<dyn Accumulator>>,
    slots: u32,
    free: Vec<u32>,
    table: Keyed,
    /// By key.
    saving: Option<Saving>,
    /// Keys on disk, by when the first of their windows is due.
    pub parked: Parked,
}

impl<K: Kept> KeyedState<K> {
    pub fn new(spec: WindowSpec) -> Result<KeyedState<K>> {
        let bounds = [time_field("window_start"), time_field("window_end")];
        let table = spec.table(&[bounds.to_vec(), K::fields()].concat())?;
        Ok(KeyedState {
            keys: Dictionary::new(&spec.codec),
            kept: Vec::new(),
            agenda: K::Agenda::default(),
            accumulators: spec.aggregates.iter().map(build).collect::<Result<_>>()?,
            slots: 0,
            free: Vec::new(),
            saving: None,
            parked: Parked::new(table.schema()),
            table,
            spec,
        })
    }

    /// A slot for a new window of a key.
    pub fn start(&mut self, key: u32) -> u32 {
        self.keys.hold(key);
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Lets go of a window that is kept no more.
    pub fn release(&mut self, key: u32, slot: u32) {
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.reset(slot));
        self.free.push(slot);
        self.keys.release(key);
    }

    /// Adds rows to the slots of their windows.
    pub fn add(&mut self, rows: &WindowRows, slots: &[u32], picked: &[u32]) {
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.grow(self.slots as usize));
        rows.arguments.update(&mut self.accumulators, slots, picked);
    }

    /// Emits results, sorted into output order: what a record fills comes out before what it brings the watermark to.
    pub fn emit(&self, results: &mut [Showing<K>], fired: &mut Fired) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        let rank = |(_, kept, firing, by): &Showing<K>| (by.0, firing.reason, kept.window().end, kept.window().start);
        results.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| self.keys.compare(a.0, b.0)));
        let slots: Vec<u32> = results.iter().map(|(_, kept, ..)| kept.slot()).collect();
        let mut columns = self.spec.codec.decode(results.iter().map(|(key, ..)| self.keys.key(*key)))?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.results(&slots)?);
        }
        fired.rows(results.iter().map(|(_, kept, firing, by)| (kept.window(), *by, *firing)), columns);
        Ok(())
    }

    /// The keys of rows, held, with all that is kept for them in memory: it may change, and numbers stay what they are until they are let go.
    pub fn hold(&mut self, keys: &KeyRows, picked: &[u32]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(picked.len());
        self.keys.intern(keys, picked, &mut ids);
        ids.iter().for_each(|key| self.keys.hold(*key));
        self.make_room();
        if !self.parked.is_empty() {
            let absent = ids.iter().filter(|key| !self.has(**key));
            let back = self.parked.take_keys(absent.map(|key| self.keys.hash(*key)).collect())?;
            back.iter().try_for_each(|rows| self.take_rows(rows))?;
        }
        self.give(Due::Changes(&ids));
        Ok(ids)
    }

    /// Lets go of keys that are held.
    pub fn let_go(&mut self, keys: &[u32]) {
        keys.iter().for_each(|key| self.keys.release(*key));
    }

    /// Brings back what is due, the first of it if it is much; gives the time until when all is in memory.
    pub fn fetch_due(&mut self, until: i64) -> Result<i64> {
        if self.parked.next_due().is_none_or(|due| due > until) {
            return Ok(until);
        }
        let (back, until) = self.parked.take_due(until)?;
        back.iter().try_for_each(|rows| self.take_rows(rows))?;
        Ok(until)
    }

    /// Sorts keys on disk, with one window each, by the ends of these.
    pub fn park_by_end(&mut self) -> Result<()> {
        self.parked.sort_by(self.spec.key_fields.len() + 1)
    }

    fn make_room(&mut self) {
        self.kept.resize_with(self.keys.bound().max(self.kept.len()), K::OfKey::default);
    }

    fn has(&self, key: u32) -> bool {
        !K::list(&self.kept[key as usize]).is_empty()
    }

    fn of_key(&self, key: u32) -> impl Iterator<Item = (u32, K)> {
        K::list(&self.kept[key as usize]).iter().map(move |kept| (key, *kept))
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        self.bytes_in_memory() + self.parked.byte_len()
    }

    /// Bytes held for what is in memory, roughly.
    fn bytes_in_memory(&self) -> usize {
        let kept = self.kept.capacity() * size_of::<K::OfKey>() + self.kept.len() * K::BYTES_ELSEWHERE;
        let accumulators: usize = self.accumulators.iter().map(|accumulator| accumulator.byte_len()).sum();
        let others = self.free.capacity() * size_of::<u32>() + K::agenda_bytes(&self.agenda);
        self.keys.byte_len() + kept + accumulators + others
    }

    /// All that is kept, saved from now on.
    pub fn section(&mut self, relay: &Arc<Relay>) -> Section {
        let (bound, parked) = (self.keys.bound(), self.parked.clone());
        let (saving, pieces) = Saving::of(relay, bound, (0u32..).take(bound).filter(|key| self.has(*key)));
        self.saving = Some(saving);
        Section::lazy(K::SECTION, Arc::clone(self.table.schema()), None, move |take| {
            parked.each(take)?;
            pieces.each(take)
        })
    }

    /// Gives what is to be saved of keys that are due.
    pub fn give(&mut self, due: Due<'_>) -> Step {
        let mut saving = self.saving.take();
        let step = Saving::give(&mut saving, due, |keys| self.rows_of(keys.iter().flat_map(|key| self.of_key(*key))));
        self.saving = saving;
        step
    }

    /// Gives what is to be saved of keys that are about to change.
    pub fn give_keys(&mut self, keys: impl Iterator<Item = u32>) {
        if self.saving.is_some() {
            self.give(Due::Changes(&keys.collect::<Vec<_>>()));
        }
    }

    /// Takes rows of a checkpoint. What came before of their keys may have gone to disk already.
    pub fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name != K::SECTION {
            return Err(no_section(name));
        }
        let keys = self.table.read(rows)?.keys;
        let held = self.hold(&keys, &(0u32..).take(rows.num_rows()).collect::<Vec<_>>())?;
        self.take_rows(rows)?;
        self.let_go(&held);
        Ok(())
    }

    /// Rows of what is kept: what a checkpoint has of it, and the disk.
    fn rows_of(&self, kept: impl Iterator<Item = (u32, K)>) -> Result<RecordBatch> {
        let (keys, kept): (Vec<u32>, Vec<K>) = kept.unzip();
        let slots: Vec<u32> = kept.iter().map(K::slot).collect();
        let bounds = |of: fn(Window) -> i64| times(kept.iter().map(|kept| of(kept.window())));
        let mut own = vec![bounds(|window| window.start), bounds(|window| window.end)];
        own.extend(K::columns(&kept));
        self.table.batch(keys.iter().map(|key| self.keys.key(*key)), own, save_all(&self.accumulators, &slots)?)
    }

    /// Takes rows as they were made, of keys that are in memory or not known.
    fn take_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let read = self.table.read(rows)?;
        let keys = self.keys.intern_all(&read.keys, rows.num_rows());
        let slots: Vec<u32> = keys.iter().map(|key| self.start(*key)).collect();
        self.make_room();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&read.states) {
            accumulator.grow(self.slots as usize);
            accumulator.load(&slots, state)?;
        }
        let (bounds, own) = read.own.split_at(2);
        let [starts, ends] = [0, 1].map(|at: usize| bounds[at].as_primitive::<TimestampMillisecondType>().values());
        let made = K::reader(own);
        for (row, (key, slot)) in keys.into_iter().zip(slots).enumerate() {
            let kept = made(row, Window { start: starts[row], end: ends[row] }, slot);
            kept.put(key, &mut self.kept[key as usize], &mut self.agenda)?;
        }
        Ok(())
    }

    /// Writes keys out until so many bytes less are held, if at least `least` bytes of it can be.
    pub fn park(&mut self, spill: &Arc<Spill>, bytes: usize, least: usize) -> Result<()> {
        let all: Vec<(u32, K)> = (0u32..).take(self.kept.len()).flat_map(|key| self.of_key(key)).collect();
        let mut candidates: Vec<(i64, u32)> = Vec::new();
        for of_key in all.chunk_by(|(a, _), (b, _)| a == b) {
            let newest = of_key.iter().map(|(_, kept)| kept.window().end).max();
            let stays = of_key.iter().any(|(_, kept)| kept.stays());
            candidates.extend(newest.filter(|_| !stays).map(|end| (end, of_key[0].0)));
        }
        let bytes_of_key = self.bytes_in_memory() as f64 / self.keys.len().max(1) as f64;
        let cold = coldest(candidates, bytes_of_key, bytes, least);
        if cold.is_empty() {
            return Ok(());
        }
        self.give(Due::Rest);
        let (mut parking, mut rest) = (Vec::new(), Vec::new());
        for of_key in all.chunk_by(|(a, _), (b, _)| a == b) {
            let key = of_key[0].0;
            if !cold.contains(&key) {
                rest.extend_from_slice(of_key);
                continue;
            }
            let due = of_key.iter().map(|(_, kept)| kept.due(&self.spec)).min().unwrap_or(i64::MIN);
            parking.extend(of_key.iter().map(|row| Parking { due, hash: self.keys.hash(key), row: *row }));
        }
        let mut parked = self.parked.clone();
        parked.put(parking, |rows| self.rows_of(rows.iter().map(|parking| parking.row)), spill)?;
        // What stays moves together, so that the room of what has gone becomes free.
        let mut fresh = KeyedState::new(self.spec.clone())?;
        for rows in rest.chunks(PIECE_ROWS) {
            fresh.take_rows(&self.rows_of(rows.iter().copied())?)?;
        }
        fresh.parked = parked;
        *self = fresh;
        Ok(())
    }
}
