//! Finding the place to read from: exact under disorder, trimming and timestamps that make no sense.
//!
//! A topic's records lie in pieces: its part of a frame, or a row group. What is known of a piece without reading it
//! ([`Statistics`]) says which pieces can hold the answer; these are read, from the front or from the back, until one does.

use crate::error::{Error, ErrorKind, Result};
use crate::log::index::Statistics;
use crate::log::pieces::{self, PLACES_AND_TIMES, Piece};
use crate::log::reader::Reader;
use crate::log::records::{LogBatch, Projection};
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::log::trim::{Trim, check_offset, check_position};
use crate::types::{AppendTime, Offset, PartitionId, Position, TopicId, US_PER_MS};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// Where to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTarget {
    /// The topic's first record, or the end of the log if it has none.
    Earliest,
    /// The durable end of the log.
    Latest,
    /// A position; beyond the end there is no such record.
    Position(Position),
    /// The record of this offset.
    Offset {
        /// The partition.
        partition: PartitionId,
        /// The offset.
        offset: Offset,
    },
    /// The topic's first record with this append time or a later one.
    Append(AppendTime),
    /// The topic's first record with `t <= timestamp <= append time + max_future`.
    TimestampMs(i64),
}

/// The answer to a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Read from here.
    At(Position),
    /// The log is intact and holds no such record (yet).
    NoSuchRecord,
}

/// The answer to a seek for a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekRange {
    /// The smallest span of positions `(from, to)`, `to` exclusive, that holds every record of the stretch; `None` if there is
    /// no such record.
    pub span: Option<(Position, Position)>,
    /// Records whose timestamp is in the stretch but beyond append time + `max_future`: not considered for the span.
    pub beyond_max_future: u64,
}

/// A cut through all partitions of a topic at one position of the log.
///
/// Every record of the topic below `position` has an offset below its partition's in `offsets`, every other record does not:
/// reading each partition from its offset on gives exactly the records that reading the topic from `position` on gives. So
/// the offsets belong together, however the partitions are read. Where no record of a partition is at or behind the
/// position, its offset is the one that the next record will get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The place in the order of the whole log.
    pub position: Position,
    /// One offset for each partition.
    pub offsets: Vec<Offset>,
}

/// A stretch of record timestamps.
pub(crate) struct Stretch {
    from_ms: i64,
    /// Exclusive.
    to_ms: i64,
    max_future_us: i64,
}

impl Stretch {
    /// From `from_ms` to `to_ms`, exclusive.
    pub fn new(topic: &Topic, from_ms: i64, to_ms: i64) -> Stretch {
        Stretch { from_ms, to_ms, max_future_us: topic.config().max_future_us }
    }

    /// The largest timestamp that counts, in ms.
    fn latest_ms(&self, append_time: AppendTime) -> i64 {
        append_time.0.saturating_add(self.max_future_us).div_euclid(US_PER_MS)
    }

    fn overlaps(&self, (min, max): (i64, i64)) -> bool {
        max >= self.from_ms && min < self.to_ms
    }

    /// False if none of these records is in the stretch and counts.
    pub fn may_count(&self, about: &Statistics) -> bool {
        about.timestamps.is_some_and(|times| self.overlaps(times) && times.0 <= self.latest_ms(about.last_append))
    }

    /// False if none of these records is in the stretch and beyond what counts.
    fn may_exceed(&self, about: &Statistics) -> bool {
        about.timestamps.is_some_and(|times| self.overlaps(times)) && self.exceeds(about)
    }

    /// True if some of these records may be beyond what counts, whatever the stretch.
    fn exceeds(&self, about: &Statistics) -> bool {
        about.timestamps.is_some_and(|times| times.1 > self.latest_ms(about.first_append))
    }

    /// Whether the row's timestamp is in the stretch, and if so whether it counts.
    fn judge(&self, batch: &LogBatch, row: usize) -> Option<bool> {
        let time = batch.timestamp_ms(row).filter(|time| self.from_ms <= *time && *time < self.to_ms)?;
        Some(time <= self.latest_ms(AppendTime(batch.append_times.at(row))))
    }

    /// True if the row is in the stretch and counts.
    pub fn counts(&self, batch: &LogBatch, row: usize) -> bool {
        self.judge(batch, row) == Some(true)
    }
}

/// Topic, first position and end of a piece.
type PieceKey = (TopicId, Position, Position);

/// The `max_future` in us that it holds for, and the lowest and highest timestamp in ms.
type Counting = (i64, Option<(i64, i64)>);

/// What was learned by reading pieces with timestamps so far ahead that they do not count: lowest and highest timestamp of
/// those that do. Such a piece looks as if it held every later time; it is read once instead of at every seek.
#[derive(Default)]
pub(crate) struct Learned {
    counting: BTreeMap<PieceKey, Counting>,
}

