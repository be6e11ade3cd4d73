//! What a job computes, with every name, type and expression resolved: the contract between `sql` (which makes it) and
//! the operators (which run it). Nothing here knows about SQL text.

use crate::format::FormatSpec;
use crate::format::framing::Framing;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::state::accumulator::{AggregateFunction, AggregateSpec, Fraction};
pub use crate::time::zone::Zone;
pub use crate::window::WindowKind;

/// A compiled expression over the columns of one batch.
pub type Expr = Arc<dyn PhysicalExpr>;

/// One job: one file, one progress, any number of outputs.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Tables that are read, each once, in order of first use.
    pub sources: Vec<SourcePlan>,
    /// Tables that are written, in order of first use.
    pub outputs: Vec<OutputPlan>,
    /// One per `INSERT INTO` branch or bare `SELECT`, in file order: this is the operator order among equal causes.
    pub pipelines: Vec<PipelinePlan>,
    /// XXH64 of a canonical description of everything above that can change an output byte (not of white space,
    /// comments or statement positions in the file).
    pub digest: u64,
    /// Things the user should know that are no errors (ignored Flink settings and the like).
    pub notes: Vec<String>,
    /// `execution.checkpointing.interval` in microseconds, if the file sets it.
    pub checkpoint_interval_us: Option<u64>,
}

/// A table that is read.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Table name as in the file.
    pub table: String,
    /// Topic of the log.
    pub topic: String,
    /// How values are decoded.
    pub format: FormatSpec,
    /// All physical columns as declared, in order (CSV needs them for column places).
    pub declared: SchemaRef,
    /// Indices into `declared` of the columns that the job uses, ascending. Only these are decoded.
    pub used: Vec<usize>,
    /// The row that pipelines see: expressions over the decoded (used) columns followed by the metadata columns.
    /// Plain columns and computed columns alike.
    pub columns: Vec<NamedExpr>,
    /// Schema of `columns`.
    pub schema: SchemaRef,
    /// Metadata columns appended behind the used physical columns before `columns` are evaluated, in order.
    pub metadata: Vec<MetadataColumn>,
    /// Event time, if the table declares a watermark.
    pub event_time: Option<EventTime>,
    /// Rows the format cannot decode are skipped in silence by the user's own wish
    /// (`csv.ignore-parse-errors` / `json.ignore-parse-errors`): counted, not written to `.rejected`.
    pub ignore_parse_errors: bool,
    /// Where a job without `--from` starts.
    pub startup: StartupMode,
    /// A file that is appended to the topic before (or while) the job runs.
    pub ingest: Option<FileIngest>,
}

/// A column that comes from the record, not from its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataColumn {
    /// Record timestamp, Timestamp(ms, UTC), nullable (`METADATA FROM 'timestamp'`).
    Timestamp,
    /// Int32 (`'partition'`).
    Partition,
    /// Int64 (`'offset'`).
    Offset,
    /// Append time, Timestamp(ms, UTC), not null; also what `PROCTIME()` and `CURRENT_TIMESTAMP` mean.
    AppendTime,
    /// Key bytes, Binary, nullable (`'key'`).
    Key,
}

/// An expression and the field it makes.
#[derive(Debug, Clone)]
pub struct NamedExpr {
    /// The expression.
    pub expr: Expr,
    /// Name, type and nullability of the result.
    pub field: FieldRef,
}

/// `WATERMARK FOR` and the time options of a table.
#[derive(Debug, Clone)]
pub struct EventTime {
    /// Index into [`SourcePlan::columns`] of the rowtime column: Timestamp(ms) with or without zone.
    pub rowtime: usize,
    /// Watermark over the source row: Timestamp(ms).
    pub watermark: Expr,
    /// `scan.watermark.idle-timeout` in microseconds of append time; `None`: never idle.
    pub idle_timeout_us: Option<i64>,
    /// `quiet-close`.
    pub quiet_close: bool,
    /// `max-future` in microseconds: records further ahead of their append time do not move the watermark.
    pub max_future_us: i64,
}

/// `scan.startup.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartupMode {
    /// `earliest-offset` (default) and `group-offsets`.
    Earliest,
    /// `latest-offset`: the end of the log when the job first starts.
    Latest,
    /// `timestamp`: the first record with this record timestamp in ms or later.
    TimestampMs(i64),
}

/// A filesystem source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIngest {
    /// The file as the user named it.
    pub path: PathBuf,
    /// How it is cut into records (the records' values are then decoded by the source's format).
    pub framing: Framing,
}

