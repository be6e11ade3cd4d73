//! Where the frames are: in memory, made from headers and directories when the log is opened, never evidence about the log.
//!
//! Kept small, since a log may have a million tiny frames: about 50 bytes for a frame, 50 for a topic in it, 16 for a run.

use crate::log::frame::Codec;
use crate::log::frame::directory::{ProducerMark, Run, TopicEntry};
use crate::log::frame::header::{FRAMES_AT, FileHeader, FrameHeader};
use crate::log::history::contents::History;
use crate::log::journal::JournalFile;
use crate::log::repair;
use crate::log::report::{Damage, DamageKind};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

mod statistics;

pub(crate) use statistics::Statistics;
use statistics::TopicPieces;

#[derive(Debug, Clone, Copy)]
struct FrameEntry {
    at: u32,
    topics_from: u32,
    seq: FrameSeq,
    first_position: Position,
    append_time: AppendTime,
    records: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct TopicSpan {
    topic: TopicId,
    records: u32,
    min_ms: i64,
    max_ms: i64,
    body_at: u32,
    body_len: u32,
    plain_len: u32,
    body_crc: u32,
    runs_from: u32,
    codec: Codec,
    timed: bool,
}

#[derive(Debug, Clone, Copy)]
struct RunSpan {
    partition: PartitionId,
    count: u32,
    base: Offset,
}

/// The frames of one file.
struct FileIndex {
    file: Arc<JournalFile>,
    frames: Vec<FrameEntry>,
    topics: Vec<TopicSpan>,
    runs: Vec<RunSpan>,
    pieces: BTreeMap<TopicId, TopicPieces>,
}

/// One topic's records of one frame.
#[derive(Clone)]
pub(crate) struct Located {
    pub file: Arc<JournalFile>,
    /// Byte of the frame in the file.
    pub frame_at: u64,
    /// Where the durable frames of the file end.
    pub file_end: u64,
    pub seq: FrameSeq,
    pub append_time: AppendTime,
    /// Position of the first of its records.
    pub first_position: Position,
    pub entry: TopicEntry,
}

impl Located {
    /// The position after its last record.
    pub fn end(&self) -> Position {
        self.first_position.plus(u64::from(self.entry.records))
    }

    /// What is known of its records without reading them.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            first_position: self.first_position,
            end: self.end(),
            first_append: self.append_time,
            last_append: self.append_time,
            timestamps: self.entry.timestamps,
            bytes: u64::from(self.entry.body_len),
        }
    }
}

/// All frames, and what is known to be lost.
#[derive(Default)]
pub(crate) struct Index {
    files: Vec<FileIndex>,
    /// What is known to be lost and was not accepted: in order of position.
    pub lost: Vec<Damage>,
    /// Records that were accepted as lost: topic and position of the first.
    accepted: BTreeSet<(TopicId, Position)>,
    /// Files that are in history now, while readers may still hold them.
    retired: Vec<Weak<JournalFile>>,
    /// Their maps, which may be looked at for longer.
    maps: Vec<(u64, Weak<()>)>,
    /// The records before those of the frames. Here, so that records go over to it at one moment for everybody who looks.
    pub history: History,
}

/// Full journal files that come next into history.
pub(crate) struct Sealable {
    /// What the file behind them begins with.
    pub next: FileHeader,
    /// Their bytes.
    pub bytes: u64,
    /// Where each topic's records are: by topic, then position.
    pub pieces: Vec<Piece>,
}

/// A topic's records of one frame, in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub topic: TopicId,
    pub plain_len: u32,
    file: u64,
    frame: u32,
    span: u32,
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("a journal file is smaller than 4 GiB")
}

impl FileIndex {
    fn spans(&self, frame: usize) -> &[TopicSpan] {
        let from = self.frames.get(frame).map_or(0, |frame| frame.topics_from as usize);
        let to = self.frames.get(frame + 1).map_or(self.topics.len(), |next| next.topics_from as usize);
        self.topics.get(from..to).unwrap_or_default()
    }

