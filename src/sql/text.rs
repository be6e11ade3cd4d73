//! The text of a SQL file: tokens with places, statements, and errors that point at them.

use crate::engine::functions::FunctionRegistry;
use crate::error::{Error, ErrorKind, Result, SourcePlace};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

/// Longest file in bytes: bounds the work and the depth of everything that follows.
const FILE_MAX: usize = 4 << 20;
/// Most operators between two commas or clauses: chains of operators are deep trees.
const OPERATORS_MAX: usize = 200;
/// Deepest nesting of parentheses.
const NESTING_MAX: usize = 40;
/// Deepest nesting of forms that the parser tries in two ways, each nested one again: CASE, CAST( and the like.
const FORMS_MAX: usize = 12;
/// Words that begin such forms.
const FORMS: [&str; 14] = [
    "CAST",
    "TRY_CAST",
    "SAFE_CAST",
    "CONVERT",
    "EXTRACT",
    "SUBSTRING",
    "SUBSTR",
    "TRIM",
    "POSITION",
    "CEIL",
    "FLOOR",
    "OVERLAY",
    "EXISTS",
    "ARRAY",
];

/// Flink's lexical rules: backquoted identifiers, strings in single quotes without escapes.
#[derive(Debug)]
pub(super) struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`'
    }
    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }
    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || matches!(c, '_' | '$')
    }
    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }
    fn supports_group_by_expr(&self) -> bool {
        true
    }
}

/// The file that is being planned; makes errors that point into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// What it may call beside SQL's own functions.
    pub functions: &'a FunctionRegistry,
    /// Name as the user gave it.
    pub file: &'a str,
}

impl Source<'_> {
    /// An [`ErrorKind::Input`] error at the start of `span`.
    pub fn error(&self, span: Span, message: impl Into<String>) -> Error {
        self.error_at(span.start, message)
    }

    /// An [`ErrorKind::Input`] error at a location; a location that is not known becomes 1:1.
    pub fn error_at(&self, at: Location, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Input, message).with_place(SourcePlace {
            file: self.file.to_owned(),
            line: at.line.max(1),
            column: at.column.max(1),
        })
    }

    /// A parser's error; its place is taken out of its text. `at` is where the statement starts.
    pub fn parser_error(&self, error: &ParserError, at: Location) -> Error {
        let text = match error {
            ParserError::RecursionLimitExceeded => return self.error_at(at, "the statement is nested too deeply"),
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        };
        let (message, place) = split_place(text);
        self.error_at(place.unwrap_or(at), syntax_message(message))
    }

    /// Splits a file into statements.
    pub fn statements(&self, text: &str) -> Result<Vec<Statement>> {
        if text.len() > FILE_MAX {
            return Err(Error::input(format!("{}: a SQL file has at most {FILE_MAX} bytes", self.file)));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tokens = Tokenizer::new(&FlinkDialect, text)
            .tokenize_with_location()
            .map_err(|error| self.error_at(error.location, error.message))?;
        let mut statements = Vec::new();
        let mut current: Vec<TokenWithSpan> = Vec::new();
        for token in tokens {
            match token.token {
                Token::Whitespace(_) => {}
                Token::SemiColon => self.push(&mut statements, std::mem::take(&mut current), token.span)?,
                // Types such as ROW<a ARRAY<INT>> end in two closing brackets; Flink has no shift operator.
                Token::ShiftRight => {
                    let middle = Location { line: token.span.start.line, column: token.span.start.column + 1 };
                    current.push(TokenWithSpan::new(Token::Gt, Span::new(token.span.start, middle)));
                    current.push(TokenWithSpan::new(Token::Gt, Span::new(middle, token.span.end)));
                }
                _ => current.push(token),
            }
        }
        let end = current.last().map_or(Span::empty(), |token| Span::new(token.span.end, token.span.end));
        self.push(&mut statements, current, end)?;
        Ok(statements)
    }

    fn push(&self, statements: &mut Vec<Statement>, tokens: Vec<TokenWithSpan>, end: Span) -> Result<()> {
        let Some(first) = tokens.first() else { return Ok(()) };
        let start = first.span;
        self.check_depth(&tokens)?;
        statements.push(Statement { tokens, start, end });
        Ok(())
    }

    /// Parsers and binders recurse: what could be too deep for a stack is refused here.
    fn check_depth(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        let (mut operators, mut cases, mut brackets) = (0usize, 0usize, 0usize);
        // For each open parenthesis whether it belongs to such a form.
        let mut open: Vec<bool> = Vec::new();
        let mut before: Option<&TokenWithSpan> = None;
        for token in tokens {
            match &token.token {
                Token::LParen | Token::LBracket => {
                    open.push(before.is_some_and(|token| FORMS.iter().any(|word| is_word(token, word))));
                }
                Token::RParen | Token::RBracket => drop(open.pop()),
                Token::Lt => brackets += 1,
                Token::Gt => brackets = brackets.saturating_sub(1),
                Token::Comma => operators = 0,
                Token::Word(word) => match word.keyword {
                    Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::HAVING | Keyword::GROUP => {
                        operators = 0;
                    }
                    Keyword::CASE => cases += 1,
                    Keyword::END => cases = cases.saturating_sub(1),
                    Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::UNION => operators += 1,
                    Keyword::INTERVAL if before.is_some_and(|token| is_word(token, "INTERVAL")) => cases += 1,
                    _ => {}
                },
                Token::SingleQuotedString(_) | Token::Number(..) => {}
                _ => operators += 1,
            }
            before = Some(token);
            let forms = cases + open.iter().filter(|form| **form).count();
            // `<` is also "less than", hence the wider bound.
            if open.len() > NESTING_MAX || forms > FORMS_MAX || brackets.max(operators) > OPERATORS_MAX {
                let hint = "use IN (...) for long lists of comparisons, or split the statement with views";
                return Err(self.error(token.span, "the expression is too long or nested too deeply").with_hint(hint));
            }
        }
        Ok(())
    }
}

/// The tokens of one statement, without white space, comments and the semicolon.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// Tokens.
    pub tokens: Vec<TokenWithSpan>,
    /// Place of the first token.
    pub start: Span,
    /// Place of the semicolon, or behind the last token.
    pub end: Span,
}

impl Statement {
    /// A parser over the statement's tokens.
    pub fn parser(&self) -> Parser<'static> {
        parser(self.tokens.clone(), self.end)
    }

    /// True if the statement starts with these words.
    pub fn starts_with(&self, words: &[&str]) -> bool {
        self.tokens.len() >= words.len() && self.tokens.iter().zip(words).all(|(token, word)| is_word(token, word))
    }
}

/// A parser over tokens; errors at the end point at `end`.
pub(super) fn parser(mut tokens: Vec<TokenWithSpan>, end: Span) -> Parser<'static> {
    tokens.push(TokenWithSpan::new(Token::EOF, end));
    Parser::new(&FlinkDialect).with_recursion_limit(NESTING_MAX).with_tokens_with_locations(tokens)
}

/// True for the unquoted word `word`, in any case.
pub(super) fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The known name that is closest to `wanted`, if any is close enough to be a typing error.
pub(super) fn nearest<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = wanted.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let distance = edit_distance(&lower, &name.to_lowercase());
        if distance <= (wanted.chars().count() / 3).max(1) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Changes, insertions, omissions and swaps of neighbours between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substituted.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// `message at Line: 3, Column: 7` as message and place.
fn split_place(text: &str) -> (&str, Option<Location>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (text, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (message, Some(Location { line, column })),
        _ => (text, None),
    }
}

fn syntax_message(text: &str) -> String {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    let expected = text.strip_prefix("Expected: ").or(text.strip_prefix("Expected "));
    match expected.and_then(|rest| rest.split_once(", found: ")) {
        Some((expected, "EOF")) => format!("expected {expected}, but the statement ends here"),
        Some((expected, found)) => format!("expected {expected}, found {found}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_strings_and_comments() {
        let source = Source { file: "a.sql", functions: FunctionRegistry::none() };
        let text = "SET 'a;b' = 'c'; -- no; end\n/* nor; here */ SELECT 1;;\nSELECT `x;y`";
        let statements = source.statements(text).unwrap();
        let starts: Vec<_> = statements.iter().map(|s| (s.start.start.line, s.start.start.column)).collect();
        assert_eq!(starts, [(1, 1), (2, 17), (3, 1)]);
    }

    #[test]
    fn typing_errors_have_a_nearest_name_and_other_words_have_none() {
        assert_eq!(nearest("orgin", ["dest", "origin"]), Some("origin"));
        assert_eq!(nearest("ORIGIN", ["dest", "origin"]), Some("origin"));
        assert_eq!(nearest("zebra", ["dest", "origin"]), None);
    }

    #[test]
    fn unclosed_text_is_an_error_with_its_place() {
        let source = Source { file: "a.sql", functions: FunctionRegistry::none() };
        let error = source.statements("SELECT 1;\n SELECT 'abc").unwrap_err();
        assert_eq!(error.place().map(|p| (p.line, p.column)), Some((2, 9)));
    }
}
