//! Opening a log: reads what is there, carries out what [`recovery`](super::recovery) decides, and says where to go on.
//!
//! Safe to be interrupted anywhere: what is cut off is copied aside first; then a new file is created, whose header says
//! where the old one ends; only then is the old one cut. A later opening that finds the new file finishes the cut.

use crate::codec::CodecError;
use crate::env::{Env, OpenMode, replace_file};
use crate::error::{Error, Result};
use crate::log::catalog::{self, CatalogView, MemoryView, MetaSpace, SledView};
use crate::log::frame::header::{FILE_HEADER_BLOCK, FRAMES_AT, FileHeader, UNKNOWN_FEATURES, UNKNOWN_VERSION};
use crate::log::index::Index;
use crate::log::journal::{JournalFile, create_file, file_name, file_number, read_up_to};
use crate::log::options::{LogOptions, ViewKind};
use crate::log::recovery::{Follow, GoOn, Hole, TailItem, TailPlan, judge_tail, meta_bytes};
use crate::log::report::{DamageKind, RecoveryReport, TornTail};
use crate::log::scan::{FrameFacts, Item, Scan};
use crate::log::topic::Topics;
use crate::log::writer::Place;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folder of the journal files within the data folder.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// Folder of sled within the data folder.
pub(crate) const SLED_DIR: &str = "sled";

/// A log as it was found and repaired.
pub(crate) struct Opened {
    pub index: Index,
    pub ends: BTreeMap<(TopicId, PartitionId), Offset>,
    pub topics: Topics,
    pub view: Box<dyn CatalogView>,
    pub place: Place,
    pub report: RecoveryReport,
}

/// A journal file and its header; `None` if both copies are damaged.
pub(crate) struct Listed {
    pub number: u64,
    pub name: String,
    pub path: PathBuf,
    pub header: Option<FileHeader>,
    /// Which copies are damaged.
    pub bad_copies: Vec<&'static str>,
}

/// Reads both copies of a file's header.
fn read_header(env: &Env, path: &Path) -> Result<(Option<FileHeader>, Vec<&'static str>)> {
    let io = |cause| Error::io("reading", path, cause);
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    let mut block = vec![0; 2 * FILE_HEADER_BLOCK];
    let filled = read_up_to(&*file, 0, &mut block).map_err(io)?;
    block.truncate(filled);
    let (mut found, mut bad) = (None, Vec::new());
    for (copy, name) in [(0, "first"), (FILE_HEADER_BLOCK, "second")] {
        match FileHeader::decode(block.get(copy..).unwrap_or_default()) {
            Ok(header) => found = found.or(Some(header)),
            Err(CodecError::Invalid { what: UNKNOWN_VERSION | UNKNOWN_FEATURES, value }) => {
                let message = format!("{} was written by another version of Kappa ({value})", path.display());
                return Err(Error::input(message).with_hint("open it with that version"));
            }
            Err(_) => bad.push(name),
        }
    }
    Ok((found, bad))
}

