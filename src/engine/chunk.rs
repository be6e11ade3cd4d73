//! Log batches put together or cut into pieces of a size that is good for columns. A chunk may span many append times.

use crate::error::{Error, Result};
use crate::log::records::LogBatch;
use arrow::array::{Array, BinaryArray, Int64Array};
use arrow::compute::concat;

/// Rows of a chunk to aim for: large enough to spread the cost of a call, small enough for the caches.
const TARGET_ROWS: usize = 8192;
/// Bytes of values beyond which nothing is added to a chunk (offsets within a column are 32 bits).
const TARGET_BYTES: usize = 16 << 20;

/// Records of one source in log order.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// Position of each row.
    pub positions: Vec<u64>,
    /// Append time of each row, never falling.
    pub append_us: Vec<i64>,
    /// Partition of each row.
    pub partitions: Vec<u32>,
    /// Offset of each row within its partition.
    pub offsets: Vec<u64>,
    /// Record timestamps in ms.
    pub timestamps: Int64Array,
    /// Keys.
    pub keys: BinaryArray,
    /// Values.
    pub values: BinaryArray,
    /// Encoded headers.
    pub headers: BinaryArray,
}

impl Chunk {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    fn of(batches: &[LogBatch]) -> Result<Chunk> {
        let rows = batches.iter().map(LogBatch::len).sum();
        let mut positions = Vec::with_capacity(rows);
        let mut append_us = Vec::with_capacity(rows);
        let (mut partitions, mut offsets) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for batch in batches {
            positions.extend((batch.first_position.0..).take(batch.len()));
            append_us.resize(positions.len(), batch.append_time.0);
            partitions.extend_from_slice(&batch.partitions);
            offsets.extend_from_slice(&batch.offsets);
        }
        Ok(Chunk {
            positions,
            append_us,
            partitions,
            offsets,
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

/// The batches of one source, in order, as chunks.
pub(super) fn chunks(batches: Vec<LogBatch>) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let (mut gathered, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for batch in batches {
        let (batch_rows, batch_bytes) = (batch.len(), value_bytes(&batch.values));
        if rows > 0 && (rows + batch_rows > TARGET_ROWS || bytes + batch_bytes > TARGET_BYTES) {
            chunks.push(Chunk::of(&gathered)?);
            gathered.clear();
            (rows, bytes) = (0, 0);
        }
        if batch_rows > 2 * TARGET_ROWS {
            for from in (0..batch_rows).step_by(TARGET_ROWS) {
                chunks.push(Chunk::of(&[batch.slice(from, (from + TARGET_ROWS).min(batch_rows))])?);
            }
        } else if batch_rows > 0 {
            rows += batch_rows;
            bytes += batch_bytes;
            gathered.push(batch);
        }
    }
    if rows > 0 {
        chunks.push(Chunk::of(&gathered)?);
    }
    Ok(chunks)
}

fn value_bytes(values: &BinaryArray) -> usize {
    let offsets = values.value_offsets();
    let span = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first);
    usize::try_from(span).unwrap_or(0)
}
