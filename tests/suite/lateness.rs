//! `kappa plan-lateness` counts what runs with those delays drop.

use crate::util::{Place, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

fn json_rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Records in the late topics, by output.
fn late(place: &Place) -> BTreeMap<String, u64> {
    let topics = json_rows(&place.ok(&["topic", "list", "--format", "json"]));
    let late = topics.iter().filter_map(|row| {
        let output = row["topic"].as_str()?.strip_suffix(".late")?.trim_start_matches("flights.");
        Some((output.to_owned(), row["records"].as_u64()?))
    });
    late.collect()
}

/// What a plan says of one delay, by output.
fn planned(rows: &[Value], delay_ms: u64) -> BTreeMap<String, u64> {
    let of_delay = rows.iter().filter(|row| row["delay_ms"] == delay_ms && row["dropped"] != 0);
    of_delay
        .map(|row| (row["output"].as_str().expect("text").to_owned(), row["dropped"].as_u64().expect("a count")))
        .collect()
}

#[test]
fn the_plan_counts_what_runs_drop() {
    let job = fs::read_to_string(root().join("fixtures/flights.sql")).expect("the job");
    let declared = "departure - INTERVAL '3' HOUR";
    assert!(job.contains(declared));
    let place = Place::with_fixtures();
    place.write("flights.sql", &job);
    place.ok(&["run", "flights.sql"]);
    let plan = ["plan-lateness", "flights.sql", "--format", "json"];
    let rows = json_rows(&place.ok(&[&plan[..], &["--delays", "0s,6h,3h", "--may-drop", "0.2"]].concat()));
    assert_eq!(rows.len(), 9, "three outputs, three delays");
    for hours in [0, 3, 6] {
        let other = Place::with_fixtures();
        other.write("flights.sql", &job.replace(declared, &format!("departure - INTERVAL '{hours}' HOUR")));
        other.ok(&["run", "flights.sql"]);
        assert_eq!(planned(&rows, hours * 3_600_000), late(&other), "{hours} hours");
    }
    let hourly = |hours: u64| {
        let row = rows.iter().find(|row| row["output"] == "delays_hourly" && row["delay_ms"] == hours * 3_600_000);
        row.unwrap_or_else(|| panic!("{hours} hours"))
    };
    let (none, three, six) = (hourly(0), hourly(3), hourly(6));
    assert_eq!(
        (&three["dropped"], &three["declared"], &three["recommended"]),
        (&15_051.into(), &true.into(), &true.into())
    );
    assert_eq!((&none["revisions"], &three["revisions"]), (&Value::Null, &0.into()));
    assert_eq!(six["revisions"].as_u64(), six["dropped"].as_u64().map(|dropped| 15_051 - dropped));
    let sessions: Vec<&Value> = rows.iter().filter(|row| row["output"] == "busy_periods").collect();
    assert!(sessions.iter().all(|row| row["revisions"].is_null()), "known for tumbling windows only: {sessions:?}");
    let worst: Vec<&Value> = rows.iter().filter(|row| row["output"] == "select-1").collect();
    assert!(worst.len() == 3 && worst.iter().all(|row| row["revisions"].is_null()), "HAVING holds back: {worst:?}");
}

#[test]
fn without_delays_those_are_tried_that_the_records_ask_for() {
    let place = Place::new();
    let sql = "CREATE TABLE visits (ts TIMESTAMP(3), status INT, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
      WITH ('connector' = 'kappa', 'format' = 'json');
    CREATE TABLE ok (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'kappa', 'format' = 'json');
    INSERT INTO ok SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE visits, DESCRIPTOR(ts), INTERVAL '1' SECOND))
    WHERE status < 400 GROUP BY window_start, window_end;";
    place.write("visits.sql", sql);
    place.ok(&[
        "generate",
        "web-events",
        "--topic",
        "visits",
        "--events",
        "10000",
        "--disorder",
        "9s",
        "--future",
        "0.01",
    ]);
    let rows = json_rows(&place.ok(&["plan-lateness", "visits.sql", "--format", "json"]));
    let delays: Vec<u64> = rows.iter().map(|row| row["delay_ms"].as_u64().expect("ms")).collect();
    assert_eq!(delays, [0, 2_000, 5_000, 10_000]);
    let dropped: Vec<u64> = rows.iter().map(|row| row["dropped"].as_u64().expect("a count")).collect();
    assert!(dropped.is_sorted_by(|a, b| a > b) && dropped[3] == 0 && dropped[0] < 10_000, "{dropped:?}");
    let recommended: Vec<bool> = rows.iter().map(|row| row["recommended"] == true).collect();
    assert_eq!(recommended, [false, false, false, true]);
    place.ok(&["run", "visits.sql", "--bounded"]);
    assert_eq!(late(&place), BTreeMap::from([("ok".to_owned(), dropped[1])]));
    place.write(
        "pass.sql",
        &sql.replace(
            "window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE visits, DESCRIPTOR(ts), INTERVAL '1' SECOND))",
            "ts, 1 FROM visits",
        )
        .replace("GROUP BY window_start, window_end", ""),
    );
    place.fails(&["plan-lateness", "pass.sql"], 2, &["no windows of event time"]);
}
