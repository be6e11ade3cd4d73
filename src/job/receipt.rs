//! `receipt`: what a run computed, from what, with what, in digests. The same input gives the same receipt on every machine: it says nothing
//! of positions, append times and where the log was cut.

use super::emit::{record_digest, stream_names};
use super::record::StreamProgress;
use super::verify::first_incomplete;
use super::{Job, Observer, check_wanted, no_run, parts, recorded};
use crate::codec::xxh64;
use crate::engine::functions;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::log::records::RecordColumns;
use crate::types::{Position, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

/// What a run has read of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadTopic {
    /// The topic.
    pub topic: String,
    /// Offsets by partition; partitions of which nothing was read are left out.
    pub offsets: BTreeMap<u32, Range<u64>>,
    /// Number of records.
    pub records: u64,
    /// Chained XXH64 over partition, timestamp, key, value and headers of each, in the order of the log.
    pub digest: u64,
}

/// What a run has written to one stream of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenStream {
    /// Topic, or table for a blackhole.
    pub name: String,
    /// Rows and digest.
    pub written: StreamProgress,
}

/// A run in digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Name of the run.
    pub run: String,
    /// Version of Kappa that gives the receipt.
    pub kappa: &'static str,
    /// Digest of the plan.
    pub plan_digest: u64,
    /// Users' functions that it calls, each with its version.
    pub functions: BTreeSet<(String, String)>,
    /// It has reached its end.
    pub is_final: bool,
    /// Open windows were emitted at the end.
    pub is_flushed: bool,
    /// Only windows that start at this time (ms) or later are published.
    pub publish_from_ms: Option<i64>,
    /// What it has read, by topic.
    pub inputs: Vec<ReadTopic>,
    /// What it has written.
    pub outputs: Vec<WrittenStream>,
    /// Digest over all of this, but for the run's name and the names of outputs.
    pub digest: u64,
}

/// The receipt of a job's recorded run. Reads the input from the run's start to where it is.
///
/// # Errors
/// `NotFound` when the job has not run, `Gone` when records that it read are gone, `Conflict` when the run recorded is that of another
/// plan, `Closed` when the observer stops it, and those of reading.
pub fn receipt(log: &Log, job: &Job, observer: &dyn Observer) -> Result<Receipt> {
    let key = job.key();
    let Some((record, Some(progress))) = recorded(log, job)? else {
        return Err(no_run(log, job, format!("there is no run of '{key}' with anything written")));
    };
    if let Some((topic, from)) = first_incomplete(log, job, &record.starts)? {
        let message =
            format!("records of '{topic}' that '{key}' has read are gone: it is complete from position {from} on");
        return Err(Error::new(ErrorKind::Gone, message).with_hint("a receipt needs all that was read"));
    }
    let mut starts: BTreeMap<TopicId, Position> = BTreeMap::new();
    for (topic, start) in job.source_topics(log)?.iter().zip(&record.starts) {
        let first = starts.entry(topic.id()).or_insert(Position(*start));
        *first = (*first).min(Position(*start));
    }
    let inputs = starts.into_iter().map(|(topic, start)| read(log, topic, start..progress.position(), observer));
    let mut inputs: Vec<ReadTopic> = inputs.collect::<Result<_>>()?;
    inputs.sort_by(|a, b| a.topic.cmp(&b.topic));
    let streams = stream_names(job).into_iter().zip(&progress.streams);
    let outputs = streams
        .filter(|(_, written)| written.rows > 0)
        .map(|(name, written)| WrittenStream { name: name.topic.unwrap_or(name.table), written: *written });
    let calls = functions::used(&job.plan);
    let mut receipt = Receipt {
        run: key,
        kappa: env!("CARGO_PKG_VERSION"),
        plan_digest: record.plan_digest,
        functions: calls.iter().map(|call| (call.name.to_string(), call.version.to_string())).collect(),
        is_final: progress.is_final,
        is_flushed: progress.is_final && record.flush,
        publish_from_ms: record.publish_from_ms,
        inputs,
        outputs: outputs.collect(),
        digest: 0,
    };
    receipt.digest = receipt.digest_of_all();
    Ok(receipt)
}

impl Receipt {
    fn digest_of_all(&self) -> u64 {
        let Receipt { kappa, plan_digest, functions, is_final, is_flushed, publish_from_ms, inputs, .. } = self;
        let mut text = format!("{kappa} {plan_digest:016x} {functions:?} {is_final} {is_flushed} {publish_from_ms:?}");
        for ReadTopic { topic, offsets, records, digest } in inputs {
            let _ = write!(text, " {topic} {offsets:?} {records} {digest:016x}");
        }
        for WrittenStream { written, .. } in &self.outputs {
            let _ = write!(text, " {} {:016x}", written.rows, written.digest);
        }
        xxh64(text.as_bytes(), 0)
    }
}

fn read(
    log: &Log,
    topic: TopicId,
    Range { start, end }: Range<Position>,
    observer: &dyn Observer,
) -> Result<ReadTopic> {
    let name = log.topic_by_id(topic)?.name().to_owned();
    let mut all = ReadTopic { topic: name, offsets: BTreeMap::new(), records: 0, digest: 0 };
    let (mut reader, mut scratch) = (log.reader(&[topic], start), Vec::new());
    while let Some(batch) = reader.next(end)? {
        check_wanted(observer)?;
        let Some(batch) = batch.between(start, end) else { continue };
        let mut rows = RecordColumns::default();
        for row in 0..batch.len() {
            parts::push_record(&batch, row, &mut rows);
            all.digest = record_digest(all.digest, &rows, row, &mut scratch);
            let offset = batch.offsets[row];
            all.offsets.entry(batch.partitions[row]).or_insert(offset..offset).end = offset + 1;
        }
        all.records += batch.len() as u64;
    }
    Ok(all)
}
