//! `run` and `replay`: what is asked for, against what the log remembers, and then the loop.

use super::bounds::{self, Point};
use super::checkpoint::{self, Bound, CheckpointCounts, CheckpointOptions, Checkpoints, Restored};
use super::drive::{Begin, Drive, DriveOptions, Observer};
use super::emit::{Emitter, STREAMS, Written, output_topic};
use super::record::{Decision, Progress, RunRecord, decide};
use super::route::Routes;
use super::savepoint::Beginning;
use super::verify::spans;
use super::{Job, declare, progress, registry, runs};
use crate::engine::Counters;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{AppendBatch, Claim, Log, MetaRecord, MetaSpace, Topic};
use crate::state::spill::Budget;
use crate::types::{AppendTime, Position};
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Where to start; `None`: where the tables say.
    pub from: Option<Point>,
    /// Key of a run that began from a state: this one, if it is new, begins from that state as well, where it is.
    pub begin_like: Option<String>,
    /// Key of a run of the same job: this one, if it is new and publishes windows from a time on, begins with the newest checkpoint of
    /// that run behind which all of its results lie, if there is one. It reads less, and nothing else is different.
    pub checkpoint_of: Option<String>,
    /// Where to end; `None` with `bounded`: the end that the log has now; `None` without: never.
    pub to: Option<Point>,
    /// Stop at the end instead of following the log.
    pub bounded: bool,
    /// At the end of a bounded run, emit the windows that are still open.
    pub flush: bool,
    /// Publish only windows that start at this time (ms since the epoch) or later.
    pub publish_from_ms: Option<i64>,
    /// Forget an earlier run on the same outputs and remove what it wrote.
    pub restart: bool,
    /// Stop with an error at the first rejected row.
    pub strict: bool,
    /// Go on where records are quarantined.
    pub accept_loss: bool,
    /// Threads of the engine; 0 and 1 are one.
    pub threads: usize,
    /// Records a second that are read at most; `None`: as many as can be.
    pub rate_max: Option<u64>,
    /// When checkpoints are taken.
    pub checkpoints: CheckpointOptions,
    /// Memory for state, which runs may share; `None`: half of the machine's. What is beyond it goes to disk.
    pub budget: Option<Arc<Budget>>,
}

/// What a run did with what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It started.
    Started,
    /// It went on where an earlier process stopped.
    Resumed,
    /// It was complete already; nothing was written.
    AlreadyComplete,
}

/// Result of a run that has ended.
#[derive(Debug)]
pub struct RunReport {
    /// What happened.
    pub outcome: Outcome,
    /// The run's identity.
    pub record: RunRecord,
    /// Where it is now.
    pub progress: Progress,
    /// What the engine counted (zeros when nothing ran).
    pub counters: Counters,
    /// What was done about checkpoints.
    pub checkpoints: CheckpointCounts,
    /// Bytes of state that went to disk because they were beyond the budget.
    pub spilled_bytes: u64,
}

/// The run of this key, as recorded.
///
/// # Errors
/// `Conflict` when another one writes one of the outputs.
pub(super) fn recorded_run(log: &Log, key: &str, outputs: &[String]) -> Result<Option<RunRecord>> {
    let mut own = None;
    for (other, run) in runs(log)? {
        if other == key {
            own = Some(run);
        } else if run.outputs.iter().any(|topic| outputs.contains(topic)) {
            return Err(match registry::owner(log, &other)? {
                Some((name, number)) => refused(
                    &other,
                    &run,
                    &format!("it is {} of the submitted job '{name}'", registry::label(number)),
                )
                .with_hint(format!(
                    "`kappa up` runs it, `kappa job submit FILE --name {name}` makes its next version; `kappa run FILE --as NAME` \
                     writes beside it"
                )),
                None => refused(&other, &run, "runs are known by the names of their files"),
            });
        }
    }
    Ok(own)
}

