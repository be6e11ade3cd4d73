//! History: what the journal held, sealed into Parquet files, by topic and column.
//!
//! [`file`] says what the catalog and a file's own index know about it; [`schema`] which columns it has; [`write`] and [`read`]
//! turn log batches into its bytes and back. `summary` is what is known of a row group without reading it, `index` where a
//! file keeps that and its checksums, `encoding` how each column is written, `times` what statistics say about a column of times.
//!
//! `seal` makes files out of journal files and `rewrite` files out of files, as `plan` decides, by way of `output`. `contents`
//! is what readers look into, `entry` one file that they hold, `cache` what was decoded for them.

mod cache;
pub(crate) mod contents;
mod encoding;
pub(crate) mod entry;
pub mod file;
mod index;
pub(crate) mod output;
mod plan;
pub mod read;
pub(crate) mod rewrite;
pub mod schema;
pub(crate) mod seal;
mod sealer;
mod summary;
mod times;
pub mod write;

pub(crate) use cache::Group;
pub use rewrite::RebuildProgress;
pub(crate) use sealer::Sealer;
pub use sealer::SealingStatus;
pub use times::TimeStretch;
pub(crate) use times::stretches;

#[cfg(test)]
mod tests;
