//! What goes into the log together, and what comes back once it is durable.

use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{self, MetaRecord};
use crate::log::frame::Codec;
use crate::log::frame::body::{self, Rows};
use crate::log::frame::directory::ROWS_MAX;
use crate::log::frame::header::FRAME_HEADER_LEN;
use crate::log::producers::{ProducerId, Sequence};
use crate::log::records::RecordColumns;
use crate::log::topic::Topic;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};

/// Records and metadata that enter the log together or not at all.
#[derive(Debug, Clone, Default)]
pub struct AppendBatch {
    /// Records by topic, in order. A topic may occur more than once.
    pub topics: Vec<(TopicId, RecordColumns)>,
    /// Metadata records, applied in order when the frame is durable.
    pub meta: Vec<MetaRecord>,
    /// A reading of an append clock, perhaps of another log, that this batch depends on: from now on, also after any restart, the clock goes on
    /// at or after it.
    pub clock_floor: Option<AppendTime>,
    /// Who numbered these records, and how: such a batch is in the log once, however often it is appended.
    pub producer: Option<ProducerBatch>,
    /// How the records are to be stored; `None`: as the log's options say. Batches that are merged into one frame share the
    /// strongest that any of them asked for, topic by topic.
    pub codec: Option<Codec>,
    /// True for what can wait a little, such as results of a job that reads the past: other appends go before it, and while there
    /// are any, about 64 KiB of it share each sync with them. Such batches keep their order among each other only.
    pub background: bool,
}

/// The numbers of a batch's records: each producer counts the records it sends to each partition, from 0, up to `i32::MAX` and
/// then from 0 again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerBatch {
    /// An id and epoch that [`Log::producer_id`](super::Log::producer_id) gave.
    pub producer: ProducerId,
    /// The number of the batch's first record in each partition that it has records for. Every record of the batch names its
    /// partition, and a topic occurs once in it.
    pub sequences: Vec<(TopicId, PartitionId, i32)>,
}

impl AppendBatch {
    /// Records of one topic.
    pub fn records(topic: TopicId, records: RecordColumns) -> Self {
        AppendBatch { topics: vec![(topic, records)], ..Default::default() }
    }

    /// Metadata only.
    pub fn meta(meta: Vec<MetaRecord>) -> Self {
        AppendBatch { meta, ..Default::default() }
    }
}

/// Consecutive offsets of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAck {
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of records.
    pub count: u64,
}

/// Where one topic's records of a batch are: one for each entry of [`AppendBatch::topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicAck {
    /// The topic.
    pub topic: TopicId,
    /// Position of the first record; the others follow without a gap, in the order of the batch.
    pub first_position: Position,
    /// Offsets by partition, in order of partition; only partitions that got records.
    pub partitions: Vec<PartitionAck>,
}

/// The batch is in the log, as [`Durability`](super::Durability) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Append time of all its records.
    pub append_time: AppendTime,
    /// The frame that holds it.
    pub seq: FrameSeq,
    /// Where its records are, in the order of [`AppendBatch::topics`].
    pub topics: Vec<TopicAck>,
    /// The position after the frame's last record; for a repeat, after the batch's last record.
    pub end: Position,
    /// True if a numbered batch was in the log already: everything here is of the first time.
    pub repeat: bool,
}

/// Rows by partition, ascending, none with 0.
pub(crate) type Counts = Vec<(u32, u32)>;

/// A checked batch with partitions chosen, ready to be merged into a frame.
pub(crate) struct Request {
    /// In the order of the batch; rows may be empty.
    pub topics: Vec<(TopicId, Rows)>,
    /// Rows per partition, for each entry of `topics`.
    pub counts: Vec<Counts>,
    /// Numbers of the first records, one for each entry of `counts`, in the same order; `None` for records without numbers.
    pub producer: Option<(ProducerId, Vec<Sequence>)>,
    pub codec: Option<Codec>,
    pub meta: Vec<MetaRecord>,
    pub meta_bytes: Vec<u8>,
    pub clock_floor: Option<AppendTime>,
    /// Bytes that it adds to a frame at most.
    pub bytes: usize,
    /// Others go first.
    pub background: bool,
}

impl Request {
    /// Checks a batch and chooses partitions. `topic_of` finds a topic; `by_log` allows records of the log's own.
    pub fn new(
        batch: AppendBatch,
        bytes_max: usize,
        by_log: bool,
        topic_of: impl Fn(TopicId) -> Result<Topic>,
    ) -> Result<Request> {
        let mut request = Request {
            topics: Vec::with_capacity(batch.topics.len()),
            counts: Vec::with_capacity(batch.topics.len()),
            producer: None,
            codec: batch.codec,
            meta: Vec::new(),
            meta_bytes: Vec::new(),
            clock_floor: batch.clock_floor,
            bytes: FRAME_HEADER_LEN,
            background: batch.background,
        };
        let numbered = batch.producer.is_some();
        for (id, columns) in batch.topics {
            request.add_rows(&topic_of(id)?, columns, numbered)?;
        }
        if let Some(producer) = batch.producer {
            request.number(&producer)?;
        }
        for record in batch.meta {
            catalog::check(&record)?;
            if record.space.is_own() && !by_log {
                return Err(Error::input(format!("metadata of kind {:?} is written by the log itself", record.space)));
            }
            catalog::encode(record.clone(), &mut request.meta_bytes);
            request.meta.push(record);
        }
        request.bytes += request.meta_bytes.len() + 8;
        if request.bytes > bytes_max {
            let message =
                format!("an append of {} bytes is more than the {bytes_max} that one may have", request.bytes);
            return Err(Error::input(message).with_hint("append in smaller batches"));
        }
        Ok(request)
    }

