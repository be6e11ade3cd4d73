//! `kappa promote`.

use super::args::Common;
use super::job_args::Promote;
use super::progress::Progress;
use super::{Status, open_log, talk};
use crate::connect::interrupt::{StopFlag, stop_on_signal};
use crate::engine::Counters;
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::Result;
use crate::job::registry::{label, parse_label};
use crate::job::{self, Observer};
use crate::types::Position;
use crate::window::IsoMs;

struct Watch(Progress, StopFlag);

impl Observer for Watch {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.0.at(position.0);
    }

    fn on_note(&mut self, note: &str) {
        self.0.note(note);
    }

    fn should_stop(&self) -> bool {
        self.1.is_set()
    }
}

pub(super) fn run(env: &Env, common: &Common, functions: &FunctionRegistry, args: Promote) -> Result<Status> {
    let to = args.version.as_deref().map(parse_label).transpose()?;
    // Before the log is opened: from then on Ctrl-C must end the runs well.
    let stop = stop_on_signal()?;
    let log = open_log(env, common)?;
    let mut watch = Watch(Progress::new("bringing both up", Some(log.durable_end().0), "positions"), stop);
    let promoted = job::promote(&log, functions, &args.name, to, args.force, &mut watch)?;
    drop(watch);
    let switch = &promoted.switch;
    talk(&format!(
        "job '{}': {} is live from position {} on, instead of {}",
        args.name,
        label(switch.to),
        switch.position,
        label(switch.from)
    ));
    for ((topic, copied), output) in promoted.outputs.iter().zip(&switch.outputs) {
        talk(&match output.cut_ms {
            None => format!("  {topic}: every row from there on"),
            Some(i64::MIN) => format!("  {topic}: every window; {copied} rows copied"),
            Some(cut) => format!("  {topic}: windows that end after {}; {copied} rows copied", IsoMs(cut)),
        });
    }
    log.close()?;
    Ok(Status::Done)
}
