//! Savepoints: two halves joined by one are the whole; a changed job goes on where it fits and is refused where it does not.

use crate::checkpoints::often;
use crate::laws::{SQL, append, bounded, input, job, open, output};
use crate::util::{Place, tell};
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{self, Job, Outcome, Point, Request, Silent, savepoint};
use kappa::log::Log;
use kappa::types::Position;
use kappa::{ErrorKind, sql};
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 900;

type Output = Vec<(String, Vec<String>)>;

fn whole(sim: &Sim, seed: u64) -> Output {
    let log = open(sim, "/whole");
    append(&log, sim, &input(seed, ROWS), 16);
    job::run(&log, &job(None), &bounded(1), &mut Silent).expect("the run");
    output(&log, &job(None))
}

/// A log with all records, and a run that has gone half the way.
fn half(sim: &Sim, seed: u64) -> Log {
    let log = open(sim, "/data");
    append(&log, sim, &input(seed, ROWS), 16);
    let to = Some(Point::Position(Position(ROWS as u64 / 2)));
    let request = Request { to, bounded: true, checkpoints: often(1 << 20), ..Request::default() };
    job::run(&log, &job(None), &request, &mut Silent).expect("half the run");
    log
}

/// The rows of both, one behind the other.
pub(crate) fn joined(first: &Output, second: &Output) -> Output {
    let rows = |output: &Output, topic: &str| {
        output.iter().find(|(name, _)| name == topic).map(|(_, rows)| rows.clone()).unwrap_or_default()
    };
    let mut topics: Vec<String> = first.iter().chain(second).map(|(topic, _)| topic.clone()).collect();
    topics.sort();
    topics.dedup();
    topics.into_iter().map(|topic| (topic.clone(), [rows(first, &topic), rows(second, &topic)].concat())).collect()
}

fn named(text: &str, name: &str) -> Job {
    Job { plan: Arc::new(sql::plan("laws.sql", text).expect("the plan")), name: name.into(), version: None }
}

#[test]
fn two_halves_joined_by_a_savepoint_are_the_whole() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let mut expected = whole(&sim, seed);
        expected.sort();
        let log = half(&sim, seed);
        let (dir, made) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
        assert_eq!(savepoint::list(&log).expect("listed")[0].1, made);
        let second = job(Some("v2"));
        savepoint::restore(&log, &second, &dir, None).expect("it fits");
        // Stopped and gone on in between, from the savepoint itself or from a checkpoint of its own.
        let to = Some(Point::Position(Position(ROWS as u64 * 3 / 4)));
        let part = Request { to, bounded: true, checkpoints: often(2_000), ..Request::default() };
        let report = job::run(&log, &second, &part, &mut Silent).expect("a part");
        assert_eq!(report.outcome, Outcome::Resumed);
        job::run(&log, &second, &bounded(2), &mut Silent).expect("the rest");
        assert_eq!(joined(&output(&log, &job(None)), &output(&log, &second)), expected, "seed {seed}");
        let verified = job::verify(&log, &second, &job::VerifyRequest::default(), &mut Silent)
            .expect("verified from its savepoint");
        assert_eq!(verified.differences, []);
        let again = job::run(&log, &second, &bounded(1), &mut Silent).expect("again");
        assert_eq!(again.outcome, Outcome::AlreadyComplete);
    }
}

