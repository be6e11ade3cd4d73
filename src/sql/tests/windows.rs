//! Windows over windows, first rows of windows, count windows, append time, and what SET says about windows.

use super::support::names;
use crate::engine::plan::*;
use crate::sql::plan;
use arrow::datatypes::{DataType, TimeUnit};
use std::sync::Arc;

const TABLES: &str = "CREATE TABLE t (k STRING, v BIGINT, ts TIMESTAMP(3), proc AS PROCTIME(), WATERMARK FOR ts AS ts);
CREATE TABLE z (k STRING, at TIMESTAMP_LTZ(3), WATERMARK FOR at AS at);
CREATE VIEW minutes AS SELECT window_start, window_end, window_time AS rt, k, COUNT(*) AS n
  FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, window_time, k;
CREATE VIEW counts AS SELECT rt, k, n FROM minutes;
";

fn job(statements: &str) -> JobPlan {
    plan("t.sql", &format!("{TABLES}{statements}")).unwrap_or_else(|error| panic!("{statements}\n{error}"))
}

/// The steps of the last pipeline, one a line, columns by their place.
fn steps(statements: &str) -> Vec<String> {
    let job = job(statements);
    job.pipelines.last().expect("a pipeline").steps.iter().map(shown).collect()
}

/// An expression with the places of its columns for their names.
fn text(expr: &Expr) -> String {
    use datafusion_physical_expr::expressions::Column;
    let unnamed = crate::sql::expr::replace_columns(expr, &|column| Some(Arc::new(Column::new("", column.index()))));
    unnamed.expect("columns can be renamed").to_string()
}

fn shown(step: &Step) -> String {
    let exprs = |keys: &[NamedExpr]| keys.iter().map(|key| text(&key.expr)).collect::<Vec<_>>().join(", ");
    match step {
        Step::Filter(condition) => format!("filter {}", text(condition)),
        Step::Project { columns, .. } => format!("project {}", exprs(columns)),
        Step::AssignWindows { kind, rowtime, zone, .. } => format!("assign {kind:?} by {rowtime}{}", in_zone(*zone)),
        Step::Aggregate(window) => {
            let (kind, rowtime, keys) = (window.kind, window.rowtime, exprs(&window.keys));
            format!("{kind:?} by {rowtime} of ({keys}){}: {}", in_zone(window.zone), names(&window.schema).join(", "))
        }
        Step::Rank(rank) => {
            let order = rank.order.iter().map(|order| {
                let Order { expr, descending, nulls_first } = order;
                let expr = text(expr);
                format!(
                    "{expr} {}{}",
                    if *descending { "down" } else { "up" },
                    if *nulls_first { " nulls first" } else { "" }
                )
            });
            let order = order.collect::<Vec<_>>().join(", ");
            let number = if rank.number { " numbered" } else { "" };
            let order = if rank.last_wins { format!("{order}, last of equal ones") } else { order };
            let (start, end, partition) = (rank.window_start, rank.window_end, exprs(&rank.partition));
            format!(
                "rank {}..{} of ({start}, {end}; {partition}) by {order}{number}{}",
                rank.from,
                rank.limit,
                in_zone(rank.zone)
            )
        }
    }
}

fn in_zone(zone: Option<Zone>) -> String {
    zone.map_or(String::new(), |zone| format!(" in {zone}"))
}

const MINUTE: &str = "Tumble { size_ms: 60000, offset_ms: 0 }";

#[test]
fn the_same_windows_again() {
    assert_eq!(
        steps("SELECT window_start, MAX(n) FROM minutes WHERE n > 1 GROUP BY window_start, window_end;"),
        [
            &format!("{MINUTE} by 1 of (@0): k, agg0, window_start, window_end, window_time"),
            "project @2, @3, @1",
            "filter @2 > 1",
            "Attached { start: 0, end: 1 } by 1 of (): agg0, window_start, window_end, window_time",
            "project @1, @0",
        ]
    );
}

