//! Pumps: what brings events into the log, and what carries a topic out of it. One file each.

pub mod file_sink;
pub mod file_source;
pub mod generated;
pub mod interrupt;

use crate::env::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// A file of the environment as a byte stream.
struct FileStream {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Read for FileStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.at, buf)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The bytes of a text file, unpacked if its name ends in `.gz`; several gzip members are one text.
pub fn open_text(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Read + Send>> {
    if disk.list(path).is_ok() {
        return Err(Error::input(format!("'{}' is a folder", path.display())).with_hint("name one file"));
    }
    let file = disk.open(path, OpenMode::Read).map_err(|e| {
        let missing = e.kind() == io::ErrorKind::NotFound;
        let error = Error::io("cannot open", path, e);
        if missing {
            Error::input(error.message()).with_hint("paths are relative to the current folder")
        } else {
            error
        }
    })?;
    let stream = FileStream { file, at: 0 };
    let is_gzip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz") || e.eq_ignore_ascii_case("gzip"));
    Ok(if is_gzip { Box::new(flate2::read::MultiGzDecoder::new(stream)) } else { Box::new(stream) })
}
