//! Expressions: from the parsed text to typed physical expressions over the columns of a row.
//!
//! Types are worked out bottom up by Flink's rules, so that an error is known at the innermost place that is wrong.

use super::aggregate::Grouping;
use super::text::{Source, nearest};
use super::{arithmetic, cast, functions, interval, types};
use crate::engine::plan::Expr;
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{self, BinaryExpr, Column as PhysicalColumn, Literal};
use sqlparser::ast::{self, Spanned};
use sqlparser::tokenizer::Span;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) use super::scope::{AGGREGATE_BASE, Column, NUMBER, Role, Scope, Slot, WINDOW_BASE, WindowColumn};

/// A physical expression with its type.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    /// The expression.
    pub expr: Expr,
    /// Its type.
    pub data_type: DataType,
    /// Whether it can be NULL.
    pub nullable: bool,
}

impl Typed {
    /// A constant.
    pub fn literal(value: ScalarValue) -> Typed {
        let (data_type, nullable) = (value.data_type(), value.is_null());
        Typed { expr: Arc::new(Literal::new(value)), data_type, nullable }
    }

    /// A column of the row.
    pub fn column(name: &str, index: usize, data_type: DataType, nullable: bool) -> Typed {
        Typed { expr: Arc::new(PhysicalColumn::new(name, index)), data_type, nullable }
    }

    /// The value, if this is a constant.
    pub fn value(&self) -> Option<&ScalarValue> {
        self.expr.downcast_ref::<Literal>().map(Literal::value)
    }

    /// The text, if this is a string constant.
    pub fn text(&self) -> Option<&str> {
        match self.value() {
            Some(ScalarValue::Utf8(Some(text))) => Some(text),
            _ => None,
        }
    }

    /// A field with the type of this expression.
    pub fn field(&self, name: &str) -> FieldRef {
        Arc::new(Field::new(name, self.data_type.clone(), self.nullable))
    }

    /// Computes an expression over constants now; `Err` is the reason why it has no value.
    pub fn fold(self) -> Result<Typed, String> {
        if self.value().is_some() || !self.expr.children().iter().all(|child| child.is::<Literal>()) {
            return Ok(self);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
            .map_err(|error| error.to_string())?;
        let value = match self.expr.evaluate(&row).map_err(|error| functions::reason(&error))? {
            ColumnarValue::Scalar(value) => value,
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0).map_err(|e| functions::reason(&e))?,
        };
        Ok(Typed::literal(value))
    }
}

/// Binds expressions of one clause.
pub(super) struct Binder<'b> {
    /// The file.
    pub source: Source<'b>,
    /// What can be named.
    pub scope: Scope<'b>,
    /// Set while the clauses behind a GROUP BY are bound.
    pub grouping: Option<Grouping<'b>>,
}

impl<'b> Binder<'b> {
    /// A binder over plain rows.
    pub fn new(source: Source<'b>, scope: Scope<'b>) -> Self {
        Binder { source, scope, grouping: None }
    }

    /// An error at an expression.
    pub fn error(&self, at: &ast::Expr, message: impl Into<String>) -> Error {
        self.source.error(span_of(at), message)
    }