#[test]
fn another_log_goes_on_from_it() {
    let (_, sim) = Env::sim(31);
    let whole = whole(&sim, 31);
    let log = half(&sim, 31);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    savepoint::export(&sim.env(), &dir, Path::new("/elsewhere/half")).expect("exported");
    let first = output(&log, &job(None));
    log.close().expect("closed");
    // It holds nothing but the records behind the savepoint.
    let other = open(&sim, "/other");
    append(&other, &sim, &input(31, ROWS)[ROWS / 2..], 16);
    let refused = savepoint::restore(&other, &job(None), Path::new("/elsewhere/half"), None);
    assert!(refused.is_ok() || refused.is_err_and(|e| e.hint().is_some_and(|hint| hint.contains("--at"))));
    let other_job = job(Some("moved"));
    savepoint::restore(&other, &other_job, Path::new("/elsewhere/half"), Some(Position(0))).expect("it fits");
    job::run(&other, &other_job, &bounded(1), &mut Silent).expect("the rest");
    let both = joined(&first, &output(&other, &other_job));
    // Late and rejected rows name offsets, which are others there.
    let main = |output: Output| output.into_iter().filter(|(topic, _)| !topic.contains('.')).collect::<Vec<_>>();
    let (mut both, mut whole) = (main(both), main(whole));
    both.sort();
    whole.sort();
    assert_eq!(both, whole);
}

#[test]
fn a_changed_job_goes_on_where_it_fits() {
    let (_, sim) = Env::sim(32);
    let whole = whole(&sim, 32);
    let log = half(&sim, 32);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    // One result less, one more, another name, a wider type.
    let changed = SQL
        .replace("COUNT(*), SUM(CAST(ms AS DOUBLE) / 7)", "COUNT(*), MAX(ms)")
        .replace(
            "counts (window_start TIMESTAMP(3), page STRING, n BIGINT, total DOUBLE)",
            "sums (window_start TIMESTAMP(3), page STRING, n BIGINT, most INT)",
        )
        .replace("INSERT INTO counts", "INSERT INTO sums")
        .replace("hops (window_start", "hops2 (window_start")
        .replace("INSERT INTO hops", "INSERT INTO hops2")
        .replace("visits (window_start", "visits2 (window_start")
        .replace("INSERT INTO visits", "INSERT INTO visits2");
    let changed = named(&changed, "changed");
    let (_, notes) = savepoint::restore(&log, &changed, &dir, None).expect("it fits");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("sums: max(ms) begins") && notes[1].ends_with("is left out"), "{notes:?}");
    job::run(&log, &changed, &bounded(1), &mut Silent).expect("the rest");
    let (first, second) = (output(&log, &job(None)), output(&log, &changed));
    let rows = |output: &Output, topic: &str| -> Vec<String> {
        output.iter().find(|(name, _)| name == topic).map(|(_, rows)| rows.clone()).expect("the topic")
    };
    assert_eq!([rows(&first, "hops"), rows(&second, "hops2")].concat(), rows(&whole, "hops"));
    assert_eq!([rows(&first, "visits"), rows(&second, "visits2")].concat(), rows(&whole, "visits"));
    // Counts went on; the new result begins with the records behind the savepoint.
    let counts = |rows: &[String]| -> Vec<String> {
        rows.iter()
            .map(|row| row.split("\"n\\\":").nth(1).expect("n").split([',', '}']).next().expect("a number").to_owned())
            .collect()
    };
    let behind = &rows(&whole, "counts")[rows(&first, "counts").len()..];
    assert_eq!(counts(&rows(&second, "sums")), counts(behind));
    assert!(rows(&second, "sums").iter().any(|row| row.contains("most")));
}

/// Sums and largest values of one window kind for each page, in columns of a type.
fn totals(name: &str, data_type: &str) -> Job {
    let window = "SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '4' SECOND)";
    named(
        &format!(
            "CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms {data_type}, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
             WITH ('connector' = 'kappa', 'format' = 'json');
             CREATE TABLE {name} (window_start TIMESTAMP(3), page STRING, total {data_type}, most {data_type})
             WITH ('connector' = 'kappa');
             INSERT INTO {name} SELECT window_start, page, SUM(ms), MAX(ms)
             FROM TABLE({window}) GROUP BY window_start, window_end, page;"
        ),
        name,
    )
}

