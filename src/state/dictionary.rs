//! The keys that an operator holds state for: each key once, as a small number, however many windows it is in.
//!
//! Keys are looked up by a quick hash of no meaning elsewhere, and short ones are compared without a look at their bytes; XXH64 of the
//! canonical bytes, which orders output, is worked out once per key. A key is held by everything that has state for it and leaves with the
//! last of them; its number is used again.

use super::growing::Growing;
use super::keys::{KeyCodec, KeyRows};
use crate::codec::xxh64;
use foldhash::fast::FixedState;
use std::cmp::Ordering;
use std::hash::BuildHasher;

/// Fixed, so that nothing depends on a run; which seed does not matter.
const QUICK: FixedState = FixedState::with_seed(0x006B_6170_7061);

/// Words that were seen lately are found in one step, where they were left. As many as stay in a core's nearer caches.
const RECENT_BITS: u32 = 12;
const RECENT: usize = 1 << RECENT_BITS;

/// Bytes of keys that are gone which are always tolerated.
const SPARE_BYTES: usize = 64 * 1024;

/// Numbers keys. There may be very many: it cannot be copied.
#[derive(Debug)]
pub struct Dictionary {
    /// Bytes of a key's value, if keys are words: then a word is its own tag.
    word_width: Option<usize>,
    /// Numbers of words.
    words: Growing<Place<u64>>,
    /// Words seen lately, each at its [`recent_place`].
    recent: Box<[Place<u64>]>,
    /// Numbers of other keys.
    others: Growing<Place<Tag>>,
    /// The number of the key NULL among words.
    null: Option<u32>,
    entries: Vec<Entry>,
    /// Canonical bytes of all keys, and of some that are gone.
    bytes: Vec<u8>,
    gone_bytes: usize,
    free: Vec<u32>,
    live: usize,
}

/// What is compared lies beside the number.
#[derive(Debug, Clone, Copy)]
struct Place<T> {
    tag: T,
    id: u32,
}

/// Stands for a key of bytes: a short one wholly, by its length and its first and last bytes, which may overlap; a longer one by length and
/// quick hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    first: u64,
    /// The lowest byte is the length of a short key, or [`LONG`].
    last: u64,
}

/// A key with a byte more does not fit into its tag.
const SHORT: usize = 15;
const LONG: u64 = 0xFF;

impl Tag {
    #[inline]
    fn of(key: &[u8]) -> Tag {
        let len = key.len() as u64;
        if key.len() > SHORT {
            return Tag { first: QUICK.hash_one(key), last: len << 8 | LONG };
        }
        if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
            // The lowest byte of the last eight is one of the first eight as well.
            return Tag { first: u64::from_le_bytes(*first), last: u64::from_le_bytes(*last) & !0xFF | len };
        }
        let first = match (key.first_chunk(), key.last_chunk()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
            }
            _ => key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        Tag { first, last: len }
    }

    #[inline]
    fn quick(self) -> u64 {
        QUICK.hash_one(u128::from(self.first) << 64 | u128::from(self.last))
    }

    #[inline]
    fn is_short(self) -> bool {
        self.last & 0xFF != LONG
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// XXH64 of the canonical bytes.
    hash: u64,
    from: usize,
    len: u32,
    /// How many hold it.
    held: u32,
}

/// Near numbers lie apart (multiplication by 2^64 over the golden ratio).
#[inline]
fn recent_place(word: u64) -> usize {
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - RECENT_BITS)) as usize
}

