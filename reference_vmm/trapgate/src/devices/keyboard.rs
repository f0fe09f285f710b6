//! The keyboard controller, which can only reset the PC. No keyboard is connected.

use super::PortDevice;
use vp_runner::machine::DeviceOutcome;

/// Data port. The command port has an offset of four.
pub(crate) const DATA_PORT: u16 = 0x60;
/// Command and status port.
pub(crate) const COMMAND_PORT: u16 = 0x64;

/// Commands 0xf0 to 0xff pulse an output line low for each clear bit. Line 0 resets the CPU.
const PULSE: u8 = 0xf0;
const LINE_RESET: u8 = 1 << 0;

/// One of the two ports of the controller. Its status always says that both buffers are empty.
pub(crate) struct Keyboard {
    /// The number of the port.
    pub port: u16,
}

impl PortDevice for Keyboard {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        0
    }

    fn write_byte(&mut self, _offset: u16, value: u8) -> DeviceOutcome {
        if self.port == COMMAND_PORT && value & PULSE == PULSE && value & LINE_RESET == 0 {
            DeviceOutcome::Reset
        } else {
            DeviceOutcome::Done
        }
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pulse_command_on_the_reset_line_resets() {
        let mut command = Keyboard { port: COMMAND_PORT };
        assert_eq!(command.write(0, &[0xfe]), DeviceOutcome::Reset);
        assert_eq!(command.write(0, &[0xff]), DeviceOutcome::Done);
        assert_eq!(command.write(0, &[0xae]), DeviceOutcome::Done);
        assert_eq!(
            Keyboard { port: DATA_PORT }.write(0, &[0xfe]),
            DeviceOutcome::Done
        );
    }
}
