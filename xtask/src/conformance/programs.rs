//! The test programs, and the library of `trapgate exec`.

use super::TESTS;
use crate::debian_qemu::DebianQemu;
use crate::process;
use anyhow::Context as _;
use cargo_metadata::Message;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Stdio;

/// The files that a run needs.
pub(super) struct Programs {
    /// The test programs, in the order of [`TESTS`].
    pub tests: Vec<PathBuf>,
    /// `trapgate`, in the folder where the tests look for it.
    pub trapgate: PathBuf,
    /// The library that `trapgate exec` preloads.
    pub library: String,
    /// QEMU in each version.
    pub qemus: Vec<DebianQemu>,
}

impl Programs {
    /// Builds with the features of the step `tests`, so that no crate is built twice. The tests of `preload` and of `trapgate` need the library and the program.
    pub(super) fn build() -> anyhow::Result<Self> {
        let mut command = process::cargo();
        command.args(["test", "--workspace", "--no-run", "--test", "exec"]);
        for test in TESTS {
            command.args(["--test", test]);
        }
        command.arg("--message-format=json-render-diagnostics");
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut tests = vec![None; TESTS.len()];
        let (mut trapgate, mut library) = (None, None);
        for message in Message::parse_stream(BufReader::new(stdout)) {
            let Message::CompilerArtifact(artifact) = message? else {
                continue;
            };
            let name = artifact.target.name.as_str();
            let of_suite = artifact
                .manifest_path
                .parent()
                .and_then(|it| it.file_name());
            if artifact.profile.test {
                let place = TESTS.iter().position(|test| *test == name);
                if let (Some(place), Some("conformance")) = (place, of_suite) {
                    tests[place] = artifact.executable.map(PathBuf::from);
                }
            } else if name == "trapgate" && artifact.target.is_bin() {
                trapgate = artifact.executable.map(PathBuf::from);
            } else if name == "trapgate_preload" {
                let mut files = artifact.filenames.into_iter();
                library = files.find(|file| file.extension() == Some("so"));
            }
        }
        let status = child.wait()?;
        anyhow::ensure!(
            status.success(),
            "the tests do not build (cargo ended with {status})"
        );
        let tests: Option<Vec<PathBuf>> = tests.into_iter().collect();
        Ok(Self {
            tests: tests.context("cargo built no tests of `conformance`")?,
            trapgate: trapgate.context("cargo built no `trapgate`")?,
            library: library.context("cargo built no `trapgate_preload`")?.into(),
            qemus: DebianQemu::all()?,
        })
    }

    /// All files that the nested kvm-amd needs.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = self.tests.clone();
        files.push(self.trapgate.clone());
        files.push((&self.library).into());
        for qemu in &self.qemus {
            files.extend(qemu.files().iter().cloned());
        }
        files
    }
}
