//! Finding the place to read from.

use crate::error::{Error, ErrorKind, Result};
use crate::log::index::Located;
use crate::log::reader::Reader;
use crate::log::records::LogBatch;
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{AppendTime, Offset, PartitionId, Position, US_PER_MS};
use std::sync::Arc;

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

/// The largest timestamp that a record may have to count, in ms.
fn latest_ms(append_time: AppendTime, topic: &Topic) -> i64 {
    append_time.0.saturating_add(topic.config().max_future_us).div_euclid(US_PER_MS)
}

/// Visits a topic's records frame by frame.
struct Walk {
    shared: Arc<Shared>,
    reader: Reader,
    topic: Topic,
    at: Position,
    end: Position,
}

impl Walk {
    fn new(shared: &Arc<Shared>, topic: &Topic) -> Walk {
        let end = shared.state().durable_end;
        let reader = Reader::new(shared.clone(), &[topic.id()], Position(0));
        Walk { shared: shared.clone(), reader, topic: topic.clone(), at: Position(0), end }
    }

    /// The next frame's records for which `wanted` (timestamps' range in ms, append time) holds.
    fn next(&mut self, wanted: impl FnMut(Option<(i64, i64)>, AppendTime) -> bool) -> Option<Located> {
        let found = self.shared.index(|index| index.find(&[self.topic.id()], self.at, wanted))?;
        self.at = found.end();
        (found.first_position < self.end).then_some(found)
    }

    fn read(&mut self, found: &Located) -> Result<LogBatch> {
        self.reader.read(found)
    }
}

/// Finds the place to read `topic` from.
pub(crate) fn seek(shared: &Arc<Shared>, topic: &Topic, to: SeekTarget) -> Result<Seek> {
    let mut walk = Walk::new(shared, topic);
    let found = match to {
        SeekTarget::Latest => Some(walk.end),
        SeekTarget::Position(position) => Some(position).filter(|position| *position <= walk.end),
        SeekTarget::Earliest => Some(walk.next(|_, _| true).map_or(walk.end, |found| found.first_position)),
        SeekTarget::Append(time) => walk.next(|_, append_time| append_time >= time).map(|found| found.first_position),
        SeekTarget::Offset { partition, offset } => find_offset(&mut walk, partition, offset)?,
        SeekTarget::TimestampMs(from_ms) => find_timestamp(&mut walk, from_ms)?,
    };
    Ok(found.map_or(Seek::NoSuchRecord, Seek::At))
}

fn find_offset(walk: &mut Walk, partition: PartitionId, offset: Offset) -> Result<Option<Position>> {
    if partition.0 >= walk.topic.partitions() {
        let message = format!("topic {} has no partition {partition}", walk.topic.name());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    while let Some(found) = walk.next(|_, _| true) {
        let mut runs = found.entry.runs.iter().filter(|run| run.partition == partition);
        if !runs.any(|run| run.base <= offset && offset.0 < run.base.0 + u64::from(run.count)) {
            continue;
        }
        let batch = walk.read(&found)?;
        let row = (0..batch.len())
            .find(|row| batch.partitions.get(*row) == Some(&partition.0) && batch.offsets.get(*row) == Some(&offset.0));
        return Ok(row.map(|row| found.first_position.plus(row as u64)));
    }
    Ok(None)
}

fn find_timestamp(walk: &mut Walk, from_ms: i64) -> Result<Option<Position>> {
    let topic = walk.topic.clone();
    let may_hold = |times: Option<(i64, i64)>, append_time: AppendTime| {
        times.is_some_and(|(min, max)| max >= from_ms && min <= latest_ms(append_time, &topic))
    };
    while let Some(found) = walk.next(may_hold) {
        let batch = walk.read(&found)?;
        let latest = latest_ms(found.append_time, &topic);
        let row = batch.timestamps.iter().position(|t| t.is_some_and(|t| from_ms <= t && t <= latest));
        if let Some(row) = row {
            return Ok(Some(found.first_position.plus(row as u64)));
        }
    }
    Ok(None)
}

/// The smallest span that holds every record of `topic` with `from_ms <= timestamp < to_ms`.
pub(crate) fn seek_range(shared: &Arc<Shared>, topic: &Topic, from_ms: i64, to_ms: i64) -> Result<SeekRange> {
    let mut walk = Walk::new(shared, topic);
    let mut answer = SeekRange { span: None, beyond_max_future: 0 };
    while let Some(found) = walk.next(|times, _| times.is_some_and(|(min, max)| max >= from_ms && min < to_ms)) {
        let latest = latest_ms(found.append_time, topic);
        for (row, time) in walk.read(&found)?.timestamps.iter().enumerate() {
            match time.filter(|t| from_ms <= *t && *t < to_ms) {
                None => {}
                Some(t) if t > latest => answer.beyond_max_future += 1,
                Some(_) => {
                    let at = found.first_position.plus(row as u64);
                    let from = answer.span.map_or(at, |(from, _)| from);
                    answer.span = Some((from, at.plus(1)));
                }
            }
        }
    }
    Ok(answer)
}
