//! Which sessions a record joins.

use super::Window;
use std::ops::Range;

/// The window of a record alone: `[time, time + gap)`; `None` if its end does not fit into 64 bits.
pub fn alone(time: i64, gap: i64) -> Option<Window> {
    time.checked_add(gap).map(|end| Window { start: time, end })
}

/// True if two windows belong to one session: they overlap or touch, so two records at distance <= gap are together.
pub fn joins(a: Window, b: Window) -> bool {
    a.start <= b.end && a.end >= b.start
}

/// The smallest window that holds both.
pub fn cover(a: Window, b: Window) -> Window {
    Window { start: a.start.min(b.start), end: a.end.max(b.end) }
}

/// True if a window closes at this watermark or closed before it.
pub fn is_closed(window: Window, watermark: i64) -> bool {
    watermark >= window.end - 1
}

/// The sessions of one key that `record` joins, where `sessions` holds open and closed ones by start. Sessions that are closed at
/// `watermark` (always a prefix) are not joined: they were emitted.
///
/// Sessions that are open never touch each other, so by start is also by end, and the result is one range.
pub fn joined(sessions: impl ExactSizeIterator<Item = Window>, record: Window, watermark: i64) -> Range<usize> {
    let (mut from, mut to) = (sessions.len(), sessions.len());
    for (index, session) in sessions.enumerate() {
        if is_closed(session, watermark) || session.end < record.start {
            continue;
        }
        if !joins(session, record) {
            to = index;
            break;
        }
        from = from.min(index);
    }
    from.min(to)..to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GAP: i64 = 10;

    fn window(start: i64, end: i64) -> Window {
        Window { start, end }
    }

    /// Feeds times in order without any watermark and gives the sessions with their records' times.
    fn sessions_of(times: &[i64]) -> Vec<(Window, Vec<i64>)> {
        let mut open: Vec<(Window, Vec<i64>)> = Vec::new();
        for time in times {
            let record = alone(*time, GAP).expect("small numbers");
            let range = joined(open.iter().map(|(w, _)| *w), record, i64::MIN);
            let mut merged = (record, vec![*time]);
            for (other, members) in open.drain(range.clone()) {
                merged.0 = cover(merged.0, other);
                merged.1.extend(members);
            }
            merged.1.sort_unstable();
            open.insert(range.start, merged);
        }
        open
    }

    #[test]
    fn distance_up_to_the_gap_is_together() {
        assert_eq!(sessions_of(&[0, 10]).len(), 1);
        assert_eq!(sessions_of(&[0, 11]).len(), 2);
        assert_eq!(sessions_of(&[10, 0]).len(), 1);
        assert_eq!(sessions_of(&[0, 20, 10]), [(window(0, 30), vec![0, 10, 20])]);
    }

    #[test]
    fn a_batch_that_spans_a_gap_is_cut_at_the_gap() {
        let expected = [(window(0, 15), vec![0, 5]), (window(100, 111), vec![100, 101])];
        assert_eq!(sessions_of(&[0, 5, 100, 101]), expected);
    }

    #[test]
    fn closed_sessions_are_not_joined() {
        let sessions = [window(0, 10), window(5, 15)];
        assert_eq!(joined(sessions.iter().copied(), window(8, 18), 9), 1..2);
        assert_eq!(joined(sessions.iter().copied(), window(8, 18), 14), 2..2);
    }

    #[test]
    fn the_end_of_time_is_refused() {
        assert_eq!(alone(i64::MAX, 1), None);
        assert_eq!(alone(i64::MAX - 1, 1), Some(window(i64::MAX - 1, i64::MAX)));
    }

    proptest! {
        #[test]
        fn arrival_order_does_not_matter(times in prop::collection::vec(-60i64..60, 0..20), seed in any::<u64>()) {
            let mut shuffled = times.clone();
            for i in (1..shuffled.len()).rev() {
                let pick = crate::codec::xxh64(&(i as u64).to_le_bytes(), seed) % (i as u64 + 1);
                shuffled.swap(i, usize::try_from(pick).expect("small"));
            }
            prop_assert_eq!(sessions_of(&shuffled), sessions_of(&times));
            let mut sorted = times;
            sorted.sort_unstable();
            let cuts = sorted.windows(2).filter(|pair| pair[1] - pair[0] > GAP).count();
            prop_assert_eq!(sessions_of(&sorted).len(), if sorted.is_empty() { 0 } else { cuts + 1 });
        }
    }
}
