//! `verify`: recompute what a run wrote, compare record by record and digest by digest, and name the first window that differs.

use super::checkpoint::{self, Restored};
use super::compare::{Comparer, Difference, SpanCheck};
use super::drive::{Begin, Drive, DriveOptions, Observer, Sink};
use super::emit::{StreamName, stream_names};
use super::record::{Progress, RunRecord, StreamProgress};
use super::{Job, Spans, no_run, recorded};
use crate::engine::functions::{self, UsedFunction};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Log, MetaSpace, Seek, SeekTarget};
use crate::state::spill::Budget;
use crate::types::{AppendTime, PartitionId, Position};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A user's function that a job calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledFunction {
    /// Output topic, or table for a blackhole, that the function works for.
    pub output: String,
    /// Name in capitals.
    pub name: String,
    /// Version, as registered.
    pub version: String,
    /// An input to which it gave two answers in this verification, with both answers.
    pub unstable: Option<String>,
}

/// From where on a run was verified whose first records are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedFrom {
    /// Topic whose records are gone.
    pub topic: String,
    /// None of any source is missing from this position on.
    pub complete_from: Position,
    /// It was recomputed from a checkpoint: the state after every record before this position,
    pub position: Position,
    /// and after every clock step due by this append time.
    pub clock: AppendTime,
    /// By stream: rows that were written before, which were not verified.
    pub rows: Vec<u64>,
}

/// Result of a verification.
#[derive(Debug)]
pub struct VerifyReport {
    /// Name of the run.
    pub run: String,
    /// Identity of the run.
    pub record: RunRecord,
    /// What the run has recorded of itself.
    pub progress: Progress,
    /// Names of the streams of `progress`.
    pub streams: Vec<StreamName>,
    /// From where on; `None`: all of it.
    pub from: Option<VerifiedFrom>,
    /// Rows and digests as recomputed.
    pub recomputed: Vec<StreamProgress>,
    /// The first difference by output; empty: everything that was compared is equal.
    pub differences: Vec<Difference>,
    /// The spans of all streams, in the order of `streams`.
    pub spans: Vec<SpanCheck>,
    /// By stream: rows that only digests know, since the topic does not hold them any more, or since they may lie in any of several.
    pub gone: Vec<u64>,
    /// The users' functions that the job calls, by output and name. While verifying, each is called twice for every input.
    pub functions: Vec<CalledFunction>,
}

impl VerifyReport {
    /// True if the recorded output, [from](Self::from) some place on, is what the job computes, and computes each time.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.functions.iter().all(|function| function.unstable.is_none())
    }
}

/// What of a run is verified, and how.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Threads of the engine; 0 and 1 are one.
    pub threads: usize,
    /// As that of a run.
    pub budget: Option<Arc<Budget>>,
    /// Only the spans with timestamps from this one on, in ms.
    pub from_ms: Option<i64>,
    /// Only the spans with timestamps before this one, in ms.
    pub to_ms: Option<i64>,
}

/// Recomputes a job's recorded run from its start and compares, row by row and span by span. Where records that it read are gone, it
/// is recomputed from a checkpoint behind them.
///
/// # Errors
/// `NotFound` when the job has not run, `Conflict` when the run recorded is that of another plan, `Gone` when records that it read are
/// gone and no checkpoint lies between them and its last rows, and those of reading.
pub fn verify(log: &Log, job: &Job, request: &VerifyRequest, observer: &mut dyn Observer) -> Result<VerifyReport> {
    let key = job.key();
    let Some((record, progress)) = recorded(log, job)? else {
        return Err(no_run(log, job, format!("there is no run of '{key}' to verify")));
    };
    let Some(progress) = progress else {
        return Err(Error::new(ErrorKind::NotFound, format!("the run of '{key}' has written nothing yet")));
    };
    let (threads, budget) = (request.threads, request.budget.clone());
    let options = DriveOptions { threads, budget, publish_from_ms: record.publish_from_ms, ..DriveOptions::default() };
    let calls = functions::used(&job.plan);
    calls.iter().for_each(|call| call.probe.check());
    let (restored, from) = beginning(log, job, &record, &progress)?;
    let begin = restored.as_ref().map_or(Begin::Start, Restored::begin);
    let mut drive = Drive::with(log, job, &record.starts, options, begin)?;
    let spans = spans(log, &key)?;
    let mut comparer = Comparer::new(log, job, &progress, spans.as_ref(), (request.from_ms, request.to_ms))?;
    if let Some(restored) = restored.filter(|_| from.is_some()) {
        comparer.begin(&restored)?;
    }
    let end = if progress.is_final { progress.position() } else { log.clock().position };
    drive.feed(end, Some(end), &mut comparer, observer)?;
    if !comparer.is_done() {
        let clock = if progress.is_final { progress.clock() } else { drive.at().clock.max(progress.clock()) };
        drive.advance(clock, &mut comparer)?;
    }
    if progress.is_final && record.flush && !comparer.is_done() {
        drive.flush(&mut comparer)?;
    }
    comparer.finish(progress.is_final)?;
    let differences = comparer.streams.iter().filter_map(|s| s.difference.clone()).collect();
    let recomputed = comparer.streams.iter().map(|s| s.seen).collect();
    Ok(VerifyReport {
        run: key,
        record,
        progress,
        streams: stream_names(job),
        from,
        recomputed,
        differences,
        spans: comparer.streams.iter().flat_map(|stream| stream.spans()).collect(),
        gone: comparer.streams.iter().map(|stream| stream.gone).collect(),
        functions: called_functions(job, &calls),
    })
}

