//! What every disk promises, on the operating system's and the simulated one; and what the simulated one adds.

use super::sim::{Crash, Fault, FaultKind, Sim};
use super::*;

fn on_both(test: impl Fn(&Env, &Path)) {
    let sim = Sim::new(1);
    sim.disk.create_dir(Path::new("/base")).unwrap();
    test(&sim.env(), Path::new("/base"));
    let env = Env::os();
    let base = std::env::temp_dir().join(format!("kappa-env-{}-{:x}", std::process::id(), env.random.next_u64()));
    env.disk.create_dir(&base).unwrap();
    test(&env, &base);
    env.disk.remove_dir_all(&base).unwrap();
}

#[test]
fn files_hold_what_is_written_where_it_is_written() {
    on_both(|env, base| {
        let path = base.join("f");
        assert_eq!(env.disk.open(&path, OpenMode::Read).err().unwrap().kind(), io::ErrorKind::NotFound);
        let file = env.disk.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(env.disk.open(&path, OpenMode::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.write_all_at(3, b"abc").unwrap();
        file.write_all_at(4, b"XY").unwrap();
        let mut bytes = [9; 6];
        file.read_exact_at(0, &mut bytes).unwrap();
        assert_eq!((&bytes, file.len().unwrap()), (b"\0\0\0aXY", 6));
        assert_eq!(file.read_at(6, &mut bytes).unwrap(), 0);
        assert_eq!(file.read_exact_at(4, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(4).unwrap();
        file.set_len(5).unwrap();
        file.sync_data().unwrap();
        let map = env.disk.open(&path, OpenMode::Read).unwrap().map().unwrap();
        assert_eq!(&map[..], b"\0\0\0a\0");
        assert!(env.disk.open(&path, OpenMode::Read).unwrap().write_at(0, b"x").is_err());
        file.set_len(0).unwrap();
        assert!(env.disk.open(&path, OpenMode::Read).unwrap().map().unwrap().is_empty());
    });
}

#[test]
fn names_are_made_moved_and_taken_away() {
    on_both(|env, base| {
        let disk = &*env.disk;
        create_dir_durably(disk, &base.join("a/b")).unwrap();
        replace_file(disk, &base.join("a/f"), b"1").unwrap();
        replace_file(disk, &base.join("a/f"), b"22").unwrap();
        let entry = |name: &str, is_dir, len| DirEntry { name: name.to_owned(), is_dir, len };
        assert_eq!(disk.list(&base.join("a")).unwrap(), [entry("b", true, 0), entry("f", false, 2)]);
        disk.rename(&base.join("a/f"), &base.join("a/b/g")).unwrap();
        disk.rename(&base.join("a/b"), &base.join("c")).unwrap();
        assert!(disk.exists(&base.join("c/g")).unwrap() && !disk.exists(&base.join("a/f")).unwrap());
        disk.remove_file(&base.join("c/g")).unwrap();
        assert_eq!(disk.remove_file(&base.join("c/g")).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.remove_dir_all(&base.join("a")).unwrap();
        disk.sync_dir(base).unwrap();
        assert_eq!(disk.list(base).unwrap(), [entry("c", true, 0)]);
        assert!(disk.create_dir(&base.join("x/y")).is_err());
    });
}

#[test]
fn a_lock_has_one_holder_who_is_named() {
    on_both(|env, base| {
        let path = base.join("LOCK");
        let held = env.disk.lock(&path, "12345\n").unwrap();
        match env.disk.lock(&path, "6\n") {
            Err(LockError::Held(holder)) => assert_eq!(holder, "12345"),
            other => panic!("{:?}", other.err()),
        }
        drop(held);
        env.disk.lock(&path, "7\n").unwrap();
    });
}

#[test]
fn clocks_move() {
    let env = Env::os();
    let before = (env.clock.wall_us(), env.clock.monotonic_us());
    env.clock.sleep_us(1_000);
    assert!(env.clock.monotonic_us() >= before.1 + 1_000 && before.0 > 1_700_000_000_000_000);
    assert_ne!(env.random.next_u64(), env.random.next_u64());
    let (sim, handle) = Env::sim(1);
    let before = sim.clock.wall_us();
    sim.clock.sleep_us(5);
    handle.clock.set_wall_us(before - 10);
    assert_eq!((sim.clock.wall_us(), sim.clock.monotonic_us()), (before - 10, 5));
}

#[test]
fn a_crash_leaves_what_was_synced_and_some_of_the_rest() {
    let sim = Sim::new(1);
    let path = Path::new("/f");
    let file = sim.disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(0, b"aaaa").unwrap();
    file.sync_data().unwrap();
    assert_eq!(sim.disk.crash(Crash::Nothing).peek(path), None, "the name was not synced");
    sim.disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(0, b"bb").unwrap();
    file.write_all_at(4, b"cccc").unwrap();
    assert_eq!((sim.disk.pending(), sim.disk.last_write()), (2, Some((4, 1))));
    let left = |crash| String::from_utf8(sim.disk.crash(crash).peek(path).unwrap()).unwrap();
    assert_eq!(left(Crash::Nothing), "aaaa");
    assert_eq!(left(Crash::All), "bbaacccc");
    assert_eq!(left(Crash::Prefix(1)), "bbaa");
    assert_eq!(left(Crash::Without(0)), "aaaacccc");
    assert_eq!(left(Crash::Torn(3)), "bbaaccc");
    assert_eq!(left(Crash::Grown), "aaaa\0\0\0\0");
    assert_eq!(left(Crash::Names), "aaaa");
    sim.disk.rename(path, Path::new("/g")).unwrap();
    assert_eq!(left(Crash::Contents), "bbaacccc");
    assert_eq!(sim.disk.crash(Crash::Names).peek(Path::new("/g")), Some(b"aaaa".to_vec()));
    // Written over sectors 0 to 3: each can reach the disk by itself.
    let file = sim.disk.open(Path::new("/s"), OpenMode::CreateNew).unwrap();
    sim.disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(510, &[b'x'; 1_030]).unwrap();
    assert_eq!(sim.disk.last_write(), Some((1_030, 4)));
    let left = |eighths| sim.disk.crash(Crash::Sectors(eighths)).peek(Path::new("/s")).unwrap();
    let places = |bytes: Vec<u8>| (0..bytes.len()).filter(|at| bytes[*at] == b'x').collect::<Vec<_>>();
    assert_eq!(places(left(0b0001)), [510, 511]);
    assert_eq!(places(left(0b1010)), (512..1_024).chain(1_536..1_540).collect::<Vec<_>>());
    assert_eq!(left(0b1111), sim.disk.crash(Crash::All).peek(Path::new("/s")).unwrap());
    assert_eq!(left(0), [0u8; 0]);
}

#[test]
fn calls_fail_when_told_to_and_a_failed_sync_forgets() {
    let sim = Sim::new(1);
    let file = sim.disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
    sim.disk.sync_dir(Path::new("/")).unwrap();
    sim.disk.set_fault(Some(Fault { call: 1, kind: FaultKind::Eio, lasting: false }));
    file.write_all_at(0, b"abcd").unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"abcd", "still to be seen");
    assert_eq!(sim.disk.crash(Crash::All).peek(Path::new("/f")), Some(vec![]), "and never durable");
    sim.disk.set_fault(Some(Fault { call: 0, kind: FaultKind::ShortWrite, lasting: false }));
    assert_eq!(file.write_at(0, b"abcd").unwrap(), 2);
    sim.disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Enospc, lasting: true }));
    assert_eq!(file.write_at(0, b"abcd").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), 4);
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_in_the_background_lets_others_go_first_and_they_stay_where_they_are() {
    use thread::{Class, enter};
    let nice = || rustix::process::nice(0).unwrap();
    let before = nice();
    let of = |class| {
        let measured = move || {
            enter(class);
            (nice(), thread::spawn("child", nice).unwrap().join().unwrap())
        };
        thread::spawn("class", measured).unwrap().join().unwrap()
    };
    assert_eq!(of(Class::Foreground), (before, before));
    let (background, child) = of(Class::Background);
    assert!(background > before || before == 19, "{background} after {before}");
    assert_eq!(child, background);
    let (bulk, child) = of(Class::Bulk);
    assert!(bulk > background || background == 19, "{bulk} after {background}");
    assert_eq!(child, bulk);
    assert_eq!(nice(), before);
}
