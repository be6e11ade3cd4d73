//! Functions registered in Rust: in every kind of window, the same at any batching and number of threads, and what `verify` says of
//! one that does not give the same answer twice.

use crate::laws::{bounded, output};
use kappa::env::sim::Sim;
use kappa::functions::{Aggregate, FunctionRegistry};
use kappa::job::{self, Job, Silent, VerifyRequest};
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
use kappa::types::PartitionId;
use kappa::{ErrorKind, sql};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const TABLE: &str =
    "CREATE TABLE hits (page STRING, ms BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('connector' = 'kappa', 'format' = 'json');\n";

/// Texts one after the other: the order of values and of slices shows.
struct Chain;

impl Aggregate for Chain {
    type Input = String;
    type State = String;
    type Output = Option<String>;

    fn accumulate(&self, chain: &mut String, value: &str) {
        chain.push_str(value);
    }

    fn merge(&self, chain: &mut String, later: &String) {
        chain.push_str(later);
    }

    fn finish(&self, chain: &String) -> Option<String> {
        (!chain.is_empty()).then(|| chain.clone())
    }
}

fn functions() -> FunctionRegistry {
    let mut functions = FunctionRegistry::default();
    functions.aggregate("chain", "1", Chain).expect("registered");
    functions.scalar1::<String, String>("short", "1", |page| page[2..].to_owned()).expect("registered");
    functions.scalar2::<i64, Option<i64>, bool>("below", "1", |a, b| b.is_some_and(|b| a < b)).expect("registered");
    functions
}

fn plan(query: &str, functions: &FunctionRegistry) -> Job {
    let plan = sql::plan_with("functions.sql", &format!("{TABLE}{query}"), functions).expect("a plan");
    Job { plan: Arc::new(plan), name: "functions".into(), version: None }
}

/// A log with hits, in frames of at most `cut` records.
fn filled(cut: usize) -> Log {
    let sim = Sim::new(7);
    let log = Log::open(&sim.env(), Path::new("/log"), LogOptions::default()).expect("the log opens");
    let hits = log.create_topic("hits", TopicConfig { partitions: 2, ..TopicConfig::default() }).expect("a topic");
    let values: Vec<(u32, String)> = (0..200u32)
        .map(|n| {
            let second = (n * 3 + n * 7 % 5) % 600;
            let (minute, second) = (second / 60, second % 60);
            let (page, ms) = (n % 4, n * 31 % 50);
            let ts = format!("2023-11-14 10:{minute:02}:{second:02}");
            (n % 2, format!("{{\"page\":\"/p{page}\",\"ms\":{ms},\"ts\":\"{ts}\"}}"))
        })
        .collect();
    for frame in values.chunks(cut) {
        let mut rows = RecordColumns::default();
        for (partition, value) in frame {
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::Fixed(PartitionId(*partition)), &record);
        }
        log.append_wait(AppendBatch::records(hits.id(), rows)).expect("appended");
    }
    log
}

fn run(log: &Log, job: &Job, threads: usize) {
    job::run(log, job, &bounded(threads), &mut Silent).expect("ran");
}

const WINDOWS: [&str; 4] = [
    "TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
    "HOP(TABLE hits, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '2' MINUTE)",
    "CUMULATE(TABLE hits, DESCRIPTOR(ts), INTERVAL '30' SECOND, INTERVAL '2' MINUTE)",
    "SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '8' SECOND)",
];

#[test]
fn registered_functions_work_in_every_window() {
    for window in WINDOWS {
        let call = |of: &str| {
            format!("SELECT page, window_end, {of} FROM TABLE({window}) GROUP BY window_start, window_end, page;")
        };
        let own = "CHAIN(short(page)) AS a, CHAIN(CAST(ms AS STRING)) FILTER (WHERE below(ms, 20)) AS b";
        let same = "LISTAGG(SUBSTRING(page, 3), '') AS a, LISTAGG(CAST(ms AS STRING), '') FILTER (WHERE ms < 20) AS b";
        let mut seen = Vec::new();
        for (query, cut, threads) in [(own, 200, 1), (own, 3, 2), (same, 50, 1)] {
            let (log, job) = (filled(cut), plan(&call(query), &functions()));
            run(&log, &job, threads);
            let report = job::verify(&log, &job, &VerifyRequest { threads, ..VerifyRequest::default() }, &mut Silent)
                .expect("verified");
            assert!(report.is_equal(), "{window}: {:?} {:?}", report.differences, report.functions);
            seen.push(output(&log, &job));
        }
        assert!(seen[0][0].1.len() > 10, "{window}");
        assert_eq!(seen[0], seen[1], "{window}: cut in frames of 3, on two threads");
        assert_eq!(seen[0][0].1.len(), seen[2][0].1.len(), "{window}: as SQL's own LISTAGG");
        assert_eq!(seen[0], seen[2], "{window}: as SQL's own LISTAGG");
    }
}

