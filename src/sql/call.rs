//! Function calls as the parser gives them, with SQL's special forms (`EXTRACT(x FROM y)`, `FLOOR(ts TO HOUR)`, ...).

use super::expr::{Binder, Typed};
use super::text::nearest;
use super::{aggregate, cast, functions, types};
use crate::engine::functions::Registered;
use crate::error::Result;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use sqlparser::ast::{self, CeilFloorKind, DateTimeField};

fn text(value: impl Into<String>) -> Typed {
    Typed::literal(ScalarValue::Utf8(Some(value.into())))
}

impl Binder<'_> {
    /// `name(arguments)`.
    pub fn function(&mut self, e: &ast::Expr, function: &ast::Function) -> Result<Typed> {
        let name = match function.name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(ident)] => ident.value.to_ascii_uppercase(),
            _ => return Err(self.error(e, format!("unknown function {}", function.name))),
        };
        if let Some(aggregate) = aggregate::by_name(self.source.functions, &name) {
            return self.aggregate(e, aggregate, function);
        }
        if let Some(message) = refused(&name) {
            return Err(self.error(e, message));
        }
        if let Some(clock) = self.clock(e, &name)? {
            return Ok(clock);
        }
        let mut arguments = Vec::new();
        let list = match &function.args {
            ast::FunctionArguments::None => &[][..],
            ast::FunctionArguments::List(list) => &list.args[..],
            ast::FunctionArguments::Subquery(_) => return Err(self.error(e, "a subquery is no argument")),
        };
        if function.over.is_some() || function.filter.is_some() {
            return Err(self.error(e, format!("{name} is no aggregate: OVER and FILTER do not go with it")));
        }
        for (n, argument) in list.iter().enumerate() {
            let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument)) = argument else {
                return Err(self.error(e, format!("this argument of {name} is not supported: {argument}")));
            };
            // The unit of TIMESTAMPADD(HOUR, ..) looks like a column.
            match (argument, name.as_str(), n) {
                (ast::Expr::Identifier(unit), "TIMESTAMPADD" | "TIMESTAMPDIFF", 0) => arguments.push(text(&unit.value)),
                _ => arguments.push(self.bind(argument)?),
            }
        }
        if let Some(Registered::Scalar(function)) = self.source.functions.get(&name) {
            return functions::call_user(function, arguments).map_err(|message| self.error(e, message));
        }
        functions::call(&name, arguments, self.scope.zone).map_err(|message| {
            let error = self.error(e, message);
            if functions::names().any(|known| known == name) {
                return error;
            }
            let mut known: Vec<&str> = functions::names().chain(aggregate::names()).collect();
            known.extend(self.source.functions.names());
            error.with_hint(match nearest(&name, known) {
                Some(near) => format!("did you mean {near}?"),
                None => "functions written in Rust are registered in a FunctionRegistry before the file is planned"
                    .to_owned(),
            })
        })
    }

    /// `CURRENT_TIMESTAMP` and its relatives: the append time of the record.
    fn clock(&mut self, e: &ast::Expr, name: &str) -> Result<Option<Typed>> {
        let target = match name {
            "CURRENT_TIMESTAMP" | "NOW" | "PROCTIME" | "CURRENT_ROW_TIMESTAMP" => types::timestamp_ltz(),
            "LOCALTIMESTAMP" => types::timestamp(),
            "CURRENT_DATE" => DataType::Date32,
            _ => return Ok(None),
        };
        let place = self.scope.append_time.filter(|_| self.grouping.is_none());
        let Some(index) = place else {
            return Err(self
                .error(e, format!("{name} is the append time of a record, and a window's result is not one record"))
                .with_hint("take it before the window, e.g. MAX(t) of a view with a column t"));
        };
        let clock = Typed::column("append_time", index, types::timestamp_ltz(), false);
        cast::In(self.scope.zone).explicit(clock, &target).map(Some).map_err(|message| self.error(e, message))
    }

    /// Forms with a syntax of their own.
    pub fn special_call(&mut self, e: &ast::Expr) -> Result<Typed> {
        let (name, arguments) = match e {
            ast::Expr::Extract { field, expr, .. } => ("EXTRACT", vec![text(field.to_string()), self.bind(expr)?]),
            ast::Expr::Floor { expr, field } => self.rounded("FLOOR", expr, field)?,
            ast::Expr::Ceil { expr, field } => self.rounded("CEIL", expr, field)?,
            ast::Expr::Trim { expr, trim_where, trim_what, .. } => {
                let side = trim_where.as_ref().map_or("BOTH".to_owned(), ToString::to_string);
                let what = match trim_what {
                    Some(what) => self.bind(what)?,
                    None => text(" "),
                };
                ("TRIM", vec![text(side), self.bind(expr)?, what])
            }
            ast::Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut arguments = vec![self.bind(expr)?];
                match substring_from {
                    Some(from) => arguments.push(self.bind(from)?),
                    None => arguments.push(Typed::literal(ScalarValue::Int32(Some(1)))),
                }
                if let Some(length) = substring_for {
                    arguments.push(self.bind(length)?);
                }
                ("SUBSTRING", arguments)
            }
            ast::Expr::Position { expr, r#in } => ("POSITION", vec![self.bind(expr)?, self.bind(r#in)?]),
            ast::Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let mut arguments = vec![self.bind(expr)?, self.bind(overlay_what)?, self.bind(overlay_from)?];
                if let Some(length) = overlay_for {
                    arguments.push(self.bind(length)?);
                }
                ("OVERLAY", arguments)
            }
            other => return Err(self.error(other, format!("this expression is not supported: {other}"))),
        };
        functions::call(name, arguments, self.scope.zone).map_err(|message| self.error(e, message))
    }

    fn rounded(
        &mut self,
        name: &'static str,
        expr: &ast::Expr,
        kind: &CeilFloorKind,
    ) -> Result<(&'static str, Vec<Typed>)> {
        let mut arguments = vec![self.bind(expr)?];
        match kind {
            CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => {}
            CeilFloorKind::DateTimeField(unit) => arguments.push(text(unit.to_string())),
            CeilFloorKind::Scale(_) => return Err(self.error(expr, format!("{name} takes one number"))),
        }
        Ok((name, arguments))
    }
}