    /// True if it holds records.
    pub fn has_records(&self) -> bool {
        self.counts.iter().any(|counts| !counts.is_empty())
    }

    fn add_rows(&mut self, topic: &Topic, columns: RecordColumns, numbered: bool) -> Result<()> {
        let rows = columns.len();
        let lens = [columns.partitions.len(), columns.keys.len(), columns.values.len(), columns.headers.len()];
        if lens.iter().any(|len| *len != rows) {
            return Err(Error::input(format!(
                "columns for topic {} differ in length: {rows} and {lens:?}",
                topic.name()
            )));
        }
        let all = rows + self.topics.iter().map(|(_, part)| part.partitions.len()).sum::<usize>();
        if all > ROWS_MAX as usize {
            let message = format!("an append of {all} records is more than the {ROWS_MAX} that one may have");
            return Err(Error::input(message).with_hint("append in smaller batches"));
        }
        if numbered && columns.partitions.contains(&None) {
            let message = format!("a numbered batch for topic {} has records without a partition", topic.name());
            return Err(Error::input(message).with_hint("choose the partition first: the numbers count by partition"));
        }
        let partitions = choose_partitions(topic, &columns)?;
        let counts = count(&partitions, topic.partitions());
        self.bytes += body::bound(rows, columns.byte_len()) + 48 + counts.len() * 32;
        self.counts.push(counts);
        self.topics.push((topic.id(), Rows { partitions, columns }));
        Ok(())
    }

    /// Checks that exactly the partitions with records have a number.
    fn number(&mut self, batch: &ProducerBatch) -> Result<()> {
        let mut given: Vec<Sequence> =
            batch.sequences.iter().map(|(t, p, base)| Sequence::new(*t, *p, *base)).collect();
        given.sort_unstable_by_key(|sequence| (sequence.topic, sequence.partition));
        let mut wanted: Vec<Sequence> = Vec::with_capacity(given.len());
        for ((topic, _), counts) in self.topics.iter().zip(&self.counts) {
            for (partition, count) in counts {
                let partition = PartitionId(*partition);
                let found = given.binary_search_by_key(&(*topic, partition), |s| (s.topic, s.partition));
                let base = found.ok().and_then(|place| given.get(place)).map(|sequence| sequence.base);
                let base = base.filter(|base| *base >= 0).ok_or_else(|| {
                    Error::input(format!("no sequence from 0 on is given for topic {topic} partition {partition}"))
                })?;
                wanted.push(Sequence { count: *count, ..Sequence::new(*topic, partition, base) });
            }
        }
        let mut places: Vec<_> = wanted.iter().map(|sequence| (sequence.topic, sequence.partition)).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0] == pair[1]) || places.len() != given.len() {
            let message =
                "a numbered batch has each topic once and a sequence for exactly the partitions it has records for";
            return Err(Error::input(message));
        }
        if !wanted.is_empty() {
            self.producer = Some((batch.producer, wanted));
        }
        Ok(())
    }
}

/// Rows of each partition of a topic that has `of` of them.
fn count(partitions: &[u32], of: u32) -> Counts {
    let Some(first) = partitions.first() else { return Vec::new() };
    let rows = |len: usize| u32::try_from(len).expect("a request is capped far below 4 GiB");
    if partitions.iter().all(|partition| partition == first) {
        return vec![(*first, rows(partitions.len()))];
    }
    // Many rows: one pass over the rows and one over the partitions. Few: sorting touches less.
    if partitions.len() * 8 >= of as usize {
        let mut counts = vec![0; of as usize];
        partitions.iter().for_each(|partition| counts[*partition as usize] += 1);
        return (0..).zip(counts).filter(|(_, count)| *count > 0).collect();
    }
    let mut sorted = partitions.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|same| (same[0], rows(same.len()))).collect()
}

fn choose_partitions(topic: &Topic, columns: &RecordColumns) -> Result<Vec<u32>> {
    let count = topic.partitions();
    let mut turn = None;
    let mut chosen = Vec::with_capacity(columns.len());
    for (row, wanted) in columns.partitions.iter().enumerate() {
        chosen.push(match (wanted, columns.keys.get(row)) {
            (Some(partition), _) if *partition < count => *partition,
            (Some(partition), _) => {
                let message = format!("topic {} has partitions 0 to {}, not {partition}", topic.name(), count - 1);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            (None, _) if count == 1 => 0,
            (None, Some(key)) => topic.partition_of(key),
            (None, None) => *turn.get_or_insert_with(|| topic.next_turn()),
        });
    }
    Ok(chosen)
}
