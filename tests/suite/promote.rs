//! Another version becomes the live one: readers of the output see each window once and in order, whatever crashes.

use crate::dice::Dice;
use crate::laws::open;
use crate::util::Place;
use kappa::engine::functions::FunctionRegistry;
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::registry::{self, Submission, Submitted};
use kappa::job::{self, Job, Point, Request, Silent, VerifyRequest};
use kappa::log::inspect::inspect;
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Consumer, Log, TopicConfig};
use kappa::types::Position;
use kappa::{ErrorKind, sql};
use std::path::Path;
use std::sync::Arc;

/// The first version misses hits and waits longer than the second.
fn text(most: u32, delay: u32, window: &str) -> String {
    format!(
        "CREATE TABLE hits (ts TIMESTAMP(3), k STRING, n INT, WATERMARK FOR ts AS ts - INTERVAL '{delay}' SECOND)
           WITH ('connector' = 'kappa');
         CREATE TABLE counts (window_start TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'kappa');
         INSERT INTO counts SELECT window_start, k, COUNT(*)
         FROM TABLE({window}) WHERE n < {most} GROUP BY window_start, window_end, k;"
    )
}

const TUMBLE: &str = "TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)";

fn submit(log: &Log, sql: &str) -> kappa::Result<Submitted> {
    let (name, file, sql) = ("visits".to_owned(), "visits.sql".to_owned(), sql.to_owned());
    registry::submit(log, FunctionRegistry::none(), Submission { name, file, sql, ..Submission::default() })
}

fn append(log: &Log, dice: &mut Dice, from: u64, to: u64) {
    let hits = log.topic("hits").or_else(|_| log.create_topic("hits", TopicConfig::default())).expect("a topic");
    for second in from..to {
        let mut rows = RecordColumns::default();
        for _ in 0..3 {
            let ms = second * 1000 + dice.below(4_000);
            let (minute, ms) = (ms / 60_000, ms % 60_000);
            let ts = format!("2026-01-01 {:02}:{:02}:{:02}.{:03}", minute / 60, minute % 60, ms / 1000, ms % 1000);
            let value = format!("{{\"ts\":\"{ts}\",\"k\":\"k{}\",\"n\":{}}}", dice.below(4), dice.below(5));
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::ByKey, &record);
        }
        log.append_wait(AppendBatch::records(hits.id(), rows)).expect("appended");
    }
}

/// Runs all versions to the end of the log, as `up` would.
fn run_all(log: &Log) {
    let registered = registry::get(log, "visits").expect("the job");
    for version in &registered.versions {
        let job = registered.job(version.number, FunctionRegistry::none()).expect("a plan");
        let (request, now) = (job::request_of(log, &job, version).expect("a request"), log.clock());
        let to = Some(Point::Reading(now.position, now.append_time));
        job::run(log, &job, &Request { to, bounded: true, ..request }, &mut Silent).expect("a run");
    }
}

/// Timestamp and value of each row.
fn rows(log: &Log, topic: &str) -> Vec<(i64, String)> {
    let Ok(topic) = log.topic(topic) else { return Vec::new() };
    let mut reader = log.reader(&[topic.id()], Position(0));
    let mut rows = Vec::new();
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        let value = |row| String::from_utf8_lossy(batch.values.value(row)).into_owned();
        rows.extend((0..batch.len()).map(|row| (batch.timestamp_ms(row).expect("a window"), value(row))));
    }
    rows
}

/// All rows of a version, computed anew beside it.
fn whole(log: &Log, sql: &str, name: &str) -> Vec<(i64, String)> {
    let plan = sql::plan("visits.sql", sql).expect("a plan");
    let job = Job { plan: Arc::new(plan), name: "whole".into(), version: Some(name.into()) };
    job::run(log, &job, &Request { bounded: true, ..Request::default() }, &mut Silent).expect("a run");
    rows(log, &format!("counts.{name}"))
}

fn promote(log: &Log, to: Option<u32>) -> kappa::Result<job::Promoted> {
    job::promote(log, FunctionRegistry::none(), "visits", to, false, &mut Silent)
}

fn started(sim: &Sim) -> Log {
    sim.clock.set_wall_us(1_767_300_000_000_000);
    let log = open(sim, "/data");
    append(&log, &mut Dice::new(1), 0, 60);
    submit(&log, &text(3, 5, TUMBLE)).expect("v1");
    submit(&log, &text(4, 0, TUMBLE)).expect("v2");
    run_all(&log);
    log
}

fn verify_all(log: &Log) {
    let registered = registry::get(log, "visits").expect("the job");
    for version in &registered.versions {
        let job = registered.job(version.number, FunctionRegistry::none()).expect("a plan");
        let report = job::verify(log, &job, &VerifyRequest::default(), &mut Silent).expect("verified");
        assert_eq!(report.differences, [], "{}", version.label());
    }
}