#[test]
fn types_may_become_wider_and_not_narrower() {
    let (_, sim) = Env::sim(35);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(35, ROWS), 16);
    let (narrow, wide) = (totals("narrow", "INT"), totals("wide", "BIGINT"));
    let half = Request { to: Some(Point::Position(Position(ROWS as u64 / 2))), bounded: true, ..Request::default() };
    for (from, to, fits) in [(&narrow, &wide, true), (&wide, &totals("narrow2", "INT"), false)] {
        if !fits {
            job::run(&log, &Job { name: "wide3".into(), ..totals("wide3", "BIGINT") }, &half, &mut Silent)
                .expect("half");
            let (dir, _) = savepoint::create(&log, &totals("wide3", "BIGINT"), SQL, None).expect("a savepoint");
            let refused = savepoint::restore(&log, to, &dir, None).expect_err("narrower");
            assert!(refused.message().contains("sum(ms) was Int64"), "{refused}");
            continue;
        }
        job::run(&log, from, &half, &mut Silent).expect("half the run");
        let (dir, _) = savepoint::create(&log, from, SQL, None).expect("a savepoint");
        savepoint::restore(&log, to, &dir, None).expect("wider");
        job::run(&log, to, &bounded(1), &mut Silent).expect("the rest");
        let rows = |job: &Job| output(&log, job).remove(0).1;
        let both = [rows(from), rows(to)].concat();
        job::run(&log, from, &bounded(1), &mut Silent).expect("to its end");
        assert_eq!(both, rows(from));
    }
}

#[test]
fn what_does_not_fit_is_listed() {
    let (_, sim) = Env::sim(33);
    let log = half(&sim, 33);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    let other = SQL
        .replace("DESCRIPTOR(ts), INTERVAL '10' SECOND", "DESCRIPTOR(ts), INTERVAL '11' SECOND")
        .replace("page STRING, ms INT", "page INT, ms INT")
        .replace("page STRING", "page INT")
        .replace("counts", "counts3")
        .replace("hops", "hops3")
        .replace("visits", "visits3");
    let refused = savepoint::restore(&log, &named(&other, "other"), &dir, None).expect_err("it does not fit");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    for words in
        ["into counts3: windows: Tumble { size_ms: 10000", "into hops3: key types: Utf8, not Int32", "into visits3"]
    {
        assert!(refused.message().contains(words), "{words}: {refused}");
    }
    assert!(log.topic("counts3").is_err(), "nothing is left of a refused one");
    let twice = savepoint::restore(&log, &job(None), &dir, None).expect_err("it has a run");
    assert_eq!(twice.kind(), ErrorKind::Conflict);
}

#[test]
fn a_savepoint_that_was_changed_is_refused() {
    let (_, sim) = Env::sim(34);
    let log = half(&sim, 34);
    let (dir, made) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    for section in &made.sections {
        let path = dir.join(&section.file);
        let good = sim.disk.peek(&path).expect("there");
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 8;
        for bytes in [bad, good[..good.len() - 1].to_vec(), Vec::new()] {
            sim.disk.poke(&path, bytes);
            let refused = savepoint::restore(&log, &job(Some("v2")), &dir, None).expect_err("changed");
            assert_eq!(refused.kind(), ErrorKind::Damage, "{}", section.file);
        }
        sim.disk.poke(&path, good);
    }
    let path = dir.join("manifest.json");
    let text = String::from_utf8(sim.disk.peek(&path).expect("there")).expect("JSON");
    for (from, to) in [("state/0000", "state/../state/0000"), ("\"format\": 1", "\"format\": 9"), ("{", "[")] {
        sim.disk.poke(&path, text.replacen(from, to, 1).into_bytes());
        assert!(savepoint::restore(&log, &job(Some("v2")), &dir, None).is_err(), "{to}");
    }
    sim.disk.poke(&path, text.into_bytes());
    savepoint::restore(&log, &job(Some("v2")), &dir, None).expect("as it was");
    let none = savepoint::create(&log, &named(&SQL.replace("hits", "hits2"), "never"), SQL, None);
    assert_eq!(none.expect_err("no run").kind(), ErrorKind::NotFound);
}

