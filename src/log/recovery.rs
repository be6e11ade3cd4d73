//! What the facts of a scan mean: torn tail or damage, what is lost, where the log goes on. Pure; [`open`](super::open) acts.
//!
//! A write that was never acknowledged may be torn and is cut off. Bytes that were durable once and are not a frame now are
//! damage: they stay, what they held is named, and everything else is served. The proof that a frame was durable is a later
//! frame (or file) whose `synced_end` says so. A later frame without that proof shows only that the disk wrote out of order.
//! The last group before a crash has no such frame: for it, damage cannot be told from a torn write. A mark follows every group
//! within a tenth of a second of silence.

use crate::log::frame::directory::TopicEntry;
use crate::log::report::{Damage, DamageKind, LostOffsets};
use crate::log::scan::{FrameFacts, Item, Section};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;

/// What counts about an item of the newest file when it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TailItem {
    /// A frame: intact or with a damaged part.
    Frame { at: u64, seq: FrameSeq, synced_end: FrameSeq, intact: bool },
    /// Bytes that are no frame, with a frame behind them.
    Gap { at: u64 },
    /// Bytes to the end that are no frame.
    Tail { at: u64, ended: bool },
}

impl TailItem {
    pub fn of(item: &Item<'_>) -> TailItem {
        match item {
            Item::Frame(frame) => TailItem::Frame {
                at: frame.at,
                seq: frame.header.seq,
                synced_end: frame.header.synced_end,
                intact: frame.intact(),
            },
            Item::Gap { at, .. } => TailItem::Gap { at: *at },
            Item::Tail { at, ended } => TailItem::Tail { at: *at, ended: *ended },
        }
    }

    /// As if it did not say which frames were durable: for the tests only.
    pub fn forget_proof(&mut self) {
        if let TailItem::Frame { synced_end, .. } = self {
            *synced_end = FrameSeq(0);
        }
    }
}

/// What to do with the newest file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailPlan {
    /// How many items stay.
    pub keep: usize,
    /// Where what stays ends.
    pub end: u64,
    /// True if bytes behind `end` are to be cut off.
    pub cut: bool,
    /// From here on frames are intact but not proven durable: to be written again before they are trusted.
    pub unproven_from: u64,
}

/// Judges the newest file, whose first frame has the sequence `first` if it is there. Frames up to `known` were durable once.
pub(crate) fn judge_tail(first: FrameSeq, known: FrameSeq, items: &[TailItem]) -> TailPlan {
    let before = known.max(FrameSeq(first.0.saturating_sub(1)));
    let proven = items.iter().fold(before, |proven, item| match item {
        TailItem::Frame { synced_end, .. } => proven.max(*synced_end),
        _ => proven,
    });
    let mut expected = first;
    let mut hole_at = None;
    let mut unproven_from = None;
    for (keep, item) in items.iter().enumerate() {
        let (at, cut) = match *item {
            TailItem::Gap { at } => {
                hole_at = Some(at);
                continue;
            }
            TailItem::Tail { at, ended } => (at, !ended),
            TailItem::Frame { at, seq, intact, .. } => {
                // A lost stretch of which any frame was never acknowledged ends the log: at its start if none was, else behind it.
                let missing = (seq > expected).then_some((expected, FrameSeq(seq.0 - 1)));
                let torn_hole = missing.is_some_and(|(_, last)| last > proven);
                if torn_hole && expected > proven {
                    return cut_at(hole_at.unwrap_or(at), keep - usize::from(hole_at.is_some()), unproven_from);
                }
                if torn_hole || seq < expected || (!intact && seq > proven) {
                    return cut_at(at, keep, unproven_from);
                }
                if seq > proven {
                    unproven_from = unproven_from.or(Some(at));
                }
                hole_at = None;
                expected = FrameSeq(seq.0 + 1);
                continue;
            }
        };
        return TailPlan { keep, end: at, cut, unproven_from: unproven_from.unwrap_or(at) };
    }
    unreachable_tail(items.len(), unproven_from)
}

