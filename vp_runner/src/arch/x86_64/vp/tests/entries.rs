//! What a VP does before an entry: its clocks go on, it asks for registers with exits, it passes entries without work, and it does not enter after a kick.

use super::fake_vcpu::Scripted;
use super::fake_vcpu::Told;
use super::*;
use crate::arch::x86_64::guest_time::TscRate;
use crate::arch::x86_64::guest_time::fake_clocks::FakeClocks;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::at_breakpoint::Others;
use crate::control::run_state::Cause;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;

/// One tick is a nanosecond.
const KHZ: u32 = 1_000_000;
/// The ticks that the host's counter advances during a stop.
const STOP: u64 = 100_000_000;
const RDTSC: [u8; 2] = [0x0f, 0x31];
const HLT: u8 = 0xf4;
/// RFLAGS.RF.
const RF: u64 = 1 << 16;
/// DR6.BS.
const BS: u64 = 1 << 14;

/// A breakpoint byte at RIP whose stop was reported. All other VPs stay stopped while the VP executes the instruction.
fn others_stopped() -> AtBreakpoint {
    let mut at = AtBreakpoint::NEW;
    at.reported();
    let byte = ByteAtRip {
        of: ByteOf::ThisAddress,
        emulation: Emulation::Impossible,
    };
    at.decide(Some(byte), Others::Move);
    assert_eq!(at.first(), FirstInstruction::OthersStopped);
    at
}

/// The ticks that are taken out of the counter of a VP that enters after a stop, with these bytes at its RIP.
fn taken_out(
    code: &[u8],
    action: VpAction,
    at: AtBreakpoint,
    step_interrupts: StepInterrupts,
) -> u64 {
    let host = FakeClocks::default();
    host.pass(1_000_000_000);
    let rate = TscRate::from_khz(KHZ).unwrap();
    let time = Timekeeper::new(Box::new(host.clone()), FreezeTime::On, Ok(rate));
    let mut guest = Guest::with_time(&[], time);
    guest.write(CODE, code);
    guest.stops.step_interrupts = step_interrupts;
    guest.vcpu().tsc = 5_000_000_000;
    guest.run([Scripted::Interrupted.leaves_at(CODE)]);
    guest.gate.clear();
    let before = guest.vcpu().tsc;
    host.pass(STOP);
    let entry = guest.entry(action, at);
    guest.vp.begin(&entry);
    before - guest.vcpu().tsc
}

#[test]
fn a_stop_is_taken_out_of_the_counter_before_the_guest_can_read_the_counter() {
    use StepInterrupts::Held;
    use StepInterrupts::Taken;
    use VpAction::Run;
    use VpAction::Step;
    let new = AtBreakpoint::NEW;
    for (case, code, action, at, interrupts, wanted) in [
        ("a run", &[NOP][..], Run, new, Held, STOP),
        ("a step over nop", &[NOP], Step, new, Held, 0),
        ("a step over rdtsc", &RDTSC, Step, new, Held, STOP),
        ("an interrupt", &[NOP], Step, new, Taken, STOP),
        ("one instruction", &[NOP], Run, others_stopped(), Held, 0),
    ] {
        assert_eq!(taken_out(code, action, at, interrupts), wanted, "{case}");
    }
}

#[test]
fn registers_come_with_exits_that_are_likely_to_be_stops() {
    use VpAction::Run;
    use VpAction::Step;
    let new = AtBreakpoint::NEW;
    let watchpoint = (BreakpointKind::Write, 0x5000);
    for (breakpoints, action, at, debugger, wanted) in [
        (&[][..], Run, new, Debugger::Present, false),
        (&[], Step, new, Debugger::Present, true),
        (&[], Run, others_stopped(), Debugger::Present, true),
        (&[watchpoint], Run, new, Debugger::Present, true),
        (&[watchpoint], Run, new, Debugger::Absent, false),
    ] {
        let mut guest = Guest::new(breakpoints);
        let mut entry = guest.entry(action, at);
        entry.debugger = debugger;
        guest.vp.begin(&entry);
        let wants = guest.vcpu().wants_registers;
        assert_eq!(wants, wanted, "{breakpoints:?}, {action:?}, {debugger:?}");
    }
}

