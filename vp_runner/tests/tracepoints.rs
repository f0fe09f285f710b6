//! Tracepoints, through RPC, on real guests.

use test_machine::machine;

use agent_expr::Expr;
use agent_expr::Limits;
use machine::guest::*;
use machine::software::raw;
use machine::software::software_at;
use machine::*;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::condition::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::trace::*;

/// The number of the register that the counting loop counts in.
fn count() -> u16 {
    ConditionRegister::General(Gp::Rbx).number()
}

fn tracepoint(mode: Mode) -> Tracepoint {
    Tracepoint {
        number: 1,
        address: Gva::new(in_loop(mode, 1)),
        enabled: true,
        pass_count: 0,
        condition: None,
        registers: vec![count()],
        expressions: Vec::new(),
    }
}

fn start(vm: &TestVm, tracepoints: Vec<Tracepoint>, buffer: u64) {
    let start = TraceStart {
        tracepoints,
        buffer,
        circular: false,
        client: String::new(),
    };
    vm.call(DebugRequest::StartTrace, start).unwrap();
}

fn status(vm: &TestVm) -> TraceStatus {
    vm.call(DebugRequest::TraceStatus, ()).unwrap()
}

fn frames(vm: &TestVm) -> Vec<TraceFrame> {
    let mut frames = Vec::new();
    loop {
        let search = FrameSearch {
            from: frames.len() as u64,
            which: WhichFrame::Any,
        };
        match vm.call(DebugRequest::FindFrame, search).unwrap().frame {
            Some(frame) => frames.push(frame),
            None => return frames,
        }
    }
}

/// Stops when a VP has counted to this number.
fn run_to(vm: &TestVm, address: u64, number: u64) {
    let breakpoint = software_at(address);
    vm.insert(breakpoint);
    let reached = Expr::register(count()).equals(Expr::constant(number));
    let reached = reached.assemble(Limits::default()).expect("short");
    let wanted = BreakpointConditions {
        breakpoint,
        conditions: vec![Condition {
            code: reached.code().to_vec(),
        }],
        commands: Vec::new(),
    };
    vm.call(DebugRequest::SetConditions, wanted).unwrap();
    let reason = stop(vm.resume());
    assert!(
        matches!(reason, DebugStopReason::Breakpoint { breakpoint: hit, .. } if hit == breakpoint),
        "{reason:?}"
    );
    vm.remove(breakpoint);
}

fn guest(mode: Mode, cpus: u32) -> Option<TestVm> {
    let vm = Setup::new(mode, &counting_loop(mode)).vps(cpus).build()?;
    vm.attach();
    Some(vm)
}

#[test]
fn every_hit_of_every_vp_is_recorded_once_and_in_order() {
    const TURNS: u64 = 500;
    for (mode, cpus) in [(Mode::Long, 1), (Mode::Long, 4), (Mode::Real, 4)] {
        let Some(vm) = guest(mode, cpus) else { return };
        start(&vm, vec![tracepoint(mode)], MOST_TRACE_BUFFER);
        // At the next instruction, and at the same one.
        run_to(&vm, in_loop(mode, 2), TURNS);
        run_to(&vm, in_loop(mode, 1), 2 * TURNS);
        vm.call(DebugRequest::StopTrace, ()).unwrap();
        let mut seen = vec![0; cpus as usize];
        let frames = frames(&vm);
        for frame in &frames {
            let turn = &mut seen[frame.vp.index() as usize];
            *turn += 1;
            assert_eq!(
                frame.registers[0].value, *turn,
                "{mode:?} {cpus}: {frame:?}"
            );
        }
        for (vp, seen) in (0..cpus).zip(&seen) {
            let counted = vm.regs(vp).gp[3];
            // A VP may have counted, and stand before the tracepoint.
            assert!(
                [counted, counted - 1].contains(seen),
                "{vp}: {seen} {counted}"
            );
        }
        let status = status(&vm);
        assert_eq!(status.state, TraceState::Stopped);
        assert_eq!(status.frames, frames.len() as u64);
        assert!(seen.contains(&(2 * TURNS)), "{seen:?}");
        // The tracepoint leaves the guest before it runs.
        run_to(&vm, in_loop(mode, 2), 2 * TURNS + 10);
        assert_eq!(self::status(&vm).frames, frames.len() as u64);
        assert_eq!(vm.call(DebugRequest::Breakpoints, ()).unwrap(), []);
    }
}

