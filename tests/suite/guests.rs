//! Commands while another process has the data folder: they run in that process, and behave as if they had it themselves.

use crate::util::{Place, Running, eventually};
use kappa::env::Env;
use kappa::log::{Log, LogOptions};
use std::io::Write;

const SQL: &str = "
CREATE TABLE clicks (ts TIMESTAMP(3), k STRING, n INT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'kappa');
CREATE TABLE counts (window_start TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO counts SELECT window_start, k, COUNT(*)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE n < 3 GROUP BY window_start, window_end, k;
CREATE CHECK few WITH ('severity' = 'warn') AS SELECT * FROM counts WHERE n > 100;
";

fn clicks(from: u32, to: u32) -> String {
    let line = |click: u32| {
        let (minute, second) = (click / 20, click % 20 * 3);
        format!("{{\"ts\":\"2026-01-01 00:{minute:02}:{second:02}\",\"k\":\"k{}\",\"n\":{}}}\n", click % 3, click % 5)
    };
    (from..to).map(line).collect()
}

fn produce(place: &Place, from: u32, to: u32) {
    let ran = place.kappa_with(&["produce", "clicks", "-"], &clicks(from, to));
    assert!(ran.code == 0 && ran.stderr.contains(&format!("{} records", to - from)), "{}", ran.stderr);
}

fn with_up() -> (Place, Running) {
    let place = Place::new();
    place.write("visits.sql", SQL);
    place.write("fixed.sql", &SQL.replace("n < 3", "n < 4"));
    produce(&place, 0, 20);
    place.ok(&["job", "submit", "visits.sql", "--name", "visits"]);
    let up = place.start(&["up"]);
    eventually("up listens", || place.path("data/SOCKET").exists());
    (place, up)
}

fn rows(place: &Place, topic: &str) -> usize {
    let ran = place.kappa(&["consume", topic, "--values"]);
    ran.stdout.lines().count()
}

#[test]
fn commands_work_while_up_has_the_log() {
    let (place, up) = with_up();
    produce(&place, 20, 100);
    eventually("the job has read them", || rows(&place, "counts") > 20);
    assert!(place.ok(&["topic", "list", "--format", "csv"]).contains("clicks,1,100,"));
    place.ok(&["topic", "create", "other"]);
    place.ok(&["job", "pause", "visits"]);
    assert!(place.ok(&["job", "list", "--format", "csv"]).contains("visits,v1,true,paused,"));
    let paused = rows(&place, "counts");
    produce(&place, 100, 200);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(rows(&place, "counts"), paused);
    place.ok(&["job", "resume", "visits"]);
    eventually("the job goes on", || rows(&place, "counts") > paused);
    place.ok(&["job", "submit", "fixed.sql", "--name", "visits"]);
    eventually("v2 runs beside it", || rows(&place, "counts.v2") > rows(&place, "counts"));
    let diff = place.kappa(&["diff", "visits", "v1", "v2"]);
    assert!(diff.code == 1 && diff.stdout.contains("k0"), "{}{}", diff.stdout, diff.stderr);
    assert_eq!(place.kappa(&["check", "visits"]).code, 0);
    let explained = place.ok(&["explain", "visits", "--window", "2026-01-01 00:01:00", "--format", "csv"]);
    assert!(explained.contains("counts.v1,"), "{explained}");
    place.fails(&["topic", "describe", "nothing"], 2, &["nothing"]);
    place.fails(&["up"], 4, &["is in use by process", "stop"]);
    let ended = up.interrupt();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!place.path("data/SOCKET").exists());
    place.ok(&["verify", "visits"]);
}

