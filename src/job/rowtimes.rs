//! Finding records of a source by rowtime. Where history keeps the rowtime decoded, only stretches that can hold such a record
//! are read; the others, and the journal, are scanned.

use super::parts;
use crate::engine::Rowtimes;
use crate::engine::plan::SourcePlan;
use crate::error::{Error, Result};
use crate::log::records::ValueColumns;
use crate::log::{Log, TimeStretch, Topic};
use crate::types::Position;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_physical_expr::expressions::Column;
use std::sync::Arc;

/// The rowtimes of a source's records. Records further ahead of their append time than `max-future` have none.
pub(super) struct SourceTimes<'a> {
    log: &'a Log,
    topic: &'a Topic,
    plan: &'a SourcePlan,
    rowtimes: Rowtimes,
    max_future_us: i64,
    /// All of the topic, in order of position.
    stretches: Vec<TimeStretch>,
}

impl<'a> SourceTimes<'a> {
    /// Input error: the table has no rowtime.
    pub fn new(log: &'a Log, plan: &'a SourcePlan, topic: &'a Topic) -> Result<SourceTimes<'a>> {
        let Some(event_time) = &plan.event_time else {
            let message = format!("table '{}' has no rowtime, so the job cannot start or end at a time", plan.table);
            return Err(
                Error::input(message).with_hint("declare WATERMARK FOR a column, or use append:T or position:N")
            );
        };
        let (rowtimes, max_future_us) = (Rowtimes::new(plan)?, event_time.max_future_us);
        // First the end: what is sealed meanwhile lies in both, and is in the stretches.
        let end = log.durable_end();
        let mut stretches = rowtime_column(plan, event_time.rowtime)
            .map_or_else(Vec::new, |(columns, place)| log.time_stretches(topic.id(), &columns, place));
        let rest = stretches.last().map_or(Position(0), |last| last.end);
        if rest < end {
            stretches.push(TimeStretch { first: rest, end, times: None });
        }
        Ok(SourceTimes { log, topic, plan, rowtimes, max_future_us, stretches })
    }

    /// Position of the first record with a rowtime of `from_ms` or later.
    pub fn first_at(&self, from_ms: i64) -> Result<Option<Position>> {
        for stretch in &self.stretches {
            let can_hold = stretch.times.is_none_or(|(_, high)| high >= from_ms);
            if can_hold && let Some((first, _)) = self.scan(stretch, |rowtime| rowtime >= from_ms, true)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Position of the last record with a rowtime before `to_ms`.
    pub fn last_before(&self, to_ms: i64) -> Result<Option<Position>> {
        for stretch in self.stretches.iter().rev() {
            let can_hold = stretch.times.is_none_or(|(low, _)| low < to_ms);
            if can_hold && let Some((_, last)) = self.scan(stretch, |rowtime| rowtime < to_ms, false)? {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// First and last position of the records of a stretch whose rowtime is wanted; with `first_only` the first counts twice.
    fn scan(
        &self,
        stretch: &TimeStretch,
        wanted: impl Fn(i64) -> bool,
        first_only: bool,
    ) -> Result<Option<(Position, Position)>> {
        let topic = self.topic.id();
        let parts = parts::projection(&[self.plan]);
        let mut reader = self.log.reader(&[topic], stretch.first).with_projection(topic, parts);
        let mut span = None;
        while let Some(batch) = reader.next(stretch.end)? {
            for (row, rowtime) in self.rowtimes.of(&batch)? {
                let row = row as usize;
                let limit_ms = batch.append_times[row].saturating_add(self.max_future_us).div_euclid(1000);
                if wanted(rowtime) && rowtime <= limit_ms {
                    let at = Position(batch.positions.at(row));
                    if first_only {
                        return Ok(Some((at, at)));
                    }
                    span = Some((span.map_or(at, |(first, _)| first), at));
                }
            }
        }
        Ok(span)
    }
}

/// The columns of the values and the place of the rowtime among them, if it is one of them as it is.
fn rowtime_column(plan: &SourcePlan, rowtime: usize) -> Option<(ValueColumns, usize)> {
    let place = plan.columns.get(rowtime)?.expr.downcast_ref::<Column>()?.index();
    let used = *plan.used.get(place)?;
    let is_ms = matches!(plan.declared.fields().get(used)?.data_type(), DataType::Timestamp(TimeUnit::Millisecond, _));
    let columns = ValueColumns { format: plan.format.clone(), declared: Arc::clone(&plan.declared), used: vec![used] };
    is_ms.then_some((columns, used))
}
