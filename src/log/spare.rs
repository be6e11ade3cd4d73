//! Journal files whose records are in history are written again. A sync of bytes in blocks that a file has already changes nothing in
//! the file system's own structures: a small one takes half the time, and no worker of the kernel has to be waited for.
//!
//! What such a file still holds is nothing: checksums begin with a salt, and each life has its own. [`END`] stands behind the last
//! write, so that what an older life left there is not taken for a torn write. A file that somebody may still look at through a map is
//! removed instead.

use crate::env::{Disk, Env, OpenMode, parent_of};
use crate::error::{Error, Result};
use crate::log::frame::header::FileHeader;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a writer leaves behind its last write where the file goes on: no frame begins like this.
pub(crate) const END: [u8; 64] = [0; 64];

/// As many as two snapshots let go at once.
const KEPT: usize = 4;

const ENDING: &str = ".spare";

/// Files that wait for their next life.
pub(crate) struct Spares {
    paths: Mutex<Vec<PathBuf>>,
    /// Shorter ones are not worth keeping.
    least_bytes: u64,
}

impl Spares {
    /// Finds those that an earlier run left in the folder of the journal, and removes what is not worth keeping.
    pub fn new(env: &Env, journal: &Path, file_bytes: u64) -> Result<Spares> {
        let spares = Spares { paths: Mutex::default(), least_bytes: file_bytes / 2 };
        for entry in env.disk.list(journal).map_err(|cause| Error::io("listing", journal, cause))? {
            if !entry.name.ends_with(ENDING) {
                continue;
            }
            let path = journal.join(&entry.name);
            let fits = (spares.least_bytes..=file_bytes.saturating_mul(2)).contains(&entry.len);
            if fits && spares.paths().len() < KEPT {
                spares.paths().push(path);
            } else {
                env.disk.remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
            }
        }
        Ok(spares)
    }

    fn paths(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a file away from the journal, durably: keeps it if there is use for it, or removes it.
    pub fn retire(&self, disk: &dyn Disk, path: &Path, mapped: bool) -> std::io::Result<()> {
        let full = self.paths().len() >= KEPT;
        if mapped || full || disk.open(path, OpenMode::Read)?.len()? < self.least_bytes {
            disk.remove_file(path)?;
            return disk.sync_dir(&parent_of(path));
        }
        let spare = path.with_extension(&ENDING[1..]);
        disk.rename(path, &spare)?;
        // Only then may it be written: after a power cut no file of the journal has what comes next in it.
        disk.sync_dir(&parent_of(path))?;
        self.paths().push(spare);
        Ok(())
    }

    /// Gives one of them its next life as the file at `path`, which it becomes once its header is durable. False if there is none.
    /// The caller makes the name durable.
    pub fn begin(&self, disk: &dyn Disk, path: &Path, header: &FileHeader) -> std::io::Result<bool> {
        let Some(spare) = self.paths().pop() else { return Ok(false) };
        let file = disk.open(&spare, OpenMode::ReadWrite)?;
        file.write_all_at(0, &[&header.encode()[..], &END].concat())?;
        file.sync_data()?;
        disk.rename(&spare, path)?;
        Ok(true)
    }

    /// Makes room on a full disk. True if there were any.
    pub fn give_up(&self, disk: &dyn Disk) -> std::io::Result<bool> {
        let paths = std::mem::take(&mut *self.paths());
        paths.iter().try_for_each(|path| disk.remove_file(path))?;
        Ok(!paths.is_empty())
    }
}
