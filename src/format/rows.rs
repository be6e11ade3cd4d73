//! Rows of a batch under construction: which decoded, and why the others did not.

use super::column::{Column, Reason};
use super::{Decoded, Rejected};
use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// A batch under construction.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    rejected: Vec<Rejected>,
    len: u32,
}

impl Rows {
    /// No rows yet. `columns` are those of `schema`.
    pub(super) fn new(schema: &SchemaRef, columns: Vec<Column>) -> Self {
        Rows { schema: schema.clone(), columns, rejected: Vec::new(), len: 0 }
    }

    /// The columns, to be filled with exactly one element each before [`Rows::end_row`].
    pub(super) fn columns(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    /// Ends a row whose elements have been pushed; with a reason it is one that did not decode.
    #[inline]
    pub(super) fn end_row(&mut self, pushed: Result<(), Reason>) {
        if let Err(reason) = pushed {
            self.rejected.push(Rejected { row: self.len, reason });
        }
        self.len += 1;
    }

    /// Ends `count` rows whose elements have been pushed; those in `failures`, ascending, did not decode.
    pub(super) fn end_rows(&mut self, count: usize, failures: impl Iterator<Item = (usize, Reason)>) {
        let number = |row| u32::try_from(row).expect("an array of bytes has 31-bit places");
        self.rejected.extend(failures.map(|(row, reason)| Rejected { row: self.len + number(row), reason }));
        self.len += number(count);
    }

    /// Adds a row that did not decode, of which nothing has been pushed.
    pub(super) fn reject(&mut self, reason: Reason) {
        self.columns.iter_mut().for_each(Column::push_filler);
        self.end_row(Err(reason));
    }

    /// The batch of the rows that decoded.
    pub(super) fn finish(mut self) -> Decoded {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        if self.rejected.is_empty() {
            return Decoded { batch: batch(&self.schema, arrays, self.len as usize), rows: None, rejected: Vec::new() };
        }
        let mut bad = self.rejected.iter().map(|rejected| rejected.row).peekable();
        let good: Vec<u32> = (0..self.len).filter(|row| bad.next_if_eq(row).is_none()).collect();
        let mut mask = vec![true; self.len as usize];
        for rejected in &self.rejected {
            if let Some(keeps) = mask.get_mut(rejected.row as usize) {
                *keeps = false;
            }
        }
        let mask = BooleanArray::from(mask);
        let kept =
            arrays.iter().map(|array| filter(array, &mask).expect("all columns have one element a row")).collect();
        Decoded { batch: batch(&self.schema, kept, good.len()), rows: Some(good), rejected: self.rejected }
    }
}

fn batch(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).expect("the columns were made for this schema")
}
