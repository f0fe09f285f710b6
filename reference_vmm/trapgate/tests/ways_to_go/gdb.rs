//! GDB is killed by `kill -9`.

use crate::bed::Bed;
use std::process::Command;
use std::process::Stdio;
use test_machine::running::Running;
use vmm_core_defs::debug_rpc::DetachAction;

/// The command that GDB executes when it is killed, after it has announced it.
const WHILE: [(&str, &[&str]); 5] = [
    ("stopped", &["python import time; time.sleep(100)"]),
    ("running", &["continue"]),
    (
        "at a breakpoint",
        &[
            "break *0x1000",
            "continue",
            "python import time; time.sleep(100)",
        ],
    ),
    ("stepping", &["stepi 1000000"]),
    ("stepping over", &["break *0x1000", "continue 1000000"]),
];

#[test]
fn gdb_killed_in_every_state_leaves_nothing_behind() {
    let there = Command::new("gdb")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        println!("SKIP: no gdb; install it with `apt-get install gdb`");
        return;
    }
    let Some(bed) = Bed::new(DetachAction::Resume) else {
        return;
    };
    for (state, commands) in WHILE {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-iex", "set confirm off"])
            .args(["-ex", &format!("target remote {}", bed.address)])
            .args(["-ex", "set breakpoint always-inserted on"])
            .args(["-ex", "break *0x5fff", "-ex", "hbreak *0x7000"])
            .args(["-ex", "echo \\nhere\\n"])
            .stdin(Stdio::null());
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let mut gdb = Running::spawn(gdb);
        gdb.wait_for("here");
        gdb.signal("KILL");
        gdb.finish();
        bed.wait_detached(state);
        bed.assert_runs(state);
        bed.assert_untouched(state);
    }
}
