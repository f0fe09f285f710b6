//! A stock Debian kernel under alioth of crates.io, with GDB, from its entry to its power-off. `cargo xtask nested` has the kernel.

use std::process::ChildStdin;
use std::process::Command;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::gdb_client::start_gdb;
use test_machine::linux_guest::Linux;
use test_machine::running::Running;
use test_machine::running::program;

/// alioth's serial port needs a terminal, which `script` makes.
fn start(linux: &Linux, cmdline: &str) -> (Running, ChildStdin) {
    let vmm = program("alioth_vmm");
    let vmm = vmm.get_program().to_str().expect("text");
    let (kernel, initrd) = (&linux.kernel, &linux.initrd);
    let cmdline = format!("console=ttyS0 nokaslr panic=-1 {cmdline}");
    let command = format!("exec {vmm} {kernel} 2 {initrd} '{cmdline}'");
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &command]);
    script.arg("/dev/null");
    // The end of the input would be typed on the guest's serial port.
    Running::spawn_with_input(script)
}

#[test]
fn gdb_goes_with_a_stock_kernel_under_alioth_to_its_power_off() {
    let Some(linux) = Linux::given() else { return };
    if !gdb_here() {
        return;
    }
    let (mut running, _input) = start(&linux, "trapgate.poweroff");
    let start_kernel = linux.symbol("start_kernel");
    let execve = linux.symbol("kernel_execve");
    let jiffies = linux.symbol("jiffies_64");
    let connect = format!("gdb -ex 'target remote {}'", running.address());
    let ended = start_gdb(
        &connect,
        &[
            &format!("hbreak *{start_kernel}"),
            "continue",
            "p/x $rip",
            "stepi",
            "stepi",
            "delete",
            &format!("break *{execve}"),
            "continue",
            "p/x $rip",
            "info threads",
            "thread apply all -q p/x $cr0 & 0x80000001",
            &format!("x/s {}", linux.symbol("linux_banner")),
            "delete",
            &format!("watch *(unsigned long *) {jiffies}"),
            "continue",
            "delete",
            "detach",
        ],
    )
    .finish();
    let text = ended.output;
    assert_eq!(ended.code, Some(0), "{text}");
    in_order(
        &text,
        &[
            "Breakpoint 1, ",
            &format!("$1 = {start_kernel}"),
            "Breakpoint 2, ",
            &format!("$2 = {execve}"),
            "VP 0",
            "VP 1",
            "= 0x80000001",
            "= 0x80000001",
            "Linux version 6.",
            "Hardware watchpoint 3: ",
            "Old value = ",
            "New value = ",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: up");
    let ended = running.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("vmm: the guest has ended"));
}
