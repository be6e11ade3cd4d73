//! `kappa bench`: what a user sees, measured beside the machine's own limit in the same run, round by round.

mod append;
mod checkpoint;
mod consume;
mod nexmark;
mod replay;
mod restart;
mod seek;
mod window;

use super::Status;
use super::bench_args::Bench;
use super::printer::Printer;
use crate::env::{Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn run(env: &Env, printer: &Printer, command: Bench) -> Result<Status> {
    match command {
        Bench::Append { rounds, seconds, producers, record_bytes, partitions, durability, no_sealing, dir } => {
            let (sealing, in_flight) = (!no_sealing, 4);
            let setup =
                append::Setup { rounds, seconds, producers, record_bytes, partitions, durability, sealing, in_flight };
            in_folder(env, &dir, |dir| append::run(env, printer, &setup, dir))?;
        }
        Bench::Checkpoint { rounds, events, keys, dir } => {
            let setup = checkpoint::Setup { rounds, events, keys };
            in_folder(env, &dir, |dir| checkpoint::run(env, printer, &setup, dir))?;
        }
        Bench::Consume { rounds, millions, consumers, seconds, dir } => {
            let setup = consume::Setup { rounds, events: u64::from(millions) * 1_000_000, consumers, seconds };
            in_folder(env, &dir, |dir| consume::run(env, printer, &setup, dir))?;
        }
        Bench::Nexmark { rounds, events, queries, threads, dir } => {
            let setup = nexmark::Setup { rounds, events, queries, threads: usize::from(threads) };
            in_folder(env, &dir, |dir| nexmark::run(env, printer, &setup, dir))?;
        }
        Bench::Replay { rounds, millions, keys, threads, dir } => {
            let setup =
                replay::Setup { rounds, events: u64::from(millions) * 1_000_000, keys, threads: usize::from(threads) };
            in_folder(env, &dir, |dir| replay::run(env, printer, &setup, dir))?;
        }
        Bench::Seek { rounds, millions, seeks, dir } => {
            let setup = seek::Setup { rounds, records: u64::from(millions) * 1_000_000, seeks };
            in_folder(env, &dir, |dir| seek::run(env, printer, &setup, dir))?;
        }
        Bench::Restart { rounds, small_mib, large_mib, dir } => {
            let setup = restart::Setup { rounds, small_mib, large_mib };
            in_folder(env, &dir, |dir| restart::run(env, printer, &setup, dir))?;
        }
        Bench::Window { rounds, events, keys, string_keys, dir } => {
            let setup = window::Setup { rounds, events, keys, string_keys };
            in_folder(env, &dir, |dir| window::run(env, printer, &setup, dir))?;
        }
    }
    Ok(Status::Done)
}

/// Runs in a folder that must not exist yet and is removed afterwards.
fn in_folder(env: &Env, dir: &Path, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let io = |e| Error::io("cannot use", dir, e);
    if env.disk.exists(dir).map_err(io)? {
        return Err(Error::new(ErrorKind::Conflict, format!("'{}' exists", dir.display()))
            .with_hint("name a new folder with --dir"));
    }
    crate::env::create_dir_durably(&*env.disk, dir).map_err(io)?;
    let outcome = work(dir);
    env.disk.remove_dir_all(dir).map_err(io)?;
    outcome
}

/// One measured series: median and spread.
struct Series {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Series {
    fn new(name: &'static str, unit: &'static str) -> Self {
        Series { name, unit, values: Vec::new() }
    }

    /// Value at a share of the sorted rounds (0.5: the median).
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    fn row(&self) -> Vec<Value> {
        let round = |value: f64| {
            if value.abs() >= 100.0 { json!(value.round() as i64) } else { json!((value * 1000.0).round() / 1000.0) }
        };
        vec![
            json!(self.name),
            json!(self.unit),
            round(self.at(0.5)),
            round(self.at(0.0)),
            round(self.at(1.0)),
            json!(self.values.len()),
        ]
    }
}

/// Shows series; in JSON every row also names the machine.
fn show(env: &Env, printer: &Printer, series: &[&Series]) -> Result<()> {
    let machine = machine(env);
    let rows: Vec<Vec<Value>> = series
        .iter()
        .map(|series| {
            let mut row = series.row();
            if !printer.is_table() {
                row.push(json!(machine));
            }
            row
        })
        .collect();
    let mut columns = vec!["what", "unit", "median", "min", "max", "rounds"];
    if !printer.is_table() {
        columns.push("machine");
    } else {
        super::talk(&format!("on {machine}"));
    }
    printer.table(&columns, &rows)
}

/// Processor, cores, memory and kernel, as far as the system tells.
fn machine(env: &Env) -> String {
    let find = |file: &str, key: &str| {
        read_text(env, file)
            .lines()
            .find_map(|line| line.strip_prefix(key).map(|rest| rest.trim_start_matches([':', ' ', '\t']).to_owned()))
    };
    let cpu = find("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = find("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown memory".into());
    let kernel = read_text(env, "/proc/sys/kernel/osrelease");
    format!("{cpu}, {} cores, {memory}, Linux {}", crate::env::thread::available(), kernel.trim())
}

/// Anonymous memory of this process in MiB.
fn anonymous_mib(env: &Env) -> f64 {
    let status = read_text(env, "/proc/self/status");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// A small file as text; empty if there is none.
fn read_text(env: &Env, path: &str) -> String {
    let mut bytes = vec![0; 64 << 10];
    let read = env.disk.open(Path::new(path), OpenMode::Read).and_then(|file| file.read_at(0, &mut bytes)).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Seconds that `work` takes.
fn timed<T>(env: &Env, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = env.clock.monotonic_us();
    let done = work()?;
    Ok(((env.clock.monotonic_us() - start).max(1) as f64 / 1e6, done))
}
