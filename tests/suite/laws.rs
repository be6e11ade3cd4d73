//! The laws end to end, over the whole stack on a simulated disk and clock: log, SQL, engine, runs.

use crate::checkpoints::often;
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{self, Job, Observer, Outcome, Point, Request, Silent, VerifyRequest};
use kappa::log::inspect::inspect;
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
use kappa::types::{PartitionId, Position};
use kappa::{ErrorKind, sql};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

pub(crate) const SQL: &str = "
CREATE TABLE hits (ts TIMESTAMP(3), page STRING, ms INT, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
  WITH ('connector' = 'kappa', 'format' = 'json', 'scan.watermark.idle-timeout' = '20 s', 'quiet-close' = 'true');
CREATE TABLE counts (window_start TIMESTAMP(3), page STRING, n BIGINT, total DOUBLE) WITH ('connector' = 'kappa');
CREATE TABLE hops (window_start TIMESTAMP(3), page STRING, n BIGINT) WITH ('connector' = 'kappa', 'partitions' = '3');
CREATE TABLE visits (window_start TIMESTAMP(3), window_end TIMESTAMP(3), page STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO counts SELECT window_start, page, COUNT(*), SUM(CAST(ms AS DOUBLE) / 7)
  FROM TABLE(TUMBLE(TABLE hits, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, page;
INSERT INTO hops SELECT window_start, page, COUNT(*)
  FROM TABLE(HOP(TABLE hits, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND)) GROUP BY window_start, window_end, page;
INSERT INTO visits SELECT window_start, window_end, page, COUNT(*)
  FROM TABLE(SESSION(TABLE hits PARTITION BY page, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY window_start, window_end, page;
";

/// A record of the input: partition, wall clock of its append in microseconds, value.
pub(crate) type Input = (u32, i64, String);

/// Seeded input: three partitions, disorder, silences, rows that do not decode. Rows come in groups of one append time.
pub(crate) fn input(seed: u64, rows: usize) -> Vec<Input> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut wall_us = 1_700_000_000_000_000;
    let mut made = Vec::new();
    for row in 0..rows {
        if row % 16 == 0 {
            wall_us += i64::try_from(random(3_000_000)).expect("small");
            if random(20) == 0 {
                wall_us += 60_000_000;
            }
        }
        let ms = wall_us / 1000 - i64::try_from(random(6_000)).expect("small");
        let (minute, second, milli) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
        let (day, hour) = (minute / 1440 - 19_675, minute / 60 % 24);
        let ts = format!("2023-11-{:02} {hour:02}:{:02}:{second:02}.{milli:03}", day + 14, minute % 60);
        let value = match random(50) {
            0 => "{ no row".to_owned(),
            n => format!("{{\"ts\":\"{ts}\",\"page\":\"/p{}\",\"ms\":{}}}", n % 7, random(1000)),
        };
        made.push((u32::try_from(random(3)).expect("small"), wall_us, value));
    }
    made
}

pub(crate) fn open(sim: &Sim, dir: &str) -> Log {
    Log::open(&sim.env(), Path::new(dir), LogOptions::default()).expect("the log opens")
}

pub(crate) fn job(version: Option<&str>) -> Job {
    let plan = sql::plan("laws.sql", SQL).expect("the plan");
    Job { plan: Arc::new(plan), name: "laws".into(), version: version.map(str::to_owned) }
}

/// Appends the input cut into frames of at most `cut` records; records of different append times never share a frame.
pub(crate) fn append(log: &Log, sim: &Sim, input: &[Input], cut: usize) {
    let hits = match log.topic("hits") {
        Ok(topic) => topic,
        Err(_) => log.create_topic("hits", TopicConfig { partitions: 3, ..TopicConfig::default() }).expect("a topic"),
    };
    for same_time in input.chunk_by(|a, b| a.1 == b.1) {
        for frame in same_time.chunks(cut) {
            sim.clock.set_wall_us(frame[0].1);
            let mut rows = RecordColumns::default();
            for (partition, _, value) in frame {
                let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
                rows.push(Partitioning::Fixed(PartitionId(*partition)), &record);
            }
            log.append_wait(AppendBatch::records(hits.id(), rows)).expect("appended");
        }
    }
}

/// Output bytes: of every output topic every record's partition, timestamp, key, value and headers, in order. A record of
/// its own for each topic.
pub(crate) fn output(log: &Log, job: &Job) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for output in &job.plan.outputs {
        for stream in job::STREAMS {
            let name = job.stream_topic(output, stream).expect("a topic");
            let Ok(topic) = log.topic(&name) else { continue };
            let mut rows = Vec::new();
            let mut reader = log.reader(&[topic.id()], Position(0));
            while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
                for row in 0..batch.len() {
                    rows.push(format!(
                        "{} {:?} {:?} {:?} {:?}",
                        batch.partitions[row],
                        batch.timestamp_ms(row),
                        String::from_utf8_lossy(batch.keys.value(row)),
                        String::from_utf8_lossy(batch.values.value(row)),
                        String::from_utf8_lossy(batch.headers.value(row)),
                    ));
                }
            }
            let name = name.replace(&format!(".{}", job.version.as_deref().unwrap_or("?")), "");
            all.push((name, rows));
        }
    }
    all
}

/// Topic and row where two outputs part, for a message that can be read.
pub(crate) fn first_difference(got: &[(String, Vec<String>)], expected: &[(String, Vec<String>)]) -> Option<String> {
    let topics = |output: &[(String, Vec<String>)]| output.iter().map(|(topic, _)| topic.clone()).collect::<Vec<_>>();
    if topics(got) != topics(expected) {
        return Some(format!("topics {:?}, expected {:?}", topics(got), topics(expected)));
    }
    got.iter().zip(expected).find(|(got, expected)| got != expected).map(|((topic, got), (_, expected))| {
        let row = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let counts = (got.len(), expected.len());
        format!("{topic}, row {row} of {counts:?}: {:?}, expected {:?}", got.get(row), expected.get(row))
    })
}

pub(crate) fn bounded(threads: usize) -> Request {
    Request { bounded: true, flush: true, threads, ..Request::default() }
}

#[test]
fn law_3_frames_and_threads_do_not_show() {
    let input = input(3, 3000);
    let mut expected = None;
    for (cut, threads) in [(1, 1), (7, 1), (7, 2), (4096, 1), (65_536, 8)] {
        let (_, sim) = Env::sim(7);
        let log = open(&sim, "/data");
        append(&log, &sim, &input, cut);
        let job = job(None);
        // With several threads strides are read ahead: here they are short, so that there are some.
        let checkpoints = often(if threads == 1 { u64::MAX } else { 4096 });
        let request = Request { checkpoints, ..bounded(threads) };
        job::run(&log, &job, &request, &mut Silent).expect("the run");
        let mut got = output(&log, &job);
        for (topic, rows) in &got {
            // Late and rejected rows name the offsets of their records, which are the same as well.
            assert!(!rows.is_empty(), "{topic} is empty: the test would show nothing");
        }
        got.sort();
        let expected = expected.get_or_insert_with(|| got.clone());
        assert_eq!(first_difference(&got, expected), None, "frames of {cut} records, {threads} threads");
    }
}

/// Stops a live run after some strides.
struct StopAfter {
    strides: Cell<u32>,
}

impl Observer for StopAfter {
    fn on_idle(&mut self, _: &kappa::engine::Engine) {
        self.strides.set(self.strides.get().saturating_sub(1));
    }
    fn should_stop(&self) -> bool {
        self.strides.get() == 0
    }
}

fn live(log: &Log, job: &Job, strides: u32) -> Outcome {
    let mut observer = StopAfter { strides: Cell::new(strides) };
    job::run(log, job, &Request::default(), &mut observer).expect("the live run").outcome
}

#[test]
fn laws_2_4_and_5_live_with_pauses_and_restarts_is_replay() {
    for seed in 1..=6 {
        println!("seed {seed}");
        let input = input(seed, 1200);
        let (_, sim) = Env::sim(seed);
        let mut log = open(&sim, "/data");
        append(&log, &sim, &input[..1], 1);
        let live_job = job(None);
        let mut at = 1;
        for (step, rows) in [1usize, 40, 7, 300, 90, 2, 500, 260].into_iter().cycle().enumerate() {
            let to = (at + rows).min(input.len());
            append(&log, &sim, &input[at..to], 1 + step * 5);
            at = to;
            live(&log, &live_job, 1 + u32::try_from(step % 2).expect("small"));
            if step % 3 == 2 {
                // Restart: the engine and the log begin anew.
                log.close().expect("closed");
                log = open(&sim, "/data");
            }
            // Time passes without records: the last windows close by the clock.
            sim.clock.advance_us(if step % 4 == 0 { 45_000_000 } else { 100_000 });
            if step % 4 == 1 {
                // The wall clock is set back an hour; the append clock goes on.
                sim.clock.set_wall_us(input[at - 1].1 - 3_600_000_000);
            }
            if at == input.len() {
                break;
            }
        }
        live(&log, &live_job, 2);
        let progress = job::progress(&log, &live_job.key()).expect("readable").expect("it has written");
        let replayed = job("v2".into());
        let request = Request {
            to: Some(Point::Reading(progress.position(), progress.clock())),
            bounded: true,
            flush: false,
            ..Request::default()
        };
        job::run(&log, &replayed, &request, &mut Silent).expect("the replay");
        let (live_rows, replay_rows) = (output(&log, &live_job), output(&log, &replayed));
        assert!(
            live_rows.iter().map(|(_, rows)| rows.len()).sum::<usize>() > 300,
            "seed {seed}: too little to show anything"
        );
        assert_eq!(first_difference(&replay_rows, &live_rows), None, "seed {seed}");
        let verified = job::verify(&log, &live_job, &VerifyRequest::default(), &mut Silent).expect("verified");
        assert_eq!(verified.differences, [], "seed {seed}");
    }
}

#[test]
fn law_5_output_and_progress_are_one_frame() {
    let input = input(9, 2000);
    let (_, sim) = Env::sim(9);
    let log = open(&sim, "/data");
    append(&log, &sim, &input, 100);
    let (job, all) = (job(None), log.durable_end());
    // In steps, so that there are many frames of output.
    for step in 1..8 {
        let to = Some(Point::Position(Position(all.0 * step / 8)));
        let held = Request { to, bounded: true, ..Request::default() };
        job::run(&log, &job, &held, &mut Silent).expect("a step of the run");
    }
    job::run(&log, &job, &bounded(1), &mut Silent).expect("the rest of the run");
    let expected = output(&log, &job);
    log.close().expect("closed");
    // Cut the journal behind every frame of the run, and in the middle of it: going on gives the same output.
    let seen = inspect(&sim.env(), Path::new("/data")).expect("inspected");
    let [file] = &seen.files[..] else { panic!("one file is enough for this input") };
    let run_frames: Vec<_> = file.frames.iter().filter(|frame| frame.first_position >= all.0).collect();
    assert!(run_frames.len() > 12, "{} frames show little", run_frames.len());
    let whole = sim.disk.copy();
    let (path, bytes) =
        whole.files().into_iter().find(|(path, _)| path.ends_with(&file.name)).expect("the journal file");
    for cut in run_frames.iter().flat_map(|frame| [frame.at, frame.at + u64::from(frame.bytes / 2)]) {
        let disk = whole.copy();
        disk.poke(&path, bytes[..usize::try_from(cut).expect("small")].to_vec());
        let sim = sim.with_disk(disk);
        let log = open(&sim, "/data");
        job::run(&log, &job, &bounded(1), &mut Silent).expect("it goes on");
        assert_eq!(first_difference(&output(&log, &job), &expected), None, "journal cut at byte {cut}");
    }
}

#[test]
fn a_changed_job_or_another_end_is_refused_and_the_same_writes_nothing() {
    let (_, sim) = Env::sim(11);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(11, 500), 50);
    let job = job(None);
    let first = job::run(&log, &job, &bounded(1), &mut Silent).expect("the run");
    let rows = output(&log, &job);
    let again = job::run(&log, &job, &bounded(1), &mut Silent).expect("the same run");
    assert_eq!((first.outcome, again.outcome), (Outcome::Started, Outcome::AlreadyComplete));
    assert_eq!(output(&log, &job), rows);
    let changed =
        sql::plan("laws.sql", &SQL.replace("INTERVAL '10' SECOND", "INTERVAL '11' SECOND")).expect("the plan");
    let changed = Job { plan: Arc::new(changed), ..job.clone() };
    let refused = job::run(&log, &changed, &bounded(1), &mut Silent).expect_err("another plan on the same outputs");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.hint().is_some_and(|hint| hint.contains("--as") && hint.contains("--restart")), "{refused}");
    assert_eq!(output(&log, &job), rows, "a refused run wrote something");
    let restarted = job::run(&log, &changed, &Request { restart: true, ..bounded(1) }, &mut Silent).expect("restarted");
    assert_eq!(restarted.outcome, Outcome::Started);
    assert_ne!(output(&log, &changed), rows);
}

#[test]
fn a_replay_from_a_time_publishes_the_windows_of_the_whole_run_from_there() {
    let (_, sim) = Env::sim(12);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(12, 2000), 64);
    let whole_job = job(None);
    job::run(&log, &whole_job, &bounded(1), &mut Silent).expect("the run");
    let whole = output(&log, &whole_job);
    let counts = &whole[0].1;
    let middle = counts[counts.len() / 2].split_once("window_start").expect("a window").1[5..24].to_owned();
    let from_ms = job::parse_time_ms(&middle).expect("a time");
    let replayed = job("v2".into());
    let request =
        job::replay_request(&log, &replayed, Request { publish_from_ms: Some(from_ms), ..Request::default() });
    job::run(&log, &replayed, &request.expect("a request"), &mut Silent).expect("the replay");
    let part = output(&log, &replayed);
    for ((topic, whole), (_, part)) in whole.iter().zip(&part).filter(|((topic, _), _)| !topic.contains('.')) {
        let starts = |row: &&String| row.split_once("window_start").is_some_and(|(_, rest)| rest[5..24] >= *middle);
        let expected: Vec<&String> = whole.iter().filter(starts).collect();
        assert!(!expected.is_empty() && expected.len() < whole.len(), "{topic}: the cut shows nothing");
        assert_eq!(part.iter().collect::<Vec<_>>(), expected, "{topic}");
    }
}

#[test]
fn verify_names_the_first_window_that_differs() {
    let (_, sim) = Env::sim(13);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(13, 400), 64);
    let job = job(None);
    job::run(&log, &job, &bounded(1), &mut Silent).expect("the run");
    let counts = log.topic("counts").expect("the output");
    // Somebody else writes into the output.
    let mut rows = RecordColumns::default();
    rows.push(
        Partitioning::ByKey,
        &Record { timestamp_ms: Some(9_999), key: Some(b"x"), value: Some(b"{}"), headers: &[] },
    );
    log.append_wait(AppendBatch::records(counts.id(), rows)).expect("appended");
    let report = job::verify(&log, &job, &VerifyRequest::default(), &mut Silent).expect("verified");
    assert_eq!(report.differences.len(), 1, "{:?}", report.differences);
    let difference = &report.differences[0];
    assert_eq!((difference.output.as_str(), difference.window_end_ms), ("counts", Some(10_000)));
    assert_eq!(difference.recomputed, None);
    assert_eq!(difference.recorded.as_deref(), Some("{}"));
}
