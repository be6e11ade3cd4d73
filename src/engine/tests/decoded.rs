//! Records whose values were decoded when they were sealed give the same output bytes as records whose values are decoded now,
//! in any mix and however they are cut, and late and rejected records are the same although they were read in parts.

use super::*;
use crate::format;
use crate::format::JsonOptions;
use crate::log::records::{DecodedValues, Header, Partitioning};
use crate::types::PartitionId;
use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion_physical_expr::expressions::BinaryExpr;
use proptest::prelude::*;

/// The columns of the source, and one more that only history decodes and refuses NULL.
fn declared() -> SchemaRef {
    let mut fields: Vec<Field> = source_schema().fields().iter().map(|field| (**field).clone()).collect();
    fields.push(Field::new("extra", DataType::Int32, false));
    Arc::new(Schema::new(fields))
}

fn json() -> FormatSpec {
    FormatSpec::Json(JsonOptions::default())
}

/// A window that some records are late for, and a division by `v` that fails where it is 0.
fn plan() -> JobPlan {
    let hop = WindowKind::Hop { size_ms: 20, slide_ms: 10, offset_ms: 0 };
    let quotient: Expr = Arc::new(BinaryExpr::new(lit(100i64), Operator::Divide, column("v")));
    let columns = vec![named("k", column("k"), &source_schema()), named("q", quotient, &source_schema())];
    let projected = Arc::new(Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()));
    let project = Step::Project { columns, schema: projected.clone() };
    let divided = PipelinePlan { output: 1, ..pipeline(vec![project]) };
    let mut plan = job(Times { max_future_ms: 1_000, ..Times::default() }, vec![windowed(hop, calls())]);
    plan.sources[0].format = json();
    plan.sources[0].declared = declared();
    plan.outputs[0].format = json();
    plan.outputs.push(OutputPlan { table: "q".to_owned(), schema: projected, ..plan.outputs[0].clone() });
    plan.pipelines.push(divided);
    plan
}

#[derive(Debug, Clone)]
struct Row {
    append_step_ms: u8,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    has_header: bool,
}

fn values() -> impl Strategy<Value = Option<Vec<u8>>> {
    let number = prop_oneof![4 => (-3i64..4).prop_map(|v| v.to_string()), 1 => Just("null".to_owned()),
        1 => any::<i64>().prop_map(|v| v.to_string()), 1 => Just("1e400".to_owned())];
    let time = prop_oneof![
        8 => (0u32..90).prop_map(|ms| format!("1970-01-01 00:00:00.{ms:03}")),
        1 => Just("2026-01-01 00:00:00".to_owned()),
        1 => Just("9999-12-31 23:59:59.999".to_owned()),
        1 => Just("soon".to_owned()),
    ];
    let extra = prop_oneof![4 => Just(",\"extra\":1".to_owned()), 1 => Just(String::new()),
        1 => Just(",\"extra\":\"x\"".to_owned())];
    let object = ("[a-c]", time, number, extra)
        .prop_map(|(k, ts, v, extra)| format!("{{\"k\":\"{k}\",\"ts\":\"{ts}\",\"v\":{v},\"d\":0.1{extra}}}"));
    prop_oneof![
        20 => object.prop_map(|text| Some(text.into_bytes())),
        1 => Just(Some(b"{\"k\":\"a\",\"extra\":1}".to_vec())),
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        1 => Just(Some(b"\xff{".to_vec())),
    ]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0u8..3, prop::option::of(prop::collection::vec(any::<u8>(), 0..3)), values(), any::<bool>())
        .prop_map(|(append_step_ms, key, value, has_header)| Row { append_step_ms, key, value, has_header });
    prop::collection::vec(row, 1..60)
}

