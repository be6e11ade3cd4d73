//! `promote`: another version of a registered job becomes the live one, at one position and one window end, in one frame.

use super::bounds::Point;
use super::registry::{self, OutputSwitch, Registered, Switch, VersionState, label};
use super::route::Routes;
use super::run::{rerouted, run_claimed};
use super::{Job, Observer, Request, STREAMS, progress};
use crate::engine::functions::FunctionRegistry;
use crate::engine::plan::{JobPlan, OutputPlan, PipelinePlan, Step, TimeDomain, Zone};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{Partitioning, Projection, RecordColumns, decode_headers};
use crate::log::{AppendBatch, Claim, Log, Topic};
use crate::sql;
use crate::types::{PartitionId, Position, TopicId};
use crate::window::{IsoMs, WindowKind};
use arrow::array::Array;

/// Most bytes of windows that one switch copies: they and the switch are one frame.
const COPIED_BYTES_MAX: usize = 16 << 20;

/// How the windows of an output are cut.
#[derive(Debug, Clone, PartialEq)]
struct Grid {
    kind: WindowKind,
    zone: Option<Zone>,
    time: TimeDomain,
}

impl Grid {
    /// Distance of window ends, and one of them.
    fn ends(&self) -> Option<(i64, i64)> {
        match self.kind {
            WindowKind::Tumble { size_ms, offset_ms } => Some((size_ms, offset_ms)),
            WindowKind::Hop { size_ms, slide_ms, offset_ms } => Some((slide_ms, offset_ms.wrapping_add(size_ms))),
            WindowKind::Cumulate { step_ms, offset_ms, .. } => Some((step_ms, offset_ms)),
            WindowKind::Session { .. } | WindowKind::Attached { .. } | WindowKind::Count { .. } => None,
        }
    }

    /// Length of the longest window.
    fn longest_ms(&self) -> i64 {
        match self.kind {
            WindowKind::Tumble { size_ms, .. } | WindowKind::Hop { size_ms, .. } => size_ms,
            WindowKind::Cumulate { max_ms, .. } => max_ms,
            WindowKind::Session { .. } | WindowKind::Attached { .. } | WindowKind::Count { .. } => 0,
        }
    }
}

/// The windows that the rows of a pipeline belong to; `None`: rows come without waiting for a window.
fn grid(pipeline: &PipelinePlan) -> Option<Grid> {
    if !pipeline.steps.iter().any(Step::is_stateful) {
        return None;
    }
    let kinds = pipeline.steps.iter().filter_map(|step| match step {
        Step::Aggregate(window) => Some((window.kind, window.zone)),
        Step::AssignWindows { kind, zone, .. } => Some((*kind, *zone)),
        Step::Filter(_) | Step::Project { .. } | Step::Rank(_) => None,
    });
    let own = kinds.rev().find(|(kind, _)| !matches!(kind, WindowKind::Attached { .. }));
    own.map(|(kind, zone)| Grid { kind, zone, time: pipeline.time })
}

/// The windows of an output, which one pipeline must write.
fn grid_of(plan: &JobPlan, output: usize) -> Result<Option<Grid>, String> {
    let mut pipelines = plan.pipelines.iter().filter(|pipeline| pipeline.output == output);
    match (pipelines.next(), pipelines.next()) {
        (Some(only), None) => Ok(grid(only)),
        _ => Err("several statements write it, and their windows close at different moments".to_owned()),
    }
}

/// Outputs of two versions that are one topic: the same rows as far as a reader can tell from outside.
fn is_alike(a: &OutputPlan, b: &OutputPlan) -> Result<(), String> {
    let different = |what: &str| Err(format!("its {what} differ"));
    match () {
        () if a.schema != b.schema => different("columns"),
        () if a.format != b.format => different("formats"),
        () if a.primary_key != b.primary_key => different("keys"),
        () if a.partitions != b.partitions => different("numbers of partitions"),
        () => Ok(()),
    }
}

