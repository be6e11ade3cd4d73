//! DISTINCT: an aggregate that sees each value of a slot once, at its first arrival.

use super::boxes::{Boxes, Measured};
use super::{Accumulator, Update, same, stored};
use crate::codec::xxh64;
use crate::error::{Error, Result};
use crate::state::keys::{KeyCodec, KeyTable};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use std::any::Any;

impl Measured for KeyTable {
    fn byte_len(&self) -> usize {
        size_of::<KeyTable>() + KeyTable::byte_len(self)
    }
}

pub(super) struct Distinct {
    codec: KeyCodec,
    argument: DataType,
    /// The values of each slot, by first arrival.
    seen: Boxes<KeyTable>,
    inner: Box<dyn Accumulator>,
}

impl Distinct {
    pub(super) fn new(argument: DataType, inner: Box<dyn Accumulator>) -> Result<Self> {
        Ok(Distinct { codec: KeyCodec::new(vec![argument.clone()])?, argument, seen: Boxes::default(), inner })
    }

    /// True if the value is new to the slot.
    fn insert(seen: &mut Boxes<KeyTable>, slot: usize, hash: u64, value: &[u8]) -> bool {
        seen.change(slot, KeyTable::default, |table| {
            let known = table.len();
            table.intern(hash, value);
            table.len() > known
        })
    }

    /// Gives the inner aggregate values that were new, each with its slot.
    fn feed(&mut self, slots: &[u32], values: &[&[u8]]) {
        if slots.is_empty() {
            return;
        }
        let columns = self.codec.decode(values.iter().copied()).expect("values encoded by the same codec");
        let rows: Vec<u32> = (0u32..).take(slots.len()).collect();
        // DISTINCT is kept only for aggregates that do not look at positions.
        self.inner.update(&Update { slots, rows: &rows, values: columns.first(), positions: &[] });
    }

    fn absorb(&mut self, table: &KeyTable, slot: u32) {
        let (mut slots, mut values) = (Vec::new(), Vec::new());
        for id in (0u32..).take(table.len()) {
            if Self::insert(&mut self.seen, slot as usize, table.hash(id), table.key(id)) {
                slots.push(slot);
                values.push(table.key(id));
            }
        }
        self.feed(&slots, &values);
    }
}

impl Accumulator for Distinct {
    fn grow(&mut self, slots: usize) {
        self.seen.grow(slots);
        self.inner.grow(slots);
    }

    fn reset(&mut self, slot: u32) {
        self.seen.set(slot, None);
        self.inner.reset(slot);
    }

    fn update(&mut self, update: &Update<'_>) {
        let keys = update.keys(&self.codec);
        let (mut slots, mut rows) = (Vec::new(), Vec::new());
        update.each_numbered(|n, slot, row| {
            let value = keys.get(n);
            if Self::insert(&mut self.seen, slot, xxh64(value, 0), value) {
                slots.push(u32::try_from(slot).expect("slots are u32"));
                rows.push(u32::try_from(row).expect("rows are u32"));
            }
        });
        self.inner.update(&Update { slots: &slots, rows: &rows, ..*update });
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Distinct>(other).seen;
        for (from, into) in from.iter().zip(into) {
            if let Some(table) = later.get(*from) {
                self.absorb(table, *into);
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some(table) = self.seen.get(from).cloned() {
            self.absorb(&table, into);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        self.inner.results(slots)
    }

    fn state_fields(&self) -> Vec<Field> {
        let list = stored::list_type(stored::item(&self.argument, false));
        let mut fields = stored::layout("distinct", 1, vec![Field::new("seen", list, false)]);
        fields.extend(self.inner.state_fields());
        fields
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let tables = slots.iter().map(|slot| self.seen.get(*slot));
        let keys = tables.clone().flatten().flat_map(|table| (0u32..).take(table.len()).map(|id| table.key(id)));
        stored::check_size(keys.clone().map(<[u8]>::len).sum(), "distinct values")?;
        let values = self.codec.decode(keys)?.remove(0);
        let lengths = tables.map(|table| table.map_or(0, KeyTable::len));
        let mut columns = vec![stored::list(&stored::item(&self.argument, false), lengths, values)?];
        columns.extend(self.inner.save(slots)?);
        Ok(columns)
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.seen.len(), state)?;
        let (seen, inner) = state.split_first().ok_or_else(|| Error::internal("state without columns"))?;
        let lists = seen.as_list::<i32>();
        for (row, slot) in slots.iter().enumerate() {
            let values = lists.value(row);
            if values.null_count() > 0 {
                return Err(Error::damage("saved state has NULL among distinct values"));
            }
            self.seen.set(*slot, None);
            let keys = self.codec.encode_bytes(&[values]);
            for value in (0..lists.value_length(row)).map(|at| keys.get(at as usize)) {
                if !Self::insert(&mut self.seen, *slot as usize, xxh64(value, 0), value) {
                    return Err(Error::damage("saved state has a distinct value twice"));
                }
            }
        }
        self.inner.load(slots, inner)
    }

    fn byte_len(&self) -> usize {
        self.seen.byte_len() + self.inner.byte_len()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
