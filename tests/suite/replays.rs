//! Live against replay, over the flights and over made-up visits: a live run with pauses, restarts, power cuts, steps of the clock and
//! any number of threads; its replays from the start, from checkpoints, and in two halves joined by a savepoint. All of them
//! write the same bytes. `KAPPA_LONG=1` takes twenty times as many seeds.

use crate::checkpoints::often;
use crate::crashes::shape;
use crate::dice::Dice;
use crate::laws::{self, first_difference, output};
use crate::savepoints::joined;
use crate::util::{root, tell};
use flate2::read::MultiGzDecoder;
use kappa::codec::xxh64;
use kappa::engine::{Counters, Engine};
use kappa::env::sim::{Sim, SimDisk};
use kappa::env::{Clock as _, Env};
use kappa::generate::Maker as _;
use kappa::generate::web::{WebEvents, WebOptions};
use kappa::job::{
    self, CheckpointOptions, DiffRequest, Job, Observer, Outcome, Point, Request, RunReport, Silent, VerifyRequest,
    Why, savepoint,
};
use kappa::log::records::{Partitioning, Record, RecordColumns};
use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
use kappa::sql;
use kappa::types::{PartitionId, Position};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

const FLIGHTS: &str = "
CREATE TABLE events (arrival_time BIGINT, event_time BIGINT, flight STRING, tailnum STRING, origin STRING, dest STRING,
    dep_delay_min INT, departure AS TO_TIMESTAMP_LTZ(event_time, 0), heard AS PROCTIME(),
    WATERMARK FOR departure AS departure - INTERVAL '3' HOUR)
  WITH ('connector' = 'kappa', 'format' = 'csv', 'scan.watermark.idle-timeout' = '10 min', 'quiet-close' = 'true');
CREATE TABLE hourly (window_start TIMESTAMP(3), origin STRING, n BIGINT, mean_delay DOUBLE) WITH ('connector' = 'kappa');
CREATE TABLE routes (window_start TIMESTAMP(3), origin STRING, dest STRING, n BIGINT) WITH ('connector' = 'kappa', 'partitions' = '3');
CREATE TABLE busy (window_start TIMESTAMP(3), window_end TIMESTAMP(3), dest STRING, n BIGINT) WITH ('connector' = 'kappa');
CREATE TABLE batches (origin STRING, n BIGINT, delay BIGINT) WITH ('connector' = 'kappa');
INSERT INTO hourly SELECT window_start, origin, COUNT(*), AVG(CAST(dep_delay_min AS DOUBLE))
  FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(departure), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, origin;
INSERT INTO routes SELECT window_start, origin, dest, COUNT(DISTINCT tailnum)
  FROM TABLE(HOP(TABLE events, DESCRIPTOR(departure), INTERVAL '3' HOUR, INTERVAL '12' HOUR))
  GROUP BY window_start, window_end, origin, dest;
INSERT INTO busy SELECT window_start, window_end, dest, COUNT(*)
  FROM TABLE(SESSION(TABLE events PARTITION BY dest, DESCRIPTOR(departure), INTERVAL '30' MINUTE)) GROUP BY window_start, window_end, dest;
INSERT INTO batches SELECT origin, COUNT(*), SUM(dep_delay_min)
  FROM TABLE(COUNT_WINDOW(TABLE events PARTITION BY origin, DESCRIPTOR(heard), 500, INTERVAL '20' SECOND))
  GROUP BY window_start, window_end, origin;
";

