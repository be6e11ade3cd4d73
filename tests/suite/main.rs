//! The integration tests, in one binary: the house rules, the command line, the laws end to end, and Flink's goldens.

mod cli;
mod golden;
mod kill;
mod laws;
mod tidy;
mod util;
