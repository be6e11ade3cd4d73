//! Calls of functions that users registered.

use super::super::expr::Typed;
use super::super::{cast, types};
use crate::engine::functions::ScalarFunction;
use arrow::datatypes::DataType;

/// A call with its arguments in the types that the function takes. It is never computed while the file is planned: constants
/// are given to it row by row, like everything else.
pub(in super::super) fn call_user(function: &ScalarFunction, arguments: Vec<Typed>) -> Result<Typed, String> {
    let (takes, given) = (function.arguments.len(), arguments.len());
    if takes != given {
        return Err(format!("{} takes {takes} arguments, {given} are given", function.name));
    }
    let mut values = Vec::new();
    let mut nullable = function.nullable;
    for (argument, (data_type, sees_null)) in arguments.into_iter().zip(&function.arguments) {
        let value = widened(&function.name, argument, data_type)?;
        nullable |= value.nullable && !sees_null;
        values.push(value.expr);
    }
    let expr = function.call(values, nullable);
    Ok(Typed { expr, data_type: function.result.clone(), nullable })
}

/// An argument in a type that its values fit into.
pub(in super::super) fn widened(name: &str, argument: Typed, data_type: &DataType) -> Result<Typed, String> {
    if !cast::assigns(&argument.data_type, data_type) {
        let (takes, found) = (types::name(data_type), types::name(&argument.data_type));
        return Err(format!("{name} takes a {takes} here, not {found}: CAST it"));
    }
    cast::implicit(argument, data_type)
}
