//! `kappa topic create|list|describe|delete`.

use super::args::{Common, Topic as Command};
use super::printer::Printer;
use super::{Status, open_log, talk};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::job;
use crate::log::{Log, MetaSpace, TopicConfig};
use serde_json::json;

const US_PER_S: i64 = 1_000_000;

pub(super) fn run(env: &Env, common: &Common, printer: &Printer, command: Command) -> Result<Status> {
    let log = open_log(env, common)?;
    match command {
        Command::Create { name, partitions, max_future } => {
            let config = TopicConfig { partitions, max_future_us: i64::from(max_future) * US_PER_S };
            log.create_topic(&name, config).map_err(|e| e.context(format!("topic '{name}'")))?;
            talk(&format!(
                "topic '{name}' created with {partitions} partition{}",
                if partitions == 1 { "" } else { "s" }
            ));
        }
        Command::List => list(&log, printer)?,
        Command::Describe { name } => describe(&log, printer, &name)?,
        Command::Delete { name } => delete(&log, &name)?,
    }
    log.close()?;
    Ok(Status::Done)
}

fn list(log: &Log, printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for topic in log.topics() {
        let records: u64 = log.partition_ends(topic.id())?.iter().map(|end| end.0).sum();
        let written_by = writer_of(log, topic.name())?;
        rows.push(vec![json!(topic.name()), json!(topic.partitions()), json!(records), json!(written_by)]);
    }
    printer.table(&["topic", "partitions", "records", "written_by"], &rows)
}

/// The run whose output a topic is.
fn writer_of(log: &Log, topic: &str) -> Result<Option<String>> {
    let base = topic.strip_suffix(".late").or_else(|| topic.strip_suffix(".rejected")).unwrap_or(topic);
    Ok(job::runs(log)?.into_iter().find(|(_, run)| run.outputs.iter().any(|output| output == base)).map(|(key, _)| key))
}

fn describe(log: &Log, printer: &Printer, name: &str) -> Result<()> {
    let topic = log.topic(name)?;
    let rows: Vec<_> = log
        .partition_ends(topic.id())?
        .iter()
        .enumerate()
        .map(|(partition, end)| vec![json!(partition), json!(0), json!(end.0)])
        .collect();
    printer.table(&["partition", "first_offset", "end_offset"], &rows)?;
    talk(&format!("topic '{name}', number {}, max-future {} s", topic.id(), topic.config().max_future_us / US_PER_S));
    if let Some(key) = writer_of(log, name)? {
        talk(&format!("written by run '{key}'"));
    }
    if let Some(schema) = log.meta(MetaSpace::Schema, name) {
        talk(&format!("columns: {}", String::from_utf8_lossy(&schema)));
    }
    Ok(())
}

fn delete(log: &Log, name: &str) -> Result<()> {
    if let Some(key) = writer_of(log, name)? {
        return Err(Error::new(ErrorKind::Conflict, format!("topic '{name}' is written by run '{key}'"))
            .with_hint("`kappa run FILE --restart` removes a run with its outputs"));
    }
    log.delete_topic(name)?;
    talk(&format!("topic '{name}' deleted"));
    Ok(())
}
