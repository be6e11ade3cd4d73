//! What windows remember: keys, and one accumulator slot for each of them.

pub mod accumulator;
pub mod cold;
pub mod dictionary;
mod growing;
pub mod ipc;
pub mod keys;
pub mod parked;
pub mod saving;
pub mod section;
pub mod slice;
pub mod spill;
pub mod user;
