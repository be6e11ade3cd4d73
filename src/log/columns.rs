//! The declared columns of a topic's values, as the catalog keeps them by topic name: format, options and Arrow schema.
//!
//! Layout: version (1 byte), format (1 byte and its options), number of columns (varint), columns. A column is its name
//! (varint length, UTF-8), 1 if it can be NULL, and its type: a byte, and what that type needs. Columns of columns are
//! written the same way. Metadata of Arrow fields is no part of a declaration.

use crate::codec::{CodecError, Reader, put_block, put_varint};
use crate::format::{self, CsvOptions, FormatSpec, JsonOptions, TimestampFormat};
use crate::log::catalog::{CatalogView, MetaSpace};
use crate::log::records::ValueColumns;
use crate::log::topic::Topic;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use std::sync::Arc;

const VERSION: u8 = 1;
/// How deep columns may lie in columns.
const DEPTH_MAX: usize = 64;

/// The bytes for the catalog. Which columns are used is no part of them. A type that no format has is written so that
/// [`decode`] refuses it.
pub fn encode(columns: &ValueColumns) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_format(&mut out, &columns.format);
    put_fields(&mut out, columns.declared.fields());
    out
}

/// What [`encode`] wrote, with all columns used.
pub fn decode(bytes: &[u8]) -> Result<ValueColumns, CodecError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("version of a declaration")? {
        VERSION => {}
        other => return Err(CodecError::Invalid { what: "version of a declaration", value: u64::from(other) }),
    }
    let format = read_format(&mut reader)?;
    let fields = read_fields(&mut reader, 0)?;
    if reader.left() > 0 {
        return Err(CodecError::Invalid { what: "bytes behind a declaration", value: reader.left() as u64 });
    }
    let used = (0..fields.len()).collect();
    let columns = ValueColumns { format, declared: Arc::new(Schema::new(fields)), used };
    // One declaration has one form, or equal ones would differ in their bytes.
    match encode(&columns) == bytes {
        true => Ok(columns),
        false => Err(CodecError::Invalid { what: "form of a declaration", value: bytes.len() as u64 }),
    }
}

/// The columns to keep decoded for a topic, all of them used. `None`: nothing is declared, or decoding would gain nothing
/// (values that are taken as they are) or cannot be done.
pub fn of_topic(view: &dyn CatalogView, topic: &Topic) -> Option<Arc<ValueColumns>> {
    let columns = decode(&view.get(MetaSpace::Schema, topic.name())?).ok()?;
    let decodes = format::decoder(&columns.format, &columns.declared, &columns.used).is_ok();
    (decodes && columns.format != FormatSpec::Raw).then(|| Arc::new(columns))
}

/// Where the used columns of `asked` are among all columns of `stored`, if every row that decodes as `stored` decodes as
/// `asked`, to the same values. (A row that does not decode as `stored` may still decode as `asked`: it has fewer columns
/// that can be wrong.)
pub fn places(stored: &ValueColumns, asked: &ValueColumns) -> Option<Vec<usize>> {
    let (have, want) = (stored.declared.fields(), asked.declared.fields());
    if stored.format != asked.format {
        return None;
    }
    // JSON finds fields by name; the others by place, and a row has exactly as many fields as there are columns.
    let by_name = matches!(stored.format, FormatSpec::Json(_));
    if !by_name && have.len() != want.len() {
        return None;
    }
    let place = |used: &usize| {
        let field = want.get(*used)?;
        let place = if by_name { have.iter().position(|other| other.name() == field.name())? } else { *used };
        (have.get(place)? == field).then_some(place)
    };
    asked.used.iter().map(place).collect()
}

/// Whether a topic's declaration becomes `new`.
///
/// Jobs may declare different columns for one topic. The declaration only decides which columns history keeps decoded, and a
/// job that asks for others decodes the values itself, so nothing here is an error. A declaration with all columns of the
/// one before and more serves both jobs: the newest such wins. Any other is left out: two jobs that disagree would
/// otherwise take the columns from each other at every start, and each would find files that hold the other's.
pub fn is_news(stored: Option<&ValueColumns>, new: &ValueColumns) -> bool {
    stored.is_none_or(|stored| {
        let all = ValueColumns { used: (0..stored.declared.fields().len()).collect(), ..stored.clone() };
        encode(stored) != encode(new) && places(new, &all).is_some()
    })
}

