//! The partial result of one slice of time: a slot for each key that has rows in it, and the accumulators by slot. Keys are numbers of
//! the operator's [`Dictionary`](super::dictionary::Dictionary); whoever owns the slice holds them there.

use super::accumulator::{Accumulator, AggregateSpec, Update, build, grow_to, save_all};
use crate::error::{Error, Result};
use arrow::array::ArrayRef;
use hashbrown::HashTable;

/// Aggregate arguments of a batch of rows.
pub struct Arguments {
    /// For each aggregate its argument; `None` for `COUNT(*)`.
    pub values: Vec<Option<ArrayRef>>,
    /// For each aggregate, for each row, whether its FILTER lets the row in; `None`: no filter.
    pub filters: Vec<Option<Vec<bool>>>,
    /// Position of each row; may be empty if no aggregate is by position.
    pub positions: Vec<u64>,
}

impl Arguments {
    /// Gives `rows`, which belong to `slots`, to every accumulator.
    pub fn update(&self, accumulators: &mut [Box<dyn Accumulator>], slots: &[u32], rows: &[u32]) {
        for ((accumulator, values), filter) in accumulators.iter_mut().zip(&self.values).zip(&self.filters) {
            let update = Update { slots, rows, values: values.as_ref(), positions: &self.positions };
            match filter {
                None => accumulator.update(&update),
                Some(mask) => {
                    let pairs = slots.iter().zip(rows).filter(|(_, row)| mask[**row as usize]);
                    let (slots, rows): (Vec<u32>, Vec<u32>) = pairs.map(|(slot, row)| (*slot, *row)).unzip();
                    accumulator.update(&Update { slots: &slots, rows: &rows, ..update });
                }
            }
        }
    }
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Up to this many keys of the dictionary the slots are an array by key: looking is cheaper than saving room.
const ALWAYS_DENSE: usize = 1024;

/// From key to slot: an array where many of the dictionary's keys are in the slice, else a table.
enum Slots {
    Dense(Vec<u32>),
    Sparse(HashTable<u32>),
}

/// Spreads numbers that follow each other over all bits.
#[inline]
fn spread(id: u32) -> u64 {
    (u64::from(id) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_right(17)
}

/// Keys and accumulators of a slice. There may be very many: it cannot be copied.
pub struct Slice {
    slots: Slots,
    /// Key of each slot.
    ids: Vec<u32>,
    accumulators: Vec<Box<dyn Accumulator>>,
}

impl Slice {
    /// Nothing yet.
    pub fn new(specs: &[AggregateSpec]) -> Result<Slice> {
        let accumulators = specs.iter().map(build).collect::<Result<_>>()?;
        Ok(Slice { slots: Slots::Dense(Vec::new()), ids: Vec::new(), accumulators })
    }

    /// Adds rows in position order; `ids` is the key of each, all below `bound`. Keys new to the slice stand at the end of
    /// [`ids`](Self::ids) afterwards.
    pub fn update(&mut self, ids: &[u32], bound: usize, arguments: &Arguments, rows: &[u32]) {
        let slots = self.slots_of(ids, bound);
        self.grow();
        arguments.update(&mut self.accumulators, &slots, rows);
    }

    /// Adds what comes later in time.
    pub fn merge(&mut self, later: &Slice, bound: usize) {
        let from: Vec<u32> = (0u32..).take(later.ids.len()).collect();
        self.merge_slots(later, &from, &later.ids, bound);
    }

    /// Adds some keys, each once, of what comes later in time.
    pub fn merge_keys(&mut self, later: &Slice, ids: &[u32], bound: usize) {
        let found = ids.iter().filter_map(|id| later.slot_of(*id).map(|slot| (slot, *id)));
        let (from, ids): (Vec<u32>, Vec<u32>) = found.unzip();
        self.merge_slots(later, &from, &ids, bound);
    }

    fn merge_slots(&mut self, later: &Slice, from: &[u32], ids: &[u32], bound: usize) {
        let into = self.slots_of(ids, bound);
        self.grow();
        for (accumulator, other) in self.accumulators.iter_mut().zip(&later.accumulators) {
            accumulator.merge(&**other, from, &into);
        }
    }

    fn grow(&mut self) {
        for accumulator in &mut self.accumulators {
            accumulator.grow(self.ids.len());
        }
    }

    /// The slots of keys, new or not.
    fn slots_of(&mut self, ids: &[u32], bound: usize) -> Vec<u32> {
        self.choose(bound);
        let known = &mut self.ids;
        match &mut self.slots {
            Slots::Dense(by_id) => {
                grow_to(by_id, bound, NONE);
                let slots = ids.iter().map(|id| {
                    let slot = &mut by_id[*id as usize];
                    if *slot == NONE {
                        *slot = add(known, *id);
                    }
                    *slot
                });
                slots.collect()
            }
            Slots::Sparse(table) => {
                let slots = ids.iter().map(|id| {
                    let found = table.find(spread(*id), |slot| known[*slot as usize] == *id);
                    found.copied().unwrap_or_else(|| {
                        let slot = add(known, *id);
                        table.insert_unique(spread(*id), slot, |slot| spread(known[*slot as usize]));
                        slot
                    })
                });
                slots.collect()
            }
        }
    }

    /// An array pays when at least half of all keys are in the slice.
    fn choose(&mut self, bound: usize) {
        let dense = bound <= ALWAYS_DENSE || self.ids.len() * 2 >= bound;
        match (&self.slots, dense) {
            (Slots::Sparse(_), true) => {
                let mut by_id = vec![NONE; bound];
                (0u32..).zip(&self.ids).for_each(|(slot, id)| by_id[*id as usize] = slot);
                self.slots = Slots::Dense(by_id);
            }
            (Slots::Dense(by_id), false) if by_id.len() < bound || self.ids.is_empty() => {
                let mut table = HashTable::with_capacity(self.ids.len());
                let ids = &self.ids;
                for (slot, id) in (0u32..).zip(ids) {
                    table.insert_unique(spread(*id), slot, |slot| spread(ids[*slot as usize]));
                }
                self.slots = Slots::Sparse(table);
            }
            _ => {}
        }
    }

    /// The slot of a key, if it has rows here.
    pub fn slot_of(&self, id: u32) -> Option<u32> {
        match &self.slots {
            Slots::Dense(by_id) => by_id.get(id as usize).copied().filter(|slot| *slot != NONE),
            Slots::Sparse(table) => table.find(spread(id), |slot| self.ids[*slot as usize] == id).copied(),
        }
    }

    /// The keys by slot.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The results of each aggregate for these slots.
    pub fn results(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.accumulators.iter().map(|accumulator| accumulator.results(slots)).collect()
    }

    /// What these slots hold: the columns of all accumulators.
    pub fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        save_all(&self.accumulators, slots)
    }

    /// Adds keys, all below `bound` and none of them here yet, with what was saved for them.
    pub fn load(&mut self, ids: &[u32], bound: usize, states: &[&[ArrayRef]]) -> Result<()> {
        let known = self.ids.len();
        let slots = self.slots_of(ids, bound);
        if self.ids.len() != known + ids.len() {
            return Err(Error::damage("saved state has a key twice"));
        }
        self.grow();
        let pairs = self.accumulators.iter_mut().zip(states);
        pairs.into_iter().try_for_each(|(accumulator, state)| accumulator.load(&slots, state))
    }

    /// Bytes held, roughly, without the dictionary.
    pub fn byte_len(&self) -> usize {
        let slots = match &self.slots {
            Slots::Dense(by_id) => by_id.capacity() * size_of::<u32>(),
            Slots::Sparse(table) => table.capacity() * 5,
        };
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.byte_len()).sum::<usize>();
        slots + self.ids.capacity() * size_of::<u32>() + accumulators
    }
}

