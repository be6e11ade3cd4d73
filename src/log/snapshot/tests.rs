//! A snapshot's bytes, that it comes back, and that no changed bit does.

use super::*;
use crate::env::Env;
use crate::log::catalog::MemoryView;
use proptest::prelude::*;

fn example() -> Snapshot {
    let sealed = Sealed { file: 4, end_seq: FrameSeq(91), end_position: Position(900), clock: AppendTime(77) };
    let ends = [((TopicId(1), PartitionId(0)), Offset(300)), ((TopicId(2), PartitionId(5)), Offset(0))];
    Snapshot {
        number: 7,
        log_id: 0xabcd,
        applied: FrameSeq(100),
        position: Position(1_000),
        clock: AppendTime(-3),
        entries: vec![
            (MetaSpace::Topic, "0000000001".into(), b"t".to_vec()),
            (MetaSpace::Journal, SEALED_KEY.into(), sealed.record().value.unwrap()),
            (MetaSpace::History, String::new(), vec![]),
        ],
        ends: Ends::from(ends),
        producers: b"pp".to_vec(),
    }
}

#[test]
fn a_snapshot_has_these_bytes() {
    let mut expected = b"KAPPASNP\x01\0\0\0\0\0\0\0".to_vec();
    for field in [7u64, 0xabcd, 100, 1_000, (-3i64).cast_unsigned(), 139] {
        expected.extend_from_slice(&field.to_le_bytes());
    }
    expected.extend_from_slice(b"\x03\x01\x0a0000000001\x01t\x07\x06sealed\x21\x01");
    for field in [4u64, 91, 900, 77] {
        expected.extend_from_slice(&field.to_le_bytes());
    }
    expected.extend_from_slice(b"\x09\0\0");
    expected.extend_from_slice(&[2, 1, 0, 0xac, 2, 2, 5, 0, 2, b'p', b'p']);
    expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
    assert_eq!(example().encode(), expected);
}

#[test]
fn a_snapshot_comes_back_and_no_changed_bit_does() {
    let mut bytes = example().encode();
    assert_eq!(Snapshot::decode(&bytes), Ok(example()));
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Snapshot::decode(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for cut in 0..bytes.len() {
        assert!(Snapshot::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let named = Named::of(&example(), &bytes);
    assert_eq!((named.applied, named.sealed_file, named.bytes), (100, 4, bytes.len() as u64));
    let record = named.record(7);
    assert_eq!((record.key.as_str(), Named::decode(&record.value.unwrap())), ("0000000007", Some(named)));
}

#[test]
fn a_view_is_brought_to_what_the_snapshot_holds() {
    let mut view = MemoryView::default();
    let put = |space, key: &str, value: &[u8]| MetaRecord { space, key: key.into(), value: Some(value.to_vec()) };
    view.apply(FrameSeq(3), &[put(MetaSpace::Run, "old", b"x"), put(MetaSpace::Topic, "0000000001", b"before")]);
    example().bring(&mut view);
    assert_eq!(view.applied(), FrameSeq(100));
    assert_eq!(view.scan(MetaSpace::Run, ""), []);
    assert_eq!(view.scan(MetaSpace::Topic, ""), [("0000000001".to_owned(), b"t".to_vec())]);
    let start = example().start();
    assert_eq!((start.seq, start.position, start.clock), (FrameSeq(91), Position(900), AppendTime(77)));
}

#[test]
fn the_newest_that_can_be_used_is_taken_and_the_others_are_named() {
    let (env, sim) = Env::sim(1);
    let data = Path::new("/data");
    let dir = data.join(META_DIR);
    assert!(newest(&env, data, 0xabcd).unwrap().snapshot.is_none());
    crate::env::create_dir_durably(&*env.disk, &dir).unwrap();
    for (number, applied) in [(1, 10), (2, 20), (3, 30), (4, 40)] {
        let snapshot = Snapshot { number, applied: FrameSeq(applied), ..example() };
        crate::env::replace_file(&*env.disk, &dir.join(file_name(number)), &snapshot.encode()).unwrap();
    }
    sim.disk.poke(&dir.join(file_name(4)), Snapshot { log_id: 7, ..example() }.encode());
    sim.disk.poke(&dir.join(file_name(3)), b"garbage".to_vec());
    let found = newest(&env, data, 0xabcd).unwrap();
    assert_eq!(found.snapshot.as_ref().map(|snapshot| snapshot.number), Some(2));
    assert!(found.skipped[0].contains("0000000004.snapshot"), "{found:?}");
    assert!(found.skipped[1].contains("0000000003.snapshot"), "{:?}", found.skipped);
    let other = newest(&env, data, 1).unwrap();
    assert!(other.snapshot.is_none() && other.skipped.len() == 4, "{other:?}");
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(mut bytes in any::<Vec<u8>>(), keep in 0usize..140) {
        let _ = Snapshot::decode(&bytes);
        let mut start = example().encode();
        start.truncate(keep);
        start.append(&mut bytes);
        start.extend_from_slice(&crc32fast::hash(&start).to_le_bytes());
        let _ = Snapshot::decode(&start);
    }
}
