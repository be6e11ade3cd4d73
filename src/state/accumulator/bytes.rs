//! MIN, MAX, FIRST_VALUE and LAST_VALUE of STRING and BYTES. Order is by bytes, as in Flink.

use super::{Accumulator, AggregateFunction, Update, grow_to, same, stored, two, unsupported};
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, UInt64Type};
use std::any::Any;
use std::sync::Arc;

/// Position and bytes of the value that is kept.
type Kept = Option<(u64, Box<[u8]>)>;

struct Bytes {
    keeps: AggregateFunction,
    text: bool,
    kept: Vec<Kept>,
    /// Bytes of all values kept.
    held: usize,
}

pub(super) fn build(function: &AggregateFunction, argument: &DataType) -> Result<Box<dyn Accumulator>> {
    use AggregateFunction::{FirstValue, LastValue, Max, Min};
    match function {
        Min | Max | FirstValue | LastValue => Ok(Box::new(Bytes {
            keeps: function.clone(),
            text: *argument == DataType::Utf8,
            kept: Vec::new(),
            held: 0,
        })),
        other => Err(unsupported(other, argument)),
    }
}

/// True if a value takes the place of the one that is kept.
#[inline]
fn replaces(function: &AggregateFunction, kept: &Kept, position: u64, value: &[u8]) -> bool {
    let Some((old_position, old)) = kept else { return true };
    match function {
        AggregateFunction::Min => value < &**old,
        AggregateFunction::Max => value > &**old,
        AggregateFunction::FirstValue => position < *old_position,
        _ => position > *old_position,
    }
}

impl Bytes {
    fn offer(&mut self, slot: usize, position: u64, value: &[u8]) {
        let kept = &mut self.kept[slot];
        if replaces(&self.keeps, kept, position, value) {
            self.held += value.len();
            self.held -= kept.as_ref().map_or(0, |(_, old)| old.len());
            *kept = Some((position, value.into()));
        }
    }
}

impl Accumulator for Bytes {
    fn grow(&mut self, slots: usize) {
        grow_to(&mut self.kept, slots, None);
    }

    fn reset(&mut self, slot: u32) {
        if let Some((_, old)) = self.kept[slot as usize].take() {
            self.held -= old.len();
        }
    }

    fn update(&mut self, update: &Update<'_>) {
        if self.text {
            let values = update.argument().as_string::<i32>();
            update.each(|slot, row| self.offer(slot, update.position(row), values.value(row).as_bytes()));
        } else {
            let values = update.argument().as_binary::<i32>();
            update.each(|slot, row| self.offer(slot, update.position(row), values.value(row)));
        }
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Bytes>(other).kept;
        for (from, into) in from.iter().zip(into) {
            if let Some((position, value)) = &later[*from as usize] {
                self.offer(*into as usize, *position, value);
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        let later = two(&mut self.kept, from, into).and_then(|(from, _)| from.clone());
        if let Some((position, value)) = later {
            self.offer(into as usize, position, &value);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values = slots.iter().map(|slot| self.kept[*slot as usize].as_ref().map(|(_, value)| &**value));
        stored::check_size(
            values.clone().flatten().map(<[u8]>::len).sum(),
            "values of MIN, MAX, FIRST_VALUE or LAST_VALUE",
        )?;
        let text = |bytes| std::str::from_utf8(bytes).expect("values of a STRING column hold UTF-8");
        Ok(match self.text {
            true => Arc::new(values.map(|value| value.map(text)).collect::<StringArray>()),
            false => Arc::new(values.collect::<BinaryArray>()),
        })
    }

    fn state_fields(&self) -> Vec<Field> {
        let value = if self.text { DataType::Utf8 } else { DataType::Binary };
        let fields = vec![Field::new("position", DataType::UInt64, true), Field::new("value", value, true)];
        stored::layout("kept bytes", 1, fields)
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let positions = slots.iter().map(|slot| self.kept[*slot as usize].as_ref().map(|(position, _)| *position));
        Ok(vec![stored::column::<UInt64Type>(positions, &DataType::UInt64), self.results(slots)?])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.kept.len(), state)?;
        let (positions, values) = (state[0].as_primitive::<UInt64Type>(), &state[1]);
        stored::check_pairs(positions, values)?;
        for (row, slot) in slots.iter().enumerate() {
            self.reset(*slot);
            if values.is_valid(row) {
                let value = match self.text {
                    true => values.as_string::<i32>().value(row).as_bytes(),
                    false => values.as_binary::<i32>().value(row),
                };
                self.offer(*slot as usize, positions.value(row), value);
            }
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.kept.capacity() * size_of::<Kept>() + self.held
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
