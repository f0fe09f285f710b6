//! The settings of the Guide's launch file debug the demo guest. `driver.py` takes the place of the editor.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use test_machine::amount::is_nested;
use test_machine::any_vmm::Vmm;
use test_machine::debuggers::Client;
use test_machine::debuggers::Debugger;
use test_machine::running::Running;

const DRIVER: &str = include_str!("driver.py");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Guide/src/editors.md");

/// An adapter without output for this time hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// GDB has an adapter of its own since this version.
const GDB_WITH_ADAPTER: u32 = 14;

#[test]
fn the_guides_settings_for_lldb_dap_debug_the_guest() {
    each(Client::Lldb, "lldb-dap", |debugger| {
        let adapter = debugger.lldb_dap();
        if adapter.is_none() {
            println!("SKIP: {} has no lldb-dap beside it", debugger.name);
        }
        adapter
    });
}

#[test]
fn the_guides_settings_for_cppdbg_debug_the_guest_by_its_commands() {
    each(Client::Gdb, "cppdbg", |debugger| {
        let mut command = Command::new(&debugger.program);
        command.args(["-nx", "-q", "-i=mi"]);
        Some(command)
    });
}

#[test]
fn the_guides_settings_for_gdbs_own_adapter_debug_the_guest() {
    each(Client::Gdb, "gdb", |debugger| {
        let major = debugger
            .name
            .trim_start_matches("gdb-")
            .split('.')
            .next()
            .and_then(|number| number.parse::<u32>().ok());
        if major.is_none_or(|major| major < GDB_WITH_ADAPTER) {
            println!("SKIP: {} has no adapter", debugger.name);
            return None;
        }
        let mut command = Command::new(&debugger.program);
        command.args(["-nx", "-q", "-i=dap"]);
        Some(command)
    });
}

/// Debugs a guest with each debugger that has an adapter.
fn each(client: Client, kind: &str, adapter: impl Fn(&Debugger) -> Option<Command>) {
    if is_nested() {
        println!("SKIP: the nested bed has no editor's adapter");
        return;
    }
    if Command::new("python3")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_err()
    {
        println!("SKIP: no python3; install it with `apt-get install python3`");
        return;
    }
    for debugger in client.all() {
        let Some(adapter) = adapter(&debugger) else {
            continue;
        };
        let Some(vmm) = Vmm::start_guest(demo_guest::ELF, 2) else {
            return;
        };
        println!("{} with the settings for {kind}", debugger.name);
        drive(&vmm, kind, &adapter);
    }
}

fn drive(vmm: &Vmm, kind: &str, adapter: &Command) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let driver = folder.path().join("driver.py");
    std::fs::write(&driver, DRIVER).expect("room for a small file");
    let mut command = Command::new("python3");
    command
        .arg(&driver)
        .arg(Path::new(PAGE))
        .args([kind, &vmm.address, &vmm.guest, "--"])
        .arg("env");
    for (key, value) in adapter.get_envs() {
        let mut assignment = key.to_owned();
        assignment.push("=");
        assignment.push(value.unwrap_or_default());
        command.arg(assignment);
    }
    command
        .arg(adapter.get_program())
        .args(adapter.get_args())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    let mut running = Running::spawn(command);
    let mut said = Vec::new();
    loop {
        let line = match running.next_line(PATIENCE) {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the driver ended without a result:\n{}", said.join("\n")),
            Err(_) => panic!("nothing was said for {PATIENCE:?}:\n{}", said.join("\n")),
        };
        if line == "editor: ok" {
            return;
        }
        assert!(
            !line.starts_with("editor: wrong"),
            "{line}\n{}",
            said.join("\n")
        );
        said.push(line);
    }
}
