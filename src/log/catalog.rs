//! Metadata records and the views that hold their current state.

/// Kinds of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum MetaSpace {
    /// Topics, by number. Written by the log itself.
    Topic,
    /// Declared schemas.
    Schema,
    /// Runs of jobs.
    Run,
    /// Progress of jobs.
    Progress,
    /// What was taken from files.
    Ingest,
    /// Offsets committed by consumers.
    Offset,
}

/// One change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRecord {
    /// Which kind.
    pub space: MetaSpace,
    /// Which one; at most [`META_KEY_MAX`] bytes.
    pub key: String,
    /// Its new value, at most [`META_VALUE_MAX`] bytes; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

/// Longest key of a metadata record in bytes.
pub const META_KEY_MAX: usize = 1024;
/// Longest value of a metadata record in bytes.
pub const META_VALUE_MAX: usize = 1 << 20;
