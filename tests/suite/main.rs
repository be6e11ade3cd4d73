//! The integration tests, in one binary: the house rules, the command line, the laws end to end, and Flink's goldens.
#![expect(clippy::disallowed_methods, reason = "these tests look at files, clocks and threads from outside")]

mod cli;
mod golden;
mod kill;
mod laws;
mod tidy;
mod util;