    /// Binds an expression.
    pub fn bind(&mut self, e: &ast::Expr) -> Result<Typed> {
        if let Some(column) = self.group_key(e)? {
            return Ok(column);
        }
        match e {
            ast::Expr::Identifier(ident) => self.identifier(std::slice::from_ref(ident)),
            ast::Expr::CompoundIdentifier(idents) => self.identifier(idents),
            ast::Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            ast::Expr::Nested(inner) => self.bind(inner),
            ast::Expr::Value(value) => literal(&value.value).map_err(|m| self.error(e, m)),
            ast::Expr::TypedString(typed) => self.typed_string(e, typed),
            ast::Expr::Interval(written) => {
                let value = interval::parse(written).map_err(|m| self.error(e, m))?;
                Ok(Typed::literal(value.scalar()))
            }
            ast::Expr::BinaryOp { left, op, right } => self.binary(e, left, op, right),
            ast::Expr::UnaryOp { op, expr } => self.unary(e, *op, expr),
            ast::Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            ast::Expr::Cast { kind, expr, data_type, .. } => self.cast(e, kind, expr, data_type),
            ast::Expr::Between { expr, negated, low, high } => self.between(e, expr, *negated, low, high),
            ast::Expr::InList { expr, list, negated } => self.in_list(e, expr, list, *negated),
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(e, *negated, expr, pattern, escape_char.as_ref())
            }
            ast::Expr::SimilarTo { negated, expr, pattern, escape_char: None } => {
                let arguments = vec![self.bind(expr)?, self.bind(pattern)?];
                let found = functions::call("SIMILAR", arguments, self.scope.zone).map_err(|m| self.error(e, m))?;
                self.negate_if(*negated, found)
            }
            ast::Expr::IsDistinctFrom(l, r) => self.compare(e, Operator::IsDistinctFrom, l, r),
            ast::Expr::IsNotDistinctFrom(l, r) => self.compare(e, Operator::IsNotDistinctFrom, l, r),
            other => self.bind_more(other),
        }
    }

    /// The rarer forms.
    fn bind_more(&mut self, e: &ast::Expr) -> Result<Typed> {
        match e {
            ast::Expr::IsNull(inner) => {
                let inner = self.bind(inner)?;
                Ok(not_null(Arc::new(expressions::IsNullExpr::new(inner.expr)), DataType::Boolean))
            }
            ast::Expr::IsNotNull(inner) => {
                let inner = self.bind(inner)?;
                Ok(not_null(Arc::new(expressions::IsNotNullExpr::new(inner.expr)), DataType::Boolean))
            }
            ast::Expr::IsTrue(x) => self.truth(x, Operator::IsNotDistinctFrom, Some(true)),
            ast::Expr::IsNotTrue(x) => self.truth(x, Operator::IsDistinctFrom, Some(true)),
            ast::Expr::IsFalse(x) => self.truth(x, Operator::IsNotDistinctFrom, Some(false)),
            ast::Expr::IsNotFalse(x) => self.truth(x, Operator::IsDistinctFrom, Some(false)),
            ast::Expr::IsUnknown(x) => self.truth(x, Operator::IsNotDistinctFrom, None),
            ast::Expr::IsNotUnknown(x) => self.truth(x, Operator::IsDistinctFrom, None),
            ast::Expr::Function(function) => self.function(e, function),
            ast::Expr::Extract { .. }
            | ast::Expr::Floor { .. }
            | ast::Expr::Ceil { .. }
            | ast::Expr::Trim { .. }
            | ast::Expr::Substring { .. }
            | ast::Expr::Position { .. }
            | ast::Expr::Overlay { .. } => self.special_call(e),
            ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } | ast::Expr::Subquery(_) => Err(self
                .error(e, "subqueries inside expressions are not supported")
                .with_hint("they are joins of streams; a subquery in FROM works")),
            ast::Expr::AtTimeZone { .. } => Err(self.error(e, "AT TIME ZONE is not part of Flink SQL")),
            other => Err(self.error(e, format!("this expression is not supported: {}", shorten(&other.to_string())))),
        }
    }

    fn identifier(&mut self, idents: &[ast::Ident]) -> Result<Typed> {
        let (column, used) = self.resolve(idents)?;
        let mut typed = match &self.grouping {
            Some(grouping) => grouping.column(self.source, column, idents[0].span)?,
            None => column.typed(),
        };
        for ident in &idents[used..] {
            typed = functions::field(typed, &ident.value).map_err(|m| self.source.error(ident.span, m))?;
        }
        Ok(typed)
    }

    /// The column that a (qualified) name means and how many parts of the name it takes.
    pub fn resolve(&self, idents: &[ast::Ident]) -> Result<(&'b Column, usize)> {
        let columns = self.scope.columns;
        if let [table, name, ..] = idents
            && let Some(column) =
                columns.iter().find(|c| c.qualifier.as_deref() == Some(&table.value) && c.name == name.value)
        {
            return Ok((column, 2));
        }
        let first = &idents[0];
        let mut found = columns.iter().filter(|column| column.name == first.value);
        match (found.next(), found.next()) {
            (Some(column), None) => Ok((column, 1)),
            (Some(_), Some(_)) => {
                let error =
                    self.source.error(first.span, format!("column '{}' is ambiguous: name its table", first.value));
                Err(match first.value.starts_with("window_") {
                    true => error.with_hint("give the columns of the inner window other names with AS"),
                    false => error,
                })
            }
            (None, _) => Err(self.unknown_column(idents)),
        }
    }

    fn unknown_column(&self, idents: &[ast::Ident]) -> Error {
        let columns = self.scope.columns;
        // `t.colum` where t is a table: the second part is wrong.
        let wrong = match idents {
            [table, name, ..] if columns.iter().any(|c| c.qualifier.as_deref() == Some(&table.value)) => name,
            _ => &idents[0],
        };
        let error = self.source.error(wrong.span, format!("unknown column '{}'", wrong.value));
        match nearest(&wrong.value, columns.iter().map(|column| column.name.as_str())) {
            Some(name) => error.with_hint(format!("did you mean '{name}'?")),
            None => {
                let names: Vec<_> = columns.iter().take(20).map(|column| column.name.as_str()).collect();
                error.with_hint(format!("columns here: {}", names.join(", ")))
            }
        }
    }

    fn access(&mut self, root: &ast::Expr, chain: &[ast::AccessExpr]) -> Result<Typed> {
        let mut typed = self.bind(root)?;
        for access in chain {
            typed = match access {
                ast::AccessExpr::Dot(ast::Expr::Identifier(ident)) => {
                    functions::field(typed, &ident.value).map_err(|m| self.source.error(ident.span, m))?
                }
                ast::AccessExpr::Subscript(ast::Subscript::Index { index }) => {
                    let place = self.bind(index)?;
                    functions::call("ITEM", vec![typed, place], self.scope.zone).map_err(|m| self.error(index, m))?
                }
                other => return Err(self.error(root, format!("this access is not supported: {other}"))),
            };
        }
        Ok(typed)
    }

    fn typed_string(&mut self, e: &ast::Expr, typed: &ast::TypedString) -> Result<Typed> {
        let data_type = types::from_ast(&typed.data_type, self.source, span_of(e))?;
        let Some(text) = typed.value.clone().into_string() else { return Err(self.error(e, "expected a string")) };
        let text = Typed::literal(ScalarValue::Utf8(Some(text)));
        cast::In(self.scope.zone).explicit(text, &data_type).map_err(|m| self.error(e, m))
    }

    fn binary(&mut self, e: &ast::Expr, l: &ast::Expr, op: &ast::BinaryOperator, r: &ast::Expr) -> Result<Typed> {
        use ast::BinaryOperator as Op;
        let comparison = match op {
            Op::Eq => Some(Operator::Eq),
            Op::NotEq => Some(Operator::NotEq),
            Op::Lt => Some(Operator::Lt),
            Op::LtEq => Some(Operator::LtEq),
            Op::Gt => Some(Operator::Gt),
            Op::GtEq => Some(Operator::GtEq),
            _ => None,
        };
        if let Some(operator) = comparison {
            return self.compare(e, operator, l, r);
        }
        let (left, right) = (self.bind(l)?, self.bind(r)?);
        match op {
            Op::And | Op::Or => {
                let operator = if *op == Op::And { Operator::And } else { Operator::Or };
                let left = cast::boolean(left).map_err(|m| self.error(l, m))?;
                let right = cast::boolean(right).map_err(|m| self.error(r, m))?;
                Ok(binary_expr(left, operator, right, DataType::Boolean))
            }
            Op::StringConcat => functions::call("||", vec![left, right], self.scope.zone).map_err(|m| self.error(e, m)),
            Op::Plus => arithmetic::plus(left, right).map_err(|m| self.error(e, m)),
            Op::Minus => arithmetic::minus(left, right).map_err(|m| self.error(e, m)),
            Op::Multiply => arithmetic::multiply(left, right).map_err(|m| self.error(e, m)),
            Op::Divide => arithmetic::divide(left, right).map_err(|m| self.error(e, m)),
            Op::Modulo => arithmetic::modulo(left, right).map_err(|m| self.error(e, m)),
            other => Err(self.error(e, format!("operator {other} is not supported"))),
        }
    }

    fn compare(&mut self, e: &ast::Expr, operator: Operator, l: &ast::Expr, r: &ast::Expr) -> Result<Typed> {
        let (left, right) = (self.bind(l)?, self.bind(r)?);
        self.compare_typed(e, operator, left, right)
    }

    fn compare_typed(&self, e: &ast::Expr, operator: Operator, left: Typed, right: Typed) -> Result<Typed> {
        let (left, right) = cast::In(self.scope.zone).to_common(left, right).map_err(|(a, b)| {
            self.error(e, format!("cannot compare {a} with {b}")).with_hint("CAST one side to the type of the other")
        })?;
        if matches!(left.data_type, DataType::Struct(_) | DataType::List(_)) {
            return Err(self.error(e, format!("cannot compare {}", types::name(&left.data_type))));
        }
        let typed = binary_expr(left, operator, right, DataType::Boolean);
        let nullable = typed.nullable && !matches!(operator, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom);
        Ok(Typed { nullable, ..typed })
    }

    fn unary(&mut self, e: &ast::Expr, op: ast::UnaryOperator, operand: &ast::Expr) -> Result<Typed> {
        // A minus belongs to its number: -9223372036854775808 has no positive twin.
        if op == ast::UnaryOperator::Minus
            && let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) = operand
        {
            return number(&format!("-{digits}")).map_err(|m| self.error(e, m));
        }
        let inner = self.bind(operand)?;
        match op {
            ast::UnaryOperator::Plus => Ok(inner),
            ast::UnaryOperator::Minus => arithmetic::negate(inner).map_err(|m| self.error(e, m)),
            ast::UnaryOperator::Not => {
                let inner = cast::boolean(inner).map_err(|m| self.error(operand, m))?;
                self.negate_if(true, inner)
            }
            other => Err(self.error(e, format!("operator {other} is not supported"))),
        }
    }

    fn negate_if(&self, negated: bool, typed: Typed) -> Result<Typed> {
        if !negated {
            return Ok(typed);
        }
        Ok(Typed { expr: Arc::new(expressions::NotExpr::new(typed.expr)), ..typed })
    }

    fn truth(&mut self, x: &ast::Expr, operator: Operator, value: Option<bool>) -> Result<Typed> {
        let inner = self.bind(x)?;
        let inner = cast::boolean(inner).map_err(|m| self.error(x, m))?;
        let typed = binary_expr(inner, operator, Typed::literal(ScalarValue::Boolean(value)), DataType::Boolean);
        Ok(Typed { nullable: false, ..typed })
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Typed> {
        let mut whens = Vec::new();
        let mut results = Vec::new();
        for branch in conditions {
            let when = match operand {
                Some(operand) => self.compare(&branch.condition, Operator::Eq, operand, &branch.condition)?,
                None => {
                    let when = self.bind(&branch.condition)?;
                    cast::boolean(when).map_err(|m| self.error(&branch.condition, m))?
                }
            };
            whens.push(when);
            results.push((&branch.result, self.bind(&branch.result)?));
        }
        if let Some(otherwise) = otherwise {
            results.push((otherwise, self.bind(otherwise)?));
        }
        let typed = results.iter().map(|(_, typed)| typed);
        let common = cast::common_type(typed).map_err(|(n, wanted, got)| {
            self.error(results[n].0, format!("the results of CASE have different types: {wanted} and {got}"))
        })?;
        let mut casted = Vec::new();
        for (at, typed) in results {
            casted.push(cast::In(self.scope.zone).implicit(typed, &common).map_err(|m| self.error(at, m))?);
        }
        Ok(case_expr(whens, casted, otherwise.is_some(), common))
    }

    fn cast(&mut self, e: &ast::Expr, kind: &ast::CastKind, x: &ast::Expr, target: &ast::DataType) -> Result<Typed> {
        let inner = self.bind(x)?;
        let data_type = types::from_ast(target, self.source, span_of(e))?;
        let length = cast::character_length(target);
        match kind {
            ast::CastKind::Cast | ast::CastKind::DoubleColon => cast::In(self.scope.zone).explicit(inner, &data_type),
            ast::CastKind::TryCast | ast::CastKind::SafeCast => cast::In(self.scope.zone).attempt(inner, &data_type),
        }
        .and_then(|typed| match length {
            Some((length, pad)) => cast::fit(typed, length, pad),
            None => Ok(typed),
        })
        .map_err(|m| self.error(e, m))
    }

    fn between(
        &mut self,
        e: &ast::Expr,
        x: &ast::Expr,
        negated: bool,
        low: &ast::Expr,
        high: &ast::Expr,
    ) -> Result<Typed> {
        let above = self.compare(e, Operator::GtEq, x, low)?;
        let below = self.compare(e, Operator::LtEq, x, high)?;
        self.negate_if(negated, binary_expr(above, Operator::And, below, DataType::Boolean))
    }

    fn in_list(&mut self, e: &ast::Expr, x: &ast::Expr, list: &[ast::Expr], negated: bool) -> Result<Typed> {
        let operand = self.bind(x)?;
        let mut items = vec![(x, operand)];
        for item in list {
            items.push((item, self.bind(item)?));
        }
        let common = cast::common_type(items.iter().map(|(_, typed)| typed))
            .map_err(|(n, wanted, got)| self.error(items[n].0, format!("cannot compare {wanted} with {got}")))?;
        let mut casted = Vec::new();
        for (at, typed) in items {
            casted.push(cast::In(self.scope.zone).implicit(typed, &common).map_err(|m| self.error(at, m))?);
        }
        let nullable = casted.iter().any(|typed| typed.nullable);
        let mut casted = casted.into_iter().map(|typed| typed.expr);
        let Some(operand) = casted.next() else { return Err(self.error(e, "IN without operand")) };
        let expr = in_list_expr(operand, casted.collect(), negated, &common, nullable)
            .map_err(|error| self.error(e, functions::reason(&error)))?;
        Ok(Typed { expr, data_type: DataType::Boolean, nullable })
    }

    fn like(
        &mut self,
        e: &ast::Expr,
        negated: bool,
        x: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::ValueWithSpan>,
    ) -> Result<Typed> {
        let mut arguments = vec![self.bind(x)?, self.bind(pattern)?];
        if let Some(escape) = escape {
            arguments.push(literal(&escape.value).map_err(|m| self.error(e, m))?);
        }
        let found = functions::call("LIKE", arguments, self.scope.zone).map_err(|m| self.error(e, m))?;
        self.negate_if(negated, found)
    }
}

