//! Law 3 across budgets of state: what has no room in memory goes to disk and comes back, and no byte of the output shows it.

use super::laws::{events, intricate_plan_of, noise, plan_of, plan_times};
use super::saved::cut;
use super::*;
use crate::env::OpenMode;
use crate::env::sim::{Fault, FaultKind, Sim};
use crate::error::ErrorKind;
use crate::state::accumulator::Fraction;
use crate::state::spill::{Budget, Spill};
use std::path::Path;

const SCRATCH: &str = "scratch";

fn memory(sim: &Sim, bytes: u64) -> StateMemory {
    StateMemory { budget: Budget::new(bytes), spill: Spill::new(&sim.env(), Path::new(SCRATCH)) }
}

/// Pushes the events batch by batch, since state is looked at between two; gives what came out, and the bytes that went to disk.
fn within(plan: &JobPlan, events: &[Event], size: usize, memory: Option<StateMemory>) -> (Collected, Counters, u64) {
    let (mut engine, mut collected) = (engine_within(plan, 1, memory), Collected::default());
    for batch in batches(events, size) {
        engine.push(vec![batch]).expect("a good batch");
        collected.add(engine.drain());
    }
    engine.finish().expect("open");
    collected.add(engine.drain());
    (collected, engine.counters(), engine.spilled_bytes())
}

fn exact_calls() -> Vec<AggregateCall> {
    calls().into_iter().filter(|call| call.argument_type != DataType::Float64).collect()
}

/// Aggregates that gather values, by row order or not, some of them with a filter.
fn gathering_calls() -> Vec<AggregateCall> {
    use AggregateFunction::{ApproxCountDistinct, ArrayAgg, Avg, Count, ListAgg, Percentile, Sum};
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let of = |function, argument, distinct, result: DataType| {
        let mut made = call(function, Some(argument), distinct);
        made.field = Arc::new(Field::new("a", result, true));
        made
    };
    let half: Arc<[Fraction]> = Arc::new([Fraction::new(0.5).expect("a part")]);
    let schema = source_schema();
    let even = binary(column("v"), Operator::Lt, lit(50i64), &schema).expect("a condition");
    let mut filtered = call(Sum, Some("d"), false);
    filtered.filter = Some(even);
    vec![
        call(Count, None, false),
        of(ArrayAgg { keep_nulls: true }, "v", false, list(DataType::Int64)),
        of(ArrayAgg { keep_nulls: false }, "v", true, list(DataType::Int64)),
        of(ListAgg { separator: ",".into() }, "k", false, DataType::Utf8),
        of(ApproxCountDistinct, "v", false, DataType::Int64),
        of(Percentile { fractions: half, array: false }, "d", false, DataType::Float64),
        of(Sum, "d", true, DataType::Float64),
        of(Avg, "d", false, DataType::Float64),
        filtered,
    ]
}

fn gathering_exactly() -> Vec<AggregateCall> {
    gathering_calls().into_iter().take(7).collect()
}

fn all_plans() -> Vec<JobPlan> {
    let calls_of: [&dyn Fn() -> Vec<AggregateCall>; 4] = [&calls, &exact_calls, &gathering_calls, &gathering_exactly];
    let mut plans: Vec<JobPlan> = calls_of.iter().map(|calls| plan_of(calls)).collect();
    plans.extend([intricate_plan_of(&calls), intricate_plan_of(&exact_calls)]);
    plans.extend(plans_alone());
    plans
}

/// Jobs of one operator each, which has to go to disk itself.
fn plans_alone() -> Vec<JobPlan> {
    let session = WindowKind::Session { gap_ms: 2 };
    let mut again = windowed(session, calls());
    again.emission = Emission { lateness_ms: 10, early_us: Some(13_000) };
    let mut late = windowed(session, gathering_calls());
    late.emission = Emission { lateness_ms: 30, early_us: None };
    let count = |timeout_ms| windowed(WindowKind::Count { size: 7, timeout_ms }, calls());
    let mut by_append = windowed(WindowKind::Count { size: 40, timeout_ms: Some(70) }, gathering_calls());
    by_append.time = TimeDomain::Append;
    let pipelines = [windowed(session, calls()), again, late, count(None), count(Some(40)), by_append];
    pipelines.into_iter().map(|pipeline| job(plan_times(), vec![pipeline])).collect()
}

