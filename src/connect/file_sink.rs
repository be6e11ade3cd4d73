//! A topic into a folder of part files, as Flink lays them out; a bounded run replaces its part atomically.

use crate::env::{Disk, OpenMode, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::types::Position;
use arrow::array::Array;
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 20;

/// Writes all values of a topic, one a line, as `part-0` (with the format's ending) into `folder`, replacing the part of an
/// earlier run. Files that others put there are left alone. Gives the path and the number of rows.
///
/// # Errors
/// `Input` if the folder's path is that of a file, `Unavailable` for the disk; those of reading the log.
pub fn write_folder(log: &Log, disk: &dyn Disk, topic: &str, folder: &Path, ending: &str) -> Result<(PathBuf, u64)> {
    if disk.open(folder, OpenMode::Read).and_then(|file| file.len()).is_ok() && disk.list(folder).is_err() {
        return Err(Error::input(format!(
            "'{}' is a file; a filesystem sink writes a folder of part files",
            folder.display()
        )));
    }
    create_dir_durably(disk, folder).map_err(|e| Error::io("cannot create", folder, e))?;
    let part = folder.join(format!("part-0.{ending}"));
    let temporary = folder.join(format!(".part-0.{ending}.inprogress"));
    if disk.exists(&temporary).map_err(|e| Error::io("cannot look for", &temporary, e))? {
        disk.remove_file(&temporary).map_err(|e| Error::io("cannot remove", &temporary, e))?;
    }
    let rows = write_part(log, disk, topic, &temporary)?;
    disk.rename(&temporary, &part).map_err(|e| Error::io("cannot put in place", &part, e))?;
    disk.sync_dir(folder).map_err(|e| Error::io("cannot sync", folder, e))?;
    Ok((part, rows))
}

fn write_part(log: &Log, disk: &dyn Disk, topic: &str, path: &Path) -> Result<u64> {
    let io = |e| Error::io("cannot write", path, e);
    let file = disk.open(path, OpenMode::CreateNew).map_err(io)?;
    let mut buffer = Vec::new();
    let (mut at, mut rows) = (0, 0);
    let topic = match log.topic(topic) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        found => Some(found?),
    };
    if let Some(topic) = topic {
        let end = log.durable_end();
        let mut reader = log.reader(&[topic.id()], Position(0));
        while let Some(batch) = reader.next(end)? {
            for row in 0..batch.len() {
                if batch.values.is_valid(row) {
                    buffer.extend_from_slice(batch.values.value(row));
                    buffer.push(b'\n');
                    rows += 1;
                }
            }
            if buffer.len() >= BUFFER_BYTES {
                file.write_all_at(at, &buffer).map_err(io)?;
                at += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    file.write_all_at(at, &buffer).map_err(io)?;
    file.sync_data().map_err(io)?;
    Ok(rows)
}
