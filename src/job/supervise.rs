//! `kappa up`: every running version of every registered job on a thread of its own, through the one loop, until told to stop.

use super::bounds::parse_point;
use super::registry::{self, JobVersion, Registered, VersionState, version_run};
use super::{Job, Observer, Request, run_claimed};
use crate::engine::Engine;
use crate::engine::functions::FunctionRegistry;
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Claim, Log, MetaSpace};
use crate::state::spill::Budget;
use crate::types::Position;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Between two looks at what should run, in microseconds.
const LOOK_US: u64 = 50_000;

/// Looks in a row at which everything must rest before it counts as idle.
const IDLE_LOOKS: u32 = 3;

/// What the one who runs jobs wants to know, and may want.
pub trait Watch {
    /// Something happened, in one line.
    fn on_event(&mut self, event: &str);
    /// True ends it.
    fn should_stop(&self) -> bool;
}

/// What a version is asked to do, given what the log remembers of it.
pub fn request_of(log: &Log, job: &Job, version: &JobVersion) -> Result<Request> {
    // What a start means (`latest`, a time) was found out when it first ran.
    let is_new = log.meta(MetaSpace::Run, &job.key()).is_none();
    Ok(Request {
        from: version.from.as_deref().filter(|_| is_new).map(parse_point).transpose()?,
        to: version.to.as_deref().map(parse_point).transpose()?,
        bounded: version.to.is_some(),
        flush: version.to.is_some(),
        publish_from_ms: version.publish_from_ms,
        rate_max: version.rate_max,
        ..Request::default()
    })
}

/// A version on its thread.
struct Runner {
    /// Whether it has come to its end.
    thread: JoinHandle<Result<bool>>,
    shared: Arc<Shared>,
    is_bounded: bool,
}

/// What a thread and its owner tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Everything before this position has been processed.
    idle_at: AtomicU64,
    notes: Mutex<Vec<String>>,
}

/// The thread's side.
struct Inside {
    log: Log,
    shared: Arc<Shared>,
    /// Given up as soon as somebody wants to work with the version.
    claim: Arc<Claim>,
    end_seen: Position,
}

impl Observer for Inside {
    fn on_idle(&mut self, _: &Engine) {
        // What was there when it last rested has been read since.
        self.shared.idle_at.store(self.end_seen.0, Ordering::Release);
        self.end_seen = self.log.durable_end();
    }

    fn on_note(&mut self, note: &str) {
        self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note.to_owned());
    }

    fn should_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire) || self.claim.is_wanted()
    }
}

fn start(
    log: &Log,
    functions: &FunctionRegistry,
    budget: &Arc<Budget>,
    registered: &Registered,
    version: &JobVersion,
    claim: Claim,
) -> Result<Runner> {
    let job = registered.job(version.number, functions)?;
    let request = Request { budget: Some(Arc::clone(budget)), ..request_of(log, &job, version)? };
    let is_bounded = request.bounded;
    let is_live = registered.live == version.number;
    let (shared, claim) = (Arc::new(Shared::default()), Arc::new(claim));
    let mut inside =
        Inside { log: log.clone(), shared: Arc::clone(&shared), claim: Arc::clone(&claim), end_seen: Position(0) };
    let work = move || {
        if !is_live {
            // The live versions go first.
            thread::enter(Class::Bulk);
        }
        let log = inside.log.clone();
        run_claimed(&log, &job, &request, &claim, &mut inside).map(|report| report.progress.is_final)
    };
    let thread = thread::spawn(&format!("kappa-{}-{}", registered.name, version.label()), work)
        .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?;
    Ok(Runner { thread, shared, is_bounded })
}

/// Why a run ended, in one line.
fn reason(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

struct Supervisor<'a> {
    log: &'a Log,
    functions: &'a FunctionRegistry,
    /// All of them share it.
    budget: Arc<Budget>,
    runners: BTreeMap<(String, u32), Runner>,
    /// Somebody else works with a version that should run.
    is_waiting: bool,
}

/// The versions of a job that should run.
fn running(registered: &Registered) -> impl Iterator<Item = &JobVersion> {
    registered.versions.iter().filter(|version| version.state == VersionState::Running)
}

