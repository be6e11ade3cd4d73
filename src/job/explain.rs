//! `explain`: which records made a result, what brought it out, and which records came too late for it, recomputed from the log by the
//! engine itself with a trace.

use super::checkpoint::{self, Restored};
use super::drive::{At, Begin, Drive, DriveOptions, Observer, Sink};
use super::record::{Progress, RunRecord};
use super::{Job, bounds, parts, recorded};
use crate::engine::plan::Step;
use crate::engine::trace::{Asked, CausedBy, Part, Traced, TracedLate, Tracing};
use crate::engine::{OutputBatch, RowReader, SeenRow};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::log::records::LogBatch;
use crate::types::{AppendTime, Offset, PartitionId, Position};
use crate::window::{IsoMs, Window};
use std::collections::{BTreeMap, BTreeSet};

/// Names in an error, at most.
const NAMED_MAX: usize = 5;

/// Which result is to be explained.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Table or topic of the output; `None`: all outputs with windows.
    pub output: Option<String>,
    /// Start of the window in ms, as the output shows it.
    pub window_start_ms: i64,
    /// End of the window, where several start together.
    pub window_end_ms: Option<i64>,
    /// The key: as in the output record, or the group's values as JSON or separated by commas. `None`: all keys of the window.
    pub key: Option<String>,
    /// Threads of the engine; 0 and 1 are one.
    pub threads: usize,
    /// Go on where records are quarantined.
    pub accept_loss: bool,
}

/// A record as an explanation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRecord {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    /// Offset in the partition.
    pub offset: Offset,
    /// Position in the log.
    pub position: Position,
    /// When it was appended.
    pub append_time: AppendTime,
    /// What the job sees of it; `None`: it does not decode.
    pub seen: Option<SeenRow>,
}

/// What happened to a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// The run began with the state of a savepoint at this position, which held something for it: what came before is in the results,
    /// and its records are not known.
    State(Position),
    /// A record went into it, in a nest by way of this inner window.
    Record(Option<Window>),
    /// A result came out.
    Result(Box<Traced>),
    /// A record came too late for these windows.
    Late(Vec<Window>),
}

/// Something that happened to a window, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub what: Happened,
    /// The record that it was, or that caused it; `None`: a step of the clock or the end of the input did.
    pub record: Option<NamedRecord>,
    /// When, by the append clock; `None`: at the end of the input.
    pub at: Option<AppendTime>,
    /// The watermark in ms before it; `None`: nothing had moved it.
    pub watermark_ms: Option<i64>,
}

/// The life of one window and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Output topic, or table for a blackhole.
    pub output: String,
    /// The window.
    pub window: Window,
    /// Its group key, as JSON.
    pub group: String,
    /// What happened to it.
    pub events: Vec<Event>,
    /// The input has not closed it yet: the last result is what it holds so far.
    pub is_open: bool,
}

/// What was seen of each window: by pipeline, window and group key.
type Windows = BTreeMap<(usize, Window, String), (Vec<Traced>, Vec<TracedLate>)>;

/// Takes no rows: only the trace is wanted.
struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _: Vec<OutputBatch>, _: Position, _: AppendTime) -> Result<()> {
        Ok(())
    }
}

/// Explains a window of a job: of its recorded run if there is one, else of a run from the tables' starts to the end of the log.
///
/// # Errors
/// `NotFound` with the nearest windows and keys if there is no such window, `Input` if the output has no windows, `Conflict` when the
/// recorded run is that of another plan, and those of reading.
pub fn explain(log: &Log, job: &Job, question: &Question, observer: &mut dyn Observer) -> Result<Vec<Explained>> {
    let asked = asked(job, question)?;
    let run = recorded(log, job)?;
    let base = checkpoint::base(log, &job.key())?;
    let mut seen = recompute(log, job, question, &asked, (run.as_ref(), base.as_ref()), observer)?;
    let is_final = run
        .as_ref()
        .is_some_and(|(record, progress)| record.flush && progress.as_ref().is_some_and(|progress| progress.is_final));
    let (results, late) = (std::mem::take(&mut seen.results), std::mem::take(&mut seen.late));
    let mut windows = Windows::new();
    for result in results {
        let place = (result.pipeline, result.window, result.group.clone());
        windows.entry(place).or_default().0.push(result);
    }
    place_late(job, &asked, late, &mut windows);
    if windows.is_empty() {
        return Err(no_such_window(job, question, &seen));
    }
    let mut explained = Vec::new();
    for ((pipeline, window, group), (results, late)) in windows {
        let is_open = !is_final && results.last().is_some_and(|result| result.by == CausedBy::End);
        let output = &job.plan.outputs[job.plan.pipelines[pipeline].output];
        let output = job.output_topic(output).unwrap_or_else(|| output.table.clone());
        let is_of_state = results.iter().flat_map(|result| &result.parts).any(Part::is_of_state);
        let mut events = events(log, job, pipeline, results, late)?;
        if let Some(base) = base.as_ref().filter(|_| is_of_state) {
            events.insert(0, begun(&base.at));
        }
        explained.push(Explained { output, window, group, events, is_open });
    }
    Ok(explained)
}

