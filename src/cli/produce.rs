//! `kappa produce`: lines, JSON objects or CSV rows into a topic.

use super::Status;
use super::args::{InputFormat, Produce};
use super::context::{Context, Stdin};
use crate::connect::interrupt::StopFlag;
use crate::connect::open_text;
use crate::error::{Error, ErrorKind, Result};
use crate::format::framing::{Framer, Framing};
use crate::job::parse_time_ms;
use crate::log::records::Record;
use crate::log::{Log, Partitioner, Producer, ProducerOptions, Topic, TopicConfig};
use crate::types::PartitionId;
use serde_json::Value;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

const CHUNK_BYTES: usize = 64 << 10;

pub(super) fn run(context: &Context, args: Produce) -> Result<Status> {
    if args.format == InputFormat::Lines && (args.key.is_some() || args.time.is_some()) {
        return Err(
            Error::input("--key and --time name columns, and lines have none").with_hint("add --format json or csv")
        );
    }
    let log = context.open_log_to_write(&args.writing)?;
    let topic = ensure_topic(context, &log, &args.topic)?;
    let partitioner = args.partition.map_or(Partitioner::ByKey, |partition| Partitioner::Fixed(PartitionId(partition)));
    let framing = match args.format {
        InputFormat::Csv => Framing::Csv { header: true, quote: Some(b'"') },
        _ => Framing::Lines,
    };
    let mut sender = Sender {
        producer: Producer::new(&log, &topic, ProducerOptions { partitioner, ..ProducerOptions::default() }),
        format: args.format,
        key: args.key,
        time: args.time,
        columns: None,
        sent: 0,
        line: u64::from(args.format == InputFormat::Csv),
    };
    let mut input = open_input(context, &args.file)?;
    let progress = context.progress(&format!("to '{}'", args.topic), None, "bytes");
    let outcome = pump(&mut *input, framing, &mut sender, |bytes| progress.at(bytes), || false);
    let flushed = sender.producer.flush();
    drop(progress);
    context.talk(&format!("{} records in topic '{}'", sender.sent, args.topic));
    outcome.and(flushed.map(drop))?;
    context.close(log)?;
    Ok(Status::Done)
}

/// Lines of stdin into a topic until it ends or the process is asked to stop; made durable whenever stdin rests.
pub(super) fn pump_stdin(context: &Context, log: &Log, topic: &str, stop: &StopFlag) -> Result<()> {
    let topic = ensure_topic(context, log, topic)?;
    let mut sender = Sender {
        producer: Producer::new(log, &topic, ProducerOptions::default()),
        format: InputFormat::Lines,
        key: None,
        time: None,
        columns: None,
        sent: 0,
        line: 0,
    };
    pump(&mut Stdin(Arc::clone(&context.terminal)), Framing::Lines, &mut sender, |_| (), || stop.is_set())?;
    sender.producer.flush().map(drop)
}

fn ensure_topic(context: &Context, log: &Log, name: &str) -> Result<Topic> {
    match log.topic(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let topic = log.create_topic(name, TopicConfig::default())?;
            context.talk(&format!("note: topic '{name}' did not exist; created with one partition"));
            Ok(topic)
        }
        found => found,
    }
}

fn open_input(context: &Context, file: &Path) -> Result<Box<dyn Read>> {
    if file.as_os_str() == "-" {
        Ok(Box::new(Stdin(Arc::clone(&context.terminal))))
    } else {
        Ok(open_text(&*context.env.disk, file)?)
    }
}

fn pump(
    input: &mut dyn Read,
    framing: Framing,
    sender: &mut Sender,
    on_progress: impl Fn(u64),
    should_stop: impl Fn() -> bool,
) -> Result<()> {
    let mut framer = Framer::new(framing);
    let mut chunk = vec![0; CHUNK_BYTES];
    while !should_stop() {
        let read = match input.read(&mut chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("cannot read the input: {e}")).with_source(e)
            })?,
        };
        if read == 0 {
            break;
        }
        let mut records = Vec::new();
        framer.feed(&chunk[..read], |record| {
            records.push(record.to_vec());
            Ok(())
        })?;
        sender.header(framer.header())?;
        records.iter().try_for_each(|record| sender.send(record))?;
        if read < chunk.len() {
            // A pipe that gave less than asked for rests: what came must not wait for more.
            sender.producer.flush()?;
        }
        on_progress(framer.consumed());
    }
    let mut last = None;
    framer.finish(|record| {
        last = Some(record.to_vec());
        Ok(())
    })?;
    sender.header(framer.header())?;
    last.map_or(Ok(()), |record| sender.send(&record))
}

