//! Which columns a history file has: first the log's own, whose names begin with an underscore, then the decoded ones.
//!
//! | column | type | |
//! |---|---|---|
//! | `_topic` | string | only in files of several topics |
//! | `_position` | u64 | place in the order of the whole log |
//! | `_partition` | i32 | |
//! | `_offset` | i64 | place in the partition |
//! | `_append_time` | timestamp, us, UTC | |
//! | `_timestamp` | timestamp, ms, UTC | null: none |
//! | `_key` | bytes | null is not empty |
//! | `_headers` | bytes | see [`encode_headers`](crate::log::records::encode_headers); empty: none |
//! | `_value` | bytes | null is not empty |
//! | `_decoded` | boolean | only if there are decoded columns; false: this row's value did not decode; null: its topic has no columns |

use crate::codec::{put_block, xxh64};
use crate::format::{FormatSpec, TimestampFormat};
use crate::log::records::ValueColumns;
use crate::log::topic::TopicConfig;
use crate::types::TopicId;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, encode_arrow_schema, parquet_to_arrow_schema};
use parquet::file::metadata::KeyValue;
use std::sync::Arc;

/// A topic that a history file holds records of.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its number.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// Its settings.
    pub config: TopicConfig,
    /// How its values become columns, if they do. All declared columns are stored, whatever is used.
    pub columns: Option<Arc<ValueColumns>>,
}

/// The log's own columns, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Own {
    Position,
    Partition,
    Offset,
    AppendTime,
    Timestamp,
    Key,
    Headers,
    Value,
    Decoded,
}

const TOPIC: &str = "_topic";

impl Own {
    pub(super) const ALL: [Own; 9] = [
        Own::Position,
        Own::Partition,
        Own::Offset,
        Own::AppendTime,
        Own::Timestamp,
        Own::Key,
        Own::Headers,
        Own::Value,
        Own::Decoded,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Own::Position => "_position",
            Own::Partition => "_partition",
            Own::Offset => "_offset",
            Own::AppendTime => "_append_time",
            Own::Timestamp => "_timestamp",
            Own::Key => "_key",
            Own::Headers => "_headers",
            Own::Value => "_value",
            Own::Decoded => "_decoded",
        }
    }

    fn field(self) -> Field {
        let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
        let (data_type, nullable) = match self {
            Own::Position => (DataType::UInt64, false),
            Own::Partition => (DataType::Int32, false),
            Own::Offset => (DataType::Int64, false),
            Own::AppendTime => (utc(TimeUnit::Microsecond), false),
            Own::Timestamp => (utc(TimeUnit::Millisecond), true),
            Own::Key | Own::Value => (DataType::Binary, true),
            Own::Headers => (DataType::Binary, false),
            Own::Decoded => (DataType::Boolean, true),
        };
        Field::new(self.name(), data_type, nullable)
    }
}

/// The decoded columns of one topic, as a file's index has them.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct StoredColumns {
    /// Stands for the format and its options.
    pub format: u64,
    /// Stands for the format and all declared columns.
    pub fingerprint: u64,
    /// True if a value's columns are decoded independently of each other, by name.
    pub by_name: bool,
    /// The declared columns, in order.
    pub columns: Vec<StoredColumn>,
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct StoredColumn {
    pub name: String,
    /// As declared; in the file it is always nullable.
    pub nullable: bool,
    /// Its place among the columns of the file; `None` if it was left out: its name is taken or Parquet has no such type.
    pub place: Option<u32>,
}

impl StoredColumns {
    /// The places in the file's `schema` of the columns used; `None` if values would decode differently.
    pub(super) fn fit(&self, schema: &Schema, wanted: &ValueColumns) -> Option<Vec<usize>> {
        let fits = if self.by_name {
            self.format == format_fingerprint(&wanted.format)
        } else {
            self.fingerprint == fingerprint(wanted)
        };
        let place = |used: &usize| {
            let field = wanted.declared.fields().get(*used)?;
            let stored = self.columns.iter().find(|column| column.name == *field.name())?;
            let place = stored.place? as usize;
            let same = schema.fields().get(place)?.data_type() == field.data_type();
            (same && stored.nullable == field.is_nullable()).then_some(place)
        };
        if fits { wanted.used.iter().map(place).collect() } else { None }
    }
}

/// The columns of a file.
#[derive(Debug)]
pub(super) struct FileSchema {
    /// All columns.
    pub arrow: SchemaRef,
    /// The decoded columns of each topic, in the order of the topics given.
    pub topics: Vec<Option<StoredColumns>>,
}

/// Decoded columns of a file at most: each costs every row group some hundred bytes, whatever topic it is of.
const DECODED_MAX: usize = 1024;

impl FileSchema {
    /// The columns of a file of these topics. Topics share a decoded column if its name and type are the same.
    pub(super) fn new(topics: &[TopicSpec]) -> FileSchema {
        let decodes = topics.iter().any(|topic| topic.columns.is_some());
        let mut fields: Vec<FieldRef> = Vec::new();
        if topics.len() > 1 {
            fields.push(Arc::new(Field::new(TOPIC, DataType::Utf8, false)));
        }
        fields.extend(Own::ALL.into_iter().filter(|own| decodes || *own != Own::Decoded).map(|own| own.field().into()));
        let own = fields.len();
        let topics = topics.iter().map(|topic| topic.columns.as_ref().map(|columns| stored(columns, own, &mut fields)));
        let topics = topics.collect();
        FileSchema { arrow: Arc::new(Schema::new(fields)), topics }
    }
}

