//! Log batches put together or cut into pieces of a size that is good for columns. A chunk may span many append times.

use super::source;
use crate::error::{Error, Result};
use crate::log::numbers::Numbers;
use crate::log::records::{DecodedValues, LogBatch, joined_partitions};
use arrow::array::{Array, BinaryArray, Int64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::SchemaRef;

/// Rows of a chunk to aim for: large enough to spread the cost of a call, small enough for the caches.
const TARGET_ROWS: usize = 8192;
/// Bytes of values beyond which nothing is added to a chunk (offsets within a column are 32 bits).
const TARGET_BYTES: usize = 16 << 20;

/// Records of one source in log order.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// Position of each row.
    pub positions: Numbers<u64>,
    /// Append time of each row, never falling.
    pub append_us: Numbers<i64>,
    /// Partition of each row.
    pub partitions: ScalarBuffer<u32>,
    /// Offset of each row within its partition.
    pub offsets: Numbers<u64>,
    /// Record timestamps in ms.
    pub timestamps: Int64Array,
    /// Keys.
    pub keys: BinaryArray,
    /// Values.
    pub values: BinaryArray,
    /// Encoded headers.
    pub headers: BinaryArray,
    /// Values that were decoded before.
    pub decoded: Option<DecodedValues>,
    /// Keys, values and headers are only those that the source asked for.
    pub in_parts: bool,
}

impl Chunk {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    fn of(batches: &[LogBatch], in_parts: bool) -> Result<Chunk> {
        Ok(Chunk {
            decoded: joined_decoded(batches)?,
            in_parts,
            positions: Numbers::concat(batches.iter().map(|batch| &batch.positions)),
            append_us: Numbers::concat(batches.iter().map(|batch| &batch.append_times)),
            partitions: joined_partitions(batches),
            offsets: Numbers::concat(batches.iter().map(|batch| &batch.offsets)),
            timestamps: joined(batches, |batch| &batch.timestamps)?,
            keys: joined(batches, |batch| &batch.keys)?,
            values: joined(batches, |batch| &batch.values)?,
            headers: joined(batches, |batch| &batch.headers)?,
        })
    }
}

fn joined<A: Array + Clone + 'static>(batches: &[LogBatch], column: impl Fn(&LogBatch) -> &A) -> Result<A> {
    if let [one] = batches {
        return Ok(column(one).clone());
    }
    let parts: Vec<&dyn Array> = batches.iter().map(|batch| column(batch) as &dyn Array).collect();
    let array = concat(&parts).map_err(|e| Error::internal("joining log batches").with_source(e))?;
    Ok(array.as_any().downcast_ref::<A>().expect("concat keeps the type").clone())
}

/// The decoded values of batches of one kind.
fn joined_decoded(batches: &[LogBatch]) -> Result<Option<DecodedValues>> {
    let Some(schema) = batches.first().and_then(decoded_schema) else { return Ok(None) };
    let (mut parts, mut undecoded, mut first) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        let Some(decoded) = &batch.decoded else { return Err(Error::internal("a chunk of two kinds of batches")) };
        parts.push(&decoded.columns);
        undecoded.extend(decoded.undecoded.iter().map(|row| row + first));
        first += u32::try_from(batch.len()).map_err(|_| Error::internal("a batch of 4 billion records"))?;
    }
    if let [one] = parts[..] {
        return Ok(Some(DecodedValues { columns: one.clone(), undecoded }));
    }
    let columns = match schema.fields().len() {
        0 => source::batch(schema, Vec::new(), first as usize)?,
        _ => concat_batches(schema, parts).map_err(|e| Error::internal("joining decoded values").with_source(e))?,
    };
    Ok(Some(DecodedValues { columns, undecoded }))
}

fn decoded_schema(batch: &LogBatch) -> Option<&SchemaRef> {
    batch.decoded.as_ref().map(|decoded| decoded.columns.schema_ref())
}

/// The batches of one source, in order, as chunks. A chunk holds batches of one kind: with values decoded to the same columns, or
/// without.
pub(super) fn chunks(batches: Vec<LogBatch>, in_parts: bool) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let (mut gathered, mut rows, mut bytes) = (Vec::<LogBatch>::new(), 0, 0);
    for batch in batches {
        let (batch_rows, batch_bytes) = (batch.len(), value_bytes(&batch.values));
        let is_full = rows + batch_rows > TARGET_ROWS || bytes + batch_bytes > TARGET_BYTES;
        if gathered.last().is_some_and(|last| is_full || decoded_schema(last) != decoded_schema(&batch)) {
            chunks.push(Chunk::of(&gathered, in_parts)?);
            gathered.clear();
            (rows, bytes) = (0, 0);
        }
        if batch_rows > 2 * TARGET_ROWS {
            for from in (0..batch_rows).step_by(TARGET_ROWS) {
                chunks.push(Chunk::of(&[batch.slice(from, (from + TARGET_ROWS).min(batch_rows))], in_parts)?);
            }
        } else if batch_rows > 0 {
            rows += batch_rows;
            bytes += batch_bytes;
            gathered.push(batch);
        }
    }
    if rows > 0 {
        chunks.push(Chunk::of(&gathered, in_parts)?);
    }
    Ok(chunks)
}

fn value_bytes(values: &BinaryArray) -> usize {
    let offsets = values.value_offsets();
    let span = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first);
    usize::try_from(span).unwrap_or(0)
}
