//! Reading sealed journal files again, slowly: damage is found while there is still time to do something about it, not when
//! the records are needed. One pass over all files a day, in small steps.
//!
//! A file whose bytes match the checksum in its footer is done. If they do not, or it has no footer, its records are checked
//! one body at a time, and what is damaged is known to readers from then on.

use crate::env::{DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::frame::footer::{TRAILER_LEN, Trailer};
use crate::log::frame::header::FRAMES_AT;
use crate::log::journal::{JournalFile, read_up_to};
use crate::log::reader::{Reader, named_damage_of};
use crate::log::report::Damage;
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::{Position, TopicId};
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// The first pass begins so long after the log was opened: short runs are left alone.
const FIRST_AFTER_US: u64 = 60_000_000;
/// From the beginning of a pass to that of the next.
const PASS_US: u64 = 24 * 3_600_000_000;
/// Bytes of a step, about.
const STEP_BYTES: u64 = 1 << 20;
/// Bytes a second at most, about.
const BYTES_PER_S: u64 = 8 << 20;

/// How far checking the sealed journal files is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Passes over all files that were finished since the log was opened.
    pub passes: u64,
    /// Files finished in the pass at hand.
    pub files: u64,
    /// Bytes read since the log was opened.
    pub bytes: u64,
    /// What was found damaged since the log was opened.
    pub damage: Vec<Damage>,
}

/// How a file is being checked.
enum Stage {
    /// All its bytes against the checksum in its footer.
    Bytes { file: Arc<dyn DiskFile>, trailer: Trailer, at: u64, sum: crc32fast::Hasher },
    /// Body by body, from this position on.
    Records { from: Position, reader: Box<Reader>, topics: Vec<TopicId>, intact: bool },
}

/// The keeper's work on scrubbing.
pub(crate) struct Scrub {
    pub status: ScrubStatus,
    /// No step before this time, in monotonic microseconds.
    due_us: u64,
    pass_from_us: u64,
    done_through: u64,
    at: Option<(Arc<JournalFile>, Stage)>,
}

impl Scrub {
    /// For a log that is opened at this monotonic time.
    pub fn new(now_us: u64) -> Scrub {
        let due_us = now_us + FIRST_AFTER_US;
        Scrub { status: ScrubStatus::default(), due_us, pass_from_us: due_us, done_through: 0, at: None }
    }
}

/// When the next step may be, after one that read so many bytes.
fn due_after(now_us: u64, bytes: u64) -> u64 {
    now_us + bytes.max(4 << 10) * 1_000_000 / BYTES_PER_S
}

/// Checks the next bytes, if their time has come.
pub(crate) fn step(shared: &Arc<Shared>) -> Result<bool> {
    let mut scrub = shared.scrub.lock().unwrap_or_else(PoisonError::into_inner);
    let now_us = shared.env.clock.monotonic_us();
    if now_us < scrub.due_us {
        return Ok(false);
    }
    scrub.due_us = due_after(now_us, STEP_BYTES);
    let Some((file, stage)) = scrub.at.take() else {
        match shared.index(|index| index.sealed_after(scrub.done_through)) {
            Some(file) => {
                let stage = begin(shared, &file)?;
                scrub.at = Some((file, stage));
            }
            None => {
                scrub.status.passes += 1;
                (scrub.status.files, scrub.done_through) = (0, 0);
                scrub.due_us = (scrub.pass_from_us + PASS_US).max(now_us);
                scrub.pass_from_us = scrub.due_us;
            }
        }
        return Ok(false);
    };
    let (bytes, next) = match stage {
        Stage::Bytes { file: open, trailer, at, sum } => read_on(shared, &file, &open, trailer, at, sum)?,
        Stage::Records { from, reader, topics, intact } => {
            check_on(shared, &file, from, reader, topics, intact, &mut scrub.status.damage)?
        }
    };
    scrub.status.bytes += bytes;
    scrub.due_us = due_after(now_us, bytes);
    match next {
        Some(stage) => scrub.at = Some((file, stage)),
        None => {
            scrub.done_through = file.number();
            scrub.status.files += 1;
        }
    }
    Ok(false)
}

