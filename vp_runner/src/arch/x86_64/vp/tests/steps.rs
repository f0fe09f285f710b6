//! Several steps in one entry: each instruction counts once, whatever stops the VP.

use super::fake_vcpu::Scripted;
use super::*;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use std::num::NonZeroU64;
use vmm_core_defs::stop::DebugStopReason;

const BS: u64 = 1 << 14;
const DB: u32 = 1;
const BP: u32 = 3;
const CLIENTS: u64 = CODE + 0x10;
const REGISTER: u64 = CODE + 0x20;
const WATCHED: u64 = 0x5000;

/// A software breakpoint, a hardware breakpoint and a watchpoint.
fn debugged() -> Guest {
    Guest::new(&[
        (BreakpointKind::Execute, REGISTER),
        (BreakpointKind::Write, WATCHED),
        (BreakpointKind::Software, CLIENTS),
    ])
}

fn debug(vector: u32, dr6: u64) -> Scripted {
    Scripted::Debug { vector, dr6 }
}

/// A finished step.
fn one(rip: u64) -> Stay {
    debug(DB, BS).leaves_at(rip)
}

/// Steps three instructions.
fn three(guest: &mut Guest, script: impl IntoIterator<Item = Stay>) -> (Option<Cause>, u64) {
    let count = NonZeroU64::new(3).unwrap();
    let parked = guest.enter(VpAction::StepN { count }, AtBreakpoint::NEW, script);
    (parked.cause, parked.steps)
}

const STEPPED: Option<Cause> = Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP }));

#[test]
fn the_last_step_ends_the_entry() {
    // `inc eax` and `nop`.
    for code in [&[0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0][..], &[]] {
        let mut guest = debugged();
        guest.write(CODE, code);
        let script = [one(CODE + 2), one(CODE + 4), one(CODE + 6)];
        assert_eq!(three(&mut guest, script), (STEPPED, 3), "{code:x?}");
    }
}

#[test]
fn a_vp_that_is_kicked_says_how_many_steps_it_has_made() {
    for code in [&[0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0][..], &[]] {
        let mut guest = debugged();
        guest.write(CODE, code);
        let gate = guest.gate.clone();
        let kicked = debug(DB, BS).after(move |vcpu| {
            vcpu.registers.general.rip = CODE + 4;
            let _ = gate.kick();
        });
        let script = [one(CODE + 2), kicked];
        assert_eq!(three(&mut guest, script), (None, 2), "{code:x?}");
    }
}

#[test]
fn a_breakpoint_counts_the_step_that_led_to_it_and_not_its_own_instruction() {
    let watched = hit(BreakpointKind::Write, WATCHED);
    let executed = hit(BreakpointKind::Execute, REGISTER);
    let byte = hit(BreakpointKind::Software, CLIENTS);
    for (last, cause, steps) in [
        (debug(DB, BS | 0b10).leaves_at(CODE + 2), watched, 2),
        (debug(DB, 0b10).leaves_at(CODE + 2), watched, 2),
        // Together with its step, and before an instruction.
        (debug(DB, BS | 0b01).leaves_at(REGISTER), executed, 2),
        (debug(DB, 0b01).leaves_at(CODE + 1), executed, 1),
        // The instruction before the byte has blocked its own trap.
        (debug(BP, 0).leaves_at(CLIENTS), byte, 2),
    ] {
        let mut guest = debugged();
        assert_eq!(three(&mut guest, [one(CODE + 1), last]), (cause, steps));
    }
    let mut guest = debugged();
    let script = [one(CLIENTS), debug(BP, 0).leaves_at(CLIENTS)];
    assert_eq!(three(&mut guest, script), (byte, 1), "at the byte");
}

/// KVM reports the step of an instruction with I/O when it completes the I/O, or does not report the step.
#[test]
fn an_access_to_a_device_counts_once() {
    let io = |port| Scripted::PioWrite { port }.leaves_at(CODE + 1);
    let reported = one(CODE + 1).completing();
    let more = || [one(CODE + 2), one(CODE + 3)];
    for completion in [Some(reported), None] {
        let mut guest = debugged();
        let script = [io(0x80)].into_iter().chain(completion).chain(more());
        assert_eq!(three(&mut guest, script), (STEPPED, 3));
        assert_eq!(guest.vcpu().registers.general.rip, CODE + 3);
    }
    let reset = Some(Cause::Guest(GuestEvent::Reset { vp: Some(VP) }));
    let mut guest = debugged();
    assert_eq!(three(&mut guest, [io(RESET_PORT)]), (reset, 1));
}
