//! Which topics go into which history file, which files are merged, and how fast: decisions, without doing anything.

use super::file::FileRecord;
use crate::log::catalog::META_VALUE_MAX;
use crate::types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// The records of one topic that are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// The topic.
    pub topic: TopicId,
    /// About how many bytes they have.
    pub bytes: u64,
    /// In how many partitions they may be.
    pub partitions: u32,
}

/// Sizes that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// A topic with this many bytes gets a file of its own.
    pub own: u64,
    /// Files are merged up to about this size.
    pub target: u64,
}

/// Files of about one size that are merged into one.
const MERGE_FILES: usize = 4;

/// What a file's record may take in the catalog.
const RECORD_BYTES: usize = META_VALUE_MAX / 2;

/// The topics of each file to write: large topics alone, small ones together. All in order of topic.
pub(crate) fn divide(shares: &[Share], sizes: Sizes) -> Vec<Vec<TopicId>> {
    let mut files = Vec::new();
    let mut shared: Vec<TopicId> = Vec::new();
    let (mut bytes, mut record) = (0, 0);
    for share in shares {
        if share.bytes >= sizes.own {
            files.push(vec![share.topic]);
            continue;
        }
        let in_record = 100 + 20 * share.partitions as usize;
        if !shared.is_empty() && (bytes + share.bytes > sizes.target || record + in_record > RECORD_BYTES) {
            files.push(std::mem::take(&mut shared));
            (bytes, record) = (0, 0);
        }
        shared.push(share.topic);
        bytes += share.bytes;
        record += in_record;
    }
    if !shared.is_empty() {
        files.push(shared);
    }
    files
}

/// What the topics of some files have in them together.
pub(crate) fn shares(files: &[&FileRecord]) -> Vec<Share> {
    let mut shares: BTreeMap<TopicId, Share> = BTreeMap::new();
    for extent in files.iter().flat_map(|file| &file.topics) {
        let share = shares.entry(extent.topic).or_insert(Share { topic: extent.topic, bytes: 0, partitions: 0 });
        share.bytes += extent.file_bytes;
        share.partitions += u32::try_from(extent.extent.partitions.len()).unwrap_or(u32::MAX);
    }
    shares.into_values().collect()
}

/// Which files to merge next: the numbers of adjacent small files, either of one topic or shared by several. `files` are all
/// files; those in `fixed` stay as they are. Nothing is merged across a file that holds records in between.
pub(crate) fn merge(files: &[&FileRecord], fixed: &BTreeSet<u64>, sizes: Sizes) -> Option<Vec<u64>> {
    let mut by_topic: BTreeMap<TopicId, Vec<&FileRecord>> = BTreeMap::new();
    for file in files {
        for extent in &file.topics {
            by_topic.entry(extent.topic).or_default().push(file);
        }
    }
    for (topic, files) in &mut by_topic {
        files.sort_by_key(|file| file.topic(*topic).map(|extent| extent.extent.first_position));
    }
    let shared: BTreeSet<(u64, u64)> =
        files.iter().filter(|file| file.topics.len() > 1).map(|file| (first_position(file), file.number)).collect();
    let in_order = |(_, number): &(u64, u64)| files.iter().find(|file| file.number == *number).copied();
    let shared: Vec<&FileRecord> = shared.iter().filter_map(in_order).collect();
    let free = |run: &&[&FileRecord]| run.iter().all(|file| !fixed.contains(&file.number));
    let found = alike(&shared, sizes).into_iter().filter(free).find(|run| {
        // There must be fewer shared files afterwards, or merging would never end.
        let shared = divide(&shares(run), sizes).into_iter().filter(|topics| topics.len() > 1).count();
        shared < run.len() && may_merge(run, &by_topic)
    });
    if let Some(found) = found {
        return Some(numbers(found));
    }
    let own = by_topic.values().flat_map(|files| files.chunk_by(|a, b| a.topics.len() == 1 && b.topics.len() == 1));
    let own = own.filter(|files| files.iter().all(|file| file.topics.len() == 1));
    own.flat_map(|files| alike(files, sizes)).find(free).map(numbers)
}

fn first_position(file: &FileRecord) -> u64 {
    file.topics.iter().map(|extent| extent.extent.first_position.0).min().unwrap_or_default()
}

