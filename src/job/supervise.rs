//! `kappa up`: every running version of every registered job on a thread of its own, through the one loop, until told to stop.

use super::bounds::parse_point;
use super::live_checks::Watched;
use super::registry::{self, JobVersion, Registered, VersionState, begins_like, version_run};
use super::runner::{Runner, reason};
use super::{Job, Request};
use crate::engine::functions::FunctionRegistry;
use crate::env::thread::Class;
use crate::error::{ErrorKind, Result};
use crate::log::{Claim, Log, MetaSpace};
use crate::state::spill::Budget;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    let from = version.from.as_deref().filter(|_| is_new);
    let begin_like = from.and_then(begins_like);
    Ok(Request {
        from: from.filter(|_| begin_like.is_none()).map(parse_point).transpose()?,
        begin_like: begin_like.map(str::to_owned),
        to: version.to.as_deref().map(parse_point).transpose()?,
        bounded: version.to.is_some(),
        flush: version.to.is_some(),
        publish_from_ms: version.publish_from_ms,
        rate_max: version.rate_max,
        ..Request::default()
    })
}

/// A version that runs.
struct Version {
    runner: Runner,
    is_bounded: bool,
    /// Of the live version.
    checks: Watched,
}

fn start(
    log: &Log,
    functions: &FunctionRegistry,
    budget: &Arc<Budget>,
    registered: &Registered,
    version: &JobVersion,
    claim: Claim,
) -> Result<Version> {
    let job = registered.job(version.number, functions)?;
    let request = Request { budget: Some(Arc::clone(budget)), ..request_of(log, &job, version)? };
    let (is_bounded, is_live) = (request.bounded, registered.live == version.number);
    let checks = if is_live { Watched::of(registered, functions)? } else { Watched::default() };
    // The live versions go first.
    let class = if is_live { Class::Foreground } else { Class::Bulk };
    Ok(Version { runner: Runner::start(log, job, request, class, claim)?, is_bounded, checks })
}

struct Supervisor<'a> {
    log: &'a Log,
    functions: &'a FunctionRegistry,
    /// All of them share it.
    budget: Arc<Budget>,
    versions: BTreeMap<(String, u32), Version>,
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
        for (key, version) in &mut self.versions {
            let mut say = |what: &str| watch.on_event(&format!("{} {}: {what}", key.0, registry::label(key.1)));
            version.runner.take_notes().iter().for_each(|note| say(note));
            version.checks.look(self.log, &self.budget, &mut say);
            if !wanted.contains(key) {
                version.runner.stop();
            }
        }
        let over = self.versions.iter().filter(|(_, version)| version.runner.is_over());
        let ended: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.ended(&key, watch)?;
            wanted.remove(&key);
        }
        self.is_waiting = false;
        for key in wanted.into_iter().filter(|key| !self.versions.contains_key(key)).collect::<Vec<_>>() {
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
            Ok(started) => {
                let role = if registered.live == version.number { "live" } else { "beside the live version" };
                watch.on_event(&format!("{} {}: running, {role}", key.0, version.label()));
                self.versions.insert(key, started);
                Ok(())
            }
            Err(e) => self.set(&key, VersionState::Failed(reason(&e)), watch),
        }
    }

    /// Takes note of a thread that has ended.
    fn ended(&mut self, key: &(String, u32), watch: &mut dyn Watch) -> Result<()> {
        let Some(version) = self.versions.remove(key) else { return Ok(()) };
        version.checks.end();
        match version.runner.join() {
            Ok(true) if version.is_bounded => self.set(key, VersionState::Complete, watch),
            Ok(_) => {
                watch.on_event(&format!("{} {}: at rest", key.0, registry::label(key.1)));
                Ok(())
            }
            Err(why) => self.set(key, VersionState::Failed(why), watch),
        }
    }

    fn is_idle(&self) -> bool {
        let end = self.log.durable_end();
        let has_read = |version: &Version| version.runner.has_read(end) && version.checks.has_read(end);
        !self.is_waiting && self.versions.values().all(has_read)
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
    let mut supervisor = Supervisor { log, functions, budget, versions: BTreeMap::new(), is_waiting: false };
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
    supervisor.versions.values().for_each(|version| version.runner.stop());
    let keys: Vec<_> = supervisor.versions.keys().cloned().collect();
    for key in keys {
        let ended = supervisor.ended(&key, watch);
        outcome = outcome.and(ended);
    }
    outcome
}
