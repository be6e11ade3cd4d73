//! Jobs in Rust instead of SQL, over the same operators: the same job gives the same bytes either way.
//!
//! ```
//! use kappa::stream::{Tumble, TopicStream, count, sum};
//! use kappa::{env::Env, job, log};
//! use std::time::Duration;
//!
//! #[derive(serde::Deserialize)]
//! struct PageView {
//!     ts: i64,
//!     user: String,
//!     bytes: i32,
//! }
//!
//! # fn main() -> kappa::Result<()> {
//! # let (env, _) = Env::sim(1);
//! let log = log::Log::open(&env, "/data".as_ref(), log::LogOptions::default())?;
//! let views = log.create_topic("views", log::TopicConfig::default())?;
//! # let append = |value: &str| {
//! #     use kappa::log::records::{Partitioning, Record, RecordColumns};
//! #     let mut rows = RecordColumns::default();
//! #     let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
//! #     rows.push(Partitioning::Fixed(kappa::types::PartitionId(0)), &record);
//! #     log.append_wait(log::AppendBatch::records(views.id(), rows))
//! # };
//! # append(r#"{"ts":"2026-01-01 00:00:10","user":"ann","bytes":300}"#)?;
//! # append(r#"{"ts":"2026-01-01 00:00:20","user":"ann","bytes":40}"#)?;
//! # append(r#"{"ts":"2026-01-01 00:00:20","user":"robot","bytes":1}"#)?;
//! let per_minute = views
//!     .stream::<PageView>()
//!     .event_time("ts", Duration::from_secs(5))
//!     .filter(|view| view.user != "robot")
//!     .key_by("user")
//!     .window(Tumble::of(Duration::from_secs(60)))
//!     .aggregate((count().as_("n"), sum("bytes")))
//!     .to("per_minute")?
//!     .version("1");
//! let request = job::Request { bounded: true, flush: true, ..Default::default() };
//! let report = job::run(&log, &per_minute.into(), &request, &mut job::Silent)?;
//! assert_eq!(report.counters.rows_out, [1]);
//! # Ok(())
//! # }
//! ```
//!
//! # Columns
//! The fields of `T` are the columns of the topic. `bool`, `i8` to `i64`, `f32`, `f64`, `String` are BOOLEAN, TINYINT to BIGINT,
//! FLOAT, DOUBLE, STRING; unsigned numbers the next larger of them (`u64` is BIGINT); `Vec` and structs are ARRAY and ROW; enums
//! without data are STRING. What is no `Option` is NOT NULL: a record without it is rejected. Fields of another type (times, dates,
//! decimals) are named: [`Stream::event_time`], [`Stream::column`]. Only the columns that a job uses are decoded.
//!
//! # Closures
//! [`filter`](Stream::filter), [`map`](Stream::map), [`key_by_with`](Stream::key_by_with) and [`having`](Aggregated::having) call
//! closures with rows as Rust values. A closure must give the same answer whenever it is given the same row: it runs anew in each replay, on any thread,
//! and on rows in groups of any size. One that looks at a clock, at random numbers or at state of its own breaks this. What a closure does cannot be digested:
//! see [`StreamJob::version`]. A closure reads all fields of its type, so a record in which any of them does not decode is rejected.

mod aggregate;
mod closure;
mod columns;
mod draft;
mod job;
mod window;

pub use aggregate::{
    Aggregate, Aggregates, approx_count_distinct, array_agg, avg, count, count_of, first, last, max, min, string_agg,
    sum,
};
pub use draft::KeyValue;
pub use job::{Output, StreamJob};
pub use window::{CountWindow, Cumulate, Hop, Session, Tumble, WindowSpec};

