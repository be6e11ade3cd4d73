//! The one loop of live and replay: records in log order into the engine, rows out to whoever takes them.

use crate::engine::trace::{Asked, Tracing};
use crate::engine::{Counters, Engine, EngineOptions, EngineState, OutputBatch, StateMemory};
use crate::env::thread::{Made, pipeline};
use crate::error::{Error, ErrorKind, Result};
use crate::log::records::{LogBatch, RecordColumns};
use crate::log::{Log, Reader};
use crate::state::spill::{Budget, Spill};
use crate::types::{AppendTime, Position, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::throttle::Throttle;
use super::{Job, parts};

/// Bytes handed to the engine at once, roughly.
const STRIDE_BYTES: usize = 4 << 20;

/// Strides that were read and that the engine has not done with, at most, where another thread reads.
const STRIDES_AHEAD: usize = 3;

/// Longest rest of a live run in microseconds: how late it may notice that it was asked to stop.
const REST_US_MAX: u64 = 50_000;

/// The same while the sink has more to do.
const REST_US_BUSY: u64 = 1_000;

/// Told how a run gets on, and asked whether it should stop.
pub trait Observer {
    /// After every stride: the next position to be read, the run's end if it has one, and the engine's counters.
    fn on_progress(&mut self, _position: Position, _end: Option<Position>, _counters: &Counters) {}
    /// After every stride, behind `on_progress`: the engine as it is then.
    fn on_stride(&mut self, _engine: &Engine) {}
    /// A live run has caught up with the log and rests; called at most once between two strides.
    fn on_idle(&mut self, _engine: &Engine) {}
    /// Something that the user should know: which checkpoint a run goes on from, or that one could not be written.
    fn on_note(&mut self, _note: &str) {}
    /// True ends the run at the next stride, without a flush.
    fn should_stop(&self) -> bool {
        false
    }
}

/// An observer that says nothing.
pub struct Silent;

impl Observer for Silent {}

/// Takes the engine's rows. `position` and `clock` say what has been processed when they came out.
pub(super) trait Sink {
    fn take(&mut self, rows: Vec<OutputBatch>, position: Position, clock: AppendTime) -> Result<()>;
    /// True when no more rows are wanted.
    fn is_done(&self) -> bool {
        false
    }
    /// Between two strides, when all rows were taken: the engine is at `at`. Gives what the user should know.
    fn between(&mut self, _engine: &mut Engine, _at: &At) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// Whether it has more to do between two strides and does not want to wait long for it.
    fn has_more(&self) -> bool {
        false
    }
}

/// A place in a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// Every source record before this position has been handed to the engine.
    pub position: Position,
    /// Append time up to which clock steps have been run.
    pub clock: AppendTime,
    /// The same without those that time alone has driven.
    pub records_clock: AppendTime,
    /// Bytes of records handed to the engine by this process.
    pub bytes: u64,
}

impl At {
    /// Where a checkpoint was taken.
    pub fn restored(position: u64, clock_us: i64, is_beyond_records: bool) -> At {
        let (position, clock) = (Position(position), AppendTime(clock_us));
        At { position, clock, records_clock: if is_beyond_records { AppendTime::MIN } else { clock }, bytes: 0 }
    }
}

/// A job's engine over the log, at some position.
pub(super) struct Drive<'a> {
    strides: Strides,
    /// Strides that were read and not handed to the engine.
    read: VecDeque<Stride>,
    /// With more than one the next strides are read while the engine works on one.
    threads: usize,
    work: Work<'a>,
}

/// The engine, and where it is.
struct Work<'a> {
    log: &'a Log,
    /// Topic of each source.
    topics: Vec<TopicId>,
    engine: Engine,
    at: At,
    strict: bool,
    throttle: Option<Throttle>,
}

/// Records of a stretch of the log, by source.
#[derive(Default)]
struct Stride {
    batches: Vec<(usize, LogBatch)>,
    /// Roughly.
    bytes: usize,
    /// Every source record before this position was read.
    position: Position,
}

