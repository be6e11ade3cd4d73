//! Law 3 across restarts: an engine that is saved, written, read and restored, on another number of threads, gives the same bytes.

use super::laws::{events, intricate_plan, noise, plan, plan_times};
use super::*;
use crate::engine::EngineState;
use crate::state::ipc;
use crate::state::saving::Step;
use crate::state::section::{PIECE_ROWS, Section};
use crate::time::zone::Zone;
use std::collections::BTreeMap;

fn restored(plan: &JobPlan, threads: usize, state: &EngineState) -> Engine {
    engine(plan, threads).loaded(state).expect("its own state")
}

/// As a disk gives it back.
fn written(state: &EngineState) -> EngineState {
    let again = |section: &Section| {
        let mut bytes = Vec::new();
        ipc::write(section, &mut bytes).expect("written");
        ipc::read(&section.name, &bytes).expect("read")
    };
    EngineState { sections: state.sections.iter().map(again).collect() }
}

/// All of a state that is being saved, to be read as often as one likes.
fn given(engine: &mut Engine, state: EngineState) -> EngineState {
    while engine.save_next(usize::MAX) == Step::Given {}
    let kept = |section: &Section| {
        let mut pieces = Vec::new();
        let taken = section.each(&mut |piece| {
            pieces.push(piece);
            Ok(())
        });
        taken.expect("all of it was given");
        let Section { name, schema, version, .. } = section.clone();
        Section::lazy(name, schema, version, move |take| pieces.iter().cloned().try_for_each(&mut *take))
    };
    EngineState { sections: state.sections.iter().map(kept).collect() }
}

pub(super) fn saved(engine: &mut Engine) -> EngineState {
    let (state, _) = engine.save().expect("drained");
    given(engine, state)
}

/// The rows of all sections.
fn tables(state: &EngineState) -> BTreeMap<String, Vec<String>> {
    state.sections.iter().map(|section| (section.name.clone(), sorted(section))).collect()
}

/// Sections that have not changed say so, and those that say so have not.
fn check_versions(before: &EngineState, after: &EngineState) {
    let of = |state: &EngineState| -> BTreeMap<String, Section> {
        state.sections.iter().map(|section| (section.name.clone(), section.clone())).collect()
    };
    let before = of(before);
    for (name, section) in of(after) {
        if let Some(same) = before.get(&name).filter(|old| old.version.is_some() && old.version == section.version) {
            assert_eq!(sorted(same), sorted(&section), "{name}");
        }
    }
}

/// Rows in an order of their own: tables of keys have none.
fn sorted(section: &Section) -> Vec<String> {
    let rows = section.rows().expect("rows");
    let mut lines: Vec<String> = (0..rows.num_rows()).map(|row| format!("{:?}", rows.slice(row, 1))).collect();
    lines.sort();
    lines
}

/// Runs the events on engines that are saved, and most times restored, every now and then. Others go on while they are saved.
pub(super) fn cut(make: &dyn Fn(usize) -> Engine, events: &[Event], seed: u64, every: u64) -> Collected {
    let mut engine = make(1);
    let mut collected = Collected::default();
    // What an engine was when it was last saved, and what is being saved since then.
    let mut last: Option<(EngineState, EngineState)> = None;
    for (n, batch) in (0u64..).zip(batches(events, 40)) {
        engine.push(vec![batch]).expect("a good batch");
        collected.add(engine.drain());
        let dice = noise(seed << 32 | n).unsigned_abs();
        if dice.is_multiple_of(every) {
            if let Some((before, saving)) = last.take() {
                assert_eq!(tables(&given(&mut engine, saving)), tables(&before), "saved on the way, batch {n}");
                check_versions(&before, &saved(&mut engine));
            }
            let state = saved(&mut engine);
            if dice.is_multiple_of(3) {
                last = Some((state, engine.save().expect("drained").0));
                continue;
            }
            let threads = 1 + usize::try_from(dice / 8 % 3).expect("small");
            engine = make(threads).loaded(&written(&state)).expect("its own state");
            // What is restored can be saved again, and is the same.
            assert_eq!(tables(&saved(&mut engine)), tables(&state));
        } else if dice % 7 == 1 {
            engine.save_next(usize::MAX);
        }
    }
    engine.finish().expect("open");
    collected.add(engine.drain());
    collected
}

#[test]
fn where_an_engine_is_saved_and_restored_does_not_show() {
    let events = &events()[..3_000];
    for (plan, seeds) in [(plan(), 1..3), (intricate_plan(), 3..6)] {
        let (expected, counters) = run(&plan, events, 65_536, None, 1);
        assert!(expected.main[0].len() > 500 && counters.rows_in == 3_000);
        for seed in seeds {
            println!("seed {seed}");
            assert!(cut(&|threads| engine(&plan, threads), events, seed, 9) == expected, "seed {seed}");
        }
    }
}