const VISITS: &str = "
CREATE TABLE events (ts TIMESTAMP(3), `user` STRING, session STRING, ip STRING, host STRING, referrer STRING, agent STRING,
    page STRING, status INT, bytes BIGINT, duration_ms INT, heard AS PROCTIME(), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('connector' = 'kappa', 'format' = 'json', 'scan.watermark.idle-timeout' = '10 min', 'quiet-close' = 'true');
CREATE TABLE pages (window_start TIMESTAMP(3), page STRING, n BIGINT, mean_ms DOUBLE) WITH ('connector' = 'kappa');
CREATE TABLE hosts (window_start TIMESTAMP(3), host STRING, n BIGINT, users BIGINT) WITH ('connector' = 'kappa', 'partitions' = '3');
CREATE TABLE stays (window_start TIMESTAMP(3), window_end TIMESTAMP(3), `user` STRING, n BIGINT) WITH ('connector' = 'kappa');
CREATE TABLE heard (window_start TIMESTAMP(3), host STRING, n BIGINT) WITH ('connector' = 'kappa');
INSERT INTO pages SELECT window_start, page, COUNT(*), AVG(CAST(duration_ms AS DOUBLE) / 7)
  FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, page;
INSERT INTO hosts SELECT window_start, host, COUNT(*), COUNT(DISTINCT `user`)
  FROM TABLE(HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, host;
INSERT INTO stays SELECT window_start, window_end, `user`, COUNT(*)
  FROM TABLE(SESSION(TABLE events PARTITION BY `user`, DESCRIPTOR(ts), INTERVAL '30' SECOND)) GROUP BY window_start, window_end, `user`;
INSERT INTO heard SELECT window_start, host, COUNT(*)
  FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(heard), INTERVAL '5' SECOND)) GROUP BY window_start, window_end, host;
";

/// A job, and what it reads: values with their partitions.
struct Course {
    name: &'static str,
    sql: &'static str,
    events: Vec<(u32, Vec<u8>)>,
}

fn flights() -> Course {
    let packed = std::fs::File::open(root().join("fixtures/flights.csv.gz")).expect("the flights");
    let mut text = String::new();
    MultiGzDecoder::new(packed).read_to_string(&mut text).expect("text");
    let events = text.lines().skip(1).map(|line| (u32::from(line.len() % 3 == 0), line.as_bytes().to_vec()));
    Course { name: "flights", sql: FLIGHTS, events: events.collect() }
}

fn visits(seed: u64, count: usize) -> Course {
    let options = WebOptions {
        seed,
        users: 300,
        partitions: 3,
        silent: 1,
        disorder_ms: 8_000,
        late_share: 0.01,
        late_by_ms: 120_000,
        future_share: 0.000_1,
        ..WebOptions::default()
    };
    let mut maker = WebEvents::new(options);
    let mut event = || {
        let mut value = Vec::new();
        let made = maker.make(&mut value);
        (made.partition, value)
    };
    Course { name: "visits", sql: VISITS, events: (0..count).map(|_| event()).collect() }
}

impl Course {
    fn job(&self, version: Option<&str>) -> Job {
        let plan = sql::plan("course.sql", self.sql).expect("the plan");
        Job { plan: Arc::new(plan), name: self.name.into(), version: version.map(str::to_owned) }
    }
}

/// A log that seals when it is told to, in files so small that there are many.
fn open(sim: &Sim) -> Log {
    let options = LogOptions {
        file_bytes: 512 << 10,
        snapshot_bytes: 512 << 10,
        background: false,
        disk_floor_bytes: Some(0),
        ballast_bytes: 0,
        ..LogOptions::default()
    };
    Log::open(&sim.env(), Path::new("/data"), options).expect("the log opens")
}

/// Between two checkpoints at most.
const LIVE_BYTES: u64 = 512 << 10;
const REPLAY_BYTES: u64 = 64 << 10;

/// Where a process ends.
enum End {
    /// It is asked to stop when it has rested so often.
    Rests(u32),
    /// It is gone after so many strides or rests: nobody hears of it, and the disk is what a power cut leaves.
    Killed(u64),
}

/// A process that runs the job for a while.
struct Process<'a> {
    disk: &'a SimDisk,
    dice: Dice,
    end: End,
    left: Option<SimDisk>,
    went_on: bool,
}

impl Process<'_> {
    fn may_die(&mut self) {
        if let End::Killed(after) = &mut self.end {
            *after = after.saturating_sub(1);
            if *after == 0 && self.left.is_none() {
                self.left = Some(self.disk.crash(shape(self.disk, &mut self.dice)));
            }
        }
    }
}

impl Observer for Process<'_> {
    fn on_progress(&mut self, _: Position, _: Option<Position>, _: &Counters) {
        self.may_die();
    }
    fn on_idle(&mut self, _: &Engine) {
        self.may_die();
        if let End::Rests(rests) = &mut self.end {
            *rests = rests.saturating_sub(1);
        }
    }
    fn on_note(&mut self, note: &str) {
        self.went_on |= note.contains("going on from checkpoint");
    }
    fn should_stop(&self) -> bool {
        self.left.is_some() || matches!(self.end, End::Rests(0))
    }
}

