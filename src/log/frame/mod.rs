//! The frame: the unit of atomicity of the journal. Fixed-width, little-endian, written by hand.
//!
//! ```text
//! journal file   file header | file header again | frame | frame | ... | footer, zeros or end of file
//! frame          header | directory | metadata | body of topic 1 | body of topic 2 | ...
//! ```
//!
//! Everything starts at a multiple of 8, so that columns can be used where they lie. Every part has a CRC of its own, and
//! every CRC starts with the file's random salt and the part's place or number: bytes that a client sent, an older file
//! left, or a disk misplaced are never taken for a frame. The parts: [`header`], [`directory`], [`body`]; behind the last frame
//! of a file that is complete, the [`footer`].

pub mod body;
pub mod directory;
pub mod encode;
pub mod footer;
pub mod header;

use crate::codec::CodecError;

/// The format version this build writes, and the only one it reads.
pub const VERSION: u16 = 2;

/// How the bytes of a body are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub enum Codec {
    /// As they are.
    #[default]
    Plain,
    /// LZ4 block.
    Lz4,
    /// zstd.
    Zstd,
}

impl Codec {
    pub(crate) fn number(self) -> u8 {
        match self {
            Codec::Plain => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    pub(crate) fn from_number(number: u8) -> Result<Codec, CodecError> {
        match number {
            0 => Ok(Codec::Plain),
            1 => Ok(Codec::Lz4),
            2 => Ok(Codec::Zstd),
            other => Err(CodecError::Invalid { what: "codec", value: u64::from(other) }),
        }
    }
}

/// Which part of a frame a CRC belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    Directory,
    Meta,
    Body,
    Footer,
    Trailer,
}

/// CRC-32 (IEEE) of `bytes`, after salt, part, place (byte in the file for headers, else frame sequence) and topic (0 for
/// none).
pub(crate) fn crc(salt: u64, part: Part, place: u64, topic: u32, bytes: &[u8]) -> u32 {
    let mut seed = [0u8; 24];
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    seed[8..16].copy_from_slice(&place.to_le_bytes());
    seed[16..20].copy_from_slice(&topic.to_le_bytes());
    seed[20] = match part {
        Part::Header => 1,
        Part::Directory => 2,
        Part::Meta => 3,
        Part::Body => 4,
        Part::Footer => 5,
        Part::Trailer => 6,
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// `len` rounded up to a multiple of 8.
pub(crate) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Appends zeros up to a multiple of 8.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(padded(out.len()), 0);
}

/// A frame is addressed with 32 bits.
pub(crate) fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("requests are capped far below 4 GiB")
}