/// An operator on two operands of the right types.
pub(super) fn binary_expr(left: Typed, operator: Operator, right: Typed, data_type: DataType) -> Typed {
    let nullable = left.nullable || right.nullable;
    Typed { expr: Arc::new(BinaryExpr::new(left.expr, operator, right.expr)), data_type, nullable }
}

/// CASE over conditions and results of one type; with `otherwise`, the last result is the ELSE.
pub(super) fn case_expr(whens: Vec<Typed>, mut results: Vec<Typed>, otherwise: bool, data_type: DataType) -> Typed {
    let nullable = !otherwise || results.iter().any(|typed| typed.nullable);
    let last = if otherwise { results.pop().map(|typed| typed.expr) } else { None };
    let branches: Vec<_> = whens.into_iter().map(|w| w.expr).zip(results.into_iter().map(|r| r.expr)).collect();
    match expressions::case(None, branches, last.clone()) {
        Ok(expr) => Typed { expr, data_type, nullable },
        // CASE without WHEN does not parse; only the ELSE is left then.
        Err(_) => match last {
            Some(expr) => Typed { expr, data_type, nullable },
            None => Typed::literal(ScalarValue::try_from(&data_type).unwrap_or(ScalarValue::Null)),
        },
    }
}

fn in_list_expr(
    operand: Expr,
    list: Vec<Expr>,
    negated: bool,
    data_type: &DataType,
    nullable: bool,
) -> datafusion_common::Result<Expr> {
    // The list expression asks a schema for the type of its operand: a plain column gets one that says just that.
    // Everything else is compared one by one.
    let constant = list.iter().all(|item| item.is::<Literal>());
    let column = operand.downcast_ref::<PhysicalColumn>().map(PhysicalColumn::index);
    if let (true, Some(index)) = (constant && list.len() > 3, column)
        && index < WINDOW_BASE
    {
        let fields: Vec<_> = (0..=index).map(|n| Field::new(format!("c{n}"), data_type.clone(), nullable)).collect();
        return expressions::in_list(operand, list, &negated, &Schema::new(fields));
    }
    let mut found: Option<Expr> = None;
    for item in list {
        let equal: Expr = Arc::new(BinaryExpr::new(Arc::clone(&operand), Operator::Eq, item));
        found = Some(match found {
            Some(before) => Arc::new(BinaryExpr::new(before, Operator::Or, equal)),
            None => equal,
        });
    }
    let found = found.unwrap_or_else(|| Arc::new(Literal::new(ScalarValue::Boolean(Some(false)))));
    Ok(if negated { Arc::new(expressions::NotExpr::new(found)) } else { found })
}

