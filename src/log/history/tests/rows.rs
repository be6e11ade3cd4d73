//! The log's own columns, bit by bit; summaries and records say what is there.

use super::*;
use crate::codec::xxh64;
use crate::error::ErrorKind;
use crate::log::history::file::{Extent, PartitionExtent, TopicExtent};
use crate::log::pieces::PLACES_AND_TIMES;
use crate::log::records::Projection;
use crate::log::topic::Topics;
use crate::types::{AppendTime, Offset, PartitionId, Position};
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        6 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        2 => (0..6u8).prop_map(|n| Some(vec![b'k', n])),
    ]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 1_700_000_000_000..1_700_000_100_000i64, 1 => Just(-1), 1 => any::<i64>()]
}

/// How positions, partitions and append times of neighbours go together.
#[derive(Debug, Clone, Copy)]
struct Shape {
    gaps: bool,
    partitions: u32,
    holes: bool,
    times: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (any::<bool>(), prop_oneof![Just(1u32), Just(3), Just(4096)], any::<bool>(), any::<bool>())
        .prop_map(|(gaps, partitions, holes, times)| Shape { gaps, partitions, holes, times })
}

type Drawn = (u64, u32, i64, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(any::<u8>(), 1..9)];
    (any::<u64>(), any::<u32>(), time(), proptest::option::weighted(0.8, time()), bytes(), bytes(), headers)
}

fn rows(shape: Shape, first: u64, drawn: Vec<Drawn>) -> Vec<Row> {
    let mut ends = std::collections::BTreeMap::new();
    let mut position = first;
    let mut append_time = -5;
    let row = |(dice, partition, _, timestamp, key, value, headers): Drawn| {
        position += 1 + if shape.gaps { dice % 3 } else { 0 };
        append_time += if shape.times && dice % 5 == 0 { (dice % 1_000_000) as i64 } else { 0 };
        let partition = partition % shape.partitions;
        let end: &mut u64 = ends.entry(partition).or_insert(dice % 100);
        *end += 1 + if shape.holes && dice % 7 == 0 { 3 } else { 0 };
        Row { position, append_time, partition, offset: *end - 1, timestamp, key, value, headers }
    };
    drawn.into_iter().map(row).collect()
}

