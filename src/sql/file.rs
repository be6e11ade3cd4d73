//! The statements of a file, one after the other.

use super::assemble::{self, Insert};
use super::branch::Branch;
use super::check::{self, CheckPlan};
use super::expr::{Column, Role, Slot, Typed};
use super::options::Connector;
use super::query::{Queries, Relation, View};
use super::settings::Settings;
use super::table::{self, Table};
use super::text::{Source, Statement, is_word, nearest};
use super::{cast, expr, functions, types, window};
use crate::engine::plan::{JobPlan, NamedExpr, OutputPlan, SinkKind, Step};
use crate::error::{Error, Result};
use crate::format::{FormatSpec, JsonOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use sqlparser::ast::Ident;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token};
use std::sync::Arc;

struct File<'f> {
    source: Source<'f>,
    tables: Vec<Table>,
    views: Vec<View>,
    /// Every CREATE so far.
    definitions: Vec<Statement>,
    outputs: Vec<OutputPlan>,
    inserts: Vec<Insert>,
    notes: Vec<String>,
    selects: usize,
    settings: Settings,
    statement_set: Option<Span>,
    checks: Vec<CheckPlan>,
}

/// Plans a file.
pub(super) fn plan(source: Source<'_>, text: &str) -> Result<(JobPlan, Vec<CheckPlan>)> {
    let mut file = File {
        source,
        tables: Vec::new(),
        views: Vec::new(),
        definitions: Vec::new(),
        outputs: Vec::new(),
        inserts: Vec::new(),
        notes: Vec::new(),
        selects: 0,
        settings: Settings::default(),
        statement_set: None,
        checks: Vec::new(),
    };
    for statement in source.statements(text)? {
        file.statement(statement)?;
    }
    if let Some(at) = file.statement_set {
        return Err(source.error(at, "this statement set has no END"));
    }
    if file.inserts.is_empty() {
        return Err(Error::input(format!("{}: nothing to run", source.file))
            .with_hint("a job needs at least one INSERT INTO or SELECT"));
    }
    let checkpoint_interval_us = file.settings.checkpoint_interval_us;
    let plan = assemble::job(&file.tables, file.outputs, &file.inserts, file.notes)?;
    Ok((JobPlan { checkpoint_interval_us, ..plan }, file.checks))
}

