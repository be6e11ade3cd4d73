//! The same jobs in SQL and in Rust: the same bytes in every topic, over random events with disorder, silences and rows that do not decode.

use crate::laws::{append, bounded, first_difference, input, open, output};
use kappa::env::Env;
use kappa::job::{self, Job, Silent};
use kappa::stream::{
    Aggregated, CountWindow, Cumulate, Hop, Output, Session, Stream, StreamJob, Tumble, approx_count_distinct,
    array_agg, avg, count, count_of, first, last, max, min, string_agg, sum,
};
use kappa::{ErrorKind, sql};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Hit {
    ts: i64,
    page: String,
    ms: i32,
}

const HITS: &str = "CREATE TABLE hits (ts TIMESTAMP(3) NOT NULL, page STRING NOT NULL, ms INT NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
  WITH ('connector' = 'kappa', 'scan.watermark.idle-timeout' = '20 s', 'quiet-close' = 'true');";

fn hits() -> Stream<Hit> {
    let idle = Duration::from_secs(20);
    Stream::from_topic("hits").event_time("ts", Duration::from_secs(3)).idle_timeout(idle).quiet_close()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn in_sql(rest: &str) -> Job {
    let plan = sql::plan("o.sql", &format!("{HITS}\n{rest}")).expect("a plan");
    Job { plan: Arc::new(plan), name: "o".into(), version: None }
}

fn bytes(job: &Job, seed: u64, rows: usize) -> Vec<(String, Vec<String>)> {
    let (_, sim) = Env::sim(seed);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(seed, rows), 64);
    job::run(&log, job, &bounded(1), &mut Silent).expect("a run");
    output(&log, job)
}

/// Both give the same bytes in the same topics, and of each of these topics some.
fn twins(seed: u64, rows: usize, (in_sql, in_rust): (&Job, &Job), topics: &[&str]) {
    let (expected, got) = (bytes(in_sql, seed, rows), bytes(in_rust, seed, rows));
    assert_eq!(first_difference(&got, &expected), None, "seed {seed}");
    for topic in topics {
        let some = expected.iter().any(|(name, rows)| name == topic && !rows.is_empty());
        assert!(some, "{topic} is empty: the test would show nothing");
    }
}

fn rust(job: kappa::Result<StreamJob>) -> Job {
    job.expect("a job").into()
}

fn tumbles() -> (Job, Job) {
    let text = "CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, page STRING NOT NULL, n BIGINT NOT NULL, total INT, mean INT,
        least INT, most INT, head INT, tail INT, kinds BIGINT NOT NULL,
        about BIGINT NOT NULL, `all` ARRAY<INT>, pages STRING)
        WITH ('connector' = 'kappa', 'partitions' = '3');
      INSERT INTO o SELECT window_start, page, COUNT(*), SUM(ms), AVG(ms), MIN(ms), MAX(ms), FIRST_VALUE(ms), LAST_VALUE(ms),
        COUNT(DISTINCT ms), APPROX_COUNT_DISTINCT(ms), ARRAY_AGG(ms), STRING_AGG(page, '+')
      FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '4' SECOND))
      GROUP BY window_start, window_end, page;";
    let aggregates = [
        count().as_("n"),
        sum("ms").as_("total"),
        avg("ms").as_("mean"),
        min("ms").as_("least"),
        max("ms").as_("most"),
        first("ms").as_("head"),
        last("ms").as_("tail"),
        count_of("ms").distinct().as_("kinds"),
        approx_count_distinct("ms").as_("about"),
        array_agg("ms").as_("all"),
        string_agg("page", "+").as_("pages"),
    ];
    let built = hits().key_by("page").window(Tumble::of(seconds(10))).offset(seconds(4)).aggregate(aggregates);
    let columns = [
        "window_start",
        "page",
        "n",
        "total",
        "mean",
        "least",
        "most",
        "head",
        "tail",
        "kinds",
        "about",
        "all",
        "pages",
    ];
    (in_sql(text), rust(built.select(columns).to(Output::topic("o").partitions(3))))
}

