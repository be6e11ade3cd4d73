//! A slice of which only a part is in memory. Keys that were spilled lie in runs of a file, sorted by hash. What comes later for the slice
//! stays in memory and is added when somebody asks for its keys: as a partial result where merging is exact, else as the rows
//! themselves, which are folded one after the other then. So it does not show where something was spilled, not even in sums of floats.
//!
//! Keys are asked for by ranges of their hash, each in a dictionary of its own: a window is put together, and given out, piece by piece.

use super::accumulator::{AggregateSpec, build};
use super::dictionary::Dictionary;
use super::keys::KeyCodec;
use super::section::Keyed;
use super::slice::{Arguments, Slice};
use super::spill::{Piece, Run, Spill, Writer};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Field, UInt32Type, UInt64Type};
use hashbrown::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Rows of a piece on disk.
const PIECE_ROWS: usize = 2048;

/// Keys, or rows of keys, that are put together at once, roughly.
const PART_ROWS: usize = 32 * 1024;

/// Bytes of rows of one slice that wait in memory.
const ROWS_BYTES_MAX: usize = 8 << 20;

/// Runs of one slice; more are made one.
const RUNS_MAX: usize = 64;

/// The same where single keys are looked up.
const RUNS_MAX_LOOKED_UP: usize = 8;

/// The tables of runs.
pub struct ColdTables {
    /// Makes keys.
    pub codec: KeyCodec,
    aggregates: Vec<AggregateSpec>,
    /// Key, hash and state.
    states: Keyed,
    /// Key, hash, position and arguments.
    rows: Keyed,
    /// Key, hash and a number.
    numbers: Keyed,
    /// Where the hash is in all of them.
    hash_at: usize,
    /// Whether partial results can be kept apart.
    pub is_exact: bool,
}

/// What the rows of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    States,
    Rows,
}

fn arrow_failed(e: arrow::error::ArrowError) -> Error {
    Error::internal("rows of a spilled slice").with_source(e)
}

impl ColdTables {
    /// Those of aggregates by such keys.
    pub fn new(codec: &KeyCodec, keys: &[Field], aggregates: &[(String, AggregateSpec)]) -> Result<ColdTables> {
        let hash = Field::new("hash", DataType::UInt64, false);
        let mut own = vec![hash.clone(), Field::new("position", DataType::UInt64, true)];
        for (name, spec) in aggregates {
            own.extend(spec.argument.iter().map(|argument| Field::new(name, argument.clone(), true)));
            own.push(Field::new(format!("{name} filter"), DataType::Boolean, true));
        }
        let specs: Vec<_> = aggregates.iter().map(|(_, spec)| spec.clone()).collect();
        let mut is_exact = true;
        for spec in &specs {
            is_exact &= build(spec)?.merges_exactly();
        }
        let states = Keyed::new(codec, keys, std::slice::from_ref(&hash), aggregates)?;
        let numbers = Keyed::new(codec, keys, &[hash, Field::new("number", DataType::UInt32, false)], &[])?;
        let rows = Keyed::new(codec, keys, &own, &[])?;
        Ok(ColdTables { codec: codec.clone(), aggregates: specs, states, rows, numbers, hash_at: keys.len(), is_exact })
    }

    /// A slice without keys.
    pub fn empty(&self) -> Result<Slice> {
        Slice::new(&self.aggregates)
    }

