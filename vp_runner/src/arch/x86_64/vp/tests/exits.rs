//! The causes of stops: the table of exits and causes, two causes at once, and an exit while another exit is completed.

use super::fake_vcpu::Scripted;
use super::fake_vcpu::Told;
use super::*;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::Others;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;

const BS: u64 = 1 << 14;
const DB: u32 = 1;
const BP: u32 = 3;
/// The address of another instruction of the guest.
const THERE: u64 = CODE + 0x10;
const WATCHED: u64 = 0x5000;
const EMULATION_FAILED: CrashCause = CrashCause::Internal {
    suberror: KVM_INTERNAL_ERROR_EMULATION,
};

fn debug(vector: u32, dr6: u64) -> Scripted {
    Scripted::Debug { vector, dr6 }
}

fn breakpoint_stop(kind: BreakpointKind, address: u64) -> Option<Cause> {
    let breakpoint = breakpoint(kind, address);
    Some(Cause::Debug(DebugStopReason::Breakpoint {
        vp: VP,
        breakpoint,
    }))
}

fn watchpoint_stop() -> Option<Cause> {
    let breakpoint = breakpoint(BreakpointKind::Write, WATCHED);
    Some(Cause::Debug(DebugStopReason::Watchpoint {
        vp: VP,
        breakpoint,
        address: breakpoint.address,
    }))
}

fn stepped() -> Option<Cause> {
    Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP }))
}

fn event(event: GuestEvent) -> Option<Cause> {
    Some(Cause::Guest(event))
}

/// The `#DB` and `#BP` exceptions that the guest got.
fn given(guest: &mut Guest) -> Vec<Told> {
    let told = std::mem::take(&mut guest.vcpu().told);
    let given = |told: &Told| matches!(told, Told::InjectDebug(_) | Told::InjectBreakpoint);
    told.into_iter().filter(given).collect()
}

/// A software breakpoint at [`THERE`], a hardware breakpoint behind it, and a watchpoint.
fn debugged() -> Guest {
    Guest::new(&[
        (BreakpointKind::Execute, THERE + 1),
        (BreakpointKind::Write, WATCHED),
        (BreakpointKind::Software, THERE),
    ])
}

#[test]
fn each_exit_of_a_guest_that_runs_has_its_cause() {
    let reset = GuestEvent::Reset { vp: Some(VP) };
    let triple_fault = GuestEvent::TripleFault {
        vp: VP,
        registers: FaultRegisters::Kept,
    };
    let crashed = |cause| event(GuestEvent::Crashed { vp: VP, cause });
    let unknown = CrashCause::UnknownExit { reason: 77 };
    let table = [
        (
            debug(BP, 0),
            THERE,
            breakpoint_stop(BreakpointKind::Software, THERE),
        ),
        (
            Scripted::Failed(EMULATION_FAILED),
            THERE,
            breakpoint_stop(BreakpointKind::Software, THERE),
        ),
        (
            debug(DB, 0b01),
            THERE + 1,
            breakpoint_stop(BreakpointKind::Execute, THERE + 1),
        ),
        (debug(DB, 0b10), CODE + 3, watchpoint_stop()),
        (Scripted::Shutdown, CODE + 1, event(triple_fault)),
        (Scripted::SystemReset, CODE + 1, event(reset)),
        (
            Scripted::PioWrite { port: RESET_PORT },
            CODE + 1,
            event(reset),
        ),
        (
            Scripted::SystemPowerOff,
            CODE + 1,
            event(GuestEvent::PowerOff { vp: Some(VP) }),
        ),
        (
            Scripted::SystemCrash,
            CODE + 1,
            event(GuestEvent::Panicked { vp: VP }),
        ),
        (
            Scripted::Failed(EMULATION_FAILED),
            CODE + 1,
            crashed(EMULATION_FAILED),
        ),
        (Scripted::Failed(unknown), THERE, crashed(unknown)),
    ];
    for (exit, rip, cause) in table {
        let mut guest = debugged();
        let parked = guest.run([exit.leaves_at(rip)]);
        assert_eq!(parked.cause, cause, "{exit:?} at {rip:#x}");
        assert_eq!(given(&mut guest), [], "{exit:?} at {rip:#x}");
        assert_eq!(parked.location.map(|at| at.rip), Some(Gva::new(rip)));
    }
}

