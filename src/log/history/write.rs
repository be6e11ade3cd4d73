//! Log batches into the bytes of a history file.

use super::encoding::{self, ChunkPlan, Priority};
use super::file::{FileRecord, TopicExtent};
use super::index::{self, GroupEntry, Index, TopicEntry};
use super::schema::{FileSchema, Own, StoredColumns, TopicSpec, is_shared, place_of};
use super::summary;
use crate::codec::Xxh64;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Decoder, decoder};
use crate::log::records::LogBatch;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, encode_arrow_schema};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{SchemaDescriptor, TypePtr};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;

/// Where row groups are cut: whatever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Rows of a group at most. Default 65,536.
    pub rows: usize,
    /// Bytes of keys, values and headers after which a group ends. Default 8 MiB.
    pub bytes: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        GroupLimits { rows: 1 << 16, bytes: 8 << 20 }
    }
}

/// What the file is written to: hashes what passes, and holds the footer back until it has its checksum.
struct Out<'a> {
    out: &'a mut (dyn Write + Send),
    hash: Xxh64,
    len: u64,
    /// Bytes still to come of each column chunk of the row group that is being written.
    coming: VecDeque<u64>,
    crc: crc32fast::Hasher,
    /// CRC-32 of the column chunks that have passed.
    checksums: Vec<u32>,
    footer: Option<Vec<u8>>,
}

