//! The devices that the demo guest uses: a serial port, the power-off register of ACPI, and the two ways to reset a PC.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

const SERIAL_DATA: u16 = 0x3f8;
const SERIAL_LINE_CONTROL: u16 = 0x3fb;
/// Line control: the data port is the divisor of the baud rate.
const DIVISOR_ACCESS: u8 = 0x80;
const SERIAL_LINE_STATUS: u16 = 0x3fd;
/// Line status: the port takes a byte.
const CAN_SEND: u8 = 0x20;
/// Line status: the port has a byte.
const HAS_RECEIVED: u8 = 1;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
const POWER_CONTROL: u16 = 0x604;
/// SLP_EN, in the second byte.
const SLEEP: u8 = 0x20;
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CPU: u8 = 4;

/// What the guest asks of the VMM by an access to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The guest wants to be switched off.
    PowerOff,
    /// The guest wants a reset.
    Reset,
}

/// The devices.
#[derive(Default)]
pub struct Devices {
    keys: Mutex<VecDeque<u8>>,
    divisor_access: AtomicBool,
}

impl Devices {
    /// Types text on the serial line.
    pub fn type_keys(&self, text: &str) {
        self.keys().extend(text.bytes());
    }

    /// The guest reads a port. A port without a device reads as ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let [byte] = data {
            match port {
                SERIAL_DATA => *byte = self.keys().pop_front().unwrap_or(0),
                SERIAL_LINE_STATUS if self.keys().is_empty() => *byte = CAN_SEND,
                SERIAL_LINE_STATUS => *byte = CAN_SEND | HAS_RECEIVED,
                KEYBOARD_COMMAND => *byte = 0,
                _ => {}
            }
        }
    }

    /// The guest writes a port.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Request> {
        match (port, data) {
            (SERIAL_LINE_CONTROL, [value]) => {
                let divisor = value & DIVISOR_ACCESS != 0;
                self.divisor_access.store(divisor, Ordering::Relaxed);
                None
            }
            (SERIAL_DATA, _) if self.divisor_access.load(Ordering::Relaxed) => None,
            (SERIAL_DATA, text) => {
                let mut out = std::io::stdout().lock();
                // Nobody may be there to read the guest's output.
                let _ = out.write_all(text).and_then(|()| out.flush());
                None
            }
            (POWER_CONTROL, [_, high]) if high & SLEEP != 0 => Some(Request::PowerOff),
            (RESET_CONTROL, [value]) if value & RESET_CPU != 0 => Some(Request::Reset),
            (KEYBOARD_COMMAND, [KEYBOARD_RESET]) => Some(Request::Reset),
            _ => None,
        }
    }

    fn keys(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
