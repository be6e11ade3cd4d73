//! `kappa topic create|alter|list|describe|trim|rebuild|delete|retention`.

use super::Status;
use super::args::{Topic as Command, TopicSettings};
use super::context::Context;
use super::printer::Printer;
use super::units::{format_bytes, format_duration_us, parse_bytes, parse_duration_us};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{self, Point, offset_target, parse_point};
use crate::log::{Log, MetaSpace, Seek, SeekTarget, Topic, TopicChange, TopicConfig, columns};
use crate::sql;
use crate::types::Position;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;

pub(super) fn run(context: &Context, printer: &Printer, command: Command) -> Result<Status> {
    let log = context.open_log()?;
    match command {
        Command::Create { name, partitions, settings } => create(context, &log, &name, partitions, &settings)?,
        Command::Alter { name, settings, partitions } => alter(context, &log, &name, partitions, &settings)?,
        Command::List => list(&log, printer)?,
        Command::Describe { name } => describe(context, &log, printer, &name)?,
        Command::Trim { name, before, partition } => trim(context, &log, &name, &before, partition)?,
        Command::Rebuild { name, columns } => rebuild(context, &log, &name, columns.as_deref())?,
        Command::Delete { name } => delete(context, &log, &name)?,
        Command::Retention { confirm } => retention(context, &log, confirm)?,
    }
    context.close(log)?;
    Ok(Status::Done)
}

/// A setting that can be taken back by the word `none`.
fn limit<T>(text: &str, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    if text == "none" { Ok(None) } else { parse(text).map(Some) }
}

fn changes(settings: &TopicSettings) -> Result<Vec<TopicChange>> {
    let mut changes = Vec::new();
    if let Some(text) = &settings.max_future {
        changes.push(TopicChange::MaxFutureUs(parse_duration_us(text).map_err(|e| e.context("--max-future"))?));
    }
    if let Some(text) = &settings.retention {
        let retention_us = limit(text, parse_duration_us).map_err(|e| e.context("--retention"))?;
        changes.push(TopicChange::RetentionUs(retention_us));
    }
    if let Some(text) = &settings.retention_bytes {
        let retention_bytes = limit(text, parse_bytes).map_err(|e| e.context("--retention-bytes"))?;
        changes.push(TopicChange::RetentionBytes(retention_bytes));
    }
    Ok(changes)
}

fn create(context: &Context, log: &Log, name: &str, partitions: u32, settings: &TopicSettings) -> Result<()> {
    let mut config = TopicConfig { partitions, ..TopicConfig::default() };
    changes(settings)?.iter().for_each(|change| change.apply(&mut config));
    log.create_topic(name, config).map_err(|e| e.context(format!("topic '{name}'")))?;
    context
        .talk(&format!("topic '{name}' created with {partitions} partition{}", if partitions == 1 { "" } else { "s" }));
    Ok(())
}

fn alter(context: &Context, log: &Log, name: &str, partitions: Option<u32>, settings: &TopicSettings) -> Result<()> {
    if partitions.is_some() {
        let message =
            "the number of partitions cannot change: records of one key would lie in two partitions, in no order";
        return Err(Error::input(message).with_hint("create a topic with more partitions and copy the records into it"));
    }
    let changes = changes(settings)?;
    if changes.is_empty() {
        return Err(Error::input("nothing to change").with_hint("--retention, --retention-bytes or --max-future"));
    }
    let topic = log.alter_topic(name, &changes).map_err(|e| e.context(format!("topic '{name}'")))?;
    context.talk(&settings_of(&topic));
    Ok(())
}

/// A topic's settings in one line, as they are typed.
fn settings_of(topic: &Topic) -> String {
    let config = topic.config();
    format!(
        "topic '{}', number {}: max-future {}, retention {}, retention-bytes {}",
        topic.name(),
        topic.id(),
        format_duration_us(config.max_future_us),
        config.retention_us.map_or_else(|| "none".to_owned(), format_duration_us),
        config.retention_bytes.map_or_else(|| "none".to_owned(), format_bytes)
    )
}

fn list(log: &Log, printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for topic in log.topics() {
        let starts = log.partition_starts(topic.id())?;
        let ends = log.partition_ends(topic.id())?;
        let records: u64 = ends.iter().zip(&starts).map(|(end, start)| end.0.saturating_sub(start.0)).sum();
        let config = topic.config();
        rows.push(vec![
            json!(topic.name()),
            json!(topic.partitions()),
            json!(records),
            json!(writer_of(log, topic.name())?),
            config.retention_us.map_or(Value::Null, |us| json!(format_duration_us(us))),
            config.retention_bytes.map_or(Value::Null, |bytes| json!(format_bytes(bytes))),
            json!(format_duration_us(config.max_future_us)),
        ]);
    }
    let columns = ["topic", "partitions", "records", "written_by", "retention", "retention_bytes", "max_future"];
    printer.table(&columns, &rows)
}

/// The run whose output a topic is.
fn writer_of(log: &Log, topic: &str) -> Result<Option<String>> {
    let base = topic.strip_suffix(".late").or_else(|| topic.strip_suffix(".rejected")).unwrap_or(topic);
    Ok(job::runs(log)?.into_iter().find(|(_, run)| run.outputs.iter().any(|output| output == base)).map(|(key, _)| key))
}

