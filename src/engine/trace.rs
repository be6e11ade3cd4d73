//! What made a result. A traced pipeline gathers, beside its aggregates and by the same operators, the position of every row and the watermark
//! before it: what a window emits then names its rows, however slices were merged, sessions joined or windows put into windows.
//! Without a trace nothing of this is there.

use super::operators::{Fired, Rows, WindowRows};
use super::output::{Cause, Firing};
use super::plan::WindowKind;
use super::segment::Segment;
use super::source::batch;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::format::{self, CsvOptions, Encoder, FormatSpec, JsonOptions};
use crate::state::accumulator::{AggregateFunction, AggregateSpec, Update, build};
use crate::types::AppendTime;
use crate::window::Window;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Keys of the window asked for that are remembered.
const KEYS_MAX: usize = 1000;

/// The results that are asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Outputs, as indices into [`JobPlan::outputs`](super::plan::JobPlan::outputs).
    pub outputs: Vec<usize>,
    /// Start of the window as the output shows it, in ms.
    pub window_start_ms: i64,
    /// End of the window, where several start together.
    pub window_end_ms: Option<i64>,
    /// The key: as in the output record, or the group's values as JSON or separated by commas. For the first rows of a window both the group
    /// that they are ranked in and their own. `None`: all keys.
    pub key: Option<String>,
}

impl Asked {
    fn is_window(&self, window: Window) -> bool {
        window.start == self.window_start_ms && self.window_end_ms.is_none_or(|end| end == window.end)
    }

    fn is_key(&self, group: &Group, key: Option<&[u8]>) -> bool {
        let Some(asked) = &self.key else { return true };
        let is_json = || {
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            asked.starts_with('{') && parse(asked).is_some_and(|asked| Some(asked) == parse(&group.json))
        };
        *asked == group.plain || *asked == group.json || key == Some(asked.as_bytes()) || is_json()
    }
}

/// What made something happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CausedBy {
    /// The record at this position, appended then.
    Record(AppendTime, u64),
    /// A step of the append clock.
    Clock(AppendTime),
    /// The end of the input.
    End,
}

/// A row that went into a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The record at this position, and the watermark in ms before it.
    Record(u64, i64),
    /// The result of an inner window.
    Window(Arc<Inner>),
    /// What the state that the engine began from held for it: rows that are not known.
    State,
}

impl Part {
    /// The records in it, with the watermark before each and the innermost window that each is in.
    pub fn records(&self) -> Vec<(u64, i64, Option<Window>)> {
        match self {
            Part::Record(position, watermark) => vec![(*position, *watermark, None)],
            Part::State => Vec::new(),
            Part::Window(inner) => {
                let records = inner.parts.iter().flat_map(Part::records);
                records
                    .map(|(position, watermark, window)| (position, watermark, window.or(Some(inner.window))))
                    .collect()
            }
        }
    }

    /// Whether something of it was in the state that the engine began from.
    pub fn is_of_state(&self) -> bool {
        match self {
            Part::Record(..) => false,
            Part::Window(inner) => inner.parts.iter().any(Part::is_of_state),
            Part::State => true,
        }
    }
}

/// Result of a window inside another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// The window.
    pub window: Window,
    /// Its group key, as JSON.
    pub group: String,
    /// What closed it.
    pub by: CausedBy,
    /// What made it.
    pub parts: Vec<Part>,
}

/// Key and value of a record.
pub type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A result of a window and key that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Index into [`JobPlan::pipelines`](super::plan::JobPlan::pipelines).
    pub pipeline: usize,
    /// The window.
    pub window: Window,
    /// Its group key, as JSON.
    pub group: String,
    /// Key and value of the output record; `None`: a condition behind the window, or the start of what is published, left it out.
    pub record: Option<KeyAndValue>,
    /// 0 for the first one.
    pub revision: u32,
    /// `early`, `on-time` or `late`.
    pub pane: &'static str,
    /// `insert`, `update` or `delete`.
    pub op: &'static str,
    /// Why a window by count closed.
    pub reason: Option<&'static str>,
    /// What brought it out.
    pub by: CausedBy,
    /// The watermark in ms before that.
    pub watermark_ms: i64,
    /// The rows in it.
    pub parts: Vec<Part>,
}

/// A record that came too late for a window asked for, or (in nests and sessions) for one inside or beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedLate {
    /// Index into [`JobPlan::pipelines`](super::plan::JobPlan::pipelines).
    pub pipeline: usize,
    /// Position of the record.
    pub position: u64,
    /// The watermark in ms before it.
    pub watermark_ms: i64,
    /// The windows that it missed.
    pub windows: Vec<Window>,
    /// Its group key, as JSON.
    pub group: String,
}

