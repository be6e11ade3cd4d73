//! Fields of rows, elements of arrays, and the check of NOT NULL columns.

use super::super::expr::Typed;
use super::super::text::nearest;
use super::super::types;
use super::kernel::{Args, make};
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_err};

/// Field `name` of a ROW; NULL where the row is NULL.
pub(in super::super) fn field(row: Typed, name: &str) -> Result<Typed, String> {
    let DataType::Struct(fields) = &row.data_type else {
        return Err(format!("{} has no field '{name}'", types::name(&row.data_type)));
    };
    let Some(field) = fields.iter().find(|field| field.name() == name) else {
        let near = nearest(name, fields.iter().map(|field| field.name().as_str()));
        let near = near.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
        return Err(format!("no field '{name}' in {}{near}", types::name(&row.data_type)));
    };
    let (data_type, nullable) = (field.data_type().clone(), row.nullable || field.is_nullable());
    Ok(make("FIELD", name, vec![row], data_type, nullable, field_kernel))
}

fn field_kernel(args: &Args<'_>) -> Result<ArrayRef> {
    let array = args.full(0)?;
    let Some(row) = array.as_struct_opt() else { return exec_err!("not a ROW") };
    let Some(field) = row.column_by_name(args.parameter) else { return exec_err!("no field '{}'", args.parameter) };
    if row.null_count() == 0 {
        return Ok(ArrayRef::clone(field));
    }
    let nulls = NullBuffer::union(row.nulls(), field.nulls());
    let data = field.to_data().into_builder().nulls(nulls).build()?;
    Ok(arrow::array::make_array(data))
}

/// Element of an array, from 1; NULL outside.
pub(super) fn item(array: Typed, place: Typed) -> Result<Typed, String> {
    let DataType::List(item) = &array.data_type else {
        return Err(format!("{} has no elements", types::name(&array.data_type)));
    };
    if !place.data_type.is_integer() {
        return Err(format!("an ARRAY is indexed by INT, not by {}", types::name(&place.data_type)));
    }
    if place.value().is_some_and(|value| value.to_string().parse::<i64>().is_ok_and(|place| place < 1)) {
        return Err("the elements of an ARRAY are counted from 1".into());
    }
    let data_type = item.data_type().clone();
    let place = super::super::cast::implicit(place, &DataType::Int64)?;
    Ok(make("ITEM", "", vec![array, place], data_type, true, item_kernel))
}

fn item_kernel(args: &Args<'_>) -> Result<ArrayRef> {
    let array = args.array(0)?;
    let Some(list) = array.as_list_opt::<i32>() else { return exec_err!("not an ARRAY") };
    let Some(places) = args.array(1)?.as_primitive_opt::<Int64Type>() else { return exec_err!("not an index") };
    let offsets = list.value_offsets();
    let indices: UInt32Array = (0..args.rows)
        .map(|row| {
            let list_row = args.place(0, row)?;
            let place = places.value(args.place(1, row)?);
            let (start, end) = (i64::from(offsets[list_row]), i64::from(offsets[list_row + 1]));
            let index = start.checked_add(place)? - 1;
            (place >= 1 && index < end).then(|| u32::try_from(index).ok()).flatten()
        })
        .collect();
    Ok(take(list.values(), &indices, None)?)
}

/// CARDINALITY of an array.
pub(super) fn cardinality(array: Typed) -> Result<Typed, String> {
    if !matches!(array.data_type, DataType::List(_)) {
        return Err(format!("CARDINALITY does not work on {}", types::name(&array.data_type)));
    }
    let nullable = array.nullable;
    Ok(make("CARDINALITY", "", vec![array], DataType::Int32, nullable, |args| {
        let array = args.array(0)?;
        let Some(list) = array.as_list_opt::<i32>() else { return exec_err!("not an ARRAY") };
        args.longs(|row| Ok(args.place(0, row).map(|row| i64::from(list.value_length(row)))))
    }))
}

/// The value, or an error of its row where it is NULL: for columns declared NOT NULL.
pub(in super::super) fn not_null(value: Typed, column: &str) -> Typed {
    if !value.nullable {
        return value;
    }
    let data_type = value.data_type.clone();
    make("NOT_NULL", column, vec![value], data_type, false, |args| {
        let array = args.full(0)?;
        if array.null_count() > 0 {
            return exec_err!("NULL in column '{}', which is NOT NULL", args.parameter);
        }
        Ok(array)
    })
}
