//! What the log's background work on history has between its steps, and what others ask of it.

use super::cache::Cache;
use super::plan::{Sizes, slow_us};
use crate::env::Env;
use crate::log::options::LogOptions;
use crate::metrics::Counter;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far sealing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SealingStatus {
    /// Bytes of full journal files that are not in history yet.
    pub unsealed_bytes: u64,
    /// How many files that are.
    pub unsealed_files: u64,
    /// How long appends were slowed since the log was opened because there were too many, in microseconds over all threads.
    pub slowed_us: u64,
    /// Files of history.
    pub history_files: u64,
    /// Their bytes.
    pub history_bytes: u64,
    /// Bytes of decoded row groups that are kept for readers.
    pub cache_bytes: u64,
    /// Row groups decoded since the log was opened.
    pub groups_decoded: u64,
}

/// What belongs to who changes history: one at a time.
pub(super) struct Work {
    /// The number of the next file.
    next_number: u64,
    /// Files that cannot be read as a whole: they stay as they are.
    pub damaged: BTreeSet<u64>,
    /// Failures in a row.
    failures: u32,
    /// Not to be tried again before this reading of the monotonic clock.
    again_at_us: u64,
}

/// Until sealing has been seen at work: bytes per second.
const SEALED_PER_S: u64 = 50 << 20;
/// Shorter waits are added up: sleeping costs more than they are worth.
const SLOW_STEP_US: u64 = 1_000;
/// After a failure the next try waits this long, after each further one twice as long.
const RETRY_US: u64 = 1_000_000;

/// The state of the work on history.
pub(crate) struct Sealer {
    /// The folder of the history files.
    pub dir: PathBuf,
    /// Decoded row groups.
    pub cache: Cache,
    pub(super) sizes: Sizes,
    work: Mutex<Work>,
    unsealed_files: AtomicU64,
    unsealed_bytes: AtomicU64,
    sealed_per_s: AtomicU64,
    slow_debt_us: AtomicU64,
    slowed_us: Counter,
}

impl Work {
    /// A number that no file has had.
    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// True if the last failure is long enough ago.
    pub fn may_try(&self, env: &Env) -> bool {
        self.failures == 0 || env.clock.monotonic_us() >= self.again_at_us
    }

    /// Remembers how a try ended.
    pub fn tried(&mut self, env: &Env, failed: bool) {
        self.failures = if failed { (self.failures + 1).min(6) } else { 0 };
        self.again_at_us = env.clock.monotonic_us() + (RETRY_US << self.failures) / 2;
    }
}

impl Sealer {
    /// For files in `dir`.
    pub fn new(dir: PathBuf, options: &LogOptions) -> Sealer {
        let work = Work { next_number: 1, damaged: BTreeSet::new(), failures: 0, again_at_us: 0 };
        Sealer {
            dir,
            cache: Cache::new(options.history_cache_bytes),
            sizes: Sizes { own: options.file_bytes / 8, target: 2 * options.file_bytes },
            work: Mutex::new(work),
            unsealed_files: AtomicU64::new(0),
            unsealed_bytes: AtomicU64::new(0),
            sealed_per_s: AtomicU64::new(SEALED_PER_S),
            slow_debt_us: AtomicU64::new(0),
            slowed_us: Counter::new(),
        }
    }

    /// The next file has at least this number.
    pub fn number_from(&self, number: u64) {
        let mut work = self.work();
        work.next_number = work.next_number.max(number);
    }

    /// Who holds this changes history; everybody else waits. Taken before all other locks.
    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of full journal files that are not in history.
    pub fn unsealed_bytes(&self) -> u64 {
        self.unsealed_bytes.load(Ordering::Relaxed)
    }

    /// Full journal files that are not in history.
    pub fn unsealed_files(&self) -> u64 {
        self.unsealed_files.load(Ordering::Relaxed)
    }

    /// There are this many full journal files now, with this many bytes.
    pub fn note_unsealed(&self, (files, bytes): (u64, u64)) {
        self.unsealed_files.store(files, Ordering::Relaxed);
        self.unsealed_bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes were sealed in so many microseconds.
    pub(super) fn note_sealed(&self, bytes: u64, took_us: u64) {
        let now = bytes.saturating_mul(1_000_000) / took_us.max(1);
        let before = self.sealed_per_s.load(Ordering::Relaxed);
        self.sealed_per_s.store((before + now) / 2, Ordering::Relaxed);
    }

    /// How long an append of some bytes has to wait so that sealing can follow, in microseconds; 0 nearly always.
    pub fn slow(&self, bytes: u64, unsealed_max: u64) -> u64 {
        let unsealed = self.unsealed_bytes();
        if unsealed <= unsealed_max {
            return 0;
        }
        let wait = slow_us(bytes, unsealed, unsealed_max, self.sealed_per_s.load(Ordering::Relaxed));
        let debt = self.slow_debt_us.fetch_add(wait, Ordering::Relaxed) + wait;
        if debt < SLOW_STEP_US {
            return 0;
        }
        self.slow_debt_us.store(0, Ordering::Relaxed);
        self.slowed_us.add(debt);
        debt
    }

    /// How far sealing is, apart from the files of history.
    pub fn status(&self) -> SealingStatus {
        let cache = self.cache.usage();
        SealingStatus {
            unsealed_bytes: self.unsealed_bytes(),
            unsealed_files: self.unsealed_files.load(Ordering::Relaxed),
            slowed_us: self.slowed_us.get(),
            history_files: 0,
            history_bytes: 0,
            cache_bytes: cache.bytes as u64,
            groups_decoded: cache.decoded,
        }
    }
}