use crate::engine::plan::{StartupMode, TimeDomain};
use crate::error::Result;
use crate::format::FormatSpec;
use crate::log::Topic;
use arrow::datatypes::DataType;
use draft::{Draft, Settings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;

/// Rows of a topic, or what was made of them. Mistakes are told by [`Stream::to`] and [`Aggregated::to`], the first of them.
#[must_use = "a stream does nothing until it goes to an output"]
#[derive(Debug)]
pub struct Stream<T> {
    draft: Result<Draft>,
    row: PhantomData<fn() -> T>,
}

/// A topic's rows as a [`Stream`].
pub trait TopicStream {
    /// The rows of this topic, with the fields of `T` as columns.
    fn stream<T: DeserializeOwned>(&self) -> Stream<T>;
}

impl TopicStream for Topic {
    fn stream<T: DeserializeOwned>(&self) -> Stream<T> {
        Stream::from_topic(self.name())
    }
}

impl<T: DeserializeOwned> Stream<T> {
    /// The rows of a topic, with the fields of `T` as columns; values are JSON unless [`format`](Stream::format) says otherwise.
    pub fn from_topic(topic: impl Into<String>) -> Stream<T> {
        Stream { draft: Ok(Draft::new(topic.into())), row: PhantomData }
    }

    fn set(self, what: &str, change: impl FnOnce(&mut Settings) -> Result<()>) -> Stream<T> {
        self.then(|draft| draft.set(what, change))
    }

    fn then<U>(self, step: impl FnOnce(Draft) -> Result<Draft>) -> Stream<U> {
        Stream { draft: self.draft.and_then(step), row: PhantomData }
    }

    /// The column that says when a record happened, a TIMESTAMP(3) unless [`column`](Stream::column) names its type, and how far records may be out of
    /// order: the watermark is `bound` behind the latest of them. In `T` the field is an `i64` (ms since 1970) or anything that
    /// is read from text.
    pub fn event_time(self, column: &str, bound: Duration) -> Stream<T> {
        self.set("event_time", |settings| settings.event_time(column, bound))
    }

    /// Windows follow the append time, when records came into the log, instead of an event time: SQL's `PROCTIME()`. Nothing is late, and a
    /// replay gives the same windows.
    pub fn append_time(self) -> Stream<T> {
        self.set("append_time", |settings| {
            settings.domain = TimeDomain::Append;
            Ok(())
        })
    }

    /// The type of a column that the Rust type does not say: a date, a decimal, a time with zone (`Timestamp(Millisecond, UTC)`).
    pub fn column(self, name: &str, data_type: DataType) -> Stream<T> {
        self.set("column", |settings| settings.column(name, data_type))
    }

    /// How values are read.
    pub fn format(self, format: FormatSpec) -> Stream<T> {
        self.set("format", |settings| {
            settings.format = format;
            Ok(())
        })
    }

    /// A partition without a record for so long (append time) does not hold windows back.
    pub fn idle_timeout(self, timeout: Duration) -> Stream<T> {
        self.set("idle_timeout", |settings| {
            settings.idle_timeout_us = Some(window::micros(timeout, "an idle timeout")?);
            Ok(())
        })
    }

    /// When all partitions are idle, the watermark goes on with the append clock, so that the last windows close.
    pub fn quiet_close(self) -> Stream<T> {
        self.set("quiet_close", |settings| {
            settings.quiet_close = true;
            Ok(())
        })
    }

    /// Records further ahead of their append time do not move the watermark. One hour unless it is set.
    pub fn max_future(self, limit: Duration) -> Stream<T> {
        self.set("max_future", |settings| {
            settings.max_future_us = window::micros(limit, "max-future")?;
            Ok(())
        })
    }

    /// Where the job starts if nobody says otherwise; the earliest record unless it is set.
    pub fn start(self, startup: StartupMode) -> Stream<T> {
        self.set("start", |settings| {
            settings.startup = startup;
            Ok(())
        })
    }

    /// Keeps the rows for which the closure says true.
    pub fn filter(self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        self.then(|draft| draft.begun::<T>()?.filter(keep))
    }

    /// Makes another row of each. The event time stays that of the record.
    pub fn map<U: Serialize + DeserializeOwned>(self, make: impl Fn(&T) -> U + Send + Sync + 'static) -> Stream<U> {
        self.then(|draft| draft.begun::<T>()?.map(make))
    }

    /// Groups rows by a column.
    pub fn key_by(self, column: &str) -> Keyed<T> {
        Keyed(self.then(|draft| draft.begun::<T>()?.key(column)))
    }

    /// Groups rows by what the closure gives; `name` is its column's.
    pub fn key_by_with<K: KeyValue>(self, name: &str, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Keyed<T> {
        Keyed(self.then(|draft| draft.begun::<T>()?.key_with(name, key)))
    }

    /// Puts all rows into the same windows.
    pub fn window(self, windows: impl Into<WindowSpec>) -> Windowed {
        Keyed(self).window(windows)
    }

    /// Writes the rows to a topic, one record for one.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Input`] for the first mistake in what was asked for: a field that is not there, a type that does not fit, a name.
    pub fn to(self, output: impl Into<Output>) -> Result<StreamJob> {
        self.draft?.begun::<T>()?.rows(output.into())
    }
}

/// Rows grouped by keys.
#[must_use = "a stream does nothing until it goes to an output"]
#[derive(Debug)]
pub struct Keyed<T>(Stream<T>);

impl<T: DeserializeOwned> Keyed<T> {
    /// Groups by one more column.
    pub fn and_by(self, column: &str) -> Keyed<T> {
        self.0.key_by(column)
    }

    /// Groups by one more closure's results.
    pub fn and_by_with<K: KeyValue>(self, name: &str, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Keyed<T> {
        self.0.key_by_with(name, key)
    }

    /// Puts the rows of each key into windows: [`Tumble`], [`Hop`], [`Cumulate`], [`Session`], [`CountWindow`].
    pub fn window(self, windows: impl Into<WindowSpec>) -> Windowed {
        let draft = self.0.draft.and_then(Draft::begun::<T>);
        Windowed { draft, windows: windows.into(), offset: None, lateness: Duration::ZERO, early: None }
    }
}

/// Rows in windows.
#[must_use = "a stream does nothing until it goes to an output"]
#[derive(Debug)]
pub struct Windowed {
    draft: Result<Draft>,
    windows: WindowSpec,
    offset: Option<Duration>,
    lateness: Duration,
    early: Option<Duration>,
}

impl Windowed {
    /// Shifts the windows' bounds from where they are in UTC.
    pub fn offset(self, offset: Duration) -> Windowed {
        Windowed { offset: Some(offset), ..self }
    }

    /// So long after its end a window still takes records, and its result is written again.
    pub fn allowed_lateness(self, lateness: Duration) -> Windowed {
        Windowed { lateness, ..self }
    }

    /// Writes the results of windows that have changed at every multiple of this append time, before they end.
    pub fn early_results(self, every: Duration) -> Windowed {
        Windowed { early: Some(every), ..self }
    }

    /// Computes one row for each key and window. Its columns are `window_start`, `window_end`, the keys, the aggregates, and behind count
    /// windows `window_reason` (`count`, `timeout` or `end`).
    pub fn aggregate(self, aggregates: impl Aggregates) -> Aggregated {
        let Windowed { draft, windows, offset, lateness, early } = self;
        let aggregates = aggregates.into_aggregates();
        let draft =
            draft.and_then(|draft| draft.emission(lateness, early)?.aggregate(windows.kind(offset)?, &aggregates));
        Aggregated { draft }
    }
}

/// Results of windows.
#[must_use = "a stream does nothing until it goes to an output"]
#[derive(Debug)]
pub struct Aggregated {
    draft: Result<Draft>,
}

impl Aggregated {
    /// Keeps the results for which the closure says true. `R` has fields of the names of result columns, as many as the closure needs.
    pub fn having<R: DeserializeOwned>(self, keep: impl Fn(&R) -> bool + Send + Sync + 'static) -> Aggregated {
        Aggregated { draft: self.draft.and_then(|draft| draft.filter(keep)) }
    }

    /// Chooses columns of the result, and their order.
    pub fn select<const N: usize>(self, columns: [&str; N]) -> Aggregated {
        let columns = columns.map(str::to_owned).into();
        Aggregated { draft: self.draft.map(|draft| draft.selecting(columns)) }
    }

    /// Writes the results to a topic.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Input`] for the first mistake in what was asked for: a field that is not there, a type that does not fit, a name.
    pub fn to(self, output: impl Into<Output>) -> Result<StreamJob> {
        self.draft?.results(output.into())
    }
}
