//! Window table functions over tables, views and the results of other windows.

use super::branch::{Branch, Pending, WINDOW_COLUMNS, WindowTime, window_fields};
use super::expr::{Binder, Column, Role, Slot};
use super::query::{Queries, Relation};
use super::window::{Data, WindowCall};
use super::{rank, types};
use crate::engine::plan::{TimeDomain, WindowKind};
use crate::error::Result;
use sqlparser::ast::Ident;

impl Queries<'_> {
    /// The input of a window call with the window's columns, which do not exist yet.
    pub fn windowed(&mut self, call: &WindowCall) -> Result<Relation> {
        let input = match &call.data {
            Data::Table(name) => self.named(name)?,
            Data::Query(query) => self.query(query)?,
        };
        let Ok([mut branch]) = <[Branch; 1]>::try_from(input) else {
            return Err(self.source.error(call.span, "a window over UNION ALL is not supported yet"));
        };
        self.finish(&mut branch)?;
        let (rowtime, domain) = self.time_column(&branch, &call.rowtime)?;
        if branch.is_aggregated() && branch.windows.as_ref().is_some_and(|inner| inner.domain != domain) {
            let message = "windows over PROCTIME() do not go with windows over event time in one query";
            return Err(self.source.error(call.rowtime.span, message));
        }
        let mut partition = Vec::new();
        for ident in &call.partition {
            let (column, _) = Binder::new(self.source, branch.scope()).resolve(std::slice::from_ref(ident))?;
            partition.push(column.slot.index());
        }
        for column in &mut branch.columns {
            // Behind a window its own columns are the time and the window.
            column.role = match column.role {
                Role::Rowtime | Role::Proctime | Role::FormerTime => Role::FormerTime,
                _ => Role::Plain,
            };
        }
        let data_type = branch.row[rowtime].data_type().clone();
        let zone = self.zone.filter(|_| data_type == types::timestamp_ltz());
        let time = WindowTime { data_type, domain, zone };
        for (which, field) in WINDOW_COLUMNS.into_iter().zip(window_fields(call.kind, &time.data_type)) {
            branch.columns.push(Column {
                qualifier: None,
                name: field.name().clone(),
                data_type: field.data_type().clone(),
                nullable: false,
                slot: Slot::Window(which),
                role: which.role(domain == TimeDomain::Append),
                span: call.span,
            });
        }
        let (kind, span) = (call.kind, call.span);
        branch.pending =
            Some(Pending { kind, time, rowtime, partition, filters: Vec::new(), places: Vec::new(), span });
        Ok(vec![branch])
    }

    /// The row column that `DESCRIPTOR(ident)` names, if it is a time that windows can be over, and which clock it follows.
    fn time_column(&self, branch: &Branch, ident: &Ident) -> Result<(usize, TimeDomain)> {
        let (column, _) = Binder::new(self.source, branch.scope()).resolve(std::slice::from_ref(ident))?;
        match (column.role, column.slot) {
            (Role::Rowtime, Slot::Row(index)) => return Ok((index, TimeDomain::Event)),
            (Role::Proctime, Slot::Row(index)) => return Ok((index, TimeDomain::Append)),
            _ => {}
        }
        let table = &self.tables[branch.table];
        let name = &ident.value;
        let error = |message: String| self.source.error(ident.span, message);
        if branch.windows.is_some() {
            let message = format!("'{name}' is not the time of the rows: behind a window that is its window_time");
            return Err(error(message).with_hint("a view or subquery must pass window_time on as it is"));
        }
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

    /// Windows that nobody aggregated become columns.
    pub fn finish(&self, branch: &mut Branch) -> Result<()> {
        if let Some(ranking) = &branch.ranking {
            return Err(rank::unbounded(self.source, ranking));
        }
        let Some(pending) = &branch.pending else { return Ok(()) };
        let name = match pending.kind {
            WindowKind::Session { .. } => "SESSION",
            WindowKind::Count { .. } => "COUNT_WINDOW",
            _ => return branch.materialize(),
        };
        Err(self
            .source
            .error(pending.span, format!("{name} without an aggregation is not supported"))
            .with_hint("GROUP BY window_start, window_end and the keys of PARTITION BY"))
    }
}
