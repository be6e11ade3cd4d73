//! `--state-memory`, wherever jobs run.

use super::context::Context;
use super::units::parse_bytes;
use crate::error::{Error, Result};
use crate::state::spill::Budget;
use clap::Args as ClapArgs;
use std::sync::Arc;

#[derive(Debug, ClapArgs)]
pub(super) struct MemoryArgs {
    /// Memory for the state of windows, of all jobs together. What is beyond it goes to disk, but for ranked rows; the output
    /// is the same with any [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    state_memory: Option<String>,
}

impl MemoryArgs {
    /// The budget that is asked for; else that of the process which the command was handed to, else that of the machine.
    pub fn budget(&self, context: &Context) -> Result<Arc<Budget>> {
        let Some(text) = &self.state_memory else { return Ok(context.budget()) };
        match parse_bytes(text).map_err(|e| e.context("--state-memory"))? {
            0 => Err(Error::input("--state-memory 0: state needs some memory").with_hint("for example 512MiB")),
            bytes => Ok(Budget::new(bytes)),
        }
    }
}
