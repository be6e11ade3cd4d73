//! Going on after a failed write or sync, without giving the folder back.
//!
//! What was written and not synced may look as if it were there and not be: the page cache can show bytes that never reach the
//! disk. So it is not looked at. The journal is cut behind its last frame known durable, and goes on in a new file, whose header
//! says where the old one ends.

use crate::env::OpenMode;
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::MemoryView;
use crate::log::encoder::Place;
use crate::log::frame::header::FileHeader;
use crate::log::journal::{create_file, file_name, file_number, new_salt};
use crate::log::recovery::GoOn;
use crate::log::report::TornTail;
use crate::log::shared::Shared;
use crate::log::writer::remove_file;
use crate::log::{Log, RecoveryReport, open};
use std::path::Path;
use std::sync::PoisonError;

impl Log {
    /// Goes on after a write or sync has failed: stops the threads, cuts off what is not known durable, reads the journal again from
    /// disk and goes on in a new file. Readers, consumers and clones of this log go on working. Does nothing to a log that works.
    ///
    /// Afterwards records whose append ended with [`ErrorKind::Unknown`] are certainly not in the log and can be sent again. So are
    /// records that were acknowledged by [`Durability::Interval`](super::Durability::Interval) and not synced yet: the report
    /// says how many bytes were cut off. (If the process ends before this returns, the next opening decides as after a crash.)
    ///
    /// If it fails, the log stays as it was: readable, and taking nothing. [`ErrorKind::Unavailable`]: the disk still refuses;
    /// [`ErrorKind::Damage`]: what was durable cannot be read; [`ErrorKind::Closed`].
    pub fn reopen(&self) -> Result<RecoveryReport> {
        let inner = &self.inner;
        let shared = &inner.shared;
        let _one = inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let queue = shared.queue();
            if queue.closing {
                return Err(Error::new(ErrorKind::Closed, "the log was closed"));
            }
            if queue.failed.is_none() {
                return Ok(inner.report.clone());
            }
        }
        inner.join();
        let dir = inner.dir();
        let (place, clock) = {
            let state = shared.state();
            (state.place, state.clock.last())
        };
        let torn = cut_behind(shared, &place)?;
        let header = FileHeader {
            number: place.number + 1,
            salt: new_salt(&shared.env, &shared.options),
            log_id: place.log_id,
            first_seq: place.go_on.seq,
            first_position: place.go_on.position,
            clock,
            previous_len: place.at,
        };
        create_file(&shared.env, &shared.journal, &header, &shared.options)?;
        finish_cut(shared, &place)?;
        {
            // The view on disk can be opened once at a time; meanwhile its content is in memory.
            let mut state = shared.state();
            state.view = Box::new(MemoryView::copy_of(&*state.view));
        }
        let opened = open::open(&shared.env, dir, &shared.options)?;
        let newest = opened.index.last_file().ok_or_else(|| Error::internal("a log without files"))?;
        let GoOn { seq, position, .. } = opened.place.go_on;
        if (seq, position) != (place.go_on.seq, place.go_on.position) {
            let message = format!("the journal goes on at frame {seq}, and was durable to {}", place.go_on.seq);
            return Err(Error::damage(message).with_hint("open the log again"));
        }
        {
            let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
            *index = opened.index;
        }
        *shared.topics.write().unwrap_or_else(PoisonError::into_inner) = opened.topics;
        {
            let mut state = shared.state();
            state.in_flight.clear();
            (state.ends, state.view, state.producers) = (opened.ends, opened.view, opened.producers);
            state.place = opened.place;
        }
        {
            let mut queue = shared.queue();
            (queue.failed, queue.rewind, queue.issue) = (None, None, None);
            (queue.writing, queue.encoder_done, queue.bytes) = (false, false, 0);
        }
        inner.start_all(newest, opened.footer, opened.place)?;
        Ok(RecoveryReport { torn: torn.or(opened.report.torn), ..opened.report })
    }
}

/// Removes the files behind the last durable frame's, the newest first, so that at every moment what is there is what a crash might
/// have left. Says what will be cut off the file itself.
fn cut_behind(shared: &Shared, place: &Place) -> Result<Option<TornTail>> {
    let journal: &Path = &shared.journal;
    let entries = shared.env.disk.list(journal).map_err(|cause| Error::io("listing", journal, cause))?;
    let (written, written_to) = *shared.written.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = 0;
    let mut behind = Vec::new();
    for entry in &entries {
        let name = entry.name.strip_suffix(".tmp").unwrap_or(&entry.name);
        match file_number(name) {
            Some(number) if number > place.number => behind.push(number),
            Some(number) if number == place.number && name == entry.name => {
                let to = if number == written { written_to.min(entry.len) } else { entry.len };
                bytes = to.saturating_sub(place.at);
            }
            _ => {}
        }
    }
    behind.sort_unstable();
    behind.dedup();
    for number in behind.into_iter().rev() {
        remove_file(&shared.env, journal, number)?;
    }
    Ok((bytes > 0).then(|| TornTail { file: file_name(place.number), at: place.at, bytes, kept_in: None }))
}

/// Ends the file of the last durable frame there.
fn finish_cut(shared: &Shared, place: &Place) -> Result<()> {
    let path = shared.journal.join(file_name(place.number));
    let io = |cause| Error::io("cutting", &path, cause);
    let file = shared.env.disk.open(&path, OpenMode::ReadWrite).map_err(io)?;
    file.set_len(place.at).and_then(|()| file.sync_data()).map_err(io)
}
