//! Tumbling, hopping and cumulating windows by slices: pieces of time that every window holds wholly or not at all.

use super::{Window, WindowKind};

/// The slice that a time falls into, and the windows that hold it: those that end at `first_end`, `first_end + step`, .. `last_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// First ms of the slice.
    pub start: i64,
    /// First ms after the slice.
    pub end: i64,
    /// End of the first window that holds it; beyond `last_end` if none does.
    pub first_end: i64,
    /// End of the last window that holds it.
    pub last_end: i64,
    /// Distance of the ends.
    pub step: i64,
    /// Start of the first of these windows.
    pub first_start: i64,
}

impl Slice {
    /// Whether all these times fall into it.
    pub fn holds_all(&self, times: impl Iterator<Item = i64>) -> bool {
        // A time outside makes one of the distances negative. Without a way out of the loop, which then takes many times at a time.
        let (start, last) = (self.start, self.end - 1);
        let outside = |time: i64| time.wrapping_sub(start) | last.wrapping_sub(time);
        times.fold(0, |any, time| any | outside(time)) >= 0
    }
}

/// Cuts time into slices and puts windows together from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slicer {
    /// Windows of `size` every `slide` (tumbling: slide = size). Between windows that do not touch, times are in none.
    Hop {
        /// Length of a window.
        size: i64,
        /// Distance of windows.
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
    /// Rows bring their windows; each is a slice.
    Given,
}

