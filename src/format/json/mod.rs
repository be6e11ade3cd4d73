//! JSON as Flink reads and writes it.

mod decode;
#[cfg(test)]
mod differential;
mod encode;
mod layout;
mod records;
mod scan;
#[cfg(test)]
mod tests;

pub(super) use decode::JsonDecoder;
pub(super) use encode::JsonEncoder;

use super::{JsonOptions, TimestampFormat};

/// The byte between date and time.
fn separator(options: &JsonOptions) -> u8 {
    match options.timestamps {
        TimestampFormat::Sql => b' ',
        TimestampFormat::Iso8601 => b'T',
    }
}
