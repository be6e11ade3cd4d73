//! `kappa verify`.

use super::args::{Common, Verify};
use super::printer::Printer;
use super::progress::Progress;
use super::{Status, load_job, open_log, talk};
use crate::engine::Counters;
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::Result;
use crate::job::{self, CalledFunction, Difference, Observer};
use crate::types::Position;
use chrono::DateTime;
use serde_json::{Value, json};

struct Watch(Progress);

impl Observer for Watch {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.0.at(position.0);
    }
}

pub(super) fn run(env: &Env, common: &Common, functions: &FunctionRegistry, args: Verify) -> Result<Status> {
    let job = load_job(env, functions, &args.file, args.version)?;
    let printer = Printer::new(&args.show);
    let log = open_log(env, common)?;
    let mut watch = Watch(Progress::new("verifying", Some(log.durable_end().0), "positions"));
    let report = job::verify(&log, &job, usize::from(args.threads), &mut watch)?;
    drop(watch);
    let rows: Vec<Vec<Value>> = report
        .streams
        .iter()
        .enumerate()
        .filter(|(at, _)| at % job::STREAMS.len() == 0 || report.progress.streams[*at].rows > 0)
        .map(|(at, name)| {
            let (recorded, recomputed) = (report.progress.streams[at], report.recomputed[at]);
            let output = name.topic.as_ref().unwrap_or(&name.table);
            let digest = |digest: u64| format!("{digest:016x}");
            let is_equal = !report.differences.iter().any(|difference| difference.output == *output);
            json!([
                output,
                recorded.rows,
                recomputed.rows,
                digest(recorded.digest),
                digest(recomputed.digest),
                is_equal
            ])
        })
        .filter_map(|row| match row {
            Value::Array(cells) => Some(cells),
            _ => None,
        })
        .collect();
    printer.table(&["output", "rows", "recomputed_rows", "digest", "recomputed_digest", "equal"], &rows)?;
    let status = if report.is_equal() { Status::Done } else { Status::Differs };
    report.differences.iter().for_each(|difference| show(difference, &report.functions));
    for function in &report.functions {
        if let Some(answers) = &function.unstable {
            let CalledFunction { output, name, version, .. } = function;
            talk(&format!(
                "function {name} (version {version}) of '{output}' gives different answers to the same input: {answers}"
            ));
        }
    }
    log.close()?;
    Ok(status)
}

/// The first difference of an output, on stderr.
fn show(difference: &Difference, functions: &[CalledFunction]) {
    let window = difference
        .window_end_ms
        .and_then(DateTime::from_timestamp_millis)
        .map_or_else(String::new, |end| format!(", window ending at {}", end.format("%Y-%m-%dT%H:%M:%S%.fZ")));
    let key = difference.key.as_ref().map_or_else(String::new, |key| format!(", key {key}"));
    talk(&format!("'{}' differs first at row {}{window}{key}: {}", difference.output, difference.row, difference.what));
    for (what, value) in [("recorded  ", &difference.recorded), ("recomputed", &difference.recomputed)] {
        talk(&format!("  {what}: {}", value.as_deref().unwrap_or("(no such row)")));
    }
    let called = functions.iter().filter(|function| function.output == difference.output);
    let called: Vec<_> = called.map(|function| format!("{} (version {})", function.name, function.version)).collect();
    if !called.is_empty() {
        talk(&format!("  it is computed with the functions {}", called.join(", ")));
    }
}
