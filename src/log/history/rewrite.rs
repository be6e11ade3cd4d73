//! History files into other history files: small ones are merged, those of a topic written again when its columns change,
//! and those that hold nothing any more are let go.

use super::entry::{HistoryEntry, is_damage};
use super::file::FileRecord;
use super::output::{Gather, write_file};
use super::plan::{divide, merge, shares};
use super::schema::fingerprint;
use super::seal::{Unrecorded, columns_of, kept_from, spec, switch};
use super::sealer::Work;
use crate::error::{Error, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::records::Projection;
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{Position, TopicId};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Files let go in one frame at most.
const GONE_FILES: usize = 1_000;

/// How far [`Log::rebuild_topic`](crate::log::Log::rebuild_topic) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Files dealt with.
    pub files: u64,
    /// Files that hold the topic in another form.
    pub files_all: u64,
    /// Bytes of the files dealt with.
    pub bytes: u64,
    /// Bytes of all of them.
    pub bytes_all: u64,
}

/// Lets files go whose topics were deleted or trimmed away; true if there may be more.
pub(crate) fn let_go_step(shared: &Arc<Shared>) -> Result<bool> {
    let work = shared.sealer.work();
    let files: Vec<Arc<HistoryEntry>> = shared.index(|index| index.history.files().cloned().collect());
    let gone = |entry: &&Arc<HistoryEntry>| {
        let mut topics = entry.record().topics.iter();
        topics.all(|extent| {
            let deleted = shared.topics(|topics| topics.by_id(extent.topic)).is_err();
            deleted || extent.extent.last_position < kept_from(shared, extent.topic)
        })
    };
    let gone: Vec<MetaRecord> = files.iter().filter(gone).take(GONE_FILES).map(|entry| removal(entry)).collect();
    if gone.is_empty() {
        return Ok(false);
    }
    drop(files);
    shared.append(AppendBatch::meta(gone), true)?.wait()?;
    switch(shared)?;
    drop(work);
    Ok(true)
}

fn removal(entry: &HistoryEntry) -> MetaRecord {
    MetaRecord { space: MetaSpace::History, key: FileRecord::key_of(entry.record().number), value: None }
}

/// Merges some small files; true if there may be more.
pub(crate) fn merge_step(shared: &Arc<Shared>) -> Result<bool> {
    if !shared.options.history {
        return Ok(false);
    }
    let mut work = shared.sealer.work();
    let files: Vec<Arc<HistoryEntry>> = shared.index(|index| index.history.files().cloned().collect());
    let records: Vec<&FileRecord> = files.iter().map(|entry| entry.record()).collect();
    let Some(chosen) = merge(&records, &work.damaged, shared.sealer.sizes) else { return Ok(false) };
    let chosen: Vec<_> = files.iter().filter(|entry| chosen.contains(&entry.record().number)).cloned().collect();
    drop(files);
    rewrite(shared, &mut work, chosen)?;
    Ok(true)
}

/// Writes the records of some files into new ones, which take their place.
fn rewrite(shared: &Shared, work: &mut Work, files: Vec<Arc<HistoryEntry>>) -> Result<()> {
    let records: Vec<&FileRecord> = files.iter().map(|entry| entry.record()).collect();
    let mut unrecorded = Unrecorded { shared, files: Vec::new() };
    for topics in divide(&shares(&records), shared.sealer.sizes) {
        let specs: Vec<_> = topics.iter().filter_map(|topic| spec(shared, *topic)).collect();
        let alive: Vec<TopicId> = specs.iter().map(|spec| spec.topic).collect();
        if alive.is_empty() {
            continue;
        }
        let number = work.number();
        let fill =
            |out: &mut Gather<'_, '_>| alive.iter().try_for_each(|topic| copy_topic(shared, work, &files, *topic, out));
        unrecorded.files.extend(write_file(shared, number, specs, fill)?);
    }
    unrecorded.record(files.iter().map(|entry| removal(entry)).collect())?;
    drop(files);
    switch(shared)
}

