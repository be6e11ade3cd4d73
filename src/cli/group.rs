//! `kappa group list|describe|reset|delete`.

use super::Status;
use super::args::Group as Command;
use super::context::Context;
use super::printer::Printer;
use crate::error::{Error, Result};
use crate::job::{Point, parse_point};
use crate::log::{GroupOffset, Log, SeekTarget};
use serde_json::{Value, json};

pub(super) fn run(context: &Context, printer: &Printer, command: Command) -> Result<Status> {
    let log = context.open_log()?;
    match command {
        Command::List => list(&log, printer)?,
        Command::Describe { name } => show(printer, &log.group_offsets(&name)?)?,
        Command::Reset { name, topic, to } => {
            let topic = log.topic(&topic)?;
            let offsets = log.reset_group(&name, &topic, target(&to)?)?;
            context.talk(&format!("group '{name}' goes on in topic '{}' here:", topic.name()));
            show(printer, &offsets)?;
        }
        Command::Delete { name, topic } => {
            let topic = topic.map(|topic| log.topic(&topic)).transpose()?;
            log.delete_group(&name, topic.as_ref().map(crate::log::Topic::id))?;
            context.talk(&format!("group '{name}' deleted"));
        }
    }
    context.close(log)?;
    Ok(Status::Done)
}

/// The place that a point on the command line means.
fn target(text: &str) -> Result<SeekTarget> {
    match parse_point(text)? {
        Point::Earliest => Ok(SeekTarget::Earliest),
        Point::Latest => Ok(SeekTarget::Latest),
        Point::Position(position) | Point::Reading(position, _) => Ok(SeekTarget::Position(position)),
        Point::TimeMs(ms) => Ok(SeekTarget::TimestampMs(ms)),
        Point::Append(time) => Ok(SeekTarget::Append(time)),
        Point::Offset(_) => Err(Error::input("--to offset:N is of one partition, and a group is set for all")
            .with_hint("use earliest, latest, position:N, time:T or append:T")),
    }
}

fn list(log: &Log, printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for name in log.groups() {
        let offsets = log.group_offsets(&name)?;
        let mut topics: Vec<&str> = offsets.iter().filter_map(|offset| offset.name.as_deref()).collect();
        topics.dedup();
        rows.push(vec![json!(name), json!(topics.join(", ")), json!(offsets.iter().map(behind).sum::<u64>())]);
    }
    printer.table(&["group", "topics", "behind"], &rows)
}

/// Records of the partition that the group has not read.
fn behind(offset: &GroupOffset) -> u64 {
    offset.end.0.saturating_sub(offset.offset.0)
}

fn show(printer: &Printer, offsets: &[GroupOffset]) -> Result<()> {
    let row = |offset: &GroupOffset| -> Vec<Value> {
        let topic = offset.name.clone().unwrap_or_else(|| format!("number {} (deleted)", offset.topic));
        vec![
            json!(topic),
            json!(offset.partition.0),
            json!(offset.offset.0),
            json!(offset.end.0),
            json!(behind(offset)),
        ]
    };
    let rows: Vec<_> = offsets.iter().map(row).collect();
    printer.table(&["topic", "partition", "next_offset", "end_offset", "behind"], &rows)
}