#[test]
fn exits_that_are_not_stops_let_the_guest_go_on_until_it_is_kicked() {
    for exit in [
        Scripted::PioWrite { port: 0x80 },
        Scripted::MmioRead,
        Scripted::Interrupted,
        Scripted::Nothing,
    ] {
        let mut guest = debugged();
        let parked = guest.run([exit.leaves_at(CODE + 1), exit.leaves_at(CODE + 2)]);
        assert_eq!(parked.cause, None, "{exit:?}");
        assert!(guest.vcpu().script.is_empty(), "{exit:?}");
    }
}

#[test]
fn the_guests_own_exceptions_are_given_back() {
    for (exit, rip, wanted) in [
        // The guest's own INT3, its trap flag, its ICEBP.
        (debug(BP, 0), CODE + 1, Told::InjectBreakpoint),
        (
            debug(DB, BS),
            CODE + 1,
            Told::InjectDebug(DebugPayload::SINGLE_STEP),
        ),
        (debug(DB, 0), CODE + 1, Told::InjectDebug(DebugPayload(0))),
    ] {
        let mut guest = debugged();
        let parked = guest.run([exit.leaves_at(rip)]);
        assert_eq!(parked.cause, None, "{exit:?}");
        assert_eq!(given(&mut guest), [wanted], "{exit:?}");
    }
}

#[test]
fn the_guests_own_breakpoint_is_given_back_by_its_own_number() {
    let mut guest = debugged();
    // The debugger has DR0, so the guest's DR0 is in DR2 or DR3.
    guest.vcpu().guest_registers.db[0] = CODE + 4;
    guest.vcpu().guest_registers.dr7 = 0x402;
    let parked = guest.run([debug(DB, 0b100).leaves_at(CODE + 4)]);
    assert_eq!(parked.cause, None);
    assert_eq!(given(&mut guest), [Told::InjectDebug(DebugPayload(1))]);
    assert_eq!(parked.guest_registers, Some(1));
}

#[test]
fn a_breakpoint_that_the_guest_has_disabled_meanwhile_is_given_to_nobody() {
    let mut guest = debugged();
    guest.vcpu().guest_registers.db[3] = CODE + 4;
    guest.vcpu().guest_registers.dr7 = 0x400 | 0b10 << 6;
    let met = debug(DB, 0b1000).after(|vcpu| {
        vcpu.guest_registers.dr7 = 0x400;
        vcpu.registers.general.rip = CODE + 4;
    });
    let parked = guest.run([met, debug(DB, 0b10).leaves_at(CODE + 5)]);
    assert_eq!(parked.cause, watchpoint_stop());
    assert_eq!(given(&mut guest), []);
}

#[test]
fn an_exception_of_the_guests_own_does_not_end_a_step() {
    let mut guest = debugged();
    guest.write(CODE, &[0xf1]);
    let parked = guest.step([
        debug(DB, 0).leaves_at(CODE),
        debug(DB, BS).leaves_at(CODE + 2),
    ]);
    assert_eq!(parked.cause, stepped());
    assert!(guest.vcpu().script.is_empty());
    assert_eq!(given(&mut guest), [Told::InjectDebug(DebugPayload(0))]);
}