/// Pushes a topic's records in some history files. A file that is damaged is remembered, and stays.
fn copy_topic(
    shared: &Shared,
    work: &mut Work,
    files: &[Arc<HistoryEntry>],
    topic: TopicId,
    out: &mut Gather<'_, '_>,
) -> Result<()> {
    let kept_from = kept_from(shared, topic);
    let mut of_topic: Vec<&Arc<HistoryEntry>> = files.iter().filter(|entry| entry.topic(topic).is_some()).collect();
    of_topic.sort_by_key(|entry| entry.topic(topic).map(|extent| extent.extent.first_position));
    for entry in of_topic {
        let mut copy = || -> Result<()> {
            let file = entry.open()?;
            for (place, group) in file.groups().iter().enumerate().filter(|(_, group)| group.topic == topic) {
                if group.extent.last_position >= kept_from {
                    let batch = file.read(place, &Projection::ALL)?;
                    batch.between(kept_from, Position(u64::MAX)).into_iter().try_for_each(|batch| out.push(batch))?;
                }
            }
            Ok(())
        };
        copy().inspect_err(|error| {
            if is_damage(error) {
                work.damaged.insert(entry.record().number);
            }
        })?;
    }
    out.hand_on()
}

/// Numbers and bytes of a topic's history files with records at or behind a position whose decoded columns are not those that are
/// declared now.
fn outdated(shared: &Shared, topic: &Topic, from: Position) -> Vec<(u64, u64)> {
    let wanted = columns_of(shared, topic).map(|columns| fingerprint(&columns));
    let differs = |entry: &&Arc<HistoryEntry>| {
        let extent = entry.topic(topic.id());
        extent.is_some_and(|extent| extent.columns != wanted && extent.extent.last_position >= from)
    };
    shared.index(|index| {
        let files = index.history.files_of(topic.id()).filter(differs);
        files.map(|entry| (entry.record().number, entry.record().bytes)).collect()
    })
}

/// How many history files of a topic have records at or behind a position and not the columns that are declared now.
pub(crate) fn outdated_files(shared: &Shared, topic: TopicId, from: Position) -> Result<usize> {
    let topic = shared.topics(|topics| topics.by_id(topic))?;
    Ok(outdated(shared, &topic, from).len())
}

/// Writes every history file of a topic again whose decoded columns are not those that are declared now.
pub(crate) fn rebuild(
    shared: &Shared,
    topic: TopicId,
    progress: &mut dyn FnMut(RebuildProgress) -> ControlFlow<()>,
) -> Result<()> {
    let topic = shared.topics(|topics| topics.by_id(topic))?;
    let to_do = outdated(shared, &topic, Position(0));
    let bytes_all = to_do.iter().map(|(_, bytes)| bytes).sum();
    let mut so_far = RebuildProgress { files: 0, files_all: to_do.len() as u64, bytes: 0, bytes_all };
    let mut failed = None;
    let mut is_wanted = progress(so_far).is_continue();
    for (number, bytes) in to_do {
        if !is_wanted {
            break;
        }
        let mut work = shared.sealer.work();
        // Merged in the meantime: then it has the columns of now.
        let entry =
            shared.index(|index| index.history.files_of(topic.id()).find(|e| e.record().number == number).cloned());
        match entry.map_or(Ok(()), |entry| rewrite(shared, &mut work, vec![entry])) {
            Err(error) if is_damage(&error) => failed = failed.or(Some(error)),
            other => other?,
        }
        drop(work);
        (so_far.files, so_far.bytes) = (so_far.files + 1, so_far.bytes + bytes);
        is_wanted = progress(so_far).is_continue();
    }
    let hint = "the other files were rebuilt; `kappa inspect --verify` shows all damage";
    failed.map_or(Ok(()), |error: Error| Err(error.with_hint(hint)))
}
