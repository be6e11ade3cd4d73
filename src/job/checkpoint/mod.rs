//! Checkpoints: the state of a job after a position, so that a restart does not compute everything again.
//!
//! The job's thread gives its state away little by little, rows that change before they do, and goes on; another thread writes it beside
//! the log. A checkpoint exists once the journal has a record of it, in a frame behind all output up to it. The two newest are kept, each
//! is read whole before it is used, and sections that have not changed are shared with the one before. A run that began from a
//! savepoint keeps that as checkpoint 0 for ever: the log alone does not give its output.

mod manifest;
mod store;

pub(super) use manifest::{Bound, Manifest};

use super::drive::{At, Begin};
use super::record::{Progress, RunRecord, StreamProgress};
use super::{Job, progress};
use crate::engine::fit::PipelineShape;
use crate::engine::{Engine, EngineState};
use crate::env::thread::{self, Class};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Log, MetaRecord, MetaSpace};
use crate::state::saving::{Relay, Step};
use crate::state::section::Section;
use crate::types::Position;
use manifest::{Named, Wanted, is_shortcut, prefix, shapes_key, unfit, unnamed};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use store::{Store, Written, own_bytes, shareable, written_as};

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// The number of the state that a run began from, if that was one.
const BASE: u64 = 0;

/// A checkpoint may take this share of the time, as one part in so many.
const SHARE: u64 = 20;

/// Pieces of state that may wait to be written.
const AHEAD_MAX: usize = 16;

/// Pieces that are given between two strides, at most.
const PIECES: usize = 2;

/// When checkpoints are taken. Nothing here can change an output byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// After this long, if there was input; `None`: what the job's file says, else 30 seconds.
    pub interval_us: Option<u64>,
    /// After so many bytes of input. Default 512 MiB.
    pub bytes: u64,
    /// False: none are taken, and none are used.
    pub enabled: bool,
    /// Written by a thread of their own (the default), or by the job's, so that a test knows when.
    pub background: bool,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        CheckpointOptions { interval_us: None, bytes: 512 << 20, enabled: true, background: true }
    }
}

/// Default of [`CheckpointOptions::interval_us`].
const INTERVAL_US: u64 = 30_000_000;

/// What a run did about checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckpointCounts {
    /// Taken.
    pub taken: u64,
    /// Bytes that the newest one wrote; what it shares with older ones is not among them.
    pub bytes: u64,
    /// Longest time in microseconds that taking one took between two strides. What is changed while it is written is given away first, which
    /// is not in here.
    pub pause_us_max: u64,
    /// Longest time in microseconds until one was written.
    pub write_us_max: u64,
}

/// What decides whether a checkpoint is due.
struct Facts {
    /// Bytes of input since the last one.
    moved: u64,
    since_us: u64,
    /// How long the last one took to write.
    took_us: u64,
    interval_us: u64,
    bytes: u64,
}

fn is_due(facts: &Facts) -> bool {
    let is_time = facts.since_us >= facts.interval_us || facts.moved >= facts.bytes;
    facts.moved > 0 && is_time && facts.since_us >= facts.took_us.saturating_mul(SHARE)
}

/// A checkpoint that was written and is not in the journal yet.
struct Made {
    manifest: Manifest,
    named: Named,
    written: Written,
    took_us: u64,
}

/// A checkpoint on its way.
enum Writing {
    There(JoinHandle<Result<Made>>, Arc<Relay>),
    Here(Box<Result<Made>>),
}

impl Writing {
    fn is_done(&self) -> bool {
        match self {
            Writing::There(thread, _) => thread.is_finished(),
            Writing::Here(_) => true,
        }
    }

    fn wait(self) -> Result<Made> {
        match self {
            Writing::There(thread, _) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Writing::Here(made) => *made,
        }
    }
}

