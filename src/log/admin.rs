//! Producer ids and consumer groups: what is known of them, and how they are changed.

use crate::error::{Error, ErrorKind, Result};
use crate::log::producers::{self, LAST_KEY, ProducerId, ProducerInfo};
use crate::log::seek::SeekTarget;
use crate::log::shared::Shared;
use crate::log::{AppendBatch, Durability, Log, MetaRecord, MetaSpace, Topic};
use crate::types::{Offset, PartitionId, Position, TopicId};
use std::sync::{Arc, PoisonError};

/// Ids forgotten in one step of the keeper.
const FORGET_AT_ONCE: usize = 1_000;

/// How far a consumer group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: TopicId,
    /// Its name; `None` if it was deleted.
    pub name: Option<String>,
    /// The partition.
    pub partition: PartitionId,
    /// The next offset that the group wants.
    pub offset: Offset,
    /// The durable end of the partition.
    pub end: Offset,
}

/// The metadata key of a committed offset.
pub(crate) fn offset_key(group: &str, topic: TopicId, partition: PartitionId) -> String {
    format!("{group}/{topic}/{partition}")
}

/// [`ErrorKind::Input`] if this cannot be a group's name.
pub(crate) fn check_group(group: &str) -> Result<()> {
    if group.is_empty() || group.contains('/') || group.len() > 249 {
        return Err(Error::input(format!("{group:?} is not a group name: 1 to 249 characters without '/'")));
    }
    Ok(())
}

/// The record of a committed offset.
pub(crate) fn offset_record(group: &str, topic: TopicId, partition: PartitionId, next: Option<Offset>) -> MetaRecord {
    MetaRecord {
        space: MetaSpace::Offset,
        key: offset_key(group, topic, partition),
        value: next.map(|next| next.0.to_le_bytes().to_vec()),
    }
}

/// Reads a committed offset.
pub(crate) fn decode_offset(key: &str, value: &[u8]) -> Result<Offset> {
    let next = value.try_into().map(u64::from_le_bytes);
    next.map(Offset).map_err(|_| Error::damage(format!("the committed offset {key} has {} bytes", value.len())))
}

fn parse_offset_key(key: &str) -> Option<(&str, TopicId, PartitionId)> {
    let (rest, partition) = key.rsplit_once('/')?;
    let (group, topic) = rest.rsplit_once('/')?;
    Some((group, TopicId(topic.parse().ok()?), PartitionId(partition.parse().ok()?)))
}

impl Log {
    /// A new id for a producer that numbers its records; durable when this returns. The numbers are kept for as long as the id is
    /// used, also across restarts, and forgotten as [`ProducerLimits`](super::ProducerLimits) says.
    pub fn producer_id(&self) -> Result<ProducerId> {
        let _one = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        self.new_producer_id()
    }

    fn new_producer_id(&self) -> Result<ProducerId> {
        let last = match self.meta(MetaSpace::Producer, LAST_KEY) {
            None => 0,
            Some(bytes) => bytes
                .try_into()
                .map(i64::from_le_bytes)
                .map_err(|_| Error::damage("the metadata record of the last producer id cannot be read"))?,
        };
        let producer = ProducerId { id: last + 1, epoch: 0 };
        let counter = MetaRecord {
            space: MetaSpace::Producer,
            key: LAST_KEY.to_owned(),
            value: Some(producer.id.to_le_bytes().to_vec()),
        };
        let known = producers::record(producer, self.clock().append_time);
        self.inner.shared.append(AppendBatch::meta(vec![counter, known]), true)?.wait()?;
        Ok(producer)
    }

    /// The next epoch of a producer: whoever goes on with an older one is fenced, and its numbers begin at 0 again. After the last
    /// epoch, a new id. [`ErrorKind::Conflict`]: it is fenced itself, or not known (any more).
    pub fn bump_epoch(&self, producer: ProducerId) -> Result<ProducerId> {
        let _one = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.inner.shared.state().producers.epoch(producer.id);
        if current != Some(producer.epoch) {
            let message = match current {
                Some(epoch) => format!("producer {producer} is fenced: the epoch is {epoch}"),
                None => format!("producer {producer} is not known (any more)"),
            };
            return Err(Error::new(ErrorKind::Conflict, message).with_hint("ask for a new producer id"));
        }
        let Some(epoch) = producer.epoch.checked_add(1) else { return self.new_producer_id() };
        let next = ProducerId { epoch, ..producer };
        let record = producers::record(next, self.clock().append_time);
        self.inner.shared.append(AppendBatch::meta(vec![record]), true)?.wait()?;
        Ok(next)
    }

