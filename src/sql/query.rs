//! Queries: names, clauses, and their order, from the parsed statement to [`Branch`]es.

use super::aggregate::{Grouping, contains_aggregate};
use super::branch::{Branch, Pending, WINDOW_COLUMNS, window_fields};
use super::expr::{AGGREGATE_BASE, Binder, Column, Slot, Typed, WINDOW_BASE, WindowColumn, columns_of, remap, span_of};
use super::table::Table;
use super::text::{Source, nearest};
use super::window::{Data, WindowCall};
use super::{cast, types};
use crate::engine::plan::{NamedExpr, Step, WindowKind, WindowPlan};
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Field, Schema};
use sqlparser::ast::{self, Ident, ObjectName, Spanned};
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

    fn named(&mut self, name: &ObjectName) -> Result<Relation> {
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
        if let Some(index) = self.tables.iter().position(|table| table.name == *wanted) {
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
        Branch { table: index, steps: Vec::new(), append_time: Some(row.len() - 1), row, columns, pending: None }
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

    fn windowed(&mut self, call: &WindowCall) -> Result<Relation> {
        let input = match &call.data {
            Data::Table(name) => self.named(name)?,
            Data::Query(query) => self.query(query)?,
        };
        let Ok([mut branch]) = <[Branch; 1]>::try_from(input) else {
            return Err(self.source.error(call.span, "a window over UNION ALL is not supported yet"));
        };
        if branch.is_aggregated() || branch.pending.is_some() {
            return Err(self
                .source
                .error(call.span, "a window over the results of a window is not supported yet")
                .with_hint("write the first window's results to a table and window that table in a second job"));
        }
        let rowtime = self.rowtime(&branch, &call.rowtime)?;
        let mut partition = Vec::new();
        for ident in &call.partition {
            match Binder::new(self.source, branch.scope()).resolve(std::slice::from_ref(ident))?.0.slot {
                Slot::Row(index) => partition.push(index),
                Slot::Window(_) => return Err(self.source.error(ident.span, "a window column is no key")),
            }
        }
        let time = branch.row[rowtime].data_type().clone();
        for column in &mut branch.columns {
            // Behind a window its window_time is the event time.
            column.rowtime = false;
        }
        for (which, field) in WINDOW_COLUMNS.into_iter().zip(window_fields(&time)) {
            branch.columns.push(Column {
                qualifier: None,
                name: field.name().clone(),
                data_type: field.data_type().clone(),
                nullable: false,
                slot: Slot::Window(which),
                rowtime: false,
                span: call.span,
            });
        }
        let (kind, span) = (call.kind, call.span);
        branch.pending = Some(Pending { kind, rowtime, partition, filters: Vec::new(), span });
        Ok(vec![branch])
    }

    /// The row column that `DESCRIPTOR(ident)` names, if it is the event time.
    fn rowtime(&self, branch: &Branch, ident: &Ident) -> Result<usize> {
        let (column, _) = Binder::new(self.source, branch.scope()).resolve(std::slice::from_ref(ident))?;
        if let (true, Slot::Row(index)) = (column.rowtime, column.slot) {
            return Ok(index);
        }
        let table = &self.tables[branch.table];
        let name = &ident.value;
        let error = |message: String| self.source.error(ident.span, message);
        Err(match &table.watermark {
            None => error(format!("'{name}' is no event time: table '{}' has no watermark", table.name))
                .with_hint(format!("declare WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND in CREATE TABLE")),
            Some((index, _)) => {
                let declared = &table.columns[*index].name;
                error(format!("'{name}' is not the event time of table '{}': that is '{declared}'", table.name))
                    .with_hint(format!(
                        "a view must pass '{declared}' on as it is; a computed or cast column is no event time"
                    ))
            }
        })
    }

    fn select_from(&mut self, select: &ast::Select, mut branch: Branch, many: bool) -> Result<Branch> {
        if let Some(condition) = &select.selection {
            if contains_aggregate(condition) {
                return Err(self.source.error(span_of(condition), "aggregates go into HAVING, not into WHERE"));
            }
            for conjunct in conjuncts(condition) {
                let mut binder = Binder::new(self.source, branch.scope());
                let typed = binder.bind(conjunct)?;
                let typed = cast::boolean(typed).map_err(|m| self.source.error(span_of(conjunct), m))?;
                branch.filter(typed);
            }
        }
        let grouped = match &select.group_by {
            ast::GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => keys.as_slice(),
            other => return Err(self.source.error(other.span(), format!("{other} is not supported"))),
        };
        let aggregates = select.projection.iter().any(|item| match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => contains_aggregate(e),
            _ => false,
        });
        if grouped.is_empty() && !aggregates && select.having.is_none() {
            return self.project(select, branch);
        }
        if many {
            return Err(self.source.error(select.span(), "an aggregation over UNION ALL is not supported yet"));
        }
        self.aggregate(select, branch, grouped)
    }

    fn project(&mut self, select: &ast::Select, mut branch: Branch) -> Result<Branch> {
        let binder = Binder::new(self.source, branch.scope());
        let (items, _) = self.items(select, binder)?;
        let computed = items.iter().any(|(typed, column)| {
            !matches!(column.slot, Slot::Window(_)) && columns_of(&typed.expr).iter().any(|i| *i >= WINDOW_BASE)
        });
        if !computed {
            branch.project(items);
            return Ok(branch);
        }
        self.finish(&mut branch)?;
        let binder = Binder::new(self.source, branch.scope());
        let (items, _) = self.items(select, binder)?;
        branch.project(items);
        Ok(branch)
    }

    /// Windows that nobody aggregated become columns.
    pub fn finish(&self, branch: &mut Branch) -> Result<()> {
        if let Some(Pending { kind: WindowKind::Session { .. }, span, .. }) = &branch.pending {
            return Err(self
                .source
                .error(*span, "SESSION without an aggregation is not supported")
                .with_hint("GROUP BY window_start, window_end and the session's keys"));
        }
        branch.materialize()
    }

    /// The SELECT list: values and visible columns; gives the binder back for what it collected.
    fn items<'b>(&self, select: &ast::Select, mut binder: Binder<'b>) -> Result<(Vec<(Typed, Column)>, Binder<'b>)> {
        let mut items = Vec::new();
        for (n, item) in select.projection.iter().enumerate() {
            let (e, alias) = match item {
                ast::SelectItem::UnnamedExpr(e) => (e, None),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
                ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..) => {
                    self.wildcard(item, &mut binder, &mut items)?;
                    continue;
                }
                other => return Err(self.source.error(other.span(), format!("{other} is not supported"))),
            };
            let typed = binder.bind(e)?;
            let plain = plain_column(e, &binder);
            let name = match (alias, e) {
                (Some(alias), _) => alias.value.clone(),
                (None, ast::Expr::Identifier(ident)) => ident.value.clone(),
                (None, ast::Expr::CompoundIdentifier(idents)) => {
                    idents.last().map_or(String::new(), |ident| ident.value.clone())
                }
                (None, _) => format!("EXPR${n}"),
            };
            let grouped = binder.grouping.is_some();
            let slot = match plain.map(|column| column.slot) {
                Some(slot @ Slot::Window(_)) if !grouped => slot,
                _ => Slot::Row(0),
            };
            items.push((
                typed.clone(),
                Column {
                    qualifier: None,
                    name,
                    data_type: typed.data_type,
                    nullable: typed.nullable,
                    slot,
                    rowtime: !grouped && plain.is_some_and(|column| column.rowtime),
                    span: span_of(e),
                },
            ));
        }
        Ok((items, binder))
    }

    fn wildcard(
        &self,
        item: &ast::SelectItem,
        binder: &mut Binder<'_>,
        items: &mut Vec<(Typed, Column)>,
    ) -> Result<()> {
        let span = item.span();
        if binder.grouping.is_some() {
            return Err(self.source.error(span, "* does not go with GROUP BY: name the columns"));
        }
        let qualifier = match item {
            ast::SelectItem::QualifiedWildcard(kind, _) => {
                Some(kind.to_string().trim_end_matches(".*").replace('`', ""))
            }
            _ => None,
        };
        let before = items.len();
        for column in binder.scope.columns {
            if qualifier.as_ref().is_none_or(|wanted| column.qualifier.as_ref() == Some(wanted)) {
                let mut visible = column.clone();
                visible.qualifier = None;
                items.push((column.typed(), visible));
            }
        }
        match (items.len() == before, qualifier) {
            (true, Some(qualifier)) => Err(self.source.error(span, format!("unknown table '{qualifier}'"))),
            _ => Ok(()),
        }
    }

    fn aggregate(&mut self, select: &ast::Select, branch: Branch, grouped: &[ast::Expr]) -> Result<Branch> {
        let at = grouped.first().map_or(select.span(), span_of);
        let Some(pending) = branch.pending.clone() else {
            return Err(self.no_window(&branch, at));
        };
        let (keys, window) = self.keys(&branch, grouped)?;
        for (which, name) in [(WindowColumn::Start, "window_start"), (WindowColumn::End, "window_end")] {
            if !window.contains(&which) {
                return Err(self
                    .source
                    .error(at, format!("GROUP BY lacks {name}: groups would never be complete"))
                    .with_hint("GROUP BY window_start, window_end and the keys"));
            }
        }
        self.session_keys(&branch, &pending, &keys, at)?;
        let typed: Vec<Typed> = keys.iter().map(|(typed, _)| typed.clone()).collect();
        let mut binder = Binder::new(self.source, branch.scope());
        binder.grouping = Some(Grouping { keys: &typed, window: &window, calls: Vec::new() });
        let (items, mut binder) = self.items(select, binder)?;
        let having = match &select.having {
            Some(having) => {
                let condition = binder.bind(having)?;
                Some(cast::boolean(condition).map_err(|m| self.source.error(span_of(having), m))?)
            }
            None => None,
        };
        let calls = binder.grouping.map(|grouping| grouping.calls).unwrap_or_default();
        let window = self.window_plan(&branch, &pending, &keys, calls);
        place(branch, pending, window, having, items, self.source)
    }

    fn no_window(&self, branch: &Branch, at: Span) -> Error {
        let message = match branch.is_aggregated() {
            true => "a second aggregation over the results of a window is not supported yet",
            false => "GROUP BY without a window would change its results forever",
        };
        let table = &self.tables[branch.table].name;
        self.source.error(at, message).with_hint(format!(
            "FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '1' HOUR)) ... GROUP BY window_start, window_end"
        ))
    }

    /// Keys besides the window columns with their names, and the window columns of the GROUP BY.
    #[expect(clippy::type_complexity, reason = "two lists that belong together for one caller")]
    fn keys(&self, branch: &Branch, grouped: &[ast::Expr]) -> Result<(Vec<(Typed, String)>, Vec<WindowColumn>)> {
        let mut keys: Vec<(Typed, String)> = Vec::new();
        let mut window = Vec::new();
        for e in grouped {
            let mut binder = Binder::new(self.source, branch.scope());
            if let ast::Expr::Value(_) = e {
                return Err(self.source.error(span_of(e), "GROUP BY takes columns, not positions (as in Flink)"));
            }
            let typed = binder.bind(e)?;
            match plain_column(e, &binder) {
                Some(Column { slot: Slot::Window(which), .. }) => window.push(*which),
                _ if columns_of(&typed.expr).iter().any(|index| *index >= WINDOW_BASE) => {
                    return Err(self.source.error(span_of(e), "window columns are grouped by as they are"));
                }
                plain => {
                    if matches!(typed.data_type, DataType::Struct(_) | DataType::List(_)) {
                        let name = types::name(&typed.data_type);
                        return Err(self.source.error(span_of(e), format!("{name} cannot be a key")));
                    }
                    let name = plain.map_or_else(|| format!("key{}", keys.len()), |column| column.name.clone());
                    if !keys.iter().any(|(known, _)| known.expr.as_ref() == typed.expr.as_ref()) {
                        keys.push((typed, name));
                    }
                }
            }
        }
        Ok((keys, window))
    }

    fn session_keys(&self, branch: &Branch, pending: &Pending, keys: &[(Typed, String)], at: Span) -> Result<()> {
        if !matches!(pending.kind, WindowKind::Session { .. }) {
            return Ok(());
        }
        let index = |typed: &Typed| columns_of(&typed.expr).into_iter().next();
        let mut grouped: Vec<_> = keys.iter().filter_map(|(typed, _)| index(typed)).collect();
        let plain = grouped.len() == keys.len()
            && keys.iter().all(|(typed, _)| typed.expr.is::<datafusion_physical_expr::expressions::Column>());
        let mut sessions = pending.partition.clone();
        grouped.sort_unstable();
        sessions.sort_unstable();
        sessions.dedup();
        if plain && grouped == sessions {
            return Ok(());
        }
        let names: Vec<_> = pending.partition.iter().map(|index| branch.row[*index].name().as_str()).collect();
        let hint = match names.is_empty() {
            true => "write SESSION(TABLE t PARTITION BY key, DESCRIPTOR(ts), gap)".to_owned(),
            false => format!("GROUP BY window_start, window_end, {}", names.join(", ")),
        };
        Err(self.source.error(at, "the keys of GROUP BY must be those of the session's PARTITION BY").with_hint(hint))
    }

    fn window_plan(
        &self,
        branch: &Branch,
        pending: &Pending,
        keys: &[(Typed, String)],
        aggregates: Vec<crate::engine::plan::AggregateCall>,
    ) -> WindowPlan {
        let keys: Vec<NamedExpr> = keys
            .iter()
            .map(|(typed, name)| NamedExpr { expr: Arc::clone(&typed.expr), field: typed.field(name) })
            .collect();
        let time = branch.row[pending.rowtime].data_type().clone();
        let mut fields: Vec<_> = keys.iter().map(|key| Arc::clone(&key.field)).collect();
        fields.extend(aggregates.iter().map(|call| Arc::clone(&call.field)));
        fields.extend(window_fields(&time));
        let schema = Arc::new(Schema::new(fields));
        WindowPlan { kind: pending.kind, rowtime: pending.rowtime, keys, aggregates, zone: None, schema }
    }
}

