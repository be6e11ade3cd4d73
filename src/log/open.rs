//! Opening a log: reads what is there, carries out what [`recovery`](super::recovery) decides, and says where to go on.
//!
//! The newest file is read and verified as a whole. Of the others only header and footer are read: a footer says what all
//! frames of its file are. A file without one is scanned, and given one if it is intact. Files whose records are in history
//! are not looked at: the catalog and the ends of partitions come from a snapshot and the frames behind it.
//!
//! Safe to be interrupted anywhere: what is cut off is copied aside first; then a new file is created, whose header says
//! where the old one ends; only then is the old one cut. A later opening that finds the new file finishes the cut.

use crate::codec::CodecError;
use crate::env::{DiskFile, Env, OpenMode, replace_file};
use crate::error::{Error, Result};
use crate::log::catalog::{self, CatalogView, MemoryView, MetaSpace, SEALED_KEY, Sealed, SledView};
use crate::log::encoder::Place;
use crate::log::frame::footer::{self, FooterBuilder, FooterFrame, Trailer};
use crate::log::frame::header::{
    FILE_HEADER_BLOCK, FRAMES_AT, FileHeader, FrameHeader, UNKNOWN_FEATURES, UNKNOWN_VERSION,
};
use crate::log::frame::{Part, crc, padded};
use crate::log::history::Sealer;
use crate::log::history::contents::History;
use crate::log::history::output::{HISTORY_DIR, remove_orphans};
use crate::log::index::Index;
use crate::log::journal::{JournalFile, create_file, file_name, file_number, new_salt, read_footer, read_up_to};
use crate::log::mutant::Mutant;
use crate::log::options::{LogOptions, ViewKind};
use crate::log::producers::ProducerTable;
use crate::log::recovery::{Ends, Follow, Hole, Start, TailItem, TailPlan, judge_tail, meta_bytes};
use crate::log::repair;
use crate::log::report::{Damage, DamageKind, RecoveryReport, TornTail};
use crate::log::scan::{FrameFacts, Item, Scan, Section};
use crate::log::snapshot::{self, META_DIR, Snapshot};
use crate::log::topic::Topics;
use crate::types::{AppendTime, FrameSeq, Position, TopicId};
use std::path::{Path, PathBuf};

/// Folder of the journal files within the data folder.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// Folder of sled within the data folder.
pub(crate) const SLED_DIR: &str = "sled";

