//! Headers: of a journal file and of a frame.
//!
//! File header, one block of 4096 bytes, written at 0 and again at 4096. Synced before the file gets its name.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `KAPPAJNL` |
//! | 8 | 2 | format version |
//! | 10 | 2 | 0 |
//! | 12 | 4 | incompatible features (none yet): a reader that does not know a bit refuses the file |
//! | 16 | 8 | number of the file |
//! | 24 | 8 | salt, random |
//! | 32 | 8 | sequence of the first frame; all frames before it were durable when the file was made |
//! | 40 | 8 | position of the first record |
//! | 48 | 8 | append clock when the file was made, microseconds |
//! | 56 | 8 | where the frames of the previous file end, in bytes; 0 without a previous file |
//! | 64 | 4 | CRC of the block, this field being 0 |
//! | 68 | 4 | 0 |
//! | 72 | 8 | log id, random, the same in all files of a log |
//!
//! Frame header, 80 bytes:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `KFRM` |
//! | 4 | 2 | format version |
//! | 6 | 2 | flags: 1 = mark (no records, no metadata) |
//! | 8 | 8 | frame sequence |
//! | 16 | 8 | position of the first record (of the next one, if it has none) |
//! | 24 | 8 | append time, microseconds |
//! | 32 | 8 | clock floor: a clock reading that something in this frame depends on; `i64::MIN` = none |
//! | 40 | 8 | `synced_end`: newest frame sequence known durable when this frame was written |
//! | 48 | 4 | records |
//! | 52 | 4 | topics |
//! | 56 | 4 | bytes of the directory |
//! | 60 | 4 | bytes of the metadata section, without padding |
//! | 64 | 4 | bytes of the whole frame |
//! | 68 | 4 | CRC of the directory |
//! | 72 | 4 | CRC of the metadata section with padding |
//! | 76 | 4 | CRC of bytes 0 to 75, started with the frame's place in the file |

use super::{Part, VERSION, crc, padded};
use crate::codec::{CodecError, Reader};
use crate::types::{AppendTime, FrameSeq, Position};

/// Bytes of one copy of the file header.
pub const FILE_HEADER_BLOCK: usize = 4096;
/// Where the frames of a file begin.
pub const FRAMES_AT: u64 = 2 * FILE_HEADER_BLOCK as u64;
/// Bytes of a frame header.
pub const FRAME_HEADER_LEN: usize = 80;

const FILE_MAGIC: [u8; 8] = *b"KAPPAJNL";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"KFRM");
const FILE_CRC_AT: usize = 64;
const FRAME_CRC_AT: usize = 76;
const SYNCED_AT: usize = 40;
const FLAG_MARK: u16 = 1;

/// The header of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Number of the file, from 1.
    pub number: u64,
    /// Starts every CRC in the file.
    pub salt: u64,
    /// The same in all files of a log, and in no other log.
    pub log_id: u64,
    /// Sequence of its first frame.
    pub first_seq: FrameSeq,
    /// Position of its first record.
    pub first_position: Position,
    /// The append clock when it was made.
    pub clock: AppendTime,
    /// Where the frames of the previous file end.
    pub previous_len: u64,
}

impl FileHeader {
    /// The first bytes of the file: both copies.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(2 * FILE_HEADER_BLOCK);
        block.extend_from_slice(&FILE_MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&[0; 6]);
        block.extend_from_slice(&self.number.to_le_bytes());
        block.extend_from_slice(&self.salt.to_le_bytes());
        block.extend_from_slice(&self.first_seq.0.to_le_bytes());
        block.extend_from_slice(&self.first_position.0.to_le_bytes());
        block.extend_from_slice(&self.clock.0.to_le_bytes());
        block.extend_from_slice(&self.previous_len.to_le_bytes());
        block.extend_from_slice(&[0; 8]);
        block.extend_from_slice(&self.log_id.to_le_bytes());
        block.resize(FILE_HEADER_BLOCK, 0);
        let sum = crc32fast::hash(&block);
        block[FILE_CRC_AT..FILE_CRC_AT + 4].copy_from_slice(&sum.to_le_bytes());
        block.extend_from_within(..);
        block
    }

    /// Reads one copy.
    pub fn decode(block: &[u8]) -> Result<FileHeader, CodecError> {
        let mut reader = Reader::new(block);
        let mut block = reader.clone().bytes(FILE_HEADER_BLOCK, "file header")?.to_vec();
        if reader.bytes(8, "file magic")? != FILE_MAGIC {
            return Err(CodecError::Invalid { what: "file magic", value: 0 });
        }
        let version = reader.u16("file version")?;
        reader.u16("file header")?;
        let features = reader.u32("features")?;
        let mut header = FileHeader {
            number: reader.u64("file number")?,
            salt: reader.u64("salt")?,
            log_id: 0,
            first_seq: FrameSeq(reader.u64("first sequence")?),
            first_position: Position(reader.u64("first position")?),
            clock: AppendTime(reader.i64("clock")?),
            previous_len: reader.u64("previous length")?,
        };
        let sum = reader.u32("file header CRC")?;
        reader.u32("file header")?;
        header.log_id = reader.u64("log id")?;
        block[FILE_CRC_AT..FILE_CRC_AT + 4].fill(0);
        if crc32fast::hash(&block) != sum {
            return Err(CodecError::Invalid { what: "file header CRC", value: u64::from(sum) });
        }
        // Judged after the CRC: only an intact header can say that it is from another version.
        if version != VERSION {
            return Err(CodecError::Invalid { what: UNKNOWN_VERSION, value: u64::from(version) });
        }
        if features != 0 {
            return Err(CodecError::Invalid { what: UNKNOWN_FEATURES, value: u64::from(features) });
        }
        Ok(header)
    }
}

