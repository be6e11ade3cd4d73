//! `table.local-time-zone`: what it changes for TIMESTAMP_LTZ, and what it does not change.

use super::support::evaluate_after;
use crate::engine::plan::{Step, Zone};
use crate::sql::plan;

/// Rows of expression, type and value in New York; `l` is 1969-12-31 23:59:59.999 UTC, `ts` 2013-01-05 15:04:09.070.
const NEW_YORK: &[(&str, &str, &str)] = &[
    ("CAST(l AS STRING)", "STRING", "1969-12-31 18:59:59.999"),
    ("CAST(l AS TIMESTAMP(3))", "TIMESTAMP(3)", "1969-12-31 18:59:59.999"),
    ("CAST(CAST(l AS DATE) AS STRING)", "STRING", "1969-12-31"),
    ("CAST(ts AS TIMESTAMP_LTZ(3))", "TIMESTAMP_LTZ(3)", "2013-01-05 20:04:09.070"),
    ("CAST(DATE '2013-03-11' AS TIMESTAMP_LTZ(3))", "TIMESTAMP_LTZ(3)", "2013-03-11 04:00:00.000"),
    ("CAST('2013-03-10 02:30:00' AS TIMESTAMP_LTZ(3))", "TIMESTAMP_LTZ(3)", "2013-03-10 07:30:00.000"),
    ("CAST('2013-11-03 01:30:00' AS TIMESTAMP_LTZ(3))", "TIMESTAMP_LTZ(3)", "2013-11-03 05:30:00.000"),
    ("EXTRACT(HOUR FROM l)", "BIGINT", "18"),
    ("DAYOFMONTH(TO_TIMESTAMP_LTZ(0, 3))", "BIGINT", "31"),
    ("EXTRACT(EPOCH FROM l)", "BIGINT", "-1"),
    ("EXTRACT(HOUR FROM ts)", "BIGINT", "15"),
    // As Flink does it: back by the offset of noon, although the day began an hour later.
    ("FLOOR(TO_TIMESTAMP_LTZ(1362931200, 0) TO DAY)", "TIMESTAMP_LTZ(3)", "2013-03-10 04:00:00.000"),
    ("CEIL(l TO MONTH)", "TIMESTAMP_LTZ(3)", "1970-01-01 05:00:00.000"),
    ("FLOOR(ts TO DAY)", "TIMESTAMP(3)", "2013-01-05 00:00:00.000"),
    ("DATE_FORMAT(l, 'yyyy-MM-dd HH:mm')", "STRING", "1969-12-31 18:59"),
    ("DATE_FORMAT(ts, 'HH:mm')", "STRING", "15:04"),
    ("FROM_UNIXTIME(0)", "STRING", "1969-12-31 19:00:00"),
    ("UNIX_TIMESTAMP('1970-01-01 00:00:00')", "BIGINT", "18000"),
    ("UNIX_TIMESTAMP('2021-11-07 01:06:00')", "BIGINT", "1636265160"),
    ("UNIX_TIMESTAMP('2021-03-14 02:30:00')", "BIGINT", "1615707000"),
    ("TO_TIMESTAMP_LTZ('1970-01-01 00:00:00')", "TIMESTAMP_LTZ(3)", "1970-01-01 00:00:00.000"),
    ("l < TIMESTAMP '1969-12-31 19:00:00'", "BOOLEAN", "true"),
    ("l = '1969-12-31 18:59:59.999'", "BOOLEAN", "true"),
    ("l BETWEEN DATE '1969-12-31' AND DATE '1970-01-01'", "BOOLEAN", "true"),
    ("COALESCE(ts, l)", "TIMESTAMP_LTZ(3)", "2013-01-05 20:04:09.070"),
    ("GREATEST(l, ts)", "TIMESTAMP_LTZ(3)", "2013-01-05 20:04:09.070"),
    ("CASE WHEN k THEN ts ELSE l END", "TIMESTAMP_LTZ(3)", "2013-01-05 20:04:09.070"),
    ("CURRENT_DATE", "DATE", "1969-12-31"),
    ("LOCALTIMESTAMP", "TIMESTAMP(3)", "1969-12-31 19:00:01.000"),
    ("l + INTERVAL '1' HOUR", "TIMESTAMP_LTZ(3)", "1970-01-01 00:59:59.999"),
];

