//! `kappa consume`.

use super::args::{Common, Consume};
use super::printer::{Printer, Table};
use super::{Status, open_log, stdout_error, talk};
use crate::connect::interrupt::stop_on_signal;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Point, offset_target, parse_point};
use crate::log::records::{LogBatch, decode_headers};
use crate::log::{Log, Reader, Seek, SeekTarget, Topic};
use crate::types::Position;
use arrow::array::{Array, BinaryArray};
use chrono::DateTime;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

const COLUMNS: [&str; 8] = ["position", "partition", "offset", "append_time", "timestamp", "key", "value", "headers"];

/// How long a follower rests when there is nothing new, at most, in microseconds.
const REST_US: u64 = 100_000;

pub(super) fn run(env: &Env, common: &Common, args: Consume) -> Result<Status> {
    let log = open_log(env, common)?;
    let topic = log.topic(&args.topic)?;
    if let Some(partition) = args.partition.filter(|partition| *partition >= topic.partitions()) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("topic '{}' has no partition {partition}: it has {}", topic.name(), topic.partitions()),
        ));
    }
    let Some(start) = position_of(&log, &topic, parse_point(&args.from)?, args.partition)? else {
        talk(&format!("no such record: nothing in '{}' at or after {}", topic.name(), args.from));
        return Ok(Status::Done);
    };
    let end = match &args.to {
        None => None,
        Some(to) => end_of(&log, &topic, parse_point(to)?, args.partition)?,
    };
    let mut output = Output {
        partition: args.partition,
        left: args.max.unwrap_or(u64::MAX),
        table: (!args.values).then(|| Printer::new(&args.show).open(&COLUMNS)),
    };
    let mut reader = log.reader(&[topic.id()], start);
    output.copy(&mut reader, end.unwrap_or(log.durable_end()))?;
    if args.follow && end.is_none() {
        let stop = stop_on_signal()?;
        while output.left > 0 && !stop.is_set() {
            let end = log.wait_beyond(reader.position(), REST_US);
            output.copy(&mut reader, end)?;
        }
    } else {
        output.show(Vec::new())?;
    }
    log.close()?;
    Ok(Status::Done)
}

/// First position of a point in a topic; `None`: no such record.
fn position_of(log: &Log, topic: &Topic, point: Point, partition: Option<u32>) -> Result<Option<Position>> {
    let target = match point {
        Point::Earliest => SeekTarget::Earliest,
        Point::Latest => SeekTarget::Latest,
        Point::Position(position) | Point::Reading(position, _) => SeekTarget::Position(position),
        Point::Offset(offset) => offset_target(partition, offset)?,
        Point::TimeMs(ms) => SeekTarget::TimestampMs(ms),
        Point::Append(time) => SeekTarget::Append(time),
    };
    Ok(match log.seek(topic.id(), target)? {
        Seek::At(position) => Some(position),
        Seek::NoSuchRecord => None,
    })
}

/// Position that a point ends before; for a time the smallest span that holds every earlier record.
fn end_of(log: &Log, topic: &Topic, point: Point, partition: Option<u32>) -> Result<Option<Position>> {
    match point {
        Point::TimeMs(ms) => {
            Ok(Some(log.seek_range(topic.id(), i64::MIN, ms)?.span.map_or(Position(0), |(_, end)| end)))
        }
        point => position_of(log, topic, point, partition),
    }
}

struct Output {
    partition: Option<u32>,
    left: u64,
    table: Option<Table>,
}

impl Output {
    fn copy(&mut self, reader: &mut Reader, end: Position) -> Result<()> {
        while self.left > 0 {
            let Some(batch) = reader.next(end)? else { return Ok(()) };
            let wanted: Vec<usize> =
                (0..batch.len()).filter(|row| self.partition.is_none_or(|p| p == batch.partitions[*row])).collect();
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(wanted.len());
            self.left -= most as u64;
            let wanted = &wanted[..most];
            if self.table.is_some() {
                self.show(wanted.iter().map(|row| cells(&batch, *row)).collect::<Result<_>>()?)?;
            } else {
                values(&batch, wanted)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, rows: Vec<Vec<Value>>) -> Result<()> {
        self.table.as_mut().map_or(Ok(()), |table| table.rows(&rows))
    }
}

fn values(batch: &LogBatch, rows: &[usize]) -> Result<()> {
    let mut bytes = Vec::new();
    for row in rows.iter().filter(|row| batch.values.is_valid(**row)) {
        bytes.extend_from_slice(batch.values.value(*row));
        bytes.push(b'\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(stdout_error)
}

fn text(array: &BinaryArray, row: usize) -> Value {
    if array.is_valid(row) { json!(String::from_utf8_lossy(array.value(row))) } else { Value::Null }
}

fn time(microseconds: i64, format: &str) -> Value {
    DateTime::from_timestamp_micros(microseconds)
        .map_or(json!(microseconds), |time| json!(time.format(format).to_string()))
}

fn cells(batch: &LogBatch, row: usize) -> Result<Vec<Value>> {
    let headers: Map<String, Value> = decode_headers(batch.headers.value(row))
        .map_err(|e| Error::damage(format!("headers at position {}: {e}", batch.first_position.plus(row as u64))))?
        .into_iter()
        .map(|(name, value)| {
            (name.to_owned(), value.map_or(Value::Null, |bytes| json!(String::from_utf8_lossy(bytes))))
        })
        .collect();
    let timestamp = batch
        .timestamp_ms(row)
        .map(|ms| ms.checked_mul(1000).map_or(json!(ms), |us| time(us, "%Y-%m-%dT%H:%M:%S%.3fZ")));
    Ok(vec![
        json!(batch.first_position.0 + row as u64),
        json!(batch.partitions[row]),
        json!(batch.offsets[row]),
        time(batch.append_time.0, "%Y-%m-%dT%H:%M:%S%.6fZ"),
        timestamp.unwrap_or(Value::Null),
        text(&batch.keys, row),
        text(&batch.values, row),
        if headers.is_empty() { Value::Null } else { Value::Object(headers) },
    ])
}
