//! Commands and the process that has the data folder: which are handed to it, and how it runs them.

use super::args::{Args, Command};
use super::context::{Context, Owned, Terminal};
use super::{conclude, dispatch};
use crate::env::Env;
use crate::env::rooted::Rooted;
use crate::error::{Error, ErrorKind, Result};
use crate::log;
use crate::server::{self, Handler, Peer, Request};
use clap::Parser;
use std::path::Path;
use std::sync::Arc;

/// What a command needs of the data folder.
enum Need {
    /// Nothing, or only to look at its files.
    Nothing,
    /// An open log, whoever has it.
    Log,
    /// The log for itself, from when it is opened to when it is closed.
    Alone,
}

fn need(command: &Command) -> Need {
    match command {
        Command::Inspect(_) | Command::Bench { .. } | Command::Completions { .. } => Need::Nothing,
        Command::Generate(generate) if generate.target().topic.is_none() => Need::Nothing,
        Command::Up(_) | Command::Repair(_) => Need::Alone,
        _ => Need::Log,
    }
}

/// A process that has just taken the data folder takes commands in a moment, and one that runs a short command is done in a moment.
const PATIENCE_US: u64 = 2_000_000;
const REST_US: u64 = 20_000;

/// Runs the command in the process that has the data folder, or here, and gives the exit code.
pub(super) fn here_or_there(context: &Context, mut args: Args) -> u8 {
    let clock = &context.env.clock;
    let until = clock.monotonic_us() + PATIENCE_US;
    loop {
        let may_wait = !matches!(need(&args.command), Need::Nothing) && clock.monotonic_us() < until;
        let ran = match hand_over(&args) {
            Ok(Some(code)) => return code,
            Ok(None) => dispatch(context, args.command),
            Err(e) => Err(e),
        };
        match ran {
            Err(e) if may_wait && log::is_in_use(&e) => clock.sleep_us(REST_US),
            ran => return conclude(&*context.terminal, ran),
        }
        // They were right the first time.
        args = Args::parse();
    }
}

/// Hands the command to the process that has the data folder. `None`: there is none, or it is not needed; the command runs here.
fn hand_over(args: &Args) -> Result<Option<u8>> {
    if !matches!(need(&args.command), Need::Log) {
        return Ok(None);
    }
    let Some(stream) = server::connect(&args.common.data)? else { return Ok(None) };
    let folder = std::env::current_dir().map_err(|e| Error::io("cannot find", Path::new("."), e))?;
    let arguments = std::env::args_os().map(|argument| argument.into_string());
    let arguments = arguments.collect::<std::result::Result<_, _>>().map_err(|argument| {
        Error::input(format!("'{}' is no UTF-8, and another process has the data folder", argument.display()))
    })?;
    server::forward(stream, &Request { folder, arguments }).map(Some)
}

/// Runs the commands of other processes with this one's log.
pub(super) fn handler(context: &Context, owned: Owned) -> Arc<Handler> {
    let host = Context { owned: Some(owned), ..context.clone() };
    Arc::new(move |request: Request, peer: &Arc<Peer>| {
        let terminal: Arc<dyn Terminal> = Arc::clone(peer) as _;
        let disk = Rooted { disk: Arc::clone(&host.env.disk), root: request.folder };
        let env = Env { disk: Arc::new(disk), ..host.env.clone() };
        let context = Context { env, terminal, ..host.clone() };
        let ran =
            Args::try_parse_from(request.arguments).map_err(|e| Error::input(e.to_string())).and_then(
                |args| match need(&args.command) {
                    Need::Log => dispatch(&context, args.command),
                    Need::Nothing | Need::Alone => {
                        Err(Error::new(ErrorKind::Conflict, "this command cannot run in another process"))
                    }
                },
            );
        conclude(&*context.terminal, ran)
    })
}
