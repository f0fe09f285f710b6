//! The tests that each row of the Guide's tables of promises and races names.

use crate::process;
use anyhow::Context as _;

/// The page with the tables.
pub(crate) const PAGE: &str = "Guide/src/conformance.md";

/// The heading above the table of races.
const RACES: &str = "## Races";

/// A row, by the words in backticks in its second cell: files, each followed by tests in the file.
pub(crate) struct Row<'a> {
    /// The number of the line, counted from 1.
    pub line: usize,
    /// The words in their order.
    pub words: Vec<&'a str>,
}

/// The page's text.
pub(crate) fn read() -> anyhow::Result<String> {
    let path = process::workspace_root().join(PAGE);
    std::fs::read_to_string(path).with_context(|| format!("cannot read {PAGE}"))
}

/// The rows of all tables.
pub(crate) fn rows(page: &str) -> impl Iterator<Item = Row<'_>> {
    page.lines().enumerate().filter_map(|(number, line)| {
        // | promise | `file.rs`: `test`, `another` | where ...
        let cell = line.strip_prefix('|')?.split('|').nth(1)?;
        Some(Row {
            line: number + 1,
            words: cell.split('`').skip(1).step_by(2).collect(),
        })
    })
}

/// The rows of the table of races.
pub(crate) fn races(page: &str) -> impl Iterator<Item = Row<'_>> {
    let (_, section) = page.split_once(RACES).unwrap_or_default();
    rows(section.split("\n## ").next().unwrap_or_default())
}

/// Whether a word names a file.
pub(crate) fn is_file(word: &str) -> bool {
    word.ends_with(".rs")
}

/// The names of the functions right below a `#[test]`.
pub(crate) fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]\n").skip(1).filter_map(|rest| {
        let line = rest
            .lines()
            .find(|line| !line.trim_start().starts_with("#["))?;
        let (name, _) = line.trim_start().strip_prefix("fn ")?.split_once('(')?;
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rows_below_the_heading_are_races() {
        let page = "| a | `x.rs`: `one` |\n## Races\n\n| race | test |\n|---|---|\n| b | `y.rs`: `two`; `z.rs`: `three` |\n\n## More\n| c | `w.rs`: `four` |\n";
        let words: Vec<_> = races(page).flat_map(|row| row.words).collect();
        assert_eq!(words, ["y.rs", "two", "z.rs", "three"]);
        assert_eq!(rows(page).flat_map(|row| row.words).count(), 8);
        assert_eq!(races("no table").count(), 0);
    }

    #[test]
    fn the_table_of_races_is_there() {
        assert!(races(&read().unwrap()).any(|row| !row.words.is_empty()));
    }
}
