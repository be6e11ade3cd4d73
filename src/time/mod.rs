//! Time as functions: the append clock and watermarks. Nothing here reads a clock.

pub mod append_clock;
pub mod watermark;
pub mod zone;
