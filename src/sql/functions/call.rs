//! Function names, their arguments and results.

use super::super::cast;
use super::super::expr::Typed;
use super::super::types;
use super::kernel::make;
use super::nested;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

/// Calls a function by its name (any case).
pub(in super::super) fn call(name: &str, mut arguments: Vec<Typed>) -> Result<Typed, String> {
    let upper = name.to_ascii_uppercase();
    match (upper.as_str(), arguments.len()) {
        ("ITEM", 2) => {
            let place = arguments.remove(1);
            nested::item(arguments.remove(0), place)
        }
        ("CARDINALITY", 1) => nested::cardinality(arguments.remove(0)),
        ("TO_TIMESTAMP_LTZ", 1 | 2) => {
            let precision = arguments.get(1).and_then(Typed::value).cloned().unwrap_or(ScalarValue::Int32(Some(3)));
            let factor = if precision == ScalarValue::Int32(Some(0)) { 1000 } else { 1 };
            let value = cast::implicit(arguments.remove(0), &DataType::Int64)?;
            let nullable = value.nullable;
            let factor: i64 = factor;
            Ok(make("TO_TIMESTAMP_LTZ", factor.to_string(), vec![value], types::timestamp_ltz(), nullable, |args| {
                let factor: i64 = args.parameter.parse().unwrap_or(1);
                let value = args.long(0)?;
                args.longs(|row| Ok(value.get(row).map(|v| v.saturating_mul(factor))))
            }))
        }
        _ => Err(format!("unknown function {upper}")),
    }
}

/// All names, for hints.
pub(in super::super) fn names() -> impl Iterator<Item = &'static str> {
    ["ITEM", "CARDINALITY", "TO_TIMESTAMP_LTZ"].into_iter()
}
