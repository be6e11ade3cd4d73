//! One pipeline: steps on source rows, windows, steps on their results, more windows, the sink.
//!
//! What the windows of one stage emit goes to the next one with what caused it. A stage closes its windows after it has taken all rows that the
//! stage before emitted for the same reason. A nest with allowed lateness runs by a watermark that is behind by that much, so that
//! its inner windows emit once; a single aggregation emits again instead.

use super::Codecs;
use super::counters::Counters;
use super::operators::assign::{beyond_time, rowtime_column};
use super::operators::{Course, Fired, Rows, WindowOperator, WindowRows, no_section};
use super::output::{Cause, Outputs};
use super::plan::{Emission, JobPlan, PipelinePlan, Step, TimeDomain};
use super::segment::Segment;
use super::sink::Sink;
use super::stage::{Origins, Prepared, Stage, in_order, prepare, run};
use super::trace::{Asked, Handed, Lineage, Trace, Tracing};
use crate::error::Result;
use crate::state::saving::Relay;
use crate::state::section::{Section, column};
use crate::types::{AppendTime, US_PER_MS};
use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::ScalarBuffer;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of closed windows that are put into one batch, at least.
const CLOSED_ROWS: usize = 32 * 1024;

/// Name of the section of a pipeline's own clock.
const CLOCK: &str = "clock";

/// A pipeline and its state.
pub(super) struct Pipeline {
    plan: PipelinePlan,
    first: Vec<Prepared>,
    stages: Vec<Stage>,
    /// How far the pipeline's watermark is behind its source's.
    behind_ms: i64,
    /// Distance of the ticks that show what has changed.
    tick_us: Option<i64>,
    /// The next tick, if it has something to show.
    tick_at: Option<AppendTime>,
    /// Stages whose input has ended.
    ended: usize,
    sink: Sink,
    trace: Option<Box<Trace>>,
}

/// Where a pipeline's records and counts go.
pub(super) struct Emit<'a> {
    pub outputs: &'a mut Outputs,
    pub counters: &'a mut Counters,
    /// Windows that start before this time in ms, and rows without a window before it, are worked out and not written.
    pub publish_from_ms: i64,
}

/// What brought a watermark to a goal, and the watermark before it.
pub(super) type Reached<'a> = &'a (dyn Fn(i64) -> (Cause, i64) + Sync);

impl Pipeline {
    /// The pipeline with this index; traced if it makes an output that is asked for.
    pub fn new(plan: &JobPlan, index: usize, codecs: Codecs, asked: Option<&Asked>) -> Result<Pipeline> {
        let pipeline = &plan.pipelines[index];
        let begin = pipeline.steps.iter().position(Step::is_stateful).unwrap_or(pipeline.steps.len());
        let (first, rest) = pipeline.steps.split_at(begin);
        let single = rest.iter().filter(|step| step.is_stateful()).count() == 1 && pipeline.aggregations().count() == 1;
        let emission = if single { pipeline.emission } else { Emission::default() };
        let stages = rest.chunk_by(|_, next| !next.is_stateful());
        let asked = asked.filter(|asked| asked.outputs.contains(&pipeline.output));
        let kind = pipeline.aggregations().next().filter(|_| single).map(|window| window.kind);
        let span = |asked: &Asked| if single { Trace::span(asked, kind) } else { i64::MIN..i64::MAX };
        let stages = stages.map(|part| Stage::new(&part[0], &part[1..], pipeline.time, emission, asked.map(span)));
        let stages: Vec<Stage> = stages.collect::<Result<_>>()?;
        let behind_ms = if single || stages.is_empty() { 0 } else { pipeline.emission.lateness_ms.max(0) };
        let asked = asked.filter(|_| !stages.is_empty());
        let trace = asked.map(|asked| Trace::new(asked, index, &stages, behind_ms).map(Box::new)).transpose()?;
        Ok(Pipeline {
            trace,
            first: prepare(first)?,
            behind_ms,
            tick_us: emission.early_us.filter(|us| *us > 0),
            tick_at: None,
            ended: 0,
            stages,
            sink: Sink::new(plan, index, codecs)?,
            plan: pipeline.clone(),
        })
    }

    /// Takes the rows of a segment, and closes the windows that their watermark closes.
    pub fn take(&mut self, segment: &Segment<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let mut rows = segment.to_rows();
        run(&self.first, &mut rows)?;
        if self.stages.is_empty() {
            self.pass(segment, &rows, emit)?;
        } else {
            self.windows(segment, &mut rows, emit)?;
        }
        emit.counters.null_rowtime += rows.null_rowtime;
        // A row with several windows can fail in each of them, but is rejected once.
        rows.rejected.sort_by_key(|(row, _)| *row);
        rows.rejected.dedup_by_key(|(row, _)| *row);
        for (row, why) in &rows.rejected {
            self.sink.reject(segment, *row, why, emit);
        }
        Ok(())
    }

