//! The PCI configuration address register and, inside its range, the reset control register of Intel's chipsets at port
//! 0xcf9.

use super::PortDevice;
use vp_runner::machine::DeviceOutcome;

/// The first port.
pub(crate) const FIRST_PORT: u16 = 0xcf8;
/// The first port behind the register.
pub(crate) const END_PORT: u16 = 0xcfc;
/// The reset control register.
pub(crate) const RESET_PORT: u16 = 0xcf9;
/// The value for a hard reset that takes effect at once.
pub(crate) const HARD_RESET: u8 = 0x06;

const RESET_CPU: u8 = 1 << 2;

/// There is no PCI bus, so the address register reads as ones. A byte access at 0xcf9 accesses the reset register.
#[derive(Default)]
pub(crate) struct ResetControl {
    value: u8,
}

impl PortDevice for ResetControl {
    fn read_byte(&mut self, offset: u16) -> u8 {
        if offset == RESET_PORT - FIRST_PORT {
            self.value
        } else {
            0xff
        }
    }

    fn write_byte(&mut self, offset: u16, value: u8) -> DeviceOutcome {
        if offset != RESET_PORT - FIRST_PORT {
            return DeviceOutcome::Done;
        }
        let rising = value & !self.value & RESET_CPU != 0;
        self.value = value;
        if rising {
            DeviceOutcome::Reset
        } else {
            DeviceOutcome::Done
        }
    }

    /// A wider access is to the configuration address, even if it covers 0xcf9.
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.read_byte(offset),
            wide => wide.fill(0xff),
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> DeviceOutcome {
        match *data {
            [byte] => self.write_byte(offset, byte),
            _ => DeviceOutcome::Done,
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_with_the_reset_bit_rising_resets() {
        let mut device = ResetControl::default();
        assert_eq!(device.write(1, &[0x02]), DeviceOutcome::Done);
        assert_eq!(device.write(1, &[0x06]), DeviceOutcome::Reset);
        assert_eq!(device.write(1, &[0x06]), DeviceOutcome::Done);
        device.reset();
        assert_eq!(device.write(1, &[0x0e]), DeviceOutcome::Reset);
    }

    #[test]
    fn looking_for_pci_devices_does_not_reset() {
        let mut device = ResetControl::default();
        // Device 0, function 6: the reset bits are in the byte at 0xcf9.
        assert_eq!(
            device.write(0, &0x8000_0600_u32.to_le_bytes()),
            DeviceOutcome::Done
        );
        let mut data = [0; 4];
        device.read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
