//! Columns with nothing in them, shared by all batches: records without keys, or whose keys nobody asked for, come by the
//! million, and memory that is not written need not be fetched.

use arrow::array::{Array as _, BinaryArray, Int64Array};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use std::sync::LazyLock;

/// Rows that are shared; as many as a row group of history has at most by default.
const ROWS: usize = 1 << 16;

static NULLS: LazyLock<BinaryArray> = LazyLock::new(|| BinaryArray::new_null(ROWS));
static EMPTY: LazyLock<BinaryArray> = LazyLock::new(|| empty(ROWS));
static NO_TIMESTAMPS: LazyLock<Int64Array> = LazyLock::new(|| Int64Array::new_null(ROWS));
static ZEROS: LazyLock<ScalarBuffer<u32>> = LazyLock::new(|| vec![0; ROWS].into());

fn empty(rows: usize) -> BinaryArray {
    BinaryArray::new(OffsetBuffer::new_zeroed(rows), Buffer::from(Vec::<u8>::new()), None)
}

/// So many nulls.
pub(crate) fn null_bytes(rows: usize) -> BinaryArray {
    if rows <= ROWS { NULLS.slice(0, rows) } else { BinaryArray::new_null(rows) }
}

/// So many times no bytes.
pub(crate) fn empty_bytes(rows: usize) -> BinaryArray {
    if rows <= ROWS { EMPTY.slice(0, rows) } else { empty(rows) }
}

/// So many times no timestamp.
pub(crate) fn no_timestamps(rows: usize) -> Int64Array {
    if rows <= ROWS { NO_TIMESTAMPS.slice(0, rows) } else { Int64Array::new_null(rows) }
}

/// So many zeros.
pub(crate) fn zeros(rows: usize) -> ScalarBuffer<u32> {
    if rows <= ROWS { ZEROS.slice(0, rows) } else { vec![0; rows].into() }
}

/// Memory of a column of bytes; none if it is a shared one.
pub(crate) fn memory_of_bytes(array: &BinaryArray) -> usize {
    let first = array.value_offsets().as_ptr();
    let shared = [&NULLS, &EMPTY].iter().any(|shared| shared.value_offsets().as_ptr() == first);
    if shared { 0 } else { array.get_array_memory_size() }
}

/// Memory of timestamps; none if they are the shared ones.
pub(crate) fn memory_of_timestamps(array: &Int64Array) -> usize {
    let shared = NO_TIMESTAMPS.values().as_ptr() == array.values().as_ptr();
    if shared { 0 } else { array.get_array_memory_size() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_columns_are_what_they_say_and_those_of_usual_size_take_no_memory() {
        for rows in [0, 1, 1_000, ROWS, ROWS + 1] {
            let (nulls, empty) = (null_bytes(rows), empty_bytes(rows));
            assert!(nulls.iter().eq(std::iter::repeat_n(None, rows)));
            assert!(empty.iter().eq(std::iter::repeat_n(Some(&b""[..]), rows)));
            assert_eq!(no_timestamps(rows), Int64Array::new_null(rows));
            assert!(zeros(rows).iter().eq(std::iter::repeat_n(&0, rows)));
            let taken = [memory_of_bytes(&nulls), memory_of_bytes(&empty), memory_of_timestamps(&no_timestamps(rows))];
            assert!(taken.iter().all(|bytes| (*bytes > 0) == (rows > ROWS)), "{rows}: {taken:?}");
        }
        let own = BinaryArray::from_iter_values([b"x"]);
        assert_eq!(memory_of_bytes(&own), own.get_array_memory_size());
    }
}
