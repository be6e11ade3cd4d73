//! Jobs that are not written as text: their table and steps are put together by the rules of a file's, so that both give the
//! same plan.

use super::assemble::{self, Insert};
use super::branch::{self, Branch, WindowTime};
use super::expr::{Column, Role, Slot, Typed};
use super::interval::Interval;
use super::options::{Connector, TableOptions};
use super::table::{Table, TableColumn};
use super::{aggregate, arithmetic, text, types};
use crate::engine::plan::{
    AggregateCall, AggregateFunction, Emission, Expr, JobPlan, NamedExpr, OutputPlan, StartupMode, Step, TimeDomain,
    WindowKind, WindowPlan,
};
use crate::error::{Error, Result};
use crate::format::FormatSpec;
use crate::format::framing::Framing;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion_physical_expr::expressions::Column as PhysicalColumn;
use sqlparser::tokenizer::Span;
use std::sync::Arc;

/// A topic with columns. Its row is these columns and, behind them, the append time.
#[derive(Debug, Clone)]
pub(crate) struct DirectSource {
    /// Topic.
    pub topic: String,
    /// Format of values.
    pub format: FormatSpec,
    /// The columns.
    pub declared: SchemaRef,
    /// Event time: its column, and how far the watermark is behind it in ms.
    pub event_time: Option<(usize, i64)>,
    /// As `scan.watermark.idle-timeout`.
    pub idle_timeout_us: Option<i64>,
    /// As `quiet-close`.
    pub quiet_close: bool,
    /// As `max-future`.
    pub max_future_us: i64,
    /// As `scan.startup.mode`.
    pub startup: StartupMode,
}

/// One pipeline.
#[derive(Debug)]
pub(crate) struct DirectPipeline {
    /// Steps over the source's row; the last one leaves the output's columns.
    pub steps: Vec<Step>,
    /// Column of the last row that is the event time still.
    pub rowtime: Option<usize>,
    /// Which clock closes the windows.
    pub time: TimeDomain,
    /// When windows are emitted beside their end.
    pub emission: Emission,
}

/// The plan of a pipeline from a topic to an output.
pub(crate) fn plan(source: &DirectSource, pipeline: DirectPipeline, output: OutputPlan) -> Result<JobPlan> {
    let row: Vec<FieldRef> = output.schema.fields().to_vec();
    let rowtime = pipeline.rowtime.map(|index| column(&row[index], index, Role::Rowtime));
    let data_type =
        source.event_time.map_or_else(types::timestamp_ltz, |(c, _)| source.declared.field(c).data_type().clone());
    let is_windowed = pipeline.steps.iter().any(Step::is_stateful);
    let branch = Branch {
        table: 0,
        steps: pipeline.steps,
        row,
        columns: rowtime.into_iter().collect(),
        append_time: None,
        pending: None,
        windows: is_windowed.then_some(WindowTime { data_type, domain: pipeline.time, zone: None }),
        zone: None,
        ranking: None,
    };
    let insert = Insert { output: 0, branch, emission: pipeline.emission };
    assemble::job(&[table(source)?], vec![output], &[insert], Vec::new())
}

fn table(source: &DirectSource) -> Result<Table> {
    let typed = |index: usize| {
        let field = source.declared.field(index);
        Typed::column(field.name(), index, field.data_type().clone(), field.is_nullable())
    };
    let column = |index: usize| TableColumn {
        name: source.declared.field(index).name().clone(),
        span: Span::empty(),
        value: typed(index),
        proctime: false,
    };
    let watermark = source.event_time.map(|(index, bound_ms)| {
        let bound = Typed::literal(Interval::Millis(bound_ms).scalar());
        Ok::<_, Error>((index, arithmetic::minus(typed(index), bound).map_err(Error::input)?))
    });
    let options = TableOptions {
        connector: Connector::Topic,
        topic: source.topic.clone(),
        format: source.format.clone(),
        ignore_parse_errors: false,
        framing: Framing::Lines,
        startup: source.startup,
        idle_timeout_us: source.idle_timeout_us,
        quiet_close: source.quiet_close,
        max_future_us: source.max_future_us,
        partitions: 1,
        ignored: Vec::new(),
    };
    Ok(Table {
        name: source.topic.clone(),
        span: Span::empty(),
        declared: Arc::clone(&source.declared),
        columns: (0..source.declared.fields().len()).map(column).collect(),
        watermark: watermark.transpose()?,
        primary_key: Vec::new(),
        writable_metadata: None,
        options,
        replaced: false,
    })
}

fn column(field: &FieldRef, index: usize, role: Role) -> Column {
    Column {
        qualifier: None,
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
        slot: Slot::Row(index),
        role,
        span: Span::empty(),
    }
}

/// A column of the row as an expression.
pub(crate) fn column_expr(name: &str, index: usize) -> Expr {
    Arc::new(PhysicalColumn::new(name, index))
}

/// An aggregate with SQL's checks and result type; `name` is its result's. `Err` says what does not fit.
pub(crate) fn aggregate_call(
    function: AggregateFunction,
    argument: Option<(Expr, &FieldRef)>,
    distinct: bool,
    name: &str,
) -> Result<AggregateCall, String> {
    let argument = argument.map(|(expr, field)| Typed {
        expr,
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
    });
    aggregate::call(function, argument, distinct, name)
}

/// A grouped window aggregation over rows whose time has the type `time`.
pub(crate) fn window(
    kind: WindowKind,
    (rowtime, time): (usize, &DataType),
    keys: Vec<NamedExpr>,
    aggregates: Vec<AggregateCall>,
) -> WindowPlan {
    let mut fields: Vec<FieldRef> = keys.iter().map(|key| Arc::clone(&key.field)).collect();
    fields.extend(aggregates.iter().map(|call| Arc::clone(&call.field)));
    fields.extend(branch::window_fields(kind, time));
    WindowPlan { kind, rowtime, keys, aggregates, zone: None, schema: Arc::new(Schema::new(fields)) }
}

/// TIMESTAMP(3).
pub(crate) fn timestamp() -> DataType {
    types::timestamp()
}

/// TIMESTAMP_LTZ(3).
pub(crate) fn timestamp_ltz() -> DataType {
    types::timestamp_ltz()
}

/// SQL's name of a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    types::name(data_type)
}

/// The name that was probably meant.
pub(crate) fn nearest<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    text::nearest(wanted, known)
}
