//! Records of a batch: those that look like others by their layout, the rest by the scanner.

use super::decode::{column_of, find_fields, push_missing, push_value};
use super::layout::Layout;
use super::scan::Member;
use crate::format::blocks::{Found, Records, Text, slot};
use crate::format::column::{Column, Reason};
use std::ops::Range;

/// The records of one batch.
#[derive(Debug)]
pub(super) struct JsonRecords {
    fail_on_missing: bool,
    layout: Layout,
}

impl JsonRecords {
    /// Nothing read yet.
    pub(super) fn new(fail_on_missing: bool) -> Self {
        JsonRecords { fail_on_missing, layout: Layout::new() }
    }

    /// Finds the fields of a record that does not have the layout of others.
    #[cold]
    fn scan(&mut self, record: &str, start: usize, columns: &[Column], found: &mut [Found]) -> Result<(), Reason> {
        let mut members: Vec<Option<Member<'_>>> = Vec::new();
        find_fields(record, columns, &mut members)?;
        for (index, member) in members.iter().enumerate() {
            if let Some(found) = found.get_mut(slot(index)) {
                *found = match member {
                    Some(member) => Found::value(start + member.at, member.value.len()),
                    None => Found::Missing,
                };
            }
        }
        self.layout.learn(record, |key| column_of(key, columns, 0).map(slot));
        Ok(())
    }
}

impl Records for JsonRecords {
    #[inline]
    fn find(
        &mut self,
        text: Text<'_>,
        record: Range<usize>,
        columns: &[Column],
        found: &mut [Found],
    ) -> Result<(), Reason> {
        if self.layout.read(text, record.clone(), found) {
            return Ok(());
        }
        self.scan(text.part(record.clone()), record.start, columns, found)
    }

    fn push(&self, column: &mut Column, text: Option<&str>, is_plain: bool) -> Result<(), Reason> {
        match text {
            Some(text) if is_plain => column.push_text(text),
            Some(value) => push_value(column, value),
            None => push_missing(column, self.fail_on_missing),
        }
    }
}