/// Runs a job until its end, until the observer stops it, or until an error. Nobody else runs it meanwhile.
///
/// # Errors
/// `Input` for a request that makes no sense, `NotFound` for a missing source topic, `Conflict` when another run wrote the
/// same outputs, `Difference` when recomputed rows are not those written before or a row is rejected under `strict`,
/// `Damage` for quarantined records, `Unavailable` when somebody else works with the run, that and `Unknown` for the disk.
pub fn run(log: &Log, job: &Job, request: &Request, observer: &mut dyn Observer) -> Result<RunReport> {
    let claim = log.claim(&job.key(), "another run", || observer.should_stop())?;
    run_claimed(log, job, request, &claim, observer)
}

/// The same with a claim on [`Job::key`] that the caller has taken, and keeps.
pub fn run_claimed(
    log: &Log,
    job: &Job,
    request: &Request,
    claim: &Claim,
    observer: &mut dyn Observer,
) -> Result<RunReport> {
    debug_assert_eq!(claim.name(), job.key());
    job.check()?;
    if request.restart {
        forget(log, job)?;
    }
    let planned = {
        let _deciding = log.deciding();
        planned(log, job, request)?
    };
    match planned {
        Planned { outcome: Outcome::AlreadyComplete, record, so_far: Some(progress), .. } => {
            let (outcome, checkpoints) = (Outcome::AlreadyComplete, CheckpointCounts::default());
            let counters = Counters::default();
            Ok(RunReport { outcome, record, progress, counters, checkpoints, spilled_bytes: 0 })
        }
        planned => {
            for (topic, partitions) in job.main_topics(&planned.routes) {
                output_topic(log, &topic, partitions)?;
            }
            execute(log, job, request, planned, observer)
        }
    }
}

/// A run that the log knows, before its loop.
struct Planned {
    outcome: Outcome,
    record: RunRecord,
    end: Option<End>,
    routes: Routes,
    so_far: Option<Progress>,
    notes: Vec<String>,
}

/// Holds what is asked for against what the log remembers, and makes it remember the run.
fn planned(log: &Log, job: &Job, request: &Request) -> Result<Planned> {
    let routes = Routes::of(log, job)?;
    let outputs = job.written_topics(&routes);
    let found = recorded_run(log, &job.key(), &outputs)?;
    let of = request.begin_like.as_ref().filter(|_| found.is_none());
    let beginning = of.map(|of| Beginning::like(log, job, of)).transpose()?;
    let so_far = match (&found, &beginning) {
        (Some(_), _) => progress(log, &job.key())?,
        (None, beginning) => beginning.as_ref().map(|beginning| beginning.progress(job)),
    };
    let begun = beginning.as_ref().map(|begun| begun.record(job, outputs.clone(), request.publish_from_ms));
    let recorded = found.or(begun);
    let (record, end) = identity(log, job, request, recorded.as_ref().map(|run| (run, so_far.as_ref())), outputs)?;
    let outcome = match (decide(recorded.as_ref().map(|run| (run, so_far.as_ref())), &record), &recorded) {
        (Decision::Refuse(_), Some(run)) if beginning.is_some() => {
            let message =
                format!("the end that is asked for lies before position {}, where the run begins", run.starts[0]);
            return Err(Error::input(message).with_hint("it begins with the state of a savepoint of that position"));
        }
        (Decision::Refuse(why), Some(run)) => return Err(refused(&job.key(), run, &why)),
        (Decision::Same, _) => Outcome::AlreadyComplete,
        (Decision::Resume, _) if beginning.is_none() => Outcome::Resumed,
        _ => Outcome::Started,
    };
    if outcome == Outcome::AlreadyComplete {
        return Ok(Planned { outcome, record, end, routes, so_far, notes: Vec::new() });
    }
    if outcome == Outcome::Started {
        refuse_foreign_outputs(log, &record.outputs)?;
    }
    // A run that goes on is not complete from here: said in the frame that changes its end, or a crash behind that frame would
    // leave the new end beside the old completeness.
    let so_far = so_far.map(|progress| Progress { is_final: false, ..progress });
    let mut meta = declare::news(log, job, routes.is_live());
    meta.push(run_meta(job, Some(&record))?);
    if let Some(beginning) = &beginning {
        meta.extend(beginning.write(log, job, &record)?);
    }
    let mut notes = beginning.map_or_else(Vec::new, |beginning| beginning.notes);
    let shortcut = match outcome {
        Outcome::Started => shortcut(log, job, request, (&record, end.as_ref()))?,
        _ => None,
    };
    let so_far = shortcut.map_or(so_far, |(progress, named, note)| {
        meta.push(named);
        notes.push(note);
        Some(progress)
    });
    if let Some(progress) = &so_far {
        meta.push(MetaRecord { space: MetaSpace::Progress, key: job.key(), value: Some(progress.encode()?) });
    }
    log.append_wait(AppendBatch::meta(meta))?;
    let from = so_far.as_ref().map(|progress| progress.position).or(record.starts.iter().min().copied());
    notes.extend(declare::advice(log, job, Position(from.unwrap_or_default()))?);
    Ok(Planned { outcome, record, end, routes, so_far, notes })
}