    /// Rows that go to the output as they are.
    fn pass(&self, segment: &Segment<'_>, rows: &Rows, emit: &mut Emit<'_>) -> Result<()> {
        let times = self.plan.rowtime.map(|column| rowtime_column(&rows.batch, column)).transpose()?;
        let timestamp = |row: usize| match &times {
            Some(times) => times.is_valid(row).then(|| times.value(row)),
            None => segment.record_timestamp(rows.origin[row]),
        };
        let mut writer = self.sink.rows(&rows.batch)?;
        for (row, origin) in rows.origin.iter().enumerate() {
            let timestamp_ms = timestamp(row);
            if timestamp_ms.is_none_or(|ms| ms >= emit.publish_from_ms) {
                writer.write(row, segment.cause(*origin), timestamp_ms, emit);
            }
        }
        Ok(())
    }

    fn windows(&mut self, segment: &Segment<'_>, rows: &mut Rows, emit: &mut Emit<'_>) -> Result<()> {
        let behind = self.behind_ms;
        let by_watermark = |goal: i64| {
            let (cause, before) = segment.reached(goal.saturating_add(behind));
            (cause, before.saturating_sub(behind))
        };
        let appended = |row: usize| segment.append_us(row);
        match self.plan.time {
            TimeDomain::Event if behind == 0 => {
                self.taken(segment, segment.before, segment.after, &by_watermark, rows, emit)
            }
            TimeDomain::Event => {
                let before = segment.before.iter().map(|w| w.saturating_sub(behind)).collect();
                self.taken(segment, &before, segment.after.saturating_sub(behind), &by_watermark, rows, emit)
            }
            TimeDomain::Append => {
                let before: ScalarBuffer<i64> =
                    (0..segment.before.len()).map(|row| appended_watermark(appended(row))).collect();
                let after = before.last().copied().unwrap_or(i64::MIN);
                self.taken(segment, &before, after, &reached_by_append_time, rows, emit)
            }
        }
    }

    fn taken(
        &mut self,
        segment: &Segment<'_>,
        before: &ScalarBuffer<i64>,
        after: i64,
        reached: Reached<'_>,
        rows: &mut Rows,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let mut fired = Fired::default();
        let stage = &mut self.stages[0];
        let positions = |rows: &[u32]| segment.positions(rows);
        let input = stage.input(rows, &Origins { before, positions: Some(&positions) })?;
        let picked: Vec<u32> = (0u32..).take(rows.origin.len()).collect();
        let course = Course { of_row: &|row| segment.cause(rows.origin[row as usize]), reached };
        stage.operator.take(&input, &picked, &course, &mut fired)?;
        let (late, partly_late) = (std::mem::take(&mut fired.late), std::mem::take(&mut fired.partly_late));
        if let Some(trace) = &mut self.trace {
            trace.late(stage, (segment, rows, &input), &late)?;
        }
        self.late((segment, rows, &input), late, &partly_late, emit);
        for row in std::mem::take(&mut fired.beyond_time) {
            let row = row as usize;
            rows.rejected.push((rows.origin[row], beyond_time(input.rowtimes[row])));
        }
        let has_changed = self.tick_us.is_some() && self.stages[0].operator.has_changed();
        if let Some(every) = self.tick_us.filter(|_| has_changed) {
            self.tick_at.get_or_insert(next_tick(segment.append_us(0), every));
        }
        self.hand_on(0, fired, reached, emit)?;
        self.close(after, reached, emit)
    }

