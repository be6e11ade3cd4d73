//! Module sql.