const CLI_SQL: &str = "
CREATE TABLE ticks (ts TIMESTAMP(3), k STRING, v DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'kappa');
CREATE TABLE sums (window_start TIMESTAMP(3), k STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'kappa');
INSERT INTO sums SELECT window_start, k, COUNT(*) AS n, SUM(v) AS total
FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k;
";

#[test]
fn on_the_command_line() {
    let place = Place::new();
    place.write("job.sql", CLI_SQL);
    let tick =
        |n: u32| format!("{{\"ts\":\"2026-01-01 00:{:02}:{:02}\",\"k\":\"k{}\",\"v\":0.1}}\n", n / 60, n % 60, n % 3);
    place.write("first.jsonl", &(0..90).map(tick).collect::<String>());
    place.write("second.jsonl", &(90..300).map(tick).collect::<String>());
    place.ok(&["produce", "ticks", "first.jsonl"]);
    place.fails(&["savepoint", "create", "job.sql"], 2, &["no state that can be saved"]);
    place.fails(&["run", "job.sql", "--checkpoint-interval", "soon"], 2, &["not a duration"]);
    let ran = place.kappa(&["run", "job.sql", "--bounded", "--no-flush"]);
    assert!(
        ran.stderr.contains("  checkpoints: 1, the newest of 0.0 MiB; state was taken in at most"),
        "{}",
        ran.stderr
    );
    place.ok(&["savepoint", "create", "job.sql", "--to", "half"]);
    place.fails(&["savepoint", "create", "job.sql", "--to", "half"], 2, &["exists already"]);
    place.ok(&["savepoint", "create", "job.sql"]);
    assert!(place.ok(&["savepoint", "list", "--format", "csv"]).contains("job-90,job,90,"));
    let tables = place.ok(&["savepoint", "inspect", "half", "--format", "csv"]);
    let slice = tables.lines().find(|line| line.contains("/slice")).and_then(|line| line.split(',').next());
    let rows = place.ok(&["savepoint", "inspect", "half", "--section", slice.expect("a slice"), "--format", "csv"]);
    assert!(
        rows.starts_with("k,slice_start,slice_end,count(*).count,sum(v).") && rows.contains("k0,2026-01-01T00:01:00"),
        "{rows}"
    );
    place.ok(&["savepoint", "export", "job-90", "moved"]);
    place.ok(&["produce", "ticks", "second.jsonl"]);
    place.ok(&["savepoint", "restore", "moved", "job.sql", "--as", "v2"]);
    place.ok(&["run", "job.sql", "--as", "v2", "--bounded"]);
    let first = place.ok(&["consume", "sums", "--values"]);
    let second = place.ok(&["consume", "sums.v2", "--values"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    assert_eq!(first + &second, place.ok(&["consume", "sums", "--values"]));
    place.ok(&["verify", "job.sql", "--as", "v2"]);
    read_with_pyarrow(&place);
}

/// Other libraries read the state.
fn read_with_pyarrow(place: &Place) {
    let script = "import sys, json, pyarrow.ipc as ipc\n\
                  m = json.load(open('half/manifest.json'))\n\
                  print(sum(ipc.open_file('half/' + s['file']).read_all().num_rows == s['rows'] for s in m['sections']), len(m['sections']))";
    let python = std::process::Command::new("python3").current_dir(&place.dir).args(["-c", script]).output();
    match python {
        Ok(ran) if ran.status.success() => {
            let counts = String::from_utf8_lossy(&ran.stdout).into_owned();
            let (read, all) = counts.trim().split_once(' ').expect("two numbers");
            assert_eq!(read, all);
        }
        _ => tell("SKIPPED: python3 without pyarrow: nobody else has read a savepoint here"),
    }
}
