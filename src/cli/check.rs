//! `kappa check`: the checks of a job's file over what it has read and written.

use super::Status;
use super::args::Check;
use super::context::{Context, Loaded};
use crate::error::{Error, Result};
use crate::{job, sql};
use serde_json::{Value, json};

pub(super) fn run(context: &Context, args: Check) -> Result<Status> {
    let log = context.open_log()?;
    let Loaded { job, file, sql, is_live } = context.load_any_with_sql(&log, &args.file, args.version)?;
    // The live version writes the outputs' own names.
    let job = if is_live { job.base() } else { job };
    let checks = sql::checks_with(&file, &sql, &context.functions)?;
    if checks.is_empty() {
        return Err(Error::input(format!("{file}: there is no check"))
            .with_hint("CREATE CHECK name AS SELECT ...: the rows of the query are failures"));
    }
    let printer = context.printer(&args.show);
    let mut watch = context.recomputing("checking", &log)?;
    let results = job::checks(&log, &job, &checks, args.sample, &mut watch)?;
    watch.done()?;
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