/// Why windows of `old` up to `cut` and windows of `new` behind it are not each window once; `Ok` if they are.
fn check_cut(old: &Grid, new: &Grid, cut: i64, publish_from_ms: Option<i64>) -> Result<(), String> {
    let (Some((slide, end)), true) = (new.ends(), old.ends().is_some()) else {
        return Err("sessions and windows by count have no boundaries in common".to_owned());
    };
    if old.time != new.time || old.zone != new.zone {
        return Err("its windows are cut by different clocks".to_owned());
    }
    let is_same = old.kind == new.kind;
    if !is_same && new.zone.is_some() {
        return Err("its windows differ, and boundaries in local time are not compared".to_owned());
    }
    if !is_same && (i128::from(cut) - i128::from(end)).rem_euclid(i128::from(slide)) != 0 {
        return Err(format!(
            "its live windows go up to {}, where no window of the other version ends: try again when both end at one time",
            IsoMs(cut)
        ));
    }
    let first_start = cut.saturating_add(slide).saturating_sub(new.longest_ms());
    if publish_from_ms.is_some_and(|from| first_start < from) {
        return Err(format!(
            "the other version publishes windows from {} on only",
            IsoMs(publish_from_ms.unwrap_or(0))
        ));
    }
    Ok(())
}

/// Rows that are read again: those of a topic from its start to the end of the log.
fn for_rows(
    log: &Log,
    topic: TopicId,
    from: Position,
    projection: Projection,
    mut take: impl FnMut(&crate::log::records::LogBatch, usize) -> Result<()>,
) -> Result<()> {
    let end = log.durable_end();
    let mut reader = log.reader(&[topic], from).with_projection(topic, projection);
    while let Some(batch) = reader.next(end)? {
        (0..batch.len()).try_for_each(|row| take(&batch, row))?;
    }
    Ok(())
}

fn is_early(headers: &[u8], position: u64) -> Result<bool> {
    let headers = decode_headers(headers).map_err(|e| Error::damage(format!("headers at position {position}: {e}")))?;
    Ok(headers.contains(&("pane", Some(b"early"))))
}

/// The largest window end that is published in a topic from a position on; early results do not count.
fn published(log: &Log, topic: Option<&Topic>, from: Position) -> Result<Option<i64>> {
    let Some(topic) = topic else { return Ok(None) };
    let projection = Projection { keys: false, values: false, headers: true, columns: None };
    let mut latest = None;
    for_rows(log, topic.id(), from, projection, |batch, row| {
        let end = batch.timestamp_ms(row).map(|last_ms| last_ms.saturating_add(1));
        if end > latest && !is_early(batch.headers.value(row), batch.positions[row])? {
            latest = end;
        }
        Ok(())
    })?;
    Ok(latest)
}

/// Rows of a topic that belong to windows which end behind a cut.
fn behind(log: &Log, topic: &Topic, cut: i64) -> Result<RecordColumns> {
    let mut rows = RecordColumns::default();
    for_rows(log, topic.id(), Position(0), Projection::ALL, |batch, row| {
        if batch.timestamp_ms(row).is_none_or(|last_ms| last_ms < cut) {
            return Ok(());
        }
        let bytes = |column: &arrow::array::BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
        let (key, value) = (bytes(&batch.keys), bytes(&batch.values));
        if rows.byte_len() > COPIED_BYTES_MAX {
            let message =
                format!("'{}' holds more than 16 MiB of windows that the live version has not published", topic.name());
            return Err(Error::new(ErrorKind::Conflict, message).with_hint(
                "the live version publishes too little to take over from: submit the changed file as a job of its own",
            ));
        }
        let to = Partitioning::Fixed(PartitionId(batch.partitions[row]));
        rows.push_encoded(to, batch.timestamp_ms(row), key.as_deref(), value.as_deref(), batch.headers.value(row));
        Ok(())
    })?;
    Ok(rows)
}

