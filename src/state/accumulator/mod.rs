//! Aggregates, one slot per key. Each call works on a whole batch of rows; the loop inside knows its types.
//!
//! Results are Flink's. Values are folded in the order of the rows given, which is position order; where partial results are
//! merged, the earlier slice of time comes first. For floating-point sums that order is part of the answer.

mod average;
mod boxes;
mod bytes;
mod count;
mod distinct;
mod fixed;
mod gathered;
mod joined;
mod quantile;
mod sketch;
pub(super) mod stored;
#[cfg(test)]
mod tests;

pub use quantile::Fraction;
pub use stored::{LAYOUT, check_layout};

use super::keys::{ByteRows, KeyCodec};
use super::user::UserAggregate;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit, TimestampMillisecondType,
};
use std::any::Any;
use std::sync::Arc;

/// Aggregates with Flink's result types: SUM of an integer type is that type (wrapping as in Java), SUM(DECIMAL(p, s)) is
/// DECIMAL(38, s), AVG of an integer type is that type (truncated toward zero), AVG(FLOAT/DOUBLE) keeps the type,
/// AVG(DECIMAL(p, s)) is DECIMAL(38, max(s, 6)). Counts are 0 where no value went in, SQL's others NULL.
///
/// `ListAgg` and `ArrayAgg` take values in position order within a slice of time, and slices in the order of time. What
/// SQL calls BOOL_AND and BOOL_OR is `Min` and `Max` of BOOLEAN; variances are made from sums.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Rows, or non-null arguments: BIGINT NOT NULL.
    Count,
    /// Sum.
    Sum,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Mean.
    Avg,
    /// First non-null value in position order.
    FirstValue,
    /// Last non-null value in position order.
    LastValue,
    /// How many different non-null values there are, with a standard error of 1.6 %: BIGINT NOT NULL.
    ApproxCountDistinct,
    /// Values as an array.
    ArrayAgg {
        /// Also NULLs.
        keep_nulls: bool,
    },
    /// Non-null texts, joined.
    ListAgg {
        /// Stands between two texts.
        separator: Arc<str>,
    },
    /// Percentiles of DOUBLEs, exact, between two values by their distance: DOUBLE.
    Percentile {
        /// Which.
        fractions: Arc<[Fraction]>,
        /// The result is an ARRAY of DOUBLE, one for each fraction.
        array: bool,
    },
    /// Percentiles of DOUBLEs by fixed buckets: within 0.8 % of a value at that place.
    ApproxPercentile {
        /// Which.
        fractions: Arc<[Fraction]>,
        /// As above.
        array: bool,
    },
    /// One that a user registered.
    User(UserAggregate),
}

impl AggregateFunction {
    /// True if the result depends on the positions of rows.
    pub fn is_by_position(&self) -> bool {
        matches!(self, AggregateFunction::FirstValue | AggregateFunction::LastValue)
    }

    /// True if the result can be NULL.
    pub fn is_nullable(&self) -> bool {
        match self {
            AggregateFunction::Count | AggregateFunction::ApproxCountDistinct => false,
            AggregateFunction::User(user) => user.nullable,
            _ => true,
        }
    }
}

/// What an accumulator is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateSpec {
    /// Which.
    pub function: AggregateFunction,
    /// Each distinct non-null value once.
    pub distinct: bool,
    /// Type of the argument; `None` for `COUNT(*)`.
    pub argument: Option<DataType>,
    /// Type of the result.
    pub result: DataType,
}

/// Rows that go into an accumulator. `slots` and `rows` are parallel and in position order.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    /// Slot of each row.
    pub slots: &'a [u32],
    /// Row of `values` and `positions` for each.
    pub rows: &'a [u32],
    /// The argument; `None` only for `COUNT(*)`.
    pub values: Option<&'a ArrayRef>,
    /// Position of each row in the log; may be empty if no aggregate of the batch is by position.
    pub positions: &'a [u64],
}

