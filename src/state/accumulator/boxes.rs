//! A value behind a pointer for each slot that has one, and the bytes of all of them, counted as they change.

/// What knows how many bytes it holds, roughly.
pub(super) trait Measured {
    fn byte_len(&self) -> usize;
}

/// Values by slot.
pub(super) struct Boxes<T> {
    slots: Vec<Option<Box<T>>>,
    /// Bytes of all values.
    held: usize,
}

impl<T> Default for Boxes<T> {
    fn default() -> Self {
        Boxes { slots: Vec::new(), held: 0 }
    }
}

impl<T: Measured> Boxes<T> {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Makes room for slots `0..slots`.
    pub fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots.max(self.slots.len()), || None);
    }

    /// The value of a slot.
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.slots[slot as usize].as_deref()
    }

    /// Replaces the value of a slot.
    pub fn set(&mut self, slot: u32, value: Option<T>) {
        let place = &mut self.slots[slot as usize];
        self.held -= place.as_ref().map_or(0, |old| old.byte_len());
        self.held += value.as_ref().map_or(0, T::byte_len);
        *place = value.map(Box::new);
    }

    /// Does `work` to the value of a slot, which is made if there is none.
    #[inline]
    pub fn change<R>(&mut self, slot: usize, new: impl FnOnce() -> T, work: impl FnOnce(&mut T) -> R) -> R {
        let place = &mut self.slots[slot];
        let before = place.as_ref().map_or(0, |value| value.byte_len());
        let value = place.get_or_insert_with(|| Box::new(new()));
        let result = work(value);
        self.held = self.held + value.byte_len() - before;
        result
    }

    /// Bytes held, roughly.
    pub fn byte_len(&self) -> usize {
        self.slots.capacity() * size_of::<usize>() + self.held
    }
}
