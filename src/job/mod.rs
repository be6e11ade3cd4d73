//! Runs of a job over the log: live, bounded, replayed under another name, or recomputed to verify what was written.
//! All of them are one loop ([`drive`]) over one order; they differ in where they start, where they end and who takes the rows.

mod adopt;
mod bounds;
mod check;
mod checkpoint;
mod compare;
mod declare;
mod diff;
mod drive;
mod emit;
mod explain;
mod lateness;
mod live_checks;
mod parts;
mod promote;
mod receipt;
mod record;
pub mod registry;
mod route;
mod rowtimes;
mod run;
mod runner;
pub mod savepoint;
mod spans;
mod supervise;
mod throttle;
mod verify;

pub use crate::engine::trace::{CausedBy, Inner, Part, Traced};
pub use bounds::{Point, offset_target, parse_point, parse_time_ms};
pub use check::{CheckResult, checks};
pub use checkpoint::{CheckpointCounts, CheckpointOptions};
pub use compare::{Difference, SpanCheck, SpanState};
pub use declare::{declare, declare_sources};
pub use diff::{ColumnDelta, Counts, DiffReport, DiffRequest, RowChange, RowDiff, Why, diff, version_outputs};
pub use drive::{Observer, Silent};
pub use emit::{STREAMS, StreamName, record_digest};
pub use explain::{Event, Explained, Happened, NamedRecord, Question, explain};
pub use lateness::{Behind, BoundCount, LatenessPlan, plan_lateness};
pub use live_checks::{LiveCheck, live_checks};
pub use promote::{Promoted, promote};
pub use receipt::{ReadTopic, Receipt, WrittenStream, receipt};
pub use record::{Progress, RunRecord, StreamProgress};
pub use run::{Outcome, Request, RunReport, replay_request, run, run_claimed};
pub use spans::{Mark, Marks, Spans};
pub use supervise::{Watch, request_of, up};
pub use verify::{CalledFunction, VerifiedFrom, VerifyReport, VerifyRequest, verify};

use crate::engine::OutputStream;
use crate::engine::plan::{JobPlan, OutputPlan};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Log, MetaSpace, Topic};
use crate::types::check_topic_name;
use route::Routes;

/// A job as the command line names it: a plan, the name of its file, and the version whose outputs it writes.
#[derive(Clone)]
pub struct Job {
    /// What it computes.
    pub plan: std::sync::Arc<JobPlan>,
    /// Name: the file's name without ending. Topics of bare `SELECT`s start with it.
    pub name: String,
    /// `--as NAME`: outputs go to `<output>.NAME`.
    pub version: Option<String>,
}

impl From<crate::stream::StreamJob> for Job {
    fn from(job: crate::stream::StreamJob) -> Job {
        let (plan, name) = job.into_parts();
        Job { plan: std::sync::Arc::new(plan), name, version: None }
    }
}

impl Job {
    /// Topic of an output, with the version ending; `None` for a blackhole.
    pub fn output_topic(&self, output: &OutputPlan) -> Option<String> {
        let base = output.topic.as_ref()?;
        let base = if output.is_select { format!("{}.{base}", self.name) } else { base.clone() };
        Some(match &self.version {
            Some(version) => format!("{base}.{version}"),
            None => base,
        })
    }

    /// Topic of one stream of an output: the output itself, `.late` or `.rejected`.
    pub fn stream_topic(&self, output: &OutputPlan, stream: OutputStream) -> Option<String> {
        let main = self.output_topic(output)?;
        Some(match stream {
            OutputStream::Main => main,
            OutputStream::Late => format!("{main}.late"),
            OutputStream::Rejected => format!("{main}.rejected"),
        })
    }

    /// Key of the job's records in the catalog.
    pub fn key(&self) -> String {
        match &self.version {
            Some(version) => format!("{}.{version}", self.name),
            None => self.name.clone(),
        }
    }

    fn output_topics(&self) -> Vec<String> {
        self.plan.outputs.iter().filter_map(|output| self.output_topic(output)).collect()
    }

