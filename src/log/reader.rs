//! Reading the log in order of position.

use crate::error::{Error, Result};
use crate::log::frame::{Part, body, crc, padded};
use crate::log::history::Group;
use crate::log::history::entry::{HistoryEntry, is_damage};
use crate::log::history::file::{Extent, GroupSummary};
use crate::log::index::Located;
use crate::log::journal::ReadAhead;
use crate::log::mutant::Mutant;
use crate::log::open::name_offsets;
use crate::log::options::LogOptions;
use crate::log::pieces::PLACES_AND_TIMES;
use crate::log::records::{LogBatch, Projection};
use crate::log::recovery::offsets_of;
use crate::log::report::{Damage, DamageKind, LostOffsets};
use crate::log::shared::Shared;
use crate::log::trim::Floors;
use crate::types::{FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Reads records of some topics in order of position, from one thread at a time.
pub struct Reader {
    shared: Arc<Shared>,
    topics: Vec<TopicId>,
    /// What is needed of each topic's records, where that is not everything.
    projections: BTreeMap<TopicId, Projection>,
    /// The partitions wanted of a topic, where these are not all.
    partitions: BTreeMap<TopicId, BTreeSet<u32>>,
    /// The positions wanted, ascending, where these are not all.
    only: Option<Vec<u64>>,
    position: Position,
    floors: Floors,
    /// Batches of the last stretch that were not handed out one by one yet.
    rest: VecDeque<LogBatch>,
    /// What was reported as damaged last, and from and to where.
    damaged: Option<(Damaged, Position, Position)>,
    /// Row groups of history that are damaged and were skipped.
    skipped: BTreeSet<GroupKey>,
    ahead: ReadAhead,
}

/// A topic's row group: number of the file, place in it.
type GroupKey = (TopicId, u64, usize);

/// Damage that a reader meets.
enum Damaged {
    /// Reading goes on behind it: nothing of other topics lies in between.
    All,
    /// A row group of history, among whose records may be those of other topics.
    Group(GroupKey),
}

/// Where the next records are.
enum Place {
    /// Records are known to be lost here.
    Lost(Damage),
    /// In history: up to this position.
    History(Position),
    /// In the journal: a topic's records of one frame; and up to which position records may be read.
    Journal(Box<Located>, Position),
    /// Nowhere before this position.
    Nothing(Position),
}

/// A row group that holds the next records of a topic.
struct Next {
    topic: TopicId,
    entry: Arc<HistoryEntry>,
    group: usize,
    extent: Extent,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, topics: &[TopicId], position: Position) -> Reader {
        let topics = topics.iter().copied().filter(|id| shared.topics(|topics| topics.by_id(*id)).is_ok()).collect();
        Reader {
            shared,
            topics,
            projections: BTreeMap::new(),
            partitions: BTreeMap::new(),
            only: None,
            position,
            floors: Floors::default(),
            rest: VecDeque::new(),
            damaged: None,
            skipped: BTreeSet::new(),
            ahead: ReadAhead::default(),
        }
    }

    /// A reader of a topic's records at these positions, ascending, whole.
    pub(crate) fn only(shared: Arc<Shared>, topic: TopicId, positions: &[u64]) -> Reader {
        let first = Position(positions.first().copied().unwrap_or_default());
        Reader { only: Some(positions.to_vec()), ..Reader::new(shared, &[topic], first) }
    }

    /// Reads only these parts of a topic's records. To be called before reading.
    #[must_use]
    pub fn with_projection(mut self, topic: TopicId, projection: Projection) -> Reader {
        self.projections.insert(topic, projection);
        self
    }

    /// Reads only the records of these partitions of a topic: many readers of a few partitions each share the work. To be
    /// called before reading.
    #[must_use]
    pub fn with_partitions(mut self, topic: TopicId, partitions: impl IntoIterator<Item = PartitionId>) -> Reader {
        let partitions = partitions.into_iter().map(|partition| partition.0).collect();
        self.partitions.insert(topic, partitions);
        self
    }

    /// The next batch of durable records with positions below `until` (a batch is cut there); `None` if there is none (yet).
    /// Batches of one topic are in position order; those of several topics may overlap.
    ///
    /// A reader that starts at position 0 begins with what is left of each topic. [`ErrorKind::Gone`](crate::ErrorKind::Gone): records that it would have
    /// read next were removed since; the message names what is left.
    ///
    /// [`ErrorKind::Damage`](crate::ErrorKind::Damage): records of these topics are lost here; the message names topic, partition, offsets and file. The
    /// reader stays where it is until [`skip_damage`](Self::skip_damage).
    pub fn next(&mut self, until: Position) -> Result<Option<LogBatch>> {
        if self.rest.is_empty() {
            self.rest = self.next_stretch(until)?.into();
        }
        Ok(self.rest.pop_front())
    }

    /// All durable records of the next stretch of positions that holds any, below `until`; empty if there are none (yet). At
    /// most a few MiB. The batches of one topic are in position order. Afterwards [`position`](Self::position) is the end of the
    /// stretch. Errors as for [`next`](Self::next).
    pub fn next_stretch(&mut self, until: Position) -> Result<Vec<LogBatch>> {
        let until = until.min(self.shared.state().durable_end);
        while self.position < until {
            if let Some(only) = &self.only {
                let Some(next) = wanted(only, self.position, until).first() else {
                    self.position = until;
                    break;
                };
                self.position = Position(*next);
            }
            self.floors.look(&self.shared, &mut self.topics, self.position)?;
            self.position = self.position.max(self.floors.least(&self.topics).min(until));
            let from = self.position;
            let stretch = match self.place(until) {
                Place::Lost(lost) => {
                    self.damaged = Some((Damaged::All, self.position, lost.positions.1));
                    return Err(lost_error(&lost));
                }
                Place::History(until) => self.read_history(until)?,
                Place::Journal(found, until) => self.read_journal(&found, until)?,
                Place::Nothing(end) => {
                    self.position = end;
                    Vec::new()
                }
            };
            // What was trimmed in the meantime may have been passed over.
            if let Err(error) = self.floors.look(&self.shared, &mut self.topics, from) {
                self.position = from;
                return Err(error);
            }
            let left: Vec<LogBatch> = stretch.into_iter().filter_map(|batch| self.floors.left(batch)).collect();
            if !left.is_empty() {
                return Ok(left);
            }
        }
        Ok(Vec::new())
    }

    /// Where the next records before `until` are: one look, so that none is missed while they go from the journal to history.
    fn place(&self, until: Position) -> Place {
        self.shared.index(|index| {
            let lost = index.lost_after(&self.topics, self.position).filter(|lost| lost.positions.0 < until);
            if let Some(lost) = lost.filter(|lost| lost.positions.0 <= self.position) {
                return Place::Lost(lost.clone());
            }
            let until = lost.map_or(until, |lost| lost.positions.0);
            if self.position < index.history.end {
                return Place::History(until.min(index.history.end));
            }
            let found = index.find(&self.topics, self.position, |_, _| true);
            match found.filter(|found| found.first_position < until) {
                Some(found) => Place::Journal(Box::new(found), until),
                None => Place::Nothing(until),
            }
        })
    }

    /// The next stretch of history: as far as the row groups go that hold the next records of each topic.
    fn read_history(&mut self, until: Position) -> Result<Vec<LogBatch>> {
        let mut next = Vec::new();
        for topic in self.topics.clone() {
            next.extend(self.next_group(topic, until)?);
        }
        let end = next.iter().map(|next| next.extent.last_position.plus(1)).fold(until, Position::min);
        let mut stretch = Vec::new();
        for next in next.iter().filter(|next| next.extent.first_position < end) {
            match self.read_group(next, end) {
                Ok(batch) => stretch.extend(batch),
                Err(error) => {
                    let key = (next.topic, next.entry.record().number, next.group);
                    return Err(self.group_error(key, &next.entry, &next.extent, error));
                }
            }
        }
        self.position = end;
        Ok(stretch)
    }

    /// What is wanted of a row group before `end`.
    fn read_group(&self, Next { topic, entry, group, .. }: &Next, end: Position) -> Result<Option<LogBatch>> {
        let cache = &self.shared.sealer.cache;
        if let Some(only) = &self.only {
            let known = cache.read(entry, *group, &PLACES_AND_TIMES)?;
            let rows = rows_at(&known, wanted(only, self.position, end));
            return if rows.is_empty() { Ok(None) } else { entry.open()?.read_rows(*group, &known, &rows).map(Some) };
        }
        let read = cache.read(entry, *group, self.projections.get(topic).unwrap_or(&Projection::ALL))?;
        match self.partitions.get(topic) {
            Some(partitions) => of_partitions(&read, partitions, self.position, end),
            None => Ok(read.between(self.position, end)),
        }
    }

    /// The row group that holds a topic's next records before `until`.
    fn next_group(&mut self, topic: TopicId, until: Position) -> Result<Option<Next>> {
        let partitions = self.partitions.get(&topic);
        let wanted = |extent: &Extent| {
            partitions.is_none_or(|wanted| wanted.iter().any(|one| extent.partition(PartitionId(*one)).is_some()))
        };
        let mut from = self.position.max(self.floors.of(topic));
        loop {
            let entry = self.shared.index(|index| index.history.file_at(topic, from).cloned());
            let Some((entry, extent)) = entry.as_ref().and_then(|entry| Some((entry, &entry.topic(topic)?.extent)))
            else {
                return Ok(None);
            };
            if extent.first_position >= until {
                return Ok(None);
            }
            let number = entry.record().number;
            if wanted(extent) && !self.skipped.contains(&(topic, number, WHOLE)) {
                let keep = |place: usize, group: &GroupSummary| {
                    wanted(&group.extent) && !self.skipped.contains(&(topic, number, place))
                };
                let found = match entry.group_at(topic, from, keep) {
                    Ok(found) => found,
                    Err(error) => {
                        return Err(self.group_error((topic, number, WHOLE), entry, extent, error));
                    }
                };
                if let Some((group, groups)) = found {
                    let extent = groups.get(group).map(|group| &group.extent);
                    let Some(extent) = extent.filter(|extent| extent.first_position < until) else { return Ok(None) };
                    return Ok(Some(Next { topic, entry: entry.clone(), group, extent: extent.clone() }));
                }
            }
            from = extent.last_position.plus(1);
        }
    }

    /// Damage to some records of a history file, in the words that damage to the journal has.
    fn group_error(&mut self, key: GroupKey, entry: &HistoryEntry, extent: &Extent, error: Error) -> Error {
        if !is_damage(&error) {
            return error;
        }
        let topic = key.0;
        self.damaged = Some((Damaged::Group(key), extent.first_position, extent.last_position.plus(1)));
        let name = self.shared.topics(|topics| topics.by_id(topic)).ok().map(|topic| topic.name().to_owned());
        let offsets = extent.partitions.iter().map(|part| LostOffsets {
            topic,
            name: name.clone(),
            partition: part.partition,
            offsets: (part.first_offset, Offset(part.last_offset.0 + 1)),
            certain: true,
        });
        let offsets: Vec<String> = offsets.map(|offsets| offsets.to_string()).collect();
        let positions = (extent.first_position, extent.last_position);
        let message = format!(
            "records are damaged in {} (positions {} to {}): {} ({})",
            entry.name(),
            positions.0,
            positions.1,
            offsets.join(", "),
            error.message()
        );
        Error::damage(message).with_hint(WAY_ON)
    }

    fn read_journal(&mut self, found: &Located, until: Position) -> Result<Vec<LogBatch>> {
        let end = found.end().min(until);
        let partitions = self.partitions.get(&found.entry.topic);
        let none_left = end <= self.floors.of(found.entry.topic);
        if none_left
            || partitions.is_some_and(|wanted| !found.entry.runs.iter().any(|run| wanted.contains(&run.partition.0)))
        {
            self.position = end;
            return Ok(Vec::new());
        }
        let batch = match read_body(&self.shared.options, found, &mut self.ahead) {
            Ok(batch) => batch,
            Err(unread) => {
                if matches!(unread, Unread::Damaged(..)) {
                    self.damaged = Some((Damaged::All, self.position, found.end()));
                }
                return Err(self.unread_error(unread));
            }
        };
        let mut stretch = match &self.only {
            Some(only) => {
                let rows = rows_at(&batch, wanted(only, self.position, end));
                if rows.is_empty() { None } else { Some(batch.take(&rows)?) }
            }
            None => batch.between(self.position, end),
        };
        if let Some(wanted) =
            partitions.filter(|wanted| found.entry.runs.iter().any(|run| !wanted.contains(&run.partition.0)))
        {
            let batch = stretch.as_ref();
            let rows: Vec<u32> = batch
                .iter()
                .flat_map(|batch| (0..).zip(batch.partitions.iter()))
                .filter(|(_, partition)| wanted.contains(partition))
                .map(|(row, _)| row)
                .collect();
            stretch = batch.map(|batch| batch.take(&rows)).transpose()?.filter(|batch| !batch.is_empty());
        }
        self.position = end;
        Ok(stretch.into_iter().collect())
    }

    /// Reads a topic's records of one frame, whole.
    pub(crate) fn read(&mut self, found: &Located) -> Result<LogBatch> {
        read_body(&self.shared.options, found, &mut self.ahead).map_err(|unread| self.unread_error(unread))
    }

    fn unread_error(&self, unread: Unread) -> Error {
        match unread {
            Unread::Failed(error) => error,
            Unread::Damaged(mut damage, why) => {
                name_topics(&self.shared, &mut damage);
                Error::damage(format!("{} ({why})", lost_error(&damage).message()))
            }
        }
    }

    /// Goes on without the records that [`next`](Self::next) reported as damaged: from the first position to before the last;
    /// records of other topics in between are still read. Does nothing when it reported none.
    pub fn skip_damage(&mut self) -> Option<(Position, Position)> {
        let (damaged, from, to) = self.damaged.take()?;
        match damaged {
            Damaged::All => self.position = self.position.max(to),
            Damaged::Group(group) => {
                self.skipped.insert(group);
            }
        }
        Some((from, to))
    }

    /// Every record of these topics before this position was handed out (or is damaged and was skipped).
    pub fn position(&self) -> Position {
        self.rest.iter().map(LogBatch::first_position).fold(self.position, Position::min)
    }
}