#[test]
fn expressions_in_a_zone() {
    let set = "SET 'table.local-time-zone' = 'America/New_York';";
    let mut wrong = Vec::new();
    for (expression, data_type, value) in NEW_YORK {
        match evaluate_after(set, expression) {
            Ok((found, first, _)) if (found.as_str(), first.as_str()) == (*data_type, *value) => {}
            other => wrong.push(format!("{expression}: {other:?}, not {data_type} {value}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn offsets_and_utc() {
    for (zone, expected) in [
        ("UTC+05:30", "1970-01-01 05:29:59.999"),
        ("GMT-03:00", "1969-12-31 20:59:59.999"),
        ("UTC", "1969-12-31 23:59:59.999"),
        ("default", "1969-12-31 23:59:59.999"),
    ] {
        let (_, value, _) =
            evaluate_after(&format!("SET 'table.local-time-zone' = '{zone}';"), "CAST(l AS STRING)").unwrap();
        assert_eq!(value, expected, "{zone}");
    }
}

#[test]
fn windows_are_cut_in_the_zone_of_their_statement() {
    let tables = "CREATE TABLE t (k STRING, l TIMESTAMP_LTZ(3), shown AS CAST(l AS STRING), proc AS PROCTIME(), WATERMARK FOR l AS l);
        CREATE TABLE p (ts TIMESTAMP(3), WATERMARK FOR ts AS ts);
        CREATE VIEW days AS SELECT window_start, window_end, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(l), INTERVAL '1' DAY))
          GROUP BY window_start, window_end;\n";
    let ranked = "SELECT window_start FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n) AS r FROM days)
          WHERE r = 1;";
    let count = |table: &str, time: &str| {
        let call = format!("TUMBLE(TABLE {table}, DESCRIPTOR({time}), INTERVAL '1' DAY)");
        format!("SELECT COUNT(*) FROM TABLE({call}) GROUP BY window_start, window_end;")
    };
    let nested = "SELECT MAX(n) FROM days GROUP BY window_start, window_end;";
    let (by_l, by_proc, plain) = (count("t", "l"), count("t", "proc"), count("p", "ts"));
    let text = format!(
        "{tables}{by_l} SET 'table.local-time-zone' = 'Europe/Berlin'; {by_l} {by_proc} {plain} {nested} {ranked}"
    );
    let job = plan("t.sql", &text).unwrap();
    let zones = job.pipelines.iter().map(|pipeline| {
        let zones = pipeline.steps.iter().filter_map(|step| match step {
            Step::Aggregate(window) => Some(window.zone),
            Step::Rank(rank) => Some(rank.zone),
            _ => None,
        });
        zones.collect::<Vec<_>>()
    });
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    let expected = [vec![None], vec![berlin], vec![berlin], vec![None], vec![berlin; 2], vec![berlin; 2]];
    assert_eq!(zones.collect::<Vec<_>>(), expected);
}

#[test]
fn the_zone_is_part_of_the_digest_where_it_matters() {
    let digest = |zone: &str, select: &str| {
        let text = format!(
            "CREATE TABLE t (l TIMESTAMP_LTZ(3), ts TIMESTAMP(3), shown AS CAST(l AS STRING));
            SET 'table.local-time-zone' = '{zone}'; SELECT {select} FROM t;"
        );
        plan("t.sql", &text).unwrap().digest
    };
    assert_ne!(digest("UTC", "shown"), digest("Asia/Tokyo", "shown"), "definitions follow the setting, too");
    assert_ne!(digest("Asia/Tokyo", "CAST(l AS DATE)"), digest("Asia/Kolkata", "CAST(l AS DATE)"));
    assert_eq!(digest("UTC", "l, ts"), digest("Asia/Tokyo", "l, ts"));
    assert_eq!(digest("UTC", "FLOOR(ts TO DAY)"), digest("Asia/Tokyo", "FLOOR(ts TO DAY)"));
}
