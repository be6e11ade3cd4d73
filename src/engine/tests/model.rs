//! A naive model of windows over the append clock, in ticks of one millisecond, and the engine held against it.

use super::*;
use crate::codec::xxh64;
use crate::window::Window;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A row as the model sees it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub append_ms: i64,
    pub partition: u32,
    pub key: String,
    pub time: i64,
    pub amount: i64,
}

impl Row {
    pub fn event(&self) -> Event {
        event(self.append_ms, self.partition, &self.key, self.time, self.amount)
    }
}

/// Windows of one pipeline of the model that are open: members by window and key.
struct Open {
    kind: WindowKind,
    windows: Vec<(Window, String, Vec<usize>)>,
}

impl Open {
    fn windows_of(&self, time: i64) -> Vec<Window> {
        match self.kind {
            WindowKind::Session { gap_ms } => vec![Window { start: time, end: time + gap_ms }],
            kind => windows_by_definition(kind, time),
        }
    }

    /// How many windows the row entered, and those that it came too late for.
    fn add(&mut self, index: usize, row: &Row, watermark: i64) -> (u64, Vec<Window>) {
        let (mut entered, mut missed) = (0, Vec::new());
        for alone in self.windows_of(row.time) {
            let (mut window, mut members) = (alone, vec![index]);
            if let WindowKind::Session { .. } = self.kind {
                self.windows.retain(|(other, key, rows)| {
                    let joins = *key == row.key && other.start <= alone.end && alone.start <= other.end;
                    if joins {
                        window = Window { start: window.start.min(other.start), end: window.end.max(other.end) };
                        members.extend(rows);
                    }
                    !joins
                });
            } else {
                self.windows.retain(|(other, key, rows)| {
                    let same = *key == row.key && *other == window;
                    members.extend(rows.iter().filter(|_| same));
                    !same
                });
            }
            if watermark < window.end - 1 {
                members.sort_unstable();
                self.windows.push((window, row.key.clone(), members));
                entered += 1;
            } else {
                missed.push(alone);
            }
        }
        (entered, missed)
    }

    fn close(&mut self, watermark: i64, rows: &[Row]) -> Vec<String> {
        let (mut closed, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.windows).into_iter().partition(|w| watermark >= w.0.end - 1);
        self.windows = open;
        let bytes = |key: &str| if key == "null" { vec![0xFF] } else { key.as_bytes().to_vec() };
        let rank = |(window, key, _): &(Window, String, Vec<usize>)| {
            (window.end, window.start, xxh64(&bytes(key), 0), bytes(key))
        };
        closed.sort_by_key(rank);
        closed.iter().map(|(window, key, members)| line(*window, key, members, rows)).collect()
    }
}

/// All windows that hold a time, by definition, smallest numbers first.
pub(super) fn windows_by_definition(kind: WindowKind, time: i64) -> Vec<Window> {
    let all = |from: i64, step: i64, sizes: Vec<i64>| {
        let near = time / step;
        let starts = (near - 60..near + 60).map(move |k| from + k * step);
        starts.flat_map(move |start| sizes.clone().into_iter().map(move |s| Window { start, end: start + s }))
    };
    let windows: Vec<Window> = match kind {
        WindowKind::Tumble { size_ms, offset_ms } => all(offset_ms, size_ms, vec![size_ms]).collect(),
        WindowKind::Hop { size_ms, slide_ms, offset_ms } => all(offset_ms, slide_ms, vec![size_ms]).collect(),
        WindowKind::Cumulate { max_ms, step_ms, offset_ms } => {
            all(offset_ms, max_ms, (1..=max_ms / step_ms).map(|k| k * step_ms).collect()).collect()
        }
        other => panic!("{other:?} is not a matter of times alone"),
    };
    windows.into_iter().filter(|w| w.start <= time && time < w.end).collect()
}

/// The result row, without the floating-point sum.
pub(super) fn line(window: Window, key: &str, members: &[usize], rows: &[Row]) -> String {
    let amounts: Vec<i64> = members.iter().map(|index| rows[*index].amount).collect();
    let distinct = amounts.iter().collect::<std::collections::BTreeSet<_>>().len();
    let (min, max) = (amounts.iter().min().expect("members"), amounts.iter().max().expect("members"));
    let (first, last) = (amounts[0], amounts[amounts.len() - 1]);
    let (sum, Window { start, end }) = (amounts.iter().sum::<i64>(), window);
    let time = end - 1;
    format!("{key}|{}|{sum}|{min}|{max}|{first}|{last}|{distinct}|{start}|{end}|{time}", amounts.len())
}

