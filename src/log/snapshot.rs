//! Metadata snapshots: the whole catalog and the end offsets of all partitions after one frame, in a file of their own.
//!
//! Journal files are removed once their records are in history; from then on a snapshot is what opening the log begins with.
//! A snapshot is durable before the journal names it, the two newest are kept, and a file goes only when both are younger
//! than it. Numbers are little-endian or varints; a block is a varint length and that many bytes.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `KAPPASNP` |
//! | 8 | 2 | format version |
//! | 10 | 6 | 0 |
//! | 16 | 8 | number of the snapshot |
//! | 24 | 8 | log id |
//! | 32 | 8 | sequence of the last frame that it contains |
//! | 40 | 8 | position after the last record |
//! | 48 | 8 | append clock, microseconds |
//! | 56 | 8 | bytes of the file |
//! | 64 | | entries (varint); for each: space (1 byte), key (block), value (block) |
//! | | | partitions (varint); for each: topic, partition, end offset (varints) |
//! | | | what is known of producers (block) |
//! | | 4 | CRC of everything before |

pub(crate) mod task;

use crate::codec::{CodecError, Reader, put_block, put_varint};
use crate::env::{DirEntry, Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{CatalogView, MetaRecord, MetaSpace, SEALED_KEY, Sealed};
use crate::log::journal::read_up_to;
use crate::log::recovery::{Ends, Start};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folder of the snapshots within the data folder.
pub(crate) const META_DIR: &str = "meta";

const ENDING: &str = ".snapshot";
const MAGIC: [u8; 8] = *b"KAPPASNP";
const VERSION: u16 = 1;
const CRC_LEN: usize = 4;

/// The name of snapshot `number`.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The catalog after a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub number: u64,
    pub log_id: u64,
    pub applied: FrameSeq,
    pub position: Position,
    pub clock: AppendTime,
    /// By space, then key.
    pub entries: Vec<(MetaSpace, String, Vec<u8>)>,
    pub ends: Ends,
    /// What is known of producers, in a form of its own.
    pub producers: Vec<u8>,
}

/// The value of a [`MetaSpace::Snapshot`] record: what a snapshot that is named in the journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Named {
    pub applied: u64,
    /// The last journal file whose records were in history; 0 = none.
    pub sealed_file: u64,
    pub bytes: u64,
    pub crc: u32,
}

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<64>()
}

impl Named {
    /// What the journal says about a snapshot with these bytes.
    pub fn of(snapshot: &Snapshot, bytes: &[u8]) -> Named {
        Named {
            applied: snapshot.applied.0,
            sealed_file: snapshot.sealed().map_or(0, |sealed| sealed.file),
            bytes: bytes.len() as u64,
            crc: crc32fast::hash(bytes),
        }
    }

    pub fn record(&self, number: u64) -> MetaRecord {
        let value = bincode::encode_to_vec(self, wire_config()).expect("writing plain structs to memory does not fail");
        MetaRecord { space: MetaSpace::Snapshot, key: key(number), value: Some(value) }
    }

    fn decode(bytes: &[u8]) -> Option<Named> {
        let (named, used) = bincode::decode_from_slice(bytes, wire_config()).ok()?;
        (used == bytes.len()).then_some(named)
    }
}

fn key(number: u64) -> String {
    format!("{number:010}")
}

/// The snapshots that the journal names, oldest first.
pub(crate) fn named(view: &dyn CatalogView) -> Vec<(u64, Named)> {
    let entries = view.scan(MetaSpace::Snapshot, "").into_iter();
    entries.filter_map(|(key, value)| Some((key.parse().ok()?, Named::decode(&value)?))).collect()
}

impl Snapshot {
    /// Up to where records were in history.
    pub fn sealed(&self) -> Option<Sealed> {
        let is_sealed =
            |(space, key, _): &&(MetaSpace, String, Vec<u8>)| *space == MetaSpace::Journal && key == SEALED_KEY;
        self.entries.iter().find(is_sealed).and_then(|(_, _, value)| Sealed::decode(value).ok())
    }

