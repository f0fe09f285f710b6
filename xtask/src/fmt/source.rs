//! Lints for one file at a time: size, names, `unsafe`, marks on `select!`, and no trace of one developer's machine.

use super::Finding;
use crate::wire;
use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use std::path::Component;
use std::path::Path;
use std::str::FromStr as _;

/// A longer file has more than one reason to change.
const MAX_LINES: usize = 600;

/// Names that do not describe the contents.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

/// The only folders with `unsafe` code: the calls to KVM, and the functions of the preloaded library between a VMM and libc.
const UNSAFE_FOLDERS: &[&str] = &["vp_runner/src/kvm", "preload/src/vmm_process"];

/// The folder whose accesses to guest memory are copies that may fail, and the trait with the plain accesses, which is not permitted there. A plain access
/// ends the VMM with a signal if the mapping is read-only or gone.
const GUEST_MEMORY: (&str, &str) = ("vp_runner/src", "vm_memory::Bytes");

/// The only shipped file that makes listening sockets, and the folder of the wrapper that it uses. Its connections go through `Protocol`, which
/// rejects a web browser. Tests and xtask may listen anywhere.
const LISTENERS: &[&str] = &["debug_worker/src/listener.rs", "support/pal_async"];

/// Types that listen on a socket.
const LISTENER_TYPES: &[&str] = &["TcpListener", "UnixListener"];

/// The crates below the protocol, which serve any debugger.
const ANY_DEBUGGER: &[&str] = &["vmm_core_defs/src", "vp_runner/src"];

/// Names of debuggers and of their commands. Only `debug_worker` writes messages with commands for the user.
const DEBUGGER_NAMES: &[&str] = &["gdb", "lldb", "hbreak", "rwatch", "awatch", "stepi"];

/// Names of one machine, and of hosts that serve packages. A clone on another machine does not have them. Each name is split, so that this file passes.
const MACHINE_NAMES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/", "brief"),
    concat!("..", "/shared"),
    concat!("deb.", "debian.org"),
    concat!("static.", "crates.io"),
];

/// Checks one tracked file. `path` is relative to the root.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let file = path.display().to_string();
    let mut findings = Vec::new();
    let mut report = |line: usize, message: String| {
        findings.push(Finding {
            file: file.clone(),
            line,
            message,
        });
    };

    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let stem = Path::new(name).file_stem().unwrap_or(name);
        if EMPTY_NAMES.iter().any(|empty| stem == *empty) {
            report(
                0,
                format!(
                    "`{}` says nothing of what is inside: name it after that",
                    stem.display()
                ),
            );
        }
    }
    for (number, line) in text.lines().enumerate() {
        for name in MACHINE_NAMES.iter().filter(|name| line.contains(*name)) {
            report(
                number + 1,
                format!("`{name}` is not there on another machine"),
            );
        }
    }
    if ANY_DEBUGGER.iter().any(|folder| path.starts_with(folder)) {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.to_lowercase();
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            for word in words.filter(|word| DEBUGGER_NAMES.contains(word)) {
                report(
                    number,
                    format!(
                        "`{word}`: this crate serves any debugger. Say `a client` or carry the fact in a type; words for users are debug_worker's"
                    ),
                );
            }
        }
    }
    let tests = path.components().any(|part| {
        let stem = Path::new(part.as_os_str()).file_stem();
        stem.is_some_and(|stem| stem == "tests")
    });
    let (folder, plain_copies) = GUEST_MEMORY;
    if path.starts_with(folder) && !is_in(UNSAFE_FOLDERS, path) && !tests {
        for (number, _) in (1..)
            .zip(text.lines())
            .filter(|(_, line)| line.contains(plain_copies))
        {
            report(
                number,
                "guest memory may be out of reach: access it by `kvm::guest_ram`".to_owned(),
            );
        }
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        let lines = text.lines().count();
        if lines > MAX_LINES && !wire::is_generated(path) {
            report(
                0,
                format!(
                    "{lines} lines, and {MAX_LINES} are the most: split it by reasons to change"
                ),
            );
        }
        match TokenStream::from_str(text) {
            Ok(tokens) => {
                let mut marks = Marks {
                    lines: text.lines().collect(),
                    unsafe_allowed: is_in(UNSAFE_FOLDERS, path),
                    listeners_allowed: tests || may_listen(path),
                    report: &mut report,
                };
                marks.walk(tokens);
            }
            Err(error) => report(
                error.span().start().line,
                format!("not read as Rust: {error}"),
            ),
        }
    }
    findings
}

fn is_in(folders: &[&str], path: &Path) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

fn may_listen(path: &Path) -> bool {
    let ships = path
        .components()
        .any(|part| part == Component::Normal("src".as_ref()))
        && !["test_support", "xtask"]
            .iter()
            .any(|folder| path.starts_with(folder));
    !ships || LISTENERS.iter().any(|place| path.starts_with(place))
}

struct Marks<'a> {
    lines: Vec<&'a str>,
    unsafe_allowed: bool,
    listeners_allowed: bool,
    report: &'a mut dyn FnMut(usize, String),
}