impl<'a> Out<'a> {
    fn new(out: &'a mut (dyn Write + Send)) -> Out<'a> {
        let (coming, crc) = (VecDeque::new(), crc32fast::Hasher::new());
        Out { out, hash: Xxh64::new(0), len: 0, coming, crc, checksums: Vec::new(), footer: None }
    }

    fn passed(&mut self, mut bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        while let Some(left) = self.coming.front_mut() {
            let (of_chunk, rest) = bytes.split_at(bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
            self.crc.update(of_chunk);
            *left -= of_chunk.len() as u64;
            if *left > 0 {
                return;
            }
            self.checksums.push(std::mem::take(&mut self.crc).finalize());
            self.coming.pop_front();
            bytes = rest;
        }
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(footer) = &mut self.footer {
            footer.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes)?;
        self.passed(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A topic of the file.
struct Topic {
    spec: TopicSpec,
    columns: Option<(StoredColumns, Box<dyn Decoder>)>,
}

/// Writes one history file. Holds at most one row group in memory.
pub struct FileWriter<'a> {
    file: SerializedFileWriter<Out<'a>>,
    schema: SchemaRef,
    parquet: TypePtr,
    topics: Vec<Topic>,
    limits: GroupLimits,
    /// Of one topic.
    held: Vec<LogBatch>,
    held_rows: usize,
    held_bytes: usize,
    groups: Vec<GroupEntry>,
    /// Bytes of each group in the file.
    group_bytes: Vec<u64>,
}

fn failed(cause: ParquetError) -> Error {
    match cause {
        ParquetError::External(cause) if cause.is::<io::Error>() => {
            Error::new(ErrorKind::Unavailable, format!("writing a history file: {cause}"))
        }
        cause => Error::internal(format!("writing a history file: {cause}")),
    }
}

fn io_failed(cause: io::Error) -> Error {
    failed(ParquetError::External(Box::new(cause)))
}

impl<'a> FileWriter<'a> {
    /// A writer of a file that holds records of these topics. Nothing is sought or read back in `out`, which is flushed at the
    /// end, not synced. [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if `out` refuses.
    pub fn new(out: &'a mut (dyn Write + Send), topics: Vec<TopicSpec>) -> Result<FileWriter<'a>> {
        let FileSchema { arrow: schema, topics: stored } = FileSchema::new(&topics);
        let parquet = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?.root_schema_ptr();
        let topic = |(spec, stored): (TopicSpec, Option<StoredColumns>)| {
            let columns = match (&spec.columns, stored) {
                (Some(columns), Some(stored)) => {
                    let all: Vec<usize> = (0..columns.declared.fields().len()).collect();
                    Some((stored, decoder(&columns.format, &columns.declared, &all)?))
                }
                _ => None,
            };
            Ok(Topic { spec, columns })
        };
        let topics = topics.into_iter().zip(stored).map(topic).collect::<Result<_>>()?;
        let kept = vec![
            KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)),
            KeyValue::new(index::VERSION_KEY.to_owned(), index::VERSION.to_owned()),
        ];
        let properties = WriterProperties::builder()
            .set_created_by(concat!("kappa ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(kept))
            .build();
        Ok(FileWriter {
            file: SerializedFileWriter::new(Out::new(out), parquet.clone(), Arc::new(properties)).map_err(failed)?,
            schema,
            parquet,
            topics,
            limits: GroupLimits::default(),
            held: Vec::new(),
            held_rows: 0,
            held_bytes: 0,
            groups: Vec::new(),
            group_bytes: Vec::new(),
        })
    }

    /// Row groups are cut here from now on.
    #[must_use]
    pub fn with_limits(mut self, limits: GroupLimits) -> FileWriter<'a> {
        self.limits = GroupLimits { rows: limits.rows.max(1), bytes: limits.bytes.max(1) };
        self
    }

    /// Adds records of one of the topics, whole (keys, values as bytes, headers). Positions of a topic rise from call to call.
    /// A row group ends where the topic changes, so all records of one topic should come one after the other.
    pub fn push(&mut self, batch: &LogBatch) -> Result<()> {
        if self.held.first().is_some_and(|held| held.topic != batch.topic) {
            self.write_group()?;
        }
        let mut from = 0;
        while from < batch.len() {
            let to = self.cut(batch, from);
            let piece = batch.slice(from, to);
            self.held_rows += piece.len();
            self.held_bytes += summary::raw_bytes(&piece);
            self.held.push(piece);
            if self.held_rows >= self.limits.rows || self.held_bytes >= self.limits.bytes {
                self.write_group()?;
            }
            from = to;
        }
        Ok(())
    }

    /// The end of the rows from `from` on that still go into the row group.
    fn cut(&self, batch: &LogBatch, from: usize) -> usize {
        let most = batch.len().min(from + self.limits.rows - self.held_rows);
        let fits = |to: usize| self.held_bytes + summary::raw_bytes(&batch.slice(from, to)) <= self.limits.bytes;
        let (mut low, mut high) = (from + 1, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            (low, high) = if fits(middle) { (middle, high) } else { (low, middle - 1) };
        }
        low
    }

    /// Bytes written so far; what is held for the next row group is not among them.
    pub fn bytes_written(&self) -> u64 {
        self.file.bytes_written() as u64
    }

    /// Ends the file; gives its record under this number.
    pub fn finish(mut self, number: u64) -> Result<FileRecord> {
        self.write_group()?;
        let entry = |topic: &Topic| TopicEntry {
            topic: topic.spec.topic,
            name: topic.spec.name.clone(),
            record: crate::log::topic::record(topic.spec.topic, &topic.spec.name, &topic.spec.config, false)
                .value
                .unwrap_or_default(),
            columns: topic.columns.as_ref().map(|(stored, _)| stored.clone()),
        };
        let index = Index { topics: self.topics.iter().map(entry).collect(), groups: self.groups };
        let bytes = index.encode();
        let place = index::put_place(self.file.bytes_written() as u64, &bytes);
        self.file.write_all(&bytes).map_err(io_failed)?;
        for (key, value) in [(index::INDEX_KEY, place), (index::CHECKSUM_KEY, index::NO_CHECKSUM.to_owned())] {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.file.flush().map_err(io_failed)?;
        self.file.inner_mut().footer = Some(Vec::new());
        let mut out = self.file.into_inner().map_err(failed)?;
        let mut footer = out.footer.take().unwrap_or_default();
        if !index::seal_footer(&mut footer) {
            return Err(Error::internal("the footer of a history file has no place for its checksum"));
        }
        out.write_all(&footer).and_then(|()| out.flush()).map_err(io_failed)?;
        let groups = index.groups.iter().map(|group| &group.summary).zip(self.group_bytes);
        let topics = TopicExtent::of(groups, |topic| Some(index.topic(topic)?.columns.as_ref()?.fingerprint));
        Ok(FileRecord { number, bytes: out.len, xxh64: out.hash.finish(), topics })
    }

    fn write_group(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.held);
        (self.held_rows, self.held_bytes) = (0, 0);
        let Some(id) = batches.first().map(|batch| batch.topic) else { return Ok(()) };
        let topic = self.topics.iter().find(|topic| topic.spec.topic == id);
        let topic = topic.ok_or_else(|| Error::internal(format!("topic {id} is not one of this history file")))?;
        let mut group = Group { schema: &self.schema, topic, columns: Vec::new(), undecoded: 0, undecoded_null: true };
        group.columns.resize_with(self.schema.fields().len(), Vec::new);
        for batch in &batches {
            group.add(batch)?;
        }
        let summary = summary::summarize(id, &batches, (group.undecoded, group.undecoded_null));
        drop(batches);
        let chunks = encode(&self.schema, &self.parquet, group.columns)?;
        let before = self.file.bytes_written();
        self.file.flush().map_err(io_failed)?;
        self.file.inner_mut().coming = chunks.iter().map(|chunk| chunk.close().bytes_written).collect();
        let mut row_group = self.file.next_row_group().map_err(failed)?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut row_group).map_err(failed)?;
        }
        row_group.close().map_err(failed)?;
        self.file.flush().map_err(io_failed)?;
        self.group_bytes.push((self.file.bytes_written() - before) as u64);
        let checksums = std::mem::take(&mut self.file.inner_mut().checksums);
        self.groups.push(GroupEntry { summary, checksums });
        Ok(())
    }
}

/// A row group in the making: its columns, in pieces.
struct Group<'a> {
    schema: &'a SchemaRef,
    topic: &'a Topic,
    columns: Vec<Vec<ArrayRef>>,
    undecoded: u32,
    /// All values that did not decode are null.
    undecoded_null: bool,
}

impl Group<'_> {
    fn add(&mut self, batch: &LogBatch) -> Result<()> {
        let rows = batch.len();
        if is_shared(self.schema) {
            self.put(0, Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic.spec.name, rows))));
        }
        for own in Own::ALL.into_iter().filter(|own| *own != Own::Decoded) {
            self.put(place_of(self.schema, own), own_column(own, batch));
        }
        let known = match &self.topic.columns {
            Some((stored, decoder)) => self.decode(batch, stored, decoder.as_ref())?,
            None => {
                self.undecoded += u32::try_from(rows).unwrap_or(u32::MAX);
                self.undecoded_null &= batch.values.null_count() == rows;
                BTreeMap::new()
            }
        };
        for place in place_of(self.schema, Own::Decoded)..self.schema.fields().len() {
            let column = match known.get(&place) {
                Some(column) => column.clone(),
                None => new_null_array(self.schema.field(place).data_type(), rows),
            };
            self.put(place, column);
        }
        Ok(())
    }

    fn put(&mut self, place: usize, column: ArrayRef) {
        if let Some(pieces) = self.columns.get_mut(place) {
            pieces.push(column);
        }
    }

    /// The decoded columns by place, with nulls where a value did not decode.
    fn decode(
        &mut self,
        batch: &LogBatch,
        stored: &StoredColumns,
        decoder: &dyn Decoder,
    ) -> Result<BTreeMap<usize, ArrayRef>> {
        let decoded = decoder.decode(&batch.values);
        let mut good = vec![decoded.rows.is_none(); batch.len()];
        let mut rows: Vec<Option<u32>> = Vec::new();
        if let Some(found) = &decoded.rows {
            rows.resize(batch.len(), None);
            for (place, row) in (0..).zip(found) {
                if let (Some(slot), Some(good)) = (rows.get_mut(*row as usize), good.get_mut(*row as usize)) {
                    (*slot, *good) = (Some(place), true);
                }
            }
        }
        for rejected in &decoded.rejected {
            self.undecoded += 1;
            self.undecoded_null &= batch.values.is_null(rejected.row as usize);
        }
        let rows = decoded.rows.is_some().then(|| UInt32Array::from(rows));
        let mut out = BTreeMap::new();
        out.insert(place_of(self.schema, Own::Decoded), Arc::new(BooleanArray::from(good)) as ArrayRef);
        for (column, stored) in decoded.batch.columns().iter().zip(&stored.columns) {
            let Some(place) = stored.place else { continue };
            let column = match &rows {
                None => column.clone(),
                Some(rows) => take(column, rows, None)
                    .map_err(|cause| Error::internal(format!("column '{}': {cause}", stored.name)))?,
            };
            out.insert(place as usize, column);
        }
        Ok(out)
    }
}

