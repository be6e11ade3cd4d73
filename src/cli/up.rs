//! `kappa up`.

use super::Status;
use super::context::Context;
use super::job_args::Up;
use crate::connect::interrupt::StopFlag;
use crate::error::Result;
use crate::job::{self, Watch};
use std::sync::Arc;

struct Events<'a>(&'a Context, StopFlag);

impl Watch for Events<'_> {
    fn on_event(&mut self, event: &str) {
        self.0.talk(event);
    }

    fn should_stop(&self) -> bool {
        self.1.is_set()
    }
}

pub(super) fn run(context: &Context, args: Up) -> Result<Status> {
    // Before the log is opened: from then on Ctrl-C must end the jobs well.
    let mut events = Events(context, context.stop_flag()?);
    let budget = args.memory.budget(context)?;
    let log = context.open_log_to_write(&args.writing)?;
    let host = context.host(&log, Some(Arc::clone(&budget)));
    let ran = job::up(&log, &context.functions, budget, args.stop_when_idle, &mut events);
    drop(host);
    let closed = context.close(log);
    ran.and(closed)?;
    Ok(Status::Done)
}
