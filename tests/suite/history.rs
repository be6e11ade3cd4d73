//! Law 4 over history: a job gives the same bytes from the journal, from history with decoded columns or without, and from any
//! mix of them.

use crate::laws::{Input, SQL, bounded, first_difference, input, output};
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{self, Job, Point, Request, Silent};
use kappa::log::records::{Header, Partitioning, Projection, Record, RecordColumns, ValueColumns};
use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
use kappa::sql;
use kappa::types::{PartitionId, Position};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

fn job(name: &str, text: &str) -> Job {
    Job { plan: Arc::new(sql::plan("laws.sql", text).expect("the plan")), name: name.to_owned(), version: None }
}

/// A log that seals when told to, in small files.
fn open(sim: &Sim) -> Log {
    let options = LogOptions { background: false, file_bytes: 24 << 10, ..LogOptions::default() };
    let log = Log::open(&sim.env(), Path::new("/data"), options).expect("the log opens");
    if log.topic("hits").is_err() {
        log.create_topic("hits", TopicConfig { partitions: 3, ..TopicConfig::default() }).expect("a topic");
    }
    log
}

/// Appends the input; every second record has a key and a header, every 17th no value.
fn append(log: &Log, sim: &Sim, input: &[Input], frames: Range<usize>) {
    let hits = log.topic("hits").expect("the topic").id();
    for (frame, same_time) in input.chunk_by(|a, b| a.1 == b.1).enumerate().filter(|(n, _)| frames.contains(n)) {
        sim.clock.set_wall_us(same_time[0].1);
        let mut rows = RecordColumns::default();
        for (row, (partition, _, value)) in same_time.iter().enumerate() {
            let number = (frame * 31 + row).to_string();
            let headers: &[Header<'_>] = &[("number", Some(number.as_bytes())), ("empty", None)];
            let is_second = row % 2 == 0;
            let record = Record {
                timestamp_ms: (row % 3 == 0).then_some(7),
                key: is_second.then_some(number.as_bytes()),
                value: ((frame + row) % 17 > 0).then_some(value.as_bytes()),
                headers: if is_second { headers } else { &[] },
            };
            rows.push(Partitioning::Fixed(PartitionId(*partition)), &record);
        }
        log.append_wait(AppendBatch::records(hits, rows)).expect("appended");
    }
}

/// The log gets to know the columns that a job declares: by a run that ends where it starts.
fn declare(log: &Log, job: &Job) {
    let request = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
    job::run(log, job, &request, &mut Silent).expect("a run without records");
}

/// Records of `hits` whose values come decoded to the columns of a job.
fn decoded(log: &Log, job: &Job) -> usize {
    let source = &job.plan.sources[0];
    let columns =
        ValueColumns { format: source.format.clone(), declared: source.declared.clone(), used: source.used.clone() };
    let parts = Projection { columns: Some(Arc::new(columns)), ..Projection::ALL };
    let topic = log.topic("hits").expect("the topic").id();
    let mut reader = log.reader(&[topic], Position(0)).with_projection(topic, parts);
    let mut rows = 0;
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        rows += if batch.decoded.is_some() { batch.len() } else { 0 };
    }
    rows
}

/// What the job writes over a log of its own, that `prepare` fills.
fn written(seed: u64, threads: usize, prepare: impl FnOnce(&Log, &Sim)) -> (Vec<(String, Vec<String>)>, usize) {
    let (_, sim) = Env::sim(seed);
    let log = open(&sim);
    prepare(&log, &sim);
    let job = job("laws", SQL);
    let decoded = decoded(&log, &job);
    job::run(&log, &job, &bounded(threads), &mut Silent).expect("the run");
    let mut rows = output(&log, &job);
    rows.sort();
    (rows, decoded)
}

/// The columns of `hits` under other types, so that only some or none of the stored ones fit.
fn other(columns: &str) -> Job {
    let text = format!(
        "CREATE TABLE hits ({columns}) WITH ('connector' = 'kappa', 'format' = 'json');
         CREATE TABLE o (page STRING) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT page FROM hits;"
    );
    job("other", &text)
}

