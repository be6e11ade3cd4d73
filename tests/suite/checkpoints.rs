//! Checkpoints: where a run goes on from one, the output is what it would have been; what is damaged is skipped and said.

use crate::dice::Dice;
use crate::laws::{append, bounded, first_difference, input, job, open, output};
use kappa::engine::Counters;
use kappa::env::Env;
use kappa::env::sim::Sim;
use kappa::job::{self, CheckpointOptions, Job, Observer, Outcome, Point, Request, RunReport, Silent};
use kappa::log::{Log, MetaSpace};
use kappa::types::Position;
use std::path::{Path, PathBuf};

/// After every few records, by the job's own thread.
pub(crate) fn often(bytes: u64) -> CheckpointOptions {
    CheckpointOptions { bytes, background: false, ..CheckpointOptions::default() }
}

/// Stops after some strides and keeps what was said.
#[derive(Default)]
struct Listener {
    strides_left: Option<u32>,
    notes: Vec<String>,
    first: Option<Position>,
}

impl Observer for Listener {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.first.get_or_insert(position);
        self.strides_left = self.strides_left.map(|left| left.saturating_sub(1));
    }
    fn on_note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
    fn should_stop(&self) -> bool {
        self.strides_left == Some(0)
    }
}

fn expected(sim: &Sim, seed: u64, rows: usize) -> Vec<(String, Vec<String>)> {
    let log = open(sim, "/whole");
    append(&log, sim, &input(seed, rows), 16);
    let none = CheckpointOptions { enabled: false, ..CheckpointOptions::default() };
    job::run(&log, &job(None), &Request { checkpoints: none, ..bounded(1) }, &mut Silent).expect("the run");
    let output = output(&log, &job(None));
    log.close().expect("closed");
    output
}

fn names(sim: &Sim, ending: &str) -> Vec<PathBuf> {
    let files = sim.disk.files().into_keys();
    files
        .filter(|path| path.to_string_lossy().contains("/checkpoints/") && path.to_string_lossy().ends_with(ending))
        .collect()
}

/// Runs to the end and gives what was said.
fn to_the_end(log: &Log, job: &Job, bytes: u64) -> (RunReport, Listener) {
    let mut listener = Listener::default();
    let request = Request { checkpoints: often(bytes), ..bounded(1) };
    let report = job::run(log, job, &request, &mut listener).expect("the rest of the run");
    (report, listener)
}

#[test]
fn runs_that_stop_and_go_on_from_checkpoints_give_the_same_output() {
    for seed in 1..=8 {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let expected = expected(&sim, seed, 900);
        let mut log = open(&sim, "/data");
        append(&log, &sim, &input(seed, 900), 16);
        let (job, mut dice, mut went_on) = (job(None), Dice::new(seed), 0);
        for part in 0..6u64 {
            let to = Point::Position(Position(900 * (part + 1) / 7));
            let strides_left = Some(1 + u32::try_from(dice.below(9)).expect("small"));
            let mut listener = Listener { strides_left, ..Listener::default() };
            let checkpoints = often(200 + dice.below(3_000));
            let threads = 1 + usize::try_from(dice.below(3)).expect("small");
            let request = Request { to: Some(to), bounded: true, threads, checkpoints, ..Request::default() };
            job::run(&log, &job, &request, &mut listener).expect("a part of the run");
            went_on += u64::from(listener.notes.iter().any(|note| note.contains("going on from checkpoint")));
            if dice.below(2) == 0 {
                log.close().expect("closed");
                log = open(&sim, "/data");
            }
        }
        assert!(went_on >= 4, "seed {seed}: checkpoints were used {went_on} times");
        assert!(names(&sim, ".manifest").len() <= 3, "two are kept, and one that the next sweep takes");
        let (report, _) = to_the_end(&log, &job, 700);
        assert_eq!(report.outcome, Outcome::Resumed);
        assert_eq!(first_difference(&output(&log, &job), &expected), None, "seed {seed}");
        assert_eq!(names(&sim, ""), [] as [PathBuf; 0], "a run that is complete has no checkpoints");
        assert!(log.meta_scan(MetaSpace::Checkpoint, "").is_empty());
        assert_eq!(
            job::verify(&log, &job, &job::VerifyRequest::default(), &mut Silent).expect("verified").differences,
            []
        );
    }
}

/// A log whose run was stopped with two checkpoints.
fn stopped(sim: &Sim, seed: u64) -> Log {
    let log = open(sim, "/data");
    append(&log, sim, &input(seed, 900), 16);
    let mut listener = Listener { strides_left: Some(12), ..Listener::default() };
    let request = Request { checkpoints: often(3_000), ..bounded(1) };
    let report = job::run(&log, &job(None), &request, &mut listener).expect("stopped");
    assert!(report.checkpoints.taken > 5 && report.checkpoints.bytes > 1_000, "{:?}", report.checkpoints);
    log
}

