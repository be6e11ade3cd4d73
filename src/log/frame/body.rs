//! The body: one topic's records of a frame, column by column, in the shape of Arrow arrays.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | width of a partition number: 0 (all rows are in the partition of the directory's first run), 1, 2 or 4 |
//! | 1 each | kind of timestamps, keys, values, headers: 0 all null, 1 no nulls, 2 with a validity bitmap, 3 all empty |
//! | 3 | 0 |
//! | | partitions: `width` bytes per row |
//! | | timestamps, kinds 1 and 2: the bitmap (kind 2), then 8 bytes per row, 0 where null |
//! | | keys, values, headers, kinds 1 and 2: the bitmap (kind 2), then rows + 1 offsets of 4 bytes from 0 on, then the bytes |
//!
//! Every piece is padded with zeros to a multiple of 8. A bitmap has bit `row % 8` of byte `row / 8` set where not null.

use super::directory::TopicEntry;
use super::{Codec, narrow, pad, padded};
use crate::codec::{CodecError, Reader};
use crate::log::numbers::Numbers;
use crate::log::records::{ByteColumn, LogBatch, RecordColumns};
use crate::types::{AppendTime, Position};
use arrow::array::{BinaryArray, Int64Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

const HEADER_LEN: usize = 8;
const ALL_NULL: u8 = 0;
const NO_NULLS: u8 = 1;
const SOME_NULLS: u8 = 2;
const ALL_EMPTY: u8 = 3;

/// Records of one request for one topic, with their partitions chosen.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Partition of each row.
    pub partitions: Vec<u32>,
    /// The rows; their own `partitions` column is not looked at.
    pub columns: RecordColumns,
}

/// Bytes that rows take in a body at most, before compression.
pub(crate) fn bound(rows: usize, bytes: usize) -> usize {
    HEADER_LEN + 5 * 16 + rows * (4 + 8 + 3 * 4 + 1) + bytes
}

/// Appends the plain body of rows that come in parts.
pub fn encode(parts: &[&Rows], out: &mut Vec<u8>) {
    let rows: usize = parts.iter().map(|part| part.partitions.len()).sum();
    let widest = parts.iter().flat_map(|part| &part.partitions).copied().max().unwrap_or(0);
    let first = parts.first().and_then(|part| part.partitions.first()).copied().unwrap_or(0);
    let same = parts.iter().flat_map(|part| &part.partitions).all(|partition| *partition == first);
    let width: u8 = match widest {
        _ if same => 0,
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    let keys: Vec<&ByteColumn> = parts.iter().map(|part| &part.columns.keys).collect();
    let values: Vec<&ByteColumn> = parts.iter().map(|part| &part.columns.values).collect();
    let headers: Vec<&ByteColumn> = parts.iter().map(|part| &part.columns.headers).collect();
    let timestamps: Vec<&[Option<i64>]> = parts.iter().map(|part| &part.columns.timestamps_ms[..]).collect();
    let timestamps_kind = kind(rows, timestamps.iter().flat_map(|part| part.iter()).filter(|t| t.is_none()).count());
    let kinds = [bytes_kind(rows, &keys), bytes_kind(rows, &values), bytes_kind(rows, &headers)];
    out.extend_from_slice(&[width, timestamps_kind, kinds[0], kinds[1], kinds[2], 0, 0, 0]);
    for part in parts.iter().filter(|_| width > 0) {
        for partition in &part.partitions {
            out.extend_from_slice(&partition.to_le_bytes()[..usize::from(width)]);
        }
    }
    pad(out);
    encode_timestamps(timestamps_kind, &timestamps, out);
    for (kind, column) in kinds.into_iter().zip([keys, values, headers]) {
        encode_bytes(kind, &column, out);
    }
}

fn kind(rows: usize, nulls: usize) -> u8 {
    match nulls {
        0 => NO_NULLS,
        n if n == rows => ALL_NULL,
        _ => SOME_NULLS,
    }
}

fn bytes_kind(rows: usize, parts: &[&ByteColumn]) -> u8 {
    match kind(rows, parts.iter().map(|part| part.null_count()).sum()) {
        NO_NULLS if parts.iter().all(|part| part.bytes().is_empty()) => ALL_EMPTY,
        kind => kind,
    }
}

fn encode_bitmap(valid: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    let mut byte = 0u8;
    let mut filled = 0;
    for valid in valid {
        byte |= u8::from(valid) << filled;
        filled += 1;
        if filled == 8 {
            out.push(byte);
            (byte, filled) = (0, 0);
        }
    }
    if filled > 0 {
        out.push(byte);
    }
    pad(out);
}

fn encode_timestamps(kind: u8, parts: &[&[Option<i64>]], out: &mut Vec<u8>) {
    if kind == ALL_NULL {
        return;
    }
    if kind == SOME_NULLS {
        encode_bitmap(parts.iter().flat_map(|part| part.iter()).map(Option::is_some), out);
    }
    for timestamp in parts.iter().flat_map(|part| part.iter()) {
        out.extend_from_slice(&timestamp.unwrap_or_default().to_le_bytes());
    }
}

fn encode_bytes(kind: u8, parts: &[&ByteColumn], out: &mut Vec<u8>) {
    if kind == ALL_NULL || kind == ALL_EMPTY {
        return;
    }
    if kind == SOME_NULLS {
        let rows = parts.iter().flat_map(|part| (0..part.len()).map(|row| part.get(row).is_some()));
        encode_bitmap(rows, out);
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    let mut before = 0;
    for part in parts {
        for end in part.ends() {
            out.extend_from_slice(&(before + end).to_le_bytes());
        }
        before += narrow(part.bytes().len());
    }
    pad(out);
    for part in parts {
        out.extend_from_slice(part.bytes());
    }
    pad(out);
}

/// Compresses a plain body; `None` if that does not make it smaller.
pub fn compress(codec: Codec, plain: &[u8]) -> Option<Vec<u8>> {
    let packed = match codec {
        Codec::Plain => return None,
        Codec::Lz4 => lz4_flex::block::compress(plain),
        Codec::Zstd => zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL).ok()?,
    };
    (packed.len() < plain.len()).then_some(packed)
}

/// The plain body of stored bytes: shared if it is stored plain, else decompressed into exactly the length that the directory
/// gives.
pub fn decompress(codec: Codec, stored: &Buffer, plain_len: usize) -> Result<Buffer, CodecError> {
    let bad = CodecError::Invalid { what: "compressed body", value: plain_len as u64 };
    let mut plain = match codec {
        Codec::Plain => return Ok(stored.clone()),
        Codec::Lz4 | Codec::Zstd => arrow::buffer::MutableBuffer::from_len_zeroed(plain_len),
    };
    let filled = match codec {
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored.as_slice(), plain.as_slice_mut()).ok(),
        _ => lz4_flex::block::decompress_into(stored.as_slice(), plain.as_slice_mut()).ok(),
    };
    if filled == Some(plain_len) { Ok(plain.into()) } else { Err(bad) }
}

