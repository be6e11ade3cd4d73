//! The digest of a plan: equal for files that differ in white space, comments or order of unused statements only.

use crate::codec::xxh64;
use crate::engine::plan::{
    AggregateCall, Emission, Expr, NamedExpr, Order, OutputPlan, PipelinePlan, RankPlan, SourcePlan, Step, TimeDomain,
    WindowPlan, Zone,
};
use crate::error::{Error, Result};
use arrow::datatypes::{Schema, SchemaRef};
use std::fmt::Write;

/// XXH64 of the canonical description.
pub(super) fn of(sources: &[SourcePlan], outputs: &[OutputPlan], pipelines: &[PipelinePlan]) -> Result<u64> {
    let mut text = String::from("plan 1\n");
    for source in sources {
        describe_source(&mut text, source)?;
    }
    for output in outputs {
        let OutputPlan { table, topic, format, schema, primary_key, partitions, is_select, sink: _ } = output;
        line(&mut text, format_args!("output {table:?} {is_select} {topic:?} {format:?} {primary_key:?} {partitions}"));
        describe_schema(&mut text, schema);
    }
    for pipeline in pipelines {
        describe_pipeline(&mut text, pipeline, &sources[pipeline.source].schema)?;
    }
    Ok(xxh64(text.as_bytes(), 0))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{arguments}");
    debug_assert!(written.is_ok(), "writing to a String");
}

fn describe_source(text: &mut String, source: &SourcePlan) -> Result<()> {
    let SourcePlan { table, topic, format, declared, used, columns, schema, metadata, event_time, .. } = source;
    line(text, format_args!("source {table:?} {topic:?} {format:?} {used:?} {metadata:?}"));
    line(text, format_args!("start {:?} ignore {}", source.startup, source.ignore_parse_errors));
    describe_schema(text, declared);
    let mut fields: Vec<_> = used.iter().map(|index| declared.field(*index).clone()).collect();
    for column in metadata {
        let (data_type, nullable) = super::table::metadata_type(*column);
        fields.push(arrow::datatypes::Field::new(format!("{column:?}"), data_type, nullable));
    }
    let raw = Schema::new(fields);
    for column in columns {
        describe_column(text, column, &raw)?;
    }
    if let Some(time) = event_time {
        let limits = (time.rowtime, time.idle_timeout_us, time.quiet_close, time.max_future_us);
        line(text, format_args!("time {limits:?}"));
        describe_expr(text, &time.watermark, schema)?;
    }
    Ok(())
}

fn describe_schema(text: &mut String, schema: &Schema) {
    for field in schema.fields() {
        line(text, format_args!("field {:?} {:?} {}", field.name(), field.data_type(), field.is_nullable()));
    }
}

fn describe_column(text: &mut String, column: &NamedExpr, schema: &Schema) -> Result<()> {
    line(text, format_args!("column {:?} {:?}", column.field.data_type(), column.field.is_nullable()));
    describe_expr(text, &column.expr, schema)
}

/// A node a line, parents first. Names of columns are left out: their places say which they are.
fn describe_expr(text: &mut String, expr: &Expr, schema: &Schema) -> Result<()> {
    use datafusion_physical_expr::ScalarFunctionExpr;
    use datafusion_physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
    let data_type =
        expr.data_type(schema).map_err(|error| Error::internal(format!("an expression has no type: {error}")))?;
    let children = expr.children();
    let node = if let Some(column) = expr.downcast_ref::<Column>() {
        format!("#{}", column.index())
    } else if let Some(literal) = expr.downcast_ref::<Literal>() {
        format!("{:?}", literal.value())
    } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        format!("{}", binary.op())
    } else if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        format!("{:?}", function.name())
    } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
        format!("in {}", list.negated())
    } else {
        // The other nodes are told apart by their kind and the form around their children.
        shape(expr)
    };
    line(text, format_args!("{node} {data_type:?} {}", children.len()));
    for child in children {
        describe_expr(text, child, schema)?;
    }
    Ok(())
}

/// A node's kind: the first word of its debug form, and whether a CASE has an ELSE.
fn shape(expr: &Expr) -> String {
    let debug = format!("{expr:?}");
    let kind: String = debug.chars().take_while(|c| c.is_alphanumeric()).collect();
    let otherwise = expr
        .downcast_ref::<datafusion_physical_expr::expressions::CaseExpr>()
        .is_some_and(|case| case.else_expr().is_some());
    format!("{kind} {otherwise}")
}

fn describe_pipeline(text: &mut String, pipeline: &PipelinePlan, source: &SchemaRef) -> Result<()> {
    let PipelinePlan { source: from, output, steps, rowtime, time, emission } = pipeline;
    line(text, format_args!("pipeline {from} {output} {rowtime:?}"));
    if (*time, *emission) != (TimeDomain::Event, Emission::default()) {
        line(text, format_args!("emit {time:?} {emission:?}"));
    }
    let mut row = source;
    for step in steps {
        describe_step(text, step, row)?;
        row = step.schema().unwrap_or(row);
    }
    Ok(())
}

/// A step over `row`.
fn describe_step(text: &mut String, step: &Step, row: &SchemaRef) -> Result<()> {
    match step {
        Step::Filter(condition) => {
            line(text, format_args!("filter"));
            describe_expr(text, condition, row)
        }
        Step::Project { columns, .. } => {
            line(text, format_args!("project {}", columns.len()));
            columns.iter().try_for_each(|column| describe_column(text, column, row))
        }
        Step::AssignWindows { kind, rowtime, zone, .. } => {
            line(text, format_args!("assign {kind:?} {rowtime}"));
            describe_zone(text, *zone);
            Ok(())
        }
        Step::Aggregate(window) => describe_window(text, window, row),
        Step::Rank(rank) => describe_rank(text, rank, row),
    }
}

fn describe_zone(text: &mut String, zone: Option<Zone>) {
    if let Some(zone) = zone {
        line(text, format_args!("zone {zone}"));
    }
}

fn describe_window(text: &mut String, window: &WindowPlan, row: &SchemaRef) -> Result<()> {
    line(text, format_args!("window {:?} {}", window.kind, window.rowtime));
    describe_zone(text, window.zone);
    for key in &window.keys {
        describe_column(text, key, row)?;
    }
    for call in &window.aggregates {
        let AggregateCall { function, argument, argument_type, distinct, filter, field } = call;
        let result = field.data_type();
        line(text, format_args!("call {function:?} {argument_type:?} {distinct} {result:?} {}", filter.is_some()));
        for expr in argument.iter().chain(filter) {
            describe_expr(text, expr, row)?;
        }
    }
    Ok(())
}

fn describe_rank(text: &mut String, rank: &RankPlan, row: &SchemaRef) -> Result<()> {
    let RankPlan { window_start, window_end, zone, partition, order, last_wins, from, limit, number, schema: _ } = rank;
    line(
        text,
        format_args!("rank {window_start} {window_end} {} {from} {limit} {number} {last_wins}", partition.len()),
    );
    describe_zone(text, *zone);
    for key in partition {
        describe_column(text, key, row)?;
    }
    for Order { expr, descending, nulls_first } in order {
        line(text, format_args!("order {descending} {nulls_first}"));
        describe_expr(text, expr, row)?;
    }
    Ok(())
}
