//! Retention: which records are old or many enough to go, and whether the clock can be believed.
//!
//! Ages are append times against the earlier of the append clock and the wall clock; what records say of their own time plays
//! no part. A wall clock that moves apart from the monotonic clock by more than [`JUMP_US`], or that is behind the log when it
//! is opened, holds retention until somebody confirms the time: a wrong clock must not delete anything.

use crate::codec::CodecError;
use crate::error::{Error, Result};
use crate::log::append::AppendBatch;
use crate::log::catalog::{MetaRecord, MetaSpace};
use crate::log::index::Statistics;
use crate::log::pieces;
use crate::log::seek::Look;
use crate::log::shared::Shared;
use crate::log::topic::TopicConfig;
use crate::log::trim;
use crate::types::{AppendTime, Position, TopicId};
use std::sync::{Arc, PoisonError};

/// A clock that is off by more than this is not believed: 5 minutes.
pub const JUMP_US: i64 = 300_000_000;

/// A comparison of the clocks starts over after this long: slow corrections of a good clock are no jump.
const COMPARED_US: u64 = 3_600_000_000;

const HOLD: &str = "hold";
const CONFIRMED: &str = "confirmed";

/// Why retention waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockHold {
    /// How far the wall clock moved against the monotonic clock, or is behind the log, in us; negative: back.
    pub jump_us: i64,
    /// What the wall clock said then, in us since the epoch.
    pub wall_us: i64,
}

impl std::fmt::Display for ClockHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, way) = (self.jump_us.unsigned_abs() / 1_000_000, if self.jump_us < 0 { "back" } else { "ahead" });
        write!(f, "the wall clock moved {way} by {seconds} s: retention removes nothing until the time is confirmed")
    }
}

#[derive(bincode::Encode, bincode::Decode)]
struct Wire {
    version: u8,
    first: i64,
    second: i64,
}

const WIRE_VERSION: u8 = 1;

fn wire_config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<64>()
}

fn record(key: &str, first: i64, second: i64) -> MetaRecord {
    let wire = Wire { version: WIRE_VERSION, first, second };
    let value = bincode::encode_to_vec(wire, wire_config()).expect("writing plain structs to memory does not fail");
    MetaRecord { space: MetaSpace::Retention, key: key.to_owned(), value: Some(value) }
}

fn pair(shared: &Shared, key: &str) -> Result<Option<(i64, i64)>> {
    let Some(value) = shared.state().view.get(MetaSpace::Retention, key) else { return Ok(None) };
    let decoded: Result<(Wire, usize), _> = bincode::decode_from_slice(&value, wire_config());
    match decoded {
        Ok((wire, used)) if used == value.len() && wire.version == WIRE_VERSION => Ok(Some((wire.first, wire.second))),
        _ => {
            let cause = CodecError::Invalid { what: "retention record", value: value.len() as u64 };
            Err(Error::damage(format!("what retention waits for ('{key}') cannot be read: {cause}")))
        }
    }
}

/// Readings of the wall clock and the monotonic clock at the same time, in us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub wall_us: i64,
    pub monotonic_us: u64,
}

/// What retention has seen of the clocks since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    since: Option<Reading>,
}

/// What is known of the log's own time when retention looks at the clocks for the first time.
#[derive(Debug, Clone, Copy)]
struct Opened {
    newest_append: AppendTime,
    /// Wall clock and append clock when the time was last confirmed.
    confirmed: Option<(i64, i64)>,
}

impl Clocks {
    /// Compares the clocks; the jump in us if there is one.
    fn look(&mut self, now: Reading, opened: impl FnOnce() -> Result<Opened>) -> Result<Option<i64>> {
        let Some(since) = self.since else {
            let jump = behind_the_log(now.wall_us, opened()?);
            self.since = Some(now);
            return Ok(jump);
        };
        let passed = now.monotonic_us.saturating_sub(since.monotonic_us);
        let jump = now.wall_us.saturating_sub(since.wall_us).saturating_sub_unsigned(passed);
        if jump.unsigned_abs() > JUMP_US.unsigned_abs() {
            self.since = Some(now);
            return Ok(Some(jump));
        }
        if passed > COMPARED_US {
            self.since = Some(now);
        }
        Ok(None)
    }
}

/// How far the wall clock is behind the log's newest append time, unless that was so when the time was last confirmed.
fn behind_the_log(wall_us: i64, opened: Opened) -> Option<i64> {
    let jump = wall_us.saturating_sub(opened.newest_append.0);
    let known = opened.confirmed.is_some_and(|(wall, append)| {
        let passed = wall_us.saturating_sub(wall);
        passed >= 0 && opened.newest_append.0 <= append.saturating_add(passed)
    });
    (opened.newest_append > AppendTime::MIN && jump < -JUMP_US && !known).then_some(jump)
}

