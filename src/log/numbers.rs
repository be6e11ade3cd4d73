//! Columns of numbers that follow a rule: positions, offsets and append times come in long runs. A column of runs gives single rows from
//! them, and is written out number by number only when somebody asks for all.

use arrow::buffer::ScalarBuffer;
use arrow::datatypes::ArrowNativeType;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

/// What [`Numbers`] are made of.
pub trait Number: ArrowNativeType {
    /// So many more; runs that are written down never reach the end.
    #[must_use]
    fn plus(self, more: usize) -> Self;
}

impl Number for u64 {
    fn plus(self, more: usize) -> u64 {
        self.wrapping_add(more as u64)
    }
}

impl Number for i64 {
    fn plus(self, more: usize) -> i64 {
        self.wrapping_add(more as i64)
    }
}

/// A column of numbers, one by one or as runs. It is a slice of them, which runs are written out for when it is first looked at as one;
/// its own methods do without.
#[derive(Debug, Clone)]
pub struct Numbers<T: Number> {
    runs: Option<Runs<T>>,
    rows: usize,
    written: OnceLock<ScalarBuffer<T>>,
}

/// Some rows of a column of runs.
#[derive(Debug, Clone)]
struct Runs<T> {
    /// The row of the whole column that each begins with, and its number there. The first begins with row 0.
    all: Arc<[(usize, T)]>,
    /// Within a run each number is one more than that before it; else they are equal.
    rising: bool,
    /// First row.
    from: usize,
    /// The runs that these rows are of: no others are searched.
    within: Range<usize>,
}

impl<T: Number> Runs<T> {
    /// The number of a row of the whole column in the run with this index.
    fn number(&self, run: usize, row: usize) -> T {
        let (begin, first) = self.all[run];
        if self.rising { first.plus(row - begin) } else { first }
    }

    fn run_of(&self, row: usize) -> usize {
        self.within.start + self.all[self.within.clone()].partition_point(|(begin, _)| *begin <= row) - 1
    }

    /// So many rows from `from` on.
    fn slice(&self, from: usize, rows: usize) -> Runs<T> {
        let from = self.from + from;
        let within = if rows == 0 { 0..0 } else { self.run_of(from)..self.run_of(from + rows - 1) + 1 };
        Runs { from, within, ..self.clone() }
    }

    /// The runs of so many rows: first row of the whole column, first number, how many.
    fn pieces(&self, rows: usize) -> impl Iterator<Item = (T, usize)> + '_ {
        let end = self.from + rows;
        let (mut row, mut run) = (self.from, if rows == 0 { 0 } else { self.run_of(self.from) });
        std::iter::from_fn(move || {
            if row >= end {
                return None;
            }
            let next = self.all.get(run + 1).map_or(end, |(begin, _)| end.min(*begin));
            let piece = (self.number(run, row), next - row);
            (row, run) = (next, run + 1);
            Some(piece)
        })
    }

    fn write(&self, rows: usize) -> ScalarBuffer<T> {
        let mut out = Vec::with_capacity(rows);
        for (first, count) in self.pieces(rows) {
            match self.rising {
                true => out.extend((0..count).map(|more| first.plus(more))),
                false => out.resize(out.len() + count, first),
            }
        }
        out.into()
    }
}

impl<T: Number> Numbers<T> {
    /// Runs of equal numbers: each number, and how many rows it has.
    pub fn equal(runs: impl IntoIterator<Item = (T, usize)>) -> Numbers<T> {
        Numbers::of_runs(runs, false)
    }

    /// Runs of consecutive numbers: the first of each, and how many rows it has.
    pub fn rising(runs: impl IntoIterator<Item = (T, usize)>) -> Numbers<T> {
        Numbers::of_runs(runs, true)
    }

