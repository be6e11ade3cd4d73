//! Topics: names, settings, and how a record finds its partition.

use crate::codec::CodecError;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::trim::{self, Trim};
use crate::types::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Most partitions a topic can have.
pub const PARTITIONS_MAX: u32 = 4096;

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Number of partitions, 1 to [`PARTITIONS_MAX`]. Default 1.
    pub partitions: u32,
    /// A record whose timestamp is further ahead of its append time than this moves no watermark and no seek. Default 1 h.
    pub max_future_us: i64,
    /// Records are removed once their append time is this far in the past, in portions of up to a sixteenth of it. Default `None`: kept.
    pub retention_us: Option<i64>,
    /// The oldest records are removed, in portions of up to a sixteenth of this, once the topic has more bytes in the log. The file
    /// that is being written always stays. Default `None`: kept.
    pub retention_bytes: Option<u64>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig { partitions: 1, max_future_us: 3_600_000_000, retention_us: None, retention_bytes: None }
    }
}

impl TopicConfig {
    fn check(&self) -> Result<()> {
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            let message = format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {}", self.partitions);
            return Err(Error::input(message));
        }
        if self.max_future_us < 0 {
            return Err(Error::input(format!("max-future is {} us: it cannot be negative", self.max_future_us)));
        }
        if let Some(retention_us) = self.retention_us.filter(|retention_us| *retention_us <= 0) {
            return Err(Error::input(format!("retention is {retention_us} us: it must be positive")));
        }
        Ok(())
    }
}

/// A change of a topic's settings. The number of partitions cannot change: keys would move to other partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicChange {
    /// Sets [`TopicConfig::max_future_us`].
    MaxFutureUs(i64),
    /// Sets [`TopicConfig::retention_us`].
    RetentionUs(Option<i64>),
    /// Sets [`TopicConfig::retention_bytes`].
    RetentionBytes(Option<u64>),
}

impl TopicChange {
    /// Makes the change.
    pub fn apply(self, config: &mut TopicConfig) {
        match self {
            TopicChange::MaxFutureUs(max_future_us) => config.max_future_us = max_future_us,
            TopicChange::RetentionUs(retention_us) => config.retention_us = retention_us,
            TopicChange::RetentionBytes(retention_bytes) => config.retention_bytes = retention_bytes,
        }
    }
}

/// A topic as it was when asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Topic(Arc<TopicInfo>);

#[derive(Debug)]
struct TopicInfo {
    id: TopicId,
    name: String,
    config: TopicConfig,
    /// Batches without keys so far: each goes to the next partition.
    turn: AtomicU32,
}

impl Topic {
    fn new(id: TopicId, name: String, config: TopicConfig) -> Topic {
        Topic(Arc::new(TopicInfo { id, name, config, turn: AtomicU32::new(0) }))
    }

    /// Its number.
    pub fn id(&self) -> TopicId {
        self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its settings.
    pub fn config(&self) -> &TopicConfig {
        &self.0.config
    }

    /// Number of its partitions.
    pub fn partitions(&self) -> u32 {
        self.0.config.partitions
    }

    /// The partition of the next batch of records without keys.
    pub(crate) fn next_turn(&self) -> u32 {
        self.0.turn.fetch_add(1, Ordering::Relaxed) % self.partitions()
    }

    /// The partition of a key.
    pub(crate) fn partition_of(&self, key: &[u8]) -> u32 {
        partition_of_key(key, self.partitions())
    }
}

/// MurmurHash2, 32 bits, seed 0x9747b28c, as Kafka's Java client hashes keys.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let len = u32::try_from(bytes.len()).expect("keys are shorter than 4 GiB");
    let mut hash = 0x9747_b28c ^ len;
    let mut words = bytes.chunks_exact(4);
    for word in words.by_ref() {
        let mut four = [0; 4];
        four.copy_from_slice(word);
        let mut k = u32::from_le_bytes(four).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut four = [0; 4];
        four[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(four)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition Kafka's Java client gives a key.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    name: String,
    partitions: u32,
    max_future_us: i64,
    retention_us: Option<i64>,
    retention_bytes: Option<u64>,
    deleted: bool,
}

const WIRE_VERSION: u8 = 2;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<1024>()
}

/// The catalog's topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_id: BTreeMap<TopicId, Topic>,
    by_name: BTreeMap<String, TopicId>,
    trims: BTreeMap<TopicId, Arc<Trim>>,
    last_id: TopicId,
}

impl Topics {
    /// The record that creates a topic, after checking that it can be.
    pub fn creation(&self, name: &str, config: &TopicConfig) -> Result<MetaRecord> {
        crate::types::check_topic_name(name).map_err(Error::input)?;
        config.check()?;
        if self.by_name.contains_key(name) {
            return Err(Error::new(ErrorKind::Conflict, format!("topic {name} exists already")));
        }
        Ok(record(TopicId(self.last_id.0 + 1), name, config, false))
    }