    /// The hashes of a batch's keys.
    fn hashes<'a>(&self, batch: &'a RecordBatch) -> &'a [u64] {
        batch.column(self.hash_at).as_primitive::<UInt64Type>().values()
    }

    /// Writes rows that are sorted by hash.
    fn write(&self, rows: RecordBatch, to: &mut Writer) -> Result<()> {
        match *self.hashes(&rows) {
            [first, .., last] => to.piece(first..=last, rows),
            [only] => to.piece(only..=only, rows),
            [] => Ok(()),
        }
    }

    /// What some keys of a slice hold.
    fn states_of(&self, keys: &Dictionary, slice: &Slice, order: &[(u64, u32)]) -> Result<RecordBatch> {
        let slots: Vec<u32> = order.iter().map(|(_, slot)| *slot).collect();
        let hashes: ArrayRef = Arc::new(UInt64Array::from_iter_values(order.iter().map(|(hash, _)| *hash)));
        let ids = slots.iter().map(|slot| keys.key(slice.ids()[*slot as usize]));
        self.states.batch(ids, vec![hashes], slice.save(&slots)?)
    }

    /// Writes keys of a slice.
    fn write_states(&self, keys: &Dictionary, slice: &Slice, order: &[(u64, u32)], to: &mut Writer) -> Result<()> {
        order.chunks(PIECE_ROWS).try_for_each(|piece| self.write(self.states_of(keys, slice, piece)?, to))
    }

    /// Writes keys with their numbers.
    fn write_numbers(&self, keys: &Dictionary, numbers: &[(u32, u32)], to: &mut Writer) -> Result<()> {
        let mut order: Vec<(u64, u32, u32)> = numbers.iter().map(|(id, n)| (keys.hash(*id), *id, *n)).collect();
        order.sort_unstable();
        order.chunks(PIECE_ROWS).try_for_each(|piece| {
            let hashes: ArrayRef = Arc::new(UInt64Array::from_iter_values(piece.iter().map(|(hash, ..)| *hash)));
            let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(piece.iter().map(|(.., n)| *n)));
            let ids = piece.iter().map(|(_, id, _)| keys.key(*id));
            self.write(self.numbers.batch(ids, vec![hashes, numbers], Vec::new())?, to)
        })
    }

    /// Rows on their way into a slice, sorted by hash; those of a key stay in their order.
    fn rows_of(&self, keys: &Dictionary, ids: &[u32], arguments: &Arguments, rows: &[u32]) -> Result<RecordBatch> {
        let mut order: Vec<(u64, u32, u32)> =
            ids.iter().zip(rows).map(|(id, row)| (keys.hash(*id), *row, *id)).collect();
        order.sort_by_key(|(hash, ..)| *hash);
        let picked: UInt32Array = order.iter().map(|(_, row, _)| Some(*row)).collect();
        let hashes: ArrayRef = Arc::new(UInt64Array::from_iter_values(order.iter().map(|(hash, ..)| *hash)));
        let positions = order.iter().map(|(_, row, _)| arguments.positions.get(*row as usize).copied());
        let mut own = vec![hashes, Arc::new(positions.collect::<UInt64Array>())];
        for (values, filter) in arguments.values.iter().zip(&arguments.filters) {
            if let Some(values) = values {
                own.push(take(values, &picked, None).map_err(arrow_failed)?);
            }
            own.push(match filter {
                None => new_null_array(&DataType::Boolean, order.len()),
                Some(mask) => {
                    Arc::new(order.iter().map(|(_, row, _)| Some(mask[*row as usize])).collect::<BooleanArray>())
                }
            });
        }
        self.rows.batch(order.iter().map(|(.., id)| keys.key(*id)), own, Vec::new())
    }

    /// The arguments that [`rows_of`](Self::rows_of) has laid out.
    fn arguments(&self, own: &[ArrayRef]) -> Arguments {
        let positions = own[1].as_primitive::<UInt64Type>();
        let positions = if positions.null_count() == 0 { positions.values().to_vec() } else { Vec::new() };
        let (mut values, mut filters, mut columns) = (Vec::new(), Vec::new(), own[2..].iter());
        for spec in &self.aggregates {
            values.push(spec.argument.as_ref().and_then(|_| columns.next().cloned()));
            let filter = columns.next().filter(|filter| filter.null_count() == 0 && !filter.is_empty());
            filters.push(filter.map(|filter| filter.as_boolean().values().iter().collect()));
        }
        Arguments { values, filters, positions }
    }

    /// Adds a batch to a slice whose keys are in a dictionary of their own.
    fn add(&self, (kind, batch): (Kind, &RecordBatch), keys: &mut Dictionary, slice: &mut Slice) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let table = if kind == Kind::Rows { &self.rows } else { &self.states };
        let read = table.read(batch)?;
        let ids = keys.intern_all(&read.keys, batch.num_rows());
        match kind {
            Kind::Rows => {
                let all: Vec<u32> = (0u32..).take(batch.num_rows()).collect();
                slice.update(&ids, keys.bound(), &self.arguments(read.own), &all);
                Ok(())
            }
            Kind::States if ids.iter().all(|id| slice.slot_of(*id).is_none()) => {
                slice.load(&ids, keys.bound(), &read.states)
            }
            Kind::States => {
                let mut later = self.empty()?;
                later.load(&ids, keys.bound(), &read.states)?;
                slice.merge(&later, keys.bound());
                Ok(())
            }
        }
    }

    /// Rows with hashes in a range, of a batch that is sorted by them.
    fn within(&self, batch: &RecordBatch, range: &RangeInclusive<u64>) -> RecordBatch {
        let hashes = self.hashes(batch);
        let from = hashes.partition_point(|hash| hash < range.start());
        let to = hashes.partition_point(|hash| hash <= range.end());
        batch.slice(from, to.saturating_sub(from))
    }

    /// Gives the rows of a run with hashes in a range.
    fn each_within(
        &self,
        run: &Run,
        range: &RangeInclusive<u64>,
        take: &mut dyn FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let inside = |piece: &&Piece| piece.order.start() <= range.end() && range.start() <= piece.order.end();
        let mut pieces = run.pieces().iter().filter(inside);
        pieces.try_for_each(|piece| take(&self.within(&run.read(piece)?, range)))
    }
}

