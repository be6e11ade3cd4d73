//! `kappa diff`: two versions of a job's outputs, or two topics.

use super::Status;
use super::args::Diff;
use super::context::Context;
use super::printer::Printer;
use crate::error::{Error, Result};
use crate::job::{self, Counts, DiffReport, DiffRequest, RowDiff};
use crate::window::IsoMs;
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn run(context: &Context, args: Diff) -> Result<Status> {
    let printer = context.printer(&args.show);
    let window_start_ms = args.window.as_deref().map(job::parse_time_ms).transpose();
    let window_start_ms = window_start_ms.map_err(|e| e.context("--window"))?;
    let log = context.open_log()?;
    let pairs: Vec<(String, String)> = match &args.what[..] {
        [a, b] => vec![(a.clone(), b.clone())],
        [name, a, b] => {
            let of = |version: &String| {
                let version = Some(version.as_str()).filter(|version| *version != "-");
                job::version_outputs(&log, job_name(name), version)
            };
            let (a, b) = (of(a)?, of(b)?);
            if a.len() != b.len() {
                return Err(Error::input(format!("the versions have {} and {} outputs", a.len(), b.len()))
                    .with_hint("compare topic by topic: kappa diff TOPIC_A TOPIC_B"));
            }
            a.into_iter().zip(b).collect()
        }
        _ => return Err(Error::input("name two topics, or a job and two of its versions")),
    };
    let watch = context.recomputing("comparing", &log)?;
    let mut is_same = true;
    for (a, b) in pairs {
        let (key, sample) = (args.key.clone(), args.sample);
        let request = DiffRequest { window_start_ms, key, sample, ..DiffRequest::new(&a, &b) };
        let report = job::diff(&log, &request, &watch)?;
        is_same &= report.is_same();
        if printer.is_json() {
            context.show_json(&as_json(&report))?;
        } else {
            show(context, &printer, &report)?;
        }
    }
    context.close(log)?;
    Ok(if is_same { Status::Done } else { Status::Differs })
}

/// The name of a job: its file's without folder and ending.
fn job_name(text: &str) -> &str {
    let is_file = text.ends_with(".sql") || text.contains('/');
    let stem = Path::new(text).file_stem().and_then(|stem| stem.to_str());
    stem.filter(|_| is_file).unwrap_or(text)
}

fn end_text(end_ms: Option<i64>) -> Value {
    json!(end_ms.map(|end| IsoMs(end).to_string()))
}

fn counts(counts: &Counts) -> Value {
    json!({"added": counts.added, "removed": counts.removed, "changed": counts.changed})
}

fn as_json(report: &DiffReport) -> Value {
    let columns = report
        .columns
        .iter()
        .map(|column| json!({"column": column.name, "changed": column.changed, "sum": column.sum, "max": column.max}));
    let windows = report.windows.iter().map(|(end, of_window)| {
        let mut window = counts(of_window);
        window["window_end"] = end_text(*end);
        window
    });
    let sample = report.sample.iter().map(|row| {
        json!({
            "change": row.change.name(),
            "window_end": end_text(row.window_end_ms),
            "key": row.key,
            "a": row.a,
            "b": row.b,
            "columns": row.columns,
            "why": row.why.name(),
        })
    });
    let why = report.why.iter().map(|(why, rows)| (why.name().to_owned(), json!(rows)));
    json!({
        "a": report.a,
        "b": report.b,
        "rows_a": report.rows_a,
        "rows_b": report.rows_b,
        "same": report.same,
        "total": counts(&report.total),
        "columns": columns.collect::<Vec<_>>(),
        "only_a": report.only_a,
        "only_b": report.only_b,
        "why": why.collect::<serde_json::Map<_, _>>(),
        "windows": windows.collect::<Vec<_>>(),
        "sample": sample.collect::<Vec<_>>(),
    })
}

/// The rows that differ on stdout, all else beside them.
fn show(context: &Context, printer: &Printer, report: &DiffReport) -> Result<()> {
    let DiffReport { a, b, total, .. } = report;
    context.talk(&format!(
        "-- {a} ({} rows) and {b} ({} rows): {} same, {} added, {} removed, {} changed, in {} windows",
        report.rows_a,
        report.rows_b,
        report.same,
        total.added,
        total.removed,
        total.changed,
        report.windows.len()
    ));
    for (names, side) in [(&report.only_a, a), (&report.only_b, b)] {
        if !names.is_empty() {
            context.talk(&format!("   only '{side}' has the columns {}", names.join(", ")));
        }
    }
    for column in report.columns.iter().filter(|column| column.changed > 0) {
        let numbers = column
            .sum
            .zip(column.max)
            .map_or_else(String::new, |(sum, max)| format!(": by {sum} in all, by {max} at most"));
        context.talk(&format!("   {} changed in {} rows{numbers}", column.name, column.changed));
    }
    let why: Vec<String> = report.why.iter().map(|(why, rows)| format!("{} {rows}", why.name())).collect();
    if !why.is_empty() {
        context.talk(&format!("   because of: {}", why.join(", ")));
    }
    let rows: Vec<Vec<Value>> = report.sample.iter().map(row).collect();
    printer.table(&["change", "window_end", "key", "a", "b", "columns", "why"], &rows)
}

fn row(row: &RowDiff) -> Vec<Value> {
    vec![
        json!(row.change.name()),
        end_text(row.window_end_ms),
        json!(row.key),
        json!(row.a),
        json!(row.b),
        json!(row.columns.join(",")),
        json!(row.why.name()),
    ]
}
