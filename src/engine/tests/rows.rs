//! Output records and what becomes of rows that are bad, late, or far in the future.

use super::*;
use crate::format::JsonOptions;
use datafusion_physical_expr::expressions::BinaryExpr;

const MINUTE: WindowKind = WindowKind::Tumble { size_ms: 60_000, offset_ms: 0 };

fn output_of(plan: &JobPlan, events: &[Event]) -> (Collected, Counters) {
    run(plan, events, 100, None, 1)
}

fn count_by_key() -> PipelinePlan {
    windowed(MINUTE, vec![call(AggregateFunction::Count, None, false)])
}

/// `SELECT k, 100 / v AS q`.
fn divide() -> Step {
    let quotient: Expr = Arc::new(BinaryExpr::new(lit(100i64), Operator::Divide, column("v")));
    let columns = vec![named("k", column("k"), &source_schema()), named("q", quotient, &source_schema())];
    let schema = Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>());
    Step::Project { columns, schema: Arc::new(schema) }
}

#[test]
fn a_window_record() {
    let plan = job(Times::default(), vec![count_by_key()]);
    let (out, _) = output_of(&plan, &[event(1, 0, "a", 61_000, 1), event(2, 0, "a", 62_000, 1)]);
    let record = &out.main[0];
    assert_eq!(values(&out.main), ["a|2|60000|120000|119999"]);
    assert_eq!((record.keys.get(0), record.timestamps_ms[0]), (Some(&b"a"[..]), Some(119_999)));
    assert_eq!(record.partitions[0], Some(0));
    let headers = [("revision", "0"), ("pane", "on-time"), ("op", "insert")].map(|(n, v)| (n, Some(v.as_bytes())));
    assert_eq!(decode_headers(record.headers.get(0).expect("headers")).expect("encoded"), headers);
}

