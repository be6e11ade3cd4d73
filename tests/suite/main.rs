//! The integration tests, in one binary: the house rules, the command line, the laws end to end, and Flink's goldens.
#![expect(clippy::disallowed_methods, reason = "these tests look at files, clocks and threads from outside")]

#[path = "../checker.rs"]
mod checker;
mod checkpoints;
mod checks;
mod cli;
mod crashes;
mod dice;
mod diff;
mod disks;
mod explain;
mod failing;
mod functions;
mod fuzz;
mod generate;
mod golden;
mod guests;
mod history;
mod jobs;
mod kill;
mod lateness;
mod laws;
mod ledger;
mod linear;
#[path = "../mutate.rs"]
mod mutate;
mod power;
mod promote;
mod readers;
mod replays;
mod savepoints;
mod sizes;
mod spans;
mod spilling;
mod stream;
mod sudden;
mod tidy;
mod util;