fn not_null(expr: Expr, data_type: DataType) -> Typed {
    Typed { expr, data_type, nullable: false }
}

fn literal(value: &ast::Value) -> Result<Typed, String> {
    match value {
        ast::Value::Number(digits, _) => number(digits),
        ast::Value::SingleQuotedString(text) => Ok(Typed::literal(ScalarValue::Utf8(Some(text.clone())))),
        ast::Value::Boolean(value) => Ok(Typed::literal(ScalarValue::Boolean(Some(*value)))),
        ast::Value::Null => Ok(Typed::literal(ScalarValue::Null)),
        ast::Value::HexStringLiteral(digits) => {
            let bytes: Option<Vec<u8>> = digits
                .as_bytes()
                .chunks(2)
                .map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2))
                .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect();
            let bytes = bytes.ok_or("expected pairs of hexadecimal digits")?;
            Ok(Typed::literal(ScalarValue::Binary(Some(bytes))))
        }
        other => Err(format!("{other} is not a literal of Flink SQL")),
    }
}

/// INT, else BIGINT, else DECIMAL; with an exponent DOUBLE.
fn number(digits: &str) -> Result<Typed, String> {
    if digits.contains(['e', 'E']) {
        let value: f64 = digits.parse().map_err(|_| format!("{digits} is not a number"))?;
        return Ok(Typed::literal(ScalarValue::Float64(Some(value))));
    }
    if let Ok(value) = digits.parse::<i32>() {
        return Ok(Typed::literal(ScalarValue::Int32(Some(value))));
    }
    if let Ok(value) = digits.parse::<i64>() {
        return Ok(Typed::literal(ScalarValue::Int64(Some(value))));
    }
    let fraction = digits.split_once('.').map_or("", |(_, fraction)| fraction);
    let all: String = digits.chars().filter(|c| *c != '.').collect();
    let value: i128 = all.parse().map_err(|_| format!("{digits} is too large"))?;
    let length = value.unsigned_abs().to_string().len().max(fraction.len());
    match (u8::try_from(length), i8::try_from(fraction.len())) {
        (Ok(precision @ 0..=38), Ok(scale)) => {
            Ok(Typed::literal(ScalarValue::Decimal128(Some(value), precision.max(1), scale)))
        }
        _ => Err(format!("{digits} has more than 38 digits")),
    }
}

