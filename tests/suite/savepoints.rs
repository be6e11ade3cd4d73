//! Savepoints: two halves joined by one are the whole; a changed job goes on where it fits and is refused where it does not.

use crate::checkpoints::often;
use crate::laws::{SQL, append, bounded, input, job, open, output};
use crate::util::{Place, tell};
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{
    self, DiffRequest, Happened, Job, Observer, Outcome, Point, Question, Request, Silent, SpanState, VerifyRequest,
    Why, savepoint,
};
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Log, MetaSpace};
use kappa::types::{PartitionId, Position};
use kappa::{ErrorKind, sql};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 900;

type Output = Vec<(String, Vec<String>)>;

fn whole(sim: &Sim, seed: u64) -> Output {
    let log = open(sim, "/whole");
    append(&log, sim, &input(seed, ROWS), 16);
    job::run(&log, &job(None), &bounded(1), &mut Silent).expect("the run");
    output(&log, &job(None))
}

/// A log with all records, and a run that has gone half the way.
fn half(sim: &Sim, seed: u64) -> Log {
    let log = open(sim, "/data");
    append(&log, sim, &input(seed, ROWS), 16);
    let to = Some(Point::Position(Position(ROWS as u64 / 2)));
    let request = Request { to, bounded: true, checkpoints: often(1 << 20), ..Request::default() };
    job::run(&log, &job(None), &request, &mut Silent).expect("half the run");
    log
}

/// The rows of both, one behind the other.
pub(crate) fn joined(first: &Output, second: &Output) -> Output {
    let rows = |output: &Output, topic: &str| {
        output.iter().find(|(name, _)| name == topic).map(|(_, rows)| rows.clone()).unwrap_or_default()
    };
    let mut topics: Vec<String> = first.iter().chain(second).map(|(topic, _)| topic.clone()).collect();
    topics.sort();
    topics.dedup();
    topics.into_iter().map(|topic| (topic.clone(), [rows(first, &topic), rows(second, &topic)].concat())).collect()
}

fn named(text: &str, name: &str) -> Job {
    Job { plan: Arc::new(sql::plan("laws.sql", text).expect("the plan")), name: name.into(), version: None }
}

#[test]
fn two_halves_joined_by_a_savepoint_are_the_whole() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let mut expected = whole(&sim, seed);
        expected.sort();
        let log = half(&sim, seed);
        let (dir, made) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
        assert_eq!(savepoint::list(&log).expect("listed")[0].1, made);
        let second = job(Some("v2"));
        savepoint::restore(&log, &second, &dir, None).expect("it fits");
        // Stopped and gone on in between, from the savepoint itself or from a checkpoint of its own.
        let to = Some(Point::Position(Position(ROWS as u64 * 3 / 4)));
        let part = Request { to, bounded: true, checkpoints: often(2_000), ..Request::default() };
        let report = job::run(&log, &second, &part, &mut Silent).expect("a part");
        assert_eq!(report.outcome, Outcome::Resumed);
        job::run(&log, &second, &bounded(2), &mut Silent).expect("the rest");
        assert_eq!(joined(&output(&log, &job(None)), &output(&log, &second)), expected, "seed {seed}");
        let verified = job::verify(&log, &second, &job::VerifyRequest::default(), &mut Silent)
            .expect("verified from its savepoint");
        assert_eq!(verified.differences, []);
        let again = job::run(&log, &second, &bounded(1), &mut Silent).expect("again");
        assert_eq!(again.outcome, Outcome::AlreadyComplete);
    }
}

#[test]
fn another_log_goes_on_from_it() {
    let (_, sim) = Env::sim(31);
    let whole = whole(&sim, 31);
    let log = half(&sim, 31);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    savepoint::export(&sim.env(), &dir, Path::new("/elsewhere/half")).expect("exported");
    let first = output(&log, &job(None));
    log.close().expect("closed");
    // It holds nothing but the records behind the savepoint.
    let other = open(&sim, "/other");
    append(&other, &sim, &input(31, ROWS)[ROWS / 2..], 16);
    let refused = savepoint::restore(&other, &job(None), Path::new("/elsewhere/half"), None);
    assert!(refused.is_ok() || refused.is_err_and(|e| e.hint().is_some_and(|hint| hint.contains("--at"))));
    let other_job = job(Some("moved"));
    savepoint::restore(&other, &other_job, Path::new("/elsewhere/half"), Some(Position(0))).expect("it fits");
    job::run(&other, &other_job, &bounded(1), &mut Silent).expect("the rest");
    let both = joined(&first, &output(&other, &other_job));
    // Late and rejected rows name offsets, which are others there.
    let main = |output: Output| output.into_iter().filter(|(topic, _)| !topic.contains('.')).collect::<Vec<_>>();
    let (mut both, mut whole) = (main(both), main(whole));
    both.sort();
    whole.sort();
    assert_eq!(both, whole);
}