#[test]
fn readers_see_each_window_once_through_a_switch_and_back() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let log = started(&sim);
        let mut dice = Dice::new(seed);
        let counts = log.topic("counts").expect("the output");
        let mut seen = Vec::new();
        let mut read = |log: &Log| {
            // A new consumer each time: it goes on where the group has committed.
            let mut consumer = Consumer::new(log, &counts, Some("readers")).expect("a consumer");
            for record in consumer.poll(100_000).expect("readable") {
                let value = String::from_utf8(record.value.expect("a value")).expect("text");
                seen.push((record.timestamp_ms.expect("a window"), value));
            }
            consumer.commit().expect("committed");
        };
        read(&log);
        let there = promote(&log, Some(2)).expect("promoted");
        assert!(there.outputs[0].1 > 0, "nothing was copied: the test would show too little");
        read(&log);
        append(&log, &mut dice, 60, 95 + seed);
        run_all(&log);
        read(&log);
        let back = promote(&log, None).expect("rolled back");
        append(&log, &mut dice, 95 + seed, 200);
        run_all(&log);
        read(&log);
        verify_all(&log);
        let cuts = [&there, &back].map(|promoted| promoted.switch.outputs[0].cut_ms.expect("a cut"));
        let (v1, v2) = (whole(&log, &text(3, 5, TUMBLE), "a"), whole(&log, &text(4, 0, TUMBLE), "b"));
        let part = |rows: &[(i64, String)], from: i64, to: i64| {
            rows.iter().filter(|(ms, _)| (from..to).contains(ms)).cloned().collect::<Vec<_>>()
        };
        let expected =
            [part(&v1, i64::MIN, cuts[0]), part(&v2, cuts[0], cuts[1]), part(&v1, cuts[1], i64::MAX)].concat();
        assert!(expected.len() > 60 && cuts[0] < cuts[1]);
        assert_eq!(seen, expected, "seed {seed}");
        assert!(seen.is_sorted_by_key(|(ms, _)| *ms));
        let live = registry::get(&log, "visits").expect("the job").live;
        assert_eq!((live, rows(&log, "counts")), (1, seen));
    }
}

#[test]
fn a_crash_leaves_all_of_a_switch_or_nothing() {
    let (_, sim) = Env::sim(5);
    let log = started(&sim);
    let before = log.durable_end();
    promote(&log, Some(2)).expect("promoted");
    let expected = rows(&log, "counts");
    log.close().expect("closed");
    let whole = sim.disk.copy();
    let seen = inspect(&sim.env(), Path::new("/data")).expect("inspected");
    let [file] = &seen.files[..] else { panic!("one file is enough for this input") };
    let frames: Vec<_> = file.frames.iter().filter(|frame| frame.first_position >= before.0).collect();
    let (path, bytes) = whole.files().into_iter().find(|(path, _)| path.ends_with(&file.name)).expect("the journal");
    let mut lives = Vec::new();
    for cut in frames.iter().flat_map(|frame| [1, 2, 3, 4].map(|part| frame.at + u64::from(frame.bytes) * part / 4)) {
        let disk = whole.copy();
        disk.poke(&path, bytes[..usize::try_from(cut).expect("small")].to_vec());
        let sim = sim.with_disk(disk);
        let log = open(&sim, "/data");
        let live = registry::get(&log, "visits").expect("the job").live;
        let got = rows(&log, "counts");
        match live {
            1 => assert!(got.len() < expected.len() && expected.starts_with(&got), "cut at byte {cut}"),
            _ => assert_eq!(got, expected, "cut at byte {cut}"),
        }
        lives.push(live);
        if live == 1 {
            promote(&log, Some(2)).expect("promoted");
        }
        run_all(&log);
        assert_eq!(rows(&log, "counts"), expected, "cut at byte {cut}");
        verify_all(&log);
    }
    assert!(lives.contains(&1) && lives.contains(&2) && lives.is_sorted(), "{lives:?}");
}

#[test]
fn versions_without_a_common_boundary_are_refused_with_the_reason() {
    for (sql, why) in [
        (text(4, 0, "TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '7' SECOND)"), "where no window"),
        (text(4, 0, "SESSION(TABLE hits PARTITION BY k, DESCRIPTOR(ts), INTERVAL '9' SECOND)"), "sessions"),
        (
            format!("{}\nCREATE CHECK few AS SELECT k, n FROM counts WHERE n > 5;", text(4, 0, TUMBLE)),
            "check few failed",
        ),
        (text(4, 0, TUMBLE).replace("n BIGINT", "m BIGINT"), "columns differ"),
        (text(4, 0, TUMBLE).replace("counts", "others"), "different outputs"),
    ] {
        let (_, sim) = Env::sim(6);
        sim.clock.set_wall_us(1_767_300_000_000_000);
        let log = open(&sim, "/data");
        append(&log, &mut Dice::new(1), 0, 60);
        submit(&log, &text(3, 5, TUMBLE)).expect("v1");
        submit(&log, &sql).expect("v2");
        run_all(&log);
        let before = rows(&log, "counts");
        let refused = promote(&log, Some(2)).expect_err("no common boundary");
        assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains(why), "{refused}");
        assert_eq!(promote(&log, Some(1)).expect_err("live").kind(), ErrorKind::Conflict);
        assert_eq!(promote(&log, None).expect_err("nothing to go back to").kind(), ErrorKind::Conflict);
        assert_eq!(promote(&log, Some(7)).expect_err("no such version").kind(), ErrorKind::NotFound);
        assert_eq!(registry::get(&log, "visits").expect("the job").live, 1);
        assert!(rows(&log, "counts").starts_with(&before));
        verify_all(&log);
        let forced = job::promote(&log, FunctionRegistry::none(), "visits", Some(2), true, &mut Silent);
        assert_eq!(forced.is_ok(), why.starts_with("check"), "force is for checks only");
    }
}