/// Reads pieces of a body without copying them.
struct Pieces<'a> {
    body: &'a Buffer,
    at: usize,
}

impl Pieces<'_> {
    /// The next `len` bytes, padding skipped.
    fn take(&mut self, len: usize, what: &'static str) -> Result<Buffer, CodecError> {
        let left = self.body.len() - self.at;
        if len > left || padded(len) > left {
            return Err(CodecError::Short { what, at: self.at, needed: len, left });
        }
        let piece = self.body.slice_with_length(self.at, len);
        self.at += padded(len);
        Ok(piece)
    }

    fn nulls(&mut self, kind: u8, rows: usize, what: &'static str) -> Result<Option<NullBuffer>, CodecError> {
        if kind != SOME_NULLS {
            return Ok(None);
        }
        let bits = self.take(rows.div_ceil(8), what)?;
        Ok(Some(NullBuffer::new(BooleanBuffer::new(bits, 0, rows))))
    }

    fn timestamps(&mut self, kind: u8, rows: usize) -> Result<Int64Array, CodecError> {
        let what = "timestamps";
        match kind {
            ALL_NULL => Ok(Int64Array::new_null(rows)),
            NO_NULLS | SOME_NULLS => {
                let nulls = self.nulls(kind, rows, what)?;
                let values = ScalarBuffer::<i64>::from(self.take(rows * 8, what)?);
                Int64Array::try_new(values, nulls).map_err(|_| CodecError::Invalid { what, value: rows as u64 })
            }
            other => Err(CodecError::Invalid { what, value: u64::from(other) }),
        }
    }

    fn bytes(&mut self, kind: u8, rows: usize, what: &'static str) -> Result<BinaryArray, CodecError> {
        match kind {
            ALL_NULL => Ok(BinaryArray::new_null(rows)),
            ALL_EMPTY => {
                let offsets = OffsetBuffer::new_zeroed(rows);
                BinaryArray::try_new(offsets, Buffer::default(), None)
                    .map_err(|_| CodecError::Invalid { what, value: rows as u64 })
            }
            NO_NULLS | SOME_NULLS => {
                let nulls = self.nulls(kind, rows, what)?;
                let offsets = ScalarBuffer::<i32>::from(self.take((rows + 1) * 4, what)?);
                let len = *offsets.last().unwrap_or(&-1);
                let ordered = offsets.first() == Some(&0) && offsets.windows(2).all(|pair| pair[0] <= pair[1]);
                let len = usize::try_from(len)
                    .ok()
                    .filter(|_| ordered)
                    .ok_or(CodecError::Invalid { what, value: rows as u64 })?;
                let values = self.take(len, what)?;
                BinaryArray::try_new(OffsetBuffer::new(offsets), values, nulls)
                    .map_err(|_| CodecError::Invalid { what, value: rows as u64 })
            }
            other => Err(CodecError::Invalid { what, value: u64::from(other) }),
        }
    }
}

