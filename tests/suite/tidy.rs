//! The house rules as tests: layers, sizes, module docs, leftovers. The rules of the layers are read from ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).expect("readable folder").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_rust() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dir in ["src", "bin", "tests", "benches"] {
        if root().join(dir).exists() {
            rust_files(&root().join(dir), &mut files);
        }
    }
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            (name, fs::read_to_string(&path).expect("UTF-8 source"))
        })
        .collect()
}

/// For each module of the table: the modules it may use (itself included).
fn allowed_imports(table: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rows: Vec<(u32, Vec<String>, String)> = Vec::new();
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [layer, modules, _, uses] = cells[..] else { continue };
        let Ok(layer) = layer.parse() else { continue };
        rows.push((
            layer,
            modules.split(',').map(|m| m.trim().trim_matches('`').to_owned()).collect(),
            uses.to_owned(),
        ));
    }
    let in_layers = |from: u32, to: u32| -> Vec<String> {
        rows.iter().filter(|(l, ..)| (from..=to).contains(l)).flat_map(|(_, m, _)| m.clone()).collect()
    };
    let mut allowed = BTreeMap::new();
    for (layer, modules, uses) in &rows {
        let mut may: BTreeSet<String> = BTreeSet::new();
        for word in uses.split(',').map(str::trim) {
            match word.split_once('-').map(|(a, b)| (a.parse::<u32>(), b.parse::<u32>())) {
                Some((Ok(a), Ok(b))) => may.extend(in_layers(a, b)),
                _ if word == "all" => may.extend(in_layers(0, *layer)),
                _ if word == "-" => {}
                _ => match word.parse::<u32>() {
                    Ok(one) => may.extend(in_layers(one, one)),
                    Err(_) => _ = may.insert(word.to_owned()),
                },
            }
        }
        for module in modules {
            let mut may = may.clone();
            may.insert(module.clone());
            if *layer == 1 {
                // Layer 1 names its neighbours one by one.
                may.retain(|m| m == module || !in_layers(1, 1).contains(m) || uses.contains(m.as_str()));
            }
            allowed.insert(module.clone(), may);
        }
    }
    allowed
}

/// First path segments of every `crate::x` in the code (not in comments).
fn crate_uses(source: &str) -> BTreeSet<String> {
    let mut uses = BTreeSet::new();
    for line in source.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        for (at, _) in line.match_indices("crate::") {
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split([',', '}']).map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
                if end > 0 {
                    uses.insert(name[..end].to_owned());
                }
            }
        }
    }
    uses
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md")
}

#[test]
fn imports_go_one_way() {
    let allowed = allowed_imports(&architecture());
    assert!(allowed.len() >= 14, "the module table was not found: {allowed:?}");
    let mut wrong = Vec::new();
    for (name, source) in all_rust() {
        let Some(inner) = name.strip_prefix("src/") else { continue };
        let module = inner.split(['/', '.']).next().expect("a module").to_owned();
        if module == "lib" {
            continue;
        }
        let Some(may) = allowed.get(&module) else {
            wrong.push(format!("{name}: module `{module}` is not in the table of ARCHITECTURE.md"));
            continue;
        };
        let top_level: BTreeSet<&String> = allowed.keys().collect();
        for used in crate_uses(&source) {
            if top_level.contains(&used) && !may.contains(&used) {
                wrong.push(format!("{name}: `{module}` may not use `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_rule_sees_what_it_should() {
    let allowed = allowed_imports(&architecture());
    assert!(!allowed["log"].contains("engine"));
    assert!(!allowed["window"].contains("env"));
    assert!(allowed["window"].contains("time"));
    assert!(allowed["cli"].contains("job"));
    let found = crate_uses("use crate::{log::Log, job};\nlet x = crate::engine::go(); // crate::cli\n$crate::macros");
    assert_eq!(found, ["engine", "job", "log"].map(String::from).into());
}

/// Lines from each `fn` to the brace that closes it at the same indentation (the code is formatted by rustfmt).
fn function_lengths(source: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_fn = code.split_once("fn ").is_some_and(|(before, after)| {
            let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "default"];
            before.split_whitespace().all(|w| words.contains(&w) || w.starts_with("pub(in"))
                && after.starts_with(|c: char| c.is_alphabetic() || c == '_')
        });
        if !is_fn || code.ends_with(';') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let close = format!("{indent}}}");
        let one_line = code.ends_with('}') && code.contains('{');
        let length = match lines[at..].iter().position(|l| *l == close) {
            Some(length) if !one_line => length + 1,
            _ => 1,
        };
        let name = code.split_once("fn ").expect("a fn").1.split(['(', '<']).next().unwrap_or_default();
        found.push((name.to_owned(), at + 1, length));
    }
    found
}

#[test]
fn files_and_functions_stay_small() {
    let mut wrong = Vec::new();
    for (name, source) in all_rust() {
        let lines = source.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        for (function, at, length) in function_lengths(&source) {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!("{name}:{at}: fn {function} has {length} lines, at most {FUNCTION_LINES_MAX}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_size_rule_sees_what_it_should() {
    let body = "    let x = 1;\n".repeat(80);
    let source = format!("pub(crate) async fn long<T>(t: T) {{\n{body}}}\nfn short() {{}}\n");
    assert_eq!(function_lengths(&source), [("long".into(), 1, 82), ("short".into(), 83, 1)]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let wrong: Vec<String> =
        all_rust().into_iter().filter(|(_, source)| !source.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "no `//!` line at the top of: {}", wrong.join(", "));
}

#[test]
fn nothing_is_left_over() {
    // Split so that this file does not contain what it looks for.
    let markers = [
        "todo".to_owned() + "!",
        "unimpl".to_owned() + "emented!",
        "FIX".to_owned() + "ME",
        "XX".to_owned() + "X",
        "HA".to_owned() + "CK",
        "#[ig".to_owned() + "nore",
        "dbg".to_owned() + "!(",
    ];
    let mut wrong = Vec::new();
    for (name, source) in all_rust() {
        for (at, line) in source.lines().enumerate() {
            for marker in &markers {
                if line.contains(marker.as_str()) {
                    wrong.push(format!("{name}:{}: {marker}", at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_env() {
    let wrong: Vec<String> = all_rust()
        .into_iter()
        .filter(|(name, source)| {
            name.starts_with("src/")
                && !name.starts_with("src/env/")
                && source.lines().any(|l| l.split("//").next().unwrap_or_default().contains("unsafe "))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(wrong.is_empty(), "unsafe outside env: {}", wrong.join(", "));
}
