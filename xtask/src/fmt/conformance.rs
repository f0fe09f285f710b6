//! Checks the Guide's table of promises against the tests: each row names tests that exist, and each test of the suite has a row.

use super::Finding;
use crate::process;
use crate::promises;
use crate::promises::PAGE;
use crate::promises::tests_of;
use std::collections::BTreeSet;
use std::path::Path;

/// The suite's own tests. Each has a row.
const SUITE: &str = "test_support/conformance/tests";

/// Checks the table against the sources of the tests.
pub(super) fn check() -> anyhow::Result<Vec<Finding>> {
    let root = process::workspace_root();
    let page = promises::read()?;
    let (mut findings, named) = rows(&page, &|path| std::fs::read_to_string(root.join(path)).ok());
    for entry in std::fs::read_dir(root.join(SUITE))? {
        let path = entry?.path();
        let path = path.strip_prefix(&root)?;
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue;
        };
        findings.extend(without_row(path, &text, &named));
    }
    Ok(findings)
}

/// The errors in the table, and the tests that the table names as (file, test).
fn rows(
    page: &str,
    read: &dyn Fn(&str) -> Option<String>,
) -> (Vec<Finding>, BTreeSet<(String, String)>) {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for row in promises::rows(page) {
        let mut report = |message: String| {
            findings.push(Finding {
                file: PAGE.to_owned(),
                line: row.line,
                message,
            });
        };
        let mut file = None;
        let mut tests = 0;
        for word in row.words {
            if promises::is_file(word) {
                let text = read(word);
                if text.is_none() {
                    report(format!("there is no file `{word}`"));
                }
                file = Some((word, text.unwrap_or_default()));
                continue;
            }
            tests += 1;
            match &file {
                None => report(format!("`{word}` stands before the file that it is in")),
                Some((path, text)) if tests_of(text).any(|test| test == word) => {
                    named.insert(((*path).to_owned(), word.to_owned()));
                }
                Some((path, _)) => report(format!("`{path}` has no test `{word}`")),
            }
        }
        if file.is_some() && tests == 0 {
            report("the row names no test".to_owned());
        }
    }
    (findings, named)
}

fn without_row(path: &Path, text: &str, named: &BTreeSet<(String, String)>) -> Vec<Finding> {
    let file = path.display().to_string();
    tests_of(text)
        .filter(|test| !named.contains(&(file.clone(), (*test).to_owned())))
        .map(|test| Finding {
            file: file.clone(),
            line: 0,
            message: format!("`{test}` has no row in {PAGE}: say what it promises"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#[test]\nfn one() {}\n\n#[test]\n#[ignore]\nfn two() {}\n\nfn three() {}\n";

    fn messages(page: &str) -> Vec<String> {
        let read = |path: &str| (path == "a/b.rs").then(|| FILE.to_owned());
        let (findings, named) = rows(page, &read);
        let mut all: Vec<String> = findings
            .into_iter()
            .map(|finding| finding.message)
            .collect();
        let without = without_row(Path::new("a/b.rs"), FILE, &named);
        all.extend(without.into_iter().map(|finding| finding.message));
        all
    }

    #[test]
    fn a_whole_table_has_no_findings() {
        let page = "| promise | test | here |\n|---|---|---|\n| it works | `a/b.rs`: `one` | yes |\n| so it does | `a/b.rs`: `two` | yes |\n";
        assert!(messages(page).is_empty(), "{:?}", messages(page));
    }

    #[test]
    fn rows_without_their_test_and_tests_without_their_row_are_found() {
        for (row, expected) in [
            ("`a/b.rs`: `one`, `three`, `two`", "has no test `three`"),
            ("`a/c.rs`: `one`", "no file `a/c.rs`"),
            ("`a/b.rs`", "names no test"),
            ("`one` in `a/b.rs`", "before the file"),
            ("`a/b.rs`: `one`", "`two` has no row"),
        ] {
            let found = messages(&format!("| promise | {row} | yes |\n"));
            assert!(
                found.iter().any(|message| message.contains(expected)),
                "{row}: {found:?}"
            );
        }
    }
}
