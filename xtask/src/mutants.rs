//! `cargo xtask mutants`: runs cargo-mutants on `agent_expr` and on the folders of `vp_runner` that unit tests cover. cargo-mutants changes one expression at a time. A change that no unit test
//! notices is a finding.
//!
//! `.cargo/mutants.toml` lists the changes that make no difference, each with the reason.

use crate::crates_io;
use crate::process;
use anyhow::Context as _;
use std::process::Command;

/// Another version makes other mutants.
const VERSION: &str = "27.1.0";

/// The folders, each with the unit tests that cover it.
const FOLDERS: &[Folder] = &[
    Folder {
        package: "trapgate-agent-expr",
        path: "agent_expr/src",
        tests: &[],
        checker: None,
    },
    Folder {
        package: "trapgate-vp-runner",
        path: "vp_runner/src/arch/x86_64",
        tests: &["arch"],
        checker: None,
    },
    Folder {
        package: "trapgate-vp-runner",
        path: "vp_runner/src/breakpoints",
        tests: &["breakpoints"],
        checker: None,
    },
    Folder {
        package: "trapgate-vp-runner",
        path: "vp_runner/src/control",
        // The walk of three VPs takes minutes, and finds nothing in a mutant that the walk of two VPs does not find.
        tests: &["control", "--", "--skip", "three_vps"],
        checker: None,
    },
    Folder {
        package: "trapgate-vp-runner",
        path: "vp_runner/src/memory",
        tests: &["memory"],
        checker: None,
    },
    Folder {
        package: "trapgate-vp-runner",
        path: "vp_runner/src/hook",
        tests: &[
            "--",
            "controller::tests::faces",
            "hook::tests",
            "hook::mailbox",
        ],
        checker: Some("shuttle"),
    },
];

/// The time limit for the tests of one mutant: that of the walk of two VPs on a busy machine.
const TIMEOUT_SECONDS: &str = "600";

/// A folder and the file with the same name beside it.
struct Folder {
    package: &'static str,
    path: &'static str,
    /// Arguments of `cargo test` that select the tests.
    tests: &'static [&'static str],
    /// The model checker whose `--cfg` the tests need.
    checker: Option<&'static str>,
}

/// Arguments of `cargo xtask mutants`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only about this number of mutants of each folder. Without it, all mutants, which takes hours.
    #[arg(long)]
    sample: Option<usize>,
    /// Selects the sample.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the folders whose path contains this text.
    #[arg(long, default_value = "")]
    only: String,
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let folders: Vec<_> = FOLDERS
        .iter()
        .filter(|folder| folder.path.contains(&args.only))
        .collect();
    anyhow::ensure!(
        !folders.is_empty(),
        "no folder has `{}` in its path; FOLDERS in xtask/src/mutants.rs lists the folders",
        args.only
    );
    let mut survived = false;
    for folder in folders {
        let shard = match args.sample {
            Some(sample) => Some(shard(folder.count()?, sample, args.seed)),
            None => None,
        };
        let mut command = folder.command()?;
        command.args(["--timeout", TIMEOUT_SECONDS]);
        if let Some(shard) = shard {
            command.args(["--shard", &shard]);
        }
        // Not behind `--`: the build would make every test program then.
        command.arg("--cargo-arg=--lib");
        command.arg("--").args(folder.tests);
        let status = command.status().context("cargo-mutants")?;
        survived |= !status.success();
    }
    Ok(i32::from(survived))
}

/// The arguments for a sample of this size, for messages.
pub(crate) fn words(sample: usize, seed: u64) -> String {
    format!("xtask mutants --sample {sample} --seed {seed}")
}

/// The name of a shard with about `sample` of all mutants.
fn shard(all: usize, sample: usize, seed: u64) -> String {
    let shards = (all / sample.max(1)).max(1);
    let index = seed % shards as u64;
    format!("{index}/{shards}")
}

impl Folder {
    fn count(&self) -> anyhow::Result<usize> {
        let mut command = self.command()?;
        let list = process::capture(command.arg("--list"))?;
        Ok(list.lines().count())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(crates_io::program("cargo-mutants", VERSION)?);
        command
            .current_dir(process::workspace_root())
            .args(["mutants", "--package", self.package])
            .args(["--file", &format!("{}/**", self.path)])
            .args(["--file", &format!("{}.rs", self.path)])
            .arg("--output")
            .arg(process::target_dir());
        if let Some(checker) = self.checker {
            command.env("RUSTFLAGS", format!("--cfg {checker}"));
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_shard_that_the_seed_chooses() {
        assert_eq!(shard(500, 10, 0), "0/50");
        assert_eq!(shard(500, 10, 51), "1/50");
        assert_eq!(shard(5, 10, 3), "0/1");
        assert_eq!(shard(0, 0, 7), "0/1");
    }

    #[test]
    fn every_folder_is_there() {
        for Folder { path, .. } in FOLDERS {
            assert!(process::workspace_root().join(path).is_dir(), "{path}");
        }
    }
}
