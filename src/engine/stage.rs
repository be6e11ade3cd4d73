//! One stateful step of a pipeline with the stateless steps behind it: rows into what its operator wants, and what comes out into rows.

use super::eval;
use super::operators::assign::{assign, rowtime_column, window_columns};
use super::operators::filter_project::{filter, project};
use super::operators::window_count::CountWindows;
use super::operators::window_rank::{RANKED, RankWindows, Ranked, row_of};
use super::operators::window_session::SessionWindows;
use super::operators::window_slices::SliceWindows;
use super::operators::{Course, Fired, Rows, WindowOperator, WindowRows, WindowSpec, arrow_error, has_accumulators};
use super::output::Cause;
use super::plan::{AggregateCall, Emission, NamedExpr, RankPlan, Step, TimeDomain, WindowKind, WindowPlan};
use super::source::batch;
use super::trace::{self, Lineage};
use crate::error::{Error, Result};
use crate::state::accumulator::build;
use crate::state::keys::KeyCodec;
use crate::state::saving::Relay;
use crate::state::section::{Section, check_schema, column};
use crate::state::slice::Arguments;
use crate::time::watermark::BEFORE_ALL;
use crate::window::Window;
use crate::window::assign::Slicer;
use crate::window::clock::WindowClock;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{SortOptions, concat};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use std::ops::Range;
use std::sync::Arc;

/// A stateless step with what can be worked out once.
pub(super) enum Prepared {
    Plain(Step),
    Assign { slicer: Slicer, clock: WindowClock, step: Step },
}

/// A stateful step.
pub(super) struct Stage {
    pub operator: Box<dyn WindowOperator>,
    pub clock: WindowClock,
    input: Input,
    /// The row that comes out of the operator.
    schema: SchemaRef,
    after: Vec<Prepared>,
    /// Rows taken so far: the places in the order of those that are no records.
    pub arrived: u64,
    lateness_ms: i64,
    /// Traced: rows of these times are gathered.
    traced: Option<Range<i64>>,
}

/// Name of the section of a stage's own facts.
const STAGE: &str = "stage";

/// What an operator reads of a row.
enum Input {
    Aggregate {
        plan: WindowPlan,
        codec: KeyCodec,
        /// Some aggregate looks at positions.
        needs_positions: bool,
    },
    Rank {
        plan: RankPlan,
        codec: KeyCodec,
        /// ORDER BY as bytes.
        order: RowConverter,
    },
}

/// Positions of some origins.
pub(super) type PositionsOf<'a> = &'a dyn Fn(&[u32]) -> Vec<u64>;

/// Where the rows of a stage come from.
pub(super) struct Origins<'a> {
    /// By origin: the watermark before it.
    pub before: &'a ScalarBuffer<i64>,
    /// The position of an origin in the log; `None`: they are no records.
    pub positions: Option<PositionsOf<'a>>,
}

impl Origins<'_> {
    /// The places of rows in the order: positions, or numbers from `arrived` on of rows that are no records.
    fn places(&self, rows: &Rows, arrived: u64) -> Vec<u64> {
        match self.positions {
            Some(positions) => positions(&rows.origin),
            None => (arrived..).take(rows.origin.len()).collect(),
        }
    }

    /// The watermark before each row.
    fn of(&self, rows: &Rows) -> ScalarBuffer<i64> {
        // Without a way out of the loop, which then takes many rows at a time.
        let moved = rows.origin.iter().zip(0u32..).fold(0, |moved, (origin, row)| moved | (origin ^ row));
        match moved == 0 && rows.origin.len() == self.before.len() {
            true => self.before.clone(),
            false => rows.origin.iter().map(|row| self.before[*row as usize]).collect(),
        }
    }
}

impl Stage {
    /// The operator of `step`, with the steps behind it.
    pub fn new(
        step: &Step,
        after: &[Step],
        domain: TimeDomain,
        emission: Emission,
        traced: Option<Range<i64>>,
    ) -> Result<Stage> {
        let after = prepare(after)?;
        match step {
            Step::Aggregate(plan) => Stage::aggregate(plan, after, domain, emission, traced),
            Step::Rank(plan) => Stage::rank(plan, after, traced),
            _ => Err(Error::internal("a stateless step as a stage")),
        }
    }

