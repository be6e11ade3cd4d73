//! What the catalog knows of a history file, and what the index inside a file knows of its row groups.
//!
//! The record of a file is one version byte and bincode with variable-length integers; so is the index.

use crate::codec::CodecError;
use crate::log::catalog::META_VALUE_MAX;
use crate::types::{AppendTime, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;

/// One partition's share of some records: its offsets from `first_offset` to `last_offset`, in which holes are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct PartitionExtent {
    /// The partition.
    pub partition: PartitionId,
    /// The lowest offset.
    pub first_offset: Offset,
    /// The highest offset.
    pub last_offset: Offset,
}

/// Where some records of one topic lie in the log and in time. There is at least one record.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Extent {
    /// How many.
    pub rows: u64,
    /// Bytes of their keys, values and headers.
    pub raw_bytes: u64,
    /// Position of the first; records of other topics may lie between them.
    pub first_position: Position,
    /// Position of the last.
    pub last_position: Position,
    /// Append time of the first.
    pub first_append_time: AppendTime,
    /// Append time of the last.
    pub last_append_time: AppendTime,
    /// Lowest and highest timestamp in ms; `None` if no record has one.
    pub timestamps_ms: Option<(i64, i64)>,
    /// The partitions that occur, ascending.
    pub partitions: Vec<PartitionExtent>,
}

impl Extent {
    /// The share of a partition, if it occurs.
    pub fn partition(&self, partition: PartitionId) -> Option<&PartitionExtent> {
        let place = self.partitions.binary_search_by_key(&partition, |extent| extent.partition).ok()?;
        self.partitions.get(place)
    }

    /// The extent of these records and others of the same topic together.
    pub fn join(&mut self, other: &Extent) {
        self.rows += other.rows;
        self.raw_bytes += other.raw_bytes;
        self.first_position = self.first_position.min(other.first_position);
        self.last_position = self.last_position.max(other.last_position);
        self.first_append_time = self.first_append_time.min(other.first_append_time);
        self.last_append_time = self.last_append_time.max(other.last_append_time);
        self.timestamps_ms = match (self.timestamps_ms, other.timestamps_ms) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (one, other) => one.or(other),
        };
        let mut partitions: BTreeMap<PartitionId, PartitionExtent> = BTreeMap::new();
        for extent in self.partitions.iter().chain(&other.partitions) {
            let joined = partitions.entry(extent.partition).or_insert(*extent);
            joined.first_offset = joined.first_offset.min(extent.first_offset);
            joined.last_offset = joined.last_offset.max(extent.last_offset);
        }
        self.partitions = partitions.into_values().collect();
    }
}

/// What a history file holds of one topic.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct TopicExtent {
    /// The topic.
    pub topic: TopicId,
    /// Bytes that its row groups take in the file.
    pub file_bytes: u64,
    /// [`fingerprint`](super::schema::fingerprint) of the format and the columns its values were decoded by; `None` if they
    /// were not.
    pub columns: Option<u64>,
    /// Its records.
    pub extent: Extent,
}

impl TopicExtent {
    /// What row groups and the bytes they take hold of each topic, ascending. `columns` gives a topic's fingerprint.
    pub(super) fn of<'a>(
        groups: impl Iterator<Item = (&'a GroupSummary, u64)>,
        columns: impl Fn(TopicId) -> Option<u64>,
    ) -> Vec<TopicExtent> {
        let mut out: BTreeMap<TopicId, TopicExtent> = BTreeMap::new();
        for (GroupSummary { topic, extent, .. }, file_bytes) in groups {
            match out.get_mut(topic) {
                Some(known) => {
                    known.extent.join(extent);
                    known.file_bytes += file_bytes;
                }
                None => {
                    let (topic, extent) = (*topic, extent.clone());
                    out.insert(topic, TopicExtent { topic, file_bytes, columns: columns(topic), extent });
                }
            }
        }
        out.into_values().collect()
    }
}

/// A history file as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct FileRecord {
    /// Its number; files are named by it and numbers are never used again.
    pub number: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// XXH64, with seed 0, of its bytes.
    pub xxh64: u64,
    /// What it holds, by topic, ascending.
    pub topics: Vec<TopicExtent>,
}

const RECORD_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<META_VALUE_MAX>()
}

impl FileRecord {
    /// The name of the file of a number.
    pub fn name_of(number: u64) -> String {
        format!("{number:010}.parquet")
    }

    /// The key of its record in the catalog.
    pub fn key_of(number: u64) -> String {
        format!("{number:010}")
    }

    /// The extent of a topic in it.
    pub fn topic(&self, topic: TopicId) -> Option<&TopicExtent> {
        self.topics.iter().find(|extent| extent.topic == topic)
    }

    /// The record's bytes. A partition takes at most 20 of them, the rest of a topic some 70: who gives a file its topics
    /// keeps the whole below [`META_VALUE_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD_VERSION];
        bincode::encode_into_std_write(self, &mut out, bincode::config::standard())
            .expect("writing plain structs to memory does not fail");
        out
    }

    /// The record written by [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<FileRecord, CodecError> {
        let version = bytes.first().copied().unwrap_or_default();
        let bad = || CodecError::Invalid { what: "history file record", value: u64::from(version) };
        let body = bytes.get(1..).filter(|_| version == RECORD_VERSION).ok_or_else(bad)?;
        let (record, used) = bincode::decode_from_slice(body, wire_config()).map_err(|_| bad())?;
        if used == body.len() { Ok(record) } else { Err(bad()) }
    }
}

/// A row group of a history file: records of one topic.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct GroupSummary {
    /// The topic.
    pub topic: TopicId,
    /// Its records.
    pub extent: Extent,
    /// How many of its values did not decode; all, if the topic has no columns.
    pub undecoded: u32,
    /// What makes it possible not to read some columns.
    pub(super) known: Known,
}

/// Columns that are known without reading them. `None`: they have to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Known {
    /// Stretches of consecutive positions: the first position and how many.
    pub positions: Option<Vec<(u64, u32)>>,
    /// Append times and how many rows in a row have each.
    pub append_times: Option<Vec<(i64, u32)>>,
    /// Partitions and how many rows in a row have each.
    pub partitions: Option<Vec<(u32, u32)>>,
    /// Timestamps and how many rows in a row have each.
    pub timestamps: Option<Vec<(Option<i64>, u32)>>,
    /// Each partition's offsets go up by one, from the first of its extent.
    pub offsets_dense: bool,
    /// No key is there.
    pub keys_null: bool,
    /// All headers are there and empty.
    pub headers_empty: bool,
    /// All values that did not decode are null.
    pub undecoded_null: bool,
}
