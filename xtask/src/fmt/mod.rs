//! `cargo xtask fmt`: rustfmt, then the project's own lints.

mod conformance;
mod layers;
mod links;
mod source;

use crate::pictures;
use crate::process;
use crate::wire;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Arguments of `cargo xtask fmt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change no file; report what rustfmt would change.
    #[arg(long)]
    check: bool,
}

/// One violation of a rule, as `file:line: what is wrong, and what to do`.
#[derive(Debug, PartialEq)]
struct Finding {
    file: String,
    /// The line, counted from 1. 0 stands for the whole file.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The subcommand.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    rustfmt(args.check)?;
    lints()?;
    Ok(0)
}

/// rustfmt over the workspace.
pub(crate) fn rustfmt(check: bool) -> anyhow::Result<()> {
    let mut command = process::cargo();
    command.args(["fmt", "--all"]);
    if check {
        command.args(["--", "--check"]);
    }
    process::run(&mut command)
}

/// Runs the project's own lints, prints every finding, and fails if there is a finding.
pub(crate) fn lints() -> anyhow::Result<()> {
    let mut findings = Vec::new();
    for path in files()? {
        // A binary file has no lines to check.
        let Ok(text) = std::fs::read_to_string(process::workspace_root().join(&path)) else {
            continue;
        };
        findings.extend(source::check(&path, &text));
        findings.extend(layers::check(&path, &text));
        findings.extend(links::check(&path, &text));
    }
    findings.extend(conformance::check()?);
    findings.extend(pictures::stale()?.into_iter().map(|stale| Finding {
        file: stale.file,
        line: 0,
        message: "not what its text makes: run `cargo xtask pictures`".to_owned(),
    }));
    findings.extend(wire::stale()?.into_iter().map(|file| Finding {
        file,
        line: 0,
        message: "not what the `.proto` files make: run `cargo xtask wire`".to_owned(),
    }));
    for finding in &findings {
        eprintln!("{finding}");
    }
    anyhow::ensure!(
        findings.is_empty(),
        "{} finding(s) of the project's own lints, listed above",
        findings.len()
    );
    Ok(())
}

/// The files that git tracks or would track, relative to the root. In a tree without git the result is an error, because a check of no file would pass.
fn files() -> anyhow::Result<Vec<PathBuf>> {
    let listing = process::capture(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(process::workspace_root()),
    )?;
    Ok(listing.lines().map(PathBuf::from).collect())
}
