//! The catalog view in memory.

use super::{CatalogView, MetaRecord, MetaSpace};
use crate::error::Result;
use crate::types::FrameSeq;
use std::collections::BTreeMap;

/// The catalog view in memory, rebuilt from the journal whenever the log is opened.
#[derive(Debug, Default)]
pub struct MemoryView {
    applied: FrameSeq,
    entries: BTreeMap<(MetaSpace, String), Vec<u8>>,
}

impl MemoryView {
    /// A view of some entries after frame `applied`.
    pub(super) fn with(applied: FrameSeq, entries: BTreeMap<(MetaSpace, String), Vec<u8>>) -> MemoryView {
        MemoryView { applied, entries }
    }

    /// What another view holds now.
    pub(crate) fn copy_of(view: &dyn CatalogView) -> MemoryView {
        let spaces = MetaSpace::ALL.into_iter();
        let entries =
            spaces.flat_map(|space| view.scan(space, "").into_iter().map(move |(key, value)| ((space, key), value)));
        MemoryView { applied: view.applied(), entries: entries.collect() }
    }
}

impl CatalogView for MemoryView {
    fn applied(&self) -> FrameSeq {
        self.applied
    }

    fn get(&self, space: MetaSpace, key: &str) -> Option<Vec<u8>> {
        self.entries.get(&(space, key.to_owned())).cloned()
    }

    fn scan(&self, space: MetaSpace, prefix: &str) -> Vec<(String, Vec<u8>)> {
        self.entries
            .range((space, prefix.to_owned())..)
            .take_while(|((found, key), _)| *found == space && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn apply(&mut self, seq: FrameSeq, records: &[MetaRecord]) {
        for record in records {
            let key = (record.space, record.key.clone());
            match &record.value {
                Some(value) => self.entries.insert(key, value.clone()),
                None => self.entries.remove(&key),
            };
        }
        self.applied = self.applied.max(seq);
    }

    fn save(&mut self) -> Result<()> {
        Ok(())
    }
}
