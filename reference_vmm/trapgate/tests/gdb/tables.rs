//! GDB's `info os`.

use crate::gdb_client::in_order;
use crate::gdb_client::start_gdb;
use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use test_machine::debuggers::Client;

#[test]
fn info_os_shows_vcpus_breakpoints_and_memory() {
    if !kvm_here() {
        return;
    }
    for gdb in Client::Gdb.all() {
        let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
        let line = guest.gdb_line();
        let line = line.replacen("gdb", &gdb.program.display().to_string(), 1);
        let commands = [
            "set breakpoint always-inserted on",
            "hbreak do_round",
            "continue",
            "info os",
            "info os vcpus",
            "info os breakpoints",
            "info os memory",
            "info os processes",
            "detach",
        ];
        let Ended { output, .. } = start_gdb(&line, &commands).finish();
        let parts = [
            "hit Breakpoint 1",
            "Type",
            "vcpus",
            "The vCPUs and their states",
            "breakpoints",
            "memory",
            "The ranges of physical RAM",
            "vCPU",
            "thread",
            "state",
            "stopped, 64-bit mode, ring 0",
            "address",
            "hits",
            "armed",
            "hardware",
            "debug register",
            "first",
            "last",
            "0x1fffffff",
        ];
        in_order(&output, &parts);
        guest.wait_for("demo guest: CPU 1 is up");
    }
}
