//! One history file as readers hold it: opened when first needed, unlinked when the last reader lets go of it.

use super::file::{FileRecord, GroupSummary, TopicExtent};
use super::read::HistoryFile;
use crate::env::{Env, Mapped, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Position, TopicId};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A history file. Who holds it can read it: a file that was replaced or removed stays on disk until nobody does.
pub(crate) struct HistoryEntry {
    env: Env,
    path: PathBuf,
    record: FileRecord,
    file: Mutex<Option<Arc<HistoryFile>>>,
    retired: AtomicBool,
}

/// The row groups of a history file, by topic, then position.
pub(crate) struct Groups(Arc<HistoryFile>);

impl std::ops::Deref for Groups {
    type Target = [GroupSummary];

    fn deref(&self) -> &[GroupSummary] {
        self.0.groups()
    }
}

struct Owner(Mapped);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of a file that will not change, mapped, if they are as many as they should be.
pub(super) fn map_whole(env: &Env, path: &Path, bytes: u64) -> Result<Bytes> {
    let io = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::NotFound => Error::damage(format!("{} is missing", path.display())),
        _ => Error::io("reading", path, cause),
    };
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    let len = file.len().map_err(io)?;
    if len != bytes {
        return Err(Error::damage(format!("{} has {len} bytes and was written with {bytes}", path.display())));
    }
    Ok(Bytes::from_owner(Owner(file.map().map_err(io)?)))
}

impl HistoryEntry {
    pub fn new(env: &Env, dir: &Path, record: FileRecord) -> HistoryEntry {
        HistoryEntry {
            env: env.clone(),
            path: dir.join(FileRecord::name_of(record.number)),
            record,
            file: Mutex::new(None),
            retired: AtomicBool::new(false),
        }
    }

    /// What the catalog knows of it.
    pub fn record(&self) -> &FileRecord {
        &self.record
    }

    /// Its name within the folder.
    pub fn name(&self) -> String {
        FileRecord::name_of(self.record.number)
    }

    /// What it holds of a topic.
    pub fn topic(&self, topic: TopicId) -> Option<&TopicExtent> {
        self.record.topic(topic)
    }

    /// Opens it, the first time; its footer is read and checked. [`ErrorKind::Damage`] if it is not what was written.
    pub fn open(&self) -> Result<Arc<HistoryFile>> {
        let mut opened = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*opened {
            return Ok(file.clone());
        }
        let bytes = map_whole(&self.env, &self.path, self.record.bytes)?;
        let file = Arc::new(HistoryFile::open(bytes, &self.name())?);
        *opened = Some(file.clone());
        Ok(file)
    }

    /// Its row groups; errors as for [`open`](Self::open).
    pub fn groups(&self) -> Result<Groups> {
        self.open().map(Groups)
    }

    /// The first row group of a topic at or after `from` that is not passed over: the one with the position, or the next.
    pub fn group_at(
        &self,
        topic: TopicId,
        from: Position,
        mut wanted: impl FnMut(usize, &GroupSummary) -> bool,
    ) -> Result<Option<(usize, Groups)>> {
        let groups = self.groups()?;
        let first = groups.partition_point(|group| (group.topic, group.extent.last_position) < (topic, from));
        let of_topic = groups.iter().enumerate().skip(first).take_while(|(_, group)| group.topic == topic);
        let found = of_topic.into_iter().find(|(place, group)| wanted(*place, group)).map(|(place, _)| place);
        Ok(found.map(|place| (place, groups)))
    }

    /// From now on nobody finds it: its file goes when the last one who holds it lets go.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for HistoryEntry {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            // The mapping goes first. What cannot be removed now is removed when the log is opened again.
            self.file.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            let _ = self.env.disk.remove_file(&self.path);
        }
    }
}

/// True for what a reader may pass over after it was told.
pub(crate) fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Damage
}
