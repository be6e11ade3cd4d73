//! `kappa check`: the checks of a job's file over what it has read and written.

use super::args::{Check, Common};
use super::printer::Printer;
use super::{Status, load_job, open_log, read_sql, talk};
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::job::{self, Silent};
use crate::sql;
use serde_json::{Value, json};

pub(super) fn run(env: &Env, common: &Common, functions: &FunctionRegistry, args: Check) -> Result<Status> {
    let job = load_job(env, functions, &args.file, args.version)?;
    let shown = args.file.display().to_string();
    let checks = sql::checks_with(&shown, &read_sql(env, &args.file)?, functions)?;
    if checks.is_empty() {
        return Err(Error::input(format!("{shown}: there is no check"))
            .with_hint("CREATE CHECK name AS SELECT ...: the rows of the query are failures"));
    }
    let printer = Printer::new(&args.show);
    let log = open_log(env, common)?;
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
