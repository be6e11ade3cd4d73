//! The bytes of a history file into log batches.

use super::file::{Extent, FileRecord, GroupSummary, Known, TopicExtent};
use super::index::{self, GroupEntry, Index, TopicEntry};
use super::schema::{Own, place_of};
use super::summary::spread;
use crate::codec::xxh64;
use crate::error::{Error, ErrorKind, Result};
use crate::format::used_schema;
use crate::log::blank;
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::numbers::{Number, Numbers};
use crate::log::records::{DecodedValues, LogBatch, Projection, ValueColumns};
use crate::types::TopicId;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int32Type, Int64Type, Schema, TimestampMicrosecondType, TimestampMillisecondType,
    UInt64Type,
};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::statistics::Statistics;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An open history file: its footer is read and checked, its columns are read when asked for. Usable from many threads.
#[derive(Debug)]
pub struct HistoryFile {
    name: String,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    topics: Vec<TopicEntry>,
    groups: Vec<GroupSummary>,
    /// CRC-32 of each column chunk of each group.
    checksums: Vec<Vec<u32>>,
}

/// The columns of one row group that were read, by place.
type Columns = BTreeMap<usize, ArrayRef>;

impl HistoryFile {
    /// Opens the file whose bytes these are (a mapping is best: only what is read is touched). `name` is for messages.
    /// [`ErrorKind::Damage`](crate::ErrorKind::Damage) if the footer is not what was written,
    /// [`ErrorKind::Input`](crate::ErrorKind::Input) if another version of Kappa wrote it.
    pub fn open(bytes: Bytes, name: &str) -> Result<HistoryFile> {
        let damage = |what: &str| Error::damage(format!("history file {name}: {what}"));
        let footer = index::checked_footer(&bytes).map_err(damage)?;
        let thrift = footer.get(..footer.len() - index::TAIL).unwrap_or_default();
        let metadata = ParquetMetaDataReader::decode_metadata(thrift).map_err(|cause| damage(&cause.to_string()))?;
        if value_of(&metadata, index::VERSION_KEY) != Some(index::VERSION) {
            let message = format!("history file {name} was written by another version of Kappa");
            return Err(Error::input(message).with_hint("use the version that wrote it, or a later one"));
        }
        let index = read_index(&bytes, &metadata).ok_or_else(|| damage("its index is not what was written"))?;
        let options = ArrowReaderOptions::new();
        let metadata =
            ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(|cause| damage(&cause.to_string()))?;
        let mut file = HistoryFile {
            name: name.to_owned(),
            bytes,
            metadata,
            topics: index.topics,
            groups: Vec::with_capacity(index.groups.len()),
            checksums: Vec::with_capacity(index.groups.len()),
        };
        for GroupEntry { summary, checksums } in index.groups {
            file.groups.push(summary);
            file.checksums.push(checksums);
        }
        Ok(file)
    }

    /// Its row groups, topic by topic, each in the order of positions.
    pub fn groups(&self) -> &[GroupSummary] {
        &self.groups
    }