#[test]
fn a_changed_job_goes_on_where_it_fits() {
    let (_, sim) = Env::sim(32);
    let whole = whole(&sim, 32);
    let log = half(&sim, 32);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    // One result less, one more, another name, a wider type.
    let changed = SQL
        .replace("COUNT(*), SUM(CAST(ms AS DOUBLE) / 7)", "COUNT(*), MAX(ms)")
        .replace(
            "counts (window_start TIMESTAMP(3), page STRING, n BIGINT, total DOUBLE)",
            "sums (window_start TIMESTAMP(3), page STRING, n BIGINT, most INT)",
        )
        .replace("INSERT INTO counts", "INSERT INTO sums")
        .replace("hops (window_start", "hops2 (window_start")
        .replace("INSERT INTO hops", "INSERT INTO hops2")
        .replace("visits (window_start", "visits2 (window_start")
        .replace("INSERT INTO visits", "INSERT INTO visits2");
    let changed = named(&changed, "changed");
    let (_, notes) = savepoint::restore(&log, &changed, &dir, None).expect("it fits");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("sums: max(ms) begins") && notes[1].ends_with("is left out"), "{notes:?}");
    job::run(&log, &changed, &bounded(1), &mut Silent).expect("the rest");
    let (first, second) = (output(&log, &job(None)), output(&log, &changed));
    let rows = |output: &Output, topic: &str| -> Vec<String> {
        output.iter().find(|(name, _)| name == topic).map(|(_, rows)| rows.clone()).expect("the topic")
    };
    assert_eq!([rows(&first, "hops"), rows(&second, "hops2")].concat(), rows(&whole, "hops"));
    assert_eq!([rows(&first, "visits"), rows(&second, "visits2")].concat(), rows(&whole, "visits"));
    // Counts went on; the new result begins with the records behind the savepoint.
    let counts = |rows: &[String]| -> Vec<String> {
        rows.iter()
            .map(|row| row.split("\"n\\\":").nth(1).expect("n").split([',', '}']).next().expect("a number").to_owned())
            .collect()
    };
    let behind = &rows(&whole, "counts")[rows(&first, "counts").len()..];
    assert_eq!(counts(&rows(&second, "sums")), counts(behind));
    assert!(rows(&second, "sums").iter().any(|row| row.contains("most")));
}

/// Sums and largest values of one window kind for each page, in columns of a type.
fn totals(name: &str, data_type: &str) -> Job {
    let window = "SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '4' SECOND)";
    named(
        &format!(
            "CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms {data_type}, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
             WITH ('connector' = 'kappa', 'format' = 'json');
             CREATE TABLE {name} (window_start TIMESTAMP(3), page STRING, total {data_type}, most {data_type})
             WITH ('connector' = 'kappa');
             INSERT INTO {name} SELECT window_start, page, SUM(ms), MAX(ms)
             FROM TABLE({window}) GROUP BY window_start, window_end, page;"
        ),
        name,
    )
}

#[test]
fn types_may_become_wider_and_not_narrower() {
    let (_, sim) = Env::sim(35);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(35, ROWS), 16);
    let (narrow, wide) = (totals("narrow", "INT"), totals("wide", "BIGINT"));
    let half = Request { to: Some(Point::Position(Position(ROWS as u64 / 2))), bounded: true, ..Request::default() };
    for (from, to, fits) in [(&narrow, &wide, true), (&wide, &totals("narrow2", "INT"), false)] {
        if !fits {
            job::run(&log, &Job { name: "wide3".into(), ..totals("wide3", "BIGINT") }, &half, &mut Silent)
                .expect("half");
            let (dir, _) = savepoint::create(&log, &totals("wide3", "BIGINT"), SQL, None).expect("a savepoint");
            let refused = savepoint::restore(&log, to, &dir, None).expect_err("narrower");
            assert!(refused.message().contains("sum(ms) was Int64"), "{refused}");
            continue;
        }
        job::run(&log, from, &half, &mut Silent).expect("half the run");
        let (dir, _) = savepoint::create(&log, from, SQL, None).expect("a savepoint");
        savepoint::restore(&log, to, &dir, None).expect("wider");
        job::run(&log, to, &bounded(1), &mut Silent).expect("the rest");
        let rows = |job: &Job| output(&log, job).remove(0).1;
        let both = [rows(from), rows(to)].concat();
        job::run(&log, from, &bounded(1), &mut Silent).expect("to its end");
        assert_eq!(both, rows(from));
    }
}

