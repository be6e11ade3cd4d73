//! Where runs start and end: the points of the command line (`earliest`, `position:N`, `time:T`, ...) as positions.

use super::Job;
use super::rowtimes::SourceTimes;
use crate::engine::plan::StartupMode;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Log, Seek, SeekTarget, Topic};
use crate::types::{AppendTime, Offset, PartitionId, Position};
use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// A point in the log as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The first record there is.
    Earliest,
    /// The end of the log.
    Latest,
    /// A position.
    Position(Position),
    /// An offset; the partition is given beside it.
    Offset(Offset),
    /// Event time in ms: the table's rowtime for a job, the record timestamp for a topic.
    TimeMs(i64),
    /// Append time.
    Append(AppendTime),
    /// A position, and the clock steps due by a time: an answer of the append clock. Has no text form.
    Reading(Position, AppendTime),
}

/// Reads `earliest`, `latest`, `position:N`, `offset:N`, `time:T`, `append:T`, or a bare date or time (meaning `time:`).
/// Times are `2026-01-01`, `2026-01-01T12:30[:15[.123]][Z|+02:00]`, or milliseconds since the epoch; without a zone they are UTC.
pub fn parse_point(text: &str) -> Result<Point> {
    let number = |text: &str, what: &str| {
        text.parse::<u64>().map_err(|_| Error::input(format!("'{text}' is not {what}: use a whole number from 0")))
    };
    match text.split_once(':') {
        _ if text == "earliest" => Ok(Point::Earliest),
        _ if text == "latest" => Ok(Point::Latest),
        Some(("position", n)) => Ok(Point::Position(Position(number(n, "a position")?))),
        Some(("offset", n)) => Ok(Point::Offset(Offset(number(n, "an offset")?))),
        Some(("time", t)) => Ok(Point::TimeMs(parse_time_ms(t)?)),
        Some(("append", t)) => {
            let ms = parse_time_ms(t)?;
            Ok(Point::Append(AppendTime(ms.checked_mul(1000).ok_or_else(|| Error::input(format!("'{t}' is out of range")))?)))
        }
        _ => parse_time_ms(text).map(Point::TimeMs).map_err(|e| {
            e.with_hint("use earliest, latest, position:N, offset:N, time:T, append:T, or a date or time such as 2026-01-01T12:00")
        }),
    }
}

/// A date, a date and time, or milliseconds since the epoch, in ms.
pub fn parse_time_ms(text: &str) -> Result<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis());
    }
    let text_t = text.replacen(' ', "T", 1);
    if let Ok(time) = DateTime::parse_from_rfc3339(&text_t) {
        return Ok(time.timestamp_millis());
    }
    let local = text_t.strip_suffix('Z').unwrap_or(&text_t);
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(local, format).ok())
        .map(|time| time.and_utc().timestamp_millis())
        .ok_or_else(|| Error::input(format!("'{text}' is not a time")))
}

/// Position after the last record that a job's sources hold now.
pub(super) fn sources_end(log: &Log, job: &Job) -> Result<Position> {
    let mut end = Position(0);
    for topic in job.source_topics(log)? {
        end = end.max(topic_end(log, &topic)?);
    }
    Ok(end)
}

/// Position after the last record of a topic.
fn topic_end(log: &Log, topic: &Topic) -> Result<Position> {
    let mut end = Position(0);
    let bounds = log.partition_starts(topic.id())?.into_iter().zip(log.partition_ends(topic.id())?);
    for (partition, (start, partition_end)) in (0..).map(PartitionId).zip(bounds) {
        let Some(last) = partition_end.0.checked_sub(1).filter(|last| *last >= start.0) else { continue };
        match log.seek(topic.id(), SeekTarget::Offset { partition, offset: Offset(last) }) {
            Ok(Seek::At(position)) => end = end.max(position.plus(1)),
            // Quarantined: whoever reads it will say so.
            Ok(Seek::NoSuchRecord) => end = log.durable_end(),
            // Quarantined, or removed a moment ago.
            Err(e) if matches!(e.kind(), ErrorKind::Damage | ErrorKind::Gone) => end = log.durable_end(),
            Err(e) => return Err(e),
        }
    }
    Ok(end)
}

