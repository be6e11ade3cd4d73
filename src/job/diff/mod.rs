//! `diff`: two versions of an output, row by row: what was added, removed and changed, in which columns by how much, and why.
//!
//! A row is known by its window (the record's timestamp) and key; its last revision counts, and what was deleted is not there. Rows are
//! compared stretch by stretch of time, as many at once as fit into a fixed number, so memory does not grow with the outputs.

mod columns;
mod reason;
mod side;

pub use columns::ColumnDelta;
pub use reason::Why;

use super::{Observer, registry};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use columns::{Columns, Pair};
use reason::Reasons;
use side::{Rows, Side, Stretch};
use std::collections::BTreeMap;

/// Default of [`DiffRequest::rows_at_once`].
const ROWS_AT_ONCE: u64 = 800_000;

/// Windows that a report lists, at most; totals count all.
const WINDOWS_MAX: usize = 1000;

/// What is compared.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The topic that things are compared with.
    pub a: String,
    /// The topic that may differ from it.
    pub b: String,
    /// Only windows that start at this time in ms: the value of the column `window_start`.
    pub window_start_ms: Option<i64>,
    /// Only this key: as it is in the records, or the values in it, separated by commas.
    pub key: Option<String>,
    /// Rows that differ to be shown.
    pub sample: usize,
    /// Rows of both sides that are held in memory at once, roughly: more than that are compared in several passes.
    pub rows_at_once: u64,
}

impl DiffRequest {
    /// Everything of two topics.
    pub fn new(a: &str, b: &str) -> DiffRequest {
        let (a, b) = (a.to_owned(), b.to_owned());
        DiffRequest { a, b, window_start_ms: None, key: None, sample: 20, rows_at_once: ROWS_AT_ONCE }
    }
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowChange {
    /// Only the second topic has it.
    Added,
    /// Only the first topic has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

impl RowChange {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            RowChange::Added => "added",
            RowChange::Removed => "removed",
            RowChange::Changed => "changed",
        }
    }
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct RowDiff {
    /// How.
    pub change: RowChange,
    /// End of its window in ms, or its time + 1; `None` if it has none.
    pub window_end_ms: Option<i64>,
    /// Its key, as text.
    pub key: Option<String>,
    /// Its value in the first topic, as text.
    pub a: Option<String>,
    /// Its value in the second topic, as text.
    pub b: Option<String>,
    /// Columns that differ.
    pub columns: Vec<String>,
    /// Why, as far as can be told.
    pub why: Why,
}

/// Rows of one window that differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Only in the second topic.
    pub added: u64,
    /// Only in the first one.
    pub removed: u64,
    /// In both, with different values.
    pub changed: u64,
}

impl Counts {
    fn count(&mut self, change: RowChange) {
        match change {
            RowChange::Added => self.added += 1,
            RowChange::Removed => self.removed += 1,
            RowChange::Changed => self.changed += 1,
        }
    }
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffReport {
    /// The first topic.
    pub a: String,
    /// The second one.
    pub b: String,
    /// Rows of the first.
    pub rows_a: u64,
    /// Rows of the second.
    pub rows_b: u64,
    /// Rows that are equal in the columns that both have.
    pub same: u64,
    /// Rows that differ.
    pub total: Counts,
    /// What changed in the columns that both have.
    pub columns: Vec<ColumnDelta>,
    /// Columns that only the first topic has.
    pub only_a: Vec<String>,
    /// Columns that only the second one has.
    pub only_b: Vec<String>,
    /// Windows with differences by their end in ms: the first thousand.
    pub windows: BTreeMap<Option<i64>, Counts>,
    /// Differences by reason.
    pub why: BTreeMap<Why, u64>,
    /// Some rows that differ, in the order of their windows.
    pub sample: Vec<RowDiff>,
}

impl DiffReport {
    /// True if both have the same rows and columns.
    pub fn is_same(&self) -> bool {
        self.total == Counts::default() && self.only_a.is_empty() && self.only_b.is_empty()
    }
}

/// Output topics of a version of a job that has run, in the order of its file; `None`: the run without a version, of a submitted job the live
/// version.
///
/// # Errors
/// `NotFound` with the versions that there are.
pub fn version_outputs(log: &Log, name: &str, version: Option<&str>) -> Result<Vec<String>> {
    let live = registry::find(log, name)?.map(|registered| registry::label(registered.live));
    let version = version.or(live.as_deref());
    let key = version.map_or_else(|| name.to_owned(), |version| format!("{name}.{version}"));
    let runs = super::runs(log)?;
    if let Some((_, run)) = runs.iter().find(|(other, _)| *other == key) {
        // The live version of a submitted job writes the outputs' own names.
        let ending = version.map_or_else(String::new, |version| format!(".{version}"));
        let own = run.outputs.iter().filter(|output| output.ends_with(&ending));
        let topic = |output: &String| match version == live.as_deref() {
            true => output.strip_suffix(&ending).unwrap_or(output).to_owned(),
            false => output.clone(),
        };
        return Ok(own.map(topic).collect());
    }
    let version_of = |key: &'_ str| match key.strip_prefix(name)? {
        "" => Some("-".to_owned()),
        rest => rest.strip_prefix('.').map(str::to_owned),
    };
    let known: Vec<String> = runs.iter().filter_map(|(key, _)| version_of(key)).collect();
    let error = Error::new(ErrorKind::NotFound, format!("there is no run of '{key}'"));
    Err(match known.is_empty() {
        true => error.with_hint("`kappa run` or `kappa replay` makes one"),
        false => error.with_hint(format!("versions of '{name}' that have run: {}", known.join(", "))),
    })
}

