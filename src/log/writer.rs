//! From requests to durable frames, in two threads: the encoder puts waiting requests in order, stamps them and builds
//! frames; the writer writes them, syncs once for the whole group, and acknowledges. While the writer syncs one group the
//! encoder builds the next and callers queue the one after.
//!
//! After a failed write or sync nothing more is acknowledged: what the disk then holds is unknown, and asking it again
//! would hide that. Opening the log again reads what is there.

use crate::env::DiskFile;
use crate::error::{Error, ErrorKind, Result};
use crate::log::append::{Ack, PartitionAck, Request, TopicAck, Waiters};
use crate::log::catalog::MetaRecord;
use crate::log::frame::body::Rows;
use crate::log::frame::directory::{ProducerMark, Run, TopicEntry};
use crate::log::frame::encode::{FrameInput, TopicInput, encode};
use crate::log::frame::header::{FRAMES_AT, FileHeader, FrameHeader, set_synced_end};
use crate::log::journal::{JournalFile, create_file};
use crate::log::recovery::GoOn;
use crate::log::shared::{OpenGroup, Queue, Shared};
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A frame within an [`Issue`].
struct IssuedFrame {
    /// Byte in the file.
    at: u64,
    header: FrameHeader,
    topics: Vec<TopicEntry>,
    meta: Vec<MetaRecord>,
}

/// Frames that follow each other in one file.
struct FileWrite {
    /// The file they begin, if they do.
    begins: Option<FileHeader>,
    salt: u64,
    at: u64,
    bytes: Vec<u8>,
    frames: Vec<IssuedFrame>,
}

/// An encoded group on its way to the writer.
pub(crate) struct Issue {
    writes: Vec<FileWrite>,
    acks: Vec<Ack>,
    /// Who waits; nobody for a mark.
    pub waiters: Option<Waiters>,
    queued_bytes: usize,
}

/// Where the journal goes on: the newest file, its number and end.
#[derive(Clone)]
pub(crate) struct Place {
    pub number: u64,
    pub salt: u64,
    pub at: u64,
    pub go_on: GoOn,
    /// The last frame is a mark (or there is none), so no other mark is needed.
    pub marked: bool,
}

/// Makes waiters fail instead of hang if a thread of the log panics.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the log panicked: this is a bug");
        }
    }
}

/// Puts requests in order and builds frames.
pub(crate) struct Encoder {
    shared: Arc<Shared>,
    place: Place,
    ends: BTreeMap<(TopicId, PartitionId), Offset>,
}

/// Where rows of a request are: place of the topic in the frame, rows before them in its body, and their offsets.
type Start = (usize, u64, Vec<PartitionAck>);

enum Work {
    Group(OpenGroup),
    Mark,
    Done,
}

impl Encoder {
    pub fn new(shared: Arc<Shared>, place: Place) -> Encoder {
        let ends = shared.state().ends.clone();
        Encoder { shared, place, ends }
    }

    /// Runs until the log is closed or has failed.
    pub fn run(mut self) {
        let _guard = FailOnPanic(self.shared.clone());
        loop {
            let issue = match self.next_work() {
                Work::Group(open) => self.encode_group(open),
                Work::Mark => self.encode_mark(),
                Work::Done => break,
            };
            self.shared.queue().issue = Some(issue);
            self.shared.for_writer.notify_one();
        }
        self.shared.queue().encoder_done = true;
        self.shared.for_writer.notify_one();
    }

