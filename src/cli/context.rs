//! What a command runs in: its terminal, the files it sees, the log, and the wish to stop. A command of this process has all of that from
//! the system; one that another process handed over has it from there, and the log from the process that it runs in.

use super::args::{Show, Writing};
use super::printer::Printer;
use super::progress::{Progress, Recomputing};
use super::{guest, talk, units};
use crate::connect::interrupt::{StopFlag, stop_on_signal};
use crate::engine::functions::FunctionRegistry;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, registry};
use crate::log::{Log, LogOptions};
use crate::server::{Host, Peer};
use crate::sql;
use crate::state::spill::Budget;
use serde_json::Value;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Largest SQL file in bytes.
const SQL_BYTES_MAX: u64 = 1 << 20;

/// stdin, stdout and stderr of the process that the user started.
pub(super) trait Terminal: Send + Sync {
    /// Data, on stdout.
    fn show(&self, bytes: &[u8]) -> io::Result<()>;
    /// One message for the user, on stderr; a closed stderr is no error.
    fn talk(&self, message: &str);
    /// Reads stdin.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// Whether somebody looks at progress that moves.
    fn is_watched(&self) -> bool;
    /// A flag that the user can set from now on: Ctrl-C.
    fn stop_flag(&self) -> Result<StopFlag>;
}

/// This process's own.
#[derive(Default)]
pub(super) struct Own {
    /// Once somebody has asked for it.
    stop: OnceLock<StopFlag>,
}

impl Terminal for Own {
    fn show(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    }

    fn talk(&self, message: &str) {
        talk(message);
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        io::stdin().read(buf)
    }

    fn is_watched(&self) -> bool {
        io::stderr().is_terminal()
    }

    fn stop_flag(&self) -> Result<StopFlag> {
        if let Some(stop) = self.stop.get() {
            return Ok(stop.clone());
        }
        let stop = stop_on_signal()?;
        Ok(self.stop.get_or_init(|| stop).clone())
    }
}

impl Terminal for Peer {
    fn show(&self, bytes: &[u8]) -> io::Result<()> {
        self.show(bytes)
    }

    fn talk(&self, message: &str) {
        self.talk(format!("{message}\n").as_bytes());
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    fn is_watched(&self) -> bool {
        false
    }

    fn stop_flag(&self) -> Result<StopFlag> {
        Ok(self.stop_flag())
    }
}

/// stdin, read through a terminal.
pub(super) struct Stdin(pub Arc<dyn Terminal>);

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// What a command runs in.
#[derive(Clone)]
pub(super) struct Context {
    /// Files as the user's working folder shows them, clock and salts.
    pub env: Env,
    /// The data folder.
    pub data: PathBuf,
    /// What SQL files may call.
    pub functions: FunctionRegistry,
    /// Where the user sits.
    pub terminal: Arc<dyn Terminal>,
    /// What the process has that the command was handed to.
    pub owned: Option<Owned>,
}

/// What a process that has the data folder lends to the commands of others.
#[derive(Clone)]
pub(super) struct Owned {
    pub log: Log,
    /// Memory for the state of its own jobs and theirs.
    pub budget: Arc<Budget>,
}

impl Context {
    pub(super) fn talk(&self, message: &str) {
        self.terminal.talk(message);
    }

    /// Data, on stdout.
    pub(super) fn show(&self, bytes: &[u8]) -> Result<()> {
        self.terminal.show(bytes).map_err(stdout_error)
    }

    /// One line of JSON on stdout.
    pub(super) fn show_json(&self, value: &Value) -> Result<()> {
        self.show(format!("{value}\n").as_bytes())
    }

    pub(super) fn printer(&self, show: &Show) -> Printer {
        Printer::new(show, Arc::clone(&self.terminal))
    }

    pub(super) fn progress(&self, what: &str, total: Option<u64>, unit: &str) -> Progress {
        Progress::on(Arc::clone(&self.terminal), what, total, unit)
    }

    /// Progress up to the end of the log, and Ctrl-C.
    pub(super) fn recomputing(&self, what: &str, log: &Log) -> Result<Recomputing> {
        let progress = self.progress(what, Some(log.durable_end().0), "positions");
        Ok(Recomputing { progress, stop: self.stop_flag()? })
    }

    /// A flag that Ctrl-C sets from now on.
    pub(super) fn stop_flag(&self) -> Result<StopFlag> {
        self.terminal.stop_flag()
    }

