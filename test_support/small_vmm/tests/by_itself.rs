//! The VMM without a debugger. Cargo builds the program for this test, and so for the tests of `trapgate exec` too.

use std::io::Write as _;
use test_machine::running::DEADLINE;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::running::program;

#[test]
fn the_guest_runs_and_the_vmm_ends_with_its_status() {
    if !kvm_here() {
        return;
    }
    let (mut vmm, mut input) = Running::spawn_with_input({
        let mut vmm = program("small_vmm");
        vmm.arg("2");
        vmm
    });
    vmm.wait_for("ready");
    let mut last = 0;
    for _ in 0..3 {
        input.write_all(b"count\n").expect("the VMM reads");
        let line = vmm.next_line(DEADLINE).expect("an answer in time");
        let line = line.expect("the VMM runs");
        let count = line.strip_prefix("count: ").expect("an answer");
        let count: u64 = count.parse().expect("a number");
        assert!(count >= last, "{count} after {last}");
        last = count;
    }
    input.write_all(b"quit\n").expect("the VMM reads");
    assert_eq!(vmm.finish().code, Some(7));
}
