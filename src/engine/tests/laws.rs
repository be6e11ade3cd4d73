//! Law 3.
