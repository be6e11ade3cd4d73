//! Where the rows of a job go: into its own topics, or, for the version of a registered job that was live when they came, into
//! the outputs' own names. A pure function of the row's number and its window, so a run that recomputes its rows, and whoever
//! verifies them, finds each where it was written.

use super::registry::{self, OutputSwitch, Registered, parse_label};
use super::{Job, STREAMS};
use crate::error::Result;
use crate::log::Log;
use crate::types::Position;

/// The parts of a version's rows, in order; without any all rows are in the job's own topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Routes {
    spans: Vec<Span>,
}

/// Rows between two switches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// Its rows lie behind this position of the log.
    position: u64,
    /// Rows before it, by stream.
    before: Vec<u64>,
    /// By output, while the version was live.
    live: Option<Vec<OutputSwitch>>,
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the version's own topic.
    Own,
    /// In the topic of the output's own name, as a row of this stretch.
    Live(usize),
}

impl Routes {
    /// Those of a job; it is a version of a registered one if the log says so.
    pub(super) fn of(log: &Log, job: &Job) -> Result<Routes> {
        let number = job.version.as_deref().and_then(|version| parse_label(version).ok());
        let (Some(number), Some(registered)) = (number, registry::find(log, &job.name)?) else {
            return Ok(Routes::default());
        };
        let streams = job.plan.outputs.len() * STREAMS.len();
        Ok(Routes::of_version(&registered, number, streams))
    }

    /// Those of a version, which has so many streams.
    pub(super) fn of_version(registered: &Registered, number: u32, streams: usize) -> Routes {
        let first_live = registered.switches.first().map_or(registered.live, |switch| switch.from);
        let everything = || {
            let output = OutputSwitch { cut_ms: None, first_offsets: vec![Vec::new(); STREAMS.len()] };
            vec![output; streams / STREAMS.len()]
        };
        let mut spans =
            vec![Span { position: 0, before: vec![0; streams], live: (number == first_live).then(everything) }];
        for switch in &registered.switches {
            if switch.to == number {
                spans.push(Span {
                    position: switch.position,
                    before: switch.to_rows.clone(),
                    live: Some(switch.outputs.clone()),
                });
            } else if switch.from == number {
                spans.push(Span { position: switch.position, before: switch.from_rows.clone(), live: None });
            }
        }
        Routes { spans }
    }

    /// True if new rows go to the outputs' own names.
    pub(super) fn is_live(&self) -> bool {
        self.spans.last().is_some_and(|span| span.live.is_some())
    }

    /// The live stretches of a stream: number, the position that their rows lie behind, and their first offset by partition.
    pub(super) fn stretches(&self, stream: usize) -> impl Iterator<Item = (usize, Position, &[u64])> {
        self.spans.iter().enumerate().filter_map(move |(at, span)| {
            let output = span.live.as_ref()?.get(stream / STREAMS.len())?;
            let offsets = output.first_offsets.get(stream % STREAMS.len()).map_or(&[][..], Vec::as_slice);
            Some((at, Position(span.position), offsets))
        })
    }

    /// The place of a stream's row by its number, from 0, and its timestamp.
    pub(super) fn place(&self, stream: usize, row: u64, timestamp_ms: Option<i64>) -> Place {
        let (output, kind) = (stream / STREAMS.len(), stream % STREAMS.len());
        let at = self.spans.partition_point(|span| span.before.get(stream).is_none_or(|before| *before <= row));
        let Some(at) = at.checked_sub(1) else { return Place::Own };
        let Some(live) = self.spans[at].live.as_ref().and_then(|outputs| outputs.get(output)) else {
            return Place::Own;
        };
        // The timestamp of a window's row is its end - 1 ms.
        let is_cut = |cut: i64| kind == 0 && timestamp_ms.is_some_and(|last_ms| last_ms < cut);
        if live.cut_ms.is_some_and(is_cut) { Place::Own } else { Place::Live(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_where_the_version_wrote_them() {
        let output = |cut_ms| vec![OutputSwitch { cut_ms, first_offsets: vec![vec![4, 9], vec![], vec![]] }];
        let span = |before: u64, live| Span { position: before, before: vec![before, 0, before], live };
        let routes = Routes { spans: vec![span(0, None), span(3, Some(output(Some(100)))), span(5, None)] };
        let place = |row, ms| routes.place(0, row, Some(ms));
        assert_eq!([place(0, 999), place(2, 999)], [Place::Own; 2]);
        assert_eq!([place(3, 99), place(3, 100), place(4, 500)], [Place::Own, Place::Live(1), Place::Live(1)]);
        assert_eq!(place(5, 999), Place::Own);
        assert_eq!(routes.place(2, 4, Some(1)), Place::Live(1), "the cut is for windows only");
        assert_eq!(routes.stretches(0).collect::<Vec<_>>(), [(1, Position(3), &[4, 9][..])]);
        assert_eq!(routes.stretches(1).collect::<Vec<_>>(), [(1, Position(3), &[][..])]);
        assert!(!routes.is_live());
        assert_eq!(Routes::default().place(0, 7, None), Place::Own);
    }
}