#[test]
fn windows_over_window_time_on_several_levels() {
    let text = "CREATE VIEW hours AS SELECT window_start AS ws, window_end AS we, window_time, k, SUM(n) AS n
        FROM TABLE(TUMBLE(TABLE counts, DESCRIPTOR(rt), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, window_time, k;
        SELECT window_end, n, days FROM (SELECT window_end, n, COUNT(*) AS days FROM TABLE(
          CUMULATE(TABLE hours, DESCRIPTOR(window_time), INTERVAL '1' DAY, INTERVAL '2' DAY)) GROUP BY window_start, window_end, n);";
    let lines = steps(text);
    let aggregations: Vec<_> = lines.iter().filter(|line| line.contains(" of (")).collect();
    assert_eq!(
        aggregations,
        [
            "Tumble { size_ms: 60000, offset_ms: 0 } by 1 of (@0): k, agg0, window_start, window_end, window_time",
            "Tumble { size_ms: 3600000, offset_ms: 0 } by 0 of (@1): k, agg0, window_start, window_end, window_time",
            "Cumulate { max_ms: 172800000, step_ms: 86400000, offset_ms: 0 } by 0 of (@1): n, agg0, window_start, window_end, window_time",
        ]
    );
    let job = job(text);
    assert_eq!((job.pipelines[0].time, job.pipelines[0].rowtime), (TimeDomain::Event, None));
}

#[test]
fn a_window_function_over_a_window_function() {
    let inner = "(SELECT v, window_time AS rt FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)))";
    let lines = steps(&format!(
        "SELECT window_start, SUM(v) FROM TABLE(TUMBLE({inner}, DESCRIPTOR(rt), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;"
    ));
    let hour = "Tumble { size_ms: 3600000, offset_ms: 0 } by 4 of (): agg0, window_start, window_end, window_time";
    assert_eq!(lines[1..], [&format!("assign {MINUTE} by 1"), hour, "project @1, @0"]);
}

#[test]
fn window_columns_inside_aggregates() {
    let lines = steps(
        "SELECT window_start, COUNT(*) FILTER (WHERE ts < window_start + INTERVAL '10' SECOND) FROM TABLE(
          TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;",
    );
    let attached = "Attached { start: 1, end: 2 } by 2 of (): agg0, window_start, window_end, window_time";
    assert_eq!(lines, [&format!("assign {MINUTE} by 0"), attached, "project @1, @0"]);
}

const RANKED: &str =
    "SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY v DESC, ts) AS rownum
    FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))";

#[test]
fn the_first_rows_of_a_window() {
    let rank =
        |bounds: &str, number: &str| format!("rank {bounds} of (3, 4; @0) by @1 down, @2 up nulls first{number}");
    let lines = steps(&format!("SELECT k, v FROM ({RANKED}) WHERE rownum <= 3;"));
    assert_eq!(lines[0], format!("assign {MINUTE} by 2"));
    assert_eq!(lines[2..], [rank("1..3", ""), "project @0, @1".to_owned()]);
    for (condition, bounds) in [
        ("rownum < 4", "1..3"),
        ("4 > rownum", "1..3"),
        ("rownum = 1", "1..1"),
        ("rownum = 2", "2..2"),
        ("rownum BETWEEN 2 AND 5", "2..5"),
        ("rownum > 1 AND rownum <= 5 AND rownum <= 7", "2..5"),
        ("2 <= rownum AND 5 >= rownum", "2..5"),
    ] {
        let lines = steps(&format!("SELECT rownum, k FROM ({RANKED}) WHERE {condition};"));
        assert_eq!(lines[2..], [rank(bounds, " numbered"), "project @5, @0".to_owned()], "{condition}");
    }
}

#[test]
fn deduplication_keeps_the_last_of_the_latest_rows() {
    for (order, kept, last) in [
        ("ts DESC", 1, true),
        ("window_time DESC", 1, true),
        ("ts", 1, false),
        ("ts DESC", 2, false),
        ("ts DESC, v", 1, false),
        ("v DESC", 1, false),
    ] {
        let lines = steps(&format!(
            "SELECT k FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY {order}) AS r
             FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))) WHERE r <= {kept};"
        ));
        let rank = lines.iter().find(|line| line.starts_with("rank")).expect("a rank");
        assert_eq!(rank.contains("last of equal ones"), last, "{order} {kept}: {rank}");
    }
}

#[test]
fn what_else_a_where_says_about_numbered_rows_comes_behind_them() {
    let lines = steps(&format!(
        "WITH r AS ({RANKED}), named AS (SELECT k AS key, rownum AS place FROM r) SELECT key FROM named
         WHERE key <> 'a' AND place <= 2 AND place % 2 = 1;"
    ));
    let filters: Vec<_> = lines.iter().filter(|line| line.starts_with("filter") || line.starts_with("rank")).collect();
    assert!(filters[0].starts_with("rank 1..2") && filters[0].ends_with("numbered"), "{lines:?}");
    assert_eq!(filters.len(), 3, "{lines:?}");
}

#[test]
fn the_first_rows_of_window_results_and_windows_over_them() {
    let ranked = "SELECT window_start, window_end, rt, k, n, ROW_NUMBER() OVER (
        PARTITION BY window_start, window_end ORDER BY n DESC NULLS FIRST) AS r FROM minutes";
    let lines = steps(&format!(
        "SELECT window_start, SUM(n) FROM (SELECT * FROM ({ranked}) WHERE r <= 2) GROUP BY window_start, window_end;"
    ));
    let found: Vec<_> = lines.iter().filter(|line| !line.starts_with("project")).skip(1).collect();
    assert_eq!(
        found,
        [
            "rank 1..2 of (0, 1; ) by @2 down nulls first",
            "Attached { start: 0, end: 1 } by 1 of (): agg0, window_start, window_end, window_time",
        ]
    );
    let lines = steps(
        "SELECT window_start, k, n FROM (SELECT window_start, k, COUNT(*) AS n, ROW_NUMBER() OVER (
           PARTITION BY window_start, window_end ORDER BY COUNT(*) DESC, k) AS r
         FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))
         GROUP BY window_start, window_end, k) WHERE r = 1;",
    );
    assert_eq!(lines[2], "rank 1..1 of (0, 3; ) by @2 down, @1 up nulls first", "{lines:?}");
}

