//! Module connect.
