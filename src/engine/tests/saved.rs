//! Law 3 across restarts: an engine that is saved, written, read and restored, on another number of threads, gives the same bytes.

use super::laws::{events, intricate_plan, noise, plan};
use super::*;
use crate::engine::EngineState;
use crate::state::ipc;
use crate::state::section::Section;
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

/// Runs the events on engines that are saved, and most times restored, every now and then.
pub(super) fn cut(make: &dyn Fn(usize) -> Engine, events: &[Event], seed: u64, every: u64) -> Collected {
    let mut engine = make(1);
    let mut collected = Collected::default();
    let mut last: Option<EngineState> = None;
    for (n, batch) in (0u64..).zip(batches(events, 40)) {
        engine.push(vec![batch]).expect("a good batch");
        collected.add(engine.drain());
        let dice = noise(seed << 32 | n).unsigned_abs();
        if dice.is_multiple_of(every) {
            let state = engine.save().expect("drained");
            if let Some(last) = last.take() {
                check_versions(&last, &state);
            }
            if dice.is_multiple_of(3) {
                // It goes on while somebody holds its state, which does not change.
                last = Some(state);
                continue;
            }
            let threads = 1 + usize::try_from(dice / 8 % 3).expect("small");
            engine = make(threads).loaded(&written(&state)).expect("its own state");
            // What is restored can be saved again, and is the same.
            let again = engine.save().expect("nothing came out of it");
            let tables = |state: &EngineState| {
                let tables = state.sections.iter().map(|section| (section.name.clone(), sorted(section)));
                tables.collect::<BTreeMap<_, _>>()
            };
            assert_eq!(tables(&again), tables(&state));
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
    let state = engine.save().expect("drained");
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
