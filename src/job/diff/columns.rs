//! Rows that may differ, column by column.

use crate::error::{Error, Result};
use crate::format::{self, Decoder};
use crate::log::records::ValueColumns;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;

/// Pairs that are decoded at once.
const PAIRS_AT_ONCE: usize = 8192;

/// Rows of one window and key; `None`: the side has no such row.
pub(super) struct Pair {
    pub time_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub a: Option<Option<Vec<u8>>>,
    pub b: Option<Option<Vec<u8>>>,
}

/// What was found of a pair.
pub(super) struct Found {
    /// Columns that differ, of rows that both sides have.
    pub columns: Vec<String>,
    /// Start of the window, if the rows say it.
    pub window_start_ms: Option<i64>,
}

/// How a column changed, over all rows that both sides have.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDelta {
    /// Its name.
    pub name: String,
    /// Rows in which it differs.
    pub changed: u64,
    /// Sum of the differences, second side minus first, of a numeric column.
    pub sum: Option<f64>,
    /// The greatest difference, without its sign.
    pub max: Option<f64>,
}

struct Part {
    declared: SchemaRef,
    decoder: Box<dyn Decoder>,
}

/// The columns of both sides.
pub(super) struct Columns {
    a: Part,
    b: Part,
    /// Places on either side of the columns that both have.
    common: Vec<(usize, usize)>,
    deltas: Vec<ColumnDelta>,
}

impl Part {
    fn new(columns: &ValueColumns) -> Result<Part> {
        let all: Vec<usize> = (0..columns.declared.fields().len()).collect();
        let decoder = format::decoder(&columns.format, &columns.declared, &all)?;
        Ok(Part { declared: Arc::clone(&columns.declared), decoder })
    }

    fn lacking(&self, other: &Part) -> Vec<String> {
        let names = self.declared.fields().iter().map(|field| field.name().clone());
        names.filter(|name| other.declared.index_of(name).is_err()).collect()
    }

    /// Rows of values, and for each value its row.
    fn decode<'v>(&self, values: impl Iterator<Item = Option<&'v [u8]>>) -> (RecordBatch, Vec<Option<usize>>) {
        let values: BinaryArray = values.collect();
        let decoded = self.decoder.decode(&values);
        let mut places = vec![None; values.len()];
        for row in 0..decoded.batch.num_rows() {
            let value = decoded.rows.as_ref().map_or(row, |rows| rows[row] as usize);
            places[value] = Some(row);
        }
        (decoded.batch, places)
    }

    /// What the rows say of the start of their window.
    fn starts(&self, batch: &RecordBatch) -> Option<ArrayRef> {
        let place = self.declared.index_of("window_start").ok()?;
        let column = batch.column(place);
        matches!(column.data_type(), DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, _))
            .then(|| Arc::clone(column))
    }
}

impl Columns {
    pub fn new(a: &ValueColumns, b: &ValueColumns) -> Result<Columns> {
        let (a, b) = (Part::new(a)?, Part::new(b)?);
        let fields = a.declared.fields().iter().enumerate();
        let common: Vec<(usize, usize)> =
            fields.filter_map(|(place, field)| Some((place, b.declared.index_of(field.name()).ok()?))).collect();
        let is_number = |field: &arrow::datatypes::Field| field.data_type().is_numeric();
        let deltas = common.iter().map(|(at_a, at_b)| {
            let are_numbers = is_number(a.declared.field(*at_a)) && is_number(b.declared.field(*at_b));
            let name = a.declared.field(*at_a).name().clone();
            ColumnDelta { name, changed: 0, sum: are_numbers.then_some(0.0), max: are_numbers.then_some(0.0) }
        });
        Ok(Columns { deltas: deltas.collect(), a, b, common })
    }

    pub fn only_a(&self) -> Vec<String> {
        self.a.lacking(&self.b)
    }

    pub fn only_b(&self) -> Vec<String> {
        self.b.lacking(&self.a)
    }