impl Stride {
    /// Append time of the last record.
    fn clock(&self) -> AppendTime {
        self.batches.iter().fold(AppendTime::MIN, |clock, (_, batch)| clock.max(batch.last_append_time()))
    }
}

/// Reads the log stride by stride.
struct Strides {
    reader: Reader,
    /// Two tables may read one topic.
    sources: BTreeMap<TopicId, Vec<usize>>,
    starts: Vec<Position>,
    stride_bytes: usize,
    /// Records of the log that a stride spans, at most.
    stride_rows: Option<u64>,
    accept_loss: bool,
}

impl Strides {
    /// What comes next before `end`; without batches: nothing.
    fn next(&mut self, end: Position) -> Result<Stride> {
        let mut stride = Stride { position: self.reader.position(), ..Stride::default() };
        while !self.is_full(&stride) || stride.batches.is_empty() {
            let until = self.stride_rows.map_or(end, |rows| self.reader.position().plus(rows).min(end));
            let stretch = match self.reader.next_stretch(until) {
                Ok(stretch) => stretch,
                Err(e) if e.kind() == ErrorKind::Damage && self.accept_loss => {
                    self.reader.skip_damage();
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Damage => {
                    return Err(e.with_hint("run with --accept-loss to go on without these records"));
                }
                Err(e) => return Err(e),
            };
            stride.position = self.reader.position();
            let is_over = until == end || self.reader.position() < until || !stride.batches.is_empty();
            if stretch.is_empty() && is_over {
                break;
            }
            for batch in stretch {
                let Some(sources) = self.sources.get(&batch.topic) else {
                    return Err(Error::internal(format!("read topic {} that the job does not use", batch.topic)));
                };
                stride.bytes += batch.byte_len();
                for source in sources {
                    stride.batches.extend(batch.between(self.starts[*source], end).map(|batch| (*source, batch)));
                }
            }
        }
        Ok(stride)
    }

    fn is_full(&self, stride: &Stride) -> bool {
        stride.bytes >= self.stride_bytes || self.stride_rows.is_some() && !stride.batches.is_empty()
    }
}

/// How an engine begins.
#[derive(Clone, Copy)]
pub(super) enum Begin<'b> {
    /// At the start.
    Start,
    /// From a state.
    Restored(&'b EngineState, At),
    /// At the start or from a state, noting what makes the results that are asked for.
    Traced(&'b Asked, Option<(&'b EngineState, At)>),
}

impl<'b> Begin<'b> {
    fn state(self) -> Option<(&'b EngineState, At)> {
        match self {
            Begin::Start => None,
            Begin::Restored(state, at) => Some((state, at)),
            Begin::Traced(_, state) => state,
        }
    }
}

/// How a run treats what it computes.
#[derive(Debug, Clone)]
pub(super) struct DriveOptions {
    pub threads: usize,
    /// As [`STRIDE_BYTES`], which is the most.
    pub stride_bytes: u64,
    pub publish_from_ms: Option<i64>,
    pub strict: bool,
    pub accept_loss: bool,
    /// For state; `None`: one of its own, half of the machine's memory.
    pub budget: Option<Arc<Budget>>,
    /// Records a second, at most.
    pub rate_max: Option<u64>,
}

impl Default for DriveOptions {
    fn default() -> Self {
        DriveOptions {
            threads: 1,
            stride_bytes: STRIDE_BYTES as u64,
            publish_from_ms: None,
            strict: false,
            accept_loss: false,
            budget: None,
            rate_max: None,
        }
    }
}

/// Memory for the state of an engine over a log.
pub(super) fn state_memory(log: &Log, budget: Option<Arc<Budget>>) -> StateMemory {
    let budget = budget.unwrap_or_else(|| Budget::of_machine(log.env()));
    StateMemory { budget, spill: Spill::new(log.env(), &log.scratch_dir()) }
}

