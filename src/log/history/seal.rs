//! Sealing: full journal files become history files, oldest first. The files are durable and checked before one metadata
//! frame names them; until then the journal is read, from then on they are. A crash leaves the one or the other.

use super::contents::History;
use super::file::FileRecord;
use super::output::{Gather, write_file};
use super::plan::{Share, divide};
use super::schema::TopicSpec;
use super::sealer::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{MetaRecord, MetaSpace, Sealed, lost_record};
use crate::log::index::{Piece, Sealable};
use crate::log::journal::ReadAhead;
use crate::log::reader::{Unread, read_body};
use crate::log::records::ValueColumns;
use crate::log::report::Damage;
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{Position, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// Journal files sealed in one step at most.
pub(crate) const STEP_FILES: usize = 4;

/// Seals the oldest full journal files; true if there may be more.
pub(crate) fn step(shared: &Arc<Shared>) -> Result<bool> {
    if !shared.options.history {
        return Ok(false);
    }
    let mut work = shared.sealer.work();
    if shared.options.background && !work.may_try(&shared.env) {
        return Ok(false);
    }
    let sealed = seal(shared, &mut work);
    work.tried(&shared.env, sealed.is_err());
    sealed
}

fn seal(shared: &Shared, work: &mut Work) -> Result<bool> {
    catch_up(shared)?;
    let bytes_max = shared.sealer.sizes.target;
    let Some(found) = shared.index(|index| index.sealable(STEP_FILES, bytes_max)) else { return Ok(false) };
    let begun_us = shared.env.clock.monotonic_us();
    let end = found.next.first_position;
    let mut lost: Vec<Damage> =
        shared.index(|index| index.lost.iter().filter(|lost| lost.positions.0 < end).cloned().collect());
    let mut unrecorded = Unrecorded { shared, files: Vec::new() };
    for topics in divide(&shares(shared, &found), shared.sealer.sizes) {
        let number = work.number();
        let specs = topics.iter().filter_map(|topic| spec(shared, *topic)).collect();
        let fill = |out: &mut Gather<'_, '_>| {
            topics.iter().try_for_each(|topic| copy_topic(shared, &found.pieces, *topic, out, &mut lost))
        };
        unrecorded.files.extend(write_file(shared, number, specs, fill)?);
    }
    let sealed = Sealed {
        file: found.next.number.saturating_sub(1),
        end_seq: found.next.first_seq,
        end_position: end,
        clock: found.next.clock,
    };
    let mut records: Vec<MetaRecord> = lost.iter().map(lost_record).collect();
    records.push(sealed.record());
    unrecorded.record(records)?;
    switch(shared)?;
    let took_us = shared.env.clock.monotonic_us().saturating_sub(begun_us);
    shared.sealer.note_sealed(found.bytes, took_us);
    Ok(true)
}

/// Files that are complete and that no metadata record names yet: removed again unless that is changed.
pub(super) struct Unrecorded<'a> {
    pub shared: &'a Shared,
    pub files: Vec<FileRecord>,
}

impl Unrecorded<'_> {
    /// Names the files in one frame, together with `records`, and waits until it is durable.
    pub fn record(mut self, mut records: Vec<MetaRecord>) -> Result<()> {
        let files = std::mem::take(&mut self.files);
        records.extend(files.iter().map(|file| MetaRecord {
            space: MetaSpace::History,
            key: FileRecord::key_of(file.number),
            value: Some(file.encode()),
        }));
        let appended = self.shared.append(AppendBatch::meta(records), true).and_then(|pending| pending.wait());
        match appended {
            Ok(_) => Ok(()),
            Err(error) => {
                // Whether the frame is in the journal is not known: then opening it again decides what the files are.
                if error.kind() != ErrorKind::Unknown {
                    self.files = files;
                }
                Err(error)
            }
        }
    }
}

impl Drop for Unrecorded<'_> {
    fn drop(&mut self) {
        for file in &self.files {
            let path = self.shared.sealer.dir.join(FileRecord::name_of(file.number));
            // What cannot be removed now is removed when the log is opened again.
            let _ = self.shared.env.disk.remove_file(&path);
        }
    }
}

