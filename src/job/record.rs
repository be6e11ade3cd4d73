//! What the log remembers of a run: its identity and its progress, and the pure decision what a new request means.

use crate::error::{Error, Result};
use crate::types::{AppendTime, Position};
use bincode::{Decode, Encode};

/// Largest encoded record of a run in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Identity of a run. Equal identity means equal output bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunRecord {
    /// Digest of the plan.
    pub plan_digest: u64,
    /// First position that is read, by source in plan order.
    pub starts: Vec<u64>,
    /// Position that the run ends before; `None` follows the log.
    pub end: Option<u64>,
    /// Open windows are emitted at the end.
    pub flush: bool,
    /// Only windows that start at this time (ms) or later are published.
    pub publish_from_ms: Option<i64>,
    /// Output topics, without those of late and rejected rows.
    pub outputs: Vec<String>,
    /// Source topics, in plan order.
    pub sources: Vec<String>,
}

/// Rows and running digest of one output stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct StreamProgress {
    /// Rows emitted.
    pub rows: u64,
    /// Chained XXH64 over all of them ([`record_digest`](super::record_digest)).
    pub digest: u64,
}

/// How far a run has come: written in the frame that holds the rows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// Every source record before this position has been processed.
    pub position: u64,
    /// Every clock step due by this append time (us) has been run.
    pub clock_us: i64,
    /// By output in plan order: main, late, rejected.
    pub streams: Vec<StreamProgress>,
    /// The run has reached its end; nothing will be added.
    pub is_final: bool,
}

impl Progress {
    /// The position as a type.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// The clock as a type.
    pub fn clock(&self) -> AppendTime {
        AppendTime(self.clock_us)
    }
}

macro_rules! metadata_codec {
    ($type:ty, $what:literal) => {
        impl $type {
            /// Bytes for the catalog.
            pub fn encode(&self) -> Result<Vec<u8>> {
                let bytes = bincode::encode_to_vec(self, bincode::config::standard().with_fixed_int_encoding())
                    .map_err(|e| Error::internal(concat!("cannot encode a ", $what)).with_source(e))?;
                if bytes.len() > { $crate::job::record::RECORD_BYTES_MAX } {
                    return Err(Error::input(format!(
                        concat!("the ", $what, " takes {} bytes, at most {} are allowed"),
                        bytes.len(),
                        { $crate::job::record::RECORD_BYTES_MAX }
                    ))
                    .with_hint("split the file into several jobs"));
                }
                Ok(bytes)
            }

            /// From the catalog's bytes; `key` names the run in errors.
            pub fn decode(key: &str, bytes: &[u8]) -> Result<Self> {
                let config = bincode::config::standard()
                    .with_fixed_int_encoding()
                    .with_limit::<{ $crate::job::record::RECORD_BYTES_MAX }>();
                match bincode::decode_from_slice(bytes, config) {
                    Ok((value, read)) if read == bytes.len() => Ok(value),
                    Ok(_) => Err(Error::damage(format!(concat!("the ", $what, " of '{}' has bytes left over"), key))),
                    Err(e) => {
                        Err(Error::damage(format!(concat!("the ", $what, " of '{}' does not decode"), key))
                            .with_source(e))
                    }
                }
            }
        }
    };
}
pub(super) use metadata_codec;

metadata_codec!(RunRecord, "run record");
metadata_codec!(Progress, "progress record");

/// What a request means for what is in the log already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing there: start.
    Fresh,
    /// The same run, not at its end: recompute from its start, leave out what was emitted, go on.
    Resume,
    /// The same run, complete: nothing to write.
    Same,
    /// Another run wrote these outputs.
    Refuse(String),
}

