//! Sections as Arrow IPC files, which any library for Arrow reads. What comes from a disk is checked as it is read.

use super::section::Section;
use crate::env::DiskFile;
use crate::error::{Error, Result};
use arrow::error::ArrowError;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use std::io::{self, Cursor, Write};
use std::sync::Arc;

/// Writes a section; an error of `out` comes back as the cause.
pub fn write(section: &Section, out: &mut dyn Write) -> Result<()> {
    let failed = |e| Error::internal(format!("writing section {}", section.name)).with_source(e);
    let mut writer = FileWriter::try_new(out, &section.schema).map_err(failed)?;
    section.each(&mut |rows| writer.write(&rows).map_err(failed))?;
    writer.finish().map_err(failed)
}

/// Bytes of a file.
#[derive(Clone)]
pub struct Stretch {
    file: Arc<dyn DiskFile>,
    /// Where it begins.
    from: u64,
    len: u64,
    /// Where it is read next.
    at: u64,
}

impl Stretch {
    /// So many bytes of a file that does not change.
    pub fn new(file: Arc<dyn DiskFile>, from: u64, len: u64) -> Stretch {
        Stretch { file, from, len, at: 0 }
    }
}

impl io::Read for Stretch {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buf.len());
        let count = self.file.read_at(self.from + self.at, &mut buf[..left])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Stretch {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.len.checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The section of this name that was written as this stretch of a file, which is read piece by piece when somebody asks for its rows.
///
/// # Errors
/// `Damage` when it is no Arrow IPC file.
pub fn open(name: &str, stretch: Stretch) -> Result<Section> {
    let reader = {
        let name = name.to_owned();
        move || FileReader::try_new(stretch.clone(), None).map_err(|e| damaged(&name, e))
    };
    let schema = reader()?.schema();
    let owned = name.to_owned();
    Ok(Section::lazy(name, schema, None, move |take| {
        reader()?.try_for_each(|rows| take(rows.map_err(|e| damaged(&owned, e))?))
    }))
}

fn damaged(name: &str, e: ArrowError) -> Error {
    Error::damage(format!("section {name} is no Arrow IPC file")).with_source(e)
}

/// The section of this name that was written as these bytes.
///
/// # Errors
/// `Damage` when they are no Arrow IPC file.
pub fn read(name: &str, bytes: &[u8]) -> Result<Section> {
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(|e| damaged(name, e))?;
    let schema = reader.schema();
    let rows = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| damaged(name, e))?;
    Ok(Section::of(name, schema, rows))
}
