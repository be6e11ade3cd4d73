//! Files of state that has no room in memory. A run is written once, front to back, and read piece by piece; its file is gone when
//! nobody refers to it any more. Nothing in here outlives the process.

use super::ipc;
use super::section::Section;
use crate::env::{DiskFile, Env, OpenMode, create_dir_durably};
use crate::error::{Error, Result};
use crate::metrics::Counter;
use arrow::array::RecordBatch;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How many bytes the state of some engines may take together in memory.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    held: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Arc<Budget> {
        Arc::new(Budget { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), held: AtomicUsize::new(0) })
    }

    /// Half of the machine's memory.
    pub fn of_machine(env: &Env) -> Arc<Budget> {
        Budget::new(env.ram_bytes.unwrap_or(RAM_BYTES_UNKNOWN) / 2)
    }
}

/// What a machine is taken to have that does not say.
const RAM_BYTES_UNKNOWN: u64 = 4 << 30;

/// What one engine takes of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    /// Nothing yet.
    pub fn new(budget: Arc<Budget>) -> Share {
        Share { budget, held: 0 }
    }

    /// Says how much is held; gives how much should be if all together hold more than the budget: then half of it is to become free.
    pub fn hold(&mut self, bytes: usize) -> Option<usize> {
        let Share { budget, held } = self;
        let all = match bytes.checked_sub(*held) {
            Some(more) => budget.held.fetch_add(more, Ordering::Relaxed) + more,
            None => budget.held.fetch_sub(*held - bytes, Ordering::Relaxed) - (*held - bytes),
        };
        *held = bytes;
        let own = |all: usize| (bytes as f64 / all as f64 * budget.bytes as f64 / 2.0) as usize;
        (all > budget.bytes).then(|| own(all))
    }

    /// What is not worth to be written out.
    pub fn least(&self) -> usize {
        self.budget.bytes / 16
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// Where the state of one engine goes.
pub struct Spill {
    env: Env,
    dir: PathBuf,
    is_made: OnceLock<()>,
    files: Counter,
    bytes: Counter,
}

impl fmt::Debug for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spill({})", self.dir.display())
    }
}

impl Spill {
    /// Below a folder that nobody needs after this process. Nothing is written before it is needed.
    pub fn new(env: &Env, scratch: &Path) -> Arc<Spill> {
        let dir = scratch.join(format!("{:016x}", env.random.next_u64()));
        let (is_made, files, bytes) = (OnceLock::new(), Counter::new(), Counter::new());
        Arc::new(Spill { env: env.clone(), dir, is_made, files, bytes })
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// A new file.
    pub fn writer(self: &Arc<Self>) -> Result<Writer> {
        let disk = &*self.env.disk;
        if self.is_made.get().is_none() {
            create_dir_durably(disk, &self.dir).map_err(|cause| failed("creating", &self.dir, cause))?;
            self.is_made.get_or_init(|| ());
        }
        self.files.add(1);
        let path = self.dir.join(format!("{:06}", self.files.get()));
        let file = disk.open(&path, OpenMode::CreateNew).map_err(|cause| failed("creating", &path, cause))?;
        let owned = Arc::new(Owned { spill: Arc::clone(self), path });
        Ok(Writer { owned, file, at: 0, pieces: Vec::new(), buffer: Vec::new() })
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.is_made.get().is_some() {
            // What stays is in nobody's way.
            self.env.disk.remove_dir_all(&self.dir).ok();
        }
    }
}

fn failed(doing: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(doing, path, cause).context("state beyond its budget goes to disk").with_hint(
        "make room on the disk, or give the job more memory with --state-memory; it goes on from its newest checkpoint",
    )
}

/// A file that goes with the last who refers to it.
struct Owned {
    spill: Arc<Spill>,
    path: PathBuf,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.spill.env.disk.remove_file(&self.path).ok();
    }
}

/// Rows of a run.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What the run is sorted by, of its first and its last row.
    pub order: RangeInclusive<u64>,
    /// Number of rows.
    pub rows: usize,
    at: u64,
    len: usize,
    crc: u32,
}

/// Pieces that were written together, sorted: by the hashes of keys, or by time.
#[derive(Clone)]
pub struct Run {
    owned: Arc<Owned>,
    pieces: Arc<[Piece]>,
}