/// The slots of a slice in the order of their keys' hashes.
fn by_hash(keys: &Dictionary, slice: &Slice) -> Vec<(u64, u32)> {
    let mut order: Vec<(u64, u32)> = (0u32..).zip(slice.ids()).map(|(slot, id)| (keys.hash(*id), slot)).collect();
    order.sort_unstable();
    order
}

/// What a slice has beside its partial result in memory.
#[derive(Clone, Default)]
pub struct Cold {
    /// Oldest first.
    runs: Vec<(Kind, Run)>,
    /// Later rows, each batch sorted by hash.
    rows: Vec<RecordBatch>,
    row_bytes: usize,
}

impl Cold {
    /// Whether there is nothing: all of the slice is in memory.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.rows.is_empty()
    }

    /// Whether rows wait in memory.
    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        let pieces = self.runs.iter().map(|(_, run)| size_of_val(run.pieces()));
        self.row_bytes + pieces.sum::<usize>()
    }

    /// Writes out what a slice, whose own part this is, has in memory. The caller empties the slice.
    pub fn spill(&mut self, tables: &ColdTables, keys: &Dictionary, slice: &Slice, to: &mut Writer) -> Result<()> {
        let order = by_hash(keys, slice);
        if !order.is_empty() {
            tables.write_states(keys, slice, &order, to)?;
            self.runs.push((Kind::States, to.end_run()));
        }
        self.spill_rows(tables, to)
    }

    fn spill_rows(&mut self, tables: &ColdTables, to: &mut Writer) -> Result<()> {
        self.settle(tables)?;
        if let Some(all) = self.rows.pop() {
            for at in (0..all.num_rows()).step_by(PIECE_ROWS) {
                tables.write(all.slice(at, PIECE_ROWS.min(all.num_rows() - at)), to)?;
            }
            self.runs.push((Kind::Rows, to.end_run()));
            self.row_bytes = 0;
        }
        Ok(())
    }

    /// Whether there are so many runs that they should be [made one](rewrite).
    pub fn is_scattered(&self, is_looked_up: bool) -> bool {
        self.runs.len() > if is_looked_up { RUNS_MAX_LOOKED_UP } else { RUNS_MAX }
    }

    /// Takes rows that come after all that is there.
    pub fn take_rows(
        &mut self,
        tables: &ColdTables,
        (keys, ids): (&Dictionary, &[u32]),
        (arguments, rows): (&Arguments, &[u32]),
        spill: &Arc<Spill>,
    ) -> Result<()> {
        let batch = tables.rows_of(keys, ids, arguments, rows)?;
        self.row_bytes += batch.get_array_memory_size();
        self.rows.push(batch);
        if self.row_bytes > ROWS_BYTES_MAX {
            self.spill_rows(tables, &mut spill.writer()?)?;
        }
        Ok(())
    }

    /// Makes one batch, sorted by hash, of the rows in memory.
    fn settle(&mut self, tables: &ColdTables) -> Result<()> {
        let [first, _, ..] = &self.rows[..] else { return Ok(()) };
        let all = concat_batches(&first.schema(), &self.rows).map_err(arrow_failed)?;
        let hashes = tables.hashes(&all);
        let mut order: Vec<u32> = (0u32..).take(all.num_rows()).collect();
        order.sort_by_key(|row| hashes[*row as usize]);
        let all = take_record_batch(&all, &UInt32Array::from(order)).map_err(arrow_failed)?;
        self.row_bytes = all.get_array_memory_size();
        self.rows = vec![all];
        Ok(())
    }
}