/// Puts the aggregation and what follows it into place.
fn place(
    mut branch: Branch,
    pending: Pending,
    window: WindowPlan,
    having: Option<Typed>,
    items: Vec<(Typed, Column)>,
    source: Source<'_>,
) -> Result<Branch> {
    let aggregates = window.keys.len();
    let ends = aggregates + window.aggregates.len();
    let move_to = |index: usize| match index {
        AGGREGATE_BASE.. => aggregates + index - AGGREGATE_BASE,
        WINDOW_BASE.. => ends + index - WINDOW_BASE,
        _ => index,
    };
    let filters = pending.filters.iter().map(|filter| {
        if columns_of(filter).iter().any(|index| *index < WINDOW_BASE) {
            let message = "this WHERE compares a column with a window's bounds before the aggregation";
            return Err(source
                .error(pending.span, message)
                .with_hint("split it: columns in WHERE, window_start and window_end in HAVING"));
        }
        remap(filter, &move_to)
    });
    let filters = filters.collect::<Result<Vec<_>>>()?;
    branch.row = window.schema.fields().iter().cloned().collect();
    branch.steps.push(Step::Aggregate(window));
    branch.append_time = None;
    branch.pending = None;
    branch.steps.extend(filters.into_iter().map(Step::Filter));
    if let Some(having) = having {
        branch.steps.push(Step::Filter(remap(&having.expr, &move_to)?));
    }
    let mut moved = Vec::new();
    for (typed, column) in items {
        moved.push((Typed { expr: remap(&typed.expr, &move_to)?, ..typed }, column));
    }
    branch.project(moved);
    Ok(branch)
}

/// The parts of a condition that AND joins.
fn conjuncts(e: &ast::Expr) -> Vec<&ast::Expr> {
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
fn plain_column<'b>(e: &ast::Expr, binder: &Binder<'b>) -> Option<&'b Column> {
    let idents = match e {
        ast::Expr::Identifier(ident) => std::slice::from_ref(ident),
        ast::Expr::CompoundIdentifier(idents) => idents.as_slice(),
        ast::Expr::Nested(inner) => return plain_column(inner, binder),
        _ => return None,
    };
    let (column, used) = binder.resolve(idents).ok()?;
    (used == idents.len()).then_some(column)
}
