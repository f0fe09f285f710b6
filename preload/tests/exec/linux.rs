//! A stock Debian kernel under Debian's QEMU, with its root on a virtio disk, debugged from the firmware to the power-off. `cargo xtask nested` has the kernel.

use crate::bed::exec;
use crate::bed::qemu::folder_for_qemu;
use crate::bed::qemu::qemu;
use test_machine::gdb_client::gdb;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::linux_guest::Linux;
use test_machine::running::Running;

/// The symbol of a pointer to what the kernel says of itself; `linux_banner` is the text.
const BANNER: &str = "linux_banner";

/// QEMU with two vCPUs, the disk, and what comes from the serial port on its standard output.
fn start(linux: &Linux, cmdline: &str) -> Running {
    let drive = format!("if=virtio,format=raw,snapshot=on,file={}", linux.disk);
    let cmdline = format!("console=ttyS0 nokaslr panic=-1 {cmdline}");
    let qemu = qemu();
    let mut command: Vec<&str> = qemu.iter().map(String::as_str).collect();
    command.extend(["-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512M"]);
    command.extend(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.extend(["-serial", "stdio", "-no-reboot", "-drive", &drive]);
    command.extend(["-kernel", &linux.kernel, "-initrd", &linux.initrd]);
    command.extend(["-append", &cmdline]);
    Running::spawn(exec(&["--wait"], &command))
}

#[test]
fn gdb_goes_with_a_stock_kernel_from_the_firmware_to_the_power_off() {
    let Some(linux) = Linux::given() else { return };
    if folder_for_qemu().is_none() || !gdb_here() {
        return;
    }
    let mut running = start(&linux, "trapgate.disk trapgate.poweroff");
    // The kernel calls it for `/init`, when all CPUs are up.
    let execve = linux.symbol("kernel_execve");
    let start_kernel = linux.symbol("start_kernel");
    let jiffies = linux.symbol("jiffies_64");
    let text = gdb(
        &mut running,
        &[
            "p/x $pc",
            &format!("hbreak *{start_kernel}"),
            "continue",
            "p/x $rip",
            "stepi",
            "stepi",
            "x/2i $pc",
            "delete",
            &format!("break *{execve}"),
            "continue",
            "p/x $rip",
            "info threads",
            "thread apply all -q p/x $cr0 & 0x80000001",
            "info registers",
            &format!("x/s {}", linux.symbol(BANNER)),
            "delete",
            &format!("watch *(unsigned long *) {jiffies}"),
            "continue",
            "continue",
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "$1 = 0xfffffff0",
            "Breakpoint 1, ",
            &format!("$2 = {start_kernel}"),
            "=> ",
            "Breakpoint 2, ",
            &format!("$3 = {execve}"),
            "VP 0",
            "VP 1",
            "= 0x80000001",
            "= 0x80000001",
            "cr3 ",
            "Linux version 6.",
            "Hardware watchpoint 3: ",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: disk");
    running.wait_for("trapgate-init: up");
    let ended = running.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

/// A debugger that attaches later, to a guest that runs from its disk.
#[test]
fn gdb_interrupts_a_stock_kernel_that_runs_and_leaves_it_running() {
    let Some(linux) = Linux::given() else { return };
    if folder_for_qemu().is_none() || !gdb_here() {
        return;
    }
    let mut running = start(&linux, "trapgate.disk");
    let mut first = test_machine::packets::Packets::connect(&running.address());
    first.ask("?");
    assert_eq!(first.ask("D"), "OK");
    drop(first);
    // Each line may take as long as a busy machine needs.
    for line in ["Linux version 6.", "Run /init as init process", "tick 1"] {
        running.wait_for(line);
    }
    // The loop of the guest's init reads `/proc/uptime`, which no tick is without.
    let shown = linux.symbol("uptime_proc_show");
    let text = gdb(
        &mut running,
        &[
            "info threads",
            &format!("break *{shown}"),
            "continue",
            "continue",
            "p/x $rip",
            "stepi",
            "p $xmm1",
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "VP 0",
            "VP 1",
            "Breakpoint 1, ",
            "Breakpoint 1, ",
            &format!("$1 = {shown}"),
            "v4_float",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: tick 3");
}