/// Pieces that are remembered at most.
const LEARNED_MAX: usize = 1 << 16;

impl Learned {
    fn insert(&mut self, key: PieceKey, counting: Counting) {
        if self.counting.len() >= LEARNED_MAX {
            self.counting.clear();
        }
        self.counting.insert(key, counting);
    }
}

/// Looks for records of one topic among those that are left and durable when it is made.
pub(crate) struct Look {
    shared: Arc<Shared>,
    topic: Topic,
    reader: Reader,
    projection: Projection,
    trim: Option<Arc<Trim>>,
    /// No record that is left lies before this.
    floor: Position,
    end: Position,
}

impl Look {
    pub fn new(shared: &Arc<Shared>, topic: &Topic) -> Look {
        let trim = shared.topics(|topics| topics.trim_of(topic.id()));
        Look {
            shared: shared.clone(),
            topic: topic.clone(),
            reader: Reader::new(shared.clone(), &[topic.id()], Position(0)),
            projection: PLACES_AND_TIMES,
            floor: trim.as_ref().map_or(Position(0), |trim| trim.first_position),
            trim,
            end: shared.state().durable_end,
        }
    }

    /// Reads all of the records, not only where and when they are.
    #[must_use]
    pub fn whole(mut self) -> Look {
        self.projection = Projection::ALL;
        self
    }

    fn key(&self, piece: &Piece) -> PieceKey {
        (self.topic.id(), piece.about.first_position, piece.about.end)
    }

    /// The next offset of each partition.
    fn end_offsets(&self) -> Vec<Offset> {
        let state = self.shared.state();
        let end = |number| state.ends.get(&(self.topic.id(), PartitionId(number))).copied().unwrap_or_default();
        (0..self.topic.partitions()).map(end).collect()
    }

    /// The durable end of the log.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The first piece that ends after `from` and may hold what is looked for.
    pub fn next(&self, from: Position, may: impl Fn(&Statistics) -> bool) -> Result<Option<Piece>> {
        let found = pieces::next(&self.shared, self.topic.id(), from.max(self.floor), may)?;
        Ok(found.filter(|piece| piece.about.first_position < self.end))
    }

    /// The last piece that begins before `before` and may hold what is looked for.
    fn last(&self, before: Position, may: impl Fn(&Statistics) -> bool) -> Result<Option<Piece>> {
        let found = pieces::last(&self.shared, self.topic.id(), before.min(self.end), may)?;
        Ok(found.filter(|piece| piece.about.end > self.floor))
    }

    /// The rows of a piece that are left and durable; `None` if there are none.
    fn read(&mut self, piece: &Piece) -> Result<Option<LogBatch>> {
        Ok(piece.read(&self.shared, &mut self.reader, &self.projection)?.between(self.floor, self.end))
    }

    /// Position of the first record in pieces for which `may` that does not stand `before`, as so many rows of a batch do.
    fn first_row(
        &mut self,
        may: impl Fn(&Statistics) -> bool,
        before: impl Fn(&LogBatch) -> usize,
    ) -> Result<Option<Position>> {
        let mut from = self.floor;
        while let Some(piece) = self.next(from, &may)? {
            from = piece.about.end;
            let Some(batch) = self.read(&piece)? else { continue };
            let row = before(&batch);
            if row < batch.len() {
                return Ok(Some(Position(batch.positions.at(row))));
            }
        }
        Ok(None)
    }

    /// Position of the last record in pieces for which `may` that stands `before`, as so many rows of a batch do.
    fn last_row(
        &mut self,
        may: impl Fn(&Statistics) -> bool,
        before: impl Fn(&LogBatch) -> usize,
    ) -> Result<Option<Position>> {
        let mut end = self.end;
        while let Some(piece) = self.last(end, &may)? {
            end = piece.about.first_position;
            let Some(batch) = self.read(&piece)? else { continue };
            if let Some(row) = before(&batch).checked_sub(1) {
                return Ok(Some(Position(batch.positions.at(row))));
            }
        }
        Ok(None)
    }

    /// The lowest and highest timestamp of a piece's records that count, if that was learned.
    fn learned(&self, piece: &Piece, stretch: &Stretch) -> Option<Option<(i64, i64)>> {
        let learned = self.shared.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let (max_future_us, times) = learned.counting.get(&self.key(piece))?;
        (*max_future_us == stretch.max_future_us).then_some(*times)
    }

    fn learn(&self, piece: &Piece, stretch: &Stretch, batch: &LogBatch) {
        let times = batch.append_times.iter().enumerate().filter_map(|(row, append_time)| {
            let latest_ms = stretch.latest_ms(AppendTime(*append_time));
            batch.timestamp_ms(row).filter(|time| *time <= latest_ms)
        });
        let both = times.fold(None, |both: Option<(i64, i64)>, time| match both {
            Some((min, max)) => Some((min.min(time), max.max(time))),
            None => Some((time, time)),
        });
        let mut learned = self.shared.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.insert(self.key(piece), (stretch.max_future_us, both));
    }

