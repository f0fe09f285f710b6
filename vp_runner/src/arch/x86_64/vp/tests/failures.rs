//! A call of the vCPU fails, at each place of a call: the VP parks with a cause, and leaves no trace of the debugger in the guest.

use super::fake_vcpu::Scripted;
use super::*;
use crate::arch::x86_64::vp::debug_state::Undelivered;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::Others;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::RunnerFault;

const THERE: u64 = CODE + 0x10;
const HANDLER: u64 = 0x3000;
const VECTOR: u8 = 0x20;
const BS: u64 = 1 << 14;
const RF_BYTE: u64 = STACK - 12 + 8 + 2;

/// One situation: the guest, and the entry.
struct Situation {
    name: &'static str,
    guest: fn() -> Guest,
    enter: fn(&mut Guest) -> VpParked,
    /// A check of guest memory that holds after each failure.
    check: fn(&Guest),
}

fn armed() -> Guest {
    let mut guest = Guest::new(&[
        (BreakpointKind::Software, THERE),
        (BreakpointKind::Execute, THERE + 1),
    ]);
    guest.vcpu().registers.general.rip = THERE;
    guest
}

fn is_armed(guest: &Guest) {
    assert_eq!(guest.byte(THERE), 0xcc);
}

fn passing(emulation: Emulation, others: Others) -> AtBreakpoint {
    let mut at = AtBreakpoint::NEW;
    at.reported();
    let of = ByteOf::ThisAddress;
    at.decide(Some(ByteAtRip { of, emulation }), others);
    at
}

fn db(rip: u64, dr6: u64) -> Stay {
    Scripted::Debug { vector: 1, dr6 }.leaves_at(rip)
}

fn bp(rip: u64) -> Stay {
    Scripted::Debug { vector: 3, dr6: 0 }.leaves_at(rip)
}

