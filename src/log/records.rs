//! Records in columns, on their way into the log and out of it.

use crate::codec::{CodecError, Reader, put_block, put_varint};
use crate::error::{Error, Result};
use crate::format::FormatSpec;
use crate::log::blank;
use crate::log::numbers::Numbers;
use crate::types::{AppendTime, PartitionId, Position, TopicId};
use arrow::array::{Array, AsArray as _, BinaryArray, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take, take_record_batch};
use arrow::datatypes::{ArrowNativeType, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Where a record goes within its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioning {
    /// This partition.
    Fixed(PartitionId),
    /// By murmur2 of the key as Kafka does; records without a key go round robin by batch.
    ByKey,
}

/// One header of a record: a name and bytes (null is not empty).
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// One record on its way into the log.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Milliseconds since the epoch; any value is a valid time, `None` means no timestamp.
    pub timestamp_ms: Option<i64>,
    /// Null is not empty.
    pub key: Option<&'a [u8]>,
    /// Null is not empty.
    pub value: Option<&'a [u8]>,
    /// In order; names may repeat.
    pub headers: &'a [Header<'a>],
}

/// How the values of a topic become columns: a format, the declared columns, and which of them are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueColumns {
    /// The format and its options.
    pub format: FormatSpec,
    /// All columns of a value.
    pub declared: SchemaRef,
    /// Places in `declared` of the columns that are used, ascending.
    pub used: Vec<usize>,
}

/// Which parts of a topic's records a reader needs. Parts that are not needed may be null in what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Keys.
    pub keys: bool,
    /// Values as bytes.
    pub values: bool,
    /// Headers.
    pub headers: bool,
    /// Values as columns: where sealed records have them decoded in exactly this way, [`LogBatch::decoded`] holds them, and
    /// values need not be read; everywhere else values come as bytes.
    pub columns: Option<Arc<ValueColumns>>,
}

impl Projection {
    /// Everything, as bytes.
    pub const ALL: Projection = Projection { keys: true, values: true, headers: true, columns: None };
}

/// Values that were decoded when their records were sealed.
#[derive(Debug, Clone)]
pub struct DecodedValues {
    /// The columns asked for, in order, one row for each row of the log batch; null in rows that did not decode.
    pub columns: RecordBatch,
    /// Rows that did not decode, ascending: the batch's values hold their bytes.
    pub undecoded: Vec<u32>,
}

/// Records of one topic in log order, never empty.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// The topic.
    pub topic: TopicId,
    /// Position of each row, rising.
    pub positions: Numbers<u64>,
    /// Append time of each row in us, never falling.
    pub append_times: Numbers<i64>,
    /// Partition of each row.
    pub partitions: ScalarBuffer<u32>,
    /// Offset of each row within its partition.
    pub offsets: Numbers<u64>,
    /// Timestamp in ms of each row, nullable.
    pub timestamps: Int64Array,
    /// Keys, nullable.
    pub keys: BinaryArray,
    /// Values, nullable.
    pub values: BinaryArray,
    /// Headers of each row in the form of [`encode_headers`]; empty bytes for a row without headers.
    pub headers: BinaryArray,
    /// Values as columns, if the reader asked for them and these records have them.
    pub decoded: Option<DecodedValues>,
}

