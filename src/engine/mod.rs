//! The data flow: source columns in log order, stateless steps, windows, outputs.

mod chunk;
mod counters;
mod eval;
pub mod fit;
pub mod functions;
mod image;
mod lane;
mod operators;
mod output;
mod pipeline;
pub mod plan;
mod reading;
mod reread;
mod segment;
mod sink;
mod source;
mod stage;
#[cfg(test)]
mod tests;
pub mod trace;

pub use counters::Counters;
pub use image::EngineState;
pub use reading::{Piece, ReadPiece, Reading};
pub use reread::{RowReader, SeenRow};

use crate::env::thread::{Made, pipeline};
use crate::error::{Error, Result};
use crate::format::{self, Decoder, Encoder, FormatSpec};
use crate::log::records::{LogBatch, RecordColumns};
use crate::state::spill::{Budget, Share, Spill};
use crate::types::AppendTime;
use arrow::datatypes::SchemaRef;
use lane::Lane;
use output::Outputs;
use pipeline::Emit;
use plan::JobPlan;
use std::ops::ControlFlow;
use std::sync::Arc;
use trace::{Asked, Tracing};

/// How an engine runs; nothing here can change an output byte.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Threads to use at most, at least 1.
    pub threads: usize,
    /// Only windows (rows, without a window) that start at this event time in ms or later are given out.
    pub publish_from_ms: Option<i64>,
    /// How much memory state may take; `None`: as much as there is.
    pub memory: Option<StateMemory>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { threads: 1, publish_from_ms: None, memory: None }
    }
}

/// A budget of state, and where what is beyond it goes. Ranked rows count, and stay.
#[derive(Debug, Clone)]
pub struct StateMemory {
    /// The budget, which engines may share.
    pub budget: Arc<Budget>,
    /// Takes what is beyond.
    pub spill: Arc<Spill>,
}

/// Which of the three topics of an output a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutputStream {
    /// The output itself.
    Main,
    /// `<output>.late`.
    Late,
    /// `<output>.rejected`.
    Rejected,
}

/// Records for one topic, in output order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputBatch {
    /// Index into [`JobPlan::outputs`].
    pub output: usize,
    /// Which of its topics.
    pub stream: OutputStream,
    /// The records.
    pub records: RecordColumns,
}

/// Reads the records of a source at some positions, ascending: one row for each, with its key, value and headers.
pub type Originals<'a> = &'a mut dyn FnMut(usize, &[u64]) -> Result<RecordColumns>;

/// A partition that is active, silent, and holds back windows that could close without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Index into [`JobPlan::sources`].
    pub source: usize,
    /// The partition.
    pub partition: u32,
    /// Append time of its newest record.
    pub last_append: AppendTime,
    /// Its watermark in ms; `None`: no record has moved it yet.
    pub watermark_ms: Option<i64>,
}

/// Where decoders and encoders come from.
#[derive(Clone, Copy)]
struct Codecs {
    decoder: DecoderOf,
    encoder: EncoderOf,
}

type DecoderOf = fn(&FormatSpec, &SchemaRef, &[usize]) -> Result<Box<dyn Decoder>>;
type EncoderOf = fn(&FormatSpec, &SchemaRef) -> Result<Box<dyn Encoder>>;

const CODECS: Codecs = Codecs { decoder: format::decoder, encoder: format::encoder };

/// Reads the rowtimes of one source's records, as its jobs see them.
pub struct Rowtimes {
    reader: source::Reader,
    column: usize,
}

impl Rowtimes {
    /// For a source that declares a watermark.
    pub fn new(source: &plan::SourcePlan) -> Result<Rowtimes> {
        let column = source.event_time.as_ref().map(|event_time| event_time.rowtime);
        let column = column.ok_or_else(|| Error::internal("a source without rowtime"))?;
        Ok(Rowtimes { reader: source::Reader::new(source, CODECS)?, column })
    }

    /// Row of the batch and rowtime in ms of each record that decodes and has one.
    pub fn of(&self, batch: &LogBatch) -> Result<Vec<(u32, i64)>> {
        Ok(self.with_watermarks(batch)?.into_iter().map(|(row, rowtime, _)| (row, rowtime)).collect())
    }

    /// The same with the watermark in ms that the record moves its partition to; [`BEFORE_ALL`](crate::time::watermark::BEFORE_ALL) if
    /// it moves nothing.
    pub fn with_watermarks(&self, batch: &LogBatch) -> Result<Vec<(u32, i64, i64)>> {
        let (mut found, mut first) = (Vec::new(), 0);
        for chunk in chunk::chunks(vec![batch.clone()], true)? {
            let rows = self.reader.read(chunk)?;
            let times = rows.rowtimes(self.column)?.into_iter().zip(&rows.watermarks);
            found.extend(times.map(|((row, rowtime), watermark)| (row + first, rowtime, *watermark)));
            first += u32::try_from(rows.chunk.len()).map_err(|_| Error::internal("a batch of 4 billion records"))?;
        }
        Ok(found)
    }
}

