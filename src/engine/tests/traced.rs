//! What a trace names, held against the results: the records in it, given to a naive model, make the numbers.

use super::laws::intricate_plan;
use super::model::{Row, line, rows, without_floats};
use super::saved::saved;
use super::*;
use crate::engine::trace::{Asked, CausedBy, Part, Traced, Tracing};
use crate::window::Window;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn asked(window_start_ms: i64, key: Option<&str>) -> Asked {
    Asked { outputs: vec![0], window_start_ms, window_end_ms: None, key: key.map(str::to_owned) }
}

fn traced(plan: &JobPlan, events: &[Event], asked: &Asked, size: usize) -> (Collected, Tracing) {
    let options = EngineOptions::default();
    let mut engine =
        Engine::with_codecs(Arc::new(plan.clone()), &[1], options, LINES, Some(asked)).expect("a good plan");
    let mut collected = Collected::default();
    engine.push(batches(events, size)).expect("good batches");
    engine.finish().expect("open");
    collected.add(engine.drain());
    (collected, engine.take_trace())
}

/// The same of an engine that begins with the state that another one has after some of the events.
fn traced_from(plan: &JobPlan, events: &[Event], asked: &Asked, (cut, size): (usize, usize)) -> (Collected, Tracing) {
    let batches = batches(events, size);
    let (first, second) = batches.split_at(cut.min(batches.len()));
    let mut collected = Collected::default();
    let mut before = engine(plan, 1);
    before.push(first.to_vec()).expect("good batches");
    collected.add(before.drain());
    let state = saved(&mut before);
    let options = EngineOptions::default();
    let fresh = Engine::with_codecs(Arc::new(plan.clone()), &[1], options, LINES, Some(asked)).expect("a good plan");
    let mut engine = fresh.loaded(&state).expect("its own state");
    engine.push(second.to_vec()).expect("good batches");
    engine.finish().expect("open");
    collected.add(engine.drain());
    (collected, engine.take_trace())
}

fn value(result: &Traced) -> String {
    let value = result.record.as_ref().and_then(|(_, value)| value.as_deref());
    String::from_utf8_lossy(value.unwrap_or(b"NULL")).into_owned()
}

fn records(result: &Traced) -> Vec<usize> {
    let records = result.parts.iter().flat_map(Part::records);
    records.map(|(position, ..)| usize::try_from(position).expect("small")).collect()
}

/// Where the start of the window stands in a value of this pipeline.
fn start_of(plan: &JobPlan, pipeline: usize, value: &str) -> i64 {
    let schema = plan.pipelines[pipeline].steps.iter().rev().find_map(Step::schema).expect("a schema");
    let place = schema.index_of("window_start").expect("a window");
    value.split('|').nth(place).and_then(|start| start.parse().ok()).expect("a time")
}

