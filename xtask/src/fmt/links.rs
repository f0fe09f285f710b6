//! Checks that links between the project's own pages lead to a file.

use super::Finding;
use crate::process;
use std::path::Path;

/// Checks the relative links of a Markdown page.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    if path.extension().is_none_or(|extension| extension != "md") {
        return Vec::new();
    }
    let folder = process::workspace_root().join(path.parent().unwrap_or(Path::new("")));
    targets(text)
        .into_iter()
        .filter(|(_, target)| !folder.join(target).exists())
        .map(|(line, target)| Finding {
            file: path.display().to_string(),
            line,
            message: format!("the link to `{target}` leads nowhere"),
        })
        .collect()
}

/// Relative targets of `[text](target)` outside code blocks, without their anchors.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let Some(target) = rest.split([')', ' ']).next() else {
                continue;
            };
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !file.is_empty() {
                found.push((number + 1, file.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_links_are_found_and_others_are_left_alone() {
        let text = "[a](x.md#part) and [b](https://example.org) [c](#here)\n```\n[d](code.md)\n```\n![e](img/y.png \"t\")\n";
        assert_eq!(
            targets(text),
            [(1, "x.md".to_owned()), (5, "img/y.png".to_owned())]
        );
    }

    #[test]
    fn a_link_to_a_missing_file_is_reported() {
        let found = check(
            Path::new("README.md"),
            "\n[a](Cargo.toml) [b](no-such-page.md)",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }
}
