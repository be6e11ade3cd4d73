//! CAST as Flink does it.

use super::super::expr::Typed;
use super::super::types;
use super::kernel::make;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::DataType;

/// A cast that can fail or that Arrow does in another way.
pub(in super::super) fn convert(typed: Typed, target: &DataType, attempt: bool) -> Result<Typed, String> {
    if !can_cast_types(&typed.data_type, target) {
        return Err(format!("cannot cast {} to {}", types::name(&typed.data_type), types::name(target)));
    }
    let nullable = typed.nullable || attempt;
    let name = if attempt { "TRY_CAST" } else { "CAST" };
    let parameter = format!("{} AS {}", types::name(&typed.data_type), types::name(target));
    Ok(make(name, parameter, vec![typed], target.clone(), nullable, |args| {
        let options = CastOptions { safe: true, ..CastOptions::default() };
        Ok(cast_with_options(&args.full(0)?, args.result, &options)?)
    }))
}
