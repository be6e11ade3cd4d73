//! Module time.

pub mod watermark;
