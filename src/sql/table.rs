//! `CREATE TABLE`: parsing, checks, and the table's row.

use super::call::is_proctime;
use super::expr::{Binder, Column, Role, Scope, Slot, Typed, span_of};
use super::options::{self, TableOptions};
use super::text::{Source, Statement, is_word, nearest};
use super::{cast, types};
use crate::engine::plan::{MetadataColumn, Zone};
use crate::error::{Error, Result};
use crate::format::FormatSpec;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlparser::ast::{self, Ident};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token};
use std::sync::Arc;

/// Metadata columns in the order in which they stand behind the physical ones.
pub(super) const METADATA: [(MetadataColumn, &str, &str); 5] = [
    (MetadataColumn::Timestamp, "timestamp", "timestamp"),
    (MetadataColumn::Partition, "partition", "partition"),
    (MetadataColumn::Offset, "offset", "offset"),
    (MetadataColumn::AppendTime, "append-time", "append_time"),
    (MetadataColumn::Key, "key", "key"),
];

/// Type and nullability of a metadata column.
pub(super) fn metadata_type(column: MetadataColumn) -> (DataType, bool) {
    match column {
        MetadataColumn::Timestamp => (types::timestamp_ltz(), true),
        MetadataColumn::Partition => (DataType::Int32, false),
        MetadataColumn::Offset => (DataType::Int64, false),
        MetadataColumn::AppendTime => (types::timestamp_ltz(), false),
        MetadataColumn::Key => (DataType::Binary, true),
    }
}

/// A table of the file.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Name.
    pub name: String,
    /// Place of the name.
    pub span: Span,
    /// Physical columns.
    pub declared: SchemaRef,
    /// All columns over the raw row (physical columns, then all of [`METADATA`]), in the order of the file.
    pub columns: Vec<TableColumn>,
    /// Index into `columns` and watermark over them.
    pub watermark: Option<(usize, Typed)>,
    /// Indices into `declared`.
    pub primary_key: Vec<usize>,
    /// A metadata column that is not VIRTUAL: the table cannot be written to.
    pub writable_metadata: Option<String>,
    /// Options.
    pub options: TableOptions,
    /// Its definition was read anew for another time zone: the name means that one now.
    pub replaced: bool,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct TableColumn {
    /// Name.
    pub name: String,
    /// Place.
    pub span: Span,
    /// Value over the raw row.
    pub value: Typed,
    /// It is `PROCTIME()`.
    pub proctime: bool,
}

impl Table {
    /// The row that queries see, as columns of a scope; the append time is behind it.
    pub fn scope(&self) -> Vec<Column> {
        let rowtime = self.watermark.as_ref().map(|(index, _)| *index);
        let columns = self.columns.iter().enumerate().map(|(index, column)| Column {
            qualifier: Some(self.name.clone()),
            name: column.name.clone(),
            data_type: column.value.data_type.clone(),
            nullable: column.value.nullable,
            slot: Slot::Row(index),
            role: match rowtime == Some(index) {
                true => Role::Rowtime,
                false if column.proctime => Role::Proctime,
                false => Role::Plain,
            },
            span: column.span,
        });
        columns.collect()
    }
}

enum Kind {
    Physical,
    Metadata { key: Option<String>, is_virtual: bool },
    Computed(Box<ast::Expr>),
}

struct ColumnText {
    name: Ident,
    data_type: DataType,
    nullable: bool,
    kind: Kind,
}

#[derive(Default)]
struct Body {
    columns: Vec<ColumnText>,
    watermark: Option<(Ident, ast::Expr)>,
    primary_key: Option<(Vec<Ident>, Span)>,
    notes: Vec<String>,
}

/// A parsed `CREATE TABLE`.
pub(super) struct Created {
    /// The table.
    pub table: Table,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// Things to tell.
    pub notes: Vec<String>,
}

struct Reader<'s> {
    parser: Parser<'static>,
    source: Source<'s>,
    zone: Option<Zone>,
}

