//! What a debugger may ask of the machine around the vCPUs.

use super::DeviceOutcome;
use super::Machine;
use super::MachineError;
use super::MmioOutcome;
use std::sync::Arc;
use vmm_core_defs::addr::Gpa;

/// The machine as a debugger sees it. A method may block.
pub(crate) trait ForDebugger: Send + Sync {
    /// Whether debuggers may access devices at all.
    fn has_devices(&self) -> bool {
        true
    }

    /// Whether debuggers may reset the machine at all.
    fn can_be_reset(&self) -> bool {
        true
    }

    /// Reads 1, 2, 4 or 8 bytes at an address without RAM.
    fn read_device(&self, gpa: Gpa, data: &mut [u8]) -> MmioOutcome;

    /// Writes 1, 2, 4 or 8 bytes at an address without RAM.
    fn write_device(&self, gpa: Gpa, data: &[u8]) -> (MmioOutcome, DeviceOutcome);

    /// Puts memory and devices into their power-on state.
    ///
    /// # Errors
    /// [`MachineError`].
    fn reset_machine(&self) -> Result<(), MachineError>;
}

impl<M: Machine> ForDebugger for M {
    fn read_device(&self, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        self.mmio_read(None, gpa, data)
    }

    fn write_device(&self, gpa: Gpa, data: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        self.mmio_write(None, gpa, data)
    }

    fn reset_machine(&self) -> Result<(), MachineError> {
        self.reset()
    }
}

/// The machine of a VMM that has left its vCPUs to this crate.
pub(crate) struct OfMachine(pub(crate) Arc<dyn Machine>);

impl ForDebugger for OfMachine {
    fn read_device(&self, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        self.0.mmio_read(None, gpa, data)
    }

    fn write_device(&self, gpa: Gpa, data: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        self.0.mmio_write(None, gpa, data)
    }

    fn reset_machine(&self) -> Result<(), MachineError> {
        self.0.reset()
    }
}
