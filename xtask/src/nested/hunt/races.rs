//! The tests of the Guide's table of races, grouped by their programs.

use crate::process;
use crate::promises;
use anyhow::Context as _;
use std::collections::BTreeMap;

/// Each program with its tests. `cargo xtask fmt --check` checks that the tests exist.
pub(super) fn tests() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let root = process::workspace_root();
    of(&promises::read()?, &|file| {
        std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
    })
}

/// If the page names a file without tests, all tests of the file are meant.
fn of(
    page: &str,
    read: &dyn Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut programs = BTreeMap::<String, Vec<String>>::new();
    for row in promises::races(page) {
        let mut words = row.words.into_iter().peekable();
        while let Some(file) = words.next() {
            let program = program(file)
                .with_context(|| format!("`{file}` in {} is no file of tests", promises::PAGE))?;
            let tests = programs.entry(program).or_default();
            let mut named = Vec::new();
            while let Some(test) = words.next_if(|word| !promises::is_file(word)) {
                named.push(test.to_owned());
            }
            if named.is_empty() {
                named.extend(promises::tests_of(&read(file)?).map(str::to_owned));
            }
            for test in named {
                if !tests.contains(&test) {
                    tests.push(test);
                }
            }
        }
    }
    Ok(programs)
}

/// `vp_runner/races` for `vp_runner/tests/races.rs`, `trapgate/gdb` for `reference_vmm/trapgate/tests/gdb/stops.rs`, `vp_runner/unit` for a file below
/// `vp_runner/src`.
fn program(file: &str) -> Option<String> {
    let mut parts = file.strip_suffix(".rs")?.split('/');
    let mut package = parts.next()?;
    loop {
        match parts.next()? {
            "tests" => return Some(format!("{package}/{}", parts.next()?)),
            "src" => return Some(format!("{package}/unit")),
            folder => package = folder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_the_tests_of_all_rows_once() {
        let page = "## Races\n\
                    | a | `p/tests/one.rs`: `x`, `y`; `p/src/z/tests.rs`: `u` |\n\
                    | b | `p/tests/one.rs`: `y`; with GDB: `group/q/tests/gdb/deep.rs` |\n";
        let read = |file: &str| {
            assert_eq!(file, "group/q/tests/gdb/deep.rs");
            Ok("#[test]\nfn all() {}\n\n#[test]\nfn of_them() {}\n".to_owned())
        };
        let programs = of(page, &read).unwrap();
        let expected = [
            ("p/one", vec!["x", "y"]),
            ("p/unit", vec!["u"]),
            ("q/gdb", vec!["all", "of_them"]),
        ];
        let programs: Vec<_> = programs
            .iter()
            .map(|(name, tests)| (name.as_str(), tests.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(programs, expected);
        assert!(of("## Races\n| a | `test` |\n", &read).is_err());
    }
}