    /// Where a path of the user's leads.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.env.disk.absolute(path)
    }

    /// Opens the data folder's log and says what recovery had to do.
    pub(super) fn open_log(&self) -> Result<Log> {
        self.open_log_with(LogOptions::default())
    }

    /// The same to write records into.
    pub(super) fn open_log_to_write(&self, writing: &Writing) -> Result<Log> {
        let floor = writing.disk_floor.as_deref().map(units::parse_bytes).transpose();
        let disk_floor_bytes = floor.map_err(|e| e.context("--disk-floor"))?;
        self.open_log_with(LogOptions { durability: writing.durability, disk_floor_bytes, ..LogOptions::default() })
    }

    fn open_log_with(&self, options: LogOptions) -> Result<Log> {
        if let Some(owned) = &self.owned {
            return Ok(owned.log.clone());
        }
        let log = Log::open(&self.env, &self.data, options)?;
        if !log.report().is_clean() {
            self.talk(&log.report().to_string());
        }
        Ok(log)
    }

    /// Closes what [`Context::open_log`] opened, unless it is another's.
    pub(super) fn close(&self, log: Log) -> Result<()> {
        if self.owned.is_some() { Ok(()) } else { log.close() }
    }

    /// Memory for the state of jobs, unless the user says how much.
    pub(super) fn budget(&self) -> Arc<Budget> {
        self.owned.as_ref().map_or_else(|| Budget::of_machine(&self.env), |owned| Arc::clone(&owned.budget))
    }

    /// Lets commands of other processes run in this one, until what is returned is dropped.
    pub(super) fn host(&self, log: &Log, budget: Option<Arc<Budget>>) -> Option<Host> {
        if self.owned.is_some() {
            return None;
        }
        let owned = Owned { log: log.clone(), budget: budget.unwrap_or_else(|| self.budget()) };
        let host = Host::start(&self.env, &self.data, guest::handler(self, owned));
        host.inspect_err(|e| self.talk(&format!("note: other commands have to wait for the end of this one: {e}"))).ok()
    }

    /// Reads a SQL file.
    pub(super) fn read_sql(&self, file: &Path) -> Result<String> {
        let mut text = String::new();
        crate::connect::open_text(&*self.env.disk, file)?
            .take(SQL_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|e| Error::io("cannot read", file, e))?;
        if text.len() as u64 > SQL_BYTES_MAX {
            return Err(Error::input(format!("'{}' is larger than {SQL_BYTES_MAX} bytes", file.display())));
        }
        Ok(text)
    }

    /// Reads and plans a SQL file.
    pub(super) fn load_job(&self, file: &Path, version: Option<String>) -> Result<Job> {
        let text = self.read_sql(file)?;
        if let Some(version) = &version {
            super::check_version(version)?;
        }
        let plan = sql::plan_with(&file.display().to_string(), &text, &self.functions)?;
        Ok(Job { plan: Arc::new(plan), name: super::job_name(file), version })
    }

    /// The job of a SQL file, or a version of a submitted job: the live one if none is named.
    pub(super) fn load_any(&self, log: &Log, argument: &Path, version: Option<String>) -> Result<Job> {
        self.load_any_with_sql(log, argument, version).map(|loaded| loaded.job)
    }

    /// The same with the file.
    pub(super) fn load_any_with_sql(&self, log: &Log, argument: &Path, version: Option<String>) -> Result<Loaded> {
        let name = argument.to_string_lossy();
        match registry::find(log, &name)?.filter(|_| super::is_name(argument)) {
            Some(registered) => {
                let number = version.as_deref().map_or(Ok(registered.live), registry::parse_label)?;
                let job = registered.job(number, &self.functions)?;
                let version = registered.version(number)?;
                let (file, sql) = (version.file.clone(), version.sql.clone());
                Ok(Loaded { job, file, sql, is_live: number == registered.live })
            }
            None => {
                let (job, sql) = (self.load_job(argument, version)?, self.read_sql(argument)?);
                Ok(Loaded { job, file: argument.display().to_string(), sql, is_live: false })
            }
        }
    }
}

/// A job with the text that it was planned from.
pub(super) struct Loaded {
    pub job: Job,
    /// The SQL file as the user named it.
    pub file: String,
    pub sql: String,
    /// It is the live version of a submitted job.
    pub is_live: bool,
}

pub(super) fn stdout_error(e: io::Error) -> Error {
    Error::new(ErrorKind::Closed, format!("cannot write to stdout: {e}")).with_source(e)
}
