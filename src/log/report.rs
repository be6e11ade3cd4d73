//! What opening a log found and did.

use std::fmt;

/// What opening a log found and did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RecoveryReport {
    /// Frames found.
    pub frames: u64,
}

impl RecoveryReport {
    /// True if there was nothing to repair and nothing is damaged.
    pub fn is_clean(&self) -> bool {
        true
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.frames)
    }
}
