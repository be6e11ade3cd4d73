//! Windows over history: counts by a 64-bit key and by a string of 13 bytes in each kind of window, beside a bare loop that reads the same
//! Parquet columns and counts by key in a hash map. And windows over the journal, whose JSON is decoded on the way: sums over 3 of 8 fields.

use super::replay::bare_read;
use super::{Series, show, timed};
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::job::{self, Job, Point, Request, Silent};
use crate::log::records::{Partitioning, Record, RecordColumns};
use crate::log::{AppendBatch, Log, LogOptions, TopicConfig};
use crate::types::{PartitionId, Position};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Setup {
    pub rounds: u32,
    pub events: u64,
    pub keys: u32,
    pub string_keys: u32,
}

/// Events in one append, at most.
const BATCH: u64 = 20_000;

/// Appends and journal files are so small that at most about one event in this many stays in the journal.
const PARTS: u64 = 16;

/// Events of a key in a second of event time: a slide of the hopping window holds this many.
const PER_KEY_AND_S: u64 = 100;

/// After so much event time nothing happens for longer than the gap of a session.
const BUSY_MS: u64 = 30_000;
const PAUSE_MS: u64 = 5_000;

/// A JSON event is so many times as large as one with a key alone: there are as many times fewer.
const JSON_SHARE: u64 = 4;

/// What an event is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Its time and a 64-bit key.
    Number,
    /// Its time and a key of 13 bytes.
    Text,
    /// Eight fields of which three are used; it stays in the journal.
    Json,
}

