//! `kappa generate`: made-up events into a topic, a file or stdout.

use super::args::{Common, Generate, Target};
use super::progress::Progress;
use super::units::parse_duration_us;
use super::{Status, open_log_to_write, stdout_error, talk};
use crate::connect::generated::{self, Pace, Watch};
use crate::connect::interrupt::{StopFlag, stop_on_signal};
use crate::env::{Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::generate::nexmark::{NexmarkEvents, NexmarkOptions, SEED_MAX, SHUFFLE_PRIME};
use crate::generate::web::{WebEvents, WebOptions};
use crate::generate::{Maker, START_MS};
use crate::job::parse_time_ms;
use crate::log::{Log, Topic, TopicConfig};
use std::io::{self, Write};
use std::path::Path;

const EVENTS: u64 = 1_000_000;

/// Most time that an option can ask for: a year.
const SPAN_MAX_US: i64 = 366 * 86_400_000_000;

pub(super) fn run(env: &Env, common: &Common, args: Generate) -> Result<Status> {
    match &args {
        Generate::WebEvents { target, .. } | Generate::Nexmark { target, .. } => {
            match (target.topic.as_deref(), target.out.as_deref()) {
                (Some(topic), _) => into_topic(env, common, &args, target, topic),
                (None, Some(out)) if out.as_os_str() == "-" => into_stdout(env, &args, target),
                (None, Some(out)) => into_file(env, &args, target, out),
                (None, None) => Err(Error::internal("neither --topic nor --out")),
            }
        }
    }
    .map(|()| Status::Done)
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
    fn new(what: &str, pace: &Pace) -> Result<Shown> {
        let total = (pace.events < u64::MAX).then_some(pace.events);
        Ok(Shown { progress: Progress::new(what, total, "events"), stop: stop_on_signal()? })
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

fn into_topic(env: &Env, common: &Common, args: &Generate, target: &Target, name: &str) -> Result<()> {
    // What the options ask is checked before anything is made.
    maker(args, target.partitions.unwrap_or(u32::MAX))?;
    let log = open_log_to_write(env, common, &target.writing)?;
    let topic = ensure_topic(&log, name, target.partitions)?;
    let mut maker = maker(args, topic.partitions())?;
    let pace = pace(target);
    let mut shown = Shown::new(&format!("to '{name}'"), &pace)?;
    let made = generated::into_topic(&log, &topic, &mut *maker, &pace, &mut shown);
    drop(shown);
    talk(&format!("{} events in topic '{name}'", made?));
    log.close()
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

fn into_stdout(env: &Env, args: &Generate, target: &Target) -> Result<()> {
    let mut maker = maker(args, target.partitions.unwrap_or(1))?;
    let pace = pace(target);
    let mut shown = Shown::new("to stdout", &pace)?;
    let mut out = io::stdout().lock();
    let mut write = |_: u64, lines: &[u8]| out.write_all(lines).and_then(|()| out.flush()).map_err(stdout_error);
    generated::into_lines(env, &mut *maker, &pace, &mut shown, &mut write).map(drop)
}

fn into_file(env: &Env, args: &Generate, target: &Target, path: &Path) -> Result<()> {
    let mut maker = maker(args, target.partitions.unwrap_or(1))?;
    let pace = pace(target);
    let file = env.disk.open(path, OpenMode::CreateNew).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, format!("'{}' exists", path.display())).with_hint("name a new file")
        }
        _ => Error::io("cannot create", path, e),
    })?;
    let mut shown = Shown::new(&format!("to '{}'", path.display()), &pace)?;
    let io = |e| Error::io("cannot write", path, e);
    let mut write = |at: u64, lines: &[u8]| file.write_all_at(at, lines).map_err(io);
    let made = generated::into_lines(env, &mut *maker, &pace, &mut shown, &mut write);
    drop(shown);
    talk(&format!("{} events in '{}'", made?, path.display()));
    file.sync_data().map_err(io)
}
