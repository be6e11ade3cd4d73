//! Law 3 at full size: the same records cut into batches of 1, 7, 4,096 and 64k, on 1, 2 and 8 threads. Law 2: the clock asked
//! often, rarely or never. Both with sums of floats, where any change of order shows.

use super::*;

/// Deterministic noise.
pub(super) fn noise(n: u64) -> i64 {
    i64::try_from(crate::codec::xxh64(&n.to_le_bytes(), 1) >> 33).expect("31 bits")
}

/// 8,000 events over 3 partitions in bursts of one append time, disordered by up to 40 ms, with silences and bad rows.
pub(super) fn events() -> Vec<Event> {
    let mut append_ms = 0;
    let event = |n: u64| {
        let (r, burst) = (noise(n), noise(n / 200));
        append_ms += i64::from(n.is_multiple_of(200)) * (1 + burst % 60) + i64::from(r % 97 == 0);
        let time = append_ms - r % 41 - 20;
        let partition = if burst % 5 == 0 { 0 } else { u32::try_from(r % 3).expect("small") };
        match r % 211 {
            0 => Event { append_us: append_ms * 1000, partition, value: "bad".to_owned() },
            1 => event(append_ms, partition, "null", time, r % 100),
            _ => event(append_ms, partition, &format!("k{}", r % 37), time, r % 100),
        }
    };
    (0..8_000).map(event).collect()
}

pub(super) fn plan() -> JobPlan {
    plan_of(&calls)
}

pub(super) fn plan_of(calls: &dyn Fn() -> Vec<AggregateCall>) -> JobPlan {
    let kinds = [
        WindowKind::Tumble { size_ms: 20, offset_ms: 3 },
        WindowKind::Hop { size_ms: 60, slide_ms: 10, offset_ms: 0 },
        WindowKind::Cumulate { max_ms: 40, step_ms: 5, offset_ms: -1 },
        WindowKind::Session { gap_ms: 2 },
    ];
    job(plan_times(), kinds.map(|kind| windowed(kind, calls())).to_vec())
}

/// What an aggregation by key leaves for the next one: its count, without keys, by the window's columns.
fn over_windows(kind: WindowKind, inner: &PipelinePlan) -> Step {
    let row = inner.steps.iter().rev().find_map(Step::schema).expect("a schema").clone();
    let place = |name: &str| row.index_of(name).expect("a window column");
    let kind = match kind {
        WindowKind::Attached { .. } => WindowKind::Attached { start: place("window_start"), end: place("window_end") },
        other => other,
    };
    let argument = |name: &str| Some(col(name, &row).expect("a result"));
    let field = Arc::new(Field::new("a", DataType::Int64, true));
    let sum = |name: &str, function| AggregateCall {
        function,
        argument: argument(name),
        argument_type: DataType::Int64,
        distinct: false,
        filter: None,
        field: Arc::clone(&field),
    };
    let aggregates = vec![sum("a0", AggregateFunction::Sum), sum("a4", AggregateFunction::LastValue)];
    let mut fields = vec![Field::new("a0", DataType::Int64, true), Field::new("a1", DataType::Int64, true)];
    fields.extend(["window_start", "window_end", "window_time"].map(|name| Field::new(name, ms_type(), false)));
    if let WindowKind::Count { .. } = kind {
        fields.push(Field::new("window_reason", DataType::Utf8, false));
    }
    let rowtime = place(if matches!(kind, WindowKind::Attached { .. }) { "window_end" } else { "window_time" });
    let schema = Arc::new(Schema::new(fields));
    Step::Aggregate(WindowPlan { kind, rowtime, keys: vec![], aggregates, zone: None, schema })
}

/// The two rows of each window that count most, with their number.
fn ranked(inner: &PipelinePlan) -> Step {
    let row = inner.steps.iter().rev().find_map(Step::schema).expect("a schema").clone();
    let place = |name: &str| row.index_of(name).expect("a window column");
    let mut fields: Vec<_> = row.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("rownum", DataType::Int64, false)));
    let order = |name: &str, descending| Order {
        expr: col(name, &row).expect("a result"),
        descending,
        nulls_first: descending,
    };
    Step::Rank(RankPlan {
        window_start: place("window_start"),
        window_end: place("window_end"),
        zone: None,
        partition: vec![],
        order: vec![order("a0", true), order("a1", false)],
        last_wins: false,
        from: 1,
        limit: 2,
        number: true,
        schema: Arc::new(Schema::new(fields)),
    })
}

