//! Exits from the guest: the typed form ([`VpExit`]), and what each leads to ([`handle`]). Free of KVM, so tested with made-up exits.
//!
//! The layer below, in `kvm`, makes a [`VpExit`] from `kvm_run`; the one above, in `vp_thread`, is the loop.

use crate::arch::DebugExit;
use crate::control::guest_event::GuestEvent;
use crate::machine::DeviceOutcome;
use crate::machine::Machine;
use crate::machine::MmioOutcome;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

/// Why the VP left the guest (KVM api.rst, section 5). The data of reads is to be filled in before the VP enters again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VpExit<'a> {
    /// The guest reads a port: `data` holds one or more elements of `size` bytes (more for string instructions).
    PioRead {
        /// The port.
        port: u16,
        /// The bytes of one element: 1, 2 or 4.
        size: usize,
        /// All elements.
        data: &'a mut [u8],
    },
    /// The guest writes a port; shaped as the read.
    PioWrite {
        /// The port.
        port: u16,
        /// The bytes of one element: 1, 2 or 4.
        size: usize,
        /// All elements.
        data: &'a [u8],
    },
    /// The guest reads where no memory is.
    MmioRead {
        /// The first byte.
        gpa: Gpa,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes where no memory is.
    MmioWrite {
        /// The first byte.
        gpa: Gpa,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A debug exception that KVM keeps from the guest.
    Debug(DebugExit),
    /// `hlt`, on a VM without an in-kernel interrupt controller.
    Halted,
    /// Triple fault.
    Shutdown(FaultRegisters),
    /// `KVM_SYSTEM_EVENT_RESET`.
    SystemReset,
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
    SystemPowerOff,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    SystemCrash,
    /// `EINTR`: a signal, or `immediate_exit`.
    Interrupted,
    /// `EAGAIN`: a waiting VP got its start-up message; or an exit that asks for nothing.
    Nothing,
    /// The VP cannot go on.
    Failed(CrashCause),
}

impl VpExit<'_> {
    /// Whether KVM holds the rest of an instruction back until the VP enters again: until then its registers are not the ones at
    /// an instruction boundary (KVM api.rst, section 5, note on `KVM_EXIT_IO` and `KVM_EXIT_MMIO`).
    pub(crate) fn is_pending(&self) -> bool {
        match self {
            Self::PioRead { .. }
            | Self::PioWrite { .. }
            | Self::MmioRead { .. }
            | Self::MmioWrite { .. } => true,
            Self::Debug(_)
            | Self::Halted
            | Self::Shutdown(_)
            | Self::SystemReset
            | Self::SystemPowerOff
            | Self::SystemCrash
            | Self::Interrupted
            | Self::Nothing
            | Self::Failed(_) => false,
        }
    }
}

/// What to do after an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Enter again.
    Enter,
    /// Wait: the guest halted and nothing but the debugger can wake it.
    Halt,
    /// Find out whose debug exception it was.
    Debug(DebugExit),
    /// The guest as a whole cannot go on as it is.
    Stop(GuestEvent),
}

/// Carries out what the guest asked for.
pub(crate) fn handle(exit: VpExit<'_>, vp: VpIndex, machine: &dyn Machine) -> Next {
    match exit {
        VpExit::PioRead { port, size, data } => {
            for element in data.chunks_mut(size.max(1)) {
                machine.pio_read(vp, port, element);
            }
            Next::Enter
        }
        VpExit::PioWrite { port, size, data } => {
            let mut first = DeviceOutcome::Done;
            for element in data.chunks(size.max(1)) {
                let outcome = machine.pio_write(vp, port, element);
                if first == DeviceOutcome::Done {
                    first = outcome;
                }
            }
            after_device(first, vp)
        }
        VpExit::MmioRead { gpa, data } => {
            if machine.mmio_read(Some(vp), gpa, data) == MmioOutcome::Unclaimed {
                data.fill(0xff);
            }
            Next::Enter
        }
        VpExit::MmioWrite { gpa, data } => {
            after_device(machine.mmio_write(Some(vp), gpa, data).1, vp)
        }
        VpExit::Debug(debug) => Next::Debug(debug),
        VpExit::Halted => Next::Halt,
        VpExit::Shutdown(registers) => Next::Stop(GuestEvent::TripleFault { vp, registers }),
        VpExit::SystemReset => Next::Stop(GuestEvent::Reset { vp: Some(vp) }),
        VpExit::SystemPowerOff => Next::Stop(GuestEvent::PowerOff { vp: Some(vp) }),
        VpExit::SystemCrash => Next::Stop(GuestEvent::Panicked { vp }),
        VpExit::Interrupted | VpExit::Nothing => Next::Enter,
        VpExit::Failed(cause) => Next::Stop(GuestEvent::Crashed { vp, cause }),
    }
}

fn after_device(outcome: DeviceOutcome, vp: VpIndex) -> Next {
    match outcome {
        DeviceOutcome::Done => Next::Enter,
        DeviceOutcome::Reset => Next::Stop(GuestEvent::Reset { vp: Some(vp) }),
        DeviceOutcome::PowerOff => Next::Stop(GuestEvent::PowerOff { vp: Some(vp) }),
        DeviceOutcome::Panicked => Next::Stop(GuestEvent::Panicked { vp }),
    }
}

#[cfg(test)]
mod tests;
