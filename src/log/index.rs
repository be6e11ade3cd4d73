//! Where the frames are: in memory, made from headers and directories when the log is opened, never evidence about the log.
//!
//! Kept small, since a log may have a million tiny frames: about 50 bytes for a frame, 50 for a topic in it, 16 for a run.

use crate::log::frame::Codec;
use crate::log::frame::directory::{ProducerMark, Run, TopicEntry};
use crate::log::frame::header::FrameHeader;
use crate::log::journal::JournalFile;
use crate::log::report::Damage;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::sync::Arc;

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
}

/// All frames, and what is known to be lost.
#[derive(Default)]
pub(crate) struct Index {
    files: Vec<FileIndex>,
    /// In order of position; only frames whose topics cannot be read from a directory.
    pub lost: Vec<Damage>,
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

    fn entry(&self, span: usize) -> Option<TopicEntry> {
        let found = self.topics.get(span)?;
        let to = self.topics.get(span + 1).map_or(self.runs.len(), |next| next.runs_from as usize);
        let runs = self.runs.get(found.runs_from as usize..to)?;
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
        self.files.push(FileIndex { file, frames: Vec::new(), topics: Vec::new(), runs: Vec::new() });
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
                    if end > from && topics.contains(&span.topic) && wanted(times, frame.append_time) {
                        let entry = file.entry(frame.topics_from as usize + place)?;
                        return Some(Located {
                            file: file.file.clone(),
                            frame_at: u64::from(frame.at),
                            file_end: file.frames.last().map_or(0, |last| u64::from(last.at) + u64::from(last.len)),
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

    /// The first known loss of records of one of `topics` that ends after `from`.
    pub fn lost_after(&self, topics: &[TopicId], from: Position) -> Option<&Damage> {
        self.lost
            .iter()
            .find(|lost| lost.positions.1 > from && lost.offsets.iter().any(|offsets| topics.contains(&offsets.topic)))
    }
}
