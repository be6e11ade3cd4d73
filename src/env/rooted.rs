//! A disk as seen from another folder than the process's own.

use super::{DirEntry, Disk, DiskFile, DiskSpace, LockError, LockGuard, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Relative paths begin at `root`.
pub struct Rooted {
    /// What lies below.
    pub disk: Arc<dyn Disk>,
    /// An absolute path.
    pub root: PathBuf,
}

impl Disk for Rooted {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.root.join(path), mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(&self.root.join(dir))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(&self.root.join(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(&self.root.join(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.root.join(from), &self.root.join(to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(&self.root.join(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(&self.root.join(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(&self.root.join(dir))
    }

    fn lock(&self, path: &Path, contents: &str) -> Result<Box<dyn LockGuard>, LockError> {
        self.disk.lock(&self.root.join(path), contents)
    }

    fn space(&self, path: &Path) -> io::Result<Option<DiskSpace>> {
        self.disk.space(&self.root.join(path))
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn is_os(&self) -> bool {
        self.disk.is_os()
    }
}