/// What an engine has seen of the windows asked for.
#[derive(Debug, Default)]
pub struct Tracing {
    /// Results, in the order in which they came out of each pipeline.
    pub results: Vec<Traced>,
    /// Records that came too late.
    pub late: Vec<TracedLate>,
    /// Keys that the window has, as JSON: the first ones by their text.
    pub keys: BTreeSet<String>,
    /// The nearest windows with that key: the last one that starts before, the first one that starts after.
    pub near_of_key: (Option<Window>, Option<Window>),
    /// The same of any key.
    pub near: (Option<Window>, Option<Window>),
}

impl Tracing {
    /// Adds what another pipeline has seen.
    pub(super) fn add(&mut self, other: Tracing) {
        self.results.extend(other.results);
        self.late.extend(other.late);
        self.keys.extend(other.keys);
        for (near, other) in [(&mut self.near_of_key, other.near_of_key), (&mut self.near, other.near)] {
            near.0 = near.0.max(other.0);
            near.1 = [near.1, other.1].into_iter().flatten().min();
        }
    }
}

fn note_near(near: &mut (Option<Window>, Option<Window>), start: i64, window: Window) {
    if window.start < start {
        near.0 = near.0.max(Some(window));
    } else if window.start > start && near.1.is_none_or(|after| window < after) {
        near.1 = Some(window);
    }
}

/// The rows of each result: place and the watermark before it.
pub(super) type Lineage = Vec<Vec<(u64, i64)>>;

/// The two columns that rows bring along for their trace.
pub(super) fn columns() -> [Field; 2] {
    [Field::new("traced place", DataType::UInt64, false), Field::new("traced watermark", DataType::Int64, false)]
}

/// The aggregates that gather those columns.
pub(super) fn aggregates() -> [AggregateSpec; 2] {
    columns().map(|column| AggregateSpec {
        function: AggregateFunction::ArrayAgg { keep_nulls: true },
        distinct: false,
        result: DataType::new_list(column.data_type().clone(), true),
        argument: Some(column.data_type().clone()),
    })
}

/// Those columns.
pub(super) fn arguments(places: Vec<u64>, before: &[i64]) -> [ArrayRef; 2] {
    [Arc::new(UInt64Array::from(places)), Arc::new(Int64Array::from(before.to_vec()))]
}

/// The place of what was in the state that the engine began from.
pub(super) const IN_STATE: u64 = u64::MAX;

/// Keys with accumulators that were saved without a trace, with one: each has gathered that it was in the state.
pub(super) fn marked(rows: &RecordBatch) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let slots: Vec<u32> = (0u32..).take(count).collect();
    let mut fields: Vec<_> = rows.schema_ref().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    let values = arguments(vec![IN_STATE; count], &vec![i64::MIN; count]);
    for ((spec, column), values) in aggregates().iter().zip(&self::columns()).zip(&values) {
        let mut gathered = build(spec)?;
        gathered.grow(count);
        gathered.update(&Update { slots: &slots, rows: &slots, values: Some(values), positions: &[] });
        let name = |field: &Field| format!("{}.{}", column.name(), field.name());
        fields.extend(gathered.state_fields().into_iter().map(|field| Arc::new(field.clone().with_name(name(&field)))));
        columns.extend(gathered.save(&slots)?);
    }
    batch(&Arc::new(Schema::new(fields)), columns, count)
}

/// The rows that the gathered columns name, of each result.
pub(super) fn lineage(places: &ArrayRef, before: &ArrayRef) -> Result<Lineage> {
    let missing = || Error::internal("a trace without its columns");
    let pairs = |places: &ArrayRef, before: &ArrayRef| {
        let places = places.as_primitive_opt::<UInt64Type>().ok_or_else(missing)?;
        let before = before.as_primitive_opt::<Int64Type>().ok_or_else(missing)?;
        Ok(places.values().iter().copied().zip(before.values().iter().copied()).collect::<Vec<_>>())
    };
    let (Some(place_lists), Some(before_lists)) = (places.as_list_opt::<i32>(), before.as_list_opt::<i32>()) else {
        return Ok(pairs(places, before)?.into_iter().map(|row| vec![row]).collect());
    };
    let rows = (0..places.len()).map(|row| match place_lists.is_valid(row) {
        true => pairs(&place_lists.value(row), &before_lists.value(row)),
        false => Ok(Vec::new()),
    });
    rows.collect()
}

