//! Whole files and the plans they become.

use super::support::{TABLE, names, run, shown, source_rows, steps};
use crate::engine::plan::*;
use crate::format::framing::Framing;
use crate::sql::plan;

const FLIGHTS: &str = "
CREATE TABLE flights (
  arrival_time BIGINT, event_time BIGINT, flight STRING, tailnum STRING, origin STRING, dest STRING, dep_delay_min INT,
  ts AS TO_TIMESTAMP_LTZ(event_time, 0),
  WATERMARK FOR ts AS ts - INTERVAL '2' HOUR
) WITH ('connector' = 'filesystem', 'path' = 'fixtures/flights.csv.gz', 'format' = 'csv', 'csv.header' = 'true');
CREATE TABLE hourly (origin STRING, hour_start TIMESTAMP(3), departures BIGINT, delay INT);
CREATE VIEW departed AS SELECT * FROM flights WHERE dep_delay_min IS NOT NULL;
INSERT INTO hourly
SELECT origin, window_start, COUNT(*), AVG(dep_delay_min)
FROM TABLE(TUMBLE(TABLE departed, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY origin, window_start, window_end;
SELECT origin, window_start, window_end, COUNT(*) AS departures
FROM TABLE(SESSION(TABLE flights PARTITION BY origin, DESCRIPTOR(ts), INTERVAL '30' MINUTE))
GROUP BY window_start, window_end, origin;
";

#[test]
fn the_flights() {
    let job = plan("flights.sql", FLIGHTS).unwrap();
    assert_eq!(job.sources.len(), 1);
    let source = &job.sources[0];
    assert_eq!(source.used, [1, 4, 6]);
    assert_eq!(names(&source.schema), ["origin", "dep_delay_min", "ts"]);
    assert_eq!(source.event_time.as_ref().unwrap().rowtime, 2);
    assert!(source.metadata.is_empty());
    assert_eq!(source.ingest.as_ref().unwrap().framing, Framing::Csv { header: true, quote: Some(b'"') });
    let [hourly, sessions] = job.pipelines.as_slice() else { panic!("two pipelines") };
    let [Step::Filter(_), Step::Project { .. }, Step::Aggregate(window), Step::Project { schema, .. }] =
        hourly.steps.as_slice()
    else {
        panic!("other steps: {:?}", hourly.steps)
    };
    assert_eq!(window.kind, WindowKind::Tumble { size_ms: 3_600_000, offset_ms: 0 });
    assert_eq!(names(&window.schema), ["origin", "agg0", "agg1", "window_start", "window_end", "window_time"]);
    assert_eq!(window.aggregates[1].function, AggregateFunction::Avg);
    assert_eq!(*schema, job.outputs[0].schema);
    assert_eq!(sessions.aggregations().next().unwrap().kind, WindowKind::Session { gap_ms: 1_800_000 });
    assert_eq!(job.outputs[1].topic.as_deref(), Some("select-1"));
    assert_eq!(names(&job.outputs[1].schema), ["origin", "window_start", "window_end", "departures"]);
}

#[test]
fn the_digest_sees_what_changes_an_output_and_nothing_else() {
    let digest = |text: &str| plan("flights.sql", text).unwrap().digest;
    let same = [
        FLIGHTS.replace('\n', "\n  -- comment\n"),
        FLIGHTS.replace("SELECT", "select /* x */"),
        FLIGHTS.replace("CREATE VIEW departed", "CREATE TABLE unused (a INT);\nCREATE VIEW departed"),
        format!("SET 'parallelism.default' = '4';{FLIGHTS}"),
    ];
    for text in same {
        assert_eq!(digest(&text), digest(FLIGHTS), "{text}");
    }
    let mut seen = vec![digest(FLIGHTS)];
    for (from, to) in [
        ("'1' HOUR", "'2' HOUR"),
        ("IS NOT NULL", "> 1"),
        ("IS NOT NULL", "> 2"),
        ("COUNT(*),", "COUNT(dest),"),
        ("COUNT(*),", "COUNT(DISTINCT dest),"),
        ("'2' HOUR", "'3' HOUR"),
        ("AVG(dep", "MAX(dep"),
        ("hour_start TIMESTAMP(3)", "start_of_hour TIMESTAMP(3)"),
        ("SELECT origin, window_start, COUNT", "SELECT dest, window_start, COUNT"),
    ] {
        let mut text = FLIGHTS.replace(from, to);
        if to.starts_with("SELECT dest") {
            text = text.replacen("GROUP BY origin", "GROUP BY dest", 1);
        }
        let digest = digest(&text);
        assert!(!seen.contains(&digest), "{from} -> {to}");
        seen.push(digest);
    }
}

#[test]
fn columns_that_nothing_reads_are_left_out_through_views() {
    let text = format!(
        "{TABLE}
        CREATE VIEW a AS SELECT i, b, s, d * 2 AS dd, ts FROM t;
        CREATE VIEW v (x, y, z, rt) AS SELECT i + 1, s, dd, ts FROM a WHERE b > 0;
        SELECT x, rt FROM v WHERE x > 5;"
    );
    let job = plan("t.sql", &text).unwrap();
    assert_eq!(names(&job.sources[0].schema), ["i", "b", "ts"]);
    let batch = run(&job, &job.pipelines[0]).unwrap();
    assert_eq!((batch.num_rows(), shown(&batch, 0, 0)), (1, "8".to_owned()));
    assert_eq!(job.pipelines[0].rowtime, Some(1));
}

#[test]
fn metadata_computed_columns_and_keys() {
    let text = "CREATE TABLE t (
          i INT NOT NULL, s STRING, p INT METADATA FROM 'partition' VIRTUAL, `offset` BIGINT METADATA VIRTUAL,
          at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp', pt AS PROCTIME(), twice AS i * 2,
          PRIMARY KEY (i) NOT ENFORCED
        ) COMMENT 'x' WITH ('connector' = 'kafka', 'topic' = 'events', 'properties.bootstrap.servers' = 'x:1',
          'scan.startup.mode' = 'latest-offset', 'format' = 'csv', 'csv.field-delimiter' = ';');
        CREATE TABLE out (i INT, s STRING, extra DOUBLE, PRIMARY KEY (i) NOT ENFORCED) WITH ('connector' = 'upsert-kafka');
        INSERT INTO out (s, i) SELECT CAST(p AS STRING) || CAST(`offset` AS STRING), twice FROM t;
        SELECT pt, at FROM t;";
    let job = plan("t.sql", text).unwrap();
    let source = &job.sources[0];
    assert_eq!((source.topic.as_str(), source.startup), ("events", StartupMode::Latest));
    assert_eq!(source.used, [0]);
    use MetadataColumn::{AppendTime, Offset, Partition, Timestamp};
    assert_eq!(source.metadata, [Timestamp, Partition, Offset, AppendTime]);
    assert_eq!(job.outputs[0].primary_key, [0]);
    assert_eq!(job.notes.len(), 1);
    let row = source_rows(source).unwrap();
    let batch = steps(&job.pipelines[0].steps, row).unwrap();
    assert_eq!(
        (shown(&batch, 0, 0), shown(&batch, 1, 0), shown(&batch, 2, 0)),
        ("14".into(), "010".into(), "NULL".into())
    );
}

#[test]
fn grouped_clauses_see_keys_aggregates_and_windows() {
    let text = format!(
        "{TABLE}
        SELECT UPPER(s) AS up, window_end AS e, SUM(i) + 1 AS n, COUNT(*) AS c
        FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
        WHERE i > 0 AND window_start > TIMESTAMP '2013-01-01 00:00:00'
        GROUP BY UPPER(s), window_start, window_end
        HAVING SUM(i) > 2 AND COUNT(DISTINCT b) FILTER (WHERE k) >= 0;"
    );
    let job = plan("t.sql", &text).unwrap();
    let pipeline = &job.pipelines[0];
    let [Step::Filter(_), Step::Aggregate(window), Step::Filter(_), Step::Filter(_), Step::Project { .. }] =
        pipeline.steps.as_slice()
    else {
        panic!("other steps: {:?}", pipeline.steps)
    };
    assert_eq!((window.keys.len(), window.aggregates.len()), (1, 3));
    let distinct = &window.aggregates[2];
    assert!(distinct.distinct && distinct.filter.is_some());
}

#[test]
fn windows_without_aggregation_and_through_subqueries() {
    let text = format!(
        "{TABLE}
        SELECT i, window_start FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '2' HOUR));
        SELECT ws, COUNT(*) FROM (
          SELECT window_start AS ws, window_end AS we, i FROM TABLE(CUMULATE(
            DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), STEP => INTERVAL '10' MINUTE, SIZE => INTERVAL '1' HOUR))
        ) WHERE i > 1 GROUP BY ws, we;
        SELECT window_start, COUNT(*) FROM TABLE(TUMBLE((SELECT ts, i FROM t WHERE k), DESCRIPTOR(ts),
          INTERVAL '1' DAY, INTERVAL '8' HOUR)) GROUP BY window_start, window_end;
        SELECT i FROM t UNION ALL SELECT CAST(si AS INT) FROM t;"
    );
    let job = plan("t.sql", &text).unwrap();
    assert_eq!((job.sources.len(), job.outputs.len(), job.pipelines.len()), (1, 4, 5));
    assert!(job.pipelines[0].steps.iter().any(|step| matches!(step, Step::AssignWindows { .. })));
    let kinds: Vec<_> = job.pipelines.iter().flat_map(|p| p.aggregations()).map(|w| w.kind).collect();
    let cumulate = WindowKind::Cumulate { max_ms: 3_600_000, step_ms: 600_000, offset_ms: 0 };
    assert_eq!(kinds, [cumulate, WindowKind::Tumble { size_ms: 86_400_000, offset_ms: 28_800_000 }]);
    assert_eq!((job.pipelines[3].output, job.pipelines[4].output), (3, 3));
}