#[test]
fn no_aggregate_shows_how_records_were_cut() {
    for window in WINDOWS {
        let query = format!(
            "SELECT page, window_end, STDDEV_POP(CAST(ms AS DOUBLE) / 7) AS a, VAR_SAMP(ms) AS b, ARRAY_AGG(ms) AS c,
               ARRAY_AGG(DISTINCT ms IGNORE NULLS) AS d, LISTAGG(DISTINCT CAST(ms AS STRING), '/') AS e,
               PERCENTILE(ms, ARRAY[0.1, 0.5]) AS f, APPROX_PERCENTILE(ms, 0.9) AS g, APPROX_COUNT_DISTINCT(ms) AS h,
               BOOL_AND(ms < 45) AS i, BOOL_OR(ms < 3) FILTER (WHERE ms > 1) AS j, AVG(CAST(ms AS DOUBLE) / 3) AS k
             FROM TABLE({window}) GROUP BY window_start, window_end, page;"
        );
        let mut seen = Vec::new();
        for (cut, threads) in [(200, 1), (7, 2), (1, 1)] {
            let (log, job) = (filled(cut), plan(&query, FunctionRegistry::none()));
            run(&log, &job, threads);
            seen.push(output(&log, &job));
        }
        assert!(seen[0][0].1.len() > 10, "{window}");
        assert_eq!(seen[0], seen[1], "{window}: cut in frames of 7, on two threads");
        assert_eq!(seen[0], seen[2], "{window}: cut in single records");
    }
}

#[test]
fn a_function_that_counts_its_calls_is_named() {
    let calls = Arc::new(AtomicI64::new(0));
    let mut functions = functions();
    functions
        .scalar1::<i64, i64>("numbered", "7", move |ms| ms + calls.fetch_add(1, Ordering::Relaxed))
        .expect("registered");
    let query = format!(
        "SELECT page, SUM(numbered(ms)) AS n, CHAIN(page) AS c FROM TABLE({}) GROUP BY window_start, window_end, page;",
        WINDOWS[0]
    );
    let (log, job) = (filled(200), plan(&query, &functions));
    run(&log, &job, 1);
    let report = job::verify(&log, &job, &VerifyRequest::default(), &mut Silent).expect("verified");
    assert!(!report.is_equal());
    assert_eq!(report.differences.len(), 1, "the output differs");
    let [chain, numbered] = report.functions.as_slice() else { panic!("two functions: {:?}", report.functions) };
    assert_eq!((chain.name.as_str(), chain.unstable.as_ref()), ("CHAIN", None), "the innocent is not accused");
    assert_eq!((numbered.name.as_str(), numbered.version.as_str()), ("NUMBERED", "7"));
    let answers = numbered.unstable.as_ref().expect("two answers");
    assert!(answers.starts_with("NUMBERED(") && answers.contains("gave"), "{answers}");
    assert_eq!(numbered.output, report.differences[0].output);
}

/// Forgets now and then.
struct Forgetful(AtomicI64);

impl Aggregate for Forgetful {
    type Input = i64;
    type State = i64;
    type Output = i64;

    fn accumulate(&self, sum: &mut i64, value: i64) {
        if self.0.fetch_add(1, Ordering::Relaxed) % 50 != 49 {
            *sum += value + 1;
        }
    }

    fn merge(&self, sum: &mut i64, later: &i64) {
        *sum += later;
    }

    fn finish(&self, sum: &i64) -> i64 {
        *sum
    }
}

#[test]
fn an_aggregate_that_forgets_is_named() {
    let mut functions = functions();
    functions.aggregate("forgetful", "1", Forgetful(AtomicI64::new(0))).expect("registered");
    let query = format!("SELECT forgetful(ms) AS n FROM TABLE({}) GROUP BY window_start, window_end;", WINDOWS[1]);
    let (log, job) = (filled(200), plan(&query, &functions));
    run(&log, &job, 1);
    let report = job::verify(&log, &job, &VerifyRequest::default(), &mut Silent).expect("verified");
    let unstable = report.functions[0].unstable.as_ref().expect("two states");
    assert!(unstable.starts_with("the value "), "{unstable}");
}

#[test]
fn another_version_of_a_function_is_another_job() {
    let (log, query) = (filled(200), "SELECT short(page) AS p FROM hits;");
    run(&log, &plan(query, &functions()), 1);
    let mut changed = FunctionRegistry::default();
    changed.scalar1::<String, String>("short", "2", str::to_owned).expect("registered");
    let error = job::verify(&log, &plan(query, &changed), &VerifyRequest::default(), &mut Silent).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
