//! How much room history takes: raw bytes, decoded columns, and what places each record, beside the JSON that was appended.

use crate::util::{root, tell};
use flate2::read::GzDecoder;
use kappa::env::Env;
use kappa::job::{self, Job, Point, Request, Silent};
use kappa::log::records::{Partitioning, Projection, Record, RecordColumns, ValueColumns};
use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
use kappa::sql;
use kappa::types::Position;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

const COLUMNS: [(&str, &str); 7] = [
    ("arrival_time", "BIGINT"),
    ("event_time", "BIGINT"),
    ("flight", "STRING"),
    ("tailnum", "STRING"),
    ("origin", "STRING"),
    ("dest", "STRING"),
    ("dep_delay_min", "INT"),
];

/// The flights as JSON rows.
fn flights() -> Vec<String> {
    let file = File::open(root().join("fixtures/flights.csv.gz")).expect("the flights");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("readable");
    let mut lines = text.lines();
    assert!(lines.next().expect("a header").split(',').eq(COLUMNS.map(|(name, _)| name)));
    let json = |line: &str| {
        let field = |((name, kind), text): ((&str, &str), &str)| match (text, kind) {
            ("", _) => format!("\"{name}\":null"),
            (text, "STRING") => format!("\"{name}\":\"{text}\""),
            (text, _) => format!("\"{name}\":{text}"),
        };
        let fields: Vec<String> = COLUMNS.into_iter().zip(line.split(',')).map(field).collect();
        format!("{{{}}}", fields.join(","))
    };
    lines.map(json).collect()
}

#[test]
fn flights_take_a_quarter_of_their_json_in_history_raw_bytes_included() {
    let (env, _sim) = Env::sim(1);
    let options = LogOptions { background: false, file_bytes: 8 << 20, ..LogOptions::default() };
    let log = Log::open(&env, Path::new("/data"), options).expect("the log opens");
    let topic = log.create_topic("flights", TopicConfig::default()).expect("a topic").id();
    let columns = COLUMNS.map(|(name, kind)| format!("{name} {kind}")).join(", ");
    let text = format!(
        "CREATE TABLE flights ({columns}) WITH ('connector' = 'kappa', 'format' = 'json');
         CREATE TABLE o (flight STRING) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT flight FROM flights;"
    );
    let job =
        Job { plan: Arc::new(sql::plan("sizes.sql", &text).expect("a plan")), name: "sizes".into(), version: None };
    let nothing = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
    job::run(&log, &job, &nothing, &mut Silent).expect("the log knows the columns");

    let flights = flights();
    for some in flights.chunks(1_000) {
        let mut rows = RecordColumns::default();
        for value in some {
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::ByKey, &record);
        }
        log.append_wait(AppendBatch::records(topic, rows)).expect("appended");
    }
    log.keep().expect("sealed");

    // Both the raw bytes and the columns are there, so both are counted.
    let source = &job.plan.sources[0];
    let used =
        ValueColumns { format: source.format.clone(), declared: source.declared.clone(), used: source.used.clone() };
    let parts = Projection { columns: Some(Arc::new(used)), ..Projection::ALL };
    let mut reader = log.reader(&[topic], Position(0)).with_projection(topic, parts);
    let mut expected = flights.iter();
    let (mut sealed, mut json) = (0, 0);
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        let values = || batch.values.iter().map(|value| value.expect("a value"));
        assert!(values().eq(expected.by_ref().take(batch.len()).map(String::as_bytes)));
        if batch.decoded.is_some() {
            sealed += batch.len();
            json += values().map(<[u8]>::len).sum::<usize>();
        }
    }
    assert_eq!(expected.len(), 0);
    assert!(sealed > flights.len() / 2, "{sealed} of {} are in history", flights.len());
    let taken = log.sealing_status().history_bytes as f64 / json as f64;
    tell(&format!("sizes: {sealed} flights, history takes {taken:.3} of their {json} bytes of JSON"));
    assert!(taken <= 0.25, "history takes {taken:.3} of the JSON");
}