#[test]
fn count_windows() {
    let lines = steps(
        "SELECT k, window_start, window_reason, SUM(v) FROM TABLE(COUNT_WINDOW(TABLE t PARTITION BY k, DESCRIPTOR(ts), 100,
           INTERVAL '5' SECOND)) WHERE v > 0 GROUP BY window_start, window_end, k HAVING window_reason <> 'end';",
    );
    assert_eq!(
        lines,
        [
            "filter @1 > 0",
            "Count { size: 100, timeout_ms: Some(5000) } by 2 of (@0): k, agg0, window_start, window_end, window_time, window_reason",
            "filter @5 != end",
            "project @0, @2, @5, @1",
        ]
    );
    let lines = steps(
        "SELECT COUNT(*) FROM TABLE(COUNT_WINDOW(DATA => TABLE t, TIMECOL => DESCRIPTOR(proc), SIZE => 3))
         GROUP BY window_start, window_end;",
    );
    assert!(lines[0].starts_with("Count { size: 3, timeout_ms: None } by 1 of ()"), "{lines:?}");
}

#[test]
fn windows_of_every_kind_by_append_time() {
    for call in [
        "TUMBLE(TABLE t, DESCRIPTOR(proc), INTERVAL '1' MINUTE)",
        "HOP(TABLE t, DESCRIPTOR(proc), INTERVAL '7' SECOND, INTERVAL '1' MINUTE)",
        "CUMULATE(TABLE t, DESCRIPTOR(proc), INTERVAL '1' SECOND, INTERVAL '1' MINUTE)",
        "SESSION(TABLE t, DESCRIPTOR(proc), INTERVAL '1' MINUTE)",
        "TUMBLE((SELECT v, PROCTIME() AS p FROM t), DESCRIPTOR(p), INTERVAL '1' MINUTE)",
    ] {
        let job = job(&format!(
            "SELECT window_time, SUM(v) FROM TABLE({call}) GROUP BY window_start, window_end, window_time;"
        ));
        let pipeline = &job.pipelines[0];
        assert_eq!(pipeline.time, TimeDomain::Append, "{call}");
        let time = job.outputs[0].schema.field(0).data_type();
        assert_eq!(*time, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), "{call}");
    }
    let nested = job("SELECT window_start, MAX(n) FROM TABLE(TUMBLE((SELECT window_time, COUNT(*) AS n FROM TABLE(
           TUMBLE(TABLE t, DESCRIPTOR(proc), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, window_time),
           DESCRIPTOR(window_time), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;");
    assert_eq!(nested.pipelines[0].time, TimeDomain::Append);
}

#[test]
fn sessions_of_several_keys() {
    for keys in ["(k, v)", "k, v"] {
        let lines = steps(&format!(
            "SELECT k, v, COUNT(*) FROM TABLE(SESSION(TABLE t PARTITION BY {keys}, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
             GROUP BY v, window_start, window_end, k;"
        ));
        assert!(lines[0].starts_with("Session { gap_ms: 60000 } by 2 of (@1, @0)"), "{lines:?}");
    }
}

#[test]
fn hops_of_any_size() {
    for (slide, size) in [("7", "60"), ("60", "7")] {
        let lines = steps(&format!(
            "SELECT COUNT(*) FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND,
             INTERVAL '6' SECOND)) GROUP BY window_start, window_end;"
        ));
        assert!(lines[0].starts_with(&format!("Hop {{ size_ms: {size}000, slide_ms: {slide}000, offset_ms: 6000 }}")));
    }
}

#[test]
fn lateness_and_early_results_are_for_the_statements_that_follow() {
    let one = "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;\n";
    let other = one.replace("(ts)", "(proc)");
    let nest = "SELECT MAX(n) FROM minutes GROUP BY window_start, window_end;\n";
    let job = job(&format!(
        "{one} SET 'table.exec.emit.allow-lateness' = '10 min'; {one}
         SET 'table.exec.emit.early-fire.enabled' = 'true'; SET 'table.exec.emit.early-fire.delay' = '10 s'; {one} {other} {nest}
         SELECT k FROM t; SET 'table.exec.emit.early-fire.enabled' = 'false'; {one}"
    ));
    let emissions: Vec<_> = job.pipelines.iter().map(|p| (p.emission.lateness_ms, p.emission.early_us)).collect();
    let (late, early) = (600_000, Some(10_000_000));
    assert_eq!(emissions, [(0, None), (late, None), (late, early), (0, early), (late, None), (0, None), (late, None)]);
    let note = "select-5: early results are for one window, those of windows over windows come at their end";
    assert_eq!(job.notes, [note]);
}
