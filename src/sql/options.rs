//! The `WITH ('key' = 'value')` options of a table.

use super::interval::duration_us;
use super::text::{Source, nearest};
use crate::engine::plan::StartupMode;
use crate::error::{Error, Result};
use crate::format::framing::Framing;
use crate::format::{CsvOptions, FormatSpec, JsonOptions, TimestampFormat};
use crate::types::{check_topic_name, is_reserved_output_name};
use sqlparser::tokenizer::Span;
use std::path::PathBuf;

/// Default of `max-future`: one hour.
const MAX_FUTURE_US: i64 = 3_600_000_000;

/// An option as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Place of the key.
    pub key_span: Span,
    /// Place of the value.
    pub value_span: Span,
}

/// What a table is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connector {
    /// A topic of the log.
    Topic,
    /// The same, written by key.
    Upsert,
    /// A file or folder.
    Filesystem(PathBuf),
    /// Rows are shown.
    Print,
    /// Rows are dropped.
    Blackhole,
}

/// The options of a table, checked.
#[derive(Debug, Clone)]
pub(super) struct TableOptions {
    /// What the table is connected to.
    pub connector: Connector,
    /// Topic.
    pub topic: String,
    /// Format of values.
    pub format: FormatSpec,
    /// `json.ignore-parse-errors`, `csv.ignore-parse-errors`.
    pub ignore_parse_errors: bool,
    /// Framing of a file.
    pub framing: Framing,
    /// Start.
    pub startup: StartupMode,
    /// `scan.watermark.idle-timeout`.
    pub idle_timeout_us: Option<i64>,
    /// `quiet-close`.
    pub quiet_close: bool,
    /// `max-future`.
    pub max_future_us: i64,
    /// `partitions`, `sink.parallelism`.
    pub partitions: u32,
    /// Options that mean nothing here.
    pub ignored: Vec<String>,
}

/// Keys that mean something here.
const KNOWN: &[&str] = &[
    "connector",
    "topic",
    "format",
    "value.format",
    "path",
    "scan.startup.mode",
    "scan.startup.timestamp-millis",
    "scan.watermark.idle-timeout",
    "quiet-close",
    "max-future",
    "partitions",
    "sink.parallelism",
    "csv.header",
    "csv.field-delimiter",
    "csv.quote-character",
    "csv.disable-quote-character",
    "csv.null-literal",
    "csv.ignore-parse-errors",
    "json.ignore-parse-errors",
    "json.fail-on-missing-field",
    "json.encode.decimal-as-plain-number",
    "csv.write-bigdecimal-in-scientific-notation",
    "json.timestamp-format.standard",
];

/// Keys of Flink that mean nothing here, by their beginning.
const IGNORED: &[&str] = &[
    "properties.",
    "key.format",
    "key.fields",
    "key.fields-prefix",
    "key.json.",
    "key.csv.",
    "value.fields-include",
    "sink.partitioner",
    "sink.delivery-guarantee",
    "sink.transactional-id-prefix",
    "sink.semantic",
    "sink.rolling-policy.",
    "sink.partition-commit.",
    "sink.buffer-flush.",
    "auto-compaction",
    "compaction.",
    "source.monitor-interval",
    "source.path.regex-pattern",
    "scan.topic-partition-discovery.interval",
    "scan.parallelism",
    "scan.watermark.emit.strategy",
    "scan.watermark.alignment.",
    "json.encode.decimal-as-plain-number",
    "json.map-null-key.",
    "csv.allow-comments",
    "csv.array-element-delimiter",
    "csv.escape-character",
    "csv.write-bigdecimal-in-scientific-notation",
    "print-identifier",
    "standard-error",
    "logger",
];

struct Options<'o> {
    source: Source<'o>,
    all: &'o [Written],
    at: Span,
}

