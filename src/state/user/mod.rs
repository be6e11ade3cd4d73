//! What users add to SQL in Rust: the values that their functions take and give, aggregates of their own, and the check that a
//! function gives one answer to one input.

mod accumulator;
mod aggregate;
mod probe;
mod value;

pub use aggregate::{Aggregate, UserAggregate};
pub use probe::Probe;
pub use value::Value;
