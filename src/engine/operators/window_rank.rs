//! The first rows of each window and partition by an order. Rows wait until the watermark closes their window; of each partition no more
//! than can come out are kept. They are kept as bytes that compare as the order says.

use super::{Course, Fired, WindowOperator, WindowRows, arrow_error};
use crate::engine::output::Firing;
use crate::engine::plan::RankPlan;
use crate::engine::source::batch;
use crate::error::{Error, Result};
use crate::state::dictionary::Dictionary;
use crate::state::keys::KeyCodec;
use crate::state::saving::{Relay, Step};
use crate::state::section::{PIECE_ROWS, Section};
use crate::window::Window;
use crate::window::clock::WindowClock;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows to be ranked: what they are ordered by, and all their columns.
pub(in crate::engine) struct Ranked {
    /// By row.
    pub order: arrow::row::Rows,
    /// The incoming row.
    pub columns: Vec<ArrayRef>,
}

#[derive(Clone)]
struct Kept {
    order: OwnedRow,
    row: OwnedRow,
}

/// The first rows of open windows: by window's end and start, then by key.
pub(in crate::engine) struct RankWindows {
    plan: RankPlan,
    clock: WindowClock,
    keys: Dictionary,
    converter: Arc<RowConverter>,
    windows: BTreeMap<(i64, i64), Ranking>,
    bytes: usize,
    /// Counts changes.
    version: u64,
    /// The incoming row.
    row: SchemaRef,
}

/// The first rows of one window, by key.
#[derive(Default)]
struct Ranking {
    /// Shared with who saves it, until it changes.
    kept: Arc<HashMap<u32, Vec<Kept>>>,
    version: u64,
}

/// Name of the section of one window's rows.
pub(in crate::engine) const RANKED: &str = "window";

/// The incoming row.
pub(in crate::engine) fn row_of(plan: &RankPlan) -> SchemaRef {
    let width = plan.schema.fields().len() - usize::from(plan.number);
    Arc::new(Schema::new(plan.schema.fields().iter().take(width).cloned().collect::<Vec<_>>()))
}

impl RankWindows {
    pub fn new(plan: &RankPlan, codec: &KeyCodec) -> Result<RankWindows> {
        let row = row_of(plan);
        let fields = row.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect())
            .map_err(|e| Error::input(format!("rows with these columns cannot be ranked: {e}")))?;
        Ok(RankWindows {
            clock: WindowClock { zone: plan.zone },
            keys: Dictionary::new(codec),
            converter: Arc::new(converter),
            windows: BTreeMap::new(),
            bytes: 0,
            version: 0,
            row,
            plan: plan.clone(),
        })
    }

    /// Puts a row into its place among those of its partition, if it is among the first.
    fn add(&mut self, window: Window, key: u32, order: arrow::row::Row<'_>, row: arrow::row::Row<'_>) {
        let limit = usize::try_from(self.plan.limit).unwrap_or(usize::MAX);
        let ranking = self.windows.entry((window.end, window.start)).or_default();
        self.version += 1;
        ranking.version = self.version;
        let list = Arc::make_mut(&mut ranking.kept).entry(key).or_insert_with(|| {
            self.keys.hold(key);
            Vec::new()
        });
        let place = match self.plan.last_wins {
            true => list.partition_point(|kept| kept.order.row() < order),
            false => list.partition_point(|kept| kept.order.row() <= order),
        };
        if place >= limit {
            return;
        }
        let size = |kept: &Kept| kept.order.as_ref().len() + kept.row.as_ref().len() + size_of::<Kept>();
        let kept = Kept { order: order.owned(), row: row.owned() };
        self.bytes += size(&kept);
        list.insert(place, kept);
        if list.len() > limit {
            self.bytes -= list.pop().map_or(0, |kept| size(&kept));
        }
    }

    fn emit(&mut self, window: Window, by: (crate::engine::output::Cause, i64), fired: &mut Fired) -> Result<()> {
        let Some(ranking) = self.windows.remove(&(window.end, window.start)) else { return Ok(()) };
        let mut partitions: Vec<(u32, Vec<Kept>)> = Arc::unwrap_or_clone(ranking.kept).into_iter().collect();
        self.keys.sort_by_key(&mut partitions, |(key, _)| *key);
        let (mut rows, mut numbers) = (Vec::new(), Vec::new());
        for (key, list) in partitions {
            for (number, kept) in (1..).zip(list) {
                self.bytes -= kept.order.as_ref().len() + kept.row.as_ref().len() + size_of::<Kept>();
                if number >= self.plan.from {
                    rows.push(kept.row);
                    numbers.push(i64::try_from(number).unwrap_or(i64::MAX));
                }
            }
            self.keys.release(key);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.converter.convert_rows(rows.iter().map(OwnedRow::row));
        let mut columns = columns.map_err(|e| arrow_error("ranked rows", e))?;
        if self.plan.number {
            columns.push(Arc::new(Int64Array::from(numbers)));
        }
        fired.window(window, by, &vec![Firing::ONLY; rows.len()], columns);
        Ok(())
    }
}