fn numbers(files: &[&FileRecord]) -> Vec<u64> {
    files.iter().map(|file| file.number).collect()
}

/// Stretches of neighbours that are worth merging: four of one size, or of sizes below it, none of them more than half of the
/// whole. So no byte is written again more often than the number of times that its file's size can double.
fn alike<'a, 'b>(files: &'a [&'b FileRecord], sizes: Sizes) -> Vec<&'a [&'b FileRecord]> {
    let mut found = Vec::new();
    let mut limit = sizes.target;
    let mut levels = Vec::new();
    while limit > 0 && levels.len() < 8 {
        limit /= MERGE_FILES as u64;
        levels.push(limit);
    }
    // The smallest first: it is the cheapest, and removes the most files.
    for limit in levels.into_iter().rev() {
        let small = files.chunk_by(|a, b| a.bytes <= limit && b.bytes <= limit);
        let small = small.filter(|run| run.len() >= MERGE_FILES && run.iter().all(|file| file.bytes <= limit));
        let even = |run: &&[&FileRecord]| {
            let largest = run.iter().map(|file| file.bytes).max().unwrap_or_default();
            2 * largest <= run.iter().map(|file| file.bytes).sum()
        };
        found.extend(small.flat_map(|run| run.windows(MERGE_FILES)).filter(even));
    }
    found
}

/// True if no topic of these files has records between them in a file that is not one of them.
fn may_merge(run: &[&FileRecord], by_topic: &BTreeMap<TopicId, Vec<&FileRecord>>) -> bool {
    let inside: BTreeSet<u64> = run.iter().map(|file| file.number).collect();
    let topics: BTreeSet<TopicId> = run.iter().flat_map(|file| &file.topics).map(|extent| extent.topic).collect();
    topics.iter().all(|topic| {
        let of_topic = by_topic.get(topic).map_or(&[][..], Vec::as_slice);
        let mut places = of_topic.iter().enumerate().filter(|(_, file)| inside.contains(&file.number));
        let first = places.next().map_or(0, |(place, _)| place);
        let (last, count) = places.fold((first, 1), |(_, count), (place, _)| (place, count + 1));
        last - first + 1 == count
    })
}

/// What sealing knows when it has written a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Microseconds that the piece took.
    pub work_us: u64,
    /// Appends wait or are being written.
    pub appends: bool,
    /// Bytes that wait to be sealed.
    pub unsealed: u64,
    /// Bytes that may wait.
    pub unsealed_max: u64,
}

/// How long to rest before the next piece, in microseconds: as long as the piece took while appends go on, less the more
/// waits to be sealed.
pub(crate) fn rest_us(pace: Pace) -> u64 {
    let behind = pace.unsealed.saturating_mul(100).checked_div(pace.unsealed_max).unwrap_or(100).min(100);
    if pace.appends { (pace.work_us.min(50_000) * (100 - behind)) / 100 } else { 0 }
}

