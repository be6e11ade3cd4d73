//! A topic's records in pieces: its part of a frame of the journal, or a row group of history. A piece is found by what is
//! known of it, without reading it. Every search is one look at history and journal together, so that nothing is missed while
//! records go from one to the other.

use crate::error::Result;
use crate::log::history::entry::HistoryEntry;
use crate::log::history::file::{Extent, GroupSummary};
use crate::log::index::{Located, Statistics};
use crate::log::reader::Reader;
use crate::log::records::{LogBatch, Projection};
use crate::log::shared::Shared;
use crate::types::{Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Positions, append times, partitions, offsets and timestamps.
pub(crate) const PLACES_AND_TIMES: Projection =
    Projection { keys: false, values: false, headers: false, columns: None };

enum Place {
    Frame(Box<Located>),
    Group(Arc<HistoryEntry>, usize),
}

/// Some records of a topic that are read together.
pub(crate) struct Piece {
    /// What is known of them.
    pub about: Statistics,
    partitions: Vec<PartitionId>,
    place: Place,
}

/// Where to look on.
enum Found {
    Frame(Located),
    File(Arc<HistoryEntry>),
}

impl Statistics {
    /// Of records in history that take so many bytes.
    fn of_extent(extent: &Extent, bytes: u64) -> Statistics {
        Statistics {
            first_position: extent.first_position,
            end: extent.last_position.plus(1),
            first_append: extent.first_append_time,
            last_append: extent.last_append_time,
            timestamps: extent.timestamps_ms,
            bytes,
        }
    }
}

impl Piece {
    fn frame(found: Located) -> Piece {
        let partitions = found.entry.runs.iter().map(|run| run.partition).collect();
        Piece { about: found.statistics(), partitions, place: Place::Frame(Box::new(found)) }
    }

    fn group(entry: Arc<HistoryEntry>, number: usize, group: &GroupSummary) -> Piece {
        let partitions = group.extent.partitions.iter().map(|part| part.partition).collect();
        let about = Statistics::of_extent(&group.extent, group.extent.raw_bytes);
        Piece { about, partitions, place: Place::Group(entry, number) }
    }

    /// The partitions that occur.
    pub fn partitions(&self) -> &[PartitionId] {
        &self.partitions
    }

    /// Reads it.
    pub fn read(&self, shared: &Shared, reader: &mut Reader, projection: &Projection) -> Result<LogBatch> {
        match &self.place {
            Place::Frame(found) => reader.read(found),
            Place::Group(entry, group) => Ok((**shared.sealer.cache.read(entry, *group, projection)?).clone()),
        }
    }
}

/// What a history file holds of a topic.
fn about(entry: &HistoryEntry, topic: TopicId) -> Option<Statistics> {
    entry.topic(topic).map(|topic| Statistics::of_extent(&topic.extent, topic.file_bytes))
}

/// The topic's row groups among all of a file, with their numbers.
fn groups_of(groups: &[GroupSummary], topic: TopicId) -> impl DoubleEndedIterator<Item = (usize, &GroupSummary)> {
    let from = groups.partition_point(|group| group.topic < topic);
    let to = groups.partition_point(|group| group.topic <= topic);
    (from..to).zip(groups.get(from..to).unwrap_or_default())
}

/// One topic's records in each file that holds any, in order.
pub(crate) fn files_of(shared: &Shared, topic: TopicId) -> Vec<Statistics> {
    shared.index(|index| {
        let history = index.history.files_of(topic).filter_map(|entry| about(entry, topic));
        history.chain(index.files_of(topic).copied()).collect()
    })
}

/// The first piece of a topic that ends after `from` and of which `may` holds; what `may` refuses for many records, it must
/// refuse for some of them.
pub(crate) fn next(
    shared: &Shared,
    topic: TopicId,
    mut from: Position,
    may: impl Fn(&Statistics) -> bool,
) -> Result<Option<Piece>> {
    loop {
        let is_next = |about: &Statistics| about.end > from && may(about);
        let found = shared.index(|index| {
            let file = index.history.files_of(topic).find(|entry| about(entry, topic).as_ref().is_some_and(is_next));
            file.cloned().map(Found::File).or_else(|| index.next_piece(topic, from, &may).map(Found::Frame))
        });
        let entry = match found {
            Some(Found::File(entry)) => entry,
            Some(Found::Frame(found)) => return Ok(Some(Piece::frame(found))),
            None => return Ok(None),
        };
        let groups = entry.groups()?;
        let is_next = |group: &GroupSummary| is_next(&Statistics::of_extent(&group.extent, group.extent.raw_bytes));
        if let Some((number, group)) = groups_of(&groups, topic).find(|(_, group)| is_next(group)) {
            return Ok(Some(Piece::group(entry.clone(), number, group)));
        }
        from = about(&entry, topic).map_or(from, |about| about.end);
    }
}

/// The last piece of a topic that begins before `before` and of which `may` holds.
pub(crate) fn last(
    shared: &Shared,
    topic: TopicId,
    mut before: Position,
    may: impl Fn(&Statistics) -> bool,
) -> Result<Option<Piece>> {
    loop {
        let is_last = |about: &Statistics| about.first_position < before && may(about);
        let found = shared.index(|index| {
            let file = || {
                let mut files = index.history.files_of(topic).rev();
                files.find(|entry| about(entry, topic).as_ref().is_some_and(is_last)).cloned()
            };
            index.last_piece(topic, before, &may).map(Found::Frame).or_else(|| file().map(Found::File))
        });
        let entry = match found {
            Some(Found::File(entry)) => entry,
            Some(Found::Frame(found)) => return Ok(Some(Piece::frame(found))),
            None => return Ok(None),
        };
        let groups = entry.groups()?;
        let is_last = |group: &GroupSummary| is_last(&Statistics::of_extent(&group.extent, group.extent.raw_bytes));
        if let Some((number, group)) = groups_of(&groups, topic).rfind(|(_, group)| is_last(group)) {
            return Ok(Some(Piece::group(entry.clone(), number, group)));
        }
        before = about(&entry, topic).map_or(before, |about| about.first_position);
    }
}

/// The piece that holds an offset, if any does.
pub(crate) fn with_offset(
    shared: &Shared,
    topic: TopicId,
    partition: PartitionId,
    offset: Offset,
) -> Result<Option<Piece>> {
    let holds = |extent: &Extent| {
        let part = extent.partition(partition);
        part.is_some_and(|part| part.first_offset <= offset && offset <= part.last_offset)
    };
    let found = shared.index(|index| {
        let in_file = |entry: &&Arc<HistoryEntry>| entry.topic(topic).is_some_and(|topic| holds(&topic.extent));
        let file = index.history.files_of(topic).find(in_file).cloned().map(Found::File);
        file.or_else(|| index.piece_of_offset(topic, partition, offset).map(Found::Frame))
    });
    match found {
        Some(Found::File(entry)) => {
            let groups = entry.groups()?;
            let found = groups_of(&groups, topic).find(|(_, group)| holds(&group.extent));
            Ok(found.map(|(number, group)| Piece::group(entry.clone(), number, group)))
        }
        Some(Found::Frame(found)) => Ok(Some(Piece::frame(found))),
        None => Ok(None),
    }
}

/// Adds the first offset of each partition among the pieces that begin at `from` or behind, where there is none yet.
pub(crate) fn first_offsets(
    shared: &Shared,
    topic: TopicId,
    from: Position,
    firsts: &mut BTreeMap<PartitionId, Offset>,
) -> Result<()> {
    let mut in_journal = BTreeMap::new();
    let entries: Vec<Arc<HistoryEntry>> = shared.index(|index| {
        index.first_offsets(topic, from, &mut in_journal);
        let behind = |entry: &&Arc<HistoryEntry>| about(entry, topic).is_some_and(|about| about.end > from);
        index.history.files_of(topic).filter(behind).cloned().collect()
    });
    let mut add = |extent: &Extent| {
        for part in &extent.partitions {
            firsts.entry(part.partition).or_insert(part.first_offset);
        }
    };
    for entry in entries {
        match entry.topic(topic).map(|topic| &topic.extent) {
            Some(extent) if extent.first_position >= from => add(extent),
            Some(_) => {
                let groups = entry.groups()?;
                let behind = groups_of(&groups, topic).filter(|(_, group)| group.extent.first_position >= from);
                behind.for_each(|(_, group)| add(&group.extent));
            }
            None => {}
        }
    }
    for (partition, offset) in in_journal {
        firsts.entry(partition).or_insert(offset);
    }
    Ok(())
}