fn asked(job: &Job, question: &Question) -> Result<Asked> {
    let named = |output: &crate::engine::plan::OutputPlan| {
        question
            .output
            .as_ref()
            .is_none_or(|name| output.table == *name || job.output_topic(output).as_ref() == Some(name))
    };
    let has_windows =
        |output: usize| job.plan.pipelines.iter().any(|p| p.output == output && p.steps.iter().any(Step::is_stateful));
    let plans = job.plan.outputs.iter().enumerate();
    let candidates: Vec<usize> = plans.filter(|(_, plan)| named(plan)).map(|(output, _)| output).collect();
    let outputs: Vec<usize> = candidates.iter().copied().filter(|output| has_windows(*output)).collect();
    match (&question.output, candidates.is_empty(), outputs.is_empty()) {
        (Some(name), true, _) => {
            let names: Vec<_> = job.plan.outputs.iter().map(|plan| plan.table.clone()).collect();
            Err(Error::new(ErrorKind::NotFound, format!("job '{}' has no output '{name}'", job.name))
                .with_hint(format!("its outputs are {}", names.join(", "))))
        }
        (_, _, true) => Err(Error::input("the output has no windows: each of its rows is one record's")
            .with_hint("`kappa consume` shows the rows")),
        _ => Ok(Asked {
            outputs,
            window_start_ms: question.window_start_ms,
            window_end_ms: question.window_end_ms,
            key: question.key.clone(),
        }),
    }
}

/// That a window was in the state that the run began from.
fn begun(at: &At) -> Event {
    let clock = Some(at.clock).filter(|clock| *clock > AppendTime::MIN);
    Event { what: Happened::State(at.position), record: None, at: clock, watermark_ms: None }
}

fn recompute(
    log: &Log,
    job: &Job,
    question: &Question,
    asked: &Asked,
    (run, base): (Option<&(RunRecord, Option<Progress>)>, Option<&Restored>),
    observer: &mut dyn Observer,
) -> Result<Tracing> {
    let starts = match run {
        Some((record, _)) => record.starts.clone(),
        None => bounds::starts(log, job, None)?.into_iter().map(|start| start.0).collect(),
    };
    let options = DriveOptions {
        threads: question.threads,
        publish_from_ms: run.and_then(|(record, _)| record.publish_from_ms),
        accept_loss: question.accept_loss,
        ..DriveOptions::default()
    };
    let begin = Begin::Traced(asked, base.map(|base| (&base.state, base.at)));
    let mut drive = Drive::with(log, job, &starts, options, begin)?;
    let reading = log.clock();
    let (end, clock) = match run {
        Some((_, Some(progress))) if progress.is_final => (progress.position(), progress.clock()),
        Some(_) => (reading.position, reading.append_time),
        None => (bounds::sources_end(log, job)?, AppendTime::MIN),
    };
    drive.feed(end, Some(end), &mut Nowhere, observer)?;
    drive.advance(clock, &mut Nowhere)?;
    // Of a run that goes on, the flush shows what its open windows hold.
    drive.flush(&mut Nowhere)?;
    Ok(drive.take_trace())
}

/// Puts late records to the windows that they concern.
fn place_late(job: &Job, asked: &Asked, late: Vec<TracedLate>, windows: &mut Windows) {
    for late in late {
        let is_nest = job.plan.pipelines[late.pipeline].steps.iter().filter(|step| step.is_stateful()).count() > 1;
        let is_beside = |window: &Window| late.windows.iter().any(|m| m.start <= window.end && window.start <= m.end);
        let mut known = windows.iter_mut().filter(|((pipeline, window, group), _)| {
            *pipeline == late.pipeline && is_beside(window) && (is_nest || *group == late.group)
        });
        match known.next() {
            Some((_, (_, list))) => list.push(late),
            None => {
                let missed = late.windows.iter().find(|window| window.start == asked.window_start_ms && !is_nest);
                if let Some(window) = missed.copied() {
                    let place = (late.pipeline, window, late.group.clone());
                    windows.entry(place).or_default().1.push(late);
                }
            }
        }
    }
}

