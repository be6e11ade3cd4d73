//! Real faults under the real log: a file system that fills up and is given room again, and system calls that fail.

use crate::dice::rounds;
use crate::disks::Mounted;
use crate::ledger::Ledger;
use crate::util::{Place, tell};
use std::process::Command;
use std::time::Duration;

const NOTHING_MORE: u64 = u64::MAX;

/// Fills a file system, frees room, and asks what was lost. Gives the number of values acknowledged before and after.
fn fill_up(disk: &Mounted) -> (u64, u64) {
    let dir = disk.dir().join("data");
    let filler = disk.dir().join("filler");
    std::fs::write(&filler, vec![1; 5 << 20]).expect("room for the filler");
    let mut ledger = Ledger::new();
    ledger.stubborn = true;
    let mut life = ledger.start(&dir, false, &[]);
    life.wait_working();
    let (before, refused) = life.wait_beyond(NOTHING_MORE, 0, Duration::from_secs(60));
    assert!(refused > 0, "{before} values fit into a file system that is full");
    std::fs::remove_file(&filler).expect("the filler goes");
    let (after, _) = life.wait_beyond(before, NOTHING_MORE, Duration::from_secs(30));
    assert!(after > before, "no service although there is room");
    life.kill();
    assert_eq!(ledger.verdict(&dir), [""; 0]);
    (before, ledger.counts().0)
}

#[test]
fn a_full_disk_loses_nothing_and_room_brings_service_back() {
    for (what, disk) in [("memory", Mounted::memory(12)), ("ext4", Mounted::ext4(24))] {
        match disk {
            Err(why) => tell(&format!("SKIPPED: a full disk ({what}: {why}): not shown here what the log does then")),
            Ok(disk) => {
                let (before, after) = fill_up(&disk);
                tell(&format!("full disk ({what}): {before} values acknowledged before, {after} in all, lost = 0"));
            }
        }
    }
}

/// `KAPPA_FAULTS=100 cargo test --release --test suite failing` fails the first hundred calls of each kind.
#[test]
fn a_call_that_fails_loses_nothing() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|ran| ran.status.success()) {
        return tell("SKIPPED: failing system calls (there is no strace): not shown here that the log survives them");
    }
    let points = |few: &[u64]| match rounds("KAPPA_FAULTS", 0) {
        0 => few.to_vec(),
        many => (1..=many).collect(),
    };
    let mut failed = 0;
    let (mut acked, mut went_on) = (0, 0);
    for (call, error, points) in [
        ("fdatasync", "EIO", points(&[1, 2, 3, 5, 8, 12, 17, 23, 40, 60])),
        ("fsync", "EIO", points(&[1, 2, 3, 5])),
        ("pwrite64", "EIO", points(&[1, 2, 5, 9, 20])),
        ("pwrite64", "ENOSPC", points(&[1, 4, 11])),
    ] {
        for number in points {
            let place = Place::new();
            let dir = place.path("data");
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={number}"));
            let strace = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let mut ledger = Ledger::new();
            // Every other time the process is to go on by itself.
            ledger.stubborn = number % 2 == 0;
            let life = ledger.start(&dir, false, &strace);
            let (before, refused) = life.wait_beyond(NOTHING_MORE, 0, Duration::from_secs(2));
            failed += u64::from(refused > 0);
            if ledger.stubborn && refused > 0 {
                let (after, _) = life.wait_beyond(before, NOTHING_MORE, Duration::from_secs(20));
                assert!(after > before, "{call} number {number} failed with {error}, and the log did not go on");
                went_on += 1;
            }
            life.wait(Duration::from_millis(200));
            ledger.forgive_failures();
            let wrong = ledger.verdict(&dir);
            assert_eq!(wrong, [""; 0], "{call} number {number} failed with {error}");
            acked += ledger.counts().0;
        }
    }
    assert!(failed >= 10 && went_on > 0 && acked > 0, "{failed} logs met a failing call, {went_on} went on");
    tell(&format!(
        "failing system calls: {failed} logs met one, {went_on} of them reopened and went on; {acked} values acknowledged, lost = 0"
    ));
}
