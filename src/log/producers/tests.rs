//! Numbered batches: what is new, what is there already, and what is out of order.

use super::*;
use proptest::prelude::*;

/// What a test does to a table.
#[derive(Debug, Clone)]
enum Step {
    /// A batch for partitions 0 to 2, each with a base that is off by so much from what is next, and a number of records.
    Send {
        id: i64,
        epoch: i16,
        parts: Vec<(u32, i32, u32)>,
    },
    /// An earlier batch of that id, counted back from the last.
    Again {
        id: i64,
        back: usize,
    },
    Bump {
        id: i64,
    },
    /// So much append time passes.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1i64..4;
    let off = prop_oneof![6 => Just(0i32), 1 => -3i32..4];
    let parts = proptest::collection::btree_map(0u32..3, (off, 1u32..4), 1..3);
    let parts = parts.prop_map(|parts| parts.into_iter().map(|(p, (off, count))| (p, off, count)).collect());
    let send = (id.clone(), prop_oneof![8 => Just(0i16), 1 => -1i16..2], parts);
    prop_oneof![
        8 => send.prop_map(|(id, epoch, parts)| Step::Send { id, epoch, parts }),
        4 => (id.clone(), 0usize..8).prop_map(|(id, back)| Step::Again { id, back }),
        1 => id.prop_map(|id| Step::Bump { id }),
        1 => (0i64..60).prop_map(Step::Wait),
    ]
}

/// What is known of a producer, kept in full.
#[derive(Default, Clone)]
struct Model {
    epoch: i16,
    used: i64,
    /// Of the current epoch, by partition: base, records, offset of the first.
    batches: BTreeMap<u32, Vec<(i32, u32, u64)>>,
    /// Whole requests that were taken, of any epoch.
    sent: Vec<(i16, Vec<Sequence>)>,
}

impl Model {
    fn next(&self, partition: u32) -> i32 {
        let last = self.batches.get(&partition).and_then(|batches| batches.last());
        last.map_or(0, |(base, count, _)| advance(*base, *count))
    }

    fn judge(&self, epoch: i16, parts: &[Sequence]) -> &'static str {
        if epoch != self.epoch {
            return if epoch < self.epoch { "fenced" } else { "not given out" };
        }
        let kinds: BTreeSet<&str> = parts
            .iter()
            .map(|part| {
                if part.base == self.next(part.partition.0) {
                    return "new";
                }
                let kept =
                    self.batches.get(&part.partition.0).map_or(&[][..], |all| &all[all.len().saturating_sub(5)..]);
                if kept.iter().any(|(base, count, _)| (*base, *count) == (part.base, part.count)) {
                    "repeat"
                } else {
                    "gap"
                }
            })
            .collect();
        match kinds.into_iter().collect::<Vec<_>>()[..] {
            [one] => one,
            _ => "gap",
        }
    }
}

const EXPIRY_US: i64 = 100;

fn limits() -> ProducerLimits {
    ProducerLimits { expiry_us: EXPIRY_US, ..ProducerLimits::default() }
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::New => "new",
        Verdict::Repeat(_) => "repeat",
        Verdict::Refused(error) => ["OutOfOrder", "fenced", "not given out", "not known"]
            .into_iter()
            .find(|word| error.message().contains(word))
            .map_or("?", |word| if word == "OutOfOrder" { "gap" } else { word }),
    }
}

/// A frame of one producer's runs, as a directory says it.
fn entry(producer: ProducerId, parts: &[(Sequence, u64)]) -> TopicEntry {
    let run = |(part, base): &(Sequence, u64)| crate::log::frame::directory::Run {
        partition: part.partition,
        base: Offset(*base),
        count: part.count,
        producer: ProducerMark { id: producer.id, epoch: producer.epoch, sequence: part.base },
    };
    TopicEntry {
        topic: TopicId(1),
        records: parts.iter().map(|(part, _)| part.count).sum(),
        codec: crate::log::Codec::Plain,
        timestamps: None,
        body_at: 0,
        body_len: 0,
        plain_len: 0,
        body_crc: 0,
        runs: parts.iter().map(run).collect(),
    }
}

/// The table that is tested, the same made from frames, and what both must say.
struct Run {
    now: i64,
    frame: u64,
    ends: BTreeMap<u32, u64>,
    table: ProducerTable,
    models: BTreeMap<i64, Model>,
}

impl Run {
    fn new() -> Run {
        let mut table = ProducerTable::new(limits());
        for id in 1..4 {
            table.apply_meta(&record(ProducerId { id, epoch: 0 }, AppendTime(0)));
        }
        let models = (1..4).map(|id| (id, Model::default())).collect();
        Run { now: 0, frame: 1, ends: BTreeMap::new(), table, models }
    }

