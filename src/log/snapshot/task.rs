//! What the keeper does about snapshots: writes one when it is worth it, and removes the journal files that the two newest
//! make needless.

use super::{META_DIR, Named, Snapshot, file_name, key, list, named, read};
use crate::env::replace_file;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{CatalogView, MetaRecord, MetaSpace};
use crate::log::frame::header::FRAMES_AT;
use crate::log::index::Index;
use crate::log::journal;
use crate::log::open::sealed_of;
use crate::log::shared::Shared;
use crate::types::FrameSeq;
use std::sync::{Arc, MutexGuard, PoisonError};

/// A place in the journal: file and byte.
type Place = (u64, u64);

/// Where the keeper's work on snapshots is. Only the keeper changes it.
#[derive(Debug)]
pub(crate) struct Progress {
    log_id: u64,
    /// Where the journal was when the newest snapshot was made.
    since: Place,
    /// Journal files up to this one were removed.
    removed_through: u64,
}

impl Progress {
    pub fn new(log_id: u64, view: &dyn CatalogView, index: &Index) -> Progress {
        let applied = named(view).last().map_or(FrameSeq(0), |(_, named)| FrameSeq(named.applied));
        Progress { log_id, since: index.place_behind(applied), removed_through: 0 }
    }
}

/// What decides whether a snapshot is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    /// Bytes of journal since the last snapshot, about.
    written: u64,
    /// Bytes of journal files that could be removed if both snapshots were newer, about.
    waiting: u64,
    /// A snapshot after so many bytes.
    every: u64,
}

/// An idle log gets none: nothing is written, and two snapshots let everything go that waits.
fn is_worth_it(facts: &Facts) -> bool {
    facts.written >= facts.every || facts.waiting >= facts.every
}

/// The last journal file that both of the two newest snapshots know to be in history; 0 = none.
fn removable_through(named: &[(u64, Named)]) -> u64 {
    match named {
        [.., (_, older), (_, newest)] => older.sealed_file.min(newest.sealed_file),
        _ => 0,
    }
}

fn progress(shared: &Shared) -> MutexGuard<'_, Progress> {
    shared.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes between two places, when full files have `file_bytes`.
fn between(from: Place, to: Place, file_bytes: u64) -> u64 {
    (to.0.saturating_sub(from.0) * file_bytes + to.1).saturating_sub(from.1)
}

/// Writes a snapshot if it is worth it.
pub(crate) fn write_step(shared: &Arc<Shared>) -> Result<bool> {
    let (named, sealed) = {
        let state = shared.state();
        (named(&*state.view), sealed_of(&*state.view).map_or(0, |sealed| sealed.file))
    };
    let end = shared.index(Index::end_place);
    let file_bytes = shared.options.file_bytes;
    let facts = Facts {
        written: between(progress(shared).since, end, file_bytes),
        waiting: sealed.saturating_sub(removable_through(&named)) * file_bytes,
        every: shared.options.snapshot_bytes,
    };
    if !is_worth_it(&facts) {
        return Ok(false);
    }
    write(shared, &named)?;
    progress(shared).since = end;
    Ok(true)
}

/// The catalog as it is now.
fn take(shared: &Shared, number: u64) -> Snapshot {
    let log_id = progress(shared).log_id;
    let state = shared.state();
    let of = |space| state.view.scan(space, "").into_iter().map(move |(key, value)| (space, key, value));
    Snapshot {
        number,
        log_id,
        applied: state.view.applied(),
        position: state.durable_end,
        clock: state.clock.last(),
        entries: MetaSpace::ALL.into_iter().flat_map(of).collect(),
        ends: state.ends.clone(),
        producers: state.producers.encode(),
    }
}

