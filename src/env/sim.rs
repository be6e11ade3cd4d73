//! A simulated disk and clock.
