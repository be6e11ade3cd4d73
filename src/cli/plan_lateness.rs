//! `kappa plan-lateness`: what each delay of the watermark would drop, and which one to take.

use super::Status;
use super::args::PlanLateness;
use super::context::Context;
use super::units::{format_duration_us, parse_duration_us};
use crate::error::{Error, Result};
use crate::job::{self, Behind, BoundCount};
use serde_json::{Value, json};

/// Longest delay that can be tried: ten years.
const DELAY_MAX_US: i64 = 3_653 * 86_400_000_000;

pub(super) fn run(context: &Context, args: PlanLateness) -> Result<Status> {
    if !(0.0..=1.0).contains(&args.may_drop) {
        return Err(Error::input(format!("--may-drop {}: a share lies between 0 and 1", args.may_drop)));
    }
    let delays = args.delays.as_deref().map(|delays| delays.iter().map(|text| delay_ms(text)).collect()).transpose()?;
    let delays: Option<Vec<i64>> = delays;
    let job = context.load_job(&args.file, None)?;
    let printer = context.printer(&args.show);
    let log = context.open_log()?;
    let mut watch = context.recomputing("counting", &log)?;
    let plan = job::plan_lateness(&log, &job, delays.as_deref(), args.may_drop, &mut watch)?;
    watch.done()?;
    plan.sources.iter().for_each(|source| tell(context, source));
    printer.table(
        &["output", "delay", "delay_ms", "declared", "dropped", "dropped_share", "revisions", "recommended"],
        &plan.bounds.iter().map(row).collect::<Vec<_>>(),
    )?;
    context.close(log)?;
    Ok(Status::Done)
}

fn delay_ms(text: &str) -> Result<i64> {
    match parse_duration_us(text).map_err(|e| e.context("--delays"))? {
        us @ 0..=DELAY_MAX_US => Ok(us / 1000),
        _ => Err(Error::input(format!("--delays {text}: at most ten years"))),
    }
}

fn duration(ms: i64) -> String {
    format_duration_us(ms.saturating_mul(1000))
}

/// A distance for people: it is rounded already.
fn rough(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{:.1} min", ms as f64 / 6e4),
        3_600_000..172_800_000 => format!("{:.1} h", ms as f64 / 3.6e6),
        _ => format!("{:.1} days", ms as f64 / 8.64e7),
    }
}

fn tell(context: &Context, behind: &Behind) {
    let shares = behind.shares.iter().map(|(share, ms)| format!("{} % of them at most {}", share * 100.0, rough(*ms)));
    let declared =
        behind.declared_ms.map_or_else(|| "various delays".to_owned(), |ms| format!("a delay of {}", duration(ms)));
    context.talk(&format!(
        "'{}' declares {declared}; its {} records lie behind the newest of their partition: {}",
        behind.table,
        behind.records,
        shares.collect::<Vec<_>>().join(", ")
    ));
}

fn row(bound: &BoundCount) -> Vec<Value> {
    vec![
        json!(bound.output),
        json!(duration(bound.delay_ms)),
        json!(bound.delay_ms),
        json!(bound.is_declared),
        json!(bound.dropped),
        json!((bound.share * 1e6).round() / 1e6),
        json!(bound.revisions),
        json!(bound.is_recommended),
    ]
}
