//! Whose a debug exception is: the debugger's or the guest's.

use super::fake_vcpu::Scripted;
use super::fake_vcpu::Told;
use super::*;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::control::run_state::Cause;
use vmm_core_defs::stop::DebugStopReason;

const DB: u32 = 1;
/// DR6.BD.
const BD: u64 = 1 << 13;
/// DR6.BS.
const BS: u64 = 1 << 14;
/// RFLAGS.TF.
const TF: u64 = 1 << 8;
/// RFLAGS.RF.
const RF: u64 = 1 << 16;
const PUSHF: u8 = 0x9c;
const SITE: u64 = CODE + 8;

fn debug(dr6: u64) -> Scripted {
    Scripted::Debug { vector: DB, dr6 }
}

fn stepped() -> Option<Cause> {
    Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP }))
}

fn hit(kind: BreakpointKind) -> Option<Cause> {
    let breakpoint = breakpoint(kind, SITE);
    Some(Cause::Debug(DebugStopReason::Breakpoint {
        vp: VP,
        breakpoint,
    }))
}

/// The debug exceptions that the guest got.
fn given(guest: &mut Guest) -> Vec<DebugPayload> {
    let told = guest.vcpu().told.drain(..);
    told.filter_map(|told| match told {
        Told::InjectDebug(payload) => Some(payload),
        _ => None,
    })
    .collect()
}

/// The step over `pushf` has a trap behind the instruction. A guest that steps itself gets its own exception there, and the step is done as well.
#[test]
fn the_guests_own_step_counts_where_the_trap_of_a_step_fires_too() {
    for (flags, dr6, own) in [
        (0x202, 0b1, None),
        (0x202 | TF, 0b1 | BS, Some(DebugPayload::SINGLE_STEP)),
    ] {
        let mut guest = Guest::new(&[]);
        guest.write(CODE, &[PUSHF]);
        guest.vcpu().registers.general.rflags = flags;
        let parked = guest.step([debug(dr6).leaves_at(CODE + 1)]);
        assert_eq!(parked.cause, stepped(), "{dr6:#x}");
        assert_eq!(given(&mut guest), Vec::from_iter(own), "{dr6:#x}");
    }
}

#[test]
fn rflags_rf_passes_a_breakpoint_on_hosts_that_ignore_it() {
    for (flags, cause) in [(0x202, hit(BreakpointKind::Execute)), (0x202 | RF, None)] {
        let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
        let met = debug(0b1).after(move |vcpu| {
            vcpu.registers.general.rip = SITE;
            vcpu.registers.general.rflags = flags;
        });
        let parked = guest.run([met]);
        assert_eq!(parked.cause, cause, "{flags:#x}");
        assert_eq!(given(&mut guest), []);
    }
}

#[test]
fn an_access_to_a_debug_register_is_let_through_unless_the_guest_asked_for_the_exception() {
    for (dr7, wanted) in [(0x400, vec![]), (0x400 | 1 << 13, vec![DebugPayload(BD)])] {
        let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
        guest.vcpu().guest_registers.dr7 = dr7;
        let parked = guest.run([debug(BD).leaves_at(CODE + 1)]);
        assert_eq!(parked.cause, None, "{dr7:#x}");
        assert_eq!(given(&mut guest), wanted, "{dr7:#x}");
    }
}