#[test]
fn a_damaged_checkpoint_is_skipped_and_said_and_costs_only_time() {
    let (_, sim) = Env::sim(21);
    let expected = expected(&sim, 21, 900);
    stopped(&sim, 21).close().expect("closed");
    let (manifests, sections) = (names(&sim, ".manifest"), names(&sim, ".sections"));
    assert_eq!(manifests.len(), 3, "two that count, one that the next sweep takes: {manifests:?}");
    let newest = |paths: &[PathBuf]| paths.last().expect("files").clone();
    let flip = |path: &Path, disk: &kappa::env::sim::SimDisk| {
        let mut bytes = disk.peek(path).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        disk.poke(path, bytes);
    };
    // One damaged file: the older one is used. All: from the start.
    for (damaged, used) in [
        (vec![newest(&manifests)], true),
        (vec![newest(&sections)], true),
        (manifests.clone(), false),
        (sections.clone(), false),
        (vec![], true),
    ] {
        let copy = sim.with_disk(sim.disk.copy());
        damaged.iter().for_each(|path| flip(path, &copy.disk));
        let log = open(&copy, "/data");
        let (_, listener) = to_the_end(&log, &job(None), 3_000);
        let skipped = listener.notes.iter().filter(|note| note.contains("is skipped")).count();
        let went_on = listener.notes.iter().filter(|note| note.contains("going on from")).count();
        assert_eq!((went_on == 1, skipped), (used, damaged.len().min(2)), "{damaged:?}: {:?}", listener.notes);
        assert_eq!(first_difference(&output(&log, &job(None)), &expected), None, "{damaged:?}");
    }
    // The whole folder gone.
    let copy = sim.with_disk(sim.disk.copy());
    copy.env().disk.remove_dir_all(Path::new("/data/checkpoints")).expect("removed");
    let log = open(&copy, "/data");
    let (_, listener) = to_the_end(&log, &job(None), 3_000);
    assert_eq!(listener.notes.iter().filter(|note| note.contains("is skipped")).count(), 2, "{:?}", listener.notes);
    assert_eq!(first_difference(&output(&log, &job(None)), &expected), None);
}

/// A run that has lost its checkpoints takes new ones while the rows that it has written come again.
#[test]
fn checkpoints_taken_while_rows_come_again_are_good() {
    for strides in 1..12 {
        let (_, sim) = Env::sim(25);
        let expected = expected(&sim, 25, 900);
        stopped(&sim, 25).close().expect("closed");
        sim.env().disk.remove_dir_all(Path::new("/data/checkpoints")).expect("removed");
        let log = open(&sim, "/data");
        let mut listener = Listener { strides_left: Some(strides), ..Listener::default() };
        let request = Request { checkpoints: often(1_500), ..bounded(1) };
        job::run(&log, &job(None), &request, &mut listener).expect("stopped again");
        let (_, listener) = to_the_end(&log, &job(None), 1_500);
        assert!(listener.notes.iter().any(|note| note.contains("going on from")), "{:?}", listener.notes);
        assert_eq!(first_difference(&output(&log, &job(None)), &expected), None, "after {strides} strides");
    }
}

#[test]
fn a_run_that_goes_on_reads_no_record_before_its_checkpoint() {
    let (_, sim) = Env::sim(22);
    let log = stopped(&sim, 22);
    let (report, listener) = to_the_end(&log, &job(None), u64::MAX);
    assert!(report.counters.rows_in >= 900, "counters go on: {:?}", report.counters);
    let whole = expected(&sim, 22, 900).iter().map(|(_, rows)| rows.len() as u64).sum::<u64>();
    assert_eq!(report.progress.streams.iter().map(|stream| stream.rows).sum::<u64>(), whole);
    assert!(listener.first.expect("strides").0 > 300, "{:?}", listener.first);
}

#[test]
fn a_disk_that_takes_no_checkpoint_stops_no_run() {
    let (_, sim) = Env::sim(23);
    let expected = expected(&sim, 23, 900);
    let log = open(&sim, "/data");
    append(&log, &sim, &input(23, 900), 16);
    // A file where the folder should be.
    sim.disk.seed(Path::new("/data/checkpoints"), vec![1]);
    let (report, listener) = to_the_end(&log, &job(None), 3_000);
    assert_eq!(report.checkpoints.taken, 0);
    assert!(listener.notes.iter().any(|note| note.contains("could not be written")), "{:?}", listener.notes);
    assert_eq!(first_difference(&output(&log, &job(None)), &expected), None);
}

#[test]
fn restart_forgets_checkpoints() {
    let (_, sim) = Env::sim(24);
    let log = stopped(&sim, 24);
    let request = Request { restart: true, checkpoints: often(3_000), ..bounded(1) };
    let mut listener = Listener { strides_left: Some(1), ..Listener::default() };
    let report = job::run(&log, &job(None), &request, &mut listener).expect("restarted");
    assert_eq!((report.outcome, listener.notes), (Outcome::Started, vec![]));
}