    /// Reads a row group (by its place in [`groups`](Self::groups)): what the projection asks for; positions, append times,
    /// partitions, offsets and timestamps always. Where the stored columns fit those asked for, [`LogBatch::decoded`] holds
    /// them and values are only read if asked for or needed for rows that did not decode; else values are read.
    /// In columns declared NOT NULL, rows that did not decode have some value.
    /// [`ErrorKind::Damage`](crate::ErrorKind::Damage) names file, topic, partitions and offsets.
    pub fn read(&self, group: usize, projection: &Projection) -> Result<LogBatch> {
        let summary = self.summary(group)?;
        let Known { positions, append_times, partitions, timestamps, offsets_dense, .. } = &summary.known;
        let rows = rows_of(summary);
        let fit = projection.columns.as_deref().and_then(|columns| Some((columns, self.fit(summary, columns)?)));
        let some_undecoded = summary.undecoded > 0;
        let needs_values = match &fit {
            Some(_) => some_undecoded && !summary.known.undecoded_null,
            None => projection.columns.is_some(),
        };
        let with_values = projection.values || needs_values;
        let own = [
            (Own::Position, positions.is_none()),
            (Own::AppendTime, append_times.is_none()),
            (Own::Partition, partitions.is_none()),
            (Own::Offset, !offsets_dense),
            (Own::Timestamp, timestamps.is_none()),
            (Own::Key, projection.keys && !summary.known.keys_null),
            (Own::Headers, projection.headers && !summary.known.headers_empty),
            (Own::Value, with_values),
            (Own::Decoded, fit.is_some() && some_undecoded),
        ];
        let own = own.into_iter().filter(|(_, read)| *read).map(|(own, _)| self.place(own));
        let places: BTreeSet<usize> = own.chain(fit.iter().flat_map(|(_, places)| places.iter().copied())).collect();
        let read = Read { columns: self.columns(group, &places, None)?, schema: self.schema(), rows };
        let partitions = match partitions.as_deref() {
            Some([(0, _)]) => blank::zeros(rows),
            Some(runs) => spread(runs, rows).into(),
            None => ScalarBuffer::from(read.own::<Int32Type>(Own::Partition)?.into_inner()),
        };
        let offsets = match offsets_dense {
            true => dense_offsets(&partitions, &summary.extent),
            false => ScalarBuffer::from(read.own::<Int64Type>(Own::Offset)?.into_inner()).into(),
        };
        let no_headers = || if projection.headers { blank::empty_bytes(rows) } else { blank::null_bytes(rows) };
        let batch = LogBatch {
            topic: summary.topic,
            positions: match positions {
                Some(stretches) => Numbers::rising(counted(stretches)),
                None => read.own::<UInt64Type>(Own::Position)?.into(),
            },
            append_times: match append_times {
                Some(runs) => Numbers::equal(counted(runs)),
                None => read.own::<TimestampMicrosecondType>(Own::AppendTime)?.into(),
            },
            partitions,
            offsets,
            timestamps: match timestamps {
                Some(runs) => known_timestamps(runs, rows),
                None => read.timestamps()?,
            },
            keys: read.bytes(Own::Key).unwrap_or_else(|| blank::null_bytes(rows)),
            headers: read.bytes(Own::Headers).unwrap_or_else(no_headers),
            values: read.bytes(Own::Value).unwrap_or_else(|| blank::null_bytes(rows)),
            decoded: fit.map(|(columns, places)| read.decoded(columns, &places)).transpose()?,
        };
        Ok(batch)
    }

    /// Rows of a row group, ascending, with keys, values and headers; `known` has the places and times of all its rows. Pages that hold none
    /// of them are passed over, and of the others only these rows are copied. Errors as for [`read`](Self::read).
    pub fn read_rows(&self, group: usize, known: &LogBatch, rows: &[u32]) -> Result<LogBatch> {
        let mut batch = known.take(rows)?;
        let summary = &self.summary(group)?.known;
        let own = [(Own::Key, !summary.keys_null), (Own::Headers, !summary.headers_empty), (Own::Value, true)];
        let places = own.into_iter().filter(|(_, read)| *read).map(|(own, _)| self.place(own)).collect();
        let read = Read { columns: self.columns(group, &places, Some(rows))?, schema: self.schema(), rows: rows.len() };
        batch.keys = read.bytes(Own::Key).unwrap_or_else(|| blank::null_bytes(rows.len()));
        batch.headers = read.bytes(Own::Headers).unwrap_or_else(|| blank::empty_bytes(rows.len()));
        batch.values = read.bytes(Own::Value).unwrap_or_else(|| blank::null_bytes(rows.len()));
        Ok(batch)
    }

    /// True if values of this topic need not be decoded for these columns: the stored ones fit.
    pub fn fits(&self, topic: TopicId, columns: &ValueColumns) -> bool {
        self.topics.iter().any(|entry| entry.topic == topic && self.fit_topic(entry, columns).is_some())
    }

    fn fit_topic(&self, entry: &TopicEntry, columns: &ValueColumns) -> Option<Vec<usize>> {
        entry.columns.as_ref()?.fit(self.schema(), columns)
    }

