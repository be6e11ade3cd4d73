//! Whether the state of one job can be that of another: what shape states have, and the state of a job with other aggregates, names
//! or wider types.

use super::EngineState;
use super::image::no_output;
use super::operators::has_accumulators;
use super::plan::{JobPlan, PipelinePlan, RankPlan, Step, WindowPlan};
use super::stage::described;
use crate::error::{Error, Result};
use crate::state::accumulator::{AggregateSpec, LAYOUT, build};
use crate::state::section::Section;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The shape of a pipeline's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineShape {
    /// Topic that is read.
    pub source: String,
    /// Table that is written.
    pub output: String,
    /// By which clock windows close, and when they are emitted beside that.
    pub emission: String,
    /// The stateful steps.
    pub steps: Vec<StepShape>,
}

/// The shape of a stateful step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShape {
    /// Which windows, in which zone; or what is ranked.
    pub windows: String,
    /// Columns of the key, with their types.
    pub keys: Vec<(String, String)>,
    /// What is computed.
    pub aggregates: Vec<String>,
}

/// The shapes of a job's pipelines.
pub fn shapes(plan: &JobPlan) -> Vec<PipelineShape> {
    let of = |pipeline: &PipelinePlan| PipelineShape {
        source: plan.sources[pipeline.source].topic.clone(),
        output: plan.outputs[pipeline.output].table.clone(),
        emission: format!("{:?}, {:?}", pipeline.time, pipeline.emission),
        steps: pipeline.steps.iter().filter_map(shape).collect(),
    };
    plan.pipelines.iter().map(of).collect()
}

fn shape(step: &Step) -> Option<StepShape> {
    match step {
        Step::Aggregate(plan) => Some(StepShape {
            windows: format!("{:?} in {:?}", plan.kind, plan.zone),
            keys: plan.keys.iter().map(|key| named(&key.field)).collect(),
            aggregates: described(plan),
        }),
        Step::Rank(plan) => Some(StepShape { windows: ranked(plan), keys: Vec::new(), aggregates: Vec::new() }),
        _ => None,
    }
}

fn named(field: &Field) -> (String, String) {
    (field.name().clone(), field.data_type().to_string())
}

fn ranked(plan: &RankPlan) -> String {
    let row: Vec<_> =
        plan.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let order: Vec<_> =
        plan.order.iter().map(|key| format!("{} {} {}", key.expr, key.descending, key.nulls_first)).collect();
    let partition: Vec<_> = plan.partition.iter().map(|key| key.expr.to_string()).collect();
    let (order, partition, row) = (order.join(", "), partition.join(", "), row.join(", "));
    format!(
        "rows {} to {} by {order} of ({partition}), last wins: {}, of ({row})",
        plan.from, plan.limit, plan.last_wins
    )
}

/// The state of a job of these shapes as one of another plan, and what becomes of aggregates that only one of them has: those that are
/// new begin with the records that come, those that are gone are left out.
///
/// # Errors
/// All that does not fit, line by line.
pub fn adapted(
    state: &EngineState,
    from: &[PipelineShape],
    plan: &JobPlan,
) -> Result<(EngineState, Vec<String>), Vec<String>> {
    let to = shapes(plan);
    let mut misfits = misfits(from, &to);
    if !misfits.is_empty() {
        return Err(misfits);
    }
    let mut sections = Vec::new();
    for section in &state.sections {
        match window_of(&section.name, plan) {
            None => sections.push(section.clone()),
            Some((window, what)) => match Mapping::new(section, window) {
                Ok(mapping) => sections.push(mapping.applied(section)),
                Err(why) => misfits.push(format!("{what}: {why}")),
            },
        }
    }
    misfits.dedup();
    if !misfits.is_empty() {
        return Err(misfits);
    }
    no_output(&mut sections, plan.outputs.len()).map_err(|e| vec![e.to_string()])?;
    Ok((EngineState { sections }, changes(from, &to)))
}

/// Aggregates that only one of two jobs has.
fn changes(from: &[PipelineShape], to: &[PipelineShape]) -> Vec<String> {
    let mut found = Vec::new();
    for (from, to) in from.iter().zip(to) {
        for (before, now) in from.steps.iter().zip(&to.steps) {
            let only = |these: &StepShape, others: &StepShape| -> Vec<String> {
                these.aggregates.iter().filter(|one| !others.aggregates.contains(one)).cloned().collect()
            };
            let text = |what: &str, names: Vec<String>| {
                (!names.is_empty()).then(|| format!("{}: {} {what}", to.output, names.join(", ")))
            };
            found.extend(text("begins with the records behind the savepoint", only(now, before)));
            found.extend(text("is left out", only(before, now)));
        }
    }
    found
}

/// What of two jobs differs that states cannot bridge.
fn misfits(from: &[PipelineShape], to: &[PipelineShape]) -> Vec<String> {
    if from.len() != to.len() {
        return vec![format!("the state is that of {} pipelines, the job has {}", from.len(), to.len())];
    }
    let mut found = Vec::new();
    for (number, (from, to)) in (1..).zip(from.iter().zip(to)) {
        let output = &to.output;
        let mut differs = |what: &str, from: &str, to: &str| {
            if from != to {
                found.push(format!("pipeline {number}, into {output}: {what} {from}, not {to}"));
            }
        };
        differs("reads", &from.source, &to.source);
        differs("emits by", &from.emission, &to.emission);
        differs("stateful steps:", &from.steps.len().to_string(), &to.steps.len().to_string());
        for (from, to) in from.steps.iter().zip(&to.steps) {
            differs("windows:", &from.windows, &to.windows);
            let types = |step: &StepShape| {
                step.keys.iter().map(|(_, data_type)| data_type.clone()).collect::<Vec<_>>().join(", ")
            };
            differs("key types:", &types(from), &types(to));
        }
    }
    found
}

