//! The section "Where is what" of the page on the architecture names files and functions that exist.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../../../Guide/src/architecture.md");

/// The file and the function of each row.
fn rows() -> Vec<(&'static str, &'static str)> {
    let section = PAGE
        .split("\n## Where is what\n")
        .nth(1)
        .expect("the section");
    let cell = |cell: &'static str| cell.split('`').nth(1).expect("a name in backticks");
    section
        .lines()
        .filter(|line| line.contains("](../../"))
        .map(|line| {
            // The question, which may contain backticks, is in the first cell.
            let cells: Vec<_> = line.split(" | ").collect();
            (cell(cells[1]), cell(cells[2]))
        })
        .collect()
}

#[test]
fn each_answer_names_a_file_that_contains_the_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = rows();
    for (file, function) in &rows {
        let text =
            fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let contains = ["(", "<"]
            .iter()
            .any(|next| text.contains(&format!("fn {function}{next}")));
        assert!(contains, "{file} has no function {function}");
    }
    assert_eq!(rows.len(), 22);
}
