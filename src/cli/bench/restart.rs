//! Opening a log of two sizes, beside the bare limit: opening every journal file and reading its first and last 64 KiB.

use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, LogOptions, TopicConfig};
use std::path::Path;

pub(super) struct Setup {
    pub rounds: u32,
    pub small_mib: u64,
    pub large_mib: u64,
}

/// Bytes in one append, about.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes read from each end of a file by the bare loop.
const END_BYTES: usize = 64 << 10;

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let (small, large) = (dir.join("small"), dir.join("large"));
    build(env, &small, setup.small_mib)?;
    build(env, &large, setup.large_mib)?;
    let mut open_small = Series::new("open, small log", "ms");
    let mut open_large = Series::new("open, large log", "ms");
    let mut whole_small = Series::new("open + close, small log", "ms");
    let mut whole_large = Series::new("open + close, large log", "ms");
    let mut bare_small = Series::new("bare read of file ends, small log", "ms");
    let mut bare_large = Series::new("bare read of file ends, large log", "ms");
    let mut growth = Series::new("open, large / small", "ratio");
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        let mut open = [0.0; 2];
        let series = [
            (&small, &mut open_small, &mut whole_small, &mut bare_small),
            (&large, &mut open_large, &mut whole_large, &mut bare_large),
        ];
        for (place, (log, opened, whole, bare)) in series.into_iter().enumerate() {
            bare.values.push(ms(timed(env, || read_ends(env, log))?.0));
            let (seconds, log) = timed(env, || Log::open(env, log, LogOptions::default()))?;
            let (closing, ()) = timed(env, || log.close())?;
            opened.values.push(ms(seconds));
            whole.values.push(ms(seconds + closing));
            open[place] = seconds;
        }
        growth.values.push(open[1] / open[0]);
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    show(env, printer, &[&open_small, &open_large, &whole_small, &whole_large, &bare_small, &bare_large, &growth])
}

fn ms(seconds: f64) -> f64 {
    seconds * 1e3
}

/// Writes a log of so many MiB: records of 100 to 1000 bytes in 4 partitions.
fn build(env: &Env, dir: &Path, mib: u64) -> Result<()> {
    let log = Log::open(env, dir, LogOptions::default())?;
    let topic = log.create_topic("bench", TopicConfig { partitions: 4, ..TopicConfig::default() })?.id();
    let progress = Progress::new("writing", Some(mib), "MiB");
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let (mut written, mut number) = (0, 0i64);
    let mut pending = None;
    let noise: Vec<u8> = (0..2_000u32).map(|at| b'a' + (at * at % 23) as u8).collect();
    while written < mib << 20 {
        let mut rows = RecordColumns::default();
        while rows.byte_len() < BATCH_BYTES {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (from, len) = ((dice >> 40) as usize % 1_000, 100 + (dice >> 20) as usize % 901);
            let key = (dice >> 50).to_le_bytes();
            let value = noise.get(from..from + len);
            rows.push(
                Partitioning::ByKey,
                &Record { timestamp_ms: Some(number), key: Some(&key), value, headers: &[] },
            );
            number += 1;
        }
        written += rows.byte_len() as u64;
        progress.at(written >> 20);
        if let Some(before) = pending.replace(log.append(AppendBatch::records(topic, rows))?) {
            before.wait()?;
        }
    }
    pending.map_or(Ok(()), |last| last.wait().map(drop))?;
    log.close()
}

/// What any opening has to do at least.
fn read_ends(env: &Env, dir: &Path) -> Result<()> {
    let journal = dir.join("journal");
    let io = |e| Error::io("cannot read in", &journal, e);
    let mut end = vec![0; END_BYTES];
    for entry in env.disk.list(&journal).map_err(io)? {
        let file = env.disk.open(&journal.join(&entry.name), OpenMode::Read).map_err(io)?;
        file.read_at(0, &mut end).map_err(io)?;
        file.read_at(entry.len.saturating_sub(END_BYTES as u64), &mut end).map_err(io)?;
    }
    Ok(())
}
