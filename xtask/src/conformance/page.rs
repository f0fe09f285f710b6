//! The table, and its place in the Guide.

use super::outcome::Outcome;
use super::outcome::Outcomes;
use crate::process;
use crate::promises::PAGE;
use anyhow::Context as _;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The lines before and after the generated text.
const BEGIN: &str = "<!-- cargo xtask conformance --record: begin -->\n";
const END: &str = "<!-- cargo xtask conformance --record: end -->\n";

/// The outcomes of the tests against one server in one place.
pub(super) struct Column {
    pub heading: String,
    pub place: &'static str,
    /// Whether a failed test is a defect of this project.
    pub ours: bool,
    pub tests: Outcomes,
}

/// The table as Markdown, followed by the reasons.
pub(super) fn table(columns: &[Column]) -> String {
    let mut text = String::from("| test |");
    for column in columns {
        let _ = write!(text, " {}, {} |", column.heading, column.place);
    }
    text += &format!("\n|---|{}\n", "---|".repeat(columns.len()));
    let names: BTreeSet<&String> = columns
        .iter()
        .flat_map(|column| column.tests.keys())
        .collect();
    for name in &names {
        let _ = write!(text, "| `{name}` |");
        for column in columns {
            let word = match column.tests.get(*name) {
                Some(Outcome::Passed) => "passed",
                Some(Outcome::PassedInPart(_)) => "passed in part",
                Some(Outcome::Failed(_)) => "**failed**",
                Some(Outcome::Skipped(_)) => "skipped",
                None => "",
            };
            let _ = write!(text, " {word} |");
        }
        text.push('\n');
    }
    let mut reasons = String::new();
    for column in columns {
        for (name, outcome) in &column.tests {
            let why = match outcome {
                Outcome::Passed => continue,
                Outcome::PassedInPart(why) | Outcome::Failed(why) | Outcome::Skipped(why) => why,
            };
            let (heading, place) = (&column.heading, column.place);
            let _ = writeln!(reasons, "- {heading}, {place}: `{name}`: {why}");
        }
    }
    if !reasons.is_empty() {
        text += &format!("\n{reasons}");
    }
    text
}

/// Writes the table into the Guide.
pub(super) fn record(columns: &[Column]) -> anyhow::Result<()> {
    let path = process::workspace_root().join(PAGE);
    let page = std::fs::read_to_string(&path)?;
    let today = process::capture(std::process::Command::new("date").arg("+%Y-%m-%d"))?;
    let text = format!("One run on {}:\n\n{}", today.trim(), table(columns));
    std::fs::write(&path, with(&page, &text)?)?;
    println!("conformance: the table is in {PAGE}");
    Ok(())
}

/// The page with `text` instead of the generated part.
fn with(page: &str, text: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("no begin in the page")?;
    let (_, behind) = rest.split_once(END).context("no end in the page")?;
    Ok(format!("{before}{BEGIN}\n{text}\n{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises;

    fn columns() -> [Column; 2] {
        let column = |heading: &str, ours, outcomes: &[(&str, Outcome)]| Column {
            heading: heading.to_owned(),
            place: "here",
            ours,
            tests: outcomes
                .iter()
                .map(|(name, outcome)| ((*name).to_owned(), outcome.clone()))
                .collect(),
        };
        let skipped = Outcome::Skipped("no gdb".to_owned());
        let failed = Outcome::Failed("`c` was answered `T06`".to_owned());
        [
            column("ours", true, &[("one", Outcome::Passed), ("two", skipped)]),
            column("theirs", false, &[("one", failed.clone())]),
        ]
    }

    #[test]
    fn each_test_has_a_row_and_each_reason_a_line() {
        let expected = "\
| test | ours, here | theirs, here |
|---|---|---|
| `one` | passed | **failed** |
| `two` | skipped |  |

- ours, here: `two`: no gdb
- theirs, here: `one`: `c` was answered `T06`
";
        assert_eq!(table(&columns()), expected);
    }

    #[test]
    fn only_a_failure_of_ours_is_a_fault() {
        let mut columns = columns();
        assert!(super::super::faults(&columns).is_empty());
        columns[1].ours = true;
        let faults = super::super::faults(&columns);
        assert_eq!(faults, ["theirs here: one failed: `c` was answered `T06`"]);
    }

    #[test]
    fn only_the_text_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        let new = with(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n\n{END}b\n"));
        assert_eq!(with(&new, "new\n").unwrap(), new);
        assert!(with("a", "b").is_err());
    }

    /// The Guide's table lists the present tests, and no failure with a server of ours.
    #[test]
    fn the_table_in_the_guide_is_of_these_tests() {
        let page = promises::read().unwrap();
        let (_, rest) = page.split_once(BEGIN).unwrap();
        let (generated, _) = rest.split_once(END).unwrap();
        let rows = || generated.lines().filter(|line| line.starts_with("| `"));
        let told: BTreeSet<&str> = rows().filter_map(|row| row.split('`').nth(1)).collect();
        let mut there = BTreeSet::new();
        for program in super::super::TESTS {
            let tests = process::workspace_root().join("test_support/conformance/tests");
            let files = [format!("{program}.rs"), format!("{program}/main.rs")];
            let mut texts = files
                .iter()
                .map(|file| std::fs::read_to_string(tests.join(file)));
            let text = texts.find_map(Result::ok).unwrap();
            there.extend(promises::tests_of(&text).map(str::to_owned));
        }
        let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
        assert_eq!(told, there, "run `cargo xtask conformance --record`");
        let heading = generated.lines().find(|line| line.starts_with("| test "));
        let headings: Vec<&str> = heading.unwrap().split('|').collect();
        for row in rows() {
            for (cell, heading) in row.split('|').zip(&headings) {
                let ours = heading.contains("trapgate");
                assert!(!ours || cell.trim().starts_with("passed"), "{row}");
            }
        }
    }
}