impl<'a> Drive<'a> {
    /// As it begins.
    pub(super) fn with(
        log: &'a Log,
        job: &Job,
        starts: &[u64],
        options: DriveOptions,
        begin: Begin<'_>,
    ) -> Result<Self> {
        let topics = job.source_topics(log)?;
        let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id()).collect();
        let partitions: Vec<u32> = topics.iter().map(|topic| topic.partitions()).collect();
        let restored = begin.state();
        let reached = restored.map_or(Position(0), |(_, at)| at.position);
        let starts: Vec<Position> = starts.iter().map(|start| Position(*start).max(reached)).collect();
        let first = starts.iter().copied().min().unwrap_or_default();
        let mut sources: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (source, id) in ids.iter().enumerate() {
            sources.entry(*id).or_default().push(source);
        }
        let memory = Some(state_memory(log, options.budget));
        let engine_options =
            EngineOptions { threads: options.threads.max(1), publish_from_ms: options.publish_from_ms, memory };
        let plan = Arc::clone(&job.plan);
        let throttle = options.rate_max.map(Throttle::new);
        let start = At { position: first, clock: AppendTime::MIN, records_clock: AppendTime::MIN, bytes: 0 };
        let at = restored.map_or(start, |(_, at)| at);
        let state = restored.map(|(state, _)| state);
        let engine = match (begin, state) {
            (Begin::Traced(asked, _), _) => Engine::traced(plan, &partitions, engine_options, asked, state)?,
            (_, Some(state)) => Engine::restore(plan, partitions, engine_options, state)?,
            (_, None) => Engine::new(plan, partitions, engine_options)?,
        };
        Ok(Drive {
            strides: Strides {
                reader: parts::reader(log, &ids, &job.plan.sources, first),
                sources,
                starts,
                stride_bytes: usize::try_from(options.stride_bytes).unwrap_or(STRIDE_BYTES).min(STRIDE_BYTES),
                stride_rows: throttle.as_ref().map(Throttle::stride_rows),
                accept_loss: options.accept_loss,
            },
            read: VecDeque::new(),
            threads: options.threads,
            work: Work { log, topics: ids, engine, at, strict: options.strict, throttle },
        })
    }

    /// The engine.
    pub(super) fn engine(&self) -> &Engine {
        &self.work.engine
    }

    /// The same, to be saved.
    pub(super) fn engine_mut(&mut self) -> &mut Engine {
        &mut self.work.engine
    }

    /// What a traced engine has noted.
    pub(super) fn take_trace(&mut self) -> Tracing {
        self.work.engine.take_trace()
    }

    /// Processes every record before `end`.
    pub(super) fn feed(
        &mut self,
        end: Position,
        run_end: Option<Position>,
        sink: &mut impl Sink,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut is_full = false;
        while !observer.should_stop() && !sink.is_done() {
            // A few records are handed over before another thread would have started.
            if self.threads > 1 && is_full && self.read.is_empty() {
                return self.feed_ahead(end, run_end, sink, observer);
            }
            let stride = match self.read.pop_front() {
                Some(stride) => stride,
                None => self.strides.next(end)?,
            };
            is_full = self.strides.is_full(&stride);
            let work = &mut self.work;
            work.engine.push_parts(stride.batches.clone(), &mut originals(work.log, &work.topics))?;
            work.done(&stride, run_end, sink, observer)?;
            if stride.batches.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The same, while other threads read.
    fn feed_ahead(
        &mut self,
        end: Position,
        run_end: Option<Position>,
        sink: &mut impl Sink,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (strides, work) = (&mut self.strides, &mut self.work);
        let reading = work.engine.reading();
        let mut is_over = false;
        let cut = |stride: &Stride| reading.cut(stride.batches.clone(), true);
        let read = || {
            (!is_over).then(|| {
                let stride = strides.next(end).and_then(|stride| Ok((cut(&stride)?, stride)));
                is_over = stride.as_ref().map_or(true, |(_, stride)| stride.batches.is_empty());
                stride.map_or_else(|error| (Vec::new(), Err(error)), |(pieces, stride)| (pieces, Ok(stride)))
            })
        };
        let (done, rest) = pipeline(
            self.threads,
            STRIDES_AHEAD,
            read,
            |piece| reading.read(piece),
            |made| {
                let taken = match made {
                    Made::Result(piece) => work.engine.take(piece).map(|()| true),
                    Made::End(stride) => stride.and_then(|stride| {
                        work.engine.end_stretch(stride.clock(), Some(&mut originals(work.log, &work.topics)))?;
                        work.done(&stride, run_end, sink, observer)?;
                        Ok(!stride.batches.is_empty() && !observer.should_stop() && !sink.is_done())
                    }),
                };
                match taken {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) => ControlFlow::Break(Ok(())),
                    Err(error) => ControlFlow::Break(Err(error)),
                }
            },
        );
        // What could not be read is found again by who reads on.
        self.read.extend(rest.into_iter().filter_map(Result::ok).filter(|stride| !stride.batches.is_empty()));
        done.unwrap_or(Ok(()))
    }

    /// Runs the clock steps due by `clock`.
    pub(super) fn advance(&mut self, clock: AppendTime, sink: &mut impl Sink) -> Result<()> {
        if clock > self.work.at.clock {
            self.work.at.clock = clock;
            self.work.engine.advance(clock)?;
            self.work.hand_over(sink)?;
        }
        Ok(())
    }

    /// Emits the open windows.
    pub(super) fn flush(&mut self, sink: &mut impl Sink) -> Result<()> {
        while self.work.engine.finish_part()? {
            self.work.hand_over(sink)?;
        }
        self.work.hand_over(sink)
    }

    /// Where it is.
    pub(super) fn at(&self) -> At {
        self.work.at
    }

    /// Follows the log until the observer wants to stop.
    pub(super) fn follow(&mut self, sink: &mut impl Sink, observer: &mut dyn Observer) -> Result<()> {
        while !observer.should_stop() {
            let reading = self.work.log.clock();
            self.feed(reading.position, None, sink, observer)?;
            if observer.should_stop() {
                break;
            }
            self.advance(reading.append_time, sink)?;
            self.work.pause(sink, observer)?;
            observer.on_idle(&self.work.engine);
            let rest_max = if sink.has_more() { REST_US_BUSY } else { REST_US_MAX };
            let rest = match self.work.engine.next_due() {
                Some(due) => {
                    u64::try_from(due.0.saturating_sub(reading.append_time.0)).unwrap_or(0).clamp(1_000, rest_max)
                }
                None => rest_max,
            };
            self.work.log.wait_beyond(reading.position, rest);
        }
        Ok(())
    }
}

