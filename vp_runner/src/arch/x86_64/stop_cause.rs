//! Decodes a debug exit: one pure function from the vector and DR6 of the exit to its cause. Addresses are not used.

use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;

/// The data of `KVM_EXIT_DEBUG` (KVM api.rst, `kvm_run.debug`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DebugExit {
    /// The exception: 1 (`#DB`) or 3 (`#BP`).
    pub vector: u32,
    /// The linear address of RIP.
    pub pc: u64,
    /// The debug status of this exception.
    pub dr6: Dr6,
}

impl DebugExit {
    /// Whether the exception is a `#DB`. For a `#BP`, DR6 has no meaning.
    pub(crate) fn is_db(&self) -> bool {
        self.vector == u32::from(DB_VECTOR)
    }

    /// Whether a single step is the only cause.
    pub(crate) fn is_step_alone(&self) -> bool {
        let dr6 = self.dr6;
        self.is_db() && dr6.single_step() && !dr6.breakpoints() && dr6.others().is_empty()
    }
}

/// Whether KVM steps the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SingleStepping {
    /// KVM steps. The trap flag is the runner's.
    On,
    /// KVM does not step. A single-step trap is the guest's own.
    Off,
}

/// The cause of a debug exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DebugCause {
    /// A breakpoint of the debugger fired.
    Slot {
        /// The number of its debug register.
        slot: usize,
        /// The causes that belong to the guest.
        guest: Option<DebugPayload>,
    },
    /// The runner's step is done.
    Step {
        /// The causes that belong to the guest, except its own trap flag.
        guest: Option<DebugPayload>,
    },
    /// A `#DB` of the guest, which is delivered to the guest.
    GuestDebug(DebugPayload),
    /// An `INT3`. The breakpoint table shows whether it is a breakpoint byte. An `INT3` of the guest is delivered to the guest.
    Int3,
}

/// Of the debug exception, `#DB`.
pub(crate) const DB_VECTOR: u8 = 1;

