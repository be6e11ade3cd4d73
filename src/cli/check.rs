//! `kappa check`: the checks of a job's file over what it has read and written.

use super::args::Check;
use super::context::Context;
use super::{Status, is_name};
use crate::error::{Error, Result};
use crate::job::{self, Job, Silent, registry};
use crate::log::Log;
use crate::sql;
use serde_json::{Value, json};

pub(super) fn run(context: &Context, args: Check) -> Result<Status> {
    let log = context.open_log()?;
    let (job, shown, text) = load(context, &log, &args)?;
    let checks = sql::checks_with(&shown, &text, &context.functions)?;
    if checks.is_empty() {
        return Err(Error::input(format!("{shown}: there is no check"))
            .with_hint("CREATE CHECK name AS SELECT ...: the rows of the query are failures"));
    }
    let printer = context.printer(&args.show);
    let results = job::checks(&log, &job, &checks, args.sample, &mut Silent)?;
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for result in &results {
        let verdict = if result.failures == 0 { "passed" } else { "failed" };
        context.talk(&format!("{} ({}): {verdict}, {} rows", result.name, result.severity.name(), result.failures));
        let failing = result.sample.iter();
        rows.extend(failing.map(|row| vec![json!(result.name), json!(result.severity.name()), json!(row)]));
    }
    printer.table(&["check", "severity", "row"], &rows)?;
    context.close(log)?;
    Ok(if results.iter().any(job::CheckResult::blocks) { Status::Differs } else { Status::Done })
}

/// The job, and the name and text of its file.
fn load(context: &Context, log: &Log, args: &Check) -> Result<(Job, String, String)> {
    let name = args.file.to_string_lossy();
    let Some(registered) = registry::find(log, &name)?.filter(|_| is_name(&args.file)) else {
        let job = context.load_job(&args.file, args.version.clone())?;
        return Ok((job, args.file.display().to_string(), context.read_sql(&args.file)?));
    };
    let number = args.version.as_deref().map_or(Ok(registered.live), registry::parse_label)?;
    let job = registered.job(number, &context.functions)?;
    let version = registered.versions.iter().find(|version| version.number == number);
    let (file, text) = version.map(|version| (version.file.clone(), version.sql.clone())).unwrap_or_default();
    // The live version writes the outputs' own names.
    let version = job.version.clone().filter(|_| number != registered.live);
    Ok((Job { version, ..job }, file, text))
}