#[test]
fn budgets_do_not_show_in_windows_of_any_kind() {
    let events = &events()[..1_000];
    for (number, plan) in all_plans().iter().enumerate() {
        let (expected, counters, spilled) = within(plan, events, 40, None);
        assert!(expected.main[0].len() > 50 && spilled == 0);
        for (size, bytes) in [(40, 1), (100, 20_000)] {
            let (collected, counted, spilled) = within(plan, events, size, Some(memory(&Sim::new(1), bytes)));
            println!("plan {number}, batches of {size}, {bytes} bytes: {spilled} bytes written");
            assert!(spilled > 0);
            assert_eq!(counted, counters);
            assert!(collected == expected, "plan {number}, batches of {size}, {bytes} bytes");
        }
    }
}

#[test]
fn spilled_state_is_saved_and_restored() {
    let events = &events()[..1_000];
    for (number, plan) in all_plans().iter().enumerate() {
        let (expected, ..) = within(plan, events, 40, None);
        let seed = number as u64;
        println!("plan and seed {seed}");
        let sim = Sim::new(seed);
        let make = |threads| engine_within(plan, threads, Some(memory(&sim, 30_000)));
        assert!(cut(&make, events, seed, 7) == expected, "plan and seed {seed}");
    }
}

/// Many keys in few windows, so that a window takes many pieces.
#[test]
fn windows_larger_than_the_budget_come_out_whole() {
    let row = |n: u64| {
        let (now_ms, dice) = (n as i64 / 500, noise(n));
        let time = now_ms - if dice % 997 == 0 { 150 } else { 0 };
        event(now_ms, 0, &format!("k{}", dice % 60_000), time, dice % 100)
    };
    let events: Vec<Event> = (0..100_000).map(row).collect();
    let kinds = [
        WindowKind::Tumble { size_ms: 200, offset_ms: 0 },
        WindowKind::Hop { size_ms: 200, slide_ms: 100, offset_ms: 0 },
        WindowKind::Cumulate { max_ms: 200, step_ms: 100, offset_ms: 0 },
    ];
    for calls in [calls, exact_calls] {
        let mut plan = job(Times::default(), kinds.map(|kind| windowed(kind, calls())).to_vec());
        let mut again = windowed(kinds[0], calls());
        again.emission = Emission { lateness_ms: 160, early_us: Some(90_000) };
        plan.pipelines.push(again);
        let (expected, ..) = within(&plan, &events, 500, None);
        let (collected, _, spilled) = within(&plan, &events, 500, Some(memory(&Sim::new(1), 2 << 20)));
        println!("{} rows, {spilled} bytes written", expected.main[0].len());
        assert!(expected.main[0].len() > 100_000 && spilled > 5 << 20);
        assert!(collected == expected);
    }
}

/// Many keys that come again and again, some of them long after, while a watermark far behind keeps all of them open.
#[test]
fn keys_beyond_the_budget_come_back() {
    let row = |n: u64| {
        let (now_ms, dice) = (n as i64 / 100, noise(n));
        let key = if dice % 5 == 0 { dice % 4_000 } else { n as i64 / 2 };
        event(now_ms, 0, &format!("visitor-{key:08}"), now_ms - dice / 64 % 30, dice % 100)
    };
    let events: Vec<Event> = (0..40_000).map(row).collect();
    let bytes = 1 << 20;
    let (session, count) =
        (|gap_ms| WindowKind::Session { gap_ms }, |timeout_ms| WindowKind::Count { size: 10, timeout_ms });
    for (kind, lateness_ms) in
        [(session(40), 0), (session(10), 200), (count(None), 0), (count(Some(200)), 0), (count(Some(5_000)), 0)]
    {
        let mut pipeline = windowed(kind, calls());
        pipeline.emission = Emission { lateness_ms, early_us: None };
        let plan = job(Times { bound_ms: 300, ..Times::default() }, vec![pipeline]);
        let (expected, ..) = within(&plan, &events, 500, None);
        let (mut engine, mut collected) =
            (engine_within(&plan, 1, Some(memory(&Sim::new(1), bytes))), Collected::default());
        let mut most = 0;
        for batch in batches(&events, 500) {
            engine.push(vec![batch]).expect("a good batch");
            collected.add(engine.drain());
            most = most.max(engine.state_byte_len() as u64);
        }
        engine.finish().expect("open");
        collected.add(engine.drain());
        let (rows, spilled) = (expected.main[0].len(), engine.spilled_bytes());
        println!("{kind:?}: {rows} rows, {spilled} bytes written, {most} held");
        assert!(rows > 15_000 && spilled > 5 * bytes && most < bytes * 5 / 4);
        assert!(collected == expected, "{kind:?}");
    }
}