/// Field name in the error for a file of another version.
pub const UNKNOWN_VERSION: &str = "format version";
/// Field name in the error for a file with features that this build does not know.
pub const UNKNOWN_FEATURES: &str = "format features";

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// A frame without content that says that those before it are durable.
    pub mark: bool,
    /// Its number.
    pub seq: FrameSeq,
    /// Position of its first record.
    pub first_position: Position,
    /// Append time of its records.
    pub append_time: AppendTime,
    /// A clock reading that its content depends on.
    pub clock_floor: Option<AppendTime>,
    /// Newest frame known durable when this one was written.
    pub synced_end: FrameSeq,
    /// Records in it.
    pub records: u32,
    /// Topics in its directory.
    pub topics: u32,
    /// Bytes of the directory.
    pub directory_len: u32,
    /// Bytes of the metadata section, without padding.
    pub meta_len: u32,
    /// Bytes of the frame.
    pub frame_len: u32,
    /// CRC of the directory.
    pub directory_crc: u32,
    /// CRC of the metadata section.
    pub meta_crc: u32,
}

impl FrameHeader {
    /// Where the metadata section begins in the frame.
    pub fn meta_at(&self) -> usize {
        FRAME_HEADER_LEN + self.directory_len as usize
    }

    /// Where the bodies begin in the frame.
    pub fn bodies_at(&self) -> usize {
        self.meta_at() + padded(self.meta_len as usize)
    }

    /// The position after its last record.
    pub fn end(&self) -> Position {
        self.first_position.plus(u64::from(self.records))
    }

    /// The bytes, for a frame at byte `at` of a file with this salt.
    pub fn encode(&self, salt: u64, at: u64) -> [u8; FRAME_HEADER_LEN] {
        let mut out = Vec::with_capacity(FRAME_HEADER_LEN);
        out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.mark { FLAG_MARK } else { 0 }).to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.first_position.0.to_le_bytes());
        out.extend_from_slice(&self.append_time.0.to_le_bytes());
        out.extend_from_slice(&self.clock_floor.unwrap_or(AppendTime::MIN).0.to_le_bytes());
        out.extend_from_slice(&self.synced_end.0.to_le_bytes());
        for field in [
            self.records,
            self.topics,
            self.directory_len,
            self.meta_len,
            self.frame_len,
            self.directory_crc,
            self.meta_crc,
            0,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes.copy_from_slice(&out);
        seal(&mut bytes, salt, at);
        bytes
    }

    /// Reads the header of a frame at byte `at` of a file with this salt; `bytes` begin with it.
    pub fn decode(bytes: &[u8], salt: u64, at: u64) -> Result<FrameHeader, CodecError> {
        let mut reader = Reader::new(bytes);
        let covered = reader.clone().bytes(FRAME_CRC_AT, "frame header")?;
        let magic = reader.u32("frame magic")?;
        if magic != FRAME_MAGIC {
            return Err(CodecError::Invalid { what: "frame magic", value: u64::from(magic) });
        }
        let version = reader.u16("frame version")?;
        let flags = reader.u16("frame flags")?;
        let header = FrameHeader {
            mark: flags & FLAG_MARK != 0,
            seq: FrameSeq(reader.u64("frame sequence")?),
            first_position: Position(reader.u64("first position")?),
            append_time: AppendTime(reader.i64("append time")?),
            clock_floor: Some(AppendTime(reader.i64("clock floor")?)).filter(|floor| *floor != AppendTime::MIN),
            synced_end: FrameSeq(reader.u64("synced end")?),
            records: reader.u32("records")?,
            topics: reader.u32("topics")?,
            directory_len: reader.u32("directory length")?,
            meta_len: reader.u32("metadata length")?,
            frame_len: reader.u32("frame length")?,
            directory_crc: reader.u32("directory CRC")?,
            meta_crc: reader.u32("metadata CRC")?,
        };
        let sum = reader.u32("frame header CRC")?;
        if crc(salt, Part::Header, at, 0, covered) != sum {
            return Err(CodecError::Invalid { what: "frame header CRC", value: u64::from(sum) });
        }
        if version != VERSION {
            return Err(CodecError::Invalid { what: UNKNOWN_VERSION, value: u64::from(version) });
        }
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), CodecError> {
        let front = FRAME_HEADER_LEN as u64 + u64::from(self.directory_len) + u64::from(self.meta_len);
        let fits = front.next_multiple_of(8) <= u64::from(self.frame_len) && self.frame_len.is_multiple_of(8);
        let aligned = self.directory_len.is_multiple_of(8);
        let no_overflow = self.first_position.0.checked_add(u64::from(self.records)).is_some();
        if fits && aligned && no_overflow && self.seq.0 > 0 {
            return Ok(());
        }
        Err(CodecError::Invalid { what: "frame lengths", value: u64::from(self.frame_len) })
    }
}