/// Within a file records go in portions of this share of what may be kept, so that not every record costs a frame.
const PORTION: u64 = 16;

/// A topic that has a retention, as the decision sees it.
#[derive(Debug)]
struct Kept {
    topic: TopicId,
    config: TopicConfig,
    /// What lies before it is gone.
    floor: Position,
    /// Append time of the first record that is left.
    oldest: AppendTime,
    /// Its records in each file that holds any that is left, oldest first.
    files: Vec<Statistics>,
}

/// What goes of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// What lies before a position.
    Before(Position),
    /// What was appended at a time or earlier, as far as it lies before a position.
    Until(AppendTime, Position),
}

/// A whole, or the share of it that a part is of another whole.
fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part.min(of)) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(whole)
}

/// Bytes that the records behind `floor` take of a file: by positions, as if all were alike.
fn bytes_left(file: &Statistics, floor: Position) -> u64 {
    let all = file.end.0 - file.first_position.0;
    share(file.bytes, file.end.0.saturating_sub(floor.0), all)
}

impl Kept {
    /// What is too old. Whole files at once, and within a file once the oldest record is older by a portion.
    fn by_age(&self, oldest: &Statistics, now: AppendTime) -> Option<Cut> {
        let retention_us = self.config.retention_us?;
        let until = AppendTime(now.0.saturating_sub(retention_us));
        if oldest.last_append <= until {
            return Some(Cut::Before(oldest.end));
        }
        let portion = retention_us / PORTION.cast_signed();
        (self.oldest.0.saturating_add(portion) <= until.0).then_some(Cut::Until(until, oldest.end))
    }

    /// What is too much: the oldest file, or a part of it.
    fn by_size(&self, oldest: &Statistics) -> Option<Cut> {
        let most = self.config.retention_bytes?;
        let bytes: u64 = self.files.iter().map(|file| bytes_left(file, self.floor)).sum();
        let over = bytes.checked_sub(most).filter(|over| *over > most / PORTION)?;
        let left = bytes_left(oldest, self.floor);
        let from = self.floor.max(oldest.first_position);
        let goes = share(oldest.end.0 - from.0, over, left).max(1);
        Some(Cut::Before(if over >= left { oldest.end } else { from.plus(goes) }))
    }
}

/// What goes: of each topic at most its oldest file's worth, never what lies at `active_from` or behind. `now` is the time
/// that ages are measured by.
fn decide(topics: &[Kept], now: AppendTime, active_from: Position) -> Vec<(TopicId, Cut)> {
    let cut = |kept: &Kept| {
        let oldest = kept.files.first().filter(|oldest| oldest.end <= active_from)?;
        Some((kept.topic, kept.by_age(oldest, now).or_else(|| kept.by_size(oldest))?))
    };
    topics.iter().filter_map(cut).collect()
}

/// Why retention waits, if it does.
pub(crate) fn held(shared: &Shared) -> Result<Option<ClockHold>> {
    Ok(pair(shared, HOLD)?.map(|(jump_us, wall_us)| ClockHold { jump_us, wall_us }))
}

/// The wall clock is right: retention goes on.
pub(crate) fn confirm(shared: &Shared) -> Result<()> {
    let now = read_clocks(shared);
    let append = {
        let mut state = shared.state();
        shared.read_clock(&mut state)
    };
    let release = MetaRecord { space: MetaSpace::Retention, key: HOLD.to_owned(), value: None };
    let confirmed = record(CONFIRMED, now.wall_us, append.0);
    shared.append(AppendBatch::meta(vec![release, confirmed]), true)?.wait()?;
    shared.clocks.lock().unwrap_or_else(PoisonError::into_inner).since = Some(now);
    Ok(())
}

fn read_clocks(shared: &Shared) -> Reading {
    Reading { wall_us: shared.env.clock.wall_us(), monotonic_us: shared.env.clock.monotonic_us() }
}

