//! Journal files: their names, how they come to be, and how their bytes are read.
//!
//! A file grows as it is written, or it is one that was written before, see [`spare`](super::spare). Some zeros behind the last frame
//! are an end like the end of the file.

use crate::env::{DiskFile, Env, Mapped, OpenMode, replace_file, replace_file_unsynced};
use crate::error::{Error, Result};
use crate::log::frame::footer::{FooterFrame, TRAILER_LEN, Trailer};
use crate::log::frame::header::FileHeader;
use crate::log::mutant::Mutant;
use crate::log::options::LogOptions;
use arrow::buffer::{Buffer, MutableBuffer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const ENDING: &str = ".journal";

/// The name of file `number`.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:010}{ENDING}")
}

/// The number of a journal file's name.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Where the checksums of a new file start.
pub(crate) fn new_salt(env: &Env, options: &LogOptions) -> u64 {
    if options.has(Mutant::NoSalt) { 0 } else { env.random.next_u64() }
}

/// Creates a file durably: it has its name only once its header is on disk.
pub(crate) fn create_file(
    env: &Env,
    dir: &Path,
    header: &FileHeader,
    options: &LogOptions,
) -> Result<Arc<JournalFile>> {
    let path = dir.join(file_name(header.number));
    let create = if options.has(Mutant::NoFolderSync) { replace_file_unsynced } else { replace_file };
    create(&*env.disk, &path, &header.encode()).map_err(|cause| Error::io("creating", &path, cause))?;
    JournalFile::open_active(env, path, header)
}

enum Access {
    /// The newest file: written and read by place.
    Active(Arc<dyn DiskFile>),
    /// Never written again; not yet mapped.
    Sealed,
    Mapped(Buffer),
}

/// One journal file.
pub(crate) struct JournalFile {
    env: Env,
    path: PathBuf,
    header: FileHeader,
    access: Mutex<Access>,
    /// Held by its map, which may be in use for longer than this.
    map_in_use: Arc<()>,
}

struct Owner {
    map: Mapped,
    _in_use: Arc<()>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// Bytes read ahead from the newest file, so that tiny frames do not cost a call each.
#[derive(Default)]
pub(crate) struct ReadAhead {
    file: u64,
    at: u64,
    bytes: Buffer,
}

const READ_AHEAD: usize = 256 << 10;

impl JournalFile {
    /// The newest file.
    pub fn open_active(env: &Env, path: PathBuf, header: &FileHeader) -> Result<Arc<JournalFile>> {
        let file = env.disk.open(&path, OpenMode::ReadWrite).map_err(|cause| Error::io("opening", &path, cause))?;
        Ok(JournalFile::with(env, path, header, Access::Active(file)))
    }

    /// A file that is never written again.
    pub fn sealed(env: &Env, path: PathBuf, header: &FileHeader) -> Arc<JournalFile> {
        JournalFile::with(env, path, header, Access::Sealed)
    }

    fn with(env: &Env, path: PathBuf, header: &FileHeader, access: Access) -> Arc<JournalFile> {
        let (env, header, access) = (env.clone(), *header, Mutex::new(access));
        Arc::new(JournalFile { env, path, header, access, map_in_use: Arc::new(()) })
    }

    /// Counts, besides this, a map of the file that is in use.
    pub fn map_in_use(&self) -> Weak<()> {
        Arc::downgrade(&self.map_in_use)
    }

    /// From now on it is not written.
    pub fn seal(&self) {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*access, Access::Active(_)) {
            *access = Access::Sealed;
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its place among the journal's files.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    pub fn salt(&self) -> u64 {
        self.header.salt
    }

    /// What it began with.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The newest file's handle.
    pub fn active(&self) -> Option<Arc<dyn DiskFile>> {
        match &*self.access.lock().unwrap_or_else(PoisonError::into_inner) {
            Access::Active(file) => Some(file.clone()),
            _ => None,
        }
    }

    /// All bytes of a sealed file; mapped once, for as long as anybody holds a piece of it.
    pub fn mapped(&self) -> Result<Buffer> {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if let Access::Mapped(bytes) = &*access {
            return Ok(bytes.clone());
        }
        let io = |cause| Error::io("mapping", &self.path, cause);
        let file = self.env.disk.open(&self.path, OpenMode::Read).map_err(io)?;
        let owner = Owner { map: file.map().map_err(io)?, _in_use: Arc::clone(&self.map_in_use) };
        let bytes = Buffer::from(bytes::Bytes::from_owner(owner));
        *access = Access::Mapped(bytes.clone());
        Ok(bytes)
    }

    /// `len` bytes at `at`; shorter if the file ends there.
    pub fn read(&self, at: u64, len: usize, durable_len: u64, ahead: &mut ReadAhead) -> Result<Buffer> {
        let Some(file) = self.active() else {
            let bytes = self.mapped()?;
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(bytes.slice_with_length(from, len.min(bytes.len() - from)));
        };
        let inside = |ahead: &ReadAhead| {
            let skip = usize::try_from(at.checked_sub(ahead.at)?).ok()?;
            let fits = ahead.file == self.header.salt && skip.checked_add(len)? <= ahead.bytes.len();
            fits.then(|| ahead.bytes.slice_with_length(skip, len))
        };
        if let Some(found) = inside(ahead) {
            return Ok(found);
        }
        let until_end = usize::try_from(durable_len.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = len.max(READ_AHEAD.min(until_end));
        let mut buffer = MutableBuffer::from_len_zeroed(wanted);
        let filled = read_up_to(&*file, at, buffer.as_slice_mut());
        let filled = filled.map_err(|cause| Error::io("reading", &self.path, cause))?;
        buffer.truncate(filled);
        *ahead = ReadAhead { file: self.header.salt, at, bytes: buffer.into() };
        Ok(ahead.bytes.slice_with_length(0, len.min(ahead.bytes.len())))
    }
}

/// Bytes read from the end of a file at once: the whole footer, unless its frames are tiny.
const FOOTER_READ: u64 = 64 << 10;

/// The footer of a file of `len` bytes; `None` if there is none that is intact.
pub(crate) fn read_footer(
    file: &dyn DiskFile,
    len: u64,
    header: &FileHeader,
) -> std::io::Result<Option<(Trailer, Vec<FooterFrame>)>> {
    let mut end = vec![0; usize::try_from(len.min(FOOTER_READ)).unwrap_or_default()];
    let from = len - end.len() as u64;
    let filled = read_up_to(file, from, &mut end)?;
    end.truncate(filled);
    let trailer_at = end.len().saturating_sub(TRAILER_LEN);
    let Ok(trailer) = Trailer::decode(end.get(trailer_at..).unwrap_or_default(), header.salt, len) else {
        return Ok(None);
    };
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    if let Some(skip) = trailer.frames_end.checked_sub(from) {
        let section = end.get(place(skip)..trailer_at).unwrap_or_default();
        return Ok(trailer.frames(section, header).ok().map(|frames| (trailer, frames)));
    }
    let mut section = vec![0; place(len - TRAILER_LEN as u64 - trailer.frames_end)];
    let filled = read_up_to(file, trailer.frames_end, &mut section)?;
    section.truncate(filled);
    Ok(trailer.frames(&section, header).ok().map(|frames| (trailer, frames)))
}

/// Fills `buf` from `at` as far as the file goes.
pub(crate) fn read_up_to(file: &dyn DiskFile, at: u64, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(at + filled as u64, rest)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