/// Gives a key the next slot.
fn add(known: &mut Vec<u32>, id: u32) -> u32 {
    let slot = number(known.len());
    grow_to(known, known.len() + 1, id);
    slot
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("fewer than 4 billion keys fit into memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::accumulator::AggregateFunction;

    /// Bytes of a count by key beside the 8 of the count itself, of so many of the dictionary's keys.
    fn share(keys: u32, bound: u32) -> f64 {
        let spec = AggregateSpec {
            function: AggregateFunction::Count,
            distinct: false,
            argument: None,
            result: arrow::datatypes::DataType::Int64,
        };
        let mut slice = Slice::new(&[spec]).expect("a count");
        let arguments = Arguments { values: vec![None], filters: vec![None], positions: Vec::new() };
        let ids: Vec<u32> = (0..keys).map(|key| key * (bound / keys)).collect();
        for ids in ids.chunks(8192) {
            slice.update(ids, bound as usize, &arguments, &(0u32..).take(ids.len()).collect::<Vec<_>>());
        }
        slice.byte_len() as f64 / f64::from(keys) / 8.0
    }

    #[test]
    fn a_key_of_a_slice_takes_three_times_its_accumulator_at_most() {
        for keys in (1_000..150_000).step_by(1_777) {
            for spread in [1, 2, 20] {
                let share = share(keys, keys * spread);
                println!("{keys} keys, one in {spread}: {share:.2}");
                assert!(share <= 3.0, "{keys} keys, one in {spread}: {share:.2}");
            }
        }
    }
}
