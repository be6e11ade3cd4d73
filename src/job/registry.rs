//! Registered jobs: SQL files that the log itself keeps, version by version, with what is to become of each.
//!
//! In the catalog a job is its head (which version is live, and when that changed) under its name, and each version under
//! `name/number`. The live version writes the outputs' own names, every other one `<output>.vN`.

use super::adopt::{Adopted, adopt};
use super::live_checks::is_of;
use super::run::{forget, forgotten, recorded_run, refuse_foreign_outputs};
use super::{Job, STREAMS, checkpoint, declare, runs, savepoint};
use crate::engine::functions::FunctionRegistry;
use crate::engine::plan::JobPlan;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::META_VALUE_MAX;
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace};
use crate::sql;
use crate::types::check_topic_name;
use bincode::{Decode, Encode};
use std::sync::Arc;

/// What is to become of a version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum VersionState {
    /// `kappa up` runs it.
    Running,
    /// Not for now.
    Paused,
    /// No more; it cannot become the live one.
    Stopped,
    /// An error ended it: this one.
    Failed(String),
    /// It has reached the end that it was given.
    Complete,
}

impl VersionState {
    /// In one word.
    pub fn name(&self) -> &'static str {
        match self {
            VersionState::Running => "running",
            VersionState::Paused => "paused",
            VersionState::Stopped => "stopped",
            VersionState::Failed(_) => "failed",
            VersionState::Complete => "complete",
        }
    }
}

/// One version of a registered job.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JobVersion {
    /// Its number, from 1. Never used again.
    pub number: u32,
    /// The SQL file as the user named it.
    pub file: String,
    /// Its text.
    pub sql: String,
    /// Digest of its plan.
    pub plan_digest: u64,
    /// Where it starts, as typed; `None`: where the tables say. `state:RUN`: with the state that another run began from.
    pub from: Option<String>,
    /// Where it ends, as typed; `None`: it follows the log.
    pub to: Option<String>,
    /// Only windows that start at this time (ms) or later are published.
    pub publish_from_ms: Option<i64>,
    /// Records a second that it reads at most.
    pub rate_max: Option<u64>,
    /// What is to become of it.
    pub state: VersionState,
}

impl JobVersion {
    /// As users name it: `v2`.
    pub fn label(&self) -> String {
        label(self.number)
    }
}

/// In [`JobVersion::from`] in front of the key of a run that began from a state.
const STATE: &str = "state:";

/// The run from whose first state a version begins, if [`JobVersion::from`] says so.
pub(super) fn begins_like(from: &str) -> Option<&str> {
    from.strip_prefix(STATE)
}

/// As users name a version: `v2`.
pub fn label(number: u32) -> String {
    format!("v{number}")
}

/// The number in `v2`.
pub fn parse_label(text: &str) -> Result<u32> {
    let number = text.strip_prefix('v').and_then(|number| number.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| Error::input(format!("'{text}' is not a version")).with_hint("versions are v1, v2, ..."))
}

/// A moment at which another version became the live one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Switch {
    /// The version that was live.
    pub from: u32,
    /// The version that is live from then on.
    pub to: u32,
    /// Both had processed every record before this position,
    pub position: u64,
    /// and every clock step due by this append time (us).
    pub clock_us: i64,
    /// Rows that `from` had emitted, by its streams.
    pub from_rows: Vec<u64>,
    /// Rows that `to` had emitted, by its streams.
    pub to_rows: Vec<u64>,
    /// What became of each output, by `to`'s outputs.
    pub outputs: Vec<OutputSwitch>,
}

/// A change of the writer of one output.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OutputSwitch {
    /// Windows that end later are `to`'s, the others `from`'s; `None`: the output has no windows, the position alone counts.
    pub cut_ms: Option<i64>,
    /// First offset of `to`'s own rows by partition, behind those that the switch has copied: main, late, rejected.
    pub first_offsets: Vec<Vec<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Head {
    live: u32,
    /// The largest number given to a version so far.
    last: u32,
    switches: Vec<Switch>,
}

/// A registered job as it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: String,
    /// The version that writes the outputs' own names.
    pub live: u32,
    /// When that changed, in order.
    pub switches: Vec<Switch>,
    /// Its versions, by number.
    pub versions: Vec<JobVersion>,
    last: u32,
}