#[test]
fn what_does_not_fit_is_listed() {
    let (_, sim) = Env::sim(33);
    let log = half(&sim, 33);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    let other = SQL
        .replace("DESCRIPTOR(ts), INTERVAL '10' SECOND", "DESCRIPTOR(ts), INTERVAL '11' SECOND")
        .replace("page STRING, ms INT", "page INT, ms INT")
        .replace("page STRING", "page INT")
        .replace("counts", "counts3")
        .replace("hops", "hops3")
        .replace("visits", "visits3");
    let refused = savepoint::restore(&log, &named(&other, "other"), &dir, None).expect_err("it does not fit");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    for words in
        ["into counts3: windows: Tumble { size_ms: 10000", "into hops3: key types: Utf8, not Int32", "into visits3"]
    {
        assert!(refused.message().contains(words), "{words}: {refused}");
    }
    assert!(log.topic("counts3").is_err(), "nothing is left of a refused one");
    let twice = savepoint::restore(&log, &job(None), &dir, None).expect_err("it has a run");
    assert_eq!(twice.kind(), ErrorKind::Conflict);
}

#[test]
fn a_savepoint_that_was_changed_is_refused() {
    let (_, sim) = Env::sim(34);
    let log = half(&sim, 34);
    let (dir, made) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    for section in &made.sections {
        let path = dir.join(&section.file);
        let good = sim.disk.peek(&path).expect("there");
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 8;
        for bytes in [bad, good[..good.len() - 1].to_vec(), Vec::new()] {
            sim.disk.poke(&path, bytes);
            let refused = savepoint::restore(&log, &job(Some("v2")), &dir, None).expect_err("changed");
            assert_eq!(refused.kind(), ErrorKind::Damage, "{}", section.file);
        }
        sim.disk.poke(&path, good);
    }
    let path = dir.join("manifest.json");
    let text = String::from_utf8(sim.disk.peek(&path).expect("there")).expect("JSON");
    for (from, to) in [("state/0000", "state/../state/0000"), ("\"format\": 1", "\"format\": 9"), ("{", "[")] {
        sim.disk.poke(&path, text.replacen(from, to, 1).into_bytes());
        assert!(savepoint::restore(&log, &job(Some("v2")), &dir, None).is_err(), "{to}");
    }
    sim.disk.poke(&path, text.into_bytes());
    savepoint::restore(&log, &job(Some("v2")), &dir, None).expect("as it was");
    let none = savepoint::create(&log, &named(&SQL.replace("hits", "hits2"), "never"), SQL, None);
    assert_eq!(none.expect_err("no run").kind(), ErrorKind::NotFound);
}

/// Values of a topic.
fn values(log: &Log, topic: &str) -> Vec<Value> {
    let topic = log.topic(topic).expect("the topic");
    let (mut reader, mut rows) = (log.reader(&[topic.id()], Position(0)), Vec::new());
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        let value = |row| serde_json::from_slice(batch.values.value(row)).expect("JSON");
        rows.extend((0..batch.len()).map(value));
    }
    rows
}

/// Where the state of a window was, if it had one, and the positions of its records.
fn explained(log: &Log, job: &Job, output: &str, row: &Value) -> (Option<Position>, Vec<u64>) {
    let time = |name: &str| job::parse_time_ms(row[name].as_str()?).ok();
    let question = Question {
        output: Some(output.to_owned()),
        window_start_ms: time("window_start").expect("a window"),
        window_end_ms: time("window_end"),
        key: row["page"].as_str().map(str::to_owned),
        ..Question::default()
    };
    let [window] = &job::explain(log, job, &question, &mut Silent).expect("explained")[..] else {
        panic!("one: {row}")
    };
    let mut states = window.events.iter().filter_map(|event| match event.what {
        Happened::State(position) => Some(position),
        _ => None,
    });
    let records = window.events.iter().filter(|event| matches!(event.what, Happened::Record(_)));
    (states.next(), records.map(|event| event.record.as_ref().expect("a record").position.0).collect())
}

/// Explains rows of a run that began at a position as those of one that has read everything, but for what came before.
fn check_explained(whole: (&Log, &Job), second: (&Log, &Job), at: Position, output: &str) {
    let (mut with, mut without) = (0, 0);
    let rows = values(second.0, &format!("{output}.v2"));
    for row in rows.iter().take(24).chain(rows.iter().rev().take(4)) {
        let (state, known) = explained(second.0, second.1, output, row);
        let (none, all) = explained(whole.0, whole.1, output, row);
        let (before, behind): (Vec<u64>, Vec<u64>) = all.iter().partition(|position| **position < at.0);
        assert_eq!(known, behind, "{output} {row}");
        assert_eq!((none, state), (None, (!before.is_empty()).then_some(at)), "{output} {row}");
        assert!(row["n"].as_u64().is_none_or(|n| n == all.len() as u64), "{output} {row}");
        *(if before.is_empty() { &mut without } else { &mut with }) += 1;
    }
    assert!(with > 2 && without > 2, "{output}: {with} windows had a state, {without} had none");
}

