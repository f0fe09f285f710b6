//! `cargo xtask mutants`: cargo-mutants on the pure folders of `vp_runner`. It changes one expression at a time, and a change that no unit test notices is a finding.
//!
//! A change that makes no difference is excused in `.cargo/mutants.toml`, with the reason.

use crate::crates_io;
use crate::process;
use anyhow::Context as _;
use std::process::Command;

/// Another version makes other mutants.
const VERSION: &str = "27.1.0";

/// The pure folders, each with the unit tests that know it.
const FOLDERS: &[Folder] = &[
    Folder {
        files: "vp_runner/src/arch/x86_64/**",
        tests: &["arch"],
    },
    Folder {
        files: "vp_runner/src/breakpoints/**",
        tests: &["breakpoints"],
    },
    Folder {
        files: "vp_runner/src/control/**",
        // The walk of three VPs takes minutes, and finds nothing in a mutant that the walk of two does not reach.
        tests: &["control", "--skip", "three_vps"],
    },
];

/// What a mutant's tests may take: the walk of two VPs, on a busy machine.
const TIMEOUT_SECONDS: &str = "600";

struct Folder {
    files: &'static str,
    tests: &'static [&'static str],
}

/// Arguments of `cargo xtask mutants`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only about so many mutants of each folder. Without it, all: hours.
    #[arg(long)]
    sample: Option<usize>,
    /// Chooses the sample.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the folders whose pattern contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let folders: Vec<_> = FOLDERS
        .iter()
        .filter(|folder| folder.files.contains(&args.only))
        .collect();
    anyhow::ensure!(
        !folders.is_empty(),
        "no pure folder has `{}` in its pattern; see FOLDERS in xtask/src/mutants.rs",
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
        command.args(["--", "--lib"]).args(folder.tests);
        let status = command.status().context("cargo-mutants")?;
        survived |= !status.success();
    }
    Ok(i32::from(survived))
}

/// The words for a sample of so many mutants.
pub(crate) fn words(sample: usize, seed: u64) -> String {
    format!("xtask mutants --sample {sample} --seed {seed}")
}

/// The name of a shard that has about so many of all mutants.
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
            .args([
                "mutants",
                "--package",
                "trapgate-vp-runner",
                "--file",
                self.files,
            ])
            .arg("--output")
            .arg(process::target_dir());
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
    fn every_pure_folder_is_there() {
        for folder in FOLDERS {
            let path = folder.files.trim_end_matches("/**");
            assert!(process::workspace_root().join(path).is_dir(), "{path}");
        }
    }
}
