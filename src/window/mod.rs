//! Module window.