/// The start and end of an expression in the text; falls back to its parts where the parser kept no place.
pub(super) fn span_of(e: &ast::Expr) -> Span {
    e.span()
}

/// Calls `visit` with the index of each column that an expression reads.
pub(super) fn for_each_column(expr: &Expr, visit: &mut impl FnMut(usize)) {
    let visited = expr.apply(|node| {
        if let Some(column) = node.downcast_ref::<PhysicalColumn>() {
            visit(column.index());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
}

/// The column that an expression is.
pub(super) fn index_of(expr: &Expr) -> Option<usize> {
    expr.downcast_ref::<PhysicalColumn>().map(PhysicalColumn::index)
}

/// The columns that an expression reads.
pub(super) fn columns_of(expr: &Expr) -> BTreeSet<usize> {
    let mut columns = BTreeSet::new();
    for_each_column(expr, &mut |index| {
        columns.insert(index);
    });
    columns
}

/// The expression with columns replaced: `new` gives what stands for a column, `None` leaves it.
pub(super) fn replace_columns(expr: &Expr, new: &impl Fn(&PhysicalColumn) -> Option<Expr>) -> Result<Expr> {
    Arc::clone(expr)
        .transform_up(|node| {
            Ok(match node.downcast_ref::<PhysicalColumn>().and_then(new) {
                Some(replacement) => Transformed::yes(replacement),
                None => Transformed::no(node),
            })
        })
        .map(|transformed| transformed.data)
        .map_err(|error| Error::internal(format!("an expression could not be moved: {error}")))
}

/// The expression with its columns at other indices.
pub(super) fn remap(expr: &Expr, new: &impl Fn(usize) -> usize) -> Result<Expr> {
    replace_columns(expr, &|column| Some(Arc::new(PhysicalColumn::new(column.name(), new(column.index())))))
}

/// At most 60 characters of a text.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
