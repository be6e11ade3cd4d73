//! Bytes to Arrow and back: JSON, CSV, raw. A value that does not decode is a rejected row with a reason, never an error
//! of the batch.

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
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: b',', quote: Some(b'"'), null_literal: None }
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

/// The decoder of a format for the columns `used` of `declared`.
pub fn decoder(spec: &FormatSpec, _declared: &SchemaRef, _used: &[usize]) -> crate::Result<Box<dyn Decoder>> {
    Err(crate::Error::internal(format!("no decoder for {spec:?}")))
}

/// The encoder of a format.
pub fn encoder(spec: &FormatSpec, _schema: &SchemaRef) -> crate::Result<Box<dyn Encoder>> {
    Err(crate::Error::internal(format!("no encoder for {spec:?}")))
}
