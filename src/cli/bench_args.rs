//! The arguments of `kappa bench`.

use crate::log::Durability;
use clap::Subcommand;
use std::path::PathBuf;

/// Queries of the Nexmark benchmark that Kappa has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum NexmarkQuery {
    Q0,
    Q1,
    Q2,
    Q5,
    Q7,
    Q11,
    Q12,
    Q14,
    Q21,
    Q22,
}

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Durable appends of 1 KiB records by pipelining producers, beside a bare loop of write and fdatasync
    Append {
        /// Rounds; each measures both
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// Seconds of appending in each round
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Producers
        #[arg(long, default_value_t = 64)]
        producers: u32,
        /// Bytes of a record's value
        #[arg(long, default_value_t = 1024)]
        record_bytes: usize,
        /// Partitions of the topic; keys go over all of them
        #[arg(long, default_value_t = 4)]
        partitions: u32,
        /// What an acknowledgement promises: durable, or interval:<ms>
        #[arg(long, value_name = "MODE", default_value_t = Durability::Durable)]
        durability: Durability,
        /// Leave full files in the journal: without it they are sealed meanwhile, which takes disk and processor too
        #[arg(long)]
        no_sealing: bool,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Windows over history, by kind and type of key, beside a bare loop that reads the same columns and counts by key
    Window {
        /// Rounds; each measures everything
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Events of each log
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        events: u64,
        /// Different 64-bit keys
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        keys: u32,
        /// Different string keys
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
        string_keys: u32,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Consumers of history: one on one partition beside many on many, and live appends beside a replay
    Consume {
        /// Rounds; each measures everything once
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// Events in each of two topics, in millions
        #[arg(long, default_value_t = 4)]
        millions: u32,
        /// Partitions of the second topic, each with a consumer of its own
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
        consumers: u32,
        /// Seconds of live appends in each round, alone and again beside a replay
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Seeks to random times and offsets of a warm log, beside a bare binary search in memory
    Seek {
        /// Rounds; each seeks by time, append time and offset
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// Records, in millions
        #[arg(long, default_value_t = 10)]
        millions: u32,
        /// Seeks of each kind in a round
        #[arg(long, default_value_t = 1_000)]
        seeks: u32,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// A 1-minute tumbling count by key over JSON events, from the journal and from history
    Replay {
        /// Rounds; each runs the job once
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// Events, in millions
        #[arg(long, default_value_t = 10)]
        millions: u32,
        /// Distinct keys
        #[arg(long, default_value_t = 10_000)]
        keys: u32,
        /// Threads of the engine
        #[arg(long, default_value_t = 1)]
        threads: u16,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Nexmark's queries q0, q1, q2, q5, q7, q11, q12, q14, q21, q22, from the journal and from history
    Nexmark {
        /// Rounds; each runs every query from both places
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// Events
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        events: u64,
        /// Only these, such as q0,q11 [default: all that run]
        #[arg(long, value_enum, value_delimiter = ',')]
        queries: Option<Vec<NexmarkQuery>>,
        /// Threads of the engine
        #[arg(long, default_value_t = 1)]
        threads: u16,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Checkpoints of a large state: pauses, cost and restore, beside a bare write and read of as many bytes
    Checkpoint {
        /// Rounds; each runs the job without and with checkpoints, and goes on from one
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Events
        #[arg(long, default_value_t = 20_000_000)]
        events: u64,
        /// Different keys of the state
        #[arg(long, default_value_t = 6_500_000, value_parser = clap::value_parser!(u32).range(1..))]
        keys: u32,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
    /// Opening a log of two sizes, beside a bare read of the ends of its files
    Restart {
        /// Rounds; each opens and closes both logs
        #[arg(long, default_value_t = 9)]
        rounds: u32,
        /// MiB of records in the small log
        #[arg(long, default_value_t = 1024)]
        small_mib: u64,
        /// MiB of records in the large log
        #[arg(long, default_value_t = 10_240)]
        large_mib: u64,
        /// Folder for the data; removed afterwards
        #[arg(long, default_value = "./kappa-bench")]
        dir: PathBuf,
    },
}
