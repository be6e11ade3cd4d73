//! The catalog view in sled: what makes opening a log cheap, and never the only holder of anything.
//!
//! sled's reads and writes may fail, panic, or (its checksums being what they are) lie. So it is read only when the log is
//! opened, everything it says is checked against a count and a digest, and any doubt means that the folder is moved aside and
//! the view rebuilt from the journal. Its flush does not make files durable on Linux; we sync them ourselves.
//!
//! Large messages go to files that sled never syncs, so values are stored in chunks of [`CHUNK`] bytes. Keys: space (1 byte),
//! key length (2 bytes, big-endian), key, chunk number (2 bytes, big-endian). Chunk 0 begins with the value's length (4
//! bytes, little-endian). The key of one zero byte holds the stamp.

use super::{CatalogView, MemoryView, MetaRecord, MetaSpace, Stamp};
use crate::codec::{CodecError, Reader, xxh64};
use crate::env::{Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::types::FrameSeq;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Bytes of a value that go into one sled value.
const CHUNK: usize = 2048;
const STAMP_KEY: &[u8] = &[0];
const CACHE_BYTES: u64 = 16 << 20;
const OPEN_TRIES: u32 = 100;
const OPEN_PAUSE_US: u64 = 5_000;

type Key = (MetaSpace, String);

/// The catalog view in sled.
pub struct SledView {
    env: Env,
    dir: PathBuf,
    journal: u64,
    db: Option<sled::Db>,
    state: MemoryView,
    entries: BTreeMap<Key, u64>,
    /// Keys changed since the last save, with the chunks that sled has of them.
    dirty: BTreeMap<Key, usize>,
}

/// A view, and why the folder had to be moved aside, if so.
pub struct Opened {
    /// The view; behind the journal by the frames after [`CatalogView::applied`].
    pub view: SledView,
    /// What was wrong with what was there.
    pub rebuilt: Option<String>,
}

impl SledView {
    /// Opens the view in `dir` for the log with the id `journal`.
    pub fn open(env: &Env, dir: &Path, journal: u64) -> Result<Opened> {
        if !env.disk.exists(dir).map_err(|cause| Error::io("looking for", dir, cause))? {
            return Ok(SledView::create(env, dir, journal));
        }
        match load(env, dir, journal) {
            Ok((db, applied, entries)) => {
                let mut view = SledView::empty(env, dir, journal, Some(db));
                view.entries = entries.iter().map(|(key, value)| (key.clone(), value.len() as u64)).collect();
                view.state = MemoryView::with(applied, entries);
                Ok(Opened { view, rebuilt: None })
            }
            Err(reason) => SledView::empty(env, dir, journal, None).start_over(&reason),
        }
    }

    /// Moves what there is aside and begins with an empty view.
    pub fn start_over(mut self, reason: &str) -> Result<Opened> {
        self.db = None;
        let aside = move_aside(&self.env, &self.dir)?;
        let mut opened = SledView::create(&self.env, &self.dir, self.journal);
        let kept = opened.rebuilt.take().map_or(String::new(), |problem| format!("; {problem}"));
        let reason =
            format!("the catalog view was rebuilt from the journal: {reason}; the old one is {}", aside.display());
        opened.rebuilt = Some(reason + &kept);
        Ok(opened)
    }

    fn create(env: &Env, dir: &Path, journal: u64) -> Opened {
        let (db, rebuilt) = match open_db(env, dir) {
            Ok(db) => (Some(db), None),
            Err(reason) => (None, Some(format!("the catalog view is kept in memory: {reason}"))),
        };
        Opened { view: SledView::empty(env, dir, journal, db), rebuilt }
    }

    fn empty(env: &Env, dir: &Path, journal: u64, db: Option<sled::Db>) -> SledView {
        SledView {
            env: env.clone(),
            dir: dir.to_owned(),
            journal,
            db,
            state: MemoryView::default(),
            entries: BTreeMap::new(),
            dirty: BTreeMap::new(),
        }
    }

    fn batch(&self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, old_chunks) in &self.dirty {
            let value = self.state.get(key.0, &key.1);
            let chunks = value.as_ref().map_or(0, |value| chunk_count(value.len()));
            for number in chunks..*old_chunks {
                batch.remove(chunk_key(key, number));
            }
            for (number, chunk) in value.iter().flat_map(|value| chunks_of(value)).enumerate() {
                batch.insert(chunk_key(key, number), chunk);
            }
        }
        let entries = self.entries.keys().filter_map(|key| Some((key, self.state.get(key.0, &key.1)?)));
        let digest = entries.fold(0u64, |sum, (key, value)| sum.wrapping_add(entry_digest(key, &value)));
        batch.insert(STAMP_KEY, stamp(self.journal, self.state.applied(), self.entries.len() as u64, digest));
        batch
    }

    /// What sled's own flush leaves out.
    fn sync_files(&self) -> std::io::Result<()> {
        for entry in self.env.disk.list(&self.dir)?.into_iter().filter(|entry| !entry.is_dir) {
            self.env.disk.open(&self.dir.join(entry.name), OpenMode::ReadWrite)?.sync_data()?;
        }
        self.env.disk.sync_dir(&self.dir)?;
        self.env.disk.sync_dir(&crate::env::parent_of(&self.dir))
    }
}