/// How long an append of some bytes is slowed, in microseconds: not at all below the bound; above it in proportion to how far
/// above, so that appending settles at the speed of sealing.
pub(crate) fn slow_us(bytes: u64, unsealed: u64, unsealed_max: u64, sealed_per_s: u64) -> u64 {
    let over = unsealed.saturating_sub(unsealed_max);
    let at_that_speed = u128::from(bytes) * 1_000_000 / u128::from(sealed_per_s.max(1));
    let slowed = at_that_speed.saturating_mul(8 * u128::from(over)) / u128::from(unsealed_max.max(1));
    u64::try_from(slowed).unwrap_or(u64::MAX).min(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::super::file::{Extent, TopicExtent};
    use super::*;
    use crate::types::{AppendTime, Position};

    const SIZES: Sizes = Sizes { own: 100, target: 1_000 };

    fn share(topic: u32, bytes: u64, partitions: u32) -> Share {
        Share { topic: TopicId(topic), bytes, partitions }
    }

    fn file(number: u64, bytes: u64, topics: &[(u32, u64)]) -> FileRecord {
        let topic = |(topic, position): &(u32, u64)| TopicExtent {
            topic: TopicId(*topic),
            file_bytes: bytes,
            columns: None,
            extent: Extent {
                rows: 1,
                raw_bytes: bytes,
                first_position: Position(*position),
                last_position: Position(*position),
                first_append_time: AppendTime(0),
                last_append_time: AppendTime(0),
                timestamps_ms: None,
                partitions: Vec::new(),
            },
        };
        FileRecord { number, bytes, xxh64: 0, topics: topics.iter().map(topic).collect() }
    }

    #[test]
    fn large_topics_have_files_of_their_own_and_small_ones_share() {
        let shares = [share(1, 10, 1), share(2, 100, 1), share(3, 99, 4096), share(4, 5, 4096), share(5, 5, 4096)];
        let files = divide(&shares, SIZES);
        let numbers: Vec<Vec<u32>> = files.iter().map(|file| file.iter().map(|topic| topic.0).collect()).collect();
        assert_eq!(numbers, [vec![2], vec![1, 3, 4, 5]]);
        let many: Vec<Share> = (1..=100).map(|topic| share(topic, 1, 4096)).collect();
        assert!(divide(&many, SIZES).iter().all(|file| file.len() <= 6), "records stay small");
        let heavy: Vec<Share> = (1..=100).map(|topic| share(topic, 99, 1)).collect();
        assert!(divide(&heavy, SIZES).iter().all(|file| file.len() <= 10), "files stay small");
    }

    #[test]
    fn four_neighbours_of_a_size_are_merged_and_no_record_changes_place() {
        let none = BTreeSet::new();
        let merged = |files: &[FileRecord]| merge(&files.iter().collect::<Vec<_>>(), &none, SIZES);
        let own = |number, bytes| file(number, bytes, &[(1, number)]);
        assert_eq!(merged(&[own(1, 200), own(2, 200), own(3, 200)]), None);
        assert_eq!(merged(&[own(1, 200), own(2, 200), own(3, 200), own(4, 200)]), Some(vec![1, 2, 3, 4]));
        assert_eq!(merged(&[own(1, 200), own(2, 900), own(3, 200), own(4, 200), own(5, 200)]), None);
        let small_first: Vec<FileRecord> = [250, 250, 250, 250, 10, 10, 10, 10]
            .into_iter()
            .zip(1..)
            .map(|(bytes, number)| own(number, bytes))
            .collect();
        assert_eq!(merged(&small_first), Some(vec![5, 6, 7, 8]));
        let shared = |number| file(number, 20, &[(1, 10 * number), (2, 10 * number + 1)]);
        assert_eq!(merged(&[shared(1), shared(2), shared(3), shared(4)]), Some(vec![1, 2, 3, 4]));
        let fixed = BTreeSet::from([3]);
        let all = [shared(1), shared(2), shared(3), shared(4)];
        assert_eq!(merge(&all.iter().collect::<Vec<_>>(), &fixed, SIZES), None, "a damaged file stays");
        assert_eq!(merged(&[own(1, 200), own(2, 10), own(3, 10), own(4, 10)]), None, "a large file waits for its like");
        // A file of topic 1 lies between the second and the third.
        let between = [shared(1), shared(2), shared(3), shared(4), file(9, 500, &[(1, 25)])];
        assert_eq!(merged(&between), None);
    }

    #[test]
    fn sealing_rests_while_appends_go_on_and_less_the_further_it_is_behind() {
        let pace = |appends, unsealed| Pace { work_us: 1_000, appends, unsealed, unsealed_max: 1_000 };
        assert_eq!(rest_us(pace(false, 0)), 0);
        assert_eq!(rest_us(pace(true, 0)), 1_000);
        assert_eq!(rest_us(pace(true, 500)), 500);
        assert_eq!(rest_us(pace(true, 5_000)), 0);
        assert_eq!(rest_us(Pace { unsealed_max: 0, ..pace(true, 5) }), 0);
    }

    #[test]
    fn appends_are_slowed_in_proportion_and_only_beyond_the_bound() {
        assert_eq!(slow_us(1_000, 1_000, 1_000, 1_000_000), 0);
        assert_eq!(slow_us(1_000, 1_125, 1_000, 1_000_000), 1_000, "an eighth above: the speed of sealing");
        assert_eq!(slow_us(1_000, 1_250, 1_000, 1_000_000), 2_000);
        assert_eq!(slow_us(u64::MAX, u64::MAX, 0, 0), 1_000_000, "never longer than a second");
    }
}
