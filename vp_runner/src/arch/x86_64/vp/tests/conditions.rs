//! Conditions of breakpoints: what a VP does at a breakpoint of which no condition holds.

use super::fake_vcpu::Scripted;
use super::fake_vcpu::Told;
use super::*;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::at_breakpoint::Others;
use crate::control::run_state::Cause;
use agent_expr::Expr;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Printf;
use futures::FutureExt as _;
use mesh::rpc::Rpc;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::stop::DebugStopReason;

const DB: u32 = 1;
const BP: u32 = 3;
/// DR6.BS.
const BS: u64 = 1 << 14;
const SITE: u64 = CODE + 8;
const WATCHED: u64 = 0x5000;
const OTHER: u64 = 0x5100;

fn code(expression: Expression) -> Condition {
    Condition {
        code: expression.code().to_vec(),
    }
}

fn debug(vector: u32, dr6: u64) -> Scripted {
    Scripted::Debug { vector, dr6 }
}

impl Guest {
    /// The condition holds for no hit, or for each.
    fn condition(&self, kind: BreakpointKind, address: u64, holds: bool) {
        let condition = Expr::constant(holds.into()).assemble(Limits::default());
        self.set(BreakpointConditions {
            breakpoint: breakpoint(kind, address),
            conditions: vec![code(condition.unwrap())],
            commands: Vec::new(),
        });
    }

    /// Each hit prints "hit".
    fn prints(&self, kind: BreakpointKind, address: u64) {
        let text = Printf::new("hit", []).assemble(Limits::default());
        self.set(BreakpointConditions {
            breakpoint: breakpoint(kind, address),
            conditions: Vec::new(),
            commands: vec![code(text.unwrap())],
        });
    }

    fn printed(&self) -> Vec<u8> {
        let (reply, answer) = mesh::oneshot();
        let output = self.breakpoints.read().unwrap().output.clone();
        output.ask(Rpc((), reply), true);
        answer.now_or_never().unwrap().unwrap().unwrap()
    }

    fn set(&self, wanted: BreakpointConditions) {
        let mut breakpoints = self.breakpoints.write().unwrap();
        let Breakpoints {
            conditions,
            counts,
            output,
            ..
        } = &mut *breakpoints;
        conditions.set(&wanted, counts, output).unwrap();
    }

    /// Puts an instruction there that nobody carries out in place of the VP: `cpuid`.
    fn cpuid_at(&self, address: u64) {
        // The first byte may be under a breakpoint.
        let memory = self.vp.memory.by(NO_PAGING);
        memory.change_byte(Gva::new(address), |_| 0x0f).unwrap();
        self.write(address + 1, &[0xa2]);
    }

    /// The number of registers that are armed, in each entry.
    fn slots_of_entries(&mut self) -> Vec<usize> {
        let told = self.vcpu().told.iter().filter_map(|told| match told {
            Told::Program(state) => {
                let db = state.registers.programmed();
                Some(db.map_or(0, |(db, _)| db.iter().filter(|db| **db != 0).count()))
            }
            _ => None,
        });
        told.collect()
    }
}

const STEPPED: Option<Cause> = Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP }));

#[test]
fn a_debug_register_is_disarmed_for_one_instruction_and_armed_again() {
    let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
    guest.condition(BreakpointKind::Execute, SITE, false);
    guest.cpuid_at(SITE);
    let parked = guest.run([
        debug(DB, 1).leaves_at(SITE),
        debug(DB, BS).leaves_at(SITE + 2),
        Scripted::Interrupted.leaves_at(CODE),
    ]);
    assert_eq!(parked.cause, None);
    // The entries behind the third are like it.
    assert_eq!(guest.slots_of_entries()[..3], [1, 0, 1]);
    assert!(!parked.at.may_pass());
}

#[test]
fn a_vp_that_is_kicked_before_it_has_passed_passes_when_it_goes_on() {
    let byte = ByteAtRip {
        of: ByteOf::ThisAddress,
        emulation: Emulation::Impossible,
    };
    for kind in [BreakpointKind::Execute, BreakpointKind::Software] {
        let mut guest = Guest::new(&[(kind, SITE)]);
        guest.condition(kind, SITE, false);
        guest.cpuid_at(SITE);
        let gate = guest.gate.clone();
        let (vector, dr6) = match kind {
            BreakpointKind::Execute => (DB, 1),
            _ => (BP, 0),
        };
        let met = debug(vector, dr6).after(move |vcpu| {
            vcpu.registers.general.rip = SITE;
            let _ = gate.kick();
        });
        let mut parked = guest.run([met]);
        match kind {
            BreakpointKind::Execute => assert_eq!(parked.cause, None),
            _ => assert_eq!(parked.cause, Some(Cause::NotReported)),
        }
        assert!(parked.at.may_pass(), "{kind:?}");
        parked.at.decide(Some(byte), Others::Move);
        assert_eq!(parked.at.first(), FirstInstruction::OthersStopped);
    }
}