fn put_format(out: &mut Vec<u8>, format: &FormatSpec) {
    match format {
        FormatSpec::Json(JsonOptions { timestamps, fail_on_missing_field, decimal_as_plain_number }) => {
            let timestamps = match timestamps {
                TimestampFormat::Sql => 0,
                TimestampFormat::Iso8601 => 1,
            };
            out.extend([1, timestamps, u8::from(*fail_on_missing_field), u8::from(*decimal_as_plain_number)]);
        }
        FormatSpec::Csv(CsvOptions { delimiter, quote, null_literal, decimal_as_plain_number }) => {
            out.extend([2, *delimiter, u8::from(quote.is_some()), quote.unwrap_or_default()]);
            out.extend([u8::from(*decimal_as_plain_number), u8::from(null_literal.is_some())]);
            put_block(out, null_literal.as_deref().unwrap_or_default().as_bytes());
        }
        FormatSpec::Raw => out.push(3),
    }
}

fn read_format(reader: &mut Reader<'_>) -> Result<FormatSpec, CodecError> {
    Ok(match reader.u8("format")? {
        1 => FormatSpec::Json(JsonOptions {
            timestamps: if read_flag(reader)? { TimestampFormat::Iso8601 } else { TimestampFormat::Sql },
            fail_on_missing_field: read_flag(reader)?,
            decimal_as_plain_number: read_flag(reader)?,
        }),
        2 => {
            let delimiter = reader.u8("delimiter")?;
            let (quoted, quote) = (read_flag(reader)?, reader.u8("quote character")?);
            let (decimal_as_plain_number, has_null) = (read_flag(reader)?, read_flag(reader)?);
            let null_literal = Some(read_text(reader, "null literal")?).filter(|_| has_null);
            FormatSpec::Csv(CsvOptions {
                delimiter,
                quote: quoted.then_some(quote),
                null_literal,
                decimal_as_plain_number,
            })
        }
        3 => FormatSpec::Raw,
        other => return Err(CodecError::Invalid { what: "format", value: u64::from(other) }),
    })
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, CodecError> {
    match reader.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::Invalid { what: "flag", value: u64::from(other) }),
    }
}

fn read_text(reader: &mut Reader<'_>, what: &'static str) -> Result<String, CodecError> {
    let bytes = reader.block(what)?;
    let text = std::str::from_utf8(bytes).map_err(|e| CodecError::Invalid { what, value: e.valid_up_to() as u64 })?;
    Ok(text.to_owned())
}

fn put_fields(out: &mut Vec<u8>, fields: &Fields) {
    put_varint(out, fields.len() as u64);
    fields.iter().for_each(|field| put_field(out, field));
}

fn read_fields(reader: &mut Reader<'_>, depth: usize) -> Result<Vec<Field>, CodecError> {
    let count = reader.varint("number of columns")?;
    // A column takes 3 bytes at least.
    if count > reader.left() as u64 / 3 {
        return Err(CodecError::Invalid { what: "number of columns", value: count });
    }
    (0..count).map(|_| read_field(reader, depth)).collect()
}

fn put_field(out: &mut Vec<u8>, field: &Field) {
    put_block(out, field.name().as_bytes());
    out.push(u8::from(field.is_nullable()));
    put_type(out, field.data_type());
}

fn read_field(reader: &mut Reader<'_>, depth: usize) -> Result<Field, CodecError> {
    let name = read_text(reader, "column name")?;
    let nullable = read_flag(reader)?;
    Ok(Field::new(name, read_type(reader, depth)?, nullable))
}

fn put_unit(out: &mut Vec<u8>, unit: TimeUnit) {
    out.push(match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    });
}

fn read_unit(reader: &mut Reader<'_>) -> Result<TimeUnit, CodecError> {
    Ok(match reader.u8("time unit")? {
        0 => TimeUnit::Second,
        1 => TimeUnit::Millisecond,
        2 => TimeUnit::Microsecond,
        3 => TimeUnit::Nanosecond,
        other => return Err(CodecError::Invalid { what: "time unit", value: u64::from(other) }),
    })
}