/// What a promotion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The switch as it is in the log.
    pub switch: Switch,
    /// By output: its topic, and rows that were copied into it.
    pub outputs: Vec<(String, u64)>,
}

/// Two versions that change places.
struct Change<'a> {
    log: &'a Log,
    registered: Registered,
    old: Job,
    new: Job,
    from: u32,
    to: u32,
}

impl Change<'_> {
    fn refused(&self, why: impl std::fmt::Display) -> Error {
        let message = format!("job '{}': {} cannot become live: {why}", self.registered.name, label(self.to));
        Error::new(ErrorKind::Conflict, message)
    }

    /// The output of the old version that has the topic of one of the new.
    fn old_output(&self, output: &OutputPlan) -> Option<usize> {
        let topic = self.new.base().output_topic(output)?;
        self.old.plan.outputs.iter().position(|old| self.old.base().output_topic(old).as_ref() == Some(&topic))
    }

    /// Whether both versions can go on at all.
    fn check_states(&self) -> Result<()> {
        for number in [self.from, self.to] {
            let version = self.registered.version(number)?;
            match &version.state {
                _ if version.to.is_some() => return Err(self.refused(format!("{} has an end", label(number)))),
                VersionState::Running | VersionState::Paused => {}
                state => {
                    return Err(self
                        .refused(format!("{} is {}", label(number), state.name()))
                        .with_hint(format!("`kappa job resume {}` first", self.registered.name)));
                }
            }
        }
        Ok(())
    }

    /// What can be refused before anything is computed.
    fn check(&self) -> Result<()> {
        self.check_states()?;
        let named = |job: &Job| {
            let mut topics: Vec<_> = job.base().output_topics();
            topics.sort();
            topics
        };
        if named(&self.old) != named(&self.new) {
            return Err(self.refused("the versions write different outputs"));
        }
        let publishes = self.registered.version(self.to)?.publish_from_ms;
        for (index, output) in self.new.plan.outputs.iter().enumerate() {
            let Some(old) = self.old_output(output) else { continue };
            let refused = |why: String| self.refused(format!("output '{}': {why}", output.table));
            is_alike(&self.old.plan.outputs[old], output).map_err(refused)?;
            let grids = (grid_of(&self.old.plan, old), grid_of(&self.new.plan, index));
            match (grids.0.map_err(refused)?, grids.1.map_err(refused)?) {
                (None, None) if publishes.is_some() => {
                    return Err(refused(
                        "it has no windows, and the version publishes rows from a time on only".into(),
                    ));
                }
                (None, None) => {}
                (Some(_), Some(_)) => {}
                _ => return Err(refused("one version has windows, the other has none".into())),
            }
        }
        Ok(())
    }

    /// Runs both up to one position and one reading of the clock.
    fn bring(&self, claims: &[Claim; 2], observer: &mut dyn Observer) -> Result<()> {
        let reading = self.log.clock();
        let versions = [(&self.old, self.from), (&self.new, self.to)];
        for ((job, number), claim) in versions.into_iter().zip(claims) {
            let version = self.registered.version(number)?;
            let request = Request {
                to: Some(Point::Reading(reading.position, reading.append_time)),
                bounded: true,
                flush: false,
                ..super::request_of(self.log, job, version)?
            };
            let report = run_claimed(self.log, job, &request, claim, observer)?;
            if !report.progress.is_final {
                return Err(Error::new(ErrorKind::Closed, "stopped before both versions were at one position"));
            }
        }
        Ok(())
    }

    /// Holds what the new version has written against the checks of its file.
    fn check_rows(&self, functions: &FunctionRegistry, observer: &mut dyn Observer) -> Result<()> {
        let version = self.registered.version(self.to)?;
        let checks = sql::checks_with(&version.file, &version.sql, functions)?;
        for result in super::checks(self.log, &self.new, &checks, 1, observer)? {
            if result.blocks() {
                let first = result.sample.first().map_or_else(String::new, |row| format!(", such as {row}"));
                let why = format!("check {} failed with {} rows{first}", result.name, result.failures);
                return Err(self.refused(why).with_hint("`--force` does it all the same"));
            }
        }
        Ok(())
    }

    /// The window end up to which the live version has published an output.
    fn cut(&self, index: usize, output: &OutputPlan) -> Result<Option<i64>> {
        let Some(old) = self.old_output(output) else { return Ok(None) };
        let refused = |why: String| self.refused(format!("output '{}': {why}", output.table));
        let grids = (grid_of(&self.old.plan, old), grid_of(&self.new.plan, index));
        let (Some(old_grid), Some(new_grid)) = (grids.0.map_err(refused)?, grids.1.map_err(refused)?) else {
            return Ok(None);
        };
        let last = self.registered.switches.last();
        let since = last.map_or(Position(0), |switch| Position(switch.position));
        let topic = self.new.base().output_topic(output).and_then(|topic| self.log.topic(&topic).ok());
        let before = last.and_then(|switch| switch.outputs.get(old)?.cut_ms);
        let cut = published(self.log, topic.as_ref(), since)?.max(before).unwrap_or(i64::MIN);
        let publishes = self.registered.version(self.to)?.publish_from_ms;
        if cut > i64::MIN || publishes.is_some() {
            check_cut(&old_grid, &new_grid, cut, publishes).map_err(refused)?;
        }
        Ok(Some(cut))
    }

    /// The change of one output, with the rows to be copied.
    fn output(&self, index: usize, output: &OutputPlan) -> Result<(OutputSwitch, Option<(TopicId, RecordColumns)>)> {
        let cut_ms = self.cut(index, output)?;
        let mut first_offsets = Vec::new();
        let mut copied = None;
        for stream in STREAMS {
            let topic = self.new.base().stream_topic(output, stream).and_then(|topic| self.log.topic(&topic).ok());
            let Some(topic) = topic else {
                first_offsets.push(Vec::new());
                continue;
            };
            let mut ends: Vec<u64> = self.log.partition_ends(topic.id())?.iter().map(|end| end.0).collect();
            let own = self.new.stream_topic(output, stream).and_then(|topic| self.log.topic(&topic).ok());
            if let (Some(cut), Some(own), true) = (cut_ms, own, first_offsets.is_empty()) {
                let rows = behind(self.log, &own, cut)?;
                let partitions = rows.partitions.iter().flatten().map(|partition| *partition as usize);
                partitions.for_each(|partition| ends[partition] += 1);
                copied = Some((topic.id(), rows));
            }
            first_offsets.push(ends);
        }
        Ok((OutputSwitch { cut_ms, first_offsets }, copied))
    }

    /// The frame that changes the live version, with everything that belongs to it.
    fn switch(&self) -> Result<Promoted> {
        let _deciding = self.log.deciding();
        // A version may have come in meanwhile.
        let mut registered = registry::get(self.log, &self.registered.name)?;
        let rows_of = |job: &Job| {
            let progress = progress(self.log, &job.key())?
                .ok_or_else(|| Error::internal(format!("'{}' has no progress after it ran", job.key())))?;
            Ok((progress.streams.iter().map(|stream| stream.rows).collect::<Vec<_>>(), progress))
        };
        let (from_rows, at) = rows_of(&self.old)?;
        let (to_rows, _) = rows_of(&self.new)?;
        let (mut switches, mut topics, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for (index, output) in self.new.plan.outputs.iter().enumerate() {
            let (switch, copied) = self.output(index, output)?;
            let name = self.new.base().output_topic(output).unwrap_or_else(|| output.table.clone());
            outputs.push((name, copied.as_ref().map_or(0, |(_, rows)| rows.len() as u64)));
            topics.extend(copied);
            switches.push(switch);
        }
        let (position, clock_us) = (at.position, at.clock_us);
        let switch = Switch { from: self.from, to: self.to, position, clock_us, from_rows, to_rows, outputs: switches };
        registered.switches.push(switch.clone());
        registered.live = self.to;
        let mut meta = vec![registered.head_record()?];
        for (job, number) in [(&self.old, self.from), (&self.new, self.to)] {
            let routes = Routes::of_version(&registered, number, job.plan.outputs.len() * STREAMS.len());
            meta.push(rerouted(self.log, job, &routes)?);
        }
        let append = self.log.append_wait(AppendBatch { topics, meta, ..AppendBatch::default() });
        append.map_err(|e| e.context("switching the live version"))?;
        Ok(Promoted { switch, outputs })
    }
}

