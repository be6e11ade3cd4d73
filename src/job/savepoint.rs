//! Savepoints: the state of a job in a folder of its own, to be kept, looked at, moved, and gone on from by the same job or a changed one.
//!
//! The folder holds `manifest.json`, `job.sql` and `state/*.arrow`: Arrow IPC files that any library for Arrow reads. What comes from such
//! a folder may have been changed by anybody: names, lengths and checksums are checked before anything is used.

use super::checkpoint::{self, Manifest};
use super::drive::{At, state_memory};
use super::record::{Progress, RunRecord, StreamProgress};
use super::route::Routes;
use super::run::{recorded_run, refuse_foreign_outputs, run_meta};
use super::{Job, declare, emit};
use crate::engine::fit::{self, PipelineShape};
use crate::engine::{Engine, EngineOptions, EngineState};
use crate::env::{Disk, Env, OpenMode, create_dir_durably, replace_file};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{AppendBatch, Log, MetaRecord, MetaSpace};
use crate::state::ipc;
use crate::types::{AppendTime, Position};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const SQL: &str = "job.sql";
const STATE: &str = "state";
/// Largest `manifest.json` that is read.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Version of this format.
    pub format: u32,
    /// The version of Kappa that wrote it.
    pub kappa: String,
    /// Name of the job, with its version.
    pub job: String,
    /// Digest of its plan, in hexadecimal digits.
    pub plan_digest: String,
    /// Every record of the sources before this position is in the state.
    pub position: u64,
    /// So is every step of the append clock by this time, in microseconds.
    pub clock_us: i64,
    /// Steps of the clock behind the last record have been run.
    pub is_beyond_records: bool,
    /// Only windows that start at this time in ms or later are published.
    pub publish_from_ms: Option<i64>,
    /// Where the run started, by source.
    pub starts: Vec<u64>,
    /// Topics that are read.
    pub sources: Vec<String>,
    /// What the state is made for.
    pub pipelines: Vec<PipelineShape>,
    /// What the run had written.
    pub outputs: Vec<WrittenRows>,
    /// The tables of the state.
    pub sections: Vec<SectionFile>,
}

/// Rows of one topic that a run had written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenRows {
    /// Topic, or table for a blackhole.
    pub topic: String,
    /// How many.
    pub rows: u64,
    /// Their digest, in hexadecimal digits.
    pub digest: String,
}

/// A table of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionFile {
    /// Its name.
    pub name: String,
    /// Its file, below the folder.
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
    /// Rows.
    pub rows: u64,
}

/// Where savepoints without a path of their own are.
pub fn folder_of(log: &Log, name: &str) -> PathBuf {
    log.dir().join("savepoints").join(name)
}

/// Writes the newest state of a job's run into a new folder.
///
/// # Errors
/// `NotFound` when the run has no checkpoint, `Conflict` when the folder exists, and those of the disk.
pub fn create(log: &Log, job: &Job, sql: &str, dir: Option<&Path>) -> Result<(PathBuf, Savepoint)> {
    let key = job.key();
    // A run that `kappa up` has rests meanwhile, with its state of this moment; one that cannot wait has that of its newest checkpoint.
    let _claim = match log.claim(&key, "`kappa savepoint create`", || false) {
        Err(e) if e.kind() == ErrorKind::Unavailable => None,
        claimed => Some(claimed?),
    };
    let (newest, skipped) = checkpoint::newest(log, job);
    let Some((manifest, state)) = newest else {
        let why = if skipped.is_empty() { String::new() } else { format!(": {}", skipped.join("; ")) };
        return Err(Error::new(ErrorKind::NotFound, format!("the run of '{key}' has no state that can be saved{why}"))
            .with_hint("a run that is stopped, or ends with --no-flush, leaves its state; one that has flushed its windows has none"));
    };
    let dir = dir.map_or_else(|| folder_of(log, &format!("{key}-{}", manifest.position)), Path::to_owned);
    let disk = &*log.env().disk;
    if disk.exists(&dir).map_err(|cause| Error::io("looking for", &dir, cause))? {
        return Err(Error::new(ErrorKind::Conflict, format!("{} exists already", dir.display()))
            .with_hint("a savepoint is a new folder: choose another name with --to"));
    }
    let folder = dir.join(STATE);
    create_dir_durably(disk, &folder).map_err(|cause| Error::io("creating", &folder, cause))?;
    let mut savepoint = described(job, &manifest);
    savepoint.sections = write_sections(disk, &dir, &state)?;
    write(disk, &dir.join(SQL), sql.as_bytes())?;
    // The manifest comes last: without it the folder is no savepoint.
    let text = serde_json::to_vec_pretty(&savepoint).map_err(|e| Error::internal("a manifest").with_source(e))?;
    let path = dir.join(MANIFEST);
    replace_file(disk, &path, &text).map_err(|cause| Error::io("writing", &path, cause))?;
    Ok((dir, savepoint))
}