    /// Writes the records that came too late for windows, with those that they missed: `late` rows all of theirs, `partly_late` ones some.
    fn late(
        &self,
        (segment, rows, input): (&Segment<'_>, &Rows, &WindowRows),
        mut late: Vec<u32>,
        partly_late: &[u32],
        emit: &mut Emit<'_>,
    ) {
        let stage = &self.stages[0];
        late.extend(partly_late);
        late.sort_unstable();
        // A record may stand in several rows, one for each of its windows.
        for group in late.chunk_by(|a, b| rows.origin[*a as usize] == rows.origin[*b as usize]) {
            let mut is_partly = group.len() < rows.of_origin(rows.origin[group[0] as usize]);
            let mut missed = Vec::new();
            for row in group {
                let mut windows = stage.operator.windows_of(input, *row as usize);
                if partly_late.binary_search(row).is_ok() {
                    is_partly = true;
                    windows.retain(|window| stage.is_expired(window.end, input.before[*row as usize]));
                }
                missed.extend(windows);
            }
            if missed.iter().any(|window| stage.clock.moment(window.start) >= emit.publish_from_ms) {
                let (row, origin) = (group[0] as usize, rows.origin[group[0] as usize]);
                let watermark = input.before[row].saturating_add(self.behind_ms);
                self.sink.late((segment, origin), watermark, &missed, is_partly, emit);
                emit.counters.partly_late += u64::from(is_partly);
            }
        }
    }

    /// Emits all windows that close at `watermark`, stage by stage.
    fn close(&mut self, watermark: i64, reached: Reached<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let course = Course { of_row: &|_| Cause::END, reached };
        for stage in 0..self.stages.len() {
            let mut more = true;
            while more {
                let mut fired = Fired::default();
                while more && fired.len() < CLOSED_ROWS {
                    more = self.stages[stage].operator.close(watermark, &course, &mut fired)?;
                }
                self.hand_on(stage, fired, reached, emit)?;
            }
        }
        Ok(())
    }

    /// What a stage has emitted goes to the next one, or out.
    fn hand_on(&mut self, stage: usize, fired: Fired, reached: Reached<'_>, emit: &mut Emit<'_>) -> Result<()> {
        emit.counters.windows_closed += fired.closed;
        emit.counters.between_windows += fired.between;
        if fired.len() == 0 {
            return Ok(());
        }
        let (results, lineage) = self.stages[stage].results(&fired)?;
        let origin = (0u32..).take(fired.len()).collect();
        let mut rows = Rows { batch: results.clone(), origin, rejected: Vec::new(), null_rowtime: 0 };
        let inner = stage + 1 < self.stages.len();
        if let Some(order) = in_order(&fired).filter(|_| inner) {
            rows.keep(order)?;
        }
        self.stages[stage].pass_on(&mut rows)?;
        if inner {
            let mut next = Fired::default();
            let groups = self.traced_groups(stage, &results)?;
            let following = &mut self.stages[stage + 1];
            let first = following.arrived;
            let before = fired.before.clone().into();
            let input = following.input(&mut rows, &Origins { before: &before, positions: None })?;
            if let (Some(trace), Some(groups), Some(lineage)) = (&mut self.trace, &groups, &lineage) {
                trace.hand_on(&Handed { stage, fired: &fired, lineage, groups }, &rows, &input, first);
            }
            let picked: Vec<u32> = (0u32..).take(rows.origin.len()).collect();
            let course = Course { of_row: &|row| fired.causes[rows.origin[row as usize] as usize], reached };
            following.operator.take(&input, &picked, &course, &mut next)?;
            self.hand_on(stage + 1, next, reached, emit)?;
        } else {
            self.publish(&fired, (&results, lineage.as_ref()), &rows, emit)?;
        }
        for (origin, why) in rows.rejected {
            let origin = origin as usize;
            self.sink.reject_window(fired.causes[origin], fired.windows[origin], &why, emit);
        }
        Ok(())
    }

    /// Group keys of what a stage has emitted, if there is a trace.
    fn traced_groups(&self, stage: usize, results: &RecordBatch) -> Result<Option<RecordBatch>> {
        self.trace.as_ref().map(|_| self.stages[stage].groups_of_results(results)).transpose()
    }

    /// What the last stage has emitted, and the steps behind it have left, goes out.
    fn publish(
        &mut self,
        fired: &Fired,
        (results, lineage): (&RecordBatch, Option<&Lineage>),
        rows: &Rows,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let stage = self.stages.len() - 1;
        let clock = self.stages[stage].clock;
        let mut published = BTreeMap::new();
        let mut writer = self.sink.windows(&rows.batch, results)?;
        for (row, origin) in rows.origin.iter().enumerate() {
            let origin = *origin as usize;
            let window = fired.windows[origin];
            if clock.moment(window.start) >= emit.publish_from_ms {
                let by = (fired.causes[origin], fired.firings[origin]);
                writer.write_window((row, origin), by, clock.moment(window.end.saturating_sub(1)), emit);
                if self.trace.is_some() {
                    published.insert(origin, writer.written());
                }
            }
        }
        let groups = self.traced_groups(stage, results)?;
        if let (Some(trace), Some(groups), Some(lineage)) = (&mut self.trace, &groups, lineage) {
            trace.results(&Handed { stage, fired, lineage, groups }, &mut published);
        }
        Ok(())
    }

    /// What the trace has seen since the last call.
    pub fn take_trace(&mut self) -> Option<Tracing> {
        self.trace.as_mut().map(|trace| trace.take())
    }

    /// What the append clock brings at `due`, when the source's watermark goes to `watermark`.
    pub fn step(&mut self, due: AppendTime, watermark: i64, reached: Reached<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let behind = self.behind_ms;
        let watermark = match self.plan.time {
            TimeDomain::Event => {
                let watermark = watermark.saturating_sub(behind);
                let by_watermark = |goal: i64| {
                    let (cause, before) = reached(goal.saturating_add(behind));
                    (cause, before.saturating_sub(behind))
                };
                self.close(watermark, &by_watermark, emit)?;
                watermark
            }
            TimeDomain::Append => {
                let watermark = appended_watermark(due.0);
                self.close(watermark, &reached_by_append_time, emit)?;
                watermark
            }
        };
        for stage in 0..self.stages.len() {
            let mut fired = Fired::default();
            self.stages[stage].operator.time_out(due, watermark, &mut fired)?;
            self.hand_on(stage, fired, reached, emit)?;
        }
        if self.tick_at == Some(due) {
            self.tick_at = None;
            let mut fired = Fired::default();
            if let Some(stage) = self.stages.first_mut() {
                stage.operator.tick((Cause::clock(due), watermark), &mut fired)?;
            }
            self.hand_on(0, fired, reached, emit)?;
        }
        Ok(())
    }

    /// The source's watermark before which nothing closes; `None`: no window waits for it.
    pub fn next_goal(&self) -> Option<i64> {
        (self.plan.time == TimeDomain::Event).then(|| self.goal())?.map(|goal| goal.saturating_add(self.behind_ms))
    }

    fn goal(&self) -> Option<i64> {
        self.stages.iter().filter_map(|stage| stage.operator.next_goal()).min()
    }

    /// When something is due by the append clock alone.
    pub fn next_due(&self) -> Option<AppendTime> {
        let closing = match self.plan.time {
            TimeDomain::Event => None,
            TimeDomain::Append => self.goal().map(due_of_goal),
        };
        let timeouts = self.stages.iter().filter_map(|stage| stage.operator.next_due());
        timeouts.chain(closing).chain(self.tick_at).min()
    }

    /// Rows appended from here on must not be taken together with one appended at `append_us`.
    pub fn cut_after(&self, append_us: i64) -> i64 {
        self.tick_us.map_or(i64::MAX, |every| next_tick(append_us, every).0)
    }

    /// Its operators.
    pub fn operators_mut(&mut self) -> impl Iterator<Item = &mut dyn WindowOperator> {
        self.stages.iter_mut().map(|stage| &mut *stage.operator as &mut dyn WindowOperator)
    }

    /// Bytes of state held, roughly.
    pub fn byte_len(&self) -> usize {
        self.stages.iter().map(|stage| stage.operator.byte_len()).sum()
    }

    /// Its state.
    pub fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        let tick = TimestampMicrosecondArray::from(vec![self.tick_at.map(|at| at.0)]);
        let mut sections = vec![Section::table(CLOCK, vec![("next_tick", Arc::new(tick) as ArrayRef)])?];
        for (number, stage) in self.stages.iter_mut().enumerate() {
            let prefix = format!("step-{number}");
            sections.extend(stage.save(relay)?.into_iter().map(|section| section.below(&prefix)));
        }
        Ok(sections)
    }