/// The journal files by number.
pub(crate) fn list_files(env: &Env, journal: &Path) -> Result<Vec<Listed>> {
    let mut files = Vec::new();
    for entry in env.disk.list(journal).map_err(|cause| Error::io("listing", journal, cause))? {
        let Some(number) = file_number(&entry.name) else { continue };
        let path = journal.join(&entry.name);
        let (header, bad_copies) = read_header(env, &path)?;
        let header = header.filter(|header| header.number == number);
        files.push(Listed { number, name: entry.name, path, header, bad_copies });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Everything that is known while files go by in order.
struct Pass {
    follow: Follow,
    index: Index,
    view: Box<dyn CatalogView>,
    hole: Option<Hole>,
}

impl Pass {
    fn begin_file(&mut self, header: &FileHeader) {
        let hole = self.hole.take().unwrap_or_else(|| Hole {
            file: file_name(header.number.saturating_sub(1)),
            bytes: (header.previous_len, header.previous_len),
        });
        self.follow.arrive(header.first_seq, header.first_position, &hole);
        self.follow.clock_at_least(header.clock);
    }

    fn item(&mut self, item: &Item<'_>, file: &str, len: u64) {
        match item {
            Item::Gap { at, to } => self.hole = Some(Hole { file: file.to_owned(), bytes: (*at, *to) }),
            Item::Tail { at, .. } if *at < len => self.hole = Some(Hole { file: file.to_owned(), bytes: (*at, len) }),
            Item::Tail { .. } => {}
            Item::Frame(frame) => self.frame(frame, file),
        }
    }

    fn frame(&mut self, frame: &FrameFacts<'_>, file: &str) {
        let hole = self.hole.take();
        if self.follow.frame(frame, file, hole) {
            self.index.push(frame.at, &frame.header, frame.topics.as_deref().unwrap_or_default());
        }
        let new_to_view = frame.header.seq > self.view.applied();
        if !new_to_view || frame.header.meta_len == 0 {
            return;
        }
        match meta_bytes(frame).map(catalog::decode) {
            Some(Ok(records)) => self.view.apply(frame.header.seq, &records),
            _ => self.follow.lose_meta(frame, file),
        }
    }
}

/// The newest file, read and judged.
struct Newest {
    bytes: Vec<u8>,
    plan: TailPlan,
    header: FileHeader,
    last_seq: FrameSeq,
    marked: bool,
}

fn judge_newest(env: &Env, listed: &Listed) -> Result<Newest> {
    let io = |cause| Error::io("reading", &listed.path, cause);
    let header = listed.header.ok_or_else(|| {
        let message = format!("both headers of {} are damaged: its records cannot be read", listed.path.display());
        Error::damage(message).with_hint("it is the newest file; move it away to give its records up")
    })?;
    let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    // What is read must be what is on disk, not only in memory.
    file.sync_data().map_err(io)?;
    let len = file.len().map_err(io)?;
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::internal("a journal file beyond memory"))?];
    let filled = read_up_to(&*file, 0, &mut bytes).map_err(io)?;
    bytes.truncate(filled);
    let items: Vec<Item<'_>> = Scan::new(&bytes, header.salt, true).collect();
    let facts: Vec<TailItem> = items.iter().map(TailItem::of).collect();
    let plan = judge_tail(header.first_seq, &facts);
    let mut kept = items.iter().take(plan.keep).filter_map(|item| match item {
        Item::Frame(frame) => Some(frame.header),
        _ => None,
    });
    let last = kept.next_back();
    let last_seq = last.map_or(FrameSeq(header.first_seq.0 - 1), |last| last.seq);
    let marked = last.is_none_or(|last| last.mark);
    // A failed sync may have left pages that look written and are not. Writing them again makes sure.
    let unproven = usize::try_from(plan.unproven_from).ok().zip(usize::try_from(plan.end).ok());
    if let Some(again) = unproven.and_then(|(from, to)| bytes.get(from..to)).filter(|again| !again.is_empty()) {
        file.write_all_at(plan.unproven_from, again).and_then(|()| file.sync_data()).map_err(io)?;
    }
    Ok(Newest { plan, header, last_seq, marked, bytes })
}

/// Opens the catalog view for a journal that ends with frame `last`.
fn open_view(
    env: &Env,
    dir: &Path,
    kind: ViewKind,
    journal: u64,
    last: FrameSeq,
) -> Result<(Box<dyn CatalogView>, Option<String>)> {
    if kind == ViewKind::Memory || !env.disk.is_os() {
        return Ok((Box::new(MemoryView::default()), None));
    }
    let mut opened = SledView::open(env, &dir.join(SLED_DIR), journal)?;
    if opened.view.applied() > last {
        let reason = format!("it is newer (frame {}) than the journal (frame {last})", opened.view.applied());
        opened = opened.view.start_over(&reason)?;
    }
    Ok((Box::new(opened.view), opened.rebuilt))
}

