//! Group keys as bytes: the canonical encoding, a table that numbers keys by first arrival, and the way back to columns.
//!
//! Canonical encoding of a key tuple. A tuple of exactly one STRING column is the string's UTF-8 bytes, or the single byte
//! 0xFF (which no UTF-8 text contains) for NULL. Any other tuple is its columns one after the other, each as 0x00 for NULL or
//! 0x01 and the value: fixed-width types as their little-endian bytes, BOOLEAN as one byte, STRING and BYTES as a varint
//! length and the bytes. Equal tuples have equal bytes and different tuples different ones. XXH64 (seed 0) of this encoding
//! orders the output records of one window, so the encoding is part of the output format and never changes.

use crate::codec::{Reader, put_block};
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, NullBufferBuilder, StringArray, StringBuilder, make_array,
};
use arrow::array::{ArrayData, BooleanArray};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use std::sync::Arc;

const NULL_TEXT: &[u8] = &[0xFF];

/// Numbers keys by first arrival, from 0.
#[derive(Debug, Clone, Default)]
pub struct KeyTable {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// A key: what is compared first lies together.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    /// End of its bytes, which begin where those of the key before end.
    end: usize,
}

impl KeyTable {
    /// The number of a key, new or not.
    #[inline]
    pub fn intern(&mut self, hash: u64, key: &[u8]) -> u32 {
        let KeyTable { index, entries, bytes } = self;
        let same = |id: &u32| entries[*id as usize].hash == hash && slice_of(bytes, entries, *id) == key;
        if let Some(id) = index.find(hash, same) {
            return *id;
        }
        let id = u32::try_from(entries.len()).expect("fewer than 4 billion keys fit into memory");
        bytes.extend_from_slice(key);
        entries.push(Entry { hash, end: bytes.len() });
        index.insert_unique(hash, id, |id| entries[*id as usize].hash);
        id
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The canonical bytes of a key.
    pub fn key(&self, id: u32) -> &[u8] {
        slice_of(&self.bytes, &self.entries, id)
    }

    /// XXH64 of a key.
    pub fn hash(&self, id: u32) -> u64 {
        self.entries[id as usize].hash
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>() + self.index.capacity() * 5
    }
}

#[inline]
fn slice_of<'a>(bytes: &'a [u8], entries: &[Entry], id: u32) -> &'a [u8] {
    let id = id as usize;
    let from = if id == 0 { 0 } else { entries[id - 1].end };
    &bytes[from..entries[id].end]
}

/// How a column's values become bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ColumnCodec {
    Text,
    Bytes,
    Boolean,
    Fixed(usize),
}

/// Turns columns into canonical keys and back.
#[derive(Debug, Clone)]
pub struct KeyCodec {
    types: Vec<DataType>,
    columns: Vec<ColumnCodec>,
}

/// The keys of a batch.
pub enum KeyRows {
    /// No columns: every row has the empty key.
    None,
    /// One column of fixed width up to 8 bytes: the value of each row in the low `width` bytes.
    Words {
        /// By row.
        values: ScalarBuffer<u64>,
        /// Rows without a value, if there are any.
        nulls: Option<NullBuffer>,
        /// Bytes of a value.
        width: usize,
    },
    /// Canonical bytes.
    Bytes(ByteRows),
}

/// The canonical bytes of a batch's keys.
pub enum ByteRows {
    /// One STRING column.
    Text(StringArray),
    /// Encoded: all bytes, and the end of each row.
    Encoded(Vec<u8>, Vec<usize>),
}

