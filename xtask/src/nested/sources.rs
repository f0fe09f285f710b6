//! Looks test programs and tests up in the sources, so that a wrong name is reported before a build.

use super::suite::TestProgram;
use crate::process;
use crate::promises;
use anyhow::Context as _;
use cargo_metadata::Metadata;
use cargo_metadata::MetadataCommand;
use cargo_metadata::Target;
use cargo_metadata::TargetKind;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

/// The test programs that cargo will build for these packages. The path of each is that of its first source file.
pub(super) fn programs(packages: &[&str]) -> anyhow::Result<Vec<TestProgram>> {
    let metadata = MetadataCommand::new()
        .current_dir(process::workspace_root())
        .no_deps()
        .exec()
        .context("cargo does not say which packages there are")?;
    Ok(of(&metadata, packages))
}

fn of(metadata: &Metadata, packages: &[&str]) -> Vec<TestProgram> {
    let mut programs = Vec::new();
    for package in &metadata.packages {
        let Some(folder) = package.manifest_path.parent() else {
            continue;
        };
        if !packages.contains(&package.name.as_str()) {
            continue;
        }
        for target in package.targets.iter().filter(|target| is_tested(target)) {
            programs.push(TestProgram::new(
                folder.as_std_path(),
                target,
                target.src_path.clone().into(),
            ));
        }
    }
    programs.sort_by(|a, b| a.name().cmp(b.name()));
    programs
}

fn is_tested(target: &Target) -> bool {
    let kinds = [TargetKind::Lib, TargetKind::Bin, TargetKind::Test];
    target.test && kinds.iter().any(|kind| target.kind.contains(kind))
}

/// Whether the name of a test in the program may contain `filter`. Modules are not compared exactly: the last word of the filter has to be in the name of a test or of
/// a module.
pub(super) fn may_have(root: &Path, filter: &str) -> anyhow::Result<bool> {
    let last = filter.rsplit("::").next().unwrap_or(filter);
    Ok(names(root)?.iter().any(|name| name.contains(last)))
}

/// The names of all tests and modules of the program that begins in this file.
fn names(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    // Every module within a file has this name.
    let mut names = BTreeSet::from(["tests".to_owned()]);
    for file in files(root)? {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        names.extend(promises::tests_of(&text).map(str::to_owned));
        let module = file.file_stem().unwrap_or_default();
        names.insert(module.to_string_lossy().into_owned());
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
        names.insert(folder.to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The first file, and the files of its modules.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = root.parent().context("a file lies in a folder")?;
    let mut files = Vec::new();
    if ["lib.rs", "main.rs"]
        .iter()
        .any(|name| root.ends_with(name))
    {
        below(folder, &mut files)?;
        return Ok(files);
    }
    files.push(root.to_owned());
    let text =
        std::fs::read_to_string(root).with_context(|| format!("cannot read {}", root.display()))?;
    let modules = text
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules {
        let path = folder.join(module);
        if path.is_dir() {
            below(&path, &mut files)?;
        }
        files.extend(Some(path.with_extension("rs")).filter(|file| file.is_file()));
    }
    Ok(files)
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_the_sources_are_those_that_the_guide_and_the_lists_name() {
        let programs = programs(&["trapgate-vp-runner", "trapgate"]).unwrap();
        let names: Vec<&str> = programs.iter().map(TestProgram::name).collect();
        for name in ["vp_runner/races", "vp_runner/unit", "trapgate/ways_to_go"] {
            assert!(names.contains(&name), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with("xtask")));
    }

    #[test]
    fn a_test_that_is_not_there_is_known_without_a_build() {
        let programs = programs(&["trapgate-vp-runner", "trapgate"]).unwrap();
        let may = |program: &str, filter| {
            let program = programs.iter().find(|test| test.name() == program);
            may_have(program.unwrap().path(), filter).unwrap()
        };
        // Tests in the first file, in a module of the program, in a module within the library, and a module.
        assert!(may("vp_runner/races", "a_break_that_crosses"));
        assert!(may("trapgate/ways_to_go", "table::however_and_whenever"));
        assert!(may("vp_runner/unit", "a_second_hit_waits"));
        assert!(may("vp_runner/unit", "run_gate::"));
        assert!(!may("vp_runner/races", "no_such_test"));
        assert!(!may("vp_runner/races", "run_gate::no_such_test"));
        // This test is in another program.
        assert!(!may("vp_runner/stepping", "a_break_that_crosses"));
    }
}
