//! How a log is opened.

use crate::error::{Error, Result};
use crate::log::frame::Codec;
use crate::log::mutant::Mutant;
use std::fmt;
use std::str::FromStr;

/// Which implementation holds the current state of the catalog. Neither is ever the only holder of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKind {
    /// sled, on disk beside the journal. On a disk that is not the operating system's: memory.
    Sled,
    /// Memory, rebuilt from the journal whenever the log is opened.
    Memory,
}

/// What an acknowledgement of records promises. Metadata (topics, committed offsets, the progress of jobs) and what is in one batch
/// with it is always durable before it is acknowledged. Readers, the clock and end offsets only ever show what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The records are on disk (fdatasync returned). Acknowledged records survive a killed process and a power cut.
    #[default]
    Durable,
    /// The records were handed to the operating system; they are synced at the latest this long after the first one that waits
    /// for it. A killed process loses nothing. A power cut, or a disk that fails, may lose what was acknowledged in the last
    /// `ms` milliseconds and the time of one sync.
    Interval {
        /// 1 to 60,000.
        ms: u32,
    },
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Durable => f.write_str("durable"),
            Durability::Interval { ms } => write!(f, "interval:{ms}"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// `durable` or `interval:<ms>`; [`ErrorKind::Input`](crate::ErrorKind::Input) otherwise.
    fn from_str(text: &str) -> Result<Durability> {
        let wrong =
            || Error::input(format!("'{text}' is not a durability: use durable, or interval:<ms> with 1 to 60000"));
        if text == "durable" {
            return Ok(Durability::Durable);
        }
        let ms = text.strip_prefix("interval:").and_then(|ms| ms.parse().ok()).ok_or_else(wrong)?;
        let mode = Durability::Interval { ms };
        mode.check().map(|()| mode).map_err(|_| wrong())
    }
}

impl Durability {
    fn check(self) -> Result<()> {
        match self {
            Durability::Interval { ms } if !(1..=60_000).contains(&ms) => {
                Err(Error::input(format!("the sync interval is {ms} ms: it must be 1 to 60000")))
            }
            _ => Ok(()),
        }
    }
}

/// How many producers that number their records are remembered, and for how long. See [`Log::producer_id`](super::Log::producer_id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Beyond this many ids the one that was silent longest is forgotten. Default 100,000.
    pub ids: usize,
    /// The same, counted by id and partition. Default 1,000,000 (about 300 bytes each, twice).
    pub sequences: usize,
    /// An id is forgotten after so much append time without a record. Default 7 days.
    pub expiry_us: i64,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        ProducerLimits { ids: 100_000, sequences: 1_000_000, expiry_us: 7 * 24 * 3_600_000_000 }
    }
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
    /// What an acknowledgement promises. Default durable.
    pub durability: Durability,
    /// Appends of records are refused while the disk has less room than this; reads, deletions and metadata go on. Default
    /// `None`: 1 GiB or a twentieth of the disk, whichever is more, but at most a quarter of the disk. 0: never.
    pub disk_floor_bytes: Option<u64>,
    /// Size of the file `ballast` in the data folder. It is given up when the disk is full all the same, so that metadata and a
    /// clean end can still be written, and made again when there is room. Default 32 MiB; 0: none.
    pub ballast_bytes: u64,
    /// Bounds on producers that number their records.
    pub producers: ProducerLimits,
    /// How bodies are written where a batch does not say. A body that does not shrink is written plain. Default plain.
    pub codec: Codec,
    /// Where the catalog's current state lives. Default sled.
    pub view: ViewKind,
    /// After this long without a write the writer marks the last one as durable, so that damage to it can be told from a
    /// torn write. Default 100 ms; 0 means never.
    pub idle_mark_us: u64,
    /// A metadata snapshot is written after about this many bytes of journal. Fewer make opening a log and removing journal
    /// files sooner cheaper; each costs the size of the catalog. Default 256 MiB, at least 16 KiB.
    pub snapshot_bytes: u64,
    /// True (the default): a thread of the log seals, merges, trims and checks while the log is open. False: only when told
    /// to, by `Log::keep`.
    pub background: bool,
    /// True (the default): journal files that are full are sealed into history, by topic and column. What is in history is
    /// read in any case.
    pub history: bool,
    /// Bytes of decoded row groups of history that are kept for all readers together, an eighth of them for groups that one reader alone
    /// has asked for. Default 256 MiB. Less costs decoding a row group again when several readers are at different places of it.
    pub history_cache_bytes: usize,
    /// Appends are slowed while full journal files of more than this many bytes wait to be sealed in the background. Default 1 GiB.
    pub unsealed_bytes_max: u64,
    /// Leaves out one step that keeps records safe: for the tests, which must notice.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            file_bytes: 64 << 20,
            frame_bytes: 1 << 20,
            request_bytes_max: 32 << 20,
            queue_bytes: 64 << 20,
            durability: Durability::Durable,
            disk_floor_bytes: None,
            ballast_bytes: 32 << 20,
            producers: ProducerLimits::default(),
            codec: Codec::Plain,
            view: ViewKind::Sled,
            idle_mark_us: 100_000,
            snapshot_bytes: 256 << 20,
            background: true,
            history: true,
            history_cache_bytes: 256 << 20,
            unsealed_bytes_max: 1 << 30,
            mutant: None,
        }
    }
}

impl LogOptions {
    /// True if this step is left out.
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str, value: u64, from: u64, to: u64| {
            let message = format!("{what} is {value}: it must be {from} to {to}");
            if (from..=to).contains(&value) { Ok(()) } else { Err(Error::input(message)) }
        };
        self.durability.check()?;
        wrong("producers.ids", self.producers.ids as u64, 1, 100_000_000)?;
        wrong("producers.sequences", self.producers.sequences as u64, 1, 100_000_000)?;
        wrong("ballast_bytes", self.ballast_bytes, 0, 1 << 40)?;
        wrong("file_bytes", self.file_bytes, 16 << 10, 2 << 30)?;
        wrong("frame_bytes", self.frame_bytes as u64, 256, 64 << 20)?;
        wrong("request_bytes_max", self.request_bytes_max as u64, 1 << 10, 512 << 20)?;
        wrong("snapshot_bytes", self.snapshot_bytes, 16 << 10, 1 << 50)?;
        wrong("queue_bytes", self.queue_bytes as u64, 1 << 10, 1 << 40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_has_names_and_refuses_what_it_does_not_know() {
        for (text, mode) in [("durable", Durability::Durable), ("interval:250", Durability::Interval { ms: 250 })] {
            assert_eq!(text.parse::<Durability>().unwrap(), mode);
            assert_eq!(mode.to_string(), text);
        }
        for wrong in ["", "Durable", "interval", "interval:", "interval:0", "interval:60001", "interval:-1", "none"] {
            assert!(wrong.parse::<Durability>().is_err(), "{wrong}");
        }
    }
}