impl Run {
    /// Its pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The rows of a piece.
    ///
    /// # Errors
    /// `Damage` when they are not those that were written.
    pub fn read(&self, piece: &Piece) -> Result<RecordBatch> {
        let path = &self.owned.path;
        let mut bytes = vec![0; piece.len];
        let file = self.owned.spill.env.disk.open(path, OpenMode::Read);
        let read = file.and_then(|file| file.read_exact_at(piece.at, &mut bytes));
        let damaged = || {
            Error::damage(format!("state that was written to {} is not what comes back", path.display()))
                .with_hint("run the job again: it goes on from its newest checkpoint. The disk may be failing")
        };
        match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
            read => read.map_err(|cause| Error::io("reading", path, cause))?,
        }
        match crc32fast::hash(&bytes) == piece.crc {
            true => ipc::read("spill", &bytes)?.rows(),
            false => Err(damaged()),
        }
    }
}

/// Writes runs into one file.
pub struct Writer {
    owned: Arc<Owned>,
    file: Arc<dyn DiskFile>,
    at: u64,
    /// Of the run that is being written.
    pieces: Vec<Piece>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Adds rows to the run, which lie behind those before.
    pub fn piece(&mut self, order: RangeInclusive<u64>, rows: RecordBatch) -> Result<()> {
        let count = rows.num_rows();
        self.buffer.clear();
        ipc::write(&Section::of("spill", rows.schema(), vec![rows]), &mut self.buffer)?;
        let written = self.file.write_all_at(self.at, &self.buffer);
        written.map_err(|cause| failed("writing", &self.owned.path, cause))?;
        let (at, len) = (self.at, self.buffer.len());
        self.pieces.push(Piece { order, rows: count, at, len, crc: crc32fast::hash(&self.buffer) });
        self.at += len as u64;
        self.owned.spill.bytes.add(len as u64);
        Ok(())
    }

    /// Ends the run; the next piece begins another one.
    pub fn end_run(&mut self) -> Run {
        Run { owned: Arc::clone(&self.owned), pieces: std::mem::take(&mut self.pieces).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::Sim;
    use arrow::array::{ArrayRef, UInt64Array};

    fn rows(values: &[u64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("n", column)]).expect("a batch")
    }

    #[test]
    fn pieces_come_back_and_files_go_with_the_last_run() {
        let sim = Sim::new(1);
        let env = sim.env();
        env.disk.create_dir(Path::new("data")).expect("a folder");
        let spill = Spill::new(&env, Path::new("data"));
        let mut writer = spill.writer().expect("a file");
        writer.piece(1..=3, rows(&[1, 2, 3])).expect("written");
        writer.piece(4..=9, rows(&[4, 9])).expect("written");
        let one = writer.end_run();
        writer.piece(0..=7, rows(&[0, 7])).expect("written");
        let two = writer.end_run();
        drop(writer);
        let read = |run: &Run| -> Vec<RecordBatch> {
            run.pieces().iter().map(|piece| run.read(piece).expect("whole")).collect()
        };
        assert_eq!(read(&one), [rows(&[1, 2, 3]), rows(&[4, 9])]);
        assert_eq!(read(&two), [rows(&[0, 7])]);
        let files = || env.disk.list(&spill.dir).expect("listed").len();
        drop(one);
        assert_eq!(files(), 1);
        drop(two);
        assert_eq!(files(), 0);
    }

    #[test]
    fn what_was_changed_on_disk_is_damage() {
        let env = Sim::new(2).env();
        env.disk.create_dir(Path::new("data")).expect("a folder");
        let spill = Spill::new(&env, Path::new("data"));
        let mut writer = spill.writer().expect("a file");
        writer.piece(1..=3, rows(&[1, 2, 3])).expect("written");
        let run = writer.end_run();
        let file = env.disk.open(&run.owned.path, OpenMode::ReadWrite).expect("there");
        let len = file.len().expect("a length");
        file.write_all_at(len / 2, b"?").expect("changed");
        let error = run.read(&run.pieces()[0]).expect_err("damage");
        assert_eq!(error.kind(), crate::error::ErrorKind::Damage, "{error}");
        file.set_len(len / 2).expect("cut");
        assert_eq!(run.read(&run.pieces()[0]).expect_err("damage").kind(), crate::error::ErrorKind::Damage);
    }
}
