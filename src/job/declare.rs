//! What jobs tell the log about the columns of their topics, so that it can keep them decoded.

use super::Job;
use super::route::Routes;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::META_VALUE_MAX;
use crate::log::records::ValueColumns;
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace, columns};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Topic and columns of everything that the job reads and writes.
fn declared<'a>(job: &'a Job, routes: &Routes) -> impl Iterator<Item = (String, ValueColumns)> + 'a {
    let all = |format: &crate::format::FormatSpec, declared: &SchemaRef| ValueColumns {
        format: format.clone(),
        declared: Arc::clone(declared),
        used: (0..declared.fields().len()).collect(),
    };
    let sources = job.plan.sources.iter().map(move |s| (s.topic.clone(), all(&s.format, &s.declared)));
    let is_live = routes.is_live();
    let outputs = job.plan.outputs.iter().filter_map(move |o| Some((o, job.output_topic(o)?)));
    let base = job.plan.outputs.iter().filter_map(move |o| Some((o, job.base().output_topic(o)?)));
    let outputs =
        outputs.chain(base.filter(move |_| is_live)).map(move |(o, topic)| (topic, all(&o.format, &o.schema)));
    sources.chain(outputs)
}

fn record(topic: String, columns: Vec<u8>) -> MetaRecord {
    MetaRecord { space: MetaSpace::Schema, key: topic, value: Some(columns) }
}

/// The columns of the job's topics, where they are news to the log.
pub(super) fn news(log: &Log, job: &Job, routes: &Routes) -> Vec<MetaRecord> {
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (topic, new) in declared(job, routes) {
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

/// Gives a topic the columns that a job declares for it, whatever it had before: those that its records are decoded to from now
/// on, when they are sealed or rebuilt. The first table of the job that reads or writes the topic counts.
///
/// # Errors
/// `NotFound` when the job neither reads nor writes the topic, and those of appending.
pub fn declare(log: &Log, job: &Job, topic: &str) -> Result<()> {
    let Some((topic, new)) = declared(job, &Routes::default()).find(|(other, _)| other == topic) else {
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
    use crate::job::{Point, Request, Silent, registry, run};
    use crate::log::{LogOptions, TopicConfig};
    use crate::types::Position;

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
}
