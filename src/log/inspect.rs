//! Looking at a log without opening it: no lock, no change, no repair. What `kappa inspect` shows.

use crate::env::{Env, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::{self, CatalogView, MemoryView, MetaSpace};
use crate::log::frame::Codec;
use crate::log::frame::footer;
use crate::log::frame::header::{FRAMES_AT, FileHeader};
use crate::log::open::{
    JOURNAL_DIR, Listed, agrees, is_footer_at, is_in_history, list_files, name_offsets, read_whole, sealed_of,
    topics_of,
};
use crate::log::recovery::{Follow, Hole, Start, TailItem, TailPlan, judge_tail, meta_bytes};
use crate::log::repair;
use crate::log::report::{Damage, TornTail};
use crate::log::scan::{FrameFacts, Item, Scan, Section};
use crate::log::snapshot::{self, Snapshot};
use crate::types::{FrameSeq, TopicId};
use serde::Serialize;
use std::path::Path;

/// Folder of the history files within the data folder.
const HISTORY_DIR: &str = "history";

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
    /// Header and directory are as they were written. If they are not, the file's footer stands in for them.
    pub header_intact: bool,
    /// Keys of its metadata records; `None` if damaged.
    pub metadata: Option<Vec<(MetaSpace, String)>>,
    /// Its topics; `None` if the directory is damaged.
    pub topics: Option<Vec<TopicSummary>>,
}

/// The footer of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FooterState {
    /// It and the bytes in front of it match their checksums.
    Intact,
    /// There is none: the file is the newest one, or holds damage.
    None,
    /// It does not match its checksum or the next file: opening the log scans the file and writes it again.
    Damaged,
    /// It is intact and the bytes in front of it are not what they were.
    FramesChanged,
    /// The same, and what they were was accepted as lost.
    LossAccepted,
}

/// A metadata snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    /// Its name.
    pub name: String,
    /// The last frame that it contains.
    pub applied: Option<u64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// A history file with a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryProblem {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
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
    /// Its footer.
    pub footer: FooterState,
    /// Its records are in history: the file only waits to be removed and was not looked at.
    pub in_history: bool,
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
    /// What is damaged and was not accepted.
    pub damage: Vec<Damage>,
    /// What was accepted as lost.
    pub accepted: Vec<Damage>,
    /// Metadata snapshots.
    pub snapshots: Vec<SnapshotSummary>,
    /// History files that the journal names and that have a problem; looked for by [`verify`] only.
    pub history: Vec<HistoryProblem>,
    /// Topics that are not deleted: number, name, partitions.
    pub topics: Vec<(u32, String, u32)>,
}

impl FileSummary {
    /// True if a part of it that is kept twice is damaged in one place, or its footer is.
    pub fn is_damaged(&self) -> bool {
        let footer = matches!(self.footer, FooterState::Damaged | FooterState::FramesChanged);
        footer || !self.damaged_headers.is_empty() || self.frames.iter().any(|frame| !frame.header_intact)
    }
}

impl Inspection {
    /// 0 clean, 1 a torn tail, 2 damage.
    pub fn severity(&self) -> u8 {
        let snapshots = self.snapshots.iter().any(|snapshot| snapshot.problem.is_some());
        let derived = snapshots || !self.history.is_empty();
        let damaged = !self.damage.is_empty() || derived || self.files.iter().any(FileSummary::is_damaged);
        if damaged { 2 } else { u8::from(self.torn.is_some()) }
    }
}

/// What is known while files go by in order.
struct Pass {
    seen: Inspection,
    follow: Follow,
    view: MemoryView,
    hole: Option<Hole>,
}

/// Reads the log in the data folder `dir` and checks every checksum. A log that is being written may look torn at its end.
///
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the folder or a file cannot be read.
pub fn inspect(env: &Env, dir: &Path) -> Result<Inspection> {
    look(env, dir)?.finish()
}

/// As [`inspect`], and the history files that the journal names.
pub fn verify(env: &Env, dir: &Path) -> Result<Inspection> {
    let pass = look(env, dir)?;
    let history = look_at_history(env, dir, &pass.view)?;
    Ok(Inspection { history, ..pass.finish()? })
}

