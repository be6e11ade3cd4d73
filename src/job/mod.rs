//! Module job.