/// Runs a job plan over records in position order: a pure function from records and clock readings to output records.
///
/// Each source is a lane of its own (watermark, clock, pipelines). Lanes meet only in the outputs, where records are put into
/// one order by what caused them, so a lane works through its batches of one call without looking at the others.
pub struct Engine {
    plan: Arc<JobPlan>,
    threads: usize,
    lanes: Vec<Lane>,
    outputs: Outputs,
    counters: Counters,
    /// The largest append time seen, or clock given.
    clock: AppendTime,
    is_ending: bool,
    /// Pipelines of one output end in the order of the plan.
    ends_in_order: bool,
    publish_from_ms: i64,
    memory: Option<(Share, Arc<Spill>)>,
}

impl Engine {
    /// An engine at the start of its input. `partitions_of_source` holds, for each source of the plan, the number of
    /// partitions of its topic. Plans with types or sizes that no operator can work on are refused.
    pub fn new(plan: Arc<JobPlan>, partitions_of_source: Vec<u32>, options: EngineOptions) -> Result<Engine> {
        Engine::with_codecs(plan, &partitions_of_source, options, CODECS, None)
    }

    /// An engine that notes what makes the results that are asked for, beside computing them: at the start of its input, or from a state, of
    /// which it knows that it had a part in a result.
    pub fn traced(
        plan: Arc<JobPlan>,
        partitions_of_source: &[u32],
        options: EngineOptions,
        asked: &Asked,
        state: Option<&EngineState>,
    ) -> Result<Engine> {
        let engine = Engine::with_codecs(plan, partitions_of_source, options, CODECS, Some(asked))?;
        match state {
            Some(state) => engine.loaded(state),
            None => Ok(engine),
        }
    }

    fn with_codecs(
        plan: Arc<JobPlan>,
        partitions_of_source: &[u32],
        options: EngineOptions,
        codecs: Codecs,
        asked: Option<&Asked>,
    ) -> Result<Engine> {
        if partitions_of_source.len() != plan.sources.len() {
            return Err(Error::internal("the number of partitions is needed for each source"));
        }
        let lanes = partitions_of_source.iter().enumerate();
        let lanes = lanes.map(|(source, partitions)| Lane::new(&plan, source, *partitions, codecs, asked));
        Ok(Engine {
            threads: options.threads.max(1),
            lanes: lanes.collect::<Result<_>>()?,
            outputs: Outputs::new(&plan.outputs),
            counters: Counters::default(),
            clock: AppendTime::MIN,
            is_ending: false,
            ends_in_order: plan.pipelines.is_sorted_by_key(|pipeline| pipeline.source),
            publish_from_ms: options.publish_from_ms.unwrap_or(i64::MIN),
            memory: options.memory.map(|memory| (Share::new(memory.budget), memory.spill)),
            plan,
        })
    }

    /// Takes all records of a stretch of positions, each batch with its source index; the batches of one source are in position
    /// order. How stretches and batches are cut does not show in the output. Clock steps due at or before a record's append
    /// time run before it.
    pub fn push(&mut self, batches: Vec<(usize, LogBatch)>) -> Result<()> {
        self.push_any(batches, None)
    }

    /// [`push`](Self::push) of batches that hold only what their sources use. Late and rejected records go to their outputs as they
    /// are in the log: `originals` reads those of a source at some positions, ascending.
    pub fn push_parts(&mut self, batches: Vec<(usize, LogBatch)>, originals: Originals<'_>) -> Result<()> {
        self.push_any(batches, Some(originals))
    }

    fn push_any(&mut self, batches: Vec<(usize, LogBatch)>, originals: Option<Originals<'_>>) -> Result<()> {
        let clock = batches.iter().fold(AppendTime::MIN, |clock, (_, batch)| clock.max(batch.last_append_time()));
        let reading = self.reading();
        let mut stretch = Some((reading.cut(batches, originals.is_some())?, ()));
        let (failed, _) = pipeline(
            self.threads,
            1,
            || stretch.take(),
            |piece| reading.read(piece),
            |made| {
                let taken = if let Made::Result(rows) = made { self.take(rows) } else { Ok(()) };
                taken.map_or_else(ControlFlow::Break, ControlFlow::Continue)
            },
        );
        failed.map_or(Ok(()), Err)?;
        self.end_stretch(clock, originals)
    }

    /// What reads records for [`take`](Self::take).
    pub fn reading(&self) -> Reading {
        Reading::new(self.lanes.iter().map(Lane::reader).collect())
    }

    /// Takes a piece of a stretch of positions. All pieces of a stretch are taken in their order; then [it ends](Self::end_stretch).
    pub fn take(&mut self, ReadPiece { source, rows }: ReadPiece) -> Result<()> {
        self.check_open()?;
        let publish_from_ms = self.publish_from_ms;
        let mut emit = Emit { outputs: &mut self.outputs, counters: &mut self.counters, publish_from_ms };
        self.lanes[source].take(&rows?, &mut emit)?;
        self.keep_to_budget()
    }

