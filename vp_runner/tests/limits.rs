//! The number of breakpoints that a session may have. On a real guest.

use test_machine::machine;

use machine::guest::*;
use machine::software::*;
use machine::*;
use std::time::Instant;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::*;
use vp_runner::runner::DEFAULT_BREAKPOINT_LIMIT;

/// Memory that the guest does not use.
const UNUSED: u64 = 0x10_0000;

fn inserts(first: u64, count: u32) -> Vec<BreakpointChange> {
    (first..)
        .take(count as usize)
        .map(|address| BreakpointChange::Insert(software_at(address)))
        .collect()
}

#[test]
fn one_breakpoint_over_the_limit_is_refused_and_all_others_work() {
    let code = counting_loop(Mode::Protected);
    let Some(vm) = Setup::new(Mode::Protected, &code).build() else {
        return;
    };
    vm.attach();
    let site = in_loop(Mode::Protected, 1);
    vm.insert(software_at(site));
    if !is_byte(&vm) {
        return;
    }
    vm.remove(software_at(site));
    let before = raw(&vm, UNUSED, DEFAULT_BREAKPOINT_LIMIT as usize + 1);
    let set = |changes| vm.call(DebugRequest::SetDebugState, changes);
    let limit = DEFAULT_BREAKPOINT_LIMIT;
    let refused = Err(DebugError::TooManyBreakpoints { limit });

    // A request makes all of its changes or none.
    assert_eq!(set(inserts(UNUSED, limit + 1)), refused);
    assert_eq!(vm.call(DebugRequest::Breakpoints, ()).unwrap(), []);
    assert_eq!(raw(&vm, UNUSED, before.len()), before);

    let started = Instant::now();
    set(inserts(UNUSED, limit - 1)).unwrap();
    vm.insert(software_at(site));
    println!("{limit} breakpoints set in {:?}", started.elapsed());
    assert_eq!(set(inserts(UNUSED + u64::from(limit), 1)), refused);
    // A breakpoint that is set already does not count again, and a removal makes room.
    vm.insert(software_at(site));
    vm.remove(software_at(UNUSED));
    vm.insert(software_at(UNUSED));
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(stop(vm.resume()), hit(0, software_at(site)));
        println!("continued with all of them in {:?}", started.elapsed());
    }

    // The next session begins without breakpoints.
    let started = Instant::now();
    vm.detach(DetachAction::Stay);
    println!("taken away in {:?}", started.elapsed());
    assert_eq!(raw(&vm, UNUSED, before.len()), before);
    vm.attach();
    set(inserts(UNUSED, limit)).unwrap();
    let pending = vm.resume();
    interrupt(&vm, pending);
    assert_ne!(vm.regs(0).gp[3], 0);
}