    /// The topics that its rows may go to, without those of late and rejected ones.
    fn written_topics(&self, routes: &Routes) -> Vec<String> {
        let mut topics = self.output_topics();
        if routes.is_live() {
            topics.extend(self.base().output_topics());
        }
        topics
    }

    /// The topics that most of its rows go to, with their partitions.
    fn main_topics(&self, routes: &Routes) -> Vec<(String, u32)> {
        let writes = if routes.is_live() { self.base() } else { self.clone() };
        let of = |output: &OutputPlan| Some((writes.output_topic(output)?, output.partitions));
        self.plan.outputs.iter().filter_map(of).collect()
    }

    /// Checks names that the plan alone cannot know to be good, and that the job does not read what it writes.
    fn check(&self) -> Result<()> {
        for topic in self.output_topics() {
            check_topic_name(&topic).map_err(|why| Error::input(format!("output topic '{topic}': {why}")))?;
            if self.plan.sources.iter().any(|source| source.topic == topic) {
                return Err(Error::input(format!("topic '{topic}' is read and written by the same job"))
                    .with_hint("use a view for an intermediate result, or a second file that reads the topic"));
            }
        }
        Ok(())
    }

    /// Topics of the sources, in plan order.
    pub fn source_topics(&self, log: &Log) -> Result<Vec<Topic>> {
        self.plan
            .sources
            .iter()
            .map(|source| log.topic(&source.topic))
            .map(|topic| topic.map_err(missing_source))
            .collect()
    }
}

/// Whether somebody still wants the answer.
///
/// # Errors
/// `Closed` when the observer wants to stop.
pub fn check_wanted(observer: &dyn Observer) -> Result<()> {
    match observer.should_stop() {
        true => Err(Error::new(ErrorKind::Closed, "stopped before it was done")),
        false => Ok(()),
    }
}

fn missing_source(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            error.with_hint("create it with `kappa topic create`, or write to it with `kappa produce`")
        }
        _ => error,
    }
}

/// Every run that is recorded in the log, with its key.
pub fn runs(log: &Log) -> Result<Vec<(String, RunRecord)>> {
    log.meta_scan(MetaSpace::Run, "")
        .into_iter()
        .map(|(key, bytes)| Ok((key.clone(), RunRecord::decode(&key, &bytes)?)))
        .collect()
}

/// The recorded run of a job and its progress; `None` if it has not run.
///
/// # Errors
/// `Conflict` when what ran is another plan than the job's.
fn recorded(log: &Log, job: &Job) -> Result<Option<(RunRecord, Option<Progress>)>> {
    let key = job.key();
    let Some(bytes) = log.meta(MetaSpace::Run, &key) else { return Ok(None) };
    let record = RunRecord::decode(&key, &bytes)?;
    if record.plan_digest != job.plan.digest {
        let message = format!("the recorded run of '{key}' computed something else than this file");
        return Err(Error::new(ErrorKind::Conflict, message)
            .with_hint("name the file that ran; `kappa replay FILE --as NAME` computes the changed file beside it"));
    }
    Ok(Some((record, progress(log, &key)?)))
}

/// That a job has not run, and who writes its outputs instead.
fn no_run(log: &Log, job: &Job, message: String) -> Error {
    let outputs = job.output_topics();
    let writes = |(_, run): &(String, RunRecord)| run.outputs.iter().any(|topic| outputs.contains(topic));
    let writer = runs(log).unwrap_or_default().into_iter().find(writes);
    let owner = writer.and_then(|(key, _)| registry::owner(log, &key).ok()?);
    Error::new(ErrorKind::NotFound, message).with_hint(match owner {
        Some((name, _)) => format!("the submitted job '{name}' writes its outputs: name that instead of the file"),
        None => "`kappa run` it first".to_owned(),
    })
}

/// How far a run has come; `None` if it has written nothing yet.
pub fn progress(log: &Log, key: &str) -> Result<Option<Progress>> {
    log.meta(MetaSpace::Progress, key).map(|bytes| Progress::decode(key, &bytes)).transpose()
}
