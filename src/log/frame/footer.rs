//! The footer of a journal file that is complete: the headers and directories of all its frames, so that opening the log
//! reads no frame of it. It lies behind the last frame; the next file is made only when it is durable.
//!
//! The frames of a file with a footer follow each other without a hole, so most of what their headers say follows from the
//! frame before and is not repeated. Numbers are varints (unsigned LEB128), those that may be negative in zigzag order,
//! CRCs 4 bytes. Per frame:
//!
//! | field |
//! |---|
//! | flags: 1 = mark, 2 = has a clock floor |
//! | append time - that of the frame before (of the file header's clock for the first), zigzag |
//! | clock floor - append time, zigzag, with flag 2 |
//! | sequence - `synced_end` |
//! | bytes of the metadata section; CRC of it if there are any |
//! | CRC of the directory |
//! | topics; for each: number, records, codec + 4 * (1 with timestamps), smallest timestamp zigzag and largest - smallest zigzag if it has any, bytes of the body, decompressed bytes if compressed, CRC of the body, runs |
//! | for each run: partition, 2 * count + (1 with a producer), base offset; producer id, epoch, sequence zigzag if there is one |
//!
//! Padded with zeros to a multiple of 8. Then the trailer, the last 64 bytes of the file:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `KAPPAEND` |
//! | 8 | 8 | where the frames end and this footer begins, in bytes |
//! | 16 | 8 | sequence of the last frame |
//! | 24 | 8 | position after the last record |
//! | 32 | 8 | largest append time or clock floor, of the file header's clock too |
//! | 40 | 4 | frames |
//! | 44 | 4 | CRC of the frames' bytes, not salted |
//! | 48 | 4 | CRC of the footer in front of the trailer, started with its place |
//! | 52 | 8 | 0 |
//! | 60 | 4 | CRC of bytes 0 to 59, started with the trailer's place |

use super::directory::{self, ProducerMark, Run, TopicEntry};
use super::header::{FRAME_HEADER_LEN, FRAMES_AT, FileHeader, FrameHeader};
use super::{Codec, Part, crc, pad, padded};
use crate::codec::{CodecError, Reader, put_varint};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};

/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"KAPPAEND";
const TRAILER_CRC_AT: usize = 60;
const FLAG_MARK: u8 = 1;
const FLAG_FLOOR: u8 = 2;
const FLAG_TIMED: u8 = 4;

/// A frame as its file's footer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterFrame {
    /// Byte in the file.
    pub at: u64,
    /// Its header.
    pub header: FrameHeader,
    /// Its directory.
    pub topics: Vec<TopicEntry>,
}

/// The end of a file that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the frames end and the footer begins.
    pub frames_end: u64,
    /// The last frame.
    pub last_seq: FrameSeq,
    /// The position after the last record.
    pub end_position: Position,
    /// Largest append time or clock floor.
    pub clock: AppendTime,
    /// Number of frames.
    pub frames: u32,
    /// CRC of the frames' bytes.
    pub frames_crc: u32,
    footer_crc: u32,
}

/// What the next frame must be if nothing is missing.
#[derive(Debug, Clone, Copy)]
struct Next {
    at: u64,
    seq: FrameSeq,
    position: Position,
    append_time: AppendTime,
    clock: AppendTime,
    frames: u32,
}

impl Next {
    fn first(header: &FileHeader) -> Next {
        Next {
            at: FRAMES_AT,
            seq: header.first_seq,
            position: header.first_position,
            append_time: header.clock,
            clock: header.clock,
            frames: 0,
        }
    }

    fn advance(&mut self, header: &FrameHeader) {
        self.at += u64::from(header.frame_len);
        self.seq = FrameSeq(header.seq.0.saturating_add(1));
        self.position = header.end();
        self.append_time = header.append_time;
        self.clock = self.clock.max(header.append_time).max(header.clock_floor.unwrap_or(AppendTime::MIN));
        self.frames += 1;
    }
}

/// Collects a file's frames while they are written.
#[derive(Clone)]
pub struct FooterBuilder {
    salt: u64,
    next: Next,
    out: Vec<u8>,
    frames_crc: crc32fast::Hasher,
    bytes: u64,
    whole: bool,
}

/// A place in the making of a footer.
#[derive(Clone)]
pub struct FooterMark {
    next: Next,
    len: usize,
    frames_crc: crc32fast::Hasher,
    bytes: u64,
    whole: bool,
}