fn hops() -> (Job, Job) {
    let text =
        "CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, page STRING NOT NULL,
        n BIGINT NOT NULL, sum_ms INT, PRIMARY KEY (page, window_start) NOT ENFORCED) WITH ('connector' = 'kappa');
      INSERT INTO o SELECT window_start, window_end, page, COUNT(*), SUM(ms)
      FROM TABLE(HOP(TABLE hits, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
      WHERE ms > 300 AND page <> '/p3' GROUP BY window_start, window_end, page HAVING COUNT(*) > 1;";
    #[derive(serde::Deserialize)]
    struct Result {
        n: i64,
    }
    let built = hits()
        .filter(|hit| hit.ms > 300 && hit.page != "/p3")
        .key_by("page")
        .window(Hop::of(seconds(20), seconds(5)))
        .aggregate((count().as_("n"), sum("ms")))
        .having(|result: &Result| result.n > 1);
    (in_sql(text), rust(built.to(Output::topic("o").primary_key(["page", "window_start"]))))
}

fn sessions() -> (Job, Job) {
    let text =
        "CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, page STRING NOT NULL,
        n BIGINT NOT NULL) WITH ('connector' = 'kappa');
      INSERT INTO o SELECT window_start, window_end, page, COUNT(*)
      FROM TABLE(SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '4' SECOND))
      GROUP BY window_start, window_end, page;";
    let built = hits().key_by("page").window(Session::gap(seconds(4))).aggregate(count().as_("n"));
    (in_sql(text), rust(built.to("o")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_in_rust_and_in_sql_give_the_same_bytes(seed in any::<u32>()) {
        for (in_sql, in_rust) in [tumbles(), hops(), sessions()] {
            twins(u64::from(seed), 1000, (&in_sql, &in_rust), &["o", "o.rejected"]);
        }
    }
}

/// Few records are too late, so that not every seed has some: this one does.
#[test]
fn late_records_in_rust_and_in_sql_are_the_same_bytes() {
    for (in_sql, in_rust) in [tumbles(), hops()] {
        twins(3, 3000, (&in_sql, &in_rust), &["o", "o.rejected", "o.late"]);
    }
}

#[test]
fn without_closures_the_plan_is_the_one_of_sql() {
    for (in_sql, in_rust) in [tumbles(), sessions()] {
        assert_eq!(in_rust.plan.digest, in_sql.plan.digest);
    }
    let (in_sql, in_rust) = hops();
    assert_ne!(in_rust.plan.digest, in_sql.plan.digest, "what closures do is not in a digest");
}

#[test]
fn cumulating_windows_without_a_key() {
    let text =
        "CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, n BIGINT NOT NULL)
        WITH ('connector' = 'kappa', 'format' = 'csv');
      INSERT INTO o SELECT window_start, window_end, COUNT(*)
      FROM TABLE(CUMULATE(TABLE hits, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
      GROUP BY window_start, window_end;";
    let csv = kappa::format::FormatSpec::Csv(kappa::format::CsvOptions::default());
    let built = hits().window(Cumulate::of(seconds(20), seconds(5))).aggregate(count().as_("n"));
    let built = rust(built.to(Output::topic("o").format(csv)));
    twins(11, 600, (&in_sql(text), &built), &["o", "o.rejected"]);
}

#[test]
fn late_and_early_results_and_windows_by_count_and_by_append_time() {
    let table =
        "CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, page STRING NOT NULL,
        n BIGINT NOT NULL";
    let query = |windows: &str| {
        format!(
            "INSERT INTO o SELECT window_start, window_end, page, COUNT(*) FROM TABLE({windows})
             GROUP BY window_start, window_end, page;"
        )
    };
    let tumble = query("TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)");
    let late = format!(
        "{table}) WITH ('connector' = 'kappa'); SET 'table.exec.emit.allow-lateness' = '4 s';
        SET 'table.exec.emit.early-fire.enabled' = 'true'; SET 'table.exec.emit.early-fire.delay' = '2 s'; {tumble}"
    );
    let built = hits().key_by("page").window(Tumble::of(seconds(10))).allowed_lateness(seconds(4));
    let built = built.early_results(seconds(2)).aggregate(count().as_("n")).to("o");
    twins(21, 1000, (&in_sql(&late), &rust(built)), &["o", "o.rejected"]);
    let counted = format!(
        "{table}, window_reason STRING NOT NULL) WITH ('connector' = 'kappa');
        INSERT INTO o SELECT window_start, window_end, page, COUNT(*), window_reason
        FROM TABLE(COUNT_WINDOW(TABLE hits PARTITION BY page, DESCRIPTOR(ts), 5, INTERVAL '30' SECOND))
        GROUP BY window_start, window_end, page;"
    );
    let windows = CountWindow::of(5).timeout(seconds(30));
    let built = hits().key_by("page").window(windows).aggregate(count().as_("n")).to("o");
    twins(22, 1000, (&in_sql(&counted), &rust(built)), &["o", "o.rejected"]);
    let appended = format!(
        "CREATE TABLE clock (page STRING NOT NULL, pt AS PROCTIME()) WITH ('connector' = 'kappa', 'topic' = 'hits');
        {table}) WITH ('connector' = 'kappa'); {}",
        query("TUMBLE(TABLE clock, DESCRIPTOR(pt), INTERVAL '10' SECOND)")
    );
    #[derive(serde::Deserialize)]
    struct Page {
        #[expect(dead_code, reason = "its name is what counts")]
        page: String,
    }
    let stream = Stream::<Page>::from_topic("hits").append_time().key_by("page");
    let built = stream.window(Tumble::of(seconds(10))).aggregate(count().as_("n")).to("o");
    twins(23, 1000, (&in_sql(&appended), &rust(built)), &["o", "o.rejected"]);
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Slow {
    section: String,
    seconds: f64,
}

#[test]
fn rows_made_by_closures_are_those_of_a_view() {
    let view = "CREATE VIEW slow AS SELECT ts, SUBSTRING(page FROM 2) AS section, CAST(ms AS DOUBLE) / 1000 AS seconds,
      CAST(ms AS DOUBLE) / 1000 > 0.5 AS long FROM hits;";
    let slow = || hits().map(|hit| Slow { section: hit.page[1..].to_owned(), seconds: f64::from(hit.ms) / 1000.0 });
    let text = format!(
        "{view} CREATE TABLE o (window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, long BOOLEAN NOT NULL,
        section STRING NOT NULL, n BIGINT NOT NULL, sum_seconds DOUBLE) WITH ('connector' = 'kappa');
      INSERT INTO o SELECT window_start, window_end, long, section, COUNT(*), SUM(seconds)
      FROM TABLE(TUMBLE(TABLE slow, DESCRIPTOR(ts), INTERVAL '10' SECOND))
      GROUP BY window_start, window_end, long, section;"
    );
    let built = slow()
        .key_by_with("long", |slow| slow.seconds > 0.5)
        .and_by("section")
        .window(Tumble::of(seconds(10)))
        .aggregate((count().as_("n"), sum("seconds")));
    twins(12, 600, (&in_sql(&text), &rust(built.to("o"))), &["o", "o.late", "o.rejected"]);
    // Without a window, one record for one.
    let text = format!(
        "{view} CREATE TABLE o (section STRING NOT NULL, seconds DOUBLE NOT NULL) WITH ('connector' = 'kappa');
      INSERT INTO o SELECT section, seconds FROM slow WHERE seconds < 0.2;"
    );
    let built = rust(slow().filter(|slow| slow.seconds < 0.2).to("o"));
    let (of_sql, of_rust) = (bytes(&in_sql(&text), 13, 300), bytes(&built, 13, 300));
    assert_eq!(first_difference(&of_rust, &of_sql), None);
}

#[test]
fn rows_as_they_are_keep_their_event_time() {
    let text =
        "CREATE TABLE o (ts TIMESTAMP(3) NOT NULL, page STRING NOT NULL, ms INT NOT NULL) WITH ('connector' = 'kappa');
      INSERT INTO o SELECT * FROM hits;";
    twins(14, 300, (&in_sql(text), &rust(hits().to("o"))), &["o", "o.rejected"]);
}

#[test]
fn closures_run_alike_in_any_groups_of_rows() {
    let job = hops().1;
    let mut expected = None;
    for (cut, threads) in [(1, 1), (97, 2), (4096, 4)] {
        let (_, sim) = Env::sim(5);
        let log = open(&sim, "/data");
        append(&log, &sim, &input(5, 1000), cut);
        job::run(&log, &job, &bounded(threads), &mut Silent).expect("a run");
        let got = output(&log, &job);
        assert!(got.iter().any(|(topic, rows)| topic == "o" && rows.len() > 20), "the test would show nothing");
        assert_eq!(first_difference(&got, expected.get_or_insert_with(|| got.clone())), None, "{cut} {threads}");
    }
}

fn refused(job: kappa::Result<StreamJob>) -> String {
    let error = job.expect_err("a mistake");
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    format!("{error} ({})", error.hint().unwrap_or_default())
}

#[test]
fn mistakes_are_named() {
    #[derive(serde::Deserialize)]
    struct Other {
        #[expect(dead_code, reason = "its name is what counts")]
        bytes: i64,
    }
    let tumble = |stream: Stream<Hit>| stream.key_by("page").window(Tumble::of(seconds(10)));
    let counted = |built: Aggregated| refused(built.to("o"));
    let topic = || Stream::<Hit>::from_topic("hits");
    for (message, parts) in [
        (counted(tumble(hits()).aggregate(sum("mss"))), ["no column 'mss'", "did you mean 'ms'?"]),
        (counted(tumble(hits()).aggregate(sum("page"))), ["sum_page", "SUM does not work on STRING"]),
        (counted(tumble(topic()).aggregate(count())), ["windows need a time", "event_time"]),
        (
            counted(tumble(topic().event_time("tss", seconds(1))).aggregate(count())),
            ["no column 'tss'", "did you mean 'ts'?"],
        ),
        (
            counted(hits().key_by("pag").window(Tumble::of(seconds(1))).aggregate(count())),
            ["key_by", "did you mean 'page'?"],
        ),
        (counted(tumble(hits()).aggregate(count().as_("page"))), ["two columns 'page'", "as_"]),
        (counted(tumble(hits()).aggregate(count().distinct())), ["count", "distinct"]),
        (counted(tumble(hits()).aggregate(count()).select(["pagee"])), ["no column 'pagee'", "did you mean 'page'?"]),
        (counted(tumble(hits()).aggregate(count()).having(|_: &Other| true)), ["no column 'bytes'", "window_start"]),
        (counted(tumble(hits()).early_results(Duration::ZERO).aggregate(count())), ["early", "positive"]),
        (counted(tumble(hits().filter(|_| true).quiet_close()).aggregate(count())), ["quiet_close", "before filter"]),
        (counted(hits().window(CountWindow::of(0)).aggregate(count())), ["count window", "at least one"]),
        (refused(tumble(hits()).aggregate(count()).to("a/b")), ["output topic 'a/b'", "not allowed"]),
        (refused(tumble(hits()).aggregate(count()).to("a.late")), ["a.late", "belong to the outputs"]),
        (refused(Stream::<u32>::from_topic("hits").to("o")), ["u32 cannot be a row", "struct"]),
    ] {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}\nlacks one of {parts:?}");
    }
}

#[test]
fn the_version_of_closures_is_part_of_a_job() {
    let job = || hits().filter(|hit| hit.ms > 5).to("o").expect("a job");
    let digest = |job: StreamJob| job.plan().digest;
    assert_eq!(digest(job().version("1")), digest(job().version("1")));
    assert_ne!(digest(job().version("1")), digest(job().version("2")));
    let (_, sim) = Env::sim(1);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(1, 50), 8);
    job::run(&log, &job().version("1").into(), &bounded(1), &mut Silent).expect("a run");
    let error = job::run(&log, &job().version("2").into(), &bounded(1), &mut Silent).expect_err("another job");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Color {
    Red,
    Blue,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Place {
    x: f32,
    tags: Vec<Option<String>>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Everything {
    at: Option<i64>,
    day: String,
    price: String,
    a: bool,
    b: u8,
    c: u32,
    d: Option<i16>,
    e: Color,
    place: Place,
}

#[test]
fn rust_types_are_columns() {
    use arrow::datatypes::{DataType, TimeUnit};
    let job = Stream::<Everything>::from_topic("t")
        .column("at", DataType::Timestamp(TimeUnit::Millisecond, None))
        .column("day", DataType::Date32)
        .column("price", DataType::Decimal128(10, 2))
        .filter(|all| {
            all.at == Some(1_709_200_800_500)
                && all.b > 1
                && all.day == "2024-02-29"
                && all.price.starts_with('1')
                && matches!(all.e, Color::Blue)
        })
        .to("o")
        .expect("a job");
    let columns = "at TIMESTAMP(3), day DATE NOT NULL, price DECIMAL(10, 2) NOT NULL, a BOOLEAN NOT NULL, b SMALLINT NOT NULL, \
        c BIGINT NOT NULL, d SMALLINT, e STRING NOT NULL, place ROW<x FLOAT, tags ARRAY<STRING>> NOT NULL";
    assert_eq!(job.columns(), columns);
    let (_, sim) = Env::sim(1);
    let log = open(&sim, "/data");
    log.create_topic("t", kappa::log::TopicConfig::default()).expect("a topic");
    let row = |b: i32, e: &str| {
        format!(
            "{{\"at\":\"2024-02-29 10:00:00.5\",\"day\":\"2024-02-29\",\"price\":1.5,\"a\":true,\"b\":{b},\"c\":4000000000,\"d\":null,\"e\":\"{e}\",\
            \"place\":{{\"x\":0.5,\"tags\":[\"u\",null]}}}}"
        )
    };
    let rows = [row(1, "Blue"), row(2, "Red"), row(3, "Blue"), row(300, "Blue"), row(3, "Green")];
    let mut records = kappa::log::records::RecordColumns::default();
    for value in &rows {
        let record =
            kappa::log::records::Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
        let partition = kappa::log::records::Partitioning::Fixed(kappa::types::PartitionId(0));
        records.push(partition, &record);
    }
    let topic = log.topic("t").expect("a topic");
    log.append_wait(kappa::log::AppendBatch::records(topic.id(), records)).expect("appended");
    let job: Job = job.into();
    job::run(&log, &job, &bounded(1), &mut Silent).expect("a run");
    let got = output(&log, &job);
    let of = |name: &str| got.iter().find(|(topic, _)| topic == name).map_or(0, |(_, rows)| rows.len());
    assert_eq!((of("o"), of("o.rejected")), (1, 2), "{got:?}");
    assert!(got[0].1[0].contains(r#"\"tags\":[\"u\",null]"#), "{got:?}");
}