fn put_type(out: &mut Vec<u8>, data_type: &DataType) {
    match data_type {
        DataType::Null => out.push(1),
        DataType::Boolean => out.push(2),
        DataType::Int8 => out.push(3),
        DataType::Int16 => out.push(4),
        DataType::Int32 => out.push(5),
        DataType::Int64 => out.push(6),
        DataType::Float32 => out.push(7),
        DataType::Float64 => out.push(8),
        DataType::Decimal128(precision, scale) => out.extend([9, *precision, scale.to_le_bytes()[0]]),
        DataType::Utf8 => out.push(10),
        DataType::Binary => out.push(11),
        DataType::Date32 => out.push(12),
        DataType::Time32(unit) => {
            out.push(13);
            put_unit(out, *unit);
        }
        DataType::Timestamp(unit, zone) => {
            out.push(14);
            put_unit(out, *unit);
            out.push(u8::from(zone.is_some()));
            put_block(out, zone.as_deref().unwrap_or_default().as_bytes());
        }
        DataType::Struct(fields) => {
            out.push(15);
            put_fields(out, fields);
        }
        DataType::List(item) => {
            out.push(16);
            put_field(out, item);
        }
        DataType::Map(entries, sorted) => {
            out.extend([17, u8::from(*sorted)]);
            put_field(out, entries);
        }
        other => {
            out.push(0);
            put_block(out, other.to_string().as_bytes());
        }
    }
}

