//! Functions for the tests of software breakpoints.

use super::*;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugRequest;

/// A software breakpoint.
pub fn software_at(address: u64) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Software,
        ..execute_at(address)
    }
}

/// The arming of each breakpoint, in the order of insertion.
pub fn armings(vm: &TestVm) -> Vec<Arming> {
    let list = vm.call(DebugRequest::Breakpoints, ()).unwrap();
    list.into_iter().map(|status| status.arming).collect()
}

/// Whether the only breakpoint is a byte in memory. If not, the test proves nothing, and a skip is printed.
pub fn is_byte(vm: &TestVm) -> bool {
    match &armings(vm)[..] {
        [Arming::Memory { .. }] => true,
        other => {
            println!("SKIP: INT3 does not trap here: {other:?}");
            false
        }
    }
}

/// The bytes in memory, including breakpoint bytes.
pub fn raw(vm: &TestVm, gpa: u64, len: usize) -> Vec<u8> {
    let start = usize::try_from(gpa).unwrap();
    vm.machine.raw_memory()[start..start + len].to_vec()
}

/// Asserts that the guest's memory equals the memory of a guest without a debugger.
#[track_caller]
pub fn assert_untouched(vm: &TestVm, untouched: &[u8], when: &str) {
    let now = vm.machine.raw_memory();
    let different = now
        .iter()
        .zip(untouched)
        .position(|(now, then)| now != then);
    assert_eq!(different, None, "the first byte that differs, {when}");
}
