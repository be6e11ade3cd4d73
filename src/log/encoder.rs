//! Puts requests in order, stamps them and builds frames.
//!
//! What is encoded is not yet in the log: the encoder's end offsets and numbers of producers run ahead of the durable ones. When
//! the writer could not write for want of room, both go back to what is there.

use crate::error::Result;
use crate::log::append::{Ack, PartitionAck, Request, TopicAck};
use crate::log::catalog::MetaRecord;
use crate::log::frame::Codec;
use crate::log::frame::directory::{ProducerMark, Run, TopicEntry};
use crate::log::frame::encode::{FrameInput, TopicInput, encode};
use crate::log::frame::header::{FRAME_HEADER_LEN, FRAMES_AT, FileHeader, FrameHeader};
use crate::log::journal::new_salt;
use crate::log::pending::Waiters;
use crate::log::producers::{self, ProducerTable, Repeat, Verdict};
use crate::log::queue::{OpenGroup, PATIENCE};
use crate::log::recovery::GoOn;
use crate::log::shared::{Queue, Shared};
use crate::log::writer::FailOnPanic;
use crate::types::{AppendTime, FrameSeq, Offset, PartitionId, Position, TopicId};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A frame within an [`Issue`].
pub(crate) struct IssuedFrame {
    /// Byte in the file.
    pub at: u64,
    pub header: FrameHeader,
    pub topics: Vec<TopicEntry>,
    pub meta: Vec<MetaRecord>,
}

/// Frames that follow each other in one file.
pub(crate) struct FileWrite {
    /// The file they begin, if they do.
    pub begins: Option<FileHeader>,
    pub number: u64,
    pub salt: u64,
    pub at: u64,
    pub bytes: Vec<u8>,
    pub frames: Vec<IssuedFrame>,
}

/// What to tell a request once its group is written.
pub(crate) enum Reply {
    Ready(Result<Ack>),
    /// It is in the log already; its place is looked up when that is durable.
    Repeat(Repeat),
}

/// An encoded group on its way to the writer.
pub(crate) struct Issue {
    pub writes: Vec<FileWrite>,
    pub replies: Vec<Reply>,
    /// Who waits, and for how many of the replies; nobody for a mark.
    pub waiters: Vec<(Waiters, usize)>,
    pub queued_bytes: usize,
    /// To be durable before it is answered, whatever the mode.
    pub sync: bool,
}

/// Where the journal goes on: the newest file, its number and end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub log_id: u64,
    pub number: u64,
    pub salt: u64,
    pub at: u64,
    pub go_on: GoOn,
    /// The last frame is a mark (or there is none), so no other mark is needed.
    pub marked: bool,
}

/// Offsets that the next records of each topic get, by partition.
#[derive(Default)]
struct Ends(BTreeMap<TopicId, Vec<u64>>);

impl Ends {
    fn new(known: &BTreeMap<(TopicId, PartitionId), Offset>) -> Ends {
        let mut ends = Ends::default();
        for ((topic, partition), end) in known {
            *ends.end(*topic, partition.0) = end.0;
        }
        ends
    }

    fn end(&mut self, topic: TopicId, partition: u32) -> &mut u64 {
        let ends = self.0.entry(topic).or_default();
        let place = partition as usize;
        if ends.len() <= place {
            ends.resize(place + 1, 0);
        }
        &mut ends[place]
    }
}

/// The encoder's thread.
pub(crate) struct Encoder {
    shared: Arc<Shared>,
    place: Place,
    ends: Ends,
    producers: ProducerTable,
    /// Memory to write into, used before.
    spare: Vec<u8>,
    /// Bytes of the group at hand that are not encoded yet, at most.
    left_bytes: usize,
}

/// A request that goes into the frame at hand.
struct Accepted {
    /// Which of the requests at hand it is.
    slot: usize,
    request: Request,
    /// For each entry of its topics.
    offsets: Vec<Vec<PartitionAck>>,
}

enum Work {
    Groups(Vec<OpenGroup>),
    Mark,
    Rewind(Place),
    Done,
}

impl Encoder {
    pub fn new(shared: Arc<Shared>, place: Place) -> Encoder {
        let (ends, producers) = {
            let state = shared.state();
            (Ends::new(&state.ends), state.producers.clone())
        };
        Encoder { shared, place, ends, producers, spare: Vec::new(), left_bytes: 0 }
    }

