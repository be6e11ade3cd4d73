//! What happens to records before an engine takes them.

use super::chunk::{Chunk, chunks};
use super::source::{Reader, SourceRows};
use crate::error::{Error, Result};
use crate::log::records::LogBatch;
use std::sync::Arc;

/// Cuts stretches of the log into pieces and reads them: all that needs no state, so it can run ahead of the engine, on any thread.
pub struct Reading {
    readers: Vec<Arc<Reader>>,
}

/// Records of one source, to be read together.
pub struct Piece {
    source: usize,
    chunk: Chunk,
}

/// What they are for the engine.
pub struct ReadPiece {
    pub(super) source: usize,
    pub(super) rows: Result<SourceRows>,
}

impl Reading {
    /// With the readers of a job's sources.
    pub(super) fn new(readers: Vec<Arc<Reader>>) -> Reading {
        Reading { readers }
    }

    /// Cuts a stretch of positions: batches with their source index, those of one source in position order. `in_parts`: they hold only what
    /// their sources use.
    pub fn cut(&self, batches: Vec<(usize, LogBatch)>, in_parts: bool) -> Result<Vec<Piece>> {
        let mut of_source: Vec<Vec<LogBatch>> = self.readers.iter().map(|_| Vec::new()).collect();
        for (source, batch) in batches {
            let batches = of_source.get_mut(source);
            batches.ok_or_else(|| Error::internal(format!("there is no source {source}")))?.push(batch);
        }
        let mut pieces = Vec::new();
        for (source, batches) in of_source.into_iter().enumerate() {
            pieces.extend(chunks(batches, in_parts)?.into_iter().map(|chunk| Piece { source, chunk }));
        }
        Ok(pieces)
    }

    /// Reads a piece.
    pub fn read(&self, Piece { source, chunk }: Piece) -> ReadPiece {
        ReadPiece { source, rows: self.readers[source].read(chunk) }
    }
}