/// The watermark of a source, computed anew from all records so far at each tick.
pub(super) struct ModelWatermark {
    times: Times,
    /// By partition: watermark and append ms of the newest record.
    partitions: BTreeMap<u32, (Option<i64>, i64)>,
    value: Option<i64>,
}

impl ModelWatermark {
    pub fn new(times: Times) -> ModelWatermark {
        ModelWatermark { times, partitions: BTreeMap::new(), value: None }
    }

    pub fn value(&self) -> i64 {
        self.value.unwrap_or(i64::MIN)
    }

    pub fn update(&mut self, now_ms: i64) {
        let idle = |last: i64| self.times.idle_ms.is_some_and(|idle| last + idle <= now_ms);
        let active: Vec<_> = self.partitions.values().filter(|(_, last)| !idle(*last)).collect();
        let combined = if active.is_empty() {
            let most = self.partitions.values().map(|(watermark, _)| *watermark).max().flatten();
            let last = self.partitions.values().map(|(_, last)| *last).max().unwrap_or(0);
            let passed = if self.times.quiet_close { now_ms - last - self.times.idle_ms.unwrap_or(0) } else { 0 };
            most.map(|most| most + passed)
        } else {
            active.iter().map(|(watermark, _)| *watermark).min().flatten()
        };
        self.value = self.value.max(combined);
    }

    pub fn record(&mut self, row: &Row) {
        let moves = row.time - row.append_ms <= self.times.max_future_ms;
        let watermark = moves.then_some(row.time - self.times.bound_ms);
        let partition = self.partitions.entry(row.partition).or_insert((None, row.append_ms));
        *partition = (partition.0.max(watermark), row.append_ms);
        self.update(row.append_ms);
    }
}

