//! The times that the stretches of a topic's history hold in a decoded column, from statistics.

use crate::log::records::ValueColumns;
use crate::log::shared::Shared;
use crate::types::{Position, TopicId};

/// A stretch of a topic's records in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeStretch {
    /// Position of its first record.
    pub first: Position,
    /// The position after its last record.
    pub end: Position,
    /// All times in it, in the column's unit, lie between the first and the second, inclusive; `None`: nothing is known.
    pub times: Option<(i64, i64)>,
}

/// All of a topic's history in order of position. What cannot be looked into is a stretch of which nothing is known: whoever
/// reads it meets the reason.
pub(crate) fn stretches(shared: &Shared, topic: TopicId, columns: &ValueColumns, declared: usize) -> Vec<TimeStretch> {
    let files: Vec<_> = shared.index(|index| index.history.files_of(topic).cloned().collect());
    let mut found = Vec::new();
    for entry in files {
        let Some(whole) = entry.topic(topic).map(|topic| &topic.extent) else { continue };
        let Ok(file) = entry.open() else {
            found.push(TimeStretch { first: whole.first_position, end: whole.last_position.plus(1), times: None });
            continue;
        };
        let groups = file.groups().iter().enumerate().filter(|(_, group)| group.topic == topic);
        found.extend(groups.map(|(place, group)| TimeStretch {
            first: group.extent.first_position,
            end: group.extent.last_position.plus(1),
            times: file.column_range(place, columns, declared),
        }));
    }
    found
}
