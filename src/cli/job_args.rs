//! The arguments of the commands for submitted jobs.

use super::args::{EngineArgs, Show, Writing};
use super::memory::MemoryArgs;
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;

const JOB_EXAMPLES: &str = "\
Examples:
  kappa job submit visits.sql --name visits   v1; `kappa up` runs it
  kappa job submit fixed.sql --name visits    v2, into <output>.v2, beside v1
  kappa job pause visits --version v2";

#[derive(Debug, Subcommand)]
#[command(after_help = JOB_EXAMPLES)]
pub(super) enum Job {
    /// Register a SQL file as a job, or as a new version of one: v2 beside v1
    ///
    /// `kappa up` runs it. A new job goes on with what `kappa run` of the same file has written, from where that run is; it is the job's then.
    Submit {
        /// The SQL file
        file: PathBuf,
        /// Name of the job [default: that of the file]
        #[arg(long)]
        name: Option<String>,
        /// Start here instead of where the tables say: earliest, latest, position:N, time:T, append:T, or a date or time
        #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
        from: Option<String>,
        /// Forget an earlier run on the same outputs, with what it wrote
        #[arg(long)]
        restart: bool,
    },
    /// List all versions of all jobs
    List,
    /// Show a job's versions, whether its checks pass on what is live, and when another version became live
    Show {
        /// Its name
        name: String,
    },
    /// Let a job rest: `kappa up` does not run it until it is resumed
    Pause {
        /// Its name
        name: String,
        /// This version only
        #[arg(long, value_name = "vN")]
        version: Option<String>,
    },
    /// Let a paused, stopped or failed job go on where it was
    Resume {
        /// Its name
        name: String,
        /// This version only
        #[arg(long, value_name = "vN")]
        version: Option<String>,
    },
    /// End a job; its outputs stay, and it cannot become live unless it is resumed
    Stop {
        /// Its name
        name: String,
        /// This version only
        #[arg(long, value_name = "vN")]
        version: Option<String>,
    },
    /// Forget a job, or a version that is not live; its outputs stay, unless --outputs says otherwise
    Delete {
        /// Its name
        name: String,
        /// This version only
        #[arg(long, value_name = "vN")]
        version: Option<String>,
        /// Delete the topics that it wrote as well
        #[arg(long)]
        outputs: bool,
    },
}

/// A job that fails is marked as failed, with the reason, and does not stop the others. Ctrl-C or SIGTERM ends well: what is
/// running goes on where it was next time.
#[derive(Debug, ClapArgs)]
pub(super) struct Up {
    /// Stop once all jobs have read everything
    #[arg(long)]
    pub stop_when_idle: bool,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub writing: Writing,
}

const REPLAY_EXAMPLES: &str = "\
Examples:
  kappa replay job.sql --from 2026-01-01 --as v2
  kappa replay visits --from 2026-01-01 --sql fixed.sql     v2 of the submitted job, over the past
  kappa replay visits --from 2026-01-01 --max-rate 50000";

/// Reads from the job's start, so that every window is whole, and publishes the windows that start at --from or later. Where a
/// checkpoint of the job's own run gives the same, it reads from there. Of a submitted job it makes a new version, which `kappa up`
/// goes on with; the same command goes on with one that was interrupted.
#[derive(Debug, ClapArgs)]
#[command(after_help = REPLAY_EXAMPLES)]
pub(super) struct Replay {
    /// The SQL file, or the name of a submitted job
    pub file: PathBuf,
    /// Publish windows that start at this time or later: a date, a time, ms since the epoch, or earliest
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: String,
    /// End here, for good: windows that are open are emitted [default: where the job's own run is; of a submitted job: the end that the
    /// log has now, from where `kappa up` goes on]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Write into <output>.NAME; needed for a file. Of a submitted job: the version to go on with [default: the next one, which is new]
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    /// The changed SQL file of a submitted job [default: what its live version computes]
    #[arg(long, value_name = "FILE")]
    pub sql: Option<PathBuf>,
    /// Read a submitted job's input no faster than so many events a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_rate: Option<u64>,
    /// Forget an earlier replay of a file under this name, with what it wrote
    #[arg(long, conflicts_with_all = ["sql", "max_rate"])]
    pub restart: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub show: Show,
}

/// Both versions are run up to the end of the log first. Readers of the outputs see each window once and in order: those of the old
/// version up to the last one that it has published, those of the new version after it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  kappa promote visits v2\n  kappa promote visits --rollback")]
pub(super) struct Promote {
    /// Name of the job
    pub name: String,
    /// The version
    #[arg(value_name = "vN", required_unless_present = "rollback", conflicts_with = "rollback")]
    pub version: Option<String>,
    /// Back to the version that was live before
    #[arg(long)]
    pub rollback: bool,
    /// Also when checks of the version's file fail that block
    #[arg(long)]
    pub force: bool,
}
