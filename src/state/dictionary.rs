//! The keys that an operator holds state for: each key once, as a small number, however many windows it is in.
//!
//! Keys are looked up by a quick hash of no meaning elsewhere; XXH64 of the canonical bytes, which orders output, is worked out once per
//! key. A key is held by everything that has state for it and leaves with the last of them; its number is used again.

use super::keys::{KeyCodec, KeyRows};
use crate::codec::xxh64;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::hash::BuildHasher;

/// Fixed, so that nothing depends on a run; which seed does not matter.
const QUICK: FixedState = FixedState::with_seed(0x006B_6170_7061);

/// Bytes of keys that are gone which are always tolerated.
const SPARE_BYTES: usize = 64 * 1024;

/// Numbers keys.
#[derive(Debug, Clone)]
pub struct Dictionary {
    /// Bytes of a key's value, if keys are words: then a word is its own tag.
    word_width: Option<usize>,
    /// Numbers by tag.
    index: HashTable<Place>,
    /// The number of the key NULL among words.
    null: Option<u32>,
    entries: Vec<Entry>,
    /// Canonical bytes of all keys, and of some that are gone.
    bytes: Vec<u8>,
    gone_bytes: usize,
    free: Vec<u32>,
    live: usize,
}

/// What is compared first lies beside the number.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The word, or the quick hash of bytes.
    tag: u64,
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// XXH64 of the canonical bytes.
    hash: u64,
    tag: u64,
    from: usize,
    len: u32,
    /// How many hold it.
    held: u32,
}

fn quick_of_bytes(key: &[u8]) -> u64 {
    QUICK.hash_one(key)
}

#[inline]
fn quick_of_word(word: u64) -> u64 {
    QUICK.hash_one(word)
}

impl Dictionary {
    /// No keys yet.
    pub fn new(codec: &KeyCodec) -> Dictionary {
        Dictionary {
            word_width: codec.word_width(),
            index: HashTable::new(),
            null: None,
            entries: Vec::new(),
            bytes: Vec::new(),
            gone_bytes: 0,
            free: Vec::new(),
            live: 0,
        }
    }

    /// The number of each of so many keys. Keys that are new are held by nobody yet.
    pub fn intern_all(&mut self, keys: &KeyRows, count: usize) -> Vec<u32> {
        let (rows, mut ids) = ((0u32..).take(count).collect::<Vec<_>>(), Vec::new());
        self.intern(keys, &rows, &mut ids);
        ids
    }

    /// Appends the number of the key of each of `rows` to `ids`. Keys that are new are held by nobody yet.
    pub fn intern(&mut self, keys: &KeyRows, rows: &[u32], ids: &mut Vec<u32>) {
        ids.reserve(rows.len());
        match keys {
            KeyRows::None => {
                if !rows.is_empty() {
                    let id = self.number_of_bytes(&[]);
                    ids.extend(std::iter::repeat_n(id, rows.len()));
                }
            }
            KeyRows::Words { values, nulls: None, .. } => {
                ids.extend(rows.iter().map(|row| self.number_of_word(values[*row as usize])));
            }
            KeyRows::Words { values, nulls: Some(nulls), .. } => ids.extend(rows.iter().map(|row| {
                let row = *row as usize;
                if nulls.is_valid(row) { self.number_of_word(values[row]) } else { self.number_of_null() }
            })),
            KeyRows::Bytes(keys) => ids.extend(rows.iter().map(|row| self.number_of_bytes(keys.get(*row as usize)))),
        }
    }

    #[inline]
    fn number_of_word(&mut self, word: u64) -> u32 {
        match self.index.find(quick_of_word(word), |place| place.tag == word) {
            Some(place) => place.id,
            None => self.add_word(word),
        }
    }

    #[cold]
    fn add_word(&mut self, word: u64) -> u32 {
        let mut key = [1; 9];
        key[1..].copy_from_slice(&word.to_le_bytes());
        let id = self.add(word, &key[..=self.word_width.unwrap_or(8)]);
        self.index.insert_unique(quick_of_word(word), Place { tag: word, id }, |place| quick_of_word(place.tag));
        id
    }

    fn number_of_null(&mut self) -> u32 {
        match self.null {
            Some(id) => id,
            None => {
                let id = self.add(0, &[0]);
                self.null = Some(id);
                id
            }
        }
    }

    #[inline]
    fn number_of_bytes(&mut self, key: &[u8]) -> u32 {
        let (entries, bytes, tag) = (&self.entries, &self.bytes, quick_of_bytes(key));
        let same = |place: &Place| place.tag == tag && bytes_of(bytes, &entries[place.id as usize]) == key;
        match self.index.find(tag, same) {
            Some(place) => place.id,
            None => {
                let id = self.add(tag, key);
                self.index.insert_unique(tag, Place { tag, id }, |place| place.tag);
                id
            }
        }
    }