#[test]
fn a_step_over_pushf_goes_without_the_trap_flag_to_the_trap_behind_it() {
    let mut guest = debugged();
    guest.write(CODE, &[0x9c]);
    // The client has DR0 and DR1.
    let parked = guest.step([debug(DB, 0b100).leaves_at(CODE + 1)]);
    assert_eq!(parked.cause, stepped());
    let programmed = guest.vcpu().told.iter().find_map(|told| match told {
        Told::Program(state) => Some(*state),
        _ => None,
    });
    let state = programmed.unwrap();
    assert_eq!(state.stepping, SingleStepping::Off);
    assert!(state.registers.executes_at(Gva::new(CODE + 1)));
}

#[test]
fn a_step_whose_trap_a_signal_hides_is_done() {
    let mut guest = debugged();
    guest.write(CODE, &[0x9c]);
    let parked = guest.step([Scripted::Interrupted.leaves_at(CODE + 1)]);
    assert_eq!(parked.cause, stepped());
}

#[test]
fn a_trap_flag_that_a_step_has_pushed_is_taken_out_of_memory() {
    // No debug register is free for a trap behind the instruction.
    let watched = [0x5000, 0x5100, 0x5200, 0x5300].map(|at| (BreakpointKind::Write, at));
    let mut guest = Guest::new(&watched);
    guest.write(CODE, &[0x9c]);
    let ram = guest.ram.clone();
    let pushed = debug(DB, BS).after(move |vcpu| {
        let image = GuestAddress(STACK - 4);
        ram.backing().write_obj(0x302_u32, image).unwrap();
        let general = &mut vcpu.registers.general;
        (general.rip, general.rsp) = (CODE + 1, STACK - 4);
    });
    let parked = guest.step([pushed]);
    assert_eq!(parked.cause, stepped());
    assert_eq!(guest.byte(STACK - 3), 0x02);
}

#[test]
fn rip_is_moved_behind_an_icebp_and_behind_nothing_else() {
    for (left_at, then) in [(CODE, CODE + 1), (CODE + 1, CODE + 1)] {
        let mut guest = debugged();
        guest.write(CODE, &[0xf1]);
        let parked = guest.run([debug(DB, 0).leaves_at(left_at)]);
        assert_eq!(parked.cause, None);
        assert_eq!(guest.vcpu().registers.general.rip, then);
    }
}

#[test]
fn a_breakpoint_exception_of_the_guests_own_is_taken_back_where_it_was_not_delivered() {
    for (rip, taken_back) in [(CODE + 1, 1), (0x3000, 0)] {
        let mut guest = debugged();
        let int3 = debug(BP, 0).leaves_at(CODE + 1);
        let parked = guest.run([int3, Scripted::Interrupted.leaves_at(rip)]);
        assert_eq!(parked.cause, None);
        let told = &guest.vcpu().told;
        let dropped = told.iter().filter(|told| **told == Told::DropSoftException);
        assert_eq!(dropped.count(), taken_back, "{rip:#x}: {told:?}");
    }
}

#[test]
fn of_two_causes_at_once_the_breakpoint_is_reported_and_the_guest_gets_its_part() {
    // A step alone, with the client's watchpoint, with the guest's own watchpoint, and with both.
    let guests = Told::InjectDebug(DebugPayload(0b1000));
    for (dr6, cause, wanted) in [
        (BS, stepped(), None),
        (BS | 0b10, watchpoint_stop(), None),
        (BS | 0b1000, stepped(), Some(guests)),
        (BS | 0b1010, watchpoint_stop(), Some(guests)),
    ] {
        let mut guest = debugged();
        guest.vcpu().guest_registers.db[3] = 0x6000;
        // A write watchpoint of one byte, enabled by its G bit.
        guest.vcpu().guest_registers.dr7 = 0x400 | 0b10 << 6 | 0b01 << 28;
        let parked = guest.step([debug(DB, dr6).leaves_at(CODE + 1)]);
        assert_eq!(parked.cause, cause, "{dr6:#x}");
        assert_eq!(given(&mut guest), Vec::from_iter(wanted), "{dr6:#x}");
    }
}