/// Stands for all row groups of a file.
const WHOLE: usize = usize::MAX;

/// Those of some positions, ascending, that are at least `from` and below `to`.
fn wanted(positions: &[u64], from: Position, to: Position) -> &[u64] {
    let begin = positions.partition_point(|position| *position < from.0);
    let end = positions.partition_point(|position| *position < to.0);
    positions.get(begin..end).unwrap_or_default()
}

/// The rows of a batch at these positions.
fn rows_at(batch: &LogBatch, positions: &[u64]) -> Vec<u32> {
    let row = |position: &u64| {
        let row = batch.positions.partition_point(|at| at < *position);
        (row < batch.len() && batch.positions.at(row) == *position).then(|| u32::try_from(row).ok())?
    };
    positions.iter().filter_map(row).collect()
}

/// The rows of some partitions of a row group with a position of at least `from` and below `to`.
fn of_partitions(group: &Group, wanted: &BTreeSet<u32>, from: Position, to: Position) -> Result<Option<LogBatch>> {
    let position = |row: &u32| group.positions.at(*row as usize);
    let inside = |rows: &[u32]| {
        let begin = rows.partition_point(|row| position(row) < from.0);
        let end = rows.partition_point(|row| position(row) < to.0);
        rows.get(begin..end).unwrap_or_default().to_vec()
    };
    let mut rows: Vec<u32> = wanted.iter().flat_map(|partition| inside(group.rows_of(*partition))).collect();
    if wanted.len() > 1 {
        rows.sort_unstable();
    }
    match rows.len() {
        0 => Ok(None),
        all if all == group.len() => Ok(Some((**group).clone())),
        _ => group.take(&rows).map(Some),
    }
}

