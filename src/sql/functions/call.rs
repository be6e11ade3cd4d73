//! Function names, their arguments and results.

use super::super::expr::{Typed, binary_expr, case_expr};
use super::super::{arithmetic, cast, types};
use super::kernel::{Kernel, make};
use super::{math, nested, text, time};
use crate::engine::plan::Zone;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::IsNullExpr;
use std::sync::Arc;

/// What an argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Long,
}

/// A function with fixed kinds of arguments.
struct Simple {
    name: &'static str,
    kinds: &'static [Kind],
    /// The last `optional` arguments may be left out.
    optional: usize,
    result: DataType,
    /// NULL only if an argument is.
    strict: bool,
    kernel: Kernel,
}

use Kind::{Long, Text};

const fn simple(
    name: &'static str,
    kinds: &'static [Kind],
    optional: usize,
    result: DataType,
    strict: bool,
    kernel: Kernel,
) -> Simple {
    Simple { name, kinds, optional, result, strict, kernel }
}

const SIMPLE: &[Simple] = &[
    simple("UPPER", &[Text], 0, DataType::Utf8, true, text::UPPER),
    simple("LOWER", &[Text], 0, DataType::Utf8, true, text::LOWER),
    simple("INITCAP", &[Text], 0, DataType::Utf8, true, text::INITCAP),
    simple("REVERSE", &[Text], 0, DataType::Utf8, true, text::REVERSE),
    simple("CHAR_LENGTH", &[Text], 0, DataType::Int32, true, text::char_length),
    simple("CHARACTER_LENGTH", &[Text], 0, DataType::Int32, true, text::char_length),
    simple("ASCII", &[Text], 0, DataType::Int32, true, text::ascii),
    simple("SUBSTRING", &[Text, Long, Long], 1, DataType::Utf8, false, text::substring),
    simple("SUBSTR", &[Text, Long, Long], 1, DataType::Utf8, false, text::substring),
    simple("LEFT", &[Text, Long], 0, DataType::Utf8, true, text::LEFT),
    simple("RIGHT", &[Text, Long], 0, DataType::Utf8, true, text::RIGHT),
    simple("FIT_CHAR", &[Text, Long], 0, DataType::Utf8, true, text::FIT_CHAR),
    simple("REPEAT", &[Text, Long], 0, DataType::Utf8, false, text::REPEAT),
    simple("LPAD", &[Text, Long, Text], 0, DataType::Utf8, false, text::LPAD),
    simple("RPAD", &[Text, Long, Text], 0, DataType::Utf8, false, text::RPAD),
    simple("TRIM", &[Text, Text, Text], 0, DataType::Utf8, true, text::trim),
    simple("REPLACE", &[Text, Text, Text], 0, DataType::Utf8, true, text::replace),
    simple("POSITION", &[Text, Text], 0, DataType::Int32, true, text::position),
    simple("LOCATE", &[Text, Text], 0, DataType::Int32, true, text::position),
    simple("STARTSWITH", &[Text, Text], 0, DataType::Boolean, true, text::STARTSWITH),
    simple("ENDSWITH", &[Text, Text], 0, DataType::Boolean, true, text::ENDSWITH),
    simple("SPLIT_INDEX", &[Text, Text, Long], 0, DataType::Utf8, false, text::split_index),
    simple("OVERLAY", &[Text, Text, Long, Long], 1, DataType::Utf8, true, text::overlay),
    simple("LIKE", &[Text, Text, Text], 1, DataType::Boolean, true, text::like),
    simple("REGEXP", &[Text, Text], 0, DataType::Boolean, true, text::regexp),
    simple("REGEXP_EXTRACT", &[Text, Text, Long], 1, DataType::Utf8, false, text::regexp_extract),
];

