//! Scalar functions with Flink's names, types and results.

mod call;
mod civil;
mod convert;
mod kernel;
mod math;
mod nested;
mod text;
mod time;
mod user;

pub(super) use call::{call, names};
pub(super) use convert::convert;
pub(super) use kernel::reason;
pub(super) use math::{decimal_operation, integer_division};
pub(super) use nested::{field, not_null};
pub(super) use time::shift;
pub(super) use user::{call_user, widened};
