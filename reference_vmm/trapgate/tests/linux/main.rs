//! A stock Linux kernel boots to its init, with one CPU and with several, and ends.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

use test_machine::linux_guest::Linux;

#[test]
fn it_boots_to_its_init_and_switches_off() {
    let Some(linux) = Linux::given() else { return };
    let ended = linux
        .start(&["--gdb", "off", "--cpus", "1"], "trapgate.poweroff")
        .finish();
    assert!(
        ended.output.contains("trapgate-init: up"),
        "{}",
        ended.output
    );
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn it_finds_every_cpu() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(
        &["--gdb", "off", "--cpus", "2"],
        "loglevel=7 trapgate.poweroff",
    );
    running.wait_for("Brought up 1 node, 2 CPUs");
    running.wait_for("trapgate-init: up");
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_panic_resets_the_machine() {
    let Some(linux) = Linux::given() else { return };
    let ended = linux
        .start(
            &["--gdb", "off", "--cpus", "1"],
            "rdinit=/nowhere root=/dev/nowhere",
        )
        .finish();
    assert!(ended.output.contains("Kernel panic"), "{}", ended.output);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
}