    /// The producers that are remembered, by id.
    pub fn producers(&self) -> Vec<ProducerInfo> {
        self.inner.shared.state().producers.list()
    }

    /// The names of all consumer groups that have committed an offset, in order.
    pub fn groups(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .meta_scan(MetaSpace::Offset, "")
            .iter()
            .filter_map(|(key, _)| parse_offset_key(key).map(|(group, ..)| group.to_owned()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What a group has committed, by topic and partition. [`ErrorKind::NotFound`] if it has committed nothing.
    pub fn group_offsets(&self, group: &str) -> Result<Vec<GroupOffset>> {
        check_group(group)?;
        let mut offsets = Vec::new();
        for (key, value) in self.meta_scan(MetaSpace::Offset, &format!("{group}/")) {
            let Some((_, topic, partition)) = parse_offset_key(&key) else { continue };
            let offset = decode_offset(&key, &value)?;
            let name = self.topic_by_id(topic).ok().map(|topic| topic.name().to_owned());
            let ends = self.partition_ends(topic).unwrap_or_default();
            let end = ends.get(partition.0 as usize).copied().unwrap_or_default();
            offsets.push(GroupOffset { topic, name, partition, offset, end });
        }
        offsets.sort_unstable_by_key(|offset| (offset.topic, offset.partition));
        if offsets.is_empty() {
            let hint = "`kappa group list` shows the groups there are";
            return Err(Error::new(ErrorKind::NotFound, format!("group {group} has committed nothing")).with_hint(hint));
        }
        Ok(offsets)
    }

    /// Forgets a group's offsets, of one topic or of all. [`ErrorKind::NotFound`] if there are none.
    pub fn delete_group(&self, group: &str, topic: Option<TopicId>) -> Result<()> {
        let mine =
            self.group_offsets(group)?.into_iter().filter(|offset| topic.is_none_or(|topic| offset.topic == topic));
        let gone: Vec<_> = mine.map(|offset| offset_record(group, offset.topic, offset.partition, None)).collect();
        if gone.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("group {group} has committed nothing for that topic")));
        }
        self.append_wait(AppendBatch::meta(gone)).map(drop)
    }

    /// Sets a group's offsets of all partitions of a topic, durably and at once: to the first records at or behind `to`, or to the
    /// end where there is none. Consumers that are open do not notice.
    pub fn reset_group(&self, group: &str, topic: &Topic, to: SeekTarget) -> Result<Vec<GroupOffset>> {
        check_group(group)?;
        let offsets = match self.cut(topic.id(), to)? {
            Some(cut) => cut.offsets,
            None => self.partition_ends(topic.id())?,
        };
        let records = (0..).map(PartitionId).zip(offsets);
        let records = records.map(|(partition, next)| offset_record(group, topic.id(), partition, Some(next)));
        self.append_wait(AppendBatch::meta(records.collect()))?;
        let mine = self.group_offsets(group)?.into_iter().filter(|offset| offset.topic == topic.id());
        Ok(mine.collect())
    }

    /// Makes everything that was acknowledged so far durable. At once, unless
    /// [`Durability::Interval`](super::Durability::Interval) was chosen.
    ///
    /// [`ErrorKind::Unknown`] if that fails, [`ErrorKind::Unavailable`] if an earlier write has failed, [`ErrorKind::Closed`].
    pub fn sync(&self) -> Result<Position> {
        let shared = &self.inner.shared;
        match shared.options.durability {
            Durability::Durable => shared.check_open(&shared.queue())?,
            Durability::Interval { .. } => drop(shared.append(AppendBatch::default(), false)?.wait()?),
        }
        Ok(self.durable_end())
    }
}

/// A task of the keeper: takes ids that are forgotten out of the metadata.
pub(crate) fn step(shared: &Arc<Shared>) -> Result<bool> {
    let forgotten = shared.state().producers.take_forgotten(FORGET_AT_ONCE);
    if forgotten.is_empty() {
        return Ok(false);
    }
    let record = |id: &i64| MetaRecord { space: MetaSpace::Producer, key: producers::key(*id), value: None };
    shared.append(AppendBatch::meta(forgotten.iter().map(record).collect()), true)?.wait()?;
    Ok(true)
}
