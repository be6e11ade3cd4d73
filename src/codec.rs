//! Bytes: a bounded reader that never panics or allocates from a length it has not checked, a writer, variable-length
//! integers, and the hash that Kappa writes down (XXH64).

/// Why bytes could not be read. The caller adds which file or frame they came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes left than needed.
    #[error("{what}: {needed} bytes needed at byte {at}, {left} left")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Byte offset of the read.
        at: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A value that the format does not allow.
    #[error("{what}: {value} is not allowed")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// The value found.
        value: u64,
    },
}

/// Reads little-endian values from a slice; every read is checked against what is left.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next `len` bytes, borrowed.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(CodecError::Short { what, at: self.at, needed: len, left: self.left() });
        };
        let taken = self.bytes.get(self.at..end).unwrap_or_default();
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N, what)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes, little-endian, signed.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, CodecError> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    /// An unsigned LEB128 number of at most 10 bytes.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(CodecError::Invalid { what, value: low });
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid { what, value })
    }

    /// A varint length and that many bytes.
    pub fn block(&mut self, what: &'static str) -> Result<&'a [u8], CodecError> {
        let len = self.varint(what)?;
        let len = usize::try_from(len).map_err(|_| CodecError::Invalid { what, value: len })?;
        self.bytes(len, what)
    }
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// Appends a varint length and the bytes.
pub fn put_block(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn round(acc: u64, lane: u64) -> u64 {
    acc.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn word(chunk: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&chunk[..8]);
    u64::from_le_bytes(bytes)
}

/// XXH64 (xxHash specification 0.1.1, 64-bit variant). Part of the format: it orders output records of one window,
/// assigns keys to virtual shards and makes the running digests, so it never changes.
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed.wrapping_add(P5);
    let mut rest = bytes;
    if bytes.len() >= STRIPE {
        let mut lanes = first_lanes(seed);
        rest = eat_stripes(&mut lanes, bytes);
        hash = merged(&lanes);
    }
    finished(hash.wrapping_add(bytes.len() as u64), rest)
}

const STRIPE: usize = 32;

fn first_lanes(seed: u64) -> [u64; 4] {
    [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)]
}

/// Takes in whole stripes; gives what is left.
#[inline]
fn eat_stripes<'a>(lanes: &mut [u64; 4], bytes: &'a [u8]) -> &'a [u8] {
    let mut stripes = bytes.chunks_exact(STRIPE);
    for stripe in stripes.by_ref() {
        for (place, lane) in lanes.iter_mut().enumerate() {
            *lane = round(*lane, word(&stripe[place * 8..]));
        }
    }
    stripes.remainder()
}

#[inline]
fn merged(lanes: &[u64; 4]) -> u64 {
    let mixed = lanes[0]
        .rotate_left(1)
        .wrapping_add(lanes[1].rotate_left(7))
        .wrapping_add(lanes[2].rotate_left(12))
        .wrapping_add(lanes[3].rotate_left(18));
    lanes.iter().fold(mixed, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
}

#[inline]
fn finished(mut hash: u64, mut rest: &[u8]) -> u64 {
    while rest.len() >= 8 {
        hash = (hash ^ round(0, word(rest))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        let mut four = [0; 4];
        four.copy_from_slice(&rest[..4]);
        hash = (hash ^ u64::from(u32::from_le_bytes(four)).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(P2);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(P3);
    hash ^ (hash >> 32)
}

/// [`xxh64`] of bytes that come in pieces.
#[derive(Debug, Clone)]
pub struct Xxh64 {
    seed: u64,
    lanes: [u64; 4],
    /// Bytes behind the last whole stripe, less than one.
    rest: Vec<u8>,
    len: u64,
}

impl Xxh64 {
    /// No bytes yet.
    pub fn new(seed: u64) -> Self {
        Xxh64 { seed, lanes: first_lanes(seed), rest: Vec::with_capacity(STRIPE), len: 0 }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(STRIPE - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() < STRIPE {
                return;
            }
            eat_stripes(&mut self.lanes, &self.rest);
            self.rest.clear();
        }
        self.rest.extend_from_slice(eat_stripes(&mut self.lanes, bytes));
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> u64 {
        let hash = if self.len >= STRIPE as u64 { merged(&self.lanes) } else { self.seed.wrapping_add(P5) };
        finished(hash.wrapping_add(self.len), &self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xxh64_matches_published_vectors() {
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xFBCE_A83C_8A37_8BF1);
    }

    proptest! {
        #[test]
        fn varints_come_back(value in any::<u64>(), tail in any::<Vec<u8>>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            bytes.extend_from_slice(&tail);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("v"), Ok(value));
            prop_assert_eq!(reader.left(), tail.len());
        }

        #[test]
        fn xxh64_of_pieces_is_that_of_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8), seed in any::<u64>()) {
            let mut hash = Xxh64::new(seed);
            pieces.iter().for_each(|piece| hash.update(piece));
            prop_assert_eq!(hash.finish(), xxh64(&pieces.concat(), seed));
        }

        #[test]
        fn any_bytes_read_without_panic(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader::new(&bytes);
            while reader.block("block").is_ok() && reader.left() > 0 {}
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, 1 << 40);
        assert!(matches!(Reader::new(&bytes).block("b"), Err(CodecError::Short { .. })));
        assert!(Reader::new(&[0xff; 11]).varint("v").is_err());
    }
}
