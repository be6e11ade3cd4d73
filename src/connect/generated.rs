//! Made-up events into a topic or as lines of text, at full speed or so many a second.

use crate::env::Env;
use crate::error::Result;
use crate::generate::Maker;
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, PendingAck, Topic};
use crate::types::PartitionId;
use std::collections::VecDeque;

/// Bytes of records in one append.
const FRAME_BYTES: usize = 1 << 20;

/// Appends on their way at once.
const IN_FLIGHT_MAX: usize = 4;

/// Events between two looks at the clock and at what the caller wants.
const STRIDE: u64 = 1_000;

/// With a rate, events come in bursts this long.
const BURST_US: u64 = 20_000;

/// How much, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Events in all.
    pub events: u64,
    /// Events a second of real time; `None`: as fast as they are taken.
    pub per_s: Option<u64>,
}

/// What the caller wants to know, and may want.
pub trait Watch {
    /// So many events are made.
    fn on_progress(&mut self, events: u64);
    /// True ends it.
    fn should_stop(&mut self) -> bool;
}

/// How many of the events are due at a time since the start.
fn due(pace: &Pace, elapsed_us: u64) -> u64 {
    let Some(per_s) = pace.per_s else { return pace.events };
    let bursts = u128::from(elapsed_us / BURST_US) + 1;
    let due = (bursts * u128::from(BURST_US)).saturating_mul(u128::from(per_s)) / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX).min(pace.events)
}

/// Calls `take` for stretches of events as they are due, until all are made or the caller has enough. Gives their number.
fn paced(env: &Env, pace: &Pace, watch: &mut dyn Watch, mut take: impl FnMut(u64, bool) -> Result<()>) -> Result<u64> {
    let start = env.clock.monotonic_us();
    let mut done = 0;
    while done < pace.events && !watch.should_stop() {
        let due = due(pace, env.clock.monotonic_us() - start);
        if due == done {
            env.clock.sleep_us(BURST_US / 2);
            continue;
        }
        let stretch = (due - done).min(STRIDE);
        done += stretch;
        // What waits for its time must not wait for a full frame as well.
        take(stretch, pace.per_s.is_some() && done == due)?;
        watch.on_progress(done);
    }
    Ok(done)
}

/// Appends events to a topic that has the partitions which the maker knows. Gives their number, all of them durable.
///
/// # Errors
/// Those of the log.
pub fn into_topic(log: &Log, topic: &Topic, maker: &mut dyn Maker, pace: &Pace, watch: &mut dyn Watch) -> Result<u64> {
    let mut value = Vec::new();
    let mut rows = RecordColumns::default();
    let mut in_flight: VecDeque<PendingAck> = VecDeque::new();
    let mut send = |rows: &mut RecordColumns| -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        in_flight.push_back(log.append(AppendBatch::records(topic.id(), std::mem::take(rows)))?);
        if in_flight.len() > IN_FLIGHT_MAX
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.wait()?;
        }
        Ok(())
    };
    let done = paced(log.env(), pace, watch, |events, at_once| {
        for _ in 0..events {
            value.clear();
            let made = maker.make(&mut value);
            let key = Some(made.key.as_bytes());
            let record = Record { timestamp_ms: Some(made.time_ms), key, value: Some(&value), headers: &[] };
            rows.push(Partitioning::Fixed(PartitionId(made.partition)), &record);
        }
        if at_once || rows.byte_len() >= FRAME_BYTES { send(&mut rows) } else { Ok(()) }
    })?;
    send(&mut rows)?;
    in_flight.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
    Ok(done)
}

/// Gives events as lines to `write`, which is told where in the text they stand. Gives their number.
///
/// # Errors
/// Those of `write`.
pub fn into_lines(
    env: &Env,
    maker: &mut dyn Maker,
    pace: &Pace,
    watch: &mut dyn Watch,
    write: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<u64> {
    let (mut lines, mut at) = (Vec::new(), 0);
    let done = paced(env, pace, watch, |events, at_once| {
        for _ in 0..events {
            maker.make(&mut lines);
            lines.push(b'\n');
        }
        if at_once || lines.len() >= FRAME_BYTES {
            write(at, &lines)?;
            at += lines.len() as u64;
            lines.clear();
        }
        Ok(())
    })?;
    if !lines.is_empty() {
        write(at, &lines)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::web::{WebEvents, WebOptions};

    struct Until(u64, u64);

    impl Watch for Until {
        fn on_progress(&mut self, events: u64) {
            self.0 = events;
        }
        fn should_stop(&mut self) -> bool {
            self.0 >= self.1
        }
    }

    #[test]
    fn a_rate_makes_bursts() {
        let pace = Pace { events: 1_000, per_s: Some(500) };
        assert_eq!([0, 19_999, 20_000, 1_000_000, 5_000_000].map(|us| due(&pace, us)), [10, 10, 20, 510, 1_000]);
        assert_eq!(due(&Pace { per_s: None, ..pace }, 0), 1_000);
        assert_eq!(due(&Pace { events: u64::MAX, per_s: Some(u64::MAX) }, u64::MAX), u64::MAX);
    }

    fn text(pace: &Pace, until: u64) -> (u64, Vec<u8>) {
        let mut text = Vec::new();
        let mut write = |at: u64, lines: &[u8]| {
            assert_eq!(at, text.len() as u64);
            text.extend_from_slice(lines);
            Ok(())
        };
        let mut maker = WebEvents::new(WebOptions::default());
        let (env, _) = Env::sim(1);
        let done = into_lines(&env, &mut maker, pace, &mut Until(0, until), &mut write);
        (done.expect("made"), text)
    }

    #[test]
    fn pace_does_not_change_the_text() {
        let (done, fast) = text(&Pace { events: 20_000, per_s: None }, u64::MAX);
        assert_eq!((done, fast.iter().filter(|byte| **byte == b'\n').count()), (20_000, 20_000));
        let (done, slow) = text(&Pace { events: 20_000, per_s: Some(1_000_000) }, u64::MAX);
        assert_eq!(done, 20_000);
        assert!(slow == fast);
        let (done, cut) = text(&Pace { events: 20_000, per_s: None }, 3_000);
        assert_eq!(done, 3_000);
        assert!(fast.starts_with(&cut));
    }
}
