//! `kappa verify`.

use super::Status;
use super::args::Verify;
use super::context::Context;
use super::printer::Printer;
use super::units::format_append_time;
use crate::error::Result;
use crate::job::{
    self, CalledFunction, Difference, SpanCheck, SpanState, StreamName, VerifiedFrom, VerifyReport, VerifyRequest,
};
use chrono::DateTime;
use serde_json::{Value, json};

pub(super) fn run(context: &Context, args: Verify) -> Result<Status> {
    let printer = context.printer(&args.show);
    let log = context.open_log()?;
    let job = context.load_any(&log, &args.file, args.version)?;
    let mut watch = context.recomputing("verifying", &log)?;
    let time = |text: &Option<String>| text.as_deref().map(job::parse_time_ms).transpose();
    let request = VerifyRequest {
        threads: usize::from(args.threads),
        budget: Some(args.memory.budget(context)?),
        from_ms: time(&args.from).map_err(|e| e.context("--from"))?,
        to_ms: time(&args.to).map_err(|e| e.context("--to"))?,
    };
    let report = job::verify(&log, &job, &request, &mut watch)?;
    watch.done()?;
    if args.spans {
        show_spans(&printer, &report)?;
    } else {
        show_outputs(&printer, &report)?;
    }
    if let Some(from) = &report.from {
        context.talk(&from_line(from, &report.streams));
    }
    let status = if report.is_equal() { Status::Done } else { Status::Differs };
    report.streams.iter().zip(&report.gone).filter_map(gone_line).for_each(|line| context.talk(&line));
    for line in report.differences.iter().flat_map(|difference| difference_lines(difference, &report.functions)) {
        context.talk(&line);
    }
    report.functions.iter().filter_map(unstable_line).for_each(|line| context.talk(&line));
    context.close(log)?;
    Ok(status)
}

fn show_outputs(printer: &Printer, report: &VerifyReport) -> Result<()> {
    let from = report.from.as_ref();
    // People are told in a sentence.
    let is_long = !printer.is_table();
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
            let mut row = vec![json!(output), json!(recorded.rows), json!(recomputed.rows)];
            row.extend([json!(digest(recorded.digest)), json!(digest(recomputed.digest)), json!(is_equal)]);
            let place =
                [json!(from.map(|from| from.position.0)), json!(from.map(|from| format_append_time(from.clock)))];
            let unverified = json!(from.map_or(0, |from| from.rows[at]));
            row.extend(place.into_iter().chain([unverified]).filter(|_| is_long));
            row
        })
        .collect();
    let mut columns = vec!["output", "rows", "recomputed_rows", "digest", "recomputed_digest", "equal"];
    columns.extend(["verified_from", "verified_from_time", "unverified_rows"].into_iter().filter(|_| is_long));
    printer.table(&columns, &rows)
}

fn show_spans(printer: &Printer, report: &VerifyReport) -> Result<()> {
    let row = |span: &SpanCheck| {
        let state = match span.state {
            SpanState::Equal => "equal",
            SpanState::Differs => "differs",
            SpanState::NotCompared => "not compared",
        };
        vec![
            json!(span.output),
            json!(span.from + 1),
            json!(span.end.rows),
            json!(span.end.position),
            json!(format!("{:016x}", span.end.digest)),
            json!(state),
        ]
    };
    let rows: Vec<Vec<Value>> = report.spans.iter().map(row).collect();
    printer.table(&["output", "first_row", "last_row", "position", "digest", "state"], &rows)
}

/// From where on the output was verified, and what that leaves out.
fn from_line(from: &VerifiedFrom, streams: &[StreamName]) -> String {
    let VerifiedFrom { topic, complete_from, position, clock, rows } = from;
    let rows = streams.iter().zip(rows).filter(|(_, rows)| **rows > 0);
    let rows: Vec<String> =
        rows.map(|(name, rows)| format!("{rows} of '{}'", name.topic.as_ref().unwrap_or(&name.table))).collect();
    let left_out = match rows.is_empty() {
        true => "no row had been written before".to_owned(),
        false => format!("the rows written before were not: {}", rows.join(", ")),
    };
    format!(
        "records of '{topic}' before position {complete_from} are gone: verified from position {position} ({}) on, with the state of a \
         checkpoint; {left_out}",
        format_append_time(*clock)
    )
}

/// That a topic does not hold all rows any more.
fn gone_line((name, gone): (&StreamName, &u64)) -> Option<String> {
    let topic = name.topic.as_ref().filter(|_| *gone > 0)?;
    Some(format!(
        "the first {gone} rows of '{topic}' are held against digests only: not all of them are in that topic any more"
    ))
}

/// The first difference of an output, and what may be the cause.
fn difference_lines(difference: &Difference, functions: &[CalledFunction]) -> Vec<String> {
    let window = difference
        .window_end_ms
        .and_then(DateTime::from_timestamp_millis)
        .map_or_else(String::new, |end| format!(", window ending at {}", end.format("%Y-%m-%dT%H:%M:%S%.fZ")));
    let key = difference.key.as_ref().map_or_else(String::new, |key| format!(", key {key}"));
    let mut lines = vec![format!(
        "'{}' differs first at row {} (span of rows {} to {}){window}{key}: {}",
        difference.output, difference.row, difference.span.0, difference.span.1, difference.what
    )];
    for (what, value) in [("recorded  ", &difference.recorded), ("recomputed", &difference.recomputed)] {
        lines.push(format!("  {what}: {}", value.as_deref().unwrap_or("(no such row)")));
    }
    let called = functions.iter().filter(|function| function.output == difference.output);
    let called: Vec<_> = called.map(|function| format!("{} (version {})", function.name, function.version)).collect();
    if !called.is_empty() {
        lines.push(format!("  it is computed with the functions {}", called.join(", ")));
    }
    lines
}

/// What a function did that it must not, if it did.
fn unstable_line(function: &CalledFunction) -> Option<String> {
    let CalledFunction { output, name, version, unstable } = function;
    let answers = unstable.as_ref()?;
    Some(format!(
        "function {name} (version {version}) of '{output}' gives different answers to the same input: {answers}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_where_they_may_be_the_cause() {
        let function = |output: &str, name: &str, unstable: Option<&str>| CalledFunction {
            output: output.to_owned(),
            name: name.to_owned(),
            version: "7".to_owned(),
            unstable: unstable.map(str::to_owned),
        };
        let functions =
            [function("a", "F", None), function("a", "G", Some("G(1) gave 2, then 3")), function("b", "H", None)];
        let difference = Difference {
            output: "a".to_owned(),
            row: 5,
            span: (1, 9),
            window_end_ms: Some(60_000),
            key: Some("k".to_owned()),
            what: "value".to_owned(),
            recomputed: Some("2".to_owned()),
            recorded: None,
        };
        assert_eq!(
            difference_lines(&difference, &functions),
            [
                "'a' differs first at row 5 (span of rows 1 to 9), window ending at 1970-01-01T00:01:00Z, key k: value",
                "  recorded  : (no such row)",
                "  recomputed: 2",
                "  it is computed with the functions F (version 7), G (version 7)",
            ]
        );
        assert_eq!(difference_lines(&difference, &functions[2..]).len(), 3);
        let named: Vec<String> = functions.iter().filter_map(unstable_line).collect();
        assert_eq!(
            named,
            ["function G (version 7) of 'a' gives different answers to the same input: G(1) gave 2, then 3"]
        );
    }
}
