//! What a debug exit means: one pure function from what the exit says (vector, DR6) to the cause. Nothing is guessed from addresses.

use crate::breakpoints::Slots;
use crate::dr7::Dr6;

/// What `KVM_EXIT_DEBUG` says (KVM api.rst, `kvm_run.debug`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebugExit {
    /// The exception: 1 (`#DB`) or 3 (`#BP`).
    pub vector: u32,
    /// The linear address of RIP.
    pub pc: u64,
    /// The debug status of this exception.
    pub dr6: Dr6,
}

/// Whether the VP was made to execute one instruction only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepping {
    /// The trap flag is ours.
    On,
    /// Any single-step trap is the guest's own.
    Off,
}

/// Whose exception it was, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugCause {
    /// Our debug register of this number matched.
    Slot(usize),
    /// The step we asked for is done.
    Step,
    /// The guest's own `#DB`: it is given back, with this DR6.
    GuestDebug {
        /// What the guest is to find in DR6.
        dr6: u64,
    },
    /// An `INT3`. Whether its byte is ours only memory can tell; the guest's own is given back.
    Int3,
}

const DB_VECTOR: u32 = 1;

/// Decodes a debug exit. `enabled` is what the debug registers held on this VP when it entered.
///
/// A breakpoint and a finished step may come together (SDM volume 3, "Debug Status Register (DR6)": several bits may be set); the
/// breakpoint is what is reported then, and of several the lowest.
pub fn stop_cause(exit: &DebugExit, enabled: &Slots, stepping: Stepping) -> DebugCause {
    if exit.vector != DB_VECTOR {
        return DebugCause::Int3;
    }
    if let Some((slot, _)) = exit.dr6.hits(enabled).next() {
        return DebugCause::Slot(slot);
    }
    if exit.dr6.single_step() && stepping == Stepping::On {
        return DebugCause::Step;
    }
    DebugCause::GuestDebug { dr6: exit.dr6.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dr7::Slot;
    use vmm_core_defs::addr::Gva;
    use vmm_core_defs::breakpoint::Breakpoint;
    use vmm_core_defs::breakpoint::BreakpointKind;

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

    /// Debug registers 1 and 3 are ours.
    fn enabled() -> Slots {
        let slot = |kind, address| {
            let len = 1;
            let address = Gva::new(address);
            Slot::new(&Breakpoint { kind, address, len }).ok()
        };
        [
            None,
            slot(BreakpointKind::Execute, 0x1000),
            None,
            slot(BreakpointKind::Write, 0x2000),
        ]
    }

    #[test]
    fn each_combination_of_bits_has_its_cause() {
        use DebugCause::*;
        use Stepping::*;
        let table = [
            (0b0010, Off, Slot(1)),
            (0b1000, Off, Slot(3)),
            (0b1010, Off, Slot(1)),
            (0b1000 | BS, On, Slot(3)),
            (BS, On, Step),
            // Hardware may set the bits of debug registers that are not enabled.
            (0b0101 | BS, On, Step),
            // The guest's own: its trap flag, its debug registers, ICEBP.
            (BS, Off, GuestDebug { dr6: FIXED | BS }),
            (0b0001, Off, GuestDebug { dr6: FIXED | 1 }),
            (0, Off, GuestDebug { dr6: FIXED }),
            (0, On, GuestDebug { dr6: FIXED }),
        ];
        for (bits, stepping, cause) in table {
            assert_eq!(
                stop_cause(&exit(1, bits), &enabled(), stepping),
                cause,
                "{bits:#x} {stepping:?}"
            );
        }
    }

    #[test]
    fn an_int3_is_one_whatever_dr6_says() {
        assert_eq!(
            stop_cause(&exit(3, 0b1010), &enabled(), Stepping::On),
            DebugCause::Int3
        );
    }
}