/// Decodes a debug exit. `registers` are the debug registers of this VP as it entered.
///
/// A breakpoint and a finished step may occur together (SDM volume 3, "Debug Status Register (DR6)": several bits may be set). Then the breakpoint is reported,
/// the lowest of several. Breakpoints and traps of the guest that occur together with those of the debugger are delivered to the guest. An execution
/// breakpoint of the guest at the same address is not lost, because it fires when the instruction is retried.
pub(crate) fn stop_cause(
    exit: &DebugExit,
    registers: &DebugRegisters,
    stepping: SingleStepping,
) -> DebugCause {
    if !exit.is_db() {
        return DebugCause::Int3;
    }
    let dr6 = exit.dr6;
    let guests_step = match (dr6.single_step(), stepping) {
        (true, SingleStepping::Off) => DebugPayload::SINGLE_STEP,
        _ => DebugPayload::default(),
    };
    let done = DebugPayload(registers.guests_done(dr6)).and(guests_step);
    let guest = (!done.is_empty()).then_some(done);
    match (registers.ours(dr6), dr6.single_step(), stepping) {
        (Some(slot), _, _) => DebugCause::Slot { slot, guest },
        (None, true, SingleStepping::On) => DebugCause::Step { guest },
        _ => {
            let fired = DebugPayload(registers.guests(dr6)).and(guests_step);
            DebugCause::GuestDebug(fired.and(dr6.others()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::debug_registers::GuestRegisters;
    use crate::arch::x86_64::dr7;
    use crate::arch::x86_64::dr7::Slot;
    use vmm_core_defs::addr::Gva;
    use vmm_core_defs::breakpoint::Breakpoint;
    use vmm_core_defs::breakpoint::BreakpointKind;

    const BD: u64 = 1 << 13;
    const BS: u64 = 1 << 14;
    /// The bits of DR6 that always read as one.
    const FIXED: u64 = 0xffff_0ff0;

    fn exit(vector: u32, dr6: u64) -> DebugExit {
        DebugExit {
            vector,
            pc: 0x1000,
            dr6: Dr6(FIXED | dr6),
        }
    }

    /// The debugger has debug registers 1 and 3. The guest has 0, and the guest's 3 is in 2.
    fn registers() -> DebugRegisters {
        let slot = |kind, address| {
            let len = 1;
            let address = Gva::new(address);
            Slot::new(&Breakpoint { kind, address, len }).ok()
        };
        let ours = [
            None,
            slot(BreakpointKind::Execute, 0x1000),
            None,
            slot(BreakpointKind::Write, 0x2000),
        ];
        let guests = [
            slot(BreakpointKind::Execute, 0x1000),
            None,
            None,
            slot(BreakpointKind::Write, 0x3000),
        ];
        let guest = GuestRegisters {
            db: guests.map(|slot| slot.map_or(0, |slot| slot.address().value())),
            dr7: dr7::encode(&guests),
        };
        DebugRegisters::share(&ours, &guest).unwrap()
    }

    #[test]
    fn each_combination_of_bits_has_its_cause() {
        use SingleStepping::*;
        let slot = |slot, guest: Option<u64>| DebugCause::Slot {
            slot,
            guest: guest.map(DebugPayload),
        };
        let step = |guest: Option<u64>| DebugCause::Step {
            guest: guest.map(DebugPayload),
        };
        let guests = |bits| DebugCause::GuestDebug(DebugPayload(bits));
        let table = [
            (0b0010, Off, slot(1, None)),
            (0b1000, Off, slot(3, None)),
            (0b1010, Off, slot(1, None)),
            (0b1000 | BS, On, slot(3, None)),
            (BS, On, step(None)),
            // Causes of the guest: its trap flag, its debug registers by its numbers, ICEBP, DR7.GD.
            (BS, Off, guests(BS)),
            (0b0001, Off, guests(0b0001)),
            (0b0100, Off, guests(0b1000)),
            (0b0101 | BS, Off, guests(0b1001 | BS)),
            (0, Off, guests(0)),
            (0, On, guests(0)),
            (BD, On, guests(BD)),
            // Causes of both: the guest's data breakpoint is delivered, and its execution breakpoint fires again.
            (0b1100, Off, slot(3, Some(0b1000))),
            (0b0011, Off, slot(1, None)),
            (0b1000 | BS, Off, slot(3, Some(BS))),
            (0b0100 | BS, On, step(Some(0b1000))),
            (0b0001 | BS, On, step(None)),
        ];
        for (bits, stepping, cause) in table {
            assert_eq!(
                stop_cause(&exit(1, bits), &registers(), stepping),
                cause,
                "{bits:#x} {stepping:?}"
            );
        }
    }

    #[test]
    fn hardware_may_set_the_bits_of_registers_that_nobody_has() {
        let none = DebugRegisters::default();
        let step = DebugCause::Step { guest: None };
        assert_eq!(
            stop_cause(&exit(1, 0b0101 | BS), &none, SingleStepping::On),
            step
        );
    }

    #[test]
    fn a_step_is_alone_without_any_other_bit() {
        const BUS_LOCK: u64 = 1 << 11;
        assert!(exit(1, BS).is_step_alone());
        for more in [0b0001, 0b0010, 0b0100, 0b1000, BD, 1 << 15] {
            assert!(!exit(1, BS | more).is_step_alone(), "{more:#x}");
            assert!(!exit(1, more).is_step_alone(), "{more:#x}");
        }
        assert!(!exit(1, 0).is_step_alone());
        assert!(!exit(3, BS).is_step_alone());
        // This bit is clear if the event has happened.
        let mut locked = exit(1, BS);
        locked.dr6.0 &= !BUS_LOCK;
        assert!(!locked.is_step_alone());
    }

    #[test]
    fn an_int3_is_one_whatever_dr6_says() {
        assert_eq!(
            stop_cause(&exit(3, 0b1010), &registers(), SingleStepping::On),
            DebugCause::Int3
        );
    }
}
