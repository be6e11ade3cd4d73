//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))`.
//!
//! The SQL parser does not know them. They are taken out of a statement's tokens before it is parsed, and a name that
//! no user can write stands in their place.

use super::expr::span_of;
use super::interval::{self, Interval};
use super::text::{Source, Statement, is_word, parser};
use crate::engine::plan::WindowKind;
use crate::error::{Error, Result};
use sqlparser::ast::{self, Ident, ObjectName};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

/// What the windows are over.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// `TABLE name`.
    Table(ObjectName),
    /// `(SELECT ...)`.
    Query(Box<ast::Query>),
}

/// A window table function call.
#[derive(Debug, Clone)]
pub(super) struct WindowCall {
    /// Name that stands for it in the parsed statement.
    pub stand_in: String,
    /// Place of the whole call.
    pub span: Span,
    /// Windows.
    pub kind: WindowKind,
    /// The input.
    pub data: Data,
    /// `DESCRIPTOR(column)`.
    pub rowtime: Ident,
    /// `PARTITION BY`.
    pub partition: Vec<Ident>,
}

const FUNCTIONS: [&str; 5] = ["TUMBLE", "HOP", "CUMULATE", "SESSION", "COUNT_WINDOW"];

/// Takes the window calls out of a statement, inner ones first.
pub(super) fn take_out(statement: &Statement, source: Source<'_>) -> Result<(Statement, Vec<WindowCall>)> {
    let mut statement = statement.clone();
    let mut calls: Vec<WindowCall> = Vec::new();
    // From the back, so that a call inside another one's subquery is gone when the outer one is parsed.
    for at in (0..statement.tokens.len()).rev() {
        let Some(start) = call_start(&statement.tokens, at) else { continue };
        let mut rest = parser(statement.tokens[start..].to_vec(), statement.end);
        let mut call = Reader { parser: &mut rest, source }.call()?;
        let end = start + rest.index();
        call.stand_in = format!("\0window {}", calls.len());
        let last = statement.tokens.get(end.saturating_sub(1)).map_or(statement.end, |token| token.span);
        call.span = Span::new(statement.tokens[start].span.start, last.end);
        let word = Word {
            value: call.stand_in.clone(),
            quote_style: Some('`'),
            keyword: sqlparser::keywords::Keyword::NoKeyword,
        };
        let stand_in = TokenWithSpan::new(Token::Word(word), call.span);
        statement.tokens.splice(start..end.min(statement.tokens.len()), [stand_in]);
        calls.push(call);
    }
    Ok((statement, calls))
}

/// If a window function's name is at `at` behind `TABLE (` or FROM: where the call starts.
fn call_start(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let is_name = tokens.get(at).is_some_and(|token| FUNCTIONS.iter().any(|name| is_word(token, name)));
    let before = |n: usize| at.checked_sub(n).and_then(|index| tokens.get(index));
    if !matches!(tokens.get(at)?.token, Token::Word(_)) || tokens.get(at + 1)?.token != Token::LParen || !is_name {
        return None;
    }
    if before(1)?.token == Token::LParen && before(2).is_some_and(|token| is_word(token, "TABLE")) {
        return Some(at - 2);
    }
    let opens = before(1).is_some_and(|token| is_word(token, "FROM") || is_word(token, "JOIN"));
    opens.then_some(at)
}

struct Reader<'p, 's> {
    parser: &'p mut Parser<'static>,
    source: Source<'s>,
}

/// The arguments as they come, each with its name if it was given.
#[derive(Default)]
struct Arguments {
    data: Option<Data>,
    partition: Vec<Ident>,
    rowtime: Option<Ident>,
    sizes: Vec<(Option<String>, ast::Expr)>,
}

impl Reader<'_, '_> {
    fn expect(&mut self, token: &Token) -> Result<Span> {
        let at = self.parser.peek_token().span;
        match self.parser.expect_token(token) {
            Ok(token) => Ok(token.span),
            Err(error) => Err(self.source.parser_error(&error, at.start)),
        }
    }

