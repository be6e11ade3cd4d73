//! One SELECT: WHERE, the SELECT list, and what decides between a projection and an aggregation.

use super::aggregate::contains_aggregate;
use super::branch::Branch;
use super::expr::{Binder, Column, NUMBER, Role, Slot, Typed, WINDOW_BASE, columns_of, span_of};
use super::query::{Queries, conjuncts, plain_column};
use super::rank::{self, Ranking};
use super::{call::is_proctime, cast};
use crate::error::Result;
use sqlparser::ast::{self, Spanned};

/// A bound SELECT list.
pub(super) struct Items<'b> {
    /// Values and visible columns.
    pub values: Vec<(Typed, Column)>,
    /// What numbers the rows, if something does.
    pub ranking: Option<Ranking>,
    /// The binder, for what it collected.
    pub binder: Binder<'b>,
}

impl Queries<'_> {
    /// WHERE, GROUP BY and SELECT over the rows of one branch; `many`: there are others beside it.
    pub fn select_from(&self, select: &ast::Select, mut branch: Branch, many: bool) -> Result<Branch> {
        if let Some(condition) = &select.selection {
            if contains_aggregate(self.source.functions, condition) {
                return Err(self.source.error(span_of(condition), "aggregates go into HAVING, not into WHERE"));
            }
            match branch.ranking {
                Some(_) => self.bound(condition, &mut branch)?,
                None => conjuncts(condition).into_iter().try_for_each(|part| self.filter(part, &mut branch))?,
            }
        }
        let grouped = match &select.group_by {
            ast::GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => keys.as_slice(),
            other => return Err(self.source.error(other.span(), format!("{other} is not supported"))),
        };
        let aggregates = select.projection.iter().any(|item| match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => {
                contains_aggregate(self.source.functions, e)
            }
            _ => false,
        });
        if grouped.is_empty() && !aggregates && select.having.is_none() {
            return self.project(select, branch);
        }
        if let Some(ranking) = &branch.ranking {
            return Err(rank::unbounded(self.source, ranking));
        }
        if many {
            return Err(self.source.error(select.span(), "an aggregation over UNION ALL is not supported yet"));
        }
        self.aggregate(select, branch, grouped)
    }

    /// One condition of a WHERE.
    pub fn filter(&self, condition: &ast::Expr, branch: &mut Branch) -> Result<()> {
        let typed = Binder::new(self.source, branch.scope()).bind(condition)?;
        let typed = cast::boolean(typed).map_err(|m| self.source.error(span_of(condition), m))?;
        branch.filter(typed);
        Ok(())
    }

    fn project(&self, select: &ast::Select, mut branch: Branch) -> Result<Branch> {
        let mut items = self.items(select, Binder::new(self.source, branch.scope()))?;
        let computes_with = |base: usize, items: &Items<'_>| {
            items.values.iter().any(|(typed, column)| {
                matches!(column.slot, Slot::Row(_)) && columns_of(&typed.expr).iter().any(|index| *index >= base)
            })
        };
        if let Some(ranking) = &branch.ranking
            && (items.ranking.is_some() || computes_with(NUMBER, &items))
        {
            return Err(rank::unbounded(self.source, ranking));
        }
        let ranked = items.ranking.is_some() && branch.pending.is_some();
        let values = match ranked || computes_with(WINDOW_BASE, &items) {
            true => {
                self.finish(&mut branch)?;
                items = self.items(select, Binder::new(self.source, branch.scope()))?;
                items.values
            }
            false => items.values,
        };
        branch.ranking = items.ranking.or(branch.ranking);
        branch.project(values);
        Ok(branch)
    }

    /// Binds the SELECT list.
    pub fn items<'b>(&self, select: &ast::Select, mut binder: Binder<'b>) -> Result<Items<'b>> {
        let (mut values, mut ranking) = (Vec::new(), None);
        for (n, item) in select.projection.iter().enumerate() {
            let (e, alias) = match item {
                ast::SelectItem::UnnamedExpr(e) => (e, None),
                ast::SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
                ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..) => {
                    self.wildcard(item, &mut binder, &mut values)?;
                    continue;
                }
                other => return Err(self.source.error(other.span(), format!("{other} is not supported"))),
            };
            let name = item_name(n, e, alias);
            if let Some(found) = rank::bind(&mut binder, e)? {
                if ranking.replace(found).is_some() {
                    return Err(self.source.error(span_of(e), "one ROW_NUMBER in a SELECT is enough"));
                }
                values.push(rank::number_column(name, span_of(e)));
                continue;
            }
            let typed = binder.bind(e)?;
            let grouped = binder.grouping.is_some();
            // Of grouped rows only the window's columns are still what they were.
            let plain = plain_column(e, &binder).filter(|c| !grouped || matches!(c.slot, Slot::Window(_)));
            let column = Column {
                qualifier: None,
                name,
                data_type: typed.data_type.clone(),
                nullable: typed.nullable,
                slot: plain.map(|column| column.slot).filter(|_| !grouped).unwrap_or(Slot::Row(0)),
                role: match plain {
                    Some(column) => column.role,
                    None if is_proctime(e) => Role::Proctime,
                    None => Role::Plain,
                },
                span: span_of(e),
            };
            values.push((typed, column));
        }
        Ok(Items { values, ranking, binder })
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
}

/// The name of item `n` of a SELECT list.
fn item_name(n: usize, e: &ast::Expr, alias: Option<&ast::Ident>) -> String {
    let ident = match (alias, e) {
        (Some(alias), _) => Some(alias),
        (None, ast::Expr::Identifier(ident)) => Some(ident),
        (None, ast::Expr::CompoundIdentifier(idents)) => idents.last(),
        (None, _) => None,
    };
    ident.map_or_else(|| format!("EXPR${n}"), |ident| ident.value.clone())
}
