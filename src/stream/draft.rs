//! A job as far as it has been said: settings of the source first, then steps over its row.

use super::aggregate::Aggregate;
use super::closure::{Closure, Work, field_of};
use super::job::{Output, StreamJob, selected};
use super::{columns, window};
use crate::engine::plan::{Emission, Expr, NamedExpr, OutputPlan, StartupMode, Step, TimeDomain, WindowKind};
use crate::error::{Error, Result};
use crate::format::{FormatSpec, JsonOptions};
use crate::sql::direct::{self, DirectPipeline, DirectSource};
use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// Default of `max-future`: one hour, as in SQL.
const MAX_FUTURE_US: i64 = 3_600_000_000;

/// What is said about the source.
#[derive(Debug)]
pub(super) struct Settings {
    pub topic: String,
    pub format: FormatSpec,
    pub domain: TimeDomain,
    pub idle_timeout_us: Option<i64>,
    pub quiet_close: bool,
    pub max_future_us: i64,
    pub startup: StartupMode,
    types: Vec<(String, DataType)>,
    event_time: Option<(String, i64)>,
}

impl Settings {
    pub fn event_time(&mut self, column: &str, bound: Duration) -> Result<()> {
        let bound_ms = window::millis(bound, "the bound of an event time")?;
        self.event_time = Some((column.to_owned(), bound_ms));
        Ok(())
    }

    pub fn column(&mut self, name: &str, data_type: DataType) -> Result<()> {
        self.types.retain(|(other, _)| other != name);
        self.types.push((name.to_owned(), data_type));
        Ok(())
    }

    /// The types that were said; a plain timestamp for an event time of which nothing was.
    fn overrides(&self) -> Vec<(String, DataType)> {
        let mut types = self.types.clone();
        if let Some((name, _)) = &self.event_time
            && !types.iter().any(|(other, _)| other == name)
        {
            types.push((name.clone(), direct::timestamp()));
        }
        types
    }

    fn source(&self, row: &[FieldRef]) -> Result<DirectSource> {
        let event_time = match &self.event_time {
            None => None,
            Some((name, bound_ms)) => {
                let index = columns::find(row, name).map_err(|error| error.context("event time"))?;
                let data_type = row[index].data_type();
                if ![direct::timestamp(), direct::timestamp_ltz()].contains(data_type) {
                    let found = direct::type_name(data_type);
                    return Err(Error::input(format!(
                        "event time must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), '{name}' is {found}"
                    )));
                }
                Some((index, *bound_ms))
            }
        };
        let declared = Arc::new(Schema::new(row.to_vec()));
        // A column that the format cannot read is told now.
        crate::format::decoder(&self.format, &declared, &(0..row.len()).collect::<Vec<_>>())?;
        Ok(DirectSource {
            topic: self.topic.clone(),
            format: self.format.clone(),
            declared,
            event_time,
            idle_timeout_us: self.idle_timeout_us,
            quiet_close: self.quiet_close,
            max_future_us: self.max_future_us,
            startup: self.startup,
        })
    }
}

/// A job as far as it has been said.
#[derive(Debug)]
pub(super) struct Draft {
    settings: Settings,
    /// Set with the first step.
    source: Option<DirectSource>,
    steps: Vec<Step>,
    row: Vec<FieldRef>,
    /// How many of the row's columns are the user's: what is carried along stands behind them.
    visible: usize,
    rowtime: Option<usize>,
    keys: Vec<NamedExpr>,
    emission: Emission,
    selected: Option<Vec<String>>,
    closures: u32,
}

impl Draft {
    pub fn new(topic: String) -> Draft {
        let settings = Settings {
            topic,
            format: FormatSpec::Json(JsonOptions::default()),
            domain: TimeDomain::Event,
            idle_timeout_us: None,
            quiet_close: false,
            max_future_us: MAX_FUTURE_US,
            startup: StartupMode::Earliest,
            types: Vec::new(),
            event_time: None,
        };
        Draft {
            settings,
            source: None,
            steps: Vec::new(),
            row: Vec::new(),
            visible: 0,
            rowtime: None,
            keys: Vec::new(),
            emission: Emission::default(),
            selected: None,
            closures: 0,
        }
    }

    pub fn set(mut self, what: &str, change: impl FnOnce(&mut Settings) -> Result<()>) -> Result<Draft> {
        if self.source.is_some() {
            let message = format!("{what} is said about the topic: it comes before filter, map and key_by");
            return Err(Error::input(message));
        }
        change(&mut self.settings)?;
        Ok(self)
    }