fn begin(shared: &Arc<Shared>, file: &JournalFile) -> Result<Stage> {
    let io = |cause| Error::io("reading", file.path(), cause);
    let open = shared.env.disk.open(file.path(), OpenMode::Read).map_err(io)?;
    let len = open.len().map_err(io)?;
    let mut end = [0; TRAILER_LEN];
    let filled = read_up_to(&*open, len.saturating_sub(TRAILER_LEN as u64), &mut end).map_err(io)?;
    let Ok(trailer) = Trailer::decode(end.get(..filled).unwrap_or_default(), file.salt(), len) else {
        return Ok(by_records(shared, file));
    };
    // The footer itself is small, and nothing is taken from it that does not match.
    let mut footer = vec![0; usize::try_from(len - TRAILER_LEN as u64 - trailer.frames_end).unwrap_or_default()];
    let filled = read_up_to(&*open, trailer.frames_end, &mut footer).map_err(io)?;
    if filled < footer.len() || !trailer.matches(&footer, file.salt()) {
        shared.trouble(format!("the footer of {} is damaged: opening the log scans the file", name(file.path())));
    }
    Ok(Stage::Bytes { file: open, trailer, at: FRAMES_AT, sum: crc32fast::Hasher::new() })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn by_records(shared: &Arc<Shared>, file: &JournalFile) -> Stage {
    let topics: Vec<TopicId> = shared.topics(|topics| topics.all().iter().map(Topic::id).collect());
    let from = shared.index(|index| index.first_position(file.number()));
    let reader = Box::new(Reader::new(shared.clone(), &topics, from));
    Stage::Records { from, reader, topics, intact: true }
}

fn read_on(
    shared: &Arc<Shared>,
    file: &JournalFile,
    open: &Arc<dyn DiskFile>,
    trailer: Trailer,
    at: u64,
    mut sum: crc32fast::Hasher,
) -> Result<(u64, Option<Stage>)> {
    let len = STEP_BYTES.min(trailer.frames_end - at);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let filled = read_up_to(&**open, at, &mut bytes).map_err(|cause| Error::io("reading", file.path(), cause))?;
    sum.update(bytes.get(..filled).unwrap_or_default());
    let at = at + len;
    if at < trailer.frames_end {
        return Ok((len, Some(Stage::Bytes { file: open.clone(), trailer, at, sum })));
    }
    let same = sum.finalize() == trailer.frames_crc;
    Ok((len, if same { None } else { Some(by_records(shared, file)) }))
}

fn check_on(
    shared: &Arc<Shared>,
    file: &JournalFile,
    mut from: Position,
    mut reader: Box<Reader>,
    topics: Vec<TopicId>,
    mut intact: bool,
    found: &mut Vec<Damage>,
) -> Result<(u64, Option<Stage>)> {
    let mut bytes = 0;
    while bytes < STEP_BYTES {
        let located = shared.index(|index| index.find(&topics, from, |_, _| true));
        let Some(located) = located.filter(|located| located.file.number() == file.number()) else {
            if intact {
                let place = name(file.path());
                shared
                    .trouble(format!("bytes of {place} are damaged that hold no records: all its records can be read"));
            }
            return Ok((bytes, None));
        };
        from = located.end();
        bytes += u64::from(located.entry.body_len);
        match reader.read(&located) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Damage => {
                intact = false;
                let damage = named_damage_of(shared, &located);
                shared.trouble(format!("damage: {damage}"));
                shared.index.write().unwrap_or_else(PoisonError::into_inner).lose(damage.clone());
                if !found.contains(&damage) {
                    found.push(damage);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, Some(Stage::Records { from, reader, topics, intact })))
}
