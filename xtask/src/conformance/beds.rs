//! The places where the tests run: on this machine's KVM, or in the nested kvm-amd.

use super::COMMAND;
use super::outcome;
use super::outcome::Outcomes;
use super::programs::Programs;
use crate::nested::Bed;
use crate::nested::Collected;
use crate::nested::Job;
use crate::nested::Kvm;
use crate::nested::Sink;
use crate::process;
use anyhow::Context as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The time limit for one test program on this machine, and for all test programs in the nested kvm-amd. GDB with QEMU's stub waits for
/// [`test_machine`'s deadline][deadline] more than once.
///
/// [deadline]: ../../../test_support/test_machine/src/running.rs
const TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// One test at a time. The output includes the SKIP lines of tests that passed.
const OPTIONS: [&str; 2] = ["--test-threads=1", "--show-output"];

pub(super) enum Place {
    Here,
    Bed(Bed),
}

impl Place {
    pub(super) fn here() -> Self {
        Self::Here
    }

    pub(super) fn bed() -> anyhow::Result<Self> {
        Ok(Self::Bed(Bed::provide(Kvm::Amd)?))
    }

    /// The name in a heading.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Bed(_) => "nested",
        }
    }

    /// Runs all tests against the VMM that the command `vmm` starts. The output of the tests is appended to `log`.
    pub(super) fn run(
        &self,
        programs: &Programs,
        vmm: &str,
        log: &Path,
    ) -> anyhow::Result<Outcomes> {
        let output = Collected::default();
        let ended = match self {
            Self::Here => here(programs, vmm, &output),
            Self::Bed(bed) => inside(bed, programs, vmm, &output),
        };
        let output = String::from_utf8_lossy(&output.take()).into_owned();
        let mut log_file = File::options().create(true).append(true).open(log)?;
        write!(log_file, "\n=== {} {vmm}\n{output}", self.name())?;
        ended?;
        // The Guide names no folder of this machine.
        let root = format!("{}/", process::workspace_root().display());
        let output = output.replace(&root, "");
        outcome::read(&output, programs.tests.len())
            .with_context(|| format!("the whole output is in {}", log.display()))
    }
}

fn here(programs: &Programs, vmm: &str, output: &Collected) -> anyhow::Result<()> {
    for test in &programs.tests {
        let mut command = Command::new(test);
        command
            .args(OPTIONS)
            .current_dir(process::workspace_root())
            .env("RUST_BACKTRACE", "0")
            .env(COMMAND, vmm);
        // A failed test ends its program with an error. The output names the test, or has no last line.
        let errors = std::io::stderr();
        if let Err(error) = process::run_watched(&mut command, TIMEOUT, output.clone(), errors) {
            println!("conformance: {error:#}");
        }
    }
    Ok(())
}

fn inside(bed: &Bed, programs: &Programs, vmm: &str, output: &Collected) -> anyhow::Result<()> {
    let each = format!("for test; do \"$test\" {}; done", OPTIONS.join(" "));
    let mut command = vec!["sh".into(), "-c".into(), each.into(), "sh".into()];
    command.extend(programs.tests.iter().map(|test| test.clone().into()));
    let mut job = Job::new(command, process::workspace_root(), programs.files());
    job.set("RUST_BACKTRACE", "0");
    job.set(COMMAND, vmm);
    job.timeout = TIMEOUT;
    let sinks = || -> (Sink, Sink) {
        // A repeated boot starts with an empty output.
        output.take();
        (Box::new(output.clone()), Box::new(std::io::stderr()))
    };
    bed.run(&job, &sinks)?;
    Ok(())
}