impl<'a> Update<'a> {
    fn argument(&self) -> &'a ArrayRef {
        self.values.expect("only COUNT(*) has no argument, and the builder checked the rest")
    }

    #[inline]
    fn position(&self, row: usize) -> u64 {
        self.positions.get(row).copied().unwrap_or(0)
    }

    /// The canonical bytes of the argument, of these rows only: a batch may hold the rows of many slices.
    fn keys(&self, codec: &KeyCodec) -> Keys<'a> {
        let (values, rows) = (self.argument(), self.rows);
        if rows.len() == values.len() || *values.data_type() == DataType::Utf8 {
            return Keys { keys: codec.encode_bytes(std::slice::from_ref(values)), rows: Some(rows) };
        }
        let picked = take(&**values, &UInt32Array::from(rows.to_vec()), None).expect("rows are those of the argument");
        Keys { keys: codec.encode_bytes(&[picked]), rows: None }
    }

    /// Number (from 0), slot and row of each row whose argument is not null, in order.
    fn each_numbered(&self, mut work: impl FnMut(usize, usize, usize)) {
        let nulls = self.values.and_then(|values| values.logical_nulls());
        for (n, (slot, row)) in self.slots.iter().zip(self.rows).enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row as usize)) {
                work(n, *slot as usize, *row as usize);
            }
        }
    }

    /// Slot and row of each row whose argument is not null, in order.
    #[inline]
    fn each(&self, mut work: impl FnMut(usize, usize)) {
        let pairs = self.slots.iter().zip(self.rows).map(|(slot, row)| (*slot as usize, *row as usize));
        match self.values.and_then(|values| values.logical_nulls()).filter(|nulls| nulls.null_count() > 0) {
            None => pairs.for_each(|(slot, row)| work(slot, row)),
            Some(nulls) => pairs.filter(|(_, row)| nulls.is_valid(*row)).for_each(|(slot, row)| work(slot, row)),
        }
    }
}

/// Canonical bytes of the rows of an update.
struct Keys<'a> {
    keys: ByteRows,
    /// `None`: the keys are those of the update's rows alone.
    rows: Option<&'a [u32]>,
}

impl Keys<'_> {
    /// Those of the update's row number `n`.
    fn get(&self, n: usize) -> &[u8] {
        self.keys.get(self.rows.map_or(n, |rows| rows[n] as usize))
    }
}

/// One aggregate over any number of slots.
pub trait Accumulator: Send + Sync {
    /// Makes room for slots `0..slots`; new ones are empty.
    fn grow(&mut self, slots: usize);
    /// Empties a slot.
    fn reset(&mut self, slot: u32);
    /// Adds rows.
    fn update(&mut self, update: &Update<'_>);
    /// Adds slot `from[i]` of `other`, which was made from the same spec, to slot `into[i]`, for each `i`. `other` comes later in time.
    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]);
    /// Whether merging rows' partial results gives, bit for bit, what the rows give one after the other.
    fn merges_exactly(&self) -> bool {
        true
    }
    /// Adds slot `from` of the same accumulator to slot `into`; `from` comes later in time.
    fn fold(&mut self, from: u32, into: u32);
    /// The results of these slots, of the result type.
    fn results(&self, slots: &[u32]) -> Result<ArrayRef>;
    /// The columns that [`Accumulator::save`] gives: the same for all accumulators of one spec. Their metadata holds the
    /// version of the layout ([`LAYOUT`]); [`check_layout`] compares it with that of a file.
    fn state_fields(&self) -> Vec<Field>;
    /// What these slots hold, one row each. Loaded again, it behaves as it would have without, bit for bit.
    ///
    /// # Errors
    /// When lists or texts of more than 2 GiB come together: save fewer slots at once.
    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>>;
    /// Replaces what these slots hold, for which [`Accumulator::grow`] made room, by rows that were saved.
    ///
    /// # Errors
    /// `Damage` when `state` does not have the types, length and values that [`Accumulator::save`] can give. The slots then
    /// hold anything, and the accumulator must not be used further.
    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()>;
    /// Bytes held, roughly.
    fn byte_len(&self) -> usize;
    /// For [`Accumulator::merge`].
    fn as_any(&self) -> &dyn Any;
}

/// Makes room for slots `0..slots`, an eighth more than that at most.
pub fn grow_to<T: Clone>(values: &mut Vec<T>, slots: usize, value: T) {
    if slots > values.capacity() {
        values.reserve_exact(slots + slots / 8 - values.len());
    }
    values.resize(slots.max(values.len()), value);
}

/// What these slots hold: the columns of all accumulators.
pub fn save_all(accumulators: &[Box<dyn Accumulator>], slots: &[u32]) -> Result<Vec<ArrayRef>> {
    let states = accumulators.iter().map(|accumulator| accumulator.save(slots));
    Ok(states.collect::<Result<Vec<_>>>()?.concat())
}

