//! The guest's accesses to devices, as KVM reports them (KVM api.rst, section 5, `KVM_EXIT_IO` and `KVM_EXIT_MMIO`).

use super::DeviceOutcome;
use super::Machine;
use super::MmioOutcome;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;

/// The guest's access to a device. The data of a read must be filled in before the VP enters again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeviceAccess<'a> {
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
}

impl DeviceAccess<'_> {
    /// Passes the access to the devices. Of several effects, the first counts.
    pub(crate) fn serve(self, vp: VpIndex, machine: &dyn Machine) -> DeviceOutcome {
        match self {
            Self::PioRead { port, size, data } => {
                for element in data.chunks_mut(size.max(1)) {
                    machine.pio_read(vp, port, element);
                }
                DeviceOutcome::Done
            }
            Self::PioWrite { port, size, data } => {
                let mut first = DeviceOutcome::Done;
                for element in data.chunks(size.max(1)) {
                    let outcome = machine.pio_write(vp, port, element);
                    if first == DeviceOutcome::Done {
                        first = outcome;
                    }
                }
                first
            }
            Self::MmioRead { gpa, data } => {
                if machine.mmio_read(Some(vp), gpa, data) == MmioOutcome::Unclaimed {
                    data.fill(0xff);
                }
                DeviceOutcome::Done
            }
            Self::MmioWrite { gpa, data } => machine.mmio_write(Some(vp), gpa, data).1,
        }
    }
}

#[cfg(test)]
mod tests;
