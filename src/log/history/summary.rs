//! What is known of a row group without reading its columns, taken from the batches it is made of, and columns made of it.

use super::file::{Extent, GroupSummary, Known, PartitionExtent};
use crate::log::records::LogBatch;
use crate::types::{AppendTime, Offset, PartitionId, Position, TopicId};
use arrow::array::{Array, Int64Array};

/// A column with more runs than this is read instead.
const RUNS_MAX: usize = 512;

/// Neighbours that `extends` takes to be of one run; `None` if there are too many runs.
fn grouped<T>(values: impl Iterator<Item = T>, extends: impl Fn(&(T, u32), &T) -> bool) -> Option<Vec<(T, u32)>> {
    let mut runs: Vec<(T, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some(last) if extends(last, &value) => last.1 += 1,
            _ => runs.push((value, 1)),
        }
        if runs.len() > RUNS_MAX {
            return None;
        }
    }
    Some(runs)
}

/// Puts equal neighbours together.
fn runs<T: PartialEq>(values: impl Iterator<Item = T>) -> Option<Vec<(T, u32)>> {
    grouped(values, |(last, _), value| last == value)
}

/// Puts consecutive numbers together.
fn stretches(values: impl Iterator<Item = u64>) -> Option<Vec<(u64, u32)>> {
    grouped(values, |(first, count), value| first + u64::from(*count) == *value)
}

/// The column of these runs.
pub(super) fn spread<T: Copy>(runs: &[(T, u32)], rows: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(rows);
    for (value, count) in runs {
        out.resize(out.len() + *count as usize, *value);
    }
    out
}

/// The summary of batches of one topic, of which at least one has a row. `undecoded`: how many values did not decode, and if
/// all of those are null.
pub(super) fn summarize(
    topic: TopicId,
    batches: &[LogBatch],
    (undecoded, undecoded_null): (u32, bool),
) -> GroupSummary {
    let timestamps = batches.iter().flat_map(|batch| batch.timestamps.iter());
    let (partitions, offsets_dense) = partitions(batches);
    let first = batches.first();
    let last = batches.last();
    let extent = Extent {
        rows: batches.iter().map(|batch| batch.len() as u64).sum(),
        raw_bytes: batches.iter().map(|batch| raw_bytes(batch) as u64).sum(),
        first_position: first.map_or(Position(0), LogBatch::first_position),
        last_position: Position(last.and_then(|batch| batch.positions.last()).unwrap_or_default()),
        first_append_time: AppendTime(first.and_then(|batch| batch.append_times.first()).unwrap_or_default()),
        last_append_time: last.map_or(AppendTime::MIN, LogBatch::last_append_time),
        timestamps_ms: range(batches.iter().map(|batch| &batch.timestamps)),
        partitions,
    };
    let known = Known {
        positions: stretches(batches.iter().flat_map(|batch| batch.positions.iter().copied())),
        append_times: runs(batches.iter().flat_map(|batch| batch.append_times.iter().copied())),
        partitions: runs(batches.iter().flat_map(|batch| batch.partitions.iter().copied())),
        timestamps: runs(timestamps),
        offsets_dense,
        keys_null: batches.iter().all(|batch| batch.keys.null_count() == batch.keys.len()),
        headers_empty: batches.iter().all(|batch| batch.headers.null_count() == 0 && byte_len(&batch.headers) == 0),
        undecoded_null,
    };
    GroupSummary { topic, extent, undecoded, known }
}

fn range<'a>(arrays: impl Iterator<Item = &'a Int64Array>) -> Option<(i64, i64)> {
    let ranges = arrays.filter_map(|array| arrow::compute::min(array).zip(arrow::compute::max(array)));
    ranges.reduce(|(low, high), (other_low, other_high)| (low.min(other_low), high.max(other_high)))
}

/// The partitions that occur, and if the offsets of each go up by one.
fn partitions(batches: &[LogBatch]) -> (Vec<PartitionExtent>, bool) {
    let mut found: Vec<Option<PartitionExtent>> = Vec::new();
    let mut dense = true;
    for batch in batches {
        for (partition, offset) in batch.partitions.iter().zip(batch.offsets.iter()) {
            let (place, offset) = (*partition as usize, Offset(*offset));
            if place >= found.len() {
                found.resize(place + 1, None);
            }
            match found.get_mut(place) {
                Some(Some(extent)) => {
                    dense &= offset.0.checked_sub(1) == Some(extent.last_offset.0);
                    extent.first_offset = extent.first_offset.min(offset);
                    extent.last_offset = extent.last_offset.max(offset);
                }
                Some(slot) => {
                    let partition = PartitionId(*partition);
                    *slot = Some(PartitionExtent { partition, first_offset: offset, last_offset: offset });
                }
                None => (),
            }
        }
    }
    (found.into_iter().flatten().collect(), dense)
}

/// Bytes of keys, values and headers.
pub(super) fn raw_bytes(batch: &LogBatch) -> usize {
    byte_len(&batch.keys) + byte_len(&batch.values) + byte_len(&batch.headers)
}

fn byte_len(array: &arrow::array::BinaryArray) -> usize {
    let offsets = array.value_offsets();
    offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first).unsigned_abs() as usize
}