#[test]
fn counters_go_on_and_a_state_of_another_plan_is_refused() {
    let (plan, events) = (intricate_plan(), &events()[..1_000]);
    let mut engine = engine(&plan, 1);
    engine.push(batches(events, 100)).expect("good batches");
    assert!(engine.save().is_err(), "there is output that nobody has taken");
    engine.drain();
    let state = saved(&mut engine);
    assert_eq!(restored(&plan, 2, &state).counters(), engine.counters());
    let other = super::laws::plan();
    assert!(super::engine(&other, 1).loaded(&state).is_err());
    for at in 0..state.sections.len() {
        let mut some = state.clone();
        let gone = some.sections.remove(at);
        let loaded = super::engine(&plan, 1).loaded(&some);
        let is_needed = !gone.name.contains("step-");
        assert_eq!(loaded.is_err(), is_needed, "without {}", gone.name);
    }
}

/// What a checkpoint costs between two strides: rows of keys that change, and pieces of so many rows. Nothing is proportional to the state.
#[test]
fn a_key_that_changes_while_it_is_saved_gives_its_own_row_away_and_a_step_no_more_than_a_piece() {
    const KEYS: usize = 100_000;
    let mut engine = engine(&plan(), 1);
    let events: Vec<Event> = (0..KEYS).map(|key| event(0, 0, &format!("key {key}"), 1_000, 1)).collect();
    engine.push(batches(&events, KEYS)).expect("good events");
    engine.drain();
    let (state, _) = engine.save().expect("drained");
    engine.push(vec![(0, log_batch(&events[..1], KEYS))]).expect("a good event");
    let state = given(&mut engine, state);
    let mut large = 0;
    for section in &state.sections {
        let mut pieces = Vec::new();
        let counted = section.each(&mut |piece| {
            pieces.push(piece.num_rows());
            Ok(())
        });
        counted.expect("all of it");
        if pieces.iter().sum::<usize>() == KEYS {
            large += 1;
            assert!(pieces[0] == 1 && pieces.iter().all(|rows| *rows <= PIECE_ROWS), "{}: {pieces:?}", section.name);
        }
    }
    assert_eq!(large, engine.plan.pipelines.len());
}

/// Each kind of pipeline alone: its state is never called silent once something was published, and is where windows from before have closed.
#[test]
fn a_state_that_is_silent_from_a_time_has_published_nothing_from_there() {
    let events = &events()[..1_600];
    let mut zoned = windowed(WindowKind::Tumble { size_ms: 20, offset_ms: 0 }, calls());
    let Some(crate::engine::plan::Step::Aggregate(window)) = zoned.steps.first_mut() else { panic!("an aggregation") };
    window.zone = Zone::parse("Europe/Berlin").expect("a zone");
    let untold = [zoned, PipelinePlan { rowtime: Some(1), ..pipeline(vec![]) }];
    let intricate = intricate_plan().pipelines.into_iter();
    let is_told = |pipeline: &PipelinePlan| {
        let is_counted = |window: &WindowPlan| matches!(window.kind, WindowKind::Count { .. });
        let is_early = pipeline.emission.early_us.is_some();
        pipeline.time == TimeDomain::Event && !is_early && !pipeline.aggregations().any(is_counted)
    };
    let (intricate, others): (Vec<_>, Vec<_>) = intricate.partition(is_told);
    let told = plan().pipelines.into_iter().chain(intricate).map(|pipeline| (pipeline, true));
    for (pipeline, is_told) in told.chain(others.into_iter().chain(untold).map(|pipeline| (pipeline, false))) {
        let what = format!("{pipeline:?}");
        let plan = Arc::new(job(plan_times(), vec![pipeline]));
        let (mut silent, mut published) = (0, 0);
        for from_ms in [60, 120] {
            let options = EngineOptions { publish_from_ms: Some(from_ms), ..EngineOptions::default() };
            let mut engine = Engine::with_codecs(Arc::clone(&plan), &[1], options, LINES, None).expect("a good plan");
            let mut given = Collected::default();
            for batch in batches(events, 50) {
                engine.push(vec![batch]).expect("a good batch");
                given.add(engine.drain());
                let is_published = !given.main.is_empty() || !given.late.is_empty();
                published += usize::from(is_published);
                if saved(&mut engine).is_silent_from(&plan, from_ms).expect("a state") {
                    assert!(!is_published, "{from_ms} ms: {what}");
                    silent += usize::from(engine.counters().windows_closed > 0);
                }
            }
        }
        assert!(published > 0 && (silent > 0) == is_told, "silent {silent} times: {what}");
    }
}