/// All rows as one batch, whole. Every third position belongs to some other topic.
fn whole(rows: &[Row]) -> LogBatch {
    let header: &[Header<'_>] = &[("h", Some(b"1"))];
    let mut encoded = Vec::new();
    crate::log::records::encode_headers(header, &mut encoded);
    let mut clock = 0;
    let clocks = rows.iter().map(|row| {
        clock += i64::from(row.append_step_ms) * 1000;
        clock
    });
    LogBatch {
        topic: TopicId(1),
        append_times: clocks.collect(),
        positions: (0..rows.len() as u64).map(|n| n + n / 2).collect(),
        partitions: rows.iter().map(|_| 0).collect(),
        offsets: (0..rows.len() as u64).collect(),
        timestamps: rows.iter().map(|row| row.key.as_ref().map(|key| key.len() as i64)).collect(),
        keys: rows.iter().map(|row| row.key.as_deref()).collect(),
        values: rows.iter().map(|row| row.value.as_deref()).collect(),
        headers: rows.iter().map(|row| Some(if row.has_header { &encoded[..] } else { b"" })).collect(),
        decoded: None,
    }
}

/// What history hands out for a batch: the used columns, and the values of rows that did not decode to all declared columns.
fn sealed(batch: &LogBatch) -> LogBatch {
    let all: Vec<usize> = (0..declared().fields().len()).collect();
    let decoder = format::decoder(&json(), &declared(), &all).expect("a decoder");
    let decoded = decoder.decode(&batch.values);
    let rows = decoded.rows.unwrap_or_else(|| (0..batch.len() as u32).collect());
    let place = |row: u32| rows.binary_search(&row).ok().map(|place| place as u32);
    let places: UInt32Array = (0..batch.len() as u32).map(place).collect();
    let spread = |column: &ArrayRef| take(column, &places, None).expect("places in the batch");
    let schema = source_schema();
    let columns = decoded.batch.columns()[..schema.fields().len()].iter().map(spread).collect();
    let undecoded: Vec<u32> = decoded.rejected.iter().map(|rejected| rejected.row).collect();
    let kept = |row: usize| undecoded.contains(&(row as u32)) && batch.values.is_valid(row);
    let nothing = || BinaryArray::from(vec![None::<&[u8]>; batch.len()]);
    LogBatch {
        keys: nothing(),
        headers: nothing(),
        values: (0..batch.len()).map(|row| kept(row).then(|| batch.values.value(row))).collect(),
        decoded: Some(DecodedValues { columns: RecordBatch::try_new(schema, columns).expect("columns"), undecoded }),
        ..batch.clone()
    }
}

/// The log, when it is asked for records again.
fn originals(log: &LogBatch, positions: &[u64]) -> RecordColumns {
    let mut found = RecordColumns::default();
    for position in positions {
        let row = log.positions.binary_search(position).expect("a record");
        let bytes = |column: &BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
        let headers = bytes(&log.headers).unwrap_or_default();
        let to = Partitioning::Fixed(PartitionId(0));
        found.push_encoded(to, None, bytes(&log.keys).as_deref(), bytes(&log.values).as_deref(), &headers);
    }
    found
}

fn start(plan: &JobPlan, threads: usize) -> Engine {
    let options = EngineOptions { threads, ..EngineOptions::default() };
    Engine::new(Arc::new(plan.clone()), vec![1], options).expect("a good plan")
}

proptest! {
    #[test]
    fn decoded_or_not_gives_the_same_bytes(
        rows in rows(),
        cuts in prop::collection::vec((1usize..20, any::<bool>(), any::<bool>()), 1..12),
        threads in 1usize..3,
    ) {
        let (plan, log) = (plan(), whole(&rows));
        let mut engine = start(&plan, 1);
        let mut expected = Collected::default();
        engine.push(vec![(0, log.clone())]).expect("good");
        engine.finish().expect("open");
        expected.add(engine.drain());

        let mut cut = start(&plan, threads);
        let mut collected = Collected::default();
        let (mut from, mut cuts, mut stride) = (0, cuts.iter().cycle(), Vec::new());
        while from < log.len() {
            let (size, decoded, push) = *cuts.next().expect("endless");
            let piece = log.slice(from, (from + size).min(log.len()));
            from += piece.len();
            stride.push((0, if decoded { sealed(&piece) } else { piece }));
            if push || from == log.len() {
                cut.push_parts(std::mem::take(&mut stride), &mut |_, positions| Ok(originals(&log, positions)))
                    .expect("good");
                collected.add(cut.drain());
            }
        }
        cut.finish().expect("open");
        collected.add(cut.drain());
        prop_assert_eq!(&collected, &expected);
        prop_assert_eq!(cut.counters(), engine.counters());
    }
}

#[test]
fn the_records_of_the_property_are_of_all_kinds() {
    let row = |value: &str| Row { append_step_ms: 1, key: None, value: Some(value.into()), has_header: true };
    let object = |ms: u32, v: i64, extra: &str| {
        row(&format!("{{\"k\":\"a\",\"ts\":\"1970-01-01 00:00:00.{ms:03}\",\"v\":{v},\"d\":0.1{extra}}}"))
    };
    let rows = [object(1, 1, ",\"extra\":1"), object(80, 0, ""), object(2, 3, ",\"extra\":1"), row("{")];
    let log = whole(&rows);
    let parts = sealed(&log);
    assert_eq!(parts.decoded.as_ref().expect("decoded").undecoded, [1, 3]);
    assert_eq!((parts.values.null_count(), parts.keys.null_count()), (2, 4));
    let mut engine = start(&plan(), 1);
    let mut asked = Vec::new();
    let read = &mut |_: usize, positions: &[u64]| {
        asked.extend_from_slice(positions);
        Ok(originals(&log, positions))
    };
    engine.push_parts(vec![(0, parts)], read).expect("good");
    let mut out = Collected::default();
    out.add(engine.drain());
    assert_eq!(asked, [1, 3, 4], "the division, the late record and the bad one, each once");
    assert_eq!(super::values(&out.late), [String::from_utf8_lossy(rows[2].value.as_deref().expect("some"))]);
    assert_eq!(header(&out.late[0], 0, "h").as_deref(), Some("1"));
    assert_eq!(out.rejected.iter().map(RecordColumns::len).collect::<Vec<_>>(), [1, 2]);
}