/// Checks the options of table `table`; `at` is the place of its name.
pub(super) fn check(
    source: Source<'_>,
    table: &str,
    at: Span,
    all: &[Written],
    primary_key: bool,
) -> Result<TableOptions> {
    let options = Options { source, all, at };
    let ignored = options.check_keys()?;
    let connector = options.connector(primary_key)?;
    let topic = options.topic(table, &connector)?;
    let (format, ignore_parse_errors) = options.format()?;
    let framing = options.framing(&format)?;
    let partitions = match options.find("partitions").or(options.find("sink.parallelism")) {
        None => 1,
        Some(option) => match option.value.trim().parse() {
            Ok(count @ 1..=1024) => count,
            _ => return Err(options.bad(option, "expected a number from 1 to 1024")),
        },
    };
    Ok(TableOptions {
        startup: options.startup()?,
        idle_timeout_us: options.duration("scan.watermark.idle-timeout")?,
        quiet_close: options.flag("quiet-close")?,
        max_future_us: options.duration("max-future")?.unwrap_or(MAX_FUTURE_US),
        connector,
        topic,
        format,
        ignore_parse_errors,
        framing,
        partitions,
        ignored,
    })
}

impl Options<'_> {
    fn find(&self, key: &str) -> Option<&Written> {
        self.all.iter().find(|option| option.key == key)
    }

    fn bad(&self, option: &Written, message: &str) -> Error {
        self.source.error(option.value_span, format!("'{}' = '{}': {message}", option.key, option.value))
    }

    fn check_keys(&self) -> Result<Vec<String>> {
        let mut ignored = Vec::new();
        for (n, option) in self.all.iter().enumerate() {
            if self.all[..n].iter().any(|before| before.key == option.key) {
                return Err(self.source.error(option.key_span, format!("option '{}' is given twice", option.key)));
            }
            if KNOWN.contains(&option.key.as_str()) {
                continue;
            }
            let meaningless = |prefix: &str| match prefix.ends_with('.') {
                true => option.key.starts_with(prefix),
                false => option.key == prefix,
            };
            if IGNORED.iter().any(|prefix| meaningless(prefix)) {
                ignored.push(option.key.clone());
                continue;
            }
            let error = self.source.error(option.key_span, format!("unknown option '{}'", option.key));
            return Err(match nearest(&option.key, KNOWN.iter().chain(IGNORED).copied()) {
                Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                None => error.with_hint(format!("options are: {}", KNOWN.join(", "))),
            });
        }
        Ok(ignored)
    }

    fn connector(&self, primary_key: bool) -> Result<Connector> {
        let Some(option) = self.find("connector") else { return Ok(Connector::Topic) };
        match option.value.as_str() {
            "kappa" | "kafka" => Ok(Connector::Topic),
            "upsert-kafka" if primary_key => Ok(Connector::Upsert),
            "upsert-kafka" => Err(self
                .bad(option, "this connector needs a key")
                .with_hint("add PRIMARY KEY (...) NOT ENFORCED to the table")),
            "print" => Ok(Connector::Print),
            "blackhole" => Ok(Connector::Blackhole),
            "filesystem" => match self.find("path") {
                Some(path) => {
                    let plain = path.value.strip_prefix("file://").unwrap_or(&path.value);
                    match plain.is_empty() || plain.contains("://") {
                        true => Err(self.bad(path, "expected a path of a local file or folder")),
                        false => Ok(Connector::Filesystem(PathBuf::from(plain))),
                    }
                }
                None => Err(self.bad(option, "this connector needs 'path'")),
            },
            "datagen" | "jdbc" | "hbase" | "elasticsearch-7" | "kinesis" => {
                Err(self.bad(option, "this connector of Flink is not supported"))
            }
            other => {
                let known = ["kappa", "kafka", "upsert-kafka", "filesystem", "print", "blackhole"];
                let error = self.bad(option, "unknown connector");
                Err(match nearest(other, known) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error.with_hint(format!("connectors are: {}", known.join(", "))),
                })
            }
        }
    }

    fn topic(&self, table: &str, connector: &Connector) -> Result<String> {
        let option = self.find("topic");
        if let (Some(option), Connector::Filesystem(_) | Connector::Print | Connector::Blackhole) = (option, connector)
        {
            return Err(self
                .source
                .error(option.key_span, "'topic' goes with the connectors 'kappa' and 'kafka' only"));
        }
        let (name, at) = option.map_or((table, self.at), |option| (option.value.as_str(), option.value_span));
        check_topic_name(name).map_err(|message| {
            let error = self.source.error(at, message);
            if option.is_none() { error.with_hint("name the topic: 'topic' = '...'") } else { error }
        })?;
        if is_reserved_output_name(name) && option.is_none() {
            return Err(self.source.error(at, format!("'{name}': endings .late, .rejected and .vN are for outputs")));
        }
        Ok(name.to_owned())
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.find(key) {
            None => Ok(false),
            Some(option) => match option.value.trim().to_ascii_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(self.bad(option, "expected 'true' or 'false'")),
            },
        }
    }

    fn duration(&self, key: &str) -> Result<Option<i64>> {
        match self.find(key) {
            None => Ok(None),
            Some(option) => match duration_us(&option.value) {
                // Flink's default of the idle timeout is '0 ms': never.
                Some(0) => Ok(None),
                Some(us) => Ok(Some(us)),
                None => Err(self.bad(option, "expected a duration such as '5 s' or '1 min'")),
            },
        }
    }

    fn startup(&self) -> Result<StartupMode> {
        let millis = self.find("scan.startup.timestamp-millis");
        let Some(option) = self.find("scan.startup.mode") else { return Ok(StartupMode::Earliest) };
        match option.value.as_str() {
            "earliest-offset" | "group-offsets" => Ok(StartupMode::Earliest),
            "latest-offset" => Ok(StartupMode::Latest),
            "timestamp" => match millis {
                None => Err(self.bad(option, "this mode needs 'scan.startup.timestamp-millis'")),
                Some(millis) => match millis.value.trim().parse() {
                    Ok(ms) => Ok(StartupMode::TimestampMs(ms)),
                    Err(_) => Err(self.bad(millis, "expected milliseconds since 1970")),
                },
            },
            _ => Err(self
                .bad(option, "unknown mode")
                .with_hint("modes are: earliest-offset, latest-offset, group-offsets, timestamp")),
        }
    }

    fn format(&self) -> Result<(FormatSpec, bool)> {
        let option = self.find("format").or(self.find("value.format"));
        match option.map_or("json", |option| option.value.as_str()) {
            "json" => {
                let timestamps = match self.find("json.timestamp-format.standard") {
                    None => TimestampFormat::Sql,
                    Some(standard) if standard.value.eq_ignore_ascii_case("SQL") => TimestampFormat::Sql,
                    Some(standard) if standard.value.eq_ignore_ascii_case("ISO-8601") => TimestampFormat::Iso8601,
                    Some(standard) => return Err(self.bad(standard, "expected 'SQL' or 'ISO-8601'")),
                };
                let fail_on_missing_field = self.flag("json.fail-on-missing-field")?;
                let decimal_as_plain_number = self.flag("json.encode.decimal-as-plain-number")?;
                let json = JsonOptions { timestamps, fail_on_missing_field, decimal_as_plain_number };
                Ok((FormatSpec::Json(json), self.flag("json.ignore-parse-errors")?))
            }
            "csv" => {
                let quote = match self.flag("csv.disable-quote-character")? {
                    true => None,
                    false => Some(self.byte("csv.quote-character", b'"')?),
                };
                let null_literal = self.find("csv.null-literal").map(|option| option.value.clone());
                let delimiter = self.byte("csv.field-delimiter", b',')?;
                let key = "csv.write-bigdecimal-in-scientific-notation";
                let decimal_as_plain_number = self.find(key).is_some() && !self.flag(key)?;
                let csv = CsvOptions { delimiter, quote, null_literal, decimal_as_plain_number };
                Ok((FormatSpec::Csv(csv), self.flag("csv.ignore-parse-errors")?))
            }
            "raw" => Ok((FormatSpec::Raw, false)),
            other => {
                let error = match option {
                    Some(option) => self.bad(option, "unknown format"),
                    None => self.source.error(self.at, format!("unknown format {other}")),
                };
                Err(error.with_hint("formats are: json, csv, raw"))
            }
        }
    }

    fn byte(&self, key: &str, default: u8) -> Result<u8> {
        let Some(option) = self.find(key) else { return Ok(default) };
        match option.value.as_bytes() {
            [byte] if byte.is_ascii() => Ok(*byte),
            b"\\t" => Ok(b'\t'),
            _ => Err(self.bad(option, "expected one ASCII character")),
        }
    }

    fn framing(&self, format: &FormatSpec) -> Result<Framing> {
        let header = self.flag("csv.header")?;
        Ok(match format {
            FormatSpec::Csv(csv) => Framing::Csv { header, quote: csv.quote },
            _ => Framing::Lines,
        })
    }
}
