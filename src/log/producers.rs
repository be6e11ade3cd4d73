//! Producers that number their records, so that a batch sent again is not in the log again.
//!
//! The state is a function of the frames in order: who wrote which run (from the directories) and which ids were given out
//! (metadata). It can be rebuilt from them at any time; a metadata snapshot holds it so that old frames need not be read.
//! [`ProducerTable`] is pure: what the encoder has accepted and what is durable are two of them.

use crate::codec::CodecError;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::frame::directory::{ProducerMark, TopicEntry};
use crate::log::options::ProducerLimits;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Repeats are recognised among so many last batches of a partition, as in Kafka.
pub(crate) const BATCHES_KEPT: usize = 5;

/// Metadata key of the last id given out.
pub(crate) const LAST_KEY: &str = "last";

/// A producer's identity. Of one id only the newest epoch may append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId {
    /// The id, from 1.
    pub id: i64,
    /// The epoch, from 0.
    pub epoch: i16,
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", self.id, self.epoch)
    }
}

/// Numbered records of one partition in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub topic: TopicId,
    pub partition: PartitionId,
    /// Number of the first record.
    pub base: i32,
    pub count: u32,
}

impl Sequence {
    pub fn new(topic: TopicId, partition: PartitionId, base: i32) -> Sequence {
        Sequence { topic, partition, base, count: 0 }
    }
}

/// The number `count` records later: after `i32::MAX` comes 0.
pub(crate) fn advance(base: i32, count: u32) -> i32 {
    let next = (i64::from(base) + i64::from(count)) & i64::from(i32::MAX);
    i32::try_from(next).expect("31 bits fit")
}

/// Where a batch is in the log: enough to find it, and its offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub frame: FrameSeq,
    /// Position of the frame's first record.
    pub frame_position: Position,
    pub base_offset: Offset,
}

/// A batch that is in the log already, partition by partition in the order of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repeat(pub Vec<(Sequence, Place)>);

