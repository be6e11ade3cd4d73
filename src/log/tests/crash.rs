//! Laws 1, 6 and 8 under power cuts: every change of the disk is a crash point, in every shape a crash can have.

use super::history::{self, History};
use super::*;
use crate::env::sim::{Crash, SimDisk};
use crate::env::thread::map_ordered;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

fn long() -> bool {
    std::env::var_os("KAPPA_LONG").is_some()
}

/// The shapes in which a crash may leave the operations that are pending.
fn shapes(disk: &SimDisk) -> Vec<Crash> {
    let pending = disk.pending();
    let mut shapes = vec![Crash::Nothing, Crash::All, Crash::Grown];
    shapes.extend((1..pending).map(Crash::Prefix));
    shapes.extend((0..pending).map(Crash::Without));
    if let Some(len) = disk.last_write_len() {
        let step = if long() { 16 } else { len.div_ceil(6).max(1) };
        shapes.extend((1..len).step_by(step).map(Crash::Torn));
        shapes.push(Crash::Torn(len.saturating_sub(1)));
    }
    shapes
}

fn fingerprint(files: &BTreeMap<PathBuf, Vec<u8>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

/// Opens what a crash left, checks it, opens it again, and crashes inside the opening.
fn recover(history: &History, disk: &SimDisk, changes: usize, what: &str, inside: bool) {
    let sim = history.sim.with_disk(disk.clone());
    let base = disk.copy();
    disk.remember();
    let log = open(&sim.env());
    let found = history::check(history, &log, changes, what);
    let opening = if inside { disk.replay(&base) } else { Vec::new() };
    let opened = disk.copy();
    drop(log);
    // Opening again finds the same and changes nothing.
    let again = opened.crash(Crash::Nothing);
    let files = journal_files(&again);
    let log = open(&sim.with_disk(again.clone()).env());
    assert!(log.report().is_clean(), "{what}: the second opening found {}", log.report());
    assert_eq!(history::check(history, &log, changes, "opened again"), found);
    assert!(files == journal_files(&again), "{what}: the second opening changed a file");
    drop(log);
    for (step, inside) in opening.iter().enumerate() {
        for shape in [Crash::Nothing, Crash::All, Crash::Grown, Crash::Without(0)] {
            let what = format!("{what}, then {shape:?} after {step} changes of the opening");
            let log = open(&sim.with_disk(inside.crash(shape)).env());
            assert_eq!(history::check(history, &log, changes, &what), found, "{what}");
        }
    }
}

fn journal_files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.components().any(|part| part.as_os_str() == "journal")).collect()
}

/// Runs the history of a seed and recovers from every crash of it; gives the number of different disks.
fn every_crash(seed: u64) -> usize {
    let history = history::run(seed, 7);
    let disks = history.sim.disk.replay(&history.base);
    // The same bytes may be left by several crashes: the latest one demands the most.
    let mut images: BTreeMap<u64, (SimDisk, usize, String)> = BTreeMap::new();
    for (changes, disk) in disks.iter().enumerate() {
        for shape in shapes(disk) {
            let crashed = disk.crash(shape);
            images.insert(fingerprint(&crashed.files()), (crashed, changes, format!("{shape:?}")));
        }
    }
    let mut repaired = BTreeSet::new();
    for (disk, changes, what) in images.values() {
        // Openings are crashed themselves; one for each crash point is enough.
        let inside = repaired.insert(*changes) || long();
        recover(&history, disk, *changes, what, inside);
    }
    images.len()
}

#[test]
fn nothing_acknowledged_is_lost_whatever_a_power_cut_leaves() {
    let histories = if long() { 500 } else { 50 };
    let states: usize = map_ordered(4, (0..histories).collect(), every_crash).into_iter().sum();
    assert!(states > 5_000, "only {states} states");
}