/// An interrupt is pending. Its frame will have RF set.
fn interrupted() -> Guest {
    let mut guest = Guest::new(&[]);
    let [low, high, ..] = u16::try_from(HANDLER).unwrap().to_le_bytes();
    // An interrupt gate of 32 bits (SDM volume 3, "IDT Descriptors").
    let gate = [low, high, 0x08, 0, 0, 0x8e, 0, 0];
    guest.write(IDT + 8 * u64::from(VECTOR), &gate);
    guest.write(HANDLER, &[0xcf]);
    // The code segment of the gate.
    guest.write(0x4800 + 8, &[0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
    let system = &mut guest.vcpu().registers.system;
    system.idt.base = IDT;
    system.idt.limit = 0x3ff;
    system.gdt.base = 0x4800;
    system.gdt.limit = 0x1f;
    system.cs.selector = 8;
    guest.vcpu().undelivered = Some(Undelivered::Interrupt(VECTOR));
    guest
}

/// The interrupt is delivered, its handler returns, and the step is made.
fn step_through_interrupt(guest: &mut Guest) -> VpParked {
    let ram = guest.ram.clone();
    let delivered = Scripted::Debug { vector: 1, dr6: 1 }.after(move |vcpu| {
        let frame = [CODE, 8, 0x1_0202];
        for (index, value) in (0..).zip(frame) {
            let value = u32::try_from(value).unwrap();
            let at = GuestAddress(STACK - 12 + 4 * index);
            ram.backing().write_obj(value, at).unwrap();
        }
        let general = &mut vcpu.registers.general;
        (general.rip, general.rsp, general.rflags) = (HANDLER, STACK - 12, 0x2);
    });
    let returned = Scripted::Debug { vector: 1, dr6: 1 }.after(|vcpu| {
        let general = &mut vcpu.registers.general;
        (general.rip, general.rsp, general.rflags) = (CODE, STACK, 0x202);
    });
    guest.step([delivered, returned, db(CODE + 1, BS)])
}

const SITUATIONS: &[Situation] = &[
    Situation {
        name: "a run to a breakpoint byte",
        guest: || {
            let mut guest = armed();
            guest.vcpu().registers.general.rip = CODE;
            guest
        },
        enter: |guest| guest.run([bp(THERE)]),
        check: is_armed,
    },
    Situation {
        name: "a run to a debug register, with the guest's own in use",
        guest: || {
            let mut guest = armed();
            guest.vcpu().registers.general.rip = CODE;
            guest.vcpu().guest_registers.db[1] = CODE + 5;
            guest.vcpu().guest_registers.dr7 = 0x408;
            guest
        },
        enter: |guest| guest.run([db(CODE + 5, 0b10), db(THERE + 1, 0b01)]),
        check: is_armed,
    },
    Situation {
        name: "a step with the byte lifted",
        guest: armed,
        enter: |guest| {
            let at = passing(Emulation::Impossible, Others::StayParked);
            guest.enter(VpAction::Step, at, [db(THERE + 1, BS)])
        },
        check: is_armed,
    },
    Situation {
        name: "one instruction with the others stopped",
        guest: armed,
        enter: |guest| {
            let at = passing(Emulation::Impossible, Others::Move);
            guest.enter(VpAction::Run, at, [db(THERE + 1, BS)])
        },
        check: is_armed,
    },
    Situation {
        name: "an instruction that is carried out",
        guest: armed,
        enter: |guest| {
            let at = passing(Emulation::Possible, Others::Move);
            guest.enter(VpAction::Run, at, [bp(THERE)])
        },
        check: is_armed,
    },
    Situation {
        name: "an INT3 of the guest's own",
        guest: || {
            let mut guest = armed();
            guest.vcpu().registers.general.rip = CODE;
            guest
        },
        enter: |guest| guest.run([bp(CODE), db(THERE + 1, 1)]),
        check: is_armed,
    },
    Situation {
        name: "an ICEBP of the guest's own",
        guest: || {
            let mut guest = armed();
            guest.write(CODE, &[0xf1]);
            guest.vcpu().registers.general.rip = CODE;
            guest
        },
        enter: |guest| guest.run([db(CODE, 0), db(THERE + 1, 1)]),
        check: is_armed,
    },
    Situation {
        name: "a debug register of ours together with a trap of the guest's own",
        guest: || {
            let mut guest = armed();
            guest.vcpu().registers.general.rip = CODE;
            guest
        },
        enter: |guest| guest.run([db(THERE + 1, 0b1 | BS)]),
        check: is_armed,
    },
    Situation {
        name: "a step over pushf",
        guest: || {
            let mut guest = armed();
            guest.write(CODE, &[0x9c]);
            guest.vcpu().registers.general.rip = CODE;
            guest
        },
        enter: |guest| guest.step([db(CODE + 1, 0b10)]),
        check: is_armed,
    },
    Situation {
        name: "a step over hlt",
        guest: || {
            let guest = Guest::new(&[]);
            guest.write(CODE, &[0xf4]);
            guest
        },
        enter: |guest| guest.step([]),
        check: |_| {},
    },
    Situation {
        name: "a step over a port write",
        guest: || Guest::new(&[]),
        enter: |guest| guest.step([Scripted::PioWrite { port: 0x80 }.leaves_at(CODE + 1)]),
        check: |_| {},
    },
    Situation {
        name: "a step through an interrupt whose frame has RF set",
        guest: interrupted,
        enter: step_through_interrupt,
        check: |guest| {
            let delivered = guest.byte(STACK - 11) != 0;
            let expected = u8::from(delivered);
            assert_eq!(guest.byte(RF_BYTE) & 1, expected, "RF in the frame");
        },
    },
    Situation {
        name: "a VP that waits for its start",
        guest: || {
            let mut guest = Guest::new(&[]);
            guest.vcpu().activity = VpActivity::WaitingForStart;
            guest
        },
        enter: |guest| guest.step([]),
        check: |_| {},
    },
];

/// Calls whose failure must not be ignored, because the guest would continue in a wrong state.
const MUST_WORK: &[&str] = &[
    "program",
    "inject_breakpoint",
    "inject_debug",
    "drop_soft_exception",
    "skip_to",
    "undelivered",
];

/// More calls than a situation makes.
const MANY: usize = 1000;

#[test]
fn a_call_that_fails_parks_the_vp_and_leaves_nothing_in_the_guest() {
    let fault = CrashCause::Runner(RunnerFault::DebugState);
    let crashed = Cause::Guest(GuestEvent::Crashed {
        vp: VP,
        cause: fault,
    });
    for situation in SITUATIONS {
        let usual = {
            let mut guest = (situation.guest)();
            let parked = (situation.enter)(&mut guest);
            (situation.check)(&guest);
            parked.cause
        };
        assert_ne!(usual, Some(crashed), "{}", situation.name);
        let mut failures = 0;
        for call in 0..MANY {
            let mut guest = (situation.guest)();
            guest.vcpu().fails_at = Some(call);
            let parked = (situation.enter)(&mut guest);
            let Some(failed) = guest.vcpu().failed else {
                break;
            };
            failures += 1;
            let name = situation.name;
            (situation.check)(&guest);
            assert!(guest.vp.lifted.is_empty(), "{name}, call {call}");
            if MUST_WORK.contains(&failed) {
                assert_eq!(parked.cause, Some(crashed), "{name}, {failed}");
            }
            // A failure ends the entry, unless the VP has an alternative: it stops as usual, parks without a report and tries again, or runs until it is kicked.
            let excused = [usual, Some(crashed), Some(Cause::NotReported), None];
            assert!(
                excused.contains(&parked.cause),
                "{name}, call {call}: {:?}",
                parked.cause
            );
        }
        assert!(
            (1..MANY).contains(&failures),
            "{}: {failures}",
            situation.name
        );
    }
}

#[test]
fn most_failures_are_reported() {
    let mut reported = 0;
    let mut all = 0;
    for situation in SITUATIONS {
        for call in 0..MANY {
            let mut guest = (situation.guest)();
            guest.vcpu().fails_at = Some(call);
            let parked = (situation.enter)(&mut guest);
            if guest.vcpu().failed.is_none() {
                break;
            }
            all += 1;
            if let Some(Cause::Guest(GuestEvent::Crashed { .. })) = parked.cause {
                reported += 1;
            }
        }
    }
    assert!(reported * 2 > all, "{reported} of {all}");
}

#[test]
fn a_failed_write_of_registers_is_an_error_and_nothing_is_remembered() {
    let mut guest = Guest::new(&[]);
    let mut state = (*guest.vp.read_registers().unwrap()).clone();
    state.rip = THERE;
    guest.vcpu().fails_at = Some(0);
    let err = guest.vp.write_registers(&state).unwrap_err();
    assert!(is_scripted(&err), "{err}");
    assert_eq!(guest.vp.read_registers().unwrap().rip, CODE);
    guest.vp.write_registers(&state).unwrap();
    assert_eq!(guest.vp.read_registers().unwrap().rip, THERE);
}