impl Marks<'_> {
    /// Checks tokens and not text, so comments and strings may contain any word.
    fn walk(&mut self, tokens: TokenStream) {
        let mut before = None;
        for token in tokens {
            match &token {
                TokenTree::Group(group) => self.walk(group.stream()),
                TokenTree::Ident(name) if *name == "unsafe" && !self.unsafe_allowed => {
                    (self.report)(
                        name.span().start().line,
                        format!(
                            "`unsafe` belongs into {} only",
                            UNSAFE_FOLDERS.join(" and ")
                        ),
                    );
                }
                TokenTree::Ident(name)
                    if !self.listeners_allowed
                        && LISTENER_TYPES.iter().any(|listener| name == listener) =>
                {
                    (self.report)(
                        name.span().start().line,
                        format!(
                            "`{name}` outside {}: a new listener goes there, with a `Protocol` that turns web browsers away",
                            LISTENERS[0]
                        ),
                    );
                }
                TokenTree::Punct(mark) if mark.as_char() == '!' => {
                    if let Some(TokenTree::Ident(name)) = &before
                        && (*name == "select" || *name == "select_biased")
                    {
                        self.select(name.span().start().line);
                    }
                }
                _ => {}
            }
            before = Some(token);
        }
    }

    /// The mark is on the line of the `select!`, the line before, or the line after.
    fn select(&mut self, line: usize) {
        let marked = self
            .lines
            .iter()
            .skip(line.saturating_sub(2))
            .take(3)
            .any(|text| text.contains("// merge") || text.contains("// race"));
        if !marked {
            (self.report)(
                line,
                "this select! says neither `// merge` (an arm not taken goes on next time) nor `// race` (it is dropped)"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<(usize, String)> {
        check(Path::new(path), text)
            .into_iter()
            .map(|finding| (finding.line, finding.message))
            .collect()
    }

    #[test]
    fn unsafe_code_is_found_outside_its_folder_only() {
        let text =
            "// unsafe in a comment\nconst A: &str = \"unsafe\";\nfn f() { unsafe { g() } }\n";
        let found = messages("debug_worker/src/lib.rs", text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 3);
        for allowed in [
            "vp_runner/src/kvm/vcpu.rs",
            "preload/src/vmm_process/symbols.rs",
        ] {
            assert!(messages(allowed, text).is_empty(), "{allowed}");
        }
        for refused in ["preload/src/lib.rs", "preload/src/interposer.rs"] {
            assert_eq!(messages(refused, text).len(), 1, "{refused}");
        }
    }

    #[test]
    fn plain_copies_of_guest_memory_are_found_outside_the_tests() {
        let text = "use vm_memory::Bytes as _;\n";
        assert_eq!(messages("vp_runner/src/memory.rs", text).len(), 1);
        for path in [
            "vp_runner/src/memory/tests.rs",
            "vp_runner/src/controller/tests/model.rs",
            "vp_runner/src/kvm/x86_64/scratch_vm.rs",
            "reference_vmm/trapgate/src/kernel.rs",
        ] {
            assert!(messages(path, text).is_empty());
        }
    }

    #[test]
    fn names_of_debuggers_are_found_below_the_protocol_only() {
        let text = "// As GDB does.\n// use `hbreak`\n";
        for path in ["vp_runner/src/a.rs", "vmm_core_defs/src/stop.rs"] {
            let lines: Vec<_> = messages(path, text)
                .into_iter()
                .map(|(line, _)| line)
                .collect();
            assert_eq!(lines, [1, 2]);
        }
        assert!(
            messages(
                "vp_runner/src/a.rs",
                "const A: u32 = KVM_GUESTDBG_ENABLE;\n"
            )
            .is_empty()
        );
        for path in ["debug_worker/src/a.txt", "vp_runner/tests/a.txt"] {
            assert!(messages(path, text).is_empty());
        }
    }

    #[test]
    fn a_listener_is_found_outside_its_file_only() {
        let text = "fn f() { let l = std::net::TcpListener::bind(a); UnixListener::bind(b) }\n";
        assert_eq!(messages("debug_worker/src/server.rs", text).len(), 2);
        assert_eq!(messages("vp_runner/src/lib.rs", text).len(), 2);
        assert_eq!(messages("reference_vmm/v/src/lib.rs", text).len(), 2);
        for allowed in [
            "debug_worker/src/listener.rs",
            "support/pal_async/src/socket.rs",
            "xtask/src/bench/echo.rs",
            "debug_worker/src/peer_owner/tests.rs",
            "reference_vmm/v/tests/a.rs",
            "test_support/c/src/a.rs",
            "vp_runner/tests/a.rs",
        ] {
            assert!(messages(allowed, text).is_empty(), "{allowed}");
        }
    }

    #[test]
    fn a_select_without_a_mark_is_found() {
        let marked =
            "async fn f() {\n    select! { // race semantics\n        a = b => {}\n    }\n}\n";
        assert!(messages("a/src/lib.rs", marked).is_empty());
        let found = messages("a/src/lib.rs", &marked.replace("// race semantics", ""));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 2);
        assert!(messages("a/src/lib.rs", "use futures::select;\n").is_empty());
    }

    #[test]
    fn long_files_empty_names_and_machine_paths_are_found() {
        assert_eq!(messages("a/src/lib.rs", &"\n".repeat(601)).len(), 1);
        assert!(messages("a/src/lib.rs", &"\n".repeat(600)).is_empty());
        assert_eq!(messages("a/src/util.rs", "").len(), 1);
        assert_eq!(messages("common/src/lib.rs", "").len(), 1);
        let text = format!("see {}main\n", MACHINE_NAMES[0]);
        assert_eq!(messages("README.md", &text).len(), 1);
    }
}
