//! Exits from the guest: their typed form ([`VpExit`]), and the reaction to each ([`handle`]). This module does not use KVM, so the tests construct the exits.
//!
//! `kvm` decodes a [`VpExit`] from `kvm_run`. The VP core calls `KVM_RUN` and [`handle`] in a loop.

use crate::arch::DebugExit;
use crate::control::guest_event::GuestEvent;
use crate::machine::DeviceOutcome;
use crate::machine::Machine;
use crate::machine::MmioOutcome;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

/// Why the VP left the guest (KVM api.rst, section 5). The data of a read must be filled in before the VP enters again.
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
    /// The guest writes a port. The fields are those of [`PioRead`](Self::PioRead).
    PioWrite {
        /// The port.
        port: u16,
        /// The bytes of one element: 1, 2 or 4.
        size: usize,
        /// All elements.
        data: &'a [u8],
    },
    /// The guest reads an address without memory.
    MmioRead {
        /// The first byte.
        gpa: Gpa,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes an address without memory.
    MmioWrite {
        /// The first byte.
        gpa: Gpa,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A debug exception that KVM does not deliver to the guest.
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
    /// An exit that needs no action, or `EAGAIN`: a waiting VP got its start-up message.
    Nothing,
    /// The VP cannot continue.
    Failed(CrashCause),
}

impl VpExit<'_> {
    /// Whether KVM completes the instruction only when the VP enters again. Until then the registers of the VP are not those at an instruction boundary
    /// (KVM api.rst, section 5, note on `KVM_EXIT_IO` and `KVM_EXIT_MMIO`).
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

/// The reaction to an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Enter again.
    Enter,
    /// Wait. The guest has halted, and only the debugger can wake it.
    Halt,
    /// Find out whether the debug exception is the guest's or the debugger's.
    Debug(DebugExit),
    /// Stop all VPs for this event.
    Stop(GuestEvent),
}

/// Handles an exit: passes I/O to the devices, and returns the next action.
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
