//! AVG, and SUM of decimals.

use super::fixed::Fold;
use super::{Accumulator, Update, grow_to, same, stored, two};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, i256,
};
use std::any::Any;
use std::sync::Arc;

/// Largest absolute value of a DECIMAL(38, s), plus one.
const DECIMAL_LIMIT: i128 = 10i128.pow(38);

/// A mean that is kept as a sum of a wider type and a count.
pub(super) trait Mean<P: ArrowPrimitiveType>: Fold<P> {}

/// Integers are summed as BIGINT, wrapping as in Java, and divided toward zero.
pub(super) struct AverageInteger;

macro_rules! integer_mean {
    ($($arrow:ident: $native:ident),*) => {$(
        impl Mean<$arrow> for AverageInteger {}

        impl Fold<$arrow> for AverageInteger {
            type State = (i64, i64);

            #[inline]
            fn add((sum, count): &mut (i64, i64), value: $native, _: u64) {
                *sum = sum.wrapping_add(i64::from(value));
                *count += 1;
            }

            fn merge(state: &mut (i64, i64), later: &(i64, i64)) {
                state.0 = state.0.wrapping_add(later.0);
                state.1 += later.1;
            }

            fn result((sum, count): &(i64, i64)) -> Option<$native> {
                (*count > 0).then(|| (sum / count) as $native)
            }

            fn fields(_: &DataType) -> Vec<Field> {
                let (sum, count) =
                    (Field::new("sum", DataType::Int64, false), Field::new("count", DataType::Int64, false));
                stored::layout("average", 1, vec![sum, count])
            }

            fn save(states: impl Iterator<Item = (i64, i64)> + Clone, _: &DataType) -> Vec<ArrayRef> {
                let sums = states.clone().map(|(sum, _)| sum);
                vec![stored::full::<Int64Type>(sums), stored::full::<Int64Type>(states.map(|(_, count)| count))]
            }

            fn load(columns: &[ArrayRef]) -> Result<Vec<(i64, i64)>> {
                let sums = columns[0].as_primitive::<Int64Type>().values().iter().copied();
                Ok(sums.zip(stored::counts(&columns[1])?).collect())
            }
        }
    )*};
}
integer_mean!(Int8Type: i8, Int16Type: i16, Int32Type: i32, Int64Type: i64);

/// Floats are summed as DOUBLE.
pub(super) struct AverageFloat;

macro_rules! float_mean {
    ($($arrow:ident: $native:ident),*) => {$(
        impl Mean<$arrow> for AverageFloat {}

        impl Fold<$arrow> for AverageFloat {
            type State = (f64, i64);

            #[inline]
            fn add((sum, count): &mut (f64, i64), value: $native, _: u64) {
                *sum = if *count == 0 { f64::from(value) } else { *sum + f64::from(value) };
                *count += 1;
            }

            fn merge(state: &mut (f64, i64), later: &(f64, i64)) {
                match (state.1, later.1) {
                    (_, 0) => {}
                    (0, _) => *state = *later,
                    _ => *state = (state.0 + later.0, state.1 + later.1),
                }
            }

            fn merges_exactly() -> bool {
                false
            }

            fn result((sum, count): &(f64, i64)) -> Option<$native> {
                (*count > 0).then(|| (sum / *count as f64) as $native)
            }

            fn fields(_: &DataType) -> Vec<Field> {
                let (sum, count) =
                    (Field::new("sum", DataType::Float64, false), Field::new("count", DataType::Int64, false));
                stored::layout("average", 1, vec![sum, count])
            }

            fn save(states: impl Iterator<Item = (f64, i64)> + Clone, _: &DataType) -> Vec<ArrayRef> {
                let sums = states.clone().map(|(sum, _)| sum);
                vec![stored::full::<Float64Type>(sums), stored::full::<Int64Type>(states.map(|(_, count)| count))]
            }

            fn load(columns: &[ArrayRef]) -> Result<Vec<(f64, i64)>> {
                let sums = columns[0].as_primitive::<Float64Type>().values().iter().copied();
                Ok(sums.zip(stored::counts(&columns[1])?).collect())
            }
        }
    )*};
}
float_mean!(Float32Type: f32, Float64Type: f64);

/// A sum of decimals at their own scale. Once beyond 38 digits it stays NULL.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    sum: i128,
    count: i64,
    overflow: bool,
}

impl Total {
    fn add(&mut self, value: i128, count: i64) {
        match self.sum.checked_add(value).filter(|sum| sum.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs()) {
            Some(sum) => self.sum = sum,
            None => self.overflow = true,
        }
        self.count += count;
    }

    fn merge(&mut self, later: &Total) {
        self.add(later.sum, later.count);
        self.overflow |= later.overflow;
    }

    fn value(&self) -> Option<(i128, i64)> {
        (self.count > 0 && !self.overflow).then_some((self.sum, self.count))
    }

