//! The footer's bytes, that it comes back, and that no changed bit does.

use super::*;
use crate::log::frame::body::Rows;
use crate::log::frame::encode::{FrameInput, TopicInput, encode};
use crate::log::frame::header::set_synced_end;
use crate::log::records::{Partitioning, Record, RecordColumns};
use proptest::prelude::*;

fn file_header() -> FileHeader {
    FileHeader {
        number: 3,
        salt: 0x5a17,
        log_id: 9,
        first_seq: FrameSeq(10),
        first_position: Position(100),
        clock: AppendTime(1_000),
        previous_len: 8_192,
    }
}

/// A frame to be written: append time, clock floor, topics (number, timestamps, producer), metadata.
type Wanted = (i64, Option<i64>, Vec<(u32, Vec<Option<i64>>, bool)>, Vec<u8>);

/// A file of such frames, its builder, and where the frames end.
fn file(wanted: &[Wanted], codec: Codec) -> (Vec<u8>, FooterBuilder, u64) {
    let header = file_header();
    let mut bytes = header.encode();
    let mut builder = FooterBuilder::new(&header);
    let (mut seq, mut position) = (header.first_seq, header.first_position);
    for (append_time, floor, topics, meta) in wanted {
        let rows: Vec<Rows> = topics.iter().map(|(_, times, _)| rows(times)).collect();
        let topic = |((number, times, marked), rows): (&(u32, Vec<Option<i64>>, bool), _)| {
            let none = ProducerMark::NONE;
            let producer = if *marked { ProducerMark { id: 1 << 40, epoch: 3, sequence: 70 } } else { none };
            let count = u32::try_from(times.len()).unwrap();
            let run = Run { partition: PartitionId(2), base: Offset(seq.0 * 50), count, producer };
            TopicInput { topic: TopicId(*number), codec: None, parts: vec![rows], runs: vec![run] }
        };
        let input = FrameInput {
            seq,
            first_position: position,
            append_time: AppendTime(*append_time),
            clock_floor: floor.map(AppendTime),
            topics: topics.iter().zip(&rows).map(topic).collect(),
            meta: vec![meta],
        };
        let at = bytes.len() as u64;
        let mut frame = Vec::new();
        let (frame_header, entries) = encode(&input, header.salt, codec, &mut frame);
        let synced_end = FrameSeq(seq.0 - 1);
        set_synced_end(&mut frame, header.salt, at, synced_end);
        builder.bytes(&frame);
        builder.frame(at, &FrameHeader { synced_end, ..frame_header }, &entries);
        bytes.extend_from_slice(&frame);
        (seq, position) = (FrameSeq(seq.0 + 1), frame_header.end());
    }
    let end = bytes.len() as u64;
    (bytes, builder, end)
}

fn rows(times: &[Option<i64>]) -> Rows {
    let mut columns = RecordColumns::default();
    for timestamp_ms in times {
        let record = Record { timestamp_ms: *timestamp_ms, key: None, value: Some(&[7; 40]), headers: &[] };
        columns.push(Partitioning::Fixed(PartitionId(2)), &record);
    }
    Rows { partitions: vec![2; times.len()], columns }
}

fn example() -> Vec<Wanted> {
    vec![
        (1_005, None, vec![(1, vec![Some(-4), None], false)], vec![]),
        (1_005, Some(990), vec![], vec![1, 2, 3]),
        (1_500, None, vec![(1, vec![None], false), (70_000, vec![Some(5), Some(1 << 50)], true)], vec![9; 8]),
        (1_600, None, vec![], vec![]),
    ]
}

/// What scanning the file finds.
fn scanned(bytes: &[u8]) -> Vec<FooterFrame> {
    let scan = crate::log::scan::Scan::new(bytes, file_header().salt, true);
    let frame = |item| match item {
        crate::log::scan::Item::Frame(facts) => {
            Some(FooterFrame { at: facts.at, header: facts.header, topics: facts.topics? })
        }
        _ => None,
    };
    scan.filter_map(frame).collect()
}

