//! State that is saved while its owner goes on. When it begins, what there is is so many numbers (slots, or keys). The rows of a number are
//! given away when its turn comes, or before they change, whichever is first: so what is saved is the state of that moment, and the owner
//! never does more at once than it wants to. Who writes the rows takes them from the other end, on a thread of its own.

use super::section::PIECE_ROWS;
use crate::error::{Error, ErrorKind, Result};
use arrow::array::RecordBatch;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What came of a step of saving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Rows were given.
    Given,
    /// Whoever writes them has enough to do.
    Full,
    /// Nothing is left.
    Over,
}

/// Whose rows are to be given.
#[derive(Debug, Clone, Copy)]
pub enum Due<'a> {
    /// Of these numbers, which are about to change.
    Changes(&'a [u32]),
    /// Of some, if fewer than so many pieces wait to be written.
    Next {
        /// The pieces.
        ahead: usize,
    },
    /// All that is left: it is about to go.
    Rest,
}

/// Hands the rows of one saving over, from the thread that has the state to the one that writes it.
#[derive(Default)]
pub struct Relay {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    /// One for each section.
    lines: Vec<Line>,
    /// Pieces taken, and ends that were let go of.
    moves: u64,
    is_cancelled: bool,
}

#[derive(Default)]
struct Line {
    pieces: VecDeque<RecordBatch>,
    /// No more will come: all rows were given, or some never will be.
    end: Option<Result<()>>,
    /// Nobody takes any more.
    is_left: bool,
}

fn not_whole() -> Error {
    Error::new(ErrorKind::Unavailable, "the state was not saved as a whole")
}

impl Relay {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets whoever writes fail: the rest will not come.
    pub fn cancel(&self) {
        self.lines().is_cancelled = true;
        self.changed.notify_all();
    }

    /// Counts what whoever writes has done, for [`wait`](Self::wait).
    pub fn moves(&self) -> u64 {
        self.lines().moves
    }

    /// Waits until more has been done than so much.
    pub fn wait(&self, moves: u64) {
        let waits = |lines: &mut Lines| lines.moves <= moves && !lines.is_cancelled;
        drop(self.changed.wait_while(self.lines(), waits).unwrap_or_else(PoisonError::into_inner));
    }
}

/// What is yet to be saved of a part of a state.
pub struct Saving {
    relay: Arc<Relay>,
    line: usize,
    /// A bit for each number that is to be saved.
    pending: Vec<u64>,
    left: usize,
    /// Words of `pending` before this one are 0.
    next: usize,
}

/// Where its rows come out, once.
pub struct Pieces {
    relay: Arc<Relay>,
    line: usize,
}

