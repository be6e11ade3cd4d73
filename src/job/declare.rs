//! What jobs tell the log about the columns of their topics, so that it can keep them decoded.

use super::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::format::FormatSpec;
use crate::log::catalog::META_VALUE_MAX;
use crate::log::records::ValueColumns;
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace, columns};
use crate::types::Position;
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn all(format: &FormatSpec, declared: &SchemaRef) -> ValueColumns {
    let used = (0..declared.fields().len()).collect();
    ValueColumns { format: format.clone(), declared: Arc::clone(declared), used }
}

/// Topic and columns of everything that the job reads.
fn read(job: &Job) -> impl Iterator<Item = (String, ValueColumns)> + '_ {
    job.plan.sources.iter().map(|source| (source.topic.clone(), all(&source.format, &source.declared)))
}

/// Topic and columns of everything that the job reads and writes, as a version that is live or not.
fn declared(job: &Job, is_live: bool) -> impl Iterator<Item = (String, ValueColumns)> + '_ {
    let outputs = job.plan.outputs.iter().filter_map(move |o| Some((o, job.output_topic(o)?)));
    let base = job.plan.outputs.iter().filter_map(move |o| Some((o, job.base().output_topic(o)?)));
    let outputs =
        outputs.chain(base.filter(move |_| is_live)).map(move |(o, topic)| (topic, all(&o.format, &o.schema)));
    read(job).chain(outputs)
}

fn record(topic: String, columns: Vec<u8>) -> MetaRecord {
    MetaRecord { space: MetaSpace::Schema, key: topic, value: Some(columns) }
}

/// The columns of the job's topics, where they are news to the log.
pub(super) fn news(log: &Log, job: &Job, is_live: bool) -> Vec<MetaRecord> {
    news_of(log, declared(job, is_live))
}

fn news_of(log: &Log, all: impl Iterator<Item = (String, ValueColumns)>) -> Vec<MetaRecord> {
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (topic, new) in all {
        let stored = known.get(&topic).cloned().or_else(|| log.meta(MetaSpace::Schema, &topic));
        // What does not decode was written by another version.
        let stored = stored.and_then(|bytes| columns::decode(&bytes).ok());
        let bytes = columns::encode(&new);
        // A declaration helps reading; one too large for the catalog must not keep the job from running.
        if columns::is_news(stored.as_ref(), &new) && bytes.len() <= META_VALUE_MAX {
            known.insert(topic, bytes);
        }
    }
    known.into_iter().map(|(topic, bytes)| record(topic, bytes)).collect()
}

/// Makes the log know the columns of what a job reads, where they are news: before records come, so that they have their columns whenever
/// they are sealed.
///
/// # Errors
/// Those of appending.
pub fn declare_sources(log: &Log, job: &Job) -> Result<()> {
    match news_of(log, read(job)) {
        news if news.is_empty() => Ok(()),
        news => log.append_wait(AppendBatch::meta(news)).map(drop),
    }
}

/// What to say before records from a position on are read that were sealed without the columns which the log knows by now, and which
/// would do for the job.
pub(super) fn advice(log: &Log, job: &Job, from: Position) -> Result<BTreeSet<String>> {
    let mut notes = BTreeSet::new();
    for source in &job.plan.sources {
        let known = log.meta(MetaSpace::Schema, &source.topic).and_then(|bytes| columns::decode(&bytes).ok());
        let asked = ValueColumns { used: source.used.clone(), ..all(&source.format, &source.declared) };
        if known.is_none_or(|known| columns::places(&known, &asked).is_none()) {
            continue;
        }
        let topic = &source.topic;
        let note = match log.outdated_files(log.topic(topic)?.id(), from)? {
            0 => continue,
            1 => format!("a history file of topic '{topic}' was sealed before its columns were known"),
            files => format!("{files} history files of topic '{topic}' were sealed before its columns were known"),
        };
        notes.insert(format!("{note}: `kappa topic rebuild {topic}` makes every further replay faster"));
    }
    Ok(notes)
}