    /// Waits for something to do. A group is taken only when the writer can have it next, so that it is as large as it can be.
    fn next_work(&mut self) -> Work {
        let idle_us = self.shared.options.idle_mark_us;
        let mut queue = self.shared.queue();
        loop {
            if queue.failed.is_some() {
                return Work::Done;
            }
            if queue.issue.is_none() {
                if let Some(open) = queue.groups.pop_front() {
                    return Work::Group(open);
                }
                if queue.closing {
                    return if self.place.marked { Work::Done } else { Work::Mark };
                }
            }
            let quiet = |queue: &Queue| queue.issue.is_none() && !queue.writing && queue.groups.is_empty();
            if self.place.marked || idle_us == 0 || !quiet(&queue) {
                queue = self.shared.for_encoder.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let wait = self.shared.for_encoder.wait_timeout(queue, Duration::from_micros(idle_us));
            let (after, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            if timeout.timed_out() && quiet(&queue) && !queue.closing && queue.failed.is_none() {
                return Work::Mark;
            }
        }
    }

    /// Stamps the next frames: from here on the clock answers no later time until they are durable.
    fn stamp(&self) -> AppendTime {
        let mut state = self.shared.state();
        let now = self.shared.read_clock(&mut state);
        state.in_flight.push_back((self.place.go_on.seq, now));
        now
    }

    fn encode_mark(&mut self) -> Issue {
        let now = self.stamp();
        let mut writes = Vec::new();
        self.encode_frame(&[], now, &mut writes);
        self.place.marked = true;
        Issue { writes, acks: Vec::new(), waiters: None, queued_bytes: 0 }
    }

    fn encode_group(&mut self, open: OpenGroup) -> Issue {
        let now = self.stamp();
        let mut issue =
            Issue { writes: Vec::new(), acks: Vec::new(), waiters: Some(open.waiters), queued_bytes: open.bytes };
        let mut requests = open.requests;
        while !requests.is_empty() {
            let mut bytes = 0;
            let fits = |request: &&Request| {
                bytes += request.bytes;
                bytes <= self.shared.options.frame_bytes
            };
            let count = requests.iter().take_while(fits).count().max(1);
            let rest = requests.split_off(count);
            issue.acks.extend(self.encode_frame(&requests, now, &mut issue.writes));
            let frame = issue.writes.last_mut().and_then(|write| write.frames.last_mut());
            if let Some(frame) = frame {
                frame.meta = requests.into_iter().flat_map(|request| request.meta).collect();
            }
            requests = rest;
        }
        self.place.marked = false;
        issue
    }

    /// Makes room: the write that the next frame of at most `bytes` goes into, in a new file if it does not fit.
    fn write_for<'a>(&mut self, bytes: usize, now: AppendTime, writes: &'a mut Vec<FileWrite>) -> &'a mut FileWrite {
        let full = self.place.at > FRAMES_AT && self.place.at + bytes as u64 > self.shared.options.file_bytes;
        let begins = full.then(|| FileHeader {
            number: self.place.number + 1,
            salt: self.shared.env.random.next_u64(),
            first_seq: self.place.go_on.seq,
            first_position: self.place.go_on.position,
            clock: now,
            previous_len: self.place.at,
        });
        if let Some(header) = &begins {
            (self.place.number, self.place.salt, self.place.at) = (header.number, header.salt, FRAMES_AT);
        }
        if begins.is_some() || writes.is_empty() {
            let (salt, at) = (self.place.salt, self.place.at);
            writes.push(FileWrite { begins, salt, at, bytes: Vec::with_capacity(bytes), frames: Vec::new() });
        }
        writes.last_mut().expect("one was just made sure of")
    }

    /// Builds one frame of some requests and says where their records are.
    fn encode_frame(&mut self, requests: &[Request], now: AppendTime, writes: &mut Vec<FileWrite>) -> Vec<Ack> {
        let bytes =
            requests.iter().map(|request| request.bytes).sum::<usize>() + crate::log::frame::header::FRAME_HEADER_LEN;
        let GoOn { seq, position, .. } = self.place.go_on;
        let (topics, acks) = self.merge(requests, seq, now);
        let codec = self.shared.options.codec;
        let write = self.write_for(bytes, now, writes);
        let input = FrameInput {
            seq,
            first_position: position,
            append_time: now,
            clock_floor: requests.iter().filter_map(|request| request.clock_floor).max(),
            topics,
            meta: requests.iter().map(|request| &request.meta_bytes[..]).collect(),
        };
        let at = write.at + write.bytes.len() as u64;
        let (header, topics) = encode(&input, write.salt, codec, &mut write.bytes);
        let end = at + u64::from(header.frame_len);
        write.frames.push(IssuedFrame { at, header, topics, meta: Vec::new() });
        self.place.at = end;
        self.place.go_on.seq = FrameSeq(seq.0 + 1);
        self.place.go_on.position = header.end();
        acks
    }