/// Where a new run begins if the checkpoint of another one gives all that it publishes, the record of its own, and what to say.
fn shortcut(
    log: &Log,
    job: &Job,
    request: &Request,
    (record, end): (&RunRecord, Option<&End>),
) -> Result<Option<(Progress, MetaRecord, String)>> {
    let begins_alike =
        |of: &&String| checkpoint::has_base(log, of) == request.begin_like.as_ref().is_some_and(|like| like == *of);
    let of = request.checkpoint_of.as_ref().filter(|_| request.checkpoints.enabled).filter(begins_alike);
    let found = of.map(|of| checkpoint::shortcut(log, job, of, record, end.map(End::bound))).transpose()?.flatten();
    let (Some(of), Some((manifest, state))) = (of, found) else { return Ok(None) };
    let (progress, named) = checkpoint::write_shortcut(log, &job.key(), record, (&manifest, &state))?;
    let note = format!(
        "beginning with checkpoint {} of '{of}', at position {}: nothing that is published had come out before",
        manifest.number, manifest.position
    );
    Ok(Some((progress, named, note)))
}

fn execute(
    log: &Log,
    job: &Job,
    request: &Request,
    planned: Planned,
    observer: &mut dyn Observer,
) -> Result<RunReport> {
    let Planned { outcome, record, end, routes, so_far, notes } = planned;
    notes.iter().for_each(|note| observer.on_note(note));
    let options = DriveOptions {
        threads: request.threads,
        // A checkpoint can be taken between two strides only.
        stride_bytes: request.checkpoints.bytes,
        publish_from_ms: request.publish_from_ms,
        strict: request.strict,
        accept_loss: request.accept_loss,
        budget: request.budget.clone(),
        rate_max: request.rate_max,
    };
    let bound = end.as_ref().map(End::bound);
    let resumed = so_far.as_ref().map(|progress| (progress, bound));
    let interval_us = request.checkpoints.interval_us.or(job.plan.checkpoint_interval_us);
    let checkpoints = CheckpointOptions { interval_us, ..request.checkpoints };
    let (checkpoints, restored, notes) = Checkpoints::open(log, job, &record, checkpoints, resumed)?;
    notes.iter().for_each(|note| observer.on_note(note));
    let begin = restored.as_ref().map_or(Begin::Start, Restored::begin);
    let mut drive = Drive::with(log, job, &record.starts, options, begin)?;
    let spans = so_far.as_ref().map_or(Ok(None), |_| spans(log, &job.key()))?;
    let seen = restored.map(|restored| restored.streams);
    let mut emitter = Emitter::new(log, job, routes, Written { progress: so_far, seen, spans }, checkpoints);
    match &end {
        None => drive.follow(&mut emitter, observer)?,
        Some(end) => drive.feed(end.position, Some(end.position), &mut emitter, observer)?,
    }
    finish(log, job, (&mut drive, &mut emitter), end.filter(|_| !observer.should_stop()), request.flush, observer)?;
    let (progress, counters) = (emitter.progress().clone(), drive.engine().counters());
    let (checkpoints, spilled_bytes) = (emitter.checkpoints(), drive.engine().spilled_bytes());
    Ok(RunReport { outcome, record, progress, counters, checkpoints, spilled_bytes })
}