fn described(job: &Job, manifest: &Manifest) -> Savepoint {
    let names = emit::stream_names(job).into_iter().zip(&manifest.streams);
    let outputs = names.map(|(name, stream)| WrittenRows {
        topic: name.topic.unwrap_or(name.table),
        rows: stream.rows,
        digest: format!("{:016x}", stream.digest),
    });
    Savepoint {
        format: FORMAT,
        kappa: env!("CARGO_PKG_VERSION").to_owned(),
        job: job.key(),
        plan_digest: format!("{:016x}", manifest.plan_digest),
        position: manifest.position,
        clock_us: manifest.clock_us,
        is_beyond_records: manifest.is_beyond_records,
        publish_from_ms: manifest.publish_from_ms,
        starts: manifest.starts.clone(),
        sources: job.plan.sources.iter().map(|source| source.topic.clone()).collect(),
        pipelines: fit::shapes(&job.plan),
        outputs: outputs.collect(),
        sections: Vec::new(),
    }
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let written = disk.open(path, OpenMode::CreateNew).and_then(|file| {
        file.write_all_at(0, bytes)?;
        file.sync_data()
    });
    written.map_err(|cause| Error::io("writing", path, cause))
}

fn write_sections(disk: &dyn Disk, dir: &Path, state: &EngineState) -> Result<Vec<SectionFile>> {
    let files = state.sections.iter().enumerate().map(|(number, section)| {
        let file = format!("{STATE}/{number:04}.{}.arrow", section.name.replace('/', "."));
        let mut bytes = Vec::new();
        ipc::write(section, &mut bytes)?;
        write(disk, &dir.join(&file), &bytes)?;
        let mut rows = 0;
        section.each(&mut |piece| {
            rows += piece.num_rows() as u64;
            Ok(())
        })?;
        let (crc32, name) = (crc32fast::hash(&bytes), section.name.clone());
        Ok(SectionFile { name, file, bytes: bytes.len() as u64, crc32, rows })
    });
    let files = files.collect::<Result<_>>()?;
    for folder in [dir.join(STATE), dir.to_owned()] {
        disk.sync_dir(&folder).map_err(|cause| Error::io("syncing", &folder, cause))?;
    }
    Ok(files)
}

