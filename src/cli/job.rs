//! `kappa job submit|list|show|pause|resume|stop|delete`.

use super::context::Context;
use super::job_args::Job as Command;
use super::printer::Printer;
use super::{Status, job_name};
use crate::error::{Error, ErrorKind, Result};
use crate::job::registry::{
    self, JobVersion, Registered, Submission, Submitted, VersionState, label, parse_label, version_run,
};
use crate::job::{self, LiveCheck, parse_point, progress};
use crate::log::Log;
use crate::window::IsoMs;
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn run(context: &Context, printer: &Printer, command: Command) -> Result<Status> {
    let log = context.open_log()?;
    match command {
        Command::Submit { file, name, from, restart } => {
            from.as_deref().map(parse_point).transpose()?;
            let submission = Submission { from, restart, ..submission(context, &file, name)? };
            submit(context, &log, submission)?;
        }
        Command::List => list(context, &log, printer)?,
        Command::Show { name } => show(context, &log, printer, &registry::get(&log, &name)?)?,
        Command::Pause { name, version } => turn(context, &log, &name, version.as_deref(), &VersionState::Paused)?,
        Command::Resume { name, version } => turn(context, &log, &name, version.as_deref(), &VersionState::Running)?,
        Command::Stop { name, version } => turn(context, &log, &name, version.as_deref(), &VersionState::Stopped)?,
        Command::Delete { name, version, outputs } => {
            let number = version.as_deref().map(parse_label).transpose()?;
            let topics = registry::delete(&log, &context.functions, &name, number, outputs)?;
            topics.iter().for_each(|topic| context.talk(&format!("topic '{topic}' deleted")));
            let what = number.map_or_else(String::new, |number| format!("{} of ", label(number)));
            context.talk(&format!("{what}job '{name}' deleted"));
        }
    }
    context.close(log)?;
    Ok(Status::Done)
}

/// A file as it is submitted, with a name of its own or that of the file.
pub(super) fn submission(context: &Context, file: &Path, name: Option<String>) -> Result<Submission> {
    Ok(Submission {
        name: name.unwrap_or_else(|| job_name(file)),
        file: file.display().to_string(),
        sql: context.read_sql(file)?,
        ..Submission::default()
    })
}

fn submit(context: &Context, log: &Log, submission: Submission) -> Result<()> {
    let name = submission.name.clone();
    let submitted = registry::submit(log, &context.functions, submission)?;
    let number = submitted.number();
    if let Submitted::Same(number) = submitted {
        context.talk(&format!("job '{name}': {} computes the same; nothing was changed", label(number)));
        return Ok(());
    }
    let registered = registry::get(log, &name)?;
    registered
        .job(number, &context.functions)?
        .plan
        .notes
        .iter()
        .for_each(|note| context.talk(&format!("note: {note}")));
    let version = label(number);
    context.talk(&match (&submitted, registered.live) {
        (Submitted::Adopted(_, run), _) => {
            format!("job '{name}': {version} is new and goes on with what run '{run}' has written; `kappa up` runs it")
        }
        (_, live) if live == number => format!("job '{name}': {version} is new; `kappa up` runs it"),
        (_, live) => format!(
            "job '{name}': {version} is new beside {}, the live one; `kappa up` runs it, into <output>.{version}",
            label(live)
        ),
    });
    Ok(())
}

/// Sets the state of one version, or of all that it can be set for.
fn turn(context: &Context, log: &Log, name: &str, version: Option<&str>, to: &VersionState) -> Result<()> {
    let registered = registry::get(log, name)?;
    for chosen in registered.chosen(version)? {
        let of = format!("job '{name}': {}", chosen.label());
        if chosen.state == VersionState::Complete {
            if version.is_some() {
                return Err(Error::new(ErrorKind::Conflict, format!("{of} has reached its end")));
            }
            continue;
        }
        registry::set_state(log, name, chosen.number, to.clone())?;
        if *to != VersionState::Running {
            rests(context, log, &version_run(name, chosen.number))?;
        }
        context.talk(&format!("{of} is {}", to.name()));
    }
    Ok(())
}

/// Waits until `kappa up` has let go of a run. What another command does with it is that command's.
fn rests(context: &Context, log: &Log, key: &str) -> Result<()> {
    let stop = context.stop_flag()?;
    match log.claim(key, "`kappa job`", || stop.is_set()) {
        Err(e) if e.kind() != ErrorKind::Unavailable => Err(e),
        _ => Ok(()),
    }
}

fn state_of(version: &JobVersion) -> String {
    match &version.state {
        VersionState::Failed(why) => format!("failed: {why}"),
        state => state.name().to_owned(),
    }
}

/// Where a version is: the position that it has come to, and the rows of its outputs.
fn place_of(context: &Context, log: &Log, registered: &Registered, version: &JobVersion) -> Result<(Value, Value)> {
    let Ok(job) = registered.job(version.number, &context.functions) else { return Ok((Value::Null, Value::Null)) };
    Ok(match progress(log, &job.key())? {
        Some(progress) => {
            let rows: u64 = progress.streams.iter().step_by(crate::job::STREAMS.len()).map(|stream| stream.rows).sum();
            (json!(progress.position), json!(rows))
        }
        None => (Value::Null, json!(0)),
    })
}

fn list(context: &Context, log: &Log, printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for registered in registry::all(log)? {
        for version in &registered.versions {
            let (position, emitted) = place_of(context, log, &registered, version)?;
            rows.push(vec![
                json!(registered.name),
                json!(version.label()),
                json!(registered.live == version.number),
                json!(state_of(version)),
                position,
                emitted,
            ]);
        }
    }
    printer.table(&["job", "version", "live", "state", "position", "rows"], &rows)
}

fn show(context: &Context, log: &Log, printer: &Printer, registered: &Registered) -> Result<()> {
    let mut rows = Vec::new();
    for version in &registered.versions {
        let (position, emitted) = place_of(context, log, registered, version)?;
        rows.push(vec![
            json!(version.label()),
            json!(registered.live == version.number),
            json!(state_of(version)),
            json!(version.file),
            json!(format!("{:016x}", version.plan_digest)),
            json!(version.from),
            json!(version.publish_from_ms.map(|ms| IsoMs(ms).to_string())),
            json!(version.to),
            position,
            emitted,
        ]);
    }
    let columns = ["version", "live", "state", "file", "plan", "from", "publishes_from", "to", "position", "rows"];
    printer.table(&columns, &rows)?;
    for check in job::live_checks(log, registered, &context.functions)? {
        let LiveCheck { name, severity, failures, topic } = check;
        let how = if failures == 0 { "passes".to_owned() } else { format!("fails with {failures} rows in '{topic}'") };
        context.talk(&format!("check {name} ({}) on what is live {how}", severity.name()));
    }
    for switch in &registered.switches {
        let cuts: Vec<_> = switch.outputs.iter().filter_map(|output| output.cut_ms).collect();
        let cut = cuts.iter().max().map_or_else(String::new, |cut| format!(", windows that end after {}", IsoMs(*cut)));
        context.talk(&format!("{} became live at position {}{cut}", label(switch.to), switch.position));
    }
    Ok(())
}