    /// With the source's columns, which do not change from here on.
    pub fn begun<T: DeserializeOwned>(mut self) -> Result<Draft> {
        if self.source.is_some() {
            return Ok(self);
        }
        self.row = columns::of::<T>(&self.settings.overrides())?;
        self.visible = self.row.len();
        let source = self.settings.source(&self.row)?;
        self.row.push(Arc::new(Field::new("append_time", direct::timestamp_ltz(), false)));
        self.rowtime = match self.settings.domain {
            TimeDomain::Append => Some(self.visible),
            TimeDomain::Event => source.event_time.map(|(index, _)| index),
        };
        self.source = Some(source);
        Ok(self)
    }

    /// The columns that are the fields of `T`, and expressions for them.
    fn inputs<T: DeserializeOwned>(&self) -> Result<(Vec<FieldRef>, Vec<Expr>)> {
        let names: Vec<String> = match columns::field_names::<T>() {
            Some(names) => names.iter().map(|name| (*name).to_owned()).collect(),
            None => columns::of::<T>(&[])?.iter().map(|field| field.name().clone()).collect(),
        };
        let mut inputs = (Vec::new(), Vec::new());
        for name in names {
            let index = columns::find(self.visible(), &name).map_err(|error| error.context("a closure's row"))?;
            inputs.0.push(Arc::clone(&self.row[index]));
            inputs.1.push(direct::column_expr(&name, index));
        }
        Ok(inputs)
    }

    fn visible(&self) -> &[FieldRef] {
        &self.row[..self.visible]
    }

    fn closure<T: DeserializeOwned>(
        &mut self,
        (data_type, nullable): (DataType, bool),
        work: impl Fn(Vec<T>) -> Result<ArrayRef, datafusion_common::DataFusionError> + Send + Sync + 'static,
    ) -> Result<Expr> {
        let (fields, inputs) = self.inputs::<T>()?;
        let work: Work = Arc::new(move |arrays: &[ArrayRef]| work(columns::read::<T>(&fields, arrays)?));
        self.closures += 1;
        Ok(Arc::new(Closure { label: format!("Closure{}", self.closures), inputs, data_type, nullable, work }))
    }