    /// Reads a piece for its rows in the stretch; `None` if it is known to have none.
    pub fn read_for(&mut self, piece: &Piece, stretch: &Stretch) -> Result<Option<LogBatch>> {
        if !stretch.exceeds(&piece.about) {
            return self.read(piece);
        }
        let known = self.learned(piece, stretch);
        if known.is_some_and(|times| !times.is_some_and(|times| stretch.overlaps(times))) {
            return Ok(None);
        }
        let batch = self.read(piece)?;
        // Only of a whole piece: trimming can take of what was learned, but nothing can come to it.
        if let Some(batch) = batch.as_ref().filter(|_| known.is_none() && piece.about.end <= self.end) {
            self.learn(piece, stretch, batch);
        }
        Ok(batch)
    }

    /// Position of the first record in the stretch that counts.
    fn first_in(&mut self, stretch: &Stretch) -> Result<Option<Position>> {
        let mut from = self.floor;
        while let Some(piece) = self.next(from, |about| stretch.may_count(about))? {
            from = piece.about.end;
            let Some(batch) = self.read_for(&piece, stretch)? else { continue };
            if let Some(row) = (0..batch.len()).find(|row| stretch.counts(&batch, *row)) {
                return Ok(Some(Position(batch.positions.at(row))));
            }
        }
        Ok(None)
    }

    /// Position of the last record in the stretch that counts.
    fn last_in(&mut self, stretch: &Stretch) -> Result<Option<Position>> {
        let mut before = self.end;
        while let Some(piece) = self.last(before, |about| stretch.may_count(about))? {
            before = piece.about.first_position;
            let Some(batch) = self.read_for(&piece, stretch)? else { continue };
            if let Some(row) = (0..batch.len()).rfind(|row| stretch.counts(&batch, *row)) {
                return Ok(Some(Position(batch.positions.at(row))));
            }
        }
        Ok(None)
    }

    /// Position of the first record at `from` or behind.
    pub fn first_at(&mut self, from: Position) -> Result<Option<Position>> {
        let from = from.max(self.floor);
        match self.next(from, |_| true)? {
            Some(piece) if piece.about.first_position >= from => Ok(Some(piece.about.first_position)),
            Some(_) => {
                self.first_row(|about| about.end > from, |batch| batch.positions.partition_point(|at| at < from.0))
            }
            None => Ok(None),
        }
    }

    /// The position after the last record before `before`.
    pub fn end_before(&mut self, before: Position) -> Result<Option<Position>> {
        match self.last(before, |_| true)? {
            Some(piece) if piece.about.end <= before => Ok(Some(piece.about.end)),
            Some(_) => {
                let inside = |about: &Statistics| about.first_position < before;
                let found = self.last_row(inside, |batch| batch.positions.partition_point(|at| at < before.0))?;
                Ok(found.map(|position| position.plus(1)))
            }
            None => Ok(None),
        }
    }

    /// Position of the first record appended at `time` or later.
    pub fn first_appended(&mut self, time: AppendTime) -> Result<Option<Position>> {
        let may = |about: &Statistics| about.last_append >= time;
        match self.next(self.floor, may)? {
            Some(piece) if piece.about.first_append >= time => self.first_at(piece.about.first_position),
            Some(_) => self.first_row(may, |batch| batch.append_times.partition_point(|at| at < time.0)),
            None => Ok(None),
        }
    }

    fn at_offset(&mut self, partition: PartitionId, offset: Offset) -> Result<Option<Position>> {
        check_partition(&self.topic, partition)?;
        check_offset(&self.topic, partition, offset, self.trim.as_deref())?;
        let found = pieces::with_offset(&self.shared, self.topic.id(), partition, offset)?;
        let Some(piece) = found else { return Ok(None) };
        let Some(batch) = self.read(&piece)? else { return Ok(None) };
        let row = batch.offsets.rows_of(offset.0).find(|row| batch.partitions[*row] == partition.0);
        Ok(row.map(|row| Position(batch.positions.at(row))))
    }

    /// For each partition the offset of its first record at `from` or behind, or of its next.
    pub fn offsets_at(&mut self, from: Position) -> Result<Vec<Offset>> {
        // Asked before the pieces: what is appended in between is then found among them.
        let ends = self.end_offsets();
        let mut firsts = BTreeMap::new();
        let from = from.max(self.floor);
        let mut pieces_from = from;
        if let Some(piece) = self.next(from, |_| true)?.filter(|piece| piece.about.first_position < from) {
            pieces_from = piece.about.end;
            if let Some(batch) = self.read(&piece)?.and_then(|batch| batch.between(from, self.end)) {
                for (row, partition) in batch.partitions.iter().enumerate() {
                    firsts.entry(PartitionId(*partition)).or_insert_with(|| Offset(batch.offsets.at(row)));
                }
            }
        }
        pieces::first_offsets(&self.shared, self.topic.id(), pieces_from, &mut firsts)?;
        let first = |(number, end)| firsts.get(&PartitionId(number)).copied().unwrap_or(end);
        Ok((0..).zip(ends).map(first).collect())
    }