fn encode<T: Encode>(value: &T, what: &str) -> Result<Vec<u8>> {
    let bytes = bincode::encode_to_vec(value, bincode::config::standard().with_fixed_int_encoding())
        .map_err(|e| Error::internal(format!("cannot encode {what}")).with_source(e))?;
    if bytes.len() > META_VALUE_MAX {
        let message =
            format!("{what} takes {} bytes in the catalog, at most {META_VALUE_MAX} are allowed", bytes.len());
        return Err(Error::input(message).with_hint("split the file into several jobs"));
    }
    Ok(bytes)
}

fn decode<T: Decode<()>>(bytes: &[u8], what: &str) -> Result<T> {
    let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<META_VALUE_MAX>();
    match bincode::decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) => Err(Error::damage(format!("{what} in the catalog has bytes left over"))),
        Err(e) => Err(Error::damage(format!("{what} in the catalog does not decode")).with_source(e)),
    }
}

fn version_key(name: &str, number: u32) -> String {
    format!("{name}/{number:010}")
}

/// The key of a version's run: [`Job::key`].
pub fn version_run(name: &str, number: u32) -> String {
    format!("{name}.{}", label(number))
}

impl Registered {
    /// A version by its number.
    pub fn version(&self, number: u32) -> Result<&JobVersion> {
        let known = || self.versions.iter().map(JobVersion::label).collect::<Vec<_>>().join(", ");
        self.versions.iter().find(|version| version.number == number).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("job '{}' has no version {}", self.name, label(number)))
                .with_hint(format!("it has {}", known()))
        })
    }

    /// The number of the version that is submitted next.
    pub fn next_number(&self) -> u32 {
        self.last + 1
    }

    /// The versions that a command is about: the one that is named, or all.
    pub fn chosen(&self, version: Option<&str>) -> Result<Vec<JobVersion>> {
        match version {
            Some(version) => Ok(vec![self.version(parse_label(version)?)?.clone()]),
            None => Ok(self.versions.clone()),
        }
    }

    /// The job that a version is, planned anew from its text.
    pub fn job(&self, number: u32, functions: &FunctionRegistry) -> Result<Job> {
        let version = self.version(number)?;
        let plan = sql::plan_with(&version.file, &version.sql, functions)?;
        Ok(Job { plan: Arc::new(plan), name: self.name.clone(), version: Some(version.label()) })
    }

    /// Where a replay starts, as [`JobVersion::from`] has it: where the live version did, with the state that it began from.
    pub fn replay_from(&self, log: &Log) -> Result<Option<String>> {
        let live = version_run(&self.name, self.live);
        match checkpoint::has_base(log, &live) {
            true => Ok(Some(format!("{STATE}{live}"))),
            false => Ok(self.version(self.live)?.from.clone()),
        }
    }

    /// The records that make the log know this job with these switches.
    pub(super) fn head_record(&self) -> Result<MetaRecord> {
        let head = Head { live: self.live, last: self.last, switches: self.switches.clone() };
        let value = Some(encode(&head, &format!("job '{}'", self.name))?);
        Ok(MetaRecord { space: MetaSpace::Job, key: self.name.clone(), value })
    }

    fn version_record(&self, version: &JobVersion) -> Result<MetaRecord> {
        let value = Some(encode(version, &format!("version {} of job '{}'", version.label(), self.name))?);
        Ok(MetaRecord { space: MetaSpace::Job, key: version_key(&self.name, version.number), value })
    }
}

/// The registered job of this name.
pub fn find(log: &Log, name: &str) -> Result<Option<Registered>> {
    let what = format!("job '{name}'");
    let Some(bytes) = log.meta(MetaSpace::Job, name) else { return Ok(None) };
    let Head { live, last, switches } = decode(&bytes, &what)?;
    let versions = log.meta_scan(MetaSpace::Job, &format!("{name}/"));
    let versions = versions.iter().map(|(_, bytes)| decode(bytes, &what)).collect::<Result<_>>()?;
    Ok(Some(Registered { name: name.to_owned(), live, switches, versions, last }))
}

/// The same; [`ErrorKind::NotFound`] if there is none.
pub fn get(log: &Log, name: &str) -> Result<Registered> {
    find(log, name)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no job '{name}'"))
            .with_hint("`kappa job list` shows the jobs there are, `kappa job submit FILE.sql` makes one")
    })
}

