//! How each column chunk is written, decided by looking at what is in it.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, UInt64Type,
};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use std::hash::Hash;

/// How a column chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkPlan {
    /// Values once, and their numbers.
    pub dictionary: bool,
    /// The encoding of values without a dictionary, or where the dictionary gets too large.
    pub encoding: Encoding,
    pub compression: Compression,
    /// Lowest and highest value are kept.
    pub statistics: bool,
}

/// What counts for a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Read by every job: speed.
    Speed,
    /// Read seldom: size.
    Size,
}

/// Bytes of a sample that is compressed to see what that gives.
const SAMPLE: usize = 64 << 10;
/// Places that a sample is taken from.
const SAMPLE_PARTS: usize = 8;
const ZSTD_LEVEL: i32 = 1;

/// The plan for a column chunk of these pieces, all of one type without children.
pub(super) fn plan(pieces: &[ArrayRef], priority: Priority) -> ChunkPlan {
    let Some(first) = pieces.first() else { return plain(Compression::UNCOMPRESSED) };
    match first.data_type() {
        DataType::Boolean => plain(Compression::LZ4_RAW),
        DataType::Utf8 | DataType::Binary => plan_bytes(pieces, priority),
        DataType::Float32 => plan_floats::<Float32Type>(pieces, priority, |value| value.to_bits().into()),
        DataType::Float64 => plan_floats::<Float64Type>(pieces, priority, f64::to_bits),
        _ => match integers(pieces) {
            Some(values) => plan_integers(&values, priority),
            None => plan_decimals(pieces, priority),
        },
    }
}

fn plain(compression: Compression) -> ChunkPlan {
    ChunkPlan { dictionary: false, encoding: Encoding::PLAIN, compression, statistics: false }
}

/// The values that are there, of a type that Parquet stores as an integer.
fn integers(pieces: &[ArrayRef]) -> Option<Vec<i64>> {
    let mut out = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for piece in pieces {
        match piece.data_type() {
            DataType::Int8 => gather::<Int8Type>(piece, &mut out, i64::from),
            DataType::Int16 => gather::<Int16Type>(piece, &mut out, i64::from),
            DataType::Int32 => gather::<Int32Type>(piece, &mut out, i64::from),
            DataType::Int64 => gather::<Int64Type>(piece, &mut out, |value| value),
            DataType::UInt64 => gather::<UInt64Type>(piece, &mut out, u64::cast_signed),
            DataType::Date32 => gather::<Date32Type>(piece, &mut out, i64::from),
            DataType::Time32(TimeUnit::Millisecond) => gather::<Time32MillisecondType>(piece, &mut out, i64::from),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                gather::<TimestampMillisecondType>(piece, &mut out, |value| value);
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                gather::<TimestampMicrosecondType>(piece, &mut out, |value| value);
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                gather::<TimestampNanosecondType>(piece, &mut out, |value| value);
            }
            DataType::Decimal128(1..=18, _) => {
                gather::<Decimal128Type>(piece, &mut out, |value| i64::try_from(value).unwrap_or_default());
            }
            _ => return None,
        }
    }
    Some(out)
}

fn gather<T: ArrowPrimitiveType>(piece: &ArrayRef, out: &mut Vec<i64>, number: impl Fn(T::Native) -> i64) {
    let array = piece.as_primitive::<T>();
    match array.nulls() {
        None => out.extend(array.values().iter().map(|value| number(*value))),
        Some(_) => out.extend(array.iter().flatten().map(number)),
    }
}

fn plan_integers(values: &[i64], priority: Priority) -> ChunkPlan {
    let delta = delta_bytes(values);
    let dictionary = distinct(values.iter(), values.len() / 8)
        .map_or(usize::MAX, |distinct| distinct * 8 + dictionary_bytes(values.len(), distinct));
    let sample: Vec<u8> = parts(values.len(), SAMPLE / 8)
        .flat_map(|range| values.get(range).unwrap_or_default())
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let best = delta.min(dictionary);
    // Only where numbers repeat in a way that differences do not show.
    let compressed = (best > values.len()).then(|| compress(&sample, values.len() * 8, priority));
    let plan = match compressed {
        Some((compression, bytes)) if bytes < best / 2 => plain(compression),
        _ if dictionary < delta / 4 * 3 => ChunkPlan { dictionary: true, ..plain(Compression::UNCOMPRESSED) },
        _ => ChunkPlan { encoding: Encoding::DELTA_BINARY_PACKED, ..plain(Compression::UNCOMPRESSED) },
    };
    ChunkPlan { statistics: true, ..plan }
}

