//! The spans of an output and receipts: what a run keeps of itself does not depend on how it came about, and names the place of a difference
//! also when the topic has lost its rows.

use crate::laws::{Input, SQL, append, bounded, input, open};
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{self, Job, Point, Receipt, Request, Silent, SpanState, VerifyReport, VerifyRequest};
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Log};
use kappa::types::Position;
use kappa::{ErrorKind, sql};
use std::sync::Arc;

fn job() -> Job {
    Job { plan: Arc::new(sql::plan("laws.sql", SQL).expect("the plan")), name: "laws".into(), version: None }
}

fn log_of(sim: &Sim, input: &[Input], cut: usize) -> Log {
    let log = open(sim, "/data");
    append(&log, sim, input, cut);
    log
}

fn verified(log: &Log, request: &VerifyRequest) -> VerifyReport {
    job::verify(log, &job(), request, &mut Silent).expect("verified")
}

/// Rows and digest at the end of each span of an output.
fn digests(report: &VerifyReport, output: &str) -> Vec<(u64, u64)> {
    let spans = report.spans.iter().filter(|span| span.output == output);
    spans.map(|span| (span.end.rows, span.end.digest)).collect()
}

#[test]
fn spans_and_receipts_do_not_depend_on_frames_threads_or_restarts() {
    let input = input(21, 9000);
    let mut expected: Option<(Vec<(u64, u64)>, Receipt)> = None;
    for (cut, threads, steps) in [(1, 1, 1), (7, 2, 4), (4096, 1, 9), (65_536, 4, 2)] {
        let (_, sim) = Env::sim(21);
        let mut log = log_of(&sim, &input, cut);
        let all = log.durable_end();
        for step in 1..steps {
            let to = Some(Point::Position(Position(all.0 * step / steps)));
            job::run(&log, &job(), &Request { to, threads, bounded: true, ..Request::default() }, &mut Silent)
                .expect("a step of the run");
            log.close().expect("closed");
            log = open(&sim, "/data");
        }
        let whole = Request { to: Some(Point::Position(all)), ..bounded(threads) };
        job::run(&log, &job(), &whole, &mut Silent).expect("the run");
        let report = verified(&log, &VerifyRequest { threads, ..VerifyRequest::default() });
        assert_eq!(report.differences, []);
        assert!(report.spans.iter().all(|span| span.state == SpanState::Equal), "{:?}", report.spans);
        let spans = digests(&report, "counts");
        assert!(spans.len() > 3, "{} spans show little", spans.len());
        let got = (spans, job::receipt(&log, &job(), &Silent).expect("a receipt"));
        let expected = expected.get_or_insert_with(|| got.clone());
        assert_eq!(*expected, got, "frames of {cut} records, {threads} threads, {steps} steps");
    }
    // One record less is another receipt.
    let (_, sim) = Env::sim(21);
    let log = log_of(&sim, &input[..input.len() - 1], 64);
    job::run(&log, &job(), &bounded(1), &mut Silent).expect("the run");
    let other = job::receipt(&log, &job(), &Silent).expect("a receipt");
    assert_ne!(other.digest, expected.expect("runs").1.digest);
    assert_eq!(other.inputs[0].records, input.len() as u64 - 1);
}