/// The greatest common divisor of two positive lengths.
fn common(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common(b, a % b) }
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
            WindowKind::Attached { .. } => Some(Slicer::Given),
            WindowKind::Session { .. } | WindowKind::Count { .. } => None,
        }
    }

    /// Whether the sizes make sense: positive, and that of growing windows a multiple of the step.
    pub fn is_valid(&self) -> bool {
        match *self {
            Slicer::Hop { size, slide, .. } => size > 0 && slide > 0,
            Slicer::Cumulate { max, step, .. } => step > 0 && max >= step && max % step == 0,
            Slicer::Given => true,
        }
    }

    /// The slice of a time; `None` if one of its windows reaches beyond what 64 bits of milliseconds can say.
    pub fn slice_of(&self, time: i64) -> Option<Slice> {
        let slice = match *self {
            Slicer::Hop { size, slide, offset } if size == slide => {
                let start = floor(time, offset, size);
                let end = start + i128::from(size);
                [start, end, end, end, i128::from(slide), start]
            }
            Slicer::Hop { size, slide, offset } => {
                let unit = common(size, slide);
                let start = i64::try_from(floor(time, offset, unit)).ok()?;
                let (size_wide, slide_wide) = (i128::from(size), i128::from(slide));
                let last_end = floor(start, offset, slide) + size_wide;
                // Windows end at the boundaries shifted by `size`.
                let first_end = floor(start, offset.wrapping_add(size % slide) % slide, slide) + slide_wide;
                let start = i128::from(start);
                [start, start + i128::from(unit), first_end, last_end, slide_wide, first_end - size_wide]
            }
            Slicer::Cumulate { max, step, offset } => {
                let (start, anchor) = (floor(time, offset, step), floor(time, offset, max));
                let end = start + i128::from(step);
                [start, end, end, anchor + i128::from(max), i128::from(step), anchor]
            }
            Slicer::Given => return None,
        };
        let mut fields = slice.into_iter().map(i64::try_from);
        let mut next = || fields.next()?.ok();
        Some(Slice {
            start: next()?,
            end: next()?,
            first_end: next()?,
            last_end: next()?,
            step: next()?,
            first_start: next()?,
        })
    }

    /// The slice of rows that bring their window.
    pub fn slice_of_window(window: Window) -> Slice {
        let Window { start, end } = window;
        Slice { start, end, first_end: end, last_end: end, step: 1, first_start: start }
    }

    /// How far the last window that holds a slice ends behind the slice, at most.
    pub fn reach(&self) -> i64 {
        match *self {
            Slicer::Hop { size, slide, .. } => size - common(size, slide),
            Slicer::Cumulate { max, step, .. } => max - step,
            Slicer::Given => 0,
        }
    }

    /// All windows that hold a time, by end; empty if there is none, or if one of them cannot be said (see
    /// [`slice_of`](Self::slice_of)).
    pub fn windows_of(&self, time: i64) -> Vec<Window> {
        self.slice_of(time).map_or(Vec::new(), |slice| self.windows_between(&slice, i64::MIN, i64::MAX))
    }

    /// The windows that hold `slice` and end after `after` and at `until` or before, by end.
    pub fn windows_between(&self, slice: &Slice, after: i64, until: i64) -> Vec<Window> {
        let until = until.min(slice.last_end);
        let first = Slicer::next_end(slice, after).filter(|end| *end <= until);
        let ends = std::iter::successors(first, |end| end.checked_add(slice.step).filter(|end| *end <= until));
        ends.map(|end| Window { start: self.window_start(slice, end), end }).collect()
    }

    /// Start of the window that ends at `end` and holds `slice`.
    pub fn window_start(&self, slice: &Slice, end: i64) -> i64 {
        match *self {
            Slicer::Hop { size, .. } => end - size,
            Slicer::Cumulate { .. } | Slicer::Given => slice.first_start,
        }
    }

    /// End of the first window that holds `slice` and ends after `closed`; `None`: there is none.
    pub fn next_end(slice: &Slice, closed: i64) -> Option<i64> {
        if closed >= slice.last_end || slice.first_end > slice.last_end {
            return None;
        }
        if closed < slice.first_end {
            return Some(slice.first_end);
        }
        // first_end <= closed < last_end: within the windows of the slice, so nothing here leaves i64.
        Some(slice.first_end + ((closed - slice.first_end) / slice.step + 1) * slice.step)
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

    proptest! {
        #[test]
        fn times_of_a_slice_are_told_from_all_others(
            at in prop_oneof![-20i64..20, any::<i64>()],
            size in prop_oneof![1i64..9, 1..i64::MAX],
            times in prop::collection::vec((any::<bool>(), prop_oneof![-20i64..20, any::<i64>()]), 0..5),
        ) {
            let Some(slice) = tumble(size, 0).slice_of(at) else { return Ok(()) };
            let near = |(near, time): (bool, i64)| if near { at.saturating_add(time % 20) } else { time };
            let times: Vec<i64> = times.into_iter().map(near).collect();
            let inside = times.iter().all(|time| (slice.start..slice.end).contains(time));
            prop_assert_eq!(slice.holds_all(times.into_iter()), inside);
        }
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
        (1i64..20, 1i64..6, -40i64..40, 0..3, 1i64..60).prop_map(|(step, times, offset, kind, size)| match kind {
            0 => Slicer::Hop { size: step * times, slide: step, offset },
            1 => Slicer::Hop { size, slide: step, offset },
            _ => Slicer::Cumulate { max: step * times, step, offset },
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
                Slicer::Given => {}
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
        fn slices_are_held_wholly_or_not_at_all(slicer in slicers(), time in -300i64..300) {
            let slice = slicer.slice_of(time).expect("small numbers");
            prop_assert!(slice.start <= time && time < slice.end);
            for other in slice.start..slice.end {
                prop_assert_eq!(slicer.slice_of(other), Some(slice));
            }
            for window in slicer.windows_of(time) {
                prop_assert!(window.start <= slice.start && slice.end <= window.end);
                prop_assert!(window.end - slice.end <= slicer.reach());
            }
        }

        #[test]
        fn next_end_is_the_first_open_window(slicer in slicers(), time in -300i64..300, closed in -500i64..500) {
            let slice = slicer.slice_of(time).expect("small numbers");
            let open = slicer.windows_of(time).iter().map(|w| w.end).find(|end| *end > closed);
            prop_assert_eq!(Slicer::next_end(&slice, closed), open);
        }
    }
}
