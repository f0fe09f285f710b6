//! cargo-deny over the dependency graph: the arrows between our crates, licences, sources (`deny.toml`), and known vulnerabilities of dependencies.

use crate::crates_io;
use crate::process;
use crate::system_packages::CannotHere;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Another version may read `deny.toml` differently.
const VERSION: &str = "0.20.2";

/// The settings of the check that includes dependencies of tests.
const WITH_TESTS: &str = "xtask/deny-tests.toml";

/// Checks arrows, licences and sources. Needs no network once cargo-deny is built.
pub(crate) fn check() -> anyhow::Result<()> {
    let program = program()?;
    // A crate that no other crate may use names itself as its only wrapper. cargo-deny would warn that this wrapper is unused.
    let bans = ["--allow", "unused-wrapper", "bans"];
    process::run(
        deny(&program)
            .arg("check")
            .args(bans)
            .args(["licenses", "sources"]),
    )?;
    process::run(
        deny(&program)
            .args(["--config", WITH_TESTS, "check"])
            .args(bans),
    )
}

/// Checks for known vulnerabilities, by RustSec's database, which is on GitHub only.
pub(crate) fn advisories() -> anyhow::Result<()> {
    let program = program()?;
    process::capture(deny(&program).args(["fetch", "db"])).map_err(|error| {
        CannotHere(format!(
            "SKIP: the database of advisories cannot be fetched here, so known flaws of dependencies were not looked for: {}",
            last_line(&format!("{error:#}"))
        ))
    })?;
    process::run(deny(&program).args(["check", "--disable-fetch", "advisories"]))
}

fn deny(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(process::workspace_root());
    command
}

fn program() -> anyhow::Result<PathBuf> {
    crates_io::program("cargo-deny", VERSION)
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cargo_metadata::MetadataCommand;

    /// A crate without an entry could be used by any other crate.
    #[test]
    fn every_crate_of_the_workspace_is_in_the_table_of_arrows() {
        let table = std::fs::read_to_string(process::workspace_root().join("deny.toml")).unwrap();
        let metadata = MetadataCommand::new()
            .current_dir(process::workspace_root())
            .no_deps()
            .exec()
            .unwrap();
        assert!(metadata.packages.len() > 10);
        for package in &metadata.packages {
            let entry = format!("{{ crate = \"{}\", wrappers = [", package.name);
            assert!(
                table.contains(&entry),
                "{} is missing in deny.toml",
                package.name
            );
        }
    }

    /// Compares only crates with an entry in both tables.
    #[test]
    fn both_tables_of_arrows_agree() {
        let entries = |path: &str| {
            let text = std::fs::read_to_string(process::workspace_root().join(path)).unwrap();
            let lines = text.lines().map(|line| line.trim().to_owned());
            lines
                .filter(|line| line.starts_with("{ crate"))
                .collect::<Vec<_>>()
        };
        let ships = entries("deny.toml");
        let tests = entries(WITH_TESTS);
        assert!(tests.len() > 5);
        for entry in tests {
            assert!(
                ships.contains(&entry),
                "deny.toml says something else than {entry}"
            );
        }
    }
}
