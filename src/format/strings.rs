//! STRING values under construction. They are checked to be text once, all together.

use arrow::array::StringArray;
use arrow::array::builder::NullBufferBuilder;
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

/// Short values are copied with this many bytes, of which the ones too many are cut off: no call is needed.
const COPIED: usize = 32;

/// Values of a STRING column.
#[derive(Debug)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    /// Where values begin, and the end of the last.
    offsets: Vec<i32>,
    valid: NullBufferBuilder,
}

impl Strings {
    /// No values yet, and room for `capacity` of some letters.
    pub(super) fn new(capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        Strings { bytes: Vec::with_capacity(capacity * 8), offsets, valid: NullBufferBuilder::new(capacity) }
    }

    /// Appends a value.
    pub(super) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.end_value();
        self.valid.append_non_null();
    }

    /// Appends NULL.
    pub(super) fn push_null(&mut self) {
        self.end_value();
        self.valid.append_null();
    }

    /// Appends values, each the first bytes of those from its place on: texts as a whole. Stops at the first that is none; gives the number
    /// of those before.
    pub(super) fn push_parts<'a>(&mut self, parts: impl Iterator<Item = Option<(&'a [u8], usize)>>) -> usize {
        let before = self.offsets.len();
        for part in parts {
            let Some((bytes, len)) = part else { break };
            match bytes.first_chunk::<COPIED>().filter(|_| len <= COPIED) {
                Some(chunk) => {
                    let end = self.bytes.len() + len;
                    self.bytes.extend_from_slice(chunk);
                    self.bytes.truncate(end);
                }
                None => self.bytes.extend_from_slice(bytes.get(..len).unwrap_or_default()),
            }
            self.end_value();
        }
        let count = self.offsets.len() - before;
        self.valid.append_n_non_nulls(count);
        count
    }

    #[inline(always)]
    fn end_value(&mut self) {
        self.offsets.push(i32::try_from(self.bytes.len()).expect("a batch of strings is smaller than 2 GiB"));
    }

    /// The array, leaving nothing.
    pub(super) fn finish(&mut self) -> StringArray {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let bytes = Buffer::from_vec(std::mem::take(&mut self.bytes));
        StringArray::try_new(offsets, bytes, self.valid.finish()).expect("every value was text")
    }
}
