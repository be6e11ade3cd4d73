//! Aggregates beyond sums and counts, and functions registered in Rust: types, digests, and what is refused.

use super::support::{evaluate, names};
use crate::engine::functions::{Aggregate, FunctionRegistry, used};
use crate::engine::plan::*;
use crate::sql::{describe, plan, plan_with};

const TABLE: &str = "CREATE TABLE t (i INT, b BIGINT, d DOUBLE, f FLOAT, s STRING, n DECIMAL(10, 2), k BOOLEAN,
  r ROW<a INT>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);\n";

fn grouped(functions: &FunctionRegistry, calls: &str) -> crate::Result<JobPlan> {
    let query = format!(
        "SELECT {calls} FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;"
    );
    plan_with("t.sql", &format!("{TABLE}{query}"), functions)
}

fn window(job: &JobPlan) -> &WindowPlan {
    job.pipelines[0].aggregations().next().expect("a window")
}

#[test]
fn results_have_flinks_types() {
    for (call, expected) in [
        ("STDDEV_POP(i)", "INT"),
        ("VARIANCE(f)", "FLOAT"),
        ("STDDEV(d)", "DOUBLE"),
        ("VAR_SAMP(n)", "DECIMAL(38, 6)"),
        ("VAR_POP(CAST(n AS DECIMAL(20, 8)))", "DECIMAL(38, 8)"),
        ("ARRAY_AGG(n)", "ARRAY<DECIMAL(10, 2)>"),
        ("LISTAGG(s)", "STRING"),
        ("STRING_AGG(s, '; ')", "STRING"),
        ("PERCENTILE(i, 0.5)", "DOUBLE"),
        ("PERCENTILE(n, ARRAY[0.5])", "ARRAY<DOUBLE>"),
        ("APPROX_PERCENTILE(b, ARRAY[0.5, 0.9])", "ARRAY<DOUBLE>"),
        ("APPROX_COUNT_DISTINCT(s)", "BIGINT NOT NULL"),
        ("BOOL_AND(k)", "BOOLEAN"),
        ("EVERY(k)", "BOOLEAN"),
        ("BOOL_OR(i > 3)", "BOOLEAN"),
    ] {
        let job = grouped(FunctionRegistry::none(), &format!("{call} AS x")).unwrap_or_else(|e| panic!("{call}: {e}"));
        assert_eq!(describe(&job.outputs[0].schema), format!("x {expected}"), "{call}");
    }
}

#[test]
fn spreads_share_their_sums() {
    let job = grouped(FunctionRegistry::none(), "STDDEV(d), VAR_POP(d), SUM(d), COUNT(d), AVG(d)").expect("a plan");
    let functions: Vec<_> = window(&job).aggregates.iter().map(|call| format!("{:?}", call.function)).collect();
    assert_eq!(functions, ["Sum", "Sum", "Count", "Avg"], "of squares, of values, their number");
}

#[test]
fn the_digest_sees_parameters() {
    let digest = |call: &str| grouped(FunctionRegistry::none(), call).expect("a plan").digest;
    let all = [
        "LISTAGG(s)",
        "LISTAGG(s, ';')",
        "PERCENTILE(d, 0.5)",
        "PERCENTILE(d, 0.6)",
        "APPROX_PERCENTILE(d, 0.5)",
        "ARRAY_AGG(s)",
        "ARRAY_AGG(s IGNORE NULLS)",
        "ARRAY_AGG(DISTINCT s)",
        "BOOL_AND(k)",
        "BOOL_OR(k)",
    ];
    let digests: std::collections::BTreeSet<u64> = all.iter().map(|call| digest(call)).collect();
    assert_eq!(digests.len(), all.len());
    assert_eq!(digest("LISTAGG(s, ',')"), digest("LISTAGG(s)"));
    assert_eq!(digest("PERCENTILE(d, 0.50)"), digest("PERCENTILE(d, 0.5)"));
}

#[test]
fn what_is_no_call_is_refused() {
    for (call, message) in [
        ("STDDEV(DISTINCT i)", "STDDEV(DISTINCT ..) is not supported"),
        ("STDDEV(s)", "STDDEV does not work on STRING"),
        ("BOOL_AND(i)", "BOOL_AND does not work on INT"),
        ("LISTAGG(i)", "LISTAGG does not work on INT"),
        ("LISTAGG(s, s)", "the separator of LISTAGG is a constant STRING"),
        ("LISTAGG(s, ',', 1)", "LISTAGG takes a text and a separator"),
        ("PERCENTILE(d)", "PERCENTILE takes a number and a fraction"),
        ("PERCENTILE(d, 1.5)", "PERCENTILE takes constants from 0 to 1, or an ARRAY of them"),
        ("PERCENTILE(d, d)", "PERCENTILE takes constants from 0 to 1, or an ARRAY of them"),
        ("PERCENTILE(d, ARRAY[0.5, -0.1])", "PERCENTILE takes constants from 0 to 1, or an ARRAY of them"),
        ("PERCENTILE(d, 0.5, 2)", "PERCENTILE takes a number and a fraction"),
        ("ARRAY_AGG(r)", "ARRAY_AGG does not work on ROW<a INT>"),
        ("ARRAY_AGG(i ORDER BY b)", "this form of ARRAY_AGG is not supported"),
        ("LISTAGG(s) WITHIN GROUP (ORDER BY b)", "this form of LISTAGG is not supported"),
        ("LISTAGG(s IGNORE NULLS)", "this form of LISTAGG is not supported"),
        ("APPROX_COUNT_DISTINCT(*)", "this form of APPROX_COUNT_DISTINCT is not supported"),
    ] {
        let error = grouped(FunctionRegistry::none(), call).expect_err(call);
        assert_eq!(error.message(), message, "{call}");
    }
}

