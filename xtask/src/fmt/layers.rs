//! Checks the arrows between the folders of `vp_runner`, and that names of an architecture stand only where they may.

use super::Finding;
use std::path::Path;

const ROOT: &str = "vp_runner/src";

/// A folder, or a file beside the folders, and the other parts of the crate that it may use.
struct Layer {
    path: &'static str,
    uses: &'static [&'static str],
}

/// The layers, from the lowest up. A file belongs to the entry with the longest matching path.
const LAYERS: &[Layer] = &[
    Layer {
        path: "arch/x86_64/vp",
        uses: &["arch", "breakpoints", "control", "memory"],
    },
    Layer {
        path: "arch",
        uses: &[],
    },
    Layer {
        path: "machine",
        uses: &[],
    },
    Layer {
        path: "sync",
        uses: &[],
    },
    Layer {
        path: "control",
        uses: &["arch", "machine", "sync"],
    },
    Layer {
        path: "memory",
        uses: &["arch", "breakpoints", "machine"],
    },
    Layer {
        path: "breakpoints",
        uses: &["arch", "memory"],
    },
    Layer {
        path: "kvm",
        uses: &[
            "arch",
            "breakpoints",
            "control",
            "machine",
            "memory",
            "sync",
        ],
    },
    Layer {
        path: "probe",
        uses: &["arch", "breakpoints", "kvm"],
    },
    Layer {
        path: "hook",
        uses: &["arch", "control", "kvm", "machine", "sync"],
    },
    Layer {
        path: "vp_thread",
        uses: &["control", "hook", "kvm", "machine"],
    },
    Layer {
        path: "controller",
        uses: &[
            "arch",
            "breakpoints",
            "control",
            "hook",
            "kvm",
            "machine",
            "memory",
            "probe",
            "runner",
            "sync",
            "vp_thread",
        ],
    },
    Layer {
        path: "embed",
        uses: &[
            "breakpoints",
            "control",
            "controller",
            "hook",
            "kvm",
            "machine",
            "memory",
            "probe",
            "runner",
        ],
    },
    Layer {
        path: "runner",
        uses: &["breakpoints", "controller", "kvm", "machine", "probe"],
    },
    Layer {
        path: "lib",
        uses: &["runner"],
    },
];

/// A file whose path contains one of these parts may name an architecture.
const ARCHITECTURES: &[&str] = &["arch", "arch.rs", "kvm", "kvm.rs", "x86_64", "x86_64.rs"];

/// Names of x86.
const ARCHITECTURE_NAMES: &[&str] = &[
    "arch::x86_64",
    "iced_x86",
    "kvm_bindings",
    "regs::X86VpState",
    "regs::x86_64",
];

/// Checks one tracked file; `path` is relative to the root of the workspace. Tests may use any part of the crate.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let inside = match path.strip_prefix(ROOT) {
        Ok(inside) if path.extension().is_some_and(|ext| ext == "rs") => inside,
        _ => return Vec::new(),
    };
    if is_test(inside) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut report = |line, message| {
        findings.push(Finding {
            file: path.display().to_string(),
            line,
            message,
        });
    };
    let Some(layer) = layer_of(inside) else {
        report(
            0,
            "is in no layer: give its folder a line in xtask/src/fmt/layers.rs".into(),
        );
        return findings;
    };
    let any_architecture = inside
        .iter()
        .any(|part| ARCHITECTURES.iter().any(|name| part == *name));
    for (number, line) in (1..).zip(code_of(text)) {
        for used in parts_used(line) {
            if used != first_part(layer.path) && !layer.uses.contains(&used) {
                report(
                    number,
                    format!(
                        "`{}` may not use `{used}`: move what both need below them, or draw the arrow in xtask/src/fmt/layers.rs and in the Guide",
                        layer.path
                    ),
                );
            }
        }
        let vp = layer.path != "arch/x86_64/vp" && line.contains("x86_64::vp");
        if first_part(layer.path) == "arch" && vp && inside != Path::new("arch.rs") {
            report(
                number,
                "the core of a VP is above the facts of its architecture: do not use it here"
                    .into(),
            );
        }
        if line.trim() == "use super::*;" {
            report(number, "name what is imported: a glob hides circles".into());
        }
        for name in ARCHITECTURE_NAMES {
            if !any_architecture && line.contains(name) {
                report(
                    number,
                    format!("`{name}` is of one architecture: use what `crate::arch` exports"),
                );
            }
        }
    }
    findings
}

fn is_test(inside: &Path) -> bool {
    inside
        .iter()
        .any(|part| part == "tests" || part == "tests.rs" || part == "odd_ram.rs")
}

fn layer_of(inside: &Path) -> Option<&'static Layer> {
    let under = |layer: &&Layer| {
        inside.starts_with(layer.path) || inside == Path::new(layer.path).with_extension("rs")
    };
    LAYERS
        .iter()
        .filter(under)
        .max_by_key(|layer| layer.path.len())
}

fn first_part(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// The lines before the tests at the end of the file. Comments are replaced by empty text.
fn code_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| *line != "mod tests {")
        .map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line,
        })
}

/// The parts of the crate that a line names.
fn parts_used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let part = &rest[..end.unwrap_or(rest.len())];
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let findings = check(&Path::new(ROOT).join(path), text);
        findings.into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found_wherever_it_stands() {
        for (path, line, found) in [
            ("control/entry.rs", "use crate::arch::Slots;", 0),
            ("control/entry.rs", "use crate::kvm::kick::KickSignal;", 1),
            ("control/entry.rs", "    crate::kvm::kick();", 1),
            ("control/entry.rs", "/// [`Kick`](crate::kvm::Kick)", 0),
            ("control/tests.rs", "use crate::kvm::kick::KickSignal;", 0),
            ("control.rs", "use crate::controller::Controller;", 1),
            ("kvm/vcpu.rs", "use crate::probe::Report;", 1),
            ("arch/x86_64/dr7.rs", "use crate::control::entry::Entry;", 1),
            (
                "arch/x86_64/vp/enter.rs",
                "use crate::control::entry::Entry;",
                0,
            ),
            ("arch/x86_64/dr7.rs", "use crate::arch::x86_64::vp::Vp;", 1),
            (
                "arch/x86_64/vp/enter.rs",
                "use crate::kvm::vcpu::KvmVcpu;",
                1,
            ),
            ("new_folder/a.rs", "", 1),
            ("controller/vps.rs", "use super::*;", 1),
            ("controller/vps.rs", "mod tests {\n    use super::*;", 0),
        ] {
            assert_eq!(messages(path, line).len(), found, "{path}: {line}");
        }
    }

    #[test]
    fn names_of_an_architecture_stay_in_its_folders() {
        for (path, found) in [
            ("breakpoints/changes.rs", 1),
            ("probe/x86_64/scenario.rs", 0),
            ("kvm/vcpu.rs", 0),
            ("probe/seen.rs", 1),
        ] {
            let line = "use vmm_core_defs::regs::X86VpState;";
            assert_eq!(messages(path, line).len(), found, "{path}");
        }
    }
}
