//! The arguments of every command, in one table.

use super::bench_args::Bench;
use super::job_args::{Job, Promote, Replay, Up};
use super::memory::MemoryArgs;
use super::printer::Format;
use crate::log::Durability;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  kappa run job.sql                         run a SQL job: files to their end, topics until Ctrl-C
  kappa produce visits events.jsonl --format json --key user --time ts
  kappa generate web-events --topic visits  a million made-up events
  kappa run job.sql --bounded               up to the end that the log has now
  kappa replay job.sql --from 2026-01-01 --as v2
  kappa verify job.sql                      recompute and compare with what the run wrote
  kappa consume visits_hourly --max 10 --format json

Exit codes: 0 done, 1 found a difference, 2 wrong input, 3 damage, 4 could not (disk, lock).";

/// Kappa keeps every event in a durable log and computes windows over it: live and replay give the same bytes.
#[derive(Debug, Parser)]
#[command(name = "kappa", version, after_help = EXAMPLES, max_term_width = 110)]
pub(super) struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    /// Data folder; created if missing, owned by one process at a time
    #[arg(long, global = true, value_name = "DIR", default_value = "./kappa-data", env = "KAPPA_DATA")]
    pub data: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Show {
    /// How results are shown on stdout
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a SQL job: live, or to the end of its input
    Run(Run),
    /// Recompute a job over the past, into outputs of another name
    Replay(Replay),
    /// Recompute a job and compare with what its run wrote
    Verify(Verify),
    /// Print digests of what a run computed, from what and with what
    Receipt(ReceiptArgs),
    /// Run the checks of a job's file over what it has read and written
    Check(Check),
    /// Compare two versions of a job's outputs, or two topics
    Diff(Diff),
    /// Say which records made a result, what brought it out, and which came too late
    Explain(Explain),
    /// Submit, list, show, pause, resume, stop and delete jobs that the log keeps
    Job {
        #[command(flatten)]
        show: Show,
        #[command(subcommand)]
        command: Job,
    },
    /// Run all submitted jobs in one process until Ctrl-C
    Up(Up),
    /// Make another version of a submitted job the live one, or go back
    Promote(Promote),
    /// Count what each delay of the watermark would drop, and recommend one
    PlanLateness(PlanLateness),
    /// Create, change, list, describe, trim and delete topics
    Topic {
        #[command(flatten)]
        show: Show,
        #[command(subcommand)]
        command: Topic,
    },
    /// Write records to a topic
    Produce(Produce),
    /// Read records of a topic
    Consume(Consume),
    /// Make up events: visits of a web site, or Nexmark's auctions
    #[command(subcommand)]
    Generate(Generate),
    /// List, show, move and delete consumer groups
    Group {
        #[command(flatten)]
        show: Show,
        #[command(subcommand)]
        command: Group,
    },
    /// Save the state of a job's run, look at it, move it, and begin from it
    Savepoint {
        #[command(flatten)]
        show: Show,
        #[command(subcommand)]
        command: Savepoint,
    },
    /// Look at the journal's files and frames, read-only
    Inspect(Inspect),
    /// Read everything, list what is damaged, and give it up
    Repair(Repair),
    /// Measure this machine: appends and replays, each beside its limit
    Bench {
        #[command(flatten)]
        show: Show,
        #[command(subcommand)]
        command: Bench,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  kappa run fixtures/flights.sql
  kappa run job.sql --ingest visits=events.jsonl --bounded
  tail -F access.jsonl | kappa run job.sql --ingest visits=-
  kappa run job.sql --from 2026-01-01 --to 2026-02-01 --as january";

/// A job whose sources are all files ends with them; any other follows the log until Ctrl-C, or ends with --bounded or --to.
#[derive(Debug, ClapArgs)]
#[command(after_help = RUN_EXAMPLES)]
pub(super) struct Run {
    /// The SQL file
    pub file: PathBuf,
    /// Stop at the end that the log has now, and emit the windows that are still open
    #[arg(long)]
    pub bounded: bool,
    /// With an end: hold open windows back, so that the run can go on later
    #[arg(long)]
    pub no_flush: bool,
    /// Start here instead of where the tables say: earliest, latest, position:N, time:T, append:T, or a date or time
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// End here
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Feed a topic from a file (each event once, also when run again) or from stdin (-) in the same process
    #[arg(long, value_name = "TOPIC=FILE|-")]
    pub ingest: Vec<String>,
    /// Write into <output>.NAME, beside the outputs of another run
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    /// Forget an earlier run on the same outputs, with what it wrote
    #[arg(long)]
    pub restart: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub writing: Writing,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, ClapArgs)]
pub(super) struct EngineArgs {
    /// Stop at the first row that does not decode (exit code 1)
    #[arg(long)]
    pub strict: bool,
    /// Go on where records of the log are quarantined
    #[arg(long)]
    pub accept_loss: bool,
    /// Threads of the engine; the output is the same with any number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Take a checkpoint this often, if there was input: a killed run goes on from the newest one. none takes none [default: what
    /// the file sets as execution.checkpointing.interval, else 30s]
    #[arg(long, value_name = "DURATION")]
    pub checkpoint_interval: Option<String>,
    /// Take one after so much input as well
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub checkpoint_bytes: String,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

/// Exit code 0: every row and digest is equal. 1: the first window that differs is named, with its key and its span. A run keeps the digest of its
/// output at up to 64 places of each stream; what lies between two of them is a span and can be checked alone.
#[derive(Debug, ClapArgs)]
pub(super) struct Verify {
    /// The SQL file that ran, or the name of a submitted job
    pub file: PathBuf,
    /// Verify the run that was made with --as NAME, or this version of the job [default: the live one]
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    /// Compare only the spans with windows from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Compare only the spans with windows before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Show every span instead of every output
    #[arg(long)]
    pub spans: bool,
    /// Threads of the engine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    #[command(flatten)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    pub show: Show,
}

/// A check is `CREATE CHECK name [WITH ('severity' = 'warn' | 'block')] AS SELECT ...` in the job's file: the rows of the query, over sources and outputs of
/// the job, are failures. A check sees every revision of a row. Exit code 1: a check failed whose severity is `block` (the default).
#[derive(Debug, ClapArgs)]
pub(super) struct Check {
    /// The SQL file, or the name of a submitted job
    pub file: PathBuf,
    /// Check the outputs of the run that was made with --as NAME
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    /// Rows of each check to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub sample: usize,
    #[command(flatten)]
    pub show: Show,
}

/// Rows are known by window and key; the last revision counts. Exit code 0: same rows and columns. 1: they differ. A reason is given for each row that
/// differs: the runs started elsewhere, other records were too late for the window, or the runs computed different things.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  kappa diff job.sql - v2             the run itself, and the one made with --as v2\n  kappa diff counts counts.v2 --key a"
)]
pub(super) struct Diff {
    /// A job (its file, or its name) and two versions (- is the run without --as, or the live version), or two topics
    #[arg(num_args = 2..=3, required = true, value_names = ["JOB", "A", "B"])]
    pub what: Vec<String>,
    /// Only windows that start at this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub window: Option<String>,
    /// Only this key: as in the output record, or its values, separated by commas
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub sample: usize,
    #[command(flatten)]
    pub show: Show,
}

