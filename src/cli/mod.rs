//! The command line: arguments, one file a command, exit codes in one place. stdout is data, stderr is talk.

mod args;
mod bench;
mod bench_args;
mod check;
mod consume;
mod diff;
mod explain;
mod generate;
mod group;
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
use crate::log::{Log, LogOptions};
use crate::sql;
use args::{Args, Command};
use clap::{CommandFactory, Parser};
use printer::Printer;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Largest SQL file in bytes.
const SQL_BYTES_MAX: u64 = 1 << 20;

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
    match dispatch(args, functions) {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::Differs) => ExitCode::from(1),
        Ok(Status::Damaged) => ExitCode::from(3),
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            report(&e);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

fn dispatch(args: Args, functions: &FunctionRegistry) -> Result<Status> {
    let env = Env::os();
    let common = args.common;
    match args.command {
        Command::Run(command) => run::run(&env, &common, functions, command),
        Command::Replay(command) => replay::run(&env, &common, functions, command),
        Command::Verify(command) => verify::run(&env, &common, functions, command),
        Command::Receipt(command) => receipt::run(&env, &common, functions, command),
        Command::Check(command) => check::run(&env, &common, functions, command),
        Command::Diff(command) => diff::run(&env, &common, command),
        Command::Explain(command) => explain::run(&env, &common, functions, command),
        Command::Job { show, command } => job::run(&env, &common, functions, &Printer::new(&show), command),
        Command::Promote(command) => promote::run(&env, &common, functions, command),
        Command::Up(command) => up::run(&env, &common, functions, command),
        Command::PlanLateness(command) => plan_lateness::run(&env, &common, functions, command),
        Command::Topic { show, command } => topic::run(&env, &common, functions, &Printer::new(&show), command),
        Command::Produce(command) => produce::run(&env, &common, command),
        Command::Consume(command) => consume::run(&env, &common, command),
        Command::Generate(command) => generate::run(&env, &common, command),
        Command::Group { show, command } => group::run(&env, &common, &Printer::new(&show), command),
        Command::Savepoint { show, command } => savepoint::run(&env, &common, functions, &Printer::new(&show), command),
        Command::Inspect(command) => inspect::run(&env, &common, command),
        Command::Repair(command) => repair::run(&env, &common, command),
        Command::Bench { show, command } => bench::run(&env, &Printer::new(&show), command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "kappa", &mut io::stdout());
            Ok(Status::Done)
        }
    }
}

/// `error: ...`, the causes that say more, and the hint.
fn report(error: &Error) {
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
    talk(&text);
}

/// One message for the user, on stderr; a closed stderr is no error.
fn talk(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

fn stdout_error(e: io::Error) -> Error {
    Error::new(ErrorKind::Closed, format!("cannot write to stdout: {e}")).with_source(e)
}

fn is_broken_pipe(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Opens the data folder's log and says what recovery had to do.
fn open_log(env: &Env, common: &args::Common) -> Result<Log> {
    open_log_with(env, common, LogOptions::default())
}

/// The same to write records into.
fn open_log_to_write(env: &Env, common: &args::Common, writing: &args::Writing) -> Result<Log> {
    let floor = writing.disk_floor.as_deref().map(units::parse_bytes).transpose();
    let disk_floor_bytes = floor.map_err(|e| e.context("--disk-floor"))?;
    open_log_with(env, common, LogOptions { durability: writing.durability, disk_floor_bytes, ..LogOptions::default() })
}

fn open_log_with(env: &Env, common: &args::Common, options: LogOptions) -> Result<Log> {
    let log = Log::open(env, &common.data, options)?;
    if !log.report().is_clean() {
        talk(&log.report().to_string());
    }
    Ok(log)
}

/// Reads a SQL file.
fn read_sql(env: &Env, file: &Path) -> Result<String> {
    let mut text = String::new();
    crate::connect::open_text(&*env.disk, file)?
        .take(SQL_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| Error::io("cannot read", file, e))?;
    if text.len() as u64 > SQL_BYTES_MAX {
        return Err(Error::input(format!("'{}' is larger than {SQL_BYTES_MAX} bytes", file.display())));
    }
    Ok(text)
}

/// Reads and plans a SQL file.
fn load_job(env: &Env, functions: &FunctionRegistry, file: &Path, version: Option<String>) -> Result<Job> {
    let text = read_sql(env, file)?;
    if let Some(version) = &version {
        check_version(version)?;
    }
    let plan = sql::plan_with(&file.display().to_string(), &text, functions)?;
    Ok(Job { plan: Arc::new(plan), name: job_name(file), version })
}

/// What a job is called after its file.
fn job_name(file: &Path) -> String {
    file.file_stem().map_or_else(|| "job".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// True for an argument that names a job instead of a file.
fn is_name(argument: &Path) -> bool {
    argument.components().count() == 1 && argument.extension().is_none_or(|ending| ending != "sql")
}

/// The job of a SQL file, or a version of a submitted job: the live one if none is named.
fn load_any(
    env: &Env,
    log: &Log,
    functions: &FunctionRegistry,
    argument: &Path,
    version: Option<String>,
) -> Result<Job> {
    let name = argument.to_string_lossy();
    match registry::find(log, &name)?.filter(|_| is_name(argument)) {
        Some(registered) => {
            let number = version.as_deref().map_or(Ok(registered.live), registry::parse_label)?;
            registered.job(number, functions)
        }
        None => load_job(env, functions, argument, version),
    }
}

/// A run by hand must not go on with a version of a submitted job.
fn refuse_submitted(log: &Log, job: &Job) -> Result<()> {
    let version = job.version.as_deref().and_then(|version| registry::parse_label(version).ok());
    let registered = registry::find(log, &job.name)?.filter(|_| version.is_some());
    if registered.is_none_or(|registered| registered.versions.iter().all(|known| Some(known.number) != version)) {
        return Ok(());
    }
    let message = format!("'{}' is a version of the submitted job '{}'", job.key(), job.name);
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
