//! A window table function without aggregation: each row once for each of its windows.

use super::{Rows, arrow_error};
use crate::engine::source::batch;
use crate::error::{Error, Result};
use crate::window::Window;
use crate::window::assign::Slicer;
use crate::window::clock::WindowClock;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use std::sync::Arc;

/// Appends `window_start`, `window_end` and `window_time` to each row, windows by end. Rows without rowtime are dropped.
pub(in crate::engine) fn assign(
    rows: &mut Rows,
    slicer: &Slicer,
    clock: WindowClock,
    rowtime: usize,
    schema: &SchemaRef,
) -> Result<()> {
    let times = rowtime_column(&rows.batch, rowtime)?;
    let (mut taken, mut windows) = (Vec::new(), Vec::new());
    for row in 0..rows.batch.num_rows() {
        if times.is_null(row) {
            rows.null_rowtime += 1;
            continue;
        }
        let time = clock.local(times.value(row));
        let assigned = slicer.windows_of(time);
        if assigned.is_empty() && slicer.slice_of(time).is_none() {
            rows.rejected.push((rows.origin[row], beyond_time(times.value(row))));
        }
        taken.resize(taken.len() + assigned.len(), u32::try_from(row).expect("a batch has fewer than 4 billion rows"));
        windows.extend(assigned);
    }
    rows.origin = taken.iter().map(|row| rows.origin[*row as usize]).collect();
    let expanded = take_record_batch(&rows.batch, &UInt32Array::from(taken)).map_err(|e| arrow_error("windows", e))?;
    let mut columns = expanded.columns().to_vec();
    columns.extend(window_columns(&windows, schema, 0, clock)?);
    rows.batch = batch(schema, columns, windows.len())?;
    Ok(())
}

/// The rowtime column of a batch.
pub(in crate::engine) fn rowtime_column(
    batch: &RecordBatch,
    rowtime: usize,
) -> Result<PrimitiveArray<TimestampMillisecondType>> {
    let column = batch.columns().get(rowtime).and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>());
    column.cloned().ok_or_else(|| Error::internal(format!("column {rowtime} is no rowtime")))
}

/// `window_start`, `window_end` and `window_time`, with the types of the last three fields of `schema`.
/// `window_start`, `window_end` and `window_time`, which stand at the end of the schema with `behind` more columns.
pub(in crate::engine) fn window_columns(
    windows: &[Window],
    schema: &SchemaRef,
    behind: usize,
    clock: WindowClock,
) -> Result<Vec<ArrayRef>> {
    let first = schema.fields().len().checked_sub(3 + behind);
    let first = first.ok_or_else(|| Error::internal("no window columns in the schema"))?;
    let column = |index: usize, value: &dyn Fn(&Window) -> i64| {
        let values = PrimitiveArray::<TimestampMillisecondType>::from_iter_values(windows.iter().map(value));
        let data_type = schema.field(first + index).data_type();
        if !PrimitiveArray::<TimestampMillisecondType>::is_compatible(data_type) {
            return Err(Error::internal(format!("a window column of type {data_type}")));
        }
        Ok(Arc::new(values.with_data_type(data_type.clone())) as ArrayRef)
    };
    let time = |window: &Window| clock.moment(window.end.saturating_sub(1));
    Ok(vec![column(0, &|w| w.start)?, column(1, &|w| w.end)?, column(2, &time)?])
}

/// Why a row with this time has no windows.
pub(in crate::engine) fn beyond_time(time: i64) -> String {
    format!("rowtime {time} ms has a window that reaches beyond the end of 64-bit time")
}
