//! ACPI's fixed power-management registers (ACPI 6.4, 4.8.3), at the ports that QEMU's `pc` and `q35` use with SeaBIOS.

use super::PortDevice;
use vp_runner::machine::DeviceOutcome;

/// PM1a event block: status and enable registers, two bytes each.
pub(crate) const EVENT_PORT: u16 = 0x600;
/// The length of the event block in bytes.
pub(crate) const EVENT_LEN: u8 = 4;
/// PM1a control block.
pub(crate) const CONTROL_PORT: u16 = 0x604;
/// The length of the control block in bytes.
pub(crate) const CONTROL_LEN: u8 = 2;
/// The first port behind the control block.
pub(crate) const END_PORT: u16 = CONTROL_PORT + CONTROL_LEN as u16;

/// SCI_EN: ACPI mode is on, and cannot be turned off.
const SCI_EN: u8 = 1;
/// SLP_EN and SLP_TYP in the second byte of the control register.
const SLP_EN: u8 = 1 << 5;
const SLP_TYP: u8 = 0b111 << 2;
/// The sleep type of `\_S5` in the DSDT.
const SLP_TYP_OFF: u8 = 0;

/// The event and control registers. No event ever occurs, so the status is always zero.
#[derive(Default)]
pub(crate) struct Power {
    enable: [u8; 2],
}

impl PortDevice for Power {
    fn read_byte(&mut self, offset: u16) -> u8 {
        match offset {
            2 => self.enable[0],
            3 => self.enable[1],
            4 => SCI_EN,
            _ => 0,
        }
    }

    fn write_byte(&mut self, offset: u16, value: u8) -> DeviceOutcome {
        match offset {
            2 => self.enable[0] = value,
            3 => self.enable[1] = value,
            5 if value & (SLP_EN | SLP_TYP) == SLP_EN | SLP_TYP_OFF => {
                return DeviceOutcome::PowerOff;
            }
            _ => {}
        }
        DeviceOutcome::Done
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sleep_type_of_s5_switches_off() {
        let mut power = Power::default();
        assert_eq!(
            power.write(4, &0x2000_u16.to_le_bytes()),
            DeviceOutcome::PowerOff
        );
        assert_eq!(
            power.write(4, &0x2400_u16.to_le_bytes()),
            DeviceOutcome::Done
        );
        assert_eq!(
            power.write(4, &0x0001_u16.to_le_bytes()),
            DeviceOutcome::Done
        );
    }

    #[test]
    fn a_kernel_finds_acpi_mode_on_and_no_event() {
        let mut power = Power::default();
        let _ = power.write(2, &[0x20, 0x01]);
        let mut registers = [0xff; 4];
        power.read(0, &mut registers);
        assert_eq!(registers, [0, 0, 0x20, 0x01]);
        assert_eq!(power.read_byte(4), SCI_EN);
        power.reset();
        assert_eq!(power.read_byte(2), 0);
    }
}
