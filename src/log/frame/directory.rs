//! The directory of a frame: which topics, partitions and offsets it holds and where their bodies are. It has a CRC of its
//! own, so damage to a body costs only that topic's records, and it is known which.
//!
//! Per topic, in order of position, 48 bytes and then its runs:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | topic |
//! | 4 | 4 | records |
//! | 8 | 1 | codec: 0 plain, 1 lz4, 2 zstd |
//! | 9 | 1 | 1 if any record has a timestamp, else 0 |
//! | 10 | 2 | 0 |
//! | 12 | 4 | runs |
//! | 16 | 8 | smallest timestamp, ms |
//! | 24 | 8 | largest timestamp, ms |
//! | 32 | 4 | where the body begins in the frame |
//! | 36 | 4 | bytes of the body as stored, without padding |
//! | 40 | 4 | bytes of the body decompressed |
//! | 44 | 4 | CRC of the body as stored, with padding |
//!
//! A run is records of one partition and one producer that follow each other within the partition, 32 bytes:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | partition |
//! | 4 | 4 | records |
//! | 8 | 8 | offset of the first |
//! | 16 | 8 | producer id, -1 = none |
//! | 24 | 2 | producer epoch, -1 = none |
//! | 26 | 2 | 0 |
//! | 28 | 4 | producer sequence of the first, -1 = none |

use super::header::FrameHeader;
use super::{Codec, padded};
use crate::codec::{CodecError, Reader};
use crate::log::topic::PARTITIONS_MAX;
use crate::types::{Offset, PartitionId, TopicId};

const TOPIC_LEN: usize = 48;
const RUN_LEN: usize = 32;

/// Largest decompressed body that is read.
pub const BODY_MAX: u32 = 1 << 30;

/// Most records that a topic can have in a frame: rows without content take no bytes in a body, so its length is no bound.
pub const ROWS_MAX: u32 = 1 << 22;

/// Who wrote a run, for producers that number their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerMark {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub sequence: i32,
}

impl ProducerMark {
    /// A producer that does not number its records.
    pub const NONE: ProducerMark = ProducerMark { id: -1, epoch: -1, sequence: -1 };
}

/// Records of one partition that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub base: Offset,
    /// Number of records.
    pub count: u32,
    /// Who wrote them.
    pub producer: ProducerMark,
}

/// One topic of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicEntry {
    /// The topic.
    pub topic: TopicId,
    /// Number of records.
    pub records: u32,
    /// How the body is stored.
    pub codec: Codec,
    /// Smallest and largest timestamp in ms; `None` if no record has one.
    pub timestamps: Option<(i64, i64)>,
    /// Where the body begins in the frame.
    pub body_at: u32,
    /// Bytes of the body as stored.
    pub body_len: u32,
    /// Bytes of the body decompressed.
    pub plain_len: u32,
    /// CRC of the body as stored.
    pub body_crc: u32,
    /// By partition, then offset.
    pub runs: Vec<Run>,
}

/// Bytes of the directory of topics with these numbers of runs.
pub(crate) fn encoded_len(runs: impl Iterator<Item = usize>) -> usize {
    runs.map(|runs| TOPIC_LEN + runs * RUN_LEN).sum()
}

