//! The command line as a user meets it: what it prints, where, and with which exit code.

use crate::util::{Place, eventually, sorted_lines};
use std::fs;

const JOB: &str = "
CREATE TABLE visits (ts TIMESTAMP(3), user_id STRING, ms INT, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('connector' = 'kappa', 'format' = 'json');
CREATE TABLE per_minute (window_start TIMESTAMP(3), user_id STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO per_minute SELECT window_start, user_id, COUNT(*)
FROM TABLE(TUMBLE(TABLE visits, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, user_id;
";

const VISITS: &str = "\
{\"ts\":\"2026-01-01 00:00:10\",\"user_id\":\"a\",\"ms\":5}
{\"ts\":\"2026-01-01 00:00:20\",\"user_id\":\"b\",\"ms\":6}
not json
{\"ts\":\"2026-01-01 00:01:10\",\"user_id\":\"a\",\"ms\":7}
{\"ts\":\"2026-01-01 00:00:30\",\"user_id\":\"a\",\"ms\":8}
{\"ts\":\"2026-01-01 00:02:30\",\"user_id\":\"b\",\"ms\":9}
";

fn with_visits() -> Place {
    let place = Place::new();
    place.write("job.sql", JOB);
    place.write("visits.jsonl", VISITS);
    place.ok(&["topic", "create", "visits"]);
    place.ok(&["produce", "visits", "visits.jsonl"]);
    place
}

#[test]
fn produce_run_replay_verify() {
    let place = with_visits();
    let ran = place.kappa(&["run", "job.sql", "--bounded"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("per_minute: 4 rows"), "{}", ran.stderr);
    let values = "\
{\"window_start\":\"2026-01-01 00:00:00\",\"user_id\":\"b\",\"n\":1}
{\"window_start\":\"2026-01-01 00:00:00\",\"user_id\":\"a\",\"n\":1}
{\"window_start\":\"2026-01-01 00:01:00\",\"user_id\":\"a\",\"n\":1}
{\"window_start\":\"2026-01-01 00:02:00\",\"user_id\":\"b\",\"n\":1}
";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&place.ok(&["consume", "per_minute", "--values"])), sorted(values));
    let late = place.ok(&["consume", "per_minute.late", "--format", "json"]);
    assert!(
        late.contains("00:00:30") && late.contains("\"reason\":\"late\"") && late.contains("\"offset\":\"4\""),
        "{late}"
    );
    let rejected = place.ok(&["consume", "per_minute.rejected", "--format", "json"]);
    assert!(rejected.contains("not json") && rejected.contains("\"topic\":\"visits\""), "{rejected}");
    place.ok(&["replay", "job.sql", "--from", "2026-01-01T00:01:00", "--as", "v2"]);
    assert_eq!(sorted(&place.ok(&["consume", "per_minute.v2", "--values"])), sorted(values)[2..]);
    let verified = place.ok(&["verify", "job.sql", "--format", "json"]);
    assert!(
        verified.lines().count() == 3 && verified.lines().all(|line| line.contains("\"equal\":true")),
        "{verified}"
    );
}

#[test]
fn a_record_key_timestamp_and_headers_are_as_promised() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    let first = place.ok(&["consume", "per_minute", "--max", "1", "--format", "json"]);
    for part in [
        "\"key\":\"{\\\"user_id\\\":",
        "\"timestamp\":\"2026-01-01T00:00:59.999Z\"",
        "\"revision\":\"0\"",
        "\"pane\":\"on-time\"",
    ] {
        assert!(first.contains(part), "{part} in {first}");
    }
}

#[test]
fn running_again_and_running_something_else() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    let rows = place.ok(&["consume", "per_minute", "--format", "csv"]);
    let again = place.kappa(&["run", "job.sql", "--bounded"]);
    assert!(again.code == 0 && again.stderr.contains("nothing new was written"), "{}", again.stderr);
    assert_eq!(place.ok(&["consume", "per_minute", "--format", "csv"]), rows);
    place.write("job.sql", &JOB.replace("COUNT(*)", "COUNT(ms)"));
    place.fails(&["run", "job.sql", "--bounded"], 2, &["per_minute", "--as", "--restart"]);
    place.fails(&["verify", "job.sql"], 2, &["something else"]);
    assert_eq!(place.ok(&["consume", "per_minute", "--format", "csv"]), rows);
    place.ok(&["run", "job.sql", "--bounded", "--as", "v2"]);
    place.ok(&["run", "job.sql", "--bounded", "--restart"]);
    assert_ne!(place.ok(&["consume", "per_minute", "--format", "csv"]), rows);
}

#[test]
fn a_run_between_two_times_sees_the_records_between_them() {
    let place = with_visits();
    let span = ["--from", "2026-01-01T00:00:20", "--to", "2026-01-01T00:01:00"];
    let ran = place.kappa(&[&["run", "job.sql", "--as", "part"][..], &span].concat());
    assert!(ran.code == 0 && ran.stderr.contains("may be partial"), "{}", ran.stderr);
    // From the second record to the last one before 00:01, which is late by then.
    let rows = place.ok(&["consume", "per_minute.part", "--values"]);
    let mut starts: Vec<&str> = rows.lines().map(|row| &row[17..55]).collect();
    starts.sort_unstable();
    assert_eq!(
        starts,
        ["2026-01-01 00:00:00\",\"user_id\":\"b\",\"n\"", "2026-01-01 00:01:00\",\"user_id\":\"a\",\"n\""]
    );
    assert_eq!(place.ok(&["consume", "per_minute.part.late", "--values"]).lines().count(), 1);
    place.fails(&["run", "job.sql", "--to", "append:2999-01-01", "--as", "x"], 2, &["future"]);
    place.fails(&["run", "job.sql", "--from", "offset:3", "--as", "x"], 2, &["offset"]);
}

#[test]
fn outputs_belong_to_one_file() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    place.write("copy.sql", JOB);
    place.fails(&["run", "copy.sql", "--bounded"], 2, &["per_minute", "'job'", "--as"]);
    place.ok(&["run", "copy.sql", "--bounded", "--restart"]);
    place.ok(&["verify", "copy.sql"]);
    place.fails(&["verify", "job.sql"], 2, &["no run of 'job'"]);
}

#[test]
fn held_windows_go_on_with_new_records() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    assert_eq!(place.ok(&["consume", "per_minute", "--values"]).lines().count(), 3);
    place.write("more.jsonl", "{\"ts\":\"2026-01-01 00:02:40\",\"user_id\":\"b\",\"ms\":1}\n");
    place.ok(&["produce", "visits", "more.jsonl"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    let rows = place.ok(&["consume", "per_minute", "--values"]);
    assert!(rows.lines().count() == 4 && rows.ends_with("\"user_id\":\"b\",\"n\":2}\n"), "{rows}");
    place.ok(&["verify", "job.sql"]);
}

#[test]
fn topics_know_their_columns_and_their_writer() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    let described = place.kappa(&["topic", "describe", "visits", "--format", "csv"]);
    assert_eq!(described.stdout, "partition,first_offset,end_offset\n0,0,6\n");
    assert!(described.stderr.contains("ts TIMESTAMP(3), user_id STRING, ms INT"), "{}", described.stderr);
    let list = place.ok(&["topic", "list", "--format", "csv"]);
    assert!(list.contains("per_minute,1,4,job,,,1h\n") && list.contains("per_minute.late,1,1,job,"), "{list}");
    let rebuilt = place.kappa(&["topic", "rebuild", "visits"]);
    assert!(rebuilt.code == 0 && rebuilt.stderr.contains("has its columns already"), "{}", rebuilt.stderr);
    place.write("other.sql", &JOB.replace("ms INT", "ms BIGINT"));
    place.ok(&["topic", "rebuild", "visits", "--columns", "other.sql"]);
    let described = place.kappa(&["topic", "describe", "visits"]);
    assert!(described.stderr.contains("ts TIMESTAMP(3), user_id STRING, ms BIGINT"), "{}", described.stderr);
    place.ok(&["topic", "create", "unknown"]);
    place.fails(&["topic", "rebuild", "unknown"], 2, &["declared", "--columns"]);
    place.fails(&["topic", "rebuild", "unknown", "--columns", "job.sql"], 2, &["no table", "unknown"]);
    place.fails(&["topic", "delete", "per_minute"], 2, &["job", "--restart"]);
    place.ok(&["topic", "delete", "visits"]);
    place.fails(&["consume", "visits"], 2, &["visits"]);
}

#[test]
fn strict_stops_at_the_first_rejected_row() {
    let place = with_visits();
    let ran = place.kappa(&["run", "job.sql", "--bounded", "--strict"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("rejected"), "{}", ran.stderr);
}

#[test]
fn a_live_run_prints_windows_as_they_close_and_stops_on_ctrl_c() {
    let place = Place::new();
    place.write("job.sql", &JOB.replace("INSERT INTO per_minute ", ""));
    place.ok(&["topic", "create", "visits"]);
    let mut run = place.start(&["run", "job.sql", "--ingest", "visits=-", "--format", "json"]);
    let stdin = run.child().stdin.take().expect("piped");
    std::io::Write::write_all(&mut &stdin, VISITS.as_bytes()).expect("taken");
    let stdout = run.child().stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let mut seen: Vec<String> = (0..3).map(|_| lines.next().expect("a row").expect("UTF-8")).collect();
    seen.sort();
    assert!(seen[0].contains("\"user_id\":\"a\"") && seen[2].contains("00:01:00"), "{seen:?}");
    let ended = run.interrupt();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(lines.next().is_none(), "an open window was shown");
}

#[test]
fn bad_sql_names_line_and_column_and_writes_nothing() {
    let place = with_visits();
    for (from, to, words) in [
        ("user_id, COUNT(*)", "user, COUNT(*)", &["job.sql:5:", "user"][..]),
        ("DESCRIPTOR(ts)", "DESCRIPTOR(ms)", &["job.sql:6:", "ms"][..]),
        (", INTERVAL '1' MINUTE", "", &["job.sql:6:", "INTERVAL"][..]),
        (", WATERMARK FOR ts AS ts - INTERVAL '5' SECOND", "", &["job.sql:6:", "WATERMARK"][..]),
        ("n BIGINT", "n BOOLEAN", &["job.sql:5:", "BOOLEAN"][..]),
        ("'connector' = 'kappa', ", "'conector' = 'kappa', ", &["job.sql:3:", "connector"][..]),
    ] {
        assert!(JOB.contains(from), "{from}");
        place.write("job.sql", &JOB.replacen(from, to, 1));
        place.fails(&["run", "job.sql", "--bounded"], 2, words);
    }
    assert_eq!(place.ok(&["topic", "list", "--format", "csv"]).lines().count(), 2, "a refused job made a topic");
    place.fails(&["run", "missing.sql"], 2, &["missing.sql"]);
}

#[test]
fn wrong_arguments_are_refused() {
    let place = with_visits();
    place.fails(&["consume", "nothing"], 2, &["nothing"]);
    place.fails(&["consume", "visits", "--from", "whenever"], 2, &["whenever", "position:N"]);
    place.fails(&["consume", "visits", "--from", "offset:0"], 2, &["--partition"]);
    place.fails(&["consume", "visits", "--partition", "7"], 2, &["partition 7"]);
    place.fails(&["topic", "create", "visits"], 2, &["visits"]);
    place.fails(&["topic", "create", "a b"], 2, &["a b"]);
    place.fails(&["topic", "create", "x.late"], 2, &["x.late"]);
    place.fails(&["produce", "visits", "none.jsonl"], 2, &["none.jsonl"]);
    place.fails(&["run", "job.sql", "--no-flush"], 2, &["--bounded"]);
    place.fails(&["replay", "job.sql", "--from", "position:3", "--as", "v2"], 2, &["position:3"]);
    place.fails(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn groups_are_moved_and_durability_is_chosen_by_name() {
    let place = Place::new();
    place.write("lines.txt", "a\nb\nc\n");
    place.ok(&["produce", "lines", "lines.txt", "--durability", "interval:10"]);
    place.fails(&["produce", "lines", "lines.txt", "--durability", "never"], 2, &["never", "interval:<ms>"]);
    place.fails(&["produce", "lines", "lines.txt", "--disk-floor", "9999TB"], 4, &["not written", "make room"]);
    place.fails(&["group", "describe", "g"], 2, &["group g", "kappa group list"]);
    place.fails(&["group", "reset", "g", "--topic", "lines", "--to", "offset:1"], 2, &["one partition"]);
    place.ok(&["group", "reset", "g", "--topic", "lines", "--to", "position:1"]);
    let described = place.ok(&["group", "describe", "g", "--format", "csv"]);
    assert_eq!(described, "topic,partition,next_offset,end_offset,behind\nlines,0,1,3,2\n");
    assert_eq!(place.ok(&["group", "list", "--format", "csv"]), "group,topics,behind\ng,lines,2\n");
    place.ok(&["group", "delete", "g"]);
    place.fails(&["group", "delete", "g"], 2, &["committed nothing"]);
}

#[test]
fn seeks_of_consume() {
    let place = Place::new();
    place.write("in.csv", "k,t,v\na,1000,1\n,3000,2\na,2000,3\nb,,4\n");
    place.ok(&["produce", "in", "in.csv", "--format", "csv", "--key", "k", "--time", "t"]);
    let values = |args: &[&str]| place.ok(&[&["consume", "in", "--values"], args].concat());
    assert_eq!(values(&[]), "a,1000,1\n,3000,2\na,2000,3\nb,,4\n");
    assert_eq!(values(&["--from", "time:1500"]), ",3000,2\na,2000,3\nb,,4\n");
    assert_eq!(values(&["--from", "time:1500", "--to", "time:2500"]), "a,2000,3\n");
    assert_eq!(values(&["--to", "time:2001"]), "a,1000,1\na,2000,3\n");
    assert_eq!(values(&["--from", "position:1", "--to", "time:2001", "--max", "5"]), "a,2000,3\n");
    assert_eq!(values(&["--from", "offset:3", "--partition", "0"]), "b,,4\n");
    assert_eq!(values(&["--from", "earliest", "--max", "1"]), "a,1000,1\n");
    assert_eq!(values(&["--from", "latest"]), "");
    let none = place.kappa(&["consume", "in", "--from", "time:9999", "--values"]);
    assert!(none.code == 0 && none.stdout.is_empty() && none.stderr.contains("no such record"), "{}", none.stderr);
    let rows = place.ok(&["consume", "in", "--format", "csv"]);
    assert!(rows.contains(",a,\"a,1000,1\","), "{rows}");
}

#[test]
fn topics_are_altered_and_trimmed() {
    let place = Place::new();
    place.ok(&["topic", "create", "in", "--retention", "7d", "--retention-bytes", "10GiB"]);
    place.write("in.csv", "k,t,v\na,1000,1\n,3000,2\na,2000,3\nb,,4\n");
    place.ok(&["produce", "in", "in.csv", "--format", "csv", "--key", "k", "--time", "t"]);
    let altered = place.kappa(&["topic", "alter", "in", "--max-future", "10m", "--retention-bytes", "none"]);
    assert!(altered.stderr.contains("max-future 10m, retention 1w, retention-bytes none"), "{}", altered.stderr);
    place.fails(&["topic", "alter", "in", "--partitions", "2"], 2, &["cannot change"]);
    place.fails(&["topic", "alter", "in", "--retention", "7 days"], 2, &["--retention", "7 days", "7d"]);
    place.fails(&["topic", "alter", "in"], 2, &["nothing to change"]);
    place.fails(&["topic", "trim", "in", "--before", "time:9999"], 2, &["no such record", "latest"]);
    let trimmed = place.kappa(&["topic", "trim", "in", "--before", "time:1500"]);
    assert!(trimmed.code == 0 && trimmed.stderr.contains("1 record removed"), "{}", trimmed.stderr);
    let described = place.ok(&["topic", "describe", "in", "--format", "json"]);
    assert_eq!(described, "{\"partition\":0,\"first_offset\":1,\"end_offset\":4}\n");
    let list = place.ok(&["topic", "list", "--format", "json"]);
    assert!(list.contains("\"records\":3") && list.contains("\"retention\":\"1w\""), "{list}");
    let values = |args: &[&str]| place.ok(&[&["consume", "in", "--values"], args].concat());
    assert_eq!(values(&[]), ",3000,2\na,2000,3\nb,,4\n");
    assert_eq!(values(&["--from", "time:500"]), ",3000,2\na,2000,3\nb,,4\n");
    assert_eq!(values(&["--from", "time:500", "--to", "time:2500"]), "a,2000,3\n");
    place.fails(&["consume", "in", "--from", "offset:0", "--partition", "0"], 2, &["offset 0", "offset 1", "earliest"]);
    place.ok(&["topic", "trim", "in", "--before", "offset:3", "--partition", "0"]);
    place.fails(&["consume", "in", "--from", "position:2"], 2, &["position 3", "partition 0 offset 3"]);
    assert_eq!(values(&[]), "b,,4\n");
    place.ok(&["topic", "trim", "in", "--before", "latest"]);
    assert_eq!(values(&[]), "");
    let at_work = place.kappa(&["topic", "retention"]);
    assert!(at_work.code == 0 && at_work.stderr.contains("has not jumped"), "{}", at_work.stderr);
}

#[test]
fn a_folder_belongs_to_one_process_and_inspect_needs_no_lock() {
    let place = with_visits();
    let mut run = place.start(&["run", "job.sql"]);
    let pid = run.child().id().to_string();
    eventually("the run has the lock", || place.read("data/LOCK").trim() == pid);
    place.fails(&["repair"], 4, &[&pid]);
    // What needs the log, and not for itself, runs in the process that has it, once that listens.
    place.ok(&["topic", "list"]);
    let seen = place.kappa(&["inspect", "--frames"]);
    assert!(seen.stdout.contains("visits 6"), "{}{}", seen.stdout, seen.stderr);
    assert_eq!(run.interrupt().code, 0);
    place.ok(&["topic", "list"]);
}

const FILES: &str = "
CREATE TABLE lines (a BIGINT, b STRING) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv', 'csv.header' = 'true');
CREATE TABLE copy (b STRING, a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
INSERT INTO copy SELECT b, a FROM lines WHERE a > 1;
";

#[test]
fn a_file_is_taken_once_grows_and_may_not_change() {
    let place = Place::new();
    place.write("job.sql", FILES);
    place.write("in.csv", "a,b\n1,one\n2,two\n");
    place.ok(&["run", "job.sql"]);
    assert_eq!(sorted_lines(&place.path("out")), ["two,2"]);
    fs::remove_dir_all(place.path("out")).expect("removed");
    place.ok(&["run", "job.sql"]);
    assert_eq!(sorted_lines(&place.path("out")), ["two,2"], "the same run rewrites its file sink");
    place.write("in.csv", "a,b\n1,one\n2,two\n3,three\n");
    place.fails(&["run", "job.sql"], 2, &["--restart"]);
    place.ok(&["run", "job.sql", "--restart"]);
    assert_eq!(sorted_lines(&place.path("out")), ["three,3", "two,2"]);
    assert_eq!(place.ok(&["consume", "lines", "--values"]), "1,one\n2,two\n3,three\n");
    place.write("in.csv", "a,b\n1,ONE\n2,two\n3,three\n4,four\n");
    place.fails(&["run", "job.sql", "--restart"], 2, &["in.csv", "changed"]);
    place.write("in.csv", "a,b\n1,one\n");
    place.fails(&["run", "job.sql", "--restart"], 2, &["in.csv", "shorter"]);
    assert_eq!(place.ok(&["consume", "lines", "--values"]), "1,one\n2,two\n3,three\n");
}

#[test]
fn law_7_a_damaged_or_missing_catalog_view_is_rebuilt() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    let topics = place.ok(&["topic", "list"]);
    let view = fs::read_dir(place.path("data"))
        .expect("data")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.is_dir() && !path.ends_with("journal"))
        .expect("the view's folder");
    fs::remove_dir_all(&view).expect("removed");
    assert_eq!(place.ok(&["topic", "list"]), topics);
    for entry in fs::read_dir(&view).expect("rebuilt") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            fs::write(path, b"garbage").expect("damaged");
        }
    }
    assert_eq!(place.ok(&["topic", "list"]), topics);
    place.ok(&["verify", "job.sql"]);
}

#[test]
fn law_8_damage_is_reported_and_a_job_stops_at_it() {
    let place = with_visits();
    place.ok(&["run", "job.sql", "--bounded"]);
    place.ok(&["topic", "create", "other"]);
    place.kappa_with(&["produce", "other"], "fine\n");
    let journal =
        fs::read_dir(place.path("data/journal")).expect("journal").next().expect("a file").expect("entry").path();
    let mut bytes = fs::read(&journal).expect("bytes");
    let at = bytes.windows(8).position(|w| w == b"not json").expect("the record");
    bytes[at] ^= 1;
    fs::write(&journal, bytes).expect("damaged");
    let seen = place.kappa(&["inspect"]);
    assert_eq!(seen.code, 3, "{}", seen.stderr);
    assert!(seen.stderr.contains("visits") && seen.stderr.contains("offsets 0 to 5"), "{}", seen.stderr);
    let read = place.kappa(&["consume", "visits", "--values"]);
    assert_eq!((read.code, read.stdout.as_str()), (3, ""), "{}", read.stderr);
    assert_eq!(place.ok(&["consume", "other", "--values"]), "fine\n", "damage of one topic reached another");
    let refused = place.kappa(&["run", "job.sql", "--bounded", "--as", "v2"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("--accept-loss"), "{}", refused.stderr);
    place.ok(&["run", "job.sql", "--bounded", "--as", "v3", "--accept-loss"]);
}

#[test]
fn an_accepted_loss_is_listed_and_no_longer_stops_readers() {
    let place = with_visits();
    place.ok(&["topic", "create", "other"]);
    let journal = place.path("data/journal/0000000001.journal");
    let mut bytes = fs::read(&journal).expect("bytes");
    let at = bytes.windows(8).position(|w| w == b"not json").expect("the record");
    bytes[at] ^= 1;
    fs::write(&journal, bytes).expect("damaged");
    assert_eq!(place.kappa(&["inspect", "--verify"]).code, 3);
    let listed = place.kappa(&["repair", "--format", "csv"]);
    assert_eq!(listed.code, 3, "{}", listed.stderr);
    assert!(
        listed.stdout.contains("visits,0,0,6,true") && listed.stderr.contains("--accept-loss"),
        "{}",
        listed.stdout
    );
    assert_eq!(place.kappa(&["consume", "visits", "--values"]).code, 3);
    let accepted = place.kappa(&["repair", "--accept-loss", "--format", "csv"]);
    assert_eq!((accepted.code, accepted.stdout), (0, listed.stdout), "{}", accepted.stderr);
    assert_eq!(place.ok(&["consume", "visits", "--values"]), "");
    assert!(place.kappa(&["repair"]).stderr.contains("nothing is damaged that was not accepted"));
    let seen = place.kappa(&["inspect", "--verify", "--format", "csv"]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(seen.stderr.contains("accepted loss") && seen.stderr.contains("offsets 0 to 5"), "{}", seen.stderr);
    assert!(
        seen.stdout.contains("0000000001.journal,intact,") && seen.stdout.contains("1 accepted losses"),
        "{}",
        seen.stdout
    );
    assert!(place.ok(&["inspect", "--verify", "--format", "json"]).contains("\"accepted\":[{\"kind\":\"records\""));
}

#[test]
fn restarting_is_measured() {
    let place = Place::new();
    let sizes = ["--rounds", "2", "--small-mib", "1", "--large-mib", "3"];
    let shown = place.ok(&[&["bench", "restart", "--format", "csv"][..], &sizes].concat());
    assert!(shown.lines().count() == 8 && shown.contains("\"open, large log\",ms,"), "{shown}");
    assert!(!place.path("kappa-bench").exists());
}

#[test]
fn windows_are_measured() {
    let place = Place::new();
    let sizes = ["--rounds", "2", "--events", "20000", "--keys", "5", "--string-keys", "50"];
    let shown = place.ok(&[&["bench", "window", "--format", "csv"][..], &sizes].concat());
    assert_eq!(shown.lines().count(), 19, "{shown}");
    for line in ["tumbling count / bare loop", "\"cost per event, hopping / tumbling\"", "2 threads / 1 thread"] {
        assert!(shown.lines().any(|row| row.starts_with(&format!("{line},ratio,"))), "{line} in {shown}");
    }
    assert!(!place.path("kappa-bench").exists());
}

#[test]
fn help_and_completions() {
    let place = Place::new();
    let help = place.ok(&["run", "--help"]);
    assert!(help.contains("--bounded") && help.contains("Examples:"), "{help}");
    assert!(place.ok(&["completions", "bash"]).contains("_kappa"));
    assert!(!place.path("data").exists(), "help made a data folder");
}