    fn add(&mut self, tag: u64, key: &[u8]) -> u32 {
        let len = u32::try_from(key.len()).expect("a key is part of a record, which is shorter");
        let entry = Entry { hash: xxh64(key, 0), tag, from: self.bytes.len(), len, held: 0 };
        self.bytes.extend_from_slice(key);
        self.live += 1;
        match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("fewer than 4 billion keys fit into memory")
            }
        }
    }

    /// The number of a key by its canonical bytes, as its [`KeyCodec`] makes them, new or not.
    pub fn insert(&mut self, key: &[u8]) -> u32 {
        match self.word_width {
            Some(width) if key.len() == width + 1 => {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&key[1..]);
                self.number_of_word(u64::from_le_bytes(word))
            }
            Some(_) => self.number_of_null(),
            None => self.number_of_bytes(key),
        }
    }

    /// Says that somebody more holds a key.
    #[inline]
    pub fn hold(&mut self, id: u32) {
        self.entries[id as usize].held += 1;
    }

    /// Says that one who held a key does so no more.
    pub fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.held -= 1;
        if entry.held > 0 {
            return;
        }
        let tag = entry.tag;
        self.gone_bytes += entry.len as usize;
        if self.null == Some(id) {
            self.null = None;
        } else {
            let hash = if self.word_width.is_some() { quick_of_word(tag) } else { tag };
            if let Ok(found) = self.index.find_entry(hash, |place| place.id == id) {
                found.remove();
            }
        }
        self.free.push(id);
        self.live -= 1;
        if self.gone_bytes > SPARE_BYTES && self.gone_bytes > self.bytes.len() / 2 {
            self.compact();
        }
    }

    /// Leaves out the bytes of keys that are gone, and the room that most keys have left.
    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.gone_bytes);
        let live = self.index.iter().map(|place| place.id).chain(self.null);
        let mut last = 0;
        for id in live {
            let entry = &mut self.entries[id as usize];
            let from = bytes.len();
            bytes.extend_from_slice(bytes_of(&self.bytes, entry));
            entry.from = from;
            last = last.max(id as usize + 1);
        }
        self.bytes = bytes;
        self.gone_bytes = 0;
        self.entries.truncate(last);
        self.entries.shrink_to_fit();
        self.free.retain(|id| (*id as usize) < last);
        self.free.shrink_to_fit();
        let words = self.word_width.is_some();
        self.index.shrink_to_fit(|place| if words { quick_of_word(place.tag) } else { place.tag });
    }

    /// Canonical bytes of a key.
    pub fn key(&self, id: u32) -> &[u8] {
        bytes_of(&self.bytes, &self.entries[id as usize])
    }

    /// XXH64 of a key's canonical bytes.
    pub fn hash(&self, id: u32) -> u64 {
        self.entries[id as usize].hash
    }

    /// One more than the largest number in use.
    pub fn bound(&self) -> usize {
        self.entries.len()
    }

    /// Keys that somebody holds.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Sorts items by their keys' place in the output.
    pub fn sort_by_key<T>(&self, items: &mut [T], id: impl Fn(&T) -> u32) {
        items.sort_unstable_by(|a, b| self.compare(id(a), id(b)));
    }

    /// The order of two keys in the output: hash, then bytes.
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        self.hash(a).cmp(&self.hash(b)).then_with(|| self.key(a).cmp(self.key(b)))
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<Entry>()
            + self.index.capacity() * (size_of::<Place>() + 1)
            + self.free.capacity() * size_of::<u32>()
    }
}

#[inline]
fn bytes_of<'a>(bytes: &'a [u8], entry: &Entry) -> &'a [u8] {
    &bytes[entry.from..entry.from + entry.len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use std::sync::Arc;

    fn interned(dictionary: &mut Dictionary, column: ArrayRef) -> Vec<u32> {
        let codec = KeyCodec::new(vec![column.data_type().clone()]).expect("a key type");
        let count = column.len();
        dictionary.intern_all(&codec.encode(&[column]), count)
    }

    #[test]
    fn numbers_stand_for_canonical_bytes() {
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(7), None, Some(-1), Some(7), None])),
            Arc::new(Int32Array::from(vec![Some(7), None, Some(-1), Some(7), None])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a"), None])),
        ];
        for column in columns {
            let codec = KeyCodec::new(vec![column.data_type().clone()]).expect("a key type");
            let mut dictionary = Dictionary::new(&codec);
            let ids = interned(&mut dictionary, Arc::clone(&column));
            assert_eq!(ids, [0, 1, 2, 0, 1]);
            let back = codec.decode(ids.iter().map(|id| dictionary.key(*id))).expect("own bytes");
            assert_eq!(format!("{:?}", back[0]), format!("{column:?}"));
            for id in ids {
                assert_eq!(dictionary.hash(id), xxh64(dictionary.key(id), 0));
                let key = dictionary.key(id).to_vec();
                assert_eq!(dictionary.insert(&key), id);
            }
        }
    }

    #[test]
    fn keys_leave_with_the_last_that_holds_them() {
        let codec = KeyCodec::new(vec![DataType::Int64]).expect("a key type");
        let mut dictionary = Dictionary::new(&codec);
        for round in 0..200i64 {
            let values: Vec<i64> = (0..200).map(|n| round * 100 + n).collect();
            let ids = interned(&mut dictionary, Arc::new(Int64Array::from(values)));
            ids.iter().for_each(|id| dictionary.hold(*id));
            // The first half was held by the round before as well.
            for id in &ids[..100] {
                dictionary.release(*id);
                if round > 0 {
                    dictionary.release(*id);
                }
            }
            assert_eq!(dictionary.len(), 100);
        }
        assert!(dictionary.bound() <= 400 && dictionary.byte_len() < 256 * 1024, "{}", dictionary.byte_len());
    }
}
