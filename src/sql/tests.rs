//! Whole files: what they plan to, and what is said about those that are wrong.

mod aggregates;
mod errors;
mod expressions;
mod files;
mod support;
mod windows;
mod zones;