/// The end of a run: of one that has come to `end`, and may be final, or of one that was stopped.
fn finish(
    log: &Log,
    job: &Job,
    (drive, emitter): (&mut Drive<'_>, &mut Emitter<'_>),
    end: Option<End>,
    flush: bool,
    observer: &mut dyn Observer,
) -> Result<()> {
    if let Some(clock) = end.as_ref().and_then(|end| end.clock) {
        drive.advance(clock, emitter)?;
    }
    match end {
        Some(end) if flush => {
            drive.flush(emitter)?;
            emitter.forget_checkpoints()?;
            emitter.complete(end.position, drive.at().clock)?;
            checkpoint::remove(log, &job.key());
            Ok(())
        }
        end => {
            let at = drive.at();
            emitter.hold(drive.engine_mut(), &at)?.iter().for_each(|note| observer.on_note(note));
            match end {
                Some(end) => emitter.complete(end.position, drive.at().clock),
                None => emitter.settle(),
            }
        }
    }
}

/// The request that makes a replay comparable with the job's own run: the same start, with the state that it began from if it did, and,
/// unless it is still going on, the same end and flush. A checkpoint of that run may save it the way there. Without an own run: the end
/// that the log has now, with a flush.
pub fn replay_request(log: &Log, job: &Job, base: Request) -> Result<Request> {
    let own = Job { version: None, ..job.clone() };
    let Some(bytes) = log.meta(MetaSpace::Run, &own.key()) else {
        return Ok(Request { bounded: true, flush: true, ..base });
    };
    let record = RunRecord::decode(&own.key(), &bytes)?;
    let starts = record.starts.first().filter(|start| record.starts.iter().all(|s| s == *start));
    let from = starts.map(|start| Point::Position(Position(*start)));
    let begin_like = checkpoint::has_base(log, &own.key()).then(|| own.key());
    let base = Request { bounded: true, from, begin_like, checkpoint_of: Some(own.key()), ..base };
    Ok(match progress(log, &own.key())? {
        Some(progress) if progress.is_final => {
            Request { to: Some(Point::Reading(progress.position(), progress.clock())), flush: record.flush, ..base }
        }
        _ => {
            let reading = log.clock();
            Request { to: Some(Point::Reading(reading.position, reading.append_time)), flush: false, ..base }
        }
    })
}

/// Where a bounded run ends: before a position, and for `append:T` with the clock steps due by a time.
pub(super) struct End {
    position: Position,
    clock: Option<AppendTime>,
}

impl End {
    fn bound(&self) -> Bound {
        Bound { position: self.position.0, clock_us: self.clock.map(|clock| clock.0) }
    }
}

/// The identity of the run that is asked for, and its end.
pub(super) fn identity(
    log: &Log,
    job: &Job,
    request: &Request,
    recorded: Option<(&RunRecord, Option<&Progress>)>,
    outputs: Vec<String>,
) -> Result<(RunRecord, Option<End>)> {
    let topics = job.source_topics(log)?;
    let starts = match (&request.from, recorded) {
        // `latest` means the end of the log when the job first started.
        (None, Some((run, _))) if run.plan_digest == job.plan.digest => run.starts.clone(),
        (from, _) => bounds::starts(log, job, from.as_ref())?.into_iter().map(|p| p.0).collect(),
    };
    let end = match (&request.to, request.bounded) {
        (Some(to), _) => {
            let (position, clock) = bounds::end(log, job, to)?;
            Some(End { position, clock })
        }
        (None, true) => Some(End { position: bounds::sources_end(log, job)?, clock: None }),
        (None, false) => None,
    };
    let progress = recorded.and_then(|(_, progress)| progress);
    let end = end.map(|end| passed(log, job, &topics, end, progress)).transpose()?;
    let record = RunRecord {
        plan_digest: job.plan.digest,
        starts,
        end: end.as_ref().map(|end| end.position.0),
        flush: request.flush && end.is_some(),
        publish_from_ms: request.publish_from_ms,
        outputs,
        sources: topics.into_iter().map(|topic| topic.name().to_owned()).collect(),
    };
    Ok((record, end))
}

