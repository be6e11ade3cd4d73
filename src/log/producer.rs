//! A producer: collects records of one topic into batches and keeps several on their way.

use crate::error::Result;
use crate::log::append::PendingAck;
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{Ack, AppendBatch, Log, Topic};
use std::collections::VecDeque;

/// How a [`Producer`] batches.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// A batch is sent once it has this many bytes. Default 64 KiB.
    pub batch_bytes: usize,
    /// A batch is sent once its first record has waited this long (looked at when the next one comes, or by
    /// [`Producer::poll`]). Default 5 ms; 0 sends every record by itself.
    pub linger_us: u64,
    /// Batches on their way at once; `send` waits for the oldest beyond that. Default 16.
    pub in_flight_max: usize,
    /// Where records go. Default by key.
    pub partitioning: Partitioning,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        ProducerOptions {
            batch_bytes: 64 << 10,
            linger_us: 5_000,
            in_flight_max: 16,
            partitioning: Partitioning::ByKey,
        }
    }
}

/// Sends records to one topic; used by one thread at a time.
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
pub struct Producer {
    log: Log,
    topic: Topic,
    options: ProducerOptions,
    batch: RecordColumns,
    /// Monotonic time of the batch's first record.
    since_us: u64,
    in_flight: VecDeque<PendingAck>,
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
            since_us: 0,
            in_flight: VecDeque::new(),
            done: Vec::new(),
        }
    }

    /// Adds a record to the batch, and sends the batch if it is full or old enough. Gives the acknowledgements that have come
    /// in since the last call, in the order of the batches.
    ///
    /// An error is that of an earlier batch or of sending this one; see [`PendingAck::wait`] for what is then in the log.
    pub fn send(&mut self, record: &Record<'_>) -> Result<Vec<Ack>> {
        if self.batch.is_empty() {
            self.since_us = self.log.env().clock.monotonic_us();
        }
        self.batch.push(self.options.partitioning, record);
        if self.batch.byte_len() >= self.options.batch_bytes {
            self.send_batch()?;
        }
        self.poll()
    }

    /// Sends the batch if it is old enough, and gives the acknowledgements that have come in.
    pub fn poll(&mut self) -> Result<Vec<Ack>> {
        let waited = self.log.env().clock.monotonic_us().saturating_sub(self.since_us);
        if !self.batch.is_empty() && waited >= self.options.linger_us {
            self.send_batch()?;
        }
        while let Some(result) = self.in_flight.front_mut().and_then(PendingAck::try_wait) {
            self.in_flight.pop_front();
            self.done.push(result?);
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Sends what is collected and waits until all of it is durable. Gives the acknowledgements not given before.
    pub fn flush(&mut self) -> Result<Vec<Ack>> {
        if !self.batch.is_empty() {
            self.send_batch()?;
        }
        while let Some(pending) = self.in_flight.pop_front() {
            self.done.push(pending.wait()?);
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn send_batch(&mut self) -> Result<()> {
        if self.in_flight.len() >= self.options.in_flight_max.max(1)
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.done.push(oldest.wait()?);
        }
        let batch = std::mem::take(&mut self.batch);
        self.in_flight.push_back(self.log.append(AppendBatch::records(self.topic.id(), batch))?);
        Ok(())
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