impl Saving {
    /// Of the numbers below `count`.
    pub fn below(relay: &Arc<Relay>, count: usize) -> (Saving, Pieces) {
        let mut pending = vec![u64::MAX; count.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (pending.last_mut(), count % 64) {
            *last = (1 << rest) - 1;
        }
        Saving::new(relay, pending, count)
    }

    /// Of these numbers, each once, all below `bound`.
    pub fn of(relay: &Arc<Relay>, bound: usize, numbers: impl Iterator<Item = u32>) -> (Saving, Pieces) {
        let (mut pending, mut left) = (vec![0; bound.div_ceil(64)], 0);
        for number in numbers {
            pending[number as usize / 64] |= 1 << (number % 64);
            left += 1;
        }
        Saving::new(relay, pending, left)
    }

    fn new(relay: &Arc<Relay>, pending: Vec<u64>, left: usize) -> (Saving, Pieces) {
        let line = {
            let lines = &mut relay.lines().lines;
            lines.push(Line::default());
            lines.len() - 1
        };
        (Saving { relay: Arc::clone(relay), line, pending, left, next: 0 }, Pieces { relay: Arc::clone(relay), line })
    }

    /// Gives rows away, made by `rows` from numbers, if somebody wants them; `saving` ends with the last of them, or with the first that
    /// cannot be made, which is for whoever writes them to know.
    pub fn give(saving: &mut Option<Saving>, due: Due<'_>, rows: impl Fn(&[u32]) -> Result<RecordBatch>) -> Step {
        let Some(own) = saving else { return Step::Over };
        let step = own.step(if let Due::Next { ahead } = due { ahead } else { usize::MAX });
        let numbers = match (step, due) {
            (Step::Full, _) => return step,
            (Step::Over, _) => Vec::new(),
            (Step::Given, Due::Changes(numbers)) => own.take(numbers),
            (Step::Given, Due::Next { .. }) => own.take_next(PIECE_ROWS),
            (Step::Given, Due::Rest) => own.take_next(usize::MAX),
        };
        for numbers in numbers.chunks(PIECE_ROWS) {
            match rows(numbers) {
                Ok(rows) => own.put(rows),
                Err(error) => {
                    own.relay.lines().lines[own.line].end = Some(Err(error));
                    *saving = None;
                    return Step::Over;
                }
            }
        }
        if own.step(usize::MAX) == Step::Over {
            *saving = None;
        }
        step
    }

    /// Those of `numbers` that are to be saved, each once.
    fn take(&mut self, numbers: &[u32]) -> Vec<u32> {
        let mut taken = Vec::new();
        for number in numbers {
            let bit = 1 << (number % 64);
            if let Some(word) = self.pending.get_mut(*number as usize / 64).filter(|word| **word & bit != 0) {
                *word &= !bit;
                taken.push(*number);
            }
        }
        self.left -= taken.len();
        taken
    }

    /// The next ones, about so many.
    fn take_next(&mut self, count: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        while taken.len() < count && self.next < self.pending.len() {
            let mut word = std::mem::take(&mut self.pending[self.next]);
            while word != 0 {
                taken.push(self.next as u32 * 64 + word.trailing_zeros());
                word &= word - 1;
            }
            self.next += 1;
        }
        self.left -= taken.len();
        taken
    }

    fn put(&self, rows: RecordBatch) {
        let mut lines = self.relay.lines();
        let line = &mut lines.lines[self.line];
        if rows.num_rows() > 0 && !line.is_left {
            line.pieces.push_back(rows);
            self.relay.changed.notify_all();
        }
    }

    /// What is to be done while fewer than `ahead` pieces wait.
    fn step(&self, ahead: usize) -> Step {
        let lines = self.relay.lines();
        let line = &lines.lines[self.line];
        match () {
            () if self.left == 0 || line.is_left || lines.is_cancelled => Step::Over,
            () if line.pieces.len() >= ahead => Step::Full,
            () => Step::Given,
        }
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        let end = if self.left == 0 { Ok(()) } else { Err(not_whole()) };
        self.relay.lines().lines[self.line].end.get_or_insert(end);
        self.relay.changed.notify_all();
    }
}

impl Pieces {
    /// Gives the rows to `take` as they come, until all are there.
    ///
    /// # Errors
    /// `Unavailable` when they will not all come, or were taken before.
    pub fn each(&self, take: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        while let Some(rows) = self.next()? {
            take(rows)?;
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<RecordBatch>> {
        let waits = |lines: &mut Lines| {
            let line = &lines.lines[self.line];
            line.pieces.is_empty() && line.end.is_none() && !lines.is_cancelled
        };
        let waited = self.relay.changed.wait_while(self.relay.lines(), waits);
        let mut lines = waited.unwrap_or_else(PoisonError::into_inner);
        lines.moves += 1;
        self.relay.changed.notify_all();
        let is_cancelled = lines.is_cancelled;
        let line = &mut lines.lines[self.line];
        match line.pieces.pop_front() {
            _ if is_cancelled => Err(not_whole()),
            Some(rows) => Ok(Some(rows)),
            // A second time it would be nothing.
            None => line.end.replace(Err(not_whole())).unwrap_or_else(|| Err(not_whole())).map(|()| None),
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut lines = self.relay.lines();
        let line = &mut lines.lines[self.line];
        line.is_left = true;
        line.pieces.clear();
        lines.moves += 1;
        self.relay.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, UInt32Array};
    use arrow::datatypes::UInt32Type;

    fn rows(numbers: &[u32]) -> Result<RecordBatch> {
        let column: ArrayRef = Arc::new(UInt32Array::from(numbers.to_vec()));
        Ok(RecordBatch::try_from_iter([("number", column)]).expect("one column"))
    }

    fn all(pieces: &Pieces) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        pieces.each(&mut |rows| {
            numbers.extend_from_slice(rows.column(0).as_primitive::<UInt32Type>().values());
            Ok(())
        })?;
        Ok(numbers)
    }

    #[test]
    fn every_number_is_given_once_before_it_changes_or_when_its_turn_comes() {
        let relay = Arc::new(Relay::default());
        for (made, expected) in [
            (Saving::below(&relay, 200_000), (0..200_000).collect::<Vec<u32>>()),
            (Saving::of(&relay, 2_000, (0..2_000).step_by(3)), (0..2_000).step_by(3).collect()),
            (Saving::below(&relay, 0), Vec::new()),
        ] {
            let (mut saving, pieces) = (Some(made.0), made.1);
            let mut changed = 1;
            while Saving::give(&mut saving, Due::Next { ahead: usize::MAX }, rows) == Step::Given {
                changed = changed * 7919 % 250_000;
                Saving::give(&mut saving, Due::Changes(&[changed, 3, changed, 1_999]), rows);
            }
            let mut numbers = all(&pieces).expect("all of them");
            numbers.sort_unstable();
            assert!(numbers == expected, "{} of {}", numbers.len(), expected.len());
            assert!(all(&pieces).is_err(), "a second time they would be none");
        }
    }

    #[test]
    fn no_more_is_given_than_somebody_writes() {
        let relay = Arc::new(Relay::default());
        let (saving, pieces) = Saving::below(&relay, 10 * PIECE_ROWS);
        let mut saving = Some(saving);
        let mut next = || Saving::give(&mut saving, Due::Next { ahead: 2 }, rows);
        assert_eq!([next(), next(), next()], [Step::Given, Step::Given, Step::Full]);
        drop(pieces);
        assert_eq!(next(), Step::Over);
        assert!(saving.is_none());
    }

    #[test]
    fn a_state_that_is_not_whole_says_so() {
        let part = |end: &dyn Fn(&Arc<Relay>, &mut Option<Saving>)| {
            let relay = Arc::new(Relay::default());
            let (saving, pieces) = Saving::below(&relay, 2 * PIECE_ROWS);
            let mut saving = Some(saving);
            Saving::give(&mut saving, Due::Next { ahead: 2 }, rows);
            end(&relay, &mut saving);
            all(&pieces).expect_err("half of it").to_string()
        };
        assert!(part(&|relay, _| relay.cancel()).contains("as a whole"));
        assert!(part(&|_, saving| *saving = None).contains("as a whole"));
        let failing = |_: &Arc<Relay>, saving: &mut Option<Saving>| {
            assert_eq!(Saving::give(saving, Due::Rest, |_| Err(Error::internal("too long"))), Step::Over);
        };
        assert!(part(&failing).contains("too long"));
    }
}
