//! A stock Linux kernel resets the machine and boots again.
//!
//! One program for each kind of test: the nested bed boots afresh for each, and a fresh one is the steadiest.

#[path = "../linux_guest/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod linux_guest;

use conformance::running;
use linux_guest::Linux;
use running::Running;

#[test]
fn after_a_reset_it_boots_again() {
    let Some(linux) = Linux::given() else { return };
    let cmdline = "console=ttyS0 nokaslr panic=-1 rdinit=/nowhere root=/dev/nowhere";
    let args = [
        "--gdb",
        "off",
        "--cpus",
        "1",
        "--kernel",
        &linux.kernel,
        "--initrd",
        &linux.initrd,
        "--cmdline",
        cmdline,
    ];
    let mut running = Running::start(&args);
    let panics = std::cell::Cell::new(0);
    // A clock page or an interrupt controller left over from the first boot would show before the second panic.
    running.line("a second panic", |line| {
        panics.set(panics.get() + u32::from(line.contains("Kernel panic - not syncing: VFS")));
        panics.get() == 2
    });
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(143));
}