fn look(env: &Env, dir: &Path) -> Result<Pass> {
    let journal = dir.join(JOURNAL_DIR);
    let listed = list_files(env, &journal)?;
    let log_id = listed.iter().find_map(|file| file.header).map_or(0, |header| header.log_id);
    let (snapshots, snapshot) = look_at_snapshots(env, dir, log_id)?;
    let start = snapshot.as_ref().map_or_else(Start::default, Snapshot::start);
    let in_history = snapshot.as_ref().and_then(Snapshot::sealed).map_or(0, |sealed| sealed.file);
    let mut pass = Pass {
        seen: Inspection { snapshots, ..Inspection::default() },
        follow: Follow::new(start),
        view: MemoryView::default(),
        hole: None,
    };
    if let Some(snapshot) = &snapshot {
        snapshot.bring(&mut pass.view);
    }
    for (place, file) in listed.iter().enumerate() {
        pass.file(env, file, listed.get(place + 1), in_history)?;
    }
    Ok(pass)
}

/// Looks for each history file that the journal names.
fn look_at_history(env: &Env, dir: &Path, view: &dyn CatalogView) -> Result<Vec<HistoryProblem>> {
    let mut problems = Vec::new();
    for (number, _) in view.scan(MetaSpace::History, "") {
        let name = format!("{number}.parquet");
        let path = dir.join(HISTORY_DIR).join(&name);
        if !env.disk.exists(&path).map_err(|cause| Error::io("looking for", &path, cause))? {
            problems.push(HistoryProblem { name, problem: "it is missing".to_owned() });
        }
    }
    Ok(problems)
}

