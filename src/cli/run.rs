//! `kappa run`, and `kappa replay` of a file.

use super::args::{EngineArgs, Run};
use super::context::Context;
use super::job_args::Replay;
use super::printer::{Printer, Table};
use super::progress::Progress;
use super::units::{parse_bytes, parse_duration_us};
use super::{Status, refuse_submitted};
use crate::connect::interrupt::StopFlag;
use crate::connect::{file_sink, file_source};
use crate::engine::plan::{OutputPlan, SinkKind};
use crate::engine::{Counters, Engine, OutputStream};
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FormatSpec;
use crate::format::framing::Framing;
use crate::job::{self, CheckpointOptions, Job, Observer, Outcome, Request, RunReport, parse_point};
use crate::log::{Log, Reader};
use crate::types::{AppendTime, Position};
use arrow::array::Array;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How long a partition may be silent while it holds windows back before the user is told, in microseconds.
const SILENCE_US: i64 = 10_000_000;

pub(super) fn run(context: &Context, args: Run) -> Result<Status> {
    let job = context.load_job(&args.file, args.version)?;
    let ingests = args.ingest.iter().map(|text| parse_ingest(text)).collect::<Result<Vec<_>>>()?;
    let reads_only_files = job.plan.sources.iter().all(|source| source.ingest.is_some());
    let bounded = args.bounded || args.to.is_some() || (reads_only_files && ingests.is_empty());
    if args.no_flush && !bounded {
        return Err(Error::input("--no-flush needs an end").with_hint("add --bounded or --to"));
    }
    let request = Request {
        from: args.from.as_deref().map(parse_point).transpose()?,
        to: args.to.as_deref().map(parse_point).transpose()?,
        bounded,
        flush: bounded && !args.no_flush,
        restart: args.restart,
        ..engine_request(context, &args.engine)?
    };
    // Before the log is opened: from then on Ctrl-C must end the run well.
    let stop = context.stop_flag()?;
    let log = context.open_log_to_write(&args.writing)?;
    refuse_submitted(&log, &job)?;
    if request.from.is_some() {
        context.talk("note: a run that starts at --from sees nothing before it: its first windows may be partial");
    }
    let host = context.host(&log, request.budget.clone());
    take_files(context, &log, &job)?;
    let pumps = feed(context, &log, ingests, bounded, &stop)?;
    let status = execute(context, &log, &job, &request, &context.printer(&args.show), &stop);
    for pump in pumps {
        // A pump that waits for stdin ends with the process that the user started.
        if pump.is_finished() {
            pump.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
    }
    let status = status?;
    drop(host);
    context.close(log)?;
    Ok(status)
}

/// Recomputes a file's job over the past, into outputs of another name.
pub(super) fn replay_file(
    context: &Context,
    log: &Log,
    job: &Job,
    args: &Replay,
    engine: Request,
    stop: &StopFlag,
) -> Result<Status> {
    refuse_submitted(log, job)?;
    take_files(context, log, job)?;
    let base = Request { restart: args.restart, ..engine };
    let request = job::replay_request(log, job, base)?;
    let request = match &args.to {
        Some(to) => Request { to: Some(parse_point(to)?), flush: true, ..request },
        None => request,
    };
    execute(context, log, job, &request, &context.printer(&args.show), stop)
}

pub(super) fn engine_request(context: &Context, args: &EngineArgs) -> Result<Request> {
    let interval = args.checkpoint_interval.as_deref();
    let interval_us = interval.filter(|text| *text != "none").map(parse_duration_us).transpose()?;
    let checkpoints = CheckpointOptions {
        interval_us: interval_us.map(|us| u64::try_from(us).unwrap_or(0)),
        bytes: parse_bytes(&args.checkpoint_bytes)?,
        enabled: interval != Some("none"),
        ..CheckpointOptions::default()
    };
    Ok(Request {
        strict: args.strict,
        accept_loss: args.accept_loss,
        threads: usize::from(args.threads),
        checkpoints,
        budget: Some(args.memory.budget(context)?),
        ..Request::default()
    })
}

/// `TOPIC=FILE` or `TOPIC=-`.
fn parse_ingest(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((topic, file)) if !topic.is_empty() && !file.is_empty() => Ok((topic.to_owned(), PathBuf::from(file))),
        _ => Err(Error::input(format!("--ingest {text}: write TOPIC=FILE, or TOPIC=- for stdin"))),
    }
}

/// Appends what is new in the files behind the job's filesystem tables, with the columns of all that it reads declared before.
fn take_files(context: &Context, log: &Log, job: &Job) -> Result<()> {
    job::declare_sources(log, job)?;
    for source in &job.plan.sources {
        if let Some(ingest) = &source.ingest {
            take_file(context, log, &source.topic, &ingest.path, ingest.framing)?;
        }
    }
    Ok(())
}

