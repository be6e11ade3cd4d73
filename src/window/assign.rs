//! Tumbling, hopping and cumulating windows by slices: the longest pieces of time that every window holds wholly or not at all.

use super::{Window, WindowKind};

/// The slice that a time falls into, and the windows that hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First ms of the slice; its name.
    pub start: i64,
    /// First ms after the slice; end of the first window that holds it.
    pub end: i64,
    /// End of the last window that holds it.
    pub last_end: i64,
    /// Start of the earliest window that holds it.
    pub first_start: i64,
}

/// Cuts time into slices and puts windows together from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slicer {
    /// Windows of `size` every `slide` (tumbling: slide = size).
    Hop {
        /// Length of a window; a multiple of `slide`.
        size: i64,
        /// Length of a slice.
        slide: i64,
        /// Shift of the boundaries.
        offset: i64,
    },
    /// Windows of the same start that grow by `step` up to `max`.
    Cumulate {
        /// Longest length; a multiple of `step`.
        max: i64,
        /// Length of a slice.
        step: i64,
        /// Shift of the boundaries.
        offset: i64,
    },
}

/// The largest `offset + k * unit` that is not after `time`.
fn floor(time: i64, offset: i64, unit: i64) -> i128 {
    match time.checked_sub(offset) {
        Some(since) => i128::from(time) - i128::from(since.rem_euclid(unit)),
        None => {
            let (time, offset, unit) = (i128::from(time), i128::from(offset), i128::from(unit));
            time - (time - offset).rem_euclid(unit)
        }
    }
}

impl Slicer {
    /// The slicer of a window kind; `None` for those that depend on more than a time.
    pub fn new(kind: WindowKind) -> Option<Slicer> {
        match kind {
            WindowKind::Tumble { size_ms, offset_ms } => {
                Some(Slicer::Hop { size: size_ms, slide: size_ms, offset: offset_ms })
            }
            WindowKind::Hop { size_ms, slide_ms, offset_ms } => {
                Some(Slicer::Hop { size: size_ms, slide: slide_ms, offset: offset_ms })
            }
            WindowKind::Cumulate { max_ms, step_ms, offset_ms } => {
                Some(Slicer::Cumulate { max: max_ms, step: step_ms, offset: offset_ms })
            }
            WindowKind::Session { .. } | WindowKind::Attached { .. } | WindowKind::Count { .. } => None,
        }
    }

    /// Whether the sizes make sense: positive, and the longer one a multiple of the shorter.
    pub fn is_valid(&self) -> bool {
        let (long, short) = match *self {
            Slicer::Hop { size, slide, .. } => (size, slide),
            Slicer::Cumulate { max, step, .. } => (max, step),
        };
        short > 0 && long >= short && long % short == 0
    }

    /// The slice of a time; `None` if one of its windows reaches beyond what 64 bits of milliseconds can say.
    pub fn slice_of(&self, time: i64) -> Option<Slice> {
        let (start, end, first_start, last_end) = match *self {
            Slicer::Hop { size, slide, offset } => {
                let start = floor(time, offset, slide);
                let (size, slide) = (i128::from(size), i128::from(slide));
                (start, start + slide, start + slide - size, start + size)
            }
            Slicer::Cumulate { max, step, offset } => {
                let (start, anchor) = (floor(time, offset, step), floor(time, offset, max));
                (start, start + i128::from(step), anchor, anchor + i128::from(max))
            }
        };
        Some(Slice {
            start: i64::try_from(start).ok()?,
            end: i64::try_from(end).ok()?,
            last_end: i64::try_from(last_end).ok()?,
            first_start: i64::try_from(first_start).ok()?,
        })
    }

    /// All windows that hold a time, by end; empty if one of them cannot be said (see [`slice_of`](Self::slice_of)).
    pub fn windows_of(&self, time: i64) -> Vec<Window> {
        let Some(slice) = self.slice_of(time) else { return Vec::new() };
        let step = slice.end - slice.start;
        let ends = std::iter::successors(Some(slice.end), |end| end.checked_add(step).filter(|e| *e <= slice.last_end));
        ends.map(|end| Window { start: self.window_start(&slice, end), end }).collect()
    }