#[test]
fn law_4_history_is_journal() {
    let superset = "ms INT, ts TIMESTAMP(3), page STRING, extra BIGINT";
    let strict = "ms INT, ts TIMESTAMP(3), page STRING, extra BIGINT NOT NULL";
    // What is declared before sealing, what the topic is rebuilt for, and whether the job finds its columns.
    let ways: [(Option<&str>, Option<&str>, bool); 6] = [
        (None, None, false),
        (Some("ts TIMESTAMP(3), page STRING, ms INT"), None, true),
        (Some(superset), None, true),
        (Some(strict), None, false),
        (Some("ts STRING, page STRING, ms INT"), None, false),
        (Some("ts STRING, page STRING"), Some(superset), true),
    ];
    for seed in 1..=2 {
        let input = input(seed, 1600);
        let (all, middle) = (input.chunk_by(|a, b| a.1 == b.1).count(), 66);
        let (journal, none) = written(seed, 1, |log, sim| append(log, sim, &input, 0..all));
        assert_eq!(none, 0);
        for (topic, rows) in &journal {
            assert!(!rows.is_empty(), "{topic} is empty: the test would show nothing");
        }
        for (threads, (declared, rebuilt, decodes)) in (1..).zip(ways) {
            let (history, decoded) = written(seed, threads.min(2), |log, sim| {
                declared.iter().for_each(|columns| declare(log, &other(columns)));
                append(log, sim, &input, 0..middle);
                log.keep().expect("sealed");
                if let Some(columns) = rebuilt {
                    job::declare(log, &other(columns), "hits").expect("declared");
                    log.rebuild_topic(log.topic("hits").expect("the topic").id(), |_| ControlFlow::Continue(()))
                        .expect("rebuilt");
                }
                append(log, sim, &input, middle..all);
            });
            assert_eq!(decoded > 500, decodes, "{declared:?}: {decoded} decoded");
            assert_eq!(first_difference(&history, &journal), None, "history of {declared:?}");
        }
    }
}

/// Position, and rowtime in ms if it has one that is not too far ahead of the append time, of every record of `hits`.
fn rowtimes(log: &Log) -> Vec<(u64, Option<i64>)> {
    let mut found = Vec::new();
    let mut reader = log.reader(&[log.topic("hits").expect("the topic").id()], Position(0));
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        for row in 0..batch.len() {
            let value = String::from_utf8_lossy(batch.values.value(row)).into_owned();
            let text = value.split_once("\"ts\":\"").and_then(|(_, rest)| rest.split_once('"')).map(|(ts, _)| ts);
            let limit = (batch.append_times[row] + 3_600_000_000).div_euclid(1000);
            let ms = text.map(|text| job::parse_time_ms(text).expect("a time")).filter(|ms| *ms <= limit);
            found.push((batch.positions[row], ms));
        }
    }
    found
}

#[test]
fn runs_between_times_start_and_end_where_a_scan_says() {
    let (_, sim) = Env::sim(9);
    let log = open(&sim);
    let mut input = input(5, 1600);
    for (row, (.., value)) in input.iter_mut().enumerate().filter(|(row, _)| row % 97 == 0) {
        // Far ahead of its append time, or far behind.
        let year = if row % 2 == 0 { "2099" } else { "1969" };
        *value = format!("{{\"ts\":\"{year}-12-31 00:00:00.000\",\"page\":\"/p0\",\"ms\":1}}");
    }
    let all = input.chunk_by(|a, b| a.1 == b.1).count();
    declare(&log, &other("ts TIMESTAMP(3), page STRING, ms INT"));
    append(&log, &sim, &input, 0..80);
    log.keep().expect("sealed");
    append(&log, &sim, &input, 80..all);
    let (records, job) = (rowtimes(&log), job("laws", SQL));
    let known: Vec<i64> = records.iter().filter_map(|(_, ms)| *ms).collect();
    let asked = (0..24).map(|n| known[n * 61 % known.len()] + (n as i64 % 3) - 1).chain([i64::MIN, 0, i64::MAX]);
    for ms in asked {
        let (from, to) = (Some(Point::TimeMs(ms)), Some(Point::TimeMs(ms)));
        let report = job::run(&log, &job, &Request { from, to, restart: true, ..bounded(1) }, &mut Silent);
        let record = report.expect("a run").record;
        let end = log.topic("hits").map(|_| records.last().map_or(0, |(position, _)| position + 1)).expect("the topic");
        let first = records.iter().find(|(_, rowtime)| rowtime.is_some_and(|rowtime| rowtime >= ms));
        let last = records.iter().rfind(|(_, rowtime)| rowtime.is_some_and(|rowtime| rowtime < ms));
        match first {
            Some((position, _)) => assert_eq!(record.starts, [*position], "from {ms}"),
            None => assert!(record.starts[0] >= end, "from {ms}"),
        }
        assert_eq!(record.end, Some(last.map_or(0, |(position, _)| position + 1)), "to {ms}");
    }
}