#[test]
fn an_exit_that_completing_io_brings_is_not_lost() {
    let io = || Scripted::PioWrite { port: 0x80 }.leaves_at(CODE + 1);
    let reset = event(GuestEvent::Reset { vp: Some(VP) });
    for (completion, cause) in [
        (None, stepped()),
        (Some(debug(DB, 0b10)), watchpoint_stop()),
        (Some(Scripted::SystemReset), reset),
        // A string instruction writes again.
        (Some(Scripted::PioWrite { port: 0x80 }), stepped()),
        (Some(Scripted::PioWrite { port: RESET_PORT }), reset),
    ] {
        let mut guest = debugged();
        let then = completion.map(|exit| exit.leaves_at(CODE + 1).completing());
        let parked = guest.step([io()].into_iter().chain(then));
        assert_eq!(parked.cause, cause, "{completion:?}");
        assert_eq!(guest.vcpu().told.last(), Some(&Told::Complete));
    }
}

#[test]
fn a_guest_event_outweighs_the_breakpoint_that_came_with_io() {
    let mut guest = debugged();
    let parked = guest.run([
        Scripted::PioWrite { port: RESET_PORT }.leaves_at(CODE + 1),
        debug(DB, 0b10).leaves_at(CODE + 1).completing(),
    ]);
    let reset = event(GuestEvent::Reset { vp: Some(VP) });
    assert_eq!(parked.cause, reset);
    assert_eq!(guest.vcpu().told.last(), Some(&Told::Complete));
}

#[test]
fn io_is_completed_before_a_kicked_vp_parks() {
    let mut guest = debugged();
    let gate = guest.vp.gate.clone();
    let io = Scripted::MmioRead.after(move |vcpu| {
        vcpu.registers.general.rip = CODE + 2;
        let _ = gate.kick();
    });
    let parked = guest.run([io]);
    assert_eq!(parked.cause, None);
    let told = &guest.vcpu().told;
    assert_eq!(told.last(), Some(&Told::Complete), "{told:?}");
    assert_eq!(told.iter().filter(|told| **told == Told::Run).count(), 1);
}

#[test]
fn a_guest_that_halts_ends_a_step_and_lets_a_run_wait_for_the_kick() {
    for (action, cause) in [(VpAction::Step, stepped()), (VpAction::Run, None)] {
        let mut guest = debugged();
        let gate = guest.vp.gate.clone();
        let halts = Scripted::Halted.after(move |vcpu| {
            vcpu.registers.general.rip = CODE + 1;
            let _ = gate.kick();
        });
        let parked = guest.enter(action, AtBreakpoint::NEW, [halts]);
        assert_eq!(parked.cause, cause, "{action:?}");
        assert_eq!(guest.vp.activity(), Ok(VpActivity::Halted));
    }
}

#[test]
fn a_halted_vp_is_woken_by_another_next_instruction_and_by_no_other_base_of_it() {
    let mut guest = debugged();
    let halts = Scripted::Halted.leaves_at(CODE + 1);
    guest.run([halts]);
    let halted = guest.vp.read_registers().unwrap();
    let mut same = (*halted).clone();
    same.cs.base += 0x10;
    same.rip -= 0x10;
    guest.vp.write_registers(&same).unwrap();
    assert_eq!(guest.vp.activity(), Ok(VpActivity::Halted));
    let mut other = same;
    other.rip += 1;
    guest.vp.write_registers(&other).unwrap();
    assert_eq!(guest.vp.activity(), Ok(VpActivity::Stopped));
}

/// The decision of run control for a VP at the software breakpoint whose stop was reported.
fn passing(emulation: Emulation, others: Others) -> AtBreakpoint {
    let mut at = AtBreakpoint::NEW;
    at.reported();
    let byte = ByteAtRip {
        of: ByteOf::ThisAddress,
        emulation,
    };
    at.decide(Some(byte), others);
    at
}