fn own_column(own: Own, batch: &LogBatch) -> ArrayRef {
    let signed = |value: &u64| value.cast_signed();
    match own {
        Own::Position => Arc::new(UInt64Array::new((*batch.positions).clone(), None)),
        Own::Partition => {
            Arc::new(Int32Array::from_iter_values(batch.partitions.iter().map(|value| value.cast_signed())))
        }
        Own::Offset => Arc::new(Int64Array::from_iter_values(batch.offsets.iter().map(signed))),
        Own::AppendTime => {
            Arc::new(TimestampMicrosecondArray::new((*batch.append_times).clone(), None).with_timezone("UTC"))
        }
        Own::Timestamp => {
            let (values, nulls) = (batch.timestamps.values().clone(), batch.timestamps.nulls().cloned());
            Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone("UTC"))
        }
        Own::Key => Arc::new(batch.keys.clone()),
        Own::Headers => Arc::new(batch.headers.clone()),
        Own::Value => Arc::new(batch.values.clone()),
        Own::Decoded => Arc::new(BooleanArray::new_null(batch.len())),
    }
}

/// Encodes and compresses the columns of a row group, each as suits what is in it.
fn encode(schema: &SchemaRef, parquet: &TypePtr, columns: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrowColumnChunk>> {
    let descriptor = SchemaDescriptor::new(parquet.clone());
    let own = place_of(schema, Own::Decoded);
    let mut properties = WriterProperties::builder();
    let mut leaf = 0;
    for (place, pieces) in columns.iter().enumerate() {
        let cold = place < own && place != place_of(schema, Own::Timestamp);
        let priority = if cold { Priority::Size } else { Priority::Speed };
        for pieces in leaves(pieces) {
            let path = descriptor.column(leaf).path().clone();
            let ChunkPlan { dictionary, encoding, compression, statistics } = encoding::plan(&pieces, priority);
            let statistics = if statistics { EnabledStatistics::Chunk } else { EnabledStatistics::None };
            properties = properties
                .set_column_dictionary_enabled(path.clone(), dictionary)
                .set_column_encoding(path.clone(), encoding)
                .set_column_compression(path.clone(), compression)
                .set_column_statistics_enabled(path, statistics);
            leaf += 1;
        }
    }
    let writers = column_writers(schema, parquet, Arc::new(properties.build()))?;
    let mut writers = writers.into_iter();
    let mut chunks = Vec::with_capacity(leaf);
    for (field, pieces) in schema.fields().iter().zip(columns) {
        let count = leaves(&pieces).len();
        let mut writers: Vec<_> = writers.by_ref().take(count).collect();
        for piece in pieces {
            let leaves = compute_leaves(field, &piece).map_err(failed)?;
            for (writer, leaf) in writers.iter_mut().zip(&leaves) {
                writer.write(leaf).map_err(failed)?;
            }
        }
        for writer in writers {
            chunks.push(writer.close().map_err(failed)?);
        }
    }
    Ok(chunks)
}

/// Writers of column chunks with these properties. Parquet makes them for a file, so there is one that goes nowhere.
fn column_writers(
    schema: &SchemaRef,
    parquet: &TypePtr,
    properties: WriterPropertiesPtr,
) -> Result<Vec<ArrowColumnWriter>> {
    let file = SerializedFileWriter::new(io::sink(), parquet.clone(), properties).map_err(failed)?;
    ArrowRowGroupWriterFactory::new(&file, schema.clone()).create_column_writers(0).map_err(failed)
}

/// The pieces of each leaf of a column, in Parquet's order.
fn leaves(pieces: &[ArrayRef]) -> Vec<Vec<ArrayRef>> {
    let mut out: Vec<Vec<ArrayRef>> = Vec::new();
    for piece in pieces {
        let mut leaves = Vec::new();
        put_leaves(piece, &mut leaves);
        out.resize_with(leaves.len(), Vec::new);
        out.iter_mut().zip(leaves).for_each(|(pieces, leaf)| pieces.push(leaf));
    }
    out
}

fn put_leaves(array: &ArrayRef, out: &mut Vec<ArrayRef>) {
    if let Some(row) = array.as_struct_opt() {
        row.columns().iter().for_each(|column| put_leaves(column, out));
    } else if let Some(list) = array.as_list_opt::<i32>() {
        put_leaves(list.values(), out);
    } else if let Some(map) = array.as_map_opt() {
        put_leaves(map.keys(), out);
        put_leaves(map.values(), out);
    } else {
        out.push(array.clone());
    }
}
