//! The real binary, killed without warning while it runs live, against a replay.

use crate::util::{Place, eventually};

const SQL: &str = "
CREATE TABLE ticks (ts TIMESTAMP(3), k STRING, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'kappa');
CREATE TABLE counts (window_start TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO counts SELECT window_start, k, COUNT(*)
FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, k;
";

fn ticks(from: u32, to: u32) -> String {
    let mut lines = String::new();
    for tick in from..to {
        let second = tick / 20;
        let (minute, second) = (second / 60 % 60, second % 60);
        let late = if tick % 97 == 5 { "00:00" } else { &format!("{minute:02}:{second:02}") };
        lines.push_str(&format!("{{\"ts\":\"2026-01-01 00:{late}.{:03}\",\"k\":\"k{}\"}}\n", tick % 20 * 50, tick % 5));
    }
    lines
}

/// Kills per run of the test; `KAPPA_LONG=1` makes it 200.
fn kills() -> u32 {
    if std::env::var_os("KAPPA_LONG").is_some() { 200 } else { 12 }
}

/// What the live run wrote is what its replay `v2` wrote, and verifies.
fn live_is_replay(place: &Place) {
    for stream in ["counts", "counts.late"] {
        let version = stream.replace("counts", "counts.v2");
        let (live, replayed) =
            (place.ok(&["consume", stream, "--values"]), place.ok(&["consume", &version, "--values"]));
        assert!(live.lines().count() > 10, "{stream}: too little to show anything");
        assert_eq!(live, replayed, "{stream}");
    }
    place.ok(&["verify", "job.sql"]);
}

#[test]
fn killed_live_runs_end_in_the_rows_of_a_replay() {
    let place = Place::new();
    place.write("job.sql", SQL);
    place.write("ticks.jsonl", &ticks(0, 400));
    place.ok(&["produce", "ticks", "ticks.jsonl"]);
    let mut fed = 400;
    for kill in 0..kills() {
        let next = fed + 200;
        place.write("ticks.jsonl", &ticks(fed, next));
        fed = next;
        place.ok(&["produce", "ticks", "ticks.jsonl"]);
        let run = place.start(&["run", "job.sql"]);
        // A different moment each time: opening, reading, writing, resting.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(kill * 53 % 400)));
        run.kill();
    }
    place.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    place.ok(&["replay", "job.sql", "--from", "earliest", "--as", "v2"]);
    live_is_replay(&place);
}

#[test]
fn a_file_is_taken_once_through_kills() {
    let place = Place::new();
    let lines: String =
        (0..400_000).map(|line| format!("{{\"n\":{line},\"text\":\"some text to make it longer\"}}\n")).collect();
    place.write("lines.jsonl", &lines);
    place.write(
        "copy.sql",
        "CREATE TABLE lines (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'lines.jsonl', 'format' = 'json');
         CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO nowhere SELECT n FROM lines;",
    );
    for kill in 0..kills() / 2 {
        let run = place.start(&["run", "copy.sql"]);
        std::thread::sleep(std::time::Duration::from_millis(15 + u64::from(kill * 29 % 170)));
        run.kill();
    }
    place.ok(&["run", "copy.sql"]);
    assert!(place.ok(&["consume", "lines", "--values"]) == lines, "records were lost or doubled");
}

/// With checkpoints several times a second and records coming all the time: 20 kills, each at another moment. Every second one comes when the
/// run has gone on from a checkpoint, however long the machine takes for that.
#[test]
fn killed_runs_go_on_from_checkpoints_under_load() {
    const GOES_ON: &str = "going on from checkpoint ";
    let place = Place::new();
    place.write("job.sql", SQL);
    place.ok(&["topic", "create", "ticks"]);
    let mut fed = ticks(0, 4_000);
    place.write("ticks.jsonl", &fed);
    let run = ["run", "job.sql", "--checkpoint-interval", "30ms", "--ingest", "ticks=ticks.jsonl"];
    place.ok(&[&run[..], &["--bounded", "--no-flush"]].concat());
    let mut went_on_from = Vec::new();
    for kill in 1..=20 {
        // The file grows: each run takes what is new in it.
        fed.push_str(&ticks(kill * 4_000, (kill + 1) * 4_000));
        place.write("ticks.jsonl", &fed);
        let run = place.start_saying(&run, "said.txt");
        if kill % 2 == 0 {
            eventually("it goes on from a checkpoint", || place.read("said.txt").contains(GOES_ON));
        }
        std::thread::sleep(std::time::Duration::from_millis(150 + u64::from(kill * 71 % 600)));
        run.kill();
        let said = place.read("said.txt");
        assert!(!said.contains("error"), "{said}");
        let number = |line: &str| line.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        went_on_from.extend(said.split(GOES_ON).nth(1).and_then(number));
    }
    assert!(went_on_from.len() >= 10 && went_on_from.is_sorted(), "{went_on_from:?}");
    assert!(went_on_from.first() < went_on_from.last(), "no killed run left one: {went_on_from:?}");
    place.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    place.ok(&["replay", "job.sql", "--from", "earliest", "--as", "v2", "--checkpoint-interval", "none"]);
    live_is_replay(&place);
}