/// Reads the run's input from its start. The same input gives the same receipt on every machine.
#[derive(Debug, ClapArgs)]
pub(super) struct ReceiptArgs {
    /// The SQL file that ran, or the name of a submitted job
    pub file: PathBuf,
    /// The run that was made with --as NAME
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    #[command(flatten)]
    pub show: Show,
}

/// Recomputes the job from its start and writes nothing. The rows of the answer are in the order in which things happened: `record` went into the
/// window, `result` came out (with what caused it), `late` came too late. `watermark` is the one before it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  kappa explain job.sql --window '2026-01-01 00:00:00' --key a --rows")]
pub(super) struct Explain {
    /// The SQL file that ran, or the name of a submitted job
    pub file: PathBuf,
    /// Start of the window, as the output shows it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub window: String,
    /// End of the window, where several start together (CUMULATE)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub window_end: Option<String>,
    /// Key: as in the output record, or the values of the group, separated by commas; of ranked rows (ROW_NUMBER) also that of the rows
    /// themselves [default: all keys of the window]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Table or topic of the output [default: all outputs with windows]
    #[arg(long, value_name = "NAME")]
    pub output: Option<String>,
    /// Show what the job sees of each record
    #[arg(long)]
    pub rows: bool,
    /// Explain the run that was made with --as NAME
    #[arg(long = "as", value_name = "NAME")]
    pub version: Option<String>,
    /// Go on where records are quarantined
    #[arg(long)]
    pub accept_loss: bool,
    /// Threads of the engine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    #[command(flatten)]
    pub show: Show,
}

