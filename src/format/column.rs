//! Columns under construction: each takes one text after the other and makes a typed value of it.
//!
//! Every `push_*` appends exactly one element, also when it fails (a filler that the type allows), so that the columns of a
//! batch stay equally long; the caller filters out the rows that failed.

use super::strings::Strings;
use super::text::{self, NotDecimal, ShortMonth, TimestampLayout, shortened};
use crate::error::{Error, Result};
use arrow::array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, NullBufferBuilder, PrimitiveBuilder,
    Time32MillisecondBuilder,
};
use arrow::array::{Array, ArrayRef, ListArray, MapArray, StructArray, make_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
};
use std::sync::Arc;

/// Why a value is not one of its column: the column path and what is wrong.
pub(super) type Reason = String;

/// What differs between the texts of the formats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts {
    /// Between date and time of a timestamp.
    pub separator: u8,
    /// Dates like 30 February.
    pub short_month: ShortMonth,
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    /// Name of the field.
    pub name: String,
    pub field: FieldRef,
    pub values: Values,
}

/// The values by type.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal { builder: Decimal128Builder, precision: u8, scale: i8 },
    Text(Strings),
    Bytes(BinaryBuilder),
    Date { builder: Date32Builder, rule: ShortMonth },
    Time(Time32MillisecondBuilder),
    Timestamp { builder: PrimitiveBuilder<Int64Type>, unit: TimeUnit, layout: TimestampLayout },
    Struct { children: Vec<Column>, fields: Fields, valid: NullBufferBuilder, len: usize },
    List { child: Box<Column>, offsets: Vec<i32>, valid: NullBufferBuilder },
    Map { key: Box<Column>, value: Box<Column>, entries: FieldRef, offsets: Vec<i32>, valid: NullBufferBuilder },
}