/// A log as it was found and repaired.
pub(crate) struct Opened {
    pub index: Index,
    pub ends: Ends,
    pub topics: Topics,
    pub view: Box<dyn CatalogView>,
    pub place: Place,
    pub producers: ProducerTable,
    /// The frames of the newest file.
    pub footer: FooterBuilder,
    pub sealer: Sealer,
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

/// Reads both copies of the header of file `number`. The header of another file is as bad as none.
fn read_header(env: &Env, path: &Path, number: u64) -> Result<(Option<FileHeader>, Vec<&'static str>)> {
    let io = |cause| Error::io("reading", path, cause);
    let file = env.disk.open(path, OpenMode::Read).map_err(io)?;
    let mut block = vec![0; 2 * FILE_HEADER_BLOCK];
    let filled = read_up_to(&*file, 0, &mut block).map_err(io)?;
    block.truncate(filled);
    let (mut found, mut bad) = (None, Vec::new());
    for (copy, name) in [(0, "first"), (FILE_HEADER_BLOCK, "second")] {
        match FileHeader::decode(block.get(copy..).unwrap_or_default()) {
            Ok(header) if header.number == number => found = found.or(Some(header)),
            Err(CodecError::Invalid { what: UNKNOWN_VERSION | UNKNOWN_FEATURES, value }) => {
                let message = format!("{} was written by another version of Kappa ({value})", path.display());
                return Err(Error::input(message).with_hint("open it with that version"));
            }
            Ok(_) | Err(_) => bad.push(name),
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
        let (header, bad_copies) = read_header(env, &path, number)?;
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
    producers: ProducerTable,
    /// The frames up to this one are in `producers` already.
    producers_know: FrameSeq,
    /// Up to this frame and position the snapshot has seen the journal.
    seen: (FrameSeq, Position),
    /// The frames up to this one were in `view` from the beginning.
    view_knew: FrameSeq,
    hole: Option<Hole>,
    footers: Vec<String>,
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

    /// What the snapshot has seen and the newest file does not have any more was lost. True if that is so.
    fn arrive_at_snapshot(&mut self, file: &str, bytes: (u64, u64)) -> bool {
        let (applied, position) = self.seen;
        let lost = self.follow.go_on().seq <= applied;
        if lost {
            let hole = Hole { file: file.to_owned(), bytes };
            self.follow.arrive(FrameSeq(applied.0 + 1), position, &hole);
        }
        lost
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
            let topics = frame.topics.as_deref().unwrap_or_default();
            self.index.push(frame.at, &frame.header, topics);
            let FrameHeader { seq, first_position, append_time, .. } = frame.header;
            if seq > self.producers_know {
                self.producers.apply(seq, first_position, append_time, topics, []);
            }
        }
        if !self.is_news(&frame.header) {
            return;
        }
        match meta_bytes(frame).map(catalog::decode) {
            Some(Ok(records)) => self.view.apply(frame.header.seq, &records),
            _ => self.follow.lose_meta(frame, file),
        }
    }

    /// True if a frame has metadata that the view does not have.
    fn is_news(&self, header: &FrameHeader) -> bool {
        header.seq > self.view.applied() && header.meta_len > 0
    }

    /// Takes the frames of a footer; reads nothing of the file but metadata that is news.
    fn footer(&mut self, env: &Env, listed: &Listed, salt: u64, frames: Vec<FooterFrame>) -> Result<()> {
        let mut file = None;
        for FooterFrame { at, header, topics } in frames {
            let mut bytes = Vec::new();
            if self.is_news(&header) {
                let io = |cause| Error::io("reading", &listed.path, cause);
                let file = match &mut file {
                    Some(file) => file,
                    none => none.insert(env.disk.open(&listed.path, OpenMode::Read).map_err(io)?),
                };
                bytes.resize(padded(header.meta_len as usize), 0);
                let filled = read_up_to(&**file, at + header.meta_at() as u64, &mut bytes).map_err(io)?;
                bytes.truncate(filled);
            }
            let whole = crc(salt, Part::Meta, header.seq.0, 0, &bytes) == header.meta_crc;
            let section = bytes.get(..header.meta_len as usize).filter(|_| whole);
            let meta = section.map_or(Section::Damaged, Section::Intact);
            let facts = FrameFacts { at, header, topics: Some(topics), bad_bodies: Vec::new(), meta };
            self.frame(&facts, &listed.name);
        }
        Ok(())
    }
}

/// What follows the newest file's last frame.
enum NewestEnd {
    /// Nothing: the log goes on there.
    Open,
    /// A torn write.
    Torn,
    /// A footer: the file is complete, and the next one was not made.
    Footer,
}

/// The newest file, read and judged.
struct Newest<'a> {
    bytes: &'a [u8],
    items: Vec<Item<'a>>,
    plan: TailPlan,
    header: FileHeader,
    end: NewestEnd,
    last_seq: FrameSeq,
    marked: bool,
}

fn read_newest(env: &Env, listed: &Listed, options: &LogOptions) -> Result<Vec<u8>> {
    let io = |cause| Error::io("reading", &listed.path, cause);
    let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    // What is read must be what is on disk, not only in memory.
    if !options.has(Mutant::TrustUnsynced) {
        file.sync_data().map_err(io)?;
    }
    read_whole(&*file).map_err(io)
}

fn judge_newest<'a>(
    env: &Env,
    listed: &Listed,
    bytes: &'a [u8],
    known: FrameSeq,
    options: &LogOptions,
) -> Result<Newest<'a>> {
    let io = |cause| Error::io("reading", &listed.path, cause);
    let header = listed.header.ok_or_else(|| {
        let message = format!("both headers of {} are damaged: its records cannot be read", listed.path.display());
        Error::damage(message).with_hint("it is the newest file; move it away to give its records up")
    })?;
    let items: Vec<Item<'_>> = Scan::new(bytes, header.salt, true).mutated(options.mutant).collect();
    let mut facts: Vec<TailItem> = items.iter().map(TailItem::of).collect();
    let mut known = known;
    if options.has(Mutant::CutDamage) {
        facts.iter_mut().for_each(TailItem::forget_proof);
        known = FrameSeq(0);
    }
    let plan = judge_tail(header.first_seq, known, &facts);
    let mut kept = items.iter().take(plan.keep).filter_map(|item| match item {
        Item::Frame(frame) => Some(frame.header),
        _ => None,
    });
    let last = kept.next_back();
    let last_seq = last.map_or(FrameSeq(header.first_seq.0 - 1), |last| last.seq).max(known);
    let marked = last.is_none_or(|last| last.mark);
    let end = match plan.cut {
        false => NewestEnd::Open,
        true if is_footer_at(bytes, &header, plan.end) => NewestEnd::Footer,
        true => NewestEnd::Torn,
    };
    let proven_to = if matches!(end, NewestEnd::Footer) { bytes.len() as u64 } else { plan.end };
    // A failed sync may have left pages that look written and are not. Writing them again makes sure.
    let rewrites = !options.has(Mutant::NoRewrite) && !options.has(Mutant::TrustUnsynced);
    let unproven = usize::try_from(plan.unproven_from).ok().zip(usize::try_from(proven_to).ok()).filter(|_| rewrites);
    if let Some(again) = unproven.and_then(|(from, to)| bytes.get(from..to)).filter(|again| !again.is_empty()) {
        let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
        file.write_all_at(plan.unproven_from, again).and_then(|()| file.sync_data()).map_err(io)?;
    }
    Ok(Newest { bytes, items, plan, header, end, last_seq, marked })
}