    /// Runs until the log is closed or has failed.
    pub fn run(mut self) {
        let _guard = FailOnPanic(self.shared.clone());
        loop {
            let issue = match self.next_work() {
                Work::Groups(groups) => self.encode_groups(groups),
                Work::Mark => self.encode_mark(),
                Work::Rewind(place) => {
                    self.rewind(place);
                    continue;
                }
                Work::Done => break,
            };
            self.shared.hand_over(issue);
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
            if let Some(place) = queue.rewind.take() {
                return Work::Rewind(place);
            }
            if queue.issue.is_none() {
                if queue.waiting.may_wait() {
                    let calm = |queue: &mut Queue| queue.waiting.may_wait() && !queue.closing && queue.failed.is_none();
                    let wait = self.shared.for_encoder.wait_timeout_while(queue, PATIENCE, calm);
                    queue = wait.unwrap_or_else(PoisonError::into_inner).0;
                    queue.waiting.has_waited();
                    continue;
                }
                if !queue.waiting.is_empty() {
                    self.spare = queue.spare.take().unwrap_or_default();
                    return Work::Groups(queue.waiting.take());
                }
                // What the writer has at hand may yet have to be undone.
                if queue.closing && !queue.writing {
                    return if self.place.marked { Work::Done } else { Work::Mark };
                }
            }
            let quiet = |queue: &Queue| queue.issue.is_none() && !queue.writing && queue.waiting.is_empty();
            if self.place.marked || idle_us == 0 || !quiet(&queue) {
                queue = self.shared.for_encoder.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let wait = self.shared.for_encoder.wait_timeout(queue, Duration::from_micros(idle_us));
            let (after, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            let calm = queue.rewind.is_none() && !queue.closing && queue.failed.is_none();
            if timeout.timed_out() && quiet(&queue) && calm {
                return Work::Mark;
            }
        }
    }

    /// Goes back to where the log ends: what was encoded behind that was not written.
    fn rewind(&mut self, place: Place) {
        let mut state = self.shared.state();
        state.in_flight.retain(|(seq, _)| *seq < place.go_on.seq);
        self.ends = Ends::new(&state.ends);
        self.producers = state.producers.clone();
        self.place = place;
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
        Issue { writes, replies: Vec::new(), waiters: Vec::new(), queued_bytes: 0, sync: true }
    }

    fn encode_groups(&mut self, groups: Vec<OpenGroup>) -> Issue {
        let mut issue =
            Issue { writes: Vec::new(), replies: Vec::new(), waiters: Vec::new(), queued_bytes: 0, sync: false };
        let mut requests = Vec::new();
        for open in groups {
            issue.waiters.push((open.waiters, open.requests.len()));
            issue.queued_bytes += open.bytes;
            issue.sync |= open.sync;
            requests.extend(open.requests);
        }
        let unanswered = || Reply::Ready(Err(crate::Error::internal("not answered")));
        issue.replies.resize_with(requests.len(), unanswered);
        self.left_bytes = issue.queued_bytes;
        let mut now = None;
        let mut frame: Vec<Accepted> = Vec::new();
        let mut bytes = 0;
        for (slot, request) in requests.into_iter().enumerate() {
            match self.judge(&request) {
                Verdict::Refused(error) => issue.replies[slot] = Reply::Ready(Err(error)),
                Verdict::Repeat(repeat) => {
                    issue.replies[slot] = Reply::Repeat(repeat);
                    issue.sync = true;
                }
                Verdict::New => {
                    let now = *now.get_or_insert_with(|| self.stamp());
                    if !frame.is_empty() && bytes + request.bytes > self.shared.options.frame_bytes {
                        self.close_frame(&mut frame, now, &mut issue);
                        bytes = 0;
                    }
                    bytes += request.bytes;
                    let offsets = self.accept(&request, now);
                    frame.push(Accepted { slot, request, offsets });
                }
            }
        }
        if let Some(now) = now.filter(|_| !frame.is_empty()) {
            self.close_frame(&mut frame, now, &mut issue);
            self.place.marked = false;
        }
        issue
    }

    /// May a request go in?
    fn judge(&self, request: &Request) -> Verdict {
        let room = if request.has_records() { self.shared.space.admits() } else { Ok(()) };
        match (room, &request.producer) {
            (Err(error), _) => Verdict::Refused(error),
            (Ok(()), Some((producer, sequences))) => self.producers.judge(*producer, sequences),
            (Ok(()), None) => Verdict::New,
        }
    }

    /// Gives a request its offsets in the frame at hand and takes note of its numbers, so that what is behind it is judged after it.
    fn accept(&mut self, request: &Request, now: AppendTime) -> Vec<Vec<PartitionAck>> {
        let mut numbers = request.producer.iter().flat_map(|(producer, all)| all.iter().map(|one| (*producer, one)));
        let mut offsets = Vec::with_capacity(request.topics.len());
        for ((topic, _), counts) in request.topics.iter().zip(&request.counts) {
            let mut acks = Vec::with_capacity(counts.len());
            for (number, count) in counts {
                let (partition, count) = (PartitionId(*number), u64::from(*count));
                let end = self.ends.end(*topic, *number);
                let base_offset = Offset(*end);
                *end += count;
                acks.push(PartitionAck { partition, base_offset, count });
                if let Some((producer, sequence)) = numbers.next() {
                    let GoOn { seq, position, .. } = self.place.go_on;
                    let place = producers::Place { frame: seq, frame_position: position, base_offset };
                    self.producers.push(producer, sequence, place, now);
                }
            }
            offsets.push(acks);
        }
        for record in &request.meta {
            self.producers.apply_meta(record);
        }
        offsets
    }

    fn close_frame(&mut self, frame: &mut Vec<Accepted>, now: AppendTime, issue: &mut Issue) {
        let accepted = std::mem::take(frame);
        let acks = self.encode_frame(&accepted, now, &mut issue.writes);
        for (accepted, ack) in accepted.iter().zip(acks) {
            issue.replies[accepted.slot] = Reply::Ready(Ok(ack));
        }
        if let Some(last) = issue.writes.last_mut().and_then(|write| write.frames.last_mut()) {
            last.meta = accepted.into_iter().flat_map(|accepted| accepted.request.meta).collect();
        }
        self.producers.end_frame(now);
        self.producers.take_forgotten(usize::MAX);
    }

    /// Makes room: the write that the next frame of at most `bytes` goes into, in a new file if it does not fit.
    fn write_for<'a>(&mut self, bytes: usize, now: AppendTime, writes: &'a mut Vec<FileWrite>) -> &'a mut FileWrite {
        let full = self.place.at > FRAMES_AT && self.place.at + bytes as u64 > self.shared.options.file_bytes;
        let begins = full.then(|| FileHeader {
            number: self.place.number + 1,
            salt: new_salt(&self.shared.env, &self.shared.options),
            log_id: self.place.log_id,
            first_seq: self.place.go_on.seq,
            first_position: self.place.go_on.position,
            clock: now,
            previous_len: self.place.at,
        });
        if let Some(header) = &begins {
            (self.place.number, self.place.salt, self.place.at) = (header.number, header.salt, FRAMES_AT);
        }
        if begins.is_some() || writes.is_empty() {
            let Place { number, salt, at, .. } = self.place;
            let mut memory = std::mem::take(&mut self.spare);
            memory.reserve(bytes.max(self.left_bytes));
            writes.push(FileWrite { begins, number, salt, at, bytes: memory, frames: Vec::new() });
        }
        writes.last_mut().expect("one was just made sure of")
    }

