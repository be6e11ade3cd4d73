//! Flink's rules for JSON, checked against what Flink 2.2 does, and the scanner against serde_json.

use super::scan::{Scanner, unescape};
use crate::format::tests::{decode, encoded, one};
use crate::format::{FormatSpec, JsonOptions, TimestampFormat};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn spec() -> FormatSpec {
    FormatSpec::Json(JsonOptions::default())
}

fn v(data_type: DataType, value: &str) -> Option<String> {
    let text = one(&spec(), data_type, &format!(r#"{{"v":{value}}}"#)).ok()?;
    Some(text.strip_prefix(r#"{"v":"#)?.strip_suffix('}')?.to_owned())
}

fn scan(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.at_object() && scanner.members(0, |_| ()).is_ok() && scanner.end().is_ok()
}

/// JSON texts, mostly well-formed, with odd white space, numbers and escapes.
fn arb_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        "[0-9.eE+-]{1,6}",
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string is JSON")),
        "\"([a-z]|\\\\[\"\\\\/bfnrtu]|\\\\u[0-9a-f]{4}){0,12}\"",
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let space = "[ \n\r\t]{0,2}";
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space)
                .prop_map(|(all, s)| format!("[{s}{}{s}]", all.join(","))),
            (prop::collection::vec(("[a-d]{1,2}", inner), 0..4), space).prop_map(|(all, s)| {
                let members: Vec<_> = all.iter().map(|(key, value)| format!("{s}\"{key}\"{s}:{s}{value}{s}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn the_scanner_takes_what_serde_json_takes(text in arb_json(), cut in any::<prop::sample::Index>(), byte in any::<char>()) {
        let text = format!("{{\"k\":{text}}}");
        let mut mutated = text.clone();
        let at = mutated.floor_char_boundary(cut.index(mutated.len()));
        mutated.insert(at, byte);
        let mut dropped = text.clone();
        dropped.remove(at);
        for text in [text, mutated, dropped] {
            let expected = serde_json::from_str::<IgnoredAny>(&text).is_ok() && text.trim_start().starts_with('{');
            prop_assert_eq!(scan(&text), expected, "{}", text);
        }
    }

    #[test]
    fn strings_come_out_as_serde_json_reads_them(raw in "([a-zü€😀]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude0[0-9]){0,12}") {
        let expected = serde_json::from_str::<String>(&format!("\"{raw}\"")).ok();
        prop_assert_eq!(unescape(&raw), expected);
    }

    #[test]
    fn strings_are_written_as_json(text in any::<String>()) {
        let mut out = Vec::new();
        super::encode::put_text(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
    }

    /// Values of used fields are those that serde_json finds (the last of a name).
    #[test]
    fn fields_are_those_of_serde_json(value in arb_json(), other in arb_json()) {
        let text = format!("{{\"x\":{other}, \"v\" : {value},\"y\":{other}}}");
        let decoded = decode(&spec(), vec![Field::new("v", DataType::Utf8, true)], &[&text]);
        let Ok(expected) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(()) };
        let found = match decoded.rejected.first() {
            Some(rejected) => panic!("{text}: {}", rejected.reason),
            None => encoded(&spec(), &decoded.batch).remove(0),
        };
        let found: serde_json::Value = serde_json::from_str(&found).expect("the encoder writes JSON");
        match &expected["v"] {
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                let inner: serde_json::Value = serde_json::from_str(found["v"].as_str().expect("text")).expect("JSON");
                prop_assert_eq!(as_floats(inner), as_floats(expected["v"].clone()));
            }
            serde_json::Value::String(_) | serde_json::Value::Null => prop_assert_eq!(&found["v"], &expected["v"]),
            _ => prop_assert_eq!(found["v"].as_str(), Some(value.as_str())),
        }
    }
}

/// serde_json reads the last digit of some floats differently, and integers beyond 64 bits become floats: ten digits count.
fn as_floats(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Number(number) => {
            number.as_f64().map_or(serde_json::Value::Null, |float| format!("{float:.9e}").into())
        }
        serde_json::Value::Array(all) => all.into_iter().map(as_floats).collect(),
        serde_json::Value::Object(all) => all.into_iter().map(|(key, value)| (key, as_floats(value))).collect(),
        other => other,
    }
}

/// Each line: type, JSON value, what comes out (as JSON) or `-` for a rejected row. From runs of Flink 2.2.
#[test]
fn values_convert_as_in_flink() {
    let (int, long, tiny) = (DataType::Int32, DataType::Int64, DataType::Int8);
    let (double, text, bool) = (DataType::Float64, DataType::Utf8, DataType::Boolean);
    let (decimal, bytes, date) = (DataType::Decimal128(5, 2), DataType::Binary, DataType::Date32);
    let cases = [
        (&int, "1.5", "1"),
        (&int, "1e2", "100"),
        (&int, "\"12\"", "12"),
        (&int, "\" 12 \"", "12"),
        (&int, "\"+12\"", "12"),
        (&int, "\"1.5\"", "-"),
        (&int, "\"\"", "-"),
        (&int, "3000000000", "-"),
        (&int, "true", "-"),
        (&int, "{\"a\":1}", "-"),
        (&tiny, "1.5", "-"),
        (&tiny, "300", "-"),
        (&long, "1.9", "1"),
        (&long, "-1.9", "-1"),
        (&long, "1e30", "-"),
        (&long, "-0.5", "0"),
        (&double, "\"NaN\"", "\"NaN\""),
        (&double, "\"1.5f\"", "1.5"),
        (&double, "\" 1.5 \"", "1.5"),
        (&double, "1e999", "\"Infinity\""),
        (&double, "\"inf\"", "-"),
        (&bool, "\"TRUE\"", "true"),
        (&bool, "\"yes\"", "false"),
        (&bool, "1", "false"),
        (&decimal, "\"1.005\"", "1.01"),
        (&decimal, "-1.005", "-1.01"),
        (&decimal, "12345.6", "null"),
        (&decimal, "1e1", "1E+1"),
        (&decimal, "\"\"", "-"),
        (&decimal, "1e-400", "0"),
        (&text, "1.50", "\"1.50\""),
        (&text, "true", "\"true\""),
        (&text, r#"{"a": 1.50, "b":[1, 2 ],"c":"x\u0041"}"#, r#""{\"a\":1.5,\"b\":[1,2],\"c\":\"xA\"}""#),
        (&text, "[1, null]", "\"[1,null]\""),
        (&text, "1e2", "\"1e2\""),
        (&text, "null", "null"),
        (&text, r#""\ud800""#, "-"),
        (&text, r#""q\"\\\n\u0001😀""#, r#""q\"\\\n\u0001\uD83D\uDE00""#),
        (&bytes, "\"AQID\"", "\"AQID\""),
        (&bytes, "\"AQI\"", "-"),
        (&bytes, "\"!!\"", "-"),
        (&bytes, "5", "-"),
        (&date, "\"2021-02-30\"", "-"),
        (&date, "5", "-"),
        (&date, "\"0001-01-01\"", "\"0001-01-01\""),
    ];
    for (data_type, value, expected) in cases {
        let found = v(data_type.clone(), value).unwrap_or_else(|| "-".to_owned());
        assert_eq!(found, expected, "{data_type}: {value}");
    }
}

#[test]
fn timestamps_convert_as_in_flink() {
    let plain = DataType::Timestamp(TimeUnit::Millisecond, None);
    let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let iso = FormatSpec::Json(JsonOptions { timestamps: TimestampFormat::Iso8601, ..JsonOptions::default() });
    let sql = spec();
    let cases = [
        (&sql, &plain, "2021-02-30 10:11:12", "2021-02-28 10:11:12"),
        (&sql, &plain, "2021-02-28 24:00:00", "2021-03-01 00:00:00"),
        (&sql, &plain, "2021-02-28 10:11:12.1234567", "2021-02-28 10:11:12.123"),
        (&sql, &plain, "2021-02-28 10:11:12.", "2021-02-28 10:11:12"),
        (&sql, &plain, "1969-12-31 23:59:59.9999", "1969-12-31 23:59:59.999"),
        (&sql, &plain, "2021-02-28 10:11:12.120", "2021-02-28 10:11:12.12"),
        (&sql, &plain, "2021-02-28 10:11", "-"),
        (&sql, &plain, "2021-02-28T10:11:12", "-"),
        (&sql, &plain, "2021-02-28 10:11:12Z", "-"),
        (&sql, &zoned, "2021-02-28 10:11:12.5Z", "2021-02-28 10:11:12.5Z"),
        (&sql, &zoned, "2021-02-28 10:11:12.5", "-"),
        (&iso, &plain, "2021-02-28T10:11", "2021-02-28 10:11:00"),
        (&iso, &plain, "2021-02-28T10:11:12.5", "2021-02-28 10:11:12.5"),
        (&iso, &plain, "2021-13-28T10:11:12.5", "-"),
    ];
    for (spec, data_type, value, expected) in cases {
        let found = one(spec, data_type.clone(), &format!(r#"{{"v":"{value}"}}"#));
        assert_eq!(
            found.unwrap_or_else(|_| "-".to_owned()).replace(r#"{"v":""#, "").replace("\"}", ""),
            expected,
            "{value}"
        );
    }
    assert!(one(&sql, plain, r#"{"v":1600000000}"#).is_err());
}

#[test]
fn what_is_wrong_is_said_with_column_and_value() {
    let fields =
        || vec![Field::new("price", DataType::Decimal128(10, 2), true), Field::new("id", DataType::Int64, false)];
    let values = [
        r#"{"id":1,"price":"cheap"}"#,
        r#"{"price":1}"#,
        r#"{"id":1,"price":2}"#,
        r#"{"id":1} x"#,
        "[1]",
        r#"{"id":1,}"#,
        r#"{"id":1,"id":2,"price":null}"#,
    ];
    let decoded = decode(&spec(), fields(), &values);
    let reasons: Vec<(u32, &str)> = decoded.rejected.iter().map(|bad| (bad.row, bad.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (0, "column 'price': \"cheap\" is not a DECIMAL(10, 2)"),
            (1, "column 'id': NULL in a column declared NOT NULL"),
            (3, "not JSON at byte 9: characters behind the end of the value: \"{\\\"id\\\":1} x\""),
            (4, "not a JSON object: \"[1]\""),
            (5, "not JSON at byte 8: a field name in quotes was expected: \"{\\\"id\\\":1,}\""),
        ]
    );
    assert_eq!(decoded.rows, Some(vec![2, 6]));
    assert_eq!(encoded(&spec(), &decoded.batch), [r#"{"price":2,"id":1}"#, r#"{"price":null,"id":2}"#]);
    let strict = FormatSpec::Json(JsonOptions { fail_on_missing_field: true, ..JsonOptions::default() });
    let decoded = decode(&strict, fields(), &[r#"{"id":1}"#, r#"{"id":1,"price":null}"#]);
    assert_eq!(decoded.rejected[0].reason, "column 'price': the field is missing");
    assert_eq!(decoded.rows, Some(vec![1]));
}

#[test]
fn nested_values() {
    let inner = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, false)]);
    let entries =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int32, true)]);
    let entries = Field::new("entries", DataType::Struct(entries), false);
    let list = DataType::List(Field::new("element", DataType::Int32, false).into());
    let fields = vec![
        Field::new("row", DataType::Struct(inner.clone()), true),
        Field::new("list", list, true),
        Field::new("map", DataType::Map(entries.into(), false), true),
        Field::new("rows", DataType::List(Field::new("element", DataType::Struct(inner), true).into()), true),
    ];
    let values = [
        r#"{"row":{"b":"x","z":[{}],"a":1},"list":[1, 2],"map":{"k":1,"l":null,"k":3},"rows":[{"b":"y"},null]}"#,
        r#"{"row":{"a":1},"list":[],"map":{},"rows":[]}"#,
        r#"{"list":[1,null,2]}"#,
        r#"{"rows":[{"b":"y"},{"b":null},7]}"#,
        r#"{"map":{"k":"many"}}"#,
        r#"{"row":[1]}"#,
        r#"{"row":null,"list":[],"map":{},"rows":[]}"#,
        "{}",
    ];
    let decoded = decode(&spec(), fields, &values);
    assert_eq!(decoded.rows, Some(vec![0, 6, 7]));
    assert_eq!(
        encoded(&spec(), &decoded.batch),
        [
            r#"{"row":{"a":1,"b":"x"},"list":[1,2],"map":{"k":3,"l":null},"rows":[{"a":null,"b":"y"},null]}"#,
            r#"{"row":null,"list":[],"map":{},"rows":[]}"#,
            r#"{"row":null,"list":null,"map":null,"rows":null}"#,
        ]
    );
    let reasons: Vec<&str> = decoded.rejected.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "column 'row': column 'b': NULL in a column declared NOT NULL",
            "column 'list': column 'element': NULL in a column declared NOT NULL",
            "column 'rows': column 'element': column 'b': NULL in a column declared NOT NULL",
            "column 'map': column 'value': \"many\" is not a INT",
            "column 'row': \"[1]\" is not a ROW",
        ]
    );
}

#[test]
fn names_match_with_escapes_and_by_case() {
    let fields = vec![Field::new("ä\"b", DataType::Int32, true), Field::new("V", DataType::Int32, true)];
    let decoded = decode(&spec(), fields, &[r#"{"\u00e4\"b":1,"v":2}"#]);
    assert_eq!(encoded(&spec(), &decoded.batch), [r#"{"ä\"b":1,"V":null}"#]);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{{\"v\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(scan(&nested(127)));
    assert!(!scan(&nested(128)));
    assert!(!scan(&nested(1_000_000)));
}

#[test]
fn numbers_print_as_in_java() {
    let cases = [
        "100.0",
        "1.0E10",
        "1.0E-5",
        "0.001",
        "9999999.0",
        "1.0E7",
        "123456.789",
        "1.0E-4",
        "4.9E-324",
        "1.7976931348623157E308",
        "-0.0",
        "0.1",
        "0.002",
    ];
    for case in cases {
        // Java prints the smallest double with two digits, Rust with the one that is needed.
        let expected = if case == "4.9E-324" { "5.0E-324" } else { case };
        assert_eq!(v(DataType::Float64, case).as_deref(), Some(expected), "{case}");
    }
    assert_eq!(v(DataType::Float32, "16777216").as_deref(), Some("1.6777216E7"));
    let decimals =
        [("10.000", "1E+1"), ("0.000", "0"), ("-1234.560", "-1234.56"), ("0.00000001", "1E-8"), ("1.5", "1.5")];
    for (value, expected) in decimals {
        assert_eq!(v(DataType::Decimal128(20, 8), value).as_deref(), Some(expected), "{value}");
    }
}