    /// Where the frames that it does not contain begin to be followed: behind the files whose records are in history.
    pub fn start(&self) -> Start {
        let mut start = Start { ends: self.ends.clone(), applied: self.applied, ..Start::default() };
        if let Some(sealed) = self.sealed() {
            start.seq = sealed.end_seq;
            start.position = sealed.end_position;
            start.clock = sealed.clock;
        }
        start.clock = start.clock.max(self.clock);
        start
    }

    /// Makes a view hold what the snapshot holds.
    pub fn bring(&self, view: &mut dyn CatalogView) {
        let there: BTreeSet<(MetaSpace, &str)> =
            self.entries.iter().map(|(space, key, _)| (*space, key.as_str())).collect();
        let mut records = Vec::new();
        for space in MetaSpace::ALL {
            let old = view.scan(space, "").into_iter().map(|(key, _)| key);
            let gone = old.filter(|key| !there.contains(&(space, key.as_str())));
            records.extend(gone.map(|key| MetaRecord { space, key, value: None }));
        }
        let put = |(space, key, value): &(MetaSpace, String, Vec<u8>)| MetaRecord {
            space: *space,
            key: key.clone(),
            value: Some(value.clone()),
        };
        records.extend(self.entries.iter().map(put));
        view.apply(self.applied, &records);
    }

    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        for field in [self.number, self.log_id, self.applied.0, self.position.0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.clock.0.to_le_bytes());
        let len_at = out.len();
        out.extend_from_slice(&[0; 8]);
        put_varint(&mut out, self.entries.len() as u64);
        for (space, key, value) in &self.entries {
            out.push(space.number());
            put_block(&mut out, key.as_bytes());
            put_block(&mut out, value);
        }
        put_varint(&mut out, self.ends.len() as u64);
        for ((topic, partition), end) in &self.ends {
            for field in [u64::from(topic.0), u64::from(partition.0), end.0] {
                put_varint(&mut out, field);
            }
        }
        put_block(&mut out, &self.producers);
        let len = (out.len() + CRC_LEN) as u64;
        out[len_at..len_at + 8].copy_from_slice(&len.to_le_bytes());
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a whole file.
    pub fn decode(bytes: &[u8]) -> Result<Snapshot, CodecError> {
        let covered = bytes.len().saturating_sub(CRC_LEN);
        let sum = Reader::new(bytes.get(covered..).unwrap_or_default()).u32("snapshot CRC")?;
        let covered = bytes.get(..covered).unwrap_or_default();
        if crc32fast::hash(covered) != sum {
            return Err(CodecError::Invalid { what: "snapshot CRC", value: u64::from(sum) });
        }
        let mut reader = Reader::new(covered);
        if reader.bytes(MAGIC.len(), "snapshot magic")? != MAGIC {
            return Err(CodecError::Invalid { what: "snapshot magic", value: 0 });
        }
        let version = reader.u16("snapshot version")?;
        if version != VERSION {
            return Err(CodecError::Invalid { what: "snapshot version", value: u64::from(version) });
        }
        reader.bytes(6, "snapshot header")?;
        let mut snapshot = Snapshot {
            number: reader.u64("snapshot number")?,
            log_id: reader.u64("log id")?,
            applied: FrameSeq(reader.u64("last frame")?),
            position: Position(reader.u64("end position")?),
            clock: AppendTime(reader.i64("clock")?),
            entries: Vec::new(),
            ends: Ends::new(),
            producers: Vec::new(),
        };
        let len = reader.u64("snapshot length")?;
        if len != bytes.len() as u64 {
            return Err(CodecError::Invalid { what: "snapshot length", value: len });
        }
        for _ in 0..reader.varint("entries")? {
            snapshot.entries.push(take_entry(&mut reader)?);
        }
        for _ in 0..reader.varint("partitions")? {
            let mut number = |what| narrow(reader.varint(what)?, what);
            let partition = (TopicId(number("topic")?), PartitionId(number("partition")?));
            snapshot.ends.insert(partition, Offset(reader.varint("end offset")?));
        }
        snapshot.producers = reader.block("producers")?.to_vec();
        match reader.left() {
            0 => Ok(snapshot),
            left => Err(CodecError::Invalid { what: "end of the snapshot", value: left as u64 }),
        }
    }
}

