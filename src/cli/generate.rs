//! `kappa generate`: made-up events into a topic, a file or stdout.

use super::Status;
use super::args::{Generate, Target};
use super::context::Context;
use super::progress::Progress;
use super::units::parse_duration_us;
use crate::connect::generated::{self, Pace, Watch};
use crate::connect::interrupt::StopFlag;
use crate::env::OpenMode;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::nexmark::{NexmarkEvents, NexmarkOptions, SEED_MAX, SHUFFLE_PRIME};
use crate::generate::web::{WebEvents, WebOptions};
use crate::generate::{Maker, START_MS};
use crate::job::parse_time_ms;
use crate::log::{Log, Topic, TopicConfig};
use std::io;
use std::path::Path;

const EVENTS: u64 = 1_000_000;

/// Most time that an option can ask for: a year.
const SPAN_MAX_US: i64 = 366 * 86_400_000_000;

pub(super) fn run(context: &Context, args: Generate) -> Result<Status> {
    let target = args.target();
    match (target.topic.as_deref(), target.out.as_deref()) {
        (Some(topic), _) => into_topic(context, &args, target, topic),
        (None, Some(out)) if out.as_os_str() == "-" => into_stdout(context, &args, target),
        (None, Some(out)) => into_file(context, &args, target, out),
        (None, None) => Err(Error::internal("neither --topic nor --out")),
    }
    .map(|()| Status::Done)
}

impl Generate {
    /// Where the events go.
    pub(super) fn target(&self) -> &Target {
        let (Generate::WebEvents { target, .. } | Generate::Nexmark { target, .. }) = self;
        target
    }
}

/// The maker of the events, with every option checked.
fn maker(args: &Generate, partitions: u32) -> Result<Box<dyn Maker>> {
    match args {
        Generate::WebEvents { target, events_per_second, users, disorder, late, late_by, future, silent } => {
            if *silent >= partitions {
                return Err(Error::input(format!("--silent {silent} leaves none of {partitions} partitions"))
                    .with_hint("--partitions makes more"));
            }
            let options = WebOptions {
                seed: target.seed,
                start_ms: start_ms(target)?,
                events_per_s: *events_per_second,
                users: *users,
                partitions,
                silent: *silent,
                disorder_ms: span_ms("--disorder", disorder)?,
                late_share: share("--late", *late)?,
                late_by_ms: span_ms("--late-by", late_by)?.max(1),
                future_share: share("--future", *future)?,
            };
            Ok(Box::new(WebEvents::new(options)))
        }
        Generate::Nexmark { target, events_per_second, group } => {
            if target.seed > SEED_MAX {
                return Err(Error::input(format!("--seed {}: Nexmark has seeds up to {SEED_MAX}", target.seed)));
            }
            if group.is_multiple_of(SHUFFLE_PRIME) {
                let wrong = format!("--group {group}: Nexmark cannot shuffle groups of a multiple of {SHUFFLE_PRIME}");
                return Err(Error::input(wrong).with_hint("use a round number, such as 1000"));
            }
            let options = NexmarkOptions {
                seed: target.seed,
                start_ms: start_ms(target)?,
                events_per_s: *events_per_second,
                partitions,
                group: *group,
            };
            Ok(Box::new(NexmarkEvents::new(options)))
        }
    }
}

fn start_ms(target: &Target) -> Result<i64> {
    let ms = parse_time_ms(&target.start).map_err(|e| e.context("--start"))?;
    if START_MS.contains(&ms) {
        Ok(ms)
    } else {
        Err(Error::input(format!("--start {}: years from 1970 to 8999", target.start)))
    }
}

fn span_ms(option: &str, text: &str) -> Result<i64> {
    match parse_duration_us(text).map_err(|e| e.context(option))? {
        0..=SPAN_MAX_US => Ok(parse_duration_us(text)? / 1000),
        _ => Err(Error::input(format!("{option} {text}: at most 366d"))),
    }
}

fn share(option: &str, share: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(Error::input(format!("{option} {share}: a share lies between 0 and 1")))
    }
}

fn pace(target: &Target) -> Pace {
    let events = target.events.unwrap_or(if target.rate.is_some() { u64::MAX } else { EVENTS });
    Pace { events, per_s: target.rate }
}

/// Shows progress, and ends at Ctrl-C.
struct Shown {
    progress: Progress,
    stop: StopFlag,
}

impl Shown {
    fn new(context: &Context, what: &str, pace: &Pace) -> Result<Shown> {
        let total = (pace.events < u64::MAX).then_some(pace.events);
        Ok(Shown { progress: context.progress(what, total, "events"), stop: context.stop_flag()? })
    }
}

impl Watch for Shown {
    fn on_progress(&mut self, events: u64) {
        self.progress.at(events);
    }

    fn should_stop(&mut self) -> bool {
        self.stop.is_set()
    }
}

fn into_topic(context: &Context, args: &Generate, target: &Target, name: &str) -> Result<()> {
    // What the options ask is checked before anything is made.
    maker(args, target.partitions.unwrap_or(u32::MAX))?;
    let log = context.open_log_to_write(&target.writing)?;
    let topic = ensure_topic(&log, name, target.partitions)?;
    let mut maker = maker(args, topic.partitions())?;
    let pace = pace(target);
    let mut shown = Shown::new(context, &format!("to '{name}'"), &pace)?;
    let made = generated::into_topic(&log, &topic, &mut *maker, &pace, &mut shown);
    drop(shown);
    context.talk(&format!("{} events in topic '{name}'", made?));
    context.close(log)
}

fn ensure_topic(log: &Log, name: &str, partitions: Option<u32>) -> Result<Topic> {
    match log.topic(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            log.create_topic(name, TopicConfig { partitions: partitions.unwrap_or(1), ..TopicConfig::default() })
        }
        Ok(topic) if partitions.is_some_and(|asked| asked != topic.partitions()) => {
            Err(Error::new(ErrorKind::Conflict, format!("topic '{name}' has {} partitions", topic.partitions()))
                .with_hint("leave --partitions out, or name another topic"))
        }
        found => found,
    }
}

fn into_stdout(context: &Context, args: &Generate, target: &Target) -> Result<()> {
    let mut maker = maker(args, target.partitions.unwrap_or(1))?;
    let pace = pace(target);
    let mut shown = Shown::new(context, "to stdout", &pace)?;
    let mut write = |_: u64, lines: &[u8]| context.show(lines);
    generated::into_lines(&context.env, &mut *maker, &pace, &mut shown, &mut write).map(drop)
}

fn into_file(context: &Context, args: &Generate, target: &Target, path: &Path) -> Result<()> {
    let mut maker = maker(args, target.partitions.unwrap_or(1))?;
    let pace = pace(target);
    let file = context.env.disk.open(path, OpenMode::CreateNew).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, format!("'{}' exists", path.display())).with_hint("name a new file")
        }
        _ => Error::io("cannot create", path, e),
    })?;
    let mut shown = Shown::new(context, &format!("to '{}'", path.display()), &pace)?;
    let io = |e| Error::io("cannot write", path, e);
    let mut write = |at: u64, lines: &[u8]| file.write_all_at(at, lines).map_err(io);
    let made = generated::into_lines(&context.env, &mut *maker, &pace, &mut shown, &mut write);
    drop(shown);
    context.talk(&format!("{} events in '{}'", made?, path.display()));
    file.sync_data().map_err(io)
}
