//! A debugger in a VMM with run loops of its own: what the VMM gets, and what it never waits for. On real guests.

use machine::guest::*;
use machine::*;
use std::time::Duration;
use std::time::Instant;
use test_machine::machine;
use test_machine::own_loops::SeenExit;
use test_machine::own_loops::Shape;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::vp_set::VpSet;

const SHAPES: [Shape; 2] = [Shape::InsideRun, Shape::OutsideTheLock];
/// Far more than a pause takes, and far less than a debugger that has stopped the guest may take.
const AT_ONCE: Duration = Duration::from_secs(2);

fn counts(vps: u32, shape: Shape) -> Option<TestVm> {
    let code = telling_loop(Mode::Long);
    let setup = Setup::new(Mode::Long, &code).vps(vps).own_loops(shape);
    setup.build()
}

#[test]
fn the_vmm_pauses_a_guest_that_a_debugger_has_stopped_at_once_and_the_guest_stays_stopped() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        vm.attach();
        interrupt(&vm, vm.resume());
        let before = vm.regs(0);
        for _ in 0..20 {
            let begun = Instant::now();
            let paused = vm.handle.loops().1.pause();
            assert!(begun.elapsed() < AT_ONCE, "{shape:?}");
            let vp = VpIndex::BSP;
            let activity = vm.call(DebugRequest::WriteMsr, (vp, 0x10, 0));
            assert_eq!(activity, Err(DebugError::HeldByVmm { vp }), "{shape:?}");
            drop(paused);
            // The VMM decides when it gives the thread back.
            while vm.call(DebugRequest::ReadMsr, (vp, 0x10)) == Err(DebugError::HeldByVmm { vp }) {
                std::thread::yield_now();
            }
        }
        assert_eq!(vm.regs(0).rip, before.rip, "{shape:?}");
        assert_eq!(vm.regs(0).gp, before.gp, "{shape:?}");
        vm.step(0);
        interrupt(&vm, vm.resume());
    }
}

#[test]
fn the_vmm_pauses_a_guest_that_runs_with_and_without_a_debugger() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        vm.attach();
        let pending = vm.resume();
        for attached in [true, false] {
            vm.machine
                .wait_until("it runs", |seen| !seen.told.is_empty());
            let paused = vm.handle.loops().1.pause();
            let told = vm.machine.wait_until("now", |_| true).told.len();
            drop(paused);
            vm.machine
                .wait_until("it runs on", |seen| seen.told.len() > told);
            if attached {
                vm.detach(DetachAction::Resume);
            }
        }
        assert_eq!(answer(pending).map(drop), Err(DebugError::Detached));
    }
}

#[test]
fn a_snapshot_has_no_byte_of_a_debugger() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        let clean = vm.machine.raw_memory();
        vm.attach();
        let breakpoint = software::software_at(in_loop(Mode::Long, 1));
        vm.insert(breakpoint);
        assert!(matches!(
            stop(vm.resume()),
            DebugStopReason::Breakpoint { .. }
        ));
        let code = |memory: Vec<u8>| memory[0x1000..0x1010].to_vec();
        let armed = code(vm.machine.raw_memory()) != code(clean.clone());
        let (handle, loops) = vm.handle.loops();
        {
            let _paused = loops.pause();
            let _quiesced = handle.quiesce();
            assert_eq!(code(vm.machine.raw_memory()), code(clean.clone()));
        }
        let still = code(vm.machine.raw_memory()) != code(clean.clone());
        assert_eq!(still, armed, "the breakpoint is as before");
        assert!(matches!(
            stop(vm.resume()),
            DebugStopReason::Breakpoint { .. }
        ));
    }
}