    /// For each partition the offset after its last record that counts and has a timestamp below `before_ms`.
    fn ends_before(&mut self, before_ms: i64) -> Result<Vec<Offset>> {
        let stretch = Stretch::new(&self.topic, i64::MIN, before_ms);
        let mut ends: Vec<Offset> =
            (0..self.topic.partitions()).map(|number| self.first_offset(PartitionId(number))).collect();
        let mut open: Vec<bool> = ends.iter().zip(self.end_offsets()).map(|(first, end)| *first < end).collect();
        let mut before = self.end;
        while open.contains(&true)
            && let Some(piece) = self.last(before, |about| stretch.may_count(about))?
        {
            before = piece.about.first_position;
            let is_open = |partition: PartitionId| open.get(partition.0 as usize) == Some(&true);
            if !piece.partitions().iter().any(|partition| is_open(*partition)) {
                continue;
            }
            let Some(batch) = self.read_for(&piece, &stretch)? else { continue };
            for row in (0..batch.len()).rev().filter(|row| stretch.counts(&batch, *row)) {
                let partition = batch.partitions[row] as usize;
                if let (Some(open @ true), Some(end)) = (open.get_mut(partition), ends.get_mut(partition)) {
                    *open = false;
                    *end = Offset(batch.offsets.at(row) + 1);
                }
            }
        }
        Ok(ends)
    }

    fn first_offset(&self, partition: PartitionId) -> Offset {
        self.trim.as_ref().map_or(Offset(0), |trim| trim.first_offset(partition))
    }
}

fn check_partition(topic: &Topic, partition: PartitionId) -> Result<()> {
    if partition.0 < topic.partitions() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("topic {} has no partition {partition}", topic.name())))
}

/// Finds the place to read `topic` from.
pub(crate) fn seek(shared: &Arc<Shared>, topic: &Topic, to: SeekTarget) -> Result<Seek> {
    let mut look = Look::new(shared, topic);
    let found = match to {
        SeekTarget::Latest => Some(look.end),
        SeekTarget::Position(position) => {
            check_position(topic, position, look.trim.as_deref())?;
            Some(position).filter(|position| *position <= look.end)
        }
        SeekTarget::Earliest => Some(look.first_at(Position(0))?.unwrap_or(look.end)),
        SeekTarget::Append(time) => look.first_appended(time)?,
        SeekTarget::Offset { partition, offset } => look.at_offset(partition, offset)?,
        SeekTarget::TimestampMs(from_ms) => {
            let stretch = Stretch::new(topic, from_ms, i64::MAX);
            look.first_in(&stretch)?
        }
    };
    Ok(found.map_or(Seek::NoSuchRecord, Seek::At))
}

/// The smallest span that holds every record of `topic` with `from_ms <= timestamp < to_ms`.
pub(crate) fn seek_range(shared: &Arc<Shared>, topic: &Topic, from_ms: i64, to_ms: i64) -> Result<SeekRange> {
    let mut look = Look::new(shared, topic);
    let stretch = Stretch::new(topic, from_ms, to_ms);
    let mut answer = SeekRange { span: None, beyond_max_future: 0 };
    if let Some(first) = look.first_in(&stretch)? {
        answer.span = look.last_in(&stretch)?.map(|last| (first, last.plus(1)));
    }
    let mut from = look.floor;
    while let Some(piece) = look.next(from, |about| stretch.may_exceed(about))? {
        from = piece.about.end;
        let Some(batch) = look.read(&piece)? else { continue };
        answer.beyond_max_future +=
            (0..batch.len()).filter(|row| stretch.judge(&batch, *row) == Some(false)).count() as u64;
    }
    Ok(answer)
}

/// The offsets of all partitions at the place that a seek finds; `None` if there is no such record.
pub(crate) fn cut(shared: &Arc<Shared>, topic: &Topic, to: SeekTarget) -> Result<Option<Cut>> {
    let Seek::At(position) = seek(shared, topic, to)? else { return Ok(None) };
    let offsets = Look::new(shared, topic).offsets_at(position)?;
    Ok(Some(Cut { position, offsets }))
}

/// For each partition the smallest offset from which on no record that counts has a timestamp below `before_ms`.
pub(crate) fn ends_before(shared: &Arc<Shared>, topic: &Topic, before_ms: i64) -> Result<Vec<Offset>> {
    Look::new(shared, topic).ends_before(before_ms)
}
