//! cargo-semver-checks: a program that worked with the interfaces of the baseline works with those of the tree, or the version number announces the break.

use super::rustdoc;
use super::rustdoc::Features;
use super::rustdoc::Interface;
use super::rustdoc::Items;
use crate::cache::fnv1a;
use crate::crates_io;
use crate::process;
use crate::system_packages::CannotHere;
use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

/// Another version finds other breaks, and reads other versions of rustdoc's JSON.
const VERSION: &str = "0.51.0";

/// The file with the commit whose interfaces are the baseline. Relative to the root.
const BASELINE: &str = "xtask/semver-baseline.txt";

/// Compares every published library with the baseline.
pub(crate) fn check() -> anyhow::Result<()> {
    let program = crates_io::program("cargo-semver-checks", VERSION)?;
    let before = baseline()?;
    let now = rustdoc::interfaces(
        &process::workspace_root(),
        Features::All,
        Items::All,
        &process::target_dir().join("interface/now"),
    )?;
    let mut broken = Vec::new();
    for old in &before {
        let Some(new) = now.iter().find(|new| new.library == old.library) else {
            broken.push(old.library.as_str());
            eprintln!("{} is not published any more", old.library);
            continue;
        };
        println!("{}:", old.library);
        let mut compare = Command::new(&program);
        compare
            .arg("semver-checks")
            .arg("--baseline-rustdoc")
            .arg(&old.json)
            .arg("--current-rustdoc")
            .arg(&new.json);
        // Before a release, additions need no new version. After a break, the new version determines what is permitted.
        if version(&old.json)? == version(&new.json)? {
            compare.args(["--release-type", "minor"]);
        }
        if process::run(&mut compare).is_err() {
            broken.push(&old.library);
        }
    }
    ensure!(!before.is_empty(), "the baseline has no published library");
    ensure!(
        broken.is_empty(),
        "a program that uses {} may not build any more: keep what it uses, or raise `version` in Cargo.toml to the next 0.x; while no version is on the registry, \
         you may instead move {BASELINE} to this commit in the next one (CONTRIBUTING.md)",
        broken.join(", ")
    );
    Ok(())
}

/// The interfaces of the baseline. They are built once for each compiler.
fn baseline() -> anyhow::Result<Vec<Interface>> {
    let root = process::workspace_root();
    let text = std::fs::read_to_string(root.join(BASELINE))?;
    let commit = text.lines().find(|line| !line.starts_with('#'));
    let commit = commit
        .with_context(|| format!("{BASELINE} names no commit"))?
        .trim();
    check_history(&root, commit)?;
    let compiler = process::capture(Command::new("rustc").arg("-vV"))?;
    let key = fnv1a(format!("{commit}\n{compiler}").as_bytes());
    let folder = process::target_dir().join(format!("interface/baseline-{key:016x}"));
    let finished = folder.join("finished");
    let interfaces = folder.join("json");
    if !finished.exists() {
        let tree = checked_out(&root, commit, &folder)?;
        rustdoc::interfaces(&tree, Features::All, Items::All, &interfaces)?;
        std::fs::remove_dir_all(&tree)?;
        std::fs::write(&finished, commit)?;
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&interfaces)? {
        let json = entry?.path();
        if json
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let library = json.file_stem().unwrap_or_default();
            let library = library.to_string_lossy().into_owned();
            found.push(Interface { library, json });
        }
    }
    found.sort_by(|a, b| a.library.cmp(&b.library));
    Ok(found)
}

/// Writes the files of a commit to a new folder.
fn checked_out(root: &Path, commit: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let tree = folder.join("tree");
    std::fs::create_dir_all(&tree)?;
    let archive = folder.join("tree.tar");
    let to = archive.to_string_lossy();
    let made = git(root, &["archive", "--output", &to, commit])?;
    ensure!(
        made.status.success(),
        "`git archive {commit}` failed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    process::run(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree),
    )?;
    std::fs::remove_file(&archive)?;
    Ok(tree)
}

/// Fails if another clone would not have the commit.
fn check_history(root: &Path, commit: &str) -> anyhow::Result<()> {
    let shallow = git(root, &["rev-parse", "--is-shallow-repository"])?;
    let ancestor = git(root, &["merge-base", "--is-ancestor", commit, "HEAD"])?;
    if ancestor.status.success() {
        return Ok(());
    }
    if !shallow.status.success() || shallow.stdout.starts_with(b"true") {
        return Err(CannotHere(format!(
            "the history here does not reach back to commit {commit}, which {BASELINE} names: fetch the whole history (`git fetch --unshallow`)"
        ))
        .into());
    }
    anyhow::bail!(
        "commit {commit}, which {BASELINE} names, is not in the history of this commit (was a branch rebased?): name the commit that took its place"
    )
}

/// Git refuses a repository that belongs to another user unless the command permits it. CI may run as root in a user's clone.
fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["-c", "safe.directory=*"]);
    let ended = git.args(arguments).output();
    ended.context("git cannot be started: install git")
}

fn version(json: &Path) -> anyhow::Result<String> {
    let json: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let version = json["crate_version"].as_str();
    Ok(version.context("rustdoc's JSON has no version")?.to_owned())
}
