//! Laws 1, 6 and 8 under power cuts: every change of the disk is a crash point, in every shape a crash can have.

use super::history::{self, History, Look, Step};
use super::*;
use crate::codec::xxh64;
use crate::env::sim::{Crash, SimDisk};
use crate::env::thread::map_ordered;
use crate::log::AppendBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn long() -> bool {
    std::env::var_os("KAPPA_LONG").is_some()
}

/// How finely torn writes are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fineness {
    /// A torn write is cut at every so many bytes, up to 4 KiB of it.
    pub cut_step: usize,
    /// Which subsets of a torn write's sectors: every so many.
    pub sectors_step: usize,
}

impl Fineness {
    const COARSE: Fineness = Fineness { cut_step: 600, sectors_step: 37 };
}

/// The shapes in which a crash may leave the operations that are pending.
fn shapes(disk: &SimDisk, fineness: Fineness) -> Vec<Crash> {
    let pending = disk.pending();
    let mut shapes = vec![Crash::Nothing, Crash::All, Crash::Grown, Crash::Names, Crash::Contents];
    shapes.extend((1..pending).map(Crash::Prefix));
    shapes.extend((0..pending).map(Crash::Without));
    if let Some((len, sectors)) = disk.last_write() {
        shapes.extend((1..len.min(4_096)).step_by(fineness.cut_step).map(Crash::Torn));
        shapes.extend((4_096..len).step_by(512.max(fineness.cut_step)).map(Crash::Torn));
        shapes.push(Crash::Torn(len.saturating_sub(1)));
        let subsets = 1u16 << sectors.min(8);
        shapes.extend((1..subsets - 1).step_by(fineness.sectors_step).map(|eighths| Crash::Sectors(eighths as u8)));
    }
    shapes
}

pub(super) fn fingerprint(files: &BTreeMap<PathBuf, Vec<u8>>) -> u64 {
    files.iter().fold(0, |sum, (path, bytes)| xxh64(bytes, xxh64(path.as_os_str().as_encoded_bytes(), sum)))
}

/// How many different disks were opened: left by a crash, by a kill before the power went, by a crash while opening.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct States {
    pub crashes: usize,
    pub kills: usize,
    pub inside: usize,
}

impl States {
    fn plus(self, other: States) -> States {
        States {
            crashes: self.crashes + other.crashes,
            kills: self.kills + other.kills,
            inside: self.inside + other.inside,
        }
    }
}

fn look<'a>(changes: usize, what: &'a str) -> Look<'a> {
    Look { changes, since: &[], what }
}

/// What is done with a disk that a crash left, beyond opening it and looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Look,
    /// Append, crash, and look again.
    GoOn,
    /// Also open it again, which must find the same and change nothing, and crash inside the opening.
    Inside,
}

/// Opens what a crash left and checks it. Gives how many disks were left by crashes inside the opening.
fn recover(history: &History, disk: &SimDisk, changes: usize, what: &str, depth: Depth) -> usize {
    let sim = history.sim.with_disk(disk.clone());
    let base = disk.copy();
    disk.remember();
    let log = history.open(&sim);
    let found = history::check(history, &log, &look(changes, what));
    if depth == Depth::Look {
        return 0;
    }
    let opened = disk.copy();
    go_on(history, &opened, changes, what);
    if depth == Depth::GoOn {
        return 0;
    }
    let opening = disk.replay(&base);
    drop(log);
    let again = opened.crash(Crash::Nothing);
    let files = journal_files(&again);
    let log = history.open(&sim.with_disk(again.clone()));
    assert!(log.report().is_clean(), "{what}: the second opening found {}", log.report());
    assert_eq!(history::check(history, &log, &look(changes, "opened again")), found, "{what}");
    assert!(files == journal_files(&again), "{what}: the second opening changed a file");
    drop(log);
    let mut seen = BTreeSet::new();
    for (step, inside) in opening.iter().enumerate() {
        for shape in shapes(inside, Fineness::COARSE) {
            let crashed = inside.crash(shape);
            if !seen.insert(fingerprint(&crashed.files())) {
                continue;
            }
            let what = format!("{what}, then {shape:?} after {step} changes of the opening");
            let log = history.open(&sim.with_disk(crashed));
            assert_eq!(history::check(history, &log, &look(changes, &what)), found, "{what}");
        }
    }
    seen.len()
}