/// True if a frame header may begin here: cheap, to find the next frame behind a damaged one.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    bytes.starts_with(&FRAME_MAGIC.to_le_bytes())
}

/// Sets `synced_end` of an encoded frame and closes its header for its place; done last, right before the write.
pub(crate) fn set_synced_end(frame: &mut [u8], salt: u64, at: u64, synced_end: FrameSeq) {
    let mut header = [0; FRAME_HEADER_LEN];
    header.copy_from_slice(&frame[..FRAME_HEADER_LEN]);
    header[SYNCED_AT..SYNCED_AT + 8].copy_from_slice(&synced_end.0.to_le_bytes());
    seal(&mut header, salt, at);
    frame[..FRAME_HEADER_LEN].copy_from_slice(&header);
}

/// The header that begins here as if its checksum were right; `None` if nothing like a header begins here.
pub(crate) fn resealed(bytes: &[u8], salt: u64, at: u64) -> Option<[u8; FRAME_HEADER_LEN]> {
    let mut header: [u8; FRAME_HEADER_LEN] = bytes.get(..FRAME_HEADER_LEN)?.try_into().ok()?;
    seal(&mut header, salt, at);
    may_begin(bytes).then_some(header)
}

fn seal(header: &mut [u8; FRAME_HEADER_LEN], salt: u64, at: u64) {
    let sum = crc(salt, Part::Header, at, 0, &header[..FRAME_CRC_AT]);
    header[FRAME_CRC_AT..].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            mark: false,
            seq: FrameSeq(7),
            first_position: Position(1 << 40),
            append_time: AppendTime(-5),
            clock_floor: Some(AppendTime(-6)),
            synced_end: FrameSeq(5),
            records: 3,
            topics: 1,
            directory_len: 80,
            meta_len: 3,
            frame_len: 400,
            directory_crc: 1,
            meta_crc: 2,
        }
    }

    #[test]
    fn a_frame_header_comes_back_and_no_changed_byte_does() {
        let mut bytes = header().encode(9, 8192);
        assert_eq!(FrameHeader::decode(&bytes, 9, 8192), Ok(header()));
        assert!(FrameHeader::decode(&bytes, 10, 8192).is_err(), "another file's salt");
        assert!(FrameHeader::decode(&bytes, 9, 8200).is_err(), "another place");
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert!(FrameHeader::decode(&bytes, 9, 8192).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
        set_synced_end(&mut bytes, 9, 16384, FrameSeq(6));
        assert_eq!(FrameHeader::decode(&bytes, 9, 16384), Ok(FrameHeader { synced_end: FrameSeq(6), ..header() }));
    }

    #[test]
    fn a_file_header_comes_back_and_no_changed_byte_does() {
        let header = FileHeader {
            number: 3,
            salt: 77,
            log_id: 78,
            first_seq: FrameSeq(9),
            first_position: Position(11),
            clock: AppendTime(-1),
            previous_len: 123_456,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, FRAMES_AT);
        for copy in bytes.chunks(FILE_HEADER_BLOCK) {
            assert_eq!(FileHeader::decode(copy), Ok(header));
            let mut damaged = copy.to_vec();
            for at in 0..damaged.len() {
                damaged[at] ^= 1;
                assert!(FileHeader::decode(&damaged).is_err(), "byte {at}");
                damaged[at] ^= 1;
            }
        }
    }
}
