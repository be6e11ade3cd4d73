//! The spans of an output: marks along each stream of a run, each with the running digest there. Two marks next to each other bound a span
//! that can be checked alone, since its digest begins with that of the first one. Where marks stand follows from the number of rows
//! alone; when there are too many, every second one goes, so that neighbours become one span.

use super::record::{StreamProgress, metadata_codec};
use crate::error::{Error, Result};
use bincode::{Decode, Encode};

/// Rows between the marks of a stream that has few.
const EVERY_ROWS: u64 = 32;

/// Marks of one stream, at most; fewer where a job has many streams.
const MARKS_MAX: usize = 64;

/// Marks of all streams of a job together, roughly.
const ALL_MARKS_MAX: usize = 1024;

/// A place in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// Rows before it.
    pub rows: u64,
    /// The running digest of them.
    pub digest: u64,
    /// They were made by records before this position, as the run read them.
    pub position: u64,
    /// And by clock steps due by this append time in microseconds.
    pub clock_us: i64,
    /// The greatest timestamp of them in ms.
    pub latest_ms: i64,
}

/// The marks of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Marks {
    every_rows: u64,
    marks: Vec<Mark>,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { every_rows: EVERY_ROWS, marks: Vec::new() }
    }
}

impl Marks {
    /// The marks, in order.
    pub fn all(&self) -> &[Mark] {
        &self.marks
    }

    /// Takes note of a place, if it is one for a mark.
    fn note(&mut self, mark: Mark, most: usize) -> bool {
        if !mark.rows.is_multiple_of(self.every_rows) || self.marks.last().is_some_and(|last| last.rows >= mark.rows) {
            return false;
        }
        self.marks.push(mark);
        if self.marks.len() > most {
            self.every_rows *= 2;
            self.marks.retain(|mark| mark.rows.is_multiple_of(self.every_rows));
        }
        true
    }

    /// The rows of the spans that hold what has timestamps from `from_ms` on and before `to_ms`, one span more on either side: rows are
    /// not quite in the order of their timestamps.
    pub fn rows_between(&self, from_ms: Option<i64>, to_ms: Option<i64>) -> (u64, Option<u64>) {
        let marks_before = |ms: i64| self.marks.partition_point(|mark| mark.latest_ms < ms);
        let from = from_ms.and_then(|ms| marks_before(ms).checked_sub(2)).map_or(0, |place| self.marks[place].rows);
        let to = to_ms.and_then(|ms| self.marks.get(marks_before(ms) + 1)).map(|mark| mark.rows);
        (from, to)
    }
}

/// The marks of all streams of a run, as the log keeps them: in the frame with the rows that they mark.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Spans {
    streams: Vec<Marks>,
}

metadata_codec!(Spans, "record of digests");

impl Spans {
    /// Without marks, for so many streams.
    pub fn new(streams: usize) -> Spans {
        Spans { streams: vec![Marks::default(); streams] }
    }

    /// The marks of each stream.
    pub fn streams(&self) -> &[Marks] {
        &self.streams
    }
}

/// Marks the streams of a run that writes.
pub(super) struct Marker {
    spans: Spans,
    latest_ms: Vec<i64>,
    most: usize,
    is_news: bool,
}

impl Marker {
    /// Goes on behind the marks that there are.
    pub fn new(spans: Option<Spans>, streams: usize) -> Marker {
        let spans = spans.filter(|spans| spans.streams.len() == streams).unwrap_or_else(|| Spans::new(streams));
        let latest = |marks: &Marks| marks.marks.last().map_or(i64::MIN, |mark| mark.latest_ms);
        Marker {
            latest_ms: spans.streams.iter().map(latest).collect(),
            spans,
            most: (ALL_MARKS_MAX / streams.max(1)).clamp(4, MARKS_MAX),
            is_news: false,
        }
    }

    /// A row has come, now or in an earlier process.
    pub fn saw(&mut self, stream: usize, timestamp_ms: Option<i64>) {
        self.latest_ms[stream] = self.latest_ms[stream].max(timestamp_ms.unwrap_or(i64::MIN));
    }

    /// A row was added, and the stream is where `now` says, by input up to a position and clock.
    pub fn added(&mut self, stream: usize, now: &StreamProgress, (position, clock_us): (u64, i64)) {
        let latest_ms = self.latest_ms[stream];
        let mark = Mark { rows: now.rows, digest: now.digest, position, clock_us, latest_ms };
        self.is_news |= self.spans.streams[stream].note(mark, self.most);
    }

    /// The marks, if there are new ones since the last call.
    pub fn news(&mut self) -> Option<&Spans> {
        std::mem::take(&mut self.is_news).then_some(&self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_where_the_number_of_rows_says_and_stay_few() {
        let mut once = Marker::new(None, 1);
        let mut restarted = Marker::new(None, 1);
        let mut kept: Option<Spans> = None;
        for rows in 1..=300_000_u64 {
            let now = StreamProgress { rows, digest: rows * 7 };
            for marker in [&mut once, &mut restarted] {
                marker.saw(0, Some(rows as i64));
                marker.added(0, &now, (rows, 0));
            }
            if let Some(spans) = restarted.news() {
                kept = Some(spans.clone());
            }
            if rows % 70_001 == 0 {
                restarted = Marker::new(kept.clone(), 1);
            }
        }
        assert_eq!(once.spans, restarted.spans);
        let marks = once.spans.streams[0].all();
        assert!((MARKS_MAX / 2..=MARKS_MAX).contains(&marks.len()), "{}", marks.len());
        assert!(marks.iter().all(|mark| mark.digest == mark.rows * 7 && mark.rows % 8192 == 0));
        let bytes = once.spans.encode().expect("small");
        assert_eq!(Spans::decode("k", &bytes).expect("own bytes"), once.spans);
        assert!(Spans::decode("k", &bytes[1..]).is_err());
    }

    #[test]
    fn spans_of_a_time_are_few_and_hold_it() {
        let mut marker = Marker::new(None, 1);
        for rows in 1..=20_480_u64 {
            // Timestamps rise, and every tenth row is an older one.
            let timestamp = rows as i64 - if rows % 10 == 0 { 900 } else { 0 };
            marker.saw(0, Some(timestamp));
            marker.added(0, &StreamProgress { rows, digest: 0 }, (0, 0));
        }
        let marks = &marker.spans.streams[0];
        assert_eq!(marks.rows_between(None, None), (0, None));
        let (from, to) = marks.rows_between(Some(10_000), Some(11_000));
        assert!((7_000..=9_999).contains(&from), "{from}");
        assert!(to.is_some_and(|to| (11_300..14_400).contains(&to)), "{to:?}");
        assert_eq!(marks.rows_between(Some(-5), Some(1 << 40)), (0, None));
    }
}
