//! The only door to the outside: files, clocks, randomness, threads and memory maps. Everything else in the crate is a
//! function of what comes through here, so a test can put a simulated disk and clock in its place.

mod os;
pub mod rooted;
pub mod sim;
pub mod socket;
pub mod thread;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, reads only.
    Read,
    /// An existing file, reads and writes.
    ReadWrite,
    /// A new file (an error if it exists), reads and writes, mode 0600.
    CreateNew,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name within the directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes (0 for a directory).
    pub len: u64,
}

/// Read-only bytes of a whole file, mapped or copied.
pub type Mapped = Arc<dyn std::ops::Deref<Target = [u8]> + Send + Sync>;

/// An open file. All reads and writes name their place; there is no cursor.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes at `at`; 0 means the end of the file.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes up to `bytes.len()` bytes at `at`, growing the file; may write fewer.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Makes content and length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True for a file without bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Cuts or grows (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The whole file, read-only. Only for files that never change again.
    fn map(&self) -> io::Result<Mapped>;

    /// Reads exactly `buf.len()` bytes at `at`; fewer is `UnexpectedEof`.
    fn read_exact_at(&self, mut at: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(at, buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    at += n as u64;
                    buf = &mut buf[n..];
                }
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `at`, in as many calls as the file needs.
    fn write_all_at(&self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(at, bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    at += n as u64;
                    bytes = &bytes[n..];
                }
            }
        }
        Ok(())
    }
}

/// Held for life by the owner of a data folder; dropped to release.
pub trait LockGuard: Send + Sync {}

/// Why a lock file could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it; what they wrote into it (their process id), if readable.
    Held(String),
    /// The lock file could not be opened or locked at all.
    Io(io::Error),
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this process may still write.
    pub free: u64,
    /// The whole file system.
    pub total: u64,
}

/// A file system. Names a caller has created are durable only after [`Disk::sync_dir`] of their directory.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// True if there is a file or directory of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates one directory, mode 0700; its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file at `path` (created if missing) and writes `contents` into it, or says who has it.
    fn lock(&self, path: &Path, contents: &str) -> Result<Box<dyn LockGuard>, LockError>;
    /// How much room the file system that holds `path` has; `None` if it cannot say.
    fn space(&self, path: &Path) -> io::Result<Option<DiskSpace>> {
        let _ = path;
        Ok(None)
    }
    /// Where a path leads, for whoever opens it elsewhere.
    fn absolute(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
    /// True if the path is backed by the operating system, so that libraries with their own I/O (sled) can be used there.
    fn is_os(&self) -> bool;
}

/// The clocks. Only the log's writer and retention look at the wall clock.
pub trait Clock: Send + Sync {
    /// Microseconds since 1970-01-01T00:00:00Z as the machine believes; may jump in both directions.
    fn wall_us(&self) -> i64;
    /// Microseconds since some fixed point; never goes back.
    fn monotonic_us(&self) -> u64;
    /// Lets this thread rest.
    fn sleep_us(&self, duration_us: u64);
}

/// Random numbers, for salts only: never for anything that reaches an output.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// Everything the crate may ask of its surroundings.
#[derive(Clone)]
pub struct Env {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Salts.
    pub random: Arc<dyn Random>,
    /// Bytes of memory that the process may use; `None`: nobody knows.
    pub ram_bytes: Option<u64>,
}

impl Env {
    /// The operating system.
    pub fn os() -> Env {
        os::env()
    }
}

/// Creates `dir` and its missing parents and makes each new name durable.
pub fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || disk.exists(dir)? {
        return Ok(());
    }
    let parent = parent_of(dir);
    create_dir_durably(disk, &parent)?;
    disk.create_dir(dir)?;
    disk.sync_dir(&parent)
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Replaces the file at `path` atomically: temporary file beside it, synced, renamed, directory synced.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file_unsynced(disk, path, bytes)?;
    disk.sync_dir(&parent_of(path))
}

/// Like [`replace_file`], but after a power cut the old file may be there again, or none.
pub(crate) fn replace_file_unsynced(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    if disk.exists(&temporary)? {
        disk.remove_file(&temporary)?;
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    file.write_all_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&temporary, path)
}

#[cfg(test)]
mod tests;
