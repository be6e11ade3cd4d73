//! From log records to a source's rows: decode, metadata columns, declared columns, rowtime and watermark of each row. Keeps no
//! state, so chunks are read on as many threads as there are.

use super::Codecs;
use super::chunk::Chunk;
use super::eval::{self, evaluate};
use super::plan::{MetadataColumn, SourcePlan};
use crate::error::{Error, Result};
use crate::format::{Decoder, Rejected, used_schema};
use crate::log::records::DecodedValues;
use crate::time::watermark::BEFORE_ALL;
use crate::types::US_PER_MS;
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray,
    UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Reads chunks of one source.
pub(super) struct Reader {
    plan: SourcePlan,
    decoder: Box<dyn Decoder>,
    /// Used physical columns.
    used: SchemaRef,
    /// Used physical columns and metadata columns.
    decoded: SchemaRef,
}

/// The rows of a chunk that could be read.
pub(super) struct SourceRows {
    /// Where they come from.
    pub chunk: Chunk,
    /// Columns of [`SourcePlan::schema`].
    pub batch: RecordBatch,
    /// For each row its row in the chunk, ascending.
    pub rows: Vec<u32>,
    /// For each row the watermark that it moves its partition to, [`BEFORE_ALL`] if it moves nothing.
    pub watermarks: ScalarBuffer<i64>,
    /// Rows of the chunk that are no rows of the source, by row, with the reason.
    pub rejected: Vec<(u32, String)>,
    /// Rows that were skipped in silence.
    pub ignored: u64,
    /// Rejected rows whose rowtime is NULL.
    pub null_rowtime: u64,
    /// Rows too far ahead of their append time to move the watermark.
    pub beyond_max_future: u64,
}

impl SourceRows {
    /// Row in the chunk and rowtime of each row of a source with a rowtime.
    pub fn rowtimes(&self, column: usize) -> Result<Vec<(u32, i64)>> {
        let times = self.batch.column(column).as_primitive_opt::<TimestampMillisecondType>();
        let times = times.ok_or_else(|| Error::internal("a rowtime column is not TIMESTAMP(3)"))?;
        Ok(self.rows.iter().copied().zip(times.values().iter().copied()).collect())
    }
}

/// Rows on their way, with their rows in the chunk.
struct Kept {
    batch: RecordBatch,
    rows: Vec<u32>,
    rejected: Vec<(u32, String)>,
}

impl Kept {
    /// Replaces the batch by what was evaluated over it.
    fn replace(&mut self, schema: &SchemaRef, evaluated: eval::Evaluated) -> Result<()> {
        self.rejected.extend(evaluated.failed.into_iter().map(|(row, why)| (self.rows[row as usize], why)));
        if let Some(kept) = evaluated.kept {
            self.rows = kept.iter().map(|row| self.rows[*row as usize]).collect();
        }
        self.batch = batch(schema, evaluated.columns, self.rows.len())?;
        Ok(())
    }
}

/// A batch that knows its number of rows even without columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|e| Error::internal(format!("columns do not fit their schema: {e}")).with_source(e))
}

impl Reader {
    pub fn new(plan: &SourcePlan, codecs: Codecs) -> Result<Reader> {
        let decoder = (codecs.decoder)(&plan.format, &plan.declared, &plan.used)?;
        let used = used_schema(&plan.declared, &plan.used);
        let metadata = plan.metadata.iter().map(|column| Arc::new(metadata_field(*column)));
        let fields: Vec<_> = used.fields().iter().cloned().chain(metadata).collect();
        Ok(Reader { plan: plan.clone(), decoder, used, decoded: Arc::new(Schema::new(fields)) })
    }

    /// Reads a chunk.
    pub fn read(&self, chunk: Chunk) -> Result<SourceRows> {
        let mut kept = self.decode(&chunk)?;
        let ignored = if self.plan.ignore_parse_errors { std::mem::take(&mut kept.rejected).len() as u64 } else { 0 };
        let evaluated = evaluate(&kept.batch, &|batch| eval::columns(&self.plan.columns, batch))?;
        kept.replace(&self.plan.schema, evaluated)?;
        let null_rowtime = self.reject_null_rowtime(&mut kept)?;
        let (watermarks, beyond_max_future) = self.watermarks(&chunk, &mut kept)?;
        kept.rejected.sort_by_key(|(row, _)| *row);
        let Kept { batch, rows, rejected } = kept;
        Ok(SourceRows { chunk, batch, rows, watermarks, rejected, ignored, null_rowtime, beyond_max_future })
    }