/// Parses and checks a `CREATE [TEMPORARY] TABLE`.
pub(super) fn create(statement: &Statement, source: Source<'_>, zone: Option<Zone>) -> Result<Created> {
    let mut reader = Reader { parser: statement.parser(), source, zone };
    let (name, if_not_exists) = reader.head()?;
    let mut body = Body::default();
    if reader.parser.consume_token(&Token::LParen) {
        reader.body(&mut body)?;
    }
    let written = reader.tail()?;
    let Body { mut columns, watermark, primary_key, mut notes } = body;
    for column in &mut columns {
        // As in Flink, a key is never NULL.
        let is_key = primary_key.iter().flat_map(|(idents, _)| idents).any(|ident| ident.value == column.name.value);
        column.nullable &= !is_key;
    }
    if !columns.iter().any(|column| matches!(column.kind, Kind::Physical)) {
        return Err(source.error(name.span, format!("table '{}' has no physical column", name.value)));
    }
    let options = options::check(source, &name.value, name.span, &written, primary_key.is_some())?;
    for key in &options.ignored {
        notes.push(format!("table {}: option '{key}' means nothing here and is ignored", name.value));
    }
    let mut table = reader.resolve(name, columns, options)?;
    reader.check_format(&table)?;
    if let Some((column, expr)) = watermark {
        table.watermark = Some(reader.watermark(&table, &column, &expr)?);
    }
    if let Some((idents, _)) = primary_key {
        for ident in idents {
            table.primary_key.push(reader.key_column(&table, &ident)?);
        }
    }
    Ok(Created { table, if_not_exists, notes })
}