/// Takes the checkpoints of one run.
pub(super) struct Checkpoints {
    log: Log,
    store: Store,
    key: String,
    record: RunRecord,
    options: CheckpointOptions,
    /// Named in the journal, oldest first.
    kept: Vec<Manifest>,
    base: Option<Manifest>,
    /// What the newest one holds, by section.
    written: Written,
    writing: Option<Writing>,
    next_number: u64,
    /// Bytes of input, and the time, when the last one was taken.
    last: (u64, u64),
    took_us: u64,
    counts: CheckpointCounts,
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What comes out of a look at the checkpoints.
#[derive(Default)]
pub(super) struct News {
    /// Records for the next frame.
    pub meta: Vec<MetaRecord>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// The state that a run goes on from.
pub(super) struct Restored {
    pub state: EngineState,
    pub at: At,
    /// Rows that had been given out.
    pub streams: Vec<StreamProgress>,
}

impl Restored {
    fn of(manifest: &Manifest, state: EngineState) -> Restored {
        let at = At::restored(manifest.position, manifest.clock_us, manifest.is_beyond_records);
        Restored { state, at, streams: manifest.streams.clone() }
    }

    /// How an engine begins.
    pub fn begin(&self) -> Begin<'_> {
        Begin::Restored(&self.state, self.at)
    }
}

impl Checkpoints {
    /// Looks at what there is; of a run that goes on, the newest checkpoint that is whole and fits is where it begins.
    pub fn open(
        log: &Log,
        job: &Job,
        record: &RunRecord,
        options: CheckpointOptions,
        resumed: Option<(&Progress, Option<Bound>)>,
    ) -> Result<(Checkpoints, Option<Restored>, Vec<String>)> {
        let key = job.key();
        let store = Store::new(log.env(), log.dir(), &key);
        let (mut notes, mut kept, mut restored) = (Vec::new(), Vec::new(), None);
        let named = named(log, &key);
        for (number, record_of) in named.iter().rev().filter(|(number, _)| options.enabled || *number == BASE) {
            let Some((progress, end)) = resumed else { break };
            let wanted = Wanted {
                plan_digest: record.plan_digest,
                starts: &record.starts,
                publish_from_ms: record.publish_from_ms,
                end,
                progress,
            };
            let read = store.read(*number, record_of).and_then(|(manifest, state)| match unfit(&manifest, &wanted) {
                Some(why) => Err(Error::new(ErrorKind::Conflict, why)),
                None => Ok((manifest, state)),
            });
            match read {
                Ok((manifest, state)) => {
                    notes.push(match *number {
                        BASE => format!("beginning with the state of a savepoint, at position {}", manifest.position),
                        number => format!("going on from checkpoint {number} at position {}", manifest.position),
                    });
                    restored = Some(Restored::of(&manifest, state));
                    kept.extend(Some(manifest).filter(|manifest| manifest.number != BASE));
                    break;
                }
                Err(e) if *number == BASE => return Err(e.context("the state that the run began from")),
                Err(e) => notes.push(format!("checkpoint {number} at position {} is skipped: {e}", record_of.position)),
            }
        }
        let base = named.iter().find(|(number, _)| *number == BASE);
        let base = base.map(|(number, named)| store.read_manifest(*number, named)).transpose()?;
        let next_number = store.next_number();
        let next_number = named.last().map_or(next_number, |(last, _)| next_number.max(last + 1));
        let (log, record, last) = (log.clone(), record.clone(), (0, log.env().clock.monotonic_us()));
        let (written, counts) = (Written::new(), CheckpointCounts::default());
        let opened = Checkpoints {
            log,
            store,
            key,
            record,
            options,
            kept,
            base,
            written,
            writing: None,
            next_number,
            last,
            took_us: 0,
            counts,
        };
        Ok((opened, restored, notes))
    }

    /// What has been done.
    pub fn counts(&self) -> CheckpointCounts {
        self.counts
    }

    fn now_us(&self) -> u64 {
        self.log.env().clock.monotonic_us()
    }

    /// Whether one is being written.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether they are written by a thread of their own.
    pub fn in_background(&self) -> bool {
        self.options.background
    }