    /// The records that delete a topic.
    pub fn deletion(&self, name: &str) -> Result<Vec<MetaRecord>> {
        let topic = self.by_name(name)?;
        let mut records = vec![record(topic.id(), name, topic.config(), true)];
        if self.trims.contains_key(&topic.id()) {
            records.push(MetaRecord { space: MetaSpace::Trim, key: trim::key(topic.id()), value: None });
        }
        Ok(records)
    }

    /// The record that changes a topic's settings.
    pub fn alteration(&self, name: &str, changes: &[TopicChange]) -> Result<MetaRecord> {
        let topic = self.by_name(name)?;
        let mut config = topic.config().clone();
        changes.iter().for_each(|change| change.apply(&mut config));
        config.check()?;
        Ok(record(topic.id(), name, &config, false))
    }

    pub fn by_name(&self, name: &str) -> Result<Topic> {
        let id = self.by_name.get(name);
        let missing = || {
            let hint = "`kappa topic list` shows the topics there are";
            Error::new(ErrorKind::NotFound, format!("there is no topic {name}")).with_hint(hint)
        };
        id.and_then(|id| self.by_id.get(id)).cloned().ok_or_else(missing)
    }

    pub fn by_id(&self, id: TopicId) -> Result<Topic> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no topic number {id}"));
        self.by_id.get(&id).cloned().ok_or_else(missing)
    }

    pub fn all(&self) -> Vec<Topic> {
        self.by_name.values().filter_map(|id| self.by_id.get(id)).cloned().collect()
    }

    /// From where on a topic's records are kept, if any were removed.
    pub fn trim_of(&self, id: TopicId) -> Option<Arc<Trim>> {
        self.trims.get(&id).cloned()
    }

    /// Applies a metadata record, if it is one of a topic or its trim.
    pub fn apply(&mut self, record: &MetaRecord) -> Result<(), CodecError> {
        match record.space {
            MetaSpace::Topic => self.apply_topic(record),
            MetaSpace::Trim => self.apply_trim(record),
            _ => Ok(()),
        }
    }

    fn apply_trim(&mut self, record: &MetaRecord) -> Result<(), CodecError> {
        let id = record.key.parse().map(TopicId);
        let id = id.map_err(|_| CodecError::Invalid { what: "topic of a trim", value: record.key.len() as u64 })?;
        match &record.value {
            Some(value) => self.trims.insert(id, Arc::new(Trim::decode(value)?)),
            None => self.trims.remove(&id),
        };
        Ok(())
    }

    fn apply_topic(&mut self, record: &MetaRecord) -> Result<(), CodecError> {
        let bad = CodecError::Invalid { what: "topic record", value: 0 };
        let id = record.key.parse().map(TopicId).map_err(|_| bad.clone())?;
        let Some(value) = &record.value else { return Err(bad) };
        let (wire, used): (Wire, usize) = bincode::decode_from_slice(value, wire_config()).map_err(|_| bad.clone())?;
        let config = TopicConfig {
            partitions: wire.partitions,
            max_future_us: wire.max_future_us,
            retention_us: wire.retention_us,
            retention_bytes: wire.retention_bytes,
        };
        if used != value.len() || wire.version != WIRE_VERSION || config.check().is_err() {
            return Err(bad);
        }
        self.last_id = self.last_id.max(id);
        if wire.deleted {
            self.by_id.remove(&id);
            self.by_name.retain(|_, other| *other != id);
        } else {
            self.by_name.insert(wire.name.clone(), id);
            self.by_id.insert(id, Topic::new(id, wire.name, config));
        }
        Ok(())
    }
}

/// The record that says what a topic is.
pub(crate) fn record(id: TopicId, name: &str, config: &TopicConfig, deleted: bool) -> MetaRecord {
    let wire = Wire {
        version: WIRE_VERSION,
        name: name.to_owned(),
        partitions: config.partitions,
        max_future_us: config.max_future_us,
        retention_us: config.retention_us,
        retention_bytes: config.retention_bytes,
        deleted,
    };
    let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    MetaRecord { space: MetaSpace::Topic, key: format!("{:010}", id.0), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_kafka() {
        // The vectors of Kafka's own UtilsTest.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        assert_eq!(murmur2(b"abc").cast_signed(), 479_470_107);
    }

    #[test]
    fn numbers_are_never_used_again() {
        let mut topics = Topics::default();
        let config = TopicConfig { partitions: 3, max_future_us: 5, retention_us: Some(7), retention_bytes: None };
        topics.apply(&topics.creation("a", &config).unwrap()).unwrap();
        assert_eq!(topics.creation("a", &config).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!((topics.by_name("a").unwrap().id(), topics.all().len()), (TopicId(1), 1));
        topics.deletion("a").unwrap().iter().for_each(|record| topics.apply(record).unwrap());
        assert_eq!(topics.by_id(TopicId(1)).unwrap_err().kind(), ErrorKind::NotFound);
        topics.apply(&topics.creation("a", &config).unwrap()).unwrap();
        assert_eq!(topics.by_name("a").unwrap().id(), TopicId(2));
        assert_eq!(topics.by_name("a").unwrap().config(), &config);
    }
}