/// Compares two topics that jobs have written.
///
/// # Errors
/// `NotFound` for a topic, `Input` if a topic has no declared columns or not the one that is asked for, `Closed` when the observer stops it, and
/// those of reading.
pub fn diff(log: &Log, request: &DiffRequest, observer: &dyn Observer) -> Result<DiffReport> {
    let side = |topic: &str| Side::new(log, topic, request, observer);
    let (a, b) = (side(&request.a)?, side(&request.b)?);
    let mut columns = Columns::new(a.columns(), b.columns())?;
    let reasons = Reasons::new(log, &a, &b, observer)?;
    let mut report = DiffReport {
        a: request.a.clone(),
        b: request.b.clone(),
        rows_a: 0,
        rows_b: 0,
        same: 0,
        total: Counts::default(),
        columns: Vec::new(),
        only_a: columns.only_a(),
        only_b: columns.only_b(),
        windows: BTreeMap::new(),
        why: BTreeMap::new(),
        sample: Vec::new(),
    };
    for stretch in stretches(&a, &b, request.rows_at_once)? {
        let (rows_a, rows_b) = (a.rows(stretch)?, b.rows(stretch)?);
        let count = |rows: &Rows| rows.values().map(|values| values.len() as u64).sum::<u64>();
        report.rows_a += count(&rows_a);
        report.rows_b += count(&rows_b);
        let pairs = pairs(rows_a, rows_b, &mut report.same);
        for (pair, found) in columns.compare(pairs)? {
            note(&mut report, &reasons, request.sample, pair, found);
        }
    }
    report.columns = columns.deltas();
    Ok(report)
}

/// Stretches of time of which neither side has too many rows.
fn stretches(a: &Side<'_>, b: &Side<'_>, at_once: u64) -> Result<Vec<Stretch>> {
    let mut rows = a.rows_by_time()?;
    for (time, count) in b.rows_by_time()? {
        *rows.entry(time).or_default() += count;
    }
    let (mut cuts, mut gathered) = (vec![i64::MIN], 0);
    for (time, count) in rows {
        if gathered > 0 && gathered + count > at_once {
            cuts.push(time);
            gathered = 0;
        }
        gathered += count;
    }
    let ends = cuts.iter().skip(1).copied().map(Some).chain([None]);
    Ok(cuts.iter().copied().zip(ends).map(|(from, end)| Stretch { from, end }).collect())
}

/// Rows that may differ: equal ones are counted and left out; of what is left those of one window and key are put beside each other.
fn pairs(mut a: Rows, mut b: Rows, same: &mut u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let places: Vec<_> =
        a.keys().chain(b.keys()).cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    for place in places {
        let (mut left, right) = (a.remove(&place).unwrap_or_default(), b.remove(&place).unwrap_or_default());
        let mut more = Vec::new();
        for value in right {
            match left.iter().position(|other| *other == value) {
                Some(found) => {
                    left.swap_remove(found);
                    *same += 1;
                }
                None => more.push(value),
            }
        }
        left.sort();
        more.sort();
        let (mut left, mut more) = (left.into_iter(), more.into_iter());
        loop {
            // Without a key rows have nothing to be known by but their values.
            let (a, b) = match (&place.1, left.next()) {
                (None, Some(a)) => (Some(a), None),
                (_, a) => (a, more.next()),
            };
            if a.is_none() && b.is_none() {
                break;
            }
            pairs.push(Pair { time_ms: place.0, key: place.1.clone(), a, b });
        }
    }
    pairs
}

/// Adds what was found of a pair to the report.
fn note(report: &mut DiffReport, reasons: &Reasons, sample: usize, pair: Pair, found: columns::Found) {
    let change = match (&pair.a, &pair.b) {
        (None, _) => RowChange::Added,
        (_, None) => RowChange::Removed,
        _ if found.columns.is_empty() => {
            report.same += 1;
            return;
        }
        _ => RowChange::Changed,
    };
    let end_ms = pair.time_ms.map(|time| time.saturating_add(1));
    let why = reasons.of(end_ms, found.window_start_ms);
    report.total.count(change);
    *report.why.entry(why).or_default() += 1;
    if report.windows.len() < WINDOWS_MAX || report.windows.contains_key(&end_ms) {
        report.windows.entry(end_ms).or_default().count(change);
    }
    if report.sample.len() < sample {
        let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        report.sample.push(RowDiff {
            change,
            window_end_ms: end_ms,
            key: text(pair.key),
            a: text(pair.a.flatten()),
            b: text(pair.b.flatten()),
            columns: found.columns,
            why,
        });
    }
}