impl FooterBuilder {
    /// For a file that begins with this header.
    pub fn new(header: &FileHeader) -> FooterBuilder {
        let frames_crc = crc32fast::Hasher::new();
        FooterBuilder {
            salt: header.salt,
            next: Next::first(header),
            out: Vec::new(),
            frames_crc,
            bytes: 0,
            whole: true,
        }
    }

    /// Takes the next frame, at byte `at`. A frame that does not follow the one before means that there will be no footer.
    pub fn frame(&mut self, at: u64, header: &FrameHeader, topics: &[TopicEntry]) {
        let follows = at == self.next.at && header.seq == self.next.seq && header.first_position == self.next.position;
        if !self.whole || !follows || header.frame_len != frame_len(header, topics) {
            self.whole = false;
            return;
        }
        put_frame(&mut self.out, header, topics, self.next.append_time);
        self.next.advance(header);
    }

    /// Where it is now, to go back to.
    pub fn mark(&self) -> FooterMark {
        let frames_crc = self.frames_crc.clone();
        FooterMark { next: self.next, len: self.out.len(), frames_crc, bytes: self.bytes, whole: self.whole }
    }

    /// Forgets what was taken since the mark.
    pub fn go_back(&mut self, mark: &FooterMark) {
        self.out.truncate(mark.len);
        (self.next, self.bytes, self.whole) = (mark.next, mark.bytes, mark.whole);
        self.frames_crc = mark.frames_crc.clone();
    }

    /// Takes the bytes of frames as they are in the file, in order.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.frames_crc.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The footer of a file whose frames end at `end`; `None` if not all of its frames were seen.
    pub fn finish(&self, end: u64) -> Option<Vec<u8>> {
        if !self.whole || self.next.at != end || FRAMES_AT + self.bytes != end {
            return None;
        }
        let mut out = self.out.clone();
        pad(&mut out);
        let trailer = Trailer {
            frames_end: end,
            last_seq: FrameSeq(self.next.seq.0 - 1),
            end_position: self.next.position,
            clock: self.next.clock,
            frames: self.next.frames,
            frames_crc: self.frames_crc.clone().finalize(),
            footer_crc: crc(self.salt, Part::Footer, end, 0, &out),
        };
        let at = end + out.len() as u64;
        out.extend_from_slice(&trailer.encode(self.salt, at));
        Some(out)
    }
}

