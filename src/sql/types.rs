//! Flink's types, their names and their Arrow form.

use super::text::{Source, is_word};
use crate::error::Result;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use sqlparser::ast;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token};
use std::sync::Arc;

/// TIMESTAMP(3).
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// TIMESTAMP_LTZ(3).
pub(super) fn timestamp_ltz() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Flink's name of a type.
pub(super) fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::Utf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP(3)".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP_LTZ(3)".into(),
        DataType::List(item) => format!("ARRAY<{}>", name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), name(f.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Interval(_) => "INTERVAL".into(),
        other => other.to_string(),
    }
}

/// A type of a column as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Arrow type.
    pub data_type: DataType,
    /// False after `NOT NULL`.
    pub nullable: bool,
    /// The user wrote a precision that is finer than ours: TIMESTAMP(6).
    pub too_fine: bool,
}

/// Parses a type, with its `[NOT] NULL`.
pub(super) fn parse(parser: &mut Parser<'_>, source: Source<'_>) -> Result<Written> {
    let at = parser.peek_token();
    let fail = |error| source.parser_error(&error, at.span.start);
    let word = match &at.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        _ => return Err(source.error(at.span, format!("expected a type, found {at}"))),
    };
    parser.next_token();
    let mut too_fine = false;
    let data_type = match word.as_str() {
        "ROW" => parse_row(parser, source, &mut too_fine)?,
        "ARRAY" => {
            parser.expect_token(&Token::Lt).map_err(fail)?;
            let item = parse(parser, source)?;
            parser.expect_token(&Token::Gt).map_err(fail)?;
            too_fine |= item.too_fine;
            DataType::List(Arc::new(Field::new("item", item.data_type, item.nullable)))
        }
        _ => {
            if word == "DOUBLE" && is_word(&parser.peek_token(), "PRECISION") {
                parser.next_token();
            }
            let arguments = parse_arguments(parser, source)?;
            let word = time_zone_words(parser, word);
            scalar(&word, &arguments, &mut too_fine).map_err(|message| source.error(at.span, message))?
        }
    };
    let nullable = parse_nullability(parser);
    Ok(Written { data_type, nullable, too_fine })
}

/// The type of a CAST, which the SQL parser has parsed.
pub(super) fn from_ast(data_type: &ast::DataType, source: Source<'_>, span: Span) -> Result<DataType> {
    use ast::DataType as Ast;
    if let Ast::Timestamp(_, ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz) = data_type {
        return Err(source.error(span, "TIMESTAMP WITH TIME ZONE is not a type: use TIMESTAMP_LTZ(3)"));
    }
    // Its text is the type's Flink form: one grammar for both places.
    let text = data_type.to_string();
    let mut tokens =
        source.statements(&text).map_err(|_| source.error(span, format!("{text} is not a type of Flink")))?;
    let Some(mut statement) = tokens.pop() else { return Err(source.error(span, "a type is missing")) };
    for token in &mut statement.tokens {
        token.span = span;
    }
    statement.end = span;
    let mut parser = statement.parser();
    let written = parse(&mut parser, source)?;
    match parser.peek_token().token {
        Token::EOF => Ok(written.data_type),
        _ => Err(source.error(span, format!("{text} is not a type of Flink"))),
    }
}

fn parse_row(parser: &mut Parser<'_>, source: Source<'_>, too_fine: &mut bool) -> Result<DataType> {
    let at = parser.peek_token().span.start;
    let fail = |error| source.parser_error(&error, at);
    let close = if parser.consume_token(&Token::LParen) {
        Token::RParen
    } else {
        parser.expect_token(&Token::Lt).map_err(fail)?;
        Token::Gt
    };
    let mut fields: Vec<Field> = Vec::new();
    loop {
        let name = parser.parse_identifier().map_err(fail)?;
        if fields.iter().any(|field| *field.name() == name.value) {
            return Err(source.error(name.span, format!("field '{}' is in the ROW twice", name.value)));
        }
        let written = parse(parser, source)?;
        *too_fine |= written.too_fine;
        if is_word(&parser.peek_token(), "COMMENT") || matches!(parser.peek_token().token, Token::SingleQuotedString(_))
        {
            parser.next_token();
            if matches!(parser.peek_token().token, Token::SingleQuotedString(_)) {
                parser.next_token();
            }
        }
        fields.push(Field::new(name.value, written.data_type, written.nullable));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&close).map_err(fail)?;
    Ok(DataType::Struct(Fields::from(fields)))
}

fn parse_arguments(parser: &mut Parser<'_>, source: Source<'_>) -> Result<Vec<i64>> {
    let mut arguments = Vec::new();
    if !parser.consume_token(&Token::LParen) {
        return Ok(arguments);
    }
    loop {
        let token = parser.next_token();
        match &token.token {
            Token::Number(digits, _) => match digits.parse() {
                Ok(number) => arguments.push(number),
                Err(_) => return Err(source.error(token.span, format!("{digits} is too large"))),
            },
            Token::Word(word) if word.value.eq_ignore_ascii_case("MAX") => arguments.push(i64::from(i32::MAX)),
            _ => return Err(source.error(token.span, format!("expected a length or precision, found {token}"))),
        }
        let token = parser.next_token();
        match token.token {
            Token::Comma => {}
            Token::RParen => return Ok(arguments),
            _ => return Err(source.error(token.span, format!("expected ')', found {token}"))),
        }
    }
}

