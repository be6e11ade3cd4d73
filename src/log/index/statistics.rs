//! What is known of a topic's records without reading them: by piece (the topic's records of one frame), by block of pieces,
//! and by file. A search asks from the large to the small and passes over what cannot hold what it looks for.

use super::{FileIndex, Index, Located};
use crate::log::frame::directory::TopicEntry;
use crate::log::frame::header::FrameHeader;
use crate::types::{AppendTime, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;

/// Pieces in a block.
const BLOCK: usize = 64;

/// What is known of some records of one topic that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Position of the first.
    pub first_position: Position,
    /// The position after the last.
    pub end: Position,
    /// Append time of the first.
    pub first_append: AppendTime,
    /// Append time of the last.
    pub last_append: AppendTime,
    /// Smallest and largest timestamp in ms; `None` if no record has one.
    pub timestamps: Option<(i64, i64)>,
    /// Bytes that they take in the log.
    pub bytes: u64,
}

impl Statistics {
    /// Takes in records that come later.
    pub fn extend(&mut self, later: &Statistics) {
        self.end = later.end;
        self.last_append = later.last_append;
        self.bytes += later.bytes;
        self.timestamps = match (self.timestamps, later.timestamps) {
            (Some((min, max)), Some((later_min, later_max))) => Some((min.min(later_min), max.max(later_max))),
            (one, other) => one.or(other),
        };
    }
}

/// Where a piece is in the file's index.
#[derive(Debug, Clone, Copy)]
struct Place {
    frame: u32,
    span: u32,
    /// Records of the frame before it.
    before: u32,
}

/// One topic's records of one file.
pub(super) struct TopicPieces {
    pub all: Statistics,
    /// First offset and the one after the last.
    pub offsets: BTreeMap<PartitionId, (Offset, Offset)>,
    places: Vec<Place>,
    blocks: Vec<Statistics>,
}

fn extend(whole: &mut Option<Statistics>, later: &Statistics) {
    match whole {
        Some(whole) => whole.extend(later),
        None => *whole = Some(*later),
    }
}

impl FileIndex {
    /// Takes note of one topic of the newest frame. `before`: records of the frame before it.
    pub(super) fn note(&mut self, header: &FrameHeader, before: u32, entry: &TopicEntry) {
        let first_position = header.first_position.plus(u64::from(before));
        let piece = Statistics {
            first_position,
            end: first_position.plus(u64::from(entry.records)),
            first_append: header.append_time,
            last_append: header.append_time,
            timestamps: entry.timestamps,
            bytes: u64::from(entry.body_len),
        };
        let place =
            Place { frame: super::small(self.frames.len() - 1), span: super::small(self.topics.len() - 1), before };
        let pieces = self.pieces.entry(entry.topic).or_insert_with(|| TopicPieces {
            all: Statistics { bytes: 0, ..piece },
            offsets: BTreeMap::new(),
            places: Vec::new(),
            blocks: Vec::new(),
        });
        pieces.all.extend(&piece);
        let mut block = if pieces.places.len().is_multiple_of(BLOCK) { None } else { pieces.blocks.pop() };
        extend(&mut block, &piece);
        pieces.blocks.extend(block);
        pieces.places.push(place);
        for run in &entry.runs {
            let end = Offset(run.base.0 + u64::from(run.count));
            pieces.offsets.entry(run.partition).or_insert((run.base, end)).1 = end;
        }
    }

    fn statistics(&self, place: Place) -> Option<Statistics> {
        let frame = self.frames.get(place.frame as usize)?;
        let span = self.topics.get(place.span as usize)?;
        let first_position = frame.first_position.plus(u64::from(place.before));
        Some(Statistics {
            first_position,
            end: first_position.plus(u64::from(span.records)),
            first_append: frame.append_time,
            last_append: frame.append_time,
            timestamps: span.timed.then_some((span.min_ms, span.max_ms)),
            bytes: u64::from(span.body_len),
        })
    }

    fn located(&self, place: Place) -> Option<Located> {
        self.locate(place.frame as usize, place.span as usize, place.before)
    }

    /// Number of the first piece that ends after `from`.
    fn piece_after(&self, pieces: &TopicPieces, from: Position) -> usize {
        pieces.places.partition_point(|place| self.statistics(*place).is_some_and(|piece| piece.end <= from))
    }

    fn next_piece(&self, pieces: &TopicPieces, from: Position, may: &impl Fn(&Statistics) -> bool) -> Option<Place> {
        let mut number = self.piece_after(pieces, from);
        while let Some(place) = pieces.places.get(number) {
            if !pieces.blocks.get(number / BLOCK).is_some_and(may) {
                number = (number / BLOCK + 1) * BLOCK;
            } else if self.statistics(*place).as_ref().is_some_and(may) {
                return Some(*place);
            } else {
                number += 1;
            }
        }
        None
    }