/// An end that a run has reached, without a record of its sources behind it, is where that run is: a live run reads on beyond its own
/// output, and goes by the clock.
fn passed(log: &Log, job: &Job, topics: &[Topic], end: End, progress: Option<&Progress>) -> Result<End> {
    let Some(progress) = progress.filter(|progress| end.clock.is_none() && end.position <= progress.position()) else {
        return Ok(end);
    };
    let mut at = End { position: progress.position(), clock: Some(progress.clock()) };
    if let Some(state) = checkpoint::reached(log, &job.key()).filter(|state| state.position >= progress.position) {
        at.position = Position(state.position);
        at.clock = at.clock.max(state.clock_us.map(AppendTime));
    }
    let ids: Vec<_> = topics.iter().map(Topic::id).collect();
    let next = log.reader(&ids, end.position).next(at.position)?;
    Ok(if next.is_none() { at } else { end })
}

pub(super) fn run_meta(job: &Job, record: Option<&RunRecord>) -> Result<MetaRecord> {
    Ok(MetaRecord { space: MetaSpace::Run, key: job.key(), value: record.map(RunRecord::encode).transpose()? })
}

pub(super) fn refused(key: &str, run: &RunRecord, why: &str) -> Error {
    let outputs = if run.outputs.is_empty() { key.to_owned() } else { run.outputs.join("', '") };
    Error::new(ErrorKind::Conflict, format!("'{outputs}' is written by run '{key}' already: {why}")).with_hint(
        "`--as NAME` writes beside it, into <output>.NAME; `--restart` removes what it wrote and starts anew",
    )
}

/// A fresh run does not mix its rows with records that somebody else put into its output topics.
pub(super) fn refuse_foreign_outputs(log: &Log, outputs: &[String]) -> Result<()> {
    for topic in outputs {
        let Ok(found) = log.topic(topic) else { continue };
        if log.partition_ends(found.id())?.iter().any(|end| end.0 > 0) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("topic '{topic}' holds records that no run of this job wrote"),
            )
            .with_hint("`--as NAME` writes into <output>.NAME; `--restart` removes the topic's records first"));
        }
    }
    Ok(())
}

/// Removes the runs on this job's outputs and everything that they wrote. The caller has the claim on the job's own.
pub(super) fn forget(log: &Log, job: &Job) -> Result<()> {
    let outputs = job.output_topics();
    let own = job.key();
    let is_other =
        |(key, run): &(String, RunRecord)| *key != own && run.outputs.iter().any(|topic| outputs.contains(topic));
    let others: Vec<String> = runs(log)?.into_iter().filter(is_other).map(|(key, _)| key).collect();
    let claim = |key: &String| log.claim(key, "`--restart` of another run", || false);
    let _claims = others.iter().map(claim).collect::<Result<Vec<_>>>()?;
    let _deciding = log.deciding();
    for output in &job.plan.outputs {
        for stream in STREAMS {
            let Some(topic) = job.stream_topic(output, stream) else { continue };
            match log.delete_topic(&topic) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                done => done?,
            }
        }
    }
    let keys = || others.iter().chain([&own]);
    log.append_wait(AppendBatch::meta(keys().flat_map(|key| forgotten(log, key)).collect()))?;
    keys().for_each(|key| checkpoint::remove(log, key));
    Ok(())
}

/// The records that make the log forget a run.
pub(super) fn forgotten(log: &Log, key: &str) -> Vec<MetaRecord> {
    let run = [MetaSpace::Run, MetaSpace::Progress, MetaSpace::Spans];
    let run = run.map(|space| MetaRecord { space, key: key.to_owned(), value: None });
    run.into_iter().chain(checkpoint::forgotten(log, key)).collect()
}

/// The record of a run whose rows go elsewhere from now on.
pub(super) fn rerouted(log: &Log, job: &Job, routes: &Routes) -> Result<MetaRecord> {
    let key = job.key();
    let Some(bytes) = log.meta(MetaSpace::Run, &key) else {
        return Err(Error::internal(format!("'{key}' has no run")));
    };
    let record = RunRecord { outputs: job.written_topics(routes), ..RunRecord::decode(&key, &bytes)? };
    run_meta(job, Some(&record))
}