/// The surroundings of one course, and how often things happened in it.
struct World {
    sim: Sim,
    log: Log,
    dice: Dice,
    restarts: u32,
    kills: u32,
    clock_steps: u32,
    went_on: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let (_, sim) = Env::sim(seed);
        let log = open(&sim);
        World { sim, log, dice: Dice::new(seed), restarts: 0, kills: 0, clock_steps: 0, went_on: 0 }
    }

    /// Appends events in frames of one size.
    fn append(&self, events: &[(u32, Vec<u8>)], cut: usize) {
        let topic = self
            .log
            .topic("events")
            .or_else(|_| self.log.create_topic("events", TopicConfig { partitions: 3, ..TopicConfig::default() }));
        let id = topic.expect("a topic").id();
        for frame in events.chunks(cut) {
            let mut rows = RecordColumns::default();
            for (partition, value) in frame {
                let record = Record { timestamp_ms: None, key: None, value: Some(value), headers: &[] };
                rows.push(Partitioning::Fixed(PartitionId(*partition)), &record);
            }
            self.log.append_wait(AppendBatch::records(id, rows)).expect("appended");
        }
    }

    /// Time passes; sometimes a lot of it, and sometimes somebody sets the clock, forward or back.
    fn pass_time(&mut self) {
        let longest_us = [1_000, 200_000, 5_000_000, 1_800_000_000][self.dice.below(4) as usize];
        self.sim.clock.advance_us(self.dice.below(longest_us));
        if self.dice.below(4) == 0 {
            let day_us = 86_400_000_000;
            let step_us = self.dice.below(day_us) as i64 - day_us as i64 / 2;
            self.sim.clock.set_wall_us(self.sim.clock.wall_us() + step_us);
            self.clock_steps += 1;
        }
    }

    /// Any number of threads, and checkpoints after at most so many bytes.
    fn request(&mut self, bytes: u64) -> Request {
        let threads = [1, 2, 8][self.dice.below(3) as usize];
        let bytes = bytes >> self.dice.below(8);
        Request { threads, checkpoints: often(bytes), ..Request::default() }
    }

    fn restart(&mut self) {
        self.log.clone().close().expect("closed");
        self.log = open(&self.sim);
        self.restarts += 1;
    }

    /// One process that runs the job until `end`; true if it was killed.
    fn run(&mut self, job: &Job, request: &Request, end: End) -> bool {
        let dice = Dice::new(self.dice.below(u64::MAX));
        let mut process = Process { disk: &self.sim.disk, dice, end, left: None, went_on: false };
        job::run(&self.log, job, request, &mut process).expect("a stretch of the run");
        self.went_on += u32::from(process.went_on);
        let Some(disk) = process.left else { return false };
        self.sim = self.sim.with_disk(disk);
        self.log = open(&self.sim);
        self.kills += 1;
        true
    }

    /// The live run, while the events come.
    fn live(&mut self, course: &Course, job: &Job) {
        let mut events = &course.events[..];
        // The topic's columns are known before history is made of it.
        self.append(&events[..1], 1);
        self.run(job, &Request::default(), End::Rests(1));
        events = &events[1..];
        while !events.is_empty() {
            let count = 1 + self.dice.below(course.events.len() as u64 / 12) as usize;
            let (now, later) = events.split_at(count.min(events.len()));
            let cut = 1 + self.dice.below(4_000) as usize;
            self.append(now, cut.max(count / 64));
            events = later;
            self.pass_time();
            let request = self.request(LIVE_BYTES);
            let end = if self.dice.below(3) == 0 {
                End::Killed(1 + self.dice.below(40))
            } else {
                End::Rests(1 + self.dice.below(3) as u32)
            };
            self.run(job, &request, end);
            match self.dice.below(5) {
                0 => self.restart(),
                1 => self.log.keep().expect("sealed"),
                _ => {}
            }
        }
        let request = self.request(LIVE_BYTES);
        self.run(job, &request, End::Rests(2));
    }

    /// A replay to `to` as one process, or as several of which all but the last are killed.
    fn replay(&mut self, job: &Job, to: &Point, kills: u32) {
        for kill in 0..=kills {
            let request = Request { to: Some(*to), bounded: true, ..self.request(REPLAY_BYTES) };
            let after = if kill < kills { 2 + self.dice.below(10) } else { u64::MAX };
            if !self.run(job, &request, End::Killed(after)) {
                return;
            }
        }
    }
}

