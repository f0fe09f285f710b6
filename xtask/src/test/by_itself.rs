//! Builds crates with only the features that their users turn on. A build of the whole workspace turns on the features of all crates and tests.

use crate::process;

/// The crates that the feature `gdb` needs.
const GDB: &[&str] = &["trapgate-gdb-frontend", "trapgate-debug-worker"];

/// The crate of the feature `wire`.
const WIRE: &[&str] = &["prost"];

/// The program as it is shipped.
pub(super) fn program() -> anyhow::Result<()> {
    process::run(process::cargo().args(["check", "--package", "trapgate", "--bins"]))
}

/// The debug core without features and without the wire, as a VMM with run loops of its own uses it.
pub(super) fn core() -> anyhow::Result<()> {
    let tree = tree("trapgate-vp-runner")?;
    anyhow::ensure!(
        named_in(&tree, WIRE).is_empty(),
        "trapgate-vp-runner compiles prost: turn the feature `wire` of vmm_core_defs on only where messages leave the process"
    );
    clippy(&["--package", "trapgate-vp-runner", "--lib"])
}

/// A VMM that serves only requests of programs compiles neither the GDB protocol nor its server.
pub(super) fn without_gdb() -> anyhow::Result<()> {
    for package in ["trapgate", "trapgate-vp-runner"] {
        let tree = tree(package)?;
        let compiled = named_in(&tree, GDB);
        anyhow::ensure!(
            compiled.is_empty(),
            "{package} compiles {} without the feature `gdb`: make the dependency optional, and name it in the feature only",
            compiled.join(" and ")
        );
    }
    clippy(&["--package", "trapgate", "--bins", "--no-default-features"])
}

fn clippy(what: &[&str]) -> anyhow::Result<()> {
    let mut command = process::cargo();
    command.arg("clippy").args(what);
    process::run(command.args(["--", "--deny", "warnings"]))
}

/// What a package compiles without features, one a line.
fn tree(package: &str) -> anyhow::Result<String> {
    process::capture(process::cargo().args([
        "tree",
        "--package",
        package,
        "--no-default-features",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))
}

/// Which of these crates are in a listing of `cargo tree`.
fn named_in(tree: &str, crates: &[&'static str]) -> Vec<&'static str> {
    let named = |name: &&&str| {
        let mut packages = tree.lines().filter_map(|line| line.split(' ').next());
        packages.any(|package| package == **name)
    };
    crates.iter().filter(named).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_the_feature_is_found_in_a_tree_by_its_whole_name() {
        let tree = "trapgate v0.1.0 (/x)\ntrapgate-mesh v0.1.0 (/trapgate-debug-worker)\n";
        assert!(named_in(tree, GDB).is_empty());
        let tree = format!("{tree}trapgate-debug-worker v0.1.0 (/x) (*)\n");
        assert_eq!(named_in(&tree, GDB), ["trapgate-debug-worker"]);
    }

    /// The names are those of crates of this workspace.
    #[test]
    fn with_the_feature_both_crates_are_in_the_tree() {
        let mut tree = process::cargo();
        tree.args(["tree", "--package", "trapgate", "--prefix", "none"]);
        let tree = process::capture(&mut tree).unwrap();
        assert_eq!(named_in(&tree, GDB), GDB);
    }
}