fn describe(context: &Context, log: &Log, printer: &Printer, name: &str) -> Result<()> {
    let topic = log.topic(name)?;
    let starts = log.partition_starts(topic.id())?;
    let ends = log.partition_ends(topic.id())?;
    let rows: Vec<Vec<Value>> = (0..topic.partitions())
        .zip(starts.iter().zip(&ends))
        .map(|(partition, (first, end))| vec![json!(partition), json!(first.0), json!(end.0)])
        .collect();
    printer.table(&["partition", "first_offset", "end_offset"], &rows)?;
    context.talk(&settings_of(&topic));
    if let Some(hold) = log.clock_hold()? {
        context.talk(&format!("{hold}"));
    }
    if let Some(key) = writer_of(log, name)? {
        context.talk(&format!("written by run '{key}'"));
    }
    if let Some(schema) = log.meta(MetaSpace::Schema, name) {
        let declared = columns::decode(&schema)
            .map_err(|e| Error::damage(format!("the columns of topic '{name}' in the catalog: {e}")))?;
        context.talk(&format!("columns: {}", sql::describe(&declared.declared)));
    }
    Ok(())
}

/// Position of the first record that stays.
fn trim_before(log: &Log, topic: &Topic, before: &str, partition: Option<u32>) -> Result<Position> {
    let target = match parse_point(before)? {
        Point::Earliest => SeekTarget::Earliest,
        Point::Latest => SeekTarget::Latest,
        Point::Position(position) | Point::Reading(position, _) => return Ok(position),
        Point::Offset(offset) => offset_target(partition, offset)?,
        Point::TimeMs(ms) => SeekTarget::TimestampMs(ms),
        Point::Append(time) => SeekTarget::Append(time),
    };
    match log.seek(topic.id(), target)? {
        Seek::At(position) => Ok(position),
        Seek::NoSuchRecord => {
            let message =
                format!("no such record: nothing in '{}' at or after {before}; nothing was removed", topic.name());
            Err(Error::new(ErrorKind::NotFound, message).with_hint("--before latest removes every record there is"))
        }
    }
}

fn trim(context: &Context, log: &Log, name: &str, before: &str, partition: Option<u32>) -> Result<()> {
    let topic = log.topic(name)?;
    let position = trim_before(log, &topic, before, partition)?;
    let starts = log.partition_starts(topic.id())?;
    let Some(trim) = log.trim(topic.id(), position)? else {
        context.talk(&format!("topic '{name}' has no record before position {position}: nothing was removed"));
        return Ok(());
    };
    let removed: u64 =
        trim.first_offsets.iter().zip(starts).map(|(first, start)| first.0.saturating_sub(start.0)).sum();
    context.talk(&format!(
        "topic '{name}': {removed} record{} removed; what is left starts at position {}",
        if removed == 1 { "" } else { "s" },
        trim.first_position
    ));
    Ok(())
}

fn retention(context: &Context, log: &Log, confirm: bool) -> Result<()> {
    match log.clock_hold()? {
        None => context.talk("the clock has not jumped: retention is at work"),
        Some(hold) if !confirm => {
            context.talk(&hold.to_string());
            context.talk("when the time is right: kappa topic retention --confirm");
        }
        Some(_) => {
            log.confirm_clock()?;
            context.talk("the time is confirmed: retention goes on");
        }
    }
    Ok(())
}

fn rebuild(context: &Context, log: &Log, name: &str, columns: Option<&Path>) -> Result<()> {
    let topic = log.topic(name)?;
    if let Some(file) = columns {
        job::declare(log, &context.load_job(file, None)?, name)?;
    }
    if log.meta(MetaSpace::Schema, name).is_none() {
        let message = format!("nobody has declared columns for topic '{name}'");
        return Err(Error::input(message).with_hint("run a job that reads it, or name a SQL file with --columns"));
    }
    let (mut bar, mut files, mut files_all) = (None, 0, 0);
    let stop = context.stop_flag()?;
    log.rebuild_topic(topic.id(), |progress| {
        (files, files_all) = (progress.files, progress.files_all);
        bar.get_or_insert_with(|| context.progress("rebuilding", Some(progress.bytes_all), "bytes")).at(progress.bytes);
        if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(bar);
    if files < files_all {
        let hint =
            format!("{files} of {files_all} history files are rebuilt; the same command goes on with the others");
        job::check_wanted(&stop).map_err(|e| e.with_hint(hint))?;
    }
    context.talk(&match files {
        0 => format!("the history of topic '{name}' has its columns already"),
        1 => format!("topic '{name}': 1 history file rebuilt"),
        _ => format!("topic '{name}': {files} history files rebuilt"),
    });
    Ok(())
}

fn delete(context: &Context, log: &Log, name: &str) -> Result<()> {
    if let Some(key) = writer_of(log, name)? {
        return Err(Error::new(ErrorKind::Conflict, format!("topic '{name}' is written by run '{key}'"))
            .with_hint("`kappa run FILE --restart` removes a run with its outputs"));
    }
    log.delete_topic(name)?;
    context.talk(&format!("topic '{name}' deleted"));
    Ok(())
}