#[test]
fn an_instruction_under_a_byte_is_carried_out_with_the_byte_in_place() {
    let mut guest = Guest::new(&[(BreakpointKind::Software, SITE)]);
    guest.condition(BreakpointKind::Software, SITE, false);
    let parked = guest.run([
        debug(BP, 0).leaves_at(SITE),
        Scripted::Interrupted.after(|vcpu| assert_eq!(vcpu.registers.general.rip, SITE + 1)),
    ]);
    assert_eq!(parked.cause, None);
    assert!(!parked.at.may_pass());
    assert_eq!(guest.byte(SITE), 0xcc);
}

#[test]
fn a_condition_that_holds_is_a_stop() {
    for (kind, vector, dr6) in [
        (BreakpointKind::Execute, DB, 1),
        (BreakpointKind::Software, BP, 0),
    ] {
        let mut guest = Guest::new(&[(kind, SITE)]);
        guest.condition(kind, SITE, true);
        let parked = guest.run([debug(vector, dr6).leaves_at(SITE)]);
        assert_eq!(parked.cause, hit(kind, SITE));
    }
}

#[test]
fn of_two_registers_that_fire_the_one_whose_condition_holds_is_the_stop() {
    for (first, second, cause) in [
        (false, true, hit(BreakpointKind::Write, OTHER)),
        (true, false, hit(BreakpointKind::Write, WATCHED)),
        (true, true, hit(BreakpointKind::Write, WATCHED)),
        (false, false, None),
    ] {
        let breakpoints = [
            (BreakpointKind::Write, WATCHED),
            (BreakpointKind::Write, OTHER),
        ];
        let mut guest = Guest::new(&breakpoints);
        guest.condition(BreakpointKind::Write, WATCHED, first);
        guest.condition(BreakpointKind::Write, OTHER, second);
        let parked = guest.run([debug(DB, 0b11).leaves_at(SITE)]);
        assert_eq!(parked.cause, cause);
    }
}

/// A `nop` takes no entry of its own, with a byte or a debug register there.
#[test]
fn an_instruction_that_is_carried_out_needs_no_disarmed_register() {
    let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
    guest.condition(BreakpointKind::Execute, SITE, false);
    let parked = guest.run([
        debug(DB, 1).leaves_at(SITE),
        Scripted::Interrupted.leaves_at(CODE),
    ]);
    assert_eq!(parked.cause, None);
    assert_eq!(guest.slots_of_entries()[..2], [1, 1]);
    assert!(!parked.at.may_pass());
}

/// A debug register and a byte at one address: what one of them decides counts for both.
#[test]
fn of_two_breakpoints_at_one_address_the_one_whose_condition_holds_is_the_stop() {
    let kinds = [BreakpointKind::Execute, BreakpointKind::Software];
    for holds in [[true, true], [true, false], [false, true], [false, false]] {
        let mut guest = Guest::new(&kinds.map(|kind| (kind, SITE)));
        for (kind, holds) in kinds.into_iter().zip(holds) {
            guest.condition(kind, SITE, holds);
        }
        guest.cpuid_at(SITE);
        let stop = kinds.into_iter().zip(holds).find(|(_, holds)| *holds);
        let parked = guest.run([
            debug(DB, 1).leaves_at(SITE),
            debug(BP, 0).leaves_at(SITE),
            Scripted::Interrupted.leaves_at(CODE),
        ]);
        // The other VPs stop while the VP executes the instruction under the byte.
        let cause = match stop {
            Some((kind, _)) => hit(kind, SITE),
            None => Some(Cause::NotReported),
        };
        assert_eq!(parked.cause, cause, "{holds:?}");
        let counted = guest.breakpoints.read().unwrap().counts.list();
        let passes: Vec<u64> = counted.iter().map(|counted| counted.passes).collect();
        let expected = match stop {
            None => vec![1, 1],
            Some((BreakpointKind::Software, _)) => vec![1],
            Some(_) => Vec::new(),
        };
        assert_eq!(passes, expected, "{holds:?}");
    }
}