fn no_such_window(job: &Job, question: &Question, seen: &Tracing) -> Error {
    let at = IsoMs(question.window_start_ms);
    let key = question.key.as_ref().map_or_else(String::new, |key| format!(" and key {key}"));
    let error = format!("job '{}' has no window that starts at {at}{key}", job.name);
    let mut hints = Vec::new();
    if !seen.keys.is_empty() {
        let keys: Vec<&str> = seen.keys.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = if seen.keys.len() > NAMED_MAX { ", and more" } else { "" };
        hints.push(format!("keys of that window: {}{more}", keys.join(", ")));
    }
    let near = match seen.near_of_key {
        (None, None) => (&seen.near, "nearest windows"),
        _ => (&seen.near_of_key, "nearest windows of that key"),
    };
    let shown: Vec<String> = [near.0.0, near.0.1].into_iter().flatten().map(|window| window.to_string()).collect();
    if !shown.is_empty() {
        hints.push(format!("{}: {}", near.1, shown.join(" and ")));
    }
    let error = Error::new(ErrorKind::NotFound, error);
    if hints.is_empty() { error.with_hint("the job has made no window yet") } else { error.with_hint(hints.join("; ")) }
}

/// Everything that happened to a window, in order.
fn events(log: &Log, job: &Job, pipeline: usize, results: Vec<Traced>, late: Vec<TracedLate>) -> Result<Vec<Event>> {
    let mut members: BTreeMap<u64, (i64, Option<Window>)> = BTreeMap::new();
    for (position, watermark, inner) in results.iter().flat_map(|result| &result.parts).flat_map(Part::records) {
        members.entry(position).or_insert((watermark, inner));
    }
    let causes = results.iter().filter_map(|result| match result.by {
        CausedBy::Record(_, position) => Some(position),
        CausedBy::Clock(_) | CausedBy::End => None,
    });
    let wanted: BTreeSet<u64> =
        members.keys().copied().chain(causes).chain(late.iter().map(|late| late.position)).collect();
    let named = named_records(log, job, pipeline, &wanted.into_iter().collect::<Vec<_>>())?;
    let record = |position: u64| {
        let record = named.get(&position).cloned();
        record.ok_or_else(|| Error::internal(format!("the record at position {position} was not read")))
    };
    let known = |watermark: i64| (watermark != i64::MIN).then_some(watermark);
    let mut events: Vec<(CausedBy, u8, Event)> = Vec::new();
    let mut add = |what: Happened, rank: u8, by: CausedBy, watermark: i64| -> Result<()> {
        let (record, at) = match by {
            CausedBy::Record(at, position) => (Some(record(position)?), Some(at)),
            CausedBy::Clock(at) => (None, Some(at)),
            CausedBy::End => (None, None),
        };
        events.push((by, rank, Event { what, record, at, watermark_ms: known(watermark) }));
        Ok(())
    };
    let by_record = |position: u64| Ok::<_, Error>(CausedBy::Record(record(position)?.append_time, position));
    for (position, (watermark, inner)) in members {
        add(Happened::Record(inner), 0, by_record(position)?, watermark)?;
    }
    for late in late {
        add(Happened::Late(late.windows), 1, by_record(late.position)?, late.watermark_ms)?;
    }
    for result in results {
        let (by, watermark) = (result.by, result.watermark_ms);
        add(Happened::Result(Box::new(result)), 2, by, watermark)?;
    }
    events.sort_by_key(|(by, rank, _)| (order(*by), *rank));
    Ok(events.into_iter().map(|(.., event)| event).collect())
}

/// Causes in the order in which they happen: a step of the clock comes before the records of its time.
fn order(by: CausedBy) -> (i64, u64) {
    match by {
        CausedBy::Record(at, position) => (at.0, position.saturating_add(1)),
        CausedBy::Clock(at) => (at.0, 0),
        CausedBy::End => (i64::MAX, u64::MAX),
    }
}

/// The records of a pipeline's source at these positions, ascending.
fn named_records(log: &Log, job: &Job, pipeline: usize, positions: &[u64]) -> Result<BTreeMap<u64, NamedRecord>> {
    let plan = &job.plan.sources[job.plan.pipelines[pipeline].source];
    let (topic, reader) = (log.topic(&plan.topic)?, RowReader::new(plan)?);
    let mut found = BTreeMap::new();
    parts::each_record(log, topic.id(), positions, |batch: &LogBatch, row| {
        let record = NamedRecord {
            topic: plan.topic.clone(),
            partition: PartitionId(batch.partitions[row]),
            offset: Offset(batch.offsets[row]),
            position: Position(batch.positions[row]),
            append_time: AppendTime(batch.append_times[row]),
            seen: reader.read(&batch.slice(row, row + 1))?,
        };
        found.insert(batch.positions[row], record);
        Ok(())
    })?;
    Ok(found)
}