/// About what delta encoding takes: in each stretch the largest difference says how many bits all of them take.
fn delta_bytes(values: &[i64]) -> usize {
    const STRETCH: usize = 32;
    let mut bits = 0;
    let mut last = values.first().copied().unwrap_or_default();
    for stretch in values.chunks(STRETCH) {
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for value in stretch {
            let step = value.wrapping_sub(last);
            (low, high, last) = (low.min(step), high.max(step), *value);
        }
        let spread = high.wrapping_sub(low).cast_unsigned();
        bits += STRETCH * (u64::BITS - spread.leading_zeros()) as usize + 16;
    }
    bits / 8
}

/// What the numbers of values in a dictionary take.
fn dictionary_bytes(rows: usize, distinct: usize) -> usize {
    rows * (usize::BITS - distinct.leading_zeros()) as usize / 8
}

/// Of so many values one is looked at, where only their number of different ones counts. Not a number that periods in data often have.
const SKIP: usize = 7;

/// About how many different values there are; `None` if more than `limit`. Those that the sample misses are as many as Chao (1984) estimates
/// by those that it has once and twice, but no more than there would be if all that it leaves out were like it.
fn distinct<T: Hash + Eq>(values: impl Iterator<Item = T>, limit: usize) -> Option<usize> {
    let mut seen: HashMap<T, u8, _> = HashMap::with_hasher(FixedState::with_seed(0));
    for value in values.step_by(SKIP) {
        let times = seen.entry(value).or_default();
        *times = times.saturating_add(1);
        if seen.len() > limit {
            return None;
        }
    }
    let with = |wanted: u8| seen.values().filter(|times| **times == wanted).count();
    let (once, twice) = (with(1), with(2));
    let missed = once.saturating_sub(1) * once / (2 * (twice + 1));
    Some(seen.len() + missed.min(once * (SKIP - 1))).filter(|distinct| *distinct <= limit)
}

fn plan_floats<T: ArrowPrimitiveType>(
    pieces: &[ArrayRef],
    priority: Priority,
    bits: impl Fn(T::Native) -> u64 + Copy,
) -> ChunkPlan {
    let rows: usize = pieces.iter().map(|piece| piece.len()).sum();
    let values = || pieces.iter().flat_map(|piece| piece.as_primitive::<T>().iter().flatten()).map(bits);
    let statistics = true;
    let width = size_of::<T::Native>();
    let bytes_of = |bits: u64| bits.to_le_bytes().into_iter().take(width);
    let sample: Vec<u8> = values().take(SAMPLE / width).flat_map(bytes_of).collect();
    let (compression, bytes) = compress(&sample, rows * width, priority);
    match distinct(values(), rows / 8) {
        Some(distinct) if distinct * width + dictionary_bytes(rows, distinct) < bytes => {
            ChunkPlan { dictionary: true, statistics, ..plain(Compression::UNCOMPRESSED) }
        }
        _ => ChunkPlan { statistics, ..plain(compression) },
    }
}

fn plan_decimals(pieces: &[ArrayRef], priority: Priority) -> ChunkPlan {
    let mut sample = Vec::new();
    for piece in pieces {
        let Some(decimals) = piece.as_primitive_opt::<Decimal128Type>() else { return plain(Compression::LZ4_RAW) };
        sample.extend(decimals.iter().flatten().take(SAMPLE / 16).flat_map(i128::to_be_bytes));
    }
    sample.truncate(SAMPLE);
    ChunkPlan { statistics: true, ..plain(compress(&sample, sample.len(), priority).0) }
}

/// One piece of a column of texts or bytes.
struct Strings<'a> {
    offsets: &'a [i32],
    bytes: &'a [u8],
}

impl<'a> Strings<'a> {
    fn new(piece: &'a ArrayRef) -> Strings<'a> {
        match piece.as_string_opt::<i32>() {
            Some(texts) => Strings { offsets: texts.value_offsets(), bytes: texts.value_data() },
            None => {
                let bytes = piece.as_binary::<i32>();
                Strings { offsets: bytes.value_offsets(), bytes: bytes.value_data() }
            }
        }
    }

    fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The bytes of rows one after the other.
    fn stretch(&self, rows: std::ops::Range<usize>) -> &'a [u8] {
        let at = |row: usize| self.offsets.get(row).map_or(0, |offset| offset.unsigned_abs() as usize);
        self.bytes.get(at(rows.start)..at(rows.end)).unwrap_or_default()
    }
}

