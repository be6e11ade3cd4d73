//! SQL files in Flink's dialect, made into a [`JobPlan`].
//!
//! The SQL parser parses queries and expressions; what it does not know (window table functions, computed columns,
//! watermarks, Flink's types) is read from its tokens with its own methods. Expressions are typed bottom up by Flink's
//! rules and become DataFusion's physical expressions, so that every error is known at its innermost place.
//!
//! Where Flink differs from what an expression engine would do on its own, Flink wins. An expression that fails on a row
//! (a CAST, a division by zero, NULL for a NOT NULL column) is an error of the evaluation: the row is rejected.
//!
//! | subject | rule | test (`tests/expressions.rs`) |
//! |---|---|---|
//! | integer arithmetic | keeps the wider type, wraps as Java, INT / INT is INT, % has the right operand's type | `arithmetic` |
//! | DECIMAL | Flink's precision and scale; too many digits give NULL; half up; `1.5` is DECIMAL(2, 1) | `arithmetic` |
//! | division by zero | the row fails | `rows_that_fail` |
//! | comparison of text with numbers | refused; a text constant beside a date or timestamp is read as one | `conditions` |
//! | LIKE | no escape character unless ESCAPE names one | `conditions` |
//! | CAST | fails the row; TRY_CAST is NULL; narrowing as in Java; `1.0E10`, `TRUE`; timestamps with three digits | `casts` |
//! | CHAR(n), VARCHAR(n) | a length counts in CAST only, as in Flink's sinks by default | `casts` |
//! | CONCAT, `\|\|` | NULL if a part is; CONCAT_WS leaves NULLs out | `texts` |
//! | SUBSTRING | from 1, from the end below 0, characters | `texts` |
//! | FLOOR, CEIL, EXTRACT, TIMESTAMPADD, TIMESTAMPDIFF | Flink's units; a week of FLOOR starts on Sunday, WEEK is ISO's | `times` |
//! | TO_TIMESTAMP | NULL where the text does not match; Java's patterns (subset) | `times` |
//! | CURRENT_TIMESTAMP, NOW, PROCTIME, LOCALTIMESTAMP, CURRENT_DATE | the record's append time | `times` |
//! | TIMESTAMP_LTZ | shown, read and cut in 'table.local-time-zone', UTC by default; a setting holds for definitions above it, too | `zones.rs` |
//! | functions registered in Rust | types as declared, arguments widened to them; never evaluated while planning | `aggregates.rs` |
//! | RAND, UUID | refused: a replay would differ | `errors.rs` |
//! | arrays | from 1, NULL outside | `nested_values` |
//! | aggregates | types in [`crate::engine::plan::AggregateFunction`] | `files.rs`, `aggregates.rs` |
//! | VAR_POP, STDDEV and relatives | from sums, in the types of the arithmetic: INT stays INT; DISTINCT is refused | `aggregates.rs` |
//! | ARRAY_AGG, LISTAGG | in position order; NULLs are in an ARRAY_AGG unless IGNORE NULLS, not in a LISTAGG | `aggregates.rs` |
//! | PERCENTILE | exact, without a frequency; a constant fraction or an ARRAY of them | `aggregates.rs` |
//! | STRING_AGG, BOOL_AND, EVERY, BOOL_OR, APPROX_COUNT_DISTINCT, APPROX_PERCENTILE | Flink has none of them in streams | `aggregates.rs` |
//! | windows over windows | GROUP BY the window's columns again, or a window function over `window_time` | `windows.rs` |
//! | ROW_NUMBER | per window, with a bound around it; one row by the time, latest first, keeps the last of equal ones | `windows.rs` |
//! | PROCTIME() | windows over it are windows of append time | `windows.rs` |
//! | CREATE CHECK name AS SELECT | rows are failures; no part of the job: Flink refuses such a file | `tests/suite/checks.rs` |
//! | HOP, COUNT_WINDOW, 'table.exec.emit.*' | any slide; records and a timeout; lateness and early results of one window: beyond Flink | `windows.rs` |

mod aggregate;
mod arithmetic;
mod assemble;
mod branch;
mod call;
mod cast;
mod check;
mod digest;
pub(crate) mod direct;
mod expr;
mod file;
mod functions;
mod grouped;
mod interval;
mod options;
mod prune;
mod query;
mod rank;
mod scope;
mod select;
mod settings;
mod spread;
mod table;
mod text;
mod types;
mod window;
mod windowed;

#[cfg(test)]
mod tests;

pub use check::{CheckPlan, Severity};

use crate::engine::functions::FunctionRegistry;
use crate::engine::plan::{Expr, JobPlan};
use crate::env;
use crate::error::{Error, Result};
use arrow::datatypes::{FieldRef, Schema};
use std::path::Path;

/// Stack for planning in bytes: parser and binder recurse, as deep as `text` lets statements be.
const STACK: usize = 64 << 20;

/// Plans a SQL file: every `INSERT INTO` and bare `SELECT` of it is one job.
///
/// `file_name` is used in errors only. Topic names of bare `SELECT`s are `select-N`, without the job's name.
///
/// # Errors
/// [`crate::ErrorKind::Input`] with the place in the file, and a hint where one is known.
pub fn plan(file_name: &str, text: &str) -> Result<JobPlan> {
    plan_with(file_name, text, FunctionRegistry::none())
}

/// Plans a SQL file that may call functions registered in Rust.
///
/// # Errors
/// As [`plan`]; and when a function is registered under a name that SQL has.
pub fn plan_with(file_name: &str, text: &str, functions: &FunctionRegistry) -> Result<JobPlan> {
    plan_all(file_name, text, functions).map(|(job, _)| job)
}

/// The checks of a SQL file, in order. They are no part of its job.
///
/// # Errors
/// As [`plan_with`].
pub fn checks_with(file_name: &str, text: &str, functions: &FunctionRegistry) -> Result<Vec<CheckPlan>> {
    plan_all(file_name, text, functions).map(|(_, checks)| checks)
}

fn plan_all(file_name: &str, text: &str, functions: &FunctionRegistry) -> Result<(JobPlan, Vec<CheckPlan>)> {
    if let Some(name) = functions.names().find(|name| call::is_known(name)) {
        return Err(Error::input(format!("a function was registered as {name}, which SQL has already"))
            .with_hint("register it under another name"));
    }
    let source = text::Source { file: file_name, functions };
    let planned = env::thread::with_stack("plan", STACK, || file::plan(source, text));
    planned.map_err(|cause| Error::io("cannot start a thread to plan", Path::new(file_name), cause))?
}

/// What `WATERMARK FOR column AS column - INTERVAL ..` of so many ms means for a TIMESTAMP column of a row.
///
/// # Errors
/// `Internal` if the column is no timestamp.
pub fn watermark_behind(row: &Schema, column: usize, behind_ms: i64) -> Result<Expr> {
    let field = row.field(column);
    let time = expr::Typed::column(field.name(), column, field.data_type().clone(), field.is_nullable());
    let behind = expr::Typed::literal(interval::Interval::Millis(behind_ms).scalar());
    arithmetic::minus(time, behind).map(|watermark| watermark.expr).map_err(Error::internal)
}

/// The columns of a schema as Flink writes them: `a BIGINT, b STRING NOT NULL`.
pub fn describe(schema: &Schema) -> String {
    let column = |field: &FieldRef| {
        let null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{null}", field.name(), types::name(field.data_type()))
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}
