//! LISTAGG: texts joined in position order.

use super::{Accumulator, Update, grow_to, same, stored, two};
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field};
use std::any::Any;
use std::sync::Arc;

/// The non-null texts of each slot with a separator between two of them.
pub(super) struct Joined {
    separator: Arc<str>,
    texts: Vec<Option<String>>,
    /// Bytes of all texts.
    held: usize,
}

impl Joined {
    pub(super) fn new(separator: Arc<str>) -> Self {
        Joined { separator, texts: Vec::new(), held: 0 }
    }

    fn append(&mut self, slot: usize, text: &str) {
        match &mut self.texts[slot] {
            None => {
                self.texts[slot] = Some(text.to_owned());
                self.held += text.len();
            }
            Some(joined) => {
                joined.push_str(&self.separator);
                joined.push_str(text);
                self.held += self.separator.len() + text.len();
            }
        }
    }
}

impl Accumulator for Joined {
    fn grow(&mut self, slots: usize) {
        grow_to(&mut self.texts, slots, None);
    }

    fn reset(&mut self, slot: u32) {
        if let Some(text) = self.texts[slot as usize].take() {
            self.held -= text.len();
        }
    }

    fn update(&mut self, update: &Update<'_>) {
        let values = update.argument().as_string::<i32>();
        update.each(|slot, row| self.append(slot, values.value(row)));
    }

    fn merge(&mut self, other: &dyn Accumulator, from: &[u32], into: &[u32]) {
        let later = &same::<Joined>(other).texts;
        for (from, slot) in from.iter().zip(into) {
            if let Some(text) = &later[*from as usize] {
                self.append(*slot as usize, text);
            }
        }
    }

    fn fold(&mut self, from: u32, into: u32) {
        if let Some(text) = two(&mut self.texts, from, into).and_then(|(from, _)| from.clone()) {
            self.append(into as usize, &text);
        }
    }

    fn results(&self, slots: &[u32]) -> Result<ArrayRef> {
        let texts = slots.iter().map(|slot| self.texts[*slot as usize].as_deref());
        stored::check_size(texts.clone().flatten().map(str::len).sum(), "texts of LISTAGG")?;
        Ok(Arc::new(texts.collect::<StringArray>()))
    }

    fn state_fields(&self) -> Vec<Field> {
        stored::layout("joined", 1, vec![Field::new("text", DataType::Utf8, true)])
    }

    fn save(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.results(slots)?])
    }

    fn load(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        stored::check(&self.state_fields(), slots, self.texts.len(), state)?;
        let texts = state[0].as_string::<i32>();
        for (row, slot) in slots.iter().enumerate() {
            self.reset(*slot);
            if texts.is_valid(row) {
                self.append(*slot as usize, texts.value(row));
            }
        }
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.texts.capacity() * size_of::<Option<String>>() + self.held
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
