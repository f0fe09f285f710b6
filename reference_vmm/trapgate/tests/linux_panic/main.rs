//! A stock Linux kernel panics under a debugger.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;

use debugger::Debugger;
use debugger::RDI;
use test_machine::linux_guest::Linux;

/// The first argument of `panic` after a request by `sysrq-trigger`.
const WHY: &[u8] = b"sysrq triggered crash\n\0";

/// By the panic device, whose driver the kernel has, and by a breakpoint, which needs no driver: both in one boot.
#[test]
fn its_panic_is_a_stop_by_the_panic_device_and_by_a_breakpoint() {
    let Some(linux) = Linux::given() else { return };
    let args = ["--gdb", "127.0.0.1:0", "--cpus", "1"];
    let mut running = linux.start(&args, "trapgate.panic");
    let mut debugger = Debugger::attach(&running.address());
    let events = debugger.monitor("stop-on panic");
    assert!(events.contains("panic         a stop"), "{events}");

    let panic = linux.address("panic");
    debugger.set(0, panic, 1);
    assert_eq!(debugger.run_into("swbreak"), panic);
    let why = debugger.register(RDI);
    assert_eq!(debugger.read(why, WHY.len() as u64), WHY);

    // After that, the driver writes to the device.
    let (stop, words) = debugger.go_on_with_words();
    assert!(stop.starts_with("T06"), "{stop}");
    assert!(
        words.contains("The guest's kernel panicked on VP 0."),
        "{words}"
    );
    let banner = linux.address("linux_banner");
    assert_eq!(debugger.read(banner, 14), b"Linux version ");
    let text = linux.address("_text")..linux.address("_end");
    assert!(text.contains(&debugger.place()), "{:#x}", debugger.place());

    // With `panic=-1` the kernel then resets: this is no stop here, and it ends the guest with `--no-reboot`.
    assert_eq!(debugger.go_on(), "W03");
    let ended = running.finish();
    assert!(
        ended
            .output
            .contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{}",
        ended.output
    );
    assert_eq!(ended.code, Some(3), "{}", ended.output);
}