impl File<'_> {
    fn statement(&mut self, mut statement: Statement) -> Result<()> {
        let set = [&["EXECUTE", "STATEMENT", "SET", "BEGIN"][..], &["BEGIN", "STATEMENT", "SET"][..]];
        if let Some(words) = set.iter().find(|words| statement.starts_with(words)) {
            if self.statement_set.replace(statement.start).is_some() {
                return Err(self.source.error(statement.start, "a statement set in a statement set"));
            }
            statement.tokens.drain(..words.len());
            if statement.tokens.is_empty() {
                return Ok(());
            }
        }
        let temporary = &["CREATE", "TEMPORARY"];
        let kind = if statement.starts_with(temporary) { statement.tokens.get(2) } else { statement.tokens.get(1) };
        let is = |word: &str| kind.is_some_and(|token| is_word(token, word));
        if statement.starts_with(&["CREATE", "CHECK"]) {
            return self.create_check(&statement);
        }
        if statement.starts_with(&["CREATE"]) {
            self.definitions.push(statement.clone());
            return match (is("TABLE"), is("VIEW")) {
                (true, _) => self.create_table(&statement),
                (_, true) => self.create_view(&statement),
                _ => Err(self
                    .source
                    .error(statement.start, "only CREATE TABLE, CREATE VIEW and CREATE CHECK are supported")),
            };
        }
        if statement.starts_with(&["INSERT"]) {
            return self.insert(&statement);
        }
        if statement.starts_with(&["SELECT"]) || statement.starts_with(&["WITH"]) {
            return self.select(&statement);
        }
        if statement.starts_with(&["SET"]) {
            return self.set(&statement);
        }
        if statement.starts_with(&["END"]) && statement.tokens.len() == 1 {
            return match self.statement_set.take() {
                Some(_) => Ok(()),
                None => Err(self.source.error(statement.start, "END without EXECUTE STATEMENT SET BEGIN")),
            };
        }
        Err(self.refused(&statement))
    }

    fn refused(&self, statement: &Statement) -> Error {
        let first = statement.tokens.first().map(ToString::to_string).unwrap_or_default().to_uppercase();
        let known = [
            "DROP", "ALTER", "USE", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "LOAD", "UNLOAD", "RESET", "ADD", "REMOVE",
            "ANALYZE", "DELETE", "UPDATE", "TRUNCATE", "CALL", "COMPILE", "EXECUTE", "STOP", "BEGIN",
        ];
        let hint = "a job file has CREATE TABLE, CREATE VIEW, INSERT INTO, SELECT, SET and EXECUTE STATEMENT SET";
        if known.contains(&first.as_str()) {
            return self.source.error(statement.start, format!("{first} is not part of a job file")).with_hint(hint);
        }
        let error = self.source.error(statement.start, format!("expected a statement, found {first}"));
        match nearest(&first, ["CREATE", "INSERT", "SELECT", "SET", "WITH", "EXECUTE"]) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(hint),
        }
    }

    /// The tables that names mean.
    fn current(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| !table.replaced)
    }

    fn taken(&self, name: &str) -> bool {
        self.current().any(|table| table.name == name) || self.views.iter().any(|view| view.name == name)
    }

    fn create_table(&mut self, statement: &Statement) -> Result<()> {
        let created = table::create(statement, self.source, self.settings.zone)?;
        let name = &created.table.name;
        if self.taken(name) {
            return match created.if_not_exists {
                true => Ok(()),
                false => Err(self.source.error(created.table.span, format!("'{name}' is there already"))),
            };
        }
        self.notes.extend(created.notes);
        self.tables.push(created.table);
        Ok(())
    }

    /// Runs `parse` over the statement with its window calls taken out, then binds the query that it gives.
    fn bind<H>(
        &self,
        statement: &Statement,
        head: impl FnOnce(&mut Parser<'static>) -> Result<H>,
    ) -> Result<(H, Relation)> {
        let (statement, calls) = window::take_out(statement, self.source)?;
        let mut parser = statement.parser();
        let head = head(&mut parser)?;
        let at = statement.start.start;
        let query = parser.parse_query().map_err(|error| self.source.parser_error(&error, at))?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            return Err(self.source.error(rest.span, format!("expected the end of the statement, found {rest}")));
        }
        let mut queries = Queries {
            source: self.source,
            tables: &self.tables,
            views: &self.views,
            calls: &calls,
            zone: self.settings.zone,
            common: Vec::new(),
        };
        let relation = queries.query(&query)?;
        Ok((head, relation))
    }

    fn ident(&self, parser: &mut Parser<'static>) -> Result<Ident> {
        let at = parser.peek_token().span.start;
        let mut ident = parser.parse_identifier().map_err(|error| self.source.parser_error(&error, at))?;
        while parser.consume_token(&Token::Period) {
            let at = parser.peek_token().span.start;
            ident = parser.parse_identifier().map_err(|error| self.source.parser_error(&error, at))?;
        }
        Ok(ident)
    }

    /// `(a, b)`, if it is there and not the beginning of a query.
    fn ident_list(&self, parser: &mut Parser<'static>) -> Result<Option<Vec<Ident>>> {
        let next = parser.peek_nth_token(1);
        let query = is_word(&next, "SELECT") || is_word(&next, "WITH") || next.token == Token::LParen;
        if parser.peek_token().token != Token::LParen || query {
            return Ok(None);
        }
        parser.next_token();
        let mut idents = vec![self.ident(parser)?];
        loop {
            if is_word(&parser.peek_token(), "COMMENT") {
                parser.next_token();
                parser.next_token();
            }
            let token = parser.next_token();
            match token.token {
                Token::Comma => idents.push(self.ident(parser)?),
                Token::RParen => return Ok(Some(idents)),
                _ => return Err(self.source.error(token.span, format!("expected ',' or ')', found {token}"))),
            }
        }
    }

    fn word(&self, parser: &mut Parser<'static>, word: &str) -> Result<()> {
        let token = parser.next_token();
        match is_word(&token, word) {
            true => Ok(()),
            false => Err(self.source.error(token.span, format!("expected {word}, found {token}"))),
        }
    }

    fn create_view(&mut self, statement: &Statement) -> Result<()> {
        let ((name, names, if_not_exists), mut relation) = self.bind(statement, |parser| {
            parser.next_token();
            if is_word(&parser.peek_token(), "TEMPORARY") {
                parser.next_token();
            }
            parser.next_token();
            let if_not_exists = is_word(&parser.peek_token(), "IF") && is_word(&parser.peek_nth_token(1), "NOT");
            if if_not_exists {
                parser.next_token();
                parser.next_token();
                self.word(parser, "EXISTS")?;
            }
            let name = self.ident(parser)?;
            let names = self.ident_list(parser)?;
            if is_word(&parser.peek_token(), "COMMENT") {
                parser.next_token();
                parser.next_token();
            }
            self.word(parser, "AS")?;
            Ok((name, names, if_not_exists))
        })?;
        if self.taken(&name.value) {
            return match if_not_exists {
                true => Ok(()),
                false => Err(self.source.error(name.span, format!("'{}' is there already", name.value))),
            };
        }
        for branch in &mut relation {
            self.name_columns(branch, names.as_deref(), &name)?;
        }
        self.views.push(View { name: name.value, relation });
        Ok(())
    }

    fn name_columns(&self, branch: &mut Branch, names: Option<&[Ident]>, view: &Ident) -> Result<()> {
        if let Some(names) = names {
            if names.len() != branch.columns.len() {
                let (given, there) = (names.len(), branch.columns.len());
                let message = format!("view '{}' has {given} column names for {there} columns", view.value);
                return Err(self.source.error(view.span, message));
            }
            for (column, name) in branch.columns.iter_mut().zip(names) {
                column.name = name.value.clone();
            }
        }
        for (n, column) in branch.columns.iter().enumerate() {
            if branch.columns[..n].iter().any(|before| before.name == column.name) {
                let message = format!("view '{}' has two columns '{}'", view.value, column.name);
                return Err(self.source.error(column.span, message).with_hint("name them apart with AS"));
            }
        }
        Ok(())
    }

    fn insert(&mut self, statement: &Statement) -> Result<()> {
        let ((name, columns), relation) = self.bind(statement, |parser| {
            parser.next_token();
            if is_word(&parser.peek_token(), "OVERWRITE") {
                let at = parser.peek_token().span;
                return Err(self.source.error(at, "INSERT OVERWRITE is not supported: a topic only grows"));
            }
            self.word(parser, "INTO")?;
            Ok((self.ident(parser)?, self.ident_list(parser)?))
        })?;
        let Some(table) = self.current().find(|table| table.name == name.value) else {
            let error = self.source.error(name.span, format!("unknown table '{}'", name.value));
            return Err(match nearest(&name.value, self.current().map(|table| table.name.as_str())) {
                Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                None => error.with_hint("create it with CREATE TABLE above this statement"),
            });
        };
        if let Some(column) = &table.writable_metadata {
            let message = format!("'{}' has the metadata column '{column}', which cannot be written", table.name);
            return Err(self.source.error(name.span, message).with_hint("declare it VIRTUAL"));
        }
        let targets = self.targets(table, columns.as_deref())?;
        let mut branches = Vec::new();
        for branch in relation {
            branches.push(self.assign(branch, table, &targets, &name)?);
        }
        let output = self.output(table.clone());
        let emission = self.settings.emission(self.source)?;
        self.inserts.extend(branches.into_iter().map(|branch| Insert { output, branch, emission }));
        Ok(())
    }

    /// For each sink column the column of the query that goes there.
    fn targets(&self, table: &Table, columns: Option<&[Ident]>) -> Result<Vec<Option<usize>>> {
        let fields = table.declared.fields();
        let Some(columns) = columns else { return Ok((0..fields.len()).map(Some).collect()) };
        let mut targets = vec![None; fields.len()];
        for (n, ident) in columns.iter().enumerate() {
            let Some(place) = fields.iter().position(|field| *field.name() == ident.value) else {
                let message = format!("table '{}' has no column '{}' to write", table.name, ident.value);
                let error = self.source.error(ident.span, message);
                return Err(match nearest(&ident.value, fields.iter().map(|field| field.name().as_str())) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error,
                });
            };
            if targets[place].replace(n).is_some() {
                return Err(self.source.error(ident.span, format!("column '{}' is there twice", ident.value)));
            }
        }
        Ok(targets)
    }

    /// Casts a query's columns to those of the sink.
    fn assign(&self, mut branch: Branch, table: &Table, targets: &[Option<usize>], at: &Ident) -> Result<Branch> {
        self.queries().finish(&mut branch)?;
        let given = branch.columns.len();
        let wanted = targets.iter().flatten().count();
        if given != wanted {
            let message = format!("table '{}' takes {wanted} columns, the query gives {given}", table.name);
            return Err(self.source.error(at.span, message));
        }
        let mut values = Vec::new();
        for (field, target) in table.declared.fields().iter().zip(targets) {
            let typed = match target.and_then(|place| branch.columns.get(place)) {
                Some(column) => self.assigned(column, field)?,
                None if !field.is_nullable() => {
                    let message =
                        format!("column '{}' of '{}' is NOT NULL and gets no value", field.name(), table.name);
                    return Err(self.source.error(at.span, message));
                }
                None => cast::explicit(Typed::literal(ScalarValue::Null), field.data_type())
                    .map_err(|message| self.source.error(at.span, message))?,
            };
            values.push((typed, Arc::clone(field)));
        }
        let rowtime = |typed: &Typed| {
            branch.columns.iter().any(|c| {
                c.role == Role::Rowtime
                    && c.data_type == typed.data_type
                    && c.typed().expr.as_ref() == typed.expr.as_ref()
            })
        };
        let columns: Vec<Column> = values
            .iter()
            .enumerate()
            .map(|(place, (typed, field))| Column {
                qualifier: None,
                name: field.name().clone(),
                data_type: field.data_type().clone(),
                nullable: field.is_nullable(),
                slot: Slot::Row(place),
                role: if rowtime(typed) { Role::Rowtime } else { Role::Plain },
                span: at.span,
            })
            .collect();
        let values: Vec<NamedExpr> =
            values.into_iter().map(|(typed, field)| NamedExpr { expr: typed.expr, field }).collect();
        last_projection(&mut branch, values)?;
        branch.columns = columns;
        branch.append_time = None;
        Ok(branch)
    }

    fn assigned(&self, column: &Column, field: &Field) -> Result<Typed> {
        let (from, to) = (&column.data_type, field.data_type());
        if !cast::assigns(from, to) {
            let message = format!(
                "column '{}' is {}, but '{}' of the table is {}",
                column.name,
                types::name(from),
                field.name(),
                types::name(to)
            );
            let hint = format!("CAST({} AS {})", column.name, types::name(to));
            return Err(self.source.error(column.span, message).with_hint(hint));
        }
        let typed = cast::In(self.settings.zone)
            .implicit(column.typed(), to)
            .map_err(|message| self.source.error(column.span, message))?;
        Ok(if field.is_nullable() { typed } else { functions::not_null(typed, field.name()) })
    }

    fn queries(&self) -> Queries<'_> {
        Queries {
            source: self.source,
            tables: &self.tables,
            views: &self.views,
            calls: &[],
            zone: self.settings.zone,
            common: Vec::new(),
        }
    }

    /// The index of the table's output, made if it is new.
    fn output(&mut self, table: Table) -> usize {
        if let Some(place) = self.outputs.iter().position(|output| output.table == table.name) {
            return place;
        }
        let sink = match &table.options.connector {
            Connector::Topic | Connector::Upsert => SinkKind::Topic,
            Connector::Print => SinkKind::Print,
            Connector::Blackhole => SinkKind::Blackhole,
            Connector::Filesystem(path) => SinkKind::Filesystem { path: path.clone() },
        };
        let topic = (sink != SinkKind::Blackhole).then_some(table.options.topic);
        self.outputs.push(OutputPlan {
            table: table.name,
            is_select: false,
            sink,
            topic,
            format: table.options.format,
            schema: table.declared,
            primary_key: table.primary_key,
            partitions: table.options.partitions,
        });
        self.outputs.len() - 1
    }

    fn select(&mut self, statement: &Statement) -> Result<()> {
        let ((), relation) = self.bind(statement, |_| Ok(()))?;
        self.selects += 1;
        let name = format!("select-{}", self.selects);
        let mut fields: Vec<Field> = Vec::new();
        for column in relation.first().map(|branch| branch.columns.as_slice()).unwrap_or_default() {
            let name = free_name(&column.name, &fields);
            let data_type = match &column.data_type {
                DataType::Null => {
                    return Err(self.source.error(column.span, "NULL has no type: CAST it"));
                }
                other => other.clone(),
            };
            let nullable = relation
                .iter()
                .any(|branch| branch.columns.iter().any(|other| other.name == column.name && other.nullable));
            fields.push(Field::new(name, data_type, nullable));
        }
        let schema = Arc::new(Schema::new(fields));
        let output = self.outputs.len();
        let emission = self.settings.emission(self.source)?;
        for mut branch in relation {
            self.queries().finish(&mut branch)?;
            let columns = std::mem::take(&mut branch.columns);
            let values = columns.iter().zip(schema.fields());
            let values =
                values.map(|(c, field)| NamedExpr { expr: c.typed().expr, field: Arc::clone(field) }).collect();
            last_projection(&mut branch, values)?;
            branch.columns = columns;
            for (place, column) in branch.columns.iter_mut().enumerate() {
                column.slot = Slot::Row(place);
            }
            self.inserts.push(Insert { output, branch, emission });
        }
        self.outputs.push(OutputPlan {
            table: name.clone(),
            is_select: true,
            sink: SinkKind::Print,
            topic: Some(name),
            format: FormatSpec::Json(JsonOptions::default()),
            schema,
            primary_key: Vec::new(),
            partitions: 1,
        });
        Ok(())
    }

    /// A job of its own, which nothing else of the file sees.
    fn create_check(&mut self, statement: &Statement) -> Result<()> {
        let ((name, at), severity, query) = check::head(statement, self.source)?;
        if self.checks.iter().any(|check| check.name == name) {
            return Err(self.source.error(at, format!("check '{name}' is there already")));
        }
        let of_job = (std::mem::take(&mut self.outputs), std::mem::take(&mut self.inserts), self.selects);
        self.select(&query)?;
        let (outputs, inserts) = (std::mem::take(&mut self.outputs), std::mem::take(&mut self.inserts));
        (self.outputs, self.inserts, self.selects) = of_job;
        let plan = assemble::job(&self.tables, outputs, &inserts, Vec::new())?;
        self.checks.push(CheckPlan { name, severity, plan });
        Ok(())
    }

    fn set(&mut self, statement: &Statement) -> Result<()> {
        let rest = &statement.tokens[1..];
        let text = |token: &Token| match token {
            Token::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        };
        let (key, value) = match rest {
            [key, equals, value] if equals.token == Token::Eq => (key, value),
            _ => return Err(self.source.error(statement.start, "expected SET 'key' = 'value'")),
        };
        let (Some(name), Some(setting)) = (text(&key.token), text(&value.token)) else {
            return Err(self.source.error(key.span, "expected SET 'key' = 'value', both in single quotes"));
        };
        let before = self.settings.zone;
        self.notes.extend(self.settings.set(self.source, (&name, key.span), (&setting, value.span))?);
        if self.settings.zone != before { self.redefine() } else { Ok(()) }
    }

    /// Reads the definitions of tables and views anew: as in Flink, the settings at their use are what counts.
    fn redefine(&mut self) -> Result<()> {
        for table in &mut self.tables {
            table.replaced = true;
        }
        self.views.clear();
        let told = self.notes.len();
        for statement in std::mem::take(&mut self.definitions) {
            self.statement(statement)?;
        }
        self.notes.truncate(told);
        Ok(())
    }
}

/// The name, or with a number behind it (as Calcite does) where it is taken.
fn free_name(name: &str, taken: &[Field]) -> String {
    let is_taken = |name: &str| taken.iter().any(|field| field.name() == name);
    if !is_taken(name) {
        return name.to_owned();
    }
    (0..).map(|n| format!("{name}{n}")).find(|name| !is_taken(name)).unwrap_or_default()
}

/// Adds the projection to the sink's columns, merged into the one before it where there is one.
fn last_projection(branch: &mut Branch, values: Vec<NamedExpr>) -> Result<()> {
    let values = match branch.steps.pop() {
        Some(Step::Project { columns, .. }) => {
            let merged = values.into_iter().map(|value| {
                let merged = expr::replace_columns(&value.expr, &|column| {
                    columns.get(column.index()).map(|before| Arc::clone(&before.expr))
                })?;
                Ok(NamedExpr { expr: merged, field: value.field })
            });
            merged.collect::<Result<Vec<_>>>()?
        }
        other => {
            branch.steps.extend(other);
            values
        }
    };
    branch.row = values.iter().map(|value| Arc::clone(&value.field)).collect();
    let schema = branch.schema();
    branch.steps.push(Step::Project { columns: values, schema });
    Ok(())
}
