//! Writing a history file so that nobody is hurt by it: in small pieces, each synced, with rests in between while appends go
//! on; under a temporary name, and under its own only when what is on disk is what was meant.

use super::entry::map_whole;
use super::file::FileRecord;
use super::plan::{Pace, rest_us};
use super::read::HistoryFile;
use super::schema::TopicSpec;
use super::write::{FileWriter, GroupLimits};
use crate::codec::xxh64;
use crate::env::{DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::LogBatch;
use crate::log::shared::Shared;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes written and synced at once.
const PIECE_BYTES: usize = 256 << 10;
/// Batches are handed on when they have this many rows or bytes together: tiny ones would cost more than their records.
const ROWS: usize = 8 << 10;
const ROWS_BYTES: usize = 1 << 20;

/// Folder of the history files within the data folder.
pub(crate) const HISTORY_DIR: &str = "history";
/// What the name of a file ends with until it is complete.
const TEMPORARY: &str = ".tmp";

struct Pieces<'a> {
    shared: &'a Shared,
    file: Arc<dyn DiskFile>,
    at: u64,
    piece: Vec<u8>,
    since_us: u64,
}

impl Pieces<'_> {
    fn write_piece(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.at, &self.piece)?;
        self.file.sync_data()?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        let (appends, closing) = {
            let queue = self.shared.queue();
            (queue.bytes > 0, queue.closing || queue.failed.is_some())
        };
        if closing {
            return Err(io::Error::other("the log is being closed"));
        }
        let work_us = self.shared.env.clock.monotonic_us().saturating_sub(self.since_us);
        let unsealed = self.shared.sealer.unsealed_bytes();
        let rest = rest_us(Pace { work_us, appends, unsealed, unsealed_max: self.shared.options.unsealed_bytes_max });
        if rest > 0 {
            self.shared.env.clock.sleep_us(rest);
        }
        self.since_us = self.shared.env.clock.monotonic_us();
        Ok(())
    }
}

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.write_piece() }
    }
}

/// Puts batches of one topic together.
pub(super) struct Gather<'a, 'b> {
    out: &'a mut FileWriter<'b>,
    waiting: Vec<LogBatch>,
    rows: usize,
    bytes: usize,
    /// Rows handed on.
    written: u64,
}

impl Gather<'_, '_> {
    /// Adds records behind those before.
    pub fn push(&mut self, batch: LogBatch) -> Result<()> {
        self.rows += batch.len();
        self.bytes += batch.byte_len();
        self.waiting.push(batch);
        if self.rows >= ROWS || self.bytes >= ROWS_BYTES { self.hand_on() } else { Ok(()) }
    }

    /// The records of the topic are complete.
    pub fn hand_on(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.written += self.rows as u64;
        (self.rows, self.bytes) = (0, 0);
        match LogBatch::concat(waiting)? {
            Some(batch) => self.out.push(&batch),
            None => Ok(()),
        }
    }
}

fn paths(shared: &Shared, number: u64) -> (PathBuf, PathBuf) {
    let name = FileRecord::name_of(number);
    (shared.sealer.dir.join(format!("{name}{TEMPORARY}")), shared.sealer.dir.join(name))
}

/// Writes one file of these topics; `fill` pushes their records. Durable, checked and under its name when this returns, or
/// gone; `None` if there were no records.
pub(super) fn write_file(
    shared: &Shared,
    number: u64,
    topics: Vec<TopicSpec>,
    fill: impl FnOnce(&mut Gather<'_, '_>) -> Result<()>,
) -> Result<Option<FileRecord>> {
    let disk = &*shared.env.disk;
    let dir = &shared.sealer.dir;
    crate::env::create_dir_durably(disk, dir).map_err(|cause| Error::io("creating", dir, cause))?;
    let (temporary, path) = paths(shared, number);
    let record = match write_temporary(shared, number, &temporary, topics, fill) {
        Ok(Some(record)) => record,
        other => {
            // What cannot be removed now is removed when the log is opened again.
            let _ = disk.remove_file(&temporary);
            let closing = shared.queue().closing;
            return other.map_err(|error| match closing {
                true => Error::new(ErrorKind::Closed, "the log was closed while a history file was written"),
                false => error,
            });
        }
    };
    disk.rename(&temporary, &path).map_err(|cause| Error::io("naming", &path, cause))?;
    disk.sync_dir(dir).map_err(|cause| Error::io("syncing", dir, cause))?;
    Ok(Some(record))
}

