//! Metadata records: what they are, how they are written, and the views that hold their current state.
//!
//! The journal is the truth. A view can be deleted at any time: it says which frame it has applied, and the frames behind
//! that one bring it up to date. In a frame, metadata is a row of records, each bincode 2 with fixed-width integers:
//! version (1 byte), space (1 byte), key (8-byte length, UTF-8), value (1 byte 0 or 1, then 8-byte length, bytes).

mod memory;
mod sealed;
mod sled_view;

pub use memory::MemoryView;
pub use sealed::{SEALED_KEY, Sealed};
pub(crate) use sealed::{lost, lost_record};
pub use sled_view::SledView;

use crate::codec::CodecError;
use crate::error::{Error, Result};
use crate::types::FrameSeq;

/// Kinds of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum MetaSpace {
    /// Topics, by number. Written by the log itself.
    Topic,
    /// Declared schemas.
    Schema,
    /// Runs of jobs.
    Run,
    /// Progress of jobs.
    Progress,
    /// What was taken from files.
    Ingest,
    /// Offsets committed by consumers.
    Offset,
    /// Where the journal begins. Written by the log itself, as are all that follow up to [`Retention`](Self::Retention).
    Journal,
    /// Metadata snapshots, by name.
    Snapshot,
    /// History files, by number.
    History,
    /// Producers that number their records, by id.
    Producer,
    /// From where on a topic's records are kept, by topic.
    Trim,
    /// Losses that were accepted, by first position.
    Loss,
    /// What retention waits for.
    Retention,
    /// Checkpoints of jobs, by job and number.
    Checkpoint,
    /// Digests along the outputs of runs.
    Spans,
    /// Registered jobs and their versions, by name.
    Job,
}

impl MetaSpace {
    pub(crate) const ALL: [MetaSpace; 16] = [
        MetaSpace::Topic,
        MetaSpace::Schema,
        MetaSpace::Run,
        MetaSpace::Progress,
        MetaSpace::Ingest,
        MetaSpace::Offset,
        MetaSpace::Journal,
        MetaSpace::Snapshot,
        MetaSpace::History,
        MetaSpace::Producer,
        MetaSpace::Trim,
        MetaSpace::Loss,
        MetaSpace::Retention,
        MetaSpace::Checkpoint,
        MetaSpace::Spans,
        MetaSpace::Job,
    ];

    /// True for what only the log itself writes.
    pub(crate) fn is_own(self) -> bool {
        let own = MetaSpace::Journal.number()..=MetaSpace::Retention.number();
        self == MetaSpace::Topic || own.contains(&self.number())
    }

    /// Its number on disk, from 1.
    pub(crate) fn number(self) -> u8 {
        match self {
            MetaSpace::Topic => 1,
            MetaSpace::Schema => 2,
            MetaSpace::Run => 3,
            MetaSpace::Progress => 4,
            MetaSpace::Ingest => 5,
            MetaSpace::Offset => 6,
            MetaSpace::Journal => 7,
            MetaSpace::Snapshot => 8,
            MetaSpace::History => 9,
            MetaSpace::Producer => 10,
            MetaSpace::Trim => 11,
            MetaSpace::Loss => 12,
            MetaSpace::Retention => 13,
            MetaSpace::Checkpoint => 14,
            MetaSpace::Spans => 15,
            MetaSpace::Job => 16,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<MetaSpace> {
        MetaSpace::ALL.into_iter().find(|space| space.number() == number)
    }
}

/// One change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRecord {
    /// Which kind.
    pub space: MetaSpace,
    /// Which one; at most [`META_KEY_MAX`] bytes.
    pub key: String,
    /// Its new value, at most [`META_VALUE_MAX`] bytes; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

/// Longest key of a metadata record in bytes.
pub const META_KEY_MAX: usize = 1024;
/// Longest value of a metadata record in bytes.
pub const META_VALUE_MAX: usize = 1 << 20;

const RECORD_VERSION: u8 = 1;

#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    space: u8,
    key: String,
    value: Option<Vec<u8>>,
}

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ META_VALUE_MAX + META_KEY_MAX + 64 }>()
}

/// Checks the sizes of a record.
pub(crate) fn check(record: &MetaRecord) -> Result<()> {
    if record.key.len() > META_KEY_MAX {
        let message = format!("a metadata key has at most {META_KEY_MAX} bytes, this one has {}", record.key.len());
        return Err(Error::input(message));
    }
    let len = record.value.as_ref().map_or(0, Vec::len);
    if len > META_VALUE_MAX {
        let message = format!(
            "the metadata value of {:?} {:?} has {len} bytes: at most {META_VALUE_MAX} are allowed",
            record.space, record.key
        );
        return Err(Error::input(message));
    }
    Ok(())
}

/// Appends a checked record in the form it has in a frame.
pub(crate) fn encode(record: MetaRecord, out: &mut Vec<u8>) {
    let wire = Wire { version: RECORD_VERSION, space: record.space.number(), key: record.key, value: record.value };
    let bytes = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    out.extend_from_slice(&bytes);
}

/// Reads the records of a metadata section.
pub(crate) fn decode(mut section: &[u8]) -> Result<Vec<MetaRecord>, CodecError> {
    let mut records = Vec::new();
    while !section.is_empty() {
        let at = section.len() as u64;
        let (wire, used): (Wire, usize) = bincode::decode_from_slice(section, wire_config())
            .map_err(|_| CodecError::Invalid { what: "metadata record", value: at })?;
        if wire.version != RECORD_VERSION {
            return Err(CodecError::Invalid { what: "metadata version", value: u64::from(wire.version) });
        }
        let space = MetaSpace::from_number(wire.space)
            .ok_or(CodecError::Invalid { what: "metadata space", value: u64::from(wire.space) })?;
        records.push(MetaRecord { space, key: wire.key, value: wire.value });
        section = section.get(used..).unwrap_or_default();
    }
    Ok(records)
}

/// Which part of the journal a view has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The log's id.
    pub journal: u64,
    /// The last frame applied.
    pub applied: FrameSeq,
}

/// The current state of the catalog, as a function of the metadata records applied in order.
pub trait CatalogView: Send {
    /// The last frame applied.
    fn applied(&self) -> FrameSeq;
    /// The current value of a key.
    fn get(&self, space: MetaSpace, key: &str) -> Option<Vec<u8>>;
    /// Keys that start with `prefix`, in order, with their values.
    fn scan(&self, space: MetaSpace, prefix: &str) -> Vec<(String, Vec<u8>)>;
    /// Applies the records of frame `seq`, in order. Cheap: nothing is made durable.
    fn apply(&mut self, seq: FrameSeq, records: &[MetaRecord]);
    /// Puts what was applied where the next opening finds it. Failing costs that opening time, and nothing else.
    fn save(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests;