impl CatalogView for SledView {
    fn applied(&self) -> FrameSeq {
        self.state.applied()
    }

    fn get(&self, space: MetaSpace, key: &str) -> Option<Vec<u8>> {
        self.state.get(space, key)
    }

    fn scan(&self, space: MetaSpace, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.state.scan(space, prefix)
    }

    fn apply(&mut self, seq: FrameSeq, records: &[MetaRecord]) {
        for record in records {
            let key = (record.space, record.key.clone());
            let old = match &record.value {
                Some(value) => self.entries.insert(key.clone(), value.len() as u64),
                None => self.entries.remove(&key),
            };
            let old_chunks = old.map_or(0, |len| chunk_count(usize::try_from(len).unwrap_or(usize::MAX)));
            self.dirty.entry(key).or_insert(old_chunks);
        }
        self.state.apply(seq, records);
    }

    fn save(&mut self) -> Result<()> {
        let Some(db) = &self.db else { return Ok(()) };
        let batch = self.batch();
        let written = catch_unwind(AssertUnwindSafe(|| {
            db.apply_batch(batch)?;
            db.flush()
        }));
        let failed = match written {
            Ok(Ok(_)) => self.sync_files().err().map(|cause| cause.to_string()),
            Ok(Err(cause)) => Some(cause.to_string()),
            Err(_) => Some("sled panicked".to_owned()),
        };
        match failed {
            None => self.dirty.clear(),
            Some(cause) => {
                self.db = None;
                let message = format!("saving the catalog view in {}: {cause}", self.dir.display());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(())
    }
}

fn chunk_count(len: usize) -> usize {
    (len + 4).div_ceil(CHUNK)
}

fn chunks_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut whole = crate::log::frame::narrow(value.len()).to_le_bytes().to_vec();
    whole.extend_from_slice(value);
    whole.chunks(CHUNK).map(<[u8]>::to_vec).collect()
}

fn chunk_key((space, key): &Key, number: usize) -> Vec<u8> {
    let short = |n: usize| u16::try_from(n).expect("keys and values are capped").to_be_bytes();
    let mut out = vec![space.number()];
    out.extend_from_slice(&short(key.len()));
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&short(number));
    out
}

fn entry_digest((space, key): &Key, value: &[u8]) -> u64 {
    xxh64(value, xxh64(key.as_bytes(), u64::from(space.number())))
}