/// True if the file ends with an intact footer that begins at `at`.
pub(crate) fn is_footer_at(file: &[u8], header: &FileHeader, at: u64) -> bool {
    footer::read(file, header).is_ok_and(|(trailer, _)| trailer.frames_end == at)
}

pub(crate) fn read_whole(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; len];
    let filled = read_up_to(file, 0, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Opens the catalog view for a log that ends with frame `last`, as new as the snapshot at least.
fn open_view(
    env: &Env,
    dir: &Path,
    options: &LogOptions,
    newest: &Newest<'_>,
    snapshot: Option<&Snapshot>,
) -> Result<(Box<dyn CatalogView>, Option<String>)> {
    let (mut view, rebuilt): (Box<dyn CatalogView>, _) = if options.view == ViewKind::Memory || !env.disk.is_os() {
        (Box::new(MemoryView::default()), None)
    } else {
        let sled = dir.join(SLED_DIR);
        let missing = !env.disk.exists(&sled).map_err(|cause| Error::io("looking for", &sled, cause))?;
        let mut opened = SledView::open(env, &sled, newest.header.log_id)?;
        if opened.view.applied() > newest.last_seq && !options.has(Mutant::TrustNewerView) {
            let (applied, last) = (opened.view.applied(), newest.last_seq);
            opened =
                opened.view.start_over(&format!("it is newer (frame {applied}) than the journal (frame {last})"))?;
        }
        let missing = missing && newest.last_seq > FrameSeq(0);
        let missing = missing.then(|| "the catalog view was missing and was rebuilt".to_owned());
        (Box::new(opened.view), opened.rebuilt.or(missing))
    };
    if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.applied > view.applied()) {
        snapshot.bring(&mut *view);
    }
    Ok((view, rebuilt))
}

