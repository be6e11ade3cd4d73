//! Decoded row groups, shared by all readers: each is decoded once however many ask for it at the same time, and all
//! together take a bounded number of bytes. Groups that were asked for once take an eighth of them, no more: a reader that goes through
//! the past alone works in memory that stays the same, and leaves to others what they have asked for again.

use super::entry::HistoryEntry;
use crate::error::Result;
use crate::log::records::{LogBatch, Projection};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A decoded row group.
pub(crate) struct Group {
    batch: LogBatch,
    by_partition: OnceLock<ByPartition>,
}

/// The rows of a batch by partition: where each partition's rows begin in `rows`, and where they end.
struct ByPartition {
    begin: BTreeMap<u32, (u32, u32)>,
    rows: Vec<u32>,
}

impl std::ops::Deref for Group {
    type Target = LogBatch;

    fn deref(&self) -> &LogBatch {
        &self.batch
    }
}

impl Group {
    fn new(batch: LogBatch) -> Group {
        Group { batch, by_partition: OnceLock::new() }
    }

    /// Bytes that it takes, with the lists of rows that it will have once it is asked for partitions.
    fn bytes(&self) -> usize {
        self.batch.memory() + 4 * self.batch.len()
    }

    /// The rows of a partition, ascending. The lists are made once for all partitions.
    pub fn rows_of(&self, partition: u32) -> &[u32] {
        let lists = self.by_partition.get_or_init(|| ByPartition::of(&self.batch.partitions));
        let (from, to) = lists.begin.get(&partition).copied().unwrap_or_default();
        lists.rows.get(from as usize..to as usize).unwrap_or_default()
    }
}

impl ByPartition {
    fn of(partitions: &[u32]) -> ByPartition {
        let mut begin: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for partition in partitions {
            begin.entry(*partition).or_default().1 += 1;
        }
        let mut next = 0;
        for (from, to) in begin.values_mut() {
            let count = *to;
            // Until all rows have their place, the end is where the next one goes.
            (*from, *to) = (next, next);
            next += count;
        }
        let mut rows = vec![0; partitions.len()];
        for (row, partition) in (0..).zip(partitions) {
            if let Some((_, end)) = begin.get_mut(partition) {
                if let Some(place) = rows.get_mut(*end as usize) {
                    *place = row;
                }
                *end += 1;
            }
        }
        ByPartition { begin, rows }
    }
}

/// A row group that somebody has asked for. Who decodes it holds the lock; who waits for the lock finds it decoded.
#[derive(Default)]
struct Slot(Mutex<Option<Arc<Group>>>);

struct Kept {
    projection: Projection,
    slot: Arc<Slot>,
    /// 0 until it is decoded.
    bytes: usize,
    used: u64,
    /// It was asked for more than once.
    is_shared: bool,
}

/// Decoded groups in the order of their last use.
#[derive(Default)]
struct ByUse {
    /// The key of each, the least recently used first.
    keys: BTreeMap<u64, (u64, usize)>,
    bytes: usize,
}

impl ByUse {
    fn add(&mut self, kept: &Kept, key: (u64, usize)) {
        self.keys.insert(kept.used, key);
        self.bytes += kept.bytes;
    }

    fn remove(&mut self, kept: &Kept) {
        self.keys.remove(&kept.used);
        self.bytes -= kept.bytes;
    }
}

/// The part of all bytes that groups asked for once may take.
const ONCE: usize = 8;

#[derive(Default)]
struct State {
    kept: BTreeMap<(u64, usize), Vec<Kept>>,
    once: ByUse,
    shared: ByUse,
    uses: u64,
    decoded: u64,
}

/// What the cache holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheUse {
    /// Bytes of the row groups in it.
    pub bytes: usize,
    /// Row groups decoded so far.
    pub decoded: u64,
}

/// The cache.
pub(crate) struct Cache {
    bytes_max: usize,
    state: Mutex<State>,
}

