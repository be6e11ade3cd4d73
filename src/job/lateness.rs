//! How long a watermark should wait: what a job would drop with each of several delays, counted by engines that run side by side.

use super::bounds;
use super::parts;
use super::{Job, Observer};
use crate::engine::plan::{Emission, JobPlan, PipelinePlan, Step, TimeDomain, WindowKind};
use crate::engine::{Engine, EngineOptions, OutputStream, Rowtimes};
use crate::error::{Error, Result};
use crate::log::records::LogBatch;
use crate::log::{Log, Topic};
use crate::sql;
use crate::time::watermark::BEFORE_ALL;
use crate::types::{Position, US_PER_MS};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Delays that people use, in ms; what records show is rounded up to one of them.
const LADDER_S: [i64; 23] = [
    0, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800,
    259_200, 604_800, 2_592_000,
];

/// Shares of the records for which a delay is tried that reaches them.
const SHARES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// Bytes handed to the engines at once, roughly.
const STRIDE_BYTES: usize = 4 << 20;

/// What is known about the lateness of a job's records.
#[derive(Debug, Clone, PartialEq)]
pub struct LatenessPlan {
    /// By source with a rowtime.
    pub sources: Vec<Behind>,
    /// By output with windows of event time, and by delay.
    pub bounds: Vec<BoundCount>,
}

/// How far the records of a source lie behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// Index of the source in the plan.
    pub source: usize,
    /// Table.
    pub table: String,
    /// Records with a rowtime.
    pub records: u64,
    /// The delay that the table declares; `None` if it is not the same for all records.
    pub declared_ms: Option<i64>,
    /// Shares of the records, each with how far behind the newest rowtime of their partition they are at most (rounded up by at most a 16th).
    pub shares: Vec<(f64, i64)>,
}

/// What one output would lose with one delay of the watermark.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundCount {
    /// Table, or `select-N`.
    pub output: String,
    /// The delay.
    pub delay_ms: i64,
    /// Whether the table declares it.
    pub is_declared: bool,
    /// Records that would miss a window, since it had closed.
    pub dropped: u64,
    /// Their share of the records of the source.
    pub share: f64,
    /// If the delay stays as declared and what is beyond it becomes allowed lateness: results that would be sent after the first
    /// one of their window. Known for tumbling windows whose results are all sent (no HAVING): each record that comes in between sends
    /// one.
    pub revisions: Option<u64>,
    /// The shortest delay that drops no more than asked.
    pub is_recommended: bool,
}

/// Reads what the sources of a job hold now: once for how far records lie behind, unless `delays_ms` says which delays to try, and once
/// to count with all of them. `may_drop` is the share of records that may miss a window.
///
/// # Errors
/// `Input` for a job without windows of event time; those of reading the log.
pub fn plan_lateness(
    log: &Log,
    job: &Job,
    delays_ms: Option<&[i64]>,
    may_drop: f64,
    observer: &mut dyn Observer,
) -> Result<LatenessPlan> {
    let outputs = windowed_outputs(&job.plan);
    if outputs.is_empty() {
        return Err(Error::input("the job has no windows of event time, so nothing of it can be late"));
    }
    let range = Range::new(log, job)?;
    let sources = range.distances(job)?;
    let mut delays: Vec<i64> = match delays_ms {
        Some(delays) => delays.to_vec(),
        None => sources.iter().flat_map(candidates).collect(),
    };
    delays.sort_unstable();
    delays.dedup();
    let counted = range.count(job, &delays, observer)?;
    let mut bounds = Vec::new();
    for (output, pipeline) in outputs {
        let Some(of_source) = sources.iter().find(|behind| behind.source == pipeline.source) else { continue };
        bounds.extend(rows(&job.plan, output, pipeline, of_source, &delays, &counted, may_drop));
    }
    Ok(LatenessPlan { sources, bounds })
}

/// Outputs whose records wait in windows of event time, each with its first pipeline.
fn windowed_outputs(plan: &JobPlan) -> BTreeMap<usize, &PipelinePlan> {
    let mut outputs = BTreeMap::new();
    for pipeline in &plan.pipelines {
        if pipeline.time == TimeDomain::Event && pipeline.steps.iter().any(Step::is_stateful) {
            outputs.entry(pipeline.output).or_insert(pipeline);
        }
    }
    outputs
}