/// Reads the manifest of a savepoint.
///
/// # Errors
/// `NotFound` when the folder holds none, `Damage` when it cannot be understood, `Conflict` for another format.
pub fn inspect(env: &Env, dir: &Path) -> Result<Savepoint> {
    let path = dir.join(MANIFEST);
    let bytes = match read(&*env.disk, &path, MANIFEST_BYTES_MAX) {
        Err(e) if !env.disk.exists(&path).unwrap_or(true) => {
            return Err(Error::new(ErrorKind::NotFound, format!("{} is no savepoint", dir.display())).with_source(e));
        }
        read => read?,
    };
    let savepoint: Savepoint = serde_json::from_slice(&bytes)
        .map_err(|e| Error::damage(format!("{} cannot be read: {e}", path.display())).with_source(e))?;
    if savepoint.format != FORMAT {
        let message = format!("{} is of format {}, this Kappa reads {FORMAT}", dir.display(), savepoint.format);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(savepoint)
}

/// The savepoints of a data folder, by name.
pub fn list(log: &Log) -> Result<Vec<(String, Savepoint)>> {
    let dir = folder_of(log, "");
    let entries = match log.env().disk.list(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(|cause| Error::io("listing", &dir, cause))?,
    };
    let named = entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
    named.map(|name| Ok((name.clone(), inspect(log.env(), &dir.join(name))?))).collect()
}

fn read(disk: &dyn Disk, path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |cause| Error::io("reading", path, cause);
    let file = disk.open(path, OpenMode::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    if len > most {
        return Err(Error::damage(format!("{} has {len} bytes, at most {most} are expected", path.display())));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::damage("a file larger than memory"))?];
    file.read_exact_at(0, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The bytes of one table, as they were written.
fn section_bytes(env: &Env, dir: &Path, section: &SectionFile) -> Result<Vec<u8>> {
    let name = section.file.strip_prefix("state/").filter(|name| !name.contains(['/', '\\']) && *name != "..");
    let name =
        name.ok_or_else(|| Error::damage(format!("section {} names the file {}", section.name, section.file)))?;
    let path = dir.join(STATE).join(name);
    let bytes = read(&*env.disk, &path, section.bytes)?;
    if bytes.len() as u64 != section.bytes || crc32fast::hash(&bytes) != section.crc32 {
        return Err(Error::damage(format!("{} is not as it was written", path.display())));
    }
    Ok(bytes)
}

/// A savepoint and its state, whole.
///
/// # Errors
/// `Damage` when a file is not as it was written.
pub fn load(env: &Env, dir: &Path) -> Result<(Savepoint, EngineState)> {
    let savepoint = inspect(env, dir)?;
    let sections =
        savepoint.sections.iter().map(|section| ipc::read(&section.name, &section_bytes(env, dir, section)?));
    let sections = sections.collect::<Result<_>>()?;
    Ok((savepoint, EngineState { sections }))
}

/// Copies a savepoint to a new folder, and reads it there.
///
/// # Errors
/// `Conflict` when the folder exists, `Damage` when the savepoint is not whole.
pub fn export(env: &Env, from: &Path, to: &Path) -> Result<Savepoint> {
    let (savepoint, _) = load(env, from)?;
    let disk = &*env.disk;
    if disk.exists(to).map_err(|cause| Error::io("looking for", to, cause))? {
        return Err(Error::new(ErrorKind::Conflict, format!("{} exists already", to.display())));
    }
    let folder = to.join(STATE);
    create_dir_durably(disk, &folder).map_err(|cause| Error::io("creating", &folder, cause))?;
    for section in &savepoint.sections {
        write(disk, &to.join(&section.file), &section_bytes(env, from, section)?)?;
    }
    write(disk, &to.join(SQL), &read(disk, &from.join(SQL), MANIFEST_BYTES_MAX)?)?;
    for folder in [folder, to.to_owned()] {
        disk.sync_dir(&folder).map_err(|cause| Error::io("syncing", &folder, cause))?;
    }
    let path = to.join(MANIFEST);
    let text = read(disk, &from.join(MANIFEST), MANIFEST_BYTES_MAX)?;
    replace_file(disk, &path, &text).map_err(|cause| Error::io("writing", &path, cause))?;
    Ok(savepoint)
}

/// Lets a job begin from a savepoint, at its position or another one: the next run goes on from there. The job may have other
/// aggregates, other names and wider types than the one that was saved; gives the savepoint and what becomes of aggregates that
/// only one of them has.
///
/// # Errors
/// `Conflict` with the list of what does not fit, or when the job has a run already.
pub fn restore(log: &Log, job: &Job, dir: &Path, at: Option<Position>) -> Result<(Savepoint, Vec<String>)> {
    job.check()?;
    let _claim = log.claim(&job.key(), "`kappa savepoint restore`", || false)?;
    let _deciding = log.deciding();
    let routes = Routes::of(log, job)?;
    let outputs = job.written_topics(&routes);
    if recorded_run(log, &job.key(), &outputs)?.is_some() {
        return Err(Error::new(ErrorKind::Conflict, format!("'{}' has a run already", job.key()))
            .with_hint("`--as NAME` begins a run of another name from the savepoint"));
    }
    refuse_foreign_outputs(log, &outputs)?;
    let (savepoint, state) = load(log.env(), dir)?;
    let position = at.unwrap_or(Position(savepoint.position));
    if position > log.durable_end() {
        let message = format!("the savepoint is of position {position}, this log ends at {}", log.durable_end());
        return Err(Error::input(message).with_hint("in another log, say with --at where its records go on"));
    }
    let at = At::restored(position.0, savepoint.clock_us, savepoint.is_beyond_records);
    let (state, notes) = fitted(job, &state, &savepoint.pipelines, "the savepoint")?;
    let beginning = Beginning::checked(log, job, at, (state, notes))?;
    let record = beginning.record(job, outputs, savepoint.publish_from_ms);
    let mut meta = declare::news(log, job, routes.is_live());
    meta.push(run_meta(job, Some(&record))?);
    let progress = beginning.progress(job).encode()?;
    meta.push(MetaRecord { space: MetaSpace::Progress, key: job.key(), value: Some(progress) });
    meta.extend(beginning.write(log, job, &record)?);
    // Records that are still to come must not be older than the clock of the state.
    let clock_floor = Some(at.clock).filter(|clock| *clock > AppendTime::MIN);
    log.append_wait(AppendBatch { clock_floor, ..AppendBatch::meta(meta) })?;
    Ok((savepoint, beginning.notes))
}

/// The state of a job of these shapes as that of another one, and what becomes of aggregates that only one of them has.
fn fitted(job: &Job, state: &EngineState, shapes: &[PipelineShape], what: &str) -> Result<(EngineState, Vec<String>)> {
    fit::adapted(state, shapes, &job.plan)
        .map_err(|misfits| Error::new(ErrorKind::Conflict, format!("{what} does not fit:\n  {}", misfits.join("\n  "))))
}

/// The state that another run began from as one for this job, where it is, and what [`fitted`] has to say.
fn fitted_like(log: &Log, job: &Job, of: &str) -> Result<(At, (EngineState, Vec<String>))> {
    let (Some(base), Some(record)) = (checkpoint::base(log, of)?, log.meta(MetaSpace::Run, of)) else {
        return Err(Error::new(ErrorKind::NotFound, format!("no run of '{of}' began from a savepoint")));
    };
    let what = format!("the state that '{of}' began from at position {}", base.at.position);
    let shapes = match RunRecord::decode(of, &record)?.plan_digest == job.plan.digest {
        true => Some(fit::shapes(&job.plan)),
        false => checkpoint::base_shapes(log, of)?,
    };
    let unknown = || Error::new(ErrorKind::Conflict, format!("{what} does not say what job it is made for"));
    let fitted = shapes.ok_or_else(unknown).and_then(|shapes| fitted(job, &base.state, &shapes, &what));
    let fitted = fitted.map_err(|e| {
        e.with_hint(
            "`kappa run FILE --as NAME` and `kappa job submit FILE` do without it: from the start of the tables, if all of their records \
             are there, or with --from time:T from a time after which no window needs it",
        )
    })?;
    Ok((base.at, fitted))
}

/// Checks that the state that another run began from is one for this job.
///
/// # Errors
/// `Conflict` with the list of what does not fit, `NotFound` when there is no such state.
pub(super) fn check_like(log: &Log, job: &Job, of: &str) -> Result<()> {
    fitted_like(log, job, of).map(drop)
}

/// A state that a run is to begin from.
pub(super) struct Beginning {
    state: EngineState,
    at: At,
    /// What becomes of aggregates that the job has, or has not any more.
    pub notes: Vec<String>,
}

impl Beginning {
    /// Before anything is written: it can be gone on from.
    fn checked(log: &Log, job: &Job, at: At, (state, notes): (EngineState, Vec<String>)) -> Result<Beginning> {
        let partitions = job.source_topics(log)?.iter().map(crate::log::Topic::partitions).collect();
        let options = EngineOptions { memory: Some(state_memory(log, None)), ..EngineOptions::default() };
        Engine::restore(Arc::clone(&job.plan), partitions, options, &state)?;
        Ok(Beginning { state, at, notes })
    }

    /// The state that the run with this key began from, for another job.
    ///
    /// # Errors
    /// Those of [`check_like`].
    pub fn like(log: &Log, job: &Job, of: &str) -> Result<Beginning> {
        let (at, fitted) = fitted_like(log, job, of)?;
        Beginning::checked(log, job, at, fitted)
    }

    /// The run, at its beginning.
    pub fn record(&self, job: &Job, outputs: Vec<String>, publish_from_ms: Option<i64>) -> RunRecord {
        RunRecord {
            plan_digest: job.plan.digest,
            starts: vec![self.at.position.0; job.plan.sources.len()],
            end: None,
            flush: false,
            publish_from_ms,
            outputs,
            sources: job.plan.sources.iter().map(|source| source.topic.clone()).collect(),
        }
    }

    /// How far it has come.
    pub fn progress(&self, job: &Job) -> Progress {
        let streams = vec![StreamProgress::default(); emit::stream_names(job).len()];
        Progress { position: self.at.position.0, clock_us: self.at.clock.0, streams, is_final: false }
    }

    /// Writes the state; without the records it is not there.
    pub fn write(&self, log: &Log, job: &Job, record: &RunRecord) -> Result<[MetaRecord; 2]> {
        let state = (&self.state, &fit::shapes(&job.plan)[..]);
        checkpoint::write_base(log, &job.key(), record, (&self.at, &self.progress(job).streams), state)
    }
}
