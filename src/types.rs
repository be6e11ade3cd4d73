//! The numbers of the log and of event time as types of their own, so that a position cannot be taken for an offset
//! or microseconds for milliseconds.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, bincode::Encode, bincode::Decode)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Place of a record in the one total order over all topics and partitions. Given at append, never changed. From 0.
    Position(u64)
}
number! {
    /// Place of a record within its partition. Dense, from 0.
    Offset(u64)
}
number! {
    /// Number of a partition within its topic, from 0.
    PartitionId(u32)
}
number! {
    /// Number of a topic. Never reused, also not after the topic was deleted. From 1.
    TopicId(u32)
}
number! {
    /// Sequence number of a frame in the journal: one more for every frame, from 1. 0 means "none yet".
    FrameSeq(u64)
}
number! {
    /// A reading of the append clock: microseconds since 1970-01-01T00:00:00Z. Never goes back along positions.
    AppendTime(i64)
}

impl Position {
    /// The position `count` records later.
    #[must_use]
    pub fn plus(self, count: u64) -> Position {
        Position(self.0 + count)
    }
}

impl AppendTime {
    /// Before every record.
    pub const MIN: AppendTime = AppendTime(i64::MIN);

    /// Whole milliseconds, rounded down.
    pub fn millis_floor(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Microseconds in a millisecond.
pub const US_PER_MS: i64 = 1000;

/// Longest topic name in bytes.
pub const TOPIC_NAME_MAX: usize = 249;

/// Checks a topic name: 1 to 249 letters, digits, `.`, `_`, `-`; not `.` or `..`; not starting with `__`.
/// Returns the reason when it is not one.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > TOPIC_NAME_MAX {
        return Err(format!("a topic name has 1 to {TOPIC_NAME_MAX} characters, this one has {}", name.len()));
    }
    if name == "." || name == ".." {
        return Err("'.' and '..' are not topic names".to_owned());
    }
    if name.starts_with("__") {
        return Err("topic names that start with '__' are reserved".to_owned());
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(bad) => Err(format!("{bad:?} is not allowed in a topic name: use letters, digits, '.', '_' and '-'")),
        None => Ok(()),
    }
}

/// True for names whose ending is reserved for a job's outputs: `.late`, `.rejected`, `.vN`.
pub fn is_reserved_output_name(name: &str) -> bool {
    let Some((_, ending)) = name.rsplit_once('.') else { return false };
    let version = ending.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    matches!(ending, "late" | "rejected") || version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["a", "flights", "a.b_c-9", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ü", "__meta", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
        for reserved in ["a.late", "a.rejected", "a.v2", "a.b.v10"] {
            assert!(is_reserved_output_name(reserved), "{reserved}");
        }
        for free in ["late", "a.v", "a.vx", "v2", "a.lately"] {
            assert!(!is_reserved_output_name(free), "{free}");
        }
    }

    #[test]
    fn millis_round_down_below_zero() {
        assert_eq!(AppendTime(-1).millis_floor(), -1);
        assert_eq!(AppendTime(1999).millis_floor(), 1);
    }
}
