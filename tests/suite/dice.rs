//! Random numbers from a seed, and how many rounds the long forms of the loops run.

use kappa::codec::xxh64;

/// The same seed gives the same numbers, everywhere.
pub struct Dice {
    seed: u64,
    count: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { seed, count: 0 }
    }

    /// A number from 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.count += 1;
        xxh64(&self.count.to_le_bytes(), self.seed) % n
    }
}

/// The number that a variable of the environment sets, else `short`.
pub fn rounds(variable: &str, short: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number of rounds")),
        Err(_) => short,
    }
}
