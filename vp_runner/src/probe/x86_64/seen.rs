//! The observations of a scenario.

use crate::arch::x86_64::dr7::Dr6;

/// How a run of the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// `KVM_EXIT_DEBUG`.
    Debug {
        /// The exception: 1 `#DB`, 3 `#BP`.
        vector: u32,
        /// The reported address.
        pc: u64,
        /// DR6.
        dr6: u64,
    },
    /// The program reached its end.
    Ended,
    /// The guest's own handler was entered.
    Handler,
    /// `KVM_EXIT_INTERNAL_ERROR`.
    InternalError {
        /// RIP of the vCPU.
        rip: u64,
    },
    /// A triple fault.
    TripleFault,
    /// The guest did not exit in time and was kicked.
    Overdue,
    /// KVM refused an ioctl.
    Refused {
        /// The `errno`.
        errno: i32,
    },
    /// Some other exit.
    Other,
    /// The capability is not offered.
    NotOffered,
    /// The registers in `kvm_run` are not the vCPU's.
    WrongRegisters,
    /// A clock continued from the value to which it was set.
    ClockSet,
    /// Setting a clock had no effect.
    ClockKept,
    /// The guest's time-stamp counter runs at another rate than the host's.
    ClockScaled,
}

impl Seen {
    pub(super) fn refused(err: kvm_ioctls::Error) -> Self {
        Self::Refused { errno: err.errno() }
    }

    /// Whether the exit is the trap of `slot` 0 or of a step.
    pub(super) fn is_db_at(self, address: u16, expected: impl FnOnce(Dr6) -> bool) -> bool {
        match self {
            Self::Debug { vector, pc, dr6 } => {
                vector == 1 && pc == u64::from(address) && expected(Dr6(dr6))
            }
            _ => false,
        }
    }
}
