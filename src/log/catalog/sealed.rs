//! How far the journal has been sealed into history, and what was found lost on the way: metadata of the log's own.

use super::{MetaRecord, MetaSpace};
use crate::codec::CodecError;
use crate::log::report::{Damage, DamageKind, LostOffsets};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};

/// Key of [`Sealed`] in [`MetaSpace::Journal`].
pub const SEALED_KEY: &str = "sealed";
/// Keys of known losses in [`MetaSpace::Journal`] begin with this.
const LOST_PREFIX: &str = "lost/";

/// The records of all journal files up to a number are in history. They are not read from the journal any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Number of the last of these files.
    pub file: u64,
    /// The first frame behind them.
    pub end_seq: FrameSeq,
    /// The first position behind them: records below it are in history, all others in the journal.
    pub end_position: Position,
    /// The append clock when the file behind them was begun: no frame before it has a later append time.
    pub clock: AppendTime,
}

#[derive(bincode::Encode, bincode::Decode)]
struct SealedWire {
    version: u8,
    file: u64,
    end_seq: u64,
    end_position: u64,
    clock: i64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct LostWire {
    version: u8,
    whole_frames: bool,
    file: String,
    bytes: (u64, u64),
    frames: (u64, u64),
    positions: (u64, u64),
    /// Topic, its name, partition, first offset and the one after the last, certain.
    offsets: Vec<(u32, Option<String>, u32, u64, u64, bool)>,
}

const WIRE_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ super::META_VALUE_MAX }>()
}

fn put(key: String, wire: impl bincode::Encode) -> MetaRecord {
    let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    MetaRecord { space: MetaSpace::Journal, key, value: Some(value) }
}

fn get<T: bincode::Decode<()>>(bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    let bad = CodecError::Invalid { what, value: bytes.len() as u64 };
    let (wire, used) = bincode::decode_from_slice(bytes, wire_config()).map_err(|_| bad.clone())?;
    if used == bytes.len() { Ok(wire) } else { Err(bad) }
}

impl Sealed {
    /// The metadata record that says so.
    pub fn record(&self) -> MetaRecord {
        let wire = SealedWire {
            version: WIRE_VERSION,
            file: self.file,
            end_seq: self.end_seq.0,
            end_position: self.end_position.0,
            clock: self.clock.0,
        };
        put(SEALED_KEY.to_owned(), wire)
    }

    /// Reads the value of the record.
    pub fn decode(value: &[u8]) -> Result<Sealed, CodecError> {
        let wire: SealedWire = get(value, "sealed record")?;
        if wire.version != WIRE_VERSION {
            return Err(CodecError::Invalid { what: "sealed record version", value: u64::from(wire.version) });
        }
        Ok(Sealed {
            file: wire.file,
            end_seq: FrameSeq(wire.end_seq),
            end_position: Position(wire.end_position),
            clock: AppendTime(wire.clock),
        })
    }
}

/// The metadata record that remembers a loss whose journal file is being sealed.
pub(crate) fn lost_record(lost: &Damage) -> MetaRecord {
    let offsets = lost.offsets.iter().map(|lost| {
        let (from, to) = lost.offsets;
        (lost.topic.0, lost.name.clone(), lost.partition.0, from.0, to.0, lost.certain)
    });
    let wire = LostWire {
        version: WIRE_VERSION,
        whole_frames: lost.kind == DamageKind::Frames,
        file: lost.file.clone(),
        bytes: lost.bytes,
        frames: (lost.frames.0.0, lost.frames.1.0),
        positions: (lost.positions.0.0, lost.positions.1.0),
        offsets: offsets.collect(),
    };
    put(format!("{LOST_PREFIX}{:020}", lost.positions.0.0), wire)
}

/// The known losses of a catalog, in order of position.
pub(crate) fn lost(view: &dyn super::CatalogView) -> Result<Vec<Damage>, CodecError> {
    let found = view.scan(MetaSpace::Journal, LOST_PREFIX);
    found.into_iter().map(|(_, value)| decode_lost(&value)).collect()
}

fn decode_lost(value: &[u8]) -> Result<Damage, CodecError> {
    let wire: LostWire = get(value, "record of a loss")?;
    if wire.version != WIRE_VERSION {
        return Err(CodecError::Invalid { what: "version of a loss", value: u64::from(wire.version) });
    }
    let offsets = wire.offsets.into_iter().map(|(topic, name, partition, from, to, certain)| LostOffsets {
        topic: TopicId(topic),
        name,
        partition: PartitionId(partition),
        offsets: (Offset(from), Offset(to)),
        certain,
    });
    Ok(Damage {
        kind: if wire.whole_frames { DamageKind::Frames } else { DamageKind::Records },
        file: wire.file,
        bytes: wire.bytes,
        frames: (FrameSeq(wire.frames.0), FrameSeq(wire.frames.1)),
        positions: (Position(wire.positions.0), Position(wire.positions.1)),
        offsets: offsets.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{CatalogView as _, MemoryView};
    use super::*;

    #[test]
    fn both_kinds_of_record_come_back() {
        let sealed = Sealed { file: 7, end_seq: FrameSeq(8), end_position: Position(9), clock: AppendTime(-10) };
        let record = sealed.record();
        assert_eq!(Sealed::decode(&record.value.unwrap()), Ok(sealed));
        assert!(Sealed::decode(b"\x01").is_err());
        let offsets = LostOffsets {
            topic: TopicId(1),
            name: Some("t".into()),
            partition: PartitionId(2),
            offsets: (Offset(3), Offset(4)),
            certain: false,
        };
        let damage = Damage {
            kind: DamageKind::Records,
            file: "0000000001.journal".into(),
            bytes: (5, 6),
            frames: (FrameSeq(7), FrameSeq(8)),
            positions: (Position(9), Position(10)),
            offsets: vec![offsets],
        };
        let mut view = MemoryView::default();
        view.apply(FrameSeq(1), &[sealed.record(), lost_record(&damage)]);
        assert_eq!(lost(&view), Ok(vec![damage]));
    }
}
