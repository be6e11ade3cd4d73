//! A client that sends bytes which are a frame: they are a value, whatever happens to the frame around them.

use super::*;
use crate::env::sim::Sim;
use crate::log::frame::body::Rows;
use crate::log::frame::directory::{ProducerMark, Run};
use crate::log::frame::encode::{FrameInput, TopicInput, encode};
use crate::log::frame::header::{FRAMES_AT, set_synced_end};
use crate::log::{AppendBatch, Codec, TopicConfig};
use crate::types::{AppendTime, FrameSeq, Offset};

/// A frame with one record of topic 1, for byte `at` of a file, by somebody who does not know the file's salt.
fn forged_frame(at: u64, seq: u64, position: u64) -> Vec<u8> {
    let rows = Rows { partitions: vec![0], columns: values(&["forged"]) };
    let run = Run { partition: PartitionId(0), base: Offset(position), count: 1, producer: ProducerMark::NONE };
    let input = FrameInput {
        seq: FrameSeq(seq),
        first_position: Position(position),
        append_time: AppendTime(1),
        clock_floor: None,
        topics: vec![TopicInput { topic: TopicId(1), parts: vec![&rows], runs: vec![run], codec: None }],
        meta: Vec::new(),
    };
    let mut frame = Vec::new();
    encode(&input, 0, Codec::Plain, &mut frame);
    set_synced_end(&mut frame, 0, at, FrameSeq(seq - 1));
    frame
}

/// Sends a value that is a frame for the very place where it comes to lie, then damages the header of the frame around it.
pub(super) fn no_payload_becomes_a_frame(options: &LogOptions) {
    let path = dir().join("journal").join(crate::log::journal::file_name(1));
    // The first round tells the forger where the value will lie; the clock and the sizes are the same in the second.
    let mut place = None;
    for round in 0..2 {
        let sim = Sim::new(3);
        let log = Log::open(&sim.env(), dir(), options.clone()).unwrap();
        let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
        let forged = forged_frame(place.unwrap_or(0), 2, 0);
        let mut columns = RecordColumns::default();
        let record = Record { timestamp_ms: None, key: None, value: Some(&forged), headers: &[] };
        columns.push(Partitioning::Fixed(PartitionId(0)), &record);
        log.append_wait(AppendBatch::records(topic, columns)).unwrap();
        log.append_wait(AppendBatch::records(topic, values(&["behind it"]))).unwrap();
        log.close().unwrap();
        let mut bytes = sim.disk.peek(&path).unwrap();
        let at = bytes.windows(forged.len()).position(|window| window == forged).expect("the value lies there");
        place = Some(at as u64);
        assert!(at as u64 > FRAMES_AT && at.is_multiple_of(8), "a frame could begin at {at}");
        let inspection = crate::log::inspect::inspect(&sim.env(), dir()).unwrap();
        let outer = inspection.files[0].frames.iter().find(|frame| frame.seq == 2).unwrap();
        bytes[outer.at as usize + 20] ^= 1;
        sim.disk.poke(&path, bytes);
        let log = Log::open(&sim.env(), dir(), options.clone()).unwrap();
        let mut reader = log.reader(&[topic], Position(0));
        let error = reader.next(log.durable_end()).expect_err("the damage is reported");
        assert!(error.message().contains("positions 0 to 0"), "round {round}: {error}");
        reader.skip_damage();
        let rest = reader.next(log.durable_end()).unwrap().unwrap();
        assert_eq!(rows_of(&rest)[0].value.as_deref(), Some(&b"behind it"[..]), "round {round}");
    }
}

#[test]
fn a_value_that_is_a_frame_is_never_taken_for_one() {
    no_payload_becomes_a_frame(&small());
}