impl LogBatch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of values and decoded columns, and a few for the rest of each row: what it takes to hold it, roughly.
    pub fn byte_len(&self) -> usize {
        let offsets = self.values.value_offsets();
        let values = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first);
        let decoded = self.decoded.as_ref().map_or(0, |decoded| decoded.columns.num_columns());
        values.unsigned_abs() as usize + (16 + 8 * decoded) * self.len()
    }

    /// Position of the first row.
    pub fn first_position(&self) -> Position {
        Position(self.positions.first().unwrap_or_default())
    }

    /// The position after the last row.
    pub fn end(&self) -> Position {
        Position(self.positions.last().map_or(0, |last| last + 1))
    }

    /// Append time of the last row.
    pub fn last_append_time(&self) -> AppendTime {
        self.append_times.last().map_or(AppendTime::MIN, AppendTime)
    }

    /// True without rows; readers never hand out such a batch.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Timestamp of a row in ms.
    pub fn timestamp_ms(&self, row: usize) -> Option<i64> {
        self.timestamps.is_valid(row).then(|| self.timestamps.value(row))
    }

    /// Rows `from..to`, sharing the bytes.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> LogBatch {
        let len = to - from;
        let inside = |row: &u32| (from..to).contains(&(*row as usize));
        let decoded = self.decoded.as_ref().map(|decoded| DecodedValues {
            columns: decoded.columns.slice(from, len),
            undecoded: decoded.undecoded.iter().copied().filter(inside).map(|row| row - from as u32).collect(),
        });
        LogBatch {
            topic: self.topic,
            positions: self.positions.slice(from, len),
            append_times: self.append_times.slice(from, len),
            partitions: self.partitions.slice(from, len),
            offsets: self.offsets.slice(from, len),
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: self.values.slice(from, len),
            headers: self.headers.slice(from, len),
            decoded,
        }
    }

    /// These rows, copied.
    pub(crate) fn take(&self, rows: &[u32]) -> Result<LogBatch> {
        let places = UInt32Array::from(rows.to_vec());
        let column = |array: &dyn Array| take(array, &places, None).map_err(cut_error);
        let decoded = self.decoded.as_ref().map(|decoded| -> Result<DecodedValues> {
            let undecoded = |(_, row): &(u32, &u32)| decoded.undecoded.binary_search(row).is_ok();
            Ok(DecodedValues {
                columns: take_record_batch(&decoded.columns, &places).map_err(cut_error)?,
                undecoded: (0..).zip(rows).filter(undecoded).map(|(place, _)| place).collect(),
            })
        });
        Ok(LogBatch {
            topic: self.topic,
            positions: pick(&self.positions, rows).into(),
            append_times: pick(&self.append_times, rows).into(),
            partitions: pick(&self.partitions, rows),
            offsets: pick(&self.offsets, rows).into(),
            timestamps: column(&self.timestamps)?.as_primitive().clone(),
            keys: column(&self.keys)?.as_binary().clone(),
            values: column(&self.values)?.as_binary().clone(),
            headers: column(&self.headers)?.as_binary().clone(),
            decoded: decoded.transpose()?,
        })
    }

    /// Batches of one topic, none of them decoded, one behind the other; `None` if there are none.
    pub(crate) fn concat(batches: Vec<LogBatch>) -> Result<Option<LogBatch>> {
        let Some(first) = batches.first() else { return Ok(None) };
        if batches.len() == 1 {
            return Ok(batches.into_iter().next());
        }
        let column = |column: fn(&LogBatch) -> &dyn Array| {
            concat(&batches.iter().map(column).collect::<Vec<_>>()).map_err(cut_error)
        };
        Ok(Some(LogBatch {
            topic: first.topic,
            positions: Numbers::concat(batches.iter().map(|batch| &batch.positions)),
            append_times: Numbers::concat(batches.iter().map(|batch| &batch.append_times)),
            partitions: joined_partitions(&batches),
            offsets: Numbers::concat(batches.iter().map(|batch| &batch.offsets)),
            timestamps: column(|batch| &batch.timestamps)?.as_primitive().clone(),
            keys: column(|batch| &batch.keys)?.as_binary().clone(),
            values: column(|batch| &batch.values)?.as_binary().clone(),
            headers: column(|batch| &batch.headers)?.as_binary().clone(),
            decoded: None,
        }))
    }

    /// Bytes of memory that it takes if it shares none of them but blank columns.
    pub(crate) fn memory(&self) -> usize {
        let bytes: usize = [&self.keys, &self.values, &self.headers].into_iter().map(blank::memory_of_bytes).sum();
        let arrays = bytes + blank::memory_of_timestamps(&self.timestamps);
        let decoded = self.decoded.as_ref().map_or(0, |decoded| decoded.columns.get_array_memory_size());
        28 * self.len() + arrays + decoded
    }

    /// The rows with a position of at least `from` and below `to`, sharing the bytes; `None` if there are none.
    pub fn between(&self, from: Position, to: Position) -> Option<LogBatch> {
        let first = self.positions.partition_point(|position| position < from.0);
        let end = self.positions.partition_point(|position| position < to.0);
        match (first, end) {
            (0, end) if end == self.len() => Some(self.clone()),
            (first, end) if first < end => Some(self.slice(first, end)),
            _ => None,
        }
    }
}

/// The partitions of batches, one behind the other; those of a single one are shared.
pub(crate) fn joined_partitions(batches: &[LogBatch]) -> ScalarBuffer<u32> {
    if let [one] = batches {
        return one.partitions.clone();
    }
    let mut all = Vec::with_capacity(batches.iter().map(LogBatch::len).sum());
    batches.iter().for_each(|batch| all.extend_from_slice(&batch.partitions));
    all.into()
}

fn pick<T: ArrowNativeType>(values: &ScalarBuffer<T>, rows: &[u32]) -> ScalarBuffer<T> {
    rows.iter().map(|row| values.get(*row as usize).copied().unwrap_or_default()).collect()
}

fn cut_error(cause: ArrowError) -> Error {
    Error::internal(format!("cutting columns of records: {cause}"))
}