/// The journal files, at least one, all of one log.
fn list_or_create(env: &Env, journal: &Path, options: &LogOptions) -> Result<Vec<Listed>> {
    let mut files = list_files(env, journal)?;
    if files.is_empty() {
        let header = FileHeader {
            number: 1,
            salt: new_salt(env, options),
            log_id: env.random.next_u64(),
            first_seq: FrameSeq(1),
            first_position: Position(0),
            clock: AppendTime::MIN,
            previous_len: 0,
        };
        create_file(env, journal, &header, options)?;
        files = list_files(env, journal)?;
    }
    let mut ids = files.iter().filter_map(|file| Some((&file.path, file.header?.log_id)));
    if let Some((first, id)) = ids.next()
        && let Some((other, _)) = ids.find(|(_, other)| *other != id)
    {
        let message = format!("{} and {} belong to different logs", first.display(), other.display());
        return Err(Error::input(message).with_hint("move the one away that does not belong here"));
    }
    Ok(files)
}

/// Opens the journal in the data folder `dir`, whose lock is held.
pub(crate) fn open(env: &Env, dir: &Path, options: &LogOptions) -> Result<Opened> {
    let journal = dir.join(JOURNAL_DIR);
    for folder in [journal.clone(), dir.join(META_DIR)] {
        crate::env::create_dir_durably(&*env.disk, &folder).map_err(|cause| Error::io("creating", &folder, cause))?;
        remove_temporary(env, &folder)?;
    }
    let files = list_or_create(env, &journal, options)?;
    let Some((newest_listed, sealed)) = files.split_last() else {
        return Err(Error::internal("a journal file was just created and is not there"));
    };
    let bytes = read_newest(env, newest_listed, options)?;
    let log_id = files.iter().find_map(|file| file.header).map_or(0, |header| header.log_id);
    let snapshot::Found { snapshot, skipped, there } = snapshot::newest(env, dir, log_id)?;
    let seen = snapshot.as_ref().map_or((FrameSeq(0), Position(0)), |found| (found.applied, found.position));
    let newest = judge_newest(env, newest_listed, &bytes, seen.0, options)?;
    let (view, rebuilt) = open_view(env, dir, options, &newest, snapshot.as_ref())?;
    let in_history = snapshot.as_ref().and_then(Snapshot::sealed).map_or(0, |sealed| sealed.file);
    let start = snapshot.as_ref().map_or_else(Start::default, Snapshot::start);
    let producers = match snapshot.as_ref().filter(|snapshot| !snapshot.producers.is_empty()) {
        Some(snapshot) => ProducerTable::decode(&snapshot.producers, options.producers)
            .map_err(|cause| Error::damage(format!("what a metadata snapshot says of producers: {cause}")))?,
        None => ProducerTable::new(options.producers),
    };
    let view_knew = view.applied();
    let mut pass = Pass {
        view_knew,
        follow: Follow::new(start),
        index: Index::default(),
        view,
        producers,
        producers_know: seen.0,
        seen,
        hole: None,
        footers: Vec::new(),
    };
    for (place, file) in sealed.iter().enumerate().filter(|(_, file)| file.number > in_history) {
        pass_sealed(env, file, files.get(place + 1), options, &mut pass)?;
    }
    let end = pass_newest(env, &journal, newest_listed, &newest, options, &mut pass)?;
    let header_copies = files.iter().filter(|file| file.header.is_some()).flat_map(|file| {
        file.bad_copies.iter().map(|copy| format!("the {copy} copy of the header of {} is damaged", file.name))
    });
    let report = RecoveryReport {
        files: files.len() as u64 + u64::from(end.place.number > newest.header.number),
        frames: pass.follow.frames,
        torn: end.torn.clone(),
        damage: Vec::new(),
        accepted: Vec::new(),
        header_copies: header_copies.collect(),
        footers: std::mem::take(&mut pass.footers),
        snapshots: skipped,
        catalog: rebuilt,
    };
    let history = dir.join(HISTORY_DIR);
    let mut opened = finish(pass, end, report, options, Sealer::new(history.clone(), options))?;
    opened.report.snapshots.extend(snapshot::missing(&*opened.view, &there));
    open_history(env, &history, &mut opened)?;
    Ok(opened)
}