fn check(plan: &JobPlan, pipeline: usize, rows: &[Row], result: &Traced) -> std::result::Result<(), TestCaseError> {
    let (value, members) = (value(result), records(result));
    let fields: Vec<&str> = value.split('|').collect();
    let aggregations = plan.pipelines[pipeline].aggregations().count();
    let count = fields[usize::from(aggregations == 1)];
    prop_assert_eq!(count, members.len().to_string(), "pipeline {}: {}", pipeline, value);
    let is_plain = aggregations == 1 && plan.pipelines[pipeline].steps.len() == 1;
    let kind = plan.pipelines[pipeline].aggregations().next().expect("an aggregation").kind;
    if is_plain {
        let expected = line(result.window, &rows[members[0]].key, &members, rows);
        let got = without_floats(&[value])[0].clone();
        let reason = if let WindowKind::Count { .. } = kind {
            format!("|{}", result.reason.unwrap_or("?"))
        } else {
            String::new()
        };
        prop_assert_eq!(got, format!("{expected}{reason}"), "pipeline {}", pipeline);
    }
    for part in &result.parts {
        if let Part::Window(inner) = part {
            let records = part.records();
            prop_assert!(!records.is_empty());
            for (position, _, window) in records {
                let row = &rows[usize::try_from(position).expect("small")];
                prop_assert_eq!(window, Some(inner.window));
                prop_assert!(inner.window.start <= row.time && row.time < inner.window.end);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KAPPA_LONG").is_some() { 5_000 } else { 24 }))]
    #[test]
    fn the_records_named_make_the_number(rows in rows(), size in 1usize..50) {
        let events: Vec<Event> = rows.iter().map(Row::event).collect();
        for index in 0..intricate_plan().pipelines.len() {
            let mut plan = intricate_plan();
            plan.pipelines = vec![plan.pipelines[index].clone()];
            let schema = plan.pipelines[0].steps.iter().rev().find_map(Step::schema).cloned().expect("a schema");
            plan.outputs[0].schema = schema;
            let (whole, _) = run(&plan, &events, usize::MAX, None, 1);
            let mut missing: BTreeMap<String, usize> = BTreeMap::new();
            let starts: BTreeSet<i64> = values(&whole.main).iter().map(|value| start_of(&plan, 0, value)).collect();
            values(&whole.main).into_iter().for_each(|value| *missing.entry(value).or_default() += 1);
            for start in starts {
                let (again, seen) = traced(&plan, &events, &asked(start, None), size);
                prop_assert_eq!(&again, &whole, "a trace shows in the output");
                for result in &seen.results {
                    *missing.get_mut(&value(result)).expect("a record of the output") -= 1;
                    check(&plan, 0, &rows, result)?;
                }
            }
            prop_assert!(missing.values().all(|left| *left == 0), "pipeline {}: not explained: {:?}", index, missing);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KAPPA_LONG").is_some() { 1_000 } else { 12 }))]
    #[test]
    fn what_a_state_has_brought_along_is_said(rows in rows(), size in 1usize..50, cut in 0usize..12) {
        let events: Vec<Event> = rows.iter().map(Row::event).collect();
        for index in 0..intricate_plan().pipelines.len() {
            let mut plan = intricate_plan();
            plan.pipelines = vec![plan.pipelines[index].clone()];
            plan.outputs[0].schema =
                plan.pipelines[0].steps.iter().rev().find_map(Step::schema).cloned().expect("a schema");
            let aggregations = plan.pipelines[0].aggregations().count();
            let (whole, _) = run(&plan, &events, usize::MAX, None, 1);
            let starts: BTreeSet<i64> = values(&whole.main).iter().map(|value| start_of(&plan, 0, value)).collect();
            for start in starts {
                let asked = asked(start, None);
                let (again, seen) = traced_from(&plan, &events, &asked, (cut, size));
                prop_assert_eq!(&again, &whole, "a trace shows in the output");
                let first = batches(&events, size).iter().take(cut).map(|(_, batch)| batch.len()).sum::<usize>();
                for result in &seen.results {
                    let (value, known) = (value(result), records(result));
                    let count = value.split('|').nth(usize::from(aggregations == 1)).expect("a count");
                    let count: usize = count.parse().expect("a number");
                    let is_of_state = result.parts.iter().any(Part::is_of_state);
                    prop_assert!(known.iter().all(|record| *record >= first), "pipeline {}: {:?}", index, known);
                    prop_assert_eq!(count > known.len(), is_of_state, "pipeline {}: {}", index, value);
                }
            }
        }
    }
}

#[test]
fn a_trace_says_what_closed_the_window_and_what_came_too_late() {
    let times = Times { bound_ms: 5, ..Times::default() };
    let plan = job(times, vec![windowed(WindowKind::Hop { size_ms: 20, slide_ms: 10, offset_ms: 0 }, calls())]);
    let events = [
        event(1000, 0, "a", 12, 1),
        event(1001, 0, "b", 14, 2),
        event(1002, 0, "a", 27, 4),
        event(1003, 0, "a", 35, 8),
        event(1004, 0, "a", 13, 16),
        event(1005, 0, "b", 13, 16),
        event(1006, 0, "a", 60, 32),
    ];
    let (_, seen) = traced(&plan, &events, &asked(10, Some("a")), 100);
    let [result] = &seen.results[..] else { panic!("one result: {:?}", seen.results) };
    assert_eq!((result.group.as_str(), result.revision, result.pane), ("{\"k\":\"a\"}", 0, "on-time"));
    assert_eq!(result.parts, [Part::Record(0, i64::MIN), Part::Record(2, 9)]);
    assert_eq!((result.by, result.watermark_ms), (CausedBy::Record(AppendTime(1_003_000), 3), 22));
    let late: Vec<_> = seen.late.iter().map(|late| (late.position, late.watermark_ms)).collect();
    assert_eq!(late, [(4, 30)]);
    assert_eq!(seen.keys.iter().map(String::as_str).collect::<Vec<_>>(), ["{\"k\":\"a\"}", "{\"k\":\"b\"}"]);
    let (_, none) = traced(&plan, &events, &asked(15, Some("a")), 100);
    assert!(none.results.is_empty() && none.keys.is_empty());
    let starts = |(before, after): (Option<Window>, Option<Window>)| (before.map(|w| w.start), after.map(|w| w.start));
    assert_eq!(starts(none.near_of_key), (Some(10), Some(20)));
    // As JSON, with other white space, and by the bytes of the record's key.
    for key in ["{\"k\":\"a\"}", "{ \"k\": \"a\" }"] {
        assert_eq!(traced(&plan, &events, &asked(10, Some(key)), 1).1.results.len(), 1, "{key}");
    }
}