/// All registered jobs, by name.
pub fn all(log: &Log) -> Result<Vec<Registered>> {
    let heads = log.meta_scan(MetaSpace::Job, "").into_iter().filter(|(key, _)| !key.contains('/'));
    heads.filter_map(|(name, _)| find(log, &name).transpose()).collect()
}

/// What is submitted: a version without its number.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// Name of the job.
    pub name: String,
    /// The SQL file as the user named it.
    pub file: String,
    /// Its text.
    pub sql: String,
    /// As in [`JobVersion`].
    pub from: Option<String>,
    /// As in [`JobVersion`].
    pub to: Option<String>,
    /// As in [`JobVersion`].
    pub publish_from_ms: Option<i64>,
    /// As in [`JobVersion`].
    pub rate_max: Option<u64>,
    /// A new version also where one computes the same.
    pub is_again: bool,
    /// Forget an earlier run on the same outputs, with what it wrote.
    pub restart: bool,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// This version is new.
    New(u32),
    /// The job is new, and its first version goes on with what this run by hand has written.
    Adopted(u32, String),
    /// This version computes the same; nothing was written.
    Same(u32),
}

impl Submitted {
    /// The version.
    pub fn number(&self) -> u32 {
        match self {
            Submitted::New(number) | Submitted::Adopted(number, _) | Submitted::Same(number) => *number,
        }
    }
}

impl Registered {
    fn named(log: &Log, name: &str) -> Result<Registered> {
        let fresh =
            || Registered { name: name.to_owned(), live: 1, switches: Vec::new(), versions: Vec::new(), last: 0 };
        Ok(find(log, name)?.unwrap_or_else(fresh))
    }

    /// The version that is submitted next, and where it writes.
    fn next(&self, plan: &Arc<JobPlan>) -> (Job, Job) {
        let job = Job { plan: Arc::clone(plan), name: self.name.clone(), version: Some(label(self.next_number())) };
        let written = if self.versions.is_empty() { job.base() } else { job.clone() };
        (job, written)
    }

    /// The version that computes the same as a submission, unless it is to be one of its own.
    fn same(&self, submission: &Submission, plan: &JobPlan) -> Option<u32> {
        let same = self.versions.iter().rev().find(|version| version.plan_digest == plan.digest);
        same.filter(|_| !submission.is_again).map(|same| same.number)
    }
}

/// The version of a submitted job whose run has this key.
pub fn owner(log: &Log, key: &str) -> Result<Option<(String, u32)>> {
    let Some((name, version)) = key.rsplit_once('.') else { return Ok(None) };
    let (Ok(number), Some(registered)) = (parse_label(version), find(log, name)?) else { return Ok(None) };
    let is_known = registered.versions.iter().any(|version| version.number == number);
    Ok(is_known.then(|| (name.to_owned(), number)))
}

/// The plan of a submission, which can run as a registered job.
fn planned(functions: &FunctionRegistry, submission: &Submission) -> Result<Arc<JobPlan>> {
    check_topic_name(&submission.name).map_err(|why| Error::input(format!("job '{}': {why}", submission.name)))?;
    let plan = sql::plan_with(&submission.file, &submission.sql, functions)?;
    if let Some(source) = plan.sources.iter().find(|source| source.ingest.is_some()) {
        let message = format!("table {} reads a file, and a registered job reads topics", source.table);
        return Err(
            Error::input(message).with_hint("declare it 'connector' = 'kappa' and feed it with `kappa produce`")
        );
    }
    Ok(Arc::new(plan))
}

/// A new version does not go on with a run by hand that was given its name.
fn refuse_own_run(log: &Log, job: &Job) -> Result<()> {
    match log.meta(MetaSpace::Run, &job.key()) {
        None => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::Conflict,
            format!("there is a run by hand of this version's name, '{}'", job.key()),
        )
        .with_hint("`--restart` removes what it wrote; a job of another `--name` leaves it")),
    }
}