    fn aggregate(
        plan: &WindowPlan,
        after: Vec<Prepared>,
        domain: TimeDomain,
        emission: Emission,
        traced: Option<Range<i64>>,
    ) -> Result<Stage> {
        let codec = KeyCodec::new(plan.keys.iter().map(|key| key.field.data_type().clone()).collect())?;
        let aggregates = plan.aggregates.iter().map(AggregateCall::spec);
        let (clock, lateness_ms) = (WindowClock { zone: plan.zone }, emission.lateness_ms.max(0));
        let names = described(plan).into_iter();
        let names = names.chain(traced.iter().flat_map(|_| trace::columns().map(|column| column.name().clone())));
        let spec = WindowSpec {
            codec: codec.clone(),
            key_fields: plan.keys.iter().map(|key| (*key.field).clone()).collect(),
            names: names.collect(),
            aggregates: aggregates.chain(traced.iter().flat_map(|_| trace::aggregates())).collect(),
            clock,
            lateness_ms,
            early: emission.early_us.is_some(),
        };
        // Said now, not with the first row.
        spec.aggregates.iter().try_for_each(|aggregate| build(aggregate).map(drop))?;
        let needs_positions = spec.aggregates.iter().any(|aggregate| aggregate.function.is_by_position());
        let operator: Box<dyn WindowOperator> = match plan.kind {
            WindowKind::Session { gap_ms } if gap_ms > 0 => Box::new(SessionWindows::new(gap_ms, spec)?),
            WindowKind::Session { .. } => return Err(Error::input("the gap of a session is positive")),
            WindowKind::Count { size: 0, .. } => {
                return Err(Error::input("a window by count takes at least one record"));
            }
            WindowKind::Count { timeout_ms: Some(..=0), .. } => return Err(Error::input("a timeout is positive")),
            WindowKind::Count { size, timeout_ms } => Box::new(CountWindows::new(size, timeout_ms, domain, spec)?),
            kind => Box::new(SliceWindows::new(slicer(kind)?, spec)?),
        };
        let input = Input::Aggregate { plan: plan.clone(), codec, needs_positions };
        let schema = Arc::clone(&plan.schema);
        Ok(Stage { operator, clock, input, schema, after, arrived: 0, lateness_ms, traced })
    }

    /// True if rows come out of it as they went in.
    pub fn is_rank(&self) -> bool {
        matches!(self.input, Input::Rank { .. })
    }

    fn rank(plan: &RankPlan, after: Vec<Prepared>, traced: Option<Range<i64>>) -> Result<Stage> {
        let codec = KeyCodec::new(plan.partition.iter().map(|key| key.field.data_type().clone()).collect())?;
        let row = row_of(plan);
        let order = plan.order.iter().map(|key| {
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            let data_type =
                key.expr.data_type(&row).map_err(|e| Error::internal(format!("an ORDER BY without a type: {e}")))?;
            Ok(SortField::new_with_options(data_type, options))
        });
        let order = RowConverter::new(order.collect::<Result<_>>()?)
            .map_err(|e| Error::input(format!("ROW_NUMBER cannot order by this: {e}")))?;
        let operator = Box::new(RankWindows::new(&with_trace(plan, traced.is_some()), &codec)?);
        let clock = WindowClock { zone: plan.zone };
        let schema = Arc::clone(&plan.schema);
        let input = Input::Rank { plan: plan.clone(), codec, order };
        Ok(Stage { operator, clock, input, schema, after, arrived: 0, lateness_ms: 0, traced })
    }