/// The aggregation that a table of keys belongs to, and how to call it; `None`: no such table.
fn window_of<'a>(section: &str, plan: &'a JobPlan) -> Option<(&'a WindowPlan, String)> {
    let (pipeline, rest) = section.strip_prefix("pipeline-")?.split_once('/')?;
    let (step, table) = rest.strip_prefix("step-")?.split_once('/')?;
    let (pipeline, step): (usize, usize) = (pipeline.parse().ok()?, step.parse().ok()?);
    if !has_accumulators(table) && table.split('/').next() != Some("emitted") {
        return None;
    }
    let plan_of = plan.pipelines.get(pipeline)?;
    match plan_of.steps.iter().filter(|step| step.is_stateful()).nth(step)? {
        Step::Aggregate(window) => {
            Some((window, format!("pipeline {}, into {}", pipeline + 1, plan.outputs[plan_of.output].table)))
        }
        _ => None,
    }
}

/// Where a column comes from.
enum Origin {
    /// A column of the section, in a type at least as wide.
    Column(usize),
    /// Of an aggregate that is new: its place in the plan, and that of the column among its own.
    New(usize, usize),
}

/// The columns of a table of keys in another job.
struct Mapping {
    schema: SchemaRef,
    origins: Vec<Origin>,
    specs: Vec<AggregateSpec>,
}

impl Mapping {
    fn new(section: &Section, window: &WindowPlan) -> Result<Mapping, String> {
        let found = section.schema.fields();
        let keys = window.keys.len();
        let own = found.iter().position(|field| field.metadata().contains_key(LAYOUT)).unwrap_or(found.len());
        let (mut fields, mut origins) = (Vec::new(), Vec::new());
        for (at, field) in found.iter().enumerate().take(own) {
            let key = window.keys.get(at).map(|key| key.field.name().clone());
            fields.push((**field).clone().with_name(key.unwrap_or_else(|| field.name().clone())));
            origins.push(Origin::Column(at));
        }
        if own < keys {
            return Err("its keys are missing".to_owned());
        }
        let specs: Vec<AggregateSpec> = window.aggregates.iter().map(|call| call.spec()).collect();
        let with_states = !section.name.split('/').any(|word| word == "emitted");
        for (number, (name, spec)) in described(window).iter().zip(&specs).enumerate().filter(|_| with_states) {
            let is_known = found.iter().any(|field| field.name().starts_with(&format!("{name}.")));
            let wanted = build(spec).map_err(|e| e.to_string())?.state_fields();
            for (place, field) in wanted.into_iter().enumerate() {
                let field_name = format!("{name}.{}", field.name());
                let field = field.with_name(field_name.clone());
                let at = found.iter().position(|other| *other.name() == field_name);
                origins.push(match at {
                    Some(at) if fits(&found[at], &field) => Origin::Column(at),
                    Some(at) => return Err(format!("{name} was {}, and is {}", layout(&found[at]), layout(&field))),
                    None if is_known => return Err(format!("{name} has no {}", field.name())),
                    None => Origin::New(number, place),
                });
                fields.push(field);
            }
        }
        Ok(Mapping { schema: Arc::new(Schema::new(fields)), origins, specs })
    }

    fn applied(self, section: &Section) -> Section {
        let (rows, mapping) = (section.clone(), self);
        let schema = Arc::clone(&mapping.schema);
        Section::lazy(section.name.clone(), schema, None, move |take| rows.each(&mut |rows| take(mapping.map(&rows)?)))
    }

    fn map(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let slots: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
        let empty = |number: usize| {
            let mut accumulator = build(&self.specs[number])?;
            accumulator.grow(slots.len());
            accumulator.save(&slots)
        };
        let columns = self.origins.iter().zip(self.schema.fields()).map(|(origin, field)| match origin {
            Origin::Column(at) => cast(rows.column(*at), field.data_type())
                .map_err(|e| Error::internal(format!("widening {}", field.name())).with_source(e)),
            Origin::New(number, place) => Ok(empty(*number)?.swap_remove(*place)),
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|e| Error::damage(format!("a saved table does not fit: {e}")).with_source(e))
    }
}

fn layout(field: &Field) -> String {
    let layout = field.metadata().get(LAYOUT).map_or("of no layout", String::as_str);
    format!("{} [{layout}]", field.data_type())
}

fn fits(found: &Field, wanted: &Field) -> bool {
    found.metadata().get(LAYOUT) == wanted.metadata().get(LAYOUT) && is_as_wide(found.data_type(), wanted.data_type())
}

/// Whether every value of a type is one of another.
fn is_as_wide(from: &DataType, to: &DataType) -> bool {
    use DataType::{Float32, Float64, Int8, Int16, Int32, Int64};
    let integers = [Int8, Int16, Int32, Int64];
    let width = |data_type: &DataType| integers.iter().position(|other| other == data_type);
    match (width(from), width(to)) {
        (Some(from), Some(to)) => from <= to,
        _ => from.equals_datatype(to) || (*from == Float32 && *to == Float64),
    }
}