/// Turns input records into log records.
struct Sender {
    producer: Producer,
    format: InputFormat,
    key: Option<String>,
    time: Option<String>,
    columns: Option<Vec<String>>,
    sent: u64,
    line: u64,
}

impl Sender {
    fn header(&mut self, header: Option<&[u8]>) -> Result<()> {
        if let (None, Some(header)) = (&self.columns, header) {
            let columns = split_csv(header);
            for wanted in self.key.iter().chain(&self.time) {
                if !columns.contains(wanted) {
                    return Err(Error::input(format!("no column '{wanted}' in the header: {}", columns.join(", "))));
                }
            }
            self.columns = Some(columns);
        }
        Ok(())
    }

    fn send(&mut self, record: &[u8]) -> Result<()> {
        self.line += 1;
        if record.is_empty() && self.format != InputFormat::Lines {
            return Ok(());
        }
        let place = |e: Error| e.context(format!("record {}", self.line));
        let (key, time) = self.key_and_time(record).map_err(place)?;
        let timestamp_ms = time.map(|time| parse_time_ms(&time)).transpose().map_err(place)?;
        let record =
            Record { timestamp_ms, key: key.as_ref().map(String::as_bytes), value: Some(record), headers: &[] };
        self.producer.send(&record)?;
        self.sent += 1;
        Ok(())
    }

    fn key_and_time(&self, record: &[u8]) -> Result<(Option<String>, Option<String>)> {
        match self.format {
            InputFormat::Lines => Ok((None, None)),
            InputFormat::Json => {
                let object: Value =
                    serde_json::from_slice(record).map_err(|e| Error::input(format!("not a JSON object: {e}")))?;
                if !object.is_object() {
                    return Err(Error::input("not a JSON object"));
                }
                let text =
                    |column: &Option<String>| column.as_ref().and_then(|name| object.get(name)).and_then(json_text);
                Ok((text(&self.key), text(&self.time)))
            }
            InputFormat::Csv => {
                let Some(columns) = &self.columns else { return Err(Error::input("the input has no header row")) };
                let fields = split_csv(record);
                if fields.len() != columns.len() {
                    return Err(Error::input(format!("{} fields, the header has {}", fields.len(), columns.len())));
                }
                let text = |column: &Option<String>| {
                    let at = columns.iter().position(|name| Some(name) == column.as_ref())?;
                    fields.get(at).filter(|field| !field.is_empty()).cloned()
                };
                Ok((text(&self.key), text(&self.time)))
            }
        }
    }
}

fn json_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Fields of one CSV row.
fn split_csv(row: &[u8]) -> Vec<String> {
    let mut reader = csv_core::Reader::new();
    let mut fields = Vec::new();
    let (mut output, mut ends) = (vec![0; row.len() + 1], vec![0; row.len() + 2]);
    let (_, mut written, mut count) = {
        let (_, read, written, count) = reader.read_record(row, &mut output, &mut ends);
        (read, written, count)
    };
    // The row has no line end: empty input tells the parser that it is over.
    let (_, _, more, ended) = reader.read_record(&[], &mut output[written..], &mut ends[count..]);
    written += more;
    count += ended;
    let mut from = 0;
    for end in ends.iter().take(count) {
        let end = (*end).min(written);
        fields.push(String::from_utf8_lossy(&output[from.min(end)..end]).into_owned());
        from = end;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_split_into_fields() {
        assert_eq!(split_csv(b"a,\"b,\"\"c\",,d"), ["a", "b,\"c", "", "d"]);
        assert_eq!(split_csv(b"one"), ["one"]);
        assert_eq!(split_csv(b"a,"), ["a", ""]);
    }
}