#[test]
fn up_waits_for_a_short_command_that_has_the_log() {
    let place = Place::new();
    place.write("visits.sql", SQL);
    produce(&place, 0, 100);
    place.ok(&["job", "submit", "visits.sql", "--name", "visits"]);
    let log = Log::open(&Env::os(), &place.path("data"), LogOptions::default()).expect("free");
    let up = place.start(&["up", "--stop-when-idle"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    log.close().expect("closed");
    let ended = up.ended();
    assert!(ended.code == 0 && ended.stderr.contains("visits v1: running"), "{}", ended.stderr);
}

#[test]
fn streams_go_both_ways_until_the_user_or_the_owner_stops() {
    let (place, up) = with_up();
    let mut producer = place.start(&["produce", "clicks", "-"]);
    let stdin = producer.child().stdin.as_mut().expect("piped");
    stdin.write_all(clicks(20, 30).as_bytes()).expect("taken");
    eventually("what came is durable while the pipe is open", || rows(&place, "clicks") == 30);
    let follower = place.start(&["consume", "clicks", "--values", "--follow"]);
    producer.child().stdin.take();
    assert_eq!(producer.ended().code, 0);
    produce(&place, 30, 40);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let followed = follower.interrupt();
    assert_eq!((followed.code, followed.stdout), (0, clicks(0, 40)), "{}", followed.stderr);
    let cut_off = place.start(&["consume", "clicks", "--values", "--follow"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let ended = up.interrupt();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(cut_off.ended().stdout, clicks(0, 40));
}

#[test]
fn after_the_owner_was_killed_commands_open_the_log_themselves() {
    let (place, up) = with_up();
    produce(&place, 20, 40);
    let follower = place.start(&["consume", "clicks", "--values", "--follow"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    up.kill();
    let cut_off = follower.ended();
    assert!(cut_off.code == 4 && cut_off.stderr.contains("has ended"), "{}", cut_off.stderr);
    assert!(place.path("data/SOCKET").exists(), "nobody was there to remove it");
    assert_eq!(rows(&place, "clicks"), 40);
    let up = place.start(&["up"]);
    produce(&place, 40, 50);
    up.kill();
    assert_eq!(rows(&place, "clicks"), 50);
}

#[test]
fn paths_are_those_of_the_users_folder_and_long_ones_work() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("below")).expect("a folder");
    place.write("below/clicks.jsonl", &clicks(0, 10));
    let data = place.path(&"a-long-name-".repeat(12)).display().to_string();
    let kappa = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kappa"));
        command.args(args).args(["--data", &data]).current_dir(place.path("below")).output().expect("kappa starts")
    };
    assert!(kappa(&["topic", "create", "clicks"]).status.success());
    let mut up = std::process::Command::new(env!("CARGO_BIN_EXE_kappa"));
    let mut up = up.args(["up", "--data", &data]).current_dir(&place.dir).spawn().expect("kappa starts");
    eventually("up listens", || std::path::Path::new(&data).join("SOCKET").exists());
    let produced = kappa(&["produce", "clicks", "clicks.jsonl"]);
    let consumed = kappa(&["consume", "clicks", "--values"]);
    up.kill().and_then(|()| up.wait()).expect("ended");
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    assert_eq!(String::from_utf8_lossy(&consumed.stdout), clicks(0, 10));
}

/// How many clicks of a key an output counts in a window: `n < most` is its filter.
fn counted(window: &str, key: &str, most: u32) -> u32 {
    let is_in = |line: &&str| line.contains(&format!("\"k\":\"{key}\"")) && line.contains(&window[..window.len() - 1]);
    let number = |line: &str| line.rsplit(':').next().and_then(|n| n.trim_end_matches('}').parse().ok()).unwrap_or(0);
    clicks(0, 1_000).lines().filter(is_in).map(number).filter(|n: &u32| *n < most).count() as u32
}

/// Start and key of the window, and the count, of a row.
fn parts(row: &str) -> (String, String, u32) {
    let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
    let text = |column: &str| row[column].as_str().expect("text").to_owned();
    (text("window_start"), text("k"), u32::try_from(row["n"].as_u64().expect("a count")).expect("small"))
}

fn says(place: &Place, args: &[&str], words: &str) {
    let ran = place.kappa(args);
    assert!(ran.code == 0 && ran.stderr.contains(words), "kappa {args:?}: {}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_fix_goes_live_and_back_while_up_runs() {
    let (place, up) = with_up();
    eventually("the output is there", || place.kappa(&["topic", "describe", "counts"]).code == 0);
    let reader = place.start(&["consume", "counts", "--values", "--follow"]);
    produce(&place, 20, 300);
    eventually("v1 has counted", || rows(&place, "counts") > 140);
    says(&place, &["replay", "visits", "--from", "2026-01-01", "--sql", "fixed.sql"], "v2 has caught up");
    assert_eq!(place.kappa(&["diff", "visits", "v1", "v2"]).code, 1);
    place.ok(&["check", "visits", "--as", "v2"]);
    says(&place, &["promote", "visits", "v2"], "v2 is live from position");
    let switched = rows(&place, "counts");
    produce(&place, 300, 400);
    eventually("v2 goes on", || rows(&place, "counts") > switched + 40);
    assert!(place.ok(&["job", "list", "--format", "csv"]).contains("visits,v2,true,running,"));
    says(&place, &["promote", "visits", "--rollback"], "v1 is live from position");
    let switched = rows(&place, "counts");
    produce(&place, 400, 500);
    eventually("v1 goes on", || rows(&place, "counts") > switched + 30);
    for version in ["v1", "v2"] {
        place.ok(&["verify", "visits", "--as", version]);
    }
    let read = reader.interrupt().stdout;
    let read: Vec<_> = read.lines().map(parts).collect();
    assert!(read.windows(2).all(|pair| pair[0].0 <= pair[1].0), "in order");
    let windows: std::collections::BTreeSet<_> = read.iter().map(|(window, key, _)| (window, key)).collect();
    assert_eq!(windows.len(), read.len(), "each once");
    // By whom a row is, where it can be told.
    let by = |(window, key, n): &(String, String, u32)| {
        let [v1, v2] = [3, 4].map(|most| counted(window, key, most));
        assert!(*n == v1 || *n == v2, "{window} {key}: {n} is neither {v1} nor {v2}");
        (v1 != v2).then_some(if *n == v1 { 1 } else { 2 })
    };
    let mut writers: Vec<u32> = read.iter().filter_map(by).collect();
    writers.dedup();
    assert_eq!(writers, [1, 2, 1], "two switches");
    assert_eq!(up.interrupt().code, 0);
    place.ok(&["verify", "visits"]);
}

#[test]
fn who_works_with_a_version_is_named_and_can_be_stopped() {
    let (place, up) = with_up();
    produce(&place, 20, 200);
    let mut replay = place.start(&["replay", "visits", "--from", "earliest", "--sql", "fixed.sql", "--max-rate", "20"]);
    eventually("v2 is there", || place.ok(&["job", "list", "--format", "csv"]).contains("visits,v2,false,running,"));
    for args in [&["promote", "visits", "v2"][..], &["job", "delete", "visits", "--version", "v2"]] {
        place.fails(args, 4, &["'visits.v2' is in use", "`kappa replay`", "stop it"]);
    }
    assert!(replay.child().try_wait().expect("a child").is_none());
    let stopped = replay.interrupt();
    assert!(stopped.code == 0 && stopped.stderr.contains("was interrupted and is paused"), "{}", stopped.stderr);
    assert!(place.ok(&["job", "list", "--format", "csv"]).contains("visits,v2,false,paused,"));
    place.ok(&["job", "resume", "visits", "--version", "v2"]);
    place.fails(&["job", "delete", "visits", "--version", "v1"], 2, &["v1", "is live"]);
    says(&place, &["job", "delete", "visits", "--version", "v2", "--outputs"], "topic 'counts.v2' deleted");
    says(&place, &["job", "delete", "visits", "--outputs"], "job 'visits' deleted");
    assert_eq!(place.ok(&["job", "list", "--format", "csv"]).lines().count(), 1);
    let ended = up.interrupt();
    assert!(ended.code == 0 && !ended.stderr.contains("failed"), "{}", ended.stderr);
}

#[test]
fn files_run_and_savepoints_are_taken_beside_up() {
    let (place, up) = with_up();
    produce(&place, 20, 100);
    place.write("other.sql", &SQL.replace("counts", "others"));
    says(&place, &["run", "other.sql", "--bounded"], "others: ");
    let others = rows(&place, "others");
    place.fails(&["job", "submit", "other.sql"], 2, &["others", "--restart"]);
    let live = place.start(&["run", "other.sql", "--as", "live"]);
    eventually("a live run beside it", || rows(&place, "others.live") > 20);
    place.fails(&["run", "other.sql", "--as", "live", "--bounded"], 4, &["'other.live' is in use", "another run"]);
    says(&place, &["job", "submit", "other.sql", "--restart"], "v1 is new");
    eventually("up runs it", || (20..others).contains(&rows(&place, "others")));
    let ended = live.interrupt();
    assert!(ended.code == 0 && ended.stderr.contains("other.live: ran"), "{}", ended.stderr);
    eventually("v1 has counted", || rows(&place, "counts") > 40);
    let made = place.kappa(&["savepoint", "create", "visits", "--to", "half"]);
    assert!(made.code == 0 && made.stderr.contains("'visits.v1' at position"), "{}", made.stderr);
    produce(&place, 100, 200);
    eventually("v1 goes on", || rows(&place, "counts") > 90);
    says(&place, &["savepoint", "restore", "half", "visits.sql", "--as", "second"], "begins from the state of");
    place.ok(&["run", "visits.sql", "--as", "second", "--bounded", "--no-flush"]);
    let [whole, second] = ["counts", "counts.second"].map(|topic| place.ok(&["consume", topic, "--values"]));
    assert!(second.len() > 500 && whole.ends_with(&second), "{whole}\n--\n{second}");
    let ended = up.interrupt();
    assert!(ended.code == 0 && !ended.stderr.contains("failed"), "{}", ended.stderr);
}

#[test]
fn checks_run_along_with_what_is_live() {
    let place = Place::new();
    let block = "CREATE CHECK some AS SELECT window_start, k FROM counts WHERE n < 2;";
    let text = SQL.replace("n > 100", "k = 'k0'");
    place.write("visits.sql", &format!("{text}\n{block}"));
    // The fixed version counts every click, so it finds less fault with itself.
    let fixed = text.replace("WHERE n < 3", "");
    place.write("fixed.sql", &format!("{fixed}\n{}", block.replace("n < 2", "n < 1")));
    produce(&place, 0, 200);
    place.ok(&["job", "submit", "visits.sql"]);
    let up = place.start(&["up"]);
    eventually("up listens", || place.path("data/SOCKET").exists());
    let failing = |version: &str, most: u32| {
        let rows = place.ok(&["consume", "counts", "--values"]);
        let of = |version: &str| place.kappa(&["consume", &format!("visits.checks.some.{version}"), "--values"]).stdout;
        rows.lines().filter(|row| parts(row).2 < most).count() == of(version).lines().count()
    };
    eventually("the check has seen it all", || rows(&place, "counts") > 80 && failing("v1", 2));
    let shown = place.kappa(&["job", "show", "visits"]).stderr;
    let some = rows(&place, "visits.checks.some.v1");
    assert!(
        some > 10 && shown.contains(&format!("check some (block) on what is live fails with {some} rows")),
        "{shown}"
    );
    assert!(shown.contains("check few (warn) on what is live fails with"), "{shown}");
    place.ok(&["job", "submit", "fixed.sql", "--name", "visits"]);
    says(&place, &["promote", "visits", "v2"], "v2 is live");
    produce(&place, 200, 300);
    eventually("the check of v2 runs", || {
        place.kappa(&["job", "show", "visits"]).stderr.contains("some (block) on what is live passes")
    });
    assert_eq!(rows(&place, "visits.checks.some.v1"), some, "v1 is live no longer");
    says(&place, &["promote", "visits", "--rollback"], "v1 is live");
    produce(&place, 300, 360);
    // What it has to do with is what v1 has written since.
    eventually("the check of v1 has begun again", || {
        let rows = rows(&place, "visits.checks.some.v1");
        rows > 0 && rows < some
    });
    says(&place, &["job", "delete", "visits", "--outputs"], "topic 'visits.checks.some.v1' deleted");
    let ended = up.interrupt();
    assert!(ended.code == 0 && ended.stderr.contains("visits v1: check some (block) fails"), "{}", ended.stderr);
    assert!(!place.ok(&["topic", "list"]).contains("checks"));
}