    /// Keys, arguments and times of rows. Rows that have none of them are rejected.
    pub fn input(&mut self, rows: &mut Rows, origins: &Origins<'_>) -> Result<WindowRows> {
        let Input::Aggregate { plan, codec, needs_positions } = &self.input else { return self.ranked(rows, origins) };
        reject_null_rowtimes(rows, plan.rowtime)?;
        let columns = rows.evaluate(&|batch| {
            let mut columns = eval::columns(&plan.keys, batch)?;
            for call in &plan.aggregates {
                if let Some(argument) = &call.argument {
                    columns.push(eval::column(&**argument, batch, &call.argument_type)?);
                }
                if let Some(filter) = &call.filter {
                    columns.push(eval::column(&**filter, batch, &DataType::Boolean)?);
                }
            }
            Ok(columns)
        })?;
        let keys = codec.encode(&columns[..plan.keys.len()]);
        let mut columns = columns.into_iter().skip(plan.keys.len());
        let (mut values, mut filters) = (Vec::new(), Vec::new());
        for call in &plan.aggregates {
            values.push(call.argument.as_ref().and_then(|_| columns.next()));
            filters.push(call.filter.as_ref().and_then(|_| columns.next()).map(|mask| true_rows(&mask)));
        }
        let positions = match *needs_positions || self.traced.is_some() {
            true => origins.places(rows, self.arrived),
            false => Vec::new(),
        };
        self.arrived += rows.origin.len() as u64;
        let windows = match plan.kind {
            WindowKind::Attached { start, end } => windows_of(&rows.batch, start, end)?,
            _ => Vec::new(),
        };
        let rowtimes = rowtime_column(&rows.batch, plan.rowtime)?.values().clone();
        let times = match self.clock.zone {
            None => rowtimes.clone(),
            Some(_) => rowtimes.iter().map(|time| self.clock.local(*time)).collect(),
        };
        let before = origins.of(rows);
        if let Some(span) = &self.traced {
            values.extend(trace::arguments(positions.clone(), &before).map(Some));
            let mask: Vec<bool> = times.iter().map(|time| span.contains(time)).collect();
            filters.extend([Some(mask.clone()), Some(mask)]);
        }
        let arguments = Arguments { values, filters, positions };
        Ok(WindowRows { rowtimes, times, before, windows, keys, arguments, ranked: None })
    }

    /// Its state.
    pub fn save(&mut self, relay: &Arc<Relay>) -> Result<Vec<Section>> {
        let arrived = Arc::new(UInt64Array::from(vec![self.arrived])) as ArrayRef;
        let mut sections = vec![Section::table(STAGE, vec![("arrived", arrived)])?];
        sections.extend(self.operator.save(relay)?);
        Ok(sections)
    }

    /// Takes some rows of one section of its state.
    pub fn load(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        match (name, &self.input) {
            (STAGE, _) => {
                let arrived: &UInt64Array = column(rows, "arrived")?;
                self.arrived = arrived.iter().flatten().fold(self.arrived, u64::max);
                Ok(())
            }
            (name, Input::Rank { .. }) if name.split('/').next() == Some(RANKED) => {
                let origin: Vec<u32> = (0u32..).take(rows.num_rows()).collect();
                let before = vec![BEFORE_ALL; origin.len()].into();
                let places = |rows: &[u32]| vec![trace::IN_STATE; rows.len()];
                let mut rows =
                    Rows { batch: rows.clone(), origin: origin.clone(), rejected: Vec::new(), null_rowtime: 0 };
                let input = self.ranked(&mut rows, &Origins { before: &before, positions: Some(&places) })?;
                let course = Course { of_row: &|_| Cause::END, reached: &|_| (Cause::END, BEFORE_ALL) };
                self.operator.take(&input, &origin, &course, &mut Fired::default())
            }
            _ if self.traced.is_some() && has_accumulators(name) => self.operator.load(name, &trace::marked(rows)?),
            _ => self.operator.load(name, rows),
        }
    }

    fn ranked(&mut self, rows: &mut Rows, origins: &Origins<'_>) -> Result<WindowRows> {
        let Input::Rank { plan, codec, order } = &self.input else {
            return Err(Error::internal("ranked rows of an aggregation"));
        };
        check_schema(&row_of(plan), rows.batch.schema_ref())?;
        let columns = rows.evaluate(&|batch| {
            let mut columns = eval::columns(&plan.partition, batch)?;
            for key in &plan.order {
                columns.push(key.expr.evaluate(batch)?.into_array(batch.num_rows())?);
            }
            Ok(columns)
        })?;
        let (partition, by) = columns.split_at(plan.partition.len());
        let windows = windows_of(&rows.batch, plan.window_start, plan.window_end)?;
        let order = order.convert_columns(by).map_err(|e| arrow_error("ORDER BY", e))?;
        let (before, mut columns) = (origins.of(rows), rows.batch.columns().to_vec());
        if self.traced.is_some() {
            columns.extend(trace::arguments(origins.places(rows, self.arrived), &before));
            self.arrived += rows.origin.len() as u64;
        }
        Ok(WindowRows {
            rowtimes: Vec::new().into(),
            times: Vec::new().into(),
            before,
            windows,
            keys: codec.encode(partition),
            arguments: Arguments { values: Vec::new(), filters: Vec::new(), positions: Vec::new() },
            ranked: Some(Ranked { order, columns }),
        })
    }

