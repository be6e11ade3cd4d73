//! Which windows there are.

use crate::engine::plan::WindowKind;
use crate::error::{Error, Result};
use std::time::Duration;

/// Windows of a fixed length, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Tumble(Duration);

impl Tumble {
    /// Windows of this length.
    pub fn of(size: Duration) -> Tumble {
        Tumble(size)
    }
}

/// Windows of a fixed length that start at fixed distances.
#[derive(Debug, Clone, Copy)]
pub struct Hop(Duration, Duration);

impl Hop {
    /// Windows of length `size`, one every `slide`. Where the slide is longer, times between windows are in none.
    pub fn of(size: Duration, slide: Duration) -> Hop {
        Hop(size, slide)
    }
}

/// Windows that grow until they start anew.
#[derive(Debug, Clone, Copy)]
pub struct Cumulate(Duration, Duration);

impl Cumulate {
    /// Windows that grow by `step` to `max`, a multiple of it.
    pub fn of(max: Duration, step: Duration) -> Cumulate {
        Cumulate(max, step)
    }
}

/// Windows that end when a key has been silent.
#[derive(Debug, Clone, Copy)]
pub struct Session(Duration);

impl Session {
    /// Windows that end `gap` after their last record; records at a distance of `gap` are still together.
    pub fn gap(gap: Duration) -> Session {
        Session(gap)
    }
}

/// Windows of a number of records of a key.
#[derive(Debug, Clone, Copy)]
pub struct CountWindow(u64, Option<Duration>);

impl CountWindow {
    /// Windows of so many records.
    pub fn of(records: u64) -> CountWindow {
        CountWindow(records, None)
    }

    /// A window closes with what it has so long after its first record.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> CountWindow {
        CountWindow(self.0, Some(timeout))
    }
}

/// Any of the windows.
#[derive(Debug, Clone, Copy)]
pub struct WindowSpec(Spec);

#[derive(Debug, Clone, Copy)]
enum Spec {
    Tumble(Tumble),
    Hop(Hop),
    Cumulate(Cumulate),
    Session(Session),
    Count(CountWindow),
}

macro_rules! spec {
    ($($from:ident $to:ident),*) => {$(
        impl From<$from> for WindowSpec {
            fn from(window: $from) -> WindowSpec {
                WindowSpec(Spec::$to(window))
            }
        }
    )*};
}
spec!(Tumble Tumble, Hop Hop, Cumulate Cumulate, Session Session, CountWindow Count);

impl WindowSpec {
    /// The engine's form; `offset` shifts the bounds.
    pub(super) fn kind(self, offset: Option<Duration>) -> Result<WindowKind> {
        let shift = |size: Duration| match offset {
            None => Ok(0),
            Some(offset) if offset < size => millis(offset, "an offset"),
            Some(offset) => Err(Error::input(format!("the offset {offset:?} is not below the window's {size:?}"))),
        };
        Ok(match self.0 {
            Spec::Tumble(Tumble(size)) => {
                WindowKind::Tumble { size_ms: positive(size, "the size of a window")?, offset_ms: shift(size)? }
            }
            Spec::Hop(Hop(size, slide)) => WindowKind::Hop {
                size_ms: positive(size, "the size of a window")?,
                slide_ms: positive(slide, "a slide")?,
                offset_ms: shift(slide.max(size))?,
            },
            Spec::Cumulate(Cumulate(max, step)) => {
                let (max_ms, step_ms) = (positive(max, "the size of a window")?, positive(step, "a step")?);
                if max_ms % step_ms != 0 {
                    return Err(Error::input(format!(
                        "windows that grow to {max:?} cannot do so in steps of {step:?}"
                    ))
                    .with_hint("make the size a multiple of the step"));
                }
                WindowKind::Cumulate { max_ms, step_ms, offset_ms: shift(max)? }
            }
            Spec::Session(_) | Spec::Count(_) if offset.is_some() => {
                return Err(Error::input("sessions and count windows start with their records: they have no offset"));
            }
            Spec::Session(Session(gap)) => WindowKind::Session { gap_ms: positive(gap, "a gap")? },
            Spec::Count(CountWindow(0, _)) => return Err(Error::input("a count window has at least one record")),
            Spec::Count(CountWindow(size, timeout)) => {
                let timeout_ms = timeout.map(|timeout| positive(timeout, "a timeout")).transpose()?;
                WindowKind::Count { size, timeout_ms }
            }
        })
    }
}

/// Whole milliseconds, more than none.
fn positive(duration: Duration, what: &str) -> Result<i64> {
    match millis(duration, what)? {
        0 => Err(Error::input(format!("{what} is 0: it must be positive"))),
        ms => Ok(ms),
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration, what: &str) -> Result<i64> {
    let whole = duration.subsec_nanos().is_multiple_of(1_000_000);
    match i64::try_from(duration.as_millis()) {
        Ok(ms) if whole => Ok(ms),
        _ => Err(Error::input(format!("{what} is {duration:?}: times are whole milliseconds"))),
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration, what: &str) -> Result<i64> {
    i64::try_from(duration.as_micros()).map_err(|_| Error::input(format!("{what} of {duration:?} is too long")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let ms = Duration::from_millis;
        let kind = |spec: WindowSpec, offset| spec.kind(offset).map_err(|error| error.message().to_owned());
        assert_eq!(
            kind(Hop::of(ms(20), ms(5)).into(), Some(ms(3))),
            Ok(WindowKind::Hop { size_ms: 20, slide_ms: 5, offset_ms: 3 })
        );
        assert_eq!(
            kind(CountWindow::of(3).timeout(ms(7)).into(), None),
            Ok(WindowKind::Count { size: 3, timeout_ms: Some(7) })
        );
        for (spec, offset, why) in [
            (Tumble::of(ms(0)).into(), None, "the size of a window is 0"),
            (Tumble::of(Duration::from_micros(1500)).into(), None, "whole milliseconds"),
            (Tumble::of(ms(10)).into(), Some(ms(10)), "not below"),
            (Cumulate::of(ms(10), ms(4)).into(), None, "in steps of"),
            (Session::gap(ms(10)).into(), Some(ms(1)), "no offset"),
            (CountWindow::of(0).into(), None, "at least one"),
        ] {
            let message = kind(spec, offset).expect_err(why);
            assert!(message.contains(why), "{message}");
        }
    }
}