/// What is acknowledged after a recovery survives the next power cut, and stands behind what was found.
fn go_on(history: &History, opened: &SimDisk, changes: usize, what: &str) {
    let sim = history.sim.with_disk(opened.copy());
    let log = history.open(&sim);
    let Some(topic) = log.topics().first().map(crate::log::Topic::id) else { return };
    let since = [(topic, values(&["after the crash"]))];
    for (topic, columns) in &since {
        log.append_wait(AppendBatch::records(*topic, columns.clone())).unwrap();
    }
    let what = format!("{what}, gone on, and crashed");
    let again = history.open(&history.sim.with_disk(sim.disk.crash(Crash::Nothing)));
    history::check(history, &again, &Look { changes, since: &since, what: &what });
}

/// The process is killed, the system lives: the log opens with what was written and not synced. What it then shows must be
/// there after a power cut.
fn kill_then_cut(history: &History, disk: &SimDisk, changes: usize) {
    let killed = history.sim.with_disk(disk.copy());
    let log = history.open(&killed);
    let found = history::check(history, &log, &look(changes, "killed"));
    let cut = history.sim.with_disk(killed.disk.crash(Crash::Nothing));
    drop(log);
    let log = history.open(&cut);
    let after = history::check(history, &log, &look(changes, "killed, opened, and crashed"));
    assert_eq!(after, found, "seed {} after {changes} changes: shown, and gone after a power cut", history.seed);
}

fn journal_files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.components().any(|part| part.as_os_str() == "journal")).collect()
}

/// Recovers from every crash of a history after its first `from` changes.
pub(super) fn every_crash(history: &History, from: usize, fineness: Fineness) -> States {
    let disks = history.sim.disk.replay(&history.base);
    // The wall clock has been set back meanwhile: append times must not.
    history.sim.clock.set_wall_us(1_000_000_000_000_000);
    // The same bytes may be left by several crashes: the latest one demands the most.
    let mut images: BTreeMap<u64, (SimDisk, usize, String)> = BTreeMap::new();
    let mut states = States::default();
    for (changes, disk) in disks.iter().enumerate().skip(from) {
        for shape in shapes(disk, fineness) {
            let crashed = disk.crash(shape);
            images.insert(fingerprint(&crashed.files()), (crashed, changes, format!("{shape:?}")));
        }
        if disk.pending() > 0 {
            kill_then_cut(history, disk, changes);
            states.kills += 1;
        }
    }
    let mut repaired = BTreeSet::new();
    for (number, (disk, changes, what)) in images.values().enumerate() {
        // Openings are crashed themselves; one for each crash point is enough.
        let depth = match number % 4 {
            _ if repaired.insert(*changes) || long() => Depth::Inside,
            0 => Depth::GoOn,
            _ => Depth::Look,
        };
        states.inside += recover(history, disk, *changes, what, depth);
    }
    states.crashes = images.len();
    states
}

/// All sequences of `len` steps.
fn sequences(len: u32) -> Vec<Vec<Step>> {
    let kinds = Step::ALL.len();
    let sequence = |number: usize| (0..len).map(|place| Step::ALL[number / kinds.pow(place) % kinds]).collect();
    (0..kinds.pow(len)).map(sequence).collect()
}

