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
const PATIENCE: Duration = Duration::from_secs(40);

/// GDB has an adapter of its own since this version.
const GDB_WITH_ADAPTER: u32 = 14;

#[test]
fn the_guides_settings_for_lldb_dap_debug_the_guest() {
    each(Client::Lldb, |debugger| {
        let adapter = debugger.lldb_dap();
        if adapter.is_none() {
            println!("SKIP: {} has no lldb-dap beside it", debugger.name);
        }
        Some(("lldb-dap", adapter?))
    });
}

#[test]
fn the_guides_settings_for_cppdbg_debug_the_guest_by_its_commands() {
    each(Client::Gdb, |debugger| {
        let mut command = Command::new(&debugger.program);
        command.args(["-nx", "-q", "-i=mi"]);
        Some(("cppdbg", command))
    });
}

#[test]
fn the_guides_settings_for_gdbs_own_adapter_debug_the_guest() {
    each(Client::Gdb, |debugger| {
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
        Some(("gdb", command))
    });
}

/// Debugs a guest with each debugger that has an adapter, with the settings of the adapter's type.
fn each(client: Client, adapter: impl Fn(&Debugger) -> Option<(&'static str, Command)>) {
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
        let Some((kind, adapter)) = adapter(&debugger) else {
            continue;
        };
        let Some(vmm) = Vmm::start_guest(demo_guest::ELF, 2) else {
            return;
        };
        println!("{} with the settings for {kind}", debugger.name);
        // lldb-dap loses races between its threads: a stop without a reason, a pause that it forgets, no answer at all.
        let attempts = if client == Client::Lldb { 4 } else { 1 };
        let failed = (1..=attempts).map_while(|attempt| {
            let why = drive(&vmm, kind, &adapter).err()?;
            println!("attempt {attempt}: {why}");
            Some(why)
        });
        let failed: Vec<String> = failed.collect();
        assert!(failed.len() < attempts, "{}", failed.join("\n"));
    }
}

/// Debugs the guest. The error is what went wrong, with all that the adapter has said.
fn drive(vmm: &Vmm, kind: &str, adapter: &Command) -> Result<(), String> {
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
        match running.next_line(PATIENCE) {
            Ok(Some(line)) if line == "editor: ok" => return Ok(()),
            Ok(Some(line)) => said.push(line),
            end => {
                let why = match end {
                    Err(_) => "the adapter is silent",
                    Ok(_) => "the driver ended without a result",
                };
                return Err(format!("{}\n{why}", said.join("\n")));
            }
        }
    }
}