/// What a run is recomputed from: what it began with, or the first checkpoint that needs no record that is gone.
fn beginning(
    log: &Log,
    job: &Job,
    record: &RunRecord,
    progress: &Progress,
) -> Result<(Option<Restored>, Option<VerifiedFrom>)> {
    let key = job.key();
    let Some((topic, complete_from)) = first_incomplete(log, job, &record.starts)? else {
        return Ok((checkpoint::base(log, &key)?, None));
    };
    let Some(restored) = checkpoint::first_from(log, &key, record, progress, complete_from) else {
        let message = format!(
            "records of '{topic}' that '{key}' has read are gone: it is complete from position {complete_from} on"
        );
        return Err(Error::new(ErrorKind::Gone, message).with_hint(
            "what needs them cannot be recomputed, and no checkpoint that is kept lies between them and the last results; a run from \
             there, `kappa run FILE --from position:N --as NAME`, can be verified",
        ));
    };
    let (position, clock) = (restored.at.position, restored.at.clock);
    let rows = restored.streams.iter().map(|stream| stream.rows).collect();
    Ok((Some(restored), Some(VerifiedFrom { topic, complete_from, position, clock, rows })))
}

/// The marks that a run has kept.
pub(super) fn spans(log: &Log, key: &str) -> Result<Option<Spans>> {
    log.meta(MetaSpace::Spans, key).map(|bytes| Spans::decode(key, &bytes)).transpose()
}

/// A source of which records from its start on are gone, and the position from which on none is missing: the latest of all sources.
pub(super) fn first_incomplete(log: &Log, job: &Job, starts: &[u64]) -> Result<Option<(String, Position)>> {
    let mut latest: Option<(String, Position)> = None;
    for (topic, start) in job.source_topics(log)?.into_iter().zip(starts) {
        for (partition, offset) in (0..).map(PartitionId).zip(log.partition_starts(topic.id())?) {
            if offset.0 == 0 {
                continue;
            }
            let first = match log.seek(topic.id(), SeekTarget::Offset { partition, offset })? {
                Seek::At(position) => position,
                Seek::NoSuchRecord => log.durable_end(),
            };
            if first.0 > *start && latest.as_ref().is_none_or(|(_, known)| first > *known) {
                latest = Some((topic.name().to_owned(), first));
            }
        }
    }
    Ok(latest)
}

/// One entry for each function of each output: that of a call which gave two answers, if there is one.
fn called_functions(job: &Job, calls: &[UsedFunction]) -> Vec<CalledFunction> {
    let mut functions: BTreeMap<(usize, &str), CalledFunction> = BTreeMap::new();
    for call in calls {
        let output = job.plan.pipelines[call.pipeline].output;
        let function = functions.entry((output, &call.name)).or_insert_with(|| {
            let plan = &job.plan.outputs[output];
            CalledFunction {
                output: job.output_topic(plan).unwrap_or_else(|| plan.table.clone()),
                name: call.name.to_string(),
                version: call.version.to_string(),
                unstable: None,
            }
        });
        function.unstable = function.unstable.take().or_else(|| call.probe.finding());
    }
    functions.into_values().collect()
}