/// A slice as it is now, memory and disk, to be cut by hashes.
pub struct Whole {
    cold: Cold,
    /// Hashes and slots of what is in memory, by hash.
    order: Vec<(u64, u32)>,
}

impl Whole {
    /// Only some keys of a slice and what it has beside: others are not whole.
    pub fn of(cold: &Cold, (keys, slice): (&Dictionary, &Slice), ids: &[u32]) -> Whole {
        let slots = ids.iter().filter_map(|id| Some((keys.hash(*id), slice.slot_of(*id)?)));
        let mut order: Vec<(u64, u32)> = slots.collect();
        order.sort_unstable();
        Whole { cold: cold.clone(), order }
    }

    /// That of a slice and what it has beside.
    pub fn new(tables: &ColdTables, cold: &Cold, (keys, slice): (&Dictionary, &Slice)) -> Result<Whole> {
        let mut cold = cold.clone();
        cold.settle(tables)?;
        Ok(Whole { cold, order: by_hash(keys, slice) })
    }

    /// First hash and number of rows of each of its pieces.
    fn pieces(&self, tables: &ColdTables) -> impl Iterator<Item = (u64, usize)> {
        let disk = self.cold.runs.iter().flat_map(|(_, run)| run.pieces());
        let memory = self.order.chunks(PIECE_ROWS).map(|piece| (piece[0].0, piece.len()));
        let rows = self.cold.rows.iter().flat_map(|rows| tables.hashes(rows).chunks(PIECE_ROWS));
        disk.map(|piece| (*piece.order.start(), piece.rows)).chain(memory).chain(rows.map(|rows| (rows[0], rows.len())))
    }

    /// Adds the keys with hashes in a range to a slice whose keys are in a dictionary of their own. `memory` is what this was made from.
    pub fn add(
        &self,
        tables: &ColdTables,
        memory: (&Dictionary, &Slice),
        range: &RangeInclusive<u64>,
        (keys, slice): (&mut Dictionary, &mut Slice),
    ) -> Result<()> {
        for (kind, run) in &self.cold.runs {
            tables.each_within(run, range, &mut |rows| tables.add((*kind, rows), keys, slice))?;
        }
        let from = self.order.partition_point(|(hash, _)| hash < range.start());
        let to = self.order.partition_point(|(hash, _)| hash <= range.end());
        for piece in self.order[from..to.max(from)].chunks(PIECE_ROWS) {
            tables.add((Kind::States, &tables.states_of(memory.0, memory.1, piece)?), keys, slice)?;
        }
        self.cold.rows.iter().try_for_each(|rows| {
            let rows = tables.within(rows, range);
            tables.add((Kind::Rows, &rows), keys, slice)
        })
    }
}

/// Ranges of hashes, ascending and without gaps, each of which holds so much of these slices as is put together at once.
pub fn ranges<'a>(tables: &ColdTables, wholes: impl Iterator<Item = &'a Whole>) -> Vec<RangeInclusive<u64>> {
    ranges_of(wholes.flat_map(|whole| whole.pieces(tables)).collect())
}

/// The same by where each piece begins, and its number of rows.
pub(super) fn ranges_of(mut pieces: Vec<(u64, usize)>) -> Vec<RangeInclusive<u64>> {
    pieces.sort_unstable();
    let (mut ranges, mut from, mut held) = (Vec::new(), 0, 0);
    for (first, rows) in pieces {
        if held + rows > PART_ROWS && first > from {
            ranges.push(from..=first - 1);
            (from, held) = (first, 0);
        }
        held += rows;
    }
    ranges.push(from..=u64::MAX);
    ranges
}

/// Writes what `part` puts together for each range as one run.
pub fn rewrite(
    tables: &ColdTables,
    ranges: &[RangeInclusive<u64>],
    to: &mut Writer,
    part: impl Fn(&RangeInclusive<u64>) -> Result<(Dictionary, Slice)>,
) -> Result<Cold> {
    for range in ranges {
        let (keys, slice) = part(range)?;
        tables.write_states(&keys, &slice, &by_hash(&keys, &slice), to)?;
    }
    Ok(Cold { runs: vec![(Kind::States, to.end_run())], ..Cold::default() })
}

