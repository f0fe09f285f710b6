//! GDB's `target extended-remote`: `run`, `kill` and `attach`.

use crate::gdb_client::in_order;
use crate::gdb_client::start_gdb;
use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use test_machine::debuggers::Client;
use test_machine::debuggers::Debugger;

/// GDB with the file of the guest, or without a file.
fn extended(gdb: &Debugger, guest: &mut Running, with_file: bool, commands: &[&str]) -> String {
    let line = guest.gdb_line();
    let program = gdb.program.display().to_string();
    let line =
        line.replacen("gdb", &program, 1)
            .replacen("target remote", "target extended-remote", 1);
    let line = match (with_file, line.rfind("' ")) {
        (false, Some(end)) => line[..=end].to_owned(),
        _ => line,
    };
    let Ended { code, output } = start_gdb(&line, commands).finish();
    assert!(code.is_some(), "{}: {output}", gdb.name);
    output
}

#[test]
fn run_resets_the_machine_and_kill_leaves_it_for_run_or_attach() {
    if !kvm_here() {
        return;
    }
    for gdb in Client::Gdb.all() {
        for with_file in [true, false] {
            let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
            let commands = [
                "hbreak do_round",
                "continue",
                "run",
                "bt 1",
                "kill",
                "info threads",
                "attach 1",
                "info symbol $pc",
                "delete",
                "run quiet",
                "set args",
                "starti",
                "info symbol $pc",
                "detach",
            ];
            let text = extended(&gdb, &mut guest, with_file, &commands);
            let parts = [
                "hit Breakpoint 1, do_round",
                "hit Breakpoint 1, do_round",
                "do_round (cpu=",
                "killed]",
                "No threads.",
                "do_round in section .text",
                "pvh_start in section .text",
                "detached",
            ];
            in_order(&text, &parts);
            // `run quiet`. Old GDBs do not show the text of the server.
            let refused = text.contains("on the remote target failed")
                || text.contains("keeps the command line that its VMM has chosen");
            assert!(refused, "{text}");
            guest.wait_for("demo guest: CPU 1 is up");
        }
    }
}