/// Crashes in the last step of every sequence of up to `longest` steps: those of the steps before are of shorter sequences.
fn every_sequence(longest: u32, fineness: Fineness) -> (usize, States) {
    let all: Vec<Vec<Step>> = (1..=longest).flat_map(sequences).collect();
    let count = all.len();
    let states = map_ordered(crate::env::thread::available(), all, |steps| {
        let history = history::play(1, &small(), &steps);
        let from = history.marks[steps.len() - 1];
        every_crash(&history, if steps.len() == 1 { 0 } else { from }, fineness)
    });
    (count, states.into_iter().fold(States::default(), States::plus))
}

/// Crashes anywhere in longer histories made from seeds.
fn random_histories(seeds: std::ops::Range<u64>, fineness: Fineness) -> States {
    let states = map_ordered(crate::env::thread::available(), seeds.collect(), |seed| {
        every_crash(&history::play(seed, &small(), &history::random_steps(seed, 8)), 0, fineness)
    });
    states.into_iter().fold(States::default(), States::plus)
}

/// Says something on the terminal also when the test passes.
pub(super) fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn tell_states(what: &str, states: States) {
    let States { crashes, kills, inside } = states;
    tell(&format!(
        "crash points: {what}: {} states ({crashes} left by crashes, {kills} by kills before a power cut, {inside} by crashes \
         while opening), lost = 0",
        crashes + kills + inside
    ));
}

/// A debug build does a fraction.
const DEBUG: bool = cfg!(debug_assertions);

#[test]
fn nothing_acknowledged_is_lost_in_any_short_sequence() {
    let (longest, fineness) = match (long(), DEBUG) {
        (true, _) => (4, Fineness { cut_step: 16, sectors_step: 1 }),
        (_, false) => (3, Fineness { cut_step: 256, sectors_step: 17 }),
        (_, true) => (2, Fineness::COARSE),
    };
    let (count, states) = every_sequence(longest, fineness);
    tell_states(&format!("{count} sequences of up to {longest} steps"), states);
    assert!(states.crashes > count * 3, "only {states:?}");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_a_power_cut_leaves() {
    let (seeds, fineness) = match (long(), DEBUG) {
        (true, _) => (500, Fineness { cut_step: 1, sectors_step: 1 }),
        (_, false) => (40, Fineness { cut_step: 16, sectors_step: 5 }),
        (_, true) => (8, Fineness::COARSE),
    };
    let states = random_histories(0..seeds, fineness);
    tell_states(&format!("{seeds} histories, seeds 0 to {}", seeds - 1), states);
    assert!(states.crashes > 500, "only {states:?}");
}

#[test]
fn every_byte_of_a_torn_write_is_a_place_to_tear() {
    let steps = [Step::Append, Step::Batch];
    let history = history::play(3, &small(), &steps);
    let step = if DEBUG { 7 } else { 1 };
    let states = every_crash(&history, history.marks[1], Fineness { cut_step: step, sectors_step: step });
    tell_states("one write, cut at every byte and sector", states);
    assert!(states.crashes > 200, "only {states:?}");
}

#[test]
fn nothing_acknowledged_is_lost_in_a_file_that_is_written_again() {
    let names = |disk: &SimDisk, ending: &str| -> Vec<PathBuf> {
        let paths = journal_files(disk).into_keys();
        paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
    };
    let mut filled = vec![Step::Create];
    filled.extend([Step::Roll; 12]);
    filled.extend([Step::Keep; 2]);
    for tail in [&[Step::Append, Step::Roll, Step::Append, Step::Batch][..], &[Step::Roll, Step::Roll, Step::Append]] {
        let steps = [&filled[..], tail].concat();
        let history = history::play(5, &small(), &steps);
        let from = history.marks[filled.len() - 1];
        let disks = history.sim.disk.replay(&history.base);
        let (before, after) = (names(&disks[from], "spare"), names(&history.sim.disk, "spare"));
        assert!(after.len() < before.len(), "no file was written again: {before:?}, {after:?}");
        let states = every_crash(&history, from, Fineness::COARSE);
        tell_states(&format!("{} steps in files that are written again", tail.len()), states);
        assert!(states.crashes > 50, "only {states:?}");
    }
}