/// Functions with rules of their own, and how many arguments they take.
const OTHERS: &[(&str, usize, usize)] = &[
    ("||", 2, 2),
    ("ABS", 1, 1),
    ("ACOS", 1, 1),
    ("ASIN", 1, 1),
    ("ATAN", 1, 1),
    ("ATAN2", 2, 2),
    ("BTRIM", 1, 2),
    ("CARDINALITY", 1, 1),
    ("CEIL", 1, 2),
    ("CEILING", 1, 1),
    ("COALESCE", 1, 100),
    ("CONCAT", 1, 100),
    ("CONCAT_WS", 2, 100),
    ("COS", 1, 1),
    ("DATE_FORMAT", 2, 2),
    ("DAYOFMONTH", 1, 1),
    ("DAYOFWEEK", 1, 1),
    ("DAYOFYEAR", 1, 1),
    ("DEGREES", 1, 1),
    ("E", 0, 0),
    ("EXP", 1, 1),
    ("EXTRACT", 2, 2),
    ("FLOOR", 1, 2),
    ("FROM_UNIXTIME", 1, 2),
    ("GREATEST", 1, 100),
    ("HOUR", 1, 1),
    ("IF", 3, 3),
    ("IFNULL", 2, 2),
    ("INSTR", 2, 2),
    ("ITEM", 2, 2),
    ("LEAST", 1, 100),
    ("LN", 1, 1),
    ("LOG", 1, 2),
    ("LOG10", 1, 1),
    ("LOG2", 1, 1),
    ("LTRIM", 1, 2),
    ("MINUTE", 1, 1),
    ("MOD", 2, 2),
    ("MONTH", 1, 1),
    ("NULLIF", 2, 2),
    ("PI", 0, 0),
    ("POWER", 2, 2),
    ("QUARTER", 1, 1),
    ("RADIANS", 1, 1),
    ("ROUND", 1, 2),
    ("RTRIM", 1, 2),
    ("SECOND", 1, 1),
    ("SIGN", 1, 1),
    ("SIN", 1, 1),
    ("SQRT", 1, 1),
    ("TAN", 1, 1),
    ("TIMESTAMPADD", 3, 3),
    ("TIMESTAMPDIFF", 3, 3),
    ("TO_DATE", 1, 2),
    ("TO_TIMESTAMP", 1, 2),
    ("TO_TIMESTAMP_LTZ", 1, 2),
    ("TRUNCATE", 1, 2),
    ("UNIX_TIMESTAMP", 1, 2),
    ("WEEK", 1, 1),
    ("YEAR", 1, 1),
];

/// All names, for hints.
pub(in super::super) fn names() -> impl Iterator<Item = &'static str> {
    SIMPLE.iter().map(|simple| simple.name).chain(OTHERS.iter().map(|(name, ..)| *name))
}

/// Calls a function by its name (in capitals), in a session's time zone.
pub(in super::super) fn call(name: &str, arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    if let Some(simple) = SIMPLE.iter().find(|simple| simple.name == name) {
        return call_simple(simple, arguments);
    }
    let Some((name, least, most)) = OTHERS.iter().find(|(known, ..)| *known == name) else {
        return Err(format!("unknown function {name}"));
    };
    check_count(name, *least, *most, arguments.len())?;
    call_other(name, arguments, zone)
}

fn check_count(name: &str, least: usize, most: usize, given: usize) -> Result<(), String> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    let takes = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Err(format!("{name} takes {takes} arguments, {given} are given"))
}

fn call_simple(simple: &Simple, arguments: Vec<Typed>) -> Result<Typed, String> {
    let most = simple.kinds.len();
    check_count(simple.name, most - simple.optional, most, arguments.len())?;
    let mut values = Vec::new();
    for (argument, kind) in arguments.into_iter().zip(simple.kinds) {
        values.push(coerced(simple.name, argument, *kind)?);
    }
    let nullable = !simple.strict || values.iter().any(|value| value.nullable);
    make(simple.name, "", values, simple.result.clone(), nullable, simple.kernel).fold()
}

fn coerced(name: &str, argument: Typed, kind: Kind) -> Result<Typed, String> {
    let found = types::name(&argument.data_type);
    match (kind, &argument.data_type) {
        (Kind::Text, DataType::Utf8 | DataType::Null) => cast::implicit(argument, &DataType::Utf8),
        (Kind::Long, data_type) if data_type.is_integer() || *data_type == DataType::Null => {
            cast::implicit(argument, &DataType::Int64)
        }
        (Kind::Text, _) => Err(format!("{name} takes a STRING here, not {found}: CAST it")),
        (Kind::Long, _) => Err(format!("{name} takes an INT here, not {found}")),
    }
}

fn text_literal(value: &str) -> Typed {
    Typed::literal(ScalarValue::Utf8(Some(value.to_owned())))
}

fn call_other(name: &'static str, mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    match name {
        "||" | "CONCAT" | "CONCAT_WS" => texts(name, arguments),
        "ABS" | "SIGN" | "ROUND" | "TRUNCATE" => math::rounding(name, arguments),
        "FLOOR" | "CEIL" if arguments.len() == 2 => time::round_to(name, arguments, zone),
        "FLOOR" | "CEIL" => math::rounding(name, arguments),
        "CEILING" => math::rounding("CEIL", arguments),
        "SQRT" | "EXP" | "LN" | "LOG10" | "LOG2" | "SIN" | "COS" | "TAN" | "ASIN" | "ACOS" | "ATAN" | "DEGREES"
        | "RADIANS" => math::one_double(name, arguments.remove(0)),
        "LOG" if arguments.len() == 1 => math::one_double("LN", arguments.remove(0)),
        "LOG" | "POWER" | "ATAN2" => math::two_doubles(name, arguments),
        "PI" => Ok(Typed::literal(ScalarValue::Float64(Some(std::f64::consts::PI)))),
        "E" => Ok(Typed::literal(ScalarValue::Float64(Some(std::f64::consts::E)))),
        "GREATEST" | "LEAST" => math::extreme(name, arguments, zone),
        "MOD" => {
            let right = arguments.remove(1);
            arithmetic::modulo(arguments.remove(0), right)
        }
        "COALESCE" | "IFNULL" => coalesce(arguments, zone),
        "IF" => condition(arguments, zone),
        "NULLIF" => null_if(arguments, zone),
        "ITEM" => {
            let place = arguments.remove(1);
            nested::item(arguments.remove(0), place)
        }
        "CARDINALITY" => nested::cardinality(arguments.remove(0)),
        "INSTR" => {
            arguments.reverse();
            call("POSITION", arguments, zone)
        }
        "BTRIM" | "LTRIM" | "RTRIM" => {
            let side = match name {
                "LTRIM" => "LEADING",
                "RTRIM" => "TRAILING",
                _ => "BOTH",
            };
            let what = if arguments.len() > 1 { arguments.remove(1) } else { text_literal(" ") };
            call("TRIM", vec![text_literal(side), arguments.remove(0), what], zone)
        }
        _ => call_time(name, arguments, zone),
    }
}