fn take_file(context: &Context, log: &Log, topic: &str, path: &Path, framing: Framing) -> Result<()> {
    let progress = context.progress(&format!("reading {}", path.display()), None, "bytes");
    let taken =
        file_source::ingest_file(log, &*context.env.disk, topic, path, framing, &mut |bytes| progress.at(bytes))?;
    if taken.added > 0 {
        progress.note(&format!("{} records of {} went into topic '{topic}'", taken.added, path.display()));
    }
    Ok(())
}

/// Feeds topics: before a bounded run, beside a live one.
fn feed(
    context: &Context,
    log: &Log,
    ingests: Vec<(String, PathBuf)>,
    bounded: bool,
    stop: &StopFlag,
) -> Result<Vec<JoinHandle<Result<()>>>> {
    let mut pumps = Vec::new();
    for (topic, path) in ingests {
        let (context, log, stop) = (context.clone(), log.clone(), stop.clone());
        let terminal = Arc::clone(&context.terminal);
        let pump = move || {
            if path.as_os_str() == "-" {
                super::produce::pump_stdin(&context, &log, &topic, &stop)
            } else {
                take_file(&context, &log, &topic, &path, Framing::Lines)
            }
        };
        if bounded {
            pump()?;
        } else {
            let name = format!("kappa-ingest-{}", pumps.len());
            let watched = move || pump().inspect_err(|e| terminal.talk(&format!("error: feeding stopped: {e}")));
            pumps.push(
                thread::spawn(&name, watched)
                    .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?,
            );
        }
    }
    Ok(pumps)
}

fn execute(
    context: &Context,
    log: &Log,
    job: &Job,
    request: &Request,
    printer: &Printer,
    stop: &StopFlag,
) -> Result<Status> {
    for note in &job.plan.notes {
        context.talk(&format!("note: {note}"));
    }
    let mut watch = Watch::new(context, log, job, printer, stop, request.bounded);
    // What feeds it has threads of its own by now, and the log too: they go first.
    thread::enter(Class::Background);
    let report = job::run(log, job, request, &mut watch)?;
    watch.show_rows()?;
    watch.show_empty_tables()?;
    drop(watch);
    if request.bounded {
        write_folders(context, log, job)?;
    }
    summarise(context, job, &report);
    Ok(Status::Done)
}

fn write_folders(context: &Context, log: &Log, job: &Job) -> Result<()> {
    for output in &job.plan.outputs {
        let (SinkKind::Filesystem { path }, Some(topic)) = (&output.sink, job.output_topic(output)) else { continue };
        let ending = match output.format {
            FormatSpec::Json(_) => "json",
            FormatSpec::Csv(_) => "csv",
            FormatSpec::Raw => "txt",
        };
        let folder = match &job.version {
            Some(version) => {
                path.with_file_name(format!("{}.{version}", path.file_name().unwrap_or_default().to_string_lossy()))
            }
            None => path.clone(),
        };
        let (part, rows) = file_sink::write_folder(log, &*context.env.disk, &topic, &folder, ending)?;
        context.talk(&format!("{rows} rows in {}", part.display()));
    }
    Ok(())
}

/// What happened, on stderr.
pub(super) fn summarise(context: &Context, job: &Job, report: &RunReport) {
    let how = match report.outcome {
        Outcome::Started => "ran",
        Outcome::Resumed => "went on",
        Outcome::AlreadyComplete => "had run to this end already: nothing new was written",
    };
    context.talk(&format!("{}: {how}", job.key()));
    for (index, output) in job.plan.outputs.iter().enumerate() {
        let streams = &report.progress.streams[index * 3..index * 3 + 3];
        let name = job.output_topic(output).unwrap_or_else(|| output.table.clone());
        let mut line = format!("  {name}: {} rows, digest {:016x}", streams[0].rows, streams[0].digest);
        for (stream, progress) in [OutputStream::Late, OutputStream::Rejected].into_iter().zip(&streams[1..]) {
            if progress.rows > 0 {
                let topic = job.stream_topic(output, stream).unwrap_or_else(|| format!("{stream:?}").to_lowercase());
                line.push_str(&format!("; {topic}: {}", progress.rows));
            }
        }
        context.talk(&line);
    }
    let checkpoints = &report.checkpoints;
    if checkpoints.taken > 0 {
        let (mib, ms) = (checkpoints.bytes as f64 / f64::from(1 << 20), |us: u64| us as f64 / 1e3);
        context.talk(&format!(
            "  checkpoints: {}, the newest of {mib:.1} MiB; state was taken in at most {:.1} ms, and written in {:.1} ms beside the job",
            checkpoints.taken,
            ms(checkpoints.pause_us_max),
            ms(checkpoints.write_us_max)
        ));
    }
    if report.spilled_bytes > 0 {
        let mib = report.spilled_bytes as f64 / f64::from(1 << 20);
        context.talk(&format!("  state: {mib:.1} MiB of it went to disk, since there was more than --state-memory"));
    }
    let counters = &report.counters;
    for (count, what) in [
        (counters.partly_late, "of the late records missed some of their windows and counted in the others"),
        (counters.ignored_parse_errors, "records did not decode and were ignored, as the table's options say"),
        (
            counters.beyond_max_future,
            "records were further ahead of their append time than max-future and did not move the watermark",
        ),
    ] {
        if count > 0 {
            context.talk(&format!("  {count} {what}"));
        }
    }
}

