//! The first serial port (16550, COM1).

use super::PortDevice;
use super::lock;
use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use vm_superio::Serial;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;
use vp_runner::machine::DeviceOutcome;

/// The first port.
pub(crate) const FIRST_PORT: u16 = 0x3f8;
/// The first port behind the serial port.
pub(crate) const END_PORT: u16 = 0x400;
/// The interrupt line.
pub(crate) const IRQ: u32 = 4;

/// The maximum input that the guest has not read yet. Further input is lost, as on a line without flow control.
const MAX_PENDING: usize = 64 << 10;

/// The interrupt line: an event that KVM converts to an edge. Clones share the line.
#[derive(Clone)]
struct IrqLine(Arc<EventFd>);

impl Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The registers of the port, and the input that the guest has not read yet.
struct Port<W: Write> {
    uart: Serial<IrqLine, vm_superio::serial::NoEvents, W>,
    pending: VecDeque<u8>,
}

impl<W: Write> Port<W> {
    /// Moves input into the receive buffer while the buffer has room.
    fn feed(&mut self) {
        let count = self.uart.fifo_capacity().min(self.pending.len());
        if count == 0 {
            return;
        }
        let bytes: Vec<u8> = self.pending.drain(..count).collect();
        if let Err(error) = self.uart.enqueue_raw_bytes(&bytes) {
            tracing::warn!(%error, lost = bytes.len(), "serial input");
        }
    }
}

/// COM1. Clones share the port: one is on the bus, and one belongs to the source of the input.
pub(crate) struct Com1<W: Write> {
    port: Arc<Mutex<Port<W>>>,
    irq: IrqLine,
    out: W,
}

impl<W: Write + Clone> Clone for Com1<W> {
    fn clone(&self) -> Self {
        Self {
            port: self.port.clone(),
            irq: self.irq.clone(),
            out: self.out.clone(),
        }
    }
}

impl<W: Write + Clone> Com1<W> {
    /// A port that raises `irq` and sends the guest's output to `out`. `out` must never block, because a VP waits for
    /// it.
    pub(crate) fn new(irq: EventFd, out: W) -> Self {
        let irq = IrqLine(Arc::new(irq));
        let port = Port {
            uart: Serial::new(irq.clone(), out.clone()),
            pending: VecDeque::new(),
        };
        Self {
            port: Arc::new(Mutex::new(port)),
            irq,
            out,
        }
    }

    /// Queues input for the guest.
    pub(crate) fn receive(&self, bytes: &[u8]) {
        let mut port = lock(&self.port);
        let room = MAX_PENDING - port.pending.len();
        port.pending.extend(&bytes[..bytes.len().min(room)]);
        port.feed();
    }
}

impl<W: Write + Clone + Send> PortDevice for Com1<W> {
    fn read_byte(&mut self, offset: u16) -> u8 {
        let mut port = lock(&self.port);
        let value = u8::try_from(offset).map_or(0xff, |offset| port.uart.read(offset));
        port.feed();
        value
    }

    fn write_byte(&mut self, offset: u16, value: u8) -> DeviceOutcome {
        if let Ok(offset) = u8::try_from(offset)
            && let Err(error) = lock(&self.port).uart.write(offset, value)
        {
            tracing::debug!(%error, "serial output");
        }
        DeviceOutcome::Done
    }

    /// Input that the guest has not read stays available: it is on the line and not in the port.
    fn reset(&mut self) {
        let mut port = lock(&self.port);
        for byte in port.uart.state().in_buffer.into_iter().rev() {
            port.pending.push_front(byte);
        }
        port.uart = Serial::new(self.irq.clone(), self.out.clone());
        port.feed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u16 = 0;
    const INTERRUPT_ENABLE: u16 = 1;
    const LINE_STATUS: u16 = 5;

    #[derive(Clone, Default)]
    struct Wire(Arc<Mutex<Vec<u8>>>);

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port() -> (Com1<Wire>, Wire, EventFd) {
        let irq = EventFd::new(libc::EFD_NONBLOCK).expect("an event");
        let seen = irq.try_clone().expect("the same event");
        let wire = Wire::default();
        (Com1::new(irq, wire.clone()), wire, seen)
    }

    #[test]
    fn what_the_guest_writes_goes_out_also_after_a_reset() {
        let (mut com1, wire, _) = port();
        com1.write(DATA, b"a");
        com1.reset();
        com1.write(DATA, b"b");
        assert_eq!(*lock(&wire.0), b"ab");
    }

    #[test]
    fn input_longer_than_the_buffer_arrives_whole_and_interrupts() {
        let (mut com1, _, irq) = port();
        com1.write(INTERRUPT_ENABLE, &[1]);
        let sent: Vec<u8> = (0..200).collect();
        com1.receive(&sent);
        assert_ne!(irq.read().expect("an interrupt"), 0);
        let mut got = Vec::new();
        while com1.read_byte(LINE_STATUS) & 1 != 0 {
            got.push(com1.read_byte(DATA));
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn input_that_was_not_read_survives_a_reset_in_order() {
        let (mut com1, _, _) = port();
        let sent: Vec<u8> = (0..100).collect();
        com1.receive(&sent);
        let mut got = vec![com1.read_byte(DATA)];
        com1.reset();
        while com1.read_byte(LINE_STATUS) & 1 != 0 {
            got.push(com1.read_byte(DATA));
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn input_that_nobody_reads_is_bounded() {
        let (com1, _, _) = port();
        for _ in 0..3 {
            com1.receive(&[0; MAX_PENDING]);
        }
        assert_eq!(lock(&com1.port).pending.len(), MAX_PENDING);
    }
}
