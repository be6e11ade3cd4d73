//! Which parts of its topics' records a job needs, and reading whole the few that it needs whole.

use crate::engine::plan::{MetadataColumn, SourcePlan};
use crate::error::{Error, Result};
use crate::format::FormatSpec;
use crate::log::records::{LogBatch, Partitioning, Projection, RecordColumns, ValueColumns};
use crate::log::{Log, Reader};
use crate::types::{PartitionId, Position, TopicId};
use arrow::array::{Array, BinaryArray};
use std::sync::Arc;

/// What the sources that read one topic use of its records. Late and rejected records, which are needed whole, are few and read
/// again ([`originals`]).
pub(super) fn projection(sources: &[&SourcePlan]) -> Projection {
    let columns = columns(sources);
    let keys = sources.iter().any(|source| source.metadata.contains(&MetadataColumn::Key));
    Projection { keys, values: columns.is_none(), headers: false, columns: columns.map(Arc::new) }
}

/// The columns that all these sources use; `None` if they take the values differently, or as they are.
fn columns(sources: &[&SourcePlan]) -> Option<ValueColumns> {
    let (first, others) = sources.split_first()?;
    let is_same = |source: &&SourcePlan| source.format == first.format && source.declared == first.declared;
    if first.format == FormatSpec::Raw || !others.iter().all(is_same) {
        return None;
    }
    let mut used: Vec<usize> = sources.iter().flat_map(|source| source.used.iter().copied()).collect();
    used.sort_unstable();
    used.dedup();
    Some(ValueColumns { format: first.format.clone(), declared: Arc::clone(&first.declared), used })
}

/// A reader of all topics of a job's sources, of the parts that they use.
pub(super) fn reader(log: &Log, topics: &[TopicId], sources: &[SourcePlan], from: Position) -> Reader {
    let mut reader = log.reader(topics, from);
    for topic in topics {
        let of_topic: Vec<&SourcePlan> =
            topics.iter().zip(sources).filter(|(other, _)| *other == topic).map(|(_, source)| source).collect();
        reader = reader.with_projection(*topic, projection(&of_topic));
    }
    reader
}

/// The records of a topic at these positions, ascending: one row for each.
pub(super) fn originals(log: &Log, topic: TopicId, positions: &[u64]) -> Result<RecordColumns> {
    let mut rows = RecordColumns::default();
    each_record(log, topic, positions, |batch, row| {
        push_record(batch, row, &mut rows);
        Ok(())
    })?;
    Ok(rows)
}

/// Shows each record of a topic at these positions, ascending.
pub(super) fn each_record(
    log: &Log,
    topic: TopicId,
    positions: &[u64],
    mut show: impl FnMut(&LogBatch, usize) -> Result<()>,
) -> Result<()> {
    let Some(last) = positions.last() else { return Ok(()) };
    let mut shown = 0;
    let mut reader = log.reader_of(topic, positions);
    while let Some(batch) = reader.next(Position(last + 1))? {
        (0..batch.len()).try_for_each(|row| show(&batch, row))?;
        shown += batch.len();
    }
    if shown < positions.len() {
        let from = positions.first().copied().unwrap_or_default();
        return Err(Error::internal(format!("a record between positions {from} and {last} cannot be read again")));
    }
    Ok(())
}