/// Gives a topic the columns that a job declares for it, whatever it had before: those that its records are decoded to from now
/// on, when they are sealed or rebuilt. The first table of the job that reads or writes the topic counts.
///
/// # Errors
/// `NotFound` when the job neither reads nor writes the topic, and those of appending.
pub fn declare(log: &Log, job: &Job, topic: &str) -> Result<()> {
    let Some((topic, new)) = declared(job, false).find(|(other, _)| other == topic) else {
        let message = format!("'{}' has no table over topic '{topic}'", job.name);
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    log.append_wait(AppendBatch::meta(vec![record(topic, columns::encode(&new))])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::functions::FunctionRegistry;
    use crate::env::Env;
    use crate::job::{Observer, Point, Request, Silent, registry, run};
    use crate::log::records::{Partitioning, Record, RecordColumns};
    use crate::log::{LogOptions, TopicConfig};
    use std::ops::ControlFlow;

    fn text(name: &str, columns: &str) -> String {
        format!(
            "CREATE TABLE t ({columns}) WITH ('connector' = 'kappa', 'topic' = 't', 'format' = 'json');
             CREATE TABLE o ({columns}) WITH ('connector' = 'kappa', 'topic' = 'o-{name}', 'format' = 'csv');
             INSERT INTO o SELECT * FROM t;"
        )
    }

    fn job(name: &str, columns: &str) -> Job {
        let plan = crate::sql::plan("job.sql", &text(name, columns)).expect("a plan");
        Job { plan: Arc::new(plan), name: name.to_owned(), version: None }
    }

    fn columns_of(log: &Log, topic: &str) -> String {
        let bytes = log.meta(MetaSpace::Schema, topic).expect("declared");
        crate::sql::describe(&columns::decode(&bytes).expect("own bytes").declared)
    }

    #[test]
    fn the_log_knows_the_columns_of_the_jobs_that_ran_on_it() {
        let (env, _sim) = Env::sim(1);
        let log = Log::open(&env, "/data".as_ref(), LogOptions::default()).expect("a log");
        log.create_topic("t", TopicConfig::default()).expect("a topic");
        let request = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
        for (name, columns, known) in [
            ("a", "a INT, b STRING NOT NULL", "a INT, b STRING NOT NULL"),
            ("b", "a INT", "a INT, b STRING NOT NULL"),
            ("c", "a BIGINT, b STRING NOT NULL, c INT", "a INT, b STRING NOT NULL"),
            ("d", "c DECIMAL(10, 2), b STRING NOT NULL, a INT", "c DECIMAL(10, 2), b STRING NOT NULL, a INT"),
        ] {
            run(&log, &job(name, columns), &request, &mut Silent).expect("a run without records");
            assert_eq!(columns_of(&log, "t"), known, "after job {name}");
            assert_eq!(columns_of(&log, &format!("o-{name}")), columns);
        }
        let submission = |columns: &str| registry::Submission {
            name: "e".to_owned(),
            sql: text("e", columns),
            ..registry::Submission::default()
        };
        let columns = "c DECIMAL(10, 2), b STRING NOT NULL, a INT, d STRING";
        registry::submit(&log, &FunctionRegistry::default(), submission(columns))
            .expect("a job that nobody has run yet");
        assert_eq!([columns_of(&log, "t"), columns_of(&log, "o-e")], [columns; 2]);
        registry::submit(&log, &FunctionRegistry::default(), submission("d STRING")).expect("a second version");
        assert_eq!(["t", "o-e", "o-e.v2"].map(|topic| columns_of(&log, topic)), [columns, columns, "d STRING"]);
        declare(&log, &job("c", "a BIGINT"), "t").expect("a table over t");
        assert_eq!(columns_of(&log, "t"), "a BIGINT");
        assert_eq!(declare(&log, &job("c", "a BIGINT"), "x").expect_err("no table").kind(), ErrorKind::NotFound);
    }

    fn open(env: &Env) -> Log {
        let options =
            LogOptions { file_bytes: 16 << 10, frame_bytes: 1 << 10, background: false, ..LogOptions::default() };
        Log::open(env, "/data".as_ref(), options).expect("a log")
    }

    /// Appends records until some files of them are full, and seals these.
    fn seal(log: &Log, topic: &str) {
        let topic = log.topic(topic).expect("a topic").id();
        for n in 0..100 {
            let mut rows = RecordColumns::default();
            let value = format!("{{\"a\":{n},\"b\":\"{}\"}}", "x".repeat(900));
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::ByKey, &record);
            log.append_wait(AppendBatch::records(topic, rows)).expect("written");
        }
        log.keep().expect("sealed");
    }

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn on_note(&mut self, note: &str) {
            self.0.push(note.to_owned());
        }
    }

    #[test]
    fn who_reads_what_was_sealed_without_columns_is_told_how_to_mend_that() {
        let (env, _sim) = Env::sim(1);
        let log = open(&env);
        log.create_topic("t", TopicConfig::default()).expect("a topic");
        let notes = |name: &str, columns: &str| {
            let mut seen = Notes::default();
            let request = Request { bounded: true, ..Request::default() };
            run(&log, &job(name, columns), &request, &mut seen).expect("a run");
            seen.0
        };
        seal(&log, "t");
        let found = notes("a", "a INT");
        assert!(found.len() == 1 && found[0].contains("sealed before its columns were known"), "{found:?}");
        assert!(found[0].contains("`kappa topic rebuild t`"), "{found:?}");
        // Of no use to one who wants others.
        assert_eq!(notes("b", "a STRING"), [""; 0]);
        let topic = log.topic("t").expect("a topic").id();
        log.rebuild_topic(topic, |_| ControlFlow::Continue(())).expect("rebuilt");
        assert_eq!(notes("c", "a INT"), [""; 0]);
    }

    #[test]
    fn what_is_sealed_after_its_columns_were_declared_has_them() {
        let (env, _sim) = Env::sim(1);
        let log = open(&env);
        declare_sources(&log, &job("a", "a INT")).expect("declared");
        log.create_topic("t", TopicConfig::default()).expect("a topic");
        seal(&log, "t");
        let topic = log.topic("t").expect("a topic").id();
        assert!(log.sealing_status().history_files > 0);
        assert_eq!(log.outdated_files(topic, Position(0)).expect("known"), 0);
        assert!(news_of(&log, read(&job("a", "a INT"))).is_empty());
    }
}
