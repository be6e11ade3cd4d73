//! Reads exactly the records of a stretch of time, passing over what lies outside.

use crate::error::Result;
use crate::log::records::LogBatch;
use crate::log::seek::{Look, Stretch};
use crate::log::shared::Shared;
use crate::log::topic::Topic;
use crate::types::Position;
use std::sync::Arc;

/// Records of a stretch of time that follow each other in the log.
#[derive(Debug, Clone)]
pub struct RangeBatch {
    /// Some records of the topic.
    pub batch: LogBatch,
    /// The rows whose timestamp is in the stretch, rising; never empty.
    pub rows: Vec<usize>,
}

/// Reads the records of one topic whose timestamp lies in a stretch of time, in order of position, up to the end that the log
/// had when it was made. Records beyond append time + `max_future` and records without a timestamp are in no stretch.
pub struct RangeReader {
    look: Look,
    stretch: Stretch,
    from: Position,
}

impl RangeReader {
    pub(crate) fn new(shared: &Arc<Shared>, topic: &Topic, from_ms: i64, to_ms: i64) -> RangeReader {
        let stretch = Stretch::new(topic, from_ms, to_ms);
        RangeReader { look: Look::new(shared, topic).whole(), stretch, from: Position(0) }
    }

    /// Begins at a position.
    #[must_use]
    pub fn starting_at(mut self, from: Position) -> RangeReader {
        self.from = from;
        self
    }

    /// The next records; `None` at the end. [`ErrorKind::Damage`](crate::error::ErrorKind::Damage): records are lost here; the
    /// next call goes on behind them.
    pub fn next_batch(&mut self) -> Result<Option<RangeBatch>> {
        while let Some(piece) = self.look.next(self.from, |about| self.stretch.may_count(about))? {
            let from = std::mem::replace(&mut self.from, piece.about.end);
            let Some(batch) =
                self.look.read_for(&piece, &self.stretch)?.and_then(|batch| batch.between(from, piece.about.end))
            else {
                continue;
            };
            let rows: Vec<usize> = (0..batch.len()).filter(|row| self.stretch.counts(&batch, *row)).collect();
            if !rows.is_empty() {
                return Ok(Some(RangeBatch { batch, rows }));
            }
        }
        Ok(None)
    }
}
