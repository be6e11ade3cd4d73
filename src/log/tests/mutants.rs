//! The tests tested: each step that keeps records safe is left out in turn, and some test must notice.

use super::crash::{Fineness, every_crash, tell};
use super::history::{Step, play};
use super::*;
use crate::env::thread::map_ordered;
use crate::log::{AppendBatch, Mutant, TopicConfig};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A short form of one kind of test, for a log opened in this way.
type Check = fn(&LogOptions);

/// Each mutant with the test that must notice it.
const CAUGHT_BY: &[(Mutant, &str, Check)] = &[
    (Mutant::AckBeforeSync, "crash points", crash_points),
    (Mutant::RetrySync, "failing calls", failing_calls),
    (Mutant::RollBeforeSync, "crash points", crash_points),
    (Mutant::ProofAhead, "crash points", crash_points),
    (Mutant::NoFolderSync, "crash points", crash_points),
    (Mutant::NoSalt, "forged frames", super::forged::no_payload_becomes_a_frame),
    (Mutant::TrustUnsynced, "crash points", crash_points),
    (Mutant::NoRewrite, "failing calls", failing_calls),
    (Mutant::CutDamage, "rot", rot),
    (Mutant::KeepTornTail, "crash points", crash_points),
    (Mutant::TrustNewerView, "a view from another time", a_newer_view),
    (Mutant::NoClockFloor, "crash points", crash_points),
    (Mutant::ReuseOffsets, "offsets behind a loss", super::faults::lost_offsets_stay_unused),
    (Mutant::NoHeaderCrc, "rot", rot),
    (Mutant::NoDirectoryCrc, "rot", rot),
    (Mutant::NoMetaCrc, "rot", rot),
    (Mutant::NoBodyCrc, "rot", rot),
];

fn crash_points(options: &LogOptions) {
    let fineness = Fineness { cut_step: 120, sectors_step: 13 };
    let sequences: [&[Step]; 4] = [
        &[Step::Append, Step::Commit, Step::Append],
        &[Step::Append, Step::Batch, Step::Batch],
        &[Step::Roll, Step::Append, Step::Roll, Step::Batch],
        &[Step::Batch, Step::Reopen, Step::Create, Step::Delete, Step::Keep],
    ];
    for steps in sequences {
        every_crash(&play(1, options, steps), 0, fineness);
    }
}

fn failing_calls(options: &LogOptions) {
    super::faults::every_call_fails(options);
}

fn rot(options: &LogOptions) {
    // The journal alone: what is in history or in a snapshot is not read from it any more.
    let options = LogOptions { history: false, snapshot_bytes: 1 << 40, ..options.clone() };
    super::rot::specimen(&options, 40).sample();
}

/// The catalog view on the real disk stays, the journal goes back to a copy that was made before.
fn a_newer_view(options: &LogOptions) {
    let env = Env::os();
    let base = std::env::temp_dir().join(format!("kappa-view-{}-{:x}", std::process::id(), env.random.next_u64()));
    let options = LogOptions { view: ViewKind::Sled, ..options.clone() };
    let log = Log::open(&env, &base, options.clone()).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    log.close().unwrap();
    let journal = base.join("journal").join(crate::log::journal::file_name(1));
    let file = env.disk.open(&journal, crate::env::OpenMode::Read).unwrap();
    let mut before = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(0, &mut before).unwrap();
    let log = Log::open(&env, &base, options.clone()).unwrap();
    log.append_wait(AppendBatch::records(topic, values(&["x"]))).unwrap();
    log.create_topic("later", TopicConfig::default()).unwrap();
    log.close().unwrap();
    let file = env.disk.open(&journal, crate::env::OpenMode::ReadWrite).unwrap();
    file.write_all_at(0, &before).unwrap();
    file.set_len(before.len() as u64).unwrap();
    let log = Log::open(&env, &base, options).unwrap();
    let names: Vec<String> = log.topics().iter().map(|topic| topic.name().to_owned()).collect();
    let rebuilt = log.report().catalog.clone();
    log.close().unwrap();
    env.disk.remove_dir_all(&base).unwrap();
    assert_eq!(names, ["t"], "a topic that the journal does not know: {rebuilt:?}");
    assert!(rebuilt.is_some(), "nobody was told");
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// What a check says of a log opened in this way, if it is not content.
fn complaint(check: Check, options: &LogOptions) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(options)));
    outcome.err().map(|panic| words(&*panic).lines().next().unwrap_or_default().chars().take(160).collect())
}

#[test]
fn every_step_that_keeps_records_safe_is_needed() {
    let mutants: Vec<Mutant> = CAUGHT_BY.iter().map(|(mutant, ..)| *mutant).collect();
    assert_eq!(mutants, Mutant::ALL);
    let complaints = map_ordered(crate::env::thread::available(), CAUGHT_BY.to_vec(), |(mutant, _, check)| {
        // How records are grouped into frames depends on the threads, and with it what a crash can tear.
        (0..20).find_map(|_| complaint(check, &LogOptions { mutant: Some(mutant), ..small() }))
    });
    let mut missed = Vec::new();
    for ((mutant, by, _), complaint) in CAUGHT_BY.iter().zip(complaints) {
        match complaint {
            Some(words) => tell(&format!("mutant {mutant:?}: caught by {by}: {words}")),
            None => missed.push(format!("{mutant:?} by {by}")),
        }
    }
    tell(&format!("mutants of safety: {} of {} caught", mutants.len() - missed.len(), mutants.len()));
    assert!(missed.is_empty(), "left out, and not noticed: {missed:?}");
}

#[test]
fn the_checks_say_nothing_of_a_log_that_leaves_nothing_out() {
    let mut checks: Vec<(&str, Check)> = CAUGHT_BY.iter().map(|(_, name, check)| (*name, *check)).collect();
    checks.sort_by_key(|(name, _)| *name);
    checks.dedup_by_key(|(name, _)| *name);
    assert_eq!(checks.len(), 6);
    for (name, check) in checks {
        assert_eq!(complaint(check, &small()), None, "{name}");
    }
}