    fn runs(&self, span: usize) -> &[RunSpan] {
        let from = self.topics.get(span).map_or(0, |span| span.runs_from as usize);
        let to = self.topics.get(span + 1).map_or(self.runs.len(), |next| next.runs_from as usize);
        self.runs.get(from..to).unwrap_or_default()
    }

    /// First offset of a partition in a span and the one after its last.
    fn runs_of(&self, span: usize, partition: PartitionId) -> Option<(Offset, Offset)> {
        let mut runs = self.runs(span).iter().filter(|run| run.partition == partition);
        let first = runs.next()?;
        let last = runs.next_back().unwrap_or(first);
        Some((first.base, Offset(last.base.0 + u64::from(last.count))))
    }

    /// A topic's records of a frame; `before`: records of the frame before them.
    fn locate(&self, frame: usize, span: usize, before: u32) -> Option<Located> {
        let frame = self.frames.get(frame)?;
        Some(Located {
            file: self.file.clone(),
            frame_at: u64::from(frame.at),
            file_end: self.bytes(),
            seq: frame.seq,
            append_time: frame.append_time,
            first_position: frame.first_position.plus(u64::from(before)),
            entry: self.entry(span)?,
        })
    }

    /// Bytes up to the end of its last frame with records.
    fn bytes(&self) -> u64 {
        self.frames.last().map_or(0, |last| u64::from(last.at) + u64::from(last.len))
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let file = self.file.header().number;
        (0..self.frames.len()).flat_map(move |frame| {
            let from = self.frames.get(frame).map_or(0, |frame| frame.topics_from as usize);
            let piece = move |(span, found): (usize, &TopicSpan)| Piece {
                topic: found.topic,
                plain_len: found.plain_len,
                file,
                frame: small(frame),
                span: small(from + span),
            };
            self.spans(frame).iter().enumerate().map(piece)
        })
    }

    fn entry(&self, span: usize) -> Option<TopicEntry> {
        let found = self.topics.get(span)?;
        let runs = self.runs(span);
        let run = |run: &RunSpan| Run {
            partition: run.partition,
            base: run.base,
            count: run.count,
            producer: ProducerMark::NONE,
        };
        Some(TopicEntry {
            topic: found.topic,
            records: found.records,
            codec: found.codec,
            timestamps: found.timed.then_some((found.min_ms, found.max_ms)),
            body_at: found.body_at,
            body_len: found.body_len,
            plain_len: found.plain_len,
            body_crc: found.body_crc,
            runs: runs.iter().map(run).collect(),
        })
    }
}

impl Index {
    /// Begins a file; its frames follow. The one before is sealed.
    pub fn add_file(&mut self, file: Arc<JournalFile>) {
        if let Some(last) = self.files.last_mut() {
            last.frames.shrink_to_fit();
            last.topics.shrink_to_fit();
            last.runs.shrink_to_fit();
            last.file.seal();
        }
        self.files.push(FileIndex {
            file,
            frames: Vec::new(),
            topics: Vec::new(),
            runs: Vec::new(),
            pieces: BTreeMap::new(),
        });
    }

    /// Forgets the files up to number `through`: their records are in history.
    pub fn retire(&mut self, through: u64) {
        let sealed = self.files.len().saturating_sub(1);
        let gone = self.files.partition_point(|file| file.file.number() <= through).min(sealed);
        self.retired.retain(|file| file.strong_count() > 0);
        self.maps.retain(|(_, map)| map.strong_count() > 0);
        for FileIndex { file, .. } in self.files.drain(..gone) {
            self.retired.push(Arc::downgrade(&file));
            self.maps.push((file.number(), file.map_in_use()));
        }
    }

    /// True if records of the file may still be read from it.
    pub fn holds(&self, number: u64) -> bool {
        let is = |file: &Arc<JournalFile>| file.number() == number;
        self.files.iter().any(|file| is(&file.file))
            || self.retired.iter().filter_map(Weak::upgrade).any(|file| is(&file))
    }

