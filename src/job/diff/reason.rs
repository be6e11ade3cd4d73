//! Why rows of two versions differ, from what the log knows of the runs that wrote them.

use super::side::Side;
use crate::error::{Error, Result};
use crate::job::{self, Observer, RunRecord, checkpoint, registry};
use crate::log::Log;
use crate::log::records::decode_headers;
use crate::types::Position;
use arrow::array::Array;
use std::collections::BTreeMap;

/// Why a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The runs began at different places, one of them with a state, or published from different times on, and the window reaches back to
    /// there.
    Start,
    /// Not the same number of records was too late for the window.
    Late,
    /// The runs computed different things.
    Code,
    /// Nothing of that: somebody else wrote, a function gives different answers, or the runs have not come equally far.
    Unknown,
}

impl Why {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Why::Start => "start",
            Why::Late => "late records",
            Why::Code => "code",
            Why::Unknown => "unknown",
        }
    }
}

/// What is known of two runs.
pub(super) struct Reasons {
    is_other_code: bool,
    /// Windows that start at this time or before reach back to where only one of the runs was.
    partial_until_ms: Option<i64>,
    /// Windows that start before are published by one of the runs only.
    published_from_ms: Option<i64>,
    /// By end of the window: records that were too late for it, on either side.
    late: BTreeMap<i64, (u64, u64)>,
}

impl Reasons {
    pub fn new(log: &Log, a: &Side<'_>, b: &Side<'_>, observer: &dyn Observer) -> Result<Reasons> {
        let runs = job::runs(log)?;
        let live: Vec<(String, String)> = registry::all(log)?
            .into_iter()
            .map(|job| {
                (format!("{}.{}", job.name, registry::label(job.live)), format!(".{}", registry::label(job.live)))
            })
            .collect();
        let run_of = |side: &Side<'_>| {
            let topic = side.topic.name();
            let writes = |run: &RunRecord, ending: &str| {
                run.outputs.iter().any(|output| output.strip_suffix(ending) == Some(topic))
            };
            let own = runs.iter().find(|(_, run)| writes(run, ""));
            let of_live = |(key, run): &&(String, RunRecord)| {
                live.iter().any(|(live, ending)| live == key && writes(run, ending))
            };
            own.or_else(|| runs.iter().find(of_live))
        };
        // At one place, a run with a state knows what came before; one without does not.
        let first = |(key, run): &(String, RunRecord)| {
            Some((run.starts.iter().copied().min()?, !checkpoint::has_base(log, key)))
        };
        let (named_a, named_b) = (run_of(a), run_of(b));
        let later = match (named_a.and_then(first), named_b.and_then(first)) {
            (Some(start_a), Some(start_b)) if start_a > start_b => Some(a),
            (Some(start_a), Some(start_b)) if start_a < start_b => Some(b),
            _ => None,
        };
        let (run_a, run_b) = (named_a.map(|(_, run)| run), named_b.map(|(_, run)| run));
        let published = |run: Option<&RunRecord>| run.and_then(|run| run.publish_from_ms);
        let mut late: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        count_late(log, a, observer, |end| late.entry(end).or_default().0 += 1)?;
        count_late(log, b, observer, |end| late.entry(end).or_default().1 += 1)?;
        late.retain(|_, (a, b)| a != b);
        Ok(Reasons {
            is_other_code: run_a.zip(run_b).is_some_and(|(a, b)| a.plan_digest != b.plan_digest),
            partial_until_ms: later.map_or(Ok(None), |side| first_time(log, side))?,
            published_from_ms: if published(run_a) == published(run_b) {
                None
            } else {
                published(run_a).max(published(run_b))
            },
            late,
        })
    }

    pub fn of(&self, window_end_ms: Option<i64>, window_start_ms: Option<i64>) -> Why {
        let begin = window_start_ms.or(window_end_ms.map(|end| end.saturating_sub(1)));
        let is_before = |limit: Option<i64>, inclusive: bool| {
            begin.zip(limit).is_some_and(|(begin, limit)| begin < limit || inclusive && begin == limit)
        };
        if is_before(self.partial_until_ms, true) || is_before(self.published_from_ms, false) {
            return Why::Start;
        }
        if window_end_ms.is_some_and(|end| self.late.contains_key(&end)) {
            return Why::Late;
        }
        if self.is_other_code { Why::Code } else { Why::Unknown }
    }
}

/// The time of the first row: windows that begin up to it may lack what came before the run.
fn first_time(log: &Log, side: &Side<'_>) -> Result<Option<i64>> {
    let first = log.reader(&[side.topic.id()], Position(0)).next(log.durable_end())?;
    Ok(first.filter(|batch| !batch.is_empty()).and_then(|batch| batch.timestamp_ms(0)))
}

/// Shows the end of each window that a late record missed.
fn count_late(log: &Log, side: &Side<'_>, observer: &dyn Observer, mut missed: impl FnMut(i64)) -> Result<()> {
    let Ok(topic) = log.topic(&format!("{}.late", side.topic.name())) else { return Ok(()) };
    let mut reader = log.reader(&[topic.id()], Position(0));
    while let Some(batch) = reader.next(log.durable_end())? {
        job::check_wanted(observer)?;
        for row in (0..batch.len()).filter(|row| batch.headers.is_valid(*row)) {
            let headers = decode_headers(batch.headers.value(row))
                .map_err(|e| Error::damage("the headers of a late record").with_source(e))?;
            // The record's own headers come first.
            let windows = headers.iter().rev().find(|(name, _)| *name == "windows").and_then(|(_, value)| *value);
            let windows = windows.map(|windows| String::from_utf8_lossy(windows).into_owned()).unwrap_or_default();
            let ends = windows.split(')').filter_map(|window| window.rsplit(',').next());
            ends.filter_map(|end| job::parse_time_ms(end).ok()).for_each(&mut missed);
        }
    }
    Ok(())
}
