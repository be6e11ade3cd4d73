//! Topics: names, settings, and how a record finds its partition.

use crate::types::TopicId;
use std::sync::Arc;

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Number of partitions, 1 to 4096. Default 1.
    pub partitions: u32,
    /// A record whose timestamp is further ahead of its append time than this moves no watermark and no seek. Default 1 h.
    pub max_future_us: i64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig { partitions: 1, max_future_us: 3_600_000_000 }
    }
}

/// A topic as it was when asked for. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(Arc<TopicInfo>);

#[derive(Debug, PartialEq, Eq)]
struct TopicInfo {
    id: TopicId,
    name: String,
    config: TopicConfig,
}

impl Topic {
    pub(crate) fn new(id: TopicId, name: String, config: TopicConfig) -> Topic {
        Topic(Arc::new(TopicInfo { id, name, config }))
    }

    /// Its number.
    pub fn id(&self) -> TopicId {
        self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its settings.
    pub fn config(&self) -> &TopicConfig {
        &self.0.config
    }

    /// Number of its partitions.
    pub fn partitions(&self) -> u32 {
        self.0.config.partitions
    }
}