fn plan_bytes(pieces: &[ArrayRef], priority: Priority) -> ChunkPlan {
    let pieces: Vec<Strings<'_>> = pieces.iter().map(Strings::new).collect();
    let rows: usize = pieces.iter().map(Strings::rows).sum();
    let bytes: usize = pieces.iter().map(|piece| piece.stretch(0..piece.rows()).len()).sum();
    let sample = sample(&pieces, rows, bytes);
    let (compression, compressed) = compress(&sample, bytes, priority);
    let plan = ChunkPlan { encoding: Encoding::DELTA_LENGTH_BYTE_ARRAY, ..plain(compression) };
    // A dictionary of long values is no smaller than what a compressor makes of them.
    if rows == 0 || bytes / rows > 256 {
        return plan;
    }
    let values = pieces.iter().flat_map(|piece| (0..piece.rows()).map(|row| piece.stretch(row..row + 1)));
    match distinct(values, rows / 4) {
        Some(distinct) => {
            let dictionary = distinct * (bytes / rows + 4) + dictionary_bytes(rows, distinct);
            // A dictionary is read several times as fast as compressed values.
            let limit = if priority == Priority::Speed { compressed * 2 + rows } else { compressed + rows / 2 };
            if dictionary < limit { ChunkPlan { dictionary: true, ..plan } } else { plan }
        }
        None => plan,
    }
}

fn sample(pieces: &[Strings<'_>], rows: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(SAMPLE.min(bytes));
    let wanted = rows * SAMPLE / bytes.max(1);
    for range in parts(rows, wanted) {
        let mut first = 0;
        for piece in pieces {
            let (from, to) = (range.start.max(first) - first, range.end.max(first) - first);
            out.extend_from_slice(piece.stretch(from.min(piece.rows())..to.min(piece.rows())));
            first += piece.rows();
        }
    }
    out.truncate(2 * SAMPLE);
    out
}

/// Rows of a sample of `wanted` out of `rows`: some stretches, evenly spread.
fn parts(rows: usize, wanted: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (count, len) = if wanted >= rows { (1, rows) } else { (SAMPLE_PARTS, wanted.div_ceil(SAMPLE_PARTS)) };
    (0..count).map(move |part| {
        let start = rows / count * part;
        start..(start + len).min(rows)
    })
}

/// The compression for `bytes` bytes of which a sample is given, and about what it makes of them.
fn compress(sample: &[u8], bytes: usize, priority: Priority) -> (Compression, usize) {
    if sample.is_empty() {
        return (Compression::UNCOMPRESSED, bytes);
    }
    let lz4 = lz4_flex::block::compress(sample).len();
    let zstd = zstd::bulk::compress(sample, ZSTD_LEVEL).map_or(usize::MAX, |compressed| compressed.len());
    let raw = sample.len();
    let scaled = |size: usize| (size as u128 * bytes as u128 / raw as u128) as usize;
    // Reading lz4 costs a third of reading zstd, and nothing is read faster than what is not compressed.
    let (zstd_gain, lz4_gain) = match priority {
        Priority::Speed => (60, 80),
        Priority::Size => (90, 90),
    };
    match ZstdLevel::try_new(ZSTD_LEVEL) {
        Ok(level) if zstd < lz4.min(raw) * zstd_gain / 100 => (Compression::ZSTD(level), scaled(zstd)),
        _ if lz4 < raw * lz4_gain / 100 => (Compression::LZ4_RAW, scaled(lz4)),
        _ => (Compression::UNCOMPRESSED, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seventh_tells_about_how_many_different_values_there_are() {
        const ROWS: u64 = 1 << 16;
        let mixed = |n: u64| crate::codec::xxh64(&n.to_le_bytes(), 0);
        let found = |value: &dyn Fn(u64) -> u64| distinct((0..ROWS).map(value), ROWS as usize);
        for (what, count, value) in [
            ("one", 1, &(|_: u64| 5_u64) as &dyn Fn(u64) -> u64),
            ("few in turn", 10, &|n| n % 10),
            ("few in no order", 100, &|n| mixed(n) % 100),
            ("some in no order", 3_000, &|n| mixed(n) % 3_000),
            ("rising slowly", 1_024, &|n| n / 64),
        ] {
            let found = found(value).expect("no limit");
            assert!((count * 9 / 10..=count * 11 / 10).contains(&found), "{what}: {found}, not {count}");
        }
        assert!(found(&mixed).is_none_or(|found| found > ROWS as usize * 9 / 10), "each another");
        assert_eq!(distinct(0..ROWS, ROWS as usize / 4), None);
        assert_eq!(distinct((0..ROWS).map(|n| n % 20_000), ROWS as usize / 4), None, "many that come again");
    }
}