fn cut_at(end: u64, keep: usize, unproven_from: Option<u64>) -> TailPlan {
    TailPlan { keep, end, cut: true, unproven_from: unproven_from.unwrap_or(end) }
}

/// A scan always ends with a tail; without one there is nothing to keep or cut.
fn unreachable_tail(keep: usize, unproven_from: Option<u64>) -> TailPlan {
    let end = unproven_from.unwrap_or(0);
    TailPlan { keep, end, cut: false, unproven_from: end }
}

/// Where the log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoOn {
    pub seq: FrameSeq,
    pub position: Position,
    pub clock: AppendTime,
}

/// Where following the frames begins, and what is known without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The first frame that is expected; those before it are gone on purpose.
    pub seq: FrameSeq,
    /// The first position that is expected.
    pub position: Position,
    pub clock: AppendTime,
    /// End offsets after frame `applied`.
    pub ends: Ends,
    pub applied: FrameSeq,
}

/// End offset of each partition.
pub(crate) type Ends = BTreeMap<(TopicId, PartitionId), Offset>;

impl Default for Start {
    fn default() -> Self {
        let (applied, clock) = (FrameSeq(0), AppendTime::MIN);
        Start { seq: FrameSeq(1), position: Position(0), clock, ends: Ends::new(), applied }
    }
}

/// End offsets of a partition while frames go by.
#[derive(Debug, Clone, Copy)]
struct End {
    offset: u64,
    /// How many losses with unknown topics lay before its last run.
    losses_seen: usize,
    /// False while nothing was heard of it in a log whose beginning is gone.
    known: bool,
}

/// Bytes where frames should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub file: String,
    pub bytes: (u64, u64),
}

/// Follows the frames of all files in order: positions, offsets, the clock, and what is missing.
pub(crate) struct Follow {
    expected: FrameSeq,
    position: Position,
    clock: AppendTime,
    ends: BTreeMap<(TopicId, PartitionId), End>,
    /// True if the first frame of the log is the first that is followed.
    whole: bool,
    /// End offsets that are known after a frame that was not reached yet.
    known: Option<(FrameSeq, Ends)>,
    damage: Vec<Damage>,
    /// Places in `damage` of losses whose topics are unknown.
    unknown: Vec<usize>,
    pub frames: u64,
}

impl Follow {
    pub fn new(start: Start) -> Follow {
        Follow {
            expected: start.seq,
            position: start.position,
            clock: start.clock,
            ends: BTreeMap::new(),
            whole: start.seq == FrameSeq(1),
            known: Some((start.applied, start.ends)).filter(|(applied, _)| *applied > FrameSeq(0)),
            damage: Vec::new(),
            unknown: Vec::new(),
            frames: 0,
        }
    }

    pub fn go_on(&self) -> GoOn {
        GoOn { seq: self.expected, position: self.position, clock: self.clock }
    }

    /// A time that the clock must not go behind.
    pub fn clock_at_least(&mut self, time: AppendTime) {
        self.clock = self.clock.max(time);
    }

    /// The next frame known has this sequence and position; what lies between is lost, in bytes `hole` of `file`.
    pub fn arrive(&mut self, seq: FrameSeq, position: Position, hole: &Hole) {
        if seq > self.expected || position > self.position {
            self.lose(&hole.file, hole.bytes, (self.expected, seq), (self.position, position));
        }
        self.expected = self.expected.max(seq);
        self.position = self.position.max(position);
    }

    fn lose(&mut self, file: &str, bytes: (u64, u64), frames: (FrameSeq, FrameSeq), positions: (Position, Position)) {
        self.unknown.push(self.damage.len());
        self.damage.push(Damage {
            kind: DamageKind::Frames,
            file: file.to_owned(),
            bytes,
            frames,
            positions,
            offsets: Vec::new(),
        });
    }