#[test]
fn a_late_record_is_the_original_and_says_what_it_missed() {
    let plan = job(Times::default(), vec![count_by_key()]);
    let events = [event(1, 0, "a", 125_000, 1), event(2, 3, "b", 10, 2)];
    let (out, counters) = output_of(&plan, &events);
    let late = &out.late[0];
    assert_eq!((late.keys.get(0), late.values.get(0)), (Some(&b"rk"[..]), Some(&b"b|10|2"[..])));
    assert_eq!(late.timestamps_ms, [Some(7)]);
    for (name, value) in [
        ("reason", "late"),
        ("watermark", "1970-01-01T00:02:05.000Z"),
        ("windows", "[1970-01-01T00:00:00.000Z,1970-01-01T00:01:00.000Z)"),
        ("topic", "t"),
        ("partition", "3"),
        ("offset", "1"),
    ] {
        assert_eq!(header(late, 0, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((counters.late, counters.partly_late), (1, 0));
}

#[test]
fn partly_late_rows_count_in_the_open_windows() {
    let hop = WindowKind::Hop { size_ms: 10, slide_ms: 5, offset_ms: 0 };
    let plan = job(Times::default(), vec![windowed(hop, vec![call(AggregateFunction::Count, None, false)])]);
    let (out, counters) = output_of(&plan, &[event(1, 0, "a", 6, 0), event(1, 0, "a", 3, 0)]);
    assert_eq!(values(&out.main), ["a|2|0|10|9", "a|1|5|15|14"]);
    assert_eq!(values(&out.late), ["a|3|0"]);
    assert_eq!(header(&out.late[0], 0, "reason").as_deref(), Some("partly late"));
    assert_eq!(
        header(&out.late[0], 0, "windows").as_deref(),
        Some("[1969-12-31T23:59:59.995Z,1970-01-01T00:00:00.005Z)"),
        "it misses this one and counts in the other"
    );
    assert_eq!((counters.late, counters.partly_late), (0, 1));
}

#[test]
fn one_batch_that_spans_a_session_gap() {
    let session = windowed(WindowKind::Session { gap_ms: 10 }, vec![call(AggregateFunction::Count, None, false)]);
    let events = [0, 5, 100, 101].map(|time| event(1, 0, "a", time, 0));
    let (out, _) = output_of(&job(Times::default(), vec![session]), &events);
    assert_eq!(values(&out.main), ["a|2|0|15|14", "a|2|100|111|110"]);
}

#[test]
fn rows_that_do_not_decode_go_to_each_output_once() {
    let mut plan = job(Times::default(), vec![count_by_key(), count_by_key(), pipeline(vec![])]);
    let other = OutputPlan { table: "p".to_owned(), schema: source_schema(), ..plan.outputs[0].clone() };
    plan.outputs.push(other);
    plan.outputs[0].schema = plan.pipelines[0].steps[0].schema().expect("a window").clone();
    plan.pipelines[2].output = 1;
    let bad = Event { append_us: 5, partition: 2, value: "bad".to_owned() };
    let (out, counters) = output_of(&plan, &[bad.clone(), event(1, 0, "a", 1, 1)]);
    for rejected in &out.rejected {
        assert_eq!((rejected.len(), rejected.values.get(0)), (1, Some(&b"bad"[..])));
        assert_eq!(header(rejected, 0, "reason").as_deref(), Some("\"bad\" has 1 fields"));
        assert_eq!(header(rejected, 0, "partition").as_deref(), Some("2"));
    }
    assert_eq!((out.rejected.len(), counters.rejected, counters.rows_in), (2, 2, 2));
    plan.sources[0].ignore_parse_errors = true;
    let (out, counters) = output_of(&plan, &[bad, event(1, 0, "a", 1, 1)]);
    assert_eq!((out.rejected.len(), counters.ignored_parse_errors, counters.rejected), (0, 1, 0));
}

#[test]
fn a_row_without_rowtime_is_rejected_and_moves_nothing() {
    let plan = job(Times::default(), vec![count_by_key()]);
    let missing = Event { append_us: 0, partition: 1, value: "a|none|1".to_owned() };
    let (out, counters) = output_of(&plan, &[missing, event(1, 0, "a", 1, 1)]);
    assert_eq!(header(&out.rejected[0], 0, "reason").as_deref(), Some("rowtime column ts is NULL"));
    assert_eq!((counters.null_rowtime, counters.rejected), (1, 1));
    assert_eq!(values(&out.main), ["a|1|0|60000|59999"]);
}

#[test]
fn only_the_rows_that_cannot_be_evaluated_are_rejected() {
    let events: Vec<Event> = (0..100).map(|n| event(1, 0, "a", n, n % 40)).collect();
    let (out, counters) = output_of(&job(Times::default(), vec![pipeline(vec![divide()])]), &events);
    assert_eq!((out.main[0].len(), counters.rejected), (97, 3));
    assert_eq!(values(&out.main)[0], "a|100");
    assert_eq!(values(&out.rejected), ["a|0|0", "a|40|0", "a|80|0"]);
    assert!(header(&out.rejected[0], 0, "reason").is_some_and(|why| why.contains("ivide by zero")));
}

#[test]
fn a_window_result_that_cannot_be_evaluated_is_reported() {
    let mut pipeline = windowed(MINUTE, vec![call(AggregateFunction::Sum, Some("v"), false)]);
    let schema = pipeline.steps[0].schema().expect("a window").clone();
    let sum = col("a0", &schema).expect("a column");
    let quotient: Expr = Arc::new(BinaryExpr::new(lit(100i64), Operator::Divide, sum));
    let columns = vec![named("q", quotient, &schema)];
    let projected = Arc::new(Schema::new(vec![columns[0].field.clone()]));
    pipeline.steps.push(Step::Project { columns, schema: projected.clone() });
    let mut plan = job(Times::default(), vec![pipeline]);
    plan.outputs[0].schema = projected;
    let (out, counters) = output_of(&plan, &[event(1, 0, "a", 1, 0), event(1, 0, "b", 1, 5)]);
    assert_eq!(values(&out.main), ["20"]);
    assert_eq!(out.main[0].keys.get(0), Some(&b"b"[..]), "keys follow their rows");
    let windows = "[1970-01-01T00:00:00.000Z,1970-01-01T00:01:00.000Z)";
    assert_eq!(header(&out.rejected[0], 0, "windows").as_deref(), Some(windows));
    assert_eq!(counters.rejected, 1);
}

#[test]
fn a_filter_keeps_true_only() {
    let predicate: Expr = Arc::new(BinaryExpr::new(column("v"), Operator::Gt, lit(1i64)));
    let plan = job(Times::default(), vec![pipeline(vec![Step::Filter(predicate)])]);
    let null = Event { append_us: 0, partition: 0, value: "n|1|null".to_owned() };
    let (out, _) = output_of(&plan, &[null, event(1, 0, "a", 1, 1), event(1, 0, "b", 2, 2)]);
    assert_eq!(values(&out.main), ["b|2|2|0.35"]);
    assert_eq!((out.main[0].keys.get(0), out.main[0].timestamps_ms[0]), (None, Some(7)));
}

#[test]
fn filtered_rows_still_move_the_watermark() {
    let mut pipeline = count_by_key();
    let one = Step::Filter(Arc::new(BinaryExpr::new(column("v"), Operator::Eq, lit(1i64))));
    pipeline.steps.insert(0, one);
    let plan = job(Times::default(), vec![pipeline]);
    let mut engine = engine(&plan, 1);
    engine.push(batches(&[event(1, 0, "a", 1, 1), event(2, 0, "a", 60_000, 2)], 10)).expect("good");
    assert_eq!(engine.drain().len(), 1, "the window has closed");
    assert_eq!(engine.watermark(0), Some(60_000));
}

#[test]
fn far_future_rows_do_not_move_the_watermark() {
    let plan = job(Times { max_future_ms: 1_000, ..Times::default() }, vec![count_by_key()]);
    let events = [event(1_000, 0, "a", 2_000_000, 1), event(1_001, 0, "a", 5, 1)];
    let (out, counters) = output_of(&plan, &events);
    assert_eq!((counters.beyond_max_future, counters.late), (1, 0));
    assert_eq!(out.main[0].len(), 2);
}

#[test]
fn times_without_windows_are_rejected() {
    let plan = job(Times::default(), vec![count_by_key(), windowed(WindowKind::Session { gap_ms: 5 }, vec![])]);
    let (out, _) = output_of(&plan, &[event(1, 0, "a", i64::MAX - 1, 1), event(1, 0, "a", i64::MIN + 1, 1)]);
    let (start, end) = (i64::MIN + 1, i64::MIN + 6);
    assert_eq!(values(&out.main), [format!("a|{start}|{end}|{}", end - 1)], "the session at the start of time is fine");
    assert_eq!((values(&out.rejected).len(), values(&out.late).len()), (3, 0));
}

#[test]
fn keys_choose_partitions_only_where_there_are_several() {
    let mut plan = job(Times::default(), vec![count_by_key()]);
    plan.outputs[0].partitions = 4;
    let (out, _) = output_of(&plan, &[event(1, 0, "a", 1, 1)]);
    assert_eq!(out.main[0].partitions, [None], "by key, in the log");
    plan = job(Times::default(), vec![pipeline(vec![])]);
    plan.outputs[0].partitions = 4;
    let (out, _) = output_of(&plan, &[event(1, 0, "a", 1, 1)]);
    assert!(out.main[0].partitions[0].is_some(), "no key: a partition that no batch can change");
    plan.outputs[0].primary_key = vec![2];
    let (out, _) = output_of(&plan, &[event(1, 0, "a", 1, 1)]);
    assert_eq!(out.main[0].keys.get(0), Some(&b"1"[..]));
}

#[test]
fn windows_without_aggregation() {
    let mut fields: Vec<Field> = source_schema().fields().iter().map(|f| (**f).clone()).collect();
    fields.extend(["window_start", "window_end", "window_time"].map(|name| Field::new(name, ms_type(), false)));
    let kind = WindowKind::Hop { size_ms: 10, slide_ms: 5, offset_ms: 0 };
    let assign = Step::AssignWindows { kind, rowtime: 1, zone: None, schema: Arc::new(Schema::new(fields)) };
    let mut pipeline = pipeline(vec![assign]);
    pipeline.rowtime = Some(6);
    let (out, _) = output_of(&job(Times::default(), vec![pipeline]), &[event(1, 0, "a", -1, 1)]);
    assert_eq!(values(&out.main), ["a|-1|1|0.225|-10|0|-1", "a|-1|1|0.225|-5|5|4"]);
    assert_eq!(out.main[0].timestamps_ms, [Some(-1), Some(4)]);
}

#[test]
fn silent_partitions_are_named_only_if_they_hold_something_back() {
    let plan = job(Times::default(), vec![count_by_key()]);
    let mut engine = engine(&plan, 1);
    engine.push(batches(&[event(1, 1, "a", 10, 1), event(2, 0, "a", 20, 1)], 10)).expect("good");
    assert_eq!(engine.holding_partitions(AppendTime(5_000)), []);
    engine.push(batches(&[event(3, 0, "a", 70_000, 1)], 10)).expect("good");
    let held = engine.holding_partitions(AppendTime(3_000));
    assert_eq!(held.iter().map(|h| (h.partition, h.watermark_ms)).collect::<Vec<_>>(), [(1, Some(10))]);
    assert_eq!(engine.holding_partitions(AppendTime(500)), []);
}

#[test]
fn the_next_clock_step_is_known() {
    let times = Times { idle_ms: Some(10), quiet_close: true, ..Times::default() };
    let mut engine = engine(&job(times, vec![count_by_key()]), 1);
    assert_eq!(engine.next_due(), None);
    engine.push(batches(&[event(1, 0, "a", 59_990, 1)], 10)).expect("good");
    assert_eq!(engine.next_due(), Some(AppendTime(11_000)), "the partition becomes idle");
    engine.advance(AppendTime(11_000)).expect("open");
    assert_eq!(engine.next_due(), Some(AppendTime(20_000)), "the window closes 9 ms later");
    engine.advance(AppendTime(19_999)).expect("open");
    assert!(engine.drain().is_empty());
    engine.advance(AppendTime(20_000)).expect("open");
    assert_eq!((engine.drain().len(), engine.next_due()), (1, None));
}

#[test]
fn an_ended_engine_takes_nothing_more() {
    let mut engine = engine(&job(Times::default(), vec![count_by_key()]), 1);
    engine.finish().expect("open");
    assert!(engine.push(vec![]).is_err() && engine.finish().is_err());
}

#[test]
fn bad_plans_are_refused() {
    for kind in [
        WindowKind::Hop { size_ms: 10, slide_ms: 0, offset_ms: 0 },
        WindowKind::Count { size: 0, timeout_ms: None },
        WindowKind::Cumulate { max_ms: 3, step_ms: 10, offset_ms: 0 },
        WindowKind::Tumble { size_ms: 0, offset_ms: 0 },
        WindowKind::Session { gap_ms: 0 },
    ] {
        let plan = Arc::new(job(Times::default(), vec![windowed(kind, vec![])]));
        assert!(Engine::with_codecs(plan, &[1], EngineOptions::default(), LINES, None).is_err(), "{kind:?}");
    }
}

#[test]
fn through_the_real_formats() {
    let mut plan = job(Times::default(), vec![count_by_key()]);
    plan.sources[0].format = FormatSpec::Json(JsonOptions::default());
    plan.sources[0].used = vec![0, 1];
    plan.sources[0].columns.truncate(2);
    plan.sources[0].schema = Arc::new(source_schema().project(&[0, 1]).expect("columns"));
    plan.outputs[0].format = FormatSpec::Json(JsonOptions::default());
    let mut engine = Engine::new(Arc::new(plan), vec![1], EngineOptions::default()).expect("a good plan");
    let value = r#"{"k":"a","ts":"1970-01-01 00:00:01.000","v":1}"#.to_owned();
    let good = Event { append_us: 0, partition: 0, value };
    let bad = Event { append_us: 0, partition: 0, value: "{".to_owned() };
    engine.push(batches(&[good, bad], 10)).expect("good batches");
    engine.finish().expect("open");
    let mut out = Collected::default();
    out.add(engine.drain());
    let expected = r#"{"k":"a","a0":1,"window_start":"1970-01-01 00:00:00","window_end":"1970-01-01 00:01:00","window_time":"1970-01-01 00:00:59.999"}"#;
    assert_eq!(values(&out.main), [expected]);
    assert_eq!(out.main[0].keys.get(0), Some(&br#"{"k":"a"}"#[..]));
    assert_eq!(values(&out.rejected), ["{"]);
}