    /// Puts the rows of all requests together by topic, in order of first appearance, and gives out offsets.
    fn merge<'a>(
        &mut self,
        requests: &'a [Request],
        seq: FrameSeq,
        now: AppendTime,
    ) -> (Vec<TopicInput<'a>>, Vec<Ack>) {
        let mut topics: Vec<TopicInput<'a>> = Vec::new();
        let mut places: BTreeMap<TopicId, usize> = BTreeMap::new();
        let mut runs: Vec<BTreeMap<u32, Run>> = Vec::new();
        let mut starts: Vec<Vec<Start>> = Vec::new();
        let mut rows: Vec<u64> = Vec::new();
        for request in requests {
            let mut start = Vec::with_capacity(request.topics.len());
            for ((topic, part), counts) in request.topics.iter().zip(&request.counts) {
                let place = *places.entry(*topic).or_insert(topics.len());
                if place == topics.len() {
                    topics.push(TopicInput { topic: *topic, parts: Vec::new(), runs: Vec::new() });
                    runs.push(BTreeMap::new());
                    rows.push(0);
                }
                let partitions = self.give_offsets(*topic, counts, &mut runs[place]);
                start.push((place, rows[place], partitions));
                rows[place] += part.partitions.len() as u64;
                topics[place].parts.push(part);
            }
            starts.push(start);
        }
        for (topic, runs) in topics.iter_mut().zip(runs) {
            topic.runs = runs.into_values().collect();
        }
        let acks = self.acks(requests, &starts, &rows, seq, now);
        topics.retain(|topic: &TopicInput<'_>| topic.parts.iter().any(|part: &&Rows| !part.partitions.is_empty()));
        (topics, acks)
    }

    fn give_offsets(
        &mut self,
        topic: TopicId,
        counts: &BTreeMap<u32, u32>,
        runs: &mut BTreeMap<u32, Run>,
    ) -> Vec<PartitionAck> {
        let mut acks = Vec::with_capacity(counts.len());
        for (number, count) in counts {
            let partition = PartitionId(*number);
            let end = self.ends.entry((topic, partition)).or_default();
            let base = *end;
            *end = Offset(base.0 + u64::from(*count));
            runs.entry(*number).or_insert(Run { partition, base, count: 0, producer: ProducerMark::NONE }).count +=
                count;
            acks.push(PartitionAck { partition, base_offset: base, count: u64::from(*count) });
        }
        acks
    }

    fn acks(
        &self,
        requests: &[Request],
        starts: &[Vec<Start>],
        rows: &[u64],
        seq: FrameSeq,
        append_time: AppendTime,
    ) -> Vec<Ack> {
        let mut next = self.place.go_on.position;
        let mut firsts = Vec::with_capacity(rows.len());
        for rows in rows {
            firsts.push(next);
            next = next.plus(*rows);
        }
        let ack = |(request, start): (&Request, &Vec<Start>)| {
            let topic = |((topic, _), (place, before, partitions)): (&(TopicId, Rows), &Start)| TopicAck {
                topic: *topic,
                first_position: firsts[*place].plus(*before),
                partitions: partitions.clone(),
            };
            Ack { append_time, seq, topics: request.topics.iter().zip(start).map(topic).collect(), end: next }
        };
        requests.iter().zip(starts).map(ack).collect()
    }
}

