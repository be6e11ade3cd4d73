//! The first version of a submitted job goes on with a run by hand: what `kappa run` of the same file has written becomes the version's,
//! with its progress and its checkpoints.

use super::record::{Decision, RunRecord, decide};
use super::registry::{JobVersion, owner};
use super::run::{forgotten, identity, refused, run_meta};
use super::supervise::request_of;
use super::{Job, checkpoint, progress, runs};
use crate::error::Result;
use crate::log::{Claim, Log, MetaRecord, MetaSpace};

const RESTART: &str = "`--restart` removes what it wrote and starts anew";

/// A run that a version goes on with, once [`Adopted::records`] are durable.
pub(super) struct Adopted {
    /// What it was known by.
    pub run: String,
    /// What makes it the version's. To be written in one frame with the version.
    pub records: Vec<MetaRecord>,
    _claim: Claim,
}

/// The run by hand that has written the outputs of a job which is submitted for the first time; `None`: there is none. `job` is the first
/// version, `written` the same where it writes. The caller is [deciding](Log::deciding): a run by hand is claimed without waiting.
///
/// # Errors
/// `Conflict` when the version would not go on with that run, with the reason; `Unavailable` while somebody works with it, and those of
/// writing its checkpoints again.
pub(super) fn adopt(log: &Log, job: &Job, written: &Job, version: &JobVersion) -> Result<Option<Adopted>> {
    let outputs = written.output_topics();
    let is_on_outputs = |(_, run): &(String, RunRecord)| run.outputs.iter().any(|topic| outputs.contains(topic));
    let Some((run, record)) = runs(log)?.into_iter().find(is_on_outputs) else { return Ok(None) };
    if owner(log, &run)?.is_some() {
        return Ok(None);
    }
    let refuse = |why: &str, hint: &str| Err(refused(&run, &record, why).with_hint(hint));
    if record.plan_digest != job.plan.digest {
        let hint = "submit the file that ran first, then this one: it becomes v2 beside it; ".to_owned() + RESTART;
        return refuse("its SQL computes something else", &hint);
    }
    if record.outputs != outputs {
        return refuse("it writes other topics than this job", RESTART);
    }
    let claim = log.claim(&run, "`kappa job submit`", || false)?;
    let so_far = progress(log, &run)?;
    let recorded = Some((&record, so_far.as_ref()));
    let (asked, _) = identity(log, job, &request_of(log, job, version)?, recorded, outputs.clone())?;
    match decide(recorded, &asked) {
        Decision::Refuse(why) if record.starts != asked.starts => {
            refuse(&why, &("without `--from` the job goes on with it; ".to_owned() + RESTART))
        }
        Decision::Refuse(why) => refuse(&why, RESTART),
        _ => {
            // While it is live, a version writes the outputs' own names beside its own.
            let outputs = [job.output_topics(), outputs].concat();
            let records = renamed(log, &run, RunRecord { outputs, ..record }, job)?;
            Ok(Some(Adopted { run, records, _claim: claim }))
        }
    }
}

/// The records that make a run a job's, of which none is left then. Its checkpoints are written again for the job.
fn renamed(log: &Log, run: &str, record: RunRecord, job: &Job) -> Result<Vec<MetaRecord>> {
    let moved = |space| Some(MetaRecord { space, key: job.key(), value: Some(log.meta(space, run)?) });
    let mut records = vec![run_meta(job, Some(&record))?];
    records.extend([MetaSpace::Progress, MetaSpace::Spans].into_iter().filter_map(moved));
    records.extend(checkpoint::copy(log, run, &job.key())?);
    records.extend(forgotten(log, run));
    Ok(records)
}