    fn decode(&self, chunk: &Chunk) -> Result<Kept> {
        let (mut columns, rows, rejected) = match &chunk.decoded {
            Some(decoded) => self.take_decoded(chunk, decoded)?,
            None => {
                let decoded = self.decoder.decode(&chunk.values);
                let rows = decoded.rows.unwrap_or_else(|| (0u32..).take(decoded.batch.num_rows()).collect());
                (decoded.batch.columns().to_vec(), rows, reasons(decoded.rejected, |row| row))
            }
        };
        columns.extend(self.plan.metadata.iter().map(|column| metadata(*column, chunk, &rows)));
        let batch = batch(&self.decoded, columns, rows.len())?;
        Ok(Kept { batch, rows, rejected })
    }

    /// What decoding the values of a chunk would give, from columns decoded before. Rows that could not be decoded then are decoded
    /// now: the job may use fewer columns, and the reason for a rejection is the job's.
    fn take_decoded(&self, chunk: &Chunk, decoded: &DecodedValues) -> Result<Read> {
        let column = |field: &Arc<Field>| {
            let column = decoded.columns.column_by_name(field.name());
            let column = column.filter(|column| column.data_type() == field.data_type()).cloned();
            column.ok_or_else(|| Error::internal(format!("decoded values lack column {}", field.name())))
        };
        let columns = self.used.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let all = (0u32..).take(chunk.len());
        if decoded.undecoded.is_empty() {
            return Ok((columns, all.collect(), Vec::new()));
        }
        let raw_rows = &decoded.undecoded;
        let values = take(&chunk.values, &UInt32Array::from(raw_rows.clone()), None).map_err(picking)?;
        let raw = self.decoder.decode(values.as_binary::<i32>());
        let raw_places = raw.rows.unwrap_or_else(|| (0u32..).take(raw.batch.num_rows()).collect());
        // Behind the chunk's own rows stand those decoded now: `from` says where each row comes from.
        let (mut rows, mut from) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        let mut behind = (0u32..).skip(chunk.len());
        let mut recovered = raw_places.iter().map(|place| raw_rows[*place as usize]).peekable();
        let mut missing = raw_rows.iter().copied().peekable();
        for row in all {
            let found = match missing.next_if_eq(&row) {
                None => Some(row),
                Some(_) => recovered.next_if_eq(&row).and_then(|_| behind.next()),
            };
            if let Some(found) = found {
                rows.push(row);
                from.push(found);
            }
        }
        let from = UInt32Array::from(from);
        let merged = columns.iter().zip(raw.batch.columns()).map(|(before, now)| {
            let both = concat(&[&**before, &**now]).map_err(picking)?;
            take(&both, &from, None).map_err(picking)
        });
        Ok((merged.collect::<Result<_>>()?, rows, reasons(raw.rejected, |row| raw_rows[row as usize])))
    }

    fn reject_null_rowtime(&self, kept: &mut Kept) -> Result<u64> {
        let Some(event_time) = &self.plan.event_time else { return Ok(0) };
        let Some(nulls) = kept.batch.column(event_time.rowtime).logical_nulls().filter(|n| n.null_count() > 0) else {
            return Ok(0);
        };
        let name = self.plan.schema.field(event_time.rowtime).name();
        let (valid, null): (Vec<u32>, Vec<u32>) =
            (0u32..).take(nulls.len()).partition(|row| nulls.is_valid(*row as usize));
        let why = format!("rowtime column {name} is NULL");
        kept.rejected.extend(null.iter().map(|row| (kept.rows[*row as usize], why.clone())));
        kept.rows = valid.iter().map(|row| kept.rows[*row as usize]).collect();
        kept.batch = take_record_batch(&kept.batch, &UInt32Array::from(valid))
            .map_err(|e| Error::internal("dropping rows without rowtime").with_source(e))?;
        Ok(null.len() as u64)
    }

