//! `kappa inspect`: the journal as it lies on disk, without opening it.

use super::Status;
use super::args::Inspect;
use super::context::Context;
use super::printer::Printer;
use crate::error::{Error, Result};
use crate::log::inspect::{FileSummary, FooterState, FrameSummary, Inspection, inspect, verify};
use serde_json::{Value, json};

/// [`Inspection::severity`] of a torn tail and of damage.
const TORN: u8 = 1;

pub(super) fn run(context: &Context, args: Inspect) -> Result<Status> {
    let seen = if args.verify { verify(&context.env, &context.data)? } else { inspect(&context.env, &context.data)? };
    let printer = context.printer(&args.show);
    if printer.is_json() {
        let seen = serde_json::to_value(&seen);
        context.show_json(&seen.map_err(|e| Error::internal("cannot show the inspection").with_source(e))?)?;
    } else if args.frames {
        frames(&printer, &seen)?;
    } else if args.verify {
        verified(&printer, &seen)?;
    } else {
        files(&printer, &seen)?;
    }
    for damage in &seen.damage {
        context.talk(&format!("damage: {damage}"));
    }
    for loss in &seen.accepted {
        context.talk(&format!("accepted loss: {loss}"));
    }
    if let Some(torn) = &seen.torn {
        context.talk(&format!(
            "torn write: {} bytes behind byte {} of {}; opening the log cuts them off and keeps them aside",
            torn.bytes, torn.at, torn.file
        ));
    }
    Ok(match seen.severity() {
        0 => Status::Done,
        TORN => Status::Differs,
        _ => Status::Damaged,
    })
}

fn files(printer: &Printer, seen: &Inspection) -> Result<()> {
    let row = |file: &FileSummary| {
        let records: u64 = file.frames.iter().map(|frame| u64::from(frame.records)).sum();
        let first = file.frames.first().map_or(Value::Null, |frame| json!(frame.first_position));
        let damaged = file.frames.iter().filter(|frame| !is_intact(frame)).count();
        vec![
            json!(file.name),
            json!(file.bytes),
            json!(file.end),
            json!(file.frames.len()),
            first,
            json!(records),
            json!(damaged),
        ]
    };
    let rows: Vec<_> = seen.files.iter().map(row).collect();
    printer.table(&["file", "bytes", "frames_end", "frames", "first_position", "records", "damaged_frames"], &rows)
}

fn is_intact(frame: &FrameSummary) -> bool {
    frame.header_intact
        && frame.metadata.is_some()
        && frame.topics.as_ref().is_some_and(|topics| topics.iter().all(|topic| topic.intact))
}

/// What was found for each file.
fn verified(printer: &Printer, seen: &Inspection) -> Result<()> {
    let mut rows = Vec::new();
    for file in &seen.files {
        let lost = seen.damage.iter().filter(|damage| damage.file == file.name).count();
        let accepted = seen.accepted.iter().filter(|loss| loss.file == file.name).count();
        let torn = seen.torn.as_ref().is_some_and(|torn| torn.file == file.name);
        let copies = file.damaged_headers.len() + file.frames.iter().filter(|frame| !frame.header_intact).count();
        let footer = match file.footer {
            FooterState::Intact => "intact",
            FooterState::None => "none",
            FooterState::Damaged => "damaged",
            FooterState::FramesChanged => "intact, frames changed",
            FooterState::LossAccepted => "intact, loss accepted",
        };
        let notes = [
            (file.in_history, "records are in history".to_owned()),
            (copies > 0, format!("{copies} damaged headers that have a second copy")),
            (accepted > 0, format!("{accepted} accepted losses")),
        ];
        let notes: Vec<String> = notes.into_iter().filter(|(is_so, _)| *is_so).map(|(_, note)| note).collect();
        let state = match (lost, torn) {
            (0, false) if file.is_damaged() => "damaged, nothing lost",
            (0, false) => "intact",
            (0, true) => "torn",
            _ => "damaged",
        };
        rows.push(vec![json!(file.name), json!(state), json!(file.bytes), json!(footer), json!(notes.join("; "))]);
    }
    for snapshot in &seen.snapshots {
        let state = if snapshot.problem.is_none() { "intact" } else { "damaged" };
        let note = snapshot.applied.map(|applied| format!("up to frame {applied}"));
        rows.push(vec![
            json!(snapshot.name),
            json!(state),
            Value::Null,
            Value::Null,
            json!(snapshot.problem.clone().or(note)),
        ]);
    }
    let missing = |file: &crate::log::inspect::HistoryProblem| {
        vec![json!(file.name), json!("damaged"), Value::Null, Value::Null, json!(file.problem)]
    };
    rows.extend(seen.history.iter().map(missing));
    printer.table(&["file", "state", "bytes", "footer", "notes"], &rows)
}

fn frames(printer: &Printer, seen: &Inspection) -> Result<()> {
    let name = |number: u32| {
        let known = seen.topics.iter().find(|(id, ..)| *id == number);
        known.map_or_else(|| number.to_string(), |(_, name, _)| name.clone())
    };
    let row = |file: &FileSummary, frame: &FrameSummary| {
        let topics: Vec<String> = frame
            .topics
            .iter()
            .flatten()
            .map(|topic| {
                format!("{} {}{}", name(topic.topic), topic.records, if topic.intact { "" } else { " DAMAGED" })
            })
            .collect();
        let metadata: Vec<String> =
            frame.metadata.iter().flatten().map(|(space, key)| format!("{space:?} {key}")).collect();
        let holds = if frame.mark { "mark".to_owned() } else { [topics, metadata].concat().join(", ") };
        vec![
            json!(file.name),
            json!(frame.at),
            json!(frame.bytes),
            json!(frame.seq),
            json!(frame.first_position),
            json!(frame.records),
            json!(frame.append_time_us),
            json!(frame.synced_end),
            json!(is_intact(frame)),
            json!(holds),
        ]
    };
    let rows: Vec<_> = seen.files.iter().flat_map(|file| file.frames.iter().map(move |frame| (file, frame))).collect();
    let rows: Vec<_> = rows.into_iter().map(|(file, frame)| row(file, frame)).collect();
    let columns = [
        "file",
        "at",
        "bytes",
        "frame",
        "first_position",
        "records",
        "append_time_us",
        "synced_end",
        "intact",
        "holds",
    ];
    printer.table(&columns, &rows)
}
