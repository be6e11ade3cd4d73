//! Where a numbered batch is that came again.

use crate::error::{Error, Result};
use crate::log::append::{Ack, PartitionAck, TopicAck};
use crate::log::producers::{Place, Repeat, Sequence};
use crate::log::reader::Reader;
use crate::log::records::LogBatch;
use crate::log::seek::{Seek, SeekTarget, seek};
use crate::log::shared::Shared;
use crate::types::{AppendTime, Offset, Position, TopicId};
use std::sync::Arc;

/// The acknowledgement that a batch got, or would have got, the first time. Its records must be durable.
///
/// [`ErrorKind::Damage`](crate::ErrorKind::Damage) and others: the batch is in the log, its place cannot be read.
pub(crate) fn find(shared: &Arc<Shared>, repeat: &Repeat) -> Result<Ack> {
    let mut ack: Option<Ack> = None;
    let mut rest = &repeat.0[..];
    while let Some((first, place)) = rest.first() {
        let (mine, others) = rest.split_at(rest.iter().take_while(|(s, _)| s.topic == first.topic).count());
        rest = others;
        let (topic, append_time, end) = find_topic(shared, first.topic, mine)
            .map_err(|e| e.context("a batch that was sent again is in the log already, its place cannot be read"))?;
        let ack = ack.get_or_insert_with(|| Ack {
            append_time,
            seq: place.frame,
            topics: Vec::new(),
            end: Position(0),
            repeat: true,
        });
        ack.end = ack.end.max(end);
        ack.topics.push(topic);
    }
    ack.ok_or_else(|| Error::internal("a repeat without records"))
}

/// Where one topic's records of a batch are, when they were appended, and the position after the last.
fn find_topic(
    shared: &Arc<Shared>,
    topic: TopicId,
    parts: &[(Sequence, Place)],
) -> Result<(TopicAck, AppendTime, Position)> {
    let mut first: Option<(Position, AppendTime)> = None;
    let mut end = Position(0);
    for (sequence, place) in parts {
        for offset in [place.base_offset, Offset(place.base_offset.0 + u64::from(sequence.count.max(1)) - 1)] {
            let (position, append_time) = find_record(shared, topic, sequence, place, offset)?;
            first = Some(first.map_or((position, append_time), |first| first.min((position, append_time))));
            end = end.max(position.plus(1));
        }
    }
    let (first_position, append_time) = first.ok_or_else(|| Error::internal("a repeat without records"))?;
    let partition = |(sequence, place): &(Sequence, Place)| PartitionAck {
        partition: sequence.partition,
        base_offset: place.base_offset,
        count: u64::from(sequence.count),
    };
    Ok((TopicAck { topic, first_position, partitions: parts.iter().map(partition).collect() }, append_time, end))
}

/// Looks in the frame that the record was written in, and where that was sealed away, by offset.
fn find_record(
    shared: &Arc<Shared>,
    topic: TopicId,
    sequence: &Sequence,
    place: &Place,
    offset: Offset,
) -> Result<(Position, AppendTime)> {
    let mut reader = Reader::new(shared.clone(), &[topic], place.frame_position);
    let located = shared.index(|index| index.find(&[topic], place.frame_position, |_, _| true));
    if let Some(located) = located.filter(|located| located.seq == place.frame) {
        let batch = reader.read(&located)?;
        if let Some(found) = row_of(&batch, sequence, offset) {
            return Ok(found);
        }
    }
    let known = shared.topics(|topics| topics.by_id(topic))?;
    match seek(shared, &known, SeekTarget::Offset { partition: sequence.partition, offset })? {
        Seek::At(position) => {
            let mut reader = Reader::new(shared.clone(), &[topic], position);
            let batch = reader.next(position.plus(1))?;
            let append_time = batch.map_or(AppendTime::MIN, |batch| batch.last_append_time());
            Ok((position, append_time))
        }
        _ => {
            let what = format!("offset {offset} of topic {} partition {}", known.name(), sequence.partition);
            Err(Error::new(crate::ErrorKind::NotFound, format!("there is no record at {what} any more")))
        }
    }
}

fn row_of(batch: &LogBatch, sequence: &Sequence, offset: Offset) -> Option<(Position, AppendTime)> {
    let mut rows = batch.partitions.iter().zip(batch.offsets.iter());
    let row = rows.position(|found| found == (&sequence.partition.0, &offset.0))?;
    Some((Position(*batch.positions.get(row)?), AppendTime(*batch.append_times.get(row)?)))
}