/// Reads what the log holds for the job's sources and writes nothing. Without --delays those are tried that the records ask for.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  kappa plan-lateness job.sql --delays 0s,5s,1m,1h --may-drop 0.001")]
pub(super) struct PlanLateness {
    /// The SQL file
    pub file: PathBuf,
    /// Delays to try
    #[arg(long, value_name = "DURATION,..", value_delimiter = ',')]
    pub delays: Option<Vec<String>>,
    /// Recommend the shortest delay with which at most this share (0 to 1) of the records miss a window
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub may_drop: f64,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, Subcommand)]
pub(super) enum Savepoint {
    /// Write the state of a run into a folder: the last one if it was stopped (or ended with --no-flush), that of this moment if
    /// `kappa up` has it, that of its newest checkpoint if it is going on elsewhere
    Create {
        /// The SQL file that ran, or the name of a submitted job
        file: PathBuf,
        /// The run that was made with --as NAME; of a submitted job: the version [default: the live one]
        #[arg(long = "as", value_name = "NAME")]
        version: Option<String>,
        /// The new folder [default: <data>/savepoints/<job>-<position>]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// List the savepoints of the data folder
    List,
    /// Show the tables of a savepoint
    Inspect {
        /// Its name in the data folder, or its folder
        savepoint: PathBuf,
        /// Show the rows of this table
        #[arg(long, value_name = "NAME")]
        section: Option<String>,
    },
    /// Let a job begin from a savepoint: the next `kappa run` of the file, or the job that it is submitted as, goes on from there, into
    /// outputs without earlier records
    Restore {
        /// Its name in the data folder, or its folder
        savepoint: PathBuf,
        /// The SQL file: that of the savepoint, or one with other aggregates, other names or wider types
        file: PathBuf,
        /// Write into <output>.NAME
        #[arg(long = "as", value_name = "NAME")]
        version: Option<String>,
        /// Go on with the records from this position on, where the savepoint is of another log
        #[arg(long, value_name = "POSITION")]
        at: Option<u64>,
    },
    /// Copy a savepoint to a folder elsewhere
    Export {
        /// Its name in the data folder, or its folder
        savepoint: PathBuf,
        /// The new folder
        to: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Create a topic
    Create {
        /// Its name: letters, digits, '.', '_', '-'
        name: String,
        /// Number of partitions
        #[arg(long, value_name = "N", default_value_t = 1)]
        partitions: u32,
        #[command(flatten)]
        settings: TopicSettings,
    },
    /// Change settings of a topic
    Alter {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: TopicSettings,
        /// Refused: keys would move to other partitions
        #[arg(long, value_name = "N", hide = true)]
        partitions: Option<u32>,
    },
    /// List all topics
    List,
    /// Show a topic's partitions, settings, and the run that writes it
    Describe {
        /// Its name
        name: String,
    },
    /// Remove a topic's oldest records, at once
    Trim {
        /// Its name
        name: String,
        /// The first record that stays: earliest, latest, position:N, offset:N (with --partition), time:T, append:T, or a date
        /// or time
        #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
        before: String,
        /// The partition of offset:N; records of every partition before that record go
        #[arg(long, value_name = "N")]
        partition: Option<u32>,
    },
    /// Tell whether retention is at work: it waits after the wall clock has jumped by more than 5 minutes
    Retention {
        /// The wall clock is right: go on
        #[arg(long)]
        confirm: bool,
    },
    /// Decode a topic's history anew, after its columns were declared or changed
    Rebuild {
        /// Its name
        name: String,
        /// Take the columns that this SQL file declares for the topic, whatever was declared before
        #[arg(long, value_name = "FILE")]
        columns: Option<PathBuf>,
    },
    /// Delete a topic and its records
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct TopicSettings {
    /// Remove records this long after they were appended: 7d, 12h, 1h 30m; none keeps them
    #[arg(long, value_name = "DURATION")]
    pub retention: Option<String>,
    /// Remove the oldest records when there are more bytes than this: 10GiB, 500MB; none keeps them
    #[arg(long, value_name = "SIZE")]
    pub retention_bytes: Option<String>,
    /// Records further ahead of their append time than this move no watermark and no seek [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub max_future: Option<String>,
}

/// How input is cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum InputFormat {
    /// One record a line
    Lines,
    /// One JSON object a line
    Json,
    /// One CSV row a record; the first row holds the column names and is not sent
    Csv,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  kappa produce visits events.jsonl --format json --key user --time ts\n  echo hello | kappa produce greetings"
)]
pub(super) struct Produce {
    /// The topic; created with one partition if missing
    pub topic: String,
    /// The file (.gz is unpacked), or - for stdin
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// How the input is cut into records
    #[arg(long, value_enum, default_value_t = InputFormat::Lines)]
    pub format: InputFormat,
    /// Column whose value becomes the record's key (json, csv)
    #[arg(long, value_name = "COL")]
    pub key: Option<String>,
    /// Column with the record's timestamp: ms since the epoch, or a date or time (json, csv)
    #[arg(long, value_name = "COL")]
    pub time: Option<String>,
    /// Send everything to this partition
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    #[command(flatten)]
    pub writing: Writing,
}

/// How records are written.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Writing {
    /// What an acknowledgement promises. durable: records survive a power cut. interval:<ms>: they survive a killed process; a
    /// power cut may lose those of the last <ms> milliseconds. Offsets, topics and results of jobs are always durable
    #[arg(long, value_name = "MODE", default_value_t = Durability::Durable, env = "KAPPA_DURABILITY")]
    pub durability: Durability,
    /// Take no records while the disk has less room than this; default 1 GiB or a twentieth of the disk, whichever is more, at
    /// most a quarter
    #[arg(long, value_name = "SIZE", env = "KAPPA_DISK_FLOOR")]
    pub disk_floor: Option<String>,
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  kappa generate web-events --topic visits --events 1000000 --disorder 5s --late 0.01
  kappa generate web-events --out events.jsonl
  kappa generate nexmark --topic nexmark --events 1000000 --group 1000
  kappa generate nexmark --topic nexmark --rate 10000";

#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Visits of users who come for a while and go again, with disorder, late records and silent partitions as asked
    #[command(after_help = GENERATE_EXAMPLES)]
    WebEvents {
        #[command(flatten)]
        target: Target,
        /// Events in a second of event time
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        events_per_second: u32,
        /// Users; each comes for 10 minutes and stays away for 35
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        users: u32,
        /// Records lie behind the newest ones by up to this
        #[arg(long, value_name = "DURATION", default_value = "0s")]
        disorder: String,
        /// Share of records (0 to 1) that lie further behind than --disorder
        #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
        late: f64,
        /// By up to so much more
        #[arg(long, value_name = "DURATION", default_value = "10m")]
        late_by: String,
        /// Share of records (0 to 1) with a timestamp a century ahead
        #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
        future: f64,
        /// So many of the partitions get records of the first minute only
        #[arg(long, value_name = "N", default_value_t = 0)]
        silent: u32,
    },
    /// People, auctions and bids of the Nexmark benchmark, as rows of its Flink table
    #[command(after_help = GENERATE_EXAMPLES)]
    Nexmark {
        #[command(flatten)]
        target: Target,
        /// Events in a second of event time
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        events_per_second: u32,
        /// Shuffle events in groups of so many
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        group: u32,
    },
}