/// No word: what stands there has its place elsewhere.
fn nothing_recent(place: usize) -> Place<u64> {
    Place { tag: u64::from(place == 0), id: 0 }
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
            words: Growing::new(),
            recent: codec.word_width().iter().flat_map(|_| (0..RECENT).map(nothing_recent)).collect(),
            others: Growing::new(),
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
        match self.recent.get(recent_place(word)) {
            Some(place) if place.tag == word => place.id,
            _ => self.find_word(word),
        }
    }

    fn find_word(&mut self, word: u64) -> u32 {
        let id = match self.words.find(quick_of_word(word), |place| place.tag == word) {
            Some(place) => place.id,
            None => self.add_word(word),
        };
        self.recent[recent_place(word)] = Place { tag: word, id };
        id
    }

    #[cold]
    fn add_word(&mut self, word: u64) -> u32 {
        let mut key = [1; 9];
        key[1..].copy_from_slice(&word.to_le_bytes());
        let id = self.add(&key[..=self.word_width.unwrap_or(8)]);
        self.words.insert(quick_of_word(word), Place { tag: word, id }, |place| quick_of_word(place.tag));
        id
    }

    fn number_of_null(&mut self) -> u32 {
        match self.null {
            Some(id) => id,
            None => {
                let id = self.add(&[0]);
                self.null = Some(id);
                id
            }
        }
    }

    #[inline]
    fn number_of_bytes(&mut self, key: &[u8]) -> u32 {
        let (entries, bytes, tag) = (&self.entries, &self.bytes, Tag::of(key));
        let same = |place: &Place<Tag>| {
            place.tag == tag && (tag.is_short() || bytes_of(bytes, &entries[place.id as usize]) == key)
        };
        match self.others.find(tag.quick(), same) {
            Some(place) => place.id,
            None => self.add_bytes(tag, key),
        }
    }

    #[cold]
    fn add_bytes(&mut self, tag: Tag, key: &[u8]) -> u32 {
        let id = self.add(key);
        self.others.insert(tag.quick(), Place { tag, id }, |place| place.tag.quick());
        id
    }

    fn add(&mut self, key: &[u8]) -> u32 {
        let len = u32::try_from(key.len()).expect("a key is part of a record, which is shorter");
        let entry = Entry { hash: xxh64(key, 0), from: self.bytes.len(), len, held: 0 };
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
            Some(width) if key.len() == width + 1 => self.number_of_word(word_of(key)),
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
        self.gone_bytes += entry.len as usize;
        let key = bytes_of(&self.bytes, entry);
        if self.null == Some(id) {
            self.null = None;
        } else if self.word_width.is_some() {
            let word = word_of(key);
            self.words.remove(quick_of_word(word), |place| place.id == id);
            let place = recent_place(word);
            if self.recent[place].tag == word {
                self.recent[place] = nothing_recent(place);
            }
        } else {
            self.others.remove(Tag::of(key).quick(), |place| place.id == id);
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
        let words = self.words.iter().map(|place| place.id);
        let live = words.chain(self.others.iter().map(|place| place.id)).chain(self.null);
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
        self.words.shrink_to_fit(|place| quick_of_word(place.tag));
        self.others.shrink_to_fit(|place| place.tag.quick());
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
            + self.words.byte_len()
            + self.others.byte_len()
            + self.free.capacity() * size_of::<u32>()
    }
}

/// The word that a key of canonical bytes holds.
fn word_of(key: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..key.len() - 1].copy_from_slice(&key[1..]);
    u64::from_le_bytes(word)
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
    use std::collections::BTreeSet;
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
    fn keys_of_all_lengths_are_told_apart() {
        let of_len = |len: usize| (0..3u8).flat_map(move |byte| (0..=len).map(move |at| (len, byte, at)));
        let text = |(len, byte, at): (usize, u8, usize)| {
            let mut key = vec![b'a' + byte; len];
            key.get_mut(at).into_iter().for_each(|byte| *byte = b'z');
            String::from_utf8(key).expect("ASCII")
        };
        let keys: BTreeSet<String> = (0..40).flat_map(of_len).map(text).collect();
        let codec = KeyCodec::new(vec![DataType::Utf8]).expect("a key type");
        let mut dictionary = Dictionary::new(&codec);
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(&keys));
        for _ in 0..2 {
            let ids = interned(&mut dictionary, Arc::clone(&column));
            assert!(ids.iter().copied().eq(0..keys.len() as u32));
            assert!(ids.iter().zip(&keys).all(|(id, key)| dictionary.key(*id) == key.as_bytes()));
            ids.iter().for_each(|id| dictionary.hold(*id));
        }
        (0..keys.len() as u32).chain(0..keys.len() as u32).for_each(|id| dictionary.release(id));
        assert!(dictionary.is_empty() && dictionary.others.iter().next().is_none());
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

    #[test]
    fn words_seen_lately_are_forgotten_with_their_keys() {
        let codec = KeyCodec::new(vec![DataType::Int64]).expect("a key type");
        let mut dictionary = Dictionary::new(&codec);
        // Few places for many words, 0 and 1 among them, whose places tell what is nothing.
        let words: Vec<i64> =
            (0..100_000).filter(|word| recent_place(*word as u64).is_multiple_of(1365) || *word < 2).collect();
        let mut held: Vec<(i64, u32)> = Vec::new();
        for step in 0..20_000 {
            let word = words[step * 7919 % words.len()];
            let id = interned(&mut dictionary, Arc::new(Int64Array::from(vec![word])))[0];
            assert_eq!(dictionary.key(id)[1..], word.to_le_bytes(), "step {step}");
            dictionary.hold(id);
            held.push((word, id));
            if step % 3 > 0 {
                let (word, id) = held.swap_remove(step * 31 % held.len());
                assert_eq!(dictionary.key(id)[1..], word.to_le_bytes(), "step {step}");
                dictionary.release(id);
            }
        }
    }
}
