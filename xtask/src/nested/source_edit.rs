//! Changes to the source of a program that is built here. Each change replaces text that must occur exactly once.

use anyhow::Context as _;
use anyhow::bail;
use std::path::Path;

/// One replacement.
pub(super) struct Edit {
    /// The path below the source tree.
    pub file: &'static str,
    /// The search begins at this text. In C and C++ it ends with the function that begins there.
    pub after: &'static str,
    /// The text that must occur once.
    pub find: &'static str,
    /// The replacement.
    pub replace: &'static str,
}

impl Edit {
    /// Returns the text with the replacement.
    pub(super) fn edited(&self, text: &str) -> anyhow::Result<String> {
        let start = text
            .find(self.after)
            .with_context(|| format!("no `{}`", self.after))?;
        // In C, a function ends at the first brace in column 0.
        let end = if self.file.ends_with(".c") || self.file.ends_with(".cc") {
            text[start..]
                .find("\n}")
                .map_or(text.len(), |length| start + length)
        } else {
            text.len()
        };
        let body = &text[start..end];
        let count = body.matches(self.find).count();
        if count != 1 {
            bail!("`{}` occurs {count} times instead of once", self.find);
        }
        Ok(format!(
            "{}{}{}",
            &text[..start],
            body.replace(self.find, self.replace),
            &text[end..]
        ))
    }
}

/// Makes all `edits` in the source `tree` of `program`.
pub(super) fn apply(edits: &[Edit], tree: &Path, program: &str) -> anyhow::Result<()> {
    for edit in edits {
        let path = tree.join(edit.file);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{program}'s source has no {}", edit.file))?;
        let edited = edit.edited(&text).with_context(|| {
            format!(
                "{program}'s {} looks different from what the edit in xtask's sources for {} knows: read that function and adapt the edit",
                edit.file, program
            )
        })?;
        std::fs::write(&path, edited)?;
    }
    Ok(())
}

/// A text for the cache, which differs for other edits.
pub(super) fn recipe(edits: &[Edit]) -> String {
    edits
        .iter()
        .map(|edit| format!("\n{} {} {}", edit.file, edit.find, edit.replace))
        .collect()
}

/// `1:10.0.2+ds-2+deb13u1` is upstream's `10.0.2`.
pub(super) fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: Edit = Edit {
        file: "some.c",
        after: "void wanted(",
        find: "OLD",
        replace: "NEW",
    };

    #[test]
    fn a_source_that_looks_different_is_refused() {
        for text in [
            "void wanted2(int a)\n{\n    f(OLD);\n}\n",
            "void wanted(int a)\n{\n    f(1);\n}\nvoid g(void)\n{\n    f(OLD);\n}\n",
            "void wanted(int a)\n{\n    f(OLD);\n    f(OLD);\n}\n",
        ] {
            assert!(EDIT.edited(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_edit_changes_the_one_function_only() {
        let text = "void other(void)\n{\n    f(OLD);\n}\nvoid wanted(int a)\n{\n    f(OLD);\n}\n";
        assert_eq!(
            EDIT.edited(text).unwrap(),
            "void other(void)\n{\n    f(OLD);\n}\nvoid wanted(int a)\n{\n    f(NEW);\n}\n"
        );
    }
}