/// Where events go, how many, and how fast.
#[derive(Debug, ClapArgs)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("where").args(["topic", "out"]).required(true))]
pub(super) struct Target {
    /// Into this topic; created if missing
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Into a new file, one JSON object a line, or to stdout (-)
    #[arg(long, value_name = "FILE|-")]
    pub out: Option<PathBuf>,
    /// How many [default: without end with --rate, else 1000000]
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// The same seed and options give the same bytes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Events a second of real time [default: as fast as they are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Event time of the first event: a date, a time, or ms since the epoch
    #[arg(long, value_name = "TIME", default_value = "2026-01-01")]
    pub start: String,
    /// Partitions of the topic [default: 1, or those that it has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: Option<u32>,
    #[command(flatten)]
    pub writing: Writing,
}

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// List all groups
    List,
    /// Show a group's offsets, and how many records it has not read yet
    Describe {
        /// Its name
        name: String,
    },
    /// Set a group's offsets of a topic
    Reset {
        /// Its name; a new group begins there
        name: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// To here: earliest, latest, position:N, time:T, append:T, or a date or time
        #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
        to: String,
    },
    /// Forget a group's offsets
    Delete {
        /// Its name
        name: String,
        /// Of this topic only
        #[arg(long)]
        topic: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  kappa consume visits --max 10\n  kappa consume visits --from 2026-01-01 --format json\n  kappa consume visits --follow --values"
)]
pub(super) struct Consume {
    /// The topic
    pub topic: String,
    /// Start here: earliest, latest, position:N, offset:N (with --partition), time:T, append:T, or a date or time
    #[arg(long, value_name = "POINT", default_value = "earliest", allow_hyphen_values = true)]
    pub from: String,
    /// End before here; with a time, show exactly the records with an earlier timestamp, wherever they lie
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// At most this many records
    #[arg(long, value_name = "N")]
    pub max: Option<u64>,
    /// Wait for new records until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Print the values only, one a line, as they are
    #[arg(long)]
    pub values: bool,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Inspect {
    /// Show every frame, not only files
    #[arg(long)]
    pub frames: bool,
    /// Verify everything that has a checksum, and show what was found for each file: journal, snapshots, history
    #[arg(long, conflicts_with = "frames")]
    pub verify: bool,
    #[command(flatten)]
    pub show: Show,
}

/// Without --accept-loss nothing is changed; exit code 3 if anything is damaged.
#[derive(Debug, ClapArgs)]
pub(super) struct Repair {
    /// Write a record into the log that names all damage: readers pass it from then on. Nothing is deleted
    #[arg(long)]
    pub accept_loss: bool,
    #[command(flatten)]
    pub show: Show,
}
