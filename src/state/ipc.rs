//! Sections as Arrow IPC files, which any library for Arrow reads. What comes from a disk is checked as it is read.

use super::section::Section;
use crate::error::{Error, Result};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use std::io::{Cursor, Write};

/// Writes a section; an error of `out` comes back as the cause.
pub fn write(section: &Section, out: &mut dyn Write) -> Result<()> {
    let failed = |e| Error::internal(format!("writing section {}", section.name)).with_source(e);
    let mut writer = FileWriter::try_new(out, &section.schema).map_err(failed)?;
    section.each(&mut |rows| writer.write(&rows).map_err(failed))?;
    writer.finish().map_err(failed)
}

/// The section of this name that was written as these bytes.
///
/// # Errors
/// `Damage` when they are no Arrow IPC file.
pub fn read(name: &str, bytes: &[u8]) -> Result<Section> {
    let damaged = |e| Error::damage(format!("section {name} is no Arrow IPC file")).with_source(e);
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(damaged)?;
    let schema = reader.schema();
    let rows = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(damaged)?;
    Ok(Section::of(name, schema, rows))
}