type Output = Vec<(String, Vec<String>)>;

fn digest(output: &Output) -> u64 {
    let rows = output.iter().flat_map(|(topic, rows)| std::iter::once(topic).chain(rows));
    rows.fold(0, |digest, row| xxh64(row.as_bytes(), digest))
}

/// By topic; without those that have no rows: a half may not have begun all of them.
fn sorted(mut output: Output) -> Output {
    output.retain(|(_, rows)| !rows.is_empty());
    output.sort();
    output
}

fn live_is_every_replay(course: &Course, seed: u64) {
    let what = format!("{} seed {seed}", course.name);
    println!("{what}");
    let mut world = World::new(seed);
    let live_job = course.job(None);
    world.live(course, &live_job);
    let (restarts, kills, clock_steps) = (world.restarts, world.kills, world.clock_steps);
    let live = sorted(output(&world.log, &live_job));
    let rows: usize = live.iter().map(|(_, rows)| rows.len()).sum();
    assert!(rows > 1_000 && live.len() > 4, "{what}: {rows} rows show little");
    let progress = job::progress(&world.log, &live_job.key()).expect("readable").expect("it has written");
    let end = Point::Reading(progress.position(), progress.clock());
    let compare = |got: Output, how: &str| {
        let got = sorted(got);
        assert_eq!(first_difference(&got, &live), None, "{what}, {how}");
        assert_eq!(digest(&got), digest(&live), "{what}, {how}");
    };
    let whole = course.job(Some("whole"));
    world.replay(&whole, &end, 0);
    compare(output(&world.log, &whole), "from the start");
    let (resumed, before) = (course.job(Some("resumed")), world.went_on);
    world.replay(&resumed, &end, 6);
    assert!(world.went_on > before, "{what}: the replay never went on from a checkpoint");
    compare(output(&world.log, &resumed), "from checkpoints");
    for job in [&whole, &resumed] {
        let replayed = job::progress(&world.log, &job.key()).expect("readable").expect("it has written");
        assert_eq!(replayed.streams, progress.streams, "{what}: the digests kept beside the rows");
    }
    let (first, second) = (course.job(Some("first")), course.job(Some("second")));
    let middle = Position(progress.position / 4 + world.dice.below(progress.position / 2));
    world.replay(&first, &Point::Position(middle), 1);
    let (dir, _) = savepoint::create(&world.log, &first, course.sql, None).expect("a savepoint");
    savepoint::restore(&world.log, &second, &dir, None).expect("it fits");
    world.replay(&second, &end, 1);
    compare(joined(&output(&world.log, &first), &output(&world.log, &second)), "in two halves");
    tell(&format!(
        "{what}: {} events live with {restarts} restarts, {kills} power cuts and {clock_steps} steps of the clock: {rows} rows \
         of digest {:016x}, as in its replays",
        course.events.len(),
        digest(&live)
    ));
}

/// Seeds of the short form (fewer where the code is not optimized) and of the long one.
fn seeds(short: u64) -> std::ops::RangeInclusive<u64> {
    1..=match std::env::var_os("KAPPA_LONG") {
        Some(_) => short * 20,
        None if cfg!(debug_assertions) => 1,
        None => short,
    }
}

#[test]
fn live_runs_over_the_flights_are_their_replays() {
    let course = flights();
    seeds(2).for_each(|seed| live_is_every_replay(&course, seed));
}

#[test]
fn live_runs_over_visits_are_their_replays() {
    seeds(3).for_each(|seed| live_is_every_replay(&visits(seed, 60_000), seed));
}

/// Where a run begins to read, and what is said.
#[derive(Default)]
struct Reading {
    first: Option<Position>,
    notes: Vec<String>,
}

impl Observer for Reading {
    fn on_progress(&mut self, position: Position, _: Option<Position>, _: &Counters) {
        self.first.get_or_insert(position);
    }
    fn on_note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
}

/// Runs, and says whether that began with a checkpoint of another run: then it has read nothing before `middle`.
fn begins_with_checkpoint(log: &Log, job: &Job, request: &Request, middle: u64) -> (RunReport, bool) {
    let mut reading = Reading::default();
    let report = job::run(log, job, request, &mut reading).expect("the replay");
    let is_said = reading.notes.iter().any(|note| note.starts_with("beginning with checkpoint"));
    let first = reading.first.expect("it has read something");
    assert_eq!(is_said, first.0 > middle, "{first}: {:?}", reading.notes);
    (report, is_said)
}