/// One step: looks at the clocks, and removes at most one file's worth of each topic.
pub(crate) fn step(shared: &Arc<Shared>) -> Result<bool> {
    let now = read_clocks(shared);
    let opened = || {
        let newest_append = shared.state().clock.last();
        Ok(Opened { newest_append, confirmed: pair(shared, CONFIRMED)? })
    };
    let jump = shared.clocks.lock().unwrap_or_else(PoisonError::into_inner).look(now, opened)?;
    if let Some(jump_us) = jump {
        let hold = ClockHold { jump_us, wall_us: now.wall_us };
        shared.append(AppendBatch::meta(vec![record(HOLD, jump_us, now.wall_us)]), true)?.wait()?;
        shared.trouble(format!("{hold} (`kappa topic retention --confirm`)"));
        return Ok(false);
    }
    let topics = kept_topics(shared)?;
    if topics.is_empty() || held(shared)?.is_some() {
        return Ok(false);
    }
    let time = {
        let mut state = shared.state();
        shared.read_clock(&mut state).min(AppendTime(now.wall_us))
    };
    let active_from = shared.index(|index| index.active_from());
    let cuts = decide(&topics, time, active_from.unwrap_or(Position(u64::MAX)));
    let cuts: Vec<(TopicId, Position)> =
        cuts.into_iter().map(|(topic, cut)| Ok((topic, place(shared, topic, cut)?))).collect::<Result<_>>()?;
    Ok(!trim::trim(shared, &cuts)?.is_empty())
}

/// The first position that stays.
fn place(shared: &Arc<Shared>, topic: TopicId, cut: Cut) -> Result<Position> {
    let (until, end) = match cut {
        Cut::Before(position) => return Ok(position),
        Cut::Until(until, end) => (until, end),
    };
    let topic = shared.topics(|topics| topics.by_id(topic))?;
    let younger = Look::new(shared, &topic).first_appended(AppendTime(until.0.saturating_add(1)))?;
    Ok(younger.map_or(end, |position| position.min(end)))
}