/// Decides from the recorded run, its progress, and the run that is asked for.
pub(super) fn decide(recorded: Option<(&RunRecord, Option<&Progress>)>, asked: &RunRecord) -> Decision {
    let Some((recorded, progress)) = recorded else { return Decision::Fresh };
    let refuse = |why: &str| Decision::Refuse(why.to_owned());
    if recorded.plan_digest != asked.plan_digest {
        return refuse("its SQL computes something else");
    }
    if recorded.starts != asked.starts {
        return refuse("it started elsewhere");
    }
    if recorded.publish_from_ms != asked.publish_from_ms {
        return refuse("it published other windows");
    }
    let Some(progress) = progress else { return Decision::Resume };
    if !progress.is_final {
        return match asked.end {
            Some(end) if end < progress.position => Decision::Refuse(format!(
                "it has gone on to position {}, beyond the end that is asked for",
                progress.position
            )),
            _ => Decision::Resume,
        };
    }
    if recorded.end == asked.end && recorded.flush == asked.flush {
        return Decision::Same;
    }
    if recorded.flush {
        return Decision::Refuse(format!(
            "it flushed its open windows at position {}, so it cannot go on from there",
            progress.position
        ));
    }
    match asked.end {
        Some(end) if end < progress.position => {
            Decision::Refuse(format!("it has gone on to position {}", progress.position))
        }
        _ => Decision::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(end: Option<u64>, flush: bool) -> RunRecord {
        RunRecord {
            plan_digest: 7,
            starts: vec![0],
            end,
            flush,
            publish_from_ms: None,
            outputs: vec!["out".into()],
            sources: vec!["in".into()],
        }
    }

    fn at(position: u64, is_final: bool) -> Progress {
        Progress { position, clock_us: -5, streams: vec![StreamProgress { rows: 3, digest: 9 }; 3], is_final }
    }

    #[test]
    fn the_same_run_is_resumed_until_it_is_complete() {
        let run = record(Some(10), true);
        assert_eq!(decide(None, &run), Decision::Fresh);
        assert_eq!(decide(Some((&run, None)), &run), Decision::Resume);
        assert_eq!(decide(Some((&run, Some(&at(4, false)))), &run), Decision::Resume);
        assert_eq!(decide(Some((&run, Some(&at(10, true)))), &run), Decision::Same);
    }

    #[test]
    fn an_unflushed_run_may_go_on_and_a_flushed_one_may_not() {
        let held = record(Some(10), false);
        assert_eq!(decide(Some((&held, Some(&at(10, true)))), &record(Some(20), true)), Decision::Resume);
        assert_eq!(decide(Some((&held, Some(&at(10, true)))), &record(None, false)), Decision::Resume);
        assert!(matches!(decide(Some((&held, Some(&at(10, true)))), &record(Some(5), false)), Decision::Refuse(_)));
        let flushed = record(Some(10), true);
        assert!(matches!(decide(Some((&flushed, Some(&at(10, true)))), &record(Some(20), true)), Decision::Refuse(_)));
    }

    #[test]
    fn another_plan_or_start_is_refused() {
        let run = record(None, false);
        for other in [
            RunRecord { plan_digest: 8, ..run.clone() },
            RunRecord { starts: vec![1], ..run.clone() },
            RunRecord { publish_from_ms: Some(0), ..run.clone() },
        ] {
            assert!(matches!(decide(Some((&run, None)), &other), Decision::Refuse(_)), "{other:?}");
        }
    }

    #[test]
    fn records_keep_their_bytes_and_hostile_bytes_are_errors() {
        let run = record(Some(10), true);
        let bytes = run.encode().unwrap();
        assert_eq!(RunRecord::decode("k", &bytes).unwrap(), run);
        let golden: Vec<u8> = [
            &7u64.to_le_bytes()[..],
            &1u64.to_le_bytes(),
            &0u64.to_le_bytes(),
            &[1],
            &10u64.to_le_bytes(),
            &[1, 0],
            &1u64.to_le_bytes(),
            &3u64.to_le_bytes(),
            b"out",
            &1u64.to_le_bytes(),
            &2u64.to_le_bytes(),
            b"in",
        ]
        .concat();
        assert_eq!(bytes, golden, "the bytes of a run record must not change");
        let bytes = at(4, true).encode().unwrap();
        assert_eq!(Progress::decode("k", &bytes).unwrap(), at(4, true));
        assert!(Progress::decode("k", &[&bytes[..], b"x"].concat()).is_err());
        assert!(Progress::decode("k", &bytes[..bytes.len() - 1]).is_err());
        assert!(Progress::decode("k", &[0xff; 64]).is_err());
    }
}