/// Makes the records of a plain body, without copying keys, values and headers. `first_position` is that of row 0.
pub fn decode(
    body: &Buffer,
    entry: &TopicEntry,
    first_position: Position,
    append_time: AppendTime,
) -> Result<LogBatch, CodecError> {
    let aligned = body.as_ptr().align_offset(8) == 0;
    let copy = if aligned { None } else { Some(Buffer::from_slice_ref(body.as_slice())) };
    let body = copy.as_ref().unwrap_or(body);
    let rows = entry.records as usize;
    let mut kinds = Reader::new(body.as_slice());
    let width = kinds.u8("partition width")?;
    let kinds = kinds.bytes(4, "column kinds")?;
    let mut pieces = Pieces { body, at: 0 };
    pieces.take(HEADER_LEN, "body header")?;
    let partitions = decode_partitions(&mut pieces, width, entry)?;
    let offsets = offsets(&partitions, entry)?;
    let [timestamps, keys, values, headers] = *kinds else {
        return Err(CodecError::Invalid { what: "column kinds", value: kinds.len() as u64 });
    };
    let batch = LogBatch {
        topic: entry.topic,
        positions: Numbers::rising([(first_position.0, rows)]),
        append_times: Numbers::equal([(append_time.0, rows)]),
        partitions: partitions.into(),
        offsets,
        timestamps: pieces.timestamps(timestamps, rows)?,
        keys: pieces.bytes(keys, rows, "keys")?,
        values: pieces.bytes(values, rows, "values")?,
        headers: pieces.bytes(headers, rows, "headers")?,
        decoded: None,
    };
    if pieces.at != body.len() {
        return Err(CodecError::Invalid { what: "bytes after the body", value: (body.len() - pieces.at) as u64 });
    }
    Ok(batch)
}

fn decode_partitions(pieces: &mut Pieces<'_>, width: u8, entry: &TopicEntry) -> Result<Vec<u32>, CodecError> {
    let rows = entry.records as usize;
    let what = "partitions";
    if width == 0 {
        let first = entry.runs.first().ok_or(CodecError::Invalid { what, value: 0 })?;
        return Ok(vec![first.partition.0; rows]);
    }
    if !matches!(width, 1 | 2 | 4) {
        return Err(CodecError::Invalid { what: "partition width", value: u64::from(width) });
    }
    let bytes = pieces.take(rows * usize::from(width), what)?;
    let number = |bytes: &[u8]| {
        let mut wide = [0; 4];
        wide[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(wide)
    };
    Ok(bytes.as_slice().chunks_exact(usize::from(width)).map(number).collect())
}

/// The offset of each row: rows of a partition take its runs' offsets in order.
fn offsets(partitions: &[u32], entry: &TopicEntry) -> Result<Numbers<u64>, CodecError> {
    if let [run] = &entry.runs[..] {
        if partitions.iter().any(|partition| *partition != run.partition.0) {
            return Err(CodecError::Invalid { what: "partition of a row", value: u64::from(run.partition.0) });
        }
        return Ok(Numbers::rising([(run.base.0, partitions.len())]));
    }
    // Runs are few and in order of partition: a cursor per partition finds the run of the next row.
    let mut cursors: Vec<(u32, usize, u32)> = Vec::new();
    for (index, run) in entry.runs.iter().enumerate() {
        if cursors.last().is_none_or(|(partition, ..)| *partition != run.partition.0) {
            cursors.push((run.partition.0, index, 0));
        }
    }
    let mut offsets = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let bad = CodecError::Invalid { what: "partition of a row", value: u64::from(*partition) };
        let found = cursors.binary_search_by_key(partition, |(partition, ..)| *partition).map_err(|_| bad.clone())?;
        let (_, index, used) = cursors.get_mut(found).ok_or_else(|| bad.clone())?;
        let mut run = entry.runs.get(*index).ok_or_else(|| bad.clone())?;
        if *used == run.count {
            (*index, *used) = (*index + 1, 0);
            run = entry.runs.get(*index).filter(|run| run.partition.0 == *partition).ok_or(bad)?;
        }
        offsets.push(run.base.0 + u64::from(*used));
        *used += 1;
    }
    Ok(offsets.into())
}

#[cfg(test)]
mod tests;
