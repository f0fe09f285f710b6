//! The published packages: cargo accepts them, they have the metadata that a registry shows, and a program outside the workspace builds with them.

use crate::cache::fnv1a;
use crate::process;
use anyhow::Context as _;
use anyhow::ensure;
use cargo_metadata::Dependency;
use cargo_metadata::DependencyKind;
use cargo_metadata::MetadataCommand;
use cargo_metadata::Package;
use cargo_metadata::TargetKind;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The example that is built from the packages.
const EMBEDDER: &str = "reference_vmm/trapgate/tests/guide/smallest.rs";

/// The packages that the example uses, and its names for them.
const USED: &[(&str, &str)] = &[
    ("trapgate-debug-worker", "debug_worker"),
    ("trapgate-mesh", "mesh"),
    ("trapgate-pal-async", "pal_async"),
    ("trapgate-vp-runner", "vp_runner"),
];

/// Members of our workspace that are not published, and that are built with the packages.
const EXAMPLES: [&str; 2] = ["minimal_vmm", "small_pc"];

/// The files that each package contains.
const FILES: &[&str] = &["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Packs every package as `cargo publish` does, and builds all of them outside the workspace.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .current_dir(process::workspace_root())
        .no_deps()
        .exec()?;
    let is_published =
        |package: &&Package| package.publish.as_ref().is_none_or(|to| !to.is_empty());
    let published: Vec<_> = metadata.packages.iter().filter(is_published).collect();
    for package in &published {
        check_metadata(package)?;
    }
    let places: Vec<_> = published
        .iter()
        .flat_map(|of| ["--package", &of.name])
        .collect();
    // The packed files are built below, with the results of other steps.
    let quick = ["--no-verify", "--allow-dirty", "--quiet"];
    process::run(
        process::cargo()
            .args(["publish", "--dry-run"])
            .args(quick)
            .args(&places),
    )?;
    process::run(process::cargo().arg("package").args(quick).args(&places))?;

    let examples: Vec<_> = EXAMPLES
        .iter()
        .map(|name| {
            let found = metadata.packages.iter().find(|of| *of.name == **name);
            found.with_context(|| format!("the workspace has no package {name}"))
        })
        .collect::<anyhow::Result<_>>()?;

    let outside = empty_folder()?;
    let built = build_outside(&outside, &published, &examples);
    std::fs::remove_dir_all(&outside)?;
    built
}

/// Checks the metadata that crates.io and docs.rs show.
fn check_metadata(package: &Package) -> anyhow::Result<()> {
    let name = &package.name;
    ensure!(
        package.description.is_some() && package.license.is_some() && package.repository.is_some(),
        "{name} has no description, licence or repository: add them to its Cargo.toml"
    );
    ensure!(
        package.rust_version.is_some(),
        "{name} names no oldest compiler: add `rust-version.workspace = true` to its Cargo.toml"
    );
    ensure!(
        !package.keywords.is_empty() && !package.categories.is_empty(),
        "{name} has no keywords or no categories: add them to its Cargo.toml"
    );
    let is_library = package.targets.iter().any(|target| {
        target.kind.contains(&TargetKind::Lib) || target.kind.contains(&TargetKind::ProcMacro)
    });
    ensure!(
        !is_library || package.metadata["docs"]["rs"]["default-target"].is_string(),
        "{name} has no settings for docs.rs: add `[package.metadata.docs.rs]` to its Cargo.toml"
    );
    Ok(())
}

