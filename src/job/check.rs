//! Checks of a job: queries over what it has read and written whose rows are failures. Each is computed like any job, from the start of
//! its tables to the end that the log has now, and nothing is written.

use super::Job;
use super::drive::{Begin, Drive, DriveOptions, Observer, Sink};
use crate::engine::plan::JobPlan;
use crate::engine::{OutputBatch, OutputStream};
use crate::error::Result;
use crate::log::Log;
use crate::sql::{CheckPlan, Severity};
use crate::types::{AppendTime, Position};
use std::sync::Arc;

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Its name.
    pub name: String,
    /// What it means when it fails.
    pub severity: Severity,
    /// Rows that the query gave, and rows that it could not be computed for.
    pub failures: u64,
    /// The first of them, as JSON; of those that it could not be computed for there is nothing to show.
    pub sample: Vec<String>,
}

impl CheckResult {
    /// Whether what was checked must not go on.
    pub fn blocks(&self) -> bool {
        self.failures > 0 && self.severity == Severity::Block
    }
}

/// Keeps the first rows and counts all.
struct Failures {
    failures: u64,
    sample: Vec<String>,
    most: usize,
}

impl Sink for Failures {
    fn take(&mut self, batches: Vec<OutputBatch>, _: Position, _: AppendTime) -> Result<()> {
        for batch in batches.into_iter().filter(|batch| batch.stream != OutputStream::Late) {
            self.failures += batch.records.len() as u64;
            if batch.stream == OutputStream::Main {
                let room = self.most.saturating_sub(self.sample.len());
                let values = (0..batch.records.len()).take(room).filter_map(|row| batch.records.values.get(row));
                self.sample.extend(values.map(|value| String::from_utf8_lossy(value).into_owned()));
            }
        }
        Ok(())
    }
}

/// The query of a check over what the job reads and writes.
pub(super) fn over(job: &Job, check: &CheckPlan) -> JobPlan {
    let mut plan = check.plan.clone();
    for source in &mut plan.sources {
        let written = job.plan.outputs.iter().find(|output| output.topic.as_ref() == Some(&source.topic));
        if let Some(topic) = written.and_then(|output| job.output_topic(output)) {
            source.topic = topic;
        }
    }
    plan
}

/// Runs the checks of a job's file over its sources and over the outputs of its version. `sample` rows of each are shown.
///
/// # Errors
/// `NotFound` for a topic that is not there, and those of reading.
pub fn checks(
    log: &Log,
    job: &Job,
    checks: &[CheckPlan],
    sample: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<CheckResult>> {
    let end = log.durable_end();
    let run = |check: &CheckPlan| {
        let plan = over(job, check);
        let starts = vec![0; plan.sources.len()];
        let name = format!("{}.{}", job.name, check.name);
        let query = Job { plan: Arc::new(plan), name, version: None };
        let mut failures = Failures { failures: 0, sample: Vec::new(), most: sample };
        let mut drive = Drive::with(log, &query, &starts, DriveOptions::default(), Begin::Start)?;
        drive.feed(end, Some(end), &mut failures, observer)?;
        drive.flush(&mut failures)?;
        let Failures { failures, sample, .. } = failures;
        Ok(CheckResult { name: check.name.clone(), severity: check.severity, failures, sample })
    };
    checks.iter().map(run).collect()
}