/// Takes keys with their numbers.
pub type TakeNumbers<'a> = dyn FnMut(&Dictionary, &[(u32, u32)]) -> Result<()> + 'a;

/// A number for each of many keys, those that were asked for last in memory and the others on disk.
#[derive(Default)]
pub struct Numbers {
    known: HashMap<u32, u32>,
    /// Oldest first. A later number of a key replaces an earlier one, and what is in memory all of them.
    runs: Vec<Run>,
}

impl Numbers {
    /// Adds one to the number of each of these keys, which become known and held; gives the numbers before.
    pub fn count(&mut self, tables: &ColdTables, keys: &mut Dictionary, ids: &[u32]) -> Result<Vec<u32>> {
        let hashes = ids.iter().filter(|id| !self.known.contains_key(*id)).map(|id| keys.hash(*id));
        let range = hashes.clone().min().zip(hashes.max()).filter(|_| !self.runs.is_empty());
        let mut spilled = range.map(|(first, last)| self.spilled(tables, &(first..=last))).transpose()?;
        let known = &mut self.known;
        let mut before = Vec::with_capacity(ids.len());
        for id in ids {
            let next = known.entry(*id).or_insert_with(|| {
                keys.hold(*id);
                let spilled = spilled.as_mut().map(|(own, numbers)| (own.insert(keys.key(*id)), numbers));
                spilled.and_then(|(own, numbers)| numbers.get(&own)).copied().unwrap_or(0)
            });
            before.push(*next);
            *next += 1;
        }
        Ok(before)
    }

    /// Takes the number of a key that has none; false if it has.
    pub fn put(&mut self, keys: &mut Dictionary, id: u32, number: u32) -> bool {
        keys.hold(id);
        self.known.insert(id, number).is_none()
    }

    /// What is on disk for keys with hashes in a range.
    fn spilled(&self, tables: &ColdTables, range: &RangeInclusive<u64>) -> Result<(Dictionary, HashMap<u32, u32>)> {
        let (mut keys, mut numbers) = (Dictionary::new(&tables.codec), HashMap::new());
        for run in &self.runs {
            tables.each_within(run, range, &mut |rows| {
                let read = tables.numbers.read(rows)?;
                let ids = keys.intern_all(&read.keys, rows.num_rows());
                let values = read.own[1].as_primitive::<UInt32Type>().values();
                numbers.extend(ids.into_iter().zip(values.iter().copied()));
                Ok(())
            })?;
        }
        Ok((keys, numbers))
    }

