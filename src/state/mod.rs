//! What windows remember: keys, and one accumulator slot for each of them.

pub mod accumulator;
pub mod keys;
pub mod partial;
pub mod user;
