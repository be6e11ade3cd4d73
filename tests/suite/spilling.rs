//! `--state-memory` in the real binary: a job with ten times the state of its budget, killed on the way and not.

use crate::util::Place;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::time::Duration;

const SQL: &str = "
CREATE TABLE hits (ts TIMESTAMP(3), id STRING, v DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '1' DAY) WITH ('connector' = 'kappa');
CREATE TABLE sums (window_start TIMESTAMP(3), id STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'kappa');
INSERT INTO sums SELECT window_start, id, COUNT(*), SUM(v / 7)
  FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' MINUTE)) GROUP BY window_start, window_end, id HAVING COUNT(*) > 1;
";

/// The same by session: all of them are open until the end.
const SESSIONS: &str = "
CREATE TABLE hits (ts TIMESTAMP(3), id STRING, v DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '1' DAY) WITH ('connector' = 'kappa');
CREATE TABLE sums (window_start TIMESTAMP(3), id STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'kappa');
INSERT INTO sums SELECT window_start, id, COUNT(*), SUM(v / 7)
  FROM TABLE(SESSION(TABLE hits PARTITION BY id, DESCRIPTOR(ts), INTERVAL '2' MINUTE)) GROUP BY window_start, window_end, id
  HAVING COUNT(*) > 2;
";

/// Events over an hour, whose windows are all open until the end.
const EVENTS: u64 = 800_000;

/// A visitor anywhere in the hour.
fn anybody(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 600_000
}

/// A new visitor, who stays for two more records; now and then one of the hour returns.
fn visitor(n: u64) -> u64 {
    if n.is_multiple_of(300) { anybody(n) % (n / 3 + 1) } else { n / 3 }
}

fn place(sql: &str, id_of: impl Fn(u64) -> u64) -> Place {
    let place = Place::new();
    place.write("sums.sql", sql);
    let mut file = BufWriter::new(File::create(place.path("hits.jsonl")).expect("a file"));
    for n in 0..EVENTS {
        let second = n * 3600 / EVENTS;
        let (id, v) = (id_of(n), n % 1000);
        let (minute, second) = (second / 60, second % 60);
        writeln!(file, "{{\"ts\":\"2026-01-01 12:{minute:02}:{second:02}\",\"id\":\"visitor-{id:012}\",\"v\":{v}.25}}")
            .expect("room");
    }
    file.flush().expect("room");
    place.ok(&["topic", "create", "hits"]);
    place.ok(&["produce", "hits", "hits.jsonl"]);
    place
}

/// Runs the job; gives the digest of its output, the largest anonymous memory of the process in MiB, and what it said.
fn run(place: &Place, args: &[&str]) -> (String, u64, String) {
    let mut all = vec!["run", "sums.sql", "--bounded", "--checkpoint-interval", "1s"];
    all.extend_from_slice(args);
    let mut child = place.command(&all).spawn().expect("kappa starts");
    let mut most_kib = 0;
    while child.try_wait().expect("a state").is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most_kib = most_kib.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("kappa ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let digest = said.split("digest ").nth(1).map(|rest| rest[..16].to_owned()).expect("a digest");
    (digest, most_kib / 1024, said)
}

/// Runs the job with and without a budget.
fn check(place: &Place, budget: &str) {
    let (expected, whole_mib, said) = run(place, &["--as", "whole"]);
    assert!(!said.contains("went to disk"), "{said}");
    let (digest, most_mib, said) = run(place, &["--as", "small", "--state-memory", budget]);
    println!("{whole_mib} MiB without a budget, {most_mib} MiB with {budget}\n{said}");
    assert_eq!(digest, expected);
    assert!(said.contains("went to disk"), "{said}");
    assert!(most_mib + 30 < whole_mib, "{most_mib} MiB, {whole_mib} MiB without a budget");
}

#[test]
fn a_job_with_ten_times_its_memory_gives_the_same_bytes() {
    check(&place(SQL, anybody), "8MiB");
}

#[test]
fn sessions_with_ten_times_their_memory_give_the_same_bytes() {
    check(&place(SESSIONS, visitor), "8MiB");
}

#[test]
fn a_killed_job_leaves_nothing_and_goes_on() {
    let place = place(SQL, anybody);
    let (expected, ..) = run(&place, &["--as", "whole"]);
    let args =
        ["run", "sums.sql", "--bounded", "--as", "small", "--state-memory", "4MiB", "--checkpoint-interval", "100ms"];
    let mut child = place.command(&args).spawn().expect("kappa starts");
    let spill = place.path("data").join("spill");
    let files = || -> usize {
        let dirs = fs::read_dir(&spill).into_iter().flatten().flatten();
        dirs.map(|dir| fs::read_dir(dir.path()).into_iter().flatten().count()).sum()
    };
    while files() < 2 {
        assert!(child.try_wait().expect("a state").is_none(), "it ended before anything was spilled");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert!(files() > 0);
    place.ok(&["topic", "list"]);
    place.ok(&["topic", "create", "another"]);
    assert_eq!(files(), 0);
    let (digest, _, said) = run(&place, &["--as", "small", "--state-memory", "4MiB"]);
    println!("{said}");
    assert_eq!(digest, expected);
    assert_eq!(files(), 0);
    place.ok(&["verify", "sums.sql", "--as", "small", "--state-memory", "4MiB"]);
}
