//! Whose a debug exception is: the debugger's or the guest's.

use super::fake_vcpu::Scripted;
use super::fake_vcpu::Stay;
use super::fake_vcpu::Told;
use super::*;
use crate::arch::x86_64::debug_registers::RegisterAccess;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::stop_cause::SingleStepping;
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
        (0x202 | TF, BS, Some(DebugPayload::SINGLE_STEP)),
    ] {
        let mut guest = Guest::new(&[]);
        guest.write(CODE, &[PUSHF]);
        guest.vcpu().registers.general.rflags = flags;
        let parked = guest.step([debug(dr6).leaves_at(CODE + 1)]);
        assert_eq!(parked.cause, stepped(), "{dr6:#x}");
        let told = &guest.vcpu().told;
        let entries = told.iter().filter(|told| **told == Told::Run).count();
        assert_eq!(entries, 1, "{dr6:#x}: the handler is no part of the step");
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

/// The traps of a step are debug registers of this debugger too, so an access is reported while they are set.
#[test]
fn a_step_over_an_access_to_a_debug_register_is_let_through_where_only_the_step_has_registers() {
    const PAGE_FAULT: u64 = 14;
    for breakpoints in [&[][..], &[(BreakpointKind::Execute, SITE)]] {
        let mut guest = Guest::new(breakpoints);
        // mov eax, dr6
        guest.write(CODE, &[0x0f, 0x21, 0xf0]);
        // An interrupt gate of 32 bits, to 2000h (SDM volume 3, "IDT Descriptors").
        guest.write(IDT + 8 * PAGE_FAULT, &[0, 0x20, 8, 0, 0, 0x8e, 0, 0]);
        let system = &mut guest.vcpu().registers.system;
        (system.idt.base, system.idt.limit) = (IDT, 0x7ff);
        let parked = guest.step([debug(BD).leaves_at(CODE), debug(BS).leaves_at(CODE + 3)]);
        assert_eq!(parked.cause, stepped());
        let programmed = guest.vcpu().told.iter().filter_map(|told| match told {
            Told::Program(state) => Some((state.registers.access(), state.registers.is_guests())),
            _ => None,
        });
        let wanted = [
            (RegisterAccess::Reported, false),
            (RegisterAccess::Emulated, false),
        ];
        assert!(programmed.eq(wanted), "{:?}", guest.vcpu().told);
    }
}

/// The page at this address belongs to two processes, with different memory. The process with [`FIRST_ROOT`] maps the page after its breakpoint was set there.
const PAGE: u64 = 0x5000;
const FIRST_ROOT: u64 = 0xa000;
const SECOND_ROOT: u64 = 0xc000;

fn in_process(root: u64) -> PagingState {
    let cr0 = NO_PAGING.cr0 | 1 << 31;
    PagingState {
        cr0,
        cr3: root,
        ..NO_PAGING
    }
}

/// A guest with two processes. A software breakpoint of the first process at [`PAGE`] has debug register 1, because the page was not mapped.
fn two_processes() -> Guest {
    let breakpoints = [
        (BreakpointKind::Execute, CODE),
        (BreakpointKind::Software, PAGE),
    ];
    let time = Timekeeper::without_clocks();
    let guest = Guest::with_paging(&breakpoints, time, in_process(FIRST_ROOT));
    let present = |page: u64| (u32::try_from(page).unwrap() | 1).to_le_bytes();
    for (root, page) in [(FIRST_ROOT, PAGE), (SECOND_ROOT, PAGE + 0x1000)] {
        let table = root + 0x1000;
        guest.write(root, &present(table));
        guest.write(table + 4 * (PAGE >> 12), &present(page));
    }
    guest
}

/// The VP meets debug register 1 in this process.
fn met_in(root: u64, dr6: u64) -> Stay {
    debug(dr6).after(move |vcpu| {
        vcpu.registers.general.rip = PAGE;
        vcpu.registers.system.cr0 = in_process(root).cr0;
        vcpu.registers.system.cr3 = root;
    })
}

#[test]
fn a_breakpoint_of_one_process_passes_another_process_in_silence() {
    let own = breakpoint(BreakpointKind::Software, PAGE);
    let hit = Some(Cause::Debug(DebugStopReason::Breakpoint {
        vp: VP,
        breakpoint: own,
    }));
    let mut guest = two_processes();
    let parked = guest.run([met_in(FIRST_ROOT, 0b10)]);
    assert_eq!(parked.cause, hit);

    let mut guest = two_processes();
    let parked = guest.run([met_in(SECOND_ROOT, 0b10)]);
    assert_eq!(parked.cause, None);
    assert_eq!(given(&mut guest), []);
}

/// The VP passes the register, and only that register, for one instruction.
#[test]
fn the_register_of_another_process_is_off_for_one_instruction() {
    let mut guest = two_processes();
    guest.run([met_in(SECOND_ROOT, 0b10)]);
    let told = &guest.vcpu().told;
    let entries: Vec<_> = told
        .split(|told| *told == Told::Run)
        .map(|before| before.iter().rev().find_map(programmed))
        .collect();
    let (all, first) = (0b11, 0b01);
    assert_eq!(
        entries[..2],
        [
            Some((all, SingleStepping::Off)),
            Some((first, SingleStepping::On))
        ],
        "{told:?}"
    );
}

/// The debug registers that a call switches on, and whether the vCPU steps.
fn programmed(told: &Told) -> Option<(u64, SingleStepping)> {
    let Told::Program(state) = told else {
        return None;
    };
    let dr7 = state.registers.programmed().map_or(0, |(_, dr7)| dr7);
    let on = (0..4).filter(|slot| dr7 >> (2 * slot) & 0b11 != 0);
    Some((on.fold(0, |all, slot| all | 1 << slot), state.stepping))
}

/// Some CPUs report a breakpoint together with the step that led to the breakpoint.
#[test]
fn a_step_to_a_breakpoint_of_another_process_is_done() {
    let mut guest = two_processes();
    let parked = guest.step([met_in(SECOND_ROOT, 0b10 | BS)]);
    assert_eq!(parked.cause, stepped());
    assert_eq!(given(&mut guest), []);
}