#[test]
fn an_explanation_says_what_came_from_the_savepoint() {
    // The rows that are ranked wait in the state themselves.
    let firsts = SQL.split("CREATE TABLE counts").next().expect("the input").to_owned()
        + "CREATE TABLE firsts (window_start TIMESTAMP(3), window_end TIMESTAMP(3), page STRING, ms INT) WITH ('connector' = 'kappa');
           INSERT INTO firsts SELECT window_start, window_end, page, ms FROM (
             SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, page ORDER BY ms) AS r
             FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND))) WHERE r <= 3;";
    for (text, outputs) in [(SQL, &["counts", "hops", "visits"][..]), (&firsts, &["firsts"])] {
        let (_, sim) = Env::sim(36);
        let (first, second) = (named(text, "laws"), Job { version: Some("v2".into()), ..named(text, "laws") });
        let whole = open(&sim, "/whole");
        append(&whole, &sim, &input(36, ROWS), 16);
        job::run(&whole, &first, &bounded(1), &mut Silent).expect("the run");
        let log = open(&sim, "/data");
        append(&log, &sim, &input(36, ROWS), 16);
        let to = Some(Point::Position(Position(ROWS as u64 / 2)));
        job::run(&log, &first, &Request { to, bounded: true, ..Request::default() }, &mut Silent).expect("half");
        let (dir, made) = savepoint::create(&log, &first, text, None).expect("a savepoint");
        savepoint::restore(&log, &second, &dir, None).expect("it fits");
        job::run(&log, &second, &bounded(1), &mut Silent).expect("the rest");
        for output in outputs {
            check_explained((&whole, &first), (&log, &second), Position(made.position), output);
        }
    }
}

/// A log in which the job's own run began from a savepoint of another log, at a position behind records that it has not read; and the
/// folder of that savepoint.
fn begun_elsewhere(sim: &Sim, seed: u64) -> (Log, std::path::PathBuf, Position) {
    let log = half(sim, seed);
    let (dir, _) = savepoint::create(&log, &job(None), SQL, None).expect("a savepoint");
    log.close().expect("closed");
    let other = open(sim, "/other");
    append(&other, sim, &input(seed + 1, 100), 16);
    let at = other.durable_end();
    savepoint::restore(&other, &job(None), &dir, Some(at)).expect("it fits");
    append(&other, sim, &input(seed, ROWS)[ROWS / 2..], 16);
    (other, dir, at)
}

fn streams(log: &Log, job: &Job) -> Vec<job::StreamProgress> {
    job::progress(log, &job.key()).expect("readable").expect("it has written").streams
}

#[test]
fn a_replay_begins_with_the_state_that_the_run_began_from() {
    for seed in [37, 38] {
        let (_, sim) = Env::sim(seed);
        let (log, _, at) = begun_elsewhere(&sim, seed);
        job::run(&log, &job(None), &bounded(1), &mut Silent).expect("the run");
        let again = job(Some("v2"));
        let request = job::replay_request(&log, &again, Request::default()).expect("a request");
        // Stopped and gone on in between.
        let to = Some(Point::Position(Position(at.0 + ROWS as u64 / 4)));
        let part = Request { to, flush: false, checkpoints: often(2_000), ..request.clone() };
        let report = job::run(&log, &again, &part, &mut Silent).expect("a part");
        assert_eq!((report.outcome, &report.record.starts[..]), (Outcome::Started, &[at.0][..]));
        let report = job::run(&log, &again, &request, &mut Silent).expect("the rest");
        assert_eq!(report.outcome, Outcome::Resumed);
        assert_eq!(streams(&log, &again), streams(&log, &job(None)), "seed {seed}");
        for job in [job(None), again] {
            let verified = job::verify(&log, &job, &job::VerifyRequest::default(), &mut Silent).expect("verified");
            assert_eq!((verified.differences, verified.from), (vec![], None));
        }
        for output in ["counts", "hops", "visits"] {
            let request = DiffRequest::new(output, &format!("{output}.v2"));
            assert!(job::diff(&log, &request, &Silent).expect("compared").is_same(), "{output}");
        }
        // One without the state differs where its windows reach back to before it.
        let bare = Request { from: Some(Point::Position(at)), ..bounded(1) };
        job::run(&log, &job(Some("bare")), &bare, &mut Silent).expect("a run");
        let differs = job::diff(&log, &DiffRequest::new("counts", "counts.bare"), &Silent).expect("compared");
        assert!(differs.why.contains_key(&Why::Start), "{:?}", differs.why);
        let too_early = Request { to: Some(Point::Position(Position(at.0 - 1))), ..request };
        let refused = job::run(&log, &job(Some("early")), &too_early, &mut Silent).expect_err("it ends before");
        assert!(refused.message().contains(&format!("before position {at}")), "{refused}");
    }
}

