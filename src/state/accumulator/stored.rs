//! Contents of accumulators as Arrow columns: what [`Accumulator::save`](super::Accumulator::save) gives and
//! [`Accumulator::load`](super::Accumulator::load) takes. One form for spilled windows, checkpoints and savepoints.
//!
//! Every column's field says in its metadata which aggregate laid it out and in which version of the layout. What comes from
//! disk is not trusted: it is checked before it is used, and gives errors, never wrong memory.

use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Metadata key of a field that holds state: its value is the name of the layout and its version, `sum 1`.
pub const LAYOUT: &str = "kappa.layout";

/// More values than a log can hold: a larger count is no count.
const COUNT_MAX: i64 = 1 << 48;

/// Says of each field by which layout it is written.
pub(in crate::state) fn layout(name: &str, version: u32, fields: Vec<Field>) -> Vec<Field> {
    let metadata = HashMap::from([(LAYOUT.to_owned(), format!("{name} {version}"))]);
    fields.into_iter().map(|field| field.with_metadata(metadata.clone())).collect()
}

/// Checks that the columns of a file of state are those that an accumulator reads.
///
/// # Errors
/// `Conflict` when they were written by another aggregate or another version of its layout.
pub fn check_layout(expected: &[Field], found: &[Field]) -> Result<()> {
    let known = |field: &Field| field.metadata().get(LAYOUT).cloned().unwrap_or_else(|| "unknown".to_owned());
    let same = |(a, b): (&Field, &Field)| known(a) == known(b) && a.name() == b.name() && same_type(a, b);
    if expected.len() == found.len() && expected.iter().zip(found).all(same) {
        return Ok(());
    }
    let list = |fields: &[Field]| {
        let fields: Vec<_> =
            fields.iter().map(|field| format!("{} {} [{}]", field.name(), field.data_type(), known(field))).collect();
        fields.join(", ")
    };
    Err(Error::new(
        crate::error::ErrorKind::Conflict,
        format!("saved state has the columns {}, not {}", list(found), list(expected)),
    )
    .with_hint("it was written by another job or another version of Kappa: compute it again from the log"))
}

fn same_type(a: &Field, b: &Field) -> bool {
    a.data_type().equals_datatype(b.data_type()) && a.is_nullable() == b.is_nullable()
}

/// Checks saved columns against their fields, and that there is room for the slots.
pub(in crate::state) fn check(fields: &[Field], slots: &[u32], room: usize, state: &[ArrayRef]) -> Result<()> {
    if fields.len() != state.len() {
        return Err(Error::damage(format!("saved state has {} columns, not {}", state.len(), fields.len())));
    }
    if let Some(slot) = slots.iter().find(|slot| **slot as usize >= room) {
        return Err(Error::internal(format!("slot {slot} of {room} cannot be loaded")));
    }
    for (field, column) in fields.iter().zip(state) {
        let wrong = |what: String| Err(Error::damage(format!("column {} of saved state {what}", field.name())));
        if !column.data_type().equals_datatype(field.data_type()) {
            return wrong(format!("is {}, not {}", column.data_type(), field.data_type()));
        }
        if column.len() != slots.len() {
            return wrong(format!("has {} rows for {} keys", column.len(), slots.len()));
        }
        if !field.is_nullable() && column.null_count() > 0 {
            return wrong("has NULLs where a value has to be".to_owned());
        }
    }
    Ok(())
}

/// Values of fixed width, as a type with the same width.
pub(super) fn column<P: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<P::Native>>,
    data_type: &DataType,
) -> ArrayRef {
    Arc::new(values.collect::<PrimitiveArray<P>>().with_data_type(data_type.clone()))
}

/// Values of fixed width, none of them NULL.
pub(super) fn full<P: ArrowPrimitiveType>(values: impl Iterator<Item = P::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<P>::from_iter_values(values))
}

/// Numbers of values, each of which a log can hold.
pub(super) fn counts(column: &ArrayRef) -> Result<Vec<i64>> {
    let counts = column.as_primitive::<Int64Type>().values().to_vec();
    match counts.iter().find(|count| !(0..=COUNT_MAX).contains(*count)) {
        Some(count) => Err(Error::damage(format!("saved state has counted {count} values"))),
        None => Ok(counts),
    }
}

/// Numbers of values that belong to one slot: also their sum is one that a log can hold.
pub(super) fn counts_of_one(column: &ArrayRef) -> Result<Vec<i64>> {
    let counts = counts(column)?;
    let total = counts.iter().fold(0, |total: i64, count| total.saturating_add(*count));
    if total > COUNT_MAX {
        return Err(Error::damage(format!("saved state has counted {total} values")));
    }
    Ok(counts)
}

/// Checks that a value is there exactly where its position is.
pub(super) fn check_pairs(positions: &dyn Array, values: &dyn Array) -> Result<()> {
    match (0..positions.len()).all(|row| positions.is_null(row) == values.is_null(row)) {
        true => Ok(()),
        false => Err(Error::damage("saved state has a value without its position, or a position without its value")),
    }
}

/// A list for each slot: its values stand one after the other in `values`.
pub(super) fn list(item: &Field, lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef> {
    let list = ListArray::try_new(Arc::new(item.clone()), OffsetBuffer::from_lengths(lengths), values, None);
    Ok(Arc::new(list.map_err(|cause| Error::internal("lists of state").with_source(cause))?))
}

/// The type of lists of `item`.
pub(super) fn list_type(item: Field) -> DataType {
    DataType::List(Arc::new(item))
}

/// The field of the values in a list.
pub(super) fn item(data_type: &DataType, nullable: bool) -> Field {
    Field::new_list_field(data_type.clone(), nullable)
}

/// Checks that so many bytes or values fit into one column of lists, texts or bytes.
pub(in crate::state) fn check_size(total: usize, what: &str) -> Result<()> {
    match i32::try_from(total) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::input(format!("{what} of {total} bytes or values do not fit into one batch (2 GiB)"))
            .with_hint("use smaller windows or fewer values for each key")),
    }
}