/// Why a body could not be read.
pub(crate) enum Unread {
    /// The operating system refused.
    Failed(Error),
    /// The bytes are not what was written: what is lost (without the topic's name), and how that was seen.
    Damaged(Box<Damage>, String),
}

/// Reads a topic's records of one frame of the journal, whole.
pub(crate) fn read_body(options: &LogOptions, found: &Located, ahead: &mut ReadAhead) -> Result<LogBatch, Unread> {
    let entry = &found.entry;
    let stored = padded(entry.body_len as usize);
    let at = found.frame_at + u64::from(entry.body_at);
    let bytes = found.file.read(at, stored, found.file_end, ahead).map_err(Unread::Failed)?;
    let sum = crc(found.file.salt(), Part::Body, found.seq.0, entry.topic.0, bytes.as_slice());
    let right = sum == entry.body_crc || options.has(Mutant::NoBodyCrc);
    if bytes.len() != stored || !right {
        return Err(Unread::Damaged(Box::new(damage_of(found)), "its checksum does not match".to_owned()));
    }
    let body =
        body::decompress(entry.codec, &bytes.slice_with_length(0, entry.body_len as usize), entry.plain_len as usize);
    let batch = body.and_then(|body| body::decode(&body, entry, found.first_position, found.append_time));
    batch.map_err(|cause| Unread::Damaged(Box::new(damage_of(found)), cause.to_string()))
}

fn name_topics(shared: &Shared, damage: &mut Damage) {
    shared.topics(|topics| name_offsets(std::slice::from_mut(damage), topics));
}

/// What is lost if a topic's records of one frame cannot be read.
pub(crate) fn named_damage_of(shared: &Shared, found: &Located) -> Damage {
    let mut damage = damage_of(found);
    name_topics(shared, &mut damage);
    damage
}

fn damage_of(found: &Located) -> Damage {
    let at = found.frame_at + u64::from(found.entry.body_at);
    Damage {
        kind: DamageKind::Records,
        file: found.file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: (at, at + u64::from(found.entry.body_len)),
        frames: (found.seq, FrameSeq(found.seq.0 + 1)),
        positions: (found.first_position, found.end()),
        offsets: offsets_of(&found.entry),
    }
}

const WAY_ON: &str =
    "`kappa inspect` shows all damage; records behind it can be read; `kappa repair --accept-loss` gives them up";

fn lost_error(damage: &Damage) -> Error {
    Error::damage(damage.to_string()).with_hint(WAY_ON)
}