    /// Places of the stored columns, if they fit and at least one row of the group has decoded.
    fn fit(&self, summary: &GroupSummary, columns: &ValueColumns) -> Option<Vec<usize>> {
        let entry = self.topics.iter().find(|entry| entry.topic == summary.topic)?;
        self.fit_topic(entry, columns).filter(|_| u64::from(summary.undecoded) < summary.extent.rows)
    }

    /// Lowest and highest value that a row group has in a declared column of an integer or time type, in the column's unit, if
    /// the stored columns fit; `None` if that is not known, as with values that did not decode.
    pub fn column_range(&self, group: usize, columns: &ValueColumns, declared: usize) -> Option<(i64, i64)> {
        let summary = self.groups.get(group)?;
        let wanted = ValueColumns { used: vec![declared], ..columns.clone() };
        let place = self.fit(summary, &wanted)?.pop()?;
        if summary.undecoded > 0 && !summary.known.undecoded_null {
            return None;
        }
        let parquet = self.metadata.parquet_schema();
        let leaf = (0..parquet.num_columns()).find(|leaf| parquet.get_column_root_idx(*leaf) == place)?;
        // The number of a decimal has its point somewhere.
        if columns.declared.fields().get(declared)?.data_type().is_decimal() {
            return None;
        }
        match self.metadata.metadata().row_groups().get(group)?.columns().get(leaf)?.statistics()? {
            Statistics::Int32(range) => Some(((*range.min_opt()?).into(), (*range.max_opt()?).into())),
            Statistics::Int64(range) => Some((*range.min_opt()?, *range.max_opt()?)),
            _ => None,
        }
    }

    /// Checks all bytes of the file against its checksums, with the errors of [`read`](Self::read).
    pub fn verify(&self) -> Result<()> {
        let leaves = self.metadata.parquet_schema().num_columns();
        (0..self.groups.len()).try_for_each(|group| (0..leaves).try_for_each(|leaf| self.check_chunk(group, leaf)))
    }

    /// The catalog records of its topics as they were when it was written: what a catalog can be rebuilt from.
    pub fn topic_records(&self) -> Vec<MetaRecord> {
        let record = |entry: &TopicEntry| MetaRecord {
            space: MetaSpace::Topic,
            key: format!("{:010}", entry.topic.0),
            value: Some(entry.record.clone()),
        };
        self.topics.iter().map(record).collect()
    }

    /// Its record as the file itself says, under this number. Reads all bytes.
    pub fn record(&self, number: u64) -> FileRecord {
        let group_bytes = |group: usize| {
            let columns = self.metadata.metadata().row_groups().get(group).map(|group| group.columns());
            columns.unwrap_or_default().iter().map(|column| column.byte_range().1).sum::<u64>()
        };
        let sizes = (0..self.groups.len()).map(group_bytes);
        let columns = |topic| self.topics.iter().find(|entry| entry.topic == topic)?.columns.as_ref();
        FileRecord {
            number,
            bytes: self.bytes.len() as u64,
            xxh64: xxh64(&self.bytes, 0),
            topics: TopicExtent::of(self.groups.iter().zip(sizes), |topic| Some(columns(topic)?.fingerprint)),
        }
    }

    fn schema(&self) -> &Schema {
        self.metadata.schema()
    }

    fn summary(&self, group: usize) -> Result<&GroupSummary> {
        let missing = || Error::internal(format!("history file {} has no row group {group}", self.name));
        self.groups.get(group).ok_or_else(missing)
    }

    fn place(&self, own: Own) -> usize {
        place_of(self.schema(), own)
    }

    /// Reads columns of a row group, after a look at their checksums: all rows, or some, ascending.
    fn columns(&self, group: usize, places: &BTreeSet<usize>, some: Option<&[u32]>) -> Result<Columns> {
        if places.is_empty() || some.is_some_and(<[u32]>::is_empty) {
            return Ok(Columns::new());
        }
        let parquet = self.metadata.parquet_schema();
        for leaf in (0..parquet.num_columns()).filter(|leaf| places.contains(&parquet.get_column_root_idx(*leaf))) {
            self.check_chunk(group, leaf)?;
        }
        let bad = |cause: &dyn std::fmt::Display| self.damage(group, &format!("does not read: {cause}"));
        let all = self.groups.get(group).map_or(0, rows_of);
        let rows = some.map_or(all, <[u32]>::len);
        let mask = ProjectionMask::roots(parquet, places.iter().copied());
        let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(rows);
        if let Some(some) = some {
            reader = reader.with_row_selection(selection(some, all));
        }
        let mut reader = reader.build().map_err(|cause: ParquetError| bad(&cause))?;
        match reader.next() {
            Some(Ok(batch)) if batch.num_rows() == rows && batch.num_columns() == places.len() => {
                Ok(places.iter().copied().zip(batch.columns().iter().cloned()).collect())
            }
            Some(Err(cause)) => Err(bad(&cause)),
            _ => Err(bad(&"rows are missing")),
        }
    }

