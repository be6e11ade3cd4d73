//! Both views do the same; sled's is rebuilt whenever there is doubt.

use super::*;
use crate::env::{Env, OpenMode};
use proptest::prelude::*;
use std::path::PathBuf;

/// A folder of its own, removed at the end.
struct Folder(PathBuf, Env);

impl Folder {
    fn new(name: &str) -> Folder {
        let env = Env::os();
        let base =
            std::env::temp_dir().join(format!("kappa-{name}-{}-{:x}", std::process::id(), env.random.next_u64()));
        env.disk.create_dir(&base).unwrap();
        Folder(base, env)
    }

    fn sled(&self) -> PathBuf {
        self.0.join("sled")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.1.disk.remove_dir_all(&self.0);
    }
}

fn put(key: &str, value: &[u8]) -> MetaRecord {
    MetaRecord { space: MetaSpace::Progress, key: key.to_owned(), value: Some(value.to_vec()) }
}

#[test]
fn records_have_these_bytes() {
    let mut bytes = Vec::new();
    encode(MetaRecord { space: MetaSpace::Run, key: "k".into(), value: Some(vec![9, 8]) }, &mut bytes);
    encode(MetaRecord { space: MetaSpace::Topic, key: String::new(), value: None }, &mut bytes);
    let expected = [
        &[1, 3, 1, 0, 0, 0, 0, 0, 0, 0, b'k', 1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 8][..],
        &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(decode(&bytes).unwrap().len(), 2);
    for cut in (1..bytes.len()).filter(|cut| *cut != 22) {
        assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(bytes in any::<Vec<u8>>()) {
        let _ = decode(&bytes);
    }
}

type Change = (u8, u8, Option<usize>);

fn apply_all(view: &mut dyn CatalogView, changes: &[Change]) {
    for (number, (space, key, len)) in changes.iter().enumerate() {
        let record = MetaRecord {
            space: MetaSpace::from_number(1 + space % 6).unwrap(),
            key: format!("key/{}", key % 8),
            value: len.map(|len| vec![u8::try_from(number % 251).unwrap(); len]),
        };
        view.apply(FrameSeq(1 + number as u64), &[record]);
    }
}

type Entries = Vec<(String, Vec<u8>)>;

fn all(view: &dyn CatalogView) -> Vec<(MetaSpace, Entries)> {
    MetaSpace::ALL.into_iter().map(|space| (space, view.scan(space, ""))).collect()
}

#[test]
fn views_agree_also_after_saving_and_opening_again() {
    let folder = Folder::new("views");
    let mut memory = MemoryView::default();
    let opened = SledView::open(&folder.1, &folder.sled(), 7).unwrap();
    assert_eq!(opened.rebuilt, None);
    let mut sled = opened.view;
    let lens = [0, 1, 2_043, 2_044, 2_045, 4_096, 70_000];
    let changes: Vec<Change> = (0..200u32)
        .map(|n| {
            let dice = crate::codec::xxh64(&n.to_le_bytes(), 1).to_le_bytes();
            (dice[0], dice[1], (dice[2] > 64).then(|| lens[usize::from(dice[3]) % lens.len()]))
        })
        .collect();
    for part in changes.chunks(50) {
        apply_all(&mut memory, part);
        apply_all(&mut sled, part);
        assert_eq!(all(&memory), all(&sled));
        assert_eq!(
            (sled.applied(), sled.get(MetaSpace::Run, "key/1")),
            (memory.applied(), memory.get(MetaSpace::Run, "key/1"))
        );
        sled.save().unwrap();
        drop(sled);
        let opened = SledView::open(&folder.1, &folder.sled(), 7).unwrap();
        assert_eq!(opened.rebuilt, None);
        sled = opened.view;
        assert_eq!((all(&sled), sled.applied()), (all(&memory), memory.applied()));
    }
}

#[test]
fn what_is_doubtful_is_moved_aside() {
    let folder = Folder::new("doubt");
    let reopen = |journal: u64| SledView::open(&folder.1, &folder.sled(), journal).unwrap();
    let filled = || {
        let mut view = reopen(7).view;
        view.apply(FrameSeq(5), &[put("a", b"1"), put("b", b"2")]);
        view.save().unwrap();
        drop(view);
    };
    filled();
    let opened = reopen(8);
    assert!(opened.rebuilt.unwrap().contains("another journal"));
    assert_eq!((opened.view.applied(), opened.view.scan(MetaSpace::Progress, "")), (FrameSeq(0), vec![]));
    drop(opened.view);
    assert!(folder.1.disk.exists(&folder.0.join("sled.bad-1")).unwrap());

    // An emptied database, and one with an entry of somebody else.
    let raw = || loop {
        match sled::Config::new().path(folder.sled()).flush_every_ms(None).open() {
            Ok(db) => break db,
            // The lock is given back a little after closing.
            Err(_) => folder.1.clock.sleep_us(1_000),
        }
    };
    raw().clear().unwrap();
    assert!(reopen(7).rebuilt.unwrap().contains("empty"));
    filled();
    raw().remove(b"\x04\x00\x01a\x00\x00").unwrap();
    assert!(reopen(7).rebuilt.unwrap().contains("not the 2"));

    // Garbage where the database was.
    filled();
    let file = folder.1.disk.open(&folder.sled().join("conf"), OpenMode::ReadWrite).unwrap();
    file.write_all_at(0, &[0xff; 64]).unwrap();
    drop(file);
    let opened = reopen(7);
    assert!(opened.rebuilt.is_some());
    drop(opened.view);

    // What sled leaves when it is cut off while writing a snapshot is not taken for one.
    filled();
    let name = folder.sled().join("snap.0000000000000000.generating");
    folder.1.disk.open(&name, OpenMode::CreateNew).unwrap().write_all_at(0, b"x").unwrap();
    let opened = reopen(7);
    assert_eq!((opened.rebuilt, opened.view.applied()), (None, FrameSeq(5)));
}
