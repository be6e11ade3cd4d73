//! `kappa explain`, held against the output: the records that it names are as many as the number says, and their rows have the key and lie in
//! the window.

use crate::laws::{append, input, open};
use crate::util::Place;
use kappa::env::Env;
use kappa::job::{self, Happened, Job, Question, Request, Silent};
use kappa::log::Log;
use kappa::types::Position;
use kappa::{ErrorKind, sql};
use serde_json::Value;
use std::sync::Arc;

fn sql_of(window: &str, lateness: &str) -> String {
    format!(
        "SET 'table.exec.emit.allow-lateness' = '{lateness}';
         CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms INT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'kappa', 'format' = 'json', 'scan.watermark.idle-timeout' = '20 s');
         CREATE TABLE counts (window_start TIMESTAMP(3), window_end TIMESTAMP(3), page STRING, n BIGINT, total BIGINT)
           WITH ('connector' = 'kappa');
         INSERT INTO counts SELECT window_start, window_end, page, COUNT(*), SUM(CAST(ms AS BIGINT)) FROM TABLE({window})
           GROUP BY window_start, window_end, page;"
    )
}

fn job_of(text: &str) -> Job {
    Job { plan: Arc::new(sql::plan("explained.sql", text).expect("a plan")), name: "explained".into(), version: None }
}

/// The output's values and revisions, last ones first.
fn rows_of(log: &Log) -> Vec<Value> {
    let mut rows = Vec::new();
    let topic = log.topic("counts").expect("the output");
    let mut reader = log.reader(&[topic.id()], Position(0));
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        for row in 0..batch.len() {
            rows.push(serde_json::from_slice(batch.values.value(row)).expect("JSON"));
        }
    }
    rows.reverse();
    rows
}

fn time(row: &Value, column: &str) -> i64 {
    job::parse_time_ms(row[column].as_str().expect("a time")).expect("a time")
}

#[test]
fn the_records_named_are_as_many_as_counted_in_windows_of_every_kind() {
    let hop = "HOP(TABLE hits, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '20' SECOND)";
    let kinds = [
        ("TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)", "4 s"),
        (hop, "0 s"),
        ("CUMULATE(TABLE hits, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '30' SECOND)", "3 s"),
        ("SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '2' SECOND)", "3 s"),
        ("COUNT_WINDOW(TABLE hits PARTITION BY page, DESCRIPTOR(ts), 5, INTERVAL '30' SECOND)", "0 s"),
    ];
    let mut late = 0;
    for (seed, (window, lateness)) in (1..).zip(kinds) {
        println!("seed {seed}: {window}");
        let (_, sim) = Env::sim(seed);
        let log = open(&sim, "/data");
        append(&log, &sim, &input(seed, 700), 20);
        let job = job_of(&sql_of(window, lateness));
        let request = Request { bounded: true, flush: true, ..Request::default() };
        job::run(&log, &job, &request, &mut Silent).expect("the run");
        let rows = rows_of(&log);
        assert!(rows.len() > 25, "{} rows show little", rows.len());
        for row in rows.iter().step_by(rows.len() / 12) {
            let (start, end) = (time(row, "window_start"), time(row, "window_end"));
            let question = Question {
                window_start_ms: start,
                window_end_ms: Some(end),
                key: Some(row["page"].as_str().expect("a page").to_owned()),
                ..Question::default()
            };
            let explained = job::explain(&log, &job, &question, &mut Silent).expect("explained");
            // Windows by count of one key may have the same bounds.
            let mut results = explained.iter().flat_map(|one| &one.events).filter_map(|event| match &event.what {
                Happened::Result(result) => Some(&**result),
                _ => None,
            });
            let text = row.to_string();
            let value_of = |result: &job::Traced| -> Option<Value> {
                serde_json::from_slice(result.record.as_ref()?.1.as_deref()?).ok()
            };
            let result = results.rfind(|result| value_of(result).as_ref() == Some(row));
            let result = result.unwrap_or_else(|| panic!("{text} is not explained: {explained:?}"));
            let members: Vec<u64> =
                result.parts.iter().flat_map(job::Part::records).map(|(position, ..)| position).collect();
            assert_eq!(row["n"].as_u64(), Some(members.len() as u64), "{text}");
            let mut total = 0;
            for event in explained.iter().flat_map(|one| &one.events) {
                late += usize::from(matches!(event.what, Happened::Late(_)));
                let Some(record) = event.record.as_ref().filter(|_| matches!(event.what, Happened::Record(_))) else {
                    continue;
                };
                if members.contains(&record.position.0) {
                    let seen: Value = serde_json::from_str(&record.seen.as_ref().expect("decoded").row).expect("JSON");
                    assert_eq!(seen["page"], row["page"]);
                    assert!((start..end).contains(&time(&seen, "ts")), "{seen} in {text}");
                    total += seen["ms"].as_i64().expect("a number");
                }
            }
            assert_eq!(row["total"].as_i64(), Some(total), "{text}");
        }
    }
    assert!(late > 0, "nothing was late: that shows little");
}