#[test]
fn a_replay_from_a_time_begins_with_a_checkpoint_where_that_gives_the_same() {
    const HALF: usize = 600;
    for (seed, is_rejecting) in [(61, false), (62, false), (63, true)] {
        println!("seed {seed}");
        let (_, sim) = Env::sim(seed);
        let log = laws::open(&sim, "/data");
        let mut events = laws::input(seed, 3 * HALF);
        // Rejected rows are published from whatever time on: then the start is where to begin.
        events.retain(|(_, _, value)| is_rejecting || value.contains("page"));
        laws::append(&log, &sim, &events[..HALF], 16);
        let live = laws::job(None);
        let held = Request { bounded: true, checkpoints: often(2_000), ..Request::default() };
        job::run(&log, &live, &held, &mut Silent).expect("half the run");
        laws::append(&log, &sim, &events[HALF..], 16);
        // Its checkpoints stay where they are.
        let none = CheckpointOptions { enabled: false, ..often(5_000) };
        job::run(&log, &live, &Request { checkpoints: none, ..held.clone() }, &mut Silent).expect("the run");
        let (middle, middle_ms) = (HALF as u64 * 3 / 4, events[HALF].1 / 1000);
        let replay = |version: &str, from_ms: i64, change: &dyn Fn(&mut Request)| {
            let again = laws::job(Some(version));
            let base = Request { publish_from_ms: Some(from_ms), checkpoints: often(5_000), ..Request::default() };
            let mut request = job::replay_request(&log, &again, base).expect("a request");
            change(&mut request);
            let (report, is_shortcut) = begins_with_checkpoint(&log, &again, &request, middle);
            (again, request, report, is_shortcut)
        };
        let (whole, _, of_whole, is_shortcut) = replay("whole", middle_ms, &|request| request.checkpoint_of = None);
        assert!(!is_shortcut && of_whole.progress.streams.iter().filter(|stream| stream.rows > 0).count() >= 5);
        let (short, request, of_short, is_shortcut) = replay("short", middle_ms, &|_| {});
        assert_eq!((is_shortcut, of_short.outcome), (!is_rejecting, Outcome::Started));
        // In two parts, the second of which goes on.
        let to = Some(Point::Position(Position(3 * HALF as u64)));
        let (parts, _, _, is_shortcut) = replay("parts", middle_ms, &|request| request.to = to);
        assert_eq!(is_shortcut, !is_rejecting);
        let rest = job::run(&log, &parts, &request, &mut Silent).expect("the rest");
        assert_eq!(rest.outcome, Outcome::Resumed);
        for (job, report) in [(&short, &of_short), (&parts, &rest)] {
            assert_eq!(first_difference(&output(&log, job), &output(&log, &whole)), None, "seed {seed}");
            assert_eq!(report.progress, of_whole.progress);
            assert_eq!((&report.record.starts, report.record.end), (&of_whole.record.starts, of_whole.record.end));
            // From the start: a checkpoint proves nothing.
            let verified = job::verify(&log, job, &VerifyRequest::default(), &mut Silent).expect("verified");
            assert_eq!((verified.differences, verified.recomputed), (vec![], of_whole.progress.streams.clone()));
        }
        for output in ["counts", "hops", "visits"] {
            let report = job::diff(&log, &DiffRequest::new(output, &format!("{output}.short")), &Silent);
            let why = report.expect("compared").why;
            assert!(why.keys().all(|why| *why == Why::Start), "seed {seed}, {output}: {why:?}");
        }
        // Windows that had come out before, another end, other SQL, no checkpoints.
        assert!(!replay("early", middle_ms - 40_000, &|_| {}).3);
        assert!(!replay("ended", middle_ms, &|request| request.to = Some(Point::Position(Position(middle)))).3);
        assert!(!replay("without", middle_ms, &|request| request.checkpoints = none).3);
        let changed = laws::SQL.replace("INTERVAL '4' SECOND", "INTERVAL '5' SECOND");
        let plan = Arc::new(sql::plan("laws.sql", &changed).expect("the plan"));
        let changed = Job { plan, ..laws::job(Some("changed")) };
        assert!(!begins_with_checkpoint(&log, &changed, &request, middle).1);
    }
}