    /// True if bytes of the file may still be looked at.
    pub fn maps(&self, number: u64) -> bool {
        self.holds(number) || self.maps.iter().any(|(of, map)| *of == number && map.strong_count() > 0)
    }

    /// From now on readers pass these losses.
    pub fn accept(&mut self, losses: &[Damage]) {
        self.lost.retain(|lost| !repair::covers(losses, lost));
        self.history.lost.retain(|lost| !repair::covers(losses, lost));
        for loss in losses.iter().filter(|loss| loss.kind == DamageKind::Records) {
            self.accepted.extend(loss.offsets.iter().map(|offsets| (offsets.topic, loss.positions.0)));
        }
    }

    /// Remembers a loss, so that readers are told of it.
    pub fn lose(&mut self, damage: Damage) {
        if damage.kind != DamageKind::Metadata && !self.lost.contains(&damage) {
            let place = self.lost.partition_point(|lost| lost.positions.0 <= damage.positions.0);
            self.lost.insert(place, damage);
        }
    }

    /// The first file behind number `number` that is not the newest.
    pub fn sealed_after(&self, number: u64) -> Option<Arc<JournalFile>> {
        let (_, sealed) = self.files.split_last()?;
        sealed.iter().map(|file| &file.file).find(|file| file.number() > number).cloned()
    }

    /// Position of the first record of file `number`.
    pub fn first_position(&self, number: u64) -> Position {
        let file = self.files.iter().find(|file| file.file.number() == number);
        file.and_then(|file| file.frames.first()).map_or(Position(0), |frame| frame.first_position)
    }

    /// Where the first records behind frame `seq` begin: file and byte.
    pub fn place_behind(&self, seq: FrameSeq) -> (u64, u64) {
        let behind = |file: &FileIndex| {
            let found = file.frames.get(file.frames.partition_point(|frame| frame.seq <= seq))?;
            Some((file.file.number(), u64::from(found.at)))
        };
        self.files.iter().find_map(behind).unwrap_or_else(|| self.end_place())
    }

    /// Where the last frame with records ends: file and byte.
    pub fn end_place(&self) -> (u64, u64) {
        let end =
            |file: &FileIndex| file.frames.last().map_or(FRAMES_AT, |last| u64::from(last.at) + u64::from(last.len));
        self.files.last().map_or((1, FRAMES_AT), |file| (file.file.number(), end(file)))
    }

    /// The newest file.
    pub fn last_file(&self) -> Option<Arc<JournalFile>> {
        self.files.last().map(|file| file.file.clone())
    }

    /// Adds a frame to the newest file.
    pub fn push(&mut self, at: u64, header: &FrameHeader, topics: &[TopicEntry]) {
        let Some(index) = self.files.last_mut() else { return };
        if topics.is_empty() {
            return;
        }
        index.frames.push(FrameEntry {
            at: small(usize::try_from(at).unwrap_or(usize::MAX)),
            topics_from: small(index.topics.len()),
            seq: header.seq,
            first_position: header.first_position,
            append_time: header.append_time,
            records: header.records,
            len: header.frame_len,
        });
        let mut before = 0;
        for entry in topics {
            let (min_ms, max_ms) = entry.timestamps.unwrap_or_default();
            index.topics.push(TopicSpan {
                topic: entry.topic,
                records: entry.records,
                min_ms,
                max_ms,
                body_at: entry.body_at,
                body_len: entry.body_len,
                plain_len: entry.plain_len,
                body_crc: entry.body_crc,
                runs_from: small(index.runs.len()),
                codec: entry.codec,
                timed: entry.timestamps.is_some(),
            });
            let runs = entry.runs.iter();
            index.runs.extend(runs.map(|run| RunSpan { partition: run.partition, count: run.count, base: run.base }));
            index.note(header, before, entry);
            before += entry.records;
        }
    }