impl Event {
    fn columns(self) -> &'static str {
        match self {
            Event::Number => "ts TIMESTAMP(3), k BIGINT",
            Event::Text => "ts TIMESTAMP(3), k STRING",
            Event::Json => {
                "id BIGINT, ts TIMESTAMP(3), k STRING, page STRING, referrer STRING, status INT, bytes BIGINT, secure BOOLEAN"
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Tumble,
    Hop,
    Session,
}

fn sql(event: Event, kind: Kind) -> String {
    let data_type = if event == Event::Number { "BIGINT" } else { "STRING" };
    let aggregate = if event == Event::Json { "SUM(bytes)" } else { "COUNT(*)" };
    let (output, windows) = match kind {
        Kind::Tumble => ("tumbled", "TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)"),
        Kind::Hop => ("hopped", "HOP(TABLE events, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND)"),
        Kind::Session => ("sessions", "SESSION(TABLE events PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)"),
    };
    let columns = event.columns();
    format!(
        "CREATE TABLE events ({columns}, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) \
         WITH ('connector' = 'kappa', 'format' = 'json');\n\
         CREATE TABLE {output} (window_start TIMESTAMP(3), k {data_type}, n BIGINT) WITH ('connector' = 'kappa', 'format' = 'json');\n\
         INSERT INTO {output} SELECT window_start, k, {aggregate} FROM TABLE({windows}) GROUP BY window_start, window_end, k;"
    )
}

pub(super) fn job_of(event: Event, kind: Kind) -> Result<Job> {
    let plan = crate::sql::plan("window.sql", &sql(event, kind))?;
    Ok(Job { name: format!("bench-{}", plan.outputs[0].table), plan: Arc::new(plan), version: None })
}

pub(super) fn run(env: &Env, printer: &Printer, setup: &Setup, dir: &Path) -> Result<()> {
    let numbers = Side::new(env, dir.join("numbers"), Event::Number, setup.keys, setup.events)?;
    let texts = Side::new(env, dir.join("texts"), Event::Text, setup.string_keys, setup.events)?;
    let json = Side::new(env, dir.join("json"), Event::Json, setup.keys, setup.events.div_ceil(JSON_SHARE))?;
    let mut measured = Measured::new();
    let progress = Progress::new("rounds", Some(u64::from(setup.rounds)), "rounds");
    for round in 0..setup.rounds {
        measured.round(env, &numbers, &texts, &json)?;
        progress.at(u64::from(round) + 1);
    }
    drop(progress);
    for side in [numbers, texts, json] {
        side.close()?;
    }
    measured.show(env, printer)
}

/// A log whose events went to history, but for those of the newest journal file, if they are not meant to stay in the journal.
pub(super) struct Side {
    log: Log,
    dir: PathBuf,
    event: Event,
    events: u64,
}

impl Side {
    pub(super) fn new(env: &Env, dir: PathBuf, event: Event, keys: u32, events: u64) -> Result<Side> {
        let file_bytes = (events * 32 / PARTS).clamp(16 << 10, LogOptions::default().file_bytes);
        let log = Log::open(env, &dir, LogOptions { background: false, file_bytes, ..LogOptions::default() })?;
        fill(&log, event, u64::from(keys.max(1)), events)?;
        if event != Event::Json {
            log.keep()?;
        }
        Ok(Side { log, dir, event, events })
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn close(self) -> Result<()> {
        self.log.close()
    }

    /// Events a second of one bounded run.
    fn job(&self, env: &Env, kind: Kind, threads: usize) -> Result<f64> {
        let job = job_of(self.event, kind)?;
        let request = Request { bounded: true, flush: true, restart: true, threads, ..Request::default() };
        let (seconds, _) = timed(env, || job::run(&self.log, &job, &request, &mut Silent))?;
        Ok(self.events as f64 / seconds)
    }

    /// Events a second of the bare loop, and the share of all events that it found in history.
    fn bare(&self, env: &Env) -> Result<(f64, f64)> {
        let (seconds, counted) = timed(env, || match self.event {
            Event::Number => count_numbers(env, &self.dir),
            Event::Text | Event::Json => count_texts(env, &self.dir),
        })?;
        match counted {
            0 => Err(Error::input("too few events: none of them went to history").with_hint("use more --events")),
            _ => Ok((counted as f64 / seconds, counted as f64 / self.events as f64)),
        }
    }
}

fn key_column<'a>(batch: &'a RecordBatch, expected: &DataType) -> Result<&'a dyn Array> {
    let column = batch.column_by_name("k").ok_or_else(|| Error::internal("history without the key"))?;
    match column.data_type() == expected {
        true => Ok(&**column),
        false => Err(Error::internal(format!("history holds the key as {}", column.data_type()))),
    }
}

fn count_numbers(env: &Env, dir: &Path) -> Result<u64> {
    let mut counts: HashMap<i64, u64, FixedState> = HashMap::with_hasher(FixedState::default());
    bare_read(env, dir, &["ts", "k"], |batch| {
        for key in key_column(batch, &DataType::Int64)?.as_primitive::<Int64Type>().values() {
            *counts.entry(*key).or_default() += 1;
        }
        Ok(())
    })?;
    Ok(counts.values().sum())
}

fn count_texts(env: &Env, dir: &Path) -> Result<u64> {
    let mut counts: HashMap<String, u64, FixedState> = HashMap::with_hasher(FixedState::default());
    bare_read(env, dir, &["ts", "k"], |batch| {
        let keys = key_column(batch, &DataType::Utf8)?.as_string::<i32>();
        for row in 0..keys.len() {
            *counts.entry_ref(keys.value(row)).or_default() += 1;
        }
        Ok(())
    })?;
    Ok(counts.values().sum())
}

/// Seeded events, at most 900 ms out of order.
fn fill(log: &Log, event: Event, keys: u64, events: u64) -> Result<()> {
    let id = log.create_topic("events", TopicConfig::default())?.id();
    // The log knows a topic's columns from the first job that reads it, here one that ends where it starts.
    let request = Request { bounded: true, to: Some(Point::Position(Position(0))), ..Request::default() };
    job::run(log, &job_of(event, Kind::Tumble)?, &request, &mut Silent)?;
    let progress = Progress::new("writing events", Some(events), "events");
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let batch = (events / PARTS).clamp(1, BATCH);
    let (mut at, mut pending) = (0, None);
    while at < events {
        let mut rows = RecordColumns::default();
        let end = (at + batch).min(events);
        for number in at..end {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let ms = event_ms(number, keys, state >> 20);
            let value = event_json(event, number, (state >> 33) % keys, ms);
            let record = Record { timestamp_ms: None, key: None, value: Some(value.as_bytes()), headers: &[] };
            rows.push(Partitioning::Fixed(PartitionId(0)), &record);
        }
        at = end;
        progress.at(at);
        if let Some(before) = pending.replace(log.append(AppendBatch::records(id, rows))?) {
            before.wait()?;
        }
    }
    pending.map_or(Ok(()), |last| last.wait().map(drop))
}

/// Event time: evenly spread, late by up to 900 ms, with a pause after each busy time.
fn event_ms(event: u64, keys: u64, random: u64) -> u64 {
    let ms = event * 1000 / (keys * PER_KEY_AND_S);
    let busy = ms % BUSY_MS;
    ms / BUSY_MS * (BUSY_MS + PAUSE_MS) + busy - (random % 900).min(busy)
}

fn event_json(event: Event, number: u64, key: u64, ms: u64) -> String {
    let (minute, second, milli) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
    let (day, hour, minute) = (1 + minute / 1440 % 28, minute / 60 % 24, minute % 60);
    let ts = format!("2026-01-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}");
    match event {
        Event::Number => format!("{{\"ts\":\"{ts}\",\"k\":{key}}}"),
        Event::Text => format!("{{\"ts\":\"{ts}\",\"k\":\"user-{key:08}\"}}"),
        Event::Json => format!(
            "{{\"id\":{number},\"ts\":\"{ts}\",\"k\":\"user-{key:08}\",\"page\":\"/p/{:04}\",\
             \"referrer\":\"https://a.example\",\"status\":200,\"bytes\":{},\"secure\":{}}}",
            number % 9973,
            1000 + number * 7919 % 9000,
            !number.is_multiple_of(3),
        ),
    }
}

struct Measured {
    bare: Series,
    tumble: Series,
    share: Series,
    hop: Series,
    hop_cost: Series,
    session: Series,
    session_cost: Series,
    two: Series,
    two_gain: Series,
    bare_texts: Series,
    texts: Series,
    texts_share: Series,
    texts_two: Series,
    texts_two_gain: Series,
    sealed: Series,
    json: Series,
    json_two: Series,
    json_two_gain: Series,
}

impl Measured {
    fn new() -> Measured {
        Measured {
            bare: Series::new("bare Parquet reader and hash map, 64-bit keys", "events/s"),
            tumble: Series::new("tumbling count by a 64-bit key, 1 thread", "events/s"),
            share: Series::new("tumbling count / bare loop", "ratio"),
            hop: Series::new("hopping count, 10 s every 1 s", "events/s"),
            hop_cost: Series::new("cost per event, hopping / tumbling", "ratio"),
            session: Series::new("count of sessions, gap 1 s", "events/s"),
            session_cost: Series::new("cost per event, sessions / tumbling", "ratio"),
            two: Series::new("tumbling count by a 64-bit key, 2 threads", "events/s"),
            two_gain: Series::new("2 threads / 1 thread", "ratio"),
            bare_texts: Series::new("bare Parquet reader and hash map, string keys", "events/s"),
            texts: Series::new("tumbling count by a string key, 1 thread", "events/s"),
            texts_share: Series::new("tumbling count / bare loop, string keys", "ratio"),
            texts_two: Series::new("tumbling count by a string key, 2 threads", "events/s"),
            texts_two_gain: Series::new("2 threads / 1 thread, string keys", "ratio"),
            json: Series::new("tumbling sum from JSON in the journal, 3 of 8 fields, 1 thread", "events/s"),
            json_two: Series::new("tumbling sum from JSON in the journal, 2 threads", "events/s"),
            json_two_gain: Series::new("2 threads / 1 thread, JSON", "ratio"),
            sealed: Series::new("events in history, the rest in the journal", "share"),
        }
    }

