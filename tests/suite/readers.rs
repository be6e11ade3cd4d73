//! Others read the history as it is: pyarrow and DuckDB, both from PyPI, give the rows that were written.

use crate::util::{Place, root};
use arrow::array::{BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use kappa::format::{FormatSpec, JsonOptions};
use kappa::log::TopicConfig;
use kappa::log::history::schema::TopicSpec;
use kappa::log::history::write::{FileWriter, GroupLimits};
use kappa::log::records::{LogBatch, ValueColumns};
use kappa::types::TopicId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const ROWS: u64 = 5_000;
const PACKAGES: [&str; 2] = ["pyarrow==26.0.1", "duckdb==2.0.0"];

fn declared() -> SchemaRef {
    let inner = Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
    ]);
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int32, true)]);
    let entries = Arc::new(Field::new("entries", DataType::Struct(pair), false));
    let ms = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Millisecond, zone.map(Into::into));
    let fields = [
        ("flag", DataType::Boolean),
        ("tiny", DataType::Int8),
        ("small", DataType::Int16),
        ("whole", DataType::Int32),
        ("large", DataType::Int64),
        ("real", DataType::Float32),
        ("double", DataType::Float64),
        ("cents", DataType::Decimal128(9, 2)),
        ("amount", DataType::Decimal128(38, 3)),
        ("text", DataType::Utf8),
        ("blob", DataType::Binary),
        ("day", DataType::Date32),
        ("clock", DataType::Time32(TimeUnit::Millisecond)),
        ("ts", ms(None)),
        ("ltz", ms(Some("UTC"))),
        ("row", DataType::Struct(inner)),
        ("map", DataType::Map(entries, false)),
    ];
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

/// The value of record `n`, and what its columns must be; `None`: it does not decode.
fn value(n: u64) -> (Option<String>, Option<Vec<Value>>) {
    let signed = n as i64 - 2_000;
    match n % 10 {
        3 => return (None, None),
        5 => return (Some("{}".to_owned()), Some(vec![Value::Null; declared().fields().len()])),
        7 => return (Some(format!("no JSON {n}")), None),
        _ => (),
    }
    let clock = format!("00:00:{:02}.{:03}", n / 1000 % 60, n % 1000);
    let text = format!(
        "{{\"flag\":{},\"tiny\":{},\"small\":{signed},\"whole\":{},\"large\":{},\"real\":{}.5,\"double\":{}e-1,\
         \"cents\":{signed}.25,\"amount\":\"1{n}2345678901234567890.125\",\"text\":\"ü {}\",\"blob\":\"AAH/\",\"day\":\"1970-01-{:02}\",\
         \"clock\":\"{clock}\",\"ts\":\"1970-01-01 {clock}\",\"ltz\":\"1969-12-31 23:59:59.{:03}Z\",\
         \"row\":{{\"a\":{n},\"l\":[\"x\",null,\"{n}\"]}},\"map\":{{\"k{}\":{},\"none\":null}}}}",
        n.is_multiple_of(2),
        n % 100,
        n * 1000,
        n << 40,
        n % 1000,
        signed,
        n % 7,
        1 + n % 28,
        n % 1000,
        n % 3,
        n % 50
    );
    let cents = if signed < 0 { format!("-{}.25", -signed) } else { format!("{signed}.25") };
    let columns = vec![
        json!(n.is_multiple_of(2)),
        json!(n % 100),
        json!(signed),
        json!(n * 1000),
        json!(n << 40),
        json!(format!("{:08x}", ((n % 1000) as f32 + 0.5).to_bits())),
        json!(format!("{:016x}", format!("{signed}e-1").parse::<f64>().expect("a number").to_bits())),
        json!(cents),
        json!(format!("1{n}2345678901234567890.125")),
        json!(format!("ü {}", n % 7)),
        json!("0001ff"),
        json!(n % 28),
        json!(n * 1000),
        json!(n * 1000),
        json!((n % 1000) as i64 * 1000 - 1_000_000),
        json!([n, ["x", null, n.to_string()]]),
        json!([[format!("k{}", n % 3), n % 50], ["none", null]]),
    ];
    (Some(text), Some(columns))
}

fn key(n: u64) -> Option<Vec<u8>> {
    match n % 5 {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some(vec![0xff, (n % 200) as u8]),
    }
}

