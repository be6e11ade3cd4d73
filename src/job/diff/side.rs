//! One side of a comparison: the rows of a topic, with revisions and deletions applied.

use super::DiffRequest;
use crate::error::{Error, Result};
use crate::format::{self, Decoder};
use crate::job::{Observer, check_wanted};
use crate::log::records::{LogBatch, ValueColumns, decode_headers};
use crate::log::{Log, MetaSpace, Topic, columns};
use crate::types::Position;
use arrow::array::{Array, AsArray, BinaryArray};
use arrow::datatypes::TimestampMillisecondType;
use std::collections::BTreeMap;

/// Times that are counted apart; then neighbours are counted together.
const TIMES_MAX: usize = 1 << 16;

/// Timestamps from `from` on and before `end`; rows without one are in the stretch that begins first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub from: i64,
    pub end: Option<i64>,
}

/// Values of rows by timestamp and key; a value may be null.
pub(super) type Rows = BTreeMap<Identity, Vec<Option<Vec<u8>>>>;

/// A revision and its value.
type Revised = (u64, Option<Vec<u8>>);

/// What a row is known by: timestamp and key.
type Identity = (Option<i64>, Option<Vec<u8>>);

/// A topic that a job has written.
pub(super) struct Side<'a> {
    log: &'a Log,
    observer: &'a dyn Observer,
    pub topic: Topic,
    columns: ValueColumns,
    /// Start of the window asked for, and what reads that column.
    window: Option<(i64, Box<dyn Decoder>)>,
    key: Option<String>,
}

/// What a record does to the row that it is about.
enum Effect {
    Insert,
    Update,
    Delete,
}