/// Makes a version of a registered job the live one; `None` goes back to the one that was live before. Both versions are run up to
/// the end of the log first. Then one frame holds the switch and the windows that the new version has finished already and the
/// old one has not, so readers of the outputs get each window once and in order.
///
/// # Errors
/// `Conflict` with the reason where the versions have no boundary in common, or where a check of the new version's file fails that
/// blocks (not with `force`, and not on the way back); `Unavailable` while somebody works with one of them; those of running both.
pub fn promote(
    log: &Log,
    functions: &FunctionRegistry,
    name: &str,
    to: Option<u32>,
    force: bool,
    observer: &mut dyn Observer,
) -> Result<Promoted> {
    let registered = registry::get(log, name)?;
    let from = registered.live;
    let before = registered.switches.last().map(|switch| switch.from);
    let Some(to) = to.or(before) else {
        let message = format!("job '{name}': no other version than {} has been live", label(from));
        return Err(Error::new(ErrorKind::Conflict, message));
    };
    if to == from {
        return Err(Error::new(ErrorKind::Conflict, format!("job '{name}': {} is live already", label(to))));
    }
    let is_checked = !force && before != Some(to);
    let (old, new) = (registered.job(from, functions)?, registered.job(to, functions)?);
    let change = Change { log, registered, old, new, from, to };
    change.check()?;
    let claim = |job: &Job| log.claim(&job.key(), "`kappa promote`", || observer.should_stop());
    let claims = [claim(&change.old)?, claim(&change.new)?];
    if registry::get(log, name)?.live != from {
        let message = format!("job '{name}': another version has become live meanwhile");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    change.bring(&claims, observer)?;
    if is_checked {
        change.check_rows(functions, observer)?;
    }
    change.switch()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(kind: WindowKind) -> Grid {
        Grid { kind, zone: None, time: TimeDomain::Event }
    }

    fn tumble(size_ms: i64, offset_ms: i64) -> Grid {
        grid(WindowKind::Tumble { size_ms, offset_ms })
    }

    #[test]
    fn a_cut_is_a_boundary_of_both() {
        let minute = tumble(60, 0);
        let hop = grid(WindowKind::Hop { size_ms: 90, slide_ms: 30, offset_ms: 0 });
        let cumulate = grid(WindowKind::Cumulate { max_ms: 240, step_ms: 60, offset_ms: 0 });
        let session = grid(WindowKind::Session { gap_ms: 5 });
        for (old, new, cut, from, is_good) in [
            (&minute, &minute, 120, None, true),
            (&minute, &tumble(300, 0), 600, None, true),
            (&minute, &tumble(300, 0), 660, None, false),
            (&minute, &tumble(60, 7), 120, None, false),
            (&minute, &hop, 120, None, true),
            (&minute, &hop, 115, None, false),
            (&minute, &cumulate, 120, None, true),
            (&minute, &tumble(300, 0), -600, None, true),
            (&session, &session, 120, None, false),
            (&minute, &minute, 120, Some(120), true),
            (&minute, &minute, 120, Some(121), false),
            (&hop, &hop, 120, Some(60), true),
            (&hop, &hop, 120, Some(120), false),
        ] {
            assert_eq!(check_cut(old, new, cut, from).is_ok(), is_good, "{old:?} {new:?} {cut} {from:?}");
        }
        let append = Grid { time: TimeDomain::Append, ..minute.clone() };
        assert!(check_cut(&minute, &append, 120, None).is_err());
    }
}