/// QEMU takes memory away and puts it back for some milliseconds when the firmware maps its shadow RAM.
#[test]
fn memory_that_goes_away_has_no_byte_of_a_debugger_and_is_armed_when_it_is_back() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        let code = || vm.machine.raw_memory()[0x1000..0x1010].to_vec();
        let clean = code();
        vm.attach();
        vm.insert(software::software_at(in_loop(Mode::Long, 1)));
        if !software::is_byte(&vm) {
            return;
        }
        let is_hit = |reason| matches!(reason, DebugStopReason::Breakpoint { .. });
        assert!(is_hit(stop(vm.resume())), "{shape:?}");
        assert_ne!(code(), clean, "{shape:?}: the breakpoint is a byte");
        let (handle, _) = vm.handle.loops();
        assert!(handle.has_breakpoint_bytes());
        let memory = vm.machine.ram();
        let nothing = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x10_0000), 0x1000)]);
        handle.set_guest_memory(nothing.unwrap().into());
        assert_eq!(code(), clean, "{shape:?}: the memory is away");
        drop(handle.quiesce());
        handle.set_guest_memory(memory);
        drop(handle.quiesce());
        assert!(is_hit(stop(vm.resume())), "{shape:?}: it is back");
        vm.detach(DetachAction::Resume);
        assert_eq!(code(), clean, "{shape:?}");
        assert!(!handle.has_breakpoint_bytes());
    }
}

#[test]
fn exits_that_are_not_the_debuggers_reach_the_vmm_once_and_in_order() {
    for shape in SHAPES {
        let Some(vm) = counts(1, shape) else { return };
        vm.attach();
        for _ in 0..30 {
            vm.step(0);
        }
        let told = vm.machine.wait_until("now", |_| true).told.len();
        let record = vm.handle.loops().1.record.lock().unwrap();
        let ports = vec![(0, SeenExit::Port(PORT_TELL.into())); told];
        assert_eq!(told, 10, "an access in each turn of three instructions");
        assert_eq!(record.exits, ports, "{shape:?}");
    }
}