fn narrow(value: u64, what: &'static str) -> Result<u32, CodecError> {
    u32::try_from(value).map_err(|_| CodecError::Invalid { what, value })
}

fn take_entry(reader: &mut Reader<'_>) -> Result<(MetaSpace, String, Vec<u8>), CodecError> {
    let number = reader.u8("metadata space")?;
    let invalid = |what, value| CodecError::Invalid { what, value };
    let space = MetaSpace::from_number(number).ok_or(invalid("metadata space", u64::from(number)))?;
    let key = std::str::from_utf8(reader.block("metadata key")?)
        .map_err(|cause| invalid("metadata key", cause.valid_up_to() as u64))?;
    Ok((space, key.to_owned(), reader.block("metadata value")?.to_vec()))
}

/// The snapshot files of a data folder: number and path, oldest first.
pub(crate) fn list(env: &Env, data: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let dir = data.join(META_DIR);
    let io = |cause| Error::io("listing", &dir, cause);
    if !env.disk.exists(&dir).map_err(io)? {
        return Ok(Vec::new());
    }
    let of = |entry: DirEntry| Some((file_number(&entry.name)?, dir.join(&entry.name)));
    let mut files: Vec<(u64, PathBuf)> = env.disk.list(&dir).map_err(io)?.into_iter().filter_map(of).collect();
    files.sort();
    Ok(files)
}

/// Reads and verifies the snapshot `number` at `path`. [`ErrorKind::Damage`] if it does not verify.
pub(crate) fn read(env: &Env, path: &Path, number: u64, log_id: u64) -> Result<(Snapshot, Vec<u8>)> {
    let io = |cause| Error::io("reading", path, cause);
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    let len = file.len().map_err(io)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::internal("a snapshot beyond memory"))?];
    let filled = read_up_to(&*file, 0, &mut bytes).map_err(io)?;
    bytes.truncate(filled);
    let damaged = |why: &dyn std::fmt::Display| Error::damage(format!("the snapshot {}: {why}", path.display()));
    let snapshot = Snapshot::decode(&bytes).map_err(|cause| damaged(&cause))?;
    if (snapshot.number, snapshot.log_id) != (number, log_id) {
        return Err(damaged(&"it belongs to another log"));
    }
    Ok((snapshot, bytes))
}

/// The newest snapshot that can be used, and what was wrong with newer ones.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub snapshot: Option<Snapshot>,
    pub skipped: Vec<String>,
    /// All there are, by number.
    pub there: Vec<u64>,
}

/// Looks for the newest snapshot of this log that verifies. What it has seen was durable: a journal that ends before is damaged.
///
/// [`ErrorKind::Unavailable`] if none verifies and one of them could not be read: what it holds may be needed.
pub(crate) fn newest(env: &Env, data: &Path, log_id: u64) -> Result<Found> {
    let mut found = Found::default();
    let mut unread = None;
    let listed = list(env, data)?;
    found.there = listed.iter().map(|(number, _)| *number).collect();
    for (number, path) in listed.into_iter().rev() {
        match read(env, &path, number, log_id) {
            Ok((snapshot, _)) => {
                found.snapshot = Some(snapshot);
                return Ok(found);
            }
            Err(error) => {
                found.skipped.push(format!("snapshot {} was skipped: {}", file_name(number), error.message()));
                unread = unread.or((error.kind() != ErrorKind::Damage).then_some(error));
            }
        }
    }
    unread.map_or(Ok(found), Err)
}

/// What to say about snapshots that the journal names and that are not among those that are there.
pub(crate) fn missing<'a>(view: &dyn CatalogView, there: &'a [u64]) -> impl Iterator<Item = String> + use<'a> {
    let gone = named(view).into_iter().filter(|(number, _)| !there.contains(number));
    gone.map(|(number, _)| format!("snapshot {} is missing", file_name(number)))
}

#[cfg(test)]
mod tests;