/// What to do with a numbered request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is next.
    New,
    /// It is in the log.
    Repeat(Repeat),
    /// It does not fit.
    Refused(Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Batch {
    base: i32,
    count: u32,
    frame: u64,
    frame_position: u64,
    base_offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct PartitionState {
    epoch: i16,
    next: i32,
    /// The last ones, oldest first.
    batches: VecDeque<Batch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProducerState {
    epoch: i16,
    last_used: AppendTime,
    partitions: BTreeMap<(TopicId, PartitionId), PartitionState>,
}

/// One producer, as [`Log::producers`](super::Log::producers) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Id and current epoch.
    pub producer: ProducerId,
    /// Append time of its last records, or when it got its id.
    pub last_used: AppendTime,
    /// The number that its next record has, by topic and partition.
    pub next: Vec<(TopicId, PartitionId, i32)>,
}

/// All producers that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProducerTable {
    limits: ProducerLimits,
    producers: BTreeMap<i64, ProducerState>,
    /// The longest silent first.
    by_use: BTreeSet<(AppendTime, i64)>,
    sequences: usize,
    /// Forgotten since [`take_forgotten`](Self::take_forgotten): their metadata can go.
    forgotten: Vec<i64>,
}

fn conflict(message: String, hint: &str) -> Error {
    Error::new(ErrorKind::Conflict, message).with_hint(hint)
}

const ASK: &str = "ask for a new producer id";

impl ProducerTable {
    pub fn new(limits: ProducerLimits) -> ProducerTable {
        ProducerTable { limits, ..ProducerTable::default() }
    }

    /// Judges a request's numbers. Only if all its partitions are next is it new, only if all are repeats is it one.
    pub fn judge(&self, producer: ProducerId, sequences: &[Sequence]) -> Verdict {
        let Some(known) = self.producers.get(&producer.id) else {
            let message = format!("producer {producer} is not known (any more)");
            return Verdict::Refused(conflict(message, ASK));
        };
        if producer.epoch < known.epoch {
            let message = format!("producer {producer} is fenced: a newer one has epoch {}", known.epoch);
            return Verdict::Refused(conflict(message, "another instance took over this id; stop this one"));
        }
        if producer.epoch > known.epoch {
            let message = format!("producer {producer} has an epoch that was not given out: it is at {}", known.epoch);
            return Verdict::Refused(conflict(message, ASK));
        }
        let mut repeats = Vec::new();
        for sequence in sequences {
            let state = known.partitions.get(&(sequence.topic, sequence.partition));
            let state = state.filter(|state| state.epoch == producer.epoch);
            let next = state.map_or(0, |state| state.next);
            if sequence.base == next {
                continue;
            }
            let again = |batch: &&Batch| batch.base == sequence.base && batch.count == sequence.count;
            match state.and_then(|state| state.batches.iter().find(again)) {
                Some(batch) => repeats.push((*sequence, batch.place())),
                None => return Verdict::Refused(out_of_order(producer, sequence, next)),
            }
        }
        match repeats.len() {
            0 => Verdict::New,
            all if all == sequences.len() => Verdict::Repeat(Repeat(repeats)),
            _ => {
                let message = format!("OutOfOrder: a batch of producer {producer} is in the log in part");
                Verdict::Refused(conflict(message, "send each batch again as it was sent first"))
            }
        }
    }

    /// Takes numbered records that are in the log, or will be once their frame is.
    pub fn push(&mut self, producer: ProducerId, sequence: &Sequence, place: Place, at: AppendTime) {
        self.touch(producer, at);
        let Some(known) = self.producers.get_mut(&producer.id) else { return };
        let before = known.partitions.len();
        let state = known.partitions.entry((sequence.topic, sequence.partition)).or_insert_with(|| PartitionState {
            epoch: producer.epoch,
            next: 0,
            batches: VecDeque::with_capacity(BATCHES_KEPT),
        });
        if state.epoch != producer.epoch {
            state.batches.clear();
            state.epoch = producer.epoch;
        }
        if state.batches.len() == BATCHES_KEPT {
            state.batches.pop_front();
        }
        state.batches.push_back(Batch {
            base: sequence.base,
            count: sequence.count,
            frame: place.frame.0,
            frame_position: place.frame_position.0,
            base_offset: place.base_offset.0,
        });
        state.next = advance(sequence.base, sequence.count);
        self.sequences += known.partitions.len() - before;
    }

    /// Makes sure that a producer is known, with at least this epoch, and used at this time.
    fn touch(&mut self, producer: ProducerId, at: AppendTime) {
        let known = self.producers.entry(producer.id).or_insert_with(|| ProducerState {
            epoch: producer.epoch,
            last_used: AppendTime::MIN,
            partitions: BTreeMap::new(),
        });
        known.epoch = known.epoch.max(producer.epoch);
        if at > known.last_used || known.last_used == AppendTime::MIN {
            self.by_use.remove(&(known.last_used, producer.id));
            known.last_used = at;
            self.by_use.insert((at, producer.id));
        }
    }

    /// Takes a metadata record: an id that was given out, or a new epoch of one. Others do not matter.
    pub fn apply_meta(&mut self, record: &MetaRecord) {
        if record.space != MetaSpace::Producer {
            return;
        }
        if let Some((producer, at)) = record.value.as_deref().and_then(|value| decode_record(&record.key, value)) {
            self.touch(producer, at);
        }
    }

    /// A frame is complete: forgets who was silent too long, or longest when there are too many.
    pub fn end_frame(&mut self, append_time: AppendTime) {
        let oldest = AppendTime(append_time.0.saturating_sub(self.limits.expiry_us));
        while let Some((last_used, id)) = self.by_use.first().copied() {
            let many = self.producers.len() > self.limits.ids || self.sequences > self.limits.sequences;
            if last_used >= oldest && !(many && self.producers.len() > 1) {
                break;
            }
            self.by_use.pop_first();
            if let Some(state) = self.producers.remove(&id) {
                self.sequences -= state.partitions.len();
                self.forgotten.push(id);
            }
        }
    }

    /// Takes a whole frame.
    pub fn apply<'a>(
        &mut self,
        frame: FrameSeq,
        frame_position: Position,
        append_time: AppendTime,
        topics: &[TopicEntry],
        meta: impl IntoIterator<Item = &'a MetaRecord>,
    ) {
        for entry in topics {
            for run in entry.runs.iter().filter(|run| run.producer.id >= 0) {
                let ProducerMark { id, epoch, sequence } = run.producer;
                let records =
                    Sequence { topic: entry.topic, partition: run.partition, base: sequence, count: run.count };
                let place = Place { frame, frame_position, base_offset: run.base };
                self.push(ProducerId { id, epoch }, &records, place, append_time);
            }
        }
        for record in meta {
            self.apply_meta(record);
        }
        self.end_frame(append_time);
    }

    /// The log was read up to its end: takes the ids that the catalog knows, and remembers which of them are forgotten. `now`
    /// is the append time of the last frame.
    pub fn complete(&mut self, catalog: &[(String, Vec<u8>)], now: AppendTime) {
        self.forgotten.clear();
        for (key, value) in catalog {
            if let Some((producer, at)) = decode_record(key, value) {
                self.touch(producer, at);
            }
        }
        self.end_frame(now);
    }

    /// The ids forgotten since the last call, at most `max`.
    pub fn take_forgotten(&mut self, max: usize) -> Vec<i64> {
        let rest = self.forgotten.len().saturating_sub(max);
        self.forgotten.split_off(rest)
    }

    /// The current epoch of an id.
    pub fn epoch(&self, id: i64) -> Option<i16> {
        self.producers.get(&id).map(|state| state.epoch)
    }

    /// All producers by id.
    pub fn list(&self) -> Vec<ProducerInfo> {
        let info = |(id, state): (&i64, &ProducerState)| ProducerInfo {
            producer: ProducerId { id: *id, epoch: state.epoch },
            last_used: state.last_used,
            next: state
                .partitions
                .iter()
                .filter(|(_, partition)| partition.epoch == state.epoch)
                .map(|((topic, partition), state)| (*topic, *partition, state.next))
                .collect(),
        };
        self.producers.iter().map(info).collect()
    }

    /// The state as bytes, for a metadata snapshot that checks them.
    pub fn encode(&self) -> Vec<u8> {
        let producer = |(id, state): (&i64, &ProducerState)| WireProducer {
            id: *id,
            epoch: state.epoch,
            last_used: state.last_used.0,
            partitions: state.partitions.iter().map(|((t, p), state)| (t.0, p.0, state.clone())).collect(),
        };
        let wire = Wire { version: WIRE_VERSION, producers: self.producers.iter().map(producer).collect() };
        bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail")
    }

    /// The state that [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8], limits: ProducerLimits) -> Result<ProducerTable, CodecError> {
        let bad = |value| CodecError::Invalid { what: "producer table", value };
        let (wire, used): (Wire, usize) =
            bincode::decode_from_slice(bytes, wire_config()).map_err(|_| bad(bytes.len() as u64))?;
        if wire.version != WIRE_VERSION || used != bytes.len() {
            return Err(bad(u64::from(wire.version)));
        }
        let mut table = ProducerTable::new(limits);
        for producer in wire.producers {
            let partitions: BTreeMap<_, _> =
                producer.partitions.into_iter().map(|(t, p, state)| ((TopicId(t), PartitionId(p)), state)).collect();
            if partitions.values().any(|state| state.batches.len() > BATCHES_KEPT) {
                return Err(bad(producer.id.unsigned_abs()));
            }
            table.sequences += partitions.len();
            let last_used = AppendTime(producer.last_used);
            table.by_use.insert((last_used, producer.id));
            table.producers.insert(producer.id, ProducerState { epoch: producer.epoch, last_used, partitions });
        }
        Ok(table)
    }
}

