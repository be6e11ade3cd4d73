//! What is said about files that are wrong: place, message, hint.

use super::support::TABLE;
use crate::ErrorKind;
use crate::sql::plan;
use proptest::prelude::*;

const BASE: &str = "CREATE TABLE t (id BIGINT, name STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);
CREATE TABLE plain (id BIGINT, ts TIMESTAMP(3));
CREATE TABLE sink (id BIGINT, n INT);
";

/// Checks an error of a statement on line 4: column, message, part of the hint.
fn check(rows: &[(&str, u64, &str, &str)]) {
    let mut wrong = Vec::new();
    for (statement, column, message, hint) in rows {
        let error = match plan("job.sql", &format!("{BASE}{statement}")) {
            Err(error) => error,
            Ok(_) => {
                wrong.push(format!("{statement}: no error"));
                continue;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Input, "{statement}");
        let place = error.place().map(|place| (place.line, place.column));
        let hinted = error.hint().unwrap_or_default().contains(hint);
        if place != Some((4, *column)) || error.message() != *message || !hinted {
            wrong.push(format!("{statement}\n    {place:?} {} ({:?})", error.message(), error.hint()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_and_types() {
    check(&[
        ("SELECT nmae FROM t", 8, "unknown column 'nmae'", "did you mean 'name'?"),
        ("SELECT id, UPPER(t.nam) FROM t", 20, "unknown column 'nam'", "did you mean 'name'?"),
        ("SELECT id FROM tt", 16, "unknown table 'tt'", "did you mean 't'?"),
        ("SELECT 1 + name FROM t", 8, "operator + does not work on INT and STRING", ""),
        ("SELECT id FROM t WHERE name = id", 24, "cannot compare STRING with BIGINT", "CAST"),
        ("SELECT id FROM t WHERE id", 24, "expected a condition (BOOLEAN), found BIGINT", ""),
        ("SELECT UPER(name) FROM t", 8, "unknown function UPER", "did you mean UPPER?"),
        ("SELECT UPPER(id) FROM t", 8, "UPPER takes a STRING here, not BIGINT: CAST it", ""),
        ("SELECT UPPER() FROM t", 8, "UPPER takes 1 arguments, 0 are given", ""),
        ("SELECT CAST('x' AS INT) FROM t", 13, "'x' is no INT", ""),
        (
            "INSERT INTO sink SELECT id, name FROM t",
            29,
            "column 'name' is STRING, but 'n' of the table is INT",
            "CAST(name AS INT)",
        ),
        ("INSERT INTO sink SELECT id, id FROM t", 29, "column 'id' is BIGINT, but 'n' of the table is INT", ""),
        ("INSERT INTO sink SELECT id FROM t", 13, "table 'sink' takes 2 columns, the query gives 1", ""),
        ("INSERT INTO sink (id, m) SELECT id, 1 FROM t", 23, "table 'sink' has no column 'm' to write", ""),
        ("INSERT INTO snk SELECT id FROM t", 13, "unknown table 'snk'", "did you mean 'sink'?"),
        (
            "SELECT RAND() FROM t",
            8,
            "RAND is refused: its result would differ from run to run, and a replay must give the same bytes",
            "",
        ),
    ]);
}

#[test]
fn windows() {
    let end = "GROUP BY window_start, window_end";
    let windowed = |call: &str| format!("SELECT COUNT(*) FROM TABLE({call}) {end}");
    check(&[
        (
            &windowed("TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '1' HOUR)"),
            59,
            "'ts' is no event time: table 'plain' has no watermark",
            "declare WATERMARK FOR ts AS ts - INTERVAL '5' SECOND",
        ),
        (
            &windowed("TUMBLE(TABLE t, DESCRIPTOR(id), INTERVAL '1' HOUR)"),
            55,
            "'id' is not the event time of table 't': that is 'ts'",
            "",
        ),
        (&windowed("TUMBLE(TABLE t, DESCRIPTOR(ts))"), 28, "a window needs a size", "INTERVAL '1' HOUR"),
        (&windowed("TUMBLE(TABLE t, INTERVAL '1' HOUR)"), 28, "TUMBLE needs its time column: DESCRIPTOR(ts)", ""),
        (&windowed("SESSION(TABLE t, DESCRIPTOR(ts))"), 28, "a session window needs a gap", "INTERVAL"),
        (&windowed("TUMBLE(TABLE t, DESCRIPTOR(ts), 60)"), 60, "expected an interval", "INTERVAL '1' HOUR"),
        (
            &windowed("CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '7' MINUTE, INTERVAL '1' HOUR)"),
            92,
            "CUMULATE: the size (3600000 ms) must be a multiple of the step (420000 ms)",
            "",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start",
            89,
            "GROUP BY lacks window_end: groups would never be complete",
            "window_end",
        ),
        (
            "SELECT id, COUNT(*) FROM t GROUP BY id",
            37,
            "GROUP BY without a window would change its results forever",
            "TUMBLE",
        ),
    ]);
}

#[test]
fn groups() {
    let end = "GROUP BY window_start, window_end";
    let windowed = |call: &str| format!("SELECT COUNT(*) FROM TABLE({call}) {end}");
    check(&[
        (
            "SELECT name, COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY id, window_start, window_end",
            8,
            "column 'name' is neither in GROUP BY nor inside an aggregate",
            "FIRST_VALUE(name)",
        ),
        (
            "SELECT id, COUNT(*) FROM TABLE(SESSION(TABLE t PARTITION BY name, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY id, window_start, window_end",
            112,
            "the keys of GROUP BY must be those of PARTITION BY in SESSION",
            "name",
        ),
        (
            "SELECT * FROM TABLE(SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            15,
            "SESSION without an aggregation is not supported",
            "",
        ),
        (
            "SELECT id FROM t GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), id",
            27,
            "GROUP BY without a window would change its results forever",
            "TABLE(TUMBLE(",
        ),
        (
            &windowed("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MONTH)"),
            69,
            "months and years have no fixed length",
            "DAY",
        ),
        (
            "SELECT SUM(name) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end",
            12,
            "SUM does not work on STRING",
            "",
        ),
    ]);
}

#[test]
fn windows_over_windows_and_numbers() {
    const TVF: &str = "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))";
    let over =
        |over: &str, rest: &str| format!("SELECT * FROM (SELECT *, ROW_NUMBER() OVER ({over}) AS r FROM {TVF}) {rest}");
    let keys = "PARTITION BY window_start, window_end";
    let unbounded = "ROW_NUMBER needs a bound right around it, such as WHERE rownum <= 3";
    check(&[
        (
            &format!(
                "SELECT n, COUNT(*) FROM (SELECT id, COUNT(*) AS n FROM {TVF} GROUP BY window_start, window_end, id) GROUP BY n"
            ),
            162,
            "the results of a window are grouped by their window_start and window_end, which are not columns here",
            "pass them on",
        ),
        (
            &format!(
                "SELECT n FROM TABLE(TUMBLE((SELECT window_end AS e, COUNT(*) AS n FROM {TVF} GROUP BY window_start, window_end), DESCRIPTOR(e), INTERVAL '1' DAY))"
            ),
            177,
            "'e' is not the time of the rows: behind a window that is its window_time",
            "window_time",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(TUMBLE((SELECT ts FROM t UNION ALL SELECT ts FROM t), DESCRIPTOR(ts), INTERVAL '1' DAY)) GROUP BY window_start, window_end",
            22,
            "a window over UNION ALL is not supported yet",
            "",
        ),
        (&over(&format!("{keys} ORDER BY id"), ""), 26, unbounded, "WHERE rownum <= 3"),
        (&over(&format!("{keys} ORDER BY id"), "WHERE id > 1"), 26, unbounded, "WHERE rownum <= 3"),
        (&over(&format!("{keys} ORDER BY id"), "WHERE r >= 2"), 26, unbounded, "WHERE rownum <= 3"),
        (&over(&format!("{keys} ORDER BY id"), "WHERE r < 1"), 171, "no row has such a number: they start with 1", ""),
        (&over(keys, "WHERE r < 2"), 26, "ROW_NUMBER needs ORDER BY", "ORDER BY x"),
        (
            &over("PARTITION BY id ORDER BY ts", "WHERE r < 2"),
            26,
            "ROW_NUMBER needs PARTITION BY window_start, window_end: numbers of an endless stream would change forever",
            "PARTITION BY window_start",
        ),
        (
            &format!("SELECT RANK() OVER ({keys} ORDER BY id) FROM {TVF}"),
            8,
            "RANK is not supported: use ROW_NUMBER",
            "",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(COUNT_WINDOW(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end",
            75,
            "expected a number of records",
            "1000",
        ),
        (
            "SELECT COUNT(*) FROM TABLE(COUNT_WINDOW(TABLE t PARTITION BY id, DESCRIPTOR(ts), 10)) GROUP BY window_start, window_end",
            96,
            "the keys of GROUP BY must be those of PARTITION BY in COUNT_WINDOW",
            "GROUP BY window_start, window_end, id",
        ),
    ]);
}

#[test]
fn settings() {
    check(&[
        (
            "SET 'table.local-time-zone' = 'Europe/Berlni'",
            31,
            "'table.local-time-zone' = 'Europe/Berlni': expected a time zone such as 'Europe/Berlin' or 'UTC+05:30'",
            "",
        ),
        (
            "SET 'table.exec.emit.allow-lateness' = 'soon'",
            40,
            "'table.exec.emit.allow-lateness' = 'soon': expected a duration such as '10 s' or '5 min'",
            "",
        ),
        (
            "SET 'table.exec.emit.early-fire.enabled' = 'true'; SELECT id FROM t",
            44,
            "early results need a delay: 'table.exec.emit.early-fire.delay'",
            "= '10 s'",
        ),
        ("SET 'tabel.exec' = '1'", 5, "unknown setting 'tabel.exec'", ""),
    ]);
}

#[test]
fn tables_and_statements() {
    check(&[
        (
            "CREATE TABLE x (a INT) WITH ('conector' = 'print')",
            30,
            "unknown option 'conector'",
            "did you mean 'connector'?",
        ),
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'prnt')",
            44,
            "'connector' = 'prnt': unknown connector",
            "did you mean 'print'?",
        ),
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'filesystem')",
            44,
            "'connector' = 'filesystem': this connector needs 'path'",
            "",
        ),
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'upsert-kafka')",
            44,
            "'connector' = 'upsert-kafka': this connector needs a key",
            "PRIMARY KEY",
        ),
        ("CREATE TABLE x (a INTT)", 19, "INTT is not a type of Flink", ""),
        ("CREATE TABLE x (a INT, a INT)", 24, "column 'a' is there twice", ""),
        (
            "CREATE TABLE x (a INT, WATERMARK FOR a AS a)",
            38,
            "event time must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), 'a' is INT",
            "TO_TIMESTAMP_LTZ",
        ),
        ("CREATE TABLE x (a INT, WATERMARK FOR b AS b)", 38, "unknown column 'b'", ""),
        ("CREATE TABLE x (a INT, PRIMARY KEY (a))", 24, "a PRIMARY KEY is not checked", "NOT ENFORCED"),
        ("CREATE TABLE x (a INT) PARTITIONED BY (a)", 24, "PARTITIONED BY is not supported", ""),
        ("CREATE TABLE t (a INT)", 14, "'t' is there already", ""),
        (
            "CREATE TABLE `a b` (a INT)",
            14,
            "' ' is not allowed in a topic name: use letters, digits, '.', '_' and '-'",
            "'topic'",
        ),
        ("CREATE TABLE x (a INT", 22, "expected ',' or ')', but the statement ends here", ""),
        ("SELECT id FROM t ORDER BY id", 27, "ORDER BY is not supported on a stream", ""),
        ("SELECT a.id FROM t AS a JOIN t AS b ON a.id = b.id", 30, "joins are not supported yet", "UNION ALL"),
        ("DROP TABLE t", 1, "DROP is not part of a job file", "CREATE TABLE"),
        ("SELCT id FROM t", 1, "expected a statement, found SELCT", "did you mean SELECT?"),
        ("SELECT id FROM t extra junk", 24, "expected the end of the statement, found junk", ""),
        ("SELECT id FROM t WHERE", 23, "expected an expression, but the statement ends here", ""),
        ("BEGIN STATEMENT SET; INSERT INTO sink SELECT id, 1 FROM t", 1, "this statement set has no END", ""),
    ]);
}

#[test]
fn an_empty_file_has_nothing_to_run() {
    let error = plan("job.sql", "-- nothing\n").unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Input, "job.sql: nothing to run"));
}