    /// The first records of one of `topics` with a position of at least `from`, that satisfy `wanted` (topic, records by
    /// timestamp range in ms, append time).
    pub fn find(
        &self,
        topics: &[TopicId],
        from: Position,
        mut wanted: impl FnMut(Option<(i64, i64)>, AppendTime) -> bool,
    ) -> Option<Located> {
        let first_file = self.files.partition_point(|file| {
            file.frames.last().is_none_or(|last| last.first_position.plus(u64::from(last.records)) <= from)
                && file.frames.last().is_some()
        });
        for file in self.files.get(first_file..)? {
            let first =
                file.frames.partition_point(|frame| frame.first_position.plus(u64::from(frame.records)) <= from);
            for (number, frame) in file.frames.iter().enumerate().skip(first) {
                let mut position = frame.first_position;
                for (place, span) in file.spans(number).iter().enumerate() {
                    let end = position.plus(u64::from(span.records));
                    let times = span.timed.then_some((span.min_ms, span.max_ms));
                    let there = end > from && topics.contains(&span.topic) && !self.is_accepted(span.topic, position);
                    if there && wanted(times, frame.append_time) {
                        let entry = file.entry(frame.topics_from as usize + place)?;
                        return Some(Located {
                            file: file.file.clone(),
                            frame_at: u64::from(frame.at),
                            file_end: file.bytes(),
                            seq: frame.seq,
                            append_time: frame.append_time,
                            first_position: position,
                            entry,
                        });
                    }
                    position = end;
                }
            }
        }
        None
    }

    fn is_accepted(&self, topic: TopicId, position: Position) -> bool {
        !self.accepted.is_empty() && self.accepted.contains(&(topic, position))
    }

    /// The oldest full files, at most `files` of them and, beyond the first, at most `bytes`.
    pub fn sealable(&self, files: usize, bytes: u64) -> Option<Sealable> {
        let mut found: Option<Sealable> = None;
        for (file, next) in self.files.iter().zip(self.files.iter().skip(1)).take(files) {
            let size = file.bytes();
            if found.as_ref().is_some_and(|found| found.bytes + size > bytes) {
                break;
            }
            let header = *next.file.header();
            let found = found.get_or_insert_with(|| Sealable { next: header, bytes: 0, pieces: Vec::new() });
            found.next = header;
            found.bytes += size;
            found.pieces.extend(file.pieces());
        }
        if let Some(found) = &mut found {
            found.pieces.sort_by_key(|piece| piece.topic);
        }
        found
    }

    /// The records of a piece; `None` once its file is in history.
    pub fn located(&self, piece: Piece) -> Option<Located> {
        let place = self.files.binary_search_by_key(&piece.file, |file| file.file.header().number).ok()?;
        let file = self.files.get(place)?;
        let frame = file.frames.get(piece.frame as usize)?;
        let spans = file.topics.get(frame.topics_from as usize..piece.span as usize)?;
        file.locate(piece.frame as usize, piece.span as usize, spans.iter().map(|span| span.records).sum())
    }

    /// Full files that are not in history: how many, and their bytes.
    pub fn unsealed(&self) -> (u64, u64) {
        let full = self.files.split_last().map_or(&[][..], |(_, full)| full);
        (full.len() as u64, full.iter().map(FileIndex::bytes).sum())
    }

    /// What was read from the files before `next` is read from `history` from now on. Gives what was there before.
    pub fn switch(&mut self, history: History) -> History {
        self.retire(history.sealed_file);
        self.lost.retain(|lost| lost.positions.0 >= history.end);
        std::mem::replace(&mut self.history, history)
    }

    /// The first known loss of records of one of `topics` that ends after `from`.
    pub fn lost_after(&self, topics: &[TopicId], from: Position) -> Option<&Damage> {
        self.history
            .lost
            .iter()
            .chain(&self.lost)
            .find(|lost| lost.positions.1 > from && lost.offsets.iter().any(|offsets| topics.contains(&offsets.topic)))
    }
}
