//! Registered jobs as a user meets them: submitted, run together, paused, failed, deleted; and again after a restart.

use crate::util::{Place, eventually};

const SQL: &str = "
CREATE TABLE clicks (ts TIMESTAMP(3), k STRING, n INT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'kappa');
CREATE TABLE counts (window_start TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO counts SELECT window_start, k, COUNT(*)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE n < 3 GROUP BY window_start, window_end, k;
";

/// Twenty clicks a minute.
fn feed(place: &Place, from: u32, to: u32) {
    let line = |click: u32| {
        let (minute, second) = (click / 20, click % 20 * 3);
        format!("{{\"ts\":\"2026-01-01 00:{minute:02}:{second:02}\",\"k\":\"k{}\",\"n\":{}}}\n", click % 3, click % 5)
    };
    place.write("clicks.jsonl", &(from..to).map(line).collect::<String>());
    place.ok(&["produce", "clicks", "clicks.jsonl"]);
}

fn with_job() -> Place {
    let place = Place::new();
    place.write("visits.sql", SQL);
    place.write("fixed.sql", &SQL.replace("n < 3", "n < 4"));
    feed(&place, 0, 100);
    place.ok(&["job", "submit", "visits.sql", "--name", "visits"]);
    place
}

fn up(place: &Place) -> String {
    let ran = place.kappa(&["up", "--stop-when-idle"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    ran.stderr
}

fn values(place: &Place, topic: &str) -> String {
    place.ok(&["consume", topic, "--values"])
}

#[test]
fn a_submitted_job_runs_with_up_and_goes_on_where_it_was() {
    let place = with_job();
    assert!(up(&place).contains("visits v1: running, live"));
    let first = values(&place, "counts");
    assert!(first.lines().count() > 20, "{first}");
    feed(&place, 100, 200);
    up(&place);
    let all = values(&place, "counts");
    assert!(all.starts_with(&first) && all.len() > first.len());
    place.ok(&["run", "visits.sql", "--bounded", "--no-flush", "--as", "check"]);
    assert_eq!(values(&place, "counts.check"), all);
    let again = place.kappa(&["job", "submit", "visits.sql", "--name", "visits"]);
    assert!(again.code == 0 && again.stderr.contains("v1 computes the same"), "{}", again.stderr);
}

#[test]
fn a_changed_file_is_a_version_beside_the_live_one() {
    let place = with_job();
    let submitted = place.kappa(&["job", "submit", "fixed.sql", "--name", "visits"]);
    assert!(submitted.stderr.contains("v2 is new beside v1"), "{}", submitted.stderr);
    let events = up(&place);
    assert!(events.contains("visits v2: running, beside the live version"), "{events}");
    assert!(values(&place, "counts.v2").lines().count() > values(&place, "counts").lines().count());
    let list = place.ok(&["job", "list", "--format", "csv"]);
    assert!(list.contains("visits,v1,true,running,") && list.contains("visits,v2,false,running,"), "{list}");
    place.fails(&["job", "delete", "visits", "--version", "v1"], 2, &["v1", "live", "whole job"]);
    let deleted = place.kappa(&["job", "delete", "visits", "--version", "v2", "--outputs"]);
    assert!(deleted.code == 0 && deleted.stderr.contains("topic 'counts.v2' deleted"), "{}", deleted.stderr);
    place.ok(&["job", "submit", "fixed.sql", "--name", "visits"]);
    let show = place.ok(&["job", "show", "visits", "--format", "csv"]);
    assert!(show.contains("v3,false,running,fixed.sql,"), "numbers are not used again: {show}");
    place.ok(&["job", "delete", "visits"]);
    place.fails(&["job", "show", "visits"], 2, &["no job 'visits'", "kappa job list"]);
    place.fails(&["job", "submit", "visits.sql"], 2, &["counts", "--restart"]);
    place.ok(&["job", "submit", "visits.sql", "--restart"]);
    up(&place);
    assert!(!values(&place, "counts").is_empty());
}

#[test]
fn a_paused_job_rests_and_a_failing_one_does_not_stop_the_others() {
    let place = with_job();
    place.write("other.sql", &SQL.replace("counts", "others").replace("clicks", "nothing"));
    place.ok(&["job", "submit", "other.sql", "--name", "other"]);
    place.ok(&["job", "pause", "visits"]);
    let events = up(&place);
    assert!(events.contains("other v1: failed: there is no topic nothing"), "{events}");
    assert!(!events.contains("visits"), "{events}");
    let list = place.ok(&["job", "list", "--format", "csv"]);
    assert!(list.contains("visits,v1,true,paused,") && list.contains("other,v1,true,\"failed: there is"), "{list}");
    place.ok(&["topic", "create", "nothing"]);
    place.ok(&["job", "resume", "other"]);
    place.ok(&["job", "resume", "visits", "--version", "v1"]);
    let events = up(&place);
    assert!(!events.contains("failed") && events.contains("visits v1: running"), "{events}");
    place.fails(&["job", "pause", "visits", "--version", "v7"], 2, &["no version v7", "v1"]);
    place.fails(&["job", "pause", "visits", "--version", "latest"], 2, &["'latest' is not a version"]);
}

#[test]
fn what_another_run_writes_or_reads_from_a_file_is_refused() {
    let place = with_job();
    place.write("copy.sql", SQL);
    up(&place);
    place.fails(&["job", "submit", "copy.sql"], 2, &["counts", "visits.v1"]);
    place.fails(&["run", "copy.sql", "--bounded"], 2, &["counts", "visits.v1"]);
    place.write("file.sql", &SQL.replacen("'kappa'", "'filesystem', 'path' = 'clicks.jsonl', 'format' = 'json'", 1));
    place.fails(&["job", "submit", "file.sql"], 2, &["reads a file", "kappa produce"]);
    place.fails(&["job", "submit", "visits.sql", "--name", "a b"], 2, &["a b"]);
    place.fails(&["job", "submit", "visits.sql", "--name", "x", "--from", "whenever"], 2, &["whenever"]);
}

#[test]
fn a_submitted_file_goes_on_with_what_its_run_has_written() {
    for name in ["visits", "other"] {
        let place = Place::new();
        place.write("visits.sql", SQL);
        feed(&place, 0, 100);
        let live = place.start(&["run", "visits.sql"]);
        eventually("it runs", || place.kappa(&["consume", "counts", "--values"]).stdout.lines().count() > 20);
        assert_eq!(live.interrupt().code, 0);
        let first = values(&place, "counts");
        let submitted = place.kappa(&["job", "submit", "visits.sql", "--name", name]);
        assert!(
            submitted.stderr.contains("v1 is new and goes on with what run 'visits' has written"),
            "{}",
            submitted.stderr
        );
        let list = place.ok(&["job", "list", "--format", "csv"]);
        let rows = first.lines().count();
        assert!(list.contains(&format!("{name},v1,true,running,")) && list.contains(&format!(",{rows}\n")), "{list}");
        place.ok(&["verify", name]);
        feed(&place, 100, 200);
        let events = up(&place);
        assert!(events.contains("going on from checkpoint"), "{events}");
        let all = values(&place, "counts");
        assert!(all.starts_with(&first) && all.len() > first.len());
        place.ok(&["verify", name]);
        place.fails(&["run", "visits.sql"], 2, &["counts", &format!("v1 of the submitted job '{name}'"), "kappa up"]);
        place.fails(&["verify", "visits.sql"], 2, &["no run of 'visits'", &format!("job '{name}' writes its outputs")]);
        place.ok(&["run", "visits.sql", "--bounded", "--no-flush", "--as", "check"]);
        assert_eq!(values(&place, "counts.check"), all);
        place.write("fixed.sql", &SQL.replace("n < 3", "n < 4"));
        place.ok(&["job", "submit", "fixed.sql", "--name", name]);
        up(&place);
        assert_eq!(place.kappa(&["diff", name, "v1", "v2"]).code, 1);
        place.ok(&["promote", name, "v2"]);
        assert!(values(&place, "counts").starts_with(&all));
    }
}

/// The log alone does not give the output of such a run.
#[test]
fn a_run_that_began_from_a_savepoint_is_taken_over_with_its_state() {
    let (whole, part) = (Place::new(), Place::new());
    [&whole, &part].iter().for_each(|place| place.write("visits.sql", SQL));
    feed(&whole, 0, 105);
    whole.ok(&["run", "visits.sql", "--bounded", "--no-flush"]);
    let before = values(&whole, "counts");
    let half = part.path("half").display().to_string();
    whole.ok(&["savepoint", "create", "visits.sql", "--to", &half]);
    part.ok(&["topic", "create", "clicks"]);
    part.ok(&["savepoint", "restore", &half, "visits.sql", "--at", "0"]);
    let submitted = part.kappa(&["job", "submit", "visits.sql"]);
    assert!(submitted.stderr.contains("goes on with what run 'visits' has written"), "{}", submitted.stderr);
    for place in [&whole, &part] {
        feed(place, 105, 200);
    }
    whole.ok(&["run", "visits.sql", "--bounded", "--no-flush"]);
    up(&part);
    assert_eq!(before + &values(&part, "counts"), values(&whole, "counts"));
    part.ok(&["verify", "visits"]);
}

#[test]
fn a_run_that_a_job_would_not_go_on_with_is_refused_with_the_reason() {
    let place = Place::new();
    place.write("visits.sql", SQL);
    place.write("fixed.sql", &SQL.replace("n < 3", "n < 4"));
    feed(&place, 0, 100);
    let live = place.start(&["run", "visits.sql"]);
    eventually("it runs", || place.kappa(&["consume", "counts", "--values"]).stdout.lines().count() > 20);
    place.fails(&["job", "submit", "visits.sql"], 4, &["'visits' is in use"]);
    assert_eq!(live.interrupt().code, 0);
    let before = values(&place, "counts");
    place.fails(&["job", "submit", "fixed.sql"], 2, &["run 'visits'", "something else", "v2 beside it", "--restart"]);
    place.fails(&["job", "submit", "visits.sql", "--from", "latest"], 2, &["started elsewhere", "without `--from`"]);
    place.ok(&["run", "visits.sql", "--bounded"]);
    place.fails(&["job", "submit", "visits.sql"], 2, &["flushed its open windows", "--restart"]);
    assert!(values(&place, "counts").starts_with(&before));
    assert_eq!(place.ok(&["job", "list", "--format", "csv"]).lines().count(), 1, "nothing was submitted");
    place.ok(&["verify", "visits.sql"]);
    place.ok(&["run", "visits.sql", "--bounded", "--as", "v1"]);
    place.fails(&["job", "submit", "visits.sql", "--name", "visits"], 2, &["run by hand", "visits.v1", "--restart"]);
    place.ok(&["job", "submit", "visits.sql", "--restart"]);
    up(&place);
    assert_eq!(values(&place, "counts"), before);
    place.ok(&["verify", "visits"]);
}

#[test]
fn up_ends_well_when_it_is_asked_to_and_goes_on_after_it_was_killed() {
    let place = with_job();
    let mut running = place.start(&["up"]);
    let process = running.child().id().to_string();
    eventually("up has taken the data", || place.read("data/LOCK").trim() == process);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let ended = running.interrupt();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("visits v1: at rest"), "{}", ended.stderr);
    for kill in 0..6 {
        feed(&place, 100 + kill * 50, 150 + kill * 50);
        let running = place.start(&["up"]);
        std::thread::sleep(std::time::Duration::from_millis(u64::from(kill * 71 % 300)));
        running.kill();
    }
    up(&place);
    place.ok(&["run", "visits.sql", "--bounded", "--no-flush", "--as", "check"]);
    assert_eq!(values(&place, "counts.check"), values(&place, "counts"));
}

#[test]
fn a_live_run_may_be_ended_by_a_bounded_one() {
    let place = with_job();
    place.write("alone.sql", &SQL.replace("counts", "alone"));
    let live = place.start(&["run", "alone.sql"]);
    eventually("it has read beyond its own output", || place.kappa(&["consume", "alone"]).stdout.lines().count() > 40);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(live.interrupt().code, 0);
    let held = values(&place, "alone");
    let ended = place.kappa(&["run", "alone.sql", "--bounded"]);
    assert!(ended.code == 0 && ended.stderr.contains("going on from checkpoint"), "{}", ended.stderr);
    assert!(values(&place, "alone").len() > held.len(), "the last windows were emitted");
    let again = place.kappa(&["run", "alone.sql", "--bounded"]);
    assert!(again.code == 0 && again.stderr.contains("nothing new was written"), "{}", again.stderr);
    place.ok(&["verify", "alone.sql"]);
    place.ok(&["run", "alone.sql", "--bounded", "--as", "whole"]);
    assert_eq!(values(&place, "alone"), values(&place, "alone.whole"));
    // With more to read there is another end.
    feed(&place, 100, 120);
    place.fails(&["run", "alone.sql", "--bounded"], 2, &["it flushed its open windows"]);
}