/// Adds a record of a batch.
pub(super) fn push_record(batch: &LogBatch, row: usize, rows: &mut RecordColumns) {
    let bytes = |column: &BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
    let (key, value) = (bytes(&batch.keys), bytes(&batch.values));
    let headers = bytes(&batch.headers).unwrap_or_default();
    let to = Partitioning::Fixed(PartitionId(batch.partitions[row]));
    rows.push_encoded(to, batch.timestamp_ms(row), key.as_deref(), value.as_deref(), &headers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::JobPlan;
    use crate::env::Env;
    use crate::log::records::Record;
    use crate::log::{AppendBatch, LogOptions, TopicConfig};

    /// Tables `a` and `b` over one topic, both read.
    fn plan(a: (&str, &str, &str), b: (&str, &str, &str)) -> JobPlan {
        let table = |name: &str, (columns, format, _): (&str, &str, &str)| {
            format!(
                "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kappa', 'topic' = 't', 'format' = '{format}');\n"
            )
        };
        let text = format!("{}{}SELECT {} FROM a; SELECT {} FROM b;", table("a", a), table("b", b), a.2, b.2);
        crate::sql::plan("job.sql", &text).expect("a plan")
    }

    fn projected(a: (&str, &str, &str), b: (&str, &str, &str)) -> (bool, bool, Option<Vec<usize>>) {
        let plan = plan(a, b);
        let Projection { keys, values, columns, headers } = projection(&plan.sources.iter().collect::<Vec<_>>());
        assert!(!headers, "no column holds headers");
        (keys, values, columns.map(|columns| columns.used.clone()))
    }

    #[test]
    fn sources_of_one_topic_get_what_any_of_them_uses() {
        let three = "x INT, y INT, z INT";
        assert_eq!(projected((three, "json", "z"), (three, "json", "x")), (false, false, Some(vec![0, 2])));
        assert_eq!(projected((three, "json", "z"), ("x INT", "json", "x")), (false, true, None));
        assert_eq!(projected((three, "json", "z"), (three, "csv", "x")), (false, true, None));
        let raw = ("x STRING", "raw", "x");
        assert_eq!(projected(raw, raw), (false, true, None));
        let keyed = ("x INT, k BYTES METADATA FROM 'key'", "json", "k");
        assert_eq!(projected(keyed, ("x INT", "json", "x")), (true, false, Some(vec![0])));
    }

    #[test]
    fn records_are_read_again_by_position() {
        let (env, _sim) = Env::sim(1);
        let log = Log::open(&env, "/data".as_ref(), LogOptions { frame_bytes: 256, ..LogOptions::default() });
        let log = log.expect("a log");
        let topics = ["t", "other"].map(|name| log.create_topic(name, TopicConfig::default()).expect("a topic").id());
        for n in 0..200_u64 {
            let mut rows = RecordColumns::default();
            let (key, value) = (n.to_string(), format!("value {n}"));
            let record = Record {
                timestamp_ms: (n % 3 > 0).then_some(n as i64),
                key: (n % 5 > 0).then_some(key.as_bytes()),
                value: (n % 7 > 0).then_some(value.as_bytes()),
                headers: &[("n", Some(key.as_bytes()))],
            };
            (0..1 + n % 4).for_each(|_| rows.push(Partitioning::ByKey, &record));
            let pending = log.append(AppendBatch::records(topics[usize::from(n % 3 == 0)], rows)).expect("queued");
            if n % 50 == 49 {
                pending.wait().expect("written");
            }
        }
        let mut whole = RecordColumns::default();
        let mut positions = Vec::new();
        let mut reader = log.reader(&topics[..1], Position(0));
        while let Some(batch) = reader.next(log.durable_end()).expect("readable") {
            positions.extend_from_slice(&batch.positions);
            (0..batch.len()).for_each(|row| push_record(&batch, row, &mut whole));
        }
        assert!(positions.len() > 200 && whole.len() == positions.len());
        for step in [1, 2, 17, 1000] {
            let wanted: Vec<usize> = (0..positions.len()).step_by(step).collect();
            let again = originals(&log, topics[0], &wanted.iter().map(|row| positions[*row]).collect::<Vec<_>>());
            let again = again.expect("readable");
            assert_eq!(again.len(), wanted.len());
            for (row, at) in wanted.into_iter().enumerate() {
                assert_eq!(again.keys.get(row), whole.keys.get(at));
                assert_eq!(again.values.get(row), whole.values.get(at));
                assert_eq!(again.headers.get(row), whole.headers.get(at));
                assert_eq!(again.timestamps_ms[row], whole.timestamps_ms[at]);
            }
        }
        assert!(originals(&log, topics[0], &[log.durable_end().0]).is_err());
    }
}
