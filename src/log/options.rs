//! How a log is opened.

use crate::error::{Error, Result};
use crate::log::frame::Codec;

/// Which implementation holds the current state of the catalog. Neither is ever the only holder of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKind {
    /// sled, on disk beside the journal. On a disk that is not the operating system's: memory.
    Sled,
    /// Memory, rebuilt from the journal whenever the log is opened.
    Memory,
}

/// How a log is opened. [`Default`] is right for use; tests make files and frames small.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A journal file takes no further frame beyond this many bytes. Default 64 MiB, 16 KiB to 2 GiB.
    pub file_bytes: u64,
    /// Append requests that wait together are merged into frames of about this many bytes. Larger frames read and compress
    /// better; smaller ones lose less to one damaged header. Default 1 MiB.
    pub frame_bytes: usize,
    /// The largest single append request, in bytes of keys, values, headers and metadata. Default 32 MiB.
    pub request_bytes_max: usize,
    /// Bytes of append requests that may wait for the writer before `append` blocks. Default 64 MiB.
    pub queue_bytes: usize,
    /// How bodies are written. A body that does not shrink is written plain. Default plain.
    pub codec: Codec,
    /// Where the catalog's current state lives. Default sled.
    pub view: ViewKind,
    /// After this long without a write the writer marks the last one as durable, so that damage to it can be told from a
    /// torn write. Default 100 ms; 0 means never.
    pub idle_mark_us: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            file_bytes: 64 << 20,
            frame_bytes: 1 << 20,
            request_bytes_max: 32 << 20,
            queue_bytes: 64 << 20,
            codec: Codec::Plain,
            view: ViewKind::Sled,
            idle_mark_us: 100_000,
        }
    }
}

impl LogOptions {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str, value: u64, from: u64, to: u64| {
            let message = format!("{what} is {value}: it must be {from} to {to}");
            if (from..=to).contains(&value) { Ok(()) } else { Err(Error::input(message)) }
        };
        wrong("file_bytes", self.file_bytes, 16 << 10, 2 << 30)?;
        wrong("frame_bytes", self.frame_bytes as u64, 256, 256 << 20)?;
        wrong("request_bytes_max", self.request_bytes_max as u64, 1 << 10, 512 << 20)?;
        wrong("queue_bytes", self.queue_bytes as u64, 1 << 10, 1 << 40)
    }
}
