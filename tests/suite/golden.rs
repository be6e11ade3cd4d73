//! The same file, the same rows: every job under fixtures/sql gives what Flink 2.2 gave (the goldens were made by
//! `fixtures/sql/run-flink`).

use crate::util::{Place, root, sorted_lines};
use std::collections::BTreeMap;
use std::fs;

/// Cases, and for each the tables that Flink wrote, with their sorted rows.
fn goldens() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut cases: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for entry in fs::read_dir(root().join("fixtures/sql")).expect("fixtures/sql") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some((case, table)) = name.strip_suffix(".golden").and_then(|stem| stem.split_once('.')) else { continue };
        let text = fs::read_to_string(&path).expect("a golden");
        let rows = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("--")).map(str::to_owned);
        cases.entry(case.to_owned()).or_default().insert(table.to_owned(), rows.collect());
    }
    cases
}

fn differences(case: &str, expected: &[String], got: &[String]) -> Option<String> {
    if expected == got {
        return None;
    }
    let only = |a: &[String], b: &[String]| {
        let rows: Vec<&String> = a.iter().filter(|row| !b.contains(row)).take(5).collect();
        rows.iter().map(|row| format!("\n    {row}")).collect::<String>()
    };
    Some(format!(
        "{case}: {} rows, Flink has {}\n  only in Flink:{}\n  only in Kappa:{}",
        got.len(),
        expected.len(),
        only(expected, got),
        only(got, expected)
    ))
}

#[test]
fn the_same_file_gives_the_rows_of_flink() {
    let goldens = goldens();
    assert!(goldens.len() >= 12, "{} cases", goldens.len());
    let mut wrong = Vec::new();
    for (case, tables) in &goldens {
        let place = Place::with_fixtures();
        let ran = place.kappa(&["run", &format!("fixtures/sql/{case}.sql")]);
        if ran.code != 0 {
            wrong.push(format!("{case}: exit code {}: {}", ran.code, ran.stderr));
            continue;
        }
        for (table, expected) in tables {
            let folder = place.path(&format!("target/fixtures-out/{case}/{table}"));
            let got = if folder.exists() { sorted_lines(&folder) } else { Vec::new() };
            let mut expected = expected.clone();
            expected.sort();
            wrong.extend(differences(&format!("{case}.{table}"), &expected, &got));
        }
        let verified = place.kappa(&["verify", &format!("fixtures/sql/{case}.sql")]);
        if verified.code != 0 {
            wrong.push(format!("{case}: verify: {}{}", verified.stdout, verified.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
