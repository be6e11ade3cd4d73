//! A hash table that grows little by little: nobody who adds a key waits until all others have found their new places.

use hashbrown::HashTable;

/// Smaller tables grow at once, which is quick.
const LARGE: usize = 1 << 16;

/// Old places that are emptied when something is added. All are empty long before the table is full again: it has room for as much as it holds,
/// in fewer than two and a half places for each.
const MOVES: usize = 8;

/// The table; values know their hash.
#[derive(Debug)]
pub struct Growing<T> {
    now: HashTable<T>,
    /// What it was before it grew: its places from `moved` on.
    before: HashTable<T>,
    moved: usize,
}

impl<T> Growing<T> {
    /// Nothing yet.
    pub fn new() -> Growing<T> {
        Growing { now: HashTable::new(), before: HashTable::new(), moved: 0 }
    }

    /// The value with this hash that is the one.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        match self.now.find(hash, &is_it) {
            None if !self.before.is_empty() => self.before.find(hash, is_it),
            found => found,
        }
    }

    /// Adds a value that is not there.
    pub fn insert(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        if self.now.len() == self.now.capacity() && self.now.len() >= LARGE {
            self.move_on(usize::MAX, &hash_of);
            let larger = HashTable::with_capacity(self.now.len() * 2);
            self.before = std::mem::replace(&mut self.now, larger);
        }
        self.now.insert_unique(hash, value, &hash_of);
        self.move_on(MOVES, hash_of);
    }

    /// Empties so many old places.
    fn move_on(&mut self, places: usize, hash_of: impl Fn(&T) -> u64) {
        for _ in 0..places {
            if self.before.is_empty() {
                if self.moved > 0 {
                    (self.before, self.moved) = (HashTable::new(), 0);
                }
                break;
            }
            if let Ok(entry) = self.before.get_bucket_entry(self.moved) {
                let value = entry.remove().0;
                self.now.insert_unique(hash_of(&value), value, &hash_of);
            }
            self.moved += 1;
        }
    }

    /// Removes the value with this hash that is the one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) {
        if let Ok(found) = self.now.find_entry(hash, &is_it) {
            found.remove();
        } else if let Ok(found) = self.before.find_entry(hash, is_it) {
            found.remove();
        }
    }

    /// All values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.now.iter().chain(&self.before)
    }

    /// Gives back the room of what was removed.
    pub fn shrink_to_fit(&mut self, hash_of: impl Fn(&T) -> u64) {
        self.move_on(usize::MAX, &hash_of);
        self.now.shrink_to_fit(hash_of);
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        (self.now.capacity() + self.before.capacity()) * (size_of::<T>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn hash_of(value: &u64) -> u64 {
        value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_right(17)
    }

    #[test]
    fn what_was_added_and_not_removed_is_there_whatever_is_on_its_way() {
        let (mut table, mut model, mut dice) = (Growing::new(), BTreeSet::new(), 1u64);
        for _ in 0..700_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = (dice >> 33) % 900_000;
            let is_it = |other: &u64| *other == value;
            assert_eq!(table.find(hash_of(&value), is_it).is_some(), model.contains(&value));
            match (model.contains(&value), dice >> 20 & 3) {
                (true, 0) => {
                    model.remove(&value);
                    table.remove(hash_of(&value), is_it);
                }
                (false, _) => {
                    model.insert(value);
                    table.insert(hash_of(&value), value, hash_of);
                }
                _ => {}
            }
        }
        table.shrink_to_fit(hash_of);
        assert!(table.before.is_empty() && table.iter().copied().collect::<BTreeSet<_>>() == model);
    }

    #[test]
    fn whoever_adds_one_moves_few() {
        let mut table = Growing::new();
        let mut times = 0;
        for value in 0..1_000_000u64 {
            let before = table.before.len();
            table.insert(hash_of(&value), value, hash_of);
            times += u32::from(before == 0 && !table.before.is_empty());
            assert!(before.saturating_sub(table.before.len()) <= MOVES);
            assert_eq!(table.now.len() + table.before.len(), value as usize + 1);
        }
        assert!(times >= 3, "it grew {times} times");
    }
}
