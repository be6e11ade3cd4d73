//! Casts: which types go together without being asked (implicit), which on demand (explicit), and how.

use super::arithmetic::{is_numeric, precision_scale};
use super::expr::Typed;
use super::{functions, types};
use crate::engine::plan::Zone;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::expressions::CastExpr;
use sqlparser::ast;
use std::sync::Arc;

/// The type that all can be cast to without loss. `Err`: which one does not fit, the type so far, and its type.
pub(super) fn common_type<'t>(all: impl IntoIterator<Item = &'t Typed>) -> Result<DataType, (usize, String, String)> {
    let mut common = DataType::Null;
    let mut text_only = true;
    for (n, typed) in all.into_iter().enumerate() {
        let literal = typed.text().is_some();
        common = match wider(&common, &typed.data_type) {
            Some(wider) => wider,
            // A string constant takes the type of the date or timestamp it stands beside.
            None if literal && is_moment(&common) => common,
            None if text_only && common == DataType::Utf8 && is_moment(&typed.data_type) => typed.data_type.clone(),
            None => return Err((n, types::name(&common), types::name(&typed.data_type))),
        };
        text_only &= literal || typed.data_type == DataType::Null;
    }
    Ok(common)
}

fn is_moment(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Timestamp(..))
}

fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (T::Null, other) | (other, T::Null) => Some(other.clone()),
        (T::Float64, other) | (other, T::Float64) if is_numeric(other) => Some(T::Float64),
        // As in Calcite: an exact number with decimals beside an approximate one is DOUBLE.
        (T::Float32, T::Decimal128(..)) | (T::Decimal128(..), T::Float32) => Some(T::Float64),
        (T::Float32, other) | (other, T::Float32) if is_numeric(other) => Some(T::Float32),
        (T::Decimal128(..), other) | (other, T::Decimal128(..)) if is_numeric(other) => {
            let ((p1, s1), (p2, s2)) = (precision_scale(a), precision_scale(b));
            let scale = s1.max(s2);
            let precision = ((p1 - s1).max(p2 - s2) + scale).min(38);
            Some(T::Decimal128(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
        }
        (x, y) if x.is_integer() && y.is_integer() => {
            Some(if precision_scale(x).0 >= precision_scale(y).0 { x.clone() } else { y.clone() })
        }
        (T::Date32, T::Timestamp(..)) => Some(b.clone()),
        (T::Timestamp(..), T::Date32) => Some(a.clone()),
        (T::Timestamp(..), T::Timestamp(..)) => Some(types::timestamp_ltz()),
        _ => None,
    }
}

/// A condition.
pub(super) fn boolean(typed: Typed) -> Result<Typed, String> {
    match typed.data_type {
        DataType::Boolean => Ok(typed),
        DataType::Null => Ok(Typed::literal(ScalarValue::Boolean(None))),
        other => Err(format!("expected a condition (BOOLEAN), found {}", types::name(&other))),
    }
}

