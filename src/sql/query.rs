//! Queries: names, tables and subqueries, from the parsed statement to [`Branch`]es.

use super::branch::Branch;
use super::expr::{Binder, Column};
use super::table::Table;
use super::text::{Source, nearest};
use super::types;
use super::window::WindowCall;
use crate::engine::plan::Zone;
use crate::error::{Error, Result};
use arrow::datatypes::Field;
use sqlparser::ast::{self, ObjectName, Spanned};
use sqlparser::tokenizer::Span;
use std::sync::Arc;

/// A bound query: one branch for each part of a UNION ALL, all with the same columns.
pub(super) type Relation = Vec<Branch>;

/// A view of the file.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Name.
    pub name: String,
    /// What it stands for.
    pub relation: Relation,
}

/// Binds the queries of one statement.
pub(super) struct Queries<'q> {
    /// The file.
    pub source: Source<'q>,
    /// Tables of the file so far.
    pub tables: &'q [Table],
    /// Views of the file so far.
    pub views: &'q [View],
    /// Window calls of the statement.
    pub calls: &'q [WindowCall],
    /// The session's time zone; `None`: UTC.
    pub zone: Option<Zone>,
    /// `WITH` queries in scope.
    pub common: Vec<View>,
}

impl Queries<'_> {
    /// Binds a query.
    pub fn query(&mut self, query: &ast::Query) -> Result<Relation> {
        let at = query.span();
        if let Some(order) = &query.order_by {
            return Err(self
                .source
                .error(order.span(), "ORDER BY is not supported on a stream")
                .with_hint("results come in the order of their window's end; sort where they are read"));
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            return Err(self.source.error(at, "LIMIT is not supported on a stream"));
        }
        let known = self.common.len();
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                if with.recursive {
                    return Err(self.source.error(table.alias.name.span, "WITH RECURSIVE is not supported"));
                }
                let relation = self.query(&table.query)?;
                let relation = self.aliased(relation, Some(&table.alias))?;
                self.common.push(View { name: table.alias.name.value.clone(), relation });
            }
        }
        let relation = self.body(&query.body);
        self.common.truncate(known);
        relation
    }

    fn body(&mut self, body: &ast::SetExpr) -> Result<Relation> {
        match body {
            ast::SetExpr::Select(select) => self.select(select),
            ast::SetExpr::Query(query) => self.query(query),
            ast::SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let all = matches!(set_quantifier, ast::SetQuantifier::All);
                if !(matches!(op, ast::SetOperator::Union) && all) {
                    return Err(self
                        .source
                        .error(right.span(), format!("{op} is not supported on streams"))
                        .with_hint("UNION ALL is"));
                }
                let first = self.body(left)?;
                let second = self.body(right)?;
                self.union(first, second, right.span())
            }
            ast::SetExpr::Values(_) => {
                Err(self.source.error(body.span(), "VALUES is not supported: read from a table"))
            }
            other => Err(self.source.error(other.span(), "expected SELECT")),
        }
    }

    fn union(&self, mut first: Relation, second: Relation, at: Span) -> Result<Relation> {
        for mut branch in second {
            let (left, right) = (&first[0].columns, &branch.columns);
            if left.len() != right.len() {
                let message = format!("UNION ALL of {} and {} columns", left.len(), right.len());
                return Err(self.source.error(at, message));
            }
            for (l, r) in left.iter().zip(right) {
                if l.data_type != r.data_type {
                    let (a, b) = (types::name(&l.data_type), types::name(&r.data_type));
                    return Err(self
                        .source
                        .error(r.span, format!("UNION ALL: column '{}' is {a} above and {b} here", l.name))
                        .with_hint("CAST one of them"));
                }
            }
            for (column, named) in branch.columns.iter_mut().zip(first[0].columns.clone()) {
                column.name = named.name;
            }
            first.push(branch);
        }
        Ok(first)
    }

    fn select(&mut self, select: &ast::Select) -> Result<Relation> {
        self.refuse(select)?;
        let from = match select.from.as_slice() {
            [from] => from,
            [] => return Err(self.source.error(select.span(), "a query needs FROM: there is no stream of nothing")),
            [_, second, ..] => return Err(self.no_join(second.relation.span())),
        };
        if let Some(join) = from.joins.first() {
            return Err(self.no_join(join.relation.span()));
        }
        let input = self.factor(&from.relation)?;
        let many = input.len() > 1;
        input.into_iter().map(|branch| self.select_from(select, branch, many)).collect()
    }

    fn no_join(&self, at: Span) -> Error {
        self.source
            .error(at, "joins are not supported yet")
            .with_hint("read one table, view or subquery; UNION ALL joins streams end to end")
    }

    fn refuse(&self, select: &ast::Select) -> Result<()> {
        let at = select.span();
        let refused = [
            (
                select.distinct.is_some(),
                "SELECT DISTINCT is not supported on a stream: GROUP BY the columns in a window",
            ),
            (select.qualify.is_some(), "QUALIFY is not supported"),
            (!select.named_window.is_empty(), "OVER windows are not supported"),
            (select.into.is_some(), "SELECT INTO is not supported: use INSERT INTO"),
            (select.top.is_some(), "TOP is not supported"),
            (!select.lateral_views.is_empty(), "LATERAL is not supported"),
            (select.prewhere.is_some() || !select.connect_by.is_empty(), "this clause is not part of Flink SQL"),
            (!select.sort_by.is_empty() || !select.cluster_by.is_empty(), "this clause is not part of Flink SQL"),
        ];
        match refused.iter().find(|(refused, _)| *refused) {
            Some((_, message)) => Err(self.source.error(at, *message)),
            None => Ok(()),
        }
    }

    fn factor(&mut self, factor: &ast::TableFactor) -> Result<Relation> {
        match factor {
            ast::TableFactor::Table { name, alias, args: None, .. } => {
                let relation = self.named(name)?;
                self.aliased(relation, alias.as_ref())
            }
            ast::TableFactor::Derived { lateral: false, subquery, alias, .. } => {
                let mut relation = self.query(subquery)?;
                for column in relation.iter_mut().flat_map(|branch| &mut branch.columns) {
                    column.qualifier = None;
                }
                self.aliased(relation, alias.as_ref())
            }
            other => Err(self.source.error(other.span(), format!("FROM {other} is not supported"))),
        }
    }

    pub fn named(&mut self, name: &ObjectName) -> Result<Relation> {
        let span = name.span();
        let ident = match name.0.last() {
            Some(ast::ObjectNamePart::Identifier(ident)) => ident,
            _ => return Err(self.source.error(span, format!("unknown table {name}"))),
        };
        let wanted = &ident.value;
        if let Some(call) = self.calls.iter().find(|call| call.stand_in == *wanted) {
            return self.windowed(call);
        }
        if let Some(view) = self.common.iter().rev().chain(self.views).find(|view| view.name == *wanted) {
            let mut relation = view.relation.clone();
            for column in relation.iter_mut().flat_map(|branch| &mut branch.columns) {
                column.qualifier = Some(wanted.clone());
            }
            return Ok(relation);
        }
        if let Some(index) = self.tables.iter().position(|table| !table.replaced && table.name == *wanted) {
            return Ok(vec![self.scan(index)]);
        }
        let error = self.source.error(ident.span, format!("unknown table '{wanted}'"));
        let known = self.tables.iter().map(|table| table.name.as_str());
        let known = known.chain(self.views.iter().map(|view| view.name.as_str()));
        Err(match nearest(wanted, known) {
            Some(near) => error.with_hint(format!("did you mean '{near}'?")),
            None => error.with_hint("create it with CREATE TABLE or CREATE VIEW above this statement"),
        })
    }

    fn scan(&self, index: usize) -> Branch {
        let table = &self.tables[index];
        let columns = table.scope();
        let mut row: Vec<_> = table.columns.iter().map(|column| column.value.field(&column.name)).collect();
        row.push(Arc::new(Field::new("append_time", types::timestamp_ltz(), false)));
        Branch {
            table: index,
            steps: Vec::new(),
            append_time: Some(row.len() - 1),
            row,
            columns,
            pending: None,
            windows: None,
            zone: self.zone,
            ranking: None,
        }
    }

    fn aliased(&self, mut relation: Relation, alias: Option<&ast::TableAlias>) -> Result<Relation> {
        let Some(alias) = alias else { return Ok(relation) };
        for branch in &mut relation {
            if !alias.columns.is_empty() && alias.columns.len() != branch.columns.len() {
                let (given, there) = (alias.columns.len(), branch.columns.len());
                let message = format!("{given} column names for {there} columns");
                return Err(self.source.error(alias.name.span, message));
            }
            for (n, column) in branch.columns.iter_mut().enumerate() {
                column.qualifier = Some(alias.name.value.clone());
                if let Some(name) = alias.columns.get(n) {
                    column.name = name.name.value.clone();
                }
            }
        }
        Ok(relation)
    }
}

/// The parts of a condition that AND joins.
pub(super) fn conjuncts(e: &ast::Expr) -> Vec<&ast::Expr> {
    match e {
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        ast::Expr::Nested(inner) => conjuncts(inner),
        other => vec![other],
    }
}

/// The column that an expression is, without anything done to it.
pub(super) fn plain_column<'b>(e: &ast::Expr, binder: &Binder<'b>) -> Option<&'b Column> {
    let idents = match e {
        ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
        ast::Expr::CompoundIdentifier(idents) => idents.as_slice(),
        ast::Expr::Nested(inner) => return plain_column(inner, binder),
        _ => return None,
    };
    let (column, used) = binder.resolve(idents).ok()?;
    (used == idents.len()).then_some(column)
}
