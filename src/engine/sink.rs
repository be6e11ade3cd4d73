//! Output records of one pipeline: rows and window results encoded in the sink's format, late and rejected records as they came.

use super::chunk::Chunk;
use super::output::{Cause, Firing, Operation, OutputRecord, Outputs, encoded, row_headers};
use super::pipeline::Emit;
use super::plan::{JobPlan, SourcePlan, Step};
use super::segment::Segment;
use super::trace::KeyAndValue;
use super::{Codecs, OutputStream};
use crate::error::{Error, Result};
use crate::format::Encoder;
use crate::log::records::encode_headers;
use crate::window::{IsoMs, Window};
use arrow::array::{Array, BinaryArray, RecordBatch};
use arrow::datatypes::Schema;
use std::sync::Arc;

/// Windows that a late record names at most; the others are counted.
const MISSED_WINDOWS: usize = 16;

/// The output side of a pipeline.
pub(super) struct Sink {
    pipeline: usize,
    output: usize,
    value: Box<dyn Encoder>,
    key: Key,
    row_headers: Vec<u8>,
}

/// Where record keys come from.
enum Key {
    /// Records have no key.
    None,
    /// These columns of the sink row (PRIMARY KEY).
    Sink(Box<dyn Encoder>, Vec<usize>),
    /// The first columns of the window result (group keys).
    Group(Box<dyn Encoder>, Vec<usize>),
}

impl Sink {
    pub fn new(plan: &JobPlan, pipeline: usize, codecs: Codecs) -> Result<Sink> {
        let pipeline_plan = &plan.pipelines[pipeline];
        let output = &plan.outputs[pipeline_plan.output];
        let encoder_of = |schema: &Schema, columns: &[usize]| {
            let schema = schema.project(columns).map_err(|e| Error::internal(format!("key columns: {e}")))?;
            (codecs.encoder)(&output.format, &Arc::new(schema))
        };
        let key = match pipeline_plan.steps.iter().rfind(|step| step.is_stateful()) {
            _ if !output.primary_key.is_empty() => {
                Key::Sink(encoder_of(&output.schema, &output.primary_key)?, output.primary_key.clone())
            }
            Some(Step::Aggregate(window)) if !window.keys.is_empty() => {
                let columns: Vec<usize> = (0..window.keys.len()).collect();
                Key::Group(encoder_of(&window.schema, &columns)?, columns)
            }
            _ => Key::None,
        };
        Ok(Sink {
            pipeline,
            output: pipeline_plan.output,
            value: (codecs.encoder)(&output.format, &output.schema)?,
            key,
            row_headers: row_headers(),
        })
    }

    /// A writer of rows without a window.
    pub fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<Writer<'a>> {
        self.windows(batch, batch)
    }

    /// A writer of sink rows that come from window results.
    pub fn windows<'a>(&'a self, batch: &'a RecordBatch, results: &RecordBatch) -> Result<Writer<'a>> {
        let keys = match &self.key {
            Key::None => None,
            Key::Sink(encoder, columns) => Some((&**encoder, batch.project(columns), false)),
            Key::Group(encoder, columns) => Some((&**encoder, results.project(columns), true)),
        };
        let keys = keys.map(|(encoder, batch, by_result)| {
            let batch = batch.map_err(|e| Error::internal(format!("key columns: {e}")).with_source(e))?;
            Ok(Keys { encoder, batch, by_result })
        });
        let keys = keys.transpose()?;
        let headers = (Firing::ONLY, Firing::ONLY.headers());
        Ok(Writer { sink: self, batch, keys, key: Vec::new(), value: Vec::new(), headers, wrote: (false, false) })
    }

    /// A record that missed these windows: all of its own, or some.
    pub fn late(
        &self,
        (segment, row): (&Segment<'_>, u32),
        watermark: i64,
        missed: &[Window],
        is_partly: bool,
        emit: &mut Emit<'_>,
    ) {
        let mut windows: Vec<String> = missed.iter().take(MISSED_WINDOWS).map(ToString::to_string).collect();
        if missed.len() > MISSED_WINDOWS {
            windows.push(format!("and {} more", missed.len() - MISSED_WINDOWS));
        }
        let notes = [("watermark", IsoMs(watermark).to_string()), ("windows", windows.join(","))];
        let record = Original {
            chunk: &segment.rows.chunk,
            row: segment.chunk_row(row),
            source: segment.source,
            topic: segment.topic,
        };
        let to = (self.output, OutputStream::Late);
        let reason = if is_partly { "partly late" } else { "late" };
        record.push(to, (segment.cause(row), self.pipeline), reason, &notes, emit.outputs);
    }

    /// A record that a step could not evaluate.
    pub fn reject(&self, segment: &Segment<'_>, row: u32, why: &str, emit: &mut Emit<'_>) {
        let record = Original {
            chunk: &segment.rows.chunk,
            row: segment.chunk_row(row),
            source: segment.source,
            topic: segment.topic,
        };
        let to = (self.output, OutputStream::Rejected);
        record.push(to, (segment.cause(row), self.pipeline), why, &[], emit.outputs);
    }

    /// A window result that a step could not evaluate: there is no record to show, only the window and the reason.
    pub fn reject_window(&self, cause: Cause, window: Window, why: &str, emit: &mut Emit<'_>) {
        let window_text = window.to_string();
        let headers = encoded(&[("reason", Some(why.as_bytes())), ("windows", Some(window_text.as_bytes()))]);
        let record = OutputRecord { timestamp_ms: Some(window.end - 1), key: None, value: None, headers: &headers };
        emit.outputs.push((self.output, OutputStream::Rejected), (cause, self.pipeline), &record);
    }
}

