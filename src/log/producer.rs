//! A producer: collects records of one topic into batches and keeps several on their way.

use crate::error::{Error, ErrorKind, Result};
use crate::log::frame::Codec;
use crate::log::producers::advance;
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{Ack, AppendBatch, Log, PendingAck, ProducerBatch, ProducerId, Topic};
use crate::types::PartitionId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// Chooses the partition of a record, given how many there are.
pub type PartitionFn = dyn Fn(&Record<'_>, u32) -> u32 + Send + Sync;

/// Where a [`Producer`]'s records go.
#[derive(Clone, Default)]
pub enum Partitioner {
    /// By murmur2 of the key as Kafka does; records without a key stay together batch by batch, the next batch goes to the next
    /// partition.
    #[default]
    ByKey,
    /// To this partition.
    Fixed(PartitionId),
    /// Where the function says. A number that is too large fails the batch with [`ErrorKind::NotFound`].
    Custom(Arc<PartitionFn>),
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Partitioner::ByKey => f.write_str("ByKey"),
            Partitioner::Fixed(partition) => write!(f, "Fixed({partition})"),
            Partitioner::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// How a [`Producer`] batches.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// A batch is sent once it has this many bytes. Default 64 KiB.
    pub batch_bytes: usize,
    /// A batch is sent once its first record has waited this long (looked at when the next one comes, or by
    /// [`Producer::poll`]). Default 5 ms; 0 sends every record by itself.
    pub linger_us: u64,
    /// Batches on their way at once; `send` waits for the oldest beyond that. Default 16; at most 5 if `idempotent`.
    pub in_flight_max: usize,
    /// Where records go. Default by key.
    pub partitioner: Partitioner,
    /// How records are stored; `None` (the default) as the log's options say.
    pub codec: Option<Codec>,
    /// Numbers the records, so that a batch can be sent again without being in the log twice. A batch that failed with
    /// [`ErrorKind::Unavailable`] (no room on the disk) or [`ErrorKind::Unknown`] (then [`Log::reopen`] comes first) is kept and sent
    /// again by the next call. Costs a producer id and a copy of what is on its way. Default false: such a batch is given up.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            batch_bytes: 64 << 10,
            linger_us: 5_000,
            in_flight_max: 16,
            partitioner: Partitioner::ByKey,
            codec: None,
            idempotent: false,
        }
    }
}

/// A batch that may have to be sent again.
struct Numbered {
    columns: RecordColumns,
    sequences: Vec<(PartitionId, i32)>,
}

struct Sent {
    pending: PendingAck,
    again: Option<Numbered>,
}

/// Sends records to one topic; used by one thread or task at a time. Every call has a blocking form and, where it may wait, an
/// async one that needs no particular runtime.
///
/// ```
/// use kappa::env::Env;
/// use kappa::log::records::Record;
/// use kappa::log::{Log, LogOptions, Producer, ProducerOptions, TopicConfig};
///
/// # fn main() -> kappa::Result<()> {
/// let (env, _sim) = Env::sim(1); // Env::os() for the real disk
/// let log = Log::open(&env, "/data".as_ref(), LogOptions::default())?;
/// let topic = log.create_topic("flights", TopicConfig::default())?;
/// let mut producer = Producer::new(&log, &topic, ProducerOptions::default());
/// producer.send(&Record { timestamp_ms: Some(0), key: Some(b"ATL"), value: Some(b"{}"), headers: &[] })?;
/// let acks = producer.flush()?;
/// assert_eq!(acks.last().map(|ack| ack.end), Some(log.durable_end()));
/// # Ok(())
/// # }
/// ```
///
/// The same from async code, with a partitioner of one's own, compressed, and with each record in the log once whatever happens:
///
/// ```
/// use kappa::env::Env;
/// use kappa::log::records::Record;
/// use kappa::log::{Codec, Log, LogOptions, Partitioner, Producer, ProducerOptions, TopicConfig};
/// use std::sync::Arc;
///
/// # fn main() -> kappa::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
/// # runtime.block_on(async {
/// let (env, _sim) = Env::sim(1);
/// let log = Log::open(&env, "/data".as_ref(), LogOptions::default())?;
/// let topic = log.create_topic("flights", TopicConfig { partitions: 4, ..TopicConfig::default() })?;
/// let options = ProducerOptions {
///     partitioner: Partitioner::Custom(Arc::new(|record, partitions| {
///         record.key.map_or(0, |key| u32::from(key[0])) % partitions
///     })),
///     codec: Some(Codec::Zstd),
///     idempotent: true,
///     ..ProducerOptions::default()
/// };
/// let mut producer = Producer::new(&log, &topic, options);
/// for key in [b"ATL", b"JFK"] {
///     producer.send_async(&Record { timestamp_ms: None, key: Some(key), value: Some(b"{}"), headers: &[] }).await?;
/// }
/// assert_eq!(producer.flush_async().await?.len(), 1);
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Producer {
    log: Log,
    topic: Topic,
    options: ProducerOptions,
    batch: RecordColumns,
    /// Partition of the batch's records without a key.
    turn: u32,
    /// Monotonic time of the batch's first record.
    since_us: u64,
    in_flight: VecDeque<Sent>,
    /// To be sent again, in order.
    unsent: VecDeque<Numbered>,
    id: Option<ProducerId>,
    /// The number of the next record of each partition.
    next: BTreeMap<u32, i32>,
    done: Vec<Ack>,
}