fn stamp(journal: u64, applied: FrameSeq, count: u64, digest: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    for field in [journal, applied.0, count, digest] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let sum = xxh64(&out, 0);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn read_stamp(bytes: &[u8]) -> std::result::Result<(Stamp, u64, u64), CodecError> {
    let mut reader = Reader::new(bytes);
    let covered = reader.clone().bytes(32, "stamp")?;
    let journal = reader.u64("stamp")?;
    let applied = FrameSeq(reader.u64("stamp")?);
    let (count, digest) = (reader.u64("stamp")?, reader.u64("stamp")?);
    match reader.u64("stamp")? {
        sum if sum == xxh64(covered, 0) => Ok((Stamp { journal, applied }, count, digest)),
        sum => Err(CodecError::Invalid { what: "stamp", value: sum }),
    }
}

fn open_db(env: &Env, dir: &Path) -> std::result::Result<sled::Db, String> {
    for entry in env.disk.list(dir).unwrap_or_default() {
        // Left by a crash; sled would take it for its newest snapshot and refuse to open.
        if entry.name.starts_with("snap.") && entry.name.ends_with(".generating") {
            env.disk.remove_file(&dir.join(&entry.name)).map_err(|cause| cause.to_string())?;
        }
    }
    let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(CACHE_BYTES);
    let mut tries = 0;
    loop {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            // sled gives its lock back from a thread of its own, some time after it was closed; ours says that nobody else is in.
            Ok(Err(sled::Error::Io(_))) if tries < OPEN_TRIES => env.clock.sleep_us(OPEN_PAUSE_US),
            Ok(Err(cause)) => return Err(format!("sled does not open: {cause}")),
            Err(_) => return Err("sled panicked when it was opened".to_owned()),
        }
        tries += 1;
    }
}

type Loaded = (sled::Db, FrameSeq, BTreeMap<Key, Vec<u8>>);

fn load(env: &Env, dir: &Path, journal: u64) -> std::result::Result<Loaded, String> {
    let db = open_db(env, dir)?;
    let read = catch_unwind(AssertUnwindSafe(|| read_all(&db)));
    let (stamp, count, digest, entries) = read.unwrap_or_else(|_| Err("sled panicked when it was read".to_owned()))?;
    let found = entries.iter().fold(0u64, |sum, (key, value)| sum.wrapping_add(entry_digest(key, value)));
    if stamp.journal != journal {
        return Err("it belongs to another journal".to_owned());
    }
    if entries.len() as u64 != count || found != digest {
        return Err(format!("it holds {} entries that are not the {count} that were saved", entries.len()));
    }
    Ok((db, stamp.applied, entries))
}

type Contents = (Stamp, u64, u64, BTreeMap<Key, Vec<u8>>);

fn read_all(db: &sled::Db) -> std::result::Result<Contents, String> {
    let mut chunks: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    let mut stamp = None;
    for entry in db.iter() {
        let (key, value) = entry.map_err(|cause| format!("sled cannot be read: {cause}"))?;
        if key.as_ref() == STAMP_KEY {
            stamp = Some(read_stamp(&value).map_err(|cause| cause.to_string())?);
            continue;
        }
        let key = read_key(&key).ok_or("it holds a key that is not ours")?;
        // Chunks of a key come in order.
        chunks.entry(key).or_default().extend_from_slice(&value);
    }
    let (stamp, count, digest) = stamp.ok_or("it is empty")?;
    for (key, value) in &mut chunks {
        let mut len = [0; 4];
        len.copy_from_slice(value.get(..4).ok_or("it holds a value without length")?);
        value.drain(..4);
        if value.len() != u32::from_le_bytes(len) as usize {
            return Err(format!("the value of {:?} {:?} is incomplete", key.0, key.1));
        }
    }
    Ok((stamp, count, digest, chunks))
}

fn read_key(bytes: &[u8]) -> Option<Key> {
    let (space, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_at_checked(2)?;
    let len = usize::from(u16::from_be_bytes([*len.first()?, *len.get(1)?]));
    let key = std::str::from_utf8(rest.get(..len)?).ok()?;
    (rest.len() == len + 2).then_some((MetaSpace::from_number(*space)?, key.to_owned()))
}

fn move_aside(env: &Env, dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let io = |cause| Error::io("moving aside", dir, cause);
    let mut number = 1;
    loop {
        let aside = dir.with_file_name(format!("{name}.bad-{number}"));
        if !env.disk.exists(&aside).map_err(io)? {
            env.disk.rename(dir, &aside).map_err(io)?;
            env.disk.sync_dir(&crate::env::parent_of(dir)).map_err(io)?;
            return Ok(aside);
        }
        number += 1;
    }
}
