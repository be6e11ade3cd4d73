//! The partial result of one slice of time: its keys and their accumulators. It owns all that it holds, so dropping it when its
//! last window closes frees everything; nothing outlives the windows it belongs to.

use super::accumulator::{Accumulator, AggregateSpec, Update, build};
use super::keys::{KeyRows, KeyTable};
use crate::error::Result;
use arrow::array::ArrayRef;

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

/// Keys and accumulators of a slice.
pub struct Partial {
    keys: KeyTable,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// Slots of the rows of one update, kept for its memory.
    slots: Vec<u32>,
}

impl Partial {
    /// Nothing yet.
    pub fn new(specs: &[AggregateSpec]) -> Result<Partial> {
        let accumulators = specs.iter().map(build).collect::<Result<_>>()?;
        Ok(Partial { keys: KeyTable::default(), accumulators, slots: Vec::new() })
    }

    /// Adds rows in position order.
    pub fn update(&mut self, keys: &KeyRows, arguments: &Arguments, rows: &[u32]) {
        self.slots.clear();
        keys.intern(&mut self.keys, rows, &mut self.slots);
        for accumulator in &mut self.accumulators {
            accumulator.grow(self.keys.len());
        }
        arguments.update(&mut self.accumulators, &self.slots, rows);
    }

    /// Adds what comes later in time.
    pub fn merge(&mut self, later: &Partial) {
        let into: Vec<u32> = (0u32..)
            .take(later.keys.len())
            .map(|id| self.keys.intern(later.keys.hash(id), later.keys.key(id)))
            .collect();
        for (accumulator, other) in self.accumulators.iter_mut().zip(&later.accumulators) {
            accumulator.grow(self.keys.len());
            accumulator.merge(&**other, &into);
        }
    }

    /// The keys.
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// The results of each aggregate for these keys.
    pub fn results(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.accumulators.iter().map(|accumulator| accumulator.results(slots)).collect()
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        self.keys.byte_len() + self.accumulators.iter().map(|accumulator| accumulator.byte_len()).sum::<usize>()
    }
}