/// Adds up, from a start.
struct SumFrom(i64);

impl Aggregate for SumFrom {
    type Input = i64;
    type State = i64;
    type Output = i64;

    fn accumulate(&self, sum: &mut i64, value: i64) {
        *sum += value;
    }

    fn merge(&self, sum: &mut i64, later: &i64) {
        *sum += later;
    }

    fn finish(&self, sum: &i64) -> i64 {
        self.0 + sum
    }
}

fn functions(version: &str) -> FunctionRegistry {
    let mut functions = FunctionRegistry::default();
    functions.scalar1::<String, i64>("Letters", version, |text| text.chars().count() as i64).expect("registered");
    functions
        .scalar2::<Option<i64>, f64, Option<bool>>("above", "1", |a, b| a.map(|a| a as f64 > b))
        .expect("registered");
    functions.aggregate("sum_from", version, SumFrom(100)).expect("registered");
    functions
}

#[test]
fn registered_functions_are_called_by_name() {
    let job =
        grouped(&functions("1"), "SUM(letters(s)) AS n, SUM_FROM(i) AS x, sum_from(i) FILTER (WHERE above(b, d)) AS y");
    let job = job.expect("a plan");
    assert_eq!(describe(&job.outputs[0].schema), "n BIGINT, x BIGINT NOT NULL, y BIGINT NOT NULL");
    let mut called: Vec<String> = used(&job).iter().map(|f| format!("{} {}", f.name, f.version)).collect();
    called.sort();
    assert_eq!(called, ["ABOVE 1", "LETTERS 1", "SUM_FROM 1", "SUM_FROM 1"]);
    assert_eq!(names(&window(&job).schema)[..3], ["agg0", "agg1", "agg2"]);
}

#[test]
fn versions_are_part_of_the_digest() {
    let digest = |version: &str, calls: &str| grouped(&functions(version), calls).expect("a plan").digest;
    assert_eq!(digest("1", "SUM(letters(s))"), digest("1", "SUM(Letters(s))"));
    assert_ne!(digest("1", "SUM(letters(s))"), digest("2", "SUM(letters(s))"));
    assert_ne!(digest("1", "sum_from(b)"), digest("2", "sum_from(b)"));
    assert_eq!(digest("1", "SUM(i)"), digest("2", "SUM(i)"), "only functions that are called count");
}

#[test]
fn functions_that_are_not_registered_are_refused() {
    let error = grouped(FunctionRegistry::none(), "SUM(letters(s))").expect_err("refused");
    assert_eq!(error.message(), "unknown function LETTERS");
    assert!(error.hint().expect("a hint").contains("FunctionRegistry"));
    let error = grouped(&functions("1"), "SUM(lettres(s))").expect_err("refused");
    assert_eq!(error.hint(), Some("did you mean LETTERS?"));
    for (call, message) in [
        ("SUM(letters(i))", "LETTERS takes a STRING here, not INT: CAST it"),
        ("SUM(letters(s, s))", "LETTERS takes 1 arguments, 2 are given"),
        ("sum_from(d)", "sum_from takes a BIGINT here, not DOUBLE: CAST it"),
        ("sum_from(b, b)", "sum_from takes one argument"),
    ] {
        assert_eq!(grouped(&functions("1"), call).expect_err(call).message(), message);
    }
}

#[test]
fn names_are_taken_once() {
    let mut functions = functions("1");
    assert!(functions.scalar0("LETTERS", "2", || true).is_err());
    assert!(functions.scalar0("two words", "1", || true).is_err());
    for name in ["upper", "sum", "STDDEV", "now", "rand"] {
        let mut functions = FunctionRegistry::default();
        functions.scalar0(name, "1", || true).expect("registered");
        assert!(plan_with("t.sql", &format!("{TABLE}SELECT i FROM t;"), &functions).is_err(), "{name}");
    }
}

#[test]
fn constants_are_not_computed_while_planning() {
    let mut functions = FunctionRegistry::default();
    functions.scalar1::<i64, i64>("fails", "1", |_| panic!("called while planning")).expect("registered");
    let job = plan_with("t.sql", &format!("{TABLE}SELECT fails(1) + 1 AS x FROM t;"), &functions).expect("a plan");
    assert_eq!(describe(&job.outputs[0].schema), "x BIGINT NOT NULL");
    assert!(plan("t.sql", &format!("{TABLE}SELECT fails(1) FROM t;")).is_err());
    assert!(evaluate("STDDEV(i)").is_err(), "an aggregate needs a GROUP BY");
}