    /// Says that all of a stretch was taken, whose last record has this append time. `originals` as for [`push_parts`](Self::push_parts).
    pub fn end_stretch(&mut self, clock: AppendTime, originals: Option<Originals<'_>>) -> Result<()> {
        if let Some(originals) = originals {
            self.outputs.fill(originals)?;
        }
        self.advance(clock)
    }

    /// Writes state out until half of the budget is free, if there is more of it than that. The largest operators come first; it is
    /// not worth their while for a small part of the budget.
    fn keep_to_budget(&mut self) -> Result<()> {
        let mut held = self.state_byte_len();
        let Some((share, spill)) = &mut self.memory else { return Ok(()) };
        let Some(goal) = share.hold(held) else { return Ok(()) };
        let mut operators: Vec<_> = self.lanes.iter_mut().flat_map(Lane::operators_mut).collect();
        operators.sort_by_key(|operator| std::cmp::Reverse(operator.byte_len()));
        for operator in operators {
            let before = operator.byte_len();
            if held <= goal {
                break;
            }
            operator.spill(spill, held - goal, share.least())?;
            held -= before.saturating_sub(operator.byte_len());
        }
        share.hold(held);
        Ok(())
    }

    /// Says that every record still to come has append time >= `clock`: runs all clock steps due at or before it, each at its exact
    /// due time, in order.
    pub fn advance(&mut self, clock: AppendTime) -> Result<()> {
        self.check_open()?;
        self.clock = self.clock.max(clock);
        let publish_from_ms = self.publish_from_ms;
        let mut emit = Emit { outputs: &mut self.outputs, counters: &mut self.counters, publish_from_ms };
        for lane in &mut self.lanes {
            lane.step_to(self.clock, &mut emit)?;
        }
        self.outputs.settle();
        Ok(())
    }

    /// Ends the input as Flink does for bounded input: the watermark goes to the end of time, open windows are emitted.
    pub fn finish(&mut self) -> Result<()> {
        self.check_open()?;
        while self.finish_part()? {}
        Ok(())
    }

    /// The same piece by piece: false when that was all. What has come out may be [drained](Self::drain) in between.
    pub fn finish_part(&mut self) -> Result<bool> {
        self.is_ending = true;
        let publish_from_ms = self.publish_from_ms;
        let mut emit = Emit { outputs: &mut self.outputs, counters: &mut self.counters, publish_from_ms };
        let mut more = false;
        for lane in &mut self.lanes {
            more = lane.finish(&mut emit)?;
            if more {
                break;
            }
        }
        // Pipelines end one after the other, those of a source together: that is the order of each output, or all has to be there.
        if !more || self.ends_in_order {
            self.outputs.settle();
        }
        Ok(more)
    }

    fn check_open(&self) -> Result<()> {
        match self.is_ending {
            true => Err(Error::internal("the input of this engine has ended")),
            false => Ok(()),
        }
    }

    /// The output since the last call. The order of records within one (output, stream) is the output order; it may be cut
    /// anywhere.
    pub fn drain(&mut self) -> Vec<OutputBatch> {
        self.outputs.drain()
    }

    /// When the next clock step is due, if no record comes before; `None`: only a record can change anything.
    pub fn next_due(&self) -> Option<AppendTime> {
        self.lanes.iter().filter_map(Lane::next_due).min()
    }

    /// What a [traced](Self::traced) engine has seen since the last call.
    pub fn take_trace(&mut self) -> Tracing {
        let mut all = Tracing::default();
        self.lanes.iter_mut().flat_map(Lane::take_traces).for_each(|seen| all.add(seen));
        all
    }

    /// What was read and written so far.
    pub fn counters(&self) -> Counters {
        Counters {
            rows_out: self.outputs.counts(OutputStream::Main),
            late: self.outputs.counts(OutputStream::Late).iter().sum::<u64>().saturating_sub(self.counters.partly_late),
            rejected: self.outputs.counts(OutputStream::Rejected).iter().sum(),
            ..self.counters.clone()
        }
    }

    /// Bytes of window state held, roughly (without the allocator's own).
    pub fn state_byte_len(&self) -> usize {
        self.lanes.iter().map(Lane::byte_len).sum()
    }

    /// Bytes of state that were written out because they were beyond the budget.
    pub fn spilled_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |(_, spill)| spill.bytes())
    }

    /// The watermark that a pipeline has reached, in ms; `None`: none yet.
    pub fn watermark(&self, pipeline: usize) -> Option<i64> {
        let source = self.plan.pipelines.get(pipeline)?.source;
        self.lanes.get(source)?.watermark()
    }

    /// Active partitions without a record since `silent_since` that hold back windows which could close without them.
    pub fn holding_partitions(&self, silent_since: AppendTime) -> Vec<Holding> {
        self.lanes.iter().flat_map(|lane| lane.holding(silent_since)).collect()
    }
}