    /// To be asked between two strides, when all output is on its way: begins a checkpoint if one is due, gives more of one that was begun,
    /// and the records of one that was written. None begins before the one before `is_recorded`: then files go that it has made superfluous.
    /// `emitted` are the rows that the engine has given out.
    pub fn step(
        &mut self,
        engine: &mut Engine,
        at: &At,
        is_recorded: bool,
        emitted: impl FnOnce() -> Vec<StreamProgress>,
    ) -> Result<News> {
        let mut news = News::default();
        if !self.options.enabled {
            return Ok(news);
        }
        let began_us = self.now_us();
        if self.is_writing() {
            give(engine);
        }
        if self.writing.as_ref().is_some_and(Writing::is_done) {
            self.join(&mut news)?;
        }
        let facts = Facts {
            moved: at.bytes - self.last.0,
            since_us: self.now_us() - self.last.1,
            took_us: self.took_us,
            interval_us: self.options.interval_us.unwrap_or(INTERVAL_US),
            bytes: self.options.bytes,
        };
        if !self.is_writing() && is_recorded && news.meta.is_empty() && is_due(&facts) {
            self.start(engine, at, emitted())?;
            match self.options.background {
                true => give(engine),
                false => self.join(&mut news)?,
            }
        }
        self.counts.pause_us_max = self.counts.pause_us_max.max(self.now_us() - began_us);
        Ok(news)
    }

    /// The last one of a run that may go on later, if there was input since the one before.
    pub fn finish(&mut self, engine: &mut Engine, at: &At, emitted: Vec<StreamProgress>) -> Result<News> {
        let mut news = News::default();
        if self.options.enabled {
            self.complete(engine, &mut news)?;
            if at.bytes > self.last.0 {
                self.start(engine, at, emitted)?;
                self.complete(engine, &mut news)?;
            }
        }
        Ok(news)
    }

    /// Gives all that is left of the one that is being written, and waits for it.
    fn complete(&mut self, engine: &mut Engine, news: &mut News) -> Result<()> {
        while let Some(Writing::There(_, relay)) = &self.writing {
            let moves = relay.moves();
            match engine.save_next(AHEAD_MAX) {
                Step::Given => {}
                Step::Full => relay.wait(moves),
                Step::Over => break,
            }
        }
        self.join(news)
    }

    /// Ends the one that is being written: it is not in the journal, so it does not exist.
    fn cancel(&mut self) {
        if let Some(Writing::There(thread, relay)) = self.writing.take() {
            relay.cancel();
            drop(thread.join());
        }
    }

    /// Takes the state and lets it be written.
    fn start(&mut self, engine: &mut Engine, at: &At, streams: Vec<StreamProgress>) -> Result<()> {
        let began_us = self.now_us();
        let (mut state, relay) = engine.save()?;
        let manifest = manifest_of(self.next_number, &self.record, at, streams);
        self.next_number += 1;
        self.last = (at.bytes, began_us);
        let (store, clock) = (self.store.clone(), Arc::clone(&self.log.env().clock));
        let kept: Vec<Manifest> = self.kept.iter().chain(&self.base).cloned().collect();
        let files = kept.iter().map(|manifest| (manifest.number, own_bytes(manifest)));
        let worth = shareable(&self.written, &files.collect::<BTreeMap<_, _>>());
        let shared: Written =
            self.written.iter().filter(|(_, (_, place))| worth.contains(&place.file)).map(clone_of).collect();
        let known = |section: &Section| written_as(&shared, section).is_some();
        let given = |section: Section| if known(&section) { section.without_rows() } else { section };
        state.sections = state.sections.into_iter().map(given).collect();
        let work = move || {
            let began_us = clock.monotonic_us();
            // What a crash has left, and what newer ones have made superfluous. It is in nobody's way.
            store.keep(&kept).ok();
            let (manifest, written) = store.write(manifest, &state, &shared)?;
            let named = Named::of(&manifest, &manifest.encode()?);
            Ok(Made { manifest, named, written, took_us: clock.monotonic_us() - began_us })
        };
        self.writing = Some(if self.options.background {
            let threaded = move || {
                thread::enter(Class::Background);
                work()
            };
            let thread = thread::spawn("kappa-checkpoint", threaded);
            let thread =
                thread.map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start a thread: {e}")))?;
            Writing::There(thread, relay)
        } else {
            while engine.save_next(usize::MAX) == Step::Given {}
            Writing::Here(Box::new(work()))
        });
        Ok(())
    }

