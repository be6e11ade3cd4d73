//! Power cuts of a real file system under the real log: ext4 in an image, shut down in the middle of work so that it drops
//! everything that was not synced, mounted again, opened again, and held against the ledger.
//!
//! The ledger ends before the cut: an answer that races with it may be lost with the machine that got it. Not shown: a
//! drive that lies about its cache, and sectors of one write that reach the disk in another order; the simulated disk
//! has those.

use crate::dice::{Dice, rounds};
use crate::disks::{Mounted, Switch};
use crate::ledger::Ledger;
use crate::util::tell;
use std::time::Duration;

/// Cuts per file system; then a new one, so that reading it all stays short.
const LIVES: u64 = 10;

struct Cuts {
    done: u64,
    while_opening: u64,
    acked: u64,
    read: u64,
}

/// Cuts the power `cuts` times, in the end of each file system asks what is lost.
fn cut_power(cuts: u64, seed: u64, mutant: Option<&'static str>) -> Result<(Cuts, Vec<String>), String> {
    let mut switch = Switch::new()?;
    let mut dice = Dice::new(seed);
    let mut total = Cuts { done: 0, while_opening: 0, acked: 0, read: 0 };
    while total.done < cuts {
        let mut disk = Mounted::ext4(64)?;
        let dir = disk.dir().join("data");
        let mut ledger = Ledger::new();
        ledger.mutant = mutant;
        for _ in 0..LIVES.min(cuts - total.done) {
            let mut life = ledger.start(&dir, false, &[]);
            if dice.below(3) == 0 {
                // While it opens what the last cut left.
                std::thread::sleep(Duration::from_micros(dice.below(40_000)));
                total.while_opening += 1;
            } else {
                life.wait_working();
                std::thread::sleep(Duration::from_micros(dice.below(120_000)));
            }
            life.cut();
            switch.cut(disk.dir())?;
            life.kill();
            disk.restart()?;
            total.done += 1;
        }
        let wrong = ledger.verdict(&dir);
        let (acked, read) = ledger.counts();
        (total.acked, total.read) = (total.acked + acked, total.read + read);
        if !wrong.is_empty() {
            return Ok((total, wrong));
        }
    }
    Ok((total, Vec::new()))
}

/// Says loudly that a test could not run here, and what is therefore not shown.
fn skipped(why: &str) {
    tell(&format!(
        "SKIPPED: power cuts of a real file system ({why}): not shown here that acknowledged records survive them"
    ));
}

/// `KAPPA_CUTS=5000 cargo test --release --test suite power` (as root) runs the long form.
#[test]
fn nothing_acknowledged_is_lost_by_power_cuts() {
    let (cuts, seed) = (rounds("KAPPA_CUTS", 50), rounds("KAPPA_SEED", 11));
    match cut_power(cuts, seed, None) {
        Err(why) => skipped(&why),
        Ok((total, wrong)) => {
            assert_eq!(wrong, [""; 0], "seed {seed}, after {} cuts", total.done);
            assert!(total.acked > cuts * 5, "{} values in {cuts} cuts are too few to show anything", total.acked);
            let Cuts { done, while_opening, acked, read } = total;
            tell(&format!(
                "power cuts: {done} on ext4 ({while_opening} while opening), seed {seed}: {acked} values acknowledged, \
                 {read} read back, lost = 0"
            ));
        }
    }
}

#[test]
fn power_cuts_show_a_log_that_acknowledges_before_it_syncs() {
    match cut_power(10, rounds("KAPPA_SEED", 12), Some("AckBeforeSync")) {
        Err(why) => skipped(&why),
        Ok((total, wrong)) => {
            assert!(wrong.iter().any(|wrong| wrong.starts_with("AckedLost")), "after {} cuts: {wrong:?}", total.done);
            tell(&format!("power cuts, without the sync before the acknowledgement: seen after {} cuts", total.done));
        }
    }
}
