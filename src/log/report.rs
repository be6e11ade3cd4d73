//! What opening a log found and did.

use crate::types::{FrameSeq, Offset, PartitionId, Position, TopicId};
use serde::{Serialize, Serializer};
use std::fmt;

/// Offsets of one partition that are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostOffsets {
    /// The topic.
    #[serde(serialize_with = "topic_number")]
    pub topic: TopicId,
    /// Its name, if known.
    pub name: Option<String>,
    /// The partition.
    #[serde(serialize_with = "partition_number")]
    pub partition: PartitionId,
    /// First lost offset and the one after the last.
    #[serde(serialize_with = "offset_pair")]
    pub offsets: (Offset, Offset),
    /// False if the damaged bytes do not tell: the records may have been of other partitions, and these offsets were never
    /// given out. They are left unused, so that none is given out twice.
    pub certain: bool,
}

fn topic_number<S: Serializer>(topic: &TopicId, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u32(topic.0)
}

fn partition_number<S: Serializer>(partition: &PartitionId, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u32(partition.0)
}

fn offset_pair<S: Serializer>(pair: &(Offset, Offset), out: S) -> Result<S::Ok, S::Error> {
    (pair.0.0, pair.1.0).serialize(out)
}

fn position_pair<S: Serializer>(pair: &(Position, Position), out: S) -> Result<S::Ok, S::Error> {
    (pair.0.0, pair.1.0).serialize(out)
}

fn seq_pair<S: Serializer>(pair: &(FrameSeq, FrameSeq), out: S) -> Result<S::Ok, S::Error> {
    (pair.0.0, pair.1.0).serialize(out)
}

/// What kind of bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// Whole frames: header or directory.
    Frames,
    /// The records of one topic in one frame.
    Records,
    /// The metadata records of one frame.
    Metadata,
}

/// Bytes that were durable once and do not match their checksums now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What is lost.
    pub kind: DamageKind,
    /// The file's name.
    pub file: String,
    /// First damaged byte and the one after the last.
    pub bytes: (u64, u64),
    /// First lost frame and the one after the last.
    #[serde(serialize_with = "seq_pair")]
    pub frames: (FrameSeq, FrameSeq),
    /// First lost position and the one after the last.
    #[serde(serialize_with = "position_pair")]
    pub positions: (Position, Position),
    /// The offsets lost, by topic and partition.
    pub offsets: Vec<LostOffsets>,
}

impl fmt::Display for LostOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "topic {name}")?,
            None => write!(f, "topic number {}", self.topic)?,
        }
        let (from, to) = self.offsets;
        let maybe = if self.certain { "" } else { "possibly " };
        write!(f, " partition {} {maybe}offsets {from} to {}", self.partition, to.0.saturating_sub(1))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DamageKind::Frames => "frames",
            DamageKind::Records => "records",
            DamageKind::Metadata => "metadata records",
        };
        write!(f, "{what} are damaged in {} bytes {} to {}", self.file, self.bytes.0, self.bytes.1)?;
        write!(f, " (frames {} to {}", self.frames.0, self.frames.1.0.saturating_sub(1))?;
        if self.positions.0 < self.positions.1 {
            write!(f, ", positions {} to {}", self.positions.0, self.positions.1.0 - 1)?;
        }
        f.write_str(")")?;
        for (number, offsets) in self.offsets.iter().enumerate() {
            write!(f, "{} {offsets}", if number == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// Bytes of a write that was never acknowledged, cut off and kept aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TornTail {
    /// The file's name.
    pub file: String,
    /// Where it was cut.
    pub at: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// The name of the file that keeps them; `None` where nothing was cut because nobody may write.
    pub kept_in: Option<String>,
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// Journal files.
    pub files: u64,
    /// Frames that can be read.
    pub frames: u64,
    /// The torn tail that was cut off.
    pub torn: Option<TornTail>,
    /// What is damaged. Everything else is served.
    pub damage: Vec<Damage>,
    /// What is damaged and was accepted as lost: readers pass it.
    pub accepted: Vec<Damage>,
    /// Copies of file headers that are damaged; the other copy serves.
    pub header_copies: Vec<String>,
    /// Files that had no intact footer and were scanned.
    pub footers: Vec<String>,
    /// Metadata snapshots that could not be used.
    pub snapshots: Vec<String>,
    /// What happened to the catalog view, if it was not as it should be.
    pub catalog: Option<String>,
}

impl RecoveryReport {
    /// True if there was nothing to repair and nothing is damaged that was not accepted.
    pub fn is_clean(&self) -> bool {
        let derived = self.footers.is_empty() && self.snapshots.is_empty() && self.catalog.is_none();
        self.torn.is_none() && self.damage.is_empty() && self.header_copies.is_empty() && derived
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames in {} files", self.frames, self.files)?;
        if let Some(torn) = &self.torn {
            write!(f, "\ntorn write: {} bytes behind byte {} of {} were cut off", torn.bytes, torn.at, torn.file)?;
            if let Some(kept) = &torn.kept_in {
                write!(f, " and kept in {kept}")?;
            }
        }
        for damage in &self.damage {
            write!(f, "\ndamage: {damage}")?;
        }
        for loss in &self.accepted {
            write!(f, "\naccepted loss: {loss}")?;
        }
        for copy in &self.header_copies {
            write!(f, "\nrepaired: {copy}")?;
        }
        for derived in self.footers.iter().chain(&self.snapshots) {
            write!(f, "\n{derived}")?;
        }
        if let Some(catalog) = &self.catalog {
            write!(f, "\n{catalog}")?;
        }
        Ok(())
    }
}
