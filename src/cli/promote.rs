//! `kappa promote`.

use super::Status;
use super::context::Context;
use super::job_args::Promote;
use crate::error::Result;
use crate::job;
use crate::job::registry::{label, parse_label};
use crate::window::IsoMs;

pub(super) fn run(context: &Context, args: Promote) -> Result<Status> {
    let to = args.version.as_deref().map(parse_label).transpose()?;
    let log = context.open_log()?;
    let mut watch = context.recomputing("bringing both up", &log)?;
    let promoted = job::promote(&log, &context.functions, &args.name, to, args.force, &mut watch)?;
    drop(watch);
    let switch = &promoted.switch;
    context.talk(&format!(
        "job '{}': {} is live from position {} on, instead of {}",
        args.name,
        label(switch.to),
        switch.position,
        label(switch.from)
    ));
    for ((topic, copied), output) in promoted.outputs.iter().zip(&switch.outputs) {
        context.talk(&match output.cut_ms {
            None => format!("  {topic}: every row from there on"),
            Some(i64::MIN) => format!("  {topic}: every window; {copied} rows copied"),
            Some(cut) => format!("  {topic}: windows that end after {}; {copied} rows copied", IsoMs(cut)),
        });
    }
    context.close(log)?;
    Ok(Status::Done)
}
