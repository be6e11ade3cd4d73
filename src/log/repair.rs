//! Losses that were accepted: known damage gets a record in the log, so that it has its place in the order, and readers pass
//! it from then on. Nothing is deleted.

use crate::codec::CodecError;
use crate::error::{ErrorKind, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{CatalogView, MetaRecord, MetaSpace};
use crate::log::index::Located;
use crate::log::open::{is_in_history, name_offsets, sealed_of};
use crate::log::reader::{Reader, named_damage_of};
use crate::log::report::{Damage, DamageKind, LostOffsets};
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{FrameSeq, Offset, PartitionId, Position, TopicId};
use std::sync::{Arc, PoisonError};

/// The value of a [`MetaSpace::Loss`] record.
#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    kind: u8,
    file: String,
    bytes: (u64, u64),
    frames: (u64, u64),
    positions: (u64, u64),
    offsets: Vec<WireOffsets>,
}

/// Topic, partition, first offset and the one after the last, certain.
type WireOffsets = (u32, u32, u64, u64, bool);

const WIRE_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ crate::log::catalog::META_VALUE_MAX }>()
}

fn number(kind: DamageKind) -> u8 {
    match kind {
        DamageKind::Frames => 1,
        DamageKind::Records => 2,
        DamageKind::Metadata => 3,
    }
}

/// The record that accepts a loss. Keys are in order of position.
fn record(loss: &Damage) -> MetaRecord {
    let offsets =
        |lost: &LostOffsets| (lost.topic.0, lost.partition.0, lost.offsets.0.0, lost.offsets.1.0, lost.certain);
    let kind = number(loss.kind);
    let wire = Wire {
        version: WIRE_VERSION,
        kind,
        file: loss.file.clone(),
        bytes: loss.bytes,
        frames: (loss.frames.0.0, loss.frames.1.0),
        positions: (loss.positions.0.0, loss.positions.1.0),
        offsets: loss.offsets.iter().map(offsets).collect(),
    };
    let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    let key = format!("{:020}/{:020}/{kind}", loss.positions.0.0, loss.frames.0.0);
    MetaRecord { space: MetaSpace::Loss, key, value: Some(value) }
}

fn decode(value: &[u8]) -> Result<Damage, CodecError> {
    let bad = |what| CodecError::Invalid { what, value: value.len() as u64 };
    let (wire, used): (Wire, usize) =
        bincode::decode_from_slice(value, wire_config()).map_err(|_| bad("accepted loss"))?;
    let kinds = [DamageKind::Frames, DamageKind::Records, DamageKind::Metadata];
    let kind = kinds.into_iter().find(|kind| number(*kind) == wire.kind).ok_or(bad("kind of a loss"))?;
    if used != value.len() || wire.version != WIRE_VERSION {
        return Err(bad("accepted loss"));
    }
    let offsets = |(topic, partition, from, to, certain)| LostOffsets {
        topic: TopicId(topic),
        name: None,
        partition: PartitionId(partition),
        offsets: (Offset(from), Offset(to)),
        certain,
    };
    Ok(Damage {
        kind,
        file: wire.file,
        bytes: wire.bytes,
        frames: (FrameSeq(wire.frames.0), FrameSeq(wire.frames.1)),
        positions: (Position(wire.positions.0), Position(wire.positions.1)),
        offsets: wire.offsets.into_iter().map(offsets).collect(),
    })
}

/// The losses that were accepted, in order of position. A record that cannot be read accepts nothing.
pub(crate) fn accepted(view: &dyn CatalogView) -> Vec<Damage> {
    view.scan(MetaSpace::Loss, "").iter().filter_map(|(_, value)| decode(value).ok()).collect()
}

/// True if one of the accepted losses is what is damaged.
pub(crate) fn covers(losses: &[Damage], damage: &Damage) -> bool {
    let within = |loss: &Damage| {
        let frames = loss.frames.0 <= damage.frames.0 && damage.frames.1 <= loss.frames.1;
        let positions = loss.positions.0 <= damage.positions.0 && damage.positions.1 <= loss.positions.1;
        loss.kind == damage.kind && frames && positions
    };
    losses.iter().any(within)
}

/// Everything that is damaged and was not accepted: what opening the log found (`known`), what was found since, and, after
/// reading all records, what only shows when it is read.
pub(crate) fn find(shared: &Arc<Shared>, known: &[Damage]) -> Result<Vec<Damage>> {
    let mut found = known.to_vec();
    let mut add = |damage: Damage| {
        if !covers(&found, &damage) {
            found.push(damage);
        }
    };
    shared.index(|index| index.lost.clone()).into_iter().for_each(&mut add);
    let topics: Vec<TopicId> = shared.topics(|topics| topics.all().iter().map(Topic::id).collect());
    let mut reader = Reader::new(shared.clone(), &topics, Position(0));
    let mut from = Position(0);
    while let Some(located) = next(shared, &topics, from) {
        if let Err(error) = reader.read(&located) {
            if error.kind() != ErrorKind::Damage {
                return Err(error);
            }
            add(named_damage_of(shared, &located));
        }
        from = located.end();
    }
    let (losses, sealed) = {
        let state = shared.state();
        (accepted(&*state.view), sealed_of(&*state.view))
    };
    found.retain(|damage| !covers(&losses, damage) && !is_in_history(damage, sealed.as_ref()));
    found.extend(shared.index(|index| index.history.lost.clone()));
    found.sort_by_key(|damage| (damage.positions, damage.frames));
    shared.topics(|topics| name_offsets(&mut found, topics));
    Ok(found)
}

fn next(shared: &Shared, topics: &[TopicId], from: Position) -> Option<Located> {
    shared.index(|index| index.find(topics, from, |_, _| true))
}

/// Accepts all of this as lost, in one frame.
pub(crate) fn accept(shared: &Arc<Shared>, losses: &[Damage]) -> Result<()> {
    if losses.is_empty() {
        return Ok(());
    }
    let records = losses.iter().map(record).collect();
    shared.append(AppendBatch::meta(records), true)?.wait()?;
    shared.index.write().unwrap_or_else(PoisonError::into_inner).accept(losses);
    Ok(())
}
