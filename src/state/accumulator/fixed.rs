//! SUM, MIN, MAX, AVG, FIRST_VALUE and LAST_VALUE of values of fixed width.

use super::average::{AverageFloat, AverageInteger, Mean};
use super::{Accumulator, AggregateFunction, Update, grow_to, same, stored, two, unsupported};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, UInt8Type, UInt64Type};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// How values of one type become a result of that type.
pub(super) trait Fold<P: ArrowPrimitiveType>: Send + Sync + 'static {
    /// What is kept for a slot; its default is empty.
    type State: Copy + Default + Send + Sync;
    /// Takes a value.
    fn add(state: &mut Self::State, value: P::Native, position: u64);
    /// Takes what comes later in time.
    fn merge(state: &mut Self::State, later: &Self::State);
    /// As [`Accumulator::merges_exactly`].
    fn merges_exactly() -> bool {
        true
    }
    /// The result; `None` is NULL.
    fn result(state: &Self::State) -> Option<P::Native>;
    /// Columns of saved states, where values are of type `value`.
    fn fields(value: &DataType) -> Vec<Field>;
    /// States as these columns.
    fn save(states: impl Iterator<Item = Self::State> + Clone, value: &DataType) -> Vec<ArrayRef>;
    /// States from columns of these types and of one length.
    fn load(columns: &[ArrayRef]) -> Result<Vec<Self::State>>;
}

struct Fixed<P: ArrowPrimitiveType, F: Fold<P>> {
    states: Vec<F::State>,
    result: DataType,
    types: PhantomData<fn() -> (P, F)>,
}

impl<P: ArrowPrimitiveType, F: Fold<P>> Accumulator for Fixed<P, F> {
    fn grow(&mut self, slots: usize) {
        grow_to(&mut self.states, slots, F::State::default());
    }

    fn reset(&mut self, slot: u32) {
        self.states[slot as usize] = F::State::default();
    }

    fn update(&mut self, update: &Update<'_>) {
        let cast_values;
        let values = match update.argument().as_primitive_opt::<P>() {
            Some(values) => values.values(),
            None => {
                // Booleans are folded as bytes.
                cast_values = cast(update.argument(), &P::DATA_TYPE).expect("BOOLEAN casts to TINYINT");
                cast_values.as_primitive::<P>().values()
            }
        };
        let states = self.states.as_mut_slice();
        update.each(|slot, row| F::add(&mut states[slot], values[row], update.position(row)));
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Self>(other).states;
        for (from, into) in from.iter().zip(into) {
            F::merge(&mut self.states[*into as usize], &later[*from as usize]);
        }
    }

