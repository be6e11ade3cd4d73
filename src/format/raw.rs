//! The value as it is: one column, STRING or BYTES.

use super::column::{Column, Texts};
use super::rows::Rows;
use super::text::{self, ShortMonth};
use super::{Decoded, Decoder, Encoder, used_schema};
use crate::error::{Error, Result};
use arrow::array::{Array, AsArray, BinaryArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

fn check(schema: &SchemaRef) -> Result<()> {
    match schema.fields().as_ref() {
        [field] if matches!(field.data_type(), DataType::Utf8 | DataType::Binary) => Ok(()),
        _ => Err(Error::input("a table of format 'raw' has exactly one column, STRING or BYTES")),
    }
}

/// Decodes the value into the one column, or into none if it is not used.
#[derive(Debug)]
pub(super) struct RawDecoder {
    schema: SchemaRef,
}

impl RawDecoder {
    /// A decoder of the columns `used` of `declared`. Input error: `declared` is not one column of STRING or BYTES.
    pub(super) fn new(declared: &SchemaRef, used: &[usize]) -> Result<Self> {
        check(declared)?;
        Ok(RawDecoder { schema: used_schema(declared, used) })
    }
}

impl Decoder for RawDecoder {
    fn decode(&self, values: &BinaryArray) -> Decoded {
        let texts = Texts { separator: b' ', short_month: ShortMonth::Refuse };
        let column = |field| Column::new(field, texts, values.len()).expect("STRING and BYTES are columns");
        let mut rows = Rows::new(&self.schema, self.schema.fields().iter().map(column).collect());
        for value in values {
            let pushed = match (rows.columns(), value) {
                (_, None) => Err("null value".to_owned()),
                ([column], Some(value)) if column.field.data_type() == &DataType::Binary => {
                    column.push_bytes(value);
                    Ok(())
                }
                ([column], _) => text::utf8(value).and_then(|text| column.push_text(text)),
                _ => Ok(()),
            };
            match pushed {
                Ok(()) => rows.end_row(Ok(())),
                Err(reason) => rows.reject(reason),
            }
        }
        rows.finish()
    }
}

/// Writes the one column as it is; NULL as nothing.
#[derive(Debug)]
pub(super) struct RawEncoder;

impl RawEncoder {
    /// An encoder. Input error: `schema` is not one column of STRING or BYTES.
    pub(super) fn new(schema: &SchemaRef) -> Result<Self> {
        check(schema)?;
        Ok(RawEncoder)
    }
}

impl Encoder for RawEncoder {
    fn encode(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let Some(column) = batch.columns().first().filter(|column| column.is_valid(row)) else { return };
        match column.data_type() {
            DataType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
            _ => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        }
    }
}
