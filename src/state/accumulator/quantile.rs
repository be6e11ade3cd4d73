//! PERCENTILE and APPROX_PERCENTILE: how often each value, or each bucket of values, occurred. Neither the order of arrival nor
//! the way of merging can show in the result.
//!
//! The buckets of APPROX_PERCENTILE are fixed: between a power of two and the next lie 64 of them of equal width. So a bucket
//! is the top 18 bits of a DOUBLE, no logarithm is taken, and every machine gives the same bucket. A value is reported as
//! the middle of its bucket: at most 1/128 (0.8 %) of the value away from it. Values below 2.3e-308 count as zero.

use super::boxes::{Boxes, Measured};
use super::{Accumulator, Update, same, stored};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Float64Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Bits of a DOUBLE below those that choose its bucket.
const BUCKET_SHIFT: u32 = 46;

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction(u64);

impl Fraction {
    /// `None` outside of 0 to 1.
    pub fn new(part: f64) -> Option<Fraction> {
        // Adding zero makes -0.0 the one zero there is.
        (0.0..=1.0).contains(&part).then_some(Fraction((part + 0.0).to_bits()))
    }

    /// From 0 to 1.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// Number of a value in Java's order of DOUBLE: -0.0 below 0.0, NaN above everything.
fn rank_of(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN } else { value };
    let bits = value.to_bits().cast_signed();
    bits ^ (i64::MAX * i64::from(bits < 0))
}

fn value_of(rank: i64) -> f64 {
    f64::from_bits((rank ^ (i64::MAX * i64::from(rank < 0))).cast_unsigned())
}

fn bucket_of(value: f64) -> i64 {
    let value = if value.abs() < f64::MIN_POSITIVE { 0.0 } else { value };
    rank_of(value) >> BUCKET_SHIFT
}

/// The middle of a bucket.
fn middle_of(bucket: i64) -> f64 {
    let from = bucket << BUCKET_SHIFT;
    let (low, high) = (value_of(from), value_of(from | ((1 << BUCKET_SHIFT) - 1)));
    match (low.is_finite(), high.is_finite()) {
        _ if bucket == 0 => 0.0,
        (true, true) => low + (high - low) / 2.0,
        _ if low.is_infinite() => low,
        _ if high.is_infinite() => high,
        _ => f64::NAN,
    }
}

type Counts = BTreeMap<i64, i64>;

impl Measured for Counts {
    fn byte_len(&self) -> usize {
        // A tree's nodes are about two thirds full.
        size_of::<Counts>() + self.len() * 24
    }
}

/// Values of each slot by rank or bucket, with how often they came.
pub(super) struct Quantiles {
    exact: bool,
    fractions: Arc<[Fraction]>,
    /// Each result is an array of one value for each fraction.
    array: bool,
    slots: Boxes<Counts>,
}

impl Quantiles {
    pub(super) fn new(exact: bool, fractions: Arc<[Fraction]>, result: &DataType) -> Result<Self> {
        let array = match result {
            DataType::Float64 => false,
            DataType::List(item) if *item.data_type() == DataType::Float64 => true,
            other => return Err(Error::internal(format!("a percentile cannot be {other}"))),
        };
        if fractions.is_empty() || (!array && fractions.len() > 1) {
            return Err(Error::internal(format!("{} percentiles cannot be {result}", fractions.len())));
        }
        Ok(Quantiles { exact, fractions, array, slots: Boxes::default() })
    }

    fn add(&mut self, slot: usize, place: i64, count: i64) {
        self.slots.change(slot, Counts::new, |counts| *counts.entry(place).or_default() += count);
    }

    fn absorb(&mut self, slot: usize, later: &Counts) {
        later.iter().for_each(|(place, count)| self.add(slot, *place, *count));
    }

    fn quantile(&self, counts: &Counts, part: f64) -> f64 {
        let total: i64 = counts.values().sum();
        if self.exact {
            // As Flink, which counts places from 1 before it rounds.
            let place = (total - 1) as f64 * part + 1.0;
            let (below, above) = (nth(counts, place.floor() as i64 - 1), nth(counts, place.ceil() as i64 - 1));
            let (low, high) = (value_of(below), value_of(above));
            if below == above { low } else { (place.ceil() - place) * low + (place - place.floor()) * high }
        } else {
            let place = (total as f64 * part).ceil() as i64 - 1;
            middle_of(nth(counts, place.clamp(0, total - 1)))
        }
    }

    fn places_type(&self) -> DataType {
        if self.exact { DataType::Float64 } else { DataType::Int32 }
    }

    /// Values or buckets as they are saved.
    fn stored_places(&self, places: impl Iterator<Item = i64>) -> ArrayRef {
        match self.exact {
            true => stored::full::<Float64Type>(places.map(value_of)),
            false => stored::full::<Int32Type>(places.map(|bucket| bucket as i32)),
        }
    }