/// Registers a job, or a new version of one beside those that it has. It runs with `kappa up`. A new job whose outputs a run by hand of the
/// same file has written goes on with that run: its rows, its progress and its checkpoints are the first version's from then on.
///
/// # Errors
/// `Input` for what cannot run as a registered job, `Conflict` when somebody else writes its outputs, `Unavailable` when somebody works
/// with the run that it would go on with, or that a restart would forget.
pub fn submit(log: &Log, functions: &FunctionRegistry, submission: Submission) -> Result<Submitted> {
    let plan = planned(functions, &submission)?;
    if submission.restart {
        let registered = Registered::named(log, &submission.name)?;
        if registered.same(&submission, &plan).is_none() {
            let (job, written) = registered.next(&plan);
            for old in [&written, &job] {
                let _claim = log.claim(&old.key(), "`kappa job submit --restart`", || false)?;
                forget(log, old)?;
            }
        }
    }
    let _deciding = log.deciding();
    let mut registered = Registered::named(log, &submission.name)?;
    if let Some(same) = registered.same(&submission, &plan) {
        return Ok(Submitted::Same(same));
    }
    let (job, written) = registered.next(&plan);
    let number = registered.next_number();
    if let Some(of) = submission.from.as_deref().and_then(begins_like) {
        savepoint::check_like(log, &job, of)?;
    }
    let version = JobVersion {
        number,
        file: submission.file,
        sql: submission.sql,
        plan_digest: plan.digest,
        from: submission.from,
        to: submission.to,
        publish_from_ms: submission.publish_from_ms,
        rate_max: submission.rate_max,
        state: VersionState::Running,
    };
    written.check()?;
    refuse_own_run(log, &job)?;
    let is_first = registered.versions.is_empty();
    let adopted = if is_first { adopt(log, &job, &written, &version)? } else { None };
    if adopted.is_none() {
        recorded_run(log, &job.key(), &written.output_topics())?;
        refuse_foreign_outputs(log, &written.output_topics())?;
    }
    registered.last = number;
    if is_first {
        registered.live = number;
    }
    let mut meta = vec![registered.head_record()?, registered.version_record(&version)?];
    meta.extend(adopted.iter().flat_map(|adopted| adopted.records.clone()));
    // Known from now on, so that what is sealed before the first run has its columns too.
    meta.extend(declare::news(log, &job, is_first));
    log.append_wait(AppendBatch::meta(meta))?;
    Ok(match adopted {
        Some(Adopted { run, .. }) => {
            checkpoint::remove(log, &run);
            Submitted::Adopted(number, run)
        }
        None => Submitted::New(number),
    })
}

/// Says what is to become of a version.
pub fn set_state(log: &Log, name: &str, number: u32, state: VersionState) -> Result<()> {
    let _deciding = log.deciding();
    let registered = get(log, name)?;
    let version = JobVersion { state, ..registered.version(number)?.clone() };
    log.append_wait(AppendBatch::meta(vec![registered.version_record(&version)?])).map(drop)
}

/// Deletes a job, or one version of it that is not live; with `outputs` the topics that it wrote as well. Gives their names.
///
/// # Errors
/// `NotFound`; `Conflict` for the live version while there are others; `Unavailable` while somebody works with one.
pub fn delete(
    log: &Log,
    functions: &FunctionRegistry,
    name: &str,
    version: Option<u32>,
    outputs: bool,
) -> Result<Vec<String>> {
    let numbers = match version {
        Some(number) => vec![number],
        None => get(log, name)?.versions.iter().map(|version| version.number).collect(),
    };
    let mut keys: Vec<String> = numbers.iter().map(|number| version_run(name, *number)).collect();
    let checks: Vec<_> = runs(log)?.into_iter().filter(|(key, _)| is_of(key, name, &numbers)).collect();
    keys.extend(checks.iter().map(|(key, _)| key.clone()));
    let claim = |key: &String| log.claim(key, "`kappa job delete`", || false);
    let _claims = keys.iter().map(claim).collect::<Result<Vec<_>>>()?;
    let _deciding = log.deciding();
    let registered = get(log, name)?;
    if version == Some(registered.live) && registered.versions.len() > 1 {
        let message = format!("{} of job '{name}' is live", label(registered.live));
        return Err(Error::new(ErrorKind::Conflict, message)
            .with_hint("`kappa promote` another version first, or delete the whole job"));
    }
    let gone: Vec<u32> = match version {
        Some(number) => vec![registered.version(number)?.number],
        None => registered.versions.iter().map(|version| version.number).collect(),
    };
    let is_all = gone.len() == registered.versions.len();
    if is_all && version.is_none() && gone.len() != numbers.len() {
        return Err(Error::new(ErrorKind::Conflict, format!("job '{name}' has got another version meanwhile")));
    }
    let mut topics = Vec::new();
    let mut meta = Vec::new();
    let forget = |key| MetaRecord { space: MetaSpace::Job, key, value: None };
    for number in gone {
        let job = registered.job(number, functions)?;
        topics.extend(job.all_topics());
        if number == registered.live {
            topics.extend(job.base().all_topics());
        }
        meta.push(forget(version_key(name, number)));
    }
    let of_check = |topic: &String| ["", ".late", ".rejected"].map(|ending| format!("{topic}{ending}"));
    topics.extend(checks.iter().flat_map(|(_, run)| &run.outputs).flat_map(of_check));
    meta.extend(keys.iter().flat_map(|key| forgotten(log, key)));
    meta.extend(is_all.then(|| forget(name.to_owned())));
    log.append_wait(AppendBatch::meta(meta))?;
    keys.iter().for_each(|key| checkpoint::remove(log, key));
    topics.retain(|topic| outputs && log.topic(topic).is_ok());
    topics.iter().try_for_each(|topic| log.delete_topic(topic))?;
    Ok(topics)
}