struct Keys<'a> {
    encoder: &'a dyn Encoder,
    batch: RecordBatch,
    /// Rows are those of the window results, not of the sink rows.
    by_result: bool,
}

/// Writes rows of one batch.
pub(super) struct Writer<'a> {
    sink: &'a Sink,
    batch: &'a RecordBatch,
    keys: Option<Keys<'a>>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Headers of the firing of the row before: mostly those of the next one.
    headers: (Firing, Vec<u8>),
    /// The row before had a key, and a value.
    wrote: (bool, bool),
}

impl Writer<'_> {
    /// Writes a row that had no window.
    pub fn write(&mut self, row: usize, cause: Cause, timestamp_ms: Option<i64>, emit: &mut Emit<'_>) {
        let sink = self.sink;
        self.put((row, row), cause, timestamp_ms, (true, &sink.row_headers), emit);
    }

    /// Writes a row of the sink that comes from a row of the window results. With a PRIMARY KEY a result that is taken back leaves no
    /// value behind.
    pub fn write_window(
        &mut self,
        row_and_result: (usize, usize),
        (cause, firing): (Cause, Firing),
        timestamp_ms: i64,
        emit: &mut Emit<'_>,
    ) {
        if self.headers.0 != firing {
            self.headers = (firing, firing.headers());
        }
        let has_value = firing.operation != Operation::Delete || !matches!(self.sink.key, Key::Sink(..));
        let headers = std::mem::take(&mut self.headers.1);
        self.put(row_and_result, cause, Some(timestamp_ms), (has_value, &headers), emit);
        self.headers.1 = headers;
    }

    /// Key and value of the row before.
    pub fn written(&self) -> KeyAndValue {
        (self.wrote.0.then(|| self.key.clone()), self.wrote.1.then(|| self.value.clone()))
    }

    fn put(
        &mut self,
        (row, result): (usize, usize),
        cause: Cause,
        timestamp_ms: Option<i64>,
        (has_value, headers): (bool, &[u8]),
        emit: &mut Emit<'_>,
    ) {
        self.value.clear();
        if has_value {
            self.sink.value.encode(self.batch, row, &mut self.value);
        }
        self.key.clear();
        let key = self.keys.as_ref().map(|keys| {
            keys.encoder.encode(&keys.batch, if keys.by_result { result } else { row }, &mut self.key);
            &*self.key
        });
        let value = has_value.then_some(&*self.value);
        self.wrote = (key.is_some(), has_value);
        let record = OutputRecord { timestamp_ms, key, value, headers };
        emit.outputs.push((self.sink.output, OutputStream::Main), (cause, self.sink.pipeline), &record);
    }
}

/// A record as it came, on its way to a late or rejected stream.
struct Original<'a> {
    chunk: &'a Chunk,
    row: usize,
    source: usize,
    topic: &'a str,
}

impl Original<'_> {
    fn push(
        &self,
        to: (usize, OutputStream),
        by: (Cause, usize),
        reason: &str,
        notes: &[(&str, String)],
        outputs: &mut Outputs,
    ) {
        let (chunk, row) = (self.chunk, self.row);
        let bytes = |column: &BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
        let (partition, offset) = (chunk.partitions[row].to_string(), chunk.offsets.at(row).to_string());
        let mut added = vec![("reason", Some(reason.as_bytes()))];
        added.extend(notes.iter().map(|(name, text)| (*name, Some(text.as_bytes()))));
        added.extend([
            ("topic", Some(self.topic.as_bytes())),
            ("partition", Some(partition.as_bytes())),
            ("offset", Some(offset.as_bytes())),
        ]);
        let timestamp_ms = chunk.timestamps.is_valid(row).then(|| chunk.timestamps.value(row));
        // Encoded headers are a plain sequence: the record's own come first, as they are.
        if chunk.in_parts {
            let headers = encoded(&added);
            let record = OutputRecord { timestamp_ms, key: None, value: None, headers: &headers };
            outputs.push_unfilled(to, by, &record, (self.source, chunk.positions.at(row)));
            return;
        }
        let mut headers = bytes(&chunk.headers).unwrap_or_default();
        encode_headers(&added, &mut headers);
        let (key, value) = (bytes(&chunk.keys), bytes(&chunk.values));
        let record = OutputRecord { timestamp_ms, key: key.as_deref(), value: value.as_deref(), headers: &headers };
        outputs.push(to, by, &record);
    }
}

/// Writes a row of a chunk that its source rejected to an output's rejected stream.
pub(super) fn reject_by_source(
    source: (usize, &SourcePlan),
    chunk: &Chunk,
    rejected: (u32, &str),
    to: (usize, usize),
    outputs: &mut Outputs,
) {
    let (row, why) = (rejected.0 as usize, rejected.1);
    let (output, pipeline) = to;
    let cause = Cause::record(chunk.append_us.at(row), chunk.positions.at(row));
    let record = Original { chunk, row, source: source.0, topic: &source.1.topic };
    record.push((output, OutputStream::Rejected), (cause, pipeline), why, &[], outputs);
}
