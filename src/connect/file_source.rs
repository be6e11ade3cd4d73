//! Text files into a topic, each event once: how far a file has been taken is kept in the same frame as its records.

use super::open_text;
use crate::env::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::framing::{Framer, Framing};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace, PendingAck, Topic, TopicConfig};
use crate::types::PartitionId;
use bincode::{Decode, Encode};
use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;

/// Bytes of records in one append.
const FRAME_BYTES: usize = 1 << 20;

/// Appends on their way at once.
const IN_FLIGHT_MAX: usize = 4;

const CHUNK_BYTES: usize = 256 << 10;

/// Largest encoded [`Taken`] in bytes.
const TAKEN_BYTES_MAX: usize = 16 << 10;

/// How far a file has been taken into a topic.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Taken {
    path: String,
    /// Bytes of the (unpacked) text up to the end of the last record taken.
    bytes: u64,
    /// CRC-32 of those bytes.
    crc: u32,
    records: u64,
    /// The last record had no line end, so the file may only go on with a new line.
    is_open_ended: bool,
}

impl Taken {
    fn encode(&self) -> Result<Vec<u8>> {
        bincode::encode_to_vec(self, bincode::config::standard().with_fixed_int_encoding())
            .map_err(|e| Error::internal("cannot encode the state of a file").with_source(e))
    }

    fn decode(topic: &str, bytes: &[u8]) -> Result<Self> {
        let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<TAKEN_BYTES_MAX>();
        match bincode::decode_from_slice(bytes, config) {
            Ok((taken, read)) if read == bytes.len() => Ok(taken),
            _ => Err(Error::damage(format!("the state of the file behind topic '{topic}' does not decode"))),
        }
    }
}

/// What an ingest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingested {
    /// Records that were in the topic already.
    pub before: u64,
    /// Records added now.
    pub added: u64,
}

/// Appends what is new in a file to a one-partition topic, which is created if missing. `on_progress` is told the bytes of text read.
///
/// # Errors
/// `Input` if the file is missing, changed since it was taken, or holds a record that is too long; `Conflict` if the
/// topic was fed from another file; those of the log.
pub fn ingest_file(
    log: &Log,
    disk: &dyn Disk,
    topic: &str,
    path: &Path,
    framing: Framing,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Ingested> {
    let source = open_text(disk, path)?;
    let topic = topic_of_file(log, topic)?;
    let taken =
        log.meta(MetaSpace::Ingest, topic.name()).map(|bytes| Taken::decode(topic.name(), &bytes)).transpose()?;
    let name = path.display().to_string();
    if let Some(taken) = taken.as_ref().filter(|taken| taken.path != name) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("topic '{}' holds the records of file '{}', not of '{name}'", topic.name(), taken.path),
        )
        .with_hint("another table name makes another topic; `kappa topic delete` removes this one"));
    }
    let taken = taken.unwrap_or(Taken { path: name, bytes: 0, crc: 0, records: 0, is_open_ended: false });
    let framer = Framer::resume(framing, taken.bytes, taken.crc, taken.records);
    Pump { log, topic, taken, framer, source, in_flight: VecDeque::new(), rows: RecordColumns::default() }
        .run(on_progress)
}

fn topic_of_file(log: &Log, name: &str) -> Result<Topic> {
    match log.topic(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => log.create_topic(name, TopicConfig::default()),
        Ok(topic) if topic.partitions() != 1 => Err(Error::new(
            ErrorKind::Conflict,
            format!("topic '{name}' has {} partitions; a file needs a topic with one", topic.partitions()),
        )),
        found => found,
    }
}

struct Pump<'a> {
    log: &'a Log,
    topic: Topic,
    taken: Taken,
    framer: Framer,
    source: Box<dyn Read + Send>,
    in_flight: VecDeque<PendingAck>,
    rows: RecordColumns,
}

/// Adds a record unless its line is empty. A framer's callback: it cannot fail.
fn add(rows: &mut RecordColumns, record: &[u8]) -> Result<()> {
    if !record.is_empty() {
        let record = Record { timestamp_ms: None, key: None, value: Some(record), headers: &[] };
        rows.push(Partitioning::Fixed(PartitionId(0)), &record);
    }
    Ok(())
}

impl Pump<'_> {
    fn run(mut self, on_progress: &mut dyn FnMut(u64)) -> Result<Ingested> {
        let before = self.taken.records;
        let mut chunk = vec![0; CHUNK_BYTES];
        self.check_prefix(&mut chunk)?;
        let mut is_first = true;
        loop {
            let read = self.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            if is_first && self.taken.is_open_ended && !matches!(chunk[0], b'\n' | b'\r') {
                return Err(self.changed("its last line, which had no line end, went on"));
            }
            is_first = false;
            let rows = &mut self.rows;
            self.framer.feed(&chunk[..read], |record| add(rows, record)).map_err(|e| e.context(&self.taken.path))?;
            on_progress(self.framer.consumed());
            if self.rows.byte_len() >= FRAME_BYTES {
                self.send()?;
            }
        }
        let rows = &mut self.rows;
        let is_open_ended = self.framer.finish(|record| add(rows, record)).map_err(|e| e.context(&self.taken.path))?;
        self.taken.is_open_ended = is_open_ended || (is_first && self.taken.is_open_ended);
        if !self.rows.is_empty() {
            self.send()?;
        }
        while let Some(pending) = self.in_flight.pop_front() {
            pending.wait()?;
        }
        Ok(Ingested { before, added: self.taken.records - before })
    }

    fn read(&mut self, chunk: &mut [u8]) -> Result<usize> {
        loop {
            match self.source.read(chunk) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => return read.map_err(|e| Error::io("cannot read", Path::new(&self.taken.path), e)),
            }
        }
    }

    /// Reads what was taken before and compares.
    fn check_prefix(&mut self, chunk: &mut [u8]) -> Result<()> {
        let mut left = self.taken.bytes;
        let mut crc = crc32fast::Hasher::new();
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let read = self.read(&mut chunk[..most])?;
            if read == 0 {
                return Err(self.changed("it is shorter now"));
            }
            crc.update(&chunk[..read]);
            left -= read as u64;
        }
        if self.taken.bytes > 0 && crc.finalize() != self.taken.crc {
            return Err(self.changed("its first bytes are others now"));
        }
        Ok(())
    }

    fn changed(&self, how: &str) -> Error {
        let Taken { path, records, .. } = &self.taken;
        let what = format!(
            "file '{path}' has changed since {records} records of it went into topic '{}': {how}",
            self.topic.name()
        );
        Error::new(ErrorKind::Conflict, what).with_hint(
            "a file may only grow; `kappa topic delete` removes the old records, another table name keeps them",
        )
    }

    fn send(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.taken.bytes = self.framer.consumed();
        self.taken.crc = self.framer.consumed_crc();
        self.taken.records += rows.len() as u64;
        let value = Some(self.taken.encode()?);
        let meta = vec![MetaRecord { space: MetaSpace::Ingest, key: self.topic.name().to_owned(), value }];
        let topics = vec![(self.topic.id(), rows)];
        self.in_flight.push_back(self.log.append(AppendBatch { topics, meta, ..AppendBatch::default() })?);
        if self.in_flight.len() > IN_FLIGHT_MAX
            && let Some(oldest) = self.in_flight.pop_front()
        {
            oldest.wait()?;
        }
        Ok(())
    }
}
