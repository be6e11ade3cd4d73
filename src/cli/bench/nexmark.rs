//! Nexmark's queries over events that are made once: each run is bounded, from the journal and from history.

use super::replay::open;
use super::{Series, machine, timed};
use crate::cli::bench_args::NexmarkQuery;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::cli::talk;
use crate::connect::generated::{self, Pace, Watch};
use crate::engine::{Engine, EngineOptions};
use crate::env::Env;
use crate::error::Result;
use crate::generate::nexmark::{NexmarkEvents, NexmarkOptions};
use crate::job::{self, Job, Point, Request, Silent};
use crate::log::{Log, TopicConfig};
use crate::types::Position;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

pub(super) struct Setup {
    pub rounds: u32,
    pub events: u64,
    /// `None`: all that run.
    pub queries: Option<Vec<NexmarkQuery>>,
    pub threads: usize,
}

/// The queries and their SQL.
fn sql(query: NexmarkQuery) -> (&'static str, &'static str) {
    use NexmarkQuery as Q;
    match query {
        Q::Q0 => ("q0", include_str!("../../../benches/nexmark/q0.sql")),
        Q::Q1 => ("q1", include_str!("../../../benches/nexmark/q1.sql")),
        Q::Q2 => ("q2", include_str!("../../../benches/nexmark/q2.sql")),
        Q::Q5 => ("q5", include_str!("../../../benches/nexmark/q5.sql")),
        Q::Q7 => ("q7", include_str!("../../../benches/nexmark/q7.sql")),
        Q::Q11 => ("q11", include_str!("../../../benches/nexmark/q11.sql")),
        Q::Q12 => ("q12", include_str!("../../../benches/nexmark/q12.sql")),
        Q::Q14 => ("q14", include_str!("../../../benches/nexmark/q14.sql")),
        Q::Q21 => ("q21", include_str!("../../../benches/nexmark/q21.sql")),
        Q::Q22 => ("q22", include_str!("../../../benches/nexmark/q22.sql")),
    }
}

fn job_of(query: NexmarkQuery) -> Result<Job> {
    let (name, text) = sql(query);
    let plan = crate::sql::plan(&format!("{name}.sql"), text)?;
    Ok(Job { plan: Arc::new(plan), name: name.to_owned(), version: None })
}

/// The queries that were asked for; of all of them, those that the engine takes.
fn jobs(queries: Option<&[NexmarkQuery]>) -> Result<Vec<Job>> {
    let runs =
        |job: &Job| Engine::new(Arc::clone(&job.plan), vec![1; job.plan.sources.len()], EngineOptions::default());
    let mut jobs = Vec::new();
    for query in queries.unwrap_or(<NexmarkQuery as clap::ValueEnum>::value_variants()) {
        let job = job_of(*query)?;
        match runs(&job) {
            Err(e) if queries.is_none() => talk(&format!("{} is left out: {e}", job.name)),
            Err(e) => return Err(e.context(&job.name)),
            Ok(_) => jobs.push(job),
        }
    }
    Ok(jobs)
}

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let jobs = jobs(setup.queries.as_deref())?;
    let (journal, history) = (open(env, &dir.join("journal"))?, open(env, &dir.join("history"))?);
    for log in [&journal, &history] {
        fill(log, setup.events, jobs.first())?;
    }
    history.keep()?;
    let logs = [("journal", &journal), ("history", &history)];
    let mut measured: Vec<Measured> =
        jobs.iter().flat_map(|job| logs.map(|(from, log)| Measured::new(job, from, log))).collect();
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        for one in &mut measured {
            let request =
                Request { bounded: true, flush: true, restart: true, threads: setup.threads, ..Request::default() };
            let (seconds, report) = timed(env, || job::run(one.log, one.job, &request, &mut Silent))?;
            one.rate.values.push(setup.events as f64 / seconds);
            one.rows = report.counters.rows_out.iter().sum();
        }
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    show(env, printer, &measured)?;
    drop(measured);
    journal.close()?;
    history.close()
}

/// One query from one place.
struct Measured<'a> {
    job: &'a Job,
    from: &'static str,
    log: &'a Log,
    rate: Series,
    rows: u64,
}

impl<'a> Measured<'a> {
    fn new(job: &'a Job, from: &'static str, log: &'a Log) -> Measured<'a> {
        Measured { job, from, log, rate: Series::new("bounded run", "events/s"), rows: 0 }
    }
}

struct Bar(Progress);

impl Watch for Bar {
    fn on_progress(&mut self, events: u64) {
        self.0.at(events);
    }

    fn should_stop(&mut self) -> bool {
        false
    }
}

fn fill(log: &Log, events: u64, job: Option<&Job>) -> Result<()> {
    let topic = log.create_topic("nexmark", TopicConfig::default())?;
    if let Some(job) = job {
        // The log knows a topic's columns from the first job that reads it, here one that ends where it starts.
        let request = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
        job::run(log, job, &request, &mut Silent)?;
    }
    let mut bar = Bar(Progress::new("writing events", Some(events), "events"));
    let mut maker = NexmarkEvents::new(NexmarkOptions::default());
    generated::into_topic(log, &topic, &mut maker, &Pace { events, per_s: None }, &mut bar).map(drop)
}

fn show(env: &Env, printer: &Printer, measured: &[Measured<'_>]) -> Result<()> {
    let machine = machine(env);
    let mut columns = vec!["query", "from", "unit", "median", "min", "max", "rounds", "rows_out"];
    if printer.is_table() {
        talk(&format!("on {machine}"));
    } else {
        columns.push("machine");
    }
    let row = |one: &Measured<'_>| {
        let mut row: Vec<Value> = vec![json!(one.job.name), json!(one.from)];
        row.extend(one.rate.row().into_iter().skip(1));
        row.push(json!(one.rows));
        if !printer.is_table() {
            row.push(json!(machine));
        }
        row
    };
    printer.table(&columns, &measured.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_query_plans_under_its_own_name() {
        for query in NexmarkQuery::value_variants() {
            let job = job_of(*query).unwrap_or_else(|e| panic!("{query:?}: {e}"));
            let name = query.to_possible_value().expect("a name").get_name().to_owned();
            assert_eq!((&job.name, &job.plan.outputs[0].table), (&name, &name));
            assert_eq!(job.plan.sources[0].topic, "nexmark");
        }
        assert!(jobs(None).expect("some run").len() >= 7);
    }
}
