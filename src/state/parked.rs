//! Keys of which nobody has asked anything for a while, on disk with all that is kept for them, until a row of theirs comes or their time
//! does. A key is here or in memory, never in parts, and comes back as it went: nothing is merged, so nothing can show where it was.
//!
//! Rows lie by when they are due, so those that are due together are read together. Where the rows of a key are is known in memory, in
//! eight bytes a row. Half of a hash stands for the key: who shares it comes back as well, which does no harm.

use super::cold::ranges_of;
use super::spill::{Piece, Run, Spill, Writer};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use hashbrown::HashSet;
use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Rows of a piece on disk, at least: it holds keys with all their rows. All of a piece is read for one of them.
const PIECE_ROWS: usize = 256;

/// Rows that come back at once because they are due, at least.
const DUE_ROWS: usize = 4 * 1024;

/// Rows that are made into a batch at once.
const ROWS_AT_ONCE: usize = 32 * PIECE_ROWS;

/// More lots than this, and the smaller half of them is made one.
const LOTS_MAX: usize = 8;

/// One row of a key.
pub struct Parking<T> {
    /// When it has to be back: the earliest time of all rows of its key.
    pub due: i64,
    /// Of its key.
    pub hash: u64,
    /// What it is to its owner.
    pub row: T,
}

/// Chooses keys to go to disk, those first whose time in event time is least, until so many bytes become free; none if that would be less
/// than `least` bytes.
pub fn coldest(mut keys: Vec<(i64, u32)>, bytes_of_key: f64, bytes: usize, least: usize) -> HashSet<u32> {
    if bytes_of_key * (keys.len() as f64) < least as f64 {
        return HashSet::new();
    }
    keys.sort_unstable();
    keys.truncate((bytes as f64 / bytes_of_key).ceil() as usize);
    keys.into_iter().map(|(_, key)| key).collect()
}

/// All keys that one operator has on disk.
#[derive(Clone)]
pub struct Parked {
    /// Rows as their owner knows them.
    schema: SchemaRef,
    /// The same with due time and hash behind.
    stored: SchemaRef,
    lots: Vec<Lot>,
    /// Set when something came here first.
    spill: Option<Arc<Spill>>,
}

/// Keys that went to disk together.
#[derive(Clone)]
struct Lot {
    /// Sorted by due time, then by hash.
    run: Run,
    /// Number of the first row of each piece.
    firsts: Vec<u32>,
    /// The upper half of each row's hash, and its number; sorted.
    index: Arc<[(u32, u32)]>,
    /// Rows that went back. Shared with who saves them, until more do.
    gone: Arc<Vec<bool>>,
    /// Rows left, by piece.
    left: Vec<usize>,
    /// The pieces before this one have none.
    front: usize,
}

fn upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A time as a number that is ordered as it is.
fn rank(due: i64) -> u64 {
    due.cast_unsigned() ^ (1 << 63)
}

fn due_of(rank: u64) -> i64 {
    (rank ^ (1 << 63)).cast_signed()
}

fn arrow_failed(e: arrow::error::ArrowError) -> Error {
    Error::internal("rows of spilled keys").with_source(e)
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a lot has fewer than 4 billion rows")
}

/// Due times and hashes of stored rows.
fn places(rows: &RecordBatch) -> (&[i64], &[u64]) {
    let column = |from_end: usize| rows.column(rows.num_columns() - from_end);
    (column(2).as_primitive::<Int64Type>().values(), column(1).as_primitive::<UInt64Type>().values())
}

impl Parked {
    /// No keys; rows have these columns.
    pub fn new(schema: &SchemaRef) -> Parked {
        let own = [Field::new("due", DataType::Int64, false), Field::new("hash", DataType::UInt64, false)];
        let fields = schema.fields().iter().cloned().chain(own.map(Arc::new));
        let stored = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Parked { schema: Arc::clone(schema), stored, lots: Vec::new(), spill: None }
    }

