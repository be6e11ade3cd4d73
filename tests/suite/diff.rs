//! `kappa diff`, held against a naive comparison of what two versions of a job have written.

use crate::laws::{append, input, open};
use crate::util::Place;
use kappa::env::Env;
use kappa::job::{self, Counts, DiffReport, DiffRequest, Job, Point, Request, RowChange, Silent, Why};
use kappa::log::Log;
use kappa::log::records::decode_headers;
use kappa::sql;
use kappa::types::Position;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

fn text_of(condition: &str, behind: &str, more: &str) -> String {
    format!(
        "SET 'table.exec.emit.allow-lateness' = '2 s';
         CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms INT, WATERMARK FOR ts AS ts - INTERVAL '{behind}' SECOND)
           WITH ('connector' = 'kappa', 'format' = 'json', 'scan.watermark.idle-timeout' = '20 s');
         CREATE TABLE counts (window_start TIMESTAMP(3), page STRING, n BIGINT, total BIGINT{}) WITH ('connector' = 'kappa');
         INSERT INTO counts SELECT window_start, page, COUNT(*), SUM(CAST(ms AS BIGINT)){}
           FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND))
           WHERE {condition} GROUP BY window_start, window_end, page;",
        if more.is_empty() { "" } else { ", more INT" },
        if more.is_empty() { String::new() } else { format!(", {more}") },
    )
}

fn run(log: &Log, text: &str, version: Option<&str>, from: Option<Position>) {
    let plan = Arc::new(sql::plan("diff.sql", text).expect("a plan"));
    let job = Job { plan, name: "diff".into(), version: version.map(str::to_owned) };
    let to = Some(Point::Position(end(log)));
    let request = Request { bounded: true, flush: true, from: from.map(Point::Position), to, ..Request::default() };
    job::run(log, &job, &request, &mut Silent).expect("the run");
}

/// Behind the last record of the input.
fn end(log: &Log) -> Position {
    let hits = log.topic("hits").expect("the input");
    let mut reader = log.reader(&[hits.id()], Position(0));
    let mut end = Position(0);
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        end = Position(batch.positions.last().expect("rows") + 1);
    }
    end
}

/// The last values by window and page.
fn table(log: &Log, topic: &str) -> BTreeMap<(String, String), Value> {
    let topic = log.topic(topic).expect("an output");
    let mut reader = log.reader(&[topic.id()], Position(0));
    let (mut rows, mut updates) = (BTreeMap::new(), 0);
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        for row in 0..batch.len() {
            let value: Value = serde_json::from_slice(batch.values.value(row)).expect("JSON");
            let headers = decode_headers(batch.headers.value(row)).expect("headers");
            updates += usize::from(headers.contains(&("op", Some(b"update"))));
            let text = |name: &str| value[name].as_str().expect("text").to_owned();
            rows.insert((text("window_start"), text("page")), value);
        }
    }
    assert!(updates > 0, "no row has a second revision: that shows little");
    rows
}

fn naive(log: &Log, a: &str, b: &str) -> (u64, Counts, i64) {
    let (a, mut b) = (table(log, a), table(log, b));
    let (mut same, mut counts, mut sum) = (0, Counts::default(), 0);
    for (place, row) in a {
        match b.remove(&place) {
            None => counts.removed += 1,
            Some(other) if (&other["n"], &other["total"]) == (&row["n"], &row["total"]) => same += 1,
            Some(other) => {
                counts.changed += 1;
                sum += other["total"].as_i64().expect("a sum") - row["total"].as_i64().expect("a sum");
            }
        }
    }
    counts.added = b.len() as u64;
    (same, counts, sum)
}

fn diff(log: &Log, request: &DiffRequest) -> DiffReport {
    job::diff(log, request, &Silent).expect("compared")
}

#[test]
fn differences_are_those_of_a_naive_comparison() {
    for seed in 31..34 {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let log = open(&sim, "/data");
        append(&log, &sim, &input(seed, 1500), 50);
        run(&log, &text_of("ms >= 300", "2", ""), None, None);
        run(&log, &text_of("ms < 300 OR ms >= 400 AND page <> '/p3'", "2", "7"), Some("v2"), None);
        run(&log, &text_of("ms >= 300", "2", ""), Some("again"), None);
        let (same, counts, sum) = naive(&log, "counts", "counts.v2");
        assert!(counts.added > 0 && counts.removed > 0 && counts.changed > 5, "{counts:?}");
        let whole = diff(&log, &DiffRequest::new("counts", "counts.v2"));
        assert_eq!((whole.same, whole.total), (same, counts));
        assert_eq!((&whole.only_a[..], &whole.only_b[..]), (&[][..], &["more".to_owned()][..]));
        let total = whole.columns.iter().find(|column| column.name == "total").expect("a column");
        assert_eq!((total.sum, total.changed), (Some(sum as f64), counts.changed));
        // Another condition makes other records late.
        assert!(whole.why.keys().all(|why| matches!(why, Why::Code | Why::Late)), "{:?}", whole.why);
        // In many passes, and the other way round.
        let few = diff(&log, &DiffRequest { rows_at_once: 10, ..DiffRequest::new("counts", "counts.v2") });
        assert_eq!(few, whole);
        let back = diff(&log, &DiffRequest::new("counts.v2", "counts")).total;
        assert_eq!((back.added, back.removed, back.changed), (counts.removed, counts.added, counts.changed));
        let again = diff(&log, &DiffRequest::new("counts", "counts.again"));
        assert!(again.is_same() && again.same > 0, "{again:?}");
        let one = whole.sample.iter().find(|row| row.change == RowChange::Changed).expect("a changed row");
        let value: Value = serde_json::from_str(one.a.as_deref().expect("a value")).expect("JSON");
        let request = DiffRequest {
            key: value["page"].as_str().map(str::to_owned),
            window_start_ms: job::parse_time_ms(value["window_start"].as_str().expect("a time")).ok(),
            ..DiffRequest::new("counts", "counts.v2")
        };
        let part = diff(&log, &request);
        assert_eq!(part.sample, std::slice::from_ref(one));
        assert_eq!((part.rows_a, part.rows_b), (1, 1));
    }
}

