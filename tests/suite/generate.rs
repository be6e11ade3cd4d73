//! Made-up events: what `kappa generate` writes decodes, is as asked, and gives the same windows in whatever order it comes.

use crate::util::{Place, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

const VISITS: &str = "CREATE TABLE visits (ts TIMESTAMP(3), `user` STRING, session STRING, ip STRING, host STRING, referrer STRING,
  agent STRING, page STRING, status INT, bytes BIGINT, duration_ms INT, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('connector' = 'kappa', 'format' = 'json');
CREATE TABLE stays (window_start TIMESTAMP(3), `user` STRING, visits BIGINT, bytes BIGINT)
  WITH ('connector' = 'kappa', 'format' = 'json');
INSERT INTO stays SELECT window_start, `user`, COUNT(status), SUM(bytes) + SUM(duration_ms)
FROM TABLE(SESSION(TABLE visits PARTITION BY `user`, DESCRIPTOR(ts), INTERVAL '30' MINUTE)) GROUP BY window_start, window_end, `user`;";

fn rows(place: &Place, topic: &str) -> Vec<Value> {
    let text = place.ok(&["consume", topic, "--values"]);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn topics(place: &Place) -> Vec<String> {
    let list = place.ok(&["topic", "list", "--format", "json"]);
    let name = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["topic"].as_str().map(str::to_owned);
    list.lines().filter_map(name).collect()
}

#[test]
fn visits_decode_and_every_one_is_counted_or_late() {
    let place = Place::new();
    place.write("visits.sql", VISITS);
    let made = ["--events", "20000", "--events-per-second", "2", "--users", "200", "--partitions", "3"];
    let asked = ["--disorder", "5s", "--late", "0.05", "--late-by", "4h", "--seed", "5"];
    place.ok(&[&["generate", "web-events", "--topic", "visits"][..], &made, &asked].concat());
    place.ok(&["run", "visits.sql", "--bounded"]);
    assert!(!topics(&place).contains(&"stays.rejected".to_owned()), "{:?}", topics(&place));
    let stays = rows(&place, "stays");
    let counted: i64 = stays.iter().map(|row| row["visits"].as_i64().expect("a count")).sum();
    let late = rows(&place, "stays.late").len() as i64;
    assert_eq!(counted + late, 20_000);
    assert!(late > 0 && late <= 1_100, "{late} late ones of about 1,000 far behind");
    assert!(stays.len() > 400, "{} sessions", stays.len());
}

#[test]
fn a_file_holds_what_the_topic_holds() {
    let place = Place::new();
    let options = ["--events", "3000", "--seed", "9", "--disorder", "2s"];
    place.ok(&[&["generate", "web-events", "--out", "visits.jsonl"][..], &options].concat());
    let to_stdout = place.ok(&[&["generate", "web-events", "--out", "-"][..], &options].concat());
    assert_eq!(place.read("visits.jsonl"), to_stdout);
    assert_eq!(to_stdout.lines().count(), 3_000);
    place.ok(&[&["generate", "web-events", "--topic", "visits", "--rate", "100000"][..], &options].concat());
    assert_eq!(place.ok(&["consume", "visits", "--values"]), to_stdout);
    place.fails(&["generate", "web-events", "--out", "visits.jsonl"], 2, &["'visits.jsonl' exists"]);
}

#[test]
fn wrong_options_are_named() {
    let place = Place::new();
    for (options, words) in [
        (&["web-events", "--silent", "1"][..], "--silent 1 leaves none of 1 partitions"),
        (&["web-events", "--late", "1.5"], "--late 1.5: a share lies between 0 and 1"),
        (&["web-events", "--disorder", "5"], "--disorder"),
        (&["web-events", "--start", "9999-01-01"], "--start 9999-01-01: years from 1970 to 8999"),
        (&["nexmark", "--group", "953"], "--group 953: Nexmark cannot shuffle"),
        (&["nexmark", "--seed", "16777216"], "Nexmark has seeds up to 16777215"),
    ] {
        place.fails(&[&["generate"], options, &["--out", "-"]].concat(), 2, &[words]);
    }
    place.fails(&["generate", "nexmark"], 2, &["--topic", "--out"]);
}

/// The queries, by name.
fn queries() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("benches/nexmark"))
        .expect("benches/nexmark")
        .map(|entry| entry.expect("entry").path());
    let query = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("SQL"))
    };
    files.map(query).collect()
}

/// The sorted rows of a query over what is in the topic.
fn answer(place: &Place, query: &str, sql: &str) -> Vec<String> {
    place.write(&format!("{query}.sql"), sql);
    let ran = place.kappa(&["run", &format!("{query}.sql"), "--bounded"]);
    assert_eq!(ran.code, 0, "{query}: {}", ran.stderr);
    for topic in topics(place) {
        assert!(topic != format!("{query}.late") && topic != format!("{query}.rejected"), "there is a {topic}");
    }
    let mut rows: Vec<String> = place.ok(&["consume", query, "--values"]).lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

#[test]
fn every_nexmark_query_runs() {
    let queries = queries();
    assert_eq!(queries.len(), 10);
    let place = Place::new();
    place.ok(&["generate", "nexmark", "--topic", "nexmark", "--events", "5000", "--events-per-second", "200"]);
    for (query, sql) in &queries {
        let rows = answer(&place, query, sql);
        let expected = match query.as_str() {
            // 46 of 50 events are bids, and these queries pass all of them.
            "q0" | "q1" | "q22" => 4_600..=4_600,
            // A window of 10 seconds begins every 2 seconds, or every 10, of 25 seconds.
            "q5" => 17..=17,
            "q7" => 3..=3,
            _ => 1..=4_600,
        };
        assert!(expected.contains(&rows.len()), "{query}: {} rows", rows.len());
    }
}

#[test]
fn nexmark_in_another_order_gives_the_same_windows() {
    let queries = queries();
    let mut answers: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    for group in ["1", "1000", "10000"] {
        let place = Place::new();
        // 10,000 events are 3.3 seconds, the watermark's bound is 4.
        let events = ["--events", "30000", "--events-per-second", "3000", "--group", group];
        place.ok(&[&["generate", "nexmark", "--topic", "nexmark"][..], &events].concat());
        // q12 has windows of processing time: the order of arrival is their input.
        for query in ["q5", "q7", "q11"] {
            answers.entry(query).or_default().push(answer(&place, query, &queries[query]));
        }
    }
    assert!(answers.values().all(|answers| answers.len() == 3));
    for (query, answers) in answers {
        assert!(answers.iter().all(|rows| !rows.is_empty() && *rows == answers[0]), "{query} depends on the order");
    }
}

#[test]
fn nexmark_is_measured() {
    let place = Place::new();
    let bench = ["bench", "nexmark", "--events", "1000", "--rounds", "3", "--dir", "bench", "--format", "json"];
    let text = place.ok(&[&bench[..], &["--queries", "q0,q11"]].concat());
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let places: Vec<_> = rows.iter().map(|row| (row["query"].as_str(), row["from"].as_str())).collect();
    let from = |query| [(Some(query), Some("journal")), (Some(query), Some("history"))];
    assert_eq!(places, [from("q0"), from("q11")].concat());
    for row in &rows {
        assert!(row["min"].as_f64() <= row["median"].as_f64() && row["rounds"] == 3, "{row}");
    }
    assert_eq!((&rows[0]["rows_out"], &rows[1]["rows_out"]), (&920.into(), &920.into()));
    assert!(rows[2]["rows_out"] != 0 && rows[2]["rows_out"] == rows[3]["rows_out"], "{text}");
    assert!(!place.path("bench").exists(), "its folder is removed");
}
