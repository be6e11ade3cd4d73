//! One pipeline: steps on source rows, the window aggregation if there is one, steps on its results, the sink.

use super::Codecs;
use super::counters::Counters;
use super::eval;
use super::operators::assign::{assign, beyond_time, rowtime_column, window_columns};
use super::operators::filter_project::{filter, project};
use super::operators::window_session::SessionWindows;
use super::operators::window_slices::SliceWindows;
use super::operators::{CauseOf, Closed, Missed, Rows, Taken, WindowOperator, WindowRows, WindowSpec};
use super::output::{Cause, Outputs};
use super::plan::{Emission, JobPlan, PipelinePlan, Step, TimeDomain, WindowKind, WindowPlan};
use super::segment::Segment;
use super::sink::Sink;
use super::source::batch;
use crate::error::{Error, Result};
use crate::state::accumulator::{AggregateSpec, build};
use crate::state::keys::KeyCodec;
use crate::state::partial::Arguments;
use crate::window::assign::Slicer;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::DataType;

/// Rows of closed windows that are put into one batch, at least.
const CLOSED_ROWS: usize = 32 * 1024;

/// A pipeline and its state.
pub(super) struct Pipeline {
    plan: PipelinePlan,
    before: Vec<Prepared>,
    after: Vec<Prepared>,
    window: Option<Window>,
    sink: Sink,
}

/// A step with what can be worked out once.
enum Prepared {
    Plain(Step),
    Assign { slicer: Slicer, step: Step },
}

struct Window {
    plan: WindowPlan,
    operator: Box<dyn WindowOperator>,
    /// Encodes the keys of incoming rows.
    codec: KeyCodec,
    /// Some aggregate looks at positions.
    needs_positions: bool,
}

/// Where a pipeline's records and counts go.
pub(super) struct Emit<'a> {
    pub outputs: &'a mut Outputs,
    pub counters: &'a mut Counters,
    /// Windows that start before this time in ms, and rows without a window before it, are worked out and not written.
    pub publish_from_ms: i64,
}

impl Pipeline {
    pub fn new(plan: &JobPlan, index: usize, codecs: Codecs) -> Result<Pipeline> {
        let pipeline = &plan.pipelines[index];
        let (before, window, after) = parts(pipeline)?;
        Ok(Pipeline {
            before: prepare(before)?,
            after: prepare(after)?,
            window: window.map(Window::new).transpose()?,
            sink: Sink::new(plan, index, codecs)?,
            plan: pipeline.clone(),
        })
    }