fn read_type(reader: &mut Reader<'_>, depth: usize) -> Result<DataType, CodecError> {
    if depth > DEPTH_MAX {
        return Err(CodecError::Invalid { what: "depth of a column", value: depth as u64 });
    }
    Ok(match reader.u8("column type")? {
        1 => DataType::Null,
        2 => DataType::Boolean,
        3 => DataType::Int8,
        4 => DataType::Int16,
        5 => DataType::Int32,
        6 => DataType::Int64,
        7 => DataType::Float32,
        8 => DataType::Float64,
        9 => DataType::Decimal128(reader.u8("precision")?, i8::from_le_bytes([reader.u8("scale")?])),
        10 => DataType::Utf8,
        11 => DataType::Binary,
        12 => DataType::Date32,
        13 => DataType::Time32(read_unit(reader)?),
        14 => {
            let (unit, has_zone) = (read_unit(reader)?, read_flag(reader)?);
            let zone = read_text(reader, "time zone")?;
            DataType::Timestamp(unit, has_zone.then(|| zone.into()))
        }
        15 => DataType::Struct(read_fields(reader, depth + 1)?.into()),
        16 => DataType::List(Arc::new(read_field(reader, depth + 1)?)),
        17 => {
            let sorted = read_flag(reader)?;
            DataType::Map(Arc::new(read_field(reader, depth + 1)?), sorted)
        }
        other => return Err(CodecError::Invalid { what: "column type", value: u64::from(other) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(fields: Vec<Field>) -> ValueColumns {
        let used = (0..fields.len()).collect();
        ValueColumns { format: FormatSpec::Json(JsonOptions::default()), declared: Arc::new(Schema::new(fields)), used }
    }

    fn types() -> impl Strategy<Value = DataType> {
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let leaf = prop_oneof![
            prop::sample::select(vec![
                DataType::Null,
                DataType::Boolean,
                DataType::Int8,
                DataType::Int16,
                DataType::Int32,
                DataType::Int64,
                DataType::Float32,
                DataType::Float64,
                DataType::Utf8,
                DataType::Binary,
                DataType::Date32,
                DataType::Time32(TimeUnit::Millisecond),
            ]),
            (any::<u8>(), any::<i8>()).prop_map(|(precision, scale)| DataType::Decimal128(precision, scale)),
            (prop::sample::select(units.to_vec()), prop::option::of("[A-Za-z/+0-9:]{0,9}"))
                .prop_map(|(unit, zone)| DataType::Timestamp(unit, zone.map(Into::into))),
        ];
        leaf.prop_recursive(4, 16, 4, |inner| {
            let field = ("\\PC{0,6}", inner, any::<bool>()).prop_map(|(name, t, null)| Field::new(name, t, null));
            prop_oneof![
                prop::collection::vec(field.clone(), 0..4).prop_map(|fields| DataType::Struct(fields.into())),
                field.clone().prop_map(|field| DataType::List(Arc::new(field))),
                (field, any::<bool>()).prop_map(|(field, sorted)| DataType::Map(Arc::new(field), sorted)),
            ]
        })
    }

    fn formats() -> impl Strategy<Value = FormatSpec> {
        let csv = (any::<u8>(), any::<Option<u8>>(), prop::option::of("\\PC{0,4}"), any::<bool>());
        prop_oneof![
            Just(FormatSpec::Raw),
            (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(iso, missing, plain)| {
                let timestamps = if iso { TimestampFormat::Iso8601 } else { TimestampFormat::Sql };
                FormatSpec::Json(JsonOptions {
                    timestamps,
                    fail_on_missing_field: missing,
                    decimal_as_plain_number: plain,
                })
            }),
            csv.prop_map(|(delimiter, quote, null_literal, decimal_as_plain_number)| {
                FormatSpec::Csv(CsvOptions { delimiter, quote, null_literal, decimal_as_plain_number })
            }),
        ]
    }

    fn declarations() -> impl Strategy<Value = ValueColumns> {
        let fields = prop::collection::vec(("\\PC{0,6}", types(), any::<bool>()), 0..6);
        (formats(), fields).prop_map(|(format, fields)| {
            let fields: Vec<_> = fields.into_iter().map(|(name, t, null)| Field::new(name, t, null)).collect();
            ValueColumns { format, ..json(fields) }
        })
    }

    proptest! {
        #[test]
        fn declarations_come_back(columns in declarations()) {
            let bytes = encode(&columns);
            prop_assert_eq!(decode(&bytes), Ok(columns));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
            prop_assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_a_declaration_or_an_error(bytes in any::<Vec<u8>>(), flip in any::<(prop::sample::Index, u8)>()) {
            let _ = decode(&bytes);
            let mut written = encode(&json(vec![Field::new("a", DataType::Int64, true)]));
            let at = flip.0.index(written.len());
            written[at] ^= flip.1;
            if let Ok(other) = decode(&written) {
                prop_assert_eq!(encode(&other), written);
            }
        }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let zone = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let columns = json(vec![Field::new("a", DataType::Decimal128(10, 2), false), Field::new("t", zone, true)]);
        let golden = [&[1, 1, 0, 0, 0, 2, 1, b'a', 0, 9, 10, 2, 1, b't', 1, 14, 1, 1, 3][..], b"UTC"].concat();
        assert_eq!(encode(&columns), golden);
        let subset = ValueColumns { used: vec![1], ..columns.clone() };
        assert_eq!(encode(&columns), encode(&subset));
    }

    #[test]
    fn deep_nesting_and_strange_types_are_refused() {
        let mut nested = DataType::Int8;
        for _ in 0..=DEPTH_MAX {
            nested = DataType::List(Arc::new(Field::new("item", nested, true)));
        }
        assert!(decode(&encode(&json(vec![Field::new("a", nested, true)]))).is_err());
        assert!(decode(&encode(&json(vec![Field::new("a", DataType::Float16, true)]))).is_err());
    }

    #[test]
    fn json_columns_are_found_by_name_and_others_by_place() {
        let (a, b) = (Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true));
        let stored = json(vec![a.clone(), b.clone()]);
        let asked = json(vec![b.clone(), Field::new("unused", DataType::Date32, true), a.clone()]);
        assert_eq!(places(&stored, &ValueColumns { used: vec![0, 2], ..asked.clone() }), Some(vec![1, 0]));
        assert_eq!(places(&stored, &asked), None, "a column that is not stored");
        let strict = json(vec![a.clone().with_nullable(false)]);
        assert_eq!(places(&stored, &strict), None, "NULL would have to be refused");
        let csv = |fields| ValueColumns { format: FormatSpec::Csv(CsvOptions::default()), ..json(fields) };
        assert_eq!(places(&csv(vec![a.clone(), b.clone()]), &csv(vec![a.clone(), b.clone()])), Some(vec![0, 1]));
        assert_eq!(places(&csv(vec![a.clone(), b.clone()]), &csv(vec![a.clone()])), None, "rows have two fields");
        assert_eq!(places(&csv(vec![a.clone()]), &json(vec![a])), None, "another format");
    }

    #[test]
    fn more_columns_are_news_and_others_are_not() {
        let (a, b) = (Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true));
        let (one, two) = (json(vec![a.clone()]), json(vec![b, a]));
        assert!(is_news(None, &one) && is_news(Some(&one), &two));
        assert!(!is_news(Some(&two), &one) && !is_news(Some(&two), &two));
        assert!(!is_news(Some(&one), &json(vec![Field::new("a", DataType::Utf8, true)])));
        assert!(!is_news(Some(&one), &ValueColumns { format: FormatSpec::Raw, ..one.clone() }));
    }
}