    /// Whether no key is here.
    pub fn is_empty(&self) -> bool {
        self.lots.is_empty()
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        self.lots.iter().map(Lot::byte_len).sum()
    }

    /// A time before which no row is due; `None`: there is none.
    pub fn next_due(&self) -> Option<i64> {
        self.lots.iter().map(Lot::next_due).min()
    }

    /// Takes keys, each with all its rows; `batch` makes some of them.
    pub fn put<T>(
        &mut self,
        mut rows: Vec<Parking<T>>,
        batch: impl Fn(&[Parking<T>]) -> Result<RecordBatch>,
        spill: &Arc<Spill>,
    ) -> Result<()> {
        self.spill = Some(Arc::clone(spill));
        rows.sort_by_key(|row| (row.due, row.hash));
        let mut maker = LotMaker::new(spill.writer()?, &self.stored);
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let mut columns = batch(rows)?.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.due))) as ArrayRef);
            columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.hash))));
            maker.add(RecordBatch::try_new(Arc::clone(&self.stored), columns).map_err(arrow_failed)?)?;
        }
        self.lots.extend(maker.end()?);
        self.tidy(spill)
    }

    /// Makes one lot of the smaller half, if there are too many.
    fn tidy(&mut self, spill: &Arc<Spill>) -> Result<()> {
        if self.lots.len() <= LOTS_MAX {
            return Ok(());
        }
        self.lots.sort_by_key(|lot| std::cmp::Reverse(lot.rows_left()));
        let small = self.lots.split_off(LOTS_MAX / 2);
        let held = small.iter().flat_map(Lot::pieces_left);
        let ranges = ranges_of(held.map(|(piece, left)| (*piece.order.start(), left)).collect());
        let mut maker = LotMaker::new(spill.writer()?, &self.stored);
        for range in ranges {
            let mut parts = Vec::new();
            for lot in &small {
                lot.rows_between(&range, &mut parts)?;
            }
            maker.add(sorted(&concat_batches(&self.stored, &parts).map_err(arrow_failed)?)?)?;
        }
        self.lots.extend(maker.end()?);
        Ok(())
    }

    /// Sorts all keys anew, by a column of times that their rows have; keys have one row each.
    pub fn sort_by(&mut self, column: usize) -> Result<()> {
        let Some(spill) = self.spill.clone() else { return Ok(()) };
        let at = self.schema.fields().len();
        let (mut waiting, mut count) = (Vec::new(), 0);
        for lot in mem::take(&mut self.lots) {
            for (piece, left) in lot.left.iter().enumerate().filter(|(_, left)| **left > 0) {
                let rows = lot.read(piece, &lot.left_in(piece))?;
                let mut columns = rows.columns().to_vec();
                columns[at] = cast(&columns[column], &DataType::Int64).map_err(arrow_failed)?;
                waiting.push(RecordBatch::try_new(Arc::clone(&self.stored), columns).map_err(arrow_failed)?);
                count += left;
                if count >= DUE_ROWS {
                    self.put_again(&mem::take(&mut waiting), &spill)?;
                    count = 0;
                }
            }
        }
        self.put_again(&waiting, &spill)
    }

    /// Takes stored rows whose due times are others now.
    fn put_again(&mut self, rows: &[RecordBatch], spill: &Arc<Spill>) -> Result<()> {
        let mut maker = LotMaker::new(spill.writer()?, &self.stored);
        maker.add(sorted(&concat_batches(&self.stored, rows).map_err(arrow_failed)?)?)?;
        self.lots.extend(maker.end()?);
        self.tidy(spill)
    }

    /// Gives back all rows of the keys with these hashes.
    pub fn take_keys(&mut self, mut hashes: Vec<u64>) -> Result<Vec<RecordBatch>> {
        hashes.sort_unstable();
        hashes.dedup();
        let mut taken = Vec::new();
        for lot in &mut self.lots {
            let mut rows = &lot.find(&hashes)[..];
            while let Some(first) = rows.first() {
                let piece = lot.firsts.partition_point(|other| other <= first) - 1;
                let end = lot.firsts.get(piece + 1).copied().unwrap_or(u32::MAX);
                let (inside, rest) = rows.split_at(rows.partition_point(|row| *row < end));
                taken.push(lot.take(piece, inside)?);
                rows = rest;
            }
        }
        self.given(&taken)
    }

    /// Gives back what is due at a time or earlier, the first of it if it is much, and says until when all is back. Others come along.
    pub fn take_due(&mut self, until: i64) -> Result<(Vec<RecordBatch>, i64)> {
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < DUE_ROWS
            && let Some(lot) =
                self.lots.iter_mut().filter(|lot| lot.next_due() <= until).min_by_key(|lot| lot.next_due())
        {
            let piece = lot.front;
            taken.push(lot.take(piece, &lot.left_in(piece))?);
            count += taken.last().map_or(0, RecordBatch::num_rows);
            self.lots.retain(|lot| lot.front < lot.left.len());
        }
        let back = self.next_due().map_or(until, |due| until.min(due.saturating_sub(1)));
        Ok((self.given(&taken)?, back))
    }

    /// Rows as their owner knows them; lots without any more are gone.
    fn given(&mut self, stored: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        self.lots.retain(|lot| lot.front < lot.left.len());
        stored.iter().map(|rows| self.own(rows)).collect()
    }

    fn own(&self, stored: &RecordBatch) -> Result<RecordBatch> {
        let columns = stored.columns()[..self.schema.fields().len()].to_vec();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(arrow_failed)
    }

    /// Gives all rows to who saves them; they stay.
    pub fn each(&self, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        for lot in &self.lots {
            for piece in (lot.front..lot.left.len()).filter(|piece| lot.left[*piece] > 0) {
                take(self.own(&lot.read(piece, &lot.left_in(piece))?)?)?;
            }
        }
        Ok(())
    }
}