/// A table that is written.
#[derive(Debug, Clone)]
pub struct OutputPlan {
    /// Table name, or `select-N` for a bare `SELECT`.
    pub table: String,
    /// True for a bare `SELECT`: its topic is named after the job, which only the caller knows.
    pub is_select: bool,
    /// Where rows go, beside the topic.
    pub sink: SinkKind,
    /// Topic of the log, without version ending; `None` for `blackhole` (rows are counted and digested only).
    pub topic: Option<String>,
    /// How values and keys are encoded.
    pub format: FormatSpec,
    /// The sink's columns.
    pub schema: SchemaRef,
    /// PRIMARY KEY columns (indices into `schema`); empty: the pipeline's group keys.
    pub primary_key: Vec<usize>,
    /// Partitions of the topic when it has to be created (default 1).
    pub partitions: u32,
}

/// What happens to an output topic's rows outside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    /// Nothing more: the topic is the output.
    Topic,
    /// Shown on stdout.
    Print,
    /// Counted and dropped.
    Blackhole,
    /// Written as part files into this folder.
    Filesystem {
        /// Folder as the user named it.
        path: PathBuf,
    },
}

/// From one source to one output.
#[derive(Debug, Clone)]
pub struct PipelinePlan {
    /// Index into [`JobPlan::sources`].
    pub source: usize,
    /// Index into [`JobPlan::outputs`].
    pub output: usize,
    /// From the source's row to the sink's, in order. The last step leaves exactly the sink's columns, in order.
    pub steps: Vec<Step>,
    /// Column of the last row that holds the rowtime, for the output timestamp of pipelines without an aggregation or rank;
    /// `None`: the record's own timestamp.
    pub rowtime: Option<usize>,
    /// Which clock closes the windows.
    pub time: TimeDomain,
    /// When windows are emitted beside their end.
    pub emission: Emission,
}

impl PipelinePlan {
    /// The window aggregations, in order.
    pub fn aggregations(&self) -> impl Iterator<Item = &WindowPlan> {
        self.steps.iter().filter_map(|step| match step {
            Step::Aggregate(window) => Some(window),
            _ => None,
        })
    }

    /// Whether no result of a window that starts at `from_ms` or later, and no record too late for one, can have come out by the time
    /// that the source's watermark has come to `watermark`. False also where the watermark does not tell: for rows without a window,
    /// windows by count or by append time, those cut in the time of a zone, and those that are shown early.
    pub fn is_silent_from(&self, from_ms: i64, watermark: Option<i64>) -> bool {
        let shortest_ms = |step: &Step| match step {
            Step::Aggregate(WindowPlan { kind, zone: None, .. }) | Step::AssignWindows { kind, zone: None, .. } => {
                kind.shortest_ms()
            }
            Step::Aggregate(_) | Step::AssignWindows { .. } => None,
            Step::Filter(_) | Step::Project { .. } | Step::Rank(_) => Some(i64::MAX),
        };
        let shortest_ms = self.steps.iter().map(shortest_ms).min().flatten();
        let is_by_watermark = self.time == TimeDomain::Event && self.emission.early_us.is_none();
        let has_windows = self.steps.iter().any(Step::is_stateful);
        // What the watermark has closed ends right behind it, or before.
        let is_before = |shortest_ms: i64| {
            watermark.is_none_or(|watermark| watermark.saturating_sub(shortest_ms.saturating_sub(1)) < from_ms)
        };
        has_windows && is_by_watermark && shortest_ms.is_some_and(is_before)
    }
}

/// Which clock windows are cut and closed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeDomain {
    /// The rowtime, by the watermark.
    #[default]
    Event,
    /// `PROCTIME()`: the append time, by the append clock. A window `[s, e)` closes at clock `e` exactly; nothing is late.
    Append,
}

/// When results of windows are given out beside their end. Concerns the aggregation of a pipeline that has exactly one and no
/// rank; in a nest the inner windows emit once, `lateness_ms` after their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emission {
    /// `table.exec.emit.allow-lateness`: so long after its end a window still takes records, and is emitted again.
    pub lateness_ms: i64,
    /// `table.exec.emit.early-fire.delay` if early firing is enabled: changed windows are emitted at multiples of this append time.
    pub early_us: Option<i64>,
}

/// One step of a pipeline.
#[derive(Debug, Clone)]
pub enum Step {
    /// Keeps rows for which the Boolean expression is true (not null).
    Filter(Expr),
    /// Replaces the row.
    Project {
        /// New columns.
        columns: Vec<NamedExpr>,
        /// Their schema.
        schema: SchemaRef,
    },
    /// Appends `window_start`, `window_end`, `window_time` to each row, once for each window the row is in
    /// (window table function without aggregation; never a session). Rows with NULL rowtime are dropped and counted.
    AssignWindows {
        /// The windows.
        kind: WindowKind,
        /// Rowtime column of the incoming row.
        rowtime: usize,
        /// As in [`WindowPlan::zone`].
        zone: Option<Zone>,
        /// Schema after the step.
        schema: SchemaRef,
    },
    /// Puts rows together by key and window.
    Aggregate(WindowPlan),
    /// Keeps the first rows of each window and partition.
    Rank(RankPlan),
}

