//! What is in history: the files, by topic in order of position. Made from the catalog's records; row groups are looked up in
//! the files themselves, when needed.

use super::entry::HistoryEntry;
use super::file::FileRecord;
use crate::codec::CodecError;
use crate::env::Env;
use crate::log::catalog::{self, CatalogView, MetaSpace, SEALED_KEY, Sealed};
use crate::log::repair;
use crate::log::report::Damage;
use crate::types::{Position, TopicId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What is in history.
#[derive(Clone, Default)]
pub(crate) struct History {
    /// Records below this position are in history, all others in the journal.
    pub end: Position,
    /// The last journal file whose records are in history.
    pub sealed_file: u64,
    /// Losses that were known when the records around them were sealed and were not accepted, in order of position.
    pub lost: Vec<Damage>,
    files: BTreeMap<u64, Arc<HistoryEntry>>,
    by_topic: BTreeMap<TopicId, Vec<Arc<HistoryEntry>>>,
}

impl History {
    /// What the catalog says is in history, in files in `dir`; files that `old` has are taken from there.
    pub fn load(env: &Env, dir: &Path, view: &dyn CatalogView, old: &History) -> Result<History, CodecError> {
        let mut history = History::default();
        if let Some(sealed) = view.get(MetaSpace::Journal, SEALED_KEY) {
            let sealed = Sealed::decode(&sealed)?;
            (history.end, history.sealed_file) = (sealed.end_position, sealed.file);
        }
        history.lost = catalog::lost(view)?;
        let accepted = repair::accepted(view);
        history.lost.retain(|lost| !repair::covers(&accepted, lost));
        for (key, value) in view.scan(MetaSpace::History, "") {
            let known = key.parse().ok().and_then(|number: u64| old.files.get(&number));
            let entry = match known {
                Some(entry) => entry.clone(),
                None => Arc::new(HistoryEntry::new(env, dir, FileRecord::decode(&value)?)),
            };
            history.files.insert(entry.record().number, entry);
        }
        for entry in history.files.values() {
            for extent in &entry.record().topics {
                history.by_topic.entry(extent.topic).or_default().push(entry.clone());
            }
        }
        for (topic, entries) in &mut history.by_topic {
            entries.sort_by_key(|entry| entry.topic(*topic).map(|extent| extent.extent.first_position));
        }
        Ok(history)
    }

    /// All files, by number.
    pub fn files(&self) -> impl DoubleEndedIterator<Item = &Arc<HistoryEntry>> {
        self.files.values()
    }

    /// The files that hold records of a topic, in order of position. Their stretches of positions do not overlap.
    pub fn files_of(&self, topic: TopicId) -> impl DoubleEndedIterator<Item = &Arc<HistoryEntry>> {
        self.by_topic.get(&topic).into_iter().flatten()
    }

    /// The file with a topic's first record at or after `from`, as far as is known without looking into it.
    pub fn file_at(&self, topic: TopicId, from: Position) -> Option<&Arc<HistoryEntry>> {
        let files = self.by_topic.get(&topic)?;
        let last = |entry: &HistoryEntry| entry.topic(topic).map(|extent| extent.extent.last_position);
        files.get(files.partition_point(|entry| last(entry) < Some(from)))
    }

    /// True if a file of this number is in history.
    pub fn has(&self, number: u64) -> bool {
        self.files.contains_key(&number)
    }
}