    fn check_chunk(&self, group: usize, leaf: usize) -> Result<()> {
        let chunk = self.metadata.metadata().row_groups().get(group).and_then(|group| group.columns().get(leaf));
        let expected = self.checksums.get(group).and_then(|checksums| checksums.get(leaf));
        let range = chunk.map(|chunk| chunk.byte_range()).and_then(|(offset, len)| {
            let offset = usize::try_from(offset).ok()?;
            self.bytes.get(offset..offset.checked_add(usize::try_from(len).ok()?)?)
        });
        match (range, expected) {
            (Some(bytes), Some(expected)) if crc32fast::hash(bytes) == *expected => Ok(()),
            _ => {
                let column = chunk.map(|chunk| chunk.column_path().string()).unwrap_or_default();
                Err(self.damage(group, &format!("is damaged in column '{column}'")))
            }
        }
    }

    fn damage(&self, group: usize, what: &str) -> Error {
        let whose = self.groups.get(group).map_or_else(String::new, |summary| {
            let entry = self.topics.iter().find(|entry| entry.topic == summary.topic);
            describe(entry.map(|entry| entry.name.as_str()), summary)
        });
        Error::new(ErrorKind::Damage, format!("row group {group} of history file {} {what}: {whose}", self.name))
    }
}

/// Which records a row group holds, for messages.
fn describe(name: Option<&str>, summary: &GroupSummary) -> String {
    const SHOWN: usize = 8;
    let partition = |extent: &super::file::PartitionExtent| {
        format!("partition {} offsets {} to {}", extent.partition, extent.first_offset, extent.last_offset)
    };
    let partitions = &summary.extent.partitions;
    let mut shown: Vec<String> = partitions.iter().take(SHOWN).map(partition).collect();
    if partitions.len() > SHOWN {
        shown.push(format!("{} more partitions", partitions.len() - SHOWN));
    }
    let topic = name.map_or_else(|| format!("number {}", summary.topic), str::to_owned);
    format!("{} records of topic {topic}, {}", summary.extent.rows, shown.join(", "))
}

fn rows_of(summary: &GroupSummary) -> usize {
    usize::try_from(summary.extent.rows).unwrap_or(usize::MAX)
}

/// Some of so many rows, ascending.
fn selection(some: &[u32], all: usize) -> RowSelection {
    let stretches = some.chunk_by(|row, next| row + 1 == *next);
    let ranges = stretches.filter_map(|rows| Some(*rows.first()? as usize..*rows.last()? as usize + 1));
    RowSelection::from_consecutive_ranges(ranges, all)
}

fn value_of<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().rfind(|pair| pair.key == key)?.value.as_deref()
}

fn read_index(bytes: &Bytes, metadata: &ParquetMetaData) -> Option<Index> {
    let (offset, len, checksum) = index::read_place(value_of(metadata, index::INDEX_KEY)?)?;
    let bytes = bytes.get(offset..offset.checked_add(len)?)?;
    let index = Index::decode(Some(bytes).filter(|bytes| crc32fast::hash(bytes) == checksum)?)?;
    (index.groups.len() == metadata.num_row_groups()).then_some(index)
}

/// What was read of a row group.
struct Read<'a> {
    columns: Columns,
    schema: &'a Schema,
    rows: usize,
}