/// How long the windows are that start at one time, if that does not depend on data.
pub(super) fn length(kind: WindowKind) -> Option<i64> {
    match kind {
        WindowKind::Tumble { size_ms, .. } | WindowKind::Hop { size_ms, .. } => Some(size_ms),
        WindowKind::Cumulate { max_ms, .. } => Some(max_ms),
        WindowKind::Session { .. } | WindowKind::Count { .. } | WindowKind::Attached { .. } => None,
    }
}

/// A group key as text.
pub(super) struct Group {
    json: String,
    plain: String,
}

/// Shows group keys of a stage.
struct Groups {
    json: Box<dyn Encoder>,
    plain: Option<Box<dyn Encoder>>,
}

impl Groups {
    fn new(schema: &SchemaRef) -> Result<Groups> {
        let plain = format::encoder(&FormatSpec::Csv(CsvOptions::default()), schema).ok();
        Ok(Groups { json: format::encoder(&FormatSpec::Json(JsonOptions::default()), schema)?, plain })
    }

    fn of(&self, batch: &RecordBatch, row: usize) -> Group {
        let text = |encoder: &dyn Encoder| {
            let mut bytes = Vec::new();
            encoder.encode(batch, row, &mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Group { json: text(&*self.json), plain: self.plain.as_ref().map_or(String::new(), |plain| text(&**plain)) }
    }
}

/// Results of a stage that wait in the next one, by their number there; true: of the key asked for.
type Waiting = BTreeMap<u64, (Arc<Inner>, bool)>;

/// The trace of one pipeline.
pub(super) struct Trace {
    asked: Asked,
    pipeline: usize,
    groups: Vec<Groups>,
    waiting: Vec<Waiting>,
    /// The last stage ranks what the one before it gives: each of its rows is one of those.
    is_rank: bool,
    /// How far the pipeline's watermark is behind its source's.
    behind_ms: i64,
    seen: Tracing,
}

fn caused_by(cause: Cause) -> CausedBy {
    match cause {
        Cause::END => CausedBy::End,
        cause => match cause.position() {
            Some(position) => CausedBy::Record(AppendTime(cause.time_us()), position),
            None => CausedBy::Clock(AppendTime(cause.time_us())),
        },
    }
}

/// What a stage handed on: its results, their group keys, and the rows in each.
pub(super) struct Handed<'a> {
    pub stage: usize,
    pub fired: &'a Fired,
    pub lineage: &'a Lineage,
    pub groups: &'a RecordBatch,
}

impl Trace {
    pub fn new(asked: &Asked, pipeline: usize, stages: &[Stage], behind_ms: i64) -> Result<Trace> {
        let groups = stages.iter().map(|stage| Groups::new(&stage.group_schema())).collect::<Result<_>>()?;
        let waiting = stages.iter().map(|_| Waiting::new()).collect();
        let is_rank = stages.len() > 1 && stages.last().is_some_and(Stage::is_rank);
        Ok(Trace { asked: asked.clone(), pipeline, groups, waiting, is_rank, behind_ms, seen: Tracing::default() })
    }

    /// The times of rows that a pipeline of one stage has to gather.
    pub fn span(asked: &Asked, kind: Option<WindowKind>) -> Range<i64> {
        let end = kind.and_then(length).map_or(i64::MAX, |length| asked.window_start_ms.saturating_add(length));
        asked.window_start_ms..end
    }

    pub fn take(&mut self) -> Tracing {
        std::mem::take(&mut self.seen)
    }

    fn parts(&self, stage: usize, rows: &[(u64, i64)]) -> Vec<Part> {
        let behind = self.behind_ms;
        let is_in_state = |(place, _): &&(u64, i64)| *place == IN_STATE;
        // Each slice of a window says so.
        let state = rows.iter().find(is_in_state).map(|_| Part::State);
        let rows = rows.iter().filter(|row| !is_in_state(row));
        let mut parts: Vec<Part> = match stage {
            0 => rows.map(|(position, before)| Part::Record(*position, before.saturating_add(behind))).collect(),
            _ => {
                let inner = rows.filter_map(|(n, _)| self.waiting[stage].get(n));
                inner.map(|(inner, _)| Part::Window(Arc::clone(inner))).collect()
            }
        };
        if stage == 0 {
            parts.sort_by_key(|part| if let Part::Record(position, _) = part { *position } else { 0 });
        }
        state.into_iter().chain(parts).collect()
    }