const WHOLE: &str = "CREATE TEMPORARY VIEW v (a, b, ts) AS SELECT i + 1, s || 'x', ts FROM t WHERE i > 1;
INSERT INTO out SELECT window_start, COUNT(DISTINCT a) FILTER (WHERE b LIKE 'x%'), AVG(a) FROM
TABLE(HOP(DATA => TABLE v, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' MINUTE, SIZE => INTERVAL '1' HOUR))
GROUP BY window_start, window_end HAVING COUNT(*) > CAST(1 AS BIGINT); /* end */ SELECT r.x.y, a[1] FROM t;
SET 'table.local-time-zone' = 'Europe/Berlin'; SET 'table.exec.emit.allow-lateness' = '1 min';
CREATE VIEW n AS SELECT window_start AS ws, window_end AS we, window_time AS rt, s, COUNT(*) AS c
FROM TABLE(COUNT_WINDOW(TABLE t PARTITION BY s, DESCRIPTOR(ts), 10, INTERVAL '1' HOUR)) GROUP BY window_start, window_end, window_time, s;
SELECT s, c, r FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY ws, we, s ORDER BY c DESC NULLS LAST, s) AS r FROM n)
WHERE r BETWEEN 1 AND 3 AND c > 0;
SELECT MAX(c), window_end FROM TABLE(TUMBLE(TABLE n, DESCRIPTOR(rt), INTERVAL '1' DAY)) GROUP BY window_start, window_end;
SELECT ws, COUNT(*) FROM n GROUP BY ws, we;";

