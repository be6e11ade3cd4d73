//! Expressions over a batch in which single rows may fail. A batch that fails as a whole is halved until the rows that fail
//! are alone, so one bad row costs a logarithm of evaluations and which rows fail does not depend on how batches were cut.

use super::plan::NamedExpr;
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::DataType;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;

/// Columns for the rows that could be evaluated.
pub(super) struct Evaluated {
    /// The columns.
    pub columns: Vec<ArrayRef>,
    /// The rows of the input that the columns hold, ascending; `None`: all.
    pub kept: Option<Vec<u32>>,
    /// The other rows, ascending, with the reason.
    pub failed: Vec<(u32, String)>,
}

/// What is evaluated: columns from a batch, or why not.
pub(super) type Work<'a> = &'a dyn Fn(&RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError>;

/// Evaluates `work` on all rows of `batch` for which it can be evaluated.
pub(super) fn evaluate(batch: &RecordBatch, work: Work<'_>) -> Result<Evaluated> {
    if let Ok(columns) = work(batch) {
        return Ok(Evaluated { columns, kept: None, failed: Vec::new() });
    }
    let mut pieces = Pieces { columns: vec![work(&batch.slice(0, 0)).map_err(planned)?], ..Pieces::default() };
    pieces.halve(batch, 0, batch.num_rows(), work);
    let width = pieces.columns[0].len();
    let joined = (0..width).map(|column| {
        let parts: Vec<&dyn Array> = pieces.columns.iter().map(|piece| &*piece[column]).collect();
        concat(&parts).map_err(|e| Error::internal("joining evaluated rows").with_source(e))
    });
    Ok(Evaluated { columns: joined.collect::<Result<_>>()?, kept: Some(pieces.kept), failed: pieces.failed })
}

/// An expression that fails on no rows at all is a mistake of the plan.
fn planned(error: DataFusionError) -> Error {
    Error::internal(format!("an expression cannot be evaluated: {}", reason(&error))).with_source(error)
}

fn reason(error: &DataFusionError) -> String {
    error.strip_backtrace()
}

#[derive(Default)]
struct Pieces {
    columns: Vec<Vec<ArrayRef>>,
    kept: Vec<u32>,
    failed: Vec<(u32, String)>,
}

impl Pieces {
    fn halve(&mut self, batch: &RecordBatch, from: usize, to: usize, work: Work<'_>) {
        if from == to {
            return;
        }
        let row = |row: usize| u32::try_from(row).expect("a batch has fewer than 4 billion rows");
        match work(&batch.slice(from, to - from)) {
            Ok(columns) => {
                self.columns.push(columns);
                self.kept.extend(row(from)..row(to));
            }
            Err(error) if to - from == 1 => self.failed.push((row(from), reason(&error))),
            Err(_) => {
                let middle = from.midpoint(to);
                self.halve(batch, from, middle, work);
                self.halve(batch, middle, to, work);
            }
        }
    }
}

/// One expression as a column of the given type.
pub(super) fn column(
    expr: &dyn PhysicalExpr,
    batch: &RecordBatch,
    data_type: &DataType,
) -> Result<ArrayRef, DataFusionError> {
    let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
    if array.data_type() == data_type {
        return Ok(array);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(&array, data_type, &strict)?)
}

/// Named expressions as columns of their fields' types.
pub(super) fn columns(exprs: &[NamedExpr], batch: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
    let evaluated = exprs.iter().map(|named| {
        let array = column(&*named.expr, batch, named.field.data_type())?;
        if !named.field.is_nullable() && array.logical_null_count() > 0 {
            let message = format!("column {} is NULL, but declared NOT NULL", named.field.name());
            return Err(DataFusionError::Execution(message));
        }
        Ok(array)
    });
    evaluated.collect()
}