pub(super) fn intricate_plan() -> JobPlan {
    intricate_plan_of(&calls)
}

/// Nests, ranks, counts, windows by append time, and windows that are emitted more than once.
pub(super) fn intricate_plan_of(calls: &dyn Fn() -> Vec<AggregateCall>) -> JobPlan {
    let tumble = WindowKind::Tumble { size_ms: 20, offset_ms: 3 };
    let hop = WindowKind::Hop { size_ms: 25, slide_ms: 10, offset_ms: 0 };
    let session = WindowKind::Session { gap_ms: 2 };
    let attached = WindowKind::Attached { start: 0, end: 0 };
    let again = |kind: WindowKind, lateness_ms: i64, early_ms: Option<i64>| {
        let mut pipeline = windowed(kind, calls());
        pipeline.emission = Emission { lateness_ms, early_us: early_ms.map(|ms| ms * 1000) };
        pipeline
    };
    let nest = |kind: WindowKind, outer: WindowKind, lateness_ms: i64| {
        let mut pipeline = again(kind, lateness_ms, None);
        pipeline.steps.push(over_windows(outer, &pipeline));
        pipeline
    };
    let mut top = windowed(hop, calls());
    top.steps.push(ranked(&top));
    let mut by_append = windowed(tumble, calls());
    by_append.time = TimeDomain::Append;
    let mut counted = windowed(WindowKind::Count { size: 7, timeout_ms: Some(12) }, calls());
    counted.time = TimeDomain::Append;
    let pipelines = vec![
        again(hop, 15, None),
        again(tumble, 0, Some(7)),
        again(WindowKind::Cumulate { max_ms: 40, step_ms: 5, offset_ms: -1 }, 9, Some(11)),
        again(session, 10, Some(13)),
        nest(tumble, attached, 0),
        nest(hop, WindowKind::Tumble { size_ms: 50, offset_ms: 0 }, 10),
        nest(tumble, WindowKind::Session { gap_ms: 20 }, 0),
        nest(session, WindowKind::Count { size: 5, timeout_ms: Some(30) }, 0),
        top,
        by_append,
        counted,
        windowed(WindowKind::Count { size: 9, timeout_ms: Some(40) }, calls()),
    ];
    job(plan_times(), pipelines)
}

pub(super) fn plan_times() -> Times {
    Times { bound_ms: 25, idle_ms: Some(30), quiet_close: true, max_future_ms: 1 << 40 }
}

#[test]
fn batches_threads_and_the_clock_do_not_show_in_windows_of_any_kind() {
    let (plan, events) = (intricate_plan(), events());
    let (expected, counters) = run(&plan, &events, 1, None, 1);
    assert!(expected.main[0].len() > 10_000, "{}", expected.main[0].len());
    for (size, threads) in [(7, 3), (65_536, 1), (4_096, 2), (65_536, 8)] {
        let (cut, cut_counters) = run(&plan, &events, size, None, threads);
        assert_eq!(cut_counters, counters);
        assert!(cut == expected, "batches of {size}, {threads} threads");
    }
    for every in [1, 50] {
        assert!(asked_often(&plan, &events, every) == expected, "asked after every {every} batches");
    }
}

#[test]
fn batches_and_threads_do_not_show() {
    let (plan, events) = (plan(), events());
    let (expected, counters) = run(&plan, &events, 1, None, 1);
    assert!(expected.main[0].len() > 2_000 && expected.late[0].len() > 100 && !expected.rejected[0].is_empty());
    for (size, threads) in [(7, 1), (4_096, 1), (65_536, 1), (65_536, 2), (4_096, 8), (1, 8)] {
        let (cut, cut_counters) = run(&plan, &events, size, None, threads);
        assert_eq!(cut_counters, counters);
        assert!(cut == expected, "batches of {size}, {threads} threads");
    }
}