fn whole() -> String {
    format!("{TABLE}CREATE TABLE out (w TIMESTAMP(3), n BIGINT, m INT) WITH ('connector' = 'print');\n{WHOLE}")
}

#[test]
fn every_prefix_is_planned_or_refused() {
    let text = whole();
    assert!(plan("job.sql", &text).is_ok(), "{:?}", plan("job.sql", &text).map(|_| ()));
    for (end, _) in text.char_indices() {
        if let Err(error) = plan("job.sql", &text[..end]) {
            assert_eq!(error.kind(), ErrorKind::Input, "{error}: {}", &text[..end]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_file_panics(
        at in 0usize..4000, length in 0usize..20,
        insert in prop_oneof![
            "\\PC{0,8}", Just("(".to_owned()), Just("NULL".to_owned()), Just("'a'".to_owned()),
            Just(" SELECT ".to_owned()), Just("9223372036854775807".to_owned()), Just("COUNT(*)".to_owned()),
            Just("window_start".to_owned()), Just("r".to_owned()), Just("-".to_owned())
        ],
    ) {
        let text = whole();
        let chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        let end = (at + length).min(chars.len());
        let changed: String = chars[..at].iter().collect::<String>() + &insert + &chars[end..].iter().collect::<String>();
        if let Err(error) = plan("job.sql", &changed) {
            prop_assert_eq!(error.kind(), ErrorKind::Input, "{}\n{}", error, changed);
        }
    }
}

#[test]
fn deep_and_long_statements_are_refused_or_planned() {
    let long = |unit: &str, count: usize| format!("{BASE}SELECT id FROM t WHERE {}TRUE", unit.repeat(count));
    for count in [10, 100, 190, 1000, 100_000] {
        for unit in ["NOT ", "id > 1 AND ", "(", "CASE WHEN TRUE THEN ", "id + id = id OR ", "- "] {
            let _ = plan("job.sql", &long(unit, count));
        }
    }
    let list = (0..5000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    assert!(plan("job.sql", &format!("{BASE}SELECT id FROM t WHERE id IN ({list})")).is_ok());
}
