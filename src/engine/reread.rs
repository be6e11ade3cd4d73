//! Records of a source as its rows, one by one: what the job sees of each.

use super::chunk::chunks;
use super::plan::SourcePlan;
use super::{CODECS, source};
use crate::error::Result;
use crate::format::{self, Encoder, FormatSpec, JsonOptions};
use crate::log::records::LogBatch;

/// What a job sees of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenRow {
    /// Its rowtime in ms, if the source declares one.
    pub rowtime_ms: Option<i64>,
    /// The columns that the job uses, as JSON.
    pub row: String,
}

/// Reads records as rows.
pub struct RowReader {
    reader: source::Reader,
    rowtime: Option<usize>,
    encoder: Box<dyn Encoder>,
}

impl RowReader {
    /// For the records of a source.
    pub fn new(source: &SourcePlan) -> Result<RowReader> {
        Ok(RowReader {
            reader: source::Reader::new(source, CODECS)?,
            rowtime: source.event_time.as_ref().map(|event_time| event_time.rowtime),
            encoder: format::encoder(&FormatSpec::Json(JsonOptions::default()), &source.schema)?,
        })
    }

    /// The only record of a batch; `None` if it does not decode.
    pub fn read(&self, record: &LogBatch) -> Result<Option<SeenRow>> {
        let Some(chunk) = chunks(vec![record.clone()], false)?.pop() else { return Ok(None) };
        let rows = self.reader.read(chunk)?;
        if rows.rows.is_empty() {
            return Ok(None);
        }
        let rowtime_ms = match self.rowtime {
            Some(column) => rows.rowtimes(column)?.first().map(|(_, rowtime)| *rowtime),
            None => None,
        };
        let mut row = Vec::new();
        self.encoder.encode(&rows.batch, 0, &mut row);
        Ok(Some(SeenRow { rowtime_ms, row: String::from_utf8_lossy(&row).into_owned() }))
    }
}
