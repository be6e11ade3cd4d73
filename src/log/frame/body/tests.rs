//! Bodies and whole frames come back; bytes of an enemy neither panic nor allocate without bound.

use super::*;
use crate::log::frame::directory::{ProducerMark, Run, TopicEntry};
use crate::log::frame::encode::{FrameInput, TopicInput, encode as encode_frame};
use crate::log::frame::header::{FRAMES_AT, set_synced_end};
use crate::log::records::{Partitioning, Record};
use crate::log::scan::{Item, Scan, Section};
use crate::types::{FrameSeq, Offset, PartitionId, TopicId};
use arrow::array::Array as _;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Given = (u32, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, bool);

fn given(partitions: u32) -> impl Strategy<Value = Given> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12));
    (0..partitions, proptest::option::of(any::<i64>()), bytes(), bytes(), any::<bool>())
}

fn parts() -> impl Strategy<Value = Vec<Vec<Given>>> {
    prop_oneof![Just(1u32), Just(3), Just(300), Just(crate::log::topic::PARTITIONS_MAX)].prop_flat_map(|partitions| {
        proptest::collection::vec(proptest::collection::vec(given(partitions), 1..20), 1..4)
    })
}

fn rows(given: &[Given]) -> Rows {
    let mut rows = Rows::default();
    for (partition, timestamp_ms, key, value, with_header) in given {
        rows.partitions.push(*partition);
        let headers: &[(&str, Option<&[u8]>)] = if *with_header { &[("h", Some(b"v"))] } else { &[] };
        let record = Record { timestamp_ms: *timestamp_ms, key: key.as_deref(), value: value.as_deref(), headers };
        rows.columns.push(Partitioning::ByKey, &record);
    }
    rows
}

fn runs(given: &[Given]) -> Vec<Run> {
    let mut runs: BTreeMap<u32, Run> = BTreeMap::new();
    for (partition, ..) in given {
        let base = Offset(u64::from(*partition) * 10);
        let new = Run { partition: PartitionId(*partition), base, count: 0, producer: ProducerMark::NONE };
        runs.entry(*partition).or_insert(new).count += 1;
    }
    runs.into_values().collect()
}

fn frame(parts: &[Vec<Given>], codec: Codec) -> Vec<u8> {
    let made: Vec<Rows> = parts.iter().map(|part| rows(part)).collect();
    let input = FrameInput {
        seq: FrameSeq(1),
        first_position: Position(100),
        append_time: AppendTime(-3),
        clock_floor: None,
        topics: vec![TopicInput {
            topic: TopicId(4),
            parts: made.iter().collect(),
            runs: runs(&parts.concat()),
            codec: None,
        }],
        meta: vec![b"me", b"ta"],
    };
    let mut bytes = Vec::new();
    encode_frame(&input, 7, codec, &mut bytes);
    set_synced_end(&mut bytes, 7, FRAMES_AT, FrameSeq(0));
    bytes
}