#[test]
fn statement_sets_settings_and_several_inserts() {
    let text = format!(
        "{TABLE}SET 'execution.runtime-mode' = 'streaming';
        CREATE TABLE a (x INT) WITH ('connector' = 'blackhole');
        CREATE TABLE b (x BIGINT NOT NULL) WITH ('connector' = 'filesystem', 'path' = 'out/b', 'format' = 'json');
        EXECUTE STATEMENT SET BEGIN
        INSERT INTO a SELECT i FROM t;
        INSERT INTO b SELECT i FROM t;
        INSERT INTO a SELECT si FROM t;
        END;"
    );
    let job = plan("t.sql", &text).unwrap();
    assert_eq!(job.notes.len(), 1);
    assert_eq!(job.outputs.len(), 2);
    assert_eq!((job.outputs[0].topic.as_deref(), &job.outputs[0].sink), (None, &SinkKind::Blackhole));
    assert_eq!(job.pipelines.iter().map(|p| p.output).collect::<Vec<_>>(), [0, 1, 0]);
    // NOT NULL is checked by the expression, so that a batch never fails on its schema.
    let error = run(&job, &job.pipelines[1]).unwrap_err();
    assert!(error.contains("NULL in column 'x', which is NOT NULL"), "{error}");
}

#[test]
fn how_often_checkpoints_are_taken_is_no_part_of_what_a_job_computes() {
    let every =
        |interval: &str| plan("f.sql", &format!("SET 'execution.checkpointing.interval' = '{interval}';{FLIGHTS}"));
    let (plain, set) = (plan("f.sql", FLIGHTS).unwrap(), every("10 s").unwrap());
    assert_eq!((plain.checkpoint_interval_us, set.checkpoint_interval_us), (None, Some(10_000_000)));
    assert_eq!(plain.digest, set.digest);
    assert!(set.notes.iter().all(|note| !note.contains("checkpointing")), "{:?}", set.notes);
    assert!(every("soon").is_err());
}
