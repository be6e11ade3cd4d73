//! Rust types as columns, and rows of them from and to Arrow.

use crate::error::{Error, Result};
use crate::sql::direct;
use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion_common::DataFusionError;
use serde::Serialize;
use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_json::json;
use std::any::type_name;
use std::sync::Arc;

/// Columns whose type the Rust type does not say: a time, say.
pub(super) type Overrides = [(String, DataType)];

/// The columns of `T`'s fields.
pub(super) fn of<T: DeserializeOwned>(overrides: &Overrides) -> Result<Vec<FieldRef>> {
    if let Some(names) = field_names::<T>() {
        let plain: Vec<FieldRef> = names.iter().map(|name| Arc::new(Field::new(*name, DataType::Null, true))).collect();
        for (name, _) in overrides {
            find(&plain, name).map_err(|error| error.context(type_name::<T>()))?;
        }
    }
    let traced = trace::<T>(overrides);
    let fields = traced.map_err(|error| {
        let message = format!("{} cannot be a row: {error}", type_name::<T>());
        Error::input(message)
            .with_hint("a row is a struct with named fields of plain types, Option, Vec and such structs")
    })?;
    if fields.is_empty() {
        return Err(Error::input(format!("{} has no fields: a row has columns", type_name::<T>())));
    }
    let column = |field: &FieldRef| {
        let (name, nullable) = (field.name(), field.is_nullable());
        let given = overrides.iter().find(|(other, _)| other == name).map(|(_, data_type)| data_type.clone());
        let data_type = given.map_or_else(|| sql_type(field.data_type()), Ok);
        let data_type = data_type.map_err(|what| {
            let message = format!("field '{name}' of {} is {what}, which is no type of a column", type_name::<T>());
            Error::input(message)
        })?;
        Ok(Arc::new(Field::new(name, data_type, nullable)))
    };
    fields.iter().map(column).collect()
}

fn trace<T: DeserializeOwned>(overrides: &Overrides) -> serde_arrow::Result<Vec<FieldRef>> {
    let mut options = TracingOptions::default()
        .strings_as_large_utf8(false)
        .sequence_as_large_list(false)
        .bytes_as_large_binary(false)
        .enums_without_data_as_strings(true);
    for (name, _) in overrides {
        // Only so that the field is not looked into: its type is known.
        let nullable = is_option::<T>(name);
        options = options.overwrite(name, json!({"name": name, "data_type": "I64", "nullable": nullable}))?;
    }
    Vec::<FieldRef>::from_type::<T>(options)
}

/// The names of the fields of `T`, if it is a plain struct.
pub(super) fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut probe = Probe::default();
    // It always fails: what it asks for is the answer.
    let refused = T::deserialize(Struct(&mut probe)).is_err();
    probe.names.filter(|_| refused)
}

/// Whether a field of `T` is an [`Option`].
fn is_option<T: DeserializeOwned>(name: &str) -> bool {
    let mut probe = Probe { field: Some(name.to_owned()), ..Probe::default() };
    let refused = T::deserialize(Struct(&mut probe)).is_err();
    refused && probe.is_option
}

/// What a type asks for while it is read.
#[derive(Default)]
struct Probe {
    field: Option<String>,
    names: Option<&'static [&'static str]>,
    is_option: bool,
}

type Stop = de::value::Error;

fn stop<V>() -> Result<V, Stop> {
    Err(de::Error::custom("seen"))
}

/// Stands for a struct.
struct Struct<'p>(&'p mut Probe);

/// Stands for the value of a field.
struct Value<'p>(&'p mut Probe);

impl<'de> IntoDeserializer<'de, Stop> for Value<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Struct<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        stop()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.0.names = Some(names);
        match self.0.field.take() {
            Some(field) => visitor.visit_map(MapDeserializer::new(std::iter::once((field, Value(self.0))))),
            None => stop(),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> de::Deserializer<'de> for Value<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        stop()
    }

    fn deserialize_option<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.0.is_option = true;
        stop()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The column type of a traced type; `Err`: what there is no such type for.
fn sql_type(data_type: &DataType) -> Result<DataType, String> {
    Ok(match data_type {
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
        | DataType::Timestamp(TimeUnit::Millisecond, _)
        | DataType::Decimal128(..) => data_type.clone(),
        // Enums without data.
        DataType::Dictionary(..) => DataType::Utf8,
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::List(item) => {
            DataType::List(Arc::new(Field::new("item", sql_type(item.data_type())?, item.is_nullable())))
        }
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Ok(Field::new(field.name(), sql_type(field.data_type())?, field.is_nullable())));
            DataType::Struct(fields.collect::<Result<Fields, String>>()?)
        }
        other => return Err(direct::type_name(other)),
    })
}

/// The place of a column.
pub(super) fn find(row: &[FieldRef], name: &str) -> Result<usize> {
    row.iter().position(|field| field.name() == name).ok_or_else(|| {
        let names = || row.iter().map(|field| field.name().as_str());
        let error = Error::input(format!("there is no column '{name}'"));
        error.with_hint(match direct::nearest(name, names()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        })
    })
}

/// Rows from columns.
pub(super) fn read<T: DeserializeOwned>(fields: &[FieldRef], columns: &[ArrayRef]) -> Result<Vec<T>, DataFusionError> {
    serde_arrow::from_arrow(fields, columns).map_err(|error| failed::<T>(&error))
}

/// A column of rows.
pub(super) fn write<U: Serialize>(fields: &Fields, rows: &[U]) -> Result<ArrayRef, DataFusionError> {
    let columns = serde_arrow::to_arrow(fields, rows).map_err(|error| failed::<U>(&error))?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
}

fn failed<T>(error: &serde_arrow::Error) -> DataFusionError {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Error: ").unwrap_or(line);
    DataFusionError::Execution(format!("{}: {line}", type_name::<T>()))
}
