//! GDB with a stock Linux kernel.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

use gdb_client::gdb;
use gdb_client::in_order;
use test_machine::gdb_client;
use test_machine::linux_guest::Linux;

#[test]
fn gdb_goes_with_it_from_its_first_instruction_to_its_init() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(&["--gdb", "127.0.0.1:0", "--cpus", "1"], "");
    let (start_kernel, jiffies) = (linux.symbol("start_kernel"), linux.symbol("jiffies_64"));
    let text = gdb(
        &mut running,
        &[
            "p/x $rip",
            "stepi",
            &format!("break *{start_kernel}"),
            "continue",
            "p/x $rip",
            "info registers",
            "monitor regs",
            "x/2i $pc",
            "stepi",
            "delete",
            &format!("watch *(unsigned long *) {jiffies}"),
            "continue",
            "continue",
            "continue",
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "$1 = 0x100200",
            "Breakpoint 1, ",
            &format!("$2 = {start_kernel}"),
            "cr3 ",
            "=> ",
            "Hardware watchpoint 2: ",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "detached",
        ],
    );
    assert!(text.contains("LME LMA"), "{text}");
    running.wait_for("trapgate-init: up");
    running.wait_for("trapgate-init: tick 2");
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn gdb_interrupts_it_and_reads_every_cpu() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(&["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "2"], "");
    running.wait_for("trapgate-init: tick 1");
    let text = gdb(
        &mut running,
        &[
            "python import gdb, threading",
            "python threading.Timer(0.5, lambda: gdb.post_event(lambda: gdb.execute('interrupt'))).start()",
            "continue",
            "info threads",
            "thread apply all -q p/x $cr0 & 0x80000001",
            "thread apply all -q p $xmm1",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "SIGINT",
            "vCPU 0",
            "vCPU 1",
            "= 0x80000001",
            "= 0x80000001",
            "v4_float",
            "v4_float",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: tick 3");
}
