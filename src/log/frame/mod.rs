//! The frame: the unit of atomicity of the journal.

/// How the bytes of a body are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
pub enum Codec {
    /// As they are.
    #[default]
    Plain,
    /// LZ4 block.
    Lz4,
    /// zstd.
    Zstd,
}
