//! The state of an engine as tables, and an engine that goes on from it.
//!
//! | section | holds |
//! |---|---|
//! | `engine` | append clock and counters |
//! | `outputs` | records written, by output |
//! | `source-N` | watermarks of the source's partitions, and its own |
//! | `pipeline-N/clock` | when changed windows are shown next |
//! | `pipeline-N/step-M/..` | the M-th stateful step of the N-th pipeline |

use super::lane::Lane;
use super::{Counters, Engine, EngineOptions, plan::JobPlan};
use crate::error::{Error, Result};
use crate::state::saving::{Relay, Step};
use crate::state::section::{Section, column};
use crate::time::watermark::{Activity, BEFORE_ALL, Partition, SourceWatermark};
use crate::types::AppendTime;
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What an engine has to remember to go on, wherever and on however many threads: named tables.
#[derive(Debug, Clone)]
pub struct EngineState {
    /// Its parts, each name once.
    pub sections: Vec<Section>,
}

impl EngineState {
    /// Whether an engine of this plan, up to this state, cannot have given out anything of a window that starts at `from_ms` or later: see
    /// [`PipelinePlan::is_silent_from`](super::plan::PipelinePlan::is_silent_from). Rejected rows have no window.
    ///
    /// # Errors
    /// `Damage` when the state does not say where its watermarks are.
    pub fn is_silent_from(&self, plan: &JobPlan, from_ms: i64) -> Result<bool> {
        for pipeline in &plan.pipelines {
            let name = source_section(pipeline.source);
            let section = self.sections.iter().find(|section| section.name == name);
            let rows = section.ok_or_else(|| Error::damage(format!("saved state has no section {name}")))?.rows()?;
            let watermark = column::<Int64Array>(&rows, "watermark_ms")?.iter().next().flatten();
            if !pipeline.is_silent_from(from_ms, watermark) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const ENGINE: &str = "engine";
const OUTPUTS: &str = "outputs";

/// A time, or none.
fn optional(value: i64) -> Option<i64> {
    Some(value).filter(|value| *value != i64::MIN)
}

fn append_times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(optional).collect::<TimestampMicrosecondArray>())
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

/// The state of a source's watermark: one row for the source, and one for each partition.
pub(super) fn watermark(name: &str, source: &SourceWatermark) -> Result<Section> {
    let partitions = source.partitions();
    let activity = |partition: &Partition| match partition.activity {
        Activity::Unseen => "unseen",
        Activity::Active => "active",
        Activity::Idle => "idle",
    };
    let of = |of: &dyn Fn(&Partition) -> i64| partitions.iter().map(of).collect::<Vec<i64>>();
    let watermarks = [source.current()].into_iter().chain(of(&|partition| partition.watermark));
    let watermarks: Int64Array = watermarks.map(|watermark| Some(watermark).filter(|w| *w != BEFORE_ALL)).collect();
    let states: StringArray =
        std::iter::once(Some("source")).chain(partitions.iter().map(|p| Some(activity(p)))).collect();
    Section::table(
        name,
        vec![
            ("state", Arc::new(states)),
            ("watermark_ms", Arc::new(watermarks)),
            ("last_append", append_times([i64::MIN].into_iter().chain(of(&|partition| partition.last_append_us)))),
        ],
    )
}

/// The watermark that was saved, under the rules of `fresh`.
pub(super) fn restored_watermark(fresh: &SourceWatermark, rows: &RecordBatch) -> Result<SourceWatermark> {
    let states: &StringArray = column(rows, "state")?;
    let watermarks: &Int64Array = column(rows, "watermark_ms")?;
    let appended: &TimestampMicrosecondArray = column(rows, "last_append")?;
    let watermark = |row: usize| if watermarks.is_null(row) { BEFORE_ALL } else { watermarks.value(row) };
    if rows.num_rows() == 0 {
        return Err(Error::damage("saved state has no watermark"));
    }
    let mut partitions = Vec::new();
    for row in 1..rows.num_rows() {
        let activity = match states.is_valid(row).then(|| states.value(row)) {
            Some("unseen") => Activity::Unseen,
            Some("active") => Activity::Active,
            Some("idle") => Activity::Idle,
            other => return Err(Error::damage(format!("saved state has a partition that is {other:?}"))),
        };
        let last_append_us = if appended.is_null(row) { i64::MIN } else { appended.value(row) };
        partitions.push(Partition { activity, watermark: watermark(row), last_append_us });
    }
    Ok(fresh.restored(watermark(0), partitions))
}

impl Engine {
    /// The state as it is now, to go on from later. The rows of what is large come through the relay while the engine goes on, before they
    /// change or by [`save_next`](Self::save_next): nothing is copied here. All output must have been [drained](Self::drain), and the
    /// input must not have ended. What was being saved before will not be whole.
    pub fn save(&mut self) -> Result<(EngineState, Arc<Relay>)> {
        self.check_open()?;
        let (pushed, drained) = self.outputs.pushed();
        if !drained {
            return Err(Error::internal("the state of an engine with output that was not drained"));
        }
        let counts = |stream: usize| numbers(pushed.iter().map(|counts| counts[stream]));
        let mut columns = vec![("clock", append_times([self.clock.0].into_iter()))];
        columns.extend(self.counters.named().map(|(name, count)| (name, numbers([count].into_iter()))));
        let outputs = vec![("main", counts(0)), ("late", counts(1)), ("rejected", counts(2))];
        let mut sections = vec![Section::table(ENGINE, columns)?, Section::table(OUTPUTS, outputs)?];
        let relay = Arc::new(Relay::default());
        for source in 0..self.lanes.len() {
            let indexes: Vec<usize> = self.pipelines_of(source).collect();
            let lane = &mut self.lanes[source];
            sections.push(lane.save(&source_section(source))?);
            for (pipeline, index) in lane.pipelines_mut().iter_mut().zip(indexes) {
                let prefix = format!("pipeline-{index}");
                sections.extend(pipeline.save(&relay)?.into_iter().map(|section| section.below(&prefix)));
            }
        }
        Ok((EngineState { sections }, relay))
    }

    /// Gives the next rows of a state that is being saved, if fewer than `ahead` pieces wait to be written.
    pub fn save_next(&mut self, ahead: usize) -> Step {
        let operators = self.lanes.iter_mut().flat_map(Lane::operators_mut);
        let mut steps = operators.map(|operator| operator.save_next(ahead));
        steps.find(|step| *step != Step::Over).unwrap_or(Step::Over)
    }

    /// An engine that goes on from a state of the same plan: what it gives out is what the one that was saved gives out, byte by byte.
    ///
    /// # Errors
    /// `Conflict` when the state is that of another plan, `Damage` when it is none.
    pub fn restore(
        plan: Arc<JobPlan>,
        partitions_of_source: Vec<u32>,
        options: EngineOptions,
        state: &EngineState,
    ) -> Result<Engine> {
        Engine::new(plan, partitions_of_source, options)?.loaded(state)
    }

    pub(super) fn loaded(mut self, state: &EngineState) -> Result<Engine> {
        let mut missing: BTreeSet<String> = [ENGINE.to_owned(), OUTPUTS.to_owned()].into();
        missing.extend((0..self.lanes.len()).map(source_section));
        missing.extend((0..self.plan.pipelines.len()).map(|index| format!("pipeline-{index}/clock")));
        for section in &state.sections {
            missing.remove(&section.name);
            section.each(&mut |rows| {
                self.load(&section.name, &rows).map_err(|e| e.context(format!("section {}", section.name)))?;
                self.keep_to_budget()
            })?;
        }
        match missing.first() {
            Some(name) => Err(Error::damage(format!("saved state has no section {name}"))),
            None => Ok(self),
        }
    }

    fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        let unknown = || super::operators::no_section(name);
        if name == ENGINE {
            let clock: &TimestampMicrosecondArray = column(rows, "clock")?;
            self.clock = AppendTime(clock.iter().flatten().next().unwrap_or(i64::MIN));
            self.counters = Counters::restored(&|name| {
                let counts: &UInt64Array = column(rows, name)?;
                counts.iter().flatten().next().ok_or_else(|| Error::damage(format!("saved state has no {name}")))
            })?;
            Ok(())
        } else if name == OUTPUTS {
            let [main, late, rejected] = ["main", "late", "rejected"].map(|name| column::<UInt64Array>(rows, name));
            let (main, late, rejected) = (main?, late?, rejected?);
            if rows.num_rows() != self.plan.outputs.len() {
                return Err(unknown());
            }
            let of = |row: usize| [main.value(row), late.value(row), rejected.value(row)];
            self.outputs.restore((0..rows.num_rows()).map(of).collect());
            Ok(())
        } else if let Some(source) = name.strip_prefix("source-") {
            let lane = source.parse().ok().and_then(|source: usize| self.lanes.get_mut(source));
            lane.ok_or_else(unknown)?.load(rows)
        } else {
            let pipeline = name.strip_prefix("pipeline-").and_then(|rest| rest.split_once('/'));
            let (index, rest) = pipeline.ok_or_else(unknown)?;
            let index: usize = index.parse().map_err(|_| unknown())?;
            let source = self.plan.pipelines.get(index).ok_or_else(unknown)?.source;
            let place = self.pipelines_of(source).position(|other| other == index).ok_or_else(unknown)?;
            self.lanes[source].pipelines_mut()[place].load(rest, rows)
        }
    }

    /// Places of a source's pipelines in the plan, in order.
    fn pipelines_of(&self, source: usize) -> impl Iterator<Item = usize> + '_ {
        let numbered = self.plan.pipelines.iter().enumerate();
        numbered.filter(move |(_, pipeline)| pipeline.source == source).map(|(index, _)| index)
    }
}

/// The sections of an engine that goes on as another job: it has written nothing.
pub(super) fn no_output(sections: &mut Vec<Section>, outputs: usize) -> Result<()> {
    let none = || numbers(std::iter::repeat_n(0, outputs));
    sections.retain(|section| section.name != OUTPUTS);
    sections.push(Section::table(OUTPUTS, vec![("main", none()), ("late", none()), ("rejected", none())])?);
    Ok(())
}

fn source_section(source: usize) -> String {
    format!("source-{source}")
}
