//! COUNT(*) and COUNT(x).

use super::{Accumulator, Update, grow_to, same, stored};
use crate::error::Result;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field};
use std::any::Any;
use std::sync::Arc;

/// Counts rows, or rows with a non-null argument.
#[derive(Debug, Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Accumulator for Count {
    fn grow(&mut self, slots: usize) {
        grow_to(&mut self.counts, slots, 0);
    }

    fn reset(&mut self, slot: u32) {
        self.counts[slot as usize] = 0;
    }

    fn update(&mut self, update: &Update<'_>) {
        let counts = self.counts.as_mut_slice();
        match update.values {
            None => update.slots.iter().for_each(|slot| counts[*slot as usize] += 1),
            Some(_) => update.each(|slot, _| counts[slot] += 1),
        }
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Count>(other).counts;
        for (from, into) in from.iter().zip(into) {
            self.counts[*into as usize] += later[*from as usize];
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        self.counts[into as usize] += self.counts[from as usize];
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let counts = slots.iter().map(|slot| self.counts[*slot as usize]);
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn state_fields(&self) -> Vec<Field> {
        stored::layout("count", 1, vec![Field::new("count", DataType::Int64, false)])
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.results(slots)?])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.counts.len(), state)?;
        for (count, slot) in stored::counts(&state[0])?.into_iter().zip(slots) {
            self.counts[*slot as usize] = count;
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.counts.capacity() * 8
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