    /// Takes the rows of a segment, and closes the windows that their watermark closes.
    pub fn take(&mut self, segment: &Segment<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let mut rows = segment.to_rows();
        steps(&self.before, &mut rows)?;
        if self.window.is_none() {
            self.pass(segment, &rows, emit)?;
        } else {
            self.aggregate(segment, &mut rows, emit)?;
            self.close(segment.after, &|goal| segment.reached(goal), emit)?;
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

    fn aggregate(&mut self, segment: &Segment<'_>, rows: &mut Rows, emit: &mut Emit<'_>) -> Result<()> {
        let Some(window) = &self.window else { return Ok(()) };
        let (input, origin) = window.input(segment, rows)?;
        let (mut from, mut missed) = (0, Missed::default());
        while let Some(window) = &mut self.window
            && let Taken::CloseFirst { row, watermark } = window.operator.take(&input, from, &mut missed)?
        {
            self.close(watermark, &|goal| segment.reached(goal), emit)?;
            from = row;
        }
        emit.counters.partly_late += missed.partly_late;
        let Some(window) = &self.window else { return Ok(()) };
        for row in missed.late {
            let (row, windows) = (row as usize, window.operator.windows_of(input.rowtimes[row as usize]));
            if windows.iter().any(|window| window.start >= emit.publish_from_ms) {
                self.sink.late(segment, origin[row], input.before[row], &windows, emit);
            }
        }
        for row in missed.beyond_time {
            let row = row as usize;
            rows.rejected.push((origin[row], beyond_time(input.rowtimes[row])));
        }
        Ok(())
    }

    /// Emits all windows that close at `watermark`.
    pub fn close(&mut self, watermark: i64, cause_of: CauseOf<'_>, emit: &mut Emit<'_>) -> Result<()> {
        let mut more = true;
        while more && let Some(window) = &mut self.window {
            let mut closed = Closed::default();
            while more && closed.windows.len() < CLOSED_ROWS {
                more = window.operator.close(watermark, cause_of, &mut closed)?;
            }
            self.emit_closed(closed, emit)?;
        }
        Ok(())
    }

    fn emit_closed(&self, closed: Closed, emit: &mut Emit<'_>) -> Result<()> {
        let Some(window) = self.window.as_ref().filter(|_| !closed.windows.is_empty()) else { return Ok(()) };
        emit.counters.windows_closed += closed.count;
        let count = closed.windows.len();
        let mut columns = joined(&closed.keys)?;
        columns.extend(joined(&closed.results)?);
        columns.extend(window_columns(&closed.windows, &window.plan.schema)?);
        let results = batch(&window.plan.schema, columns, count)?;
        let origin = (0u32..).take(count).collect();
        let mut rows = Rows { batch: results.clone(), origin, rejected: Vec::new(), null_rowtime: 0 };
        steps(&self.after, &mut rows)?;
        let mut writer = self.sink.windows(&rows.batch, &results)?;
        for (row, origin) in rows.origin.iter().enumerate() {
            let origin = *origin as usize;
            let window = closed.windows[origin];
            if window.start >= emit.publish_from_ms {
                writer.write_window(row, origin, closed.causes[origin], window.end - 1, emit);
            }
        }
        for (origin, why) in rows.rejected {
            let origin = origin as usize;
            self.sink.reject_window(closed.causes[origin], closed.windows[origin], &why, emit);
        }
        Ok(())
    }

    /// A watermark before which no window closes; `None`: none is open.
    pub fn next_goal(&self) -> Option<i64> {
        self.window.as_ref().and_then(|window| window.operator.next_goal())
    }

    /// Bytes of state held, roughly.
    pub fn byte_len(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.operator.byte_len())
    }

    /// Ends the input.
    pub fn finish(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        self.close(i64::MAX, &|_| Cause::END, emit)
    }
}

/// The steps before the aggregation, the aggregation, and the steps after it. Refuses what cannot be run.
fn parts(pipeline: &PipelinePlan) -> Result<(&[Step], Option<&WindowPlan>, &[Step])> {
    let no = |what: &str| Err(Error::input(format!("{what}: not supported")));
    if pipeline.time == TimeDomain::Append {
        return no("windows over PROCTIME()");
    }
    if pipeline.emission != Emission::default() {
        return no("allowed lateness and early results");
    }
    let steps = pipeline.steps.as_slice();
    let place = steps.iter().position(Step::is_stateful).unwrap_or(steps.len());
    let (window, after) = match steps.get(place) {
        Some(Step::Aggregate(window)) => (Some(window), &steps[place + 1..]),
        Some(_) => return no("ROW_NUMBER"),
        None => (None, &[][..]),
    };
    if after.iter().any(Step::is_stateful) {
        return no("windows over the results of windows");
    }
    let assigned = steps.iter().filter_map(|step| match step {
        Step::AssignWindows { zone, .. } => Some(*zone),
        _ => None,
    });
    if assigned.chain(window.map(|window| window.zone)).any(|zone| zone.is_some()) {
        return no("windows in a time zone");
    }
    if window.is_some_and(|window| matches!(window.kind, WindowKind::Attached { .. } | WindowKind::Count { .. })) {
        return no("windows of rows, and windows by count");
    }
    Ok((&steps[..place], window, after))
}

fn prepare(steps: &[Step]) -> Result<Vec<Prepared>> {
    let prepared = steps.iter().map(|step| match step {
        Step::AssignWindows { kind, .. } => Ok(Prepared::Assign { slicer: slicer(*kind)?, step: step.clone() }),
        _ => Ok(Prepared::Plain(step.clone())),
    });
    prepared.collect()
}

fn slicer(kind: WindowKind) -> Result<Slicer> {
    let slicer =
        Slicer::new(kind).ok_or_else(|| Error::internal("sessions depend on data: they cannot be assigned"))?;
    match slicer.is_valid() {
        true => Ok(slicer),
        false => Err(Error::input(format!("{kind:?}: sizes are positive, the longer one a multiple of the shorter"))),
    }
}

fn steps(steps: &[Prepared], rows: &mut Rows) -> Result<()> {
    for step in steps {
        match step {
            Prepared::Plain(Step::Filter(predicate)) => filter(rows, predicate)?,
            Prepared::Plain(Step::Project { columns, schema }) => project(rows, columns, schema)?,
            Prepared::Assign { slicer, step: Step::AssignWindows { rowtime, schema, .. } } => {
                assign(rows, slicer, *rowtime, schema)?;
            }
            _ => return Err(Error::internal("a window step without its windows")),
        }
    }
    Ok(())
}

impl Window {
    fn new(plan: &WindowPlan) -> Result<Window> {
        let codec = KeyCodec::new(plan.keys.iter().map(|key| key.field.data_type().clone()).collect())?;
        let aggregates = plan.aggregates.iter().map(|call| AggregateSpec {
            function: call.function.clone(),
            distinct: call.distinct,
            argument: call.argument.as_ref().map(|_| call.argument_type.clone()),
            result: call.field.data_type().clone(),
        });
        let spec = WindowSpec { codec: codec.clone(), aggregates: aggregates.collect() };
        // Said now, not with the first row.
        spec.aggregates.iter().try_for_each(|aggregate| build(aggregate).map(drop))?;
        let needs_positions = spec.aggregates.iter().any(|aggregate| aggregate.function.is_by_position());
        let operator: Box<dyn WindowOperator> = match plan.kind {
            WindowKind::Session { gap_ms } if gap_ms > 0 => Box::new(SessionWindows::new(gap_ms, spec)?),
            WindowKind::Session { .. } => return Err(Error::input("the gap of a session is positive")),
            kind => Box::new(SliceWindows::new(slicer(kind)?, spec)),
        };
        Ok(Window { plan: plan.clone(), operator, codec, needs_positions })
    }