proptest! {
    #[test]
    fn frames_come_back(parts in parts(), codec in prop_oneof![Just(Codec::Plain), Just(Codec::Lz4), Just(Codec::Zstd)]) {
        let bytes = frame(&parts, codec);
        let mut file = vec![0; usize::try_from(FRAMES_AT).unwrap()];
        file.extend_from_slice(&bytes);
        let items: Vec<Item<'_>> = Scan::new(&file, 7, true).collect();
        let [Item::Frame(found), Item::Tail { ended: true, .. }] = &items[..] else {
            return Err(TestCaseError::fail(format!("{items:?}")));
        };
        prop_assert!(found.intact());
        prop_assert_eq!(found.meta, Section::Intact(b"meta"));
        let entry = &found.topics.as_ref().unwrap()[0];
        let all = parts.concat();
        let times = all.iter().filter_map(|row| row.1);
        prop_assert_eq!(entry.timestamps, times.clone().min().zip(times.max()));
        let stored = Buffer::from_slice_ref(&bytes[entry.body_at as usize..][..entry.body_len as usize]);
        let body = decompress(entry.codec, &stored, entry.plain_len as usize).unwrap();
        let batch = decode(&body, entry, Position(100), AppendTime(-3)).unwrap();
        prop_assert_eq!(batch.len(), all.len());
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for (row, (partition, timestamp, key, value, with_header)) in all.iter().enumerate() {
            let bytes = |column: &BinaryArray| (!column.is_null(row)).then(|| column.value(row).to_vec());
            prop_assert_eq!(batch.partitions[row], *partition);
            let offset = next.entry(*partition).or_insert(u64::from(*partition) * 10);
            prop_assert_eq!(batch.offsets[row], *offset);
            *offset += 1;
            prop_assert_eq!((!batch.timestamps.is_null(row)).then(|| batch.timestamps.value(row)), *timestamp);
            prop_assert_eq!(&bytes(&batch.keys), key);
            prop_assert_eq!(&bytes(&batch.values), value);
            prop_assert!(!batch.headers.is_null(row));
            prop_assert_eq!(batch.headers.value(row).is_empty(), !with_header);
        }
    }

    #[test]
    fn a_body_with_changed_bytes_is_refused_or_read_but_never_panics(
        parts in parts(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()), records in 1u32..80, shift in any::<bool>(),
    ) {
        let made: Vec<Rows> = parts.iter().map(|part| rows(part)).collect();
        let mut bytes = Vec::new();
        encode(&made.iter().collect::<Vec<_>>(), &mut bytes);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let entry = TopicEntry {
            topic: TopicId(1), records, codec: Codec::Plain, timestamps: None, body_at: 0, body_len: 0, plain_len: 0,
            body_crc: 0, runs: runs(&parts.concat()),
        };
        // At a place where columns cannot be used as they lie, they are copied first.
        let mut moved = vec![0; 64 + usize::from(shift)];
        moved.extend_from_slice(&bytes);
        let body = Buffer::from_vec(moved).slice(64 + usize::from(shift));
        if let Ok(batch) = decode(&body, &entry, Position(0), AppendTime(0)) {
            prop_assert_eq!(batch.len(), records as usize);
        }
    }

    #[test]
    fn compressed_bytes_never_become_more_than_was_said(bytes in any::<Vec<u8>>(), len in 0usize..5_000) {
        let stored = Buffer::from_slice_ref(&bytes);
        for codec in [Codec::Lz4, Codec::Zstd] {
            if let Ok(plain) = decompress(codec, &stored, len) {
                prop_assert_eq!(plain.len(), len);
            }
        }
    }

    #[test]
    fn any_file_is_scanned_to_its_end(bytes in any::<Vec<u8>>(), frames in 0usize..3) {
        let mut file = vec![0; usize::try_from(FRAMES_AT).unwrap()];
        let one = frame(&[vec![(0, None, None, None, false)]], Codec::Plain);
        (0..frames).for_each(|_| file.extend_from_slice(&one));
        file.extend_from_slice(&bytes);
        let items: Vec<Item<'_>> = Scan::new(&file, 7, true).collect();
        let ends_with_tail = matches!(items.last(), Some(Item::Tail { .. }));
        prop_assert!(ends_with_tail);
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    assert!(decompress(Codec::Zstd, &Buffer::from_slice_ref(&bomb), 1_000).is_err());
    let bomb = lz4_flex::block::compress(&vec![0; 1 << 20]);
    assert!(decompress(Codec::Lz4, &Buffer::from_slice_ref(&bomb), 1_000).is_err());
}

#[test]
fn a_frame_has_these_bytes() {
    let given = vec![(0, Some(-1), Some(b"k".to_vec()), None, false), (0, None, Some(vec![]), None, false)];
    let bytes = frame(&[given], Codec::Plain);
    let digest = crate::codec::xxh64(&bytes, 0);
    assert_eq!((bytes.len(), &bytes[..8]), (224, &b"KFRM\x02\x00\x00\x00"[..]));
    assert_eq!(digest, GOLDEN, "the format changed: {digest:#018x}");
}

/// XXH64 of the frame above. If it changes, logs written before cannot be read: raise the format version.
const GOLDEN: u64 = 0xf974_5979_efd3_9ded;