    pub fn deltas(self) -> Vec<ColumnDelta> {
        self.deltas
    }

    /// Looks into the values of pairs.
    pub fn compare(&mut self, pairs: Vec<Pair>) -> Result<Vec<(Pair, Found)>> {
        let mut all = Vec::with_capacity(pairs.len());
        let mut pairs = pairs.into_iter();
        loop {
            let some: Vec<Pair> = pairs.by_ref().take(PAIRS_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(all);
            }
            let found = self.compare_some(&some)?;
            all.extend(some.into_iter().zip(found));
        }
    }

    fn compare_some(&mut self, pairs: &[Pair]) -> Result<Vec<Found>> {
        let value = |side: &'_ Option<Option<Vec<u8>>>| side.clone().flatten();
        let (values_a, values_b): (Vec<_>, Vec<_>) = pairs.iter().map(|pair| (value(&pair.a), value(&pair.b))).unzip();
        let (batch_a, rows_a) = self.a.decode(values_a.iter().map(Option::as_deref));
        let (batch_b, rows_b) = self.b.decode(values_b.iter().map(Option::as_deref));
        let starts = (self.a.starts(&batch_a), self.b.starts(&batch_b));
        let mut found: Vec<Found> = Vec::with_capacity(pairs.len());
        for (row_a, row_b) in rows_a.iter().zip(&rows_b) {
            let start = |starts: &Option<ArrayRef>, row: &Option<usize>| {
                let (starts, row) = (starts.as_ref()?.as_primitive::<TimestampMillisecondType>(), (*row)?);
                starts.is_valid(row).then(|| starts.value(row))
            };
            let window_start_ms = start(&starts.0, row_a).or_else(|| start(&starts.1, row_b));
            found.push(Found { columns: Vec::new(), window_start_ms });
        }
        for (delta, (at_a, at_b)) in self.deltas.iter_mut().zip(&self.common) {
            let (a, b) = (batch_a.column(*at_a), batch_b.column(*at_b));
            let (text_a, text_b) = (formatter(a)?, formatter(b)?);
            let numbers = delta.sum.is_some().then(|| Some((as_numbers(a)?, as_numbers(b)?))).flatten();
            for (found, (row_a, row_b)) in found.iter_mut().zip(rows_a.iter().zip(&rows_b)) {
                let (Some(row_a), Some(row_b)) = (*row_a, *row_b) else { continue };
                let is_equal = a.is_null(row_a) == b.is_null(row_b)
                    && (a.is_null(row_a) || text_a.value(row_a).to_string() == text_b.value(row_b).to_string());
                if is_equal {
                    continue;
                }
                delta.changed += 1;
                found.columns.push(delta.name.clone());
                if let Some((a, b)) = &numbers {
                    let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
                    if a.is_valid(row_a) && b.is_valid(row_b) {
                        let difference = b.value(row_b) - a.value(row_a);
                        delta.sum = delta.sum.map(|sum| sum + difference);
                        delta.max = delta.max.map(|max| max.max(difference.abs()));
                    }
                }
            }
        }
        // Values that do not decode, or null ones beside others, have no columns to name.
        for ((found, pair), (row_a, row_b)) in found.iter_mut().zip(pairs).zip(rows_a.iter().zip(&rows_b)) {
            if pair.a.is_some() && pair.b.is_some() && (row_a.is_none() || row_b.is_none()) {
                found.columns.push("value".to_owned());
            }
        }
        Ok(found)
    }
}

fn as_numbers(column: &ArrayRef) -> Option<ArrayRef> {
    cast(column, &DataType::Float64).ok()
}

fn formatter(column: &ArrayRef) -> Result<ArrayFormatter<'_>> {
    const OPTIONS: FormatOptions<'_> = FormatOptions::new();
    ArrayFormatter::try_new(column, &OPTIONS)
        .map_err(|e| Error::input(format!("a column of type {} cannot be compared: {e}", column.data_type())))
}