/// Asks until it is so. Each question waits for its answer.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
    }
}

#[test]
fn a_full_buffer_takes_the_tracepoints_out_of_a_guest_that_runs() {
    let Some(vm) = guest(Mode::Long, 2) else {
        return;
    };
    let untouched = vm.read_gva(0, ENTRY, 8).unwrap();
    let before = raw(&vm, ENTRY, 8);
    assert_eq!(before, untouched);
    start(&vm, vec![tracepoint(Mode::Long)], 4000);
    let _running = vm.resume();
    until("a full buffer", || status(&vm).state != TraceState::Running);
    until("no tracepoint", || {
        let listed = vm.call(DebugRequest::Breakpoints, ()).unwrap();
        listed.is_empty()
    });
    assert_eq!(raw(&vm, ENTRY, 8), untouched);
    let status = status(&vm);
    assert_eq!(status.state, TraceState::Full);
    assert!(status.frames > 10, "{status:?}");
    vm.break_();
    assert!(vm.regs(0).gp[3] > 0);
}

#[test]
fn the_frames_outlive_the_session_and_its_tracepoints_do_not() {
    let Some(vm) = guest(Mode::Long, 1) else {
        return;
    };
    start(&vm, vec![tracepoint(Mode::Long)], MOST_TRACE_BUFFER);
    run_to(&vm, in_loop(Mode::Long, 2), 20);
    vm.detach(DetachAction::Resume);
    vm.attach();
    assert_eq!(vm.call(DebugRequest::Breakpoints, ()).unwrap(), []);
    assert_eq!(status(&vm).state, TraceState::Disconnected);
    let frames = frames(&vm);
    assert_eq!(frames.len(), 20);
    assert_eq!(frames[19].registers[0].value, 20);
    // A refused trace leaves nothing.
    let mut wrong = tracepoint(Mode::Long);
    wrong.expressions = vec![Condition { code: vec![0xff] }];
    let start = TraceStart {
        tracepoints: vec![tracepoint(Mode::Long), wrong],
        buffer: 1000,
        circular: false,
        client: String::new(),
    };
    let refused = vm.call(DebugRequest::StartTrace, start).unwrap_err();
    assert!(
        matches!(refused, DebugError::BadCondition { .. }),
        "{refused}"
    );
    assert_eq!(vm.call(DebugRequest::Breakpoints, ()).unwrap(), []);
    assert_eq!(status(&vm).state, TraceState::NotStarted);
}

#[test]
fn a_tracepoint_is_no_breakpoint_of_the_client() {
    let Some(vm) = guest(Mode::Long, 1) else {
        return;
    };
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Trace,
        address: Gva::new(ENTRY),
        len: 1,
    };
    for change in [
        BreakpointChange::Insert(breakpoint),
        BreakpointChange::Remove(breakpoint),
    ] {
        let refused = vm
            .call(DebugRequest::SetDebugState, vec![change])
            .unwrap_err();
        assert!(
            matches!(refused, DebugError::BadBreakpoint { .. }),
            "{refused}"
        );
    }
    start(&vm, vec![tracepoint(Mode::Long)], 4000);
    let breakpoint = Breakpoint {
        address: Gva::new(in_loop(Mode::Long, 1)),
        ..breakpoint
    };
    let conditions = BreakpointConditions {
        breakpoint,
        conditions: Vec::new(),
        commands: Vec::new(),
    };
    let refused = vm
        .call(DebugRequest::SetConditions, conditions)
        .unwrap_err();
    assert!(
        matches!(refused, DebugError::NoSuchBreakpoint { .. }),
        "{refused}"
    );
    let listed = vm.call(DebugRequest::Breakpoints, ()).unwrap();
    assert_eq!(listed[0].breakpoint, breakpoint);
    let _running = vm.resume();
    let again = TraceStart {
        tracepoints: Vec::new(),
        buffer: 0,
        circular: false,
        client: String::new(),
    };
    let refused = vm.call(DebugRequest::StartTrace, again).unwrap_err();
    assert_eq!(refused, DebugError::NotStopped);
}
