//! Writes, syncs and acknowledges what the encoder built: one sync for the whole group. While the writer syncs one group the
//! encoder builds the next and callers queue the one after.
//!
//! After a failed sync, or a failed write that is not for want of room, nothing more is acknowledged: what the disk then holds is
//! unknown, and asking it again would hide that. [`Log::reopen`](super::Log::reopen) goes on in a new file. When a write fails for
//! want of room, what it left is cut off and synced away, so that its records are certainly not in the log, and the log goes on.

use crate::env::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::log::encoder::{FileWrite, Issue, IssuedFrame, Place, Reply};
use crate::log::frame::footer::{FooterBuilder, FooterMark};
use crate::log::frame::header::{FileHeader, FrameHeader, set_synced_end};
use crate::log::journal::{JournalFile, create_file, file_name};
use crate::log::mutant::Mutant;
use crate::log::options::Durability;
use crate::log::pending::Waiters;
use crate::log::queue::GROUP_BYTES;
use crate::log::recovery::GoOn;
use crate::log::repeat;
use crate::log::shared::Shared;
use crate::log::space::{ROOM_HINT, is_full, is_full_error};
use crate::log::spare::END;
use crate::types::{AppendTime, FrameSeq, Offset};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Makes waiters fail instead of hang if a thread of the log panics.
pub(crate) struct FailOnPanic(pub Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the log panicked: this is a bug");
        }
    }
}

/// Why a group could not be written.
enum Failure {
    /// There is no room. What was written of it is to be cut off.
    Full(Error),
    /// Nobody knows what is on the disk.
    Broken(Error),
}

impl Failure {
    fn of(error: Error) -> Failure {
        if is_full_error(&error) { Failure::Full(error) } else { Failure::Broken(error) }
    }
}

/// Up to where everything is written as it should be.
struct Good {
    file: Arc<dyn DiskFile>,
    journal_file: Arc<JournalFile>,
    place: Place,
    footer: FooterMark,
    /// The last frame known durable.
    synced_end: FrameSeq,
}

/// Frames that are written and not yet known durable.
struct Unsynced {
    frames: Vec<(Option<Arc<JournalFile>>, Vec<IssuedFrame>)>,
    place: Place,
}

/// The writer's thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    journal_file: Arc<JournalFile>,
    /// What the file's footer will say.
    footer: FooterBuilder,
    /// The same of the files that the group at hand has ended.
    ended: Vec<FooterBuilder>,
    good: Good,
    synced_end: FrameSeq,
    /// Files begun by the group at hand.
    begun: VecDeque<Arc<JournalFile>>,
    unsynced: Vec<Unsynced>,
    /// When the first of those was written, monotonic.
    unsynced_since_us: u64,
    /// The file goes on up to here, with bytes that mean nothing.
    room_end: u64,
}

enum Next {
    Issue(Issue),
    /// The interval is over.
    Sync,
    Done,
}

impl Writer {
    /// A writer that goes on in `journal_file`, all frames of which are in `footer`.
    pub fn new(
        shared: Arc<Shared>,
        journal_file: Arc<JournalFile>,
        footer: FooterBuilder,
        place: Place,
    ) -> Result<Writer> {
        let file = journal_file.active().ok_or_else(|| Error::internal("the newest journal file is not open"))?;
        let synced_end = FrameSeq(place.go_on.seq.0 - 1);
        let room_end = file.len().map_err(|cause| Error::io("opening", journal_file.path(), cause))?;
        let good =
            Good { file: file.clone(), journal_file: journal_file.clone(), place, footer: footer.mark(), synced_end };
        Ok(Writer {
            shared,
            file,
            journal_file,
            footer,
            ended: Vec::new(),
            good,
            synced_end,
            begun: VecDeque::new(),
            unsynced: Vec::new(),
            unsynced_since_us: 0,
            room_end,
        })
    }

    /// Runs until the encoder is done or a write has failed.
    pub fn run(mut self) {
        let _guard = FailOnPanic(self.shared.clone());
        loop {
            let outcome = match self.next() {
                Next::Issue(issue) => self.take(issue),
                Next::Sync => self.settle(),
                Next::Done => break,
            };
            if let Err(cause) = outcome {
                self.shared.fail(cause.message());
                return;
            }
        }
        if let Err(cause) = self.settle() {
            self.shared.fail(cause.message());
            return;
        }
        // Bytes that mean nothing cost the next opening time, nothing else.
        let _ = self.drop_room(self.good.place.at);
        // A view that cannot be saved costs the next opening time, nothing else.
        let _ = self.shared.state().view.save();
    }

