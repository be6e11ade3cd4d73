//! A consumer: reads a topic record by record and remembers per group how far it got.

use crate::error::{Error, ErrorKind, Result};
use crate::log::admin::{check_group, decode_offset, offset_key, offset_record};
use crate::log::reader::Reader;
use crate::log::records::{LogBatch, decode_headers};
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace, Seek, SeekTarget, Topic};
use crate::types::{AppendTime, Offset, PartitionId, Position};
use arrow::array::{Array as _, BinaryArray};
use std::collections::{BTreeMap, BTreeSet};

/// A record as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its position in the log.
    pub position: Position,
    /// When it was appended.
    pub append_time: AppendTime,
    /// Its timestamp in ms.
    pub timestamp_ms: Option<i64>,
    /// Its key; null is not empty.
    pub key: Option<Vec<u8>>,
    /// Its value; null is not empty.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Reads records of one topic in log order; used by one thread at a time.
///
/// ```
/// use kappa::env::Env;
/// use kappa::log::records::Record;
/// use kappa::log::{Consumer, Log, LogOptions, Producer, ProducerOptions, TopicConfig};
///
/// # fn main() -> kappa::Result<()> {
/// let (env, _sim) = Env::sim(1); // Env::os() for the real disk
/// let log = Log::open(&env, "/data".as_ref(), LogOptions::default())?;
/// let topic = log.create_topic("flights", TopicConfig::default())?;
/// let mut producer = Producer::new(&log, &topic, ProducerOptions::default());
/// for value in ["one", "two", "three"] {
///     producer.send(&Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] })?;
/// }
/// producer.flush()?;
///
/// let mut consumer = Consumer::new(&log, &topic, Some("readers"))?;
/// let records = consumer.poll(2)?;
/// assert_eq!(records[1].value.as_deref(), Some(&b"two"[..]));
/// consumer.commit()?;
///
/// let mut next = Consumer::new(&log, &topic, Some("readers"))?;
/// assert_eq!(next.poll(10)?[0].value.as_deref(), Some(&b"three"[..]));
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    log: Log,
    topic: Topic,
    group: Option<String>,
    partitions: BTreeSet<u32>,
    /// Next offset wanted of each partition; records before it are passed over.
    wanted: BTreeMap<u32, u64>,
    reader: Reader,
    batch: Option<(LogBatch, usize)>,
    /// The next record of some partition was removed.
    gone: bool,
}

impl Consumer {
    /// A consumer of all partitions, from what `group` committed on, or from the start.
    ///
    /// [`ErrorKind::Input`]: a group name is not empty and has no `/`.
    pub fn new(log: &Log, topic: &Topic, group: Option<&str>) -> Result<Consumer> {
        group.map_or(Ok(()), check_group)?;
        let mut consumer = Consumer {
            log: log.clone(),
            topic: topic.clone(),
            group: group.map(str::to_owned),
            partitions: (0..topic.partitions()).collect(),
            wanted: BTreeMap::new(),
            reader: log.reader(&[topic.id()], Position(0)),
            batch: None,
            gone: false,
        };
        for (partition, start) in (0..).zip(log.partition_starts(topic.id())?) {
            let committed = consumer.committed(PartitionId(partition))?;
            consumer.wanted.insert(partition, committed.unwrap_or(start).0);
        }
        consumer.restart_reader()?;
        Ok(consumer)
    }

    /// Reads only these partitions from now on.
    pub fn assign(&mut self, partitions: &[PartitionId]) -> Result<()> {
        for partition in partitions {
            self.check(*partition)?;
        }
        self.partitions = partitions.iter().map(|partition| partition.0).collect();
        self.restart_reader()
    }

