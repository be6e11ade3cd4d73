//! Seeks to random places of a warm log, beside a bare binary search over the same statistics in memory.

use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::Env;
use crate::error::Result;
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, LogOptions, SeekTarget, TopicConfig};
use crate::types::{AppendTime, Offset, PartitionId, TopicId};
use std::path::Path;

pub(super) struct Setup {
    pub rounds: u32,
    pub records: u64,
    pub seeks: u32,
}

const PARTITIONS: u32 = 4;
const VALUE_BYTES: usize = 100;

/// Records in one append: a frame of about 1 MiB holds some 8,000.
const BATCH: u64 = 4_000;

/// Records a second of event time.
const RECORDS_PER_S: u64 = 10_000;

/// How far timestamps are out of order, in ms.
const DISORDER_MS: u64 = 30_000;

const START_MS: i64 = 1_767_225_600_000;

/// A series of bits from a seed.
struct Bits(u64);

impl Bits {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// Kinds of places, in the journal and in history.
const JOURNAL: [[&str; 2]; 3] = [
    ["journal: time, median", "journal: time, p99"],
    ["journal: append time, median", "journal: append time, p99"],
    ["journal: offset, median", "journal: offset, p99"],
];
const HISTORY: [[&str; 2]; 3] = [
    ["history: time, median", "history: time, p99"],
    ["history: append time, median", "history: append time, p99"],
    ["history: offset, median", "history: offset, p99"],
];

/// What is known of one append, as a bare search has it.
struct Known {
    max_ms: Vec<i64>,
    append_times: Vec<i64>,
}

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let dir = dir.join("log");
    let options = LogOptions { background: false, ..LogOptions::default() };
    let log = Log::open(env, &dir, options)?;
    let topic = log.create_topic("bench", TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() })?.id();
    let known = generate(&log, topic, setup.records)?;
    let mut bare = Series::new("bare binary search", "us");
    let mut series = measure(env, &log, topic, setup, &known, &JOURNAL, &mut bare)?;
    log.keep()?;
    series.extend(measure(env, &log, topic, setup, &known, &HISTORY, &mut bare)?);
    log.close()?;
    series.push(bare);
    show(env, printer, &series.iter().collect::<Vec<_>>())
}

/// Rounds of seeks of every kind, each beside the bare search.
fn measure(
    env: &Env,
    log: &Log,
    topic: TopicId,
    setup: &Setup,
    known: &Known,
    names: &[[&'static str; 2]; 3],
    bare: &mut Series,
) -> Result<Vec<Series>> {
    let mut bits = Bits(0x9E37_79B9_7F4A_7C15);
    let mut series: Vec<Series> = names.iter().flatten().map(|name| Series::new(name, "us")).collect();
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    // The first round makes the log warm.
    for round in 0..=setup.rounds {
        let measured = (0..names.len()).map(|kind| seeks(env, log, topic, setup, known, kind, &mut bits));
        let measured: Vec<(f64, f64)> = measured.collect::<Result<_>>()?;
        let bare_us = bare_search(env, setup, known, &mut bits)?;
        if round == 0 {
            continue;
        }
        for (pair, (median, p99)) in series.chunks_mut(2).zip(measured) {
            pair.iter_mut().zip([median, p99]).for_each(|(series, value)| series.values.push(value));
        }
        bare.values.push(bare_us);
        progress.at(u64::from(round));
    }
    Ok(series)
}

/// Fills a topic with timestamps that are a little out of order, and some that make no sense.
fn generate(log: &Log, topic: TopicId, records: u64) -> Result<Known> {
    let progress = Progress::new("writing records", Some(records), "records");
    let mut bits = Bits(1);
    let value = [b'v'; VALUE_BYTES];
    let mut known = Known { max_ms: Vec::new(), append_times: Vec::new() };
    let mut max_ms = i64::MIN;
    for first in (0..records).step_by(BATCH as usize) {
        let mut rows = RecordColumns::default();
        for number in first..(first + BATCH).min(records) {
            let due_ms = START_MS.saturating_add_unsigned(number * 1_000 / RECORDS_PER_S);
            let timestamp_ms = match bits.below(1_000_000) {
                0 => due_ms + 40 * 365 * 86_400_000,
                1 => -1,
                _ => due_ms - bits.below(DISORDER_MS).cast_signed(),
            };
            max_ms = max_ms.max(timestamp_ms);
            let to = Partitioning::Fixed(PartitionId(bits.below(u64::from(PARTITIONS)) as u32));
            rows.push(to, &Record { timestamp_ms: Some(timestamp_ms), key: None, value: Some(&value), headers: &[] });
        }
        let ack = log.append_wait(AppendBatch::records(topic, rows))?;
        known.max_ms.push(max_ms);
        known.append_times.push(ack.append_time.0);
        progress.at(first);
    }
    Ok(known)
}

/// Median and 99th percentile of the seeks of one kind, in us.
fn seeks(
    env: &Env,
    log: &Log,
    topic: TopicId,
    setup: &Setup,
    known: &Known,
    kind: usize,
    bits: &mut Bits,
) -> Result<(f64, f64)> {
    let mut took = Series::new("", "us");
    let appended = known.append_times.first().copied().zip(known.append_times.last().copied()).unwrap_or_default();
    let offsets = log.partition_ends(topic)?;
    for _ in 0..setup.seeks {
        let to = match kind {
            0 => SeekTarget::TimestampMs(random_ms(setup, bits)),
            1 => SeekTarget::Append(AppendTime(
                appended.0.saturating_add_unsigned(bits.below((appended.1 - appended.0).unsigned_abs())),
            )),
            _ => {
                let partition = bits.below(u64::from(PARTITIONS));
                let end = offsets.get(partition as usize).map_or(0, |end| end.0);
                SeekTarget::Offset { partition: PartitionId(partition as u32), offset: Offset(bits.below(end)) }
            }
        };
        took.values.push(timed(env, || log.seek(topic, to))?.0 * 1e6);
    }
    Ok((took.at(0.5), took.at(0.99)))
}

fn random_ms(setup: &Setup, bits: &mut Bits) -> i64 {
    START_MS.saturating_add_unsigned(bits.below(setup.records * 1_000 / RECORDS_PER_S))
}

/// Microseconds of one binary search among the running maxima of the timestamps of every append.
fn bare_search(env: &Env, setup: &Setup, known: &Known, bits: &mut Bits) -> Result<f64> {
    let (seconds, sum) = timed(env, || {
        let search = |_| {
            let at = random_ms(setup, bits);
            known.max_ms.partition_point(|max_ms| *max_ms < at)
        };
        Ok((0..setup.seeks).map(search).sum::<usize>())
    })?;
    std::hint::black_box(sum);
    Ok(seconds * 1e6 / f64::from(setup.seeks))
}
