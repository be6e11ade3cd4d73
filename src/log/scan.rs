//! What the bytes of a journal file say, as facts: frames, which of their parts are intact, and bytes that are no frame.
//! Nothing is decided here and nothing is read beyond the bytes handed in.

use crate::log::frame::directory::{self, TopicEntry};
use crate::log::frame::footer::FooterFrame;
use crate::log::frame::header::{FRAMES_AT, FrameHeader, may_begin, resealed};
use crate::log::frame::{Part, crc, padded};
use crate::log::mutant::Mutant;
use crate::log::spare::END;

/// The metadata section of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section<'a> {
    /// Its bytes match their checksum.
    Intact(&'a [u8]),
    /// They do not.
    Damaged,
}

/// A frame whose header is intact.
#[derive(Debug, Clone)]
pub(crate) struct FrameFacts<'a> {
    /// Its byte in the file.
    pub at: u64,
    pub header: FrameHeader,
    /// Its directory; `None` if damaged.
    pub topics: Option<Vec<TopicEntry>>,
    /// Which topics of the directory have a damaged body; empty if bodies were not looked at.
    pub bad_bodies: Vec<usize>,
    pub meta: Section<'a>,
}

impl FrameFacts<'_> {
    /// True if all that was looked at is intact.
    pub fn intact(&self) -> bool {
        self.topics.is_some() && self.bad_bodies.is_empty() && self.meta != Section::Damaged
    }

    pub fn end(&self) -> u64 {
        self.at + u64::from(self.header.frame_len)
    }
}

/// What comes next in a file.
#[derive(Debug, Clone)]
pub(crate) enum Item<'a> {
    Frame(FrameFacts<'a>),
    /// Bytes `at..to` are no frame; a frame follows.
    Gap {
        at: u64,
        to: u64,
    },
    /// Bytes from `at` to the end are no frame.
    Tail {
        at: u64,
        /// The writer left it at that: nothing follows, or [`END`].
        ended: bool,
    },
}

/// Reads a file front to back.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    salt: u64,
    bodies: bool,
    /// Checksums that are not looked at: for the tests only.
    blind_to: Option<Part>,
    at: u64,
    done: bool,
}

impl<'a> Scan<'a> {
    /// Scans the frames in `bytes`, the whole file up to where its frames can be; with `bodies`, their checksums too.
    pub fn new(bytes: &'a [u8], salt: u64, bodies: bool) -> Scan<'a> {
        Scan { bytes, salt, bodies, blind_to: None, at: FRAMES_AT, done: false }
    }

    /// Does not look at the checksums that this mutant leaves out.
    pub fn mutated(self, mutant: Option<Mutant>) -> Scan<'a> {
        Scan { blind_to: mutant.and_then(Mutant::blind_to), ..self }
    }

    fn rest(&self, at: u64) -> &'a [u8] {
        usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    fn header(&self, at: u64) -> Option<FrameHeader> {
        let rest = self.rest(at);
        if self.blind_to == Some(Part::Header) {
            return FrameHeader::decode(&resealed(rest, self.salt, at)?, self.salt, at).ok();
        }
        if may_begin(rest) { FrameHeader::decode(rest, self.salt, at).ok() } else { None }
    }

    /// What the bytes say about a frame that the file's footer knows, and whether header and directory are as they should be.
    pub fn known(&self, frame: FooterFrame) -> (FrameFacts<'a>, bool) {
        let FooterFrame { at, header, topics } = frame;
        let found = self.header(at).map(|header| self.frame(at, header));
        let same = found.is_some_and(|found| found.header == header && found.topics.as_ref() == Some(&topics));
        (self.facts(at, header, Some(topics)), same)
    }

    fn frame(&self, at: u64, header: FrameHeader) -> FrameFacts<'a> {
        let directory_at = header.meta_at() - header.directory_len as usize;
        let blind = self.blind_to == Some(Part::Directory);
        let sum = |bytes: &[u8]| crc(self.salt, Part::Directory, header.seq.0, 0, bytes);
        let topics = self
            .rest(at)
            .get(directory_at..header.meta_at())
            .filter(|bytes| blind || sum(bytes) == header.directory_crc)
            .and_then(|bytes| directory::decode(bytes, &header).ok());
        self.facts(at, header, topics)
    }

    fn facts(&self, at: u64, header: FrameHeader, topics: Option<Vec<TopicEntry>>) -> FrameFacts<'a> {
        let rest = self.rest(at);
        let frame = rest.get(..header.frame_len as usize).unwrap_or(rest);
        let part = |from: usize, len: usize| frame.get(from..from.checked_add(len)?);
        let fits = |part: Part, topic: u32, bytes: &[u8], sum: u32| {
            crc(self.salt, part, header.seq.0, topic, bytes) == sum || self.blind_to == Some(part)
        };
        let meta = part(header.meta_at(), padded(header.meta_len as usize))
            .filter(|bytes| fits(Part::Meta, 0, bytes, header.meta_crc))
            .and_then(|bytes| bytes.get(..header.meta_len as usize))
            .map_or(Section::Damaged, Section::Intact);
        let bad = |entry: &TopicEntry| {
            part(entry.body_at as usize, padded(entry.body_len as usize))
                .is_none_or(|bytes| !fits(Part::Body, entry.topic.0, bytes, entry.body_crc))
        };
        let whole = frame.len() == header.frame_len as usize;
        let bad_bodies = match &topics {
            Some(topics) if self.bodies || !whole => {
                topics.iter().enumerate().filter(|(_, entry)| bad(entry)).map(|(index, _)| index).collect()
            }
            _ => Vec::new(),
        };
        FrameFacts { at, header, topics, bad_bodies, meta }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.done {
            return None;
        }
        let at = self.at;
        if let Some(header) = self.header(at) {
            let frame = self.frame(at, header);
            self.at = frame.end();
            return Some(Item::Frame(frame));
        }
        let rest = self.rest(at);
        let next = (8..rest.len() as u64).step_by(8).map(|skip| at + skip).find(|at| self.header(*at).is_some());
        if let Some(to) = next {
            self.at = to;
            return Some(Item::Gap { at, to });
        }
        self.done = true;
        let ended = rest.iter().zip(END).all(|(byte, end)| *byte == end);
        Some(Item::Tail { at: at.min(self.bytes.len() as u64), ended })
    }
}