impl Trailer {
    fn encode(&self, salt: u64, at: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_LEN);
        out.extend_from_slice(&MAGIC);
        for field in [self.frames_end, self.last_seq.0, self.end_position.0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.clock.0.to_le_bytes());
        for field in [self.frames, self.frames_crc, self.footer_crc] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(TRAILER_CRC_AT, 0);
        let sum = crc(salt, Part::Trailer, at, 0, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the last [`TRAILER_LEN`] bytes of a file of `file_len` bytes.
    pub fn decode(bytes: &[u8], salt: u64, file_len: u64) -> Result<Trailer, CodecError> {
        let mut reader = Reader::new(bytes);
        let covered = reader.clone().bytes(TRAILER_CRC_AT, "trailer")?;
        if reader.bytes(MAGIC.len(), "trailer magic")? != MAGIC {
            return Err(CodecError::Invalid { what: "trailer magic", value: 0 });
        }
        let trailer = Trailer {
            frames_end: reader.u64("end of the frames")?,
            last_seq: FrameSeq(reader.u64("last sequence")?),
            end_position: Position(reader.u64("end position")?),
            clock: AppendTime(reader.i64("clock")?),
            frames: reader.u32("frames")?,
            frames_crc: reader.u32("CRC of the frames")?,
            footer_crc: reader.u32("CRC of the footer")?,
        };
        reader.u64("trailer")?;
        let sum = reader.u32("trailer CRC")?;
        let at = file_len.saturating_sub(TRAILER_LEN as u64);
        if crc(salt, Part::Trailer, at, 0, covered) != sum || trailer.frames_end < FRAMES_AT || trailer.frames_end > at
        {
            return Err(CodecError::Invalid { what: "trailer CRC", value: u64::from(sum) });
        }
        Ok(trailer)
    }

    /// True if these are the bytes of the footer in front of this trailer.
    pub fn matches(&self, bytes: &[u8], salt: u64) -> bool {
        crc(salt, Part::Footer, self.frames_end, 0, bytes) == self.footer_crc
    }

    /// The frames that the footer in front of this trailer describes, `bytes` being all of it.
    pub fn frames(&self, bytes: &[u8], header: &FileHeader) -> Result<Vec<FooterFrame>, CodecError> {
        if !self.matches(bytes, header.salt) {
            return Err(CodecError::Invalid { what: "footer CRC", value: u64::from(self.footer_crc) });
        }
        let mut reader = Reader::new(bytes);
        let mut next = Next::first(header);
        let mut frames = Vec::new();
        for _ in 0..self.frames {
            let frame = take_frame(&mut reader, header.salt, &next)?;
            next.advance(&frame.header);
            frames.push(frame);
        }
        let ends = (next.at, FrameSeq(next.seq.0 - 1), next.position, next.clock);
        if ends != (self.frames_end, self.last_seq, self.end_position, self.clock) || reader.left() >= 8 {
            return Err(CodecError::Invalid { what: "end of the footer", value: next.at });
        }
        Ok(frames)
    }
}

/// The footer at the end of a whole file in memory.
pub fn read(file: &[u8], header: &FileHeader) -> Result<(Trailer, Vec<FooterFrame>), CodecError> {
    let at = file.len().saturating_sub(TRAILER_LEN);
    let trailer = Trailer::decode(file.get(at..).unwrap_or_default(), header.salt, file.len() as u64)?;
    let from = usize::try_from(trailer.frames_end).unwrap_or(usize::MAX);
    let frames = trailer.frames(file.get(from..at).unwrap_or_default(), header)?;
    Ok((trailer, frames))
}

/// Bytes of a frame, which follow from its other lengths; saturating.
fn frame_len(header: &FrameHeader, topics: &[TopicEntry]) -> u32 {
    let front =
        (FRAME_HEADER_LEN as u64 + u64::from(header.directory_len) + u64::from(header.meta_len)).next_multiple_of(8);
    let bodies: u64 = topics.iter().map(|entry| padded(entry.body_len as usize) as u64).sum();
    u32::try_from(front + bodies).unwrap_or(u32::MAX)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn put_frame(out: &mut Vec<u8>, header: &FrameHeader, topics: &[TopicEntry], before: AppendTime) {
    let floor = header.clock_floor;
    out.push(if header.mark { FLAG_MARK } else { 0 } | if floor.is_some() { FLAG_FLOOR } else { 0 });
    put_varint(out, zigzag(header.append_time.0.wrapping_sub(before.0)));
    if let Some(floor) = floor {
        put_varint(out, zigzag(floor.0.wrapping_sub(header.append_time.0)));
    }
    put_varint(out, header.seq.0.wrapping_sub(header.synced_end.0));
    put_varint(out, u64::from(header.meta_len));
    if header.meta_len > 0 {
        out.extend_from_slice(&header.meta_crc.to_le_bytes());
    }
    out.extend_from_slice(&header.directory_crc.to_le_bytes());
    put_varint(out, topics.len() as u64);
    for entry in topics {
        put_topic(out, entry);
    }
}

fn put_topic(out: &mut Vec<u8>, entry: &TopicEntry) {
    put_varint(out, u64::from(entry.topic.0));
    put_varint(out, u64::from(entry.records));
    out.push(entry.codec.number() | if entry.timestamps.is_some() { FLAG_TIMED } else { 0 });
    if let Some((min, max)) = entry.timestamps {
        put_varint(out, zigzag(min));
        put_varint(out, zigzag(max.wrapping_sub(min)));
    }
    put_varint(out, u64::from(entry.body_len));
    if entry.codec != Codec::Plain {
        put_varint(out, u64::from(entry.plain_len));
    }
    out.extend_from_slice(&entry.body_crc.to_le_bytes());
    put_varint(out, entry.runs.len() as u64);
    for run in &entry.runs {
        let marked = run.producer != ProducerMark::NONE;
        put_varint(out, u64::from(run.partition.0));
        put_varint(out, u64::from(run.count) * 2 + u64::from(marked));
        put_varint(out, run.base.0);
        if marked {
            let ProducerMark { id, epoch, sequence } = run.producer;
            for field in [id, i64::from(epoch), i64::from(sequence)] {
                put_varint(out, zigzag(field));
            }
        }
    }
}

fn narrow<N: TryFrom<u64>>(value: u64, what: &'static str) -> Result<N, CodecError> {
    N::try_from(value).map_err(|_| CodecError::Invalid { what, value })
}

fn take<N: TryFrom<u64>>(reader: &mut Reader<'_>, what: &'static str) -> Result<N, CodecError> {
    narrow(reader.varint(what)?, what)
}

fn take_frame(reader: &mut Reader<'_>, salt: u64, next: &Next) -> Result<FooterFrame, CodecError> {
    let flags = reader.u8("frame flags")?;
    let signed = |value: u64, from: AppendTime| AppendTime(from.0.wrapping_add(unzigzag(value)));
    let append_time = signed(reader.varint("append time")?, next.append_time);
    let clock_floor = match flags & FLAG_FLOOR {
        0 => None,
        _ => Some(signed(reader.varint("clock floor")?, append_time)),
    };
    let synced_end = FrameSeq(next.seq.0.wrapping_sub(reader.varint("synced end")?));
    let meta_len: u32 = take(reader, "metadata length")?;
    let meta_crc = match meta_len {
        0 => crc(salt, Part::Meta, next.seq.0, 0, &[]),
        _ => reader.u32("metadata CRC")?,
    };
    let directory_crc = reader.u32("directory CRC")?;
    let topics_len: u32 = take(reader, "topics")?;
    let mut topics = Vec::new();
    for _ in 0..topics_len {
        topics.push(take_topic(reader)?);
    }
    let records: u64 = topics.iter().map(|entry| u64::from(entry.records)).sum();
    let directory_len = directory::encoded_len(topics.iter().map(|entry| entry.runs.len())) as u64;
    let mut header = FrameHeader {
        mark: flags & FLAG_MARK != 0,
        seq: next.seq,
        first_position: next.position,
        append_time,
        clock_floor,
        synced_end,
        records: narrow(records, "records")?,
        topics: topics_len,
        directory_len: narrow(directory_len, "directory length")?,
        meta_len,
        frame_len: 0,
        directory_crc,
        meta_crc,
    };
    header.frame_len = frame_len(&header, &topics);
    let at_end = next.at.checked_add(u64::from(header.frame_len)).filter(|_| header.frame_len < u32::MAX);
    if at_end.is_none() || next.position.0.checked_add(records).is_none() || next.seq.0 == u64::MAX {
        return Err(CodecError::Invalid { what: "frame length", value: u64::from(header.frame_len) });
    }
    let mut body_at = header.bodies_at();
    for entry in &mut topics {
        entry.body_at = narrow(body_at as u64, "body place")?;
        body_at += padded(entry.body_len as usize);
    }
    Ok(FooterFrame { at: next.at, header, topics })
}

fn take_topic(reader: &mut Reader<'_>) -> Result<TopicEntry, CodecError> {
    let topic = TopicId(take(reader, "topic")?);
    let records = take(reader, "topic records")?;
    let kind = reader.u8("codec")?;
    let codec = Codec::from_number(kind & !FLAG_TIMED)?;
    let timestamps = match kind & FLAG_TIMED {
        0 => None,
        _ => {
            let min = unzigzag(reader.varint("smallest timestamp")?);
            Some((min, min.wrapping_add(unzigzag(reader.varint("largest timestamp")?))))
        }
    };
    let body_len = take(reader, "body length")?;
    let plain_len = if codec == Codec::Plain { body_len } else { take(reader, "plain length")? };
    let body_crc = reader.u32("body CRC")?;
    let runs_len: u32 = take(reader, "runs")?;
    let mut runs = Vec::new();
    for _ in 0..runs_len {
        runs.push(take_run(reader)?);
    }
    let counted: u64 = runs.iter().map(|run: &Run| u64::from(run.count)).sum();
    if counted != u64::from(records) || records == 0 || plain_len > directory::BODY_MAX {
        return Err(CodecError::Invalid { what: "records without a run", value: counted });
    }
    Ok(TopicEntry { topic, records, codec, timestamps, body_at: 0, body_len, plain_len, body_crc, runs })
}

fn take_run(reader: &mut Reader<'_>) -> Result<Run, CodecError> {
    let partition = PartitionId(take(reader, "run partition")?);
    let count = reader.varint("run length")?;
    let base = Offset(reader.varint("run offset")?);
    let mut producer = ProducerMark::NONE;
    if count & 1 == 1 {
        let mut signed = |what| reader.varint(what).map(unzigzag);
        let (id, epoch, sequence) = (signed("producer id")?, signed("producer epoch")?, signed("producer sequence")?);
        let wrong = |what, value: i64| CodecError::Invalid { what, value: value.cast_unsigned() };
        producer = ProducerMark {
            id,
            epoch: i16::try_from(epoch).map_err(|_| wrong("producer epoch", epoch))?,
            sequence: i32::try_from(sequence).map_err(|_| wrong("producer sequence", sequence))?,
        };
    }
    let count: u32 = narrow(count / 2, "run length")?;
    if count == 0 || base.0.checked_add(u64::from(count)).is_none() {
        return Err(CodecError::Invalid { what: "run length", value: u64::from(count) });
    }
    Ok(Run { partition, base, count, producer })
}

#[cfg(test)]
mod tests;