/// Opens the journal in the data folder `dir`, whose lock is held.
pub(crate) fn open(env: &Env, dir: &Path, options: &LogOptions) -> Result<Opened> {
    let journal = dir.join(JOURNAL_DIR);
    crate::env::create_dir_durably(&*env.disk, &journal).map_err(|cause| Error::io("creating", &journal, cause))?;
    remove_temporary(env, &journal)?;
    let mut files = list_files(env, &journal)?;
    if files.is_empty() {
        let header = FileHeader {
            number: 1,
            salt: env.random.next_u64(),
            first_seq: FrameSeq(1),
            first_position: Position(0),
            clock: AppendTime::MIN,
            previous_len: 0,
        };
        create_file(env, &journal, &header)?;
        files = list_files(env, &journal)?;
    }
    let Some((newest_listed, sealed)) = files.split_last() else {
        return Err(Error::internal("a journal file was just created and is not there"));
    };
    let newest = judge_newest(env, newest_listed)?;
    let identity = files.iter().find_map(|file| file.header).map_or(0, |header| header.salt);
    let (view, rebuilt) = open_view(env, dir, options.view, identity, newest.last_seq)?;
    let mut pass = Pass { follow: Follow::new(), index: Index::default(), view, hole: None };
    for (place, file) in sealed.iter().enumerate() {
        pass_sealed(env, file, files.get(place + 1), &mut pass)?;
    }
    let (place, torn) = pass_newest(env, &journal, newest_listed, &newest, &mut pass)?;
    let header_copies = files.iter().filter(|file| file.header.is_some()).flat_map(|file| {
        file.bad_copies.iter().map(|copy| format!("the {copy} copy of the header of {} is damaged", file.name))
    });
    let report = RecoveryReport {
        files: files.len() as u64 + u64::from(torn.is_some()),
        frames: pass.follow.frames,
        torn,
        damage: Vec::new(),
        header_copies: header_copies.collect(),
        catalog: rebuilt,
    };
    finish(pass, place, report)
}

/// Removes what was being written when a file was to be created.
fn remove_temporary(env: &Env, journal: &Path) -> Result<()> {
    let mut removed = false;
    for entry in env.disk.list(journal).map_err(|cause| Error::io("listing", journal, cause))? {
        if entry.name.ends_with(".tmp") {
            let path = journal.join(&entry.name);
            env.disk.remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
            removed = true;
        }
    }
    if removed {
        env.disk.sync_dir(journal).map_err(|cause| Error::io("syncing", journal, cause))?;
    }
    Ok(())
}

fn pass_sealed(env: &Env, listed: &Listed, next: Option<&Listed>, pass: &mut Pass) -> Result<()> {
    let next_header = next.filter(|next| next.number == listed.number + 1).and_then(|next| next.header);
    let io = |cause| Error::io("cutting", &listed.path, cause);
    let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    let len = file.len().map_err(io)?;
    if let Some(end) = next_header.map(|next| next.previous_len).filter(|end| *end < len) {
        // An earlier opening kept the rest aside and was interrupted before it cut.
        file.set_len(end).and_then(|()| file.sync_data()).map_err(io)?;
    }
    drop(file);
    let Some(header) = listed.header else {
        pass.hole = Some(Hole { file: listed.name.clone(), bytes: (0, len) });
        return Ok(());
    };
    let file = JournalFile::sealed(env, listed.path.clone(), &header);
    let bytes = file.mapped()?;
    pass.begin_file(&header);
    pass.index.add_file(file);
    for item in Scan::new(&bytes, header.salt, false) {
        pass.item(&item, &listed.name, bytes.len() as u64);
    }
    Ok(())
}