    /// Takes some rows of one section of its state.
    pub fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        if name == CLOCK {
            let tick: &TimestampMicrosecondArray = column(rows, "next_tick")?;
            self.tick_at = tick.iter().flatten().next().map(AppendTime);
            return Ok(());
        }
        let step = name.strip_prefix("step-").and_then(|rest| rest.split_once('/'));
        let stage = step.and_then(|(number, rest)| Some((self.stages.get_mut(number.parse::<usize>().ok()?)?, rest)));
        let (stage, rest) = stage.ok_or_else(|| no_section(name))?;
        stage.load(rest, rows)
    }

    /// Ends the input, whose watermark has come to `watermark`, piece by piece; false when there was nothing left to end.
    pub fn finish(&mut self, watermark: i64, emit: &mut Emit<'_>) -> Result<bool> {
        let stage = self.ended;
        if stage == self.stages.len() {
            return Ok(false);
        }
        let before = watermark.saturating_sub(self.behind_ms);
        let (mut more, mut fired) = (true, Fired::default());
        while more && fired.len() < CLOSED_ROWS {
            more = self.stages[stage].operator.finish(before, &mut fired)?;
        }
        self.ended += usize::from(!more);
        self.hand_on(stage, fired, &move |_| (Cause::END, before), emit)?;
        Ok(true)
    }
}

/// By the append clock a window is closed when the clock has come to its end.
fn appended_watermark(append_us: i64) -> i64 {
    append_us.div_euclid(US_PER_MS).saturating_sub(1)
}

fn due_of_goal(goal: i64) -> AppendTime {
    AppendTime(goal.saturating_add(1).saturating_mul(US_PER_MS))
}

fn reached_by_append_time(goal: i64) -> (Cause, i64) {
    (Cause::clock(due_of_goal(goal)), goal.saturating_sub(1))
}

/// The first multiple of `every` after a time.
fn next_tick(append_us: i64, every: i64) -> AppendTime {
    AppendTime(append_us.saturating_sub(append_us.rem_euclid(every)).saturating_add(every))
}
