//! The operating system behind the traits of `env`: the one file that opens files, reads clocks and maps memory.
#![expect(clippy::disallowed_methods, reason = "this is the door that the rest of the crate goes through")]

use super::{Clock, DirEntry, Disk, DiskFile, DiskSpace, Env, LockError, LockGuard, Mapped, OpenMode, Random};
use std::collections::hash_map::RandomState;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

pub(super) fn env() -> Env {
    let (disk, clock, random) = (Arc::new(OsDisk), Arc::new(OsClock(Instant::now())), Arc::new(OsRandom));
    Env { disk, clock, random, ram_bytes: ram_bytes() }
}

/// The machine's memory, or what the control group of the process leaves of it.
fn ram_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(group).min()
}

struct OsDisk;

struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|meta| meta.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    #[expect(unsafe_code, reason = "the one place that maps files")]
    fn map(&self) -> io::Result<Mapped> {
        if self.is_empty()? {
            return Ok(Arc::new(Vec::new()));
        }
        // SAFETY: callers map only files that Kappa itself finished writing, in its own folder, which it holds the lock of.
        // Kappa never truncates or overwrites a file while a map of it is in use: it unlinks it, which keeps the mapping alive.
        let map = unsafe { memmap2::Mmap::map(&self.0)? };
        Ok(Arc::new(map))
    }
}

struct OsLock(#[expect(dead_code, reason = "holding the file open holds the lock")] File);

impl LockGuard for OsLock {}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true).mode(FILE_MODE);
            }
        }
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a UTF-8 file name", name.display()))
            })?;
            entries.push(DirEntry { name, is_dir: meta.is_dir(), len: if meta.is_dir() { 0 } else { meta.len() } });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIR_MODE).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, contents: &str) -> Result<Box<dyn LockGuard>, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(LockError::Held(holder.trim().to_owned()));
            }
            Err(TryLockError::Error(cause)) => return Err(LockError::Io(cause)),
        }
        file.set_len(0).and_then(|()| file.write_all_at(contents.as_bytes(), 0)).map_err(LockError::Io)?;
        Ok(Box::new(OsLock(file)))
    }

    fn space(&self, path: &Path) -> io::Result<Option<DiskSpace>> {
        let told = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Some(DiskSpace { free: bytes(told.f_bavail), total: bytes(told.f_blocks) }))
    }

    fn is_os(&self) -> bool {
        true
    }
}

struct OsClock(Instant);

impl Clock for OsClock {
    fn wall_us(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        }
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn sleep_us(&self, duration_us: u64) {
        std::thread::sleep(Duration::from_micros(duration_us));
    }
}

/// The standard library seeds its hash maps from the operating system: enough for salts, without a dependency.
struct OsRandom;

impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(u64::from(std::process::id()));
        hasher.finish()
    }
}