    fn of_runs(runs: impl IntoIterator<Item = (T, usize)>, rising: bool) -> Numbers<T> {
        let mut rows = 0;
        let runs = runs.into_iter().filter(|(_, count)| *count > 0).map(|(first, count)| {
            rows += count;
            (rows - count, first)
        });
        let all: Arc<[_]> = runs.collect();
        let within = 0..all.len();
        Numbers { runs: Some(Runs { all, rising, from: 0, within }), rows, written: OnceLock::new() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The number of a row, looked up: who goes through all rows takes the slice. Panics if there is no such row.
    pub fn at(&self, row: usize) -> T {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        match (&self.runs, self.written.get()) {
            (Some(runs), None) => runs.number(runs.run_of(runs.from + row), runs.from + row),
            _ => self[row],
        }
    }

    /// The number of the first row.
    pub fn first(&self) -> Option<T> {
        (self.rows > 0).then(|| self.at(0))
    }

    /// The number of the last row.
    pub fn last(&self) -> Option<T> {
        self.rows.checked_sub(1).map(|row| self.at(row))
    }

    /// How many rows come before the first one for which `before` does not hold; it holds for none behind that.
    pub fn partition_point(&self, before: impl Fn(T) -> bool) -> usize {
        let (mut from, mut to) = (0, self.rows);
        while from < to {
            let middle = from.midpoint(to);
            if before(self.at(middle)) { from = middle + 1 } else { to = middle }
        }
        from
    }

    /// So many rows from `from` on, which share what is known of them.
    #[must_use]
    pub fn slice(&self, from: usize, rows: usize) -> Numbers<T> {
        assert!(from + rows <= self.rows, "rows {from} to {} of {}", from + rows, self.rows);
        match (&self.runs, self.written.get()) {
            (Some(runs), None) => Numbers { runs: Some(runs.slice(from, rows)), rows, written: OnceLock::new() },
            _ => self.deref().slice(from, rows).into(),
        }
    }

    /// One column behind the other; a single one is shared.
    pub fn concat<'a>(columns: impl Iterator<Item = &'a Numbers<T>> + Clone) -> Numbers<T>
    where
        T: 'a,
    {
        let mut rest = columns.clone();
        if let (Some(only), None) = (rest.next(), rest.next()) {
            return only.clone();
        }
        let in_runs = columns.clone().map(|column| Some((column.runs.as_ref()?, column.rows)));
        match in_runs.collect::<Option<Vec<_>>>() {
            Some(parts) if parts.windows(2).all(|pair| pair[0].0.rising == pair[1].0.rising) => {
                let rising = parts.first().is_some_and(|(runs, _)| runs.rising);
                Numbers::of_runs(parts.into_iter().flat_map(|(runs, rows)| runs.pieces(rows)), rising)
            }
            _ => {
                let mut all = Vec::with_capacity(columns.clone().map(Numbers::len).sum());
                columns.for_each(|column| all.extend_from_slice(column));
                all.into()
            }
        }
    }
}

impl Numbers<u64> {
    /// The rows with this number.
    pub fn rows_of(&self, number: u64) -> impl Iterator<Item = usize> + '_ {
        let (runs, plain) = match (&self.runs, self.written.get()) {
            (Some(runs), None) => (Some(runs), &[][..]),
            _ => (None, &self[..]),
        };
        let rising = runs.is_some_and(|runs| runs.rising);
        let mut row = 0;
        let in_runs = runs.into_iter().flat_map(|runs| runs.pieces(self.rows)).flat_map(move |(first, count)| {
            let begin = row;
            row += count;
            let within = match number.checked_sub(first) {
                Some(more) if rising && more < count as u64 => more as usize..more as usize + 1,
                Some(0) if !rising => 0..count,
                _ => 0..0,
            };
            within.map(move |more| begin + more)
        });
        in_runs.chain(plain.iter().enumerate().filter(move |(_, n)| **n == number).map(|(row, _)| row))
    }
}

impl<T: Number> Deref for Numbers<T> {
    type Target = ScalarBuffer<T>;

    fn deref(&self) -> &ScalarBuffer<T> {
        self.written.get_or_init(|| self.runs.as_ref().map_or_else(|| Vec::new().into(), |runs| runs.write(self.rows)))
    }
}

impl<T: Number> From<ScalarBuffer<T>> for Numbers<T> {
    fn from(numbers: ScalarBuffer<T>) -> Numbers<T> {
        Numbers { runs: None, rows: numbers.len(), written: OnceLock::from(numbers) }
    }
}

impl<T: Number> From<Vec<T>> for Numbers<T> {
    fn from(numbers: Vec<T>) -> Numbers<T> {
        ScalarBuffer::from(numbers).into()
    }
}

impl<T: Number> FromIterator<T> for Numbers<T> {
    fn from_iter<I: IntoIterator<Item = T>>(numbers: I) -> Numbers<T> {
        numbers.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: Number> PartialEq for Numbers<T> {
    fn eq(&self, other: &Numbers<T>) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(runs: &Numbers<u64>, plain: &[u64]) {
        let fresh = || runs.clone();
        assert_eq!((fresh().len(), fresh().is_empty()), (plain.len(), plain.is_empty()));
        assert_eq!((fresh().first(), fresh().last()), (plain.first().copied(), plain.last().copied()));
        assert!((0..plain.len()).all(|row| fresh().at(row) == plain[row]));
        for number in 0..60 {
            let rows = (0..plain.len()).filter(|row| plain[*row] == number);
            assert!(fresh().rows_of(number).eq(rows), "{number}");
        }
        assert_eq!(&fresh()[..], plain);
    }

    proptest! {
        #[test]
        fn runs_are_the_numbers_that_they_stand_for(
            parts in prop::collection::vec((prop::collection::vec((0u64..50, 0usize..6), 0..6), any::<bool>()), 1..4),
            rising in any::<bool>(),
            cut in any::<[prop::sample::Index; 2]>(),
            wanted in 0u64..60,
        ) {
            let number = |first: u64, more: usize| if rising { first + more as u64 } else { first };
            let plain = |runs: &[(u64, usize)]| -> Vec<u64> {
                runs.iter().flat_map(|(first, count)| (0..*count).map(|more| number(*first, more))).collect()
            };
            let (mut columns, mut all) = (Vec::new(), Vec::new());
            for (runs, in_runs) in parts {
                let numbers = plain(&runs);
                columns.push(match (in_runs, rising) {
                    (false, _) => numbers.clone().into(),
                    (true, true) => Numbers::rising(runs),
                    (true, false) => Numbers::equal(runs),
                });
                same(columns.last().expect("pushed"), &numbers);
                all.extend(numbers);
            }
            let joined = Numbers::concat(columns.iter());
            same(&joined, &all);
            let (a, b) = (cut[0].index(all.len() + 1), cut[1].index(all.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let slice = joined.slice(from, to - from);
            same(&slice, &all[from..to]);
            same(&slice.slice((to - from) / 2, (to - from) / 2), &all[from..to][(to - from) / 2..][..(to - from) / 2]);
            let sorted = Numbers::rising([(3, 20), (30, 10)]);
            prop_assert_eq!(sorted.partition_point(|number| number < wanted), sorted.iter().filter(|n| **n < wanted).count());
        }
    }
}