impl Read<'_> {
    fn column(&self, place: usize) -> Result<&ArrayRef> {
        self.columns
            .get(&place)
            .ok_or_else(|| Error::internal(format!("column {place} of a history file was not read")))
    }

    fn primitive<T: ArrowPrimitiveType>(&self, own: Own) -> Result<&PrimitiveArray<T>> {
        let column = self.column(place_of(self.schema, own))?.as_primitive_opt::<T>();
        column.ok_or_else(|| Error::internal(format!("column {} of a history file has another type", own.name())))
    }

    fn own<T: ArrowPrimitiveType>(&self, own: Own) -> Result<ScalarBuffer<T::Native>> {
        Ok(self.primitive::<T>(own)?.values().clone())
    }

    fn timestamps(&self) -> Result<Int64Array> {
        let column = self.primitive::<TimestampMillisecondType>(Own::Timestamp)?;
        Ok(Int64Array::new(column.values().clone(), column.nulls().cloned()))
    }

    /// A column of bytes, if it was read.
    fn bytes(&self, own: Own) -> Option<BinaryArray> {
        self.columns.get(&place_of(self.schema, own))?.as_binary_opt::<i32>().cloned()
    }

    fn decoded(&self, wanted: &ValueColumns, places: &[usize]) -> Result<DecodedValues> {
        let mut good = None;
        let mut undecoded = Vec::new();
        if let Some(column) = self.columns.get(&place_of(self.schema, Own::Decoded)) {
            let good_rows = column.as_boolean_opt().filter(|column| column.data_type() == &DataType::Boolean);
            let is_good =
                |row: &u32| good_rows.is_some_and(|good| good.is_valid(*row as usize) && good.value(*row as usize));
            let rows = 0..u32::try_from(self.rows).unwrap_or(u32::MAX);
            good = rows.clone().find(is_good);
            undecoded = rows.filter(|row| !is_good(row)).collect();
        }
        let schema = used_schema(&wanted.declared, &wanted.used);
        let mut columns = Vec::with_capacity(places.len());
        for (place, field) in places.iter().zip(schema.fields()) {
            let column = self.column(*place)?;
            columns.push(match good {
                Some(good) if !field.is_nullable() => without_nulls(column, good, &undecoded)?,
                _ => column.clone(),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let columns = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|cause| Error::internal(format!("columns of a history file: {cause}")))?;
        Ok(DecodedValues { columns, undecoded })
    }
}

/// The column with the value of row `good` in the rows that did not decode.
fn without_nulls(column: &ArrayRef, good: u32, undecoded: &[u32]) -> Result<ArrayRef> {
    let mut rows: Vec<u32> = (0..u32::try_from(column.len()).unwrap_or(u32::MAX)).collect();
    for row in undecoded {
        if let Some(slot) = rows.get_mut(*row as usize) {
            *slot = good;
        }
    }
    let filled = take(column, &UInt32Array::from(rows), None);
    filled.map_err(|cause| Error::internal(format!("columns of a history file: {cause}")))
}

fn counted<T: Number>(runs: &[(T, u32)]) -> impl Iterator<Item = (T, usize)> + '_ {
    runs.iter().map(|(first, count)| (*first, *count as usize))
}

/// Offsets that go up by one in each partition.
fn dense_offsets(partitions: &[u32], extent: &Extent) -> Numbers<u64> {
    if let [only] = extent.partitions.as_slice() {
        return Numbers::rising([(only.first_offset.0, partitions.len())]);
    }
    let mut next: Vec<u64> = Vec::new();
    for partition in &extent.partitions {
        next.resize(partition.partition.0 as usize + 1, 0);
        if let Some(next) = next.last_mut() {
            *next = partition.first_offset.0;
        }
    }
    let offset = |partition: &u32| {
        next.get_mut(*partition as usize).map_or(0, |next| {
            *next += 1;
            *next - 1
        })
    };
    partitions.iter().map(offset).collect()
}

fn known_timestamps(runs: &[(Option<i64>, u32)], rows: usize) -> Int64Array {
    match runs {
        [(None, _)] => blank::no_timestamps(rows),
        runs if runs.iter().all(|(value, _)| value.is_some()) => {
            let runs: Vec<(i64, u32)> = runs.iter().filter_map(|(value, count)| Some(((*value)?, *count))).collect();
            Int64Array::new(spread(&runs, rows).into(), None)
        }
        runs => spread(runs, rows).into_iter().collect(),
    }
}