/// An empty folder that is not below a workspace. Its path is the same for each checkout, because cargo rebuilds a package that has moved.
fn empty_folder() -> anyhow::Result<PathBuf> {
    let root = process::workspace_root();
    let checkout = fnv1a(root.as_os_str().as_bytes());
    let folder = std::env::temp_dir().join(format!("trapgate-packages-{checkout:016x}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

/// Builds every package, and programs that use them, from the `.crate` files alone.
fn build_outside(
    outside: &Path,
    published: &[&Package],
    examples: &[&Package],
) -> anyhow::Result<()> {
    let packages = outside.join("packages");
    std::fs::create_dir(&packages)?;
    for package in published {
        let name = format!("{}-{}", package.name, package.version);
        let archive = process::target_dir().join(format!("package/{name}.crate"));
        let mut unpack = Command::new("tar");
        process::run(unpack.arg("-xzf").arg(archive).arg("-C").arg(&packages))?;
        for file in FILES {
            ensure!(
                packages.join(&name).join(file).is_file(),
                "the package {} has no {file}: add the file, or a link to it, beside its Cargo.toml",
                package.name
            );
        }
    }
    let source = outside.join("embedder/src");
    std::fs::create_dir_all(&source)?;
    let root = process::workspace_root();
    std::fs::copy(root.join(EMBEDDER), source.join("smallest.rs"))
        .with_context(|| format!("{EMBEDDER} is the example that is built here"))?;
    std::fs::write(source.join("main.rs"), "mod smallest;\n\nfn main() {}\n")?;
    std::fs::write(outside.join("embedder/Cargo.toml"), embedder(published)?)?;
    for example in examples {
        copy_example(outside, example)?;
    }
    std::fs::write(outside.join("Cargo.toml"), workspace(published)?)?;
    // The versions of all other crates are the same.
    std::fs::copy(root.join("Cargo.lock"), outside.join("Cargo.lock"))?;
    // The program is built alone, so it has only the features that it asks for.
    for what in [
        &["--package", "embedder"][..],
        &["--package", "minimal_vmm"],
        &["--workspace", "--lib", "--bins"],
    ] {
        let mut build = process::cargo();
        build.current_dir(outside).args(["check", "--target-dir"]);
        process::run(build.arg(process::target_dir()).args(what))?;
    }
    Ok(())
}

/// Copies an example, with a manifest that takes the published packages from the registry.
fn copy_example(outside: &Path, example: &Package) -> anyhow::Result<()> {
    let folder = outside.join(example.name.as_str());
    std::fs::create_dir(&folder)?;
    let from = example.manifest_path.with_file_name("src");
    let mut copy = Command::new("cp");
    process::run(copy.arg("-r").arg(from).arg(&folder))?;
    let mut text = format!(
        "[package]\nname = \"{}\"\nedition = \"2024\"\npublish = false\n\n[dependencies]\n",
        example.name
    );
    let used = example.dependencies.iter();
    for used in used.filter(|used| used.kind == DependencyKind::Normal) {
        let Dependency {
            name,
            req,
            features,
            uses_default_features,
            ..
        } = used;
        let known_as = used.rename.as_ref().unwrap_or(name);
        match EXAMPLES.contains(&name.as_str()) {
            true => writeln!(text, "{known_as} = {{ path = \"../{name}\" }}")?,
            false => writeln!(
                text,
                "{known_as} = {{ package = \"{name}\", version = \"{req}\", features = {features:?}, default-features = {uses_default_features} }}"
            )?,
        }
    }
    Ok(std::fs::write(folder.join("Cargo.toml"), text)?)
}

/// The manifest of the program.
fn embedder(published: &[&Package]) -> anyhow::Result<String> {
    let mut text = "[package]\nname = \"embedder\"\nedition = \"2024\"\npublish = false\n\n[dependencies]\nfutures = \"0.3\"\n".to_owned();
    for (package, name) in USED {
        let found = published.iter().find(|of| *of.name == **package);
        let version = &found
            .with_context(|| format!("{package} is not published"))?
            .version;
        writeln!(
            text,
            "{name} = {{ package = \"{package}\", version = \"{version}\" }}"
        )?;
    }
    Ok(text)
}

/// The manifest of a workspace with the program and the packages, which replace those of the registry.
fn workspace(published: &[&Package]) -> anyhow::Result<String> {
    let mut text = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"embedder\", \"{}\", \"packages/*\"]\n\n[patch.crates-io]\n",
        EXAMPLES.join("\", \"")
    );
    for package in published {
        let (name, version) = (&package.name, &package.version);
        writeln!(text, "{name} = {{ path = \"packages/{name}-{version}\" }}")?;
    }
    // These settings are those of our workspace, so that other crates are not built again.
    text += "\n[profile.dev.package.\"*\"]\nopt-level = 1\n";
    Ok(text)
}