    /// What fired, as rows; traced, with the rows that made each.
    pub fn results(&self, fired: &Fired) -> Result<(RecordBatch, Option<Lineage>)> {
        let mut columns = joined(&fired.pieces)?;
        let lineage = match &self.traced {
            Some(_) => Some(self.take_lineage(&mut columns)?),
            None => None,
        };
        Ok((self.result_rows(fired, columns)?, lineage))
    }

    fn take_lineage(&self, columns: &mut Vec<ArrayRef>) -> Result<Lineage> {
        let number = usize::from(matches!(&self.input, Input::Rank { plan, .. } if plan.number));
        let from = columns.len().checked_sub(2 + number).ok_or_else(|| Error::internal("a trace without columns"))?;
        let traced: Vec<ArrayRef> = columns.drain(from..from + 2).collect();
        trace::lineage(&traced[0], &traced[1])
    }

    fn result_rows(&self, fired: &Fired, mut columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let Input::Aggregate { plan, .. } = &self.input else { return batch(&self.schema, columns, fired.len()) };
        let reasons = matches!(plan.kind, WindowKind::Count { .. });
        columns.extend(window_columns(&fired.windows, &self.schema, usize::from(reasons), self.clock)?);
        if reasons {
            let reason = fired.firings.iter().map(|firing| firing.reason.map_or("", |reason| reason.name()));
            columns.push(Arc::new(StringArray::from_iter_values(reason)) as ArrayRef);
        }
        batch(&self.schema, columns, fired.len())
    }

    fn group_keys(&self) -> &[NamedExpr] {
        match &self.input {
            Input::Aggregate { plan, .. } => &plan.keys,
            Input::Rank { plan, .. } => &plan.partition,
        }
    }

    /// The columns of its group key.
    pub fn group_schema(&self) -> SchemaRef {
        trace::group_schema(self.group_keys().iter().map(|key| &key.field))
    }

    /// Group keys of rows on their way in.
    pub fn groups_of_rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = eval::columns(self.group_keys(), rows);
        let columns = columns.map_err(|e| Error::internal(format!("group keys of a trace: {e}")))?;
        batch(&self.group_schema(), columns, rows.num_rows())
    }

    /// Group keys of results.
    pub fn groups_of_results(&self, results: &RecordBatch) -> Result<RecordBatch> {
        let Input::Aggregate { plan, .. } = &self.input else { return self.groups_of_rows(results) };
        batch(&self.group_schema(), results.columns()[..plan.keys.len()].to_vec(), results.num_rows())
    }

    /// How long windows with one start are, if that does not depend on data.
    pub fn length(&self) -> Option<i64> {
        if let Input::Aggregate { plan, .. } = &self.input { trace::length(plan.kind) } else { None }
    }

    /// Whether windows grow with their rows.
    pub fn is_by_session(&self) -> bool {
        matches!(&self.input, Input::Aggregate { plan, .. } if matches!(plan.kind, WindowKind::Session { .. }))
    }

    /// Whether a window that ends here takes no row any more at a watermark.
    pub fn is_expired(&self, end: i64, watermark: i64) -> bool {
        end <= self.clock.horizon(watermark.saturating_sub(self.lateness_ms))
    }

    /// The stateless steps behind the operator.
    pub fn pass_on(&self, rows: &mut Rows) -> Result<()> {
        run(&self.after, rows)
    }
}

/// The plan of a rank whose rows bring the columns of their trace along, behind their own.
fn with_trace(plan: &RankPlan, traced: bool) -> RankPlan {
    let mut plan = plan.clone();
    if traced {
        let mut fields: Vec<_> = plan.schema.fields().iter().cloned().collect();
        let width = fields.len() - usize::from(plan.number);
        fields.splice(width..width, trace::columns().map(Arc::new));
        plan.schema = Arc::new(Schema::new(fields));
    }
    plan
}