    /// Start of the window that ends at `end` and holds `slice`.
    pub fn window_start(&self, slice: &Slice, end: i64) -> i64 {
        match *self {
            Slicer::Hop { size, .. } => end - size,
            Slicer::Cumulate { .. } => slice.first_start,
        }
    }

    /// End of the first window that holds `slice` and does not close at watermark `closed` or before (a window closes when the
    /// watermark reaches its end - 1); `None`: all are closed.
    pub fn next_end(slice: &Slice, closed: i64) -> Option<i64> {
        if closed < slice.end - 1 {
            return Some(slice.end);
        }
        if closed >= slice.last_end - 1 {
            return None;
        }
        // slice.end <= closed + 1 < last_end: within the windows of the slice, so nothing here leaves i64.
        let step = slice.end - slice.start;
        let steps = (closed + 1 - slice.end) / step + 1;
        Some(slice.end + steps * step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tumble(size: i64, offset: i64) -> Slicer {
        Slicer::Hop { size, slide: size, offset }
    }

    fn windows(slicer: Slicer, time: i64) -> Vec<(i64, i64)> {
        slicer.windows_of(time).iter().map(|w| (w.start, w.end)).collect()
    }

    #[test]
    fn assignment_vectors() {
        assert_eq!(windows(tumble(10, 0), -1), [(-10, 0)]);
        assert_eq!(windows(tumble(10, 0), -10), [(-10, 0)]);
        assert_eq!(windows(tumble(10, 0), 0), [(0, 10)]);
        assert_eq!(windows(tumble(10, 3), 2), [(-7, 3)]);
        assert_eq!(windows(tumble(10, 3), 3), [(3, 13)]);
        assert_eq!(windows(tumble(10, -3), -3), [(-3, 7)]);
        assert_eq!(windows(Slicer::Hop { size: 10, slide: 5, offset: 0 }, -1), [(-10, 0), (-5, 5)]);
        let cumulate = Slicer::Cumulate { max: 10, step: 2, offset: 0 };
        assert_eq!(windows(cumulate, 3), [(0, 4), (0, 6), (0, 8), (0, 10)]);
    }

    #[test]
    fn windows_at_the_ends_of_time_are_refused_not_wrapped() {
        assert_eq!(tumble(10, 0).slice_of(i64::MAX), None);
        assert_eq!(tumble(10, 0).slice_of(i64::MIN), None);
        assert_eq!(windows(tumble(1, 0), i64::MAX - 1), [(i64::MAX - 1, i64::MAX)]);
        assert_eq!(windows(tumble(8, 0), i64::MIN), [(i64::MIN, i64::MIN + 8)]);
        assert_eq!(Slicer::Hop { size: 16, slide: 8, offset: 0 }.slice_of(i64::MIN), None);
        assert_eq!(tumble(i64::MAX, 0).slice_of(-5).map(|s| (s.start, s.end)), Some((-i64::MAX, 0)));
    }

    fn slicers() -> impl Strategy<Value = Slicer> {
        (1i64..20, 1i64..6, -40i64..40, any::<bool>()).prop_map(|(step, times, offset, hop)| match hop {
            true => Slicer::Hop { size: step * times, slide: step, offset },
            false => Slicer::Cumulate { max: step * times, step, offset },
        })
    }

    /// All windows near a time, by definition.
    fn by_definition(slicer: Slicer, time: i64) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        for k in -2000..2000 {
            match slicer {
                Slicer::Hop { size, slide, offset } => found.push((offset + k * slide, offset + k * slide + size)),
                Slicer::Cumulate { max, step, offset } => {
                    let start = offset + k * max;
                    found.extend((1..=max / step).map(|i| (start, start + i * step)));
                }
            }
        }
        found.retain(|(start, end)| *start <= time && time < *end);
        found.sort_by_key(|(start, end)| (*end, *start));
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn windows_are_those_of_the_definition(slicer in slicers(), time in -300i64..300) {
            prop_assert_eq!(windows(slicer, time), by_definition(slicer, time));
        }

        #[test]
        fn next_end_is_the_first_open_window(slicer in slicers(), time in -300i64..300, closed in -500i64..500) {
            let slice = slicer.slice_of(time).expect("small numbers");
            let open = slicer.windows_of(time).iter().map(|w| w.end).find(|end| end - 1 > closed);
            prop_assert_eq!(Slicer::next_end(&slice, closed), open);
        }
    }
}