/// What a late stream says of a row: its number, why, and the windows that it missed.
type Missed = (usize, &'static str, String);

/// Main values (without floats) and late rows of all pipelines, in output order.
fn model(times: Times, kinds: &[WindowKind], rows: &[Row], end_ms: i64) -> (Vec<String>, Vec<Missed>) {
    let mut watermark = ModelWatermark::new(times);
    let mut pipelines: Vec<Open> = kinds.iter().map(|kind| Open { kind: *kind, windows: Vec::new() }).collect();
    let (mut main, mut late) = (Vec::new(), Vec::new());
    let close = |pipelines: &mut Vec<Open>, value: Option<i64>, main: &mut Vec<String>| {
        let closed = pipelines.iter_mut().map(|pipeline| pipeline.close(value.unwrap_or(i64::MIN), rows));
        main.extend(closed.flatten());
    };
    let mut next = 0;
    for now_ms in rows.first().map_or(end_ms, |row| row.append_ms)..=end_ms {
        watermark.update(now_ms);
        close(&mut pipelines, watermark.value, &mut main);
        while let Some(row) = rows.get(next).filter(|row| row.append_ms == now_ms) {
            let before = watermark.value.unwrap_or(i64::MIN);
            for pipeline in &mut pipelines {
                let (entered, missed) = pipeline.add(next, row, before);
                if !missed.is_empty() {
                    let windows: Vec<_> = missed.iter().map(ToString::to_string).collect();
                    late.push((next, if entered == 0 { "late" } else { "partly late" }, windows.join(",")));
                }
            }
            watermark.record(row);
            close(&mut pipelines, watermark.value, &mut main);
            next += 1;
        }
    }
    close(&mut pipelines, Some(i64::MAX), &mut main);
    (main, late)
}

/// The engine's values without the floating-point sum (the ninth field).
pub(super) fn without_floats(values: &[String]) -> Vec<String> {
    let cut = |value: &String| {
        let fields: Vec<&str> = value.split('|').collect();
        [&fields[..8], &fields[9..]].concat().join("|")
    };
    values.iter().map(cut).collect()
}

pub(super) fn rows() -> impl Strategy<Value = Vec<Row>> {
    let gap = prop_oneof![5 => 0i64..3, 1 => 10i64..60];
    let time = prop_oneof![8 => -25i64..15, 1 => -120i64..120];
    let key = prop_oneof![Just("a"), Just("b"), Just("null")];
    let row = (gap, 0u32..3, key, time, -3i64..4);
    (prop::collection::vec(row, 1..40), -60i64..60).prop_map(|(rows, shift)| {
        let mut append_ms = 1000;
        let row = |(gap, partition, key, time, amount): (i64, u32, &str, i64, i64)| {
            append_ms += gap;
            let time = append_ms - 1000 + time + shift;
            Row { append_ms, partition, key: key.to_owned(), time, amount }
        };
        rows.into_iter().map(row).collect()
    })
}

pub(super) fn times() -> impl Strategy<Value = Times> {
    let idle = prop_oneof![Just(None), (1i64..40).prop_map(Some)];
    let future = prop_oneof![Just(1 << 40), Just(-950i64)];
    (0i64..12, idle, any::<bool>(), future).prop_map(|(bound_ms, idle_ms, quiet, max_future_ms)| Times {
        bound_ms,
        idle_ms,
        quiet_close: quiet && idle_ms.is_some(),
        max_future_ms,
    })
}

pub(super) fn kinds() -> impl Strategy<Value = WindowKind> {
    prop_oneof![
        (1i64..20, -25i64..25).prop_map(|(size_ms, o)| WindowKind::Tumble { size_ms, offset_ms: o % size_ms }),
        (1i64..8, 1i64..6, -5i64..5).prop_map(|(slide_ms, times, offset_ms)| WindowKind::Hop {
            size_ms: slide_ms * times,
            slide_ms,
            offset_ms
        }),
        (1i64..8, 1i64..6, -5i64..5).prop_map(|(step_ms, times, offset_ms)| WindowKind::Cumulate {
            max_ms: step_ms * times,
            step_ms,
            offset_ms
        }),
        (1i64..15).prop_map(|gap_ms| WindowKind::Session { gap_ms }),
    ]
}

/// Cuts the events by `cuts`, pushes them a few batches at a time, and asks the clock in between as often as `asks` says.
fn run_cut(plan: &JobPlan, events: &[Event], cuts: &[usize], asks: &[i64], end_us: i64) -> (Collected, Counters) {
    let mut engine = engine(plan, 1);
    let mut collected = Collected::default();
    let (mut first, mut at) = (0, 0);
    while first < events.len() {
        let same = events[first..].iter().take_while(|e| e.append_us == events[first].append_us).count();
        let count = same.min(1 + cuts[at % cuts.len()]);
        let mut pushed = vec![(0, log_batch(&events[first..first + count], first))];
        first += count;
        while at % 3 == 1 && first < events.len() {
            pushed.push((0, log_batch(&events[first..=first], first)));
            first += 1;
            at += 1;
        }
        engine.push(pushed).expect("good batches");
        let next_us = events.get(first).map_or(end_us, |event| event.append_us);
        let last_us = events[first - 1].append_us;
        if let ask @ 0.. = asks[at % asks.len()] {
            engine.advance(AppendTime((last_us + ask).min(next_us))).expect("open");
        }
        if at % 2 == 0 {
            collected.add(engine.drain());
        }
        at += 1;
    }
    engine.advance(AppendTime(end_us)).expect("open");
    engine.finish().expect("open");
    collected.add(engine.drain());
    (collected, engine.counters())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KAPPA_LONG").is_some() { 20_000 } else { 300 }))]
    #[test]
    fn engine_equals_model(
        rows in rows(),
        times in times(),
        kinds in prop::collection::vec(kinds(), 1..3),
        cuts in prop::collection::vec(0usize..6, 1..8),
        asks in prop::collection::vec(-20_000i64..40_000, 1..6),
        rest_ms in 0i64..80,
    ) {
        let pipelines = kinds.iter().map(|kind| windowed(*kind, calls())).collect();
        let plan = job(times, pipelines);
        let events: Vec<Event> = rows.iter().map(Row::event).collect();
        let end_ms = rows.last().expect("rows").append_ms + rest_ms;
        let (whole, counters) = run(&plan, &events, usize::MAX, Some(end_ms * 1000), 1);
        let (main, late) = model(times, &kinds, &rows, end_ms);
        prop_assert_eq!(without_floats(&values(&whole.main)), main);
        let text = |row, name| header(&whole.late[0], row, name).expect("a header");
        let got = values(&whole.late).into_iter().enumerate().map(|(row, value)| (value, text(row, "reason"), text(row, "windows")));
        let expected = late.iter().map(|(row, why, windows)| (events[*row].value.clone(), (*why).to_owned(), windows.clone()));
        prop_assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let partly_late = late.iter().filter(|(_, why, _)| *why == "partly late").count() as u64;
        prop_assert_eq!((counters.partly_late, counters.rows_in), (partly_late, rows.len() as u64));
        prop_assert_eq!(run_cut(&plan, &events, &cuts, &asks, end_ms * 1000), (whole, counters));
    }
}