    fn round(&mut self, env: &Env, numbers: &Side, texts: &Side, json: &Side) -> Result<()> {
        let (bare, sealed) = numbers.bare(env)?;
        let tumble = numbers.job(env, Kind::Tumble, 1)?;
        let hop = numbers.job(env, Kind::Hop, 1)?;
        let session = numbers.job(env, Kind::Session, 1)?;
        let two = numbers.job(env, Kind::Tumble, 2)?;
        let (bare_texts, sealed_texts) = texts.bare(env)?;
        let by_text = texts.job(env, Kind::Tumble, 1)?;
        let by_text_two = texts.job(env, Kind::Tumble, 2)?;
        let from_json = json.job(env, Kind::Tumble, 1)?;
        let from_json_two = json.job(env, Kind::Tumble, 2)?;
        let values = [
            (&mut self.bare, bare),
            (&mut self.tumble, tumble),
            (&mut self.share, tumble / bare),
            (&mut self.hop, hop),
            (&mut self.hop_cost, tumble / hop),
            (&mut self.session, session),
            (&mut self.session_cost, tumble / session),
            (&mut self.two, two),
            (&mut self.two_gain, two / tumble),
            (&mut self.bare_texts, bare_texts),
            (&mut self.texts, by_text),
            (&mut self.texts_share, by_text / bare_texts),
            (&mut self.texts_two, by_text_two),
            (&mut self.texts_two_gain, by_text_two / by_text),
            (&mut self.json, from_json),
            (&mut self.json_two, from_json_two),
            (&mut self.json_two_gain, from_json_two / from_json),
            (&mut self.sealed, sealed.min(sealed_texts)),
        ];
        values.into_iter().for_each(|(series, value)| series.values.push(value));
        Ok(())
    }

    fn show(&self, env: &Env, printer: &Printer) -> Result<()> {
        let numbers = [&self.bare, &self.tumble, &self.share, &self.hop, &self.hop_cost];
        let more = [&self.session, &self.session_cost, &self.two, &self.two_gain];
        let texts = [&self.bare_texts, &self.texts, &self.texts_share, &self.texts_two, &self.texts_two_gain];
        let rest = [&self.sealed, &self.json, &self.json_two, &self.json_two_gain];
        show(env, printer, &[&numbers[..], &more, &texts, &rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stay_within_the_watermark_and_pause() {
        let (keys, mut newest) = (10, 0);
        for event in 0..100 * PER_KEY_AND_S * keys {
            let on_time = event_ms(event, keys, 0);
            newest = newest.max(on_time);
            let late = event_ms(event, keys, event.wrapping_mul(7_919));
            assert!(late <= newest && newest - late < 900, "event {event} at {late}, {newest} was seen");
        }
        let at = |second: u64| event_ms(second * PER_KEY_AND_S * keys, keys, 0);
        assert_eq!((at(29), at(30), at(61)), (29_000, 35_000, 71_000));
    }

    #[test]
    fn events_are_as_large_as_they_should_be() {
        let text = event_json(Event::Text, 0, 99_999, 3_723_004);
        assert_eq!(text, r#"{"ts":"2026-01-01 01:02:03.004","k":"user-00099999"}"#);
        let json = event_json(Event::Json, 5_000_000, 99_999, 3_723_004);
        assert!((145..=155).contains(&json.len()), "{} bytes: {json}", json.len());
        assert_eq!("user-00099999".len(), 13);
    }
}