    /// Waits for the one that is being written.
    fn join(&mut self, news: &mut News) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        match writing.wait() {
            Ok(made) => {
                // The one before stays; of the others, and of those that could not be gone on from, the journal forgets.
                self.kept.drain(..self.kept.len().saturating_sub(KEPT - 1));
                let is_kept =
                    |number: u64| number == BASE || self.kept.iter().any(|manifest| manifest.number == number);
                let gone = named(&self.log, &self.key).into_iter().filter(|(number, _)| !is_kept(*number));
                news.meta.extend(gone.map(|(number, _)| unnamed(&self.key, number)));
                news.meta.push(made.named.record(&self.key, made.manifest.number)?);
                self.counts.taken += 1;
                self.counts.bytes = own_bytes(&made.manifest);
                self.counts.write_us_max = self.counts.write_us_max.max(made.took_us);
                (self.took_us, self.written) = (made.took_us, made.written);
                self.kept.push(made.manifest);
            }
            // The job does not need it: the log is whole.
            Err(e) => news.notes.push(format!("a checkpoint could not be written, another one is tried later: {e}")),
        }
        Ok(())
    }

    /// The records of a run that will not go on: it has no checkpoints. To be followed by [`remove`] once they are durable.
    pub fn end(&mut self) -> Result<Vec<MetaRecord>> {
        self.cancel();
        let gone = named(&self.log, &self.key).into_iter().filter(|(number, _)| *number != BASE);
        Ok(gone.map(|(number, _)| unnamed(&self.key, number)).collect())
    }
}

/// Gives what may be given between two strides.
fn give(engine: &mut Engine) {
    (0..PIECES).take_while(|_| engine.save_next(AHEAD_MAX) == Step::Given).for_each(drop);
}

fn clone_of((name, place): (&String, &(u64, manifest::Place))) -> (String, (u64, manifest::Place)) {
    (name.clone(), place.clone())
}

/// The checkpoints that the journal names, oldest first.
fn named(log: &Log, key: &str) -> Vec<(u64, Named)> {
    let prefix = prefix(key);
    let entries = log.meta_scan(MetaSpace::Checkpoint, &prefix).into_iter();
    entries.filter_map(|(key, value)| Some((key[prefix.len()..].parse().ok()?, Named::decode(&value)?))).collect()
}

/// The records that forget a job's checkpoints.
pub(super) fn forgotten(log: &Log, key: &str) -> Vec<MetaRecord> {
    let keys = log.meta_scan(MetaSpace::Checkpoint, &prefix(key)).into_iter().map(|(key, _)| key);
    keys.map(|key| MetaRecord { space: MetaSpace::Checkpoint, key, value: None }).collect()
}

/// Removes the files of a job whose checkpoints were forgotten; the state that its run began from stays, if it is named.
pub(super) fn remove(log: &Log, key: &str) {
    let store = Store::new(log.env(), log.dir(), key);
    match named(log, key).first() {
        Some((number, named)) => {
            store.read_manifest(*number, named).and_then(|manifest| store.keep(&[manifest])).ok();
        }
        None => store.remove(),
    }
}

/// Where the newest state of a run is; `None` if there is none, or it cannot be read.
pub(super) fn reached(log: &Log, key: &str) -> Option<Bound> {
    let (number, named) = named(log, key).pop()?;
    let manifest = Store::new(log.env(), log.dir(), key).read_manifest(number, &named).ok()?;
    Some(Bound { position: manifest.position, clock_us: Some(manifest.clock_us) })
}

/// The newest checkpoint of a job that is whole, and those that are not.
pub(super) fn newest(log: &Log, job: &Job) -> (Option<(Manifest, EngineState)>, Vec<String>) {
    let store = Store::new(log.env(), log.dir(), &job.key());
    let mut skipped = Vec::new();
    for (number, named) in named(log, &job.key()).into_iter().rev() {
        match store.read(number, &named) {
            Ok((manifest, state)) if manifest.plan_digest == job.plan.digest => {
                return (Some((manifest, state)), skipped);
            }
            Ok(_) => skipped.push(format!("checkpoint {number} is of a job that computes something else")),
            Err(e) => skipped.push(format!("checkpoint {number} is skipped: {e}")),
        }
    }
    (None, skipped)
}