/// One output with every delay.
fn rows(
    plan: &JobPlan,
    output: usize,
    pipeline: &PipelinePlan,
    source: &Behind,
    delays: &[i64],
    counted: &[BTreeMap<usize, u64>],
    may_drop: f64,
) -> Vec<BoundCount> {
    let dropped: Vec<u64> = counted.iter().map(|late| late.get(&output).copied().unwrap_or(0)).collect();
    let declared = source.declared_ms.and_then(|ms| delays.iter().position(|delay| *delay == ms));
    let is_alone = plan.pipelines.iter().filter(|pipeline| pipeline.output == output).count() == 1;
    let is_one_each = is_alone && sends_one_result_a_record(pipeline);
    let records = source.records.max(1) as f64;
    let recommended = dropped.iter().position(|dropped| *dropped as f64 <= may_drop * records);
    let row = |(at, delay): (usize, &i64)| BoundCount {
        output: plan.outputs[output].table.clone(),
        delay_ms: *delay,
        is_declared: declared == Some(at),
        dropped: dropped[at],
        share: dropped[at] as f64 / records,
        revisions: declared
            .filter(|declared| is_one_each && at >= *declared)
            .map(|declared| dropped[declared].saturating_sub(dropped[at])),
        is_recommended: recommended == Some(at),
    };
    delays.iter().enumerate().map(row).collect()
}

/// Whether a record that changes a window that was sent sends exactly one result: it is in one window, and nothing behind that window
/// can hold the result back.
fn sends_one_result_a_record(pipeline: &PipelinePlan) -> bool {
    let mut rest = pipeline.steps.iter().skip_while(|step| !step.is_stateful());
    matches!(rest.next(), Some(Step::Aggregate(window)) if matches!(window.kind, WindowKind::Tumble { .. }))
        && rest.all(|step| matches!(step, Step::Project { .. }))
}

/// Delays worth trying: none, the declared one, and what reaches shares of the records.
fn candidates(behind: &Behind) -> Vec<i64> {
    let reached = behind.shares.iter().map(|(_, ms)| round_up(*ms));
    reached.chain([0]).chain(behind.declared_ms).collect()
}

fn round_up(ms: i64) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    let step = LADDER_S.into_iter().map(|s| s * 1000).find(|step| *step >= ms);
    step.unwrap_or_else(|| ms.saturating_add(DAY_MS - 1) / DAY_MS * DAY_MS)
}

/// The plan with another delay of all watermarks, and without allowed lateness or early results: what is beyond the delay is dropped.
fn with_delay(plan: &JobPlan, delay_ms: i64) -> Result<JobPlan> {
    let mut plan = plan.clone();
    plan.pipelines.iter_mut().for_each(|pipeline| pipeline.emission = Emission::default());
    for source in &mut plan.sources {
        if let Some(event_time) = &mut source.event_time {
            event_time.watermark = sql::watermark_behind(&source.schema, event_time.rowtime, delay_ms)?;
        }
    }
    Ok(plan)
}

/// The stretch of the log that is read.
struct Range<'a> {
    log: &'a Log,
    topics: Vec<Topic>,
    starts: Vec<Position>,
    end: Position,
}

