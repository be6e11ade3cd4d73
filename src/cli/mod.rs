//! The command line: arguments, one file a command, exit codes in one place. stdout is data, stderr is talk.

mod args;
mod bench;
mod bench_args;
mod check;
mod consume;
mod context;
mod diff;
mod explain;
mod generate;
mod group;
mod guest;
mod inspect;
mod job;
mod job_args;
mod memory;
mod plan_lateness;
mod printer;
mod produce;
mod progress;
mod promote;
mod receipt;
mod repair;
mod replay;
mod run;
mod savepoint;
mod topic;
mod units;
mod up;
mod verify;

use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, registry};
use crate::log::Log;
use args::{Args, Command};
use clap::{CommandFactory, Parser};
use context::{Context, Own, Terminal};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// What a command found, beyond errors.
enum Status {
    /// Done: exit code 0.
    Done,
    /// It ran and found a difference: exit code 1.
    Differs,
    /// Damage was found and reported: exit code 3.
    Damaged,
}

/// Parses the arguments, runs the command, reports its error on stderr, and gives the exit code: 0 done, 1 ran and found a difference,
/// 2 wrong input, 3 damage, 4 could not.
pub fn main() -> ExitCode {
    main_with(FunctionRegistry::none())
}

/// The same for a program whose SQL files may call its own functions. Such a program is a few lines:
///
/// ```no_run
/// use kappa::functions::FunctionRegistry;
///
/// fn main() -> std::process::ExitCode {
///     let mut functions = FunctionRegistry::default();
///     functions.scalar1::<String, i64>("words", "1", |text| text.split_whitespace().count() as i64).expect("a free name");
///     kappa::cli::main_with(&functions)
/// }
/// ```
pub fn main_with(functions: &FunctionRegistry) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { ErrorKind::Input.exit_code() } else { 0 });
        }
    };
    let terminal = Arc::new(Own::default());
    let data = args.common.data.clone();
    let context = Context { env: Env::os(), data, functions: functions.clone(), terminal, owned: None };
    ExitCode::from(guest::here_or_there(&context, args))
}

/// Reports an error, and gives the exit code.
fn conclude(terminal: &dyn Terminal, ran: Result<Status>) -> u8 {
    match ran {
        Ok(Status::Done) => 0,
        Ok(Status::Differs) => ErrorKind::Difference.exit_code(),
        Ok(Status::Damaged) => ErrorKind::Damage.exit_code(),
        Err(e) if is_broken_pipe(&e) => 0,
        Err(e) => {
            terminal.talk(&report(&e));
            e.kind().exit_code()
        }
    }
}

fn dispatch(context: &Context, command: Command) -> Result<Status> {
    match command {
        Command::Run(command) => run::run(context, command),
        Command::Replay(command) => replay::run(context, command),
        Command::Verify(command) => verify::run(context, command),
        Command::Receipt(command) => receipt::run(context, command),
        Command::Check(command) => check::run(context, command),
        Command::Diff(command) => diff::run(context, command),
        Command::Explain(command) => explain::run(context, command),
        Command::Job { show, command } => job::run(context, &context.printer(&show), command),
        Command::Promote(command) => promote::run(context, command),
        Command::Up(command) => up::run(context, command),
        Command::PlanLateness(command) => plan_lateness::run(context, command),
        Command::Topic { show, command } => topic::run(context, &context.printer(&show), command),
        Command::Produce(command) => produce::run(context, command),
        Command::Consume(command) => consume::run(context, command),
        Command::Generate(command) => generate::run(context, command),
        Command::Group { show, command } => group::run(context, &context.printer(&show), command),
        Command::Savepoint { show, command } => savepoint::run(context, &context.printer(&show), command),
        Command::Inspect(command) => inspect::run(context, command),
        Command::Repair(command) => repair::run(context, command),
        Command::Bench { show, command } => bench::run(&context.env, &context.printer(&show), command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "kappa", &mut io::stdout());
            Ok(Status::Done)
        }
    }
}

/// `error: ...`, the causes that say more, and the hint.
fn report(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let line = inner.to_string();
        if !text.contains(&line) {
            text.push_str(&format!("\n  because: {line}"));
        }
        cause = inner.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

/// One message on this process's own stderr; a closed stderr is no error.
fn talk(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// What a job is called after its file.
fn job_name(file: &Path) -> String {
    file.file_stem().map_or_else(|| "job".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// True for an argument that names a job instead of a file.
fn is_name(argument: &Path) -> bool {
    argument.components().count() == 1 && argument.extension().is_none_or(|ending| ending != "sql")
}

/// A run by hand must not go on with a version of a submitted job.
fn refuse_submitted(log: &Log, job: &Job) -> Result<()> {
    let Some((name, _)) = registry::owner(log, &job.key())? else { return Ok(()) };
    let message = format!("'{}' is a version of the submitted job '{name}'", job.key());
    Err(Error::new(ErrorKind::Conflict, message).with_hint(
        "`kappa up` runs it, `kappa replay NAME` makes another version; `--as NAME` takes other names as well",
    ))
}

fn check_version(version: &str) -> Result<()> {
    crate::types::check_topic_name(version).map_err(|why| Error::input(format!("--as {version}: {why}")))?;
    if matches!(version, "late" | "rejected") || version.contains('.') {
        return Err(Error::input(format!("--as {version}: this ending is reserved")).with_hint("use a name such as v2"));
    }
    Ok(())
}