#[test]
fn a_footer_has_these_bytes() {
    let (_, builder, end) = file(&example(), Codec::Plain);
    let footer = builder.finish(end).unwrap();
    let hex: String = footer.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

/// The footer above. If it changes, footers written before are scanned again: raise the format version.
const GOLDEN: &str = "000a0100654a212d0101020407008001d9eef286010204f40302001d0103562f7c17ef6ef7f40000de0701089161ca81\
5eac36fc0201010038f07a5587010202d804f0a20402040af6ffffffffffff0378c2bb3efe010205d804808080808040068c0101c80101000b0766a7\
000000004b41505041454e4470230000000000000d0000000000000069000000000000004006000000000000040000003c59a0d47a8ac18b00000000\
000000003b449a37";

#[test]
fn a_footer_says_what_scanning_the_file_says_and_no_changed_bit_comes_back() {
    for codec in [Codec::Plain, Codec::Zstd] {
        let (mut bytes, builder, end) = file(&example(), codec);
        let expected = scanned(&bytes);
        assert_eq!(expected.len(), 4);
        bytes.extend(builder.finish(end).unwrap());
        let (trailer, frames) = read(&bytes, &file_header()).unwrap();
        assert_eq!(frames, expected);
        assert_eq!((trailer.last_seq, trailer.end_position), (FrameSeq(13), Position(105)));
        assert_eq!((trailer.clock, trailer.frames), (AppendTime(1_600), 4));
        let from = usize::try_from(FRAMES_AT).unwrap();
        assert_eq!(trailer.frames_crc, crc32fast::hash(&bytes[from..usize::try_from(end).unwrap()]));
        for bit in end * 8..bytes.len() as u64 * 8 {
            let at = usize::try_from(bit / 8).unwrap();
            bytes[at] ^= 1 << (bit % 8);
            assert!(read(&bytes, &file_header()).is_err(), "bit {bit}");
            bytes[at] ^= 1 << (bit % 8);
        }
        for cut in usize::try_from(end).unwrap()..bytes.len() {
            assert!(read(&bytes[..cut], &file_header()).is_err(), "cut at {cut}");
        }
        let other = FileHeader { salt: 1, ..file_header() };
        assert!(read(&bytes, &other).is_err(), "another file's footer");
    }
}

#[test]
fn a_file_with_a_hole_has_no_footer() {
    let (_, builder, end) = file(&example(), Codec::Plain);
    assert!(builder.finish(end).is_some() && builder.finish(end + 8).is_none());
    let (bytes, _, end) = file(&example(), Codec::Plain);
    let frames = scanned(&bytes);
    for skipped in 0..frames.len() {
        let mut builder = FooterBuilder::new(&file_header());
        builder.bytes(&bytes[usize::try_from(FRAMES_AT).unwrap()..]);
        for (_, frame) in frames.iter().enumerate().filter(|(number, _)| *number != skipped) {
            builder.frame(frame.at, &frame.header, &frame.topics);
        }
        assert!(builder.finish(end).is_none(), "without frame {skipped}");
    }
}

prop_compose! {
    fn wanted()(
        times in proptest::collection::vec(any::<i64>(), 0..6),
        floors in proptest::collection::vec(proptest::option::of(any::<i64>()), 6),
        topics in proptest::collection::vec(
            proptest::collection::vec(
                (any::<u32>(), proptest::collection::vec(proptest::option::of(any::<i64>()), 1..4), any::<bool>()), 0..3),
            6),
        meta in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 6),
    ) -> Vec<Wanted> {
        times.into_iter().zip(floors).zip(topics.into_iter().zip(meta)).map(|((t, f), (o, m))| (t, f, o, m)).collect()
    }
}

proptest! {
    #[test]
    fn any_file_comes_back(wanted in wanted()) {
        let (mut bytes, builder, end) = file(&wanted, Codec::Lz4);
        let expected = scanned(&bytes);
        prop_assert_eq!(expected.len(), wanted.len());
        bytes.extend(builder.finish(end).unwrap());
        let (_, frames) = read(&bytes, &file_header()).unwrap();
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn any_bytes_read_without_panic(section in any::<Vec<u8>>(), frames in 0u32..5, end in any::<u64>()) {
        let sum = crc(file_header().salt, Part::Footer, end, 0, &section);
        let trailer = Trailer {
            frames_end: end,
            last_seq: FrameSeq(1),
            end_position: Position(1),
            clock: AppendTime(1),
            frames,
            frames_crc: 0,
            footer_crc: sum,
        };
        let _ = trailer.frames(&section, &file_header());
        let _ = Trailer::decode(&section, 1, end);
    }
}
