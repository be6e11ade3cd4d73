//! Law 1 with many producers, and law 2: the clock while frames are in flight, across restarts, and set back.

use super::*;
use crate::env::thread::map_ordered;
use crate::log::{AppendBatch, Producer, ProducerOptions, TopicConfig};
use crate::types::AppendTime;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn eight_producers_get_dense_offsets_and_keep_their_own_order() {
    let (env, _) = Env::sim(1);
    let options = LogOptions { queue_bytes: 4 << 10, ..small() };
    let log = Log::open(&env, dir(), options).unwrap();
    let config = TopicConfig { partitions: 3, ..TopicConfig::default() };
    let topic = log.create_topic("t", config).unwrap();
    let produce = |producer: u32| {
        let options = ProducerOptions { batch_bytes: 200, linger_us: 1 << 40, ..ProducerOptions::default() };
        let mut out = Producer::new(&log, &topic, options);
        let mut ends: Vec<Position> = Vec::new();
        for number in 0..300 {
            let (key, value) = (format!("{producer}"), format!("{number:04}"));
            let record =
                Record { timestamp_ms: None, key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &[] };
            ends.extend(out.send(&record).unwrap().iter().map(|ack| ack.end));
        }
        ends.extend(out.flush().unwrap().iter().map(|ack| ack.end));
        assert!(ends.is_sorted());
        ends.len()
    };
    let acks = map_ordered(8, (0..8).collect(), produce);
    assert!(acks.iter().all(|acks| *acks > 5), "{acks:?}");
    let rows = read_all(&log, &[topic.id()]);
    assert_eq!(rows.len(), 8 * 300);
    assert!(rows.iter().zip(0..).all(|(row, position)| row.position == position));
    for partition in 0..3 {
        let offsets = rows.iter().filter(|row| row.partition == partition).map(|row| row.offset);
        assert!(offsets.zip(0..).all(|(offset, expected)| offset == expected));
    }
    for producer in 0..8 {
        let key = format!("{producer}").into_bytes();
        let mine: Vec<_> = rows.iter().filter(|row| row.key.as_ref() == Some(&key)).collect();
        assert!(mine.len() == 300 && mine.windows(2).all(|pair| pair[0].value < pair[1].value));
        assert!(mine.windows(2).all(|pair| pair[0].partition == pair[1].partition));
    }
}