    /// Keys, arguments and times of rows, and the segment row of each. Rows that have none of them are rejected.
    fn input(&self, segment: &Segment<'_>, rows: &mut Rows) -> Result<(WindowRows, Vec<u32>)> {
        let plan = &self.plan;
        let times = rowtime_column(&rows.batch, plan.rowtime)?;
        if let Some(nulls) = times.nulls().filter(|nulls| nulls.null_count() > 0) {
            rows.null_rowtime += nulls.null_count() as u64;
            let (valid, null): (Vec<u32>, Vec<u32>) =
                (0u32..).take(nulls.len()).partition(|row| nulls.is_valid(*row as usize));
            let why = "the rowtime of the window is NULL";
            rows.rejected.extend(null.iter().map(|row| (rows.origin[*row as usize], why.to_owned())));
            rows.keep(valid)?;
        }
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
        let keys = self.codec.encode(&columns[..plan.keys.len()]);
        let mut columns = columns.into_iter().skip(plan.keys.len());
        let (mut values, mut filters) = (Vec::new(), Vec::new());
        for call in &plan.aggregates {
            values.push(call.argument.as_ref().and_then(|_| columns.next()));
            filters.push(call.filter.as_ref().and_then(|_| columns.next()).map(|mask| true_rows(&mask)));
        }
        let positions = if self.needs_positions { segment.positions(&rows.origin) } else { Vec::new() };
        let arguments = Arguments { values, filters, positions };
        let rowtimes = rowtime_column(&rows.batch, plan.rowtime)?.values().to_vec();
        let before = match rows.origin.iter().copied().eq((0u32..).take(segment.before.len())) {
            true => segment.before.to_vec(),
            false => rows.origin.iter().map(|row| segment.before[*row as usize]).collect(),
        };
        Ok((WindowRows { rowtimes, before, keys, arguments }, rows.origin.clone()))
    }
}

fn true_rows(mask: &ArrayRef) -> Vec<bool> {
    let mask = mask.as_boolean();
    (0..mask.len()).map(|row| mask.is_valid(row) && mask.value(row)).collect()
}

/// Column by column the pieces in order.
fn joined(pieces: &[Vec<ArrayRef>]) -> Result<Vec<ArrayRef>> {
    let width = pieces.first().map_or(0, Vec::len);
    let columns = (0..width).map(|column| {
        let parts: Vec<&dyn Array> = pieces.iter().map(|piece| &*piece[column]).collect();
        concat(&parts).map_err(|e| Error::internal("joining closed windows").with_source(e))
    });
    columns.collect()
}
