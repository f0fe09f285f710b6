//! The keyboard controller, as far as resetting the PC goes: no keyboard is connected.

use super::PortDevice;
use vp_runner::machine::DeviceOutcome;

/// Data port; the command port is four after it.
pub(crate) const DATA_PORT: u16 = 0x60;
/// Command and status port.
pub(crate) const COMMAND_PORT: u16 = 0x64;

/// Commands 0xf0 to 0xff pulse output lines low for each clear bit; line 0 is the CPU's reset.
const PULSE: u8 = 0xf0;
const LINE_RESET: u8 = 1 << 0;

/// One of the controller's two ports. Status: both buffers are always empty.
pub(crate) struct Keyboard {
    /// Which port it is.
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