/// Finds out what is in history, and removes files that are not.
fn open_history(env: &Env, dir: &Path, opened: &mut Opened) -> Result<()> {
    let history = History::load(env, dir, &*opened.view, &History::default())
        .map_err(|cause| Error::damage(format!("the metadata records of history cannot be read: {cause}")))?;
    // Where metadata is lost, a file that nothing names may still be one that is needed.
    let lost = |damage: &Damage| damage.kind != DamageKind::Records;
    if !opened.report.damage.iter().any(lost) {
        remove_orphans(env, dir, |number| history.has(number))?;
    }
    let next = history.files().next_back().map_or(1, |entry| entry.record().number + 1);
    opened.sealer.number_from(next);
    opened.index.switch(history);
    opened.sealer.note_unsealed(opened.index.unsealed());
    Ok(())
}

/// Removes what was being written when a file was to be created.
fn remove_temporary(env: &Env, folder: &Path) -> Result<()> {
    let mut removed = false;
    for entry in env.disk.list(folder).map_err(|cause| Error::io("listing", folder, cause))? {
        if entry.name.ends_with(".tmp") {
            let path = folder.join(&entry.name);
            env.disk.remove_file(&path).map_err(|cause| Error::io("removing", &path, cause))?;
            removed = true;
        }
    }
    if removed {
        env.disk.sync_dir(folder).map_err(|cause| Error::io("syncing", folder, cause))?;
    }
    Ok(())
}

/// True if a footer says what the next file's header says.
pub(crate) fn agrees(trailer: &Trailer, next: Option<&FileHeader>) -> bool {
    next.is_none_or(|next| {
        let next = (next.previous_len, next.first_seq.0, next.first_position);
        (trailer.frames_end, trailer.last_seq.0.saturating_add(1), trailer.end_position) == next
    })
}

fn pass_sealed(env: &Env, listed: &Listed, next: Option<&Listed>, options: &LogOptions, pass: &mut Pass) -> Result<()> {
    let next = next.filter(|next| next.number == listed.number + 1).and_then(|next| next.header);
    let io = |cause| Error::io("reading", &listed.path, cause);
    let file = env.disk.open(&listed.path, OpenMode::Read).map_err(io)?;
    let len = file.len().map_err(io)?;
    let Some(header) = listed.header else {
        pass.hole = Some(Hole { file: listed.name.clone(), bytes: (0, len) });
        return Ok(());
    };
    let footer = read_footer(&*file, len, &header).map_err(io)?;
    pass.begin_file(&header);
    pass.index.add_file(JournalFile::sealed(env, listed.path.clone(), &header));
    match footer.filter(|(trailer, _)| agrees(trailer, next.as_ref())) {
        Some((_, frames)) => pass.footer(env, listed, header.salt, frames),
        None => scan_sealed(env, listed, &header, next.as_ref(), options, pass),
    }
}

