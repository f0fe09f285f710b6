//! A stock Linux kernel resets the machine and boots again.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;

use debugger::Debugger;
use test_machine::linux_guest::Linux;

#[test]
fn after_a_reset_it_boots_again() {
    let Some(linux) = Linux::given() else { return };
    let args = ["--gdb", "off", "--cpus", "1"];
    let mut running = linux.boot(&args, "rdinit=/nowhere root=/dev/nowhere");
    let panics = std::cell::Cell::new(0);
    // A clock page or an interrupt controller with the state of the first boot would cause an error before the second
    // panic.
    running.line("a second panic", |line| {
        panics.set(panics.get() + u32::from(line.contains("Kernel panic - not syncing: VFS")));
        panics.get() == 2
    });
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(143));
}

#[test]
fn software_breakpoints_of_its_first_instruction_hit_again_after_it_reboots() {
    let Some(linux) = Linux::given() else { return };
    let args = ["--gdb", "127.0.0.1:0", "--cpus", "1"];
    let mut running = linux.boot(&args, "quiet trapgate.reboot");
    let mut debugger = Debugger::attach(&running.address());
    // Neither function is in memory yet: the kernel is compressed, and it has not set up its paging.
    let places = ["start_kernel", "__x64_sys_reboot"].map(|name| linux.address(name));
    for place in places {
        debugger.set(0, place, 1);
    }
    let mut resets = 0;
    for boot in 1..=2 {
        for place in places {
            let mut stop = debugger.go_on();
            // The guest asked for a reset, which is carried out when it runs.
            if stop.starts_with("T03") {
                resets += 1;
                stop = debugger.go_on();
            }
            assert!(stop.contains("swbreak:;"), "boot {boot}: {stop}");
            assert_eq!(debugger.place(), place, "boot {boot}");
        }
    }
    println!("{resets} reset(s) reported as stops");
    debugger.detach();
    let boots = std::cell::Cell::new(0);
    running.line("a third boot", |line| {
        boots.set(boots.get() + u32::from(line.contains("trapgate-init: up")));
        boots.get() == 3
    });
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(143));
}