/// Reads all snapshots; gives the newest that verifies.
fn look_at_snapshots(env: &Env, dir: &Path, log_id: u64) -> Result<(Vec<SnapshotSummary>, Option<Snapshot>)> {
    let (mut summaries, mut newest) = (Vec::new(), None);
    for (number, path) in snapshot::list(env, dir)? {
        let name = snapshot::file_name(number);
        match snapshot::read(env, &path, number, log_id) {
            Ok((snapshot, _)) => {
                summaries.push(SnapshotSummary { name, applied: Some(snapshot.applied.0), problem: None });
                newest = Some(snapshot);
            }
            Err(error) if error.kind() == ErrorKind::Damage => {
                let problem = Some(error.message().to_owned());
                summaries.push(SnapshotSummary { name, applied: None, problem });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((summaries, newest))
}

impl Pass {
    fn file(&mut self, env: &Env, file: &Listed, next: Option<&Listed>, in_history: u64) -> Result<()> {
        let bytes = read_file(env, &file.path)?;
        let len = bytes.len() as u64;
        let mut summary = FileSummary {
            name: file.name.clone(),
            bytes: len,
            end: len,
            damaged_headers: file.bad_copies.clone(),
            footer: FooterState::None,
            in_history: file.number <= in_history && next.is_some(),
            frames: Vec::new(),
        };
        match file.header {
            _ if summary.in_history => {}
            None => self.hole = Some(Hole { file: file.name.clone(), bytes: (0, len) }),
            Some(header) => self.frames(file, next, &header, &bytes, &mut summary),
        }
        self.seen.files.push(summary);
        Ok(())
    }

    fn frames(
        &mut self,
        file: &Listed,
        next: Option<&Listed>,
        header: &FileHeader,
        bytes: &[u8],
        summary: &mut FileSummary,
    ) {
        let limit = next.filter(|next| next.number == file.number + 1).and_then(|next| next.header);
        let before = self.hole.take().unwrap_or_else(|| Hole { file: file.name.clone(), bytes: (0, 0) });
        self.follow.arrive(header.first_seq, header.first_position, &before);
        self.follow.clock_at_least(header.clock);
        let footer = footer::read(bytes, header).ok().filter(|(trailer, _)| agrees(trailer, limit.as_ref()));
        if let Some((trailer, frames)) = footer.filter(|_| next.is_some()) {
            let used = bytes.get(place(FRAMES_AT)..place(trailer.frames_end)).unwrap_or_default();
            let same = crc32fast::hash(used) == trailer.frames_crc;
            summary.footer = if same { FooterState::Intact } else { FooterState::FramesChanged };
            summary.end = trailer.frames_end;
            let scan = Scan::new(bytes, header.salt, true);
            for (facts, same) in frames.into_iter().map(|frame| scan.known(frame)) {
                self.frame(&facts, same, summary);
            }
            return;
        }
        let end = limit.map_or(bytes.len(), |next| place(next.previous_len).min(bytes.len()));
        if end < bytes.len() {
            summary.footer = FooterState::Damaged;
        }
        let used = bytes.get(..end).unwrap_or_default();
        let items: Vec<Item<'_>> = Scan::new(used, header.salt, true).collect();
        let whole = |end| TailPlan { keep: items.len(), end, cut: false, unproven_from: end };
        let plan = match next {
            Some(_) => whole(end as u64),
            None => judge_tail(header.first_seq, FrameSeq(0), &items.iter().map(TailItem::of).collect::<Vec<_>>()),
        };
        summary.end = plan.end;
        self.items(&items, &plan, next.is_some().then_some(end as u64), summary);
        if plan.cut && is_footer_at(bytes, header, plan.end) {
            // The file is complete; the next one was not made yet.
            summary.footer = FooterState::Intact;
        } else if plan.cut {
            let bytes = bytes.len() as u64 - plan.end;
            self.seen.torn = Some(TornTail { file: file.name.clone(), at: plan.end, bytes, kept_in: None });
        }
    }

    fn items(&mut self, items: &[Item<'_>], plan: &TailPlan, sealed_end: Option<u64>, summary: &mut FileSummary) {
        for item in items.iter().take(plan.keep) {
            match item {
                Item::Gap { at, to } => self.hole = Some(Hole { file: summary.name.clone(), bytes: (*at, *to) }),
                Item::Tail { at, .. } => {
                    let hole = |end| Hole { file: summary.name.clone(), bytes: (*at, end) };
                    self.hole = sealed_end.filter(|end| at < end).map(hole).or(self.hole.take());
                }
                Item::Frame(frame) => self.frame(frame, true, summary),
            }
        }
        if let (Some(lost), Some(Item::Frame(frame))) = (self.hole.take_if(|_| plan.cut), items.get(plan.keep)) {
            self.follow.arrive(frame.header.seq, frame.header.first_position, &lost);
        }
    }

    fn frame(&mut self, frame: &FrameFacts<'_>, header_intact: bool, summary: &mut FileSummary) {
        self.follow.frame(frame, &summary.name, self.hole.take());
        let records = meta_bytes(frame).map_or(Ok(Vec::new()), catalog::decode).ok();
        let records = records.filter(|_| frame.meta != Section::Damaged || frame.header.meta_len == 0);
        let is_news = frame.header.seq > self.view.applied();
        match &records {
            Some(records) if is_news => self.view.apply(frame.header.seq, records),
            None if is_news => self.follow.lose_meta(frame, &summary.name),
            _ => {}
        }
        summary.frames.push(frame_summary(frame, header_intact, records));
    }

    fn finish(self) -> Result<Inspection> {
        let Pass { mut seen, follow, view, .. } = self;
        // A topic record that cannot be read is an error when the log is opened; here the rest is shown.
        let topics = topics_of(&view).unwrap_or_default();
        let all = topics.all();
        let known: Vec<(TopicId, u32)> = all.iter().map(|topic| (topic.id(), topic.partitions())).collect();
        seen.accepted = repair::accepted(&view);
        let sealed = sealed_of(&view);
        seen.damage = follow.finish(&known).1;
        seen.damage.retain(|damage| !is_in_history(damage, sealed.as_ref()) && !repair::covers(&seen.accepted, damage));
        name_offsets(&mut seen.damage, &topics);
        name_offsets(&mut seen.accepted, &topics);
        for file in seen.files.iter_mut().filter(|file| file.footer == FooterState::FramesChanged) {
            if seen.accepted.iter().any(|loss| loss.file == file.name) {
                file.footer = FooterState::LossAccepted;
            }
        }
        seen.topics = all.iter().map(|topic| (topic.id().0, topic.name().to_owned(), topic.partitions())).collect();
        Ok(seen)
    }
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn read_file(env: &Env, path: &Path) -> Result<Vec<u8>> {
    let io = |cause| Error::io("reading", path, cause);
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    read_whole(&*file).map_err(io)
}

fn frame_summary(
    frame: &FrameFacts<'_>,
    header_intact: bool,
    records: Option<Vec<catalog::MetaRecord>>,
) -> FrameSummary {
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
        header_intact,
        metadata: records.map(|records| records.into_iter().map(|record| (record.space, record.key)).collect()),
        topics: frame.topics.as_ref().map(|topics| topics.iter().enumerate().map(topic).collect()),
    }
}