/// What rows of one topic add up to, the plain way.
fn extent(rows: &[Row]) -> Extent {
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let times = || rows.iter().filter_map(|row| row.timestamp);
    let mut partitions: Vec<u32> = rows.iter().map(|row| row.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let partition = |partition: u32| {
        let offsets = || rows.iter().filter(|row| row.partition == partition).map(|row| row.offset);
        PartitionExtent {
            partition: PartitionId(partition),
            first_offset: Offset(offsets().min().unwrap()),
            last_offset: Offset(offsets().max().unwrap()),
        }
    };
    Extent {
        rows: rows.len() as u64,
        raw_bytes: rows.iter().map(|row| (len(&row.key) + len(&row.value) + row.headers.len()) as u64).sum(),
        first_position: Position(rows[0].position),
        last_position: Position(rows[rows.len() - 1].position),
        first_append_time: AppendTime(rows[0].append_time),
        last_append_time: AppendTime(rows[rows.len() - 1].append_time),
        timestamps_ms: times().min().zip(times().max()),
        partitions: partitions.into_iter().map(partition).collect(),
    }
}

fn some_rows(file: &HistoryFile, group: usize, wanted: &[u32]) -> LogBatch {
    file.read_rows(group, &file.read(group, &PLACES_AND_TIMES).unwrap(), wanted).unwrap()
}

fn some_of(rows: &[Row], wanted: &[u32]) -> Vec<Row> {
    wanted.iter().map(|row| rows[*row as usize].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_bit_comes_back(
        shape in shape(),
        one in proptest::collection::vec(drawn(), 1..120),
        other in proptest::collection::vec(drawn(), 0..40),
        cut in 1usize..50,
        limit in prop_oneof![1usize..20, Just(1000)],
        byte_limit in prop_oneof![1usize..300, Just(1 << 20)],
        some in any::<u64>(),
    ) {
        let topics = [(3, rows(shape, 10, one)), (9, rows(shape, 5, other))];
        let batches: Vec<LogBatch> = topics
            .iter()
            .flat_map(|(topic, rows)| rows.chunks(cut).map(|rows| batch_of(*topic, rows)))
            .collect();
        let limits = GroupLimits { rows: limit, bytes: byte_limit };
        let (bytes, record) = write(vec![spec(9, None), spec(3, None)], limits, &batches);
        let file = open(&bytes);
        file.verify().unwrap();
        let mut back: Vec<(u32, Vec<Row>)> = vec![(3, Vec::new()), (9, Vec::new())];
        for (group, summary) in file.groups().iter().enumerate() {
            let batch = file.read(group, &Projection::ALL).unwrap();
            prop_assert_eq!(batch.topic, summary.topic);
            prop_assert!(batch.decoded.is_none());
            let rows = rows_of(&batch);
            prop_assert_eq!(&extent(&rows), &summary.extent);
            prop_assert!(rows.len() <= limits.rows);
            let without_last = extent(&rows[..rows.len().max(2) - 1]);
            prop_assert!(rows.len() == 1 || without_last.raw_bytes <= limits.bytes as u64);
            let wanted: Vec<u32> = (0..rows.len() as u32).filter(|row| some >> (row % 64) & 1 == 1).collect();
            prop_assert_eq!(rows_of(&some_rows(&file, group, &wanted)), some_of(&rows, &wanted));
            let place = usize::from(summary.topic.0 == 9);
            back[place].1.extend(rows);
        }
        prop_assert_eq!(&back, &topics);
        let topic = |(topic, rows): &(u32, Vec<Row>)| {
            let of_topic = record.topic(TopicId(*topic)).unwrap();
            (TopicExtent { file_bytes: 0, ..of_topic.clone() }, TopicExtent { topic: TopicId(*topic), file_bytes: 0, columns: None, extent: extent(rows) })
        };
        for (said, expected) in topics.iter().filter(|(_, rows)| !rows.is_empty()).map(topic) {
            prop_assert_eq!(said, expected);
        }
        prop_assert_eq!(record.bytes, bytes.len() as u64);
        prop_assert_eq!(record.xxh64, xxh64(&bytes, 0));
        prop_assert_eq!(&file.record(7), &record);
        prop_assert_eq!(FileRecord::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn a_few_rows_are_read_out_of_many_pages() {
    // Texts that no dictionary holds, in pages of some thousand rows.
    let row = |n: u64| Row {
        position: n,
        append_time: 0,
        partition: 0,
        offset: n,
        timestamp: None,
        key: (!n.is_multiple_of(3)).then(|| format!("key {}", n % 1_000).into_bytes()),
        value: (!n.is_multiple_of(7))
            .then(|| format!("value {n} {}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()),
        headers: Vec::new(),
    };
    let rows: Vec<Row> = (0..120_000).map(row).collect();
    let (bytes, _) = write(vec![spec(1, None)], GroupLimits::default(), &[batch_of(1, &rows)]);
    let file = open(&bytes);
    let rows: Vec<Row> = rows.into_iter().take(file.groups()[0].extent.rows as usize).collect();
    let last = rows.len() as u32 - 1;
    for wanted in
        [vec![0], vec![last], vec![50_000, 50_001, 50_002], (0..last).step_by(977).collect(), (0..=last).collect()]
    {
        assert_eq!(rows_of(&some_rows(&file, 0, &wanted)), some_of(&rows, &wanted));
    }
}

#[test]
fn rows_without_any_order_come_back_too() {
    // Too many runs to be known without reading.
    let row = |n: u64| Row {
        position: 3 * n + n % 2,
        append_time: n as i64 * 7,
        partition: (n * n % 5) as u32,
        offset: 10_000 - n,
        timestamp: (!n.is_multiple_of(3)).then(|| (n as i64).wrapping_mul(0x1234_5678_9abc_def1)),
        key: (n % 4 != 1).then(|| n.to_le_bytes().to_vec()),
        value: Some(vec![n as u8; (n % 300) as usize]),
        headers: if n.is_multiple_of(5) { Vec::new() } else { vec![n as u8] },
    };
    let rows: Vec<Row> = (0..3_000).map(row).collect();
    let (bytes, record) = write(vec![spec(1, None)], GroupLimits::default(), &[batch_of(1, &rows)]);
    let file = open(&bytes);
    assert_eq!(rows_of(&file.read(0, &Projection::ALL).unwrap()), rows);
    assert_eq!(record.topics[0].extent, extent(&rows));
    // The same with dense offsets.
    let mut ends = [7u64, 0, 0, 9, 100];
    let dense = |mut row: Row| {
        row.offset = ends[row.partition as usize];
        ends[row.partition as usize] += 1;
        row
    };
    let rows: Vec<Row> = rows.into_iter().map(dense).collect();
    let (bytes, _) = write(vec![spec(1, None)], GroupLimits::default(), &[batch_of(1, &rows)]);
    assert_eq!(rows_of(&open(&bytes).read(0, &Projection::ALL).unwrap()), rows);
}

/// Takes so many bytes, then no more.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.min(bytes.len()) {
            0 if !bytes.is_empty() => Err(std::io::ErrorKind::StorageFull.into()),
            taken => {
                self.0 -= taken;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_happens() {
    let rows: Vec<Row> =
        rows(Shape { gaps: true, partitions: 3, holes: false, times: true }, 1, (0..20).map(few).collect());
    let write_to = |room: usize| {
        let mut out = Full(room);
        let limits = GroupLimits { rows: 10, ..GroupLimits::default() };
        let mut writer = FileWriter::new(&mut out, vec![spec(1, None)])?.with_limits(limits);
        writer.push(&batch_of(1, &rows))?;
        writer.finish(1)
    };
    let bytes = write_to(1 << 20).unwrap().bytes as usize;
    assert!(write_to(bytes).is_ok());
    for room in (0..bytes).step_by(97).chain([bytes - 1]) {
        assert_eq!(write_to(room).unwrap_err().kind(), ErrorKind::Unavailable, "{room} of {bytes}");
    }
}

fn few(n: u64) -> Drawn {
    (n, n as u32, 0, Some(n as i64), None, Some(n.to_le_bytes().to_vec()), Vec::new())
}

#[test]
fn topics_can_be_found_again_in_a_file() {
    let (bytes, _) = write(vec![spec(4, None), spec(2, None)], GroupLimits::default(), &[]);
    let mut topics = Topics::default();
    for record in open(&bytes).topic_records() {
        topics.apply(&record).unwrap();
    }
    let topic = topics.by_name("topic-2").unwrap();
    assert_eq!((topic.id(), topic.config(), topics.all().len()), (TopicId(2), &spec(2, None).config, 2));
}

#[test]
fn what_is_not_asked_for_is_null_and_the_places_always_there() {
    let row = |n: u64| Row {
        position: 100 + n,
        append_time: 5,
        partition: 0,
        offset: n,
        timestamp: Some(7),
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        headers: b"\x01h\x00".to_vec(),
    };
    let rows: Vec<Row> = (0..10).map(row).collect();
    let (bytes, _) = write(vec![spec(1, None)], GroupLimits::default(), &[batch_of(1, &rows)]);
    let nothing = Projection { keys: false, values: false, headers: false, columns: None };
    let batch = open(&bytes).read(0, &nothing).unwrap();
    assert_eq!([&batch.keys, &batch.values, &batch.headers].map(|array| array.null_count()), [10; 3]);
    let expected = batch_of(1, &rows);
    assert_eq!((&batch.positions, &batch.append_times), (&expected.positions, &expected.append_times));
    assert_eq!((&batch.partitions, &batch.offsets), (&expected.partitions, &expected.offsets));
    assert_eq!(batch.timestamps, expected.timestamps);
}

#[test]
fn records_of_files_have_these_bytes() {
    let partitions =
        vec![PartitionExtent { partition: PartitionId(3), first_offset: Offset(4), last_offset: Offset(300) }];
    let extent = Extent {
        rows: 2,
        raw_bytes: 1000,
        first_position: Position(8),
        last_position: Position(9),
        first_append_time: AppendTime(-1),
        last_append_time: AppendTime(1),
        timestamps_ms: Some((-2, 70_000)),
        partitions,
    };
    let topics = vec![TopicExtent { topic: TopicId(5), file_bytes: 77, columns: Some(6), extent }];
    let record = FileRecord { number: 12, bytes: 1 << 20, xxh64: 0xabcd, topics };
    let expected = [
        &[1, 12, 252, 0, 0, 16, 0, 251, 0xcd, 0xab][..],
        &[1, 5, 77, 1, 6],
        &[2, 251, 0xe8, 3, 8, 9, 1, 2, 1, 3, 252, 0xe0, 0x22, 2, 0],
        &[1, 3, 4, 251, 0x2c, 1],
    ];
    assert_eq!(record.encode(), expected.concat());
    assert_eq!(FileRecord::decode(&record.encode()).as_ref(), Ok(&record));
    assert!(FileRecord::decode(&record.encode()[1..]).is_err());
    assert!(FileRecord::decode(&[record.encode(), vec![0]].concat()).is_err());
    assert_eq!((FileRecord::name_of(12), FileRecord::key_of(12)), ("0000000012.parquet".into(), "0000000012".into()));
}

#[test]
fn a_record_takes_no_more_than_it_says() {
    let most = |n: u32| PartitionExtent {
        partition: PartitionId(n),
        first_offset: Offset(u64::MAX),
        last_offset: Offset(u64::MAX),
    };
    let extent = Extent {
        rows: u64::MAX,
        raw_bytes: u64::MAX,
        first_position: Position(u64::MAX),
        last_position: Position(u64::MAX),
        first_append_time: AppendTime(i64::MIN),
        last_append_time: AppendTime(i64::MIN),
        timestamps_ms: Some((i64::MIN, i64::MIN)),
        partitions: (0..4096).map(most).collect(),
    };
    let topics = vec![TopicExtent { topic: TopicId(u32::MAX), file_bytes: u64::MAX, columns: Some(u64::MAX), extent }];
    let record = FileRecord { number: 0, bytes: 0, xxh64: 0, topics };
    let len = record.encode().len();
    assert!(len <= 4096 * 21 + 120, "{len}");
}