/// An empty accumulator, or an error that names the function and type that do not go together.
pub fn build(spec: &AggregateSpec) -> Result<Box<dyn Accumulator>> {
    use AggregateFunction::{ApproxPercentile, Avg, Count, ListAgg, Percentile, Sum, User};
    if spec.function == Count && spec.argument.is_none() {
        return Ok(Box::new(count::Count::default()));
    }
    let argument = spec.argument.as_ref().ok_or_else(|| Error::internal(format!("{:?} needs one", spec.function)))?;
    let inner = plain(spec, argument)?;
    // The others see no difference, or look after it themselves.
    let by_value = matches!(
        spec.function,
        Count | Sum | Avg | ListAgg { .. } | Percentile { .. } | ApproxPercentile { .. } | User(_)
    );
    match spec.distinct && by_value {
        true => Ok(Box::new(distinct::Distinct::new(argument.clone(), inner)?)),
        false => Ok(inner),
    }
}

/// An accumulator for values as they come.
fn plain(spec: &AggregateSpec, argument: &DataType) -> Result<Box<dyn Accumulator>> {
    use AggregateFunction::{ApproxCountDistinct, ApproxPercentile, ArrayAgg, Count, ListAgg, Percentile, User};
    let percentile = |exact, fractions: &Arc<[Fraction]>| match argument {
        DataType::Float64 => quantile::Quantiles::new(exact, Arc::clone(fractions), &spec.result),
        other => Err(unsupported(&spec.function, other)),
    };
    Ok(match &spec.function {
        Count => Box::new(count::Count::default()),
        ApproxCountDistinct => Box::new(sketch::Sketches::new(argument)?),
        ArrayAgg { keep_nulls } => {
            Box::new(gathered::Gathered::new(argument, &spec.result, *keep_nulls, spec.distinct)?)
        }
        ListAgg { separator } if *argument == DataType::Utf8 => Box::new(joined::Joined::new(Arc::clone(separator))),
        Percentile { fractions, .. } => Box::new(percentile(true, fractions)?),
        ApproxPercentile { fractions, .. } => Box::new(percentile(false, fractions)?),
        User(user) if user.argument == *argument && user.result == spec.result => user.accumulator(),
        User(user) => return Err(Error::internal(format!("{user:?} of {argument} cannot be {}", spec.result))),
        function => return by_type(function, argument, &spec.result),
    })
}

fn by_type(function: &AggregateFunction, argument: &DataType, result: &DataType) -> Result<Box<dyn Accumulator>> {
    use AggregateFunction::{Avg, Sum};
    match argument {
        DataType::Int8 => fixed::integer::<Int8Type>(function, result),
        DataType::Int16 => fixed::integer::<Int16Type>(function, result),
        DataType::Int32 => fixed::integer::<Int32Type>(function, result),
        DataType::Int64 => fixed::integer::<Int64Type>(function, result),
        DataType::Float32 => fixed::float::<Float32Type>(function, result),
        DataType::Float64 => fixed::float::<Float64Type>(function, result),
        DataType::Decimal128(_, scale) => match function {
            Sum => Ok(Box::new(average::DecimalSum::new(*scale, result))),
            Avg => Ok(Box::new(average::DecimalAverage::new(*scale, result)?)),
            other => fixed::ordered::<Decimal128Type>(other, result),
        },
        DataType::Date32 => fixed::ordered::<Date32Type>(function, result),
        DataType::Time32(TimeUnit::Millisecond) => fixed::ordered::<Time32MillisecondType>(function, result),
        DataType::Timestamp(TimeUnit::Millisecond, _) => fixed::ordered::<TimestampMillisecondType>(function, result),
        DataType::Boolean => fixed::boolean(function),
        DataType::Utf8 | DataType::Binary => bytes::build(function, argument),
        other => Err(unsupported(function, other)),
    }
}

fn unsupported(function: &AggregateFunction, argument: &DataType) -> Error {
    Error::input(format!("{function:?} is not defined for values of type {argument}"))
}

/// The accumulator of the same spec behind the trait.
fn same<T: 'static>(other: &dyn Accumulator) -> &T {
    other.as_any().downcast_ref().expect("merged accumulators are made from one spec")
}

/// Two different elements of one vector.
fn two<T>(states: &mut [T], from: u32, into: u32) -> Option<(&T, &mut T)> {
    let [from, into] = states.get_disjoint_mut([from as usize, into as usize]).ok()?;
    Some((from, into))
}
