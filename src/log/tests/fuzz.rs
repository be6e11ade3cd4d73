//! The log's decoders on bytes that nobody wrote: valid ones, changed, with checksums that fit again.

#[path = "../../../tests/mutate.rs"]
mod mutate;

use super::crash::tell;
use super::rot::specimen;
use super::*;
use crate::env::sim::Sim;
use crate::log::catalog::{self, MetaRecord, MetaSpace};
use crate::log::frame::header::{FRAME_HEADER_LEN, FRAMES_AT, FileHeader, FrameHeader, resealed};
use crate::log::frame::{Part, body, crc, directory, padded};
use crate::log::history::file::FileRecord;
use crate::log::records::{decode_headers, encode_headers};
use crate::log::scan::{Item, Scan};
use crate::log::{Codec, snapshot, trim};
use crate::types::{AppendTime, FrameSeq, Offset};
use mutate::{Mutator, fuzz};

fn nothing(_: &mut Mutator, _: &mut Vec<u8>) {}

fn said<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "well".to_owned())
}

fn told(target: &str, (inputs, outcomes): (u64, usize)) {
    tell(&format!("fuzz {target}: {inputs} inputs, {outcomes} kinds of outcome, panics = 0"));
}

/// The first journal file of a small log.
fn journal_file(codec: Codec) -> Vec<u8> {
    specimen(&LogOptions { codec, ..small() }, 6).bytes_of(1)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Makes all checksums of the frame at `at` fit what is there, as far as its lengths make sense.
fn reseal_frame(bytes: &mut [u8], salt: u64, at: usize) -> Option<()> {
    let frame_len = u32_at(bytes, at + 64)?.min(bytes.len() - at);
    let frame = bytes.get_mut(at..at + frame_len)?;
    let (directory_len, meta_len) = (u32_at(frame, 56)?, u32_at(frame, 60)?);
    let seq = u64::from_le_bytes(frame.get(8..16)?.try_into().ok()?);
    let directory_end = FRAME_HEADER_LEN.checked_add(directory_len)?.min(frame.len());
    let mut entry = FRAME_HEADER_LEN;
    while entry + 48 <= directory_end {
        let (runs, body_at, body_len) =
            (u32_at(frame, entry + 12)?, u32_at(frame, entry + 32)?, u32_at(frame, entry + 36)?);
        let topic = u32_at(frame, entry)? as u32;
        if let Some(body) = frame.get(body_at..body_at.saturating_add(padded(body_len))) {
            let sum = crc(salt, Part::Body, seq, topic, body);
            set_u32(frame, entry + 44, sum);
        }
        entry = entry.checked_add(48)?.checked_add(runs.checked_mul(32)?)?;
    }
    let sum = crc(salt, Part::Directory, seq, 0, frame.get(FRAME_HEADER_LEN..directory_end)?);
    set_u32(frame, 68, sum);
    if let Some(meta) = frame.get(directory_end..directory_end.saturating_add(padded(meta_len))) {
        let sum = crc(salt, Part::Meta, seq, 0, meta);
        set_u32(frame, 72, sum);
    }
    let header = resealed(frame, salt, at as u64)?;
    frame.get_mut(..FRAME_HEADER_LEN)?.copy_from_slice(&header);
    Some(())
}

/// Places where the bytes of a frame's magic are.
fn frames_in(bytes: &[u8]) -> Vec<usize> {
    let places = (FRAMES_AT as usize..bytes.len()).step_by(8);
    places.filter(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(b"KFRM"))).collect()
}

#[test]
fn journal_files_with_checksums_that_fit_open_or_say_why_not() {
    let options = small();
    for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
        let whole = journal_file(codec);
        let header = FileHeader::decode(&whole).unwrap();
        // The headers are other targets': only what is behind them is changed.
        let (front, frames) = whole.split_at(FRAMES_AT as usize);
        let repair = |_: &mut Mutator, bytes: &mut Vec<u8>| {
            let mut file = [front, bytes].concat();
            for at in frames_in(&file) {
                reseal_frame(&mut file, header.salt, at);
            }
            *bytes = file.split_off(FRAMES_AT as usize);
        };
        let open = |bytes: &[u8]| {
            let sim = Sim::new(1);
            sim.disk.seed(&dir().join("journal").join(crate::log::journal::file_name(1)), [front, bytes].concat());
            let log = match Log::open(&sim.env(), dir(), options.clone()) {
                Err(error) => return error.to_string(),
                Ok(log) => log,
            };
            let ids: Vec<TopicId> = log.topics().iter().map(crate::log::Topic::id).collect();
            let mut reader = log.reader(&ids, Position(0));
            loop {
                match reader.next(log.durable_end()) {
                    Ok(Some(_)) => {}
                    Ok(None) => return format!("{} topics {}", ids.len().min(3), log.report().is_clean()),
                    Err(_) => {
                        reader.skip_damage();
                    }
                }
            }
        };
        let target = format!("journal-{codec:?}").to_lowercase();
        told(&target, fuzz(&target, &[frames.to_vec()], repair, open));
    }
}

