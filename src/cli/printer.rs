//! Rows on stdout as an aligned table, JSON lines or CSV.

use super::args::Show;
use super::context::{Terminal, stdout_error};
use crate::error::Result;
use serde_json::{Map, Value};
use std::sync::Arc;

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// One JSON object a row
    Json,
    /// A header row and one CSV row a row
    Csv,
}

/// Columns wider than this many characters are cut in a table.
const CELL_CHARS_MAX: usize = 60;

/// Shows tables on stdout.
pub(super) struct Printer {
    format: Format,
    terminal: Arc<dyn Terminal>,
}

/// A table that is shown in parts: widths are set by the first part, the header is shown once.
pub(super) struct Table {
    format: Format,
    terminal: Arc<dyn Terminal>,
    columns: Vec<String>,
    widths: Option<Vec<usize>>,
}

impl Printer {
    pub(super) fn new(show: &Show, terminal: Arc<dyn Terminal>) -> Self {
        Printer { format: show.format, terminal }
    }

    pub(super) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Shows a whole table.
    pub(super) fn table(&self, columns: &[&str], rows: &[Vec<Value>]) -> Result<()> {
        self.open(columns).rows(rows)
    }

    /// A table that is shown as its rows come.
    pub(super) fn open(&self, columns: &[impl AsRef<str>]) -> Table {
        let columns = columns.iter().map(|c| c.as_ref().to_owned()).collect();
        Table { format: self.format, terminal: Arc::clone(&self.terminal), columns, widths: None }
    }
}

/// A value as text: strings as they are, null as nothing.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One line of at most [`CELL_CHARS_MAX`] characters, without control characters (a terminal obeys them).
fn cell(value: &Value) -> String {
    let text: String = plain(value).chars().map(|c| if c.is_control() { '\u{b7}' } else { c }).collect();
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['\u{2026}']).collect()
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

impl Table {
    /// Shows rows; each has one value a column.
    pub(super) fn rows(&mut self, rows: &[Vec<Value>]) -> Result<()> {
        let mut text = String::new();
        match self.format {
            Format::Table => self.push_table(rows, &mut text),
            Format::Json => {
                for row in rows {
                    let object: Map<String, Value> = self.columns.iter().cloned().zip(row.iter().cloned()).collect();
                    text.push_str(&Value::Object(object).to_string());
                    text.push('\n');
                }
            }
            Format::Csv => {
                let mut line = |fields: Vec<String>| {
                    text.push_str(&fields.join(","));
                    text.push('\n');
                };
                if self.widths.is_none() {
                    line(self.columns.iter().map(|c| csv_field(c)).collect());
                }
                rows.iter().for_each(|row| line(row.iter().map(|value| csv_field(&plain(value))).collect()));
                self.widths = Some(Vec::new());
            }
        }
        self.terminal.show(text.as_bytes()).map_err(stdout_error)
    }

    fn push_table(&mut self, rows: &[Vec<Value>], text: &mut String) {
        let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let columns = &self.columns;
        let is_first = self.widths.is_none();
        let widths = self.widths.get_or_insert_with(|| {
            let longest = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            columns.iter().enumerate().map(|(at, name)| name.chars().count().max(longest(at))).collect()
        });
        let mut line = |fields: &[String], numbers: Option<&Vec<Value>>| {
            let mut shown = String::new();
            for (at, field) in fields.iter().enumerate() {
                let pad = " ".repeat(widths[at].saturating_sub(field.chars().count()));
                let is_number = numbers.is_some_and(|row| row[at].is_number());
                shown.push_str(&if is_number { format!("{pad}{field}  ") } else { format!("{field}{pad}  ") });
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        };
        if is_first {
            line(columns, None);
            line(&widths_rule(columns, &cells), None);
        }
        for (row, fields) in rows.iter().zip(&cells) {
            line(fields, Some(row));
        }
    }
}

fn widths_rule(columns: &[String], cells: &[Vec<String>]) -> Vec<String> {
    let width = |at: usize, name: &String| {
        cells.iter().map(|row| row[at].chars().count()).chain([name.chars().count()]).max().unwrap_or(0)
    };
    columns.iter().enumerate().map(|(at, name)| "-".repeat(width(at, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_command_a_terminal() {
        assert_eq!(cell(&Value::from("a\u{1b}[31m\nb")), "a\u{b7}[31m\u{b7}b");
        assert_eq!(cell(&Value::from("x".repeat(100))).chars().count(), CELL_CHARS_MAX);
        assert_eq!(cell(&Value::Null), "");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_field("plain"), "plain");
    }

    #[test]
    fn tables_align() {
        let (terminal, columns) = (Arc::new(super::super::context::Own::default()), vec!["name".into(), "n".into()]);
        let mut table = Table { format: Format::Table, terminal, columns, widths: None };
        let mut text = String::new();
        table.push_table(&[vec!["x".into(), 5.into()], vec!["long one".into(), 12.into()]], &mut text);
        assert_eq!(text, "name      n\n--------  --\nx          5\nlong one  12\n");
    }
}
