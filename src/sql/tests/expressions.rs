//! The tested table of Flink's expressions: type, value, and value over NULLs.

use super::support::evaluate;

fn check(rows: &[(&str, &str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (expression, data_type, value, on_null) in rows {
        let expected = Ok(((*data_type).to_owned(), (*value).to_owned(), (*on_null).to_owned()));
        let got = evaluate(expression);
        if got != expected {
            wrong.push(format!("{expression}:\n    got      {got:?}\n    expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arithmetic() {
    check(&[
        ("i + 1", "INT", "8", "NULL"),
        ("i / 2", "INT", "3", "NULL"),
        ("-i / 2", "INT", "-3", "NULL"),
        ("i % 4", "INT", "3", "NULL"),
        ("MOD(b, 7)", "INT", "2", "NULL"),
        ("i + b", "BIGINT", "5000000007", "NULL"),
        ("si + si", "SMALLINT", "6", "NULL"),
        ("i * 2147483647", "INT", "2147483641", "NULL"),
        ("i + d", "DOUBLE", "9.5", "NULL"),
        ("i + f", "FLOAT", "7.5", "NULL"),
        ("i + 1.5", "DECIMAL(12, 1)", "8.5", "NULL"),
        ("n + n", "DECIMAL(11, 2)", "246.90", "NULL"),
        ("n * n", "DECIMAL(20, 4)", "15239.9025", "NULL"),
        ("n / 7", "DECIMAL(21, 13)", "17.6357142857143", "NULL"),
        ("n * d", "DOUBLE", "308.625", "NULL"),
        ("1.5", "DECIMAL(2, 1)", "1.5", "1.5"),
        ("1e1", "DOUBLE", "10.0", "10.0"),
        ("3000000000", "BIGINT", "3000000000", "3000000000"),
        ("-9223372036854775808", "BIGINT", "-9223372036854775808", "-9223372036854775808"),
        ("1 + 2 * 3", "INT", "7", "7"),
    ]);
}

#[test]
fn conditions() {
    check(&[
        ("i > 5 AND s IS NOT NULL", "BOOLEAN", "true", "false"),
        ("i BETWEEN 1 AND 7", "BOOLEAN", "true", "NULL"),
        ("i NOT BETWEEN 1 AND 7", "BOOLEAN", "false", "NULL"),
        ("i IN (1, 7)", "BOOLEAN", "true", "NULL"),
        ("i IN (1, 2, 3, 4, 5)", "BOOLEAN", "false", "NULL"),
        ("s NOT IN ('a', 'b', 'c', 'd')", "BOOLEAN", "true", "NULL"),
        ("s LIKE 'Hello%'", "BOOLEAN", "true", "NULL"),
        ("s NOT LIKE '%World'", "BOOLEAN", "false", "NULL"),
        ("'a_b' LIKE 'a!_b' ESCAPE '!'", "BOOLEAN", "true", "true"),
        ("i = 7.0", "BOOLEAN", "true", "NULL"),
        ("ts > '2013-01-05 00:00:00'", "BOOLEAN", "true", "NULL"),
        ("day = '2013-01-05'", "BOOLEAN", "true", "NULL"),
        ("k IS TRUE", "BOOLEAN", "true", "false"),
        ("NOT k", "BOOLEAN", "false", "NULL"),
        ("i IS DISTINCT FROM 7", "BOOLEAN", "false", "true"),
        ("CASE WHEN i > 5 THEN 'big' WHEN i > 3 THEN 'mid' END", "STRING", "big", "NULL"),
        ("CASE i WHEN 7 THEN 1 ELSE 2.5 END", "DECIMAL(11, 1)", "1.0", "2.5"),
        ("COALESCE(i, 0)", "INT", "7", "0"),
        ("IFNULL(s, 'none')", "STRING", "Hello World", "none"),
        ("NULLIF(i, 7)", "INT", "NULL", "NULL"),
        ("IF(i > 5, 'a', 'b')", "STRING", "a", "b"),
        ("GREATEST(i, 3, 9)", "INT", "9", "NULL"),
        ("LEAST(i, 3, 9)", "INT", "3", "NULL"),
    ]);
}

#[test]
fn casts() {
    check(&[
        ("CAST(i AS STRING)", "STRING", "7", "NULL"),
        ("CAST(d AS STRING)", "STRING", "2.5", "NULL"),
        ("CAST(1e10 AS STRING)", "STRING", "1.0E10", "1.0E10"),
        ("CAST(k AS STRING)", "STRING", "TRUE", "NULL"),
        ("CAST(n AS STRING)", "STRING", "123.45", "NULL"),
        ("CAST(n AS INT)", "INT", "123", "NULL"),
        ("CAST(n AS DECIMAL(10, 1))", "DECIMAL(10, 1)", "123.5", "NULL"),
        ("CAST(n AS DECIMAL(3, 1))", "DECIMAL(3, 1)", "NULL", "NULL"),
        ("CAST(-2.7 AS INT)", "INT", "-2", "-2"),
        ("CAST(d AS BIGINT)", "BIGINT", "2", "NULL"),
        ("CAST(b AS INT)", "INT", "705032704", "NULL"),
        ("CAST(' 12 ' AS INT)", "INT", "12", "12"),
        ("CAST('12.9' AS INT)", "INT", "12", "12"),
        ("TRY_CAST(s AS INT)", "INT", "NULL", "NULL"),
        ("CAST('yes' AS BOOLEAN)", "BOOLEAN", "true", "true"),
        ("CAST(s AS VARCHAR(5))", "STRING", "Hello", "NULL"),
        ("CAST('ab' AS CHAR(4)) || '.'", "STRING", "ab  .", "ab  ."),
        ("CAST(ts AS STRING)", "STRING", "2013-01-05 15:04:09.070", "NULL"),
        ("CAST(ts AS DATE)", "DATE", "2013-01-05", "NULL"),
        ("CAST(day AS TIMESTAMP(3))", "TIMESTAMP(3)", "2013-01-05 00:00:00.000", "NULL"),
        (
            "CAST('2013-01-05 01:02:03' AS TIMESTAMP(3))",
            "TIMESTAMP(3)",
            "2013-01-05 01:02:03.000",
            "2013-01-05 01:02:03.000",
        ),
        ("CAST(l AS TIMESTAMP(3))", "TIMESTAMP(3)", "1969-12-31 23:59:59.999", "NULL"),
        ("CAST(NULL AS BIGINT)", "BIGINT", "NULL", "NULL"),
        ("CAST(i AS DOUBLE)", "DOUBLE", "7.0", "NULL"),
    ]);
}

#[test]
fn texts() {
    check(&[
        ("UPPER(s)", "STRING", "HELLO WORLD", "NULL"),
        ("lower(s)", "STRING", "hello world", "NULL"),
        ("INITCAP('hELLO wORLD')", "STRING", "Hello World", "Hello World"),
        ("CHAR_LENGTH('ä€x')", "INT", "3", "3"),
        ("SUBSTRING(s FROM 7)", "STRING", "World", "NULL"),
        ("SUBSTRING(s FROM 1 FOR 4)", "STRING", "Hell", "NULL"),
        ("SUBSTR(s, -5, 3)", "STRING", "Wor", "NULL"),
        ("LEFT(s, 2) || RIGHT(s, 2)", "STRING", "Held", "NULL"),
        ("CONCAT(s, '!', NULL)", "STRING", "NULL", "NULL"),
        ("CONCAT_WS('-', 'a', s, 'b')", "STRING", "a-Hello World-b", "a-b"),
        ("TRIM('  x ')", "STRING", "x", "x"),
        ("TRIM(LEADING 'x' FROM 'xxax')", "STRING", "ax", "ax"),
        ("RTRIM(' x ')", "STRING", " x", " x"),
        ("REPLACE(s, 'l', 'L')", "STRING", "HeLLo WorLd", "NULL"),
        ("POSITION('World' IN s)", "INT", "7", "NULL"),
        ("LPAD('7', 3, '0')", "STRING", "007", "007"),
        ("RPAD('hi', 1, '?')", "STRING", "h", "h"),
        ("REPEAT('ab', 2)", "STRING", "abab", "abab"),
        ("REVERSE('abc')", "STRING", "cba", "cba"),
        ("SPLIT_INDEX(s, ' ', 1)", "STRING", "World", "NULL"),
        ("SPLIT_INDEX(s, ' ', 2)", "STRING", "NULL", "NULL"),
        ("OVERLAY('xxxxtest' PLACING 'yyyy' FROM 1)", "STRING", "yyyytest", "yyyytest"),
        ("REGEXP(s, 'W.r')", "BOOLEAN", "true", "NULL"),
        ("REGEXP_EXTRACT(s, 'H(.)l(.*) W', 2)", "STRING", "lo", "NULL"),
        ("REGEXP_EXTRACT(s, 'o W')", "STRING", "o W", "NULL"),
        ("STARTSWITH(s, 'He')", "BOOLEAN", "true", "NULL"),
    ]);
}

#[test]
fn numbers() {
    check(&[
        ("ABS(-i)", "INT", "7", "NULL"),
        ("CEIL(d)", "DOUBLE", "3.0", "NULL"),
        ("FLOOR(-d)", "DOUBLE", "-3.0", "NULL"),
        ("FLOOR(n)", "DECIMAL(10, 0)", "123", "NULL"),
        ("ROUND(n, 1)", "DECIMAL(10, 1)", "123.5", "NULL"),
        ("ROUND(d)", "DOUBLE", "3.0", "NULL"),
        ("TRUNCATE(n, 1)", "DECIMAL(10, 1)", "123.4", "NULL"),
        ("SIGN(-n)", "DECIMAL(10, 2)", "-1.00", "NULL"),
        ("POWER(i, 2)", "DOUBLE", "49.0", "NULL"),
        ("SQRT(16)", "DOUBLE", "4.0", "4.0"),
        ("LOG10(100)", "DOUBLE", "2.0", "2.0"),
    ]);
}

#[test]
fn times() {
    check(&[
        ("ts + INTERVAL '1' HOUR", "TIMESTAMP(3)", "2013-01-05 16:04:09.070", "NULL"),
        ("ts - INTERVAL '0.070' SECOND", "TIMESTAMP(3)", "2013-01-05 15:04:09.000", "NULL"),
        ("ts + INTERVAL '2' MONTH", "TIMESTAMP(3)", "2013-03-05 15:04:09.070", "NULL"),
        ("day + INTERVAL '1' DAY", "DATE", "2013-01-06", "NULL"),
        ("TIMESTAMPADD(MONTH, -1, ts)", "TIMESTAMP(3)", "2012-12-05 15:04:09.070", "NULL"),
        ("TIMESTAMPDIFF(MINUTE, day, ts)", "INT", "904", "NULL"),
        ("TIMESTAMPDIFF(MONTH, TIMESTAMP '2013-01-31 00:00:00', TIMESTAMP '2013-03-30 00:00:00')", "INT", "1", "1"),
        ("EXTRACT(HOUR FROM ts)", "BIGINT", "15", "NULL"),
        ("EXTRACT(EPOCH FROM l)", "BIGINT", "-1", "NULL"),
        ("YEAR(ts) * 100 + MONTH(ts)", "BIGINT", "201301", "NULL"),
        ("DAYOFWEEK(ts)", "BIGINT", "7", "NULL"),
        ("WEEK(DATE '2013-01-01')", "BIGINT", "1", "1"),
        ("FLOOR(ts TO HOUR)", "TIMESTAMP(3)", "2013-01-05 15:00:00.000", "NULL"),
        ("CEIL(ts TO MONTH)", "TIMESTAMP(3)", "2013-02-01 00:00:00.000", "NULL"),
        ("FLOOR(l TO DAY)", "TIMESTAMP_LTZ(3)", "1969-12-31 00:00:00.000", "NULL"),
        ("DATE_FORMAT(ts, 'yyyy-MM-dd HH:mm')", "STRING", "2013-01-05 15:04", "NULL"),
        ("TO_TIMESTAMP('2013-01-05 01:02:03')", "TIMESTAMP(3)", "2013-01-05 01:02:03.000", "2013-01-05 01:02:03.000"),
        ("TO_TIMESTAMP(s)", "TIMESTAMP(3)", "NULL", "NULL"),
        (
            "TO_TIMESTAMP('05.01.2013', 'dd.MM.yyyy')",
            "TIMESTAMP(3)",
            "2013-01-05 00:00:00.000",
            "2013-01-05 00:00:00.000",
        ),
        ("TO_TIMESTAMP_LTZ(b, 0)", "TIMESTAMP_LTZ(3)", "2128-06-11 08:53:20.000", "NULL"),
        ("TO_TIMESTAMP_LTZ(b, 3)", "TIMESTAMP_LTZ(3)", "1970-02-27 20:53:20.000", "NULL"),
        ("FROM_UNIXTIME(i)", "STRING", "1970-01-01 00:00:07", "NULL"),
        ("UNIX_TIMESTAMP('1970-01-01 00:01:00')", "BIGINT", "60", "60"),
        ("CURRENT_TIMESTAMP", "TIMESTAMP_LTZ(3)", "1970-01-01 00:00:01.000", "1970-01-01 00:00:02.000"),
        ("NOW()", "TIMESTAMP_LTZ(3)", "1970-01-01 00:00:01.000", "1970-01-01 00:00:02.000"),
        ("LOCALTIMESTAMP", "TIMESTAMP(3)", "1970-01-01 00:00:01.000", "1970-01-01 00:00:02.000"),
        ("CURRENT_DATE", "DATE", "1970-01-01", "1970-01-01"),
    ]);
}

#[test]
fn nested_values() {
    check(&[
        ("r.a", "INT", "1", "NULL"),
        ("t.r.x.y", "STRING", "deep", "NULL"),
        ("a[1]", "INT", "10", "NULL"),
        ("a[2]", "INT", "NULL", "NULL"),
        ("a[4]", "INT", "NULL", "NULL"),
        ("a[si]", "INT", "30", "NULL"),
        ("CARDINALITY(a)", "INT", "3", "NULL"),
    ]);
}

#[test]
fn rows_that_fail() {
    for (expression, reason) in [
        ("CAST(s AS INT)", "'Hello World' is no INT"),
        ("10 / (i - 7)", "division by zero"),
        ("n / (n - n)", "division by zero"),
        ("CAST(s AS TIMESTAMP(3))", "'Hello World' is no TIMESTAMP(3)"),
    ] {
        let error = evaluate(expression).unwrap_err();
        assert!(error.contains(reason), "{expression}: {error}");
    }
}
