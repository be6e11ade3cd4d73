//! `kappa replay`: of a file into outputs of another name, of a submitted job into a new version.

use super::context::Context;
use super::job::submission;
use super::job_args::Replay;
use super::run::{engine_request, replay_file, summarise};
use super::{Status, is_name};
use crate::connect::interrupt::StopFlag;
use crate::engine::{Counters, Engine};
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::job::registry::{self, Registered, Submission, VersionState, label, parse_label, version_run};
use crate::job::{self, Observer, Point, Request, parse_point};
use crate::log::{Claim, Log};
use crate::types::Position;
use crate::window::IsoMs;

/// Between two lines of progress, in microseconds.
const TELL_US: u64 = 1_000_000;

pub(super) fn run(context: &Context, args: Replay) -> Result<Status> {
    let publish_from_ms = match parse_point(&args.from)? {
        Point::TimeMs(ms) => Some(ms),
        Point::Earliest => None,
        _ => {
            return Err(Error::input(format!("--from {}: a replay publishes windows from a time on", args.from))
                .with_hint("use a date, a time, ms since the epoch, or earliest"));
        }
    };
    args.to.as_deref().map(parse_point).transpose()?;
    let engine = Request { publish_from_ms, ..engine_request(context, &args.engine)? };
    let file = match (is_name(&args.file), &args.version) {
        (true, _) if args.restart => {
            return Err(Error::input("--restart is for files: a replay of a submitted job is a version of its own")
                .with_hint("`kappa job delete NAME --version vN --outputs` removes one"));
        }
        (true, _) => None,
        (false, None) => {
            return Err(Error::input("--as NAME is needed: the outputs of a file are written by its own run"));
        }
        (false, Some(_)) if args.sql.is_some() || args.max_rate.is_some() => {
            return Err(Error::input("--sql and --max-rate are for submitted jobs"));
        }
        (false, version) => Some(context.load_job(&args.file, version.clone())?),
    };
    // Before the log is opened: from then on Ctrl-C must end the run well.
    let stop = context.stop_flag()?;
    let log = context.open_log()?;
    let host = context.host(&log, engine.budget.clone());
    let status = match file {
        Some(job) => replay_file(context, &log, &job, &args, engine, &stop)?,
        None => replay_job(context, &log, &args, engine, &stop)?,
    };
    drop(host);
    context.close(log)?;
    Ok(status)
}

/// The version that is asked for, a new one or one that a replay has begun, and the claim on it.
fn version(context: &Context, log: &Log, args: &Replay, publish_from_ms: Option<i64>) -> Result<(u32, Claim)> {
    let name = args.file.to_string_lossy().into_owned();
    let registered = registry::get(log, &name)?;
    let claim = |number| log.claim(&version_run(&registered.name, number), "`kappa replay`", || false);
    let next = registered.next_number();
    match args.version.as_deref().map(parse_label).transpose()? {
        Some(number) if number < next => {
            check_begun(&registered, number, args, publish_from_ms)?;
            return Ok((number, claim(number)?));
        }
        Some(number) if number > next => {
            let message = format!("job '{name}' has no version {} yet", label(number));
            return Err(Error::input(message).with_hint(format!("the next one is {}", label(next))));
        }
        _ => {}
    }
    let live = registered.version(registered.live)?;
    let base = match &args.sql {
        Some(file) => submission(context, file, Some(name))?,
        None => Submission { name, file: live.file.clone(), sql: live.sql.clone(), ..Submission::default() },
    };
    let from = registered.replay_from(log)?;
    let (to, rate_max) = (args.to.clone(), args.max_rate);
    let submission = Submission { from, to, publish_from_ms, rate_max, is_again: true, ..base };
    // Claimed before it is there: else `kappa up` would begin with it.
    let claimed = claim(next)?;
    match registry::submit(log, &context.functions, submission)?.number() {
        number if number == next => Ok((number, claimed)),
        number => Ok((number, claim(number)?)),
    }
}

/// Whether a version that is there already is what is asked for.
fn check_begun(registered: &Registered, number: u32, args: &Replay, publish_from_ms: Option<i64>) -> Result<()> {
    let version = registered.version(number)?;
    let is_same = version.publish_from_ms == publish_from_ms && version.to == args.to && args.sql.is_none();
    if is_same && number != registered.live {
        return Ok(());
    }
    let message = format!("job '{}' has another {} already", registered.name, label(number));
    Err(Error::new(ErrorKind::Conflict, message)
        .with_hint("leave --as out for a new version; to go on with one, repeat its --from and --to, without --sql"))
}