/// Nullable byte strings, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByteColumn {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<bool>,
    null_count: usize,
}

impl ByteColumn {
    /// Appends one value. A column holds less than 4 GiB: batches are cut far below that.
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push(u32::try_from(self.bytes.len()).expect("a batch is cut far below 4 GiB"));
        self.nulls.push(value.is_none());
        self.null_count += usize::from(value.is_none());
    }

    /// The value of a row; `None` is null.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let from = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        (!self.nulls[row]).then(|| &self.bytes[from..self.ends[row] as usize])
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All bytes, in row order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// End of each row in [`bytes`](Self::bytes).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Number of null rows.
    pub fn null_count(&self) -> usize {
        self.null_count
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.nulls.clear();
        self.null_count = 0;
    }
}

/// Records of one topic on their way into the log, in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordColumns {
    /// Where each row goes; `None` is [`Partitioning::ByKey`].
    pub partitions: Vec<Option<u32>>,
    /// Milliseconds, nullable.
    pub timestamps_ms: Vec<Option<i64>>,
    /// Keys.
    pub keys: ByteColumn,
    /// Values.
    pub values: ByteColumn,
    /// Headers in the form of [`encode_headers`]; empty for a row without.
    pub headers: ByteColumn,
}

impl RecordColumns {
    /// Appends a record.
    pub fn push(&mut self, to: Partitioning, record: &Record<'_>) {
        let mut headers = Vec::new();
        encode_headers(record.headers, &mut headers);
        self.push_encoded(to, record.timestamp_ms, record.key, record.value, &headers);
    }

    /// Appends a record whose headers are encoded already.
    pub fn push_encoded(
        &mut self,
        to: Partitioning,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) {
        self.partitions.push(match to {
            Partitioning::Fixed(partition) => Some(partition.0),
            Partitioning::ByKey => None,
        });
        self.timestamps_ms.push(timestamp_ms);
        self.keys.push(key);
        self.values.push(value);
        self.headers.push(Some(headers));
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.timestamps_ms.len()
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.timestamps_ms.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn byte_len(&self) -> usize {
        self.keys.bytes().len() + self.values.bytes().len() + self.headers.bytes().len()
    }

    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.partitions.clear();
        self.timestamps_ms.clear();
        self.keys.clear();
        self.values.clear();
        self.headers.clear();
    }
}

/// Appends headers as: for each, name (varint length, UTF-8 bytes), then a varint that is 0 for null and else 1 + length of
/// the value, then the value. No headers are no bytes.
pub fn encode_headers(headers: &[Header<'_>], out: &mut Vec<u8>) {
    for (name, value) in headers {
        put_block(out, name.as_bytes());
        match value {
            None => put_varint(out, 0),
            Some(value) => {
                put_varint(out, 1 + value.len() as u64);
                out.extend_from_slice(value);
            }
        }
    }
}

/// The headers written by [`encode_headers`].
pub fn decode_headers(bytes: &[u8]) -> Result<Vec<Header<'_>>, CodecError> {
    let mut reader = Reader::new(bytes);
    let mut headers = Vec::new();
    while reader.left() > 0 {
        let name = reader.block("header name")?;
        let name = std::str::from_utf8(name)
            .map_err(|e| CodecError::Invalid { what: "header name", value: e.valid_up_to() as u64 })?;
        let value = match reader.varint("header value length")? {
            0 => None,
            n => {
                let len =
                    usize::try_from(n - 1).map_err(|_| CodecError::Invalid { what: "header length", value: n })?;
                Some(reader.bytes(len, "header value")?)
            }
        };
        headers.push((name, value));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_null_is_not_empty() {
        let headers: &[Header<'_>] =
            &[("revision", Some(b"0")), ("empty", Some(b"")), ("null", None), ("revision", Some(b"1"))];
        let mut bytes = Vec::new();
        encode_headers(headers, &mut bytes);
        assert_eq!(decode_headers(&bytes).as_deref(), Ok(headers));
        assert!(decode_headers(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn columns_keep_null_and_empty_apart() {
        let mut columns = RecordColumns::default();
        columns
            .push(Partitioning::ByKey, &Record { timestamp_ms: Some(-1), key: None, value: Some(b""), headers: &[] });
        columns.push(
            Partitioning::Fixed(PartitionId(2)),
            &Record { timestamp_ms: None, key: Some(b"k"), value: None, headers: &[] },
        );
        assert_eq!((columns.keys.get(0), columns.values.get(0)), (None, Some(&b""[..])));
        assert_eq!((columns.keys.get(1), columns.values.get(1)), (Some(&b"k"[..]), None));
        assert_eq!(columns.partitions, [None, Some(2)]);
    }
}
