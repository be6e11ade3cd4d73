//! `CREATE CHECK name [WITH ('severity' = 'warn' | 'block')] AS SELECT ...`: a query whose rows are failures. Beyond Flink.

use super::text::{Source, Statement, is_word};
use crate::engine::plan::JobPlan;
use crate::error::Result;
use sqlparser::tokenizer::{Span, Token};

/// What a failed check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It is said.
    Warn,
    /// What it is about is not good enough to go on with.
    Block,
}

impl Severity {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warn => "warn",
            Severity::Block => "block",
        }
    }
}

/// A check of a file.
#[derive(Debug, Clone)]
pub struct CheckPlan {
    /// Its name.
    pub name: String,
    /// What it means when it fails.
    pub severity: Severity,
    /// The query, as a job with one output.
    pub plan: JobPlan,
}

/// Name with its place, severity, and the query.
pub(super) type Head = ((String, Span), Severity, Statement);

/// Takes the statement apart.
pub(super) fn head(statement: &Statement, source: Source<'_>) -> Result<Head> {
    let tokens = &statement.tokens;
    let end = statement.end;
    let span = |at: usize| tokens.get(at).map_or(end, |token| token.span);
    let wrong = |at: usize, expected: &str| {
        let hint = "CREATE CHECK name [WITH ('severity' = 'warn' | 'block')] AS SELECT ...";
        Err(source.error(span(at), format!("expected {expected}")).with_hint(hint))
    };
    let name = match tokens.get(2).map(|token| &token.token) {
        Some(Token::Word(word)) if !is_word(&tokens[2], "AS") && !is_word(&tokens[2], "WITH") => word.value.clone(),
        _ => return wrong(2, "the name of the check"),
    };
    let (mut at, mut severity) = (3, Severity::Block);
    if tokens.get(at).is_some_and(|token| is_word(token, "WITH")) {
        let option: Vec<&Token> = tokens.iter().skip(at + 1).take(5).map(|token| &token.token).collect();
        severity = match option[..] {
            [
                Token::LParen,
                Token::SingleQuotedString(key),
                Token::Eq,
                Token::SingleQuotedString(value),
                Token::RParen,
            ] if key == "severity" => match value.as_str() {
                "warn" => Severity::Warn,
                "block" => Severity::Block,
                _ => return wrong(at + 4, "'warn' or 'block'"),
            },
            _ => return wrong(at + 1, "('severity' = 'warn') or ('severity' = 'block')"),
        };
        at += 6;
    }
    if !tokens.get(at).is_some_and(|token| is_word(token, "AS")) {
        return wrong(at, "AS and the query");
    }
    let query = Statement { tokens: tokens[at + 1..].to_vec(), start: span(at + 1), end };
    match query.starts_with(&["SELECT"]) || query.starts_with(&["WITH"]) {
        true => Ok(((name, span(2)), severity, query)),
        false => wrong(at + 1, "SELECT"),
    }
}
