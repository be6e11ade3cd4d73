//! `SET 'key' = 'value'`.

use super::text::{Source, nearest};
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

/// Checks a setting; `Some` is a note for the user.
pub(super) fn check(source: Source<'_>, key: (&str, Span), value: (&str, Span)) -> Result<Option<String>> {
    let ((key, key_span), (value, value_span)) = (key, value);
    if key == "table.local-time-zone" {
        return match value {
            "UTC" | "Etc/UTC" | "GMT" | "Z" | "+00:00" => Ok(None),
            _ => Err(source
                .error(value_span, format!("time zone '{value}' is not supported yet"))
                .with_hint("windows and timestamps are in UTC: SET 'table.local-time-zone' = 'UTC'")),
        };
    }
    if IGNORED.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(Some(format!("SET '{key}' means nothing here and is ignored")));
    }
    let error = source.error(key_span, format!("unknown setting '{key}'"));
    Err(match nearest(key, ["table.local-time-zone", "execution.runtime-mode", "parallelism.default"]) {
        Some(near) => error.with_hint(format!("did you mean '{near}'?")),
        None => error,
    })
}
