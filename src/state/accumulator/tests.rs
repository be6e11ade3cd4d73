//! Result types, NULLs, merging.