#[test]
fn a_changed_replay_goes_on_from_that_state_where_it_fits() {
    let (_, sim) = Env::sim(39);
    let (log, dir, at) = begun_elsewhere(&sim, 39);
    job::run(&log, &job(None), &bounded(1), &mut Silent).expect("the run");
    let of = |text: &str, version: &str| Job { version: Some(version.into()), ..named(text, "laws") };
    let more =
        SQL.replace("n BIGINT, total DOUBLE)", "n BIGINT, most INT)").replace("SUM(CAST(ms AS DOUBLE) / 7)", "MAX(ms)");
    let (more, by_restore) = (of(&more, "more"), of(&more, "restored"));
    let request = job::replay_request(&log, &more, Request::default()).expect("a request");
    let mut said = Notes::default();
    job::run(&log, &more, &request, &mut said).expect("it fits");
    assert!(said.0[0].starts_with("counts: max(ms) begins") && said.0[1].ends_with("is left out"), "{:?}", said.0);
    savepoint::restore(&log, &by_restore, &dir, Some(at)).expect("it fits");
    job::run(&log, &by_restore, &bounded(1), &mut Silent).expect("the run");
    assert_eq!(
        streams(&log, &more),
        streams(&log, &by_restore),
        "as if the savepoint was restored into the changed job"
    );
    let other =
        of(&SQL.replace("DESCRIPTOR(ts), INTERVAL '10' SECOND", "DESCRIPTOR(ts), INTERVAL '11' SECOND"), "other");
    let refused = job::run(&log, &other, &request, &mut Silent).expect_err("it does not fit");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let text =
        format!("the state that 'laws' began from at position {at} does not fit:\n  pipeline 1, into counts: windows:");
    assert!(refused.message().starts_with(&text), "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("--from time:T")), "{:?}", refused.hint());
    assert!(log.topic("counts.other").is_err(), "nothing is left of a refused one");
    // A run that an older build began does not say what its state is made for.
    let forgotten = kappa::log::MetaRecord { space: MetaSpace::Checkpoint, key: "laws/shapes".into(), value: None };
    log.append_wait(AppendBatch::meta(vec![forgotten])).expect("appended");
    let same = job(Some("same"));
    job::run(&log, &same, &request, &mut Silent).expect("the same SQL fits");
    assert_eq!(streams(&log, &same), streams(&log, &job(None)));
    let refused = job::run(&log, &of(&SQL.replace("counts", "c"), "unknown"), &request, &mut Silent);
    assert!(refused.expect_err("nobody knows").message().contains("does not say"));
}

/// Keeps what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn on_note(&mut self, note: &str) {
        self.0.push(note.to_owned());
    }
}

/// Half a run and the rest, with a state kept at either end; `foreign`: somebody else writes into an output in between.
fn in_two_parts(sim: &Sim, seed: u64, foreign: bool) -> (Log, Position) {
    let log = half(sim, seed);
    if foreign {
        let mut rows = RecordColumns::default();
        let record = Record { timestamp_ms: Some(0), key: None, value: Some(b"{}"), headers: &[] };
        rows.push(Partitioning::Fixed(PartitionId(0)), &record);
        let counts = log.topic("counts").expect("the output").id();
        log.append_wait(AppendBatch::records(counts, rows)).expect("appended");
    }
    let middle = streams(&log, &job(None));
    let held = Request { bounded: true, checkpoints: often(1 << 20), ..Request::default() };
    job::run(&log, &job(None), &held, &mut Silent).expect("the rest of the run");
    assert!(middle.iter().zip(streams(&log, &job(None))).step_by(3).all(|(half, all)| half.rows < all.rows));
    log.trim(log.topic("hits").expect("the input").id(), Position(300)).expect("trimmed");
    (log, Position(ROWS as u64 / 2))
}

