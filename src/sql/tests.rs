//! Whole files: what they plan to, and what is said about those that are wrong.

use super::plan;
use crate::engine::plan::*;

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
    assert_eq!(
        source.schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
        ["origin", "dep_delay_min", "ts"]
    );
    assert_eq!(source.event_time.as_ref().unwrap().rowtime, 2);
    assert!(source.metadata.is_empty());
    assert_eq!(job.pipelines.len(), 2);
    let window = job.pipelines[0].window.as_ref().unwrap();
    assert_eq!(window.kind, WindowKind::Tumble { size_ms: 3_600_000, offset_ms: 0 });
    assert_eq!(window.aggregates.len(), 2);
    assert_eq!(job.outputs[1].topic.as_deref(), Some("select-1"));
    println!("{job:#?}");
}
