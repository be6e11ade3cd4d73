//! Reading the log in order of position.

use crate::error::Result;
use crate::log::records::LogBatch;
use crate::types::Position;

/// Reads records of some topics in order of position, from one thread at a time.
pub struct Reader {
    position: Position,
}

impl Reader {
    pub(crate) fn new(position: Position) -> Reader {
        Reader { position }
    }

    /// The next batch of durable records with positions below `until` (a batch is cut there); `None` if there is none (yet).
    ///
    /// [`ErrorKind::Damage`](crate::ErrorKind::Damage): records of these topics are lost here; the reader stays where it is
    /// until [`skip_damage`](Self::skip_damage).
    pub fn next(&mut self, _until: Position) -> Result<Option<LogBatch>> {
        Ok(None)
    }

    /// Moves on behind the damage that [`next`](Self::next) reported. Does nothing when it reported none.
    pub fn skip_damage(&mut self) {}

    /// Every record of these topics before this position was handed out (or is damaged and was skipped).
    pub fn position(&self) -> Position {
        self.position
    }
}