#[test]
fn what_is_left_after_a_trim_is_verified_from_a_checkpoint() {
    let verify = |log: &Log| job::verify(log, &job(None), &VerifyRequest::default(), &mut Silent);
    let (_, sim) = Env::sim(40);
    let (log, middle) = in_two_parts(&sim, 40, false);
    let report = verify(&log).expect("verified");
    assert_eq!(report.differences, []);
    assert_eq!(report.recomputed, report.progress.streams);
    let from = report.from.expect("not all of it");
    assert_eq!((from.topic.as_str(), from.position), ("hits", middle));
    assert!((Position(300)..=Position(310)).contains(&from.complete_from), "{from:?}");
    for (stream, rows) in report.streams.iter().zip(&from.rows) {
        let topic = stream.topic.as_ref().expect("a topic");
        assert!(*rows > 0 || topic.ends_with(".late"), "{topic}: nothing was written before");
        for span in report.spans.iter().filter(|span| span.output == *topic) {
            let expected = if span.from < *rows { SpanState::NotCompared } else { SpanState::Equal };
            assert_eq!(span.state, expected, "{topic}, {rows} rows before: {span:?}");
            assert!(span.from >= *rows || span.end.rows <= *rows, "{topic}, {rows} rows before: {span:?}");
        }
    }
    // Rows that are left out by time as well.
    let late = VerifyRequest { from_ms: Some(i64::MAX), ..VerifyRequest::default() };
    assert_eq!(job::verify(&log, &job(None), &late, &mut Silent).expect("verified").differences, []);
    log.trim(log.topic("hits").expect("the input").id(), Position(ROWS as u64 / 2 + 20)).expect("trimmed");
    let refused = verify(&log).map(drop).expect_err("no row is behind the last state");
    assert_eq!(refused.kind(), ErrorKind::Gone);
    assert!(refused.hint().is_some_and(|hint| hint.contains("no checkpoint")), "{:?}", refused.hint());
    let (_, sim) = Env::sim(41);
    let (log, _) = in_two_parts(&sim, 41, true);
    let report = verify(&log).expect("verified");
    let [difference] = &report.differences[..] else { panic!("{:?}", report.differences) };
    let before = report.from.expect("not all of it").rows[0];
    assert_eq!((difference.output.as_str(), difference.row), ("counts", before + 1));
    assert_eq!(difference.recorded.as_deref(), Some("{}"));
}

const CLI_SQL: &str = "
CREATE TABLE ticks (ts TIMESTAMP(3), k STRING, v DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'kappa');
CREATE TABLE sums (window_start TIMESTAMP(3), k STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'kappa');
INSERT INTO sums SELECT window_start, k, COUNT(*) AS n, SUM(v) AS total
FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k;
";

#[test]
fn on_the_command_line() {
    let place = Place::new();
    place.write("job.sql", CLI_SQL);
    let tick =
        |n: u32| format!("{{\"ts\":\"2026-01-01 00:{:02}:{:02}\",\"k\":\"k{}\",\"v\":0.1}}\n", n / 60, n % 60, n % 3);
    place.write("first.jsonl", &(0..90).map(tick).collect::<String>());
    place.write("second.jsonl", &(90..300).map(tick).collect::<String>());
    place.ok(&["produce", "ticks", "first.jsonl"]);
    place.fails(&["savepoint", "create", "job.sql"], 2, &["no state that can be saved"]);
    place.fails(&["run", "job.sql", "--checkpoint-interval", "soon"], 2, &["not a duration"]);
    let ran = place.kappa(&["run", "job.sql", "--bounded", "--no-flush"]);
    assert!(
        ran.stderr.contains("  checkpoints: 1, the newest of 0.0 MiB; state was taken in at most"),
        "{}",
        ran.stderr
    );
    place.ok(&["savepoint", "create", "job.sql", "--to", "half"]);
    place.fails(&["savepoint", "create", "job.sql", "--to", "half"], 2, &["exists already"]);
    place.ok(&["savepoint", "create", "job.sql"]);
    assert!(place.ok(&["savepoint", "list", "--format", "csv"]).contains("job-90,job,90,"));
    let tables = place.ok(&["savepoint", "inspect", "half", "--format", "csv"]);
    let slice = tables.lines().find(|line| line.contains("/slice")).and_then(|line| line.split(',').next());
    let rows = place.ok(&["savepoint", "inspect", "half", "--section", slice.expect("a slice"), "--format", "csv"]);
    assert!(
        rows.starts_with("k,slice_start,slice_end,count(*).count,sum(v).") && rows.contains("k0,2026-01-01T00:01:00"),
        "{rows}"
    );
    place.ok(&["savepoint", "export", "job-90", "moved"]);
    place.ok(&["produce", "ticks", "second.jsonl"]);
    place.ok(&["savepoint", "restore", "moved", "job.sql", "--as", "v2"]);
    place.ok(&["run", "job.sql", "--as", "v2", "--bounded"]);
    let first = place.ok(&["consume", "sums", "--values"]);
    let second = place.ok(&["consume", "sums.v2", "--values"]);
    place.ok(&["run", "job.sql", "--bounded"]);
    assert_eq!(first + &second, place.ok(&["consume", "sums", "--values"]));
    place.ok(&["verify", "job.sql", "--as", "v2"]);
    read_with_pyarrow(&place);
}

/// Other libraries read the state.
fn read_with_pyarrow(place: &Place) {
    let script = "import sys, json, pyarrow.ipc as ipc\n\
                  m = json.load(open('half/manifest.json'))\n\
                  print(sum(ipc.open_file('half/' + s['file']).read_all().num_rows == s['rows'] for s in m['sections']), len(m['sections']))";
    let python = std::process::Command::new("python3").current_dir(&place.dir).args(["-c", script]).output();
    match python {
        Ok(ran) if ran.status.success() => {
            let counts = String::from_utf8_lossy(&ran.stdout).into_owned();
            let (read, all) = counts.trim().split_once(' ').expect("two numbers");
            assert_eq!(read, all);
        }
        _ => tell("SKIPPED: python3 without pyarrow: nobody else has read a savepoint here"),
    }
}

