//! WHERE, SELECT, HAVING.

use super::{Rows, arrow_error};
use crate::engine::eval::{self, Evaluated, Work, evaluate};
use crate::engine::plan::{Expr, NamedExpr};
use crate::engine::source::batch;
use crate::error::Result;
use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter_record_batch, prep_null_mask_filter, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};

impl Rows {
    /// Evaluates over the batch; rows for which that fails leave it.
    pub fn evaluate(&mut self, work: Work<'_>) -> Result<Vec<arrow::array::ArrayRef>> {
        let Evaluated { columns, kept, failed } = evaluate(&self.batch, work)?;
        self.rejected.extend(failed.into_iter().map(|(row, why)| (self.origin[row as usize], why)));
        if let Some(kept) = kept {
            self.keep(kept)?;
        }
        Ok(columns)
    }

    /// How many rows come from one origin.
    pub fn of_origin(&self, origin: u32) -> usize {
        let from = self.origin.partition_point(|other| *other < origin);
        self.origin[from..].partition_point(|other| *other == origin)
    }

    /// Keeps these rows, in this order.
    pub fn keep(&mut self, kept: Vec<u32>) -> Result<()> {
        self.origin = kept.iter().map(|row| self.origin[*row as usize]).collect();
        self.batch =
            take_record_batch(&self.batch, &UInt32Array::from(kept)).map_err(|e| arrow_error("taking rows", e))?;
        Ok(())
    }
}

/// Keeps the rows for which `predicate` is true.
pub(in crate::engine) fn filter(rows: &mut Rows, predicate: &Expr) -> Result<()> {
    let columns = rows.evaluate(&|batch| Ok(vec![eval::column(&**predicate, batch, &DataType::Boolean)?]))?;
    let mask = columns[0].as_boolean();
    let mask: BooleanArray = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
    if mask.true_count() == rows.origin.len() {
        return Ok(());
    }
    rows.batch = filter_record_batch(&rows.batch, &mask).map_err(|e| arrow_error("filtering rows", e))?;
    let mut row = 0;
    rows.origin.retain(|_| {
        row += 1;
        mask.value(row - 1)
    });
    Ok(())
}

/// Replaces the columns.
pub(in crate::engine) fn project(rows: &mut Rows, columns: &[NamedExpr], schema: &SchemaRef) -> Result<()> {
    let columns = rows.evaluate(&|batch| eval::columns(columns, batch))?;
    rows.batch = batch(schema, columns, rows.origin.len())?;
    Ok(())
}
