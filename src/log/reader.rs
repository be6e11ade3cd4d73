//! Reading the log in order of position.

use crate::error::{Error, ErrorKind, Result};
use crate::log::frame::{Part, body, crc, padded};
use crate::log::index::Located;
use crate::log::journal::ReadAhead;
use crate::log::records::LogBatch;
use crate::log::recovery::offsets_of;
use crate::log::report::{Damage, DamageKind};
use crate::log::shared::Shared;
use crate::types::{FrameSeq, Position, TopicId};
use std::sync::Arc;

/// Reads records of some topics in order of position, from one thread at a time.
pub struct Reader {
    shared: Arc<Shared>,
    topics: Vec<TopicId>,
    position: Position,
    /// Where reading goes on after the damage that was reported.
    behind_damage: Option<Position>,
    ahead: ReadAhead,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, topics: &[TopicId], position: Position) -> Reader {
        let topics = topics.iter().copied().filter(|id| shared.topics(|topics| topics.by_id(*id)).is_ok()).collect();
        Reader { shared, topics, position, behind_damage: None, ahead: ReadAhead::default() }
    }

    /// The next batch of durable records with positions below `until` (a batch is cut there); `None` if there is none (yet).
    ///
    /// [`ErrorKind::Damage`]: records of these topics are lost here; the message names topic, partition, offsets and file. The
    /// reader stays where it is until [`skip_damage`](Self::skip_damage).
    pub fn next(&mut self, until: Position) -> Result<Option<LogBatch>> {
        let until = until.min(self.shared.state().durable_end);
        if self.position >= until {
            return Ok(None);
        }
        let (found, lost) = self.shared.index(|index| {
            let found = index.find(&self.topics, self.position, |_, _| true);
            (found, index.lost_after(&self.topics, self.position).cloned())
        });
        let found = found.filter(|found| found.first_position < until);
        let data_from = found.as_ref().map_or(until, |found| found.first_position.max(self.position));
        if let Some(lost) = lost.filter(|lost| lost.positions.0 < until && lost.positions.0 <= data_from) {
            self.behind_damage = Some(lost.positions.1);
            return Err(lost_error(&lost));
        }
        let Some(found) = found else {
            self.position = until;
            return Ok(None);
        };
        let end = found.end().min(until);
        let batch = match self.read(&found) {
            Ok(batch) => batch,
            Err(error) => {
                if error.kind() == ErrorKind::Damage {
                    self.behind_damage = Some(found.end());
                }
                return Err(error);
            }
        };
        let row = |position: Position| usize::try_from(position.0 - found.first_position.0).unwrap_or(usize::MAX);
        let (from, to) = (row(data_from), row(end));
        self.position = end;
        Ok(Some(if from == 0 && to == batch.len() { batch } else { batch.slice(from, to) }))
    }

    /// Reads a topic's records of one frame, whole.
    pub(crate) fn read(&mut self, found: &Located) -> Result<LogBatch> {
        let entry = &found.entry;
        let stored = padded(entry.body_len as usize);
        let at = found.frame_at + u64::from(entry.body_at);
        let bytes = found.file.read(at, stored, found.file_end, &mut self.ahead)?;
        let sum = crc(found.file.salt(), Part::Body, found.seq.0, entry.topic.0, bytes.as_slice());
        if bytes.len() != stored || sum != entry.body_crc {
            return Err(self.body_error(found, "its checksum does not match"));
        }
        let body = body::decompress(
            entry.codec,
            &bytes.slice_with_length(0, entry.body_len as usize),
            entry.plain_len as usize,
        );
        let batch = body.and_then(|body| body::decode(&body, entry, found.first_position, found.append_time));
        batch.map_err(|cause| self.body_error(found, &cause.to_string()))
    }

    fn body_error(&self, found: &Located, why: &str) -> Error {
        let at = found.frame_at + u64::from(found.entry.body_at);
        let mut offsets = offsets_of(&found.entry);
        let name =
            self.shared.topics(|topics| topics.by_id(found.entry.topic)).ok().map(|topic| topic.name().to_owned());
        offsets.iter_mut().for_each(|offsets| offsets.name = name.clone());
        let damage = Damage {
            kind: DamageKind::Records,
            file: found.file.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: (at, at + u64::from(found.entry.body_len)),
            frames: (found.seq, FrameSeq(found.seq.0 + 1)),
            positions: (found.first_position, found.end()),
            offsets,
        };
        let error = lost_error(&damage);
        Error::damage(format!("{} ({why})", error.message()))
    }

    /// Moves on behind the damage that [`next`](Self::next) reported. Does nothing when it reported none.
    pub fn skip_damage(&mut self) {
        if let Some(position) = self.behind_damage.take() {
            self.position = self.position.max(position);
        }
    }

    /// Every record of these topics before this position was handed out (or is damaged and was skipped).
    pub fn position(&self) -> Position {
        self.position
    }
}

fn lost_error(damage: &Damage) -> Error {
    Error::damage(damage.to_string()).with_hint("`kappa inspect` shows all damage; records behind it can be read")
}
