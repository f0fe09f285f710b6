//! The port bus, which finds the device of an I/O port.

pub(crate) mod keyboard;
pub(crate) mod power;
pub(crate) mod pvpanic;
pub(crate) mod reset_control;
pub(crate) mod serial;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use vp_runner::machine::DeviceOutcome;

/// A device with a range of I/O ports. Offsets start at the first port.
///
/// Devices of the ISA bus are one byte wide. The bus of a PC splits wider accesses, as the provided methods do.
pub(crate) trait PortDevice: Send {
    /// Reads one byte.
    fn read_byte(&mut self, offset: u16) -> u8;

    /// Writes one byte.
    fn write_byte(&mut self, offset: u16, value: u8) -> DeviceOutcome;

    /// Reads 1, 2 or 4 bytes.
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.read_byte(at);
        }
    }

    /// Writes 1, 2 or 4 bytes.
    fn write(&mut self, offset: u16, data: &[u8]) -> DeviceOutcome {
        let outcomes = (offset..)
            .zip(data)
            .map(|(at, &byte)| self.write_byte(at, byte));
        // All bytes are written, whatever the first one requests.
        outcomes.fold(DeviceOutcome::Done, |so_far, next| match so_far {
            DeviceOutcome::Done => next,
            asked => asked,
        })
    }

    /// Puts the device into its power-on state.
    fn reset(&mut self);
}

/// All devices with their ports.
#[derive(Default)]
pub(crate) struct PortBus {
    slots: Vec<Slot>,
}

struct Slot {
    ports: Range<u16>,
    device: Mutex<Box<dyn PortDevice>>,
}

impl PortBus {
    /// Adds a device at `ports`.
    pub(crate) fn add(&mut self, ports: Range<u16>, device: Box<dyn PortDevice>) {
        self.slots.push(Slot {
            ports,
            device: Mutex::new(device),
        });
    }

    /// Reads from the device at `port`. Without a device the bus floats, and every bit reads as one.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        match self.find(port) {
            Some((offset, mut device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes to the device at `port`. Without a device the write has no effect.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> DeviceOutcome {
        match self.find(port) {
            Some((offset, mut device)) => device.write(offset, data),
            None => DeviceOutcome::Done,
        }
    }

    /// Puts every device into its power-on state.
    pub(crate) fn reset(&self) {
        for slot in &self.slots {
            lock(&slot.device).reset();
        }
    }

    fn find(&self, port: u16) -> Option<(u16, MutexGuard<'_, Box<dyn PortDevice>>)> {
        let slot = self.slots.iter().find(|slot| slot.ports.contains(&port))?;
        Some((port - slot.ports.start, lock(&slot.device)))
    }
}

/// Locks a device. A device whose last user panicked can still be used, because its registers are plain values.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_answers_with_ones() {
        let mut data = [0; 4];
        PortBus::default().read(0x80, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(PortBus::default().write(0x80, &[1]), DeviceOutcome::Done);
    }

    #[test]
    fn an_access_past_the_last_port_does_not_wrap() {
        struct Last;
        impl PortDevice for Last {
            fn read_byte(&mut self, offset: u16) -> u8 {
                u8::try_from(offset).expect("small")
            }
            fn write_byte(&mut self, _: u16, _: u8) -> DeviceOutcome {
                DeviceOutcome::Done
            }
            fn reset(&mut self) {}
        }
        let mut bus = PortBus::default();
        bus.add(0xfffe..0xffff, Box::new(Last));
        let mut data = [9; 4];
        bus.read(0xfffe, &mut data);
        assert_eq!(data, [0, 1, 2, 3]);
    }

    #[test]
    fn a_reset_reaches_every_device() {
        let mut bus = PortBus::default();
        bus.add(
            power::EVENT_PORT..power::END_PORT,
            Box::new(power::Power::default()),
        );
        bus.add(
            reset_control::FIRST_PORT..reset_control::END_PORT,
            Box::new(reset_control::ResetControl::default()),
        );
        let ports = [power::EVENT_PORT + 2, reset_control::RESET_PORT];
        let values = |bus: &PortBus| {
            ports.map(|port| {
                let mut byte = [0];
                bus.read(port, &mut byte);
                byte[0]
            })
        };
        for port in ports {
            bus.write(port, &[0x22]);
        }
        assert_eq!(values(&bus), [0x22; 2]);
        bus.reset();
        assert_eq!(values(&bus), [0; 2]);
    }

    #[test]
    fn a_wide_write_reaches_the_bus_as_bytes_and_keeps_what_any_of_them_asks() {
        let mut bus = PortBus::default();
        bus.add(
            power::EVENT_PORT..power::END_PORT,
            Box::new(power::Power::default()),
        );
        // Byte 1 of PM1_CNT contains SLP_EN.
        assert_eq!(
            bus.write(power::CONTROL_PORT, &[0x00, 0x20]),
            DeviceOutcome::PowerOff
        );
        assert_eq!(
            bus.write(power::CONTROL_PORT + 1, &[0x20]),
            DeviceOutcome::PowerOff
        );
    }
}