impl<'a> Range<'a> {
    fn new(log: &'a Log, job: &Job) -> Result<Range<'a>> {
        let (starts, end) = (bounds::starts(log, job, None)?, bounds::sources_end(log, job)?);
        Ok(Range { log, topics: job.source_topics(log)?, starts, end })
    }

    fn distances(&self, job: &Job) -> Result<Vec<Behind>> {
        let timed = job.plan.sources.iter().enumerate().filter(|(_, source)| source.event_time.is_some());
        timed.map(|(source, _)| self.distances_of(job, source)).collect()
    }

    fn distances_of(&self, job: &Job, source: usize) -> Result<Behind> {
        let (plan, topic) = (&job.plan.sources[source], self.topics[source].id());
        let max_future_us = plan.event_time.as_ref().map_or(i64::MAX, |event_time| event_time.max_future_us);
        let rowtimes = Rowtimes::new(plan)?;
        let mut reader =
            self.log.reader(&[topic], self.starts[source]).with_projection(topic, parts::projection(&[plan]));
        let mut distances = Distances::default();
        while let Some(batch) = reader.next(self.end)? {
            for (row, rowtime, watermark) in rowtimes.with_watermarks(&batch)? {
                let row = row as usize;
                let limit_ms = batch.append_times[row].saturating_add(max_future_us).div_euclid(US_PER_MS);
                distances.add(batch.partitions[row], rowtime, watermark, rowtime <= limit_ms);
            }
        }
        Ok(Behind {
            source,
            table: plan.table.clone(),
            records: distances.records,
            declared_ms: distances.declared_ms.flatten(),
            shares: distances.shares(),
        })
    }

    /// Late records of each output, for each delay.
    fn count(&self, job: &Job, delays: &[i64], observer: &mut dyn Observer) -> Result<Vec<BTreeMap<usize, u64>>> {
        let partitions: Vec<u32> = self.topics.iter().map(Topic::partitions).collect();
        let engine = |delay: &i64| {
            let plan = Arc::new(with_delay(&job.plan, *delay)?);
            Engine::new(plan, partitions.clone(), EngineOptions::default())
        };
        let mut engines: Vec<Engine> = delays.iter().map(engine).collect::<Result<_>>()?;
        let mut late: Vec<BTreeMap<usize, u64>> = vec![BTreeMap::new(); delays.len()];
        let first = self.starts.iter().copied().min().unwrap_or_default();
        let mut ids: Vec<_> = self.topics.iter().map(Topic::id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut reader = self.log.reader(&ids, first);
        loop {
            let stride = self.stride(&mut reader)?;
            let Some((_, last)) = stride.last() else { return Ok(late) };
            let position = last.end();
            for (engine, late) in engines.iter_mut().zip(&mut late) {
                engine.push(stride.clone())?;
                for batch in engine.drain().into_iter().filter(|batch| batch.stream == OutputStream::Late) {
                    *late.entry(batch.output).or_default() += batch.records.len() as u64;
                }
            }
            if let Some(engine) = engines.first() {
                observer.on_progress(position, Some(self.end), &engine.counters());
            }
        }
    }

    fn stride(&self, reader: &mut crate::log::Reader) -> Result<Vec<(usize, LogBatch)>> {
        let (mut stride, mut bytes) = (Vec::new(), 0);
        while bytes < STRIDE_BYTES {
            let stretch = reader.next_stretch(self.end)?;
            if stretch.is_empty() {
                break;
            }
            for batch in stretch {
                bytes += batch.byte_len();
                for (source, _) in self.topics.iter().enumerate().filter(|(_, topic)| topic.id() == batch.topic) {
                    stride.extend(batch.between(self.starts[source], self.end).map(|batch| (source, batch)));
                }
            }
        }
        Ok(stride)
    }
}

/// How far records lie behind the newest ones of their partition.
#[derive(Debug, Default)]
struct Distances {
    records: u64,
    newest: BTreeMap<u32, i64>,
    /// Records by distance, rounded up.
    counts: BTreeMap<i64, u64>,
    /// Inside: the delay of all watermarks so far, unless they differ.
    declared_ms: Option<Option<i64>>,
}

impl Distances {
    fn add(&mut self, partition: u32, rowtime: i64, watermark: i64, moves: bool) {
        self.records += 1;
        let newest = self.newest.entry(partition).or_insert(i64::MIN);
        let distance = newest.saturating_sub(rowtime).max(0);
        if moves {
            *newest = (*newest).max(rowtime);
        }
        if watermark != BEFORE_ALL {
            let delay = Some(rowtime.saturating_sub(watermark));
            if *self.declared_ms.get_or_insert(delay) != delay {
                self.declared_ms = Some(None);
            }
        }
        *self.counts.entry(bucket(distance)).or_default() += 1;
    }

    fn shares(&self) -> Vec<(f64, i64)> {
        let share = |share: f64| {
            let wanted = (share * self.records as f64).ceil() as u64;
            let mut seen = 0;
            let reached = self.counts.iter().find(|(_, count)| {
                seen += **count;
                seen >= wanted
            });
            (share, reached.map_or(0, |(distance, _)| *distance))
        };
        if self.records == 0 { Vec::new() } else { SHARES.into_iter().map(share).collect() }
    }
}

/// A distance rounded up to five significant bits, so that few numbers stand for all.
fn bucket(distance: i64) -> i64 {
    let bits = (i64::BITS - distance.leading_zeros()).saturating_sub(5);
    let rest = (1i64 << bits) - 1;
    distance.saturating_add(rest) & !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_rounded_up_a_little() {
        for (distance, rounded) in [(0, 0), (1, 1), (31, 31), (32, 32), (33, 34), (1000, 1024), (1025, 1088)] {
            assert_eq!(bucket(distance), rounded, "{distance}");
        }
        for distance in (0..62).map(|bits| (1i64 << bits) + bits) {
            let rounded = bucket(distance);
            assert!(rounded >= distance && rounded - distance <= distance / 16, "{distance}: {rounded}");
        }
    }

    const TABLE: &str = "CREATE TABLE t (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND);";

    fn job(settings: &str, window: &str, rest: &str) -> JobPlan {
        let window = window.replace("$", "TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE");
        let select = "SELECT window_start, k, n + 1 FROM (SELECT window_start, k, COUNT(*) AS n FROM TABLE(";
        let text =
            format!("{settings}{TABLE} {select}{window}) WHERE k <> '' GROUP BY window_start, window_end, k) {rest};");
        sql::plan("t.sql", &text).unwrap_or_else(|e| panic!("{text}\n{e}"))
    }

    #[test]
    fn revisions_are_known_where_every_record_sends_one() {
        let is_known = |window, rest| sends_one_result_a_record(&job("", window, rest).pipelines[0]);
        assert!(is_known("TUMBLE($)", ""), "filters before the window change nothing");
        assert!(!is_known("TUMBLE($)", "WHERE n > 5"), "a result can be held back");
        assert!(!is_known("HOP($, INTERVAL '2' MINUTE)", ""), "a record is in several windows");
        assert!(!is_known("CUMULATE($, INTERVAL '2' MINUTE)", ""), "a record is in several windows");
    }

    #[test]
    fn only_the_delay_decides_what_is_dropped() {
        let settings = "SET 'table.exec.emit.allow-lateness' = '1 h';";
        let plan = job(settings, "TUMBLE($)", "");
        assert_eq!(plan.pipelines[0].emission.lateness_ms, 3_600_000);
        let other = with_delay(&plan, 7_000).expect("a plan");
        assert_eq!(other.pipelines[0].emission, Emission::default());
        let delay = |plan: &JobPlan| plan.sources[0].event_time.as_ref().expect("a rowtime").watermark.to_string();
        assert_ne!(delay(&other), delay(&plan));
        assert_eq!(
            delay(&with_delay(&plan, 2_000).expect("a plan")),
            delay(&plan),
            "the declared one is the same expression"
        );
    }

    #[test]
    fn delays_are_round() {
        assert_eq!(
            [0, 1, 1_000, 1_001, 10_800_000, 10_800_001].map(round_up),
            [0, 1_000, 1_000, 2_000, 10_800_000, 21_600_000]
        );
        assert_eq!(round_up(2_592_000_001), 31 * 86_400_000);
    }

    #[test]
    fn shares_of_the_distances() {
        let mut distances = Distances::default();
        for (rowtime, moves) in [(100, true), (90, true), (5_000, false), (110, true), (80, true)] {
            distances.add(0, rowtime, if moves { rowtime - 7 } else { BEFORE_ALL }, moves);
        }
        distances.add(1, 10, 3, true);
        assert_eq!((distances.records, distances.declared_ms), (6, Some(Some(7))));
        assert_eq!(distances.counts, BTreeMap::from([(0, 4), (10, 1), (30, 1)]));
        assert_eq!(distances.shares()[..3], [(0.5, 0), (0.9, 30), (0.99, 30)]);
        distances.add(1, 10, 4, true);
        assert_eq!(distances.declared_ms, Some(None));
    }
}