fn feed(place: &Place, from: u32, to: u32) {
    let line = |hit: u32| {
        let (minute, second) = (hit / 60, hit % 60);
        format!("{{\"ts\":\"2026-01-01 00:{minute:02}:{second:02}\",\"k\":\"k{}\",\"n\":{}}}\n", hit % 3, hit % 5)
    };
    place.write("hits.jsonl", &(from..to).map(line).collect::<String>());
    place.ok(&["produce", "hits", "hits.jsonl"]);
}

#[test]
fn a_wrong_filter_is_fixed_with_the_real_binary() {
    let place = Place::new();
    place.write("visits.sql", &text(3, 1, TUMBLE));
    place.write("fixed.sql", &text(5, 1, TUMBLE));
    feed(&place, 0, 300);
    place.ok(&["job", "submit", "visits.sql", "--name", "visits"]);
    place.ok(&["up", "--stop-when-idle"]);
    place.fails(&["replay", "nobody", "--from", "earliest"], 2, &["no job 'nobody'"]);
    place.fails(&["replay", "visits", "--from", "earliest", "--as", "v9"], 2, &["no version v9", "v2"]);
    place.fails(&["replay", "visits", "--from", "earliest", "--restart"], 2, &["--restart is for files", "job delete"]);
    let replayed = place.kappa(&["replay", "visits", "--from", "2026-01-01T00:02", "--sql", "fixed.sql"]);
    assert!(replayed.code == 0 && replayed.stderr.contains("visits v2 has caught up"), "{}", replayed.stderr);
    let v2 = place.ok(&["consume", "counts.v2", "--values"]);
    assert!(v2.starts_with("{\"window_start\":\"2026-01-01 00:02:00\""), "{v2}");
    place.fails(&["run", "visits.sql", "--as", "v2", "--bounded"], 2, &["version of the submitted job"]);
    let seen = place.ok(&["consume", "counts", "--values"]);
    let diff = place.kappa(&["diff", "visits", "v1", "v2"]);
    assert!(diff.code == 1 && diff.stderr.contains("36 removed, 51 changed"), "{}", diff.stderr);
    let live = place.kappa(&["diff", "visits", "-", "v2"]);
    assert_eq!((live.code, live.stdout), (1, diff.stdout), "the live version is v1: {}", live.stderr);
    place.ok(&["explain", "visits", "--window", "2026-01-01T00:02:00"]);
    place.ok(&["receipt", "visits"]);
    let promoted = place.kappa(&["promote", "visits", "v2"]);
    assert!(promoted.code == 0 && promoted.stderr.contains("v2 is live from position"), "{}", promoted.stderr);
    feed(&place, 300, 400);
    place.ok(&["up", "--stop-when-idle"]);
    let across = place.ok(&["consume", "counts", "--values"]);
    // Before the switch 6 of 10 hits count, after it all.
    let sums = |text: &str| -> u32 {
        let count = |row: &str| row.rsplit(':').next().and_then(|n| n.trim_end_matches('}').parse::<u32>().ok());
        text.lines().map(|row| count(row).expect("a count")).sum()
    };
    assert!(across.starts_with(&seen));
    assert_eq!((sums(&seen), sums(&across[seen.len()..])), (29 * 6, 10 * 10));
    for args in [&["verify", "visits"][..], &["verify", "visits", "--as", "v1"]] {
        place.ok(args);
    }
    let back = place.kappa(&["promote", "visits", "--rollback"]);
    assert!(back.code == 0 && back.stderr.contains("v1 is live"), "{}", back.stderr);
    feed(&place, 400, 460);
    place.ok(&["up", "--stop-when-idle"]);
    let all = place.ok(&["consume", "counts", "--values"]);
    assert!(all.starts_with(&across));
    assert_eq!(sums(&all[across.len()..]), 6 * 6);
    place.ok(&["verify", "visits", "--as", "v2"]);
    let show = place.kappa(&["job", "show", "visits"]);
    assert!(show.stderr.contains("v2 became live at position"), "{}", show.stderr);
}