impl Producer {
    /// A producer for a topic.
    pub fn new(log: &Log, topic: &Topic, options: ProducerOptions) -> Producer {
        Producer {
            log: log.clone(),
            topic: topic.clone(),
            options,
            batch: RecordColumns::default(),
            turn: 0,
            since_us: 0,
            in_flight: VecDeque::new(),
            unsent: VecDeque::new(),
            id: None,
            next: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    /// The id under which records are numbered, once the first batch was sent.
    pub fn id(&self) -> Option<ProducerId> {
        self.id
    }

    /// Adds a record to the batch; sends the batch once it is full or old enough. Gives the acknowledgements that have come in since
    /// the last call, in the order of the batches.
    ///
    /// An error says that a batch failed; see [`PendingAck::wait`] for what is then in the log. This record was not taken, or was
    /// in that batch.
    pub fn send(&mut self, record: &Record<'_>) -> Result<Vec<Ack>> {
        if self.batch.byte_len() >= self.options.batch_bytes {
            self.send_batch()?;
        }
        let acks = self.poll()?;
        self.push(record);
        if self.is_due() && self.in_flight.len() < self.in_flight_max() {
            // If that fails the next call says so.
            self.send_batch().or_else(|error| if self.options.idempotent { Ok(()) } else { Err(error) })?;
        }
        Ok(acks)
    }

    /// As [`send`](Self::send), for async code: waits for room without blocking the thread.
    pub async fn send_async(&mut self, record: &Record<'_>) -> Result<Vec<Ack>> {
        if self.batch.byte_len() >= self.options.batch_bytes {
            self.send_batch_async().await?;
        }
        let acks = self.poll_async().await?;
        self.push(record);
        Ok(acks)
    }

    /// Sends the batch if it is old enough, and gives the acknowledgements that have come in.
    pub fn poll(&mut self) -> Result<Vec<Ack>> {
        self.resend()?;
        if self.is_due() {
            self.send_batch()?;
        }
        self.take_answers()?;
        Ok(std::mem::take(&mut self.done))
    }

    async fn poll_async(&mut self) -> Result<Vec<Ack>> {
        self.resend()?;
        if self.is_due() {
            self.send_batch_async().await?;
        }
        self.take_answers()?;
        Ok(std::mem::take(&mut self.done))
    }

    /// Sends what is collected and waits until all of it is acknowledged. Gives the acknowledgements not given before.
    pub fn flush(&mut self) -> Result<Vec<Ack>> {
        self.resend()?;
        if !self.batch.is_empty() {
            self.send_batch()?;
        }
        while let Some(sent) = self.in_flight.pop_front() {
            let answer = sent.pending.wait();
            self.answered(answer, sent.again)?;
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// As [`flush`](Self::flush), for async code. If it is dropped half way, nothing is lost: flush again.
    pub async fn flush_async(&mut self) -> Result<Vec<Ack>> {
        self.resend()?;
        if !self.batch.is_empty() {
            self.send_batch_async().await?;
        }
        self.wait_for_async(0).await?;
        Ok(std::mem::take(&mut self.done))
    }

    /// Waits until at most so many batches are on their way.
    async fn wait_for_async(&mut self, left: usize) -> Result<()> {
        while self.in_flight.len() > left {
            let Some(sent) = self.in_flight.front_mut() else { break };
            let answer = (&mut sent.pending).await;
            let again = self.in_flight.pop_front().and_then(|sent| sent.again);
            self.answered(answer, again)?;
        }
        Ok(())
    }

    fn in_flight_max(&self) -> usize {
        // So many last batches of a partition are recognised when they come again.
        let most = if self.options.idempotent { crate::log::producers::BATCHES_KEPT } else { usize::MAX };
        self.options.in_flight_max.clamp(1, most)
    }

    fn is_due(&self) -> bool {
        if self.batch.is_empty() {
            return false;
        }
        let waited = self.log.env().clock.monotonic_us().saturating_sub(self.since_us);
        waited >= self.options.linger_us || self.batch.byte_len() >= self.options.batch_bytes
    }

    fn push(&mut self, record: &Record<'_>) {
        if self.batch.is_empty() {
            self.since_us = self.log.env().clock.monotonic_us();
            self.turn = self.topic.next_turn();
        }
        let partition = match (&self.options.partitioner, record.key) {
            (Partitioner::Fixed(partition), _) => partition.0,
            (Partitioner::Custom(choose), _) => choose(record, self.topic.partitions()),
            (Partitioner::ByKey, Some(key)) => self.topic.partition_of(key),
            (Partitioner::ByKey, None) => self.turn,
        };
        self.batch.push(Partitioning::Fixed(PartitionId(partition)), record);
    }

    fn take_answers(&mut self) -> Result<()> {
        while let Some(answer) = self.in_flight.front_mut().and_then(|sent| sent.pending.try_wait()) {
            let again = self.in_flight.pop_front().and_then(|sent| sent.again);
            self.answered(answer, again)?;
        }
        Ok(())
    }

    /// Takes the answer of the oldest batch. If it has to be sent again, so have those behind it, which did not fit without it.
    fn answered(&mut self, answer: Result<Ack>, again: Option<Numbered>) -> Result<()> {
        let error = match answer {
            Ok(ack) => {
                self.done.push(ack);
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(first) = again.filter(|_| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown)) else {
            return Err(error);
        };
        self.unsent.push_back(first);
        for sent in std::mem::take(&mut self.in_flight) {
            match (sent.pending.wait(), sent.again) {
                (Err(_), Some(again)) => self.unsent.push_back(again),
                (Ok(ack), _) => self.done.push(ack),
                (Err(_), None) => {}
            }
        }
        Err(error)
    }

    /// Sends again what has to be, in order.
    fn resend(&mut self) -> Result<()> {
        while let Some(batch) = self.unsent.front() {
            let pending = self.log.append(self.append_batch(batch.columns.clone(), &batch.sequences))?;
            let again = self.unsent.pop_front();
            self.in_flight.push_back(Sent { pending, again });
        }
        Ok(())
    }

    fn append_batch(&self, columns: RecordColumns, sequences: &[(PartitionId, i32)]) -> AppendBatch {
        let topic = self.topic.id();
        let numbers = |producer| ProducerBatch {
            producer,
            sequences: sequences.iter().map(|(partition, base)| (topic, *partition, *base)).collect(),
        };
        let producer = self.id.map(numbers);
        AppendBatch { producer, codec: self.options.codec, ..AppendBatch::records(topic, columns) }
    }

    /// Closes the batch: numbers its records, if they are to be.
    fn take_batch(&mut self) -> Result<(AppendBatch, Option<Numbered>)> {
        if !self.options.idempotent {
            let columns = std::mem::take(&mut self.batch);
            return Ok((self.append_batch(columns, &[]), None));
        }
        if self.id.is_none() {
            self.id = Some(self.log.producer_id()?);
        }
        let columns = std::mem::take(&mut self.batch);
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for partition in columns.partitions.iter().flatten() {
            *counts.entry(*partition).or_default() += 1;
        }
        if let Some(beyond) = counts.keys().find(|partition| **partition >= self.topic.partitions()) {
            let message = format!("topic {} has no partition {beyond}", self.topic.name());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let mut sequences = Vec::with_capacity(counts.len());
        for (partition, count) in counts {
            let next = self.next.entry(partition).or_default();
            sequences.push((PartitionId(partition), *next));
            *next = advance(*next, count);
        }
        let batch = self.append_batch(columns.clone(), &sequences);
        Ok((batch, Some(Numbered { columns, sequences })))
    }

    fn sent(&mut self, pending: Result<PendingAck>, again: Option<Numbered>) -> Result<()> {
        match pending {
            Ok(pending) => self.in_flight.push_back(Sent { pending, again }),
            Err(error) => {
                self.unsent.extend(again);
                return Err(error);
            }
        }
        Ok(())
    }

    fn send_batch(&mut self) -> Result<()> {
        self.resend()?;
        while self.in_flight.len() >= self.in_flight_max() {
            let Some(oldest) = self.in_flight.pop_front() else { break };
            let answer = oldest.pending.wait();
            self.answered(answer, oldest.again)?;
        }
        let (batch, again) = self.take_batch()?;
        let pending = self.log.append(batch);
        self.sent(pending, again)
    }

    async fn send_batch_async(&mut self) -> Result<()> {
        self.resend()?;
        self.wait_for_async(self.in_flight_max() - 1).await?;
        // Room first, then the batch is closed: if this future is dropped while it waits, no number is used up.
        self.log.room_async(self.batch.byte_len()).await?;
        let (batch, again) = self.take_batch()?;
        let pending = self.log.append(batch);
        self.sent(pending, again)
    }
}

impl Drop for Producer {
    /// Hands the rest of the batch to the log; call [`flush`](Producer::flush) to know that it is durable.
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            let _ = self.send_batch();
        }
    }
}
