//! Interfaces as JSON, which rustdoc writes.

use crate::process;
use anyhow::Context as _;
use cargo_metadata::MetadataCommand;
use cargo_metadata::TargetKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

/// The features with which the libraries are built.
#[derive(Clone, Copy)]
pub(super) enum Features {
    /// Only the features that the libraries turn on in each other.
    None,
    /// All features.
    All,
}

/// The items that rustdoc writes.
#[derive(Clone, Copy)]
pub(super) enum Items {
    /// The items of the public interface.
    Public,
    /// Private and hidden items too, which cargo-semver-checks reads.
    All,
}

/// The interface of one library.
pub(super) struct Interface {
    /// The name of the library.
    pub(super) library: String,
    pub(super) json: PathBuf,
}

/// rustdoc writes JSON only as an unstable feature. The variable that permits this is set for rustdoc only: with the variable, cargo would compute another fingerprint for
/// many build scripts, and build everything anew.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

/// Writes the interfaces of all published libraries of a workspace to `folder`.
pub(super) fn interfaces(
    workspace: &Path,
    features: Features,
    items: Items,
    folder: &Path,
) -> anyhow::Result<Vec<Interface>> {
    let libraries = published(workspace)?;
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let rustdoc = folder.join("rustdoc");
    std::fs::write(&rustdoc, RUSTDOC)?;
    std::fs::set_permissions(&rustdoc, std::fs::Permissions::from_mode(0o755))?;
    let private = match items {
        Items::Public => "",
        Items::All => "--document-private-items --document-hidden-items",
    };
    let flags = format!("-Zunstable-options --output-format json --cap-lints allow {private}");
    let mut command = process::cargo();
    command
        .current_dir(workspace)
        .args(["doc", "--quiet", "--no-deps", "--lib", "--target-dir"])
        .arg(process::target_dir())
        .env("RUSTDOC", &rustdoc)
        .env("RUSTDOCFLAGS", flags.trim_end());
    if let Features::All = features {
        command.arg("--all-features");
    }
    for library in &libraries {
        command.args(["--package", &library.package]);
    }
    process::run(&mut command)?;
    let written = |library: Library| {
        let file = format!("{}.json", library.name);
        let json = folder.join(&file);
        // This is the folder of the HTML pages. The next run would overwrite the file.
        std::fs::rename(process::target_dir().join("doc").join(&file), &json)
            .with_context(|| format!("rustdoc has written no {file}"))?;
        let library = library.name;
        Ok(Interface { library, json })
    };
    libraries.into_iter().map(written).collect()
}

struct Library {
    package: String,
    name: String,
}

/// The libraries that are published, without procedural macros: rustdoc does not describe the interface of a macro.
fn published(workspace: &Path) -> anyhow::Result<Vec<Library>> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace)
        .no_deps()
        .exec()?;
    let mut libraries = Vec::new();
    for package in metadata.packages {
        if package.publish.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let mut targets = package.targets.iter();
        if let Some(target) = targets.find(|target| target.kind.contains(&TargetKind::Lib)) {
            libraries.push(Library {
                package: package.name.to_string(),
                name: target.name.clone(),
            });
        }
    }
    Ok(libraries)
}