/// One tick a second.
fn ticks(place: &Place, from: u32, to: u32) {
    let tick =
        |n: u32| format!("{{\"ts\":\"2026-01-01 00:{:02}:{:02}\",\"k\":\"k{}\",\"v\":0.1}}\n", n / 60, n % 60, n % 3);
    place.write("ticks.jsonl", &(from..to).map(tick).collect::<String>());
    place.ok(&["produce", "ticks", "ticks.jsonl"]);
}

/// A place whose ticks go on where a savepoint of another one ends, and that savepoint's folder.
fn moved() -> (Place, Place, String) {
    let (first, place) = (Place::new(), Place::new());
    first.write("job.sql", CLI_SQL);
    place.write("job.sql", CLI_SQL);
    ticks(&first, 0, 90);
    first.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    first.ok(&["savepoint", "create", "job.sql", "--to", "half"]);
    ticks(&place, 300, 310);
    let half = first.path("half").to_string_lossy().into_owned();
    (first, place, half)
}

#[test]
fn a_run_from_a_savepoint_is_replayed_and_explained_on_the_command_line() {
    let (_first, place, half) = moved();
    place.ok(&["savepoint", "restore", &half, "job.sql", "--at", "10"]);
    ticks(&place, 90, 300);
    let ran = place.kappa(&["run", "job.sql", "--bounded"]);
    assert!(ran.stderr.contains("beginning with the state of a savepoint, at position 10"), "{}", ran.stderr);
    let replayed = place.kappa(&["replay", "job.sql", "--from", "earliest", "--as", "v2"]);
    assert!(replayed.code == 0 && replayed.stderr.contains("job.v2: ran"), "{}", replayed.stderr);
    assert_eq!(place.ok(&["consume", "sums", "--values"]), place.ok(&["consume", "sums.v2", "--values"]));
    place.ok(&["diff", "job.sql", "-", "v2"]);
    place.ok(&["verify", "job.sql", "--as", "v2"]);
    place.ok(&["replay", "job.sql", "--from", "2026-01-01 00:02:00", "--to", "2026-01-01 00:04:00", "--as", "v3"]);
    let whole = place.ok(&["consume", "sums", "--values"]);
    let part = place.ok(&["consume", "sums.v3", "--values"]);
    assert!(part.lines().count() == 6 && whole.contains(&part), "{part}");
    let ask = ["explain", "job.sql", "--as", "v2", "--key", "k0", "--window"];
    let with = place.kappa(&[&ask[..], &["2026-01-01 00:01:00"]].concat());
    let summary = "10 records, 1 results, 0 too late; it began with the state of a savepoint at position 10";
    assert!(with.stderr.contains(summary), "{}", with.stderr);
    assert!(with.stdout.contains("at the start, from a savepoint"), "{}", with.stdout);
    let json = place.ok(&[&ask[..], &["2026-01-01 00:01:00", "--format", "json"]].concat());
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((rows[0]["event"].as_str(), rows[0]["position"].as_u64()), (Some("state"), Some(10)), "{json}");
    assert!(rows.last().is_some_and(|row| row["value"].to_string().contains("\\\"n\\\":20")), "{json}");
    let without = place.kappa(&[&ask[..], &["2026-01-01 00:02:00"]].concat());
    assert!(without.stderr.contains(": 20 records, 1 results, 0 too late\n"), "{}", without.stderr);
    assert!(!without.stdout.contains("savepoint"), "{}", without.stdout);
}

#[test]
fn versions_of_a_submitted_job_begin_as_the_live_one_did() {
    let (_first, place, half) = moved();
    place.ok(&["job", "submit", "job.sql"]);
    place.ok(&["savepoint", "restore", &half, "job.sql", "--as", "v1", "--at", "10"]);
    ticks(&place, 90, 300);
    place.ok(&["up", "--stop-when-idle"]);
    place.write("other.sql", &CLI_SQL.replace("INTERVAL '1' MINUTE", "INTERVAL '2' MINUTE"));
    place.fails(
        &["replay", "job", "--from", "earliest", "--sql", "other.sql"],
        2,
        &["the state that 'job.v1' began from at position 10", "Tumble"],
    );
    assert!(!place.ok(&["job", "show", "job", "--format", "csv"]).contains("v2"), "a refused one is not there");
    place.ok(&["replay", "job", "--from", "earliest"]);
    let show = place.ok(&["job", "show", "job", "--format", "csv"]);
    assert!(show.contains("v2,false,running,job.sql,") && show.contains("state:job.v1"), "{show}");
    let live = place.ok(&["consume", "sums", "--values"]);
    assert_eq!(live, place.ok(&["consume", "sums.v2", "--values"]));
    assert!(live.contains("{\"window_start\":\"2026-01-01 00:01:00\",\"k\":\"k0\",\"n\":20,"), "{live}");
    place.ok(&["diff", "job", "-", "v2"]);
    place.ok(&["promote", "job", "v2"]);
    // The next one begins as the version that is live now did.
    place.ok(&["replay", "job", "--from", "earliest"]);
    assert!(place.ok(&["job", "show", "job", "--format", "csv"]).contains("state:job.v2"));
    assert_eq!(live, place.ok(&["consume", "sums.v3", "--values"]));
}