#[test]
fn a_breakpoint_prints_also_where_another_one_at_its_address_is_the_stop() {
    let (first, second) = (BreakpointKind::Execute, BreakpointKind::Software);
    for [printing, stopping] in [[first, second], [second, first]] {
        let mut guest = Guest::new(&[first, second].map(|kind| (kind, SITE)));
        guest.prints(printing, SITE);
        let parked = guest.run([debug(DB, 1).leaves_at(SITE)]);
        assert_eq!(parked.cause, hit(stopping, SITE), "{printing:?}");
        assert_eq!(guest.printed(), b"hit", "{printing:?}");
    }
}

/// The client continues behind the breakpoint, because the stop at the end of the step stands for the hit.
#[test]
fn a_step_that_ends_at_a_breakpoint_executes_its_commands() {
    for kind in [BreakpointKind::Execute, BreakpointKind::Software] {
        let mut guest = Guest::new(&[(kind, SITE)]);
        guest.prints(kind, SITE);
        let step = [debug(DB, BS).leaves_at(SITE)];
        let parked = guest.step(step);
        assert_eq!(parked.cause, STEPPED, "{kind:?}");
        assert_eq!(guest.printed(), b"hit", "{kind:?}");
        // Elsewhere there is nothing to print.
        let parked = guest.step([debug(DB, BS).leaves_at(SITE + 2)]);
        assert_eq!(parked.cause, STEPPED, "{kind:?}");
        assert_eq!(guest.printed(), b"", "{kind:?}");
    }
}

/// The instruction that the VP passes faults, and the guest's handler has a breakpoint.
#[test]
fn a_breakpoint_of_the_handler_is_met_while_another_is_passed() {
    const HANDLER: u64 = CODE + 32;
    let kinds = [
        (BreakpointKind::Execute, SITE),
        (BreakpointKind::Software, HANDLER),
    ];
    let mut guest = Guest::new(&kinds);
    guest.condition(BreakpointKind::Execute, SITE, false);
    guest.cpuid_at(SITE);
    let parked = guest.run([
        debug(DB, 1).leaves_at(SITE),
        debug(BP, 0).leaves_at(HANDLER),
        Scripted::Interrupted.leaves_at(CODE),
    ]);
    assert_eq!(parked.cause, hit(BreakpointKind::Software, HANDLER));
}

#[test]
fn a_step_ends_with_the_instruction_whose_access_is_no_stop() {
    for dr6 in [1, 1 | BS] {
        let mut guest = Guest::new(&[(BreakpointKind::Write, WATCHED)]);
        guest.condition(BreakpointKind::Write, WATCHED, false);
        let parked = guest.step([debug(DB, dr6).leaves_at(CODE + 1)]);
        assert_eq!((parked.cause, parked.steps), (STEPPED, 1), "{dr6:#x}");
    }
}

#[test]
fn a_step_over_a_breakpoint_that_is_no_stop_moves_one_instruction() {
    for (kind, vector, dr6) in [
        (BreakpointKind::Execute, DB, 1),
        (BreakpointKind::Software, BP, 0),
    ] {
        let mut guest = Guest::new(&[(kind, CODE)]);
        guest.condition(kind, CODE, false);
        let parked = guest.step([
            debug(vector, dr6).leaves_at(CODE),
            debug(DB, BS).leaves_at(CODE + 1),
        ]);
        assert_eq!((parked.cause, parked.steps), (STEPPED, 1), "{kind:?}");
        // The instruction was carried out.
        assert_eq!(guest.vcpu().script.len(), 1);
    }
}

/// The guest's breakpoint is on the same instruction.
#[test]
fn the_guest_gets_its_own_breakpoint_where_ours_is_no_stop() {
    let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
    guest.condition(BreakpointKind::Execute, SITE, false);
    guest.vcpu().guest_registers.db[0] = SITE;
    guest.vcpu().guest_registers.dr7 = 0x402;
    let parked = guest.run([debug(DB, 0b11).leaves_at(SITE)]);
    assert_eq!(parked.cause, None);
    let given = guest.vcpu().told.iter().filter_map(|told| match told {
        Told::InjectDebug(payload) => Some(*payload),
        _ => None,
    });
    assert_eq!(given.collect::<Vec<_>>(), [DebugPayload(1)]);
}

#[test]
fn registers_that_cannot_be_read_make_the_hit_a_stop() {
    let mut guest = Guest::new(&[(BreakpointKind::Execute, SITE)]);
    guest.condition(BreakpointKind::Execute, SITE, false);
    let met = debug(DB, 1).after(|vcpu| {
        vcpu.registers.general.rip = SITE;
        vcpu.fails_at = Some(0);
    });
    let parked = guest.run([met]);
    assert!(parked.cause.is_some());
}
