//! What a history file keeps about itself beside Parquet's own footer, and the checksums of both.
//!
//! ```text
//! PAR1 | column chunks | index | Parquet footer, its length, PAR1
//! ```
//!
//! The index is bincode: topics, row groups, and a CRC-32 of each column chunk. The footer's key-value metadata says where it
//! is (`kappa.index`: place, length, CRC-32) and, last, the CRC-32 of the footer, its length and the closing magic
//! (`kappa.checksum`: eight hexadecimal digits, counted as zeros). So every byte of the file is under a checksum that is
//! checked before the byte is used. Other readers of Parquet pass over all of it.

use super::file::GroupSummary;
use super::schema::StoredColumns;
use crate::types::TopicId;

/// Key of the version of all that is ours in the file.
pub(super) const VERSION_KEY: &str = "kappa.version";
pub(super) const VERSION: &str = "1";
/// Key of the place of the index.
pub(super) const INDEX_KEY: &str = "kappa.index";
/// Key of the footer's checksum.
pub(super) const CHECKSUM_KEY: &str = "kappa.checksum";
/// What the checksum is while it is being computed.
pub(super) const NO_CHECKSUM: &str = "00000000";

/// What begins and ends a Parquet file.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";
/// The footer's length and the magic.
pub(super) const TAIL: usize = 8;

/// The index of a file.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Index {
    pub topics: Vec<TopicEntry>,
    pub groups: Vec<GroupEntry>,
}

/// A topic of a file.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct TopicEntry {
    pub topic: TopicId,
    pub name: String,
    /// Its record in the catalog.
    pub record: Vec<u8>,
    pub columns: Option<StoredColumns>,
}

/// A row group of a file.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct GroupEntry {
    pub summary: GroupSummary,
    /// CRC-32 of each column chunk.
    pub checksums: Vec<u32>,
}

impl Index {
    pub(super) fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, bincode::config::standard())
            .expect("writing plain structs to memory does not fail")
    }

    /// The index of bytes whose checksum was right.
    pub(super) fn decode(bytes: &[u8]) -> Option<Index> {
        let (index, used) = bincode::decode_from_slice(bytes, bincode::config::standard()).ok()?;
        (used == bytes.len()).then_some(index)
    }

    pub(super) fn topic(&self, topic: TopicId) -> Option<&TopicEntry> {
        self.topics.iter().find(|entry| entry.topic == topic)
    }
}

/// The value of [`INDEX_KEY`].
pub(super) fn put_place(offset: u64, bytes: &[u8]) -> String {
    format!("{offset} {} {:08x}", bytes.len(), crc32fast::hash(bytes))
}

/// Offset, length and checksum of the index.
pub(super) fn read_place(text: &str) -> Option<(usize, usize, u32)> {
    let mut words = text.split(' ');
    let place = (
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next().and_then(|word| u32::from_str_radix(word, 16).ok())?,
    );
    words.next().is_none().then_some(place)
}

/// Where in a footer the digits of its checksum are.
fn checksum_place(footer: &[u8]) -> Option<std::ops::Range<usize>> {
    // A key-value pair in Thrift's compact protocol: after the key comes the value, one field on, with its length.
    let mut pair = CHECKSUM_KEY.as_bytes().to_vec();
    pair.extend([0x18, NO_CHECKSUM.len() as u8]);
    let start = memchr::memmem::rfind(footer, &pair)? + pair.len();
    let end = start + NO_CHECKSUM.len();
    footer.get(start..end).map(|_| start..end)
}

fn checksum(footer: &[u8], digits: &std::ops::Range<usize>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(footer.get(..digits.start).unwrap_or_default());
    crc.update(NO_CHECKSUM.as_bytes());
    crc.update(footer.get(digits.end..).unwrap_or_default());
    crc.finalize()
}

/// Puts the checksum into a footer with its tail; false if it has no place for one.
pub(super) fn seal_footer(footer: &mut [u8]) -> bool {
    let Some(digits) = checksum_place(footer) else { return false };
    let sum = format!("{:08x}", checksum(footer, &digits));
    footer.get_mut(digits).is_some_and(|place| {
        place.copy_from_slice(sum.as_bytes());
        true
    })
}

/// The footer and its tail, of a file whose first bytes and footer are as they were written.
pub(super) fn checked_footer(file: &[u8]) -> Result<&[u8], &'static str> {
    let tail = file.len().checked_sub(TAIL).and_then(|at| file.get(at..)).ok_or("it is too short")?;
    let (len, magic) = tail.split_at(4);
    if magic != MAGIC || !file.starts_with(MAGIC) {
        return Err("it does not begin and end as a Parquet file");
    }
    let mut four = [0; 4];
    four.copy_from_slice(len);
    let len = TAIL + u32::from_le_bytes(four) as usize;
    let footer =
        file.len().checked_sub(len).and_then(|at| file.get(at..)).ok_or("its footer is longer than the file")?;
    let digits = checksum_place(footer).ok_or("its footer has no checksum")?;
    let sum = footer.get(digits.clone()).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
    if sum != format!("{:08x}", checksum(footer, &digits)) {
        return Err("its footer is not what was written");
    }
    Ok(footer)
}