impl<'a> Side<'a> {
    pub fn new(log: &'a Log, topic: &str, request: &DiffRequest, observer: &'a dyn Observer) -> Result<Side<'a>> {
        let topic = log.topic(topic)?;
        let declared = log.meta(MetaSpace::Schema, topic.name()).ok_or_else(|| {
            Error::input(format!("nothing is known about the columns of topic '{}'", topic.name()))
                .with_hint("only topics that a job reads or writes can be compared")
        })?;
        let columns = columns::decode(&declared).map_err(|e| {
            Error::damage(format!("the columns of topic '{}' do not decode", topic.name())).with_source(e)
        })?;
        let window = request.window_start_ms.map(|start| Ok((start, start_decoder(&topic, &columns)?)));
        Ok(Side { log, observer, topic, window: window.transpose()?, columns, key: request.key.clone() })
    }

    pub fn columns(&self) -> &ValueColumns {
        &self.columns
    }

    fn each(&self, mut show: impl FnMut(&LogBatch, usize) -> Result<()>) -> Result<()> {
        let mut reader = self.log.reader(&[self.topic.id()], Position(0));
        let end = self.log.durable_end();
        while let Some(batch) = reader.next(end)? {
            check_wanted(self.observer)?;
            let in_window = match &self.window {
                Some((start, decoder)) => Some(rows_with_start(decoder.as_ref(), &batch.values, *start)),
                None => None,
            };
            for row in 0..batch.len() {
                let is_asked = in_window.as_ref().is_none_or(|rows| rows[row])
                    && self
                        .key
                        .as_ref()
                        .is_none_or(|key| is_key(key, batch.keys.is_valid(row).then(|| batch.keys.value(row))));
                if is_asked {
                    show(&batch, row)?;
                }
            }
        }
        Ok(())
    }

    /// Records by timestamp, roughly.
    pub fn rows_by_time(&self) -> Result<BTreeMap<i64, u64>> {
        let mut rows: BTreeMap<i64, u64> = BTreeMap::new();
        self.each(|batch, row| {
            *rows.entry(batch.timestamp_ms(row).unwrap_or(i64::MIN)).or_default() += 1;
            if rows.len() > TIMES_MAX {
                let before = std::mem::take(&mut rows);
                let mut first = i64::MIN;
                for (number, (time, count)) in before.into_iter().enumerate() {
                    first = if number % 2 == 0 { time } else { first };
                    *rows.entry(first).or_default() += count;
                }
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// The rows of a stretch, as the last revisions leave them.
    pub fn rows(&self, stretch: Stretch) -> Result<Rows> {
        let mut rows: BTreeMap<Identity, Vec<Revised>> = BTreeMap::new();
        self.each(|batch, row| {
            let time = batch.timestamp_ms(row);
            let at = time.unwrap_or(i64::MIN);
            if at < stretch.from || stretch.end.is_some_and(|end| at >= end) {
                return Ok(());
            }
            let bytes = |column: &BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
            let (revision, effect) = effect(batch, row)?;
            let list = rows.entry((time, bytes(&batch.keys))).or_default();
            let before = match effect {
                Effect::Insert => None,
                Effect::Update => revision.checked_sub(1),
                Effect::Delete => Some(revision),
            };
            let place = before.and_then(|before| list.iter().position(|(known, _)| *known == before));
            match (effect, place) {
                (Effect::Delete, Some(place)) => _ = list.remove(place),
                (Effect::Delete, None) => {}
                (_, Some(place)) => list[place] = (revision, bytes(&batch.values)),
                (_, None) => list.push((revision, bytes(&batch.values))),
            }
            Ok(())
        })?;
        let rows = rows.into_iter().filter(|(_, list)| !list.is_empty());
        Ok(rows.map(|(place, list)| (place, list.into_iter().map(|(_, value)| value).collect())).collect())
    }
}

/// Revision and effect of a record, from its headers; without them it is one more row.
fn effect(batch: &LogBatch, row: usize) -> Result<(u64, Effect)> {
    let headers = if batch.headers.is_valid(row) { batch.headers.value(row) } else { &[] };
    let headers =
        decode_headers(headers).map_err(|e| Error::damage("the headers of an output record").with_source(e))?;
    let text = |name: &str| {
        let value = headers.iter().find(|(other, _)| *other == name).and_then(|(_, value)| *value);
        value.and_then(|value| std::str::from_utf8(value).ok())
    };
    let revision = text("revision").and_then(|text| text.parse().ok()).unwrap_or(0);
    let effect = match text("op") {
        Some("update") => Effect::Update,
        Some("delete") => Effect::Delete,
        _ => Effect::Insert,
    };
    Ok((revision, effect))
}

/// Whether a record's key is the one asked for: its text, or the values of its JSON object, separated by commas.
fn is_key(asked: &str, key: Option<&[u8]>) -> bool {
    let Some(key) = key else { return false };
    let plain = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parsed = || serde_json::from_slice::<serde_json::Value>(key).ok();
    let is_object = |object: &serde_json::Map<String, serde_json::Value>| {
        object.values().map(plain).collect::<Vec<_>>().join(",") == asked
    };
    key == asked.as_bytes()
        || parsed().is_some_and(|value| {
            value.as_object().is_some_and(is_object)
                || serde_json::from_str(asked).is_ok_and(|asked: serde_json::Value| asked == value)
        })
}

fn start_decoder(topic: &Topic, columns: &ValueColumns) -> Result<Box<dyn Decoder>> {
    let place = columns.declared.index_of("window_start").map_err(|_| {
        Error::input(format!("topic '{}' has no column window_start", topic.name()))
            .with_hint("leave --window out, or write the start of the window into the output")
    })?;
    format::decoder(&columns.format, &columns.declared, &[place])
}

fn rows_with_start(decoder: &dyn Decoder, values: &BinaryArray, start: i64) -> Vec<bool> {
    let decoded = decoder.decode(values);
    let mut found = vec![false; values.len()];
    let Some(times) = decoded.batch.column(0).as_primitive_opt::<TimestampMillisecondType>() else { return found };
    for (at, time) in times.iter().enumerate() {
        let row = decoded.rows.as_ref().map_or(at, |rows| rows[at] as usize);
        found[row] = time == Some(start);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_as_it_is_or_by_its_values() {
        let key = Some(&b"{\"page\":\"/a\",\"n\":5}"[..]);
        for asked in ["{\"page\":\"/a\",\"n\":5}", "{\"n\": 5, \"page\": \"/a\"}", "/a,5"] {
            assert!(is_key(asked, key), "{asked}");
        }
        assert!(is_key("a,b", Some(b"a,b")) && !is_key("a", Some(b"a,b")) && !is_key("a", None));
    }
}
