//! A hook without a debugger makes no system call and no allocation. The program has no other test, because the threads under test never end.

use machine::guest::*;
use machine::*;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use test_machine::machine;
use test_machine::own_loops::Shape;
use test_machine::own_loops::filter;
use vmm_core_defs::debug_rpc::DetachAction;

const ENTRIES: u64 = 10_000;
/// Not yet counted.
const OPEN: u64 = u64::MAX;

/// Counts the allocations of entries during which the thread is killed for every system call but `KVM_RUN`.
fn allocations_of_entries(vm: &TestVm) -> u64 {
    let counted = Arc::new(AtomicU64::new(OPEN));
    let count = counted.clone();
    let (begin, begun) = mpsc::channel();
    let program = filter::only_kvm_run();
    let call = move |enter: &mut dyn FnMut()| {
        enter();
        begin.send(()).expect("the test waits");
        filter::apply(&program);
        let info = allocation_counter::measure(|| (0..ENTRIES).for_each(|_| enter()));
        count.store(info.count_total, Ordering::Release);
        // The filter does not permit the system call that ends the thread.
        loop {
            std::hint::spin_loop();
        }
    };
    vm.handle.loops().1.call_on_first_thread(Box::new(call));
    begun.recv().expect("the thread takes the call");
    let end = Instant::now() + Duration::from_secs(60);
    while counted.load(Ordering::Acquire) == OPEN {
        assert!(Instant::now() < end, "the entries never end");
        std::thread::yield_now();
    }
    counted.load(Ordering::Acquire)
}

#[test]
fn a_hook_that_no_debugger_has_used_or_that_one_has_left_makes_no_system_call_and_no_allocation() {
    for shape in [Shape::InsideRun, Shape::OutsideTheLock] {
        for used in [false, true] {
            // out tell, al; jmp back
            let mut code = vec![0xe6, PORT_TELL];
            jump_to_start(&mut code);
            let setup = Setup::new(Mode::Long, &code).running().own_loops(shape);
            let Some(vm) = setup.build() else { return };
            vm.machine
                .wait_until("it runs", |seen| !seen.told.is_empty());
            if used {
                vm.attach();
                vm.step(0);
                vm.detach(DetachAction::Resume);
            }
            let allocations = allocations_of_entries(&vm);
            // The vCPU's thread never ends.
            std::mem::forget(vm);
            assert_eq!(allocations, 0, "{shape:?}, used: {used}");
        }
    }
}
