//! A process with producers, readers and commits at work, killed without warning again and again: in the middle of work, and
//! while it recovers from the last time. Says nothing about power cuts: what was written survives a process. See `power`.

use crate::dice::{Dice, rounds};
use crate::ledger::Ledger;
use crate::util::{Place, tell};
use std::time::Duration;

/// Kills per data folder; then a new one, so that reading it all stays short.
const LIVES: u64 = 25;

/// `KAPPA_KILLS=20000 cargo test --release --test suite sudden` runs the long form.
#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let kills = rounds("KAPPA_KILLS", 100);
    let seed = rounds("KAPPA_SEED", 7);
    let (mut acked, mut read, mut done) = (0, 0, 0);
    let mut dice = Dice::new(seed);
    while done < kills {
        let place = Place::new();
        let dir = place.path("data");
        let mut ledger = Ledger::new();
        for _ in 0..LIVES.min(kills - done) {
            let life = ledger.start(&dir, false, &[]);
            let early = dice.below(2) == 0;
            let after = if early { dice.below(100) } else { 100 + dice.below(400) };
            std::thread::sleep(Duration::from_millis(after));
            life.kill();
            done += 1;
        }
        let wrong = ledger.verdict(&dir);
        assert_eq!(wrong, [""; 0], "seed {seed}, after {done} kills");
        let (more_acked, more_read) = ledger.counts();
        (acked, read) = (acked + more_acked, read + more_read);
    }
    assert!(acked > kills * 10, "{acked} values in {kills} kills are too few to show anything");
    tell(&format!("kills: {kills}, seed {seed}: {acked} values acknowledged, {read} read back, lost = 0"));
}
