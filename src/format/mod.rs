//! Bytes to Arrow and back: JSON, CSV, raw. A value that does not decode is a rejected row with a reason, never an error
//! of the batch.

mod blocks;
mod column;
mod csv;
pub mod framing;
mod json;
mod raw;
mod rows;
mod strings;
#[cfg(test)]
mod tests;
mod text;
mod words;

use crate::error::Result;
use arrow::array::BinaryArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

/// A format and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatSpec {
    /// One JSON object a record.
    Json(JsonOptions),
    /// One CSV row a record.
    Csv(CsvOptions),
    /// The value as it is; the table has exactly one column (STRING or BYTES).
    Raw,
}

/// Options of JSON, under Flink's names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonOptions {
    /// `json.timestamp-format.standard`.
    pub timestamps: TimestampFormat,
    /// `json.fail-on-missing-field` (default false: a missing field is NULL).
    pub fail_on_missing_field: bool,
    /// `json.encode.decimal-as-plain-number` (default false: `1E+1` for 10.000, as Flink does).
    pub decimal_as_plain_number: bool,
}

/// How JSON writes timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampFormat {
    /// `2020-12-30 12:13:14.123`, with time zone `2020-12-30 12:13:14.123Z`.
    #[default]
    Sql,
    /// `2020-12-30T12:13:14.123`, with time zone `2020-12-30T12:13:14.123Z`.
    Iso8601,
}

/// Options of CSV, under Flink's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// `csv.field-delimiter`.
    pub delimiter: u8,
    /// `csv.quote-character`; `None`: `csv.disable-quote-character`.
    pub quote: Option<u8>,
    /// `csv.null-literal`.
    pub null_literal: Option<String>,
    /// The opposite of `csv.write-bigdecimal-in-scientific-notation` (default false: `1E+1` for 10.000, as Flink does).
    pub decimal_as_plain_number: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: b',', quote: Some(b'"'), null_literal: None, decimal_as_plain_number: false }
    }
}

/// A row that did not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Row of the batch.
    pub row: u32,
    /// What is wrong, with the column and the value (shortened).
    pub reason: String,
}

/// A decoded batch: the rows that decoded, and why the others did not.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Rows that decoded, with the used columns in order.
    pub batch: RecordBatch,
    /// For each row of `batch` its row in the input; `None`: all rows decoded, one to one.
    pub rows: Option<Vec<u32>>,
    /// The others, ascending.
    pub rejected: Vec<Rejected>,
}

/// Turns values into the columns that a job uses. Keeps no state from one batch to the next.
pub trait Decoder: Send + Sync {
    /// Decodes all values; a null value is a row that does not decode ("null value").
    fn decode(&self, values: &BinaryArray) -> Decoded;
}

/// Turns rows into bytes.
pub trait Encoder: Send + Sync {
    /// Appends row `row` of `batch` to `out`.
    fn encode(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>);
}

/// Schema of the columns `used` of `declared`.
pub fn used_schema(declared: &SchemaRef, used: &[usize]) -> SchemaRef {
    let fields: Vec<_> = used.iter().map(|index| declared.field(*index).clone()).collect();
    std::sync::Arc::new(arrow::datatypes::Schema::new(fields))
}

/// A decoder of the columns `used` (ascending) of `declared`. Input error: a column type or an option that the format does not
/// have.
pub fn decoder(spec: &FormatSpec, declared: &SchemaRef, used: &[usize]) -> Result<Box<dyn Decoder>> {
    Ok(match spec {
        FormatSpec::Json(options) => Box::new(json::JsonDecoder::new(options, declared, used)?),
        FormatSpec::Csv(options) => Box::new(csv::CsvDecoder::new(options, declared, used)?),
        FormatSpec::Raw => Box::new(raw::RawDecoder::new(declared, used)?),
    })
}

/// An encoder of rows of `schema`; line ends are the sink's. Input error: a column type or an option that the format does not
/// have.
pub fn encoder(spec: &FormatSpec, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
    Ok(match spec {
        FormatSpec::Json(options) => Box::new(json::JsonEncoder::new(options, schema)?),
        FormatSpec::Csv(options) => Box::new(csv::CsvEncoder::new(options, schema)?),
        FormatSpec::Raw => Box::new(raw::RawEncoder::new(schema)?),
    })
}