/// True for a call of `PROCTIME()`.
pub(super) fn is_proctime(e: &ast::Expr) -> bool {
    match e {
        ast::Expr::Nested(inner) => is_proctime(inner),
        ast::Expr::Function(call) => call.name.to_string().eq_ignore_ascii_case("PROCTIME"),
        _ => false,
    }
}

/// True for names that SQL has.
pub(super) fn is_known(name: &str) -> bool {
    const CLOCKS: [&str; 6] =
        ["CURRENT_TIMESTAMP", "NOW", "PROCTIME", "CURRENT_ROW_TIMESTAMP", "LOCALTIMESTAMP", "CURRENT_DATE"];
    functions::names().chain(aggregate::names()).chain(CLOCKS).any(|known| known == name) || refused(name).is_some()
}

/// Functions that a job may not call, and why.
fn refused(name: &str) -> Option<String> {
    let reason = match name {
        "RAND" | "RAND_INTEGER" | "UUID" => {
            "its result would differ from run to run, and a replay must give the same bytes"
        }
        "TUMBLE" | "HOP" | "CUMULATE" | "SESSION" | "TUMBLE_START" | "TUMBLE_END" | "HOP_START" | "HOP_END"
        | "SESSION_START" | "SESSION_END" | "TUMBLE_ROWTIME" | "HOP_ROWTIME" | "SESSION_ROWTIME" => {
            return Some(format!(
                "{name} is a function of the older grouped windows: use FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), \
                 INTERVAL '1' HOUR)) GROUP BY window_start, window_end"
            ));
        }
        "ROW_NUMBER" => return Some("ROW_NUMBER() OVER (..) stands alone in a SELECT list".to_owned()),
        "RANK" | "DENSE_RANK" => return Some(format!("{name} is not supported: use ROW_NUMBER")),
        _ => return None,
    };
    Some(format!("{name} is refused: {reason}"))
}
