//! APPROX_COUNT_DISTINCT: a HyperLogLog of fixed hash and size.
//!
//! A value's canonical bytes (as for keys) are hashed by XXH64 (seed 0). The top 12 bits choose one of 4,096 registers, and a
//! register holds the longest run of leading zeros, plus one, that the other bits of its values began with. So a slot's state
//! depends on the set of its values alone, however it came together. The estimate is Ertl's ("New cardinality estimation
//! algorithms for HyperLogLog sketches", 2017), which needs no thresholds and no tables; its standard error is 1.6 %.
//! It uses `+ - * /` and square roots only, which every machine computes to the same bits.

use super::boxes::{Boxes, Measured};
use super::{Accumulator, Update, same, stored};
use crate::codec::xxh64;
use crate::error::{Error, Result};
use crate::state::keys::KeyCodec;
use arrow::array::{ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use std::any::Any;
use std::sync::Arc;

/// Bits of the hash that choose a register.
const REGISTER_BITS: u32 = 12;
/// Registers of a sketch.
const REGISTERS: usize = 1 << REGISTER_BITS;
/// Largest value of a register: all other bits are zero.
const RANK_MAX: u8 = (64 - REGISTER_BITS) as u8 + 1;
/// A sketch with more registers in use than this holds all of them.
const SPARSE_MAX: usize = 512;
/// Bytes of a register in a sketch that holds only those in use: its number and its value.
const ENTRY: usize = 3;

/// The registers of a slot.
#[derive(Clone)]
enum Sketch {
    /// Those in use, ascending.
    Sparse(Vec<(u16, u8)>),
    /// All of them.
    Dense(Box<[u8]>),
}

impl Sketch {
    fn insert(&mut self, hash: u64) {
        let register = (hash >> (64 - REGISTER_BITS)) as u16;
        let zeros = (hash << REGISTER_BITS).leading_zeros() as u8;
        self.raise(register, zeros.min(RANK_MAX - 1) + 1);
    }

    fn raise(&mut self, register: u16, rank: u8) {
        match self {
            Sketch::Dense(registers) => {
                let old = &mut registers[usize::from(register)];
                *old = rank.max(*old);
            }
            Sketch::Sparse(entries) => match entries.binary_search_by_key(&register, |(register, _)| *register) {
                Ok(at) => entries[at].1 = rank.max(entries[at].1),
                Err(at) => {
                    entries.insert(at, (register, rank));
                    if entries.len() > SPARSE_MAX {
                        *self = Sketch::Dense(self.registers());
                    }
                }
            },
        }
    }

    fn merge(&mut self, other: &Sketch) {
        match other {
            Sketch::Sparse(entries) => entries.iter().for_each(|(register, rank)| self.raise(*register, *rank)),
            Sketch::Dense(registers) => {
                let used = (0u16..).zip(registers.iter()).filter(|(_, rank)| **rank > 0);
                used.for_each(|(register, rank)| self.raise(register, *rank));
            }
        }
    }

    fn registers(&self) -> Box<[u8]> {
        match self {
            Sketch::Dense(registers) => registers.clone(),
            Sketch::Sparse(entries) => {
                let mut registers = vec![0; REGISTERS].into_boxed_slice();
                entries.iter().for_each(|(register, rank)| registers[usize::from(*register)] = *rank);
                registers
            }
        }
    }

    fn estimate(&self) -> i64 {
        let mut histogram = [0u32; RANK_MAX as usize + 1];
        match self {
            Sketch::Dense(registers) => registers.iter().for_each(|rank| histogram[usize::from(*rank)] += 1),
            Sketch::Sparse(entries) => {
                histogram[0] = (REGISTERS - entries.len()) as u32;
                entries.iter().for_each(|(_, rank)| histogram[usize::from(*rank)] += 1);
            }
        }
        let registers = REGISTERS as f64;
        let part = |rank: u8| f64::from(histogram[usize::from(rank)]);
        let mut sum = registers * tau(1.0 - part(RANK_MAX) / registers);
        for rank in (1..RANK_MAX).rev() {
            sum = 0.5 * (sum + part(rank));
        }
        sum += registers * sigma(part(0) / registers);
        (registers / sum * registers * 0.5 / std::f64::consts::LN_2).round() as i64
    }

    /// A register after the other, or number (little-endian) and value of those in use.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Sketch::Dense(registers) => registers.to_vec(),
            Sketch::Sparse(entries) => {
                let entries = entries.iter().map(|(register, rank)| (register.to_le_bytes(), *rank));
                entries.flat_map(|([low, high], rank)| [low, high, rank]).collect()
            }
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Sketch> {
        if bytes.len() == REGISTERS {
            let used = bytes.iter().filter(|rank| **rank > 0).count();
            let good = used > SPARSE_MAX && bytes.iter().all(|rank| *rank <= RANK_MAX);
            return good.then(|| Sketch::Dense(bytes.into()));
        }
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        let entries: Vec<(u16, u8)> =
            entries.iter().map(|[low, high, rank]| (u16::from_le_bytes([*low, *high]), *rank)).collect();
        let ascends = entries.windows(2).all(|two| two[0].0 < two[1].0);
        let known = |(register, rank): &(u16, u8)| usize::from(*register) < REGISTERS && (1..=RANK_MAX).contains(rank);
        let good = rest.is_empty() && (1..=SPARSE_MAX).contains(&entries.len());
        (good && ascends && entries.iter().all(known)).then_some(Sketch::Sparse(entries))
    }
}

impl Measured for Sketch {
    fn byte_len(&self) -> usize {
        size_of::<Sketch>()
            + match self {
                Sketch::Sparse(entries) => entries.capacity() * size_of::<(u16, u8)>(),
                Sketch::Dense(registers) => registers.len(),
            }
    }
}

/// What registers without a value add.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// What full registers add.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// The sketch of each slot.
pub(super) struct Sketches {
    codec: KeyCodec,
    slots: Boxes<Sketch>,
}

impl Sketches {
    pub(super) fn new(argument: &DataType) -> Result<Self> {
        Ok(Sketches { codec: KeyCodec::new(vec![argument.clone()])?, slots: Boxes::default() })
    }

    fn change(&mut self, slot: usize, work: impl FnOnce(&mut Sketch)) {
        self.slots.change(slot, || Sketch::Sparse(Vec::new()), work);
    }
}

impl Accumulator for Sketches {
    fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
    }

    fn reset(&mut self, slot: u32) {
        self.slots.set(slot, None);
    }

    fn update(&mut self, update: &Update<'_>) {
        let keys = update.keys(&self.codec);
        update.each_numbered(|n, slot, _| self.change(slot, |sketch| sketch.insert(xxh64(keys.get(n), 0))));
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Sketches>(other).slots;
        for (from, slot) in from.iter().zip(into) {
            if let Some(later) = later.get(*from) {
                self.change(*slot as usize, |sketch| sketch.merge(later));
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some(later) = self.slots.get(from).filter(|_| from != into).cloned() {
            self.change(into as usize, |sketch| sketch.merge(&later));
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let sketches = slots.iter().map(|slot| self.slots.get(*slot));
        Ok(stored::full::<Int64Type>(sketches.map(|sketch| sketch.map_or(0, Sketch::estimate))))
    }

    fn state_fields(&self) -> Vec<Field> {
        stored::layout("hyperloglog", 1, vec![Field::new("registers", DataType::Binary, true)])
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        stored::check_size(slots.len() * REGISTERS, "sketches of APPROX_COUNT_DISTINCT")?;
        let sketches = slots.iter().map(|slot| self.slots.get(*slot).map(Sketch::to_bytes));
        Ok(vec![Arc::new(sketches.collect::<BinaryArray>())])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.slots.len(), state)?;
        for (bytes, slot) in state[0].as_binary::<i32>().iter().zip(slots) {
            let sketch = bytes.map(|bytes| {
                Sketch::from_bytes(bytes).ok_or_else(|| Error::damage("saved state has a sketch that cannot be"))
            });
            self.slots.set(*slot, sketch.transpose()?);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(values: impl Iterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::Sparse(Vec::new());
        values.for_each(|value| sketch.insert(xxh64(&value.to_le_bytes(), 0)));
        sketch
    }

    #[test]
    fn estimates_are_near() {
        assert_eq!(sketch(0..0).estimate(), 0);
        assert_eq!(sketch(0..1).estimate(), 1);
        for count in [10, 100, 500, 2_000, 10_000, 100_000, 400_000] {
            let estimate = sketch(0..count).estimate();
            let error = (estimate as f64 - count as f64).abs() / count as f64;
            assert!(error < 0.04, "{estimate} for {count}");
        }
    }

    #[test]
    fn only_the_set_counts() {
        let forth = sketch(0..3_000);
        let mut back = sketch((1_000..3_000).rev().chain(0..10));
        back.merge(&sketch(0..1_000));
        back.merge(&sketch(2_990..3_000));
        assert_eq!(forth.to_bytes(), back.to_bytes());
        let (mut few, mut many) = (sketch(0..20), sketch(0..2_000));
        few.merge(&sketch(0..2_000));
        many.merge(&sketch(0..20));
        assert_eq!(few.to_bytes(), many.to_bytes());
    }

    #[test]
    fn hashes_at_the_ends_have_registers() {
        let mut ends = Sketch::Sparse(Vec::new());
        ends.insert(0);
        ends.insert(u64::MAX);
        assert_eq!(ends.to_bytes(), [0, 0, RANK_MAX, 0xFF, 0x0F, 1]);
    }

    #[test]
    fn bytes_that_no_sketch_has_are_refused() {
        for count in [1, 512, 5_000] {
            let bytes = sketch(0..count).to_bytes();
            let read = Sketch::from_bytes(&bytes).expect("read again");
            assert_eq!(read.to_bytes(), bytes);
        }
        let dense = sketch(0..5_000).to_bytes();
        let mut high = dense.clone();
        high[7] = RANK_MAX + 1;
        for bytes in [&[][..], &[0, 0], &[0, 0, 0], &[0, 16, 1], &[1, 0, 1, 1, 0, 1], &[0, 0, RANK_MAX + 1], &high[..]]
        {
            assert!(Sketch::from_bytes(bytes).is_none());
        }
        assert!(Sketch::from_bytes(&[0; REGISTERS]).is_none(), "few registers are not written out in full");
    }
}