impl Supervisor<'_> {
    fn set(&self, (name, number): &(String, u32), state: VersionState, watch: &mut dyn Watch) -> Result<()> {
        let event = match &state {
            VersionState::Failed(why) => format!("failed: {why}"),
            state => state.name().to_owned(),
        };
        watch.on_event(&format!("{name} {}: {event}", registry::label(*number)));
        match registry::set_state(self.log, name, *number, state) {
            // It was deleted meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Ends what should not run, starts what should, and takes note of what has ended by itself.
    fn look(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for registered in registry::all(self.log)? {
            wanted.extend(running(&registered).map(|version| (registered.name.clone(), version.number)));
        }
        for (key, runner) in &self.runners {
            for note in runner.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                watch.on_event(&format!("{} {}: {note}", key.0, registry::label(key.1)));
            }
            if !wanted.contains(key) {
                runner.shared.stop.store(true, Ordering::Release);
            }
        }
        let ended: Vec<_> =
            self.runners.iter().filter(|(_, runner)| runner.thread.is_finished()).map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.ended(&key, watch)?;
            wanted.remove(&key);
        }
        self.is_waiting = false;
        for key in wanted.into_iter().filter(|key| !self.runners.contains_key(key)).collect::<Vec<_>>() {
            self.try_to_start(key, watch)?;
        }
        Ok(())
    }

    /// Starts a version, unless somebody works with it.
    fn try_to_start(&mut self, key: (String, u32), watch: &mut dyn Watch) -> Result<()> {
        let Some(claim) = self.log.claim_until_wanted(&version_run(&key.0, key.1), "`kappa up`") else {
            self.is_waiting = true;
            return Ok(());
        };
        // Whoever had it may have changed it.
        let Some(registered) = registry::find(self.log, &key.0)? else { return Ok(()) };
        let Some(version) = running(&registered).find(|version| version.number == key.1) else { return Ok(()) };
        match start(self.log, self.functions, &self.budget, &registered, version, claim) {
            Ok(runner) => {
                let role = if registered.live == version.number { "live" } else { "beside the live version" };
                watch.on_event(&format!("{} {}: running, {role}", key.0, version.label()));
                self.runners.insert(key, runner);
                Ok(())
            }
            Err(e) => self.set(&key, VersionState::Failed(reason(&e)), watch),
        }
    }

    /// Takes note of a thread that has ended.
    fn ended(&mut self, key: &(String, u32), watch: &mut dyn Watch) -> Result<()> {
        let Some(runner) = self.runners.remove(key) else { return Ok(()) };
        match runner.thread.join() {
            Ok(Ok(true)) if runner.is_bounded => self.set(key, VersionState::Complete, watch),
            Ok(Ok(_)) => {
                watch.on_event(&format!("{} {}: at rest", key.0, registry::label(key.1)));
                Ok(())
            }
            Ok(Err(e)) => self.set(key, VersionState::Failed(reason(&e)), watch),
            Err(_) => self.set(key, VersionState::Failed("it panicked: this is a bug".to_owned()), watch),
        }
    }

    fn is_idle(&self) -> bool {
        let end = self.log.durable_end().0;
        !self.is_waiting && self.runners.values().all(|runner| runner.shared.idle_at.load(Ordering::Acquire) >= end)
    }
}

/// Runs the running versions of all registered jobs until `watch` wants to stop, or with `stop_when_idle` until all of them have
/// read everything; what is running goes on where it was with the next call. A job that fails is marked as failed with the
/// reason and does not concern the others. A version that somebody else wants to work with, such as [`promote`](super::promote), rests
/// until that is done.
///
/// # Errors
/// Those of writing into the log.
pub fn up(
    log: &Log,
    functions: &FunctionRegistry,
    budget: Arc<Budget>,
    stop_when_idle: bool,
    watch: &mut dyn Watch,
) -> Result<()> {
    let mut supervisor = Supervisor { log, functions, budget, runners: BTreeMap::new(), is_waiting: false };
    let mut idle_looks = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && !watch.should_stop() {
        outcome = supervisor.look(watch);
        idle_looks = if supervisor.is_idle() { idle_looks + 1 } else { 0 };
        if stop_when_idle && idle_looks >= IDLE_LOOKS {
            break;
        }
        log.env().clock.sleep_us(LOOK_US);
    }
    supervisor.runners.values().for_each(|runner| runner.shared.stop.store(true, Ordering::Release));
    let keys: Vec<_> = supervisor.runners.keys().cloned().collect();
    for key in keys {
        let ended = supervisor.ended(&key, watch);
        outcome = outcome.and(ended);
    }
    outcome
}