    /// Builds one frame of some requests and says where their records are.
    fn encode_frame(&mut self, accepted: &[Accepted], now: AppendTime, writes: &mut Vec<FileWrite>) -> Vec<Ack> {
        let requests = || accepted.iter().map(|accepted| &accepted.request);
        let bytes = requests().map(|request| request.bytes).sum::<usize>() + FRAME_HEADER_LEN;
        let GoOn { seq, position, .. } = self.place.go_on;
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        let codec = self.shared.options.codec;
        let (topics, mut acks) = merge(accepted, position, codec);
        let write = self.write_for(bytes, now, writes);
        let input = FrameInput {
            seq,
            first_position: position,
            append_time: now,
            clock_floor: requests().filter_map(|request| request.clock_floor).max(),
            topics,
            meta: requests().map(|request| &request.meta_bytes[..]).collect(),
        };
        let at = write.at + write.bytes.len() as u64;
        let (header, topics) = encode(&input, write.salt, codec, &mut write.bytes);
        write.frames.push(IssuedFrame { at, header, topics, meta: Vec::new() });
        self.place.at = at + u64::from(header.frame_len);
        self.place.go_on.seq = FrameSeq(seq.0 + 1);
        self.place.go_on.position = header.end();
        for ack in &mut acks {
            (ack.append_time, ack.seq, ack.end) = (now, seq, header.end());
        }
        acks
    }
}