impl Column {
    /// A column for `field`, with room for `capacity` values.
    pub(super) fn new(field: &FieldRef, texts: Texts, capacity: usize) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(capacity)),
            DataType::Int8 => Values::Int8(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Int16 => Values::Int16(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Int32 => Values::Int32(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Int64 => Values::Int64(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Float32 => Values::Float32(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Float64 => Values::Float64(PrimitiveBuilder::with_capacity(capacity)),
            DataType::Decimal128(precision, scale) if *scale >= 0 => Values::Decimal {
                builder: Decimal128Builder::with_capacity(capacity).with_data_type(field.data_type().clone()),
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8 => Values::Text(Strings::new(capacity)),
            DataType::Binary => Values::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 8)),
            DataType::Date32 => {
                Values::Date { builder: Date32Builder::with_capacity(capacity), rule: texts.short_month }
            }
            DataType::Time32(TimeUnit::Millisecond) => Values::Time(Time32MillisecondBuilder::with_capacity(capacity)),
            DataType::Timestamp(unit, zone) => Values::Timestamp {
                builder: PrimitiveBuilder::with_capacity(capacity),
                unit: *unit,
                layout: TimestampLayout { separator: texts.separator, zone: zone.is_some() },
            },
            DataType::Struct(fields) => Values::Struct {
                children: fields.iter().map(|field| Column::new(field, texts, capacity)).collect::<Result<_>>()?,
                fields: fields.clone(),
                valid: NullBufferBuilder::new(capacity),
                len: 0,
            },
            DataType::List(child) => Values::List {
                child: Box::new(Column::new(child, texts, capacity)?),
                offsets: vec![0],
                valid: NullBufferBuilder::new(capacity),
            },
            DataType::Map(entries, _) => Self::map(field, entries, texts, capacity)?,
            _ => return Err(unsupported(field)),
        };
        Ok(Column { name: field.name().clone(), field: field.clone(), values })
    }

    fn map(field: &FieldRef, entries: &FieldRef, texts: Texts, capacity: usize) -> Result<Values> {
        let DataType::Struct(pair) = entries.data_type() else { return Err(unsupported(field)) };
        let [key, value] = pair.as_ref() else { return Err(unsupported(field)) };
        if key.data_type() != &DataType::Utf8 {
            return Err(unsupported(field));
        }
        Ok(Values::Map {
            key: Box::new(Column::new(key, texts, capacity)?),
            value: Box::new(Column::new(value, texts, capacity)?),
            entries: entries.clone(),
            offsets: vec![0],
            valid: NullBufferBuilder::new(capacity),
        })
    }

    /// What is wrong with `value` of this column.
    pub(super) fn bad(&self, value: &str) -> Reason {
        format!("column '{}': {} is not a {}", self.name, shortened(value), type_name(self.field.data_type()))
    }

    /// Appends NULL; a column declared NOT NULL refuses it.
    #[inline]
    pub(super) fn push_null(&mut self) -> Result<(), Reason> {
        if !self.field.is_nullable() {
            self.push_filler();
            return Err(format!("column '{}': NULL in a column declared NOT NULL", self.name));
        }
        match &mut self.values {
            Values::Boolean(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Int16(builder) => builder.append_null(),
            Values::Int32(builder) => builder.append_null(),
            Values::Int64(builder) | Values::Timestamp { builder, .. } => builder.append_null(),
            Values::Float32(builder) => builder.append_null(),
            Values::Float64(builder) => builder.append_null(),
            Values::Decimal { builder, .. } => builder.append_null(),
            Values::Text(strings) => strings.push_null(),
            Values::Bytes(builder) => builder.append_null(),
            Values::Date { builder, .. } => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Struct { children, valid, len, .. } => {
                children.iter_mut().for_each(Column::push_filler);
                valid.append_null();
                *len += 1;
            }
            Values::List { offsets, valid, .. } | Values::Map { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.append_null();
            }
        }
        Ok(())
    }

    /// Appends an element that nobody will see.
    pub(super) fn push_filler(&mut self) {
        if self.field.is_nullable() {
            // Cannot fail: the column takes NULL.
            let _ = self.push_null();
            return;
        }
        match &mut self.values {
            Values::Boolean(builder) => builder.append_value(false),
            Values::Int8(builder) => builder.append_value(0),
            Values::Int16(builder) => builder.append_value(0),
            Values::Int32(builder) => builder.append_value(0),
            Values::Int64(builder) | Values::Timestamp { builder, .. } => builder.append_value(0),
            Values::Float32(builder) => builder.append_value(0.0),
            Values::Float64(builder) => builder.append_value(0.0),
            Values::Decimal { builder, .. } => builder.append_value(0),
            Values::Text(strings) => strings.push(""),
            Values::Bytes(builder) => builder.append_value([]),
            Values::Date { builder, .. } => builder.append_value(0),
            Values::Time(builder) => builder.append_value(0),
            Values::Struct { children, valid, len, .. } => {
                children.iter_mut().for_each(Column::push_filler);
                valid.append_non_null();
                *len += 1;
            }
            Values::List { offsets, valid, .. } | Values::Map { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.append_non_null();
            }
        }
    }

    /// Appends the value that `text` says, as Flink converts texts: white space around numbers and booleans does not count,
    /// every text but `true` (in any case) is false, a decimal with too many digits is NULL.
    #[inline]
    pub(super) fn push_text(&mut self, text: &str) -> Result<(), Reason> {
        match self.try_push(text) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refuse(text)),
            Err(NotDecimal::Overflow) => self.push_null(),
            Err(NotDecimal::Malformed) => Err(self.refuse(text)),
        }
    }

    /// Appends the value of `text` unless it is not one of the type.
    #[inline]
    fn try_push(&mut self, text: &str) -> Result<bool, NotDecimal> {
        macro_rules! push {
            ($builder:expr, $value:expr) => {
                if let Some(value) = $value {
                    $builder.append_value(value);
                    return Ok(true);
                }
            };
        }
        match &mut self.values {
            Values::Text(strings) => {
                strings.push(text);
                return Ok(true);
            }
            Values::Boolean(builder) => push!(builder, Some(text.trim().eq_ignore_ascii_case("true"))),
            Values::Int8(builder) => push!(builder, text.trim().parse().ok()),
            Values::Int16(builder) => push!(builder, text.trim().parse().ok()),
            Values::Int32(builder) => push!(builder, text.trim().parse().ok()),
            Values::Int64(builder) => push!(builder, text.trim().parse().ok()),
            Values::Float32(builder) => push!(builder, text::parse_f32(text.trim())),
            Values::Float64(builder) => push!(builder, text::parse_f64(text.trim())),
            Values::Decimal { builder, precision, scale } => {
                push!(builder, Some(text::parse_decimal(text.trim(), *precision, *scale)?));
            }
            Values::Bytes(builder) => push!(builder, text::parse_base64(text)),
            Values::Date { builder, rule } => push!(builder, text::parse_date(text.as_bytes(), *rule)),
            Values::Time(builder) => push!(builder, text::parse_time_ms(text.as_bytes())),
            Values::Timestamp { builder, unit, layout } => {
                let time = text::parse_timestamp(text.as_bytes(), *layout);
                push!(builder, time.and_then(|time| time.to_unit(*unit)));
            }
            Values::Struct { .. } | Values::List { .. } | Values::Map { .. } => (),
        }
        Ok(false)
    }

    /// Appends bytes as they are to a BYTES column.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        match &mut self.values {
            Values::Bytes(builder) => builder.append_value(bytes),
            _ => self.push_filler(),
        }
    }

    /// Appends a filler for `value`, which is not one of the column.
    #[cold]
    pub(super) fn refuse(&mut self, value: &str) -> Reason {
        self.push_filler();
        self.bad(value)
    }

    /// The array, leaving the column empty.
    pub(super) fn finish(&mut self) -> ArrayRef {
        // Children have as many elements as the offsets and lengths say, and no NULL where the type has none.
        const WHOLE: &str = "every element was pushed whole";
        match &mut self.values {
            Values::Boolean(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Int16(builder) => Arc::new(builder.finish()),
            Values::Int32(builder) => Arc::new(builder.finish()),
            Values::Int64(builder) => Arc::new(builder.finish()),
            Values::Float32(builder) => Arc::new(builder.finish()),
            Values::Float64(builder) => Arc::new(builder.finish()),
            Values::Decimal { builder, .. } => Arc::new(builder.finish()),
            Values::Text(strings) => Arc::new(strings.finish()),
            Values::Bytes(builder) => Arc::new(builder.finish()),
            Values::Date { builder, .. } => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Timestamp { builder, .. } => {
                let data = builder.finish().into_data().into_builder().data_type(self.field.data_type().clone());
                make_array(data.build().expect("every timestamp type is 64 bits"))
            }
            Values::Struct { children, fields, valid, len } => {
                let arrays = children.iter_mut().map(Column::finish).collect();
                let len = std::mem::take(len);
                Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, valid.finish(), len).expect(WHOLE))
            }
            Values::List { child, offsets, valid } => {
                let (field, values) = (child.field.clone(), child.finish());
                Arc::new(ListArray::try_new(field, take(offsets), values, valid.finish()).expect(WHOLE))
            }
            Values::Map { key, value, entries, offsets, valid } => {
                let fields = Fields::from(vec![key.field.clone(), value.field.clone()]);
                let pairs = StructArray::try_new(fields, vec![key.finish(), value.finish()], None).expect(WHOLE);
                Arc::new(MapArray::try_new(entries.clone(), take(offsets), pairs, valid.finish(), false).expect(WHOLE))
            }
        }
    }
}

fn take(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
}

/// The error for a type that a format cannot hold.
pub(super) fn unsupported(field: &Field) -> Error {
    Error::input(format!("column '{}': this format has no {}", field.name(), type_name(field.data_type())))
}

/// The SQL name of a type.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::Binary => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) => "TIME".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP_LTZ".to_owned(),
        DataType::Struct(_) => "ROW".to_owned(),
        DataType::List(_) => "ARRAY".to_owned(),
        DataType::Map(_, _) => "MAP".to_owned(),
        other => other.to_string(),
    }
}