/// The topics that have a retention, and what is left of them.
fn kept_topics(shared: &Shared) -> Result<Vec<Kept>> {
    let some = |config: &TopicConfig| config.retention_us.is_some() || config.retention_bytes.is_some();
    let topics = shared.topics(|topics| {
        let kept = topics.all().into_iter().filter(|topic| some(topic.config()));
        kept.map(|topic| (topics.trim_of(topic.id()), topic)).collect::<Vec<_>>()
    });
    let mut kept = Vec::with_capacity(topics.len());
    for (trim, topic) in topics {
        let floor = trim.map_or(Position(0), |trim| trim.first_position);
        let mut files = pieces::files_of(shared, topic.id());
        files.retain(|file| file.end > floor);
        let Some(first) = pieces::next(shared, topic.id(), floor, |_| true)? else { continue };
        let config = topic.config().clone();
        kept.push(Kept { topic: topic.id(), config, floor, oldest: first.about.first_append, files });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Files of so many records each, from a time to another, with so many bytes.
    fn kept(config: TopicConfig, files: &[(u64, i64, u64)]) -> Kept {
        let (mut end, mut clock) = (0, 0);
        let file = |(records, later, bytes): &(u64, i64, u64)| {
            let (first_position, first_append) = (Position(end), AppendTime(clock));
            (end, clock) = (end + records, clock + later);
            let (end, last_append) = (Position(end), AppendTime(clock));
            Statistics { first_position, end, first_append, last_append, timestamps: None, bytes: *bytes }
        };
        let files = files.iter().map(file).collect();
        Kept { topic: TopicId(1), config, floor: Position(0), oldest: AppendTime(0), files }
    }

    /// Carries a decision out: records of a file are appended at even times.
    fn carry_out(topic: &mut Kept, cut: Cut) {
        let oldest = topic.files[0];
        let (records, time) = (oldest.end.0 - oldest.first_position.0, oldest.last_append.0 - oldest.first_append.0);
        let append = |position: u64| oldest.first_append.0 + time * (position as i64) / records as i64;
        topic.floor = match cut {
            Cut::Before(position) => position,
            Cut::Until(until, end) => {
                let old = (0..records).take_while(|position| append(*position) <= until.0).count() as u64;
                Position(oldest.first_position.0 + old).max(topic.floor).min(end)
            }
        };
        topic.oldest = AppendTime(append(topic.floor.0.saturating_sub(oldest.first_position.0)));
        topic.files.retain(|file| file.end > topic.floor);
        topic.oldest = topic.oldest.max(topic.files.first().map_or(AppendTime::MIN, |file| file.first_append));
    }

    proptest! {
        #[test]
        fn what_goes_is_the_oldest_and_what_stays_is_within_the_limits(
            retention_us in proptest::option::of(1i64..2_000), retention_bytes in proptest::option::of(0u64..3_000),
            files in proptest::collection::vec((1u64..50, 0i64..500, 0u64..1_000), 1..12),
            now in 0i64..8_000, active in 0usize..13,
        ) {
            let config = TopicConfig { retention_us, retention_bytes, ..TopicConfig::default() };
            let mut topic = kept(config, &files);
            let active_from = topic.files.get(active).map_or(Position(u64::MAX), |file| file.first_position);
            let now = AppendTime(now);
            let mut steps = 0;
            while let Some((_, cut)) = decide(std::slice::from_ref(&topic), now, active_from).pop() {
                let (before, oldest) = (topic.floor, topic.files[0]);
                carry_out(&mut topic, cut);
                prop_assert!(topic.floor <= oldest.end && oldest.end <= active_from, "a file's worth, and none that is active");
                if topic.floor <= before {
                    break;
                }
                steps += 1;
                prop_assert!(steps < 2_000, "it comes to an end");
            }
            let inactive = topic.files.first().is_some_and(|file| file.end <= active_from);
            if let Some(retention_us) = retention_us.filter(|_| inactive) {
                prop_assert!(topic.files[0].last_append.0 + retention_us > now.0);
            }
            if let Some(most) = retention_bytes.filter(|_| inactive) {
                let bytes: u64 = topic.files.iter().map(|file| bytes_left(file, topic.floor)).sum();
                prop_assert!(bytes <= most + most / PORTION, "{bytes} of {most}");
            }
            if retention_us.is_none() && retention_bytes.is_none() {
                prop_assert_eq!(topic.floor, Position(0));
            }
        }

        #[test]
        fn no_younger_record_goes_by_age(
            retention_us in 1i64..2_000, files in proptest::collection::vec((1u64..50, 0i64..500, 0u64..9), 1..12), now in 0i64..8_000,
        ) {
            let config = TopicConfig { retention_us: Some(retention_us), ..TopicConfig::default() };
            let topic = kept(config, &files);
            match decide(&[topic], AppendTime(now), Position(u64::MAX)).pop() {
                Some((_, Cut::Until(until, _))) => prop_assert_eq!(until.0, now - retention_us),
                Some((_, Cut::Before(end))) => {
                    let last: i64 = files[..1].iter().map(|(_, later, _)| later).sum();
                    prop_assert_eq!((end.0, last + retention_us <= now), (files[0].0, true));
                }
                None => {}
            }
        }

        #[test]
        fn a_jump_is_noticed_and_slow_drift_is_not(
            steps in proptest::collection::vec((1u64..4_000_000_000, -30_000_000i64..30_000_000), 1..30),
            jump in prop_oneof![JUMP_US * 2..i64::MAX / 4, -i64::MAX / 4..-JUMP_US * 2],
        ) {
            let opened = || Ok(Opened { newest_append: AppendTime::MIN, confirmed: None });
            let mut clocks = Clocks::default();
            let mut now = Reading { wall_us: 1_767_225_600_000_000, monotonic_us: 7 };
            prop_assert_eq!(clocks.look(now, opened).unwrap(), None);
            for (passed, drift) in steps {
                // Drift as bad as half a minute in an hour.
                let drift = drift * passed.min(COMPARED_US).cast_signed() / COMPARED_US.cast_signed();
                now.monotonic_us += passed;
                now.wall_us += passed.cast_signed() + drift;
                prop_assert_eq!(clocks.look(now, opened).unwrap(), None);
            }
            now.wall_us = now.wall_us.saturating_add(jump);
            let noticed = clocks.look(now, opened).unwrap().unwrap();
            prop_assert!((noticed - jump).abs() <= JUMP_US);
            prop_assert_eq!(clocks.look(now, opened).unwrap(), None, "once");
        }
    }

    #[test]
    fn a_log_from_the_future_is_noticed_unless_it_was_confirmed() {
        let opened = |newest: i64, confirmed| Opened { newest_append: AppendTime(newest), confirmed };
        let now = 10 * JUMP_US;
        for (newest, confirmed, jump) in [
            (now + JUMP_US, None, None),
            (now + JUMP_US + 1, None, Some(-JUMP_US - 1)),
            (i64::MIN, None, None),
            (now + 5 * JUMP_US, Some((now - 9, now + 5 * JUMP_US - 9)), None),
            (now + 5 * JUMP_US, Some((now - 9, now + 5 * JUMP_US - 10)), Some(-5 * JUMP_US)),
            (now + 5 * JUMP_US, Some((now + 1, now + 5 * JUMP_US)), Some(-5 * JUMP_US)),
        ] {
            assert_eq!(behind_the_log(now, opened(newest, confirmed)), jump, "{newest} {confirmed:?}");
        }
    }
}