/// What each topic that is to be kept has in these journal files.
fn shares(shared: &Shared, found: &Sealable) -> Vec<Share> {
    let mut bytes: BTreeMap<TopicId, u64> = BTreeMap::new();
    for piece in &found.pieces {
        *bytes.entry(piece.topic).or_default() += u64::from(piece.plain_len);
    }
    let share = |(topic, bytes): (TopicId, u64)| {
        let partitions = shared.topics(|topics| topics.by_id(topic)).ok()?.partitions();
        Some(Share { topic, bytes, partitions })
    };
    bytes.into_iter().filter_map(share).collect()
}

/// How a topic is written; `None` if it was deleted.
pub(super) fn spec(shared: &Shared, topic: TopicId) -> Option<TopicSpec> {
    let topic = shared.topics(|topics| topics.by_id(topic)).ok()?;
    let columns = columns_of(shared, &topic);
    Some(TopicSpec { topic: topic.id(), name: topic.name().to_owned(), config: topic.config().clone(), columns })
}

/// The declared columns of a topic.
pub(super) fn columns_of(shared: &Shared, topic: &Topic) -> Option<Arc<ValueColumns>> {
    crate::log::columns::of_topic(&*shared.state().view, topic)
}

/// Records of a topic below this position are gone.
pub(super) fn kept_from(shared: &Shared, topic: TopicId) -> Position {
    shared.topics(|topics| topics.trim_of(topic)).map_or(Position(0), |trim| trim.first_position)
}

/// Pushes a topic's records in some journal files; adds to `lost` what cannot be read.
fn copy_topic(
    shared: &Shared,
    pieces: &[Piece],
    topic: TopicId,
    out: &mut Gather<'_, '_>,
    lost: &mut Vec<Damage>,
) -> Result<()> {
    let kept_from = kept_from(shared, topic);
    let mut ahead = ReadAhead::default();
    let from = pieces.partition_point(|piece| piece.topic < topic);
    for piece in pieces.iter().skip(from).take_while(|piece| piece.topic == topic) {
        let found = shared.index(|index| index.located(*piece));
        let found = found.ok_or_else(|| Error::internal("a journal file left the index while it was sealed"))?;
        if found.end() <= kept_from {
            continue;
        }
        match read_body(&shared.options, &found, &mut ahead) {
            Ok(batch) => {
                batch.between(kept_from, Position(u64::MAX)).into_iter().try_for_each(|batch| out.push(batch))?
            }
            Err(Unread::Damaged(mut damage, _)) => {
                let name = shared.topics(|topics| topics.by_id(topic)).ok().map(|topic| topic.name().to_owned());
                damage.offsets.iter_mut().for_each(|offsets| offsets.name.clone_from(&name));
                lost.push(*damage);
            }
            Err(Unread::Failed(error)) => return Err(error),
        }
    }
    out.hand_on()
}

/// Makes what the catalog says about history what readers see. To be called by who holds the work on history.
pub(super) fn switch(shared: &Shared) -> Result<()> {
    let old = shared.index(|index| index.history.clone());
    let new = History::load(&shared.env, &shared.sealer.dir, &*shared.state().view, &old);
    let new = new.map_err(|cause| Error::internal(format!("a record of history that was just written: {cause}")))?;
    old.files().filter(|entry| !new.has(entry.record().number)).for_each(|entry| entry.retire());
    let before = {
        let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
        index.switch(new)
    };
    shared.sealer.note_unsealed(shared.index(|index| index.unsealed()));
    // Files that nobody reads are unlinked here, with no lock held.
    drop((old, before));
    Ok(())
}

/// A frame may have become durable although waiting for it failed.
pub(super) fn catch_up(shared: &Shared) -> Result<()> {
    let said = shared.state().view.get(MetaSpace::Journal, crate::log::catalog::SEALED_KEY);
    let said = said.and_then(|value| Sealed::decode(&value).ok()).map_or(0, |sealed| sealed.file);
    if said > shared.index(|index| index.history.sealed_file) { switch(shared) } else { Ok(()) }
}
