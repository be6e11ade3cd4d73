//! Commands while another process has the data folder: they run in that process, and behave as if they had it themselves.

use crate::util::{Place, Running, eventually};
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
    // What was on its way is there before the count; after that a paused job writes nothing.
    std::thread::sleep(std::time::Duration::from_millis(500));
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
    place.fails(&["promote", "visits", "v2"], 4, &["is in use by process", "stop"]);
    let ended = up.interrupt();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!place.path("data/SOCKET").exists());
    place.ok(&["verify", "visits"]);
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
