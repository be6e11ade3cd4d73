//! Exactly once, whatever the moment: a run with checkpoints, sealing and restarts, cut at named points of its work on the disk. Each cut
//! leaves what a power cut may leave there; going on from it, and from cuts of that, gives the output of a run without any.
//! `KAPPA_LONG=1` takes ten times as many seeds.

use crate::checkpoints::often;
use crate::dice::Dice;
use crate::laws::{SQL, append, bounded, first_difference, input, job, output};
use crate::util::tell;
use kappa::engine::functions::FunctionRegistry;
use kappa::env::sim::{Crash, Sim, SimDisk};
use kappa::env::{DirEntry, Disk, DiskFile, Env, LockError, LockGuard, Mapped, OpenMode};
use kappa::job::registry::{self, Submission, Submitted};
use kappa::job::{self, Observer, Point, Request, Silent, VerifyRequest};
use kappa::log::{Log, LogOptions};
use kappa::types::Position;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const ROWS: usize = 200;

/// What is being done on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create,
    Read,
    Write,
    Sync,
    Rename,
    Remove,
    RemoveFolder,
    SyncFolder,
}

/// Where the run is: a checkpoint on the disk that is not in the journal yet.
#[derive(Default)]
struct Course {
    unrecorded: bool,
    record_written: bool,
}

impl Course {
    /// The name of a step; `None`: no step of the job's.
    fn name(&mut self, call: Call, path: &Path) -> Option<&'static str> {
        let path = path.to_string_lossy();
        let ends = |ending: &str| path.ends_with(ending);
        Some(match call {
            Call::Create if path.contains("/checkpoints/") && ends(".sections") => "creating a checkpoint's sections",
            Call::Write if ends(".sections") => "writing a checkpoint's sections",
            Call::Sync if ends(".sections") => "syncing a checkpoint's sections",
            Call::Write if ends(".manifest.tmp") => "writing a checkpoint's manifest",
            Call::Sync if ends(".manifest.tmp") => "syncing a checkpoint's manifest",
            Call::Rename if ends(".manifest") => "renaming a checkpoint's manifest",
            Call::SyncFolder if path.contains("/checkpoints/") => {
                self.unrecorded = true;
                "syncing the checkpoints' names"
            }
            Call::Read if ends(".manifest") => "reading a checkpoint's manifest",
            Call::Read if ends(".sections") => "reading a checkpoint's sections",
            Call::Remove if ends(".manifest") => "removing an old manifest",
            Call::Remove if ends(".sections") => "removing old sections",
            Call::RemoveFolder if path.contains("/checkpoints/") => "removing all checkpoints",
            Call::Write if path.contains("/journal/") && self.unrecorded => {
                (self.unrecorded, self.record_written) = (false, true);
                "recording a checkpoint"
            }
            Call::Sync if path.contains("/journal/") && self.record_written => {
                self.record_written = false;
                "syncing a checkpoint's record"
            }
            Call::Write if path.contains("/journal/") => "writing output and progress",
            Call::Sync if path.contains("/journal/") => "syncing output and progress",
            Call::Write if path.contains("/history/") => "sealing: writing a history file",
            Call::Sync if path.contains("/history/") => "sealing: syncing a history file",
            Call::Remove if path.contains("/journal/") => "sealing: removing a journal file",
            Call::Rename if ends(".snapshot") => "renaming a metadata snapshot",
            _ => return None,
        })
    }
}

/// The disks at one moment of each kind, each moment as likely as any other.
struct Moments {
    dice: Dice,
    course: Course,
    seen: BTreeMap<String, (u64, SimDisk)>,
}

/// A disk that looks at itself around each named step.
#[derive(Clone)]
struct Watched {
    disk: SimDisk,
    inner: Arc<dyn Disk>,
    moments: Arc<Mutex<Moments>>,
}

impl Watched {
    fn new(sim: &Sim, seed: u64) -> Watched {
        let moments = Moments { dice: Dice::new(seed), course: Course::default(), seen: BTreeMap::new() };
        Watched { disk: sim.disk.clone(), inner: Arc::new(sim.disk.clone()), moments: Arc::new(Mutex::new(moments)) }
    }

    fn look(&self, when: &str, name: &str) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{when} {name}");
        let times = moments.seen.get(&name).map_or(0, |(times, _)| *times) + 1;
        if moments.dice.below(times) == 0 {
            moments.seen.insert(name, (times, self.disk.copy()));
        } else if let Some((seen, _)) = moments.seen.get_mut(&name) {
            *seen = times;
        }
    }

    fn around<T>(&self, call: Call, path: &Path, work: impl FnOnce() -> T) -> T {
        let name = self.moments.lock().unwrap_or_else(PoisonError::into_inner).course.name(call, path);
        let Some(name) = name else { return work() };
        if call == Call::Sync {
            self.look("before", name);
        }
        let done = work();
        self.look("after", name);
        done
    }

    fn take(&self) -> BTreeMap<String, SimDisk> {
        let seen = std::mem::take(&mut self.moments.lock().unwrap_or_else(PoisonError::into_inner).seen);
        seen.into_iter().map(|(name, (_, disk))| (name, disk)).collect()
    }
}

