//! One process owns a data folder; commands that others start for it run inside that process.
//!
//! The owner listens on a Unix socket in the folder ([`Host`]). A second `kappa` connects ([`connect`]), hands over its arguments and
//! working folder ([`Request`]), and from then on is a terminal: it writes what comes to stdout and stderr, reads stdin when it is asked
//! to, passes Ctrl-C on, and ends with the command's exit code.

mod client;
mod host;
mod protocol;

pub use client::{connect, forward};
pub use host::{Handler, Host, Peer};
pub use protocol::Request;

/// The socket's name in the data folder.
const SOCKET: &str = "SOCKET";