    fn loaded_places(&self, values: &ArrayRef) -> Result<Vec<i64>> {
        let places: Vec<i64> = match self.exact {
            true => native::<Float64Type>(values).iter().map(|value| rank_of(*value)).collect(),
            false => native::<Int32Type>(values).iter().map(|bucket| i64::from(*bucket)).collect(),
        };
        let buckets = i64::MIN >> BUCKET_SHIFT..=i64::MAX >> BUCKET_SHIFT;
        match places.iter().find(|bucket| !self.exact && !buckets.contains(*bucket)) {
            Some(bucket) => Err(Error::damage(format!("saved state has bucket {bucket}, which no value is in"))),
            None => Ok(places),
        }
    }
}

fn native<P: ArrowPrimitiveType>(values: &ArrayRef) -> &[P::Native] {
    values.as_primitive::<P>().values()
}

/// The place that holds the value number `n`, from 0.
fn nth(counts: &Counts, n: i64) -> i64 {
    let mut before = 0;
    let found = counts.iter().find(|(_, count)| {
        before += **count;
        before > n
    });
    found.or(counts.last_key_value()).map_or(0, |(place, _)| *place)
}

impl Accumulator for Quantiles {
    fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
    }

    fn reset(&mut self, slot: u32) {
        self.slots.set(slot, None);
    }

    fn update(&mut self, update: &Update<'_>) {
        let (values, exact) = (update.argument().as_primitive::<Float64Type>().values(), self.exact);
        let place = |value| if exact { rank_of(value) } else { bucket_of(value) };
        update.each(|slot, row| self.add(slot, place(values[row]), 1));
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Quantiles>(other).slots;
        for (from, slot) in from.iter().zip(into) {
            if let Some(counts) = later.get(*from) {
                self.absorb(*slot as usize, counts);
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some(later) = self.slots.get(from).filter(|_| from != into).cloned() {
            self.absorb(into as usize, &later);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let slots = slots.iter().map(|slot| self.slots.get(*slot));
        if !self.array {
            let part = self.fractions[0].get();
            let values = slots.map(|counts| counts.map(|counts| self.quantile(counts, part)));
            return Ok(Arc::new(values.collect::<Float64Array>()));
        }
        let mut lists = ListBuilder::new(Float64Builder::new()).with_field(stored::item(&DataType::Float64, true));
        for counts in slots {
            if let Some(counts) = counts {
                self.fractions.iter().for_each(|part| lists.values().append_value(self.quantile(counts, part.get())));
            }
            lists.append(counts.is_some());
        }
        Ok(Arc::new(lists.finish()))
    }

    fn state_fields(&self) -> Vec<Field> {
        let list = |data_type: &DataType| stored::list_type(stored::item(data_type, false));
        let (name, places) = if self.exact { ("values", "value counts") } else { ("buckets", "bucket counts") };
        let fields = vec![
            Field::new(name, list(&self.places_type()), false),
            Field::new("counts", list(&DataType::Int64), false),
        ];
        stored::layout(places, 1, fields)
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let slots = slots.iter().map(|slot| self.slots.get(*slot));
        let entries = slots.clone().flatten().flatten();
        stored::check_size(entries.clone().count(), "values of percentiles")?;
        let lengths = slots.map(|counts| counts.map_or(0, BTreeMap::len));
        let places = self.stored_places(entries.clone().map(|(place, _)| *place));
        let counts = stored::full::<Int64Type>(entries.map(|(_, count)| *count));
        Ok(vec![
            stored::list(&stored::item(&self.places_type(), false), lengths.clone(), places)?,
            stored::list(&stored::item(&DataType::Int64, false), lengths, counts)?,
        ])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.slots.len(), state)?;
        let (places, counts) = (state[0].as_list::<i32>(), state[1].as_list::<i32>());
        for (row, slot) in slots.iter().enumerate() {
            let (places, counts) =
                (self.loaded_places(&places.value(row))?, stored::counts_of_one(&counts.value(row))?);
            let ascends = places.windows(2).all(|two| two[0] < two[1]);
            if places.len() != counts.len() || !ascends || counts.contains(&0) {
                return Err(Error::damage("saved state has values of a percentile that are not counted in order"));
            }
            let counts = (!places.is_empty()).then(|| places.into_iter().zip(counts).collect());
            self.slots.set(*slot, counts);
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_is_near_its_values(value in any::<f64>()) {
            let middle = middle_of(bucket_of(value));
            if value.is_nan() {
                prop_assert!(middle.is_nan());
            } else if value.is_infinite() || value.abs() < f64::MIN_POSITIVE {
                prop_assert_eq!(middle, if value.is_infinite() { value } else { 0.0 });
            } else {
                prop_assert!((middle - value).abs() <= value.abs() / 128.0, "{} for {}", middle, value);
            }
        }

        #[test]
        fn ranks_are_in_javas_order(a in any::<f64>(), b in any::<f64>()) {
            prop_assert_eq!(rank_of(a).cmp(&rank_of(b)), if a.is_nan() || b.is_nan() {
                a.is_nan().cmp(&b.is_nan())
            } else {
                a.total_cmp(&b)
            });
            prop_assert_eq!(value_of(rank_of(a)).to_bits(), if a.is_nan() { f64::NAN.to_bits() } else { a.to_bits() });
        }
    }

    #[test]
    fn parts_are_from_zero_to_one() {
        for part in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Fraction::new(part), None, "{part}");
        }
        assert_eq!(Fraction::new(-0.0), Fraction::new(0.0));
    }
}