    pub fn filter<T: DeserializeOwned>(mut self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Result<Draft> {
        let condition = self.closure((DataType::Boolean, false), move |rows: Vec<T>| {
            Ok(Arc::new(BooleanArray::from(rows.iter().map(&keep).collect::<Vec<bool>>())) as ArrayRef)
        })?;
        self.steps.push(Step::Filter(condition));
        Ok(self)
    }

    pub fn map<T, U>(mut self, make: impl Fn(&T) -> U + Send + Sync + 'static) -> Result<Draft>
    where
        T: DeserializeOwned,
        U: Serialize + DeserializeOwned,
    {
        self.without_keys("map")?;
        let made: Fields = columns::of::<U>(&[])?.into();
        let rows_type = DataType::Struct(made.clone());
        let fields = made.clone();
        let rows = self.closure((rows_type.clone(), false), move |rows: Vec<T>| {
            columns::write(&fields, &rows.iter().map(&make).collect::<Vec<U>>())
        })?;
        // The closure's rows as one column first, so that it is called once for a row.
        let mut kept = vec![NamedExpr { expr: rows, field: Arc::new(Field::new("rows", rows_type, false)) }];
        kept.extend(self.rowtime.map(|index| self.carried(index)));
        self.project(kept);
        let rows = direct::column_expr("rows", 0);
        let field = |(index, field): (usize, &FieldRef)| {
            let expr = field_of(Arc::clone(&rows), index, field.data_type().clone(), field.is_nullable());
            NamedExpr { expr, field: Arc::clone(field) }
        };
        let mut split: Vec<NamedExpr> = made.iter().enumerate().map(field).collect();
        let visible = split.len();
        split.extend(self.rowtime.map(|_| self.carried(1)));
        self.project(split);
        self.rowtime = self.rowtime.map(|_| visible);
        self.visible = visible;
        Ok(self)
    }

    fn carried(&self, index: usize) -> NamedExpr {
        let field = &self.row[index];
        NamedExpr { expr: direct::column_expr(field.name(), index), field: Arc::clone(field) }
    }

    fn project(&mut self, columns: Vec<NamedExpr>) {
        self.row = columns.iter().map(|column| Arc::clone(&column.field)).collect();
        let schema = Arc::new(Schema::new(self.row.clone()));
        self.steps.push(Step::Project { columns, schema });
    }

    fn without_keys(&self, what: &str) -> Result<()> {
        match self.keys.is_empty() {
            true => Ok(()),
            false => Err(Error::input(format!("{what} comes before key_by"))),
        }
    }

    pub fn key(mut self, name: &str) -> Result<Draft> {
        let index = columns::find(self.visible(), name).map_err(|error| error.context("key_by"))?;
        if let DataType::Struct(_) | DataType::List(_) = self.row[index].data_type() {
            let found = direct::type_name(self.row[index].data_type());
            return Err(Error::input(format!("key_by: '{name}' is {found}, which cannot be a key")));
        }
        self.keys.push(self.carried(index));
        Ok(self)
    }

    pub fn key_with<T: DeserializeOwned, K: KeyValue>(
        mut self,
        name: &str,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Result<Draft> {
        let expr =
            self.closure((K::data_type(), false), move |rows: Vec<T>| Ok(K::column(rows.iter().map(&key).collect())))?;
        self.keys.push(NamedExpr { expr, field: Arc::new(Field::new(name, K::data_type(), false)) });
        Ok(self)
    }

    pub fn emission(mut self, lateness: Duration, early: Option<Duration>) -> Result<Draft> {
        let early = early.map(|every| match window::micros(every, "the distance of early results")? {
            0 => Err(Error::input("early results every 0 s: the distance must be positive")),
            us => Ok(us),
        });
        let lateness_ms = window::millis(lateness, "an allowed lateness")?;
        self.emission = Emission { lateness_ms, early_us: early.transpose()? };
        Ok(self)
    }

    pub fn aggregate(mut self, kind: WindowKind, aggregates: &[Aggregate]) -> Result<Draft> {
        let Some(rowtime) = self.rowtime else {
            let message = format!("windows need a time, and topic '{}' has none", self.settings.topic);
            return Err(Error::input(message).with_hint("say event_time(\"ts\", bound) or append_time()"));
        };
        let calls = aggregates.iter().map(|aggregate| aggregate.call(self.visible())).collect::<Result<Vec<_>>>()?;
        let keys = std::mem::take(&mut self.keys);
        let mut names = vec!["window_start".to_owned(), "window_end".to_owned()];
        names.extend(keys.iter().map(|key| key.field.name().clone()));
        names.extend(calls.iter().map(|call| call.field.name().clone()));
        if let WindowKind::Count { .. } = kind {
            names.push("window_reason".to_owned());
        }
        let time = self.row[rowtime].data_type().clone();
        let plan = direct::window(kind, (rowtime, &time), keys, calls);
        self.row = plan.schema.fields().to_vec();
        (self.visible, self.rowtime) = (self.row.len(), None);
        self.steps.push(Step::Aggregate(plan));
        self.selected = Some(names);
        Ok(self)
    }

    pub fn selecting(self, columns: Vec<String>) -> Draft {
        Draft { selected: Some(columns), ..self }
    }

    /// The job that writes the rows as they are.
    pub fn rows(mut self, output: Output) -> Result<StreamJob> {
        self.without_keys("to")?;
        self.selected = Some(self.visible().iter().map(|field| field.name().clone()).collect());
        // In the output the time is a column only if it is one of the row.
        let rowtime = self.rowtime.filter(|index| *index < self.visible && self.settings.domain == TimeDomain::Event);
        self.finish(rowtime, output)
    }

    /// The job that writes the results of windows.
    pub fn results(self, output: Output) -> Result<StreamJob> {
        self.finish(None, output)
    }

    fn finish(mut self, rowtime: Option<usize>, output: Output) -> Result<StreamJob> {
        let names = self.selected.take().unwrap_or_default();
        let last = selected(self.visible(), &names)?;
        let Step::Project { schema, .. } = &last else { return Err(Error::internal("a job without columns")) };
        let output: OutputPlan = output.plan(Arc::clone(schema))?;
        let name = output.table.clone();
        self.steps.push(last);
        let Some(source) = &self.source else { return Err(Error::internal("a job without a source")) };
        let pipeline =
            DirectPipeline { steps: self.steps, rowtime, time: self.settings.domain, emission: self.emission };
        Ok(StreamJob::new(direct::plan(source, pipeline, output)?, name, self.closures))
    }
}

/// What a closure can give as a key: `String`, `i32`, `i64`, `bool`.
pub trait KeyValue: Sized + Send + Sync + 'static {
    /// Type of the key's column.
    fn data_type() -> DataType;
    /// The column.
    fn column(keys: Vec<Self>) -> Arc<dyn Array>;
}

macro_rules! key_value {
    ($($type:ty, $data_type:ident, $array:ident);*) => {$(
        impl KeyValue for $type {
            fn data_type() -> DataType {
                DataType::$data_type
            }
            fn column(keys: Vec<Self>) -> Arc<dyn Array> {
                Arc::new($array::from(keys))
            }
        }
    )*};
}
key_value!(String, Utf8, StringArray; i32, Int32, Int32Array; i64, Int64, Int64Array; bool, Boolean, BooleanArray);
