//! ARRAY_AGG: values gathered in position order.

use super::boxes::{Boxes, Measured};
use super::{Accumulator, Update, same, stored};
use crate::codec::xxh64;
use crate::error::{Error, Result};
use crate::state::keys::{KeyCodec, KeyTable};
use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use std::any::Any;
use std::sync::Arc;

/// What a slot has gathered: canonical bytes of its values.
#[derive(Clone)]
enum Values {
    /// All, one after the other, and where each ends.
    All { bytes: Vec<u8>, ends: Vec<usize> },
    /// Each once, by first arrival.
    Each(KeyTable),
}

impl Values {
    fn new(distinct: bool) -> Self {
        match distinct {
            true => Values::Each(KeyTable::default()),
            false => Values::All { bytes: Vec::new(), ends: Vec::new() },
        }
    }

    fn push(&mut self, value: &[u8]) {
        match self {
            Values::All { bytes, ends } => {
                bytes.extend_from_slice(value);
                ends.push(bytes.len());
            }
            Values::Each(table) => _ = table.intern(xxh64(value, 0), value),
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::All { ends, .. } => ends.len(),
            Values::Each(table) => table.len(),
        }
    }

    fn get(&self, at: usize) -> &[u8] {
        match self {
            Values::All { bytes, ends } => &bytes[if at == 0 { 0 } else { ends[at - 1] }..ends[at]],
            Values::Each(table) => table.key(u32::try_from(at).expect("keys are numbered by u32")),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|at| self.get(at))
    }

    fn extend(&mut self, later: &Values) {
        later.iter().for_each(|value| self.push(value));
    }
}

impl Measured for Values {
    fn byte_len(&self) -> usize {
        size_of::<Values>()
            + match self {
                Values::All { bytes, ends } => bytes.capacity() + ends.capacity() * size_of::<usize>(),
                Values::Each(table) => table.byte_len(),
            }
    }
}

/// The values of each slot; a slot without any is NULL.
pub(super) struct Gathered {
    codec: KeyCodec,
    /// Of the result's lists.
    item: Field,
    keep_nulls: bool,
    distinct: bool,
    slots: Boxes<Values>,
}

impl Gathered {
    pub(super) fn new(argument: &DataType, result: &DataType, keep_nulls: bool, distinct: bool) -> Result<Self> {
        let DataType::List(item) = result else {
            return Err(Error::internal(format!("ARRAY_AGG of {argument} cannot be {result}")));
        };
        let (codec, item) = (KeyCodec::new(vec![argument.clone()])?, item.as_ref().clone());
        Ok(Gathered { codec, item, keep_nulls, distinct, slots: Boxes::default() })
    }

    fn push(&mut self, slot: usize, value: &[u8]) {
        self.slots.change(slot, || Values::new(self.distinct), |values| values.push(value));
    }

    fn extend(&mut self, slot: usize, later: &Values) {
        self.slots.change(slot, || Values::new(self.distinct), |values| values.extend(later));
    }

    /// A list for each slot; NULL where nothing was gathered.
    fn lists(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values = slots.iter().map(|slot| self.slots.get(*slot));
        let all = values.clone().flatten().flat_map(Values::iter);
        stored::check_size(all.clone().map(|value| value.len().max(1)).sum(), "values of ARRAY_AGG")?;
        let items = self.codec.decode(all)?.remove(0);
        let nulls: NullBuffer = values.clone().map(|values| values.is_some()).collect();
        let offsets = OffsetBuffer::from_lengths(values.map(|values| values.map_or(0, Values::len)));
        let lists = ListArray::try_new(Arc::new(self.item.clone()), offsets, items, Some(nulls));
        Ok(Arc::new(lists.map_err(|cause| Error::internal("lists of ARRAY_AGG").with_source(cause))?))
    }
}

impl Accumulator for Gathered {
    fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
    }

    fn reset(&mut self, slot: u32) {
        self.slots.set(slot, None);
    }

    fn update(&mut self, update: &Update<'_>) {
        let keys = update.keys(&self.codec);
        if self.keep_nulls {
            update.slots.iter().enumerate().for_each(|(n, slot)| self.push(*slot as usize, keys.get(n)));
        } else {
            update.each_numbered(|n, slot, _| self.push(slot, keys.get(n)));
        }
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Gathered>(other).slots;
        for (from, slot) in from.iter().zip(into) {
            if let Some(values) = later.get(*from) {
                self.extend(*slot as usize, values);
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some(later) = self.slots.get(from).filter(|_| from != into).cloned() {
            self.extend(into as usize, &later);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        self.lists(slots)
    }

    fn state_fields(&self) -> Vec<Field> {
        stored::layout("gathered", 1, vec![Field::new("values", stored::list_type(self.item.clone()), true)])
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.lists(slots)?])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.slots.len(), state)?;
        let lists = state[0].as_list::<i32>();
        for (row, slot) in slots.iter().enumerate() {
            self.reset(*slot);
            if lists.is_null(row) {
                continue;
            }
            let values = lists.value(row);
            if values.is_empty() || (!self.keep_nulls && values.null_count() > 0) {
                return Err(Error::damage("saved state has an array that ARRAY_AGG cannot have gathered"));
            }
            let rows = values.len();
            let keys = self.codec.encode_bytes(&[values]);
            (0..rows).for_each(|at| self.push(*slot as usize, keys.get(at)));
            if self.slots.get(*slot).is_some_and(|values| values.len() != rows) {
                return Err(Error::damage("saved state has a distinct value twice"));
            }
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.slots.byte_len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
