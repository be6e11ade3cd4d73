//! Where results go, and the finished job.

use crate::codec::xxh64;
use crate::engine::plan::{JobPlan, OutputPlan, SinkKind};
use crate::error::{Error, Result};
use crate::format::{FormatSpec, JsonOptions};
use crate::log::Topic;
use crate::sql::direct;
use crate::types::{check_topic_name, is_reserved_output_name};
use arrow::datatypes::SchemaRef;

/// The topic that a job writes to.
#[derive(Debug, Clone)]
pub struct Output {
    topic: String,
    format: FormatSpec,
    partitions: u32,
    key: Vec<String>,
}

impl Output {
    /// A topic, which is created when the job starts if it is not there: JSON, one partition.
    pub fn topic(name: impl Into<String>) -> Output {
        let format = FormatSpec::Json(JsonOptions::default());
        Output { topic: name.into(), format, partitions: 1, key: Vec::new() }
    }

    /// How values are written.
    #[must_use]
    pub fn format(self, format: FormatSpec) -> Output {
        Output { format, ..self }
    }

    /// Partitions of the topic if it has to be created.
    #[must_use]
    pub fn partitions(self, partitions: u32) -> Output {
        Output { partitions, ..self }
    }

    /// The columns that identify a row, as `PRIMARY KEY`: they are the records' keys, and a result that no longer holds is
    /// deleted by a record without a value. Without them records have the keys of `key_by`.
    #[must_use]
    pub fn primary_key<const N: usize>(self, columns: [&str; N]) -> Output {
        Output { key: columns.map(str::to_owned).into(), ..self }
    }

    pub(super) fn plan(self, schema: SchemaRef) -> Result<OutputPlan> {
        check_topic_name(&self.topic).map_err(|why| Error::input(format!("output topic '{}': {why}", self.topic)))?;
        if is_reserved_output_name(&self.topic) {
            let message =
                format!("topic {}: the endings .late, .rejected and .vN belong to the outputs of jobs", self.topic);
            return Err(Error::input(message));
        }
        let place = |name: &String| {
            super::columns::find(schema.fields(), name).map_err(|error| error.context(format!("key of {}", self.topic)))
        };
        let primary_key = self.key.iter().map(place).collect::<Result<_>>()?;
        crate::format::encoder(&self.format, &schema)?;
        Ok(OutputPlan {
            table: self.topic.clone(),
            is_select: false,
            sink: SinkKind::Topic,
            topic: Some(self.topic),
            format: self.format,
            schema,
            primary_key,
            partitions: self.partitions,
        })
    }
}

impl From<&str> for Output {
    fn from(topic: &str) -> Output {
        Output::topic(topic)
    }
}

impl From<String> for Output {
    fn from(topic: String) -> Output {
        Output::topic(topic)
    }
}

impl From<&Topic> for Output {
    fn from(topic: &Topic) -> Output {
        Output::topic(topic.name()).partitions(topic.partitions())
    }
}

/// A job that was built in Rust: `kappa::job::Job::from` makes it one that runs, replays and is verified like one in SQL.
#[derive(Debug, Clone)]
pub struct StreamJob {
    plan: JobPlan,
    name: String,
    closures: u32,
    version: String,
}

impl StreamJob {
    pub(super) fn new(plan: JobPlan, name: String, closures: u32) -> StreamJob {
        StreamJob { plan, name, closures, version: String::new() }
    }

    /// The job's name, by which the log knows its runs; otherwise that of its output.
    #[must_use]
    pub fn named(self, name: &str) -> StreamJob {
        StreamJob { name: name.to_owned(), ..self }
    }

    /// Says which version of the closures this is. What closures do cannot be seen from outside: two jobs that differ in
    /// nothing else are the same job to the log, which goes on with what the older one wrote. Give another version with
    /// every change of a closure.
    #[must_use]
    pub fn version(self, version: &str) -> StreamJob {
        StreamJob { version: version.to_owned(), ..self }
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the job computes.
    pub fn plan(&self) -> JobPlan {
        let mut plan = self.plan.clone();
        if self.closures > 0 {
            plan.digest = xxh64(format!("{:016x} closures {:?}", plan.digest, self.version).as_bytes(), 0);
        }
        plan
    }

    /// The output's columns as SQL writes them.
    pub fn columns(&self) -> String {
        self.plan.outputs.first().map(|output| crate::sql::describe(&output.schema)).unwrap_or_default()
    }

    /// Plan and name.
    pub fn into_parts(self) -> (JobPlan, String) {
        (self.plan(), self.name)
    }
}

/// The last step's rows as columns of an output: `names` of the row, in order.
pub(super) fn selected(row: &[arrow::datatypes::FieldRef], names: &[String]) -> Result<crate::engine::plan::Step> {
    let columns = names.iter().map(|name| {
        let index = super::columns::find(row, name)?;
        Ok(crate::engine::plan::NamedExpr { expr: direct::column_expr(name, index), field: row[index].clone() })
    });
    let columns: Vec<_> = columns.collect::<Result<_>>()?;
    if let Some(twice) = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)) {
        return Err(
            Error::input(format!("the output has two columns '{}'", twice.1)).with_hint("name them apart with as_")
        );
    }
    let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    Ok(crate::engine::plan::Step::Project { columns, schema })
}