impl Job {
    /// The same job where its live version writes.
    pub(crate) fn base(&self) -> Job {
        Job { version: None, ..self.clone() }
    }

    fn all_topics(&self) -> Vec<String> {
        let of = |output| STREAMS.into_iter().filter_map(move |stream| self.stream_topic(output, stream));
        self.plan.outputs.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> JobVersion {
        JobVersion {
            number: 2,
            file: "a.sql".into(),
            sql: "S".into(),
            plan_digest: 7,
            from: Some("latest".into()),
            to: None,
            publish_from_ms: Some(-1),
            rate_max: None,
            state: VersionState::Failed("x".into()),
        }
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn versions_keep_their_bytes_and_hostile_bytes_are_errors() {
        let bytes = encode(&version(), "v").unwrap();
        let golden = [
            &2u32.to_le_bytes()[..],
            &text("a.sql"),
            &text("S"),
            &7u64.to_le_bytes(),
            &[1],
            &text("latest"),
            &[0, 1],
            &(-1i64).to_le_bytes(),
            &[0],
            &3u32.to_le_bytes(),
            &text("x"),
        ]
        .concat();
        assert_eq!(bytes, golden, "the bytes of a version must not change");
        assert_eq!(decode::<JobVersion>(&bytes, "v").unwrap(), version());
        for bad in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat(), &[0xff; 64]] {
            assert_eq!(decode::<JobVersion>(bad, "v").unwrap_err().kind(), ErrorKind::Damage);
        }
        let huge = JobVersion { sql: "x".repeat(META_VALUE_MAX), ..version() };
        assert_eq!(encode(&huge, "v").unwrap_err().kind(), ErrorKind::Input);
    }

    #[test]
    fn heads_keep_their_bytes() {
        let outputs = vec![OutputSwitch { cut_ms: Some(5), first_offsets: vec![vec![6]] }];
        let switch = Switch { from: 1, to: 2, position: 3, clock_us: 4, from_rows: vec![], to_rows: vec![9], outputs };
        let head = Head { live: 2, last: 2, switches: vec![switch] };
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let golden = [
            [2, 0, 0, 0, 2, 0, 0, 0].to_vec(),
            numbers(&[1]),
            [1, 0, 0, 0, 2, 0, 0, 0].to_vec(),
            numbers(&[3, 4, 0, 1, 9, 1]),
            vec![1],
            numbers(&[5, 1, 1, 6]),
        ]
        .concat();
        assert_eq!(encode(&head, "h").unwrap(), golden, "the bytes of a job's head must not change");
        assert_eq!(decode::<Head>(&golden, "h").unwrap(), head);
    }

    #[test]
    fn labels() {
        assert_eq!(parse_label("v12").ok(), Some(12));
        for bad in ["", "v", "v0", "2", "v-1", "latest", "v99999999999"] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
    }
}