/// The first kept state of a run at a position or behind it that is whole, fits, and has rows behind it.
pub(super) fn first_from(
    log: &Log,
    key: &str,
    record: &RunRecord,
    progress: &Progress,
    from: Position,
) -> Option<Restored> {
    let store = Store::new(log.env(), log.dir(), key);
    let RunRecord { plan_digest, starts, publish_from_ms, .. } = record;
    let wanted = Wanted { plan_digest: *plan_digest, starts, publish_from_ms: *publish_from_ms, end: None, progress };
    let behind = named(log, key).into_iter().filter(|(_, named)| named.position >= from.0);
    let mut whole = behind.filter_map(|(number, named)| store.read(number, &named).ok());
    let is_useful = |manifest: &Manifest| {
        let mut rows = manifest.streams.iter().zip(&progress.streams);
        unfit(manifest, &wanted).is_none() && rows.any(|(before, now)| before.rows < now.rows)
    };
    let (manifest, state) = whole.find(|(manifest, _)| is_useful(manifest))?;
    Some(Restored::of(&manifest, state))
}

/// The newest checkpoint of the run of `of` behind which lies all that a new run of the same job, from the same start and to `end`,
/// publishes.
pub(super) fn shortcut(
    log: &Log,
    job: &Job,
    of: &str,
    record: &RunRecord,
    end: Option<Bound>,
) -> Result<Option<(Manifest, EngineState)>> {
    let (Some(from_ms), Some(progress)) = (record.publish_from_ms, progress(log, of)?) else { return Ok(None) };
    let store = Store::new(log.env(), log.dir(), of);
    let fitting = |(number, named): (u64, Named)| {
        // That run goes on meanwhile: one that is gone, or damaged, costs time and nothing else.
        let (manifest, state) = store.read(number, &named).ok()?;
        // What is published does not show in the state.
        let publish_from_ms = manifest.publish_from_ms;
        let RunRecord { plan_digest, starts, .. } = record;
        let wanted = Wanted { plan_digest: *plan_digest, starts, publish_from_ms, end, progress: &progress };
        let is_silent = state.is_silent_from(&job.plan, from_ms).ok()?;
        is_shortcut(&manifest, &wanted, is_silent).then_some((manifest, state))
    };
    Ok(named(log, of).into_iter().rev().find_map(fitting))
}

/// Writes the checkpoint of another run as the first one of a new run, which has given out nothing; gives where that is, and the record
/// of it.
pub(super) fn write_shortcut(
    log: &Log,
    key: &str,
    record: &RunRecord,
    (manifest, state): (&Manifest, &EngineState),
) -> Result<(Progress, MetaRecord)> {
    let store = Store::new(log.env(), log.dir(), key);
    let streams = vec![StreamProgress::default(); manifest.streams.len()];
    let Manifest { position, clock_us, is_beyond_records, .. } = *manifest;
    let at = At::restored(position, clock_us, is_beyond_records);
    let made = manifest_of(store.next_number(), record, &at, streams.clone());
    let (made, _) = store.write(made, state, &Written::new())?;
    let named = Named::of(&made, &made.encode()?).record(key, made.number)?;
    Ok((Progress { position, clock_us, streams, is_final: false }, named))
}

/// Writes a run's checkpoints again for a run of another key: the state that it began from, and the newest one that is whole. Gives their
/// records.
pub(super) fn copy(log: &Log, from: &str, to: &str) -> Result<Vec<MetaRecord>> {
    let [source, target] = [from, to].map(|key| Store::new(log.env(), log.dir(), key));
    target.remove();
    let mut records = Vec::new();
    for (number, known) in named(log, from).into_iter().rev() {
        if number != BASE && !records.is_empty() {
            continue;
        }
        let (manifest, state) = match source.read(number, &known) {
            Ok(read) => read,
            Err(e) if number == BASE => return Err(e.context("the state that the run began from")),
            Err(_) => continue,
        };
        let manifest = Manifest { sections: Vec::new(), ..manifest };
        let (manifest, _) = target.write(manifest, &state, &Written::new())?;
        records.push(Named::of(&manifest, &manifest.encode()?).record(to, number)?);
    }
    let shapes = log.meta(MetaSpace::Checkpoint, &shapes_key(from));
    records.extend(shapes.map(|shapes| shapes_record(to, shapes)));
    Ok(records)
}

