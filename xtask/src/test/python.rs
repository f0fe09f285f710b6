//! The tests of the Python client, in virtual environments below the folder for cargo's output: with the newest releases of the packages that it uses, and with the
//! oldest `protobuf`, which comes with the compiler of its generated files.

use super::summary::Summary;
use crate::process;
use crate::system_packages;
use crate::system_packages::CannotHere;
use crate::test_output::Note;
use anyhow::Context as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The package, relative to the root.
const PACKAGE: &str = "python";

/// The variable that names the VMM for the tests.
const VARIABLE: &str = "TRAPGATE_BIN";

/// A virtual environment.
struct Environment {
    name: &'static str,
    /// What is installed beside the package.
    extras: &'static str,
}

const NEWEST: Environment = Environment {
    name: "newest",
    extras: "test,symbols",
};

const OLDEST: Environment = Environment {
    name: "oldest",
    extras: "test,symbols,generate",
};

/// The step of `cargo xtask test`.
pub(super) fn tests(summary: &mut Summary) -> anyhow::Result<()> {
    NEWEST.prepare()?;
    NEWEST
        .install()
        .context("the Python package cannot be installed")?;
    process::run(process::cargo().args(["build", "--package", "trapgate"]))?;
    process::run(&mut NEWEST.command("mypy", &[]))?;
    NEWEST.test(summary)?;
    OLDEST.prepare()?;
    match OLDEST.install() {
        Ok(()) => OLDEST.test(summary),
        Err(why) => {
            // The old compiler has no build for newer versions of Python.
            println!("SKIP: {why:#}");
            let why = "the compiler of the Python client's generated files cannot be had for this Python: use Python 3.11";
            summary.note("this machine", Note::Skip(why.to_owned()));
            Ok(())
        }
    }
}

impl Environment {
    fn folder(&self) -> PathBuf {
        process::target_dir().join("python").join(self.name)
    }

    /// Makes the environment, with the build tool that pip needs.
    fn prepare(&self) -> anyhow::Result<()> {
        let folder = self.folder();
        if !folder.join("bin/pip").is_file() && make(&folder).is_err() {
            system_packages::ensure(&["python3-venv"], "test the Python client")?;
            make(&folder)?;
        }
        check_version(&folder.join("bin/python"))?;
        let setuptools = self
            .command(
                "pip",
                &["install", "--quiet", "setuptools>=61,<81", "wheel"],
            )
            .status();
        match setuptools {
            Ok(status) if status.success() => Ok(()),
            // The network: no fault of the project.
            _ => Err(CannotHere(
                "Python packages cannot be had now; connect to the Python Package Index, and run this again".to_owned(),
            )
            .into()),
        }
    }

    fn install(&self) -> anyhow::Result<()> {
        let package = format!("{PACKAGE}[{}]", self.extras);
        process::run(&mut self.command(
            "pip",
            &[
                "install",
                "--quiet",
                "--no-build-isolation",
                "--only-binary",
                "grpcio-tools,grpcio,protobuf",
                "--editable",
                &package,
            ],
        ))
    }

    fn test(&self, summary: &mut Summary) -> anyhow::Result<()> {
        println!("the Python client, with the {} packages", self.name);
        let vmm = process::target_dir().join("debug/trapgate");
        let mut command = self.command("pytest", &[]);
        let passed = super::cargo_test(command.env(VARIABLE, vmm), summary)?;
        anyhow::ensure!(passed > 0, "no test of the Python client was run");
        Ok(())
    }

    /// A program of the environment, in the folder where it finds its settings.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let root = process::workspace_root();
        let mut command = Command::new(self.folder().join("bin").join(program));
        let folder = if program == "pip" {
            root
        } else {
            root.join(PACKAGE)
        };
        command.args(arguments).current_dir(folder);
        command
    }
}

fn make(folder: &Path) -> anyhow::Result<()> {
    // What an attempt without `python3-venv` has left would be taken for an environment.
    let mut command = Command::new("python3");
    process::run(command.args(["-m", "venv", "--clear"]).arg(folder))
}

fn check_version(python: &Path) -> anyhow::Result<()> {
    let old = "import sys; sys.exit(sys.version_info < (3, 11))";
    if process::run(Command::new(python).args(["-c", old])).is_err() {
        return Err(CannotHere(
            "the Python client needs Python 3.11; install a newer python3, and run this again"
                .to_owned(),
        )
        .into());
    }
    Ok(())
}