    fn last_piece(&self, pieces: &TopicPieces, before: Position, may: &impl Fn(&Statistics) -> bool) -> Option<Place> {
        let begins = |place: &Place| self.statistics(*place).is_some_and(|piece| piece.first_position < before);
        let mut count = pieces.places.partition_point(begins);
        while let Some(number) = count.checked_sub(1) {
            let place = *pieces.places.get(number)?;
            if !pieces.blocks.get(number / BLOCK).is_some_and(may) {
                count = number / BLOCK * BLOCK;
            } else if self.statistics(place).as_ref().is_some_and(may) {
                return Some(place);
            } else {
                count = number;
            }
        }
        None
    }

    /// The piece with this offset. Pieces without records of the partition lie between those with some, so a probe looks on
    /// from where it falls.
    fn piece_of_offset(&self, pieces: &TopicPieces, partition: PartitionId, offset: Offset) -> Option<Place> {
        let (mut low, mut high) = (0, pieces.places.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let found = pieces
                .places
                .get(middle..high)?
                .iter()
                .zip(middle..)
                .find_map(|(place, number)| Some((number, *place, self.runs_of(place.span as usize, partition)?)));
            match found {
                Some((_, place, (first, end))) if first <= offset && offset < end => return Some(place),
                Some((number, _, (first, _))) if first < offset => low = number + 1,
                _ => high = middle,
            }
        }
        None
    }
}

impl Index {
    /// One topic's records in each file that holds any, in order.
    pub fn files_of(&self, topic: TopicId) -> impl DoubleEndedIterator<Item = &Statistics> {
        self.files.iter().filter_map(move |file| file.pieces.get(&topic)).map(|pieces| &pieces.all)
    }

    /// Where the newest file's records begin, if it has any: more may follow.
    pub fn active_from(&self) -> Option<Position> {
        self.files.last()?.frames.first().map(|frame| frame.first_position)
    }

    /// The first piece of a topic that ends after `from` and of which `may` holds; what `may` refuses for a file or a block,
    /// it must refuse for every piece in it. Losses that were accepted are passed.
    pub fn next_piece(&self, topic: TopicId, mut from: Position, may: impl Fn(&Statistics) -> bool) -> Option<Located> {
        loop {
            let found = self.files.iter().find_map(|file| {
                let pieces = file.pieces.get(&topic).filter(|pieces| pieces.all.end > from && may(&pieces.all))?;
                file.located(file.next_piece(pieces, from, &may)?)
            })?;
            if !self.is_accepted(topic, found.first_position) {
                return Some(found);
            }
            from = found.end();
        }
    }

    /// The last piece of a topic that begins before `before` and of which `may` holds.
    pub fn last_piece(
        &self,
        topic: TopicId,
        mut before: Position,
        may: impl Fn(&Statistics) -> bool,
    ) -> Option<Located> {
        loop {
            let found = self.files.iter().rev().find_map(|file| {
                let begins = |pieces: &&TopicPieces| pieces.all.first_position < before;
                let pieces = file.pieces.get(&topic).filter(begins).filter(|pieces| may(&pieces.all))?;
                file.located(file.last_piece(pieces, before, &may)?)
            })?;
            if !self.is_accepted(topic, found.first_position) {
                return Some(found);
            }
            before = found.first_position;
        }
    }

    /// The piece that holds an offset.
    pub fn piece_of_offset(&self, topic: TopicId, partition: PartitionId, offset: Offset) -> Option<Located> {
        let found = self.files.iter().find_map(|file| {
            let pieces = file.pieces.get(&topic)?;
            let (first, end) = *pieces.offsets.get(&partition)?;
            let inside = first <= offset && offset < end;
            inside.then(|| file.located(file.piece_of_offset(pieces, partition, offset)?))?
        })?;
        (!self.is_accepted(topic, found.first_position)).then_some(found)
    }

    /// Adds the first offset of each partition among the pieces that begin at `from` or behind, where there is none yet.
    pub fn first_offsets(&self, topic: TopicId, from: Position, firsts: &mut BTreeMap<PartitionId, Offset>) {
        for file in &self.files {
            let Some(pieces) = file.pieces.get(&topic).filter(|pieces| pieces.all.end > from) else { continue };
            if pieces.all.first_position >= from {
                for (partition, (first, _)) in &pieces.offsets {
                    firsts.entry(*partition).or_insert(*first);
                }
                continue;
            }
            for place in pieces.places.get(file.piece_after(pieces, from)..).unwrap_or_default() {
                for run in file.runs(place.span as usize) {
                    firsts.entry(run.partition).or_insert(run.base);
                }
            }
        }
    }
}
