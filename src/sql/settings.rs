//! `SET 'key' = 'value'`.

use super::interval::duration_us;
use super::text::{Source, nearest};
use crate::engine::plan::{Emission, Zone};
use crate::error::Result;
use sqlparser::tokenizer::Span;

/// Beginnings of Flink's keys that mean nothing here.
const IGNORED: &[&str] = &[
    "execution.",
    "parallelism.",
    "pipeline.",
    "state.",
    "restart-strategy",
    "rest.",
    "sql-client.",
    "table.exec.",
    "table.optimizer.",
    "table.dml-sync",
    "table.display.",
    "table.sql-dialect",
    "taskmanager.",
    "jobmanager.",
    "metrics.",
    "job.",
    "yarn.",
    "kubernetes.",
    "security.",
    "env.",
    "classloader.",
    "cluster.",
    "high-availability",
];

/// Settings that mean something here.
const KNOWN: &[&str] = &[ZONE, LATENESS, EARLY, EARLY_DELAY, CHECKPOINTS];
const ZONE: &str = "table.local-time-zone";
const LATENESS: &str = "table.exec.emit.allow-lateness";
const EARLY: &str = "table.exec.emit.early-fire.enabled";
const CHECKPOINTS: &str = "execution.checkpointing.interval";
const EARLY_DELAY: &str = "table.exec.emit.early-fire.delay";

/// What was set for the statements that follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// `table.local-time-zone`; `None`: UTC.
    pub zone: Option<Zone>,
    lateness_ms: i64,
    /// Early results were asked for here.
    early: Option<Span>,
    early_us: Option<i64>,
    /// `execution.checkpointing.interval`: of the whole file.
    pub checkpoint_interval_us: Option<u64>,
}

impl Settings {
    /// Takes a setting; `Some` is a note for the user.
    pub fn set(&mut self, source: Source<'_>, key: (&str, Span), value: (&str, Span)) -> Result<Option<String>> {
        let ((key, key_span), (value, value_span)) = (key, value);
        let bad = |expected: &str| source.error(value_span, format!("'{key}' = '{value}': expected {expected}"));
        let duration = || duration_us(value).ok_or_else(|| bad("a duration such as '10 s' or '5 min'"));
        match key {
            ZONE => self.zone = zone(value).ok_or_else(|| bad("a time zone such as 'Europe/Berlin' or 'UTC+05:30'"))?,
            LATENESS => self.lateness_ms = duration()? / 1000,
            EARLY => {
                self.early = match value.to_ascii_lowercase().as_str() {
                    "true" => Some(value_span),
                    "false" => None,
                    _ => return Err(bad("'true' or 'false'")),
                }
            }
            CHECKPOINTS => self.checkpoint_interval_us = u64::try_from(duration()?).ok().filter(|us| *us > 0),
            EARLY_DELAY => self.early_us = Some(duration()?).filter(|us| *us > 0),
            _ if IGNORED.iter().any(|prefix| key.starts_with(prefix)) => {
                return Ok(Some(format!("SET '{key}' means nothing here and is ignored")));
            }
            _ => {
                let error = source.error(key_span, format!("unknown setting '{key}'"));
                let others = ["execution.runtime-mode", "parallelism.default"];
                return Err(match nearest(key, KNOWN.iter().copied().chain(others)) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error,
                });
            }
        }
        Ok(None)
    }

    /// When the windows of a statement are emitted beside their end.
    pub fn emission(&self, source: Source<'_>) -> Result<Emission> {
        let early_us = match (self.early, self.early_us) {
            (None, _) => None,
            (Some(_), Some(us)) => Some(us),
            (Some(span), None) => {
                let message = format!("early results need a delay: '{EARLY_DELAY}'");
                return Err(source.error(span, message).with_hint(format!("SET '{EARLY_DELAY}' = '10 s'")));
            }
        };
        Ok(Emission { lateness_ms: self.lateness_ms, early_us })
    }
}

/// A zone; the inner `None` is UTC.
fn zone(text: &str) -> Option<Option<Zone>> {
    // Flink's default is the zone of the machine; here it is the same everywhere.
    if text == "default" { Some(None) } else { Zone::parse(text) }
}