impl KeyCodec {
    /// A codec for tuples of these types, or an error that names a type that cannot be a key.
    pub fn new(types: Vec<DataType>) -> Result<KeyCodec> {
        if cfg!(target_endian = "big") {
            return Err(Error::internal("key encoding copies columns in memory order, which has to be little-endian"));
        }
        let columns = types.iter().map(|data_type| match data_type {
            DataType::Utf8 => Ok(ColumnCodec::Text),
            DataType::Binary => Ok(ColumnCodec::Bytes),
            DataType::Boolean => Ok(ColumnCodec::Boolean),
            other => other.primitive_width().map(ColumnCodec::Fixed).ok_or_else(|| {
                Error::input(format!("values of type {other} cannot be compared for grouping or DISTINCT"))
                    .with_hint("group by the fields of a ROW instead of the ROW itself, or cast to STRING")
            }),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(KeyCodec { types, columns })
    }

    /// The keys of all rows of `columns`, which have the codec's types.
    pub fn encode(&self, columns: &[ArrayRef]) -> KeyRows {
        let Some(first) = columns.first() else { return KeyRows::None };
        if let Some(width) = self.word_width() {
            let nulls = first.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
            return KeyRows::Words { values: words(first, width), nulls, width };
        }
        KeyRows::Bytes(self.encode_bytes(columns))
    }

    /// The keys of all rows as bytes.
    pub fn encode_bytes(&self, columns: &[ArrayRef]) -> ByteRows {
        if let ([ColumnCodec::Text], [column]) = (&self.columns[..], columns) {
            return ByteRows::Text(column.as_string::<i32>().clone());
        }
        let readers: Vec<ColumnReader<'_>> =
            self.columns.iter().zip(columns).map(|(codec, array)| ColumnReader::new(codec, array)).collect();
        let mut bytes = Vec::new();
        let ends = (0..columns.first().map_or(0, |column| column.len())).map(|row| {
            readers.iter().for_each(|reader| reader.put(row, &mut bytes));
            bytes.len()
        });
        let ends = ends.collect();
        ByteRows::Encoded(bytes, ends)
    }

    /// Bytes of a key's value, if keys are one column of fixed width up to 8 bytes.
    pub fn word_width(&self) -> Option<usize> {
        match self.columns[..] {
            [ColumnCodec::Fixed(width @ (1 | 2 | 4 | 8))] => Some(width),
            _ => None,
        }
    }

    /// The columns of these keys, in order. The keys must come from [`KeyCodec::encode`] of the same types.
    pub fn decode<'a>(&self, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Vec<ArrayRef>> {
        if self.columns == [ColumnCodec::Text] {
            let texts: StringArray = keys.map(|key| (key != NULL_TEXT).then(|| text(key))).collect();
            return Ok(vec![Arc::new(texts)]);
        }
        let mut readers: Vec<Reader<'a>> = keys.map(Reader::new).collect();
        let decoded = self.columns.iter().zip(&self.types).map(|(codec, data_type)| {
            decode_column(codec, data_type, &mut readers).map_err(|e| Error::internal(format!("a group key: {e}")))
        });
        decoded.collect()
    }
}

/// The values of a column of 1, 2, 4 or 8 bytes each as the low bytes of words.
fn words(array: &ArrayRef, width: usize) -> ScalarBuffer<u64> {
    let data = array.to_data();
    let (buffer, from, len) = (&data.buffers()[0], data.offset(), data.len());
    match width {
        8 => ScalarBuffer::new(buffer.clone(), from, len),
        4 => ScalarBuffer::<u32>::new(buffer.clone(), from, len).iter().map(|word| u64::from(*word)).collect(),
        2 => ScalarBuffer::<u16>::new(buffer.clone(), from, len).iter().map(|word| u64::from(*word)).collect(),
        _ => ScalarBuffer::<u8>::new(buffer.clone(), from, len).iter().map(|word| u64::from(*word)).collect(),
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("keys of STRING columns hold UTF-8")
}

/// A column, ready to be read row by row.
struct ColumnReader<'a> {
    array: &'a ArrayRef,
    kind: ReaderKind<'a>,
}

enum ReaderKind<'a> {
    Text(&'a StringArray),
    Bytes(&'a arrow::array::BinaryArray),
    Boolean(&'a BooleanArray),
    Fixed { values: Buffer, from: usize, width: usize },
}

impl<'a> ColumnReader<'a> {
    fn new(codec: &ColumnCodec, array: &'a ArrayRef) -> Self {
        let kind = match codec {
            ColumnCodec::Text => ReaderKind::Text(array.as_string::<i32>()),
            ColumnCodec::Bytes => ReaderKind::Bytes(array.as_binary::<i32>()),
            ColumnCodec::Boolean => ReaderKind::Boolean(array.as_boolean()),
            ColumnCodec::Fixed(width) => {
                let data = array.to_data();
                ReaderKind::Fixed { values: data.buffers()[0].clone(), from: data.offset() * width, width: *width }
            }
        };
        ColumnReader { array, kind }
    }

    #[inline]
    fn put(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match &self.kind {
            ReaderKind::Text(array) => put_block(out, array.value(row).as_bytes()),
            ReaderKind::Bytes(array) => put_block(out, array.value(row)),
            ReaderKind::Boolean(array) => out.push(u8::from(array.value(row))),
            ReaderKind::Fixed { values, from, width } => {
                let at = from + row * width;
                out.extend_from_slice(&values[at..at + width]);
            }
        }
    }
}

fn decode_column(
    codec: &ColumnCodec,
    data_type: &DataType,
    readers: &mut [Reader<'_>],
) -> Result<ArrayRef, Box<dyn std::error::Error + Send + Sync>> {
    match codec {
        ColumnCodec::Text => {
            let mut builder = StringBuilder::new();
            for reader in readers {
                let value = if reader.u8("tag")? == 0 { None } else { Some(reader.block("text")?) };
                builder.append_option(value.map(std::str::from_utf8).transpose()?);
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnCodec::Bytes => {
            let mut builder = BinaryBuilder::new();
            for reader in readers {
                builder.append_option(if reader.u8("tag")? == 0 { None } else { Some(reader.block("bytes")?) });
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnCodec::Boolean => {
            let mut builder = BooleanBuilder::new();
            for reader in readers {
                builder.append_option(if reader.u8("tag")? == 0 { None } else { Some(reader.u8("boolean")? != 0) });
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnCodec::Fixed(width) => {
            let (mut bytes, mut valid) = (Vec::new(), NullBufferBuilder::new(readers.len()));
            let rows = readers.len();
            for reader in readers {
                let present = reader.u8("tag")? != 0;
                valid.append(present);
                match present {
                    true => bytes.extend_from_slice(reader.bytes(*width, "value")?),
                    false => bytes.resize(bytes.len() + width, 0),
                }
            }
            let builder = ArrayData::builder(data_type.clone()).len(rows).add_buffer(Buffer::from(bytes));
            Ok(make_array(builder.nulls(valid.finish()).align_buffers(true).build()?))
        }
    }
}

impl ByteRows {
    /// The canonical bytes of a row's key.
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        match self {
            ByteRows::Text(array) if array.is_null(row) => NULL_TEXT,
            ByteRows::Text(array) => array.value(row).as_bytes(),
            ByteRows::Encoded(bytes, ends) => &bytes[if row == 0 { 0 } else { ends[row - 1] }..ends[row]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::xxh64;
    use arrow::array::{BinaryArray, Decimal128Array, Float64Array, Int32Array, TimestampMillisecondArray};
    use arrow::datatypes::TimeUnit;
    use arrow::util::display::array_value_to_string;
    use std::collections::BTreeSet;

    fn columns() -> Vec<ArrayRef> {
        let decimals = Decimal128Array::from(vec![Some(-1), Some(10i128.pow(37)), None, Some(0)]);
        let times = TimestampMillisecondArray::from(vec![Some(-1), None, Some(0), Some(i64::MAX)]);
        vec![
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("ü")])),
            Arc::new(Int32Array::from(vec![Some(-1), None, Some(0), Some(i32::MAX)])),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None, Some(-0.0)])),
            Arc::new(decimals.with_precision_and_scale(38, 2).expect("valid")),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
            Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b""), Some(b"x")])),
        ]
    }

    fn round_trip(columns: &[ArrayRef]) {
        let types = columns.iter().map(|c| c.data_type().clone()).collect();
        let codec = KeyCodec::new(types).expect("all are key types");
        let rows = codec.encode_bytes(columns);
        let keys: Vec<&[u8]> = (0..columns[0].len()).map(|row| rows.get(row)).collect();
        let shown = |row: usize| columns.iter().map(|c| array_value_to_string(c, row).expect("printable")).collect();
        let tuples: BTreeSet<Vec<String>> = (0..keys.len()).map(shown).collect();
        assert!(keys.iter().collect::<BTreeSet<_>>().len() >= tuples.len(), "different keys, different bytes");
        let back = codec.decode(keys.iter().copied()).expect("own encoding");
        for (column, back) in columns.iter().zip(&back) {
            assert_eq!(format!("{column:?}"), format!("{back:?}"));
        }
    }

    #[test]
    fn keys_come_back_as_columns() {
        round_trip(&columns());
        for column in columns() {
            round_trip(std::slice::from_ref(&column));
            round_trip(&[column.slice(1, 3)]);
        }
    }

    #[test]
    fn nested_values_are_no_keys() {
        let list = DataType::new_list(DataType::Int32, true);
        assert!(KeyCodec::new(vec![list]).is_err());
        assert!(KeyCodec::new(vec![DataType::Timestamp(TimeUnit::Millisecond, None)]).is_ok());
    }

    #[test]
    fn numbers_are_by_first_arrival_and_order_by_hash() {
        let mut table = KeyTable::default();
        let ids = [&b"b"[..], NULL_TEXT, b"a", b"b"].map(|key| table.intern(xxh64(key, 0), key));
        assert_eq!(ids, [0, 1, 2, 0]);
        assert_eq!((table.len(), table.key(1), table.hash(2)), (3, NULL_TEXT, xxh64(b"a", 0)));
    }
}
