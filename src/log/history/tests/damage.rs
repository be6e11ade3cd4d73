//! Whatever byte is changed, what is read is right or refused with an error that says what is lost.

use super::*;
use crate::error::ErrorKind;
use crate::format::{FormatSpec, JsonOptions};
use crate::log::history::index;
use crate::log::records::Projection;
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;

fn sample() -> (Bytes, Vec<Vec<Row>>) {
    let declared = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let columns = ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared, used: vec![0] };
    let row = |n: u64| Row {
        position: 2 * n,
        append_time: n as i64,
        partition: (n % 2) as u32,
        offset: n / 2,
        timestamp: (n != 4).then_some(n as i64),
        key: Some(vec![n as u8; 3]),
        value: Some(if n == 3 { b"?".to_vec() } else { format!("{{\"n\":{n}}}").into_bytes() }),
        headers: Vec::new(),
    };
    let groups: Vec<Vec<Row>> = vec![(0..8).map(row).collect(), (8..12).map(row).collect()];
    let limits = GroupLimits { rows: 8, ..GroupLimits::default() };
    let (bytes, _) = write(vec![spec(1, Some(columns))], limits, &[batch_of(1, &groups.concat())]);
    (bytes, groups)
}

/// Reads all that can be read; every group is as it was or damaged.
fn check(bytes: Vec<u8>, groups: &[Vec<Row>]) -> bool {
    let file = match HistoryFile::open(Bytes::from(bytes), "f.parquet") {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damage, "{error}");
            assert!(error.message().contains("f.parquet"), "{error}");
            return false;
        }
    };
    let mut sound = file.verify().is_ok();
    for (group, rows) in groups.iter().enumerate() {
        match file.read(group, &Projection::ALL) {
            Ok(batch) => assert_eq!(&rows_of(&batch), rows),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damage, "{error}");
                let partition = &file.groups()[group].extent.partitions[0];
                let offsets = format!("partition 0 offsets {} to {}", partition.first_offset, partition.last_offset);
                for word in ["f.parquet", "topic-1", &offsets] {
                    assert!(error.message().contains(word), "{word} is missing in: {error}");
                }
                sound = false;
            }
        }
    }
    sound
}

#[test]
fn every_byte_that_is_flipped_is_found() {
    let (bytes, groups) = sample();
    assert!(check(bytes.to_vec(), &groups));
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(!check(bad, &groups), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn every_file_that_was_cut_is_found() {
    let (bytes, groups) = sample();
    for len in 0..bytes.len() {
        assert!(!check(bytes[..len].to_vec(), &groups), "cut at {len}");
        assert!(!check(bytes[bytes.len() - len..].to_vec(), &groups), "last {len}");
    }
}

#[test]
fn a_file_of_another_version_is_not_damaged() {
    let (bytes, _) = sample();
    let mut bytes = bytes.to_vec();
    let key = [index::VERSION_KEY.as_bytes(), &[0x18, 1]].concat();
    let place = memchr::memmem::rfind(&bytes, &key).unwrap() + key.len();
    bytes[place] = b'2';
    let footer_len = index::checked_footer(&sample().0).unwrap().len();
    let start = bytes.len() - footer_len;
    assert!(index::seal_footer(&mut bytes[start..]));
    let error = HistoryFile::open(Bytes::from(bytes), "f.parquet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    assert!(error.hint().is_some());
}

proptest! {
    #[test]
    fn whatever_is_overwritten_is_found(at in any::<proptest::sample::Index>(), junk in proptest::collection::vec(any::<u8>(), 1..200)) {
        let (bytes, groups) = sample();
        let mut bad = bytes.to_vec();
        let at = at.index(bad.len());
        let end = bad.len().min(at + junk.len());
        bad[at..end].copy_from_slice(&junk[..end - at]);
        let changed = bad != bytes;
        prop_assert_eq!(check(bad, &groups), !changed);
    }

    #[test]
    fn any_bytes_open_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(bytes, &[]);
    }
}