/// Makes a snapshot durable, names it in the journal together with the one before, and removes all others.
fn write(shared: &Arc<Shared>, before: &[(u64, Named)]) -> Result<()> {
    let disk = &*shared.env.disk;
    let there = list(&shared.env, &shared.data)?;
    let last = there.iter().map(|(number, _)| *number).chain(before.iter().map(|(number, _)| *number)).max();
    let snapshot = take(shared, last.map_or(1, |last| last + 1));
    let bytes = snapshot.encode();
    let path = shared.data.join(META_DIR).join(file_name(snapshot.number));
    replace_file(disk, &path, &bytes).map_err(|cause| Error::io("writing", &path, cause))?;
    let kept = before.last().map(|(number, _)| *number);
    let unnamed = before.iter().filter(|(number, _)| Some(*number) != kept).map(|(number, _)| unname(*number));
    let records = unnamed.chain([Named::of(&snapshot, &bytes).record(snapshot.number)]).collect();
    shared.append(AppendBatch::meta(records), true)?.wait()?;
    for (_, path) in there.iter().filter(|(number, _)| Some(*number) != kept) {
        disk.remove_file(path).map_err(|cause| Error::io("removing", path, cause))?;
    }
    Ok(())
}

fn unname(number: u64) -> MetaRecord {
    MetaRecord { space: MetaSpace::Snapshot, key: key(number), value: None }
}

/// Removes the oldest journal file that is needed no more.
pub(crate) fn remove_step(shared: &Arc<Shared>) -> Result<bool> {
    let named = named(&*shared.state().view);
    let through = removable_through(&named);
    if through <= progress(shared).removed_through {
        return Ok(false);
    }
    let journal = &shared.journal;
    let listed = shared.env.disk.list(journal).map_err(|cause| Error::io("listing", journal, cause))?;
    let mut files: Vec<(u64, String)> =
        listed.into_iter().filter_map(|entry| Some((journal::file_number(&entry.name)?, entry.name))).collect();
    files.sort();
    let Some((number, name)) = files.into_iter().find(|(number, _)| *number <= through) else {
        progress(shared).removed_through = through;
        return Ok(false);
    };
    if shared.index(|index| index.holds(number)) {
        return Ok(false);
    }
    if !both_verify(shared, &named)? {
        return Ok(true);
    }
    let path = journal.join(name);
    let mapped = shared.index(|index| index.maps(number));
    let retired = shared.spares.retire(&*shared.env.disk, &path, mapped);
    retired.map_err(|cause| Error::io("removing", &path, cause))?;
    Ok(true)
}

/// Reads the two newest snapshots once more: what they hold will be nowhere else. One that does not verify is given up, so
/// that another is written.
fn both_verify(shared: &Arc<Shared>, named: &[(u64, Named)]) -> Result<bool> {
    let log_id = progress(shared).log_id;
    for (number, record) in named.iter().rev().take(2) {
        let path = shared.data.join(META_DIR).join(file_name(*number));
        let why = match read(&shared.env, &path, *number, log_id) {
            Ok((snapshot, bytes)) if Named::of(&snapshot, &bytes) == *record => continue,
            Ok(_) => format!("the snapshot {} is not the one that was written", path.display()),
            Err(error) if error.kind() == ErrorKind::Damage => error.message().to_owned(),
            Err(error) if !shared.env.disk.exists(&path).unwrap_or(true) => error.message().to_owned(),
            Err(error) => return Err(error),
        };
        shared.trouble(format!("{why}; another one is written"));
        shared.append(AppendBatch::meta(vec![unname(*number)]), true)?.wait()?;
        progress(shared).since = (0, FRAMES_AT);
        return Ok(false);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_worth_it_after_enough_bytes_and_never_in_an_idle_log() {
        let facts = |written, waiting| Facts { written, waiting, every: 100 };
        for (facts, expected) in
            [(facts(0, 0), false), (facts(99, 99), false), (facts(100, 0), true), (facts(0, 100), true)]
        {
            assert_eq!(is_worth_it(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn files_go_only_when_both_snapshots_know_them_to_be_in_history() {
        let of = |sealed: &[u64]| {
            let named = |file: &u64| Named { applied: 1, sealed_file: *file, bytes: 1, crc: 1 };
            removable_through(&sealed.iter().map(|file| (1, named(file))).collect::<Vec<_>>())
        };
        assert_eq!((of(&[]), of(&[5]), of(&[3, 5]), of(&[1, 3, 5]), of(&[5, 3])), (0, 0, 3, 3, 3));
    }
}