    /// Gives all keys with their numbers piece by piece, each with its dictionary; by ranges of hashes if some are on disk.
    pub fn each(&self, tables: &ColdTables, keys: &Dictionary, take: &mut TakeNumbers<'_>) -> Result<()> {
        if self.runs.is_empty() {
            let all: Vec<(u32, u32)> = self.known.iter().map(|(id, number)| (*id, *number)).collect();
            return all.chunks(PART_ROWS).try_for_each(|part| take(keys, part));
        }
        let mut known: Vec<(u64, u32)> = self.known.keys().map(|id| (keys.hash(*id), *id)).collect();
        known.sort_unstable();
        let pieces = self.runs.iter().flat_map(Run::pieces).map(|piece| (*piece.order.start(), piece.rows));
        let pieces = pieces.chain(known.chunks(PIECE_ROWS).map(|piece| (piece[0].0, piece.len())));
        for range in ranges_of(pieces.collect()) {
            let (mut own, mut numbers) = self.spilled(tables, &range)?;
            let from = known.partition_point(|(hash, _)| hash < range.start());
            for (_, id) in known[from..].iter().take_while(|(hash, _)| hash <= range.end()) {
                numbers.insert(own.insert(keys.key(*id)), self.known[id]);
            }
            take(&own, &numbers.into_iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Those on disk alone.
    #[must_use]
    pub fn on_disk(&self) -> Numbers {
        Numbers { known: HashMap::new(), runs: self.runs.clone() }
    }

    /// The keys of those in memory.
    pub fn known(&self) -> impl Iterator<Item = u32> {
        self.known.keys().copied()
    }

    /// The number of a key that is in memory.
    pub fn of(&self, id: u32) -> Option<u32> {
        self.known.get(&id).copied()
    }

    /// Whether all are in memory.
    pub fn is_in_memory(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether numbers are in memory.
    pub fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Writes out what is in memory.
    pub fn spill(&mut self, tables: &ColdTables, keys: &mut Dictionary, to: &mut Writer) -> Result<()> {
        if self.runs.len() < RUNS_MAX_LOOKED_UP {
            let known: Vec<(u32, u32)> = self.known.iter().map(|(id, number)| (*id, *number)).collect();
            tables.write_numbers(keys, &known, to)?;
        } else {
            self.each(tables, keys, &mut |keys, part| tables.write_numbers(keys, part, to))?;
            self.runs.clear();
        }
        self.runs.push(to.end_run());
        self.release(keys);
        self.known = HashMap::new();
        Ok(())
    }

    /// Lets go of all keys.
    pub fn release(&self, keys: &mut Dictionary) {
        self.known.keys().for_each(|id| keys.release(*id));
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        self.known.capacity() * 9 + size_of::<Numbers>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::accumulator::AggregateFunction;
    use super::*;
    use crate::env::sim::Sim;
    use arrow::array::{Float64Array, Int64Array};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn sums(keys: &Dictionary, slice: &Slice, into: &mut BTreeMap<Vec<u8>, u64>) {
        let slots: Vec<u32> = (0u32..).take(slice.ids().len()).collect();
        let results = slice.results(&slots).expect("sums").remove(0);
        for (slot, sum) in slots.iter().zip(results.as_primitive::<arrow::datatypes::Float64Type>().values()) {
            let before = into.insert(keys.key(slice.ids()[*slot as usize]).to_vec(), sum.to_bits());
            assert!(before.is_none(), "a key in two ranges");
        }
    }

    /// So many rows that they do not wait in memory until somebody asks for it.
    #[test]
    fn rows_that_come_after_a_spill_are_folded_in_their_order() {
        let codec = KeyCodec::new(vec![DataType::Int64]).expect("a key");
        let argument = DataType::Float64;
        let spec = AggregateSpec {
            function: AggregateFunction::Sum,
            distinct: false,
            argument: Some(argument.clone()),
            result: argument,
        };
        let key = Field::new("k", DataType::Int64, true);
        let tables = ColdTables::new(&codec, &[key], &[("sum".to_owned(), spec)]).expect("tables");
        assert!(!tables.is_exact);
        let sim = Sim::new(1);
        let spill = Spill::new(&sim.env(), Path::new("scratch"));
        let (mut keys, mut whole, mut memory) =
            (Dictionary::new(&codec), tables.empty().expect("a slice"), tables.empty().expect("a slice"));
        let mut cold = Cold::default();
        for batch in 0..60u64 {
            let dice = |n: u64| crate::codec::xxh64(&(batch * 8192 + n).to_le_bytes(), 0);
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..8192).map(|n| (dice(n) % 50_000) as i64)));
            let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..8192).map(|n| dice(n) as f64 / 7.0)));
            let ids = keys.intern_all(&codec.encode(&[column]), 8192);
            let rows: Vec<u32> = (0..8192).collect();
            let arguments = Arguments { values: vec![Some(values)], filters: vec![None], positions: Vec::new() };
            whole.update(&ids, keys.bound(), &arguments, &rows);
            if batch == 0 {
                memory.update(&ids, keys.bound(), &arguments, &rows);
                cold.spill(&tables, &keys, &memory, &mut spill.writer().expect("a file")).expect("written");
                memory = tables.empty().expect("a slice");
            } else {
                cold.take_rows(&tables, (&keys, &ids), (&arguments, &rows), &spill).expect("taken");
            }
        }
        assert!(cold.runs.len() > 1 && cold.row_bytes < ROWS_BYTES_MAX);
        let parts = Whole::new(&tables, &cold, (&keys, &memory)).expect("a slice");
        let ranges = ranges(&tables, std::iter::once(&parts));
        assert!(ranges.len() > 3, "{ranges:?}");
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        sums(&keys, &whole, &mut expected);
        for range in ranges {
            let (mut own, mut part) = (Dictionary::new(&codec), tables.empty().expect("a slice"));
            parts.add(&tables, (&keys, &memory), &range, (&mut own, &mut part)).expect("read");
            sums(&own, &part, &mut found);
        }
        assert!(found == expected && expected.len() > 40_000);
    }
}
