//! What goes in comes out: values, nulls, positions, offsets, metadata, also after closing and opening.

use super::*;
use crate::error::ErrorKind;
use crate::log::{AppendBatch, MetaRecord, MetaSpace, TopicConfig};
use crate::types::{AppendTime, Offset};

#[test]
fn what_goes_in_comes_out_also_after_reopening() {
    let (env, sim) = Env::sim(1);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig { partitions: 3, ..TopicConfig::default() }).unwrap();
    let mut columns = RecordColumns::default();
    let headers: &[(&str, Option<&[u8]>)] = &[("h", None), ("i", Some(b""))];
    columns.push(
        Partitioning::Fixed(PartitionId(2)),
        &Record { timestamp_ms: Some(-1), key: Some(b""), value: None, headers },
    );
    columns.push(
        Partitioning::Fixed(PartitionId(0)),
        &Record { timestamp_ms: None, key: None, value: Some(b"v"), headers: &[] },
    );
    sim.clock.advance_us(5);
    let ack = log.append_wait(AppendBatch::records(topic.id(), columns)).unwrap();
    assert_eq!((ack.topics[0].first_position, ack.end), (Position(0), Position(2)));
    let rows = read_all(&log, &[topic.id()]);
    assert_eq!(rows.len(), 2);
    let first = &rows[0];
    assert_eq!((first.partition, first.offset, first.timestamp), (2, 0, Some(-1)));
    assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b""[..]), None));
    assert_eq!(first.headers, [("h".to_owned(), None), ("i".to_owned(), Some(vec![]))]);
    assert_eq!((rows[1].key.as_deref(), rows[1].value.as_deref()), (None, Some(&b"v"[..])));
    assert_eq!(AppendTime(first.append_time), ack.append_time);
    log.close().unwrap();

    let log = open(&env);
    assert!(log.report().is_clean(), "{}", log.report());
    assert_eq!(read_all(&log, &[topic.id()]), rows);
    assert_eq!(log.partition_ends(topic.id()).unwrap(), [Offset(1), Offset(0), Offset(1)]);
    let ack = log.append_wait(AppendBatch::records(topic.id(), values(&["w"]))).unwrap();
    assert_eq!((ack.topics[0].first_position, ack.topics[0].partitions[0].base_offset), (Position(2), Offset(1)));
}

#[test]
fn metadata_is_applied_in_order_and_survives() {
    let (env, _) = Env::sim(2);
    let log = open(&env);
    let put = |key: &str, value: Option<&[u8]>| MetaRecord {
        space: MetaSpace::Progress,
        key: key.to_owned(),
        value: value.map(<[u8]>::to_vec),
    };
    let big = vec![7; 64 << 10];
    log.append_wait(AppendBatch::meta(vec![put("a/1", Some(b"x")), put("a/2", Some(&big)), put("b", Some(b""))]))
        .unwrap();
    log.append_wait(AppendBatch::meta(vec![put("a/1", None), put("a/3", Some(b"y")), put("a/3", Some(b"z"))])).unwrap();
    let check = |log: &Log| {
        let found = log.meta_scan(MetaSpace::Progress, "a/");
        assert_eq!(found, [("a/2".to_owned(), big.clone()), ("a/3".to_owned(), b"z".to_vec())]);
        assert_eq!(log.meta(MetaSpace::Progress, "b"), Some(vec![]));
        assert_eq!(log.meta(MetaSpace::Run, "b"), None);
    };
    check(&log);
    drop(log);
    check(&open(&env));
}

#[test]
fn wrong_requests_are_refused_and_nothing_is_written() {
    let (env, _) = Env::sim(3);
    let log = open(&env);
    let topic = log.create_topic("t", TopicConfig::default()).unwrap();
    let kind = |batch| log.append_wait(batch).unwrap_err().kind();
    let end = log.clock().position;
    assert_eq!(kind(AppendBatch::records(TopicId(9), values(&["x"]))), ErrorKind::NotFound);
    let mut far = values(&["x"]);
    far.partitions[0] = Some(1);
    assert_eq!(kind(AppendBatch::records(topic.id(), far)), ErrorKind::NotFound);
    let mut uneven = values(&["x"]);
    uneven.timestamps_ms.push(None);
    assert_eq!(kind(AppendBatch::records(topic.id(), uneven)), ErrorKind::Input);
    let huge = "x".repeat(33 << 20);
    assert_eq!(kind(AppendBatch::records(topic.id(), values(&[&huge]))), ErrorKind::Input);
    let own = MetaRecord { space: MetaSpace::Topic, key: "1".into(), value: None };
    assert_eq!(kind(AppendBatch::meta(vec![own])), ErrorKind::Input);
    assert_eq!(log.create_topic("t", TopicConfig::default()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(log.create_topic("t.late", TopicConfig::default()).unwrap_err().kind(), ErrorKind::Input);
    log.create_output_topic("t.late", TopicConfig::default()).unwrap();
    assert_eq!(log.durable_end(), end);
    let held = Log::open(&env, dir(), small()).map(|_| ()).unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Unavailable);
    assert!(held.message().contains(&std::process::id().to_string()), "{held}");
}

#[test]
fn a_log_on_the_real_disk_opens_with_its_view_and_reads_mapped_files() {
    let env = Env::os();
    let base = std::env::temp_dir().join(format!("kappa-log-{}-{:x}", std::process::id(), env.random.next_u64()));
    let options = || LogOptions { view: ViewKind::Sled, codec: crate::log::Codec::Lz4, ..small() };
    let log = Log::open(&env, &base, options()).unwrap();
    let topic = log.create_topic("t", TopicConfig::default()).unwrap().id();
    for number in 0..40 {
        let noise: String = (0..1_000u32).map(|n| char::from(b'a' + (n * number % 23) as u8)).collect();
        log.append_wait(AppendBatch::records(topic, values(&[&noise, "short"]))).unwrap();
    }
    let rows = read_all(&log, &[topic]);
    log.close().unwrap();
    for round in 0..3 {
        if round == 2 {
            // What is derived can be deleted.
            env.disk.remove_dir_all(&base.join("sled")).unwrap();
        }
        let log = Log::open(&env, &base, options()).unwrap();
        let told = log.report().catalog.as_ref().is_some_and(|told| told.contains("missing"));
        assert!(log.report().damage.is_empty() && log.report().files > 1, "{}", log.report());
        assert!(if round == 2 { told } else { log.report().is_clean() }, "{}", log.report());
        assert_eq!(log.topic("t").unwrap().id(), topic);
        assert_eq!(read_all(&log, &[topic]), rows);
        log.close().unwrap();
    }
    assert_eq!(crate::log::inspect::inspect(&env, &base).unwrap().severity(), 0);
    env.disk.remove_dir_all(&base).unwrap();
}
