//! The paravirtual panic port, as in QEMU (QEMU's documentation, "PVPANIC DEVICE"). A kernel reports its panic by a
//! write.

use super::PortDevice;
use vp_runner::machine::DeviceOutcome;

/// The only port of the device. The DSDT describes it.
pub(crate) const PORT: u16 = 0x505;
/// The identifier by which drivers find the device.
pub(crate) const HARDWARE_ID: &str = "QEMU0001";

/// The kernel panicked and stops.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked, and a crash kernel is loaded.
const CRASH_LOADED: u8 = 1 << 1;

/// The panic port. It has no state.
pub(crate) struct Pvpanic;

impl PortDevice for Pvpanic {
    /// Reads the events that the device supports.
    fn read_byte(&mut self, _offset: u16) -> u8 {
        PANICKED | CRASH_LOADED
    }

    fn write_byte(&mut self, _offset: u16, value: u8) -> DeviceOutcome {
        match value & (PANICKED | CRASH_LOADED) {
            0 => DeviceOutcome::Done,
            _ => DeviceOutcome::Panicked,
        }
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_sees_what_it_can_tell_and_tells_it() {
        assert_eq!(Pvpanic.read_byte(0), 3);
        for (value, outcome) in [
            (0, DeviceOutcome::Done),
            (1, DeviceOutcome::Panicked),
            (2, DeviceOutcome::Panicked),
            (0xfc, DeviceOutcome::Done),
        ] {
            assert_eq!(Pvpanic.write(0, &[value]), outcome, "{value}");
        }
    }
}