    /// Results of a stage are rows of the next one, numbered from `first`.
    pub fn hand_on(&mut self, handed: &Handed<'_>, rows: &Rows, input: &WindowRows, first: u64) {
        let next = handed.stage + 1;
        let is_last = next + 1 == self.waiting.len();
        let start = self.asked.window_start_ms;
        for ((number, row), origin) in (first..).zip(0..).zip(&rows.origin) {
            let origin = *origin as usize;
            let may_be_in = match (input.windows.get(row), input.times.get(row)) {
                (Some(window), _) => window.start == start,
                (None, time) => time.is_none_or(|time| *time >= start),
            };
            if is_last && !may_be_in {
                continue;
            }
            let group = self.groups[handed.stage].of(handed.groups, origin);
            let is_key = self.asked.is_key(&group, None);
            let inner = Inner {
                window: handed.fired.windows[origin],
                group: group.json,
                by: caused_by(handed.fired.causes[origin]),
                parts: self.parts(handed.stage, &handed.lineage[origin]),
            };
            self.waiting[next].insert(number, (Arc::new(inner), is_key));
        }
    }

    /// The last stage has emitted; `published` holds key and value of the output record of each result that has one.
    pub fn results(&mut self, handed: &Handed<'_>, published: &mut BTreeMap<usize, KeyAndValue>) {
        let fired = handed.fired;
        for row in 0..fired.len() {
            let (window, group) = (fired.windows[row], self.groups[handed.stage].of(handed.groups, row));
            let record = published.remove(&row);
            let key = record.as_ref().and_then(|(key, _)| key.as_deref());
            let ranked = self.is_rank.then(|| handed.lineage[row].first()).flatten();
            let ranked = ranked.and_then(|(number, _)| self.waiting[handed.stage].get(number));
            let is_key = self.asked.is_key(&group, key) || ranked.is_some_and(|(_, is_key)| *is_key);
            let own_key = ranked.map_or(&group.json, |(inner, _)| &inner.group).clone();
            note_near(&mut self.seen.near, self.asked.window_start_ms, window);
            if is_key {
                note_near(&mut self.seen.near_of_key, self.asked.window_start_ms, window);
            }
            if !self.asked.is_window(window) {
                continue;
            }
            if self.seen.keys.len() < KEYS_MAX {
                self.seen.keys.insert(own_key);
            }
            if is_key {
                let firing: Firing = fired.firings[row];
                let (pane, op, reason) = firing.names();
                self.seen.results.push(Traced {
                    pipeline: self.pipeline,
                    window,
                    group: group.json,
                    record,
                    revision: firing.revision,
                    pane,
                    op,
                    reason,
                    by: caused_by(fired.causes[row]),
                    watermark_ms: fired.before[row].saturating_add(self.behind_ms),
                    parts: self.parts(handed.stage, &handed.lineage[row]),
                });
            }
        }
    }

    /// Rows of the first stage that came too late: those that the operator says are, and those that it took for other windows only.
    pub fn late(
        &mut self,
        stage: &Stage,
        (segment, rows, input): (&Segment<'_>, &Rows, &WindowRows),
        late: &[u32],
    ) -> Result<()> {
        let is_single = self.waiting.len() == 1;
        let asked = &self.asked;
        let missed = |row: usize| {
            let windows = stage.operator.windows_of(input, row).into_iter();
            let windows = windows.filter(|window| stage.is_expired(window.end, input.before[row]));
            let windows = windows.filter(|window| match is_single && !stage.is_by_session() {
                true => asked.is_window(*window),
                false => window.end >= asked.window_start_ms,
            });
            windows.collect::<Vec<_>>()
        };
        let span = stage.length().map(|length| asked.window_start_ms..asked.window_start_ms.saturating_add(length));
        let rows_to_ask: Vec<usize> = match (is_single, span) {
            (true, Some(span)) => (0..input.times.len()).filter(|row| span.contains(&input.times[*row])).collect(),
            _ => late.iter().map(|row| *row as usize).collect(),
        };
        let found: Vec<(usize, Vec<Window>)> = rows_to_ask.into_iter().map(|row| (row, missed(row))).collect();
        let found: Vec<_> = found.into_iter().filter(|(_, windows)| !windows.is_empty()).collect();
        if found.is_empty() {
            return Ok(());
        }
        let groups = stage.groups_of_rows(&rows.batch)?;
        for (row, windows) in found {
            let group = self.groups[0].of(&groups, row);
            if !is_single || self.asked.is_key(&group, None) {
                let position = segment.positions(&rows.origin[row..=row])[0];
                let watermark_ms = input.before[row].saturating_add(self.behind_ms);
                let late = TracedLate { pipeline: self.pipeline, position, watermark_ms, windows, group: group.json };
                self.seen.late.push(late);
            }
        }
        Ok(())
    }
}

/// The schema of group keys.
pub(super) fn group_schema<'a>(fields: impl Iterator<Item = &'a Arc<Field>>) -> SchemaRef {
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}
