//! One source and everything that hangs on it: its clock, its watermark, its pipelines.

use super::operators::WindowOperator;
use super::output::{Cause, Outputs};
use super::pipeline::{Emit, Pipeline};
use super::plan::{JobPlan, SourcePlan};
use super::segment::Segment;
use super::sink::reject_by_source;
use super::source::{Reader, SourceRows};
use super::trace::{Asked, Tracing};
use super::{Codecs, Holding, image};
use crate::error::Result;
use crate::state::section::Section;
use crate::time::watermark::{BEFORE_ALL, SourceWatermark, WatermarkRules};
use crate::types::AppendTime;
use arrow::array::RecordBatch;
use std::sync::Arc;

/// The state of one source.
pub(super) struct Lane {
    source: usize,
    plan: SourcePlan,
    reader: Arc<Reader>,
    watermark: SourceWatermark,
    idle_timeout_us: i64,
    pipelines: Vec<Pipeline>,
    /// Outputs that the source feeds, each with the first pipeline that does.
    rejects_to: Vec<(usize, usize)>,
}

impl Lane {
    pub fn new(plan: &JobPlan, source: usize, partitions: u32, codecs: Codecs, asked: Option<&Asked>) -> Result<Lane> {
        let source_plan = &plan.sources[source];
        let rules = source_plan.event_time.as_ref().map_or(WatermarkRules::default(), |event_time| WatermarkRules {
            idle_timeout_us: event_time.idle_timeout_us.filter(|us| *us > 0),
            quiet_close: event_time.quiet_close,
        });
        let (mut pipelines, mut rejects_to) = (Vec::new(), Vec::<(usize, usize)>::new());
        for (index, pipeline) in plan.pipelines.iter().enumerate().filter(|(_, p)| p.source == source) {
            pipelines.push(Pipeline::new(plan, index, codecs, asked)?);
            if rejects_to.iter().all(|(output, _)| *output != pipeline.output) {
                rejects_to.push((pipeline.output, index));
            }
        }
        Ok(Lane {
            source,
            plan: source_plan.clone(),
            reader: Arc::new(Reader::new(source_plan, codecs)?),
            watermark: SourceWatermark::new(partitions, rules),
            idle_timeout_us: rules.idle_timeout_us.unwrap_or(i64::MAX),
            pipelines,
            rejects_to,
        })
    }

    /// What decodes chunks; needs no state, so it can run ahead of [`Lane::take`].
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    /// Takes rows in position order, running clock steps between them where they are due.
    pub fn take(&mut self, rows: &SourceRows, emit: &mut Emit<'_>) -> Result<()> {
        emit.counters.rows_in += rows.chunk.len() as u64;
        emit.counters.ignored_parse_errors += rows.ignored;
        emit.counters.null_rowtime += rows.null_rowtime;
        emit.counters.beyond_max_future += rows.beyond_max_future;
        self.reject(rows, emit.outputs);
        let append_of = |row: &u32| rows.chunk.append_us.at(*row as usize);
        let mut from = 0;
        while let Some(first) = rows.rows.get(from) {
            let append_us = append_of(first);
            self.step_to(AppendTime(append_us), emit)?;
            // No clock step falls due before the earliest one known now, or one timeout after the first of these rows.
            let due_us =
                self.next_due().map_or(i64::MAX, |due| due.0).min(append_us.saturating_add(self.idle_timeout_us));
            let due_us = self.pipelines.iter().map(|pipeline| pipeline.cut_after(append_us)).fold(due_us, i64::min);
            let count = match due_us {
                i64::MAX => rows.rows.len() - from,
                _ => rows.rows[from..].partition_point(|row| append_of(row) < due_us),
            };
            self.segment(rows, from, count, emit)?;
            from += count;
        }
        Ok(())
    }

    fn reject(&self, rows: &SourceRows, outputs: &mut Outputs) {
        for (row, why) in &rows.rejected {
            for to in &self.rejects_to {
                reject_by_source((self.source, &self.plan), &rows.chunk, (*row, why), *to, outputs);
            }
        }
    }