fn call_time(name: &'static str, mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let unit = match name {
        "DAYOFMONTH" => "DAY",
        "DAYOFWEEK" => "DOW",
        "DAYOFYEAR" => "DOY",
        "YEAR" | "QUARTER" | "MONTH" | "WEEK" | "HOUR" | "MINUTE" | "SECOND" => name,
        _ => {
            return match name {
                "EXTRACT" => time::extract(arguments, zone),
                "TIMESTAMPADD" => time::timestamp_add(arguments),
                "TIMESTAMPDIFF" => time::timestamp_diff(arguments),
                "DATE_FORMAT" => time::date_format(arguments, zone),
                "TO_TIMESTAMP" => time::to_timestamp(arguments),
                "TO_TIMESTAMP_LTZ" => time::to_timestamp_ltz(arguments),
                "TO_DATE" => time::to_date(arguments),
                "FROM_UNIXTIME" => time::from_unixtime(arguments, zone),
                "UNIX_TIMESTAMP" => time::unix_timestamp(arguments, zone),
                _ => Err(format!("unknown function {name}")),
            };
        }
    };
    arguments.insert(0, text_literal(unit));
    time::extract(arguments, zone)
}

fn texts(name: &'static str, arguments: Vec<Typed>) -> Result<Typed, String> {
    let mut values = Vec::new();
    for argument in arguments {
        values.push(coerced(name, argument, Kind::Text)?);
    }
    let nullable = values.iter().any(|value| value.nullable);
    match name {
        "CONCAT_WS" => {
            let nullable = values[0].nullable;
            make("CONCAT_WS", "", values, DataType::Utf8, nullable, text::concat_ws).fold()
        }
        _ => make("CONCAT", "", values, DataType::Utf8, nullable, text::concat).fold(),
    }
}

fn common(name: &str, arguments: Vec<Typed>, zone: Option<Zone>) -> Result<(Vec<Typed>, DataType), String> {
    let common = cast::common_type(&arguments).map_err(|(_, a, b)| format!("{name} of {a} and {b}"))?;
    let values: Result<Vec<_>, _> =
        arguments.into_iter().map(|argument| cast::In(zone).implicit(argument, &common)).collect();
    Ok((values?, common))
}

fn coalesce(arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let (values, data_type) = common("COALESCE", arguments, zone)?;
    let nullable = values.iter().all(|value| value.nullable);
    let count = values.len();
    let mut whens = Vec::new();
    for value in &values[..count - 1] {
        let missing = Arc::new(IsNullExpr::new(Arc::clone(&value.expr)));
        let there = Arc::new(datafusion_physical_expr::expressions::NotExpr::new(missing));
        whens.push(Typed { expr: there, data_type: DataType::Boolean, nullable: false });
    }
    if whens.is_empty() {
        return values.into_iter().next().ok_or_else(|| "COALESCE needs an argument".to_owned());
    }
    let typed = case_expr(whens, values, true, data_type);
    Ok(Typed { nullable, ..typed })
}

fn condition(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let when = cast::boolean(arguments.remove(0))?;
    let (values, data_type) = common("IF", arguments, zone)?;
    Ok(case_expr(vec![when], values, true, data_type))
}

fn null_if(mut arguments: Vec<Typed>, zone: Option<Zone>) -> Result<Typed, String> {
    let right = arguments.pop().ok_or("NULLIF needs two arguments")?;
    let left = arguments.pop().ok_or("NULLIF needs two arguments")?;
    let data_type = left.data_type.clone();
    let null = cast::explicit(Typed::literal(ScalarValue::Null), &data_type)?;
    let (l, r) = cast::In(zone).to_common(left.clone(), right).map_err(|(a, b)| format!("NULLIF of {a} and {b}"))?;
    let equal = binary_expr(l, Operator::Eq, r, DataType::Boolean);
    Ok(case_expr(vec![equal], vec![null, left], true, data_type))
}
