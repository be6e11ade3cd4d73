//! What a checkpoint consists of: its manifest, and the record that the journal keeps of it.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `KAPPACKP` |
//! | 8 | 2 | format version |
//! | 10 | 2 | 0 |
//! | 12 | 4 | CRC of everything behind |
//! | 16 | | the manifest, bincode with fixed-width integers |

use super::BASE;
use crate::engine::OutputStream;
use crate::error::{Error, Result};
use crate::job::emit::STREAMS;
use crate::job::record::{Progress, StreamProgress};
use crate::log::{MetaRecord, MetaSpace};
use bincode::{Decode, Encode};

const MAGIC: [u8; 8] = *b"KAPPACKP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: usize = 256 << 20;

/// Where a section's bytes are: an Arrow IPC file within a file of sections.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(in crate::job) struct Place {
    /// Name of the section.
    pub name: String,
    /// The checkpoint that wrote it.
    pub file: u64,
    pub at: u64,
    pub bytes: u64,
    pub crc: u32,
}

/// The state of a job after every record before a position, and every clock step by a time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(in crate::job) struct Manifest {
    pub number: u64,
    /// The version of Kappa that wrote it.
    pub kappa: String,
    pub plan_digest: u64,
    /// As in [`RunRecord`](crate::job::RunRecord).
    pub starts: Vec<u64>,
    pub publish_from_ms: Option<i64>,
    pub position: u64,
    pub clock_us: i64,
    /// The clock stands behind the last record: steps driven by time alone have been run.
    pub is_beyond_records: bool,
    /// Rows that the engine had given out.
    pub streams: Vec<StreamProgress>,
    pub sections: Vec<Place>,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MANIFEST_BYTES_MAX>()
}

impl Manifest {
    pub fn encode(&self) -> Result<Vec<u8>> {
        let body = bincode::encode_to_vec(self, config())
            .map_err(|e| Error::internal("cannot encode a checkpoint's manifest").with_source(e))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        let damaged = |why: &str| Error::damage(format!("its manifest {why}"));
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("is cut short"))?;
        if header[..8] != MAGIC {
            return Err(damaged("is no manifest"));
        }
        if header[8..10] != VERSION.to_le_bytes() {
            return Err(damaged("was written by another version of Kappa"));
        }
        if header[12..] != crc32fast::hash(body).to_le_bytes() {
            return Err(damaged("is damaged"));
        }
        match bincode::decode_from_slice(body, config()) {
            Ok((manifest, used)) if used == body.len() => Ok(manifest),
            _ => Err(damaged("does not decode")),
        }
    }
}

/// What the journal says of a checkpoint. Without this record there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(in crate::job) struct Named {
    pub position: u64,
    /// Bytes and checksum of the manifest.
    pub bytes: u64,
    pub crc: u32,
}

impl Named {
    pub fn of(manifest: &Manifest, bytes: &[u8]) -> Named {
        Named { position: manifest.position, bytes: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    pub fn record(&self, job: &str, number: u64) -> Result<MetaRecord> {
        let value = bincode::encode_to_vec(self, config())
            .map_err(|e| Error::internal("cannot encode a checkpoint's record").with_source(e))?;
        Ok(MetaRecord { space: MetaSpace::Checkpoint, key: key(job, number), value: Some(value) })
    }

    pub fn decode(bytes: &[u8]) -> Option<Named> {
        let (named, used) = bincode::decode_from_slice(bytes, config()).ok()?;
        (used == bytes.len()).then_some(named)
    }
}

/// The record that says that a checkpoint is gone.
pub(super) fn unnamed(job: &str, number: u64) -> MetaRecord {
    MetaRecord { space: MetaSpace::Checkpoint, key: key(job, number), value: None }
}

/// Keys of a job's checkpoints begin with this.
pub(super) fn prefix(job: &str) -> String {
    format!("{job}/")
}

/// The key of what the state that a job's run began from is made for.
pub(super) fn shapes_key(job: &str) -> String {
    format!("{job}/shapes")
}

fn key(job: &str, number: u64) -> String {
    format!("{job}/{number:010}")
}

/// Whether a checkpoint may stand for the beginning of a run.
pub(super) struct Wanted<'a> {
    pub plan_digest: u64,
    pub starts: &'a [u64],
    pub publish_from_ms: Option<i64>,
    pub end: Option<Bound>,
    /// What the run has written.
    pub progress: &'a Progress,
}

/// Where a run ends: before a position, and with the clock at a time or at its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::job) struct Bound {
    pub position: u64,
    pub clock_us: Option<i64>,
}

