//! The simulated disk: what is durable, what is pending, what fails.

use crate::env::{DirEntry, Disk, DiskFile, DiskSpace, LockError, LockGuard, Mapped, OpenMode, parent_of};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a power cut leaves of the operations that were not synced. They are numbered over the whole disk, in order of issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// None of them.
    Nothing,
    /// All of them.
    All,
    /// The first `n`.
    Prefix(usize),
    /// All but number `n`.
    Without(usize),
    /// All, but the last write only up to this many of its bytes.
    Torn(usize),
    /// All, but the last write only in these eighths of its sectors (bit 0 is the first).
    Sectors(u8),
    /// All names and lengths, but not the content of any write: what it added reads as zeros.
    Grown,
    /// All names, but nothing of any content: a file renamed before its content came.
    Names,
    /// All contents, but no names: a file created, written and not found.
    Contents,
}

/// What a disk writes at once.
const SECTOR: usize = 512;

/// What a failing call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An I/O error. A failed sync also forgets: what was pending stays visible and never becomes durable, as on Linux.
    Eio,
    /// No space left, for calls that need some (other calls succeed).
    Enospc,
    /// A write writes half of its bytes (other calls succeed).
    ShortWrite,
}

/// Makes calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The first call that fails, counted from 0 when the fault was set.
    pub call: u64,
    /// How.
    pub kind: FaultKind,
    /// All later calls fail too, until the fault is taken away.
    pub lasting: bool,
}

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone)]
enum FileOp {
    Write { at: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct FileNode {
    durable: Arc<Vec<u8>>,
    visible: Arc<Vec<u8>>,
    pending: Vec<(u64, FileOp)>,
}

/// Names that change together: a rename takes one away and sets another.
type DirOp = Vec<(String, Option<u64>)>;

#[derive(Clone, Default)]
struct DirNode {
    durable: BTreeMap<String, u64>,
    visible: BTreeMap<String, u64>,
    pending: Vec<(u64, DirOp)>,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// One call that changed something, to build the disk as it was after any number of them.
#[derive(Clone)]
enum Call {
    File(u64, FileOp),
    Create { dir: u64, name: String, id: u64, is_dir: bool },
    Names { dir: u64, op: DirOp },
    Sync(u64),
    Forget(u64),
}

#[derive(Clone, Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next_id: u64,
    next_op: u64,
    locks: BTreeSet<PathBuf>,
    calls: u64,
    fault: Option<Fault>,
    /// Bytes that all files together may have.
    capacity: Option<u64>,
    history: Vec<Call>,
    keep_history: bool,
}

const ROOT: u64 = 0;

fn apply(content: &mut Arc<Vec<u8>>, op: &FileOp) {
    let content = Arc::make_mut(content);
    match op {
        FileOp::SetLen(len) => content.resize(index(*len), 0),
        FileOp::Write { at, bytes } => {
            let from = index(*at);
            let to = from + bytes.len();
            if content.len() < to {
                content.resize(to, 0);
            }
            content[from..to].copy_from_slice(bytes);
        }
    }
}

/// Writes only some eighths of the sectors that a write touches.
fn apply_sectors(content: &mut Arc<Vec<u8>>, at: usize, bytes: &[u8], eighths: u8) {
    let group = sectors(at, bytes.len()).div_ceil(8).max(1);
    let mut from = 0;
    while from < bytes.len() {
        let number = ((at + from) / SECTOR - at / SECTOR) / group;
        let end = ((at / SECTOR + (number + 1) * group) * SECTOR - at).min(bytes.len());
        if eighths >> number & 1 == 1 {
            apply(content, &FileOp::Write { at: (at + from) as u64, bytes: bytes[from..end].into() });
        }
        from = end;
    }
}

/// How many sectors a write of `len` bytes at `at` touches.
fn sectors(at: usize, len: usize) -> usize {
    if len == 0 { 0 } else { (at + len - 1) / SECTOR - at / SECTOR + 1 }
}

fn index(place: u64) -> usize {
    usize::try_from(place).expect("simulated files fit into memory")
}

fn apply_names(names: &mut BTreeMap<String, u64>, op: &DirOp) {
    for (name, id) in op {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn file_name(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl State {
    fn run(&mut self, call: Call) {
        match &call {
            Call::File(id, op) => {
                let number = self.next_op;
                self.next_op += 1;
                let file = self.file(*id);
                apply(&mut file.visible, op);
                file.pending.push((number, op.clone()));
            }
            Call::Create { dir, name, id, is_dir } => {
                let node = if *is_dir { Node::Dir(DirNode::default()) } else { Node::File(FileNode::default()) };
                self.nodes.insert(*id, node);
                self.next_id = self.next_id.max(id + 1);
                self.change_names(*dir, vec![(name.clone(), Some(*id))]);
            }
            Call::Names { dir, op } => self.change_names(*dir, op.clone()),
            Call::Sync(id) => match self.nodes.get_mut(id) {
                Some(Node::File(file)) => {
                    for (_, op) in std::mem::take(&mut file.pending) {
                        apply(&mut file.durable, &op);
                    }
                }
                Some(Node::Dir(dir)) => {
                    dir.pending.clear();
                    dir.durable = dir.visible.clone();
                }
                None => {}
            },
            Call::Forget(id) => {
                if let Some(Node::File(file)) = self.nodes.get_mut(id) {
                    file.pending.clear();
                }
            }
        }
        if self.keep_history {
            self.history.push(call);
        }
    }

    fn change_names(&mut self, dir: u64, op: DirOp) {
        let number = self.next_op;
        self.next_op += 1;
        let dir = self.dir(dir);
        apply_names(&mut dir.visible, &op);
        dir.pending.push((number, op));
    }

    fn file(&mut self, id: u64) -> &mut FileNode {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file,
            _ => panic!("node {id} is not a file"),
        }
    }

    fn dir(&mut self, id: u64) -> &mut DirNode {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => dir,
            _ => panic!("node {id} is not a directory"),
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name.to_str().ok_or(io::ErrorKind::InvalidInput)?,
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
            };
            at = match self.nodes.get(&at) {
                Some(Node::Dir(dir)) => *dir.visible.get(name).ok_or_else(|| not_found(path))?,
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            };
        }
        Ok(at)
    }

    fn find_dir(&self, path: &Path) -> io::Result<u64> {
        let id = self.find(path)?;
        match self.nodes.get(&id) {
            Some(Node::Dir(_)) => Ok(id),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn create(&mut self, path: &Path, is_dir: bool) -> io::Result<u64> {
        if self.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let dir = self.find_dir(&parent_of(path))?;
        let (name, id) = (file_name(path)?, self.next_id);
        self.run(Call::Create { dir, name, id, is_dir });
        Ok(id)
    }

    /// Counts a call; says whether and how it fails.
    fn fault(&mut self) -> Option<FaultKind> {
        let number = self.calls;
        self.calls += 1;
        let fault = self.fault?;
        (number == fault.call || (fault.lasting && number > fault.call)).then_some(fault.kind)
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> u64 {
        let dirs = self.nodes.values().filter_map(|node| match node {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        });
        let named = dirs.flat_map(|dir| dir.visible.values()).filter_map(|id| self.nodes.get(id));
        named
            .map(|node| match node {
                Node::File(file) => file.visible.len() as u64,
                Node::Dir(_) => 0,
            })
            .sum()
    }

    /// How many of `len` bytes at `at` of a file fit on the disk; `StorageFull` if none does.
    fn room_for(&mut self, id: u64, at: u64, len: usize) -> io::Result<usize> {
        let Some(capacity) = self.capacity else { return Ok(len) };
        let free = capacity.saturating_sub(self.used());
        let has = self.file(id).visible.len() as u64;
        let fits = index((has + free).saturating_sub(at)).min(len);
        if fits == 0 && len > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
    }

    fn check(&mut self, needs_space: bool) -> io::Result<()> {
        match self.fault() {
            Some(FaultKind::Eio) => Err(io::Error::from_raw_os_error(5)),
            Some(FaultKind::Enospc) if needs_space => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        let mut state = State { next_id: ROOT + 1, ..State::default() };
        state.nodes.insert(ROOT, Node::Dir(DirNode::default()));
        SimDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on remembers every change, for [`changes`](Self::changes) and [`after`](Self::after). To be called while
    /// nothing is pending.
    pub fn remember(&self) {
        self.state().keep_history = true;
    }

    /// Number of changing calls (writes, syncs, names) since [`remember`](Self::remember).
    pub fn changes(&self) -> usize {
        self.state().history.len()
    }

    /// The disks as they were after 0, 1, 2, ... of the changes since [`remember`](Self::remember) was called on `base`'s
    /// original: `base` is a copy taken then.
    pub fn replay(&self, base: &SimDisk) -> Vec<SimDisk> {
        let history = self.state().history.clone();
        let mut state = base.state().clone();
        state.keep_history = false;
        state.history.clear();
        let mut disks = vec![SimDisk(Arc::new(Mutex::new(state.clone())))];
        for call in history {
            state.run(call);
            disks.push(SimDisk(Arc::new(Mutex::new(state.clone()))));
        }
        disks
    }

    /// A separate copy of everything, pending operations included, without locks and faults.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.locks.clear();
        state.fault = None;
        state.history.clear();
        state.keep_history = false;
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Makes calls fail, counted from now; `None` makes them succeed again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.calls = 0;
        state.fault = fault;
    }

    /// Lets all files together have this many bytes, from now on; `None` for any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Number of calls of any kind since the disk was made or a fault was set.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Number of operations that a power cut could take away.
    pub fn pending(&self) -> usize {
        pending_ops(&self.state()).len()
    }

    /// Length of the last write that a power cut could tear, and how many sectors it touches.
    pub fn last_write(&self) -> Option<(usize, usize)> {
        let state = self.state();
        last_write(&state).map(|(_, at, len)| (len, sectors(index(at), len)))
    }

    /// The disk as a power cut would leave it.
    #[must_use]
    pub fn crash(&self, choice: Crash) -> SimDisk {
        let state = self.state();
        let order = pending_ops(&state);
        let last = last_write(&state).map(|(op, ..)| op);
        let survives = |op: u64| {
            let rank = order.partition_point(|other| *other < op);
            match choice {
                Crash::Nothing => false,
                Crash::All | Crash::Torn(_) | Crash::Sectors(_) | Crash::Grown | Crash::Names | Crash::Contents => true,
                Crash::Prefix(n) => rank < n,
                Crash::Without(n) => rank != n,
            }
        };
        let mut nodes = BTreeMap::new();
        for (id, node) in &state.nodes {
            let left = match node {
                Node::File(file) => {
                    let mut durable = file.durable.clone();
                    for (op, change) in file.pending.iter().filter(|(op, _)| survives(*op)) {
                        match (choice, change) {
                            (Crash::Torn(cut), FileOp::Write { at, bytes }) if Some(*op) == last => {
                                let bytes = bytes[..cut.min(bytes.len())].into();
                                apply(&mut durable, &FileOp::Write { at: *at, bytes });
                            }
                            (Crash::Sectors(eighths), FileOp::Write { at, bytes }) if Some(*op) == last => {
                                apply_sectors(&mut durable, index(*at), bytes, eighths);
                            }
                            (Crash::Names, _) => {}
                            (Crash::Grown, FileOp::Write { at, bytes }) => {
                                let len = index(*at) + bytes.len();
                                let grown = durable.len().max(len);
                                Arc::make_mut(&mut durable).resize(grown, 0);
                            }
                            _ => apply(&mut durable, change),
                        }
                    }
                    Node::File(FileNode { visible: durable.clone(), durable, pending: Vec::new() })
                }
                Node::Dir(dir) => {
                    let mut durable = dir.durable.clone();
                    let named = |(op, _): &&(u64, DirOp)| survives(*op) && choice != Crash::Contents;
                    for (_, change) in dir.pending.iter().filter(named) {
                        apply_names(&mut durable, change);
                    }
                    Node::Dir(DirNode { visible: durable.clone(), durable, pending: Vec::new() })
                }
            };
            nodes.insert(*id, left);
        }
        let crashed = State { nodes, next_id: state.next_id, next_op: state.next_op, ..State::default() };
        SimDisk(Arc::new(Mutex::new(crashed)))
    }

    /// The bytes of a file, past all faults.
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.state();
        let id = state.find(path).ok()?;
        Some(state.file(id).visible.to_vec())
    }

    /// Replaces the bytes of a file durably, past all faults: rot, or another hand.
    pub fn poke(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.find(path).expect("only existing files are poked");
        let bytes = Arc::new(bytes);
        *state.file(id) = FileNode { durable: bytes.clone(), visible: bytes, pending: Vec::new() };
    }

    /// Makes a file with these bytes, durable, and the directories above it: a disk that another machine wrote.
    pub fn seed(&self, path: &Path, bytes: Vec<u8>) {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in parents.iter().rev().filter(|parent| parent.file_name().is_some()) {
            let _ = self.create_dir(parent);
        }
        let mut state = self.state();
        let _ = state.create(path, false);
        drop(state);
        self.poke(path, bytes);
        for parent in parents {
            let _ = self.sync_dir(parent);
        }
    }

    /// All files with their bytes, by path: to compare two disks.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let mut files = BTreeMap::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = open.pop() {
            match state.nodes.get(&id) {
                Some(Node::File(file)) => {
                    files.insert(path, file.visible.to_vec());
                }
                Some(Node::Dir(dir)) => open.extend(dir.visible.iter().map(|(name, id)| (path.join(name), *id))),
                None => {}
            }
        }
        files
    }
}

fn pending_ops(state: &State) -> Vec<u64> {
    let mut ops: Vec<u64> = Vec::new();
    for node in state.nodes.values() {
        match node {
            Node::File(file) => ops.extend(file.pending.iter().map(|(op, _)| *op)),
            Node::Dir(dir) => ops.extend(dir.pending.iter().map(|(op, _)| *op)),
        }
    }
    ops.sort_unstable();
    ops
}

fn last_write(state: &State) -> Option<(u64, u64, usize)> {
    let files = state.nodes.values().filter_map(|node| match node {
        Node::File(file) => Some(file),
        Node::Dir(_) => None,
    });
    let writes = files.flat_map(|file| &file.pending).filter_map(|(op, change)| match change {
        FileOp::Write { at, bytes } => Some((*op, *at, bytes.len())),
        FileOp::SetLen(_) => None,
    });
    writes.max()
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    writable: bool,
}

impl DiskFile for SimFile {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check(false)?;
        let content = &state.file(self.id).visible;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
        let len = buf.len().min(content.len() - from);
        buf[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let len = match state.fault() {
            Some(FaultKind::Eio) => return Err(io::Error::from_raw_os_error(5)),
            Some(FaultKind::Enospc) => return Err(io::ErrorKind::StorageFull.into()),
            Some(FaultKind::ShortWrite) => bytes.len().div_ceil(2),
            None => bytes.len(),
        };
        let len = state.room_for(self.id, at, len)?;
        state.run(Call::File(self.id, FileOp::Write { at, bytes: bytes[..len].into() }));
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Err(cause) = state.check(true) {
            state.run(Call::Forget(self.id));
            return Err(cause);
        }
        state.run(Call::Sync(self.id));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.check(false)?;
        Ok(state.file(self.id).visible.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let grows = len > state.file(self.id).visible.len() as u64;
        state.check(grows)?;
        state.run(Call::File(self.id, FileOp::SetLen(len)));
        Ok(())
    }

    fn map(&self) -> io::Result<Mapped> {
        let mut state = self.disk.state();
        state.check(false)?;
        let bytes: Vec<u8> = state.file(self.id).visible.to_vec();
        Ok(Arc::new(bytes))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check(mode == OpenMode::CreateNew)?;
        let id = match mode {
            OpenMode::CreateNew => state.create(path, false)?,
            OpenMode::Read | OpenMode::ReadWrite => state.find(path)?,
        };
        if !matches!(state.nodes.get(&id), Some(Node::File(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(SimFile { disk: self.clone(), id, writable: mode != OpenMode::Read }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.check(false)?;
        let id = state.find_dir(dir)?;
        let names = state.dir(id).visible.clone();
        let entry = |(name, id): (String, u64)| match state.nodes.get(&id) {
            Some(Node::File(file)) => DirEntry { name, is_dir: false, len: file.visible.len() as u64 },
            _ => DirEntry { name, is_dir: true, len: 0 },
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state();
        state.check(false)?;
        Ok(state.find(path).is_ok())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(true)?;
        state.create(path, true).map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(true)?;
        let id = state.find(from)?;
        let (from_dir, to_dir) = (state.find_dir(&parent_of(from))?, state.find_dir(&parent_of(to))?);
        let (taken, set) = ((file_name(from)?, None), (file_name(to)?, Some(id)));
        if from_dir == to_dir {
            state.run(Call::Names { dir: from_dir, op: vec![taken, set] });
        } else {
            state.run(Call::Names { dir: to_dir, op: vec![set] });
            state.run(Call::Names { dir: from_dir, op: vec![taken] });
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(false)?;
        state.find(path)?;
        let (dir, name) = (state.find_dir(&parent_of(path))?, file_name(path)?);
        state.run(Call::Names { dir, op: vec![(name, None)] });
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(false)?;
        let id = state.find_dir(dir)?;
        state.run(Call::Sync(id));
        Ok(())
    }

    fn lock(&self, path: &Path, contents: &str) -> Result<Box<dyn LockGuard>, LockError> {
        let mut state = self.state();
        state.check(true).map_err(LockError::Io)?;
        if state.locks.contains(path) {
            let id = state.find(path).map_err(LockError::Io)?;
            let holder = String::from_utf8_lossy(&state.file(id).visible).trim().to_owned();
            return Err(LockError::Held(holder));
        }
        let id = match state.find(path) {
            Ok(id) => id,
            Err(_) => state.create(path, false).map_err(LockError::Io)?,
        };
        state.run(Call::File(id, FileOp::SetLen(0)));
        state.run(Call::File(id, FileOp::Write { at: 0, bytes: contents.as_bytes().into() }));
        state.locks.insert(path.to_owned());
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn space(&self, _path: &Path) -> io::Result<Option<DiskSpace>> {
        let mut state = self.state();
        state.check(false)?;
        let used = state.used();
        Ok(state.capacity.map(|total| DiskSpace { free: total.saturating_sub(used), total }))
    }

    fn is_os(&self) -> bool {
        false
    }
}