/// Reads records of a source as they are in the log.
fn originals(log: &Log, topics: &[TopicId]) -> impl FnMut(usize, &[u64]) -> Result<RecordColumns> {
    |source, positions| parts::originals(log, topics[source], positions)
}

impl Work<'_> {
    /// The engine is done with a stride: what comes out of it goes to the sink.
    fn done(
        &mut self,
        stride: &Stride,
        run_end: Option<Position>,
        sink: &mut impl Sink,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.at.position = self.at.position.max(stride.position);
        self.at.bytes += stride.bytes as u64;
        if stride.batches.is_empty() {
            return Ok(());
        }
        let clock = self.at.clock.max(stride.clock());
        (self.at.clock, self.at.records_clock) = (clock, clock);
        self.hand_over(sink)?;
        let counters = self.engine.counters();
        if let Some(throttle) = &mut self.throttle {
            throttle.wait(self.log, counters.rows_in, || observer.should_stop());
        }
        observer.on_progress(self.at.position, run_end, &counters);
        observer.on_stride(&self.engine);
        self.pause(sink, observer)
    }

    fn pause(&mut self, sink: &mut impl Sink, observer: &mut dyn Observer) -> Result<()> {
        sink.between(&mut self.engine, &self.at)?.iter().for_each(|note| observer.on_note(note));
        Ok(())
    }

    fn hand_over(&mut self, sink: &mut impl Sink) -> Result<()> {
        let rows = self.engine.drain();
        let rejected = self.engine.counters().rejected;
        if !rows.is_empty() {
            sink.take(rows, self.at.position, self.at.clock)?;
        }
        if self.strict && rejected > 0 {
            return Err(Error::new(
                ErrorKind::Difference,
                format!("{rejected} rows were rejected and --strict is set"),
            )
            .with_hint("the reasons are in the headers of the output's .rejected topic"));
        }
        Ok(())
    }
}