    fn next(&self) -> Next {
        let mut queue = self.shared.queue();
        loop {
            if let Some(issue) = queue.issue.take() {
                queue.writing = true;
                drop(queue);
                self.shared.for_encoder.notify_one();
                return Next::Issue(issue);
            }
            if queue.encoder_done || queue.failed.is_some() {
                return Next::Done;
            }
            let Some(left_us) = self.sync_in_us() else {
                queue = self.shared.for_writer.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = self.shared.for_writer.wait_timeout(queue, Duration::from_micros(left_us));
            let (after, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            if timeout.timed_out() && queue.issue.is_none() {
                return Next::Sync;
            }
        }
    }

    /// How long what is written may wait for its sync; `None` if nothing waits.
    fn sync_in_us(&self) -> Option<u64> {
        let Durability::Interval { ms } = self.shared.options.durability else { return None };
        let due = self.unsynced_since_us + u64::from(ms) * 1_000;
        (!self.unsynced.is_empty()).then(|| due.saturating_sub(self.shared.env.clock.monotonic_us()))
    }

    /// Writes a group and answers it. An error is the end of this writer; the group was told.
    fn take(&mut self, mut issue: Issue) -> Result<()> {
        match self.write_or_give_up_ballast(&mut issue) {
            Ok(()) => {}
            Err(Failure::Full(cause)) => {
                self.refuse(issue, &cause);
                return Ok(());
            }
            Err(Failure::Broken(cause)) => {
                self.answer_unknown(issue.waiters, &cause);
                return Err(cause);
            }
        }
        let Issue { writes, replies, waiters, queued_bytes, sync } = issue;
        let spare = self.written(writes);
        let at_once = sync || self.shared.options.durability == Durability::Durable;
        let settled = if at_once || self.sync_in_us() == Some(0) { self.settle() } else { Ok(()) };
        if let Err(cause) = settled {
            self.answer_unknown(waiters, &cause);
            return Err(cause);
        }
        self.make_room(queued_bytes, spare);
        let mut replies = replies.into_iter().map(|reply| self.answer(reply));
        for (waiters, requests) in waiters {
            waiters.answered(replies.by_ref().take(requests).collect());
        }
        Ok(())
    }

    fn answer(&self, reply: Reply) -> Result<crate::log::Ack> {
        match reply {
            Reply::Ready(answer) => answer,
            Reply::Repeat(found) => repeat::find(&self.shared, &found),
        }
    }

    fn answer_unknown(&self, waiters: Vec<(Waiters, usize)>, cause: &Error) {
        // First of all nothing more may be taken.
        self.shared.fail(cause.message());
        let message = format!("{}; the records may or may not be in the log", cause.message());
        let hint = "open the log again and look, or reopen it: then they are not in it";
        waiters.into_iter().for_each(|(waiters, _)| waiters.failed(ErrorKind::Unknown, &message, Some(hint)));
    }

    /// Those who wait for room in the queue and the encoder can go on.
    fn make_room(&self, queued_bytes: usize, spare: Option<Vec<u8>>) {
        let mut queue = self.shared.queue();
        queue.writing = false;
        queue.spare = queue.spare.take().or(spare);
        queue.bytes = queue.bytes.saturating_sub(queued_bytes);
        self.shared.room_now(queue);
        self.shared.for_encoder.notify_one();
    }

    /// Tells a group that there was no room for it, and the encoder that it has to go back.
    fn refuse(&mut self, issue: Issue, cause: &Error) {
        let message = format!("not written: {}", cause.message());
        let refused = |waiters: Vec<(Waiters, usize)>| {
            waiters.into_iter().for_each(|(w, _)| w.failed(ErrorKind::Unavailable, &message, Some(ROOM_HINT)));
        };
        let stale = {
            let mut queue = self.shared.queue();
            // A mark for which there is no room is not tried again.
            let marked = self.good.place.marked || issue.waiters.is_empty();
            queue.rewind = Some(Place { marked, ..self.good.place });
            queue.issue.take()
        };
        let mut queued_bytes = issue.queued_bytes;
        refused(issue.waiters);
        if let Some(stale) = stale {
            queued_bytes += stale.queued_bytes;
            refused(stale.waiters);
        }
        self.make_room(queued_bytes, None);
    }

    /// Writes a group. When the disk is full it cuts back, gives up the ballast, and tries once more in the room that it had.
    fn write_or_give_up_ballast(&mut self, issue: &mut Issue) -> Result<(), Failure> {
        let Err(failure) = self.write(&mut issue.writes) else { return Ok(()) };
        let Failure::Full(_) = &failure else { return Err(failure) };
        self.cut_back().map_err(Failure::Broken)?;
        // What cannot be removed is no help; that is all.
        let spares = self.shared.spares.give_up(&*self.shared.env.disk).unwrap_or(false);
        let ballast = self.shared.space.met_full(&self.shared.env).unwrap_or(false);
        if !spares && !ballast {
            return Err(failure);
        }
        let again = self.write(&mut issue.writes);
        if let Err(Failure::Full(_)) = &again {
            self.cut_back().map_err(Failure::Broken)?;
        }
        again
    }

    fn write(&mut self, writes: &mut [FileWrite]) -> Result<(), Failure> {
        for write in writes.iter_mut() {
            if let Some(header) = &write.begins {
                self.begin_file(header)?;
            }
            let mut from = 0;
            for frame in &write.frames {
                let bytes = write.bytes.get_mut(from..).unwrap_or_default();
                if frame.header.mark && !self.unsynced.is_empty() {
                    // A mark says that what is before it is durable.
                    self.settle().map_err(Failure::Broken)?;
                }
                let ahead = self.shared.options.has(Mutant::ProofAhead);
                let synced_end = if ahead { frame.header.seq } else { self.synced_end };
                set_synced_end(bytes, write.salt, frame.at, synced_end);
                self.footer.frame(frame.at, &FrameHeader { synced_end, ..frame.header }, &frame.topics);
                from += frame.header.frame_len as usize;
            }
            self.footer.bytes(&write.bytes);
            let end = write.at + write.bytes.len() as u64;
            *self.shared.written.lock().unwrap_or_else(PoisonError::into_inner) = (write.number, end);
            self.write_bytes(write.at, &write.bytes)?;
            if end < self.room_end {
                self.write_bytes(end, &END)?;
            }
        }
        Ok(())
    }

    fn write_bytes(&self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all_at(at, bytes).map_err(|cause| {
            let full = is_full(&cause);
            let error = Error::io("writing", self.journal_file.path(), cause);
            if full { Failure::Full(error) } else { Failure::Broken(error) }
        })
    }

    fn sync(&self) -> Result<()> {
        if self.shared.options.has(Mutant::AckBeforeSync) {
            return Ok(());
        }
        self.shared.syncs.add(1);
        let mut synced = self.file.sync_data();
        if self.shared.options.has(Mutant::RetrySync) {
            synced = synced.or_else(|_| self.file.sync_data());
        }
        synced.map_err(|cause| Error::io("syncing", self.journal_file.path(), cause))
    }

    /// Ends the file there, if it goes on.
    fn drop_room(&self, end: u64) -> Result<()> {
        if end >= self.room_end {
            return Ok(());
        }
        self.file.set_len(end).map_err(|cause| Error::io("ending", self.journal_file.path(), cause))
    }

    /// The old file is durable as a whole before the new one has a name: a file behind it proves it complete.
    fn begin_file(&mut self, header: &FileHeader) -> Result<(), Failure> {
        if header.previous_len < self.room_end {
            // First of all, so that what follows is never seen before bytes that mean nothing.
            self.drop_room(header.previous_len).and_then(|()| self.sync()).map_err(Failure::Broken)?;
        }
        if let Some(footer) = self.footer.finish(header.previous_len) {
            self.write_bytes(header.previous_len, &footer)?;
        }
        if !self.shared.options.has(Mutant::RollBeforeSync) {
            self.sync().map_err(Failure::Broken)?;
        }
        self.ended.push(std::mem::replace(&mut self.footer, FooterBuilder::new(header)));
        self.synced_end = FrameSeq(header.first_seq.0 - 1);
        let next = self.next_file(header).map_err(Failure::of)?;
        let open = next.active().ok_or_else(|| Error::internal("a new journal file is not open"));
        self.file = open.map_err(Failure::Broken)?;
        self.room_end = self.file.len().map_err(|e| Failure::Broken(Error::io("opening", next.path(), e)))?;
        self.begun.push_back(next.clone());
        self.journal_file = next;
        Ok(())
    }

    /// A file that was written before, if there is one, or a new one.
    fn next_file(&self, header: &FileHeader) -> Result<Arc<JournalFile>> {
        let Shared { env, journal, options, spares, .. } = &*self.shared;
        let path = journal.join(file_name(header.number));
        let io = |cause| Error::io("creating", &path, cause);
        if !spares.begin(&*env.disk, &path, header).map_err(io)? {
            return create_file(env, journal, header, options);
        }
        if !options.has(Mutant::NoFolderSync) {
            env.disk.sync_dir(journal).map_err(io)?;
        }
        JournalFile::open_active(env, path, header)
    }

    /// Undoes the group at hand, durably: files it began go, the newest first, and the one before them ends where it did.
    fn cut_back(&mut self) -> Result<()> {
        let Shared { env, journal, .. } = &*self.shared;
        let first = self.good.place.number + 1;
        for number in (first..=first + self.begun.len() as u64).rev() {
            remove_file(env, journal, number)?;
        }
        self.begun.clear();
        if let Some(first) = self.ended.drain(..).next() {
            self.footer = first;
        }
        self.footer.go_back(&self.good.footer);
        let path = self.good.journal_file.path();
        let io = |cause| Error::io("cutting back", path, cause);
        self.good.file.set_len(self.good.place.at).map_err(io)?;
        self.shared.syncs.add(1);
        self.good.file.sync_data().map_err(io)?;
        (self.file, self.journal_file) = (self.good.file.clone(), self.good.journal_file.clone());
        self.room_end = 0;
        // What was written before that group is durable by now.
        self.good.synced_end = FrameSeq(self.good.place.go_on.seq.0 - 1);
        self.synced_end = self.good.synced_end;
        self.publish();
        Ok(())
    }

    /// Takes note of a group that is written; gives back the memory that it was in.
    fn written(&mut self, mut writes: Vec<FileWrite>) -> Option<Vec<u8>> {
        let mut spare = writes.iter_mut().map(|write| std::mem::take(&mut write.bytes)).max_by_key(Vec::capacity)?;
        spare.clear();
        let (last, number, salt) =
            writes.last().and_then(|write| Some((write.frames.last()?, write.number, write.salt)))?;
        let go_on = GoOn {
            seq: FrameSeq(last.header.seq.0 + 1),
            position: last.header.end(),
            clock: last.header.append_time.max(last.header.clock_floor.unwrap_or(AppendTime::MIN)),
        };
        let at = last.at + u64::from(last.header.frame_len);
        let place = Place { number, salt, at, go_on, marked: last.header.mark, ..self.good.place };
        if self.unsynced.is_empty() {
            self.unsynced_since_us = self.shared.env.clock.monotonic_us();
        }
        let frames = writes.into_iter().map(|write| {
            let begun = write.begins.and_then(|_| self.begun.pop_front());
            (begun, write.frames)
        });
        self.unsynced.push(Unsynced { frames: frames.collect(), place });
        let synced_end = self.synced_end;
        self.ended.clear();
        let (file, journal_file) = (self.file.clone(), self.journal_file.clone());
        self.good = Good { file, journal_file, place, footer: self.footer.mark(), synced_end };
        // One huge batch does not keep its memory for ever.
        Some(spare).filter(|spare| spare.capacity() <= 2 * GROUP_BYTES)
    }

    /// Makes what is written durable and shows it to readers.
    fn settle(&mut self) -> Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.sync()?;
        self.synced_end = FrameSeq(self.good.place.go_on.seq.0 - 1);
        self.good.synced_end = self.synced_end;
        self.publish();
        Ok(())
    }

    /// What is written is durable: index, ends, view and topics show it.
    fn publish(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let Some(place) = unsynced.last().map(|group| group.place) else { return };
        {
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            for (begun, frames) in unsynced.iter().flat_map(|group| &group.frames) {
                begun.iter().for_each(|file| index.add_file(file.clone()));
                frames.iter().for_each(|frame| index.push(frame.at, &frame.header, &frame.topics));
            }
        }
        if unsynced.iter().flat_map(|group| &group.frames).any(|(begun, _)| begun.is_some()) {
            self.shared.sealer.note_unsealed(self.shared.index(|index| index.unsealed()));
            self.shared.for_keeper.notify_one();
        }
        let mut metas = Vec::new();
        let mut state = self.shared.state();
        let groups = unsynced.into_iter().flat_map(|group| group.frames);
        for frame in groups.flat_map(|(_, frames)| frames) {
            for run in frame.topics.iter().flat_map(|entry| entry.runs.iter().map(|run| (entry.topic, run))) {
                let (topic, run) = run;
                state.ends.insert((topic, run.partition), Offset(run.base.0 + u64::from(run.count)));
            }
            let header = &frame.header;
            state.producers.apply(header.seq, header.first_position, header.append_time, &frame.topics, &frame.meta);
            state.view.apply(header.seq, &frame.meta);
            metas.extend(frame.meta);
        }
        state.durable_end = place.go_on.position;
        state.place = place;
        while state.in_flight.front().is_some_and(|(seq, _)| *seq < place.go_on.seq) {
            state.in_flight.pop_front();
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        if !metas.is_empty() {
            let mut topics = self.shared.topics.write().unwrap_or_else(PoisonError::into_inner);
            for record in &metas {
                topics.apply(record).expect("the log checked its own record before writing it");
            }
        }
        self.shared.advanced.notify_all();
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

/// Removes a journal file, durably, and what was being written in its place.
pub(crate) fn remove_file(env: &crate::env::Env, journal: &std::path::Path, number: u64) -> Result<()> {
    let name = file_name(number);
    for name in [format!("{name}.tmp"), name] {
        let path = journal.join(name);
        let io = |cause| Error::io("removing", &path, cause);
        if env.disk.exists(&path).map_err(io)? {
            env.disk.remove_file(&path).and_then(|()| env.disk.sync_dir(journal)).map_err(io)?;
        }
    }
    Ok(())
}