    /// sum / count with `shift` more digits, half rounded away from zero; `None` beyond 38 digits.
    fn mean(&self, shift: u32) -> Option<i128> {
        let (sum, count) = self.value()?;
        let scaled = i256::from_i128(sum).checked_mul(i256::from_i128(10i128.checked_pow(shift)?))?;
        let count = i256::from_i128(i128::from(count));
        let (whole, rest) = (scaled.checked_div(count)?, scaled.checked_rem(count)?);
        let twice = rest.wrapping_abs().checked_mul(i256::from_i128(2))?;
        let away = match (twice >= count, sum < 0) {
            (false, _) => i256::ZERO,
            (true, false) => i256::ONE,
            (true, true) => i256::MINUS_ONE,
        };
        let mean = whole.checked_add(away)?.to_i128()?;
        (mean.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs()).then_some(mean)
    }
}

/// The slots of both decimal aggregates.
#[derive(Debug, Default)]
struct Totals(Vec<Total>);

impl Totals {
    fn fields(scale: i8) -> Vec<Field> {
        let fields = vec![
            Field::new("sum", DataType::Decimal128(38, scale), false),
            Field::new("count", DataType::Int64, false),
            Field::new("overflow", DataType::Boolean, false),
        ];
        stored::layout("decimal total", 1, fields)
    }

    fn save(&self, slots: &[u32], scale: i8) -> Vec<ArrayRef> {
        let totals = slots.iter().map(|slot| self.0[*slot as usize]);
        let sums = totals.clone().map(|total| Some(total.sum));
        vec![
            stored::column::<Decimal128Type>(sums, &DataType::Decimal128(38, scale)),
            stored::full::<Int64Type>(totals.clone().map(|total| total.count)),
            Arc::new(totals.map(|total| Some(total.overflow)).collect::<BooleanArray>()),
        ]
    }

    /// From columns that were checked against the fields.
    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (state[0].as_primitive::<Decimal128Type>().values(), stored::counts(&state[1])?);
        let overflow = state[2].as_boolean();
        for (row, slot) in slots.iter().enumerate() {
            if sums[row].unsigned_abs() >= DECIMAL_LIMIT.unsigned_abs() {
                return Err(Error::damage("saved state has a sum of more than 38 digits"));
            }
            self.0[*slot as usize] = Total { sum: sums[row], count: counts[row], overflow: overflow.value(row) };
        }
        Ok(())
    }
}

macro_rules! decimal_accumulator {
    ($name:ident) => {
        impl Accumulator for $name {
            fn grow(&mut self, slots: usize) {
                grow_to(&mut self.totals.0, slots, Total::default());
            }

            fn reset(&mut self, slot: u32) {
                self.totals.0[slot as usize] = Total::default();
            }

            fn update(&mut self, update: &Update<'_>) {
                let values = update.argument().as_primitive::<Decimal128Type>().values();
                update.each(|slot, row| self.totals.0[slot].add(values[row], 1));
            }

            fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
                let later = &same::<Self>(other).totals.0;
                for (from, into) in from.iter().zip(into) {
                    self.totals.0[*into as usize].merge(&later[*from as usize]);
                }
            }

            // A sum of more than 38 digits on the way stays NULL.
            fn merges_exactly(&self) -> bool {
                false
            }

            fn fold(&mut self, from: u32, into: u32) {
                if let Some((from, into)) = two(&mut self.totals.0, from, into) {
                    into.merge(from);
                }
            }

            fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
                let values = slots.iter().map(|slot| self.result(&self.totals.0[*slot as usize]));
                let array = values.collect::<Decimal128Array>().with_data_type(self.result.clone());
                Ok(Arc::new(array))
            }

            fn state_fields(&self) -> Vec<Field> {
                Totals::fields(self.scale)
            }

            fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
                Ok(self.totals.save(slots, self.scale))
            }

            fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
                stored::check(&self.state_fields(), slots, self.totals.0.len(), state)?;
                self.totals.load(slots, state)
            }

            fn byte_len(&self) -> usize {
                self.totals.0.capacity() * size_of::<Total>()
            }

            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    };
}

/// SUM(DECIMAL(p, s)): DECIMAL(38, s).
pub(super) struct DecimalSum {
    totals: Totals,
    scale: i8,
    result: DataType,
}

impl DecimalSum {
    pub(super) fn new(scale: i8, result: &DataType) -> Self {
        DecimalSum { totals: Totals::default(), scale, result: result.clone() }
    }

    #[expect(clippy::unused_self, reason = "the two decimal aggregates share their frame")]
    fn result(&self, total: &Total) -> Option<i128> {
        total.value().map(|(sum, _)| sum)
    }
}

decimal_accumulator!(DecimalSum);

/// AVG(DECIMAL(p, s)): DECIMAL(38, max(s, 6)), half rounded away from zero.
pub(super) struct DecimalAverage {
    totals: Totals,
    scale: i8,
    shift: u32,
    result: DataType,
}

impl DecimalAverage {
    pub(super) fn new(scale: i8, result: &DataType) -> Result<Self> {
        let shift = match result {
            DataType::Decimal128(_, result_scale) => u32::try_from(i32::from(*result_scale) - i32::from(scale)).ok(),
            _ => None,
        };
        let wrong = || Error::internal(format!("AVG of a decimal of scale {scale} cannot be {result}"));
        Ok(DecimalAverage { totals: Totals::default(), scale, shift: shift.ok_or_else(wrong)?, result: result.clone() })
    }

    fn result(&self, total: &Total) -> Option<i128> {
        total.mean(self.shift)
    }
}

decimal_accumulator!(DecimalAverage);