#[test]
fn headers_directories_and_bodies_decode_or_say_why_not() {
    let whole = journal_file(Codec::Lz4);
    let salt = FileHeader::decode(&whole).unwrap().salt;
    let block = whole[..crate::log::frame::header::FILE_HEADER_BLOCK].to_vec();
    let reseal_file = |_: &mut Mutator, bytes: &mut Vec<u8>| {
        bytes.resize(block.len(), 0);
        bytes[64..68].fill(0);
        let sum = crc32fast::hash(bytes);
        bytes[64..68].copy_from_slice(&sum.to_le_bytes());
    };
    let short = vec![block.clone()];
    told("file-header", fuzz("file-header", &short, reseal_file, |bytes| said(FileHeader::decode(bytes))));
    let frame = |item: Item<'_>| match item {
        Item::Frame(frame) => Some((frame.at as usize, frame.header)),
        _ => None,
    };
    let frames: Vec<(usize, FrameHeader)> = Scan::new(&whole, salt, true).filter_map(frame).collect();
    let headers: Vec<Vec<u8>> = frames.iter().map(|(at, _)| whole[*at..at + FRAME_HEADER_LEN].to_vec()).collect();
    let reseal_header = |_: &mut Mutator, bytes: &mut Vec<u8>| {
        if let Some(header) = resealed(bytes, salt, FRAMES_AT) {
            bytes[..FRAME_HEADER_LEN].copy_from_slice(&header);
        }
    };
    let decode = |bytes: &[u8]| said(FrameHeader::decode(bytes, salt, FRAMES_AT));
    told("frame-header", fuzz("frame-header", &headers, reseal_header, decode));
    let (at, header) = frames.iter().find(|(_, header)| header.topics == 2).copied().unwrap();
    let directory = whole[at + FRAME_HEADER_LEN..at + header.meta_at()].to_vec();
    let decode = |bytes: &[u8]| said(directory::decode(bytes, &header));
    told("directory", fuzz("directory", std::slice::from_ref(&directory), nothing, decode));
    let entries = directory::decode(&directory, &header).unwrap();
    for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
        let entry = &entries[0];
        let stored = &whole[at + entry.body_at as usize..][..entry.body_len as usize];
        let plain = body::decompress(entry.codec, &stored.into(), entry.plain_len as usize).unwrap();
        let packed = body::compress(codec, plain.as_slice()).unwrap_or_else(|| plain.as_slice().to_vec());
        let decode = |bytes: &[u8]| {
            let body =
                body::decompress(codec, &bytes.into(), if codec == Codec::Plain { bytes.len() } else { plain.len() });
            said(body.and_then(|body| body::decode(&body, entry, Position(7), AppendTime(1))))
        };
        let target = format!("body-{codec:?}").to_lowercase();
        told(&target, fuzz(&target, &[packed], nothing, decode));
    }
}

fn snapshot_example() -> snapshot::Snapshot {
    snapshot::Snapshot {
        number: 4,
        log_id: 99,
        applied: FrameSeq(12),
        position: Position(300),
        clock: AppendTime(7),
        entries: vec![(MetaSpace::Topic, "0000000001".to_owned(), vec![1; 30])],
        ends: [((TopicId(1), PartitionId(0)), Offset(5))].into(),
        producers: Vec::new(),
    }
}

#[test]
fn metadata_snapshots_and_records_decode_or_say_why_not() {
    let mut section = Vec::new();
    for (space, key, value) in [
        (MetaSpace::Topic, "0000000001", Some(vec![1; 40])),
        (MetaSpace::Offset, "g/1/0", Some(vec![7; 8])),
        (MetaSpace::Run, "r", None),
    ] {
        catalog::encode(MetaRecord { space, key: key.to_owned(), value }, &mut section);
    }
    told("metadata", fuzz("metadata", &[section], nothing, |bytes| said(catalog::decode(bytes))));
    let mut headers = Vec::new();
    encode_headers(&[("name", Some(b"value")), ("null", None)], &mut headers);
    told("record-headers", fuzz("record-headers", &[headers], nothing, |bytes| said(decode_headers(bytes))));
    let snapshot = snapshot_example().encode();
    let reseal = |_: &mut Mutator, bytes: &mut Vec<u8>| {
        let covered = bytes.len().saturating_sub(4);
        if covered > 64 {
            let len = bytes.len() as u64;
            bytes[56..64].copy_from_slice(&len.to_le_bytes());
            let sum = crc32fast::hash(&bytes[..covered]);
            bytes[covered..].copy_from_slice(&sum.to_le_bytes());
        }
    };
    let decode = |bytes: &[u8]| said(snapshot::Snapshot::decode(bytes));
    told("snapshot", fuzz("snapshot", &[snapshot], reseal, decode));
    let record = FileRecord { number: 3, bytes: 4_000, xxh64: 7, topics: Vec::new() };
    let decode = |bytes: &[u8]| said(FileRecord::decode(bytes));
    told("history-record", fuzz("history-record", &[record.encode()], nothing, decode));
    told("trim", fuzz("trim", &[vec![1; 40], vec![0; 25]], nothing, |bytes| said(trim::Trim::decode(bytes))));
}