fn write_temporary(
    shared: &Shared,
    number: u64,
    path: &Path,
    topics: Vec<TopicSpec>,
    fill: impl FnOnce(&mut Gather<'_, '_>) -> Result<()>,
) -> Result<Option<FileRecord>> {
    let disk = &*shared.env.disk;
    let io = |cause| Error::io("writing", path, cause);
    if disk.exists(path).map_err(io)? {
        disk.remove_file(path).map_err(io)?;
    }
    let file = disk.open(path, OpenMode::CreateNew).map_err(io)?;
    let since_us = shared.env.clock.monotonic_us();
    let mut pieces = Pieces { shared, file, at: 0, piece: Vec::with_capacity(PIECE_BYTES), since_us };
    let mut writer = FileWriter::new(&mut pieces, topics)?.with_limits(group_limits(shared));
    let mut gather = Gather { out: &mut writer, waiting: Vec::new(), rows: 0, bytes: 0, written: 0 };
    fill(&mut gather)?;
    gather.hand_on()?;
    let rows = gather.written;
    if rows == 0 {
        return Ok(None);
    }
    let record = writer.finish(number)?;
    io::Write::flush(&mut pieces).map_err(io)?;
    drop(pieces);
    check(shared, path, &record, rows)?;
    Ok(Some(record))
}

/// Row groups are as large as they are by default with journal files of the default size, and smaller with smaller ones.
fn group_limits(shared: &Shared) -> GroupLimits {
    let limits = GroupLimits::default();
    let bytes = usize::try_from(shared.options.file_bytes / 8).unwrap_or(limits.bytes);
    GroupLimits { bytes: limits.bytes.min(bytes), ..limits }
}

/// What is on disk is what was meant, and holds as many records as went in.
fn check(shared: &Shared, path: &Path, record: &FileRecord, rows: u64) -> Result<()> {
    let bytes = map_whole(&shared.env, path, record.bytes)?;
    let other = |what: &str| Error::new(ErrorKind::Unavailable, format!("{} {what}", path.display()));
    if xxh64(&bytes, 0) != record.xxh64 {
        return Err(other("does not hold the bytes that were just written"));
    }
    let file = HistoryFile::open(bytes, &record.number.to_string())?;
    let found: u64 = file.groups().iter().map(|group| group.extent.rows).sum();
    let named: u64 = record.topics.iter().map(|topic| topic.extent.rows).sum();
    if found != rows || named != rows {
        return Err(Error::internal(format!("{found} of {rows} records came into a history file ({named} named)")));
    }
    Ok(())
}

/// Removes what no record of the catalog names: files that were being written, or replaced, when the log ended. `known` says
/// whether a file of this number is in history.
pub(crate) fn remove_orphans(env: &crate::env::Env, dir: &Path, known: impl Fn(u64) -> bool) -> Result<()> {
    let io = |what: &'static str| move |cause| Error::io(what, dir, cause);
    if !env.disk.exists(dir).map_err(io("looking for"))? {
        return Ok(());
    }
    let mut removed = false;
    for entry in env.disk.list(dir).map_err(io("listing"))? {
        let stem = entry.name.strip_suffix(TEMPORARY).unwrap_or(&entry.name);
        let number: Option<u64> = stem.split_once('.').and_then(|(number, _)| number.parse().ok());
        let Some(number) = number.filter(|number| FileRecord::name_of(*number) == stem) else { continue };
        if stem == entry.name && known(number) {
            continue;
        }
        let path = dir.join(&entry.name);
        env.disk.remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
        removed = true;
    }
    if removed { env.disk.sync_dir(dir).map_err(io("syncing")) } else { Ok(()) }
}
