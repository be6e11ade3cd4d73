//! Looking at a log without opening it: no lock, no change, no repair. What `kappa inspect` shows.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::log::catalog::{self, MetaSpace};
use crate::log::frame::Codec;
use crate::log::journal::read_up_to;
use crate::log::open::{JOURNAL_DIR, Listed, list_files};
use crate::log::recovery::{Follow, Hole, TailItem, TailPlan, judge_tail, meta_bytes};
use crate::log::report::{Damage, TornTail};
use crate::log::scan::{FrameFacts, Item, Scan, Section};
use crate::log::topic::Topics;
use crate::types::TopicId;
use serde::Serialize;
use std::path::Path;

/// A topic in a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicSummary {
    /// Its number.
    pub topic: u32,
    /// Records.
    pub records: u32,
    /// How the body is stored.
    pub codec: Codec,
    /// Bytes of the body as stored.
    pub bytes: u32,
    /// Bytes of the body decompressed.
    pub plain_bytes: u32,
    /// Smallest and largest timestamp in ms.
    pub timestamps_ms: Option<(i64, i64)>,
    /// Partition, first offset, records.
    pub runs: Vec<(u32, u64, u32)>,
    /// The body matches its checksum.
    pub intact: bool,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrameSummary {
    /// Byte in the file.
    pub at: u64,
    /// Bytes.
    pub bytes: u32,
    /// Its number.
    pub seq: u64,
    /// Position of its first record.
    pub first_position: u64,
    /// Records.
    pub records: u32,
    /// Append time, microseconds.
    pub append_time_us: i64,
    /// The newest frame that was durable when this was written.
    pub synced_end: u64,
    /// A mark: nothing in it.
    pub mark: bool,
    /// Keys of its metadata records; `None` if damaged.
    pub metadata: Option<Vec<(MetaSpace, String)>>,
    /// Its topics; `None` if the directory is damaged.
    pub topics: Option<Vec<TopicSummary>>,
}

/// A journal file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Where its frames end.
    pub end: u64,
    /// Which copies of its header are damaged.
    pub damaged_headers: Vec<&'static str>,
    /// Its frames, in order.
    pub frames: Vec<FrameSummary>,
}

/// What is in a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Journal files.
    pub files: Vec<FileSummary>,
    /// Bytes at the end that opening the log would cut off.
    pub torn: Option<TornTail>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Topics that are not deleted: number, name, partitions.
    pub topics: Vec<(u32, String, u32)>,
}

impl Inspection {
    /// 0 clean, 1 a torn tail, 2 damage.
    pub fn severity(&self) -> u8 {
        let damaged = !self.damage.is_empty() || self.files.iter().any(|file| !file.damaged_headers.is_empty());
        if damaged { 2 } else { u8::from(self.torn.is_some()) }
    }
}

/// Reads the log in the data folder `dir` and checks every checksum. A log that is being written may look torn at its end.
///
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the folder or a file cannot be read.
pub fn inspect(env: &Env, dir: &Path) -> Result<Inspection> {
    let journal = dir.join(JOURNAL_DIR);
    let listed = list_files(env, &journal)?;
    let mut seen = Inspection::default();
    let mut follow = Follow::new();
    let mut topics = Topics::default();
    let mut hole: Option<Hole> = None;
    for (place, file) in listed.iter().enumerate() {
        let bytes = read_file(env, &file.path)?;
        let next = listed.get(place + 1);
        let limit = next.filter(|next| next.number == file.number + 1).and_then(|next| next.header);
        let end =
            limit.map_or(bytes.len(), |next| usize::try_from(next.previous_len).unwrap_or(usize::MAX).min(bytes.len()));
        let Some(header) = file.header else {
            hole = Some(Hole { file: file.name.clone(), bytes: (0, bytes.len() as u64) });
            seen.files.push(summary(file, bytes.len() as u64, end as u64, Vec::new()));
            continue;
        };
        let before = hole.take().unwrap_or_else(|| Hole { file: file.name.clone(), bytes: (0, 0) });
        follow.arrive(header.first_seq, header.first_position, &before);
        let used = bytes.get(..end).unwrap_or_default();
        let items: Vec<Item<'_>> = Scan::new(used, header.salt, true).collect();
        let plan = match next {
            Some(_) => TailPlan { keep: items.len(), end: end as u64, cut: false, unproven_from: end as u64 },
            None => judge_tail(header.first_seq, &items.iter().map(TailItem::of).collect::<Vec<_>>()),
        };
        let mut frames = Vec::new();
        for item in items.iter().take(plan.keep) {
            match item {
                Item::Gap { at, to } => hole = Some(Hole { file: file.name.clone(), bytes: (*at, *to) }),
                Item::Tail { at, .. } if next.is_some() && *at < end as u64 => {
                    hole = Some(Hole { file: file.name.clone(), bytes: (*at, end as u64) });
                }
                Item::Tail { .. } => {}
                Item::Frame(frame) => {
                    follow.frame(frame, &file.name, hole.take());
                    frames.push(look(frame, &file.name, &mut follow, &mut topics));
                }
            }
        }
        if let (Some(lost), Some(Item::Frame(frame))) = (hole.take_if(|_| plan.cut), items.get(plan.keep)) {
            follow.arrive(frame.header.seq, frame.header.first_position, &lost);
        }
        if plan.cut {
            let bytes = bytes.len() as u64 - plan.end;
            seen.torn = Some(TornTail { file: file.name.clone(), at: plan.end, bytes, kept_in: None });
        }
        seen.files.push(summary(file, bytes.len() as u64, plan.end, frames));
    }
    finish(seen, follow, &topics)
}