/// The place of one of the log's own columns in a file.
pub(super) fn place_of(schema: &Schema, own: Own) -> usize {
    own as usize + usize::from(is_shared(schema))
}

/// True for a file of several topics.
pub(super) fn is_shared(schema: &Schema) -> bool {
    schema.fields().first().is_some_and(|field| field.name() == TOPIC)
}

/// Adds the columns of a topic to the fields of a file, of which the first `own` are the log's.
fn stored(columns: &ValueColumns, own: usize, fields: &mut Vec<FieldRef>) -> StoredColumns {
    let mut place = |field: &FieldRef| {
        let taken = |place: &usize| fields.get(*place).is_some_and(|other| other.name() == field.name());
        if let Some(place) = (0..fields.len()).find(taken) {
            let same = fields.get(place).is_some_and(|other| other.data_type() == field.data_type());
            return (place >= own && same).then_some(place);
        }
        if fields.len() - own >= DECODED_MAX || field.name() == TOPIC || !comes_back(field) {
            return None;
        }
        fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
        Some(fields.len() - 1)
    };
    let column = |field: &FieldRef| StoredColumn {
        name: field.name().clone(),
        nullable: field.is_nullable(),
        place: place(field).and_then(|place| u32::try_from(place).ok()),
    };
    StoredColumns {
        format: format_fingerprint(&columns.format),
        fingerprint: fingerprint(columns),
        by_name: matches!(columns.format, FormatSpec::Json(_)),
        columns: columns.declared.fields().iter().map(column).collect(),
    }
}

/// True if a column of this type is of the same type when it is read again.
fn comes_back(field: &FieldRef) -> bool {
    let schema = Schema::new(vec![Field::new(field.name(), field.data_type().clone(), true)]);
    let Ok(parquet) = ArrowSchemaConverter::new().convert(&schema) else { return false };
    let hint = vec![KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema))];
    let back = parquet_to_arrow_schema(&parquet, Some(&hint));
    is_known(field.data_type()) && back.is_ok_and(|back| back.fields() == schema.fields())
}

/// The types that formats decode into and of which tests show that every value comes back.
fn is_known(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_known(field.data_type())),
        DataType::List(item) => is_known(item.data_type()),
        DataType::Map(entries, _) => is_known(entries.data_type()),
        DataType::Decimal128(_, scale) => *scale >= 0,
        _ => is_plain(data_type),
    }
}

fn is_plain(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Time32(TimeUnit::Millisecond)
            | DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _)
    )
}

/// A number that stands for a format with its options and all declared columns: equal where values decode alike.
pub fn fingerprint(columns: &ValueColumns) -> u64 {
    let mut text = Vec::new();
    for field in columns.declared.fields() {
        put_field(&mut text, field);
    }
    xxh64(&text, format_fingerprint(&columns.format))
}

fn format_fingerprint(format: &FormatSpec) -> u64 {
    let mut text = Vec::new();
    match format {
        FormatSpec::Json(options) => {
            let iso = options.timestamps == TimestampFormat::Iso8601;
            text.extend_from_slice(b"json");
            text.extend([iso, options.fail_on_missing_field, options.decimal_as_plain_number].map(u8::from));
        }
        FormatSpec::Csv(options) => {
            text.extend_from_slice(b"csv");
            text.push(options.delimiter);
            put_block(&mut text, options.quote.as_slice());
            text.push(u8::from(options.null_literal.is_some()));
            put_block(&mut text, options.null_literal.as_deref().unwrap_or_default().as_bytes());
            text.push(u8::from(options.decimal_as_plain_number));
        }
        FormatSpec::Raw => text.extend_from_slice(b"raw"),
    }
    xxh64(&text, 0)
}

fn put_field(text: &mut Vec<u8>, field: &Field) {
    put_block(text, field.name().as_bytes());
    text.push(u8::from(field.is_nullable()));
    let nested: &[FieldRef] = match field.data_type() {
        DataType::Struct(fields) => fields,
        DataType::List(inner) | DataType::Map(inner, _) => std::slice::from_ref(inner),
        _ => &[],
    };
    put_block(text, type_text(field.data_type()).as_bytes());
    put_block(text, &nested.len().to_le_bytes());
    nested.iter().for_each(|field| put_field(text, field));
}

/// Written down in files, so it is spelled out here and not left to a library.
fn type_text(data_type: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int8 => "i8".to_owned(),
        DataType::Int16 => "i16".to_owned(),
        DataType::Int32 => "i32".to_owned(),
        DataType::Int64 => "i64".to_owned(),
        DataType::Float32 => "f32".to_owned(),
        DataType::Float64 => "f64".to_owned(),
        DataType::Utf8 => "text".to_owned(),
        DataType::Binary => "bytes".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal {precision} {scale}"),
        DataType::Time32(time_unit) => format!("time {}", unit(time_unit)),
        DataType::Timestamp(time_unit, None) => format!("timestamp {}", unit(time_unit)),
        DataType::Timestamp(time_unit, Some(zone)) => format!("timestamp {} {zone}", unit(time_unit)),
        DataType::Struct(_) => "row".to_owned(),
        DataType::List(_) => "list".to_owned(),
        DataType::Map(_, _) => "map".to_owned(),
        other => format!("other {other}"),
    }
}