/// Why a checkpoint cannot be gone on from; `None`: it can.
pub(super) fn unfit(manifest: &Manifest, wanted: &Wanted<'_>) -> Option<String> {
    if manifest.plan_digest != wanted.plan_digest {
        return Some("it is of a job that computes something else".to_owned());
    }
    if manifest.starts != wanted.starts || manifest.publish_from_ms != wanted.publish_from_ms {
        return Some("it is of another run".to_owned());
    }
    if let Some(end) = wanted.end {
        let beyond = match end.clock_us {
            Some(clock_us) => manifest.clock_us > clock_us,
            // What a run begins with is before all of its ends.
            None => manifest.is_beyond_records && manifest.number != BASE,
        };
        if manifest.position > end.position || beyond {
            return Some(format!("it lies behind the end that is asked for, position {}", end.position));
        }
    }
    let written = &wanted.progress.streams;
    // Rows that were written after it come again; those before it must be there.
    let fits = |(before, now): (&StreamProgress, &StreamProgress)| before.rows < now.rows || before == now;
    if manifest.streams.len() != written.len() || !manifest.streams.iter().zip(written).all(fits) {
        return Some("the log holds other rows than it was made after".to_owned());
    }
    None
}

/// Whether a run of the same job may begin behind a checkpoint of another run, and give out what it gives out from its start.
/// `is_silent`: nothing had come out of a window that it publishes.
pub(super) fn is_shortcut(manifest: &Manifest, wanted: &Wanted<'_>, is_silent: bool) -> bool {
    // Rejected rows are published whenever they come.
    let mut of_kinds = STREAMS.iter().cycle().zip(&manifest.streams);
    let has_rejected = of_kinds.any(|(kind, given)| *kind == OutputStream::Rejected && given.rows > 0);
    manifest.number != BASE && is_silent && !has_rejected && unfit(manifest, wanted).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            number: 3,
            kappa: "1".to_owned(),
            plan_digest: 7,
            starts: vec![5],
            publish_from_ms: None,
            position: 90,
            clock_us: 1_000,
            is_beyond_records: false,
            streams: vec![StreamProgress { rows: 4, digest: 8 }],
            sections: vec![Place { name: "engine".to_owned(), file: 2, at: 8, bytes: 3, crc: 1 }],
        }
    }

    #[test]
    fn manifests_come_back_and_every_flipped_bit_is_seen() {
        let bytes = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
        for at in (0..bytes.len()).filter(|at| !(10..12).contains(at)) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(Manifest::decode(&flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert!((0..bytes.len()).all(|len| Manifest::decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let progress = |rows, digest| Progress {
            position: 95,
            clock_us: 0,
            streams: vec![StreamProgress { rows, digest }],
            is_final: false,
        };
        let fits = |change: &dyn Fn(&mut Manifest), end: Option<Bound>, progress: &Progress| {
            let mut manifest = manifest();
            change(&mut manifest);
            let wanted = Wanted { plan_digest: 7, starts: &[5], publish_from_ms: None, end, progress };
            unfit(&manifest, &wanted).is_none()
        };
        let same = progress(4, 8);
        let bound = |position, clock_us| Some(Bound { position, clock_us });
        assert!(fits(&|_| {}, None, &same) && fits(&|_| {}, None, &progress(9, 1)));
        assert!(!fits(&|_| {}, None, &progress(4, 9)) && !fits(&|_| {}, None, &progress(3, 8)));
        assert!(!fits(&|m| m.plan_digest = 8, None, &same) && !fits(&|m| m.starts = vec![6], None, &same));
        assert!(fits(&|_| {}, bound(90, None), &same) && !fits(&|_| {}, bound(89, None), &same));
        assert!(!fits(&|m| m.is_beyond_records = true, bound(90, None), &same));
        assert!(fits(&|m| (m.is_beyond_records, m.number) = (true, BASE), bound(90, None), &same));
        assert!(fits(&|m| m.is_beyond_records = true, bound(90, Some(1_000)), &same));
        assert!(!fits(&|_| {}, bound(90, Some(999)), &same));
    }

    #[test]
    fn a_shortcut_is_silent_without_rejected_rows_and_not_the_state_that_a_run_began_from() {
        let given = |rows: [u64; 3]| rows.map(|rows| StreamProgress { rows, digest: rows }).to_vec();
        let progress = |streams: Vec<StreamProgress>| Progress { position: 95, clock_us: 0, streams, is_final: false };
        let is = |number: u64, rows: [u64; 3], is_silent: bool, end: u64| {
            let manifest = Manifest { number, streams: given(rows), ..manifest() };
            let (end, progress) = (Some(Bound { position: end, clock_us: None }), progress(given([9, 9, 9])));
            let wanted = Wanted { plan_digest: 7, starts: &[5], publish_from_ms: None, end, progress: &progress };
            is_shortcut(&manifest, &wanted, is_silent)
        };
        assert!(is(3, [4, 2, 0], true, 90));
        assert!(!is(3, [4, 2, 0], false, 90) && !is(3, [4, 2, 1], true, 90));
        assert!(!is(BASE, [4, 2, 0], true, 90) && !is(3, [4, 2, 0], true, 89));
    }
}