#[test]
fn an_entry_is_plain_if_nothing_steps_and_no_breakpoint_is_armed() {
    use VpAction::Run;
    use VpAction::Step;
    let address = CODE + 8;
    for (breakpoints, action, wanted) in [
        (&[][..], Run, true),
        (&[], Step, false),
        (&[(BreakpointKind::Execute, address)], Run, false),
        (&[(BreakpointKind::Software, address)], Run, false),
    ] {
        let mut guest = Guest::new(breakpoints);
        let entry = guest.entry(action, AtBreakpoint::NEW);
        let mut run = guest.vp.begin(&entry);
        assert_eq!(guest.vp.before_run(&mut run), Turn::Run);
        let plain = guest.vp.is_plain(&run);
        assert_eq!(plain, wanted, "{breakpoints:?}, {action:?}");
    }
}

/// The device access of the last exit is completed without the guest, so the entry needs work.
#[test]
fn an_entry_that_only_completes_an_access_is_not_plain() {
    let mut guest = Guest::new(&[]);
    let entry = guest.entry(VpAction::Run, AtBreakpoint::NEW);
    let mut run = guest.vp.begin(&entry);
    assert_eq!(guest.vp.before_run(&mut run), Turn::Run);
    guest.vp.after_run(Exit::Device, &mut run);
    let _ = guest.gate.kick();
    assert_eq!(guest.vp.before_run(&mut run), Turn::Run);
    assert!(!guest.vp.is_plain(&run));
}

#[test]
fn a_halted_vp_waits_until_it_is_kicked() {
    let mut guest = Guest::new(&[]);
    let entry = guest.entry(VpAction::Run, AtBreakpoint::NEW);
    let mut run = guest.vp.begin(&entry);
    assert_eq!(guest.vp.before_run(&mut run), Turn::Run);
    guest.vp.after_run(Exit::Halted, &mut run);
    assert_eq!(guest.vp.before_run(&mut run), Turn::WaitForKick);
    assert_eq!(guest.vp.before_run(&mut run), Turn::WaitForKick);
    let _ = guest.gate.kick();
    let turn = guest.vp.before_run(&mut run);
    assert!(matches!(turn, Turn::Parked(parked) if parked.cause.is_none()));
}

#[test]
fn a_vp_that_was_kicked_does_not_step_over_hlt() {
    let mut guest = Guest::new(&[]);
    guest.write(CODE, &[HLT]);
    let entry = guest.entry(VpAction::Step, AtBreakpoint::NEW);
    let mut run = guest.vp.begin(&entry);
    let _ = guest.gate.kick();
    let turn = guest.vp.before_run(&mut run);
    assert!(matches!(turn, Turn::Parked(parked) if parked.cause.is_none()));
    assert_eq!(guest.vcpu().registers.general.rip, CODE);
}

#[test]
fn a_step_leaves_the_resume_flag_clear() {
    let mut guest = Guest::new(&[]);
    let executed = Scripted::Debug { vector: 1, dr6: BS };
    guest.step([executed.leaves_at(CODE + 1)]);
    assert_eq!(guest.vcpu().registers.general.rflags & RF, 0);
}

/// Some KVMs report a breakpoint byte as a failed emulation.
#[test]
fn a_run_ends_by_an_event_of_the_guest_and_not_by_a_breakpoint_that_looks_like_a_failure() {
    let failed = Exit::Failed(CrashCause::Internal {
        suberror: KVM_INTERNAL_ERROR_EMULATION,
    });
    let shutdown = Exit::Shutdown(FaultRegisters::Kept);
    for (exit, rip, wanted) in [
        (shutdown, CODE, true),
        (failed, CODE, true),
        (failed, CODE + 8, false),
        (Exit::Device, CODE, false),
    ] {
        let mut guest = Guest::new(&[(BreakpointKind::Software, CODE + 8)]);
        let entry = guest.entry(VpAction::Run, AtBreakpoint::NEW);
        let mut run = guest.vp.begin(&entry);
        assert_eq!(guest.vp.before_run(&mut run), Turn::Run);
        guest.vcpu().registers.general.rip = rip;
        guest.vp.after_run(exit, &mut run);
        let ends = guest.vp.ends_by_guest_event(&run);
        assert_eq!(ends, wanted, "{exit:?} at {rip:#x}");
    }
}

/// A VP that waits for its start-up message executes nothing when it enters, so a step of it is done at once.
#[test]
fn a_vp_that_waits_for_its_start_still_waits_after_an_entry() {
    let mut guest = Guest::new(&[]);
    guest.vcpu().activity = VpActivity::WaitingForStart;
    guest.run([Scripted::Interrupted.leaves_at(CODE)]);
    guest.gate.clear();
    guest.vcpu().told.clear();
    let parked = guest.step([]);
    let stepped = DebugStopReason::SingleStep { vp: VP };
    assert_eq!(parked.cause, Some(Cause::Debug(stepped)));
    assert!(!guest.vcpu().told.contains(&Told::Run));
}