    /// Takes a frame; true if its directory can be used.
    pub fn frame(&mut self, frame: &FrameFacts<'_>, file: &str, hole: Option<Hole>) -> bool {
        let header = &frame.header;
        let hole = hole.unwrap_or_else(|| Hole { file: file.to_owned(), bytes: (frame.at, frame.at) });
        self.arrive(header.seq, header.first_position, &hole);
        if self.known.as_ref().is_some_and(|(applied, _)| header.seq > *applied) {
            self.take_known();
        }
        self.clock_at_least(header.append_time);
        self.clock_at_least(header.clock_floor.unwrap_or(AppendTime::MIN));
        let next = FrameSeq(header.seq.0 + 1);
        let Some(topics) = &frame.topics else {
            self.lose(file, (frame.at, frame.end()), (header.seq, next), (header.first_position, header.end()));
            (self.expected, self.position) = (next, header.end());
            return false;
        };
        self.frames += 1;
        let mut position = header.first_position;
        for (index, entry) in topics.iter().enumerate() {
            let end = position.plus(u64::from(entry.records));
            self.follow_offsets(entry);
            if frame.bad_bodies.contains(&index) {
                let at = frame.at + u64::from(entry.body_at);
                self.damage.push(Damage {
                    kind: DamageKind::Records,
                    file: file.to_owned(),
                    bytes: (at, at + u64::from(entry.body_len)),
                    frames: (header.seq, next),
                    positions: (position, end),
                    offsets: offsets_of(entry),
                });
            }
            position = end;
        }
        (self.expected, self.position) = (next, header.end());
        true
    }

    /// The metadata of a frame is damaged.
    pub fn lose_meta(&mut self, frame: &FrameFacts<'_>, file: &str) {
        let at = frame.at + frame.header.meta_at() as u64;
        let position = frame.header.first_position;
        self.damage.push(Damage {
            kind: DamageKind::Metadata,
            file: file.to_owned(),
            bytes: (at, at + u64::from(frame.header.meta_len)),
            frames: (frame.header.seq, FrameSeq(frame.header.seq.0 + 1)),
            positions: (position, position),
            offsets: Vec::new(),
        });
    }

    fn follow_offsets(&mut self, entry: &TopicEntry) {
        for run in &entry.runs {
            self.hear((entry.topic, run.partition), run.base, u64::from(run.count), true);
        }
    }

    /// The end offsets that were known beforehand tell what damaged frames before them held, at most.
    fn take_known(&mut self) {
        for (partition, end) in self.known.take().into_iter().flat_map(|(_, ends)| ends) {
            self.hear(partition, end, 0, false);
        }
    }

    /// A partition goes on at `base` with `count` records: what lies between is what damaged frames held.
    fn hear(&mut self, (topic, partition): (TopicId, PartitionId), base: Offset, count: u64, certain: bool) {
        let losses = self.unknown.len();
        let unheard = self.unheard();
        let end = self.ends.entry((topic, partition)).or_insert(unheard);
        let missed = self.unknown.get(end.losses_seen..).unwrap_or_default();
        if base.0 > end.offset && !missed.is_empty() {
            let records = |damage: &Damage| damage.positions.1.0.saturating_sub(damage.positions.0.0);
            let missing = missed.iter().filter_map(|place| self.damage.get(*place)).map(records);
            let most = missing.fold(0, u64::saturating_add);
            let from = if end.known { end.offset } else { base.0.saturating_sub(most) };
            let certain = certain && end.known;
            let lost = LostOffsets { topic, name: None, partition, offsets: (Offset(from), base), certain };
            for place in missed {
                if let Some(damage) = self.damage.get_mut(*place) {
                    damage.offsets.push(lost.clone());
                }
            }
        }
        *end = End { offset: end.offset.max(base.0).saturating_add(count), losses_seen: losses, known: true };
    }

    fn unheard(&self) -> End {
        End { offset: 0, losses_seen: 0, known: self.whole }
    }

