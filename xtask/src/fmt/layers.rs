//! Checks the arrows between the folders of `vp_runner`, and between the modules of `preload`, and that names of an architecture stand only where they may.

use super::Finding;
use std::path::Path;

/// The folders of the crates whose arrows are checked, with their layers.
const CRATES: &[(&str, &[Layer])] = &[
    ("vp_runner/src", LAYERS_OF_VP_RUNNER),
    ("preload/src", LAYERS_OF_PRELOAD),
];

/// A folder, or a file beside the folders, and the other parts of the crate that it may use: folders, files, or modules of these.
struct Layer {
    path: &'static str,
    uses: &'static [&'static str],
}

/// The layers, from the lowest up. A file belongs to the entry with the longest matching path.
const LAYERS_OF_VP_RUNNER: &[Layer] = &[
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

/// The interposed functions are at the top, because the callers of libc enter the library through these functions.
const LAYERS_OF_PRELOAD: &[Layer] = &[
    Layer {
        path: "next_program",
        uses: &[],
    },
    Layer {
        path: "ours",
        uses: &[],
    },
    Layer {
        path: "presence",
        uses: &[],
    },
    Layer {
        path: "settings",
        uses: &[],
    },
    Layer {
        path: "signals",
        uses: &[],
    },
    Layer {
        path: "tracker",
        uses: &[],
    },
    Layer {
        path: "descriptor_set",
        uses: &["tracker"],
    },
    Layer {
        path: "kvm_request",
        uses: &["tracker"],
    },
    Layer {
        path: "messages",
        uses: &["tracker"],
    },
    Layer {
        path: "host",
        uses: &["tracker"],
    },
    Layer {
        path: "vmm_process/memory",
        uses: &["tracker"],
    },
    Layer {
        path: "vcpu_threads",
        uses: &["host", "ours", "tracker"],
    },
    Layer {
        path: "interposer",
        uses: &[
            "descriptor_set",
            "host",
            "kvm_request",
            "ours",
            "signals",
            "tracker",
            "vcpu_threads",
        ],
    },
    Layer {
        path: "vm_server",
        uses: &[
            "host",
            "messages",
            "ours",
            "presence",
            "settings",
            "signals",
            "tracker",
            "vmm_process::memory",
        ],
    },
    Layer {
        path: "vm_servers",
        uses: &[
            "host",
            "messages",
            "settings",
            "signals",
            "tracker",
            "vm_server",
        ],
    },
    Layer {
        path: "process",
        uses: &["interposer", "messages", "ours", "settings", "vm_servers"],
    },
    Layer {
        path: "vmm_process",
        uses: &[
            "kvm_request",
            "messages",
            "next_program",
            "ours",
            "process",
            "settings",
            "tracker",
        ],
    },
    Layer {
        path: "lib",
        uses: &[],
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
    let of_crate = |(root, layers)| Some((path.strip_prefix(root).ok()?, layers));
    let Some((inside, layers)) = CRATES.iter().copied().find_map(of_crate) else {
        return Vec::new();
    };
    if path.extension().is_none_or(|ext| ext != "rs") || is_test(inside) {
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
    let Some(layer) = layer_of(layers, inside) else {
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
            if first_module(used) != first_part(layer.path) && !may_use(layer, used) {
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

fn layer_of(layers: &'static [Layer], inside: &Path) -> Option<&'static Layer> {
    let under = |layer: &&Layer| {
        inside.starts_with(layer.path) || inside == Path::new(layer.path).with_extension("rs")
    };
    layers
        .iter()
        .filter(under)
        .max_by_key(|layer| layer.path.len())
}

fn first_part(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Whether the layer may use this part, or a part around it.
fn may_use(layer: &Layer, used: &str) -> bool {
    let is_around = |part: &&str| {
        let rest = used.strip_prefix(*part);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    layer.uses.iter().any(is_around)
}

fn first_module(used: &str) -> &str {
    used.split("::").next().unwrap_or(used)
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

/// The parts of the crate that a line names, as paths.
fn parts_used(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let part = &rest[..end.unwrap_or(rest.len())];
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages_of(root: &str, path: &str, text: &str) -> Vec<String> {
        let findings = check(&Path::new(root).join(path), text);
        findings.into_iter().map(|found| found.message).collect()
    }

    fn messages(path: &str, text: &str) -> Vec<String> {
        messages_of("vp_runner/src", path, text)
    }

    #[test]
    fn an_arrow_of_the_preloaded_library_that_is_not_drawn_is_found() {
        for (path, line, found) in [
            ("tracker.rs", "use crate::host::Host;", 1),
            ("host.rs", "use crate::tracker::Slot;", 0),
            ("interposer.rs", "use crate::vm_servers::VmServers;", 1),
            ("interposer/tests.rs", "use crate::vm_servers::Vm;", 0),
            ("vm_server.rs", "use crate::vmm_process::memory;", 0),
            ("vm_server.rs", "use crate::vmm_process::memory::slot;", 0),
            ("vm_server.rs", "use crate::vmm_process::real;", 1),
            ("vm_server.rs", "use crate::vmm_process;", 1),
            ("vmm_process/memory.rs", "use crate::process;", 1),
            ("vmm_process/symbols.rs", "use crate::process;", 0),
            ("vmm_process/symbols.rs", "use crate::interposer::I;", 1),
            ("new_file.rs", "", 1),
        ] {
            let messages = messages_of("preload/src", path, line);
            assert_eq!(messages.len(), found, "{path}: {line}");
        }
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