    fn merges_exactly(&self) -> bool {
        F::merges_exactly()
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some((from, into)) = two(&mut self.states, from, into) {
            F::merge(into, from);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let values = slots.iter().map(|slot| F::result(&self.states[*slot as usize]));
        let array = values.collect::<PrimitiveArray<P>>();
        match &self.result {
            DataType::Boolean => {
                cast(&array, &DataType::Boolean).map_err(|e| Error::internal("an aggregate's result").with_source(e))
            }
            other => Ok(Arc::new(array.with_data_type(other.clone()))),
        }
    }

    fn state_fields(&self) -> Vec<Field> {
        F::fields(&self.stored_type())
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(F::save(slots.iter().map(|slot| self.states[*slot as usize]), &self.stored_type()))
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.states.len(), state)?;
        for (state, slot) in F::load(state)?.into_iter().zip(slots) {
            self.states[*slot as usize] = state;
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.states.capacity() * size_of::<F::State>()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl<P: ArrowPrimitiveType, F: Fold<P>> Fixed<P, F> {
    /// The type of values in saved states.
    fn stored_type(&self) -> DataType {
        match &self.result {
            DataType::Boolean => P::DATA_TYPE,
            other => other.clone(),
        }
    }
}

fn fixed<P: ArrowPrimitiveType, F: Fold<P>>(result: &DataType) -> Box<dyn Accumulator> {
    Box::new(Fixed::<P, F> { states: Vec::new(), result: result.clone(), types: PhantomData })
}

/// Aggregates of an integer type.
pub(super) fn integer<P: ArrowPrimitiveType>(f: &AggregateFunction, result: &DataType) -> Result<Box<dyn Accumulator>>
where
    AverageInteger: Mean<P>,
{
    match f {
        AggregateFunction::Sum => Ok(fixed::<P, Sum>(result)),
        AggregateFunction::Avg => Ok(fixed::<P, AverageInteger>(result)),
        other => ordered::<P>(other, result),
    }
}

/// Aggregates of a floating-point type.
pub(super) fn float<P: ArrowPrimitiveType>(f: &AggregateFunction, result: &DataType) -> Result<Box<dyn Accumulator>>
where
    AverageFloat: Mean<P>,
{
    match f {
        AggregateFunction::Sum => Ok(fixed::<P, Sum>(result)),
        AggregateFunction::Avg => Ok(fixed::<P, AverageFloat>(result)),
        other => ordered::<P>(other, result),
    }
}

/// Aggregates that need no arithmetic.
pub(super) fn ordered<P: ArrowPrimitiveType>(f: &AggregateFunction, result: &DataType) -> Result<Box<dyn Accumulator>> {
    match f {
        AggregateFunction::Min => Ok(fixed::<P, Min>(result)),
        AggregateFunction::Max => Ok(fixed::<P, Max>(result)),
        AggregateFunction::FirstValue => Ok(fixed::<P, First>(result)),
        AggregateFunction::LastValue => Ok(fixed::<P, Last>(result)),
        other => Err(unsupported(other, &P::DATA_TYPE)),
    }
}

/// Aggregates of BOOLEAN, folded as 0 and 1.
pub(super) fn boolean(f: &AggregateFunction) -> Result<Box<dyn Accumulator>> {
    ordered::<UInt8Type>(f, &DataType::Boolean).map_err(|_| unsupported(f, &DataType::Boolean))
}

/// Integers wrap as in Java; floats add in row order.
struct Sum;

impl<P: ArrowPrimitiveType> Fold<P> for Sum {
    type State = Option<P::Native>;

    #[inline]
    fn add(state: &mut Self::State, value: P::Native, _: u64) {
        *state = Some(match *state {
            None => value,
            Some(sum) => sum.add_wrapping(value),
        });
    }

    fn merge(state: &mut Self::State, later: &Self::State) {
        if let Some(value) = later {
            <Self as Fold<P>>::add(state, *value, 0);
        }
    }

    fn merges_exactly() -> bool {
        !P::DATA_TYPE.is_floating()
    }

    fn result(state: &Self::State) -> Option<P::Native> {
        *state
    }

    fn fields(value: &DataType) -> Vec<Field> {
        stored::layout("sum", 1, vec![Field::new("value", value.clone(), true)])
    }

    fn save(states: impl Iterator<Item = Self::State> + Clone, value: &DataType) -> Vec<ArrayRef> {
        vec![stored::column::<P>(states, value)]
    }

    fn load(columns: &[ArrayRef]) -> Result<Vec<Self::State>> {
        Ok(columns[0].as_primitive::<P>().iter().collect())
    }
}

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $better:ident) => {
        $(#[$doc])*
        struct $name;

        impl<P: ArrowPrimitiveType> Fold<P> for $name {
            type State = Option<P::Native>;

            #[inline]
            fn add(state: &mut Self::State, value: P::Native, _: u64) {
                if state.is_none_or(|old| value.$better(old)) {
                    *state = Some(value);
                }
            }

            fn merge(state: &mut Self::State, later: &Self::State) {
                if let Some(value) = later {
                    <Self as Fold<P>>::add(state, *value, 0);
                }
            }

            fn result(state: &Self::State) -> Option<P::Native> {
                *state
            }

            fn fields(value: &DataType) -> Vec<Field> {
                stored::layout("extreme", 1, vec![Field::new("value", value.clone(), true)])
            }

            fn save(states: impl Iterator<Item = Self::State> + Clone, value: &DataType) -> Vec<ArrayRef> {
                vec![stored::column::<P>(states, value)]
            }

            fn load(columns: &[ArrayRef]) -> Result<Vec<Self::State>> {
                Ok(columns[0].as_primitive::<P>().iter().collect())
            }
        }
    };
}
extreme!(
    /// Floats by total order: NaN above everything, -0.0 below 0.0, so that the order of arrival does not show.
    Min,
    is_lt
);
extreme!(
    /// As [`Min`].
    Max,
    is_gt
);

macro_rules! by_position {
    ($(#[$doc:meta])* $name:ident, $before:tt) => {
        $(#[$doc])*
        struct $name;

        impl<P: ArrowPrimitiveType> Fold<P> for $name {
            type State = Option<(u64, P::Native)>;

            #[inline]
            fn add(state: &mut Self::State, value: P::Native, position: u64) {
                if state.is_none_or(|(old, _)| position $before old) {
                    *state = Some((position, value));
                }
            }

            fn merge(state: &mut Self::State, later: &Self::State) {
                if let Some((position, value)) = later {
                    <Self as Fold<P>>::add(state, *value, *position);
                }
            }

            fn result(state: &Self::State) -> Option<P::Native> {
                state.map(|(_, value)| value)
            }

            fn fields(value: &DataType) -> Vec<Field> {
                let position = Field::new("position", DataType::UInt64, true);
                stored::layout("by position", 1, vec![position, Field::new("value", value.clone(), true)])
            }

            fn save(states: impl Iterator<Item = Self::State> + Clone, value: &DataType) -> Vec<ArrayRef> {
                let positions = states.clone().map(|state| state.map(|(position, _)| position));
                let values = states.map(|state| state.map(|(_, value)| value));
                vec![
                    stored::column::<UInt64Type>(positions, &DataType::UInt64),
                    stored::column::<P>(values, value),
                ]
            }

            fn load(columns: &[ArrayRef]) -> Result<Vec<Self::State>> {
                let (positions, values) = (columns[0].as_primitive::<UInt64Type>(), columns[1].as_primitive::<P>());
                stored::check_pairs(positions, values)?;
                Ok(positions.iter().zip(values.iter()).map(|(position, value)| position.zip(value)).collect())
            }
        }
    };
}
by_position!(
    /// By position in the log, whichever slice the values lie in.
    First,
    <
);
by_position!(
    /// As [`First`].
    Last,
    >
);