    fn call(&mut self) -> Result<WindowCall> {
        let wrapped = is_word(&self.parser.peek_token(), "TABLE");
        if wrapped {
            self.parser.next_token();
            self.expect(&Token::LParen)?;
        }
        let name_token = self.parser.next_token();
        let name = match &name_token.token {
            Token::Word(word) => word.value.to_ascii_uppercase(),
            _ => return Err(self.source.error(name_token.span, "expected a window function")),
        };
        let span = name_token.span;
        self.expect(&Token::LParen)?;
        let mut arguments = Arguments::default();
        loop {
            self.argument(&mut arguments)?;
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        if wrapped {
            self.expect(&Token::RParen)?;
        }
        let kind = self.kind(&name, span, arguments.sizes)?;
        let Some(data) = arguments.data else {
            return Err(self.source.error(span, format!("{name} needs a table: {name}(TABLE t, ...)")));
        };
        let Some(rowtime) = arguments.rowtime else {
            return Err(self.source.error(span, format!("{name} needs its time column: DESCRIPTOR(ts)")));
        };
        let partition = arguments.partition;
        Ok(WindowCall { stand_in: String::new(), span, kind, data, rowtime, partition })
    }

    fn argument(&mut self, arguments: &mut Arguments) -> Result<()> {
        let mut name = None;
        if self.parser.peek_nth_token(1).token == Token::RArrow {
            let ident = self.parser.parse_identifier();
            name = ident.ok().map(|ident| ident.value.to_ascii_uppercase());
            self.parser.next_token();
        }
        let at = self.parser.peek_token();
        let fail = |error| self.source.parser_error(&error, at.span.start);
        if is_word(&at, "TABLE") {
            self.parser.next_token();
            arguments.data = Some(Data::Table(self.parser.parse_object_name(false).map_err(fail)?));
            return self.partition_by(arguments);
        }
        if is_word(&at, "DESCRIPTOR") {
            self.parser.next_token();
            self.expect(&Token::LParen)?;
            let at = self.parser.peek_token().span.start;
            let ident = self.parser.parse_identifier().map_err(|error| self.source.parser_error(&error, at))?;
            self.expect(&Token::RParen)?;
            // A second descriptor is the session's old-style partition; the first one is the time.
            arguments.rowtime.get_or_insert(ident);
            return Ok(());
        }
        let select = |token: &TokenWithSpan| is_word(token, "SELECT") || is_word(token, "WITH");
        if at.token == Token::LParen && select(&self.parser.peek_nth_token(1)) {
            self.parser.next_token();
            arguments.data = Some(Data::Query(self.parser.parse_query().map_err(fail)?));
            self.expect(&Token::RParen)?;
            return self.partition_by(arguments);
        }
        let value = self.parser.parse_expr().map_err(fail)?;
        arguments.sizes.push((name, value));
        Ok(())
    }

    fn partition_by(&mut self, arguments: &mut Arguments) -> Result<()> {
        if !is_word(&self.parser.peek_token(), "PARTITION") {
            return Ok(());
        }
        self.parser.next_token();
        let by = self.parser.next_token();
        if !is_word(&by, "BY") {
            return Err(self.source.error(by.span, format!("expected BY, found {by}")));
        }
        let parens = self.parser.consume_token(&Token::LParen);
        loop {
            let at = self.parser.peek_token().span.start;
            let ident = self.parser.parse_identifier().map_err(|error| self.source.parser_error(&error, at))?;
            arguments.partition.push(ident);
            // In `PARTITION BY a, DESCRIPTOR(ts)` the comma ends the list; `a, b, DESCRIPTOR` goes on.
            let next = self.parser.peek_nth_token(1);
            let more = self.parser.peek_token().token == Token::Comma
                && matches!(next.token, Token::Word(_))
                && !["DESCRIPTOR", "INTERVAL", "TABLE"].iter().any(|word| is_word(&next, word))
                && self.parser.peek_nth_token(2).token != Token::RArrow;
            if !more {
                break;
            }
            self.parser.next_token();
        }
        if parens {
            self.expect(&Token::RParen)?;
        }
        Ok(())
    }

    fn kind(&self, name: &str, span: Span, sizes: Vec<(Option<String>, ast::Expr)>) -> Result<WindowKind> {
        let names: &[&str] = match name {
            "TUMBLE" => &["SIZE", "OFFSET"],
            "HOP" => &["SLIDE", "SIZE", "OFFSET"],
            "CUMULATE" => &["STEP", "SIZE", "OFFSET"],
            "COUNT_WINDOW" => &["SIZE", "TIMEOUT"],
            _ => &["GAP"],
        };
        let mut values: Vec<Option<(i64, Span)>> = vec![None; names.len()];
        for (n, (given, value)) in sizes.iter().enumerate() {
            let place = match given {
                Some(given) => names.iter().position(|name| name == given),
                None => Some(n),
            };
            let at = span_of(value);
            let Some(slot) = place.and_then(|place| values.get_mut(place)) else {
                let message = match given {
                    Some(given) => format!("{name} has no argument {given}: {}", names.join(", ")),
                    None => format!("{name} takes at most {} sizes: {}", names.len(), names.join(", ")),
                };
                return Err(self.source.error(at, message));
            };
            let is_count = name == "COUNT_WINDOW" && place == Some(0);
            *slot = Some((if is_count { self.count(value, span)? } else { self.millis(value, span)? }, at));
        }
        self.assemble(name, span, &values)
    }

    fn missing(&self, name: &str, span: Span) -> Error {
        let (message, hint) = match name {
            "HOP" => ("HOP needs a slide and a size", "INTERVAL '5' MINUTE, INTERVAL '1' HOUR"),
            "CUMULATE" => ("CUMULATE needs a step and a size", "INTERVAL '10' MINUTE, INTERVAL '1' DAY"),
            "SESSION" => ("a session window needs a gap", "INTERVAL '10' MINUTE"),
            "COUNT_WINDOW" => ("a count window needs a number of records", "1000, INTERVAL '1' MINUTE"),
            _ => ("a window needs a size", "INTERVAL '1' HOUR"),
        };
        self.source.error(span, message).with_hint(format!("{message}: {hint}"))
    }

    fn assemble(&self, name: &str, span: Span, values: &[Option<(i64, Span)>]) -> Result<WindowKind> {
        let positive = |index: usize| match values.get(index).copied().flatten() {
            None => Err(self.missing(name, span)),
            Some((ms, at)) if ms <= 0 => Err(self.source.error(at, "the length must be more than zero")),
            Some(value) => Ok(value),
        };
        let offset = |index: usize, limit: i64| match values.get(index).copied().flatten() {
            None => Ok(0),
            Some((ms, at)) if ms.unsigned_abs() >= limit.unsigned_abs() => {
                Err(self.source.error(at, "the offset must be shorter than the window"))
            }
            Some((ms, _)) => Ok(ms),
        };
        Ok(match name {
            "TUMBLE" => {
                let (size_ms, _) = positive(0)?;
                WindowKind::Tumble { size_ms, offset_ms: offset(1, size_ms)? }
            }
            "SESSION" => WindowKind::Session { gap_ms: positive(0)?.0 },
            "COUNT_WINDOW" => WindowKind::Count {
                size: positive(0)?.0.unsigned_abs(),
                timeout_ms: values[1].map(|_| positive(1)).transpose()?.map(|(ms, _)| ms),
            },
            "HOP" => {
                let ((slide_ms, _), (size_ms, _)) = (positive(0)?, positive(1)?);
                WindowKind::Hop { size_ms, slide_ms, offset_ms: offset(2, size_ms.max(slide_ms))? }
            }
            _ => {
                let ((step_ms, _), (max_ms, at)) = (positive(0)?, positive(1)?);
                if max_ms % step_ms != 0 {
                    let message =
                        format!("CUMULATE: the size ({max_ms} ms) must be a multiple of the step ({step_ms} ms)");
                    return Err(self.source.error(at, message));
                }
                WindowKind::Cumulate { max_ms, step_ms, offset_ms: offset(2, max_ms)? }
            }
        })
    }

    fn count(&self, value: &ast::Expr, call: Span) -> Result<i64> {
        let number = match value {
            ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) => digits.parse().ok(),
            _ => None,
        };
        let at = span_of(value);
        let at = if at.start.line == 0 { call } else { at };
        number.ok_or_else(|| {
            self.source
                .error(at, "expected a number of records")
                .with_hint("COUNT_WINDOW(TABLE t PARTITION BY k, DESCRIPTOR(ts), 1000)")
        })
    }

    fn millis(&self, value: &ast::Expr, call: Span) -> Result<i64> {
        let at = span_of(value);
        let at = if at.start.line == 0 { call } else { at };
        let (value, sign) = match value {
            ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => (&**expr, -1),
            other => (other, 1),
        };
        let ast::Expr::Interval(written) = value else {
            return Err(self
                .source
                .error(at, "expected an interval")
                .with_hint("a window needs a size: INTERVAL '1' HOUR"));
        };
        match interval::parse(written).map_err(|message| self.source.error(at, message))? {
            Interval::Millis(ms) => Ok(ms * sign),
            Interval::Months(_) => Err(self
                .source
                .error(at, "months and years have no fixed length")
                .with_hint("use days: INTERVAL '30' DAY")),
        }
    }
}