/// Appends the directory.
pub fn encode(topics: &[TopicEntry], out: &mut Vec<u8>) {
    for entry in topics {
        let (min, max) = entry.timestamps.unwrap_or_default();
        out.extend_from_slice(&entry.topic.0.to_le_bytes());
        out.extend_from_slice(&entry.records.to_le_bytes());
        out.extend_from_slice(&[entry.codec.number(), u8::from(entry.timestamps.is_some()), 0, 0]);
        out.extend_from_slice(&super::narrow(entry.runs.len()).to_le_bytes());
        out.extend_from_slice(&min.to_le_bytes());
        out.extend_from_slice(&max.to_le_bytes());
        for field in [entry.body_at, entry.body_len, entry.plain_len, entry.body_crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for run in &entry.runs {
            out.extend_from_slice(&run.partition.0.to_le_bytes());
            out.extend_from_slice(&run.count.to_le_bytes());
            out.extend_from_slice(&run.base.0.to_le_bytes());
            out.extend_from_slice(&run.producer.id.to_le_bytes());
            out.extend_from_slice(&run.producer.epoch.to_le_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&run.producer.sequence.to_le_bytes());
        }
    }
}

/// Reads a directory whose CRC was checked, and checks that it agrees with the header and itself.
pub fn decode(bytes: &[u8], header: &FrameHeader) -> Result<Vec<TopicEntry>, CodecError> {
    let mut reader = Reader::new(bytes);
    let mut topics = Vec::new();
    let mut records = 0u64;
    let mut free_from = header.bodies_at() as u64;
    for _ in 0..header.topics {
        let entry = decode_topic(&mut reader)?;
        let end = u64::from(entry.body_at) + padded(entry.body_len as usize) as u64;
        if u64::from(entry.body_at) != free_from || end > u64::from(header.frame_len) {
            return Err(CodecError::Invalid { what: "body place", value: u64::from(entry.body_at) });
        }
        free_from = end;
        records += u64::from(entry.records);
        topics.push(entry);
    }
    if records != u64::from(header.records) || reader.left() > 0 || free_from != u64::from(header.frame_len) {
        return Err(CodecError::Invalid { what: "records of the directory", value: records });
    }
    Ok(topics)
}

fn decode_topic(reader: &mut Reader<'_>) -> Result<TopicEntry, CodecError> {
    let topic = TopicId(reader.u32("topic")?);
    let records = reader.u32("topic records")?;
    let codec = Codec::from_number(reader.u8("codec")?)?;
    let timed = reader.u8("timestamps")? != 0;
    reader.u16("directory")?;
    let runs_len = reader.u32("runs")?;
    let (min, max) = (reader.i64("smallest timestamp")?, reader.i64("largest timestamp")?);
    let mut entry = TopicEntry {
        topic,
        records,
        codec,
        timestamps: timed.then_some((min, max)),
        body_at: reader.u32("body place")?,
        body_len: reader.u32("body length")?,
        plain_len: reader.u32("plain length")?,
        body_crc: reader.u32("body CRC")?,
        runs: Vec::new(),
    };
    if records > ROWS_MAX {
        return Err(CodecError::Invalid { what: "topic records", value: u64::from(records) });
    }
    let plain_fits = entry.codec != Codec::Plain || entry.plain_len == entry.body_len;
    if records == 0 || !plain_fits || entry.plain_len > BODY_MAX {
        return Err(CodecError::Invalid { what: "body length", value: u64::from(entry.plain_len) });
    }
    let mut left = u64::from(records);
    for _ in 0..runs_len {
        let run = decode_run(reader)?;
        left = left
            .checked_sub(u64::from(run.count))
            .filter(|_| run.count > 0 && run.base.0.checked_add(u64::from(run.count)).is_some())
            .ok_or(CodecError::Invalid { what: "run length", value: u64::from(run.count) })?;
        entry.runs.push(run);
    }
    if left > 0 {
        return Err(CodecError::Invalid { what: "records without a run", value: left });
    }
    Ok(entry)
}

fn decode_run(reader: &mut Reader<'_>) -> Result<Run, CodecError> {
    let partition = PartitionId(reader.u32("run partition")?);
    if partition.0 >= PARTITIONS_MAX {
        return Err(CodecError::Invalid { what: "run partition", value: u64::from(partition.0) });
    }
    let count = reader.u32("run length")?;
    let base = Offset(reader.u64("run offset")?);
    let id = reader.i64("producer id")?;
    let epoch = i16::from_le_bytes(reader.u16("producer epoch")?.to_le_bytes());
    reader.u16("run")?;
    let sequence = i32::from_le_bytes(reader.u32("producer sequence")?.to_le_bytes());
    Ok(Run { partition, base, count, producer: ProducerMark { id, epoch, sequence } })
}
