//! A simulated disk, clock and source of salts: everything is in memory, any call can be made to fail, and the disk can
//! be looked at as a power cut would have left it.
//!
//! The disk keeps, for each file, what is durable and the operations since its last sync, and the same for the names of
//! each directory. It is stricter than ext4 and xfs: syncing a file says nothing about its name, and after a crash the
//! operations of different files, or of one file, may have reached the disk in any of the shapes of [`Crash`].

mod disk;

pub use disk::{Crash, Fault, FaultKind, SimDisk};

use super::{Clock, Env, Random};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The simulated surroundings, as the test sees them.
#[derive(Clone)]
pub struct Sim {
    /// The disk.
    pub disk: SimDisk,
    /// The clock.
    pub clock: SimClock,
    random: SimRandom,
}

impl Sim {
    /// An empty disk, a clock at 2026-01-01T00:00:00Z, and salts made from `seed`.
    pub fn new(seed: u64) -> Sim {
        Sim { disk: SimDisk::new(), clock: SimClock::new(1_767_225_600_000_000), random: SimRandom::new(seed) }
    }

    /// The same surroundings as the crate sees them.
    pub fn env(&self) -> Env {
        Env {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(self.random.clone()),
            ram_bytes: None,
        }
    }

    /// The same clock and salts with another disk, for example one that has crashed.
    #[must_use]
    pub fn with_disk(&self, disk: SimDisk) -> Sim {
        Sim { disk, clock: self.clock.clone(), random: self.random.clone() }
    }
}

impl Env {
    /// A simulated environment, and the handle that tests drive it with.
    pub fn sim(seed: u64) -> (Env, Sim) {
        let sim = Sim::new(seed);
        (sim.env(), sim)
    }
}

/// A clock that moves only when told to, or when somebody sleeps on it.
#[derive(Clone)]
pub struct SimClock(Arc<Mutex<(i64, u64)>>);

impl SimClock {
    fn new(wall_us: i64) -> SimClock {
        SimClock(Arc::new(Mutex::new((wall_us, 0))))
    }

    /// Moves both clocks on.
    pub fn advance_us(&self, duration_us: u64) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 = now.0.saturating_add_unsigned(duration_us);
        now.1 += duration_us;
    }

    /// Sets the wall clock, forward or back; the monotonic clock stays.
    pub fn set_wall_us(&self, wall_us: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = wall_us;
    }
}

impl Clock for SimClock {
    fn wall_us(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic_us(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn sleep_us(&self, duration_us: u64) {
        self.advance_us(duration_us);
    }
}

#[derive(Clone)]
struct SimRandom(Arc<AtomicU64>);

impl SimRandom {
    fn new(seed: u64) -> SimRandom {
        SimRandom(Arc::new(AtomicU64::new(seed)))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        crate::codec::xxh64(&count.to_le_bytes(), 0x006b_6170_7061)
    }
}
