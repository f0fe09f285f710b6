//! Installs Debian packages on this machine, with the user's consent.

use crate::process;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::process::Command;

/// This machine lacks something that xtask cannot or may not provide. This is no defect of the project, so a test run skips the tests that need it.
#[derive(Debug)]
pub(crate) struct CannotHere(pub String);

impl std::fmt::Display for CannotHere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotHere {}

/// Makes sure that `packages` are installed. `purpose` completes the sentence "needed to ...".
///
/// On a terminal the user is asked. With `CI=true` the packages are installed without a question. Otherwise, or without `apt-get`,
/// the error names the packages to install.
pub(crate) fn ensure(packages: &[&str], purpose: &str) -> anyhow::Result<()> {
    if process::find_program("dpkg-query").is_none() || process::find_program("apt-get").is_none() {
        return Err(CannotHere(format!(
            "this is not a Debian system, so xtask installs nothing here. To {purpose}, install what Debian calls: {}",
            packages.join(" ")
        ))
        .into());
    }
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !allowed(&list, purpose)? {
        return Err(CannotHere(format!(
            "not installed, and needed to {purpose}: {list}\n  install them with `apt-get install {list}`, or set CI=true to let xtask do it"
        ))
        .into());
    }
    // A machine made from a container image has no package lists. They are fetched only after the first attempt has failed.
    if install(&missing).is_err() {
        process::run(privileged("apt-get").args(["-q", "update"]))?;
        install(&missing)?;
    }
    Ok(())
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages
        .iter()
        .copied()
        .filter(|package| {
            let status = process::capture(Command::new("dpkg-query").args([
                "-W",
                "-f",
                "${db:Status-Status}",
                package,
            ]));
            status.map_or(true, |status| status != "installed")
        })
        .collect()
}

fn allowed(list: &str, purpose: &str) -> anyhow::Result<bool> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        println!("installing, to {purpose}: {list}");
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("To {purpose}, these Debian packages are needed: {list}\nInstall them now? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    process::run(
        privileged("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y", "--no-install-recommends", "install"])
            .args(packages),
    )
}

/// Uses `sudo` unless the user is root.
fn privileged(program: &str) -> Command {
    let root = process::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command
        .arg("--preserve-env=DEBIAN_FRONTEND")
        .arg("--")
        .arg(program);
    command
}
