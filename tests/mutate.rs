//! Fuzzing as an ordinary test: valid inputs are changed by a seeded mutator and handed to a decoder that must neither panic nor
//! take long. Inputs that once mattered are kept under `fixtures/fuzz/<target>` and are handed to it first, as they are.
//!
//! `KAPPA_FUZZ=1000000` sets the inputs per target, `KAPPA_SEED` another seed, and `KAPPA_FUZZ_KEEP=1` keeps one input for each
//! outcome not seen before.
#![expect(clippy::disallowed_methods, reason = "corpora are files, and the time that an input takes is measured")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest that one input may take.
const INPUT_TIME: Duration = Duration::from_secs(1);
/// Inputs kept for one target at most, and their longest.
const KEPT_MAX: usize = 40;
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Values at which lengths, counts and offsets go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    7,
    0x7f,
    0x80,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Changes bytes; the same seed changes them in the same way.
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    /// A changed copy of one of the seeds.
    pub fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(4) {
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let len = 1 + self.below(16);
        let end = (at + len).min(bytes.len());
        match self.below(9) {
            _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 | 3 => {
                let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                let edge = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).wrapping_sub(1);
                bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
            7 => {
                let inserted: Vec<u8> = (0..len).map(|_| self.below(256) as u8).collect();
                bytes.splice(at..at, inserted);
            }
            _ => {
                let other = &seeds[self.below(seeds.len())];
                bytes.splice(at.., other.get(self.below(other.len())..).unwrap_or_default().iter().copied());
            }
        }
    }
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("a kept input")).collect()
}

fn keep(target: &str, outcomes: &mut BTreeSet<String>, outcome: String, bytes: &[u8]) {
    let wanted = std::env::var_os("KAPPA_FUZZ_KEEP").is_some() && bytes.len() <= KEPT_BYTES_MAX;
    if outcomes.len() < KEPT_MAX && outcomes.insert(outcome) && wanted {
        std::fs::create_dir_all(folder(target)).expect("a folder for the corpus");
        std::fs::write(folder(target).join(format!("{:03}", outcomes.len())), bytes).expect("a kept input");
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// What an outcome is but for its numbers, so that outcomes can be counted.
fn shape(outcome: &str) -> String {
    outcome.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// Hands a target its corpus, its seeds, and then changed seeds; gives the number of inputs and of different outcomes.
/// `decode` says in words what came out; `repair` makes a changed input look right again (checksums) where it can.
pub fn fuzz(
    target: &str,
    seeds: &[Vec<u8>],
    repair: impl Fn(&mut Mutator, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> String,
) -> (u64, usize) {
    let rounds = number("KAPPA_FUZZ", if cfg!(debug_assertions) { 400 } else { 20_000 });
    let mut mutator = Mutator::new(number("KAPPA_SEED", 1));
    let mut outcomes = BTreeSet::new();
    let kept = corpus(target);
    let first: Vec<Vec<u8>> = kept.iter().chain(seeds).cloned().collect();
    let mut count = 0;
    while count < rounds.max(first.len() as u64) {
        let bytes = match first.get(count as usize) {
            Some(bytes) => bytes.clone(),
            None => {
                let mut bytes = mutator.mutated(&first);
                repair(&mut mutator, &mut bytes);
                bytes
            }
        };
        let since = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| decode(&bytes))).unwrap_or_else(|panic| {
            let path = std::env::temp_dir().join(format!("kappa-fuzz-{target}"));
            let _ = std::fs::write(&path, &bytes);
            let keep = folder(target);
            eprintln!(
                "{target}: input {count} of {} bytes: {}; belongs into {}",
                bytes.len(),
                path.display(),
                keep.display()
            );
            std::panic::resume_unwind(panic)
        });
        assert!(since.elapsed() < INPUT_TIME, "{target}: input {count} took {:?}", since.elapsed());
        keep(target, &mut outcomes, shape(&outcome), &bytes);
        count += 1;
    }
    (count, outcomes.len())
}