    fn send(&mut self, producer: ProducerId, parts: Vec<Sequence>) {
        let verdict = self.table.judge(producer, &parts);
        let Some(model) = self.models.get_mut(&producer.id) else {
            assert_eq!(kind(&verdict), "not known");
            return;
        };
        assert_eq!(kind(&verdict), model.judge(producer.epoch, &parts), "{producer} {parts:?}");
        if let Verdict::Repeat(Repeat(found)) = &verdict {
            for (part, place) in found {
                let known =
                    model.batches[&part.partition.0].iter().rev().find(|b| (b.0, b.1) == (part.base, part.count));
                assert_eq!(known.unwrap().2, place.base_offset.0);
            }
        }
        if !matches!(verdict, Verdict::New) {
            return;
        }
        let mut placed = Vec::new();
        for part in &parts {
            let end = self.ends.entry(part.partition.0).or_default();
            placed.push((*part, *end));
            model.batches.entry(part.partition.0).or_default().push((part.base, part.count, *end));
            *end += u64::from(part.count);
        }
        model.sent.push((producer.epoch, parts));
        model.used = self.now;
        let (frame, position) = (FrameSeq(self.frame), Position(self.frame * 10));
        self.table.apply(frame, position, AppendTime(self.now), &[entry(producer, &placed)], []);
        self.frame += 1;
        self.forget();
    }

    /// With each frame those go that were silent too long.
    fn forget(&mut self) {
        let now = self.now;
        self.models.retain(|_, model| model.used >= now - EXPIRY_US);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { id, epoch, parts } => {
                let model = self.models.get(&id).cloned().unwrap_or_default();
                let sequence = |(partition, off, count): (u32, i32, u32)| Sequence {
                    count,
                    ..Sequence::new(TopicId(1), PartitionId(partition), (model.next(partition) + off).max(0))
                };
                let parts = parts.into_iter().map(sequence).collect();
                self.send(ProducerId { id, epoch: model.epoch + epoch }, parts);
            }
            Step::Again { id, back } => {
                let model = self.models.get(&id).cloned().unwrap_or_default();
                if let Some((epoch, parts)) = model.sent.iter().rev().nth(back) {
                    self.send(ProducerId { id, epoch: *epoch }, parts.clone());
                }
            }
            Step::Bump { id } => {
                if let Some(model) = self.models.get_mut(&id) {
                    (model.epoch, model.used) = (model.epoch + 1, self.now);
                    model.batches.clear();
                    let meta = record(ProducerId { id, epoch: model.epoch }, AppendTime(self.now));
                    self.table.apply(FrameSeq(self.frame), Position(0), AppendTime(self.now), &[], [&meta]);
                    self.frame += 1;
                    self.forget();
                }
            }
            Step::Wait(us) => self.now += us,
        }
    }
}

proptest! {
    #[test]
    fn numbers_are_judged_as_the_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            let ids: Vec<i64> = run.table.list().iter().map(|info| info.producer.id).collect();
            prop_assert_eq!(&ids, &run.models.keys().copied().collect::<Vec<_>>());
            let again = ProducerTable::decode(&run.table.encode(), limits()).unwrap();
            prop_assert_eq!(again.list(), run.table.list());
        }
    }

    #[test]
    fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProducerTable::decode(&bytes, limits());
    }
}

#[test]
fn after_the_largest_number_comes_zero() {
    assert_eq!(advance(i32::MAX, 1), 0);
    assert_eq!(advance(i32::MAX - 1, 5), 3);
    assert_eq!(advance(0, 0), 0);
}

#[test]
fn beyond_the_limits_the_longest_silent_is_forgotten() {
    for limits in [
        ProducerLimits { ids: 3, ..ProducerLimits::default() },
        ProducerLimits { sequences: 3, ..ProducerLimits::default() },
    ] {
        let mut table = ProducerTable::new(limits);
        for (at, id) in (1..).zip([1, 2, 3, 1, 4, 5]) {
            let producer = ProducerId { id, epoch: 0 };
            let next = table.list().iter().find(|info| info.producer == producer).map_or(0, |info| info.next[0].2);
            let part = Sequence { count: 1, ..Sequence::new(TopicId(1), PartitionId(0), next) };
            table.apply(FrameSeq(1), Position(0), AppendTime(at), &[entry(producer, &[(part, 0)])], []);
        }
        let left: Vec<i64> = table.list().iter().map(|info| info.producer.id).collect();
        assert_eq!(left, [1, 4, 5]);
        assert_eq!(
            (table.take_forgotten(1), table.take_forgotten(10), table.take_forgotten(10)),
            (vec![3], vec![2], vec![])
        );
        let known = [(key(2), record(ProducerId { id: 2, epoch: 7 }, AppendTime(0)).value.unwrap())];
        table.complete(&known, AppendTime(7 * 24 * 3_600_000_000 + 1));
        assert_eq!(table.take_forgotten(10), [2], "what the catalog still has is to be taken out");
    }
}
