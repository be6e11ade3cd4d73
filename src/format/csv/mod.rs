//! CSV as Flink reads and writes it (that is: as Jackson does).

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(super) use decode::CsvDecoder;
pub(super) use encode::CsvEncoder;

use super::CsvOptions;
use super::column::unsupported;
use super::text;
use crate::error::{Error, Result};
use arrow::datatypes::SchemaRef;

fn check(options: &CsvOptions, schema: &SchemaRef) -> Result<()> {
    let quoted_by = |byte| options.quote == Some(byte);
    if quoted_by(options.delimiter) || matches!(options.delimiter, b'\n' | b'\r') {
        return Err(Error::input(format!("{:?} cannot delimit CSV fields", char::from(options.delimiter))));
    }
    if !options.delimiter.is_ascii() || options.quote.is_some_and(|quote| !quote.is_ascii()) {
        return Err(Error::input("CSV delimiter and quote character must be ASCII"));
    }
    match schema.fields().iter().find(|field| !text::is_scalar(field.data_type())) {
        Some(field) => Err(unsupported(field)),
        None => Ok(()),
    }
}