/// Puts the rows of all requests of a frame together by topic, in order of first appearance. The acknowledgements lack what
/// belongs to the frame.
fn merge(accepted: &[Accepted], first: Position, default: Codec) -> (Vec<TopicInput<'_>>, Vec<Ack>) {
    let mut topics: Vec<TopicInput<'_>> = Vec::new();
    let mut places: BTreeMap<TopicId, usize> = BTreeMap::new();
    // For each topic of each request: its place in the frame, and how many rows of the topic are before it.
    let mut starts: Vec<Vec<(usize, u64)>> = Vec::with_capacity(accepted.len());
    let mut rows: Vec<u64> = Vec::new();
    let mut runs: Vec<Runs> = Vec::new();
    for Accepted { request, offsets, .. } in accepted {
        let mut start = Vec::with_capacity(request.topics.len());
        let mut numbers = request.producer.iter().flat_map(|(producer, all)| {
            all.iter().map(|one| ProducerMark { id: producer.id, epoch: producer.epoch, sequence: one.base })
        });
        for (((topic, part), counts), offsets) in request.topics.iter().zip(&request.counts).zip(offsets) {
            let place = *places.entry(*topic).or_insert(topics.len());
            if place == topics.len() {
                topics.push(TopicInput { topic: *topic, parts: Vec::new(), runs: Vec::new(), codec: None });
                rows.push(0);
                runs.push(Runs::default());
            }
            start.push((place, rows[place]));
            rows[place] += part.partitions.len() as u64;
            let input = &mut topics[place];
            input.parts.push(part);
            input.codec = input.codec.max(Some(request.codec.unwrap_or(default)));
            for ((_, count), ack) in counts.iter().zip(offsets) {
                let producer = numbers.next().unwrap_or(ProducerMark::NONE);
                let (partition, base) = (ack.partition, ack.base_offset);
                runs[place].add(Run { partition, base, count: *count, producer });
            }
        }
        starts.push(start);
    }
    let mut next = first;
    let mut firsts = Vec::with_capacity(rows.len());
    for ((topic, rows), runs) in topics.iter_mut().zip(&rows).zip(runs) {
        topic.runs = runs.finish();
        firsts.push(next);
        next = next.plus(*rows);
    }
    let ack = |(Accepted { request, offsets, .. }, start): (&Accepted, Vec<(usize, u64)>)| {
        let mut topics = Vec::with_capacity(start.len());
        for (((topic, _), partitions), (place, before)) in request.topics.iter().zip(offsets).zip(start) {
            let (first_position, partitions) = (firsts[place].plus(before), partitions.clone());
            topics.push(TopicAck { topic: *topic, first_position, partitions });
        }
        Ack { append_time: AppendTime::MIN, seq: FrameSeq(0), topics, end: next, repeat: false }
    };
    let acks = accepted.iter().zip(starts).map(ack).collect();
    topics.retain(|topic| topic.parts.iter().any(|part| !part.partitions.is_empty()));
    (topics, acks)
}

/// The runs of a topic in a frame.
#[derive(Default)]
struct Runs {
    runs: Vec<Run>,
    /// For each partition, one more than the place of its newest run, if that is nobody's and so can grow.
    open: Vec<usize>,
}

impl Runs {
    /// Adds records, which lie behind those added before in their partition.
    fn add(&mut self, run: Run) {
        let partition = run.partition.0 as usize;
        if self.open.len() <= partition {
            self.open.resize(partition + 1, 0);
        }
        let open = &mut self.open[partition];
        if run.producer != ProducerMark::NONE {
            *open = 0;
        } else if *open > 0 {
            self.runs[*open - 1].count += run.count;
            return;
        } else {
            *open = self.runs.len() + 1;
        }
        self.runs.push(run);
    }

    /// By partition, then offset.
    fn finish(mut self) -> Vec<Run> {
        self.runs.sort_unstable_by_key(|run| (run.partition, run.base));
        self.runs
    }
}