fn pass_newest(
    env: &Env,
    journal: &Path,
    listed: &Listed,
    newest: &Newest,
    pass: &mut Pass,
) -> Result<(Place, Option<TornTail>)> {
    let Newest { plan, header, bytes, .. } = newest;
    pass.begin_file(header);
    pass.index.add_file(JournalFile::open_active(env, listed.path.clone(), header)?);
    for (number, item) in Scan::new(bytes, header.salt, true).enumerate() {
        match item {
            _ if number < plan.keep => pass.item(&item, &listed.name, bytes.len() as u64),
            // What was lost ends where the frame that is cut off begins.
            Item::Frame(frame) => {
                if let Some(hole) = pass.hole.take() {
                    pass.follow.arrive(frame.header.seq, frame.header.first_position, &hole);
                }
                break;
            }
            _ => break,
        }
    }
    let go_on = pass.follow.go_on();
    let place = Place { number: header.number, salt: header.salt, at: plan.end, go_on, marked: newest.marked };
    if !plan.cut {
        return Ok((place, None));
    }
    let (file, place, torn) = cut(env, journal, listed, newest, go_on)?;
    pass.index.add_file(file);
    Ok((place, Some(torn)))
}

/// Keeps the torn tail aside, begins a new file, and only then cuts the old one.
fn cut(
    env: &Env,
    journal: &Path,
    listed: &Listed,
    newest: &Newest,
    go_on: GoOn,
) -> Result<(Arc<JournalFile>, Place, TornTail)> {
    let end = newest.plan.end;
    let tail = usize::try_from(end).ok().and_then(|end| newest.bytes.get(end..)).unwrap_or_default();
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let kept = format!("{}.{end}.torn", listed.name);
    let aside = journal.join(&kept);
    replace_file(&*env.disk, &aside, tail.get(..used).unwrap_or_default())
        .map_err(|cause| Error::io("keeping a torn write in", &aside, cause))?;
    let header = FileHeader {
        number: newest.header.number + 1,
        salt: env.random.next_u64(),
        first_seq: go_on.seq,
        first_position: go_on.position,
        clock: go_on.clock,
        previous_len: end,
    };
    let file = create_file(env, journal, &header)?;
    let io = |cause| Error::io("cutting", &listed.path, cause);
    let old = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    old.set_len(end).and_then(|()| old.sync_data()).map_err(io)?;
    let place = Place { number: header.number, salt: header.salt, at: FRAMES_AT, go_on, marked: true };
    let torn = TornTail { file: listed.name.clone(), at: end, bytes: used as u64, kept_in: Some(kept) };
    Ok((file, place, torn))
}

/// Makes topics from the view and names what is lost.
fn finish(pass: Pass, place: Place, mut report: RecoveryReport) -> Result<Opened> {
    let Pass { follow, mut index, mut view, .. } = pass;
    let mut topics = Topics::default();
    for (key, value) in view.scan(MetaSpace::Topic, "") {
        let record = catalog::MetaRecord { space: MetaSpace::Topic, key, value: Some(value) };
        topics.apply(&record).map_err(|cause| {
            Error::damage(format!("the metadata record of topic number {} cannot be read: {cause}", record.key))
        })?;
    }
    let known: Vec<(TopicId, u32)> = topics.all().iter().map(|topic| (topic.id(), topic.partitions())).collect();
    let (ends, mut damage) = follow.finish(&known);
    for offsets in damage.iter_mut().flat_map(|damage| &mut damage.offsets) {
        offsets.name = topics.by_id(offsets.topic).ok().map(|topic| topic.name().to_owned());
    }
    index.lost = damage.iter().filter(|damage| damage.kind == DamageKind::Frames).cloned().collect();
    report.damage = damage;
    if view.save().is_err() {
        report.catalog.get_or_insert_with(|| "the catalog view could not be saved and is kept in memory".to_owned());
    }
    Ok(Opened { index, ends, topics, view, place, report })
}