/// Runs the events with the clock asked in between, after every so many batches.
fn asked_often(plan: &JobPlan, events: &[Event], every: usize) -> Collected {
    let mut engine = engine(plan, 1);
    let mut collected = Collected::default();
    let pushed = batches(events, 4_096);
    let appends: Vec<i64> = pushed.iter().map(|(_, batch)| batch.append_times[0]).collect();
    for (index, batch) in pushed.into_iter().enumerate() {
        engine.push(vec![batch]).expect("a good batch");
        let next = appends.get(index + 1).copied().unwrap_or(appends[index]);
        let mut clock = appends[index];
        while index % every == 0 && clock < next {
            clock = (clock + 700).min(next);
            engine.advance(AppendTime(clock)).expect("open");
        }
        collected.add(engine.drain());
    }
    engine.finish().expect("open");
    collected.add(engine.drain());
    collected
}

#[test]
fn how_often_the_clock_is_asked_does_not_show() {
    let (plan, events) = (plan(), events());
    let (expected, _) = run(&plan, &events, 4_096, None, 1);
    for every in [1, 50] {
        assert!(asked_often(&plan, &events, every) == expected, "asked after every {every} batches");
    }
}

#[test]
fn every_record_is_counted_or_late() {
    let events = events();
    let times = Times { bound_ms: 5, ..Times::default() };
    let plan = job(times, vec![windowed(WindowKind::Tumble { size_ms: 20, offset_ms: 0 }, calls())]);
    let (collected, counters) = run(&plan, &events, 1_000, None, 1);
    let counted = |line: &String| line.split('|').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a count");
    let counted: u64 = values(&collected.main).iter().map(counted).sum();
    assert_eq!(counters.rows_in, 8_000);
    assert_eq!(counted + counters.late + counters.rejected, 8_000);
    assert!(counters.late > 100 && counters.rejected > 20, "{counters:?}");
    assert_eq!(counters.rows_out, [collected.main[0].len() as u64]);
}

/// Two sources over one topic into one output: what one batch makes lies between what the other makes, by position.
#[test]
fn sources_of_one_output_are_one_order() {
    let events = events();
    let mut plan = plan();
    plan.sources.push(source(Times { bound_ms: 10, idle_ms: Some(7), quiet_close: true, max_future_ms: 1 << 40 }));
    plan.pipelines[1].source = 1;
    plan.pipelines[3].source = 1;
    let doubled = |size: usize| {
        let both = |(_, batch): (usize, LogBatch)| [(0, batch.clone()), (1, batch)];
        batches(&events, size).into_iter().flat_map(both).collect::<Vec<_>>()
    };
    let mut whole = engine(&plan, 1);
    whole.push(doubled(65_536)).expect("good batches");
    whole.finish().expect("open");
    let mut expected = Collected::default();
    expected.add(whole.drain());
    let (mut cut, mut collected) = (engine(&plan, 2), Collected::default());
    for pair in doubled(7).chunks(2) {
        cut.push(pair.to_vec()).expect("good batches");
        collected.add(cut.drain());
    }
    cut.finish().expect("open");
    collected.add(cut.drain());
    assert!(collected == expected);
    assert_eq!(cut.counters(), whole.counters());
}

/// Each millisecond brings keys never seen before and never seen again; what is held belongs to the windows that are open.
#[test]
fn keys_leave_with_their_windows() {
    for kind in [
        WindowKind::Tumble { size_ms: 10, offset_ms: 0 },
        WindowKind::Hop { size_ms: 20, slide_ms: 5, offset_ms: 0 },
        WindowKind::Cumulate { max_ms: 20, step_ms: 5, offset_ms: 0 },
        WindowKind::Session { gap_ms: 10 },
    ] {
        let mut engine = engine(&job(Times::default(), vec![windowed(kind, calls())]), 1);
        let mut most = 0;
        for ms in 0..1_000 {
            let fresh: Vec<Event> = (0..10).map(|n| event(ms, 0, &format!("{ms}-{n}"), ms, n)).collect();
            engine.push(batches(&fresh, 10)).expect("good batches");
            engine.drain();
            if ms == 500 {
                most = engine.state_byte_len();
            }
        }
        assert!(most > 1_000 && engine.state_byte_len() <= 2 * most, "{kind:?}: {most}, {}", engine.state_byte_len());
    }
}
