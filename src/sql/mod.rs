//! SQL files in Flink's dialect, made into a [`JobPlan`].

mod aggregate;
mod arithmetic;
mod assemble;
mod branch;
mod call;
mod cast;
mod digest;
mod expr;
mod file;
mod functions;
mod interval;
mod options;
mod prune;
mod query;
mod settings;
mod table;
mod text;
mod types;
mod window;

#[cfg(test)]
mod tests;

use crate::engine::plan::JobPlan;
use crate::env;
use crate::error::{Error, Result};
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
    let planned = env::thread::with_stack("plan", STACK, || file::plan(text::Source { file: file_name }, text));
    planned.map_err(|cause| Error::io("cannot start a thread to plan", Path::new(file_name), cause))?
}
