//! `kappa consume`.

use super::Status;
use super::args::Consume;
use super::context::{Context, Terminal, stdout_error};
use super::printer::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Point, offset_target, parse_point};
use crate::log::records::{LogBatch, decode_headers};
use crate::log::{Log, RangeBatch, Reader, Seek, SeekTarget, Topic};
use crate::types::Position;
use arrow::array::{Array, BinaryArray};
use chrono::DateTime;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const COLUMNS: [&str; 8] = ["position", "partition", "offset", "append_time", "timestamp", "key", "value", "headers"];

/// How long a follower rests when there is nothing new, at most, in microseconds.
const REST_US: u64 = 100_000;

pub(super) fn run(context: &Context, args: Consume) -> Result<Status> {
    let log = context.open_log()?;
    let topic = log.topic(&args.topic)?;
    if let Some(partition) = args.partition.filter(|partition| *partition >= topic.partitions()) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("topic '{}' has no partition {partition}: it has {}", topic.name(), topic.partitions()),
        ));
    }
    let from = parse_point(&args.from)?;
    let mut output = Output {
        terminal: Arc::clone(&context.terminal),
        partition: args.partition,
        left: args.max.unwrap_or(u64::MAX),
        table: (!args.values).then(|| context.printer(&args.show).open(&COLUMNS)),
    };
    match args.to.as_deref().map(parse_point).transpose()? {
        Some(Point::TimeMs(to_ms)) => within(context, &log, &topic, from, to_ms, &mut output)?,
        to => from_to(context, &log, &topic, from, to, &args, &mut output)?,
    }
    context.close(log)?;
    Ok(Status::Done)
}

/// Shows what lies between two places, or from one on.
fn from_to(
    context: &Context,
    log: &Log,
    topic: &Topic,
    from: Point,
    to: Option<Point>,
    args: &Consume,
    output: &mut Output,
) -> Result<()> {
    let Some(start) = position_of(log, topic, from, args.partition)? else {
        context.talk(&format!("no such record: nothing in '{}' at or after {}", topic.name(), args.from));
        return Ok(());
    };
    let end = to.map(|to| position_of(log, topic, to, args.partition)).transpose()?.flatten();
    let mut reader = log.reader(&[topic.id()], start);
    output.copy(&mut reader, end.unwrap_or(log.durable_end()))?;
    if args.follow && end.is_none() {
        let stop = context.stop_flag()?;
        let _host = context.host(log, None);
        while output.left > 0 && !stop.is_set() {
            let end = log.wait_beyond(reader.position(), REST_US);
            output.copy(&mut reader, end)?;
        }
        return Ok(());
    }
    output.show(Vec::new())
}

/// Shows the records with a timestamp below `to_ms`, and at or above a time or behind another place.
fn within(context: &Context, log: &Log, topic: &Topic, from: Point, to_ms: i64, output: &mut Output) -> Result<()> {
    let (from_ms, start) = match from {
        Point::TimeMs(from_ms) => (from_ms, Some(Position(0))),
        from => (i64::MIN, position_of(log, topic, from, output.partition)?),
    };
    let beyond = log.seek_range(topic.id(), from_ms, to_ms)?.beyond_max_future;
    if beyond > 0 {
        context.talk(&format!(
            "{beyond} records of this time lie further ahead of their append time than max-future: not shown"
        ));
    }
    let mut range = log.read_range(topic.id(), from_ms, to_ms)?.starting_at(start.unwrap_or(log.durable_end()));
    let mut found = false;
    while output.left > 0
        && let Some(RangeBatch { batch, rows }) = range.next_batch()?
    {
        found = true;
        output.rows(&batch, rows)?;
    }
    if !found {
        context.talk(&format!("no such record: nothing in '{}' of this time", topic.name()));
    }
    output.show(Vec::new())
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

struct Output {
    terminal: Arc<dyn Terminal>,
    partition: Option<u32>,
    left: u64,
    table: Option<Table>,
}

impl Output {
    fn copy(&mut self, reader: &mut Reader, end: Position) -> Result<()> {
        while self.left > 0 {
            let Some(batch) = reader.next(end)? else { return Ok(()) };
            self.rows(&batch, (0..batch.len()).collect())?;
        }
        Ok(())
    }

    /// Shows some rows, as far as they are of the partition and not too many.
    fn rows(&mut self, batch: &LogBatch, mut rows: Vec<usize>) -> Result<()> {
        rows.retain(|row| self.partition.is_none_or(|partition| partition == batch.partitions[*row]));
        rows.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= rows.len() as u64;
        if self.table.is_some() {
            self.show(rows.iter().map(|row| cells(batch, *row)).collect::<Result<_>>()?)
        } else {
            values(&*self.terminal, batch, &rows)
        }
    }

    fn show(&mut self, rows: Vec<Vec<Value>>) -> Result<()> {
        self.table.as_mut().map_or(Ok(()), |table| table.rows(&rows))
    }
}

fn values(terminal: &dyn Terminal, batch: &LogBatch, rows: &[usize]) -> Result<()> {
    let mut bytes = Vec::new();
    for row in rows.iter().filter(|row| batch.values.is_valid(**row)) {
        bytes.extend_from_slice(batch.values.value(*row));
        bytes.push(b'\n');
    }
    terminal.show(&bytes).map_err(stdout_error)
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
        .map_err(|e| Error::damage(format!("headers at position {}: {e}", batch.positions[row])))?
        .into_iter()
        .map(|(name, value)| {
            (name.to_owned(), value.map_or(Value::Null, |bytes| json!(String::from_utf8_lossy(bytes))))
        })
        .collect();
    let timestamp = batch
        .timestamp_ms(row)
        .map(|ms| ms.checked_mul(1000).map_or(json!(ms), |us| time(us, "%Y-%m-%dT%H:%M:%S%.3fZ")));
    Ok(vec![
        json!(batch.positions[row]),
        json!(batch.partitions[row]),
        json!(batch.offsets[row]),
        time(batch.append_times[row], "%Y-%m-%dT%H:%M:%S%.6fZ"),
        timestamp.unwrap_or(Value::Null),
        text(&batch.keys, row),
        text(&batch.values, row),
        if headers.is_empty() { Value::Null } else { Value::Object(headers) },
    ])
}
