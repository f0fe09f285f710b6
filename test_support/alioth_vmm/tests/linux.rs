//! A stock Debian kernel under alioth and GDB, from the first instruction to the power-off. `cargo xtask nested` has the kernel.

use rustix::pty::OpenptFlags;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::gdb_client::start_gdb;
use test_machine::linux_guest::Linux;
use test_machine::running::Running;
use test_machine::running::program;

/// A terminal for alioth's serial port: the end that a program types on, and the terminal itself.
fn terminal() -> (OwnedFd, File) {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    rustix::pty::grantpt(&ours).expect("it is ours");
    rustix::pty::unlockpt(&ours).expect("it can be opened");
    let name = rustix::pty::ptsname(&ours, Vec::new()).expect("it has a name");
    let name = name.into_string().expect("a path");
    let theirs = File::options().read(true).write(true).open(name);
    (ours, theirs.expect("it opens"))
}

#[test]
fn gdb_goes_with_a_stock_kernel_from_its_first_instruction_to_the_power_off() {
    let Some(linux) = Linux::given() else { return };
    if !gdb_here() {
        return;
    }
    let (_ours, theirs) = terminal();
    let mut command = program("alioth_vmm");
    command.args([&linux.kernel, "2", &linux.initrd]);
    command.arg("console=ttyS0 nokaslr panic=-1 trapgate.poweroff");
    command.stdin(Stdio::from(theirs));
    let mut running = Running::spawn(command);
    let start_kernel = linux.symbol("start_kernel");
    // The kernel calls it for `/init`, when all CPUs are up.
    let execve = linux.symbol("kernel_execve");
    let jiffies = linux.symbol("jiffies_64");
    let connect = format!("gdb -ex 'target remote {}'", running.address());
    let gdb = start_gdb(
        &connect,
        &[
            "p/x $cr0 & 1",
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
    );
    let gdb = gdb.finish();
    assert_eq!(gdb.code, Some(0), "{}", gdb.output);
    in_order(
        &gdb.output,
        &[
            "Breakpoint 1, ",
            &format!("$2 = {start_kernel}"),
            "Breakpoint 2, ",
            &format!("$3 = {execve}"),
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