/// Writes, syncs and acknowledges.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    journal_file: Arc<JournalFile>,
    synced_end: FrameSeq,
    /// Files begun by the group at hand, for the index.
    begun: VecDeque<Arc<JournalFile>>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, journal_file: Arc<JournalFile>, synced_end: FrameSeq) -> Result<Writer> {
        let file = journal_file.active().ok_or_else(|| Error::internal("the newest journal file is not open"))?;
        Ok(Writer { shared, file, journal_file, synced_end, begun: VecDeque::new() })
    }

    /// Runs until the encoder is done or a write has failed.
    pub fn run(mut self) {
        let _guard = FailOnPanic(self.shared.clone());
        while let Some(mut issue) = self.next_issue() {
            let result = self.write(&mut issue.writes);
            match result {
                Ok(()) => self.acknowledge(issue),
                Err(cause) => {
                    let hint = "the records may or may not be in the log: open it again and look before trying again";
                    self.shared.fail(cause.message());
                    if let Some(waiters) = issue.waiters {
                        waiters.failed(ErrorKind::Unknown, &format!("{}; {hint}", cause.message()));
                    }
                    return;
                }
            }
        }
        // A view that cannot be saved costs the next opening time, nothing else.
        let _ = self.shared.state().view.save();
    }

    fn next_issue(&self) -> Option<Issue> {
        let mut queue = self.shared.queue();
        loop {
            if let Some(issue) = queue.issue.take() {
                queue.writing = true;
                drop(queue);
                self.shared.for_encoder.notify_one();
                return Some(issue);
            }
            if queue.encoder_done || queue.failed.is_some() {
                return None;
            }
            queue = self.shared.for_writer.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&mut self, writes: &mut [FileWrite]) -> Result<()> {
        for write in writes.iter_mut() {
            if let Some(header) = &write.begins {
                self.begin_file(header)?;
            }
            let mut from = 0;
            for frame in &write.frames {
                let bytes = write.bytes.get_mut(from..).unwrap_or_default();
                set_synced_end(bytes, write.salt, frame.at, self.synced_end);
                from += frame.header.frame_len as usize;
            }
            let path = self.journal_file.path();
            self.file.write_all_at(write.at, &write.bytes).map_err(|cause| explain("writing", path, cause))?;
        }
        self.sync()?;
        let last = writes.iter().flat_map(|write| &write.frames).next_back();
        self.synced_end = last.map_or(self.synced_end, |frame| frame.header.seq);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.shared.syncs.add(1);
        self.file.sync_data().map_err(|cause| explain("syncing", self.journal_file.path(), cause))
    }

    /// The old file is durable as a whole before the new one has a name: a file behind it proves it complete.
    fn begin_file(&mut self, header: &FileHeader) -> Result<()> {
        self.sync()?;
        self.synced_end = FrameSeq(header.first_seq.0 - 1);
        let next = create_file(&self.shared.env, &self.shared.journal, header)?;
        self.file = next.active().ok_or_else(|| Error::internal("a new journal file is not open"))?;
        self.begun.push_back(next.clone());
        self.journal_file = next;
        Ok(())
    }

    fn acknowledge(&mut self, issue: Issue) {
        let mut metas = Vec::new();
        {
            let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
            for write in &issue.writes {
                if write.begins.is_some() {
                    self.begun.pop_front().into_iter().for_each(|file| index.add_file(file));
                }
                for frame in &write.frames {
                    index.push(frame.at, &frame.header, &frame.topics);
                }
            }
        }
        let mut state = self.shared.state();
        for frame in issue.writes.into_iter().flat_map(|write| write.frames) {
            for run in frame.topics.iter().flat_map(|entry| entry.runs.iter().map(|run| (entry.topic, run))) {
                let (topic, Run { partition, base, count, .. }) = run;
                state.ends.insert((topic, *partition), Offset(base.0 + u64::from(*count)));
            }
            state.view.apply(frame.header.seq, &frame.meta);
            state.durable_end = frame.header.end();
            metas.extend(frame.meta);
        }
        state.in_flight.pop_front();
        drop(state);
        if !metas.is_empty() {
            let mut topics = self.shared.topics.write().unwrap_or_else(PoisonError::into_inner);
            for record in metas.iter().filter(|record| record.space == crate::log::MetaSpace::Topic) {
                topics.apply(record).expect("the log checked its own record before writing it");
            }
        }
        self.shared.advanced.notify_all();
        let mut queue = self.shared.queue();
        queue.writing = false;
        queue.bytes -= issue.queued_bytes;
        drop(queue);
        self.shared.for_encoder.notify_one();
        self.shared.room.notify_all();
        if let Some(waiters) = issue.waiters {
            waiters.durable(issue.acks);
        }
    }
}

/// An I/O error on the journal, with what to do about a full disk.
fn explain(what: &str, path: &std::path::Path, cause: std::io::Error) -> Error {
    let full = cause.kind() == std::io::ErrorKind::StorageFull;
    let error = Error::io(what, path, cause);
    if full { error.context("the disk is full: free some space and open the log again") } else { error }
}
