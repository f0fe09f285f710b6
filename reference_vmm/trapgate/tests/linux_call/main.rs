//! GDB calls functions of a stock Linux kernel. A called function returns to a byte of the kernel's stack, whose page
//! is not executable.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

use gdb_client::gdb;
use gdb_client::in_order;
use test_machine::gdb_client;
use test_machine::linux_guest::Linux;

#[test]
fn functions_of_the_kernel_can_be_called_and_stopped_in() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(&["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "1"], "");
    running.wait_for("trapgate-init: tick 1");
    let write = linux.symbol("__x64_sys_write");
    let call = |function: &str, arguments: &str| {
        let address = linux.symbol(function);
        format!("p ((unsigned long (*)(unsigned long, unsigned long)) {address})({arguments})")
    };
    let banner = linux.symbol("linux_banner");
    // The function calls `simple_strtoull`, which finds no number.
    let parse = call("memparse", &format!("{banner}, 0"));
    let inside = linux.symbol("simple_strtoull");
    let text = gdb(
        &mut running,
        &[
            &format!("break *{write}"),
            "continue",
            "set $before = $rsp",
            &call("int_sqrt", "1000000, 0"),
            "p $rsp == $before",
            &call("int_sqrt", "1048576, 0"),
            &parse,
            &format!("break *{inside}"),
            &parse,
            "p/x $rip",
            "monitor breakpoints",
            "delete 2",
            "finish",
            "finish",
            "p/x $rip",
            "p $rsp == $before",
            &call("int_sqrt", "65536, 0"),
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "Breakpoint 1, ",
            "$1 = 1000",
            "$2 = 1",
            "$3 = 1024",
            "$4 = 0",
            "Breakpoint 2, ",
            "stopped while in a function called from GDB",
            &format!("$5 = {inside}"),
            &format!("$6 = {write}"),
            "$7 = 1",
            "$8 = 256",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: tick 3");
    running.signal("INT");
    let ended = running.finish();
    for complaint in ["Oops", "kernel BUG", "Kernel panic", "NX-protected"] {
        assert!(!ended.output.contains(complaint), "{}", ended.output);
    }
}