#[test]
fn a_reason_is_given_for_each_difference() {
    let (_, sim) = Env::sim(35);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(35, 1500), 50);
    let text = text_of("ms >= 0", "2", "");
    run(&log, &text, None, None);
    run(&log, &text, Some("part"), Some(Position(700)));
    let part = diff(&log, &DiffRequest { sample: 1000, ..DiffRequest::new("counts", "counts.part") });
    assert!(part.total.removed > 10 && part.why.contains_key(&Why::Start), "{:?}", part.why);
    let first = part.sample.first().expect("rows");
    assert_eq!(first.why, Why::Start);
    assert!(!part.why.contains_key(&Why::Code), "{:?}", part.why);
    // A shorter wait loses records that the other version counts.
    run(&log, &text_of("ms >= 0", "0", ""), Some("hasty"), None);
    let hasty = diff(&log, &DiffRequest::new("counts", "counts.hasty"));
    assert!(hasty.why.get(&Why::Late).is_some_and(|rows| *rows > 5), "{:?}", hasty.why);
}

#[test]
fn on_the_command_line() {
    let place = Place::new();
    let hit = |second: u32, page: &str, ms: u32| {
        format!("{{\"ts\":\"2026-01-01 00:00:{second:02}\",\"page\":\"{page}\",\"ms\":{ms}}}\n")
    };
    place.write("hits.jsonl", &[hit(1, "a", 10), hit(2, "b", 20), hit(15, "a", 30), hit(40, "c", 40)].concat());
    place.write("job.sql", &text_of("ms >= 15", "2", ""));
    place.ok(&["topic", "create", "hits"]);
    place.ok(&["produce", "hits", "hits.jsonl"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    place.write("job.sql", &text_of("ms < 35", "2", ""));
    place.ok(&["replay", "job.sql", "--from", "earliest", "--as", "v2"]);
    place.ok(&["replay", "job.sql", "--from", "earliest", "--as", "v3"]);
    let ran = place.kappa(&["diff", "job.sql", "-", "v2"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("2 same, 1 added, 1 removed, 0 changed, in 2 windows"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("because of: code 2") && ran.stdout.contains("removed"),
        "{}\n{}",
        ran.stderr,
        ran.stdout
    );
    let same = place.kappa(&["diff", "job", "v2", "v3", "--format", "json"]);
    assert_eq!(same.code, 0, "{}", same.stderr);
    let report: Value = serde_json::from_str(&same.stdout).expect("JSON");
    assert_eq!((&report["same"], &report["total"]["added"]), (&Value::from(3), &Value::from(0)));
    assert_eq!(place.kappa(&["diff", "counts", "counts.v2", "--key", "b"]).code, 0);
    assert_eq!(place.kappa(&["diff", "counts", "counts.v2", "--window", "2026-01-01 00:00:10"]).code, 0);
    place.fails(&["diff", "job", "-", "v9"], 2, &["no run of 'job.v9'", "-, v2, v3"]);
    place.fails(&["diff", "counts", "nothing"], 2, &["nothing"]);
    place.fails(&["diff", "counts"], 2, &["required"]);
}

#[test]
fn versions_of_a_submitted_job_are_known_by_its_name() {
    let place = Place::new();
    let hit =
        |second: u32, ms: u32| format!("{{\"ts\":\"2026-01-01 00:00:{second:02}\",\"page\":\"a\",\"ms\":{ms}}}\n");
    place.write("hits.jsonl", &[hit(1, 10), hit(2, 20), hit(15, 30), hit(40, 40)].concat());
    place.ok(&["topic", "create", "hits"]);
    place.ok(&["produce", "hits", "hits.jsonl"]);
    for (file, condition) in [("first.sql", "ms >= 15"), ("second.sql", "ms >= 5")] {
        place.write(file, &text_of(condition, "2", ""));
        place.ok(&["job", "submit", file, "--name", "pages"]);
    }
    place.ok(&["up", "--stop-when-idle"]);
    let ran = place.kappa(&["diff", "pages", "v1", "v2"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("-- counts (") && ran.stderr.contains("because of: code 1"), "{}", ran.stderr);
    let explained = place.kappa(&["explain", "pages", "--as", "v2", "--window", "2026-01-01 00:00:00"]);
    assert!(explained.code == 0 && explained.stderr.contains("2 records, 1 results"), "{}", explained.stderr);
    let receipt = place.ok(&["receipt", "pages", "--format", "json"]);
    assert!(receipt.contains("\"records\":4") && receipt.contains("\"final\":false"), "{receipt}");
}
