//! Kappa keeps every event in a durable partitioned log and computes windows over it, in one binary.
//!
//! A job gives the same bytes whether it runs on events as they arrive or on any stretch of the past, because live and
//! replay are one code path over one order. ARCHITECTURE.md holds the module table and the laws.
#![deny(missing_docs)]

pub mod cli;
pub mod codec;
pub mod connect;
pub mod engine;
pub mod env;
pub mod error;
pub mod format;
pub mod generate;
pub mod job;
pub mod log;
pub mod metrics;
pub mod server;
pub mod sql;
pub mod state;
pub mod stream;
pub mod time;
pub mod types;
pub mod window;

pub use engine::functions;
pub use error::{Error, ErrorKind, Result, SourcePlace};
