//! The public interfaces of the published libraries: the types in their signatures, and whether a change breaks a program that uses them.

mod rustdoc;
mod semver;
mod types;

pub(crate) use semver::check as semver;

use crate::process;
use rustdoc::Features;
use rustdoc::Items;

/// Fails if a signature names a type of a crate that `types` does not permit in this library.
pub(crate) fn types() -> anyhow::Result<()> {
    let folder = process::target_dir().join("interface/types");
    let root = process::workspace_root();
    let mut findings = Vec::new();
    for interface in rustdoc::interfaces(&root, Features::None, Items::Public, &folder)? {
        let text = std::fs::read_to_string(&interface.json)?;
        let json = serde_json::from_str(&text)?;
        findings.extend(types::check(&interface.library, &json)?);
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    anyhow::ensure!(
        findings.is_empty(),
        "{} type(s) of other crates in public signatures, listed above: use types of the standard library or of ours, put the item behind the feature `rust-vmm`, \
         or permit the crate in xtask/src/interface/types.rs",
        findings.len()
    );
    Ok(())
}