/// Rows of one output that is shown on stdout.
struct Shown {
    topic: String,
    reader: Option<Reader>,
    columns: Vec<String>,
    table: Table,
    title: Option<String>,
    rows: u64,
}

impl Shown {
    fn new(job: &Job, output: &OutputPlan, printer: &Printer) -> Option<Self> {
        if output.sink != SinkKind::Print {
            return None;
        }
        let columns: Vec<String> = output.schema.fields().iter().map(|field| field.name().clone()).collect();
        let title = (printer.is_table() && job.plan.outputs.len() > 1).then(|| output.table.clone());
        let topic = job.output_topic(output)?;
        Some(Shown { topic, reader: None, table: printer.open(&columns), columns, title, rows: 0 })
    }

    fn next_rows(&mut self, log: &Log) -> Result<Vec<Vec<Value>>> {
        if self.reader.is_none() {
            self.reader = log.topic(&self.topic).ok().map(|topic| log.reader(&[topic.id()], Position(0)));
        }
        let Some(reader) = &mut self.reader else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        let end = log.durable_end();
        while let Some(batch) = reader.next(end)? {
            for row in (0..batch.len()).filter(|row| batch.values.is_valid(*row)) {
                let value: Value = serde_json::from_slice(batch.values.value(row))
                    .map_err(|e| Error::internal(format!("a row of '{}' is no JSON", self.topic)).with_source(e))?;
                rows.push(
                    self.columns.iter().map(|column| value.get(column).cloned().unwrap_or(Value::Null)).collect(),
                );
            }
        }
        Ok(rows)
    }
}

/// Watches a run: shows its rows and progress, passes Ctrl-C on.
struct Watch<'a> {
    context: &'a Context,
    log: &'a Log,
    stop: &'a StopFlag,
    shown: Vec<Shown>,
    progress: Progress,
    bounded: bool,
    tables: Vec<String>,
    warned: Vec<(usize, u32)>,
    failure: Option<Error>,
}

impl<'a> Watch<'a> {
    fn new(
        context: &'a Context,
        log: &'a Log,
        job: &Job,
        printer: &Printer,
        stop: &'a StopFlag,
        bounded: bool,
    ) -> Self {
        let shown = job.plan.outputs.iter().filter_map(|output| Shown::new(job, output, printer)).collect();
        let total = bounded.then(|| log.durable_end().0);
        let progress = context.progress(&job.key(), total, if bounded { "positions" } else { "rows" });
        let tables = job.plan.sources.iter().map(|source| source.table.clone()).collect();
        Watch { context, log, stop, shown, progress, bounded, tables, warned: Vec::new(), failure: None }
    }

    fn show_rows(&mut self) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        for shown in &mut self.shown {
            let rows = shown.next_rows(self.log)?;
            if rows.is_empty() {
                continue;
            }
            self.progress.suspend(|| {
                if let Some(title) = shown.title.take() {
                    self.context.talk(&format!("-- {title}"));
                }
                shown.rows += rows.len() as u64;
                shown.table.rows(&rows)
            })?;
        }
        Ok(())
    }

    fn show_empty_tables(&mut self) -> Result<()> {
        self.shown.iter_mut().filter(|shown| shown.rows == 0).try_for_each(|shown| shown.table.rows(&[]))
    }
}

impl Observer for Watch<'_> {
    fn on_progress(&mut self, position: Position, _: Option<Position>, counters: &Counters) {
        self.progress.at(if self.bounded { position.0 } else { counters.rows_in });
    }

    fn on_note(&mut self, note: &str) {
        self.progress.note(&format!("note: {note}"));
    }

    fn on_idle(&mut self, engine: &Engine) {
        // A closed stdout must end the run, and only `should_stop` can say so.
        if let Err(e) = self.show_rows() {
            self.failure = Some(e);
        }
        let silent_since = AppendTime(self.log.clock().append_time.0.saturating_sub(SILENCE_US));
        for holding in engine.holding_partitions(silent_since) {
            let partition = (holding.source, holding.partition);
            if !self.warned.contains(&partition) {
                self.warned.push(partition);
                self.progress.note(&format!(
                    "note: partition {} of table {} has been silent for {} s and holds windows back; \
                     'scan.watermark.idle-timeout' lets them close",
                    holding.partition,
                    self.tables[holding.source],
                    SILENCE_US / 1_000_000
                ));
            }
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.is_set() || self.failure.is_some()
    }
}