#[test]
fn a_byte_is_lifted_for_one_instruction_and_is_back_when_the_vp_parks() {
    let mut guest = debugged();
    let ram = guest.ram.clone();
    guest.vcpu().registers.general.rip = THERE;
    let at = passing(Emulation::Impossible, Others::StayParked);
    let seen = Arc::new(AtomicU64::new(0));
    let noted = seen.clone();
    let executed = debug(DB, BS).after(move |vcpu| {
        let byte: u8 = ram.backing().read_obj(GuestAddress(THERE)).unwrap();
        noted.store(byte.into(), Ordering::Relaxed);
        vcpu.registers.general.rip = THERE + 1;
    });
    let parked = guest.enter(VpAction::Step, at, [executed]);
    assert_eq!(parked.cause, stepped());
    assert_eq!(seen.load(Ordering::Relaxed), u64::from(NOP));
    assert_eq!(guest.byte(THERE), 0xcc);
}

#[test]
fn an_instruction_that_is_carried_out_leaves_its_byte_in_place() {
    let mut guest = debugged();
    guest.vcpu().registers.general.rip = THERE;
    let at = passing(Emulation::Possible, Others::Move);
    let parked = guest.enter(VpAction::Step, at, []);
    assert_eq!(parked.cause, stepped());
    assert_eq!(guest.vcpu().registers.general.rip, THERE + 1);
    assert_eq!(guest.byte(THERE), 0xcc);
    let ran = |told: &Told| matches!(told, Told::Run);
    assert!(!guest.vcpu().told.iter().any(ran));
}

#[test]
fn an_instruction_that_cannot_be_carried_out_parks_the_vp_unreported() {
    let mut guest = debugged();
    // The breakpoint's byte is on a `clc`, which the runner cannot carry out.
    let patched = guest.breakpoints.clone();
    patched
        .write()
        .unwrap()
        .bytes
        .overlay_write(Gpa::new(THERE), &[0xf8], |_| 1);
    guest.vcpu().registers.general.rip = THERE;
    let at = passing(Emulation::Possible, Others::Move);
    let parked = guest.enter(VpAction::Run, at, []);
    assert_eq!(parked.cause, Some(Cause::NotReported));
    assert_eq!(guest.vcpu().registers.general.rip, THERE);
}

#[test]
fn a_step_over_hlt_halts_the_vp_without_entering_the_guest() {
    let mut guest = debugged();
    guest.write(CODE, &[0xf4]);
    let parked = guest.step([]);
    assert_eq!(parked.cause, stepped());
    assert_eq!(guest.vcpu().activity, VpActivity::Halted);
    assert_eq!(guest.vcpu().registers.general.rip, CODE + 1);
    assert!(!guest.vcpu().told.contains(&Told::Run));
}

#[test]
fn a_step_that_a_signal_cuts_short_is_made_again() {
    let mut guest = debugged();
    let parked = guest.step([
        Scripted::Interrupted.leaves_at(CODE),
        debug(DB, BS).leaves_at(CODE + 1),
    ]);
    assert_eq!(parked.cause, stepped());
    let stepping =
        |told: &Told| matches!(told, Told::Program(state) if state.stepping == SingleStepping::On);
    assert_eq!(
        guest
            .vcpu()
            .told
            .iter()
            .filter(|told| stepping(told))
            .count(),
        2
    );
}

#[test]
fn a_triple_fault_on_a_breakpoint_leaves_the_byte_and_the_right_to_meet_it() {
    let mut guest = debugged();
    guest.vcpu().registers.general.rip = THERE;
    let at = passing(Emulation::Impossible, Others::StayParked);
    let parked = guest.enter(VpAction::Run, at, [Scripted::Shutdown.leaves_at(THERE)]);
    let fault = GuestEvent::TripleFault {
        vp: VP,
        registers: FaultRegisters::Kept,
    };
    assert_eq!(parked.cause, event(fault));
    assert_eq!(guest.byte(THERE), 0xcc);
    assert!(!parked.at.may_pass());
}