#[test]
fn no_record_comes_before_a_time_that_the_clock_has_given() {
    let (env, sim) = Env::sim(2);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let readings = map_ordered(3, vec![0, 1, 2], |role| match role {
        0 => {
            // Until the clock has been asked often in between: a busy machine may start that thread late.
            for appended in 0.. {
                if appended >= 400 && asked.load(Ordering::Relaxed) >= 200 {
                    break;
                }
                log.append_wait(AppendBatch::records(topic, values(&["x"]))).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            Vec::new()
        }
        1 => {
            let mut step = 0i64;
            while !stop.load(Ordering::Relaxed) {
                step += 1;
                sim.clock.advance_us(37);
                if step % 50 == 0 {
                    use crate::env::Clock as _;
                    sim.clock.set_wall_us(sim.clock.wall_us() - 1_500);
                }
                std::thread::yield_now();
            }
            Vec::new()
        }
        _ => {
            let mut readings = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                readings.push(log.clock());
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
            readings
        }
    });
    let readings = &readings[2];
    let rows = read_all(&log, &[topic]);
    assert!(readings.len() >= 200);
    assert!(rows.windows(2).all(|pair| pair[0].append_time <= pair[1].append_time));
    assert!(readings.is_sorted_by_key(|reading| (reading.position, reading.append_time)));
    for reading in readings {
        if let Some(next) = rows.get(usize::try_from(reading.position.0).unwrap()) {
            assert!(AppendTime(next.append_time) >= reading.append_time, "{reading:?} and then {next:?}");
        }
    }
}

#[test]
fn the_clock_goes_on_after_a_restart_even_if_the_wall_clock_was_set_back() {
    let (env, sim) = Env::sim(3);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    log.append_wait(AppendBatch::records(topic, values(&["x"]))).unwrap();
    sim.clock.advance_us(1_000_000);
    let read = log.clock().append_time;
    // A job acted on this reading and says so in the frame with its output.
    let batch = AppendBatch { clock_floor: Some(read), ..AppendBatch::records(topic, values(&["y"])) };
    let ack = log.append_wait(batch).unwrap();
    assert!(ack.append_time >= read);
    log.close().unwrap();
    sim.clock.set_wall_us(read.0 - 3_600_000_000);
    let log = open(&env);
    let first = log.clock().append_time;
    assert!(first >= read);
    sim.clock.advance_us(1_000);
    assert_eq!(log.clock().append_time.0, first.0 + 500, "half the monotonic rate");
    let ack = log.append_wait(AppendBatch::records(topic, values(&["z"]))).unwrap();
    assert!(ack.append_time >= log.seek_time(&ack));
}

impl Log {
    /// The append time that reading gives a batch's first record.
    fn seek_time(&self, ack: &crate::log::Ack) -> AppendTime {
        let mut reader = self.reader(&[ack.topics[0].topic], ack.topics[0].first_position);
        reader.next(self.durable_end()).unwrap().unwrap().last_append_time()
    }
}

#[test]
fn after_silence_one_mark_is_written_and_no_more() {
    let (env, sim) = Env::sim(4);
    let log = Log::open(&env, dir(), LogOptions { idle_mark_us: 1_000, ..small() }).unwrap();
    log.create_topic("t", TopicConfig::default()).unwrap();
    let frames = || {
        let seen = crate::log::inspect::inspect(&sim.with_disk(sim.disk.copy()).env(), dir()).unwrap();
        seen.files.iter().flat_map(|file| &file.frames).map(|frame| frame.mark).collect::<Vec<_>>()
    };
    for _ in 0..2_000 {
        if frames().len() == 2 {
            break;
        }
        log.wait_beyond(log.durable_end(), 1_000);
    }
    log.wait_beyond(log.durable_end(), 20_000);
    assert_eq!(frames(), [false, true]);
    log.close().unwrap();
    assert_eq!(frames(), [false, true]);
}

#[test]
fn what_is_done_in_the_background_goes_on_beside_live_appends_and_keeps_its_order() {
    let (env, _) = Env::sim(5);
    let log = open(&env);
    let topic = |name: &str| log.create_topic(name, TopicConfig::default()).unwrap().id();
    let (live, output) = (topic("live"), topic("output"));
    let done = AtomicBool::new(false);
    let appended = map_ordered(3, vec![0, 1, 2], |role| match role {
        // A job's output: frames on their way, waited for oldest first.
        0 => {
            let mut in_flight = std::collections::VecDeque::new();
            for number in 0..200 {
                let rows = values(&[&format!("{number:04} {}", "o".repeat(3_000))]);
                let batch = AppendBatch { background: true, ..AppendBatch::records(output, rows) };
                in_flight.push_back(log.append(batch).unwrap());
                if in_flight.len() > 16 {
                    in_flight.pop_front().unwrap().wait().unwrap();
                }
            }
            in_flight.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
            done.store(true, Ordering::Relaxed);
            200
        }
        // Live appends never stop while it is written: it must get through all the same.
        role => (0..)
            .take_while(|number| *number < 50 || !done.load(Ordering::Relaxed))
            .map(|number| {
                log.append_wait(AppendBatch::records(live, values(&[&format!("{role} {number:06}")]))).unwrap()
            })
            .count(),
    });
    let rows = read_all(&log, &[live, output]);
    assert_eq!(rows.len(), appended.iter().sum::<usize>());
    assert!(rows.iter().zip(0..).all(|(row, position)| row.position == position));
    for prefix in ["1 ", "2 ", "0"] {
        let of = |row: &&Row| row.value.as_ref().is_some_and(|value| value.starts_with(prefix.as_bytes()));
        let mine: Vec<_> = rows.iter().filter(of).collect();
        assert!(!mine.is_empty() && mine.windows(2).all(|pair| pair[0].value < pair[1].value), "{prefix}");
    }
    log.close().unwrap();
}