impl Lot {
    fn rows_left(&self) -> usize {
        self.left.iter().sum()
    }

    /// Its pieces with rows, and how many they have.
    fn pieces_left(&self) -> impl Iterator<Item = (&Piece, usize)> {
        self.run.pieces().iter().zip(self.left.iter().copied()).filter(|(_, left)| *left > 0)
    }

    fn next_due(&self) -> i64 {
        due_of(*self.run.pieces()[self.front].order.start())
    }

    /// Rows of keys with these hashes, or such that begin alike, ascending.
    fn find(&self, hashes: &[u64]) -> Vec<u32> {
        let mut found = Vec::new();
        let mut rest = &self.index[..];
        for half in hashes.iter().map(|hash| upper_half(*hash)) {
            rest = &rest[rest.partition_point(|(other, _)| *other < half)..];
            let rows = rest.iter().take_while(|(other, _)| *other == half).map(|(_, row)| *row);
            found.extend(rows.filter(|row| !self.gone[*row as usize]));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn left_in(&self, piece: usize) -> Vec<u32> {
        let from = self.firsts[piece];
        let rows = from..from + row_number(self.run.pieces()[piece].rows);
        rows.filter(|row| !self.gone[*row as usize]).collect()
    }

    /// Some rows of a piece.
    fn read(&self, piece: usize, rows: &[u32]) -> Result<RecordBatch> {
        let all = self.run.read(&self.run.pieces()[piece])?;
        let from = self.firsts[piece];
        let picked = UInt32Array::from_iter_values(rows.iter().map(|row| row - from));
        take_record_batch(&all, &picked).map_err(arrow_failed)
    }

    /// The same; they go.
    fn take(&mut self, piece: usize, rows: &[u32]) -> Result<RecordBatch> {
        let taken = self.read(piece, rows)?;
        let gone = Arc::make_mut(&mut self.gone);
        rows.iter().for_each(|row| gone[*row as usize] = true);
        self.left[piece] -= rows.len();
        while self.left.get(self.front) == Some(&0) {
            self.front += 1;
        }
        Ok(taken)
    }

    /// Rows that are due in a range, given as [`rank`] has it.
    fn rows_between(&self, range: &RangeInclusive<u64>, parts: &mut Vec<RecordBatch>) -> Result<()> {
        for (number, piece) in self.run.pieces().iter().enumerate() {
            if self.left[number] > 0 && piece.order.start() <= range.end() && range.start() <= piece.order.end() {
                let rows = self.read(number, &self.left_in(number))?;
                let (dues, _) = places(&rows);
                let from = dues.partition_point(|due| rank(*due) < *range.start());
                let to = dues.partition_point(|due| rank(*due) <= *range.end());
                parts.push(rows.slice(from, to - from));
            }
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        let pieces = size_of_val(self.run.pieces()) + size_of_val(&self.left[..]) + size_of_val(&self.firsts[..]);
        size_of_val(&self.index[..]) + self.gone.len() + pieces
    }
}

/// Rows by due time, then by hash.
fn sorted(rows: &RecordBatch) -> Result<RecordBatch> {
    let (dues, hashes) = places(rows);
    let mut order: Vec<u32> = (0..row_number(rows.num_rows())).collect();
    order.sort_by_key(|row| (dues[*row as usize], hashes[*row as usize]));
    take_record_batch(rows, &UInt32Array::from(order)).map_err(arrow_failed)
}

/// Where a piece of these rows can end without cutting a key.
fn end_of_piece(rows: &RecordBatch) -> Option<usize> {
    let (dues, hashes) = places(rows);
    (PIECE_ROWS..rows.num_rows()).find(|end| (dues[*end], hashes[*end]) != (dues[end - 1], hashes[end - 1]))
}

/// Writes a lot.
struct LotMaker {
    to: Writer,
    stored: SchemaRef,
    index: Vec<(u32, u32)>,
    firsts: Vec<u32>,
    left: Vec<usize>,
    /// What does not fill a piece yet.
    rest: RecordBatch,
}

impl LotMaker {
    fn new(to: Writer, stored: &SchemaRef) -> LotMaker {
        let rest = RecordBatch::new_empty(Arc::clone(stored));
        LotMaker { to, stored: Arc::clone(stored), index: Vec::new(), firsts: Vec::new(), left: Vec::new(), rest }
    }

    /// Adds rows that are sorted, behind those before.
    fn add(&mut self, rows: RecordBatch) -> Result<()> {
        let mut rows = match self.rest.num_rows() {
            0 => rows,
            _ => concat_batches(&self.stored, [&self.rest, &rows]).map_err(arrow_failed)?,
        };
        while let Some(end) = end_of_piece(&rows) {
            self.piece(rows.slice(0, end))?;
            rows = rows.slice(end, rows.num_rows() - end);
        }
        self.rest = rows;
        Ok(())
    }

    fn piece(&mut self, rows: RecordBatch) -> Result<()> {
        let (dues, hashes) = places(&rows);
        let (Some(first), Some(last)) = (dues.first(), dues.last()) else { return Ok(()) };
        let order = rank(*first)..=rank(*last);
        self.firsts.push(row_number(self.index.len()));
        self.index.extend(hashes.iter().map(|hash| upper_half(*hash)).zip(row_number(self.index.len())..));
        self.left.push(dues.len());
        self.to.piece(order, rows)
    }

    /// The lot; `None` without rows.
    fn end(mut self) -> Result<Option<Lot>> {
        let rest = self.rest.clone();
        self.piece(rest)?;
        if self.left.is_empty() {
            return Ok(None);
        }
        let gone = Arc::new(vec![false; self.index.len()]);
        self.index.sort_unstable();
        Ok(Some(Lot {
            run: self.to.end_run(),
            firsts: self.firsts,
            index: self.index.into(),
            gone,
            left: self.left,
            front: 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::Sim;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Keys by number, with the numbers of their rows and when they are due. Hashes of some begin alike.
    type Model = BTreeMap<u64, (i64, Vec<u64>)>;

    #[derive(Debug, Clone)]
    enum Step {
        /// So many keys from this one on, due at a time that depends on both.
        Put {
            first: u64,
            count: u64,
            due: i64,
        },
        Keys(Vec<u64>),
        Due(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u64..8_000, 1u64..3_000, -50i64..50).prop_map(|(first, count, due)| Step::Put { first, count, due }),
            2 => prop::collection::vec(0u64..8_000, 0..40).prop_map(Step::Keys),
            1 => (-60i64..120).prop_map(Step::Due),
        ]
    }

    fn hash_of(key: u64) -> u64 {
        (key % 5_000).wrapping_mul(0x9E37_79B9_7F4A_7C15) & !0xFFFF_FFFF | key
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::UInt64, false),
            Field::new("n", DataType::UInt64, false),
        ]))
    }

    fn batch(rows: &[Parking<(u64, u64)>]) -> Result<RecordBatch> {
        let column = |of: fn(&(u64, u64)) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|parking| of(&parking.row))))
        };
        RecordBatch::try_new(schema(), vec![column(|row| row.0), column(|row| row.1)]).map_err(arrow_failed)
    }

    /// Rows by key, as a model has them without due times.
    fn rows_of(batches: &[RecordBatch]) -> BTreeMap<u64, Vec<u64>> {
        let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for rows in batches {
            let [keys, numbers] = [0, 1].map(|at: usize| rows.column(at).as_primitive::<UInt64Type>().values());
            keys.iter().zip(numbers).for_each(|(key, n)| found.entry(*key).or_default().push(*n));
        }
        found
    }

    /// Takes what came back out of the model; checks that it is whole.
    fn came_back(model: &mut Model, taken: &[RecordBatch]) {
        for (key, rows) in rows_of(taken) {
            assert_eq!(model.remove(&key).map(|(_, rows)| rows), Some(rows), "key {key}");
        }
    }

    fn put(parked: &mut Parked, model: &mut Model, keys: impl Iterator<Item = u64>, due: i64, spill: &Arc<Spill>) {
        let mut rows = Vec::new();
        for key in keys {
            model.entry(key).or_insert_with(|| {
                let due = due + (key % 70) as i64;
                let numbers: Vec<u64> = (0..=key % 3).collect();
                rows.extend(numbers.iter().map(|n| Parking { due, hash: hash_of(key), row: (key, *n) }));
                (due, numbers)
            });
        }
        parked.put(rows, batch, spill).expect("written");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn keys_come_back_whole_when_they_are_wanted_or_due(steps in prop::collection::vec(step(), 1..40)) {
            let sim = Sim::new(1);
            let spill = Spill::new(&sim.env(), Path::new("scratch"));
            let (mut parked, mut model) = (Parked::new(&schema()), Model::new());
            for step in steps {
                match step {
                    Step::Put { first, count, due } => put(&mut parked, &mut model, first..first + count, due, &spill),
                    Step::Keys(keys) => {
                        let hashes = keys.iter().map(|key| hash_of(*key)).collect();
                        came_back(&mut model, &parked.take_keys(hashes).expect("read"));
                        prop_assert!(!keys.iter().any(|key| model.contains_key(key)));
                    }
                    Step::Due(until) => {
                        let mut back = i64::MIN;
                        while back < until {
                            let (taken, all) = parked.take_due(until).expect("read");
                            came_back(&mut model, &taken);
                            prop_assert!(model.values().all(|(due, _)| *due > all), "until {all}");
                            back = all;
                        }
                    }
                }
                prop_assert!(parked.lots.len() <= LOTS_MAX && parked.is_empty() == model.is_empty());
                prop_assert!(model.values().all(|(due, _)| parked.next_due().is_some_and(|next| next <= *due)));
            }
            let mut left = Vec::new();
            parked.each(&mut |rows| { left.push(rows); Ok(()) }).expect("read");
            let expected: BTreeMap<u64, Vec<u64>> = model.into_iter().map(|(key, (_, rows))| (key, rows)).collect();
            prop_assert_eq!(rows_of(&left), expected);
        }
    }
}