fn finish(mut seen: Inspection, follow: Follow, topics: &Topics) -> Result<Inspection> {
    let known: Vec<(TopicId, u32)> = topics.all().iter().map(|topic| (topic.id(), topic.partitions())).collect();
    seen.damage = follow.finish(&known).1;
    for offsets in seen.damage.iter_mut().flat_map(|damage| &mut damage.offsets) {
        offsets.name = topics.by_id(offsets.topic).ok().map(|topic| topic.name().to_owned());
    }
    let all = topics.all();
    seen.topics = all.iter().map(|topic| (topic.id().0, topic.name().to_owned(), topic.partitions())).collect();
    Ok(seen)
}

fn read_file(env: &Env, path: &Path) -> Result<Vec<u8>> {
    let io = |cause| Error::io("reading", path, cause);
    let file = env.disk.open(path, crate::env::OpenMode::Read).map_err(io)?;
    let len = usize::try_from(file.len().map_err(io)?).map_err(|_| Error::internal("a journal file beyond memory"))?;
    let mut bytes = vec![0; len];
    let filled = read_up_to(&*file, 0, &mut bytes).map_err(io)?;
    bytes.truncate(filled);
    Ok(bytes)
}

fn summary(file: &Listed, bytes: u64, end: u64, frames: Vec<FrameSummary>) -> FileSummary {
    FileSummary { name: file.name.clone(), bytes, end, damaged_headers: file.bad_copies.clone(), frames }
}

fn look(frame: &FrameFacts<'_>, file: &str, follow: &mut Follow, topics: &mut Topics) -> FrameSummary {
    let records = meta_bytes(frame).map_or(Ok(Vec::new()), catalog::decode).ok();
    let records = records.filter(|_| frame.meta != Section::Damaged || frame.header.meta_len == 0);
    if records.is_none() {
        follow.lose_meta(frame, file);
    }
    for record in records.iter().flatten().filter(|record| record.space == MetaSpace::Topic) {
        // A topic record that cannot be read is an error when the log is opened; here the rest is shown.
        let _ = topics.apply(record);
    }
    let topic = |(index, entry): (usize, &crate::log::frame::directory::TopicEntry)| TopicSummary {
        topic: entry.topic.0,
        records: entry.records,
        codec: entry.codec,
        bytes: entry.body_len,
        plain_bytes: entry.plain_len,
        timestamps_ms: entry.timestamps,
        runs: entry.runs.iter().map(|run| (run.partition.0, run.base.0, run.count)).collect(),
        intact: !frame.bad_bodies.contains(&index),
    };
    FrameSummary {
        at: frame.at,
        bytes: frame.header.frame_len,
        seq: frame.header.seq.0,
        first_position: frame.header.first_position.0,
        records: frame.header.records,
        append_time_us: frame.header.append_time.0,
        synced_end: frame.header.synced_end.0,
        mark: frame.header.mark,
        metadata: records.map(|records| records.into_iter().map(|record| (record.space, record.key)).collect()),
        topics: frame.topics.as_ref().map(|topics| topics.iter().enumerate().map(topic).collect()),
    }
}
