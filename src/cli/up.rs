//! `kappa up`.

use super::args::Common;
use super::job_args::Up;
use super::{Status, open_log_to_write, talk};
use crate::connect::interrupt::{StopFlag, stop_on_signal};
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::Result;
use crate::job::{self, Watch};

struct Events(StopFlag);

impl Watch for Events {
    fn on_event(&mut self, event: &str) {
        talk(event);
    }

    fn should_stop(&self) -> bool {
        self.0.is_set()
    }
}

pub(super) fn run(env: &Env, common: &Common, functions: &FunctionRegistry, args: Up) -> Result<Status> {
    // Before the log is opened: from then on Ctrl-C must end the jobs well.
    let mut events = Events(stop_on_signal()?);
    let log = open_log_to_write(env, common, &args.writing)?;
    let ran = job::up(&log, functions, args.memory.budget(env)?, args.stop_when_idle, &mut events);
    let closed = log.close();
    ran.and(closed)?;
    Ok(Status::Done)
}