#[test]
fn engines_share_a_budget() {
    let row = |n: u64| event(n as i64 / 500, 0, &format!("k{n}"), n as i64 / 500, 1);
    let events: Vec<Event> = (0..40_000).map(row).collect();
    let plan = job(Times::default(), vec![windowed(WindowKind::Tumble { size_ms: 1 << 20, offset_ms: 0 }, calls())]);
    let (sim, budget) = (Sim::new(1), Budget::new(4 << 20));
    let memory = || Some(StateMemory { budget: Arc::clone(&budget), spill: memory(&sim, 1).spill });
    let mut engines = [engine_within(&plan, 1, memory()), engine_within(&plan, 1, memory())];
    for batch in batches(&events, 500) {
        for engine in &mut engines {
            engine.push(vec![batch.clone()]).expect("a good batch");
        }
        let held: usize = engines.iter().map(Engine::state_byte_len).sum();
        assert!(held < 5 << 20, "{held}");
    }
    let spilled: u64 = engines.iter().map(Engine::spilled_bytes).sum();
    assert!(spilled > 2 << 20, "{spilled}");
    let [one, other] = engines;
    drop(one);
    assert!(sim.env().disk.list(Path::new(SCRATCH)).expect("listed").len() == 1);
    drop(other);
    assert!(sim.env().disk.list(Path::new(SCRATCH)).expect("listed").is_empty());
}

fn two_seconds() -> (JobPlan, Vec<Event>) {
    let tumble = WindowKind::Tumble { size_ms: 1_000, offset_ms: 0 };
    let row = |n: i64| event(n / 10, 0, &format!("k{n}"), n / 10, 1);
    (job(Times::default(), vec![windowed(tumble, calls())]), (0..9_000).map(row).collect())
}

#[test]
fn damage_of_spilled_state_is_an_error_of_the_job() {
    let (plan, events) = two_seconds();
    let sim = Sim::new(1);
    let mut engine = engine_within(&plan, 1, Some(memory(&sim, 100_000)));
    for batch in batches(&events, 500) {
        engine.push(vec![batch]).expect("a good batch");
    }
    let disk = sim.env().disk;
    let dir = Path::new(SCRATCH).join(&disk.list(Path::new(SCRATCH)).expect("listed")[0].name);
    for entry in disk.list(&dir).expect("listed") {
        let file = disk.open(&dir.join(entry.name), OpenMode::ReadWrite).expect("there");
        file.write_all_at(entry.len / 2, b"?!").expect("changed");
    }
    let error = engine.finish().expect_err("damage");
    assert!(error.kind() == ErrorKind::Damage && error.hint().is_some(), "{error}");
}

#[test]
fn a_full_disk_is_an_error_of_the_job() {
    let (plan, events) = two_seconds();
    let sim = Sim::new(1);
    sim.disk.set_fault(Some(Fault { call: 0, kind: FaultKind::Enospc, lasting: true }));
    let mut engine = engine_within(&plan, 1, Some(memory(&sim, 100_000)));
    let error = batches(&events, 500).into_iter().find_map(|batch| engine.push(vec![batch]).err());
    let error = error.expect("no room");
    assert!(error.kind() == ErrorKind::Unavailable && error.hint().is_some(), "{error}");
}