#[test]
fn after_a_trim_verify_says_from_where_on_the_command_line() {
    let place = Place::new();
    place.write("job.sql", CLI_SQL);
    for (from, to) in [(0, 90), (90, 300)] {
        ticks(&place, from, to);
        place.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    }
    place.ok(&["topic", "trim", "ticks", "--before", "offset:20", "--partition", "0"]);
    let ran = place.kappa(&["verify", "job.sql"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for words in ["'ticks' before position 20 are gone: verified from position 90 (", "were not: 3 of 'sums'"] {
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    let row: Value = serde_json::from_str(&place.ok(&["verify", "job.sql", "--format", "json"])).expect("JSON");
    assert_eq!((row["verified_from"].as_u64(), row["unverified_rows"].as_u64()), (Some(90), Some(3)), "{row}");
    assert!(row["verified_from_time"].as_str().is_some_and(|time| time.ends_with('Z')), "{row}");
    let spans = place.ok(&["verify", "job.sql", "--spans", "--format", "csv"]);
    assert!(spans.contains("sums,1,3,90,") && spans.contains("not compared\nsums,4,"), "{spans}");
}

#[test]
fn a_replay_of_the_newest_windows_begins_with_a_checkpoint_on_the_command_line() {
    let place = Place::new();
    place.write("job.sql", CLI_SQL);
    place.ok(&["job", "submit", "job.sql"]);
    ticks(&place, 0, 90);
    place.ok(&["up", "--stop-when-idle"]);
    ticks(&place, 90, 300);
    let newest = place.kappa(&["replay", "job", "--from", "2026-01-01 00:01:00"]);
    let words = "note: beginning with checkpoint 1 of 'job.v1', at position 9";
    assert!(newest.code == 0 && newest.stderr.contains(words), "{}", newest.stderr);
    let older = place.kappa(&["replay", "job", "--from", "2026-01-01"]);
    assert!(older.code == 0 && !older.stderr.contains("beginning with"), "{}", older.stderr);
    place.ok(&["up", "--stop-when-idle"]);
    let whole = place.ok(&["consume", "sums", "--values"]);
    assert_eq!(whole, place.ok(&["consume", "sums.v3", "--values"]));
    let part = place.ok(&["consume", "sums.v2", "--values"]);
    assert!(part.lines().count() == whole.lines().count() - 3 && whole.ends_with(&part), "{part}");
    place.ok(&["diff", "job", "-", "v2", "--window", "2026-01-01 00:01:00"]);
    place.ok(&["verify", "job", "--as", "v2"]);
    let explained = place.kappa(&["explain", "job", "--as", "v2", "--key", "k0", "--window", "2026-01-01 00:01:00"]);
    assert!(explained.stderr.contains(": 20 records, 1 results, 0 too late\n"), "{}", explained.stderr);
}

#[test]
fn a_replay_of_a_run_from_a_savepoint_begins_with_a_checkpoint_as_well() {
    let (_first, place, half) = moved();
    place.ok(&["savepoint", "restore", &half, "job.sql", "--at", "10"]);
    ticks(&place, 90, 200);
    place.ok(&["run", "job.sql", "--bounded", "--no-flush"]);
    let replay = ["replay", "job.sql", "--from", "2026-01-01 00:03:00", "--as", "v2"];
    let part = place.kappa(&replay);
    let words = "beginning with checkpoint 1 of 'job', at position 120";
    assert!(part.code == 0 && part.stderr.contains(words), "{}", part.stderr);
    ticks(&place, 200, 300);
    place.ok(&["run", "job.sql", "--bounded"]);
    let rest = place.kappa(&replay);
    assert!(rest.code == 0 && rest.stderr.contains("job.v2: went on"), "{}", rest.stderr);
    let part = place.ok(&["consume", "sums.v2", "--values"]);
    assert!(part.lines().count() == 6 && place.ok(&["consume", "sums", "--values"]).ends_with(&part), "{part}");
    place.ok(&["verify", "job.sql", "--as", "v2"]);
}