/// First position to be read, by source.
pub(super) fn starts(log: &Log, job: &Job, from: Option<&Point>) -> Result<Vec<Position>> {
    let topics = job.source_topics(log)?;
    let mut starts = Vec::with_capacity(topics.len());
    for (source, topic) in topics.iter().enumerate() {
        let mode = match (from, job.plan.sources[source].startup) {
            (Some(point), _) => *point,
            (None, StartupMode::Earliest) => Point::Earliest,
            (None, StartupMode::Latest) => Point::Latest,
            (None, StartupMode::TimestampMs(ms)) => {
                starts.push(at_or_end(log, log.seek(topic.id(), SeekTarget::TimestampMs(ms))?));
                continue;
            }
        };
        starts.push(match mode {
            Point::Earliest => Position(0),
            Point::Latest => log.durable_end(),
            Point::Position(position) | Point::Reading(position, _) => position,
            Point::Append(time) => at_or_end(log, log.seek(topic.id(), SeekTarget::Append(time))?),
            Point::TimeMs(ms) => {
                let rowtimes = SourceTimes::new(log, &job.plan.sources[source], topic)?;
                rowtimes.first_at(ms)?.unwrap_or_else(|| log.durable_end())
            }
            Point::Offset(_) => return Err(offsets_are_for_topics()),
        });
    }
    Ok(starts)
}

fn offsets_are_for_topics() -> Error {
    Error::input("an offset belongs to one partition, and a job reads all of them")
        .with_hint("use position:N, time:T or append:T")
}

fn at_or_end(log: &Log, answer: Seek) -> Position {
    match answer {
        Seek::At(position) => position,
        Seek::NoSuchRecord => log.durable_end(),
    }
}

/// Position that a run ends before, and for `append:T` the clock that it ends with.
pub(super) fn end(log: &Log, job: &Job, to: &Point) -> Result<(Position, Option<AppendTime>)> {
    let topics = job.source_topics(log)?;
    match to {
        Point::Earliest => Ok((Position(0), None)),
        Point::Latest => Ok((sources_end(log, job)?, None)),
        Point::Position(position) => Ok((*position, None)),
        Point::Reading(position, clock) => Ok((*position, Some(*clock))),
        Point::Append(time) => {
            let reading = log.clock();
            if reading.append_time < *time {
                return Err(Error::input("the end lies in the future of the append clock")
                    .with_hint("leave --to out to follow the log"));
            }
            let mut end = reading.position;
            for topic in &topics {
                if let Seek::At(first) = log.seek(topic.id(), SeekTarget::Append(*time))? {
                    end = end.min(first);
                }
            }
            Ok((end, Some(*time)))
        }
        Point::TimeMs(ms) => {
            let mut end = Position(0);
            for (source, topic) in topics.iter().enumerate() {
                let rowtimes = SourceTimes::new(log, &job.plan.sources[source], topic)?;
                end = rowtimes.last_before(*ms)?.map_or(end, |last| end.max(last.plus(1)));
            }
            Ok((end, None))
        }
        Point::Offset(_) => Err(offsets_are_for_topics()),
    }
}

/// The partition of an `offset:N` point, for reading a topic.
pub fn offset_target(partition: Option<u32>, offset: Offset) -> Result<SeekTarget> {
    match partition {
        Some(partition) => Ok(SeekTarget::Offset { partition: PartitionId(partition), offset }),
        None => Err(Error::input("offset:N needs --partition")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_times() {
        let day = 1_767_225_600_000;
        for (text, point) in [
            ("earliest", Point::Earliest),
            ("latest", Point::Latest),
            ("position:7", Point::Position(Position(7))),
            ("offset:0", Point::Offset(Offset(0))),
            ("2026-01-01", Point::TimeMs(day)),
            ("time:2026-01-01", Point::TimeMs(day)),
            ("time:-5", Point::TimeMs(-5)),
            ("2026-01-01T01:00", Point::TimeMs(day + 3_600_000)),
            ("2026-01-01 01:00:00.250", Point::TimeMs(day + 3_600_250)),
            ("2026-01-01T01:00:00Z", Point::TimeMs(day + 3_600_000)),
            ("2026-01-01T01:00:00+01:00", Point::TimeMs(day)),
            ("append:1000", Point::Append(AppendTime(1_000_000))),
        ] {
            assert_eq!(parse_point(text).map_err(|e| e.to_string()), Ok(point), "{text}");
        }
        for bad in ["", "soon", "position:-1", "offset:x", "2026-13-01", "append:9223372036854775807", "time:"] {
            assert!(parse_point(bad).is_err(), "{bad}");
        }
    }
}