impl Batch {
    fn place(&self) -> Place {
        Place {
            frame: FrameSeq(self.frame),
            frame_position: Position(self.frame_position),
            base_offset: Offset(self.base_offset),
        }
    }
}

fn out_of_order(producer: ProducerId, found: &Sequence, next: i32) -> Error {
    let message = format!(
        "OutOfOrder: producer {producer} sent sequence {} for topic {} partition {}, and {next} is next",
        found.base, found.topic, found.partition
    );
    conflict(message, "records before these are missing, or they are an old batch changed")
}

#[derive(bincode::Encode, bincode::Decode)]
struct WireProducer {
    id: i64,
    epoch: i16,
    last_used: i64,
    partitions: Vec<(u32, u32, PartitionState)>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    producers: Vec<WireProducer>,
}

const WIRE_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ 1 << 30 }>()
}

/// What the metadata of an id holds.
#[derive(bincode::Encode, bincode::Decode)]
struct RecordWire {
    version: u8,
    epoch: i16,
    at: i64,
}

/// The metadata record of an id, as of a reading of the append clock.
pub(crate) fn record(producer: ProducerId, at: AppendTime) -> MetaRecord {
    let wire = RecordWire { version: WIRE_VERSION, epoch: producer.epoch, at: at.0 };
    let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    MetaRecord { space: MetaSpace::Producer, key: key(producer.id), value: Some(value) }
}

/// The metadata key of an id.
pub(crate) fn key(id: i64) -> String {
    format!("{id:020}")
}

fn decode_record(key: &str, value: &[u8]) -> Option<(ProducerId, AppendTime)> {
    let id = key.parse().ok().filter(|id| *id > 0)?;
    let (wire, used): (RecordWire, usize) = bincode::decode_from_slice(value, wire_config()).ok()?;
    let known = wire.version == WIRE_VERSION && used == value.len() && wire.epoch >= 0;
    known.then_some((ProducerId { id, epoch: wire.epoch }, AppendTime(wire.at)))
}

#[cfg(test)]
mod tests;