    /// The watermark of each row, and how many rows are beyond `max-future`.
    fn watermarks(&self, chunk: &Chunk, kept: &mut Kept) -> Result<(ScalarBuffer<i64>, u64)> {
        let Some(event_time) = &self.plan.event_time else { return Ok((vec![BEFORE_ALL; kept.rows.len()].into(), 0)) };
        let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
        let evaluated = evaluate(&kept.batch, &|batch| {
            let mut columns = batch.columns().to_vec();
            columns.push(eval::column(&*event_time.watermark, batch, &ms)?);
            Ok(columns)
        })?;
        let mut evaluated = evaluated;
        let watermark = evaluated.columns.pop().expect("the column pushed above");
        kept.replace(&self.plan.schema, evaluated)?;
        let watermark = watermark.as_primitive::<TimestampMillisecondType>();
        let rowtime = kept.batch.column(event_time.rowtime).as_primitive_opt::<TimestampMillisecondType>();
        let rowtime = rowtime.ok_or_else(|| Error::internal("a rowtime column is not TIMESTAMP(3)"))?.values();
        // Append times never fall: what is not too far for the first row is not too far for any.
        let first_us = chunk.append_us.first().unwrap_or_default();
        let limit_ms = first_us.saturating_add(event_time.max_future_us).div_euclid(US_PER_MS);
        if watermark.null_count() == 0 && rowtime.iter().all(|rowtime| *rowtime <= limit_ms) {
            return Ok((watermark.values().clone(), 0));
        }
        let mut beyond = 0;
        let watermarks = kept.rows.iter().enumerate().map(|(index, row)| {
            let append_us = i128::from(chunk.append_us[*row as usize]);
            let limit_us = append_us + i128::from(event_time.max_future_us);
            let too_far = i128::from(rowtime[index]) * i128::from(US_PER_MS) > limit_us;
            beyond += u64::from(too_far);
            if too_far || watermark.is_null(index) { BEFORE_ALL } else { watermark.value(index) }
        });
        let watermarks = watermarks.collect();
        Ok((watermarks, beyond))
    }
}

/// Columns, the row of the chunk that each of their rows is, and the rows of the chunk that did not decode, with the reason.
type Read = (Vec<ArrayRef>, Vec<u32>, Vec<(u32, String)>);

fn reasons(rejected: Vec<Rejected>, row_of: impl Fn(u32) -> u32) -> Vec<(u32, String)> {
    rejected.into_iter().map(|rejected| (row_of(rejected.row), rejected.reason)).collect()
}

fn picking(error: ArrowError) -> Error {
    Error::internal("picking decoded rows").with_source(error)
}

fn utc_ms() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn metadata_field(column: MetadataColumn) -> Field {
    match column {
        MetadataColumn::Timestamp => Field::new("timestamp", utc_ms(), true),
        MetadataColumn::Partition => Field::new("partition", DataType::Int32, false),
        MetadataColumn::Offset => Field::new("offset", DataType::Int64, false),
        MetadataColumn::AppendTime => Field::new("append_time", utc_ms(), false),
        MetadataColumn::Key => Field::new("key", DataType::Binary, true),
    }
}

/// A metadata column for some rows of a chunk.
fn metadata(column: MetadataColumn, chunk: &Chunk, rows: &[u32]) -> ArrayRef {
    let each = || rows.iter().map(|row| *row as usize);
    let picked = |array: &dyn Array| match rows.len() == chunk.len() {
        true => array.slice(0, rows.len()),
        false => take(array, &UInt32Array::from(rows.to_vec()), None).expect("rows of this chunk"),
    };
    match column {
        MetadataColumn::Timestamp => {
            let ms = picked(&chunk.timestamps);
            let ms = ms.as_any().downcast_ref::<Int64Array>().expect("take keeps the type");
            let (_, values, nulls) = ms.clone().into_parts();
            Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone("UTC"))
        }
        MetadataColumn::Partition => {
            let number = |row: usize| i32::try_from(chunk.partitions[row]).unwrap_or(i32::MAX);
            Arc::new(Int32Array::from_iter_values(each().map(number)))
        }
        MetadataColumn::Offset => {
            let number = |row: usize| i64::try_from(chunk.offsets[row]).unwrap_or(i64::MAX);
            Arc::new(Int64Array::from_iter_values(each().map(number)))
        }
        MetadataColumn::AppendTime => {
            let ms = each().map(|row| chunk.append_us[row].div_euclid(US_PER_MS));
            Arc::new(TimestampMillisecondArray::from_iter_values(ms).with_timezone("UTC"))
        }
        MetadataColumn::Key => picked(&chunk.keys),
    }
}
