//! The checks of a live version, along with it: each is a run of its own over what the version reads and writes while it is live, and its
//! rows, the failures, are in the topic `<job>.checks.<check>.vN`.

use super::check::over;
use super::record::RunRecord;
use super::registry::{Registered, label};
use super::runner::{Runner, reason};
use super::{Job, Point, Request, progress};
use crate::engine::functions::FunctionRegistry;
use crate::env::thread::Class;
use crate::error::Result;
use crate::log::{Log, MetaSpace};
use crate::sql::{self, Severity};
use crate::state::spill::Budget;
use crate::types::Position;
use std::sync::Arc;

/// How a check of a live version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCheck {
    /// Its name.
    pub name: String,
    /// What it means when it fails.
    pub severity: Severity,
    /// Rows that the query has given so far, and rows that it could not be computed for.
    pub failures: u64,
    /// The topic that they are in.
    pub topic: String,
}

/// A check as a run.
struct Planned {
    name: String,
    severity: Severity,
    job: Job,
    /// The user knows that it fails.
    is_told: bool,
}

/// What the names of the runs of a job's checks begin with.
fn prefix(job: &str) -> String {
    format!("{job}.checks.")
}

/// Whether a run is that of a check of one of these versions.
pub(super) fn is_of(key: &str, job: &str, versions: &[u32]) -> bool {
    let check = key.strip_prefix(&prefix(job));
    check.is_some_and(|check| versions.iter().any(|number| check.ends_with(&format!(".{}", label(*number)))))
}

fn planned(registered: &Registered, functions: &FunctionRegistry) -> Result<Vec<Planned>> {
    let version = registered.version(registered.live)?;
    let live = registered.job(registered.live, functions)?.base();
    let planned = |check: sql::CheckPlan| {
        let mut plan = over(&live, &check);
        let name = format!("{}{}", prefix(&registered.name), check.name);
        for output in &mut plan.outputs {
            (output.topic, output.is_select) = (Some(name.clone()), false);
        }
        let job = Job { plan: Arc::new(plan), name, version: Some(version.label()) };
        Planned { name: check.name, severity: check.severity, job, is_told: false }
    };
    Ok(sql::checks_with(&version.file, &version.sql, functions)?.into_iter().map(planned).collect())
}

impl Planned {
    fn failures(&self, log: &Log) -> Result<u64> {
        let progress = progress(log, &self.job.key())?;
        // Main and rejected; late rows are no failures.
        Ok(progress.map_or(0, |progress| progress.streams.iter().step_by(2).map(|stream| stream.rows).sum()))
    }

    /// Says once that it fails.
    fn tell(&mut self, log: &Log, say: &mut dyn FnMut(&str)) -> Result<(), String> {
        if !self.is_told && self.failures(log).map_err(|e| reason(&e))? > 0 {
            self.is_told = true;
            say(&format!("check {} ({}) fails, see '{}'", self.name, self.severity.name(), self.job.key()));
        }
        Ok(())
    }
}

/// How the checks of the live version stand.
pub fn live_checks(log: &Log, registered: &Registered, functions: &FunctionRegistry) -> Result<Vec<LiveCheck>> {
    let state = |planned: Planned| {
        let (failures, topic) = (planned.failures(log)?, planned.job.key());
        Ok(LiveCheck { name: planned.name, severity: planned.severity, failures, topic })
    };
    planned(registered, functions)?.into_iter().map(state).collect()
}

/// The checks that run along with a live version.
#[derive(Default)]
pub(super) struct Watched {
    checks: Vec<(Planned, State)>,
    /// From where on the version is live.
    since: Position,
}

enum State {
    Waiting,
    Running(Runner),
    /// It could not be computed.
    Failed,
}

impl Watched {
    /// Those of the live version.
    pub fn of(registered: &Registered, functions: &FunctionRegistry) -> Result<Watched> {
        let since = registered.switches.last().map_or(0, |switch| switch.position);
        let checks = planned(registered, functions)?.into_iter().map(|planned| (planned, State::Waiting));
        Ok(Watched { checks: checks.collect(), since: Position(since) })
    }

    /// Starts what can be, and says what has failed.
    pub fn look(&mut self, log: &Log, budget: &Arc<Budget>, say: &mut dyn FnMut(&str)) {
        for (planned, state) in &mut self.checks {
            *state = match std::mem::replace(state, State::Failed) {
                State::Waiting => start(log, planned, self.since, budget),
                State::Running(runner) if runner.is_over() => runner.join().map(|_| State::Waiting),
                State::Running(runner) => planned.tell(log, say).map(|()| State::Running(runner)),
                State::Failed => Ok(State::Failed),
            }
            .unwrap_or_else(|why| {
                say(&format!("check {} cannot be computed: {why}", planned.name));
                State::Failed
            });
        }
    }

    /// True if all that can be has been computed before a position.
    pub fn has_read(&self, end: Position) -> bool {
        self.checks.iter().all(|(_, state)| match state {
            State::Waiting => false,
            State::Running(runner) => runner.has_read(end),
            State::Failed => true,
        })
    }

    /// Lets all of them rest.
    pub fn end(self) {
        let running = self.checks.into_iter().filter_map(|(_, state)| match state {
            State::Running(runner) => Some(runner),
            State::Waiting | State::Failed => None,
        });
        let running: Vec<Runner> = running.inspect(Runner::stop).collect();
        running.into_iter().for_each(|runner| drop(runner.join()));
    }
}

/// Starts a check, once there is something to be checked and nobody works with it.
fn start(log: &Log, planned: &Planned, since: Position, budget: &Arc<Budget>) -> Result<State, String> {
    let (job, key) = (planned.job.clone(), planned.job.key());
    if job.plan.sources.iter().any(|source| log.topic(&source.topic).is_err()) {
        return Ok(State::Waiting);
    }
    let Some(claim) = log.claim_until_wanted(&key, "`kappa up`") else { return Ok(State::Waiting) };
    let begun = log.meta(MetaSpace::Run, &key).map(|bytes| RunRecord::decode(&key, &bytes)).transpose();
    let begun = begun.map_err(|e| reason(&e))?;
    // The version was not live all the time, or Kappa computes the check in another way.
    let is_other =
        |run: RunRecord| run.plan_digest != job.plan.digest || run.starts.iter().any(|start| *start != since.0);
    let request = Request {
        from: Some(Point::Position(since)),
        restart: begun.is_some_and(is_other),
        budget: Some(Arc::clone(budget)),
        ..Request::default()
    };
    Runner::start(log, job, request, Class::Background, claim).map(State::Running).map_err(|e| reason(&e))
}