impl WindowOperator for RankWindows {
    fn take(&mut self, rows: &WindowRows, picked: &[u32], _: &Course<'_>, fired: &mut Fired) -> Result<()> {
        let Some(ranked) = &rows.ranked else { return Err(Error::internal("rows to be ranked without an order")) };
        let whole = self.converter.convert_columns(&ranked.columns).map_err(|e| arrow_error("rows to be ranked", e))?;
        let is_late = |row: usize| rows.windows[row].end <= self.clock.horizon(rows.before[row]);
        let (late, taken): (Vec<u32>, Vec<u32>) = picked.iter().partition(|row| is_late(**row as usize));
        fired.late.extend(late);
        let mut keys = Vec::with_capacity(taken.len());
        self.keys.intern(&rows.keys, &taken, &mut keys);
        for (row, key) in taken.into_iter().zip(keys) {
            let row = row as usize;
            self.add(rows.windows[row], key, ranked.order.row(row), whole.row(row));
        }
        Ok(())
    }

    fn close(&mut self, watermark: i64, course: &Course<'_>, fired: &mut Fired) -> Result<bool> {
        let Some((end, start)) = self.windows.first_key_value().map(|(place, _)| *place) else { return Ok(false) };
        if end > self.clock.horizon(watermark) {
            return Ok(false);
        }
        self.emit(Window { start, end }, (course.reached)(self.clock.goal(end)), fired)?;
        fired.closed += 1;
        Ok(true)
    }

    fn next_goal(&self) -> Option<i64> {
        self.windows.first_key_value().map(|((end, _), _)| self.clock.goal(*end))
    }

    fn windows_of(&self, rows: &WindowRows, row: usize) -> Vec<Window> {
        vec![rows.windows[row]]
    }

    fn byte_len(&self) -> usize {
        let partitions = self.windows.values().map(|ranking| ranking.kept.capacity() * 40);
        self.keys.byte_len() + self.bytes + partitions.sum::<usize>()
    }

    /// Rows as they came in, to be taken once more: equal ones in the order in which they came.
    fn save(&mut self, _: &Arc<Relay>) -> Result<Vec<Section>> {
        let sections = self.windows.iter().map(|((end, start), ranking)| {
            let (kept, converter, schema) =
                (Arc::clone(&ranking.kept), Arc::clone(&self.converter), Arc::clone(&self.row));
            let last_wins = self.plan.last_wins;
            let name = format!("{RANKED}/{start}..{end}");
            Section::lazy(name, Arc::clone(&self.row), Some(ranking.version), move |take| {
                let each = |list: &'_ Vec<Kept>| -> Vec<usize> {
                    if last_wins { (0..list.len()).rev().collect() } else { (0..list.len()).collect() }
                };
                let rows: Vec<&OwnedRow> =
                    kept.values().flat_map(|list| each(list).into_iter().map(move |at| &list[at].row)).collect();
                for rows in rows.chunks(PIECE_ROWS) {
                    let columns = converter.convert_rows(rows.iter().map(|row| row.row()));
                    take(batch(&schema, columns.map_err(|e| arrow_error("ranked rows", e))?, rows.len())?)?;
                }
                Ok(())
            })
        });
        Ok(sections.collect())
    }

    fn save_next(&mut self, _: usize) -> Step {
        Step::Over
    }

    fn load(&mut self, name: &str, _: &RecordBatch) -> Result<()> {
        Err(Error::internal(format!("the ranked rows of {name} are taken, not loaded")))
    }
}