/// What tells the state of one aggregate from that of others: what it computes, and its number among equal ones.
pub(super) fn described(plan: &WindowPlan) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for call in &plan.aggregates {
        let name = call.described();
        let equal = names.iter().filter(|other| other.split('#').next() == Some(&name)).count();
        names.push(if equal == 0 { name } else { format!("{name}#{}", equal + 1) });
    }
    names
}

fn reject_null_rowtimes(rows: &mut Rows, rowtime: usize) -> Result<()> {
    let times = rowtime_column(&rows.batch, rowtime)?;
    let Some(nulls) = times.nulls().filter(|nulls| nulls.null_count() > 0) else { return Ok(()) };
    rows.null_rowtime += nulls.null_count() as u64;
    let (valid, null): (Vec<u32>, Vec<u32>) = (0u32..).take(nulls.len()).partition(|row| nulls.is_valid(*row as usize));
    let why = "the rowtime of the window is NULL";
    rows.rejected.extend(null.iter().map(|row| (rows.origin[*row as usize], why.to_owned())));
    rows.keep(valid)
}

/// The windows that rows bring along.
fn windows_of(batch: &RecordBatch, start: usize, end: usize) -> Result<Vec<Window>> {
    let (starts, ends) = (rowtime_column(batch, start)?, rowtime_column(batch, end)?);
    Ok(starts.values().iter().zip(ends.values()).map(|(start, end)| Window { start: *start, end: *end }).collect())
}

/// Stateless steps, ready to be run.
pub(super) fn prepare(steps: &[Step]) -> Result<Vec<Prepared>> {
    let prepared = steps.iter().map(|step| match step {
        Step::AssignWindows { kind, zone, .. } => {
            Ok(Prepared::Assign { slicer: slicer(*kind)?, clock: WindowClock { zone: *zone }, step: step.clone() })
        }
        _ => Ok(Prepared::Plain(step.clone())),
    });
    prepared.collect()
}

fn slicer(kind: WindowKind) -> Result<Slicer> {
    let slicer =
        Slicer::new(kind).ok_or_else(|| Error::internal("these windows depend on data: they cannot be assigned"))?;
    match slicer.is_valid() {
        true => Ok(slicer),
        false => Err(Error::input(format!(
            "{kind:?}: sizes are positive, and that of growing windows is a multiple of the step"
        ))),
    }
}

/// Runs stateless steps.
pub(super) fn run(steps: &[Prepared], rows: &mut Rows) -> Result<()> {
    for step in steps {
        match step {
            Prepared::Plain(Step::Filter(predicate)) => filter(rows, predicate)?,
            Prepared::Plain(Step::Project { columns, schema }) => project(rows, columns, schema)?,
            Prepared::Assign { slicer, clock, step: Step::AssignWindows { rowtime, schema, .. } } => {
                assign(rows, slicer, *clock, *rowtime, schema)?;
            }
            _ => return Err(Error::internal("a window step without its windows")),
        }
    }
    Ok(())
}

fn true_rows(mask: &ArrayRef) -> Vec<bool> {
    let mask = mask.as_boolean();
    (0..mask.len()).map(|row| mask.is_valid(row) && mask.value(row)).collect()
}

/// Column by column the pieces in order.
fn joined(pieces: &[Vec<ArrayRef>]) -> Result<Vec<ArrayRef>> {
    if let [one] = pieces {
        return Ok(one.clone());
    }
    let width = pieces.first().map_or(0, Vec::len);
    let columns = (0..width).map(|column| {
        let parts: Vec<&dyn Array> = pieces.iter().map(|piece| &*piece[column]).collect();
        concat(&parts).map_err(|e| arrow_error("joining closed windows", e))
    });
    columns.collect()
}

/// Brings what fired into the order of its causes; what one cause made keeps its order.
pub(super) fn in_order(fired: &Fired) -> Option<Vec<u32>> {
    if fired.causes.is_sorted() {
        return None;
    }
    let mut order: Vec<u32> = (0u32..).take(fired.len()).collect();
    order.sort_by_key(|row| -> Cause { fired.causes[*row as usize] });
    Some(order)
}
