//! `kappa savepoint create|list|inspect|restore|export`.

use super::Status;
use super::args::Savepoint as Command;
use super::context::{Context, Loaded};
use super::printer::Printer;
use super::units::format_append_time;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::job::savepoint::{self, Savepoint};
use crate::log::Log;
use crate::types::{AppendTime, Position};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(super) fn run(context: &Context, printer: &Printer, command: Command) -> Result<Status> {
    let log = context.open_log()?;
    match command {
        Command::Create { file, version, to } => {
            let Loaded { job, sql, .. } = context.load_any_with_sql(&log, &file, version)?;
            let (dir, savepoint) = savepoint::create(&log, &job, &sql, to.map(|to| context.path(&to)).as_deref())?;
            context.talk(&format!("{}: '{}' at position {}", dir.display(), savepoint.job, savepoint.position));
        }
        Command::List => list(&log, printer)?,
        Command::Inspect { savepoint, section: None } => {
            inspect(context, &savepoint::inspect(log.env(), &folder(context, &log, &savepoint)?)?, printer)?;
        }
        Command::Inspect { savepoint, section: Some(name) } => {
            rows(log.env(), &folder(context, &log, &savepoint)?, &name, printer)?
        }
        Command::Restore { savepoint, file, version, at } => {
            let job = context.load_job(&file, version)?;
            let (restored, notes) =
                savepoint::restore(&log, &job, &folder(context, &log, &savepoint)?, at.map(Position))?;
            notes.iter().for_each(|note| context.talk(&format!("note: {note}")));
            let position = at.unwrap_or(restored.position);
            context.talk(&format!(
                "'{}' begins from the state of '{}' at position {position}",
                job.key(),
                restored.job
            ));
        }
        Command::Export { savepoint, to } => {
            savepoint::export(log.env(), &folder(context, &log, &savepoint)?, &context.path(&to))?;
            context.talk(&format!("{} was written", to.display()));
        }
    }
    context.close(log)?;
    Ok(Status::Done)
}

/// The folder of a savepoint: a path, or a name in the data folder.
fn folder(context: &Context, log: &Log, given: &Path) -> Result<PathBuf> {
    let named = given.to_str().filter(|_| given.components().count() == 1).map(|name| savepoint::folder_of(log, name));
    let candidates = named.into_iter().chain([context.path(given)]);
    let found = candidates.into_iter().find(|dir| log.env().disk.exists(dir).unwrap_or(false));
    found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no savepoint {}", given.display()))
            .with_hint("`kappa savepoint list` shows those of the data folder; others are named by their folder")
    })
}

fn clock(savepoint: &Savepoint) -> String {
    format_append_time(AppendTime(savepoint.clock_us))
}

fn list(log: &Log, printer: &Printer) -> Result<()> {
    let rows = savepoint::list(log)?.into_iter().map(|(name, savepoint)| {
        let bytes: u64 = savepoint.sections.iter().map(|section| section.bytes).sum();
        vec![json!(name), json!(savepoint.job), json!(savepoint.position), json!(clock(&savepoint)), json!(bytes)]
    });
    printer.table(&["savepoint", "job", "position", "clock", "bytes"], &rows.collect::<Vec<_>>())
}

fn inspect(context: &Context, savepoint: &Savepoint, printer: &Printer) -> Result<()> {
    context.talk(&format!("job '{}', plan {}, Kappa {}", savepoint.job, savepoint.plan_digest, savepoint.kappa));
    context.talk(&format!("position {}, clock {}", savepoint.position, clock(savepoint)));
    for output in savepoint.outputs.iter().filter(|output| output.rows > 0) {
        context.talk(&format!("  {}: {} rows, digest {}", output.topic, output.rows, output.digest));
    }
    let rows = savepoint
        .sections
        .iter()
        .map(|section| vec![json!(section.name), json!(section.rows), json!(section.bytes), json!(section.file)]);
    printer.table(&["section", "rows", "bytes", "file"], &rows.collect::<Vec<_>>())
}

/// The rows of one table.
fn rows(env: &Env, dir: &Path, name: &str, printer: &Printer) -> Result<()> {
    let (_, state) = savepoint::load(env, dir)?;
    let section = state.sections.iter().find(|section| section.name == name);
    let section = section.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("the savepoint has no section {name}"))
            .with_hint("`kappa savepoint inspect` lists them")
    })?;
    let columns: Vec<&str> = section.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut table = printer.open(&columns);
    let options = FormatOptions::new().with_null("NULL");
    section.each(&mut |piece| {
        let shown = piece.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let shown = shown.collect::<std::result::Result<Vec<_>, _>>();
        let shown = shown.map_err(|e| Error::internal(format!("section {name} cannot be shown")).with_source(e))?;
        let row = |row: usize| shown.iter().map(|column| json!(column.value(row).to_string())).collect::<Vec<Value>>();
        table.rows(&(0..piece.num_rows()).map(row).collect::<Vec<_>>())
    })
}