/// True if Flink assigns `from` to a column of type `to` without being asked.
pub(super) fn assigns(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Null, _) => true,
        (a, b) if a == b => true,
        (a, b) if a.is_integer() && b.is_integer() => precision_scale(a).0 <= precision_scale(b).0,
        (a, T::Decimal128(..) | T::Float64) => is_numeric(a),
        (a, T::Float32) => a.is_integer() || matches!(a, T::Decimal128(..)),
        (T::Date32 | T::Timestamp(..), T::Timestamp(..)) => true,
        (T::List(a), T::List(b)) => assigns(a.data_type(), b.data_type()),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| assigns(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// Casts in a session's time zone (`None`: UTC), in which TIMESTAMP_LTZ is shown and read.
#[derive(Debug, Clone, Copy)]
pub(super) struct In(pub Option<Zone>);

impl In {
    /// A cast that loses nothing, or of a constant. Callers have checked that the types go together.
    pub fn implicit(self, typed: Typed, target: &DataType) -> Result<Typed, String> {
        self.explicit(typed, target)
    }

    /// `CAST(x AS target)`: a value that cannot be cast is an error of its row.
    pub fn explicit(self, typed: Typed, target: &DataType) -> Result<Typed, String> {
        convert(typed, target, false, self.0)
    }

    /// `TRY_CAST(x AS target)`: a value that cannot be cast is NULL.
    pub fn attempt(self, typed: Typed, target: &DataType) -> Result<Typed, String> {
        convert(typed, target, true, self.0)
    }

    /// Both operands in their common type, or the names of both types.
    pub fn to_common(self, left: Typed, right: Typed) -> Result<(Typed, Typed), (String, String)> {
        let names = (types::name(&left.data_type), types::name(&right.data_type));
        let common = common_type([&left, &right]).map_err(|_| names.clone())?;
        match (self.implicit(left, &common), self.implicit(right, &common)) {
            (Ok(left), Ok(right)) => Ok((left, right)),
            (Err(message), _) | (_, Err(message)) => Err((names.0, format!("{} ({message})", names.1))),
        }
    }
}

/// [`In::implicit`] between types that no time zone matters to.
pub(super) fn implicit(typed: Typed, target: &DataType) -> Result<Typed, String> {
    explicit(typed, target)
}

/// [`In::explicit`] between types that no time zone matters to.
pub(super) fn explicit(typed: Typed, target: &DataType) -> Result<Typed, String> {
    without_zone(&typed, target)?;
    convert(typed, target, false, None)
}

/// [`In::attempt`] between types that no time zone matters to.
pub(super) fn attempt(typed: Typed, target: &DataType) -> Result<Typed, String> {
    without_zone(&typed, target)?;
    convert(typed, target, true, None)
}

fn without_zone(typed: &Typed, target: &DataType) -> Result<(), String> {
    match zone_matters(&typed.data_type, target) {
        false => Ok(()),
        true => Err(format!("{} and {} do not go together here", types::name(&typed.data_type), types::name(target))),
    }
}

/// Whether a cast goes between moments and local time.
fn zone_matters(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let is_local = |data_type: &T| matches!(data_type, T::Utf8 | T::Date32 | T::Timestamp(_, None));
    match (from, to) {
        (T::Timestamp(_, Some(_)), other) | (other, T::Timestamp(_, Some(_))) => is_local(other),
        (T::Struct(a), T::Struct(b)) => a.iter().zip(b).any(|(a, b)| zone_matters(a.data_type(), b.data_type())),
        (T::List(a), T::List(b)) => zone_matters(a.data_type(), b.data_type()),
        _ => false,
    }
}

fn convert(typed: Typed, target: &DataType, attempt: bool, zone: Option<Zone>) -> Result<Typed, String> {
    if typed.data_type == *target {
        return Ok(typed);
    }
    if typed.data_type == DataType::Null || typed.value().is_some_and(ScalarValue::is_null) {
        let null = ScalarValue::try_from(target).map_err(|error| functions::reason(&error))?;
        return Ok(Typed::literal(null));
    }
    let zone = zone.filter(|_| zone_matters(&typed.data_type, target));
    if zone.is_none() && is_exact(&typed.data_type, target) {
        let expr = Arc::new(CastExpr::new(typed.expr, target.clone(), None));
        return Typed { expr, data_type: target.clone(), nullable: typed.nullable }.fold();
    }
    functions::convert(typed, target, attempt, zone)?.fold()
}

/// Casts that Arrow does exactly as Flink does, and that cannot fail.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (a, b) if a.is_integer() && b.is_integer() => precision_scale(a).0 <= precision_scale(b).0,
        (a, T::Float32 | T::Float64) => a.is_integer() || *a == T::Float32,
        (a, T::Decimal128(p, s)) if a.is_integer() => precision_scale(a).0 <= i32::from(*p) - i32::from(*s),
        (T::Decimal128(p1, s1), T::Decimal128(p2, s2)) => {
            s1 <= s2 && i32::from(*p1) - i32::from(*s1) <= i32::from(*p2) - i32::from(*s2)
        }
        (T::Timestamp(..), T::Timestamp(..)) => true,
        _ => false,
    }
}

/// The length of CHAR(n) and VARCHAR(n), and whether the text is padded to it.
pub(super) fn character_length(data_type: &ast::DataType) -> Option<(u64, bool)> {
    let (length, pad) = match data_type {
        ast::DataType::Char(length) | ast::DataType::Character(length) => (length, true),
        ast::DataType::Varchar(length) | ast::DataType::CharacterVarying(length) => (length, false),
        _ => return None,
    };
    match length {
        Some(ast::CharacterLength::IntegerLength { length, .. }) => Some((*length, pad)),
        Some(ast::CharacterLength::Max) => None,
        // CHAR without a length is CHAR(1), VARCHAR is VARCHAR(1), but Flink says STRING for the latter's use.
        None => Some((1, pad)),
    }
}

/// A text cut (and for CHAR padded) to a length.
pub(super) fn fit(typed: Typed, length: u64, pad: bool) -> Result<Typed, String> {
    let length = i32::try_from(length).map_err(|_| format!("length {length} is too large"))?;
    let length = Typed::literal(ScalarValue::Int32(Some(length)));
    functions::call(if pad { "FIT_CHAR" } else { "LEFT" }, vec![typed, length], None)?.fold()
}