/// The state that a job's run began from, if that was one.
pub(super) fn base(log: &Log, key: &str) -> Result<Option<Restored>> {
    let Some((number, named)) = named(log, key).into_iter().find(|(number, _)| *number == BASE) else {
        return Ok(None);
    };
    let read = Store::new(log.env(), log.dir(), key).read(number, &named);
    let (manifest, state) = read.map_err(|e| e.context("the state that the run began from"))?;
    Ok(Some(Restored::of(&manifest, state)))
}

/// Whether a job's run began from a state.
pub(super) fn has_base(log: &Log, key: &str) -> bool {
    named(log, key).iter().any(|(number, _)| *number == BASE)
}

/// What the state that a job's run began from is made for; `None`: it was written by a build that did not say.
pub(super) fn base_shapes(log: &Log, key: &str) -> Result<Option<Vec<PipelineShape>>> {
    let shapes = log.meta(MetaSpace::Checkpoint, &shapes_key(key));
    let decoded = shapes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    decoded.map_err(|e| {
        Error::damage(format!("what the first state of '{key}' is made for cannot be read")).with_source(e)
    })
}

/// Writes the state that a run is to begin from, and what it is made for; gives the records of both.
pub(super) fn write_base(
    log: &Log,
    key: &str,
    record: &RunRecord,
    (at, streams): (&At, &[StreamProgress]),
    (state, shapes): (&EngineState, &[PipelineShape]),
) -> Result<[MetaRecord; 2]> {
    let store = Store::new(log.env(), log.dir(), key);
    store.remove();
    let manifest = manifest_of(BASE, record, at, streams.to_vec());
    let (manifest, _) = store.write(manifest, state, &Written::new())?;
    let shapes = serde_json::to_vec(shapes).map_err(|e| Error::internal("what a state is made for").with_source(e))?;
    Ok([Named::of(&manifest, &manifest.encode()?).record(key, BASE)?, shapes_record(key, shapes)])
}

/// The record of what the state that a run began from is made for.
fn shapes_record(key: &str, shapes: Vec<u8>) -> MetaRecord {
    MetaRecord { space: MetaSpace::Checkpoint, key: shapes_key(key), value: Some(shapes) }
}

/// A manifest without its sections.
fn manifest_of(number: u64, record: &RunRecord, at: &At, streams: Vec<StreamProgress>) -> Manifest {
    Manifest {
        number,
        kappa: env!("CARGO_PKG_VERSION").to_owned(),
        plan_digest: record.plan_digest,
        starts: record.starts.clone(),
        publish_from_ms: record.publish_from_ms,
        position: at.position.0,
        clock_us: at.clock.0,
        is_beyond_records: at.clock > at.records_clock,
        streams,
        sections: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::manifest::Place;
    use super::*;

    #[test]
    fn due_after_time_or_bytes_never_without_input_and_never_more_than_its_share() {
        let facts = |moved, since_us, took_us| Facts { moved, since_us, took_us, interval_us: 1_000, bytes: 50 };
        for (facts, expected) in [
            (facts(0, 5_000, 0), false),
            (facts(1, 999, 0), false),
            (facts(1, 1_000, 0), true),
            (facts(50, 0, 0), true),
            (facts(50, 999, 50), false),
            (facts(50, 1_000, 50), true),
        ] {
            assert_eq!(is_due(&facts), expected);
        }
    }

    #[test]
    fn files_that_are_mostly_superfluous_are_not_shared() {
        let place = |file, bytes| (1, Place { name: String::new(), file, at: 0, bytes, crc: 0 });
        let written: Written =
            [("a".to_owned(), place(1, 40)), ("b".to_owned(), place(1, 10)), ("c".to_owned(), place(2, 49))].into();
        let files = |file: u64| shareable(&written, &[(1, 100), (2, 100)].into()).contains(&file);
        assert!(files(1) && !files(2) && !files(3));
    }
}
