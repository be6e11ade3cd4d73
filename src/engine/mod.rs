//! The data flow: source columns in log order, stateless steps, windows, outputs.

pub mod plan;