fn timestamp_ms(n: u64) -> Option<i64> {
    (n % 4 != 1).then_some(n as i64 * 86_400_000 - 60_000_000_001)
}

fn headers(n: u64) -> &'static [u8] {
    if n.is_multiple_of(6) { b"\x01h\x00" } else { b"" }
}

fn batch() -> LogBatch {
    let rows = || 0..ROWS;
    LogBatch {
        topic: TopicId(1),
        positions: rows().map(|n| n + n / 100).collect(),
        append_times: rows().map(|n| 1_700_000_000_000_000 + (n / 10) as i64).collect(),
        partitions: rows().map(|n| (n % 3) as u32).collect(),
        offsets: rows().map(|n| n / 3).collect(),
        timestamps: rows().map(timestamp_ms).collect::<Int64Array>(),
        keys: rows().map(key).collect::<BinaryArray>(),
        values: rows().map(|n| value(n).0.map(String::into_bytes)).collect(),
        headers: rows().map(|n| Some(headers(n))).collect(),
        decoded: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a reader must print.
fn expected() -> Vec<String> {
    let own =
        ["_position", "_partition", "_offset", "_append_time", "_timestamp", "_key", "_headers", "_value", "_decoded"];
    let declared = declared();
    let names: Vec<&str> = own.into_iter().chain(declared.fields().iter().map(|field| field.name().as_str())).collect();
    let mut lines = vec![names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")];
    if let Some(first) = lines.first_mut() {
        *first = format!("[{first}]");
    }
    for n in 0..ROWS {
        let (value, columns) = value(n);
        let mut row = vec![
            json!(n + n / 100),
            json!(n % 3),
            json!(n / 3),
            json!(1_700_000_000_000_000 + n / 10),
            json!(timestamp_ms(n).map(|ms| ms * 1000)),
            json!(key(n).map(|key| hex(&key))),
            json!(hex(headers(n))),
            json!(value.map(|value| hex(value.as_bytes()))),
            json!(columns.is_some()),
        ];
        row.extend(columns.unwrap_or_else(|| vec![Value::Null; declared.fields().len()]));
        lines.push(Value::Array(row).to_string());
    }
    lines
}

fn write_file(path: &Path) {
    let format = FormatSpec::Json(JsonOptions::default());
    let columns = Some(Arc::new(ValueColumns { format, declared: declared(), used: vec![] }));
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    let topics = vec![TopicSpec { topic: TopicId(1), name: "all-types".to_owned(), config, columns }];
    let mut file = std::fs::File::create(path).expect("a file of the test");
    let limits = GroupLimits { rows: 2_000, ..GroupLimits::default() };
    let mut writer = FileWriter::new(&mut file, topics).expect("a writer").with_limits(limits);
    writer.push(&batch()).expect("pushed");
    writer.finish(1).expect("finished");
}

/// A Python that has the readers: installed once, below `target`. The reason if there is none.
fn python() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers");
    let python = dir.join("bin/python");
    let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned()),
        Err(cause) => Err(cause.to_string()),
    };
    let has = "import importlib.metadata as m, sys\nsys.exit(any(m.version(n) != v for n, v in (p.split('==') for p in sys.argv[1:])))";
    if run(Command::new(&python).args(["-c", has]).args(PACKAGES)).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir)).map_err(|why| format!("python3 -m venv: {why}"))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"];
    run(Command::new(&python).args(pip).args(PACKAGES)).map_err(|why| format!("pip install: {why}"))?;
    Ok(python)
}

#[test]
fn pyarrow_and_duckdb_read_the_rows_that_were_written() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            eprintln!("SKIPPED: not shown that pyarrow and DuckDB read history files: {why}");
            return;
        }
    };
    let place = Place::new();
    let file = place.path("history.parquet");
    write_file(&file);
    let expected = expected();
    for engine in ["pyarrow", "duckdb"] {
        let script = root().join("fixtures/read_history.py");
        let output = Command::new(&python).arg(script).arg(&file).arg(engine).output().expect("python starts");
        assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
        let got = String::from_utf8(output.stdout).expect("UTF-8");
        let got: Vec<&str> = got.lines().collect();
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got, expected, "{engine}: line {at}");
        }
        assert_eq!(got.len(), expected.len(), "{engine}: rows");
    }
}