fn replay_job(context: &Context, log: &Log, args: &Replay, engine: Request, stop: &StopFlag) -> Result<Status> {
    let (number, claim) = version(context, log, args, engine.publish_from_ms)?;
    let registered = registry::get(log, &args.file.to_string_lossy())?;
    let (name, version) = (&registered.name, registered.version(number)?);
    if version.state != VersionState::Running {
        registry::set_state(log, name, number, VersionState::Running)?;
    }
    let job = registered.job(number, &context.functions)?;
    job.plan.notes.iter().for_each(|note| context.talk(&format!("note: {note}")));
    let asked = job::request_of(log, &job, version)?;
    let now = log.clock();
    let request = Request {
        to: asked.to.or(Some(Point::Reading(now.position, now.append_time))),
        bounded: true,
        threads: engine.threads,
        strict: engine.strict,
        accept_loss: engine.accept_loss,
        checkpoints: engine.checkpoints,
        budget: engine.budget,
        rate_max: args.max_rate.or(asked.rate_max),
        checkpoint_of: Some(version_run(name, registered.live)),
        ..asked
    };
    let mut watch = Watch::new(context, log, format!("{name} {}", label(number)), stop);
    // Live appends and jobs go first.
    thread::enter(Class::Bulk);
    let report = job::run_claimed(log, &job, &request, &claim, &mut watch)?;
    summarise(context, &job, &report);
    let what = format!("{name} {}", label(number));
    context.talk(&match (report.progress.is_final, request.flush) {
        (true, true) => {
            registry::set_state(log, name, number, VersionState::Complete)?;
            format!("{what} is complete")
        }
        (true, false) => format!("{what} has caught up; `kappa up` follows the log with it"),
        // Whoever stops it does not want the process that has the log to go on with it at once.
        (false, _) if context.owned.is_some() => {
            registry::set_state(log, name, number, VersionState::Paused)?;
            format!("{what} was interrupted and is paused; `kappa job resume` or the same with --as goes on")
        }
        (false, _) => format!("{what} was interrupted; `kappa up` or the same with --as goes on"),
    });
    Ok(Status::Done)
}

/// Tells how a replay gets on.
struct Watch<'a> {
    context: &'a Context,
    log: &'a Log,
    what: String,
    stop: &'a StopFlag,
    start_us: u64,
    told_us: u64,
    /// Position, end and rows after the last stride.
    at: (u64, u64, u64),
    /// Position after the first stride.
    first: Option<u64>,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context, log: &'a Log, what: String, stop: &'a StopFlag) -> Self {
        let start_us = log.env().clock.monotonic_us();
        Watch { context, log, what, stop, start_us, told_us: start_us, at: (0, 0, 0), first: None }
    }
}

/// What is known of a replay after so many seconds, in one line.
fn progress_line(what: &str, (rows, seconds): (u64, f64), done_of: (u64, u64), event_ms: Option<i64>) -> String {
    let seconds = seconds.max(1e-3);
    let rate = rows as f64 / seconds;
    let (done, all) = done_of;
    let left = if done == 0 { f64::NAN } else { seconds * all.saturating_sub(done) as f64 / done as f64 };
    let left = if left.is_finite() { format!(", {left:.0} s left") } else { String::new() };
    let event = event_ms.map_or_else(String::new, |ms| format!(", at {} of event time", IsoMs(ms)));
    format!("{what}: {rows} events, {rate:.0} events/s{event}{left}")
}

impl Observer for Watch<'_> {
    fn on_progress(&mut self, position: Position, end: Option<Position>, counters: &Counters) {
        self.at = (position.0, end.map_or(position.0, |end| end.0), counters.rows_in);
    }

    fn on_stride(&mut self, engine: &Engine) {
        let now_us = self.log.env().clock.monotonic_us();
        let (position, end, rows) = self.at;
        let first = *self.first.get_or_insert(position);
        if now_us - self.told_us >= TELL_US {
            self.told_us = now_us;
            let seconds = (now_us - self.start_us) as f64 / 1e6;
            let done_of = (position - first, end.saturating_sub(first));
            self.context.talk(&progress_line(&self.what, (rows, seconds), done_of, engine.watermark(0)));
        }
    }

    fn on_note(&mut self, note: &str) {
        self.context.talk(&format!("note: {note}"));
    }

    fn should_stop(&self) -> bool {
        self.stop.is_set()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_events_rate_event_time_and_time_left() {
        let line = progress_line("visits v2", (5_000, 2.0), (250, 1_000), Some(0));
        assert_eq!(line, "visits v2: 5000 events, 2500 events/s, at 1970-01-01T00:00:00.000Z of event time, 6 s left");
        assert_eq!(progress_line("v", (0, 0.0), (0, 10), None), "v: 0 events, 0 events/s");
    }
}