/// A row among the first of its window is asked for by its own key, or by that of the group that it is ranked in.
#[test]
fn ranked_rows_are_known_by_their_own_key() {
    let (_, sim) = Env::sim(7);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(7, 700), 20);
    let counts = "SELECT window_start, window_end, page, ms % 2 AS side, COUNT(*) AS n
        FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, page, ms % 2";
    let job = job_of(&format!(
        "CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms INT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'kappa', 'format' = 'json');
         CREATE TABLE counts (window_start TIMESTAMP(3), page STRING, side INT, n BIGINT) WITH ('connector' = 'kappa');
         INSERT INTO counts SELECT window_start, page, side, n FROM (SELECT *, ROW_NUMBER() OVER (
           PARTITION BY window_start, window_end, side ORDER BY n DESC, page) AS place FROM ({counts})) WHERE place <= 2;"
    ));
    let request = Request { bounded: true, flush: true, ..Request::default() };
    job::run(&log, &job, &request, &mut Silent).expect("the run");
    let ask = |row: &Value, key: String| {
        let question = Question { window_start_ms: time(row, "window_start"), key: Some(key), ..Question::default() };
        job::explain(&log, &job, &question, &mut Silent)
    };
    let results = |explained: &[job::Explained]| -> Vec<(Value, usize)> {
        let results = explained.iter().flat_map(|one| &one.events).filter_map(|event| match &event.what {
            Happened::Result(result) => Some(result),
            _ => None,
        });
        let value = |result: &job::Traced| serde_json::from_slice(result.record.as_ref()?.1.as_deref()?).ok();
        let records = |result: &job::Traced| result.parts.iter().flat_map(job::Part::records).count();
        results.map(|result| (value(result).expect("published"), records(result))).collect()
    };
    let rows = rows_of(&log);
    for row in rows.iter().step_by(rows.len() / 8) {
        let own = ask(row, format!("{},{}", row["page"].as_str().expect("a page"), row["side"])).expect("its own key");
        let records = row["n"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a count");
        assert_eq!(results(&own), [(row.clone(), records)]);
        let ranked_in = results(&ask(row, row["side"].to_string()).expect("the key that it is ranked in"));
        let beside = |other: &&Value| other["window_start"] == row["window_start"] && other["side"] == row["side"];
        assert_eq!(ranked_in.len(), rows.iter().filter(beside).count());
        assert!(ranked_in.contains(&(row.clone(), records)));
        let error = ask(row, "nobody".to_owned()).expect_err("no such key");
        let named = |hint: &str| hint.contains("keys of that window: {\"page\":");
        assert!(error.hint().is_some_and(named), "{error:?}");
    }
}

#[test]
fn a_window_that_is_not_there_is_said_with_the_nearest_ones() {
    let (_, sim) = Env::sim(5);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(5, 300), 20);
    let job = job_of(&sql_of("TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)", "0 s"));
    // Without a run the job is computed from its tables' starts.
    let ask = |start: i64, key: Option<&str>, output: Option<&str>| {
        let (key, output) = (key.map(str::to_owned), output.map(str::to_owned));
        let question = Question { window_start_ms: start, key, output, ..Question::default() };
        job::explain(&log, &job, &question, &mut Silent)
    };
    let first = 1_700_000_000_000;
    let error = ask(first + 5_000, Some("/p1"), None).expect_err("no such window");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().is_some_and(|hint| hint.contains("nearest windows of that key")), "{error:?}");
    let error = ask(first + 10_000, Some("/p9"), None).expect_err("no such key");
    assert!(error.hint().is_some_and(|hint| hint.contains("keys of that window: {\"page\":\"/p")), "{error:?}");
    let error = ask(first, None, Some("nothing")).expect_err("no such output");
    assert!(error.hint().is_some_and(|hint| hint.contains("counts")), "{error:?}");
    let all = ask(first + 10_000, None, Some("counts")).expect("explained");
    assert!(all.len() > 3, "every key of the window: {}", all.len());
}

#[test]
fn on_the_command_line() {
    let place = Place::new();
    place.write("job.sql", &sql_of("TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", "0 s"));
    let hit = |time: &str, page: &str| format!("{{\"ts\":\"2026-01-01 {time}\",\"page\":\"{page}\",\"ms\":5}}\n");
    let hits = [("00:00:10", "a"), ("00:00:20", "b"), ("00:00:40", "a"), ("00:01:30", "a"), ("00:00:50", "a")];
    place.write("hits.jsonl", &hits.map(|(time, page)| hit(time, page)).concat());
    place.ok(&["topic", "create", "hits"]);
    place.ok(&["produce", "hits", "hits.jsonl"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    let ask = ["explain", "job.sql", "--window", "2026-01-01 00:00:00", "--key", "a", "--rows"];
    let ran = place.kappa(&ask);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("2 records, 1 results, 1 too late"), "{}", ran.stderr);
    let events: Vec<&str> = ran.stdout.lines().skip(2).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(events, ["record", "record", "result", "late"], "{}", ran.stdout);
    assert!(ran.stdout.contains("by this record"), "{}", ran.stdout);
    let json = place.ok(&[&ask[..], &["--format", "json"]].concat());
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows[0]["offset"], 0);
    assert_eq!(rows[2]["watermark"], "2026-01-01T00:00:39.000Z");
    assert!(rows[2]["value"].as_str().is_some_and(|value| value.contains("\"n\":2")), "{json}");
    assert_eq!(rows[3]["windows"][0], "[2026-01-01T00:00:00.000Z,2026-01-01T00:01:00.000Z)");
    place.fails(&["explain", "job.sql", "--window", "2026-01-01 00:00:30"], 2, &["no window", "nearest windows"]);
    place.fails(&["explain", "job.sql", "--window", "soon"], 2, &["--window"]);
}
