//! Removing the oldest records of a topic: by hand and by retention. A trim is a metadata record that says from where on a
//! topic's records are kept; the bytes go later, with the files that hold nothing else.

use crate::codec::CodecError;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::records::LogBatch;
use crate::log::seek::Look;
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// From where on a topic's records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// Records of the topic below this position are gone. No record of the topic lies between this position and the first
    /// that is left.
    pub first_position: Position,
    /// The position after the last removed record, at most `first_position`.
    pub removed_end: Position,
    /// The first offset that is left, or that the next record will get, by partition.
    pub first_offsets: Vec<Offset>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    first_position: u64,
    removed_end: u64,
    first_offsets: Vec<u64>,
}

const WIRE_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ 64 << 10 }>()
}

/// The key of a topic's trim.
pub(crate) fn key(topic: TopicId) -> String {
    format!("{:010}", topic.0)
}

impl Trim {
    fn record(&self, topic: TopicId) -> MetaRecord {
        let wire = Wire {
            version: WIRE_VERSION,
            first_position: self.first_position.0,
            removed_end: self.removed_end.0,
            first_offsets: self.first_offsets.iter().map(|offset| offset.0).collect(),
        };
        let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
        MetaRecord { space: MetaSpace::Trim, key: key(topic), value: Some(value) }
    }

    /// Reads the value of a trim record.
    pub(crate) fn decode(value: &[u8]) -> Result<Trim, CodecError> {
        let bad = CodecError::Invalid { what: "trim record", value: value.len() as u64 };
        let (wire, used): (Wire, usize) = bincode::decode_from_slice(value, wire_config()).map_err(|_| bad.clone())?;
        if used != value.len() || wire.version != WIRE_VERSION || wire.removed_end > wire.first_position {
            return Err(bad);
        }
        Ok(Trim {
            first_position: Position(wire.first_position),
            removed_end: Position(wire.removed_end),
            first_offsets: wire.first_offsets.into_iter().map(Offset).collect(),
        })
    }

    /// The first offset that is left in a partition.
    pub(crate) fn first_offset(&self, partition: PartitionId) -> Offset {
        self.first_offsets.get(partition.0 as usize).copied().unwrap_or_default()
    }
}

/// The trim that removes a topic's records before a position; `None` if that removes nothing.
fn plan(shared: &Arc<Shared>, topic: &Topic, before: Position) -> Result<Option<Trim>> {
    let mut look = Look::new(shared, topic);
    let before = before.min(look.end());
    let Some(removed_end) = look.end_before(before)? else { return Ok(None) };
    Ok(Some(Trim {
        first_position: look.first_at(before)?.unwrap_or(before),
        removed_end,
        first_offsets: look.offsets_at(before)?,
    }))
}

/// Removes the records of some topics before a position each, in one frame; tells which topics lost any.
pub(crate) fn trim(shared: &Arc<Shared>, cuts: &[(TopicId, Position)]) -> Result<Vec<(TopicId, Trim)>> {
    // Two trims at once could each undo a part of the other.
    let _one = shared.trimming.lock().unwrap_or_else(PoisonError::into_inner);
    let mut trims = Vec::new();
    for (id, before) in cuts {
        let topic = shared.topics(|topics| topics.by_id(*id))?;
        trims.extend(plan(shared, &topic, *before)?.map(|trim| (*id, trim)));
    }
    if !trims.is_empty() {
        let records = trims.iter().map(|(id, trim)| trim.record(*id)).collect();
        shared.append(AppendBatch::meta(records), true)?.wait()?;
    }
    Ok(trims)
}

const WAY_ON: &str = "read on from `earliest`: the first record that is left";

/// The next record of a reader is gone.
fn position_gone(topic: &Topic, position: Position, trim: &Trim) -> Error {
    let mut left: Vec<String> = (0..)
        .zip(&trim.first_offsets)
        .take(4)
        .map(|(partition, offset)| format!("partition {partition} offset {offset}"))
        .collect();
    if trim.first_offsets.len() > left.len() {
        left.push("...".to_owned());
    }
    let message = format!(
        "topic {}: records from position {position} on were removed; what is left starts at position {} ({})",
        topic.name(),
        trim.first_position,
        left.join(", ")
    );
    Error::new(ErrorKind::Gone, message).with_hint(WAY_ON)
}

/// An error if a record of the topic at or behind this position was removed. Position 0 is the start, wherever that is.
pub(crate) fn check_position(topic: &Topic, position: Position, trim: Option<&Trim>) -> Result<()> {
    match trim {
        Some(trim) if position > Position(0) && position < trim.removed_end => {
            Err(position_gone(topic, position, trim))
        }
        _ => Ok(()),
    }
}

/// An error if the record of this offset was removed.
pub(crate) fn check_offset(topic: &Topic, partition: PartitionId, offset: Offset, trim: Option<&Trim>) -> Result<()> {
    match trim.map(|trim| (trim.first_offset(partition), trim)) {
        Some((first, trim)) if offset < first => {
            let message = format!(
                "topic {} partition {partition}: offset {offset} was removed; what is left starts at offset {first} (position {})",
                topic.name(),
                trim.first_position
            );
            Err(Error::new(ErrorKind::Gone, message).with_hint(WAY_ON))
        }
        _ => Ok(()),
    }
}

/// Where a reader may read in each of its topics.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    /// The first position that is left, of topics that were trimmed.
    first: BTreeMap<TopicId, Position>,
    /// Ends of what had been removed when the reader started at the start.
    passed: BTreeMap<TopicId, Position>,
}

impl Floors {
    /// Drops topics that were deleted, and takes note of what was trimmed, for a reader that has read its topics up to
    /// `position`. [`ErrorKind::Gone`]: a record that it has not read was removed.
    pub fn look(&mut self, shared: &Shared, topics: &mut Vec<TopicId>, position: Position) -> Result<()> {
        shared.topics(|all| {
            topics.retain(|id| all.by_id(*id).is_ok());
            for id in topics.iter() {
                let Some(trim) = all.trim_of(*id) else { continue };
                if position == Position(0) {
                    self.passed.insert(*id, trim.removed_end);
                } else if self.passed.get(id).is_none_or(|passed| *passed < trim.removed_end) {
                    check_position(&all.by_id(*id)?, position, Some(&trim))?;
                }
                self.first.insert(*id, trim.first_position);
            }
            Ok(())
        })
    }

    /// The first position that is left of a topic.
    pub fn of(&self, topic: TopicId) -> Position {
        self.first.get(&topic).copied().unwrap_or_default()
    }

    /// The first position that is left of any of these topics.
    pub fn least(&self, topics: &[TopicId]) -> Position {
        topics.iter().map(|topic| self.of(*topic)).min().unwrap_or_default()
    }

    /// The rows of a batch that are left.
    pub fn left(&self, batch: LogBatch) -> Option<LogBatch> {
        let floor = self.of(batch.topic);
        if batch.first_position() >= floor { Some(batch) } else { batch.between(floor, Position(u64::MAX)) }
    }
}
