//! Room on the disk: appends of records stop at a floor, and a ballast file is given up when the disk is full all the same.
//!
//! What to do is a function of the facts ([`judge`]); [`Space`] looks at the disk seldom enough that it costs nothing.

use crate::env::{DiskSpace, Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the ballast within the data folder.
pub(crate) const BALLAST_FILE: &str = "ballast";

/// The disk is looked at after so long ...
const LOOK_US: u64 = 100_000;
/// ... or so many bytes, whichever comes first.
const LOOK_BYTES: u64 = 16 << 20;
/// After a full disk was met and there seems to be room again, a write is tried after so long.
const TRY_US: u64 = 1_000_000;
/// How often the keeper looks whether the ballast can be made.
const BALLAST_US: u64 = 1_000_000;

const GIB: u64 = 1 << 30;

/// The least room that appends of records leave.
pub(crate) fn floor_of(option: Option<u64>, total: u64) -> u64 {
    option.unwrap_or_else(|| GIB.max(total / 20).min(total / 4))
}

/// True if there is so much room that the ballast does not hurt.
fn plenty(space: DiskSpace, floor: u64, ballast: u64) -> bool {
    space.free >= floor.saturating_add(ballast.saturating_mul(2))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What is known about room.
pub(crate) struct Space {
    /// The data folder.
    dir: PathBuf,
    floor_option: Option<u64>,
    ballast_bytes: u64,
    look_at_us: AtomicU64,
    bytes_since: AtomicU64,
    /// Refused at the last look.
    below: AtomicBool,
    /// Why, and when a full disk was met.
    state: Mutex<SpaceState>,
}

#[derive(Default)]
struct SpaceState {
    last: Option<DiskSpace>,
    /// A write failed for want of room at this monotonic time, and there was none since.
    full_at_us: Option<u64>,
    ballast: bool,
    ballast_look_us: u64,
}

impl Space {
    /// Looks at the disk and at what an earlier run left.
    pub fn new(env: &Env, dir: &Path, floor_option: Option<u64>, ballast_bytes: u64) -> Result<Space> {
        let path = dir.join(BALLAST_FILE);
        let ballast = env.disk.exists(&path).map_err(|cause| Error::io("looking for", &path, cause))?;
        Ok(Space {
            dir: dir.to_owned(),
            floor_option,
            ballast_bytes,
            look_at_us: AtomicU64::new(0),
            bytes_since: AtomicU64::new(0),
            below: AtomicBool::new(false),
            state: Mutex::new(SpaceState { ballast, ..SpaceState::default() }),
        })
    }

    /// May a batch of records of this size go in? [`ErrorKind::Unavailable`] if there is too little room.
    pub fn admit(&self, env: &Env, bytes: usize) -> Result<()> {
        let now = env.clock.monotonic_us();
        let since = self.bytes_since.fetch_add(bytes as u64, Ordering::Relaxed);
        if since >= LOOK_BYTES || now >= self.look_at_us.load(Ordering::Relaxed) {
            self.look(env, now);
        }
        if self.below.load(Ordering::Relaxed) { Err(self.refusal()) } else { Ok(()) }
    }

    /// What [`admit`](Self::admit) said last.
    pub fn admits(&self) -> Result<()> {
        if self.below.load(Ordering::Relaxed) { Err(self.refusal()) } else { Ok(()) }
    }

    fn look(&self, env: &Env, now: u64) {
        self.look_at_us.store(now + LOOK_US, Ordering::Relaxed);
        self.bytes_since.store(0, Ordering::Relaxed);
        // A disk that cannot be asked is not a full disk: its writes will say.
        let space = env.disk.space(&self.dir).ok().flatten();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last = space;
        let room = |space: DiskSpace| plenty(space, floor_of(self.floor_option, space.total), self.ballast_bytes);
        if state.full_at_us.is_some_and(|at| now >= at + TRY_US && space.is_none_or(room)) {
            state.full_at_us = None;
        }
        let low = space.is_some_and(|space| space.free < floor_of(self.floor_option, space.total));
        self.below.store(low || state.full_at_us.is_some(), Ordering::Relaxed);
    }

    fn refusal(&self) -> Error {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let message = match state.last {
            Some(space) => format!(
                "not written: the disk that holds {} has {} free, and records are taken down to {}",
                self.dir.display(),
                mib(space.free),
                mib(floor_of(self.floor_option, space.total))
            ),
            None => format!("not written: the disk that holds {} is full", self.dir.display()),
        };
        Error::new(ErrorKind::Unavailable, message).with_hint(ROOM_HINT)
    }

    /// A write failed for want of room: records are refused until there is some. Gives up the ballast; true if there was one.
    pub fn met_full(&self, env: &Env) -> Result<bool> {
        let now = env.clock.monotonic_us();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.full_at_us = Some(now);
        state.ballast_look_us = now + BALLAST_US;
        self.below.store(true, Ordering::Relaxed);
        if !std::mem::take(&mut state.ballast) {
            return Ok(false);
        }
        let path = self.dir.join(BALLAST_FILE);
        let removed = env.disk.remove_file(&path).and_then(|()| env.disk.sync_dir(&self.dir));
        removed.map(|()| true).map_err(|cause| Error::io("giving up", &path, cause))
    }

    /// Makes the ballast if it is missing and there is plenty of room. That it can be made shows that the disk is not full any
    /// more. True if it was made.
    fn keep_ballast(&self, env: &Env) -> Result<bool> {
        let now = env.clock.monotonic_us();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.ballast || self.ballast_bytes == 0 || now < state.ballast_look_us {
                return Ok(false);
            }
            state.ballast_look_us = now + BALLAST_US;
        }
        let Ok(Some(space)) = env.disk.space(&self.dir) else { return Ok(false) };
        if !plenty(space, floor_of(self.floor_option, space.total), self.ballast_bytes) {
            return Ok(false);
        }
        let path = self.dir.join(BALLAST_FILE);
        if let Err(cause) = self.make_ballast(env, &path) {
            let left = path.with_extension("tmp");
            if env.disk.exists(&left).unwrap_or(false) {
                let _ = env.disk.remove_file(&left);
            }
            return if is_full(&cause) { Ok(false) } else { Err(Error::io("making", &path, cause)) };
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.ballast, state.full_at_us) = (true, None);
        drop(state);
        self.look(env, now);
        Ok(true)
    }

    fn make_ballast(&self, env: &Env, path: &Path) -> std::io::Result<()> {
        const PIECE: usize = 1 << 20;
        let temporary = path.with_extension("tmp");
        if env.disk.exists(&temporary)? {
            env.disk.remove_file(&temporary)?;
        }
        let file = env.disk.open(&temporary, OpenMode::CreateNew)?;
        // Not zeros: a file system that compresses would keep no room for those.
        let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| env.random.next_u64().to_le_bytes()).collect();
        let mut at = 0;
        while at < self.ballast_bytes {
            let len = piece.len().min(usize::try_from(self.ballast_bytes - at).unwrap_or(PIECE));
            file.write_all_at(at, &piece[..len])?;
            at += len as u64;
        }
        file.sync_data()?;
        env.disk.rename(&temporary, path)?;
        env.disk.sync_dir(&self.dir)
    }
}

/// What to do about a full disk.
pub(crate) const ROOM_HINT: &str = "make room (delete other files, trim or delete topics): the log goes on by itself";

/// True if a call failed for want of room: what it was to write is not there, or only in part, and nothing else is wrong.
pub(crate) fn is_full(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(cause.kind(), Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::WriteZero)
}

/// The same for an error of Kappa.
pub(crate) fn is_full_error(error: &Error) -> bool {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref()).is_some_and(is_full)
}

/// A task of the keeper: keeps the ballast.
pub(crate) fn step(shared: &Arc<Shared>) -> Result<bool> {
    shared.space.keep_ballast(&shared.env).map(|_| false)
}