impl Step {
    /// The row after the step; `None`: as before it.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self {
            Step::Filter(_) => None,
            Step::Project { schema, .. } | Step::AssignWindows { schema, .. } => Some(schema),
            Step::Aggregate(window) => Some(&window.schema),
            Step::Rank(rank) => Some(&rank.schema),
        }
    }

    /// Whether rows wait in it for their window to close.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Step::Aggregate(_) | Step::Rank(_))
    }
}

/// A grouped window aggregation.
#[derive(Debug, Clone)]
pub struct WindowPlan {
    /// The windows.
    pub kind: WindowKind,
    /// Rowtime column of the incoming row; for attached windows the column of their end.
    pub rowtime: usize,
    /// Group keys besides window_start and window_end (for sessions and count windows: their PARTITION BY).
    pub keys: Vec<NamedExpr>,
    /// Aggregates.
    pub aggregates: Vec<AggregateCall>,
    /// Windows are cut in the local time of this zone, so a day can have 23 or 25 hours; `window_start` and `window_end` are
    /// local. `None`: in UTC, or in the time that a TIMESTAMP says.
    pub zone: Option<Zone>,
    /// Result row: keys, aggregates, then `window_start`, `window_end` (both Timestamp(ms), no zone) and `window_time`
    /// (type of the rowtime; = window_end - 1 ms). For count windows also `window_reason`: Utf8, 'count', 'timeout' or 'end'.
    pub schema: SchemaRef,
}

/// `ROW_NUMBER() OVER (PARTITION BY window_start, window_end, .. ORDER BY ..)` with a bound: rows wait until their window closes, then
/// the first ones of each partition go on, in order.
#[derive(Debug, Clone)]
pub struct RankPlan {
    /// Column of the incoming row that holds the window's start.
    pub window_start: usize,
    /// Column of the incoming row that holds the window's end.
    pub window_end: usize,
    /// As in [`WindowPlan::zone`].
    pub zone: Option<Zone>,
    /// PARTITION BY besides the window.
    pub partition: Vec<NamedExpr>,
    /// ORDER BY.
    pub order: Vec<Order>,
    /// Which of equal rows comes first: the first to arrive, or the last (deduplication that keeps the latest row).
    pub last_wins: bool,
    /// The first number that is kept, from 1.
    pub from: u64,
    /// The last number that is kept.
    pub limit: u64,
    /// Whether the number is a column behind the others: Int64, not null.
    pub number: bool,
    /// The incoming row, with the number if there is one.
    pub schema: SchemaRef,
}

/// One key of an ORDER BY.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its value.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// NULL before all values.
    pub nulls_first: bool,
}

/// One aggregate of a window.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// Which.
    pub function: AggregateFunction,
    /// Argument over the incoming row; `None` only for `COUNT(*)`.
    pub argument: Option<Expr>,
    /// Type of the argument (Null for `COUNT(*)`).
    pub argument_type: DataType,
    /// Each distinct non-null value once.
    pub distinct: bool,
    /// Boolean expression: only rows where it is true.
    pub filter: Option<Expr>,
    /// Result field, with Flink's type.
    pub field: FieldRef,
}

impl AggregateCall {
    /// The call as text, which says what it computes: two calls of one description on the same rows have the same result. Columns
    /// are named, and not numbered, so that it is the same beside others.
    pub fn described(&self) -> String {
        let named = |expr: &Expr| {
            let text = expr.to_string();
            let mut parts = text.split('@');
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |named, part| named + part.trim_start_matches(|c: char| c.is_ascii_digit()))
        };
        let argument = self.argument.as_ref().map_or_else(|| "*".to_owned(), named);
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let filter = self.filter.as_ref().map_or_else(String::new, |filter| format!(" FILTER {}", named(filter)));
        format!("{}({distinct}{argument}){filter}", format!("{:?}", self.function).to_lowercase())
    }

    /// What its accumulators are made from.
    pub fn spec(&self) -> AggregateSpec {
        AggregateSpec {
            function: self.function.clone(),
            distinct: self.distinct,
            argument: self.argument.as_ref().map(|_| self.argument_type.clone()),
            result: self.field.data_type().clone(),
        }
    }
}
