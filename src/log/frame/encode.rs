//! Writing a whole frame.

use super::body::{self, Rows};
use super::directory::{self, Run, TopicEntry};
use super::header::{FRAME_HEADER_LEN, FrameHeader};
use super::{Codec, Part, crc, narrow, pad, padded};
use crate::types::{AppendTime, FrameSeq, Position, TopicId};

/// One topic of a frame to be written.
pub struct TopicInput<'a> {
    /// The topic.
    pub topic: TopicId,
    /// Its rows, in parts.
    pub parts: Vec<&'a Rows>,
    /// By partition.
    pub runs: Vec<Run>,
    /// How the body is written; `None` as the frame's other bodies.
    pub codec: Option<Codec>,
}

/// A frame to be written.
pub struct FrameInput<'a> {
    /// Its number.
    pub seq: FrameSeq,
    /// Position of its first record.
    pub first_position: Position,
    /// Append time of its records.
    pub append_time: AppendTime,
    /// A clock reading that its content depends on.
    pub clock_floor: Option<AppendTime>,
    /// In order of position.
    pub topics: Vec<TopicInput<'a>>,
    /// Encoded metadata records, in order.
    pub meta: Vec<&'a [u8]>,
}

/// Appends a frame to `out`, for a file with this salt. Its header is closed by
/// [`set_synced_end`](super::header::set_synced_end) once its place is known.
pub fn encode(input: &FrameInput<'_>, salt: u64, codec: Codec, out: &mut Vec<u8>) -> (FrameHeader, Vec<TopicEntry>) {
    let start = out.len();
    let directory_len = directory::encoded_len(input.topics.iter().map(|topic| topic.runs.len()));
    out.resize(start + FRAME_HEADER_LEN + directory_len, 0);
    let meta_at = out.len();
    for records in &input.meta {
        out.extend_from_slice(records);
    }
    let meta_len = out.len() - meta_at;
    pad(out);
    let meta_crc = crc(salt, Part::Meta, input.seq.0, 0, &out[meta_at..]);
    let topics: Vec<TopicEntry> =
        input.topics.iter().map(|topic| encode_topic(topic, input.seq, salt, codec, start, out)).collect();
    let mut directory = Vec::with_capacity(padded(directory_len));
    directory::encode(&topics, &mut directory);
    let directory_at = start + FRAME_HEADER_LEN;
    out[directory_at..meta_at].copy_from_slice(&directory);
    let header = FrameHeader {
        mark: topics.is_empty() && meta_len == 0,
        seq: input.seq,
        first_position: input.first_position,
        append_time: input.append_time,
        clock_floor: input.clock_floor,
        synced_end: FrameSeq(0),
        records: topics.iter().map(|topic| topic.records).sum(),
        topics: narrow(topics.len()),
        directory_len: narrow(directory_len),
        meta_len: narrow(meta_len),
        frame_len: narrow(out.len() - start),
        directory_crc: crc(salt, Part::Directory, input.seq.0, 0, &directory),
        meta_crc,
    };
    out[start..directory_at].copy_from_slice(&header.encode(salt, 0));
    (header, topics)
}

fn encode_topic(
    input: &TopicInput<'_>,
    seq: FrameSeq,
    salt: u64,
    codec: Codec,
    start: usize,
    out: &mut Vec<u8>,
) -> TopicEntry {
    let codec = input.codec.unwrap_or(codec);
    let at = out.len();
    body::encode(&input.parts, out);
    let plain_len = out.len() - at;
    let mut used = Codec::Plain;
    if let Some(packed) = body::compress(codec, &out[at..]) {
        out.truncate(at);
        out.extend_from_slice(&packed);
        used = codec;
    }
    let body_len = out.len() - at;
    pad(out);
    let times = input.parts.iter().flat_map(|part| part.columns.timestamps_ms.iter().flatten().copied());
    TopicEntry {
        topic: input.topic,
        records: input.runs.iter().map(|run| run.count).sum(),
        codec: used,
        timestamps: times.fold(None, |range: Option<(i64, i64)>, t| {
            Some(range.map_or((t, t), |(min, max)| (min.min(t), max.max(t))))
        }),
        body_at: narrow(at - start),
        body_len: narrow(body_len),
        plain_len: narrow(plain_len),
        body_crc: crc(salt, Part::Body, seq.0, input.topic.0, &out[at..]),
        runs: input.runs.clone(),
    }
}
