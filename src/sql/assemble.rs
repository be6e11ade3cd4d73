//! From bound inserts to the job: shared sources with only the columns that are used.

use super::branch::Branch;
use super::digest;
use super::expr::Role;
use super::options::Connector;
use super::prune::{Needs, moved};
use super::table::{METADATA, Table, metadata_type};
use crate::engine::plan::{
    Emission, EventTime, FileIngest, JobPlan, MetadataColumn, NamedExpr, OutputPlan, PipelinePlan, SourcePlan, Step,
    TimeDomain,
};
use crate::error::Result;
use arrow::datatypes::{FieldRef, Schema};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One branch of an INSERT or SELECT with its place in the outputs.
#[derive(Debug)]
pub(super) struct Insert {
    /// Index of the output.
    pub output: usize,
    /// Steps; the last one leaves the sink's columns.
    pub branch: Branch,
    /// When windows are emitted beside their end.
    pub emission: Emission,
}

/// Puts the job together.
pub(super) fn job(
    tables: &[Table],
    outputs: Vec<OutputPlan>,
    inserts: &[Insert],
    mut notes: Vec<String>,
) -> Result<JobPlan> {
    let needs: Vec<Needs> =
        inserts.iter().map(|insert| Needs::of(&insert.branch.steps, insert.branch.row.len())).collect();
    let mut order: Vec<usize> = Vec::new();
    let mut read: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (insert, needs) in inserts.iter().zip(&needs) {
        let table = insert.branch.table;
        if !order.contains(&table) {
            order.push(table);
        }
        read.entry(table).or_default().extend(needs.source());
    }
    let mut sources = Vec::new();
    let mut layouts = Vec::new();
    for index in &order {
        let columns = read.remove(index).unwrap_or_default();
        let (source, layout) = source(&tables[*index], columns)?;
        sources.push(source);
        layouts.push(layout);
    }
    let mut pipelines = Vec::new();
    for (insert, needs) in inserts.iter().zip(&needs) {
        let Some(source) = order.iter().position(|table| *table == insert.branch.table) else { continue };
        let stateful = insert.branch.steps.iter().filter(|step| step.is_stateful());
        if insert.emission.early_us.is_some() && stateful.count() > 1 {
            let table = &outputs[insert.output].table;
            notes.push(format!(
                "{table}: early results are for one window, those of windows over windows come at their end"
            ));
        }
        pipelines.push(pipeline(insert, needs, source, &sources[source], &layouts[source])?);
    }
    let digest = digest::of(&sources, &outputs, &pipelines)?;
    Ok(JobPlan { sources, outputs, pipelines, digest, notes, checkpoint_interval_us: None })
}

fn pipeline(
    insert: &Insert,
    needs: &Needs,
    source: usize,
    plan: &SourcePlan,
    layout: &BTreeMap<usize, usize>,
) -> Result<PipelinePlan> {
    let branch = &insert.branch;
    let row: Vec<FieldRef> = plan.schema.fields().iter().cloned().collect();
    let (steps, places) = needs.apply(&branch.steps, layout.clone(), row)?;
    let rowtime = match branch.is_aggregated() {
        true => None,
        false => branch
            .columns
            .iter()
            .find(|column| column.role == Role::Rowtime)
            .and_then(|c| places.get(&c.slot.index()).copied()),
    };
    let time = branch.windows.as_ref().map_or(TimeDomain::Event, |windows| windows.domain);
    let emission = emission(insert, &steps, time);
    Ok(PipelinePlan { source, output: insert.output, steps, rowtime, time, emission })
}

/// What of the settings concerns these steps: without a window nothing, by append time nothing is late, and in a nest only the
/// lateness of the innermost windows counts.
fn emission(insert: &Insert, steps: &[Step], time: TimeDomain) -> Emission {
    let stateful: Vec<&Step> = steps.iter().filter(|step| step.is_stateful()).collect();
    Emission {
        lateness_ms: if stateful.is_empty() || time == TimeDomain::Append { 0 } else { insert.emission.lateness_ms },
        early_us: insert.emission.early_us.filter(|_| matches!(stateful[..], [Step::Aggregate(_)])),
    }
}

/// The source with the table's columns `read`, and where each of them is in its row.
fn source(table: &Table, mut read: BTreeSet<usize>) -> Result<(SourcePlan, BTreeMap<usize, usize>)> {
    // The append time stands behind the table's columns in the row that queries see.
    let append_time = table.columns.len();
    if let Some((rowtime, watermark)) = &table.watermark {
        read.insert(*rowtime);
        read.extend(super::expr::columns_of(&watermark.expr));
    }
    if read.is_empty() {
        // A row needs a column; this one costs nothing.
        read.insert(append_time);
    }
    let layout: BTreeMap<usize, usize> = read.iter().enumerate().map(|(place, column)| (*column, place)).collect();
    let physical = table.declared.fields().len();
    let append_place = METADATA.iter().position(|(column, ..)| *column == MetadataColumn::AppendTime).unwrap_or(0);
    let mut raw: Vec<(crate::engine::plan::Expr, FieldRef)> = Vec::new();
    for column in &read {
        raw.push(match table.columns.get(*column) {
            Some(column) => (Arc::clone(&column.value.expr), column.value.field(&column.name)),
            None => {
                let (data_type, nullable) = metadata_type(MetadataColumn::AppendTime);
                let typed = super::expr::Typed::column("append_time", physical + append_place, data_type, nullable);
                (Arc::clone(&typed.expr), typed.field("append_time"))
            }
        });
    }
    let raw_columns: BTreeSet<usize> = raw.iter().flat_map(|(expr, _)| super::expr::columns_of(expr)).collect();
    let raw_layout: BTreeMap<usize, usize> =
        raw_columns.iter().enumerate().map(|(place, column)| (*column, place)).collect();
    let used: Vec<usize> = raw_columns.iter().copied().filter(|column| *column < physical).collect();
    let metadata: Vec<MetadataColumn> =
        raw_columns.iter().filter_map(|column| METADATA.get(column.checked_sub(physical)?)).map(|m| m.0).collect();
    let mut columns = Vec::new();
    for (expr, field) in raw {
        columns.push(NamedExpr { expr: moved(&expr, &raw_layout)?, field });
    }
    let schema = Arc::new(Schema::new(columns.iter().map(|column| Arc::clone(&column.field)).collect::<Vec<_>>()));
    let options = &table.options;
    let event_time = match &table.watermark {
        None => None,
        Some((rowtime, watermark)) => Some(EventTime {
            rowtime: layout.get(rowtime).copied().unwrap_or(0),
            watermark: moved(&watermark.expr, &layout)?,
            idle_timeout_us: options.idle_timeout_us,
            quiet_close: options.quiet_close,
            max_future_us: options.max_future_us,
        }),
    };
    let ingest = match &options.connector {
        Connector::Filesystem(path) => Some(FileIngest { path: path.clone(), framing: options.framing }),
        _ => None,
    };
    let plan = SourcePlan {
        table: table.name.clone(),
        topic: options.topic.clone(),
        format: options.format.clone(),
        declared: Arc::clone(&table.declared),
        used,
        columns,
        schema,
        metadata,
        event_time,
        ignore_parse_errors: options.ignore_parse_errors,
        startup: options.startup,
        ingest,
    };
    Ok((plan, layout))
}
