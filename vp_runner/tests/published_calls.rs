//! The published list of the system calls of a vCPU thread is not too wide: a thread that may not make one of them is killed. The other tests show that the list is
//! wide enough.

use machine::guest::*;
use machine::*;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::Output;
use test_machine::machine;
use test_machine::own_loops::Shape;
use test_machine::own_loops::filter;
use test_machine::running::kvm_here;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::embed::system_calls::VCPU_THREAD;

/// Behind the loop: `hlt`, and a loop of `mov al, 1; out reset, al`.
const HLT: u64 = ENTRY + 6;
const RESET: u64 = HLT + 1;
const IF: u64 = 1 << 9;

/// The time-stamp counter. KVM has an attribute for it.
const TSC: u32 = 0x10;

/// The thread gets memory and gives memory back, as any code on the thread does that uses the heap. The sizes are those at which glibc turns to the system.
fn use_the_heap() {
    let pieces: Vec<_> = (0..200).map(|_| vec![1_u8; 64 << 10]).collect();
    drop(std::hint::black_box(pieces));
    let mut block = vec![0_u8; 64 << 20];
    block.reserve_exact(64 << 20);
    drop(std::hint::black_box(block));
}

#[test]
fn a_debugger_does_everything_that_makes_a_system_call_on_a_vcpu_thread() {
    for shape in [Shape::InsideRun, Shape::OutsideTheLock] {
        let mut code = telling_loop(Mode::Long);
        code.extend([0xf4, 0xb0, 1, 0xe6, PORT_RESET, 0xeb, 0xfa]);
        let setup = Setup::new(Mode::Long, &code).running().own_loops(shape);
        let Some(vm) = setup.build() else { return };
        let (done, is_done) = std::sync::mpsc::channel();
        let heap = move |_: &mut dyn FnMut()| {
            use_the_heap();
            done.send(()).expect("the test waits");
        };
        vm.handle.loops().1.call_on_first_thread(Box::new(heap));
        is_done.recv().expect("the thread has a heap");
        vm.attach();
        // The VMM may still have the thread.
        let vp = VpIndex::BSP;
        while vm.call(DebugRequest::WriteMsr, (vp, TSC, 0)) == Err(DebugError::HeldByVmm { vp }) {
            std::thread::yield_now();
        }
        let at = |rip| {
            let mut regs = vm.regs(0);
            regs.rip = rip;
            regs.rflags |= IF;
            vm.try_set_regs(0, regs).unwrap();
        };
        // While steps hold interrupts back, the thread kicks itself, unless the controller has learned of the event first.
        at(RESET);
        for _ in 0..20 {
            assert_eq!(stop(vm.resume()), DebugStopReason::Reset { vp: Some(vp) });
        }
        let mut regs = vm.regs(0);
        regs.rip = ENTRY;
        regs.cr2 = 0xdead_0000;
        regs.debug.db[0] = 0x10;
        regs.sse.xmm[0] = 7;
        // x87 and SSE, and not AVX.
        regs.xcr0 = regs.xcr0.map(|_| 3);
        vm.try_set_regs(0, regs).unwrap();
        vm.step(0);
        let breakpoint = software::software_at(ENTRY);
        vm.insert(breakpoint);
        for _ in 0..20 {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{shape:?}");
        }
        vm.remove(breakpoint);
        interrupt(&vm, vm.resume());
        vm.status();
        vm.call(DebugRequest::StepInterrupts, Some(StepInterrupts::Taken))
            .unwrap();
        at(HLT);
        vm.step(0);
        vm.call(DebugRequest::Nmi, vp).unwrap();
    }
}

/// A process of its own, whose vCPU threads may not make this call.
fn without(call: &str) -> Output {
    let test = "a_debugger_does_everything_that_makes_a_system_call_on_a_vcpu_thread";
    let program = std::env::current_exe().expect("a process knows its program");
    // The end is expected, and leaves no file.
    Command::new("sh")
        .args(["-c", r#"ulimit -c 0; exec "$0" --exact "$1" --nocapture"#])
        .arg(program)
        .arg(test)
        .env(filter::FORBIDDEN, call)
        .output()
        .expect("a process")
}

#[test]
fn each_published_system_call_is_made_or_says_why_not() {
    if !kvm_here() {
        return;
    }
    let mut never = Vec::new();
    for call in VCPU_THREAD {
        let name = filter::name_of(call);
        if let Some(why) = call.seldom {
            println!("{name} need not be made: {why}");
            continue;
        }
        let ended = without(name);
        match (ended.status.signal(), ended.status.success()) {
            (Some(libc::SIGSYS), _) => {}
            (None, true) => never.push(name),
            _ => panic!(
                "without {name}: {}\n{}",
                ended.status,
                String::from_utf8_lossy(&ended.stderr)
            ),
        }
    }
    assert!(never.is_empty(), "no thread makes these calls: {never:?}");
}