    /// The end offsets and what is damaged. Partitions of `topics` (number and partitions) that were not heard of since a loss
    /// may have lost as many records as it had: their offsets go on behind that many, so that none is given out twice.
    pub fn finish(mut self, topics: &[(TopicId, u32)]) -> (Ends, Vec<Damage>) {
        self.take_known();
        let unheard = self.unheard();
        for (topic, partitions) in topics {
            for partition in (0..*partitions).map(PartitionId) {
                let end = self.ends.entry((*topic, partition)).or_insert(unheard);
                let missed = self.unknown.get(end.losses_seen..).unwrap_or_default();
                for place in missed {
                    let Some(damage) = self.damage.get_mut(*place) else { continue };
                    let records = damage.positions.1.0.saturating_sub(damage.positions.0.0);
                    if records > 0 {
                        let behind = end.offset.saturating_add(records);
                        let offsets = (Offset(end.offset), Offset(behind));
                        let lost = LostOffsets { topic: *topic, name: None, partition, offsets, certain: false };
                        damage.offsets.push(lost);
                        end.offset = behind;
                    }
                }
            }
        }
        let ends = self.ends.into_iter().map(|(key, end)| (key, Offset(end.offset))).collect();
        (ends, self.damage)
    }
}

/// The offsets that an entry holds, a stretch per run.
pub(crate) fn offsets_of(entry: &TopicEntry) -> Vec<LostOffsets> {
    let lost = |run: &crate::log::frame::directory::Run| LostOffsets {
        topic: entry.topic,
        name: None,
        partition: run.partition,
        offsets: (run.base, Offset(run.base.0 + u64::from(run.count))),
        certain: true,
    };
    entry.runs.iter().map(lost).collect()
}

/// The metadata bytes of a frame, if it has any and they are intact.
pub(crate) fn meta_bytes<'a>(frame: &FrameFacts<'a>) -> Option<&'a [u8]> {
    match frame.meta {
        Section::Intact(bytes) if !bytes.is_empty() => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at: u64, seq: u64, synced_end: u64, intact: bool) -> TailItem {
        TailItem::Frame { at, seq: FrameSeq(seq), synced_end: FrameSeq(synced_end), intact }
    }

    #[test]
    fn a_tail_is_torn_only_where_nothing_proves_that_it_was_durable() {
        let end = TailItem::Tail { at: 900, ended: true };
        let torn = TailItem::Tail { at: 900, ended: false };
        let gap = |at| TailItem::Gap { at };
        let plan = |keep, end, cut, unproven_from| TailPlan { keep, end, cut, unproven_from };
        let cases: Vec<(&str, Vec<TailItem>, TailPlan)> = vec![
            ("empty", vec![TailItem::Tail { at: 100, ended: true }], plan(0, 100, false, 100)),
            ("clean", vec![frame(100, 5, 4, true), frame(200, 6, 5, true), end], plan(2, 900, false, 200)),
            ("torn bytes at the end", vec![frame(100, 5, 4, true), torn], plan(1, 900, true, 100)),
            ("damaged, unproven", vec![frame(100, 5, 4, false), frame(200, 6, 4, true), end], plan(0, 100, true, 100)),
            ("damaged, proven", vec![frame(100, 5, 4, false), frame(200, 6, 5, true), end], plan(2, 900, false, 200)),
            (
                "hole, unproven",
                vec![frame(100, 5, 4, true), gap(200), frame(300, 7, 5, true), end],
                plan(1, 200, true, 200),
            ),
            (
                "hole, proven",
                vec![frame(100, 5, 4, true), gap(200), frame(300, 7, 6, true), end],
                plan(3, 900, false, 300),
            ),
            (
                "hole of which only the start is proven",
                vec![frame(100, 5, 4, true), gap(200), frame(300, 8, 6, true), end],
                plan(2, 300, true, 300),
            ),
            ("hole at the very start, unproven", vec![gap(100), frame(300, 6, 4, true), end], plan(0, 100, true, 100)),
            ("a frame of the past", vec![frame(100, 5, 4, true), frame(200, 5, 4, true), end], plan(1, 200, true, 100)),
        ];
        for (what, items, expected) in cases {
            let found = judge_tail(FrameSeq(5), FrameSeq(0), &items);
            assert_eq!(found, expected, "{what}");
        }
    }
}