#[test]
fn verify_names_the_span_of_a_difference_and_compares_a_part_alone() {
    let input = input(22, 9000);
    let (_, sim) = Env::sim(22);
    let log = log_of(&sim, &input, 64);
    let (all, counts) = (log.durable_end(), "counts");
    let half = Request { to: Some(Point::Position(Position(all.0 / 2))), bounded: true, ..Request::default() };
    job::run(&log, &job(), &half, &mut Silent).expect("half of the run");
    // Somebody else writes into the output.
    let foreign = Record { timestamp_ms: Some(9_999), key: Some(b"x"), value: Some(b"{}"), headers: &[] };
    let mut rows = RecordColumns::default();
    rows.push(Partitioning::ByKey, &foreign);
    let topic = log.topic(counts).expect("the output");
    log.append_wait(AppendBatch::records(topic.id(), rows)).expect("appended");
    let row = log.partition_ends(topic.id()).expect("ends")[0].0;
    let whole = Request { to: Some(Point::Position(all)), ..bounded(1) };
    job::run(&log, &job(), &whole, &mut Silent).expect("the rest of the run");
    let report = verified(&log, &VerifyRequest::default());
    let [difference] = &report.differences[..] else { panic!("one difference: {:?}", report.differences) };
    assert_eq!((difference.output.as_str(), difference.row), (counts, row));
    assert!(difference.span.0 <= row && row <= difference.span.1, "{difference:?}");
    for span in report.spans.iter().filter(|span| span.output == counts) {
        let expected = match () {
            () if span.end.rows < row => SpanState::Equal,
            () if span.from < row => SpanState::Differs,
            () => SpanState::NotCompared,
        };
        assert_eq!(span.state, expected, "{span:?}");
    }
    // What lies before the foreign record is good by itself.
    let times: Vec<i64> = input.iter().map(|(_, wall_us, _)| wall_us / 1000).collect();
    let early = VerifyRequest { to_ms: Some(times[times.len() / 5]), ..VerifyRequest::default() };
    let report = verified(&log, &early);
    assert_eq!(report.differences, []);
    let of_counts: Vec<_> = report.spans.iter().filter(|span| span.output == counts).map(|span| span.state).collect();
    assert!(of_counts.contains(&SpanState::Equal) && of_counts.contains(&SpanState::NotCompared), "{of_counts:?}");
}

#[test]
fn rows_that_the_topic_has_lost_are_proven_by_digests_and_lost_input_is_said() {
    let input = input(23, 9000);
    let (_, sim) = Env::sim(23);
    let log = log_of(&sim, &input, 64);
    job::run(&log, &job(), &bounded(1), &mut Silent).expect("the run");
    let counts = log.topic("counts").expect("the output");
    let end = log.partition_ends(counts.id()).expect("ends")[0].0;
    let mut reader = log.reader(&[counts.id()], Position(0));
    let mut positions = Vec::new();
    while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
        positions.extend_from_slice(&batch.positions);
    }
    let cut = positions.len() * 2 / 3;
    log.trim(counts.id(), Position(positions[cut])).expect("trimmed");
    let report = verified(&log, &VerifyRequest::default());
    assert_eq!((report.gone[0], report.differences.len()), (cut as u64, 0), "of {end} rows");
    // From a time on: spans in front are left out, with or without their rows.
    let late = input[input.len() * 4 / 5].1 / 1000;
    let report = verified(&log, &VerifyRequest { from_ms: Some(late), ..VerifyRequest::default() });
    assert_eq!(report.differences, []);
    assert!(report.spans.iter().any(|span| span.state == SpanState::NotCompared), "{:?}", report.spans);
    let hits = log.topic("hits").expect("the input");
    log.trim(hits.id(), Position(100)).expect("trimmed");
    for error in [
        job::verify(&log, &job(), &VerifyRequest::default(), &mut Silent).map(drop).expect_err("input is gone"),
        job::receipt(&log, &job(), &Silent).map(drop).expect_err("input is gone"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Gone);
        assert!(error.to_string().contains("complete from position 10"), "{error}");
    }
}

/// Does not want anything any more.
struct Stopped;

impl job::Observer for Stopped {
    fn should_stop(&self) -> bool {
        true
    }
}

#[test]
fn what_nobody_wants_any_more_ends_without_an_answer() {
    let (_, sim) = Env::sim(3);
    let log = log_of(&sim, &input(3, 500), 64);
    job::run(&log, &job(), &bounded(1), &mut Silent).expect("the run");
    let outputs = job::version_outputs(&log, &job().name, None).expect("it ran");
    let diff = job::DiffRequest::new(&outputs[0], &outputs[0]);
    for ended in [job::receipt(&log, &job(), &Stopped).err(), job::diff(&log, &diff, &Stopped).err()] {
        assert_eq!(ended.expect("stopped").kind(), ErrorKind::Closed);
    }
}