struct WatchedFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    disk: Watched,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.around(Call::Read, &self.path, || self.file.read_at(at, buf))
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.disk.around(Call::Write, &self.path, || self.file.write_at(at, bytes))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.around(Call::Sync, &self.path, || self.file.sync_data())
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn map(&self) -> io::Result<Mapped> {
        self.file.map()
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = match mode {
            OpenMode::CreateNew => self.around(Call::Create, path, || self.inner.open(path, mode)),
            _ => self.inner.open(path, mode),
        };
        Ok(Arc::new(WatchedFile { path: path.to_owned(), file: file?, disk: self.clone() }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around(Call::Rename, to, || self.inner.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.around(Call::Remove, path, || self.inner.remove_file(path))
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.around(Call::RemoveFolder, path, || self.inner.remove_dir_all(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.around(Call::SyncFolder, dir, || self.inner.sync_dir(dir))
    }
    fn lock(&self, path: &Path, contents: &str) -> Result<Box<dyn LockGuard>, LockError> {
        self.inner.lock(path, contents)
    }
    fn is_os(&self) -> bool {
        false
    }
}

fn options() -> LogOptions {
    LogOptions {
        file_bytes: 16 << 10,
        snapshot_bytes: 16 << 10,
        background: false,
        disk_floor_bytes: Some(0),
        ballast_bytes: 0,
        ..LogOptions::default()
    }
}

fn open(env: &Env) -> Log {
    Log::open(env, Path::new("/data"), options()).expect("the log opens")
}

fn request(dice: &mut Dice, to: Option<Position>) -> Request {
    let checkpoints = often(500 + dice.below(6_000));
    match to {
        Some(to) => Request { to: Some(Point::Position(to)), bounded: true, checkpoints, ..Request::default() },
        None => Request { checkpoints, ..bounded(1) },
    }
}

/// In parts, with sealing and restarts between them, to the end.
fn work(env: &Env, dice: &mut Dice) {
    let mut log = open(env);
    let job = job(None);
    for part in 1..4u64 {
        let to = Position(ROWS as u64 * part / 4);
        job::run(&log, &job, &request(dice, Some(to)), &mut Silent).expect("a part of the run");
        if dice.below(3) > 0 {
            log.keep().expect("sealed");
        }
        if dice.below(2) == 0 {
            log.close().expect("closed");
            log = open(env);
        }
    }
    job::run(&log, &job, &request(dice, None), &mut Silent).expect("the rest of the run");
    log.close().expect("closed");
}

pub(crate) fn shape(disk: &SimDisk, dice: &mut Dice) -> Crash {
    let pending = disk.pending() as u64 + 1;
    let mut index = |below: u64| usize::try_from(dice.below(below)).expect("small");
    match index(9) {
        0 => Crash::Nothing,
        1 => Crash::All,
        2 => Crash::Prefix(index(pending)),
        3 => Crash::Without(index(pending)),
        4 => Crash::Torn(index(4_096)),
        5 => Crash::Sectors(u8::try_from(index(256)).expect("a byte")),
        6 => Crash::Grown,
        7 => Crash::Names,
        _ => Crash::Contents,
    }
}

/// Goes on after a cut, to the end: the output must be `expected`. Gives the moments of that.
fn go_on(sim: &Sim, disk: &SimDisk, expected: &[(String, Vec<String>)], what: &str, dice: &mut Dice) -> Watched {
    let crash = shape(disk, dice);
    let what = format!("{what}, {crash:?}");
    let sim = sim.with_disk(disk.crash(crash));
    let watched = Watched::new(&sim, dice.below(u64::MAX));
    let env = Env { disk: Arc::new(watched.clone()), ..sim.env() };
    let log = open(&env);
    let job = job(None);
    if let Err(e) = job::run(&log, &job, &request(dice, None), &mut Silent) {
        panic!("{what}: {e}");
    }
    assert_eq!(first_difference(&output(&log, &job), expected), None, "{what}");
    log.close().expect("closed");
    watched
}

/// Crashes of one seed's run, counted by point.
fn crashes(seed: u64, points: &mut BTreeMap<String, u64>) {
    let (env, sim) = Env::sim(seed);
    let mut dice = Dice::new(seed);
    let log = open(&env);
    append(&log, &sim, &input(seed, ROWS), 24);
    log.close().expect("closed");
    let plain = sim.with_disk(sim.disk.copy());
    let log = open(&plain.env());
    job::run(&log, &job(None), &bounded(1), &mut Silent).expect("the run without a crash");
    let expected = output(&log, &job(None));
    log.close().expect("closed");
    let watched = Watched::new(&sim, seed);
    work(&Env { disk: Arc::new(watched.clone()), ..env }, &mut dice);
    for (point, disk) in watched.take() {
        let what = format!("seed {seed}, {point}");
        let again = go_on(&sim, &disk, &expected, &what, &mut dice).take();
        // What goes on crashes as well, at one of its own points.
        let nth = usize::try_from(dice.below(again.len() as u64 * 5)).expect("small");
        if let Some((inner, disk)) = again.into_iter().nth(nth) {
            go_on(&sim, &disk, &expected, &format!("{what}, then {inner}"), &mut dice);
            *points.entry(format!("restoring: {inner}")).or_default() += 1;
        }
        *points.entry(point).or_default() += 1;
    }
}

#[test]
fn a_crash_at_any_named_point_leaves_the_same_output() {
    let seeds = if std::env::var_os("KAPPA_LONG").is_some() { 1_000 } else { 100 };
    let lanes: Vec<_> = (0..2u64)
        .map(|lane| {
            std::thread::spawn(move || {
                let mut points = BTreeMap::new();
                (1..=seeds).filter(|seed| seed % 2 == lane).for_each(|seed| crashes(seed, &mut points));
                points
            })
        })
        .collect();
    let mut points: BTreeMap<String, u64> = BTreeMap::new();
    for lane in lanes {
        for (point, times) in lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            *points.entry(point).or_default() += times;
        }
    }
    let often = points.values().filter(|times| **times >= seeds * 9 / 10).count();
    let crashes: u64 = points.values().sum();
    tell(&format!("{crashes} crashes at {} points, {often} of them with nearly every seed", points.len()));
    assert!(often >= 15, "{points:#?}");
}

fn submit(log: &Log) -> kappa::Result<Submitted> {
    let (name, file, sql) = ("taken".to_owned(), "laws.sql".to_owned(), SQL.to_owned());
    let to = Some(format!("position:{ROWS}"));
    registry::submit(log, FunctionRegistry::none(), Submission { name, file, sql, to, ..Submission::default() })
}

/// Notes of a run.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn on_note(&mut self, note: &str) {
        self.0.push(note.to_owned());
    }
    fn should_stop(&self) -> bool {
        false
    }
}

/// The power goes at each step of a job's taking over the run by hand of its file: all of the run is the job's then, or nothing, and both go
/// on from its checkpoint.
#[test]
fn a_crash_while_a_job_takes_a_run_over_leaves_one_of_them() {
    let (mut by_hand, mut taken) = (0, 0);
    for seed in 1..=8 {
        let (env, sim) = Env::sim(seed);
        let mut dice = Dice::new(seed);
        let log = open(&env);
        append(&log, &sim, &input(seed, ROWS), 24);
        let part = |part: u64| Some(Point::Position(Position(ROWS as u64 * part / 4)));
        let held = Request { to: part(3), bounded: true, checkpoints: often(2_000), ..Request::default() };
        job::run(&log, &job(None), &held, &mut Silent).expect("the run by hand");
        job::run(&log, &job(Some("whole")), &Request { to: part(4), ..bounded(1) }, &mut Silent).expect("all of it");
        let expected = output(&log, &job(Some("whole")));
        log.close().expect("closed");
        let watched = Watched::new(&sim, seed);
        let log = open(&Env { disk: Arc::new(watched.clone()), ..env });
        assert_eq!(submit(&log).expect("taken over"), Submitted::Adopted(1, "laws".into()));
        log.close().expect("closed");
        for (point, disk) in watched.take() {
            let crash = shape(&disk, &mut dice);
            let what = format!("seed {seed}, {point}, {crash:?}");
            let log = open(&sim.with_disk(disk.crash(crash)).env());
            let has_run = job::progress(&log, "laws").expect("decodes").is_some();
            match registry::find(&log, "taken").expect("decodes") {
                None => {
                    by_hand += 1;
                    assert!(has_run, "{what}");
                    assert_eq!(submit(&log).expect("taken over"), Submitted::Adopted(1, "laws".into()), "{what}");
                }
                Some(_) => {
                    taken += 1;
                    assert!(!has_run, "{what}");
                }
            }
            let registered = registry::get(&log, "taken").expect("the job");
            let job = registered.job(1, FunctionRegistry::none()).expect("a plan");
            let request = job::request_of(&log, &job, &registered.versions[0]).expect("a request");
            let runs = job::runs(&log).expect("decode").into_iter();
            let outputs = runs.filter(|(key, _)| *key == job.key()).map(|(_, run)| run.outputs).next();
            let mut notes = Notes::default();
            let report = job::run(&log, &job, &request, &mut notes).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(outputs.as_ref(), Some(&report.record.outputs), "{what}");
            assert!(
                matches!(&notes.0[..], [note] if note.contains("going on from checkpoint")),
                "{what}: {:?}",
                notes.0
            );
            assert_eq!(first_difference(&output(&log, &self::job(None)), &expected), None, "{what}");
            let verified = job::verify(&log, &job, &VerifyRequest::default(), &mut Silent).expect("verified");
            assert!(verified.differences.is_empty(), "{what}: {:?}", verified.differences);
            log.close().expect("closed");
        }
    }
    tell(&format!("the run was the user's after {by_hand} crashes, the job's after {taken}"));
    assert!(by_hand > 80 && taken > 15, "{by_hand}, {taken}");
}
