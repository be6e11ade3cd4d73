//! Records in columns, on their way into the log and out of it.

use crate::codec::{CodecError, Reader, put_block, put_varint};
use crate::types::{AppendTime, PartitionId, Position, TopicId};
use arrow::array::{Array, BinaryArray, Int64Array};

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

/// Records of one topic in log order, as read from one frame: at most one frame's worth, never empty.
/// Row `i` has position `first_position + i`.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// The topic.
    pub topic: TopicId,
    /// Position of row 0; the rows are consecutive.
    pub first_position: Position,
    /// Append time of all rows.
    pub append_time: AppendTime,
    /// Partition of each row.
    pub partitions: Vec<u32>,
    /// Offset of each row within its partition.
    pub offsets: Vec<u64>,
    /// Timestamp in ms of each row, nullable.
    pub timestamps: Int64Array,
    /// Keys, nullable.
    pub keys: BinaryArray,
    /// Values, nullable.
    pub values: BinaryArray,
    /// Headers of each row in the form of [`encode_headers`]; empty bytes for a row without headers.
    pub headers: BinaryArray,
}

impl LogBatch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
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
        LogBatch {
            topic: self.topic,
            first_position: self.first_position.plus(from as u64),
            append_time: self.append_time,
            partitions: self.partitions[from..to].to_vec(),
            offsets: self.offsets[from..to].to_vec(),
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: self.values.slice(from, len),
            headers: self.headers.slice(from, len),
        }
    }
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