impl Reader<'_> {
    fn ident(&mut self) -> Result<Ident> {
        let at = self.parser.peek_token().span.start;
        self.parser.parse_identifier().map_err(|error| self.source.parser_error(&error, at))
    }

    fn expect(&mut self, token: &Token) -> Result<Span> {
        let at = self.parser.peek_token().span.start;
        match self.parser.expect_token(token) {
            Ok(token) => Ok(token.span),
            Err(error) => Err(self.source.parser_error(&error, at)),
        }
    }

    fn expr(&mut self) -> Result<ast::Expr> {
        let at = self.parser.peek_token().span.start;
        self.parser.parse_expr().map_err(|error| self.source.parser_error(&error, at))
    }

    fn string(&mut self) -> Result<(String, Span)> {
        let token = self.parser.next_token();
        match token.token {
            Token::SingleQuotedString(text) => Ok((text, token.span)),
            _ => Err(self.source.error(token.span, format!("expected a string in single quotes, found {token}"))),
        }
    }

    /// Takes these words if they are next.
    fn words(&mut self, words: &[&str]) -> bool {
        let there = words.iter().enumerate().all(|(n, word)| is_word(&self.parser.peek_nth_token(n), word));
        if there {
            for _ in words {
                self.parser.next_token();
            }
        }
        there
    }

    fn unexpected(&self, expected: &str) -> Error {
        let token = self.parser.peek_token();
        match token.token {
            Token::EOF => self.source.error(token.span, format!("expected {expected}, but the statement ends here")),
            _ => self.source.error(token.span, format!("expected {expected}, found {token}")),
        }
    }

    fn head(&mut self) -> Result<(Ident, bool)> {
        self.words(&["CREATE"]);
        self.words(&["TEMPORARY"]);
        self.words(&["TABLE"]);
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let mut name = self.ident()?;
        while self.parser.consume_token(&Token::Period) {
            // Catalogs and databases do not exist here: `default_catalog.default_database.t` is t.
            name = self.ident()?;
        }
        Ok((name, if_not_exists))
    }

    fn body(&mut self, body: &mut Body) -> Result<()> {
        loop {
            let next = self.parser.peek_nth_token(1);
            if is_word(&self.parser.peek_token(), "WATERMARK") && is_word(&next, "FOR") {
                let span = self.parser.peek_token().span;
                self.words(&["WATERMARK", "FOR"]);
                let column = self.ident()?;
                if !self.words(&["AS"]) {
                    return Err(self.unexpected("AS"));
                }
                if body.watermark.is_some() {
                    return Err(self.source.error(span, "a table has one WATERMARK"));
                }
                body.watermark = Some((column, self.expr()?));
            } else if is_word(&self.parser.peek_token(), "PRIMARY") && is_word(&next, "KEY") {
                self.primary_key(body)?;
            } else if is_word(&self.parser.peek_token(), "CONSTRAINT") {
                self.parser.next_token();
                self.ident()?;
                self.primary_key(body)?;
            } else {
                self.column(body)?;
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        if self.parser.peek_token().token != Token::RParen {
            return Err(self.unexpected("',' or ')'"));
        }
        self.parser.next_token();
        Ok(())
    }

    fn primary_key(&mut self, body: &mut Body) -> Result<()> {
        let span = self.parser.peek_token().span;
        if !self.words(&["PRIMARY", "KEY"]) {
            return Err(self.unexpected("PRIMARY KEY"));
        }
        self.expect(&Token::LParen)?;
        let mut columns = vec![self.ident()?];
        while self.parser.consume_token(&Token::Comma) {
            columns.push(self.ident()?);
        }
        self.expect(&Token::RParen)?;
        self.not_enforced(span)?;
        self.set_key(body, columns, span)
    }

    fn not_enforced(&mut self, span: Span) -> Result<()> {
        match self.words(&["NOT", "ENFORCED"]) {
            true => Ok(()),
            false => Err(self
                .source
                .error(span, "a PRIMARY KEY is not checked")
                .with_hint("write PRIMARY KEY (...) NOT ENFORCED")),
        }
    }

    fn set_key(&self, body: &mut Body, columns: Vec<Ident>, span: Span) -> Result<()> {
        match body.primary_key.replace((columns, span)) {
            None => Ok(()),
            Some(_) => Err(self.source.error(span, "a table has one PRIMARY KEY")),
        }
    }

    fn column(&mut self, body: &mut Body) -> Result<()> {
        let name = self.ident()?;
        if body.columns.iter().any(|column| column.name.value == name.value) {
            return Err(self.source.error(name.span, format!("column '{}' is there twice", name.value)));
        }
        if self.words(&["AS"]) {
            let kind = Kind::Computed(Box::new(self.expr()?));
            if self.words(&["COMMENT"]) {
                self.string()?;
            }
            body.columns.push(ColumnText { name, data_type: DataType::Null, nullable: true, kind });
            return Ok(());
        }
        let written = types::parse(&mut self.parser, self.source)?;
        if written.too_fine {
            body.notes.push(format!("column {}: timestamps keep milliseconds, finer digits are cut", name.value));
        }
        let mut kind = Kind::Physical;
        let mut nullable = written.nullable;
        loop {
            let span = self.parser.peek_token().span;
            if self.words(&["METADATA"]) {
                let key = if self.words(&["FROM"]) { Some(self.string()?.0) } else { None };
                kind = Kind::Metadata { key, is_virtual: self.words(&["VIRTUAL"]) };
            } else if self.words(&["COMMENT"]) {
                self.string()?;
            } else if self.words(&["NOT", "NULL"]) {
                nullable = false;
            } else if self.words(&["PRIMARY", "KEY"]) {
                self.not_enforced(span)?;
                self.set_key(body, vec![name.clone()], span)?;
                nullable = false;
            } else {
                break;
            }
        }
        body.columns.push(ColumnText { name, data_type: written.data_type, nullable, kind });
        Ok(())
    }

    /// What stands behind the columns: COMMENT, WITH; returns the options.
    fn tail(&mut self) -> Result<Vec<options::Written>> {
        let mut written = Vec::new();
        loop {
            let token = self.parser.peek_token();
            if self.words(&["COMMENT"]) {
                self.string()?;
            } else if is_word(&token, "PARTITIONED") {
                return Err(self.source.error(token.span, "PARTITIONED BY is not supported").with_hint(
                    "topics are partitioned by PRIMARY KEY or group keys; filesystem sinks write one folder",
                ));
            } else if is_word(&token, "DISTRIBUTED") || is_word(&token, "LIKE") || is_word(&token, "AS") {
                return Err(self.source.error(token.span, format!("CREATE TABLE ... {token} is not supported")));
            } else if self.parser.parse_keyword(Keyword::WITH) {
                self.with(&mut written)?;
            } else if token.token == Token::EOF {
                return Ok(written);
            } else {
                return Err(self.unexpected("WITH (...) or the end of the statement"));
            }
        }
    }

    fn with(&mut self, written: &mut Vec<options::Written>) -> Result<()> {
        self.expect(&Token::LParen)?;
        loop {
            let (key, key_span) = self.string()?;
            self.expect(&Token::Eq)?;
            let (value, value_span) = self.string()?;
            written.push(options::Written { key, value, key_span, value_span });
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(())
    }

    /// Binds the columns to the raw row.
    fn resolve(&self, name: Ident, columns: Vec<ColumnText>, options: TableOptions) -> Result<Table> {
        let physical: Vec<&ColumnText> =
            columns.iter().filter(|column| matches!(column.kind, Kind::Physical)).collect();
        let fields: Vec<Field> =
            physical.iter().map(|c| Field::new(&c.name.value, c.data_type.clone(), c.nullable)).collect();
        let declared: SchemaRef = Arc::new(Schema::new(fields));
        let count = declared.fields().len();
        let mut writable_metadata = None;
        let mut values: Vec<Option<TableColumn>> = Vec::new();
        let mut next = 0;
        // Plain and metadata columns first: computed columns see both, but not each other (as in Flink).
        for column in &columns {
            let value = match &column.kind {
                Kind::Physical => {
                    next += 1;
                    Some(Typed::column(&column.name.value, next - 1, column.data_type.clone(), column.nullable))
                }
                Kind::Metadata { key, is_virtual } => {
                    if !is_virtual {
                        writable_metadata = Some(column.name.value.clone());
                    }
                    Some(self.metadata(column, key.as_deref(), count)?)
                }
                Kind::Computed(_) => None,
            };
            let (name, span) = (column.name.value.clone(), column.name.span);
            values.push(value.map(|value| TableColumn { name, span, value, proctime: false }));
        }
        let visible = raw_scope(values.iter().flatten());
        let append_time = METADATA.iter().position(|(column, ..)| *column == MetadataColumn::AppendTime);
        let scope = Scope { columns: &visible, append_time: append_time.map(|place| count + place), zone: self.zone };
        let mut all = Vec::new();
        for (column, value) in columns.iter().zip(values) {
            all.push(match (value, &column.kind) {
                (Some(value), _) => value,
                (None, Kind::Computed(expr)) => {
                    let value = Binder::new(self.source, scope).bind(expr)?;
                    if value.data_type == DataType::Null {
                        return Err(self.source.error(span_of(expr), "NULL has no type: CAST it"));
                    }
                    let (name, span) = (column.name.value.clone(), column.name.span);
                    TableColumn { name, span, value, proctime: is_proctime(expr) }
                }
                (None, _) => return Err(self.source.error(column.name.span, "column without a value")),
            });
        }
        let (name, span) = (name.value, name.span);
        let primary_key = Vec::new();
        let (watermark, replaced) = (None, false);
        Ok(Table { name, span, declared, columns: all, watermark, primary_key, writable_metadata, options, replaced })
    }

    /// The raw format is one column of text or bytes.
    fn check_format(&self, table: &Table) -> Result<()> {
        let fields = table.declared.fields();
        let fits = fields.len() == 1 && matches!(fields[0].data_type(), DataType::Utf8 | DataType::Binary);
        match table.options.format == FormatSpec::Raw && !fits {
            true => Err(self.source.error(table.span, "format 'raw' needs exactly one column, STRING or BYTES")),
            false => Ok(()),
        }
    }

    fn metadata(&self, column: &ColumnText, key: Option<&str>, physical: usize) -> Result<Typed> {
        let key = key.unwrap_or(&column.name.value);
        let Some(place) = METADATA.iter().position(|(_, name, _)| *name == key) else {
            let error = self.source.error(column.name.span, format!("unknown metadata key '{key}'"));
            return Err(error.with_hint("keys are: timestamp, partition, offset, append-time, key"));
        };
        let (which, _, name) = METADATA[place];
        let (data_type, nullable) = metadata_type(which);
        let typed = Typed::column(name, physical + place, data_type, nullable);
        cast::In(self.zone)
            .explicit(typed, &column.data_type)
            .map_err(|message| self.source.error(column.name.span, message))
    }

    fn watermark(&self, table: &Table, column: &Ident, expr: &ast::Expr) -> Result<(usize, Typed)> {
        let Some(index) = table.columns.iter().position(|known| known.name == column.value) else {
            let error = self.source.error(column.span, format!("unknown column '{}'", column.value));
            return Err(match nearest(&column.value, table.columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                None => error,
            });
        };
        let rowtime = &table.columns[index].value.data_type;
        if !matches!(rowtime, DataType::Timestamp(..)) {
            let found = types::name(rowtime);
            return Err(self
                .source
                .error(
                    column.span,
                    format!("event time must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), '{}' is {found}", column.value),
                )
                .with_hint(format!("add a column: ts AS TO_TIMESTAMP_LTZ({}, 3)", column.value)));
        }
        let visible = table.scope();
        let typed =
            Binder::new(self.source, Scope { columns: &visible, append_time: None, zone: self.zone }).bind(expr)?;
        if typed.data_type != *rowtime {
            let found = types::name(&typed.data_type);
            return Err(self
                .source
                .error(span_of(expr), format!("a watermark has the type of its column, not {found}")));
        }
        Ok((index, typed))
    }

    fn key_column(&self, table: &Table, ident: &Ident) -> Result<usize> {
        table.declared.fields().iter().position(|field| *field.name() == ident.value).ok_or_else(|| {
            let error = self.source.error(ident.span, format!("unknown column '{}'", ident.value));
            match nearest(&ident.value, table.declared.fields().iter().map(|field| field.name().as_str())) {
                Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                None => error,
            }
        })
    }
}

/// The columns that computed columns see, where they stand in the raw row.
fn raw_scope<'t>(columns: impl Iterator<Item = &'t TableColumn>) -> Vec<Column> {
    let mut visible = Vec::new();
    for column in columns {
        // A metadata column under a cast has no place of its own; it cannot be named by computed columns then.
        let Some(place) = column.value.expr.downcast_ref::<datafusion_physical_expr::expressions::Column>() else {
            continue;
        };
        visible.push(Column {
            qualifier: None,
            name: column.name.clone(),
            data_type: column.value.data_type.clone(),
            nullable: column.value.nullable,
            slot: Slot::Row(place.index()),
            role: Role::Plain,
            span: column.span,
        });
    }
    visible
}