#[test]
fn a_triple_fault_goes_to_the_vmm_when_the_debugger_has_seen_it() {
    for shape in SHAPES {
        // ud2, without an IDT.
        let setup = Setup::new(Mode::Long, &[0x0f, 0x0b]).own_loops(shape);
        let Some(vm) = setup.build() else { return };
        vm.attach();
        let reason = stop(vm.resume());
        if let DebugStopReason::Crashed { cause, .. } = reason {
            println!("SKIP: this host's KVM ends a triple fault with {cause:?}");
            return;
        }
        assert!(matches!(reason, DebugStopReason::TripleFault { .. }));
        assert_eq!(vm.handle.loops().1.record.lock().unwrap().exits, []);
        vm.detach(DetachAction::Resume);
        let end = Instant::now() + Duration::from_secs(60);
        while vm.handle.loops().1.record.lock().unwrap().exits != [(0, SeenExit::Shutdown)] {
            assert!(Instant::now() < end, "the VMM never gets the exit");
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_event_of_a_device_is_held_for_a_debugger_and_only_for_one() {
    for shape in SHAPES {
        // mov al, 1; out reset, al; jmp back
        let mut code = vec![0xb0, 1, 0xe6, PORT_RESET];
        jump_to_start(&mut code);
        let setup = Setup::new(Mode::Long, &code).running().own_loops(shape);
        let Some(vm) = setup.build() else { return };
        let acted = || vm.handle.loops().1.record.lock().unwrap().acted.len();
        let end = Instant::now() + Duration::from_secs(60);
        while acted() == 0 {
            assert!(Instant::now() < end, "the VMM acts at once");
            std::thread::yield_now();
        }
        let vp = Some(VpIndex::BSP);
        // The answer to the attach reports a reset that happens during the attach.
        let reported = vm.attach().stop.reason == DebugStopReason::Reset { vp };
        // The attach does not wait for a thread that the VMM has. This thread may still act on an earlier reset. Registers are read when it has parked.
        vm.regs(0);
        let before = acted() + usize::from(reported);
        for held in 0..5 {
            assert_eq!(stop(vm.resume()), DebugStopReason::Reset { vp });
            assert_eq!(
                acted(),
                before + held,
                "the VMM acts when the debugger goes on"
            );
            assert_eq!(vm.regs(0).rip, ENTRY + 4, "no instruction after the access");
        }
        let none = vmm_core_defs::stop::StopOn::from_iter([GuestEventKind::PowerOff]);
        vm.call(DebugRequest::StopOn, Some(none)).unwrap();
        let pending = vm.resume();
        while acted() < before + 10 {
            assert!(Instant::now() < end, "the VMM acts at once");
            std::thread::yield_now();
        }
        interrupt(&vm, pending);
    }
}

#[test]
fn a_hit_of_a_vp_that_the_vmm_has_moved_is_not_reported() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        vm.attach();
        let site = in_loop(Mode::Long, 1);
        let breakpoint = software::software_at(site);
        vm.insert(breakpoint);
        let (mut moved, mut hits) = (0, 0);
        while moved < 20 {
            let DebugStopReason::Breakpoint { vp, .. } = stop(vm.resume()) else {
                panic!("no hit");
            };
            hits += 1;
            assert!(
                hits < 10_000,
                "the VPs never meet the breakpoint at the same time"
            );
            assert_eq!(vm.regs(vp.index()).rip, site, "{shape:?}, {vp}");
            let other = 1 - vp.index();
            if vm.regs(other).rip != site {
                continue;
            }
            // The other VP has a hit that is not reported, or is about to hit.
            let paused = vm.handle.loops().1.pause();
            let start = in_loop(Mode::Long, 0);
            vm.handle.loops().1.move_vcpu(other as usize, start);
            let pending = vm.resume();
            drop(paused);
            let DebugStopReason::Breakpoint { vp, .. } = stop(pending) else {
                panic!("no hit");
            };
            assert_eq!(vm.regs(vp.index()).rip, site, "{shape:?}: {vp} was moved");
            moved += 1;
        }
    }
}

#[test]
fn a_vcpu_may_come_late_and_go_away() {
    for shape in SHAPES {
        let Some(vm) = counts(2, shape) else { return };
        vm.attach();
        interrupt(&vm, vm.resume());
        vm.handle.loops().1.end_last_vcpu();
        let vp = VpIndex::new(1);
        let end = Instant::now() + Duration::from_secs(60);
        while vm.call(DebugRequest::GetVpState, vp).is_ok() {
            assert!(Instant::now() < end, "the VP has gone");
        }
        let gone = DebugError::NoSuchVp { vp, count: 2 };
        while vm.call(DebugRequest::GetVpState, vp).map(drop) != Err(gone.clone()) {
            assert!(Instant::now() < end, "the controller learns of it");
        }
        assert!(vm.status().of(vp).is_none());
        let only = ResumeRequest::new(VpAction::Stay, vec![(VpIndex::BSP, VpAction::Step)]);
        let stop = vm.call(DebugRequest::Resume, only).unwrap();
        assert_eq!(stop.vps, VpSet::first(1), "a stop says which VPs there are");
        interrupt(&vm, vm.resume());
    }
}

#[test]
fn devices_are_accessed_by_the_vmms_function() {
    let Some(vm) = counts(1, Shape::InsideRun) else {
        return;
    };
    vm.attach();
    vm.write_gva(0, DEVICE.value(), &[1, 2, 3, 4]).unwrap();
    assert_eq!(vm.read_gva(0, DEVICE.value(), 4), Ok(vec![1, 2, 3, 4]));
}

#[test]
fn a_thread_under_the_published_filter_gives_memory_back() {
    for shape in SHAPES {
        let code = telling_loop(Mode::Long);
        let setup = Setup::new(Mode::Long, &code).running().own_loops(shape);
        let Some(vm) = setup.build() else { return };
        let (done, is_done) = std::sync::mpsc::channel();
        let call = move |enter: &mut dyn FnMut()| {
            enter();
            // glibc takes pieces of this length from the heap of the thread, and trims the heap when they are free. For the first heap of a process it asks the system first.
            let pieces: Vec<_> = (0..200).map(|_| vec![1_u8; 64 << 10]).collect();
            drop(std::hint::black_box(pieces));
            done.send(()).expect("the test waits");
        };
        vm.handle.loops().1.call_on_first_thread(Box::new(call));
        is_done.recv().expect("the thread gives memory back");
        vm.attach();
        vm.step(0);
    }
}

#[test]
fn several_vms_of_one_process_are_debugged_beside_each_other() {
    let vms: Option<Vec<_>> = SHAPES.into_iter().map(|shape| counts(2, shape)).collect();
    let Some(vms) = vms else { return };
    for vm in &vms {
        vm.attach();
        vm.insert(execute_at(ENTRY));
    }
    for _ in 0..20 {
        for vm in &vms {
            assert!(matches!(
                stop(vm.resume()),
                DebugStopReason::Breakpoint { .. }
            ));
        }
    }
}
