//! `kappa explain`: the records that made a number, what brought it out, and what came too late for it.

use super::Status;
use super::args::Explain;
use super::context::Context;
use super::units::format_append_time;
use crate::error::Result;
use crate::job::{self, Event, Explained, Happened, Question, parse_time_ms};
use crate::window::{IsoMs, Window};
use serde_json::{Value, json};

/// Windows of one row of a table, at most.
const WINDOWS_SHOWN: usize = 4;

pub(super) fn run(context: &Context, args: Explain) -> Result<Status> {
    let question = Question {
        output: args.output,
        window_start_ms: parse_time_ms(&args.window).map_err(|e| e.context("--window"))?,
        window_end_ms: args
            .window_end
            .as_deref()
            .map(parse_time_ms)
            .transpose()
            .map_err(|e| e.context("--window-end"))?,
        key: args.key,
        threads: usize::from(args.threads),
        accept_loss: args.accept_loss,
    };
    let printer = context.printer(&args.show);
    let log = context.open_log()?;
    let job = context.load_any(&log, &args.file, args.version)?;
    let mut watch = context.recomputing("recomputing", &log)?;
    let explained = job::explain(&log, &job, &question, &mut watch)?;
    watch.done()?;
    if printer.is_table() {
        for window in &explained {
            context.talk(&summary(window));
            let columns =
                ["event", "append_time", "partition", "offset", "position", "rowtime", "watermark", "what", "row"];
            printer.table(&columns, &window.events.iter().map(|event| short(event, args.rows)).collect::<Vec<_>>())?;
        }
    } else {
        let mut columns = vec!["output", "window_start", "window_end", "key", "event", "append_time", "topic"];
        columns.extend(["partition", "offset", "position", "rowtime", "watermark", "revision", "pane", "op", "reason"]);
        columns.extend(["value", "windows"].into_iter().chain(args.rows.then_some("row")));
        let rows = explained.iter().flat_map(|window| window.events.iter().map(|event| long(window, event, args.rows)));
        printer.table(&columns, &rows.collect::<Vec<_>>())?;
    }
    context.close(log)?;
    Ok(Status::Done)
}

fn time(ms: i64) -> String {
    IsoMs(ms).to_string()
}

/// What happened to a window, in one or two lines.
fn summary(window: &Explained) -> String {
    let count = |wanted: fn(&Happened) -> bool| window.events.iter().filter(|event| wanted(&event.what)).count();
    let records = count(|what| matches!(what, Happened::Record(_)));
    let results = count(|what| matches!(what, Happened::Result(_)));
    let late = count(|what| matches!(what, Happened::Late(_)));
    let mut text = format!(
        "-- {} {} {}: {records} records, {results} results, {late} too late",
        window.output, window.window, window.group
    );
    let state = window.events.iter().find_map(|event| match event.what {
        Happened::State(position) => Some(position),
        _ => None,
    });
    if let Some(position) = state {
        text.push_str(&format!(
            "; it began with the state of a savepoint at position {position}, whose records are not named"
        ));
    }
    if window.is_open {
        text.push_str("; it is still open, the last result is what it holds so far");
    }
    text
}

fn name(event: &Event) -> &'static str {
    match event.what {
        Happened::State(_) => "state",
        Happened::Record(_) => "record",
        Happened::Late(_) => "late",
        Happened::Result(_) => "result",
    }
}

/// Append time, topic, partition, offset, position, rowtime, watermark.
fn place(event: &Event) -> [Value; 7] {
    let record = event.record.as_ref();
    let position = match event.what {
        Happened::State(position) => Some(position),
        _ => record.map(|record| record.position),
    };
    [
        json!(event.at.map(format_append_time)),
        json!(record.map(|record| &record.topic)),
        json!(record.map(|record| record.partition.0)),
        json!(record.map(|record| record.offset.0)),
        json!(position.map(|position| position.0)),
        json!(record.and_then(|record| record.seen.as_ref()).and_then(|seen| seen.rowtime_ms).map(time)),
        json!(event.watermark_ms.map(time)),
    ]
}

fn windows(what: &Happened) -> Vec<String> {
    match what {
        Happened::Record(inner) => inner.iter().map(Window::to_string).collect(),
        Happened::Late(missed) => missed.iter().map(Window::to_string).collect(),
        Happened::Result(_) | Happened::State(_) => Vec::new(),
    }
}

fn decoded(event: &Event) -> Value {
    json!(event.record.as_ref().and_then(|record| record.seen.as_ref()).map(|seen| &seen.row))
}

fn value(event: &Event) -> Value {
    let Happened::Result(result) = &event.what else { return Value::Null };
    let value = result.record.as_ref().and_then(|(_, value)| value.as_deref());
    json!(value.map(String::from_utf8_lossy))
}

/// A row of the table for people.
fn short(event: &Event, rows: bool) -> Vec<Value> {
    let what = match &event.what {
        Happened::State(_) => "at the start, from a savepoint: the records before this position".to_owned(),
        Happened::Record(None) => String::new(),
        Happened::Record(Some(inner)) => format!("by way of {inner}"),
        Happened::Late(missed) => {
            let more = if missed.len() > WINDOWS_SHOWN { ", ..." } else { "" };
            let shown: Vec<String> = missed.iter().take(WINDOWS_SHOWN).map(Window::to_string).collect();
            format!("missed {}{more}", shown.join(", "))
        }
        Happened::Result(result) => {
            let by = match (&event.record, event.at) {
                (Some(_), _) => "by this record",
                (None, Some(_)) => "by the clock",
                (None, None) => "at the end",
            };
            let published = if result.record.is_some() { "" } else { ", not published" };
            format!("{} {} {}, {by}{published}", result.pane, result.op, result.revision)
        }
    };
    let row = match event.what {
        Happened::Result(_) => value(event),
        Happened::Record(_) | Happened::Late(_) if rows => decoded(event),
        Happened::Record(_) | Happened::Late(_) | Happened::State(_) => Value::Null,
    };
    let [at, _, partition, offset, position, rowtime, watermark] = place(event);
    vec![json!(name(event)), at, partition, offset, position, rowtime, watermark, json!(what), row]
}

/// A row of everything there is, for programs.
fn long(window: &Explained, event: &Event, rows: bool) -> Vec<Value> {
    let mut row = vec![
        json!(window.output),
        json!(time(window.window.start)),
        json!(time(window.window.end)),
        json!(window.group),
        json!(name(event)),
    ];
    row.extend(place(event));
    match &event.what {
        Happened::Result(result) => row.extend([
            json!(result.revision),
            json!(result.pane),
            json!(result.op),
            json!(result.reason),
            value(event),
        ]),
        Happened::Record(_) | Happened::Late(_) | Happened::State(_) => row.extend([const { Value::Null }; 5]),
    }
    row.push(json!(windows(&event.what)));
    row.extend(rows.then(|| decoded(event)));
    row
}
