//! `kappa check`: the checks of a job's file over what it has read and written.

use super::args::{Check, Common};
use super::printer::Printer;
use super::{Status, is_name, load_job, open_log, read_sql, talk};
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::job::{self, Job, Silent, registry};
use crate::log::Log;
use crate::sql;
use serde_json::{Value, json};

pub(super) fn run(env: &Env, common: &Common, functions: &FunctionRegistry, args: Check) -> Result<Status> {
    let log = open_log(env, common)?;
    let (job, shown, text) = load(env, &log, functions, &args)?;
    let checks = sql::checks_with(&shown, &text, functions)?;
    if checks.is_empty() {
        return Err(Error::input(format!("{shown}: there is no check"))
            .with_hint("CREATE CHECK name AS SELECT ...: the rows of the query are failures"));
    }
    let printer = Printer::new(&args.show);
    let results = job::checks(&log, &job, &checks, args.sample, &mut Silent)?;
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for result in &results {
        let verdict = if result.failures == 0 { "passed" } else { "failed" };
        talk(&format!("{} ({}): {verdict}, {} rows", result.name, result.severity.name(), result.failures));
        let failing = result.sample.iter();
        rows.extend(failing.map(|row| vec![json!(result.name), json!(result.severity.name()), json!(row)]));
    }
    printer.table(&["check", "severity", "row"], &rows)?;
    log.close()?;
    Ok(if results.iter().any(job::CheckResult::blocks) { Status::Differs } else { Status::Done })
}

/// The job, and the name and text of its file.
fn load(env: &Env, log: &Log, functions: &FunctionRegistry, args: &Check) -> Result<(Job, String, String)> {
    let name = args.file.to_string_lossy();
    let Some(registered) = registry::find(log, &name)?.filter(|_| is_name(&args.file)) else {
        let job = load_job(env, functions, &args.file, args.version.clone())?;
        return Ok((job, args.file.display().to_string(), read_sql(env, &args.file)?));
    };
    let number = args.version.as_deref().map_or(Ok(registered.live), registry::parse_label)?;
    let job = registered.job(number, functions)?;
    let version = registered.versions.iter().find(|version| version.number == number);
    let (file, text) = version.map(|version| (version.file.clone(), version.sql.clone())).unwrap_or_default();
    // The live version writes the outputs' own names.
    let version = job.version.clone().filter(|_| number != registered.live);
    Ok((Job { version, ..job }, file, text))
}
