//! The arrows between the workspace's crates. No other than the ones in this table; a new one is a decision about the architecture and is
//! made here, in view of the reviewer.

use super::Finding;
use crate::process;
use cargo_metadata::DependencyKind;
use cargo_metadata::Metadata;
use cargo_metadata::MetadataCommand;

/// For each crate, what of the workspace it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("mesh", &[]),
    ("pal_async_test", &[]),
    ("pal_async", &["pal_async_test"]),
    ("agent_expr", &[]),
    ("vmm_core_defs", &["mesh"]),
    (
        "vp_runner",
        &["agent_expr", "mesh", "pal_async", "vmm_core_defs"],
    ),
    // The protocol without IO: it talks to nobody.
    ("gdb_frontend", &[]),
    (
        "debug_worker",
        &["gdb_frontend", "mesh", "pal_async", "vmm_core_defs"],
    ),
    // For build scripts.
    ("guest_build", &[]),
    // Data only: an ELF file.
    ("demo_guest", &["guest_build"]),
    (
        "trapgate",
        &[
            "debug_worker",
            "demo_guest",
            "mesh",
            "pal_async",
            "vmm_core_defs",
            "vp_runner",
        ],
    ),
    // Guest programs and beds for tests; nothing that ships uses it.
    (
        "conformance",
        &["guest_build", "mesh", "vmm_core_defs", "vp_runner"],
    ),
    ("xtask", &["demo_guest"]),
];

/// What the tests of any crate may use besides.
const FOR_TESTS: &[&str] = &[
    "conformance",
    "demo_guest",
    "mesh",
    "pal_async",
    "pal_async_test",
];

/// Reads the workspace's manifests.
pub fn check() -> anyhow::Result<Vec<Finding>> {
    let metadata = MetadataCommand::new()
        .current_dir(process::workspace_root())
        .no_deps()
        .exec()?;
    Ok(edges(&metadata).iter().filter_map(judge).collect())
}

struct Edge {
    from: String,
    to: String,
    for_tests: bool,
}

fn edges(metadata: &Metadata) -> Vec<Edge> {
    let ours = |name: &str| {
        metadata
            .packages
            .iter()
            .any(|package| *package.name == name)
    };
    metadata
        .packages
        .iter()
        .flat_map(|package| {
            package
                .dependencies
                .iter()
                .filter(|dependency| ours(&dependency.name))
                .map(|dependency| Edge {
                    from: package.name.to_string(),
                    to: dependency.name.clone(),
                    for_tests: dependency.kind == DependencyKind::Development,
                })
        })
        .collect()
}

fn judge(edge: &Edge) -> Option<Finding> {
    let drawn = ARROWS
        .iter()
        .find(|(from, _)| *from == edge.from)
        .is_some_and(|(_, to)| to.contains(&edge.to.as_str()));
    let allowed = drawn || (edge.for_tests && FOR_TESTS.contains(&edge.to.as_str()));
    (!allowed).then(|| Finding {
        file: format!("{}/Cargo.toml", edge.from),
        line: 0,
        message: format!(
            "the arrow {} -> {} is not in the architecture: go through the crates between them, or draw it in xtask/src/fmt/arrows.rs and in the Guide",
            edge.from, edge.to
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_no_arrow_that_is_not_drawn() {
        let found = check().unwrap();
        assert!(found.is_empty(), "{found:#?}");
    }

    fn edge(from: &str, to: &str, for_tests: bool) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            for_tests,
        }
    }

    #[test]
    fn a_new_arrow_is_found() {
        assert!(judge(&edge("gdb_frontend", "vmm_core_defs", false)).is_some());
        assert!(judge(&edge("gdb_frontend", "vp_runner", true)).is_some());
        assert!(judge(&edge("a_new_crate", "mesh", false)).is_some());
        assert!(judge(&edge("vp_runner", "demo_guest", false)).is_some());
        assert!(judge(&edge("vp_runner", "demo_guest", true)).is_none());
        assert!(judge(&edge("debug_worker", "gdb_frontend", false)).is_none());
    }

    #[test]
    fn every_crate_of_the_workspace_is_in_the_table() {
        let metadata = MetadataCommand::new()
            .current_dir(process::workspace_root())
            .no_deps()
            .exec()
            .unwrap();
        for package in &metadata.packages {
            assert!(
                ARROWS.iter().any(|(from, _)| *from == *package.name),
                "{} is missing in ARROWS",
                package.name
            );
        }
        assert!(!edges(&metadata).is_empty());
    }
}