/// Reads a file that has no footer, and writes one if all of it is intact. The next file's header says where it ends.
fn scan_sealed(
    env: &Env,
    listed: &Listed,
    header: &FileHeader,
    next: Option<&FileHeader>,
    options: &LogOptions,
    pass: &mut Pass,
) -> Result<()> {
    let io = |cause| Error::io("scanning", &listed.path, cause);
    let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    let bytes = read_whole(&*file).map_err(io)?;
    let len = bytes.len() as u64;
    let end = next.map_or(len, |next| next.previous_len.min(len));
    let used = bytes.get(..usize::try_from(end).unwrap_or(usize::MAX)).unwrap_or_default();
    let mut builder = FooterBuilder::new(header);
    for item in Scan::new(used, header.salt, true).mutated(options.mutant) {
        build(&mut builder, &item);
        pass.item(&item, &listed.name, end);
    }
    builder.bytes(used.get(place(FRAMES_AT)..).unwrap_or_default());
    if next.is_none() {
        return Ok(());
    }
    if end < len {
        // An earlier opening kept the rest aside and was interrupted before it cut, or the footer is damaged.
        file.set_len(end).map_err(io)?;
    }
    let footer = builder.finish(end);
    if let Some(footer) = &footer {
        file.write_all_at(end, footer).map_err(io)?;
        let why = if end < len { "damaged" } else { "missing" };
        pass.footers.push(format!("the footer of {} was {why}: the file was scanned and has one again", listed.name));
    }
    if footer.is_some() || end < len {
        file.sync_data().map_err(io)?;
    }
    Ok(())
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn build(footer: &mut FooterBuilder, item: &Item<'_>) {
    if let Item::Frame(frame) = item
        && frame.intact()
        && let Some(topics) = &frame.topics
    {
        footer.frame(frame.at, &frame.header, topics);
    }
}

/// Where the log goes on after the newest file was looked at.
struct End {
    place: Place,
    footer: FooterBuilder,
    torn: Option<TornTail>,
    last_seq: FrameSeq,
}

fn pass_newest(
    env: &Env,
    journal: &Path,
    listed: &Listed,
    newest: &Newest<'_>,
    options: &LogOptions,
    pass: &mut Pass,
) -> Result<End> {
    let Newest { plan, header, bytes, items, .. } = newest;
    pass.begin_file(header);
    pass.index.add_file(JournalFile::open_active(env, listed.path.clone(), header)?);
    let mut footer = FooterBuilder::new(header);
    for (number, item) in items.iter().enumerate() {
        match item {
            _ if number < plan.keep => {
                build(&mut footer, item);
                pass.item(item, &listed.name, bytes.len() as u64);
            }
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
    footer.bytes(bytes.get(place(FRAMES_AT)..place(plan.end)).unwrap_or_default());
    let tail_lost = pass.arrive_at_snapshot(&listed.name, (plan.end, bytes.len() as u64));
    let go_on = pass.follow.go_on();
    let mut end = End {
        place: Place {
            log_id: header.log_id,
            number: header.number,
            salt: header.salt,
            at: plan.end,
            go_on,
            marked: newest.marked,
        },
        footer,
        torn: None,
        last_seq: FrameSeq(go_on.seq.0 - 1),
    };
    match newest.end {
        NewestEnd::Open if !tail_lost => return Ok(end),
        NewestEnd::Open | NewestEnd::Footer => {}
        NewestEnd::Torn if options.has(Mutant::KeepTornTail) => return Ok(end),
        NewestEnd::Torn => end.torn = Some(keep_torn(env, journal, listed, newest)?),
    }
    let next = FileHeader {
        number: header.number + 1,
        salt: new_salt(env, options),
        log_id: header.log_id,
        first_seq: go_on.seq,
        first_position: go_on.position,
        clock: go_on.clock,
        previous_len: plan.end,
    };
    pass.index.add_file(create_file(env, journal, &next, options)?);
    if end.torn.is_some() {
        cut(env, listed, plan.end, &end.footer)?;
    }
    end.footer = FooterBuilder::new(&next);
    end.place = Place { number: next.number, salt: next.salt, at: FRAMES_AT, marked: true, ..end.place };
    Ok(end)
}

/// Ends a file at `at`, with a footer.
fn cut(env: &Env, listed: &Listed, at: u64, footer: &FooterBuilder) -> Result<()> {
    let io = |cause| Error::io("cutting", &listed.path, cause);
    let file = env.disk.open(&listed.path, OpenMode::ReadWrite).map_err(io)?;
    file.set_len(at).map_err(io)?;
    if let Some(footer) = footer.finish(at) {
        file.write_all_at(at, &footer).map_err(io)?;
    }
    file.sync_data().map_err(io)
}

/// Keeps the bytes that are to be cut off aside.
fn keep_torn(env: &Env, journal: &Path, listed: &Listed, newest: &Newest<'_>) -> Result<TornTail> {
    let end = newest.plan.end;
    let tail = newest.bytes.get(place(end)..).unwrap_or_default();
    let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let kept = format!("{}.{end}.torn", listed.name);
    let aside = journal.join(&kept);
    replace_file(&*env.disk, &aside, tail.get(..used).unwrap_or_default())
        .map_err(|cause| Error::io("keeping a torn write in", &aside, cause))?;
    Ok(TornTail { file: listed.name.clone(), at: end, bytes: used as u64, kept_in: Some(kept) })
}

/// The topics that a view has.
pub(crate) fn topics_of(view: &dyn CatalogView) -> Result<Topics> {
    let mut topics = Topics::default();
    for space in [MetaSpace::Topic, MetaSpace::Trim] {
        for (key, value) in view.scan(space, "") {
            let record = catalog::MetaRecord { space, key, value: Some(value) };
            topics.apply(&record).map_err(|cause| {
                Error::damage(format!("the metadata record of topic number {} cannot be read: {cause}", record.key))
            })?;
        }
    }
    Ok(topics)
}

/// Makes topics from the view and names what is lost.
fn finish(pass: Pass, end: End, mut report: RecoveryReport, options: &LogOptions, sealer: Sealer) -> Result<Opened> {
    let Pass { follow, mut index, mut view, mut producers, view_knew, .. } = pass;
    producers.complete(&view.scan(MetaSpace::Producer, ""), end.place.go_on.clock);
    // The view has seen frames without metadata too.
    view.apply(end.last_seq, &[]);
    let topics = topics_of(&*view)?;
    let known: Vec<(TopicId, u32)> = topics.all().iter().map(|topic| (topic.id(), topic.partitions())).collect();
    let unheard: &[_] = if options.has(Mutant::ReuseOffsets) { &[] } else { &known };
    let (ends, mut damage) = follow.finish(unheard);
    name_offsets(&mut damage, &topics);
    let sealed = sealed_of(&*view);
    damage.retain_mut(|damage| {
        let safe = is_in_history(damage, sealed.as_ref());
        // The records are in history; what else was in these frames is only known to a view that has seen them.
        let needed = damage.kind == DamageKind::Frames && damage.frames.1.0 > view_knew.0 + 1;
        if safe && needed {
            damage.kind = DamageKind::Metadata;
        }
        !safe || needed
    });
    let losses = repair::accepted(&*view);
    damage.retain(|damage| !repair::covers(&losses, damage));
    report.damage = damage;
    index.lost = report.damage.iter().filter(|damage| damage.kind != DamageKind::Metadata).cloned().collect();
    index.accept(&losses);
    index.retire(sealed.map_or(0, |sealed| sealed.file));
    if view.save().is_err() {
        report.catalog.get_or_insert_with(|| "the catalog view could not be saved and is kept in memory".to_owned());
    }
    report.accepted = losses;
    name_offsets(&mut report.accepted, &topics);
    let End { place, footer, .. } = end;
    Ok(Opened { index, ends, topics, view, place, producers, footer, sealer, report })
}

/// Puts the names of topics to lost offsets.
pub(crate) fn name_offsets(damage: &mut [Damage], topics: &Topics) {
    for offsets in damage.iter_mut().flat_map(|damage| &mut damage.offsets) {
        offsets.name = topics.by_id(offsets.topic).ok().map(|topic| topic.name().to_owned());
    }
}

/// Up to where records are in history, as a view has it.
pub(crate) fn sealed_of(view: &dyn CatalogView) -> Option<Sealed> {
    view.get(MetaSpace::Journal, SEALED_KEY).and_then(|value| Sealed::decode(&value).ok())
}

/// True if what is damaged in the journal was put into history before.
pub(crate) fn is_in_history(damage: &Damage, sealed: Option<&Sealed>) -> bool {
    let end = |sealed: &Sealed| damage.positions.1 <= sealed.end_position && damage.frames.1 <= sealed.end_seq;
    damage.kind != DamageKind::Metadata && sealed.is_some_and(end)
}