    fn segment(&mut self, rows: &SourceRows, from: usize, count: usize, emit: &mut Emit<'_>) -> Result<()> {
        let mut before = Vec::with_capacity(count);
        let (chunk, watermarks) = (&rows.chunk, &rows.watermarks[from..from + count]);
        if rows.rows.len() == chunk.len() {
            let (partitions, append_us) = (&chunk.partitions[from..from + count], |row| chunk.append_us.at(from + row));
            self.watermark.records(partitions, append_us, watermarks, &mut before);
        } else {
            for (row, watermark) in rows.rows[from..from + count].iter().zip(watermarks) {
                let row = *row as usize;
                before.push(self.watermark.record(chunk.partitions[row], chunk.append_us[row], *watermark));
            }
        }
        let (source, topic) = (self.source, &self.plan.topic);
        let before = before.into();
        let segment = Segment { rows, from, before: &before, after: self.watermark.current(), source, topic };
        self.pipelines.iter_mut().try_for_each(|pipeline| pipeline.take(&segment, emit))
    }

    /// When the next clock step is due if no record comes before: a partition becomes idle, or quiet close closes a window.
    pub fn next_due(&self) -> Option<AppendTime> {
        let goal = self.pipelines.iter().filter_map(Pipeline::next_goal).min();
        let quiet = goal.and_then(|goal| self.watermark.quiet_due(goal));
        let others = self.pipelines.iter().filter_map(Pipeline::next_due);
        self.watermark.idle_due().into_iter().chain(quiet).chain(others).min()
    }

    /// Runs the clock steps due at or before `clock`, in order of their due times.
    pub fn step_to(&mut self, clock: AppendTime, emit: &mut Emit<'_>) -> Result<()> {
        while let Some(due) = self.next_due().filter(|due| *due <= clock) {
            let quiet = self.watermark.clone();
            self.watermark.step(due);
            let watermark = self.watermark.current();
            // On a quiet log the watermark goes on by itself, up to right before the goal; a partition that falls idle makes it jump.
            let reached = |goal: i64| {
                let before = if quiet.quiet_due(goal) == Some(due) { goal - 1 } else { quiet.current() };
                (Cause::clock(due), before)
            };
            for pipeline in &mut self.pipelines {
                pipeline.step(due, watermark, &reached, emit)?;
            }
        }
        Ok(())
    }

    /// Closes all windows, piece by piece; false when none was left.
    pub fn finish(&mut self, emit: &mut Emit<'_>) -> Result<bool> {
        let watermark = self.watermark.current();
        for pipeline in &mut self.pipelines {
            if pipeline.finish(watermark, emit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The state of the source's watermark.
    pub fn save(&self, name: &str) -> Result<Section> {
        image::watermark(name, &self.watermark)
    }

    /// Goes on with a watermark as it was.
    pub fn load(&mut self, rows: &RecordBatch) -> Result<()> {
        self.watermark = image::restored_watermark(&self.watermark, rows)?;
        Ok(())
    }

    /// Its pipelines, in the order of the plan.
    pub fn pipelines_mut(&mut self) -> &mut [Pipeline] {
        &mut self.pipelines
    }

    /// The operators of all pipelines.
    pub fn operators_mut(&mut self) -> impl Iterator<Item = &mut dyn WindowOperator> {
        self.pipelines.iter_mut().flat_map(Pipeline::operators_mut)
    }

    /// What the traces have seen since the last call.
    pub fn take_traces(&mut self) -> impl Iterator<Item = Tracing> + '_ {
        self.pipelines.iter_mut().filter_map(Pipeline::take_trace)
    }

    /// Bytes of state held, roughly.
    pub fn byte_len(&self) -> usize {
        self.pipelines.iter().map(Pipeline::byte_len).sum()
    }

    /// The watermark in ms, if anything has moved it.
    pub fn watermark(&self) -> Option<i64> {
        Some(self.watermark.current()).filter(|watermark| *watermark != BEFORE_ALL)
    }

    /// Silent partitions that keep windows open which the others would close.
    pub fn holding(&self, silent_since: AppendTime) -> Vec<Holding> {
        let most = self.watermark.active_partitions().map(|p| p.watermark).max().unwrap_or(BEFORE_ALL);
        let goal = self.pipelines.iter().filter_map(Pipeline::next_goal).min();
        let Some(goal) = goal.filter(|goal| *goal <= most) else { return Vec::new() };
        let held = self.watermark.active_partitions().filter(|p| p.watermark < goal && p.last_append < silent_since);
        let named = held.map(|p| Holding {
            source: self.source,
            partition: p.partition,
            last_append: p.last_append,
            watermark_ms: Some(p.watermark).filter(|watermark| *watermark != BEFORE_ALL),
        });
        named.collect()
    }
}