impl State {
    /// The slot of a group that has what the projection asks for; a new one if there is none.
    fn slot(&mut self, key: (u64, usize), projection: &Projection) -> Arc<Slot> {
        self.uses += 1;
        let now = self.uses;
        let kept = self.kept.entry(key).or_default();
        if let Some(kept) = kept.iter_mut().find(|kept| serves(&kept.projection, projection)) {
            if kept.bytes > 0 {
                if kept.is_shared { &mut self.shared } else { &mut self.once }.remove(kept);
            }
            (kept.used, kept.is_shared) = (now, true);
            if kept.bytes > 0 {
                self.shared.add(kept, key);
            }
            return kept.slot.clone();
        }
        let slot = Arc::new(Slot::default());
        let projection = projection.clone();
        kept.push(Kept { projection, slot: slot.clone(), bytes: 0, used: now, is_shared: false });
        slot
    }

    /// A slot was filled: counts it and makes room.
    fn filled(&mut self, key: (u64, usize), slot: &Arc<Slot>, bytes: usize, bytes_max: usize) {
        self.decoded += 1;
        if bytes > bytes_max {
            return self.forget(key, slot);
        }
        let kept = self.kept.get_mut(&key).and_then(|kept| kept.iter_mut().find(|kept| Arc::ptr_eq(&kept.slot, slot)));
        if let Some(kept) = kept {
            kept.bytes = bytes;
            if kept.is_shared { &mut self.shared } else { &mut self.once }.add(kept, key);
        }
        // The newest one stays, however large it is.
        while self.once.keys.len() > 1 && self.once.bytes > bytes_max / ONCE {
            State::drop_oldest(&mut self.kept, &mut self.once);
        }
        while self.bytes() > bytes_max {
            let from = if self.shared.keys.is_empty() { &mut self.once } else { &mut self.shared };
            State::drop_oldest(&mut self.kept, from);
        }
    }

    fn bytes(&self) -> usize {
        self.once.bytes + self.shared.bytes
    }

    fn drop_oldest(all: &mut BTreeMap<(u64, usize), Vec<Kept>>, by_use: &mut ByUse) {
        let Some((used, key)) = by_use.keys.first_key_value().map(|(used, key)| (*used, *key)) else { return };
        let kept = all.entry(key).or_default();
        kept.extract_if(.., |kept| kept.used == used).for_each(|kept| by_use.remove(&kept));
        if kept.is_empty() {
            all.remove(&key);
        }
    }

    /// A slot could not be filled, or holds too much to be kept.
    fn forget(&mut self, key: (u64, usize), slot: &Arc<Slot>) {
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.retain(|kept| kept.bytes > 0 || !Arc::ptr_eq(&kept.slot, slot));
            if kept.is_empty() {
                self.kept.remove(&key);
            }
        }
    }
}

/// True if what was decoded for `have` has all that `want` asks for.
fn serves(have: &Projection, want: &Projection) -> bool {
    let all = |have: bool, want: bool| have || !want;
    have.columns == want.columns
        && all(have.keys, want.keys)
        && all(have.values, want.values)
        && all(have.headers, want.headers)
}

impl Cache {
    /// A cache of at most this many bytes.
    pub fn new(bytes_max: usize) -> Cache {
        Cache { bytes_max, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row group of a file, with at least what the projection asks for. [`ErrorKind::Damage`](crate::ErrorKind::Damage) if
    /// its bytes are not what was written.
    pub fn read(&self, entry: &HistoryEntry, group: usize, projection: &Projection) -> Result<Arc<Group>> {
        let file = entry.open()?;
        let topic = file.groups().get(group).map(|group| group.topic).unwrap_or_default();
        let fits = projection.columns.as_ref().is_some_and(|columns| file.fits(topic, columns));
        // Where there are no such columns, all readers take the bytes.
        let bytes =
            Projection { values: projection.values || projection.columns.is_some(), columns: None, ..*projection };
        let projection = if fits { projection } else { &bytes };
        let key = (entry.record().number, group);
        let slot = self.state().slot(key, projection);
        let mut decoded = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = &*decoded {
            return Ok(group.clone());
        }
        match file.read(group, projection) {
            Ok(batch) => {
                let group = Arc::new(Group::new(batch));
                *decoded = Some(group.clone());
                self.state().filled(key, &slot, group.bytes(), self.bytes_max);
                Ok(group)
            }
            Err(error) => {
                self.state().forget(key, &slot);
                Err(error)
            }
        }
    }

    /// What it holds and has done.
    pub fn usage(&self) -> CacheUse {
        let state = self.state();
        CacheUse { bytes: state.bytes(), decoded: state.decoded }
    }
}