    fn check(&self, partition: PartitionId) -> Result<()> {
        if partition.0 < self.topic.partitions() {
            return Ok(());
        }
        let message = format!("topic {} has no partition {partition}", self.topic.name());
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// Reads a partition from this offset on.
    pub fn seek_offset(&mut self, partition: PartitionId, offset: Offset) -> Result<()> {
        self.check(partition)?;
        self.wanted.insert(partition.0, offset.0);
        self.restart_reader()
    }

    /// Reads all partitions from this place on; tells where that is. If there is no such record, nothing changes.
    pub fn seek(&mut self, to: SeekTarget) -> Result<Seek> {
        let found = self.log.seek(self.topic.id(), to)?;
        if let Seek::At(position) = found {
            // Damage at this place is reported when it is read.
            let cut = self.log.cut(self.topic.id(), SeekTarget::Position(position));
            let offsets = match cut {
                Err(error) if error.kind() == ErrorKind::Damage => self.log.partition_starts(self.topic.id())?,
                cut => cut?.map(|cut| cut.offsets).unwrap_or_default(),
            };
            self.wanted = (0..).zip(offsets.iter().map(|offset| offset.0)).collect();
            self.gone = false;
            self.reader = self.reader_from(position);
            self.batch = None;
        }
        Ok(found)
    }

    /// Starts reading at the first wanted record.
    fn restart_reader(&mut self) -> Result<()> {
        let mut from = self.log.durable_end();
        self.gone = false;
        for partition in &self.partitions {
            let offset = Offset(self.wanted.get(partition).copied().unwrap_or_default());
            let to = SeekTarget::Offset { partition: PartitionId(*partition), offset };
            let found = match self.log.seek(self.topic.id(), to) {
                Err(error) if error.kind() == ErrorKind::Gone => {
                    // Polling says so: the caller may seek elsewhere first.
                    self.gone = true;
                    continue;
                }
                found => found?,
            };
            if let Seek::At(position) = found {
                from = from.min(position);
            } else if self.log.partition_ends(self.topic.id())?.get(*partition as usize) > Some(&offset) {
                // The record is lost: reading from the start meets the damage and reports it.
                from = Position(0);
            }
        }
        self.reader = self.reader_from(from);
        self.batch = None;
        Ok(())
    }

    /// The next batch of the reader. Records that were removed and not wanted are no error.
    fn next_batch(&mut self) -> Result<Option<LogBatch>> {
        match self.reader.next(self.log.durable_end()) {
            Err(error) if error.kind() == ErrorKind::Gone => {
                self.restart_reader()?;
                self.check_gone()?;
                self.reader.next(self.log.durable_end())
            }
            next => next,
        }
    }

    /// An error if the next record of a partition was removed.
    fn check_gone(&self) -> Result<()> {
        for partition in self.partitions.iter().filter(|_| self.gone) {
            let offset = Offset(self.wanted.get(partition).copied().unwrap_or_default());
            self.log.seek(self.topic.id(), SeekTarget::Offset { partition: PartitionId(*partition), offset })?;
        }
        Ok(())
    }

    /// A reader of the partitions wanted.
    fn reader_from(&self, position: Position) -> Reader {
        let reader = self.log.reader(&[self.topic.id()], position);
        if self.partitions.len() == self.topic.partitions() as usize {
            return reader;
        }
        reader.with_partitions(self.topic.id(), self.partitions.iter().copied().map(PartitionId))
    }

    /// The next records, at most `max`; none if there are none yet. [`ErrorKind::Damage`] as in [`Reader::next`].
    /// [`ErrorKind::Gone`]: the next record of a partition was removed; the message says which is the first that is left, and
    /// [`seek`](Self::seek) or [`seek_offset`](Self::seek_offset) go on.
    pub fn poll(&mut self, max: usize) -> Result<Vec<ConsumedRecord>> {
        self.check_gone()?;
        let mut records = Vec::new();
        while records.len() < max {
            if self.batch.is_none() {
                match self.next_batch() {
                    Ok(Some(batch)) => self.batch = Some((batch, 0)),
                    Ok(None) => break,
                    // What was read before the error is handed out first.
                    Err(_) if !records.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            let Some((batch, row)) = &mut self.batch else { break };
            let record = record_of(batch, *row)?;
            *row += 1;
            if *row == batch.len() {
                self.batch = None;
            }
            let wanted = self.wanted.entry(record.partition.0).or_default();
            if self.partitions.contains(&record.partition.0) && record.offset.0 >= *wanted {
                *wanted = record.offset.0 + 1;
                records.push(record);
            }
        }
        Ok(records)
    }

    /// As [`poll`](Self::poll), and waits up to `timeout_us` for the first record.
    pub fn poll_wait(&mut self, max: usize, timeout_us: u64) -> Result<Vec<ConsumedRecord>> {
        let clock = self.log.env().clock.clone();
        let until_us = clock.monotonic_us().saturating_add(timeout_us);
        loop {
            let records = self.poll(max)?;
            let left_us = until_us.saturating_sub(clock.monotonic_us());
            if !records.is_empty() || max == 0 || left_us == 0 {
                return Ok(records);
            }
            let end = self.reader.position();
            if self.log.wait_beyond(end, left_us) <= end {
                return Ok(records);
            }
        }
    }

    /// As [`poll`](Self::poll), for async code: waits until there is a record. Errors also as for
    /// [`Log::wait_beyond_async`]. Nothing is lost if the future is dropped.
    pub async fn poll_async(&mut self, max: usize) -> Result<Vec<ConsumedRecord>> {
        loop {
            let records = self.poll(max)?;
            if !records.is_empty() || max == 0 {
                return Ok(records);
            }
            self.log.wait_beyond_async(self.reader.position()).await?;
        }
    }

    /// Moves on behind damage that [`poll`](Self::poll) reported.
    pub fn skip_damage(&mut self) {
        self.reader.skip_damage();
    }

    /// Makes durable, for the group, that all records polled so far are dealt with.
    pub fn commit(&mut self) -> Result<()> {
        let Some(group) = &self.group else {
            return Err(Error::input("a consumer without a group cannot commit"));
        };
        let changed = self.partitions.iter().filter_map(|partition| Some((*partition, *self.wanted.get(partition)?)));
        let record = |(partition, next): (u32, u64)| {
            offset_record(group, self.topic.id(), PartitionId(partition), Some(Offset(next)))
        };
        let records: Vec<MetaRecord> = changed.map(record).collect();
        self.log.append_wait(AppendBatch::meta(records)).map(|_| ())
    }

    /// The next offset of a partition for the group, if it has committed one.
    pub fn committed(&self, partition: PartitionId) -> Result<Option<Offset>> {
        let Some(group) = &self.group else { return Ok(None) };
        let key = offset_key(group, self.topic.id(), partition);
        self.log.meta(MetaSpace::Offset, &key).map(|value| decode_offset(&key, &value)).transpose()
    }
}

fn record_of(batch: &LogBatch, row: usize) -> Result<ConsumedRecord> {
    let bytes = |column: &BinaryArray| (!column.is_null(row)).then(|| column.value(row).to_vec());
    let at = |column: &[u64]| column.get(row).copied().unwrap_or_default();
    let headers = decode_headers(batch.headers.value(row)).map_err(|cause| {
        Error::damage(format!("headers of the record at position {}: {cause}", at(&batch.positions)))
    })?;
    Ok(ConsumedRecord {
        partition: PartitionId(batch.partitions.get(row).copied().unwrap_or_default()),
        offset: Offset(at(&batch.offsets)),
        position: Position(at(&batch.positions)),
        append_time: AppendTime(batch.append_times.get(row).copied().unwrap_or_default()),
        timestamp_ms: (!batch.timestamps.is_null(row)).then(|| batch.timestamps.value(row)),
        key: bytes(&batch.keys),
        value: bytes(&batch.values),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
    })
}
