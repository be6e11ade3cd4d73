//! `CREATE CHECK` and `kappa check`: the rows of a query over what a job has read and written are failures.

use crate::util::Place;
use kappa::sql::{self, Severity};

fn job(checks: &str) -> String {
    format!(
        "CREATE TABLE hits (ts TIMESTAMP(3), page STRING, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'kappa', 'format' = 'json');
         CREATE TABLE counts (window_start TIMESTAMP(3), page STRING, n BIGINT) WITH ('connector' = 'kappa');
         INSERT INTO counts SELECT window_start, page, COUNT(*)
           FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, page;
         {checks}"
    )
}

const CHECKS: &str = "
CREATE CHECK not_too_many WITH ('severity' = 'warn') AS SELECT page, n FROM counts WHERE n > 2;
CREATE CHECK no_nameless AS SELECT * FROM counts WHERE page = '';
CREATE CHECK enough AS SELECT window_start, COUNT(*) AS hits
  FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end HAVING COUNT(*) < 1;
";

#[test]
fn checks_are_no_part_of_the_job_and_are_planned_like_queries() {
    let with = sql::plan("job.sql", &job(CHECKS)).expect("a plan");
    let without = sql::plan("job.sql", &job("")).expect("a plan");
    assert_eq!((with.digest, with.outputs.len(), with.sources.len()), (without.digest, 1, 1));
    let functions = kappa::functions::FunctionRegistry::default();
    let checks = sql::checks_with("job.sql", &job(CHECKS), &functions).expect("checks");
    let named: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.severity)).collect();
    let (warn, block) = (Severity::Warn, Severity::Block);
    assert_eq!(named, [("not_too_many", warn), ("no_nameless", block), ("enough", block)]);
    for (text, wrong) in [
        ("CREATE CHECK AS SELECT 1 FROM hits;", "name"),
        ("CREATE CHECK c WITH ('severity' = 'loud') AS SELECT page FROM hits;", "'warn' or 'block'"),
        ("CREATE CHECK c WITH (severity) AS SELECT page FROM hits;", "severity"),
        ("CREATE CHECK c SELECT page FROM hits;", "AS"),
        ("CREATE CHECK c AS INSERT INTO counts SELECT 1;", "SELECT"),
        ("CREATE CHECK c AS SELECT pgae FROM hits;", "pgae"),
        ("CREATE CHECK c AS SELECT page FROM hits; CREATE CHECK c AS SELECT page FROM hits;", "there already"),
    ] {
        let error = sql::plan("job.sql", &job(text)).expect_err(text);
        assert!(error.to_string().contains(wrong) && error.place().is_some(), "{text}: {error}");
    }
}

#[test]
fn checks_show_their_rows_and_block_by_exit_code() {
    let place = Place::new();
    let hit = |second: u32, page: &str| format!("{{\"ts\":\"2026-01-01 00:00:{second:02}\",\"page\":\"{page}\"}}\n");
    place.write("hits.jsonl", &[hit(1, "a"), hit(2, "a"), hit(3, "a"), hit(4, ""), hit(30, "b")].concat());
    place.write("job.sql", &job(CHECKS));
    place.ok(&["topic", "create", "hits"]);
    place.ok(&["produce", "hits", "hits.jsonl"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    let ran = place.kappa(&["check", "job.sql", "--format", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("not_too_many") && lines[0].contains("warn"), "{}", ran.stdout);
    assert!(lines[1].contains("no_nameless") && ran.stderr.contains("enough (block): passed"), "{}", ran.stderr);
    // Another version is checked by its own rows.
    place.write(
        "job.sql",
        &job(CHECKS).replace(
            "DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, page;",
            "DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE page <> '' GROUP BY window_start, window_end, page;",
        ),
    );
    place.ok(&["replay", "job.sql", "--from", "earliest", "--as", "v2"]);
    let v2 = place.kappa(&["check", "job.sql", "--as", "v2"]);
    assert_eq!(v2.code, 0, "{}", v2.stderr);
    assert!(v2.stderr.contains("not_too_many (warn): failed, 1 rows"), "{}", v2.stderr);
    // A submitted job is checked by its name.
    place.write("other.sql", &job(CHECKS).replace("counts", "tallies"));
    place.ok(&["job", "submit", "other.sql", "--name", "tallied"]);
    place.ok(&["up", "--stop-when-idle"]);
    let by_name = place.kappa(&["check", "tallied"]);
    assert!(by_name.code == 1 && by_name.stderr.contains("no_nameless (block): failed"), "{}", by_name.stderr);
    place.write("job.sql", &job(""));
    place.fails(&["check", "job.sql"], 2, &["no check"]);
}