/// `TIMESTAMP(3) WITH LOCAL TIME ZONE` and `WITHOUT TIME ZONE`.
fn time_zone_words(parser: &mut Parser<'_>, word: String) -> String {
    let forms: [(&[&str], &str); 2] =
        [(&["WITH", "LOCAL", "TIME", "ZONE"], "TIMESTAMP_LTZ"), (&["WITHOUT", "TIME", "ZONE"], "TIMESTAMP")];
    if word != "TIMESTAMP" {
        return word;
    }
    for (words, name) in forms {
        if words.iter().enumerate().all(|(n, word)| is_word(&parser.peek_nth_token(n), word)) {
            for _ in words {
                parser.next_token();
            }
            return name.to_owned();
        }
    }
    word
}

fn parse_nullability(parser: &mut Parser<'_>) -> bool {
    if is_word(&parser.peek_token(), "NOT") && is_word(&parser.peek_nth_token(1), "NULL") {
        parser.next_token();
        parser.next_token();
        return false;
    }
    if is_word(&parser.peek_token(), "NULL") {
        parser.next_token();
    }
    true
}

fn scalar(word: &str, arguments: &[i64], too_fine: &mut bool) -> Result<DataType, String> {
    let at_most = |count: usize| match arguments.len() > count {
        true => Err(format!("{word} takes at most {count} arguments")),
        false => Ok(()),
    };
    let plain = |data_type: DataType| at_most(0).map(|()| data_type);
    match word {
        "BOOLEAN" => plain(DataType::Boolean),
        "TINYINT" => plain(DataType::Int8),
        "SMALLINT" => plain(DataType::Int16),
        "INT" | "INTEGER" => plain(DataType::Int32),
        "BIGINT" => plain(DataType::Int64),
        "FLOAT" => plain(DataType::Float32),
        "DOUBLE" => plain(DataType::Float64),
        "STRING" => plain(DataType::Utf8),
        "CHAR" | "VARCHAR" => at_most(1).map(|()| DataType::Utf8),
        "BYTES" => plain(DataType::Binary),
        "BINARY" | "VARBINARY" => at_most(1).map(|()| DataType::Binary),
        "DATE" => plain(DataType::Date32),
        "DECIMAL" | "DEC" | "NUMERIC" => {
            at_most(2)?;
            let precision = arguments.first().copied().unwrap_or(10);
            let scale = arguments.get(1).copied().unwrap_or(0);
            match (u8::try_from(precision), i8::try_from(scale)) {
                (Ok(p @ 1..=38), Ok(s)) if s >= 0 && s.unsigned_abs() <= p => Ok(DataType::Decimal128(p, s)),
                _ => Err(format!("DECIMAL({precision}, {scale}): precision is 1 to 38, scale 0 to precision")),
            }
        }
        "TIMESTAMP" | "TIMESTAMP_LTZ" => {
            at_most(1)?;
            match arguments.first().copied().unwrap_or(6) {
                0..=3 => {}
                4..=9 => *too_fine = true,
                other => return Err(format!("{word}({other}): precision is 0 to 9")),
            }
            Ok(if word == "TIMESTAMP" { timestamp() } else { timestamp_ltz() })
        }
        "TIME" | "MAP" | "MULTISET" | "RAW" | "INTERVAL" | "VARIANT" => {
            Err(format!("type {word} is not supported yet"))
        }
        _ => Err(format!("{word} is not a type of Flink")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Written> {
        let source = Source { file: "t.sql", functions: crate::engine::functions::FunctionRegistry::none() };
        parse(&mut source.statements(text)?[0].parser(), source)
    }

    #[test]
    fn types_and_names() {
        for (text, expected) in [
            ("INT", "INT"),
            ("integer not null", "INT"),
            ("VARCHAR(20)", "STRING"),
            ("DECIMAL(10, 2)", "DECIMAL(10, 2)"),
            ("DECIMAL", "DECIMAL(10, 0)"),
            ("TIMESTAMP(3)", "TIMESTAMP(3)"),
            ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
            ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("ROW<a INT, b ROW<`c d` ARRAY<ARRAY<STRING>>>>", "ROW<a INT, b ROW<c d ARRAY<ARRAY<STRING>>>>"),
            ("ROW(a INT NOT NULL, b BYTES)", "ROW<a INT, b BYTES>"),
        ] {
            assert_eq!(name(&parsed(text).unwrap().data_type), expected, "{text}");
        }
        assert!(!parsed("INT NOT NULL").unwrap().nullable);
        assert!(parsed("TIMESTAMP").unwrap().too_fine);
    }

    #[test]
    fn wrong_types_say_what_is_wrong() {
        for (text, message) in [
            ("DECIMAL(39, 2)", "DECIMAL(39, 2): precision is 1 to 38, scale 0 to precision"),
            ("DECIMAL(3, 4)", "DECIMAL(3, 4): precision is 1 to 38, scale 0 to precision"),
            ("STRNG", "STRNG is not a type of Flink"),
            ("INT(3)", "INT takes at most 0 arguments"),
            ("ROW<a INT, a INT>", "field 'a' is in the ROW twice"),
            ("MAP<INT, INT>", "type MAP is not supported yet"),
        ] {
            assert_eq!(parsed(text).unwrap_err().message(), message, "{text}");
        }
    }
}
